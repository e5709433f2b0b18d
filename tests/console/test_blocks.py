"""The blocks of the console, drawn from made-up reports; texts from alerts and logs are hostile."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest

from app.console import actions, analysis, overview
from app.console.markup import address, excerpt, number, outside, text
from app.console.page import parse_time
from app.console.progress import NODES, Event, sources, steps
from app.console.results import results
from app.console.texts import ENGLISH, KOREAN, language
from app.decision_checks import Admissible, Verdict
from app.decisions import Offers
from app.report import AlertOf, DecisionMade, ModelUse, Report, TimelineEntry
from app.security import Caller
from collectors.base import Edge, Gap, GapReason, SeriesRef
from graph.flow import NODES as GRAPH_NODES
from graph.state import (
    ActionOption,
    Assessment,
    Claim,
    EffectCheck,
    Execution,
    ExpectedEffect,
    Finding,
    GroundingCheck,
    Hop,
    ImpactFigure,
    Needs,
    PastIncident,
    PlanStep,
    Rival,
    RootCause,
    StepResult,
    Suspect,
    Verification,
)

AT = datetime(2024, 12, 20, 9, 15, tzinfo=UTC)
EVIL = '<script>alert(1)</script>"><img src=x onerror=alert(2)>&${alert(3)}{{x}}' + "w" * 300
ALLOWED = {
    *("section", "h1", "h2", "h3", "h4", "p", "b", "span", "small", "code", "pre", "a", "time", "ul", "ol", "li"),
    *("div", "table", "thead", "tbody", "tr", "th", "td", "article", "header", "nav", "br"),
    *("details", "summary", "del", "ins"),
    *("svg", "title", "desc", "g", "rect", "path", "circle", "text"),
}
VOID = {"br"}


class Checker(HTMLParser):
    """Fails on a tag or attribute the console never writes, and on tags that do not close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ALLOWED, tag
        assert not [name for name, _ in attrs if name.startswith("on") or name == "src"]
        assert all(not (value or "").lower().startswith("javascript:") for _, value in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def shown(html: str) -> str:
    """The text a person reads; asserts that the markup is harmless and well formed."""
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert not checker.open
    return " ".join(" ".join(checker.words).split())


def effect(words: str = "p95") -> ExpectedEffect:
    ref = SeriesRef(source="datadog", component=words, metric=words, unit="ms", query="q")
    return ExpectedEffect(ref=ref, comparator="<=", value=273, within_minutes=10, observed=4820)


def option(words: str, *, infeasible: str = "", tried: str = "", risk: str = "low") -> ActionOption:
    step = PlanStep(operation="ecs.scale_service", params={"service": words}, preview=words, infeasible=infeasible)
    return ActionOption.model_validate(
        {"title": words, "description": words, "why": ("E1",), "risk": risk, "minutes": 3, "steps": (step,)}
        | {"expected": (effect(),), "tried": tried, "intent": "least_risk", "track_record": words}
    )


def check(verdict: str, words: str = "checkout waits") -> GroundingCheck:
    said = {"about": "claim", "text": words, "evidence": ("E1", words), "verdict": verdict, "complaint": words}
    return GroundingCheck.model_validate(said)


def report(words: str = "payment-service", status: str = "awaiting_decision", **changes: object) -> Report:
    finding = Finding(
        id="E1",
        kind="metric",
        component=words,
        signal=words,
        at=AT,
        observed=4820,
        baseline=182,
        unit="ms",
        summary=words,
        excerpt=words,
        link="javascript:alert(1)",
        points=((0.0, 1.0), (60.0, 3.0), (120.0, 2.0)),
        asked=words,
    )
    hop = Hop(cause=words, effect="checkout", structural=True, statistical=False, temporal=True)
    cause = RootCause(
        component=words,
        category="connection_pool_exhaustion",
        title=words,
        mechanism=words,
        claims=(
            Claim(text=words, evidence=("E1",), quote=f"it: {words}", verified=True),
            Claim(text=words, evidence=(words,), complaint="E9 is not there"),
        ),
        impact=words,
        certainty=0.62,
        certainty_why=(words,),
        contradicts=words,
        changed=(words,),
        checks=(check("verified", words), check("dropped", words)),
        path=(hop,),
        rivals=(Rival(component=words, for_=words, against=words),),
        unknowns=(words,),
        confidence="low",
        engine=words,
        engine_note=words,
    )
    base: dict[str, object] = {
        "incident_id": "inc_1",
        "title": words,
        "service": words,
        "environment": words,
        "severity": "critical",
        "status": status,
        "status_reason": words,
        "occurred_at": AT,
        "opened_at": AT,
        "admitted_at": AT,
        "root_cause": cause,
        "path": cause.path,
        "evidence": (finding,),
        "evidence_digest": "ab" * 32,
        "impact": (ImpactFigure(name=words, value=18234, unit="requests", window=words, evidence=("E1",)),),
        "assessment": Assessment(state="incident", trouble=0.97, certainty=0.41, abstains=True, why=words),
        "suspects": (Suspect(component=words, score=0.9, findings=("E1",), path=(hop,), affected=("checkout",)),),
        "edges": (Edge(caller="checkout", callee=words, source="traces"),),
        "gaps": (Gap(source=words, reason=GapReason.FORBIDDEN, detail=words, mend=words),),
        "plan_note": words,
        "plan_revision": "abc123" if status == "awaiting_decision" else None,
        "options": (option(words), option("restart", infeasible="a deployment is in flight", tried="unchanged")),
        "history": (TimelineEntry(id=1, at=AT, kind="status", message=words),),
    }
    return Report.model_validate(base | changes)


def past(words: str = "Pool exhausted", **changes: object) -> PastIncident:
    told = dict.fromkeys(("component", "category", "title", "remedy", "helped", "at", "evidence"), words)
    base: dict[str, object] = {**told, "incident_id": "inc_7c0f3a1e9b52", "verdict": "resolved", "reasons": (words,)}
    return PastIncident.model_validate(base | {"wrong": True} | changes)


def offers(**changes: object) -> Offers:
    """Nothing is offered, by default."""
    base = {"incident_id": "inc_1", "status": "awaiting_decision", "plan_revision": "abc123", "options": ()}
    return Offers.model_validate(base | {"choices": ()} | changes)


def asked(**changes: Any) -> Admissible:
    """A verdict that nothing speaks against."""
    return replace(Admissible((), (), Needs(), (), 0), **changes)


def verdict(choice: str, **more: object) -> Verdict:
    return Verdict.model_validate({"plan_revision": "abc123", "choice": choice, **more})


def event(kind: str, message: str, node: str = "", **data: object) -> Event:
    return {"id": 1, "at": AT, "kind": kind, "message": message, "node": node, "data": data}


def test_hostile_texts_stay_texts_in_every_block() -> None:
    step = {"ordinal": 1, "operation": EVIL, "status": "failed", "detail": EVIL, "request_ids": (EVIL,)}
    result = StepResult.model_validate(step)
    execution = Execution(
        plan_revision="old",
        choice="1",
        title=EVIL,
        results=(result,),
        verification=Verification(
            verdict="worse", checks=(EffectCheck(effect=effect(EVIL), status="not_met", detail=EVIL),), detail=EVIL
        ),
        undone=(result,),
    )
    decision = DecisionMade(plan_revision="abc", choice="1", by=EVIL, note=EVIL, at=AT)
    seen = AlertOf(title=EVIL, service=EVIL, source=EVIL, state="firing", since=AT, merge_reason=EVIL, url=EVIL)
    made = report(EVIL, status="executing", executions=(execution,), decisions=(decision,), alerts=(seen,))
    events = [event("collector_finished", f"datadog: {EVIL}", "ContextCollector", failed=True)]
    events.append(event("verification", EVIL, "ActionExecutor", checks=[EVIL]))
    row = made.model_dump() | {"id": "inc_1", "opened_by": EVIL}
    blocks = [
        analysis.summary(made, ENGLISH),
        analysis.summary(report(EVIL, status="received", admitted_at=None), ENGLISH),
        analysis.progress(made, events, ENGLISH),
        analysis.root_cause(made, ENGLISH),
        analysis.assessment(made, ENGLISH),
        analysis.topology(made, ENGLISH),
        analysis.impact(made, ENGLISH),
        analysis.evidence(made, ENGLISH),
        analysis.gaps(made, ENGLISH),
        analysis.similar(report(EVIL, similar=(past(EVIL), past(EVIL, incident_id=EVIL))), ENGLISH),
        analysis.history(made, ENGLISH),
        analysis.alerts(made, ENGLISH),
        actions.options(made, offers(), ENGLISH),
        actions.confirmation(made, verdict("1", note=EVIL), asked(), ENGLISH),
        actions.confirmation(made, verdict("re_analyze", hint=EVIL), asked(), ENGLISH),
        results(made, [], events, ENGLISH),
        overview.incident_list([row], "en", older="x", paged=True, alerts={}),
        overview.header(Caller(EVIL, "viewer"), "en", EVIL),
    ]
    for block in blocks:
        assert shown(block)
        assert "<script" not in block
        assert "<img" not in block
    assert "<script>alert(1)</script>" in shown(blocks[3])


def test_similar_incidents_lead_to_their_pages_and_say_what_came_of_them() -> None:
    case = past(component="db", category="slow_queries", remedy="Reboot (reboot_db)", helped="", evidence="E7")
    made = report(similar=(case, case.model_copy(update={"incident_id": "PAY-77"})))
    block = analysis.similar(made, KOREAN)
    assert block.count("?incident=inc_7c0f3a1e9b52&amp;lang=ko") == 1
    assert "PAY-77" in shown(block)
    assert "당시 원인: db · slow queries" in shown(block)
    assert "«Reboot (reboot_db)» 조치로 해결됨; 당시 분석은 틀렸다고 표시됨" in shown(block)
    assert 'data-goto="E7"' in block
    assert analysis.similar(report(), ENGLISH) == ""


def test_a_text_cannot_disguise_itself() -> None:
    assert text("safe\u202egnp.exe\x00") == "safe\ufffdgnp.exe\ufffd"


def test_only_https_links_lead_outside() -> None:
    assert "href" not in analysis.evidence(report(), ENGLISH)
    assert outside("http://x", "open") == ""
    assert 'href="https://x/?a=1&amp;b=2"' in outside("https://x/?a=1&b=2", "open")


def test_an_address_keeps_its_parameters_apart() -> None:
    assert address(incident="a&lang=x", lang="ko", before=None) == "?incident=a%26lang%3Dx&amp;lang=ko"


def test_an_excerpt_is_bounded() -> None:
    assert len(excerpt("x" * 1_000_000)) < 25_000
    assert excerpt("") == ""


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [(None, "ms", "-"), (18234, "", "18,234"), (0.03125, "%", "0.03125 %"), (4.0, "s", "4 s"), (-1500.4, "", "-1,500")],
)
def test_numbers_read_well(value: float | None, unit: str, expected: str) -> None:
    assert number(value, unit) == expected


