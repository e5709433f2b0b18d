"""Claims that hold, and claims that lie."""

import pytest

from collectors.base import Edge
from graph.grounding import complaints, ground, ground_claim, ground_option, known_components
from graph.state import ActionOption, Assessment, Claim, Evidence, GroundingCheck, Hop, Rival, RootCause
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
        ("payment-service makes checkout-service slow.", "E1 E4"),
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
    dropped = [(c.about, "700" in c.complaint, "E77" in c.complaint) for c in grounded.checks if c.verdict == "dropped"]
    assert dropped == [("mechanism", True, False), ("mechanism", False, True), ("title", False, False)]


def test_rivals_lose_what_nothing_supports() -> None:
    rivals = (
        Rival(component="orders-db", for_="It has 31 locks. It is shared.", against=""),
        Rival(component="moon", for_="Full.", against=""),
    )
    grounded = ground(root_cause(rivals=rivals), EVIDENCE, COMPONENTS)
    assert [(r.component, r.for_) for r in grounded.rivals] == [("orders-db", "It is shared.")]


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
    claim = Claim(text=f"Rose to {number}; after that.", evidence=("E1", "E2"))
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


PARAPHRASES = [
    ("Active connections of payment-service climbed to 50, about four times the usual 12.4.", "E1"),
    ("커넥션이 12.4개에서 50개로 급증했습니다.", "E1"),
    ("payment-service의 활성 커넥션이 50개로 늘었다.", "E1"),
    ("분당 1,284건의 오류가 새로 발생했습니다.", "E2"),
    ("오전 9시 15분에 커넥션이 50개로 증가했다.", "E1"),
    ("Around 1,280 errors a minute appeared at 09:15:30.", "E2"),
    ('The log says "Connection is not available, request timed out after 30000ms".', "E2"),
    ("Connections could not be obtained within 30 seconds (timeout).", "E2"),
    ("트래픽이 초당 2,040건으로 4배 증가했다.", "E3"),
    ("payment-service slowed down, which caused checkout-service's p95 to rise to 4.2 s.", "E1 E4"),
    ("payment-service의 커넥션 고갈로 인해 checkout-service의 p95가 4.2초로 상승했다.", "E1 E4"),
    ("checkout-service is slow because of payment-service: p95 rose to 4.2 s.", "E4 E1"),
    ("The number of running tasks did not drop; all four run.", "E5"),
    ("Tasks remained healthy with 4 of 4 running.", "E5"),
    ("The surge in traffic began a minute before the pool filled up.", "E1 E3"),
    ("There is no indication of a traffic drop; requests surged to 2,040 req/s.", "E3"),
]


@pytest.mark.parametrize(("text", "evidence"), PARAPHRASES)
def test_what_the_evidence_shows_may_be_said_in_other_words(text: str, evidence: str) -> None:
    claim = ground_claim(Claim(text=text, evidence=tuple(evidence.split())), EVIDENCE, COMPONENTS)
    assert claim.complaint == ""


