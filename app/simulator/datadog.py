"""Datadog's API in front of the shop: logs, metrics, spans, traces, events, catalogue; monitors and webhooks."""

import base64
import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, HTTPException, Query
from pydantic import BaseModel, ConfigDict, Field

from app.simulator import datadog_topology
from app.simulator.cluster import Happening
from app.simulator.datadog_history import History
from app.simulator.datadog_metrics import MetricQuery, evaluate, interval_for, parse_query, unit_of
from app.simulator.datadog_monitors import MonitorApi, Monitors
from app.simulator.datadog_notifications import Notification
from app.simulator.datadog_search import Document, Predicate, Value, parse
from app.simulator.datadog_traces import trace_json, trace_key
from app.simulator.datadog_webhooks import Webhooks
from app.simulator.requests import LogRecord, Sample, SpanRecord
from app.simulator.shop import Shop, Tick
from app.simulator.topology import ENVIRONMENT

Json = dict[str, object]
Key = Annotated[str, Header()]

SPAN_FINISHES_WITHIN_S = 40.0
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


# --- requests ---------------------------------------------------------------------------------------------------------


class _Model(BaseModel):
    model_config = ConfigDict(populate_by_name=True, extra="ignore")


class _Filter(_Model):
    query: str = "*"
    since: str | int | float = Field(default="now-15m", alias="from")
    until: str | int | float = Field(default="now", alias="to")


class _Page(_Model):
    limit: int = Field(default=10, ge=1, le=1000)
    cursor: str | None = None


class _Search(_Model):
    filter: _Filter = Field(default_factory=_Filter)
    sort: Literal["timestamp", "-timestamp"] = "-timestamp"
    page: _Page = Field(default_factory=_Page)


class _SpanSearchData(_Model):
    attributes: _Search = Field(default_factory=_Search)


class _SpanSearch(_Model):
    data: _SpanSearchData = Field(default_factory=_SpanSearchData)


class _Compute(_Model):
    aggregation: Literal["count"]
    type: Literal["total", "timeseries"] = "total"
    interval: str | None = Field(default=None, pattern=r"^[1-9]\d*[smhd]$")


class _GroupBy(_Model):
    facet: str
    limit: int = Field(default=10, ge=1, le=10_000)


class _Aggregate(_Model):
    compute: list[_Compute] = [_Compute(aggregation="count")]
    filter: _Filter = Field(default_factory=_Filter)
    group_by: list[_GroupBy] = []


class _TimeseriesQuery(_Model):
    query: str
    name: str | None = None
    data_source: Literal["metrics", "cloud_cost"] = "metrics"


class _Formula(_Model):
    formula: str


class _TimeseriesAttributes(_Model):
    since_ms: float = Field(alias="from")
    until_ms: float = Field(alias="to")
    interval: float | None = Field(default=None, gt=0)
    queries: list[_TimeseriesQuery] = Field(min_length=1)
    formulas: list[_Formula] = []


class _TimeseriesData(_Model):
    attributes: _TimeseriesAttributes


class _Timeseries(_Model):
    data: _TimeseriesData


def _keys(
    dd_api_key: Key = "",
    dd_application_key: Key = "",
) -> None:
    if not dd_api_key or not dd_application_key:
        raise HTTPException(403, "Forbidden")


def _api_key(dd_api_key: Key = "") -> None:
    if not dd_api_key:
        raise HTTPException(403, "Forbidden")


# --- API --------------------------------------------------------------------------------------------------------------


