"""Slack's endpoints in the shop, used as slack_sdk uses them; and people who click."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.signature import SignatureVerifier

from tests.simulator.conftest import Served

PAYMENTS = "C0PAYMENTS"
SECRET = "shop-signing-secret"
BUTTON = {
    "type": "button",
    "action_id": "go:1",
    "text": {"type": "plain_text", "text": "Run"},
    "value": "inc_1:rev:1",
    "confirm": {
        "title": {"type": "plain_text", "text": "Run it?"},
        "text": {"type": "mrkdwn", "text": "Rolls `checkout` back"},
        "confirm": {"type": "plain_text", "text": "Run"},
        "deny": {"type": "plain_text", "text": "Back"},
    },
}


class Slack:
    """The shop's workspace, and a client of our app."""

    def __init__(self, served: Served) -> None:
        self.url = served.url
        self.http = httpx.Client(base_url=served.url, timeout=10)
        self.client = WebClient("xoxb-shop", base_url=f"{served.url}/slack/api/", retry_handlers=[])
        self.install(scopes=["chat:write", "channels:history", "channels:read", "files:write", "users:read"])

    def install(self, **change: Any) -> None:
        """Change the installed app."""
        self.http.patch("/_shop/slack/app", json=change).raise_for_status()

    def trouble(self, kind: str, **what: Any) -> None:
        """By the back door."""
        self.http.post(f"/_shop/{kind}", json=what).raise_for_status()

    def state(self) -> dict[str, Any]:
        """Of the workspace."""
        found: dict[str, Any] = self.http.get("/_shop/slack/state").json()
        return found

    def messages(self, channel: str = "payments-oncall") -> list[dict[str, Any]]:
        """All of a channel, oldest first."""
        found: list[dict[str, Any]] = self.state()["channels"][channel]["messages"]
        return found

    def refused(self, call: Callable[[], object]) -> str:
        """Slack's word for why it did not."""
        with pytest.raises(SlackApiError) as caught:
            call()
        return str(caught.value.response["error"])


@pytest.fixture
def slack(serve: Callable[[str, float], Served]) -> Iterator[Slack]:
    made = Slack(serve("bad-deploy", 5))
    yield made
    made.http.close()


def _section(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text, **more}}


# --- messages ---


def test_a_thread_and_its_metadata_are_found_again(slack: Slack) -> None:
    parent = slack.client.chat_postMessage(channel="#payments-oncall", text="opened")
    assert parent["channel"] == PAYMENTS
    for number in range(5):
        slack.client.chat_postMessage(
            channel=PAYMENTS,
            text=f"reply {number}",
            thread_ts=parent["ts"],
            metadata={"event_type": "aiops_message", "event_payload": {"message_id": str(number)}},
        )
    found, cursor = [], ""
    while True:
        page = slack.client.conversations_replies(
            channel=PAYMENTS, ts=parent["ts"], limit=2, cursor=cursor or None, include_all_metadata=True
        )
        found += page["messages"]
        cursor = page["response_metadata"]["next_cursor"]
        if not page["has_more"]:
            break
    assert [m["text"] for m in found] == ["opened", *(f"reply {n}" for n in range(5))]
    assert found[-1]["metadata"]["event_payload"] == {"message_id": "4"}
    assert "metadata" not in slack.client.conversations_replies(channel=PAYMENTS, ts=parent["ts"])["messages"][-1]
    assert [m["text"] for m in slack.client.conversations_history(channel=PAYMENTS)["messages"]] == ["opened"]
    after = slack.client.conversations_replies(channel=PAYMENTS, ts=parent["ts"], oldest=found[3]["ts"])
    assert [m["text"] for m in after["messages"]] == ["opened", "reply 3", "reply 4"]


