"""The whole loop over real HTTP, from the alert to the verdict, on the simulated shop."""

import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from app.simulator.scenarios import SCENARIOS
from tests import processes
from tests.conftest import TOKEN, Worlds, make_key

SERVICE = {name: scenario.service for name, scenario in SCENARIOS.items()}


@pytest.mark.parametrize(("scenario", "component"), [("black-friday", "payment-service"), ("bad-deploy", "checkout")])
def test_the_first_option_resolves_it(worlds: Worlds, scenario: str, component: str) -> None:
    world = worlds(scenario)
    client = world.start_api()
    world.start_worker()
    accepted = world.send_alert(client)
    assert accepted.status_code == 202
    incident = accepted.json()["incident_id"]
    world.await_status(client, incident, "awaiting_decision")

    report = world.report(client, incident)
    assert report["suspects"][0]["component"] == component
    assert report["root_cause"]["component"] == component
    assert report["root_cause"]["engine"] == "rules"
    assert all(claim["verified"] for claim in report["root_cause"]["claims"])
    assert len(report["options"]) == 3
    for option in report["options"]:
        assert option["steps"]
        assert option["expected"]
        assert option["risk"] in ("none", "low", "medium", "high")
    assert world.changes() == [], "nothing runs that a person did not approve"

    assert world.decide(client, incident, "1").status_code == 202
    world.await_status(client, incident, "resolved", seconds=90)
    report = world.report(client, incident)
    execution = report["executions"][0]
    assert [r["status"] for r in execution["results"]] == ["succeeded"] * len(execution["results"])
    assert execution["verification"]["verdict"] == "resolved"
    assert all(c["status"] == "met" for c in execution["verification"]["checks"])
    markdown = client.get(f"/incidents/{incident}/report", headers={"Accept": "text/markdown"})
    assert markdown.headers["content-type"].startswith("text/markdown")
    assert "Verdict: **resolved**" in markdown.text


def test_the_useless_option_ends_unchanged(worlds: Worlds) -> None:
    world = worlds("bad-deploy")
    client = world.start_api()
    world.start_worker()
    incident = world.to_the_decision(client)
    shown = client.get(f"/incidents/{incident}/actions").json()
    useless = next(n for n, o in enumerate(shown["options"], 1) if o["steps"][0]["operation"] == "restart_ecs_task")
    world.decide(client, incident, str(useless))
    world.await_status(client, incident, "executing", "verifying")
    world.await_status(client, incident, "awaiting_decision", seconds=90)
    execution = world.report(client, incident)["executions"][0]
    assert execution["verification"]["verdict"] == "unchanged"
    assert execution["undone"] == []
    again = client.get(f"/incidents/{incident}/actions").json()
    assert again["options"][useless - 1]["tried"] == "unchanged"
    assert again["plan_revision"] != shown["plan_revision"]


def test_the_harmful_option_ends_worse_and_undone(worlds: Worlds) -> None:
    world = worlds("black-friday")
    client = world.start_api()
    world.start_worker()
    incident = world.to_the_decision(client)
    options = client.get(f"/incidents/{incident}/actions").json()["options"]
    harmful = next(n for n, o in enumerate(options, 1) if o["steps"][0]["operation"] == "scale_ecs_service")
    before = options[harmful - 1]["steps"][0]["params"]["desired_count"]
    world.decide(client, incident, str(harmful))
    world.await_status(client, incident, "executing", "verifying")
    world.await_status(client, incident, "awaiting_decision", seconds=90)
    execution = world.report(client, incident)["executions"][0]
    assert execution["verification"]["verdict"] == "worse"
    assert [u["status"] for u in execution["undone"]] == ["succeeded"]
    counts = [c["params"]["desiredCount"] for c in world.changes()]
    assert counts == [before, 3]


def test_help_for_a_while_is_not_called_resolved(worlds: Worlds) -> None:
    world = worlds("black-friday")
    client = world.start_api()
    world.start_worker()
    incident = world.to_the_decision(client)
    options = client.get(f"/incidents/{incident}/actions").json()["options"]
    restart = next(n for n, o in enumerate(options, 1) if o["steps"][0]["operation"] == "restart_ecs_task")
    world.decide(client, incident, str(restart))
    world.await_status(client, incident, "executing", "verifying")
    world.await_status(client, incident, "awaiting_decision", seconds=90)
    assert world.report(client, incident)["executions"][0]["verification"]["verdict"] in ("unchanged", "improved")


