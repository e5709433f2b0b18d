"""What ranking must not depend on: names, the order of its input, how it is split, the seed of hashes."""

import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import pytest

from app import nezha, petshop
from app.evaluation import Case
from collectors.base import Change, Edge, LogLine, Series, SeriesRef, Span, Status, Telemetry
from collectors.replay import load_bundle
from graph.ranking.semantics import meaning
from graph.state import Evidence
from tests.app import nezha_data, petshop_data
from tests.conftest import ROOT
from tests.graph.ranking import incidents

T = TypeVar("T")
SHARED = ROOT.parent / "shared" / "data"
PETSHOP, NEZHA = SHARED / "petshop", SHARED / "nezha-trainticket-2023-01-29.tar.xz"
SCENARIOS = ("001-black-friday", "002-bad-deploy")
REAL = 4  # cases of each public data set

# --- incidents ----------------------------------------------------------------------------------------------------


@cache
def made_up() -> Mapping[str, Case]:
    """Small generated ones, and the recorded scenarios."""
    cases = {name: Case.of(load_bundle(ROOT / "tests" / "scenarios" / name)) for name in SCENARIOS}
    for name, telemetry in (("pool exhaustion", incidents.pool_exhaustion), ("bad deploy", incidents.bad_deploy)):
        cases[name] = Case(tuple(telemetry()), incidents.scope("gateway"), incidents.alert("gateway"))
    with TemporaryDirectory() as folder:
        culprits = ("db", "search", "shop")
        for number, case in enumerate(
            _petshop(petshop_data.write(Path(folder), issues=culprits).parent, len(culprits))
        ):
            cases[f"petshop-like {culprits[number]}"] = case
        cases["nezha-like"] = next(_nezha(nezha_data.write(Path(folder) / "nezha"), 1))
    return cases


@cache
def real() -> Mapping[str, Case]:
    """Some of each public data set, as far as it is here."""
    cases = {f"petshop {n}": case for n, case in enumerate(_petshop(PETSHOP, REAL))} if PETSHOP.is_dir() else {}
    if NEZHA.is_file():
        cases |= {f"nezha {n}": case for n, case in enumerate(_nezha(NEZHA, REAL))}
    return cases


def _petshop(folder: Path, count: int) -> Iterator[Case]:
    issues, _ = petshop.issues(folder, petshop.SCENARIOS, petshop.SPLITS)
    for issue in _spread(list(issues.values()), count):
        yield petshop.Traffic.read(issue.parents[1]).case(issue)


def _nezha(source: Path, count: int) -> Iterator[Case]:
    with nezha.unpacked(source, ()) as (root, ids):
        yield from [nezha.case(root, one, nezha.MINUTE) for one in _spread(ids, count)]


