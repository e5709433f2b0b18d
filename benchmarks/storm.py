"""A storm of alerts while processes die: is anything lost, and do alerts come together that belong together?

The deliveries and the truth about them are the generator's; they are sent at set times, from another process that sends
again what fails. Meanwhile the API is killed twice and Postgres is restarted once.
"""

import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

from app.db import migrate
from app.embedded_postgres import EmbeddedPostgres
from benchmarks.results import Table, duration, percentile
from benchmarks.sender import FATES, Fate, Plan
from benchmarks.setting import Popen, Setting, await_ready, environment, python, query
from benchmarks.storm_generator import CALLS, Scale, Storm, storm
from tests.conftest import ROOT, TOKEN
from tests.processes import free_port

KILLS, RESTART = (0.25, 0.7), 0.45  # of the API, of Postgres: when, as shares of the storm
CONNECTIONS = 64
RETRIES, RETRY_AFTER_S = 5, 3.0  # Datadog's number; it does not publish the spacing
BEGINS_IN_S = 2.0  # the sender makes its requests first
SETTLES_S = 60.0
SAMPLED_EVERY_S = 0.2
SHOWN = 12  # kinds of wrong merges
SCATTERED = """select count(*) from (
    select cycle_key from alert group by cycle_key having count(distinct incident_id) > 1) as cycles"""


@dataclass(frozen=True)
class Verdict:
    """How the incidents compare with what really happened. Pairs are pairs of alert cycles."""

    incidents: int
    happened: int
    mixed: int  # incidents with alerts of more than one thing that happened
    spread: int  # things that happened whose alerts are in more than one incident
    together: int  # pairs in one incident
    wrongly_together: int
    belonging: int  # pairs that belong together
    wrongly_apart: int


@dataclass(frozen=True)
class Run:
    """What a storm left behind."""

    storm: Storm
    fates: Sequence[Fate]
    outages: Sequence[tuple[float, float]]  # from the blow until it serves again, in epoch seconds
    memory: "Memory"
    database_url: str


def measure(setting: Setting, scale: Scale | None = None) -> list[Table]:
    """One storm, on a Postgres of its own."""
    folder = setting.subfolder("storm")
    with _postgres(folder) as postgres:
        run = blow(folder, postgres, scale or Scale(), setting.tell)
        return [delivery_table(run), answer_table(run), verdict_table(run), merge_table(run), memory_table(run)]


@contextmanager
def _postgres(folder: Path) -> Iterator[EmbeddedPostgres]:
    postgres = EmbeddedPostgres(folder / "pg").start()
    try:
        yield postgres
    finally:
        postgres.stop()


# --- the run ---


def blow(
    folder: Path, postgres: EmbeddedPostgres, scale: Scale, tell: Callable[[str], None], *, harm: bool = True
) -> Run:
    """Send a storm and, with ``harm``, kill and restart meanwhile. All processes but Postgres end with it."""
    migrate(postgres.url)
    with ExitStack() as stack:
        api = Api(folder, postgres.url, stack)
        api.start()
        with _memory_of(api) as memory:
            began_at = time.time() + BEGINS_IN_S
            drawn = storm(scale, began_at)
            tell(f"storm: {len(drawn.deliveries)} deliveries in {scale.seconds:g} s")
            sender = stack.enter_context(_sender(drawn, api.port, began_at))
            outages = _harm(api, postgres, began_at, scale.seconds, tell) if harm else []
            tell("storm: the last deliveries")
            answer, _ = sender.communicate(timeout=scale.seconds + SETTLES_S)
            fates = FATES.validate_json(answer)
            memory.sample()
    return Run(drawn, fates, outages, memory, postgres.url)


