import pytest
from pydantic import JsonValue, ValidationError

from executors import ecs, rehearsal, traffic
from executors.base import AnyOperation, Executor, Refused, Resource
from tests.executors.conftest import RULE, InstantClock, operation

ARGUMENTS: dict[str, dict[str, JsonValue]] = {
    "scale_ecs_service": {"service": "payment-service", "desired_count": 6},
    "restart_all_services": {"services": ["payment-service", "worker"]},
    "reduce_traffic": {"service": "payment-service", "keep_percent": 30},
}


@pytest.fixture
def executor(resources: dict[str, Resource], clock: InstantClock) -> Executor:
    return rehearsal.create(resources, clock)


def test_every_operation_is_mirrored_with_its_terms(executor: Executor) -> None:
    mirrored = {o.name: (o.params, o.risk, o.reversible, o.read_only, o.minutes) for o in executor.operations}
    real = [*ecs.OPERATIONS, *traffic.OPERATIONS]
    for kind in real:
        assert mirrored[kind.name] == (kind.params, kind.risk, kind.reversible, kind.read_only, kind.minutes)
    assert all(o.dry_run and not o.permissions for o in executor.operations)
    assert len(mirrored) >= len(real) == len({kind.name for kind in real})


@pytest.mark.parametrize("kind", [*ecs.OPERATIONS, *traffic.OPERATIONS], ids=lambda kind: kind.name)
async def test_a_rehearsal_runs_from_end_to_end_and_touches_nothing(
    executor: Executor, kind: type[AnyOperation]
) -> None:
    mirror = operation(executor, kind.name)
    params = mirror.params.model_validate(ARGUMENTS.get(kind.name, {"service": "payment-service"}))
    before = await mirror.inspect(params)
    outcome = await mirror.execute(params, before)
    assert before == {"rehearsal": True} == await mirror.settle(params, before)
    assert outcome.detail == mirror.preview(params, before)
    assert outcome.detail.startswith(f"Rehearsal: would run {kind.name}(")
    assert await mirror.probe(params, before) == "done"
    assert not outcome.request_ids


async def test_it_says_what_would_be_called_and_undone(executor: Executor) -> None:
    reduce = operation(executor, "reduce_traffic")
    params = reduce.params(service="payment-service", keep_percent=30)
    said = f"reduce_traffic(service='payment-service', keep_percent=30) on alb:{RULE}"
    assert (await reduce.execute(params, {})).detail == f"Rehearsal: would run {said}"
    assert (await reduce.undo(params, {})).detail == f"Rehearsal: would undo {said}"


async def test_what_cannot_be_undone_cannot_be_undone_in_a_rehearsal(executor: Executor) -> None:
    restart = operation(executor, "restart_ecs_task")
    with pytest.raises(Refused, match="cannot be undone"):
        await restart.undo(restart.params(service="worker"), {})


def test_the_catalogues_bounds_hold_in_a_rehearsal(executor: Executor) -> None:
    scale = operation(executor, "scale_ecs_service")
    with pytest.raises(Refused, match="outside"):
        scale.preview(scale.params(service="payment-service", desired_count=99), {})
    with pytest.raises(Refused, match="no service"):
        scale.resource(scale.params(service="cart", desired_count=1))
    with pytest.raises(ValidationError):
        scale.params(service="worker", desired_count=-1)
