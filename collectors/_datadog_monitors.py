"""Monitors from Datadog: the one that alerted, with its own query, and those of the services in play."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from time import monotonic

from pydantic import BaseModel, JsonValue, ValidationError

from collectors._datadog_api import MONITOR, MONITORS, Session, metric_tag, not_understood, service_tag, tags
from collectors._datadog_metrics import METRIC_TERM, MetricReader, metric_ref
from collectors._http import Params
from collectors._jobs import Part
from collectors._windows import joined
from collectors.base import Clock, CollectorError, GapReason, Scope, SeriesRef, Status, Target, Window, utc

PAGE = 100
MOST_PAGES = 3  # of the monitors of one service
NAME_LENGTH = 200
_RULE = re.compile(r"datadog:monitor:(\d{1,19})")
_EVALUATION = re.compile(r"^\s*\w+\([^:{}]*\):")  # avg(last_5m): or change(avg(last_5m),last_1h):
_COMPARISON = re.compile(r"\s*(?:>=|<=|==|!=|>|<)\s*-?[\d.]+(?:[eE][+-]?\d+)?\s*$")
_OBSERVED = {"OK": 0.0, "Warn": 0.5, "Alert": 1.0}


class _Group(BaseModel):
    status: str | None = None
    last_triggered_ts: float | None = None


class _State(BaseModel):
    groups: dict[str, _Group] | None = None


class _Options(BaseModel):
    silenced: dict[str, JsonValue] | None = None


class _Monitor(BaseModel):
    id: int
    name: str | None = None
    query: str | None = None
    overall_state: str | None = None
    options: _Options | None = None
    state: _State | None = None

    @property
    def groups(self) -> Mapping[str, _Group]:
        """By their names; ``*`` is that of a monitor with one group only."""
        return (self.state.groups if self.state else None) or {}

    @property
    def since(self) -> datetime | None:
        """When the first of the groups that are in the monitor's own state came into it."""
        told = [group.last_triggered_ts for group in self.groups.values() if group.status == self.overall_state]
        known = [at for at in told if at and 0 < at < 1e11]
        return utc(min(known)) if known else None

    @property
    def muted(self) -> bool:
        """Whether somebody said that it need not be heard."""
        return bool(self.options and self.options.silenced)


def rule_of(scope: Scope) -> str:
    """The id of the monitor that alerted; empty if it was none of Datadog's."""
    match = _RULE.fullmatch(scope.symptom.rule)
    return match[1] if match else ""


