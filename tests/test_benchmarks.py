"""What the benchmarks compute; what they measure is in ``benchmarks/results.md``."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.embedded_postgres import EmbeddedPostgres
from app.intake.base import Directory, Incoming
from app.intake.datadog import Datadog, Settings
from benchmarks.ranking_cases import ranked
from benchmarks.ranking_injected import labelled
from benchmarks.ranking_speed import exponent
from benchmarks.ranking_speed_load import TRACE_SPANS, Load
from benchmarks.recorded import Label, chosen_cases, complete, rank_of
from benchmarks.results import Table, merged, percentile
from benchmarks.sender import CYCLE, EVENT, Fate, Order, Plan, keep, send
from benchmarks.storm import Verdict, blow, judge, lost, placed_cycles
from benchmarks.storm_generator import FAULTS, Scale, storm
from collectors.base import Series, Window
from graph.catalogue import Catalogue
from tests.app import petshop_data


def test_percentiles_lie_between_values() -> None:
    assert percentile([7.0], 95) == 7.0
    assert percentile([1.0, 2.0, 3.0], 50) == 2.0
    assert percentile([float(n) for n in range(101)], 95) == pytest.approx(95.0)


def test_a_run_replaces_its_own_section_only() -> None:
    first = merged("", {"loop": "## loop\n\nold\n", "intake": "## intake\n\n| a |\n"})
    second = merged(first, {"loop": "## loop\n\nnew\n"})
    assert "old" not in second
    assert second.index("## intake\n\n| a |\n") < second.index("## loop\n\nnew\n")
    assert merged(second, {}) == second


def test_a_table_is_markdown() -> None:
    table = Table("Title", ("what", "n"), [("x", "1")], "A note.")
    assert table.markdown() == "**Title**\n\n| what | n |\n| --- | ---: |\n| x | 1 |\n\nA note."


def test_the_rank_of_a_service_that_nobody_suspects_is_0() -> None:
    assert rank_of("b", ["a", "b"]) == 2
    assert rank_of("c", ["a", "b"]) == 0


def test_cases_are_spread_over_faults_and_time() -> None:
    labels = {f"{n:02}": Label(f"s{n}", "cpu" if n < 2 else "return") for n in range(14)}
    chosen = chosen_cases(labels)
    assert Counter(labels[case].fault for case in chosen) == {"cpu": 2, "return": 3}
    assert chosen == ["00", "01", "02", "06", "10"]


def test_an_exponent_is_the_power_that_the_seconds_grow_with() -> None:
    assert exponent([1.0, 2.0, 4.0], [3.0, 6.0, 12.0]) == pytest.approx(1.0)
    assert exponent([1.0, 2.0, 4.0], [3.0, 12.0, 48.0]) == pytest.approx(2.0)


def test_a_load_is_as_large_as_asked_for_and_the_same_every_time() -> None:
    load = Load(series=0.01, lines=0.01, spans=0.01)
    found = load.telemetry()
    assert (len(found.series), len(found.logs), len(found.spans)) == (100, 10_000, 2_000)
    assert found == load.telemetry()
    spans = Counter(span.trace_id for span in found.spans)
    assert TRACE_SPANS[0] <= min(list(spans.values())[:-1])  # the last is cut off
    assert max(spans.values()) <= TRACE_SPANS[1]
    only = Load(spans=0.01).telemetry()
    assert (len(only.series), len(only.logs), len(only.spans)) == (0, 0, 2_000)


@pytest.mark.parametrize("lacking", ["root_cause", "evidence", "options"])
def test_a_report_that_lacks_a_part_is_not_complete(lacking: str) -> None:
    report = {
        "root_cause": {"mechanism": "m", "claims": [{"verified": True}]},
        "evidence": [{"id": "E1"}],
        "options": [{"steps": [{}]}],
    }
    assert complete(report)
    assert not complete(report | {lacking: None})


def test_an_unverified_claim_makes_a_report_incomplete() -> None:
    cause = {"mechanism": "m", "claims": [{"verified": True}, {"verified": False}]}
    assert not complete({"root_cause": cause, "evidence": [{}], "options": [{"steps": [{}]}]})


# --- senders ---


@asynccontextmanager
async def _server(answer: Callable[[bytes, int], bytes | None]) -> AsyncIterator[int]:
    """Its port. ``answer`` gets the body and how many came before it; None breaks the connection."""
    ended: list[asyncio.Event] = []
    bodies: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.append(asyncio.Event())
        mine = ended[-1]
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                bodies.append(await reader.readexactly(length))
                status = answer(bodies[-1], len(bodies) - 1)
                if status is None:
                    break
                writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\n{}")
        except asyncio.IncompleteReadError:
            pass
        writer.close()
        await writer.wait_closed()
        mine.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.gather(*(event.wait() for event in ended))


async def test_every_delivery_is_sent_once_and_only_202_is_accepted() -> None:
    bodies: list[bytes] = []

    def answer(body: bytes, before: int) -> bytes:
        bodies.append(body)
        return b"202 Accepted" if before else b"503 Busy"

    payload = {"cycle_key": CYCLE, "event_id": EVENT}
    async with _server(answer) as port:
        sent = await send(Order(port=port, path="/", token="t" * 16, payload=payload, count=20, connections=4))
    assert (sent.accepted, sent.cycles, sent.distinct) == (19, 20, 20)
    assert (len(sent.latencies), len(set(bodies))) == (20, 20)


async def test_known_deliveries_are_sent_again_and_reminders() -> None:
    bodies: list[bytes] = []

    def answer(body: bytes, _: int) -> bytes:
        bodies.append(body)
        return b"202 Accepted"

    payload = {"cycle_key": CYCLE, "event_id": EVENT, "transition": "Triggered"}
    order = Order(port=1, path="/", token="t" * 16, payload=payload, count=200, connections=1, known=0.7)
    async with _server(answer) as port:
        sent = await send(order.model_copy(update={"port": port}))
    reminders = sum(b"Renotify" in body for body in set(bodies))
    assert len(set(bodies)) == sent.distinct == sent.cycles + reminders
    assert sent.cycles < 90
    assert reminders > 30
    assert 200 - sent.distinct > 30


async def _kept(answer: Callable[[bytes, int], bytes | None], count: int) -> list[Fate]:
    async with _server(answer) as port:
        plan = Plan(
            port=port,
            path="/",
            token="t" * 16,
            begins_at=time.time(),
            due_s=[0.01 * n for n in range(count)],
            bodies=[str(n) for n in range(count)],
            connections=3,
            retries=2,
            retry_after_s=0.01,
        )
        return await keep(plan)


async def test_a_failure_and_a_broken_connection_are_tried_again_and_a_refusal_is_not() -> None:
    answers: list[bytes | None] = [b"503 Busy", None, b"401 No", b"202 Accepted"]
    fates = await _kept(lambda _, before: answers[min(before, 3)], 3)
    assert Counter((fate.status, fate.accepted) for fate in fates) == {(401, False): 1, (202, True): 2}
    assert sum(fate.attempts for fate in fates) == 5
    assert all(fate.due_at <= fate.asked_at <= fate.ended_at for fate in fates)


async def test_the_sender_gives_up() -> None:
    fates = await _kept(lambda body, _: b"503 Busy" if body == b"0" else b"202 Accepted", 2)
    assert [(fate.status, fate.attempts) for fate in fates] == [(503, 3), (202, 1)]


# --- the storm ---


def test_a_storm_is_as_large_as_asked_and_the_same_every_time() -> None:
    drawn = storm(Scale(2_000, 20.0), began_at=1_735_000_000.0)
    assert drawn == storm(Scale(2_000, 20.0), began_at=1_735_000_000.0)
    assert (len(drawn.deliveries), drawn.monitors) == (2_000, 200)
    assert len({d.body for d in drawn.deliveries}) == 1_400
    recoveries = len({d.body for d in drawn.deliveries if d.said == "Recovered"})
    assert recoveries == pytest.approx(200, abs=40)
    assert set(drawn.truth) == {d.cycle for d in drawn.deliveries}
    assert {f"{service} fails" for service in FAULTS} < set(drawn.truth.values())
    times = [d.due_s for d in drawn.deliveries]
    assert times == sorted(times)


def test_every_delivery_of_a_storm_is_understood() -> None:
    sender, directory = Datadog(Settings(_env_file=None)), Directory(Catalogue())
    transitions = {"Triggered": "firing", "Renotify": "renotify", "Recovered": "resolved"}
    for told in storm(Scale(400, 5.0), began_at=1_735_000_000.0).deliveries:
        (alert,) = sender.parse(Incoming({}, told.body.encode()), directory).alerts
        assert alert.transition == transitions[told.said]
        assert alert.cycle_key.endswith(told.cycle)
        assert not alert.title.startswith("[")


def test_incidents_are_judged_by_pairs_of_alert_cycles() -> None:
    truth = {"1": "a", "2": "a", "3": "a", "4": "b", "5": "b"}
    placed = {"1": "x", "2": "x", "3": "y", "4": "y", "5": "y"}
    assert judge(placed, truth) == Verdict(
        incidents=2, happened=2, mixed=1, spread=1, together=4, wrongly_together=2, belonging=4, wrongly_apart=2
    )


def test_a_small_storm_is_stored_and_placed(own_postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    run = blow(tmp_path, own_postgres, Scale(300, 3.0), lambda _: None, harm=False)
    assert [fate.status for fate in run.fates] == [202] * 300
    assert lost(run) == 0
    assert set(placed_cycles(run)) == set(run.storm.truth)
    assert min(run.memory.samples_mb) > 10


def test_a_fault_injected_into_petshop_is_felt_by_its_callers_and_by_nobody_else(tmp_path: Path) -> None:
    petshop_data.write(tmp_path)
    found = [(kind, one) for kind, one in labelled(tmp_path) if one.causes == (("db",),)]
    assert found
    for kind, one in found:
        (telemetry,), incident = one.case.telemetry, one.case.scope.incident
        shares = {s.ref.component: _rise(s, incident) for s in telemetry.series if s.ref.measures == kind}
        assert min(abs(shares["db"]), abs(shares["shop"])) > 5 * abs(shares["search"])
        assert ranked(one).suspects[0].component == "db"


def _rise(series: Series, incident: Window) -> float:
    """Last row of the incident against the first of the history."""
    now = [v for t, v in zip(series.epoch_s, series.values, strict=True) if t < incident.end.timestamp()]
    return now[-1] - now[0]
