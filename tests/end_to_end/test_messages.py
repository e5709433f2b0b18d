"""The whole product tells people: Slack, Jira, PagerDuty and a webhook at the shop's own endpoints, and their troubles.

What is asked of every one of them: nothing is lost, and nothing comes twice.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import yaml
from markdown_it import MarkdownIt

from app.simulator import jira, jira_adf, webhook_sink
from app.simulator.notified import send_clicks_to, settings
from app.simulator.releases import Defect
from app.simulator.scenarios import SCENARIOS
from tests import processes
from tests.conftest import ROOT, World

ALL = ("slack", "jira", "pagerduty", "webhook")
POSTS = {
    "slack": "/slack/api/chat.postMessage",
    "jira": "/jira/rest/api/3/issue",
    "pagerduty": "/pagerduty/v2/enqueue",
    "webhook": "/_shop/webhook",
}
Json = dict[str, Any]


@dataclass
class Told:
    """A world whose people are told, and what they see."""

    world: World
    client: httpx.Client

    # --- the vendors ---

    def shop(self, path: str) -> Any:
        """What the shop's back door tells."""
        return processes.CLIENT.get(f"{self.world.shop_url}/_shop/{path}", timeout=20).raise_for_status().json()

    def back_door(self, path: str, body: Json, method: str = "POST") -> httpx.Response:
        """Change something there, or have trouble."""
        answer = processes.CLIENT.request(method, f"{self.world.shop_url}/_shop/{path}", json=body, timeout=20)
        return answer.raise_for_status()

    def channel(self, name: str) -> list[Json]:
        """Slack's messages there, oldest first."""
        found: list[Json] = self.shop("slack/state")["channels"][name]["messages"]
        return found

    def button(self, channel: str, choice: str) -> Json | None:
        """Where that choice can be pressed."""
        for message in self.channel(channel):
            for button in message["buttons"]:
                if (button["value"] or "").split(":")[2:3] == [choice]:
                    return {"ts": message["ts"], "action_id": button["action_id"]}
        return None

    def press(self, channel: str, choice: str, user: str) -> None:
        """Once it is there, as this person."""
        processes.wait_until(
            lambda: self.button(channel, choice) is not None, f"a button {choice}; {self.world.logs()}"
        )
        place = self.shop("slack/state")["channels"][channel]["id"]
        press = {"channel": place, "user": user, **(self.button(channel, choice) or {})}
        answer = self.back_door("slack/press", press).json()
        assert answer["status"] == 200, answer

    def whispered(self, user: str) -> list[str]:
        """What only this person saw."""
        return [whisper["text"] for whisper in self.shop("slack/state")["ephemerals"] if whisper["user"] == user]

    def await_whisper(self, user: str, said: str) -> None:
        """Until this person was told so."""
        processes.wait_until(lambda: any(said in text for text in self.whispered(user)), f"{user} is told {said!r}")

    # --- our own side ---

    def messages(self, incident: str) -> list[Json]:
        """What the product says it sent."""
        found: list[Json] = self.client.get(f"/incidents/{incident}/messages").json()["messages"]
        return found

    def await_all_told(
        self, incident: str, *kinds: str, seconds: float = 60.0, impatient: Sequence[str] = ()
    ) -> list[Json]:
        """Everything is sent, or failed for good, and something of each of these kinds was to be.

        ``impatient``: notifiers that wait for nothing before they try again.
        """

        def settled() -> bool:
            self.try_again_now(impatient)
            sent = self.messages(incident)
            return set(kinds) <= {m["kind"] for m in sent} and {m["status"] for m in sent} <= {"sent", "failed"}

        try:
            processes.wait_until(settled, "everybody is told", seconds)
        except TimeoutError as error:
            waiting = [m for m in self.messages(incident) if m["status"] not in ("sent", "failed")]
            raise AssertionError(f"{error}: {waiting}; {self.world.logs()}") from error
        return self.messages(incident)

    def await_refusal(self, incident: str, notifier: str, says: str) -> None:
        """Until it was tried, and waits for people with these words."""

        def refused() -> bool:
            first = next((m for m in self.messages(incident) if m["notifier"] == notifier), None)
            return first is not None and first["status"] == "waiting" and says in first["detail"]

        processes.wait_until(refused, f"{notifier} refuses: {says}; {self.world.logs()}", 60.0)

    def try_again_now(self, notifiers: Sequence[str]) -> None:
        """What these are to try again some minutes later is due."""
        if not notifiers:
            return
        with psycopg.connect(self.world.database_url, autocommit=True) as connection:
            connection.execute("delete from patience where notifier = any(%s)", [list(notifiers)])
            connection.execute(
                """update message set due_at = clock_timestamp() where notifier = any(%s) and attempts > 0
                       and sent_at is null and failed_at is null and attempted_at is null""",
                [list(notifiers)],
            )

    def recover(self) -> None:
        """The monitor does."""
        self.world.send_alert(self.client, transition="Recovered", event_id="recovered").raise_for_status()


