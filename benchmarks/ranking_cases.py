"""Cases whose cause is known, and how one ranking of one of them is judged."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import get_args

from app import nezha, petshop
from app.evaluation import Case
from benchmarks.synthetic import HELD_OUT, ProfileName, Truth, incident
from benchmarks.synthetic_faults import Fault
from benchmarks.synthetic_recording import Disturbances
from collectors.replay import load_bundle
from graph.ranking import rank
from graph.state import Evidence, Hop

FAULTS: tuple[Fault, ...] = get_args(Fault)
SIZES = (12, 20, 30, 45, 70)
PROFILES: tuple[ProfileName, ...] = ("standard", "standard", "coarse", "standard", "sparse", "standard", "fine")
DISTURBANCES: Mapping[str, Disturbances] = {
    "little noise, nothing missing": Disturbances(),
    "noise of 20 %": Disturbances(noise=0.2),
    "drift of 30 % between days": Disturbances(drift=0.3),
    "clocks 2 s apart": Disturbances(skew_s=2.0),
    "clocks 30 s apart": Disturbances(skew_s=30.0),
    "30 % of rows lost": Disturbances(lost=0.3),
    "counters that reset": Disturbances(counter_resets=True),
    "few calls": Disturbances(few_calls=True),
    "alert 10 min late": Disturbances(late=True),
    "alert far upstream": Disturbances(far=True),
    "no logs": Disturbances(dropped=frozenset(["logs"])),
    "no traces": Disturbances(dropped=frozenset(["traces"])),
    "no metrics": Disturbances(dropped=frozenset(["metrics"])),
    "no metrics of the cause": Disturbances(dropped=frozenset(["metrics_of_cause"])),
    "no topology": Disturbances(dropped=frozenset(["topology"])),
    "no topology, no traces": Disturbances(dropped=frozenset(["topology", "traces"])),
    "golden metrics only": Disturbances(dropped=frozenset(["all_but_golden", "logs", "traces"])),
    "no changes": Disturbances(dropped=frozenset(["changes"])),
}


@dataclass(frozen=True)
class Drawn:
    """What to draw: small enough to be sent to another process."""

    seed: int
    fault: Fault
    services: int
    profile: ProfileName = "standard"
    disturbance: str = "little noise, nothing missing"

    @classmethod
    def mixed(cls, number: int, fault: Fault) -> "Drawn":
        """The held-out case of that number; sizes and ways of looking alternate."""
        return cls(HELD_OUT + number, fault, SIZES[number % len(SIZES)], PROFILES[number % len(PROFILES)])

    def labelled(self) -> "Labelled":
        """Make it."""
        made = incident(
            self.seed,
            fault=self.fault,
            services=self.services,
            profile=self.profile,
            disturbances=DISTURBANCES[self.disturbance],
        )
        return Labelled(Case((made.telemetry,), made.scope, made.alert), made.truth.causes, made.truth)


@dataclass(frozen=True)
class Labelled:
    """A case and, for each of its causes, the components that are a right answer."""

    case: Case
    causes: tuple[tuple[str, ...], ...]
    truth: Truth | None = None


@dataclass(frozen=True)
class Judged:
    """What became of a case. ``hops`` are those of the first suspect's path whose three checks hold."""

    drawn: Drawn | None
    first: bool
    third: bool
    all_third: bool
    all_causes: bool
    score: float
    certainty: float
    state: str
    abstains: bool
    hops: int = 0
    right_hops: int = 0
    shortest: int = 0
    whole: bool = False
    change: bool | None = None
    quiet: str = field(default="")

    @property
    def alarmed(self) -> bool:
        """Whether it names a cause, as if something were wrong."""
        return self.state == "incident" and not self.abstains


def ranked(labelled: Labelled) -> Evidence:
    """As in production."""
    return rank(labelled.case.telemetry, labelled.case.scope, labelled.case.alert)


