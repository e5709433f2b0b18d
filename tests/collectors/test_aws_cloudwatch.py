"""CloudWatch's metrics and alarms on scripted answers."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

import pytest
from botocore.stub import ANY

from collectors.aws import alarms, cloudwatch
from collectors.base import (
    AwsResources,
    CollectorError,
    EcsService,
    GapReason,
    RateLimited,
    Scope,
    SeriesRef,
    Target,
    Telemetry,
    Window,
)
from tests.collectors.aws_stubs import BASELINE, INCIDENT, T0, Account, StoppedClock, scope_of

BALANCED = Target(service="payment", load_balancer="app/shop/50dc", target_group="targetgroup/pay/6d0e")
FUNCTION = Target(service="payment", aws=AwsResources(lambda_functions=("charge",)))
FIRST = BASELINE.start.replace(second=0) + timedelta(minutes=1)  # the first whole minute
ALARM = "arn:aws:cloudwatch:eu-west-1:123456789012:alarm:"
ALARM_TYPES = ("MetricAlarm", "CompositeAlarm", "LogAlarm")


@pytest.fixture
def account() -> Iterator[Account]:
    account = Account()
    yield account
    account.assert_all_asked()


def points(index: int | str, values: Sequence[float], **more: object) -> dict[str, object]:
    stamps = [FIRST + timedelta(minutes=i) for i in range(len(values))]
    name = f"m{index}" if isinstance(index, int) else index
    return {"Id": name, "Label": "x", "Timestamps": stamps, "Values": values, "StatusCode": "Complete", **more}


def page(*results: Mapping[str, object], **more: object) -> dict[str, object]:
    return {"MetricDataResults": list(results), **more}


def answers(account: Account, *pages: Mapping[str, object]) -> None:
    for one in pages:
        account.answers("cloudwatch", "get_metric_data", one)


async def read(account: Account, scope: Scope) -> Telemetry:
    return await account.run(cloudwatch.jobs(account.clients, account.clock, scope))


async def test_metrics_are_paged_and_missing_error_counts_are_zero(account: Account) -> None:
    asked = {
        "MetricDataQueries": ANY,
        "StartTime": BASELINE.start + timedelta(seconds=30),  # whole minutes only
        "EndTime": INCIDENT.end - timedelta(seconds=30),
        "ScanBy": "TimestampAscending",
    }
    slow = points(2, [0.4], StatusCode="PartialData")
    account.answers("cloudwatch", "get_metric_data", page(points(0, [10, 20, 30]), slow, NextToken="next"), asked)
    late = {"Id": "m1", "Label": "x", "Timestamps": [FIRST + timedelta(minutes=1)], "Values": [7.0]}
    account.answers("cloudwatch", "get_metric_data", page(late), {**asked, "NextToken": "next"})
    found = await read(account, scope_of(BALANCED))
    by_name = {series.ref.metric: series for series in found.series}
    assert set(by_name) == {
        "RequestCount",
        "HTTPCode_Target_5XX_Count",
        "TargetResponseTime",
        "TargetConnectionErrorCount",
    }
    assert by_name["HTTPCode_Target_5XX_Count"].values == (0.0, 7.0, 0.0)
    assert by_name["HTTPCode_Target_5XX_Count"].epoch_s[0] == FIRST.timestamp()
    response_time = by_name["TargetResponseTime"].ref
    assert (response_time.statistic, response_time.unit) == ("p95", "s")
    assert json.loads(response_time.query)["MetricStat"]["Metric"]["Dimensions"] == [
        {"Name": "LoadBalancer", "Value": "app/shop/50dc"},
        {"Name": "TargetGroup", "Value": "targetgroup/pay/6d0e"},
    ]
    assert [gap.reason for gap in found.gaps] == [GapReason.TRUNCATED]
    [query] = [q for q in found.queries if q.text == response_time.query]
    assert (query.rows, query.truncated) == (1, True)
    assert query.link is not None
    assert "metricsV2:graph=~(metrics~(~(~'AWS*2fApplicationELB~'TargetResponseTime~'LoadBalancer~'app*2f" in query.link
    assert "~start~'2024-12-20T08*3a01*3a00.000Z~end~'2024-12-20T09*3a10*3a00.000Z" in query.link


async def test_every_kind_of_resource_is_read_under_the_name_of_its_service(account: Account) -> None:
    resources = AwsResources(
        rds_instances=("orders-1", "orders-2"),
        rds_clusters=("orders",),
        elasticache_clusters=("sessions-001",),
        lambda_functions=("charge",),
        sqs_queues=("orders.fifo",),
    )
    refs = cloudwatch.series_refs([Target(service="payment", aws=resources)])
    assert {ref.component for ref in refs} == {"payment"}
    assert len({ref.query for ref in refs}) == len(refs)
    named = {(ref.metric, ref.statistic, ref.unit) for ref in refs}
    assert {
        ("RDS.FreeableMemory", "min", "B"),
        ("RDS.DatabaseConnections", "avg", ""),
        ("ElastiCache.EngineCPUUtilization", "avg", "%"),
        ("Lambda.Duration", "p95", "ms"),
        ("SQS.Queue.ApproximateAgeOfOldestMessage", "max", "s"),
    } <= named
    connections = [json.loads(r.query)["MetricStat"]["Metric"] for r in refs if r.metric == "RDS.DatabaseConnections"]
    assert [[d["Value"] for d in metric["Dimensions"]] for metric in connections] == [
        ["orders-1"],
        ["orders-2"],
        ["orders", "WRITER"],
        ["orders", "READER"],
    ]


async def test_invocations_give_lambda_its_zeros_back(account: Account) -> None:
    answers(account, page(points(0, [5, 5]), points(1, [2])))
    found = await read(account, scope_of(FUNCTION))
    assert {s.ref.metric: s.values for s in found.series} == {
        "Lambda.Invocations": (5, 5),
        "Lambda.Errors": (2, 0),
        "Lambda.Throttles": (0, 0),
    }


async def test_the_same_hours_of_other_days_are_added_and_may_fail(account: Account) -> None:
    yesterday = Window(start=BASELINE.start - timedelta(days=1), end=INCIDENT.end - timedelta(days=1))
    last_week = Window(start=BASELINE.start - timedelta(days=7), end=INCIDENT.end - timedelta(days=7))
    answers(account, page(points(0, [5])))
    before = {**points(0, [3]), "Timestamps": [FIRST - timedelta(days=7)]}
    account.answers(
        "cloudwatch",
        "get_metric_data",
        page(before),
        {
            "MetricDataQueries": ANY,
            "StartTime": FIRST - timedelta(days=7),
            "EndTime": INCIDENT.end - timedelta(days=7, seconds=30),
            "ScanBy": "TimestampAscending",
        },
    )
    account.refuses("cloudwatch", "get_metric_data", "InternalFailure", 500)
    found = await read(account, scope_of(FUNCTION, seasonal=(last_week, yesterday)))
    assert {s.values for s in found.series if s.ref.metric == "Lambda.Invocations"} == {(5,)}
    assert [gap.reason for gap in found.gaps] == [GapReason.UNREACHABLE]


@pytest.mark.parametrize(("days", "period_s", "seasonal"), [(1, 60, True), (10, 60, False), (20, 300, True)])
async def test_old_points_are_coarser_and_never_mixed_with_fine_ones(days: int, period_s: int, seasonal: bool) -> None:
    account = Account(StoppedClock(INCIDENT.end + timedelta(days=days)))
    last_week = Window(start=BASELINE.start - timedelta(days=7), end=INCIDENT.end - timedelta(days=7))
    first = FIRST if period_s == 60 else BASELINE.start.replace(minute=5, second=0)
    answers(account, page({**points(0, [5]), "Timestamps": [first]}))
    if seasonal:
        answers(account, page({**points(0, [3]), "Timestamps": [first - timedelta(days=7)]}))
    found = await read(account, scope_of(FUNCTION, seasonal=(last_week,)))
    series = next(s for s in found.series if s.ref.metric == "Lambda.Invocations")
    assert json.loads(series.ref.query)["MetricStat"]["Period"] == period_s
    assert list(series.values) == ([3, 5] if seasonal else [5])
    assert [gap.reason for gap in found.gaps] == ([] if seasonal else [GapReason.EMPTY])
    account.assert_all_asked()


async def test_what_cannot_be_points_is_dropped_and_counted(account: Account) -> None:
    odd = {
        "Id": "m0",
        "Label": "x",
        "Timestamps": [FIRST, FIRST + timedelta(minutes=1), FIRST + timedelta(days=9), FIRST],
        "Values": [float("nan"), 4.0, 5.0],
        "StatusCode": "Complete",
    }
    other = points(0, [9.0], Label="another series")
    refused = points(1, [], StatusCode="Forbidden")
    broken = points(3, [], StatusCode="InternalError")
    messages = [{"Code": "Partial", "Value": "a message"}]
    answers(account, page(odd, other, refused, broken, Messages=messages))
    found = await read(account, scope_of(FUNCTION))
    [invocations] = [s for s in found.series if s.ref.metric == "Lambda.Invocations"]
    assert (invocations.epoch_s, invocations.values) == (((FIRST + timedelta(minutes=1)).timestamp(),), (4.0,))
    assert [(gap.reason, gap.detail) for gap in found.gaps] == [
        (GapReason.TRUNCATED, "CloudWatch: Partial a message"),
        (GapReason.FAILED, "2 points were not understood: Lambda.Invocations of payment"),
        (GapReason.TRUNCATED, "Lambda.Invocations of payment is 2 series; only 'x' was kept"),
        (GapReason.FORBIDDEN, "CloudWatch refused Lambda.Errors of payment"),
        (GapReason.FAILED, "CloudWatch failed on Lambda.Duration of payment: InternalError"),
    ]


async def test_pages_without_end_are_ended(account: Account) -> None:
    answers(account, *(page(NextToken="more") for _ in range(cloudwatch.PAGES)))
    found = await read(account, scope_of(FUNCTION))
    assert [(gap.reason, "more than 20 pages" in gap.detail) for gap in found.gaps] == [(GapReason.TRUNCATED, True)]


async def test_a_long_window_asks_for_fewer_metrics_at_once(account: Account) -> None:
    long = BASELINE.model_copy(update={"start": T0 - timedelta(days=14)})  # 20,160 points of each: five at once
    answers(account, page(), page())
    resources = AwsResources(lambda_functions=("charge", "refund"))
    await read(account, scope_of(Target(service="payment", aws=resources), baseline=(long,)))


async def test_measuring_an_error_count_that_went_away_gives_zeros(account: Account) -> None:
    errors = next(r for r in cloudwatch.series_refs([BALANCED]) if r.metric == "HTTPCode_Target_5XX_Count")
    traffic = {**points(1, [100.0, 120.0]), "Timestamps": [T0.replace(minute=m, second=0) for m in (1, 2)]}
    answers(account, page(traffic))
    [measured] = await account.collector.measure([errors], INCIDENT)
    assert (measured.ref, measured.values) == (errors, (0.0, 0.0))


async def test_throttling_and_nonsense_raise_when_measuring(account: Account) -> None:
    ref = SeriesRef(source="aws", component="payment", metric="m", query='{"Id": "m"}')
    account.refuses("cloudwatch", "get_metric_data", "Throttling")
    for query in ("avg:x{*}", "[]", "3", "null", '["x"]', '{"MetricStat": 3}', '{"MetricStat": {"Period": "x"}}'):
        with pytest.raises(CollectorError, match="no CloudWatch query"):
            await account.collector.measure([ref.model_copy(update={"query": query})], INCIDENT)
    valid = cloudwatch.series_refs([FUNCTION])[0]
    with pytest.raises(RateLimited):
        await account.collector.measure([valid], INCIDENT)
    assert await account.collector.measure([valid.model_copy(update={"source": "datadog"})], INCIDENT) == []


# --- alarms -------------------------------------------------------------------------------------------------


def raised(name: str, **more: object) -> Scope:
    symptom = {"source": "cloudwatch", "rule": f"cloudwatch:{ALARM}{name}", "title": name}
    return scope_of(Target(service="payment"), symptom={**symptom, **more})


async def read_alarm(account: Account, scope: Scope) -> Telemetry:
    return await account.run(alarms.jobs(account.clients, account.clock, scope))


def metric_alarm(name: str, **more: object) -> dict[str, object]:
    return {
        "AlarmName": name,
        "AlarmArn": ALARM + name,
        "StateValue": "ALARM",
        "StateReason": "Threshold Crossed: 1 datapoint [41.0] was greater than the threshold (5.0).",
        "StateUpdatedTimestamp": T0,
        "EvaluationPeriods": 3,
        "DatapointsToAlarm": 2,
        "Threshold": 5.0,
        "ComparisonOperator": "GreaterThanThreshold",
        **more,
    }


def describes(account: Account, names: Sequence[str], **answer: object) -> None:
    asked = {"AlarmNames": list(names), "AlarmTypes": ALARM_TYPES, "MaxRecords": 100}
    account.answers("cloudwatch", "describe_alarms", answer, asked)


async def test_the_metric_of_an_alarm_is_read_as_the_alarm_sees_it(account: Account) -> None:
    own: dict[str, object] = {
        "Namespace": "Shop/Payments",
        "MetricName": "FailedCharges",
        "Dimensions": [{"Name": "Provider", "Value": "stripe"}],
        "ExtendedStatistic": "p99",
        "Period": 300,
        "Unit": "Milliseconds",
    }
    describes(account, ["charges"], MetricAlarms=[metric_alarm("charges", **own)])
    five = {"StartTime": BASELINE.start.replace(minute=5, second=0), "EndTime": INCIDENT.end.replace(second=0)}
    query = {
        "Id": "m0",
        "MetricStat": {
            "Metric": {key: own[key] for key in ("Namespace", "MetricName", "Dimensions")},
            "Period": 300,
            "Stat": "p99",
        },
    }
    account.answers(
        "cloudwatch",
        "get_metric_data",
        page({**points(0, [41]), "Timestamps": [five["StartTime"]]}),
        {"MetricDataQueries": [query], **five, "ScanBy": "TimestampAscending"},
    )
    found = await read_alarm(account, raised("charges"))
    [series] = found.series
    assert (series.ref.component, series.ref.metric) == ("payment", "Shop/Payments.FailedCharges")
    assert (series.ref.statistic, series.ref.unit) == ("p99", "ms")
    [limit] = found.statuses
    assert (limit.name, limit.observed, limit.expected) == ("cloudwatch.alarm_threshold", 5.0, None)
    assert limit.detail.startswith("charges; ALARM; FailedCharges > 5 for 2 of 3 datapoints; Threshold Crossed")


async def test_what_is_read_anyway_is_not_read_twice(account: Account) -> None:
    watched = {
        "Namespace": "AWS/Lambda",
        "MetricName": "Errors",
        "Dimensions": [{"Name": "FunctionName", "Value": "charge"}],
        "Statistic": "Sum",
        "Period": 60,
    }
    describes(account, ["errors"], MetricAlarms=[metric_alarm("errors", **watched)])
    scope = raised("errors").model_copy(update={"targets": (FUNCTION,)})
    found = await read_alarm(account, scope)
    assert (found.series, len(found.statuses)) == ((), 1)


def stat(name: str, **more: object) -> dict[str, object]:
    metric = {"Namespace": "AWS/ApplicationELB", "MetricName": name, "Dimensions": []}
    return {"MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum"}, **more}


async def test_metric_math_is_asked_alone_and_only_the_watched_id_returns(account: Account) -> None:
    math: list[dict[str, object]] = [
        {"Id": "errors", **stat("HTTPCode_Target_5XX_Count"), "ReturnData": False},
        {"Id": "all", **stat("RequestCount"), "ReturnData": False},
        {"Id": "rate", "Expression": "100*errors/all", "Label": "5xx error rate %"},
    ]
    describes(account, ["rate"], MetricAlarms=[metric_alarm("rate", Metrics=math)])
    asked = {
        "MetricDataQueries": [*math[:2], {**math[2], "ReturnData": True}],
        "StartTime": ANY,
        "EndTime": ANY,
        "ScanBy": "TimestampAscending",
    }
    account.answers("cloudwatch", "get_metric_data", page(points("rate", [2.5])), asked)
    found = await read_alarm(account, raised("rate"))
    [series] = found.series
    assert (series.ref.metric, series.values) == ("5xx error rate %", (2.5,))
    again = {**points("rate", [0.5]), "Timestamps": [T0.replace(minute=1, second=0)]}
    account.answers("cloudwatch", "get_metric_data", page(again), asked)
    [measured] = await account.collector.measure([series.ref], INCIDENT)
    assert measured.values == (0.5,)


async def test_of_an_anomaly_the_metric_is_read_and_not_its_band(account: Account) -> None:
    watched = {"Id": "m1", **stat("RequestCount"), "ReturnData": True}
    band = {"Id": "ad1", "Expression": "ANOMALY_DETECTION_BAND(m1, 2)", "ReturnData": True}
    alarm = metric_alarm("odd", Metrics=[watched, band], ThresholdMetricId="ad1")
    del alarm["Threshold"]
    describes(account, ["odd"], MetricAlarms=[alarm])
    answers(account, page(points(0, [7])))
    found = await read_alarm(account, raised("odd"))
    assert [(s.ref.metric, s.values) for s in found.series] == [("RequestCount", (7,))]
    assert found.statuses == ()


async def test_below_a_composite_alarm_are_its_children(account: Account) -> None:
    composite = {
        "AlarmName": "all",
        "AlarmRule": "ALARM(a) OR ALARM(b)",
        "StateValue": "ALARM",
        "StateUpdatedTimestamp": T0,
    }
    describes(account, ["all"], CompositeAlarms=[composite])
    children = [{"AlarmName": "b", "StateValue": "OK"}, {"AlarmName": "a", "StateValue": "ALARM"}]
    asked = {"ChildrenOfAlarmName": "all"}
    account.answers("cloudwatch", "describe_alarms", {"MetricAlarms": children}, asked)
    watched = {"Namespace": "X", "MetricName": "Y", "Statistic": "Sum", "Period": 10}
    log_alarm = {"AlarmName": "b", "StateValue": "OK", "Threshold": 1.0}
    describes(account, ["a", "b"], MetricAlarms=[metric_alarm("a", **watched)], LogAlarms=[log_alarm])
    answers(account, page(points(0, [7])))
    found = await read_alarm(account, raised("all"))
    assert [status.name for status in found.statuses] == [
        "cloudwatch.composite_alarm",
        "cloudwatch.log_alarm_threshold",
        "cloudwatch.alarm_threshold",
    ]
    assert [(s.ref.metric, s.values) for s in found.series] == [("X.Y", (7,))]
    assert json.loads(found.series[0].ref.query)["MetricStat"]["Period"] == 60  # 10 s are kept for three hours


async def test_an_alarm_that_cannot_be_read_is_a_gap(account: Account) -> None:
    describes(account, ["gone"])
    found = await read_alarm(account, raised("gone"))
    assert [gap.reason for gap in found.gaps] == [GapReason.EMPTY]
    elsewhere = raised("x", rule=f"cloudwatch:{ALARM.replace('eu-west-1', 'us-east-1')}x")
    scope = elsewhere.model_copy(update={"targets": (FUNCTION,)})
    answers(account, page())
    both = [
        *alarms.jobs(account.clients, account.clock, scope),
        *cloudwatch.jobs(account.clients, account.clock, scope),
    ]
    found = await account.run(both)
    assert [(gap.reason, "AUTOPILOT_AWS_REGION" in gap.mend) for gap in found.gaps] == [
        (GapReason.NOT_CONFIGURED, True)
    ]


async def test_a_rule_too_long_to_be_kept_is_found_by_its_title(account: Account) -> None:
    describes(account, ["long name"], MetricAlarms=[metric_alarm("long name", MetricName="Y", Namespace="X")])
    answers(account, page())
    found = await read_alarm(account, raised("x", rule="sha256:0a1b", title="long name"))
    assert len(found.statuses) == 1


async def test_an_alert_of_another_sender_asks_for_no_alarm(account: Account) -> None:
    assert list(alarms.jobs(account.clients, account.clock, raised("x", source="datadog"))) == []


async def test_what_always_reports_but_has_not_is_told(account: Account) -> None:
    resources = AwsResources(rds_instances=("orders",), lambda_functions=("rarely-called",))
    arn = "arn:aws:ecs:eu-west-1:123456789012:cluster/shop"
    target = Target(service="payment", ecs=EcsService(cluster=arn, service="pay"), aws=resources)
    cpu = cloudwatch.series_refs([target])[0]
    assert "arn:" not in cpu.query  # CloudWatch has a cluster by its name only
    answers(account, page(points(0, [41])))
    found = await read(account, scope_of(target))
    assert [(gap.reason, gap.detail) for gap in found.gaps] == [
        (GapReason.EMPTY, "CloudWatch has no metric of AWS/RDS orders")
    ]
    answers(account, page({**points(0, []), "StatusCode": "Forbidden"}))
    [gap] = (await read(account, scope_of(target))).gaps  # not that there is nothing as well
    assert gap.reason == GapReason.FORBIDDEN


async def test_a_link_of_an_alert_is_not_ours_to_pass_on(account: Account) -> None:
    describes(account, ["a b"])
    found = await read_alarm(account, raised("a b", url="https://evil.example/"))
    assert [query.link for query in found.queries] == [
        "https://eu-west-1.console.aws.amazon.com/cloudwatch/home?region=eu-west-1#alarmsV2:alarm/a%20b"
    ]
