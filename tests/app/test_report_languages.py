"""What a report says of an answer and its checks, in each language, and whose words are written anew."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from app import report_texts
from app.report import ModelUse, Report, build
from app.report_markdown import markdown
from collectors.base import Gap, GapReason, Scope, Window
from executors.base import Change, PreflightCheck
from graph.confidence import confident
from graph.grounding import ground
from graph.llms.rules import explain
from graph.llms.sentences import told as sentence
from graph.memory import remembering
from graph.state import (
    ActionOption,
    AffectedService,
    Approval,
    Assessment,
    BlastRadius,
    CapacityEstimate,
    Claim,
    Decision,
    Evidence,
    Execution,
    Finding,
    GroundingCheck,
    ImpactFigure,
    Language,
    Needs,
    PastIncident,
    Plan,
    PlanStep,
    RootCause,
    StepResult,
    Suspect,
    Verification,
)

AT = datetime(2024, 12, 20, 9, 15, tzinfo=UTC)
HOSTILE = "~~~\n# <b>](http://evil) | @all"
HARMLESS = r"\~\~\~ \# \<b\>\](http://evil) \| \@all"
INCIDENT = {
    "id": "inc_1",
    "title": "p95",
    "service": "shop",
    "environment": "production",
    "severity": "critical",
    "status": "awaiting_decision",
    "status_reason": "",
    "occurred_at": AT,
    "opened_at": AT,
    "closed_at": None,
    "round": 1,
    "admitted_at": AT,
    "flaps": 0,
    "plan_revision": "abc",
    "language": "en",
}
FINDING = Finding(
    id="E1",
    kind="metric",
    component="db",
    signal="db.connections",
    at=AT,
    observed=100.0,
    baseline=20.0,
    unit="connections",
    effect=9.0,
    summary="db.connections rose from 20 to 100 connections",
    asked="metric db.connections",
)
EVIDENCE = Evidence(
    digest="d",
    findings=(FINDING,),
    suspects=(Suspect(component="db", score=0.9, findings=("E1",)),),
    impact=(ImpactFigure(name="lost", value=3, unit="orders", window="5 min", evidence=("E1",)),),
    assessment=Assessment(state="incident", trouble=0.99, certainty=0.9, abstains=False),
)
SPAN = Window(start=AT, end=AT + timedelta(minutes=15))
SCOPE = Scope(service="shop", occurred_at=AT, incident=SPAN, baseline=(SPAN,), targets=())


def cause(**changes: object) -> RootCause:
    """A model's answer, by default."""
    said: dict[str, object] = {
        "component": "db",
        "category": "connection_pool_exhaustion",
        "title": "db runs out",
        "mechanism": "All are taken.",
        "claims": (
            Claim(text="It rose", evidence=("E1",), quote="20 to 100", verified=True),
            Claim(text="It burns", evidence=("E9",), complaint="cites E9, which the evidence does not contain"),
        ),
        "impact": "Buyers wait.",
        "confidence": "medium",
        "certainty": 0.715,
        "certainty_why": ("half is verified",),
        "contradicts": "ranking says cache",
        "checks": (
            GroundingCheck(about="claim", text="It rose", evidence=("E1",), verdict="repaired", complaint="said 99"),
            GroundingCheck(about="claim", text="It burns", evidence=("E9",), verdict="not_verified", complaint="no E9"),
        ),
        "changed": ("db, not cache",),
        "engine": "gpt-4o",
    }
    return RootCause.model_validate(said | changes)


def told(
    answer: RootCause, language: Language | None = None, plan: Plan | None = None, evidence: Evidence = EVIDENCE
) -> Report:
    """The report of that answer."""
    analysis: dict[str, Any] = {
        "round": 1,
        "scope": SCOPE.model_dump(mode="json"),
        "evidence": evidence.model_dump(mode="json"),
        "root_cause": answer.model_dump(mode="json", by_alias=True),
        "plan": plan.model_dump(mode="json") if plan else None,
    }
    return build(INCIDENT, [analysis], [], [], [], language=language)


