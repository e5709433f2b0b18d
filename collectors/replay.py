"""Replays a recorded incident: the telemetry of a bundle, as if its source were asked.

A bundle is a directory, format ``aiops.bundle/1``. All text is UTF-8; times are ISO 8601 with a zone, or
epoch seconds where a field ends in ``_s``. Every record has the fields of its type in ``collectors.base``;
unknown fields are refused.

``bundle.json`` (required)
    ``format`` "aiops.bundle/1"; ``title`` what it is, for people; ``recorded_from`` the system or data set;
    ``incident`` ``{"start", "end"}``; ``baseline`` a list of such windows held to be normal, nearest first;
    ``seasonal`` a list of the same hours on earlier days; ``sanitised`` true where personal data and secrets are
    masked. Windows are half-open and should hold every record of the bundle.
``alert.json`` (required)
    The alert that starts the investigation, an object with the fields of ``graph.state.Alert``: ``source``,
    ``title``, ``severity``, ``service``, ``occurred_at``, ``fingerprint``, ``cycle_key``, … It holds what the
    person on call saw then, never the answer.
``logs.jsonl.gz``
    One ``LogLine`` per line: ``component``, ``at``, ``level``, ``message``, ``logger``, ``instance``,
    ``trace_id``, ``span_id``, ``count``. The order of equal times is the order in which they were written.
``metrics.jsonl.gz``
    One ``Series`` per line: ``ref`` (``source``, ``component``, ``metric``, ``statistic``, ``unit``,
    ``query``), ``epoch_s`` ascending, ``values`` as many, no NaN.
``spans.jsonl.gz``
    One ``Span`` per line: ``component``, ``trace_id``, ``span_id``, ``parent_id``, ``operation``,
    ``start_s``, ``duration_ms``, ``kind``, ``peer``, ``error``, ``instance``.
``changes.jsonl``
    One ``Change`` per line: ``component``, ``at``, ``kind``, ``title``, ``version``, ``author``, ``link``.
``statuses.jsonl``, ``documents.jsonl``, ``gaps.jsonl``
    One ``Status``, ``Document`` (a section of a runbook), ``Gap`` (what could not be seen) per line.
``topology.json``
    ``{"edges": [...]}`` of ``Edge``: ``caller``, ``callee``, ``source``.

Fields with a default may be left out. A file that is absent was not recorded: that is a Gap, never an error.
"""

import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Literal, TypeVar

from pydantic import Field, JsonValue, TypeAdapter, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from collectors._jobs import on_thread
from collectors._logs import LogDigest
from collectors._questions import words_of
from collectors.base import (
    Change,
    Check,
    Clock,
    Declared,
    Document,
    Edge,
    Gap,
    GapReason,
    LogLine,
    LogsRead,
    Model,
    Query,
    Refused,
    Scope,
    Series,
    SeriesRef,
    Span,
    Status,
    Telemetry,
    TraceRead,
    Window,
)

FORMAT: Literal["aiops.bundle/1"] = "aiops.bundle/1"
MAX_LINES = 2_000  # that answer one question; of more, equal ones become one with a count
MAX_SPANS = 1_000  # of one trace
_M = TypeVar("_M", bound=Model)
_R = TypeVar("_R")
_ALERT: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


class BundleError(ValueError):
    """The directory is no readable bundle; the text names file, line and what is wrong."""


class Manifest(Model):
    """``bundle.json``: what was recorded, and when."""

    format: Literal["aiops.bundle/1"] = FORMAT
    title: str
    recorded_from: str
    incident: Window
    baseline: tuple[Window, ...]
    seasonal: tuple[Window, ...] = ()
    sanitised: bool = False


class Topology(Model):
    """``topology.json``."""

    edges: tuple[Edge, ...] = ()


