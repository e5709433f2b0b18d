"""Every remedy that the product proposes against every fault of the shop: decided, carried out, verified, and judged.

Each option is run in a world of its own: shop, API and worker in processes, over HTTP, on a clock that runs faster.
What the product says is held against the shop's own truth (``GET /_shop/truth``), and against what the same shop would
have done if nobody had acted, which is lived through beside it with the same seed.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Literal

import httpx

from app.simulator.scenarios import SCENARIOS
from app.simulator.shop import Shop
from app.simulator.truth import truth
from benchmarks.results import Table
from benchmarks.setting import Setting, await_worker
from tests.conftest import World, make_key
from tests.processes import wait_until

SPEED = 30.0  # the analysis takes some seconds of the wall clock, and the shop must not live through an hour meanwhile
SIDE_BY_SIDE = 2
CHOICES = ("1", "2", "3")
ANALYSED_WITHIN_S = 90.0
VERIFIED_WITHIN_S = 240.0
BEFORE, AFTER = timedelta(minutes=2), timedelta(minutes=1)  # over which the truth is taken
SEED = 7  # of tests.processes.run_shop
BETTER, WORSE = 0.7, 1.3  # of the harm before
LOST = 0.3  # of the requests that a service still served well: where most are lost already, harm cannot grow by much
LEAST = 0.03  # of harm, below which a difference is none
EXECUTORS = ("ecs", "traffic", "rds", "elasticache", "appconfig")
ROLE = "arn:aws:iam::123456789012:role/autopilot-executor"

Verdict = Literal["resolved", "improved", "unchanged", "worse", "not_measurable"]


@dataclass(frozen=True)
class Run:
    """One option that was carried out; ``minutes`` of the shop's time from the first claim to the verdict."""

    fault: str
    choice: str
    title: str
    operations: tuple[str, ...]
    statuses: tuple[str, ...]
    verdict: Verdict
    truth: Verdict
    credit: str
    recovered_untouched: bool
    reversible: bool
    undone: bool
    minutes: float
    harm: tuple[float, float]

    @property
    def ran(self) -> bool:
        """Every step was done; else there is nothing to judge a remedy by."""
        return all(status == "succeeded" for status in self.statuses)

    @property
    def agrees(self) -> bool:
        """The product said what is true."""
        return self.verdict == self.truth


def measure(setting: Setting) -> list[Table]:
    """All options of all faults."""
    return tables(runs(setting, sorted(SCENARIOS)), sorted(SCENARIOS))


def runs(setting: Setting, faults: Sequence[str], choices: Sequence[str] = CHOICES) -> list[Run]:
    """Some faults, two worlds at a time."""
    asked = [(fault, choice) for fault in faults for choice in choices]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as threads:
        places = [(fault, choice, setting.database(), setting.subfolder("remedy")) for fault, choice in asked]
        pending = [threads.submit(_run, *place) for place in places]
        done: list[Run | None] = []
        for number, future in enumerate(pending, 1):
            setting.tell(f"remediation: {' '.join(asked[number - 1])}, {number} of {len(asked)}")
            done.append(future.result())
    return [run for run in done if run is not None]


def _run(fault: str, choice: str, database_url: str, folder: Path) -> Run | None:
    """As ``_in_a_world``; a world that did not come to a verdict must not cost the others."""
    try:
        return _in_a_world(fault, choice, database_url, folder)
    except (AssertionError, TimeoutError, httpx.HTTPError) as error:
        return _not_run(fault, choice, {"title": "", "steps": [], "undo": ""}, str(error).partition("; ")[0])


def _in_a_world(fault: str, choice: str, database_url: str, folder: Path) -> Run | None:
    """One option in a new world; None if the plan has none of that number."""
    with ExitStack() as stack:
        world = World(fault, database_url, folder, speed=SPEED, stack=stack)
        _equip(world)
        world.start_shop()
        key = make_key(database_url, "admin", "ada")
        client = world.start_api()
        client.headers["Authorization"] = f"Bearer {key}"
        world.start_worker()
        await_worker(database_url)
        incident = world.send_alert(client).raise_for_status().json()["incident_id"]
        world.await_status(client, incident, "awaiting_decision", seconds=ANALYSED_WITHIN_S)
        options = client.get(f"/incidents/{incident}/actions").raise_for_status().json()["options"]
        if int(choice) > len(options):
            return None
        option = options[int(choice) - 1]
        answer = world.decide(client, incident, choice)
        if answer.status_code != 202:
            return _not_run(fault, choice, option, f"{answer.status_code}: {answer.json().get('detail', '')}")
        execution, ended = _executed(world, client, incident)
        return _judged(world, fault, choice, option, execution, ended)


