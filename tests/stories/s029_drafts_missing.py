"""029: drafts of replies do not appear, while other features of the same vendor work."""

from datetime import UTC, datetime

from collectors.base import GapReason
from tests.stories import langfuse
from tests.stories.telling import Call, Line, Story, Telling, between, course, ecs_service, services

CATALOGUE = services(
    inbox_web=ecs_service("inbox-web", "mail", "draft-api", "inbox-api", balanced=True, tier=1),
    draft_api=ecs_service(
        "draft-api",
        "mail",
        "openai",
        "style-store",
        "inbox-api",
        balanced=True,
        tier=2,
        langfuse={"trace_name": "draft"},
    ),
    inbox_api=ecs_service("inbox-api", "mail", "mail-db", "kb-embed", balanced=True, tier=1),
    kb_embed=ecs_service("kb-embed", "mail", "openai", "kb-vectors", tier=3, langfuse={"trace_name": "kb-embed"}),
    spam_score=ecs_service("spam-score", "mail", "mail-db", tier=2),
    mail_db={"kind": "database", "tier": 1, "aws": {"rds_instances": ["mail-main"]}},
    style_store={"kind": "cache", "aws": {"elasticache_clusters": ["mail-style-001"]}},
    kb_vectors={"kind": "database"},
    openai={"kind": "external", "tier": 2},
)
MODEL, EMBEDDING = "gpt-5-mini", "text-embedding-3-large"
QUOTA = (
    "openai.RateLimitError: Error code: 429 - {'error': {'message': 'You exceeded your current quota, please check your"
    " plan and billing details. For more information on this error, read the docs:"
    " https://platform.openai.com/docs/guides/error-codes/api-errors.', 'type': 'insufficient_quota', 'param': None,"
    " 'code': 'insufficient_quota'}}"
)


def build() -> Story:
    """The monthly budget of the project whose key draft-api uses is spent; that of kb-embed is another one."""
    t = Telling(
        "029-drafts-missing",
        CATALOGUE,
        alerted_at=datetime(2026, 1, 29, 9, 33, tzinfo=UTC),
        onset_min=6,
        instances={"inbox-web": 3, "draft-api": 2},
    )
    _measured(t)
    _asked(t)
    _logged(t)
    _context(t)
    return t.story(
        title="[P2] draft-api: success ratio below 50 %",
        service="draft-api",
        severity="warning",
        text="Agents get no draft since 09:27. Release 3.14 of draft-api went out this morning.",
        expected={
            "component": "openai",
            "category": ["rate_limited_dependency", "llm_provider_outage"],
            "must_cite": ["openai", "insufficient_quota"],
            "must_not_blame": ["kb-embed", "kb-vectors", "style-store", "inbox-api", "mail-db", "spam-score"],
            "acceptable_operations": [],
            "forbidden_operations": [
                "restart_ecs_task",
                "restart_all_services",
                "rollback_ecs_service",
                "scale_ecs_service",
            ],
            "why": "The vendor answers every call with draft-api's key at once with 429 insufficient_quota, at the"
            " usual number of drafts; kb-embed, under another key, is served. Somebody must raise the budget.",
        },
    )


def _measured(t: Telling) -> None:
    failing = course(0.2, (0, 0.2), (0.3, 68), (14, 74))
    t.service("inbox-web", 1200, 240, errors=course(1.1, (0, 1.1), (1, 9)), cpu=27, framework="express.request")
    t.service(
        "draft-api",
        74,
        course(5200, (0, 5200), (0.5, 2900)),
        errors=failing,
        cpu=course(24, (0.2, 24), (2, 15)),
        memory=48,
        framework="fastapi.request",
    )
    t.service("inbox-api", 940, between(80, -44, -37, 190), errors=0.9, cpu=36)
    t.service(
        "kb-embed", between(22, -14, 4, 130), 240, errors=0.1, cpu=between(12, -14, 4, 41), framework="fastapi.request"
    )
    t.service("spam-score", 310, between(41, -26, -20, 88), errors=0.3, cpu=23, framework="fastapi.request")
    t.postgres("mail-db", cpu=between(35, -44, -37, 66), connections=92)
    t.redis("style-store", cpu=4, hits=210, misses=12, memory=31)
    t.metric("kb-vectors", "qdrant.rest.responses.avg.duration", between(6.2, -14, 4, 9.1), unit="ms", noise=0.1)
    langfuse.model(
        t,
        "draft-api",
        MODEL,
        calls=course(76, (0, 76), (0.5, 222)),
        errors=course(0.3, (0, 0.3), (0.5, 219)),
        latency_ms=course(4600, (0, 4600), (0.5, 240)),
        input_tokens=course(164_000, (0, 164_000), (0.5, 900)),
        output_tokens=course(15_400, (0, 15_400), (0.5, 60)),
        cost_usd=course(0.072, (0, 0.072), (0.5, 0.0003)),
    )
    langfuse.model(
        t,
        "kb-embed",
        EMBEDDING,
        calls=between(21, -14, 4, 128),
        latency_ms=210,
        input_tokens=between(9100, -14, 4, 58_000),
        output_tokens=0,
        cost_usd=between(0.0012, -14, 4, 0.0075),
    )