class DatadogApi:
    """Datadog in front of the shop."""

    def __init__(self, shop: Shop, monitors: Monitors, webhooks: Webhooks) -> None:
        self._shop, self._monitors, self._webhooks = shop, monitors, webhooks
        self._history = History(shop)

    def router(self) -> APIRouter:
        """All routes, under ``/api``."""
        router = APIRouter(prefix="/api", dependencies=[Depends(_keys)])
        router.add_api_route("/v2/logs/events/search", self._search_logs, methods=["POST"])
        router.add_api_route("/v2/logs/analytics/aggregate", self._aggregate_logs, methods=["POST"])
        router.add_api_route("/v2/spans/events/search", self._search_spans, methods=["POST"])
        router.add_api_route("/v2/events/search", self._search_events, methods=["POST"])
        router.add_api_route("/v2/metrics", self._list_metrics, methods=["GET"])
        router.add_api_route("/v2/query/timeseries", self._timeseries, methods=["POST"])
        router.add_api_route("/v1/query", self._query, methods=["GET"])
        router.add_api_route("/v2/trace/{trace_id}", self._trace, methods=["GET"])
        router.include_router(datadog_topology.router())
        router.include_router(MonitorApi(self._shop, self._monitors).router())
        router.include_router(self._webhooks.router())
        outer = APIRouter()
        outer.include_router(router)
        validate = Depends(_api_key)
        outer.add_api_route("/api/v1/validate", lambda: {"valid": True}, methods=["GET"], dependencies=[validate])
        return outer

    def _search_logs(self, request: _Search) -> Json:
        return self._search(request, self._logs)

    def _search_spans(self, request: _SpanSearch) -> Json:
        return self._search(request.data.attributes, self._spans)

    def _search_events(self, request: _Search) -> Json:
        return self._search(request, self._events)

    def _search(
        self,
        request: _Search,
        records: Callable[[float, float, Predicate], list[tuple[float, Json]]],
    ) -> Json:
        """One page of what matches, sorted by time."""
        began = time.perf_counter()
        matches = _predicate(request.filter.query)
        with self._shop.live() as now:
            start, end, offset = _window(request.filter, request.page.cursor, now)
            found = records(start, end, matches)
        found.sort(key=lambda item: (item[0], str(item[1]["id"])), reverse=request.sort == "-timestamp")
        page = [record for _, record in found[offset : offset + request.page.limit]]
        meta: Json = {
            "elapsed": int(1000 * (time.perf_counter() - began)),
            "request_id": hashlib.sha256(f"{request!r}{now}".encode()).hexdigest()[:32],
            "status": "done",
        }
        if offset + len(page) < len(found):
            meta["page"] = {"after": _cursor(start, end, offset + len(page))}
        return {"data": page, "meta": meta}

    def _logs(self, start: float, end: float, matches: Predicate) -> list[tuple[float, Json]]:
        return [(log.at, _log_json(log)) for log in self._matching_logs(start, end, matches)]

    def _matching_logs(self, start: float, end: float, matches: Predicate) -> Iterable[LogRecord]:
        for sample in self._samples_around(start, end):
            for log in sample.logs:
                if start <= log.at < end and matches(_log_document(log)):
                    yield log

    def _spans(self, start: float, end: float, matches: Predicate) -> list[tuple[float, Json]]:
        return [
            (span.start, _span_json(span))
            for sample in self._samples_around(start, end)
            for span in sample.spans
            if start <= span.start < end and matches(_span_document(span))
        ]

    def _samples_around(self, start: float, end: float) -> Sequence[Sample]:
        """A request belongs to the tick it began in, but what it does may come later."""
        return self._history.samples(start - SPAN_FINISHES_WITHIN_S, end)

    def _trace(self, trace_id: str) -> Json:
        key = trace_key(trace_id)
        if key is None:
            raise _refuse(f"invalid trace id {trace_id!r}")
        with self._shop.live() as now:
            for tick in reversed(self._shop.ticks(0.0, now)):  # a request's spans are all of the tick it began in
                spans = [span for span in self._shop.sampled(tick).spans if span.trace_id == key]
                if spans:
                    return trace_json(key, spans)
        raise HTTPException(404, "Trace not found")

    def _events(self, start: float, end: float, matches: Predicate) -> list[tuple[float, Json]]:
        told = [_change_event(happening) for happening in self._shop.cluster.happenings]
        told += [_alert_event(notification) for notification in self._monitors.notifications(start, end)]
        return [(at, event) for at, event in told if start <= at < end and matches(_event_document(event))]

    def _aggregate_logs(self, request: _Aggregate) -> Json:
        matches = _predicate(request.filter.query)
        with self._shop.live() as now:
            start, end, _ = _window(request.filter, None, now)
            logs = [(log.at, _log_document(log)) for log in self._matching_logs(start, end, matches)]
        groups: dict[tuple[str, ...], list[float]] = {}
        for at, document in logs:
            groups.setdefault(tuple(str(document.fields.get(by.facet, "")) for by in request.group_by), []).append(at)
        buckets = [
            {
                "by": {by.facet: value for by, value in zip(request.group_by, group, strict=True)},
                "computes": {
                    f"c{n}": _computed(compute, times, start, end) for n, compute in enumerate(request.compute)
                },
            }
            for group, times in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
        ]
        most = math.prod(by.limit for by in request.group_by)
        return {"data": {"buckets": buckets[:most]}, "meta": {"status": "done", "elapsed": 1}}

    def _list_metrics(
        self,
        tags: Annotated[str, Query(alias="filter[tags]")] = "*",
        window_s: Annotated[int, Query(alias="window[seconds]", ge=1)] = 3600,
        size: Annotated[int, Query(alias="page[size]", ge=1)] = 10_000,
        cursor: Annotated[str, Query(alias="page[cursor]")] = "",
    ) -> Json:
        matches = _predicate(tags.replace(",", " AND "))
        names: set[str] = set()
        with self._shop.live() as now:
            for tick in self._shop.ticks(now - window_s, now):
                for service, metrics in tick.metrics.items():
                    if matches(Document("", {"service": service, "env": ENVIRONMENT})):
                        names.update(metrics)
        ordered = [name for name in sorted(names) if name > cursor]
        page = ordered[:size]
        next_cursor = page[-1] if len(page) < len(ordered) else None
        return {
            "data": [{"type": "metrics", "id": name} for name in page],
            "meta": {
                "pagination": {"type": "cursor_limit", "limit": size, "cursor": cursor, "next_cursor": next_cursor}
            },
        }

    def _timeseries(self, request: _Timeseries) -> Json:
        asked = request.data.attributes
        start, end = asked.since_ms / 1000.0, asked.until_ms / 1000.0
        queries = [_metric_query(query.query) for query in _wanted(asked)]
        wanted_s = asked.interval / 1000.0 if asked.interval else None
        interval = max(interval_for(query, start, end, wanted_s) for query in queries)
        with self._shop.live() as now:
            ticks = self._history.ticks(start, min(end, now))
        series: list[Json] = []
        points: list[dict[float, float]] = []
        for index, query in enumerate(queries):
            for group, values in sorted(evaluate(query, ticks, interval).items()):
                series.append({"group_tags": list(group), "query_index": index, "unit": unit_of(query.metric)})
                points.append(values)
        times = sorted({when for values in points for when in values})
        return {
            "data": {
                "type": "timeseries_response",
                "attributes": {
                    "series": series,
                    "times": [int(1000 * when) for when in times],
                    "values": [[values.get(when) for when in times] for values in points],
                },
            }
        }

    def _query(
        self, query: str, since: Annotated[int, Query(alias="from")], until: Annotated[int, Query(alias="to")]
    ) -> Json:
        """The older query API: epoch seconds, and errors inside a 200."""
        answer: Json = {
            "status": "ok",
            "res_type": "time_series",
            "query": query,
            "from_date": since * 1000,
            "to_date": until * 1000,
            "series": [],
            "message": "",
            "group_by": [],
        }
        try:
            queries = [parse_query(part) for part in _split(query)]
        except ValueError as error:
            return answer | {"status": "error", "error": str(error)}
        with self._shop.live() as now:
            ticks = self._history.ticks(since, min(until, now))
        answer["group_by"] = sorted({tag for parsed in queries for tag in parsed.by})
        answer["series"] = [
            series
            for index, parsed in enumerate(queries)
            for series in _old_series(parsed, index, ticks, interval_for(parsed, since, until, None))
        ]
        return answer


