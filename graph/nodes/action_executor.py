"""ActionExecutor: runs the chosen steps through the ledger, measures, and undoes what made things worse."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, JsonValue

from collectors.base import Collector, CollectorError, Series, SeriesRef, Window
from executors.base import AnyOperation, ExecutorError, Outcome, OutcomeUnknown, PartlyDone, Probe
from graph import verification as verifying
from graph.deps import Claim, ClaimedStep, Deps, ResourceBusy, StepKey
from graph.progress import report
from graph.state import ActionOption, Execution, PlanStep, State, StepResult, Verification

NODE = "ActionExecutor"
OK = ("succeeded", "dry_run")
WORSE_READINGS = 3  # in a row: one is no harm


async def action_executor(deps: Deps, state: State) -> dict[str, Any]:
    """Writes ``executions``. Runs again from its first line after a crash: the ledger knows what was done."""
    plan, decision = state["plan"], state["decision"]
    option = plan.options[int(decision.choice) - 1]
    run = _Run(deps, state["incident_id"], plan.revision)
    results = await run.steps(option)
    verification = await run.verify(option, results)
    undone = await run.undo(option, results) if verification.verdict == "worse" else ()
    execution = Execution(
        plan_revision=plan.revision,
        choice=decision.choice,
        title=option.title,
        results=results,
        verification=verification,
        undone=undone,
    )
    report(
        NODE,
        "verdict",
        f"verdict:{plan.revision}",
        f"{option.title}: {verification.verdict}" + (", undone" if undone else ""),
        {"verdict": verification.verdict, "undone": bool(undone)},
    )
    return {"executions": (*state.get("executions", ()), execution)}


class _Run:
    """One decision being carried out."""

    def __init__(self, deps: Deps, incident_id: str, plan_revision: str) -> None:
        self.deps, self.incident_id, self.revision = deps, incident_id, plan_revision

    # --- steps ---

    async def steps(self, option: ActionOption) -> tuple[StepResult, ...]:
        """In order; the first that does not succeed stops the rest, which are named as skipped."""
        results: list[StepResult] = []
        for ordinal, step in enumerate(option.steps, 1):
            if results and results[-1].status not in OK:
                results.append(self._result(ordinal, step, "skipped", "an earlier step did not succeed"))
                continue
            self._tell("step_started", ordinal, step.operation, f"{step.operation}: running")
            result = await self._step(ordinal, step)
            self._tell(
                "step_finished",
                ordinal,
                step.operation,
                f"{step.operation}: {result.status}" + (f" - {result.detail}" if result.detail else ""),
                status=result.status,
            )
            results.append(result)
        return tuple(results)

    async def _step(self, ordinal: int, step: PlanStep) -> StepResult:
        operation = self.deps.operations[step.operation]
        params = operation.params.model_validate(step.params)
        claimed = await self.deps.ledger.find(self._key(ordinal))
        try:
            claimed = claimed or await self._claim(ordinal, operation, step, params)
        except (ExecutorError, ResourceBusy) as error:
            return await self._refused(ordinal, operation, step, str(error))
        if claimed.result:
            return claimed.result
        result = await self._carry_out(ordinal, operation, step, params, claimed)
        return await self._finish(claimed, result)

    async def _refused(self, ordinal: int, operation: AnyOperation, step: PlanStep, why: str) -> StepResult:
        """Written into the ledger too: after a crash the step must not run after all."""
        now = self.deps.clock.now()
        result = self._result(ordinal, step, "failed", why).model_copy(update={"finished_at": now})
        try:
            claimed = await self.deps.ledger.claim(
                Claim(self._key(ordinal), operation.name, step.params, resource="", before={}, at=now)
            )
        except ExecutorError:
            return result  # the incident is closed: nobody runs anything more
        await self.deps.ledger.finish(claimed.step_id, result)
        return result

    async def _claim(
        self,
        ordinal: int,
        operation: AnyOperation,
        step: PlanStep,
        params: BaseModel,
        undo_of: StepResult | None = None,
    ) -> ClaimedStep:
        """Claim, waiting a while for a resource that another action holds.

        The state is read anew for each attempt: while we wait, the other action changes it.
        Raises ResourceBusy, ExecutorError.
        """
        clock = self.deps.clock
        give_up = clock.now() + timedelta(seconds=self.deps.patience.busy_s)
        resource = operation.resource(params)
        while True:
            if undo_of:
                before = undo_of.before
            else:
                before = await operation.inspect(params)
                operation.preview(params, before)  # refuses what must not run now
            try:
                return await self.deps.ledger.claim(
                    Claim(
                        key=self._key(ordinal, undo=undo_of is not None),
                        operation=operation.name,
                        params=step.params,
                        resource="" if operation.read_only or operation.dry_run else resource,
                        before=before,
                        at=clock.now(),
                    )
                )
            except ResourceBusy:
                if clock.now() >= give_up:
                    raise
                await clock.sleep(self.deps.patience.poll_s)

    def _key(self, ordinal: int, *, undo: bool = False) -> StepKey:
        return StepKey(self.incident_id, self.revision, ordinal, undo)

    async def _finish(self, claimed: ClaimedStep, result: StepResult) -> StepResult:
        result = result.model_copy(update={"claimed_at": claimed.claimed_at, "finished_at": self.deps.clock.now()})
        await self.deps.ledger.finish(claimed.step_id, result)
        return result

    async def _carry_out(
        self, ordinal: int, operation: AnyOperation, step: PlanStep, params: BaseModel, claimed: ClaimedStep
    ) -> StepResult:
        """The one attempt, or after a crash the probe that tells whether it was made."""
        before = claimed.before
        outcome = Outcome()
        try:
            if await self._must_call(operation, params, claimed):
                outcome = await self._call(operation, params, before)
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

    async def _call(self, operation: AnyOperation, params: BaseModel, before: dict[str, JsonValue]) -> Outcome:
        """Raises ExecutorError if nothing was done, _CannotTell if that is not known."""
        try:
            return await operation.execute(params, before)
        except OutcomeUnknown as error:
            if await self._probe(operation, params, before) != "done":
                raise _CannotTell(str(error)) from error
            return Outcome(detail=f"{error}; read back: it was done")

    async def _must_call(self, operation: AnyOperation, params: BaseModel, claimed: ClaimedStep) -> bool:
        if claimed.fresh:
            return True
        probe = await self._probe(operation, params, claimed.before)
        if probe == "not_done" and not operation.read_only:
            # The dead process's call may still be under way; only after its longest time «not done» is final.
            await asyncio.sleep(max(0.0, self.deps.patience.call_s - claimed.age_s))
            probe = await self._probe(operation, params, claimed.before)
        if probe == "unknown":
            raise _CannotTell(
                "a process died between claim and result, and the present state does not tell"
                " whether the call was made: look at it before you decide again"
            )
        if probe == "not_done" and not await self.deps.ledger.retake(claimed):
            raise _CannotTell("another process has taken this step over")
        return probe == "not_done"

    async def _probe(self, operation: AnyOperation, params: BaseModel, before: dict[str, JsonValue]) -> Probe:
        try:
            return await operation.probe(params, before)
        except ExecutorError as error:
            raise _CannotTell(f"whether it was done could not be read: {error}") from error

    # --- verification ---

    async def verify(self, option: ActionOption, results: Sequence[StepResult]) -> Verification:
        """Measure the expected effects until they hold, or are clearly worse, or their time is over."""
        if any(r.status == "dry_run" for r in results):
            return Verification(verdict="not_measurable", detail="Rehearsal: nothing was changed.")
        calls = [r for r in results if r.claimed_at and r.finished_at]
        failed = next((r for r in results if r.status not in OK), None)
        if not calls or not option.expected:
            why = f"{failed.operation} {failed.status}: {failed.detail}" if failed else "nothing to measure"
            return Verification(verdict="not_measurable", detail=why)
        first = min(r.claimed_at for r in calls if r.claimed_at)
        last = max(r.finished_at for r in calls if r.finished_at)
        before = await self._levels(option, Window(start=first - timedelta(minutes=3), end=first))
        if not failed:
            minutes = max(e.within_minutes for e in option.expected)
            return await self._watch(option, before, last, minutes * 60)
        # Some steps may be in place: look for harm, but not for as long as for a cure.
        patience = self.deps.patience
        seen = await self._watch(option, before, last, patience.worse_after_s + 3 * patience.poll_s)
        remain = [r.operation for r in results if r.made]
        return seen.model_copy(
            update={
                "verdict": "improved" if seen.verdict == "resolved" else seen.verdict,
                "detail": f"{failed.operation} {failed.status}: {failed.detail}"
                + (f" In place: {', '.join(remain)}." if remain else ""),
            }
        )

    async def _watch(
        self, option: ActionOption, before: dict[verifying.Key, float | None], since: datetime, limit_s: float
    ) -> Verification:
        clock, patience = self.deps.clock, self.deps.patience
        # A watch that starts late, after a crash, still gets the time to see the effects hold.
        enough = timedelta(seconds=patience.hold_s + 3 * patience.poll_s)
        deadline = max(since + timedelta(seconds=limit_s), clock.now() + enough)
        met_since: datetime | None = None
        worse_in_a_row = 0
        while True:
            await clock.sleep(patience.poll_s)
            now = clock.now()
            seen = await self._measure(option, before, since)
            report(
                NODE,
                "verification",
                f"verify:{self.revision}:{now.isoformat()}",
                f"{sum(c.status == 'met' for c in seen.checks)} of {len(seen.checks)} expected effects met",
                {"status": "verifying", "checks": [c.detail for c in seen.checks]},
            )
            if seen.verdict != "not_measurable":  # a reading that failed neither confirms nor refutes
                met_since = (met_since or now) if seen.verdict == "resolved" else None
                worse_in_a_row = worse_in_a_row + 1 if seen.verdict == "worse" else 0
            if met_since and (now - met_since).total_seconds() >= patience.hold_s:
                return seen.model_copy(
                    update={"detail": f"All expected effects held for {patience.hold_s / 60:g} minutes."}
                )
            worse = worse_in_a_row >= WORSE_READINGS
            if worse and (now - since).total_seconds() >= patience.worse_after_s:
                return seen.model_copy(update={"detail": "It got worse, three readings in a row."})
            if now >= deadline and (not met_since or now >= deadline + timedelta(seconds=patience.hold_s)):
                # One bad reading is no harm, and one good one no cure.
                told = {"worse": "unchanged", "resolved": "improved"}.get(seen.verdict, seen.verdict)
                detail = f"Not all expected effects were met, and held, within {limit_s / 60:g} minutes."
                return seen.model_copy(update={"verdict": told, "detail": detail})

    async def _measure(
        self, option: ActionOption, before: dict[verifying.Key, float | None], since: datetime
    ) -> Verification:
        now = self.deps.clock.now()
        window = Window(start=max(since, now - timedelta(minutes=2)), end=now)
        checks = verifying.checks(option.expected, before, await self._levels(option, window))
        return Verification(verdict=verifying.verdict(checks), checks=checks)

    async def _levels(self, option: ActionOption, window: Window) -> dict[verifying.Key, float | None]:
        by_source: dict[str, list[SeriesRef]] = defaultdict(list)
        for effect in option.expected:
            by_source[effect.ref.source].append(effect.ref)
        series: list[Series] = []
        for collector in self.deps.collectors:
            if refs := by_source.get(collector.name):
                series += await self._read(collector, refs, window)
        return {verifying.key(e.ref): verifying.level(series, e.ref, window) for e in option.expected}

    async def _read(self, collector: Collector, refs: list[SeriesRef], window: Window) -> list[Series]:
        """The series; none, and a line in the timeline, where the source fails or does not answer in its time."""
        try:
            async with asyncio.timeout(collector.timeout_s):
                return await collector.measure(refs, window)
        except CollectorError as error:
            said = error.detail
        except TimeoutError:
            said = f"no answer within {collector.timeout_s:g} s"
        except Exception as error:  # noqa: BLE001  one source's fault must not end the watch over a change
            said = f"{type(error).__name__}: {error}"
        key = f"gap:{self.revision}:{collector.name}:{window.end.isoformat()}"
        report(NODE, "gap", key, f"{collector.name} could not be measured: {said}")
        return []

    # --- undo ---

    async def undo(self, option: ActionOption, results: Sequence[StepResult]) -> tuple[StepResult, ...]:
        """Put back, last first, every change that was made and can be put back."""
        undone: list[StepResult] = []
        for result, step in reversed(list(zip(results, option.steps, strict=True))):
            operation = self.deps.operations[step.operation]
            if (result.made or result.status == "unknown") and operation.reversible:
                undone.append(await self._undo_step(result, step, operation))
        return tuple(undone)

    async def _undo_step(self, result: StepResult, step: PlanStep, operation: AnyOperation) -> StepResult:
        ordinal, params = result.ordinal, operation.params.model_validate(step.params)
        claimed = await self.deps.ledger.find(self._key(ordinal, undo=True))
        try:
            claimed = claimed or await self._claim(ordinal, operation, step, params, undo_of=result)
        except (ExecutorError, ResourceBusy) as error:
            return self._result(ordinal, step, "failed", f"undo: {error}")
        if claimed.result:
            return claimed.result
        status, outcome = "succeeded", Outcome()
        try:
            outcome = await operation.undo(params, result.before)  # reads first: put back already is no call
            detail = f"undone: {outcome.detail}"
        except OutcomeUnknown as error:
            status, detail = "unknown", f"undo: {error}"
        except ExecutorError as error:
            status, detail = "failed", f"undo: {error}"
        except Exception as error:  # noqa: BLE001  as in _carry_out
            status, detail = "unknown", f"undo: {type(error).__name__}: {error}"
        put_back = await self._finish(
            claimed,
            self._result(
                ordinal, step, status, detail, before=result.after, after=result.before, request_ids=outcome.request_ids
            ),
        )
        self._tell("step_undone", ordinal, step.operation, f"{step.operation}: {put_back.detail}")
        return put_back

    # --- telling ---

    def _result(
        self,
        ordinal: int,
        step: PlanStep,
        status: str,
        detail: str,
        *,
        before: dict[str, JsonValue] | None = None,
        after: dict[str, JsonValue] | None = None,
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

    def _tell(self, kind: str, ordinal: int, operation: str, message: str, **data: JsonValue) -> None:
        report(
            NODE,
            kind,
            f"{kind}:{self.revision}:{ordinal}",
            message,
            {"ordinal": ordinal, "operation": operation, **data},
        )


class _CannotTell(Exception):
    """Whether the call was made cannot be told: a person must look."""
