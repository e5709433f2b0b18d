"""Messages on their way: tried again, looked up, given up, by workers at once; nothing lost, nothing doubled."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app import outbox
from app.api.messages import shown
from app.db import transaction
from app.decision_checks import Verdict
from app.decisions import decide
from app.jobs import sweep
from app.notifiers.base import TryAgain, Undeliverable
from app.runner import Runner
from app.store import incidents
from app.store import outbox as store
from app.wiring import Product
from graph.catalogue import Catalogue, Service, Team
from graph.policy import Messages
from tests.app.telling import (
    OPENED,
    Board,
    alert,
    arrives,
    deliver_all,
    kind_of,
    later,
    owned,
    planned,
    rows,
    told_by,
)
from tests.app.telling import board as board  # a fixture
from tests.app.test_runner import KIM, Office, at_work
from tests.app.test_runner import office as office  # a fixture

# --- attempts ---


async def test_killed_after_the_call_it_is_looked_up_and_not_doubled(office: Office, board: Board) -> None:
    product, _ = told_by(office, board), await planned(office)
    board.silent = True
    working = asyncio.create_task(deliver_all(product))
    await board.reached.wait()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    (first, second) = await rows(office)
    assert (first["attempts"], first["maybe_sent"], first["sent_at"], second["attempts"]) == (1, True, None, 0)
    board.silent = False
    await deliver_all(product)
    assert board.said() == ["opened"]  # another worker may still be at it
    await later(office)
    await deliver_all(product)
    assert board.said() == OPENED
    assert board.looked_up == [first["id"]]
    assert [row["detail"] for row in await rows(office)] == ["it hangs there", "hung up"]


async def test_what_is_not_found_is_sent_again_with_the_same_id(office: Office, board: Board) -> None:
    product, _ = told_by(office, board), await office.open()
    board.searchable = False
    board.raises = [TryAgain("silence", ambiguous=True), TryAgain("not now")]
    for _ in range(3):
        await deliver_all(product)
        await later(office)
    (row,) = await rows(office)
    assert board.looked_up == [row["id"]] * 2  # also after an attempt that surely failed: searches lag behind
    assert ([p.id for p in board.posts], row["attempts"]) == ([row["id"]], 3)


async def test_notifiers_are_handed_what_happened_last(office: Office, board: Board) -> None:
    product, incident = told_by(office, board), await office.open()
    await office.execute(
        """insert into event (incident_id, key, at, kind, message)
           select %s, 'n' || n, now(), 'flapping', '' from generate_series(1, 2100) n""",
        incident,
    )
    async with transaction(office.pool) as connection:
        await incidents.add_event(connection, incident, "e", datetime.now(UTC), "expired", "too old")
    await deliver_all(product)
    history = board.posts[-1].report.history
    assert (history[-1].kind, len(history)) == ("expired", 2000)


async def test_what_surely_did_not_arrive_is_not_looked_up(office: Office, board: Board) -> None:
    product, _ = told_by(office, board), await office.open()
    board.raises = [TryAgain("busy", after_s=3600.0)]
    await deliver_all(product)
    (row,) = await rows(office)
    assert timedelta(minutes=59) < row["due_at"] - datetime.now(UTC) <= timedelta(hours=1)  # Retry-After
    assert (row["detail"], row["attempted_at"], row["sent_at"]) == ("busy", None, None)
    await deliver_all(product)
    assert board.posts == []
    await later(office)
    await deliver_all(product)
    assert (board.said(), board.looked_up) == (["opened"], [])


async def test_a_target_that_asks_for_patience_is_spared_all_its_conversations(office: Office, board: Board) -> None:
    product = told_by(office, board)
    for key in "abc":
        await planned(office, key)
    board.raises = [TryAgain("slow down", after_s=600.0)]
    await deliver_all(product)
    spared_id = await arrives(office, alert("d"))
    await deliver_all(product)
    assert board.posts == []
    assert sorted(row["attempts"] for row in await rows(office)) == [0, 0, 0, 0, 0, 0, 1]
    (patience,) = await office.execute("select * from patience")
    assert (patience["notifier"], patience["target"]) == ("board", "shop")
    assert timedelta(minutes=9) < patience["until"] - datetime.now(UTC) <= timedelta(minutes=10)
    async with office.pool.connection() as connection:
        (spared,) = [shown(row) for row in await store.page(connection, spared_id)]
    assert (spared["status"], spared["due_at"]) == ("waiting", patience["until"])
    await later(office)
    await deliver_all(product)
    assert len(board.posts) == 7


@pytest.mark.parametrize("asked", [1e9, float("inf"), 1e300, float("nan")])
async def test_no_target_silences_itself_for_long(office: Office, board: Board, asked: float) -> None:
    product, _ = told_by(office, board), await office.open()
    board.raises = [TryAgain("come back in years", after_s=asked)]
    await deliver_all(product)
    (row,) = await rows(office)
    assert timedelta(0) < row["due_at"] - datetime.now(UTC) <= timedelta(hours=1)
    (patience,) = await office.execute("select until from patience")
    assert patience["until"] <= row["due_at"] + timedelta(seconds=1)


async def test_what_is_known_of_a_conversation_is_kept_with_a_failure(office: Office, board: Board) -> None:
    product, _ = told_by(office, board), await planned(office)
    board.raises = [
        TryAgain("half of it", reference={"issue": "OPS-7", "unfinished": "x"}),
        Undeliverable("the rest is refused", reference={"unfinished": ""}),
    ]
    await deliver_all(product)
    await later(office)
    await deliver_all(product)
    assert [p.conversation for p in board.posts] == [{"issue": "OPS-7", "unfinished": ""}]
    assert board.looked_up == []  # it is known what there is


async def test_after_one_that_was_given_up_the_next_looks_for_what_arrived_of_it(office: Office, board: Board) -> None:
    product, _ = told_by(office, board), await planned(office)
    board.raises = [Undeliverable("the thread is locked")]
    await deliver_all(product)
    _, second = await rows(office)
    assert board.looked_up == [second["id"]]
    assert board.said() == ["awaiting_decision"]


async def test_one_incident_that_cannot_be_told_keeps_the_target_open(office: Office, board: Board) -> None:
    product = told_by(office, board)
    for key in "abc":
        await office.open(key)
    board.raises = [RuntimeError("of this incident only")]
    await deliver_all(product)
    assert len(board.posts) == 2
    assert await office.execute("select 1 from patience") == []


async def test_an_attempt_that_outlives_its_claim_changes_nothing(office: Office, board: Board) -> None:
    await office.open()
    await outbox.dispatch(told_by(office, board))
    (row,) = await rows(office)
    at = (row["incident_id"], "board", "shop")
    async with transaction(office.pool) as connection:
        late = await store.claim(connection, *at)
        await connection.execute("update message set due_at = clock_timestamp()")
        now = await store.claim(connection, *at)
        assert late
        assert now
        assert not await store.try_later(connection, late, 0, "late", {"of": "the late one"}, maybe_sent=False)
        assert not await store.failed(connection, late, "late", {"of": "the late one"})
        await store.sent(connection, late, {"of": "the late one"}, "late")
        assert await store.claim(connection, *at) is None
        await store.sent(connection, now, {"of": "this one"}, "in time")
        assert await store.conversation(connection, *at) == {"of": "this one"}
    (row,) = await rows(office)
    assert (row["detail"], row["attempts"]) == ("in time", 2)


async def test_what_is_late_is_said_in_the_timeline_once(office: Office, board: Board) -> None:
    product, incident = told_by(office, board), await planned(office)
    board.raises = [TryAgain("the token has expired: renew it", after_s=300.0)] * 3
    for _ in range(4):
        await deliver_all(product)
        await later(office)
    assert board.said() == OPENED
    async with office.pool.connection() as connection:
        told = [e["message"] for e in await incidents.events(connection, incident) if e["kind"] == "not_delivered"]
    assert told == ["board could not be told yet (shop): the token has expired: renew it"]


async def test_where_a_channel_is_not_told_the_channel_of_all_is(office: Office) -> None:
    slack = Board("slack")
    owned(office, Messages(default_channel="#all"))
    teams = {"shop": Team(slack_channel="#old")}
    office.desk = replace(office.desk, catalogue=Catalogue(services={"shop": Service(owner="shop")}, teams=teams))
    product, incident = told_by(office, slack), await office.open()
    slack.raises = [Undeliverable("#old is archived: unarchive it")]
    await deliver_all(product)
    assert [(p.target, kind_of(p), p.why) for p in slack.posts] == [("#all", "not_delivered", "#old could not be told")]
    await Runner(office.pool, office.deps).advance(incident)
    slack.raises = [Undeliverable("#old is archived: unarchive it"), Undeliverable("so is this")]
    await deliver_all(product)
    await deliver_all(product)
    assert len(slack.posts) == 2  # #all is told of #old again, and nobody of #all


async def test_the_channel_of_all_is_spared_what_arrived_meanwhile(office: Office) -> None:
    slack = Board("slack")
    owned(office, Messages(default_channel="#all"))
    teams = {"shop": Team(slack_channel="#shop")}
    office.desk = replace(office.desk, catalogue=Catalogue(services={"shop": Service(owner="shop")}, teams=teams))
    product, incident = told_by(office, slack), await office.open()
    slack.raises = [TryAgain("the token has expired: renew it", after_s=300.0)]
    await outbox.dispatch(product)
    await outbox.send_due(product, incident, "slack", "#shop")
    await later(office)
    await outbox.send_due(product, incident, "slack", "#shop")
    await deliver_all(product)
    assert [(p.target, kind_of(p)) for p in slack.posts] == [("#shop", "opened")]
    assert {row["detail"] for row in await rows(office) if row["target"] == "#all"} == {
        "nothing to say: it was delivered meanwhile"
    }


async def test_a_backlog_has_a_day_from_its_first_attempt(office: Office, board: Board) -> None:
    product, _ = told_by(office, board), await office.open()
    await outbox.dispatch(product)
    await office.execute("update message set ready_at = ready_at - interval '3 days'")
    board.raises = [TryAgain("slow down", after_s=30.0)]
    await deliver_all(product)
    await later(office)
    await deliver_all(product)
    assert board.said() == ["opened"]


async def test_what_others_left_undone_for_long_is_anybodys(office: Office, board: Board) -> None:
    _ = await office.open()
    await outbox.dispatch(told_by(office, board))
    await office.execute("delete from procrastinate_jobs where task_name = 'send'")
    other = told_by(office, Board("other"))
    await outbox.dispatch(other)
    assert await office.execute("select 1 from procrastinate_jobs where task_name = 'send'") == []
    await office.execute("update message set ready_at = ready_at - interval '61 minutes'")
    await outbox.dispatch(other)
    assert len(await office.execute("select 1 from procrastinate_jobs where task_name = 'send'")) == 1


async def test_later_messages_wait_for_the_one_before_them(office: Office, board: Board) -> None:
    product, incident = told_by(office, board), await office.open()
    board.raises = [TryAgain("busy")]
    await deliver_all(product)
    await Runner(office.pool, office.deps).advance(incident)
    await deliver_all(product)
    assert board.posts == []
    await later(office)
    await deliver_all(product)
    assert board.said() == OPENED


async def test_one_that_fails_for_good_is_told_in_the_timeline_and_stops_nothing(office: Office, board: Board) -> None:
    product, incident = told_by(office, board), await planned(office)
    board.raises = [Undeliverable("the channel is archived: unarchive it")]
    await deliver_all(product)
    await deliver_all(product)
    assert board.said() == ["awaiting_decision"]
    failed, sent = await rows(office)
    assert (failed["failed_at"] is not None, failed["detail"]) == (True, "the channel is archived: unarchive it")
    assert sent["sent_at"]
    async with office.pool.connection() as connection:
        told = [e for e in await incidents.events(connection, incident) if e["kind"] == "not_delivered"]
    assert [e["message"] for e in told] == ["board could not be told (shop): the channel is archived: unarchive it"]


async def test_after_a_day_it_is_given_up(office: Office, board: Board) -> None:
    product, _ = told_by(office, board), await planned(office)
    board.raises = [TryAgain("no route"), TryAgain("no route"), TryAgain("still no route")]
    await deliver_all(product)
    await office.execute("update message set tried_since = tried_since - interval '23 hours 59 minutes'")
    await later(office)
    await deliver_all(product)
    assert [row["failed_at"] for row in await rows(office)] == [None, None]
    await office.execute("update message set tried_since = tried_since - interval '2 minutes'")
    await later(office)
    await deliver_all(product)
    first, second = await rows(office)
    assert (first["failed_at"] is not None, first["detail"]) == (True, "still no route; it was tried for a day")
    assert second["sent_at"]  # the outage is over


async def test_a_notifier_that_is_not_turned_on_where_this_worker_runs(office: Office, board: Board) -> None:
    product, _ = told_by(office, board), await office.open()
    await outbox.dispatch(product)
    await deliver_all(told_by(office, Board("other")))
    await office.execute("delete from procrastinate_jobs where task_name = 'send'")
    waiting = [row for row in await rows(office) if row["notifier"] == "board"]
    await outbox.send_due(told_by(office, Board("other")), waiting[0]["incident_id"], "board", "shop")
    (row,) = [row for row in await rows(office) if row["notifier"] == "board"]
    assert row["detail"] == "AUTOPILOT_NOTIFIERS does not list board, where this worker runs"
    await later(office)
    await deliver_all(product)
    assert board.said() == ["opened"]


async def test_a_broken_notifier_costs_the_others_nothing(office: Office, board: Board) -> None:
    other = Board("other")
    product, _ = told_by(office, board, other), await office.open()
    board.raises = [RuntimeError("hunter2")]
    await deliver_all(product)
    assert other.said() == ["opened"]
    (row,) = [row for row in await rows(office) if row["notifier"] == "board"]
    assert (row["detail"], row["maybe_sent"]) == ("board failed: RuntimeError", True)


async def test_two_jobs_of_one_conversation_send_each_message_once(office: Office, board: Board) -> None:
    product, incident = told_by(office, board), await planned(office)
    await outbox.dispatch(product)
    board.silent = True
    sending = asyncio.create_task(outbox.send_due(product, incident, "board", "shop"))
    await board.reached.wait()
    await outbox.send_due(product, incident, "board", "shop")  # a job that was taken for a dead worker's
    board.answers.set()
    await sending
    assert board.said() == OPENED


async def test_the_next_incident_of_an_alert_knows_the_conversation_before(office: Office, board: Board) -> None:
    product, first = told_by(office, board), await planned(office)
    revision = (await office.get(first))["plan_revision"]
    await decide(office.desk, first, Verdict(plan_revision=revision, choice="manual", note="mine"), KIM)
    await Runner(office.pool, office.deps).advance(first)
    await deliver_all(product)
    second = await office.open("again")
    await deliver_all(product)
    assert first != second
    assert board.posts[0].earlier == {}
    assert board.posts[-1].incident_id == second
    assert board.posts[-1].earlier["first"] == str(board.posts[0].id)


def test_backoff_grows_to_some_minutes_and_differs() -> None:
    for attempts, most in ((1, 2.0), (5, 32.0), (9, 300.0), (5000, 300.0)):
        waits = {outbox.backoff_s(attempts) for _ in range(50)}
        assert len(waits) > 1
        assert most / 2 <= min(waits) <= max(waits) <= most


# --- with workers ---


async def until(condition: Any) -> None:
    """Wait for what workers do."""
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110  it changes elsewhere
            await asyncio.sleep(0.05)


async def test_workers_at_once_tell_everything_once_and_in_order(office: Office, database_url: str) -> None:
    board = Board()
    owned(office)
    async with at_work(database_url) as other:
        owned(other)
        offices = [replace_product(one, board) for one in (office, other)]
        async with (
            offices[0].working(Runner(office.pool, office.deps)),
            offices[1].working(Runner(other.pool, other.deps)),
        ):
            ids = [await office.open(f"c{n}") for n in range(12)]

            async def all_told() -> bool:
                return len(board.posts) >= 2 * len(ids)

            await until(all_told)
    assert len({p.id for p in board.posts}) == len(board.posts) == 24
    assert all(board.said(incident) == OPENED for incident in ids)


async def test_a_silent_target_delays_neither_others_nor_investigations(office: Office) -> None:
    deaf, board = Board("deaf", silent=True), Board()
    owned(office)
    told = replace_product(office, deaf, board)
    async with told.working(Runner(office.pool, office.deps)):
        ids = [await office.open(f"c{n}") for n in range(30)]

        async def all_told() -> bool:
            return len(board.posts) >= 2 * len(ids)

        await until(all_told)
        assert len(deaf.posts) == outbox.AT_ONCE_OF_A_TARGET
        assert all([(await office.get(incident))["status"] == "awaiting_decision" for incident in ids])
        deaf.silent = False
        deaf.answers.set()

        async def deaf_told() -> bool:
            return len(deaf.posts) >= 2 * len(ids)

        await until(deaf_told)
    assert len({p.id for p in deaf.posts}) == len(deaf.posts) == 60
    assert all([kind_of(p) for p in deaf.posts if p.incident_id == incident] == OPENED for incident in ids)


class Told(Office):
    """An office whose workers have notifiers."""

    notifiers: tuple[Board, ...]

    @property
    def product(self) -> Product:
        """With them."""
        return replace(super().product, notifiers={one.name: one for one in self.notifiers})


def replace_product(office: Office, *boards: Board) -> Told:
    """The same office with these notifiers."""
    told = Told(office.pool, office.queue, office.desk, office.deps)
    told.notifiers = boards
    return told


async def test_many_waiting_messages_take_no_more_jobs_than_their_target_has_places(
    office: Office, board: Board
) -> None:
    product, incident = told_by(office, board), await office.open()
    await outbox.dispatch(product)
    await office.execute("delete from procrastinate_jobs where task_name = 'send'")
    await office.execute(
        """with more as (
               insert into incident select (jsonb_populate_record(i, jsonb_build_object('id', 'inc_' || n))).*
               from incident i, generate_series(1, 3000) n where i.id = %s returning id),
           told as (
               insert into event (incident_id, key, at, kind, message) select id, 'n', now(), 'note', '' from more
               returning id, incident_id)
           insert into message (incident_id, event_id, notifier, target, why, ready_at, due_at)
           select t.incident_id, t.id, m.notifier, case when right(t.incident_id, 1) = '7' then 'ops' else m.target end,
               '', m.ready_at, m.due_at from told t, message m""",
        incident,
    )
    async with office.pool.connection() as connection:
        due = await store.due(connection, ["board"], outbox.AT_ONCE_OF_A_TARGET, outbox.AT_ONCE_OF_A_NOTIFIER, 3600)
        fewer = await store.due(connection, ["board"], outbox.AT_ONCE_OF_A_TARGET, 3, 3600)
    assert sorted(row["target"] for row in due) == ["ops", "ops", "shop", "shop"]
    assert [row["target"] for row in fewer[:2]] in (["ops", "shop"], ["shop", "ops"])  # each has its first place first
    assert len(fewer) == 3


async def test_jobs_whose_end_was_not_recorded_or_that_nobody_knew_block_nothing(office: Office, board: Board) -> None:
    product, _ = told_by(office, board), await office.open()
    await outbox.dispatch(product)
    (worker,) = await office.execute("insert into procrastinate_workers default values returning id")  # it lives
    await office.execute(
        "update procrastinate_jobs set status = 'doing', worker_id = %s where task_name = 'send'", worker["id"]
    )
    await office.execute(
        """insert into procrastinate_jobs (queue_name, task_name, status, worker_id)
           values ('messages', 'send', 'failed', null), ('messages', 'of a later version', 'doing', %s)""",
        worker["id"],
    )
    runner = Runner(office.pool, office.deps)
    earlier = "update procrastinate_events set at = at - make_interval(mins => %s) where type = 'started'"
    await office.execute(earlier, 4)
    await sweep(office.queue, runner, 3600)
    assert await sends(office) == ["doing"]
    await office.execute(earlier, 2)
    await sweep(office.queue, runner, 3600)
    assert await sends(office) == ["todo"]
    await office.execute("delete from procrastinate_jobs where task_name = 'send'")
    await deliver_all(product)
    assert board.said() == ["opened"]


async def sends(office: Office) -> list[str]:
    """The jobs that send."""
    found = await office.execute("select status::text from procrastinate_jobs where task_name = 'send'")
    return [row["status"] for row in found]
