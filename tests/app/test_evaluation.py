"""``autopilot eval`` and ``autopilot rank``: what they write, print and say, and their exit codes."""

import json
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from app.evaluation import Case, EvaluationError, Outcome, ranked, summary
from app.ranking_report import hop
from collectors.replay import load_bundle
from graph.state import Evidence, Hop
from tests.app import nezha_data, petshop_data
from tests.conftest import ROOT

SCENARIOS = ROOT / "tests" / "scenarios"
BLACK_FRIDAY = SCENARIOS / "001-black-friday"


def autopilot(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


# --- petshop ------------------------------------------------------------------------------------------------------


@pytest.fixture
def petshop(tmp_path: Path) -> Path:
    petshop_data.write(tmp_path / "petshop", issues=("db", "search"))
    petshop_data.write(tmp_path / "petshop", "high_traffic", "test", issues=("shop",))
    return tmp_path / "petshop"


def test_petshop(petshop: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    done = autopilot("eval", "petshop", petshop, "--out", out)
    assert done.exit_code == 0, done.output
    firsts = {case: names[0] for case, names in json.loads(out.read_text()).items()}
    assert firsts == {
        "high_traffic/test/issue_0": "shop",
        "low_traffic/train/issue_0": "db",
        "low_traffic/train/issue_1": "search",
    }
    assert re.fullmatch(r"petshop: 3 cases ranked; 0\.\d{3} s a case, .* -> .*result\.json\n", done.stdout)
    assert "temporal_traffic1/test: not there, skipped" in done.stderr


@pytest.mark.parametrize(
    ("options", "cases"),
    [
        (("--split", "test"), ["high_traffic/test/issue_0"]),
        (("--scenarios", "low_traffic"), ["low_traffic/train/issue_0", "low_traffic/train/issue_1"]),
    ],
)
def test_some_of_petshop(petshop: Path, tmp_path: Path, options: tuple[str, ...], cases: list[str]) -> None:
    out = tmp_path / "result.json"
    assert autopilot("eval", "petshop", petshop, "--out", out, *options).exit_code == 0
    assert list(json.loads(out.read_text())) == cases


def test_what_petshop_lacks_is_said_and_gone_on_without(petshop: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    shutil.rmtree(petshop / "low_traffic" / "noissue")
    (petshop / "low_traffic" / "train" / "issue_1" / "metrics.csv").write_text("nothing")
    done = autopilot("eval", "petshop", petshop, "--out", out)
    assert done.exit_code == 1
    assert "2 cases ranked, 1 left out" in done.stdout
    assert "noissue has no metrics.csv: compared with the row before the incident only" in done.stdout
    assert "low_traffic/train/issue_1: left out: " in done.stderr
    assert list(json.loads(out.read_text())) == ["high_traffic/test/issue_0", "low_traffic/train/issue_0"]


# --- nezha --------------------------------------------------------------------------------------------------------


def test_nezha(tmp_path: Path) -> None:
    nezha_data.write(tmp_path / "nezha")
    broken = nezha_data.write(tmp_path / "nezha", day="2023-01-30")
    (broken / "rca_data" / "2023-01-30" / "log" / "08_45_log.csv").unlink()
    out = tmp_path / "result.json"
    done = autopilot("eval", "nezha", tmp_path / "nezha", "--out", out, "--jobs", 2)
    assert done.exit_code == 1
    assert "1 case ranked, 1 left out" in done.stdout
    assert "2023-01-30 08:43:04: left out: " in done.stderr
    assert "08_45_log.csv is missing" in done.stderr
    result = json.loads(out.read_text())
    assert list(result) == [nezha_data.CASE]
    assert result[nezha_data.CASE][0] == "ts-seat-service"
    assert autopilot("eval", "nezha", tmp_path / "nezha", "--out", out, "--days", "2023-01-29").exit_code == 0
    done = autopilot("eval", "nezha", tmp_path / "nezha", "--out", out, "--days", "2023-01-29", "--minute", "1")
    assert (done.exit_code, json.loads(out.read_text())) == (1, {})
    assert "08_44_log.csv is missing" in done.stderr


# --- rank ---------------------------------------------------------------------------------------------------------


def test_rank_prints_what_is_wrong(tmp_path: Path) -> None:
    done = autopilot("rank", BLACK_FRIDAY, "--explain", "--svg", tmp_path / "svg")
    assert done.exit_code == 0, done.output
    shown = done.stdout
    assert shown.startswith("payment-service error rate is high (payment-service, 2024-12-20 09:15:00 UTC)\n")
    for part in ("Something is wrong", "Suspects", "Findings", "Impact", "Not seen", "How the scores came about"):
        assert part in shown
    assert max(map(len, shown.splitlines())) <= 100
    assert "\x1b" not in shown
    evidence = ranked(load_bundle(BLACK_FRIDAY))
    assert all(reason.split()[0] in shown for s in evidence.suspects for reason in s.reasons)
    pictures = sorted((tmp_path / "svg").iterdir())
    assert {"topology.svg", "E4.svg"} <= {picture.name for picture in pictures}
    assert all(ET.fromstring(picture.read_bytes()).tag.endswith("svg") for picture in pictures)


def test_rank_prints_the_evidence_as_json() -> None:
    done = autopilot("rank", BLACK_FRIDAY, "--json")
    assert Evidence.model_validate_json(done.stdout) == ranked(load_bundle(BLACK_FRIDAY))


def test_words_of_strangers_move_no_cursor(tmp_path: Path) -> None:
    folder = shutil.copytree(BLACK_FRIDAY, tmp_path / "hostile")
    alert = json.loads((folder / "alert.json").read_text())
    (folder / "alert.json").write_text(json.dumps({**alert, "title": "[bold]ha\x1b[2Jha[/nothing]"}))
    done = autopilot("rank", folder)
    assert done.stdout.startswith("[bold]ha [2Jha[/nothing] (payment-service")


@pytest.mark.parametrize(
    ("checks", "shown"),
    [
        ((True, True, True, False), "billing → orders ✓edge ✓both deviate ✓earlier"),
        ((False, True, False, True), "billing → orders ✗edge ✓both deviate ✗earlier (asynchronous)"),
    ],
)
def test_a_hop(checks: tuple[bool, ...], shown: str) -> None:
    fields = dict(zip(("structural", "statistical", "temporal", "asynchronous"), checks, strict=True))
    assert hop(Hop(cause="billing", effect="orders", **fields)) == shown


# --- what cannot be read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rank", "{tmp}/nowhere"), "nowhere is no directory"),
        (("rank", "{tmp}"), "bundle.json is missing"),
        (("rank", BLACK_FRIDAY, "--svg", "{tmp}/file/x"), "--svg {tmp}/file/x cannot be written"),
        (("eval", "scenarios", "{tmp}/nowhere"), "is no folder; name one that holds bundles"),
        (("eval", "scenarios", "{tmp}"), "holds no bundle.json"),
        (("eval", "scenarios", SCENARIOS, "--out", "{tmp}/no/o.json"), "there is no folder"),
        (("eval", "petshop", "{tmp}", "--out", "{tmp}"), "is a folder; name a file"),
        (("eval", "petshop", "{tmp}", "--out", "{tmp}/o.json"), "holds none of low_traffic/train"),
        (("eval", "petshop", "{tmp}", "--out", "{tmp}/o.json", "--scenarios", "rush"), "no scenario 'rush'"),
        (("eval", "nezha", "{tmp}", "--out", "{tmp}/o.json"), "holds no list of faults"),
        (("eval", "nezha", "{tmp}/file", "--out", "{tmp}/o.json"), "is no readable tar archive"),
        (("eval", "nezha", "{tmp}/nowhere", "--out", "{tmp}/o.json"), "No such file"),
        (("eval", "nezha", "{tmp}/nezha", "--out", "{tmp}/o.json", "--days", "1999-01-01"), "it has: 2023-01-29"),
        (("eval", "nezha", "{tmp}/nezha", "--out", "{tmp}/o.json", "--jobs", "0"), "greater than or equal to 1"),
    ],
)
def test_bad_input_is_a_sentence(tmp_path: Path, arguments: tuple[object, ...], said: str) -> None:
    (tmp_path / "file").write_text("no archive")
    nezha_data.write(tmp_path / "nezha")
    done = autopilot(*(str(argument).format(tmp=tmp_path) for argument in arguments))
    assert done.exit_code == 2
    assert said.format(tmp=tmp_path) in done.stderr
    assert isinstance(done.exception, SystemExit)


def test_an_alert_that_is_none() -> None:
    bundle = load_bundle(BLACK_FRIDAY)
    with pytest.raises(EvaluationError, match=r"alert.json of «.*»: title: Input should be a valid string"):
        Case.of(bundle.model_copy(update={"alert": {**bundle.alert, "title": None}}))


def test_the_summary_of_nothing() -> None:
    assert summary([]) == "0 cases ranked"
    assert summary([Outcome("one", complaint="torn")]) == "0 cases ranked, 1 left out"