def test_the_boxes_are_the_nodes_of_the_graph() -> None:
    assert tuple(GRAPH_NODES) == NODES


AROUND = {
    "received": "running waiting waiting waiting waiting waiting",
    "collecting": "done running waiting waiting waiting waiting",
    "awaiting_decision": "done done done done you waiting",
    "verifying": "done done done done done running",
    "resolved": "done done done done done done",
}


@pytest.mark.parametrize("status", AROUND)
def test_each_status_lights_its_box(status: str) -> None:
    assert [s.state for s in steps(report(status=status), [])] == AROUND[status].split()


def test_a_stored_decision_is_no_longer_asked_for() -> None:
    assert steps(report(plan_revision=None), [])[4].state == "running"


@pytest.mark.parametrize(
    ("status", "choice", "expected"),
    [
        ("needs_attention", None, "done done stopped waiting waiting waiting"),
        ("closed", None, "done done skipped skipped skipped skipped"),
        ("closed", "manual", "done done done skipped skipped skipped"),
    ],
)
def test_an_end_shows_how_far_it_came(status: str, choice: str | None, expected: str) -> None:
    decisions = (DecisionMade(plan_revision="abc", choice=choice, by="kim", at=AT),) if choice else ()
    told = [event("status", s, status=s) for s in ("collecting", "analyzing", status)]
    assert [s.state for s in steps(report(status=status, decisions=decisions), told)] == expected.split()


