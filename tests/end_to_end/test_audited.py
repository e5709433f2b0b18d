"""What a real incident leaves in the audit log, written by three processes."""

from app import audit
from app.db import Connection, in_one_transaction
from app.store import audit as log
from tests.conftest import Worlds


def test_from_the_alert_to_the_verification(worlds: Worlds) -> None:
    world = worlds("bad-deploy")
    client = world.start_api()
    world.start_worker()
    incident = world.to_the_decision(client)
    answer = world.decide(client, incident, "1")
    assert answer.status_code == 202, answer.text
    world.await_status(client, incident, "resolved")

    async def read(connection: Connection) -> tuple[list[str], list[str]]:
        rows = await log.page(connection, incident_id=incident)
        return (await audit.examine(connection)).findings, [row["kind"] for row in rows]

    findings, kinds = in_one_transaction(world.database_url, read)
    assert findings == []
    assert kinds[:3] == ["alert", "evidence", "plan"]
    assert kinds[-1] == "verification"
    steps = kinds.count("claim")
    assert steps > 0
    assert kinds.count("step") == steps
    assert {
        kind: kinds.count(kind) for kind in ("alert", "evidence", "plan", "decision", "verification")
    } == dict.fromkeys(("alert", "evidence", "plan", "decision", "verification"), 1)