def test_an_update_keeps_what_it_does_not_name(slack: Slack) -> None:
    actions = {"type": "actions", "elements": [BUTTON]}
    sent = slack.client.chat_postMessage(channel=PAYMENTS, text="a", blocks=[actions])
    slack.client.chat_update(channel=PAYMENTS, ts=sent["ts"], text="b")
    assert slack.messages()[0]["buttons"] == [{"action_id": "go:1", "value": "inc_1:rev:1"}]
    slack.client.chat_update(channel=PAYMENTS, ts=sent["ts"], text="b", blocks=[])
    assert (slack.messages()[0]["text"], slack.messages()[0]["buttons"]) == ("b", [])
    assert slack.refused(lambda: slack.client.chat_update(channel=PAYMENTS, ts="1.2", text="b")) == "message_not_found"
    by_name = slack.refused(lambda: slack.client.chat_update(channel="payments-oncall", ts=sent["ts"], text="b"))
    assert by_name == "channel_not_found"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"channel": "C404", "text": "a"}, "channel_not_found"),
        ({"channel": "general", "text": "a"}, "not_in_channel"),
        ({"channel": "old-alerts", "text": "a"}, "is_archived"),
        ({"channel": PAYMENTS, "text": ""}, "no_text"),
        ({"channel": PAYMENTS, "text": "a" * 40_001}, "msg_too_long"),
        ({"channel": PAYMENTS, "text": "a", "thread_ts": "1.2"}, "thread_not_found"),
        ({"channel": PAYMENTS, "text": "a", "metadata": {"event_type": "x"}}, "invalid_metadata_format"),
    ],
)
def test_refusals_are_200_and_a_word(slack: Slack, arguments: dict[str, Any], error: str) -> None:
    answer = slack.http.post(
        "/slack/api/chat.postMessage", json=arguments, headers={"Authorization": "Bearer xoxb-shop"}
    )
    assert (answer.status_code, answer.json()["ok"], answer.json()["error"]) == (200, False, error)


def test_the_token_and_its_scopes_are_checked(slack: Slack) -> None:
    post = "/slack/api/chat.postMessage"
    assert slack.http.post(post).json()["error"] == "not_authed"
    assert slack.http.post(post, headers={"Authorization": "Bearer xoxb-other"}).json()["error"] == "invalid_auth"
    slack.install(scopes=["channels:history"])
    with pytest.raises(SlackApiError) as caught:
        slack.client.chat_postMessage(channel=PAYMENTS, text="a")
    told = {key: caught.value.response[key] for key in ("error", "needed", "provided")}
    assert told == {"error": "missing_scope", "needed": "chat:write", "provided": "channels:history"}
    slack.install(token_error="token_expired")
    assert slack.refused(slack.client.auth_test) == "token_expired"
    slack.install(token_error="")
    assert slack.client.auth_test()["user_id"] == "U0AUTOPILOT"


@pytest.mark.parametrize(
    ("blocks", "pointer"),
    [
        ([_section("a")] * 51, "no more than 50 items allowed [json-pointer:/blocks]"),
        ([_section("a" * 3001)], "must be less than 3001 characters [json-pointer:/blocks/0/text/text]"),
        ([_section("")], "must be more than 0 characters [json-pointer:/blocks/0/text/text]"),
        ([{"type": "header", "text": {"type": "mrkdwn", "text": "a"}}], "[json-pointer:/blocks/0/text/type]"),
        ([{"type": "header", "text": {"type": "plain_text", "text": "a" * 151}}], "less than 151 characters"),
        ([{"type": "actions", "elements": [BUTTON, BUTTON]}], "action_id must be unique: go:1"),
        ([{"type": "actions", "elements": [BUTTON | {"value": "a" * 2001}]}], "less than 2001 characters"),
        ([{"type": "actions", "elements": [BUTTON | {"style": "loud"}]}], "[json-pointer:/blocks/0/elements/0/style]"),
        ([{"type": "context", "elements": [{"type": "mrkdwn", "text": "a"}] * 11}], "no more than 10 items allowed"),
        ([{"type": "section", "fields": [{"type": "mrkdwn", "text": "a"}] * 11}], "no more than 10 items allowed"),
        ([{"type": "marquee"}], "unsupported type: marquee [json-pointer:/blocks/0/type]"),
        ([{"type": "image", "alt_text": "a", "slack_file": {"id": "F404"}}], "invalid slack file"),
        (
            [{"type": "rich_text", "elements": [{"type": "text", "text": "a"}]}],
            "[json-pointer:/blocks/0/elements/0/type]",
        ),
    ],
)
def test_blocks_that_slack_refuses(slack: Slack, blocks: list[dict[str, Any]], pointer: str) -> None:
    with pytest.raises(SlackApiError) as caught:
        slack.client.chat_postMessage(channel=PAYMENTS, text="a", blocks=blocks)
    assert caught.value.response["error"] == "invalid_blocks"
    assert any(pointer in told for told in caught.value.response["response_metadata"]["messages"])
    assert slack.messages() == []