def judged(labelled: Labelled, drawn: Drawn | None = None) -> Judged:
    """Rank it and compare with the truth."""
    evidence = ranked(labelled)
    names = [suspect.component for suspect in evidence.suspects]
    found = [rank_of(right, names) for right in labelled.causes]
    assessment = evidence.assessment
    truth = labelled.truth
    claimed = [hop for hop in evidence.suspects[0].path if _checked(hop)] if evidence.suspects else []
    right = [hop for hop in claimed if truth and (hop.cause, hop.effect) in truth.path]
    return Judged(
        drawn=drawn,
        first=1 in found,
        third=any(place <= 3 for place in found),
        all_third=bool(found) and all(place <= 3 for place in found),
        all_causes=bool(found) and all(set(right_ones) & set(evidence.causes) for right_ones in labelled.causes),
        score=evidence.suspects[0].score if evidence.suspects else 0.0,
        certainty=assessment.certainty if assessment else 0.0,
        state=assessment.state if assessment else "incident",
        abstains=assessment.abstains if assessment else not evidence.suspects,
        hops=len(claimed),
        right_hops=len(right),
        shortest=truth.shortest if truth else 0,
        whole=1 in found and len(right) == len(evidence.suspects[0].path),
        change=_change_found(evidence, truth),
        quiet=(truth.quiet or "") if truth else "",
    )


def _checked(hop: Hop) -> bool:
    return hop.structural and hop.statistical and hop.temporal


def _change_found(evidence: Evidence, truth: Truth | None) -> bool | None:
    """Whether the first suspect names the change that did it; None where none did."""
    if truth is None or truth.change is None:
        return None
    named = evidence.suspects[0].change if evidence.suspects else None
    finding = evidence.finding(named) if named else None
    return finding is not None and truth.change in finding.signal + finding.summary


def rank_of(right: Sequence[str], names: Sequence[str]) -> float:
    """Place of the best right answer, 1 first; infinite where there is none."""
    return next((place for place, name in enumerate(names, 1) if name in right), math.inf)


def judged_draw(drawn: Drawn) -> Judged:
    """For a process of its own."""
    return judged(drawn.labelled(), drawn)


@dataclass(frozen=True)
class Given:
    """Where the cases are: what was drawn, recorded bundles with their labels, and PetShop's folder if it is there."""

    drawn: tuple[Drawn, ...]
    bundles: tuple[tuple[Path, str], ...] = ()
    petshop: Path | None = None

    @property
    def sets(self) -> tuple[str, ...]:
        """The names of those that are there."""
        there = {"synthetic": self.drawn, "Nezha": self.bundles, "PetShop": self.petshop}
        return tuple(name for name, cases in there.items() if cases)


@lru_cache(maxsize=2)
def loaded(given: Given) -> Mapping[str, tuple[Labelled, ...]]:
    """All cases by set: read once in each process."""
    readers: Mapping[str, Callable[[], tuple[Labelled, ...]]] = {
        "synthetic": lambda: tuple(drawn.labelled() for drawn in given.drawn),
        "Nezha": lambda: tuple(Labelled(Case.of(load_bundle(path)), ((cause,),)) for path, cause in given.bundles),
        "PetShop": partial(_petshop, given.petshop),
    }
    return {name: readers[name]() for name in given.sets}


def _petshop(directory: Path | None) -> tuple[Labelled, ...]:
    if directory is None:
        return ()
    found, _ = petshop.issues(directory, petshop.SCENARIOS, ("train",))
    labelled = []
    for scenario in sorted({folder.parents[1] for folder in found.values()}):
        traffic = petshop.Traffic.read(scenario)
        for folder in (f for f in found.values() if f.parents[1] == scenario):
            cause = json.loads((folder / "target.json").read_bytes())["root_cause"]["node"]
            labelled.append(Labelled(traffic.case(folder), ((cause,),)))
    return tuple(labelled)


def hits(cases: Sequence[Labelled]) -> int:
    """How many have a right component as their first suspect."""
    return sum(judged(labelled).first for labelled in cases)


def nezha_labels(data: Path) -> dict[str, str]:
    """The cause of each case, in the order of time."""
    files = data.glob("rca_data/*/*-fault_list.json")
    faults = [fault for file in files for hour in json.loads(file.read_bytes()).values() for fault in hour]
    return {
        f["inject_time"]: nezha.service_of(f["inject_pod"]) for f in sorted(faults, key=lambda f: str(f["inject_time"]))
    }
