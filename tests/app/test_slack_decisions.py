"""Clicks in Slack: decided once, by whom Slack says, told to nobody else, and never lost."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, get_args
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.db import create_pool
from app.desk import Reason
from app.intake.slack import Settings
from app.jobs import register_jobs, sweep
from app.queue import SLACK_DECISION, create_queue
from app.runner import Runner
from app.slack_decisions import NotTold, answer_click, decide_click
from app.slack_texts import ENGLISH, KOREAN, KOREAN_REASONS
from tests.app.clicking import SlackOffice, block_actions, slack_id, view_submission
from tests.app.deciding import ANN, BOB, KIM, Office, offices
from tests.app.doors import OPERATORS, key_of, slack_office
from tests.app.listening import listening


@pytest.fixture
async def slack(database_url: str) -> AsyncIterator[SlackOffice]:
    async with offices(database_url) as office:
        desk = replace(office.desk, operators=OPERATORS)
        async with slack_office(replace(office, desk=desk)) as made:
            yield made


async def value(office: Office, incident: str, choice: str) -> str:
    """Of the button for this choice, on the plan that waits."""
    return f"{incident}:{await office.revision(incident)}:{choice}"


async def decisions(office: Office, incident: str) -> list[dict[str, Any]]:
    return await office.sql("select * from decision where incident_id = %s", incident)


async def raw_id(slack: SlackOffice) -> UUID:
    """Of the click that waits for a worker."""
    [job] = await slack.jobs()
    return UUID(job["args"]["raw_id"])


# --- decided, and told ---


async def test_a_click_is_answered_empty_and_decided_by_a_job(slack: SlackOffice) -> None:
    office, incident = slack.office, await slack.office.planned()
    answer = await slack.click(await value(office, incident, "1"), slack_id(KIM))
    assert (answer.status_code, answer.content) == (200, b"")
    assert await decisions(office, incident) == []
    [job] = await slack.jobs()
    assert list(job["args"]) == ["raw_id"]  # the response_url is a secret: it stays in the delivery
    await slack.work()
    [decision] = await decisions(office, incident)
    assert (decision["decided_by"], decision["via"], decision["choice"]) == ("kim", "slack", "1")
    [told] = slack.hook.posts
    assert (told["response_type"], told["replace_original"]) == ("ephemeral", False)
    assert told["text"].startswith("*kim* chose *1*: it is decided.\n<http://127.0.0.1:8080/ui/?incident=inc_")
    await office.runner.advance(incident)
    assert office.dials.calls == ["turn_dial shop 5", "turn_dial db 6"]


async def test_some_steps_only(slack: SlackOffice) -> None:
    office, incident = slack.office, await slack.office.planned()
    await slack.click(await value(office, incident, "1:2"), slack_id(KIM))
    await slack.work()
    await office.runner.advance(incident)
    assert office.dials.calls == ["turn_dial db 6"]


async def test_two_people_for_high_risk(slack: SlackOffice) -> None:
    office, incident = slack.office, await slack.office.planned()
    pressed = await value(office, incident, "2")
    for caller in (ANN, ANN, BOB):
        await slack.click(pressed, slack_id(caller))
        await slack.work()
    first, again, second = (post["text"] for post in slack.hook.posts)
    assert "Your approval of *2* is stored" in first
    assert again.startswith("*Refused.* ann approved option 2 already")
    assert second.startswith("*bob* chose *2*: it is decided. Approved by ann too.")
    [decision] = await decisions(office, incident)
    assert [(a["by"], a["via"]) for a in decision["approvals"]] == [("ann", "slack"), ("bob", "slack")]


async def test_a_hint_from_the_modal(slack: SlackOffice) -> None:
    office, incident = slack.office, await slack.office.planned()
    pressed = await value(office, incident, "re_analyze")
    payload = view_submission(pressed, slack_id(KIM), "look at db\x00, not shop", slack.hook.url)
    assert (await slack.send(payload)).status_code == 200
    await slack.work()
    [decision] = await decisions(office, incident)
    assert (decision["choice"], decision["hint"]) == ("re_analyze", "look at db, not shop")
    assert len(slack.hook.posts) == 1


async def test_a_hint_beside_the_button(slack: SlackOffice) -> None:
    office, incident = slack.office, await slack.office.planned()
    payload = block_actions(await value(office, incident, "re_analyze"), slack_id(KIM), slack.hook.url, "1721.7")
    payload["state"] = {"values": {"b": {"other": {"value": "no"}}, "c": {"hint": {"value": "since 08:40"}}}}
    await slack.send(payload)
    await slack.work()
    assert [d["hint"] for d in await decisions(office, incident)] == ["since 08:40"]


async def test_the_answer_is_in_the_language_of_the_incident(slack: SlackOffice) -> None:
    office, incident = slack.office, await slack.office.planned()
    await office.sql("update incident set language = 'ko'")
    for caller in (KIM, ANN):
        await slack.click(await value(office, incident, "manual") if caller is KIM else "inc_0:r:1", slack_id(caller))
        await slack.work()
    assert "결정이 저장되었습니다" in slack.hook.posts[0]["text"]
    assert slack.hook.posts[1]["text"].startswith(
        "*Refused.* There is no incident 'inc_0'."
    )  # nobody knows its language


def test_every_text_has_both_languages() -> None:
    assert ENGLISH.keys() == KOREAN.keys()
    assert [ENGLISH[name].count("{") for name in ENGLISH] == [KOREAN[name].count("{") for name in ENGLISH]
    assert set(get_args(Reason)) == KOREAN_REASONS.keys()
    assert len(set(KOREAN_REASONS.values())) == len(KOREAN_REASONS)


# --- refused ---


async def test_a_replayed_click_is_nothing_new(slack: SlackOffice) -> None:
    office, incident = slack.office, await slack.office.planned()
    payload = block_actions(await value(office, incident, "1"), slack_id(KIM), slack.hook.url, "1721.1")
    for _ in range(3):
        assert (await slack.send(payload)).status_code == 200
    assert len(await slack.jobs()) == 1
    await slack.work()
    assert (await slack.send(payload)).status_code == 200
    assert await slack.jobs() == []
    assert len(await decisions(office, incident)) == 1
    assert await office.audited("refusal") == []
    assert len(slack.hook.posts) == 1


@pytest.mark.parametrize("forged", [{"secret": "not the secret of our app"}, {"at": time.time() - 600}])
async def test_what_slack_did_not_sign_now_is_401_and_audited(slack: SlackOffice, forged: dict[str, Any]) -> None:
    office, incident = slack.office, await slack.office.planned()
    payload = block_actions(await value(office, incident, "1"), slack_id(KIM), slack.hook.url, "1721.1")
    answer = await slack.send(payload, **forged)
    assert answer.status_code == 401
    assert await slack.jobs() == []
    assert await office.sql("select id from raw_delivery where sender = 'slack'") == []
    [refusal] = await office.audited("refusal")
    assert (refusal["reason"], refusal["via"], refusal["incident_id"]) == ("not_authenticated", "slack", None)


async def test_an_unknown_slack_user_is_refused_audited_and_told(slack: SlackOffice) -> None:
    office, incident = slack.office, await slack.office.planned()
    await slack.click(await value(office, incident, "1"), "U0EVE")
    await slack.work()
    assert await decisions(office, incident) == []
    [refusal] = await office.audited("refusal", incident)
    assert (refusal["actor"], refusal["reason"], refusal["via"]) == ("slack:U0EVE", "not_allowed", "slack")
    [told] = slack.hook.posts
    assert told["response_type"] == "ephemeral"
    assert "Nobody knows the Slack user U0EVE" in told["text"]


@pytest.mark.parametrize(
    "pressed", ["inc_1", "inc_1:r", "inc_1:r:4", "inc_1:r:1:x", "inc_1:r:1:1,2:3", ":r:1", "inc_1:r:1:"]
)
async def test_a_value_that_is_not_ours_is_a_dead_letter(slack: SlackOffice, pressed: str) -> None:
    assert (await slack.click(pressed, slack_id(KIM))).status_code == 200
    assert await slack.jobs() == []
    assert len(await slack.office.sql("select id from raw_delivery where parse_error is not null")) == 1


async def test_a_click_that_could_be_played_again_is_not_decided(slack: SlackOffice) -> None:
    payload = block_actions("inc_1:r:1", slack_id(KIM), slack.hook.url, "1721.1")
    del payload["trigger_id"], payload["actions"][0]["action_ts"]
    assert (await slack.send(payload)).status_code == 200
    assert await slack.jobs() == []


async def test_buttons_of_others_are_stored_and_decide_nothing(slack: SlackOffice) -> None:
    office, incident = slack.office, await slack.office.planned()
    payload = block_actions(await value(office, incident, "1"), slack_id(KIM), slack.hook.url, "1721.1")
    payload["actions"][0]["action_id"] = "autopilot_decided"
    await slack.send(payload)
    assert await slack.jobs() == []
    assert len(await office.sql("select id from raw_delivery where sender = 'slack' and parse_error is null")) == 1


# --- telling ---


async def test_no_answer_is_posted_elsewhere(slack: SlackOffice) -> None:
    office, incident = slack.office, await slack.office.planned()
    with listening() as elsewhere:
        url = slack.hook.url.replace("http://", f"http://{elsewhere.url.split('/')[2]}@")
        pressed = await value(office, incident, "1")
        for moment, address in enumerate((elsewhere.url, url, "file:///etc/passwd", "http://[", "")):
            await slack.send(block_actions(pressed, slack_id(KIM), address, f"1721.{moment}"))
            await slack.work()
        assert elsewhere.posts == slack.hook.posts == []
    assert len(await decisions(office, incident)) == 1


def test_answers_go_to_slack_alone_unless_another_address_is_set() -> None:
    assert Settings().response_url_base == "https://hooks.slack.com"
    with pytest.raises(ValueError, match="this is no address"):
        Settings(response_url_base="hooks.slack.com")


async def test_a_slack_that_is_down_holds_up_no_decision(slack: SlackOffice) -> None:
    office, incident = slack.office, await slack.office.planned()
    await slack.click(await value(office, incident, "1"), slack_id(KIM))
    click = await raw_id(slack)
    await decide_click(slack.product, click)
    assert len(await decisions(office, incident)) == 1
    slack.hook.answers = [(500, {}), (500, {}), (200, {})]
    with pytest.raises(NotTold, match="answers 500"):
        await answer_click(slack.product, click, "said", last_time=False)
    await answer_click(slack.product, click, "said", last_time=True)
    await answer_click(slack.product, click, "said", last_time=False)
    assert len(slack.hook.posts) == 3
    assert len(await decisions(office, incident)) == 1
    assert await office.audited("refusal") == []


async def test_a_fault_of_ours_is_told_in_the_end(slack: SlackOffice) -> None:
    office, incident = slack.office, await slack.office.planned()
    await slack.click(await value(office, incident, "1"), slack_id(KIM))
    click = await raw_id(slack)
    await office.sql("alter table decision rename to away")
    with pytest.raises(Exception, match='"decision" does not exist'):
        await decide_click(slack.product, click)
    await decide_click(slack.product, click, last_time=True)
    await office.sql("alter table away rename to decision")
    [answer] = [job["args"]["text"] for job in await slack.jobs() if "text" in job["args"]]
    assert answer.startswith("*It could not be decided*: a fault of ours (UndefinedTable)")


# --- workers that die ---


@pytest.mark.parametrize(("choice", "caller"), [("1", KIM), ("2", ANN), ("manual", KIM)])
async def test_after_a_worker_died_what_stands_is_told(slack: SlackOffice, choice: str, caller: Any) -> None:
    office, incident = slack.office, await slack.office.planned()
    await slack.click(await value(office, incident, choice), slack_id(caller))
    click = await raw_id(slack)
    await decide_click(slack.product, click)
    await office.sql("delete from procrastinate_jobs where args ? 'text'")  # as if it had died before this
    await decide_click(slack.product, click, again=True)
    [answer] = [job["args"]["text"] for job in await slack.jobs() if "text" in job["args"]]
    assert answer.startswith("Your approval of *2*" if choice == "2" else f"*kim* chose *{choice}*")
    assert await office.audited("refusal") == []
    assert len(await office.audited("decision")) + len(await office.audited("approval")) == 1


async def test_a_withdrawal_whose_worker_died_takes_back_nothing_more(slack: SlackOffice) -> None:
    office, incident = slack.office, await slack.office.planned()
    high_risk = await value(office, incident, "2")
    await slack.click(high_risk, slack_id(ANN))
    await slack.work()
    await slack.click(await value(office, incident, "withdraw"), slack_id(BOB))
    click = await raw_id(slack)
    await decide_click(slack.product, click)
    await office.sql("delete from procrastinate_jobs where args ? 'text'")  # as if it had died before this
    await slack.click(high_risk, slack_id(ANN))
    await slack.work()
    await decide_click(slack.product, click, again=True)
    [answer] = [job["args"]["text"] for job in await slack.jobs() if "text" in job["args"]]
    assert answer.startswith("*bob* took back the approval of *2*")
    assert [row["approved_by"] for row in await office.sql("select approved_by from approval")] == ["ann"]
    assert len(await office.audited("withdrawal")) == 1
    assert await office.audited("refusal") == []


async def test_the_click_of_a_killed_worker_is_decided_by_another(slack: SlackOffice) -> None:
    office, incident = slack.office, await slack.office.planned()
    await office.sql("delete from procrastinate_jobs")
    await slack.click(await value(office, incident, "1"), slack_id(KIM))
    manager = office.queue.job_manager
    [worker] = await office.sql("insert into procrastinate_workers (last_heartbeat) values ('2020-01-01') returning id")
    job = await manager.fetch_job(queues=None, worker_id=worker["id"])
    assert job is not None
    assert job.task_name == SLACK_DECISION
    runner = Runner(office.pool, office.deps)
    register_jobs(slack.product, runner)
    await sweep(office.queue, runner, 6.0)
    await office.sql("update procrastinate_jobs set scheduled_at = null")
    await office.queue.run_worker_async(wait=False, install_signal_handlers=False)
    assert [d["decided_by"] for d in await decisions(office, incident)] == ["kim"]
    assert office.dials.calls == ["turn_dial shop 5", "turn_dial db 6"]
    [told] = slack.hook.posts
    assert told["text"].startswith("*kim* chose *1*")


async def test_two_workers_with_the_same_job_decide_once(slack: SlackOffice) -> None:
    for number in range(5):
        office, incident = slack.office, await slack.office.planned(f"c{number}")
        await office.sql("delete from procrastinate_jobs")
        await slack.click(await value(office, incident, "manual"), slack_id(KIM))
        click = await raw_id(slack)
        await asyncio.gather(decide_click(slack.product, click), decide_click(slack.product, click, again=True))
        await slack.work()
        assert len(await decisions(office, incident)) == 1
        assert len(await office.audited("decision", incident)) == 1


async def test_two_real_workers_and_many_clicks(slack: SlackOffice, database_url: str) -> None:
    """Each click becomes one job, each job is decided once, whoever takes it."""
    office = slack.office
    await office.sql("delete from procrastinate_jobs")
    planned = [await office.planned(f"c{number}") for number in range(4)]
    for incident in planned:
        for caller in (KIM, ANN, BOB):
            await slack.click(await value(office, incident, "manual"), slack_id(caller))
    async with create_pool(database_url) as pool, create_queue(database_url).open_async() as second:
        other = replace(slack.product, pool=pool, queue=second, desk=replace(office.desk, pool=pool, queue=second))
        for product in (slack.product, other):
            register_jobs(product, Runner(product.pool, office.deps))
        await asyncio.gather(
            *(
                q.run_worker_async(wait=False, concurrency=4, install_signal_handlers=False)
                for q in (office.queue, second)
            )
        )
        await office.queue.run_worker_async(wait=False, install_signal_handlers=False)  # what the last jobs enqueued
    for incident in planned:
        assert len(await decisions(office, incident)) == 1
        assert len(await office.audited("refusal", incident)) == 2
    assert len(slack.hook.posts) == 12


# --- Slack and REST at once ---

CLICKS = st.lists(
    st.tuples(
        st.sampled_from((KIM, ANN, BOB)), st.sampled_from(("1", "2", "manual")), st.sampled_from(("slack", "rest"))
    ),
    min_size=2,
    max_size=6,
)


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(clicks=CLICKS)
async def test_of_clicks_in_slack_and_rest_at_once_one_decides(
    slack: SlackOffice, clicks: list[tuple[Any, str, str]]
) -> None:
    office = slack.office
    incident = await office.planned(f"c{datetime.now(UTC).timestamp()}")
    revision = await office.revision(incident)
    keys = {caller.name: await key_of(office, caller) for caller in (KIM, ANN, BOB)}
    told = len(slack.hook.posts)

    async def decide(caller: Any, choice: str, via: str) -> None:
        if via == "slack":
            answer = await slack.click(f"{incident}:{revision}:{choice}", slack_id(caller))
            assert answer.status_code == 200
            await slack.work()
        else:
            body = {"plan_revision": revision, "choice": choice}
            sent = await slack.client.post(f"/incidents/{incident}/decision", json=body, headers=keys[caller.name])
            assert sent.status_code in (202, 409, 403), sent.text

    await asyncio.gather(*(decide(*click) for click in clicks))
    await slack.work()
    stored = await decisions(office, incident)
    assert len(stored) <= 1
    if any(choice in ("manual", "1") for _, choice, _ in clicks):
        assert len(stored) == 1
    audited = [await office.audited(kind, incident) for kind in ("decision", "approval", "refusal")]
    assert sum(map(len, audited)) == len(clicks)
    assert len(slack.hook.posts) - told == sum(via == "slack" for _, _, via in clicks)
    await office.sql("update incident set closed_at = now(), status = 'closed' where id = %s", incident)