def test_a_collector_that_reads_again_is_running_again() -> None:
    told = [
        event("collector_started", "aws: reading", "ContextCollector"),
        event("collector_started", "datadog: reading", "ContextCollector"),
        event("collector_finished", "aws: 1 gap: denied", "ContextCollector", source="aws", failed=True),
        event("collector_finished", "datadog: 3 metrics", "ContextCollector", source="datadog", failed=False),
        event("collector_started", "datadog: reading", "ContextCollector"),
    ]
    assert [(s.name, s.state) for s in sources(told[:4])] == [("aws", "failed"), ("datadog", "done")]
    assert sources(told)[1].state == "running"


def test_the_root_cause_tells_verified_claims_from_others() -> None:
    words = shown(analysis.root_cause(report(), ENGLISH))
    assert "confidence: low (62% sure)" in words
    assert words.count("✓") == 1
    assert "not verified E9 is not there" in words
    assert "→ structural, temporal checkout" in words
    assert "신뢰도: 낮음 (확신 62%)" in shown(analysis.root_cause(report(), KOREAN))
    assert "→ 구조, 시간 순서 checkout" in shown(analysis.root_cause(report(), KOREAN))


def told(**changes: object) -> Report:
    """With other words in the root cause."""
    made = report()
    assert made.root_cause
    return made.model_copy(update={"root_cause": made.root_cause.model_copy(update=changes)})


