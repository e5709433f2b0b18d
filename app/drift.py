"""Whether the targets of what is to be approved still are as they were when the plan was made."""

import asyncio
from collections.abc import Sequence

from app.decision_checks import ASK_ANEW, ApprovedStep
from app.desk import Conflict, Unusable
from executors.base import ExecutorError, Refused, State
from graph.drift import drift, pins

READ_WITHIN_S = 6.0  # all targets together; a person waits for the answer


async def check_targets(approved: Sequence[ApprovedStep]) -> None:
    """Read the targets again, side by side. Raises Conflict (they changed, or do not answer), Unusable (must not run).

    Only steps that are pinned: what an earlier step of the option changes has no state yet.
    """
    pinned = [step for step in approved if step.planned.pinned]
    states = await asyncio.gather(*map(_read, pinned), return_exceptions=True)
    for step, state in zip(pinned, states, strict=True):
        if isinstance(state, BaseException):
            raise state
        _check(step, state)


async def _read(step: ApprovedStep) -> State:
    try:
        async with asyncio.timeout(READ_WITHIN_S):
            return await step.operation.inspect(step.params)
    except Refused as error:
        raise Unusable(f"{step.operation.name} must not run now: {error}. {ASK_ANEW}", "infeasible") from error
    except ExecutorError as error:
        said = str(error)
    except TimeoutError:
        said = f"no answer within {READ_WITHIN_S:g} s"
    except Exception as error:  # noqa: BLE001  a fault of the operation's code is no reason to approve blindly
        said = f"{type(error).__name__}: {error}"
    raise Conflict(
        f"{step.operation.name}: {_target(step)} cannot be read, so nobody knows whether it still is as you were shown:"
        f" {said}. Nothing was decided. Try again in a minute; if it stays so, choose manual.",
        "unreadable",
    )


def _check(step: ApprovedStep, state: State) -> None:
    try:
        changed = drift(step.planned.pinned, pins(step.operation, step.params, state))
        if not changed:
            step.operation.preview(step.params, state)
    except Refused as error:
        raise Unusable(f"{step.operation.name} must not run now: {error}. {ASK_ANEW}", "infeasible") from error
    if changed:
        raise Conflict(
            f"{_target(step)} is not as you were shown: {changed} since the plan was made. {ASK_ANEW}", "drift"
        )


def _target(step: ApprovedStep) -> str:
    return ", ".join(step.services) or step.operation.resource(step.params)
