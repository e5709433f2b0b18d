"""Whether requests are turned away still, by what a remedy changed."""

from collections.abc import Mapping, Sequence

from executors.base import AnyOperation
from graph.aftermath import look_again, may_be_in_place, put_back
from graph.state import Execution, StepResult

_ALL = 0.999  # of the requests: halved and doubled again need not be 1 in floats


async def still_shed(
    operations: Mapping[str, AnyOperation], executions: Sequence[Execution], results: Sequence[StepResult]
) -> tuple[str, ...]:
    """What sheds, in words: steps of ``results``, or of ``executions`` before them, after which a service gets less.

    Left out is what was undone, what a later step gave back, and what its target shows to be gone. A step that cannot
    be looked at counts as in place.
    """
    shed: dict[str, list[StepResult]] = {}
    share: dict[str, float] = {}
    for result in (*_in_place(executions), *filter(may_be_in_place, results)):
        service, load = _load_then(operations, result)
        share[service] = share.get(service, 1.0) * load
        if load < 1.0:
            shed.setdefault(service, []).append(result)
        elif share[service] >= _ALL:
            shed.pop(service, None)
            share.pop(service)
    left = [(service, step) for service, steps in shed.items() for step in steps]
    probes = [await look_again(operations, step) for _, step in left]
    return tuple(
        f"{step.operation} on {service}"
        for (service, step), probe in zip(left, probes, strict=True)
        if probe != "not_done"
    )


def _in_place(executions: Sequence[Execution]) -> list[StepResult]:
    gone = put_back(executions)
    return [
        result
        for execution in executions
        for result in execution.results
        if may_be_in_place(result) and (execution.plan_revision, result.ordinal) not in gone
    ]


def _load_then(operations: Mapping[str, AnyOperation], result: StepResult) -> tuple[str, float]:
    """The service, and its requests after the step as a multiple of those before; 1 where the step leaves them."""
    operation = operations.get(result.operation)  # it may be turned off since
    if operation is None or operation.read_only:
        return "", 1.0
    try:
        capacity = operation.capacity(operation.params.model_validate(result.params), dict(result.before))
    except Exception:  # noqa: BLE001  an older version's parameters or state: nothing is known of it
        return "", 1.0
    return (capacity.service, capacity.load_then) if capacity else ("", 1.0)
