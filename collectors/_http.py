"""Reading a vendor's HTTP API: paced, bounded, retried where that is safe, its refusals told as sentences."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import httpx
from pydantic import BaseModel, JsonValue, ValidationError
from pydantic_core import from_json
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from collectors._budget import Budget, SourceSettings
from collectors._jobs import Part
from collectors._limits import Limit, limit_of
from collectors.base import (
    Check,
    CollectorError,
    Forbidden,
    RateLimited,
    Refused,
    TooMuch,
    Unreachable,
)

MAX_ANSWER = 8_000_000  # bytes of one answer: it is parsed whole, and takes several times that in memory
MAX_SKEW_S = 60.0  # signatures and windows go wrong beyond it
COMPLAINT = 300  # characters of a refusal that are kept
Params = Mapping[str, str | int | float | list[str]]
_M = TypeVar("_M", bound=BaseModel)


class _Transient(Unreachable):
    """Worth one more try."""


class Api:
    """One vendor's API with the credentials of its client. Every read is safe to repeat."""

    def __init__(
        self,
        vendor: str,
        client: httpx.AsyncClient,
        *,
        base_setting: str,
        per_second: float = 20.0,
        at_once: int = 6,
    ) -> None:
        """``base_setting``: the environment variable that says where the vendor is, named when it is not reached."""
        self.client = client
        self._vendor, self._base_setting = vendor, base_setting
        self._per_second, self._at_once = per_second, at_once
        self.skew_s: float | None = None  # their clock minus ours, as of the last answer that told the time

    @property
    def limit(self) -> Limit:
        """Shared by all that read this account."""
        account = f"{self._vendor}:{self.client.base_url}"
        return limit_of(account, per_second=self._per_second, at_once=self._at_once)

    async def json(
        self,
        part: Part,
        path: str,
        *,
        needs: str,
        method: str = "GET",
        params: Params | None = None,
        body: JsonValue = None,
        headers: Mapping[str, str] | None = None,
    ) -> JsonValue:
        """The answer, parsed. ``needs``: what to do if it is refused, e.g. «give the key the scope logs_read_data».

        One more try after a lost connection, a 5xx, or the pause a 429 asks for. Raises CollectorError: Forbidden,
        RateLimited, Unreachable, Refused (400, 404, 422: the question), TooMuch (the budget, or one answer too large).
        """
        content = await self.content(part, path, needs=needs, method=method, params=params, body=body, headers=headers)
        part.answered = True
        try:
            return await asyncio.to_thread(from_json, content)
        except ValueError:
            raise CollectorError(f"{path}: the answer is no JSON", f"check {self._base_setting}") from None

    async def content(
        self,
        part: Part,
        path: str,
        *,
        needs: str,
        method: str = "GET",
        params: Params | None = None,
        body: JsonValue = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """The answer's bytes, at most MAX_ANSWER; else as ``json``."""
        request = self.client.build_request(
            method, path, params=_without_none(params), json=body, headers=dict(headers or {})
        )
        attempts = AsyncRetrying(
            stop=stop_after_attempt(2),
            wait=wait_random_exponential(multiplier=0.2, max=1.0),
            retry=retry_if_exception_type((_Transient, _Paused)),
            reraise=True,
        )
        async for attempt in attempts:
            with attempt:
                async with self.limit.turn(path, part.budget.left_s), self._sent(part, request, path) as response:
                    return await self._read(part, response, path, needs)
        raise AssertionError("unreachable: the last attempt answers or raises")

    @asynccontextmanager
    async def _sent(self, part: Part, request: httpx.Request, path: str) -> AsyncIterator[httpx.Response]:
        part.budget.call()
        try:
            response = await self.client.send(request, stream=True)
        except httpx.HTTPError as error:
            raise self._lost(path, error) from None
        try:
            yield response
        except httpx.HTTPError as error:
            raise self._lost(path, error) from None
        finally:
            await response.aclose()

    def _lost(self, path: str, error: httpx.HTTPError) -> "_Transient":
        return _Transient(f"{path}: {type(error).__name__}", f"check {self._base_setting} and the network")

    async def _read(self, part: Part, response: httpx.Response, path: str, needs: str) -> bytes:
        self._note_skew(response)
        self._note_limit(response)
        chunks: list[bytes] = []
        size, largest = 0, MAX_ANSWER if response.status_code < 300 else 10_000
        async for chunk in response.aiter_bytes():
            part.budget.receive(len(chunk))
            size += len(chunk)
            if size > largest and response.status_code < 300:
                raise TooMuch(f"{path}: one answer is larger than {MAX_ANSWER:,} bytes", "narrow what is read")
            chunks.append(chunk)
            if size > largest:
                break
        content = b"".join(chunks)
        self._refusal(response, content, path, needs)
        return content

    def _refusal(self, response: httpx.Response, content: bytes, path: str, needs: str) -> None:
        """Raises CollectorError for all but a good answer."""
        code, told = response.status_code, content[:COMPLAINT].decode(errors="replace")
        said = f"{path}: {self._vendor} answered {code}"
        if code < 300:
            return
        if code == 429 or (code == 403 and "retry-after" in response.headers):
            raise _Paused(
                f"{path}: rate limit {response.headers.get('X-RateLimit-Name', '')} reached".replace("  ", " ")
            )
        if code in (401, 403):
            raise Forbidden(said, needs)
        if code >= 500:
            raise _Transient(said, f"try again later; if it stays so, check {self._base_setting}")
        if code < 400:
            raise CollectorError(f"{said}: a redirect, which is not followed", f"check {self._base_setting}")
        raise Refused(f"{said}: {told}")

    def _note_limit(self, response: httpx.Response) -> None:
        """Obey what the headers say, before the next request is refused."""
        used_up = response.headers.get("x-ratelimit-remaining", "").strip() == "0"
        if response.status_code in (429, 403) or used_up:
            pause_s = pause_of(response.headers)
            if pause_s is not None:
                self.limit.close(pause_s)

    def _note_skew(self, response: httpx.Response) -> None:
        try:
            theirs = parsedate_to_datetime(response.headers.get("date", ""))
        except ValueError:
            return
        self.skew_s = (theirs - datetime.now(UTC)).total_seconds() if theirs.tzinfo else None

    async def aclose(self) -> None:
        """Close the connections."""
        await self.client.aclose()


class _Paused(RateLimited):
    """The vendor asked to wait; the limiter waits before the next try."""


def pause_of(headers: httpx.Headers) -> float | None:
    """Seconds to wait by ``Retry-After`` (seconds or a date) or ``X-RateLimit-Reset`` (seconds, or an epoch)."""
    for name in ("retry-after", "x-ratelimit-reset"):
        value = headers.get(name, "").strip()
        try:
            seconds = float(value)
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp()
            except ValueError:
                continue
        if seconds > 1e9:  # a moment, not a span of time
            seconds -= time.time()
        return min(max(seconds, 0.0), 86_400.0)
    return None


def parsed(model: type[_M], body: object) -> _M:
    """The answer as it should be. Raises CollectorError."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise CollectorError(f"unexpected answer: {where}: {first['msg']}"[:COMPLAINT]) from None


async def checked(
    source: str, settings: SourceSettings, name: str, read: Callable[[Part], Awaitable[str]], mend: str = ""
) -> Check:
    """One Check: ``read`` asks the source and returns what was seen; a CollectorError is what failed."""
    part = Part(source, name, Budget(source, settings, 10.0))
    try:
        async with asyncio.timeout(10.0):
            seen = await read(part)
    except CollectorError as error:
        return Check(name=name, status="failed", detail=error.detail, mend=error.mend or mend)
    except TimeoutError:
        return Check(name=name, status="failed", detail="no answer within 10 s", mend=mend)
    return Check(name=name, status="ok", detail=seen)


def clock_check(skew_s: float | None) -> Check:
    """Whether our clock and the source's agree."""
    if skew_s is None:
        return Check(name="clock", status="skipped", detail="the source does not tell its time")
    told = f"theirs minus ours: {skew_s:+.0f} s"
    if abs(skew_s) > MAX_SKEW_S:
        return Check(name="clock", status="failed", detail=told, mend="set this machine's clock (NTP)")
    return Check(name="clock", status="ok", detail=told)


def _without_none(params: Params | None) -> dict[str, str | int | float | list[str]]:
    return {name: value for name, value in (params or {}).items() if value != ""}
