"""What is seen of each step before a person is asked, with operations that answer as they are told."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from executors.base import (
    AnyOperation,
    Capacity,
    Change,
    ExecutorError,
    Model,
    Operation,
    PreflightCheck,
    Refused,
    Risk,
    State,
)
from graph.blast_radius import Surroundings
from graph.catalogue import Catalogue
from graph.deps import NoFacts
from graph.observed_load import ObservedLoad, Utilisation
from graph.policy import Facts, Policy
from graph.preflight import feasible, preflight
from graph.state import ActionOption, PlanStep
from tests.graph.sources import NOON, deps


class Knob(Model):
    """Which service's, and how far."""

    service: str
    to: int = 1


@dataclass
class Turn(Operation[Knob]):
    """Turns a service's knob."""

    fails: Mapping[str, Exception] = field(default_factory=dict)
    slow: Mapping[str, float] = field(default_factory=dict)
    checks: Sequence[PreflightCheck] = ()
    left: Capacity | None = None
    inspected: list[str] = field(default_factory=list)

    name = "turn"
    summary = "Turn the knob"
    risk: ClassVar[Risk] = "medium"
    reversible = True
    params = Knob

    async def _reached(self, what: str) -> None:
        await asyncio.sleep(self.slow.get(what, 0.0))
        self._maybe_fail(what)

    def _maybe_fail(self, what: str) -> None:
        if what in self.fails:
            raise self.fails[what]

    def resource(self, params: Knob) -> str:
        """One knob a service."""
        self._maybe_fail("resource")
        return f"knob:{params.service}"

    async def inspect(self, params: Knob) -> State:
        """Where it stands."""
        self.inspected.append(params.service)
        await self._reached("inspect")
        return {"knob": 0, "heat": 20}

    def preview(self, params: Knob, before: State) -> str:
        """From where to where."""
        self._maybe_fail("preview")
        return f"{params.service}: {before['knob']} -> {params.to}"

    def pinned(self, params: Knob, before: State) -> State:
        """Heat moves by itself."""
        return {"knob": before["knob"]}

    def changes(self, params: Knob, before: State) -> tuple[Change, ...]:
        """One line."""
        return (Change(what="knob", before=str(before["knob"]), after=str(params.to)),)

    async def preflight(self, params: Knob, before: State) -> tuple[PreflightCheck, ...]:
        """As told."""
        await self._reached("preflight")
        return tuple(self.checks)

    def capacity(self, params: Knob, before: State) -> Capacity | None:
        """As told."""
        return self.left


class Push(Turn):
    """On the same knob, and cannot be taken back."""

    name = "push"
    reversible = False


class Look(Turn):
    """Changes nothing."""

    name = "look"
    risk = "none"
    read_only = True
    reversible = False


def option(*steps: tuple[str, dict[str, Any]], **others: Any) -> ActionOption:
    planned = tuple(PlanStep(operation=operation, params=params) for operation, params in steps)
    return ActionOption(title="t", description="d", risk="low", minutes=1, steps=planned, **others)


SHOP: dict[str, Any] = {"service": "shop"}


async def checked(
    *options: ActionOption,
    operations: Sequence[AnyOperation] = (Turn(),),
    load: ObservedLoad | None = None,
    within_s: float = 8.0,
    **others: Any,
) -> list[ActionOption]:
    given = deps([], catalogue=Catalogue(environment="prod"), operations={o.name: o for o in operations}, **others)
    around = Surroundings(load=load or ObservedLoad())
    return await preflight(given, options, "i", around, within_s=within_s)


def statuses(step: PlanStep) -> dict[str, str]:
    return {check.name: check.status for check in step.checks}


async def test_a_step_that_can_run_is_shown_with_all_that_was_seen() -> None:
    quota = PreflightCheck(name="quota", status="ok", detail="2 of 10")
    [shown] = await checked(option(("turn", SHOP)), operations=[Turn(checks=[quota])])
    [step] = shown.steps
    assert (step.preview, step.infeasible, step.pinned) == ("shop: 0 -> 1", "", {"knob": 0, "target": "knob:shop"})
    assert step.changes == (Change(what="knob", before="0", after="1"),)
    assert [(c.name, c.status, c.detail) for c in step.checks] == [
        ("catalogue", "ok", "knob:shop"),
        ("state", "ok", ""),
        ("quota", "ok", "2 of 10"),
        ("policy", "ok", "takes the role responder"),
    ]
    assert shown.blast_radius is not None
    assert [s.service for s in shown.blast_radius.services] == ["shop"]
    assert feasible(shown)


