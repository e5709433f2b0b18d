"""Recorded incidents through the same ``rank`` as production: one bundle, or a whole data set of cases."""

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from collectors.base import Scope, Telemetry
from collectors.replay import Bundle, BundleError, ReplayCollector, load_bundle
from graph.ranking import rank
from graph.state import Alert, Evidence

Tell = Callable[[str], None]


class EvaluationError(ValueError):
    """What was asked for cannot be evaluated; the text says what is wrong, where, and what to do."""


@dataclass(frozen=True)
class Case:
    """One incident as ranking takes it."""

    telemetry: tuple[Telemetry, ...]
    scope: Scope
    alert: Alert

    @classmethod
    def of(cls, bundle: Bundle) -> "Case":
        """What the collector ``replay`` sees of the bundle in its own windows. Raises EvaluationError."""
        alert, recording = _alert(bundle), bundle.manifest
        scope = Scope(
            service=alert.service,
            occurred_at=alert.occurred_at,
            incident=recording.incident,
            baseline=recording.baseline,
            seasonal=recording.seasonal,
            targets=(),
        )
        return cls((asyncio.run(ReplayCollector(bundle).collect(scope)),), scope, alert)

    def ranked(self) -> Evidence:
        """Findings, suspects and paths."""
        return rank(self.telemetry, self.scope, self.alert)


def ranked(bundle: Bundle) -> Evidence:
    """Findings, suspects and paths of a recorded incident. Raises EvaluationError."""
    return Case.of(bundle).ranked()


def _alert(bundle: Bundle) -> Alert:
    try:
        return Alert.model_validate(bundle.alert)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise EvaluationError(f"alert.json of «{bundle.manifest.title}»: {where}: {first['msg']}") from None


# --- many cases -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What ranking made of a case, best suspect first; ``complaint`` says why it could not be read, if so."""

    case: str
    suspects: tuple[str, ...] = ()
    seconds: float = 0.0  # to read and to rank
    ranking_s: float = 0.0
    complaint: str = ""


def outcome(name: str, read: Callable[[], Case], unreadable: type[Exception]) -> Outcome:
    """Read and rank one case, timed; what ``read`` raises as ``unreadable`` becomes the complaint."""
    return _timed(name, read, unreadable)[0]


def _timed(name: str, read: Callable[[], Case], *unreadable: type[Exception]) -> tuple[Outcome, Evidence | None]:
    started = time.perf_counter()
    try:
        case = read()
    except unreadable as error:
        return Outcome(name, complaint=str(error)), None
    loaded = time.perf_counter()
    evidence = case.ranked()
    ended = time.perf_counter()
    return Outcome(name, names(evidence), ended - started, ended - loaded), evidence


def names(evidence: Evidence) -> tuple[str, ...]:
    """The suspected components, best first, each once."""
    return tuple(dict.fromkeys(suspect.component for suspect in evidence.suspects))


@contextmanager
def progress(title: str, total: int | None = None) -> Iterator[tuple[Callable[[], None], Tell]]:
    """A bar on stderr: a function that counts one case, and one that prints a remark above the bar."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task), lambda text: console.print(Text(printable(text)), soft_wrap=True)


def printable(text: str) -> str:
    """Words of strangers, with nothing in them that moves the cursor."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def counted(outcomes: Iterable[Outcome], count: Callable[[], None], tell: Tell) -> list[Outcome]:
    """All of them, each counted as it comes, each complaint told; in the order of their cases."""
    done = []
    for one in outcomes:
        count()
        if one.complaint:
            tell(f"{one.case}: left out: {one.complaint}")
        done.append(one)
    return sorted(done, key=lambda one: one.case)


def check_out(out: Path) -> Path:
    """The file to write, looked at before the work is done and not after. Raises EvaluationError."""
    if out.is_dir():
        raise EvaluationError(f"--out {out} is a folder; name a file, e.g. {out / 'result.json'}")
    if not out.parent.is_dir():
        raise EvaluationError(f"--out {out}: there is no folder {out.parent}; make it first, or name another file")
    return out


