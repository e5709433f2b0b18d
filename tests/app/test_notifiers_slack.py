"""Slack as people have it: one thread, edited as things change; nothing lost, nothing doubled, whatever Slack does."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from app.catalogue import AutopilotYaml
from app.notifiers import slack as module
from app.notifiers._slack_api import NOT_SHOWN, REFUSALS
from app.notifiers.base import Receipt, Telling, TryAgain, Undeliverable
from app.notifiers.slack import Settings, SlackNotifier
from tests.app.slack_stories import INCIDENT, Life, investigated
from tests.simulator.conftest import Served, served

CHANNEL = "C0PAYMENTS"
FILE = AutopilotYaml.model_validate(
    {
        "teams": {"payments": {"slack_channel": CHANNEL}, "search": {"slack_channel": "C0OLD"}},
        "services": {"payment-service": {"owner": "payments"}},
        "policy": {"messages": {"default_channel": "C0GENERAL"}},
    }
)


class Workspace:
    """The shop's Slack, and our notifier in it."""

    def __init__(self, shop: Served) -> None:
        self.http = httpx.Client(base_url=shop.url, timeout=20)
        self.settings = Settings(bot_token=SecretStr("xoxb-shop"), api_url=f"{shop.url}/slack/api/", timeout_s=15)
        self.notifier = SlackNotifier(self.settings, FILE)

    def trouble(self, kind: str, method: str, **what: Any) -> None:
        """``hold`` or ``fail`` the next calls of a method."""
        self.http.post(f"/_shop/{kind}", json={"path": f"/slack/api/{method}", **what}).raise_for_status()

    def change(self, what: str, **how: Any) -> None:
        """The app, or a channel."""
        self.http.patch(f"/_shop/slack/{what}", json=how).raise_for_status()

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get("/_shop/slack/state").json()
        return found

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Of the channel and its threads, oldest first."""
        found: list[dict[str, Any]] = self.state["channels"]["payments-oncall"]["messages"]
        return found

    def part(self, name: str) -> list[dict[str, Any]]:
        """The messages that are this part of the thread, or of this kind."""
        ours = [m for m in self.messages if "metadata" in m]
        return [m for m in ours if name in (p := m["metadata"]["event_payload"]["part"], p.partition(":")[0])]

    @property
    def parts(self) -> list[str]:
        """Which parts of the thread stand there."""
        return [m["metadata"]["event_payload"]["part"] for m in self.messages if "metadata" in m]

    @property
    def kinds(self) -> list[str]:
        """Of the parts."""
        return [part.partition(":")[0] for part in self.parts]

    def parts_of(self, incident: str) -> list[str]:
        """Of one incident."""
        about = [m["metadata"]["event_payload"] for m in self.messages if "metadata" in m]
        return [a["part"] for a in about if a["incident_id"] == incident]

    def files_of(self, incident: str) -> list[str]:
        """Names of its charts."""
        names = [f["name"] for m in self.messages for f in m.get("files", ())]
        return [name for name in names if f"-{incident}-" in name]

    def calls(self, method: str) -> list[dict[str, Any]]:
        """What was asked with it."""
        return [call for call in self.state["calls"] if call["method"] == method]

    def hold(self, method: str) -> None:
        """Take the next call and answer too late for us."""
        self.trouble("hold", method, when="after", seconds=6)
        self.notifier = SlackNotifier(self.settings.model_copy(update={"timeout_s": 2}), FILE)

    def at(self, url: str) -> None:
        """Call Slack there."""
        self.notifier = SlackNotifier(self.settings.model_copy(update={"api_url": f"{url}/slack/api/"}), FILE)

    async def tell(self, telling: Telling) -> Receipt:
        """As the outbox does: again after what passes, with what is known by then, as what may have arrived."""
        for _ in range(5):
            try:
                if telling.maybe_sent and (found := await self.notifier.look_up(telling)):
                    return found
                return await self.notifier.deliver(telling)
            except TryAgain as error:
                known = {**telling.conversation, **error.reference}
                telling = replace(telling, maybe_sent=telling.maybe_sent or error.ambiguous, conversation=known)
        raise AssertionError("it never arrived")


@pytest.fixture
def slack() -> Iterator[Workspace]:
    with served("bad-deploy", 5) as made:
        workspace = Workspace(made)
        yield workspace
        workspace.http.close()


@dataclass
class Line:
    """A line to Slack on which the nth request meets with trouble: {n: fault}; it is taken off once it did.

    A fault is a status, with "after" where Slack did it all the same; "dropped", "lost", or Slack's word for a refusal.
    """

    url: str = ""
    plan: dict[int, str] = field(default_factory=dict)
    seen: int = 0


@contextmanager
def between(slack: Workspace) -> Iterator[Line]:
    """Put such a line between the notifier and Slack."""
    line, shop = Line(), str(slack.http.base_url)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing."""

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            fault = line.plan.pop(line.seen, "")
            line.seen += 1
            if fault in ("", "lost", "500 after"):
                answer = httpx.post(f"{shop}{self.path}", content=body, headers=dict(self.headers), timeout=20)
            if fault in ("lost", "dropped"):
                self.close_connection = True
            elif fault[:3].isdigit():
                self.reply(int(fault[:3]), b"{}" if fault == "429" else b"upstream")
            elif fault:
                self.reply(200, json.dumps({"ok": False, "error": fault}).encode())
            else:
                self.reply(answer.status_code, answer.content)

        def reply(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json; charset=utf-8")
            self.send_header("content-length", str(len(content)))
            self.send_header("retry-after", "3")
            self.end_headers()
            self.wfile.write(content)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        line.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        slack.at(line.url)
        try:
            yield line
        finally:
            slack.at(shop)
            server.shutdown()
            thread.join()


async def mended_later(slack: Workspace, telling: Telling) -> TryAgain:
    """Somebody has to mend it; it is tried again without haste."""
    with pytest.raises(TryAgain) as caught:
        await slack.notifier.deliver(telling)
    assert (caught.value.after_s, caught.value.ambiguous) == (300.0, False)
    return caught.value


def opened() -> Life:
    return Life(investigated("001-black-friday"))


def planned() -> Life:
    life = opened()
    life.analyse()
    return life


# --- the thread ---


async def test_one_thread_tells_the_whole_story(slack: Workspace) -> None:
    life = opened()
    reference: Any = (await slack.tell(life.telling())).reference
    assert slack.parts == ["incident"]
    moves: tuple[Callable[[], None], ...] = (
        life.analyse,
        lambda: life.decide("1"),
        lambda: life.finish(1),
        lambda: life.execute("resolved"),
        lambda: life.become("resolved"),
    )
    for move in moves:
        move()
        reference = (await slack.tell(life.telling(reference))).reference
    revision = life.plan.revision
    assert slack.parts == ["incident", "rca:1", f"plan:{revision}", f"progress:{revision}", f"verdict:{revision}"]
    first, *replies = slack.messages
    assert {m["thread_ts"] for m in replies} == {first["ts"]}
    assert first["blocks"][0]["text"]["text"].startswith("✅")
    assert "resolved" in first["text"]
    assert all(m["buttons"] == [] for m in slack.messages)  # decided
    assert [f["name"] for m in slack.messages for f in m.get("files", ())] == [
        f"chart-{INCIDENT}-1.png",
        f"topology-{INCIDENT}-1.png",
    ]
    assert not any(m["effects"]["pings"] for m in slack.messages)


async def test_what_did_not_change_is_not_edited(slack: Workspace) -> None:
    life = planned()
    reference = (await slack.tell(life.telling())).reference
    life.happen("verification", "1 of 2 expected effects met")
    receipt = await slack.tell(life.telling(reference))
    assert slack.calls("chat.update") == []
    assert receipt.detail == f"nothing new to say in {CHANNEL}"


async def test_each_step_that_ends_is_edited_into_one_message(slack: Workspace) -> None:
    life = planned()
    reference: Any = (await slack.tell(life.telling())).reference
    life.decide("1")
    reference = (await slack.tell(life.telling(reference))).reference
    for ordinal in range(1, len(life.plan.options[0].steps) + 1):
        life.finish(ordinal)
        reference = (await slack.tell(life.telling(reference))).reference
    [progress] = slack.part("progress")
    assert str(progress["blocks"]).count("✅") == len(life.plan.options[0].steps)


async def test_a_thread_that_begins_late_tells_how_it_stands(slack: Workspace) -> None:
    life = planned()
    life.happen("escalation", "nobody has decided for 15 minutes")
    await slack.tell(life.telling())
    assert slack.kinds == ["incident", "rca", "plan", "event"]
    assert slack.messages[-1]["subtype"] == "thread_broadcast"  # the channel is to hear of it


async def test_another_analysis_has_messages_of_its_own(slack: Workspace) -> None:
    life = planned()
    reference: Any = (await slack.tell(life.telling())).reference
    first = life.plan.revision
    life.decide("re_analyze", words="db, not cache")
    life.analyse_again()
    reference = (await slack.tell(life.telling(reference))).reference
    [old] = slack.part(f"plan:{first}")
    assert old["buttons"] == []
    life.analyses.pop()
    life.analyse()
    await slack.tell(life.telling(reference))
    assert slack.kinds == ["incident", "rca", "plan", "decision", "rca", "plan"]


async def test_notes_and_reminders_have_a_line_each(slack: Workspace) -> None:
    life = planned()
    reference: Any = (await slack.tell(life.telling())).reference
    life.happen("note", "ann: flushed the <!channel> cache", {"by": "ann"})
    reference = (await slack.tell(life.telling(reference))).reference
    life.happen("reminder", "the plan has waited 5 minutes")
    await slack.tell(life.telling(reference))
    note, reminder = slack.messages[-2:]
    assert "flushed the <!channel> cache" in str(note["blocks"])
    assert note["text"] == "ann noted:"
    assert "Nobody has decided yet" in reminder["text"]


async def test_that_others_could_not_be_told_has_a_line(slack: Workspace) -> None:
    life = planned()
    life.happen("not_delivered", "slack could not be told (#old): it is archived", {"notifier": "slack"})
    await slack.tell(life.telling())
    assert slack.kinds == ["incident", "rca", "plan", "event"]
    assert slack.messages[-1]["text"] == "Others could not be told of this incident:"
    assert "#old): it is archived" in str(slack.messages[-1]["blocks"])


async def test_an_earlier_incident_of_the_alert_is_linked_where_slack_tells_where(slack: Workspace) -> None:
    before = (await slack.tell(planned().telling())).reference
    life = opened()
    await slack.tell(life.telling(number=99, incident_id="inc_2", earlier=before))
    assert slack.parts.count("incident") == 2


async def test_a_korean_incident_is_told_in_korean(slack: Workspace) -> None:
    life = Life(investigated("001-black-friday", "ko"), "ko")
    life.analyse()
    await slack.tell(life.telling())
    assert all(any("가" <= sign <= "힣" for sign in m["text"]) for m in slack.messages if "metadata" in m)


# --- whatever Slack does ---


@pytest.mark.parametrize("fault", ["429", "500", "500 after", "dropped", "lost"])
async def test_trouble_at_any_request_loses_and_doubles_nothing(slack: Workspace, fault: str) -> None:
    """Each request of a telling fails in turn, until one telling makes so few that none did."""
    with between(slack) as line:
        for nth in count():
            incident = f"inc_{nth}"
            line.plan = {nth: fault}
            line.seen = 0
            telling = planned().telling(number=nth + 1, incident_id=incident)
            reference: Any = (await slack.tell(telling)).reference
            kinds = [part.partition(":")[0] for part in slack.parts_of(incident)]
            assert kinds == ["incident", "rca", "plan"], (nth, fault)
            assert len(slack.files_of(incident)) in (0, 2), (nth, fault)
            assert reference["posts"].keys() >= {"incident", "rca:1", "chart:1"}
            if line.plan:  # it was not reached
                break
        assert nth >= 8


async def test_slack_asks_to_wait(slack: Workspace) -> None:
    reference = (await slack.tell(opened().telling())).reference
    slack.trouble("fail", "chat.postMessage", status=429, retry_after_s=7)
    with pytest.raises(TryAgain) as caught:
        await slack.notifier.deliver(planned().telling(reference))
    assert (caught.value.after_s, caught.value.ambiguous) == (7, False)
    with between(slack) as line:
        line.plan = {6: "429"}  # of the plan, after the analysis and two charts
        with pytest.raises(TryAgain) as caught:
            await slack.notifier.deliver(planned().telling(reference))
    assert (caught.value.after_s, caught.value.ambiguous) == (3, False)  # what stands there is known
    posted: Any = caught.value.reference["posts"]
    assert posted.keys() == {"incident", "rca:1", "chart:1"}


async def test_what_was_posted_before_a_refusal_is_known_afterwards(slack: Workspace) -> None:
    life = planned()
    with between(slack) as line:
        line.plan = {7: "invalid_arguments"}  # of the plan
        with pytest.raises(Undeliverable) as caught:
            await slack.notifier.deliver(life.telling())
    assert slack.kinds == ["incident", "rca"]
    await slack.tell(life.telling(caught.value.reference, number=50))  # the incident's next message
    assert slack.kinds == ["incident", "rca", "plan"]


async def test_what_may_stand_there_is_looked_for_by_the_next_message_too(slack: Workspace) -> None:
    """Though its own attempts are all known: the one before was given up with its end unknown."""
    life = planned()
    with between(slack) as line:
        line.plan = {1: "500 after"}  # of the analysis
        with pytest.raises(TryAgain) as caught:
            await slack.notifier.deliver(life.telling())
    reference: Any = (await slack.tell(life.telling(caught.value.reference, number=50))).reference
    assert slack.kinds == ["incident", "rca", "plan"]
    assert not reference["unsure"]
    await slack.tell(life.telling(reference, number=51))
    assert len(slack.calls("conversations.replies")) == 1


async def test_where_it_may_not_look_it_rather_tells_twice_than_never(slack: Workspace) -> None:
    life = planned()
    with between(slack) as line:
        line.plan = {0: "500 after"}
        with pytest.raises(TryAgain):
            await slack.notifier.deliver(life.telling())
    slack.change("app", scopes=["chat:write", "files:write"])
    await slack.tell(life.telling(maybe_sent=True))
    assert slack.kinds == ["incident", "incident", "rca", "plan"]


async def test_nothing_is_said_of_a_thread_that_may_not_be_there(slack: Workspace) -> None:
    with between(slack) as line:
        line.plan = {0: "500 after"}
        with pytest.raises(TryAgain) as caught:
            await slack.notifier.deliver(planned().telling())
    assert (caught.value.ambiguous, caught.value.reference) == (True, {})


async def test_an_older_message_than_the_conversation_is_not_looked_for(slack: Workspace) -> None:
    life, since = planned(), datetime.now(UTC)
    await slack.notifier.deliver(life.telling(since=since))  # and the receipt is lost
    await slack.tell(life.telling(since=since, maybe_sent=True))
    assert slack.kinds == ["incident", "rca", "plan"]
    [call] = slack.calls("conversations.history")
    assert float(call["arguments"]["oldest"]) == pytest.approx(since.timestamp() - 60.0, abs=0.01)


@pytest.mark.parametrize("stage", ["incident", "rca"])
async def test_accepted_and_then_silent(slack: Workspace, stage: str) -> None:
    life = planned()
    reference: Any = {}
    if stage == "rca":
        reference = (await slack.tell(opened().telling())).reference
    slack.hold("chat.postMessage")
    with pytest.raises(TryAgain) as caught:
        await slack.notifier.deliver(life.telling(reference))
    assert caught.value.ambiguous
    await slack.tell(life.telling(reference, maybe_sent=True))
    assert slack.kinds == ["incident", "rca", "plan"]


async def test_killed_after_everything_was_posted(slack: Workspace) -> None:
    life = planned()
    await slack.notifier.deliver(life.telling())  # and the receipt is lost
    receipt = await slack.tell(life.telling(maybe_sent=True))
    assert slack.kinds == ["incident", "rca", "plan"]
    assert sum(len(m.get("files", ())) for m in slack.messages) == 2
    life.decide("manual")
    await slack.tell(life.telling(receipt.reference))
    assert slack.kinds == ["incident", "rca", "plan", "decision"]


async def test_a_topology_alone_is_not_attached_twice(slack: Workspace) -> None:
    life = planned()
    for finding in life.analyses[-1]["evidence"]["findings"]:
        finding["points"] = []
    await slack.notifier.deliver(life.telling())  # and the receipt is lost
    await slack.tell(life.telling(maybe_sent=True))
    assert slack.files_of(INCIDENT) == [f"topology-{INCIDENT}-1.png"]


async def test_a_picture_that_cannot_be_drawn_keeps_no_button_away(slack: Workspace) -> None:
    telling = planned().telling()
    broken = telling.report.model_copy(update={"looked_at": "what no chart can be made of"})
    await slack.tell(replace(telling, report=broken))
    assert slack.kinds == ["incident", "rca", "plan"]
    [rca] = slack.part("rca")
    assert set("▁█") <= set(str(rca["blocks"]))


async def test_other_peoples_messages_are_none_of_ours(slack: Workspace) -> None:
    other = planned()
    await slack.notifier.deliver(replace(other.telling(number=7), incident_id="inc_2"))
    life = planned()
    await slack.tell(life.telling(maybe_sent=True))
    assert slack.parts.count("incident") == 2


async def test_an_edit_that_slack_did_not_answer_is_made_again(slack: Workspace) -> None:
    life = opened()
    reference = (await slack.tell(life.telling())).reference
    life.analyse()
    slack.hold("chat.update")
    with pytest.raises(TryAgain):
        await slack.notifier.deliver(life.telling(reference))
    await slack.tell(life.telling(reference, maybe_sent=True))
    assert slack.kinds == ["incident", "rca", "plan"]
    assert slack.messages[0]["text"].startswith("awaiting decision")


@pytest.mark.parametrize("error", ["token_expired", "token_revoked", "account_inactive"])
async def test_a_token_that_is_no_good_any_more(slack: Workspace, error: str) -> None:
    slack.change("app", token_error=error)
    refused = await mended_later(slack, planned().telling())
    assert "AUTOPILOT_SLACK_BOT_TOKEN" in refused.detail
    assert "xoxb-shop" not in refused.detail
    slack.change("app", token_error="")
    await slack.tell(planned().telling())
    assert slack.kinds == ["incident", "rca", "plan"]


@pytest.mark.parametrize(
    ("target", "said"),
    [("C0OLD", "unarchive"), ("C0GENERAL", "/invite @autopilot"), ("C0NOWHERE", "slack_channel of the team")],
)
async def test_a_channel_that_cannot_be_told(slack: Workspace, target: str, said: str) -> None:
    assert said in (await mended_later(slack, planned().telling(target=target))).detail
    gone = planned().telling(target=target.lower(), maybe_sent=True)  # by its name: that is looked for first
    assert "slack_channel of the team" in (await mended_later(slack, gone)).detail


async def test_a_channel_that_is_archived_in_the_middle_is_told_the_rest_once_it_is_not(slack: Workspace) -> None:
    life = opened()
    reference: Any = (await slack.tell(life.telling())).reference
    slack.change("channels/payments-oncall", is_archived=True)
    life.analyse()
    await mended_later(slack, life.telling(reference))
    slack.change("channels/payments-oncall", is_archived=False)
    await slack.tell(life.telling(reference))
    assert slack.kinds == ["incident", "rca", "plan"]


async def test_a_locked_thread_spares_the_others_of_the_channel(slack: Workspace) -> None:
    reference = (await slack.tell(opened().telling())).reference
    slack.trouble("fail", "chat.postMessage", status=200, code="restricted_action_thread_locked")
    assert not (await mended_later(slack, planned().telling(reference))).of_target


async def test_a_missing_scope_is_named(slack: Workspace) -> None:
    slack.change("app", scopes=["channels:history"])
    assert "lacks the scope chat:write" in (await mended_later(slack, planned().telling())).detail


@pytest.mark.parametrize("error", ["internal_error", "service_unavailable", "ratelimited"])
async def test_what_passes_is_tried_again(slack: Workspace, error: str) -> None:
    slack.trouble("fail", "chat.postMessage", status=200, code=error)
    with pytest.raises(TryAgain) as caught:
        await slack.notifier.deliver(planned().telling())
    assert caught.value.ambiguous == (error != "ratelimited")


@pytest.mark.parametrize("error", NOT_SHOWN[:3])
async def test_blocks_that_slack_does_not_take_are_sent_as_text(slack: Workspace, error: str) -> None:
    slack.trouble("fail", "chat.postMessage", status=200, code=error)
    life = opened()
    await slack.tell(life.telling())
    [message] = slack.messages
    assert "blocks" not in message
    assert life.incident["title"] in message["text"]
    assert message["text"].endswith(life.telling().url)


async def test_a_message_that_somebody_deleted_stays_deleted(slack: Workspace) -> None:
    life = opened()
    reference = (await slack.tell(life.telling())).reference
    life.analyse()
    slack.trouble("fail", "chat.update", status=200, code="message_not_found")
    await slack.tell(life.telling(reference))
    assert slack.kinds == ["incident", "rca", "plan"]


async def test_without_the_right_to_attach_files_the_course_is_in_letters(slack: Workspace) -> None:
    slack.change("app", scopes=["chat:write", "channels:history"])
    reference = (await slack.tell(planned().telling())).reference
    [rca] = slack.part("rca")
    assert set("▁█") <= set(str(rca["blocks"]))
    await slack.tell(planned().telling(reference))
    assert len(slack.calls("files.getUploadURLExternal")) == 1  # it is worth one try


async def test_an_upload_that_fails_holds_up_no_message(slack: Workspace) -> None:
    slack.trouble("fail", "files.completeUploadExternal", status=500)
    await slack.tell(planned().telling())
    assert slack.kinds == ["incident", "rca", "plan"]


async def test_nobody_listens(slack: Workspace) -> None:
    settings = slack.settings.model_copy(update={"api_url": "http://127.0.0.1:9/api/"})
    with pytest.raises(TryAgain) as caught:
        await SlackNotifier(settings, FILE).deliver(planned().telling())
    assert not caught.value.ambiguous  # nothing was sent


# --- doctor, settings ---


async def test_the_doctor_names_what_stands_against_it(slack: Workspace) -> None:
    slack.change("app", scopes=["chat:write", "channels:read", "channels:history"])
    said = await slack.notifier.check()
    assert any("files:write" in line and "groups:history" in line for line in said)
    assert any(line.startswith("slack: C0OLD: it is archived") for line in said), said
    assert any(line.startswith("slack: C0GENERAL: the app is not in the channel") for line in said)
    assert not any("C0PAYMENTS" in line for line in said)
    slack.change("app", token_error="token_expired")
    assert [line for line in await slack.notifier.check() if "has expired" in line]


def test_without_a_token_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOPILOT_SLACK_BOT_TOKEN", raising=False)
    with pytest.raises(ValueError, match="autopilot connect slack"):
        module.create(None, FILE)  # type: ignore[arg-type]


def test_what_is_posted_cannot_be_read_on_the_way() -> None:
    assert Settings(api_url="http://127.0.0.1:8000/slack/api/").api_url
    with pytest.raises(ValueError, match="AUTOPILOT_SLACK_API_URL must begin with https://"):
        Settings(api_url="http://slack.example/api/")


def test_every_refusal_says_what_to_do() -> None:
    assert all(len(advice) > 20 for advice in REFUSALS.values())
