"""``autopilot replay``: dead letters are read again, old alerts are investigated again."""

import hashlib
import hmac
import json
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
import pytest
import yaml

from app.replay import moment
from tests import processes
from tests.conftest import TOKEN, World, Worlds

SIGNING_SECRET = "a-signing-secret-of-the-tests"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def replay(world: World, *arguments: str, **environment: str) -> tuple[int, str]:
    """Exit code and output of ``autopilot replay …``."""
    own = {"DATABASE_URL": world.database_url, **world.environment, **environment}
    said = world.folder / f"replay-{uuid4().hex}.log"
    process = processes.spawn(processes.run_command, said, own, "replay", *arguments)
    process.join(90)
    assert process.exitcode is not None
    output = said.read_text()
    assert "Traceback" not in output, output
    return process.exitcode, output


def send(client: httpx.Client, payload: dict[str, str]) -> str:
    """The id of the dead letter that this becomes."""
    answer = client.post("/webhooks/datadog", json=payload, headers={"X-AIOps-Token": TOKEN}).json()
    letter: str = answer["dead_letter_id"]
    assert letter, answer
    return letter


def with_a_service(world: World, tag: str) -> str:
    """The catalogue, mended: a service that owns this tag."""
    path = Path(world.environment["AUTOPILOT_CONFIG"])
    content = yaml.safe_load(path.read_text())
    content["services"]["reporting"]["resources"] = [tag]
    mended = world.folder / "autopilot.yaml"
    mended.write_text(yaml.safe_dump(content))
    return str(mended)


