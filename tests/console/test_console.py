"""The console over real HTTP, on a real Postgres: who gets in, what they see, what they may do."""

from datetime import timedelta
from uuid import uuid4

from app.api.access import SESSION_COOKIE
from app.db import transaction
from app.intake.triage import Cycle
from app.store import alerts, incidents
from graph.state import Evidence, Finding, Suspect
from tests.console.browsing import AT, PLAN, Console, alert_of


async def test_a_stranger_gets_401_and_is_told_what_to_do(console: Console) -> None:
    stranger = await console.browser(None)
    page = await stranger.client.get("/ui/", headers={"accept": "text/html"})
    assert page.status_code == 401
    assert "autopilot sign-in" in page.text
    assert (await stranger.client.get("/ui/config")).status_code == 401
    join = {"fn_index": 0, "data": [], "session_hash": "x"}
    assert (await stranger.client.post("/ui/gradio_api/queue/join", json=join)).status_code == 401
    stranger.client.cookies.set(SESSION_COOKIE, "ap_0123_guess")
    assert (await stranger.client.get("/ui/")).status_code == 401


async def test_the_page_asks_no_outside_host_and_lists_no_incidents_yet(console: Console) -> None:
    viewer = await console.browser("viewer")
    page = await viewer.client.get("/ui/", headers={"accept": "text/html"})
    assert page.status_code == 200
    assert "AIOps Auto Pilot" in page.text
    assert not [link for link in page.text.split('src="')[1:] if link.startswith("http")]
    assert "fonts.googleapis" not in page.text
    home = await viewer.fire("on_load")
    assert "No incidents yet" in home
    assert "kim the viewer" in home
    assert "starting an analysis takes responder" in home


async def test_a_link_opens_its_incident_in_the_language_asked_for(console: Console) -> None:
    incident_id, viewer = await console.incident(), await console.browser("viewer")
    seen = await viewer.fire("on_load", incident=incident_id, lang="ko")
    assert "p95 latency &lt;script&gt;" in seen
    assert "<script>" not in seen
    assert "RemediationDecision" in seen
    assert "결정 필요" in seen
    assert PLAN.revision in seen
    assert "Scale out &lt;b&gt;now&lt;/b&gt;" in seen


async def test_a_link_to_nowhere_says_so(console: Console) -> None:
    viewer = await console.browser("viewer")
    for wrong in ("inc_missing", "<script>x", "nul\x00"):
        seen = await viewer.fire("on_load", incident=wrong)
        assert "There is no incident with this id" in seen
        assert "<script>" not in seen


async def test_only_what_changed_is_sent_again(console: Console) -> None:
    incident_id, viewer = await console.incident(), await console.browser("viewer")
    await viewer.fire("on_load", incident=incident_id)
    assert "RemediationDecision" not in await viewer.fire("on_tick", None, incident=incident_id)
    async with transaction(console.pool) as connection:
        await incidents.add_event(connection, incident_id, "k", AT, "note", "the pager rang", node="SlackAlert")
    seen = await viewer.fire("on_tick", None, incident=incident_id)
    assert "the pager rang" in seen
    assert PLAN.revision not in seen  # the options are as they were


async def test_a_responder_decides_exactly_what_was_confirmed_and_once(console: Console) -> None:
    incident_id = await console.incident()
    first, second = await console.browser("responder"), await console.browser("responder")
    for browser in (first, second):
        choices = await browser.fire("on_load", incident=incident_id)
        assert '"1"]' in choices
        assert '"2"]' not in choices  # high risk takes admin
        review = await browser.fire("on_execute", "1", [], "go", None, incident=incident_id)
        assert "4 -&gt; 8 tasks" in review
        assert PLAN.revision in review
    assert "is stored" in await first.fire("on_confirm", None, incident=incident_id)
    assert "Already decided: kim the responder chose 1" in await second.fire("on_confirm", None, incident=incident_id)
    async with console.pool.connection() as connection:
        (decision,) = await incidents.decisions(connection, incident_id)
    assert (decision["choice"], decision["note"], decision["by"]) == ("1", "go", "kim the responder")


