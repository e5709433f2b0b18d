"""The outgoing webhook against a real server: signed, bounded, and what each answer means."""

import asyncio
import json
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from pydantic import SecretStr, ValidationError
from standardwebhooks import Webhook, WebhookVerificationError

from app.catalogue import AutopilotYaml
from app.clock import SystemClock
from app.notifiers import webhook
from app.notifiers._http import retry_after_s
from app.notifiers.base import TryAgain, Undeliverable
from app.notifiers.webhook import WebhookNotifier
from tests.app.listening import Listener, listening
from tests.app.telling import CAUSE, telling

OLD, NEW = (f"whsec_{b64encode(letter * 32).decode()}" for letter in (b"o", b"n"))


@pytest.fixture
def receiver() -> Iterator[Listener]:
    """One that listens."""
    with listening() as one:
        yield one


def notifier(url: str, *secrets: str) -> WebhookNotifier:
    """The notifier that posts there."""
    return WebhookNotifier(SecretStr(url), [SecretStr(s) for s in secrets or (NEW,)])


async def test_it_is_signed_so_that_the_library_verifies_it(receiver: Listener) -> None:
    told = telling("status", {"status": "awaiting_decision"}, root_cause=CAUSE, status="awaiting_decision")
    one = notifier(receiver.url)
    receipt = await one.deliver(told)
    await one.aclose()
    ((headers, body),) = receiver.came
    payload = Webhook(NEW).verify(body, headers)
    assert headers["webhook-id"] == str(told.id)
    assert (payload["type"], payload["timestamp"]) == ("incident.awaiting_decision", "2026-03-01T12:00:00+00:00")
    data = payload["data"]
    assert (data["incident_id"], data["severity"], data["url"]) == ("inc_1", "critical", told.url)
    assert data["root_cause"]["component"] == "payment-service"
    assert data["event"] == {
        "id": 7,
        "kind": "status",
        "node": "",
        "message": "what happened: status",
        "data": {"status": "awaiting_decision"},
    }
    assert receipt.detail == "127.0.0.1 took it"
    with pytest.raises(WebhookVerificationError):
        Webhook(NEW).verify(body.replace(b"critical", b"info"), headers)


async def test_both_secrets_sign_while_they_are_changed(receiver: Listener) -> None:
    one = notifier(receiver.url, OLD, NEW)
    await one.deliver(telling())
    await one.aclose()
    ((headers, body),) = receiver.came
    for secret in (OLD, NEW):
        assert Webhook(secret).verify(body, headers)["type"] == "incident.opened"


async def test_every_attempt_has_the_same_id(receiver: Listener) -> None:
    one, told = notifier(receiver.url), telling()
    receiver.answers = [(503, {})]
    with pytest.raises(TryAgain):
        await one.deliver(told)
    await one.deliver(told)
    await one.aclose()
    assert len({headers["webhook-id"] for headers, _ in receiver.came}) == 1
    assert await one.look_up(told) is None


async def test_the_body_is_bounded(receiver: Listener) -> None:
    one = notifier(receiver.url)
    await one.deliver(telling("note", {"huge": "x" * 1_000_000}, title="t" * 1_000_000))
    await one.aclose()
    ((_, body),) = receiver.came
    assert len(body) < 20_000
    assert json.loads(body)["data"]["event"]["data"] == {}


