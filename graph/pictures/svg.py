"""The smallest pieces of SVG. Text comes from strangers: it is data, bounded, and never markup.

Nothing here has an id, a script, a style of its own or a reference: many pictures fit on one page.
"""

import re
from unicodedata import east_asian_width
from xml.etree import ElementTree as ET

NAMESPACE = "http://www.w3.org/2000/svg"
MAX_TITLE, MAX_DESCRIPTION = 200, 1_000  # characters of a text alternative
# XML has no place for most control characters, surrogates and noncharacters; directional overrides make one name look
# like another.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
# Width of a letter by the font's size, as DejaVu Sans Bold has it: the widest of the usual sans-serif fonts.
_SLIM, _NARROW, _BROAD, _WIDE = 0.4, 0.66, 0.76, 1.0
_SLIM_LETTERS, _WIDE_LETTERS = frozenset("ijlIft.,:;|'!-()[]/ "), frozenset("mwMW@%…")

_LIGHT = (
    "--ink:#1b2430;--soft:#5c6877;--line:#d9dfe6;--paper:#ffffff;--accent:#1d5fbf;--accent-soft:#dbe7fa;"
    "--bad:#b3261e;--bad-soft:#fbe6e4;--good:#16703c;--warn:#875300;--warn-soft:#fdf0d8;--calm-soft:#e9edf1"
)
_DARK = (
    "--ink:#e4e9ef;--soft:#9aa7b5;--line:#313b47;--paper:#1a212a;--accent:#7fb0f5;--accent-soft:#24406b;"
    "--bad:#ff9d94;--bad-soft:#43201d;--good:#72d098;--warn:#f0c069;--warn-soft:#3c2d10;--calm-soft:#2a333e"
)
STYLE = (
    f"svg.picture{{{_LIGHT};font:12px system-ui,'Segoe UI','Noto Sans','Noto Sans KR',sans-serif}}"
    f"@media (prefers-color-scheme:dark){{svg.picture{{{_DARK}}}}}"
    ".picture text{fill:var(--ink)}"
    ".picture .paper{fill:var(--paper)}"
    ".picture .soft{fill:var(--soft)}"
    ".picture .small{font-size:11px}"
    ".picture .strong{font-weight:600}"
    ".picture .end{text-anchor:end}"
    ".picture .middle{text-anchor:middle}"
    ".picture .good{fill:var(--good)}"
    ".picture .bad{fill:var(--bad)}"
    ".picture .grid{stroke:var(--line);fill:none}"
    ".picture .window{fill:var(--bad-soft);fill-opacity:.75}"
    ".picture .edge-of-window{stroke:var(--bad);stroke-width:2;fill:none}"
    ".picture .band{fill:var(--accent);fill-opacity:.2}"
    ".picture .usual{stroke:var(--accent);stroke-dasharray:6 3;fill:none}"
    ".picture .values{stroke:var(--accent);stroke-width:1.8;stroke-linecap:round;stroke-linejoin:round;fill:none}"
    ".picture .dot{fill:var(--accent)}"
    ".picture .onset{stroke:var(--ink);fill:none}"
    ".picture .ink{fill:var(--ink)}"
    ".picture .change{stroke:var(--warn);stroke-dasharray:3 3;fill:none}"
    ".picture .warn{fill:var(--warn)}"
    ".picture .node{fill:var(--calm-soft);stroke:var(--line)}"
    ".picture .node.affected{fill:var(--warn-soft);stroke:var(--warn)}"
    ".picture .node.suspected{stroke:var(--bad);stroke-dasharray:4 2}"
    ".picture .node.blamed{fill:var(--bad-soft);stroke:var(--bad);stroke-width:2.5;stroke-dasharray:none}"
    ".picture .call{stroke:var(--soft);stroke-opacity:.55;fill:none}"
    ".picture .reach{stroke:var(--warn);stroke-width:1.8;stroke-opacity:1}"
    ".picture .reach-head{fill:var(--warn)}"
    ".picture .head{fill:var(--soft)}"
    ".picture .spread{stroke:var(--bad);stroke-width:2.5;fill:none}"
    ".picture .asynchronous{stroke-dasharray:5 4}"
    ".picture .spread-head{fill:var(--bad)}"
    ".picture .plate{fill:var(--paper);stroke:var(--line)}"
    ".picture .badge{fill:var(--ink)}"
    ".picture .on-badge{fill:var(--paper);font-weight:700}"
)
"""The looks of every picture, light and dark. A page that shows pictures inline takes it once, and may set the
variables on ``svg.picture`` to its own colours."""


