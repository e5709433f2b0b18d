"""Deciding and acting by many at once: two APIs, two workers and one shop, and storms of seeds on one Postgres.

Who comes first is left to chance, in delays that are drawn from a seed. Whatever the order was, the audit log tells it
row by row, and ``against_the_rules`` reads it as a referee: nothing was claimed that nobody had decided, after it was
withdrawn, while all was frozen, twice, or beside another action on the same resource.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from app import audit, freezing
from app.clock import SystemClock
from app.db import in_one_transaction, transaction
from app.decisions import withdraw
from app.desk import UseCaseError
from app.embedded_postgres import EmbeddedPostgres
from app.intake.triage import UNDECIDED
from app.runner import Busy, Runner
from app.security import Caller
from app.settings import Settings
from app.store import alerts
from app.waiting import look
from app.wiring import assembled
from graph.llms.scripted import ScriptedAnalyst
from graph.policy import Policy
from graph.state import ActionOption, PlanStep, RootCause
from tests import processes
from tests.app.deciding import ANN, BOB, KIM, OPTIONS, Office, offices, option
from tests.conftest import ROOT, World, make_key
from tests.processes import wait_until

Rows = Sequence[Mapping[str, Any]]
ECS = ("web-gateway", "checkout", "cart", "catalogue", "payment-service", "notification", "reporting")
CAUSE = RootCause(component=None, category="unknown", title="t", mechanism="m", confidence="inconclusive")
LOG = "select seq, kind, actor, incident_id, body from audit order by seq"


# --- the referee ---


@dataclass
class Referee:
    """What the log has told so far; each method takes one row, and yields a sentence for what must not come then."""

    frozen: bool = False
    decided: set[tuple[str, ...]] = field(default_factory=set)
    claimed: set[tuple[str, ...]] = field(default_factory=set)
    held: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def freeze(self, _: tuple[str, ...], body: Mapping[str, Any]) -> Iterator[str]:
        """Pulled or lifted."""
        self.frozen = body["state"] == "pulled"
        yield from ()

    def decision(self, step: tuple[str, ...], _: Mapping[str, Any]) -> Iterator[str]:
        """One for each plan."""
        if step[:2] in self.decided:
            yield f"{step} was decided twice"
        self.decided.add(step[:2])

    def withdrawal(self, step: tuple[str, ...], body: Mapping[str, Any]) -> Iterator[str]:
        """Before anything of it began."""
        if body["what"] == "decision" and any(one[:2] == step[:2] for one in self.claimed):
            yield f"{step} was withdrawn after it had begun"
        if body["what"] == "decision":
            self.decided.discard(step[:2])

    def claim(self, step: tuple[str, ...], body: Mapping[str, Any]) -> Iterator[str]:
        """With right, once, and alone with its resources."""
        if self.frozen:
            yield f"{step} was claimed while all was frozen"
        if step[:2] not in self.decided:
            yield f"{step} was claimed without a decision"
        if step in self.claimed:
            yield f"{step} was claimed twice"
        self.claimed.add(step)
        for resource in filter(None, body["resource"].split(",")):
            if resource in self.held:
                yield f"{step} was claimed while {self.held[resource]} held {resource}"
            self.held[resource] = step

    def step(self, step: tuple[str, ...], _: Mapping[str, Any]) -> Iterator[str]:
        """Its resources are free."""
        self.held = {resource: holder for resource, holder in self.held.items() if holder != step}
        yield from ()


def against_the_rules(log: Rows) -> Iterator[str]:
    """A sentence for each row of the audit log that must not come after those before it."""
    referee = Referee()
    for row in log:
        body = row["body"]
        step = (row["incident_id"], *(body.get(name) for name in ("plan_revision", "ordinal", "undo")))
        if judge := getattr(referee, row["kind"], None):
            yield from judge(step, body)


def test_the_referee_sees_every_foul() -> None:
    def row(kind: str, plan: str = "r", **body: object) -> dict[str, Any]:
        return {"kind": kind, "incident_id": "i", "body": {"plan_revision": plan, "ordinal": 1, "undo": False, **body}}

    decision, claim = row("decision"), row("claim", resource="a")
    withdrawal = row("withdrawal", what="decision")
    other = [row("decision", "s"), row("claim", "s", resource="b,a")]
    fouls: dict[str, Rows] = {
        "without a decision": [claim],
        "without": [decision, withdrawal, claim],
        "frozen": [decision, row("freeze", state="pulled"), claim],
        "claimed twice": [decision, claim, row("step"), claim],
        "decided twice": [decision, decision],
        "withdrawn after": [decision, claim, withdrawal],
        "held a": [decision, claim, *other],
    }
    for words, log in fouls.items():
        assert [words in said for said in against_the_rules(log)] == [True], words
    thawed = [row("freeze", state="pulled"), row("freeze", state="lifted")]
    assert list(against_the_rules([decision, *thawed, claim, row("step"), *other])) == []


# --- real processes ---


@dataclass
class City:
    """One shop, two APIs and two workers; incidents that wait for a decision, each with a scripted plan."""

    world: World
    clients: list[httpx.Client]
    admins: list[dict[str, str]]
    plans: dict[str, list[str]] = field(default_factory=dict)  # of each storm

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """SQL."""
        with psycopg.connect(self.world.database_url, row_factory=dict_row) as connection:
            cursor = connection.execute(query.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def revision(self, incident: str) -> str:
        """Of the plan that waits."""
        revision = self.clients[0].get(f"/incidents/{incident}/actions").json()["plan_revision"]
        assert isinstance(revision, str)
        return revision

    def decide(self, api: int, incident: str, revision: str, **headers: str) -> httpx.Response:
        """On option 1, through one of the APIs."""
        body = {"plan_revision": revision, "choice": "1"}
        return self.clients[api % 2].post(f"/incidents/{incident}/decision", json=body, headers=headers)

    def settled(self) -> None:
        """Until nobody carries anything out any more."""
        busy = "select 1 from incident where status in ('executing', 'verifying', 'planning') and closed_at is null"
        wait_until(lambda: not self.rows(busy), f"rest; {self.world.logs()}", 60)
        assert self.rows("select 1 from incident where status = 'needs_attention'") == [], self.world.logs()

    def steps(self, incident: str) -> list[dict[str, Any]]:
        """Of the ledger; ``claimed``: it was not only refused."""
        return self.rows(
            "select resource, attempt > 0 as claimed, result from step where incident_id = %s order by ordinal",
            incident,
        )

    def check_the_books(self) -> None:
        """The log breaks no rule and is whole; the shop was asked for just what the ledger says, each once."""
        self.settled()
        assert list(against_the_rules(self.rows(LOG))) == []
        results = self.rows("select result from step where attempt > 0")
        told = sorted(r for row in results for r in row["result"]["request_ids"])
        assert sorted(change["request_id"] for change in self.world.changes()) == told
        assert self.rows("select 1 from lease") == []
        report = in_one_transaction(self.world.database_url, audit.verify)
        assert report.findings == []


STORMS: Mapping[str, Sequence[tuple[str, dict[str, Any]]]] = {
    "clicks": [("restart_ecs_task", {"service": name}) for name in ECS[:2]],
    "approvers": [("restart_all_services", {"services": [name]}) for name in ECS[2:5]],
    "recovery": [("restart_ecs_task", {"service": name}) for name in ECS[:5]],
    "freeze": [("restart_ecs_task", {"service": name}) for name in ECS[:6]],
    "expiry": [("restart_ecs_task", {"service": name}) for name in ECS[:5]],
    "withdraw": [("restart_ecs_task", {"service": name}) for name in ECS[:5]],
    "resource": [
        made
        for name in ECS[1:3]
        for made in (
            ("restart_ecs_task", {"service": name}),
            ("scale_ecs_service", {"service": name, "desired_count": 5}),
        )
    ],
}


@pytest.fixture(scope="module")
def city(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[City]:
    """One for all storms: an incident is decided on once."""
    folder, name = tmp_path_factory.mktemp("city"), f"city{time.time_ns()}"
    with psycopg.connect(postgres.url, autocommit=True) as connection, ExitStack() as stack:
        connection.execute(f"create database {name} template template_autopilot".encode())
        stack.callback(connection.execute, f"drop database {name} with (force)".encode())
        url = postgres.url.replace("/postgres?", f"/{name}?")
        world = World("black-friday", url, folder, speed=240.0, stack=stack)
        world.environment |= {"AUTOPILOT_CONFIG": str(_strict(folder)), "AUTOPILOT_INVESTIGATIONS_AT_ONCE": "100"}
        world.start_shop()
        clients = [world.start_api(), world.start_api()]
        admins = [{"Authorization": f"Bearer {make_key(url, 'admin', person)}"} for person in ("ann", "bob")]
        city = City(world, clients, admins)
        _plan_all(city)
        for _ in range(2):
            world.start_worker()
        yield city


def _strict(folder: Path) -> Path:
    """The shop's catalogue; two people for high risk, and as many actions as a storm takes."""
    known = yaml.safe_load((ROOT / "app" / "simulator" / "autopilot.yaml").read_text())
    known["policy"] = {"approvals": {"high": 2}, "actions_per_service_hour": 1000}
    file = folder / "autopilot.yaml"
    file.write_text(yaml.safe_dump(known))
    return file


