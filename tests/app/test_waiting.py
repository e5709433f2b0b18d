"""Plans that nobody decides on: reminded of, escalated, expired, each once, and never run."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from procrastinate.exceptions import ConnectorException
from psycopg.errors import RaiseException
from pydantic import SecretStr

from app import waiting
from app.db import transaction
from app.notifiers.base import TryAgain
from app.runner import Runner
from app.store import incidents
from graph.catalogue import Catalogue, Service, Team
from graph.policy import Policy, Waiting
from graph.state import Decision
from tests.app.listening import PATH, Listener, listening
from tests.app.test_runner import Office, at_work
from tests.app.test_runner import office as office  # a fixture

WAITING = Waiting(remind_after_minutes=10, escalate_after_minutes=20, ttl_minutes=30)
KINDS = ("reminder", "escalation", "expired")
SECRET = PATH.rpartition("/")[2]


@pytest.fixture
def hook() -> Iterator[Listener]:
    """One that listens."""
    with listening() as one:
        yield one


def told_to(office: Office, url: str) -> None:
    """From now on this office escalates there."""
    catalogue = Catalogue(services={"shop": Service(owner="team-shop")})
    settings = office.desk.settings.model_copy(update={"escalation_url": SecretStr(url)})
    office.desk = replace(office.desk, settings=settings, catalogue=catalogue, policy=Policy(waiting=WAITING))


async def planned(office: Office, key: str = "c") -> str:
    """An incident that waits for a decision."""
    incident = await office.open(key)
    await Runner(office.pool, office.deps).advance(incident)
    return incident


async def wait_minutes(office: Office, incident: str, minutes: float) -> None:
    """The time passes for that plan."""
    query = "update incident set planned_at = clock_timestamp() - make_interval(secs => %s) where id = %s"
    await office.execute(query, minutes * 60, incident)


async def told(office: Office, incident: str) -> list[tuple[str, str]]:
    """What the timeline says of its waiting."""
    async with office.pool.connection() as connection:
        events = await incidents.events(connection, incident)
    return [(e["kind"], e["message"]) for e in events if e["kind"] in (*KINDS, "escalated")]


async def jobs(office: Office) -> list[dict[str, Any]]:
    """Escalations that wait for a worker."""
    return await office.execute("select args from procrastinate_jobs where task_name = 'escalate'")


# --- stages ---


async def test_reminded_escalated_expired_and_nothing_is_run(office: Office) -> None:
    told_to(office, "https://pager.example/" + SECRET)
    incident = await planned(office)
    for minutes, expected in ((9.9, 0), (10.0, 1), (19.9, 1), (20.0, 2), (29.9, 2), (30.0, 3), (900, 3)):
        await wait_minutes(office, incident, minutes)
        await waiting.look(office.desk)
        await waiting.look(office.desk)
        assert [kind for kind, _ in await told(office, incident)] == list(KINDS[:expected]), minutes
    assert [said for _, said in await told(office, incident)] == [
        "the plan has waited 10 minutes; its options can be approved for 20 minutes more",
        "nobody has decided for 20 minutes; pager.example is told",
        "nobody decided within 30 minutes: the options are too old to be approved, and nothing was run."
        " Ask for new ones (re_plan), or choose re_analyze or manual",
    ]
    row = await office.get(incident)
    assert row["status"] == "awaiting_decision"
    assert row["reminded_at"] < row["escalated_at"] < row["expired_at"]
    assert [job["args"] for job in await jobs(office)] == [
        {"incident_id": incident, "plan_revision": row["plan_revision"]}
    ]
    assert await office.execute("select 1 from step") == []


async def test_all_at_once_after_the_workers_were_away(office: Office) -> None:
    incident = await planned(office)
    await wait_minutes(office, incident, 600)
    await waiting.look(office.desk)
    (_, reminder), (_, escalation), (_, _) = await told(office, incident)
    assert reminder == "the plan has waited 600 minutes; its options are too old"
    assert escalation == "nobody has decided for 600 minutes"
    assert await jobs(office) == []  # no hook is set


async def test_many_workers_tell_each_plan_once(office: Office, database_url: str) -> None:
    async with at_work(database_url) as other:
        for one in (office, other):
            told_to(one, "https://pager.example/")
        ids = [await planned(office, f"c{n}") for n in range(6)]
        for incident in ids:
            await wait_minutes(office, incident, 31)
        await asyncio.gather(*(waiting.look(one.desk) for one in (office, other) for _ in range(6)))
    for incident in ids:
        assert [kind for kind, _ in await told(office, incident)] == list(KINDS)
    assert sorted(job["args"]["incident_id"] for job in await jobs(office)) == sorted(ids)


async def test_what_was_decided_or_is_being_decided_is_left_alone(office: Office) -> None:
    decided, deciding = await planned(office, "a"), await planned(office, "b")
    for incident in (decided, deciding):
        await wait_minutes(office, incident, 31)
    revision = (await office.get(decided))["plan_revision"]
    async with transaction(office.pool) as connection:
        decision = Decision(plan_revision=revision, choice="manual", by="kim", at=office.desk.clock.now())
        assert await incidents.insert_decision(connection, decided, decision)
    async with transaction(office.pool) as connection:
        await incidents.lock(connection, deciding)
        await waiting.look(office.desk)
        assert await told(office, deciding) == []
    await waiting.look(office.desk)
    assert await told(office, decided) == []
    assert len(await told(office, deciding)) == 3


async def test_each_new_plan_begins_to_wait_anew(office: Office) -> None:
    incident = await planned(office)
    await wait_minutes(office, incident, 31)
    await waiting.look(office.desk)
    async with transaction(office.pool) as connection:
        await incidents.set_status(connection, incident, "planning")
        await incidents.set_status(connection, incident, "awaiting_decision", plan_revision="the next")
    await waiting.look(office.desk)
    assert len(await told(office, incident)) == 3
    await wait_minutes(office, incident, 31)
    await waiting.look(office.desk)
    assert [kind for kind, _ in await told(office, incident)] == [*KINDS, *KINDS]


BREAKS = """
create sequence tries;
create function breaks() returns trigger language plpgsql as $$ begin
    if nextval('tries') = 1 then raise exception 'it dies here'; end if; return new; end $$;
