"""Imports a fault of the Nezha TrainTicket data (FSE'23, MIT) as a recorded bundle.

For each day there is a *construct* minute that is held to be normal, and for each injected fault the minutes
around it. A bundle takes its baseline from the construct minute and its incident from the minute of
injection plus ``minute`` (2 in the published protocol). The broken service and the fault are not in it.

Clocks, as measured on the data: the ``Timestamp`` text of logs (UTC), the nanoseconds of spans and the
``TimeStamp`` of metrics agree. ``TimeUnixNano`` of logs agrees too, except in rows that carry Go's zero time
(22:43:41 in the year 1754), so the text is what is read. What is 8 hours off are local times inside messages
and ``inject_timestamp`` in the list of faults; neither is used.
Files are named after the minute in which they end, roughly: windows come from the records, not from the name.
"""

import csv
import json
import re
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path, PurePosixPath

from pydantic import JsonValue

from app.evaluation import Case, Outcome, outcome
from collectors.base import Edge, Level, LogLine, Series, SeriesRef, Span, Window, utc
from collectors.replay import Bundle, Manifest, write_bundle

MINUTE = 2
_CASE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
_HEAD = re.compile(
    r"^\S+\s+(?P<level>TRACE|DEBUG|INFO|WARN|ERROR|FATAL)\s+(?P<logger>\S+)\s+"
    r"(?:TraceID:\s*\w*\s+SpanID:\s*\w*\s*)?(?P<message>.*)$",
    re.DOTALL,
)
_LEVELS: dict[str, Level] = {
    "TRACE": "debug",
    "DEBUG": "debug",
    "INFO": "info",
    "WARN": "warning",
    "ERROR": "error",
    "FATAL": "critical",
}
_COLUMN = re.compile(r"^(?P<metric>.+?)(?:P(?P<percentile>\d\d))?(?:\((?P<unit>[^)]*)\))?$")
_NOT_METRICS = {"Time", "TimeStamp", "PodName", "ServiceName"}


class NezhaError(ValueError):
    """The data is not as the Nezha repository lays it out; the text says what is missing."""


def cases(archive_or_dir: Path) -> list[str]:
    """Ids of all faults, which are their injection times, e.g. ``2023-01-29 08:43:04``. Raises NezhaError."""
    with _extracted(archive_or_dir, lambda path: path.name.endswith("-fault_list.json")) as root:
        ids = _case_ids(root)
    if not ids:
        raise NezhaError(f"{archive_or_dir} holds no list of faults (rca_data/DATE/DATE-fault_list.json)")
    return sorted(ids)


def import_case(archive_or_dir: Path, case_id: str, out: Path, *, minute: int = MINUTE) -> Path:
    """Write the bundle of one fault into ``out``; ``minute`` counts from the injection.

    Raises NezhaError.
    """
    injected = _injected(case_id)
    with _extracted(archive_or_dir, _wanted(injected, minute)) as root:
        if case_id not in _case_ids(root):
            raise NezhaError(f"{case_id!r} is no case of {archive_or_dir}; --list prints them")
        return _import(root, injected, minute, out)


def _injected(case_id: str) -> datetime:
    try:
        if _CASE.fullmatch(case_id):
            return datetime.fromisoformat(case_id).replace(tzinfo=UTC)
    except ValueError:
        pass
    raise NezhaError(f"{case_id!r} is no case: write the time of injection, e.g. 2023-01-29 08:43:04")


def _import(root: Path, injected: datetime, minute: int, out: Path) -> Path:
    bundle = Day.read(root, _date(injected)).bundle(injected, minute)
    try:
        return write_bundle(
            out,
            bundle.manifest,
            bundle.alert,
            logs=bundle.logs,
            series=bundle.series,
            spans=bundle.spans,
            edges=bundle.edges,
        )
    except OSError as error:
        raise NezhaError(f"{out} cannot be written: {error.strerror}") from None


def _date(injected: datetime) -> str:
    return f"{injected:%Y-%m-%d}"


@dataclass(frozen=True)
class Day:
    """What all faults of one day share: its construct minute, where requests come in, the metrics of the day."""

    root: Path
    date: str
    normal: "Minute"
    entry: str
    metrics: Sequence["PodMetrics"]

    @classmethod
    def read(cls, root: Path, date: str) -> "Day":
        """Raises NezhaError."""
        normal = Minute.read(root / "construct_data" / date, _construct_minute(root, date))
        return cls(root, date, normal, _entry_service(normal), _day_metrics(root / "rca_data" / date / "metric"))

    def bundle(self, injected: datetime, minute: int) -> Bundle:
        """The fault of that injection, seen so many minutes later. Raises NezhaError."""
        stamp = f"{injected + timedelta(minutes=minute):%H_%M}"
        fault = Minute.read(self.root / "rca_data" / self.date, stamp)
        halves = (self.normal, fault)
        windows = [half.window for half in halves]
        series = [one for pod in self.metrics for one in pod.series(self.entry, windows)]
        baseline, incident = (_holding(window, series) for window in windows)
        manifest = Manifest(
            title=f"TrainTicket, {incident.start:%Y-%m-%d %H:%M} UTC",
            recorded_from=f"Nezha TrainTicket data, {self.date}",
            incident=incident,
            baseline=(baseline,),
        )
        return Bundle(
            manifest=manifest,
            alert=_alert(self.entry, incident.start),
            logs=tuple(line for half in halves for line in half.logs),
            series=tuple(series),
            spans=tuple(span for half in halves for span in half.spans),
            edges=tuple(_edges(halves)),
        )


