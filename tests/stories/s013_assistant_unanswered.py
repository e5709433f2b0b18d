"""013: the help centre's assistant leaves questions unanswered. The vendor of its model is overloaded."""

from datetime import UTC, datetime

from collectors.base import GapReason
from tests.stories import langfuse
from tests.stories.telling import Call, Line, Story, Telling, between, course, ecs_service, services

CATALOGUE = services(
    help_web=ecs_service("help-web", "help", "assistant-api", balanced=True, tier=1),
    assistant_api=ecs_service(
        "assistant-api",
        "help",
        "anthropic",
        "retrieval",
        "orders-api",
        "conversations-db",
        balanced=True,
        tier=1,
        langfuse={"trace_name": "answer-question"},
        sends_to=["desk"],
    ),
    retrieval=ecs_service("retrieval", "help", "vector-index", "openai", tier=2, langfuse={"trace_name": "embed"}),
    orders_api=ecs_service("orders-api", "help", "orders-db", tier=2),
    desk=ecs_service("desk", "help", "conversations-db", tier=2),
    conversations_db={"kind": "database", "tier": 1, "aws": {"rds_instances": ["help-conversations"]}},
    orders_db={"kind": "database", "tier": 1, "aws": {"rds_instances": ["orders-replica-2"]}},
    vector_index={"kind": "database", "tier": 2},
    anthropic={"kind": "external", "tier": 1},
    openai={"kind": "external", "tier": 2},
)
MODEL, SMALL_MODEL = "claude-sonnet-4-5", "claude-haiku-4-5"
CLIENT, GIVEN_UP = "assistant.llm.client", "Giving up on conversation {8h} after 3 attempts: "
TIMED_OUT = "anthropic.APITimeoutError: Request timed out."
OVERLOADED = (
    "anthropic._exceptions.OverloadedError: Error code: 529 - {'type': 'error', 'error': {'type': 'overloaded_error',"
    " 'message': 'Overloaded'}, 'request_id': 'req_011C{12h}'}"
)
UNAVAILABLE = (
    "anthropic.InternalServerError: Error code: 503 - upstream connect error or disconnect/reset before headers."
    " reset reason: overflow"
)
NO_ANSWER = Line("error", "assistant.api", "503 POST /answers: no answer for conversation {8h}, apology sent")


def build() -> Story:
    """See the module."""
    t = Telling(
        "013-assistant-unanswered",
        CATALOGUE,
        alerted_at=datetime(2025, 10, 7, 15, 36, tzinfo=UTC),
        onset_min=7,
        instances={"assistant-api": 3, "help-web": 3},
    )
    _requests(t)
    _assistant(t)
    _models(t)
    _others(t)
    _context(t)
    return t.story(
        title="[P1] assistant-api: conversations without an answer above 20 %",
        service="assistant-api",
        text='avg(last_5m):assistant.unanswered.ratio{service:assistant-api} > 0.2. Customers see "Something went'
        ' wrong, please try again" or are put through to the desk.',
        expected={
            "component": "anthropic",
            "category": ["llm_provider_outage", "dependency_outage"],
            "must_cite": ["anthropic", "overloaded"],
            "must_not_blame": ["retrieval", "conversations-db", "vector-index", "openai", "help-web", "desk"],
            "acceptable_operations": [],
            "forbidden_operations": [
                "restart_ecs_task",
                "restart_all_services",
                "rollback_ecs_service",
                "scale_ecs_service",
            ],
            "why": "Calls of two models of one vendor fail with 529, 503 and timeouts from one minute on, while"
            " embeddings of another vendor and all own services answer; connections held meanwhile are an effect.",
        },
    )


