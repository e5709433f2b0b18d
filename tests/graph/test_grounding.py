"""Claims that hold, and claims that lie."""

import pytest

from graph.grounding import ground, ground_claim, ground_option, known_components
from graph.state import ActionOption, Claim, Rival, RootCause
from tests.graph.llms import incidents

EVIDENCE = incidents.pool_exhaustion()
COMPONENTS = known_components(incidents.scope(), EVIDENCE)


def root_cause(**changes: object) -> RootCause:
    fields: dict[str, object] = {
        "component": "payment-service",
        "category": "connection_pool_exhaustion",
        "title": "Connection pool exhausted",
        "mechanism": "Requests wait for a connection.",
        "claims": (Claim(text="50 connections are active.", evidence=("E1",)),),
        "confidence": "high",
        "engine": "gpt-4o",
    }
    return RootCause.model_validate(fields | changes)


@pytest.mark.parametrize(
    ("text", "evidence"),
    [
        ("Active connections rose from 12.4 to 50.", "E1"),
        ("Active connections rose from 12 to 50.", "E1"),
        ("Active connections are 4 times the normal.", "E1"),
        ("Active connections rose by 303 %.", "E1"),
        ("Requests timed out after 30000ms.", "E2"),
        ("Requests timed out after 30 s.", "E2"),
        ("Requests timed out after 0.5 minutes.", "E2"),
        ("There were 1284 errors.", "E2"),
        ("There were 1,284 errors.", "E2"),
        ("There were about 1,300 errors.", "E2"),
        ("There were 1.3k errors.", "E2"),
        ("p95 of POST /checkout is 4.2 s.", "E4"),
        ("p95 of POST /checkout is 4,200 ms.", "E4"),
        ("p95 of POST /checkout was 310 milliseconds.", "E4"),
        ("p95 of POST /checkout rose by 3,890 ms.", "E4"),
        ("Traffic surged at 09:14, the pool was full at 09:15:00.", "E1 E3"),
        ("The pool filled 1 minute after the surge.", "E1 E3"),
        ("30초 후에 타임아웃, 오류 1,284건.", "E2"),
        ("커넥션이 12.4개에서 50개로, 4배가 되었다.", "E1"),
        ("All 4 of 4 tasks run, E5 shows.", "E5"),
        ("payment-service makes checkout-service slow.", "E1"),
        ("HikariPool-1 of `payment-service` has no connection.", "E2"),
    ],
)
def test_holds(text: str, evidence: str) -> None:
    claim = ground_claim(Claim(text=text, evidence=tuple(evidence.split())), EVIDENCE, COMPONENTS)
    assert (claim.verified, claim.complaint) == (True, "")


@pytest.mark.parametrize(
    ("text", "evidence", "complaint"),
    [
        ("The pool is exhausted.", "", "cites no evidence"),
        ("The pool is exhausted.", "E1 E99", "E99"),
        ("The pool is exhausted, as E42 shows.", "E1", "E42"),
        ("Active connections rose to 60.", "E1", "60"),
        ("Active connections are 9 times the normal.", "E1", "9 times"),
        ("There were 12,840 errors.", "E2", "12,840"),
        ("There were about 1,500 errors.", "E2", "1,500"),
        ("Requests timed out after 30 minutes.", "E2", "30 minutes"),
        ("p95 is 4.2 ms.", "E4", "4.2 ms"),
        ("p95 is 4 200 %.", "E4", "200 %"),
        ("1,284 errors a minute.", "E1", "1,284"),
        ("커넥션이 60개로 늘었다.", "E1", "60"),
        ("30분 후에 타임아웃.", "E2", "30분"),
        ("2023-12-20에 시작되었다.", "E1", "2023-12-20"),
        ("Traffic surged at 08:47.", "E3", "08:47"),
        ("Traffic surged on 2023-12-20.", "E3", "2023-12-20"),
        ("The pool filled 15 minutes after the surge.", "E1 E3", "15 minutes"),
        ("Version v3.1.4 is broken.", "E1", "v3.1.4"),
        ("The host is 10.1.2.3.", "E1", "10.1.2.3"),
        ("billing-service holds the connections.", "E1", "billing-service"),
        ("`ledger` holds the connections.", "E1", "ledger"),
        ("orders-db refuses connections.", "E1", "orders-db"),
        ("Active connections dropped.", "E1", "fall"),
    ],
)
def test_lies(text: str, evidence: str, complaint: str) -> None:
    told = Claim(text=text, evidence=tuple(evidence.split()), verified=True)
    claim = ground_claim(told, EVIDENCE, COMPONENTS)
    assert not claim.verified
    assert complaint in claim.complaint