def _computed(compute: _Compute, times: Sequence[float], start: float, end: float) -> float | list[Json]:
    """Lines in all, or in each interval that has any. Intervals are counted from the epoch."""
    if compute.type == "total":
        return float(len(times))
    length = float(compute.interval[:-1]) * _SECONDS[compute.interval[-1]] if compute.interval else (end - start) / 150
    counts = Counter(math.floor(at / length) * length for at in times)
    return [{"time": _iso(at), "value": float(count)} for at, count in sorted(counts.items())]


# --- time, queries, cursors -------------------------------------------------------------------------------------------


def _refuse(detail: str) -> HTTPException:
    return HTTPException(400, detail)


def _predicate(query: str) -> Predicate:
    try:
        return parse(query)
    except ValueError as error:
        raise _refuse(f"invalid query: {error}") from None


def _metric_query(text: str) -> MetricQuery:
    try:
        return parse_query(text)
    except ValueError as error:
        raise _refuse(str(error)) from None


def _wanted(asked: _TimeseriesAttributes) -> list[_TimeseriesQuery]:
    """The queries in the order of the formulas; only formulas that name a single query are understood."""
    if not asked.formulas:
        return asked.queries
    named = {query.name: query for query in asked.queries}
    try:
        return [named[formula.formula.strip()] for formula in asked.formulas]
    except KeyError as error:
        raise _refuse(f"unknown query or unsupported formula {error}") from None


