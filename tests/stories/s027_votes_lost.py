"""027: votes of a live show are lost, though the table has capacity to spare."""

from datetime import UTC, datetime

from collectors.base import GapReason
from tests.stories.telling import Amount, Call, Line, Story, Telling, between, course, ecs_service, services

CATALOGUE = services(
    show_edge=ecs_service("show-edge", "live", "vote-api", "feed-api", balanced=True, tier=1),
    vote_api=ecs_service("vote-api", "live", "votes-table", "voter-cache", balanced=True, tier=1, max_tasks=20),
    tally=ecs_service("tally", "live", "votes-table", tier=2),
    feed_api=ecs_service("feed-api", "live", "feed-table", "voter-cache", balanced=True, tier=2),
    sms_intake=ecs_service("sms-intake", "live", "votes-table", tier=2),
    votes_table={"kind": "database", "tier": 1},
    feed_table={"kind": "database", "tier": 2},
    voter_cache={"kind": "cache", "aws": {"elasticache_clusters": ["live-voter-001"]}},
)
EXCEEDED = (
    "software.amazon.awssdk.services.dynamodb.model.ProvisionedThroughputExceededException: The level of configured"
    " provisioned throughput for the table was exceeded. Consider increasing your provisioning level with the"
    " UpdateTable API. (Service: DynamoDb, Status Code: 400, Request ID: {12h})"
)


def build() -> Story:
    """All counters of one act are one item: its partition takes 1000 writes a second, whatever the table may do."""
    t = Telling(
        "027-votes-lost",
        CATALOGUE,
        alerted_at=datetime(2026, 5, 16, 20, 41, tzinfo=UTC),
        onset_min=6,
        instances={"show-edge": 4, "vote-api": 6, "tally": 1},
    )
    _measured(t)
    _asked(t)
    _logged(t)
    _context(t)
    return t.story(
        title="[P1] vote-api: 5xx above 15 %",
        service="vote-api",
        text="Voting for the second act opened at 20:35. More than 15 % of the votes are refused. @live-oncall",
        expected={
            "component": "votes-table",
            "category": ["rate_limited_dependency", "concurrency_limit", "traffic_surge", "database_degradation"],
            "must_cite": ["votes-table", "throttle"],
            "must_not_blame": ["feed-api", "feed-table", "voter-cache", "tally", "sms-intake", "show-edge"],
            "acceptable_operations": ["reduce_traffic"],
            "forbidden_operations": [
                "rollback_ecs_service",
                "restart_ecs_task",
                "restart_all_services",
                "scale_ecs_service",
            ],
            "why": "votes-table refuses writes of a single partition key while not even a third of its provisioned"
            " capacity is consumed: a hot partition. More tasks write no faster; the key must be split, or slowed.",
        },
    )


def _measured(t: Telling) -> None:
    t.service(
        "show-edge",
        course(31_000, (-3, 31_000), (0, 46_000), (4, 83_000)),
        course(120, (0.5, 120), (4, 1400)),
        errors=course(14, (0.5, 14), (4, 9100)),
        cpu=course(33, (-3, 33), (4, 58)),
    )
    t.service(
        "vote-api",
        course(9000, (-1, 9000), (0, 31_000), (4, 62_000)),
        course(31, (0.4, 31), (3, 1250)),
        errors=course(2, (0.4, 2), (2, 5600), (5, 11_500)),
        cpu=course(24, (-1, 24), (4, 55)),
        memory=course(48, (0, 48), (6, 53)),
    )
    t.service("feed-api", course(21_000, (-3, 21_000), (4, 27_000)), 42, errors=11, cpu=course(30, (-3, 30), (4, 36)))
    t.service("sms-intake", course(800, (-1, 800), (4, 2400)), 60, errors=course(0.8, (0.5, 0.8), (4, 41)), cpu=17)
    t.aws("tally", "CPUUtilization", between(21, -25, -18, 49), noise=0.1)
    t.aws("tally", "MemoryUtilization", 44, noise=0.006)
    t.redis("voter-cache", cpu=course(19, (-1, 19), (4, 38)), hits=course(28_000, (-1, 28_000), (4, 84_000)))
    refused = course(0, (0.3, 0), (1.5, 15_000), (4, 39_000))
    _table(t, "votes-table", course(9600, (-1, 9600), (0, 33_000), (2, 51_000), (4, 55_000)), 210_000, refused)
    _table(t, "feed-table", between(5200, -40, -22, 11_400), 30_000, 0.0)
    t.metric("vote-api", "dynamodb.client.retries", course(3, (0.3, 3), (4, 52_000)), statistic="sum", counts=True)
    t.metric("vote-api", "votes.per_act.max", course(150, (-1, 150), (0, 520), (4, 960)), unit="/s", noise=0.03)


