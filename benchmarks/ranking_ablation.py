"""What each channel of telemetry is worth: the ranking with that one alone, and with all but that one."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace

from app.evaluation import Case
from benchmarks.ranking_cases import Given, Labelled, hits, loaded
from benchmarks.results import Table
from collectors.base import Series, Telemetry
from graph.ranking.semantics import meaning_of

METRICS: Mapping[str, frozenset[str]] = {
    "metrics: errors": frozenset(["error", "success"]),
    "metrics: latency": frozenset(["latency"]),
    "metrics: saturation and backlog": frozenset(["saturation", "host", "backlog"]),
    "metrics: requests and traffic": frozenset(["requests", "traffic"]),
    "metrics: all others": frozenset(["", "loss", "earnings", "unknown"]),
}
OTHERS = ("logs", "trace ids of logs", "spans", "changes", "statuses", "edges", "seasonal windows")
CHANNELS = (*METRICS, *OTHERS)
FIELDS: Mapping[str, str] = {"logs": "logs", "spans": "spans", "changes": "changes", "statuses": "statuses"}


def table(given: Given, pool: Executor) -> Table:
    """One row for all channels, then two for each."""
    every = frozenset(CHANNELS)
    variants: list[tuple[str, frozenset[str]]] = [
        ("all", every),
        *((f"without {channel}", every - {channel}) for channel in CHANNELS),
        *((f"{channel} alone", frozenset([channel, *_needed(channel)])) for channel in CHANNELS),
    ]
    results = list(pool.map(_top_1, [given] * len(variants), [channels for _, channels in variants]))
    rows = [
        (name, *(f"{k}/{n} ({k / n:.0%})" for k, n in result))
        for (name, _), result in zip(variants, results, strict=True)
    ]
    return Table(
        "Ablation: top-1 without a channel, and with it alone",
        ("channels", *given.sets),
        rows,
        "Taken away from the telemetry, before the ranking. Alone: with the edges, as hardly anything works without"
        " them, and trace ids of logs with the logs. Which metrics measure what is told by the product's own words for"
        " them. A set that lacks a channel shows no change.",
    )


def _needed(channel: str) -> Sequence[str]:
    return {"trace ids of logs": ("logs", "edges"), "edges": ()}.get(channel, ("edges",))


def _top_1(given: Given, channels: frozenset[str]) -> list[tuple[int, int]]:
    return [(hits([kept(one, channels) for one in cases]), len(cases)) for cases in loaded(given).values()]


def kept(labelled: Labelled, channels: frozenset[str]) -> Labelled:
    """The case with only these channels."""
    case = labelled.case
    scope = case.scope
    if "edges" not in channels:
        scope = scope.model_copy(update={"edges": ()})
    if "seasonal windows" not in channels:
        scope = scope.model_copy(update={"seasonal": ()})
    telemetry = tuple(_thinned(part, channels) for part in case.telemetry)
    return replace(labelled, case=Case(telemetry, scope, case.alert))


def _thinned(telemetry: Telemetry, channels: frozenset[str]) -> Telemetry:
    update: dict[str, object] = {field: () for channel, field in FIELDS.items() if channel not in channels}
    update["series"] = tuple(series for series in telemetry.series if _channel(series) in channels)
    if "edges" not in channels:
        update["edges"] = ()
    if "logs" in channels and "trace ids of logs" not in channels:
        update["logs"] = tuple(replace(line, trace_id="", span_id="") for line in telemetry.logs)
    return telemetry.model_copy(update=update)


def _channel(series: Series) -> str:
    role = meaning_of(series.ref).role
    return next((channel for channel, roles in METRICS.items() if role in roles), "metrics: all others")
