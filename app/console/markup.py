"""The smallest pieces of HTML. Everything that is shown passes ``text`` or ``excerpt``: it is data, never markup."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from html import escape
from urllib.parse import urlencode

from pydantic import JsonValue

# Control characters and bidirectional overrides: they could make a text look like another one.
DECEPTIVE = re.compile("[\x00-\x08\x0b-\x1f\x7f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
LONGEST_EXCERPT = 20_000
GOOD = ("succeeded", "done", "resolved", "met", "improved", "high confidence", "recovered")
BAD = ("failed", "needs_attention", "worse", "not_met", "critical", "high", "stopped", "unknown", "firing")
WARN = ("warning", "medium", "awaiting_decision", "unchanged", "not_measurable", "skipped", "dry_run", "you")
BUSY = ("received", "collecting", "analyzing", "planning", "executing", "verifying", "running")


def text(value: object) -> str:
    """Any value as harmless HTML text, also inside an attribute."""
    return escape(DECEPTIVE.sub("\ufffd", str(value)), quote=True)


def excerpt(value: str) -> str:
    """Verbatim text from a source in a box of bounded height."""
    cut = value[:LONGEST_EXCERPT] + ("\n…" if len(value) > LONGEST_EXCERPT else "")
    return f'<pre class="excerpt" tabindex="0">{text(cut)}</pre>' if value else ""


def tone(word: str) -> str:
    """The colour class of a status, risk or verdict."""
    for name, words in (("good", GOOD), ("bad", BAD), ("warn", WARN), ("busy", BUSY)):
        if word in words:
            return name
    return "calm"


def chip(word: str, shown: str = "") -> str:
    """A small label, coloured by its word."""
    return f'<span class="chip {tone(word)}">{text(shown or word.replace("_", " "))}</span>'


def moment(at: datetime) -> str:
    """A point in time, UTC, to the second."""
    return f'<time datetime="{at.isoformat()}">{at:%Y-%m-%d %H:%M:%S}</time>'


def number(value: float | None, unit: str = "") -> str:
    """A number with four significant digits, whole from a thousand on; a dash where there is none."""
    if value is None:
        return "-"
    return text(f"{value:{',.0f' if abs(value) >= 1000 else '.4g'}} {unit}".strip())


def card(title: str, body: str, kind: str = "") -> str:
    """A titled block; nothing at all without a body."""
    return f'<section class="card {kind}">{heading(title)}{body}</section>' if body else ""


def heading(words: str) -> str:
    """The title of a block."""
    return f"<h2>{text(words)}</h2>"


def bullets(items: Iterable[str], kind: str = "") -> str:
    """A list of ready HTML items."""
    inner = "".join(f"<li>{item}</li>" for item in items)
    return f'<ul class="{kind}">{inner}</ul>' if inner else ""


def references(ids: Iterable[str]) -> str:
    """Evidence ids that lead to their row."""
    return " ".join(f'<a class="ref" role="button" tabindex="0" data-goto="{text(i)}">{text(i)}</a>' for i in ids)


def outside(link: str | None, shown: str, *schemes: str) -> str:
    """A link to another system; only https is followed, or one of ``schemes``."""
    if not link or not link.startswith(tuple(f"{s}://" for s in schemes or ("https",))):
        return ""
    return f'<a href="{text(link)}" target="_blank" rel="noopener noreferrer">{text(shown)}</a>'


def address(**parameters: str | None) -> str:
    """A link within the console, as an attribute value."""
    return text("?" + urlencode({k: v for k, v in parameters.items() if v}))


def parameters(params: Mapping[str, JsonValue]) -> str:
    """The parameters of an operation, one by one."""
    shown = (f"<b>{text(k)}</b>={text(v if v is not None else 'null')}" for k, v in params.items())
    return f'<code class="params">{", ".join(shown)}</code>' if params else ""


def notice(words: str, kind: str = "warn") -> str:
    """A message to the person at the screen."""
    return f'<div class="notice {kind}" role="status">{text(words)}</div>'
