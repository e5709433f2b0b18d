"""Other tools' JSON, read by the expressions of autopilot.yaml."""

import itertools
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from app.catalogue import AutopilotYaml, GenericWebhook
from app.clock import SystemClock
from app.intake.base import Directory, Incoming, NotAllowed, Parsed, Unauthentic, UnreadablePayload
from app.intake.generic import Generic, Reader, Settings, create
from graph.catalogue import Catalogue, Service

FIXTURES = Path(__file__).parent / "fixtures" / "generic"
TOKEN = "a-token-of-some-tool"
DIRECTORY = Directory(
    Catalogue(
        services={"checkout": Service(), "payment-service": Service(), "login": Service(resources=("host:web-2",))}
    )
)
ZABBIX = GenericWebhook(
    title="event.name",
    service="service",
    severity="event.severity",
    severities={"Disaster": "critical", "Average": "warning"},
    state="event.value",
    resolved=("0",),
    occurred_at="event.clock",
    changed_at="event.recovery_clock",
    key="join('/', [trigger.id, host.name])",
    rule="trigger.id",
    url="trigger.url",
    resources={"host": "host.name", "ip": "host.ip"},
)
CHECKS = GenericWebhook(title="check", state="up", resolved=("true",), occurred_at="at", resources={"host": "host"})


def sender(**webhooks: GenericWebhook) -> Generic:
    return Generic(Settings(tokens=(SecretStr(TOKEN),)), {n: Reader.of(n, w) for n, w in webhooks.items()})


SENDER = sender(zabbix=ZABBIX, checks=CHECKS)


def body(fixture: str) -> bytes:
    return (FIXTURES / f"{fixture}.json").read_bytes()


def parse(webhook: GenericWebhook, payload: object) -> Parsed:
    return sender(tool=webhook).parse(Incoming({}, json.dumps(payload).encode(), "tool"), DIRECTORY)


def test_an_alert_and_its_recovery() -> None:
    parsed, recovered = (
        SENDER.parse(Incoming({}, body(f), "zabbix"), DIRECTORY) for f in ("zabbix", "zabbix_recovery")
    )
    alert, recovery = parsed.alerts[0], recovered.alerts[0]
    assert alert.model_dump() == {
        "source": "generic",
        "rule": "generic:zabbix:13926",
        "title": "Disk is 95 % full",
        "severity": "critical",
        "service": "payment-service",
        "environment": "",
        "resources": {"host": "db-1", "ip": "10.0.3.9"},
        "occurred_at": datetime(2026, 1, 15, 10, 25, tzinfo=UTC),
        "changed_at": datetime(2026, 1, 15, 10, 25, tzinfo=UTC),
        "fingerprint": "generic:zabbix:13926/db-1",
        "cycle_key": "generic:zabbix:13926/db-1",
        "transition": "firing",
        "url": "https://zabbix.example.com/tr_events.php?triggerid=13926",
        "text": "",
    }
    assert (recovery.transition, recovery.cycle_key) == ("resolved", alert.cycle_key)
    assert recovery.occurred_at == alert.occurred_at
    assert recovery.changed_at == datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
    assert parsed.delivery_key != recovered.delivery_key


def test_a_list_of_alerts_one_of_which_cannot_be_read() -> None:
    parsed = SENDER.parse(Incoming({}, body("checks"), "checks"), DIRECTORY)
    down, up = parsed.alerts
    assert (down.service, down.transition, down.resources) == ("checkout", "firing", {"host": "web-1"})
    assert (up.service, up.transition) == ("login", "resolved")  # by its host, of the catalogue
    assert down.occurred_at == up.occurred_at == datetime(2026, 1, 15, 10, 25, tzinfo=UTC)
    assert down.fingerprint == "generic:checks:checkout answers|service:checkout|host:web-1"
    assert parsed.left_out == "1 of 3 alerts left out: webhooks.checks.title finds nothing in the payload"
    assert parsed.note == ""


