"""What one incident costs at list price, and that more telemetry costs no more.

``python -m benchmarks.model_cost`` runs it alone.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver
from pydantic import SecretStr

from app.catalogue import AutopilotYaml
from app.scenarios import Scenario
from app.settings import Settings
from app.simulator.openai import Reply, Request, call, openai_server, say
from app.simulator.openai_reader import read_brief
from app.studio import MemoryLedger
from app.wiring import create_masker, create_model_analyst
from benchmarks.results import Table
from benchmarks.setting import Setting
from collectors.base import Edge, LogLine, Series, Span
from collectors.replay import Bundle
from graph import flow
from graph.llms.accounted import MemoryCallLog
from graph.llms.openai_settings import Settings as OpenAISettings
from tests.graph.llms.obedient import host, rehearsed

TIMES = (1, 10, 100)
ROUNDS = 3  # of reads: as many as an analysis may have
AROUND = "store-front"  # whom the services around belong to
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Spent:
    """One call: whose, our estimate of its prompt, and what the server counted."""

    node: str
    estimated: int
    prompt: int
    completion: int
    dollars: float


def measure(setting: Setting) -> list[Table]:
    """Tokens and dollars, by how much telemetry there is."""
    return tables(setting.tell)


def tables(tell: Tell) -> list[Table]:
    """Tokens and dollars, by how much telemetry there is, and by how much a model asks."""
    rows = []
    for times in TIMES:
        tell(f"model_cost: telemetry x {times}")
        scenario = multiplied(host(), times)
        for name, script in (("neither", read_brief), ("reads and repair", Thorough())):
            rows.append((*_size(times, scenario.bundle), name, *_cells(asyncio.run(_spent(scenario, script)))))
    columns = (
        "telemetry",
        "log lines",
        "spans",
        "series",
        "services",
        "the model uses",
        "calls",
        "longest analysis question, our estimate",
        "as the server counts",
        "longest plan question, our estimate",
        "as the server counts ",
        "prompt tokens in all",
        "dollars",
    )
    openai, settings = OpenAISettings(base_url="http://127.0.0.1"), Settings()
    note = (
        f"One incident up to its plan. Budget of a question: {settings.model_input_tokens:,} tokens. At"
        f" {openai.dollars_per_million_input:g} dollars for a million tokens in, {openai.dollars_per_million_output:g}"
        " out, nothing cached. The server is a fake: it counts four bytes of JSON as a token, no model's figure, and"
        " answers are as long as the honest reader's. Reads and repair: three rounds of reads, a first answer with a"
        " false claim, and a first plan with a step that there is not."
    )
    return [Table("One incident, by telemetry", columns, rows, note)]


# --- telemetry ----------------------------------------------------------------------------------------------


def multiplied(scenario: Scenario, times: int) -> Scenario:
    """The same incident in so many times the log lines, spans, series and services."""
    bundle = scenario.bundle
    more = range(1, times)
    changed = {
        "logs": tuple(sorted((line for n in range(times) for line in _lines(bundle, n)), key=lambda line: line.at)),
        "spans": tuple(span for n in range(times) for span in _spans(bundle, n)),
        "series": (*bundle.series, *(series for n in more for series in _noise(bundle, n))),
        "edges": (*bundle.edges, *(Edge(caller=AROUND, callee=_service(n), source="traces") for n in more)),
    }
    return replace(scenario, bundle=bundle.model_copy(update=changed))


def _service(number: int) -> str:
    return f"around-{number}"


def _lines(bundle: Bundle, number: int) -> Iterator[LogLine]:
    return (replace(line, at=line.at + timedelta(milliseconds=3 * number)) for line in bundle.logs)


def _spans(bundle: Bundle, number: int) -> Iterator[Span]:
    """Traces of their own."""
    for span in bundle.spans:
        trace = span.trace_id if not number else f"{number:04x}{span.trace_id[4:]}"
        yield replace(span, trace_id=trace, start_s=span.start_s + 0.003 * number)


def _noise(bundle: Bundle, number: int) -> Iterator[Series]:
    """What ``AROUND`` measures, of a service that nothing happens to: the baseline's values again and again."""
    start = bundle.manifest.incident.start.timestamp()
    for series in bundle.series:
        usual = [value for at, value in zip(series.epoch_s, series.values, strict=True) if at < start]
        if usual:
            values = [usual[(n + number) % len(usual)] for n in range(len(series.values))]
            name = f"{series.ref.metric} of {series.ref.component}"
            ref = series.ref.model_copy(
                update={"component": _service(number), "metric": name, "query": f"{name}{number}"}
            )
            yield Series(ref=ref, epoch_s=series.epoch_s, values=tuple(values))