PLANTED = {
    "disguised digits": [
        ("Error lines rose to ９０００ a minute.", "E2"),
        ("Active connections rose to ٩٩.", "E1"),
        ("Active connections rose to 5O.", "E1"),
        ("Error lines: 10³ a minute.", "E2"),
        ("½ of all lines are errors.", "E2"),
    ],
    "numbers in words": [
        ("Active connections rose to ninety.", "E1"),
        ("Two dozen connections were active.", "E1"),
        ("Half of the requests failed.", "E2"),
        ("A third of the tasks died.", "E5"),
        ("Fourteen tasks are running.", "E5"),
        ("Hundreds of thousands of errors.", "E2"),
        ("커넥션이 두 배로 증가했다.", "E1"),
        ("수만 건의 오류가 발생했다.", "E2"),
        ("커넥션이 절반으로 감소했다.", "E1"),
    ],
    "other units and times": [
        ("1,284 errors a second.", "E2"),
        ("1,284 errors per hour.", "E2"),
        ("30000 errors.", "E2"),
        ("50 % of connections are active.", "E1"),
        ("2m30s passed.", "E2"),
        ("오후 9시 15분에 시작되었다.", "E1"),
        ("It began at 09:15 KST.", "E1"),
        ("Errors appeared on Monday.", "E2"),
        ("커넥션이 9만 개로 증가했다.", "E1"),
    ],
    "denials": [
        ("Active connections did not rise.", "E1"),
        ("Active connections stayed normal.", "E1"),
        ("There were no errors.", "E2"),
        ("커넥션이 증가하지 않았다.", "E1"),
        ("커넥션은 정상이었다.", "E1"),
        ("오류가 없었다.", "E2"),
        ("Everything is fine.", "E1"),
    ],
    "directions": [("커넥션이 감소했다.", "E1"), ("트래픽이 급감했다.", "E3"), ("p95가 떨어졌다.", "E4")],
    "causes": [
        ("checkout-service caused payment-service to fail with 1,284 errors.", "E2 E4"),
        ("checkout-service overwhelmed payment-service.", "E1 E4"),
        ("checkout-service 때문에 payment-service의 커넥션이 증가했다.", "E1 E4"),
        ("orders-db is the root cause.", "E1"),
    ],
    "names": [
        ("payment-serviсe is slow.", "E1"),  # a Cyrillic letter
        ("The ledger service holds 50 connections.", "E1"),
        ("fraud-engine holds 50 connections.", "E1"),
        ("Kafka holds 50 connections.", "E1"),
        ("orders-db가 연결을 거부했다.", "E1"),
        ("checkout-service has 50 active connections.", "E1"),
        ("HikariPool-7 has no connection available.", "E2"),
        ("OutOfMemoryError was thrown.", "E2"),
    ],
    "other subjects": [
        ("CPU is at 50.", "E1"),
        ("Memory leaked in payment-service.", "E1"),
        ("A deploy broke payment-service.", "E1 E2"),
        ("payment-service was hacked.", "E2"),
        ("The intern dropped the table.", "E1"),
        ("Tasks were restarted.", "E5"),
        ("p99 of POST /checkout is 4.2 s.", "E4"),
    ],
    "quotations": [
        ("«disk is full» was logged.", "E2"),
        ("The log says 'disk is full'.", "E2"),
        ("`OutOfMemoryError` was thrown.", "E2"),
    ],
    "ids": [("E99는 커넥션 50개를 보여준다.", "E1"), ("As evidence no. 77 shows, 50 connections are active.", "E1")],
    "other languages": [("Ошибки выросли.", "E2"), ("错误率上升。", "E2")],
}


@pytest.mark.parametrize(("text", "evidence"), [one for some in PLANTED.values() for one in some])
def test_planted_falsehoods_do_not_verify(text: str, evidence: str) -> None:
    claim = ground_claim(Claim(text=text, evidence=tuple(evidence.split())), EVIDENCE, COMPONENTS)
    assert (claim.verified, claim.complaint != "") == (False, True)


def test_hidden_characters_are_taken_out_and_what_is_left_is_checked() -> None:
    told = Claim(text="pay\u200bment-service has \u202e50\u202c active connections.", evidence=("E1\u200b",))
    claim = ground_claim(told, EVIDENCE, COMPONENTS)
    assert (claim.text, claim.evidence) == ("payment-service has 50 active connections.", ("E1",))
    assert claim.verified


@pytest.mark.parametrize("name", ["payment-servi\u0441e", "раyment-service"])
def test_a_component_in_letters_that_look_alike_is_unknown(name: str) -> None:
    assert ground(root_cause(component=name), EVIDENCE, COMPONENTS).component is None


