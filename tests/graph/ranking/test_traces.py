"""What the traces say: errors, time, missing and multiplied calls, messages, clocks; and that nothing makes it hang."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.base import Span, SpanKind
from graph.ranking import traces
from graph.ranking.deviation import Deviation
from graph.ranking.span_times import self_times
from graph.ranking.spans import table
from graph.ranking.topology import Topology
from graph.ranking.windows import Windows
from tests.graph.ranking import incidents

WINDOWS = Windows.of(incidents.scope("gateway"))
BEFORE, DURING = incidents.START.timestamp(), incidents.INCIDENT.timestamp()


class Trace:
    """Builds one request, span by span; times in milliseconds from its start."""

    def __init__(self, trace_id: str, start_s: float) -> None:
        self.trace_id, self.start_s, self.spans = trace_id, start_s, list[Span]()

    def span(
        self,
        component: str,
        parent: str = "",
        *,
        at: float = 0.0,
        ms: float = 10.0,
        operation: str = "serve",
        kind: SpanKind = "server",
        peer: str = "",
        error: str = "",
        instance: str = "",
    ) -> str:
        """Add one; its id."""
        span_id = f"{self.trace_id}-{len(self.spans)}"
        self.spans.append(
            Span(
                component=component,
                trace_id=self.trace_id,
                span_id=span_id,
                parent_id=parent,
                operation=operation,
                start_s=self.start_s + at / 1000.0,
                duration_ms=ms,
                kind=kind,
                peer=peer,
                error=error,
                instance=instance,
            )
        )
        return span_id


Fill = Callable[[Trace, int, bool], object]


def requests(fill: Fill, before: int = 60, during: int = 30) -> list[Span]:
    """Requests before and during the incident; ``fill`` is told the number and whether it is in the incident."""
    found = []
    for broken, count, begin, step in ((False, before, BEFORE, 50.0), (True, during, DURING, 300.0 / during)):
        for n in range(count):
            trace = Trace(f"{'now' if broken else 'then'}{n}", begin + step * n)
            fill(trace, n, broken)
            found += trace.spans
    return found


def deviations(spans: Sequence[Span]) -> list[Deviation]:
    found = traces.deviations([("t", s) for s in spans], WINDOWS)
    return sorted(found, key=lambda d: -d.strength)


def of_channel(channel: str, spans: Sequence[Span]) -> list[Deviation]:
    return [d for d in deviations(spans) if d.channel == channel]


# --- time ---------------------------------------------------------------------------------------------------------


def request(trace: Trace, *, gap_ms: float = 2.0, own_ms: float = 10.0, skew_ms: float = 0.0) -> None:
    """Gateway -> orders -> billing; the gap lies between orders and billing, own time in billing."""
    call = own_ms + gap_ms
    gateway = trace.span("gateway", ms=call + 12)
    orders = trace.span("orders", gateway, at=1, ms=call + 10)
    client = trace.span("orders", orders, at=5, ms=call, kind="client", peer="billing")
    trace.span("billing", client, at=5 + gap_ms / 2 + skew_ms, ms=own_ms)


def test_nothing_slow_is_nothing_found() -> None:
    assert deviations(requests(lambda trace, n, broken: request(trace))) == []


def test_own_time_is_blamed_on_who_spends_it() -> None:
    found = deviations(requests(lambda trace, n, broken: request(trace, own_ms=400 if broken else 10)))
    assert found[0].component == "billing"
    assert found[0].harm == pytest.approx(30 * 0.390, rel=0.01)


def test_time_between_two_components_is_an_edge_matter() -> None:
    found = deviations(requests(lambda trace, n, broken: request(trace, gap_ms=500 if broken else 2)))
    assert "between orders and billing" in found[0].summary
    assert {d.component for d in found} == {"orders", "billing"}


def test_one_slow_call_against_a_norm_of_milliseconds_is_not_lost() -> None:
    found = deviations(requests(lambda trace, n, broken: request(trace, gap_ms=2000 if broken else 2), during=1))
    assert found[0].strength > 0.3


def test_spans_that_stay_open_while_others_work_own_only_what_is_left() -> None:
    trace = Trace("t", BEFORE)
    request(trace, own_ms=100)
    times = self_times(table([("t", s) for s in trace.spans], WINDOWS))
    assert times.tolist() == pytest.approx([2, 10, 2, 100], abs=0.01)


@pytest.mark.parametrize("skew_ms", [-400.0, 400.0])
def test_a_clock_that_is_wrong_from_the_incident_on_is_no_delay(skew_ms: float) -> None:
    assert deviations(requests(lambda trace, n, broken: request(trace, skew_ms=skew_ms if broken else 0))) == []


def test_a_gap_is_seen_although_the_clocks_differ() -> None:
    spans = requests(lambda trace, n, broken: request(trace, gap_ms=500 if broken else 2, skew_ms=-700))
    assert "between orders and billing" in deviations(spans)[0].summary


def test_what_has_recovered_is_no_symptom() -> None:
    lasting = deviations(requests(lambda trace, n, broken: request(trace, own_ms=400 if broken else 10)))
    over = deviations(requests(lambda trace, n, broken: request(trace, own_ms=400 if broken and n < 10 else 10)))
    assert over == [] or over[0].strength < 0.2 * lasting[0].strength


def test_the_onset_is_where_trouble_goes_on_not_an_early_outlier() -> None:
    spans = requests(lambda trace, n, broken: request(trace, own_ms=400 if broken and (n == 0 or n >= 20) else 10))
    assert deviations(spans)[0].at_s == pytest.approx(DURING + 200, abs=1)


# --- errors -------------------------------------------------------------------------------------------------------


def test_failing_calls_to_one_of_three_callees_point_at_the_callee() -> None:
    assert deviations(incidents.calls({("billing", "cache"): "timeout"}, every=1))[0].component == "cache"


def test_failing_calls_to_all_callees_point_at_the_caller() -> None:
    failing = {("billing", c): "timeout" for c in ("cache", "ledger-db", "card-provider")}
    assert deviations(incidents.calls(failing))[0].component == "billing"


def test_the_one_instance_that_fails_is_named() -> None:
    def fill(trace: Trace, n: int, broken: bool) -> None:
        trace.span("orders", instance=f"orders-{n % 3}", error="boom" if broken and n % 3 == 1 else "")

    (found,) = of_channel("error_span", requests(fill))
    assert found.instance == "orders-1"
    assert "orders-1" in found.summary
    assert found.harm == pytest.approx(10)


def test_no_instance_is_named_where_all_fail_or_there_is_only_one() -> None:
    def all_fail(trace: Trace, n: int, broken: bool) -> None:
        trace.span("orders", instance=f"orders-{n % 3}", error="boom" if broken else "")

    def only_one(trace: Trace, n: int, broken: bool) -> None:
        trace.span("orders", instance="orders-0", error="boom" if broken else "")

    assert [d.instance for fill in (all_fail, only_one) for d in of_channel("error_span", requests(fill))] == ["", ""]


# --- calls --------------------------------------------------------------------------------------------------------


def shop(trace: Trace, callees: Sequence[str], *, failing: str = "", operation: str = "buy") -> None:
    """Orders calls so many others, one after the other."""
    orders = trace.span("orders", operation=operation, ms=100)
    for number, callee in enumerate(callees):
        error = "timeout" if callee == failing else ""
        call = trace.span("orders", orders, at=5 + number, ms=1, kind="client", peer=callee, error=error)
        trace.span(callee, call, at=5 + number, ms=1, error=error)


def test_calls_that_are_missing_are_charged_to_who_no_longer_calls() -> None:
    def fill(trace: Trace, n: int, broken: bool) -> None:
        shop(trace, ["stock"] if broken and n % 3 else ["stock", "billing"])

    (found,) = of_channel("calls", requests(fill))
    assert (found.component, found.signal, found.worse) == ("orders", "buy → billing", "down")
    assert found.summary.startswith("20 of 30 requests “buy” of orders did not call billing: 33% did, 100% before")


def test_another_mix_of_requests_misses_nothing() -> None:
    def by_operation(trace: Trace, n: int, broken: bool) -> None:
        operation = "look" if n % (5 if broken else 2) else "buy"
        shop(trace, ["stock"] if operation == "look" else ["stock", "billing"], operation=operation)

    def by_branch(trace: Trace, n: int, broken: bool) -> None:
        shop(trace, ["cards"] if n % (5 if broken else 3) else ["vouchers"])

    assert of_channel("calls", requests(by_operation)) == []
    assert of_channel("calls", requests(by_branch)) == []


def test_a_call_that_failed_before_is_the_reason_of_those_that_are_missing() -> None:
    def fill(trace: Trace, n: int, broken: bool) -> None:
        shop(trace, ["stock"] if broken else ["stock", "billing"], failing="stock" if broken else "")

    found = deviations(requests(fill))
    assert found[0].component == "stock"
    assert [d.component for d in found if d.channel == "calls" and d.strength > 0.1] == []


def test_the_deepest_of_those_that_miss_a_call_is_charged() -> None:
    def fill(trace: Trace, n: int, broken: bool) -> None:
        gateway = trace.span("gateway", ms=50)
        orders = trace.span("orders", gateway, at=1, ms=30)
        trace.span("stock", orders, at=2, ms=1)
        if not broken or n % 4 == 0:
            trace.span("billing", orders, at=4, ms=1)
            trace.span("mail", gateway, at=40, ms=1)

    found = of_channel("calls", requests(fill))
    assert found[0].component == "orders"
    assert all(d.inherited and d.strength < 0.2 * found[0].strength for d in found if d.component == "gateway")


def test_a_callee_of_which_nothing_is_seen_any_more_is_gone() -> None:
    def fill(trace: Trace, n: int, broken: bool) -> None:
        orders = trace.span("orders", ms=100)
        error = "connection refused" if broken else ""
        call = trace.span("orders", orders, at=1, ms=5, kind="client", peer="billing", error=error)
        if not broken:
            trace.span("billing", call, at=2, ms=3)

    found = of_channel("calls", requests(fill))
    assert found[0].component == "billing"
    assert found[0].strength > 0.9
    assert found[0].summary.startswith("No spans of billing any more, where about 30 calls were expected")


def test_single_spans_of_requests_that_were_not_kept_whole_prove_nothing() -> None:
    def fill(trace: Trace, n: int, broken: bool) -> None:
        shop(trace, [] if broken else ["billing"])
        for _ in range(20):
            trace.span("orders", "not-kept", kind="client", peer="billing")

    assert of_channel("calls", requests(fill)) == []


def test_calls_that_multiply_are_the_callers() -> None:
    def fill(trace: Trace, n: int, broken: bool) -> None:
        shop(trace, ["orders-db"] * (12 if broken else 1 + n % 2))

    (found,) = of_channel("fan_out", requests(fill))
    assert (found.component, found.observed, found.inherited) == ("orders", 12, False)
    assert found.strength > 0.7


def test_retries_are_called_so_and_are_no_cause() -> None:
    def fill(trace: Trace, n: int, broken: bool) -> None:
        shop(trace, ["billing"] * (4 if broken else 1), failing="billing" if broken else "")

    (found,) = of_channel("fan_out", requests(fill))
    assert "retries after errors of billing" in found.summary
    assert found.inherited
    assert deviations(requests(fill))[0].component == "billing"


# --- messages -----------------------------------------------------------------------------------------------------


def message(trace: Trace, waited_ms: float, *, work_ms: float = 20.0) -> None:
    """Orders sends a message and goes on; billing gets it later."""
    orders = trace.span("orders", ms=30)
    sent = trace.span("orders", orders, at=5, ms=2, kind="producer", peer="bills")
    trace.span("billing", sent, at=7 + waited_ms, ms=work_ms, kind="consumer", peer="bills", operation="charge")


def test_waiting_in_a_queue_is_the_queues_edge_and_not_its_producers() -> None:
    found = deviations(requests(lambda trace, n, broken: message(trace, 30_000 if broken else 40)))
    assert {d.channel for d in found} == {"time"}
    assert {d.component for d in found} == {"bills", "billing"}
    assert found[0].component == "billing"
    assert "in the queue from bills to billing" in found[0].summary


def test_a_consumer_at_work_takes_no_time_of_its_producer() -> None:
    trace = Trace("t", BEFORE)
    message(trace, -1, work_ms=500)
    times = self_times(table([("t", s) for s in trace.spans], WINDOWS))
    assert times.tolist() == pytest.approx([28, 2, 500], abs=0.01)


def messages_only(spans: Sequence[Span]) -> frozenset[tuple[str, str]]:
    return Topology.of((), spans).asynchronous


def test_edges_over_which_only_messages_go() -> None:
    trace = Trace("t", BEFORE)
    message(trace, 100)
    both = trace.span("mail", trace.spans[1].span_id, kind="consumer")
    edges = {("orders", "bills"), ("bills", "billing"), ("orders", "billing")}
    assert messages_only(trace.spans) == edges | {("orders", "mail")}
    trace.span("orders", both, kind="server")
    call = trace.span("orders", trace.spans[0].span_id, kind="client", peer="mail")
    trace.span("mail", call)
    assert messages_only(trace.spans) == edges


# --- any input ----------------------------------------------------------------------------------------------------


def test_huge_and_twisted_traces_end() -> None:
    one = Span(component="a", trace_id="t", span_id="0", operation="o", start_s=DURING, duration_ms=9e6, error="e")
    count = 50_000
    chain = [
        replace(one, component=f"c{n % 7}", span_id=str(n), parent_id=str(n - 1) if n else "") for n in range(count)
    ]
    star = [replace(one, component=f"s{n % 9}", span_id=f"x{n}", parent_id="0", trace_id="star") for n in range(count)]
    cycle = [
        replace(one, component=f"k{n % 3}", span_id=str(n), parent_id=str((n + 1) % 1000), trace_id="k")
        for n in range(1000)
    ]
    own_parent = [replace(one, trace_id="own", parent_id="0")]
    repeated = [replace(one, trace_id="again", operation=f"o{n % 5}") for n in range(5_000)]
    found = deviations([*chain, *star, *cycle, *own_parent, *repeated])
    assert all(0.0 <= d.strength <= 1.0 for d in found)


_FLOATS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(BEFORE, DURING + 300),
    st.sampled_from([BEFORE, DURING, DURING + 1]),
)
_SPANS = st.builds(
    Span,
    component=st.sampled_from(["a", "b", "", "c → d"]),
    trace_id=st.sampled_from(["1", "2", "3"]),
    span_id=st.sampled_from("12345678"),
    parent_id=st.sampled_from(["", *"12345678"]),
    operation=st.sampled_from(["", "x", "y"]),
    start_s=_FLOATS,
    duration_ms=st.one_of(_FLOATS, st.floats(-5, 1e4)),
    kind=st.sampled_from(["server", "client", "producer", "consumer", "internal"]),
    peer=st.sampled_from(["", "a", "q", "b"]),
    error=st.sampled_from(["", "boom"]),
    instance=st.sampled_from(["", "i", "j"]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(_SPANS, max_size=40), st.randoms(use_true_random=False))
def test_any_spans_in_any_order_give_the_same(spans: list[Span], order: random.Random) -> None:
    shuffled = spans.copy()
    order.shuffle(shuffled)
    assert deviations(spans) == deviations(shuffled)
    assert messages_only(spans) == messages_only(shuffled)


def test_names_do_not_matter() -> None:
    spans = incidents.calls({("billing", "cache"): "timeout"})
    names = sorted({s.component for s in spans} | {s.peer for s in spans if s.peer})
    other = dict(zip(names, reversed([f"n{n}" for n in range(len(names))]), strict=True)) | {"": ""}
    renamed = [replace(s, component=other[s.component], peer=other[s.peer]) for s in spans]
    expected = sorted((other[d.component], d.channel, d.strength) for d in deviations(spans))
    assert sorted((d.component, d.channel, d.strength) for d in deviations(renamed)) == expected