async def test_what_is_analysed_from_a_korean_page_is_written_in_korean(console: Console) -> None:
    incident_id, responder = await console.incident(), await console.browser("responder")
    await responder.fire("on_load", incident=incident_id, lang="ko")
    review = await responder.fire("on_execute", "re_analyze", [], "the pool", None, incident=incident_id, lang="ko")
    assert "본문 언어: 한국어" in review
    assert "결정이 저장되었습니다" in await responder.fire("on_confirm", None, incident=incident_id, lang="ko")
    await responder.fire("on_load", lang="ko")
    await responder.fire("on_start", "payment-service", "2024-12-20 09:15:00", "", lang="ko")
    async with console.pool.connection() as connection:
        (decision,) = await incidents.decisions(connection, incident_id)
        row = await incidents.get(connection, incident_id)
        newest = (await incidents.page(connection, incidents.Filter(source="rest"), 1))[0]
    assert (decision["hint"], decision["language"]) == ("the pool", "ko")
    assert row is not None
    assert (row["language"], newest["language"]) == ("ko", "ko")


async def test_a_viewer_cannot_decide_or_start(console: Console) -> None:
    incident_id, viewer = await console.incident(), await console.browser("viewer")
    seen = await viewer.fire("on_load", incident=incident_id)
    assert "deciding takes responder" in seen
    assert '"1"]' not in seen
    await viewer.fire("on_execute", None, [], "", None, incident=incident_id)
    await viewer.fire("on_confirm", None, incident=incident_id)
    async with console.pool.connection() as connection:
        assert await incidents.decisions(connection, incident_id) == []


async def test_a_changed_plan_is_not_confirmed(console: Console) -> None:
    incident_id, responder = await console.incident(), await console.browser("responder")
    await responder.fire("on_load", incident=incident_id)
    async with transaction(console.pool) as connection:
        await incidents.set_status(connection, incident_id, "awaiting_decision", round_=1, plan_revision="another")
    seen = await responder.fire("on_execute", "1", [], "", None, incident=incident_id)
    assert "The plan has changed" in seen


async def test_the_alerts_of_an_incident_are_told_by_cycle(console: Console) -> None:
    incident_id, viewer = await console.incident(), await console.browser("viewer")
    told = [
        (alert_of("one", title="first <b>"), "", None),
        (alert_of("two", title="second"), "calls payment-service", 0.75),
        (alert_of("two", title="second recovered", transition="resolved", minutes=4), "same alert cycle", None),
        (alert_of("two", title="second late", minutes=2), "an older transition of the same alert cycle", None),
        (alert_of("one", title="a reminder", transition="renotify", minutes=9), "same alert cycle", None),
    ]
    rows = [alerts.AlertRow(uuid4(), None, incident_id, *one) for one in told]
    async with transaction(console.pool) as connection:
        for row in rows:  # each received after the one before
            await alerts.insert_alerts(connection, [row])
        found = await incidents.alert_cycles(connection, incident_id)
        assert await incidents.count_alerts(connection, [incident_id, "inc_other"]) == {incident_id: 2}
        assert [r["title"] for r in await incidents.alert_cycles(connection, incident_id, 1)] == ["first <b>"]
    assert [(r["title"], r["merge_reason"], r["score"], r["recovered"], r["since"], r["total"]) for r in found] == [
        ("first <b>", "", None, False, AT, 2),
        ("second", "calls payment-service", 0.75, True, AT + timedelta(minutes=4), 2),
    ]
    assert "2 alerts" in await viewer.fire("on_load")
    seen = await viewer.fire("on_load", incident=incident_id)
    assert "Alerts (2)" in seen
    assert "first &lt;b&gt;" in seen
    assert "calls payment-service (score 0.75)" in seen
    async with transaction(console.pool) as connection:
        cycle = Cycle(
            key="one",
            fingerprint="one",
            rule="",
            service="checkout",
            environment="",
            resources=frozenset(),
            title="first",
            state="resolved",
            changed_at=AT + timedelta(minutes=11),
            incident_id=incident_id,
        )
        await alerts.save_cycles(connection, [cycle])
    assert "2024-12-20 09:26:00" in await viewer.fire("on_tick", None, incident=incident_id)


