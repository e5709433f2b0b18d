"""What people see of messages: REST, the console's list, metrics, doctor."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from uuid import uuid4

import pytest

from app.api.messages import shown
from app.catalogue import AutopilotYaml
from app.clock import SystemClock
from app.console.messages import TEXTS, messages
from app.console.texts import ENGLISH, KOREAN
from app.db import Row
from app.doctor import examine
from app.settings import Settings
from app.wiring import WiringError, create_notifiers
from tests.app.served import Served, serving

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
EVIL = "<script>alert(1)</script>"


def row(**more: object) -> Row:
    """As ``store.outbox.page`` has it."""
    written = {
        "id": uuid4(),
        "event_id": 7,
        "kind": "opened",
        "message": f"Alert: {EVIL}",
        "notifier": "slack",
        "target": f"#web{EVIL}",
        "team": "web",
        "why": f"web owns checkout{EVIL}",
        "written_at": NOW,
        "due_at": NOW,
        "attempts": 1,
        "sent_at": None,
        "failed_at": None,
        "detail": "",
        "under_way": False,
        "held": False,
    }
    return shown(written | more)


HELD = row(attempts=0, held=True, due_at=NOW + timedelta(hours=8))
WAITS = row(due_at=NOW + timedelta(minutes=1), detail="Slack answers 503")
UNDER_WAY = row(under_way=True)
SENT = row(sent_at=NOW, under_way=True)
FAILED = row(failed_at=NOW, detail=f"the channel is archived{EVIL}")


def test_each_has_its_status() -> None:
    spared = row(attempts=0, due_at=NOW + timedelta(hours=1))  # the target asked for patience
    rows = (HELD, WAITS, UNDER_WAY, SENT, FAILED, row(attempts=0), spared)
    assert [r["status"] for r in rows] == ["held", "waiting", "sending", "sent", "failed", "waiting", "waiting"]
    assert [r["due_at"] is not None for r in rows] == [True, True, False, False, False, True, True]


@pytest.mark.parametrize(("texts", "sent"), [(ENGLISH, "sent"), (KOREAN, "전송됨")])
def test_the_console_lists_them_by_target_and_harmlessly(texts: dict[str, str], sent: str) -> None:
    drawn = messages([SENT, WAITS, row(target="#ops"), FAILED], texts)
    assert drawn.count("<details") == 2
    assert "<details open>" in drawn  # one failed there
    assert sent in drawn
    assert "Slack answers 503" in drawn
    assert "2026-03-01 12:01:00" in drawn
    assert "<script>" not in drawn
    HTMLParser().feed(drawn)
    assert messages([], texts) == ""


def test_texts_are_the_same_in_each_language() -> None:
    assert TEXTS["en"].keys() == TEXTS["ko"].keys()


# --- REST ---


@pytest.fixture
def served(database_url: str, tmp_path: Path) -> Iterator[Served]:
    """No worker."""
    with serving(database_url, tmp_path) as started:
        yield started


def test_a_viewer_sees_who_was_told_and_why(served: Served) -> None:
    body = {"service": "checkout", "occurred_at": "2024-12-20T09:15:00Z"}
    incident = served.http.post("/incidents", json=body).json()["incident_id"]
    vera = served.client("viewer")
    assert vera.get(f"/incidents/{incident}").json()["links"]["messages"] == f"/incidents/{incident}/messages"
    assert vera.get(f"/incidents/{incident}/messages").json() == {"messages": []}
    served.database.execute(
        """insert into message (incident_id, event_id, notifier, target, team, why, ready_at, due_at, attempts,
               failed_at, detail)
           select incident_id, id, 'slack', '#web', 'web', 'web owns checkout', now(), now(), 3, now(), 'archived'
           from event where kind = 'opened'"""
    )
    served.database.commit()
    (told,) = vera.get(f"/incidents/{incident}/messages").json()["messages"]
    assert (told["kind"], told["notifier"], told["target"]) == ("opened", "slack", "#web")
    assert (told["why"], told["status"], told["detail"], told["attempts"]) == (
        "web owns checkout",
        "failed",
        "archived",
        3,
    )
    assert told["message"].startswith("Opened by")
    metrics = vera.get("/metrics").text
    assert 'autopilot_messages{notifier="slack",state="failed"} 1.0' in metrics
    assert 'autopilot_messages{notifier="slack",state="waiting"} 0.0' in metrics
    assert 'autopilot_message_late_seconds{notifier="slack"} 0.0' in metrics
    assert vera.get("/incidents/inc_0/messages").status_code == 404
    assert served.stranger.get(f"/incidents/{incident}/messages").status_code == 401


# --- settings ---


async def test_doctor_looks_at_each_notifier(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "autopilot.yaml"
    config.write_text("teams: {web: {pagerduty: web}}\n")
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("AUTOPILOT_PAGERDUTY_ROUTING_KEYS", "web=R0")
    settings = Settings(config=config, notifiers=("pagerduty", "webhook", "pigeon"))
    found = {finding.of: finding.check for finding in await examine(settings) if finding.of.startswith("notifier")}
    assert found["notifier pagerduty"].status == "skipped"
    assert "cannot be tried without telling somebody" in found["notifier pagerduty"].detail
    assert found["notifier webhook"].status == "failed"
    assert "set AUTOPILOT_WEBHOOK_URL" in found["notifier webhook"].detail
    assert "there is no 'pigeon'; there are:" in found["notifier pigeon"].detail


def test_notifiers_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPILOT_NOTIFIERS", "slack, webhook")
    assert Settings().notifiers == ("slack", "webhook")


def test_a_notifier_that_does_not_exist_stops_start_up() -> None:
    with pytest.raises(WiringError, match=r"AUTOPILOT_NOTIFIERS: there is no 'fax'; there are: .*pagerduty.*webhook"):
        create_notifiers(("fax",), AutopilotYaml(), SystemClock())
