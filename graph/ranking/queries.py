"""Which recorded query a finding came from, so that a reader can ask it again. None rather than a wrong one."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import cast

from collectors.base import Asks, Query, Target, Telemetry
from graph.ranking.terms import MIN_NAME, whole

MAX_QUERIES = 500  # of one source that are looked at: more pages were asked than anybody opens
MAX_NAMES = 2_000  # of components that are looked for in queries
KINDS: Mapping[str, Asks] = {
    "metric": "metrics",
    "log": "logs",
    "trace": "traces",
    "change": "changes",
    "status": "statuses",
    "knowledge": "documents",
}
"""What a finding's kind is called among queries."""

_ESCAPED = re.compile(r"[*%$](?:25)?([0-9a-fA-F]{2})")  # as URLs, and CloudWatch's own inside of them


@dataclass(frozen=True, slots=True)
class _Asking:
    """A query, and the components that it names."""

    query: Query
    named: frozenset[str]


@dataclass(frozen=True)
class Asked:
    """The queries that gave rows, by source."""

    _by_source: Mapping[str, tuple[_Asking, ...]]
    _by_text: Mapping[tuple[str, str], Query]

    @classmethod
    def of(cls, telemetry: Sequence[Telemetry], targets: Iterable[Target] = ()) -> "Asked":
        """All that was asked. ``targets`` tell under which names the sources know the components."""
        names = _Names.of(telemetry, targets)
        by_source: dict[str, list[Query]] = {}
        for query in sorted((q for t in telemetry for q in t.queries if q.rows > 0), key=_preferred):
            by_source.setdefault(query.source, []).append(query)
        return cls(
            {s: tuple(_Asking(q, names.within(q)) for q in found[:MAX_QUERIES]) for s, found in by_source.items()},
            {(q.source, q.text): q for s in by_source.values() for q in reversed(s)},
        )

    def exactly(self, source: str, text: str) -> Query | None:
        """The query of that source with that text, as a series knows its own."""
        return self._by_text.get((source, text))

    def for_(self, source: str, kind: str, component: str) -> Query | None:
        """The query that a finding of that kind about that component came from, as far as that can be told.

        It is of the same source, gave rows of that kind, and names the component in its text or link; or it is the
        only one that can be meant, and names no other. ``kind`` is a finding's: log, trace, change, status, …
        """
        asks = KINDS.get(kind, cast("Asks", kind))
        fit = [a for a in self._by_source.get(source, ()) if a.query.kind in ("", asks)]
        naming = [a for a in fit if component in a.named]
        if naming:
            surest = min(naming, key=lambda a: (a.query.kind != asks, len(a.named), _preferred(a.query)))
            return surest.query
        only = {(a.query.text, a.query.link) for a in fit}
        return fit[0].query if len(only) == 1 and not fit[0].named else None


def _preferred(query: Query) -> tuple[float, int, str, str, str]:
    """The latest, which is the incident's, then the one with most rows; a total order."""
    return -query.end.timestamp(), -query.rows, query.source, query.text, query.link or ""


@dataclass(frozen=True, slots=True)
class _Names:
    """Components by the names they are known under, in lower case."""

    owners: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, telemetry: Sequence[Telemetry], targets: Iterable[Target]) -> "_Names":
        found: dict[str, set[str]] = {}
        for target in targets:
            for name in (target.service, *_aliases(target)):
                found.setdefault(name.lower(), set()).add(target.service)
        for component in sorted({c for t in telemetry for c in _components(t)}):
            found.setdefault(component.lower(), set()).add(component)
        known = ((name, frozenset(owners)) for name, owners in found.items() if len(name) >= MIN_NAME)
        return cls(dict(islice(known, MAX_NAMES)))

    def within(self, query: Query) -> frozenset[str]:
        """The components that a query's text or link names. A name inside a longer one is not meant."""
        text = f"{query.text} {_ESCAPED.sub(_letter, query.link or '')}".lower()
        places = [
            (m.start(), m.end(), name) for name in self.owners if name in text for m in whole(name).finditer(text)
        ]
        places.sort(key=lambda p: (p[0], -p[1]))
        named: set[str] = set()
        reached = -1
        for start, end, name in places:
            if end > reached or start >= reached:
                named |= self.owners[name]
            reached = max(reached, end)
        return frozenset(named)


def _letter(escaped: re.Match[str]) -> str:
    return chr(int(escaped[1], 16))


def _components(telemetry: Telemetry) -> Iterable[str]:
    """Those that are quickly read: millions of lines and spans name hardly anybody who is no target, nor in these."""
    yield from (s.ref.component for s in telemetry.series)
    yield from (c.component for c in telemetry.changes)
    yield from (s.component for s in telemetry.statuses)
    for edge in telemetry.edges:
        yield from (edge.caller, edge.callee)


def _aliases(target: Target) -> Iterable[str]:
    """Names that are the target's alone: no cluster, namespace, branch or environment."""
    aws = target.aws
    yield from aws.log_groups + aws.rds_instances + aws.rds_clusters + aws.elasticache_clusters
    yield from aws.lambda_functions + aws.sqs_queues
    yield from filter(None, (aws.codedeploy_application, aws.codedeploy_group, aws.xray_name, target.otel_service))
    yield from filter(None, (target.load_balancer, target.target_group))
    yield from (tag for tag in target.datadog_tags if tag.startswith("service:"))
    yield from (part for part in (target.prometheus, target.loki) if part)
    if target.ecs:
        yield target.ecs.service
    if target.github:
        yield target.github.repository
    if target.kubernetes:
        yield target.kubernetes.workload
    if target.langfuse:
        yield from filter(None, (target.langfuse.trace_name,))