async def test_a_responder_begins_an_investigation_that_waits(console: Console) -> None:
    incident_id = await console.waiting("silenced <until> noon")
    viewer, responder = await console.browser("viewer"), await console.browser("responder")
    shown = await viewer.fire("on_load", incident=incident_id)
    assert "has not begun.\\nsilenced &lt;until&gt; noon" in shown
    assert "begin an investigation takes" in await viewer.fire("on_begin", incident=incident_id)
    await responder.fire("on_load", incident=incident_id)
    assert "error" not in (await responder.fire("on_begin", incident=incident_id)).lower()
    async with console.pool.connection() as connection:
        row = await incidents.get(connection, incident_id)
    assert row
    assert row["admitted_at"]
    assert "has not begun" not in await responder.fire("on_load", incident=incident_id)
    assert "does not wait" in await responder.fire("on_begin", incident=incident_id)


async def test_starting_an_analysis(console: Console) -> None:
    responder = await console.browser("responder")
    assert "payment-service" in await responder.fire("on_load")
    assert "Choose a service" in await responder.fire("on_start", None, "2024-12-20 09:15:00", "")
    assert "is not one" in await responder.fire("on_start", "payment-service", "yesterday", "")
    assert "in the future" in await responder.fire("on_start", "payment-service", "2999-01-01", "")
    started = await responder.fire("on_start", "payment-service", "2024-12-20 09:15:00", "slow <checkout>")
    async with console.pool.connection() as connection:
        (row,) = await incidents.page(connection, incidents.Filter(), 10)
    assert row["id"] in started
    assert (row["occurred_at"], row["title"], row["opened_by"]) == (AT, "slow <checkout>", "kim the responder")
    assert "slow &lt;checkout&gt;" in await responder.fire("on_load")


async def test_the_page_lives_on_while_the_database_is_away(console: Console) -> None:
    incident_id = await console.incident()
    viewer, stranger = await console.browser("viewer"), await console.browser(None)
    await viewer.fire("on_load", incident=incident_id)
    console.accept_connections(accept=False)
    try:
        assert "database does not answer" in await viewer.fire("on_tick", None, incident=incident_id)
        page = await stranger.client.get("/ui/", headers={"accept": "text/html"})
        assert page.status_code == 401
        stranger.client.cookies.set(SESSION_COOKIE, "ap_0123_guess")
        assert (await stranger.client.get("/ui/", headers={"accept": "text/html"})).status_code == 503
    finally:
        console.accept_connections(accept=True)
    for _ in range(10):  # each tick waits up to the pool's timeout for a connection
        seen = await viewer.fire("on_tick", None, incident=incident_id)
        if "does not answer" not in seen:
            break
    assert "does not answer" not in seen
    assert '"active": true' in seen


async def test_pictures_are_served_to_those_signed_in_and_are_inert(console: Console) -> None:
    incident_id = await console.incident()
    browser = await console.browser("viewer")
    pictures = f"/incidents/{incident_id}/pictures"
    missing = await browser.client.get(f"{pictures}/topology.svg")
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
    assert "Nothing is known yet" in missing.json()["detail"]
    drawn = Finding(id="E1", kind="metric", component="db", signal="cpu", at=AT, summary="s", points=((0.0, 1.0),))
    bare = drawn.model_copy(update={"id": "E2", "points": ()})
    suspect = Suspect(component="db", score=0.9, findings=("E1",))
    evidence = Evidence(digest="d", findings=(drawn, bare), suspects=(suspect,))
    async with transaction(console.pool) as connection:
        await incidents.save_analysis(connection, incident_id, 1, evidence=evidence.model_dump(mode="json"))
    for name, word in (("topology", "suspect 1"), ("E1", "onset")):
        answer = await browser.client.get(f"{pictures}/{name}.svg")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "image/svg+xml"
        assert answer.headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"].startswith("private")
        assert word in answer.text
    korean = await browser.client.get(f"{pictures}/topology.svg", params={"lang": "ko"})
    assert "후보 1" in korean.text
    for eid, said in (("E2", "no values over time"), ("E9", "no evidence 'E9'")):
        answer = await browser.client.get(f"{pictures}/{eid}.svg")
        assert (answer.status_code, said in answer.json()["detail"]) == (404, True)
    stranger = await console.browser(None)
    assert (await stranger.client.get(f"{pictures}/E1.svg")).status_code == 401
    links = await browser.client.get(f"/incidents/{incident_id}/report?format=markdown&pictures=links")
    assert f"/incidents/{incident_id}/pictures/E1.svg?lang=en)" in links.text
