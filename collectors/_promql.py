"""From the names of a service's metrics to PromQL: one aggregated series for each question, never one per label value.

A counter becomes its rate, a histogram its 95th percentile and the rate of its count, a gauge its average, or the
worst of its instances where that is what hurts. Counters whose labels tell failures apart also become the rate and
the share of those.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from collectors._prometheus_family import literal
from collectors.base import SeriesRef

# label -> values that mean failure; HTTP's of any exporter, gRPC's codes for the server's fault, Micrometer's outcome
FAILURES = {
    "status": "5..",
    "status_code": "5..",
    "code": "5..",
    "http_status_code": "5..",
    "http_response_status_code": "5..",
    "response_code": "5..",
    "grpc_code": "Unknown|DeadlineExceeded|Internal|Unavailable|DataLoss",
    "rpc_grpc_status_code": "2|4|13|14|15",
    "outcome": "(?i)(server_)?error|fail(ure|ed)",
    "result": "(?i)error|fail(ure|ed)",
}
_RUNTIME = re.compile(
    r"(go|process|python|jvm|tomcat|nodejs|dotnet|ruby|php|promhttp|container|node|kube|system|scrape|logback)_"
)
_NO_MEASUREMENT = re.compile(r"ALERTS(_FOR_STATE)?|scrape_.*|.*(_info|_created|_timestamp|_timestamp_seconds)")
_START = "process_start_time_seconds"
_LOWEST = re.compile(r"(?<![a-z])(available|free|idle|ready|healthy|remaining)(?![a-z])")
_HIGHEST = re.compile(
    r"(?<![a-z])(active|backlog|bytes|connections|depth|in_?flight|in_use|lag|memory|pending|pool|queued?|size|threads"
    r"|usage|used|utilization|waiting)(?![a-z])"
)
_UNITS = {"seconds": "s", "milliseconds": "ms", "bytes": "B", "ratio": "ratio", "percent": "%", "celsius": "°C"}
_USED = re.compile(r"_(active|used|in_use|open)(?=_|$)")
_LIMITS = ("_max", "_limit", "_max_open", "_capacity")


@dataclass(frozen=True)
class Metrics:
    """What is known of a service's metrics.

    ``types`` are Prometheus's metadata, by metric or by the name of its family. ``failing`` says by which label and
    values a metric tells failures apart.
    """

    component: str
    matchers: str
    names: frozenset[str]
    types: Mapping[str, str]
    failing: Mapping[str, tuple[str, str]]
    rate_s: int


def selector(name: str, *conditions: str) -> str:
    """``name{…}``; a name that is no plain word is matched as the label it is."""
    if re.fullmatch(r"[a-zA-Z_:][a-zA-Z0-9_:]*", name):
        return f"{name}{{{','.join(conditions)}}}"
    return f"{{{','.join((f'__name__={literal(name)}', *conditions))}}}"


def references(metrics: Metrics) -> list[SeriesRef]:
    """What to ask, most telling first: up, failures, the service's own metrics, then those of its runtime."""
    found = [ref for name in sorted(metrics.names) for ref in _of(metrics, name)]
    return sorted(found, key=lambda ref: (ref.metric != "up", not _failure(ref), bool(_RUNTIME.match(ref.metric))))


def _failure(ref: SeriesRef) -> bool:
    return ref.metric.endswith(("_5xx", "_errors", "_5xx_percent", "_errors_percent"))


def _of(metrics: Metrics, name: str) -> Iterator[SeriesRef]:
    if _NO_MEASUREMENT.fullmatch(name) or name == _START:
        return
    family, suffix = _family(metrics.names, name)
    match _type(metrics, name, family, suffix):
        case "part":  # of a family that is asked for as a whole
            if suffix == "count":
                yield from _failures(metrics, name, family)
        case "histogram":
            yield from _histogram(metrics, family)
        case "native":
            yield from _native(metrics, name)
        case "summary":
            yield from _summary(metrics, family)
        case "counter":
            yield _ref(metrics, name, "rate", _rate(metrics, name), _per_second(name))
            yield from _failures(metrics, name, name)
        case _:
            yield from _gauge(metrics, name)


def _family(names: frozenset[str], name: str) -> tuple[str, str]:
    """The histogram's or summary's name and which part of it this is; a metric of its own has no part."""
    for suffix in ("bucket", "sum", "count"):
        base = name.removesuffix(f"_{suffix}")
        if base != name and {f"{base}_sum", f"{base}_count"} <= names:
            return base, suffix
    return name, ""


def _type(metrics: Metrics, name: str, family: str, suffix: str) -> str:
    """How to ask: a whole family is asked for at its buckets, else at its sum."""
    if suffix:
        bucketed = f"{family}_bucket" in metrics.names
        if suffix == ("bucket" if bucketed else "sum"):
            return "histogram" if bucketed else "summary"
        return "part"
    if f"{name}_sum" in metrics.names and f"{name}_count" in metrics.names:
        return "part"  # a summary's quantiles
    told = metrics.types.get(name) or metrics.types.get(name.removesuffix("_total"), "")
    if told == "histogram":
        return "native"
    return "counter" if told == "counter" or (not told and name.endswith("_total")) else "gauge"


def _rate(metrics: Metrics, name: str, *more: str) -> str:
    return f"sum(rate({selector(name, metrics.matchers, *more)}[{metrics.rate_s}s]))"


