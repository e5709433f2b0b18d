"""Messages: nothing lost, nothing doubled, in order, and no incident waits for them."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from app import outbox
from app.alerts import Delivery, accept, move, split
from app.api.messages import shown
from app.db import transaction
from app.decision_checks import Verdict
from app.decisions import decide, note
from app.intake.base import Parsed
from app.runner import Runner
from app.store import incidents
from app.store import outbox as store
from graph.catalogue import Catalogue, Service, Team
from graph.policy import Messages, QuietHours
from tests.app.telling import (
    OPENED,
    Board,
    alert,
    arrives,
    deliver_all,
    later,
    owned,
    planned,
    rows,
    told_by,
)
from tests.app.telling import board as board  # a fixture
from tests.app.test_runner import KIM, Office, at_work
from tests.app.test_runner import office as office  # a fixture

# --- who hears ---


async def test_the_story_in_order_once_each(office: Office, board: Board) -> None:
    product, incident = told_by(office, board), await planned(office)
    await deliver_all(product)
    assert board.said() == OPENED
    revision = (await office.get(incident))["plan_revision"]
    await decide(office.desk, incident, Verdict(plan_revision=revision, choice="manual", note="mine"), KIM)
    await Runner(office.pool, office.deps).advance(incident)
    await note(office.desk, incident, KIM, "turned it off and on")
    await deliver_all(product)
    await deliver_all(product)
    assert board.said() == [*OPENED, "decision", "closed", "note"]
    assert {(p.target, p.team, p.why) for p in board.posts} == {("shop", "shop", "shop owns shop, which alerted")}
    assert board.posts[0].conversation == {}
    assert board.posts[-1].conversation == {"first": str(board.posts[0].id), "last": str(board.posts[-2].id)}
    assert board.posts[-1].report.status == "closed"
    assert {p.since for p in board.posts} == {min(row["written_at"] for row in await rows(office))}
    assert all(row["sent_at"] and row["attempts"] == 1 and not row["maybe_sent"] for row in await rows(office))


async def test_an_event_and_its_row_in_the_outbox_are_one(office: Office, board: Board) -> None:
    incident = await office.open()
    with suppress(ZeroDivisionError):
        async with transaction(office.pool) as connection:
            await incidents.add_event(connection, incident, "k", datetime.now(UTC), "note", "lost")
            raise ZeroDivisionError
    for _ in range(2):  # the same key twice is one
        async with transaction(office.pool) as connection:
            await incidents.add_event(connection, incident, "k", datetime.now(UTC), "note", "kept")
            await incidents.add_event(connection, incident, "l", datetime.now(UTC), "usage", "nobody's business")
    await deliver_all(told_by(office, board))
    assert [p.event.message for p in board.posts if p.event.kind == "note"] == ["kept"]
    assert set(board.said()) == {"opened", "note"}


async def test_what_nobody_dispatched_is_dispatched_later_in_order(office: Office, board: Board) -> None:
    first, second = await planned(office, "a"), await planned(office, "b")
    assert await rows(office) == []  # as after a crash between event and dispatch
    await deliver_all(told_by(office, board))
    assert board.said(first) == board.said(second) == OPENED
    assert await office.execute("select 1 from outbox") == []


async def test_without_notifiers_nothing_piles_up(office: Office) -> None:
    await planned(office)
    await office.execute("update outbox set written_at = written_at - interval '61 minutes'")
    await deliver_all(office.product)
    assert await office.execute("select 1 from outbox") == await rows(office) == []


async def test_a_process_without_notifiers_leaves_events_to_those_that_have_some(office: Office, board: Board) -> None:
    await planned(office)
    await deliver_all(office.product)
    await deliver_all(told_by(office, board))
    assert board.said() == OPENED


async def test_an_event_that_cannot_be_told_holds_up_no_other(office: Office, board: Board) -> None:
    first, second = await planned(office, "a"), await planned(office, "b")
    await office.execute(
        f"""create function breaks() returns trigger language plpgsql as $$ begin
                perform 1 / (new.incident_id <> '{first}')::int; return new; end $$;
            create trigger breaks before insert on message for each row execute function breaks()"""
    )
    await deliver_all(told_by(office, board))
    assert (board.said(first), board.said(second)) == ([], OPENED)
    assert await office.execute("select 1 from outbox") == []


async def test_a_job_that_was_lost_is_given_again(office: Office, board: Board) -> None:
    product, _ = told_by(office, board), await planned(office)
    await outbox.dispatch(product)
    await office.execute("delete from procrastinate_jobs where task_name = 'send'")
    await deliver_all(product)
    assert board.said() == OPENED


async def test_dispatchers_at_once_make_each_message_once(office: Office, board: Board, database_url: str) -> None:
    async with at_work(database_url) as other:
        owned(other)
        for key in "abcdef":
            await planned(office, key)
        products = [told_by(office, board), told_by(other, board)]
        await asyncio.gather(*(outbox.dispatch(product) for product in products * 4))
    assert len(await rows(office)) == 12
    assert len(await office.execute("select 1 from procrastinate_jobs where task_name = 'send'")) == 2  # of a target


# --- every path that ends or changes an incident ---


async def test_recovered_reopened_and_more_severe(office: Office, board: Board) -> None:
    product, incident = told_by(office, board), await arrives(office, alert())
    await arrives(office, alert(transition="resolved", minutes=1))
    await deliver_all(product)
    await arrives(office, alert(minutes=2, severity="critical"))
    await arrives(office, alert(transition="resolved", minutes=3))
    await deliver_all(product)
    await later(office)
    await deliver_all(product)
    assert board.said(incident) == ["opened", "recovered", "reopened", "severity", "recovered"]
    assert (await office.get(incident))["status"] == "closed"


async def test_an_alert_that_flaps_is_told_of_once_its_recovery_lasts(office: Office) -> None:
    board, hook = Board(), Board("webhook")
    owned(office)
    product, incident = told_by(office, board, hook), await arrives(office, alert())
    for minute in range(1, 12, 2):
        await arrives(office, alert(transition="resolved", minutes=minute))
        await deliver_all(product)
        await arrives(office, alert(minutes=minute + 1))
        await deliver_all(product)
    assert board.said(incident) == ["opened", "recovered", "reopened"]
    await arrives(office, alert(transition="resolved", minutes=20))
    await deliver_all(product)
    (held,) = [row for row in await rows(office) if row["sent_at"] is None]
    assert timedelta(minutes=5) < held["due_at"] - datetime.now(UTC) <= timedelta(minutes=6)
    await later(office)
    await deliver_all(product)
    assert board.said(incident) == ["opened", "recovered", "reopened", "recovered"]
    assert hook.said(incident) == ["opened", *["recovered", "reopened"] * 6, "recovered"]  # programs hear it all


async def test_a_plan_is_told_again_after_a_recovery_that_did_not_last(office: Office, board: Board) -> None:
    product, runner, incident = told_by(office, board), Runner(office.pool, office.deps), await arrives(office, alert())
    await runner.advance(incident)
    await arrives(office, alert(transition="resolved", minutes=1))
    await deliver_all(product)
    await arrives(office, alert(minutes=2))
    for _ in range(2):
        await runner.advance(incident)
    await deliver_all(product)
    assert board.said(incident) == [*OPENED, "recovered", "reopened", "awaiting_decision"]


async def test_over_before_it_began(office: Office, board: Board) -> None:
    product = told_by(office, board)
    await accept(office.desk, [Delivery("t", {}, b"{}", Parsed(alerts=(alert(transition="resolved"),)))])
    late = await arrives(office, alert(minutes=-1))
    at_once = await arrives(office, alert("d", minutes=600), alert("d", transition="resolved", minutes=601))
    await deliver_all(product)
    assert board.said(late) == board.said(at_once) == ["opened", "recovered"]


async def test_split_and_moved(office: Office, board: Board) -> None:
    product = told_by(office, board)
    one = await arrives(office, alert("a"), alert("b"))
    found = await office.execute("select id, cycle_key from alert where incident_id = %s order by cycle_key", one)
    other = await split(office.desk, one, [found[1]["id"]], KIM)
    await move(office.desk, other, [found[1]["id"]], one, KIM)
    over = await arrives(office, alert("a", transition="resolved", minutes=1))
    third = await split(office.desk, one, [found[0]["id"]], KIM)  # its alert is over already
    await arrives(office, alert("b", transition="resolved", minutes=1))
    await deliver_all(product)
    assert over == one
    assert board.said(other) == ["opened", "closed"]
    assert board.said(third) == ["opened", "recovered"]
    assert board.said(one) == ["opened", "recovered"]


async def test_given_up(office: Office, board: Board) -> None:
    product, incident = told_by(office, board), await office.open()
    await Runner(office.pool, office.deps).give_up(incident, "again and again")
    await deliver_all(product)
    assert board.said() == ["opened", "needs_attention"]


# --- quiet hours, silences ---


def quiet_now() -> QuietHours:
    """Since an hour, for another two."""
    now = datetime.now(UTC)
    begin, end = ((now + timedelta(hours=h)).time().replace(microsecond=0) for h in (-1, 2))
    return QuietHours(hours=(begin, end))


async def test_quiet_hours_hold_what_can_wait_and_what_cannot_takes_it_along(office: Office) -> None:
    owned(office, Messages(quiet_hours=(quiet_now(),)))
    board, hook = Board(), Board("webhook")
    product, incident = told_by(office, board, hook), await arrives(office, alert())
    await deliver_all(product)
    assert board.said() == []
    assert hook.said() == ["opened"]  # programs do not sleep
    (held,) = [row for row in await rows(office) if row["notifier"] == "board"]
    assert timedelta(hours=1, minutes=59) < held["due_at"] - datetime.now(UTC) < timedelta(hours=2, minutes=1)
    async with office.pool.connection() as connection:
        found = {row["notifier"]: shown(row)["status"] for row in await store.page(connection, incident)}
    assert found == {"board": "held", "webhook": "sent"}
    await arrives(office, alert("d", severity="critical"))
    await deliver_all(product)
    assert board.said(incident) == ["opened", "severity"]


async def test_quiet_hours_do_not_hold_what_says_that_nobody_is_on_it(office: Office) -> None:
    owned(office, Messages(quiet_hours=(quiet_now(),)))
    board = Board()
    product, incident = told_by(office, board), await arrives(office, alert())
    async with transaction(office.pool) as connection:
        await incidents.add_event(
            connection, incident, "e", datetime.now(UTC), "escalation", "nobody", data={"team": ""}
        )
    await deliver_all(product)
    assert board.said() == ["opened", "escalation"]


async def test_what_a_silence_holds_back_is_not_told(office: Office, board: Board) -> None:
    product, incident = told_by(office, board), await office.open()
    query = "update incident set held_by = 'silence', admitted_at = null where id = %s"
    await office.execute(query, incident)
    await deliver_all(product)
    assert board.said() == []
    await office.execute("update incident set held_by = null")
    await deliver_all(product)
    assert board.said() == ["opened"]  # it fires still
    await office.execute("update incident set admitted_at = clock_timestamp()")
    await Runner(office.pool, office.deps).advance(incident)
    await deliver_all(product)
    assert board.said() == OPENED


async def test_what_ended_under_a_silence_is_told_to_nobody(office: Office, board: Board) -> None:
    product, incident = told_by(office, board), await arrives(office, alert())
    await office.execute("update incident set held_by = 'silence', admitted_at = null where id = %s", incident)
    await arrives(office, alert(transition="resolved", minutes=1))
    await deliver_all(product)
    assert board.said() == []
    assert await office.execute("select 1 from outbox") == []


async def test_a_team_is_told_in_its_own_language(office: Office) -> None:
    board = Board()
    teams = {"shop": Team(language="ko")}
    office.desk = replace(office.desk, catalogue=Catalogue(services={"shop": Service(owner="shop")}, teams=teams))
    product, incident = told_by(office, board), await planned(office)
    await deliver_all(product)
    assert {(p.language, p.report.language) for p in board.posts} == {("ko", "ko")}
    assert {p.why for p in board.posts} == {"알림이 발생한 shop의 담당 팀은 shop입니다"}
    assert (await office.get(incident))["language"] == "en"
    assert board.posts[0].url == f"http://127.0.0.1:8080/ui/?incident={incident}"
