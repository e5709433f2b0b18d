"""The draft of a postmortem: what data shows, each statement with what it rests on, and nothing else."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from app.opinions import Opinions, Said
from app.postmortem import texts as postmortem_texts
from app.postmortem.draft import postmortem
from app.postmortem.lessons import Background, Draft, Lesson, action_items, duration, went_badly, went_well
from app.report import DecisionMade, ModelUse, NoteMade, Report, TimelineEntry
from collectors.base import Document, Gap, GapReason, SeriesRef
from graph.state import (
    ActionOption,
    Claim,
    EffectCheck,
    Execution,
    ExpectedEffect,
    Finding,
    Hop,
    ImpactFigure,
    PastIncident,
    RootCause,
    StepResult,
    Suspect,
    Verification,
)

AT = datetime(2024, 12, 20, 9, 15, tzinfo=UTC)
HOSTILE = "~~~\n# <b onclick=x>](http://evil) | @channel <!here> `x` ![i](http://evil/i.png) [link](http://evil)"
ADDRESS = "https://pilot.example"


def minutes(number: float) -> datetime:
    return AT + timedelta(minutes=number)


def finding(eid: str, component: str = "db", after: float = 0, **changes: object) -> Finding:
    said: dict[str, object] = {
        "id": eid,
        "kind": "metric",
        "component": component,
        "signal": "connections",
        "at": minutes(after),
        "summary": f"{component} connections rose from 20 to 100",
        "source": "datadog",
    }
    return Finding.model_validate(said | changes)


def step(operation: str, status: str = "succeeded", **changes: object) -> StepResult:
    said = {"ordinal": 1, "operation": operation, "status": status, "made": status == "succeeded"}
    return StepResult.model_validate(said | {"finished_at": minutes(12)} | changes)


def execution(verdict: str = "resolved", *results: StepResult, **changes: object) -> Execution:
    effect = ExpectedEffect(
        ref=SeriesRef(source="datadog", component="db", metric="connections", query="q"),
        comparator="<=",
        value=50,
        within_minutes=5,
    )
    met = "met" if verdict == "resolved" else "not_met"
    said = {
        "plan_revision": "abc",
        "choice": "1",
        "title": "Double the tasks",
        "results": results or (step("scale_ecs_service"),),
        "verification": Verification.model_validate(
            {"verdict": verdict, "checks": (EffectCheck(effect=effect, status=met, before=100, after=40),)}
        ),
    }
    return Execution.model_validate(said | changes)


def option(title: str, intent: str, undo: str = "") -> ActionOption:
    return ActionOption.model_validate(
        {"title": title, "description": "", "intent": intent, "risk": "low", "minutes": 1, "steps": (), "undo": undo}
        | {"why": ("E1",)}
    )


CAUSE = RootCause(
    component="db",
    category="connection_pool_exhaustion",
    title="db runs out of connections",
    mechanism="All are taken.",
    claims=(Claim(text="It rose", evidence=("E1",), verified=True),),
    unknowns=("Who holds them",),
    confidence="high",
)
HISTORY = (
    ("opened", 8, "Alert from datadog: p95"),
    ("collector_started", 8.1, "datadog: reading"),
    ("root_cause", 9, "db runs out of connections (high confidence, by rules)"),
    ("status", 9.1, "awaiting decision"),
    ("status", 9.2, "executing"),
    ("verdict", 19, "Double the tasks: resolved"),
    ("status", 20, "resolved"),
)


def report(**changes: object) -> Report:
    said: dict[str, object] = {
        "incident_id": "inc_1",
        "title": "p95 of shop",
        "service": "shop",
        "environment": "production",
        "severity": "critical",
        "status": "resolved",
        "occurred_at": AT,
        "opened_at": AT,
        "round": 1,
        "root_cause": CAUSE,
        "suspects": (Suspect(component="db", score=0.9, findings=("E1",), affected=("shop",)),),
        "evidence": (finding("E1"), finding("E2", "shop", 2, link="https://dd.example/x?y=(1)")),
        "impact": (ImpactFigure(name="failed requests", value=5800, unit="requests", window="w", evidence=("E2",)),),
        "options": (option("Double the tasks", "mitigate", "Put them back"), option("A larger pool", "fix")),
        "decisions": (DecisionMade(plan_revision="abc", choice="1", by="kim", at=minutes(10), note="go"),),
        "executions": (execution(),),
        "documents": (Document(title="runbook", text="x"),),
        "history": tuple(
            TimelineEntry(
                id=n,
                at=minutes(after),
                kind=kind,
                message=message,
                status=message.replace(" ", "_") if kind == "status" else "",
            )
            for n, (kind, after, message) in enumerate(HISTORY)
        ),
    }
    return Report.model_validate(said | changes)


def said(about: str, verdict: str, **changes: object) -> Said:
    given = {"about": about, "verdict": verdict, "by": "ann", "role": "admin", "at": minutes(60)}
    return Said.model_validate(given | changes)


def past(**changes: object) -> PastIncident:
    known = {
        "incident_id": "inc_0",
        "at": "2023-11-24",
        "component": "db",
        "category": "connection_pool_exhaustion",
        "title": "t",
        "remedy": "Double the tasks (scale_ecs_service)",
        "verdict": "resolved",
    }
    return PastIncident.model_validate(known | changes)


def texts(lessons: Sequence[Lesson]) -> list[str]:
    return [lesson.text for lesson in lessons]


def section(text: str, title: str) -> str:
    return text.split(f"## {title}\n")[1].split("\n## ")[0]


# --- the draft as a whole ---


def test_a_draft_has_every_section_in_order() -> None:
    headings = re.findall(r"^## (.*)$", postmortem(report()), re.MULTILINE)
    assert headings == [
        "Summary",
        "Impact",
        "Timeline",
        "Root cause",
        "What was done, and whether it worked",
        "What went well",
        "What went badly",
        "Action items",
        "Evidence that is named above",
    ]


def test_all_of_its_labels_are_korean_in_a_korean_one() -> None:
    text = postmortem(report(language="ko"))
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert len(headings) >= 10
    assert all(re.search("[가-힣]", heading) for heading in headings if "Double the tasks" not in heading)
    assert "- [ ] 원인 해결책으로 제안되었으나 실행하지 않은 «A larger pool» 검토" in text
    assert set(postmortem_texts.ENGLISH) == set(postmortem_texts.KOREAN)


def test_both_languages_fill_in_the_same_number_of_values() -> None:
    for name, english in postmortem_texts.ENGLISH.items():
        assert english.count("{}") == postmortem_texts.KOREAN[name].count("{}"), name


def test_evidence_is_linked_where_the_api_has_an_address() -> None:
    text = postmortem(report(), address=f"{ADDRESS}/")
    assert f"- It rose [[E1]({ADDRESS}/incidents/inc_1/evidence/E1)]" in text
    assert f"| 5,800 requests | w | [E2]({ADDRESS}/incidents/inc_1/evidence/E2) |" in text
    assert "[open](https://dd.example/x?y=%281%29)" in text
    assert "- It rose [E1]\n" in postmortem(report())


def test_the_timeline_tells_who_did_what_from_the_first_sign_to_the_end() -> None:
    rows = [line.split(" | ")[0].strip("| ") for line in section(postmortem(report()), "Timeline").splitlines()[3:]]
    assert rows == sorted(rows)
    table = section(postmortem(report()), "Timeline")
    assert "| 2024-12-20 09:15:00 | first sign | datadog | db connections rose from 20 to 100 [E1] |" in table
    assert "| 2024-12-20 09:25:00 | decision | kim | chose **1** (REST): go · plan `abc` |" in table
    assert "| 2024-12-20 09:35:00 | status | AIOps Auto Pilot | resolved |" in table
    assert "reading" not in table
    assert "executing" not in table


def test_how_long_each_stage_took() -> None:
    table = section(postmortem(report()), "Summary")
    for label, took in (
        ("first sign until the alert was here", "8 min"),
        ("alert until the analysis was there", "1 min"),
        ("analysis until a decision", "1 min"),
        ("decision until the end", "10 min"),
        ("first sign until the end", "20 min"),
    ):
        assert re.search(rf"\| {label} \| .* \| {took} \|", table), label


@pytest.mark.parametrize(
    ("seconds", "english", "korean"),
    [(0, "0 s", "0초"), (61, "1 min 1 s", "1분 1초"), (3600, "1 h", "1시간"), (100_000, "27 h 46 min", "27시간 46분")],
)
def test_durations(seconds: int, english: str, korean: str) -> None:
    span = timedelta(seconds=seconds)
    assert duration(postmortem_texts.ENGLISH, span) == english
    assert duration(postmortem_texts.KOREAN, span) == korean


def test_what_is_not_known_says_so_and_nothing_is_made_up() -> None:
    empty = Report(
        incident_id="inc_1",
        title="t",
        service="shop",
        environment="production",
        severity="info",
        status="analyzing",
        occurred_at=AT,
        opened_at=AT,
    )
    text = postmortem(empty)
    for told in (
        "**The incident is not over: this is how it stands now.**",
        "No analysis is stored, so the cause is not known.",
        "How long it took: Not known.",
        "No figure of the impact was measured.",
        "No event is stored.",
        "Nothing was run by AIOps Auto Pilot, and nobody noted anything done by hand.",
        "The data suggests none.",
    ):
        assert told in text, told
    assert text.count("The data shows nothing of the kind.") == 2
    assert "Evidence that is named above" not in text


def test_an_end_that_is_not_one_is_not_told_as_one() -> None:
    draft = Draft(report(status="needs_attention", status_reason="no option is left"))
    assert not [name for name, _, _ in draft.stages if name in ("stage_ended", "stage_all")]
    assert "It could not be ended by what was proposed: no option is left" in texts(went_badly(draft))


# --- lessons ---


def test_what_went_well_is_what_was_measured_and_said() -> None:
    opinions = Opinions((said("report", "right"), said("option", "right", option=1, plan_revision="abc")))
    lessons = went_well(Draft(report(), Background(similar=[past()], feedback=opinions)))
    assert texts(lessons) == [
        "Every claim of the analysis (1) is verified against the evidence.",
        "People said that the analysis was right.",
        "People said that option 1 was right.",
        "«Double the tasks» resolved it: 1 of 1 expected effects were met.",
        "A similar incident was known, and its remedy worked here too.",
    ]
    assert [lesson.rests_on for lesson in lessons] == ["E1", "", "", "plan `abc`", "`inc_0`"]


def test_an_analysis_that_a_person_called_wrong_is_no_merit() -> None:
    opinions = Opinions((said("report", "wrong", component="cache", category="cache_failure"),))
    draft = Draft(report(), Background(feedback=opinions))
    assert not any("Every claim" in text for text in texts(went_well(draft)))
    assert "People said that the analysis was wrong." in texts(went_badly(draft))
    assert any("misled the analysis" in text for text in texts(action_items(draft)))
    assert draft.cause == ("cache", "cache_failure")
    text = postmortem(report(), Background(feedback=opinions))
    assert "People's feedback corrects the analysis: cache · cache\\_failure" in text
    assert "| feedback | ann | on the analysis: **wrong**; cause: cache · cache\\_failure |" in text


def test_what_went_badly_is_told_of_systems_not_of_people() -> None:
    doubtful = CAUSE.model_copy(update={"claims": (Claim(text="x", evidence=("E9",), complaint="no E9"),)})
    bad = report(
        round=2,
        flaps=2,
        root_cause=doubtful,
        gaps=(Gap(source="aws", reason=GapReason.FORBIDDEN, detail="no metrics", mend="give the role"),),
        executions=(execution("worse", step("scale_ecs_service"), step("restart", "failed", detail="timeout")),),
        model_use=ModelUse(calls=3, failed=1, prompt_tokens=1, completion_tokens=1, dollars=0, seconds=1),
        history=(*report().history, TimelineEntry(id=99, at=minutes(15), kind="escalation", message="m")),
    )
    told = texts(went_badly(Draft(bad, Background(similar=[past()]))))
    assert told == [
        "8 min passed between the first sign and the alert.",
        "The plan waited for a decision longer than the policy wants (escalation).",
        "It took 2 analyses.",
        "1 of 1 claims could not be verified against the evidence.",
        "1 of 3 calls of the model failed.",
        "«Double the tasks» did not resolve it: worse.",
        "The step `restart` ended as failed: timeout",
        "Could not be seen (aws, forbidden): no metrics",
        "It came back after a recovery: 2x.",
        "It has happened before.",
    ]
    assert not any("kim" in text for text in told)


def test_action_items_have_owners_and_say_where_there_is_none() -> None:
    gap = Gap(source="aws", reason=GapReason.FORBIDDEN, detail="no metrics", mend="give the role")
    owned = Background(owners={"db": "data", "shop": "storefront"})
    text = postmortem(report(gaps=(gap,), documents=()), owned)
    assert section(text, "Action items").strip().splitlines() == [
        "- [ ] Consider «A larger pool», which was proposed to fix the cause and was not run [E1] (owner: data)",
        "- [ ] Decide whether what «Double the tasks» changed stays; it was not undone. To undo it: Put them back"
        " [plan `abc`] (owner: data)",
        "- [ ] Let db alert earlier: connections [E1] (owner: data)",
        "- [ ] Open question: Who holds them (owner: data)",
        "- [ ] Make it visible: no metrics (give the role) [aws] (owner: not known, to be named)",
        "- [ ] Write a runbook on connection pool exhaustion of db: none was found that fits (owner: data)",
    ]
    assert "(owner: not known, to be named)" in postmortem(report())


def test_what_was_undone_is_not_in_place_and_what_could_not_be_is_urgent() -> None:
    back = report(executions=(execution("worse", undone=(step("scale_ecs_service"),)),))
    assert not any("was not undone" in text for text in texts(action_items(Draft(back))))
    assert "«Double the tasks» did not do what was expected, and what it changed was put back." in texts(
        went_well(Draft(back))
    )
    stuck = report(executions=(execution("worse", undone=(step("scale_ecs_service", "failed"),)),))
    assert texts(action_items(Draft(stuck)))[0] == "Put back by hand what the step `scale_ecs_service` changed"
    unknown = report(executions=(execution("worse", step("restart", "unknown", made=True)),))
    assert texts(action_items(Draft(unknown)))[0] == "Look whether the step `restart` was done: nobody knows"


def test_a_cause_that_was_only_mitigated_is_left_to_remove() -> None:
    mitigated = report(options=(option("Double the tasks", "mitigate"),))
    assert "Find and remove the cause of «db runs out of connections»: what was run only stops the pain" in texts(
        action_items(Draft(mitigated))
    )
    fixed = report(options=(option("Double the tasks", "fix"),))
    assert not any("cause of" in text or "Consider" in text for text in texts(action_items(Draft(fixed))))


def test_it_recovered_by_itself_only_where_nobody_did_anything() -> None:
    over = (*report().history, TimelineEntry(id=99, at=minutes(30), kind="resolved", message="The monitor says so"))
    alone = report(executions=(), decisions=(), history=over, status="closed")
    assert "It recovered by itself; nothing was changed for it." in texts(went_well(Draft(alone)))
    helped = alone.model_copy(update={"notes": (NoteMade(at=minutes(20), by="kim", text="restarted it"),)})
    assert not any("by itself" in text for text in texts(went_well(Draft(helped))))
    assert "kim: restarted it" in postmortem(helped)


def test_earlier_cases_that_were_wrong_or_other_are_no_repetition() -> None:
    for other in (past(wrong=True), past(component="cache"), past(category="bad_deploy")):
        assert Draft(report(), Background(similar=[other])).earlier == []
    imported = Draft(report(), Background(similar=[past(incident_id="imported_1")]), ADDRESS)
    assert went_badly(imported)[-1].rests_on == f"[`imported_1`]({ADDRESS}/knowledge/imported_1) (2023-11-24)"


# --- text of strangers ---

TOKENS = MarkdownIt("commonmark").enable("table")
HARMLESS = {"heading_open", "paragraph_open", "table_open", "bullet_list_open", "ordered_list_open", "blockquote_open"}


def hostile(text: str) -> Report:
    """Wherever somebody else's words may stand."""
    claim = Claim(text=text, evidence=("E1", text), quote=text, complaint=text)
    cause = CAUSE.model_copy(
        update={"title": text, "mechanism": text, "claims": (claim,), "unknowns": (text,), "contradicts": text}
        | {"component": text, "category": text, "impact": text}
        | {"path": (Hop(cause=text, effect=text, structural=True, statistical=True, temporal=True),)}
    )
    done = execution("worse", step(text, "failed", detail=text, request_ids=(text,)), title=text, plan_revision=text)
    return report(
        title=text,
        service=text,
        environment=text,
        status_reason=text,
        root_cause=cause,
        path=cause.path,
        suspects=(Suspect(component=text, score=0.9, findings=("E1",), affected=(text,)),),
        evidence=(finding("E1", text, summary=text, signal=text, source=text, link=f"https://x/{text}"),),
        impact=(ImpactFigure(name=text, value=1, unit=text, window=text, evidence=(text,)),),
        gaps=(Gap(source=text, reason=GapReason.EMPTY, detail=text, mend=text),),
        options=(option(text, "fix", text),),
        executions=(done, done.model_copy(update={"undone": done.results})),
        notes=(NoteMade(at=AT, by=text, text=text),),
        decisions=(DecisionMade(plan_revision=text, choice="1", by=text, at=AT, note=text),),
        history=tuple(TimelineEntry(id=n, at=AT, kind=kind, message=text) for n, kind in enumerate(("opened", "new"))),
        documents=(),
    )


