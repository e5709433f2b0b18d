"""Who may approve what, and when nothing may run: ``policy:`` of ``autopilot.yaml``. Pure.

The planner shows what the policy asks for (``Needs``), the decision service enforces it, and the ledger enforces again
what may have changed since: the kill switch, the actions per hour, and a freeze window that began before anything did.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from functools import cached_property
from hashlib import sha256
from json import dumps
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from executors.base import AnyOperation, Risk
from graph.state import Needs, PlanStep, Role, Severity

RISKS: tuple[Risk, ...] = ("none", "low", "medium", "high")
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "info")
ROLES: tuple[Role, ...] = ("viewer", "responder", "admin")
DEFAULT_ROLES: Mapping[Risk, Role] = {"none": "responder", "low": "responder", "medium": "responder", "high": "admin"}
DEFAULT_APPROVALS: Mapping[Risk, int] = {"none": 1, "low": 1, "medium": 1, "high": 2}
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MINUTES_A_DAY = 24 * 60


class PolicyModel(BaseModel):
    """Immutable; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


People = Annotated[int, Field(ge=1, le=5)]
"""How many different people must say yes."""


def _base_60(value: object) -> object:
    """YAML reads an unquoted 22:00 as a number to the base of 60."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        return value
    minutes, seconds = divmod(value, 60) if value >= MINUTES_A_DAY else (value, 0)
    return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"


TimeOfDay = Annotated[time, BeforeValidator(_base_60)]


class OperationRule(PolicyModel):
    """What one operation takes, whatever its risk; the stricter of the two holds."""

    role: Role | None = None
    approvals: People = Field(default=1, description="By so many different people")
    allowed: bool = Field(default=True, description="false: never, in this installation")


class Weekly(PolicyModel):
    """Hours of the week, by the wall clock of a place."""

    weekdays: tuple[Weekday, ...] = Field(
        default=(), description="Every week; hours past midnight are of the day before"
    )
    hours: tuple[TimeOfDay, TimeOfDay] | None = Field(
        default=None, description="From and until, of each day; may pass midnight"
    )
    timezone: str = Field(default="UTC", description="Of weekdays and hours, e.g. Asia/Seoul")

    @model_validator(mode="after")
    def _are_hours(self) -> Self:
        if self.hours and self.hours[0] == self.hours[1]:
            raise ValueError("hours begin and end at the same time; leave them out to mean the whole day")
        if self.hours and any(hour.tzinfo for hour in self.hours):
            raise ValueError("hours have no offset of their own: set timezone")
        try:
            ZoneInfo(self.timezone)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"there is no time zone {self.timezone!r}; give its name, e.g. Asia/Seoul") from error
        return self

    def covers(self, at: datetime) -> bool:
        """Whether that moment lies within them."""
        local = at.astimezone(ZoneInfo(self.timezone))
        begin, end = self.hours or (time.min, time.max)
        now, day = local.time(), local.weekday()
        if begin < end:
            return self._on(day) and (self.hours is None or begin <= now < end)
        return (now >= begin and self._on(day)) or (now < end and self._on(day - 1))

    def _on(self, day: int) -> bool:
        return not self.weekdays or WEEKDAYS[day % 7] in self.weekdays


class FreezeWindow(Weekly):
    """When nothing may be changed but what ``allow`` lists: once, from … until, or every week."""

    name: str = Field(min_length=1)
    since: AwareDatetime | None = Field(default=None, alias="from", description="With its offset: …T00:00:00+09:00")
    until: AwareDatetime | None = None
    services: tuple[str, ...] = Field(default=(), description="Empty: all")
    allow: tuple[str, ...] = Field(default=("check_ecs_health",), description="Operations that run all the same")

    @model_validator(mode="after")
    def _is_some_time(self) -> Self:
        if not (self.since or self.until or self.weekdays or self.hours):
            raise ValueError("a freeze window needs from and until, or weekdays, or hours")
        if self.since and self.until and self.since >= self.until:
            raise ValueError("from must lie before until")
        return self

    def covers(self, at: datetime) -> bool:
        """Whether it is in force at that moment."""
        if (self.since and at < self.since) or (self.until and at >= self.until):
            return False
        return super().covers(at)

    def __str__(self) -> str:
        """Its name, and when it is over."""
        begin_end = f"{self.hours[0]:%H:%M} to {self.hours[1]:%H:%M}" if self.hours else ""
        weekly = " ".join(filter(None, (", ".join(self.weekdays), begin_end)))
        until = f"until {self.until:%Y-%m-%d %H:%M %Z}" if self.until else ""
        told = ", ".join(filter(None, (f"{weekly} {self.timezone}" if weekly else "", until)))
        return f"{self.name!r} ({told})" if told else repr(self.name)


class QuietHours(Weekly):
    """When people are not told of what can wait until they are over."""

    severities: tuple[Severity, ...] = Field(default=("warning", "info"), description="Of incidents that can wait")

    @model_validator(mode="after")
    def _end(self) -> Self:
        if not self.hours and set(self.weekdays or WEEKDAYS) == set(WEEKDAYS):
            raise ValueError("quiet hours need hours, or some of the weekdays: nobody would ever be told")
        return self

    def end(self, at: datetime) -> datetime:
        """When they are over, of a moment that they cover; others may begin then."""
        zone = ZoneInfo(self.timezone)
        local = at.astimezone(zone)
        until = self.hours[1] if self.hours else time.min
        day = local.date() if self.hours and local.time() < until else local.date() + timedelta(days=1)
        return datetime.combine(day, until, tzinfo=zone).astimezone(UTC)


TicketOn = Literal["opened", "awaiting_decision", "manual", "escalation", "needs_attention"]


class Messages(PolicyModel):
    """Who is told of what, and when."""

    quiet_hours: tuple[QuietHours, ...] = Field(
        default=(),
        description="People are told afterwards; programs (webhook) at once, and where nobody decides, or it needs"
        " attention, everybody",
    )
    least_severity: dict[str, Severity] = Field(
        default_factory=dict,
        description="Of incidents that a notifier tells of by itself, by its name; pagerduty: critical, others: info."
        " Where nobody decides, or it needs attention, severity does not matter",
    )
    tickets_on: tuple[TicketOn, ...] = Field(default=("manual",), description="When a ticket is made")
    default_team: str = Field(default="", description="Is told where nobody owns the service; one of teams:")
    default_channel: str = Field(
        default="", description="In Slack, for teams without a channel, and where theirs could not be told"
    )

    @field_validator("quiet_hours", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _leave_some_time(self) -> Self:
        for severity in SEVERITIES:
            until = self.held_until(severity, datetime(2026, 1, 5, tzinfo=UTC))
            if until and self._quiet(severity, until):
                raise ValueError(f"quiet hours leave no time at which anybody is told of {severity} incidents")
        return self

    def held_until(self, severity: Severity, at: datetime) -> datetime | None:
        """When people may be told of an incident of that severity; None: now."""
        until = at
        for _ in range(2 * len(self.quiet_hours) * len(WEEKDAYS)):  # the end of one may lie within another
            quiet = self._quiet(severity, until)
            if quiet is None:
                break
            until = quiet.end(until)
        return until if until > at else None

    def _quiet(self, severity: Severity, at: datetime) -> QuietHours | None:
        return next((q for q in self.quiet_hours if severity in q.severities and q.covers(at)), None)

    def concerns(self, notifier: str, severity: Severity) -> bool:
        """Whether it tells of incidents of that severity by itself."""
        least = self.least_severity.get(notifier, "critical" if notifier == "pagerduty" else "info")
        return SEVERITIES.index(severity) <= SEVERITIES.index(least)


class ErrorBudget(PolicyModel):
    """What happens once a service's error budget (``slo_percent`` of the catalogue) is spent."""

    window_days: int = Field(default=30, ge=1, le=365)
    when_spent: Literal["admin", "refuse"] = "admin"
    risks: tuple[Risk, ...] = Field(default=("medium", "high"), description="For options of these risks")


