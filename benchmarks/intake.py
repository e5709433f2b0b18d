"""Accepted webhooks a second, next to a handler that only inserts and one that does nothing."""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median

from pydantic import JsonValue

from app.intake.datadog import EXAMPLE
from benchmarks.results import Table, duration, percentile
from benchmarks.sender import CYCLE, EVENT, Order, Sent
from benchmarks.setting import Setting, await_ready, environment, python, query
from tests.conftest import ROOT, TOKEN
from tests.processes import free_port

ROUNDS = 3
DELIVERIES = {1: 300, 16: 800, 64: 1600}  # in a round, by number of senders
KNOWN = 0.7  # of the deliveries of the mixed workload: re-sent ones and reminders
WARM_UP = 100
SECONDS = 60  # for one cell of one round
UNLIMITED = {"AUTOPILOT_INVESTIGATIONS_AT_ONCE": "1000000", "AUTOPILOT_INVESTIGATIONS_PER_SERVICE_HOUR": "1000000"}
# An alert like no other: it has nothing to do with any incident, and opens its own.
PAYLOAD: Mapping[str, JsonValue] = {
    **EXAMPLE,
    "event_id": EVENT,
    "monitor_id": CYCLE,
    "cycle_key": CYCLE,
    "scope": f"host:host-{CYCLE},service:service-{CYCLE}",
    "tags": f"host:host-{CYCLE},service:service-{CYCLE},env:production,monitor",
    "service": f"service-{CYCLE}",
    "hostname": f"host-{CYCLE}",
    "title": f"[Triggered on {{host:host-{CYCLE},service:service-{CYCLE}}}] error rate above 5 %",
}


@dataclass(frozen=True)
class Target:
    """A handler of a server that runs, and what it is sent."""

    name: str
    port: int
    path: str
    database_url: str
    known: float = 0.0  # share of the deliveries about known cycles


def measure(setting: Setting) -> list[Table]:
    """Handlers take turns within every round, so that what else the machine does meets all of them."""
    with _targets(setting) as targets:
        _compare_rows(*targets[:2])
        for target in targets[2:]:
            deliver(target, WARM_UP, 8)
        sent: dict[tuple[str, int], list[Sent]] = {(t.name, n): [] for t in targets for n in DELIVERIES}
        for round_ in range(ROUNDS):
            for senders, count in DELIVERIES.items():
                for target in (*targets[round_:], *targets[:round_]):
                    setting.tell(f"intake: {target.name}, {senders} senders, round {round_ + 1} of {ROUNDS}")
                    before = _rows(target.database_url)
                    one = deliver(target, count, senders)
                    _check(target, one, before)
                    sent[target.name, senders].append(one)
    return [*(_table(sent, senders) for senders in DELIVERIES), _growth(sent)]


def deliver(target: Target, count: int, senders: int) -> Sent:
    """Send from another process. Raises RuntimeError unless every delivery was accepted."""
    order = Order(
        port=target.port,
        path=target.path,
        token=TOKEN,
        payload=dict(PAYLOAD),
        count=count,
        connections=senders,
        known=target.known,
    )
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.sender"],
        input=order.model_dump_json().encode(),
        cwd=ROOT,
        capture_output=True,
        check=True,
        timeout=SECONDS,
    )
    sent = Sent.model_validate_json(answer.stdout)
    if sent.accepted != count:
        raise RuntimeError(f"{target.name} accepted {sent.accepted} of {count}")
    return sent


@contextmanager
def _targets(setting: Setting) -> Iterator[tuple[Target, ...]]:
    folder, ours, bare = setting.subfolder("intake"), setting.database(), setting.database()
    our_port, bare_port = free_port(), free_port()
    with ExitStack() as stack:
        for url, port, arguments in (
            (ours, our_port, ("app", "serve", "--no-worker", "--no-console")),
            (bare, bare_port, ("benchmarks.bare",)),
        ):
            env = environment(url, **UNLIMITED)
            process = stack.enter_context(python(folder, env, *arguments, "--port", str(port)))
            await_ready(process, f"http://127.0.0.1:{port}")
        yield (
            Target("autopilot", our_port, "/webhooks/datadog", ours),
            Target("bare inserts", bare_port, "/bare", bare),
            Target("empty handler", bare_port, "/empty", bare),
            Target(f"autopilot, {KNOWN:.0%} known", our_port, "/webhooks/datadog", ours, KNOWN),
        )


