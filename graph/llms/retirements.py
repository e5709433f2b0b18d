"""When OpenAI shuts models down, as announced in the type hints of openai 3.54.0 (developers.openai.com, deprecations).

Azure, and servers of one's own, have dates of their own: nothing is known of those here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

SUCCESSOR = "gpt-5.5"  # no date announced; what the vendor's own examples use

_ANNOUNCED: Mapping[date, tuple[str, ...]] = {
    date(2026, 10, 23): (
        "gpt-4.1-nano",
        "o4-mini",
        "o3-mini",
        "o1",
        "gpt-4o-2024-05-13",
        "gpt-4-turbo",
        "gpt-4-1106-preview",
        "gpt-4",
        "gpt-3.5-turbo",
    ),
    date(2026, 12, 11): ("gpt-5", "gpt-5-mini", "gpt-5-nano", "o3"),
    date(2027, 1, 14): ("gpt-4o", "gpt-4o-mini", "gpt-4.1", "gpt-4.1-mini"),
    date(2027, 4, 1): ("gpt-5.1", "gpt-5.4-nano"),
}
_SNAPSHOT = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{4})\Z")


@dataclass(frozen=True)
class Retirement:
    """The last day of a model, and what to use in its place."""

    on: date
    successor: str = SUCCESSOR


def retirement(model: str) -> Retirement | None:
    """Of a model or a dated snapshot of it; None where none is announced."""
    for name in (model, _SNAPSHOT.sub("", model)):
        for on, names in _ANNOUNCED.items():
            if name in names:
                return Retirement(on)
    return None
