"""Vendors that are slow, short-spoken, wrong or hostile: what is read stays bounded, refusals become sentences."""

import asyncio
import gzip
import math
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors import _http
from collectors._budget import Budget, SourceSettings, env
from collectors._http import MAX_ANSWER, Api, checked, clock_check, pause_of
from collectors._jobs import Part, gather
from collectors._limits import Limit
from collectors.base import (
    CollectorError,
    Forbidden,
    GapReason,
    NotFound,
    RateLimited,
    Refused,
    TimedOut,
    TooMuch,
    Unreachable,
)
from tests.collectors.raw_http import Request, Say, Vendor, answer, says, vendor


class Settings(SourceSettings):
    model_config = env("LOKI_")


@asynccontextmanager
async def api(say: Say, base_path: str = "") -> AsyncIterator[tuple[Api, Vendor]]:
    async with vendor(say) as served:
        made = Api("loki", httpx.AsyncClient(base_url=served.url + base_path, timeout=5), base_setting="LOKI_URL")
        try:
            yield made, served
        finally:
            await made.aclose()


def part(**budget: float) -> Part:
    return Part("loki", "logs", Budget("loki", Settings.model_validate(budget)))


NEEDS = "give the token the role reader"


# --- refusals ---


@pytest.mark.parametrize(
    ("status", "kind", "mend"),
    [
        ("401 Unauthorized", Forbidden, NEEDS),
        ("403 Forbidden", Forbidden, NEEDS),
        ("404 Not Found", NotFound, ""),
        ("400 Bad Request", Refused, ""),
        ("302 Found", CollectorError, "check LOKI_URL"),
        ("500 Oops", Unreachable, "LOKI_URL"),
    ],
)
async def test_refusals_are_told_with_what_would_mend_them(status: str, kind: type[CollectorError], mend: str) -> None:
    async with api(says(answer("too many series", status, Location="http://127.0.0.1:1/"))) as (loki, _):
        with pytest.raises(kind, match=status[:3]) as told:
            await loki.json(part(), "/q", needs=NEEDS)
    assert mend in told.value.mend
    assert isinstance(told.value, Refused) == ("too many series" in told.value.detail)


async def test_a_redirect_is_not_followed_even_by_a_client_that_would() -> None:
    async with vendor(says(answer("{}"))) as other, vendor(says(answer("", "307 Away", Location=other.url))) as served:
        client = httpx.AsyncClient(base_url=served.url, follow_redirects=True)
        with pytest.raises(CollectorError, match="redirect"):
            await Api("loki", client, base_setting="LOKI_URL").json(part(), "/q", needs=NEEDS)
        await client.aclose()
        assert other.asked == []


@pytest.mark.parametrize("path", ["http://127.0.0.1:1/x", "https://example.invalid/x", "/a\x00b"])
async def test_credentials_go_to_no_other_host(path: str) -> None:
    async with api(says(answer("{}"))) as (loki, served):
        with pytest.raises(CollectorError, match=r"another host|cannot be asked"):
            await loki.json(part(), path, needs=NEEDS)
    assert served.asked == []


@pytest.mark.parametrize("path", ["//example.invalid/x", "/\\example.invalid/x", "/@example.invalid/x"])
async def test_a_path_that_looks_like_a_host_stays_a_path(path: str) -> None:
    async with api(says(answer("{}")), "/loki") as (loki, served):
        await loki.json(part(), path, needs=NEEDS)
    assert served.asked[0].target.startswith("/loki/")


# --- retries ---


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "first", [answer("", "503 Busy"), b"", b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"half":']
)
async def test_a_read_is_tried_once_more_searches_by_post_too(method: str, first: bytes) -> None:
    async with api(says(first, answer('{"a": 1}'))) as (loki, served):
        job = part()
        assert await loki.json(job, "/q", needs=NEEDS, method=method, body={"query": "x"}) == {"a": 1}
    assert [(r.method, r.body) for r in served.asked] == [(method, b'{"query":"x"}')] * 2
    assert job.budget.calls == 2
    assert job.answered


