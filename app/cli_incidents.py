"""The commands for incidents and decisions. They call the API: checks and record are those of all doors.

Exit code 1: it was refused; 2: the service cannot be reached, or does not know who asks.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn, TypeVar
from urllib.parse import quote

import typer

if TYPE_CHECKING:
    from httpx import HTTPError, InvalidURL, Response
    from pydantic import BaseModel, JsonValue, SecretStr
    from rich.console import RenderableType

    from app.decisions import Offers

    M = TypeVar("M", bound=BaseModel)

REFUSED, NOT_REACHED = 1, 2
ANSWERS_WITHIN_S, CONNECTS_WITHIN_S = 60.0, 5.0  # a decision reads its targets first

commands = typer.Typer()
ChoiceName = Literal["1", "2", "3", "manual", "re_analyze", "re_plan", "undo"]
Incident = Annotated[str, typer.Argument(help="Its id; see `autopilot incidents`")]
Url = Annotated[str, typer.Option("--url", help="Where the service is, if not at AUTOPILOT_PUBLIC_URL")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the API's answer, also where it refuses")]


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
    page = _service(url, as_json).get(IncidentPage, "/incidents", wanted)
    if not as_json:
        _show([incident_table(page.incidents)] if page.incidents else ["There is no such incident."])


@commands.command("actions")
def actions(incident: Incident, url: Url = "", as_json: AsJson = False) -> None:
    """Show the proposed options: steps, checks, blast radius, what they take, until when, and who approved."""
    offers = _offers(_service(url, as_json), incident)
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
    service, ordinals = _service(url, as_json), _ordinals(steps)
    seen = revision if yes else _seen(service, incident, choice, ordinals, revision)
    body: dict[str, JsonValue] = {
        "plan_revision": seen,
        "choice": choice,
        "steps": list(ordinals),
        "hint": hint,
        "note": note,
    }
    outcome = service.send(Outcome, "POST", f"{_path(incident)}/decision", body)
    if as_json:
        return
    if outcome.report:
        _say(
            f"Decided: {outcome.by} takes {incident} by hand, with the report at {service.url}{outcome.report}."
            f" `autopilot note {incident} …` keeps what was done."
        )
    elif outcome.status == "decided":
        _say(f"Decided: {outcome.by} chose {outcome.choice}. `autopilot actions {incident}` shows how it goes on.")
    else:
        _say(f"Your approval of {outcome.choice} is stored; people who must approve the same: {outcome.missing} more.")


@commands.command("withdraw")
def withdraw(incident: Incident, url: Url = "", as_json: AsJson = False) -> None:
    """Take back your decision before anything of it has begun, or your approval that waits."""
    from app.decisions import Withdrawn

    taken = _service(url, as_json).send(Withdrawn, "DELETE", f"{_path(incident)}/decision")
    if not as_json:
        _say(f"The {taken.what} of {taken.choice} is withdrawn.")


@commands.command("note")
def note(
    incident: Incident,
    text: Annotated[str, typer.Argument(help="What was done by hand")],
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Note what was done by hand, in the timeline and the audit log; also after the incident was closed."""
    from app.api.decisions import Noted

    noted = _service(url, as_json).send(Noted, "POST", f"{_path(incident)}/notes", {"text": text})
    if not as_json:
        _say(f"Noted by {noted.by}.")


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

    known = _service(url, as_json).get(
        RootModel[list[Figures]], "/decisions/figures", {"days": str(days), "timezone": timezone}
    )
    if not as_json:
        _show([figure_table(known.root)] if known.root else [f"Nobody decided anything in {days} days."])


# --- what was seen before it is decided ---


def _seen(service: "Service", incident: str, choice: str, steps: Sequence[int], revision: str) -> str:
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


def _offers(service: "Service", incident: str) -> "Offers":
    from app.decisions import Offers

    return service.get(Offers, f"{_path(incident)}/actions")


def _ordinals(steps: str) -> tuple[int, ...]:
    try:
        return tuple(int(n) for n in steps.split(",") if n.strip())
    except ValueError:
        raise typer.BadParameter("write numbers with commas between them, e.g. 1,2", param_hint="--steps") from None


