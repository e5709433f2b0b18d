"""Alerts, dead letters and silences over REST, by those who may and those who may not."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.app.served import CATALOGUE, Served, form, serving

UNHEARD_OF = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def served(database_url: str, tmp_path: Path) -> Iterator[Served]:
    """Every sender is turned on; no worker."""
    with serving(database_url, tmp_path) as started:
        yield started


@pytest.fixture
def kim(served: Served) -> httpx.Client:
    """A responder."""
    return served.client("responder")


@pytest.fixture
def vera(served: Served) -> httpx.Client:
    """A viewer."""
    return served.client("viewer")


def alert(served: Served, service: str, name: str = "", *, minutes_ago: float = 0, status: str = "firing") -> Any:
    """What became of one alert of Alertmanager's, with a rule of its own."""
    at = (datetime.now(UTC) - timedelta(minutes=minutes_ago)).isoformat()
    labels = {"alertname": name or f"{service} is ill", "service": service}
    one = {"status": status, "labels": labels, "startsAt": at, "endsAt": at if status == "resolved" else None}
    answer = served.send("alertmanager", {"version": "4", "groupKey": str(uuid4()), "alerts": [one]})
    assert answer.status_code == 202, answer.text
    return answer.json()["alerts"][0]


def problem(answer: httpx.Response, status: int, *words: str) -> None:
    """One shape for every refusal."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    said = answer.json()
    assert said["status"] == status
    for word in words:
        assert word in said["detail"] + " ".join(said["errors"])


def listed(client: httpx.Client, **filters: Any) -> list[Any]:
    """Every alert, page by page."""
    found: list[Any] = []
    cursor = None
    while True:
        answer = client.get("/alerts", params={**filters, "limit": 2} | ({"cursor": cursor} if cursor else {}))
        page = answer.raise_for_status().json()
        assert len(page["alerts"]) <= 2
        found += page["alerts"]
        if not (cursor := page["next_cursor"]):
            return found


def status(client: httpx.Client, incident: str) -> Any:
    """An incident's."""
    return client.get(f"/incidents/{incident}").json()["status"]


# --- alerts ---


def test_pages_of_alerts_are_whole_and_newest_first(served: Served, vera: httpx.Client) -> None:
    sent = [alert(served, f"service-{n}", minutes_ago=n)["alert_id"] for n in range(5)]
    assert [a["id"] for a in listed(vera)] == sent[::-1]


def test_filters_of_alerts(served: Served, vera: httpx.Client) -> None:
    one = alert(served, "checkout")
    alert(served, "reporting")
    lost = alert(served, "payment-service", status="resolved")
    assert [a["id"] for a in listed(vera, incident_id=one["incident_id"])] == [one["alert_id"]]
    (unplaced,) = listed(vera, unplaced=True)
    assert (unplaced["id"], unplaced["incident_id"]) == (lost["alert_id"], None)
    assert unplaced["merge_reason"]
    assert [a["id"] for a in listed(vera, fingerprint=unplaced["fingerprint"])] == [lost["alert_id"]]
    assert listed(vera, incident_id="inc_0") == []


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=MjAyNC0wMS0wMSB4", "cursor"),
        ("fingerprint=%00", "NUL"),
        (f"incident_id={'x' * 101}", "incident_id"),
        ("unplaced=perhaps", "unplaced"),
    ],
)
def test_queries_that_make_no_sense(vera: httpx.Client, query: str, word: str) -> None:
    problem(vera.get(f"/alerts?{query}"), 422, word)


def test_a_replayed_alert_is_investigated_again(served: Served, kim: httpx.Client, vera: httpx.Client) -> None:
    first = alert(served, "checkout")
    path = f"/alerts/{first['alert_id']}/replay"
    problem(vera.post(path), 403, "viewer", "responder")
    again = kim.post(path)
    assert again.status_code == 202
    assert again.json()["created"]
    assert again.json()["incident_id"] != first["incident_id"]
    replayed = kim.get(f"/incidents/{again.json()['incident_id']}").json()
    assert (replayed["service"], replayed["title"]) == ("checkout", "checkout is ill")
    problem(kim.post(f"/alerts/{UNHEARD_OF}/replay"), 404, UNHEARD_OF)
    problem(kim.post("/alerts/no-id/replay"), 422, "alert_id")


# --- dead letters ---


