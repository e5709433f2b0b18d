"""Slack's Block Kit, as far as we use it, within its limits. Pure.

All text is ``plain_text``, or a ``text`` element of ``rich_text``: Slack parses neither, so whatever stands in an alert
or a log is shown as it is. There is no ``mrkdwn`` in what we send.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from pydantic import JsonValue

from app.intake._slack_text import escaped

Element = dict[str, JsonValue]
Block = dict[str, JsonValue]
Parts = Sequence[str | Element]
"""A line: text, of whomever, and elements."""
EMPTY: Element = {}
Line = list[str | Element]

MORE = "…"
HEADER, BUTTON, VALUE, ID, URL = 150, 75, 2_000, 255, 3_000  # characters, as Slack takes them
CONFIRM_TITLE, CONFIRM_TEXT, CONFIRM_BUTTON = 100, 300, 30
PIECE = 600  # of one piece of text: more is read on the incident's page
PARAGRAPHS = 2_900  # of one block
MESSAGE = 12_000  # of all blocks together
BLOCKS = 48  # Slack takes 50
FALLBACK = 3_500  # of the text of a message that is sent without blocks
CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufff9-\ufffb]")
CALLS = re.compile(r"@(?=channel|here|everyone|group)", re.IGNORECASE)
ODD = re.compile(r"[\s<>|\x00-\x1f\x7f]")  # in an address
WORD_JOINER = "\u2060"


# --- text ---


def clean(text: str) -> str:
    """Without control characters, signs that turn the direction of writing, and halves of surrogate pairs."""
    return CONTROLS.sub(" ", text.replace("\t", " ")).encode("utf-8", "replace").decode()


def flat(text: str) -> str:
    """In one line."""
    return " ".join(clean(text).split())


def cut(text: str, most: int) -> str:
    """At most so many characters, ended at a word with «…» where there were more."""
    if len(text) <= most:
        return text
    kept = text[: most - len(MORE)]
    within = not text[len(kept)].isspace() and re.search(r"\s", kept[most // 2 :])
    at_word = kept.rsplit(None, 1)[0] if within else kept
    while at_word and unicodedata.combining(text[len(at_word)]):  # an accent stays with its letter
        at_word = at_word[:-1]
    return at_word.rstrip() + MORE


def inert(text: str) -> str:
    """For the text beside the blocks, which notifications show: Slack would read markup in it."""
    return CALLS.sub(f"@{WORD_JOINER}", escaped(flat(text)))


# --- elements of rich text ---


def words(text: str, most: int = PIECE, **style: bool) -> Element:
    """A piece of text; ``style``: bold, italic, code. Without text it is ``EMPTY``: Slack takes no empty element."""
    shown = _edges(clean(text), most)
    if not text:
        return EMPTY
    return {"type": "text", "text": shown or " "} | ({"style": dict(style)} if style else {})


def _edges(text: str, most: int) -> str:
    """White space within is one blank; at the ends it is kept, as it parts this piece from the next."""
    said = cut(" ".join(text.split()), most)
    before = " " if text[:1].isspace() and said else ""
    after = " " if text[-1:].isspace() and said else ""
    return f"{before}{said}{after}"


def bold(text: str, most: int = PIECE) -> Element:
    """Set off."""
    return words(text, most, bold=True)


def code(text: str, most: int = PIECE) -> Element:
    """Names of operations, ids."""
    return words(text, most, code=True)


def italic(text: str, most: int = PIECE) -> Element:
    """Said aside."""
    return words(text, most, italic=True)


def link(url: str | None, text: str) -> Element:
    """A link; the text alone where this is no web address."""
    if not url or not linkable(url):
        return words(text)
    return {"type": "link", "url": url, "text": cut(flat(text), PIECE) or "-"}


def linkable(url: str) -> bool:
    """Whether it is an address of the web without anything odd in it."""
    try:
        scheme, host = urlsplit(url)[:2]
    except ValueError:
        return False
    return scheme in ("https", "http") and bool(host) and len(url) <= URL and not ODD.search(url)


def section(*parts: str | Element) -> Element:
    """A line or paragraph."""
    elements: list[JsonValue] = [words(p) if isinstance(p, str) else p for p in parts if p and p != EMPTY]
    return {"type": "rich_text_section", "elements": elements}


def bullets(lines: Iterable[Parts], indent: int = 0) -> Element:
    """A list."""
    items: list[JsonValue] = [item for line in lines if _holds(item := section(*line))]
    return {"type": "rich_text_list", "style": "bullet", "indent": indent, "elements": items}


def quote(text: str, most: int = PIECE) -> Element:
    """Somebody's own words."""
    return {"type": "rich_text_quote", "elements": section(words(text, most))["elements"]}


def preformatted(text: str, most: int = PIECE) -> Element:
    """Lines as they are."""
    return {"type": "rich_text_preformatted", "elements": [{"type": "text", "text": cut(clean(text), most) or "-"}]}