async def test_what_a_target_says_of_its_state_is_said_instead() -> None:
    told = PreflightCheck(name="state", status="warning", detail="half open")
    [shown] = await checked(option(("turn", SHOP)), operations=[Turn(checks=[told])])
    assert [c for c in shown.steps[0].checks if c.name == "state"] == [told]


@pytest.mark.parametrize(
    ("operation", "params", "failed", "why"),
    [
        (Turn(), {"servce": "x"}, "catalogue", "turn: Field required"),
        (Turn(fails={"resource": Refused("shop is not in the catalogue")}), SHOP, "catalogue", "shop is not in the"),
        (Turn(fails={"inspect": ExecutorError("AWS said no")}), SHOP, "state", "AWS said no"),
        (Turn(fails={"preview": Refused("a deployment is under way")}), SHOP, "state", "a deployment is under way"),
        (Turn(fails={"preview": KeyError("knob")}), SHOP, "state", "Report this defect of turn"),
        (
            Turn(checks=[PreflightCheck(name="gitops", status="failed", detail="Argo CD would turn it back")]),
            SHOP,
            "gitops",
            "Argo CD would turn it back",
        ),
    ],
)
async def test_what_cannot_run_says_why(operation: Turn, params: dict[str, Any], failed: str, why: str) -> None:
    [shown] = await checked(option(("turn", params)), operations=[operation])
    [step] = shown.steps
    assert statuses(step)[failed] == "failed"
    assert why in step.infeasible
    assert not feasible(shown)


async def test_an_operation_that_is_not_registered_cannot_run() -> None:
    [shown] = await checked(option(("drop_tables", {})))
    assert shown.steps[0].infeasible == "drop_tables is not an operation of this installation"


async def test_a_warning_stops_nobody() -> None:
    warning = PreflightCheck(name="scaling", status="warning", detail="a policy sets it back within minutes")
    [shown] = await checked(option(("turn", SHOP)), operations=[Turn(checks=[warning])])
    assert feasible(shown)
    assert warning in shown.steps[0].checks


async def test_steps_on_what_an_earlier_step_changes_are_bound_to_nothing() -> None:
    turn, push, look = Turn(), Push(), Look()
    [shown] = await checked(
        option(("look", SHOP), ("turn", SHOP), ("push", SHOP), ("turn", {"service": "db"}), ("look", SHOP)),
        operations=[turn, push, look],
    )
    assert [step.preview for step in shown.steps] == [
        "shop: 0 -> 1",
        "shop: 0 -> 1",
        "Turn the knob, on what the step before left",
        "db: 0 -> 1",
        "Turn the knob, on what the step before left",
    ]
    assert [bool(step.pinned) for step in shown.steps] == [True, True, False, True, False]
    assert statuses(shown.steps[2])["state"] == "skipped"
    assert push.inspected == []
    assert feasible(shown)
    assert shown.blast_radius is not None
    assert shown.blast_radius.reversible == "partly"


async def test_an_operation_on_several_resources_follows_a_change_of_any_of_them() -> None:
    class Both(Turn):
        name = "both"

        def resource(self, params: Knob) -> str:
            return "knob:cart,knob:shop"

    both = Both()
    [shown] = await checked(option(("turn", SHOP), ("both", SHOP)), operations=[Turn(), both])
    assert both.inspected == []
    assert shown.steps[1].pinned == {}


async def test_what_several_options_would_do_is_looked_at_once() -> None:
    turn = Turn()
    shown = await checked(option(("turn", SHOP)), option(("turn", {"service": "shop", "to": 1})), operations=[turn])
    assert turn.inspected == ["shop"]
    assert shown[0].steps[0].preview == shown[1].steps[0].preview


