"""Datadog's metric queries: ``avg:name{service:x} by {host}.as_count().rollup(avg, 60)``."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from app.simulator.datadog_search import Document, Predicate, parse
from app.simulator.metrics import CATALOGUE, Unit
from app.simulator.shop import TICK_S, Tick
from app.simulator.topology import ENVIRONMENT

Group = tuple[str, ...]  # tags, e.g. ("host:ip-10-0-1-23",)
MOST_POINTS = 1500  # per series, as Datadog answers

_QUERY = re.compile(
    r"\s*(?:(?P<space>avg|sum|min|max|count|p50|p75|p90|p95|p99):)?(?P<metric>[A-Za-z][\w.]*)"
    r"\s*\{(?P<scope>[^}]*)\}(?:\s*by\s*\{(?P<by>[^}]*)\})?(?P<functions>(?:\.\w+\([^)]*\))*)\s*"
)
_FUNCTION = re.compile(r"\.(\w+)\(([^)]*)\)")
_UNITS: dict[str, dict[str, object]] = {
    name: {"family": family, "name": name, "plural": f"{name}s", "scale_factor": scale, "short_name": short}
    for name, family, scale, short in (
        ("percent", "percentage", 1.0, "%"),
        ("millisecond", "time", 0.001, "ms"),
        ("second", "time", 1.0, "s"),
        ("minute", "time", 60.0, "min"),
        ("request", "network", 1.0, "req"),
        ("error", "general", 1.0, "err"),
        ("dollar", "money", 1.0, "$"),
        ("transaction", "db", 1.0, "txn"),
        ("connection", "network", 1.0, "conn"),
    )
}


@dataclass(frozen=True)
class MetricQuery:
    """A parsed query."""

    text: str
    space: str  # how hosts are combined
    metric: str
    scope: str
    matches: Predicate
    by: tuple[str, ...]
    as_count: bool
    rollup: str  # how a bucket's points are combined
    rollup_s: float | None


def parse_query(text: str) -> MetricQuery:
    """Raises ValueError saying what is wrong."""
    match = _QUERY.fullmatch(text)
    if match is None:
        raise ValueError(f"Error parsing query: unable to parse {text!r}")
    functions = dict(_FUNCTION.findall(match["functions"]))
    unknown = set(functions) - {"as_count", "as_rate", "rollup", "fill"}
    if unknown:
        raise ValueError(f"Error parsing query: unknown function {min(unknown)!r}")
    method, _, seconds = functions.get("rollup", "").partition(",")
    as_count = "as_count" in functions
    return MetricQuery(
        text=text.strip(),
        space=match["space"] or "avg",
        metric=match["metric"],
        scope=match["scope"].strip() or "*",
        matches=parse(re.sub(r"(^|[\s(])!", r"\1-", match["scope"].replace(",", " AND "))),
        by=tuple(tag.strip() for tag in (match["by"] or "").split(",") if tag.strip()),
        as_count=as_count,
        rollup="sum" if as_count else (method.strip() or "avg"),
        rollup_s=float(seconds) if seconds.strip() else None,
    )


def interval_for(query: MetricQuery, start: float, end: float, wanted_s: float | None) -> float:
    """Seconds per point: as asked, but no finer than the data and no more than Datadog's points per series."""
    asked = query.rollup_s or wanted_s or (end - start) / 300.0
    least = max((end - start) / MOST_POINTS, asked, TICK_S)
    return math.ceil(least / TICK_S) * TICK_S


def evaluate(query: MetricQuery, ticks: Iterable[Tick], interval_s: float) -> dict[Group, dict[float, float]]:
    """Points by group and epoch second."""
    buckets: dict[Group, dict[float, dict[tuple[str, str], list[float]]]] = {}
    members: dict[tuple[str, str], Group | None] = {}
    scale = _per_tick(query)
    for tick in ticks:
        when = math.floor(tick.at / interval_s) * interval_s
        for service, metrics in tick.metrics.items():
            for host, value in metrics.get(query.metric, {}).items():
                key = (service, host)
                if key not in members:
                    members[key] = _group(query, service, host)
                group = members[key]
                if group is not None:
                    bucket = buckets.setdefault(group, {}).setdefault(when, {})
                    bucket.setdefault(key, []).append(value * scale)
    return {group: {when: _combine(query, hosts) for when, hosts in times.items()} for group, times in buckets.items()}


def unit_of(metric: str) -> list[dict[str, object] | None] | None:
    """Datadog's pair of unit and per-unit."""
    if metric not in CATALOGUE:
        return None
    unit: Unit = CATALOGUE[metric].unit
    name, _, per = unit.partition("/")
    return [_UNITS[name], _UNITS.get(per)]


def tags_of(service: str, host: str) -> dict[str, str]:
    """What a series is tagged with."""
    tags = {"service": service, "env": ENVIRONMENT}
    return tags | {"host": host} if host else tags


def _group(query: MetricQuery, service: str, host: str) -> Group | None:
    tags = tags_of(service, host)
    if not query.matches(Document("", tags)) or any(tag not in tags for tag in query.by):
        return None
    return tuple(f"{tag}:{tags[tag]}" for tag in query.by)


def _per_tick(query: MetricQuery) -> float:
    """Turns a rate into the count of one tick, for ``as_count()``."""
    if not query.as_count or query.metric not in CATALOGUE:
        return 1.0
    per = CATALOGUE[query.metric].unit.partition("/")[2]
    return {"minute": TICK_S / 60.0, "second": TICK_S}.get(per, 1.0)


_AGGREGATORS: Mapping[str, Callable[[Sequence[float]], float]] = {
    "avg": lambda values: sum(values) / len(values),
    "sum": sum,
    "min": min,
    "max": max,
    "count": lambda values: float(len(values)),
}


def _combine(query: MetricQuery, hosts: Mapping[tuple[str, str], Sequence[float]]) -> float:
    over_time = _AGGREGATORS.get(query.rollup, _AGGREGATORS["avg"])
    over_hosts = _AGGREGATORS.get(query.space, _AGGREGATORS["avg"])
    return round(over_hosts([over_time(values) for values in hosts.values()]), 4)