def _plan_all(city: City) -> None:
    """An incident for each plan of each storm, out of an alert of its own."""
    wanted: list[tuple[str, str]] = []
    for storm, steps in STORMS.items():
        for number, (operation, params) in enumerate(steps):
            incident = city.world.send_alert(city.clients[0], **_alert(storm, number)).json()["incident_id"]
            step = PlanStep(operation=operation, params=params)
            risk = "high" if operation == "restart_all_services" else "medium"
            scripted = ActionOption(title="Scripted", description="", risk=risk, minutes=1.0, steps=(step,))
            wanted.append((incident, scripted.model_dump_json()))
            city.plans.setdefault(storm, []).append(incident)
    planning = city.world.start(plan, city.world.database_url, wanted)
    planning.join(60)
    assert planning.exitcode == 0, city.world.logs()


def _alert(storm: str, number: int) -> dict[str, object]:
    """It has nothing to do with the others."""
    name = f"{storm}-{number}"
    return {"service": name, "scope": f"service:{name}", "monitor_id": name, "cycle_key": name, "event_id": name}


def plan(database_url: str, wanted: Sequence[tuple[str, str]]) -> None:
    """In a process of its own: bring each incident to its decision, with that one option."""

    async def advance_all() -> None:
        async with assembled(Settings(), database_url) as product:
            for incident, scripted in wanted:
                analyst = ScriptedAnalyst(CAUSE, [ActionOption.model_validate_json(scripted)])
                await Runner(product.pool, replace(product.deps, analyst=analyst, collectors=())).advance(incident)

    asyncio.run(advance_all())