@pytest.mark.parametrize(
    ("status", "headers", "after_s", "ambiguous"),
    [
        (429, {"Retry-After": "17"}, 17.0, False),
        (429, {}, None, False),
        (500, {}, None, True),
        (503, {"Retry-After": "3"}, 3.0, True),
        (408, {}, None, True),
        (0, {}, None, True),  # took it, and hung up
        (401, {}, 300.0, False),  # its secret is being changed
        (403, {}, 300.0, False),
        (404, {}, 300.0, False),  # it is being deployed
    ],
)
async def test_what_may_pass(
    receiver: Listener, status: int, headers: dict[str, str], after_s: float | None, ambiguous: bool
) -> None:
    receiver.answers = [(status, headers)]
    one = notifier(receiver.url)
    with pytest.raises(TryAgain) as raised:
        await one.deliver(telling())
    await one.aclose()
    assert (raised.value.after_s, raised.value.ambiguous) == (after_s, ambiguous)
    assert raised.value.of_target is (after_s != 300)  # what is refused may be about this body alone
    assert "hunter2" not in f"{raised.value!r}{raised.value.detail}"


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (410, "wants no more of it"),
        (302, "redirects \\(302\\), which is not followed"),
        (422, "refuses it \\(422\\)"),
        (409, "refuses it \\(409\\)"),  # it may know the id already
    ],
)
async def test_what_will_never_be_taken(receiver: Listener, status: int, said: str) -> None:
    receiver.answers = [(status, {"Location": f"{receiver.url}/elsewhere"})]
    one = notifier(receiver.url)
    with pytest.raises(Undeliverable, match=said) as raised:
        await one.deliver(telling())
    await one.aclose()
    assert len(receiver.came) == 1  # not followed
    assert "hunter2" not in raised.value.detail


async def test_a_refusal_says_what_to_mend(receiver: Listener) -> None:
    receiver.answers = [(401, {})]
    one = notifier(receiver.url)
    with pytest.raises(TryAgain, match="must know the secret of AUTOPILOT_WEBHOOK_SECRETS"):
        await one.deliver(telling())
    await one.aclose()


async def test_nobody_there_surely_did_not_arrive() -> None:
    with listening() as gone:
        url = gone.url
    one = notifier(url)
    with pytest.raises(TryAgain, match=r"127\.0\.0\.1 cannot be reached: ConnectError") as raised:
        await one.deliver(telling())
    await one.aclose()
    assert not raised.value.ambiguous


async def test_a_read_timeout_may_have_arrived() -> None:
    async def silent(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0)
        raise httpx.ReadTimeout("", request=request)

    one = WebhookNotifier(SecretStr("https://example.com"), [SecretStr(NEW)], httpx.MockTransport(silent))
    with pytest.raises(TryAgain, match=r"example\.com did not answer: ReadTimeout") as raised:
        await one.deliver(telling())
    await one.aclose()
    assert raised.value.ambiguous


def test_retry_after_as_a_date_and_as_nonsense() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    said = retry_after_s({"retry-after": soon})
    assert said is not None
    assert 80 < said <= 90
    assert retry_after_s({"retry-after": format_datetime(datetime(2000, 1, 1, tzinfo=UTC))}) == 0.0
    for nonsense in ("", "soon", "-5", "٣", "1e9", "12:00"):
        assert retry_after_s({"retry-after": nonsense}) is None


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"URL": "http://example.com/hunter2"}, "must begin with https://"),
        ({"URL": "ftp://example.com"}, "must begin with https://"),
        ({"URL": "https://"}, "must begin with https://"),
        ({"URL": "https://example.com", "SECRETS": ""}, "AUTOPILOT_WEBHOOK_SECRETS is not set"),
        ({"URL": "https://example.com", "SECRETS": "whsec_c2hvcnQ="}, "this is no secret"),
        ({"URL": "https://example.com", "SECRETS": "whsec_ü"}, "this is no secret"),
    ],
)
def test_settings_that_cannot_work(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str) -> None:
    for name, value in {"SECRETS": NEW, **variables}.items():
        monkeypatch.setenv(f"AUTOPILOT_WEBHOOK_{name}", value)
    with pytest.raises(ValidationError, match=said) as raised:
        webhook.Settings()
    assert "hunter2" not in str(raised.value)


def test_this_machine_may_do_without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPILOT_WEBHOOK_SECRETS", f"{OLD}, {NEW}")
    for url in ("http://127.0.0.1:9/x", "http://localhost/x", "http://[::1]:9/x", "https://example.com/x"):
        monkeypatch.setenv("AUTOPILOT_WEBHOOK_URL", url)
        settings = webhook.Settings()
        assert [s.get_secret_value() for s in settings.secrets] == [OLD, NEW]
        assert url not in repr(settings)


def test_without_an_address_it_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="set AUTOPILOT_WEBHOOK_URL and AUTOPILOT_WEBHOOK_SECRETS"):
        webhook.create(SystemClock(), AutopilotYaml())