# --- evaluation ---------------------------------------------------------------------------------------------


@contextmanager
def unpacked(archive_or_dir: Path, days: Sequence[str]) -> Iterator[tuple[Path, list[str]]]:
    """A folder with the data of these days (none named: all), and the ids of their faults. Raises NezhaError."""
    with _extracted(archive_or_dir, _of_days(days)) as root:
        ids = sorted(_case_ids(root))
        there = sorted({case[:10] for case in ids})
        if not there:
            dates = f" of {', '.join(days)}" if days else ""
            raise NezhaError(f"{archive_or_dir} holds no list of faults{dates} (rca_data/DATE/DATE-fault_list.json)")
        if absent := sorted(set(days) - set(there)):
            raise NezhaError(f"{archive_or_dir} has no faults of {absent[0]}; it has: {', '.join(there)}")
        yield root, [case for case in ids if not days or case[:10] in days]


def _of_days(days: Sequence[str]) -> Callable[[PurePosixPath], bool]:
    def wanted(path: PurePosixPath) -> bool:
        if len(path.parts) < 3:
            return False
        of_day = not days or path.parts[1] in days
        kinds = ("log", "trace", "metric") if path.parts[0] == "rca_data" else ("log", "trace")
        data = path.suffix == ".csv" and path.parent.name in kinds
        return of_day and (data or path.name.endswith("-fault_list.json"))

    return wanted


def outcomes(root: Path, ids: Sequence[str], minute: int, jobs: int) -> Iterator[Outcome]:
    """Each fault ranked, as soon as it is, on so many cores; a day's construct minute is read once in each process.

    Raises NezhaError.
    """
    # spawned, not forked: a progress bar's thread may hold a lock at any time
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _start, (root,))
    try:
        for done in as_completed([pool.submit(_outcome, case, minute) for case in ids]):
            yield done.result()
    except BrokenProcessPool:
        raise NezhaError("a process died, probably for lack of memory; try again with fewer --jobs") from None
    finally:
        pool.shutdown(cancel_futures=True)


def case(root: Path, case_id: str, minute: int = MINUTE) -> Case:
    """One fault of an unpacked data set. Raises NezhaError."""
    return _Days(root).case(case_id, minute)