MakeTold = Callable[..., Told]


@pytest.fixture
def told(database_url: str, tmp_path: Path) -> Iterator[MakeTold]:
    """``told(*notifiers)``: bad-deploy's world with an API whose people are told; ``policy`` is added to ours."""
    with ExitStack() as stack:

        def make(*notifiers: str, policy: Json | None = None, shop: Callable[..., None] | None = None) -> Told:
            world = World("bad-deploy", database_url, tmp_path, stack=stack)
            world.environment |= {
                **settings(world.shop_url),
                "AUTOPILOT_NOTIFIERS": ",".join(notifiers or ALL),
                "AUTOPILOT_CONFIG": str(_config(tmp_path, policy or {})),
                "AUTOPILOT_SLACK_TIMEOUT_S": "5",
            }
            _open(world, shop)
            client = world.start_api()
            send_clicks_to(str(client.base_url).rstrip("/"), world.shop_url)
            return Told(world, client)

        yield make


def _open(world: World, shop: Callable[..., None] | None) -> None:
    """Its own shop, or another one in its place."""
    if shop is None:
        world.start_shop()
        return
    world.start(shop, str(world.clock), int(world.shop_url.rpartition(":")[2]))
    processes.wait_until(lambda: processes.answers(f"{world.shop_url}/_shop/state"), "the shop")


def _config(folder: Path, policy: Json) -> Path:
    shown = yaml.safe_load((ROOT / "app" / "simulator" / "autopilot.yaml").read_text())
    messages = {**shown["policy"]["messages"], **policy.pop("messages", {})}
    shown["policy"] |= {**policy, "messages": messages}
    file = folder / "autopilot.yaml"
    file.write_text(yaml.safe_dump(shown))
    return file


# --- stories ---


def test_the_story_in_slack_from_the_alert_to_the_verdict(told: MakeTold) -> None:
    town = told()
    world, client = town.world, town.client
    world.start_worker()
    incident = world.to_the_decision(client)
    town.press("checkout-oncall", "1", "U0SAM")
    town.await_whisper("U0SAM", "U0SAM")
    assert client.get(f"/incidents/{incident}").json()["status"] == "awaiting_decision", "a stranger decides nothing"
    town.press("checkout-oncall", "1", "U0ALEX")
    world.await_status(client, incident, "resolved", seconds=90)
    sent = town.await_all_told(incident, "opened", "decision", "verification")
    assert [m for m in sent if m["status"] == "failed"] == []

    thread = town.channel("checkout-oncall")
    parents = [m for m in thread if m.get("thread_ts", m["ts"]) == m["ts"]]
    assert len(parents) == 1, "one thread for an incident"
    assert "resolved" in parents[0]["text"], "the parent shows the state now"
    assert [m["ts"] for m in thread if m["buttons"]] == [], "what is decided cannot be pressed"
    assert any(m.get("files") for m in thread), "a chart"
    assert set(_in_slack(town).values()) == {1}, "no message came twice"
    assert town.whispered("U0MINJI") == [], "what only one person sees"
    assert [(p["state"], [e["event_action"] for e in p["events"]]) for p in town.shop("pagerduty/state")] == [
        ("resolved", ["trigger", "acknowledge", "resolve"])
    ]
    received = town.shop("webhook")
    assert all(r["verified"] for r in received)
    assert len({r["id"] for r in received}) == len(received) == len([m for m in sent if m["notifier"] == "webhook"])
    assert town.shop("jira/state") == [], "no ticket unless it is asked for"


