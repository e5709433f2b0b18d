"""The PetShop data set: what of it is read, what is not, and how it forgives what is missing."""

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from app.evaluation import Case
from app.petshop import SCENARIOS, SPLITS, Frame, PetshopError, Traffic, issues, outcomes
from collectors.base import Series
from tests.app import petshop_data
from tests.app.petshop_data import NORMAL_FROM, STEP_S, Row, write, write_rows

ISSUE = petshop_data.ISSUE_FROM
HEAD = [["microservice", "a", "a", "b"], ["metric", "latency", "queue_depth", "availability"]]


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    return write(tmp_path / "petshop", issues=("db", "search"))


def first(scenario: Path) -> Path:
    return scenario / "train" / "issue_0"


def read(scenario: Path) -> Case:
    return Traffic.read(scenario).case(first(scenario))


def rows(file: Path) -> list[Row]:
    with file.open(newline="") as opened:
        return list(csv.reader(opened))


def series(case: Case, component: str, metric: str, statistic: str = "avg") -> Series:
    (telemetry,) = case.telemetry
    wanted = (component, metric, statistic)
    (found,) = [s for s in telemetry.series if (s.ref.component, s.ref.metric, s.ref.statistic) == wanted]
    return found


def test_an_issue_becomes_an_incident(scenario: Path) -> None:
    case = read(scenario)
    windows = [(w.start.timestamp(), w.end.timestamp()) for w in (case.scope.incident, *case.scope.baseline)]
    assert windows == [
        (ISSUE + STEP_S, ISSUE + 5 * STEP_S),
        (ISSUE, ISSUE + STEP_S),
        (NORMAL_FROM, NORMAL_FROM + 60 * STEP_S),
    ]
    assert (case.alert.service, case.alert.occurred_at.timestamp()) == ("front", ISSUE + 450)
    assert case.alert.title == "front: latency (Average)"
    assert {(e.caller, e.callee) for e in case.scope.edges} == set(petshop_data.CALLS)
    kinds = {(s.ref.metric, s.ref.statistic, s.ref.unit, s.ref.measures) for t in case.telemetry for s in t.series}
    assert kinds == {
        ("latency", "avg", "s", "latency"),
        ("latency", "p95", "s", "latency"),
        ("availability", "avg", "%", "success"),
        ("requests", "sum", "count", "requests"),
    }
    slow = series(case, "db", "latency")
    assert list(slow.epoch_s) == sorted(slow.epoch_s)
    assert (len(slow.values), slow.values[0] < 0.2, slow.values[4] > 2) == (65, True, True)


def test_the_root_cause_is_not_read(scenario: Path) -> None:
    before = read(scenario)
    target = json.loads((first(scenario) / "target.json").read_text())
    for label in ({"node": "queue", "metric": "availability"}, "nonsense", None):
        (first(scenario) / "target.json").write_text(json.dumps({**target, "root_cause": label, "metadata": "db"}))
        assert read(scenario) == before


def test_the_culprits_come_first(scenario: Path) -> None:
    found, absent = issues(scenario.parent, SCENARIOS, SPLITS)
    missing: list[str] = []
    first_suspects = {one.case: one.suspects[0] for one in outcomes(found, missing)}
    assert first_suspects == {"low_traffic/train/issue_0": "db", "low_traffic/train/issue_1": "search"}
    assert (missing, len(absent)) == ([], 7)


def _shuffle_rows(table: list[Row]) -> list[Row]:
    return [*table[:4], *random.Random(1).sample(table[4:], len(table) - 4)]


def _shuffle_columns(table: list[Row]) -> list[Row]:
    order = [0, *random.Random(1).sample(range(1, len(table[0])), len(table[0]) - 1)]
    return [[row[i] for i in order] for row in table]


def _repeat(table: list[Row]) -> list[Row]:
    return [*table, *table[5:7]]


def _torn(table: list[Row]) -> list[Row]:
    return [*table, [], ["n/a", "1"], ["9e99", "1"]]


@pytest.mark.parametrize("change", [_shuffle_rows, _shuffle_columns, _repeat, _torn])
@pytest.mark.parametrize("file", ["train/issue_0/metrics.csv", "noissue/metrics.csv"])
def test_the_layout_of_a_table_does_not_matter(
    scenario: Path, file: str, change: Callable[[list[Row]], list[Row]]
) -> None:
    before = read(scenario)
    write_rows(scenario / file, change(rows(scenario / file)))
    assert read(scenario) == before


