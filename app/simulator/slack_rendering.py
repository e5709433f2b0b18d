"""Messages as Slack's clients show them: mrkdwn, plain text, rich text and blocks to escaped HTML.

It notes whom a text would call and which links it would make, reading it as willingly as any client of Slack does: what
is inert here is inert there.
"""

import html
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from markdown_it import MarkdownIt

from app.simulator.slack_workspace import Json, Message, Workspace

EMOJI = {
    "rotating_light": "🚨", "warning": "⚠️", "white_check_mark": "✅", "x": "❌", "mag": "🔍", "hourglass": "⌛",
    "hourglass_flowing_sand": "⏳", "wrench": "🔧", "hammer_and_wrench": "🛠️", "rewind": "⏪", "bell": "🔔",
    "information_source": "ℹ️", "red_circle": "🔴", "large_yellow_circle": "🟡", "large_green_circle": "🟢",
    "large_blue_circle": "🔵", "large_orange_circle": "🟠", "white_circle": "⚪", "black_circle": "⚫", "eyes": "👀",
    "chart_with_upwards_trend": "📈", "chart_with_downwards_trend": "📉", "ticket": "🎫", "no_entry": "⛔", "zap": "⚡",
    "raising_hand": "🙋", "bulb": "💡", "memo": "📝", "link": "🔗", "clock": "🕒", "fire": "🔥", "gear": "⚙️",
    "arrow_right": "➡️", "leftwards_arrow_with_hook": "↩️", "heavy_check_mark": "✔️", "question": "❓", "robot_face": "🤖",
}  # fmt: skip
_COMMANDS = re.compile(r"<([^<>\n]+)>")
_FENCE = re.compile(r"```\n?(.*?)\n?```", re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_BARE_URL = re.compile(r"https?://[^\s<>|\x00]+")
_BARE_PING = re.compile(r"(?<![\w@])@(here|channel|everyone)\b")
_SHORTCODE = re.compile(r":([a-z0-9_+-]+):")
_STYLES = (
    (re.compile(r"(?<![\w*])\*(?=[^\s*])(.+?)(?<=[^\s])\*(?![\w*])"), "b"),
    (re.compile(r"(?<![\w_])_(?=[^\s_])(.+?)(?<=[^\s])_(?![\w_])"), "i"),
    (re.compile(r"(?<![\w~])~(?=[^\s~])(.+?)(?<=[^\s])~(?![\w~])"), "s"),
)
_KEPT = re.compile(r"\x00(\d+)\x00")
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])


