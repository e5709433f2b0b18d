"""The fields of a new issue, as far as its project has them; what it asks for besides is told by name. Pure."""

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from app.notifiers._jira_api import Mendable
from app.notifiers._jira_types import FieldMeta, Named
from graph.catalogue import JiraProject
from graph.state import Severity

PRIORITIES: Mapping[Severity, tuple[str, ...]] = {
    "critical": ("highest", "critical", "blocker", "p1", "urgent", "high"),
    "warning": ("high", "major", "p2", "medium", "normal"),
    "info": ("low", "minor", "p4", "p3", "lowest", "trivial"),
}
"""Names that sites give their priorities, the best first."""
EXTRA = "AUTOPILOT_JIRA_FIELDS"


def type_id(types: Sequence[Named], where: JiraProject, team: str) -> str:
    """Of the team's issue type. Raises Mendable naming those that there are."""
    found = _named(types, where.issue_type)
    if found is None:
        names = ", ".join(t.name for t in types) or "none"
        raise Mendable(
            f"The Jira project {where.project} has no issue type {where.issue_type!r} ({names}): correct"
            f" teams.{team}.jira.issue_type in autopilot.yaml."
        )
    return found.id


def fields(
    screen: Sequence[FieldMeta],
    where: JiraProject,
    team: str,
    severity: Severity,
    written: Mapping[str, JsonValue],
    extra: Mapping[str, JsonValue],
) -> dict[str, JsonValue]:
    """All that the screen has room for: what is ``written`` of the incident, the team's, and the site's own ``extra``.

    Raises Mendable: a field is asked for that nobody fills, or a value is not one of Jira's.
    """
    known = {f.field_id: f for f in screen}
    _demand_labels(known, where)
    filled = {**written, **_component(known, where, team), **_priority(known, severity)}
    if where.assignee:
        filled["assignee"] = {"accountId": where.assignee}
    kept = {name: value for name, value in filled.items() if name in known or name in ("project", "issuetype")}
    kept |= extra
    missing = [f for f in screen if f.required and not f.has_default_value and f.field_id not in kept]
    if missing:
        names = ", ".join(f"{f.name} ({f.field_id})" for f in missing)
        sample = ", ".join(f'"{f.field_id}": …' for f in missing)
        raise Mendable(
            f"The Jira project {where.project} asks for {names} in a {where.issue_type}: set {EXTRA}={{{sample}}}, or"
            " make that optional there."
        )
    return kept


def mend(field_id: str, where: JiraProject, team: str) -> str:
    """What to change when Jira refuses a field."""
    ours = {"assignee": "assignee", "components": "component", "issuetype": "issue_type", "project": "project"}
    if field_id in ours:
        return f"correct teams.{team}.jira.{ours[field_id]} in autopilot.yaml"
    return f"set {field_id} in {EXTRA}, or make it optional in the project {where.project}"


def _demand_labels(known: Mapping[str, FieldMeta], where: JiraProject) -> None:
    if "labels" not in known:
        raise Mendable(
            f"The Jira project {where.project} has no field Labels when a {where.issue_type} is made: tickets are known"
            " by their labels. Add it to the create screen of that issue type."
        )


def _component(known: Mapping[str, FieldMeta], where: JiraProject, team: str) -> dict[str, JsonValue]:
    if not where.component:
        return {}
    choices = known["components"].allowed_values if "components" in known else ()
    found = _named(choices, where.component)
    if found is None:
        names = ", ".join(c.name for c in choices) or "none"
        raise Mendable(
            f"The Jira project {where.project} has no component {where.component!r} ({names}): correct"
            f" teams.{team}.jira.component in autopilot.yaml, or add it there."
        )
    return {"components": [{"id": found.id}]}


def _priority(known: Mapping[str, FieldMeta], severity: Severity) -> dict[str, JsonValue]:
    """The site's default where none of its names is known."""
    choices = known["priority"].allowed_values if "priority" in known else ()
    found = next((p for p in (_named(choices, name) for name in PRIORITIES[severity]) if p), None)
    return {"priority": {"id": found.id}} if found else {}


def _named(choices: Sequence[Named], name: str) -> Named | None:
    return next((c for c in choices if c.name.casefold() == name.casefold()), None)