def test_all_that_code_found_of_an_answer_is_told() -> None:
    text = markdown(told(cause()))
    assert "confidence: medium (72% sure) · by gpt-4o.\n" in text
    assert "**The analysis and the ranking disagree:** ranking says cache\n" in text
    assert "- It rose “20 to 100” [E1]\n" in text
    assert "- It burns [E9] - **not verified**: cites E9, which the evidence does not contain\n" in text
    assert "Who notices: Buyers wait.\n" in text
    assert "What changed since the analysis before:\n\n- db, not cache\n" in text
    assert "How sure, and why:\n\n- half is verified\n" in text
    assert "### Grounding: what was said, and what the evidence shows (1 of 2 verified)\n" in text
    assert "| claim | It rose | E1 | verified after a repair | said 99 |\n" in text
    assert "| claim | It burns | E9 | **not verified** | no E9 |\n" in text
    assert "(metric): db.connections rose from 20 to 100 connections - *asked for by the analyst: metric" in text


def test_labels_are_korean_and_what_a_model_wrote_stays_and_says_so() -> None:
    made = told(cause(), "ko")
    assert (made.language, made.root_cause) == ("ko", cause())
    text = markdown(made)
    assert "## 근본 원인\n\n**db runs out**\n" in text
    assert "신뢰도: 보통 (확신 72%) · 작성: gpt-4o. 본문 언어: 영어\n" in text
    assert "본문 언어" not in markdown(told(cause(language="ko"), "ko"))
    assert "| 주장 | It burns | E9 | **검증되지 않음** | no E9 |" in text
    assert "계산 결과: **이상 있음** (확신 99%)" in text
    headings = [line for line in text.splitlines() if line.startswith("##")]
    assert len(headings) >= 6
    assert all(any("가" <= sign <= "힣" for sign in heading) for heading in headings)


def ruled(language: Language, **changes: object) -> RootCause:
    """The rules engine's own answer."""
    answer = ground(explain(EVIDENCE, "shop", language=language), EVIDENCE, {"shop"})
    return confident(answer, EVIDENCE).model_copy(update=changes)


def test_what_the_rules_engine_wrote_is_written_anew_and_grounded_again() -> None:
    english, korean = ruled("en", engine_note="the model is down"), ruled("ko")
    made = told(english, "ko").root_cause
    assert made is not None
    assert (made.language, made.title, made.mechanism) == ("ko", korean.title, korean.mechanism)
    assert made.title != english.title
    assert (made.component, made.category, made.engine_note) == ("db", english.category, "the model is down")
    assert made.claims
    assert all(claim.verified for claim in made.claims)
    assert told(korean, "en").root_cause == ruled("en")
    assert told(english, "en").root_cause == english


def test_an_answer_that_the_rules_would_not_give_today_stays_as_it_was_decided_on() -> None:
    other = ruled("en", category="bad_deploy")
    assert told(other, "ko").root_cause == other
    assert "본문 언어: 영어" in markdown(told(other, "ko"))


def test_a_second_look_is_written_anew_with_what_was_said_to_the_first() -> None:
    first, hints = ruled("en"), ("look at the shop",)
    second = explain(EVIDENCE, "shop", hints=hints, previous=first)
    rows = [
        {
            "round": round_,
            "scope": SCOPE.model_dump(mode="json"),
            "evidence": EVIDENCE.model_dump(mode="json"),
            "root_cause": answer.model_dump(mode="json", by_alias=True),
        }
        for round_, answer in ((1, first), (2, second))
    ]
    said = [
        Decision(plan_revision=str(n), choice="re_analyze", hint=hint, by="kim", at=AT).model_dump()
        for n, hint in enumerate((*hints, "not yet looked at"))
    ]
    expected = ground(explain(EVIDENCE, "shop", hints=hints, previous=first, language="ko"), EVIDENCE, {"shop"})
    made = build(INCIDENT | {"round": 2}, rows, said, [], [], language="ko").root_cause
    assert made is not None
    assert (made.mechanism, made.unknowns) == (expected.mechanism, expected.unknowns)
    assert made.mechanism != ruled("ko").mechanism
    assert any(hints[0] in line for line in made.changed)
    assert not any("not yet looked at" in line for line in made.changed)


