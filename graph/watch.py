"""Measures what came of an execution: until the expected effects hold, or it is clearly worse, or time is over."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import median

from collectors.base import Collector, CollectorError, Edge, Series, SeriesRef, Window
from graph import control
from graph import verification as verifying
from graph.deps import Deps
from graph.observed_load import stored_series
from graph.per_request import Load, grows_with_requests, requests_beside
from graph.progress import report
from graph.shedding import still_shed
from graph.state import ActionOption, EffectCheck, Evidence, ExpectedEffect, Finding, State, StepResult, Verification

NODE = "ActionExecutor"
OK = ("succeeded", "dry_run")
WORSE_READINGS = 3  # in a row: one is no harm
EASES = 0.1  # of its distance from usual: more than the jitter of a median
LEVEL_MINUTES = 3.0  # before the first call
READING_MINUTES = 2.0


@dataclass(frozen=True)
class _Watched:
    """What is measured, and how it was before the first call."""

    effects: tuple[ExpectedEffect, ...]
    guards: tuple[SeriesRef, ...]
    controls: tuple[Finding, ...]
    requests: Mapping[verifying.Key, SeriesRef]  # by the count that is to be held against them
    first: datetime
    series: tuple[Series, ...]  # of the quarter of an hour before

    @property
    def refs(self) -> list[SeriesRef]:
        """What each reading asks for."""
        return _once([*(effect.ref for effect in self.effects), *self.guards, *self.requests.values()])

    def before(self, ref: SeriesRef) -> float | None:
        """The level just before the first call."""
        window = Window(start=self.first - timedelta(minutes=LEVEL_MINUTES), end=self.first)
        return verifying.level(self.series, ref, window)

    def loads(self, series: Sequence[Series], window: Window) -> dict[verifying.Key, Load]:
        """By the count: the requests before, and in this window."""
        return {
            counted: Load(self.before(ref), verifying.level(series, ref, window))
            for counted, ref in self.requests.items()
        }

    def history(self, ref: SeriesRef) -> list[tuple[float, float]]:
        """(epoch seconds, value) until the first call."""
        end = self.first.timestamp()
        return verifying.inside(self.series, ref, end - 60 * control.TREND_MINUTES, end)


@dataclass(frozen=True)
class _Reading:
    """One look at all of it. ``off``: how far each metric that got worse is from its usual level."""

    seen: Verification
    harm: tuple[str, ...]
    off: Mapping[verifying.Key, float]


@dataclass
class _Streaks:
    """What held over several readings."""

    met_since: datetime | None = None
    worse: int = 0
    harm: tuple[str, ...] = field(default=())
    eases: bool = False
    readings: list[tuple[datetime, _Reading]] = field(default_factory=list)

    def add(self, reading: _Reading, now: datetime, *, shaken: bool) -> None:
        """A reading that failed neither confirms nor refutes; a bad one while things are shaken is no harm yet."""
        if reading.seen.verdict == "not_measurable" and not reading.harm:
            return
        worse = reading.seen.verdict == "worse" or bool(reading.harm)
        resolved = reading.seen.verdict == "resolved" and not reading.harm
        self.met_since = (self.met_since or now) if resolved else None
        self.worse = self.worse + 1 if worse and not shaken else 0
        self.eases, self.harm = self._eases(reading, now), reading.harm
        self.readings.append((now, reading))

    def _eases(self, reading: _Reading, now: datetime) -> bool:
        """Whether most of what is worse is less so than in the last reading that has no minute in common with this."""
        apart = [r for at, r in self.readings if now - at >= timedelta(minutes=READING_MINUTES)]
        if not apart or not reading.off:
            return False
        before = apart[-1].off
        eased = (key in before and off <= (1.0 - EASES) * before[key] for key, off in reading.off.items())
        return 2 * sum(eased) > len(reading.off)

    @property
    def clearly_worse(self) -> bool:
        """New instances are cold and connections are built up anew: what gets better by itself is not undone."""
        return self.worse >= WORSE_READINGS and not self.eases


class Watch:
    """Over one execution; reads only, so it may begin again after a crash."""

    def __init__(self, deps: Deps, state: State, revision: str) -> None:
        self.deps, self.revision = deps, revision
        self.evidence: Evidence = state.get("evidence") or Evidence(digest="", findings=(), suspects=())
        scope = state.get("scope")
        self.state, self.executions = state, state.get("executions", ())
        self.edges: tuple[Edge, ...] = (*self.evidence.edges, *(scope.edges if scope else ()))

    async def verify(self, option: ActionOption, results: Sequence[StepResult]) -> Verification:
        """The verdict, and whose merit it was."""
        calls = [r for r in results if r.claimed_at and r.finished_at]
        failed = next((r for r in results if r.status not in OK and r.status != "skipped"), None)
        if any(r.status == "dry_run" for r in results):
            return Verification(verdict="not_measurable", detail="Rehearsal: nothing was changed.")
        if not calls or not option.expected:
            why = f"{failed.operation} {failed.status}: {failed.detail}" if failed else "nothing to measure"
            return Verification(verdict="not_measurable", detail=why)
        first = min(r.claimed_at for r in calls if r.claimed_at)
        last = max(r.finished_at for r in calls if r.finished_at)
        watched = await self._watched(option, self._changed(results), first)
        if not failed:
            minutes = max(e.within_minutes for e in option.expected)
            seen = await self._until_it_is_clear(watched, last, minutes * 60)
            return await self._if_all_are_served(seen, results)
        # Some steps may be in place: look for harm, but not for as long as for a cure.
        patience = self.deps.patience
        seen = await self._until_it_is_clear(watched, last, patience.worse_after_s + 3 * patience.poll_s)
        return _of_a_part(seen, failed, results)

    async def _if_all_are_served(self, seen: Verification, results: Sequence[StepResult]) -> Verification:
        """Those who are let in may be served well, and others turned away: that is not resolved."""
        if seen.verdict != "resolved":
            return seen
        shed = await still_shed(self.deps.operations, self.executions, results)
        if not shed:
            return seen
        detail = (
            f"{seen.detail} But requests are turned away still, by {' and '.join(shed)}: give the traffic back, in"
            " steps or by undoing it, and see whether it stays so."
        )
        return seen.model_copy(update={"verdict": "improved", "detail": detail})

    def _changed(self, results: Sequence[StepResult]) -> frozenset[str]:
        """The services that were, or may have been, changed."""
        names: set[str] = set()
        for result in results:
            operation = self.deps.operations.get(result.operation)  # it may be turned off since
            if operation and (result.made or result.status == "unknown") and not operation.read_only:
                names.update(operation.services(operation.params.model_validate(result.params)))
        return frozenset(names)

    async def _watched(self, option: ActionOption, changed: frozenset[str], first: datetime) -> _Watched:
        evidence = self.evidence
        callers = {e.caller for e in self.edges if e.callee in changed and not e.asynchronous} - changed
        known = (*evidence.readable, *(f.ref for f in evidence.findings if f.ref))
        guards = verifying.guards(known, changed, callers, option.expected)
        controls = control.controls(evidence, option.expected, control.reached(changed, self.edges)) if changed else ()
        requests = await self._requests([*(e.ref for e in option.expected), *guards])
        refs = _once([*(e.ref for e in option.expected), *guards, *control.refs_of(controls), *requests.values()])
        window = Window(start=first - timedelta(minutes=control.TREND_MINUTES), end=first)
        series = tuple(await self._series(refs, window))
        return _Watched(option.expected, guards, controls, requests, first, series)

    async def _requests(self, refs: Sequence[SeriesRef]) -> dict[verifying.Key, SeriesRef]:
        """The requests that each count is to be held against, of all metrics that are known."""
        counts = [ref for ref in refs if grows_with_requests(ref)]
        known = {series.ref for series in await stored_series(self.deps, self.state)} if counts else set()
        return {verifying.key(count): requests for count in counts if (requests := requests_beside(count, known))}

    # --- watching ---

    async def _until_it_is_clear(self, watched: _Watched, since: datetime, limit_s: float) -> Verification:
        clock, patience = self.deps.clock, self.deps.patience
        # A watch that starts late, after a crash, still gets the time to see the effects hold.
        hold = timedelta(seconds=patience.hold_s)
        deadline = max(since + timedelta(seconds=limit_s), clock.now() + hold + timedelta(seconds=3 * patience.poll_s))
        streaks = _Streaks()
        while True:
            await clock.sleep(patience.poll_s)
            now = clock.now()
            reading = await self._read_all(watched, since)
            self._tell(reading, now)
            streaks.add(reading, now, shaken=(now - since).total_seconds() < patience.worse_after_s)
            met_since, seen = streaks.met_since, reading.seen
            if met_since and now - met_since >= hold:
                held = f"All expected effects held for {patience.hold_s / 60:g} minutes."
                return await self._credited(watched, seen.model_copy(update={"detail": held}), met_since)
            if streaks.clearly_worse:
                return _worse(seen, streaks.harm)
            if now >= deadline and (not met_since or now >= deadline + hold):
                if streaks.worse >= WORSE_READINGS:
                    return _worse(seen, streaks.harm)
                told = _told_at_the_end(reading)
                detail = f"Not all expected effects were met, and held, within {limit_s / 60:g} minutes."
                return await self._credited(
                    watched, seen.model_copy(update={"verdict": told, "detail": detail}), met_since or now
                )

    async def _read_all(self, watched: _Watched, since: datetime) -> _Reading:
        now = self.deps.clock.now()
        window = Window(start=max(since, now - timedelta(minutes=READING_MINUTES)), end=now)
        series = await self._series(watched.refs, window)
        before = {verifying.key(e.ref): watched.before(e.ref) for e in watched.effects}
        after = {verifying.key(e.ref): verifying.level(series, e.ref, window) for e in watched.effects}
        loads = watched.loads(series, window)
        checks = verifying.checks(watched.effects, before, after, loads)
        off = verifying.worsened(checks)
        harm: list[str] = []
        shaken_until = since + timedelta(seconds=self.deps.patience.worse_after_s)
        for ref in watched.guards if window.start >= shaken_until else ():
            level, load = verifying.level(series, ref, window), loads.get(verifying.key(ref))
            if said := verifying.harm(ref, history := watched.history(ref), level, load):
                harm.append(said)
                off[verifying.key(ref)] = abs((level or 0.0) - median(value for _, value in history))
        return _Reading(Verification(verdict=verifying.verdict(checks), checks=checks), tuple(harm), off)

    def _tell(self, reading: _Reading, now: datetime) -> None:
        checks = reading.seen.checks
        told = f"{sum(c.status == 'met' for c in checks)} of {len(checks)} expected effects met"
        report(
            NODE,
            "verification",
            f"verify:{self.revision}:{now.isoformat()}",
            told + (f"; worse elsewhere: {'; '.join(reading.harm)}" if reading.harm else ""),
            {"status": "verifying", "checks": [*(c.detail for c in checks), *reading.harm]},
        )

    # --- whose merit ---

    async def _credited(self, watched: _Watched, seen: Verification, met: datetime) -> Verification:
        if seen.verdict not in ("resolved", "improved"):
            return seen
        first_s, met_s = watched.first.timestamp(), met.timestamp()
        alone = [
            control.recovers_alone(watched.series, effect, first_s, met_s) for effect in verifying.reached(seen.checks)
        ]
        credit, said = control.credit(alone, _recovered(seen.checks), await self._twins(watched))
        return seen.model_copy(update={"credit": credit, "control": said})

    async def _twins(self, watched: _Watched) -> list[control.Twin]:
        if not watched.controls:
            return []
        now = self.deps.clock.now()
        window = Window(start=now - timedelta(minutes=READING_MINUTES), end=now)
        series = await self._series(list(control.refs_of(watched.controls)), window)
        twins = (
            control.twin(f, watched.before(f.ref), verifying.level(series, f.ref, window))
            for f in watched.controls
            if f.ref
        )
        return [twin for twin in twins if twin]

    # --- reading ---

    async def _series(self, refs: Sequence[SeriesRef], window: Window) -> list[Series]:
        by_source: dict[str, list[SeriesRef]] = defaultdict(list)
        for ref in refs:
            by_source[ref.source].append(ref)
        series: list[Series] = []
        for collector in self.deps.collectors:
            if mine := by_source.get(collector.name):
                series += await self._read(collector, mine, window)
        return series

    async def _read(self, collector: Collector, refs: list[SeriesRef], window: Window) -> list[Series]:
        """The series; none, and a line in the timeline, where the source fails or does not answer in its time."""
        try:
            async with asyncio.timeout(collector.timeout_s):
                return await collector.measure(refs, window)
        except CollectorError as error:
            said = error.detail
        except TimeoutError:
            said = f"no answer within {collector.timeout_s:g} s"
        except Exception as error:  # noqa: BLE001  one source's fault must not end the watch over a change
            said = f"{type(error).__name__}: {error}"
        key = f"gap:{self.revision}:{collector.name}:{window.end.isoformat()}"
        report(NODE, "gap", key, f"{collector.name} could not be measured: {said}")
        return []


def _of_a_part(seen: Verification, failed: StepResult, results: Sequence[StepResult]) -> Verification:
    """Not all was done: at best it improved."""
    remain = [r.operation for r in results if r.made]
    detail = f"{failed.operation} {failed.status}: {failed.detail}"
    beside = [f"In place: {', '.join(remain)}."] if remain else []
    beside += [seen.detail] if seen.verdict == "worse" else []
    detail = " ".join([f"{detail.rstrip('.')}.", *beside]) if beside else detail
    return seen.model_copy(
        update={"verdict": "improved" if seen.verdict == "resolved" else seen.verdict, "detail": detail}
    )


def _worse(seen: Verification, harm: Sequence[str]) -> Verification:
    detail = "It got worse, three readings in a row."
    if harm:
        detail += f" Worse than before the first call: {'; '.join(harm)}."
    return seen.model_copy(update={"verdict": "worse", "detail": detail})


def _told_at_the_end(reading: _Reading) -> str:
    """One bad reading is no harm, and one good one no cure."""
    verdict = "worse" if reading.harm else reading.seen.verdict
    return {"worse": "unchanged", "resolved": "improved"}.get(verdict, verdict)


def _recovered(checks: Sequence[EffectCheck]) -> float | None:
    """The share of the way back to normal: the effects' median."""
    shares = verifying.recovered(checks)
    return median(shares) if shares else None


def _once(refs: Iterable[SeriesRef]) -> list[SeriesRef]:
    """No source is asked twice for the same."""
    return list({verifying.key(ref): ref for ref in refs}.values())