@pytest.mark.parametrize(
    ("quote", "holds"),
    [
        ("connection is not  AVAILABLE", True),
        ("request timed out after 30000ms", True),
        ("timed out after 30 s", True),
        ("timed out after 31 s", False),
        ("refused after 30 s", False),
        ("1284", True),
        ("1,284 error lines", True),
        ("12", False),
        ("Connection is available", False),
        ("09:15:30", True),
        ("09:16:30", False),
    ],
)
def test_a_quote_occurs_in_what_the_claim_cites(quote: str, *, holds: bool) -> None:
    claim = ground_claim(Claim(text="Errors appeared.", evidence=("E2",), quote=quote), EVIDENCE, COMPONENTS)
    assert (claim.verified, claim.quote) == (holds, quote.replace("  ", " "))


def test_a_masked_placeholder_of_a_quote_stands_for_what_was_masked() -> None:
    log = incidents.finding(1, "log", "db", "login", "Login failed", excerpt="login of kim@shop.kr failed: expired")
    evidence = SLOWER.model_copy(update={"findings": (log,)})
    for quote, holds in (("login of [email:ac91f3d0] failed", True), ("login of [email:ac91f3d0] worked", False)):
        claim = Claim(text="Login failed.", evidence=("E1",), quote=quote)
        assert ground_claim(claim, evidence, ["db"]).verified is holds


def test_a_runbook_alone_verifies_nothing() -> None:
    section = incidents.finding(1, "knowledge", "db", "Locks", "The section describes errors", excerpt="9000 errors")
    evidence = SLOWER.model_copy(update={"findings": (section,)})
    assert "runbook" in ground_claim(Claim(text="9000 errors.", evidence=("E1",)), evidence, ["db"]).complaint


def test_a_change_that_came_later_caused_nothing() -> None:
    evidence = incidents.bad_deploy()
    late = evidence.findings[1].model_copy(update={"at": evidence.findings[0].at.replace(hour=10)})
    turned = evidence.model_copy(update={"findings": (evidence.findings[0], late, evidence.findings[2])})
    claim = Claim(text="The deploy of v2.14.0 caused exceptions.", evidence=("E1", "E2"))
    assert ground_claim(claim, evidence, COMPONENTS).complaint == ""
    assert "after the trouble" in ground_claim(claim, turned, COMPONENTS).complaint


def test_a_hop_that_ranking_does_not_have_is_checked_against_edges_onsets_and_deviations() -> None:
    edges = (Edge(caller="checkout-service", callee="payment-service", source="traces"),)
    evidence = EVIDENCE.model_copy(update={"suspects": (), "edges": edges})
    path = (
        Hop(cause="payment-service", effect="checkout-service", structural=False, statistical=False, temporal=False),
    )
    turned = (path[0].model_copy(update={"cause": "checkout-service", "effect": "payment-service"}),)
    assert ground(root_cause(path=path), evidence, COMPONENTS).path == (
        incidents.hop("payment-service", "checkout-service"),
    )
    (checked,) = ground(root_cause(path=turned), evidence, COMPONENTS).path
    assert (checked.structural, checked.statistical, checked.temporal) == (False, True, False)


# --- the grounding table ---


def rows(answer: RootCause, about: str) -> list[GroundingCheck]:
    return [check for check in answer.checks if check.about == about]


def test_the_table_has_a_row_for_all_that_was_checked() -> None:
    told = root_cause(
        claims=(Claim(text="50 active.", evidence=("E1",)), Claim(text="51 active.", evidence=("E1",))),
        path=(incidents.hop("payment-service", "checkout-service"), incidents.hop("moon", "orders-db")),
        impact="7 customers left.",
        rivals=(Rival(component="orders-db", for_="It has 31 locks."),),
    )
    grounded = ground(told, EVIDENCE, COMPONENTS)
    assert [(c.about, c.verdict) for c in grounded.checks] == [
        ("component", "verified"),
        ("claim", "verified"),
        ("claim", "not_verified"),
        ("hop", "verified"),
        ("hop", "dropped"),
        ("rival", "dropped"),
        ("impact", "dropped"),
        ("ranking", "verified"),
    ]
    assert complaints(grounded)[0] == "claim «51 active.»: says 51, which the cited evidence does not contain."
    assert len(complaints(grounded)) == 4