def test_a_picture_is_uploaded_into_a_thread(slack: Slack) -> None:
    parent = slack.client.chat_postMessage(channel=PAYMENTS, text="opened")
    done = slack.client.files_upload_v2(
        channel=PAYMENTS, thread_ts=parent["ts"], content=b"\x89PNG....", filename="chart.png", title="Latency"
    )
    name = done["files"][0]["id"]
    assert slack.http.get(f"/_shop/slack/files/{name}").content == b"\x89PNG...."
    shared = slack.messages()[1]
    assert (shared["thread_ts"], shared["files"][0]["title"]) == (parent["ts"], "Latency")
    slack.client.chat_postMessage(
        channel=PAYMENTS, text="a", blocks=[{"type": "image", "alt_text": "a", "slack_file": {"id": name}}]
    )


# --- trouble ---


def test_trouble_in_slacks_own_words(slack: Slack) -> None:
    path = "/slack/api/chat.postMessage"
    slack.trouble("fail", path=path, status=429, retry_after_s=7)
    slack.trouble("fail", path=path, status=500)
    slack.trouble("fail", path=path, status=200, code="internal_error")
    headers = {"Authorization": "Bearer xoxb-shop"}
    body = {"channel": PAYMENTS, "text": "a"}
    answers = [slack.http.post(path, json=body, headers=headers) for _ in range(4)]
    assert [a.status_code for a in answers] == [429, 500, 200, 200]
    assert (answers[0].headers["Retry-After"], answers[0].json()["error"]) == ("7", "ratelimited")
    assert (answers[2].json()["error"], answers[3].json()["ok"]) == ("internal_error", True)
    assert len(slack.messages()) == 1


def test_accepted_and_then_silent(slack: Slack) -> None:
    path = "/slack/api/chat.postMessage"
    slack.trouble("hold", path=path, when="after", seconds=30, times=2)
    headers = {"Authorization": "Bearer xoxb-shop"}
    for text in ("a", "b"):
        with pytest.raises(httpx.ReadTimeout):
            slack.http.post(path, json={"channel": PAYMENTS, "text": text}, headers=headers, timeout=0.5)
    assert [m["text"] for m in slack.messages()] == ["a", "b"]
    assert slack.http.post(path, json={"channel": PAYMENTS, "text": "c"}, headers=headers).json()["ok"]


# --- what a text does to people ---


@pytest.mark.parametrize(
    ("text", "pings", "links"),
    [
        ("<!channel> look", ["channel"], []),
        ("@here look", ["here"], []),
        ("<@U0MINJI> look", ["U0MINJI"], []),
        ("<https://evil.example|our runbook>", [], ["https://evil.example"]),
        ("see https://evil.example/a", [], ["https://evil.example/a"]),
        ("&lt;!channel&gt; look", [], []),
        ("`@here <!channel>`", [], []),
        ("mail me@here.com", [], []),
    ],
)
def test_what_mrkdwn_does(slack: Slack, text: str, pings: list[str], links: list[str]) -> None:
    slack.client.chat_postMessage(channel=PAYMENTS, text="a", blocks=[_section(text)])
    assert slack.messages()[0]["effects"] == {"pings": pings, "links": links}


def test_plain_and_rich_text_do_nothing(slack: Slack) -> None:
    text = "<!channel> @here <https://evil.example|x> *bold*"
    run = {"type": "rich_text_section", "elements": [{"type": "text", "text": text}]}
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": text}},
        {"type": "rich_text", "elements": [run]},
    ]
    slack.client.chat_postMessage(channel=PAYMENTS, blocks=blocks, text="a")
    assert slack.messages()[0]["effects"] == {"pings": [], "links": []}
    page = slack.http.get("/_shop/slack", params={"channel": "payments-oncall"}).text
    assert page.count("&lt;!channel&gt; @here &lt;https://evil.example|x&gt; *bold*") == 2


def test_the_page_escapes_what_it_shows(slack: Slack) -> None:
    slack.client.chat_postMessage(
        channel=PAYMENTS,
        text="<script>alert(1)</script>",
        blocks=[
            _section("*bold* _it_ `a<b` <javascript:alert(1)|x> &lt;b&gt;\n> said"),
            {"type": "actions", "elements": [BUTTON]},
        ],
    )
    page = slack.http.get("/_shop/slack").text
    assert "<b>bold</b> <i>it</i> <code>a&lt;b</code>" in page
    assert '<a href="#" rel="noreferrer">x</a> &lt;b&gt;' in page
    assert "javascript:alert" not in page
    assert "Run it?" in page
    assert 'data-action="go:1"' in page