def test_a_certainty_that_was_not_computed_is_not_shown() -> None:
    words = shown(analysis.root_cause(told(certainty=None), ENGLISH))
    assert "confidence: low by" in words
    assert "sure)" not in words


def test_the_grounding_table_is_folded_away_while_all_is_verified() -> None:
    sound = analysis.root_cause(told(checks=(check("verified"), check("repaired"))), ENGLISH)
    assert "<details><summary>" in sound
    assert "(all 2 verified)" in shown(sound)
    doubtful = analysis.root_cause(told(checks=(check("verified"), check("not_verified"))), KOREAN)
    assert "<details open><summary>" in doubtful
    assert "(1/2건 검증됨)" in shown(doubtful)
    assert "주장 checkout waits" in shown(doubtful)
    assert "<details" not in analysis.root_cause(told(checks=()), ENGLISH)


def test_what_the_model_cost_is_told_where_one_was_asked() -> None:
    use = ModelUse(calls=2, failed=0, prompt_tokens=9_613, completion_tokens=500, dollars=0.0291, seconds=12.34)
    html = analysis.root_cause(report(model_use=use), ENGLISH)
    assert 'href="/incidents/inc_1/model-calls"' in html
    assert "Model calls : 2 · tokens: 9,613 in, 500 out · $0.0291 at list price · 12.3 s" in shown(html)
    assert "model-calls" not in analysis.root_cause(report(), ENGLISH)


def test_many_findings_are_folded_away_and_none_is_lost() -> None:
    (one,) = report().evidence
    many = tuple(one.model_copy(update={"id": f"E{n}"}) for n in range(1, 15))
    open_, _, folded = analysis.evidence(report(evidence=many), ENGLISH).partition("<details><summary>2 more findings")
    assert [f'data-evidence="E{n}"' in open_ for n in (1, 12, 13)] == [True, True, False]
    assert [f'data-evidence="E{n}"' in folded for n in (12, 13, 14)] == [False, True, True]
    assert "more findings" not in analysis.evidence(report(evidence=many[:12]), ENGLISH)


