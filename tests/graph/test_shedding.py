"""What turns requests away is no cure, however well those are served who are let in."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from pydantic import BaseModel

from executors.base import Capacity, ExecutorError, Operation, Probe, State
from graph.shedding import still_shed
from graph.state import Execution, StepResult, Verification

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


class Share(BaseModel):
    """Percent of its requests that a service is to get."""

    service: str = "shop"
    percent: float


@dataclass
class SetShare(Operation[Share]):
    """Sets it; shows one share for all services."""

    shown: float | Exception = 100.0

    name = "set_share"
    summary = "Set the share"
    risk = "low"
    reversible = True
    params = Share

    def capacity(self, params: Share, before: State) -> Capacity:
        """The same servers with another load. Raises KeyError for a state of an older version."""
        was = before["percent"]
        assert isinstance(was, float)
        return Capacity(service=params.service, servers_now=2, servers_then=2, load_then=params.percent / was)

    async def probe(self, params: Share, before: State) -> Probe:
        """By what is shown."""
        if isinstance(self.shown, Exception):
            raise self.shown
        if self.shown == params.percent:
            return "done"
        return "not_done" if self.shown == before["percent"] else "unknown"


def step(before: float, percent: float, *, ordinal: int = 1, service: str = "shop") -> StepResult:
    return StepResult(
        ordinal=ordinal,
        operation="set_share",
        params={"service": service, "percent": percent},
        status="succeeded",
        made=True,
        before={"percent": before},
    )


def execution(revision: str, *results: StepResult, undone: tuple[StepResult, ...] = (), undoes: str = "") -> Execution:
    seen = Verification(verdict="improved")
    return Execution(
        plan_revision=revision, choice="1", title="", results=results, verification=seen, undone=undone, undoes=undoes
    )


SHED = ("set_share on shop",)


@pytest.mark.parametrize(
    ("results", "shown", "expected"),
    [
        ([step(100.0, 50.0)], 50.0, SHED),
        ([step(100.0, 50.0), step(50.0, 100.0, ordinal=2)], 100.0, ()),
        ([step(100.0, 30.0), step(30.0, 70.0, ordinal=2)], 70.0, SHED),  # given back in part
        ([step(100.0, 30.0), step(30.0, 70.0, ordinal=2), step(70.0, 100.0, ordinal=3)], 100.0, ()),
        ([step(100.0, 50.0)], 100.0, ()),  # somebody gave it back by hand
        ([step(100.0, 50.0)], 80.0, SHED),  # in part
        ([step(100.0, 50.0)], ExecutorError("no answer"), SHED),
        ([step(50.0, 100.0)], 100.0, ()),
        ([step(100.0, 50.0), step(50.0, 100.0, ordinal=2, service="web")], 50.0, SHED),  # another's share
        ([step(100.0, 50.0).model_copy(update={"made": False, "status": "failed"})], 50.0, ()),
        ([step(100.0, 50.0).model_copy(update={"before": {}})], 50.0, ()),  # written by an older version
        ([step(100.0, 50.0).model_copy(update={"operation": "turned_off_since"})], 50.0, ()),
    ],
)
async def test_what_sheds_still(
    results: Sequence[StepResult], shown: float | Exception, expected: tuple[str, ...]
) -> None:
    assert await still_shed({"set_share": SetShare(shown)}, (), results) == expected


async def test_what_an_earlier_execution_sheds_counts_until_it_is_undone() -> None:
    operations, shed = {"set_share": SetShare(50.0)}, step(100.0, 50.0)
    earlier = execution("p1", shed)
    assert await still_shed(operations, [earlier], ()) == SHED
    assert await still_shed(operations, [earlier], [step(50.0, 100.0)]) == ()
    put_back = execution("p2", undone=(shed,), undoes="p1")
    assert await still_shed(operations, [earlier, put_back], ()) == ()
