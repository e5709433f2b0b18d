"""Many numbers in little memory."""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from sys import byteorder
from typing import Any, overload

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

_NATIVE = "<f8" if byteorder == "little" else ">f8"


class Floats(Sequence[float]):
    """An immutable sequence of floats: a tuple of the same numbers in 8 bytes each instead of 32.

    It equals that tuple and has its hash. ``numpy.asarray(floats)`` reads it without a copy.
    """

    __slots__ = ("_numbers",)

    def __init__(self, numbers: Iterable[float] = ()) -> None:
        """Raises TypeError for what is no number."""
        self._numbers = array("d", numbers)

    @property
    def array(self) -> "array[float]":
        """Its memory, for reading only: whoever writes into it changes the sequence under everyone else."""
        return self._numbers

    @property
    def __array_interface__(self) -> Mapping[str, object]:
        """For numpy: where the numbers are, not to be written to."""
        return {"version": 3, "shape": (len(self),), "typestr": _NATIVE, "data": memoryview(self._numbers).toreadonly()}

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> float: ...
    @overload
    def __getitem__(self, index: slice) -> "Floats": ...
    def __getitem__(self, index: int | slice) -> "float | Floats":
        return Floats(self._numbers[index]) if isinstance(index, slice) else self._numbers[index]

    def __iter__(self) -> Iterator[float]:
        return iter(self._numbers)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Floats):
            return self._numbers == other._numbers
        return tuple(self) == other if isinstance(other, tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"Floats({tuple(self)})"

    def __reduce__(self) -> tuple[object, ...]:
        return Floats, (self._numbers,)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validated, and written to JSON, as ``tuple[float, ...]`` is."""
        numbers = core_schema.tuple_variable_schema(core_schema.float_schema())
        return core_schema.json_or_python_schema(
            json_schema=core_schema.no_info_after_validator_function(cls, numbers),
            python_schema=core_schema.no_info_wrap_validator_function(
                lambda given, validated: given if isinstance(given, cls) else cls(validated(given)), numbers
            ),
            serialization=core_schema.plain_serializer_function_ser_schema(tuple, return_schema=numbers),
        )