create trigger breaks before insert on {table} for each row when (new.{column} = '{value}') execute function breaks();
"""


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("event", "kind", "reminder"),
        ("event", "kind", "escalation"),
        ("event", "kind", "expired"),
        ("procrastinate_jobs", "task_name", "escalate"),
    ],
)
async def test_a_death_at_any_step_loses_and_repeats_nothing(
    office: Office, table: str, column: str, value: str
) -> None:
    told_to(office, "https://pager.example/")
    incident = await planned(office)
    await wait_minutes(office, incident, 31)
    await office.execute(BREAKS.format(table=table, column=column, value=value))
    with pytest.raises((RaiseException, ConnectorException)):  # the queue's own comes around Postgres'
        await waiting.look(office.desk)
    await waiting.look(office.desk)
    assert [kind for kind, _ in await told(office, incident)] == list(KINDS)
    assert len(await jobs(office)) == 1


# --- the hook ---


async def test_the_hook_is_told_who_owns_what_waits(office: Office, hook: Listener) -> None:
    told_to(office, hook.url)
    incident = await planned(office)
    row = await office.get(incident)
    await waiting.escalate(office.desk, incident, row["plan_revision"], last_time=False)
    assert hook.posts == [
        {
            "incident": incident,
            "service": "shop",
            "owner": "team-shop",
            "title": row["title"],
            "severity": row["severity"],
            "waits_since": row["planned_at"].isoformat(),
            "plan_revision": row["plan_revision"],
            "url": f"http://127.0.0.1:8080/ui/?incident={incident}",
        }
    ]
    assert [headers["idempotency-key"] for headers, _ in hook.came] == [f"{incident}:{row['plan_revision']}"]
    assert await told(office, incident) == [("escalated", "127.0.0.1 was told that nobody decides")]


async def test_what_may_pass_is_tried_again_what_cannot_is_said(
    office: Office, hook: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    told_to(office, hook.url)
    hook.answers += [(503, {}), (429, {}), (404, {}), (503, {})]
    incident = await planned(office)
    revision = (await office.get(incident))["plan_revision"]
    for status in (503, 429):
        with pytest.raises(TryAgain, match=str(status)):
            await waiting.escalate(office.desk, incident, revision, last_time=False)
    assert await told(office, incident) == []
    await waiting.escalate(office.desk, incident, revision, last_time=False)
    [(_, said)] = await told(office, incident)
    assert said.startswith("127.0.0.1 could not be told that nobody decides: it answers 404. Tell")
    second = await planned(office, "second")
    revision = (await office.get(second))["plan_revision"]
    await waiting.escalate(office.desk, second, revision, last_time=True)
    [(_, said)] = await told(office, second)
    assert "it answers 503" in said
    assert SECRET not in caplog.text + said


async def test_nobody_is_called_for_what_was_decided_meanwhile(office: Office, hook: Listener) -> None:
    told_to(office, hook.url)
    incident = await planned(office)
    revision = (await office.get(incident))["plan_revision"]
    await waiting.escalate(office.desk, incident, "another plan", last_time=False)
    async with transaction(office.pool) as connection:
        decision = Decision(plan_revision=revision, choice="manual", by="kim", at=office.desk.clock.now())
        await incidents.insert_decision(connection, incident, decision)
    await waiting.escalate(office.desk, incident, revision, last_time=False)
    assert hook.posts == []
    assert await told(office, incident) == []


async def test_a_hook_that_is_away(office: Office) -> None:
    with listening() as hook:
        told_to(office, hook.url)
    incident = await planned(office)
    revision = (await office.get(incident))["plan_revision"]
    with pytest.raises(TryAgain, match="ConnectError") as failed:
        await waiting.escalate(office.desk, incident, revision, last_time=False)
    assert SECRET not in str(failed.value)
    assert failed.value.__cause__ is None


async def test_a_worker_does_all_of_it(office: Office, hook: Listener) -> None:
    """The sweep finds it, the job is run, and a hook that fails once is asked again."""
    told_to(office, hook.url)
    hook.answers.append((500, {}))
    incident = await planned(office)
    await wait_minutes(office, incident, 31)
    async with office.working(Runner(office.pool, office.deps)), asyncio.timeout(30):
        while ("escalated", "127.0.0.1 was told that nobody decides") not in await told(office, incident):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert len(hook.posts) == 2
    assert len({headers["idempotency-key"] for headers, _ in hook.came}) == 1
    assert sorted(kind for kind, _ in await told(office, incident)) == sorted((*KINDS, "escalated"))


# --- from team to team ---


def in_line(office: Office, url: str = "") -> None:
    """The shop's team has a next one, and that has one."""
    teams = {"shop": Team(next="platform"), "platform": Team(next="bosses"), "bosses": Team()}
    catalogue = Catalogue(services={"shop": Service(owner="shop")}, teams=teams)
    settings = office.desk.settings.model_copy(update={"escalation_url": SecretStr(url) if url else None})
    office.desk = replace(office.desk, settings=settings, catalogue=catalogue, policy=Policy(waiting=WAITING))


