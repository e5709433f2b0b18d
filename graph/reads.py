"""Answers an analyst's questions from the collectors: read-only, off a menu, a few of them, in a few seconds."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256

from collectors._jobs import on_thread
from collectors._questions import words_of
from collectors._windows import concatenated, joined
from collectors.base import (
    Collector,
    LogsRead,
    MetricRead,
    Query,
    Read,
    Refused,
    Scope,
    Series,
    SeriesRef,
    Telemetry,
    TraceRead,
)
from graph.deps import SnapshotKey, Snapshots
from graph.llms.base import ReadMenu, ReadRefused
from graph.looks import RESERVE_S, answered
from graph.masking import WITHHELD, Masker, MaskingError
from graph.memory import of_now
from graph.progress import report
from graph.read_findings import Answered, findings, in_words
from graph.state import Evidence, Finding

NODE = "RootCauseAnalyzer"
LEAST_S = 1.0  # with less left a question would only time out
MAX_TRACES = 20
MAX_TOLD = 300  # characters of an answer in the timeline
MAX_NAMED = 12  # that a refusal names: the analyst has the menu
_LATE = "raise AUTOPILOT_READS_S"
_TRACE = re.compile(
    r"\b(1-[0-9a-f]{8}-[0-9a-f]{24}|[0-9a-f]{32})\b"  # as X-Ray, as OpenTelemetry has them
    r"|trace(?:[_. -]?id)?[\"']?\s*[=:/]\s*[\"']?(?P<told>[0-9a-fA-F]{8,64}|\d{6,39})\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Asking:
    """One source, and how to ask it within so many seconds."""

    collector: Collector
    ask: Callable[[float], Awaitable[Telemetry]]


class EvidenceReader:
    """``graph.llms.base.Reads`` over the collectors, for one analysis. Questions are answered one after the other."""

    def __init__(
        self,
        collectors: Sequence[Collector],
        snapshots: Snapshots,
        masker: Masker,
        *,
        scope: Scope,
        evidence: Evidence,
        incident_id: str,
        round_: int,
        within_s: float = 15.0,
        max_reads: int = 6,
    ) -> None:
        """``evidence``: what findings are numbered on from; its windows hold, where it names any.

        ``within_s``: wall time of all questions together, without what the analyst thinks in between.
        """
        self._collectors, self._snapshots, self._masker = collectors, snapshots, masker
        self._scope, self._evidence = _looked_at(scope, evidence), evidence
        self._incident_id, self._round = incident_id, round_
        self._left_s, self._left = within_s, max_reads
        self._within_s, self._max_reads = within_s, max_reads
        self._answers: dict[str, tuple[Finding, ...]] = {}
        self._one_at_a_time = asyncio.Lock()

    # --- what may be asked ---

    @property
    def menu(self) -> ReadMenu:
        """Components and metrics of the evidence, traces that hints or findings name, kinds that a source answers."""
        traces, readable = self._traces(), self._evidence.readable
        kinds: set[str] = {kind for collector in self._collectors for kind in collector.reads}
        kinds -= set() if traces else {"trace"}
        return ReadMenu(
            components=tuple(self._components()),
            metrics=readable,
            traces=traces,
            kinds=frozenset(kinds | ({"metric"} if readable and self._collectors else set())),
        )

    def _components(self) -> dict[str, None]:
        evidence = self._evidence
        return dict.fromkeys(
            (
                *(suspect.component for suspect in evidence.suspects),
                self._scope.service,
                *(target.service for target in self._scope.targets),
                *(finding.component for finding in of_now(evidence).findings),
                *(name for edge in evidence.edges for name in (edge.caller, edge.callee)),
            )
        )

    def _traces(self) -> tuple[str, ...]:
        found = (*of_now(self._evidence).findings, *(f for answer in self._answers.values() for f in answer))
        texts = (text for f in found for text in (f.excerpt, f.summary, f.query, f.link or ""))
        return tuple(dict.fromkeys(_traces_in((*self._scope.hints, *texts))))[:MAX_TRACES]

    # --- asking ---

    async def read(self, question: Read) -> Sequence[Finding]:
        """See graph.llms.base.Reads. The same question again gets the same findings, and costs nothing."""
        async with self._one_at_a_time:
            question = self._checked(question)
            key = sha256(question.model_dump_json().encode()).hexdigest()
            if key not in self._answers:
                self._afford()
                self._answers[key] = await self._answer(question, key)
            return self._answers[key]

    def _checked(self, question: Read) -> Read:
        """The question, if it is on the menu. Raises ReadRefused."""
        menu = self.menu
        if question.kind not in menu.kinds:
            raise ReadRefused(f"no source answers questions about {question.kind}; {_may(sorted(menu.kinds))}")
        if isinstance(question, TraceRead):
            _on_menu("trace", question.trace_id, menu.traces)
            return question
        _on_menu("component", question.component, menu.components)
        if isinstance(question, MetricRead):
            _on_menu("metric", question.metric, [r.metric for r in menu.metrics if r.component == question.component])
            return question
        if self._masker.placeholders(question.contains):
            raise ReadRefused("what is masked cannot be searched for; ask for the words around it")
        try:
            return question.model_copy(update={"contains": words_of(question)})
        except Refused as error:
            raise ReadRefused(error.detail) from None

    def _afford(self) -> None:
        """Raises ReadRefused."""
        if self._left <= 0:
            raise ReadRefused(f"all {self._max_reads} questions are asked; answer from the evidence")
        if self._left_s < LEAST_S:
            raise ReadRefused(f"the {self._within_s:g} s for questions are over; answer from the evidence")
        self._left -= 1

    async def _answer(self, question: Read, key: str) -> tuple[Finding, ...]:
        asked, name = self._tellable(in_words(question)), f"{self._round}:{key[:16]}"
        report(NODE, "read_started", f"read:{name}", f"Asking for {asked}", {"kind": question.kind})
        began = asyncio.get_running_loop().time()
        try:
            answers = await self._ask(question, key)
        finally:
            self._left_s -= asyncio.get_running_loop().time() - began
        found = await on_thread(self._findings, question, answers)
        failed = [answer.source for answer in answers if answer.failed]
        report(
            NODE,
            "read_finished",
            f"answered:{name}",
            f"Asked for {asked}: {found[0].id}, {found[0].summary[:MAX_TOLD]}",
            {"findings": [f.id for f in found], "failed": list(failed)},
        )
        return found

    async def _ask(self, question: Read, key: str) -> list[Answered]:
        """All that can answer, side by side."""
        tasks = [asyncio.create_task(self._once(asking, key)) for asking in self._askings(question)]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    async def _once(self, asking: _Asking, key: str) -> Answered:
        """What was stored of the answer, if a process that died had it already."""
        name = asking.collector.name
        snapshot = SnapshotKey(self._incident_id, self._round, name, read=key)
        stored = await self._snapshots.get(snapshot)
        if stored is not None:
            return Answered(*stored)
        limit_s = max(min(asking.collector.timeout_s, self._left_s), 0.1)
        telemetry = await answered(name, asking.ask(max(limit_s - RESERVE_S, 0.1)), limit_s, late=_LATE)
        return Answered(telemetry, await self._snapshots.put(snapshot, telemetry))

    def _askings(self, question: Read) -> Iterator[_Asking]:
        if isinstance(question, MetricRead):
            yield from self._measurements(question)
            return
        for collector in self._collectors:
            if question.kind in collector.reads:
                yield _Asking(collector, partial(self._read, collector, question))

    def _measurements(self, question: MetricRead) -> Iterator[_Asking]:
        asked = (question.component, question.metric)
        refs = [ref for ref in self._evidence.readable if (ref.component, ref.metric) == asked]
        own = {c.name for c in self._collectors}
        for collector in self._collectors:
            # a recording answers for the sources that were recorded
            mine = [ref for ref in refs if ref.source == collector.name or ref.source not in own]
            if mine:
                yield _Asking(collector, partial(self._measure, collector, mine))

    async def _read(self, collector: Collector, question: LogsRead | TraceRead, within_s: float) -> Telemetry:
        return await collector.read(question, self._scope.model_copy(update={"within_s": within_s}))

    async def _measure(self, collector: Collector, refs: Sequence[SeriesRef], _: float) -> Telemetry:
        """In as long as it takes: measuring knows no limit of its own."""
        windows = joined((self._scope.incident, *self._scope.baseline))
        pieces: dict[SeriesRef, list[Series]] = {ref: [] for ref in refs}
        for window in windows:
            for one in await collector.measure(refs, window):
                pieces.setdefault(one.ref, []).append(one)
        series = tuple(concatenated(found) for found in pieces.values() if found)
        start, end = windows[0].start, windows[-1].end
        queries = tuple(
            Query(source=collector.name, text=ref.query, link=self._link(ref), start=start, end=end, kind="metrics")
            for ref in refs
        )
        return Telemetry(source=collector.name, queries=queries, series=series)

    def _link(self, ref: SeriesRef) -> str | None:
        return next((f.link for f in self._evidence.findings if f.ref == ref), None)

    # --- what is handed out ---

    def _findings(self, question: Read, answers: Sequence[Answered]) -> tuple[Finding, ...]:
        found = findings(question, answers, self._scope, self._next(), self._tellable)
        bare = Evidence(digest="", findings=tuple(found), suspects=())
        return self._masker.masked_evidence(bare).findings

    def _next(self) -> int:
        """The number of the next finding."""
        ids = [f.id for f in self._evidence.findings] + [f.id for found in self._answers.values() for f in found]
        return 1 + max((int(eid[1:]) for eid in ids if eid[1:].isdecimal()), default=0)

    def _tellable(self, text: str) -> str:
        try:
            return self._masker.mask(text)
        except MaskingError:
            return WITHHELD


def _looked_at(scope: Scope, evidence: Evidence) -> Scope:
    """The scope with the windows that the evidence is about; rows of other days are not read again."""
    looked_at = evidence.looked_at
    windows = {"incident": looked_at.incident, "baseline": looked_at.baseline} if looked_at else {}
    return scope.model_copy(update={**windows, "seasonal": ()})


def _traces_in(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for match in _TRACE.finditer(text):
            yield match["told"] or match[1]


def _on_menu(what: str, asked: str, known: Sequence[str]) -> None:
    if asked not in known:
        raise ReadRefused(f"«{asked[:80]}» is no {what} that can be asked for; {_may(list(dict.fromkeys(known)))}")


def _may(known: Sequence[str]) -> str:
    """What may be asked instead."""
    more = f" and {len(known) - MAX_NAMED} more" if len(known) > MAX_NAMED else ""
    return f"there are {', '.join(known[:MAX_NAMED])}{more}" if known else "there are none"
