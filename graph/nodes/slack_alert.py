"""SlackAlert: from an alert, whatever sent it, to the scope of the investigation."""

from typing import Any

from collectors.base import Scope
from graph.deps import Deps
from graph.progress import report
from graph.state import State

HOPS = 2  # a fault shows in its callers' callers; further away it is rarely told from noise


async def slack_alert(deps: Deps, state: State) -> dict[str, Any]:
    """Writes ``scope``: the alerted service, its neighbours, and the windows to look at."""
    alert = state["alert"]
    distances = deps.catalogue.neighbours(alert.service, HOPS)
    incident, baseline = deps.windows(alert, deps.clock.now())
    scope = Scope(
        service=alert.service,
        environment=deps.catalogue.environment,
        occurred_at=alert.occurred_at,
        incident=incident,
        baseline=baseline,
        targets=tuple(
            deps.catalogue.target(name, hops)
            for name, hops in sorted(distances.items(), key=lambda item: (item[1], item[0]))
        ),
        edges=tuple(e for e in deps.catalogue.edges() if e.caller in distances and e.callee in distances),
    )
    report(
        "SlackAlert",
        "scope",
        "scope",
        f"Looking at {alert.service} and {len(scope.targets) - 1} neighbours,"
        f" {incident.start:%H:%M} to {incident.end:%H:%M} UTC",
        {"services": [t.service for t in scope.targets]},
    )
    return {"scope": scope}