def at_once(*actors: Callable[[], httpx.Response]) -> list[httpx.Response]:
    """What each was answered."""
    with ThreadPoolExecutor(len(actors)) as threads:
        return [future.result() for future in [threads.submit(actor) for actor in actors]]


def later(seconds: float, actor: Callable[[], httpx.Response]) -> Callable[[], httpx.Response]:
    """The same, after a while."""

    def delayed() -> httpx.Response:
        time.sleep(seconds)
        return actor()

    return delayed


def test_many_clicks_through_two_processes_are_one_decision(city: City) -> None:
    for incident in city.plans["clicks"]:
        revision = city.revision(incident)
        answers = at_once(*(partial(city.decide, n, incident, revision) for n in range(12)))
        assert sorted(a.status_code for a in answers) == [202] + [409] * 11, [a.text for a in answers]
        lost = [a.json() for a in answers if a.status_code == 409]
        assert {p["reason"] for p in lost} == {"already_decided"}
        assert all("Already decided: kim chose 1" in p["detail"] for p in lost)
        city.settled()
        [step] = city.steps(incident)
        assert (step["claimed"], step["result"]["status"]) == (True, "succeeded"), step
    city.check_the_books()


def test_two_approvers_at_once_are_two_people_and_one_decision(city: City) -> None:
    ann, bob = city.admins
    together, doubled, crowd = city.plans["approvers"]
    people: dict[str, list[dict[str, str]]] = {together: [ann, bob], doubled: [ann] * 6, crowd: [ann, bob] * 4}
    said = {}
    for incident, callers in people.items():
        revision = city.revision(incident)
        said[incident] = at_once(*(partial(city.decide, n, incident, revision, **who) for n, who in enumerate(callers)))
    told = {
        incident: sorted(a.json().get("reason") or a.json()["status"] for a in answers)
        for incident, answers in said.items()
    }
    assert told[together] == ["decided", "waiting_for_approval"]
    assert told[doubled] == ["same_person"] * 5 + ["waiting_for_approval"]
    assert (told[crowd].count("decided"), told[crowd].count("waiting_for_approval")) == (1, 1)
    assert set(told[crowd]) <= {"decided", "waiting_for_approval", "same_person", "already_decided"}
    city.check_the_books()
    for incident in (together, crowd):
        [row] = city.rows("select approvals from decision where incident_id = %s", incident)
        assert sorted(a["by"] for a in row["approvals"]) == ["ann", "bob"]
        assert [s["result"]["status"] for s in city.steps(incident)] == ["succeeded"]
    assert city.steps(doubled) == []


