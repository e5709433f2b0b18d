"""What changed and who calls whom, from Datadog: events, service dependencies, the software catalogue."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from time import monotonic
from typing import Literal

from pydantic import AwareDatetime, BaseModel, Field, JsonValue, ValidationError

from collectors._datadog_api import (
    DEPENDENCIES,
    EVENTS,
    PAGE,
    RELATIONS,
    Dated,
    Names,
    Search,
    Session,
    any_of,
    not_understood,
    tags,
    text_of,
)
from collectors._http import Params
from collectors._jobs import Part
from collectors.base import Change, Edge, GapReason, Scope, Target, Window

LOOK_BACK = timedelta(hours=24)  # how old a change may be
CALLS_WITHIN = timedelta(hours=1)  # before the incident
RELATIONS_PER_PAGE, MOST_PAGES = 100, 20


class _Event(Dated):
    timestamp: AwareDatetime
    message: str | None = None
    tags: list[str] = Field(default_factory=list)
    attributes: dict[str, JsonValue] = Field(default_factory=dict)

    @property
    def at(self) -> datetime:
        """When it happened."""
        return self.timestamp


class _Entity(BaseModel):
    name: str


class _RelationAttributes(BaseModel):
    caller: _Entity = Field(alias="from")
    callee: _Entity = Field(alias="to")


class _Relation(BaseModel):
    attributes: _RelationAttributes


class _Relations(BaseModel):
    data: list[JsonValue] | None = None


class TopologyReader:
    """Reads changes and edges."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def events(self, scope: Scope, targets: Sequence[Target], part: Part) -> None:
        """A job: what people and automation did to the targets."""
        window = Window(start=scope.incident.start - LOOK_BACK, end=scope.incident.end)
        search = Search(EVENTS, f"{any_of(targets)} -source:alert", window, PAGE)
        async for event in self._session.search(search, part, _Event):
            part.keep(_changes(event, targets))
        if part.queries[-1].truncated:
            part.gap(
                GapReason.TRUNCATED, f"Datadog has more than {PAGE:,} events of the last day; older ones were not read"
            )

    async def dependencies(self, scope: Scope, names: Names, part: Part) -> None:
        """A job: who calls whom by the traces of the last hour."""
        window = Window(start=scope.incident.start - CALLS_WITHIN, end=scope.incident.end)
        params = {
            "env": scope.environment,
            "start": str(int(window.start.timestamp())),
            "end": str(int(window.end.timestamp())),
        }
        started = monotonic()
        answer = await self._session.object(part, DEPENDENCIES, params)
        edges = _in_scope(_calls(answer, names), scope)
        part.keep(edges)
        text = f"service_dependencies env:{scope.environment}"
        part.queries.append(self._session.query(DEPENDENCIES, text, window, started, len(edges)))

    async def relations(self, scope: Scope, names: Names, part: Part) -> None:
        """A job: what depends on what by the software catalogue."""
        for page in range(MOST_PAGES):
            started = monotonic()
            params: Params = {
                "filter[type]": "RelationTypeDependsOn",
                "includeDiscovered": "true",
                "page[limit]": RELATIONS_PER_PAGE,
                "page[offset]": page * RELATIONS_PER_PAGE,
            }
            rows = (await self._session.read(part, RELATIONS, _Relations, params=params)).data or []
            relations = [relation for relation in map(_relation, rows) if relation is not None]
            part.keep(_in_scope((_dependency(relation, names) for relation in relations), scope))
            more = len(rows) >= RELATIONS_PER_PAGE
            query = self._session.query(RELATIONS, "RelationTypeDependsOn", scope.incident, started, len(rows))
            part.queries.append(query.model_copy(update={"truncated": more and page == MOST_PAGES - 1}))
            not_understood(part, len(rows) - len(relations), query.text)
            if not more:
                return
        part.gap(
            GapReason.TRUNCATED, f"the software catalogue has more than {MOST_PAGES * RELATIONS_PER_PAGE:,} relations"
        )


# --- changes ------------------------------------------------------------------------------------------------

_CHANGE_KINDS: tuple[tuple[re.Pattern[str], Literal["deploy", "configuration", "scaling", "feature_flag"]], ...] = (
    (re.compile(r"feature.?flag|launchdarkly", re.IGNORECASE), "feature_flag"),
    (re.compile(r"deploy|roll(ed)?.?(out|back)|release", re.IGNORECASE), "deploy"),
    (re.compile(r"scal(e|ed|ing)\b|desired.?count", re.IGNORECASE), "scaling"),
    (re.compile(r"config", re.IGNORECASE), "configuration"),
)


def _changes(event: _Event, targets: Sequence[Target]) -> Iterator[Change]:
    """One Change per target that the event is about."""
    title = text_of(event.attributes, "title", "evt.name") or (event.message or "").partition("\n")[0]
    tagged = dict(tag.split(":", 1) for tag in event.tags if ":" in tag)
    told = " ".join([title, text_of(event.attributes, "source_type_name"), *event.tags])
    kind = next((kind for pattern, kind in _CHANGE_KINDS if pattern.search(told)), "other")
    services = {tag.removeprefix("service:") for tag in event.tags if tag.startswith("service:")}
    services.add(text_of(event.attributes, "service"))
    for target in targets:
        if services & {target.service, *(tag.removeprefix("service:") for tag in tags(target))}:
            yield Change(
                component=target.service,
                at=event.timestamp,
                kind=kind,
                title=title[:300],
                version=tagged.get("version", ""),
                author=tagged.get("author", "") or tagged.get("user", ""),
                link=None,
            )


# --- edges --------------------------------------------------------------------------------------------------


def _in_scope(edges: Iterable[Edge], scope: Scope) -> list[Edge]:
    ours = {target.service for target in scope.targets}
    return [edge for edge in edges if {edge.caller, edge.callee} & ours]


def _calls(answer: Mapping[str, JsonValue], names: Names) -> Iterator[Edge]:
    """``{"checkout": {"calls": ["payment"]}}``."""
    for caller, entry in sorted(answer.items()):
        calls = entry.get("calls") if isinstance(entry, dict) else None
        for callee in calls if isinstance(calls, list) else ():
            if isinstance(callee, str):
                yield Edge(caller=names.ours(caller), callee=names.ours(callee), source="datadog")


def _relation(row: JsonValue) -> _Relation | None:
    try:
        return _Relation.model_validate(row)
    except ValidationError:
        return None


def _dependency(relation: _Relation, names: Names) -> Edge:
    """What depends calls."""
    caller, callee = relation.attributes.caller.name, relation.attributes.callee.name
    return Edge(caller=names.ours(caller), callee=names.ours(callee), source="datadog catalogue")