def _split(queries: str) -> list[str]:
    """At commas outside of braces and brackets."""
    parts, depth = [""], 0
    for character in queries:
        depth += (character in "{(") - (character in "})")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _moment(value: str | int | float, now: float) -> float:
    """``now-15m``, ISO 8601 or epoch milliseconds as epoch seconds."""
    text = str(value).strip()
    if text.startswith("now"):
        amount, unit = text[4:-1], text[-1:]
        if text == "now":
            return now
        if text[3] in "+-" and amount.isdigit() and unit in _SECONDS:
            return now + float(text[3] + amount) * _SECONDS[unit]
        raise _refuse(f"invalid time {text!r}")
    if text.replace(".", "", 1).isdigit():
        return float(text) / 1000.0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise _refuse(f"invalid time {text!r}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _window(search: _Filter, cursor: str | None, now: float) -> tuple[float, float, int]:
    """Start, end and offset; a cursor keeps the window its first page had."""
    if cursor is None:
        return _moment(search.since, now), min(_moment(search.until, now), now), 0
    try:
        start, end, offset = json.loads(base64.urlsafe_b64decode(cursor))
    except ValueError:
        raise _refuse("invalid cursor") from None
    return float(start), float(end), int(offset)


def _cursor(start: float, end: float, offset: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([start, end, offset]).encode()).decode()


def _iso(at: float, precision: Literal["milliseconds", "microseconds"] = "milliseconds") -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec=precision).replace("+00:00", "Z")


# --- views: the shop's telemetry as Datadog tells it ------------------------------------------------------------------


def _tags(service: str, version: str) -> list[str]:
    tags = [f"env:{ENVIRONMENT}", f"service:{service}"]
    return [*tags, f"version:{version}"] if version else tags


def _log_document(log: LogRecord) -> Document:
    fields: dict[str, Value] = {
        "service": log.service,
        "status": log.status,
        "host": log.host,
        "env": ENVIRONMENT,
        "version": log.version,
        "trace_id": log.trace_id,
        "@logger.name": log.logger,
        "@error.kind": log.error_kind,
    }
    return Document(log.message, fields)


def _log_json(log: LogRecord) -> Json:
    attributes: Json = {
        "logger": {"name": log.logger, "line": log.line},
        "env": ENVIRONMENT,
        "version": log.version,
    }
    if log.trace_id:
        attributes["dd"] = {"trace_id": log.trace_id, "span_id": log.span_id}
    if log.error_kind:
        attributes["error"] = {"kind": log.error_kind, "message": log.message, "stack": log.stack or log.message}
    return {
        "id": log.id,
        "type": "log",
        "attributes": {
            "timestamp": _iso(log.at),
            "service": log.service,
            "host": log.host,
            "status": log.status,
            "message": log.message,
            "tags": _tags(log.service, log.version),
            "attributes": attributes,
        },
    }


def _span_document(span: SpanRecord) -> Document:
    fields: dict[str, Value] = {
        "service": span.service,
        "status": "error" if span.error_type else "ok",
        "host": span.host,
        "env": ENVIRONMENT,
        "version": span.version,
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "parent_id": span.parent_id,
        "resource_name": span.resource,
        "operation_name": span.operation,
        "@duration": 1e6 * span.duration_ms,
        "@span.kind": span.kind,
        "@peer.service": span.peer,
        "@error.type": span.error_type,
    }
    return Document(f"{span.resource} {span.operation}", fields)


