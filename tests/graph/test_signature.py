"""What an incident is recognised by."""

from datetime import UTC, datetime

from graph.memory import SOURCE
from graph.signature import MAX_EACH, MAX_TERM, Signature, signature_of
from graph.state import Alert, Evidence, Finding, FindingKind, RootCause, Suspect

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ALERT = Alert(
    source="t", rule="datadog:monitor:7", title="t", service="shop", occurred_at=NOON, fingerprint="f", cycle_key="c"
)


def finding(kind: FindingKind, component: str, signal: str, **more: str) -> Finding:
    """One; its number is of no matter here."""
    return Finding.model_validate(
        {"id": "E1", "kind": kind, "component": component, "signal": signal, "at": NOON, "summary": ""} | more
    )


def evidence(*findings: Finding, suspects: tuple[str, ...] = ("payment", "db")) -> Evidence:
    """Of these suspects."""
    ranked = tuple(Suspect(component=name, score=0.5, findings=()) for name in suspects)
    return Evidence(digest="d", findings=findings, suspects=ranked)


def test_names_without_numbers() -> None:
    seen = signature_of(
        ALERT,
        evidence(
            finding("log", "payment", "Pool timed out after 30 ms", excerpt="java.sql.PoolTimeoutException: 30 ms"),
            finding("metric", "payment", "latency_p95_ms"),
            finding("trace", "payment", "payment → db: io.Broken", summary="3 of 4 calls failed with io.Broken (75%)"),
            finding("change", "payment", "Release 7", summary="payment: deploy “Release 7” at 11:58"),
            finding("change", "mail", "Release 8", summary="mail: feature_flag “Release 8” at 11:58"),
        ),
    )
    assert seen.terms() == (
        "alert:f",
        "rule:datadog:monitor:7",
        "component:payment",
        "component:db",
        "service:shop",
        "error:pooltimeoutexception",
        "error:broken",
        "log:pool timed out after <*> ms",
        "symptom:payment log",
        "symptom:payment metric latency_p<*>_ms",
        "symptom:payment trace payment → db: io.broken",
        "finding:metric latency_p<*>_ms",
        "finding:trace payment → db: io.broken",
        "change:deploy",
    )


def test_the_cause_takes_the_place_of_the_suspects() -> None:
    cause = RootCause(component="db", category="slow_queries", title="", mechanism="", confidence="high")
    seen = signature_of(ALERT, evidence(), cause)
    assert (seen.components, seen.categories) == (("db",), ("slow_queries",))
    inconclusive = cause.model_copy(update={"component": None, "category": "unknown"})
    assert signature_of(ALERT, evidence(), inconclusive) == signature_of(ALERT, evidence())


def test_what_memory_said_is_no_likeness() -> None:
    remembered = finding("knowledge", "db", "inc_1", source=SOURCE, summary="PoolTimeoutException")
    assert signature_of(ALERT, evidence(remembered)) == signature_of(ALERT, evidence())


def test_nothing_is_known_but_the_alert() -> None:
    assert signature_of(ALERT, None).terms() == ("alert:f", "rule:datadog:monitor:7", "service:shop")
    assert Signature().terms() == ()


def test_bounded_and_storable() -> None:
    logs = [finding("log", "a", f"{chr(97 + n)} \x00 \ud800 {'x' * 9_000}") for n in range(26)]
    seen = signature_of(ALERT.model_copy(update={"rule": "r" * 10_000}), evidence(*logs))
    assert len(seen.templates) <= MAX_EACH
    assert all(len(name) <= MAX_TERM for name in (*seen.templates, *seen.rules))
    "\n".join(seen.terms()).encode()
    assert "\x00" not in "".join(seen.terms())
