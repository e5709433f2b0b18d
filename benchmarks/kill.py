"""``kill -9`` at every boundary that a decision crosses, for every simulated operation.

For each operation an incident is brought to its decision once. Its database is the template of all that follows: one
run in which nothing dies tells which boundaries there are, and what is written to the shop; then one run for each
boundary, in a database and a shop of its own, in which the process dies there and another one carries on.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
from psycopg.rows import dict_row
from pydantic import JsonValue

from benchmarks import mortal
from benchmarks.results import Table
from benchmarks.setting import Setting
from graph.state import ActionOption, PlanStep
from tests.conftest import World
from tests.processes import PRELOAD, context, wait_until

context.set_forkserver_preload([*PRELOAD, mortal.__name__])
OFTEN = 3  # a boundary that is crossed again and again, e.g. by polling, is died at so many times
AT_ONCE = 6
SECONDS = 90.0
SPEED = 480.0

Phase = Literal["deciding", "claiming", "calling", "recording", "verifying", "undoing", "other"]


@dataclass(frozen=True)
class Subject:
    """One operation, and a story of the shop in which it can be used."""

    operation: str
    scenario: str
    params: Mapping[str, JsonValue]
    executor: str = "ecs"
    risk: Literal["none", "low", "medium", "high"] = "medium"


PAYMENT: Mapping[str, JsonValue] = {"service": "payment-service"}
CART: Mapping[str, JsonValue] = {"service": "cart"}
SUBJECTS = (
    Subject("check_ecs_health", "black-friday", PAYMENT),
    Subject("restart_ecs_task", "black-friday", PAYMENT),
    Subject("restart_all_services", "black-friday", {"services": ["payment-service", "checkout"]}),
    Subject("scale_ecs_service", "black-friday", {**PAYMENT, "desired_count": 6}),
    Subject("rollback_ecs_service", "bad-deploy", {"service": "checkout"}),
    Subject("stop_ecs_task", "stuck-task", {"service": "catalogue"}),
    Subject("reduce_traffic", "black-friday", {**PAYMENT, "keep_percent": 40}, "traffic"),
    Subject("gradual_traffic_restore", "diverted-traffic", {**CART, "pause_s": 5}, "traffic"),
    Subject("reboot_db_instance", "slow-database", {"service": "orders-db"}, "rds", "high"),
    Subject("failover_db_cluster", "slow-database", {"service": "orders-db"}, "rds", "high"),
    Subject("failover_cache", "cache-node-hung", {"service": "redis"}, "elasticache", "high"),
    Subject(
        "reboot_cache_cluster", "cache-node-hung", {"service": "redis", "node": "shop-redis-001"}, "elasticache", "high"
    ),
    Subject("revert_configuration", "feature-flag", {"service": "catalogue"}, "appconfig"),
)


@dataclass(frozen=True)
class Ready:
    """An incident that waits for its decision, in a database that is copied for each run."""

    subject: Subject
    template: str
    incident: str
    points: tuple[str, ...] = ()
    writes: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Fate:
    """What became of an incident whose process died at a point."""

    subject: Subject
    point: str
    died: bool
    status: str
    steps: tuple[Mapping[str, Any], ...]
    writes: Counter[str]
    expected: Counter[str]
    lost: bool

    @property
    def twice(self) -> bool:
        """The shop was asked for something more often than in the run in which nothing died."""
        return bool(self.writes - self.expected)

    @property
    def unknown(self) -> bool:
        """The ledger says that it cannot tell."""
        return any(s["result"] and s["result"]["status"] == "unknown" for s in self.steps)

    @property
    def silent(self) -> bool:
        """The shop was changed and the ledger does not say so, or the ledger believes in what never happened."""
        done = [s for s in self.steps if s["result"] and not s["undo"]]
        told = any(s["result"]["made"] or s["result"]["status"] == "unknown" for s in done)
        believed = any(s["result"]["made"] and s["result"]["status"] == "succeeded" for s in done)
        return (bool(self.writes) and not told) or (believed and not self.writes)


def measure(setting: Setting) -> list[Table]:
    """Every point of every operation; the whole takes some twenty minutes."""
    fates: list[Fate] = []
    for subject in SUBJECTS:
        setting.tell(f"kill: {subject.operation}")
        ready = prepared(subject, setting.postgres.url, setting.database(), setting.subfolder("kill"))
        fates += killed(ready, ready.points, setting.postgres.url, setting.subfolder("kill"))
    return tables(fates)


def prepared(subject: Subject, postgres_url: str, database_url: str, folder: Path) -> Ready:
    """The incident at its decision, the points, and what the shop is asked for when nothing dies."""
    step = PlanStep(operation=subject.operation, params=dict(subject.params))
    option = ActionOption(title="Scripted", description="", risk=subject.risk, minutes=1.0, steps=(step,))
    with ExitStack() as stack:
        world = _world(subject, database_url, folder, stack)
        process = world.start(
            mortal.analyse, database_url, subject.scenario, str(folder / "analysis"), option.model_dump_json()
        )
        process.join(SECONDS)
        assert process.exitcode == 0, world.logs()
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        row = connection.execute("select id, status from incident").fetchone()
    assert row is not None
    assert row["status"] == "awaiting_decision", f"{subject.operation}: {row['status']}"
    ready = Ready(subject, database_url, row["id"])
    undisturbed, crossed = _run(ready, "", postgres_url, folder)
    assert not undisturbed.lost, f"{subject.operation}: {undisturbed.status}; see {folder}"
    points = tuple(p for p in crossed if int(p.rpartition("#")[2]) <= OFTEN and phase(p) != "other")
    return Ready(subject, database_url, row["id"], points, undisturbed.writes)


def killed(ready: Ready, points: Sequence[str], postgres_url: str, folder: Path) -> list[Fate]:
    """One run for each of these points, a few at once."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(lambda point: _run(ready, point, postgres_url, folder)[0], points))