@dataclass
class Rendering:
    """One text or message on its way to HTML; ``pings`` and ``links`` are what it would do to people."""

    workspace: Workspace
    pings: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    _parts: list[str] = field(default_factory=list)

    # --- text ---

    def mrkdwn(self, text: str, *, verbatim: bool = False) -> str:
        """Slack's own markup."""
        text = text.replace("\x00", "")
        text = _FENCE.sub(lambda m: self._keep(f"<pre>{_literal(m[1])}</pre>"), text)
        text = _CODE.sub(lambda m: self._keep(f"<code>{_literal(m[1])}</code>"), text)
        text = _COMMANDS.sub(lambda m: self._keep(self._command(m[1])), text)
        if not verbatim:
            text = _BARE_URL.sub(lambda m: self._keep(self._link(m[0], m[0])), text)
            text = _BARE_PING.sub(lambda m: self._keep(self._ping(m[1])), text)
        shown = "\n".join(_line(line) for line in _literal(text).split("\n"))
        shown = re.sub(r"</blockquote>\n<blockquote>", "<br>", shown).replace("</blockquote>\n", "</blockquote>")
        return self._restored(_with_emoji(shown).replace("\n", "<br>"))

    def plain(self, text: str, *, emoji: bool = True) -> str:
        """Text that is not parsed, but for shortcodes of emoji."""
        shown = html.escape(text)
        return _with_emoji(shown).replace("\n", "<br>") if emoji else shown.replace("\n", "<br>")

    def text(self, text: Json) -> str:
        """A text object."""
        if text.get("type") == "mrkdwn":
            return self.mrkdwn(text["text"], verbatim=bool(text.get("verbatim")))
        return self.plain(text["text"], emoji=bool(text.get("emoji", True)))

    def _keep(self, shown: str) -> str:
        """HTML that nothing may change any more: a mark for it."""
        self._parts.append(shown)
        return f"\x00{len(self._parts) - 1}\x00"

    def _restored(self, text: str) -> str:
        while _KEPT.search(text):
            text = _KEPT.sub(lambda m: self._parts[int(m[1])], text)
        return text

    def _command(self, inside: str) -> str:
        """What stands between < and >."""
        target, _, label = inside.partition("|")
        if target.startswith("@"):
            return self._ping(target[1:])
        if target.startswith("#"):
            channel = self.workspace.channels.get(target[1:])
            return f'<span class="mention">#{html.escape(channel.name if channel else label or target[1:])}</span>'
        if target.startswith("!date^"):
            return html.escape(label)
        if target.startswith("!"):
            return self._ping(target[1:].partition("^")[0])
        return self._link(target, label or target)

    def _ping(self, whom: str) -> str:
        self.pings.append(whom)
        person = self.workspace.people.get(whom)
        return f'<span class="mention">@{html.escape(person.name if person else whom)}</span>'

    def _link(self, address: str, label: str) -> str:
        address = html.unescape(address)
        self.links.append(address)
        return f'<a href="{html.escape(_harmless(address))}" rel="noreferrer">{_with_emoji(_literal(label))}</a>'

    # --- blocks ---

    def message(self, message: Message) -> str:
        """All that a message holds, without who said it and when."""
        shown = [self.block(block, message) for block in message.blocks]
        if not shown and message.text:
            shown = [f'<div class="b">{self.mrkdwn(message.text)}</div>']
        return "".join([*shown, *(self._file(name) for name in message.files)])

    def block(self, block: Json, message: Message | None = None) -> str:
        """One block; buttons can be pressed where the message is told."""
        return _BLOCKS[block["type"]](self, block, message)

    def button(self, element: Json, message: Message | None) -> str:
        """A button, or a link that looks like one."""
        label, style = self.text(element["text"]), html.escape(str(element.get("style", "")))
        if element.get("url"):
            self.links.append(element["url"])
            return f'<a class="btn {style}" href="{html.escape(_harmless(element["url"]))}">{label}</a>'
        if message is None:
            return f'<button class="btn {style}" disabled>{label}</button>'
        facts = {"ts": message.ts, "action": element.get("action_id", "")}
        data = "".join(f' data-{name}="{html.escape(str(value))}"' for name, value in facts.items())
        return f'<button class="btn {style}"{data}>{label}</button>{self._confirmation(element)}'

    def _confirmation(self, element: Json) -> str:
        confirm = element.get("confirm")
        if not confirm:
            return ""
        title, text = self.text(confirm["title"]), self.text(confirm["text"])
        yes, no = self.text(confirm["confirm"]), self.text(confirm["deny"])
        style = html.escape(str(confirm.get("style", "primary")))
        return (
            f'<dialog class="confirm"><h3>{title}</h3><p>{text}</p><form method="dialog">'
            f'<button class="btn" value="no">{no}</button><button class="btn {style}" value="yes">{yes}</button>'
            "</form></dialog>"
        )

    def image(self, block: Json, kind: str) -> str:
        """A picture out of our own files, or the address of one elsewhere, which is not loaded."""
        alt = html.escape(block.get("alt_text", ""))
        if "slack_file" in block:
            return f'<img class="{kind}" src="/_shop/slack/files/{html.escape(block["slack_file"]["id"])}" alt="{alt}">'
        self.links.append(block["image_url"])
        return f'<span class="elsewhere">🖼 {alt}</span>'

    def _file(self, name: str) -> str:
        file = self.workspace.files[name]
        source, title = f"/_shop/slack/files/{file.id}", html.escape(file.title or file.name)
        if file.name.lower().endswith((".png", ".jpg", ".gif")):
            return f'<figure><figcaption>{title}</figcaption><img class="large" src="{source}" alt="{title}"></figure>'
        return f'<a class="file" href="{source}">📄 {title}</a>'

    # --- rich text ---

    def rich(self, part: Json) -> str:
        """One part of a rich_text block."""
        if part["type"] == "rich_text_list":
            tag = "ol" if part["style"] == "ordered" else "ul"
            items = "".join(f"<li>{self._run(item)}</li>" for item in part["elements"])
            return f'<{tag} style="margin-left:{18 * int(part.get("indent", 0))}px">{items}</{tag}>'
        tag = {"rich_text_preformatted": "pre", "rich_text_quote": "blockquote"}.get(part["type"], "div")
        return f"<{tag}>{self._run(part)}</{tag}>"

    def _run(self, section: Json) -> str:
        return "".join(self._element(element) for element in section["elements"])

    def _element(self, element: Json) -> str:
        match element["type"]:
            case "text":
                shown = html.escape(element["text"]).replace("\n", "<br>")
            case "link":
                self.links.append(element["url"])
                label = html.escape(element.get("text") or element["url"])
                shown = f'<a href="{html.escape(_harmless(element["url"]))}" rel="noreferrer">{label}</a>'
            case "emoji":
                shown = EMOJI.get(element["name"], f":{html.escape(element['name'])}:")
            case "user" | "broadcast" | "usergroup":
                shown = self._ping(element.get("user_id") or element.get("range") or element["usergroup_id"])
            case _:
                shown = html.escape(str(element.get("fallback") or element.get("channel_id") or ""))
        for style, tag in (("bold", "b"), ("italic", "i"), ("strike", "s"), ("code", "code")):
            if element.get("style", {}).get(style):
                shown = f"<{tag}>{shown}</{tag}>"
        return shown

    def markdown(self, text: str) -> str:
        """A markdown block; HTML in it is text."""
        shown = str(_MARKDOWN.render(text))
        self.links += [html.unescape(address) for address in re.findall(r'<a href="([^"]*)"', shown)]
        return shown


