"""ContextCollector: all sources side by side, each within its time; then suspects are ranked without an LLM."""

import asyncio
from typing import Any

from collectors.base import Collector, CollectorError, Gap, GapReason, Scope, Telemetry
from graph.deps import Deps
from graph.progress import report
from graph.ranking import rank
from graph.state import State

NODE = "ContextCollector"


async def context_collector(deps: Deps, state: State) -> dict[str, Any]:
    """Writes ``evidence`` and ``round``. A collector that had finished before a crash is not run again."""
    round_ = state.get("round", 0) + 1
    alert = state["alert"]
    incident, baseline = deps.windows(alert, deps.clock.now())
    scope = state["scope"].model_copy(
        update={"incident": incident, "baseline": baseline, "hints": state.get("hints", ())}
    )
    collected = await asyncio.gather(
        *(_collect_once(deps, state["incident_id"], round_, c, scope) for c in deps.collectors)
    )
    telemetry = [t for t, _ in collected]
    digests = {t.source: digest for t, digest in collected}
    evidence = await asyncio.to_thread(rank, telemetry, scope, alert, digests)
    report(
        NODE,
        "ranked",
        f"ranked:{round_}",
        f"{len(evidence.findings)} findings; first suspect: "
        + (evidence.suspects[0].component if evidence.suspects else "none"),
        {"suspects": [s.component for s in evidence.suspects[:5]], "gaps": len(evidence.gaps)},
    )
    return {"evidence": evidence, "round": round_}


async def _collect_once(
    deps: Deps, incident_id: str, round_: int, collector: Collector, scope: Scope
) -> tuple[Telemetry, str]:
    stored = await deps.snapshots.get(incident_id, round_, collector.name)
    if stored is None:
        report(NODE, "collector_started", f"collect:{round_}:{collector.name}", f"{collector.name}: reading")
        telemetry = await _collect(collector, scope)
        stored = telemetry, await deps.snapshots.put(incident_id, round_, telemetry)
    telemetry = stored[0]
    report(
        NODE,
        "collector_finished",
        f"collected:{round_}:{collector.name}",
        f"{collector.name}: {_counts(telemetry)}",
        {
            "source": collector.name,
            "gaps": [g.detail for g in telemetry.gaps],
            "failed": bool(telemetry.gaps) and not _seen(telemetry),
        },
    )
    return stored


async def _collect(collector: Collector, scope: Scope) -> Telemetry:
    try:
        async with asyncio.timeout(collector.timeout_s):
            return await collector.collect(scope)
    except CollectorError as error:
        gap = Gap(source=collector.name, reason=error.reason, detail=error.detail, mend=error.mend)
    except TimeoutError:
        gap = Gap(
            source=collector.name,
            reason=GapReason.TIMEOUT,
            detail=f"{collector.name} did not answer within {collector.timeout_s:g} s",
        )
    except Exception as error:  # noqa: BLE001  one source's fault must not cost the others' answers
        gap = Gap(source=collector.name, reason=GapReason.FAILED, detail=f"{type(error).__name__}: {error}"[:500])
    return Telemetry(source=collector.name, gaps=(gap,))


def _seen(t: Telemetry) -> int:
    return sum(map(len, (t.series, t.logs, t.spans, t.changes, t.statuses, t.documents)))


def _counts(t: Telemetry) -> str:
    kinds = {
        "metrics": t.series,
        "log lines": t.logs,
        "spans": t.spans,
        "changes": t.changes,
        "states": t.statuses,
    }
    said = [f"{len(items)} {kind}" for kind, items in kinds.items() if items]
    if t.gaps:
        said.append(f"{len(t.gaps)} gap{'s' if len(t.gaps) > 1 else ''}: {t.gaps[0].detail}")
    return ", ".join(said) or "nothing there"