def test_without_a_key_two_services_are_two_alerts() -> None:
    webhook = GenericWebhook(alerts="l", title="t", service="s", key="k", resources={"host": "h"})
    items = [{"t": "x", "s": s, "h": "a"} for s in ("checkout", "login", "checkout")]
    one, other, again = parse(webhook, {"l": items}).alerts
    assert one.cycle_key == again.cycle_key != other.cycle_key
    assert one.fingerprint == again.fingerprint != other.fingerprint
    keyed = [item | {"k": "7"} for item in items[:2]]
    assert {a.cycle_key for a in parse(webhook, {"l": keyed}).alerts} == {"generic:tool:7"}


def test_an_expression_finds_the_alerts_inside() -> None:
    parsed = parse(
        GenericWebhook(alerts="data[].alert", title="t", service="s"), {"data": [{"alert": {"t": "x", "s": "y"}}]}
    )
    assert [(a.title, a.service) for a in parsed.alerts] == [("x", "y")]


@pytest.mark.parametrize(
    ("word", "severity"),
    [("Page", "critical"), ("sev3", "warning"), ("LOW", "info"), ("3", "warning"), (3, "warning"), (None, "critical")],
)
def test_severities(word: object, severity: str) -> None:
    webhook = GenericWebhook(title="t", service="t", severity="s", severities={"3": "warning"})
    assert parse(webhook, {"t": "x", "s": word}).alerts[0].severity == severity


@pytest.mark.parametrize(
    "moment",
    [1768472700, 1768472700.0, "1768472700", 1768472700000, "2026-01-15T10:25:00Z", "2026-01-15T12:25:00+02:00"],
)
def test_times(moment: object) -> None:
    webhook = GenericWebhook(title="t", service="t", occurred_at="at")
    assert parse(webhook, {"t": "x", "at": moment}).alerts[0].occurred_at == datetime(2026, 1, 15, 10, 25, tzinfo=UTC)


@pytest.mark.parametrize("moment", ["NaN", "inf", "soon", None, True, -1e300, 1e300, {}, "0001-01-01T00:00:00Z"])
def test_what_is_no_time_is_now(moment: object) -> None:
    webhook = GenericWebhook(title="t", service="t", occurred_at="at")
    at = parse(webhook, {"t": "x", "at": moment}).alerts[0].occurred_at
    assert abs((datetime.now(UTC) - at).total_seconds()) < 60


# --- re-sends ---


def test_the_tools_own_id_tells_a_resend() -> None:
    webhook = GenericWebhook(title="t", service="t", delivery_id="id")
    first, again, other = (parse(webhook, {"t": t, "id": i}).delivery_key for t, i in (("x", 1), ("y", 1), ("x", 2)))
    assert first == again != other


def test_the_body_tells_a_resend_only_if_it_says_when() -> None:
    webhook = GenericWebhook(title="t", service="t", occurred_at="at")
    first, again, other = (
        parse(webhook, {"t": "x", "at": at}).delivery_key for at in (1768472700, 1768472700, 1768472701)
    )
    assert first == again != other
    assert parse(webhook, {"t": "x"}).delivery_key is None


def test_webhooks_have_nothing_in_common() -> None:
    one, other = sender(a=ZABBIX, b=ZABBIX), body("zabbix")
    a, b = (one.parse(Incoming({}, other, part), DIRECTORY) for part in "ab")
    assert a.delivery_key != b.delivery_key
    assert a.alerts[0].fingerprint != b.alerts[0].fingerprint


# --- what does not fit ---


def test_no_service() -> None:
    with pytest.raises(UnreadablePayload, match=r"webhooks\.tool\.service"):
        parse(GenericWebhook(title="t", service="s"), {"t": "x"})