def test_a_decision_against_the_recovery(city: City) -> None:
    """Either it runs, or the incident is closed and nothing does."""
    chance = random.Random(1)
    for number, incident in enumerate(city.plans["recovery"]):
        revision = city.revision(incident)
        alert = _alert("recovery", number) | {"transition": "Recovered", "event_id": f"over-{number}"}
        decided, recovered = at_once(
            later(chance.uniform(0, 0.03), partial(city.decide, 0, incident, revision)),
            later(chance.uniform(0, 0.03), partial(city.world.send_alert, city.clients[1], **alert)),
        )
        assert recovered.status_code == 202
        row = city.rows("select status, status_reason, recovered from incident where id = %s", incident)[0]
        if decided.status_code == 202:
            assert not row["recovered"], row
        else:
            assert (decided.status_code, decided.json()["reason"]) == (409, "not_awaited"), decided.text
            assert (row["status"], row["status_reason"]) == ("closed", "recovered by itself")
            assert city.steps(incident) == []
    city.check_the_books()
    for incident in city.plans["recovery"]:
        made = city.rows("select 1 from decision where incident_id = %s", incident)
        assert [s["claimed"] for s in city.steps(incident)] == [True] * len(made)


def test_decisions_against_the_kill_switch(city: City) -> None:
    """What was claimed before goes on; after the answer nothing else reaches the shop."""
    chance, ann = random.Random(2), city.admins[0]
    waiting = {incident: city.revision(incident) for incident in city.plans["freeze"]}
    pull = later(0.1, lambda: city.clients[1].post("/freeze", json={"reason": "storm"}, headers=ann))
    try:
        *decided, pulled = at_once(
            *(later(chance.uniform(0, 0.3), partial(city.decide, n, i, r)) for n, (i, r) in enumerate(waiting.items())),
            pull,
        )
        claims = city.rows("select count(*) as n from audit where kind = 'claim'")
        assert pulled.status_code == 200, pulled.text
        for answer in decided:
            assert answer.status_code == 202 or answer.json()["reason"] == "frozen", answer.text
        city.check_the_books()
        assert city.rows("select count(*) as n from audit where kind = 'claim'") == claims
        for incident, answer in zip(waiting, decided, strict=True):
            for step in city.steps(incident):
                assert answer.status_code == 202
                assert step["claimed"] or "ann froze all actions" in step["result"]["detail"]
    finally:
        assert city.clients[0].delete("/freeze", headers=ann).status_code == 200