class Bundle(Model):
    """A recorded incident. ``absent`` names the files that were not recorded."""

    manifest: Manifest
    alert: dict[str, JsonValue]
    logs: tuple[LogLine, ...] = ()
    series: tuple[Series, ...] = ()
    spans: tuple[Span, ...] = ()
    changes: tuple[Change, ...] = ()
    edges: tuple[Edge, ...] = ()
    statuses: tuple[Status, ...] = ()
    documents: tuple[Document, ...] = ()
    gaps: tuple[Gap, ...] = ()
    absent: tuple[str, ...] = ()


class Settings(BaseSettings):
    """``AUTOPILOT_REPLAY_DIR``: the bundle to replay."""

    model_config = SettingsConfigDict(
        env_prefix="AUTOPILOT_REPLAY_", env_file=".env", env_ignore_empty=True, extra="ignore"
    )

    dir: Path | None = Field(default=None, description="The directory of the recorded bundle")


def create(clock: Clock, declared: Declared) -> "ReplayCollector":
    """The collector of the bundle that the settings name. Raises ValueError if there is no readable one."""
    directory = Settings().dir
    if directory is None:
        raise ValueError("The collector 'replay' needs AUTOPILOT_REPLAY_DIR: the directory of a recorded bundle.")
    return ReplayCollector(load_bundle(directory))


class ReplayCollector:
    """Answers every scope from one recording, whatever services the scope names."""

    name = "replay"
    timeout_s = 30.0

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle

    @property
    def manifest(self) -> Manifest:
        """What was recorded; its windows are the only ones that can be asked for."""
        return self._bundle.manifest

    async def collect(self, scope: Scope) -> Telemetry:
        """What was recorded within the scope's windows; changes also from between them, as they act later."""
        bundle, windows = self._bundle, (scope.incident, *scope.baseline, *scope.seasonal)
        whole = Window(start=min(w.start for w in windows), end=max(w.end for w in windows))
        logs = tuple(line for line in bundle.logs if _within(line.at, windows))
        series = tuple(_clip(bundle.series, windows))
        spans = tuple(s for s in bundle.spans if _within_s(s.start_s, windows))
        changes = tuple(c for c in bundle.changes if _within(c.at, [whole]))
        query = Query(
            source=self.name,
            text=f"{bundle.manifest.title} ({bundle.manifest.recorded_from})",
            start=whole.start,
            end=whole.end,
            rows=len(logs) + len(series) + len(spans) + len(changes),
        )
        return Telemetry(
            source=self.name,
            queries=(query,),
            logs=logs,
            series=series,
            spans=spans,
            changes=changes,
            edges=bundle.edges,
            statuses=bundle.statuses,
            documents=bundle.documents,
            gaps=(*bundle.gaps, *self._gaps(query.rows)),
        )

    async def measure(self, refs: Sequence[SeriesRef], window: Window) -> list[Series]:
        """What was recorded of them in the window, whatever source it was recorded from; after its end nothing."""
        wanted = set(refs)
        return list(_clip((one for one in self._bundle.series if one.ref in wanted), [window]))

    @property
    def reads(self) -> frozenset[Literal["logs", "trace"]]:
        """What was recorded."""
        kinds: dict[Literal["logs", "trace"], object] = {"logs": self._bundle.logs, "trace": self._bundle.spans}
        return frozenset(kind for kind, recorded in kinds.items() if recorded)

    async def read(self, question: LogsRead | TraceRead, scope: Scope) -> Telemetry:
        """See collectors.base.Collector."""
        if question.kind not in self.reads:
            raise Refused(f"the recording has no {question.kind}")
        if isinstance(question, TraceRead):
            return await on_thread(self._trace, question.trace_id, scope)
        return await on_thread(self._lines, question.component, words_of(question), scope)

    def _lines(self, component: str, words: str, scope: Scope) -> Telemetry:
        windows, wanted = (scope.incident, *scope.baseline), words.casefold()
        digest = LogDigest(MAX_LINES, windows)
        digest.extend(
            line
            for line in self._bundle.logs
            if line.component == component and _within(line.at, windows) and wanted in line.message.casefold()
        )
        query = self._asked(f'lines of {component} that hold "{words}"', scope, digest.taken)
        return Telemetry(source=self.name, queries=(query,), logs=tuple(digest.lines()))

    def _trace(self, trace_id: str, scope: Scope) -> Telemetry:
        spans = [span for span in self._bundle.spans if span.trace_id == trace_id]
        query = self._asked(f"spans of trace {trace_id}", scope, len(spans))
        query = query.model_copy(update={"truncated": len(spans) > MAX_SPANS})
        return Telemetry(source=self.name, queries=(query,), spans=tuple(spans[:MAX_SPANS]))

    def _asked(self, text: str, scope: Scope, rows: int) -> Query:
        start, end = min(w.start for w in (scope.incident, *scope.baseline)), scope.incident.end
        told = f"{self._bundle.manifest.title} ({self._bundle.manifest.recorded_from}): {text}"
        return Query(source=self.name, text=told, start=start, end=end, rows=rows)

    async def check(self) -> list[Check]:
        """That the bundle was read."""
        return [Check(name="bundle", status="ok", detail=self._bundle.manifest.title)]

    async def aclose(self) -> None:
        """Nothing to release."""

    def _gaps(self, rows: int) -> Iterator[Gap]:
        for name in self._bundle.absent:
            yield Gap(source=self.name, reason=GapReason.EMPTY, detail=f"{name} is not part of the recording")
        if not rows:
            yield Gap(
                source=self.name,
                reason=GapReason.EMPTY,
                detail="nothing was recorded in the windows of this incident",
                mend=f"the recorded incident starts at {self._bundle.manifest.incident.start.isoformat()}",
            )