def call(**changes: object) -> dict[str, Any]:
    """A row of ``store.llm_calls.page``."""
    figures = {"prompt_tokens": 4_000, "completion_tokens": 300, "dollars": Decimal("0.013"), "seconds": 2.25}
    return {**figures, "reserved_dollars": Decimal(0), "error": "", **changes}


def test_the_calls_of_the_model_are_summed_up() -> None:
    unknown = {
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "dollars": Decimal(0),
        "reserved_dollars": Decimal("0.02"),
    }
    timed_out = call(**unknown, seconds=None, error="timed out")
    made = build(INCIDENT, [], [], [], [], [], [call(), timed_out, call()])
    assert made.model_use == ModelUse(
        calls=3, failed=1, prompt_tokens=8_000, completion_tokens=600, dollars=0.046, seconds=4.5
    )
    where = f"https://autopilot/incidents/{made.incident_id}/model-calls"
    assert markdown(made, address="https://autopilot/").endswith(
        f"[Model calls]({where}): 3 (1 failed) · tokens: 8,000 in, 600 out · $0.0460 at list price · 4.5 s\n"
    )
    korean = markdown(made.model_copy(update={"language": "ko"}))
    assert "3 (실패 1건) · 토큰: 입력 8,000, 출력 600 · 정가 기준 $0.0460 · 4.5초" in korean


def test_where_no_model_was_asked_none_is_told_of() -> None:
    made = build(INCIDENT, [], [], [], [])
    assert made.model_use is None
    assert "odel calls" not in markdown(made)


def test_nothing_that_was_computed_is_called_certain() -> None:
    assert "confidence: medium (99% sure)" in markdown(told(cause(certainty=0.9996)))
    assert "confidence: medium (1% sure)" in markdown(told(cause(certainty=0.0)))


def test_evidence_is_told_in_the_language_and_kept_as_it_was_seen() -> None:
    made = told(cause(), "ko")
    assert f"- **E1** db (metric): {sentence(FINDING, 'ko')}. - " in markdown(made)
    assert f"(metric): {FINDING.summary}" in markdown(told(cause()))
    assert made.evidence == (FINDING,)


PAST = PastIncident(
    incident_id="inc_7c0f3a1e9b52",
    at="2024-11-29",
    component="db",
    category="slow_queries",
    title="db slow",
    remedy="Reboot (reboot_db)",
    verdict="worse",
    reasons=("the same rule",),
    wrong=True,
    helped="an index",
)


@pytest.mark.parametrize(
    ("language", "section", "row", "finding"),
    [
        (
            "en",
            "## Similar incidents\n\nWhat happened then.",
            r"| E2 | [inc\_7c0f3a1e9b52](/incidents/inc_7c0f3a1e9b52/report) (2024-11-29): db slow | the same rule |"
            r" db · slow queries |"
            r" «Reboot (reboot\_db)» made it worse; its analysis was called wrong;"
            " what helped, by a person's word: an index |",
            "its cause was slow queries in db",
        ),
        (
            "ko",
            "## 유사 장애\n\n당시의 기록입니다.",
            "조치로 더 나빠짐; 당시 분석은 틀렸다고 표시됨; 사람이 남긴 실제 해결 방법: an index |",
            "당시 원인은 db의 slow queries",
        ),
    ],
)
def test_similar_incidents_are_told_in_the_language(language: Language, section: str, row: str, finding: str) -> None:
    text = markdown(told(cause(), language, evidence=remembering(EVIDENCE, [PAST], AT)))
    assert section in text
    assert row in text
    assert finding in next(line for line in text.splitlines() if line.startswith("- **E2** db (knowledge)"))
    assert "Similar" not in markdown(told(cause()))


