"""What an event asks of a ticket: whether it is told there, and where the ticket belongs after it. Pure."""

from collections.abc import Sequence
from typing import Literal

from app.notifiers._jira_types import Transition, TransitionField
from app.notifiers.base import Event, Telling

COMMENTED = frozenset(
    {"decision", "approval", "withdrawal", "step_finished", "recovered", "reopened", "escalation", "expired", "note"}
)
COMMENTED_STATUSES = frozenset({"awaiting_decision", "resolved", "closed", "needs_attention"})
DONE_WORDS = ("done", "fixed", "resolved", "완료", "해결됨")
Belongs = Literal["done", "open"]


def event_kind(event: Event) -> str:
    """The event as ``tickets_on`` names it."""
    if event.kind == "decision" and event.data.get("choice") == "manual":
        return "manual"
    return str(event.data.get("status", "status")) if event.kind == "status" else event.kind


def worth_a_comment(telling: Telling) -> bool:
    """Whether people who look at the ticket are to read of it."""
    event = telling.event
    if event.kind != "status":
        return event.kind in COMMENTED
    status = event.data.get("status")
    return status in COMMENTED_STATUSES and not (status == "closed" and telling.report.by_hand)


def belongs(telling: Telling) -> Belongs | None:
    """Where the ticket is to be after this; None: where it is, as what is done by hand is done there."""
    kind = event_kind(telling.event)
    if kind == "reopened":
        return "open"
    ends = kind in ("resolved", "closed", "recovered")
    return "done" if ends and not telling.report.by_hand else None


def step_to(end: Belongs, offered: Sequence[Transition]) -> Transition | None:
    """The transition to where it belongs, by the category of its end; open: rather in progress than to do."""
    wanted = ("done",) if end == "done" else ("indeterminate", "new")
    fit = (t for category in wanted for t in offered if t.to.status_category.key == category)
    return next((t for t in fit if all(f in demanded(t) for f, meta in t.fields.items() if _asked(meta))), None)


def _asked(meta: TransitionField) -> bool:
    return meta.required and not meta.has_default_value


def demanded(step: Transition) -> dict[str, str]:
    """The resolution, where the transition asks for one: «Done» or the like, else the first there is."""
    meta = step.fields.get("resolution")
    if meta is None or not _asked(meta) or not meta.allowed_values:
        return {}
    named = {value.name.casefold(): value.id for value in meta.allowed_values}
    return {"resolution": next((named[w] for w in DONE_WORDS if w in named), meta.allowed_values[0].id)}