def test_status_and_severity_speak_the_language() -> None:
    assert shown(analysis.summary(report(), KOREAN)).startswith("결정 대기")
    assert "심각" in shown(analysis.summary(report(), KOREAN))


def test_a_contradiction_stands_before_the_explanation() -> None:
    html = analysis.root_cause(told(contradicts="ranking says db", mechanism="the pool is full"), ENGLISH)
    assert 'class="notice"' in html
    words = shown(html)
    assert "The analysis and the ranking disagree. ranking says db the pool is full" in words
    assert "disagree" not in shown(analysis.root_cause(told(contradicts=""), ENGLISH))


def test_a_text_in_another_language_says_so() -> None:
    assert "본문 언어: 영어" in shown(analysis.root_cause(told(language="en"), KOREAN))
    assert "본문 언어" not in shown(analysis.root_cause(told(language="ko"), KOREAN))


def test_who_wrote_it_is_told_in_words() -> None:
    assert "by the rules engine no key" in shown(
        analysis.root_cause(told(engine="rules", engine_note="no key"), ENGLISH)
    )
    assert "작성: gpt-4o" in shown(analysis.root_cause(told(engine="gpt-4o"), KOREAN))


def test_what_an_analyst_asked_for_is_told_from_what_was_collected() -> None:
    assert "asked for by the analyst payment-service" in shown(analysis.evidence(report(), ENGLISH))
    plain = report().evidence[0].model_copy(update={"asked": ""})
    assert "asked for" not in shown(analysis.evidence(report(evidence=(plain,)), ENGLISH))


def test_options_tell_what_they_are_for_and_how_it_went_before() -> None:
    words = shown(actions.options(report("resolved 3 of 4"), offers(), KOREAN))
    assert "최소 위험 위험도: 낮음" in words
    assert "과거 실적: resolved 3 of 4" in words
    plain = option("x").model_copy(update={"intent": None, "track_record": ""})
    words = shown(actions.options(report(options=(plain,)), offers(), ENGLISH))
    assert "least risk" not in words
    assert "Track record" not in words


def test_nothing_known_yet_says_so() -> None:
    nothing: dict[str, object] = dict.fromkeys(
        ("evidence", "suspects", "edges", "impact", "gaps", "options", "history"), ()
    )
    bare = report().model_copy(
        update=nothing | {"status": "received", "root_cause": None, "assessment": None, "plan_note": ""}
    )
    assert "Not analysed yet" in shown(analysis.root_cause(bare, ENGLISH))
    empty = [analysis.evidence(bare, ENGLISH), analysis.impact(bare, ENGLISH), analysis.gaps(bare, ENGLISH)]
    empty += [analysis.assessment(bare, ENGLISH), analysis.topology(bare, ENGLISH)]
    assert empty == [""] * 5
    assert actions.options(bare, offers(), ENGLISH) == ""
    assert results(bare, [], [], ENGLISH) == ""


def test_an_unsure_assessment_says_so_in_both_languages() -> None:
    unsure = report()
    words = shown(analysis.assessment(unsure, ENGLISH))
    assert "something is wrong 97% sure that anything is wrong" in words
    assert "41% chance that the first suspect is the cause: payment-service" in words
    assert "Not sure of the cause." in words
    assert "Affected components checkout" in words
    assert "원인을 확신할 수 없습니다" in shown(analysis.assessment(unsure, KOREAN))
    sure = Assessment(state="recovered", trouble=0.9, certainty=0.8, abstains=False)
    calm = shown(analysis.assessment(report(assessment=sure), ENGLISH))
    assert "recovered by itself" in calm
    assert "Not sure" not in calm


def test_causes_that_explain_it_together_are_all_named() -> None:
    two = tuple(Suspect(component=name, score=0.5, findings=(), affected=("web",)) for name in ("db", "cache"))
    words = shown(analysis.assessment(report(suspects=two, causes=("cache", "db")), ENGLISH))
    assert "Only together do they explain it db cache" in words
    assert "Affected components web" in words