def _histogram(metrics: Metrics, family: str) -> Iterator[SeriesRef]:
    buckets = f"rate({selector(f'{family}_bucket', metrics.matchers)}[{metrics.rate_s}s])"
    yield _ref(metrics, family, "p95", f"histogram_quantile(0.95, sum by (le) ({buckets}))", unit_of(family))
    yield _ref(metrics, f"{_what(family)}_count", "rate", _rate(metrics, f"{family}_count"), "/s")


def _native(metrics: Metrics, name: str) -> Iterator[SeriesRef]:
    yield _ref(metrics, name, "p95", f"histogram_quantile(0.95, {_rate(metrics, name)})", unit_of(name))
    yield _ref(metrics, f"{_what(name)}_count", "rate", f"histogram_count({_rate(metrics, name)})", "/s")


def _summary(metrics: Metrics, family: str) -> Iterator[SeriesRef]:
    """Quantiles of several instances cannot be added up: the mean can."""
    mean = f"{_rate(metrics, f'{family}_sum')} / {_rate(metrics, f'{family}_count')}"
    yield _ref(metrics, family, "avg", mean, unit_of(family))
    yield _ref(metrics, f"{_what(family)}_count", "rate", _rate(metrics, f"{family}_count"), "/s")


def _gauge(metrics: Metrics, name: str) -> Iterator[SeriesRef]:
    statistic = "min" if _LOWEST.search(_words(name)) else "max" if _HIGHEST.search(_words(name)) else "avg"
    selected = selector(name, metrics.matchers)
    yield _ref(metrics, name, statistic, f"{statistic}({selected})", "ratio" if name == "up" else unit_of(name))
    limit = _limit(metrics.names, name)
    if limit:  # how full it is says more than how much is in it
        share = f"max({selected} / ({selector(limit, metrics.matchers)} > 0))"
        yield _ref(metrics, f"{name}_utilization", "max", share, "ratio")


def _limit(names: frozenset[str], name: str) -> str | None:
    """The gauge that says how much there may be: pool_active has pool_max, process_open_fds has process_max_fds."""
    candidates = (_USED.sub(limit, name, count=1) for limit in _LIMITS)
    return next((other for other in candidates if other != name and other in names), None)


def _failures(metrics: Metrics, name: str, family: str) -> Iterator[SeriesRef]:
    """Rate and share of what failed. A service that never failed yet has no such series: that is 0, not unknown."""
    if name not in metrics.failing:
        return
    label, values = metrics.failing[name]
    failed = f"{_what(family)}_{'5xx' if values == '5..' else 'errors'}"
    every = _rate(metrics, name)
    rate = f"({_rate(metrics, name, f'{label}=~{literal(values)}')} or 0 * {every})"
    yield _ref(metrics, failed, "rate", rate, "/s")
    yield _ref(metrics, f"{failed}_percent", "avg", f"100 * {rate} / {every}", "%")


def _ref(metrics: Metrics, metric: str, statistic: str, query: str, unit: str) -> SeriesRef:
    return SeriesRef(
        source="prometheus",
        component=metrics.component,
        metric=metric,
        statistic=statistic,
        unit=unit,
        query=query,
    )


def unit_of(name: str) -> str:
    """By the suffix that Prometheus's naming rules ask for."""
    return _UNITS.get(name.rpartition("_")[2], "")


def _per_second(name: str) -> str:
    unit = unit_of(name.removesuffix("_total"))
    return f"{unit}/s" if unit in ("B", "s") else "/s"


def _what(family: str) -> str:
    """What is counted: the name without what is measured of it. http_request_duration_seconds counts http_request."""
    measured = r"_(seconds|milliseconds|bytes|total|duration|latency|time|size)"
    return re.sub(rf"({measured})+$", "", family) or family


def _words(name: str) -> str:
    return name.lower().replace(".", "_")


_COMPARISON = re.compile(r"(==|!=|>=|<=|>|<)")
_THRESHOLD = re.compile(r"\s*(?:==|!=|>=|<=|>|<)\s*(?:bool\s+)?[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+)\s*$")


def without_threshold(expression: str) -> str:
    """``expr > 0.05`` without its comparison, so that there are points below it too; anything less plain as it is."""
    flat = re.sub(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|`[^`]*`', "_", expression)
    nested = None
    while nested != flat:
        nested, flat = flat, re.sub(r"[(\[{][^()\[\]{}]*[)\]}]", "_", flat)
    combined = "#" in flat or re.search(r"\b(and|or|unless)\b", flat, re.IGNORECASE)
    if combined or len(_COMPARISON.findall(flat)) != 1 or not _THRESHOLD.search(flat):
        return expression
    return _THRESHOLD.sub("", expression)


def lowest_is_worst(expression: str) -> bool:
    """Whether the alert fires when it falls."""
    threshold = _THRESHOLD.search(expression)
    return bool(threshold and threshold[0].strip().startswith("<"))


def equalities(matchers: str) -> dict[str, str]:
    """The labels that must be equal to something: ``{"job": "pay"}`` of ``job="pay",path!~"/health.*"``."""
    found = re.findall(r'([a-zA-Z_]\w*)\s*=\s*"([^"\\]*)"', matchers)
    return dict(found)


def restricted(expression: str, labels: Mapping[str, str]) -> str:
    """Only those of the expression's series that have these labels."""
    one = "vector(1)"
    for name, value in labels.items():
        one = f'label_replace({one}, "{name}", {literal(value.replace("$", "$$"))}, "", "")'
    return f"({expression}) and on ({', '.join(labels)}) {one}"
