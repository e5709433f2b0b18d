"""What earlier executions of an incident left behind: changes that can be put back, steps whose end nobody knows."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from executors.base import AnyOperation, Probe
from graph.state import Execution, StepResult


class LeftInPlace(NamedTuple):
    """Changes of one execution that are, or may be, in place still. ``results``: last first, as they are put back."""

    execution: Execution
    results: tuple[StepResult, ...]


def may_be_in_place(result: StepResult) -> bool:
    """The change was made, or nobody knows."""
    return result.made or result.status == "unknown"


def reversible(operations: Mapping[str, AnyOperation], result: StepResult) -> bool:
    """Whether this installation can put it back."""
    return result.operation in operations and operations[result.operation].reversible


def put_back(executions: Sequence[Execution]) -> frozenset[tuple[str, int]]:
    """Plan revision and ordinal of each step that was undone, or needed no undoing."""
    return frozenset(
        (execution.undoes or execution.plan_revision, result.ordinal)
        for execution in executions
        for result in execution.undone
        if result.status in ("succeeded", "skipped")
    )


def left_in_place(executions: Sequence[Execution], operations: Mapping[str, AnyOperation]) -> LeftInPlace | None:
    """What choice ``undo`` puts back: of the last execution that left anything which can be; None if none did."""
    settled = put_back(executions)
    for execution in reversed(executions):
        left = tuple(
            result
            for result in reversed(execution.results)
            if may_be_in_place(result)
            and (execution.plan_revision, result.ordinal) not in settled
            and reversible(operations, result)
        )
        if left:
            return LeftInPlace(execution, left)
    return None


def unknown_steps(executions: Sequence[Execution]) -> tuple[StepResult, ...]:
    """Steps of the last execution of which nobody knows whether they were made: they are to be looked at again."""
    return tuple(r for r in executions[-1].results if r.status == "unknown") if executions else ()


async def look_again(operations: Mapping[str, AnyOperation], result: StepResult) -> Probe:
    """Was the change of a step made whose end was unknown? Reads only; ``unknown`` also where it cannot be read."""
    operation = operations.get(result.operation)
    if operation is None:
        return "unknown"
    try:
        return await operation.probe(operation.params.model_validate(result.params), dict(result.before))
    except Exception:  # noqa: BLE001  not readable, or a fault of the operation's code: nothing is known either way
        return "unknown"