def test_columns_of_one_frame_only_and_cells_without_a_value(tmp_path: Path) -> None:
    issue = [*HEAD, ["statistic", "p50", "Maximum", "Average"], ["600", "", "nan", "99"], ["900", "2", "inf", "x"]]
    history = [["", "a", "c"], ["", "latency", "latency"], ["", "p50", "p50"], ["60000", "1", "3"]]
    write_rows(tmp_path / "noissue" / "metrics.csv", history)
    write_rows(first(tmp_path) / "metrics.csv", issue)
    (first(tmp_path) / "target.json").write_text('{"target": {"node": "nobody"}}')
    case = read(tmp_path)
    (telemetry,) = case.telemetry
    points = {(s.ref.component, s.ref.metric): (*s.epoch_s, *s.values) for s in telemetry.series}
    assert points == {
        ("a", "latency"): (900, 60000, 2, 1),
        ("b", "availability"): (600, 99),
        ("c", "latency"): (60000, 3),
    }
    assert case.alert.occurred_at == case.scope.incident.start
    assert case.ranked() is not None


def test_several_rows_of_a_time_are_their_mean_and_a_strange_metric_has_no_meaning(tmp_path: Path) -> None:
    body = [["600", "1", "5", ""], ["300", "2", "", "7"], ["600", "4", "", ""]]
    write_rows(tmp_path / "metrics.csv", [*HEAD, ["", "p50", "Maximum", "Average"], *body])
    frame = Frame.read(tmp_path / "metrics.csv")
    assert [*frame.epoch_s] == [300, 600]
    assert [*frame.values[:, 0]] == [2, 2.5]
    assert [column.metric for column in frame.columns] == ["latency", "queue_depth", "availability"]


def test_history_that_overlaps_the_issue_is_not_taken_for_normal(scenario: Path) -> None:
    write_rows(scenario / "noissue" / "metrics.csv", petshop_data.frame(ISSUE - 5 * STEP_S, 20))
    slow = series(read(scenario), "db", "latency")
    assert len(slow.values) == len(set(slow.epoch_s)) == 20
    assert [round(v) for v in slow.values] == [0] * 6 + [2] * 4 + [0] * 10


def test_a_scenario_without_history_or_graph_is_ranked_all_the_same(scenario: Path) -> None:
    (scenario / "noissue" / "metrics.csv").unlink()
    (scenario / "graph.csv").unlink()
    missing: list[str] = []
    done = list(outcomes(issues(scenario.parent, SCENARIOS, SPLITS)[0], missing))
    assert [one.complaint for one in done] == ["", ""]
    assert [text.split("low_traffic/")[1] for text in missing] == [
        "graph.csv cannot be read: No such file or directory",
        "noissue has no metrics.csv: compared with the row before the incident only",
    ]
    assert len(read(scenario).scope.baseline) == 1


def test_history_may_lie_deeper_and_in_parts(scenario: Path) -> None:
    before = read(scenario)
    table = rows(scenario / "noissue" / "metrics.csv")
    for name, part in (("noissue_1", table[4:30]), ("noissue_2", table[30:])):
        write_rows(scenario / "train" / name / "metrics.csv", [*table[:4], *part])
    (scenario / "noissue" / "metrics.csv").unlink()
    assert read(scenario) == before


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("metrics.csv", "", "three header rows"),
        ("metrics.csv", "a,b\nc,d\ne,f\nx,1\n", "three header rows"),
        ("metrics.csv", ",b\n,latency\n,p50\n300,1\n", "two rows at least"),
        ("metrics.csv", None, "metrics.csv cannot be read"),
        ("target.json", None, "target.json cannot be read"),
        ("target.json", "{", "holds no target"),
        ("target.json", "[]", "holds no target"),
        ("target.json", '{"target": []}', "holds no target"),
        ("target.json", '{"target": {"node": ""}}', "is no name"),
    ],
)
def test_an_issue_that_cannot_be_read_is_left_out(scenario: Path, file: str, text: str | None, complaint: str) -> None:
    (first(scenario) / file).unlink()
    if text is not None:
        (first(scenario) / file).write_text(text)
    with pytest.raises(PetshopError, match=complaint):
        read(scenario)
    broken, whole = outcomes(issues(scenario.parent, SCENARIOS, SPLITS)[0], [])
    assert complaint in broken.complaint
    assert (broken.suspects, whole.suspects[0]) == ((), "search")


def test_a_folder_with_nothing_of_it(tmp_path: Path) -> None:
    with pytest.raises(PetshopError, match="holds none of high_traffic/test; name the folder"):
        issues(tmp_path, ["high_traffic"], ["test"])
    with pytest.raises(PetshopError, match="no scenario 'rush_hour'; there are: low_traffic, "):
        issues(tmp_path, ["rush_hour"], ["test"])
