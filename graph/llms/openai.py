"""OpenAI, or any server that speaks its chat completions. Every failure is an LlmError with one sentence."""

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from math import isfinite
from typing import TypeVar, cast
from urllib.parse import quote

import httpx2
from openai import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncAzureOpenAI,
    AsyncOpenAI,
    BadRequestError,
    OpenAIError,
    UnprocessableEntityError,
)
from pydantic import BaseModel, ValidationError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_exception

from graph.llms.base import LlmError
from graph.llms.breaker import Breaker, CircuitOpenError, ServerFailure
from graph.llms.chat import Answer, Question, Usage
from graph.llms.completion import Reader
from graph.llms.dialect import Complaint, Dialect, Request
from graph.llms.openai_settings import Settings

MAX_BYTES = 2_000_000  # of one answer: many times what any model may write
CONNECT_S = 5.0
_ATTEMPTS = 2
_PERHAPS_BILLED = {408, 502, 504}  # a gateway lost patience; the model behind it may have gone on
_WORTH_ANOTHER_TRY = {408, 409, 429}  # and whatever the server broke on
_MAX_COMPLAINT = 20_000  # characters of an error that are looked at
_NO_SUCH_PATH = {404, 405}
_NEVER_ARRIVED = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
_CODE = re.compile(r"[a-z_]{3,48}\Z")  # an error's code is shown only if it looks like one: it is the provider's text
_TOO_LONG = re.compile(
    r"maximum context length|context (window|length)|exceeds? the (available )?context", re.IGNORECASE
)

# What a code or a status means, and what to do about it.
_UNPAID = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
_CODES: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(_UNPAID, ("its quota is used up", "Check the plan and the bills of OPENAI_API_KEY's account.")),
    "content_filter": ("its content filter refused the question", ""),
    "context_length_exceeded": (
        "the question and its answer are longer than its context",
        "Lower AUTOPILOT_MODEL_INPUT_TOKENS or OPENAI_MAX_COMPLETION_TOKENS.",
    ),
    "misalignment_policy_violation": ("its policy refused what it was asked to do, so a person must look", ""),
    "model_not_found": ("its server knows no such model", "Check OPENAI_MODEL."),
}
_STATUSES: Mapping[int, tuple[str, str]] = {
    401: ("its server does not accept the key", "Check OPENAI_API_KEY."),
    403: ("the key may not use it", "Check OPENAI_API_KEY and OPENAI_MODEL."),
    404: ("its server knows no such model or path", "Check OPENAI_MODEL and OPENAI_BASE_URL."),
    408: ("its server timed out", ""),
    413: ("the question is too large for its server", "Lower AUTOPILOT_MODEL_INPUT_TOKENS."),
    429: ("it is asked too often", ""),
}


T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


class CallFailed(LlmError):
    """A server gave no answer. ``mend``: what to do about it, if a setting is to blame; the text says it too."""

    def __init__(self, text: str, usage: Usage | None = None, mend: str = "") -> None:
        super().__init__(f"{text} ({mend[0].lower()}{mend[1:].rstrip('.')})" if mend else text, usage)
        self.mend = mend


class ServerDown(CallFailed, ServerFailure):
    """It could not be reached, was too slow, or broke."""


