"""The report for people: what comes from outside takes no effect in its markdown."""

from datetime import UTC, datetime

from app.report import AlertOf, Report, build, markdown
from collectors.base import Document
from graph.state import Execution, Finding, StepResult, Verification

AT = datetime(2024, 12, 20, 9, 15, tzinfo=UTC)


def report(link: str | None = None) -> Report:
    step = StepResult(ordinal=1, operation="restart", status="succeeded", request_ids=("a|b", "<b>"))
    return Report(
        incident_id="inc_1",
        title="t",
        service="shop",
        environment="prod](https://evil) <b>",
        severity="critical",
        status="resolved",
        occurred_at=AT,
        opened_at=AT,
        evidence=(Finding(id="E1", kind="metric", component="c", signal="s", at=AT, summary="up", link=link),),
        executions=(
            Execution(
                plan_revision="p",
                choice="1",
                title="x",
                results=(step,),
                verification=Verification(verdict="resolved"),
            ),
        ),
    )


def test_a_link_cannot_leave_its_brackets() -> None:
    text = markdown(report("https://a.example/x?q=(1) <b>\n\\`y`&r=%20#z"))
    assert "up [open](https://a.example/x?q=%281%29%20%3Cb%3E%0A%5C%60y%60&r=%20#z)\n" in text


def test_only_https_is_linked() -> None:
    assert "[open]" not in markdown(report("javascript:alert(1)"))


def test_runbooks_are_quoted_and_say_where_they_are_cut() -> None:
    section = Document(title="<b>", section="Pool > full", text="\n".join(f"{n}. | do" for n in range(1, 25)))
    text = markdown(report().model_copy(update={"documents": (section,), "plan_note": "[see](http://x)"}))
    assert "**\\<b\\>** Pool \\> full\n\n      1. | do\n" in text
    assert "      20. | do\n      …\n" in text
    assert "21. | do" not in text
    assert "\\[see\\](http://x)" in text


def test_environment_and_request_ids_are_escaped() -> None:
    text = markdown(report())
    assert r"prod\](https://evil) \<b\>" in text
    assert r"(a\|b, \<b\>)" in text


def test_the_alerts_say_why_they_are_here() -> None:
    row = {"title": "p95|", "service": "shop", "source": "datadog", "recovered": False, "since": AT, "total": 52}
    first = row | {"merge_reason": "", "score": None, "url": None}
    second = row | {"recovered": True, "merge_reason": "<b> calls it", "score": 0.75, "url": "https://a.example"}
    incident = report().model_dump() | {"id": "inc_1"}
    made = build(incident, [], [], [], [], [first, second])
    assert made.alerts[1] == AlertOf(
        title="p95|",
        service="shop",
        source="datadog",
        state="recovered",
        since=AT,
        merge_reason="<b> calls it",
        score=0.75,
        url="https://a.example",
    )
    text = markdown(made)
    assert "## Alerts (52)\n" in text
    assert "| p95\\| | shop | datadog | firing since 2024-12-20 09:15:00 UTC | opened the incident | - |\n" in text
    assert "recovered since 2024-12-20 09:15:00 UTC | \\<b\\> calls it | 0.75 |\n\nand 50 more\n" in text
    assert "## Alerts" not in markdown(report())
