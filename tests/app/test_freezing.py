"""The kill switch: who pulls and lifts it, what is told of it, and that nothing is claimed once it is pulled."""

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app import audit, freezing
from app.clock import SystemClock
from app.db import transaction
from app.desk import Conflict, NotAllowed
from app.security import Caller
from app.store import freeze, incidents
from executors.base import Refused
from graph.deps import Claim, StepKey
from graph.state import Decision
from tests import processes
from tests.app.served import serving
from tests.app.test_runner import Office, at_work
from tests.app.test_runner import office as office  # a fixture

VERA, KIM, ADA = Caller("vera", "viewer"), Caller("kim", "responder"), Caller("ada", "admin")
CLOCK = SystemClock()
NOW = datetime(2024, 12, 20, 9, 15, tzinfo=UTC)


async def told(office: Office, incident: str) -> list[str]:
    """The timeline's lines about it."""
    async with office.pool.connection() as connection:
        events = await incidents.events(connection, incident)
    return [event["message"] for event in events if event["kind"] == "freeze"]


async def audited(office: Office, kind: str) -> list[tuple[str, str]]:
    """Who did what, of the log's rows of that kind; a failed assertion if the log does not hold."""
    async with transaction(office.pool) as connection:
        assert (await audit.verify(connection)).findings == []
    rows = await office.execute("select actor, body from audit where kind = %s order by seq", kind)
    return [(row["actor"], row["body"].get("state") or row["body"]["tried"]) for row in rows]


async def test_a_responder_pulls_an_admin_lifts(office: Office) -> None:
    incident = await office.open()
    pulled = await freezing.pull(office.pool, CLOCK, KIM, " a deploy went wrong\n")
    assert (pulled["pulled_by"], pulled["reason"]) == ("kim", "a deploy went wrong")
    assert freeze.said(pulled).startswith("kim froze all actions at 20")
    assert "(a deploy went wrong): nothing new is run until an admin" in freeze.said(pulled)
    again = await freezing.pull(office.pool, CLOCK, ADA, "me too")
    assert (again["id"], again["pulled_by"]) == (pulled["id"], "kim")
    with pytest.raises(NotAllowed, match="lift the freeze takes admin"):
        await freezing.lift(office.pool, CLOCK, KIM)
    with pytest.raises(NotAllowed, match="freeze all actions takes responder"):
        await freezing.pull(office.pool, CLOCK, VERA, "")
    lifted = await freezing.lift(office.pool, CLOCK, ADA)
    assert (lifted["id"], lifted["lifted_by"]) == (pulled["id"], "ada")
    with pytest.raises(Conflict, match="Nothing is frozen"):
        await freezing.lift(office.pool, CLOCK, ADA)
    assert await told(office, incident) == [
        "kim froze all actions: a deploy went wrong",
        "ada lifted the freeze: actions may be run again",
    ]
    assert await audited(office, "freeze") == [("kim", "pulled"), ("ada", "lifted")]
    assert await audited(office, "refusal") == [("kim", "lift the freeze"), ("vera", "freeze all actions")]


async def test_what_is_opened_meanwhile_is_told_too_and_once(office: Office) -> None:
    await freezing.pull(office.pool, CLOCK, KIM, "")
    later = await office.open("later")
    for _ in range(2):
        await freezing.tell(office.pool, CLOCK)  # as the sweep does
    assert await told(office, later) == ["kim froze all actions"]
    await freezing.lift(office.pool, CLOCK, ADA)
    after = await office.open("after")
    await freezing.tell(office.pool, CLOCK)
    assert len(await told(office, later)) == 2
    assert await told(office, after) == []


async def test_an_incident_that_is_held_does_not_hold_up_the_switch(office: Office) -> None:
    incident = await office.open()
    free = await office.open("free")
    async with asyncio.timeout(20), transaction(office.pool) as holding:
        await incidents.lock(holding, incident)
        await freezing.pull(office.pool, CLOCK, KIM, "")
        assert (await told(office, incident), await told(office, free)) == ([], ["kim froze all actions"])
        await freezing.lift(office.pool, CLOCK, ADA)
        await freezing.pull(office.pool, CLOCK, KIM, "again")
    await freezing.tell(office.pool, CLOCK)  # as the sweep does
    assert await told(office, incident) == ["kim froze all actions: again"]