def _size(times: int, bundle: Bundle) -> tuple[str, ...]:
    services = {end for edge in bundle.edges for end in (edge.caller, edge.callee)}
    counts = len(bundle.logs), len(bundle.spans), len(bundle.series), len(services)
    return f"x {times}", *(f"{count:,}" for count in counts)


# --- models ---------------------------------------------------------------------------------------------------


class Thorough:
    """Asks for all it may, and is wrong at first."""

    def __call__(self, request: Request) -> Reply:
        """The next answer."""
        brief = str(request["messages"][-1]["content"])
        if request.get("tools") and self._asked(brief) < 3 * ROUNDS:
            return call(
                *(("search_logs", {"component": "pricing-api", "contains": word}) for word in self._words(brief))
            )
        answer: dict[str, Any] = json.loads(read_brief(request).content or "{}")
        if '<data name="complaints"' not in brief:
            answer = self._wrong(answer)
        return say(answer)

    @staticmethod
    def _asked(brief: str) -> int:
        return brief.partition('<data name="asked"')[2].partition("</data>")[0].count('"question"')

    def _words(self, brief: str) -> Sequence[str]:
        words = ("timeout", "pool", "connection", "prices", "promo", "tax", "error", "POST", "GET")
        return words[self._asked(brief) :][:3]

    @staticmethod
    def _wrong(answer: dict[str, Any]) -> dict[str, Any]:
        if "options" in answer:
            stranger = {"operation": "run_command", "params": {}}
            return {"options": [{**option, "steps": [stranger]} for option in answer["options"]]}
        lie = {"text": "There were 987,654 errors.", "evidence": ["E1"], "quote": ""}
        return {**answer, "claims": [*answer["claims"], lie]}


# --- the run --------------------------------------------------------------------------------------------------


async def _spent(scenario: Scenario, script: Callable[[Request], Reply]) -> list[Spent]:
    settings, calls = Settings(), MemoryCallLog()
    masker = create_masker(settings, AutopilotYaml(), b"a key of the benchmarks")
    async with openai_server(script) as server:
        openai = OpenAISettings(base_url=server.url, api_key=SecretStr("sk-fake"), model="gpt-4o")
        analyst, close = create_model_analyst(openai, settings, masker, calls)
        deps = rehearsed(scenario, analyst, masker, MemoryLedger())
        graph = flow.build(deps).copy(update={"checkpointer": InMemorySaver()})
        config: Any = {"configurable": {"thread_id": "one"}}
        start: Any = {"incident_id": "inc_1", "alert": scenario.alert.model_dump(mode="json")}
        await graph.ainvoke(start, config)
        await close()
    return list(_told(calls, openai.max_completion_tokens))


def _told(calls: MemoryCallLog, longest_answer: int) -> Iterator[Spent]:
    for call_id, planned in calls.calls.items():
        usage = calls.outcomes[call_id].usage
        if usage is not None:
            estimated = planned.most.tokens - longest_answer
            yield Spent(planned.purpose.node, estimated, usage.prompt_tokens, usage.completion_tokens, usage.dollars)


def _cells(spent: Sequence[Spent]) -> tuple[str, ...]:
    """Of all calls of one incident."""
    cells = [str(len(spent))]
    for node in ("RootCauseAnalyzer", "ActionPlanner"):
        of_node = [one for one in spent if one.node == node]
        cells += [f"{max(one.estimated for one in of_node):,}", f"{max(one.prompt for one in of_node):,}"]
    return *cells, f"{sum(one.prompt for one in spent):,}", f"{sum(one.dollars for one in spent):.4f}"


def main() -> None:
    """Print the table."""
    for table in tables(lambda _: None):
        print(table.markdown(), end="\n\n")


if __name__ == "__main__":
    main()
