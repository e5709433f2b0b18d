"""Bad input, bad tokens, a database that goes away: what the sender sees, and that nothing accepted is lost."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg
import pytest

from app.embedded_postgres import EmbeddedPostgres
from app.simulator.scenarios import SCENARIOS
from tests import processes
from tests.conftest import TOKEN, World, Worlds


@pytest.fixture
def api(worlds: Worlds) -> tuple[World, httpx.Client]:
    """A shop and an API without a worker."""
    world = worlds("bad-deploy")
    return world, world.start_api()


def _problem(answer: httpx.Response, status: int, words: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert words in body["detail"] + " ".join(body["errors"]), body


def test_what_is_wrong_is_said(api: tuple[World, httpx.Client]) -> None:
    world, client = api
    good = {"service": "checkout", "occurred_at": SCENARIOS["bad-deploy"].occurred_at.isoformat()}
    _problem(client.post("/incidents", json=good | {"service": "nobody"}), 422, "'nobody' is not in the service")
    _problem(client.post("/incidents", json=good | {"occurred_at": "yesterday"}), 422, "occurred_at")
    _problem(client.post("/incidents", json=good | {"occurred_at": "2999-01-01T00:00:00Z"}), 422, "in the future")
    _problem(client.post("/incidents", json=good | {"occurred_at": "2024-01-01T00:00:00"}), 422, "timezone")
    _problem(client.get("/incidents/inc_unheard_of"), 404, "inc_unheard_of")
    _problem(client.get("/incidents?cursor=nonsense"), 422, "cursor")
    _problem(client.get("/nowhere"), 404, "GET /nowhere is no call of this API")
    _problem(client.put("/incidents"), 405, "PUT /incidents is no call of this API")
    incident = world.send_alert(client).json()["incident_id"]
    _problem(client.get(f"/incidents/{incident}/evidence/E99"), 404, "E99")
    decision = {"plan_revision": "x", "choice": "4"}
    _problem(client.post(f"/incidents/{incident}/decision", json=decision), 422, "choice")
    _problem(client.post(f"/incidents/{incident}/decision", json=decision | {"choice": "1"}), 409, "is received")
    _problem(client.post("/incidents/inc_x/decision", json=decision | {"choice": "1"}), 404, "inc_x")


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer ap_x_y"}, {"Authorization": "Basic a"}])
def test_everything_but_health_wants_a_key(api: tuple[World, httpx.Client], headers: dict[str, str]) -> None:
    _, client = api
    paths = ["/incidents", "/incidents/x", "/incidents/x/report", "/tools", "/metrics", "/docs", "/openapi.json"]
    with httpx.Client(base_url=client.base_url, headers=headers) as stranger:
        for path in paths:
            _problem(stranger.get(path), 401, "autopilot keys create")
        assert stranger.get("/healthz").json() == {"status": "ok"}
        assert stranger.get("/readyz").json() == {"status": "ok", "frozen": False}


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x"])
def test_a_wrong_webhook_token_leaves_nothing_behind(api: tuple[World, httpx.Client], token: str) -> None:
    world, client = api
    _problem(client.post("/webhooks/datadog", json={}, headers={"X-AIOps-Token": token}), 401, "X-AIOps-Token")
    with psycopg.connect(world.database_url) as connection:
        assert connection.execute("select count(*) from raw_delivery").fetchone() == (0,)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\x00", b"[1]", b'{"title":"no service here"}', b'"' + b"x" * 500])
def test_what_cannot_be_read_is_kept_raw(api: tuple[World, httpx.Client], body: bytes) -> None:
    world, client = api
    answer = client.post("/webhooks/datadog", content=body, headers={"X-AIOps-Token": TOKEN})
    assert answer.status_code == 202
    dead_letter = answer.json()["dead_letter_id"]
    with psycopg.connect(world.database_url) as connection:
        row = connection.execute("select body, parse_error from raw_delivery where id = %s", (dead_letter,)).fetchone()
    assert row is not None
    assert row[0] == body
    assert row[1]


def test_a_body_without_end_is_cut_off(api: tuple[World, httpx.Client]) -> None:
    _, client = api
    answer = client.post("/webhooks/datadog", content=b"x" * 1_000_001, headers={"X-AIOps-Token": TOKEN})
    _problem(answer, 413, "1000000 bytes")


def test_an_idempotency_key_opens_one_incident(api: tuple[World, httpx.Client]) -> None:
    _, client = api
    body = {"service": "checkout", "occurred_at": SCENARIOS["bad-deploy"].occurred_at.isoformat()}

    def open_it(_: int) -> httpx.Response:
        return client.post("/incidents", json=body, headers={"Idempotency-Key": "once"})

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(open_it, range(8)))
    assert {a.status_code for a in answers} == {202}
    assert len({a.json()["incident_id"] for a in answers}) == 1


def elsewhere(service: str) -> dict[str, object]:
    """An alert that has nothing to do with the others."""
    return {"service": service, "scope": f"service:{service}", "monitor_id": "77", "cycle_key": service}


def test_paging_walks_over_every_incident_once(api: tuple[World, httpx.Client]) -> None:
    world, client = api
    for number in range(7):
        world.send_alert(client, event_id=str(number), **elsewhere(f"checkout-{number}"))
    seen, cursor = [], ""
    while True:
        page = client.get("/incidents", params={"limit": 3} | ({"cursor": cursor} if cursor else {})).json()
        seen += [i["id"] for i in page["incidents"]]
        cursor = page["next_cursor"]
        if not cursor:
            break
    assert len(seen) == len(set(seen)) == 7
    assert client.get("/incidents?status=resolved").json()["incidents"] == []
    assert len(client.get("/incidents", params={"text": "CHECK"}).json()["incidents"]) == 7
    assert client.get("/incidents", params={"text": "100%_"}).json()["incidents"] == []


def test_postgres_away_for_five_seconds(worlds: Worlds, own_postgres: EmbeddedPostgres) -> None:
    world = worlds("bad-deploy", database_url=own_postgres.url)
    client = world.start_api()
    world.start_worker()
    hold = {"path": "/api/v2/logs/events/search", "when": "before", "seconds": 3}
    httpx.post(f"{world.shop_url}/_shop/hold", json=hold, timeout=5).raise_for_status()
    incident = world.send_alert(client).json()["incident_id"]
    world.await_status(client, incident, "collecting")

    own_postgres.stop()
    stopped = time.monotonic()
    refused = world.send_alert(client, event_id="while it was away", **elsewhere("reporting"))
    assert refused.status_code == 503
    assert refused.headers["Retry-After"]
    assert refused.headers["content-type"] == "application/problem+json"
    time.sleep(max(0.0, 5 - (time.monotonic() - stopped)))
    own_postgres.start()

    def taken() -> bool:
        return world.send_alert(client, event_id="while it was away", **elsewhere("reporting")).status_code == 202

    processes.wait_until(taken, "the sender's retry to be taken", 20)
    world.await_status(client, incident, "awaiting_decision")
    world.decide(client, incident, "1")
    world.await_status(client, incident, "resolved", seconds=90)
    assert len(client.get("/incidents").json()["incidents"]) == 2
