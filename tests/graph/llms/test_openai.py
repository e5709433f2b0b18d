"""The model behind a fake HTTP server: its answers, and every way in which it fails to give one."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
import respx
from pydantic import SecretStr

from graph.grounding import ground, known_components
from graph.llms.base import LlmError, Usage
from graph.llms.openai import OpenAIAnalyst
from graph.llms.openai_settings import Settings
from graph.llms.rules import explain
from graph.masking import Masker
from graph.state import Evidence
from tests.graph.llms import incidents

URL = "https://llm.test/v1/chat/completions"
EVIDENCE = incidents.pool_exhaustion()
CAUSE = {
    "component": "payment-service",
    "category": "connection_pool_exhaustion",
    "title": "Connection pool of payment-service is exhausted",
    "claims": [
        {"text": "Active connections rose from 12.4 to 50.", "evidence": ["E1"]},
        {"text": "There were 99,999 errors.", "evidence": ["E2"]},
    ],
    "mechanism": "Requests wait for a connection.",
    "path": ["payment-service", "checkout-service"],
    "rivals": [
        {"component": "checkout-service", "speaks_for": "It is slow.", "speaks_against": "It waits."},
        {"component": "moon", "speaks_for": "Full.", "speaks_against": ""},
    ],
    "unknowns": ["CloudWatch could not be read."],
    "confidence": "high",
}


def params(**values: object) -> list[dict[str, object]]:
    return [{"name": name, "value": value} for name, value in values.items()]


def step(operation: str, **values: object) -> dict[str, object]:
    return {"operation": operation, "params": params(**values)}


def option(*steps: dict[str, object], title: str = "Do it") -> dict[str, object]:
    return {"title": title, "description": "It helps.", "why": ["E1", "E99"], "steps": list(steps)}


def completion(content: object, finish: str = "stop", refusal: str | None = None) -> dict[str, object]:
    text = content if isinstance(content, str) or content is None else json.dumps(content)
    message = {"role": "assistant", "content": text, "refusal": refusal}
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o",
        "choices": [{"index": 0, "finish_reason": finish, "message": message}],
    }


@pytest.fixture
async def analyst() -> AsyncIterator[OpenAIAnalyst]:
    settings = Settings(
        api_key=SecretStr("sk-secret-of-the-test"), base_url="https://llm.test/v1", timeout_s=5, model="gpt-4o"
    )
    analyst = OpenAIAnalyst(settings, Masker(b"k"), httpx.AsyncClient())
    yield analyst
    await analyst.aclose()


async def failure(analyst: OpenAIAnalyst) -> str:
    with pytest.raises(LlmError) as caught:
        await analyst.analyze(incidents.analysis(EVIDENCE))
    return str(caught.value)


async def options_of(analyst: OpenAIAnalyst, *options: dict[str, object]) -> list[list[str]]:
    with respx.mock:
        respx.post(URL).respond(json=completion({"options": options}))
        request = incidents.plan(EVIDENCE, explain(EVIDENCE, "checkout-service"))
        return [[s.operation for s in o.steps] for o in await analyst.plan(request)]


@respx.mock
async def test_an_explanation_is_translated_and_grounded(analyst: OpenAIAnalyst) -> None:
    respx.post(URL).respond(json=completion(CAUSE))
    root_cause = await analyst.analyze(incidents.analysis(EVIDENCE))
    assert root_cause.engine == "gpt-4o"
    assert not any(claim.verified for claim in root_cause.claims)
    grounded = ground(root_cause, EVIDENCE, known_components(incidents.scope(), EVIDENCE))
    assert [claim.verified for claim in grounded.claims] == [True, False]
    assert grounded.path == (incidents.hop("payment-service", "checkout-service"),)
    assert [rival.component for rival in grounded.rivals] == ["checkout-service"]
    assert grounded.confidence == "medium"


@respx.mock
async def test_what_is_sent(analyst: OpenAIAnalyst) -> None:
    route = respx.post(URL).respond(json=completion(CAUSE))
    await analyst.analyze(incidents.analysis(EVIDENCE))
    sent = json.loads(route.calls[0].request.content)
    schema = sent["response_format"]["json_schema"]
    assert (sent["model"], schema["name"], schema["strict"]) == ("gpt-4o", "root_cause_analyzer", True)
    assert "never instructions" in sent["messages"][0]["content"]
    assert '"id": "E1"' in sent["messages"][1]["content"]


@pytest.mark.parametrize("kind", ["analyze", "plan"])
async def test_schemas_are_strict(analyst: OpenAIAnalyst, kind: str) -> None:
    with respx.mock:
        content = CAUSE if kind == "analyze" else {"options": []}
        route = respx.post(URL).respond(json=completion(content))
        if kind == "analyze":
            await analyst.analyze(incidents.analysis(EVIDENCE))
        else:
            await analyst.plan(incidents.plan(EVIDENCE, explain(EVIDENCE, "checkout-service")))
        root = json.loads(route.calls[0].request.content)["response_format"]["json_schema"]["schema"]
    objects = [s for s in (root, *root["$defs"].values()) if s["type"] == "object"]
    assert len(objects) >= 3
    for schema in objects:
        assert schema["additionalProperties"] is False
        assert set(schema["required"]) == set(schema["properties"])
        assert not any("default" in prop for prop in schema["properties"].values())


@respx.mock
async def test_null_component_is_inconclusive(analyst: OpenAIAnalyst) -> None:
    respx.post(URL).respond(json=completion(CAUSE | {"component": None}))
    root_cause = await analyst.analyze(incidents.analysis(EVIDENCE))
    assert (root_cause.component, root_cause.category, root_cause.confidence) == (
        None,
        "unknown",
        "inconclusive",
    )
    assert root_cause.path == ()


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (completion(None, refusal="I cannot help with that."), "refused: I cannot help"),
        (completion('{"component": "pay', finish="length"), "cut off at the length limit"),
        (completion("", finish="content_filter"), "content filter"),
        (completion('{"component": '), "out of shape: the answer: Invalid JSON"),
        (completion(CAUSE | {"confidence": "certain"}), "out of shape: confidence"),
        (completion(CAUSE | {"sudo": "yes"}), "out of shape: sudo"),
        (completion(None), "out of shape"),
        ({"error": {"message": "upstream died"}}, "no completion"),
        (completion(CAUSE) | {"choices": []}, "no completion"),
        (completion(CAUSE) | {"choices": [{}]}, "no completion"),
        (completion(CAUSE) | {"choices": [None]}, "no completion"),
        (completion(CAUSE) | {"choices": [{"message": "hi"}]}, "no completion"),
        (completion(CAUSE) | {"choices": [{"message": {}}]}, "out of shape"),
        ([1, 2], "gpt-4o"),
    ],
)
@respx.mock
async def test_unusable_answers(analyst: OpenAIAnalyst, body: object, sentence: str) -> None:
    respx.post(URL).respond(json=body)
    assert sentence in await failure(analyst)


@respx.mock
async def test_html_instead_of_json(analyst: OpenAIAnalyst) -> None:
    respx.post(URL).respond(html="<html>Sign in to the guest network</html>")
    assert "no completion" in await failure(analyst)


@respx.mock
async def test_a_body_that_is_no_json(analyst: OpenAIAnalyst) -> None:
    respx.post(URL).respond(content=b"{oops", headers={"content-type": "application/json"})
    assert "gave no readable answer" in await failure(analyst)


@respx.mock
async def test_quota_is_used_up(analyst: OpenAIAnalyst) -> None:
    error = {"error": {"message": "You exceeded sk-secret-of-the-test", "code": "insufficient_quota"}}
    route = respx.post(URL).respond(429, json=error, headers={"retry-after-ms": "1"})
    assert await failure(analyst) == "gpt-4o answered 429: its quota is used up"
    assert route.call_count == 2


@pytest.mark.parametrize("status", [400, 401, 404, 500])
@respx.mock
async def test_error_statuses_keep_the_key_to_themselves(analyst: OpenAIAnalyst, status: int) -> None:
    error = {"error": {"message": "Incorrect API key: sk-secret-of-the-test"}}
    respx.post(URL).respond(status, json=error, headers={"retry-after-ms": "1"})
    sentence = await failure(analyst)
    assert f"answered {status}" in sentence
    assert "sk-" not in sentence


@respx.mock
async def test_a_lost_connection(analyst: OpenAIAnalyst) -> None:
    respx.post(URL).mock(side_effect=httpx.ConnectError("refused"))
    assert "cannot be reached" in await failure(analyst)


@respx.mock
async def test_one_deadline_over_all_attempts() -> None:
    async def stall(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(30)
        return httpx.Response(200)

    respx.post(URL).mock(side_effect=stall)
    settings = Settings(api_key=SecretStr("k"), base_url="https://llm.test/v1", timeout_s=0.05)
    analyst = OpenAIAnalyst(settings, Masker(b"k"), httpx.AsyncClient())
    assert await failure(analyst) == "gpt-4o timed out after 0.05 s"
    await analyst.aclose()


async def test_possible_options_come_through(analyst: OpenAIAnalyst) -> None:
    restart = option(step("restart_ecs_task", service="payment-service"))
    shed = option(
        step("reduce_traffic", service="payment-service", keep_percent=40),
        step("gradual_traffic_restore", service="payment-service", steps_percent=[50, 75, 100], pause_s=60),
    )
    with respx.mock:
        respx.post(URL).respond(json=completion({"options": [restart, restart, shed]}))
        request = incidents.plan(EVIDENCE, explain(EVIDENCE, "checkout-service"))
        first, second = await analyst.plan(request)
    assert (first.why, first.engine, first.risk) == (("E1",), "gpt-4o", "medium")
    assert second.steps[0].params == {"service": "payment-service", "keep_percent": 40}
    assert second.undo


@pytest.mark.parametrize(
    "bad",
    [
        step("drop_database", service="payment-service"),
        step("restart_ecs_task", service="billing-service"),
        step("restart_ecs_task"),
        step("restart_ecs_task", service="payment-service", force=1),
        step("restart_all_services", services=["payment-service", "billing-service"]),
        step("reduce_traffic", service="payment-service", keep_percent=0),
        step("scale_ecs_service", service="payment-service", desired_count=900),
        step("scale_ecs_service", service="payment-service", desired_count="many"),
        step("check_ecs_health", service="payment-service"),
    ],
)
async def test_impossible_options_are_dropped(analyst: OpenAIAnalyst, bad: dict[str, object]) -> None:
    good = option(step("restart_ecs_task", service="payment-service"))
    assert await options_of(analyst, option(bad), good) == [["restart_ecs_task"]]
    with pytest.raises(LlmError, match="only what cannot be done"):
        await options_of(analyst, option(bad))


async def test_no_option_offered_is_an_answer(analyst: OpenAIAnalyst) -> None:
    assert await options_of(analyst) == []


async def test_at_most_three_options(analyst: OpenAIAnalyst) -> None:
    counts = range(2, 7)
    options = [option(step("scale_ecs_service", service="payment-service", desired_count=n)) for n in counts]
    assert len(await options_of(analyst, *options)) == 3


@respx.mock
async def test_secrets_are_masked_before_they_leave(analyst: OpenAIAnalyst) -> None:
    route = respx.post(URL).respond(json=completion(CAUSE))
    leaky = incidents.finding(
        1,
        "log",
        "payment-service",
        "boot",
        "Login of kim@example.com failed",
        excerpt='{"password": "hunter2 hunter3", "url": "postgres://app:s3cr3t@db/x"}',
    )
    evidence = Evidence(digest="d", findings=(leaky,), suspects=EVIDENCE.suspects)
    await analyst.analyze(incidents.analysis(evidence, text="Authorization: Bearer abc.def-123 AKIAABCDEFGHIJKLMNOP"))
    sent = route.calls[0].request.content.decode()
    for secret in ("kim@", "hunter2", "hunter3", "s3cr3t", "abc.def", "AKIA"):
        assert secret not in sent
    for kind in ("email", "secret", "url-password", "authorization", "aws-key"):
        assert f"[{kind}:" in sent


@respx.mock
async def test_nothing_is_sent_where_masking_fails() -> None:
    route = respx.post(URL).respond(json=completion(CAUSE))
    settings = Settings(api_key=SecretStr("sk-x"), base_url="https://llm.test/v1", timeout_s=5, model="gpt-4o")
    analyst = OpenAIAnalyst(settings, Masker(b"k", within_s=-1.0), httpx.AsyncClient())
    with pytest.raises(LlmError, match=r"gpt-4o was not asked: masking .* took over"):
        await analyst.analyze(incidents.analysis(EVIDENCE, text="mail kim@example.com"))
    await analyst.aclose()
    assert not route.called


@pytest.mark.parametrize(
    ("used", "told"),
    [
        ({"prompt_tokens": 3200, "completion_tokens": 640, "total_tokens": 3840}, [(3200, 640, 0.0144)]),
        ({"prompt_tokens": 100}, [(100, 0, 0.00025)]),
        ({"prompt_tokens": -5, "completion_tokens": "many"}, []),
        (None, []),
    ],
)
@respx.mock
async def test_what_an_answer_cost_is_told_also_of_a_useless_one(
    used: object, told: list[tuple[int, int, float]]
) -> None:
    heard: list[Usage] = []
    settings = Settings(api_key=SecretStr("sk-x"), base_url="https://llm.test/v1", timeout_s=5, model="gpt-4o")
    analyst = OpenAIAnalyst(settings, Masker(b"k"), httpx.AsyncClient(), heard.append)
    respx.post(URL).respond(json=completion("no JSON") | {"usage": used})
    await failure(analyst)
    await analyst.aclose()
    assert [(u.prompt_tokens, u.completion_tokens, u.dollars) for u in heard] == told
