"""What is said of a target that is not as it was approved."""

import pytest
from pydantic import JsonValue

from graph.drift import drift


@pytest.mark.parametrize(
    ("approved", "now", "said"),
    [
        ({"desired_tasks": 4}, {"desired_tasks": 4}, ""),
        ({"desired_tasks": 4}, {"desired_tasks": 6}, "desired tasks 4 -> 6"),
        ({"weights": {"own": 100, "page": 0}}, {"weights": {"own": 50, "page": 0}}, "weights own 100 -> 50"),
        ({"version": "pay:7"}, {}, "version pay:7 -> none"),
        ({}, {"version": None}, ""),
        ({"a": 1, "b": True}, {"a": 2, "b": False}, "a 1 -> 2, b true -> false"),
        ({"tasks": ["x"]}, {"tasks": ["x", "y"]}, 'tasks ["x"] -> ["x", "y"]'),
        ({"arn": "a" * 200}, {"arn": "b"}, f"arn {'a' * 79}… -> b"),
        (
            {str(n): 1 for n in range(7)},
            {},
            "0 1 -> none, 1 1 -> none, 2 1 -> none, 3 1 -> none, 4 1 -> none, and 2 more",
        ),
    ],
)
def test_what_is_different_is_told(approved: dict[str, JsonValue], now: dict[str, JsonValue], said: str) -> None:
    assert drift(approved, now) == said


def test_what_went_through_a_checkpoint_is_the_same() -> None:
    weights: dict[str, object] = {"weights": ("a", 1)}
    assert drift({"weights": ["a", 1]}, weights) == ""  # type: ignore[arg-type]  # as an operation may return it
