"""Grafana's groups and signatures, as they really come."""

import hashlib
import hmac
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from app.intake.base import Directory, Incoming, Parsed, Unauthentic, UnreadablePayload
from app.intake.grafana import Grafana, Settings
from graph.catalogue import Catalogue, Service

FIXTURES = Path(__file__).parent / "fixtures" / "grafana"
TOKEN = "a-token-of-a-contact-point"
SECRET = "a-secret-of-a-contact-point"
BODY = b'{"status":"firing","alerts":[]}'
SENDER = Grafana(Settings(tokens=(SecretStr(TOKEN),)))
SIGNED = Grafana(
    Settings(tokens=(SecretStr(TOKEN),), hmac_secrets=(SecretStr("the-secret-before-it"), SecretStr(SECRET)))
)
TIMED = Grafana(Settings(hmac_secrets=(SecretStr(SECRET),), timestamp_header="X-Grafana-Alerting-Timestamp"))
DIRECTORY = Directory(Catalogue(services={"checkout": Service(), "payment-service": Service()}))


def payload(fixture: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FIXTURES / f"{fixture}.json").read_bytes())
    return loaded


def parse(body: object) -> Parsed:
    return SENDER.parse(Incoming({}, json.dumps(body).encode()), DIRECTORY)


def signature(text: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("fixture", "expected"),
    [
        (
            "firing",
            {
                "service": "checkout",
                "title": "This alert was triggered for zone us-1",
                "severity": "critical",
                "transition": "firing",
                "rule": "grafana:1:1afz29v7z",
                "fingerprint": "grafana:1:c6eadffa33fcdf37",
                "cycle_key": "grafana:1:c6eadffa33fcdf37:2026-01-15T09:25:03.157076+00:00",
                "resources": {"zone": "us-1"},
                "occurred_at": datetime(2026, 1, 15, 9, 25, 3, 157076, UTC),
                "url": "https://play.grafana.org/d/abc?orgId=1&viewPanel=4",
                "text": "The system has high memory usage\nrunbook_url: https://myrunbook.com/runbook/1234\n"
                "[ var='B' labels={} value=44.23943737541908 ]",
            },
        ),
        (
            "resolved",
            {
                "transition": "resolved",
                "rule": "grafana:1:1afz29v7z",
                "fingerprint": "grafana:1:c6eadffa33fcdf37",
                "cycle_key": "grafana:1:c6eadffa33fcdf37:2026-01-15T09:25:03.157076+00:00",
                "changed_at": datetime(2026, 1, 15, 9, 40, tzinfo=UTC),
                "url": "https://play.grafana.org/alerting/grafana/1afz29v7z/view?orgId=1",
            },
        ),
        (
            "no_data",
            {
                "service": "payment-service",
                "title": "payment-service error rate: no data",
                "transition": "no_data",
                "rule": "grafana:2:payment-service error rate",
                "fingerprint": "grafana:2:aabbccddeeff0011",
                "resources": {},
                "url": "http://localhost:3000/?orgId=2",
            },
        ),
        (
            "error",
            {
                "service": "checkout",
                "title": "High memory usage: the data source answers with an error",
                "transition": "firing",
                "rule": "grafana:1:1afz29v7z",
                "url": "https://grafana.example.com/alerting/grafana/1afz29v7z/view?orgId=1",
                "text": "Error: failed to execute query A: context deadline exceeded",
            },
        ),
    ],
)
def test_what_an_alert_becomes(fixture: str, expected: dict[str, object]) -> None:
    alert = parse(payload(fixture)).alerts[0]
    assert {key: getattr(alert, key) for key in expected} == expected


def test_data_that_came_back_is_a_recovery() -> None:
    group = payload("no_data")
    group["alerts"][0] |= {"status": "resolved", "endsAt": "2026-01-15T10:30:00Z"}
    assert parse(group).alerts[0].transition == "resolved"


def test_a_rule_that_counts_no_data_as_alerting_says_so_in_its_reason() -> None:
    group = payload("firing")
    group["alerts"][0]["annotations"]["grafana_state_reason"] = "NoData"
    assert parse(group).alerts[0].transition == "no_data"


def test_organisations_have_nothing_in_common() -> None:
    one, other = parse(payload("firing")), parse(payload("firing") | {"orgId": 7})
    assert one.delivery_key != other.delivery_key
    assert {other.alerts[0].fingerprint, other.alerts[0].rule} == {"grafana:7:c6eadffa33fcdf37", "grafana:7:1afz29v7z"}