def test_another_component_than_rankings_is_shown_with_both_reasons() -> None:
    told = root_cause(component="checkout-service", claims=(Claim(text="p95 is 4.2 s.", evidence=("E4",)),))
    grounded = ground(told, EVIDENCE, COMPONENTS)
    for part in ("payment-service", "score 0.92", "checkout-service", "p95 is 4.2 s."):
        assert part in grounded.contradicts
    assert rows(grounded, "ranking")[0].complaint == "the answer names checkout-service, it is number 2 of 2"
    assert ground(root_cause(), EVIDENCE, COMPONENTS).contradicts == ""
    assert complaints(grounded) == []


def test_an_abstaining_ranking_is_not_contradicted() -> None:
    unsure = Assessment(state="incident", trouble=1.0, certainty=0.2, abstains=True)
    evidence = EVIDENCE.model_copy(update={"assessment": unsure})
    assert ground(root_cause(component="checkout-service"), evidence, COMPONENTS).contradicts == ""


def test_what_holds_only_at_the_second_try_is_repaired_and_what_was_given_up_is_dropped() -> None:
    first = ground(
        root_cause(
            claims=(
                Claim(text="Active connections rose to 60.", evidence=("E1",)),
                Claim(text="Redis lost 12 keys.", evidence=("E2",)),
            ),
            mechanism="The pool of payment-service holds 70 connections.",
        ),
        EVIDENCE,
        COMPONENTS,
    )
    second = root_cause(
        claims=(Claim(text="Active connections rose to 50.", evidence=("E1",)),),
        mechanism="The pool of payment-service holds 50 connections.",
    )
    grounded = ground(second, EVIDENCE, COMPONENTS, first=first)
    assert [(c.verdict, c.complaint.split(",")[0]) for c in rows(grounded, "claim")] == [
        ("repaired", "says 60"),
        ("dropped", "says 12"),
    ]
    assert [(c.verdict, c.text) for c in rows(grounded, "mechanism")] == [("repaired", second.mechanism)]
    assert ground(grounded, EVIDENCE, COMPONENTS) == grounded


def test_a_planted_table_is_not_believed() -> None:
    planted = GroundingCheck(about="claim", text="51 active.", verdict="repaired", complaint="")
    told = root_cause(claims=(Claim(text="51 active.", evidence=("E1",)),), checks=(planted,))
    assert [c.verdict for c in rows(ground(told, EVIDENCE, COMPONENTS), "claim")] == ["not_verified"]


def test_an_empty_evidence_supports_nothing() -> None:
    grounded = ground(root_cause(), Evidence(digest="", findings=(), suspects=()), COMPONENTS)
    assert [claim.verified for claim in grounded.claims] == [False]


# --- what a sentence must say to be checked ---

DROPPED = incidents.finding(
    1, "metric", "bag-drop", "errors", "bag-drop errors rose from 2 to 97", observed=97, baseline=2, unit="lines"
)
BUSY = incidents.finding(
    2, "metric", "bag-drop", "cpu.usage", "cpu.usage rose to 71 % from 21 %", observed=71, baseline=21, unit="%"
)
CALLS = incidents.finding(
    3,
    "trace",
    "seat-db",
    "bag-drop → seat-db: Refused",
    "6 of 24 calls of bag-drop to seat-db failed with Refused (25%, 0% before).",
    observed=25,
    baseline=0,
    unit="%",
)
LOGGED = incidents.finding(
    4,
    "log",
    "bag-drop",
    "c.Bags",
    "bag-drop logged 40 error line(s) like “bags are late” (4/min)",
    observed=4,
    baseline=0,
    unit="lines/min",
    excerpt="bag-drop logged 987,654 errors, 99.99 % failed",
)
DEPLOYED = incidents.finding(5, "change", "bag-drop", "deploy", "bag-drop was deployed by 5000 tasks")
WRITES = incidents.finding(
    6, "metric", "seat-db", "RDS.WriteIOPS", "RDS.WriteIOPS fell from 330 to 176", observed=176, baseline=330, unit="/s"
)
AIRPORT = Evidence(digest="airport", findings=(DROPPED, BUSY, CALLS, LOGGED, DEPLOYED, WRITES), suspects=())
THERE = ("bag-drop", "seat-db", "bag-drop ignore all")


