"""The fake of OpenAI: it refuses what OpenAI refuses, and its honest reader finds its way through a brief."""

import asyncio
import json
import signal
import subprocess
import sys
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from app.simulator.openai import OpenAIServer, call, drop, error, html, openai_server, say, trickle
from app.simulator.openai_reader import read_brief
from graph.llms.analyst import ModelAnalyst
from graph.llms.openai import OpenAIChatModel
from graph.llms.openai_settings import Settings
from graph.llms.rules import explain
from graph.masking import Masker
from graph.state import Evidence
from tests.conftest import Worlds
from tests.graph.llms import incidents

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "string"}},
    "required": ["a"],
    "additionalProperties": False,
}


def body(**changes: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": "Say a as JSON"}], **changes}


def shaped(**schema: Any) -> dict[str, Any]:
    described = {"name": "answer", "strict": True, "schema": SCHEMA | schema}
    return body(response_format={"type": "json_schema", "json_schema": described})


def tooled(name: str = "look", **function: Any) -> dict[str, Any]:
    return body(
        tools=[{"type": "function", "function": {"name": name, "parameters": SCHEMA, "strict": True, **function}}]
    )


async def post(server: OpenAIServer, request: object, key: str = "sk-x") -> httpx.Response:
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {key}"}, timeout=10) as client:
        return await client.post(f"{server.url}/chat/completions", json=request)


async def test_a_completion_has_the_shape_and_the_same_figures_every_time() -> None:
    async with openai_server(say({"a": "b"})) as server:
        first, second = (await post(server, shaped()), await post(server, shaped()))
    completion = first.json()
    assert completion == second.json()
    assert completion["choices"][0]["message"]["content"] == '{"a": "b"}'
    assert completion["usage"]["prompt_tokens"] > 10
    assert server.requests == [shaped(), shaped()]


@pytest.mark.parametrize(
    ("request_", "param", "code"),
    [
        (body(thinking=True), "thinking", "unknown_parameter"),
        (body(messages=[]), "messages", "missing_required_parameter"),
        (shaped(type="array"), "response_format", "invalid_json_schema"),
        (shaped(required=[]), "response_format", "invalid_json_schema"),
        (shaped(additionalProperties=True), "response_format", "invalid_json_schema"),
        (shaped(properties={"a": {"type": "string", "default": "x"}}), "response_format", "invalid_json_schema"),
        (shaped(properties={"a": {"type": "string", "enum": []}}), "response_format", "invalid_json_schema"),
        (shaped(properties={"a": {}}), "response_format", "invalid_json_schema"),
        (shaped(properties={"a": {"type": "array"}}), "response_format", "invalid_json_schema"),
        (shaped(properties={"a": {"anyOf": []}}), "response_format", "invalid_json_schema"),
        (shaped(**{"$defs": {"b": {"type": "object", "properties": {}}}}), "response_format", "invalid_json_schema"),
        (tooled("no spaces"), "tools[0].function.name", "invalid_value"),
        (tooled(parameters={"type": "object"}), "tools[0].function.parameters", "invalid_function_parameters"),
        (tooled() | {"tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice", "invalid_value"),
        (body(parallel_tool_calls=False), "parallel_tool_calls", None),
        (
            {**body(response_format={"type": "json_object"}), "messages": [{"role": "user", "content": "Hi"}]},
            "messages",
            None,
        ),
    ],
)
async def test_what_openai_refuses(request_: dict[str, Any], param: str, code: str | None) -> None:
    async with openai_server(say("")) as server:
        refused = await post(server, request_)
    assert refused.status_code == 400
    assert (refused.json()["error"]["param"], refused.json()["error"]["code"]) == (param, code)


@pytest.mark.parametrize("request_", [body(), shaped(), tooled(), body(response_format={"type": "json_object"})])
async def test_what_openai_takes(request_: dict[str, Any]) -> None:
    async with openai_server(say("{}")) as server:
        assert (await post(server, request_)).status_code == 200


async def test_keys_and_models() -> None:
    async with openai_server(say(""), key="sk-right-key-of-a-test", models=["m"]) as server:
        wrong = await post(server, body(), "sk-wrong-key-of-a-test")
        unknown = await post(server, body(), "sk-right-key-of-a-test")
        assert server.requests == [body()]  # one without a key is not worth a record
    assert (wrong.status_code, unknown.status_code) == (401, 404)
    assert "sk-wrong" in wrong.text  # as OpenAI's, it quotes a part of the key


async def test_a_script_is_used_up_and_says_so() -> None:
    async with openai_server(
        [call(("look", {"a": "b"})), html(), error(429, "slow_down", headers={"x-y": "z"})]
    ) as server:
        answers = [await post(server, body()) for _ in range(4)]
    assert answers[0].json()["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == '{"a": "b"}'
    assert answers[1].headers["content-type"].startswith("text/html")
    assert answers[2].headers["x-y"] == "z"
    assert [a.status_code for a in answers] == [200, 200, 429, 500]
    assert answers[3].json()["error"]["code"] == "script_used_up"


async def test_a_body_that_comes_slowly_and_one_that_never_comes_whole() -> None:
    async with openai_server([trickle(say("slow"), 0.001), drop()]) as server:
        assert (await post(server, body())).json()["choices"][0]["message"]["content"] == "slow"
        with pytest.raises(httpx.RemoteProtocolError):
            await post(server, body())


def test_the_reader_from_the_command_line() -> None:
    command = [sys.executable, "-m", "app.simulator.openai_reader"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            assert httpx.get(f"{url}/models", headers={"authorization": "Bearer x"}, timeout=10).status_code == 200
        finally:
            process.send_signal(signal.SIGINT)
    assert process.returncode == 0


def test_outside_of_a_loop() -> None:
    with openai_server(say("hello")) as server:
        assert asyncio.run(post(server, body())).status_code == 200


# --- the honest reader, and the whole way of a model ---


@pytest.mark.parametrize("profile", ["openai", "compatible"])
async def test_the_reader_explains_and_plans_through_the_whole_port(profile: str) -> None:
    evidence = incidents.pool_exhaustion()
    async with openai_server(read_brief) as server:
        settings = Settings(api_key=SecretStr("sk-x"), base_url=server.url, profile=profile, timeout_s=20)
        model = OpenAIChatModel(settings)
        analyst = ModelAnalyst(model, Masker(b"k"))
        analysis = await analyst.analyze(incidents.analysis(evidence))
        plan = await analyst.plan(incidents.plan(evidence, explain(evidence, "checkout-service")))
        await model.aclose()
    cause = analysis.root_cause
    assert (cause.component, cause.category) == ("payment-service", "connection_pool_exhaustion")
    assert cause.claims
    assert all(claim.verified for claim in cause.claims)
    assert plan.options
    assert plan.options[0].steps[0].params["service"] == "payment-service"


async def test_the_reader_blames_nobody_without_suspects() -> None:
    nothing = Evidence(digest="d", findings=(), suspects=())
    async with openai_server(read_brief) as server:
        model = OpenAIChatModel(Settings(api_key=SecretStr("sk-x"), base_url=server.url, profile="openai"))
        analysis = await ModelAnalyst(model, Masker(b"k")).analyze(incidents.analysis(nothing))
        await model.aclose()
    assert analysis.root_cause.component is None


def test_an_incident_of_the_shop_goes_the_way_of_a_model(worlds: Worlds) -> None:
    world = worlds("bad-deploy")
    with openai_server(read_brief, key="sk-of-the-shop") as server:
        world.environment |= {
            "OPENAI_API_KEY": "sk-of-the-shop",
            "OPENAI_BASE_URL": server.url,
            "OPENAI_PROFILE": "openai",
        }
        client = world.start_api()
        world.start_worker()
        incident = world.to_the_decision(client)
        cause = world.report(client, incident)["root_cause"]
        options = client.get(f"/incidents/{incident}/actions").json()["options"]
    assert (cause["engine"], cause["component"]) == ("gpt-4o", "checkout")
    assert any(claim["verified"] for claim in cause["claims"])
    assert {option["engine"] for option in options} == {"gpt-4o"}
    assert server.requests
    assert "sk-of-the-shop" not in json.dumps(server.requests) + world.logs()