def _requests(t: Telling) -> None:
    answer = f"support-answer {MODEL}"
    overloaded = Call(
        "anthropic",
        answer,
        ms=2600,
        fails=1.0,
        error="529 overloaded_error",
        traced=False,
        share=course(0.001, (0, 0.001), (1, 0.33), (5, 0.41), (15, 0.38)),
        failed=Line("error", CLIENT, GIVEN_UP + OVERLOADED),
    )
    unavailable = Call(
        "anthropic",
        answer,
        ms=1400,
        fails=1.0,
        error="503 api_error",
        traced=False,
        share=course(0.0, (0, 0.0), (1, 0.09), (15, 0.1)),
        failed=Line("error", CLIENT, GIVEN_UP + UNAVAILABLE),
    )
    timed_out = Call(
        "anthropic",
        answer,
        ms=58_000,
        fails=1.0,
        error="APITimeoutError",
        traced=False,
        share=course(0.0006, (0, 0.0006), (2, 0.22), (15, 0.27)),
        failed=Line("error", CLIENT, GIVEN_UP + TIMED_OUT),
    )
    answered = Call("anthropic", answer, ms=course(3100, (0, 3100), (2, 7900), (15, 9400)), traced=False)
    classify = Call(
        "anthropic",
        f"route-intent {SMALL_MODEL}",
        ms=course(520, (0, 520), (2, 1900)),
        traced=False,
        tolerated=True,
        fails=course(0.001, (0, 0.001), (1, 0.28), (15, 0.31)),
        error="529 overloaded_error",
        failed=Line(
            "warning",
            "assistant.router",
            "Intent of conversation {8h} not classified, using default route: " + OVERLOADED,
        ),
    )
    embed = Call("openai", "embed text-embedding-3-small", ms=95, traced=False)
    search = Call("vector-index", "POST /kb/_search", ms=28, traced=False)
    passages = Call(
        "retrieval",
        "POST /passages",
        ms=12,
        calls=(embed, search),
        done=Line("info", "retrieval.api", "{3..8} passages for query of {4..40} words, top score 0.{2d}"),
    )
    history = Call("conversations-db", "SELECT messages", ms=4, traced=False)
    order = Call(
        "orders-api",
        "GET /orders/{id}",
        ms=18,
        share=0.4,
        calls=(Call("orders-db", "SELECT orders", ms=5, traced=False),),
    )
    ask = Call(
        "assistant-api",
        "POST /answers",
        ms=25,
        calls=(history, classify, passages, order, overloaded, unavailable, timed_out, answered),
        done=Line("info", "assistant.api", "Answered conversation {8h} with {2..7} sources"),
        passed_on=NO_ANSWER,
    )
    t.requests(Call("help-web", "POST /chat", ms=8, calls=(ask,)), 3.4)
    t.requests(Call("help-web", "GET /articles", ms=35), 0.8)


def _assistant(t: Telling) -> None:
    t.service(
        "assistant-api",
        168,
        course(7400, (0, 7400), (2, 48_000), (6, 59_500)),
        errors=course(0.3, (0, 0.3), (1, 74), (5, 102), (15, 112)),
        cpu=course(46, (0, 46), (3, 27)),
        memory=course(55, (0, 55), (14, 63)),
        framework="fastapi.request",
    )
    t.lines(
        "assistant-api",
        NO_ANSWER.level,
        NO_ANSWER.logger,
        NO_ANSWER.message,
        course(0.02, (0, 0.02), (1, 17), (15, 23)),
    )
    for reason, often in ((OVERLOADED, 11), (UNAVAILABLE, 3), (TIMED_OUT, 7)):
        t.lines("assistant-api", "error", CLIENT, GIVEN_UP + reason, course(0.01, (0, 0.01), (1, often)))
    t.ecs("assistant-api", 233, 3)
    unanswered = course(0.006, (0, 0.006), (1, 0.44), (6, 0.68))
    t.metric("assistant-api", "assistant.unanswered.ratio", unanswered, unit="ratio", noise=0.06)
    waiting = course(21, (0, 21), (3, 88), (15, 131))
    t.metric("assistant-api", "asyncio.tasks.in_flight", waiting, noise=0.06, load=0.5)
    t.metric("assistant-api", "sqlalchemy.pool.checked_out", course(7, (0, 7), (4, 24), (15, 29)), noise=0.08)
    t.lines(
        "assistant-api",
        "info",
        "anthropic._base_client",
        "Retrying request to /v1/messages in 0.{6d} seconds",
        course(0.1, (0, 0.1), (1, 9), (15, 11)),
    )
    t.lines(
        "assistant-api",
        "error",
        "sqlalchemy.pool",
        "QueuePool limit of size 20 overflow 10 reached, connection timed out, timeout 30.00",
        course(0.0, (9, 0.0), (11, 0.8)),
    )
    t.lines(
        "assistant-api",
        "warning",
        "assistant.guardrails",
        "Reply of conversation {8h} shortened to 1200 characters",
        0.9,
    )