@dataclass
class Api:
    """``autopilot serve``, which may be killed."""

    folder: Path
    database_url: str
    stack: ExitStack
    port: int = field(default_factory=free_port)
    process: Popen | None = None

    def start(self) -> None:
        """Until it is ready."""
        catalogue = self.folder / "autopilot.yaml"
        services = {name: {"depends_on": list(callees)} for name, callees in CALLS.items()}
        catalogue.write_text(yaml.safe_dump({"environment": "production", "services": services}), encoding="utf-8")
        env = environment(
            self.database_url, AUTOPILOT_CONFIG=str(catalogue), AUTOPILOT_INVESTIGATIONS_AT_ONCE="1000000"
        )
        arguments = ("app", "serve", "--no-worker", "--no-console", "--port", str(self.port))
        self.process = self.stack.enter_context(python(self.folder, env, *arguments))
        self.await_ready()

    def await_ready(self) -> None:
        """Until it answers, and so does the database."""
        assert self.process is not None
        await_ready(self.process, f"http://127.0.0.1:{self.port}")

    def kill(self) -> None:
        """``kill -9``."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@contextmanager
def _sender(drawn: Storm, port: int, began_at: float) -> Iterator[Popen]:
    plan = Plan(
        port=port,
        path="/webhooks/datadog",
        token=TOKEN,
        begins_at=began_at,
        due_s=[delivery.due_s for delivery in drawn.deliveries],
        bodies=[delivery.body for delivery in drawn.deliveries],
        connections=CONNECTIONS,
        retries=RETRIES,
        retry_after_s=RETRY_AFTER_S,
    )
    command = [sys.executable, "-m", "benchmarks.sender"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(plan.model_dump_json().encode())
        process.stdin.close()
        process.stdin = None  # or `communicate` would close it again
        try:
            yield process
        finally:
            process.kill()


def _harm(
    api: Api, postgres: EmbeddedPostgres, began_at: float, seconds: float, tell: Callable[[str], None]
) -> list[tuple[float, float]]:
    """Each outage, from the blow until the API is ready again, in epoch seconds."""

    def kill_the_api() -> None:
        api.kill()
        api.start()

    def restart_postgres() -> None:
        postgres.stop()
        postgres.start()
        api.await_ready()

    outages = []
    for share, blow_ in sorted([*((kill, kill_the_api) for kill in KILLS), (RESTART, restart_postgres)]):
        time.sleep(max(began_at + share * seconds - time.time(), 0))
        tell(f"storm: {blow_.__name__.replace('_', ' ')}")
        struck_at = time.time()
        blow_()
        outages.append((struck_at, time.time()))
    return outages


@dataclass
class Memory:
    """Resident memory of the API, in MB; of all its processes, one after the other."""

    api: Api
    samples_mb: list[float] = field(default_factory=list)

    def sample(self) -> None:
        """One more, if it runs."""
        with suppress(psutil.Error):
            if self.api.process:
                self.samples_mb.append(psutil.Process(self.api.process.pid).memory_info().rss / 2**20)


@contextmanager
def _memory_of(api: Api) -> Iterator[Memory]:
    memory, over = Memory(api), threading.Event()
    memory.sample()

    def watch() -> None:
        while not over.wait(SAMPLED_EVERY_S):
            memory.sample()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield memory
    finally:
        over.set()
        watcher.join()


# --- was anything lost ---


def lost(run: Run) -> int:
    """Distinct deliveries that were answered 2xx and whose bytes are not in the database."""
    stored = {bytes(body).decode() for (body,) in query(run.database_url, "select body from raw_delivery")}
    return len({d.body for d, fate in zip(run.storm.deliveries, run.fates, strict=True) if fate.accepted} - stored)


def delivery_table(run: Run) -> Table:
    """What the sender knows, and what the database does."""
    accepted = [d for d, fate in zip(run.storm.deliveries, run.fates, strict=True) if fate.accepted]
    again = sum(fate.attempts > 1 for fate in run.fates)
    statuses = Counter(fate.status for fate in run.fates if not fate.accepted)
    raw, dead = query(run.database_url, "select count(*), count(parse_error) from raw_delivery")[0]
    without_alert = "select count(*) from raw_delivery r where not exists (select 1 from alert a where a.raw_id = r.id)"
    nowhere = query(
        run.database_url,
        """select a.transition, count(*), count(c.incident_id)
           from alert a left join alert_cycle c using (cycle_key) where a.incident_id is null group by 1 order by 1""",
    )
    told = ", ".join(f"{n} {transition}" for transition, n, _ in nowhere) or "none"
    rows = (
        ("sent", len(run.fates)),
        ("of them sent again after a failure", again),
        ("accepted (2xx)", len(accepted)),
        (f"given up by the sender {dict(statuses) or ''}".strip(), len(run.fates) - len(accepted)),
        ("distinct bodies among the accepted", len({d.body for d in accepted})),
        ("raw deliveries stored", raw),
        ("**accepted and not stored**", lost(run)),
        ("dead letters", dead),
        ("raw deliveries without an alert", query(run.database_url, without_alert)[0][0]),
        ("alerts", query(run.database_url, "select count(*) from alert")[0][0]),
        (f"alerts in no incident ({told})", sum(n for _, n, _ in nowhere)),
        ("of them, of a cycle that has one", sum(n for _, _, n in nowhere)),
        ("alert cycles in more than one incident", query(run.database_url, SCATTERED)[0][0]),
    )
    return Table("Deliveries", ("what", "n"), [(what, f"{n:,}") for what, n in rows], _about(run))


def _about(run: Run) -> str:
    away = ", ".join(duration(until - since) for since, until in run.outages)
    harm = f" The API is killed twice, Postgres is restarted between the two: away for {away}." if away else ""
    return (
        f"{run.storm.monitors} monitors, two faults and their cascades.{harm} The sender tries again {RETRIES} times,"
        f" {RETRY_AFTER_S:g} s apart. A reminder that is here before its trigger is in no incident at first."
    )


def answer_table(run: Run) -> Table:
    """Latencies of the accepted ones."""
    calm = [f for f in run.fates if f.accepted and not any(_meets(f, outage) for outage in run.outages)]
    rows = {
        "request to answer, without outages": [f.ended_at - f.asked_at for f in calm],
        "due to accepted, without outages": [f.ended_at - f.due_at for f in calm],
        "due to accepted, all": [f.ended_at - f.due_at for f in run.fates if f.accepted],
    }
    return Table(
        "Answers",
        ("what", "p50", "p99", "slowest", "n"),
        [
            (
                what,
                *(duration(percentile(values, p), "ms") for p in (50, 99)),
                duration(max(values), "ms"),
                f"{len(values):,}",
            )
            for what, values in rows.items()
        ],
        f"Sent when due, on {CONNECTIONS} connections. Without outages: the delivery and an outage do not overlap.",
    )


def _meets(fate: Fate, outage: tuple[float, float]) -> bool:
    return fate.due_at < outage[1] and outage[0] < fate.ended_at


# --- is together what belongs together ---


def judge(placed: Mapping[str, str], truth: Mapping[str, str]) -> Verdict:
    """``placed``: the incident of each alert cycle; ``truth``: what happened, of each."""
    cells = Counter((placed[cycle], truth[cycle]) for cycle in placed)
    incidents, happened = Counter(placed.values()), Counter(truth[cycle] for cycle in placed)
    right = sum(map(_pairs, cells.values()))
    return Verdict(
        incidents=len(incidents),
        happened=len(happened),
        mixed=sum(n > 1 for n in Counter(incident for incident, _ in cells).values()),
        spread=sum(n > 1 for n in Counter(what for _, what in cells).values()),
        together=sum(map(_pairs, incidents.values())),
        wrongly_together=sum(map(_pairs, incidents.values())) - right,
        belonging=sum(map(_pairs, happened.values())),
        wrongly_apart=sum(map(_pairs, happened.values())) - right,
    )


def _pairs(n: int) -> int:
    return n * (n - 1) // 2


def placed_cycles(run: Run) -> dict[str, str]:
    """The incident of each of the storm's alert cycles."""
    rows = query(run.database_url, "select cycle_key, incident_id from alert_cycle where incident_id is not null")
    return {key.rpartition(":")[2]: incident_id for key, incident_id in rows}


