"""Lines of JSON as `knowledge export` writes them, and as somebody else may: what of them is taken."""

import pytest

from app.knowledge.cases import Remedy
from graph.signature import Signature
from tests.app.test_knowledge_files import NOW, TABLE, said, taken

REMEDY = Remedy(fate="by_hand", at=NOW)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "a.jsonl:1: it is no JSON; was this written by `knowledge export`?"),
        ("{}", "a.jsonl:1: id: Field required; was this written by `knowledge export`?"),
        ("", None),
    ],
)
def test_lines_that_no_export_wrote_are_named(line: str, complaint: str | None) -> None:
    assert said("a.jsonl", f"{line}\n") == ([complaint] if complaint else [])


def test_a_line_cannot_take_the_place_of_an_incident() -> None:
    case = taken("a.csv", TABLE)[0].model_copy(update={"id": "inc_7c0f3a1e9b52"})
    assert said("a.jsonl", case.model_dump_json()) == [
        "a.jsonl:1: the id of a case of this kind begins with imported_; correct it"
    ]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"id": "imported_" + "x" * 81}, "the id of a case of this kind begins with imported_; correct it"),
        ({"id": "imported_a b"}, "the id of a case of this kind begins with imported_; correct it"),
        ({"source": "x" * 501}, "source is longer than 500 characters; shorten it"),
        ({"fold": "x" * 201}, "fold is longer than 200 characters; shorten it"),
        ({"category": "x" * 201}, "category is longer than 200 characters; shorten it"),
        ({"title": "x" * 2_001}, "title is longer than 2,000 characters; shorten it"),
        ({"remedies": (REMEDY,) * 101}, "it has more than 100 remedies; leave the oldest out"),
        (
            {"remedies": (REMEDY, REMEDY.model_copy(update={"at": NOW.replace(year=2099)}))},
            "remedies.1.at is before 1990 or in the future; correct the time",
        ),
        (
            {"remedies": (REMEDY.model_copy(update={"operation": "x" * 201}),)},
            "remedies.0.operation is longer than 200 characters; shorten it",
        ),
        (
            {"signature": Signature(services=tuple(map(str, range(17))))},
            "signature.services has more than 16 names; leave the last ones out",
        ),
    ],
)
def test_a_line_that_is_larger_than_cases_are_is_refused(changes: dict[str, object], complaint: str) -> None:
    case = taken("a.csv", TABLE)[0].model_copy(update=changes)
    assert said("a.jsonl", case.model_dump_json()) == [f"a.jsonl:1: {complaint}"]


def test_a_line_is_of_no_incident_of_ours_and_folds_into_none() -> None:
    case = taken("a.csv", TABLE)[0].model_copy(update={"incident_id": "inc_7c0f3a1e9b52", "fold": "incident:0"})
    for _ in range(2):
        [case] = taken("a.jsonl", case.model_dump_json())
        assert (case.incident_id, case.fold) == (None, "exported:incident:0")


def test_what_postgres_cannot_store_is_left_out_of_a_line() -> None:
    remedy = REMEDY.model_copy(update={"verdict": "re\x00solved"})
    [case] = taken("a.jsonl", taken("a.csv", TABLE)[0].model_copy(update={"remedies": (remedy,)}).model_dump_json())
    assert case.remedies[0].verdict == "resolved"