def clean(value: str, most: int) -> str:
    """One line of at most ``most`` characters that XML can hold, shortened in the middle."""
    near = value if len(value) <= 4 * most else _ends(value, 4 * most)  # no work on megabytes
    flat = _UNFIT.sub("\ufffd", " ".join(near.split()))
    return flat if len(flat) <= most else _ends(flat, most)


def _ends(value: str, most: int) -> str:
    head = (most - 1) // 2
    return f"{value[: most - 1 - head]}…{value[-head:]}" if head else value[:most]


def width(value: str, size: float) -> float:
    """About how many pixels a text takes at this font size, rather too many than too few."""
    return size * sum(map(_width, value))


def _width(sign: str) -> float:
    if sign in _SLIM_LETTERS:
        return _SLIM
    if sign in _WIDE_LETTERS or east_asian_width(sign) in "WF":
        return _WIDE
    return _BROAD if sign.isupper() else _NARROW


def fit(value: str, pixels: float, size: float) -> str:
    """As much of it as ``pixels`` have room for, shortened in the middle."""
    most = max(int(pixels / (size * _SLIM)), 3)
    shown = clean(value, most)
    while width(shown, size) > pixels and most > 3:
        most = min(most, len(shown)) - 1
        shown = clean(value, most)
    return shown


def picture(breadth: float, height: float, title: str, description: str) -> ET.Element:
    """An empty one with its text alternative."""
    size = {"width": number(breadth), "height": number(height), "viewBox": f"0 0 {number(breadth)} {number(height)}"}
    label = clean(title, MAX_TITLE)
    root = ET.Element("svg", {"xmlns": NAMESPACE, **size, "class": "picture", "role": "img", "aria-label": label})
    ET.SubElement(root, "title").text = label
    ET.SubElement(root, "desc").text = clean(description, MAX_DESCRIPTION)
    add(root, "rect", "paper", width=breadth, height=height, rx=6)
    return root


def add(parent: ET.Element, tag: str, kind: str, told: str = "", /, **attributes: float | str) -> ET.Element:
    """One shape of class ``kind``; ``told`` is said when the pointer rests on it."""
    values = {k: number(v) if isinstance(v, float | int) else v for k, v in attributes.items()}
    made = ET.SubElement(parent, tag, {"class": kind, **values})
    if told:
        ET.SubElement(made, "title").text = clean(told, MAX_TITLE)
    return made


def write(parent: ET.Element, x: float, y: float, words: str, kind: str = "", told: str = "") -> ET.Element:
    """A line of text whose baseline begins, or ends, at the point."""
    made = add(parent, "text", kind, told, x=x, y=y)
    if told:
        made[0].tail = clean(words, MAX_TITLE)
    else:
        made.text = clean(words, MAX_TITLE)
    return made


def number(value: float) -> str:
    """A coordinate to a tenth of a pixel."""
    return f"{round(value, 1) + 0.0:g}"


def serialised(root: ET.Element, *, inline: bool) -> str:
    """The SVG; ``inline`` leaves the style to the page."""
    if not inline:
        style = ET.Element("style")
        style.text = STYLE
        root.insert(2, style)
    return ET.tostring(root, encoding="unicode")
