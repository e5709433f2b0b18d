"""025: approvals fail because nothing can be written to the audit trail any more."""

from datetime import UTC, datetime

from collectors.base import GapReason
from tests.stories.telling import Call, Line, Story, Telling, between, course, ecs_service, services

CATALOGUE = services(
    back_office=ecs_service("back-office", "claims", "approval-api", "claims-api", balanced=True, tier=2),
    approval_api=ecs_service("approval-api", "claims", "audit-writer", "claims-db", balanced=True, tier=1),
    claims_api=ecs_service("claims-api", "claims", "claims-db", "claims-cache", balanced=True, tier=1),
    audit_writer=ecs_service("audit-writer", "claims", "audit-index", tier=1, max_tasks=6),
    audit_search=ecs_service("audit-search", "claims", "audit-index", tier=3),
    claims_db={"kind": "database", "tier": 1, "aws": {"rds_instances": ["claims-main"]}},
    claims_cache={"kind": "cache", "aws": {"elasticache_clusters": ["claims-001"]}},
    audit_index={"kind": "database", "tier": 1},
)
BLOCKED = (
    "elasticsearch.ApiError: ApiError(429, 'cluster_block_exception', 'index [audit-2026.02] blocked by:"
    " [TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index has read-only-allow-delete block];')"
)
NODES = ("audit-data-0", "audit-data-1", "audit-data-2")


def build() -> Story:
    """A data node of audit-index passes the flood-stage watermark; its indices become read-only."""
    t = Telling(
        "025-audit-writes",
        CATALOGUE,
        alerted_at=datetime(2026, 2, 26, 10, 44, tzinfo=UTC),
        onset_min=5,
        instances={"audit-writer": 2, "approval-api": 3},
    )
    _measured(t)
    _asked(t)
    _index(t)
    _context(t)
    return t.story(
        title="approval-api: errors above 30 %",
        service="approval-api",
        text="More than 30 % of the requests of approval-api have failed for 4 minutes. Reading works. audit-writer was"
        " deployed this morning.",
        expected={
            "component": "audit-index",
            "category": "disk_full",
            "must_cite": ["audit-index", "flood-stage"],
            "must_not_blame": ["audit-writer", "claims-db", "claims-cache", "claims-api", "audit-search"],
            "acceptable_operations": [],
            "forbidden_operations": [
                "rollback_ecs_service",
                "restart_ecs_task",
                "restart_all_services",
                "scale_ecs_service",
            ],
            "why": "Disk use of audit-index climbed for days to the flood-stage watermark of 95 %, and writes are"
            " refused with a cluster block since, while its reads go on; the roll-out of audit-writer is half an hour"
            " older and harmless.",
        },
    )


def _measured(t: Telling) -> None:
    refused = course(0.5, (0, 0.5), (0.5, 66), (13, 74))
    t.service("back-office", 720, 260, errors=course(1, (0, 1), (1, 60)), cpu=26, framework="express.request")
    t.service("approval-api", 160, course(180, (0, 180), (1, 95)), errors=refused, cpu=course(29, (0.3, 29), (2, 23)))
    t.service("claims-api", 930, between(72, -19, -15, 140), errors=0.9, cpu=34)
    t.service(
        "audit-writer",
        course(310, (0, 310), (1, 390)),
        course(38, (0, 38), (1, 12)),
        errors=course(0.2, (0, 0.2), (0.5, 290), (13, 380)),
        cpu=course(22, (0.2, 22), (2, 27)),
        memory=course(47, (0.5, 47), (13, 54)),
        framework="fastapi.request",
    )
    t.service("audit-search", 24, 240, errors=0.05, cpu=14, framework="fastapi.request")
    t.postgres("claims-db", cpu=32, connections=66, write_iops=course(240, (0.2, 240), (1.5, 170)))
    t.redis("claims-cache", evictions=between(0, -19, -15, 60))
    es, in_use = "audit-index", course(0.931, (-55, 0.9425), (0, 0.9502), (13, 0.9503))
    t.metric(es, "system.disk.in_use", in_use, unit="ratio", noise=0.0002, statistic="max")
    t.metric(
        es,
        "elasticsearch.fs.total.available_in_bytes",
        course(6.9e10, (-55, 5.75e10), (0, 4.98e10)),
        unit="B",
        noise=0.001,
    )
    t.metric(es, "elasticsearch.indexing.index.total", course(312, (0, 312), (0.5, 4)), statistic="sum", counts=True)
    t.metric(es, "elasticsearch.search.query.total", 26, statistic="sum", counts=True, load=0.6)
    t.metric(es, "elasticsearch.search.query.time", 0.021, unit="s", noise=0.2)
    t.metric(es, "elasticsearch.relocating_shards", course(0, (-49, 0), (-48, 2), (-2, 2), (0, 0)), noise=0.0)
    t.metric(es, "jvm.mem.heap_in_use", 61, unit="%", noise=0.08)
    t.metric(es, "system.cpu.user", course(24, (0.3, 24), (1.5, 12)), unit="%", noise=0.12)
    t.metric("audit-writer", "audit.spool.events", course(0, (0.3, 0), (13, 4100)), noise=0.02)