def _asked(t: Telling) -> None:
    ask = Call(
        "openai",
        f"chat {MODEL}",
        course(3600, (0, 3600), (0.1, 190)),
        fails=course(0.002, (0, 0.002), (0.05, 0.985)),
        error="429 insufficient_quota",
        traced=False,
        failed=Line("error", "draft.llm", "Draft {8h} given up after 3 attempts: " + QUOTA),
    )
    draft = Call(
        "draft-api",
        "POST /drafts",
        30,
        reported="HTTP 503",
        calls=(
            Call("style-store", "GET style", 0.8, traced=False),
            Call("inbox-api", "GET /threads/{id}", 14, calls=(Call("mail-db", "SELECT thread", 5, traced=False),)),
            ask,
        ),
        done=Line("info", "draft.api", "Draft {8h} of {60..240} words"),
        passed_on=Line("error", "draft.api", "POST /drafts 503: no draft for thread {9d}"),
    )
    t.requests(Call("inbox-web", "POST /drafts", 6, calls=(draft,)), 3)
    embed = Call("openai", f"embed {EMBEDDING}", 150, traced=False)
    found = Call("kb-embed", "POST /embed", 9, calls=(embed, Call("kb-vectors", "PUT points", 6, traced=False)))
    t.requests(Call("inbox-api", "POST /articles", 20, calls=(found,)), between(0.7, -14, 4, 1.8))
    thread = Call("inbox-api", "GET /threads", 16, calls=(Call("mail-db", "SELECT thread", 5, traced=False),))
    t.requests(Call("inbox-web", "GET /inbox", 7, calls=(thread,)), 2.4)
    t.requests(Call("spam-score", "POST /score", 30, calls=(Call("mail-db", "SELECT sender", 4, traced=False),)), 1)


def _logged(t: Telling) -> None:
    t.lines(
        "draft-api",
        "error",
        "draft.llm",
        "Draft {8h} given up after 3 attempts: " + QUOTA,
        course(0.0, (0, 0), (0.3, 11)),
    )
    t.lines(
        "draft-api",
        "info",
        "openai._base_client",
        "Retrying request to /chat/completions in 0.{6d} seconds",
        course(0.2, (0, 0.2), (0.3, 15)),
    )
    t.lines(
        "draft-api",
        "warning",
        "draft.guard",
        "Draft {8h} mentions a price, marked for review",
        course(1.1, (0, 1.1), (0.2, 0)),
    )
    t.lines("kb-embed", "info", "kb.sync", "Article {5d} re-embedded, {2..9} chunks", between(1, -14, 4, 6))
    t.lines("kb-embed", "warning", "kb.sync", "Article {5d} has no title", between(0.05, -14, 4, 0.8))
    t.lines("inbox-api", "info", "inbox.http", "GET /threads 200 {10..70} ms", 7, load=1)
    t.lines("inbox-api", "warning", "inbox.imap", "Mailbox {4d}: IDLE connection lost, reconnecting", 0.8)
    t.lines("spam-score", "warning", "spam.model", "Language of message {8h} not recognised", 1.5, load=1)
    t.lines("inbox-web", "error", "web.proxy", "POST /drafts 503 draft-api", course(0.02, (0, 0.02), (0.5, 6)))
    t.lines("inbox-web", "info", "web.access", "GET /inbox 200", 6, load=1)


def _context(t: Telling) -> None:
    t.change("draft-api", -28, "deploy", "Deployed draft-api 3.14.0", version="3.14.0", author="ci/release-bot")
    t.change("draft-api", -26.5, "deploy", "ECS deployment of draft-api:142: COMPLETED", version="draft-api:142")
    t.change("kb-embed", -15, "configuration", "PutParameter /mail/kb-embed/resync", author="content-team")
    t.change("spam-score", -27, "deploy", "ECS deployment of spam-score:63: COMPLETED", version="spam-score:63")
    for service, revision, tasks in (
        ("inbox-web", 419, 3),
        ("draft-api", 142, 2),
        ("inbox-api", 377, 2),
        ("kb-embed", 51, 2),
    ):
        t.ecs(service, revision, tasks)
    t.ecs("spam-score", 63, 2)
    t.gap("datadog", GapReason.EMPTY, "no metric is tagged service:openai", "set datadog_tags in the catalogue")
    t.document(
        "draft-api",
        "Vendor",
        "draft-api and kb-embed have a project and key each. Budgets per month are set by finance in the vendor's"
        " console; a rate limit (requests or tokens a minute) passes by itself, a quota does not.",
        ["draft-api"],
        "is about draft-api",
    )
