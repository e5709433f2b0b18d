"""Reading a vendor's HTTP API: paced, bounded, retried where that is safe, its refusals told as sentences."""

import asyncio
import re
import time
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import TypeVar, cast
from urllib.parse import parse_qsl, urlsplit

import httpx
from pydantic import BaseModel, JsonValue, ValidationError
from pydantic_core import from_json
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from collectors._budget import Budget, SourceSettings
from collectors._jobs import Part, on_thread
from collectors._limits import Limit, limit_of
from collectors.base import (
    Check,
    CollectorError,
    Forbidden,
    NotFound,
    RateLimited,
    Refused,
    TimedOut,
    TooMuch,
    Unreachable,
)

MAX_ANSWER = 8_000_000  # bytes of one answer: it is parsed whole, and takes several times that in memory
MAX_PATHS = 1_000  # whose limit is remembered
MAX_SKEW_S = 60.0  # signatures and windows go wrong beyond it
UNPACKED_AT_ONCE = 65_536  # bytes: a megabyte of zeros is a thousand bytes when packed
PARSED_AT_ONCE = 65_536  # bytes: more than that are parsed on a thread
UNTOLD_PAUSE_S = 0.5  # after a 429 that does not say how long
GRACE_S = 0.25  # after the budget's end, when the collection should have ended
COMPLAINT = 300  # characters of a refusal that are kept
Params = Mapping[str, str | int | float | list[str]]
_Fields = dict[str, str | int | float | list[str]]
_SURROGATE = re.compile(  # an escaped backslash and a whole pair are kept, what is left is half a pair
    rb"(?P<kept>\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
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
        self._quotas: dict[str, str] = {}  # by path, the vendor's name of the limit it counts against
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
        RateLimited, Unreachable, TimedOut, Refused (400, 404, 422: the question), TooMuch (the budget, or one answer
        too large). Numbers may be NaN or infinite.
        """
        content = await self.content(part, path, needs=needs, method=method, params=params, body=body, headers=headers)
        return await self._parsed(part, path, content)

    async def page(
        self, part: Part, path: str, *, needs: str, params: Params | None = None
    ) -> tuple[JsonValue, dict[str, str]]:
        """The answer as ``json`` gives it, and the parameters of the next page by its ``Link`` header; empty: none.

        Only the parameters are taken from the header: where the next page is asked for stays with the caller.
        """
        request = self._request("GET", path, params=_without_none(params))
        content, headers = await self._fetched(part, request, path, needs)
        return await self._parsed(part, path, content), _next_page(headers)

    async def form(self, part: Part, path: str, fields: Params, *, needs: str) -> JsonValue:
        """The answer to a read whose question is posted as a form, as it may be too long for a URL; else ``json``."""
        request = self._request("POST", path, data=_without_none(fields))
        content, _ = await self._fetched(part, request, path, needs)
        return await self._parsed(part, path, content)

    async def _parsed(self, part: Part, path: str, content: bytes) -> JsonValue:
        try:
            whole = len(content) <= PARSED_AT_ONCE
            answer = _json(content) if whole else await on_thread(_json, content)
        except ValueError:
            raise CollectorError(f"{path}: the answer is no JSON", f"check {self._base_setting}") from None
        part.answered = True  # a login page, or a proxy's regrets, are no answer
        return answer

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
        request = self._request(method, path, params=_without_none(params), body=body, headers=headers)
        return (await self._fetched(part, request, path, needs))[0]

    def _request(
        self,
        method: str,
        path: str,
        *,
        params: _Fields | None = None,
        data: _Fields | None = None,
        body: JsonValue = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Request:
        """Never to another host than the client's, which its credentials would go to."""
        told = {"Accept-Encoding": "gzip", **(headers or {})}
        try:
            request = self.client.build_request(method, path, params=params, data=data, json=body, headers=told)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise CollectorError(f"{path[:COMPLAINT]}: cannot be asked: {error}"[:COMPLAINT]) from None
        if self.client.base_url.host and _origin(request.url) != _origin(self.client.base_url):
            raise CollectorError(f"{request.url.host}: another host than {self.client.base_url.host}; not asked")
        return request

    async def _fetched(self, part: Part, request: httpx.Request, path: str, needs: str) -> tuple[bytes, httpx.Headers]:
        attempts = AsyncRetrying(
            stop=stop_after_attempt(2),
            wait=wait_random_exponential(multiplier=0.2, max=1.0),
            retry=retry_if_exception_type((_Transient, _Paused)),
            reraise=True,
        )
        try:
            async with asyncio.timeout(part.budget.left_s + GRACE_S):
                async for attempt in attempts:
                    with attempt:
                        return await self._tried(part, request, path, needs)
        except TimeoutError:
            raise TimedOut(f"{path}: no whole answer in time", part.budget.mend_seconds) from None
        raise AssertionError("unreachable: the last attempt answers or raises")

    async def _tried(self, part: Part, request: httpx.Request, path: str, needs: str) -> tuple[bytes, httpx.Headers]:
        turn = self.limit.turn(path, part.budget.left_s, self._quotas.get(path, ""))
        async with turn, self._sent(part, request, path) as response:
            return await self._read(part, response, path, needs), response.headers

    @asynccontextmanager
    async def _sent(self, part: Part, request: httpx.Request, path: str) -> AsyncIterator[httpx.Response]:
        part.budget.call()
        try:
            response = await self.client.send(request, stream=True, follow_redirects=False)
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
        self._note_limit(path, response)
        chunks: list[bytes] = []
        size, largest = 0, MAX_ANSWER if response.status_code < 300 else 10_000
        async with aclosing(_unpacked(response)) as unpacked:
            async for chunk in unpacked:
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
        if code == 429 or (code == 403 and _limited(response.headers)):
            limit = " ".join(("rate limit", *_quota(response).split()))
            raise _Paused(f"{path}: {limit} reached", "try again later")
        if code in (401, 403):
            raise Forbidden(said, needs)
        if code >= 500 and code != 501:
            raise _Transient(said, f"try again later; if it stays so, check {self._base_setting}")
        if code < 400:
            raise CollectorError(f"{said}: a redirect, which is not followed", f"check {self._base_setting}")
        raise (NotFound if code in (404, 501) else Refused)(f"{said}: {told}")

    def _note_limit(self, path: str, response: httpx.Response) -> None:
        """Obey what the headers say, before the next request is refused."""
        quota = _quota(response)
        if quota and (path in self._quotas or len(self._quotas) < MAX_PATHS):
            self._quotas[path] = quota
        code, headers = response.status_code, response.headers
        refused = code == 429 or (code == 403 and _limited(headers))
        pause_s = pause_of(headers) if refused or _used_up(headers) else None
        if refused or pause_s is not None:
            self.limit.close(UNTOLD_PAUSE_S if pause_s is None else pause_s, quota)

    def _note_skew(self, response: httpx.Response) -> None:
        theirs = _moment(response.headers.get("date", ""))
        if theirs is not None:
            self.skew_s = (theirs - datetime.now(UTC)).total_seconds()

    async def aclose(self) -> None:
        """Close the connections."""
        await self.client.aclose()


def _json(content: bytes) -> JsonValue:
    """Half a surrogate pair, which cutting a text leaves behind, becomes U+FFFD. Raises ValueError."""
    try:
        return cast("JsonValue", from_json(content))
    except ValueError:
        if not _SURROGATE.search(content):
            raise
    return cast("JsonValue", from_json(_SURROGATE.sub(_paired, content)))


def _paired(found: re.Match[bytes]) -> bytes:
    return found[0] if found["kept"] else b"\\ufffd"


def _next_page(headers: httpx.Headers) -> dict[str, str]:
    following = httpx.Response(200, headers=headers).links.get("next", {}).get("url", "")
    try:
        return dict(parse_qsl(urlsplit(following).query))
    except ValueError:
        return {}


def _moment(told: str) -> datetime | None:
    """An HTTP date, always with a zone; None: it is none."""
    try:
        moment = parsedate_to_datetime(told)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _limited(headers: httpx.Headers) -> bool:
    """Whether a 403 is a rate limit: GitHub's says that nothing remains, or when to come back."""
    return "retry-after" in headers or _used_up(headers)


def _used_up(headers: httpx.Headers) -> bool:
    return bool(headers.get("x-ratelimit-remaining", "").strip() == "0")


def _quota(response: httpx.Response) -> str:
    """The name of the limit, where the vendor has several: Datadog's, GitHub's."""
    name: str = response.headers.get("x-ratelimit-name", "") or response.headers.get("x-ratelimit-resource", "")
    return name


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


async def _unpacked(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The answer as it comes, a little at a time: httpx would unpack at once whatever has come."""
    packing = response.headers.get("content-encoding", "identity").strip().lower()
    if response.is_stream_consumed:  # it never was a stream
        yield response.content
    elif packing in ("identity", ""):
        async for chunk in response.aiter_raw():
            yield chunk
    elif packing in ("gzip", "x-gzip", "deflate"):
        try:
            async for chunk in _inflated(response):
                yield chunk
        except zlib.error as error:
            raise httpx.DecodingError(str(error), request=response.request) from None
    elif response.status_code < 300:
        raise CollectorError(f"the answer is packed as {packing[:20]!r}, which was not asked for")


async def _inflated(response: httpx.Response) -> AsyncIterator[bytes]:
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # gzip or zlib, as its first bytes say
    async for chunk in response.aiter_raw():
        packed = chunk
        while packed and not unpacker.eof:
            yield unpacker.decompress(packed, UNPACKED_AT_ONCE)
            packed = unpacker.unconsumed_tail
    yield unpacker.flush()
    if not unpacker.eof:
        raise zlib.error("the packed answer ends early")


class _Paused(RateLimited):
    """The vendor asked to wait; the limiter waits before the next try."""


def pause_of(headers: httpx.Headers) -> float | None:
    """Seconds to wait by ``Retry-After`` (seconds or a date) or ``X-RateLimit-Reset`` (seconds, or an epoch)."""
    for name in ("retry-after", "x-ratelimit-reset"):
        value = headers.get(name, "").strip()
        seconds = _seconds(value)
        if seconds is None or not isfinite(seconds):
            continue
        if seconds > 1e11:  # a moment in milliseconds
            seconds /= 1000
        if seconds > 1e9:  # a moment, not a span of time
            seconds -= time.time()
        return min(max(seconds, 0.0), 86_400.0)
    return None


def _seconds(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        moment = _moment(value)
        return moment.timestamp() if moment else None


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


def _without_none(params: Params | None) -> _Fields:
    return {name: value for name, value in (params or {}).items() if value != ""}