# --- what is in the database afterwards ---


def _rows(url: str) -> dict[str, int]:
    """How many there are, by table."""
    tables = [name for (name,) in query(url, "select tablename from pg_tables where schemaname = 'public'")]
    return {name: query(url, f"select count(*) from {name}")[0][0] for name in sorted(tables)}


def _added(url: str, before: Mapping[str, int]) -> dict[str, int]:
    return {name: count - before[name] for name, count in _rows(url).items() if count != before[name]}


def _compare_rows(ours: Target, bare: Target) -> None:
    """Both add the same rows, table by table; they warm up with it."""
    added = []
    for target in (ours, bare):
        before = _rows(target.database_url)
        deliver(target, WARM_UP, 8)
        added.append(_added(target.database_url, before))
    if added[0] != added[1]:
        raise RuntimeError(f"{ours.name} adds {added[0]} for {WARM_UP} deliveries, {bare.name} {added[1]}")


def _check(target: Target, sent: Sent, before: Mapping[str, int]) -> None:
    """Each delivery that was answered 202 is there, each cycle with an incident and a job of its own."""
    if target.path == "/empty":
        return
    cycles = dict.fromkeys(("alert_cycle", "incident", "procrastinate_jobs"), sent.cycles)
    expected = cycles | dict.fromkeys(("raw_delivery", "alert"), sent.distinct)
    added = _added(target.database_url, before)
    if found := {name: added.get(name, 0) for name, n in expected.items() if added.get(name, 0) != n}:
        raise RuntimeError(f"{target.name} added {found} for {sent.distinct} deliveries about {sent.cycles} cycles")


# --- the tables ---


def _table(sent: dict[tuple[str, int], list[Sent]], senders: int) -> Table:
    names = [name for name, n in sent if n == senders]
    rates = {name: [len(s.latencies) / s.seconds for s in sent[name, senders]] for name in names}
    return Table(
        f"Accepted deliveries a second, {senders} sender{'s' if senders > 1 else ''}",
        ("handler", "median", "of bare inserts", "of the empty handler", "answer p50", "p99", "n"),
        [
            (
                name,
                f"{median(rates[name]):,.0f}/s",
                _of(rates[name], rates["bare inserts"]),
                _of(rates[name], rates["empty handler"]),
                *(duration(percentile(every, p), "ms") for p in (50, 99)),
                f"{len(rates[name])} x {DELIVERIES[senders]}",
            )
            for name in names
            for every in [[latency for s in sent[name, senders] for latency in s.latencies]]
        ],
        "Each delivery opens an incident of its own. Bare inserts: the same rows in one transaction, no parsing,"
        f" authentication, duplicates or correlation. {KNOWN:.0%} known: so many are re-sent, or reminders, of alert"
        " cycles that were sent before. Ratios are medians over rounds. The empty handler shows what sender and"
        " framework reach."
        if senders == 1
        else "",
    )


def _growth(sent: Mapping[tuple[str, int], Sequence[Sent]]) -> Table:
    most = max(DELIVERIES)
    columns = {name: [f"{len(s.latencies) / s.seconds:,.0f}/s" for s in sent[name, n]] for name, n in sent if n == most}
    return Table(
        f"Round by round, {most} senders",
        ("round", *columns),
        [(str(number), *cells) for number, cells in enumerate(zip(*columns.values(), strict=True), 1)],
        f"Every round leaves {sum(DELIVERIES.values()):,} more open incidents of ours, and"
        f" {1 - KNOWN:.0%} as many by the mixed workload.",
    )


def _of(rates: list[float], reference: list[float]) -> str:
    return f"{median(a / b for a, b in zip(rates, reference, strict=True)):.2f} x"
