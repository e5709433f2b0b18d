"""Sources over HTTP that are slow, hang, fail, flood or lie, and the step that reads them, each in its own process."""

import asyncio
import json
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from pydantic import BaseModel, ValidationError

from collectors._budget import Budget, SourceSettings
from collectors._http import Api
from collectors._jobs import Job, Part, gather
from collectors.base import (
    Change,
    Check,
    GapReason,
    Level,
    LogLine,
    Query,
    Scope,
    Series,
    SeriesRef,
    Span,
    Telemetry,
    Window,
    utc,
)
from tests.collectors.raw_http import Request, answer, vendor
from tests.graph.sources import NOON, Unasked, collect, deps

ONSET = NOON - timedelta(minutes=4)
HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
GIGABYTE = 1_000_000_000
PAGE = 2_000  # rows

# --- the vendors ---


async def say(request: Request, writer: asyncio.StreamWriter) -> None:
    """Each path is a vendor of its own."""
    url = urlsplit(request.target)
    asked = {name: values[0] for name, values in parse_qs(url.query).items()}
    kind, _, rest = url.path.strip("/").partition("/")
    await KINDS[kind](writer, rest, asked)


async def good(writer: asyncio.StreamWriter, delay: str, asked: dict[str, str]) -> None:
    """After so many seconds the errors of the minutes from ``start`` to ``end``, which jump at the onset."""
    await asyncio.sleep(float(delay))
    start, end = float(asked["start"]), float(asked["end"])
    points = [[at, 100.0 if at >= ONSET.timestamp() else 1.0] for at in range(int(start), int(end), 60)]
    logs = [{"at": at, "level": "error", "message": f"order {at:.0f} failed"} for at, value in points if value > 1]
    writer.write(answer(json.dumps({"points": points, "logs": logs})))


async def hanging(_: asyncio.StreamWriter, __: str, ___: dict[str, str]) -> None:
    """Never an answer."""
    await asyncio.Event().wait()


async def failing(writer: asyncio.StreamWriter, _: str, __: dict[str, str]) -> None:
    """Always 500."""
    writer.write(answer("out of order", "500 Internal Server Error"))


