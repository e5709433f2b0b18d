"""Who may approve what, and when nothing may run."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from app.catalogue import AutopilotYaml, CatalogueError, load
from app.routing import Happened, Routes
from executors.base import Risk
from executors.rehearsal import RehearsalExecutor
from graph.catalogue import Catalogue, Service, Team
from graph.policy import RISKS, ROLES, Asked, Facts, FreezeWindow, Messages, Policy, strictest
from graph.state import PlanStep, Role

FRIDAY = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
ROLE, PEOPLE = st.sampled_from(ROLES), st.integers(1, 5)
EXAMPLE = Path(__file__).with_name("policy.example.yaml")
README = Path(__file__).parents[2] / "README.md"
OPERATIONS = {
    o.name: o
    for o in RehearsalExecutor(
        Catalogue(
            services={"shop": Service.model_validate({"ecs": {"cluster": "c", "service": "s"}}), "db": Service()}
        ).resources()
    ).operations
}


def asked(risk: Risk = "medium", *operations: str, **others: Any) -> Asked:
    names = operations or ("scale_ecs_service",)
    return Asked.model_validate(
        {"risk": risk, "operations": names, "changing": names, "services": ("shop",), "environment": "prod", **others}
    )


def facts(now: datetime = FRIDAY, **others: Any) -> Facts:
    return Facts.model_validate({"now": now, **others})


def window(**given: Any) -> FreezeWindow:
    return FreezeWindow.model_validate({"name": "w", **given})


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


# --- roles and approvals ---


@pytest.mark.parametrize(
    ("risk", "role", "people"),
    [("none", "responder", 1), ("low", "responder", 1), ("medium", "responder", 1), ("high", "admin", 2)],
)
def test_what_each_risk_takes_where_nobody_says_otherwise(risk: Risk, role: Role, people: int) -> None:
    needs = Policy().needs(asked(risk), facts())
    assert (needs.role, needs.approvals, needs.refused, needs.not_by, needs.dry_run) == (role, people, (), "", False)
    assert needs.why == (("high risk",) if risk == "high" else ())
    assert Policy().role_for(risk) == role


@settings(deadline=None)
@given(ROLE, PEOPLE, ROLE, PEOPLE)
def test_the_stricter_of_risk_and_operation_holds(of_risk: Role, people: int, of_one: Role, more: int) -> None:
    policy = Policy.model_validate(
        {
            "roles": {"low": of_risk},
            "approvals": {"low": people},
            "operations": {"restart_ecs_task": {"role": of_one, "approvals": more}},
        }
    )
    needs = policy.needs(asked("low", "check_ecs_health", "restart_ecs_task"), facts())
    assert ROLES.index(needs.role) == max(ROLES.index(of_risk), ROLES.index(of_one))
    assert needs.role == policy.role_for("low", "restart_ecs_task")
    assert needs.approvals == max(people, more)
    assert ("the policy for restart_ecs_task" in needs.why) == (more > 1 or of_one == "admin")


def test_of_several_risks_the_highest_holds() -> None:
    assert strictest(("low", "high", "none")) == "high"
    assert strictest(()) == "none"


def test_whoever_asked_may_be_kept_from_approving() -> None:
    strict = Policy(requester_may_approve=False)
    assert strict.needs(asked(), facts(requester="kim")).not_by == "kim"
    assert Policy().needs(asked(), facts(requester="kim")).not_by == ""


@pytest.mark.parametrize("people", [0, -1, 6])
def test_nobody_can_ask_for_no_approval_or_more_than_there_are_people(people: int) -> None:
    with pytest.raises(ValidationError):
        Policy.model_validate({"approvals": {"low": people}})
    with pytest.raises(ValidationError):
        Policy.model_validate({"operations": {"x": {"approvals": people}}})


# --- never ---


def test_an_operation_may_be_ruled_out_even_one_that_only_looks() -> None:
    policy = Policy.model_validate({"operations": {"check_ecs_health": {"allowed": False}}})
    looks = asked("none", "check_ecs_health", changing=(), services=())
    assert policy.needs(looks, facts()).refused == ("the policy does not allow check_ecs_health (policy.operations)",)
    assert policy.forbids(asked()) == ()


def test_protected_services_are_not_changed_but_may_be_looked_at() -> None:
    policy = Policy(protected_services=("shop",))
    assert policy.forbids(asked()) == ("shop is protected: the policy lets nobody change it from here",)
    assert policy.forbids(asked(services=("db",))) == ()
    assert policy.forbids(asked("none", "check_ecs_health", changing=())) == ()


def test_dry_run_environments() -> None:
    policy = Policy(dry_run_environments=("staging",))
    assert policy.needs(asked(environment="staging"), facts()).dry_run
    assert not policy.needs(asked(environment="production"), facts()).dry_run
    assert policy.dry_run_only("staging")


# --- not now ---


def test_the_kill_switch_stops_what_changes_something() -> None:
    pulled = facts(frozen="Kim pulled it at 12:00")
    assert Policy().needs(asked(), pulled).refused == ("Kim pulled it at 12:00",)
    assert Policy().needs(asked("none", "check_ecs_health", changing=()), pulled).refused == ()


def test_changes_of_a_service_within_an_hour() -> None:
    policy = Policy(actions_per_service_hour=3)
    two = asked(services=("shop", "shop"))
    assert policy.needs(two, facts(actions={"shop": 1, "db": 9})).refused == ()
    [why] = policy.needs(two, facts(actions={"shop": 2})).refused
    assert why == (
        "shop was changed 2 times within the last hour and the policy allows 3 changes an hour: this would be 2 more"
    )
    assert policy.needs(asked("none", "check_ecs_health", changing=()), facts(actions={"shop": 9})).refused == ()


@pytest.mark.parametrize("when_spent", ["admin", "refuse"])
def test_a_spent_error_budget(when_spent: str) -> None:
    policy = Policy.model_validate({"error_budget": {"when_spent": when_spent}})
    spent, left = facts(budget_spent={"shop": 1.0}), facts(budget_spent={"shop": 0.99, "db": 2.0})
    needs = policy.needs(asked("medium"), spent)
    said = ("the error budget of shop is spent",)
    if when_spent == "admin":
        assert (needs.role, needs.refused, needs.why) == ("admin", (), said)
    else:
        assert (needs.role, needs.refused, needs.why) == ("responder", said, ())
    for free in (
        policy.needs(asked("medium"), left),
        policy.needs(asked("low"), spent),
        Policy().needs(asked(), spent),
    ):
        assert (free.role, free.refused) == ("responder", ())


def test_everything_that_refuses_is_said_at_once() -> None:
    policy = Policy.model_validate(
        {
            "operations": {"scale_ecs_service": {"allowed": False}},
            "protected_services": ["shop"],
            "actions_per_service_hour": 1,
            "freeze_windows": [{"name": "always", "weekdays": ["fri"]}],
            "error_budget": {"when_spent": "refuse"},
        }
    )
    seen = facts(frozen="frozen", actions={"shop": 1}, budget_spent={"shop": 3})
    assert len(policy.needs(asked(), seen).refused) == 6


# --- freeze windows ---


@pytest.mark.parametrize(
    ("given", "inside", "outside"),
    [
        (
            {"from": "2026-12-20T00:00:00Z", "until": "2026-12-27T00:00:00Z"},
            ["2026-12-20T00:00:00Z", "2026-12-26T23:59:59Z", "2026-12-27T08:59:00+09:00"],
            ["2026-12-19T23:59:59Z", "2026-12-27T00:00:00Z"],
        ),
        ({"from": "2026-12-20T00:00:00Z"}, ["2030-01-01T00:00:00Z"], ["2026-12-19T00:00:00Z"]),
        (
            {"weekdays": ["sat", "sun"]},
            ["2026-11-28T00:00:00Z", "2026-11-29T23:59:59.999999Z"],
            ["2026-11-27T23:59:59Z"],
        ),
        ({"hours": ["09:00", "17:00"]}, ["2026-11-27T09:00:00Z"], ["2026-11-27T17:00:00Z", "2026-11-27T08:59:59Z"]),
        # past midnight
        ({"hours": ["22:00", "06:00"]}, ["2026-11-27T23:00:00Z", "2026-11-27T05:59:00Z"], ["2026-11-27T06:00:00Z"]),
        ({"hours": ["18:00", "00:00"]}, ["2026-11-27T23:59:59Z"], ["2026-11-27T00:00:00Z", "2026-11-27T17:00:00Z"]),
        (
            {"weekdays": ["fri"], "hours": ["22:00", "06:00"]},
            ["2026-11-27T22:00:00Z", "2026-11-28T05:00:00Z"],
            ["2026-11-27T05:00:00Z", "2026-11-28T22:00:00Z"],
        ),
        (
            {"weekdays": ["mon"], "hours": ["22:00", "06:00"]},
            ["2026-12-01T05:00:00Z"],
            ["2026-11-30T05:00:00Z", "2026-12-06T05:00:00Z"],
        ),
        # weekdays and hours are those of the place
        (
            {"weekdays": ["sat"], "timezone": "Asia/Seoul"},
            ["2026-11-27T15:00:00Z", "2026-11-28T14:59:59Z"],
            ["2026-11-27T14:59:59Z", "2026-11-28T15:00:00Z"],
        ),
        # Berlin is two hours ahead in summer, one in winter
        (
            {"hours": ["09:00", "10:00"], "timezone": "Europe/Berlin"},
            ["2026-07-01T07:30:00Z", "2026-12-01T08:30:00Z"],
            ["2026-07-01T08:30:00Z", "2026-12-01T07:30:00Z"],
        ),
        # the hour that is there twice counts twice, on 25 October
        (
            {"hours": ["02:00", "03:00"], "timezone": "Europe/Berlin"},
            ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"],
            ["2026-10-24T23:59:00Z", "2026-10-25T02:00:00Z"],
        ),
        # the hour that is left out on 29 March never is, and ends with it
        (
            {"hours": ["01:30", "02:30"], "timezone": "Europe/Berlin"},
            ["2026-03-29T00:45:00Z"],
            ["2026-03-29T01:00:00Z"],
        ),
        # all that is given must hold
        (
            {"from": "2026-11-27T00:00:00Z", "weekdays": ["fri"], "hours": ["12:00", "13:00"]},
            ["2026-11-27T12:30:00Z"],
            ["2026-11-20T12:30:00Z", "2026-11-28T12:30:00Z"],
        ),
    ],
)
def test_when_a_freeze_window_is_in_force(given: dict[str, Any], inside: list[str], outside: list[str]) -> None:
    frozen = window(**given)
    assert [text for text in inside if not frozen.covers(at(text))] == []
    assert [text for text in outside if frozen.covers(at(text))] == []


@settings(deadline=None)
@given(
    st.integers(0, 23),
    st.integers(0, 23),
    st.sampled_from(["Asia/Seoul", "America/New_York", "UTC"]),
    st.timedeltas(timedelta(), timedelta(days=365)),
)
def test_a_moment_is_in_the_window_or_in_the_one_turned_round(
    begin: int, end: int, zone: str, later: timedelta
) -> None:
    if begin != end:
        hours = [f"{begin:02}:00", f"{end:02}:00"]
        here, there = window(hours=hours, timezone=zone), window(hours=hours[::-1], timezone=zone)
        assert here.covers(FRIDAY + later) != there.covers(FRIDAY + later)


def test_what_a_freeze_window_stops() -> None:
    policy = Policy(
        freeze_windows=(window(name="sale", weekdays=["fri"], services=["shop"], allow=["scale_ecs_service"]),)
    )
    assert policy.needs(asked("medium", "scale_ecs_service"), facts()).refused == ()
    assert policy.needs(asked("low", "restart_ecs_task", services=("db",)), facts()).refused == ()
    assert policy.needs(asked("low", "restart_ecs_task"), facts(FRIDAY + timedelta(days=1))).refused == ()
    mixed = asked("medium", "scale_ecs_service", "restart_ecs_task", services=("db", "shop"))
    assert policy.needs(mixed, facts()).refused == ("the freeze window 'sale' (fri UTC) is in force",)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"weekdays": ["fri"], "hours": ["22:00", "06:00"]}, "'w' (fri 22:00 to 06:00 UTC)"),
        ({"until": "2026-12-27T00:00:00Z"}, "'w' (until 2026-12-27 00:00 UTC)"),
        ({"from": "2026-12-27T00:00:00Z"}, "'w'"),
    ],
)
def test_a_freeze_window_says_when_it_is_over(given: dict[str, Any], said: str) -> None:
    assert str(window(**given)) == said


# --- what is asked for ---


def steps(*named: tuple[str, dict[str, Any]]) -> tuple[PlanStep, ...]:
    return tuple(PlanStep(operation=operation, params=params) for operation, params in named)


def test_what_steps_ask_for() -> None:
    planned = steps(
        ("check_ecs_health", {"service": "shop"}),
        ("restart_ecs_task", {"service": "shop"}),
        ("restart_all_services", {"services": ["shop", "db"]}),
    )
    whole = Asked.of(planned, OPERATIONS, "prod")
    assert whole.risk == "high"
    assert whole.operations == ("check_ecs_health", "restart_ecs_task", "restart_all_services")
    assert whole.changing == ("restart_ecs_task", "restart_all_services")
    assert whole.services == ("shop", "shop", "db")  # once for each change
    part = Asked.of(planned[:2], OPERATIONS, "prod")
    assert (part.risk, part.services) == ("low", ("shop",))
    assert Asked.of(planned[:2], OPERATIONS, "prod", "high").risk == "high"
    looks = Asked.of(planned[:1], OPERATIONS, "prod")
    assert (looks.risk, looks.changes, looks.services) == ("none", False, ())


def test_what_is_not_registered_or_has_no_params_asks_for_nothing_that_is_known() -> None:
    odd = Asked.of(steps(("drop_tables", {}), ("restart_ecs_task", {"servce": "shop"})), OPERATIONS, "prod")
    assert (odd.operations, odd.changing, odd.services) == (
        ("drop_tables", "restart_ecs_task"),
        ("restart_ecs_task",),
        (),
    )


# --- the file ---


def test_each_change_of_the_policy_is_another_version_and_order_is_none() -> None:
    one = Policy.model_validate({"approvals": {"low": 1, "high": 2}})
    same = Policy.model_validate({"approvals": {"high": 2, "low": 1}})
    assert one.version == same.version
    others: list[dict[str, Any]] = [
        {"roles": {"low": "admin"}},
        {"approvals": {"low": 2}},
        {"operations": {"x": {"allowed": False}}},
        {"requester_may_approve": False},
        {"freeze_windows": [{"name": "a", "weekdays": ["mon"]}]},
        {"freeze_windows": [{"name": "a", "weekdays": ["tue"]}]},
        {"error_budget": {}},
        {"actions_per_service_hour": 9},
        {"protected_services": ["shop"]},
        {"dry_run_environments": ["staging"]},
        {"undo_when_worse": "ask"},
        {"waiting": {"ttl_minutes": 45}},
    ]
    versions = {Policy.model_validate(other).version for other in others} | {Policy().version, one.version}
    assert len(versions) == len(others) + 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "freeze_windows: [{name: w}]",
            ":2: policy.freeze_windows.0: a freeze window needs from and until, or weekdays",
        ),
        (
            "freeze_windows:\n    - {name: ok, weekdays: [fri]}\n    - {name: w, hours: [9:00, 9:00]}",
            ":4: policy.freeze_windows.1: hours begin and end at the same time; leave them out to mean the whole day",
        ),
        (
            "freeze_windows:\n    - name: w\n      weekdays: [friday]",
            ":4: policy.freeze_windows.0.weekdays.0: Input should be 'mon'",
        ),
        (
            "freeze_windows:\n    - name: w\n      from: 2026-12-20 00:00:00",
            ":4: policy.freeze_windows.0.from: Input should have timezone info",
        ),
        (
            "freeze_windows: [{name: w, hours: ['09:00Z', '10:00Z']}]",
            ":2: policy.freeze_windows.0: hours have no offset",
        ),
        (
            "freeze_windows: [{name: w, weekdays: [fri], timezone: Seoul}]",
            ":2: policy.freeze_windows.0: there is no time zone 'Seoul'; give its name, e.g. Asia/Seoul",
        ),
        (
            "freeze_windows: [{name: w, from: 2026-12-20T00:00:00Z, until: 2026-12-19T00:00:00Z}]",
            ":2: policy.freeze_windows.0: from must lie before until",
        ),
        ("approvals: {high: 0}", ":2: policy.approvals.high: Input should be greater than or equal to 1"),
        ("operations: {restart: {alowed: no}}", ":2: policy.operations.restart.alowed: Extra inputs are not permitted"),
        ("protected_services: [ledgr]", ":2: policy.protected_services: 'ledgr' is not a service of this catalogue."),
        (
            "freeze_windows:\n    - {name: ok, weekdays: [fri]}\n    - {name: w, weekdays: [fri], services: [shop]}",
            ":4: policy.freeze_windows.1.services: 'shop' is not a service of this catalogue.",
        ),
        (
            "{}\noperators:\n  kim: {slack: [U1, U2]}\n  lee: {slack: [U2]}",
            ":5: operators.lee.slack: U2 is kim already. Name each person once.",
        ),
        ("actions_per_hour: 3", ":2: policy.actions_per_hour: Extra inputs are not permitted"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "autopilot.yaml"
    file.write_text(f"policy:\n  {line}\n")
    with pytest.raises(CatalogueError) as error:
        load(file)
    assert said in str(error.value)


@pytest.mark.parametrize("hours", ["[22:00, 06:00]", "['22:00', '06:00']", "[22:00:00, '06:00:00']"])
def test_hours_may_be_written_without_quotes(tmp_path: Path, hours: str) -> None:
    file = tmp_path / "autopilot.yaml"
    file.write_text(f"policy: {{freeze_windows: [{{name: w, hours: {hours}}}]}}\n")
    assert str(load(file).policy.freeze_windows[0]) == "'w' (22:00 to 06:00 UTC)"


def test_the_example_of_the_readme_loads_and_names_every_setting() -> None:
    loaded = load(EXAMPLE)
    policy = EXAMPLE.read_text()[EXAMPLE.read_text().index("policy:") :]
    assert f"```yaml\n{policy}```" in README.read_text()
    assert loaded.policy.model_fields_set == set(Policy.model_fields)
    assert set(loaded.policy.operations) <= set(OPERATIONS)
    assert loaded.operators["kim"].slack == ("U024BE7LH",)
    assert AutopilotYaml().policy == Policy()
    assert [loaded.policy.role_for(risk) for risk in RISKS] == ["responder", "responder", "responder", "admin"]
    eve = at("2026-11-27T23:30:00+09:00")
    refused = loaded.policy.needs(asked("low", "restart_ecs_task", services=("checkout",)), facts(eve)).refused
    assert refused == ("the freeze window 'nights before the weekend' (fri 22:00 to 06:00 Asia/Seoul) is in force",)


def test_the_readmes_teams_fit_its_catalogue(tmp_path: Path) -> None:
    file = tmp_path / "autopilot.yaml"
    file.write_text(f"{_yaml_after('2. **Catalogue.**')}{_yaml_after('### Who hears of it')}")
    loaded = load(file)
    assert loaded.services["payment-service"].owner in loaded.teams
    named = set().union(*(team.model_fields_set for team in loaded.teams.values()))
    assert named == set(Team.model_fields)
    messages = Messages(default_team="platform", default_channel="#incidents")
    routes = Routes(loaded.catalogue(), messages, ("slack", "jira", "pagerduty"))
    decided = Happened("decision", {"choice": "manual"}, "payment-service", "critical", "en")
    told = {(hearer.notifier, hearer.target) for hearer in routes.hearers(decided)}
    assert told == {("slack", "C024BE91L"), ("jira", "payments"), ("pagerduty", "payments")}


def _yaml_after(heading: str) -> str:
    """The first block of it in the README below that."""
    _, _, below = README.read_text().partition(heading)
    return dedent(below.partition("```yaml\n")[2].partition("```")[0])
