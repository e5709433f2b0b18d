"""The report for people: what comes from outside takes no effect in its markdown."""

import re
from base64 import b64decode
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

from app.report import AlertOf, Report, build
from app.report_markdown import MAX_EMBEDDED, markdown
from collectors.base import Document, Edge
from graph.state import Assessment, Evidence, Execution, Finding, Hop, StepResult, Suspect, Verification

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


def test_each_note_on_the_plan_has_its_line() -> None:
    text = markdown(report().model_copy(update={"plan_note": "Dropped: «Drop it».\nLook by hand at: <b>"}))
    assert "\n- Dropped: «Drop it».\n- Look by hand at: \\<b\\>\n" in text + "\n"


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
    assert "| p95\\| | shop | datadog | firing since 2024-12-20 09:15:00 UTC | opened this incident | - |\n" in text
    assert "recovered since 2024-12-20 09:15:00 UTC | \\<b\\> calls it | 0.75 |\n\nand 50 more\n" in text
    assert "## Alerts" not in markdown(report())


def pictured(charts: int = 6, points: int = 60, edges: int = 2) -> Report:
    """With values over time and a topology."""
    course = tuple((AT.timestamp() + 60 * n, n * 1.5) for n in range(points))
    finding = Finding(id="E1", kind="metric", component="db", signal="cpu", at=AT, summary="up](x) <b>", points=course)
    hop = Hop(cause="db", effect="shop", structural=True, statistical=True, temporal=False)
    sure = Assessment(state="incident", trouble=0.99, certainty=0.4, abstains=True, why="two |rivals|")
    return report().model_copy(
        update={
            "evidence": tuple(finding.model_copy(update={"id": f"E{n}"}) for n in range(1, charts + 1)),
            "suspects": (Suspect(component="db", score=0.9, findings=("E1",), path=(hop,), affected=("shop",)),),
            "edges": tuple(Edge(caller=f"c{n}", callee="db", source="traces") for n in range(edges)),
            "assessment": sure,
            "unlisted": 3,
        }
    )


def embedded(text: str) -> list[str]:
    return [b64decode(code).decode() for code in re.findall(r"\(data:image/svg\+xml;base64,([^)]*)\)", text)]


def test_pictures_are_embedded_as_data_and_few() -> None:
    text = markdown(pictured())
    images = embedded(text)
    assert len(images) == 5
    assert [ET.fromstring(image).tag for image in images] == ["{http://www.w3.org/2000/svg}svg"] * 5
    assert "![Topology around shop: db -\\> shop](data:" in text
    assert "![E1: up\\](x) \\<b\\>](data:" in text
    assert "/pictures/" not in text


def test_embedded_pictures_are_bounded() -> None:
    large = embedded(markdown(pictured(charts=40, points=5000, edges=500)))
    assert large
    assert sum(map(len, large)) * 4 / 3 <= MAX_EMBEDDED


def test_pictures_can_be_links() -> None:
    text = markdown(pictured(), embed=False, address="https://pilot.example/")
    assert "data:image" not in text
    assert "- [Topology](https://pilot.example/incidents/inc_1/pictures/topology.svg?lang=en)" in text
    assert "- [E4](https://pilot.example/incidents/inc_1/pictures/E4.svg?lang=en): db cpu" in text
    assert "E5.svg" not in text


def test_nothing_to_draw_draws_nothing() -> None:
    assert "## Pictures" not in markdown(report())
    assert "## Pictures" not in markdown(report(), embed=False)


def test_the_assessment_says_when_it_is_not_sure() -> None:
    text = markdown(pictured())
    assert "Computed: **something is wrong** (99% sure). two \\|rivals\\|" in text
    assert "**Not sure of the cause. The suspects are leads, no more.**" in text
    assert "Affected components: shop." in text
    assert "and 3 more that say little" in text
    assert "## Assessment" not in markdown(report())


def test_evidence_of_an_older_version_still_makes_a_report() -> None:
    older = {"digest": "d", "findings": [], "suspects": [{"component": "db", "score": 0.9, "findings": []}]}
    made = build(report().model_dump() | {"id": "inc_1"}, [{"evidence": older}], [], [], [])
    assert (made.assessment, made.edges, made.causes, made.affected) == (None, (), (), ())
    assert len(embedded(markdown(made))) == 1


def test_the_report_has_what_the_ranking_found() -> None:
    drawn = pictured()
    evidence = Evidence(
        digest="d",
        findings=drawn.evidence,
        suspects=drawn.suspects,
        edges=drawn.edges,
        assessment=drawn.assessment,
        causes=("db",),
        unlisted=3,
    )
    analysis = {"evidence": evidence.model_dump(mode="json")}
    made = build(report().model_dump() | {"id": "inc_1"}, [analysis], [], [], [])
    assert (made.assessment, made.edges, made.causes, made.unlisted) == (drawn.assessment, drawn.edges, ("db",), 3)
    assert made.affected == ("shop",)
