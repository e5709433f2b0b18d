"""The commands for incidents and decisions. They call the API: checks and record are those of all doors."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from app.cli_service import AsJson, Incident, Service, Url, incident_path, service_at
from app.terminal import say, show

if TYPE_CHECKING:
    from pydantic import JsonValue

    from app.decisions import Offers

commands = typer.Typer()
ChoiceName = Literal["1", "2", "3", "manual", "re_analyze", "re_plan", "undo"]
AboutName = Literal["report", "option", "verification"]
OpinionName = Literal["right", "wrong", "partly"]


@commands.command("incidents")
def incidents(
    status: Annotated[str, typer.Option(help="Only these, e.g. awaiting_decision")] = "",
    service: Annotated[str, typer.Option(help="Only of this service")] = "",
    limit: Annotated[int, typer.Option(help="How many", min=1, max=200)] = 20,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """List incidents, newest first."""
    from app.api.incidents import IncidentPage
    from app.offer_report import incident_table

    wanted = {"limit": str(limit), **{k: v for k, v in (("status", status), ("service", service)) if v}}
    page = service_at(url, as_json).get(IncidentPage, "/incidents", wanted)
    if not as_json:
        show([incident_table(page.incidents)] if page.incidents else ["There is no such incident."])


@commands.command("actions")
def actions(incident: Incident, url: Url = "", as_json: AsJson = False) -> None:
    """Show the proposed options: steps, checks, blast radius, what they take, until when, and who approved."""
    offers = _offers(service_at(url, as_json), incident)
    if not as_json:
        _show_offers(offers)


@commands.command("decide")
def decide(
    incident: Incident,
    choice: Annotated[ChoiceName, typer.Argument(help="An option's number, or what else to do")],
    revision: Annotated[str, typer.Option(help="Of the plan you saw; without it, it is shown now")] = "",
    steps: Annotated[str, typer.Option(help="Only these steps of the option, e.g. 1,2")] = "",
    hint: Annotated[str, typer.Option(help="For re_analyze: where to look, since when")] = "",
    note: Annotated[str, typer.Option(help="For the record")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; only with --revision")] = False,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Decide on the plan of that revision. Without --yes the plan is shown first, and you are asked."""
    from app.decisions import Outcome

    if yes and not revision:
        raise typer.BadParameter("--yes needs --revision: nothing is decided on a plan that nobody looked at")
    if as_json and not yes:
        raise typer.BadParameter("--json asks nothing, so it needs --yes and --revision")
    service, ordinals = service_at(url, as_json), _ordinals(steps)
    seen = revision if yes else _seen(service, incident, choice, ordinals, revision)
    body: dict[str, JsonValue] = {
        "plan_revision": seen,
        "choice": choice,
        "steps": list(ordinals),
        "hint": hint,
        "note": note,
    }
    outcome = service.send(Outcome, "POST", f"{incident_path(incident)}/decision", body)
    if as_json:
        return
    if outcome.report:
        say(
            f"Decided: {outcome.by} takes {incident} by hand, with the report at {service.url}{outcome.report}."
            f" `autopilot note {incident} …` keeps what was done."
        )
    elif outcome.status == "decided":
        say(f"Decided: {outcome.by} chose {outcome.choice}. `autopilot actions {incident}` shows how it goes on.")
    else:
        say(f"Your approval of {outcome.choice} is stored; people who must approve the same: {outcome.missing} more.")


@commands.command("withdraw")
def withdraw(incident: Incident, url: Url = "", as_json: AsJson = False) -> None:
    """Take back your decision before anything of it has begun, or your approval that waits."""
    from app.decisions import Withdrawn

    taken = service_at(url, as_json).send(Withdrawn, "DELETE", f"{incident_path(incident)}/decision")
    if not as_json:
        say(f"The {taken.what} of {taken.choice} is withdrawn.")