def test_nothing_to_replay_is_said(worlds: Worlds) -> None:
    world = worlds("black-friday")
    assert replay(world, "--dead-letter") == (0, "No dead letters.\n")
    code, err = replay(world, str(uuid4()))
    assert code == 1
    assert re.fullmatch(r"autopilot: There is no alert '[0-9a-f-]{36}'\.\n", err)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Usage:"),
        (("not-an-id",), "Invalid value for 'alert_id'"),
        (("--since", "2h"), "give either an alert's id, or --dead-letter"),
        ((str(uuid4()), "--dead-letter"), "give either an alert's id, or --dead-letter"),
        (("--dead-letter", "--since", "yesterday"), "'yesterday' is no time"),
    ],
)
def test_a_wrong_call_is_told(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    world = World("black-friday", "postgresql://127.0.0.1:9/none", tmp_path)
    code, out = replay(world, *arguments)
    assert code == 2
    assert said in " ".join(out.split())


def test_a_catalogue_that_is_wrong_is_told(worlds: Worlds) -> None:
    world = worlds("black-friday")
    code, err = replay(world, "--dead-letter", AUTOPILOT_CONFIG="nowhere.yaml")
    assert code == 1
    assert "nowhere.yaml: there is no such file" in err


def test_dead_letters_are_read_again_with_the_present_catalogue(worlds: Worlds) -> None:
    world = worlds("black-friday")
    client = world.start_api()
    nameless = {"monitor_id": "1", "transition": "Triggered", "title": "Disk is full\x1b[2J"}
    payload = {"date": str(int(world.clock.now().timestamp() * 1000)), **nameless}
    letters = [
        send(client, payload | {"event_id": "1", "cycle_key": "a", "scope": ""}),
        send(client, payload | {"event_id": "2", "cycle_key": "b", "title": "", "hostname": "\x1b]0;x\x07"}),
        send(client, payload | {"event_id": "3", "cycle_key": "a", "transition": "Recovered"}),
        send(client, payload | {"event_id": "4", "cycle_key": "c", "transition": "Recovered", "monitor_id": "4"}),
    ]
    code, out = replay(world, "--dead-letter")
    assert code == 1
    assert [line.split()[0] for line in out.splitlines()[:-1]] == letters
    assert out.count("still cannot be read: ") == 4
    assert out.splitlines()[-1] == "4 dead letters: 0 read, 4 remain."

    # what is mended is the letters themselves, as a mended parser would see them
    with psycopg.connect(world.database_url, autocommit=True) as connection:
        for letter in (letters[0], letters[2], letters[3]):
            connection.execute(
                """update raw_delivery set body = convert_to(
                       (convert_from(body, 'UTF8')::jsonb || '{"scope": "disk:d-7"}')::text, 'UTF8')
                   where id = %s""",
                (letter,),
            )
    code, out = replay(world, "--dead-letter", AUTOPILOT_CONFIG=with_a_service(world, "disk:d-7"))
    lines = out.splitlines()
    assert code == 1
    opened = re.fullmatch(rf"{letters[0]}  datadog       incident (inc_\w+), opened", lines[0])
    assert opened, out
    assert lines[1] == f"{letters[1]}  datadog       still cannot be read: the payload has no title"
    assert lines[2] == f"{letters[2]}  datadog       incident {opened[1]}, known before"
    assert lines[3].startswith(f"{letters[3]}  datadog       no incident: ")
    assert lines[4:] == ["4 dead letters: 3 read, 1 remain."]
    incident = client.get(f"/incidents/{opened[1]}").json()
    assert (incident["service"], incident["status"]) == ("reporting", "closed")

    code, out = replay(world, "--dead-letter")
    assert (code, out.splitlines()[-1]) == (1, "1 dead letters: 0 read, 1 remain.")
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert replay(world, "--dead-letter", "--since", later)[1] == "No dead letters.\n"
    assert replay(world, "--dead-letter", "--since", "1h")[0] == 1


def test_an_alert_is_investigated_again(worlds: Worlds) -> None:
    world = worlds("black-friday")
    client = world.start_api()
    first = world.send_alert(client).json()
    code, out = replay(world, first["alerts"][0]["alert_id"])
    assert code == 0
    again = re.fullmatch(r"incident (inc_\w+)\n", out)
    assert again
    assert again[1] != first["incident_id"]
    assert client.get(f"/incidents/{again[1]}").json()["service"] == "payment-service"


def test_what_a_worker_could_not_ask_is_asked_again(worlds: Worlds) -> None:
    """A hint in Slack whose monitor could not be read, for want of keys."""
    world = worlds("black-friday")
    keys = {name: world.environment.pop(name) for name in ("DATADOG_API_KEY", "DATADOG_APP_KEY")}
    world.environment |= {
        "AUTOPILOT_SLACK_SIGNING_SECRETS": SIGNING_SECRET,
        "AUTOPILOT_COLLECTORS": "",
        "DATADOG_API_KEY": "",
        "DATADOG_APP_KEY": "",
    }
    client = world.start_api()
    worker = world.start_worker()
    event = {
        "type": "event_callback",
        "event_id": "Ev1",
        "event": {
            "type": "message",
            "channel": "C1",
            "ts": "1721656862.958529",
            "text": "",
            "bot_id": "B1",
            "app_id": "AR28NTK5M",
            "metadata": {"event_type": "monitor_thread", "event_payload": {"monitor_id": 151093327}},
        },
    }
    body, stamp = json.dumps(event), str(int(time.time()))
    signature = hmac.new(SIGNING_SECRET.encode(), f"v0:{stamp}:{body}".encode(), hashlib.sha256).hexdigest()
    headers = {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": f"v0={signature}"}
    assert client.post("/webhooks/slack/events", content=body, headers=headers).status_code == 200

    def letters() -> list[dict[str, str]]:
        found: list[dict[str, str]] = client.get("/dead-letters").json()["dead_letters"]
        return found

    processes.wait_until(lambda: bool(letters()), f"a dead letter; {world.logs()}")
    (letter,) = letters()
    assert "set DATADOG_API_KEY and DATADOG_APP_KEY" in letter["error"]
    processes.kill(worker)

    world.environment |= keys
    code, out = replay(world, "--dead-letter")
    assert code == 0
    assert out == f"{letter['id']}  slack         a worker asks its source again\n1 dead letters: 1 read, 0 remain.\n"
    assert letters() == []
    world.start_worker()
    processes.wait_until(lambda: bool(client.get("/incidents").json()["incidents"]), f"an incident; {world.logs()}")
    (incident,) = client.get("/incidents").json()["incidents"]
    assert incident["service"] == "payment-service"
    assert letters() == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("30m", NOW - timedelta(minutes=30)),
        ("2h", NOW - timedelta(hours=2)),
        (" 7d ", NOW - timedelta(days=7)),
        ("2026-11-22T09:15:00+09:00", datetime(2026, 11, 22, 0, 15, tzinfo=UTC)),
        ("2026-11-22", datetime(2026, 11, 22, tzinfo=UTC)),
    ],
)
def test_since(text: str, found: datetime) -> None:
    assert moment(text, NOW) == found


@pytest.mark.parametrize("text", ["", "2", "h", "2w", "-2h", "yesterday", "999999d"])
def test_since_that_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"no time|too long ago"):
        moment(text, NOW)
