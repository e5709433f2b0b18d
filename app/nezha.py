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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

from pydantic import JsonValue

from collectors.base import Edge, Level, LogLine, Series, SeriesRef, Span, Window, utc
from collectors.replay import Manifest, write_bundle

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
    day = f"{injected:%Y-%m-%d}"
    normal = Minute.read(root / "construct_data" / day, _construct_minute(root, day))
    fault = Minute.read(root / "rca_data" / day, f"{injected + timedelta(minutes=minute):%H_%M}")
    entry = _entry_service(normal)
    series = list(_metrics(root / "rca_data" / day / "metric", entry, (normal.window, fault.window)))
    incident, baseline = _holding(fault.window, series), _holding(normal.window, series)
    manifest = Manifest(
        title=f"TrainTicket, {incident.start:%Y-%m-%d %H:%M} UTC",
        recorded_from=f"Nezha TrainTicket data, {day}",
        incident=incident,
        baseline=(baseline,),
    )
    try:
        return write_bundle(
            out,
            manifest,
            _alert(entry, incident.start),
            logs=(line for half in (normal, fault) for line in half.logs),
            series=series,
            spans=(span for half in (normal, fault) for span in half.spans()),
            edges=_edges((normal, fault)),
        )
    except OSError as error:
        raise NezhaError(f"{out} cannot be written: {error.strerror}") from None


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
        return [fault["inject_time"] for faults in json.loads(file.read_bytes()).values() for fault in faults]
    except (ValueError, AttributeError, TypeError, KeyError):
        raise NezhaError(f"{file} is no list of faults") from None


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
        rows = [row for row in _rows(directory / "trace" / f"{stamp}_trace.csv", 8) if row[5].isdigit()]
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

    def spans(self) -> Iterator[Span]:
        """The spans; the data has no status, so ``error`` stays empty."""
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


def service_of(pod: str) -> str:
    """``ts-seat-service-5c95b49cff-tdsdz`` is a pod of ``ts-seat-service``."""
    return pod.rsplit("-", 2)[0]


def _rows(path: Path, fields: int) -> Iterator[list[str]]:
    """The rows after the header that have at least so many fields; torn rows carry more, and are kept."""
    if not path.is_file():
        raise NezhaError(f"{path} is missing")
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.reader(file)
        next(reader, None)
        yield from (row for row in reader if len(row) >= fields)


def _log_lines(path: Path) -> Iterator[tuple[str, LogLine]]:
    """(time to the nanosecond, line). A line whose text cannot be told is left out."""
    for at, _, _, pod, _, trace_id, span_id, text, *_ in _rows(path, 8):
        try:
            # raw_decode: one torn row has the rest of another one after its JSON
            record, _ = json.JSONDecoder().raw_decode(text)
            head = _HEAD.match(record["log"].rstrip("\n"))
            moment = datetime.fromisoformat(at)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)  # a few rows lack the Z of all others
        except (ValueError, KeyError, TypeError):
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


def _metrics(directory: Path, entry: str, windows: Sequence[Window]) -> Iterator[Series]:
    files = sorted(directory.glob("*.csv"))
    if not files:
        raise NezhaError(f"{directory} holds no metric files")
    for path in files:
        yield from _file_series(path, entry, windows)


def _file_series(path: Path, entry: str, windows: Sequence[Window]) -> Iterator[Series]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, restkey="_torn")
        rows = {
            int(row["TimeStamp"]): row
            for row in reader
            if (row["TimeStamp"] or "").isdigit() and _covered(int(row["TimeStamp"]), windows)
        }
        names = [name for name in reader.fieldnames or () if name not in _NOT_METRICS]
    for name in names:
        points = [(float(at), value) for at, row in sorted(rows.items()) if (value := _number(row[name])) is not None]
        if points:
            epoch_s, values = zip(*points, strict=True)
            yield Series(ref=_ref(path, name, entry), epoch_s=epoch_s, values=values)


def _covered(stamp: int, windows: Iterable[Window]) -> bool:
    """A row tells of the minute before its stamp: it belongs where the middle of that minute lies."""
    return any(w.start.timestamp() <= stamp - 30 < w.end.timestamp() for w in windows)


def _holding(window: Window, series: Sequence[Series]) -> Window:
    """The window, made longer so that the metric rows that tell of it lie inside."""
    stamps = (at for one in series for at in one.epoch_s if _covered(int(at), [window]))
    end = max(stamps, default=window.start.timestamp())
    return Window(start=window.start, end=max(window.end, utc(end + 1)))


def _number(text: str | None) -> float | None:
    """None for what is no finite number."""
    try:
        number = float(text or "nan")
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