@pytest.mark.parametrize("language", ["en", "ko"])
def test_hostile_memory_takes_no_effect(language: Language) -> None:
    words: dict[str, object] = dict.fromkeys(("incident_id", "component", "category", "title", "remedy"), HOSTILE)
    wild = PAST.model_copy(update={**words, "helped": HOSTILE, "reasons": (HOSTILE,), "verdict": HOSTILE})
    lines = markdown(told(cause(), language, evidence=remembering(EVIDENCE, [wild], AT))).splitlines()
    text = "\n".join(line for line in lines if not line.startswith("      "))  # which is code
    assert len(lines) - text.count("\n") == 2
    assert text.count(r"\~\~\~ \#") > 6
    assert "~~~" not in text.replace(r"\~\~\~", "")
    assert "](http://evil)" not in text.replace(r"\](http://evil)", "")
    assert "@all" not in text.replace(r"\@all", "")
    assert "<b>" not in text


def test_a_quote_that_its_claim_says_already_is_not_said_twice() -> None:
    claim = Claim(text="db.connections rose from 20 to 100", evidence=("E1",), quote="From 20  to 100", verified=True)
    assert "- db.connections rose from 20 to 100 [E1]\n" in markdown(told(cause(claims=(claim,))))


def test_what_our_own_code_wrote_is_told_in_the_language_and_what_people_wrote_stays() -> None:
    seen = Verification(
        verdict="resolved",
        detail="All expected effects held for 5 minutes.",
        credit="remedy",
        control="Before the first call 3 of 3 metrics were not on their way there.",
    )
    step = StepResult(ordinal=1, operation="check_ecs_health", status="succeeded", detail="shop: 3 of 3 tasks running")
    ran = Execution(plan_revision="p", choice="1", title="x", results=(step,), undone=(step,), verification=seen)
    reasons = ("component db", "text alike by 40%")
    alike = PastIncident(incident_id="inc_0", at="2024-11-29", component="db", category="", title="t", reasons=reasons)
    evidence = Evidence(
        digest="d",
        findings=(),
        suspects=(),
        gaps=(Gap(source="dd", reason=GapReason.EMPTY, detail="no log line is tagged a:b", mend="raise DD_MAX"),),
        similar=(alike,),
    )
    lines = (("status", "awaiting decision"), ("note", "kim: recovered by itself"), ("plan", "2 options: a; b"))
    events = [
        {
            "id": n,
            "at": AT,
            "kind": kind,
            "node": "",
            "message": message,
            "data": {"status": "awaiting_decision"} if kind == "status" else {"by": "kim"},
        }
        for n, (kind, message) in enumerate(lines)
    ]
    analysis = {"round": 1, "evidence": evidence.model_dump(mode="json"), "root_cause": None, "plan": None}
    incident = INCIDENT | {"status_reason": "recovered by itself"}
    built = build(incident, [analysis], [], [{"body": ran.model_dump(mode="json")}], events, language="ko")
    text = markdown(built)
    for korean in (
        "저절로 복구됨",
        "a:b 태그가 있는 로그 없음",
        "DD\\_MAX 값을 늘리세요",
        "구성 요소 db; 본문 유사도 40%",
        "shop: 태스크 3개 중 3개 실행 중",
        "기대 효과가 모두 5분 동안 유지되었습니다.",
        "첫 호출 이전에는 지표 3개 중 3개가 회복되고 있지 않았습니다.",
        "결정 대기",
        "kim: recovered by itself",
        "조치 방안 2건: a; b",
    ):
        assert korean in text, korean
    assert [entry.status for entry in built.history] == ["awaiting_decision", "", ""]
    assert built.executions[0].undone[0].detail == "shop: 태스크 3개 중 3개 실행 중"
    english = build(incident, [analysis], [], [{"body": ran.model_dump(mode="json")}], events, language="en")
    assert (english.executions[0], english.status_reason) == (ran, "recovered by itself")