def test_a_resend_is_the_same_delivery_and_the_recovery_is_not() -> None:
    keys = [parse(payload(f)).delivery_key for f in ("firing", "firing", "resolved")]
    assert keys[0] == keys[1] != keys[2]


def test_a_custom_payload_belongs_to_the_generic_webhook() -> None:
    with pytest.raises(UnreadablePayload, match="/webhooks/generic/"):
        parse(payload("custom_payload"))


def test_what_cannot_be_read_is_named_and_loses_nothing_else() -> None:
    group = payload("firing")
    read = len(group["alerts"])
    group["alerts"].append("rubbish")
    parsed = parse(group)
    assert len(parsed.alerts) == read
    assert parsed.left_out.startswith(f"1 of {read + 1} alerts left out")
    assert parsed.note == ""


def test_a_link_that_is_none_is_left_out() -> None:
    group = payload("error") | {"externalURL": "http://["}
    assert parse(group).alerts[0].url is None


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["generatorURL", "panelURL", "valueString", "orgId"]), st.text() | st.floats()))
def test_nothing_but_unreadable_is_raised(odd: dict[str, object]) -> None:
    group = payload("error")
    group["alerts"][0] |= odd
    assert parse(group | {"externalURL": odd.get("panelURL"), "orgId": odd.get("orgId")}).alerts


# --- who sent it ---


async def test_the_token() -> None:
    await SENDER.verify(Incoming({"authorization": f"Bearer {TOKEN}"}, BODY))
    with pytest.raises(Unauthentic, match="AUTOPILOT_GRAFANA_TOKENS"):
        await SENDER.verify(Incoming({}, BODY))


def test_a_signature_is_what_grafana_makes_of_it() -> None:
    assert signature(BODY, "s3cr3t") == "aecf38b515928abd5374263edc754ad9a32c22e099dc08b3210ca68ae45cbf30"
    timed = signature(b"1700000000:" + BODY, "s3cr3t")
    assert timed == "11cee29848aae61df866874242bf1677ed81f07fb4652929b9e2fb95068516b5"


@pytest.mark.parametrize("secret", ["the-secret-before-it", SECRET])
async def test_a_signature(secret: str) -> None:
    await SIGNED.verify(Incoming({"x-grafana-alerting-signature": signature(BODY, secret)}, BODY))


async def test_the_header_can_have_another_name() -> None:
    sender = Grafana(Settings(hmac_secrets=(SecretStr(SECRET),), signature_header="X-Our-Signature"))
    await sender.verify(Incoming({"x-our-signature": signature(BODY)}, BODY))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": f"Bearer {TOKEN}"},
        {"x-grafana-alerting-signature": ""},
        {"x-grafana-alerting-signature": "é"},
        {"x-grafana-alerting-signature": signature(BODY, "a-secret-of-someone-else")},
        {"x-grafana-alerting-signature": signature(BODY + b" ")},
    ],
)
async def test_a_token_does_not_replace_the_signature(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthentic, match="AUTOPILOT_GRAFANA_HMAC_SECRETS"):
        await SIGNED.verify(Incoming(headers, BODY))


def timed(timestamp: str, signed: str | None = None) -> Incoming:
    sent = signature(f"{timestamp if signed is None else signed}:".encode() + BODY)
    headers = {"x-grafana-alerting-timestamp": timestamp, "x-grafana-alerting-signature": sent}
    return Incoming(headers, BODY)


async def test_a_signature_with_its_time() -> None:
    await TIMED.verify(timed(str(int(time.time()))))
    await TIMED.verify(timed(str(int(time.time()) - 290)))


@pytest.mark.parametrize("timestamp", ["", "now", "1e9", "-5", "٣", "1700000000", "9" * 400])
async def test_a_stale_time_and_no_time(timestamp: str) -> None:
    with pytest.raises(Unauthentic, match="X-Grafana-Alerting-Timestamp"):
        await TIMED.verify(timed(timestamp))


async def test_a_future_time_and_another_time_than_the_signed() -> None:
    now = int(time.time())
    with pytest.raises(Unauthentic, match="away from our clock"):
        await TIMED.verify(timed(str(now + 400)))
    with pytest.raises(Unauthentic, match="HMAC_SECRETS"):
        await TIMED.verify(timed(str(now), signed=str(now - 400)))
    body_only = {"x-grafana-alerting-timestamp": str(now), "x-grafana-alerting-signature": signature(BODY)}
    with pytest.raises(Unauthentic, match="HMAC_SECRETS"):
        await TIMED.verify(Incoming(body_only, BODY))
