"""ContextCollector: all sources side by side, each within its time; then suspects are ranked without an LLM."""

import asyncio
import logging
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import JsonValue

from collectors._jobs import on_thread
from collectors.base import USUAL_MEND, Collector, CollectorError, Edge, Gap, GapReason, Scope, Telemetry
from graph.deps import Deps, SnapshotKey
from graph.looks import measured, together
from graph.masking import MaskingError
from graph.nodes.slack_alert import HOPS, edges_of
from graph.progress import report
from graph.ranking import rank
from graph.state import Evidence, State
from graph.windows import Windows

NODE = "ContextCollector"
log = logging.getLogger(__name__)
_WORD = re.compile(r"\w[\w.-]*")
RESERVE_S = 1.0  # what a source needs to hand over what it has read
LEAST_S = 3.0  # a second look in less time than that would only find gaps
Seen = Sequence[tuple[Telemetry, str]]


async def context_collector(deps: Deps, state: State) -> dict[str, Any]:
    """Writes ``evidence`` and ``round``. A collector that had finished before a crash is not run again.

    All sources together take ``deps.collect_s`` at most, a second look further back included. If none of them can be
    read the evidence is the gaps, and the analysis has what the alert itself says.
    """
    step = _Step(deps, state, edges_of(deps.catalogue, await deps.observed_edges()) if state.get("hints") else ())
    windows = deps.windows(state["alert"], _asked_at(state))
    seen = await step.look(windows)
    evidence = await step.rank(seen, windows)
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

    def __init__(self, deps: Deps, state: State, edges: Sequence[Edge]) -> None:
        """``edges``: who calls whom, for the services that a hint names."""
        self.deps, self.state, self.edges = deps, state, edges
        self.round = state.get("round", 0) + 1
        self.ends = asyncio.get_running_loop().time() + deps.collect_s

    @property
    def left_s(self) -> float:
        return self.ends - asyncio.get_running_loop().time()

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
        scope, hints = self.state["scope"], self.state.get("hints", ())
        asked = self._asked_for(scope, hints)
        services = {*asked, *(target.service for target in scope.targets)}
        new = (e for e in self.edges if {e.caller, e.callee} <= services and not {e.caller, e.callee}.isdisjoint(asked))
        return scope.model_copy(
            update={
                "incident": windows.incident,
                "baseline": windows.baseline,
                "seasonal": windows.seasonal,
                "hints": hints,
                "edges": tuple(dict.fromkeys((*scope.edges, *new))),
                "targets": (*scope.targets, *(self.deps.catalogue.target(name, HOPS) for name in asked)),
                "left_out": tuple(name for name in scope.left_out if name not in asked),
            }
        )

    def _asked_for(self, scope: Scope, hints: Sequence[str]) -> list[str]:
        """Services that a person names in a hint, and that are not looked at already."""
        known = dict.fromkeys((*scope.left_out, *self.deps.catalogue.services))
        told = " ".join(hints).lower()
        words = {word.strip(".,;:!?()\"'`-") for word in (*told.split(), *_WORD.findall(told))}
        looked_at = {target.service for target in scope.targets}
        return [name for name in known if name not in looked_at and name.lower() in words]

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
        try:
            async with asyncio.timeout(limit_s):
                within_s = max(limit_s - RESERVE_S, 0.1)
                return await collector.collect(scope.model_copy(update={"within_s": within_s}))
        except CollectorError as error:
            mend = error.mend or USUAL_MEND[error.reason]
            gap = Gap(source=collector.name, reason=error.reason, detail=error.detail, mend=mend)
        except TimeoutError:
            gap = Gap(
                source=collector.name,
                reason=GapReason.TIMEOUT,
                detail=f"{collector.name} did not answer within {limit_s:.3g} s",
                mend="see `autopilot doctor`; AUTOPILOT_COLLECT_S bounds all sources together",
            )
        except Exception as error:
            log.exception("collector %s", collector.name)
            gap = Gap(
                source=collector.name,
                reason=GapReason.FAILED,
                detail=f"{type(error).__name__}: {error}"[:500],
                mend="report this defect, with the log",
            )
        return Telemetry(source=collector.name, gaps=(gap,))


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