async def test_a_target_that_does_not_answer_keeps_no_other_waiting() -> None:
    hangs, slow, quick = Turn(slow={"inspect": 60.0}), Push(slow={"preflight": 60.0}), Look()
    shown = await checked(
        option(("turn", SHOP)),
        option(("push", SHOP)),
        option(("look", SHOP)),
        operations=[hangs, slow, quick],
        within_s=0.05,
    )
    assert "knob:shop gave no answer within 0.05 s; choose re_plan to look again" in shown[0].steps[0].infeasible
    assert feasible(shown[1])
    assert statuses(shown[1].steps[0])["permission"] == "skipped"
    assert shown[1].steps[0].pinned == {"knob": 0, "target": "knob:shop"}
    assert feasible(shown[2])


async def test_a_defect_of_an_operations_own_checks_stops_nobody() -> None:
    [shown] = await checked(option(("turn", SHOP)), operations=[Turn(fails={"preflight": ValueError("oops")})])
    [check] = [c for c in shown.steps[0].checks if c.name == "permission"]
    assert (check.status, feasible(shown)) == ("skipped", True)
    assert "ValueError: oops" in check.detail


async def test_what_is_left_is_told_at_the_step_that_takes_it() -> None:
    takes = Turn(left=Capacity(service="shop", servers_now=4, servers_then=2))
    load = ObservedLoad(utilisation={"shop": Utilisation(0.65, "cpu")})
    [shown] = await checked(option(("look", SHOP), ("turn", SHOP)), operations=[Look(), takes], load=load)
    assert "capacity" not in statuses(shown.steps[0])
    [check] = [c for c in shown.steps[1].checks if c.name == "capacity"]
    assert (check.status, check.detail) == (
        "warning",
        "shop: would leave 2 of 4 instances for 130 % of what they can serve",
    )
    assert feasible(shown)


# --- the policy ---


class Known(NoFacts):
    """Facts as told; keeps what it was asked."""

    def __init__(self, **facts: Any) -> None:
        self.facts = Facts.model_validate({"now": NOON, **facts})
        self.asked: list[tuple[tuple[str, ...], str]] = []

    async def at_present(self, services: Sequence[str], *, incident_id: str = "") -> Facts:
        """As told."""
        self.asked.append((tuple(services), incident_id))
        return self.facts


async def test_the_policy_is_asked_for_the_whole_option_and_for_each_step() -> None:
    policy = Policy.model_validate({"operations": {"push": {"role": "admin", "approvals": 2}}})
    known = Known()
    [shown] = await checked(
        option(("turn", SHOP), ("push", {"service": "db"})), operations=[Turn(), Push()], policy=policy, facts=known
    )
    assert (shown.needs.role, shown.needs.approvals, shown.needs.why) == ("admin", 2, ("the policy for push",))
    assert [step.checks[-1].detail for step in shown.steps] == [
        "takes the role responder",
        "takes the role admin, by 2 people",
    ]
    assert known.asked == [(("db", "shop"), "i")]


async def test_what_may_never_run_is_infeasible_and_what_may_not_run_now_is_a_warning() -> None:
    policy = Policy.model_validate({"operations": {"push": {"allowed": False}}, "protected_services": ["ledger"]})
    frozen = Known(frozen="Kim pulled the kill switch at 12:00")
    shown = await checked(
        option(("push", SHOP)),
        option(("turn", {"service": "ledger"})),
        option(("turn", SHOP)),
        operations=[Turn(), Push()],
        policy=policy,
        facts=frozen,
    )
    assert [step.infeasible for o in shown for step in o.steps] == [
        "the policy does not allow push (policy.operations)",
        "ledger is protected: the policy lets nobody change it from here",
        "",
    ]
    assert shown[2].needs.refused == ("Kim pulled the kill switch at 12:00",)
    assert statuses(shown[2].steps[0])["policy"] == "warning"


async def test_a_dry_run_environment_is_told() -> None:
    [shown] = await checked(option(("turn", SHOP)), policy=Policy(dry_run_environments=("prod",)))
    assert shown.needs.dry_run
    assert shown.steps[0].checks[-1].detail == "prod is dry-run only: it is told, and nothing is changed"


async def test_an_option_takes_what_the_riskiest_of_its_operations_takes() -> None:
    class Blast(Turn):
        name = "blast"
        risk = "high"

    [shown] = await checked(option(("blast", SHOP)), operations=[Blast()])
    assert shown.risk == "low"  # as its analyst says
    assert (shown.needs.role, shown.needs.approvals) == ("admin", 2)
