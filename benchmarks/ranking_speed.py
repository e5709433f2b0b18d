"""How long ranking takes, and how much memory: on generated telemetry of a large system, and on recorded incidents."""

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import astuple, fields
from math import log
from pathlib import Path
from statistics import linear_regression, median

from app import nezha, petshop
from app.evaluation import Outcome
from benchmarks.ranking_speed_load import LINES, METRICS, MINUTES, SERVICES, SPANS, Load, Ranked
from benchmarks.results import Table
from benchmarks.setting import Setting
from tests.conftest import ROOT

RUNS = 3
SIZES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
WHOLE = Load(series=1.0, lines=1.0, spans=1.0)
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
WITHIN_S = 600.0
TARGET_S, TARGET_MB = 6.0, 1024.0
NEZHA_S, PETSHOP_S = 0.5, 0.03  # targets of one case
PETSHOP = ROOT.parent / "shared" / "data" / "petshop"


def measure(setting: Setting) -> list[Table]:
    """The whole load, growth over its size, and recorded cases where the data sets are there."""
    return [_whole(setting), _growth(setting), _recorded(setting)]


def _apart(load: Load) -> Ranked:
    """In a process of its own."""
    shares = [f"--{field.name}={share}" for field, share in zip(fields(load), astuple(load), strict=True)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.ranking_speed_load", *shares],
        env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        timeout=WITHIN_S,
        check=True,
    )
    return Ranked.model_validate_json(done.stdout)


# --- the generated system ---


def _whole(setting: Setting) -> Table:
    runs = []
    for number in range(1, RUNS + 1):
        setting.tell(f"ranking_speed: all of it, {number} of {RUNS}")
        runs.append(_apart(WHOLE))
    rows = [
        ("seconds on the wall", [one.wall_s for one in runs], f"<= {TARGET_S:.0f}"),
        ("seconds of processor", [one.cpu_s for one in runs], ""),
        ("MB before there was telemetry", [one.before_mb for one in runs], ""),
        ("MB of the telemetry", [one.loaded_mb - one.before_mb for one in runs], ""),
        ("MB of ranking, above that, at its peak", [one.peak_mb - one.loaded_mb for one in runs], ""),
        ("MB of the whole process, at its peak", [one.peak_mb for one in runs], f"<= {TARGET_MB:,.0f}"),
    ]
    right = sum(one.right for one in runs)
    return Table(
        f"{SERVICES} services x {METRICS} metrics x {MINUTES // 60} h, {LINES:,} log lines, {SPANS:,} spans",
        ("`rank()`", "median", "worst", "target"),
        [(name, f"{median(values):,.1f}", f"{max(values):,.1f}", target) for name, values, target in rows],
        f"n = {RUNS}, a new process each, one thread, nothing warmed up; a metric has a row a minute, lines and spans"
        f" are of the last 80 minutes. One service breaks: it is the first suspect in {right} of {RUNS} runs.",
    )


def _growth(setting: Setting) -> Table:
    kinds = {name: Load(**{name: 1.0}) for name in (field.name for field in fields(Load))} | {"all three": WHOLE}
    return Table(
        "Growth: seconds of processor by share of the telemetry",
        ("only", *(f"{size:.4g}" for size in SIZES), "exponent"),
        [_grown(setting, name, load) for name, load in kinds.items()],
        "Exponent: slope of log seconds over log size, least squares; 1 is linear, less shows what does not grow."
        " n = 1, a new process each.",
    )


def _grown(setting: Setting, name: str, load: Load) -> tuple[str, ...]:
    seconds = []
    for size in SIZES:
        setting.tell(f"ranking_speed: {name}, {size:.4g} of all")
        seconds.append(_apart(Load(*(size * share for share in astuple(load)))).cpu_s)
    return (name, *(f"{one:.2f} s" for one in seconds), f"{exponent(SIZES, seconds):.2f}")


def exponent(sizes: Iterable[float], seconds: Iterable[float]) -> float:
    """Of the power of the size that the seconds grow with."""
    return linear_regression([log(size) for size in sizes], [log(one) for one in seconds]).slope


# --- recorded incidents ---


def _recorded(setting: Setting) -> Table:
    rows: list[tuple[str, ...]] = []
    for name, where, outcomes, target in (
        ("Nezha, minute 2", setting.nezha, _nezha, NEZHA_S),
        ("PetShop", PETSHOP, _petshop, PETSHOP_S),
    ):
        setting.tell(f"ranking_speed: {name}")
        rows += _cases(name, outcomes(where), target) if where.exists() else [(f"{name}: not here", *"----")]
    return Table(
        "Recorded cases, one after the other",
        ("seconds a case", "median", "worst", "target", "n"),
        rows,
        "n = 1 each. Reading: from the data set's files to telemetry; the first case of a day, or of a scenario, also"
        " reads what its others share.",
    )


def _nezha(where: Path) -> list[Outcome]:
    with nezha.unpacked(where, ()) as (root, ids):
        return list(nezha.outcomes(root, ids, nezha.MINUTE, jobs=1))


def _petshop(where: Path) -> list[Outcome]:
    there = [scenario for scenario in petshop.SCENARIOS if (where / scenario).is_dir()]
    found, _ = petshop.issues(where, there, petshop.SPLITS)
    return list(petshop.outcomes(found, []))


def _cases(name: str, outcomes: Iterable[Outcome], target: float) -> Iterator[tuple[str, ...]]:
    done = [one for one in outcomes if not one.complaint]
    for what, seconds, at_most in (
        ("ranking", [one.ranking_s for one in done], f"<= {target:g} s"),
        ("reading", [one.seconds - one.ranking_s for one in done], ""),
    ):
        yield f"{name}, {what}", f"{median(seconds):.3f} s", f"{max(seconds):.3f} s", at_most, str(len(done))