def _run(ready: Ready, point: str, postgres_url: str, folder: Path) -> tuple[Fate, list[str]]:
    """A process that dies at ``point``, another that carries on; the crossings of the first."""
    here = folder / uuid4().hex
    here.mkdir()
    url = _copied(ready.template, postgres_url)
    with ExitStack() as stack:
        world = _world(ready.subject, url, here, stack)
        first = world.start(mortal.act, url, ready.incident, point, str(here / "first"))
        first.join(SECONDS)
        died = first.exitcode == -9
        ended = first.exitcode == 0
        if died:
            second = world.start(mortal.act, url, ready.incident, "", str(here / "second"))
            second.join(SECONDS)
            ended = second.exitcode == 0
        writes = Counter(str(change["operation"]) for change in world.changes())
    status, steps = _told(url, ready.incident)
    unfinished = any(s["result"] is None for s in steps)
    _dropped(url, postgres_url)
    fate = Fate(
        subject=ready.subject,
        point=point,
        died=died,
        status=status,
        steps=tuple(steps),
        writes=writes,
        expected=ready.writes if point else writes,
        lost=not ended or unfinished or status not in (*mortal.ENDED, "awaiting_decision"),
    )
    return fate, (here / "first").read_text().splitlines()


def _world(subject: Subject, url: str, folder: Path, stack: ExitStack) -> World:
    world = World(subject.scenario, url, folder, speed=SPEED, stack=stack)
    # A client of each AWS service takes a tenth of a second to make: no more than the operation needs.
    world.environment |= {"AUTOPILOT_EXECUTORS": subject.executor, "AUTOPILOT_COLLECTORS": "datadog"}
    world.start_shop()
    return world


def _told(url: str, incident: str) -> tuple[str, list[dict[str, Any]]]:
    with psycopg.connect(url, row_factory=dict_row) as connection:
        row = connection.execute("select status from incident where id = %s", (incident,)).fetchone()
        steps = connection.execute("select ordinal, undo, attempt, result from step order by claimed_at").fetchall()
    assert row is not None
    return row["status"], steps


def _copied(template: str, postgres_url: str) -> str:
    """A database like the template, which nobody is connected to."""
    name, source = f"k{uuid4().hex}", urlsplit(template).path.strip("/")

    def copied() -> bool:
        try:
            with psycopg.connect(postgres_url, autocommit=True) as connection:
                connection.execute(f"create database {name} template {source}".encode())
        except psycopg.errors.ObjectInUse:
            return False  # another copy is being made
        return True

    wait_until(copied, f"a copy of {source}")
    return template.replace(f"/{source}?", f"/{name}?")


def _dropped(url: str, postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"drop database {urlsplit(url).path.strip('/')} with (force)".encode())


# --- telling -------------------------------------------------------------------------------------------------


def phase(point: str) -> Phase:
    """What the product is doing when it crosses a point."""
    if not point:
        return "other"
    name = point.lower()
    words: Mapping[Phase, tuple[str, ...]] = {
        "undoing": ("undo",),
        "deciding": ("app.decisions", "app.store.decisions", "remediationdecision"),
        "claiming": ("claim", "inspect", "retake", "ledger.find"),
        "calling": (".execute", ".probe", ".settle"),
        "recording": ("finish", "actionexecutor", "asyncpostgressaver", "runner"),
        "verifying": (".measure",),
    }
    return next((p for p, found in words.items() if any(w in name for w in found)), "other")


def tables(fates: Sequence[Fate]) -> list[Table]:
    """By operation, and by what it was doing."""
    return [
        _table(
            "By operation", "operation", {s: [f for f in fates if f.subject.operation == s] for s in _operations(fates)}
        ),
        _table("By what it was doing", "phase", {p: [f for f in fates if phase(f.point) == p] for p in _phases(fates)}),
    ]


def _operations(fates: Iterable[Fate]) -> list[str]:
    return list(dict.fromkeys(f.subject.operation for f in fates))


def _phases(fates: Iterable[Fate]) -> list[str]:
    return sorted({phase(f.point) for f in fates})


def _table(title: str, head: str, groups: Mapping[str, Sequence[Fate]]) -> Table:
    columns = (head, "points", "died there", "incidents lost", "run twice", "silently unknown", "told as unknown")
    rows = [(name, *_counts(group)) for name, group in groups.items()]
    rows.append(("all", *_counts([f for group in groups.values() for f in group])))
    return Table(
        title,
        columns,
        rows,
        "A process is killed with SIGKILL at the point, another one carries on. Lost: the incident is not at an end or"
        " at a decision, or a step has no result. Run twice: the shop was asked for a change more often than when"
        " nothing dies. Silently unknown: the shop was changed and the ledger does not say so, or the other way round.",
    )


def _counts(fates: Sequence[Fate]) -> tuple[str, ...]:
    points = {(f.subject.operation, f.point) for f in fates}
    counted = (
        len(points),
        sum(f.died for f in fates),
        sum(f.lost for f in fates),
        sum(f.twice for f in fates),
        sum(f.silent for f in fates),
        sum(f.unknown for f in fates),
    )
    return tuple(str(n) for n in counted)