def _span_json(span: SpanRecord) -> Json:
    custom: Json = {
        "duration": round(1e6 * span.duration_ms),
        "env": ENVIRONMENT,
        "operation_name": span.operation,
        "span": {"kind": span.kind},
        "version": span.version,
    }
    if span.peer:
        custom["peer"] = {"service": span.peer}
    if span.error_type:
        custom["error"] = {"type": span.error_type, "message": span.error_message}
    return {
        "id": f"{span.trace_id[:16]}{span.span_id}",
        "type": "spans",
        "attributes": {
            "trace_id": span.trace_id,
            "span_id": span.span_id,
            "parent_id": span.parent_id or "0",
            "service": span.service,
            "resource_name": span.resource,
            "start_timestamp": _iso(span.start, "microseconds"),
            "end_timestamp": _iso(span.start + span.duration_ms / 1000.0, "microseconds"),
            "type": "web" if span.kind == "server" else "http",
            "host": span.host,
            "env": ENVIRONMENT,
            "single_span": False,
            "ingestion_reason": "auto",
            "retained_by": "diversity_sampling",
            "tags": _tags(span.service, span.version),
            "attributes": custom,
            "custom": custom,
        },
    }


def _change_event(happening: Happening) -> tuple[float, Json]:
    source = _SOURCES.get(happening.source, "shop")
    tags = [*_tags(happening.service, happening.version), f"author:{happening.author}", f"source:{source}"]
    attributes: Json = {"title": happening.title, "status": "info", "priority": "normal"}
    tags.append(f"event_type:{happening.kind}")
    text = f"{happening.title} by {happening.author}"
    return _event(happening.at, source, happening.service, text, tags, attributes)


_SOURCES = {
    "ecs.amazonaws.com": "amazon_ecs",
    "elasticloadbalancing.amazonaws.com": "amazon_elb",
    "appconfig.amazonaws.com": "amazon_appconfig",
    "application-autoscaling.amazonaws.com": "application_autoscaling",
}


def _alert_event(told: Notification) -> tuple[float, Json]:
    monitor = told.monitor
    attributes: Json = {
        "title": told.title,
        "monitor_id": monitor.id,
        "monitor_groups": [told.scope],
        "monitor": {"id": monitor.id, "name": monitor.name, "type": "query alert"},
        "status": told.alert_type,
        "priority": "normal",
    }
    tags = [*(f"{key}:{value}" for key, value in told.tags.items()), "source:alert"]
    return _event(told.at, "alert", monitor.service, monitor.message, tags, attributes)


def _event(at: float, source: str, service: str, message: str, tags: list[str], attributes: Json) -> tuple[float, Json]:
    key = hashlib.sha256(f"{at}{service}{message}".encode()).hexdigest()
    return at, {
        "id": key[:32],
        "type": "event",
        "attributes": {
            "timestamp": _iso(at),
            "message": message,
            "tags": tags,
            "attributes": {
                **attributes,
                "service": service,
                "source_type_name": source,
                "timestamp": int(1000 * at),
                "aggregation_key": key[:16],
                "evt": {"id": str(int(key[:15], 16)), "name": str(attributes["title"]), "source_id": 36},
                "tags": tags,
            },
        },
    }


def _event_document(event: Json) -> Document:
    attributes = event["attributes"]
    assert isinstance(attributes, dict)
    fields: dict[str, Value] = dict(tag.split(":", 1) for tag in attributes["tags"])
    return Document(str(attributes["message"]), fields)


def _old_series(query: MetricQuery, index: int, ticks: Sequence[Tick], interval: float) -> Iterable[Json]:
    for group, values in sorted(evaluate(query, ticks, interval).items()):
        points = [[1000.0 * when, value] for when, value in sorted(values.items())]
        yield {
            "metric": query.metric,
            "display_name": query.metric,
            "expression": query.text,
            "scope": ",".join([query.scope, *group]),
            "tag_set": list(group),
            "aggr": query.space,
            "query_index": index,
            "interval": int(interval),
            "length": len(points),
            "start": int(points[0][0]),
            "end": int(points[-1][0] + 1000 * interval - 1),
            "pointlist": points,
            "unit": unit_of(query.metric),
        }