def write(out: Path, outcomes: Sequence[Outcome]) -> None:
    """``{case: [suspects, best first]}`` of those that could be read. Raises EvaluationError."""
    suspects = {one.case: one.suspects for one in outcomes if not one.complaint}
    try:
        out.write_text(json.dumps(suspects, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise EvaluationError(f"--out {out} cannot be written: {error.strerror}; name another file") from None


def summary(outcomes: Sequence[Outcome]) -> str:
    """One line: how many, and how long one took."""
    done = [one for one in outcomes if not one.complaint]
    text = f"{_cases(len(done))} ranked"
    if left_out := len(outcomes) - len(done):
        text += f", {left_out} left out"
    if done:
        each, ranking = (sum(getattr(o, name) for o in done) / len(done) for name in ("seconds", "ranking_s"))
        text += f"; {each:.3f} s a case, {ranking:.3f} s of it ranking, slowest {max(o.seconds for o in done):.3f} s"
    return text


def _cases(count: int) -> str:
    return f"{count} case" if count == 1 else f"{count} cases"


# --- folders of bundles ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scenario:
    """A bundle, what is known to be its cause (None: not said), and what ranking makes of it."""

    outcome: Outcome
    expected: str | None = None
    evidence: Evidence | None = None

    @property
    def rank(self) -> int | None:
        """Of the expected component, from 1 on; None where nothing is expected or it is no suspect."""
        suspects = self.outcome.suspects
        return suspects.index(self.expected) + 1 if self.expected in suspects else None


def bundles(directory: Path) -> dict[str, Path]:
    """Each bundle at or below the directory, by its folder's path in it. Raises EvaluationError."""
    if not directory.is_dir():
        raise EvaluationError(f"{directory} is no folder; name one that holds bundles, e.g. tests/scenarios")
    found = {file.parent.relative_to(directory).as_posix(): file.parent for file in directory.rglob("bundle.json")}
    if not found:
        raise EvaluationError(f"{directory} holds no bundle.json: `autopilot export` writes bundles")
    return {directory.resolve().name if name == "." else name: found[name] for name in sorted(found)}


def scenarios(found: Mapping[str, Path], count: Callable[[], None], tell: Tell) -> list[Scenario]:
    """Each ranked and compared, counted as it is, its complaint told."""
    done = []
    for name, folder in found.items():
        done.append(_scenario(name, folder))
        counted([done[-1].outcome], count, tell)
    return done


def _scenario(name: str, folder: Path) -> Scenario:
    try:
        expected = _expected(folder / "expected.json")
    except EvaluationError as error:
        return Scenario(Outcome(name, complaint=str(error)))
    done, evidence = _timed(name, lambda: Case.of(load_bundle(folder)), BundleError, EvaluationError)
    return Scenario(done, expected, evidence)


def _expected(file: Path) -> str | None:
    if not file.exists():
        return None
    try:
        component = json.loads(file.read_bytes())["component"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        component = None
    if not isinstance(component, str):
        raise EvaluationError(f'{file} is not readable; it holds {{"component": "name of the cause"}}')
    return component


def table(scenarios: Iterable[Scenario]) -> Table:
    """A row for each that could be read."""
    shown = Table("scenario", "expected", "first", "rank", "score", "state", "certainty", box=box.SIMPLE)
    for one in scenarios:
        if one.evidence is not None:
            shown.add_row(*(Text(printable(cell)) for cell in _row(one, one.evidence)))
    return shown


def _row(one: Scenario, evidence: Evidence) -> tuple[str, ...]:
    first = evidence.suspects[0] if evidence.suspects else None
    assessed = evidence.assessment
    return (
        one.outcome.case,
        one.expected or "",
        first.component if first else "(none)",
        str(one.rank or ("-" if one.expected else "")),
        f"{first.score:.2f}" if first else "",
        assessed.state if assessed else "",
        f"{assessed.certainty:.2f}" if assessed else "",
    )


def shares(scenarios: Sequence[Scenario]) -> str:
    """How often the expected component was first, and among the first three."""
    ranks = [one.rank for one in scenarios if one.expected is not None]
    if not ranks:
        return "nothing was expected"
    hits: Mapping[int, int] = {k: sum(rank is not None and rank <= k for rank in ranks) for k in (1, 3)}
    return ", ".join(f"top-{k} {count / len(ranks):.0%} ({count}/{len(ranks)})" for k, count in hits.items())
