"""What the benchmarks compute; what they measure is in ``benchmarks/results.md``."""

import asyncio
from collections import Counter

import pytest

from benchmarks.recorded import Label, chosen_cases, complete, rank_of
from benchmarks.results import Table, merged, percentile
from benchmarks.sender import Order, send


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


async def test_every_delivery_is_sent_once_and_only_202_is_accepted() -> None:
    bodies: list[bytes] = []
    ended: list[asyncio.Event] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.append(asyncio.Event())
        mine = ended[-1]
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                bodies.append(await reader.readexactly(length))
                status = b"503 Busy" if len(bodies) == 1 else b"202 Accepted"
                writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\n{}")
        except asyncio.IncompleteReadError:
            writer.close()
            await writer.wait_closed()
            mine.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        sent = await send(Order(port=port, path="/", token="t" * 16, payload={"a": 1}, count=20, connections=4))
        await asyncio.gather(*(event.wait() for event in ended))
    assert (sent.accepted, len(sent.latencies), len(set(bodies))) == (19, 20, 20)