def test_manual_makes_a_ticket_that_follows(told: MakeTold) -> None:
    town = told("slack", "jira")
    world, client = town.world, town.client
    world.start_worker()
    incident = world.to_the_decision(client)
    town.press("checkout-oncall", "manual", "U0ALEX")
    world.await_status(client, incident, "closed")
    town.await_all_told(incident, "decision")
    (issue,) = town.shop("jira/state")
    assert jira_adf.why(issue["fields"]["description"]) == []
    assert issue["fields"]["labels"] == ["aiops", f"aiops-{incident}"]
    assert issue["fields"]["components"][0]["name"] == "checkout", "of who owns the cause"
    assert any(a["filename"].endswith(".png") for a in issue["attachments"])
    assert issue["status"] == "To Do", "somebody works on it by hand"
    again = world.send_alert(client, event_id="again", cycle_key="another").json()["incident_id"]
    assert again != incident
    world.await_status(client, again, "awaiting_decision")
    assert world.decide(client, again, "1").status_code == 202
    world.await_status(client, again, "resolved", seconds=90)
    town.await_all_told(again, "verification")
    assert len(town.shop("jira/state")) == 1, "that one needed no ticket"


def test_nobody_decides(told: MakeTold) -> None:
    waiting = {"remind_after_minutes": 0.02, "escalate_after_minutes": 0.05, "ttl_minutes": 5.0}
    town = told("slack", "pagerduty", policy={"waiting": waiting})
    world, client = town.world, town.client
    world.start_worker()
    incident = world.to_the_decision(client)
    sent = town.await_all_told(incident, "reminder", "escalation")
    assert {m["target"] for m in sent if m["kind"] == "opened"} == {"checkout", "#checkout-oncall"}
    assert {"platform", "#platform-oncall"} <= {m["target"] for m in sent if m["kind"] == "escalation"}
    assert len(town.channel("platform-oncall")) > 0
    paged = {p["routing_key"][:9] for p in town.shop("pagerduty/state")}
    assert paged == {"Rcheckout", "Rplatform"}
    town.press("platform-oncall", "1", "U0JUN")
    town.await_whisper("U0JUN", "jun")
    world.await_status(client, incident, "resolved", seconds=90)
    town.await_all_told(incident, "verification")
    assert [
        m["ts"] for name in ("platform-oncall", "checkout-oncall") for m in town.channel(name) if m["buttons"]
    ] == []
    assert {p["state"] for p in town.shop("pagerduty/state")} == {"resolved"}


# --- trouble ---

BROKEN: list[Json] = [
    {"kind": "fail", "status": 429, "retry_after_s": 1},
    {"kind": "fail", "status": 500},
    {"kind": "hold", "when": "after", "seconds": 30},
]
REFUSED_BY_SLACK: list[Json] = [{"kind": "fail", "status": 200, "code": "internal_error"}]


def _break(town: Told, notifier: str, path: str) -> None:
    """Everything that may pass happens to the next calls, one after the other."""
    for trouble in [*BROKEN, *(REFUSED_BY_SLACK if notifier == "slack" else [])]:
        town.back_door(trouble["kind"], {"path": path, **{k: v for k, v in trouble.items() if k != "kind"}})


def test_trouble_that_passes_loses_nothing_and_doubles_nothing(told: MakeTold) -> None:
    town = told(policy={"messages": {"tickets_on": ["opened"]}})
    for notifier, path in POSTS.items():
        _break(town, notifier, path)
    incident = town.world.send_alert(town.client).json()["incident_id"]
    town.world.start_worker()
    # What is over already would page nobody. Jira is asked what it has only when its index had a minute.
    town.await_all_told(incident, "opened", seconds=200, impatient=["jira"])
    town.recover()
    sent = town.await_all_told(incident, "opened", "recovered", seconds=150)
    assert {m["status"] for m in sent} == {"sent"}
    for notifier in ALL:
        assert max(m["attempts"] for m in sent if m["notifier"] == notifier) > 1, f"{notifier} had no trouble"
        assert set(COUNTED[notifier](town).values()) == {1}, notifier


def _in_slack(town: Told) -> Counter[str]:
    thread = town.channel("checkout-oncall")
    return Counter(_key(message) for message in thread)


def _key(message: Json) -> str:
    """What tells one message of ours from another: our metadata, which an upload has not."""
    uploaded = [file["name"] for file in message.get("files", ())]
    return str(uploaded or message["metadata"]["event_payload"])


def _in_jira(town: Told) -> Counter[str]:
    issues = town.shop("jira/state")
    comments = [c for issue in issues for c in issue["comments"]]
    return Counter([*("ticket" for _ in issues), *(str(c["properties"]) for c in comments)])