@pytest.mark.parametrize("expression", ["missing", "t", "length(t)", "`null`"])
def test_no_alerts(expression: str) -> None:
    with pytest.raises(UnreadablePayload, match=r"webhooks\.tool\.alerts"):
        parse(GenericWebhook(alerts=expression, title="t"), {"t": "x"})


def test_a_function_that_does_not_fit_the_payload() -> None:
    with pytest.raises(UnreadablePayload, match=r"webhooks\.tool\.key does not fit"):
        parse(GenericWebhook(title="t", service="t", key="length(n)"), {"t": "x", "n": 5})


def test_a_delivery_id_that_does_not_fit_loses_no_alert() -> None:
    parsed = parse(GenericWebhook(title="t", service="t", delivery_id="length(n)"), {"t": "x", "n": 5})
    assert (len(parsed.alerts), parsed.delivery_key) == (1, None)


def test_numbers_too_large_for_a_function() -> None:
    webhook = GenericWebhook(title="t", service="t", key="to_string(avg(n))")
    with pytest.raises(UnreadablePayload):
        parse(webhook, {"t": "x", "n": [10**400]})


def test_at_most_a_thousand_alerts_of_a_delivery() -> None:
    parsed = parse(GenericWebhook(alerts="l", title="t", service="t"), {"l": [{"t": "x"}] * 1001})
    assert len(parsed.alerts) == 1000
    assert (parsed.note, "1001" in parsed.left_out) == ("", True)


@pytest.mark.parametrize(
    "raw", [b"", b"\xff", b"{", b"null", b"7", b"[" * 100_000, b"9" * 5000, b'{"event": {"name": {}}}']
)
def test_what_no_alert_can_be_made_of(raw: bytes) -> None:
    with pytest.raises(UnreadablePayload):
        SENDER.parse(Incoming({}, raw, "zabbix"), DIRECTORY)


rubbish: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\ud800\x00"),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["name", "id", "clock", "value", "\x00"]), inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["event", "trigger", "host", "service", "name", "clock"]), rubbish) | rubbish)
def test_nothing_but_unreadable_is_raised_and_all_text_can_be_stored(odd: Any) -> None:
    whole = json.loads(body("zabbix"))
    payloads = [odd, whole | odd, {**whole, "event": whole["event"] | odd}] if isinstance(odd, dict) else [odd]
    for part, payload in itertools.product(("zabbix", "checks"), payloads):
        try:
            parsed = SENDER.parse(Incoming({}, json.dumps(payload).encode(), part), DIRECTORY)
        except UnreadablePayload:
            continue
        for alert in parsed.alerts:
            assert "\\u0000" not in alert.model_dump_json()
            assert len(alert.cycle_key) <= 450


# --- settings ---


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"title": "a..b"}, r"webhooks\.tool\.title"),
        ({"title": ""}, r"webhooks\.tool\.title"),
        ({"title": "t", "alerts": ""}, r"webhooks\.tool\.alerts"),
        ({"title": "t", "key": "join('-', [a"}, r"webhooks\.tool\.key"),
        ({"title": "t", "resources": {"host": "a b"}}, r"webhooks\.tool\.resources\.host"),
        ({"title": "t", "text": "a[].upper(@)"}, "no function 'upper'"),
    ],
)
def test_a_wrong_expression_stops_start_up(wrong: dict[str, Any], where: str) -> None:
    with pytest.raises(ValueError, match=where):
        create(SystemClock(), AutopilotYaml(webhooks={"tool": GenericWebhook(**wrong)}))


async def test_the_token_comes_before_the_name() -> None:
    authentic = {"x-aiops-token": TOKEN}
    await SENDER.verify(Incoming(authentic, b"", "zabbix"))
    with pytest.raises(Unauthentic):
        await SENDER.verify(Incoming({}, b"", "nagios"))
    with pytest.raises(NotAllowed, match=r"'nagios' in autopilot\.yaml; there are: checks, zabbix"):
        await SENDER.verify(Incoming(authentic, b"", "nagios"))
