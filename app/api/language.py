"""Which language a client would rather read."""

import re
from collections.abc import Mapping
from typing import get_args

from graph.state import Language

OURS: Mapping[str, Language] = {name: name for name in get_args(Language)}
RANGE = re.compile(r"\s*([A-Za-z]{1,8})(?:-[A-Za-z0-9]{1,8})*\s*(?:;\s*[qQ]=([01](?:\.\d{0,3})?))?\s*")


def preferred(accept_language: str) -> Language | None:
    """The best of an ``Accept-Language`` header (RFC 9110, 12.5.4), of equals the first one named.

    None where it names none of ours, or any will do.
    """
    asked = [
        (found[1].lower(), float(found[2] or 1)) for found in map(RANGE.fullmatch, accept_language.split(",")) if found
    ]
    ours = [(name, weight) for name, weight in asked if name in OURS and weight > 0]
    return OURS[max(ours, key=lambda one: one[1])[0]] if ours else None
