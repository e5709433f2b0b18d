"""``autopilot eval scenarios``: what is expected, how it is judged, by the rules engine and by a model behind HTTP."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from app.scenario_scores import Metric, Run, Spent, counts, failed, judged, overall, reliability, wilson
from app.scenarios import Expected, read, rehearsal_catalogue
from app.simulator.openai import Reply, Request, Script, error, hang, html, openai_server, refuse, say, trickle
from app.simulator.openai_reader import read_brief
from graph.state import (
    ActionOption,
    Alert,
    Claim,
    Evidence,
    Finding,
    GroundingCheck,
    Hop,
    Plan,
    PlanStep,
    RootCause,
    State,
    Suspect,
)
from tests.conftest import ROOT

SCENARIOS = ROOT / "tests" / "scenarios"
KEY = "sk-a-key-that-is-no-key"
AT = datetime(2024, 12, 20, 9, 15, tzinfo=UTC)


def autopilot(*arguments: object, **environment: str) -> Result:
    command = ["eval", "scenarios", *(str(argument) for argument in arguments)]
    return CliRunner().invoke(app, command, env={"OPENAI_API_KEY": KEY, **environment})


def copied(target: Path, *prefixes: str) -> Path:
    for folder in sorted(SCENARIOS.iterdir()):
        if folder.name.startswith(prefixes):
            shutil.copytree(folder, target / folder.name)
    return target


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """A folder of one scenario, whose cause is payment-service."""
    return copied(tmp_path / "scenarios", "001")


def written(out: Path) -> Any:
    return json.loads(out.read_text(encoding="utf-8"))


def runs(out: Path) -> list[dict[str, Any]]:
    return [run for scenario in written(out)["scenarios"] for run in scenario["runs"]]


# --- the rules engine -----------------------------------------------------------------------------------------------


def test_the_rules_engine(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    done = autopilot(copied(tmp_path / "some", "002", "019"), "--out", out)
    assert done.exit_code == 0, done.output
    for shown in ("Ranking", "Answers", "right component", "Wilson", "bootstrap over scenarios", "(nobody)"):
        assert shown in done.stdout
    assert "2 runs of 2 scenarios; " in done.stdout
    assert "ranking top-1 100% (1/1), top-3 100% (1/1)" in done.stdout
    result = written(out)
    assert (result["settings"]["engine"], result["complete"], result["runs_done"]) == ("rules", True, 2)
    blamed, spared = runs(out)
    assert (blamed["component"], blamed["right_component"], blamed["category"]) == ("checkout", True, "bad_deploy")
    assert (blamed["rank"], blamed["right_category"], blamed["acceptable_plan"]) == (1, True, True)
    assert all(claim["verified"] for claim in blamed["claims"])
    assert (blamed["model_calls"], blamed["engine"]) == (0, "rules")
    assert (spared["component"], spared["right_component"], spared["options"]) == (None, True, [])
    assert result["overall"]["right_component"]["n"] == 2
    assert result["overall"]["must_cite"] | {"low": 0, "high": 0} == {
        "value": 1.0, "low": 0, "high": 0, "n": 2, "interval": "wilson"
    }  # fmt: skip


def test_korean(one: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    assert autopilot(one, "--language", "ko", "--out", out).exit_code == 0
    assert re.search("[가-힣]", runs(out)[0]["title"])


def test_a_folder_that_is_itself_a_bundle(one: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    assert autopilot(one / "001-black-friday", "--out", out).exit_code == 0
    assert [scenario["name"] for scenario in written(out)["scenarios"]] == ["001-black-friday"]


def test_what_cannot_be_read_is_told_and_left_out(one: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(one / "001-black-friday", one / "broken")
    (broken / "metrics.jsonl.gz").write_bytes(b"torn")
    out = tmp_path / "result.json"
    done = autopilot(one, "--out", out)
    assert done.exit_code == 0, done.output
    assert "broken: left out: " in done.stderr
    assert "1 run of 1 scenario, 1 left out" in done.stdout
    assert (list(written(out)["left_out"]), written(out)["complete"]) == (["broken"], True)
    shutil.rmtree(one / "001-black-friday")
    done = autopilot(one)
    assert (done.exit_code, "none of the 1 bundles could be read" in done.stderr) == (2, True)


# --- what is expected -----------------------------------------------------------------------------------------------


def expected_of(folder: Path, text: str, name: str = "expected.yml") -> tuple[Expected, str]:
    (folder / "expected.yml").unlink(missing_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    scenario = read("one", folder)
    return scenario.expected, "; ".join(scenario.remarks)


@pytest.mark.parametrize(
    ("text", "understood"),
    [
        ("component: Payment_Service", {"culprits": ("Payment_Service",)}),
        ("component: null", {"culprits": (), "tells_component": True}),
        ("component: none", {"culprits": (), "tells_component": True}),
        ("category: bad-deploy", {"categories": ("bad_deploy",), "tells_component": False}),
        ("Component: [checkout, cart]\nCATEGORY: [Bad Deploy, code_fault]",
         {"culprits": ("checkout", "cart"), "categories": ("bad_deploy", "code_fault")}),
        ("component: checkout\ncomponents: [checkout, cart]", {"culprits": ("checkout", "cart")}),
        ("must-cite: 429\nmust-not-blame: cart", {"must_cite": ("429",), "must_not_blame": ("cart",)}),
        ("acceptable-operations: restart-ecs-task", {"acceptable_operations": ("restart_ecs_task",)}),
        ("acceptable_operations: []", {"acceptable_operations": (), "tells_operations": True}),
        ("acceptable_operations:", {"acceptable_operations": (), "tells_operations": True}),
        ("why: because", {"tells_operations": False, "tells_component": False}),
        ("", {"tells_component": False}),
    ],
)  # fmt: skip
def test_spellings(one: Path, text: str, understood: Mapping[str, object]) -> None:
    expected, remarks = expected_of(one / "001-black-friday", text)
    assert {name: getattr(expected, name) for name in understood} == understood
    assert remarks == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("component: checkout\nteam: us", "team is not known, and ignored"),
        ("component: mainframe", "mainframe does not occur in the recording"),
        ("category: gremlins", "gremlins is no category of this product; it is not judged"),
        ("category: [gremlins, bad_deploy]", "gremlins is no category of this product; bad_deploy counts"),
        ("must_cite: {a: b}", "must_cite: this is a list of words: [one, two]; nothing is judged"),
        ("[checkout]", "it holds no mapping; write `component: name of the cause`; nothing is judged"),
        ("component: [checkout", "cannot be read (while parsing a flow sequence"),
    ],
)
def test_what_is_not_understood_is_told(one: Path, text: str, said: str) -> None:
    _, remarks = expected_of(one / "001-black-friday", text)
    assert said in remarks


@pytest.mark.parametrize("name", ["expected.yaml", "expected.json"])
def test_other_names_of_the_file(one: Path, name: str) -> None:
    expected, _ = expected_of(one / "001-black-friday", '{"component": "checkout"}', name)
    assert expected.culprits == ("checkout",)


def test_where_nothing_is_expected_nothing_is_judged(one: Path, tmp_path: Path) -> None:
    (one / "001-black-friday" / "expected.yml").unlink()
    out = tmp_path / "result.json"
    done = autopilot(one, "--out", out)
    assert (done.exit_code, "there is no expected.yml, so nothing is judged" in done.stderr) == (0, True)
    assert "no cause was expected" in done.stdout
    overall_, run = written(out)["overall"], runs(out)[0]
    assert [run[name] for name in ("right_component", "right_category", "acceptable_plan")] == [None] * 3
    assert (overall_["right_component"]["value"], overall_["verified_claims"]["value"]) == (None, 1.0)


def test_services_of_a_recording_can_be_rehearsed_on_and_databases_not(one: Path) -> None:
    scenario = read("one", one / "001-black-friday")
    resources = rehearsal_catalogue(scenario.bundle, scenario.alert).resources()
    assert resources["payment-service"].ecs_service == "payment-service"
    assert resources["payment-service"].overflow_target_group_arn
    assert {name for name, one in resources.items() if one.ecs_service is None} >= {"orders-db", "redis"}


def test_a_catalogue_that_is_wrong_is_told(one: Path) -> None:
    (one / "001-black-friday" / "autopilot.yaml").write_text("services: 3")
    scenario = read("one", one / "001-black-friday")
    assert "autopilot.yaml:1: services" in scenario.remarks[0]
    assert "payment-service" in scenario.catalogue.services


# --- a model --------------------------------------------------------------------------------------------------------


def test_an_honest_model(tmp_path: Path) -> None:
    out, folder = tmp_path / "result.json", copied(tmp_path / "some", "001", "002")
    with openai_server(read_brief, key=KEY) as server:
        done = autopilot(
            folder, "--llm", server.url, "--model", "toy", "--repeat", 2, "--out", out, "--dollars-input", 1,
            "--dollars-output", 0,
        )  # fmt: skip
    assert done.exit_code == 0, done.output
    result = written(out)
    assert (result["complete"], result["runs_done"], len(result["scenarios"])) == (True, 4, 2)
    for run in runs(out):
        assert (run["engine"], run["engine_note"], run["right_component"]) == ("toy", "", True)
        assert run["claims_made"] == run["claims_verified"] > 0
        assert run["model_calls"] == 2
        assert run["dollars"] == pytest.approx(run["tokens_in"] / 1e6, abs=1e-5)
    figures = result["overall"]
    assert figures["agreement_on_component"]["value"] == 1.0
    assert figures["rules_engine_answered"]["value"] == 0.0
    assert len(server.requests) == 1 + 4 * 2
    assert "001-black-friday#2: RootCauseAnalyzer: toy: " in done.stderr
    assert KEY not in out.read_text() + done.output


def test_a_question_takes_no_more_tokens_than_asked_for(one: Path, tmp_path: Path) -> None:
    sizes = []
    for tokens in (2_500, 6_000):
        with openai_server(read_brief) as server:
            autopilot(one, "--llm", server.url, "--model", "toy", "--input-tokens", tokens)
        sizes.append(max(len(json.dumps(request["messages"])) for request in server.requests))
    assert sizes[0] < 0.7 * sizes[1]


def lie(request: Request) -> Reply:
    """One claim that holds, one that cites nothing, and a cause that is none."""
    honest = json.loads(str(read_brief(request).content))
    if "claims" not in honest or not honest["claims"]:
        return say(honest)
    invented = {"text": "redis lost 93,777 keys.", "evidence": ["E999"], "quote": "93,777"}
    return say({**honest, "claims": [honest["claims"][0], invented]})


def test_a_lying_model(one: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    with openai_server(lie) as server:
        assert autopilot(one, "--llm", server.url, "--model", "toy", "--out", out).exit_code == 0
    [run] = runs(out)
    assert run["engine"] == "toy"
    assert run["claims_verified"] < run["claims_made"]
    assert not any(claim["verified"] for claim in run["claims"] if "93,777" in claim["text"])
    assert written(out)["overall"]["verified_claims"]["value"] < 1.0


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (error(500, "server_error"), "toy answered 500"),
        (html(), "toy answered"),
        (refuse(), "toy refused"),
        (say("no JSON"), "toy answered"),
        (error(429, "insufficient_quota"), "its quota is used up"),
    ],
    ids=["broken", "html", "refusal", "shapeless", "unpaid"],
)
def test_a_model_without_an_answer(one: Path, tmp_path: Path, script: Reply, reason: str) -> None:
    """The first small question is answered, so that the run begins; nothing after it is."""
    out, first = tmp_path / "result.json", iter([say({"ready": True})])
    with openai_server(lambda _: next(first, script)) as server:
        done = autopilot(one, "--llm", server.url, "--model", "toy", "--out", out)
    assert done.exit_code == 0, done.output
    [run] = runs(out)
    assert (run["engine"], run["plan_engine"], run["right_component"]) == ("rules", "rules", True)
    assert reason in run["engine_note"]
    assert "Why the rules engine answered" in done.stdout
    result = written(out)
    assert result["overall"]["rules_engine_answered"]["value"] == 1.0
    assert result["overall_where_the_model_answered"]["right_component"]["n"] == 0


def slowly(request: Request) -> Reply:
    return trickle(read_brief(request), pace_s=0.002)


@pytest.mark.parametrize(("script", "timeout", "engine"), [(slowly, 60, "toy"), (hang(), 1, "rules")])
def test_a_slow_model(one: Path, tmp_path: Path, script: Script, timeout: int, engine: str) -> None:
    out = tmp_path / "result.json"
    with openai_server(script) as server:
        done = autopilot(one, "--llm", server.url, "--model", "toy", "--timeout", timeout, "--out", out)
    assert done.exit_code == 0, done.output
    assert runs(out)[0]["engine"] == engine
    assert ("timed out after 1 s" in runs(out)[0]["engine_note"]) == (engine == "rules")


# --- the endpoint ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
def test_urls_that_are_understood(one: Path, path: str) -> None:
    with openai_server(read_brief) as server:
        done = autopilot(one, "--llm", f"{server.origin}{path}", "--model", "toy")
    assert done.exit_code == 0, done.output
    assert f"toy answers at {server.url}" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--llm", "{origin}/v2", "--model", "toy"), "no such model or path (check --model and --llm). Most URLs end"),
        (("--llm", "{origin}", "--model", "other"), "its server knows no such model (check --model)"),
        (("--llm", "http://127.0.0.1:9/v1", "--model", "toy"), "toy cannot be reached (check --llm)"),
        (("--llm", "nowhere", "--model", "toy"), "--llm: it is no http or https URL"),
        (("--llm", "{origin}", "--model", "toy", "--key-env", "WRONG"), "does not accept the key (check --key-env)"),
        (("--llm", "{origin}", "--model", "toy", "--key-env", "UNSET"), "--key-env UNSET: there is no such variable"),
        (("--llm", "{origin}"), "--llm needs --model"),
        (("--model", "toy"), "--model needs --llm"),
    ],
)
def test_what_is_wrong_is_told_before_an_hour_is_spent(
    one: Path, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    with openai_server(read_brief, key=KEY, models=["toy"]) as server:
        told = [option.format(origin=server.origin) for option in options]
        done = autopilot(one, *told, WRONG="sk-wrong", COLUMNS="200")
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())


# --- interrupted ----------------------------------------------------------------------------------------------------


@pytest.fixture
def stuck() -> Iterator[tuple[str, threading.Event]]:
    """A model that answers for one scenario, and then never again; the event is set when it is stuck."""
    reached, answers = threading.Event(), iter(range(3))

    def script(request: Request) -> Reply:
        if next(answers, None) is None:
            reached.set()
            return hang()
        return read_brief(request)

    with openai_server(script) as server:
        yield server.url, reached


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_shows_and_keeps_what_is_done(
    stuck: tuple[str, threading.Event], tmp_path: Path, number: signal.Signals
) -> None:
    url, reached = stuck
    out, folder = tmp_path / "result.json", copied(tmp_path / "some", "001", "002")
    command = [sys.executable, "-m", "app", "eval", "scenarios", folder, "--llm", url, "--model", "toy"]
    with subprocess.Popen(
        [*map(str, command), "--parallel", "1", "--out", str(out)],
        cwd=ROOT, env={**os.environ, "OPENAI_API_KEY": KEY}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert reached.wait(60)
        process.send_signal(number)
        shown, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "interrupted: what is done is kept" in told
    assert "1 run of 1 scenario; interrupted, 2 runs were asked for" in shown
    result = written(out)
    assert (result["complete"], result["runs_done"], result["runs_planned"]) == (False, 1, 2)
    assert "Traceback" not in told + shown
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


# --- one run judged -------------------------------------------------------------------------------------------------


def state(
    component: str | None = "pay",
    operations: tuple[tuple[str, ...], ...] = (),
    category: str = "bad_deploy",
    certainty: float | None = 0.8,
) -> State:
    finding = Finding(
        id="E1", kind="log", component="pay", signal="PoolTimeout", at=AT, summary="It waits.", excerpt="HikariPool-1"
    )
    hop = Hop(cause="pay", effect="shop", structural=True, statistical=True, temporal=True)
    cause = RootCause(
        component=component,
        category=category,
        title="pay fails",
        mechanism="db is slow.",
        claims=(
            Claim(text="It waits.", evidence=("E1",), verified=True),
            Claim(text="cache is cold.", evidence=("E1",), complaint="no"),
        ),
        path=(hop, hop.model_copy(update={"temporal": False})),
        confidence="medium",
        certainty=certainty,
        checks=(
            GroundingCheck(about="claim", text="gone", verdict="dropped", complaint="no"),
            GroundingCheck(about="hop", text="x → y", verdict="dropped", complaint="no"),
        ),
        engine="toy",
    )
    options = [
        ActionOption(
            title="t",
            description="d",
            risk="low",
            minutes=1,
            steps=tuple(PlanStep(operation=name, params={}) for name in names),
        )
        for names in operations
    ]
    suspects = (Suspect(component="db", score=0.5, findings=()), Suspect(component="pay", score=0.4, findings=()))
    return State(
        incident_id="i",
        alert=Alert(source="s", title="t", service="shop", occurred_at=AT, fingerprint="f", cycle_key="c"),
        evidence=Evidence(digest="d", findings=(finding,), suspects=suspects),
        root_cause=cause,
        plan=Plan.of(options),
    )


def run_of(expected: Mapping[str, object], given: State | None = None) -> Run:
    looks = frozenset({"check_ecs_health"})
    return judged(given or state(), Expected.model_validate(expected), looks, Spent(seconds=2.0))


def test_what_did_not_hold_counts_as_made() -> None:
    run = run_of({})
    assert (run.claims_verified, run.claims_made) == (1, 3)
    assert (run.hops_valid, run.hops, run.path_valid) == (1, 3, False)


@pytest.mark.parametrize(
    ("expected", "judgement"),
    [
        ({"component": "pay"}, {"right_component": True, "rank": 2, "both_named": None, "expects": "component"}),
        ({"component": "PAY"}, {"right_component": True}),
        ({"component": "db"}, {"right_component": False, "rank": 1}),
        ({"component": None}, {"right_component": False, "rank": None, "expects": "nobody"}),
        ({"components": ["pay", "db"]}, {"right_component": True, "both_named": True}),
        ({"components": ["pay", "cache"]}, {"right_component": True, "both_named": False}),
        ({}, {"right_component": None, "right_category": None, "acceptable_plan": None, "expects": "nothing"}),
        ({"component": "db", "category": "bad_deploy"}, {"right_category": True}),
        ({"component": "pay", "category": ["code_fault"]}, {"right_category": False}),
        ({"component": None, "category": "unknown"}, {"right_category": None}),
        ({"must_cite": ["hikaripool", "pay", "cold"]}, {"cited": 2, "to_cite": 3, "not_cited": ("cold",)}),
        ({"must_not_blame": ["pay"]}, {"blamed_wrongly": True}),
        ({"must_not_blame": ["db"]}, {"blamed_wrongly": False}),
    ],
)
def test_judgements(expected: Mapping[str, object], judgement: Mapping[str, object]) -> None:
    run = run_of(expected)
    assert {name: getattr(run, name) for name in judgement} == judgement


@pytest.mark.parametrize(
    ("acceptable", "proposed", "good"),
    [
        (["restart"], (("restart",),), True),
        (["restart"], (("restart", "check_ecs_health"),), True),
        (["restart"], (("scale",), ("restart",)), True),
        (["restart"], (("restart", "scale"),), False),
        (["restart"], (("check_ecs_health",),), False),
        (["check_ecs_health"], (("check_ecs_health",),), True),
        (["restart"], (), False),
        ([], (), True),
        ([], (("check_ecs_health",),), True),
        ([], (("restart",),), False),
    ],
)
def test_plans(acceptable: list[str], proposed: tuple[tuple[str, ...], ...], good: bool) -> None:
    run = run_of({"acceptable_operations": acceptable, "forbidden_operations": ["scale"]}, state(operations=proposed))
    assert run.acceptable_plan is good
    assert run.forbidden_proposed is any("scale" in names for names in proposed)
    assert run.options == proposed


def test_a_run_that_failed_is_wrong_in_all_that_was_expected() -> None:
    expected = Expected.model_validate({"component": None, "acceptable_operations": [], "must_cite": ["a"]})
    run = failed("KeyError: x", expected, Spent())
    assert (run.right_component, run.acceptable_plan, run.cited, run.to_cite) == (False, False, 0, 1)
    assert counts({"a": [run]})["errors"] == {"KeyError: x": 1}


# --- all of them ----------------------------------------------------------------------------------------------------


def test_wilson_is_as_published() -> None:
    """Newcombe 1998, table I: 81 of 263, and 15 of 148."""
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)


def test_repeats_are_no_further_witnesses() -> None:
    once = {name: [Run(right_component=right)] for name, right in (("a", True), ("b", False))}
    often = {name: found * 50 for name, found in once.items()}
    one, many = (overall(results)["right_component"] for results in (once, often))
    assert (one.value, one.low, one.high) == (many.value, many.low, many.high)
    assert (one.n, many.n) == (2, 100)


def test_means_have_an_interval_over_scenarios() -> None:
    results = {str(n): [Run(seconds=float(n))] for n in range(20)}
    seconds = overall(results)["seconds"]
    assert seconds == overall(results)["seconds"]
    assert seconds.value == 9.5
    assert seconds.low is not None
    assert seconds.high is not None
    assert 6.5 < seconds.low < 8 < 11 < seconds.high < 12.5
    assert overall({"a": [Run(seconds=3.0)]})["seconds"] == Metric(value=3.0, n=1, interval="bootstrap")


def test_agreement_is_what_most_runs_of_a_scenario_say() -> None:
    results = {"a": [Run(component=name) for name in ("x", "x", "y", "x")], "b": [Run(component="z")]}
    assert overall(results)["agreement_on_component"] == Metric(value=0.75, n=1, interval="bootstrap")


def test_certainty_against_truth() -> None:
    sure = [Run(certainty=value, right_component=right) for value, right in ((1.0, True), (0.9, False), (0.1, False))]
    results = {"a": [*sure, Run(certainty=0.5), Run(component=None, right_component=True)]}
    assert [(b.low, b.n, b.right) for b in reliability(results)] == [(0.0, 1, 0.0), (0.8, 2, 0.5)]
    assert overall(results)["brier_score"].value == pytest.approx((0 + 0.81 + 0.01) / 3)


def test_nothing_to_count_is_nothing() -> None:
    assert {metric.value for metric in overall({}).values()} == {None}
