"""Files of past incidents as people have them: what is taken, what is refused, and with which words."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.knowledge.cases import Case, Query
from app.knowledge.fields import Complaint, Reading, zone_called
from app.knowledge.files import Format, UnreadableFile, parts_of, read, uploaded
from app.knowledge.jira import document_text
from collectors.base import AwsResources, EcsService
from graph.catalogue import Catalogue, Service

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CATALOGUE = Catalogue(
    services={
        "payment-service": Service(ecs=EcsService(cluster="shop", service="pay"), datadog_tags=("service:payments",)),
        "orders-db": Service(aws=AwsResources(rds_instances=("orders-1",))),
        "checkout": Service(prometheus='job="shop-checkout"'),
    }
)


def reading(zone: str = "UTC") -> Reading:
    return Reading(CATALOGUE, NOW, ZoneInfo(zone))


def taken(name: str, content: str | bytes, format_: Format | None = None, zone: str = "UTC") -> list[Case]:
    return [one for one in found(name, content, format_, zone) if isinstance(one, Case)]


def said(name: str, content: str | bytes, format_: Format | None = None) -> list[str]:
    return [str(one) for one in found(name, content, format_) if isinstance(one, Complaint)]


def found(
    name: str, content: str | bytes, format_: Format | None = None, zone: str = "UTC"
) -> Sequence[Case | Complaint]:
    raw = content if isinstance(content, bytes) else content.encode()
    return list(read(uploaded(name, raw, format_), reading(zone)))


# --- CSV ---

TABLE = """\
Date,Title,Service,Component,Category,Root cause,Resolution,Outcome,Author,Ticket colour
2023-11-24T09:10:00Z,Checkout failed,Checkout,pay,Connection pool exhaustion,"Pool full,
all 20 taken",Doubled the tasks,resolved,kim,red
"""


def test_a_row_becomes_a_case_with_the_names_of_the_catalogue() -> None:
    [case] = taken("incidents.csv", TABLE)
    assert (case.kind, case.title, case.service, case.component) == (
        "imported",
        "Checkout failed",
        "checkout",
        "payment-service",
    )
    assert case.category == "connection_pool_exhaustion"
    assert (case.outcome, case.helped, case.author) == ("resolved", "Doubled the tasks", "kim")
    assert case.occurred_at == datetime(2023, 11, 24, 9, 10, tzinfo=UTC)
    assert case.report == "## Root cause\n\nPool full,\nall 20 taken\n\n## Resolution\n\nDoubled the tasks"
    assert [(r.fate, r.title) for r in case.remedies] == [("by_hand", "Doubled the tasks")]
    assert case.signature.terms() == (
        "component:payment-service",
        "service:checkout",
        "category:connection_pool_exhaustion",
    )


def test_columns_that_are_not_known_are_named() -> None:
    assert said("incidents.csv", TABLE) == [
        "incidents.csv:1: columns that are not known, and left out: 'Ticket colour'; known are: id, title, occurred_at,"
        " environment, service, component, category, summary, impact, cause, resolution, outcome, author, timeline,"
        " action_items, report"
    ]


def test_order_delimiter_case_and_language_of_columns_do_not_matter() -> None:
    korean = (
        "제목;발생일시;서비스;근본 원인;조치\n결제 장애;2023년 11월 24일 18:10;checkout;커넥션 풀 고갈;태스크 증설\n"
    )
    [case] = taken("incidents.csv", korean, zone="Asia/Seoul")
    assert (case.title, case.service, case.outcome) == ("결제 장애", "checkout", "by_hand")
    assert case.occurred_at == datetime(2023, 11, 24, 9, 10, tzinfo=UTC)
    assert "커넥션 풀 고갈" in case.report


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949", "utf-16"])
def test_encodings(encoding: str) -> None:
    [case] = taken("a.csv", "title,date\n결제 장애,2023-11-24T09:10:00Z\n".encode(encoding))
    assert case.title == "결제 장애"


def test_bytes_that_are_no_text_are_refused_with_the_mend() -> None:
    assert said("a.csv", b"title,date\n\xff\xfe\xff\xff,2023\n") == [
        "a.csv: it is text in neither UTF-8 nor CP949 (EUC-KR); save it as UTF-8"
    ]


BAD = """\
title,date,outcome
,2023-11-24T09:10:00Z,
No time,,
Ambiguous,04/05/2024,
Tomorrow,2099-01-01T00:00:00Z,
Good,2023-11-24 18:10 +09:00,magic
Too,many,fields,here
Good,2023-11-24T09:10:00Z,resolved
"""


def test_every_bad_row_is_named_with_line_and_mend_and_good_ones_are_taken() -> None:
    told = said("a.csv", BAD)
    assert [case.title for case in taken("a.csv", BAD)] == ["Good"]
    assert told[0] == "a.csv:2: it has no title; write one"
    assert told[1].startswith("a.csv:3: it has no time; write when it happened, as 2024-12-20T09:15:00Z")
    assert told[2].startswith("a.csv:4: '04/05/2024' is no time that can be told for sure")
    assert told[3] == "a.csv:5: '2099-01-01T00:00:00Z' is before 1990 or in the future; correct the time"
    assert told[4].startswith(
        "a.csv:6: the outcome 'magic' is not known; it was taken as unresolved. Write one of: reso"
    )
    assert told[5].startswith("a.csv:7: it has more fields than the header")
    assert told[6] == "a.csv:8: an earlier line has the same id, or time and title; mend one"
    assert len(told) == 7


def test_names_that_are_nobodys_are_kept_and_told_once() -> None:
    table = "title,date,service\na,2023-01-01T00:00:00Z,Mainframe\nb,2023-01-02T00:00:00Z,mainframe\nc,2023-01-03,x\n"
    assert [case.service for case in taken("a.csv", table)] == ["Mainframe", "mainframe", "x"]
    assert said("a.csv", table)[0] == (
        "a.csv:2: the service 'Mainframe' is not in the catalogue; it is kept as text. Add it, or correct its spelling"
    )
    assert said("a.csv", f"{table}d,2023-01-04,\n")[2:] == [
        "a.csv:4: times without a zone were taken as UTC, e.g. '2023-01-03'",
        "a.csv:4: the service 'x' is not in the catalogue; it is kept as text. Add it, or correct its spelling",
    ]


@pytest.mark.parametrize(
    ("name", "service"),
    [
        ("Payment Service", "payment-service"),
        ("payment_service", "payment-service"),
        ("payments", "payment-service"),
        ("pay", "payment-service"),
        ("orders-1", "orders-db"),
        ("shop-checkout", "checkout"),
        ("job", None),
    ],
)
def test_names_under_which_sources_know_a_service(name: str, service: str | None) -> None:
    assert reading().service_called(name) == service


def test_several_services_are_all_found_by_and_the_first_is_the_alerted_one() -> None:
    [case] = taken("a.csv", 'title,date,services\nx,2023-01-01T00:00:00Z,"Checkout, pay; web"\n')
    assert (case.service, case.signature.services) == ("checkout", ("checkout", "payment-service", "web"))


@pytest.mark.parametrize(
    ("written", "environment"),
    [
        *(("Production", "production"), ("PROD", "production"), ("운영", "production"), ("stg", "staging")),
        *(("eu_west", "eu-west"), ("k8s 1.27 on AWS", ""), ("", "")),
    ],
)
def test_an_environment_has_one_name_whoever_wrote_it(written: str, environment: str) -> None:
    [case] = taken("a.csv", f"title,date,env\nx,2023-01-01T00:00:00Z,{written}\n")
    assert case.environment == environment
    assert Query(environment=environment).environment == environment


def test_a_case_or_a_page_about_everything_is_found_by_so_many_names_only() -> None:
    names = ", ".join(f"s{n}" for n in range(40))
    [case] = taken("a.csv", f'title,date,services\nx,2023-01-01T00:00:00Z,"{names}"\n')
    [section] = taken("b.md", f"---\nservices: {names}\n---\n# B\nRead.\n", "runbook")
    assert len(case.signature.services) == len(section.signature.services) == 16


def test_a_closing_quote_that_is_missing_does_not_take_the_rest() -> None:
    rows = "".join(f"t{n},2023-01-01T00:00:0{n}Z,{'x' * 90_000}\n" for n in range(9))
    table = f'title,date,summary\nopen,2023-01-01,"{rows}'
    assert said("a.csv", table)[0] == "a.csv:2: a field is longer than 200,000 characters; is a closing quote missing?"
    assert len(taken("a.csv", table)) >= 4


@pytest.mark.parametrize("content", ["", "\n\n", "a,b\n1,2\n"])
def test_a_table_without_what_is_needed_says_which_columns_there_are(content: str) -> None:
    [complaint] = said("a.csv", content)
    assert "id, title, occurred_at" in complaint


def test_the_same_file_gives_the_same_cases_wherever_it_lies() -> None:
    first, again = taken("a.csv", TABLE), taken("a.csv", TABLE)
    assert [c.sha256 for c in first] == [c.sha256 for c in again]
    assert taken("b.csv", TABLE)[0].id != first[0].id
    assert taken("b.csv", TABLE)[0].folds_into == first[0].folds_into


@given(st.lists(st.lists(st.text(max_size=30), min_size=1, max_size=5), max_size=8))
def test_whatever_stands_in_a_table_is_taken_or_named(rows: list[list[str]]) -> None:
    buffer = io.StringIO()
    csv.writer(buffer).writerows([["title", "date", "service", "cause"], *rows])
    content = buffer.getvalue().encode("utf-8", "replace")
    one = list(read(uploaded("a.csv", content), reading()))
    filled = [row for row in rows if any(value.strip() for value in row)]
    lost = sum(isinstance(o, Complaint) and o.lost for o in one)
    assert sum(isinstance(o, Case) for o in one) + lost <= len(filled) + 1
    for case in (o for o in one if isinstance(o, Case)):
        assert "\x00" not in case.model_dump_json().replace("\\u0000", "\x00")


@given(st.binary(max_size=2_000), st.sampled_from(["csv", "jira", "markdown", "runbook", "jsonl"]))
def test_no_bytes_make_a_reader_fail(content: bytes, format_: Format) -> None:
    assert all(isinstance(one, Case | Complaint) for one in read(uploaded("x", content, format_), reading()))


DAYS = (datetime.fromisoformat("1991-01-01"), datetime.fromisoformat("2025-01-01"))
MOMENTS = st.datetimes(*DAYS).map(lambda at: at.replace(microsecond=0, second=0))
WRITTEN: Sequence[Callable[[datetime], str]] = (
    lambda at: f"{at:%Y-%m-%dT%H:%M:%S}+09:00",
    lambda at: f"{at:%Y-%m-%d %H:%M} +09:00",
    lambda at: f"{at:%Y-%m-%d %H:%M} +0900",
    lambda at: f"{at:%Y/%m/%d %H:%M} KST",
    lambda at: f"{at:%Y.%m.%d %H:%M} Asia/Seoul",
    lambda at: f"{at:%d/%b/%Y %I:%M %p} UTC+9",
)


@given(MOMENTS, st.sampled_from(WRITTEN))
def test_times_are_read_as_they_were_written(at: datetime, write: Callable[[datetime], str]) -> None:
    [case] = taken("a.csv", f"title,date\nx,{write(at)}\n")
    assert case.occurred_at == at.replace(tzinfo=zone_called("Etc/GMT-9"))


# --- Jira ---

JIRA_CSV = """\
Summary,Issue key,Status,Resolution,Reporter,Created,Component/s,Component/s,Labels,Labels,Description,\
Custom field (Root Cause),Custom field (Remediation),Comment,Comment
Checkout down,OPS-12,Done,Fixed,kim,24/Nov/23 6:10 PM,pay,orders-1,incident,service:checkout,"h1. What
it was",Pool full,More tasks,24/Nov/23;kim;looking,25/Nov/23;lee;done
Broken clock,OPS-13,Open,,kim,someday,,,,,,,,,
"""


def test_a_csv_of_jira_with_its_repeated_columns() -> None:
    [case] = taken("jira.csv", JIRA_CSV, zone="Asia/Seoul")
    assert (case.title, case.service, case.component, case.outcome) == (
        "Checkout down",
        "checkout",
        "payment-service",
        "resolved",
    )
    assert case.occurred_at == datetime(2023, 11, 24, 9, 10, tzinfo=UTC)
    assert (case.helped, case.author) == ("More tasks", "kim")
    assert "25/Nov/23;lee;done" in case.report
    assert said("jira.csv", JIRA_CSV)[-1].startswith("jira.csv:4: 'someday' is no time that can be told for sure")


def adf(*texts: str) -> dict[str, object]:
    content = [{"type": "paragraph", "content": [{"type": "text", "text": text}]} for text in texts]
    return {"type": "doc", "version": 1, "content": content}


def jira_json(**fields: object) -> str:
    known: dict[str, object] = {
        "summary": "Checkout down",
        "created": "2023-11-24T18:10:00.000+0900",
        "status": {"name": "Done"},
        "resolution": {"name": "Fixed"},
        "components": [{"name": "payments"}],
        "labels": ["service:checkout", "connection-pool-exhaustion"],
        "description": adf("It was", "the pool"),
        "reporter": {"displayName": "Kim"},
        "customfield_10050": adf("Pool full"),
        "comment": {"comments": [{"body": adf("looking"), "author": {"displayName": "Lee"}}]},
        **fields,
    }
    issues = [{"key": "OPS-12", "fields": known}, {"key": "OPS-13"}, {"key": "OPS-14", "fields": {"summary": "x"}}]
    return json.dumps({"issues": issues, "names": {"customfield_10050": "Root cause"}, "isLast": True})


def test_json_of_jiras_search_with_documents() -> None:
    [case] = taken("search.json", jira_json())
    assert (case.title, case.service, case.component, case.category) == (
        "Checkout down",
        "checkout",
        "payment-service",
        "connection_pool_exhaustion",
    )
    assert case.summary == "It was\nthe pool"
    assert "## Root cause\n\nPool full" in case.report
    assert "looking" in case.report
    assert said("search.json", jira_json()) == [
        "search.json: issue OPS-13: it has no key or no fields; ask the search for fields=*all",
        "search.json: issue OPS-14: it has no time; write when it happened, as 2024-12-20T09:15:00Z,"
        " or 2024-12-20 18:15 +09:00",
    ]


def test_an_issue_is_one_case_whichever_way_it_was_exported() -> None:
    assert taken("a.csv", JIRA_CSV)[0].id == taken("b.json", jira_json())[0].id


@pytest.mark.parametrize("content", ["{", "[1]", "{}", '{"issues": 3}', "[" * 100_000])
def test_other_json_is_refused_with_the_mend(content: str) -> None:
    assert said("a.json", content)[0].endswith("save an answer of /rest/api/3/search/jql as it is")


def test_a_document_that_is_nested_without_end_is_cut() -> None:
    deep: dict[str, object] = {"type": "text", "text": "deep"}
    for _ in range(200):
        deep = {"type": "blockquote", "content": [deep]}
    document = json.loads(json.dumps({"type": "doc", "content": [deep, adf("near")]}))
    assert document_text(document) == "near"


# --- markdown ---

POSTMORTEM = """\
---
title: Checkout failed during the sale
date: 2023-11-24T18:10:00+09:00
services: [checkout, web]
category: connection pool exhaustion
author: kim
---
# Post-incident review