def test_a_speech_of_rise_over_falling_numbers_is_a_lie() -> None:
    fell = EVIDENCE.model_copy(
        update={
            "findings": (
                incidents.finding(
                    1, "metric", "payment-service", "hits", "Hits went from 9 to 3", observed=3, baseline=9
                ),
            )
        }
    )
    claim = ground_claim(Claim(text="Hits increased.", evidence=("E1",)), fell, COMPONENTS)
    assert claim.complaint == "speaks of a rise, but what it cites fell"


def test_a_ratio_may_be_quoted_in_percent() -> None:
    ratio = EVIDENCE.model_copy(
        update={"findings": (incidents.finding(1, "metric", "x", "errors", "Errors rose", observed=0.374),)}
    )
    assert ground_claim(Claim(text="37 % fail.", evidence=("E1",)), ratio, COMPONENTS).verified
    assert not ground_claim(Claim(text="73 % fail.", evidence=("E1",)), ratio, COMPONENTS).verified


def test_an_unknown_component_is_inconclusive() -> None:
    grounded = ground(root_cause(component="billing-service"), EVIDENCE, COMPONENTS)
    assert (grounded.component, grounded.category, grounded.confidence) == (None, "unknown", "inconclusive")
    assert "billing-service" in grounded.engine_note
    assert grounded.path == ()


def test_hops_are_checked_against_the_suspects_paths() -> None:
    stated = (
        incidents.hop("payment-service", "checkout-service"),
        incidents.hop("orders-db", "payment-service"),
        incidents.hop("moon", "orders-db"),
    )
    grounded = ground(root_cause(path=stated), EVIDENCE, COMPONENTS)
    assert grounded.path == (stated[0], incidents.hop("orders-db", "payment-service", holds=False))


def test_a_hop_that_the_evidence_doubts_stays_doubted() -> None:
    doubted = incidents.hop("payment-service", "checkout-service", holds=False)
    suspects = (EVIDENCE.suspects[0].model_copy(update={"path": (doubted,)}),)
    stated = root_cause(path=(incidents.hop("payment-service", "checkout-service"),))
    grounded = ground(stated, EVIDENCE.model_copy(update={"suspects": suspects}), COMPONENTS)
    assert grounded.path == (doubted,)


def test_prose_loses_the_sentences_that_nothing_supports() -> None:
    mechanism = "Active connections rose to 50. Then 700 tasks died. Callers of E77 wait [E77]."
    grounded = ground(root_cause(mechanism=mechanism, title="Pool of 999 connections"), EVIDENCE, COMPONENTS)
    assert grounded.mechanism == "Active connections rose to 50."
    assert grounded.title == "Connection pool exhaustion in payment-service"
    assert [("700" in u, "E77" in u) for u in grounded.unknowns] == [(True, False), (False, True)]


def test_rivals_lose_what_nothing_supports() -> None:
    rivals = (
        Rival(component="orders-db", for_="It has 31 locks. It is shared.", against=""),
        Rival(component="moon", for_="Full.", against=""),
    )
    grounded = ground(root_cause(rivals=rivals), EVIDENCE, COMPONENTS)
    assert [(r.component, r.for_) for r in grounded.rivals] == [("orders-db", "It is shared.")]


@pytest.mark.parametrize(
    ("claims", "component", "confidence"),
    [
        (("50 active.",), "payment-service", "high"),
        (("50 active.", "51 active."), "payment-service", "medium"),
        (("51 active.",), "payment-service", "low"),
        (("50 active.",), "orders-db", "low"),
    ],
)
def test_confidence_is_no_higher_than_the_checks_allow(
    claims: tuple[str, ...], component: str, confidence: str
) -> None:
    told = root_cause(claims=tuple(Claim(text=c, evidence=("E1",)) for c in claims), component=component)
    assert ground(told, EVIDENCE, COMPONENTS).confidence == confidence


def test_grounding_twice_changes_nothing() -> None:
    told = root_cause(
        mechanism="Then 700 tasks died.", title="999", path=(incidents.hop("orders-db", "payment-service"),)
    )
    once = ground(told, EVIDENCE, COMPONENTS)
    assert ground(once, EVIDENCE, COMPONENTS) == once
    assert once.mechanism == "50 connections are active."


def test_options_lose_evidence_that_does_not_exist() -> None:
    option = ActionOption(title="t", description="d", why=("E1", "E99"), risk="low", minutes=1, steps=())
    assert ground_option(option, EVIDENCE).why == ("E1",)


