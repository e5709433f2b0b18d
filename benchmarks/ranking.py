"""The ranking alone: on incidents that were made up, so that their truth is known, and on public ones.

``python -m benchmarks.ranking accuracy --cases 60`` runs one part of it.
"""

import argparse
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from math import sqrt
from pathlib import Path

from app import nezha
from benchmarks import ranking_ablation, ranking_calibration, ranking_injected, ranking_sensitivity
from benchmarks.ranking_cases import (
    DISTURBANCES,
    FAULTS,
    Drawn,
    Given,
    Judged,
    judged,
    judged_draw,
    loaded,
    nezha_labels,
)
from benchmarks.results import Table
from benchmarks.setting import Setting
from benchmarks.synthetic_faults import Fault
from tests import processes
from tests.conftest import ROOT

CASES = 400
A_DISTURBANCE = 20
ABLATED, ABLATED_RECORDED = 24, 28
VARIED, VARIED_RECORDED = 14, 10  # of the sensitivity, which ranks each of them hundreds of times
DATA = ROOT.parent / "shared" / "data"
SETTLED: tuple[Fault, ...] = tuple(fault for fault in FAULTS if fault not in {"nothing", "two_causes"})
Tell = Callable[[str], None]


def measure(setting: Setting) -> list[Table]:
    """Accuracy, paths and quiet cases on made-up incidents; calibration, ablation and sensitivity on all sets."""
    with _bundles(setting.nezha, setting.subfolder("ranking"), setting.tell) as bundles, _pool() as pool:
        cases = accuracy(pool, CASES, setting.tell)
        return [
            *accuracy_tables(cases),
            disturbance_table(pool, A_DISTURBANCE, setting.tell),
            *_injected(setting.tell),
            *ranking_calibration.tables({"synthetic": cases, **_recorded(pool, bundles)}),
            ablation(pool, bundles, setting.tell),
            sensitivity(pool, bundles, setting.tell),
        ]