class OpenAIChatModel:
    """ChatModel over HTTP: one question, within one deadline, tried again once where that may help.

    What the server turns out not to understand, and whether it is down, is known to this object only: make one for a
    process. Nothing is sent on to where an answer redirects.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._dialect = Dialect(settings)
        self._breaker = Breaker(settings.breaker_failures, settings.breaker_s)
        self._client = _client(settings)

    @property
    def name(self) -> str:
        """The model's name."""
        return self._settings.model

    async def aclose(self) -> None:
        """Close the HTTP client."""
        await self._client.close()

    async def ask(self, question: Question) -> Answer:
        """Text, not validated, or calls of tools. Raises LlmError.

        ``usage`` holds no tokens and no money where the server does not tell how many it took.
        """
        begun, lost = time.monotonic(), _Lost()
        try:
            body = await self._guarded(lambda ends: self._complete(question, ends, lost))
            answer = Reader(self._settings, round(time.monotonic() - begun, 3)).read(body)
        except LlmError as error:
            error.lost_attempts += lost.attempts
            raise
        return replace(answer, lost_attempts=lost.attempts)

    async def known(self) -> bool:
        """Whether the server lists the model; False: it does not tell, as Azure, whose models are deployments.

        Raises CallFailed, also where the server tells that it has no such model.
        """
        return await self._guarded(self._look_up)

    async def _guarded(self, call: Callable[[float], Awaitable[T]]) -> T:
        """Within breaker and deadline; ``call`` is told when the loop's clock will have reached it."""
        try:
            with self._breaker.call():
                return await self._in_time(call)
        except CircuitOpenError as error:
            raise CallFailed(f"{self.name} was not asked: {error}", Usage(self.name)) from None

    async def _in_time(self, call: Callable[[float], Awaitable[T]]) -> T:
        ends = asyncio.get_running_loop().time() + self._settings.timeout_s
        try:
            async with asyncio.timeout_at(ends):
                return await call(ends)
        except TimeoutError:
            raise self._too_slow() from None
        except APIStatusError as error:
            raise self._refused(error) from None
        except APIConnectionError as error:
            raise self._unreached(error) from None
        except _UnreadableError as error:
            raise CallFailed(f"{self.name} {error}") from None
        except (OpenAIError, ValueError) as error:
            raise CallFailed(f"{self.name} could not be asked ({type(error).__name__})", Usage(self.name)) from None

    async def _complete(self, question: Question, ends: float, lost: "_Lost") -> bytes:
        """The body of a completion, after as many ways to ask as the server makes necessary."""
        while True:
            request = self._dialect.request(question)
            try:
                return await self._tried(partial(self._post, request), ends, lost.count)
            except (BadRequestError, UnprocessableEntityError) as error:
                if _code(error) in _CODES or not self._dialect.learn(question, request, _complaint(error)):
                    raise

    async def _post(self, request: Request) -> bytes:
        answer = await self._client.post("/chat/completions", cast_to=httpx2.Response, body=request)
        return answer.content

    async def _tried(
        self,
        send: Callable[[], Awaitable[bytes]],
        ends: float,
        before_another: Callable[[RetryCallState], None] | None = None,
    ) -> bytes:
        """At most once more, and only if there is time left for it."""
        now = asyncio.get_running_loop().time
        retrying = AsyncRetrying(
            stop=stop_after_attempt(_ATTEMPTS),
            retry=retry_if_exception(lambda error: _worth_another_try(error) and now() + _pause(error) < ends),
            wait=wait_exception(_pause),
            before_sleep=before_another,
            reraise=True,
        )
        return await retrying(send)

    # --- the model itself ---

    async def _look_up(self, ends: float) -> bool:
        """Servers that cannot look up one model often list them all."""
        if self._settings.served_as == "azure":
            self._read(_Models, await self._tried(partial(self._get, "/models"), ends))
            return False
        found = await self._found(f"/models/{quote(self.name, safe='')}", ends)
        if found is not None:
            self._read(_Model, found)
            return True
        listed = await self._found("/models", ends)
        if listed is None:
            return False
        if self.name not in {model.id for model in self._read(_Models, listed).data}:
            raise CallFailed(f"its server knows no model {self.name}", Usage(self.name), "Check OPENAI_MODEL.")
        return True

    async def _found(self, path: str, ends: float) -> bytes | None:
        """What is there; None: there is no such path."""
        try:
            return await self._tried(partial(self._get, path), ends)
        except APIStatusError as error:
            if error.status_code not in _NO_SUCH_PATH:
                raise
            return None

    async def _get(self, path: str) -> bytes:
        answer = await self._client.get(path, cast_to=httpx2.Response)
        return answer.content

    def _read(self, shape: type[M], body: bytes) -> M:
        try:
            return shape.model_validate_json(body)
        except ValidationError:
            said = f"{self.name}: its server answers with something else than OpenAI's protocol"
            raise CallFailed(said, Usage(self.name), "Check OPENAI_BASE_URL.") from None

    # --- failures ---

    def _refused(self, error: APIStatusError) -> CallFailed:
        """Status and code; the provider's prose stays out, for it may quote parts of the key."""
        status, code = error.status_code, _code(error)
        said, mend = _CODES.get(code) or _STATUSES.get(status) or ("", "")
        shown = f": {said}" if said else f" ({code})" if _CODE.match(code) else ""
        wait = _retry_after(error)
        if status == 429 and code not in _UNPAID and wait:
            shown += f", and its server wants {wait:.0f} s of rest"
        kind = ServerDown if status == 408 or status >= 500 else CallFailed
        usage = None if _perhaps_billed(error) else Usage(self.name)
        return kind(f"{self.name} answered {status}{shown}", usage, mend)

    def _unreached(self, error: APIConnectionError) -> CallFailed:
        if not _perhaps_billed(error):
            return ServerDown(f"{self.name} cannot be reached", Usage(self.name), "Check OPENAI_BASE_URL.")
        if isinstance(error, APITimeoutError):
            return self._too_slow()
        return ServerDown(f"{self.name} broke off the connection ({type(error.__cause__ or error).__name__})")

    def _too_slow(self) -> CallFailed:
        return ServerDown(f"{self.name} timed out after {self._settings.timeout_s:g} s")