BEHIND = Background(
    similar=[past(component=HOSTILE, category=HOSTILE, at=HOSTILE, incident_id=HOSTILE)],
    feedback=Opinions((said("report", "wrong", component=HOSTILE, category=HOSTILE, note=HOSTILE, helped=HOSTILE),)),
    owners={HOSTILE: HOSTILE},
)


def structure(text: str) -> tuple[set[str], set[str], int]:
    """Kinds of blocks and pieces, where links lead, and how many headings there are."""
    tokens = TOKENS.parse(text)
    pieces = [piece for token in tokens for piece in token.children or ()]
    kinds = {token.type for token in tokens} | {piece.type for piece in pieces}
    links = {str(piece.attrs["href"]) for piece in pieces if piece.type == "link_open"}
    return kinds, links, sum(token.type == "heading_open" for token in tokens)


@pytest.mark.parametrize("language", ["en", "ko"])
def test_text_of_strangers_takes_no_effect(language: str) -> None:
    evil = hostile(HOSTILE).model_copy(update={"language": language})
    text = postmortem(evil, BEHIND, address=ADDRESS)
    kinds, links, headings = structure(text)
    assert not kinds & {"html_block", "html_inline", "image", "fence", "code_block", "hr"}
    assert all(link.startswith((f"{ADDRESS}/", "https://x/")) for link in links)
    assert headings == 1 + 9 + len(evil.executions)
    prose = re.sub(r"(?<!\\)`[^`]*`|\]\([^)]*\)", "", text)  # in code and in an address nobody is called
    assert not re.search(r"(?<!\\)@channel", prose)


@settings(deadline=None)
@given(st.text(alphabet="`*_[]<>|#@~!\\-+=.() \n\tab1&:/", max_size=60))
def test_no_text_makes_a_heading_an_image_or_html(text: str) -> None:
    kinds, links, headings = structure(postmortem(hostile(text), address=ADDRESS))
    assert not kinds & {"html_block", "html_inline", "image", "fence", "code_block", "hr"}
    assert all(link.startswith((f"{ADDRESS}/", "https://x/")) for link in links)
    assert headings == 1 + 9 + 2
