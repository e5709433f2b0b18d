"""Text from outside, as Postgres can hold it."""

from typing import Annotated

from pydantic import AfterValidator


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("a NUL character cannot be stored")
    return text.encode("utf-8", "replace").decode()  # half a surrogate pair becomes «?»


StorableText = Annotated[str, AfterValidator(_storable)]
