"""Asking Datadog: requests, searches page by page, tags and links in its language."""

import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import NamedTuple, TypeVar
from urllib.parse import quote, urlencode

import httpx
from pydantic import BaseModel, JsonValue, TypeAdapter, ValidationError

from collectors._http import COMPLAINT, Api, Params, parsed
from collectors._jobs import Part
from collectors.base import Asks, CollectorError, GapReason, Query, Refused, Target, Window

PER_SECOND, AT_ONCE = 20.0, 8  # Datadog's limits are mostly unpublished; its headers say which one is used up
PAGE = 1000  # rows; the most Datadog gives at once. Searches are limited to some hundreds an hour
SERVICES_PER_QUESTION = 20  # a longer query is refused
_JSON_OBJECT: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


class Endpoint(NamedTuple):
    """One kind of request."""

    method: str
    path: str
    scope: str  # that the application key needs
    ui: str = ""  # the page that shows the same
    kind: Asks = ""


VALIDATE = Endpoint("GET", "/api/v1/validate", "")
LOGS = Endpoint("POST", "/api/v2/logs/events/search", "logs_read_data", "/logs", "logs")
LOG_COUNTS = Endpoint("POST", "/api/v2/logs/analytics/aggregate", "logs_read_data", "/logs/analytics", "metrics")
METRICS = Endpoint("GET", "/api/v2/metrics", "metrics_read")
POINTS = Endpoint("POST", "/api/v2/query/timeseries", "timeseries_query", "/metric/explorer", "metrics")
SPANS = Endpoint("POST", "/api/v2/spans/events/search", "apm_read", "/apm/traces", "traces")
TRACE = Endpoint("GET", "/api/v2/trace/{id}", "apm_read", "/apm/trace/{id}", "traces")
DEPENDENCIES = Endpoint("GET", "/api/v1/service_dependencies", "apm_read")
EVENTS = Endpoint("POST", "/api/v2/events/search", "events_read", "/event/explorer", "changes")
MONITORS = Endpoint("GET", "/api/v1/monitor", "monitors_read", "/monitors/manage", "statuses")
MONITOR = Endpoint("GET", "/api/v1/monitor/{id}", "monitors_read", "/monitors/{id}", "statuses")
RELATIONS = Endpoint("GET", "/api/v2/catalog/relation", "apm_service_catalog_read", "/services")


_R = TypeVar("_R", bound=BaseModel)


class Dated(BaseModel):
    """A row of a search; its subclass says which of its fields tells the time."""

    @property
    def at(self) -> datetime:
        """When it happened."""
        raise NotImplementedError


_D = TypeVar("_D", bound=Dated)


class _Row(BaseModel):
    attributes: dict[str, JsonValue]


class _PageMeta(BaseModel):
    after: str | None = None


class _Meta(BaseModel):
    status: str | None = None
    page: _PageMeta | None = None


class _Page(BaseModel):
    data: list[JsonValue] | None = None
    meta: _Meta | None = None


@dataclass(frozen=True)
class Search:
    """One search over events of a kind, in one window; at most ``budget`` rows."""

    endpoint: Endpoint
    query: str
    window: Window
    budget: int
    oldest_first: bool = False

    def body(self, cursor: str | None, rows: int) -> dict[str, JsonValue]:
        """The request for the next page; ``rows`` were read already. Spans want a JSON:API document around it."""
        page: dict[str, JsonValue] = {"limit": min(PAGE, self.budget - rows)}
        if cursor:
            page["cursor"] = cursor
        body: dict[str, JsonValue] = {
            "filter": {"query": self.query, **bounds(self.window)},
            "sort": "timestamp" if self.oldest_first else "-timestamp",
            "page": page,
        }
        return {"data": {"type": "search_request", "attributes": body}} if self.endpoint is SPANS else body


@dataclass
class _Tally:
    """How far a search has come."""

    rows: int = 0
    malformed: int = 0
    cursor: str | None = None
    timed_out: bool = False
    begun: bool = False

    def more(self, budget: int) -> bool:
        """Whether there is a next page, and room for it. An empty page is the last one, whatever it says."""
        return not self.begun or (self.cursor is not None and self.rows < budget)

    def count(self, page: _Page) -> list[JsonValue]:
        """Take a page in; its rows."""
        rows, meta = page.data or [], page.meta or _Meta()
        self.begun = True
        self.rows += len(rows)
        self.cursor = meta.page.after if meta.page and rows else None
        self.timed_out = self.timed_out or meta.status == "timeout"
        return rows

    @property
    def truncated(self) -> bool:
        """Whether Datadog has, or may have, more than was read."""
        return self.cursor is not None or self.timed_out


