"""What Slack refuses in Block Kit: the documented limits, told as Slack tells them, and then slack_sdk's own models."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from slack_sdk.errors import SlackObjectFormationError
from slack_sdk.models.blocks import Block

Json = Mapping[str, Any]
Rule = Callable[[Json, str], Iterator[str]]

MOST_IN_A_MESSAGE, MOST_IN_A_VIEW = 50, 100
_STYLES = ("primary", "danger")
_TEXT = ("plain_text", "mrkdwn")
_PLAIN = ("plain_text",)
_MARKDOWN_OF_ALL_BLOCKS = 12_000
_RICH_PARTS = ("rich_text_section", "rich_text_list", "rich_text_preformatted", "rich_text_quote")
_RICH_ELEMENTS = ("text", "link", "emoji", "user", "usergroup", "channel", "broadcast", "date", "color")


def complaints(blocks: object, most: int = MOST_IN_A_MESSAGE) -> list[str]:
    """What is wrong with a message's or view's blocks, each with its JSON pointer; empty: Slack takes them."""
    if not isinstance(blocks, list):
        return ["must be an array [json-pointer:/blocks]"]
    if len(blocks) > most:
        return [f"no more than {most} items allowed [json-pointer:/blocks]"]
    found = [wrong for number, block in enumerate(blocks) for wrong in _block(block, f"/blocks/{number}")]
    return found or [*_of_all(blocks), *_by_the_sdk(blocks)]


def _block(block: object, at: str) -> Iterator[str]:
    if not isinstance(block, dict):
        yield _told("must be an object", at)
        return
    rule = _BLOCKS.get(str(block.get("type")))
    if rule is None:
        yield _told(f"unsupported type: {block.get('type')}", f"{at}/type")
        return
    yield from _length(block.get("block_id"), f"{at}/block_id", 255)
    yield from rule(block, at)


def _of_all(blocks: list[Json]) -> Iterator[str]:
    """What only all blocks together show."""
    ids = [block["block_id"] for block in blocks if block.get("block_id")]
    for twice in sorted({name for name in ids if ids.count(name) > 1}):
        yield _told(f"block_id must be unique: {twice}", "/blocks")
    if sum(len(block["text"]) for block in blocks if block["type"] == "markdown") > _MARKDOWN_OF_ALL_BLOCKS:
        yield _told(f"must be less than {_MARKDOWN_OF_ALL_BLOCKS + 1} characters", "/blocks")


def _by_the_sdk(blocks: list[Json]) -> Iterator[str]:
    """A second opinion: what slack_sdk would not have let leave."""
    for number, block in enumerate(blocks):
        try:
            parsed = Block.parse(dict(block))
            if parsed is None or not parsed.to_dict():
                yield _told("failed to match all allowed schemas", f"/blocks/{number}")
        except (SlackObjectFormationError, TypeError) as error:
            yield _told(f"failed to match all allowed schemas: {error}", f"/blocks/{number}")


# --- the parts of which blocks are made ---


def _told(wrong: str, at: str) -> str:
    return f"{wrong} [json-pointer:{at}]"


def _length(text: object, at: str, most: int, least: int = 0) -> Iterator[str]:
    if text is None:
        return
    if not isinstance(text, str):
        yield _told("must be a string", at)
    elif len(text) > most:
        yield _told(f"must be less than {most + 1} characters", at)
    elif len(text) < least:
        yield _told(f"must be more than {least - 1} characters", at)


def _text(block: Json, key: str, at: str, most: int, kinds: tuple[str, ...] = _TEXT) -> Iterator[str]:
    """A text object that must be there."""
    text = block.get(key)
    if not isinstance(text, dict):
        yield _told(f"missing required field: {key}", at)
        return
    if text.get("type") not in kinds:
        yield _told(f"unsupported type: {text.get('type')}", f"{at}/{key}/type")
    if text.keys() - {"type", "text", "emoji", "verbatim"}:
        yield _told("no more properties allowed", f"{at}/{key}")
    if "verbatim" in text and text.get("type") == "plain_text":
        yield _told("verbatim is for mrkdwn only", f"{at}/{key}")
    yield from _length(text.get("text", ""), f"{at}/{key}/text", most, 1)


def _maybe_text(block: Json, key: str, at: str, most: int, kinds: tuple[str, ...] = _TEXT) -> Iterator[str]:
    if key in block:
        yield from _text(block, key, at, most, kinds)


def _confirm(element: Json, at: str) -> Iterator[str]:
    if "confirm" not in element:
        return
    confirm, at = element["confirm"], f"{at}/confirm"
    yield from _text(confirm, "title", at, 100, _PLAIN)
    yield from _text(confirm, "text", at, 300)
    yield from _text(confirm, "confirm", at, 30, _PLAIN)
    yield from _text(confirm, "deny", at, 30, _PLAIN)
    if confirm.get("style", "primary") not in _STYLES:
        yield _told(f"must be one of {_STYLES}", f"{at}/style")


def _elements(block: Json, at: str, most: int) -> Iterator[str]:
    elements = block.get("elements")
    if not isinstance(elements, list) or not elements:
        yield _told("must provide at least 1 item", f"{at}/elements")
    elif len(elements) > most:
        yield _told(f"no more than {most} items allowed", f"{at}/elements")


# --- elements ---


def _button(element: Json, at: str) -> Iterator[str]:
    yield from _text(element, "text", at, 75, _PLAIN)
    yield from _length(element.get("action_id"), f"{at}/action_id", 255)
    yield from _length(element.get("value"), f"{at}/value", 2000)
    yield from _length(element.get("url"), f"{at}/url", 3000)
    if element.get("style", "primary") not in _STYLES:
        yield _told(f"must be one of {_STYLES}", f"{at}/style")
    yield from _confirm(element, at)


def _image_source(block: Json, at: str) -> Iterator[str]:
    if ("image_url" in block) == ("slack_file" in block):
        yield _told("must have either image_url or slack_file", at)
    yield from _length(block.get("image_url"), f"{at}/image_url", 3000, 1)
    yield from _length(block.get("alt_text", ""), f"{at}/alt_text", 2000, 1)


def _plain_text_input(element: Json, at: str) -> Iterator[str]:
    yield from _length(element.get("action_id"), f"{at}/action_id", 255)
    yield from _maybe_text(element, "placeholder", at, 150, _PLAIN)
    if not 0 <= int(element.get("max_length", 3000)) <= 3000:
        yield _told("must be between 0 and 3000", f"{at}/max_length")


def _conversations_select(element: Json, at: str) -> Iterator[str]:
    yield from _length(element.get("action_id"), f"{at}/action_id", 255)
    yield from _maybe_text(element, "placeholder", at, 150, _PLAIN)


_INTERACTIVE: dict[str, Rule] = {"button": _button}
_ACCESSORIES: dict[str, Rule] = {"button": _button, "image": _image_source}
_INPUTS: dict[str, Rule] = {"plain_text_input": _plain_text_input, "conversations_select": _conversations_select}


def _one_of(element: object, at: str, rules: Mapping[str, Rule]) -> Iterator[str]:
    kind = element.get("type") if isinstance(element, dict) else None
    if not isinstance(element, dict) or kind not in rules:
        yield _told(f"unsupported type: {kind}", f"{at}/type")
        return
    yield from rules[str(kind)](element, at)


# --- blocks ---


def _section(block: Json, at: str) -> Iterator[str]:
    fields = block.get("fields")
    if "text" not in block and not fields:
        yield _told("missing required field: text", at)
    yield from _maybe_text(block, "text", at, 3000)
    if isinstance(fields, list):
        if len(fields) > 10:
            yield _told("no more than 10 items allowed", f"{at}/fields")
        for number, _ in enumerate(fields):
            yield from _text({str(number): fields[number]}, str(number), f"{at}/fields", 2000)
    if "accessory" in block:
        yield from _one_of(block["accessory"], f"{at}/accessory", _ACCESSORIES)


def _header(block: Json, at: str) -> Iterator[str]:
    yield from _text(block, "text", at, 150, _PLAIN)


def _divider(_block: Json, _at: str) -> Iterator[str]:
    yield from ()


def _image(block: Json, at: str) -> Iterator[str]:
    yield from _image_source(block, at)
    yield from _maybe_text(block, "title", at, 2000, _PLAIN)


def _context(block: Json, at: str) -> Iterator[str]:
    yield from _elements(block, at, 10)
    for number, element in enumerate(block.get("elements") or ()):
        here = f"{at}/elements"
        if isinstance(element, dict) and element.get("type") == "image":
            yield from _image_source(element, f"{here}/{number}")
        else:
            yield from _text({str(number): element}, str(number), here, 3000)


def _actions(block: Json, at: str) -> Iterator[str]:
    yield from _elements(block, at, 25)
    ids = []
    for number, element in enumerate(block.get("elements") or ()):
        yield from _one_of(element, f"{at}/elements/{number}", _INTERACTIVE)
        ids.append(element.get("action_id") if isinstance(element, dict) else None)
    for number, name in enumerate(ids):
        if name and name in ids[:number]:
            yield _told(f"action_id must be unique: {name}", f"{at}/elements/{number}/action_id")


def _input(block: Json, at: str) -> Iterator[str]:
    yield from _text(block, "label", at, 2000, _PLAIN)
    yield from _maybe_text(block, "hint", at, 2000, _PLAIN)
    yield from _one_of(block.get("element"), f"{at}/element", _INPUTS)


def _markdown(block: Json, at: str) -> Iterator[str]:
    if "text" not in block:
        yield _told("missing required field: text", at)
    yield from _length(block.get("text"), f"{at}/text", _MARKDOWN_OF_ALL_BLOCKS, 1)


def _rich_text(block: Json, at: str) -> Iterator[str]:
    yield from _elements(block, at, 1000)
    for number, part in enumerate(block.get("elements") or ()):
        here = f"{at}/elements/{number}"
        if not isinstance(part, dict) or part.get("type") not in _RICH_PARTS:
            yield _told("unsupported type", f"{here}/type")
        elif part["type"] == "rich_text_list":
            yield from _rich_list(part, here)
        else:
            yield from _rich_elements(part, here)


def _rich_list(part: Json, at: str) -> Iterator[str]:
    if part.get("style") not in ("bullet", "ordered"):
        yield _told("must be one of bullet, ordered", f"{at}/style")
    for number, section in enumerate(part.get("elements") or ()):
        if not isinstance(section, dict) or section.get("type") != "rich_text_section":
            yield _told("unsupported type", f"{at}/elements/{number}/type")
        else:
            yield from _rich_elements(section, f"{at}/elements/{number}")


def _rich_elements(part: Json, at: str) -> Iterator[str]:
    elements = part.get("elements")
    if not isinstance(elements, list):
        yield _told("missing required field: elements", at)
        return
    for number, element in enumerate(elements):
        here = f"{at}/elements/{number}"
        if not isinstance(element, dict) or element.get("type") not in _RICH_ELEMENTS:
            yield _told("unsupported type", f"{here}/type")
        elif element["type"] == "text":
            yield from _length(element.get("text", ""), f"{here}/text", 40_000, 1)
        elif element["type"] == "link":
            yield from _length(element.get("url", ""), f"{here}/url", 3000, 1)


def _table(block: Json, at: str) -> Iterator[str]:
    rows = block.get("rows")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) for row in rows):
        yield _told("missing required field: rows", at)
        return
    if len(rows) > 100 or any(len(row) > 20 for row in rows):
        yield _told("no more than 100 rows of 20 cells allowed", f"{at}/rows")


_BLOCKS: dict[str, Rule] = {
    "section": _section,
    "header": _header,
    "divider": _divider,
    "image": _image,
    "context": _context,
    "actions": _actions,
    "input": _input,
    "markdown": _markdown,
    "rich_text": _rich_text,
    "table": _table,
}