def _models(t: Telling) -> None:
    shape = {
        "calls": course(166, (0, 166), (2, 352), (15, 371)),
        "errors": course(0.2, (0, 0.2), (1, 190), (5, 262), (15, 270)),
    }
    langfuse.model(
        t,
        "assistant-api",
        MODEL,
        **shape,
        latency_ms=course(6300, (0, 6300), (2, 52_000), (6, 60_000)),
        input_tokens=course(512_000, (0, 512_000), (2, 194_000)),
        output_tokens=course(48_000, (0, 48_000), (2, 16_500)),
        cost_usd=course(2.26, (0, 2.26), (2, 0.83)),
    )
    langfuse.model(
        t,
        "assistant-api",
        SMALL_MODEL,
        calls=170,
        errors=course(0.1, (0, 0.1), (1, 46), (15, 52)),
        latency_ms=course(900, (0, 900), (2, 4100)),
        input_tokens=61_000,
        output_tokens=1700,
        cost_usd=0.07,
    )
    langfuse.model(
        t,
        "retrieval",
        "text-embedding-3-small",
        calls=168,
        latency_ms=180,
        input_tokens=5100,
        output_tokens=0,
        cost_usd=0.0001,
    )


def _others(t: Telling) -> None:
    t.service(
        "help-web",
        940,
        course(6800, (0, 6800), (2, 41_000), (6, 58_000)),
        errors=course(0.8, (0, 0.8), (2, 66), (15, 98)),
        cpu=24,
        memory=41,
        framework="express.request",
    )
    t.service("retrieval", 169, 210, errors=0.2, cpu=33, memory=61, framework="fastapi.request")
    t.service("orders-api", 420, 48, errors=0.5, cpu=21, memory=52)
    t.service("desk", course(40, (2, 40), (8, 71)), 130, errors=0.1, cpu=course(18, (2, 18), (8, 29)), memory=44)
    for service, revision, tasks in (
        ("help-web", 402, 3),
        ("retrieval", 118, 2),
        ("orders-api", 87, 2),
        ("desk", 55, 2),
    ):
        t.ecs(service, revision, tasks)
    t.metric("desk", "desk.chats.waiting", course(3, (2, 3), (15, 61)), counts=True)
    t.metric("desk", "desk.agents.online", 14, noise=0.02)
    t.postgres("conversations-db", cpu=23, connections=course(62, (1, 62), (5, 104), (15, 127)))
    t.postgres("orders-db", cpu=between(31, -44, -20, 58), connections=71, read_iops=between(300, -44, -20, 1400))
    t.metric("vector-index", "aws.es.cpuutilization", between(36, -30, -6, 71), unit="%", noise=0.08)
    t.metric("vector-index", "aws.es.search_latency", between(21, -30, -6, 27), unit="ms", noise=0.1)
    t.metric("vector-index", "aws.es.jvmmemory_pressure", 58, unit="%", noise=0.05)
    merged = "[kb-{1..4}] force merge finished, {3..9} segments"
    t.lines("vector-index", "info", "o.o.i.s.IndexShard", merged, between(0.02, -30, -6, 0.25))
    t.lines("retrieval", "warning", "retrieval.rank", "{1..3} passages without language tag, kept", 1.2)
    t.lines("orders-api", "warning", "c.shopfront.orders.Legacy", "Order {7d} has no carrier code", 1.5, load=1.0)
    t.lines("help-web", "info", "web.access", "GET /{articles|topics}/{6d} 200", 7, load=1.0)
    answered = "POST /chat: assistant-api answered 503"
    t.lines("help-web", "error", "web.proxy", answered, course(0.02, (0, 0.02), (1, 5), (15, 7)))
    waited = "POST /chat: no answer from assistant-api within 60000 ms"
    t.lines("help-web", "error", "web.proxy", waited, course(0.0, (1, 0.0), (3, 1.6), (15, 2.1)))
    t.lines("desk", "info", "desk.inbox", "Chat {8h} taken over by agent {2d}", course(1.5, (2, 1.5), (8, 5)))


def _context(t: Telling) -> None:
    t.change(
        "retrieval",
        -19,
        "deploy",
        "ECS deployment of retrieval:118: COMPLETED",
        version="retrieval:118",
        author="ci/deploy",
    )
    t.change(
        "help-web",
        -1150,
        "deploy",
        "ECS deployment of help-web:402: COMPLETED",
        version="help-web:402",
        author="ci/deploy",
    )
    t.change("desk", 4, "scaling", "UpdateService: desiredCount 2", author="application-autoscaling")
    for name in ("anthropic", "openai"):
        t.gap("datadog", GapReason.EMPTY, f"no metric is tagged service:{name}", "set datadog_tags in the catalogue")
    t.document(
        "Assistant runbook",
        "No answers",
        "1. Which step fails: retrieval, order lookup or the model? The trace answer-question in Langfuse shows it.\n"
        "2. Database pool: each conversation keeps its connection until it has been answered.\n"
        "3. The default model is set in the flag assistant.model; switching it needs the duty manager's consent.",
        ["assistant-api"],
        "is about assistant-api",
    )
