"""ContextCollector: all sources side by side, each within its time; then suspects are ranked without an LLM."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from collectors.base import Collector, CollectorError, Gap, GapReason, Scope, Telemetry
from graph.deps import Deps, SnapshotKey
from graph.nodes.slack_alert import HOPS
from graph.progress import report
from graph.ranking import rank
from graph.state import Evidence, State
from graph.windows import Windows

NODE = "ContextCollector"
log = logging.getLogger(__name__)
RESERVE_S = 1.0  # what a source needs to hand over what it has read
LEAST_S = 3.0  # a second look in less time than that would only find gaps
Seen = Sequence[tuple[Telemetry, str]]


async def context_collector(deps: Deps, state: State) -> dict[str, Any]:
    """Writes ``evidence`` and ``round``. A collector that had finished before a crash is not run again.

    All sources together take ``deps.collect_s`` at most, a second look further back included. If none of them can be
    read the evidence is the gaps, and the analysis has what the alert itself says.
    """
    step = _Step(deps, state)
    windows = deps.windows(state["alert"], deps.clock.now())
    seen = await step.look(windows)
    evidence = await step.rank(seen, windows)
    if not windows.fixed and _may_be_older(evidence, seen, windows):
        seen, windows, note = await step.look_further_back(seen, windows)
        evidence = await step.rank(seen, windows, note)
    evidence = await asyncio.to_thread(deps.masker.masked_evidence, evidence)
    report(
        NODE,
        "ranked",
        f"ranked:{step.round}",
        f"{len(evidence.findings)} findings; first suspect: "
        + (evidence.suspects[0].component if evidence.suspects else "none"),
        {"suspects": [s.component for s in evidence.suspects[:5]], "gaps": len(evidence.gaps)},
    )
    return {"evidence": evidence, "round": step.round}


def _may_be_older(evidence: Evidence, seen: Seen, windows: Windows) -> bool:
    """Whether the trouble may have begun before the windows: at their edge, or so early that all of it looks normal."""
    if not evidence.suspects:
        return any(t.series or t.logs or t.spans for t, _ in seen)
    cited = (evidence.finding(eid) for eid in evidence.suspects[0].findings)
    onset = next((f.at for f in cited if f and f.kind in ("metric", "log", "trace")), None)
    return onset is not None and not windows.hold(onset)


class _Step:
    """One run of the node."""

    def __init__(self, deps: Deps, state: State) -> None:
        self.deps, self.state = deps, state
        self.round = state.get("round", 0) + 1
        self.ends = asyncio.get_running_loop().time() + deps.collect_s

    @property
    def left_s(self) -> float:
        return self.ends - asyncio.get_running_loop().time()

    async def look(self, windows: Windows, *, widened: bool = False) -> Seen:
        """Every source, side by side."""
        scope = self._scope(windows).model_copy(update={"within_s": max(self.left_s - RESERVE_S, 0.1)})
        return await asyncio.gather(*(self._once(c, scope, widened=widened) for c in self.deps.collectors))

    async def look_further_back(self, first: Seen, windows: Windows) -> tuple[Seen, Windows, tuple[Gap, ...]]:
        """A second look with wider windows; a source that fails this time is taken as it was seen the first time."""
        wider = windows.wider()
        if self.left_s < LEAST_S:
            gap = Gap(
                source=NODE,
                reason=GapReason.TIMEOUT,
                detail=f"the trouble may be older than {windows.incident.start:%H:%M} UTC; no time was left to look",
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
        return [b if b[0].rows else a for a, b in zip(first, second, strict=True)], wider, ()

    async def rank(self, seen: Seen, windows: Windows, more: tuple[Gap, ...] = ()) -> Evidence:
        """Findings and suspects, on a thread: it takes a second for much telemetry."""
        scope = self._scope(windows)
        evidence = await asyncio.to_thread(
            rank, [t for t, _ in seen], scope, self.state["alert"], {t.source: digest for t, digest in seen}
        )
        return evidence.model_copy(update={"gaps": (*evidence.gaps, *_left_out(scope), *more)})

    def _scope(self, windows: Windows) -> Scope:
        scope, hints = self.state["scope"], self.state.get("hints", ())
        asked = self._asked_for(scope, hints)
        return scope.model_copy(
            update={
                "incident": windows.incident,
                "baseline": windows.baseline,
                "seasonal": windows.seasonal,
                "hints": hints,
                "targets": (*scope.targets, *(self.deps.catalogue.target(name, HOPS) for name in asked)),
                "left_out": tuple(name for name in scope.left_out if name not in asked),
            }
        )

    def _asked_for(self, scope: Scope, hints: Sequence[str]) -> list[str]:
        """Services that a person names in a hint, and that are not looked at already."""
        known = dict.fromkeys((*scope.left_out, *self.deps.catalogue.services))
        words = {word.strip(".,;:!?()\"'`").lower() for hint in hints for word in hint.split()}
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
        report(
            NODE,
            "collector_finished",
            f"collected:{name}",
            f"{collector.name}: {_counts(telemetry)}",
            {
                "source": collector.name,
                "gaps": [g.detail for g in telemetry.gaps],
                "failed": bool(telemetry.gaps) and not telemetry.rows,
                **telemetry.cost.model_dump(),
            },
        )
        return stored

    async def _collect(self, collector: Collector, scope: Scope) -> Telemetry:
        limit_s = max(min(collector.timeout_s, self.left_s), 0.1)
        try:
            async with asyncio.timeout(limit_s):
                return await collector.collect(scope)
        except CollectorError as error:
            gap = Gap(source=collector.name, reason=error.reason, detail=error.detail, mend=error.mend)
        except TimeoutError:
            gap = Gap(
                source=collector.name,
                reason=GapReason.TIMEOUT,
                detail=f"{collector.name} did not answer within {limit_s:.3g} s",
                mend="see `autopilot doctor`; AUTOPILOT_COLLECT_S bounds all sources together",
            )
        except Exception as error:
            log.exception("collector %s", collector.name)
            gap = Gap(source=collector.name, reason=GapReason.FAILED, detail=f"{type(error).__name__}: {error}"[:500])
        return Telemetry(source=collector.name, gaps=(gap,))


def _left_out(scope: Scope) -> tuple[Gap, ...]:
    if not scope.left_out:
        return ()
    names = ", ".join(scope.left_out[:10]) + (", …" if len(scope.left_out) > 10 else "")
    detail = f"{len(scope.left_out)} neighbours were not looked at: {names}"
    return (Gap(source=NODE, reason=GapReason.TRUNCATED, detail=detail, mend="ask for a re-analysis that names one"),)


def _counts(t: Telemetry) -> str:
    kinds = {
        "metrics": len(t.series),
        "log lines": sum(line.count for line in t.logs),
        "spans": len(t.spans),
        "changes": len(t.changes),
        "states": len(t.statuses),
        "runbook sections": len(t.documents),
    }
    said = [f"{count:,} {kind}" for kind, count in kinds.items() if count]
    if t.gaps:
        said.append(f"{len(t.gaps)} gap{'s' if len(t.gaps) > 1 else ''}: {t.gaps[0].detail}")
    return ", ".join(said) or "nothing there"
