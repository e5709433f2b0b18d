"""What Jira is told: valid by the vendor's schema, bounded, inert, in two languages."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.notifiers import _adf as adf
from app.notifiers import _adf_report as ticket
from app.notifiers.base import Event
from app.simulator.jira_adf import why
from graph.state import Language
from tests.app.notifiers.stories import MANUAL, PAGE, decided, event, report, status

JIRAS_LIMIT = 32_767
WORDS = (
    "<b>[x](http://evil) {color:red} @channel :smile: [~accountid:1] h1. ||a|| https://evil.example\n{code}\x00\x1b[31m"
    "\u202egnp \ufdd0 '\"}]"
)
KINDS = (
    "decision",
    "approval",
    "withdrawal",
    "step_finished",
    "recovered",
    "reopened",
    "escalation",
    "expired",
    "note",
)
EVENTS = [
    *(event(kind, WORDS, {"operation": WORDS, "status": "failed"}) for kind in KINDS),
    *(status(name) for name in ("awaiting_decision", "resolved", "closed", "needs_attention")),
    MANUAL,
]
bounded = settings(
    deadline=None, derandomize=True, database=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every node and mark of a document."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            yield from nodes(inner)


def texts(document: Any) -> str:
    return "\n".join(n["text"] for n in nodes(document) if n.get("type") == "text")


def described(language: Language = "en", words: str = "The pool is exhausted", findings: int = 3) -> tuple[Any, bool]:
    return ticket.description(
        report(language, words, findings), url=PAGE, why=words, pictures=["topology.png"], rest="report.md"
    )


def test_the_schema_can_refuse() -> None:
    wrong: Any = {"version": 1, "type": "doc", "content": [{"type": "paragraph", "content": [{"type": "text"}]}]}
    assert why(wrong)
    assert why(adf.document([adf.paragraph(adf.text("x", "strong", "code"))]))
    assert not why(adf.document([adf.paragraph(adf.text("x", "strong"))]))


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_whole_report_is_valid_and_there(language: Language) -> None:
    document, whole = described(language)
    assert why(document) == []
    assert whole
    told = texts(document)
    for part in ("payment-db", "scale_out", "payments", "inc_1", "100 of 100", "FATAL: The pool is exhausted"):
        assert part in told or part == "payments"
    kinds = {n.get("type") for n in nodes(document)}
    assert {"heading", "table", "bulletList", "orderedList", "codeBlock", "link"} <= kinds
    links = [n["attrs"]["href"] for n in nodes(document) if n.get("type") == "link"]
    assert PAGE in links
    assert "https://app.datadoghq.eu/metric/explorer?x=1" in links


def test_nothing_is_told_twice() -> None:
    """A claim comes with its evidence, and a gap with its mend: neither also stands elsewhere."""
    about = report()
    assert about.root_cause is not None
    cause = about.root_cause.model_copy(
        update={
            "mechanism": "It began at 09:15. The pool is exhausted [E1, E2]. Requests wait.",
            "unknowns": ("traces are kept for an hour", "who holds them"),
        }
    )
    gap = about.gaps[0].model_copy(update={"detail": "traces are kept for an hour", "mend": "keep them longer"})
    told = about.model_copy(update={"root_cause": cause, "gaps": (gap,), "history": ()})
    said = texts(ticket.description(told, url=PAGE, why="w", pictures=[], rest="r")[0])
    assert "It began at 09:15. Requests wait." in said
    assert said.count("traces are kept for an hour") == 1
    assert "keep them longer" in said
    assert "who holds them" in said


def test_korean_is_korean() -> None:
    told = texts(described("ko", "풀이 고갈됨")[0])
    for word in (
        "근본 원인",
        "증거",
        "조치 방안",
        "장애 inc_1",
        "이 내용을 받는 이유: 풀이 고갈됨",
        "첨부: topology.png.",
    ):
        assert word in told
    assert not re.search("Root cause|Evidence|Remed|Attached", told)


@pytest.mark.parametrize("language", ["en", "ko"])
def test_what_does_not_fit_is_said_to_be_in_the_file(language: Language) -> None:
    document, whole = described(language, "가나다라 " * 400, findings=60)
    assert not whole
    assert why(document) == []
    assert 20_000 < len(json.dumps(document, ensure_ascii=False)) < JIRAS_LIMIT
    assert "report.md" in texts(document)
    again, whole = ticket.came_again(report(language, "x " * 900, 60), url=PAGE, why="w", rest="report.md")
    assert not whole
    assert why(again) == []
    assert adf.size(again) < JIRAS_LIMIT


def test_what_is_left_out_is_at_the_end() -> None:
    document, _ = described("en", "word " * 900, findings=60)
    headings = [n["content"][0]["text"] for n in document["content"] if n["type"] == "heading"]
    assert headings[:3] == ["Root cause", "Impact", "Evidence"]
    assert "History" not in headings


def is_inert(document: Any) -> None:
    """Nothing but what we write has an effect."""
    for node in nodes(document):
        assert node.get("type") not in ("mention", "emoji", "inlineCard", "blockCard", "media", "extension")
        if node.get("type") == "link":
            assert node["attrs"]["href"].startswith(("https://", "http://"))
            assert "evil" not in node["attrs"]["href"]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ufdd0]", texts(document))


def test_foreign_text_is_text() -> None:
    document, _ = described("en", WORDS)
    is_inert(document)
    assert why(document) == []
    assert "@channel" in texts(document)  # as it stood there: it means nothing here


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("told", EVENTS, ids=lambda e: f"{e.kind}-{e.data.get('status', '')}")
def test_every_comment_is_valid_and_inert(told: Event, language: Language) -> None:
    document: Any = ticket.comment(report(language, WORDS), told, url=PAGE, moved=ticket.moved(report(language), WORDS))
    assert why(document) == []
    is_inert(document)
    assert "2024-12-20 09:15:00 UTC" in texts(document)


def test_comments_say_what_came_of_it() -> None:
    told = report()
    resolved = texts(ticket.comment(told, status("resolved"), url=PAGE, moved=ticket.moved(told, "Done")))
    assert "payment-service latency_p95" in resolved
    assert "900\n120\n<= 300\nmet" in resolved
    assert "The ticket was moved to «Done»." in resolved
    finished = event("step_finished", "scale_out: unknown - no answer", {"operation": "scale_out", "status": "unknown"})
    done = texts(ticket.comment(told, finished, url=PAGE, moved=""))
    assert "scale_out\n \nunknown\n \nno answer" in done
    assert "Look at the target yourself" in done
    waits = texts(ticket.comment(told, status("awaiting_decision"), url=PAGE, moved=""))
    assert "awaiting decision" in waits
    assert "confidence: high" in waits
    chosen = texts(ticket.comment(told, event("decision", "kim chose 1", {"choice": "1"}), url=PAGE, moved=""))
    assert "kim chose" in chosen


def test_a_verdict_of_an_older_decision_is_not_told_again() -> None:
    later = decided("re_analyze").model_copy(update={"plan_revision": "p2"})
    told = report().model_copy(update={"decisions": (decided("1"), later)})
    assert "latency_p95" not in texts(ticket.comment(told, status("awaiting_decision"), url=PAGE, moved=""))


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "https://user:pw@host/",
        "https://",
        "https://[::1",
        "ftp://host/x",
        "https://ho st/",
        'https://host/"><b>',
        "https://host/\u202e",
        f"https://host/{'x' * 3000}",
    ],
)
def test_only_pages_are_linked(url: str) -> None:
    assert adf.link("words", url) == adf.text("words")


def test_a_headline_is_one_short_line() -> None:
    assert ticket.headline(report("en", "a\nb\x00 " + "x" * 4000)).startswith("payment-service: a b x")
    assert len(ticket.headline(report("en", "a\nb " + "x" * 4000))) == 255
    unknown = report().model_copy(update={"root_cause": None, "title": "p95 high"})
    assert ticket.headline(unknown) == "payment-service: p95 high"


@given(st.text(max_size=2000))
@bounded
def test_any_text_gives_a_valid_inert_bounded_document(words: str) -> None:
    for document, _ in (described("en", words), ticket.came_again(report("ko", words), url=words, why=words, rest="r")):
        assert why(document) == []
        assert adf.size(document) < JIRAS_LIMIT
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", texts(document))
    summary = ticket.headline(report("en", words))
    assert 0 < len(summary) <= 255
    assert summary.isprintable() or not summary.isascii()


@given(st.lists(st.text(max_size=300), max_size=40), st.integers(0, 4000))
@bounded
def test_what_is_fitted_fits(items: list[str], room: int) -> None:
    rows = adf.table(["a", "b"], [[adf.text(i), adf.text("b")] for i in items])
    blocks = [adf.heading(2, "h"), *adf.bullets(map(adf.text, items)), *rows]
    kept, whole = adf.fitted(blocks, room)
    assert adf.size(adf.document(kept)) <= room + 60
    assert why(adf.document(kept)) == []
    assert whole == (kept == blocks)


def test_both_languages_have_every_label_and_the_same_blanks() -> None:
    assert ticket.ENGLISH.keys() == ticket.KOREAN.keys()
    for name, label in ticket.ENGLISH.items():
        assert label.count("{}") == ticket.KOREAN[name].count("{}"), name
