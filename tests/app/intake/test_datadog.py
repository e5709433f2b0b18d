"""Datadog's payloads, as they really come."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from app.intake.base import Directory, Incoming, Unauthentic, UnreadablePayload
from app.intake.datadog import EXAMPLE, TEMPLATE, Datadog, Settings
from graph.catalogue import Catalogue, Service
from graph.state import Alert, Severity, Transition

FIXTURES = Path(__file__).with_name("fixtures") / "datadog"
TOKENS = (SecretStr("first-of-two-tokens"), SecretStr("second-of-two-tokens"))
SENDER = Datadog(Settings(webhook_tokens=TOKENS))
SERVICES = ("payment", "payment-service", "checkout")
ONSET = datetime(2024, 12, 20, 9, 15, tzinfo=UTC)
DEFAULT = {
    "body": "%%%\nCPU of payment-service is high\n[Monitor](https://app.datadoghq.com/monitors/77)\n%%%",
    "last_updated": "1746013550000",
    "event_type": "query_alert_monitor",
    "title": "[Triggered on {service:checkout,host:db-1}] CPU high",
    "date": "1746013550000",
    "org": {"id": "1325540", "name": "Acme"},
    "id": "8082436309665268856",
}


def directory(*services: str) -> Directory:
    return Directory(Catalogue(services={name: Service() for name in services}))


def parse(payload: object, *services: str) -> Alert:
    return read(json.dumps(payload).encode(), *services)


def read(body: bytes, *services: str, headers: Mapping[str, str] = {}) -> Alert:
    (alert,) = SENDER.parse(Incoming(headers, body), directory(*services)).alerts
    return alert


def key(payload: object, **how: int) -> str | None:
    return SENDER.parse(Incoming({}, json.dumps(payload, **how).encode()), directory()).delivery_key  # type: ignore[arg-type]


# --- golden payloads ---

PAYMENT = "datadog:monitor:141878267:env:production,service:payment-service"
CYCLE = "datadog:1325540:7673797852050213000"
MAY = datetime.fromtimestamp(1746013550, UTC)


@dataclass(frozen=True)
class Expected:
    """What a payload says."""

    transition: Transition = "firing"
    severity: Severity = "critical"
    changed_at: datetime = ONSET
    service: str = "payment-service"
    rule: str = "datadog:monitor:141878267"
    fingerprint: str = PAYMENT
    cycle_key: str = CYCLE
    title: str = "payment-service: error rate above 5 %"


CPU = "datadog:monitor:77"
GROUP = "host:db-1,service:checkout"
GOLDEN = {
    "triggered": Expected(),
    "retry-twin": Expected(),
    "numeric-ids": Expected(),
    "re-triggered": Expected(changed_at=ONSET + timedelta(minutes=15)),
    "renotify": Expected("renotify", changed_at=ONSET + timedelta(minutes=30)),
    "warn": Expected("firing", "warning", ONSET - timedelta(minutes=2)),
    "no-data": Expected("no_data", changed_at=ONSET + timedelta(minutes=1)),
    "recovered": Expected("resolved", changed_at=ONSET + timedelta(minutes=60)),
    "unset-hostname": Expected(
        cycle_key="datadog:1325540:6b3f6a6e4a5f0e0d9d1f2c3b4a596877|env:production,service:payment-service"
    ),
    "host": Expected(
        "firing",
        "warning",
        ONSET,
        "checkout",
        "datadog:monitor:77120001",
        "datadog:monitor:77120001:host:ip-10-0-1-23",
        "datadog:1325540:5513797852050213111",
        "CPU is high",
    ),
    "default": Expected(
        "firing", "critical", MAY, "checkout", CPU, f"{CPU}:{GROUP}", f"datadog:1325540:77|{GROUP}", "CPU high"
    ),
    "default-recovered": Expected(
        "resolved",
        "critical",
        MAY + timedelta(minutes=10),
        "checkout",
        CPU,
        f"{CPU}:{GROUP}",
        f"datadog:1325540:77|{GROUP}",
        "CPU high",
    ),
    "default-no-group": Expected(
        "firing",
        "critical",
        MAY,
        "payment-service",
        "datadog:monitor:78",
        "datadog:monitor:78:payment-service",
        "datadog:1325540:78|payment-service",
        "Payments fail",
    ),
}
TESTS = ("test-notification",)


def golden(name: str) -> bytes:
    return (FIXTURES / f"{name}.json").read_bytes()


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_golden_payloads(name: str) -> None:
    alert = read(golden(name), *SERVICES)
    found = {field: getattr(alert, field) for field in Expected.__dataclass_fields__}
    assert Expected(**found) == GOLDEN[name]
    assert (alert.source, alert.occurred_at) == ("datadog", alert.changed_at)


def test_every_golden_payload_is_expected() -> None:
    assert {path.stem for path in FIXTURES.glob("*.json")} == {*GOLDEN, *TESTS}


def test_a_test_notification_says_nothing_of_any_service() -> None:
    parsed = SENDER.parse(Incoming({}, golden("test-notification")), directory(*SERVICES))
    assert (parsed.alerts, parsed.note, parsed.left_out) == ((), "a test notification", "")
    assert parsed.delivery_key


def test_what_a_monitor_watches() -> None:
    assert read(golden("host")).resources == {"host": "ip-10-0-1-23"}
    assert read(golden("unset-hostname")).resources == {"env": "production", "service": "payment-service"}
    assert read(golden("unset-hostname")).environment == "production"


def test_encoded_as_a_form() -> None:
    form = urlencode({"payload": golden("triggered").decode()}).encode()
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert read(form, headers=headers) == read(golden("triggered"))
    with pytest.raises(UnreadablePayload, match="no field `payload`"):
        read(b"other=1", headers=headers)


def test_only_the_retry_has_the_key_of_another_delivery() -> None:
    keys = {
        name: SENDER.parse(Incoming({}, golden(name)), directory(*SERVICES)).delivery_key for name in (*GOLDEN, *TESTS)
    }
    assert keys["retry-twin"] == keys["unset-hostname"] == keys["triggered"] is not None
    assert len(set(keys.values())) == len(keys) - 2


# --- payloads ---


@pytest.mark.parametrize(
    "sent",
    [
        {**EXAMPLE, "title": "[TEST] [Triggered] x"},
        {**EXAMPLE, "title": "[P1] [TEST] [Recovered on {service:checkout}] x", "transition": "Recovered"},
        {**EXAMPLE, "title": "[P1][TEST] x"},
        {**EXAMPLE, "message": "Test notification triggered by kim@example.com."},
        {**EXAMPLE, "body": "%%%\nTest notification triggered by kim@example.com.\n%%%"},
        {"title": "[TEST] [Triggered] of no service"},
    ],
)
def test_every_test_notification_is_known_as_one(sent: dict[str, object]) -> None:
    parsed = SENDER.parse(Incoming({}, json.dumps(sent).encode()), directory(*SERVICES))
    assert (parsed.alerts, parsed.note) == ((), "a test notification")


def test_an_alert_about_tests_is_no_test_notification() -> None:
    for title in ("[Triggered] [TEST] suite fails", "TEST is slow", "[Triggered on {env:TEST}] x"):
        assert parse({**EXAMPLE, "title": title})


WITHOUT_MONITOR = {**DEFAULT, "body": "It is bad"}


def test_without_a_monitor_the_title_tells_the_cycles_of_one_host_apart() -> None:
    high = parse(WITHOUT_MONITOR)
    full = parse(WITHOUT_MONITOR | {"title": "[Triggered on {service:checkout,host:db-1}] Disk full"})
    over = parse(WITHOUT_MONITOR | {"title": "[Recovered on {service:checkout,host:db-1}] CPU high"})
    assert high.cycle_key == over.cycle_key == f"datadog:1325540:CPU high|{GROUP}"
    assert full.cycle_key != high.cycle_key


def test_without_a_cycle_two_groups_of_a_monitor_are_two_cycles() -> None:
    aggregated = {**EXAMPLE, "cycle_key": "$ALERT_CYCLE_KEY"}
    one, again, other = (
        parse({**aggregated, "scope": scope}).cycle_key
        for scope in ("host:a,service:checkout", "service:checkout, host:a", "host:b,service:checkout")
    )
    assert one == again != other


def test_organisations_have_nothing_in_common() -> None:
    one, other = (parse(WITHOUT_MONITOR | {"org": {"id": org}}) for org in ("1", "2"))
    assert one.fingerprint != other.fingerprint
    assert one.fingerprint == parse(WITHOUT_MONITOR | {"org": {"id": 1}}).fingerprint


def test_the_groups_own_service_comes_before_the_monitors() -> None:
    alert = parse({**EXAMPLE, "scope": "service:checkout", "service": "payment-service", "tags": "service:cart"})
    assert alert.service == "checkout"
    titled = {**EXAMPLE, "scope": "", "title": "[Triggered on {service:checkout}] x"}
    assert parse(titled).service == "checkout"
    assert parse({**EXAMPLE, "scope": "host:a", "tags": "service:cart"}).service == "payment-service"


@pytest.mark.parametrize("url", ["javascript:alert(1)", "/monitors/7", "https://a/" + "x" * 2000, "$LINK"])
def test_a_link_that_no_browser_may_be_sent_to_is_left_out(url: str) -> None:
    assert parse({**EXAMPLE, "link": url}).url is None


def test_long_words_are_bounded() -> None:
    alert = parse({**EXAMPLE, "env": "e" * 300, "monitor_id": "7" * 300})
    assert (len(alert.environment), len(alert.rule) <= 200) == (200, True)
    assert len(parse({**EXAMPLE, "env": "", "tags": "service:x,env:" + "e" * 300}).environment) == 200


def test_the_recommended_payload() -> None:
    alert = parse(EXAMPLE)
    assert (alert.service, alert.transition, alert.severity) == ("payment-service", "firing", "critical")
    assert alert.title == "payment-service: error rate above 5 %"
    assert alert.occurred_at == datetime(2024, 12, 20, 9, 15, tzinfo=UTC)
    assert alert.cycle_key == "datadog:1325540:7673797852050213000"


def test_the_example_is_the_template_filled_in() -> None:
    assert EXAMPLE.keys() == TEMPLATE.keys()
    assert not [value for value in EXAMPLE.values() if str(value).startswith("$")]


def test_the_template_as_it_is_says_nothing() -> None:
    with pytest.raises(UnreadablePayload, match="no title"):
        parse(TEMPLATE)


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
    alert = parse({**EXAMPLE, "transition": transition})
    assert (alert.transition, alert.severity) == (state, severity)


def test_unset_variables_numbers_and_bare_tags() -> None:
    alert = parse(
        {
            **EXAMPLE,
            "title": "CPU high",
            "service": "$TAGS[service]",
            "cycle_key": 7673797852050213000,
            "scope": "$ALERT_SCOPE",
            "tags": "monitor, service:a:b ,env:x",
        }
    )
    assert alert.service == "a:b"
    assert alert.cycle_key.endswith(":7673797852050213000")


@pytest.mark.parametrize(("date", "year"), [("1734686100", 2024), ("1734686100000", 2024), (1734686100000, 2024)])
def test_dates_in_seconds_and_milliseconds(date: object, year: int) -> None:
    assert parse({**EXAMPLE, "date": date}).occurred_at.year == year


def test_a_retry_has_the_same_key_and_another_transition_does_not() -> None:
    assert key(EXAMPLE) == key(EXAMPLE, indent=1)
    assert key(EXAMPLE) != key({**EXAMPLE, "transition": "Recovered"})


@pytest.mark.parametrize(
    "other", [{"monitor_id": "78"}, {"scope": "service:checkout"}, {"title": "[Triggered] Another monitor"}]
)
def test_without_an_event_the_monitor_and_its_group_tell_deliveries_apart(other: dict[str, str]) -> None:
    eventless = {**EXAMPLE, "event_id": "$ID"}
    assert key(eventless) == key(eventless, indent=1) == key({**eventless, "monitor_id": 141878267}) is not None
    assert key(eventless) != key({**eventless, **other})
    assert key(EXAMPLE) == key({**EXAMPLE, **other})


def test_without_an_event_the_monitor_may_be_told_by_its_link_alone() -> None:
    one, other = ({**DEFAULT, "id": "", "body": f"https://app.datadoghq.com/monitors/{n}"} for n in (77, 78))
    assert key(one) != key(other)


def test_what_has_neither_event_nor_time_has_no_key() -> None:
    assert key({"title": "[Triggered] x", "service": "a"}) is None


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[]", b"{", b'{"title": "x"}', b'{"title": "\\ud800"}'])
def test_what_cannot_be_read_is_told(body: bytes) -> None:
    with pytest.raises(UnreadablePayload):
        read(body)


def test_a_service_that_is_not_found_is_asked_for() -> None:
    with pytest.raises(UnreadablePayload, match=r"tag service:<name>.*autopilot\.yaml"):
        parse({"title": "x"})


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(10**25), 10**25) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(changes=st.dictionaries(st.sampled_from(sorted({*EXAMPLE, "id"})), JSON, max_size=6))
def test_whatever_the_values_an_alert_is_storable_or_unreadable(changes: dict[str, object]) -> None:
    try:
        parsed = SENDER.parse(Incoming({}, json.dumps({**EXAMPLE, **changes}).encode()), directory())
    except UnreadablePayload:
        return
    (alert,) = parsed.alerts
    assert "\\u0000" not in alert.model_dump_json()
    assert max(len(alert.fingerprint), len(alert.rule), len(alert.environment), len(alert.service)) <= 200
    assert len(alert.cycle_key) <= 400
    assert alert.service


@given(body=st.binary(max_size=60))
def test_whatever_the_bytes(body: bytes) -> None:
    for headers in ({}, {"content-type": "application/x-www-form-urlencoded"}):
        with pytest.raises(UnreadablePayload):
            read(body, headers=headers)


def test_deep_nesting_is_unreadable() -> None:
    with pytest.raises(UnreadablePayload):
        read(b'{"title":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


# --- who sent it ---


def basic(password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"datadog:{password}".encode()).decode()}


ACCEPTED: list[dict[str, str]] = [
    {"x-aiops-token": "first-of-two-tokens"},
    {"x-aiops-token": "second-of-two-tokens"},
    {"authorization": "Bearer second-of-two-tokens"},
    basic("first-of-two-tokens"),
]
REFUSED: list[dict[str, str]] = [
    {},
    {"x-aiops-token": ""},
    {"x-aiops-token": "second-of-two-token"},
    {"x-aiops-token": "first-of-two-tokens,second-of-two-tokens"},
    {"x-aiops-token": "pässword-with-an-umlaut"},
    {"authorization": "Bearer "},
    {"authorization": "Basic"},
    {"authorization": "Basic no-base64!"},
    {"authorization": "Basic " + base64.b64encode(b"first-of-two-tokens").decode()},
    basic("second-of-two-token"),
]


@pytest.mark.parametrize("headers", ACCEPTED)
async def test_any_of_the_valid_tokens(headers: dict[str, str]) -> None:
    await SENDER.verify(Incoming(headers, b"{}"))


@pytest.mark.parametrize("headers", REFUSED)
async def test_no_other(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthentic, match="AUTOPILOT_DATADOG_WEBHOOK_TOKENS"):
        await SENDER.verify(Incoming(headers, b"{}"))


async def test_with_no_token_set_nobody_is_let_in() -> None:
    with pytest.raises(Unauthentic, match="turned off"):
        await Datadog(Settings(webhook_tokens=())).verify(Incoming({"x-aiops-token": ""}, b"{}"))


def test_a_short_token_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="shorter than 16"):
        Settings(webhook_tokens=(SecretStr("short"),))


async def test_without_keys_datadog_cannot_be_asked() -> None:
    assert await SENDER.missed(directory()) is None
    with pytest.raises(UnreadablePayload, match="DATADOG_API_KEY and DATADOG_APP_KEY"):
        await SENDER.perform({"monitor_id": "77"}, directory())
    with pytest.raises(UnreadablePayload, match="no such job"):
        await SENDER.perform({"monitor_id": "../1"}, directory())