SLOWER = EVIDENCE.model_copy(
    update={
        "findings": (
            incidents.finding(
                1, "metric", "db", "requests", "Requests of db rose", observed=1200, baseline=100, unit="requests/min"
            ),
            incidents.finding(2, "metric", "db", "latency", "Latency of db rose", observed=320, baseline=80, unit="ms"),
        )
    }
)


GLUED = [
    "9000rps",
    "9000req/s",
    "9e6 per minute",
    "99999msecs",
    "77tps",
    "9000bps",
    "99%p",
    "9000_rps",
    "9.1e+3rps",
    "9e600",
]


@pytest.mark.parametrize("number", GLUED)
def test_a_number_glued_to_an_unknown_unit_is_checked(number: str) -> None:
    text = f"Requests rose to {number}."
    assert "says" in ground_claim(Claim(text=text, evidence=("E1", "E2")), SLOWER, ["db"]).complaint
    grounded = ground(root_cause(component="db", title=text, mechanism=text, claims=()), SLOWER, ["db"])
    assert (grounded.title, grounded.mechanism) == ("Connection pool exhaustion in db", "")


@pytest.mark.parametrize("number", ["1200rpm", "1.2e3 per minute", "1,200req/min", "320msecs"])
def test_a_number_glued_to_an_unknown_unit_may_hold(number: str) -> None:
    claim = Claim(text=f"Rose to {number}; 5xx, 95th percentile, 2nd, commit 7f3a9c.", evidence=("E1", "E2"))
    assert ground_claim(claim, SLOWER, ["db"]).complaint == ""


WRONG_WAY = [
    "Latency of db rose from 320 ms to 80 ms.",
    "Latency of db went down from 320 ms to 80 ms.",
    "Latency of db improved from 320 ms to 80 ms.",
    "Latency of db rose to 80 ms from 320 ms.",
    "Latency of db: 320 ms -> 80 ms.",
    "Latency of db rose tenfold.",
    "Latency of db tripled.",
    "db latency halved.",
    "Latency of db went down.",
    "Latency of db was reduced.",
    "Latency of db is lower.",
]


@pytest.mark.parametrize("text", WRONG_WAY)
def test_the_wrong_way_or_the_wrong_ratio_is_a_lie(text: str) -> None:
    assert not ground_claim(Claim(text=text, evidence=("E2",)), SLOWER, ["db"]).verified
    for said in (text, f"{text[:-1]} [E2]."):
        grounded = ground(root_cause(component="db", title=said, mechanism=said, claims=()), SLOWER, ["db"])
        assert (grounded.title, grounded.mechanism) == ("Connection pool exhaustion in db", "")


@pytest.mark.parametrize(
    "text",
    [
        "Latency of db rose from 80 ms to 320 ms.",
        "Latency of db rose from about 80 ms to 0.32 s.",
        "Latency of db rose to 320 ms from 80 ms.",
        "Latency of db went up fourfold.",
        "Latency of db quadrupled.",
        "Latency of db is higher.",
    ],
)
def test_the_right_way_and_the_right_ratio_hold(text: str) -> None:
    assert ground_claim(Claim(text=text, evidence=("E2",)), SLOWER, ["db"]).complaint == ""
    grounded = ground(root_cause(component="db", title=text, mechanism=text, claims=()), SLOWER, ["db"])
    assert (grounded.title, grounded.mechanism) == (text, text)


def test_the_evidences_own_sentence_is_no_speech_of_a_fall() -> None:
    dropped = incidents.finding(
        1, "log", "db", "dropped", "“connection dropped” 312 times a minute", observed=312, baseline=0
    )
    evidence = SLOWER.model_copy(update={"findings": (dropped,)})
    said = "“connection dropped” 312 times a minute [E1]."
    assert ground(root_cause(component="db", mechanism=said), evidence, ["db"]).mechanism == said


@pytest.mark.parametrize("holds", [True, False])
def test_prose_of_a_spread_needs_checked_hops(*, holds: bool) -> None:
    path = (incidents.hop("payment-service", "checkout-service", holds=holds),)
    evidence = EVIDENCE.model_copy(update={"suspects": (EVIDENCE.suspects[0].model_copy(update={"path": path}),)})
    said = "Requests wait. It spread from payment-service to checkout-service."
    mechanism = ground(root_cause(mechanism=said), evidence, COMPONENTS).mechanism
    assert mechanism == (said if holds else "Requests wait.")