def test_the_topology_has_the_path_and_speaks_the_language() -> None:
    assert "suspect 1" in shown(analysis.topology(report(), ENGLISH))
    assert "후보 1" in shown(analysis.topology(report(), KOREAN))


def test_the_first_findings_have_charts_and_the_others_lead_to_theirs() -> None:
    first = report().evidence[0]
    many = tuple(first.model_copy(update={"id": f"E{n}"}) for n in range(1, 9))
    dull = first.model_copy(update={"id": "E9", "points": ()})
    html = analysis.evidence(report(evidence=(*many, dull), unlisted=7), ENGLISH)
    assert html.count("<svg") == 6
    assert 'href="/incidents/inc_1/pictures/E7.svg?lang=en"' in html
    assert "pictures/E6.svg" not in html
    assert "pictures/E9.svg" not in html
    assert "and 7 more that say little" in shown(html)


def test_options_show_why_they_cannot_run_and_what_was_tried() -> None:
    words = shown(actions.options(report(), offers(), ENGLISH))
    assert "a deployment is in flight" in words
    assert "tried: unchanged" in words
    assert "Expected effects: p95, within 10 min p95 <= 273 ms , now 4,820 ms" in words
    assert "Plan revision abc123" in words


def test_the_confirmation_has_every_operation_and_the_revision() -> None:
    words = shown(actions.confirmation(report(), verdict("1"), asked(), ENGLISH))
    assert "ecs.scale_service service =payment-service" in words
    assert "Plan revision abc123" in words
    assert "Nothing is run" in shown(actions.confirmation(report(), verdict("manual"), asked(), ENGLISH))
    again = verdict("re_analyze", hint="look at the cache")
    assert "look at the cache" in shown(actions.confirmation(report(), again, asked(), ENGLISH))


def test_results_tick_in_from_the_ledger() -> None:
    two = option("scale").model_copy(update={"steps": option("scale").steps * 3})
    decision = DecisionMade(plan_revision="abc", choice="1", by="kim", at=AT)
    made = report(status="verifying", options=(two,), decisions=(decision,))
    told = {"status": "succeeded", "detail": "8 of 8 tasks healthy", "request_ids": ["req-7"]}
    done = {"ordinal": 1, "operation": "ecs.scale_service", **told}
    rows = [
        {"plan_revision": "abc", "ordinal": 1, "undo": False, "result": done},
        {"plan_revision": "abc", "ordinal": 2, "undo": False, "result": None},
        {"plan_revision": "earlier", "ordinal": 3, "undo": False, "result": done},
    ]
    late = event("verification", "1 of 2 expected effects met", "ActionExecutor", checks=["p95 201 ms"])
    early = dict(late) | {"at": AT - timedelta(minutes=9), "message": "of the attempt before"}
    words = shown(results(made, rows, [early, late], ENGLISH))
    assert "succeeded 1." in words
    assert "running 2." in words
    assert "waiting 3." in words
    assert "req-7" in words
    assert "1 of 2 expected effects met" in words
    assert "of the attempt before" not in words


def test_a_finished_execution_shows_before_after_and_verdict() -> None:
    execution = Execution(
        plan_revision="abc",
        choice="1",
        title="Scale out",
        results=(StepResult(ordinal=1, operation="ecs.scale_service", status="succeeded"),),
        verification=Verification(
            verdict="resolved", checks=(EffectCheck(effect=effect(), status="met", before=4820, after=201),)
        ),
    )
    words = shown(results(report(status="resolved", executions=(execution,)), [], [], ENGLISH))
    assert "Verdict: resolved" in words
    assert "met p95 p95 4,820 ms 201 ms <= 273 ms" in words


