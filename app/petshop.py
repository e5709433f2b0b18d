"""The PetShop data set (CLeaR 2024, CC-BY-4.0) as incidents: metrics of AWS services and their call graph.

A scenario is a folder with ``graph.csv`` (an adjacency matrix, the row calls the column), ``noissue/metrics.csv``
(a normal history) and ``train`` and ``test`` with ``issue_N/{metrics.csv,target.json}``. ``metrics.csv`` has three
header rows (node, metric, statistic), then rows of five minutes: unix time, values; an empty cell means no requests.
The first row of an issue lies before its incident. The root cause in ``target.json`` is for scoring and is not read.
"""

import csv
import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import nan
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.evaluation import Case, Outcome, outcome
from collectors.base import Edge, Floats, Measures, Scope, Series, SeriesRef, Telemetry, Window, utc
from graph.state import Alert

SCENARIOS = ("low_traffic", "high_traffic", "temporal_traffic1", "temporal_traffic2")
SPLITS = ("train", "test")
SOURCE = "petshop"
STEP_S = 300.0  # a row tells of the five minutes from its time on
_LATEST_S = 32_503_680_000.0  # the year 3000: what lies later is no time
_MEASURES: dict[str, tuple[Measures, str]] = {
    "latency": ("latency", "s"),
    "availability": ("success", "%"),
    "requests": ("requests", "count"),
}
_STATISTICS = {"average": "avg", "maximum": "max", "minimum": "min"}  # CloudWatch's words for ours

Array = NDArray[np.float64]
_L = TypeVar("_L", float, "Column")


class PetshopError(ValueError):
    """The data is not as PetShop lays it out; the text says what is missing, and where."""


class Column(NamedTuple):
    """What one column of ``metrics.csv`` is."""

    node: str
    metric: str
    statistic: str


@dataclass(frozen=True)
class Frame:
    """One ``metrics.csv``: ``values[i, j]`` is column j at time i, NaN for none; times and columns ascend."""

    columns: tuple[Column, ...]
    epoch_s: Array
    values: Array

    @classmethod
    def read(cls, path: Path) -> "Frame":
        """Rows and columns may come in any order; several of one time, or of one column, become their mean.

        Raises PetshopError.
        """
        rows = _rows(path)
        columns = [Column(*head) for head in zip(*(row[1:] for row in rows[:3]), strict=False)] if rows[3:] else []
        body = [(at, row) for row in rows[3:] if row and (at := _moment(row[0])) is not None]
        if not columns or not body:
            raise PetshopError(f"{path}: three header rows (node, metric, statistic) and a row of values are needed")
        values = np.array([_numbers(row[1:], len(columns)) for _, row in body])
        values[~np.isfinite(values)] = nan
        times, values = _merged([at for at, _ in body], values)
        columns, by_column = _merged(columns, values.T)
        return cls(tuple(columns), np.array(times), by_column.T)

    def outside(self, start_s: float, end_s: float) -> "Frame":
        """The rows before and after that time."""
        kept = (self.epoch_s < start_s) | (self.epoch_s >= end_s)
        return self if kept.all() else Frame(self.columns, self.epoch_s[kept], self.values[kept])


