"""Whatever is sent to a webhook is answered: taken and stored, or refused. Never a fault of ours, and never nothing."""

import copy
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from app.embedded_postgres import EmbeddedPostgres
from tests.app.intake.test_sns import SUBSCRIPTION
from tests.app.served import CATALOGUE, Served, form, serving, signed, sns

FIXTURES = Path(__file__).parent / "intake" / "fixtures"
ANY_PAYLOAD = "  any: {title: title, alerts: '@', service: \"service || 'checkout'\", occurred_at: at, key: key}\n"
PARTS = {"generic": ("checks", "any"), "slack": ("events", "commands", "actions")}
SENDERS = ("datadog", "cloudwatch", "eventbridge", "alertmanager", "grafana", "generic", "slack")
WEBHOOKS = [(sender, part) for sender in SENDERS for part in PARTS.get(sender, ("",))]
LIMIT = 1_000_000  # bytes, the setting's default
WITHIN_S = 10

bounded = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, postgres: EmbeddedPostgres) -> Iterator[Served]:
    """One for all: what was sent before must not matter."""
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("create database fuzzed template template_autopilot")
        url = postgres.url.replace("/postgres?", "/fuzzed?")
        with serving(url, tmp_path_factory.mktemp("fuzz"), catalogue=CATALOGUE + ANY_PAYLOAD) as started:
            yield started
        connection.execute("drop database fuzzed with (force)")


def post(served: Served, sender: str, part: str, body: bytes, headers: dict[str, bytes]) -> httpx.Response:
    """One request; a hang is a failure."""
    path = f"/webhooks/{sender}" + (f"/{part}" if part else "")
    raw = [(name.encode(), value) for name, value in headers.items()]
    return served.stranger.post(path, content=body, headers=raw, timeout=WITHIN_S)


def send(served: Served, sender: str, part: str, body: bytes, media_type: str = "") -> httpx.Response:
    """An authentic one."""
    headers, raw = signed(sender, body, served.amazon)
    proof = {name: value.encode() for name, value in headers.items()}
    return post(served, sender, part, raw, proof | ({"content-type": media_type.encode()} if media_type else {}))


def check(served: Served, answer: httpx.Response, before: int) -> None:
    """Taken and there, or refused with a reason and not there."""
    assert answer.status_code < 500, answer.text
    stored = served.count("raw_delivery") - before
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"]
        assert not stored
    elif "alerts" in (said := answer.json() if answer.content else {}):
        kept = {"a person's message": (0,), "not a new message": (0, 1)}  # edits and deletions, if an app did them
        assert stored in kept.get(said["detail"], (1,)) or (said["duplicate"] and not stored)
        assert all(served.rows("select id from alert where id = %s", a["alert_id"]) for a in said["alerts"])


# --- any bytes ---

texts = st.text(max_size=40)
LONG_NUMBER = "<a number of 5000 digits>"  # which Python itself refuses to write
nasty = st.sampled_from(
    [LONG_NUMBER, "\x00", "a\x00b", "\ud800", "é" * 50_000, "9" * 5000, "\u202e", "1e999", "-1", "x" * 3000]
)
numbers = st.one_of(
    st.integers(), st.floats(), st.sampled_from([10**4200, -(10**400), 2**63, 1e308, -0.0, 253402300800])
)
scalars = st.none() | st.booleans() | numbers | texts | nasty
values = st.recursive(scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(texts, v, max_size=3), max_leaves=8)
depths = st.sampled_from([5, 190, 250, 1100, 20_000])
bodies = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=60).map(lambda b: b'{"alerts":[{"labels":{"service":"' + b + b'"}}]}'),
    values.map(lambda value: _json(value)),
    depths.map(lambda depth: b"[" * depth + b"]" * depth),
    depths.map(
        lambda depth: b'{"title":"t","service":"checkout","tags":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"
    ),
    texts.map(lambda text: form(payload=text.encode("utf-8", "replace").decode(), text="checkout", user_id="U0BO")),
)
media_types = st.sampled_from(
    [
        *("", "application/json", "text/plain; charset=UTF-8", "application/x-www-form-urlencoded"),
        *("multipart/form-data", "application/json; charset=utf-16", "gzip"),
    ]
)
proofs = st.sampled_from(
    [
        *("authorization", "x-aiops-token", "x-api-key", "x-slack-signature", "x-slack-request-timestamp", "cookie"),
        *("x-grafana-alerting-signature", "x-amz-sns-rawdelivery", "x-amz-sns-message-type", "content-type"),
    ]
)
header_values = st.sampled_from(["Basic", "Basic é", "Bearer", "true", "v0=", "9" * 30, "Basic Og=="]) | st.text(
    st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f"), max_size=60
)
strange_headers = st.dictionaries(proofs, header_values.map(lambda text: text.encode("latin-1")), max_size=5)


