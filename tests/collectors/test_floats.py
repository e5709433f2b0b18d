"""Floats is a tuple of floats in less memory."""

import pickle
from array import array
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from collectors.base import Floats, LogLine, Series, SeriesRef, Span

NUMBERS = st.lists(st.floats(allow_nan=False)).map(tuple)
PLAIN: TypeAdapter[tuple[float, ...]] = TypeAdapter(tuple[float, ...])
PACKED: TypeAdapter[Floats] = TypeAdapter(Floats)


@given(NUMBERS, st.slices(20))
def test_it_is_the_tuple_of_its_numbers(numbers: tuple[float, ...], part: slice) -> None:
    packed = Floats(numbers)
    assert packed == numbers
    assert numbers == packed
    assert packed == Floats(iter(numbers))
    assert {packed: 1}[numbers] == 1  # type: ignore[index]
    assert packed[part] == numbers[part]
    assert [packed[n] for n in range(-len(packed), len(packed))] == [*numbers, *numbers]
    assert repr(packed) == f"Floats({numbers})"
    assert pickle.loads(pickle.dumps(packed)) == packed


def test_it_differs_where_the_tuple_would() -> None:
    assert Floats((1, 2)) != Floats((1, 3))
    assert Floats((1, 2)) != (1, 2, 3)
    assert Floats((1, 2)) != [1, 2]
    with pytest.raises(TypeError):
        Floats(["1"])  # type: ignore[list-item]


def test_numpy_reads_its_memory_and_cannot_write_to_it() -> None:
    packed = Floats([1.5, 2.5])
    seen = np.asarray(packed, dtype=np.float64)
    assert seen.tolist() == [1.5, 2.5]
    assert not seen.flags.writeable
    assert np.shares_memory(seen, np.frombuffer(packed.array))
    assert np.asarray(Floats()).tolist() == []


@given(st.lists(st.one_of(st.floats(), st.integers(-(10**400), 10**400), st.sampled_from(["1.5", "x", None, True]))))
def test_it_takes_and_refuses_what_a_tuple_does(numbers: list[object]) -> None:
    assert outcome(PACKED, numbers) == outcome(PLAIN, numbers)


def outcome(adapter: TypeAdapter[Any], numbers: list[object]) -> object:
    """What is written to JSON, or what is refused where."""
    try:
        return adapter.dump_json(adapter.validate_python(numbers))
    except ValidationError as refused:
        return [(error["loc"], error["type"]) for error in refused.errors()]


def test_a_series_keeps_what_it_is_given_and_shares_what_is_packed() -> None:
    ref = SeriesRef(source="s", component="c", metric="m", query="q")
    one = Series(ref=ref, epoch_s=[1, 2], values=array("d", [3, 4]))
    assert isinstance(one.epoch_s, Floats)
    assert Series(ref=ref, epoch_s=one.epoch_s, values=(5, 6)).epoch_s is one.epoch_s
    assert TypeAdapter(Series).validate_json(TypeAdapter(Series).dump_json(one)) == one


@pytest.mark.parametrize("row", [Series, LogLine, Span])
def test_rows_are_slotted_and_refuse_other_fields(row: type[Series | LogLine | Span]) -> None:
    assert "__dict__" not in dir(row)
    with pytest.raises(ValidationError, match="Unexpected keyword argument"):
        TypeAdapter(row).validate_python({"nonsense": 1})
