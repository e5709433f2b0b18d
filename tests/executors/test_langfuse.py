"""The operations on prompts, against Langfuse's prompts API in memory."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from pydantic import JsonValue

from executors import langfuse
from executors.base import AnyOperation, ExecutorError, LangfusePrompt, OutcomeUnknown, Refused, Resource
from tests.executors.conftest import InstantClock, operation

NAME = "support/answer"
PATH = "/api/public/v2/prompts/support%2Fanswer"
RESOURCES = {
    "assistant": Resource(
        service="assistant", prompt=LangfusePrompt(name=NAME, models=("gpt-4.1", "gpt-4o", "claude-sonnet-4"))
    ),
    "plain": Resource(service="plain", prompt=LangfusePrompt(name="plain")),
    "legacy": Resource(service="legacy"),
}


def version(number: int, model: str | None, *labels: str) -> dict[str, Any]:
    """One version of the prompt."""
    config = {"temperature": 0.2, **({"model": model} if model else {})}
    return {
        "name": NAME,
        "version": number,
        "type": "text",
        "prompt": f"Text {number}",
        "config": config,
        "labels": list(labels),
        "tags": ["support"],
    }


@dataclass
class FakeLangfuse:
    """Versions of one prompt; a label is on one version at a time, and ``latest`` is Langfuse's own."""

    versions: list[dict[str, Any]] = field(
        default_factory=lambda: [
            version(3, "gpt-4.1", "staging"),
            version(5, "gpt-4o"),
            version(7, "gpt-4.1", "production", "latest"),
        ]
    )
    requests: list[httpx.Request] = field(default_factory=list)
    fails: dict[str, httpx.Response | Exception] = field(default_factory=dict)  # by method
    answers_late: bool = False  # a write is done, and its answer lost

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Its answer."""
        self.requests.append(request)
        failure = self.fails.get(request.method)
        if isinstance(failure, Exception):
            raise failure
        if failure is not None:
            return failure
        answer = self._answer(request)
        if self.answers_late and request.method != "GET":
            raise httpx.ReadTimeout("too late", request=request)
        return answer

    def writes(self) -> list[tuple[str, str, Any]]:
        """Method, path and body of what was to change."""
        return [(r.method, r.url.raw_path.decode(), json.loads(r.content)) for r in self.requests if r.method != "GET"]

    def behind(self, label: str) -> int:
        """The version that has the label."""
        return int(next(v["version"] for v in self.versions if label in v["labels"]))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"].startswith("Basic ")
        if request.method == "POST":
            return httpx.Response(201, json=self._added(json.loads(request.content)))
        if request.method == "PATCH":
            number = int(request.url.path.rpartition("/")[2])
            return httpx.Response(200, json=self._labelled(number, json.loads(request.content)["newLabels"]))
        if request.url.raw_path.startswith(PATH.encode()):
            return self._one(request.url.params)
        if request.url.path == "/api/public/v2/prompts":
            return httpx.Response(
                200, json={"data": [{"name": NAME, "versions": [v["version"] for v in self.versions]}]}
            )
        return httpx.Response(404, json={"message": "Prompt not found"})

    def _one(self, asked: httpx.QueryParams) -> httpx.Response:
        for one in self.versions:
            if str(one["version"]) == asked.get("version") or asked.get("label") in one["labels"]:
                return httpx.Response(200, json=one)
        return httpx.Response(404, json={"message": "Prompt not found"})

    def _added(self, body: dict[str, Any]) -> dict[str, Any]:
        made = {**body, "version": max(v["version"] for v in self.versions) + 1}
        self.versions.append(made)
        return self._labelled(made["version"], body["labels"])

    def _labelled(self, number: int, labels: list[str]) -> dict[str, Any]:
        assert "latest" not in labels
        for one in self.versions:
            one["labels"] = [label for label in one["labels"] if label not in labels]
        found = next(v for v in self.versions if v["version"] == number)
        found["labels"] = [*labels, *(["latest"] if "latest" in found["labels"] else [])]
        return dict(found)


@pytest.fixture
def fake() -> FakeLangfuse:
    return FakeLangfuse()


@pytest.fixture
async def executor(fake: FakeLangfuse, clock: InstantClock) -> AsyncIterator[langfuse.LangfuseExecutor]:
    api = langfuse.Langfuse("https://langfuse.example", ("pk", "sk"), httpx.MockTransport(fake))
    executor = langfuse.LangfuseExecutor(RESOURCES, clock, api)
    yield executor
    await executor.aclose()


def asked(one: AnyOperation, **params: JsonValue) -> Any:
    """Its params."""
    return one.params.model_validate({"service": "assistant", **params})


async def test_the_label_moves_to_the_version_before_and_back(
    executor: langfuse.LangfuseExecutor, fake: FakeLangfuse, clock: InstantClock
) -> None:
    switch = operation(executor, "switch_prompt_version")
    params = asked(switch)
    before = await switch.inspect(params)
    said = "assistant: production of prompt support/answer: version 7 (gpt-4.1) -> 5 (gpt-4o)"
    assert (await switch.execute(params, before)).detail == said == switch.preview(params, before)
    assert fake.writes() == [("PATCH", f"{PATH}/versions/5", {"newLabels": ["production"]})]
    assert (await switch.settle(params, before))["version"] == 5
    assert sum(clock.slept) >= 60, "SDKs keep a prompt for a minute"
    assert await switch.probe(params, before) == "done"
    assert (await switch.undo(params, before)).detail == "assistant: production of support/answer: 5 -> 7"
    assert fake.behind("production") == 7
    assert "already" in (await switch.undo(params, before)).detail
    assert len(fake.writes()) == 2


async def test_a_version_keeps_the_labels_that_it_has(executor: langfuse.LangfuseExecutor, fake: FakeLangfuse) -> None:
    switch = operation(executor, "switch_prompt_version")
    params = asked(switch, version=3)
    await switch.execute(params, await switch.inspect(params))
    assert fake.writes()[0][2] == {"newLabels": ["staging", "production"]}


async def test_what_an_approval_is_bound_to_and_what_it_shows(executor: langfuse.LangfuseExecutor) -> None:
    switch = operation(executor, "switch_prompt_version")
    params = asked(switch)
    before = await switch.inspect(params)
    assert switch.pinned(params, before) == {"label": "production", "version": 7, "target": 5}
    assert [(c.before, c.after) for c in switch.changes(params, before)] == [
        ("version 7", "version 5"),
        ("gpt-4.1", "gpt-4o"),
    ]
    assert "Text" not in str(before), "the prompt's text is not kept"
    assert [c.status for c in await switch.preflight(params, before)] == ["skipped"]


async def test_a_label_that_was_moved_a_moment_ago_is_left_alone(
    executor: langfuse.LangfuseExecutor, fake: FakeLangfuse
) -> None:
    switch = operation(executor, "switch_prompt_version")
    params = asked(switch)
    before = await switch.inspect(params)
    fake.versions.append(version(8, "gpt-4o"))
    fake._labelled(8, ["production"])
    with pytest.raises(Refused, match="moved to version 8 a moment ago"):
        await switch.execute(params, before)
    assert await switch.probe(params, before) == "unknown"
    with pytest.raises(Refused, match="somebody else moved production to version 8"):
        await switch.undo(params, before)
    assert not fake.writes()


@pytest.mark.parametrize("name", ["switch_prompt_version", "switch_prompt_model"])
async def test_after_a_lost_answer_the_label_tells_what_was_done(
    executor: langfuse.LangfuseExecutor, fake: FakeLangfuse, name: str
) -> None:
    switch = operation(executor, name)
    params = asked(switch)
    before = await switch.inspect(params)
    assert await switch.probe(params, before) == "not_done"
    fake.answers_late = True
    with pytest.raises(OutcomeUnknown, match="did not answer"):
        await switch.execute(params, before)
    assert len(fake.writes()) == 1
    assert await switch.probe(params, before) == "done"


async def test_another_model_is_a_new_version_of_the_same_prompt(
    executor: langfuse.LangfuseExecutor, fake: FakeLangfuse
) -> None:
    switch = operation(executor, "switch_prompt_model")
    params = asked(switch, model="claude-sonnet-4")
    before = await switch.inspect(params)
    await switch.execute(params, before)
    assert fake.writes() == [
        (
            "POST",
            "/api/public/v2/prompts",
            {
                "type": "text",
                "name": NAME,
                "prompt": "Text 7",
                "config": {"temperature": 0.2, "model": "claude-sonnet-4"},
                "labels": ["production"],
                "tags": ["support"],
                "commitMessage": "Model gpt-4.1 -> claude-sonnet-4",
            },
        )
    ]
    assert (await switch.settle(params, before))["model"] == "claude-sonnet-4"
    await switch.undo(params, before)
    assert fake.behind("production") == 7


async def test_without_a_name_it_is_the_first_model_not_in_use(executor: langfuse.LangfuseExecutor) -> None:
    switch = operation(executor, "switch_prompt_model")
    params = asked(switch)
    before = await switch.inspect(params)
    assert switch.preview(params, before) == "assistant: model of prompt support/answer (production): gpt-4.1 -> gpt-4o"


async def test_what_cannot_be_switched_says_why(executor: langfuse.LangfuseExecutor, fake: FakeLangfuse) -> None:
    of_version, of_model = (operation(executor, f"switch_prompt_{what}") for what in ("version", "model"))
    with pytest.raises(Refused, match="on version 7 already"):
        of_version.preview(asked(of_version), await of_version.inspect(asked(of_version, version=7)))
    with pytest.raises(ExecutorError, match=r"404.*Prompt not found"):
        await of_version.inspect(asked(of_version, version=99))
    with pytest.raises(Refused, match=r"gpt-2 is not a model.*services\.assistant\.prompt\.models"):
        of_model.resource(asked(of_model, model="gpt-2"))
    with pytest.raises(Refused, match="in use already"):
        of_model.preview(asked(of_model), await of_model.inspect(asked(of_model, model="gpt-4.1")))
    with pytest.raises(Refused, match=r"services\.legacy\.prompt"):
        of_model.resource(asked(of_model, service="legacy"))
    fake.versions[2]["config"] = {}
    with pytest.raises(Refused, match=r"names no config\.model"):
        of_model.preview(asked(of_model), await of_model.inspect(asked(of_model)))
    fake.versions = fake.versions[2:]
    with pytest.raises(Refused, match="no version before 7"):
        of_version.preview(asked(of_version), await of_version.inspect(asked(of_version)))


def test_the_catalogue_says_which_operation_can_act_on_what(executor: langfuse.LangfuseExecutor) -> None:
    of_version, of_model = (operation(executor, f"switch_prompt_{what}") for what in ("version", "model"))
    lacks = {name: (bool(of_version.lacks(r)), bool(of_model.lacks(r))) for name, r in RESOURCES.items()}
    assert lacks == {"assistant": (False, False), "plain": (False, True), "legacy": (True, True)}
    assert of_version.resource(asked(of_version)) == "langfuse:support/answer@production"


@pytest.mark.parametrize(
    ("failure", "kind", "told"),
    [
        (httpx.Response(403, text="label is protected"), ExecutorError, "protected label takes the key of an admin"),
        (httpx.Response(429, text="slow down"), ExecutorError, "Nothing was changed"),
        (httpx.Response(502, text="bad gateway"), OutcomeUnknown, "502"),
        (httpx.ConnectError("refused"), ExecutorError, "was not reached"),
        (httpx.ReadTimeout("late"), OutcomeUnknown, "did not answer"),
        (httpx.Response(200, text="<html>"), OutcomeUnknown, "unlike its API"),
    ],
)
async def test_failures_are_told_apart_and_never_repeated(
    executor: langfuse.LangfuseExecutor,
    fake: FakeLangfuse,
    failure: httpx.Response | Exception,
    kind: type[ExecutorError],
    told: str,
) -> None:
    switch = operation(executor, "switch_prompt_version")
    params = asked(switch)
    before = await switch.inspect(params)
    fake.fails["PATCH"] = failure
    with pytest.raises(kind, match=told) as raised:
        await switch.execute(params, before)
    assert isinstance(raised.value, OutcomeUnknown) == (kind is OutcomeUnknown)
    assert len([r for r in fake.requests if r.method == "PATCH"]) == 1


async def test_check_reads_every_prompt_of_the_catalogue(
    executor: langfuse.LangfuseExecutor, fake: FakeLangfuse
) -> None:
    checks = {check.name: check.status for check in await executor.check()}
    assert checks == {"credentials": "ok", "prompt plain@production": "failed", f"prompt {NAME}@production": "ok"}
    fake.fails["GET"] = httpx.Response(401, text="Invalid credentials")
    assert [(c.name, c.status) for c in await executor.check()] == [("credentials", "failed")]


def test_start_up_names_what_is_missing(clock: InstantClock, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST", "PUBLIC_KEY", "SECRET_KEY"):
        with pytest.raises(ValueError, match=f"AUTOPILOT_LANGFUSE_{name}"):
            langfuse.create(RESOURCES, clock)
        monkeypatch.setenv(f"AUTOPILOT_LANGFUSE_{name}", "https://langfuse.example")