def test_without_being_asked_a_report_speaks_as_its_incident() -> None:
    assert build(INCIDENT | {"language": "ko"}, [], [], [], []).language == "ko"
    assert "아직 분석되지 않았습니다." in markdown(build(INCIDENT | {"language": "ko"}, [], [], [], []))


def test_options_say_what_for_and_how_it_went() -> None:
    option = ActionOption(
        title="Restart",
        description="New tasks",
        intent="mitigate",
        track_record="3 of 4",
        why=("E1",),
        risk="low",
        minutes=4,
        tried="worse",
        steps=(PlanStep(operation="restart", params={"a": "x\n\n# y"}),),
    )
    plan = Plan.of([option], "one was dropped")
    text = markdown(told(cause(), plan=plan))
    assert "## Options\n\none was dropped\n\n### 1. Restart (mitigate now) - tried: worse\n" in text
    assert "risk: low · about 4 minutes · because of E1 · Undo: not possible · proposed by the rules engine.\n" in text
    assert "Track record: 3 of 4\n" in text
    assert "1. `restart` `a=x # y` " in text
    assert "### 1. Restart (즉시 완화) - 시도함: 악화됨" in markdown(told(cause(), "ko", plan))


@pytest.mark.parametrize("language", ["en", "ko"])
def test_hostile_words_take_no_effect(language: Language) -> None:
    words: dict[str, object] = dict.fromkeys(("title", "mechanism", "impact", "contradicts", "engine_note"), HOSTILE)
    words |= {"certainty_why": (HOSTILE,), "changed": (HOSTILE,), "unknowns": (HOSTILE,), "engine": HOSTILE}
    words["claims"] = (Claim(text=HOSTILE, evidence=(HOSTILE,), quote=f"it: {HOSTILE}", complaint=HOSTILE),)
    words["checks"] = (
        GroundingCheck(about="claim", text=HOSTILE, evidence=(HOSTILE,), verdict="dropped", complaint=HOSTILE),
    )
    text = markdown(told(cause(**words), language))
    assert text.count(HARMLESS) == 16
    assert "~~~" not in text
    assert "](http://evil)" not in text.replace(r"\](http://evil)", "")
    assert "\n# <b>" not in text


def test_an_answer_of_an_older_version_is_still_told() -> None:
    stored = cause().model_dump(mode="json", by_alias=True)
    for name in ("certainty", "certainty_why", "contradicts", "checks", "changed", "language", "impact"):
        del stored[name]
    for claim in stored["claims"]:
        del claim["quote"]
    made = build(INCIDENT, [{"evidence": None, "root_cause": stored}], [], [], [], language="ko")
    assert made.root_cause is not None
    assert made.root_cause.certainty is None
    assert "신뢰도: 보통 · 작성: gpt-4o. 본문 언어: 영어\n" in markdown(made)


def test_a_decision_tells_the_language_it_asked_for() -> None:
    decision = Decision(plan_revision="abc", choice="re_analyze", by="kim", at=AT, language="ko")
    assert build(INCIDENT, [], [decision.model_dump()], [], []).decisions[0].language == "ko"


def test_both_languages_have_every_label_and_the_same_blanks() -> None:
    assert set(report_texts.ENGLISH) == set(report_texts.KOREAN)
    for name, label in report_texts.ENGLISH.items():
        assert label
        assert label.count("{}") == report_texts.KOREAN[name].count("{}"), name


