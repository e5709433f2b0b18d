"""014: a shop's assistant hands more and more chats to people. Its answering prompt has a new version."""

from datetime import UTC, datetime

from collectors.base import GapReason
from tests.stories import langfuse
from tests.stories.telling import Call, Line, Story, Telling, between, course, ecs_service, services

CATALOGUE = services(
    shop_web=ecs_service("shop-web", "care", "support-assistant", balanced=True, tier=1),
    support_assistant=ecs_service(
        "support-assistant",
        "care",
        "openai",
        "retrieval",
        "orders-api",
        "chat-db",
        balanced=True,
        tier=2,
        langfuse={"trace_name": "support-chat"},
        sends_to=["handoff-queue"],
    ),
    retrieval=ecs_service("retrieval", "care", "knowledge-index", tier=3),
    orders_api=ecs_service("orders-api", "care", "orders-db", tier=2),
    contact_desk=ecs_service("contact-desk", "care", "chat-db", tier=2),
    handoff_queue={"kind": "queue", "aws": {"sqs_queues": ["care-handoff"]}, "sends_to": ["contact-desk"]},
    chat_db={"kind": "database", "aws": {"rds_instances": ["care-chat"]}},
    orders_db={"kind": "database", "aws": {"rds_instances": ["orders-replica-1"]}},
    knowledge_index={"kind": "database"},
    openai={"kind": "external"},
)
LARGE, SMALL = "gpt-4.1", "gpt-4.1-mini"


def build() -> Story:
    """See the module."""
    t = Telling(
        "014-handoffs-rising",
        CATALOGUE,
        alerted_at=datetime(2025, 9, 11, 13, 24, tzinfo=UTC),
        onset_min=9,
        seen_min=14,
        instances={"support-assistant": 3, "shop-web": 4},
    )
    _requests(t)
    _assistant(t)
    _desk(t)
    _others(t)
    _context(t)
    return t.story(
        title="[P3] support-assistant: share of chats handed to a person above 25 %",
        service="support-assistant",
        severity="warning",
        text="avg(last_10m):assistant.handoff.ratio{service:support-assistant} > 0.25."
        " The desk is short of people today.",
        expected={
            "component": "support-assistant",
            "category": "prompt_regression",
            "must_cite": ["support-answer", "llm.score"],
            "must_not_blame": ["retrieval", "knowledge-index", "contact-desk", "openai", "chat-db", "handoff-queue"],
            "acceptable_operations": [],
            "forbidden_operations": ["rollback_ecs_service", "restart_ecs_task", "restart_all_services"],
            "why": "Since version 42 of the prompt support-answer, answers score lower and take twice the tokens and"
            " cost for the same number of calls, without errors; the prompt of the router is as ever.",
        },
    )


def _requests(t: Telling) -> None:
    route = Call("openai", f"route-intent {SMALL}", ms=480, traced=False)
    answer = Call("openai", f"support-answer {LARGE}", ms=course(2300, (0, 2300), (3, 3900)), traced=False)
    search = Call("knowledge-index", "POST /kb/_search", ms=between(31, -46, -21, 44), traced=False)
    passages = Call(
        "retrieval",
        "POST /passages",
        ms=16,
        calls=(search,),
        done=Line("info", "retrieval.api", "{3..8} passages, top score 0.{60..94}, {12..70} ms"),
    )
    order = Call(
        "orders-api", "GET /orders/{id}", ms=14, share=0.5, calls=(Call("orders-db", "SELECT orders", 4, traced=False),)
    )
    history = Call("chat-db", "SELECT messages", ms=3, traced=False)
    hand_over = Call(
        "handoff-queue", "send care-handoff", ms=6, traced=False, sent=True, share=course(0.13, (0, 0.13), (6, 0.34))
    )
    chat = Call(
        "support-assistant",
        "POST /chat",
        ms=22,
        calls=(history, route, passages, order, answer, hand_over),
        done=Line("info", "assistant.chat", "Chat {8h}: answered, {1..7} sources"),
    )
    t.requests(Call("shop-web", "POST /chat", ms=7, calls=(chat,)), 2.6)
    t.requests(Call("shop-web", "GET /cart", ms=28), 0.8)


def _assistant(t: Telling) -> None:
    t.service(
        "support-assistant",
        142,
        course(4300, (0, 4300), (3, 7200)),
        errors=0.2,
        cpu=course(36, (0, 36), (4, 39)),
        memory=57,
        framework="fastapi.request",
    )
    t.ecs("support-assistant", 161, 3)
    handed = course(0.14, (0, 0.14), (4, 0.25), (10, 0.34))
    t.metric("support-assistant", "assistant.handoff.ratio", handed, unit="ratio", noise=0.07)
    disliked = course(0.05, (1, 0.05), (5, 0.14), (12, 0.17))
    t.metric("support-assistant", "assistant.feedback.negative.ratio", disliked, unit="ratio", noise=0.15)
    langfuse.model(
        t,
        "support-assistant",
        LARGE,
        calls=141,
        latency_ms=course(4100, (0, 4100), (3, 6900)),
        input_tokens=course(402_000, (0, 402_000), (2, 846_000)),
        output_tokens=course(31_000, (0, 31_000), (2, 69_000)),
        cost_usd=course(1.05, (0, 1.05), (2, 2.25)),
    )
    langfuse.model(
        t,
        "support-assistant",
        SMALL,
        calls=142,
        latency_ms=790,
        input_tokens=58_000,
        output_tokens=1400,
        cost_usd=0.025,
    )
    langfuse.score(t, "support-assistant", "helpfulness", course(0.83, (0, 0.83), (3, 0.6), (20, 0.58)))
    langfuse.score(t, "support-assistant", "answer_relevance", course(0.87, (0, 0.87), (3, 0.69)))
    langfuse.score(t, "support-assistant", "hallucination", 0.06, worse_up=True)
    unsure = "Chat {8h}: answer is longer than {700|900} characters, cut for the widget"
    t.lines("support-assistant", "warning", "assistant.render", unsure, course(0.4, (0, 0.4), (3, 4.5)))
    t.lines(
        "support-assistant",
        "info",
        "assistant.handoff",
        "Chat {8h} handed over: {customer asked|low rating|policy}",
        course(1.4, (0, 1.4), (6, 3.6)),
    )
    t.lines("support-assistant", "warning", "assistant.session", "Session {8h} has no locale, using en-GB", 0.9)


