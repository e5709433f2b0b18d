"""Alertmanager's groups, as they really come."""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from app.intake.alertmanager import Alertmanager, Settings
from app.intake.base import Directory, Incoming, Parsed, Unauthentic, UnreadablePayload
from graph.catalogue import Catalogue, Service

FIXTURES = Path(__file__).parent / "fixtures" / "alertmanager"
TOKEN = "an-alertmanager-token"
SENDER = Alertmanager(Settings(tokens=(SecretStr(TOKEN),)))
DIRECTORY = Directory(
    Catalogue(
        services={
            "checkout": Service(),
            "payment-service": Service(),
            "orders": Service(resources=("queue:orders.fifo",)),
        }
    )
)


def payload(fixture: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FIXTURES / f"{fixture}.json").read_bytes())
    return loaded


def parse(body: object) -> Parsed:
    return SENDER.parse(Incoming({}, json.dumps(body).encode()), DIRECTORY)


def one(**labels: object) -> dict[str, Any]:
    return {"alerts": [{"status": "firing", "labels": labels, "startsAt": "2026-01-15T10:25:00Z"}]}


MIXED = "alertmanager:a1b2c3d4e5f6a7b8"


@pytest.mark.parametrize(
    ("fixture", "index", "expected"),
    [
        (
            "mixed_group",
            0,
            {
                "service": "checkout",
                "title": "checkout: 12 % of requests fail",
                "severity": "critical",
                "transition": "firing",
                "environment": "production",
                "rule": "alertmanager:HighErrorRate",
                "fingerprint": MIXED,
                "cycle_key": f"{MIXED}:2026-01-15T10:25:00.123456+00:00",
                "resources": {"job": "shop/checkout", "instance": "10.0.3.7:8080", "namespace": "shop"},
                "occurred_at": datetime(2026, 1, 15, 10, 25, 0, 123456, UTC),
                "changed_at": datetime(2026, 1, 15, 10, 25, 0, 123456, UTC),
                "url": "http://prom:9090/graph?g0.expr=rate%28errors%5B5m%5D%29",
                "text": "5xx above 5 % for 5 minutes\nrunbook_url: https://runbooks.example.com/high-error-rate",
            },
        ),
        (
            "mixed_group",
            1,
            {
                "service": "payment-service",
                "title": "HighErrorRate",
                "severity": "warning",
                "transition": "resolved",
                "fingerprint": "alertmanager:0011223344556677",
                "cycle_key": "alertmanager:0011223344556677:2026-01-15T10:05:00+00:00",
                "occurred_at": datetime(2026, 1, 15, 10, 5, tzinfo=UTC),
                "changed_at": datetime(2026, 1, 15, 10, 24, 30, 500000, UTC),
                "url": "https://runbooks.example.com/high-error-rate",
            },
        ),
        (
            "kubernetes",
            0,
            {
                "service": "checkout",
                "severity": "warning",
                "occurred_at": datetime(2026, 1, 15, 10, 0, tzinfo=UTC),
                "resources": {"deployment": "checkout", "job": "kube-state-metrics", "namespace": "shop"},
            },
        ),
        (
            "opentelemetry",
            0,
            {
                "service": "payment-service",
                "environment": "staging",
                "severity": "info",
                "resources": {"host.name": "ip-10-0-3-7"},
                "url": None,
            },
        ),
        ("bare", 0, {"service": "Watchdog", "title": "Watchdog", "severity": "critical", "transition": "firing"}),
    ],
)
def test_what_an_alert_becomes(fixture: str, index: int, expected: dict[str, object]) -> None:
    alert = parse(payload(fixture)).alerts[index]
    assert {key: getattr(alert, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("labels", "service"),
    [
        ({"alertname": "X", "service": "billing", "app": "checkout"}, "billing"),
        ({"alertname": "X", "app": "checkout", "instance": "10.0.0.1:9100"}, "checkout"),
        ({"alertname": "X", "job": "shop/checkout"}, "checkout"),
        ({"alertname": "X", "job": "shop/mail"}, "mail"),
        ({"alertname": "X", "job": "node-exporter", "queue": "orders.fifo"}, "orders"),
        (
            {"alertname": "X", "service": "kps-kube-state-metrics", "job": "kube-state-metrics", "pod": "cart-1"},
            "cart-1",
        ),
        ({"alertname": "X", "job": "node-exporter", "instance": "10.0.0.1:9100"}, "10.0.0.1:9100"),
        ({"alertname": "orders are late", "instance": "10.0.0.1:9100"}, "orders"),
        ({"alertname": "X", "zone": "us-1"}, "X"),
        ({"zone": "us-1"}, "us-1"),
    ],
)
def test_the_service_is_found(labels: dict[str, object], service: str) -> None:
    assert parse(one(**labels)).alerts[0].service == service


def test_what_two_things_merely_have_alike_is_no_resource() -> None:
    labels = {
        "service": "db",
        "alertname": "DiskFull",
        "instance": "db-1:9100",
        "device": "/dev/sda1",
        "mountpoint": "/",
    }
    assert parse(one(**labels)).alerts[0].resources == {"instance": "db-1:9100"}


def test_an_alert_without_fingerprint_is_told_by_its_labels() -> None:
    first, same, other = (
        parse(one(**labels)).alerts[0].fingerprint
        for labels in ({"service": "a", "zone": "b"}, {"zone": "b", "service": "a"}, {"service": "a", "zone": "c"})
    )
    assert first == same != other


def test_a_repeat_and_a_copy_of_the_second_alertmanager_are_one_delivery() -> None:
    group = payload("mixed_group")
    copy = group | {"externalURL": "http://am-2:9093", "alerts": list(reversed(group["alerts"]))}
    assert parse(group).delivery_key == parse(copy).delivery_key is not None


@pytest.mark.parametrize(
    "change",
    [
        {"status": "resolved", "endsAt": "2026-01-15T10:40:00Z"},
        {"startsAt": "2026-01-15T11:25:00Z"},
        {"fingerprint": "ffffffffffffffff"},
    ],
)
def test_news_is_another_delivery(change: dict[str, str]) -> None:
    group = payload("mixed_group")
    news = group | {"alerts": [group["alerts"][0] | change, group["alerts"][1]]}
    assert parse(group).delivery_key != parse(news).delivery_key


def test_without_times_two_deliveries_never_count_as_the_same() -> None:
    group = payload("mixed_group")
    del group["alerts"][0]["startsAt"]
    assert parse(group).delivery_key is None


def test_what_cannot_be_read_is_named_and_loses_nothing_else() -> None:
    group = payload("mixed_group")
    group["alerts"] += [{"status": "firing"}, "rubbish"]
    parsed = parse(group)
    assert [a.service for a in parsed.alerts] == ["checkout", "payment-service"]
    assert parsed.left_out.startswith("2 of 4 alerts left out")
    assert "autopilot.yaml" in parsed.left_out
    assert parsed.note == ""


def test_what_alertmanager_left_out_is_told() -> None:
    assert parse(payload("kubernetes")).note == "Alertmanager left out 3 alerts (max_alerts)"
    assert parse(payload("kubernetes")).left_out == ""  # nothing of it can be read again
    assert parse(payload("mixed_group")).note == ""


def test_at_most_a_thousand_alerts_of_a_delivery() -> None:
    group = {"alerts": one(service="checkout")["alerts"] * 1001}
    parsed = parse(group)
    assert len(parsed.alerts) == 1000
    assert "1001" in parsed.left_out


def test_a_group_of_nothing() -> None:
    parsed = parse({"alerts": []})
    assert (parsed.alerts, parsed.delivery_key) == ((), None)


def test_a_recovery_whose_end_is_not_told_is_over_now() -> None:
    group = one(service="checkout")
    group["alerts"][0] |= {"status": "resolved", "endsAt": "0001-01-01T00:00:00Z"}
    changed_at = parse(group).alerts[0].changed_at
    assert changed_at
    assert abs((datetime.now(UTC) - changed_at).total_seconds()) < 60


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"alerts": {}}',
        b'{"alerts": [null]}',
        b'{"alerts": [{"labels": {"a": {}}, "annotations": 7}]}',
        b'{"alerts": ' + b"[" * 100_000,
        b'{"alerts": [{"labels": {"service": "\\ud800"}}]}',
        b'{"alerts": [{"labels": {"service": ' + b"9" * 5000 + b"}}]}",
    ],
)
def test_what_no_alert_can_be_made_of(body: bytes) -> None:
    with pytest.raises(UnreadablePayload):
        SENDER.parse(Incoming({}, body), DIRECTORY)