def _json(value: object) -> bytes:
    """Numbers of any length, NaN and halves of surrogate pairs included."""
    text = json.dumps(value).replace(f'"{LONG_NUMBER}"', "9" * 5000)
    return text.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize(("sender", "part"), WEBHOOKS)
def test_a_stranger_is_refused_whatever_it_sends(served: Served, sender: str, part: str) -> None:
    @bounded
    @given(bodies, strange_headers)
    def sent(body: bytes, headers: dict[str, bytes]) -> None:
        before = served.count("raw_delivery")
        answer = post(served, sender, part, body, headers)
        assert answer.status_code == 401, answer.text
        check(served, answer, before)

    sent()


@pytest.mark.parametrize(("sender", "part"), WEBHOOKS)
def test_an_authentic_sender_may_send_anything(served: Served, sender: str, part: str) -> None:
    @bounded
    @given(bodies, media_types)
    def sent(body: bytes, media_type: str) -> None:
        before = served.count("raw_delivery")
        check(served, send(served, sender, part, body, media_type), before)

    sent()


# --- what a sender sends, with a value of it changed ---

Paths = list[tuple[str | int, ...]]


def paths(value: Any, here: tuple[str | int, ...] = ()) -> Paths:
    """Where every value of a payload is."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(path for key, child in pairs for path in paths(child, (*here, key)))]


def replaced(payload: Any, path: tuple[str | int, ...], value: object) -> Any:
    """A copy of the payload, with another value there."""
    if not path:
        return value
    changed = copy.deepcopy(payload)
    at = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return changed


def _event(payload: Any) -> tuple[str, bytes]:
    return (
        ("actions", form(payload=_json(payload).decode("utf-8", "replace")))
        if "user" in payload
        else ("events", _json(payload))
    )


AS_SENT: dict[str, Callable[[Any], tuple[str, bytes]]] = {
    "generic": lambda payload: ("checks" if isinstance(payload, list) else "any", _json(payload)),
    "slack": lambda payload: _event(payload) if isinstance(payload, dict) else ("events", _json(payload)),
}


@pytest.mark.parametrize("sender", SENDERS)
def test_no_value_of_a_payload_can_be_so_wrong_as_to_break_it(served: Served, sender: str) -> None:
    payloads = [json.loads(file.read_bytes()) for file in sorted((FIXTURES / sender).glob("*.json"))]

    @settings(bounded, max_examples=40)
    @given(st.data())
    def sent(data: DataObject) -> None:
        payload = data.draw(st.sampled_from(payloads))
        for _ in range(data.draw(st.integers(1, 3))):
            payload = replaced(payload, data.draw(st.sampled_from(paths(payload))), data.draw(values))
        part, body = AS_SENT.get(sender, lambda payload: ("", _json(payload)))(payload)
        before = served.count("raw_delivery")
        check(served, send(served, sender, part, body), before)

    sent()


def test_no_envelope_of_sns_can_be_so_wrong_as_to_break_it(served: Served) -> None:
    @bounded
    @given(st.sampled_from(sorted(SUBSCRIPTION)), values, st.booleans())
    def sent(key: str, value: object, confirmation: bool) -> None:
        message = served.amazon.sign(SUBSCRIPTION) if confirmation else sns("{}", served.amazon)
        before = served.count("raw_delivery")
        body = _json({**message, key: value})
        check(served, post(served, "cloudwatch", "", body, {"x-amz-sns-message-type": b"Notification"}), before)

    sent()


# --- bodies without end ---


@pytest.mark.parametrize(("sender", "part"), WEBHOOKS)
def test_a_body_over_the_limit_is_cut_off_with_or_without_its_length(served: Served, sender: str, part: str) -> None:
    before = served.count("raw_delivery")
    path = f"/webhooks/{sender}" + (f"/{part}" if part else "")
    whole = served.stranger.post(path, content=b"x" * (LIMIT + 1), timeout=WITHIN_S)
    in_chunks = served.stranger.post(path, content=(b"x" * 65_536 for _ in range(20)), timeout=WITHIN_S)
    for answer in (whole, in_chunks):
        assert answer.status_code == 413
        check(served, answer, before)
    assert send(served, sender, part, b"x" * (LIMIT - 2000)).status_code in (200, 202)  # SNS's envelope is in it too


def test_who_hangs_up_in_the_middle_is_no_trouble(served: Served) -> None:
    host, _, port = served.url.removeprefix("http://").partition(":")
    before = served.count("raw_delivery")
    for _ in range(5):
        with socket.create_connection((host, int(port)), timeout=WITHIN_S) as connection:
            connection.sendall(b"POST /webhooks/datadog HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert send(served, "datadog", "", b"{}").status_code == 202
    assert served.count("raw_delivery") == before + 1
