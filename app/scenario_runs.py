"""Scenarios through the same graph as production, up to the plan that would wait for a person.

One recording is the only source, every operation is rehearsed, and what the product keeps in Postgres is in memory.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_bytes
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel, Field, JsonValue, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.catalogue import AutopilotYaml
from app.clock import SystemClock
from app.evaluation import EvaluationError, Tell, progress
from app.scenario_report import Sheet, line
from app.scenario_scores import Run, Spent, failed, judged
from app.scenarios import Scenario, read
from app.settings import Settings
from app.studio import MemoryLedger, MemorySnapshots
from app.wiring import create_executors, create_masker, create_model_analyst, operations_by_name, windows
from collectors.replay import ReplayCollector
from executors.base import AnyOperation
from graph import flow
from graph.deps import Deps
from graph.llms.accounted import MemoryCallLog
from graph.llms.base import Analyst, LlmError
from graph.llms.chat import Message, Purpose, Question
from graph.llms.openai import CallFailed, OpenAIChatModel
from graph.llms.openai_settings import ProfileName
from graph.llms.openai_settings import Settings as OpenAISettings
from graph.llms.rules import RulesAnalyst
from graph.masking import Masker
from graph.state import Language, State

COLLECT_S = 300.0  # a recording answers at once; what takes long is a machine that is busy
ANSWERS = 6  # that an analysis may take one after the other: three rounds of reads, the answer, and it sent back
_HEARD = {"usage", "usage_refused", "read_finished"}  # what a model did, while somebody waits for it
_PATH = "/chat/completions"
_SPELLED: Mapping[str, str] = {
    "OPENAI_BASE_URL": "--llm",
    "OPENAI_MODEL": "--model",
    "OPENAI_API_KEY": "--key-env",
    "OPENAI_PROFILE": "--profile",
    "OPENAI_TIMEOUT_S": "--timeout",
}


@dataclass(frozen=True)
class Endpoint:
    """The model to ask. Prices are dollars for a million tokens; None: as the settings have them."""

    url: str
    model: str
    key_env: str = "OPENAI_API_KEY"
    profile: ProfileName | None = None
    timeout_s: float = 600.0
    dollars_input: float | None = None
    dollars_output: float | None = None


@dataclass(frozen=True)
class Way:
    """How scenarios are run. ``endpoint`` None: by the rules engine."""

    endpoint: Endpoint | None = None
    repeat: int = 1
    parallel: int = 1
    language: Language = "en"
    input_tokens: int | None = None

    def as_json(self) -> dict[str, JsonValue]:
        """All of it, with what the settings add. Raises EvaluationError."""
        told: dict[str, JsonValue] = {"repeat": self.repeat, "parallel": self.parallel, "language": self.language}
        if self.endpoint is None:
            return {"engine": "rules", **told}
        openai = _settings(self.endpoint, self.endpoint.url)
        return {
            "engine": self.endpoint.model,
            **told,
            "url": self.endpoint.url,
            "profile": openai.served_as,
            "timeout_s": openai.timeout_s,
            "input_tokens": self.input_tokens or Settings().model_input_tokens,
            "max_completion_tokens": openai.max_completion_tokens,
            "dollars_per_million_input": openai.dollars_per_million_input,
            "dollars_per_million_output": openai.dollars_per_million_output,
        }


def evaluate(found: Mapping[str, Path], way: Way, sheet: Sheet) -> bool:
    """Run every folder, and tell on stderr how it goes; False: it was interrupted. Raises EvaluationError."""
    sheet.write()
    with progress("scenarios", len(found) * way.repeat) as (count, tell):
        try:
            asyncio.run(_all(found, way, _Watch(sheet, count, tell)))
        except (KeyboardInterrupt, asyncio.CancelledError):
            tell("interrupted: what is done is kept")
            return False
        finally:
            sheet.write()
    if not sheet.done:
        raise EvaluationError(f"none of the {len(found)} bundles could be read; the lines above say why")
    return True


@dataclass(frozen=True)
class _Watch:
    """Who is told: the results, the bar, and whoever reads stderr."""

    sheet: Sheet
    count: Callable[[], None]
    tell: Tell


async def _all(found: Mapping[str, Path], way: Way, watch: _Watch) -> None:
    with _ended_by_sigterm():
        async with _analyst(way, watch.tell) as (analyst, calls, masker):
            bench = _Bench(way, watch, analyst, calls, masker)
            await asyncio.gather(*(bench.scenario(name, folder) for name, folder in found.items()))


@asynccontextmanager
async def _analyst(way: Way, tell: Tell) -> AsyncIterator[tuple[Analyst, MemoryCallLog, Masker]]:
    """Who answers, the log of its calls, and what masks them. Raises EvaluationError."""
    settings, calls = Settings(), MemoryCallLog()
    if way.input_tokens:
        settings = settings.model_copy(update={"model_input_tokens": way.input_tokens})
    masker = create_masker(settings, AutopilotYaml(), token_bytes())
    if way.endpoint is None:
        yield RulesAnalyst(), calls, masker
        return
    openai = await _reached(way.endpoint, tell)
    seconds = ANSWERS * openai.timeout_s
    analyst, close = create_model_analyst(openai, settings, masker, calls, seconds=seconds)
    try:
        yield analyst, calls, masker
    finally:
        await close()


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM as Ctrl-C, so that what is done is shown."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # a coroutine runs in one
    with suppress(NotImplementedError, RuntimeError, ValueError):  # not every thread and platform has signals
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        with suppress(NotImplementedError, RuntimeError, ValueError):
            loop.remove_signal_handler(signal.SIGTERM)


class _Bench:
    """Runs scenarios, so many at a time."""

    def __init__(self, way: Way, watch: _Watch, analyst: Analyst, calls: MemoryCallLog, masker: Masker) -> None:
        self._way, self._watch = way, watch
        self._analyst, self._calls, self._masker = analyst, calls, masker
        self._loaded, self._running = asyncio.Semaphore(way.parallel), asyncio.Semaphore(way.parallel)

    async def scenario(self, name: str, folder: Path) -> None:
        """All runs of one folder."""
        async with self._loaded:
            [scenario] = await asyncio.gather(asyncio.to_thread(read, name, folder), return_exceptions=True)
            if isinstance(scenario, BaseException):
                complaint = _told(scenario)
                self._watch.tell(f"{name}: left out: {complaint}")
                self._watch.sheet.leave_out(name, complaint)
                return
            for remark in scenario.remarks:
                self._watch.tell(f"{name}: {remark}")
            self._watch.sheet.begin(name, scenario.expected)
            await asyncio.gather(*(self._run(scenario, number) for number in range(1, self._way.repeat + 1)))

    async def _run(self, scenario: Scenario, number: int) -> None:
        """One run; what goes wrong in it is its result, and ends no other."""
        incident_id = f"{scenario.name}#{number}"
        async with self._running:
            if self._way.endpoint:
                self._watch.tell(f"{incident_id}: begun")
            begun = time.monotonic()
            [run] = await asyncio.gather(self._judged(scenario, incident_id, begun), return_exceptions=True)
            if isinstance(run, BaseException):
                run = failed(_told(run), scenario.expected, self._spent(incident_id, begun))
        self._watch.sheet.add(scenario.name, number, run)
        self._watch.count()
        if self._way.endpoint or run.error:
            self._watch.tell(f"{incident_id}: {line(run)}")

    async def _judged(self, scenario: Scenario, incident_id: str, begun: float) -> Run:
        state = await self._investigated(scenario, incident_id)
        return judged(state, scenario.expected, self._looks(scenario), self._spent(incident_id, begun))

    async def _investigated(self, scenario: Scenario, incident_id: str) -> State:
        """The state in which the graph waits for a decision."""
        graph = flow.build(self._deps(scenario)).copy(update={"checkpointer": InMemorySaver()})
        config: Any = {"configurable": {"thread_id": incident_id}}
        start: Any = {
            "incident_id": incident_id,
            "alert": scenario.alert.model_dump(mode="json"),
            "language": self._way.language,
        }
        async for said in graph.astream(start, config, stream_mode="custom"):
            if said["kind"] in _HEARD:
                self._watch.tell(f"{incident_id}: {said['node']}: {said['message']}")
        snapshot = await graph.aget_state(config)
        return flow.typed(snapshot.values)

    def _deps(self, scenario: Scenario) -> Deps:
        clock, collectors = SystemClock(), [ReplayCollector(scenario.bundle)]
        return Deps(
            catalogue=scenario.catalogue,
            collectors=collectors,
            snapshots=MemorySnapshots(),
            analyst=self._analyst,
            operations=self._operations(scenario),
            ledger=MemoryLedger(),
            clock=clock,
            windows=windows([*collectors]),
            collect_s=COLLECT_S,
            masker=self._masker,
        )

    def _operations(self, scenario: Scenario) -> Mapping[str, AnyOperation]:
        return operations_by_name(create_executors(("rehearsal",), scenario.catalogue, SystemClock()))

    def _looks(self, scenario: Scenario) -> frozenset[str]:
        """Operations that change nothing."""
        return frozenset(name for name, one in self._operations(scenario).items() if one.read_only)

    def _spent(self, incident_id: str, begun: float) -> Spent:
        ids = [i for i, call in self._calls.calls.items() if call.purpose.incident_id == incident_id]
        outcomes = [self._calls.outcomes[i] for i in ids if i in self._calls.outcomes]
        usages = [outcome.usage for outcome in outcomes if outcome.usage]
        return Spent(
            seconds=round(time.monotonic() - begun, 3),
            model_calls=len(ids),
            tokens_in=sum(usage.prompt_tokens for usage in usages),
            tokens_out=sum(usage.completion_tokens for usage in usages),
            dollars=round(sum(usage.dollars for usage in usages), 6),
            failures=tuple(outcome.error for outcome in outcomes if outcome.error),
        )


def _told(error: BaseException) -> str:
    """A sentence of ours, or whatever happened."""
    return str(error) if isinstance(error, EvaluationError) else f"{type(error).__name__}: {error}"


# --- the endpoint -------------------------------------------------------------------------------------------


class _Yes(BaseModel):
    """The shape of the first, small answer."""

    ready: bool


async def _reached(endpoint: Endpoint, tell: Tell) -> OpenAISettings:
    """Settings whose server answered one small question: a wrong URL, key or name is told before an hour is spent.

    A URL without a path is also tried with ``/v1``. What the question costs is in no figure. Raises EvaluationError.
    """
    refusals: list[str] = []
    for url in _urls(endpoint.url):
        settings = _settings(endpoint, url)
        tell(f"asking {endpoint.model} at {url} one small question, for at most {endpoint.timeout_s:g} s")
        try:
            seconds = await _asked(settings)
        except CallFailed as error:
            if error.mend:
                refusals.append(_in_options(str(error)))
                continue
            tell(f"{url}: the first question failed ({_in_options(str(error))}); the others are asked all the same")
            return settings
        except LlmError as error:
            tell(f"{url}: {_in_options(str(error))}; the questions are asked all the same")
            return settings
        meant = "" if url == endpoint.url else f", which --llm {endpoint.url} is taken for"
        tell(f"{endpoint.model} answers at {url}{meant} ({seconds:.1f} s)")
        return settings
    path = urlsplit(endpoint.url).path.rstrip("/")
    hint = " Most URLs end in /v1." if path and not path.endswith("/v1") else ""
    raise EvaluationError(f"--llm {endpoint.url}: {refusals[0]}.{hint}")


def _urls(url: str) -> list[str]:
    """What may be meant: the base of all paths, where the path of questions or none was given."""
    parts = urlsplit(url.strip())
    path = parts.path.rstrip("/").removesuffix(_PATH)
    base = urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))
    return [base] if path else [f"{base}/v1", base]


async def _asked(settings: OpenAISettings) -> float:
    """Seconds that an answer to one small question took. Raises LlmError."""
    model, begun = OpenAIChatModel(settings), time.monotonic()
    turns = (
        Message("system", "You answer in JSON."),
        Message("user", "Are you ready? Answer with the JSON of the schema."),
    )
    try:
        await model.ask(Question(Purpose("RootCauseAnalyzer"), turns, _Yes))
    finally:
        await model.aclose()
    return time.monotonic() - begun


def _settings(endpoint: Endpoint, url: str) -> OpenAISettings:
    """What is not an option comes from the environment, as in production. Raises EvaluationError."""
    prices = {
        "dollars_per_million_input": endpoint.dollars_input,
        "dollars_per_million_output": endpoint.dollars_output,
        "profile": endpoint.profile,
    }
    given: dict[str, Any] = {name: value for name, value in prices.items() if value is not None}
    try:
        return OpenAISettings(
            base_url=url,
            model=endpoint.model,
            api_key=_key(endpoint.key_env),
            timeout_s=endpoint.timeout_s,
            # a server that was down for a minute must not cost the scenarios after it
            breaker_failures=1_000_000,
            **given,
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        setting = "OPENAI_" + "".join(map(str, first["loc"][:1])).upper()
        said = first["msg"].removeprefix("Value error, ")
        raise EvaluationError(f"{_SPELLED.get(setting, setting)}: {said}") from None


def _key(name: str) -> SecretStr:
    """The key in that variable of the environment or ``.env``; local servers ask for none. Raises EvaluationError."""

    class Key(BaseSettings):
        model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore")

        key: SecretStr | None = Field(default=None, validation_alias=name)

    found = Key().key
    if found is None and name != Endpoint.key_env:
        raise EvaluationError(f"--key-env {name}: there is no such variable; set it to the key of --llm's server")
    return found or SecretStr("none")


def _in_options(text: str) -> str:
    """With the options of this command in the place of settings."""
    for setting, option in _SPELLED.items():
        text = text.replace(setting, option)
    return text.rstrip(".")
