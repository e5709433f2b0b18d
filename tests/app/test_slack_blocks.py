"""Our messages are what Slack takes, whatever stands in alerts and logs, and nothing of that takes effect."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slack_sdk.models.blocks import Block as SlackBlock
from slack_sdk.models.views import View

from app.intake.slack import CHOSEN, DECIDE, HINT
from app.notifiers import _slack_blocks as blocks
from app.notifiers._slack_analysis import root_cause, sparkline
from app.notifiers._slack_blocks import Message, Story
from app.notifiers._slack_plan import hint_form, plan
from app.notifiers._slack_rich import Block, bounded, cut, inert, linkable, rich, section, texts, words
from app.notifiers._slack_thread import Thread, due, standing
from app.simulator.slack_blocks import MOST_IN_A_VIEW, complaints
from app.slack_texts import TEXTS
from graph.memory import remembering
from graph.state import Evidence, Language, PastIncident
from tests.app.slack_stories import INCIDENT, NAMES, Life, investigated, lives

LANGUAGES: tuple[Language, ...] = ("en", "ko")
HOSTILE = (
    "@channel @here @everyone <!channel> <!here> <@U024BE7LH> <#C024BE91L> <https://evil.example|https://bank.example>"
    " [text](https://evil.example) *bold* _italic_ ~gone~ `code` ```block``` > quote :fire: &lt;!channel&gt;"
    " javascript:x \u202egnp.exe \x00\x1b[31m # head | a | b | {% raw %} <script>alert(1)</script> {0} {} %s"
)


def told(life: Life) -> list[Message]:
    """All that a thread holds that begins at this stage."""
    telling = life.telling()
    thread = Thread().noting(telling.event)
    story = Story(telling.report, telling.url, telling.why, {life.incident["service"]: "payments"})
    posts = list(due(story, thread, telling.event, "m"))
    first = blocks.parent(story)
    return [first, *(post.message for post in posts)]


def elements(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in it, the blocks themselves included."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from elements(item)


def buttons(message: Message) -> list[dict[str, Any]]:
    return [e for e in elements(message.blocks) if e.get("type") == "button"]


def assert_slack_takes(message: Message) -> None:
    sent = json.loads(json.dumps(list(message.blocks)))
    assert complaints(sent) == []
    for block in sent:
        parsed = SlackBlock.parse(block)
        assert parsed is not None
        assert parsed.to_dict()["type"] == block["type"]
    assert 0 < len(sent) <= 50
    assert sum(map(len, texts(sent))) <= 14_000
    assert 0 < len(message.text) <= 1_000
    assert 0 < len(message.as_text) <= 4_000


def assert_inert(message: Message) -> None:
    """Nothing that Slack would read as markup: text is plain, or of rich text; links go where we say."""
    for element in elements(message.blocks):
        assert element.get("type") not in ("mrkdwn", "markdown", "broadcast", "user", "usergroup", "channel", "emoji")
        if element.get("type") == "plain_text":
            assert element["emoji"] is False
        if element.get("type") == "link":
            assert linkable(element["url"])
            assert "evil" not in element["url"]
    for said in (message.text, message.as_text):
        assert "<" not in said
        assert ">" not in said
        assert "@channel" not in said
        assert "@here" not in said


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", NAMES)
def test_slack_takes_every_stage_of_every_scenario(name: str, language: Language) -> None:
    for stage, life in lives(investigated(name, language), language).items():
        messages = told(life)
        assert messages, stage
        for message in messages:
            assert_slack_takes(message)
            assert_inert(message)


def test_korean_incidents_are_korean_throughout() -> None:
    for stage, life in lives(investigated("001-black-friday", "ko"), "ko").items():
        for message in told(life):
            assert any("가" <= sign <= "힣" for sign in message.text), (stage, message.text)
            labels = {e["text"]["text"] for e in buttons(message)}
            assert all(any("가" <= sign <= "힣" for sign in label) for label in labels), stage


# --- what stands where ---


def planned(language: Language = "en") -> Life:
    life = Life(investigated("001-black-friday"), language)
    life.analyse()
    return life


def of_plan(life: Life) -> Message:
    return plan(Story(life.report, life.telling().url))


def choices(message: Message) -> dict[str, str]:
    """Value of each button by the end of its action_id."""
    return {b["action_id"].rpartition(":")[2]: b["value"] for b in buttons(message)}


def test_the_buttons_name_what_they_decide() -> None:
    life = planned()
    found = choices(of_plan(life))
    assert list(found) == ["1", "2", "3", "manual", HINT]
    assert all(CHOSEN.fullmatch(value) for value in found.values())
    assert found["2"] == f"{INCIDENT}:{life.plan.revision}:2"
    assert found[HINT] == f"{INCIDENT}:{life.plan.revision}:re_analyze"


def test_each_button_is_confirmed_with_exactly_what_runs() -> None:
    life = planned()
    by_action = {b["action_id"]: b for b in buttons(of_plan(life))}
    for nth, option in enumerate(life.plan.options, 1):
        asked = by_action[f"{DECIDE}:{nth}"]["confirm"]["text"]["text"]
        for step in option.steps:
            assert step.operation in asked
            assert all(f"{name}={value}"[:40] in asked for name, value in step.params.items())
    assert "confirm" in by_action[f"{DECIDE}:manual"]
    assert "confirm" not in by_action[HINT]  # its form asks


def test_options_that_cannot_run_have_no_button() -> None:
    life = planned()
    options = list(life.plan.options)
    broken = options[0].steps[0].model_copy(update={"infeasible": "the service is not there"})
    options[0] = options[0].model_copy(update={"steps": (broken, *options[0].steps[1:])})
    needs = options[1].needs.model_copy(update={"refused": ("freeze window",)})
    options[1] = options[1].model_copy(update={"needs": needs})
    life.analyses[-1]["plan"]["options"] = [o.model_dump(mode="json") for o in options]
    message = of_plan(life)
    assert list(choices(message)) == ["3", "manual", HINT]
    said = " ".join(texts(list(message.blocks)))
    assert "cannot run: the service is not there" in said
    assert "freeze window" in said


def test_an_expired_plan_offers_a_new_one() -> None:
    life = planned()
    life.happen("expired", "nobody decided")
    assert list(choices(of_plan(life))) == ["re_plan", "manual", HINT]
    life.decide("re_plan")
    life.become("awaiting_decision", plan_revision=life.plan.revision)
    assert "1" in choices(of_plan(life))  # a new plan is none that expired


def test_the_last_round_offers_no_other_analysis() -> None:
    life = planned()
    life.incident["round"] = 3
    assert HINT not in choices(of_plan(life))


def test_after_a_decision_the_buttons_are_gone_and_who_chose_is_told() -> None:
    life = planned()
    life.decide("1", by="kim")
    life.finish(1)
    message = of_plan(life)
    assert buttons(message) == []
    assert "kim chose option 1 (Slack; " in "".join(texts(list(message.blocks)))


def test_what_has_not_begun_can_be_taken_back() -> None:
    life = planned()
    life.decide("1")
    assert list(choices(of_plan(life))) == ["withdraw"]
    life.finish(1)
    assert choices(of_plan(life)) == {}


def test_an_approval_that_waits_can_be_taken_back_and_is_told() -> None:
    life = planned()
    life.approve("2", "ann")
    message = of_plan(life)
    assert list(choices(message)) == ["1", "2", "3", "manual", HINT, "withdraw"]
    assert "ann approved option 2." in "".join(texts(list(message.blocks)))


def test_undo_is_offered_while_something_is_in_place() -> None:
    life = planned()
    life.decide("1")
    life.execute("improved")
    life.analyse()
    assert "undo" in choices(of_plan(life))
    life.executions[-1]["body"]["undone"] = life.executions[-1]["body"]["results"]
    assert "undo" not in choices(of_plan(life))


def test_high_risk_is_red_and_takes_two() -> None:
    life = planned()
    option = life.plan.options[0]
    changed = option.model_copy(
        update={"risk": "high", "needs": option.needs.model_copy(update={"approvals": 2})}
    ).model_dump(mode="json")
    life.analyses[-1]["plan"]["options"][0] = changed
    first = buttons(of_plan(life))[0]
    assert first["style"] == "danger"
    assert first["text"]["text"].startswith("Approve 1: ")
    assert first["confirm"]["title"]["text"] == "Approve option 1? It takes 2 different people"
    assert first["confirm"]["confirm"]["text"] == "Approve"


def test_the_first_message_tells_state_cause_owner_and_link() -> None:
    life = planned()
    cause = life.report.root_cause
    assert cause
    assert cause.component
    life.incident["service"] = "checkout"
    owners = {cause.component: "payments", "checkout": "storefront"}
    story = Story(life.report, "https://autopilot.example/ui/?incident=inc", "because", owners)
    message = blocks.parent(story)
    said = "".join(texts(list(message.blocks)))
    assert "awaiting decision" in said
    assert cause.title in said
    assert f"payments, of {cause.component}, storefront, of checkout" in said
    assert [e["url"] for e in elements(message.blocks) if e.get("type") == "link"] == [story.url]


def test_the_analysis_tells_numbers_and_links_of_findings() -> None:
    life = planned()
    evidence = life.analyses[-1]["evidence"]["findings"]
    for finding in evidence:
        finding["link"] = "https://app.datadoghq.com/x?q=1"
    message = root_cause(Story(life.report, "https://a.example"))
    links = [e["url"] for e in elements(message.blocks) if e.get("type") == "link"]
    assert links.count("https://app.datadoghq.com/x?q=1") >= 5
    for finding in evidence:
        finding["link"] = "http://evil.example"
    assert_inert(root_cause(Story(life.report, "https://a.example")))


def test_earlier_incidents_are_told_apart_and_linked_where_they_are_ours() -> None:
    life = planned()
    evidence = Evidence.model_validate(life.analyses[-1]["evidence"])
    past = [
        PastIncident(incident_id=name, at="2026-10-01", component="db", category="", title="db was slow", helped="more")
        for name in ("inc_0BEFORE", "OPS-7 <!channel>")
    ]
    remembered = remembering(evidence, past, life.incident["occurred_at"])
    life.analyses[-1]["evidence"] = remembered.model_dump(mode="json")
    message = root_cause(Story(life.report, f"https://a.example/ui/?incident={INCIDENT}"))
    assert_slack_takes(message)
    assert_inert(message)
    said = "".join(texts(list(message.blocks)))
    assert "Similar incidents" in said
    assert "OPS-7 <!channel>" in said.replace("‹", "<").replace("›", ">")
    links = {e["url"] for e in elements(message.blocks) if e.get("type") == "link"}
    assert "https://a.example/ui/?incident=inc_0BEFORE" in links
    assert not any("OPS" in url for url in links)


def test_where_no_picture_can_be_attached_the_course_is_in_letters() -> None:
    story = Story(planned().report, "https://a.example", sparkline=True)
    drawn = [said for said in texts(list(root_cause(story).blocks)) if set(said) <= set("▁▂▃▄▅▆▇█")]
    assert drawn
    assert all(len(said) <= 32 for said in drawn)


def test_a_sparkline_shows_the_course() -> None:
    assert sparkline([]) == ""
    assert sparkline([5.0, 5.0]) == "▁▁"
    assert sparkline(list(range(8))) == "▁▂▃▄▅▆▇█"
    assert sparkline([0.0] * 100 + [9.0] * 100) == "▁" * 16 + "█" * 16


# --- whatever others write ---


def poisoned(text: str) -> Life:
    """An incident in which every text of others is this."""
    life = Life(investigated("001-black-friday"), title=text)
    life.incident |= {"status_reason": text, "environment": text}
    life.analyse()
    body = life.analyses[-1]
    for finding in body["evidence"]["findings"]:
        finding |= {"summary": text, "excerpt": text, "component": text or "c", "link": text}
    body["root_cause"] |= {"title": text, "mechanism": text, "impact": text, "unknowns": [text], "engine": text}
    for claim in body["root_cause"]["claims"]:
        claim |= {"text": text, "quote": text, "verified": False, "complaint": text}
    for option in body["plan"]["options"]:
        option |= {"title": text, "description": text, "undo": text, "track_record": text, "why": [text]}
        for step in option["steps"]:
            step |= {"preview": text, "params": {"x": text}, "changes": [{"what": text, "before": text, "after": text}]}
    body["plan"]["note"] = text
    life.approve("1", text)
    life.happen("note", f"{text}: {text}", {"by": text})
    return life


@settings(deadline=None, max_examples=60)
@given(st.one_of(st.text(max_size=400), st.sampled_from((HOSTILE, HOSTILE * 40, "A" * 9_000, "@channel " * 900))))
def test_hostile_text_is_taken_and_takes_no_effect(text: str) -> None:
    life = poisoned(text)
    for message in told(life):
        assert_slack_takes(message)
        assert_inert(message)
    life.decide("1", by=text, words=text)
    for message in told(life):
        assert_slack_takes(message)
        assert_inert(message)


def test_a_click_works_whatever_the_option_is_called() -> None:
    found = choices(of_plan(poisoned(HOSTILE)))
    assert all(CHOSEN.fullmatch(value) for value in found.values())


# --- the smallest pieces ---


@given(st.text(max_size=200), st.integers(min_value=2, max_value=60))
def test_what_is_cut_is_short_enough_and_says_so(text: str, most: int) -> None:
    kept = cut(text, most)
    assert len(kept) <= most
    assert kept == text or kept.endswith("…")


def test_it_is_cut_between_words() -> None:
    assert cut("payment service is slow today", 24) == "payment service is slow…"
    assert cut("가" * 30, 10) == "가" * 9 + "…"
    assert cut("abcde\u0301fgh", 6) == "abcd…"  # an accent stays with its letter


def test_text_beside_the_blocks_calls_nobody() -> None:
    assert inert("<!channel> @here & `x`") == "&lt;!channel&gt; @\u2060here &amp; 'x'"


def test_blanks_between_pieces_stay() -> None:
    joined = "".join(texts(section(words("a "), " ", words(" b"), " · ", words(""))))
    assert joined == "a   b · "


def test_what_utf_8_cannot_hold_is_replaced() -> None:
    assert texts(section("a\ud800b\x00c\u202ed")) == ["a?b c d"]


def test_empty_pieces_are_left_out() -> None:
    assert rich(section(), section("", words(""))) == []


def test_too_much_is_left_out_with_a_link_and_buttons_stay() -> None:
    many: list[Block] = [block for _ in range(60) for block in rich(section("x" * 500))]
    kept = bounded([*many, {"type": "actions", "elements": []}], "https://a.example", "the rest")
    assert len(kept) < 50
    assert [b["type"] for b in kept].count("actions") == 1
    assert [e["url"] for e in elements(kept) if e.get("type") == "link"] == ["https://a.example"]


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "https://", "https://a b", "https://a|b", "ftp://a", "https://[", "https://a\n"]
)
def test_what_is_no_address_is_no_link(url: str) -> None:
    assert not linkable(url)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_form_for_a_hint_is_what_slack_takes(language: Language) -> None:
    value = f"{INCIDENT}:0123456789abcdef:re_analyze https://hooks.slack.com/actions/T1/2/3"
    view = hint_form(TEXTS[language], value)
    assert complaints(view["blocks"], MOST_IN_A_VIEW) == []
    View(**view).validate_json()  # type: ignore[arg-type]
    parts: Sequence[str] = [view[name]["text"] for name in ("title", "submit", "close")]  # type: ignore[index]
    assert all(0 < len(said) <= 24 for said in parts)


def test_an_older_plan_keeps_its_titles_but_no_buttons() -> None:
    life = planned()
    telling, first = life.telling(), of_plan(life)
    story = Story(telling.report, telling.url)
    thread = Thread().posted("incident", "1.0").offering(story).posted(f"plan:{life.plan.revision}", "1.1", first)
    titles = [f"{nth}. {option.title}" for nth, option in enumerate(life.plan.options, 1)]
    life.decide("re_analyze", words="db, not cache")
    life.analyse_again()
    [_, edited] = standing(Story(life.report, telling.url), thread)
    assert buttons(edited.message) == []
    said = texts(list(edited.message.blocks))
    assert [*titles, "db, not cache"] == [one for one in said if one in (*titles, "db, not cache")]
    assert any("kim chose" in one for one in said)


def test_the_analysis_says_each_thing_once() -> None:
    life = planned()
    cause = life.report.root_cause
    assert cause
    said = texts(list(root_cause(Story(life.report, "https://a.example")).blocks))
    assert any(cause.mechanism.startswith(one) and len(one) > 60 for one in said)
    for claim in cause.claims:
        assert " ".join(said).count(claim.text[:60]) == 1