## Summary
All connections were taken.

## Root Cause
The pool of pay.

### Why
A sale.

## Action items
- [ ] a larger pool
"""


def test_a_postmortem_with_front_matter() -> None:
    [case] = taken("reviews/sale.md", POSTMORTEM)
    assert (case.title, case.service, case.category) == (
        "Checkout failed during the sale",
        "checkout",
        "connection_pool_exhaustion",
    )
    assert case.occurred_at == datetime(2023, 11, 24, 9, 10, tzinfo=UTC)
    assert case.signature.services == ("checkout", "web")
    assert (case.summary, case.author, case.outcome) == ("All connections were taken.", "kim", "unresolved")
    assert case.report.startswith("# Post-incident review")


def test_a_file_is_one_case_of_its_day_unless_it_says_which() -> None:
    [first], [renamed] = taken("sale.md", POSTMORTEM), taken("sale.md", POSTMORTEM.replace("Checkout failed", "Sale"))
    assert renamed.id == first.id
    [later] = taken("sale.md", POSTMORTEM.replace("2023-11-24T18", "2024-11-29T18"))
    assert later.id != first.id
    named = POSTMORTEM.replace("title:", "id: 7\ntitle:")
    assert taken("sale.md", named)[0].id == taken("sale.md", named.replace("2023-", "2024-"))[0].id


KOREAN = """\
# 결제 장애 보고서