def _at_pagerduty(town: Told) -> Counter[str]:
    """The same event twice is one to PagerDuty; two incidents of one key would not be."""
    return Counter(p["dedup_key"] for p in town.shop("pagerduty/state"))


def _at_the_webhook(town: Told) -> Counter[str]:
    """Who takes it knows it again by its id."""
    return Counter({r["id"]: 1 for r in town.shop("webhook") if r["verified"]})


COUNTED: dict[str, Callable[[Told], Counter[str]]] = {
    "slack": _in_slack,
    "jira": _in_jira,
    "pagerduty": _at_pagerduty,
    "webhook": _at_the_webhook,
}


@pytest.mark.parametrize(
    ("wrong", "mended", "says"),
    [
        ({"is_archived": True}, {"is_archived": False}, "archived"),
        ({"is_member": False}, {"is_member": True}, "/invite"),
    ],
    ids=["archived", "not invited"],
)
def test_a_channel_that_people_mend_hears_all_of_it(told: MakeTold, wrong: Json, mended: Json, says: str) -> None:
    town = told("slack", "webhook")
    town.back_door("slack/channels/checkout-oncall", wrong, "PATCH")
    town.world.start_worker()
    incident = town.world.to_the_decision(town.client)
    town.await_refusal(incident, "slack", says)
    assert town.world.decide(town.client, incident, "1").status_code == 202, "nothing of it blocks the incident"
    town.world.await_status(town.client, incident, "resolved", seconds=90)
    assert "not_delivered" in str(town.client.get(f"/incidents/{incident}").json()), "people see it in the incident"
    processes.wait_until(
        lambda: "incident.resolved" in [r["body"]["type"] for r in town.shop("webhook")], "the others are told"
    )
    assert town.channel("checkout-oncall") == []

    town.back_door("slack/channels/checkout-oncall", mended, "PATCH")
    sent = town.await_all_told(incident, "opened", "verification", impatient=["slack"])
    assert {m["status"] for m in sent} == {"sent"}
    assert set(_in_slack(town).values()) == {1}
    assert "resolved" in town.channel("checkout-oncall")[0]["text"]


def test_tokens_and_keys_that_people_renew_cost_nothing(told: MakeTold) -> None:
    town = told(policy={"messages": {"tickets_on": ["opened"]}})
    town.back_door("slack/app", {"token_error": "token_expired"}, "PATCH")
    town.back_door("jira", {"token": "renewed"}, "PATCH")
    town.back_door("webhook", {"secret": "whsec_cm90YXRlZCBpbiB0aGUgd3Jvbmcgb3JkZXI="}, "PATCH")
    town.back_door("fail", {"path": POSTS["pagerduty"], "status": 403})
    town.world.start_worker()
    incident = town.world.to_the_decision(town.client)
    for notifier in ALL:
        town.await_refusal(incident, notifier, f"AUTOPILOT_{notifier.upper()}_")
        assert not COUNTED[notifier](town), notifier

    town.back_door("slack/app", {"token_error": ""}, "PATCH")
    town.back_door("jira", {"token": jira.API_TOKEN}, "PATCH")
    town.back_door("webhook", {"secret": webhook_sink.SECRET}, "PATCH")
    sent = town.await_all_told(incident, "opened", "status", impatient=ALL)
    assert {m["status"] for m in sent} == {"sent"}
    assert town.world.decide(town.client, incident, "1").status_code == 202
    town.world.await_status(town.client, incident, "resolved", seconds=90)
    sent = town.await_all_told(incident, "verification")
    assert {m["status"] for m in sent} == {"sent"}
    for notifier in ALL:
        assert set(COUNTED[notifier](town).values()) == {1}, notifier
    taken = {r["id"] for r in town.shop("webhook") if r["verified"]}
    assert taken == {m["id"] for m in sent if m["notifier"] == "webhook"}


def test_killed_right_after_the_vendors_took_it(told: MakeTold) -> None:
    town = told(policy={"messages": {"tickets_on": ["opened"]}})
    for path in POSTS.values():
        town.back_door("hold", {"path": path, "when": "after", "seconds": 600})
    incident = town.world.send_alert(town.client).json()["incident_id"]
    doomed = town.world.start_worker()
    processes.wait_until(lambda: all(COUNTED[name](town) for name in ALL), "the vendors have it", 90.0)
    processes.kill(doomed)
    town.world.start_worker()
    town.recover()
    sent = town.await_all_told(incident, "opened", "recovered", seconds=200)
    assert {m["status"] for m in sent} == {"sent"}
    for notifier in ALL:
        assert set(COUNTED[notifier](town).values()) == {1}, notifier
    assert [page["state"] for page in town.shop("pagerduty/state")] == ["resolved"], "it must not ring for ever"