def test_the_list_pages_and_an_empty_one_says_what_to_do() -> None:
    assert "Datadog webhook" in shown(overview.incident_list([], "en", older=None, paged=False, alerts={}))
    row = report().model_dump() | {"id": "inc_1", "opened_by": "kim"}
    first = overview.incident_list([row], "ko", older=overview.cursor(row), paged=False, alerts={})
    assert 'href="?incident=inc_1&amp;lang=ko"' in first
    assert "before=" in first
    assert overview.position(overview.cursor(row)) == (AT, "inc_1")


def test_a_row_tells_how_many_alerts_and_whether_it_waits() -> None:
    row = report(status="received", admitted_at=None, flaps=2).model_dump() | {"id": "inc_1", "opened_by": "kim"}
    listed = shown(overview.incident_list([row], "en", older=None, paged=False, alerts={"inc_1": 3, "inc_2": 9}))
    assert "waiting payment-service inc_1 · 3 alerts · came back 2 times" in listed
    assert "received" not in listed


def alert_of(**changes: object) -> AlertOf:
    base = {"title": "p95 latency", "service": "checkout", "source": "datadog", "state": "firing", "since": AT}
    return AlertOf.model_validate(base | changes)


def test_each_alert_says_why_it_is_here() -> None:
    seen = (
        alert_of(url="https://app.datadoghq.com/monitors/1"),
        alert_of(
            title="errors", state="recovered", merge_reason="calls payment-service", score=0.75, url="http://am/1"
        ),
        alert_of(url="javascript:alert(1)"),
    )
    html = analysis.alerts(report(alerts=seen, alert_count=60), ENGLISH)
    words = shown(html)
    assert "Alerts (60)" in words
    assert "firing p95 latency open checkout · datadog · since 2024-12-20 09:15:00 opened this incident" in words
    assert "recovered errors open" in words
    assert "calls payment-service (score 0.75)" in words
    assert "and 57 more" in words
    assert html.count("href=") == 2
    assert "알림 (3)" in shown(analysis.alerts(report(alerts=seen, alert_count=3), KOREAN))
    assert analysis.alerts(report(), ENGLISH) == ""


def test_the_header_counts_the_alerts() -> None:
    assert "3 alerts · came back once · inc_1" in shown(analysis.summary(report(alert_count=3, flaps=1), ENGLISH))
    assert "알림 1건 · 4번 재발" in shown(analysis.summary(report(alert_count=1, flaps=4), KOREAN))


def test_an_incident_that_waits_says_why_and_runs_nothing() -> None:
    waiting = report("silenced by kim", status="received", admitted_at=None)
    assert {s.state for s in steps(waiting, [])} == {"waiting"}
    html = analysis.summary(waiting, ENGLISH)
    assert 'class="notice warn" role="status">The investigation has not begun.\nsilenced by kim</div>' in html
    assert "has not begun" not in analysis.summary(report(status="received"), ENGLISH)


@pytest.mark.parametrize("cursor", [None, "", "%%%", "abc", "aGVsbG8=", "한"])
def test_a_cursor_that_is_not_ours_is_the_first_page(cursor: str | None) -> None:
    assert overview.position(cursor) is None


def test_both_languages_have_every_label() -> None:
    assert set(ENGLISH) == set(KOREAN)
    assert all(ENGLISH.values())
    assert all(KOREAN.values())
    assert [language(x) for x in ("ko", "en", "xx", None)] == ["ko", "en", "en", "en"]
    assert [language(x, "ko") for x in ("en", "xx", None)] == ["en", "ko", "ko"]


@pytest.mark.parametrize(
    "words", ["2024-12-20 09:15:00", "2024-12-20T09:15:00Z", "2024-12-20T18:15:00+09:00", " 2024-12-20T09:15:00 "]
)
def test_a_time_without_offset_is_utc(words: str) -> None:
    assert parse_time(words) == AT


@pytest.mark.parametrize("words", ["", "yesterday", "2024-13-01 00:00:00"])
def test_a_time_that_is_none_is_refused(words: str) -> None:
    with pytest.raises(ValueError, match=r"isoformat|month"):
        parse_time(words)