| 항목 | 내용 |
|---|---|
| 발생일시 | 2023-11-24 18:10 KST |
| **서비스** | payments |

## 1. 요약
결제가 실패했습니다.

## 2. 원인
커넥션 풀 고갈

## 3. 조치 내용
태스크 증설
"""


def test_a_korean_report_without_front_matter() -> None:
    [case] = taken("보고서.md", KOREAN)
    assert (case.title, case.service, case.summary) == ("결제 장애 보고서", "payment-service", "결제가 실패했습니다.")
    assert (case.helped, case.outcome) == ("태스크 증설", "by_hand")
    assert case.occurred_at == datetime(2023, 11, 24, 9, 10, tzinfo=UTC)


def test_the_head_of_a_timeline_is_no_date() -> None:
    body = "# Outage\n\n## Summary\nx\n\n## Timeline\n| Time | What |\n|---|---|\n| 09:15 | down |\n"
    assert taken("2023-11-24-outage.md", body)[0].occurred_at == datetime(2023, 11, 24, tzinfo=UTC)


def test_a_day_in_the_files_name_will_do_and_without_any_it_is_refused() -> None:
    body = "# Outage\n\n## Summary\nx\n\n## Impact\ny\n"
    assert taken("2023-11-24-outage.md", body)[0].occurred_at == datetime(2023, 11, 24, tzinfo=UTC)
    assert said("outage.md", body) == [
        "outage.md: nobody says when it happened; put `date: 2024-12-20T09:15:00Z` between two lines of --- on top"
    ]


def test_front_matter_that_is_broken_is_refused_with_the_mend() -> None:
    [complaint] = said("a.md", "---\ntitle: [\n---\n# x\n")
    assert complaint.startswith("a.md: its front matter cannot be read: ")
    assert complaint.endswith("; mend what stands between the lines of ---")


RUNBOOK = """\
---
services: [payments, nobody]
---
# Payment runbook
Read this first.

