"""Atlassian Document Format: the few nodes that we write. Pure.

Text from alerts, logs and models is in text nodes only, where no mention, link or markup of it takes effect; marks and
links are ours alone.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Literal
from urllib.parse import urlsplit

from pydantic import JsonValue

Node = dict[str, JsonValue]
Inline = Sequence[Node]
Mark = Literal["strong", "em", "code"]
MAX_TEXT = 1_000  # characters of one text node
MAX_LINE = 240  # of a line in a code block
MAX_URL = 2_000
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufdd0-\ufdef\ufffe\uffff]")
_HALF = re.compile("[\ud800-\udfff]")


def clean(value: str) -> str:
    """Without control characters, directional overrides and halves of surrogate pairs; line ends and tabs stay."""
    return _HALF.sub("\ufffd", _UNFIT.sub("", value.replace("\r\n", "\n")))


def line(value: str, most: int = MAX_TEXT) -> str:
    """In one line of at most ``most`` characters; … stands for what is left out."""
    flat = " ".join(clean(value[: 4 * most]).split())
    return flat if len(flat) <= most and len(value) <= 4 * most else f"{flat[: most - 1]}…"


def size(node: JsonValue) -> int:
    """Of the node as JSON, in UTF-16 units: what Jira's limit counts at most."""
    return len(json.dumps(node, ensure_ascii=False).encode("utf-16-le", "replace")) // 2


# --- inline ---


def text(value: str, *marks: Mark, most: int = MAX_TEXT) -> Inline:
    """A text node; nothing where there is no text, for ADF has no empty ones."""
    said = line(value, most)
    if not said:
        return ()
    node: Node = {"type": "text", "text": said}
    return ({**node, "marks": [{"type": mark} for mark in marks]} if marks else node,)


def link(value: str, url: str | None) -> Inline:
    """The text, and where it leads; only the text if that is no address of a page."""
    shown = text(value)
    if not url or not is_page(url):
        return shown
    return [{**node, "marks": [{"type": "link", "attrs": {"href": url}}]} for node in shown]


def is_page(url: str) -> bool:
    """Whether it is http(s) with a host, without credentials, and plain ASCII without blanks."""
    if len(url) > MAX_URL or not url.isascii() or re.search(r"[\s\x00-\x1f\x7f\"<>\\]", url):
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc


def joined(*parts: Inline) -> Inline:
    """The parts that are not empty, blanks between them."""
    nodes: list[Node] = []
    for part in filter(None, parts):
        nodes += [{"type": "text", "text": " "}, *part] if nodes else part
    return nodes


# --- blocks ---


def paragraph(*parts: Inline) -> Node:
    """One, of all the parts."""
    return {"type": "paragraph", "content": list(joined(*parts))}


def heading(level: int, value: str) -> Node:
    """Level 1 to 6."""
    return {"type": "heading", "attrs": {"level": level}, "content": list(text(value))}


def bullets(items: Iterable[Inline]) -> list[Node]:
    """A bullet list; nothing where there are no items."""
    return _list("bulletList", items)


def numbered(items: Iterable[Inline]) -> list[Node]:
    """The same with numbers from 1."""
    return _list("orderedList", items)


def _list(kind: str, items: Iterable[Inline]) -> list[Node]:
    content: list[JsonValue] = [{"type": "listItem", "content": [paragraph(item)]} for item in items]
    return [{"type": kind, "content": content}] if content else []


def code(value: str, lines: int) -> list[Node]:
    """The first lines verbatim; a mark says that there are more. Nothing where there is no text."""
    kept = clean(value[: lines * MAX_LINE * 4]).rstrip().split("\n")
    shown = [row if len(row) <= MAX_LINE else f"{row[: MAX_LINE - 1]}…" for row in kept[:lines]]
    told = "\n".join([*shown, *(["…"] if len(kept) > lines else [])])
    return [{"type": "codeBlock", "content": [{"type": "text", "text": told}]}] if told.strip() else []


def table(heads: Sequence[str], rows: Iterable[Sequence[Inline]], widths: Sequence[int] = ()) -> list[Node]:
    """With a row of titles, its columns so many pixels wide; nothing where there are no rows."""
    body = [_row("tableCell", row, widths) for row in rows]
    titles = _row("tableHeader", [text(head) for head in heads], widths)
    return [{"type": "table", "content": [titles, *body]}] if body else []


def _row(kind: str, cells: Sequence[Inline], widths: Sequence[int]) -> Node:
    made: list[Node] = [{"type": kind, "content": [paragraph(cell)]} for cell in cells]
    for cell, width in zip(made, widths, strict=False):
        cell["attrs"] = {"colwidth": [width]}
    return {"type": "tableRow", "content": list(made)}


def document(blocks: Iterable[Node]) -> Node:
    """The whole."""
    return {"type": "doc", "version": 1, "content": list(blocks)}


# --- bounds ---


def fitted(blocks: Sequence[Node], room: int) -> tuple[list[Node], bool]:
    """As many of the blocks as have room, the last list or table cut short; and whether that is all of them."""
    kept: list[Node] = []
    left = room
    for block in blocks:
        shorter = _shortened(block, left)
        if shorter is not None:
            kept.append(shorter)
            left -= size(shorter) + 2
        if shorter is not block:
            return kept, False
    return kept, True


def _shortened(block: Node, room: int) -> Node | None:
    """The block, or as many of its items and rows as fit; None: not even one."""
    if size(block) <= room:
        return block
    content = block.get("content")
    if block["type"] not in ("bulletList", "orderedList", "table") or not isinstance(content, list):
        return None
    least = 2 if block["type"] == "table" else 1  # a table's first row has its titles
    while len(content) > least:
        content = content[:-1]
        if size({**block, "content": content}) <= room:
            return {**block, "content": content}
    return None
