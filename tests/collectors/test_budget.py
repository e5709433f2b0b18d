"""What a collection may cost, and what is said when it is used up."""

import pytest

from collectors._budget import Budget, SourceSettings, env
from collectors.base import TooMuch


class Settings(SourceSettings):
    model_config = env("LOKI_")


def test_calls_bytes_and_rows_are_counted_and_bounded() -> None:
    budget = Budget("loki", Settings(max_calls=2, max_bytes=1000, max_rows=100))
    budget.call()
    budget.call()
    budget.receive(1000)
    budget.keep(99)
    budget.keep()
    for use, setting, limit in (
        (budget.call, "LOKI_MAX_CALLS", "2 requests"),
        (lambda: budget.receive(1), "LOKI_MAX_BYTES", "1,000 bytes"),
        (budget.keep, "LOKI_MAX_ROWS", "100 rows"),
    ):
        with pytest.raises(TooMuch, match=limit) as told:
            use()
        assert setting in told.value.mend
    assert (budget.cost.calls, budget.cost.received_bytes) == (2, 1001)
    assert budget.rows == 100


def test_what_is_refused_is_not_counted_as_kept() -> None:
    budget = Budget("loki", Settings(max_rows=100))
    with pytest.raises(TooMuch):
        budget.keep(101)
    budget.keep(100)


def test_the_shorter_time_holds_and_its_setting_is_named() -> None:
    own, step = Budget("loki", Settings(budget_s=5), 15.0), Budget("loki", Settings(budget_s=15), 5.0)
    assert own.seconds == step.seconds == 5
    assert 4 < own.left_s <= 5
    assert "LOKI_BUDGET_S" in own.mend_seconds
    assert "AUTOPILOT_COLLECT_S" in step.mend_seconds
    assert Budget("loki", Settings(), -3.0).seconds == 0


def test_cost_tells_the_time_it_took() -> None:
    assert 0 <= Budget("loki", Settings()).cost.took_ms < 1000


@pytest.mark.parametrize("wrong", [{"max_calls": 0}, {"budget_s": 0}, {"max_rows": 1}, {"max_bytes": -1}])
def test_a_budget_of_nothing_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="greater than"):
        Settings.model_validate(wrong)