async def test_but_not_a_third_time() -> None:
    async with api(says(answer("", "500 Oops"))) as (loki, served):
        with pytest.raises(Unreachable):
            await loki.json(part(), "/q", needs=NEEDS)
    assert len(served.asked) == 2


async def test_nobody_listens() -> None:
    loki = Api("loki", httpx.AsyncClient(base_url="http://127.0.0.1:1"), base_setting="LOKI_URL")
    with pytest.raises(Unreachable, match="ConnectError") as told:
        await loki.json(part(), "/q", needs=NEEDS)
    assert "LOKI_URL" in told.value.mend
    await loki.aclose()


# --- rate limits ---


@pytest.mark.parametrize(
    "headers",
    [
        lambda: {"Retry-After": "1"},
        lambda: {"Retry-After": formatdate(time.time() + 2, usegmt=True)},
        lambda: {"X_RateLimit_Reset": "1", "X_RateLimit_Name": "logs_search"},
        lambda: {"X_RateLimit_Reset": str(math.ceil(time.time() + 1))},
    ],
)
async def test_the_pause_a_429_asks_for_is_waited_out(headers: object) -> None:
    told = headers() if callable(headers) else {}
    async with api(says(answer("", "429 Too Many", **told), answer('{"a": 1}'))) as (loki, served):
        started = time.monotonic()
        assert await loki.json(part(), "/q", needs=NEEDS) == {"a": 1}
    assert time.monotonic() - started > 0.3  # a date has whole seconds only
    assert len(served.asked) == 2


async def test_a_pause_that_is_too_long_ends_it_at_once_for_everybody_of_the_account() -> None:
    limited = answer("", "429 Too Many", X_RateLimit_Reset="600", X_RateLimit_Limit="300")
    async with api(says(limited)) as (loki, served):
        another = Api("loki", httpx.AsyncClient(base_url=served.url), base_setting="LOKI_URL")
        async with asyncio.timeout(3):
            for one in (loki, another):
                with pytest.raises(RateLimited, match=r"reset in (600|599)") as told:
                    await one.json(part(), "/q", needs=NEEDS)
                assert told.value.mend
        await another.aclose()
    assert len(served.asked) == 1


async def test_nothing_remaining_closes_before_the_next_request_is_refused() -> None:
    async with api(says(answer("{}", X_RateLimit_Remaining="0", X_RateLimit_Reset="60"))) as (loki, served):
        await loki.json(part(), "/q", needs=NEEDS)
        with pytest.raises(RateLimited):
            await loki.json(part(), "/other", needs=NEEDS)
    assert len(served.asked) == 1


async def test_a_limit_with_a_name_closes_only_what_counts_against_it() -> None:
    """Datadog allows 300 span searches an hour; its logs and metrics have limits of their own."""

    async def say(request: Request, writer: asyncio.StreamWriter) -> None:
        name = "spans_search" if "spans" in request.target else "logs_search"
        left = "0" if "spans" in request.target else "200"
        writer.write(answer("{}", X_RateLimit_Name=name, X_RateLimit_Remaining=left, X_RateLimit_Reset="1800"))

    async with api(say) as (loki, served):
        await loki.json(part(), "/spans/search", needs=NEEDS)
        with pytest.raises(RateLimited):
            await loki.json(part(), "/spans/search", needs=NEEDS)
        for _ in range(3):
            await loki.json(part(), "/logs/search", needs=NEEDS)
    assert len(served.asked) == 4


@pytest.mark.parametrize("told", [{"X_RateLimit_Remaining": "0", "X_RateLimit_Reset": "60"}, {"Retry_After": "60"}])
async def test_a_403_that_is_a_rate_limit_is_no_missing_permission(told: dict[str, str]) -> None:
    async with api(says(answer("", "403 Forbidden", **told))) as (loki, _):
        with pytest.raises(RateLimited):
            await loki.json(part(), "/q", needs=NEEDS)


