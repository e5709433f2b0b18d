"""Accepted webhooks a second, next to a handler that only inserts and one that does nothing."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median

from app.simulator.scenarios import SCENARIOS
from benchmarks.results import Table, duration, percentile
from benchmarks.sender import Order, Sent
from benchmarks.setting import Setting, await_ready, environment, python, query
from tests.conftest import ROOT, TOKEN
from tests.processes import free_port

ROUNDS = 3
DELIVERIES = {1: 300, 8: 400, 32: 600}  # in a round, by number of senders
WARM_UP = 100
SECONDS = 60  # for one cell of one round
SCENARIO = SCENARIOS["black-friday"]


@dataclass(frozen=True)
class Target:
    """A handler of a server that runs."""

    name: str
    port: int
    path: str
    database_url: str


def measure(setting: Setting) -> list[Table]:
    """Handlers take turns within every round, so that what else the machine does meets all of them."""
    with _targets(setting) as targets:
        for target in targets:
            deliver(target, WARM_UP, 8)
        sent: dict[tuple[str, int], list[Sent]] = {(t.name, n): [] for t in targets for n in DELIVERIES}
        for round_ in range(ROUNDS):
            for senders, count in DELIVERIES.items():
                for target in (*targets[round_:], *targets[:round_]):
                    setting.tell(f"intake: {target.name}, {senders} senders, round {round_ + 1} of {ROUNDS}")
                    sent[target.name, senders].append(deliver(target, count, senders))
        _check(targets[0])
    return [_table(sent, senders) for senders in DELIVERIES]


def deliver(target: Target, count: int, senders: int) -> Sent:
    """Send from another process. Raises RuntimeError unless every delivery was accepted."""
    order = Order(
        port=target.port,
        path=target.path,
        token=TOKEN,
        payload=SCENARIO.alert_payload(SCENARIO.fires_at),
        count=count,
        connections=senders,
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
            process = stack.enter_context(python(folder, environment(url), *arguments, "--port", str(port)))
            await_ready(process, f"http://127.0.0.1:{port}")
        yield (
            Target("autopilot", our_port, "/webhooks/datadog", ours),
            Target("bare inserts", bare_port, "/bare", bare),
            Target("empty handler", bare_port, "/empty", bare),
        )


def _check(target: Target) -> None:
    """Each delivery that was answered 202 is there, with its incident and its job."""
    expected = WARM_UP + ROUNDS * sum(DELIVERIES.values())
    for table in ("raw_delivery", "alert", "incident", "procrastinate_jobs"):
        found = query(target.database_url, f"select count(*) from {table}")[0][0]
        if found != expected:
            raise RuntimeError(f"{table} holds {found} rows after {expected} accepted deliveries")


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
        "Bare inserts: the same five rows in one transaction, no parsing, authentication or duplicates. Ratios are"
        " medians over rounds. The empty handler shows what sender and framework reach."
        if senders == 1
        else "",
    )


def _of(rates: list[float], reference: list[float]) -> str:
    return f"{median(a / b for a, b in zip(rates, reference, strict=True)):.2f} x"
