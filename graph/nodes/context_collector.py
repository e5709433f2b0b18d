"""ContextCollector: all sources side by side, each within its time; then suspects are ranked without an LLM."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import JsonValue

from collectors._jobs import on_thread
from collectors.base import Collector, Gap, GapReason, Scope, Telemetry
from graph.deps import Deps, SnapshotKey
from graph.hinted_components import steering
from graph.hinted_times import Since, since
from graph.looks import RESERVE_S, answered, measured, together
from graph.masking import MaskingError
from graph.nodes.slack_alert import HOPS, edges_of
from graph.progress import report
from graph.ranking import rank
from graph.state import Evidence, State
from graph.windows import FURTHEST, Windows

NODE = "ContextCollector"
LEAST_S = 3.0  # a second look in less time than that would only find gaps
Seen = Sequence[tuple[Telemetry, str]]


async def context_collector(deps: Deps, state: State) -> dict[str, Any]:
    """Writes ``evidence`` and ``round``. A collector that had finished before a crash is not run again.

    All sources together take ``deps.collect_s`` at most, a second look further back included. If none of them can be
    read the evidence is the gaps, and the analysis has what the alert itself says.
    """
    step = _Step(deps, state, await hinted_scope(deps, state))
    windows, note = step.windows()
    seen = await step.look(windows)
    evidence = await step.rank(seen, windows, note)
    if not windows.fixed and _may_be_older(evidence, seen, windows):
        seen, windows, note = await step.look_further_back(seen, windows)
        evidence = await step.rank(seen, windows, note)
    evidence = await on_thread(deps.masker.masked_evidence, evidence)
    report(
        NODE,
        "ranked",
        f"ranked:{step.round}",
        f"{len(evidence.findings)} findings; first suspect: "
        + (evidence.suspects[0].component if evidence.suspects else "none"),
        {"suspects": [s.component for s in evidence.suspects[:5]], "gaps": len(evidence.gaps)},
    )
    return {"evidence": evidence, "round": step.round}


async def hinted_scope(deps: Deps, state: State) -> Scope:
    """The scope with people's hints, and the services that they point to and that are not looked at already."""
    scope, hints = state["scope"], state.get("hints", ())
    if not hints:
        return scope
    edges = edges_of(deps.catalogue, await deps.observed_edges())
    ends = (end for edge in edges for end in (edge.caller, edge.callee))
    known = dict.fromkeys((*scope.left_out, *deps.catalogue.services, *ends))
    looked_at = {target.service for target in scope.targets}
    named = set(steering(hints, known).named) - looked_at
    asked = [name for name in known if name in named]
    new = (e for e in edges if {e.caller, e.callee} <= named | looked_at and not named.isdisjoint((e.caller, e.callee)))
    return scope.model_copy(
        update={
            "hints": hints,
            "edges": tuple(dict.fromkeys((*scope.edges, *new))),
            "targets": (*scope.targets, *(deps.catalogue.target(name, HOPS) for name in asked)),
            "left_out": tuple(name for name in scope.left_out if name not in named),
        }
    )


def _asked_at(state: State) -> datetime:
    """When this round was asked for: after a crash it looks at the same windows as what was read before."""
    begun, decision = state["scope"].incident.end, state.get("decision")
    return max(begun, decision.at) if decision and state.get("round") else begun


def _may_be_older(evidence: Evidence, seen: Seen, windows: Windows) -> bool:
    """Whether the trouble may have begun before the windows: at their edge, or so early that all of it looks normal."""
    if not evidence.suspects:
        return measured([t for t, _ in seen])
    cited = (evidence.finding(eid) for eid in evidence.suspects[0].findings)
    onset = next((f.at for f in cited if f and f.kind in ("metric", "log", "trace")), None)
    return onset is not None and not windows.hold(onset)