# --- blocks ---


def rich(*elements: Element) -> list[Block]:
    """Paragraphs and lists in as many blocks as they take; those without anything in them are left out."""
    blocks: list[Block] = []
    held: list[JsonValue] = []
    room = PARAGRAPHS
    for element in filter(_holds, elements):
        size = characters(element)
        if held and size > room:
            blocks.append({"type": "rich_text", "elements": held})
            held, room = [], PARAGRAPHS
        held.append(_shortened(element, room))
        room -= size
    return [*blocks, {"type": "rich_text", "elements": held}] if held else blocks


def _holds(element: Element) -> bool:
    return bool(element.get("elements"))


def _shortened(element: Element, room: int) -> JsonValue:
    """As many of its lines as there is room for."""
    inner = element["elements"]
    if not isinstance(inner, list) or characters(element) <= room:
        return element
    kept: list[JsonValue] = []
    for item in inner:
        room -= characters(item)
        if room < 0:
            break
        kept.append(item)
    rest: Element = words(MORE) if element["type"] != "rich_text_list" else section(MORE)
    return {**element, "elements": [*kept, rest]}


def header(text: str) -> Block:
    """A title."""
    return {"type": "header", "text": plain(text, HEADER)}


def context(text: str) -> list[Block]:
    """Small print."""
    return [{"type": "context", "elements": [plain(text, PIECE)]}] if text.strip() else []


def actions(block_id: str, buttons: Sequence[Element]) -> list[Block]:
    """A row of buttons; nothing where there are none."""
    return [{"type": "actions", "block_id": block_id[:ID], "elements": list(buttons)}] if buttons else []


def button(text: str, action_id: str, value: str, confirm: Element | None = None, style: str = "") -> Element:
    """``value`` names what is decided; one that Slack would not take whole is a fault of ours."""
    if len(value) > VALUE:
        raise ValueError(f"a button's value has at most {VALUE} characters, not {len(value)}")
    made: Element = {"type": "button", "action_id": action_id, "text": plain(text, BUTTON), "value": value}
    return made | ({"confirm": confirm} if confirm else {}) | ({"style": style} if style else {})


def confirmation(title: str, text: str, yes: str, no: str) -> Element:
    """What is asked before a click counts."""
    return {
        "title": plain(title, CONFIRM_TITLE),
        "text": plain(text, CONFIRM_TEXT, lines=True),
        "confirm": plain(yes, CONFIRM_BUTTON),
        "deny": plain(no, CONFIRM_BUTTON),
    }


def plain(text: str, most: int, *, lines: bool = False) -> Element:
    """Text that is shown as it is; not even an emoji is made of ``:fire:``."""
    said = "\n".join(filter(None, map(flat, text.splitlines()))) if lines else flat(text)
    return {"type": "plain_text", "text": cut(said, most) or "-", "emoji": False}


# --- messages ---


def bounded(blocks: Sequence[Block], url: str, more: str) -> list[Block]:
    """What Slack takes in one message: text that is too much is left out, with a link to all of it; never a button."""
    kept: list[Block] = []
    room, places = MESSAGE, BLOCKS - sum(block["type"] == "actions" for block in blocks)
    left_out = False
    for block in blocks:
        if block["type"] == "actions":
            kept.append(block)
            continue
        size = characters(block)
        if size > room or places <= 0:
            left_out, room = True, 0
            continue
        kept.append(block)
        room, places = room - size, places - 1
    return [*kept, *rich(section(link(url, more)))] if left_out else kept


def characters(value: JsonValue) -> int:
    """How much text is in it."""
    return sum(map(len, texts(value)))


def texts(value: JsonValue) -> list[str]:
    """All that people read in a block, an element, or several, in order."""
    if isinstance(value, list):
        return [said for item in value for said in texts(item)]
    if not isinstance(value, dict):
        return []
    own = value.get("text")
    inner = [key for key in ("text", "elements", "confirm", "title", "deny") if key in value]
    said = [own] if isinstance(own, str) else []
    return said + [found for key in inner for found in texts(value[key])]


def as_text(blocks: Sequence[Block]) -> str:
    """The blocks without their buttons, as lines of text in which Slack finds no markup."""
    lines = [line for block in blocks if block["type"] != "actions" for line in _lines(block)]
    return cut("\n".join(filter(None, lines)), FALLBACK)


def _lines(block: Block) -> list[str]:
    inner = block.get("elements")
    if block["type"] != "rich_text" or not isinstance(inner, list):
        return [inert(" ".join(texts(block)))]
    rows: list[str] = []
    for element in inner:
        listed = isinstance(element, dict) and element.get("type") == "rich_text_list" and element["elements"]
        rows += [f"• {inert(''.join(texts(i)))}" for i in listed] if isinstance(listed, list) else [_row(element)]
    return rows


def _row(element: JsonValue) -> str:
    return inert("".join(texts(element)))
