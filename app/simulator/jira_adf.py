"""Atlassian Document Format: the vendor's own JSON schema of it, and how a document looks as HTML."""

import html
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jsonschema_rs import Draft4Validator

Json = dict[str, Any]

MOST_CHARACTERS = 32_767
_ADDRESS = re.compile(r"(https?://|mailto:|/|#)")
_VALIDATOR = Draft4Validator(json.loads((Path(__file__).parent / "adf_schema" / "full.json").read_text("utf-8")))


def complaint(document: object) -> str:
    """Why Jira does not take this as a description or comment; empty: it does."""
    if isinstance(document, str):
        return "Operation value must be an Atlassian Document (see the Atlassian Document Format)"
    if why(document):
        return "INVALID_INPUT"
    if len(words(document)) > MOST_CHARACTERS:
        return "The entered text is too long. It exceeds the allowed limit of 32,767 characters."
    return ""


def why(document: object) -> list[str]:
    """The places at which a document breaks the schema, for people who look for a fault: Jira itself does not say."""
    wrong = [f"{error.instance_path}: {error.message[:300]}" for error in _VALIDATOR.iter_errors(document)]
    return wrong + [f"{link[:300]}: no address" for link in _links(document) if not _ADDRESS.match(link)]


def _links(node: object) -> Iterator[str]:
    """The schema lets them be anything; Jira does not."""
    if isinstance(node, list):
        for part in node:
            yield from _links(part)
    elif isinstance(node, dict):
        if node.get("type") == "link" and isinstance(node.get("attrs"), dict):
            yield str(node["attrs"].get("href"))
        for part in node.values():
            yield from _links(part)


def words(document: object) -> str:
    """All text of a document."""
    if isinstance(document, list):
        return "\n".join(words(part) for part in document)
    if not isinstance(document, dict):
        return ""
    return str(document.get("text", "")) + words(document.get("content", []))


# --- HTML ---


def rendered(node: Json) -> str:
    """A node that fits the schema, escaped."""
    inside = "".join(rendered(part) for part in node.get("content", ()))
    return _HTML.get(node["type"], _plain)(node, inside)


def _text(node: Json, _inside: str) -> str:
    shown = html.escape(node["text"])
    for mark in node.get("marks", ()):
        if mark["type"] == "link":
            shown = f'<a href="{html.escape(mark["attrs"]["href"])}" rel="noreferrer">{shown}</a>'
        elif tag := {"strong": "b", "em": "i", "strike": "s", "underline": "u", "code": "code"}.get(mark["type"]):
            shown = f"<{tag}>{shown}</{tag}>"
    return shown


def _plain(node: Json, inside: str) -> str:
    attrs = node.get("attrs", {})
    return inside or html.escape(str(attrs.get("text") or attrs.get("url") or attrs.get("shortName") or ""))


def _tag(name: str) -> Callable[[Json, str], str]:
    return lambda _node, inside: f"<{name}>{inside}</{name}>"


def _status(node: Json, _inside: str) -> str:
    return f'<span class="status">{html.escape(node["attrs"]["text"])}</span>'


def _panel(_node: Json, inside: str) -> str:
    return f'<div class="panel">{inside}</div>'


def _heading(node: Json, inside: str) -> str:
    level = min(node["attrs"]["level"] + 1, 6)
    return f"<h{level}>{inside}</h{level}>"


def _expand(node: Json, inside: str) -> str:
    return f"<details><summary>{html.escape(node['attrs'].get('title', ''))}</summary>{inside}</details>"


_HTML: Mapping[str, Callable[[Json, str], str]] = {
    "text": _text,
    "status": _status,
    "panel": _panel,
    "heading": _heading,
    "expand": _expand,
    "hardBreak": lambda _node, _inside: "<br>",
    "rule": lambda _node, _inside: "<hr>",
    **{kind: _tag(name) for kind, name in (
        ("paragraph", "p"), ("bulletList", "ul"), ("orderedList", "ol"), ("listItem", "li"), ("codeBlock", "pre"),
        ("blockquote", "blockquote"), ("table", "table"), ("tableRow", "tr"), ("tableCell", "td"),
        ("tableHeader", "th"), ("taskItem", "li"), ("taskList", "ul"),
    )},
}  # fmt: skip