class _Days:
    """The last day that was read, in a process of the pool."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._day: Day | None = None

    def case(self, case_id: str, minute: int) -> Case:
        injected = _injected(case_id)
        if self._day is None or self._day.date != _date(injected):
            self._day = Day.read(self._root, _date(injected))
        return Case.of(self._day.bundle(injected, minute))


_days: _Days


def _start(root: Path) -> None:
    global _days
    _days = _Days(root)


def _outcome(case_id: str, minute: int) -> Outcome:
    return outcome(case_id, partial(_days.case, case_id, minute), NezhaError)


# --- archive ------------------------------------------------------------------------------------------------


@contextmanager
def _extracted(source: Path, wanted: Callable[[PurePosixPath], bool]) -> Iterator[Path]:
    """The directory itself, or a temporary one with the wanted regular files of the archive."""
    if source.is_dir():
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="nezha-") as directory:
        _extract(source, wanted, Path(directory))
        yield Path(directory)


def _extract(source: Path, wanted: Callable[[PurePosixPath], bool], target: Path) -> None:
    try:
        with tarfile.open(source, "r|*") as archive:
            for member in archive:
                if member.isreg() and wanted(PurePosixPath(member.name)):
                    archive.extract(member, target, filter="data")
    except (tarfile.TarError, EOFError) as error:
        raise NezhaError(f"{source} is no readable tar archive: {error}") from None
    except OSError as error:
        raise NezhaError(f"{source} cannot be read: {error.strerror}") from None


def _wanted(injected: datetime, minute: int) -> Callable[[PurePosixPath], bool]:
    day, stamp = f"{injected:%Y-%m-%d}", f"{injected + timedelta(minutes=minute):%H_%M}"

    def wanted(path: PurePosixPath) -> bool:
        if path.name == f"{day}-fault_list.json":
            return True
        if path.parts[1:2] != (day,) or path.suffix != ".csv":
            return False
        if path.parts[0] == "construct_data":
            return path.parent.name in ("log", "trace")
        return path.parent.name == "metric" or path.name in (f"{stamp}_log.csv", f"{stamp}_trace.csv")

    return wanted


def _case_ids(root: Path) -> set[str]:
    return {case for file in root.glob("rca_data/*/*-fault_list.json") for case in _inject_times(file)}


def _inject_times(file: Path) -> list[str]:
    try:
        times = [fault["inject_time"] for faults in json.loads(file.read_bytes()).values() for fault in faults]
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
        times = [None]
    if not all(isinstance(one, str) for one in times):
        raise NezhaError(f"{file} is no list of faults")
    return times


def _construct_minute(root: Path, day: str) -> str:
    files = sorted((root / "construct_data" / day / "trace").glob("*_trace.csv"))
    if not files:
        raise NezhaError(f"no construct minute of {day} in {root}")
    return files[0].name.removesuffix("_trace.csv")


# --- logs and traces ----------------------------------------------------------------------------------------


@dataclass
class Minute:
    """The logs and spans of one pair of files."""

    logs: list[LogLine]
    rows: list[list[str]]  # of the trace file
    service: dict[str, str] = field(default_factory=dict)  # by span id
    callee: dict[str, str] = field(default_factory=dict)  # by id of the calling span

    @classmethod
    def read(cls, directory: Path, stamp: str) -> "Minute":
        """Raises NezhaError."""
        logs = sorted(_log_lines(directory / "log" / f"{stamp}_log.csv"), key=lambda line: line[0])
        rows = [row for row in _rows(directory / "trace" / f"{stamp}_trace.csv", 8) if _is_time(row[5], row[6])]
        if not rows:
            raise NezhaError(f"{directory}: minute {stamp} has no spans")
        one = cls(logs=[line for _, line in logs], rows=rows)
        one.service = {row[1]: service_of(row[3]) for row in rows}
        for caller, callee, parent in one.calls():
            if caller != callee:
                one.callee[parent] = callee
        return one

    @property
    def window(self) -> Window:
        """From the first record to the last, in whole seconds."""
        starts = [int(row[5]) / 1e9 for row in self.rows] + [line.at.timestamp() for line in self.logs]
        return Window(start=utc(float(int(min(starts)))), end=utc(float(int(max(starts)) + 1)))

    def calls(self) -> Iterator[tuple[str, str, str]]:
        """(caller, callee, id of the calling span) of each span whose parent is in the file."""
        for row in self.rows:
            if row[2] in self.service:
                yield self.service[row[2]], self.service[row[1]], row[2]

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """The spans; the data has no status, so ``error`` stays empty."""
        return tuple(self._spans())

    def _spans(self) -> Iterator[Span]:
        for trace_id, span_id, parent, pod, operation, start, end, *_ in self.rows:
            service, caller = self.service[span_id], self.service.get(parent)
            peer = self.callee.get(span_id, "")
            entered = parent == "root" or caller not in (None, service)
            yield Span(
                component=service,
                trace_id=trace_id,
                span_id=span_id,
                parent_id="" if parent == "root" else parent,
                operation=operation,
                start_s=int(start) / 1e9,
                duration_ms=(int(end) - int(start)) / 1e6,
                kind="server" if entered else "client" if peer else "internal",
                peer=peer,
                instance=pod,
            )


def _is_time(*texts: str) -> bool:
    """Nanoseconds since 1970, before 2286: 19 digits."""
    return all(text.isdecimal() and len(text) <= 19 for text in texts)


def service_of(pod: str) -> str:
    """``ts-seat-service-5c95b49cff-tdsdz`` is a pod of ``ts-seat-service``."""
    return pod.rsplit("-", 2)[0]


def _rows(path: Path, fields: int) -> Iterator[list[str]]:
    """The rows after the header that have at least so many fields; torn rows carry more, and are kept."""
    return (row for row in islice(_table(path), 1, None) if len(row) >= fields)


def _table(path: Path) -> Iterator[list[str]]:
    """The header and all rows. Raises NezhaError."""
    if not path.is_file():
        raise NezhaError(f"{path} is missing")
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            yield from csv.reader(file)
    except OSError as error:
        raise NezhaError(f"{path} cannot be read: {error.strerror}") from None
    except csv.Error as error:
        raise NezhaError(f"{path} is no readable CSV: {error}") from None


def _log_lines(path: Path) -> Iterator[tuple[str, LogLine]]:
    """(time to the nanosecond, line). A line whose text cannot be told is left out."""
    for at, _, _, pod, _, trace_id, span_id, text, *_ in _rows(path, 8):
        try:
            # raw_decode: one torn row has the rest of another one after its JSON
            record, _ = json.JSONDecoder().raw_decode(text)
            head = _HEAD.match(record["log"].rstrip("\n"))
            moment = datetime.fromisoformat(at)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)  # a few rows lack the Z of all others
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        yield (
            _sortable(at),
            LogLine(
                component=service_of(pod),
                at=moment,
                level=_LEVELS[head["level"]] if head else "info",
                message=head["message"] if head else record["log"].rstrip("\n"),
                logger=head["logger"] if head else "",
                instance=pod,
                trace_id=trace_id,
                span_id=span_id,
            ),
        )


def _sortable(at: str) -> str:
    """The time as written, its fraction padded: Go drops trailing zeros."""
    seconds, _, fraction = at.removesuffix("Z").partition(".")
    return f"{seconds}.{fraction:0<9}"


def _edges(minutes: Iterable[Minute]) -> list[Edge]:
    pairs = {(caller, callee) for one in minutes for caller, callee, _ in one.calls() if caller != callee}
    return [Edge(caller=caller, callee=callee, source="traces") for caller, callee in sorted(pairs)]


def _entry_service(normal: Minute) -> str:
    """The service where requests come in: the one with most root spans in the normal minute."""
    roots = Counter(service_of(row[3]) for row in normal.rows if row[2] == "root")
    if not roots:
        raise NezhaError("the construct minute has no root span")
    return min(roots, key=lambda service: (-roots[service], service))


def _alert(entry: str, at: datetime) -> dict[str, JsonValue]:
    key = f"{entry}:{at:%Y%m%dT%H%M%S}"
    return {
        "source": "replay",
        "title": f"{entry}: requests fail or are slow",
        "severity": "critical",
        "service": entry,
        "occurred_at": at.isoformat(),
        "fingerprint": f"replay:{entry}",
        "cycle_key": f"replay:{key}",
    }


# --- metrics ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PodMetrics:
    """One metric file: its columns, and its rows by their stamp in epoch seconds."""

    path: Path
    columns: Sequence[str]
    rows: Mapping[int, Sequence[str]]

    @classmethod
    def read(cls, path: Path) -> "PodMetrics":
        """Raises NezhaError."""
        rows = _table(path)
        head = next(rows, [])
        if "TimeStamp" not in head:
            raise NezhaError(f"{path} has no column TimeStamp")
        stamp = head.index("TimeStamp")
        return cls(path, head, {int(row[stamp]): row for row in rows if len(row) > stamp and _is_time(row[stamp])})

    def series(self, entry: str, windows: Sequence[Window]) -> Iterator[Series]:
        """What it tells of these windows."""
        rows = [(float(at), row) for at, row in sorted(self.rows.items()) if _covered(at, windows)]
        for index, name in enumerate(self.columns):
            if name in _NOT_METRICS:
                continue
            points = [(at, value) for at, row in rows if (value := _number(row[index : index + 1])) is not None]
            if points:
                epoch_s, values = zip(*points, strict=True)
                yield Series(ref=_ref(self.path, name, entry), epoch_s=epoch_s, values=values)


def _day_metrics(directory: Path) -> list[PodMetrics]:
    files = sorted(directory.glob("*.csv"))
    if not files:
        raise NezhaError(f"{directory} holds no metric files")
    return [PodMetrics.read(path) for path in files]


def _covered(stamp: int, windows: Iterable[Window]) -> bool:
    """A row tells of the minute before its stamp: it belongs where the middle of that minute lies."""
    return any(w.start.timestamp() <= stamp - 30 < w.end.timestamp() for w in windows)


def _holding(window: Window, series: Sequence[Series]) -> Window:
    """The window, made longer so that the metric rows that tell of it lie inside."""
    stamps = (at for one in series for at in one.epoch_s if _covered(int(at), [window]))
    end = max(stamps, default=window.start.timestamp())
    return Window(start=window.start, end=max(window.end, utc(end + 1)))


def _number(cell: Sequence[str]) -> float | None:
    """None for what is no finite number, or not there."""
    try:
        number = float(cell[0] if cell else "nan")
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None


def _ref(path: Path, column: str, entry: str) -> SeriesRef:
    """``PodClientLatencyP90(s)`` is the 90th percentile of ``PodClientLatency`` in seconds."""
    pod = path.stem.removesuffix("_metric")
    head = _COLUMN.match(column)
    percentile = head["percentile"] if head else None
    return SeriesRef(
        source="replay",
        # front_service.csv is what users see: it has no pod; its requests come in at the entry
        component=entry if pod == "front_service" else service_of(pod),
        metric=head["metric"] if head else column,
        statistic=f"p{percentile}" if percentile else "avg",
        unit=(head["unit"] or "") if head else "",
        query=f"{path.name}: {column}",
    )