class Waiting(PolicyModel):
    """How long a plan waits for a person; minutes of the wall clock."""

    ttl_minutes: float = Field(default=30.0, gt=0, description="Then its options are too old to be approved")
    remind_after_minutes: float = Field(default=10.0, gt=0)
    escalate_after_minutes: float = Field(default=20.0, gt=0)

    @model_validator(mode="after")
    def _in_their_order(self) -> Self:
        if not self.remind_after_minutes <= self.escalate_after_minutes <= self.ttl_minutes:
            raise ValueError("remind_after_minutes, escalate_after_minutes and ttl_minutes must ascend")
        return self


class Policy(PolicyModel):
    """``policy:`` of autopilot.yaml."""

    roles: dict[Risk, Role] = Field(
        default_factory=dict, description="The role that approves each risk; unnamed ones keep their default"
    )
    approvals: dict[Risk, People] = Field(
        default_factory=dict, description="How many different people approve each risk; high: 2 unless said otherwise"
    )
    operations: dict[str, OperationRule] = Field(default_factory=dict)
    requester_may_approve: bool = Field(default=True, description="false: whoever opened the incident may not approve")
    freeze_windows: tuple[FreezeWindow, ...] = ()
    error_budget: ErrorBudget | None = None
    actions_per_service_hour: int = Field(default=10, ge=1, description="Changes of one service within an hour")
    protected_services: tuple[str, ...] = Field(default=(), description="Never changed by the product")
    dry_run_environments: tuple[str, ...] = Field(default=(), description="Nothing is changed there, only told")
    undo_when_worse: Literal["at_once", "ask"] = "at_once"
    waiting: Waiting = Waiting()
    messages: Messages = Messages()

    @cached_property
    def version(self) -> str:
        """Changes with every change of what may be run; part of each plan's digest."""
        rules = self.model_dump(mode="json", exclude={"messages"})
        return sha256(dumps(rules, sort_keys=True).encode()).hexdigest()[:12]

    def dry_run_only(self, environment: str) -> bool:
        """Whether nothing may be changed in an environment."""
        return environment in self.dry_run_environments

    def role_for(self, risk: Risk, operation: str = "") -> Role:
        """The role that approves a risk, or an operation of it."""
        named = self.operations.get(operation, OperationRule()).role
        return max({**DEFAULT_ROLES, **self.roles}[risk], named or "viewer", key=ROLES.index)

    def needs(self, asked: "Asked", facts: "Facts") -> Needs:
        """What an option takes, and why it may not run now; pure, so the same for whoever asks."""
        spent = self._spent(asked, facts)
        rules = [*self._rules(asked), *([("admin", 1, spent)] if spent and self._takes_admin else [])]
        strict = ((role, people, why) for role, people, why in rules if people > 1 or role == "admin")
        return Needs(
            role=max((role for role, _, _ in rules), key=ROLES.index),
            approvals=max(people for _, people, _ in rules),
            not_by="" if self.requester_may_approve else facts.requester,
            dry_run=self.dry_run_only(asked.environment),
            refused=(*self.forbids(asked), *self._not_now(asked, facts, "" if self._takes_admin else spent)),
            why=tuple(dict.fromkeys(why for _, _, why in strict)),
        )

    def forbids(self, asked: "Asked") -> tuple[str, ...]:
        """Why it may never run, whatever the hour and whoever approves it; empty: it may."""
        disallowed = [name for name in asked.operations if not self._rule(name).allowed]
        protected = [name for name in asked.services if name in self.protected_services and asked.changes]
        return (
            *dict.fromkeys(f"the policy does not allow {name} (policy.operations)" for name in disallowed),
            *dict.fromkeys(f"{name} is protected: the policy lets nobody change it from here" for name in protected),
        )

    def windows(self, changing: Collection[str], services: Collection[str], at: datetime) -> Iterable[FreezeWindow]:
        """The freeze windows that stand against these operations on these services at that moment."""
        for window in self.freeze_windows:
            concerned = not window.services or set(window.services) & set(services)
            if concerned and window.covers(at) and not set(changing) <= set(window.allow):
                yield window

    @property
    def _takes_admin(self) -> bool:
        """A spent error budget takes an admin; otherwise it refuses."""
        return self.error_budget is not None and self.error_budget.when_spent == "admin"

    def _rule(self, operation: str) -> OperationRule:
        return self.operations.get(operation, OperationRule())

    def _rules(self, asked: "Asked") -> Iterable[tuple[Role, int, str]]:
        """Role and people that the risk asks for, and each operation; the strictest of them hold."""
        people = {**DEFAULT_APPROVALS, **self.approvals}[asked.risk]
        yield self.role_for(asked.risk), people, f"{asked.risk} risk"
        for name in asked.operations:
            rule = self._rule(name)
            yield rule.role or "viewer", rule.approvals, f"the policy for {name}"

    def _not_now(self, asked: "Asked", facts: "Facts", spent: str) -> Iterable[str]:
        """What may be otherwise in an hour."""
        if not asked.changes:
            return
        if facts.frozen:
            yield facts.frozen
        for service, planned in Counter(asked.services).items():
            made, most = facts.actions.get(service, 0), self.actions_per_service_hour
            if made + planned > most:
                yield (
                    f"{service} was changed {made} times within the last hour and the policy allows {most} changes"
                    f" an hour: this would be {planned} more"
                )
        for window in self.windows(asked.changing, asked.services, facts.now):
            yield f"the freeze window {window} is in force"
        if spent:
            yield spent

    def _spent(self, asked: "Asked", facts: "Facts") -> str:
        if self.error_budget is None or asked.risk not in self.error_budget.risks or not asked.changes:
            return ""
        spent = dict.fromkeys(s for s in asked.services if facts.budget_spent.get(s, 0.0) >= 1.0)
        return f"the error budget of {', '.join(spent)} is spent" if spent else ""