def test_re_analyze_with_a_hint_up_to_three_rounds_then_manual(worlds: Worlds) -> None:
    world = worlds("bad-deploy")
    client = world.start_api()
    world.start_worker()
    body = {"service": SERVICE["bad-deploy"], "occurred_at": SCENARIOS["bad-deploy"].occurred_at.isoformat()}
    incident = client.post("/incidents", json=body).json()["incident_id"]
    for round_ in (1, 2, 3):
        seen = world.await_status(client, incident, "awaiting_decision")
        assert seen["round"] == round_
        answer = world.decide(client, incident, "re_analyze", hint="look at the coupons")
        assert answer.status_code == (202 if round_ < 3 else 422), answer.text
        if round_ < 3:
            world.await_status(client, incident, "collecting", "analyzing", "planning")
    assert "3 times already" in answer.json()["detail"]
    assert world.decide(client, incident, "manual", note="I take it").status_code == 202
    closed = world.await_status(client, incident, "closed")
    assert closed["status_reason"] == "kim takes it by hand"
    assert world.changes() == []


def test_five_decisions_at_once(worlds: Worlds) -> None:
    world = worlds("bad-deploy", speed=240.0)
    client = world.start_api()
    world.start_worker()
    incident = world.to_the_decision(client)
    with ThreadPoolExecutor(5) as threads:
        answers = list(threads.map(lambda _: world.decide(client, incident, "1"), range(5)))
    assert sorted(a.status_code for a in answers) == [202, 409, 409, 409, 409]
    losers = [a.json() for a in answers if a.status_code == 409]
    assert all("Already decided: kim chose 1" in p["detail"] or "No decision is awaited" in p["detail"] for p in losers)
    world.await_status(client, incident, "resolved", seconds=90)
    assert [c["operation"] for c in world.changes()] == ["UpdateService"]
    late = client.post(f"/incidents/{incident}/decision", json={"plan_revision": "stale", "choice": "1"})
    assert late.status_code == 409
    assert "resolved" in late.json()["detail"]


def test_twenty_equal_webhooks_at_once(worlds: Worlds) -> None:
    world = worlds("bad-deploy")
    client = world.start_api()
    payload = SCENARIOS["bad-deploy"].alert_payload(world.clock.now())
    headers = {"X-AIOps-Token": TOKEN}

    def send(_: int) -> httpx.Response:
        return client.post("/webhooks/datadog", json=payload, headers=headers)

    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(send, range(20)))
    assert {a.status_code for a in answers} == {202}
    assert len({a.json()["incident_id"] for a in answers}) == 1
    assert sum(a.json()["created"] for a in answers) == 1
    assert len(client.get("/incidents").json()["incidents"]) == 1


def test_other_alerts_of_the_same_cycle_join_and_a_recovery_closes(worlds: Worlds) -> None:
    world = worlds("bad-deploy")
    client = world.start_api()
    first = world.send_alert(client).json()
    again = world.send_alert(client, transition="Re-Triggered", event_id="another").json()
    assert (again["incident_id"], again["created"]) == (first["incident_id"], False)
    recovered = world.send_alert(client, transition="Recovered", event_id="third").json()
    assert recovered["incident_id"] == first["incident_id"]
    seen = client.get(f"/incidents/{first['incident_id']}").json()
    assert (seen["status"], seen["status_reason"]) == ("closed", "recovered by itself")
    assert [a["transition"] for a in seen["alerts"]] == ["firing", "firing", "resolved"]
    lonely = world.send_alert(client, transition="Recovered", event_id="fourth", cycle_key="unheard of").json()
    assert (lonely["incident_id"], lonely["created"]) == (None, False)


def test_a_source_that_fails_is_a_gap_and_the_loop_goes_on(worlds: Worlds) -> None:
    world = worlds("bad-deploy")
    failure = {"path": "/api/v2/query/timeseries", "status": 403, "times": 1000}
    httpx.post(f"{world.shop_url}/_shop/fail", json=failure, timeout=5).raise_for_status()
    client = world.start_api()
    world.start_worker()
    incident = world.to_the_decision(client)
    gaps = world.report(client, incident)["gaps"]
    assert any(g["source"] == "datadog" and g["reason"] == "forbidden" for g in gaps), gaps


