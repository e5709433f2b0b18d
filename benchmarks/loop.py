"""From the webhook to the decision that is asked for, and from the decision to the first change in the shop.

Time is real: the shop lives at the speed of the wall clock. What happened when is read from the timeline, the ledger
and the shop's own log, so that nobody's polling is part of it.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from uuid import uuid4

import httpx

from benchmarks.results import Table, summary
from benchmarks.setting import Setting, await_worker, query
from tests.conftest import World
from tests.processes import wait_until

SCENARIOS_MEASURED = ("bad-deploy", "black-friday")
WORLDS_PER_SCENARIO = 4
SECONDS = 60.0


@dataclass(frozen=True)
class Analysis:
    """One incident; all in seconds."""

    answered: float  # webhook -> 202
    waited: float  # webhook -> the first collector starts
    slowest: float  # the slowest collector, its answer stored
    ranked: float  # the last collector has finished -> suspects are ranked
    concluded: float  # suspects are ranked -> a decision is awaited
    total: float  # webhook -> a decision is awaited

    @property
    def beyond(self) -> float:
        """What is not the slowest collector's."""
        return self.total - self.slowest


@dataclass(frozen=True)
class Reaction:
    """One decision; all in seconds since its POST."""

    claimed: float
    seen: float


def measure(setting: Setting) -> list[Table]:
    """Each world is new: in it one incident is the first a worker ever sees, and a second one is decided."""
    first: list[Analysis] = []
    warm: list[Analysis] = []
    reactions: list[Reaction] = []
    runs = [name for name in SCENARIOS_MEASURED for _ in range(WORLDS_PER_SCENARIO)]
    for number, scenario in enumerate(runs, 1):
        setting.tell(f"loop: {scenario}, {number} of {len(runs)}")
        with ExitStack() as stack:
            world = World(scenario, setting.database(), setting.subfolder("loop"), speed=1.0, stack=stack)
            world.start_shop()
            client = world.start_api()
            world.start_worker()
            await_worker(world.database_url)
            taken, analysis = _analysed(world, client)
            first.append(analysis)
            world.decide(client, taken, "manual").raise_for_status()  # or the next alert would join it
            _await(world, "select closed_at is not null from incident where id = %s", taken)
            incident, analysis = _analysed(world, client)
            warm.append(analysis)
            reactions.append(_decided(world, client, incident))
    return [
        _phases("Webhook to decision, warm worker", warm),
        _phases("The same, first incident", first),
        _after(reactions),
    ]


def _analysed(world: World, client: httpx.Client) -> tuple[str, Analysis]:
    sent = world.clock.now()
    answer = world.send_alert(client, cycle_key=uuid4().hex, event_id=uuid4().hex).raise_for_status()
    answered = world.clock.now()
    incident = answer.json()["incident_id"]
    _await(world, "select status = 'awaiting_decision' from incident where id = %s", incident)
    rows = query(world.database_url, "select key, kind, at from event where incident_id = %s", incident)
    at: dict[str, datetime] = {key: moment for key, _, moment in rows}
    started = {k.rpartition(":")[2]: at[k] for k, kind, _ in rows if kind == "collector_started"}
    finished = {k.rpartition(":")[2]: at[k] for k, kind, _ in rows if kind == "collector_finished"}
    awaited = next(moment for key, moment in at.items() if key.startswith("status:awaiting_decision:"))
    return incident, Analysis(
        answered=(answered - sent).total_seconds(),
        waited=(min(started.values()) - sent).total_seconds(),
        slowest=max((finished[name] - started[name]).total_seconds() for name in started),
        ranked=(at["ranked:1"] - max(finished.values())).total_seconds(),
        concluded=(awaited - at["ranked:1"]).total_seconds(),
        total=(awaited - sent).total_seconds(),
    )


def _decided(world: World, client: httpx.Client, incident: str) -> Reaction:
    revision = client.get(f"/incidents/{incident}/actions").json()["plan_revision"]
    posted = world.clock.now()
    client.post(f"/incidents/{incident}/decision", json={"plan_revision": revision, "choice": "1"}).raise_for_status()
    wait_until(lambda: bool(world.changes()), "a change in the shop", SECONDS)
    seen = datetime.fromisoformat(str(world.changes()[0]["at"]))
    rows = query(world.database_url, "select min(claimed_at) from step where incident_id = %s", incident)
    return Reaction((rows[0][0] - posted).total_seconds(), (seen - posted).total_seconds())


def _await(world: World, statement: str, incident: str) -> None:
    try:
        wait_until(lambda: bool(query(world.database_url, statement, incident)[0][0]), statement, SECONDS)
    except TimeoutError as error:
        raise TimeoutError(f"{error}; {world.logs()}") from error


def _phases(title: str, runs: Sequence[Analysis]) -> Table:
    reference = median(run.slowest for run in runs)
    phases: dict[str, Callable[[Analysis], float]] = {
        "webhook -> 202": lambda run: run.answered,
        "webhook -> first collector starts": lambda run: run.waited,
        "slowest collector (reference)": lambda run: run.slowest,
        "last collector -> suspects ranked": lambda run: run.ranked,
        "ranked -> awaiting a decision": lambda run: run.concluded,
        "webhook -> awaiting a decision": lambda run: run.total,
        "of it beyond the slowest collector": lambda run: run.beyond,
    }
    values = {name: [get(run) for run in runs] for name, get in phases.items()}
    share = median(run.beyond / run.total for run in runs)
    return Table(
        title,
        ("phase", "median", "p95", "n", "of the reference"),
        [(name, *summary(v), f"{median(v) / reference:.2f} x") for name, v in values.items()],
        f"Rules engine, Datadog and AWS collectors on the simulated shop, scenarios {' and '.join(SCENARIOS_MEASURED)},"
        f" at the speed of the wall clock. Median share beyond the slowest collector: {share:.0%}.",
    )


def _after(reactions: Sequence[Reaction]) -> Table:
    claimed, seen = [r.claimed for r in reactions], [r.seen for r in reactions]
    return Table(
        "Decision to action",
        ("from the decision's POST", "median", "p95", "n"),
        [
            ("the first step is claimed in the ledger", *summary(claimed, "ms")),
            ("the shop sees the first change", *summary(seen, "ms")),
        ],
    )