def _equip(world: World) -> None:
    """All executors that the shop has something for, each in sessions of a role."""
    world.environment["AUTOPILOT_EXECUTORS"] = ",".join(EXECUTORS)
    for name in EXECUTORS:
        prefix = f"AUTOPILOT_{name.upper()}_"
        world.environment |= {
            f"{prefix}ENDPOINT_URL": world.shop_url,
            f"{prefix}REGION": "us-east-1",
            f"{prefix}ROLE_ARN": ROLE,
        }


def _executed(world: World, client: httpx.Client, incident: str) -> tuple[dict[str, Any], datetime]:
    """The execution once it is verified, and undone where need be; and when that was seen."""
    found: list[dict[str, Any]] = []

    def verified() -> bool:
        found[:] = world.report(client, incident)["executions"]
        return bool(found)

    wait_until(verified, f"the verdict; {world.folder}", VERIFIED_WITHIN_S)
    return found[0], world.clock.now()


def _judged(
    world: World, fault: str, choice: str, option: dict[str, Any], execution: dict[str, Any], ended: datetime
) -> Run:
    results, undone = execution["results"], execution["undone"]
    claimed = min((_at(r["claimed_at"]) for r in results if r["claimed_at"]), default=ended)
    end = min((_at(r["claimed_at"]) for r in undone if r["claimed_at"]), default=ended)
    before, after = _truth(world, claimed - BEFORE, claimed), _truth(world, end - AFTER, end)
    return Run(
        fault=fault,
        choice=choice,
        title=option["title"],
        operations=tuple(step["operation"] for step in option["steps"]),
        statuses=tuple(result["status"] for result in results),
        verdict=execution["verification"]["verdict"],
        truth=judge(before["harm"], after["harm"], well=after["well"], lost=share_lost(before, after)),
        credit=execution["verification"].get("credit", ""),
        recovered_untouched=untouched_is_well(fault, end),
        reversible=bool(option["undo"]),
        undone=bool(undone) and all(result["status"] == "succeeded" for result in undone),
        minutes=(end - claimed).total_seconds() / 60.0,
        harm=(before["harm"], after["harm"]),
    )