async def test_a_missing_permission_closes_nothing() -> None:
    """GitHub tells the limits with every answer, also when they are far away."""
    told = {"X_RateLimit_Remaining": "4999", "X_RateLimit_Reset": str(int(time.time()) + 3000)}
    async with api(says(answer("", "403 Forbidden", **told), answer("{}"))) as (loki, _):
        with pytest.raises(Forbidden):
            await loki.json(part(), "/q", needs=NEEDS)
        assert await loki.json(part(), "/q", needs=NEEDS) == {}


async def test_a_429_that_says_nothing_is_tried_once_more_after_a_moment() -> None:
    async with api(says(answer("", "429 Too Many"))) as (loki, served):
        started = time.monotonic()
        with pytest.raises(RateLimited) as told:
            await loki.json(part(), "/q", needs=NEEDS)
    assert time.monotonic() - started >= 0.5
    assert len(served.asked) == 2
    assert told.value.mend == "try again later"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "-7"}, 0),
        ({"x-ratelimit-reset": "2.5"}, 2.5),
        ({"retry-after": "soon", "x-ratelimit-reset": "3"}, 3),
        ({"retry-after": "nan", "x-ratelimit-reset": "4"}, 4),
        ({"x-ratelimit-reset": "inf"}, None),
        ({"x-ratelimit-reset": "1e6"}, 86_400),
        ({}, None),
    ],
)
def test_pauses(headers: dict[str, str], seconds: float | None) -> None:
    assert pause_of(httpx.Headers(headers)) == seconds


@pytest.mark.parametrize("scale", [1, 1000])
def test_a_pause_until_a_moment_in_seconds_or_milliseconds(scale: int) -> None:
    until = str((time.time() + 30) * scale)
    assert pause_of(httpx.Headers({"x-ratelimit-reset": until})) == pytest.approx(30, abs=2)


@settings(deadline=None)
@given(st.text(st.characters(codec="latin-1")), st.text(st.characters(codec="latin-1")))
def test_any_header_is_survived(one: str, other: str) -> None:
    headers = httpx.Headers([(b"retry-after", one.encode("latin-1")), (b"x-ratelimit-reset", other.encode("latin-1"))])
    pause_s = pause_of(headers)
    assert pause_s is None or 0 <= pause_s <= 86_400


# --- too much ---