@dataclass(frozen=True)
class Traffic:
    """What the issues of one scenario share. ``missing`` names what was not there."""

    edges: tuple[Edge, ...]
    history: Frame | None
    missing: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path) -> "Traffic":
        """What cannot be read is missing."""
        missing: list[str] = []
        edges = _readable(lambda: _edges(folder / "graph.csv"), missing) or ()
        history = _history(folder, missing)
        return cls(edges, history, tuple(missing))

    def case(self, issue: Path) -> Case:
        """The incident of an issue's folder. Raises PetshopError."""
        frame, alarm = Frame.read(issue / "metrics.csv"), _Alarm.read(issue / "target.json")
        if len(frame.epoch_s) < 2:
            raise PetshopError(f"{issue / 'metrics.csv'} needs two rows at least: one before the incident, one of it")
        before, start, end = float(frame.epoch_s[0]), float(frame.epoch_s[1]), float(frame.epoch_s[-1]) + STEP_S
        history = self.history.outside(before, end) if self.history else None
        baseline, frames = [_window(before, start)], [frame]
        if history is not None and len(history.epoch_s):
            baseline.append(_window(float(history.epoch_s[0]), float(history.epoch_s[-1]) + STEP_S))
            frames.append(history)
        incident = _window(start, end)
        occurred_at = incident.start if alarm.epoch_s is None else utc(alarm.epoch_s)
        scope = Scope(
            service=alarm.node,
            occurred_at=occurred_at,
            incident=incident,
            baseline=tuple(baseline),
            targets=(),
            edges=self.edges,
        )
        alert = Alert(
            source=SOURCE,
            title=f"{alarm.node}: {alarm.metric} ({alarm.statistic})",
            service=alarm.node,
            occurred_at=occurred_at,
            fingerprint=f"{SOURCE}:{alarm.node}:{alarm.metric}",
            cycle_key=f"{SOURCE}:{alarm.node}:{alarm.metric}:{start:.0f}",
        )
        return Case((Telemetry(source=SOURCE, series=tuple(_series(_joined(frames)))),), scope, alert)