def _path(incident: str) -> str:
    return f"/incidents/{quote(incident, safe='')}"


def _show_offers(offers: "Offers") -> None:
    from app.offer_report import offer_parts

    _show(offer_parts(offers))


# --- the API ---


@dataclass(frozen=True)
class Service:
    """The API at a URL, as the person whose key this is."""

    url: str
    key: "SecretStr"
    as_json: bool  # print each answer as it comes

    def get(self, kind: "type[M]", path: str, wanted: Mapping[str, str] | None = None) -> "M":
        """What is there. Exits where it is refused, or nobody answers."""
        return self._call(kind, "GET", path, params=wanted)

    def send(self, kind: "type[M]", method: str, path: str, body: "Mapping[str, JsonValue] | None" = None) -> "M":
        """What came of it. Exits likewise."""
        return self._call(kind, method, path, body=body)

    def _call(
        self,
        kind: "type[M]",
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        body: "Mapping[str, JsonValue] | None" = None,
    ) -> "M":
        import httpx
        from pydantic import ValidationError

        headers = {"Authorization": f"Bearer {self.key.get_secret_value()}", "X-AIOps-Via": "cli"}
        timeout = httpx.Timeout(ANSWERS_WITHIN_S, connect=CONNECTS_WITHIN_S)
        try:
            answer = httpx.request(
                method, f"{self.url}{path}", params=params, json=body, headers=headers, timeout=timeout
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            _stop(_silence(self.url, error, changes=method != "GET"), NOT_REACHED)
        if self.as_json:
            _say(answer.text)
        if not answer.is_success:
            self._refused(answer)
        try:
            return kind.model_validate_json(answer.content)
        except ValidationError:
            _stop(f"{self.url} answers, but not as this version expects: is it this product, and as new?", NOT_REACHED)

    def _refused(self, answer: "Response") -> NoReturn:
        from pydantic import ValidationError

        from app.api.problems import Problem

        try:
            problem = Problem.model_validate_json(answer.content)
        except ValidationError:
            _stop(f"{self.url} answers {answer.status_code}, and not as this product does.", NOT_REACHED)
        if answer.status_code == 401:
            _stop("This key is not valid: set AUTOPILOT_API_KEY to one of `autopilot keys create NAME`.", NOT_REACHED)
        said = "\n".join((problem.detail, *problem.errors))
        _stop(said, NOT_REACHED if answer.is_server_error else REFUSED)

    def refuse(self, said: str) -> NoReturn:
        """Say why nothing is asked of the service."""
        _stop(said, REFUSED)


def _service(url: str, as_json: bool) -> Service:
    from app.settings import Settings

    settings = Settings()
    base = (url or settings.public_url).rstrip("/")
    if not base.startswith(("http://", "https://")):
        raise typer.BadParameter("it begins with http:// or https://", param_hint="--url")
    if settings.api_key is None:
        _stop("You are not signed in: set AUTOPILOT_API_KEY to a key of `autopilot keys create NAME`.", NOT_REACHED)
    return Service(base, settings.api_key, as_json)


def _silence(url: str, error: "HTTPError | InvalidURL", *, changes: bool) -> str:
    """Not the error's own words: they may hold the key."""
    import httpx

    said = f"{url} cannot be reached ({type(error).__name__}): is `autopilot serve` running there?"
    if changes and not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.InvalidURL):
        said += " It may have heard you all the same: look with `autopilot actions` before you try again."
    return said


# --- the terminal ---


def _stop(said: str, code: int) -> NoReturn:
    _say(f"autopilot: {said}", err=True)
    raise typer.Exit(code)


def _say(text: str, *, err: bool = False) -> None:
    from app.evaluation import printable

    typer.echo(printable(text), err=err)


def _show(parts: "Iterable[RenderableType]") -> None:
    from rich.console import Console

    console = Console(width=120, highlight=False, markup=False)
    for part in parts:
        console.print(part)