async def teams_told(office: Office) -> list[tuple[str, str]]:
    """The team of each escalation, and what is said."""
    query = "select data->>'team' as team, message from event where kind = 'escalation' order by id"
    return [(row["team"], row["message"]) for row in await office.execute(query)]


async def test_one_team_after_the_other_is_told_and_then_no_more(office: Office) -> None:
    in_line(office, "https://pager.example/" + SECRET)
    incident = await planned(office)
    first = ("platform", "nobody has decided for 20 minutes; pager.example is told; platform is told")
    second = ("bosses", "nobody has decided for 40 minutes; bosses is told")
    for minutes, expected in ((20, [first]), (39, [first]), (40, [first, second]), (60, [first, second])):
        await wait_minutes(office, incident, minutes)
        since = "update incident set escalated_at = clock_timestamp() - make_interval(mins => %s) where escalations > 0"
        await office.execute(since, minutes - 20 * len(await teams_told(office)))
        for _ in range(2):
            await waiting.look(office.desk)
        assert await teams_told(office) == expected, minutes
    assert len(await jobs(office)) == 1  # the hook hears once
    assert (await office.get(incident))["escalations"] == 2


async def test_a_plan_that_was_escalated_before_teams_were_counted_goes_on_with_the_first(office: Office) -> None:
    in_line(office, "https://pager.example/" + SECRET)
    incident = await planned(office)
    await wait_minutes(office, incident, 600)
    since = "update incident set escalated_at = clock_timestamp() - interval '9 hours'"  # as an older version did
    await office.execute(since)
    await waiting.look(office.desk)
    assert await teams_told(office) == [("platform", "nobody has decided for 600 minutes; platform is told")]
    assert await jobs(office) == []  # the hook was told then


async def test_after_a_long_absence_teams_are_told_one_by_one(office: Office) -> None:
    in_line(office)
    incident = await planned(office)
    await wait_minutes(office, incident, 600)
    for _ in range(3):
        await waiting.look(office.desk)
    assert [team for team, _ in await teams_told(office)] == ["platform"]


async def test_a_new_plan_begins_with_the_first_in_line(office: Office) -> None:
    in_line(office)
    incident, runner = await planned(office), Runner(office.pool, office.deps)
    await wait_minutes(office, incident, 20)
    await waiting.look(office.desk)
    revision = (await office.get(incident))["plan_revision"]
    decision = Decision(plan_revision=revision, choice="re_analyze", hint="again", by="kim", at=office.desk.clock.now())
    async with transaction(office.pool) as connection:
        await incidents.insert_decision(connection, incident, decision)
    await runner.advance(incident)
    assert (await office.get(incident))["escalations"] == 0
    await wait_minutes(office, incident, 20)
    await waiting.look(office.desk)
    assert [team for team, _ in await teams_told(office)] == ["platform", "platform"]


async def test_the_line_is_of_the_team_that_owns_the_cause(office: Office) -> None:
    in_line(office)
    services = {"shop": Service(owner="bosses"), "db": Service(owner="shop")}
    teams = office.desk.catalogue.teams
    office.desk = replace(office.desk, catalogue=Catalogue(services=services, teams=teams))
    incident = await planned(office)
    await office.execute("update analysis set root_cause = jsonb_set(root_cause, '{component}', '\"db\"')")
    await wait_minutes(office, incident, 20)
    await waiting.look(office.desk)
    assert [team for team, _ in await teams_told(office)] == ["platform"]