@commands.command("note")
def note(
    incident: Incident,
    text: Annotated[str, typer.Argument(help="What was done by hand")],
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Note what was done by hand, in the timeline and the audit log; also after the incident was closed."""
    from app.api.decisions import Noted

    noted = service_at(url, as_json).send(Noted, "POST", f"{incident_path(incident)}/notes", {"text": text})
    if not as_json:
        say(f"Noted by {noted.by}.")


@commands.command("feedback")
def feedback(
    incident: Incident,
    verdict: Annotated[OpinionName | None, typer.Option(help="Without it, what was said so far is shown")] = None,
    on: Annotated[AboutName, typer.Option(help="What you judge")] = "report",
    option: Annotated[int, typer.Option(help="Which one, of --on option", min=0, max=3)] = 0,
    revision: Annotated[str, typer.Option(help="Of the plan, if it is not the newest that is meant")] = "",
    component: Annotated[str, typer.Option(help="The true cause, if the report names another")] = "",
    category: Annotated[str, typer.Option(help="Its kind, e.g. connection_pool_exhaustion")] = "",
    helped: Annotated[str, typer.Option(help="What really helped: operations with commas between, or in words")] = "",
    note: Annotated[str, typer.Option(help="For the record")] = "",
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Say whether the report, an option or a verification was right; it counts at once, and can be changed."""
    from app.feedback import Given, Overview
    from app.offer_report import feedback_parts

    service, path = service_at(url, as_json), f"{incident_path(incident)}/feedback"
    if verdict is None:
        overview = service.get(Overview, path)
        if not as_json:
            show(feedback_parts(overview))
        return
    body: dict[str, JsonValue] = {
        "about": on,
        "verdict": verdict,
        "option": option,
        "plan_revision": revision,
        "component": component,
        "category": category,
        "helped": helped,
        "note": note,
    }
    given = service.send(Given, "POST", path, body)
    if not as_json:
        counts = ", ".join(f"{number} {word}" for word, number in given.counts.items())
        say(f"Stored{', in place of what you said before' if given.replaced else ''}. All in all: {counts}.")
        if given.stands.by != given.said.by:
            say(f"What counts is {given.stands.by}'s word ({given.stands.role}): {given.stands.verdict}.")


@commands.command("decisions")
def decisions(
    days: Annotated[int, typer.Option(help="So far back", min=1, max=365)] = 28,
    timezone: Annotated[str, typer.Option(help="In which it is night, e.g. Asia/Seoul")] = "UTC",
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Show how teams and people decide: how fast, having looked at evidence or not, at night, refused how often."""
    from pydantic import RootModel

    from app.decisions import Figures
    from app.offer_report import figure_table

    known = service_at(url, as_json).get(
        RootModel[list[Figures]], "/decisions/figures", {"days": str(days), "timezone": timezone}
    )
    if not as_json:
        show([figure_table(known.root)] if known.root else [f"Nobody decided anything in {days} days."])


# --- what was seen before it is decided ---


def _seen(service: Service, incident: str, choice: str, steps: Sequence[int], revision: str) -> str:
    """The revision of the plan that is shown, once somebody says yes to it."""
    offers = _offers(service, incident)
    _show_offers(offers)
    waits = offers.plan_revision
    if waits is None:
        service.refuse(f"No decision is awaited: the incident is {offers.status.replace('_', ' ')}.")
    if revision and waits != revision:
        service.refuse(f"The plan has changed: it is at revision {waits} now, you named {revision}. It is shown above.")
    only = f" (only step {', '.join(map(str, steps))})" if steps else ""
    typer.confirm(f"\nDecide {choice}{only} on plan {waits}?", abort=True)
    return waits


def _offers(service: Service, incident: str) -> "Offers":
    from app.decisions import Offers

    return service.get(Offers, f"{incident_path(incident)}/actions")


def _ordinals(steps: str) -> tuple[int, ...]:
    try:
        return tuple(int(n) for n in steps.split(",") if n.strip())
    except ValueError:
        raise typer.BadParameter("write numbers with commas between them, e.g. 1,2", param_hint="--steps") from None


def _show_offers(offers: "Offers") -> None:
    from app.offer_report import offer_parts

    show(offer_parts(offers))