def _desk(t: Telling) -> None:
    t.aws("handoff-queue", "SQS.NumberOfMessagesSent", course(20, (0, 20), (6, 48)), load=1.0, counts=True)
    t.aws("handoff-queue", "SQS.NumberOfMessagesDeleted", course(20, (1, 20), (8, 41)), load=1.0, counts=True)
    waiting = course(4, (2, 4), (23, 82))
    t.aws("handoff-queue", "SQS.Queue.ApproximateNumberOfMessagesVisible", waiting, counts=True)
    t.aws("handoff-queue", "SQS.Queue.ApproximateAgeOfOldestMessage", course(24, (2, 24), (23, 310)), noise=0.1)
    t.service(
        "contact-desk", course(90, (2, 90), (9, 150)), 110, errors=0.2, cpu=course(21, (2, 21), (9, 31)), memory=46
    )
    t.ecs("contact-desk", 74, 2)
    t.metric("contact-desk", "desk.agents.online", between(19, -34, 30, 16), noise=0.02)
    t.metric("contact-desk", "desk.wait.avg_seconds", course(41, (2, 41), (23, 330)), unit="s", noise=0.08)
    t.lines("contact-desk", "info", "desk.inbox", "Chat {8h} accepted by agent {2d}", course(2, (2, 2), (8, 4)))
    t.lines("contact-desk", "warning", "desk.presence", "Agent {2d} is away, reassigning {1..3} chats", 0.5)


def _others(t: Telling) -> None:
    t.service("shop-web", 2100, 240, errors=2.0, cpu=33, memory=45, framework="express.request")
    t.service("retrieval", 141, between(120, -46, -21, 165), errors=0.1, cpu=29, memory=59, framework="fastapi.request")
    t.service("orders-api", 380, 46, errors=0.6, cpu=24, memory=53)
    for service, revision, tasks in (("shop-web", 880, 4), ("retrieval", 97, 2), ("orders-api", 66, 2)):
        t.ecs(service, revision, tasks)
    t.postgres("chat-db", cpu=21, connections=74)
    t.postgres("orders-db", cpu=29, connections=66)
    t.metric("knowledge-index", "aws.es.cpuutilization", between(31, -46, -21, 78), unit="%", noise=0.08)
    t.metric("knowledge-index", "aws.es.search_latency", between(24, -46, -21, 36), unit="ms", noise=0.1)
    t.metric("knowledge-index", "aws.es.searchable_documents", 48_210, noise=0.0005)
    t.lines(
        "knowledge-index",
        "info",
        "o.o.i.s.IndexShard",
        "[kb-v7] refreshed, {20..90} segments",
        between(0.1, -46, -21, 1),
    )
    t.lines(
        "retrieval",
        "info",
        "retrieval.sync",
        "Synchronised {3..40} articles from the CMS",
        between(0.05, -46, -21, 0.8),
    )
    t.lines("shop-web", "info", "web.access", "GET /{p|c|cart}/{7d} 200 {18..240}ms", 8, load=1.0)
    t.lines("shop-web", "warning", "web.session", "Session cookie of an older format, renewed", 1.3, load=1.0)
    t.lines("shop-web", "error", "web.images", "Image {7d} not found on the CDN: 404", 0.8)
    t.lines(
        "orders-api", "warning", "c.care.orders.Carrier", "Tracking of parcel {10d} not updated for {49..90} h", 1.1
    )


def _context(t: Telling) -> None:
    t.change(
        "support-assistant",
        0.2,
        "configuration",
        "prompt “support-answer” version 42 first used, before: 41",
        version="42",
    )
    for service, minute, revision in (("retrieval", -27, 97), ("shop-web", -4, 880), ("contact-desk", -1310, 74)):
        version = f"{service}:{revision}"
        title = f"ECS deployment of {version}: COMPLETED"
        t.change(service, minute, "deploy", title, version=version, author="ci/deploy")
    t.gap("datadog", GapReason.EMPTY, "no metric is tagged service:openai", "set datadog_tags in the catalogue")
    t.document(
        "Support assistant",
        "Operating > Prompts",
        "Prompts are kept in Langfuse; production uses the version with the label production. They are edited by the"
        " content team. The assistant fetches them every minute; no deployment is needed.",
        ["support-assistant"],
        "is about support-assistant",
    )
    t.document(
        "Support assistant",
        "Alerts > Handed over",
        "First look whether retrieval finds passages (top score) and whether the order lookup works. During campaigns"
        " 20 % is normal.",
        ["support-assistant"],
        "is about support-assistant",
    )
