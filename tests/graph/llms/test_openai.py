"""The model behind a real HTTP server: its answers, and every way in which it fails to give one."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import BaseModel, JsonValue, SecretStr, ValidationError

from app.simulator.openai import (
    OpenAIServer,
    Reply,
    Request,
    Script,
    call,
    cut_off,
    drop,
    error,
    filtered,
    hang,
    html,
    openai_server,
    raw,
    refuse,
    say,
    trickle,
    without_choices,
)
from graph.llms.base import LlmError
from graph.llms.chat import Answer, Message, Purpose, Question, Tool, ToolCall
from graph.llms.openai import CallFailed, OpenAIChatModel
from graph.llms.openai_settings import Settings

KEY = "sk-secret-of-the-test"


class Verdict(BaseModel):
    component: str | None


class Other(BaseModel):
    text: str


TOOL = Tool(
    "search_logs",
    "Log lines that hold these words",
    {
        "type": "object",
        "properties": {"contains": {"type": "string"}},
        "required": ["contains"],
        "additionalProperties": False,
    },
)
ANSWER = {"component": "payment-service"}


def question(*tools: Tool, answer: type[BaseModel] = Verdict, text: str = "What broke?") -> Question:
    messages = (Message("system", "You explain."), Message("user", text))
    return Question(Purpose("RootCauseAnalyzer"), messages, answer, tools)


def settings(url: str, **changes: Any) -> Settings:
    return Settings(**{"api_key": SecretStr(KEY), "base_url": url, "timeout_s": 10, "profile": "openai", **changes})


@asynccontextmanager
async def asked(script: Script, **changes: Any) -> AsyncIterator[tuple[OpenAIChatModel, OpenAIServer]]:
    async with openai_server(script, key=KEY) as server:
        model = OpenAIChatModel(settings(server.url, **changes))
        yield model, server
        await model.aclose()


async def failure(model: OpenAIChatModel) -> LlmError:
    with pytest.raises(LlmError) as caught:
        await model.ask(question())
    sentence = str(caught.value)
    assert "sk-" not in sentence
    assert "\n" not in sentence
    return caught.value


def at_once(status: int, code: str | None = None, **more: Any) -> Reply:
    """An error that may be tried again without a wait."""
    return error(status, code, **{"headers": {"retry-after-ms": "1"}, **more})


def broken(text: str = "gateway") -> Reply:
    return Reply(body=text, status=503, content_type="text/plain", headers={"retry-after": "0"})


# --- what is sent and what comes back ---


async def test_a_question_and_its_answer() -> None:
    async with asked(say(ANSWER)) as (model, server):
        answer = await model.ask(question())
    assert json.loads(answer.content) == ANSWER
    [sent] = server.requests
    shape = sent["response_format"]["json_schema"]
    assert (sent["model"], shape["name"], shape["strict"]) == ("gpt-4o", "Verdict", True)
    assert shape["schema"]["additionalProperties"] is False
    assert [m["role"] for m in sent["messages"]] == ["system", "user"]
    assert sent["max_completion_tokens"] == 4000
    assert not sent.keys() & {"temperature", "tools", "parallel_tool_calls", "max_tokens", "reasoning_effort"}


async def test_tools_are_offered_strictly_and_their_calls_come_as_the_model_wrote_them() -> None:
    script = [call(("search_logs", {"contains": "pool"}), ("search_logs", '{"contains": '))]
    async with asked(script) as (model, server):
        answer = await model.ask(question(TOOL))
    assert answer.calls == (
        ToolCall("call_1", "search_logs", '{"contains": "pool"}'),
        ToolCall("call_2", "search_logs", '{"contains": '),
    )
    [sent] = server.requests
    assert sent["tools"][0]["function"]["strict"] is True
    assert sent["parallel_tool_calls"] is False
    assert "response_format" in sent


async def test_a_conversation_with_tools_goes_back_in_a_shape_that_every_server_reads() -> None:
    turns = (
        Message("user", "Half a \ud83d surrogate"),
        Message("assistant", calls=(ToolCall("c1", "search_logs", '{"contains": '),)),
        Message("tool", "nothing", call_id="c1"),
    )
    async with asked(say(ANSWER)) as (model, server):
        await model.ask(Question(Purpose("RootCauseAnalyzer"), turns, Verdict, (TOOL,)))
    user, assistant, tool = server.requests[0]["messages"]
    assert user["content"] == "Half a ? surrogate"
    assert assistant["tool_calls"][0]["function"]["arguments"] == "{}"
    assert (assistant["content"], tool["tool_call_id"]) == (None, "c1")


async def test_settings_decide_what_is_sent() -> None:
    changes = {"temperature": 0.0, "reasoning_effort": "low", "max_completion_tokens": 300, "leave_out": ("tools",)}
    async with asked(say(ANSWER), **changes) as (model, server):
        await model.ask(question(TOOL))
    [sent] = server.requests
    assert (sent["temperature"], sent["reasoning_effort"], sent["max_completion_tokens"]) == (0.0, "low", 300)
    assert "tools" not in sent


async def test_a_schema_of_the_incident_takes_the_place_of_the_answers_own() -> None:
    own: dict[str, JsonValue] = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    asks = Question(Purpose("ActionPlanner"), (Message("user", "Plan"),), Verdict, schema=own)
    async with asked(say({})) as (model, server):
        await model.ask(asks)
    assert server.requests[0]["response_format"]["json_schema"]["schema"] == own


@pytest.mark.parametrize(
    ("url", "profile"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("https://x.openai.azure.com/openai/v1/", "azure"),
        ("http://localhost:8000/v1", "compatible"),
        ("https://api.openai.com.evil.test/v1", "compatible"),
    ],
)
def test_the_profile_is_guessed_from_the_url(url: str, profile: str) -> None:
    assert Settings(base_url=url).served_as == profile
    assert Settings(base_url=url, profile="ollama").served_as == "ollama"


@pytest.mark.parametrize(
    ("profile", "there", "missing"),
    [
        ("openai", {"max_completion_tokens", "response_format", "parallel_tool_calls"}, {"max_tokens"}),
        ("vllm", {"max_tokens", "parallel_tool_calls"}, {"max_completion_tokens", "response_format"}),
        ("ollama", {"max_tokens"}, {"max_completion_tokens", "response_format", "parallel_tool_calls"}),
        ("compatible", {"max_tokens"}, {"max_completion_tokens", "response_format"}),
    ],
)
async def test_profiles(profile: str, there: set[str], missing: set[str]) -> None:
    async with asked(say(ANSWER), profile=profile) as (model, server):
        await model.ask(question(TOOL))
        await model.ask(question())
    with_tools, without = server.requests
    assert there <= with_tools.keys()
    assert not missing & with_tools.keys()
    assert "response_format" in without
    if "response_format" in missing:  # where a schema would keep tools from being called, it is told in words
        assert '"component"' in with_tools["messages"][0]["content"]


async def test_azures_older_surface() -> None:
    async with openai_server(say(ANSWER), key=KEY) as server:
        model = OpenAIChatModel(settings(server.origin, profile=None, api_version="2024-10-21", model="our-gpt"))
        answer = await model.ask(question())
        assert await model.known() is False
        await model.aclose()
    assert json.loads(answer.content) == ANSWER
    assert server.headers[0]["api-key"] == KEY
    assert "authorization" not in server.headers[0]


# --- the ladder ---


def understands(*rungs: str) -> Script:
    """A server that takes only these ways to ask for a shape."""

    def answer(request: Request) -> Reply:
        shape = request.get("response_format", {"type": "text"})
        rung = {"text": "text", "json_object": "json_object"}.get(shape["type"])
        rung = rung or ("strict" if shape["json_schema"]["strict"] else "schema")
        if rung in rungs:
            return say(f"Here you are:\n```json\n{json.dumps(ANSWER)}\n```" if rung == "text" else ANSWER)
        return error(400, None, "This response_format type is unavailable now")

    return answer


@pytest.mark.parametrize(
    ("rung", "calls"), [("strict", 1), ("schema", 2), ("json_object", 3), ("text", 4)], ids=lambda v: str(v)
)
async def test_the_ladder_goes_down_as_far_as_it_must_and_stays_there(rung: str, calls: int) -> None:
    async with asked(understands(rung)) as (model, server):
        first = await model.ask(question())
        assert len(server.requests) == calls
        second = await model.ask(question())
        assert len(server.requests) == calls + 1
    assert json.loads(first.content) == json.loads(second.content) == ANSWER
    assert ('"component"' in server.requests[-1]["messages"][0]["content"]) == (rung in ("json_object", "text"))


async def test_what_is_learnt_of_one_answers_schema_is_not_held_against_another() -> None:
    def picky(request: Request) -> Reply:
        shape = request["response_format"].get("json_schema", {})
        bad = shape.get("name") == "Verdict" and shape["strict"]
        return error(400, "invalid_json_schema", param="response_format") if bad else say({})

    async with asked(picky) as (model, server):
        await model.ask(question())
        await model.ask(question(answer=Other))
    assert [r["response_format"]["json_schema"]["strict"] for r in server.requests] == [True, False, True]


async def test_questions_side_by_side_go_down_one_rung_together() -> None:
    async with asked(understands("schema")) as (model, server):
        await asyncio.gather(*(model.ask(question()) for _ in range(6)))
        await model.ask(question())
    assert server.requests[-1]["response_format"]["type"] == "json_schema"


@pytest.mark.parametrize(
    ("refused", "complaint", "then"),
    [
        ("temperature", error(400, "unsupported_value", "no", param="temperature"), set()),
        ("max_completion_tokens", error(400, None, "unknown field", param="max_completion_tokens"), {"max_tokens"}),
        ("parallel_tool_calls", raw({"detail": [{"loc": ["body", "parallel_tool_calls"]}]}, status=422), {"tools"}),
        ("tools", raw({"error": "llama3 does not support tools"}, status=400), set()),
        ("reasoning_effort", error(400, None, "Unrecognized request argument: reasoning_effort"), set()),
    ],
)
async def test_parameters_that_are_refused_are_left_out(refused: str, complaint: Reply, then: set[str]) -> None:
    def answer(request: Request) -> Reply:
        return complaint if refused in request else say(ANSWER)

    async with asked(answer, temperature=0.0, reasoning_effort="low") as (model, server):
        await model.ask(question(TOOL))
        before = len(server.requests)
        await model.ask(question(TOOL))
    assert len(server.requests) == before + 1
    assert refused not in server.requests[-1]
    assert then <= server.requests[-1].keys()


@pytest.mark.parametrize(
    "reply",
    [
        error(400, None, "Invalid 'messages'", param="messages"),
        error(400, None, "max_completion_tokens is too large: 4000", param="max_completion_tokens"),
        error(400, "context_length_exceeded", "…", param="response_format"),
        error(422, None, "something about temperature", param="model"),
        error(403, None, "response_format", param="response_format"),
    ],
)
async def test_other_complaints_are_taken_as_they_are(reply: Reply) -> None:
    async with asked(reply) as (model, server):
        await failure(model)
    assert len(server.requests) == 1


async def test_an_answer_without_any_bound_is_not_asked_for() -> None:
    def stubborn(request: Request) -> Reply:
        name = next(name for name in ("max_completion_tokens", "max_tokens") if name in request)
        return error(400, "unsupported_parameter", param=name)

    async with asked(stubborn) as (model, server):
        assert "answered 400 (unsupported_parameter)" in str(await failure(model))
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ('{"component": null}', '{"component": null}'),
        ('```json\n{"component": "a"}\n```', '{"component": "a"}'),
        ('<think>{"component": "decoy of some length"}</think>{"component": "a"}', '{"component": "a"}'),
        ('As in {"x": 1}: {"component": "payment-service"} Done.', '{"component": "payment-service"}'),
        ('{"component": "</think>"}', '{"component": "</think>"}'),
        ('{"component": "pay', '{"component": "pay'),
        ('{"claims": [{"text": "a"}', '{"claims": [{"text": "a"}'),
        ("{" * 5_000, "{" * 5_000),
        ("I would restart it.", "I would restart it."),
    ],
)
async def test_the_json_is_taken_from_the_text_and_what_is_broken_stays(said: str, read: str) -> None:
    async with asked(say(said)) as (model, _):
        assert (await model.ask(question())).content == read


# --- answers that are none ---


def completion(**choice: object) -> dict[str, object]:
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (refuse("I cannot help\nwith that."), "gpt-4o refused: I cannot help with that."),
        (cut_off(), "cut off at the length limit"),
        (say("{}", finish_reason="model_length"), "cut off at the length limit"),
        (filtered(), "stopped by its content filter"),
        (raw(completion(finish_reason="content_filter")), "stopped by its content filter"),
        (raw(completion(finish_reason="stop")), "no completion"),
        (raw(completion(message={})), "no completion"),
        (raw(completion(message={"content": None}, finish_reason="tool_calls")), "no completion"),
        (raw(completion(message="hi")), "no completion"),
        (raw({"choices": [None]}), "no completion"),
        (raw({"choices": []}), "no completion"),
        (raw([1, 2]), "no completion"),
        (raw("{oops"), "no completion"),
        (raw('{"choices": ' + "[" * 10_000), "no completion"),
        (raw("null"), "no completion"),
        (without_choices(), "no completion"),
        (raw({"error": {"message": f"upstream died of {KEY}"}}), "an error in place of a completion"),
        (raw(""), "an empty answer"),
        (html(), "a web page"),
        (raw('{"choices": [' + " " * 2_100_000), "more than 2 MB"),
        (Reply(body="{}", headers={"content-encoding": "gzip"}), "packed"),
        (error(307, headers={"location": "http://127.0.0.1:9/v1/chat/completions"}), "answered 307"),
    ],
)
async def test_unusable_answers(reply: Reply, sentence: str) -> None:
    async with asked(reply) as (model, server):
        assert sentence in str(await failure(model))
    assert len(server.requests) == 1


async def test_what_can_be_read_in_spite_of_its_oddities() -> None:
    two = completion(message={"content": "{}"}, finish_reason="eos") | {"usage": {"prompt_tokens": "many"}}
    two["choices"] = [*two["choices"], {"message": {"content": "second"}}]  # type: ignore[misc]
    odd_call = {"type": "function", "function": {"name": "search_logs", "arguments": {"contains": "x"}}}
    calls = completion(message={"tool_calls": [{"type": "custom"}, odd_call]}, finish_reason="stop")
    async with asked([raw(two), raw(calls)]) as (model, _):
        first, second = await model.ask(question()), await model.ask(question(TOOL))
    assert (first.content, first.usage.finish_reason, first.usage.prompt_tokens) == ("{}", "eos", 0)
    assert second.calls == (ToolCall("call_1", "search_logs", '{"contains": "x"}'),)


# --- errors ---


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (error(400, "content_filter"), "400: its content filter refused the question"),
        (error(400, "context_length_exceeded"), "lower AUTOPILOT_MODEL_INPUT_TOKENS"),
        (
            error(400, None, "This model's maximum context length is 4096 tokens", "max_tokens"),
            "longer than its context",
        ),
        (error(400, "misalignment_policy_violation"), "a person must look"),
        (error(401, "invalid_api_key", f"Incorrect API key: {KEY}"), "check OPENAI_API_KEY"),
        (error(403, KEY, f"Project of {KEY}"), "check OPENAI_API_KEY and OPENAI_MODEL"),
        (error(404, "model_not_found"), "check OPENAI_MODEL"),
        (html(status=404), "check OPENAI_MODEL and OPENAI_BASE_URL"),
        (error(413), "too large for its server"),
        (error(418, "i_am_a_teapot"), "gpt-4o answered 418 (i_am_a_teapot)"),
        (error(418, f"code {KEY}"), "gpt-4o answered 418"),
    ],
)
async def test_refusals_of_the_server_say_what_to_do_and_are_not_repeated(reply: Reply, sentence: str) -> None:
    async with asked(reply) as (model, server):
        failed = await failure(model)
    assert sentence in str(failed)
    assert len(server.requests) == 1
    assert failed.usage is not None  # surely nothing was done
    assert failed.usage.prompt_tokens == 0


@pytest.mark.parametrize(
    "reply",
    [
        raw({"error": {"code": ["x"], "type": {"x": 1}, "param": [1], "message": 5}}, status=400),
        raw({"error": {"code": {}}}, status=429),
        raw({"detail": [{"loc": ["body", {"x": 1}]}]}, status=422),
        raw([[]], status=503),
        raw('{"error": ' + "[" * 100_000, status=500),
        raw("{}", "application/json; charset=rot13", 400),
        raw("{}", "application/json; charset=zlib", 500),
        raw(" " * 2_100_000, status=500),
        at_once(429, headers={"retry-after": "Mon, 01 Jan 2024 00:00:00 +99999999999999999999"}),
        at_once(429, headers={"retry-after": "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"}),
    ],
)
async def test_an_error_of_any_shape_is_one_sentence(reply: Reply) -> None:
    async with asked(reply) as (model, _):
        assert str(await failure(model)).startswith("gpt-4o answered ")


async def test_a_used_up_quota_is_not_asked_again() -> None:
    async with asked(at_once(429, "insufficient_quota", message=f"You exceeded {KEY}")) as (model, server):
        assert "429: its quota is used up" in str(await failure(model))
    assert len(server.requests) == 1


@pytest.mark.parametrize("reply", [at_once(408), at_once(409), at_once(429), at_once(500), broken(), drop()])
async def test_passing_trouble_is_tried_once_more(reply: Reply) -> None:
    async with asked([reply, say(ANSWER)]) as (model, server):
        assert json.loads((await model.ask(question())).content) == ANSWER
    assert len(server.requests) == 2


@pytest.mark.parametrize("reply", [at_once(429), at_once(502), broken(KEY)])
async def test_trouble_that_stays_is_told_after_two_tries(reply: Reply) -> None:
    async with asked(reply) as (model, server):
        assert "answered" in str(await failure(model))
    assert len(server.requests) == 2


@pytest.mark.parametrize("wait", ["3600", "Wed, 21 Oct 2065 07:28:00 GMT", "inf"])
async def test_a_rest_beyond_the_deadline_is_not_waited_for(wait: str) -> None:
    busy = error(429, "rate_limit_exceeded", headers={"retry-after": wait})
    script = [busy, say(ANSWER)]
    async with asked(script, timeout_s=2) as (model, server):
        if wait == "inf":  # no number of seconds: as if it had not been told
            await model.ask(question())
            return
        assert "wants" in str(await failure(model))
    assert len(server.requests) == 1


@pytest.mark.parametrize("reply", [hang(), trickle(say({"component": "x" * 4_000}))])
async def test_one_deadline_over_everything(reply: Reply) -> None:
    async with asked(reply, timeout_s=0.3) as (model, server):
        failed = await failure(model)
    assert str(failed) == "gpt-4o timed out after 0.3 s"
    assert failed.usage is None  # nobody knows what that cost
    assert len(server.requests) == 1


async def test_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        model = OpenAIChatModel(settings(f"http://127.0.0.1:{probe.getsockname()[1]}/v1"))
        failed = await failure(model)
        await model.aclose()
    assert str(failed) == "gpt-4o cannot be reached (check OPENAI_BASE_URL)"
    assert failed.usage is not None


async def test_a_cancelled_question_stays_cancelled() -> None:
    async with asked(hang()) as (model, _):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await model.ask(question())


# --- the breaker ---


async def test_a_probe_that_is_cancelled_does_not_keep_the_others_out() -> None:
    async with asked([at_once(500), at_once(500), hang(), say(ANSWER)], breaker_failures=1, breaker_s=0.2) as (
        model,
        _,
    ):
        await failure(model)
        await asyncio.sleep(0.25)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await model.ask(question())
        assert json.loads((await model.ask(question())).content) == ANSWER


async def test_a_server_that_is_down_is_left_alone_and_then_probed_once() -> None:
    replies = [at_once(500)] * 4
    async with asked([*replies, say(ANSWER), say(ANSWER)], breaker_failures=2, breaker_s=0.3) as (model, server):
        await failure(model)
        await failure(model)
        open_ = await failure(model)
        assert len(server.requests) == 4
        await asyncio.sleep(0.35)
        probe, other = await asyncio.gather(model.ask(question()), model.ask(question()), return_exceptions=True)
        assert json.loads((await model.ask(question())).content) == ANSWER
    assert "failed 2 times in a row, so nothing is asked from" in str(open_)
    assert " until " in str(open_)
    assert open_.usage is not None
    assert not isinstance(probe, BaseException)
    assert "finding out whether its server works again" in str(other)


@pytest.mark.parametrize("reply", [html(), refuse(), at_once(429), error(401), say("no JSON")])
async def test_a_server_that_answers_is_not_down(reply: Reply) -> None:
    async with asked(reply, breaker_failures=1) as (model, server):
        await asyncio.gather(model.ask(question()), return_exceptions=True)
        once = len(server.requests)
        again = await asyncio.gather(model.ask(question()), return_exceptions=True)
    assert len(server.requests) == 2 * once
    assert "in a row" not in str(again)


async def test_failures_that_are_not_in_a_row_do_not_add_up() -> None:
    script = [at_once(500), at_once(500), say(ANSWER), at_once(500), at_once(500), say(ANSWER)]
    async with asked(script, breaker_failures=2) as (model, _):
        await failure(model)
        await model.ask(question())
        await failure(model)
        await model.ask(question())


# --- what it costs ---


@pytest.mark.parametrize(
    ("used", "told"),
    [
        ({"prompt_tokens": 3200, "completion_tokens": 640}, (3200, 640, 0, 0.0144)),
        (
            {"prompt_tokens": 3200, "completion_tokens": 640, "prompt_tokens_details": {"cached_tokens": 3000}},
            (3200, 640, 3000, 0.01065),
        ),
        ({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 99}}, (10, 0, 10, 0.000013)),
        ({"prompt_tokens": 100, "prompt_tokens_details": None}, (100, 0, 0, 0.00025)),
        ({"prompt_tokens": 10**30, "completion_tokens": 1}, (0, 1, 0, 0.00001)),
        ({"prompt_tokens": -5, "completion_tokens": "many"}, (0, 0, 0, 0.0)),
        ({"prompt_tokens": True, "completion_tokens": 12.0}, (0, 12, 0, 0.00012)),
        (None, (0, 0, 0, 0.0)),
    ],
)
async def test_usage(used: Mapping[str, object] | None, told: tuple[int, int, int, float]) -> None:
    reply = say(ANSWER, usage=used, tells_usage=used is not None)
    async with asked(reply, dollars_per_million_cached=1.25) as (model, _):
        usage = (await model.ask(question())).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.dollars) == told
    assert (usage.model, usage.finish_reason) == ("gpt-4o", "stop")
    assert usage.seconds > 0


@pytest.mark.parametrize(
    ("told", "model"),
    [
        ("gpt-4o-2024-08-06", "gpt-4o-2024-08-06"),
        ("meta-llama/Llama-3.3:70b", "meta-llama/Llama-3.3:70b"),
        ("run this\nnow", "gpt-4o"),
        (["x"], "gpt-4o"),
        (None, "gpt-4o"),
    ],
)
async def test_which_model_answered(told: JsonValue, model: str) -> None:
    async with asked(raw(completion(message={"content": "{}"}) | {"model": told})) as (asking, _):
        assert (await asking.ask(question())).usage.model == model


@pytest.mark.parametrize("reply", [refuse(), cut_off(), filtered()])
async def test_what_a_useless_answer_cost_is_told(reply: Reply) -> None:
    async with asked(reply) as (model, _):
        usage = (await failure(model)).usage
    assert usage is not None
    assert usage.dollars > 0


async def test_what_a_useless_answer_cost_is_not_made_up() -> None:
    async with asked(say("", refusal="No.", tells_usage=False)) as (model, _):
        assert (await failure(model)).usage is None


@pytest.mark.parametrize(
    ("first", "then", "lost"),
    [
        (at_once(503), say(ANSWER), 0),
        (at_once(504), say(ANSWER), 1),  # the model may have gone on behind the gateway
        (drop(), say(ANSWER), 1),
        (drop(), error(401), 1),
        (drop(), drop(), 2),
        (at_once(503), drop(), 1),
        (drop(), say("", refusal="No."), 1),
    ],
)
async def test_attempts_whose_cost_nobody_knows_are_counted(first: Reply, then: Reply, lost: int) -> None:
    async with asked([first, then]) as (model, server):
        [told] = await asyncio.gather(model.ask(question()), return_exceptions=True)
    assert isinstance(told, (Answer, LlmError))
    assert (len(server.requests), told.lost_attempts) == (2, lost)


# --- settings, and whether the model is there ---


@pytest.mark.parametrize(
    "wrong",
    [
        {"api_key": SecretStr("sk-of-a-tést")},
        {"api_key": SecretStr("sk-of\r\nX-Header: 1")},
        {"base_url": "api.openai.com"},
        {"base_url": "https://user:sk-of-x@llm.test/v1"},
        {"base_url": "https://llm.test/v1?key=sk-of-x"},
        {"base_url": "https://llm.test:99999/v1"},
        {"base_url": "https://llm .test/sk-of-x"},
        {"dollars_per_million_input": float("inf")},
        {"timeout_s": 0},
        {"profile": "bedrock"},
        {"leave_out": "messages"},
    ],
)
def test_settings_that_cannot_work_are_refused_without_telling_the_key(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(**wrong)
    assert "sk-of" not in str(caught.value)


def test_lists_are_told_as_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_LEAVE_OUT", "tools, strict")
    assert Settings().leave_out == ("tools", "strict")


def test_a_key_with_its_line_end_is_a_key() -> None:
    key = Settings(api_key=SecretStr("sk-x\n")).api_key
    assert key is not None
    assert key.get_secret_value() == "sk-x"
    assert "sk-x" not in repr(Settings(api_key=SecretStr("sk-x")))


async def test_whether_the_server_knows_the_model() -> None:
    async with openai_server(say(""), key=KEY, models=["gpt-4o", "org/llama"]) as server:
        for name, profile in (("gpt-4o", "openai"), ("org/llama", "vllm")):
            model = OpenAIChatModel(settings(server.url, model=name, profile=profile))
            assert await model.known() is True
            await model.aclose()
        lost = OpenAIChatModel(settings(server.url, model="gpt-3"))
        with pytest.raises(CallFailed, match="its server knows no model gpt-3") as caught:
            await lost.known()
        await lost.aclose()
        assert caught.value.mend == "Check OPENAI_MODEL."
        stranger = OpenAIChatModel(settings(server.url, api_key=SecretStr("sk-wrong-key-of-a-test")))
        with pytest.raises(CallFailed) as refused:
            await stranger.known()
        await stranger.aclose()
    assert refused.value.mend == "Check OPENAI_API_KEY."
    assert "sk-" not in str(refused.value)
