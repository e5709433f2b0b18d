"""The whole loop on recorded incidents of a public data set, and the ranking alone on all of them.

The labels are read here, to compare with; the product never sees them: a bundle has none.
"""

import json
import os
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import mean, median
from typing import Any
from uuid import uuid4

import httpx
import yaml

from app import evaluation, nezha
from app.clock import VirtualClock
from app.demo import rehearsal_catalogue
from benchmarks.results import Table, percentile
from benchmarks.setting import Setting, Skipped, environment, query
from collectors.replay import Bundle, load_bundle
from graph.state import Alert
from tests import processes
from tests.conftest import TOKEN, make_key

PER_FAULT = 3
MINUTES = (nezha.MINUTE, 1)  # after the injection: the published protocol's, and one that is harder
SECONDS = 60.0  # for one case
HOW_TO_GET = (
    "there is no archive at the given path. It is the TrainTicket part, day 2023-01-29, of"
    " https://github.com/IntelligentDDS/Nezha (folders `rca_data` and `construct_data`): unpack it, and name the"
    " folder, or a .tar.xz of it, with `--nezha PATH`."
)


@dataclass(frozen=True)
class Label:
    """What is true of a case."""

    service: str
    fault: str


@dataclass(frozen=True)
class Ranked:
    """The labelled service's rank, 0 if it is no suspect, and how many services it could have been."""

    bundle: Path
    rank: int
    services: int


@dataclass(frozen=True)
class Outcome:
    """What the loop made of a case; ``rank`` 0 where the service is no suspect at all."""

    case: str
    label: Label
    rank: int
    findings: int
    complete: bool
    executed: str
    seconds: float


def measure(setting: Setting) -> list[Table]:
    """Bundles of all cases, their ranking, and the loop on some of each fault. Raises Skipped."""
    if not setting.nezha.exists():
        raise Skipped(HOW_TO_GET)
    with unpacked(setting) as data:
        labels = _labels(data)
        ranked = {minute: _all_ranked(setting, data, labels, minute) for minute in MINUTES}
    outcomes = []
    chosen = chosen_cases(labels)
    for number, case in enumerate(chosen, 1):
        setting.tell(f"recorded: the loop on case {number} of {len(chosen)}")
        outcomes.append(_looped(setting, case, ranked[nezha.MINUTE][case].bundle, labels[case]))
    return [_cases(outcomes), *(_accuracy(labels, ranked[minute], minute) for minute in MINUTES)]


def chosen_cases(labels: Mapping[str, Label]) -> list[str]:
    """Up to three cases of each fault, evenly spread over the time, so that they hit different services."""
    faults = sorted({label.fault for label in labels.values()})
    of_fault = [[case for case in sorted(labels) if labels[case].fault == fault] for fault in faults]
    return [case for cases in of_fault for case in _spread(cases, min(PER_FAULT, len(cases)))]