def _spread(things: Sequence[T], count: int) -> list[T]:
    return [things[i * len(things) // count] for i in range(min(count, len(things)))]


MADE_UP = (
    *SCENARIOS,
    "pool exhaustion",
    "bad deploy",
    *(f"petshop-like {c}" for c in ("db", "search", "shop")),
    "nezha-like",
)
NAMES = (
    *MADE_UP,
    *(f"petshop {n}" for n in range(REAL) if PETSHOP.is_dir()),
    *(f"nezha {n}" for n in range(REAL) if NEZHA.is_file()),
)


def case(name: str) -> Case:
    return made_up()[name] if name in MADE_UP else real()[name]


@cache
def evidence(name: str) -> Evidence:
    return case(name).ranked()


# --- what is compared ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What of the evidence names no text: scores, paths with their checks, findings with their sizes."""

    suspects: Sequence[tuple[str, float, tuple[tuple[str, str, bool, bool, bool], ...]]]
    findings: Sequence[tuple[str, str, float, float]]
    state: str

    @classmethod
    def of(cls, found: Evidence, named: Callable[[str], str] = str) -> "Result":
        return cls(
            [
                (
                    named(s.component),
                    round(s.score, 4),
                    tuple((named(h.cause), named(h.effect), h.structural, h.statistical, h.temporal) for h in s.path),
                )
                for s in found.suspects
            ],
            [(f.kind, named(f.component), round(f.effect, 4), f.at.timestamp()) for f in found.findings],
            found.assessment.state if found.assessment else "",
        )

    def unordered(self) -> tuple[object, ...]:
        """Who is suspected how much: ties are broken by name."""
        return {component: score for component, score, _ in self.suspects}, self.state


def assert_same_but_for_ties(one: Evidence, other: Evidence, named: Callable[[str], str]) -> None:
    before, after = Result.of(one, named), Result.of(other)
    assert before.unordered() == after.unordered()
    for earlier, later in zip(after.suspects, after.suspects[1:], strict=False):
        assert earlier[1] >= later[1]
    scores = [score for _, score, _ in before.suspects]
    for position, (component, score, _) in enumerate(before.suspects):
        if scores.count(score) == 1:
            assert after.suspects[position][0] == component


# --- other names --------------------------------------------------------------------------------------------------

_LETTERS = "ghijklmnopqrstuvwxyz"  # what looks like no hexadecimal number
_RUN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2,}(?![A-Za-z0-9])")
FORMAT = frozenset(["at", "in", "caused", "by", "suppressed", "more", "traceback", "most", "recent", "call", "last"])
"""Words by which a stack trace is told from a message: the runtimes' own syntax, nobody's names."""


class Renaming:
    """Other names for everything, the same everywhere; numbers, units and ids stay."""

    def __init__(self, given: Case, seed: int, *, ordered: bool) -> None:
        self._rng = random.Random(seed)
        self._ordered = ordered
        self._taken: set[str] = set()
        self._words: dict[str, str] = {word: word for word in FORMAT}
        names = sorted(components(given))
        self.components = dict(zip(names, self._codes(names), strict=True))
        for name, other in self.components.items():
            if name.isalpha() and not ordered:
                self._words[name.lower()] = other  # «Redis» is spoken of where redis is a component
        longest_first = sorted((n for n in names if n), key=lambda n: (-len(n), n))
        self._names = re.compile("|".join(rf"(?<![\w-]){re.escape(n)}(?![\w-])" for n in longest_first) or r"(?!)")
        self._metrics = self._table(s.ref.metric for t in given.telemetry for s in t.series)
        self._operations = self._table(s.operation for t in given.telemetry for s in t.spans)
        self._loggers = self._table(line.logger.partition("#")[0] for t in given.telemetry for line in t.logs)

    def _table(self, names: Iterable[str]) -> dict[str, str]:
        known = sorted(set(names))
        return dict(zip(known, self._codes(known), strict=True)) if self._ordered else {}

    def _codes(self, names: Sequence[str]) -> list[str]:
        """Equally long words: in the names' order, or at random."""
        if self._ordered:
            return [
                "".join(_LETTERS[number // 20**place % 20] for place in (5, 4, 3, 2, 1, 0)) if name else ""
                for number, name in enumerate(names)
            ]
        return [self._random(max(len(name), 4)) if name else "" for name in names]

    def _random(self, length: int) -> str:
        while (word := "".join(self._rng.choices(_LETTERS, k=length))) in self._taken:
            continue
        self._taken.add(word)
        return word

    def component(self, name: str) -> str:
        return self.components.get(name, name)

    def text(self, text: str) -> str:
        """A message: its components and, at random, its words."""
        parts, end = [], 0
        for match in self._names.finditer(text):
            parts += [self._plain(text[end : match.start()]), self.components[match[0]]]
            end = match.end()
        return "".join([*parts, self._plain(text[end:])])

    def _plain(self, text: str) -> str:
        return text if self._ordered else _RUN.sub(lambda run: self._word(run[0]), text)

    def _word(self, word: str) -> str:
        if word.lower() not in self._words:
            self._words[word.lower()] = self._random(len(word))
        other = self._words[word.lower()]
        if word.isupper():
            return other.upper()
        return "".join(c.upper() if i < len(word) and word[i].isupper() else c for i, c in enumerate(other))

    def metric(self, name: str) -> str:
        return self._metrics.get(name) or self.text(name)

    def operation(self, name: str) -> str:
        return self._operations.get(name) or self.text(name)

    def logger(self, name: str) -> str:
        """``Class#line``: the number stays."""
        name, mark, line = name.partition("#")
        return (self._loggers.get(name) or self.text(name)) + mark + line

    # --- and of what has them

    def case(self, given: Case) -> Case:
        scope = given.scope.model_copy(
            update={
                "service": self.component(given.scope.service),
                "edges": tuple(map(self.edge, given.scope.edges)),
                "targets": tuple(
                    t.model_copy(update={"service": self.component(t.service)}) for t in given.scope.targets
                ),
            }
        )
        alert = given.alert.model_copy(
            update={"service": self.component(given.alert.service), "title": self.text(given.alert.title)}
        )
        return Case(tuple(map(self.telemetry, given.telemetry)), scope, alert)

    def telemetry(self, t: Telemetry) -> Telemetry:
        return t.model_copy(
            update={
                "series": tuple(map(self.series, t.series)),
                "logs": tuple(map(self.line, t.logs)),
                "spans": tuple(map(self.span, t.spans)),
                "changes": tuple(map(self.change, t.changes)),
                "statuses": tuple(map(self.status, t.statuses)),
                "edges": tuple(map(self.edge, t.edges)),
            }
        )

    def edge(self, e: Edge) -> Edge:
        return e.model_copy(update={"caller": self.component(e.caller), "callee": self.component(e.callee)})

    def series(self, s: Series) -> Series:
        ref = s.ref.model_copy(
            update={
                "component": self.component(s.ref.component),
                "metric": self.metric(s.ref.metric),
                "query": self.text(s.ref.query),
            }
        )
        return replace(s, ref=ref)

    def line(self, one: LogLine) -> LogLine:
        return replace(
            one,
            component=self.component(one.component),
            logger=self.logger(one.logger),
            message=self.text(one.message),
            instance=self.text(one.instance),
        )

    def span(self, s: Span) -> Span:
        return replace(
            s,
            component=self.component(s.component),
            peer=self.component(s.peer),
            operation=self.operation(s.operation),
            error=self.text(s.error),
            instance=self.text(s.instance),
        )

    def change(self, c: Change) -> Change:
        return c.model_copy(update={"component": self.component(c.component), "title": self.text(c.title)})

    def status(self, s: Status) -> Status:
        kind, mark, monitor = s.name.partition(":")  # the name of a monitor is that of the alert
        name = kind + mark + self.text(monitor)
        return s.model_copy(update={"component": self.component(s.component), "name": name})


def components(given: Case) -> set[str]:
    names = {given.scope.service, given.alert.service, *(t.service for t in given.scope.targets)}
    edges = [*given.scope.edges]
    for t in given.telemetry:
        edges += t.edges
        names |= {s.ref.component for s in t.series} | {line.component for line in t.logs}
        names |= {n for s in t.spans for n in (s.component, s.peer)} | {s.component for s in t.statuses}
        names |= {c.component for c in t.changes}
    return names | {name for e in edges for name in (e.caller, e.callee)}


@cache
def told(name: str) -> tuple[Case, Evidence]:
    """The incident where the meaning of a metric no longer hangs on its name, and its ranking."""
    given = case(name)
    fixed = replace(
        given,
        telemetry=tuple(
            t.model_copy(update={"series": tuple(replace(s, ref=_told(s.ref)) for s in t.series)})
            for t in given.telemetry
        ),
    )
    return fixed, fixed.ranked()


def _told(ref: SeriesRef) -> SeriesRef:
    means = meaning(ref.metric, ref.unit)
    unit = ref.unit
    if means.percent:
        unit = "%"
    elif means.limited:
        unit = "ratio"
    elif means.seconds:
        unit = {1.0: "s", 0.001: "ms", 1e-6: "us", 1e-9: "ns", 60.0: "minutes"}.get(means.seconds, unit)
    fixed = ref.model_copy(update={"measures": means.role, "unit": unit})
    # a percentile may stand in the name only
    percentile = re.search(r"p\d\d|max", ref.metric) if ref.statistic == "avg" else None
    return fixed.model_copy(update={"statistic": percentile[0]}) if percentile else fixed


@pytest.mark.parametrize("name", NAMES)
def test_random_names_change_nothing(name: str) -> None:
    given, ranked = told(name)
    renaming = Renaming(given, seed=7, ordered=False)
    assert_same_but_for_ties(ranked, renaming.case(given).ranked(), renaming.component)


@pytest.mark.parametrize("name", NAMES)
def test_other_names_in_the_same_order_change_nothing_at_all(name: str) -> None:
    given, ranked = told(name)
    renaming = Renaming(given, seed=7, ordered=True)
    assert Result.of(renaming.case(given).ranked()) == Result.of(ranked, renaming.component)


# --- another order ------------------------------------------------------------------------------------------------


def shuffled(given: Case, seed: int) -> Case:
    rng = random.Random(seed)

    def mixed(rows: Sequence[T]) -> tuple[T, ...]:
        return tuple(rng.sample(rows, len(rows)))

    telemetry = [
        t.model_copy(
            update={
                "series": mixed(t.series),
                "logs": _mixed_but_for_equal_times(t.logs, rng),
                "spans": mixed(t.spans),
                "edges": mixed(t.edges),
                "changes": mixed(t.changes),
                "statuses": mixed(t.statuses),
            }
        )
        for t in given.telemetry
    ]
    scope = given.scope.model_copy(update={"edges": mixed(given.scope.edges)})
    return Case(mixed(telemetry), scope, given.alert)


def _mixed_but_for_equal_times(lines: Sequence[LogLine], rng: random.Random) -> tuple[LogLine, ...]:
    """Lines of one time keep their order: it is the order in which they were written, and all that tells it."""
    chance = {at: rng.random() for at in dict.fromkeys(line.at for line in lines)}
    return tuple(sorted(lines, key=lambda line: chance[line.at]))


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_the_input_changes_nothing(name: str) -> None:
    assert shuffled(case(name), seed=3).ranked().model_dump(exclude={"documents", "gaps"}) == evidence(name).model_dump(
        exclude={"documents", "gaps"}
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_same_in_several_answers_of_a_source_changes_nothing(name: str) -> None:
    given = case(name)
    parts = [part for t in given.telemetry for part in split(t)]
    assert len(parts) == 3 * len(given.telemetry)
    assert Case(tuple(parts), given.scope, given.alert).ranked() == evidence(name)


def split(t: Telemetry) -> Iterator[Telemetry]:
    """Three answers of one source: series and spans dealt out, log lines cut in time."""
    third = len(t.logs) // 3 + 1
    for n in range(3):
        yield Telemetry(
            source=t.source,
            series=t.series[n::3],
            logs=t.logs[n * third : (n + 1) * third],
            spans=t.spans[n::3],
            changes=t.changes[n::3],
            statuses=t.statuses[n::3],
            edges=t.edges[n::3],
            documents=t.documents if n == 0 else (),
            gaps=t.gaps if n == 0 else (),
            queries=t.queries if n == 0 else (),
        )


# --- another seed of hashes ---------------------------------------------------------------------------------------


def printed() -> str:
    """All evidence of what is made up, as the subprocess below prints it."""
    return "\n".join(evidence(name).model_dump_json() for name in MADE_UP)


@pytest.mark.parametrize("seed", range(4))
def test_the_seed_of_hashes_changes_nothing(seed: int) -> None:
    script = "from tests.graph.ranking.test_invariance import printed; print(printed())"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.rstrip("\n") == printed()