def test_the_event_stream_resumes_where_it_broke_off(worlds: Worlds) -> None:
    world = worlds("bad-deploy")
    client = world.start_api()
    incident = world.send_alert(client).json()["incident_id"]
    world.send_alert(client, transition="Recovered", event_id="2")

    def stream(after: str) -> list[tuple[str, str]]:
        text = client.get(f"/incidents/{incident}/events", headers={"Last-Event-ID": after}).text
        blocks = [dict(line.split(": ", 1) for line in b.splitlines() if ": " in line) for b in text.split("\r\n\r\n")]
        return [(b["id"], json.loads(b["data"])["kind"]) for b in blocks if "data" in b]

    whole = stream("0")
    assert [kind for _, kind in whole] == ["opened", "resolved", "recovered"]
    assert stream(whole[0][0]) == whole[1:]


def test_roles(worlds: Worlds) -> None:
    world = worlds("bad-deploy")
    client = world.start_api()
    incident = world.send_alert(client).json()["incident_id"]
    viewer = {"Authorization": f"Bearer {make_key(world.database_url, 'viewer', 'vera')}"}
    assert client.get(f"/incidents/{incident}", headers=viewer).status_code == 200
    refused = client.post(f"/incidents/{incident}/decision", json={"plan_revision": "x", "choice": "1"}, headers=viewer)
    assert (refused.status_code, refused.json()["detail"]) == (403, "vera is viewer; to decide takes responder.")


@pytest.mark.parametrize("body", [None, "<html>busy</html>", '{"choices": null}'])
def test_a_model_that_is_down_or_answers_rubbish_costs_nothing_but_its_words(worlds: Worlds, body: str | None) -> None:
    world = worlds("bad-deploy")
    port = processes.free_port()
    if body is not None:
        world.start(processes.run_rubbish, body, port)
    world.environment |= {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1"}
    client = world.start_api()
    world.start_worker()
    incident = world.to_the_decision(client)
    cause = world.report(client, incident)["root_cause"]
    assert (cause["component"], cause["engine"]) == ("checkout", "rules")
    assert "gpt-4o" in cause["engine_note"]
    assert "sk-test" not in world.logs()


def test_a_model_that_costs_too_much_is_not_asked_again_and_every_incident_reaches_a_decision(worlds: Worlds) -> None:
    world = worlds("bad-deploy")
    port = processes.free_port()
    message = {"role": "assistant", "content": "{}"}
    answer = {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 200_000, "completion_tokens": 50_000, "total_tokens": 250_000},
    }
    world.start(processes.run_rubbish, json.dumps(answer), port)
    world.environment |= {
        "OPENAI_API_KEY": "sk-test",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1",
        "AUTOPILOT_INVESTIGATION_DOLLARS_PER_DAY": "1.01",
    }
    client = world.start_api()
    world.start_worker()
    first = world.to_the_decision(client)
    timeline = client.get(f"/incidents/{first}").json()["timeline"]
    told = [entry["message"] for entry in timeline if entry["kind"] == "usage"]
    assert told == ["gpt-4o: 200000 + 50000 tokens, 1.0000 dollars"]
    refusals = [entry for entry in timeline if entry["kind"] == "usage_refused"]
    assert [entry["node"] for entry in refusals] == ["RootCauseAnalyzer", "ActionPlanner"]
    for entry in refusals:
        assert "AUTOPILOT_MODEL_TOKENS_PER_INCIDENT is 200000, 250000 are spent or reserved" in entry["message"]
    body = {"service": "reporting", "occurred_at": SCENARIOS["bad-deploy"].occurred_at.isoformat()}
    second = client.post("/incidents", json=body).json()["incident_id"]
    world.await_status(client, second, "awaiting_decision")
    cause = world.report(client, second)["root_cause"]
    assert cause["engine"] == "rules"
    assert "AUTOPILOT_INVESTIGATION_DOLLARS_PER_DAY is 1.0100, 1.0000 are spent" in cause["engine_note"]
    calls = client.get(f"/incidents/{first}/model-calls").json()
    assert [call["status"] for call in calls["calls"]] == ["answered"]
    assert (calls["tokens"], calls["dollars"], calls["dollars_today"]) == (250_000, 1.0, 1.0)
    assert client.get(f"/incidents/{second}/model-calls").json()["calls"] == []