def verdict_table(run: Run) -> Table:
    """Incidents against the truth."""
    v = judge(placed_cycles(run), run.storm.truth)
    rows = (
        ("incidents", f"{v.incidents:,}", f"{v.happened:,} things happened"),
        ("incidents with more than one of them", f"{v.mixed:,}", _share(v.mixed, v.incidents)),
        ("things that happened in more than one incident", f"{v.spread:,}", _share(v.spread, v.happened)),
        ("pairs wrongly together", f"{v.wrongly_together:,}", f"{_share(v.wrongly_together, v.together)} of together"),
        ("pairs wrongly apart", f"{v.wrongly_apart:,}", f"{_share(v.wrongly_apart, v.belonging)} of belonging"),
    )
    return Table(
        "Incidents and the truth",
        ("what", "n", "of"),
        rows,
        "Pairs of alert cycles. Two services fail and take their callers with them; the rest went wrong on its own.",
    )


def merge_table(run: Run) -> Table:
    """Why alerts are in an incident most of which tells of something else."""
    placed, truth = placed_cycles(run), run.storm.truth
    members: dict[str, Counter[str]] = defaultdict(Counter)
    for cycle, incident_id in placed.items():
        members[incident_id][truth[cycle]] += 1
    mainly = {incident_id: counts.most_common(1)[0][0] for incident_id, counts in members.items()}
    wrong: Counter[tuple[str, str, str]] = Counter()
    rows = query(
        run.database_url,
        """select distinct on (cycle_key) cycle_key, incident_id, merge_reason from alert
           where transition = 'firing' and incident_id is not null order by cycle_key, received_at""",
    )
    for key, incident_id, reason in rows:
        what = truth[key.rpartition(":")[2]]
        if what != mainly[incident_id]:
            wrong[what, mainly[incident_id], reason.partition(",")[0] or "opened it"] += 1
    return Table(
        "Alert cycles in an incident of something else",
        ("what happened", "the incident is mostly", "why it joined", "cycles"),
        [(what, of, why, str(n)) for (what, of, why), n in wrong.most_common(SHOWN)],
        f"The {min(SHOWN, len(wrong))} most frequent of {len(wrong)} kinds, {sum(wrong.values())} cycles in all.",
    )


def memory_table(run: Run) -> Table:
    """Of the API's processes."""
    samples = run.memory.samples_mb
    return Table(
        "Resident memory of the API",
        ("before", "peak", "after"),
        [tuple(f"{mb:,.0f} MB" for mb in (samples[0], max(samples), samples[-1]))],
        f"Read every {SAMPLED_EVERY_S:g} s; a killed process has a successor.",
    )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"