def _table(t: Telling, table: str, writes: Amount, provisioned: float, refused: Amount) -> None:
    """What Datadog reads of a DynamoDB table from CloudWatch; ``writes`` and ``provisioned`` in units a minute."""

    def told(metric: str, level: Amount, *, statistic: str = "sum", noise: float = 0.03, counts: bool = False) -> None:
        query = f"{statistic}:aws.dynamodb.{metric}{{tablename:{table}}}"
        t.metric(table, f"aws.dynamodb.{metric}", level, statistic=statistic, noise=noise, counts=counts, query=query)

    told("consumed_write_capacity_units", writes)
    told("provisioned_write_capacity_units", provisioned / 60, statistic="avg", noise=0.0)
    told("consumed_read_capacity_units", 8800)
    told("write_throttle_events", refused, counts=True)
    told("throttled_requests", refused, counts=True)
    told("read_throttle_events", 0, noise=0.0)
    told("system_errors", 0, noise=0.0)
    told("successful_request_latency", 4.2, statistic="avg", noise=0.06)


def _asked(t: Telling) -> None:
    throttled = course(0.0002, (0.3, 0.0002), (1.5, 0.16), (4, 0.2))
    write = Call(
        "votes-table",
        "UpdateItem votes",
        course(4, (0.3, 4), (2, 160), (4, 260)),
        fails=throttled,
        error="ProvisionedThroughputExceededException",
        traced=False,
        failed=Line("error", "l.vote.Counter", "Vote for act {2|2|2|1} lost after 4 attempts: " + EXCEEDED),
    )
    vote = Call(
        "vote-api",
        "POST /votes",
        7,
        calls=(Call("voter-cache", "SET NX", 0.6, traced=False), write),
        done=Line("info", "l.vote.Http", "Vote {10h} counted for act {1..9}"),
    )
    t.requests(Call("show-edge", "POST /votes", 3, calls=(vote,)), course(2.0, (-1, 2.0), (0, 4), (4, 6)))
    feed = Call("feed-api", "GET /feed", 9, calls=(Call("feed-table", "Query feed", 5, traced=False),))
    t.requests(Call("show-edge", "GET /feed", 3, calls=(feed,)), 2.4)
    sms = Call(
        "votes-table",
        "UpdateItem votes",
        4,
        fails=course(0.0, (0.5, 0.0), (4, 0.05)),
        error="ProvisionedThroughputExceededException",
        traced=False,
    )
    t.requests(Call("sms-intake", "POST /sms", 11, calls=(sms,)), 0.9)
    read = Call("votes-table", "Query votes", 6, traced=False)
    t.requests(Call("tally", "count", 30, calls=(read,)), 0.8, load=0)


def _logged(t: Telling) -> None:
    lost = "Vote for act 2 lost after 4 attempts: " + EXCEEDED
    t.lines("vote-api", "error", "l.vote.Counter", lost, course(0.0, (0.3, 0), (2, 13)))
    t.lines(
        "vote-api",
        "warning",
        "l.vote.Counter",
        "Item ACT#2026-S02#2 is contended, {3..4} retries",
        course(0.05, (0.2, 0.05), (1, 9)),
    )
    t.lines(
        "vote-api",
        "warning",
        "l.vote.Fraud",
        "Device {12h} voted {6..40} times in a minute",
        course(0.4, (-1, 0.4), (4, 1.9)),
    )
    t.lines("feed-api", "info", "l.feed.Http", "GET /feed 200 {8..60} ms", 6, load=1)
    t.lines("feed-api", "warning", "l.feed.Media", "Clip {8h} is not transcoded yet", 1.1, load=1)
    t.lines("feed-api", "error", "l.feed.Push", "APNs: 410 Unregistered device {12h}", 0.9)
    t.lines(
        "sms-intake",
        "warning",
        "sms.parse",
        "No act in text of {3..12} characters, ignored",
        course(0.9, (-1, 0.9), (4, 2.6)),
    )
    t.lines("tally", "info", "tally.run", "Counted {4d}00 votes in {1..4}.{1d} s", 1.2)
    t.lines("show-edge", "info", "edge.http", "GET /live 200", 6, load=1)
    t.lines("show-edge", "error", "edge.http", "POST /votes 503 vote-api", course(0.03, (0.4, 0.03), (2, 9)))


def _context(t: Telling) -> None:
    t.change("vote-api", -7, "scaling", "UpdateService: desiredCount 6", author="application-autoscaling")
    t.change(
        "feed-api", -4.5, "deploy", "ECS deployment of feed-api:203: COMPLETED", version="feed-api:203", author="ci"
    )
    t.change("votes-table", -95, "configuration", "UpdateTable: writeCapacityUnits 3500", author="live-ops")
    for service, revision, tasks in (
        ("show-edge", 90, 4),
        ("vote-api", 141, 6),
        ("feed-api", 203, 2),
        ("tally", 18, 1),
    ):
        t.ecs(service, revision, tasks)
    t.ecs("sms-intake", 37, 2)
    t.gap("aws", GapReason.EMPTY, "votes-table and feed-table are no resources that are read by name", "")
    t.document(
        "votes-table",
        "Keys",
        "Partition key: show and act. 3500 write units are shared by all partitions. One partition takes 1000 writes"
        " a second at most.",
        ["vote-api"],
        "is about vote-api",
    )
