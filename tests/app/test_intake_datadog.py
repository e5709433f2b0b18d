"""Datadog's payloads, as they really come."""

import json
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr

from app.api.webhooks import RECOMMENDED
from app.intake import datadog
from graph.state import Alert

DEFAULT = {
    "body": "%%%\nCPU of payment-service is high\n[Monitor](https://app.datadoghq.com/monitors/77)\n%%%",
    "last_updated": "1746013550000",
    "event_type": "query_alert_monitor",
    "title": "[Triggered on {service:checkout,host:db-1}] CPU high",
    "date": "1746013550000",
    "org": {"id": "1325540", "name": "Acme"},
    "id": "8082436309665268856",
}


def parse(payload: object, *services: str) -> Alert:
    return datadog.parse(json.dumps(payload).encode(), services)


def test_the_recommended_payload() -> None:
    alert = parse(RECOMMENDED)
    assert (alert.service, alert.transition, alert.severity) == ("payment-service", "firing", "critical")
    assert alert.title == "payment-service: error rate above 5 %"
    assert alert.occurred_at == datetime(2024, 12, 20, 9, 15, tzinfo=UTC)
    assert alert.cycle_key == "datadog:1325540:7673797852050213000"


def test_the_default_payload_has_its_facts_in_the_text() -> None:
    alert = parse(DEFAULT)
    assert (alert.service, alert.transition, alert.title) == ("checkout", "firing", "CPU high")
    assert "77" in alert.fingerprint
    unnamed = DEFAULT | {"title": "[Recovered] CPU high"}
    assert parse(unnamed, "payment", "payment-service").service == "payment-service"
    assert parse(unnamed, "payment-service").transition == "resolved"


@pytest.mark.parametrize(
    ("transition", "state", "severity"),
    [
        ("Triggered", "firing", "critical"),
        ("Re-Triggered", "firing", "critical"),
        ("Warn", "firing", "warning"),
        ("Re-Warn", "firing", "warning"),
        ("No Data", "no_data", "critical"),
        ("Re-No Data", "no_data", "critical"),
        ("Renotify", "renotify", "critical"),
        ("Recovered", "resolved", "critical"),
        ("Warn Recovered", "resolved", "warning"),
        ("$ALERT_TRANSITION", "firing", "critical"),
    ],
)
def test_transitions(transition: str, state: str, severity: str) -> None:
    alert = parse(RECOMMENDED | {"transition": transition})
    assert (alert.transition, alert.severity) == (state, severity)


def test_unset_variables_numbers_and_bare_tags() -> None:
    alert = parse(
        RECOMMENDED
        | {
            "title": "CPU high",
            "service": "$TAGS[service]",
            "cycle_key": 7673797852050213000,
            "tags": "monitor, service:a:b ,env:x",
        }
    )
    assert alert.service == "a:b"
    assert alert.cycle_key.endswith(":7673797852050213000")


@pytest.mark.parametrize(("date", "year"), [("1734686100", 2024), ("1734686100000", 2024), (1734686100000, 2024)])
def test_dates_in_seconds_and_milliseconds(date: object, year: int) -> None:
    assert parse(RECOMMENDED | {"date": date}).occurred_at.year == year


def test_a_retry_has_the_same_key_and_another_transition_does_not() -> None:
    key = datadog.delivery_key(json.dumps(RECOMMENDED).encode())
    assert key == datadog.delivery_key(json.dumps(RECOMMENDED, indent=1).encode())
    assert key != datadog.delivery_key(json.dumps(RECOMMENDED | {"transition": "Recovered"}).encode())


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[]", b"{", b'{"title": "x"}', b'{"title": "\\ud800"}'])
def test_what_cannot_be_read_is_told(body: bytes) -> None:
    with pytest.raises(datadog.UnreadablePayload):
        datadog.parse(body)


def test_any_of_the_valid_tokens_and_no_other() -> None:
    tokens = (SecretStr("first-of-two-tokens"), SecretStr("second-of-two-tokens"))
    assert datadog.verified({"x-aiops-token": "second-of-two-tokens"}, tokens)
    assert not datadog.verified({"x-aiops-token": "second-of-two-token"}, tokens)
    assert not datadog.verified({}, tokens)
    assert not datadog.verified({"x-aiops-token": ""}, ())