def _within(at: datetime, windows: Iterable[Window]) -> bool:
    return any(w.start <= at < w.end for w in windows)


def _within_s(epoch_s: float, windows: Iterable[Window]) -> bool:
    return any(w.start.timestamp() <= epoch_s < w.end.timestamp() for w in windows)


def _clip(series: Iterable[Series], windows: Sequence[Window]) -> Iterator[Series]:
    for one in series:
        points = [p for p in zip(one.epoch_s, one.values, strict=True) if _within_s(p[0], windows)]
        if points:
            epoch_s, values = zip(*points, strict=True)
            yield Series(ref=one.ref, epoch_s=epoch_s, values=values)


# --- reading ------------------------------------------------------------------------------------------------


def load_bundle(directory: Path) -> Bundle:
    """Read a bundle whole. Raises BundleError."""
    if not directory.is_dir():
        raise BundleError(f"{directory} is no directory")
    topology = _document(directory / "topology.json", Topology)
    logs = _records(directory / "logs.jsonl.gz", LogLine)
    series = _records(directory / "metrics.jsonl.gz", Series)
    spans = _records(directory / "spans.jsonl.gz", Span)
    changes = _records(directory / "changes.jsonl", Change)
    recorded = {
        "logs.jsonl.gz": logs,
        "metrics.jsonl.gz": series,
        "spans.jsonl.gz": spans,
        "changes.jsonl": changes,
        "topology.json": topology,
    }
    _check_series(directory / "metrics.jsonl.gz", series or ())
    return Bundle(
        manifest=_required(directory / "bundle.json", Manifest),
        alert=_alert(directory / "alert.json"),
        logs=logs or (),
        series=series or (),
        spans=spans or (),
        changes=changes or (),
        edges=topology.edges if topology else (),
        statuses=_records(directory / "statuses.jsonl", Status) or (),
        documents=_records(directory / "documents.jsonl", Document) or (),
        gaps=_records(directory / "gaps.jsonl", Gap) or (),
        absent=tuple(name for name, content in recorded.items() if content is None),
    )


def _required(path: Path, model: type[_M]) -> _M:
    document = _document(path, model)
    if document is None:
        raise BundleError(f"{path} is missing: this is no {FORMAT} bundle")
    return document


