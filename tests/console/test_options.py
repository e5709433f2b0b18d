"""What an option card and a result say beyond their titles, drawn from made-up plans."""

from collections.abc import Mapping
from typing import get_args

import pytest
from pydantic import BaseModel

from app.console import actions
from app.console.deciding import would_put_back
from app.console.results import results
from app.console.switch import banner
from app.console.texts import ENGLISH, KOREAN
from app.decision_checks import Admissible
from app.desk import Reason
from app.report import DecisionMade
from executors.base import Change, Operation, PreflightCheck, State
from graph.state import (
    AffectedService,
    BlastRadius,
    CapacityEstimate,
    Execution,
    Needs,
    PlanStep,
    StepResult,
    Verification,
)
from tests.console.test_blocks import AT, EVIL, asked, offers, option, report, shown, verdict

OK = PreflightCheck(name="permission", status="ok", detail="ecs:UpdateService")
WARNING = PreflightCheck(name="scaling", status="warning", detail="a policy would undo it")


def step(words: str = "8", *checks: PreflightCheck) -> PlanStep:
    change = Change(what="desired tasks", before="4", after=words)
    return PlanStep(operation="scale", params={"to": words}, preview=words, changes=(change,), checks=checks)


def card(*steps: PlanStep, **changes: object) -> str:
    """Of one option."""
    one = option("Scale out").model_copy(update={"steps": steps or (step(),), **changes})
    return actions.options(report(options=(one,)), offers(), ENGLISH)


RADIUS = BlastRadius(
    services=(
        AffectedService(service="pay", how="changed"),
        AffectedService(service="checkout", how="caller", hops=1),
        AffectedService(service="web", how="caller", hops=2),
    ),
    request_share=0.254,
    capacity=(
        CapacityEstimate(
            service="pay", servers_now=3, servers_then=2, utilisation_now=0.7, utilisation_then=1.05, basis="cpu"
        ),
    ),
    reversible="partly",
)


def test_a_step_shows_before_and_after_and_its_doubts() -> None:
    words = shown(card(step("8", OK, WARNING)))
    assert "before after desired tasks 4 8" in words
    assert "Pre-flight checks: 1 of 2 passed ok permissions ecs:UpdateService" in words
    assert "warning scaling policies a policy would undo it" in words
    folded = card(step("8", OK, WARNING)).partition("</details>")[0]
    assert "ecs:UpdateService" in folded
    assert "a policy would undo it" not in folded
    assert "all 1 passed" in shown(card(step("8", OK)))


def test_the_blast_radius_says_who_feels_it_and_what_is_left() -> None:
    words = shown(card(blast_radius=RADIUS))
    assert "only part of it can be put back changed pay callers checkout (1 call away), web (2 calls away)" in words
    assert "25% of the requests" in words
    assert "pay 3 → 2 70% → 105%" in words
    assert 'class="meter full"' in card(blast_radius=RADIUS)
    unknown = BlastRadius(capacity=(CapacityEstimate(service="pay", servers_now=3, servers_then=2),))
    assert "not measured" in shown(card(blast_radius=unknown))
    assert "pay 3 → 2 - → - -" in shown(card(blast_radius=unknown))


def test_what_the_policy_asks_for_and_who_approved_already() -> None:
    needs = Needs(role="admin", approvals=2, not_by="bob", why=("high risk",))
    one = option("Fail over").model_copy(update={"needs": needs})
    waiting = {"by": "kim", "role": "admin", "via": "slack", "at": AT, "choice": "1", "steps": (2,)}
    words = shown(actions.options(report(options=(one,)), offers(approvals=(waiting,)), ENGLISH))
    assert "Approval takes: admin · 2 different people · not by bob (high risk)" in words
    assert "kim approved (Slack, 2024-12-20 09:15:00 ), only step 2: 1 more person must approve the same" in words


def test_why_an_option_cannot_be_chosen_now_is_said_but_not_to_those_who_only_look() -> None:
    refused = {"choice": "1", "refused": {"reason": "frozen", "detail": "kim froze all actions"}}
    words = shown(actions.options(report(), offers(offers=(refused,)), ENGLISH))
    assert "All actions are stopped; nothing was run. kim froze all actions" in words
    viewer = {"choice": "1", "refused": {"reason": "not_allowed", "detail": "vera is viewer"}}
    assert "vera is viewer" not in shown(actions.options(report(), offers(offers=(viewer,)), ENGLISH))