# --- clicks ---


class App(BaseHTTPRequestHandler):
    """Our interactivity URL: keeps payloads whose signature holds, answers with what stands in ``reply``."""

    payloads: list[dict[str, Any]]
    reply: bytes

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        signed = (self.headers["X-Slack-Request-Timestamp"], self.headers["X-Slack-Signature"])
        valid = SignatureVerifier(SECRET).is_valid(body, *signed)
        if valid:
            self.payloads.append(json.loads(parse_qs(body)["payload"][0]))
        self.send_response(200 if valid else 401)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(self.reply)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def app(slack: Slack) -> Iterator[type[App]]:
    handler: type[App] = type("Handler", (App,), {"payloads": [], "reply": b""})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    slack.install(interactivity_url=f"http://127.0.0.1:{server.server_address[1]}/actions")
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


def _pressed(slack: Slack) -> httpx.Response:
    sent = slack.client.chat_postMessage(channel=PAYMENTS, text="a", blocks=[{"type": "actions", "elements": [BUTTON]}])
    press = {"channel": PAYMENTS, "ts": sent["ts"], "action_id": "go:1", "user": "U0MINJI"}
    return slack.http.post("/_shop/slack/press", json=press)


def test_a_click_arrives_signed_and_is_answered_five_times(slack: Slack, app: type[App]) -> None:
    assert _pressed(slack).json() == {"status": 200, "body": ""}
    payload = app.payloads[0]
    assert (payload["type"], payload["user"]["id"]) == ("block_actions", "U0MINJI")
    assert payload["actions"][0]["value"] == "inc_1:rev:1"
    answers = [httpx.post(payload["response_url"], json={"text": "no"}, timeout=5) for _ in range(6)]
    assert [(a.status_code, a.text) for a in answers[4:]] == [(200, "ok"), (404, "used_url")]
    assert [e["user"] for e in slack.state()["ephemerals"]] == ["U0MINJI"] * 5
    assert "Only visible to you" in slack.http.get("/_shop/slack?as=U0MINJI").text
    assert "Only visible to you" not in slack.http.get("/_shop/slack?as=U0ALEX").text


def test_a_modal_is_opened_once_and_submitted(slack: Slack, app: type[App]) -> None:
    _pressed(slack)
    view = {
        "type": "modal",
        "callback_id": "ours",
        "private_metadata": "inc_1:rev:re_analyze",
        "title": {"type": "plain_text", "text": "Look again"},
        "submit": {"type": "plain_text", "text": "Send"},
        "blocks": [
            {
                "type": "input",
                "block_id": "b",
                "label": {"type": "plain_text", "text": "Hint"},
                "element": {"type": "plain_text_input", "action_id": "hint", "multiline": True},
            }
        ],
    }
    trigger = app.payloads[0]["trigger_id"]
    opened = slack.client.views_open(trigger_id=trigger, view=view)["view"]["id"]
    assert slack.refused(lambda: slack.client.views_open(trigger_id=trigger, view=view)) == "exchanged_trigger_id"
    assert slack.refused(lambda: slack.client.views_open(trigger_id="1.2.3", view=view)) == "invalid_trigger_id"
    app.reply = b'{"response_action": "errors", "errors": {"b": "say more"}}'
    submit = {"modal": opened, "values": {"hint": "the coupons"}}
    slack.http.post("/_shop/slack/submit", json=submit).raise_for_status()
    assert slack.state()["modals"][0]["errors"] == {"b": "say more"}
    app.reply = b""
    slack.http.post("/_shop/slack/submit", json=submit).raise_for_status()
    sent = app.payloads[-1]["view"]
    assert sent["state"]["values"] == {"b": {"hint": {"type": "plain_text_input", "value": "the coupons"}}}
    assert sent["private_metadata"] == "inc_1:rev:re_analyze"
    assert slack.state()["modals"] == []


def test_a_button_that_is_gone_cannot_be_pressed(slack: Slack, app: type[App]) -> None:
    _pressed(slack)
    sent = slack.messages()[0]
    slack.client.chat_update(channel=PAYMENTS, ts=sent["ts"], text="a", blocks=[])
    press = {"channel": PAYMENTS, "ts": sent["ts"], "action_id": "go:1", "user": "U0MINJI"}
    assert slack.http.post("/_shop/slack/press", json=press).status_code == 404
    assert len(app.payloads) == 1