def _spread(cases: Sequence[str], count: int) -> list[str]:
    return [cases[i * len(cases) // count] for i in range(count)]


def rank_of(service: str, suspects: Sequence[str]) -> int:
    """1 is the first suspect; 0 is none."""
    return suspects.index(service) + 1 if service in suspects else 0


# --- the data ---


@contextmanager
def unpacked(setting: Setting) -> Iterator[Path]:
    """The archive's folder: unpacked once, not once a case."""
    if setting.nezha.is_dir():
        yield setting.nezha
        return
    setting.tell("recorded: unpacking")
    folder = setting.subfolder("nezha")
    with tarfile.open(setting.nezha, "r|*") as archive:
        archive.extractall(folder, filter="data")
    yield folder


def _labels(data: Path) -> dict[str, Label]:
    """By case id, in the order of time."""
    files = data.glob("rca_data/*/*-fault_list.json")
    faults = [fault for file in files for hour in json.loads(file.read_bytes()).values() for fault in hour]
    labels = {f["inject_time"]: Label(nezha.service_of(f["inject_pod"]), f["inject_type"]) for f in faults}
    return dict(sorted(labels.items()))


# --- the ranking alone ---


def _all_ranked(setting: Setting, data: Path, labels: Mapping[str, Label], minute: int) -> dict[str, Ranked]:
    """By case; on all cores, as importing takes most of the time."""
    with ProcessPoolExecutor(os.cpu_count(), mp_context=processes.context) as pool:
        jobs = {
            case: pool.submit(_ranked, data, case, minute, setting.subfolder("bundle"), label.service)
            for case, label in labels.items()
        }
        for number, job in enumerate(as_completed(jobs.values()), 1):
            job.result()
            setting.tell(f"recorded: minute {minute}, {number} of {len(jobs)} cases imported and ranked")
    return {case: job.result() for case, job in jobs.items()}


def _ranked(data: Path, case: str, minute: int, folder: Path, service: str) -> Ranked:
    bundle = load_bundle(nezha.import_case(data, case, folder, minute=minute))
    services = {end for edge in bundle.edges for end in (edge.caller, edge.callee)}
    return Ranked(folder, rank_of(service, evaluation.names(evaluation.ranked(bundle))), len(services))


def _accuracy(labels: Mapping[str, Label], ranked: Mapping[str, Ranked], minute: int) -> Table:
    faults = sorted({label.fault for label in labels.values()})
    groups = {"all": list(ranked.values())}
    groups |= {fault: [one for case, one in ranked.items() if labels[case].fault == fault] for fault in faults}
    return Table(
        f"Ranking alone, no LLM, minute {minute} after the injection",
        ("fault", "AS@1", "AS@3", "by chance", "n"),
        [
            (
                name,
                *(_hits(cases, k) for k in (1, 3)),
                f"{mean(1 / one.services for one in cases):.1%}",
                str(len(cases)),
            )
            for name, cases in groups.items()
        ],
        "AS@k: the labelled service is among the first k suspects; by chance: AS@1 of a service drawn at random."
        " `rank()` straight on each bundle, against the day's construct minute. The engine was developed on this day:"
        " this is no held-out score.",
    )


def _hits(cases: Sequence[Ranked], k: int) -> str:
    return _share(sum(0 < one.rank <= k for one in cases), len(cases))


def _share(hits: int, of: int) -> str:
    return f"{hits / of:.1%} ({hits}/{of})"


# --- the whole loop ---


def _looped(setting: Setting, case: str, bundle: Path, label: Label) -> Outcome:
    """API and worker in processes of their own, from the webhook to the end of the rehearsed first option."""
    database, folder = setting.database(), setting.subfolder("recorded")
    recorded = load_bundle(bundle)
    env = environment(database, **_replay(recorded, bundle, folder))
    with ExitStack() as stack:
        port = processes.free_port()
        for target, *arguments in ((processes.run_api, database, port, False), (processes.run_worker, database)):
            process = processes.spawn(target, folder / f"{target.__name__}.log", env, *arguments)
            stack.callback(processes.kill, process)
        url = f"http://127.0.0.1:{port}"
        processes.wait_until(lambda: processes.answers(f"{url}/readyz"), "the API")
        headers = {"Authorization": f"Bearer {make_key(database, 'admin')}"}
        client = stack.enter_context(httpx.Client(base_url=url, headers=headers, timeout=20))
        started = time.perf_counter()
        incident = _alerted(client, recorded)
        _await(database, "select status = 'awaiting_decision' from incident where id = %s", incident)
        seconds = time.perf_counter() - started
        report = client.get(f"/incidents/{incident}/report").raise_for_status().json()
        executed = _rehearsed(client, database, incident, report)
    suspects = [suspect["component"] for suspect in report["suspects"]]
    findings = len(report["evidence"])
    return Outcome(case, label, rank_of(label.service, suspects), findings, complete(report), executed, seconds)


def _replay(recorded: Bundle, bundle: Path, folder: Path) -> dict[str, str]:
    config = folder / "autopilot.yaml"
    config.write_text(yaml.safe_dump(rehearsal_catalogue({(e.caller, e.callee) for e in recorded.edges})))
    return {
        "AUTOPILOT_CLOCK": str(VirtualClock(recorded.manifest.incident.end, time.time(), 1.0)),
        "AUTOPILOT_CONFIG": str(config),
        "AUTOPILOT_COLLECTORS": "replay",
        "AUTOPILOT_EXECUTORS": "rehearsal",
        "AUTOPILOT_REPLAY_DIR": str(bundle),
    }


def _alerted(client: httpx.Client, recorded: Bundle) -> str:
    alert = Alert.model_validate(recorded.alert)
    payload = {
        "title": f"[Triggered] {alert.title}",
        "event_id": uuid4().hex,
        "service": alert.service,
        "transition": "Triggered",
        "cycle_key": alert.cycle_key,
        "date": _milliseconds(alert.occurred_at),
        "last_updated": _milliseconds(alert.occurred_at),
    }
    answer = client.post("/webhooks/datadog", json=payload, headers={"X-AIOps-Token": TOKEN}).raise_for_status()
    incident: str = answer.json()["incident_id"]
    return incident


def _milliseconds(moment: datetime) -> str:
    return str(int(moment.timestamp() * 1000))


def _rehearsed(client: httpx.Client, database: str, incident: str, report: Mapping[str, Any]) -> str:
    """What became of the first option's steps; ``no option`` where there was none to choose."""
    if not report["options"]:
        return "no option"
    body = {"plan_revision": report["plan_revision"], "choice": "1"}
    answer = client.post(f"/incidents/{incident}/decision", json=body)
    if answer.status_code != 202:
        return f"refused ({answer.status_code})"
    _await(database, "select count(*) > 0 from execution where incident_id = %s", incident)
    execution = client.get(f"/incidents/{incident}/report").raise_for_status().json()["executions"][0]
    return ", ".join(sorted({result["status"].replace("_", " ") for result in execution["results"]}))


def _await(database: str, statement: str, incident: str) -> None:
    processes.wait_until(lambda: bool(query(database, statement, incident)[0][0]), statement, SECONDS)


def complete(report: Mapping[str, Any]) -> bool:
    """A root cause with its mechanism, claims that are all verified, evidence, and options that have steps."""
    cause = report["root_cause"]
    return bool(
        cause
        and cause["mechanism"]
        and cause["claims"]
        and all(claim["verified"] for claim in cause["claims"])
        and report["evidence"]
        and report["options"]
        and all(option["steps"] for option in report["options"])
    )


def _cases(outcomes: Iterable[Outcome]) -> Table:
    done = list(outcomes)
    seconds = [one.seconds for one in done]
    rows = [
        (
            f"{one.case}, {one.label.fault}, {one.label.service}",
            "yes" if one.rank == 1 else "no",
            str(one.rank or "-"),
            str(one.findings),
            "yes" if one.complete else "no",
            one.executed,
            f"{one.seconds:.1f} s",
        )
        for one in done
    ]
    right, whole = sum(one.rank == 1 for one in done), sum(one.complete for one in done)
    return Table(
        "The whole loop on recorded incidents, rules engine",
        ("case", "first suspect right", "rank", "findings", "report complete", "option 1, rehearsed", "seconds"),
        rows,
        f"n = {len(done)}: first suspect right in {_share(right, len(done))}, report complete in"
        f" {_share(whole, len(done))}; webhook to decision: median {median(seconds):.1f} s, p95"
        f" {percentile(seconds, 95):.1f} s. Complete: root cause with mechanism, all claims verified, evidence, options"
        " with steps.",
    )