async def huge(writer: asyncio.StreamWriter, rest: str, asked: dict[str, str]) -> None:
    """A gigabyte of log lines, in one answer or in pages, as fast as they are taken."""
    if rest == "whole":
        writer.write(HEAD + b"[")
        for _ in range(GIGABYTE // 60_000):
            writer.write(b"0," * 30_000)
            await writer.drain()
        return
    start, page = float(asked["start"]), int(asked["page"])
    rows = [
        {"at": start + (page * PAGE + n) % 3600, "level": "info", "message": f"order {page}/{n} paid " + "x" * 250}
        for n in range(PAGE)
    ]
    writer.write(answer(json.dumps(rows)))


async def lying(writer: asyncio.StreamWriter, _: str, asked: dict[str, str]) -> None:
    """Wrong types, times in 2099, numbers that are none, negative counts, ten million at once."""
    now, future = ONSET.timestamp(), 4_070_908_800.0
    logs = [
        {"at": now, "level": "error", "message": "batch failed", "count": 10_000_000},
        {"at": now, "level": "error", "message": "x", "count": -5},
        {"at": now, "level": "error", "message": {"not": "a text"}},
        {"at": "tomorrow", "level": "error", "message": "x"},
        {"at": future, "level": "error", "message": "x"},
        {"at": 1e30, "level": "error", "message": "x"},
        {"at": now, "level": "apocalyptic", "message": "x"},
        None,
        [],
    ]
    nan = float("nan")
    points = [[now, nan], [now + 60, float("inf")], [future, 1.0], [now * 1000, 1.0], [now, 2.0]]
    spans = [{"start": now, "ms": -1.0}, {"start": future, "ms": 1.0}, {"start": now, "ms": nan}]
    writer.write(answer(json.dumps({"points": points, "logs": logs, "spans": spans, "deployed": [future, now]})))


KINDS: dict[str, Callable[[asyncio.StreamWriter, str, dict[str, str]], Awaitable[None]]] = {
    "good": good,
    "hanging": hanging,
    "failing": failing,
    "huge": huge,
    "lying": lying,
}


def run_vendors(port: int) -> None:
    """All of them, until killed."""

    async def serve() -> None:
        async with vendor(say, port):
            await asyncio.Event().wait()

    asyncio.run(serve())


# --- the collectors ---


class _Log(BaseModel):
    at: float
    level: Level
    message: str
    count: int = 1

    def line(self, component: str) -> LogLine:
        """As the product has it."""
        return LogLine(component=component, at=utc(self.at), level=self.level, message=self.message, count=self.count)


class Vendor(Unasked):
    """One source, read as the product's collectors read theirs."""

    timeout_s = 60.0

    def __init__(self, name: str, url: str, path: str, settings: SourceSettings | None = None) -> None:
        """``path``: which vendor, and for a good one after how many seconds it answers."""
        self.name, self._path = name, path
        self._settings = settings or SourceSettings()
        self._api = Api(name, httpx.AsyncClient(base_url=url, timeout=60), base_setting=f"{name.upper()}_URL")

    async def collect(self, scope: Scope) -> Telemetry:
        """Raises CollectorError."""
        budget = Budget(self.name, self._settings, scope.within_s)
        return await gather(self._jobs(scope), side_by_side=4, budget=budget, scope=scope)

    async def measure(self, refs: Sequence[SeriesRef], window: Window) -> list[Series]:
        """Nothing."""
        return []

    async def check(self) -> list[Check]:
        """Nothing."""
        return []

    async def aclose(self) -> None:
        """Close the connections."""
        await self._api.aclose()

    def _jobs(self, scope: Scope) -> Iterator[tuple[str, Job]]:
        if self._path == "huge":
            yield "all lines at once", self._whole
            yield "lines page by page", partial(self._pages, scope)
        else:
            yield f"all of {scope.service}", partial(self._all, scope)

    async def _read(self, part: Part, path: str, scope: Scope, **params: int) -> Any:
        first = min(w.start for w in (scope.incident, *scope.baseline))
        asked = {"start": first.timestamp(), "end": scope.incident.end.timestamp(), **params}
        started = time.monotonic()
        body = await self._api.json(part, path, needs="", params=asked)
        took_ms = (time.monotonic() - started) * 1000
        query = Query(source=self.name, text=path, start=first, end=scope.incident.end, took_ms=took_ms)
        part.queries.append(query)
        return body

    async def _whole(self, part: Part) -> None:
        await self._api.json(part, "/huge/whole", needs="")

    async def _pages(self, scope: Scope, part: Part) -> None:
        for page in count():
            rows = await self._read(part, "/huge/page", scope, page=page)
            await part.keep_logs(_Log.model_validate(row).line(scope.service) for row in rows)

    async def _all(self, scope: Scope, part: Part) -> None:
        body = await self._read(part, f"/{self._path}", scope)
        ref = SeriesRef(
            source=self.name, component=scope.service, metric="http.errors.count", statistic="sum", query=self._path
        )
        points = body["points"]
        part.keep([Series(ref=ref, epoch_s=tuple(p[0] for p in points), values=tuple(p[1] for p in points))])
        part.keep(_span(scope.service, span) for span in body.get("spans", ()))
        part.keep(
            Change(component=scope.service, at=utc(at), kind="deploy", title="v2") for at in body.get("deployed", ())
        )
        not_understood = 0
        for row in body["logs"]:
            try:
                part.logs.add(_Log.model_validate(row).line(scope.service))
            except (ValidationError, ValueError, OverflowError):
                not_understood += 1
        if not_understood:
            part.gap(GapReason.FAILED, f"{not_understood} rows were not understood: {self._path}")


def _span(component: str, row: dict[str, float]) -> Span:
    return Span(
        component=component, trace_id="t", span_id="s", operation="pay", start_s=row["start"], duration_ms=row["ms"]
    )


@asynccontextmanager
async def opened(sources: Sequence[Vendor]) -> AsyncIterator[Sequence[Vendor]]:
    """Close their connections at the end."""
    try:
        yield sources
    finally:
        for source in sources:
            await source.aclose()


# --- the step ---


def run_step(url: str, bound_s: float, result: str) -> None:
    """All vendors at once; what was found, and what it took, as JSON in the file ``result``."""
    Path(result).write_text(json.dumps(asyncio.run(_step(url, bound_s))))


async def _step(url: str, bound_s: float) -> dict[str, Any]:
    async with opened([Vendor("warm", url, "good/0")]) as sources:
        await collect(deps(sources))  # imports, and what else is needed once
    before, started = _resident_mb(), time.monotonic()
    modest = SourceSettings(max_bytes=40_000_000)
    sources = [Vendor("slow", url, "good/1"), Vendor("huge", url, "huge", modest)]
    sources += [Vendor(kind, url, kind) for kind in ("hanging", "failing", "lying")]
    async with opened(sources):
        made = deps(sources, collect_s=bound_s)
        state = await collect(made)
        took_s = time.monotonic() - started
        evidence = state["evidence"]
        seen: list[Telemetry] = [telemetry for telemetry, _ in made.snapshots.stored.values()]  # type: ignore[attr-defined]
        return {
            "took_s": took_s,
            "grew_mb": _resident_mb() - before,
            "gaps": [gap.model_dump(mode="json") for gap in evidence.gaps],
            "findings": [f.model_dump(mode="json") for f in evidence.findings],
            "suspects": [s.component for s in evidence.suspects],
            "seen": {t.source: _seen(t) for t in seen},
            "tasks": len(asyncio.all_tasks()),
        }


def _seen(telemetry: Telemetry) -> dict[str, Any]:
    return {
        "lines": sum(line.count for line in telemetry.logs),
        "rows": len(telemetry.logs),
        "points": [len(series.epoch_s) for series in telemetry.series],
        "spans": len(telemetry.spans),
        "changes": [change.at.year for change in telemetry.changes],
        "bytes": telemetry.cost.received_bytes,
        "calls": telemetry.cost.calls,
    }


def _resident_mb() -> float:
    """The most there ever was; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
