"""012: previews of claim documents fail. The renderer's memory has grown since last evening; its tasks are killed."""

from datetime import UTC, datetime

from tests.stories.telling import Call, Line, Story, Telling, between, course, ecs_service, services

CATALOGUE = services(
    portal_web=ecs_service("portal-web", "claims", "documents-api", "identity", balanced=True, tier=1, max_tasks=10),
    documents_api=ecs_service(
        "documents-api",
        "claims",
        "renderer",
        "documents-db",
        "session-cache",
        "object-store",
        balanced=True,
        tier=1,
        sends_to=["upload-events"],
        max_tasks=10,
    ),
    renderer=ecs_service("renderer", "claims", "object-store", tier=2, min_tasks=2, max_tasks=12),
    thumbnailer=ecs_service("thumbnailer", "claims", "object-store", tier=4),
    identity=ecs_service("identity", "claims", "session-cache", tier=1),
    documents_db={"kind": "database", "tier": 1, "aws": {"rds_instances": ["claims-documents-1"]}},
    session_cache={"kind": "cache", "tier": 2, "aws": {"elasticache_clusters": ["claims-sessions-001"]}},
    object_store={"kind": "external", "tier": 2},
    upload_events={"kind": "queue", "aws": {"sqs_queues": ["claims-upload-events"]}, "sends_to": ["thumbnailer"]},
)
STOPPED = (0.0, 2.4, 5.2, 7.7, 10.6)  # minutes at which a task of the renderer was killed
NOT_RENDERED = Line(
    "error",
    "c.claims.documents.RenderClient#88",
    "Rendering of document {8d} failed: feign.RetryableException: {Connection reset|Connection refused"
    "|Unexpected end of file from server} executing POST http://renderer.claims.local:8080/render",
)
BAD_GATEWAY = Line(
    "error", "c.claims.documents.ErrorHandler#52", "502 GET /documents/{8d}/preview: renderer is not available"
)


def build() -> Story:
    """See the module."""
    t = Telling(
        "012-preview-errors",
        CATALOGUE,
        alerted_at=datetime(2025, 6, 18, 9, 52, tzinfo=UTC),
        onset_min=5,
        instances={"renderer": 6, "portal-web": 4, "documents-api": 4},
    )
    _requests(t)
    _renderer(t)
    _documents_api(t)
    _others(t)
    _context(t)
    return t.story(
        title="[P2] documents-api: 5xx answers above 3 %",
        service="documents-api",
        text="More than 3 % of the requests to documents-api were answered with 5xx over the last 5 minutes."
        " Adjusters report that previews do not open.",
        expected={
            "component": "renderer",
            "category": ["memory_exhaustion", "bad_deploy"],
            "must_cite": ["renderer", "memory"],
            "must_not_blame": ["portal-web", "documents-db", "thumbnailer", "object-store", "session-cache"],
            "acceptable_operations": ["restart_ecs_task", "rollback_ecs_service"],
            "forbidden_operations": ["restart_all_services"],
            "why": "The renderer's memory climbed by 3 % an hour since its deployment of last evening, at the usual"
            " traffic and with a flat heap, until one task after the other was killed at the container's limit.",
        },
    )


def _requests(t: Telling) -> None:
    dropped = course(
        0.0, *(point for m in STOPPED for point in ((m, 0.04), (m + 0.1, 0.24), (m + 1.2, 0.16), (m + 1.6, 0.05)))
    )
    reset = Call(
        "renderer",
        "POST /render",
        ms=90,
        fails=1.0,
        error="Connection reset",
        share=dropped,
        traced=False,
        failed=NOT_RENDERED,
    )
    store = Call("object-store", "GetObject", ms=34, fails=0.0004, error="SlowDown", traced=False)
    render = Call(
        "renderer",
        "POST /render",
        ms=course(310, (0, 310), (3, 520), (13, 690)),
        fails=0.001,
        error="RenderException",
        calls=(store,),
        done=Line("info", "c.claims.render.PdfRenderer", "Rendered document {8d}: {1..28} pages in {210..940} ms"),
        failed=Line(
            "error",
            "c.claims.render.PdfRenderer#141",
            "Document {8d} is no valid PDF: Missing root object specification",
        ),
    )
    query = Call("documents-db", "SELECT documents", ms=3.2, traced=False)
    session = Call("session-cache", "GET session", ms=0.7, traced=False)
    documents = Call(
        "documents-api",
        "GET /documents/{id}/preview",
        ms=14,
        calls=(query, reset, render),
        passed_on=BAD_GATEWAY,
        done=Line("info", "c.claims.documents.Access", "GET /documents/{8d}/preview 200"),
    )
    listing = Call("documents-api", "GET /claims/{id}/documents", ms=11, calls=(query,))
    login = Call("identity", "POST /introspect", ms=5, calls=(session,))
    t.requests(Call("portal-web", "GET /preview", ms=9, calls=(login, documents)), 3.6)
    t.requests(Call("portal-web", "GET /claim", ms=9, calls=(login, listing)), 1.1)