# --- injection ---

TRICKS = (
    "@channel @here <!channel> <!here> <@U0MINJI> <https://evil.example/slack|our runbook> https://evil.example/bare "
    '*bold* _it_ ~s~ `c` > quote {"type":"mention","attrs":{"id":"712020:minji"}} '
    "[click](https://evil.example/md) ![p](https://evil.example/p.png) <script>alert(1)</script> "
    "[~minji] {panel}x{panel}"
)
EVIL = re.compile(r"evil\.example|javascript:")


def run_hostile_shop(clock: str, port: int) -> None:
    """A shop in which a customer's coupon is written to the log."""
    import uvicorn

    from app.clock import parse_clock
    from app.simulator.server import create_app
    from app.simulator.shop import Shop

    hostile = replace(
        SCENARIOS["bad-deploy"], defects={"checkout:v2.4.0": Defect(error_ratio=0.35, logs=f" for {TRICKS}")}
    )
    uvicorn.run(create_app(Shop(hostile, parse_clock(clock), seed=7)), host="127.0.0.1", port=port, log_level="warning")


def test_tricks_arrive_inert(told: MakeTold) -> None:
    """Whoever writes to our log or names an alert reaches people's eyes, and nothing else of theirs."""
    town = told(shop=run_hostile_shop, policy={"messages": {"tickets_on": ["awaiting_decision"]}})
    world, client = town.world, town.client
    world.start_worker()
    named = {"title": f"[Triggered] {TRICKS}", "alert_title": TRICKS, "message": TRICKS, "body": TRICKS}
    incident = world.send_alert(client, **named).json()["incident_id"]
    world.await_status(client, incident, "awaiting_decision")
    sent = town.await_all_told(incident, "opened", "status")
    assert {m["status"] for m in sent} == {"sent"}, sent
    ours = re.compile(rf"(http://127\.0\.0\.1:8080/|{re.escape(world.shop_url)}/)")

    thread = town.channel("checkout-oncall")
    assert "evil.example" in str(thread), "people may read what the customer typed"
    assert [m["effects"]["pings"] for m in thread if m["effects"]["pings"]] == []
    assert [link for m in thread for link in m["effects"]["links"] if not ours.match(link)] == []
    page = processes.CLIENT.get(f"{world.shop_url}/_shop/slack", timeout=20).text
    assert "<script>alert" not in page

    (issue,) = town.shop("jira/state")
    documents = [issue["fields"]["description"], *(c["body"] for c in issue["comments"])]
    assert "evil.example" in str(documents)
    assert [wrong for document in documents for wrong in jira_adf.why(document)] == []
    assert [link for link in _links_in(documents) if EVIL.search(link)] == []
    assert "mention" not in _kinds_in(documents)
    assert "\n" not in issue["fields"]["summary"]

    (page_,) = town.shop("pagerduty/state")
    assert all(ours.match(link["href"]) for event in page_["events"] for link in event.get("links", ()))
    assert "\n" not in page_["payload"]["summary"]

    draft = client.get(f"/incidents/{incident}/postmortem", headers={"Accept": "text/markdown"})
    shown = MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(draft.text)
    assert draft.status_code == 200, draft.text
    assert "evil.example" in shown
    assert [a for a in re.findall(r'(?:href|src)="([^"]*)"', shown) if EVIL.search(a)] == []
    assert "<script>" not in shown


def _links_in(node: object) -> list[str]:
    """Where a document of Jira leads to."""
    if isinstance(node, list):
        return [link for part in node for link in _links_in(part)]
    if not isinstance(node, dict):
        return []
    own = (
        [str(node["attrs"].get("href") or node["attrs"].get("url"))]
        if node.get("type") in ("link", "inlineCard")
        else []
    )
    return own + [link for part in node.values() for link in _links_in(part)]


def _kinds_in(node: object) -> set[str]:
    if isinstance(node, list):
        return {kind for part in node for kind in _kinds_in(part)}
    if not isinstance(node, dict):
        return set()
    return {str(node.get("type"))} | {kind for part in node.values() for kind in _kinds_in(part)}