def test_a_dead_letter_is_read_after_the_catalogue_was_mended(database_url: str, tmp_path: Path) -> None:
    event = {"title": "[Triggered] imports are stuck", "event_id": "1"}
    with serving(database_url, tmp_path) as before:
        unread = before.send("datadog", event).json()
        letter = unread["dead_letter_id"]
        kim, vera = before.client("responder"), before.client("viewer")
        problem(vera.get("/dead-letters"), 403, "viewer")
        problem(vera.post(f"/dead-letters/{letter}/replay"), 403, "viewer")
        problem(kim.post(f"/dead-letters/{letter}/replay"), 422, "still cannot be read", "service")
        (row,) = kim.get("/dead-letters").json()["dead_letters"]
        assert (row["id"], row["sender"], row["error"]) == (letter, "datadog", unread["detail"])
        assert "imports are stuck" in row["preview"]
    with serving(
        database_url, tmp_path, catalogue=f"{CATALOGUE}\n".replace("  reporting: {}", "  imports: {}")
    ) as after:
        kim = after.client("responder")
        said = kim.post(f"/dead-letters/{letter}/replay")
        assert (said.status_code, said.json()["created"]) == (202, True)
        assert kim.get(f"/incidents/{said.json()['incident_id']}").json()["service"] == "imports"
        assert kim.get("/dead-letters").json()["dead_letters"] == []
        problem(kim.post(f"/dead-letters/{letter}/replay"), 404, "no dead letter")


def test_slacks_secrets_are_not_in_a_preview(served: Served, kim: httpx.Client) -> None:
    inside = (
        '[{"token": "gIkuva\\"NzQ", "type": "x", "a": [{"response_url": "https:\\/\\/hooks.slack.com\\/actions"}]}]'
    )
    bodies = {
        "events": inside.encode(),
        "actions": form(token="gIkuvaNzQ", type="x", response_url="https://hooks.slack.com/actions/T1"),
        "commands": b"token=gIkuvaNzQ&" + b"&" * 200 + b"type=x&response_url=https%3A%2F%2Fhooks.slack.com",
    }
    sent = [served.send("slack", body, part=part) for part, body in bodies.items()]
    sent.append(served.send("slack", form(payload=inside), part="actions"))
    sent.append(
        served.send("slack", b'[{"a": "' + b"x" * 1960 + b'", "type": "x", "token": "gIkuvaNzQ"}]', part="events")
    )
    assert {answer.status_code for answer in sent} == {200}
    previews = [row["preview"] for row in kim.get("/dead-letters").json()["dead_letters"]]
    assert previews
    for preview in previews:
        assert "type" in preview
        assert "gIkuva" not in preview
        assert "NzQ" not in preview
        assert "hooks" not in preview
    assert '[{"token": "", "type": "x", "a": [{"response_url": ""}]}]' in previews
    assert "token=&type=x&response_url=" in previews
    other = served.send("datadog", b'[{"token": "not a secret of Slack"}]')
    assert other.status_code == 202
    assert "not a secret" in kim.get("/dead-letters").json()["dead_letters"][0]["preview"]


