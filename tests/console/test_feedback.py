"""Feedback on the page, over real HTTP: it is stored, shown with what counts, and inert."""

from app.db import transaction
from app.store import incidents
from graph.state import RootCause
from tests.console.browsing import PLAN, Browser, Console
from tests.console.test_deciding import rows

CAUSE = RootCause(component="payment-db", category="slow_dependency", title="t", mechanism="m", confidence="high")


async def analysed(console: Console) -> str:
    incident = await console.incident()
    async with transaction(console.pool) as connection:
        await incidents.save_analysis(connection, incident, 1, root_cause=CAUSE.model_dump(mode="json", by_alias=True))
    return incident


async def give(browser: Browser, incident: str, *said: str | None) -> str:
    return await browser.fire("on_give", *said, incident=incident)


async def test_a_report_and_an_option_are_judged_and_what_counts_is_shown(console: Console) -> None:
    incident = await analysed(console)
    kim, ann = await console.browser("responder"), await console.browser("admin", "ann")
    seen = await kim.fire("on_load", incident=incident)
    assert "Nobody said yet" in seen
    assert '["The report", "report"]' in seen
    assert "2. Fail over" in seen
    assert '"payment-service"' in seen
    said = ("report", "wrong", "payment-service", "traffic_surge", "scale_ecs_service", "<b>by hand</b> @channel")
    answered = await give(kim, incident, *said)
    assert "it counts from now on" in answered
    assert "&lt;b&gt;by hand&lt;/b&gt;" in answered
    assert "payment-service, traffic surge" in answered
    await ann.fire("on_load", incident=incident)
    await give(ann, incident, "report", "right", None, None, "", "")
    outvoted = await give(kim, incident, "report", "partly", None, None, "", "")
    assert "ann the admin" in outvoted
    assert "<del>partly right</del>" in outvoted
    assert "it counts" in await give(kim, incident, "option 2", "wrong", None, None, "", "")
    stored = await rows(console, "select about, option, plan_revision, verdict, by, via from feedback order by at, by")
    assert {(s["about"], s["option"], s["plan_revision"], s["verdict"], s["by"]) for s in stored} == {
        ("report", 0, "", "right", "ann the admin"),
        ("report", 0, "", "partly", "kim the responder"),
        ("option", 2, PLAN.revision, "wrong", "kim the responder"),
    }
    assert {s["via"] for s in stored} == {"console"}
    assert "<b>right</b>" in await kim.fire("on_load", incident=incident)


async def test_what_cannot_be_stored_is_said_and_viewers_only_look(console: Console) -> None:
    incident = await analysed(console)
    kim, viewer = await console.browser("responder"), await console.browser("viewer")
    for browser in (kim, viewer):
        await browser.fire("on_load", incident=incident)
    assert "Choose what you judge" in await give(kim, incident, "report", None, None, None, "", "")
    assert "There is no operation" in await give(kim, incident, "report", "wrong", None, None, "do_magic", "")
    assert "takes responder" in await give(viewer, incident, "report", "right", None, None, "", "")
    assert await rows(console, "select 1 from feedback") == []


async def test_it_speaks_korean(console: Console) -> None:
    incident, kim = await analysed(console), await console.browser("responder")
    assert "피드백" in await kim.fire("on_load", incident=incident, lang="ko")
    assert "지금부터 반영됩니다" in await kim.fire(
        "on_give", "report", "right", None, None, "", "", incident=incident, lang="ko"
    )