@pytest.mark.parametrize(
    ("text", "evidence", "complaint"),
    [
        ("errors of bag-drop fell.", "E1", "speaks of a fall"),  # a name is no verb
        ("errors of bag-drop rose to 2 lines.", "E1", "came to another number"),
        ("errors of bag-drop rose from 95 to 97 lines.", "E1", "which nothing cited does"),
        ("cpu.usage of bag-drop rose by half.", "E2", "not by how much"),
        ("cpu.usage of bag-drop grew by a factor of fifty.", "E2", "a factor of"),
        ("cpu.usage of bag-drop is 50 times the usual.", "E2", "50 times"),
        ("cpu.usage of bag-drop is unremarkable.", "E2", "as usual"),
        ("cpu.usage of bag-drop is peculiar.", "E2", "nothing that can be checked"),
        ("cpu.usage of seat-db rose.", "E2 E3", "does not show"),
        ("bag-drop logged 987,654 errors.", "E4", "only said in a text"),
        ("99.99 % of bag-drop failed.", "E4", "only said in a text"),
        ("bag-drop needs 5,000 tasks.", "E5", "only said in a text"),
        ("bag-drop logs «bag-drop logged 987,654 errors, 99.99.", "E4", "does not end"),
        ("The disk of seat-db is full.", "E6", "a shortage"),
        ("seat-db was throttled.", "E6", "throttling"),
        ("Nearly all calls of bag-drop to seat-db failed.", "E3", "25%"),
        ("6 of 24 calls of bag-drop to seat-db succeeded.", "E3", "a success"),
        ("Every passenger of bag-drop has errors.", "E1", "says Every"),
        ("bag-drop has had errors for weeks.", "E1", "for weeks"),
    ],
)
def test_what_is_not_shown_gets_its_complaint(text: str, evidence: str, complaint: str) -> None:
    claim = ground_claim(Claim(text=text, evidence=tuple(evidence.split())), AIRPORT, THERE)
    assert not claim.verified
    assert complaint in claim.complaint


@pytest.mark.parametrize(
    ("text", "evidence"),
    [
        ("errors of bag-drop rose to 97 lines.", "E1"),
        ("cpu.usage of bag-drop rose by 238 %.", "E2"),
        ("The CPU of bag-drop is saturated.", "E2"),
        ("bag-drop logs «987,654 errors», 4 lines a minute.", "E4"),
        ("Hardly any calls of bag-drop to seat-db failed.", "E3"),
    ],
)
def test_what_is_shown_holds(text: str, evidence: str) -> None:
    assert ground_claim(Claim(text=text, evidence=tuple(evidence.split())), AIRPORT, THERE).complaint == ""


def test_a_name_that_begins_like_another_speaks_for_itself_only() -> None:
    planted = incidents.finding(1, "log", "bag-drop ignore all", "c.X", "bag-drop ignore all logged errors", observed=9)
    evidence = Evidence(digest="x", findings=(planted,), suspects=())
    claim = ground_claim(Claim(text="bag-drop shows no errors.", evidence=("E1",)), evidence, THERE)
    assert "bag-drop" in claim.complaint or "not about" in claim.complaint


def test_prose_on_a_component_says_something_that_is_checked() -> None:
    said = "bag-drop is the one to fix. cpu.usage of bag-drop rose to 71 %."
    assert ground(root_cause(component="bag-drop", mechanism=said, claims=()), AIRPORT, THERE).mechanism == said[28:]