def test_pages_of_dead_letters(served: Served, kim: httpx.Client) -> None:
    sent = [served.send("datadog", b"{" * (n + 1)).json()["dead_letter_id"] for n in range(3)]
    first = kim.get("/dead-letters?limit=2").json()
    rest = kim.get("/dead-letters", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [row["id"] for page in (first, rest) for row in page["dead_letters"]] == sent[::-1]
    assert rest["next_cursor"] is None


# --- take apart, put together ---


def merged(served: Served) -> tuple[str, Any, Any]:
    """An incident of two alerts of one service."""
    one = alert(served, "checkout", "checkout is slow")
    other = alert(served, "checkout", "checkout answers with errors")
    assert one["incident_id"] == other["incident_id"]
    assert other["became"] == "joined"
    assert other["why"]
    return one["incident_id"], one, other


def test_what_was_split_stays_apart_until_it_is_moved_back(served: Served, kim: httpx.Client) -> None:
    incident, one, other = merged(served)
    split = kim.post(f"/incidents/{incident}/split", json={"alert_ids": [other["alert_id"]]})
    assert split.status_code == 202
    own = split.json()["incident_id"]
    assert own != incident
    assert [a["id"] for a in listed(kim, incident_id=own)] == [other["alert_id"]]
    assert [a["id"] for a in listed(kim, incident_id=incident)] == [one["alert_id"]]
    again = alert(served, "checkout", "checkout answers with errors", minutes_ago=-1)
    assert again["incident_id"] == own
    moved = kim.post(f"/incidents/{own}/move", json={"alert_ids": [other["alert_id"]], "to": incident})
    assert (moved.status_code, moved.content) == (204, b"")
    assert other["alert_id"] in [a["id"] for a in listed(kim, incident_id=incident)]


def test_an_incident_whose_last_alert_was_moved_is_closed(served: Served, kim: httpx.Client) -> None:
    one, other = alert(served, "checkout"), alert(served, "reporting")
    source, target = one["incident_id"], other["incident_id"]
    assert kim.post(f"/incidents/{source}/move", json={"alert_ids": [one["alert_id"]], "to": target}).status_code == 204
    assert status(kim, source) == "closed"
    assert {a["id"] for a in listed(kim, incident_id=target)} == {one["alert_id"], other["alert_id"]}
    back = {"alert_ids": [one["alert_id"]], "to": source}
    problem(kim.post(f"/incidents/{target}/move", json=back), 409, "closed")
    kinds = [e["kind"] for e in kim.get(f"/incidents/{target}").json()["timeline"]]
    assert "moved" in kinds


def test_what_cannot_be_split_or_moved(served: Served, kim: httpx.Client, vera: httpx.Client) -> None:
    incident, one, other = merged(served)
    both = {"alert_ids": [one["alert_id"], other["alert_id"]]}
    split, move = f"/incidents/{incident}/split", f"/incidents/{incident}/move"
    problem(vera.post(split, json=both), 403, "viewer", "responder")
    problem(vera.post(move, json={**both, "to": "inc_0"}), 403, "viewer", "responder")
    problem(kim.post(split, json=both), 422, "nothing would be left")
    problem(kim.post(split, json={"alert_ids": [UNHEARD_OF]}), 422, "None of these alerts")
    problem(kim.post(split, json={"alert_ids": []}), 422, "alert_ids")
    problem(kim.post(split, content=b'"\xff"', headers={"content-type": "application/json"}), 400)
    problem(kim.post(move, json={**both, "to": incident}), 422, "already")
    problem(kim.post(move, json={**both, "to": "inc_0"}), 404, "inc_0")
    problem(kim.post("/incidents/inc_0/split", json=both), 404, "inc_0")
    problem(kim.post("/incidents/inc_%00/split", json=both), 404)
    problem(kim.post(split, content=b'{"alert_ids": ["' + b"x" * 1_000_000 + b'"]}'), 413)


# --- silences ---


def in_minutes(minutes: float) -> str:
    """From now."""
    return (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()


def waits(served: Served, incident: str) -> Any:
    """Why its investigation does not begin."""
    found = served.http.get(f"/incidents/{incident}").json()
    return found["status_reason"] if found["held_until"] else ""


def test_a_silenced_alert_is_kept_and_waits_until_the_silence_ends(served: Served, kim: httpx.Client) -> None:
    window = {"ends_at": in_minutes(30), "reason": "database upgrade", "service": "checkout"}
    made = kim.post("/silences", json=window)
    assert made.status_code == 201
    silence = made.json()
    assert (silence["service"], silence["rule"], silence["created_by"]) == ("checkout", None, "a-responder")
    assert kim.get("/silences").json() == [silence]
    quiet, loud = alert(served, "checkout")["incident_id"], alert(served, "reporting")["incident_id"]
    assert "database upgrade" in waits(served, quiet)
    assert not waits(served, loud)
    assert [j["args"]["incident_id"] for j in served.rows("select args from procrastinate_jobs")] == [loud]
    assert kim.delete(f"/silences/{silence['id']}").status_code == 204
    assert kim.get("/silences").json() == []
    assert not waits(served, quiet)
    queued = {j["args"]["incident_id"] for j in served.rows("select args from procrastinate_jobs")}
    assert queued == {quiet, loud}
    problem(kim.delete(f"/silences/{silence['id']}"), 404, silence["id"])


def test_a_snooze_silences_what_an_incident_watches(served: Served, kim: httpx.Client, vera: httpx.Client) -> None:
    incident, *_ = merged(served)
    path = f"/incidents/{incident}/snooze"
    problem(vera.post(path, json={"minutes": 10}), 403, "viewer", "responder")
    made = kim.post(path, json={"minutes": 10})
    assert made.status_code == 201
    lines = made.json()
    assert {line["fingerprint"] for line in lines} == {a["fingerprint"] for a in listed(kim, incident_id=incident)}
    assert kim.get("/silences").json() == sorted(lines, key=lambda line: (line["starts_at"], line["id"]))
    problem(kim.post(path, json={"minutes": 0}), 422, "minutes")
    problem(kim.post("/incidents/inc_0/snooze", json={"minutes": 10}), 404, "inc_0")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"ends_at": in_minutes(-1)}, "over already"),
        ({"starts_at": in_minutes(60)}, "not after starts_at"),
        ({"ends_at": in_minutes(91 * 24 * 60)}, "90 days"),
        ({"ends_at": "2030-01-01T00:00:00"}, "timezone"),
        ({"ends_at": 1893456000}, "2024-12-20T09:15:00Z"),
        ({"reason": ""}, "reason"),
        ({"service": "a\x00b"}, "NUL"),
    ],
)
def test_silences_that_make_no_sense(kim: httpx.Client, changes: dict[str, Any], word: str) -> None:
    problem(
        kim.post("/silences", json={"ends_at": in_minutes(30), "reason": "upgrade", "everything": True} | changes),
        422,
        word,
    )
    assert kim.get("/silences").json() == []


def test_a_viewer_may_look_at_silences_only(served: Served, kim: httpx.Client, vera: httpx.Client) -> None:
    window = {"ends_at": in_minutes(30), "reason": "upgrade", "everything": True}
    silence = kim.post("/silences", json=window).json()
    assert vera.get("/silences").json() == [silence]
    problem(vera.post("/silences", json=window), 403, "viewer", "responder")
    problem(vera.delete(f"/silences/{silence['id']}"), 403, "viewer", "responder")
    for method, path in (("get", "/alerts"), ("get", "/dead-letters"), ("get", "/silences"), ("post", "/silences")):
        problem(served.stranger.request(method, path), 401, "Authorization")
