"""Recorded incidents through the same ``rank`` as production: one bundle, or a whole data set of cases."""

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from app.terminal import printable
from collectors.base import Scope, Telemetry
from collectors.replay import Bundle, ReplayCollector
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
        alert, recording = alert_of(bundle), bundle.manifest
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


def alert_of(bundle: Bundle) -> Alert:
    """What started the investigation. Raises EvaluationError."""
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
    started = time.perf_counter()
    try:
        case = read()
    except unreadable as error:
        return Outcome(name, complaint=str(error))
    loaded = time.perf_counter()
    evidence = case.ranked()
    ended = time.perf_counter()
    return Outcome(name, names(evidence), ended - started, ended - loaded)


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