rubbish = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\ud800\x00"),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
alerts = st.fixed_dictionaries(
    {"labels": st.dictionaries(st.sampled_from(["service", "alertname", "severity", "zone", "\x00"]), rubbish)},
    optional=dict.fromkeys(("status", "annotations", "startsAt", "endsAt", "fingerprint", "generatorURL"), rubbish),
)


def strings(value: object) -> Iterator[str]:
    """Encoded as Postgres would."""
    if isinstance(value, dict):
        for pair in value.items():
            yield from map("".join, map(strings, pair))
    elif isinstance(value, str):
        yield value.encode().decode()


@settings(deadline=None)
@given(st.lists(alerts | rubbish, max_size=3), rubbish)
def test_nothing_but_unreadable_is_raised_and_all_text_can_be_stored(group: list[object], key: object) -> None:
    try:
        parsed = parse({"alerts": group, "groupKey": key, "truncatedAlerts": key})
    except UnreadablePayload:
        return
    for alert in parsed.alerts:
        assert "\x00" not in "".join(strings(alert.model_dump()))
        assert max(len(alert.fingerprint), len(alert.rule), len(alert.service)) <= 250
        assert len(alert.cycle_key) <= 300


@pytest.mark.parametrize(
    "authorization",
    [f"Bearer {TOKEN}", "Basic " + base64.b64encode(f"am:{TOKEN}".encode()).decode()],
)
async def test_the_token(authorization: str) -> None:
    await SENDER.verify(Incoming({"authorization": authorization}, b""))


async def test_a_wrong_token_and_no_token() -> None:
    with pytest.raises(Unauthentic, match="AUTOPILOT_ALERTMANAGER_TOKENS"):
        await SENDER.verify(Incoming({"authorization": "Bearer another-token-than-ours"}, b""))
    with pytest.raises(Unauthentic, match="turned off"):
        await Alertmanager(Settings()).verify(Incoming({"authorization": f"Bearer {TOKEN}"}, b""))
