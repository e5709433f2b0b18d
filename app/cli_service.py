"""The service, as the command line asks it: over its API, with a person's key.

Exit code 1: it was refused; 2: the service cannot be reached, or does not know who asks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar
from urllib.parse import quote

import typer

from app.terminal import say, stop

if TYPE_CHECKING:
    from httpx import HTTPError, InvalidURL, Response
    from pydantic import BaseModel, JsonValue, SecretStr

    M = TypeVar("M", bound=BaseModel)

REFUSED, NOT_REACHED = 1, 2
ANSWERS_WITHIN_S, CONNECTS_WITHIN_S = 60.0, 5.0  # a decision reads its targets first

Incident = Annotated[str, typer.Argument(help="Its id; see `autopilot incidents`")]
Url = Annotated[str, typer.Option("--url", help="Where the service is, if not at AUTOPILOT_PUBLIC_URL")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the API's answer, also where it refuses")]


def incident_path(incident: str) -> str:
    """Of the API."""
    return f"/incidents/{quote(incident, safe='')}"


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
            stop(_silence(self.url, error, changes=method != "GET"), NOT_REACHED)
        if self.as_json:
            say(answer.text)
        if not answer.is_success:
            self._refused(answer)
        try:
            return kind.model_validate_json(answer.content)
        except ValidationError:
            stop(f"{self.url} answers, but not as this version expects: is it this product, and as new?", NOT_REACHED)

    def _refused(self, answer: "Response") -> NoReturn:
        from pydantic import ValidationError

        from app.api.problems import Problem

        try:
            problem = Problem.model_validate_json(answer.content)
        except ValidationError:
            stop(f"{self.url} answers {answer.status_code}, and not as this product does.", NOT_REACHED)
        if answer.status_code == 401:
            stop("This key is not valid: set AUTOPILOT_API_KEY to one of `autopilot keys create NAME`.", NOT_REACHED)
        said = "\n".join((problem.detail, *problem.errors))
        stop(said, NOT_REACHED if answer.is_server_error else REFUSED)

    def refuse(self, said: str) -> NoReturn:
        """Say why nothing is asked of the service."""
        stop(said, REFUSED)


def service_at(url: str, as_json: bool) -> Service:
    """At that URL, or at AUTOPILOT_PUBLIC_URL. Exits where no key is set."""
    from app.settings import Settings

    settings = Settings()
    base = (url or settings.public_url).rstrip("/")
    if not base.startswith(("http://", "https://")):
        raise typer.BadParameter("it begins with http:// or https://", param_hint="--url")
    if settings.api_key is None:
        stop("You are not signed in: set AUTOPILOT_API_KEY to a key of `autopilot keys create NAME`.", NOT_REACHED)
    return Service(base, settings.api_key, as_json)


def _silence(url: str, error: "HTTPError | InvalidURL", *, changes: bool) -> str:
    """Not the error's own words: they may hold the key."""
    import httpx

    said = f"{url} cannot be reached ({type(error).__name__}): is `autopilot serve` running there?"
    if changes and not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.InvalidURL):
        said += " It may have heard you all the same: look with `autopilot actions` before you try again."
    return said