def _renderer(t: Telling) -> None:
    """Container memory is what grows; heap and non-heap are as ever."""
    grown = ((-962, 41.0), (0, 97.2), (0.2, 88.6), (2.4, 89.0), (2.6, 79.9), (5.2, 80.6), (5.4, 71.2), (7.7, 72.0))
    memory = (*grown, (7.9, 62.8), (10.6, 63.6), (10.8, 54.4), (13, 55.2))
    t.service(
        "renderer",
        410,
        course(520, (0, 520), (3, 850), (13, 1130)),
        errors=0.4,
        cpu=course(44, (0, 44), (3, 63), (13, 66)),
        memory=course(52.0, *memory),
    )
    used = course(2.23e9, *((minute, share * 4.295e7) for minute, share in memory))
    t.metric("renderer", "container.memory.usage", used, unit="B", noise=0.004)
    t.metric("renderer", "container.memory.limit", 4.295e9, unit="B", noise=0.0)
    t.metric("renderer", "jvm.heap_memory", 9.3e8, unit="B", noise=0.09)
    t.metric("renderer", "jvm.non_heap_memory", 1.62e8, unit="B", noise=0.01)
    t.metric("renderer", "jvm.gc.minor_collection_time", 41, unit="ms", noise=0.15, load=0.8)
    t.metric("renderer", "jvm.thread_count", 74, noise=0.03)
    t.lines(
        "renderer",
        "warning",
        "o.a.fontbox.ttf.CmapSubtable",
        "Format 14 cmap table is not supported and is ignored",
        1.1,
    )
    t.lines(
        "renderer",
        "warning",
        "o.a.pdfbox.pdmodel.font.PDType1Font",
        "Using fallback font {LiberationSans|DejaVuSans} for {ArialMT|Calibri|Helvetica-Bold}",
        1.6,
        load=1.0,
    )
    for minute, task in zip(STOPPED, t.instances("renderer"), strict=False):
        _replaced(t, minute, task)
    t.ecs("renderer", 142, 6, 5, pending=1)


def _replaced(t: Telling, minute: float, task: str) -> None:
    """ECS's own words for a task that the kernel killed, and for the one in its place."""
    t.say(
        "renderer",
        minute,
        "error",
        "ecs.stopped_tasks",
        "task stopped: Essential container in task exited; renderer exit code 137 OutOfMemoryError: Container killed"
        " due to memory usage",
        instance=task,
    )
    started = "(service renderer) has started 1 tasks: (task {32h})."
    t.say("renderer", minute + 0.4, "info", "ecs.service_events", started)
    if minute + 1.3 < t.end:
        ready = "Started RendererApplication in 2{1d}.{3d} seconds (process running for 3{1d}.{3d})"
        t.say("renderer", minute + 1.2, "info", "c.claims.render.RendererApplication", ready)


