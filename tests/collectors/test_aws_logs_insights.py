"""Logs Insights on a small stand-in behind boto3's own wire format; on moto where moto does it right."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.config import Config

from collectors._budget import Budget, SourceSettings
from collectors._jobs import Part, gather
from collectors.aws import logs_insights
from collectors.aws._calls import Clients, call
from collectors.base import (
    AwsResources,
    CollectorError,
    GapReason,
    Level,
    RateLimited,
    Scope,
    SeriesRef,
    Target,
    Telemetry,
    Window,
)
from tests.collectors.aws_stubs import SESSION, hurry

T0 = datetime(2024, 12, 20, 9, 0, tzinfo=UTC)
INCIDENT = Window(start=T0, end=T0 + timedelta(minutes=10))
BASELINE = Window(start=T0 - timedelta(minutes=30), end=T0)
YESTERDAY = Window(start=T0 - timedelta(days=1), end=T0 - timedelta(days=1) + timedelta(minutes=10))
GROUP = "/ecs/payment-service"
TARGET = Target(service="payment", aws=AwsResources(log_groups=(GROUP,)))
WHEN: Any = {"startTime": 0, "endTime": 60, "queryString": "limit 1"}
Body = Mapping[str, Any]
Reply = tuple[int, object]


class FrozenClock:
    """Stands still."""

    def now(self) -> datetime:
        """The end of the incident."""
        return INCIDENT.end


class RawBytes(BytesIO):
    """A body as botocore reads it."""

    def stream(self, **_: object) -> Iterator[bytes]:
        """All at once."""
        while chunk := self.read():
            yield chunk


def answer_with(client: Any, reply: Callable[[str, Body], Reply | None]) -> None:
    """Answer a client's requests, by the action's name and the request; None lets a request through."""

    def send(request: AWSPreparedRequest, **_: object) -> AWSResponse | None:
        target: object = request.headers.get("X-Amz-Target", request.url.rpartition("/")[2])
        action = (target.decode() if isinstance(target, bytes) else str(target)).rpartition(".")[2]
        sent = request.body if isinstance(request.body, bytes | str) else b""
        told = reply(action, json.loads(sent or "{}"))
        if told is None:
            return None
        status, body = told
        return AWSResponse(request.url, status, HTTPHeaders(), RawBytes(json.dumps(body).encode()))

    client.meta.events.register("before-send", send)


def refusal(code: str, status: int = 400) -> Reply:
    """An error as AWS words it."""
    return status, {"__type": code, "message": f"{code}: no"}


def clients_at(endpoint_url: str | None = None) -> Clients:
    """Clients that give up at once."""
    config = Config(retries={"total_max_attempts": 1}, connect_timeout=1, read_timeout=5)
    names = {"elb": "elbv2"}
    made: dict[str, Any] = {
        name: SESSION.client(names.get(name, name), endpoint_url=endpoint_url, config=config)
        for name in Clients._fields
    }
    return Clients(**made)


def scope(*targets: Target, **more: Any) -> Scope:
    """The ten minutes of the incident, and the half hour before."""
    return Scope(
        service="payment", occurred_at=T0, incident=INCIDENT, baseline=(BASELINE,), targets=targets or (TARGET,), **more
    )


def rows(*found: Mapping[str, object]) -> list[list[dict[str, str]]]:
    """Rows in the shape of GetQueryResults, in which all values are texts."""
    return [[{"field": key, "value": str(value)} for key, value in row.items()] for row in found]


def minute(at: datetime, lines: int, problems: int) -> dict[str, object]:
    return {"minute": f"{at:%Y-%m-%d %H:%M:%S}.000", "lines": lines, "problems": problems}


def line(at: datetime, message: str, stream: str = "ecs/app/0123abcd") -> dict[str, object]:
    told = f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d}"
    return {"@timestamp": told, "@message": message, "@logStream": stream, "@log": f"123456789012:{GROUP}", "@ptr": "x"}


class CloudWatchLogs:
    """Keeps queries, and answers each by the first of ``results`` whose word is in its text."""

    def __init__(self) -> None:
        self.results: list[tuple[str, list[list[dict[str, str]]]]] = []
        self.groups = {GROUP}
        self.statuses = ["Complete"]
        self.scanned = 1000.0
        self.started: list[Body] = []
        self.stopped: list[str] = []
        self.events: list[Body] = []
        self.pages: list[Body] = []
        self.denied: set[str] = set()
        self.limit_exceeded = False
        self.has_started, self.has_stopped = threading.Event(), threading.Event()
        self.clients = clients_at()
        answer_with(self.clients.logs, self.reply)

    def reply(self, action: str, request: Body) -> Reply:
        """One request."""
        if action in self.denied:
            return refusal("AccessDeniedException")
        replies = {
            "StartQuery": self._start,
            "GetQueryResults": self._results,
            "StopQuery": self._stop,
            "FilterLogEvents": self._filter,
            "DescribeLogGroups": self._describe,
        }
        return replies[action](request)

    def _start(self, request: Body) -> Reply:
        if self.limit_exceeded:
            return refusal("LimitExceededException")
        if not self.groups.issuperset(request["logGroupNames"]):
            return refusal("ResourceNotFoundException")
        self.started.append(request)
        self.has_started.set()
        return 200, {"queryId": str(len(self.started) - 1)}

    def _results(self, request: Body) -> Reply:
        if not request["queryId"].isdecimal():
            return refusal("ResourceNotFoundException")
        text = self.started[int(request["queryId"])]["queryString"]
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        found = next((found for word, found in self.results if word in text), [])
        return 200, {"status": status, "results": found, "statistics": {"bytesScanned": self.scanned}}

    def _stop(self, request: Body) -> Reply:
        self.stopped.append(request["queryId"])
        self.has_stopped.set()
        return 200, {"success": True}

    def _filter(self, request: Body) -> Reply:
        self.events.append(request)
        if request["logGroupName"] not in self.groups:
            return refusal("ResourceNotFoundException")
        return 200, self.pages.pop(0) if self.pages else {"events": []}

    def _describe(self, request: Body) -> Reply:
        prefix = request.get("logGroupNamePrefix", "")
        found = sorted(group for group in self.groups if group.startswith(prefix))
        return 200, {"logGroups": [{"logGroupName": group} for group in found[: request["limit"]]]}

    async def collect(self, about: Scope | None = None, budget_s: float = 10) -> Telemetry:
        """All jobs."""
        hurry()
        budget = Budget("aws", SourceSettings(budget_s=budget_s))
        jobs = logs_insights.jobs(self.clients, FrozenClock(), about or scope())
        return await gather(jobs, side_by_side=4, budget=budget)

    def texts(self) -> list[str]:
        """The queries that were asked."""
        return [request["queryString"] for request in self.started]


@pytest.fixture
def logs() -> CloudWatchLogs:
    return CloudWatchLogs()


async def test_counts_come_first_and_tell_what_to_read(logs: CloudWatchLogs) -> None:
    logs.results = [
        ("stats count", rows(minute(T0, 40, 3), minute(T0 - timedelta(minutes=5), 30, 0))),
        ("not like", rows(line(T0, "INFO served"))),
        ("like", rows(line(T0 + timedelta(seconds=3, milliseconds=250), "ERROR pool exhausted"))),
    ]
    found = await logs.collect()
    errors, lines = found.series
    assert (errors.ref.metric, lines.ref.metric) == ("log_lines_error", "log_lines")
    assert errors.epoch_s[0] == BASELINE.start.timestamp()
    assert len(errors.epoch_s) == 40  # all minutes of both windows
    assert dict(zip(errors.epoch_s, errors.values, strict=True))[T0.timestamp()] == 3.0
    assert sum(errors.values) == 3.0  # a minute without lines is a zero
    assert sum(lines.values) == 70.0
    counted, *sampled = logs.started
    assert (counted["startTime"], counted["endTime"]) == (BASELINE.start.timestamp(), INCIDENT.end.timestamp())
    others = [request for request in sampled if "not like" in request["queryString"]]
    assert (len(sampled), len(others)) == (3, 2)  # the baseline has no problems: not asked for
    assert ("error", "ERROR pool exhausted") in [(one.level, one.message) for one in found.logs]
    assert all(query.link and "logs-insights" in query.link for query in found.queries)
    assert not found.gaps


async def test_many_lines_are_sampled_over_time_and_weighted(logs: CloudWatchLogs) -> None:
    logs.results = [("stats count", rows(minute(T0, 20_000, 0))), ("% 41 ", rows(line(T0, "INFO served")))]
    found = await logs.collect()
    [told] = found.logs
    assert told.count == 41  # 20,000 lines for 500: every 40th would only ever hit whole hundredths of a second
    [gap] = found.gaps
    assert gap.reason == GapReason.TRUNCATED
    assert "about 41" in gap.detail


async def test_problems_are_read_from_their_start_and_then_spread(logs: CloudWatchLogs) -> None:
    onset = [line(T0 + timedelta(milliseconds=index), "ERROR a") for index in range(1000)]
    logs.results = [("stats count", rows(minute(T0, 4000, 4000))), ("slot = 0", []), ("like", rows(*onset))]
    await logs.collect()
    after = next(request for request in logs.started if "slot = 0" in request["queryString"])
    assert "sort @timestamp asc" in logs.texts()[1]
    assert "% 7 as slot" in after["queryString"]  # 3,000 more for 500, without divisors in common with 1,000
    assert after["startTime"] == T0.timestamp() + 1


async def test_seasonal_windows_are_counted_where_that_is_cheap(logs: CloudWatchLogs) -> None:
    logs.results = [("stats count", rows(minute(T0, 4, 0), minute(YESTERDAY.start, 7, 2)))]
    found = await logs.collect(scope(seasonal=(YESTERDAY,)))
    errors, _ = found.series
    assert errors.epoch_s[0] == YESTERDAY.start.timestamp()
    assert errors.values[0] == 2.0
    assert list(errors.epoch_s) == sorted(errors.epoch_s)
    logs.scanned, before = 50e9, len(logs.started)
    found = await logs.collect(scope(seasonal=(YESTERDAY,)))
    assert all(request["startTime"] > YESTERDAY.end.timestamp() for request in logs.started[before:])
    assert "# scanned 50.0 GB" in found.queries[0].text


async def test_a_running_query_is_waited_for(logs: CloudWatchLogs) -> None:
    logs.statuses = ["Scheduled", "Running", "Complete"]
    logs.results = [("stats count", rows(minute(T0, 1, 0)))]
    found = await logs.collect()
    assert len(found.series) == 2
    assert not logs.stopped


async def test_when_time_is_up_what_is_there_is_kept_and_the_query_stopped(logs: CloudWatchLogs) -> None:
    logs.statuses = ["Running"]
    logs.results = [("stats count", rows(minute(T0, 9, 0)))]
    found = await logs.collect(budget_s=1.8)
    errors, lines = found.series
    assert lines.values == (9.0,)  # no zeros: the rest is not known
    assert errors.epoch_s == (T0.timestamp(),)
    assert logs.stopped[0] == "0"
    assert {gap.reason for gap in found.gaps} == {GapReason.TIMEOUT}
    assert found.queries[0].truncated


async def test_a_cancelled_collection_leaves_no_query_running(logs: CloudWatchLogs) -> None:
    logs.statuses = ["Running"]
    task = asyncio.create_task(logs.collect())
    assert await asyncio.to_thread(logs.has_started.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(logs.has_stopped.wait, 5)
    assert logs.stopped == ["0"]


@pytest.mark.parametrize("status", ["Failed", "Cancelled"])
async def test_a_query_that_fails_is_told_and_lines_are_read_anyway(logs: CloudWatchLogs, status: str) -> None:
    logs.statuses = [status, "Complete"]
    logs.results = [("like", rows(line(T0, "ERROR a")))]
    found = await logs.collect()
    assert found.logs
    assert any(status in gap.detail for gap in found.gaps)


async def test_too_many_queries_in_the_account(logs: CloudWatchLogs) -> None:
    logs.limit_exceeded = True
    with pytest.raises(RateLimited):
        await logs.collect(budget_s=1.5)


async def test_a_refused_query_does_not_hold_up_those_that_run(logs: CloudWatchLogs) -> None:
    part = Part("aws", "test", Budget("aws", SourceSettings(budget_s=1.5)))  # less than the pause after a throttle
    logs.started.append({"queryString": "x"})
    logs.limit_exceeded = True
    with pytest.raises(RateLimited):
        await call(part, "logs:StartQuery", lambda: logs.clients.logs.start_query(logGroupNames=[GROUP], **WHEN))
    answer = await call(part, "logs:GetQueryResults", lambda: logs.clients.logs.get_query_results(queryId="0"))
    assert answer["status"] == "Complete"
    with pytest.raises(RateLimited, match="reset in 2 s"):
        await call(part, "logs:StartQuery", lambda: logs.clients.logs.start_query(logGroupNames=[GROUP], **WHEN))


async def test_after_a_refusal_fewer_queries_run_at_once(logs: CloudWatchLogs) -> None:
    insights = logs_insights.Insights(logs.clients.logs)
    logs.limit_exceeded = True
    part = Part("aws", "test", Budget("aws", SourceSettings(budget_s=1.5)))
    for _ in range(2):
        with pytest.raises(RateLimited):
            await insights.ask(part, logs_insights.Search((GROUP,), "limit 1", INCIDENT))
    logs.limit_exceeded = False
    assert insights.at_once == 1


async def test_one_missing_group_does_not_cost_the_others(logs: CloudWatchLogs) -> None:
    target = Target(service="payment", aws=AwsResources(log_groups=("/gone", GROUP)))
    logs.results = [("stats count", rows(minute(T0, 4, 1))), ("like", rows(line(T0, "ERROR a")))]
    found = await logs.collect(scope(target))
    assert found.logs
    assert {tuple(request["logGroupNames"]) for request in logs.started} == {(GROUP,)}
    [gap] = found.gaps
    assert gap.detail == "the log group /gone of payment does not exist"
    assert gap.mend == "correct aws.log_groups of payment in the catalogue"


async def test_no_line_at_all_is_told(logs: CloudWatchLogs) -> None:
    found = await logs.collect()
    [gap] = found.gaps
    assert gap.reason == GapReason.EMPTY
    assert GROUP in gap.detail
    assert len(logs.started) == 1  # and nothing more is scanned


async def test_rows_that_are_no_lines_are_counted(logs: CloudWatchLogs) -> None:
    strange: list[Mapping[str, object]] = [
        {"@timestamp": "yesterday", "@message": "ERROR a"},
        {"@timestamp": "99999999999999999999", "@message": "ERROR a"},
        line(T0, "  "),
        line(INCIDENT.end + timedelta(days=1), "ERROR from the future"),
        {"@ptr": "only"},
        line(INCIDENT.end, "ERROR in the second that was asked for too much"),
    ]
    logs.results = [
        ("stats count", rows(minute(T0, 9, 6))),
        ("not like", []),
        ("like", rows(*strange, line(T0, "ERROR b"))),
    ]
    found = await logs.collect()
    assert [one.message for one in found.logs] == ["ERROR b"]
    [gap] = found.gaps
    assert gap.detail.startswith("5 rows were not understood: fields @timestamp")


async def test_counts_that_are_not_understood_are_not_taken_for_silence(logs: CloudWatchLogs) -> None:
    strange: list[Mapping[str, object]] = [
        {"minute": "?", "lines": 1},
        {"minute": f"{T0:%Y-%m-%d %H:%M}", "lines": "NaN", "problems": 1},
        {"@timestamp": f"{T0:%Y-%m-%d %H:%M}"},
    ]
    logs.results = [
        ("stats count", rows(minute(T0, 9, 6), *strange)),
        ("not like", rows(line(T0, "INFO b"))),
        ("like", rows(line(T0, "ERROR a"))),
    ]
    found = await logs.collect()
    assert found.series[0].values == (6.0,)
    assert {one.message for one in found.logs} == {"ERROR a", "INFO b"}
    [gap] = found.gaps
    assert gap.detail.startswith("3 rows were not understood: stats count")


async def test_denied_queries_fall_back_to_events(logs: CloudWatchLogs) -> None:
    logs.denied = {"StartQuery"}
    at = int(T0.timestamp() * 1000)
    event = {"eventId": "1", "timestamp": at + 250, "message": "ERROR a", "logStreamName": "ecs/app/77"}
    logs.pages = [{"events": [], "nextToken": "more"}, {"events": [event]}]
    target = Target(service="payment", aws=AwsResources(log_groups=(GROUP, "/gone")))
    found = await logs.collect(scope(target))
    [told] = found.logs
    assert told.at == T0 + timedelta(milliseconds=250)
    assert told.instance == "77"
    first, second, *_ = logs.events
    assert (first["startTime"], first["endTime"]) == (at, int(INCIDENT.end.timestamp() * 1000) - 1)
    assert "?ERROR" in first["filterPattern"]
    assert found.queries[2].link == (
        "https://eu-west-1.console.aws.amazon.com/cloudwatch/home?region=eu-west-1#logsV2:log-groups/log-group/"
        f"$252Fecs$252Fpayment-service/log-events$3FfilterPattern$3D$26start$3D{at}$26end$3D{at + 600_000}"
    )
    assert second["nextToken"] == "more"
    assert "allow the role the action logs:StartQuery" in [gap.mend for gap in found.gaps]
    assert any("/gone" in gap.detail for gap in found.gaps)


async def test_pages_that_never_end_are_left(logs: CloudWatchLogs) -> None:
    logs.denied = {"StartQuery"}
    logs.pages = [{"events": [], "nextToken": str(index)} for index in range(1000)]
    found = await logs.collect(budget_s=2)
    assert len(logs.events) < 100
    assert found.logs == ()


async def test_the_count_is_measured_again(logs: CloudWatchLogs) -> None:
    logs.results = [("stats count", rows(minute(T0, 40, 3)))]
    found = await logs.collect()
    part = Part("aws", "metrics", Budget("aws", SourceSettings()))
    later = Window(start=T0, end=T0 + timedelta(minutes=5))
    refs = [one.ref for one in found.series]
    assert all(logs_insights.reads(ref) for ref in refs)
    again = await logs_insights.measure(logs.clients, FrozenClock(), part, refs, later)
    assert [(one.ref.metric, one.values) for one in again] == [
        ("log_lines_error", (3.0, 0.0, 0.0, 0.0, 0.0)),
        ("log_lines", (40.0, 0.0, 0.0, 0.0, 0.0)),
    ]
    broken = SeriesRef(source="aws", component="payment", metric="log_lines_error", query="?")
    with pytest.raises(CollectorError, match="no count of log lines"):
        await logs_insights.measure(logs.clients, FrozenClock(), part, [broken], later)


async def test_checks_name_the_missing_action_and_group(logs: CloudWatchLogs) -> None:
    logs.denied = {"FilterLogEvents"}
    found = await logs_insights.checks(logs.clients, SourceSettings(), FrozenClock(), (GROUP, "/gone"))
    status = {check.name: check.status for check in found}
    assert status == {
        "logs:DescribeLogGroups": "ok",
        f"log group {GROUP}": "ok",
        "log group /gone": "failed",
        "logs:StartQuery": "ok",
        "logs:GetQueryResults": "ok",
        "logs:StopQuery": "ok",
        "logs:FilterLogEvents": "failed",
    }
    assert found[-1].mend == "allow the role the action logs:FilterLogEvents"
    assert found[2].mend == "correct aws.log_groups in the catalogue"


XRAY_ID, OTEL_ID = "1-5759e988-bd862e3fe1be46a994272793", "5759e988bd862e3fe1be46a994272793"


@pytest.mark.parametrize(
    ("message", "level", "told", "trace_id"),
    [
        ('{"level":"ERROR","msg":"no pool","otelTraceID":"' + OTEL_ID + '"}', "error", "no pool", OTEL_ID),
        ('{"severity":"WARN","message":"slow","dd":{"trace_id":"77"}}', "warning", "slow", "77"),
        ('{"level":50,"msg":"boom"}', "error", "boom", ""),
        ('{"log":"{\\"level\\":\\"fatal\\",\\"msg\\":\\"down\\"}"}', "critical", "down", ""),
        ('{"message":"a","error":{"message":"refused"}}', "error", "a: refused", ""),
        (f"2024-12-20T09:00:00Z\tid\tERROR\tInvoke Error XRAY TraceId: {XRAY_ID}", "error", None, OTEL_ID),
        ("INFO handled, error rate 0", "info", None, ""),
        ("level=warning msg=retry trace_id=" + OTEL_ID, "warning", None, OTEL_ID),
        ("java.lang.NullPointerException: at Pay", "error", None, ""),
        ("upstream timed out", "warning", None, ""),
        ("2024/12/20 09:00:00 [crit] connect() failed", "critical", None, ""),
        ('{"level": not json', "info", None, ""),
        ('{"a":' * 40_000, "info", None, ""),
    ],
)  # fmt: skip
def test_a_line_of_any_form(message: str, level: Level, told: str | None, trace_id: str) -> None:
    found = logs_insights.log_line("payment", T0, message, "ecs/app/0123abcd")
    assert (found.level, found.trace_id) == (level, trace_id)
    assert found.message == (message[:8000] if told is None else told)


def test_the_instance_is_the_task_or_the_pod() -> None:
    assert logs_insights.log_line("payment", T0, "a", "ecs/app/0123abcd").instance == "0123abcd"
    assert logs_insights.log_line("payment", T0, '{"log":"a","kubernetes":{"pod_name":"p-1"}}', "x").instance == "p-1"


def test_what_goes_into_a_query_is_quoted() -> None:
    assert logs_insights.quoted('a" | limit 1 \\') == '"a\\" | limit 1 \\\\"'


def test_the_link_opens_the_query() -> None:
    search = logs_insights.Search((GROUP,), "fields @message", INCIDENT)
    link = logs_insights.link_to(clients_at().logs, search)
    assert link == (
        "https://eu-west-1.console.aws.amazon.com/cloudwatch/home?region=eu-west-1#logsV2:logs-insights$3FqueryDetail$3D"
        "~(end~'2024-12-20T09*3a10*3a00.000Z~start~'2024-12-20T09*3a00*3a00.000Z~timeType~'ABSOLUTE~tz~'UTC"
        "~editorString~'fields*20*40message~source~(~'*2fecs*2fpayment-service))"
    )
    assert logs_insights.link_to(clients_at("http://127.0.0.1:1").logs, search) is None


async def test_against_another_implementation_of_the_api(moto: str) -> None:
    clients, group = clients_at(moto), "/ecs/real"
    clients.logs.create_log_group(logGroupName=group)
    clients.logs.create_log_stream(logGroupName=group, logStreamName="ecs/app/1")
    now = datetime.now(UTC).replace(microsecond=0)
    at = int((now - timedelta(minutes=1)).timestamp() * 1000)
    events: Sequence[Any] = [{"timestamp": at, "message": "ERROR a"}, {"timestamp": at + 5, "message": "INFO b"}]
    clients.logs.put_log_events(logGroupName=group, logStreamName="ecs/app/1", logEvents=events)

    class Now:
        def now(self) -> datetime:
            return now

    window = Window(start=now - timedelta(minutes=5), end=now)
    insights = logs_insights.Insights(clients.logs)
    part = Part("aws", "test", Budget("aws", SourceSettings()))
    text = "fields @timestamp, @message, @logStream\n| sort @timestamp asc\n| limit 10"
    answer = await insights.ask(part, logs_insights.Search((group,), text, window, 10))
    assert [row["@message"] for row in answer.rows] == ["ERROR a", "INFO b"]
    target = Target(service="payment", aws=AwsResources(log_groups=(group, "/none")))
    about = Scope(service="payment", occurred_at=now, incident=window, baseline=(), targets=(target,))
    jobs = logs_insights.jobs(clients, Now(), about)
    found = await gather(jobs, side_by_side=2, budget=Budget("aws", SourceSettings(budget_s=10)))
    assert any("/none" in gap.detail for gap in found.gaps)
    checks = await logs_insights.checks(clients, SourceSettings(), Now(), (group,))
    assert {check.status for check in checks if check.name != "logs:StopQuery"} == {"ok"}