## Pool full
Double the tasks.

## Empty

## Pool full
Or restart.
"""


def test_a_runbook_is_split_into_its_sections() -> None:
    cases = taken("runbooks/payment.md", RUNBOOK)
    assert [(c.kind, c.summary, c.report) for c in cases] == [
        ("runbook", "Payment runbook", "Read this first."),
        ("runbook", "Payment runbook > Pool full", "Double the tasks."),
        ("runbook", "Payment runbook > Pool full", "Or restart."),
    ]
    assert len({c.id for c in cases}) == 3
    assert {c.title for c in cases} == {"Payment runbook"}
    assert cases[0].signature.services == ("payment-service", "nobody")
    assert [c.sha256 for c in cases] == [c.sha256 for c in taken("runbooks/payment.md", RUNBOOK)]


def test_a_page_is_told_by_what_is_in_it_unless_somebody_says() -> None:
    assert taken("a.md", RUNBOOK)[0].kind == "runbook"
    assert taken("a.md", POSTMORTEM)[0].kind == "imported"
    assert taken("a.md", POSTMORTEM, "runbook")[0].kind == "runbook"
    assert said("a.md", RUNBOOK, "markdown")[0].startswith("a.md: nobody says when it happened")


@given(st.text(max_size=400))
def test_any_markdown_is_taken_or_named(content: str) -> None:
    raw = content.encode("utf-8", "replace")
    for format_ in ("markdown", "runbook"):
        one = list(read(uploaded("2023-01-01.md", raw, format_), reading()))
        assert one


def test_a_page_that_is_too_large_is_refused() -> None:
    assert said("a.md", "x" * 500_001) == ["a.md: it is larger than 500,000 bytes; split it"]


# --- files and folders ---


def test_a_folder_is_read_file_by_file_and_links_out_of_it_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "reviews"
    (folder / "old").mkdir(parents=True)
    (folder / "old" / "sale.md").write_text(POSTMORTEM)
    (folder / "a.csv").write_text(TABLE)
    (folder / "notes.txt").write_text("nothing")
    (tmp_path / "secret.md").write_text(POSTMORTEM)
    (folder / "link.md").symlink_to(tmp_path / "secret.md")
    parts = parts_of(folder)
    assert [(part.name, part.format) for part in parts] == [
        ("reviews/a.csv", "csv"),
        ("reviews/old/sale.md", "markdown"),
    ]
    assert sum(isinstance(one, Case) for part in parts for one in read(part, reading())) == 2


def test_what_cannot_be_guessed_or_is_not_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UnreadableFile, match="say so with --format"):
        parts_of(tmp_path / "a.txt")
    with pytest.raises(UnreadableFile, match="there is no such file or folder"):
        parts_of(tmp_path / "b.csv")
    with pytest.raises(UnreadableFile, match="holds no file that ends in"):
        parts_of(tmp_path)