async def test_an_answer_that_is_too_large_is_cut_while_it_comes() -> None:
    chunk, sent = b"x" * 65_536, 0

    async def say(_: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {10 * MAX_ANSWER}\r\n\r\n".encode())
        for _number in range(10 * MAX_ANSWER // len(chunk)):
            writer.write(chunk)
            await writer.drain()
            sent += len(chunk)

    async with api(say) as (loki, served):
        job = part(max_bytes=100_000_000)
        with pytest.raises(TooMuch, match="larger than 8,000,000"):
            await loki.json(job, "/q", needs=NEEDS)
    assert len(served.asked) == 1
    assert job.budget.received_bytes < MAX_ANSWER + 200_000
    assert sent < 2 * MAX_ANSWER


async def test_a_bomb_is_unpacked_a_little_at_a_time() -> None:
    bomb = gzip.compress(b"[" + b"0," * 50_000_000 + b"0]", 9)
    assert len(bomb) < 200_000
    async with api(says(answer(bomb, Content_Encoding="gzip"))) as (loki, served):
        tracemalloc.start()
        with pytest.raises(TooMuch, match="larger than 8,000,000"):
            await loki.json(part(), "/q", needs=NEEDS)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2.5 * MAX_ANSWER
    assert served.asked[0].headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize("size", [0, 1, 1000, 3_000_000])
async def test_packed_answers_are_read_whole_and_counted_unpacked(size: int) -> None:
    body = b'"' + b"ab" * size + b'"'
    async with api(says(answer(gzip.compress(body), Content_Encoding="gzip"))) as (loki, _):
        job = part()
        assert await loki.json(job, "/q", needs=NEEDS) == "ab" * size
    assert job.budget.received_bytes == len(body)


@pytest.mark.parametrize("cut", [5, 500])
async def test_a_packed_answer_that_is_broken_is_asked_for_again(cut: int) -> None:
    whole = gzip.compress(bytes(range(256)) * 100)
    body = gzip.compress(b'{"a": 1}')
    broken = whole[: len(whole) - cut] if cut < len(whole) else b"no gzip"
    async with api(says(answer(broken, Content_Encoding="gzip"), answer(body, Content_Encoding="gzip"))) as (loki, _):
        assert await loki.json(part(), "/q", needs=NEEDS) == {"a": 1}


async def test_a_packing_that_was_not_asked_for_is_refused() -> None:
    async with api(says(answer(b"\x0b\x02\x80{}\x03", Content_Encoding="br"))) as (loki, _):
        with pytest.raises(CollectorError, match="packed as 'br'"):
            await loki.json(part(), "/q", needs=NEEDS)


async def test_a_long_complaint_is_cut() -> None:
    async with api(says(answer("x" * 5_000_000, "400 Bad Request"))) as (loki, _):
        job = part()
        with pytest.raises(Refused) as told:
            await loki.json(job, "/q", needs=NEEDS)
    assert len(told.value.detail) < 400
    assert job.budget.received_bytes < 200_000


@pytest.mark.parametrize(
    ("budget", "setting"), [({"max_calls": 3}, "LOKI_MAX_CALLS"), ({"max_bytes": 1000}, "LOKI_MAX_BYTES")]
)
async def test_a_budget_that_is_used_up_is_one_gap_with_the_setting_to_raise(
    budget: dict[str, int], setting: str
) -> None:
    async with api(says(answer('"' + "x" * 300 + '"'))) as (loki, served):

        async def page(job: Part) -> None:
            while True:
                await loki.json(job, "/page", needs=NEEDS)

        jobs = [(f"page {n}", page) for n in range(5)]
        found = await gather(jobs, side_by_side=2, budget=Budget("loki", Settings.model_validate(budget)))
    assert [gap.reason for gap in found.gaps] == [GapReason.TRUNCATED]
    assert setting in found.gaps[0].mend
    assert len(served.asked) <= 5


# --- time ---


async def drip(_: Request, writer: asyncio.StreamWriter) -> None:
    """Never long enough silent for a read timeout, and never done."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def test_a_body_that_never_ends_is_ended_by_the_budget() -> None:
    async with api(drip) as (loki, served), asyncio.timeout(5):
        with pytest.raises(TimedOut, match="no whole answer in time") as told:
            await loki.json(part(budget_s=0.3), "/q", needs=NEEDS)
        assert "LOKI_BUDGET_S" in told.value.mend
    assert len(served.asked) == 1


async def test_in_a_collection_it_costs_only_itself_and_the_connection_is_closed() -> None:
    async def say(request: Request, writer: asyncio.StreamWriter) -> None:
        await (drip if "slow" in request.target else says(answer("{}")))(request, writer)

    async with api(say) as (loki, served):

        async def read(job: Part) -> None:
            await loki.json(job, job.about, needs=NEEDS)

        found = await gather([("/slow", read), ("/q", read)], side_by_side=2, budget=part(budget_s=0.3).budget)
        assert [gap.reason for gap in found.gaps] == [GapReason.TIMEOUT]
        await asyncio.sleep(0.2)  # for the vendor to see it
        assert served.at_once == 0


async def test_a_request_that_is_cancelled_gives_its_turn_back() -> None:
    async def hang(_: Request, __: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with vendor(hang) as served:
        loki = Api("loki", httpx.AsyncClient(base_url=served.url), base_setting="LOKI_URL", at_once=2)
        for _ in range(3):
            waiting = [asyncio.create_task(loki.json(part(), "/q", needs=NEEDS)) for _ in range(5)]
            await asyncio.sleep(0.05)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        assert len(served.asked) == 3 * 2
        limit: Limit = loki.limit
        async with asyncio.timeout(1), limit.turn("x", 1), limit.turn("x", 1):
            pass
        await loki.aclose()


# --- what is no answer ---


@pytest.mark.parametrize(
    "body", ["<html>login</html>", "", "{", "[" * 100_000, '{"a": 1} x', b"\xff\xfe{}", "1" * 10_000]
)
async def test_what_is_no_json_is_told_so(body: str | bytes) -> None:
    async with api(says(answer(body))) as (loki, _):
        with pytest.raises(CollectorError, match="no JSON") as told:
            await loki.json(part(), "/q", needs=NEEDS)
    assert told.value.mend == "check LOKI_URL"


@pytest.mark.parametrize(
    ("told", "read"),
    [
        (rb'"cut \ud83d"', "cut \ufffd"),
        (rb'"\udc00 and \uD83D\uDE00 and \ud83d\u0041"', "\ufffd and \U0001f600 and \ufffdA"),
        (rb'"C:\\ud83d \\\ud83d"', "C:\\ud83d \\\ufffd"),
    ],
)
async def test_half_a_character_does_not_cost_the_answer(told: bytes, read: str) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(told)
    async with api(says(head + told)) as (loki, _):
        assert await loki.json(part(), "/q", needs=NEEDS) == read


@pytest.mark.parametrize("link", ['<http://[>; rel="next"', "<", ";;;", '<?a=1>; rel="prev"'])
async def test_a_link_that_leads_nowhere_is_the_last_page(link: str) -> None:
    async with api(says(answer("[]", Link=link))) as (loki, _):
        assert await loki.page(part(), "/q", needs=NEEDS) == ([], {})


async def test_an_impossible_date_costs_nothing() -> None:
    never = "Fri, 20 Nov 99999999999999999999 10:00:00 GMT"
    async with api(says(answer("[]", Date=never))) as (loki, _):
        assert await loki.json(part(), "/q", needs=NEEDS) == []
        assert loki.skew_s is None
    assert pause_of(httpx.Headers({"Retry-After": never})) is None


async def test_numbers_that_json_does_not_have_are_read_as_what_they_are() -> None:
    async with api(says(answer('[NaN, Infinity, 1e999, "NaN"]'))) as (loki, _):
        found = await loki.json(part(), "/q", needs=NEEDS)
    assert isinstance(found, list)
    assert [str(x) for x in found] == ["nan", "inf", "inf", "NaN"]


async def test_a_large_answer_is_parsed_elsewhere() -> None:
    body = "[" + ",".join(["1"] * 200_000) + "]"
    async with api(says(answer(body))) as (loki, _):
        assert await loki.json(part(), "/q", needs=NEEDS) == [1] * 200_000


# --- the doctor ---


async def test_a_check_tells_what_was_seen_or_what_is_missing() -> None:
    async with api(says(answer("{}", Date=formatdate(time.time() + 300, usegmt=True)), answer("", "403 No"))) as (
        loki,
        _,
    ):

        async def read(job: Part) -> str:
            await loki.json(job, "/q", needs=NEEDS)
            return "12 labels"

        seen = await checked("loki", Settings(), "sample query", read)
        refused = await checked("loki", Settings(), "sample query", read)
    assert (seen.status, seen.detail) == ("ok", "12 labels")
    assert (refused.status, refused.mend) == ("failed", NEEDS)
    clock = clock_check(loki.skew_s)
    assert clock.status == "failed"
    assert "+300" in clock.detail or "+299" in clock.detail
    assert clock_check(None).status == "skipped"


SILENT = Api("loki", httpx.AsyncClient(verify=False), base_setting="LOKI_URL")  # never asked


@settings(deadline=None)
@given(st.text(st.characters(codec="latin-1")))
def test_any_date_is_survived(date: str) -> None:
    SILENT._note_skew(httpx.Response(200, headers=[(b"date", date.encode("latin-1"))]))


def test_the_bounds_fit_together() -> None:
    assert SourceSettings().max_bytes >= _http.MAX_ANSWER