def _asked(t: Telling) -> None:
    write = Call(
        "audit-index",
        "POST /audit-2026.02/_bulk",
        course(21, (0, 21), (0.3, 4)),
        fails=course(0.0, (-0.05, 0.0), (0.05, 0.97)),
        error="429 cluster_block_exception",
        traced=False,
        failed=Line("error", "audit.sink", BLOCKED),
    )
    approve = Call(
        "approval-api",
        "POST /approvals",
        22,
        calls=(
            Call("claims-db", "SELECT claim", 4, traced=False),
            Call(
                "audit-writer",
                "POST /events",
                8,
                calls=(write,),
                reported="HTTP 503",
                done=Line("info", "audit.api", "Event {12h} written"),
                passed_on=Line("error", "audit.api", "503 POST /events: event {12h} not durable"),
            ),
            Call("claims-db", "UPDATE claim", 5, traced=False),
        ),
        done=Line("info", "c.claims.Approvals", "Claim {9d} approved"),
        passed_on=Line(
            "error", "c.claims.Approvals", "Claim {9d} not approved: AuditUnavailableException: 503 from audit-writer"
        ),
    )
    t.requests(Call("back-office", "POST /approve", 8, calls=(approve,)), 2.4)
    claim = Call("claims-api", "GET /claims/{id}", 18, calls=(Call("claims-cache", "GET", 0.6, traced=False),))
    t.requests(Call("back-office", "GET /claim", 6, calls=(claim,)), 2.4)
    find = Call(
        "audit-search", "GET /trail", 14, calls=(Call("audit-index", "POST /audit-*/_search", 60, traced=False),)
    )
    t.requests(find, 0.9)


def _index(t: Telling) -> None:
    monitor = "o.e.c.r.a.DiskThresholdMonitor"
    high = "high disk watermark [90%] exceeded on [{12h}][audit-data-1][/usr/share/elasticsearch/data] free:"
    t.lines(
        "audit-index",
        "warning",
        monitor,
        high + " {50..57}.{1d}gb[5.{1d}%], shards will be relocated away from this node",
        course(0.9, (0, 0.9), (0.2, 0)),
        instances=("audit-master-0",),
    )
    t.lines(
        "audit-index",
        "error",
        monitor,
        "flood stage disk watermark [95%] exceeded on [{12h}][audit-data-1][/usr/share/elasticsearch/data] free:"
        " 49.{1d}gb[4.9%], all indices on this node will be marked read-only",
        course(0.0, (-0.1, 0), (0, 2)),
        instances=("audit-master-0",),
    )
    t.lines("audit-index", "info", "o.e.c.m.MetadataMappingService", "[audit-2026.02/{8h}] update_mapping [_doc]", 0.15)
    t.lines(
        "audit-index",
        "info",
        "o.e.m.j.JvmGcMonitorService",
        "[gc][{6d}] overhead, spent [{250..390}ms] collecting in the last [1s]",
        0.5,
        instances=NODES,
    )
    t.lines("audit-writer", "error", "audit.sink", BLOCKED, course(0.0, (-0.05, 0), (0.3, 11)))
    t.lines(
        "audit-writer",
        "warning",
        "audit.spool",
        "Sink is down, {40..4000} events kept in memory",
        course(0.0, (0.4, 0), (1, 3)),
    )


def _context(t: Telling) -> None:
    t.change(
        "audit-writer",
        -31,
        "deploy",
        "ECS deployment of audit-writer:57: COMPLETED",
        version="audit-writer:57",
        author="ci",
    )
    t.change(
        "claims-api",
        -2.5,
        "deploy",
        "ECS deployment of claims-api:288: COMPLETED",
        version="claims-api:288",
        author="ci",
    )
    for service, revision, tasks in (("back-office", 133, 2), ("approval-api", 161, 3), ("claims-api", 288, 2)):
        t.ecs(service, revision, tasks)
    t.ecs("audit-writer", 57, 2)
    t.ecs("audit-search", 22, 2)
    t.lines("claims-api", "info", "c.claims.Http", "GET /claims/{9d} 200 {12..50} ms", 6, load=1)
    t.lines("claims-api", "warning", "c.claims.Documents", "Attachment {8h} has no media type", 1.2, load=1)
    t.lines(
        "claims-api",
        "error",
        "c.claims.Cache",
        "RedisCommandTimeoutException: Command timed out after 500 ms",
        between(0.1, -19, -15, 4),
    )
    t.lines("back-office", "info", "office.http", "GET /queue 200", 5, load=1)
    t.lines("back-office", "error", "office.http", "POST /approve 503", course(0.03, (0.1, 0.03), (0.6, 5)))
    t.lines("audit-search", "warning", "search.slow", "Query over 90 days took {2..6}.{1d} s", 0.3)
    t.gap("datadog", GapReason.RATE_LIMITED, "2 of 61 metric queries were not answered (429)", "try again later")
    t.document(
        "Audit trail",
        "Operations > Storage",
        "Indices are kept for 400 days by the policy audit-retention. The cluster has three data nodes of 1 TB."
        " Approvals must not pass without an audit event: do not switch it off.",
        ["audit-writer", "audit-index"],
        "is about audit-index",
    )