def _document(path: Path, model: type[_M]) -> _M | None:
    if not path.exists():
        return None
    try:
        return model.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise BundleError(f"{path}: {_first(error)}") from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None


def _alert(path: Path) -> dict[str, JsonValue]:
    try:
        return _ALERT.validate_json(path.read_bytes())
    except ValidationError as error:
        raise BundleError(f"{path}: {_first(error)}") from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None


def _records(path: Path, kind: type[_R]) -> tuple[_R, ...] | None:
    if not path.exists():
        return None
    adapter, number = TypeAdapter(kind), 0
    records: list[_R] = []
    try:
        for line in _lines(path):
            number += 1
            if line.strip():
                records.append(adapter.validate_json(line))
    except ValidationError as error:
        raise BundleError(f"{path}, line {number}: {_first(error)}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise BundleError(f"{path}, after line {number}: not readable ({error})") from None
    return tuple(records)


def _lines(path: Path) -> Iterator[bytes]:
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        yield from file


def _check_series(path: Path, series: Sequence[Series]) -> None:
    for number, one in enumerate(series, start=1):
        if len(one.epoch_s) != len(one.values):
            raise BundleError(f"{path}, record {number}: epoch_s and values differ in length")
        if any(a >= b for a, b in zip(one.epoch_s, one.epoch_s[1:], strict=False)):
            raise BundleError(f"{path}, record {number}: epoch_s does not ascend")


def _first(error: ValidationError) -> str:
    details = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in details["loc"])
    # pydantic tells of a field that a dataclass does not have as of an argument: it is a field of a file here
    told = "Extra inputs are not permitted" if details["type"] == "unexpected_keyword_argument" else details["msg"]
    return f"{where}: {told}" if where else told


# --- writing ------------------------------------------------------------------------------------------------


def write_bundle(
    directory: Path,
    manifest: Manifest,
    alert: Mapping[str, JsonValue],
    *,
    logs: Iterable[LogLine] = (),
    series: Iterable[Series] = (),
    spans: Iterable[Span] = (),
    changes: Iterable[Change] = (),
    edges: Iterable[Edge] = (),
    statuses: Iterable[Status] = (),
    documents: Iterable[Document] = (),
    gaps: Iterable[Gap] = (),
) -> Path:
    """Write a bundle, record by record, so that it need not fit in memory; equal input gives equal bytes.

    ``bundle.json`` comes last: a directory without it is no finished bundle. Raises OSError.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _write_records(directory / "logs.jsonl.gz", LogLine, logs)
    _write_records(directory / "metrics.jsonl.gz", Series, series)
    _write_records(directory / "spans.jsonl.gz", Span, spans)
    _write_records(directory / "changes.jsonl", Change, changes)
    _write_records(directory / "statuses.jsonl", Status, statuses)
    _write_records(directory / "documents.jsonl", Document, documents)
    _write_records(directory / "gaps.jsonl", Gap, gaps)
    _write_text(directory / "topology.json", Topology(edges=tuple(edges)).model_dump_json(indent=2))
    _write_text(directory / "alert.json", json.dumps(dict(alert), ensure_ascii=False, indent=2))
    _write_text(directory / "bundle.json", manifest.model_dump_json(indent=2))
    return directory


def _write_text(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")


def _write_records(path: Path, kind: type[_R], records: Iterable[_R]) -> None:
    with path.open("wb") as raw:
        if path.suffix == ".gz":
            # no name and no time in the header: the bytes depend on the records only
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed:
                _dump(io.BufferedWriter(packed, 1 << 16), kind, records)
        else:
            _dump(raw, kind, records)


def _dump(file: IO[bytes] | io.BufferedWriter, kind: type[_R], records: Iterable[_R]) -> None:
    adapter = TypeAdapter(kind)
    for record in records:
        file.write(adapter.dump_json(record, exclude_defaults=True) + b"\n")
    file.flush()
