"""The smallest pieces of our markdown: what strangers wrote, figures, times, rows of tables. Pure."""

import re
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import quote


def inline(text: str) -> str:
    """Text from alerts, logs and models is data: no markdown, HTML or mention of it takes effect."""
    flat = " ".join(text.split())
    for sign in "\\`*_[]<>|#@~":
        flat = flat.replace(sign, "\\" + sign)
    return re.sub(r"^[-+=]", r"\\\g<0>", flat)


def link_target(url: str) -> str:
    """The URL without what would end it, or begin something else, in ``[text](url)``."""
    return re.sub(r"[()<>\\`\s\x00-\x1f\x7f]", lambda sign: quote(sign[0], safe=""), url)


def evidence_ids(ids: Sequence[str]) -> str:
    """Evidence ids; a model may have made them up."""
    return ", ".join(map(inline, ids)) or "-"


def table_head(*titles: str) -> list[str]:
    """The two lines above a table's rows."""
    return [table_row(*titles), "|" + "---|" * len(titles)]


def table_row(*cells: str) -> str:
    """Cells hold no line break and no bare ``|``: see ``inline``."""
    return "| " + " | ".join(cells) + " |"


def figure(value: float | None) -> str:
    """Four digits are enough for people; «-»: not measured."""
    return "-" if value is None else f"{value:,.4g}"


def moment(at: datetime) -> str:
    """A UTC time, as people read it."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def code(text: str) -> str:
    """Text as a code span, in a table too: nothing in it takes effect, or ends it."""
    flat = " ".join(text.split()).replace("`", "'").replace("|", "¦")
    return f"`{flat}`" if flat else "-"
