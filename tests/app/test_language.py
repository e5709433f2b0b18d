"""The language of a report: by setting, by incident, by decision, by what a client would rather read."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from app.api.examples import REPORT
from app.api.language import preferred
from app.report import Report
from app.settings import Settings
from graph.state import Language
from tests.app.served import Served, serving
from tests.processes import wait_until


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("ko-KR,ko;q=0.9,en-US;q=0.8,en;q=0.7", "ko"),
        ("en-US,en;q=0.5", "en"),
        ("ko, en", "ko"),
        ("en, ko", "en"),
        ("fr-FR, ko;q=0.2", "ko"),
        ("en;q=0, ko;q=0.001", "ko"),
        ("EN-us;Q=0.3 , KO ; q=0.4", "ko"),
        ("en;q=0.1, en-GB;q=0.9, ko;q=0.5", "en"),
        ("ko;q=high, en;q=0.1", "en"),
        ("*", None),
        ("", None),
        ("fr, de;q=0.5", None),
        ("ko" * 300, None),
    ],
)
def test_what_a_client_would_rather_read(header: str, expected: Language | None) -> None:
    assert preferred(header) == expected


def test_the_setting_knows_two_languages() -> None:
    assert Settings(language="ko").language == "ko"
    with pytest.raises(ValidationError, match="'en' or 'ko'"):
        Settings.model_validate({"language": "fr"})


def test_the_example_of_the_documentation_is_a_report() -> None:
    assert Report.model_validate(REPORT).root_cause


@pytest.fixture
def served(database_url: str, tmp_path: Path) -> Iterator[Served]:
    """With a worker, and no source to read."""
    with serving(database_url, tmp_path, turned_on=False, worker=True) as started:
        yield started


def opened(client: httpx.Client, **more: str) -> str:
    """An incident, analysed."""
    body = {"service": "reporting", "occurred_at": datetime.now(UTC).isoformat(), **more}
    answer = client.post("/incidents", json=body)
    assert answer.status_code == 202, answer.text
    incident: str = answer.json()["incident_id"]
    decidable(client, incident, 1)
    return incident


def decidable(client: httpx.Client, incident: str, round_: int) -> dict[str, Any]:
    """The incident, once that round waits for a decision."""
    seen: dict[str, Any] = {}

    def there() -> bool:
        seen.update(client.get(f"/incidents/{incident}").json())
        return (seen["status"], seen["round"]) == ("awaiting_decision", round_)

    wait_until(there, f"round {round_}", 30)
    return seen


def test_an_incident_speaks_its_own_language_until_a_decision_asks_for_another(served: Served) -> None:
    kim = served.client("responder")
    incident = opened(kim, language="ko")
    report = kim.get(f"/incidents/{incident}/report")
    assert (report.json()["language"], report.json()["root_cause"]["language"]) == ("ko", "ko")
    assert report.headers["content-language"] == "ko"
    assert report.headers["vary"] == "Accept, Accept-Language"

    revision = kim.get(f"/incidents/{incident}/actions").json()["plan_revision"]
    decision = {"plan_revision": revision, "choice": "re_analyze", "language": "en"}
    assert kim.post(f"/incidents/{incident}/decision", json=decision).status_code == 202
    assert decidable(kim, incident, 2)["language"] == "en"
    after = kim.get(f"/incidents/{incident}/report").json()
    assert (after["language"], after["root_cause"]["language"]) == ("en", "en")
    assert after["decisions"][0]["language"] == "en"
    written = "select root_cause->>'language' as language from analysis where incident_id = %s order by round"
    assert [row["language"] for row in served.rows(written, incident)] == ["ko", "en"]


def test_a_client_gets_the_report_in_the_language_it_asks_for(served: Served) -> None:
    kim = served.client("responder")
    incident = opened(kim)
    assert kim.get(f"/incidents/{incident}").json()["language"] == "en"
    path = f"/incidents/{incident}/report"

    def told(language: str = "", header: str = "", **more: str) -> httpx.Response:
        query = {"language": language} if language else {}
        return kim.get(path, params=query | more, headers={"Accept-Language": header} if header else {})

    assert told().json()["language"] == "en"
    asked = told("ko").json()
    assert (asked["language"], asked["root_cause"]["language"]) == ("ko", "ko")
    assert asked["root_cause"]["category"] == told().json()["root_cause"]["category"]
    assert told(header="ko-KR,en;q=0.4").json()["language"] == "ko"
    assert told("en", "ko").json()["language"] == "en"
    assert told(header="fr").json()["language"] == "en"
    text = told("ko", format="markdown")
    assert "## 근본 원인" in text.text
    assert text.headers["content-language"] == "ko"


def test_other_languages_are_refused_with_a_sentence(served: Served) -> None:
    kim = served.client("responder")
    incident = opened(kim)
    revision = kim.get(f"/incidents/{incident}/actions").json()["plan_revision"]
    now = datetime.now(UTC).isoformat()
    decision = {"plan_revision": revision, "choice": "re_analyze", "language": "xx"}
    for refused in (
        kim.post("/incidents", json={"service": "reporting", "occurred_at": now, "language": "fr"}),
        kim.post(f"/incidents/{incident}/decision", json=decision),
        kim.get(f"/incidents/{incident}/report", params={"language": "de"}),
    ):
        assert refused.status_code == 422
        assert "language: Input should be 'en' or 'ko'" in refused.json()["errors"][0]
    by_hand = {"plan_revision": revision, "choice": "manual", "language": "ko"}
    refused = kim.post(f"/incidents/{incident}/decision", json=by_hand)
    assert refused.status_code == 422
    assert "with re_analyze only" in refused.json()["detail"]
    assert kim.get(f"/incidents/{incident}").json()["status"] == "awaiting_decision"