async def test_once_it_is_pulled_nothing_is_claimed(office: Office, database_url: str) -> None:
    """By two processes that claim as fast as they can."""
    incidents_, begun, refusals = [await office.open(f"c{n}") for n in range(10)], asyncio.Event(), list[str]()
    async with at_work(database_url) as other:
        for incident in incidents_:
            async with transaction(office.pool) as connection:
                decision = Decision(plan_revision="r", choice="1", by="kim", at=NOW)
                await incidents.insert_decision(connection, incident, decision)

        async def claims(n: int, incident: str) -> int:
            """How many steps could be claimed."""
            ledger = (office, other)[n % 2].deps.ledger
            for ordinal in range(1, 200):
                try:
                    await ledger.claim(Claim(StepKey(incident, "r", ordinal), "restart", {}, f"{n}:{ordinal}", {}, NOW))
                except Refused as refusal:
                    refusals.append(str(refusal))
                    return ordinal - 1
                begun.set()
            raise AssertionError("it was never refused")

        async def pulls() -> int:
            """How many steps there are once it is pulled."""
            await begun.wait()
            await freezing.pull(office.pool, CLOCK, KIM, "")
            [row] = await office.execute("select count(*) as n from step")
            return int(row["n"])

        async with asyncio.timeout(60):
            then, *each = await asyncio.gather(pulls(), *(claims(n, i) for n, i in enumerate(incidents_)))
    [row] = await office.execute("select count(*) as n from step")
    assert then == sum(each) == row["n"]
    assert then > 0
    assert all("kim froze all actions" in refusal for refusal in refusals)


def test_over_rest(database_url: str, tmp_path: Path) -> None:
    with serving(database_url, tmp_path) as served:
        viewer, responder = served.client("viewer"), served.client("responder")
        for method in ("GET", "POST", "DELETE"):
            assert served.stranger.request(method, "/freeze", json={}).status_code == 401
        assert viewer.get("/freeze").json()["frozen"] is False
        assert viewer.post("/freeze", json={"reason": "x"}).status_code == 403
        assert responder.post("/freeze", json={"reason": "x" * 501}).status_code == 422
        pulled = responder.post("/freeze", json={"reason": "a drill"})
        assert pulled.status_code == 200
        assert pulled.json()["frozen"] is True
        assert viewer.get("/freeze").json() == pulled.json()
        assert served.stranger.get("/readyz").json() == {"status": "ok", "frozen": True}
        assert "autopilot_frozen 1.0" in viewer.get("/metrics").text
        assert responder.delete("/freeze").status_code == 403
        lifted = served.http.delete("/freeze").json()
        assert lifted["frozen"] is False
        assert lifted["lifted_by"]
        assert served.http.delete("/freeze").status_code == 409
        assert "autopilot_frozen 0.0" in viewer.get("/metrics").text


@dataclass
class CommandLine:
    """``autopilot …`` in a process of its own."""

    database_url: str
    folder: Path

    def __call__(self, *arguments: str, key: str = "a-key-of-the-audit-log") -> tuple[int | None, str]:
        """Exit code, and what it printed; a failed assertion on a stack trace."""
        environment = {"DATABASE_URL": self.database_url, "AUTOPILOT_AUDIT_KEY": key}
        output = self.folder / f"{len(list(self.folder.iterdir()))}.log"
        process = processes.spawn(processes.run_command, output, environment, *arguments)
        process.join(60)
        said = output.read_text()
        assert "Traceback" not in said, said
        return process.exitcode, said


def test_on_the_command_line_with_the_log_of_it(database_url: str, tmp_path: Path) -> None:
    autopilot = CommandLine(database_url, tmp_path)
    assert autopilot("freeze", "--status") == (0, "Nothing is frozen.\n")
    code, said = autopilot("freeze", "a deploy went wrong")
    assert code == 0
    assert "(command line) froze all actions at" in said
    assert autopilot("freeze", "--status") == (0, said)
    code, key = autopilot("keys", "create", "kim")
    assert code == 0
    code, said = autopilot("thaw", key="another-key-of-the-log")
    assert code == 1
    assert "which AUTOPILOT_AUDIT_KEY does not have here" in said
    assert autopilot("thaw")[0] == 0
    assert autopilot("thaw") == (1, "autopilot: Nothing is frozen.\n")
    assert autopilot("keys", "revoke", key.split("_")[1])[0] == 0

    code, exported = autopilot("audit", "export", "--since", "1h")
    rows = [json.loads(line) for line in exported.splitlines()]
    assert [row["kind"] for row in rows] == ["configuration", "freeze", "key", "freeze", "key"]
    assert key.strip() not in exported
    code, said = autopilot("audit", "verify")
    *_, verdict, head = said.splitlines()
    assert (code, verdict) == (0, "The log is whole: 5 rows looked at.")
    assert head == f"head: 5:{rows[-1]['hash']}"
    assert autopilot("audit", "verify", "--head", head.removeprefix("head: "))[0] == 0
    code, said = autopilot("audit", "verify", "--head", f"4:{rows[-1]['hash']}")
    assert (code, said.splitlines()[0]) == (
        1,
        "FOUND: row 4 had another hash when its head was written down: the log was rewritten",
    )
    assert autopilot("audit", "verify", "--head", "nonsense")[0] == 2
