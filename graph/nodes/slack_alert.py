"""SlackAlert: from an alert, whatever sent it, to the scope of the investigation."""

from collections.abc import Sequence
from typing import Any

from collectors.base import Edge, Scope, Symptom
from graph.catalogue import Catalogue
from graph.deps import Deps
from graph.progress import report
from graph.state import Alert, State

HOPS = 2  # a fault shows in its callers' callers; further away it is rarely told from noise
MAX_NEIGHBOURS = 15  # the budget of time is shared by all of them


async def slack_alert(deps: Deps, state: State) -> dict[str, Any]:
    """Writes ``scope``: the alerted service, its neighbours by relevance, and the windows to look at."""
    alert = state["alert"]
    known = edges_of(deps.catalogue, await deps.observed_edges())
    distances = deps.catalogue.neighbours(alert.service, HOPS, known)
    chosen = dict(list(distances.items())[: 1 + MAX_NEIGHBOURS])
    windows = deps.windows(alert, deps.clock.now())
    scope = Scope(
        service=alert.service,
        environment=deps.catalogue.environment,
        occurred_at=alert.occurred_at,
        incident=windows.incident,
        baseline=windows.baseline,
        seasonal=windows.seasonal,
        symptom=_symptom(alert),
        targets=tuple(deps.catalogue.target(name, hops) for name, hops in chosen.items()),
        left_out=tuple(name for name in distances if name not in chosen),
        edges=tuple(e for e in known if e.caller in chosen and e.callee in chosen),
    )
    report(
        "SlackAlert",
        "scope",
        "scope",
        f"Looking at {alert.service} and {len(scope.targets) - 1} neighbours,"
        f" {scope.incident.start:%H:%M} to {scope.incident.end:%H:%M} UTC",
        {"services": [t.service for t in scope.targets]},
    )
    return {"scope": scope}


def edges_of(catalogue: Catalogue, observed: Sequence[Edge]) -> tuple[Edge, ...]:
    """Declared dependencies, and observed ones between services: what only is called, and nobody listed, is none."""
    services = {*catalogue.services, *(edge.caller for edge in observed)}
    declared = catalogue.edges()
    pairs = {(e.caller, e.callee) for e in declared}
    new = (e for e in observed if e.callee in services and (e.caller, e.callee) not in pairs)
    return (*declared, *sorted(new, key=lambda e: (e.caller, e.callee)))


def _symptom(alert: Alert) -> Symptom:
    return Symptom(
        source=alert.source,
        rule=alert.rule,
        title=alert.title,
        text=alert.text,
        url=alert.url,
        resources=alert.resources,
    )