def test_the_confirmation_names_the_chosen_steps_and_what_is_left_out() -> None:
    two = option("Scale").model_copy(update={"steps": (step("8"), step("9"))})
    part = actions.confirmation(report(options=(two,)), verdict("1", steps=(2,)), asked(), ENGLISH)
    assert '<li value="2">' in part
    words = shown(part)
    assert "1 (only step 2). Scale" in words
    assert "desired tasks 4 9 Not run 1. scale to =8" in words


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (asked(missing=1), "Nothing is run yet: 1 more person must approve the same."),
        (asked(needs=Needs(dry_run=True), approved=(object(),)), "dry run only"),
        (asked(), ""),
    ],
)
def test_the_confirmation_says_what_comes_of_a_yes(state: Admissible, said: str) -> None:
    words = shown(actions.confirmation(report(), verdict("1"), state, ENGLISH))
    assert said in words
    assert ("yet" in words, "dry run" in words) == ("yet" in said, "dry run" in said)


def done(status: str, **more: object) -> Execution:
    result = {"ordinal": 1, "operation": "restart", "status": status}
    checked = Verification(verdict="improved", credit="by_itself", control=EVIL)
    execution = Execution(
        plan_revision="abc",
        choice="1",
        title="t",
        results=(StepResult.model_validate(result),),
        verification=checked,
    )
    return execution.model_copy(update=more)


def test_results_say_what_to_do_about_what_nobody_knows_and_whose_merit_it_was() -> None:
    words = shown(results(report(executions=(done("unknown"),)), [], [], ENGLISH))
    assert "Look at the target yourself, then choose re_plan" in words
    assert "Was it the remedy? it recovered by itself Compared with: <script>" in words
    assert "Nothing was changed." in shown(results(report(executions=(done("dry_run"),)), [], [], ENGLISH))
    assert "Look at the target" not in shown(results(report(executions=(done("succeeded"),)), [], [], ENGLISH))


def test_what_could_not_be_put_back_says_what_to_do() -> None:
    left = StepResult(ordinal=1, operation="restart", status="failed", detail="denied")
    undone = done("succeeded", choice="undo", undone=(left,), results=(), undoes="the-plan")
    words = shown(results(report(executions=(undone,)), [], [], ENGLISH))
    assert "puts back what plan the-plan changed" in words
    assert "Put it back by hand" in words
    assert "Verdict" not in words


class Turn(BaseModel):
    to: int


class TurnBack(Operation[Turn]):
    """Can be put back, if its state is known."""

    name, reversible, params = "turn", True, Turn

    def changes(self, params: Turn, before: State) -> tuple[Change, ...]:
        return (Change(what="dial", before=str(before["at"]), after=str(params.to)),)


def test_undo_is_confirmed_from_what_it_is_to_what_it_was() -> None:
    turned = StepResult(ordinal=1, operation="turn", params={"to": 8}, status="succeeded", made=True, before={"at": 4})
    older = turned.model_copy(update={"ordinal": 2, "before": {}})
    left = list(would_put_back({"turn": TurnBack()}, [done("succeeded", results=(turned, older))]))
    assert [(c.before, c.after) for one in left for c in one.changes] == [("8", "4")]
    words = shown(actions.confirmation(report(), verdict("undo"), asked(), ENGLISH, put_back=left))
    assert "These steps are put back, in this order: turn to =8 turn to =8 before after dial 8 4" in words


def test_steps_that_were_not_approved_do_not_wait() -> None:
    two = option("Scale").model_copy(update={"steps": (step("8"), step("9"))})
    made = DecisionMade(plan_revision="abc", choice="1", steps=(2,), by="kim", at=AT)
    words = shown(results(report(status="executing", options=(two,), decisions=(made,)), [], [], ENGLISH))
    assert "skipped 1. scale to =8 not approved" in words
    assert "waiting 2." in words
    taken_back = made.model_copy(update={"withdrawn_by": "kim"})
    assert results(report(status="executing", options=(two,), decisions=(taken_back,)), [], [], ENGLISH) == ""


def test_the_banner_says_who_when_why_and_what_ends_it() -> None:
    row = {"pulled_by": EVIL, "pulled_at": AT, "reason": EVIL}
    assert "2024-12-20 09:15:00 UTC: <script>" in shown(banner(row, KOREAN))
    assert "autopilot thaw" in shown(banner(row, ENGLISH))
    assert banner(None, ENGLISH) == ""


@pytest.mark.parametrize("texts", [ENGLISH, KOREAN])
def test_every_refusal_has_a_headline(texts: Mapping[str, str]) -> None:
    assert [reason for reason in get_args(Reason) if f"refused_{reason}" not in texts] == []