def test_a_decision_tells_who_approved_which_part_and_who_took_it_back() -> None:
    approvals = tuple(Approval(by=name, role="admin", via="slack", at=AT) for name in ("ann", "kim"))
    decision = Decision(
        plan_revision="abc", choice="1", steps=(2,), by="kim", via="console", at=AT, approvals=approvals, note="go"
    )
    taken = {"kind": "withdrawal", "data": {"what": "decision", "plan_revision": "abc", "by": "bob"}}
    noted = {"kind": "note", "data": {"by": "kim"}, "message": f"kim: {HOSTILE}"}
    events = [{"id": n, "at": AT, "node": "", "message": "", **e} for n, e in enumerate((taken, noted))]
    waiting = {"choice": "2", "steps": [1], "by": "ann", "role": "admin", "via": "cli", "at": AT}
    made = build(INCIDENT, [], [decision.model_dump()], [], events, approvals=[waiting])
    [told] = made.decisions
    assert (told.steps, told.via, told.withdrawn_by, told.withdrawn_at) == ((2,), "console", "bob", AT)
    assert [(n.by, n.text) for n in made.notes] == [("kim", HOSTILE)]
    text = markdown(made)
    assert "kim chose **1 (only step 2)** (console; approved by ann too; withdrawn by bob before" in text
    assert "nothing was run): go\n" in text
    assert (
        "## Approvals that wait\n\n- 2024-12-20 09:15:00 UTC: ann approved **2 (only step 1)** (command line)" in text
    )
    assert f"## Done by hand\n\n- 2024-12-20 09:15:00 UTC: kim: {HARMLESS}\n" in text


def test_an_option_tells_what_it_changes_whom_it_touches_and_what_it_takes() -> None:
    step = PlanStep(
        operation="scale",
        params={},
        preview="4 to 8",
        changes=(Change(what="desired | tasks", before="4", after="8"),),
        checks=(
            PreflightCheck(name="permission", status="ok"),
            PreflightCheck(name="scaling", status="failed", detail=HOSTILE),
        ),
    )
    left = CapacityEstimate(service="shop", servers_now=4, servers_then=2, utilisation_now=0.4, utilisation_then=0.8)
    radius = BlastRadius(
        services=(AffectedService(service="shop", how="changed"), AffectedService(service="web", how="caller", hops=1)),
        request_share=1.0,
        capacity=(left,),
        reversible="all",
    )
    needs = Needs(role="admin", approvals=2, refused=("a window",), why=("high risk",))
    option = ActionOption(
        title="Scale", description="", risk="high", minutes=1, steps=(step,), blast_radius=radius, needs=needs
    )
    plan = Plan.of([option], number=2, policy_version="p1")
    text = markdown(told(cause(), plan=plan))
    assert "   - desired \\| tasks: 4 -> 8\n   - Pre-flight checks: 1 of 2 passed\n" in text
    assert f"     - scaling policies: **failed**: {HARMLESS}\n" in text
    assert "- callers: web (1 call away)\n- 100% of the requests" in text
    assert "| shop | 4 -> 2 | 40% -> 80% | - |  |\n" in text
    assert "Approval takes: admin · 2 different people (high risk)\n" in text
    assert "**The policy does not let it run now:** a window\n" in text
    assert "plan 2 of this incident · policy `p1`" in text
    assert "영향 범위:" in markdown(told(cause(), "ko", plan))


def test_an_execution_tells_its_merit_and_what_to_do_about_unknown_steps() -> None:
    unknown = StepResult(ordinal=1, operation="restart", status="unknown")
    stuck = unknown.model_copy(update={"status": "failed"})
    done = Execution(
        plan_revision="b",
        choice="undo",
        title="t",
        results=(unknown,),
        verification=Verification(verdict="worse", credit="remedy", control="the others stayed"),
        undone=(stuck,),
        undoes="a",
    )
    text = markdown(build(INCIDENT, [], [], [{"body": done.model_dump(mode="json")}], []))
    assert "puts back what plan `a` changed\n" in text
    assert "**unknown**\n   **Nobody knows whether this was done." in text
    assert "(Undone)\n   **Not put back:" in text
    assert "Was it the remedy? **it was the remedy**. Compared with: the others stayed" in text