class MonitorReader:
    """Reads monitors and their states."""

    def __init__(self, session: Session, metrics: MetricReader, clock: Clock) -> None:
        self._session, self._metrics, self._clock = session, metrics, clock

    async def alerted(self, scope: Scope, part: Part) -> None:
        """A job: the monitor that alerted, its state, and the metric it watches."""
        rule, started = rule_of(scope), monotonic()
        monitor = await self._session.read(part, MONITOR, _Monitor, params={"group_states": "all"}, of=rule)
        text = f"monitor {rule}: {monitor.query}"
        part.queries.append(self._session.query(MONITOR, text, scope.incident, started, 1, of=rule))
        part.keep([self._status(scope, scope.service, monitor)])
        ref = _watched(monitor, scope)
        if ref is None:
            part.gap(GapReason.EMPTY, f"monitor {rule} watches no metric: {monitor.query}"[:300])
            return
        await self._metrics.read([ref], [*joined((scope.incident, *scope.baseline)), *scope.seasonal], part)

    async def others(self, scope: Scope, targets: Sequence[Target], part: Part) -> None:
        """A job: the states of the monitors that are tagged with the targets' services."""
        seen = {rule_of(scope)}
        for target in targets:
            for monitor in await self._of(target, scope.incident, part):
                if str(monitor.id) not in seen:
                    seen.add(str(monitor.id))
                    part.keep([self._status(scope, target.service, monitor)])

    async def _of(self, target: Target, window: Window, part: Part) -> list[_Monitor]:
        found: list[_Monitor] = []
        tagged = service_tag(target)
        selected = f"service:{tagged}" if tagged else ",".join(metric_tag(tag) for tag in tags(target))
        for page in range(MOST_PAGES):
            started = monotonic()
            params: Params = {
                "monitor_tags": selected,
                "group_states": "alert,warn,no data",
                "page": page,
                "page_size": PAGE,
            }
            answer = await self._session.ask(part, MONITORS, params=params)
            rows = answer if isinstance(answer, list) else None
            if rows is None:
                raise CollectorError(f"{MONITORS.path}: the answer is no JSON list", "check DATADOG_SITE")
            sound = list(_monitors(rows))
            found += sound
            query = self._session.query(MONITORS, f"tag:({selected})", window, started, len(rows))
            part.queries.append(query.model_copy(update={"truncated": len(rows) >= PAGE and page == MOST_PAGES - 1}))
            not_understood(part, len(rows) - len(sound), query.text)
            if len(rows) < PAGE:
                return found
        part.gap(GapReason.TRUNCATED, f"only {len(found)} monitors tagged {selected} were read")
        return found

    def _status(self, scope: Scope, component: str, monitor: _Monitor) -> Status:
        """What it says now. One that alerted long before, is muted, or tells the symptom again is a state, no more."""
        state, since = monitor.overall_state or "Unknown", monitor.since
        observed = _OBSERVED.get(state, 0.0)
        old = since is not None and since < min(w.start for w in _known(scope))
        judged = state in _OBSERVED and scope.alarm_is_lead(component) and not (old or monitor.muted)
        detail = [state, f"since {since:%Y-%m-%d %H:%M} UTC" if since else "", "muted" if monitor.muted else ""]
        return Status(
            component=component,
            name=f"datadog.monitor:{monitor.name or monitor.id}"[:NAME_LENGTH],
            at=self._clock.now().astimezone(UTC),
            observed=observed,
            expected=0.0 if judged else None,
            detail=", ".join(part for part in detail if part) + f": {monitor.query}"[:NAME_LENGTH],
        )


def _known(scope: Scope) -> tuple[Window, ...]:
    return (scope.incident, *scope.baseline)


def _monitors(rows: Sequence[JsonValue]) -> Iterator[_Monitor]:
    for row in rows:
        try:
            yield _Monitor.model_validate(row)
        except ValidationError:
            continue


def _watched(monitor: _Monitor, scope: Scope) -> SeriesRef | None:
    """The metric part of the monitor's query, narrowed to the group that alerted; None if there is none."""
    asked = _COMPARISON.sub("", _EVALUATION.sub("", monitor.query or "")).strip()
    terms = list(METRIC_TERM.finditer(asked))
    if not terms or not _EVALUATION.match(monitor.query or ""):
        return None
    query = METRIC_TERM.sub(lambda term: _narrowed(term, scope.symptom.resources), asked)
    name = "/".join(dict.fromkeys(term["metric"] for term in terms))
    statistic = "sum" if ".as_count()" in asked else terms[0]["space"] or "avg"
    return metric_ref(scope.service, name, statistic, query)


def _narrowed(term: re.Match[str], resources: Mapping[str, str]) -> str:
    """``{service:pay} by {host}`` as ``{service:pay,host:ip-10-0-1-7}``: of many groups, one is alerted on."""
    selected = term["scope"].strip() or "*"
    keys = [key.strip() for key in (term["by"] or "").split(",") if key.strip()]
    chosen = [metric_tag(f"{key}:{resources[key]}") for key in keys if resources.get(key)]
    if chosen and selected != "*" and re.search(r"\b(AND|OR|NOT|IN)\b", selected):
        selected = " AND ".join([f"({selected})", *chosen])
    elif chosen:
        selected = ",".join([part for part in (selected,) if part != "*"] + chosen)
    space = f"{term['space']}:" if term["space"] else ""
    return f"{space}{term['metric']}{{{selected}}}{term['functions']}"