class _Alarm(NamedTuple):
    """What raised the alarm, and when, if that is told."""

    node: str
    metric: str
    statistic: str
    epoch_s: float | None

    @classmethod
    def read(cls, path: Path) -> "_Alarm":
        try:
            target = json.loads(path.read_bytes())["target"]
            node, metric, statistic, at = (target.get(name) for name in ("node", "metric", "agg", "timestamp"))
        except OSError as error:
            raise PetshopError(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise PetshopError(f"{path} holds no target (node, metric, agg, timestamp)") from None
        if not isinstance(node, str) or not node:
            raise PetshopError(f"{path}: target.node is no name")
        return cls(node, str(metric or ""), str(statistic or ""), _moment(str(at)))


# --- the data set ---------------------------------------------------------------------------------------------


def issues(directory: Path, scenarios: Sequence[str], splits: Sequence[str]) -> tuple[dict[str, Path], list[str]]:
    """Folders of issues by case, e.g. ``low_traffic/train/issue_0``, and what of it is not there.

    Raises PetshopError where there is nothing at all.
    """
    if strange := sorted(set(scenarios) - set(SCENARIOS)):
        raise PetshopError(f"there is no scenario {strange[0]!r}; there are: {', '.join(SCENARIOS)}")
    found: dict[str, Path] = {}
    absent = []
    for part in (f"{scenario}/{split}" for scenario in dict.fromkeys(scenarios) for split in splits):
        here = {f"{part}/{folder.name}": folder for folder in directory.glob(f"{part}/issue_*") if folder.is_dir()}
        found |= dict(sorted(here.items()))
        if not here:
            absent.append(part)
    if not found:
        raise PetshopError(f"{directory} holds none of {', '.join(absent)}; name the folder that holds the scenarios")
    return found, absent


def outcomes(found: dict[str, Path], missing: list[str]) -> Iterator[Outcome]:
    """Each issue ranked; a scenario's graph and history are read once. What it lacks is added to ``missing``."""
    known: dict[Path, Traffic] = {}
    for name, folder in found.items():
        scenario = folder.parents[1]
        if scenario not in known:
            known = {scenario: Traffic.read(scenario)}
            missing.extend(known[scenario].missing)
        yield outcome(name, partial(known[scenario].case, folder), PetshopError)


# --- files ----------------------------------------------------------------------------------------------------

_T = TypeVar("_T")


def _readable(read: Callable[[], _T], missing: list[str]) -> _T | None:
    try:
        return read()
    except PetshopError as error:
        missing.append(str(error))
        return None


def _history(folder: Path, missing: list[str]) -> Frame | None:
    """All normal rows of a scenario; some keep them deeper in the folder."""
    files = sorted(folder.glob("noissue*/**/metrics.csv")) or sorted(folder.glob("*/noissue*/**/metrics.csv"))
    frames = [frame for file in files if (frame := _readable(partial(Frame.read, file), missing)) is not None]
    if not frames:
        missing.append(f"{folder / 'noissue'} has no metrics.csv: compared with the row before the incident only")
    return _joined(frames) if frames else None


def _joined(frames: Sequence[Frame]) -> Frame:
    """All their rows and columns; there is one frame at least."""
    if len(frames) == 1:
        return frames[0]
    columns = sorted({column for frame in frames for column in frame.columns})
    place = {column: j for j, column in enumerate(columns)}
    parts = []
    for frame in frames:
        wide = np.full((len(frame.epoch_s), len(columns)), nan)
        wide[:, [place[column] for column in frame.columns]] = frame.values
        parts.append(wide)
    times, values = _merged([at for frame in frames for at in frame.epoch_s.tolist()], np.vstack(parts))
    return Frame(tuple(columns), np.array(times), values)


def _rows(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            return list(csv.reader(file))
    except OSError as error:
        raise PetshopError(f"{path} cannot be read: {error.strerror}") from None
    except csv.Error as error:
        raise PetshopError(f"{path} is no readable CSV: {error}") from None


def _edges(path: Path) -> tuple[Edge, ...]:
    rows = _rows(path)
    callees = rows[0][1:] if rows else []
    calls = {
        (row[0], callee)
        for row in rows[1:]
        for callee, cell in zip(callees, row[1:], strict=False)
        if row[0] and callee and _number(cell) > 0
    }
    return tuple(Edge(caller=caller, callee=callee, source="graph") for caller, callee in sorted(calls))


def _number(text: str) -> float:
    """NaN for what is no number."""
    try:
        return float(text) if text else nan
    except ValueError:
        return nan


def _numbers(cells: Sequence[str], count: int) -> list[float]:
    """So many; cells that a torn row lacks have no value."""
    numbers = [_number(cell) for cell in cells[:count]]
    return numbers + [nan] * (count - len(numbers))


def _moment(text: str) -> float | None:
    """Epoch seconds; None for what is no time."""
    number = _number(text)
    return number if 0 <= number < _LATEST_S else None


def _merged(labels: Sequence[_L], rows: Array) -> tuple[list[_L], Array]:
    """Rows in the order of their labels; those of one label become their mean, of the values there are."""
    places: dict[_L, list[int]] = {}
    for index, label in enumerate(labels):
        places.setdefault(label, []).append(index)
    ordered = sorted(places)
    merged = rows[[places[label][0] for label in ordered]]
    for index, label in enumerate(ordered):
        if len(places[label]) > 1:
            merged[index] = _mean(rows[places[label]])
    return ordered, merged


def _mean(rows: Array) -> Array:
    """Of each column, its NaN left out; the same in whatever order the rows come."""
    values = np.sort(rows, axis=0)
    counts = np.isfinite(values).sum(axis=0)
    return np.where(counts, np.nansum(values, axis=0) / np.maximum(counts, 1), nan)


# --- series ---------------------------------------------------------------------------------------------------


def _series(frame: Frame) -> Iterator[Series]:
    """One of each column that has a value."""
    by_column = np.ascontiguousarray(frame.values.T)
    for column, values, there in zip(frame.columns, by_column, np.isfinite(by_column), strict=True):
        if there.any():
            yield Series(ref=_ref(column), epoch_s=_packed(frame.epoch_s[there]), values=_packed(values[there]))


def _packed(numbers: Array) -> Floats:
    return Floats(array("d", numbers.tobytes()))


def _ref(column: Column) -> SeriesRef:
    measures, unit = _MEASURES.get(column.metric.lower(), ("", ""))
    return SeriesRef(
        source=SOURCE,
        component=column.node,
        metric=column.metric,
        statistic=_STATISTICS.get(column.statistic.lower(), column.statistic.lower()),
        unit=unit,
        query=" | ".join(column),
        measures=measures,
    )


def _window(start_s: float, end_s: float) -> Window:
    return Window(start=utc(start_s), end=utc(end_s))