@dataclass
class _Lost:
    """Attempts at one question that were followed by another, and that nobody knows the cost of."""

    attempts: int = 0

    def count(self, state: RetryCallState) -> None:
        """For tenacity, before it waits for the next attempt."""
        error = state.outcome.exception() if state.outcome else None
        self.attempts += error is not None and _perhaps_billed(error)


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Model]


class _UnreadableError(OpenAIError):
    """An answer that is not read to its end; the text says why. The client passes its own kind of errors on."""


class _BoundedStream(httpx2.AsyncByteStream):
    """A body that ends with an error where it becomes too long."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The same chunks. Raises _UnreadableError."""
        left = MAX_BYTES
        async for chunk in self._stream:
            left -= len(chunk)
            if left < 0:
                raise _UnreadableError(f"answered with more than {MAX_BYTES // 1_000_000} MB")
            yield chunk

    async def aclose(self) -> None:
        """Close what is within."""
        await self._stream.aclose()


async def _bound(response: httpx2.Response) -> None:
    """Before its body is read. A packed one has no bound: it was asked not to come packed.

    JSON is UTF-8; what else a server names may be a codec that is none of text.
    """
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise _UnreadableError("answered with a packed body, though it was asked for a plain one")
    response.encoding = "utf-8"
    response.stream = _BoundedStream(cast("httpx2.AsyncByteStream", response.stream))


def _client(settings: Settings) -> AsyncOpenAI:
    """Retries are ours, and so is the deadline."""
    key = settings.api_key.get_secret_value() if settings.api_key else ""
    timeout = httpx2.Timeout(settings.timeout_s, connect=min(CONNECT_S, settings.timeout_s))
    http = httpx2.AsyncClient(
        timeout=timeout, headers={"Accept-Encoding": "identity"}, event_hooks={"response": [_bound]}
    )
    if settings.api_version:
        url = httpx2.URL(settings.base_url).copy_with(raw_path=b"/")
        return AsyncAzureOpenAI(
            api_key=key,
            azure_endpoint=str(url),
            api_version=settings.api_version,
            timeout=timeout,
            max_retries=0,
            http_client=http,
        )
    return AsyncOpenAI(api_key=key, base_url=settings.base_url, timeout=timeout, max_retries=0, http_client=http)


def _code(error: APIStatusError) -> str:
    """The error's code, or what stands for it where a server has none."""
    for code in map(str, (error.code, error.type)):  # the client passes on whatever stands there
        if code in _CODES:
            return code
    if error.status_code in (400, 413, 422) and _TOO_LONG.search(_complaint(error).text):
        return "context_length_exceeded"
    return str(error.code or "")


def _complaint(error: APIStatusError) -> Complaint:
    """What it says, whether as OpenAI or as FastAPI says it."""
    body: object = error.body
    param: object = error.param
    if isinstance(body, dict) and isinstance(body.get("detail"), list):
        places = [place.get("loc") for place in body["detail"] if isinstance(place, dict)]
        param = next((loc[1] for loc in places if isinstance(loc, list) and len(loc) > 1), None)
    return Complaint(str(param or ""), str(body)[:_MAX_COMPLAINT])


def _perhaps_billed(error: BaseException) -> bool:
    """Whether the model may have worked on it."""
    if isinstance(error, APIStatusError):
        return error.status_code in _PERHAPS_BILLED
    return not isinstance(error.__cause__, _NEVER_ARRIVED)


def _worth_another_try(error: BaseException) -> bool:
    if isinstance(error, APIStatusError):
        busy = error.status_code in _WORTH_ANOTHER_TRY and _code(error) not in _CODES
        return busy or error.status_code >= 500
    return isinstance(error, APIConnectionError)


def _pause(error: BaseException) -> float:
    """Seconds until the next try: what the server wants, or about half a second."""
    wanted = _retry_after(error) if isinstance(error, APIStatusError) else None
    return wanted if wanted is not None else random.uniform(0.25, 0.75)  # noqa: S311  no secret


def _retry_after(error: APIStatusError) -> float | None:
    """Seconds by ``Retry-After-Ms`` or ``Retry-After``, which is a number or a date."""
    headers = error.response.headers
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        else:
            seconds = _seconds(headers.get("retry-after", ""))
    except (ValueError, OverflowError):
        return None
    return max(seconds, 0.0) if isfinite(seconds) else None


def _seconds(value: str) -> float:
    """Raises ValueError; OverflowError where a date is beyond all dates."""
    try:
        return float(value)
    except ValueError:
        moment = parsedate_to_datetime(value)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return (aware - datetime.now(UTC)).total_seconds()
