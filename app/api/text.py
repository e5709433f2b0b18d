"""Text and times from outside, as they are documented and as Postgres can hold them."""

import re
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator

DATED = re.compile(r"\d{4}-\d{2}-\d{2}")


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("a NUL character cannot be stored")
    return text.encode("utf-8", "replace").decode()  # half a surrogate pair becomes «?»


def _written_out(value: object) -> object:
    """Pydantic would take 12 for twelve seconds past 1970."""
    if isinstance(value, int | float) or (isinstance(value, str) and not DATED.match(value)):
        raise ValueError("write the time as 2024-12-20T09:15:00Z")
    return value


StorableText = Annotated[str, AfterValidator(_storable)]
IsoTime = Annotated[AwareDatetime, BeforeValidator(_written_out)]