class Session:
    """One organisation, read-only."""

    def __init__(self, client: httpx.AsyncClient, ui: str | None) -> None:
        """``ui``: the host of the pages that people open; None: there is none."""
        self.client, self._ui = client, ui
        self._api = Api("Datadog", client, base_setting="DATADOG_SITE", per_second=PER_SECOND, at_once=AT_ONCE)

    @property
    def skew_s(self) -> float | None:
        """Datadog's clock minus ours, as of some answer; None if none told the time."""
        return self._api.skew_s

    async def ask(
        self,
        part: Part,
        endpoint: Endpoint,
        *,
        params: Params | None = None,
        body: JsonValue = None,
        needs: str = "",
        of: str = "",
    ) -> JsonValue:
        """One request, ``of`` which trace or monitor. Raises CollectorError; a refusal inside a 200 is one too."""
        answer = await self._api.json(
            part,
            endpoint.path.format(id=quote(of, safe="")),
            needs=needs or f"give the application key the scope {endpoint.scope}; or DATADOG_SITE is the wrong site",
            method=endpoint.method,
            params=params,
            body=body,
        )
        complaint = _complaint(answer)
        if complaint is not None:
            raise Refused(f"{endpoint.path}: Datadog refused the query: {complaint}"[:COMPLAINT])
        return answer

    async def read(
        self,
        part: Part,
        endpoint: Endpoint,
        model: type[_R],
        *,
        params: Params | None = None,
        body: JsonValue = None,
        of: str = "",
    ) -> _R:
        """As ``ask``, and the answer as it should be."""
        return parsed(model, await self.ask(part, endpoint, params=params, body=body, of=of))

    async def object(self, part: Part, endpoint: Endpoint, params: Params) -> dict[str, JsonValue]:
        """As ``ask``, for an answer whose keys are data."""
        answer = await self.ask(part, endpoint, params=params)
        try:
            return _JSON_OBJECT.validate_python(answer)
        except ValidationError:
            raise CollectorError(f"{endpoint.path}: the answer is no JSON object", "check DATADOG_SITE") from None

    async def search(self, search: Search, part: Part, model: type[_D]) -> AsyncIterator[_D]:
        """The rows, page by page, until the search's budget is used up; then the Query is recorded."""
        started, tally = monotonic(), _Tally()
        try:
            while tally.more(search.budget):
                body = search.body(tally.cursor, tally.rows)
                page = await self.read(part, search.endpoint, _Page, body=body)
                for row in tally.count(page):
                    found = _row(row, model)
                    if found is not None and search.window.start <= found.at < search.window.end:
                        yield found
                    elif found is None or found.at != search.window.end:  # a window ends before its end
                        tally.malformed += 1
        finally:
            query = self.query(search.endpoint, search.query, search.window, started, tally.rows)
            part.queries.append(query.model_copy(update={"truncated": tally.truncated}))
        if tally.timed_out:
            part.gap(GapReason.TRUNCATED, f"Datadog timed out and answered in part: {search.query}")
        not_understood(part, tally.malformed, search.query)

    def query(
        self, endpoint: Endpoint, text: str, window: Window, started: float, rows: int, of: str = "", metric: str = ""
    ) -> Query:
        """What was asked; ``started`` by the monotonic clock."""
        return Query(
            source="datadog",
            text=text,
            link=self.link(endpoint, text, window, of, metric),
            start=window.start,
            end=window.end,
            took_ms=round((monotonic() - started) * 1000, 1),
            rows=rows,
            kind=endpoint.kind,
        )

    def link(self, endpoint: Endpoint, text: str, window: Window, of: str = "", metric: str = "") -> str | None:
        """The page that shows the same to a person."""
        if self._ui is None or not endpoint.ui or (endpoint is POINTS and not metric):
            return None
        page = f"https://{self._ui}{endpoint.ui.format(id=quote(of, safe=''))}"
        args = _page_args(endpoint, text, ms(window.start), ms(window.end), metric)
        return f"{page}?{urlencode(args)}" if args else page

    async def aclose(self) -> None:
        """Close the connections."""
        await self._api.aclose()


def _complaint(answer: JsonValue) -> JsonValue:
    """What a refusal inside a 200 says. The keys of some answers are services, and those have any name."""
    if not isinstance(answer, dict):
        return None
    told = answer.get("errors") or answer.get("error")
    if answer.get("status") == "error":
        return told or "error"
    return told if isinstance(told, str | list) and not answer.get("data") else None


def _row(row: JsonValue, model: type[_D]) -> _D | None:
    try:
        return model.model_validate(_Row.model_validate(row).attributes)
    except ValidationError:
        return None


def not_understood(part: Part, rows: int, query: str) -> None:
    """Say that rows were dropped, if any were."""
    if rows:
        part.gap(GapReason.FAILED, f"{rows} rows were not understood: {query}")