class Asked(PolicyModel):
    """What is to be allowed: an option, or the approved steps of one."""

    risk: Risk
    operations: tuple[str, ...]
    changing: tuple[str, ...] = Field(description="Those of them that change something")
    services: tuple[str, ...] = Field(description="That are changed: once for each change")
    environment: str = ""

    @classmethod
    def of(
        cls, steps: Iterable[PlanStep], operations: Mapping[str, AnyOperation], environment: str, risk: Risk = "none"
    ) -> Self:
        """What these steps ask for; at least of that risk. What is not registered changes what nobody knows."""
        steps = tuple(steps)
        known = [(step, operations[step.operation]) for step in steps if step.operation in operations]
        changing = [(step, operation) for step, operation in known if not operation.read_only]
        return cls(
            risk=strictest((risk, *(operation.risk for _, operation in known))),
            operations=tuple(dict.fromkeys(step.operation for step in steps)),
            changing=tuple(dict.fromkeys(step.operation for step, _ in changing)),
            services=tuple(service for step, operation in changing for service in services_of(step, operation)),
            environment=environment,
        )

    @property
    def changes(self) -> bool:
        """Something would be changed."""
        return bool(self.changing)


def services_of(step: PlanStep, operation: AnyOperation) -> tuple[str, ...]:
    """The services that a step changes; none where its params are none."""
    if operation.read_only:
        return ()
    try:
        return operation.services(operation.params.model_validate(step.params))
    except ValidationError:
        return ()


class Facts(PolicyModel):
    """What the policy must know of the world at a moment."""

    now: AwareDatetime
    requester: str = Field(default="", description="Who opened the incident, or asked for the plan")
    frozen: str = Field(default="", description="Who pulled the kill switch, when and why; empty: nobody")
    actions: Mapping[str, int] = Field(default_factory=dict, description="Changes of each service in the last hour")
    budget_spent: Mapping[str, float] = Field(default_factory=dict, description="Of each service; 1 is all of it")


def strictest(risks: Sequence[Risk]) -> Risk:
    """The highest of them."""
    return max(risks, key=RISKS.index, default="none")
