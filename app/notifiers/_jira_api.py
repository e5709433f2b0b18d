"""Jira Cloud's REST API, version 3: one attempt for each request, its refusals told as sentences."""

from collections.abc import Callable, Mapping

import httpx
from pydantic import JsonValue, SecretStr

from app.notifiers._http import ANSWERS_WITHIN, NEVER_LEFT, retry_after_s
from app.notifiers.base import MENDED_AFTER_S, TryAgain, Undeliverable
from graph.masking import MaskingError

MAX_TOLD = 2_000  # characters of a refusal
UNTOLD_WAIT_S = 10.0  # after a 429 that does not say how long
TOKENS = "https://id.atlassian.com/manage-profile/security/api-tokens"


class Mendable(TryAgain):
    """What somebody can set right, in Jira or in our settings; it keeps one ticket or project from being told."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, MENDED_AFTER_S, of_target=False)


class NotThere(Undeliverable):
    """404: it does not exist, or our account may not see it."""


class NotTaken(Undeliverable):
    """400, 409, 413, 422: Jira understood, and said no. ``fields``: what it said of each field."""

    def __init__(self, detail: str, fields: Mapping[str, str]) -> None:
        super().__init__(detail)
        self.fields = fields


class Jira:
    """The site, as one account sees it."""

    def __init__(
        self,
        url: str,
        email: str,
        api_token: SecretStr,
        mask: Callable[[str], str],
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """``mask`` hides secrets in what Jira says; it may raise MaskingError."""
        self.url, self.email, self._mask = url, email, mask
        self._client = httpx.AsyncClient(
            base_url=url,
            auth=httpx.BasicAuth(email, api_token.get_secret_value()),
            headers={"Accept": "application/json"},
            timeout=ANSWERS_WITHIN,
            transport=transport,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def get(self, path: str, **params: str | int) -> dict[str, JsonValue]:
        """The answer. Raises TryAgain, Undeliverable; Mendable for 403, NotThere for 404."""
        return await self._asked("GET", path, changes=False, params=params)

    async def ask(self, path: str, body: JsonValue) -> dict[str, JsonValue]:
        """The same of a question that is posted."""
        return await self._asked("POST", path, changes=False, json=body)

    async def send(self, method: str, path: str, body: JsonValue) -> dict[str, JsonValue]:
        """Change something; {} where the answer is empty. Raises also TryAgain that is ambiguous, and NotTaken."""
        return await self._asked(method, path, changes=True, json=body)

    async def attach(self, path: str, files: Mapping[str, tuple[bytes, str]]) -> None:
        """Files by name, each with its media type, in one request; raises as ``send`` does."""
        parts = [("file", (name, content, kind)) for name, (content, kind) in files.items()]
        await self._answer("POST", path, changes=True, files=parts, headers={"X-Atlassian-Token": "no-check"})

    async def _asked(self, method: str, path: str, *, changes: bool, **sent: object) -> dict[str, JsonValue]:
        answer = await self._answer(method, path, changes=changes, **sent)
        if not answer.content:
            return {}
        try:
            told = answer.json()
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise TryAgain(
                f"{method} {path}: the answer is no JSON. Check that AUTOPILOT_JIRA_URL, {self.url}, is Jira itself,"
                " and no proxy or login page before it.",
                ambiguous=changes,
            )
        return told

    async def _answer(self, method: str, path: str, *, changes: bool, **sent: object) -> httpx.Response:
        """A success. Redirects are not followed: they would take the token elsewhere."""
        try:
            request = self._client.build_request(method, path, **sent)  # type: ignore[arg-type]  # httpx names them
            answer = await self._client.send(request)
        except NEVER_LEFT as error:
            raise TryAgain(
                f"Jira cannot be reached at {self.url}: {error or type(error).__name__}. Check AUTOPILOT_JIRA_URL and"
                " the network."
            ) from None
        except httpx.HTTPError as error:
            raise TryAgain(
                f"{method} {path}: no answer from Jira ({type(error).__name__}).", ambiguous=changes
            ) from None
        if not answer.is_success:
            raise self._refusal(answer, f"{method} {path}", changes)
        return answer

    # --- refusals ---

    def _refusal(self, answer: httpx.Response, asked: str, changes: bool) -> TryAgain | Undeliverable:
        code = answer.status_code
        if code == 429:
            reason = answer.headers.get("RateLimit-Reason", "")
            why = f" ({reason[:100]})" if reason else ""
            return TryAgain(f"{asked}: Jira asks to wait{why}.", retry_after_s(answer.headers) or UNTOLD_WAIT_S)
        if code >= 500 or code == 408:
            return TryAgain(f"{asked}: Jira answers {code}.", retry_after_s(answer.headers), ambiguous=changes)
        if code == 401 or "FAILED" in answer.headers.get("X-Seraph-LoginReason", ""):
            return TryAgain(
                f"Jira does not know AUTOPILOT_JIRA_EMAIL with AUTOPILOT_JIRA_API_TOKEN (401): the token has expired or"
                f" was revoked. Make a new one at {TOKENS}, set it and start again.",
                MENDED_AFTER_S,
            )
        if answer.is_redirect:
            host = httpx.URL(answer.headers.get("Location", "")).host
            leads_on = f"AUTOPILOT_JIRA_URL, {self.url}, leads on to {host or '?'}: set it to where Jira is."
            return TryAgain(leads_on, MENDED_AFTER_S)
        told, fields = self._complaints(answer)
        if code == 404 and not _is_told_by_jira(answer):
            gone = (
                f"{asked}: no Jira is at AUTOPILOT_JIRA_URL, {self.url} (404): {told} Check the address and the site."
            )
            return TryAgain(gone, MENDED_AFTER_S)
        if code == 403:
            return Mendable(f"{asked}: {self.email} may not do that (403): {told} Give it the permission in Jira.")
        if code == 404:
            return NotThere(f"{asked}: there is no such thing, or {self.email} may not see it (404): {told}")
        return NotTaken(f"{asked}: Jira refuses it ({code}): {told}", fields)

    def _complaints(self, answer: httpx.Response) -> tuple[str, dict[str, str]]:
        """All that it says, masked; and what of it is about a field."""
        try:
            body = answer.json()
        except ValueError:
            return self._masked(answer.text or "nothing said."), {}
        body = body if isinstance(body, dict) else {}
        said, fields = body.get("errorMessages"), body.get("errors")
        by_field = {str(k): self._masked(str(v)) for k, v in fields.items()} if isinstance(fields, dict) else {}
        messages = [self._masked(str(m)) for m in said] if isinstance(said, list) else []
        return " ".join([*messages, *(f"{k}: {v}" for k, v in by_field.items())]) or "nothing said.", by_field

    def _masked(self, told: str) -> str:
        try:
            return self._mask(" ".join(told[:MAX_TOLD].split()))
        except MaskingError:
            return "[withheld: it could not be masked]"


def _is_told_by_jira(answer: httpx.Response) -> bool:
    """It refuses in JSON; a proxy, or Atlassian where a site is suspended, in HTML."""
    try:
        return isinstance(answer.json(), dict)
    except ValueError:
        return False