def _page_args(endpoint: Endpoint, text: str, start: int, end: int, metric: str) -> Mapping[str, str | int]:
    if endpoint in (TRACE, MONITOR, RELATIONS):
        return {}
    if endpoint is POINTS:
        scope = text.partition("{")[2].partition("}")[0]
        return {"exp_metric": metric, "exp_scope": scope, "from_ts": start, "to_ts": end, "live": "false"}
    if endpoint is SPANS:
        return {"query": text, "start": start, "end": end, "paused": "true"}
    if endpoint is MONITORS:
        return {"q": text}
    return {"query": text, "from_ts": start, "to_ts": end, "live": "false"}


# --- times, tags and names ----------------------------------------------------------------------------------


def ms(moment: datetime) -> int:
    """Epoch milliseconds."""
    return int(moment.timestamp() * 1000)


def bounds(window: Window) -> dict[str, JsonValue]:
    """A filter's window."""
    return {"from": window.start.isoformat(), "to": window.end.isoformat()}


def tags(target: Target) -> tuple[str, ...]:
    """What selects the target's telemetry."""
    return target.datadog_tags or (f"service:{target.service}",)


def search_terms(target: Target) -> str:
    """The target's tags in the language of searches; what is no plain word is quoted."""
    return " ".join(_term(tag) for tag in tags(target))


def _term(tag: str) -> str:
    key, colon, value = tag.partition(":")
    if not colon:
        return _quoted(key)
    return re.sub(r"[^\w.@-]", "_", key) + ":" + _quoted(value)


def _quoted(text: str) -> str:
    return text if re.fullmatch(r"\w[\w.-]*", text) else phrase(text)


def phrase(text: str) -> str:
    """Words that stand next to each other, in any case; inside quotes there are no operators and no wildcards."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def metric_tag(tag: str) -> str:
    """A tag as Datadog normalises the tags of metrics: nothing of it can end the braces it stands in."""
    return re.sub(r"[^\w\-:./]", "_", tag.lower())


def service_tag(target: Target) -> str:
    """The value of ``service:``, by which Datadog groups; empty if the target is selected by other tags."""
    return next((tag.partition(":")[2].lower() for tag in tags(target) if tag.startswith("service:")), "")


class Names:
    """What Datadog calls a service, and what we call it."""

    def __init__(self, targets: Iterable[Target]) -> None:
        """The first of two targets with the same tag holds."""
        self._ours: dict[str, str] = {}
        for target in targets:
            self._ours.setdefault(service_tag(target) or target.service.lower(), target.service)

    def ours(self, theirs: str) -> str:
        """A service nobody listed keeps its name."""
        return self._ours.get(theirs.lower(), theirs)


@dataclass(frozen=True)
class Question:
    """What selects several targets at once, and how to tell their rows apart again."""

    query: str
    targets: tuple[Target, ...]
    by_tag: Mapping[str, Target] = field(default_factory=dict)

    def target(self, service: str) -> Target | None:
        """Whose row it is that Datadog says is of ``service``."""
        return self.targets[0] if len(self.targets) == 1 else self.by_tag.get(service.lower())

    @property
    def about(self) -> str:
        """The targets' names."""
        return ", ".join(target.service for target in self.targets)


def questions(targets: Sequence[Target]) -> Iterator[Question]:
    """One for all that the service tag tells apart, one each for the others."""
    by_tag: dict[str, Target] = {}
    alone: list[Target] = []
    for target in targets:
        tag = service_tag(target)
        if tag and tag not in by_tag:
            by_tag[tag] = target
        else:
            alone.append(target)
    together = list(by_tag.items())
    for start in range(0, len(together), SERVICES_PER_QUESTION):
        batch = dict(together[start : start + SERVICES_PER_QUESTION])
        yield Question(any_of(tuple(batch.values())), tuple(batch.values()), batch)
    for target in alone:
        yield Question(search_terms(target), (target,))


def any_of(targets: Sequence[Target]) -> str:
    """A search that selects all of the targets."""
    if len(targets) == 1:
        return search_terms(targets[0])
    return "(" + " OR ".join(f"({search_terms(target)})" for target in targets) + ")"


def text_of(attributes: Mapping[str, JsonValue], *paths: str) -> str:
    """The first of the attributes that is there: under its dotted name, or nested."""
    for path in paths:
        value = attributes.get(path)
        if value is None:
            value = _nested(attributes, path.split("."))
        if isinstance(value, str | int | float) and value != "":
            return str(value)
    return ""


def _nested(attributes: Mapping[str, JsonValue], keys: Sequence[str]) -> JsonValue:
    value: JsonValue = dict(attributes)
    for key in keys:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value