def test_decisions_against_the_expiry(city: City) -> None:
    """One that came in time runs, and its plan never expires; one that came late does not."""
    chance = random.Random(3)
    waiting = {incident: city.revision(incident) for incident in city.plans["expiry"]}
    for incident in waiting:
        city.rows(
            "update incident set planned_at = clock_timestamp() - interval '30 minutes' + make_interval(secs => %s)"
            " where id = %s",
            chance.uniform(0.0, 1.2),
            incident,
        )
    answers = at_once(
        *(later(chance.uniform(0, 1.5), partial(city.decide, n, i, r)) for n, (i, r) in enumerate(waiting.items()))
    )
    assert {a.status_code for a in answers} <= {202, 409}
    city.check_the_books()
    for (incident, revision), answer in zip(waiting.items(), answers, strict=True):
        expired = city.rows("select 1 from event where incident_id = %s and key = %s", incident, f"expired:{revision}")
        claimed = [step["claimed"] for step in city.steps(incident)]
        if answer.status_code == 202:
            assert (claimed, expired) == ([True], [])
        else:
            assert (answer.json()["reason"], claimed) == ("expired", [])


def test_withdrawals_against_the_claim(city: City) -> None:
    chance = random.Random(4)
    waiting = {incident: city.revision(incident) for incident in city.plans["withdraw"]}

    def decide_and_withdraw(number: int, incident: str, revision: str, seconds: float) -> httpx.Response:
        assert city.decide(number, incident, revision).status_code == 202
        time.sleep(seconds)
        return city.clients[(number + 1) % 2].delete(f"/incidents/{incident}/decision")

    answers = at_once(
        *(partial(decide_and_withdraw, n, i, r, chance.uniform(0, 0.4)) for n, (i, r) in enumerate(waiting.items()))
    )
    city.check_the_books()
    for incident, answer in zip(waiting, answers, strict=True):
        claimed = [step["claimed"] for step in city.steps(incident)]
        if answer.status_code == 200:
            assert True not in claimed
        else:
            assert (answer.json()["reason"], claimed) == ("already_started", [True]), answer.text


def test_two_incidents_on_one_resource(city: City) -> None:
    """One acts; the other waits its turn, and is refused where the first changed what it was approved on."""
    plans = city.plans["resource"]
    for pair in zip(plans[::2], plans[1::2], strict=True):
        revisions = [city.revision(incident) for incident in pair]
        answers = at_once(*(partial(city.decide, n, pair[n], revisions[n]) for n in range(2)))
        assert [a.status_code for a in answers] == [202, 202], [a.text for a in answers]
    city.check_the_books()
    for pair in zip(plans[::2], plans[1::2], strict=True):
        results = [step["result"] for incident in pair for step in city.steps(incident)]
        assert "succeeded" in [result["status"] for result in results]
        for result in results:
            refused = ("changed since it was approved", "is being changed by another action")
            assert result["status"] == "succeeded" or any(said in result["detail"] for said in refused), result


def test_after_all_storms_the_command_says_that_the_log_is_whole(city: City) -> None:
    city.check_the_books()
    city.world.environment["DATABASE_URL"] = city.world.database_url
    verifying = city.world.start(processes.run_command, "audit", "verify")
    verifying.join(30)
    said = (city.world.folder / "run_command.log").read_text()
    assert verifying.exitcode == 0, said
    assert "The log is whole" in said


# --- one Postgres, many seeds ---

EVE = Caller("eve", "admin")
OTHERS = (option("Turn another", ("turn_dial", "cache", 8)), option("Use force", ("force_dial", "cache", 9)))
CLOCK = SystemClock()
Actor = Callable[[Office, str], Awaitable[object]]


async def _recovers(office: Office, incident: str) -> None:
    """As triage closes it: under the incident's lock, where nobody has decided."""
    async with transaction(office.pool) as connection:
        [case] = await alerts.cases(connection, [incident])
        if case.status in UNDECIDED and not case.closed:
            await alerts.close_recovered(connection, [incident])


async def _expires(office: Office, incident: str) -> None:
    query = "update incident set planned_at = planned_at - interval '1 hour' where id = %s"
    await office.sql(query, incident)
    await look(office.desk)


async def _advances(office: Office, incident: str) -> None:
    with suppress(Busy):
        await office.runner.advance(incident)