def share_lost(before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    """The largest share, 0 to 1, of the requests served well before that a service serves well no more."""
    served = [
        (1.0 - was["bad_ratio"], 1.0 - after["services"][name]["bad_ratio"]) for name, was in before["services"].items()
    ]
    return max((1.0 - now / was for was, now in served if was - now > LEAST), default=0.0)


def judge(before: float, after: float, *, well: bool, lost: float = 0.0) -> Verdict:
    """What became of the harm: shares of badly served requests, summed over the services.

    ``lost``: see share_lost.
    """
    if well:
        return "resolved"
    if abs(after - before) <= LEAST:
        return "unchanged"
    if after >= WORSE * before or (after > before and lost >= LOST):
        return "worse"
    return "improved" if after <= BETTER * before else "unchanged"


def untouched_is_well(fault: str, at: datetime) -> bool:
    """Whether the same shop would be well by then if nobody had acted."""
    shop = Shop(SCENARIOS[fault], _Stopped(at), seed=SEED)
    with shop.live() as now:
        return truth(shop.ticks(0.0, now), now - AFTER.total_seconds(), now).well


@dataclass(frozen=True)
class _Stopped:
    """A clock that stands still."""

    at: datetime

    def now(self) -> datetime:
        """UTC."""
        return self.at


def _truth(world: World, start: datetime, end: datetime) -> dict[str, Any]:
    params = {"start": start.isoformat(), "end": end.isoformat()}
    answer: dict[str, Any] = httpx.get(f"{world.shop_url}/_shop/truth", params=params, timeout=20).json()
    return answer


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _not_run(fault: str, choice: str, option: dict[str, Any], why: str) -> Run:
    operations = tuple(step["operation"] for step in option["steps"])
    return Run(
        fault,
        choice,
        option["title"],
        operations,
        (f"not taken: {why}",),
        "not_measurable",
        "unchanged",
        "",
        recovered_untouched=False,
        reversible=bool(option["undo"]),
        undone=False,
        minutes=0.0,
        harm=(0.0, 0.0),
    )


# --- tables -------------------------------------------------------------------------------------------------


def tables(done: Sequence[Run], faults: Sequence[str]) -> list[Table]:
    """Every option, and what comes of it all; ``faults`` are those that were asked for."""
    judged = [run for run in done if run.ran]
    return [_each(judged), _summary(done, judged, faults), *([_stopped(left)] if (left := _left(done)) else [])]


def _left(done: Sequence[Run]) -> list[Run]:
    return [run for run in done if not run.ran]


def _each(judged: Sequence[Run]) -> Table:
    return Table(
        "Every option against every fault",
        ("fault", "option", "product", "truth", "agrees", "credit", "well anyway", "undone", "minutes", "harm"),
        [
            (
                run.fault,
                f"{run.choice}: {', '.join(run.operations)}",
                run.verdict,
                run.truth,
                "yes" if run.agrees else "**no**",
                run.credit or "-",
                "yes" if run.recovered_untouched else "-",
                "yes" if run.undone else "-",
                f"{run.minutes:.1f}",
                f"{run.harm[0]:.2f} -> {run.harm[1]:.2f}",
            )
            for run in judged
        ],
        "Truth is the shop's own state: resolved, if every service serves its requests as without a fault and none are"
        " turned away; else by the harm, the sum over the services of the share of requests served badly (failed, or"
        f" slower than twice the ordinary 95th percentile): worse from {WORSE:g} times on, or where a service"
        f" loses {LOST:.0%} of the requests that it still served well; improved up to {BETTER:g}."
        " Requests that a rule turns away are not counted as harm, those let through are. «Well anyway»: the same shop,"
        " untouched, is well at that moment. Minutes are the shop's, from the first claim to the verdict.",
    )


def _summary(done: Sequence[Run], judged: Sequence[Run], faults: Sequence[str]) -> Table:
    harmful = [run for run in judged if run.truth == "worse"]
    reversible = [run for run in harmful if run.reversible]
    resolved = [run for run in judged if run.truth == "resolved"]
    credited = [run for run in resolved if (run.credit == "remedy") != run.recovered_untouched]
    first = [run for run in done if run.choice == "1"]
    wrong = Counter(f"{run.verdict} for {run.truth}" for run in judged if not run.agrees)
    rows = [
        ("faults", str(len(faults))),
        ("of them nothing was proposed for", ", ".join(sorted(set(faults) - {run.fault for run in done})) or "none"),
        ("options proposed, of them carried out", f"{len(done)}, {len(judged)}"),
        ("verdict agrees with the truth", _share([run.agrees for run in judged])),
        ("said resolved and is not", str(sum(r.verdict == "resolved" != r.truth for r in judged))),
        ("harmful and reversible: undone", _share([run.undone for run in reversible])),
        ("harmful and not reversible", str(len(harmful) - len(reversible))),
        ("undone and was not harmful", str(sum(run.undone and run.truth != "worse" for run in judged))),
        ("resolved: the credit is right", _share([run in credited for run in resolved])),
        ("resolved with option 1", _share([run.ran and run.truth == "resolved" for run in first])),
        ("resolved or improved with option 1", _share([run.truth in ("resolved", "improved") for run in first])),
        ("median minutes to the verdict", f"{median(run.minutes for run in judged):.1f}" if judged else "-"),
        ("disagreements", "; ".join(f"{name}: {count}" for name, count in wrong.most_common()) or "none"),
    ]
    return Table("In sum", ("", "value"), rows, f"The shop's clock runs {SPEED:g} times as fast as the wall's.")


def _stopped(left: Sequence[Run]) -> Table:
    rows = [(run.fault, f"{run.choice}: {', '.join(run.operations)}", "; ".join(run.statuses)[:160]) for run in left]
    return Table("Not carried out to the end", ("fault", "option", "what its steps came to"), rows)


def _share(said: Sequence[bool]) -> str:
    return f"{sum(said)} of {len(said)} ({sum(said) / len(said):.0%})" if said else "none"