def accuracy(pool: Executor, count: int, tell: Tell) -> list[Judged]:
    """So many held-out cases, spread evenly over the faults."""
    each = max(1, count // len(FAULTS))
    return _judged(pool, [Drawn.mixed(number, fault) for fault in FAULTS for number in range(each)], tell)


def accuracy_tables(cases: Sequence[Judged]) -> list[Table]:
    """By fault, size and profile; then the paths, the quiet ones and the twofold ones."""
    return [_by_fault(cases), _by_setting(cases), _paths(cases), _quiet(cases), _twofold(cases)]


def disturbance_table(pool: Executor, each: int, tell: Tell) -> Table:
    """The same small cases under one disturbance after the other."""
    drawn = [
        Drawn(20_000 + number, SETTLED[number % len(SETTLED)], (12, 20, 30)[number % 3], disturbance=name)
        for name in DISTURBANCES
        for number in range(each)
    ]
    cases = _judged(pool, drawn, tell)
    rows = []
    for name in DISTURBANCES:
        some = [one for one in cases if one.drawn and one.drawn.disturbance == name]
        rows.append((name, *_hits(some), _share([one.abstains for one in some])))
    return Table(
        "Made-up incidents under one disturbance each",
        ("disturbance", "top-1", "top-3", "abstains"),
        rows,
        f"The same {each} systems and faults in each row, drawn anew under the disturbance; in brackets 95 % Wilson"
        " intervals.",
    )


def ablation(pool: Executor, bundles: Sequence[tuple[Path, str]], tell: Tell) -> Table:
    """Each channel removed, and alone."""
    tell("ranking: ablation")
    return ranking_ablation.table(Given(_sample(ABLATED), _spread(bundles, ABLATED_RECORDED), _petshop()), pool)


def sensitivity(pool: Executor, bundles: Sequence[tuple[Path, str]], tell: Tell) -> Table:
    """Each constant halved, and doubled."""
    tell("ranking: sensitivity")
    return ranking_sensitivity.table(Given(_sample(VARIED), _spread(bundles, VARIED_RECORDED), _petshop()), pool)


def wilson(hits: int, of: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share; from nothing to all where there is no case."""
    if not of:
        return 0.0, 1.0
    share, square = hits / of, z * z
    middle = (share + square / (2 * of)) / (1 + square / of)
    half = z * sqrt(share * (1 - share) / of + square / (4 * of * of)) / (1 + square / of)
    return max(0.0, middle - half), min(1.0, middle + half)


# --- cases ---


def _sample(count: int) -> tuple[Drawn, ...]:
    """Small ones, of all faults in turn."""
    return tuple(Drawn(30_000 + number, SETTLED[number % len(SETTLED)], 12) for number in range(count))


def _spread(bundles: Sequence[tuple[Path, str]], count: int) -> tuple[tuple[Path, str], ...]:
    """So many of them, evenly over the time."""
    chosen = min(count, len(bundles))
    return tuple(bundles[k * len(bundles) // chosen] for k in range(chosen))


def _petshop() -> Path | None:
    folder = DATA / "petshop"
    return folder if folder.is_dir() else None


def _judged(pool: Executor, drawn: Sequence[Drawn], tell: Tell) -> list[Judged]:
    jobs = [pool.submit(judged_draw, one) for one in drawn]
    for number, job in enumerate(as_completed(jobs), 1):
        job.result()
        tell(f"ranking: {number} of {len(jobs)} made-up incidents")
    return [job.result() for job in jobs]


def _recorded(pool: Executor, bundles: Sequence[tuple[Path, str]]) -> dict[str, list[Judged]]:
    given = [("Nezha", Given((), tuple(bundles))), ("PetShop", Given((), (), _petshop()))]
    there = [(name, one) for name, one in given if one.sets]
    return {
        name: cases for (name, _), cases in zip(there, pool.map(_judged_set, [one for _, one in there]), strict=True)
    }


def _injected(tell: Tell) -> list[Table]:
    """Nothing where PetShop is not here."""
    folder = _petshop()
    tell("ranking: faults injected into PetShop")
    return [ranking_injected.table(folder)] if folder else []


def _judged_set(given: Given) -> list[Judged]:
    return [judged(labelled) for cases in loaded(given).values() for labelled in cases]


@contextmanager
def _bundles(archive: Path, folder: Path, tell: Tell) -> Iterator[list[tuple[Path, str]]]:
    """Nezha's cases, imported, with the causes; none where the archive is not here."""
    if not archive.exists():
        yield []
        return
    tell("ranking: importing Nezha")
    data = archive
    if archive.is_file():
        data = folder / "data"
        with tarfile.open(archive, "r|*") as packed:
            packed.extractall(data, filter="data")
    labels = nezha_labels(data)
    with _pool() as pool:
        outs = [folder / f"case-{number}" for number in range(len(labels))]
        paths = list(pool.map(nezha.import_case, [data] * len(labels), labels, outs))
    yield list(zip(paths, labels.values(), strict=True))


@contextmanager
def _pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(os.cpu_count(), mp_context=processes.context) as pool:
        yield pool


# --- tables ---


def _by_fault(cases: Sequence[Judged]) -> Table:
    rows = []
    incidents = [one for one in cases if one.drawn and one.drawn.fault != "nothing"]
    for name, some in [
        ("all", incidents),
        *((fault, _of_fault(cases, fault)) for fault in FAULTS if fault != "nothing"),
    ]:
        found = [one.change for one in some if one.change is not None]
        rows.append((name, *_hits(some), _share([one.abstains for one in some]), _share(found)))
    return Table(
        "Made-up incidents: is the cause found?",
        ("fault", "top-1", "top-3", "abstains", "its change named"),
        rows,
        "Random systems of 12 to 70 services, seeds that the engine was not developed on; in brackets 95 % Wilson"
        " intervals. A network delay may be blamed on either end. Its change: of those brought by a deploy, a"
        " configuration or a flag, the share where the first suspect names that very change among the red herrings.",
    )


def _by_setting(cases: Sequence[Judged]) -> Table:
    incidents = [(one.drawn, one) for one in cases if one.drawn and one.drawn.fault != "nothing"]
    groups: dict[str, list[Judged]] = {}
    for drawn, one in sorted(incidents, key=lambda pair: (pair[0].services, pair[0].profile)):
        groups.setdefault(f"{drawn.services} services", []).append(one)
    for drawn, one in sorted(incidents, key=lambda pair: pair[0].profile):
        groups.setdefault(f"profile {drawn.profile}", []).append(one)
    return Table(
        "The same, by size and by what the sources tell",
        ("systems", "top-1", "top-3", "n"),
        [(name, *_hits(some), str(len(some))) for name, some in groups.items()],
        "standard: rows of a minute; coarse: of five; fine: of ten seconds; sparse: latency, availability and requests"
        " only, five-minute rows, four of them of the incident, one just before, and a long history months ago.",
    )


def _paths(cases: Sequence[Judged]) -> Table:
    incidents = [one for one in cases if one.drawn and one.drawn.fault != "nothing"]
    rows = []
    for name, some in (("all", incidents), ("first suspect right", [one for one in incidents if one.first])):
        claimed, right = sum(one.hops for one in some), sum(one.right_hops for one in some)
        true = sum(one.shortest for one in some)
        covered = sum(min(one.right_hops, one.shortest) for one in some)
        rows.append((name, _ratio(right, claimed), _ratio(covered, true), _share([one.whole for one in some])))
    return Table(
        "Causal paths",
        ("cases", "precision", "recall", "whole path right"),
        rows,
        "Hops of the first suspect's path whose three checks hold, against the calls by which the trouble really"
        " spread to the alerted component. Recall: of the hops of the shortest such way. Whole: the suspect is right,"
        " and every hop shown is checked and true.",
    )


def _quiet(cases: Sequence[Judged]) -> Table:
    nothing = _of_fault(cases, "nothing")
    groups = {
        "all": nothing,
        **{kind: [o for o in nothing if o.quiet == kind] for kind in sorted({o.quiet for o in nothing})},
    }
    rows = [(name, _share([one.alarmed for one in some]), _states(some)) for name, some in groups.items()]
    return Table(
        "Nothing happened: false alarms",
        ("what there was", "names a cause", "assessed as"),
        rows,
        "An alert, and nothing behind it: noise, a harmless deploy, a job that runs every night, slow drift, a blip"
        " that was over before.",
    )


def _twofold(cases: Sequence[Judged]) -> Table:
    both = _of_fault(cases, "two_causes")
    checks: Mapping[str, Callable[[Judged], bool]] = {
        "one of them first": lambda one: one.first,
        "both among the first three": lambda one: one.all_third,
        "both said to be causes": lambda one: one.all_causes,
    }
    return Table(
        "Two independent causes", ("found", "share"), [(n, _share([c(one) for one in both])) for n, c in checks.items()]
    )


def _of_fault(cases: Iterable[Judged], fault: Fault) -> list[Judged]:
    return [one for one in cases if one.drawn and one.drawn.fault == fault]


def _hits(cases: Sequence[Judged]) -> tuple[str, str]:
    return _share([one.first for one in cases]), _share([one.third for one in cases])


def _share(flags: Sequence[bool | None]) -> str:
    if not flags:
        return "-"
    low, high = wilson(sum(map(bool, flags)), len(flags))
    return f"{_ratio(sum(map(bool, flags)), len(flags))} [{low:.0%}, {high:.0%}]"


def _ratio(part: int, of: int) -> str:
    return f"{part / of:.1%} ({part}/{of})" if of else "-"


def _states(cases: Sequence[Judged]) -> str:
    states = [one.state for one in cases]
    return ", ".join(f"{state.replace('_', ' ')} {states.count(state)}" for state in sorted(set(states)))


# --- one part alone ---


def main() -> None:
    """Print the tables of one part."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ranking", description=__doc__)
    parser.add_argument("part", choices=("accuracy", "disturbances", "calibration", "ablation", "sensitivity"))
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--nezha", type=Path, default=DATA / "nezha-trainticket-2023-01-29.tar.xz")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, _pool() as pool:
        for table in _part(options, pool, Path(folder)):
            print(table.markdown(), end="\n\n", flush=True)


def _part(options: argparse.Namespace, pool: Executor, folder: Path) -> list[Table]:
    if options.part == "accuracy":
        return accuracy_tables(accuracy(pool, options.cases, _silent))
    if options.part == "disturbances":
        return [disturbance_table(pool, max(1, options.cases // len(DISTURBANCES)), _silent)]
    with _bundles(options.nezha, folder, _silent) as bundles:
        if options.part == "calibration":
            cases = accuracy(pool, options.cases, _silent)
            return ranking_calibration.tables({"synthetic": cases, **_recorded(pool, bundles)})
        return [(ablation if options.part == "ablation" else sensitivity)(pool, bundles, _silent)]


def _silent(_text: str) -> None:
    """Nobody watches."""


if __name__ == "__main__":
    main()