def _decides(choice: str, caller: Caller) -> Actor:
    async def decide_it(office: Office, incident: str) -> None:
        row = await office.get(incident)
        await office.decide(incident, choice, caller, plan_revision=row["plan_revision"] or row["planned_revision"])

    return decide_it


ACTORS: Mapping[str, Actor] = {
    "kim chooses 1": _decides("1", KIM),
    "ann chooses 1": _decides("1", ANN),
    "ann chooses 2": _decides("2", ANN),
    "bob chooses 2": _decides("2", BOB),
    "eve chooses 2": _decides("2", EVE),
    "kim re-plans": _decides("re_plan", KIM),
    "kim undoes": _decides("undo", KIM),
    "kim withdraws": lambda office, incident: withdraw(office.desk, incident, KIM),
    "ann withdraws": lambda office, incident: withdraw(office.desk, incident, ANN),
    "it recovers": _recovers,
    "it expires": _expires,
    "ann freezes": lambda office, _: freezing.pull(office.pool, CLOCK, ANN, "storm"),
    "ann thaws": lambda office, _: freezing.lift(office.pool, CLOCK, ANN),
    "a worker": _advances,
    "another worker": _advances,
}
OFTEN = ("kim chooses 1", "a worker", "another worker", "ann freezes", "kim withdraws", "it recovers")
SOON, AFTER = st.integers(0, 40), st.integers(0, 300)  # milliseconds
ACTS = st.tuples(
    st.tuples(st.just("kim chooses 1"), st.just(0), SOON),
    st.tuples(st.sampled_from(("kim chooses 1", "ann chooses 2")), st.just(1), SOON),
    st.lists(
        st.tuples(st.sampled_from(OFTEN) | st.sampled_from(sorted(ACTORS)), st.integers(0, 1), AFTER),
        min_size=3,
        max_size=12,
    ),
).map(lambda drawn: [*drawn[:2], *drawn[2]])


@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=ACTS)
async def test_whoever_comes_first_no_rule_is_broken(office: Office, acts: list[tuple[str, int, int]]) -> None:
    """Each act: who, on which of two incidents, and after how many milliseconds."""
    office.dials.stand.update(shop=1, db=2, cache=3)
    office.dials.calls.clear()
    [before] = await office.sql("select coalesce(max(seq), 0) as seq from audit")
    both = [await office.planned(f"{n}-{time.time_ns()}", plan) for n, plan in enumerate((OPTIONS, OTHERS))]

    async def act(name: str, which: int, milliseconds: int) -> None:
        await asyncio.sleep(milliseconds / 1000)
        with suppress(UseCaseError):
            await ACTORS[name](office, both[which])

    async with asyncio.timeout(30):
        await asyncio.gather(*(act(*one) for one in acts))
        for incident in both * 2:  # what is decided by now is carried out
            await office.runner.advance(incident)
    log = [row for row in await office.sql(LOG) if row["seq"] > before["seq"]]
    assert list(against_the_rules(log)) == []
    assert await office.sql("select 1 from lease") == []
    made = await office.sql(
        "select 1 from step where (result->>'made')::bool and incident_id = any(%s) and not undo", both
    )
    assert len([call for call in office.dials.calls if not call.startswith("undo")]) == len(made)
    await _over(office, both)


async def _over(office: Office, both: list[str]) -> None:
    """The next storm finds nothing of this one; the log stays."""
    rows = await office.sql("select status from incident where id = any(%s)", both)
    assert {row["status"] for row in rows} <= {"awaiting_decision", "closed", "resolved"}
    await office.sql("update incident set closed_at = now(), status = 'closed' where id = any(%s)", both)
    with suppress(UseCaseError):
        await freezing.lift(office.pool, CLOCK, ANN)
    async with transaction(office.pool) as connection:
        assert (await audit.verify(connection)).findings == []


@pytest.fixture
async def office(database_url: str) -> AsyncIterator[Office]:
    """One for all seeds of a test."""
    async with offices(database_url) as made:
        yield made.under(Policy(actions_per_service_hour=1000))
