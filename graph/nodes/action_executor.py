"""ActionExecutor: runs the approved steps through the ledger, measures, and undoes what made things worse."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from pydantic import BaseModel, JsonValue, ValidationError

from executors.base import AnyOperation, ExecutorError, Outcome, OutcomeUnknown, PartlyDone, Probe, Refused
from executors.base import State as TargetState
from graph.aftermath import left_in_place, look_again, may_be_in_place, reversible
from graph.deps import Claim, ClaimedStep, Deps, ResourceBusy, StepKey
from graph.drift import drift, pins
from graph.nodes.remediation_decision import StaleDecision
from graph.progress import report
from graph.state import ActionOption, Execution, PlanStep, State, StepResult, Verification
from graph.watch import OK, Watch

NODE = "ActionExecutor"
NOT_APPROVED = "not approved"
BEGUN = Verification(
    verdict="worse",
    detail="It got worse, and a process died while it put that back; what it had measured is in the timeline.",
)


async def action_executor(deps: Deps, state: State) -> dict[str, Any]:
    """Writes ``executions``. Runs again from its first line after a crash: the ledger knows what was done."""
    run = _Run(deps, state)
    execution = await (run.put_back() if state["decision"].choice == "undo" else run.carry_out())
    undone = _how_undone(execution.undone)
    report(
        NODE,
        "verdict",
        f"verdict:{execution.plan_revision}",
        f"{execution.title}: {execution.verification.verdict.replace('_', ' ')}" + (f", {undone}" if undone else ""),
        {"verdict": execution.verification.verdict, "undone": undone == "undone"},
    )
    return {"executions": (*state.get("executions", ()), execution)}


class _Run:
    """One decision being carried out."""

    def __init__(self, deps: Deps, state: State) -> None:
        self.deps, self.state = deps, state
        self.incident_id, self.plan, self.decision = state["incident_id"], state["plan"], state["decision"]
        self.revision = self.plan.revision

    async def carry_out(self) -> Execution:
        """The chosen option: its approved steps, the verdict, and the way back where it got worse."""
        self._must_be_the_approved_plan()
        option = self.plan.options[int(self.decision.choice) - 1]
        undone: tuple[StepResult, ...] = ()
        if self._dry_run_only():
            results = self._rehearsed(option)
            verification = Verification(verdict="not_measurable", detail="Dry run: nothing was changed.")
        else:
            results = await self.steps(option)
            begun = await self._begun_undoing(results)
            verification = BEGUN if begun else await Watch(self.deps, self.state, self.revision).verify(option, results)
            results = await self._resolved(results)
            verification, undone = await self._undo_if_worse(verification, results, begun)
        return Execution(
            plan_revision=self.revision,
            choice=self.decision.choice,
            title=option.title,
            results=results,
            verification=verification,
            undone=undone,
        )

    def _must_be_the_approved_plan(self) -> None:
        """It was when the decision came in; checkpoints are rows of a database. Raises StaleDecision."""
        if self.decision.plan_digest and not (self.plan.intact and self.plan.digest == self.decision.plan_digest):
            raise StaleDecision(f"plan {self.revision} is not the approved one: its checkpoint was changed")

    # --- dry run ---

    def _dry_run_only(self) -> bool:
        """As the policy has it for the catalogue's environment; what an alert says of its own may only add to that."""
        environments = {self.state["alert"].environment, self.deps.catalogue.environment}
        return any(map(self.deps.policy.dry_run_only, environments))

    def _rehearsed(self, option: ActionOption) -> tuple[StepResult, ...]:
        """What the plan says each approved step would do; nothing is called, not even to read."""
        results = [
            self._result(ordinal, step, "dry_run", step.infeasible or step.preview or step.summary)
            if self._approved(ordinal)
            else self._result(ordinal, step, "skipped", NOT_APPROVED)
            for ordinal, step in enumerate(option.steps, 1)
        ]
        for result in results:
            self._tell_finished(result)
        return tuple(results)

    # --- steps ---

    async def steps(self, option: ActionOption) -> tuple[StepResult, ...]:
        """In order; the first that does not succeed stops the rest, which are named as skipped."""
        results: list[StepResult] = []
        stopped = False
        for ordinal, step in enumerate(option.steps, 1):
            if not self._approved(ordinal):
                results.append(self._result(ordinal, step, "skipped", NOT_APPROVED))
                continue
            if stopped:
                results.append(self._result(ordinal, step, "skipped", "an earlier step did not succeed"))
                continue
            self._tell("step_started", ordinal, step.operation, f"{step.operation}: running")
            result = await self._step(ordinal, step)
            self._tell_finished(result)
            stopped = result.status not in OK
            results.append(result)
        return tuple(results)

    def _approved(self, ordinal: int) -> bool:
        return not self.decision.steps or ordinal in self.decision.steps

    async def _step(self, ordinal: int, step: PlanStep) -> StepResult:
        claimed = await self.deps.ledger.find(self._key(ordinal))
        if claimed and claimed.result:
            return claimed.result
        try:
            operation, params = self._operation(step)
            claimed = claimed or await self._claim(ordinal, operation, step, params)
        except (ExecutorError, ResourceBusy) as error:
            if claimed:
                return await self._left_behind(claimed, ordinal, step, str(error))
            return await self._refused(ordinal, step, str(error))
        try:
            result = await self._carry_out(ordinal, operation, step, params, claimed)
        except _TakenOver as error:  # its row is not ours to finish
            return self._result(ordinal, step, "unknown", str(error), before=claimed.before)
        return await self._finish(claimed, result)

    def _operation(self, step: PlanStep) -> tuple[AnyOperation, BaseModel]:
        """Raises Refused: a plan may be older than the settings of the process that carries it out."""
        operation = self.deps.operations.get(step.operation)
        if operation is None:
            raise Refused(f"{step.operation} is not turned on here; see AUTOPILOT_EXECUTORS")
        try:
            return operation, operation.params.model_validate(step.params)
        except ValidationError as error:
            said = error.errors()[0]["msg"]
            raise Refused(f"{step.operation} does not take these parameters any more: {said}") from error

    async def _refused(self, ordinal: int, step: PlanStep, why: str) -> StepResult:
        """Written into the ledger too: after a crash the step must not run after all."""
        now = self.deps.clock.now()
        result = self._result(ordinal, step, "failed", why).model_copy(update={"finished_at": now})
        claim = Claim(self._key(ordinal), step.operation, step.params, resource="", before={}, at=now)
        return await self.deps.ledger.refuse(claim, result)

    async def _left_behind(self, claimed: ClaimedStep, ordinal: int, step: PlanStep, why: str) -> StepResult:
        """A dead process claimed it, and this one cannot even look: its resource is freed all the same."""
        detail = f"a process died between claim and result, and nobody here can tell whether it was made: {why}"
        return await self._finish(claimed, self._result(ordinal, step, "unknown", detail, before=claimed.before))

    async def _claim(
        self,
        ordinal: int,
        operation: AnyOperation,
        step: PlanStep,
        params: BaseModel,
        back_to: TargetState | None = None,
    ) -> ClaimedStep:
        """Claim, waiting a while for a resource that another action holds. ``back_to``: it is the step's undo.

        The state is read anew for each attempt: while we wait, the other action changes it.
        Raises ResourceBusy, ExecutorError.
        """
        clock, undo = self.deps.clock, back_to is not None
        give_up = clock.now() + timedelta(seconds=self.deps.patience.busy_s)
        changes = not (operation.read_only or operation.dry_run)
        resource = operation.resource(params)
        while True:
            before = await self._as_approved(operation, step, params) if back_to is None else back_to
            try:
                return await self.deps.ledger.claim(
                    Claim(
                        key=self._key(ordinal, undo=undo),
                        operation=operation.name,
                        params=step.params,
                        resource=resource if changes else "",
                        before=before,
                        at=clock.now(),
                        services=operation.services(params) if changes and not undo else (),
                        choice=self.decision.choice,
                        plan_digest=self.decision.plan_digest,
                    )
                )
            except ResourceBusy:
                if clock.now() >= give_up:
                    raise
                await clock.sleep(self.deps.patience.poll_s)

    async def _as_approved(self, operation: AnyOperation, step: PlanStep, params: BaseModel) -> TargetState:
        """The present state, if it is still the one that was approved. Raises ExecutorError."""
        if self.plan.policy_version and self.plan.policy_version != self.deps.policy.version:
            raise Refused("the policy was changed since this was approved: decide on the new plan")
        before = await operation.inspect(params)
        if step.pinned and (changed := drift(step.pinned, pins(operation, params, before))):
            raise Refused(f"changed since it was approved: {changed}; decide on the new plan")
        operation.preview(params, before)  # refuses what must not run now
        return before

    def _key(self, ordinal: int, *, undo: bool = False) -> StepKey:
        return StepKey(self.incident_id, self.revision, ordinal, undo)

    async def _finish(self, claimed: ClaimedStep, result: StepResult) -> StepResult:
        result = result.model_copy(update={"claimed_at": claimed.claimed_at, "finished_at": self.deps.clock.now()})
        await self.deps.ledger.finish(claimed.step_id, result)
        return result

    async def _carry_out(
        self, ordinal: int, operation: AnyOperation, step: PlanStep, params: BaseModel, claimed: ClaimedStep
    ) -> StepResult:
        """The one attempt, or after a crash the probe that tells whether it was made. Raises _TakenOver."""
        before = claimed.before
        outcome = Outcome()
        try:
            if await self._must_call(operation, params, claimed):
                outcome = await self._call(operation, params, before)
        except _TakenOver:
            raise
        except _CannotTell as error:
            return self._result(ordinal, step, "unknown", str(error), before=before)
        except PartlyDone as error:
            return self._result(ordinal, step, "failed", str(error), before=before, made=True)
        except ExecutorError as error:
            return self._result(ordinal, step, "failed", str(error), before=before)
        except Exception as error:  # noqa: BLE001  a fault of the operation's code: the change may be half made
            return self._result(ordinal, step, "unknown", f"{type(error).__name__}: {error}", before=before)
        made = not (operation.read_only or operation.dry_run)
        status, detail, after = "dry_run" if operation.dry_run else "succeeded", outcome.detail, None
        try:
            after = await operation.settle(params, before)
        except ExecutorError as error:
            status, detail = "failed", f"{error} (the change was made)" if made else str(error)
        return self._result(
            ordinal, step, status, detail, before=before, after=after, request_ids=outcome.request_ids, made=made
        )

    async def _call(self, operation: AnyOperation, params: BaseModel, before: TargetState) -> Outcome:
        """Raises ExecutorError if nothing was done, _CannotTell if that is not known."""
        try:
            return await operation.execute(params, before)
        except OutcomeUnknown as error:
            if await self._probe(operation, params, before) != "done":
                raise _CannotTell(str(error)) from error
            return Outcome(detail=f"{error}; read back: it was done")

    async def _must_call(self, operation: AnyOperation, params: BaseModel, claimed: ClaimedStep) -> bool:
        """Raises ExecutorError, _CannotTell."""
        if claimed.fresh:
            return True
        probe = await self._probe(operation, params, claimed.before)
        if probe == "not_done" and not operation.read_only:
            await self._outlive_the_call(claimed)
            probe = await self._probe(operation, params, claimed.before)
        if probe == "unknown":
            raise _CannotTell(
                "a process died between claim and result, and the present state does not tell"
                " whether the call was made: look at it before you decide again"
            )
        if probe == "not_done":
            await self._retake(claimed)
        return probe == "not_done"

    async def _outlive_the_call(self, claimed: ClaimedStep) -> None:
        """The dead process's call may still be under way; what is read only after its longest time is final."""
        await asyncio.sleep(max(0.0, self.deps.patience.call_s - claimed.age_s))

    async def _retake(self, claimed: ClaimedStep) -> None:
        """Raises Refused, _TakenOver."""
        if not await self.deps.ledger.retake(claimed):
            raise _TakenOver("another process has taken this step over")

    async def _probe(self, operation: AnyOperation, params: BaseModel, before: TargetState) -> Probe:
        try:
            return await operation.probe(params, before)
        except ExecutorError as error:
            raise _CannotTell(f"whether it was done could not be read: {error}") from error

    # --- what was unknown ---

    async def _resolved(self, results: tuple[StepResult, ...]) -> tuple[StepResult, ...]:
        """Steps whose end was unknown are looked at once more: by now the call has ended, and taken hold or not."""
        return tuple([await self._looked_at_again(r) if r.status == "unknown" else r for r in results])

    async def _looked_at_again(self, result: StepResult) -> StepResult:
        claimed = await self.deps.ledger.find(self._key(result.ordinal))
        if claimed is None or claimed.result is None:
            return result  # another process has it
        if claimed.result.status != "unknown":
            return claimed.result
        probe = await look_again(self.deps.operations, result)
        if probe == "unknown":
            return result
        made = probe == "done"
        known = result.model_copy(
            update={
                "status": "succeeded" if made else "failed",
                "made": made,
                "detail": f"{result.detail}; looked at again: it was {'made' if made else 'not made'}",
                "finished_at": self.deps.clock.now(),
            }
        )
        await self.deps.ledger.finish(claimed.step_id, known)
        self._tell("step_resolved", result.ordinal, result.operation, f"{result.operation}: {known.detail}")
        return known

    # --- undo ---

    async def _begun_undoing(self, results: Sequence[StepResult]) -> frozenset[int]:
        """The ordinals that a process before us began to put back, or did: it had found that things got worse.

        Measured again, they may be better already, because of just that.
        """
        ordinals = [r.ordinal for r in results]
        return frozenset([n for n in ordinals if await self.deps.ledger.find(self._key(n, undo=True))])

    async def _undo_if_worse(
        self, verification: Verification, results: Sequence[StepResult], begun: frozenset[int]
    ) -> tuple[Verification, tuple[StepResult, ...]]:
        """The verdict told to its end, and what was put back."""
        if verification.verdict != "worse":
            return verification, ()
        in_place = [r for r in reversed(results) if may_be_in_place(r) or r.ordinal in begun]
        mine = [r for r in in_place if reversible(self.deps.operations, r) or r.ordinal in begun]
        if mine and not begun and self.deps.policy.undo_when_worse == "ask":
            names = ", ".join(r.operation for r in mine)
            said = f"Not undone: the policy asks a person first. Choose undo to put back {names}."
            return _with(verification, said), ()
        undone = tuple([await self._undo_step(r, self.revision) for r in mine])
        stays = [f"{r.operation} cannot be undone" for r in in_place if r not in mine]
        return _with(verification, "; ".join([*(_not_undone(undone)), *stays])), undone

    async def put_back(self) -> Execution:
        """What the last execution left in place, last first; measures nothing."""
        left = left_in_place(self.state.get("executions", ()), self.deps.operations)
        undone: tuple[StepResult, ...] = ()
        if left is None:
            said = "There is nothing in place that could be put back."
        elif self._dry_run_only():
            said = "Dry run: nothing was put back; the policy allows no changes in this environment."
        else:
            wanted = [r for r in left.results if self._approved(r.ordinal)]
            undone = tuple([await self._undo_step(r, left.execution.plan_revision) for r in wanted])
            said = "; ".join([_how_undone(undone), *_not_undone(undone)])
        return Execution(
            plan_revision=self.revision,
            choice="undo",
            title=f"Undo: {left.execution.title}" if left else "Undo",
            results=(),
            verification=Verification(verdict="not_measurable", detail=said),
            undone=undone,
            undoes=left.execution.plan_revision if left else "",
        )

    async def _undo_step(self, result: StepResult, of_plan: str) -> StepResult:
        """Claimed as every step is, under the decision that lets us undo: that of the step itself, or choice undo."""
        put_back = await self._undone(result, PlanStep(operation=result.operation, params=result.params))
        self._tell(
            "step_undone", result.ordinal, result.operation, f"{result.operation} of {of_plan}: {put_back.detail}"
        )
        return put_back

    async def _undone(self, result: StepResult, step: PlanStep) -> StepResult:
        claimed = await self.deps.ledger.find(self._key(result.ordinal, undo=True))
        if claimed and claimed.result:
            return claimed.result
        if claimed is None and await self._was_never_made(result):
            return self._result(result.ordinal, step, "skipped", "looked at again: it was not made, nothing to undo")
        try:
            operation, params = self._operation(step)
            claimed = claimed or await self._claim(result.ordinal, operation, step, params, back_to=dict(result.before))
        except (ExecutorError, ResourceBusy) as error:
            if claimed:
                return await self._left_behind(claimed, result.ordinal, step, f"undo: {error}")
            return self._result(result.ordinal, step, "failed", f"undo: {error}")
        try:
            return await self._finish(claimed, await self._take_back(operation, step, params, result, claimed))
        except _TakenOver as error:
            return self._result(result.ordinal, step, "unknown", f"undo: {error}")

    async def _was_never_made(self, result: StepResult) -> bool:
        return result.status == "unknown" and await look_again(self.deps.operations, result) == "not_done"

    async def _take_back(
        self, operation: AnyOperation, step: PlanStep, params: BaseModel, result: StepResult, claimed: ClaimedStep
    ) -> StepResult:
        """One attempt. ``undo`` reads first, so what is back already is no call. Raises _TakenOver."""
        status, outcome = "succeeded", Outcome()
        try:
            outcome = await self._call_back(operation, params, result, claimed)
            detail = f"undone: {outcome.detail}"
        except _TakenOver:
            raise
        except OutcomeUnknown as error:
            back = await self._is_back(operation, params, result)
            status, detail = (
                ("succeeded", f"undone: {error}; read back: it is") if back else ("unknown", f"undo: {error}")
            )
        except ExecutorError as error:
            status, detail = "failed", f"undo: {error}"
            if not claimed.fresh:  # what it found may be the dead process's own doing
                status, detail = "unknown", f"undo: a process died while it put this back; then: {error}"
        except Exception as error:  # noqa: BLE001  as in _carry_out
            status, detail = "unknown", f"undo: {type(error).__name__}: {error}"
        return self._result(
            result.ordinal,
            step,
            status,
            detail,
            before=result.after,
            after=result.before if status == "succeeded" else {},
            request_ids=outcome.request_ids,
        )

    async def _call_back(
        self, operation: AnyOperation, params: BaseModel, result: StepResult, claimed: ClaimedStep
    ) -> Outcome:
        """Raises ExecutorError, OutcomeUnknown, _TakenOver."""
        if not claimed.fresh:
            await self._outlive_the_call(claimed)
            if await self._is_back(operation, params, result):
                return Outcome(detail="a process died while it put this back; read back: it is")
            await self._retake(claimed)
        return await operation.undo(params, dict(result.before))

    async def _is_back(self, operation: AnyOperation, params: BaseModel, result: StepResult) -> bool:
        """Whether what people set reads as it did before the step."""
        try:
            now = operation.pinned(params, await operation.inspect(params))
            return not drift(operation.pinned(params, dict(result.before)), now)
        except ExecutorError:
            return False

    # --- telling ---

    def _result(
        self,
        ordinal: int,
        step: PlanStep,
        status: str,
        detail: str,
        *,
        before: TargetState | None = None,
        after: TargetState | None = None,
        request_ids: tuple[str, ...] = (),
        made: bool = False,
    ) -> StepResult:
        return StepResult.model_validate(
            {
                "ordinal": ordinal,
                "operation": step.operation,
                "params": step.params,
                "status": status,
                "detail": detail,
                "before": before or {},
                "after": after or {},
                "request_ids": request_ids,
                "made": made,
            }
        )

    def _tell_finished(self, result: StepResult) -> None:
        said = f"{result.operation}: {result.status}" + (f" - {result.detail}" if result.detail else "")
        self._tell("step_finished", result.ordinal, result.operation, said, status=result.status)

    def _tell(self, kind: str, ordinal: int, operation: str, message: str, **data: JsonValue) -> None:
        report(
            NODE,
            kind,
            f"{kind}:{self.revision}:{ordinal}",
            message,
            {"ordinal": ordinal, "operation": operation, **data},
        )


def _with(verification: Verification, said: str) -> Verification:
    return verification.model_copy(update={"detail": f"{verification.detail} {said}".strip()}) if said else verification


def _how_undone(undone: Sequence[StepResult]) -> str:
    """Of all that could be put back; empty: nothing could, or had to be."""
    done = sum(r.status in ("succeeded", "skipped") for r in undone)
    if not undone or done == len(undone):
        return "undone" if undone else ""
    return "undone in part" if done else "not undone"


def _not_undone(undone: Sequence[StepResult]) -> list[str]:
    """Each that is not, or may not be, back, and why."""
    return [f"not undone: {r.operation}: {r.detail}" for r in undone if r.status not in ("succeeded", "skipped")]


class _CannotTell(Exception):
    """Whether the call was made cannot be told: a person must look."""


class _TakenOver(_CannotTell):
    """Another process carries the step on."""