class _Step:
    """One run of the node."""

    def __init__(self, deps: Deps, state: State, scope: Scope) -> None:
        self.deps, self.state, self.scope = deps, state, scope
        self.round = state.get("round", 0) + 1
        self.ends = asyncio.get_running_loop().time() + deps.collect_s

    @property
    def left_s(self) -> float:
        return self.ends - asyncio.get_running_loop().time()

    def windows(self) -> tuple[Windows, tuple[Gap, ...]]:
        """The usual ones, or as far back as a hint asks; a recording has no others, which is a Gap."""
        windows = self.deps.windows(self.state["alert"], _asked_at(self.state))
        hinted = self._hinted_time(windows)
        if hinted is None:
            return windows, ()
        furthest = self.state["alert"].occurred_at - FURTHEST
        wider = windows.since(max(hinted.at, furthest))
        start, asks = windows.incident.start, f"the hint says «{hinted.said}», {_day_and_time(hinted.at)} UTC"
        if wider.incident.start == start:
            self._tell_window(f"Looking from {_day_and_time(start)} UTC on as without the hint: {asks}")
            return windows, ()
        if windows.fixed:
            detail = f"{asks}, but the recording begins at {_day_and_time(start)} UTC and cannot be widened"
            mend = "ask the sources themselves, or record again from earlier on"
            return windows, (Gap(source=NODE, reason=GapReason.TRUNCATED, detail=detail, mend=mend),)
        bound = "; no further back than 24 hours before the alert" if hinted.at < furthest else ""
        self._tell_window(f"Looking from {_day_and_time(wider.incident.start)} UTC on: {asks}{bound}")
        return wider, ()

    def _hinted_time(self, windows: Windows) -> Since | None:
        evidence, asked = self.state.get("evidence"), _asked_at(self.state)
        before = (evidence and evidence.looked_at) or windows
        alert, looked = self.state["alert"].occurred_at, before.incident.start
        return since(self.scope.hints, alert=alert, asked=asked, looked=looked, zone=self.deps.zone)

    def _tell_window(self, message: str) -> None:
        report(NODE, "hinted_window", f"hinted_window:{self.round}", self._tellable(message))

    async def look(self, windows: Windows, *, widened: bool = False) -> Seen:
        """Every source, side by side. If one cannot be stored, the others end too."""
        scope = self._scope(windows)
        reading = [asyncio.create_task(self._once(c, scope, widened=widened)) for c in self.deps.collectors]
        try:
            return await asyncio.gather(*reading)
        finally:
            for task in reading:
                task.cancel()

    async def look_further_back(self, first: Seen, windows: Windows) -> tuple[Seen, Windows, tuple[Gap, ...]]:
        """A second look with wider windows; if it shows nothing, the first one stands, with its own windows."""
        wider = windows.wider()
        older = f"the trouble may be older than {windows.incident.start:%H:%M} UTC"
        if self.left_s < LEAST_S:
            gap = Gap(
                source=NODE,
                reason=GapReason.TIMEOUT,
                detail=f"{older}; no time was left to look",
                mend="raise AUTOPILOT_COLLECT_S, or ask for a re-analysis",
            )
            return first, windows, (gap,)
        report(
            NODE,
            "widened",
            f"widened:{self.round}",
            f"The trouble may be older than {windows.incident.start:%H:%M} UTC: looking from"
            f" {wider.incident.start:%H:%M} on",
        )
        second = await self.look(wider, widened=True)
        known = together([t for t, _ in first], [t for t, _ in second])
        if measured([t for t, _ in second]):
            digests = (b[1] if b[0].rows else a[1] for a, b in zip(first, second, strict=True))
            return list(zip(known, digests, strict=True)), wider, ()
        gap = Gap(
            source=NODE,
            reason=GapReason.EMPTY,
            detail=f"{older}; looking from {wider.incident.start:%H:%M} on showed nothing to compare",
            mend="mend what the sources say is missing, then ask for a re-analysis",
        )
        return [(t, digest) for t, (_, digest) in zip(known, first, strict=True)], windows, (gap,)

    async def rank(self, seen: Seen, windows: Windows, more: tuple[Gap, ...] = ()) -> Evidence:
        """Findings and suspects, on a thread: it takes a second for much telemetry."""
        scope = self._scope(windows)
        evidence = await on_thread(
            rank, [t for t, _ in seen], scope, self.state["alert"], {t.source: digest for t, digest in seen}
        )
        return evidence.model_copy(update={"gaps": (*evidence.gaps, *_left_out(scope), *more)})

    def _scope(self, windows: Windows) -> Scope:
        looked_at = {"incident": windows.incident, "baseline": windows.baseline, "seasonal": windows.seasonal}
        return self.scope.model_copy(update=looked_at)

    async def _once(self, collector: Collector, scope: Scope, *, widened: bool) -> tuple[Telemetry, str]:
        key = SnapshotKey(self.state["incident_id"], self.round, collector.name, widened)
        name = f"{self.round}:{collector.name}" + (":widened" if widened else "")
        stored = await self.deps.snapshots.get(key)
        if stored is None:
            report(NODE, "collector_started", f"collect:{name}", f"{collector.name}: reading")
            telemetry = await self._collect(collector, scope)
            stored = telemetry, await self.deps.snapshots.put(key, telemetry)
        telemetry = stored[0]
        missing: list[JsonValue] = [self._tellable(gap.detail) for gap in telemetry.gaps]
        report(
            NODE,
            "collector_finished",
            f"collected:{name}",
            f"{collector.name}: {_counts(telemetry, missing)}",
            {
                "source": collector.name,
                "gaps": missing,
                "failed": bool(telemetry.gaps) and not telemetry.rows,
                **telemetry.cost.model_dump(),
            },
        )
        return stored

    def _tellable(self, text: str) -> str:
        """A source's own words, which may hold a secret, for the timeline."""
        try:
            return self.deps.masker.mask(text)
        except MaskingError:
            return "withheld, as it could not be masked"

    async def _collect(self, collector: Collector, scope: Scope) -> Telemetry:
        limit_s = max(min(collector.timeout_s, self.left_s), 0.1)
        asking = collector.collect(scope.model_copy(update={"within_s": max(limit_s - RESERVE_S, 0.1)}))
        late = "see `autopilot doctor`; AUTOPILOT_COLLECT_S bounds all sources together"
        return await answered(collector.name, asking, limit_s, late=late)


def _day_and_time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"


def _left_out(scope: Scope) -> tuple[Gap, ...]:
    if not scope.left_out:
        return ()
    names = ", ".join(scope.left_out[:10]) + (", …" if len(scope.left_out) > 10 else "")
    detail = f"{len(scope.left_out)} neighbours were not looked at: {names}"
    return (Gap(source=NODE, reason=GapReason.TRUNCATED, detail=detail, mend="ask for a re-analysis that names one"),)


def _counts(t: Telemetry, missing: Sequence[JsonValue]) -> str:
    kinds = {
        "metrics": len(t.series),
        "log lines": sum(line.count for line in t.logs),
        "spans": len(t.spans),
        "changes": len(t.changes),
        "states": len(t.statuses),
        "runbook sections": len(t.documents),
    }
    said = [f"{count:,} {kind}" for kind, count in kinds.items() if count]
    if missing:
        said.append(f"{len(missing)} gap{'s' if len(missing) > 1 else ''}: {missing[0]}")
    return ", ".join(said) or "nothing there"
