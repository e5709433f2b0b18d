"""One POST, in one attempt, and what its answer means for the outbox."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from urllib.parse import urlsplit

import httpx

from app.notifiers.base import TryAgain, Undeliverable

ANSWERS_WITHIN = httpx.Timeout(10.0, connect=3.0)
MAX_ANSWER = 16_384  # bytes that are read of an answer; nobody needs more
PASSES = (408, 425, 429)  # what a 4xx may say and still be worth asking again
NEVER_LEFT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


def safe(url: str, setting: str) -> str:
    """The address, if what is posted there cannot be read on the way. Raises ValueError that names the setting."""
    parts = urlsplit(url)
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and _here(parts.hostname))):
        raise ValueError(f"{setting} must begin with https://; http:// is for this machine only")
    return url


def _here(host: str) -> bool:
    """Whether it is this machine."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


async def post(
    client: httpx.AsyncClient, url: str, content: bytes, headers: Mapping[str, str], whom: str
) -> tuple[int, bytes]:
    """Status and the beginning of the body, of an answer that needs none of what is raised here.

    ``whom``: who is told, for people; no text holds the address. Raises TryAgain for what may pass, Undeliverable for
    an address that is none.
    """
    try:
        async with client.stream("POST", url, content=content, headers=headers) as answer:
            body = await _beginning(answer)
    except NEVER_LEFT as error:
        raise TryAgain(f"{whom} cannot be reached: {type(error).__name__}") from None
    except httpx.HTTPError as error:
        raise TryAgain(f"{whom} did not answer: {type(error).__name__}", ambiguous=True) from None
    except httpx.InvalidURL:
        raise Undeliverable(f"the address of {whom} is none: correct its setting") from None
    if answer.is_server_error or answer.status_code in PASSES:
        ambiguous = answer.status_code != 429
        raise TryAgain(f"{whom} answers {answer.status_code}", retry_after_s(answer.headers), ambiguous)
    return answer.status_code, body


async def _beginning(answer: httpx.Response) -> bytes:
    body = b""
    async for part in answer.aiter_bytes():
        body += part
        if len(body) >= MAX_ANSWER:
            break
    return body[:MAX_ANSWER]


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, as ``Retry-After`` says in seconds or as a date; None: it says nothing that can be read."""
    said = headers.get("retry-after", "").strip()
    if said.isascii() and said.isdigit():
        return float(said[:9])
    try:
        at = parsedate_to_datetime(said)
    except (ValueError, TypeError):
        return None
    return max(0.0, ((at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())