# --- blocks ---


def _section(r: Rendering, block: Json, message: Message | None) -> str:
    text = f'<div class="grow">{r.text(block["text"])}</div>' if "text" in block else ""
    fields = "".join(f"<div>{r.text(text)}</div>" for text in block.get("fields") or ())
    accessory = block.get("accessory")
    beside = ""
    if accessory:
        beside = r.button(accessory, message) if accessory["type"] == "button" else r.image(accessory, "thumb")
    shown = f'<div class="b row">{text}{beside}</div>' if text or beside else ""
    return shown + (f'<div class="b fields">{fields}</div>' if fields else "")


def _header(r: Rendering, block: Json, _message: Message | None) -> str:
    return f'<h2 class="b">{r.text(block["text"])}</h2>'


def _divider(_r: Rendering, _block: Json, _message: Message | None) -> str:
    return "<hr>"


def _image(r: Rendering, block: Json, _message: Message | None) -> str:
    title = f"<figcaption>{r.text(block['title'])}</figcaption>" if "title" in block else ""
    return f"<figure>{title}{r.image(block, 'large')}</figure>"


def _context(r: Rendering, block: Json, _message: Message | None) -> str:
    shown = [r.image(e, "small") if e["type"] == "image" else f"<span>{r.text(e)}</span>" for e in block["elements"]]
    return f'<div class="b context">{"".join(shown)}</div>'


def _actions(r: Rendering, block: Json, message: Message | None) -> str:
    return f'<div class="b actions">{"".join(r.button(e, message) for e in block["elements"])}</div>'


def _input(r: Rendering, block: Json, _message: Message | None) -> str:
    element = block["element"]
    name, hint = html.escape(element.get("action_id", "")), block.get("hint")
    placeholder = html.escape(element.get("placeholder", {}).get("text", ""))
    below = f"<small>{r.text(hint)}</small>" if hint else ""
    if element["type"] != "plain_text_input":
        return ""  # where a conversation is chosen, the one it was opened from is
    tag = "textarea" if element.get("multiline") else "input"
    field = f'<{tag} name="{name}" placeholder="{placeholder}"></{tag}>'
    return f'<label class="b">{r.text(block["label"])}{field}{below}</label>'


def _markdown(r: Rendering, block: Json, _message: Message | None) -> str:
    return f'<div class="b md">{r.markdown(block["text"])}</div>'


def _rich_text(r: Rendering, block: Json, _message: Message | None) -> str:
    return f'<div class="b rich">{"".join(r.rich(part) for part in block["elements"])}</div>'


def _table(r: Rendering, block: Json, _message: Message | None) -> str:
    rows = "".join(f"<tr>{''.join(f'<td>{_cell(r, cell)}</td>' for cell in row)}</tr>" for row in block["rows"])
    return f'<table class="b">{rows}</table>'


def _cell(r: Rendering, cell: Json) -> str:
    if cell.get("type") == "rich_text":
        return "".join(r.rich(part) for part in cell["elements"])
    return html.escape(str(cell.get("text", cell.get("value", ""))))


_BLOCKS: Mapping[str, Callable[[Rendering, Json, Message | None], str]] = {
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


# --- text ---


def _literal(text: str) -> str:
    """Slack's three entities are read as what they stand for, then everything is escaped for HTML."""
    for entity, sign in (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        text = text.replace(entity, sign)
    return html.escape(text)


def _line(line: str) -> str:
    quoted = line.startswith("&gt;")
    shown = line.removeprefix("&gt;").lstrip() if quoted else line
    for pattern, tag in _STYLES:
        shown = pattern.sub(rf"<{tag}>\1</{tag}>", shown)
    return f"<blockquote>{shown}</blockquote>" if quoted else shown


def _with_emoji(shown: str) -> str:
    return _SHORTCODE.sub(lambda m: EMOJI.get(m[1], m[0]), shown)


def _harmless(address: str) -> str:
    """Our own page follows http and mail only, whatever Slack's clients would do."""
    return address if address.startswith(("http://", "https://", "mailto:", "/")) else "#"


def effects(workspace: Workspace, message: Message) -> Mapping[str, Any]:
    """Whom a message would call, and what it would link to.

    Beside blocks its text is what notifications show: it calls people, and there is nothing to click in it.
    """
    rendering, notification = Rendering(workspace), Rendering(workspace)
    rendering.message(message)
    if message.blocks:
        notification.mrkdwn(message.text)
    return {"pings": rendering.pings + notification.pings, "links": list(dict.fromkeys(rendering.links))}
