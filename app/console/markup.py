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
GOOD = ("succeeded", "done", "resolved", "met", "improved", "high confidence", "recovered", "ok", "all")
BAD = ("failed", "needs_attention", "worse", "not_met", "critical", "high", "stopped", "unknown", "firing")
WARN = (
    *("warning", "medium", "awaiting_decision", "unchanged", "not_measurable", "skipped", "dry_run", "you"),
    *("partly", "unclear"),
)
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


def refusal(reason: str, headline: str, detail: str) -> str:
    """What was not done and why; ``reason`` is for programs."""
    said = f"<b>{text(headline)}</b>\n{text(detail)}"
    return f'<div class="notice bad" role="alert" data-reason="{text(reason)}">{said}</div>'


def table(heads: Iterable[str], rows: Iterable[Iterable[str]], kind: str) -> str:
    """A table of ready HTML cells; nothing at all without rows. Narrow screens name each cell by its column."""
    titles = [text(head) for head in heads]
    body = "".join(f"<tr>{_cells(titles, row)}</tr>" for row in rows)
    top = "".join(f"<th>{title}</th>" for title in titles)
    return f'<table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>' if body else ""


def _cells(titles: Iterable[str], row: Iterable[str]) -> str:
    return "".join(f'<td data-head="{title}">{cell}</td>' for title, cell in zip(titles, row, strict=True))


def meter(share: float, tone: str = "") -> str:
    """A small bar for a share of 0 to 1; what is above 1 fills it."""
    width = 100 * min(max(share, 0.0), 1.0)
    return (
        f'<svg class="meter {tone}" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="100" height="8"></rect><rect class="of" width="{width:.1f}" height="8"></rect></svg>'
    )


def folded(summary: str, body: str, *, is_open: bool, kind: str = "") -> str:
    """Ready HTML behind a line that opens it."""
    named = f' class="{kind}"' if kind else ""
    return f"<details{named}{' open' if is_open else ''}><summary>{summary}</summary>{body}</details>"