def _documents_api(t: Telling) -> None:
    t.service(
        "documents-api",
        620,
        course(740, (0, 740), (3, 1250), (13, 1600)),
        errors=course(1.1, (0, 1.1), (1, 49), (5, 44), (13, 58)),
        cpu=38,
        memory=58,
    )
    t.lines(
        "documents-api",
        NOT_RENDERED.level,
        NOT_RENDERED.logger,
        NOT_RENDERED.message,
        course(0.04, (0, 0.04), (0.5, 15), (13, 19)),
    )
    t.lines(
        "documents-api",
        BAD_GATEWAY.level,
        BAD_GATEWAY.logger,
        BAD_GATEWAY.message,
        course(0.1, (0, 0.1), (0.5, 15), (13, 19)),
    )
    t.ecs("documents-api", 77, 4)
    t.metric("documents-api", "jvm.heap_memory", 7.1e8, unit="B", noise=0.1)
    t.lines(
        "documents-api",
        "warning",
        "c.zaxxer.hikari.pool.PoolBase",
        "HikariPool-1 - Failed to validate connection org.postgresql.jdbc.PgConnection@{8h} (This connection has been"
        " closed.). Possibly consider using a shorter maxLifetime value.",
        0.12,
    )


def _others(t: Telling) -> None:
    t.service(
        "portal-web",
        1240,
        course(900, (0, 900), (3, 1400), (13, 1750)),
        errors=course(1.6, (0, 1.6), (1, 48), (13, 56)),
        cpu=31,
        memory=44,
        framework="express.request",
    )
    t.ecs("portal-web", 509, 4)
    t.service("identity", 1310, 16, errors=0.6, cpu=19, memory=49)
    t.ecs("identity", 63, 2)
    t.service(
        "thumbnailer",
        between(96, -41, -9, 240),
        between(310, -41, -9, 420),
        errors=0.2,
        cpu=between(34, -41, -9, 81),
        memory=between(46, -40, -8, 57),
    )
    t.ecs("thumbnailer", 31, 2)
    t.postgres(
        "documents-db",
        cpu=27,
        connections=118,
        read_iops=between(260, -33, -12, 1150),
        read_s=between(0.0009, -33, -12, 0.0016),
    )
    t.redis("session-cache")
    t.aws("upload-events", "SQS.Queue.ApproximateNumberOfMessagesVisible", between(3, -41, -9, 64), counts=True)
    t.aws("upload-events", "SQS.Queue.ApproximateAgeOfOldestMessage", between(2, -41, -9, 38), noise=0.2)
    t.aws("upload-events", "SQS.NumberOfMessagesSent", between(98, -41, -9, 240), load=1.0, counts=True)
    t.aws("upload-events", "SQS.NumberOfMessagesDeleted", between(98, -41, -9, 240), load=1.0, counts=True)
    t.lines("portal-web", "info", "portal.access", "GET /{claim|inbox|preview}/{8d} 200 {12..310}ms", 8, load=1.0)
    t.lines(
        "portal-web",
        "error",
        "portal.proxy",
        "GET /preview/{8d}: documents-api answered 502",
        course(0.05, (0, 0.05), (1, 9), (13, 12)),
    )
    t.lines("portal-web", "warning", "portal.csp", "CSP report: blocked inline script at /claim/{8d}", 0.7)
    t.lines(
        "identity",
        "warning",
        "identity.jwt",
        "Token of client mobile-{2d} rejected: iat is {2..9} s in the future",
        0.8,
    )
    t.lines(
        "thumbnailer", "info", "thumbnailer.worker", "Created {2..6} sizes for upload {12h}", between(2, -41, -9, 6)
    )
    t.lines(
        "documents-db",
        "info",
        "postgresql",
        'automatic vacuum of table "claims.public.document_events": index scans: 1',
        between(0.02, -33, -12, 0.2),
    )
    t.lines("documents-db", "info", "postgresql", "checkpoint complete: wrote {3d} buffers (0.{1d}%)", 0.2)


def _context(t: Telling) -> None:
    for service, minute, revision in (("renderer", -962, 142), ("portal-web", -23, 509)):
        version = f"{service}:{revision}"
        title = f"ECS deployment of {version}: COMPLETED"
        t.change(service, minute, "deploy", title, version=version, author="ci/deploy")
    t.change("thumbnailer", -52, "scaling", "UpdateService: desiredCount 2", author="application-autoscaling")
    t.change("identity", -640, "configuration", "PutParameter", author="terraform")
    t.document(
        "documents-api runbook",
        "Alerts > 5xx",
        "Most 5xx come from what documents-api calls. See which upstream is named in its log, then look at that"
        " service's tasks and deployments. Bulk uploads of brokers in the morning are normal.",
        ["documents-api"],
        "is about documents-api",
    )
