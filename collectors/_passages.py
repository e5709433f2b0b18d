"""Written knowledge, cut into sections, and which of them fit an alert. Pure.

Pages are text of strangers: they are quoted, never followed, and nothing in them is fetched.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from html.parser import HTMLParser
from math import log

from markdown_it import MarkdownIt

from collectors.base import Document, Scope

MAX_TEXT = 4_000  # characters of one section that are quoted
MAX_MARKUP = 500_000  # characters of one page that are cut into sections
MAX_WORDS = 80  # of the alert that are looked for

_TITLE, _TEXT, _HINT = 2.0, 1.0, 2.0  # how much a word says: the alert's title, its text, what people added
_IN_HEADING = 3  # a word in a heading or among the symptoms counts like so many in the text
_DECLARED, _NAMED = 4.0, 2.0  # a page about the service, a section that names it; a neighbour's, less with each hop
_SATURATION, _LENGTH = 1.2, 0.75  # BM25's k1 and b
_WORD = re.compile(r"[^\W_]+")
_NO_TAG = re.compile(r"<(?!/?[A-Za-z][\w:.-]*(?:\s[^<>]*)?/?>)")
_MARKDOWN = MarkdownIt("commonmark")
_BLOCKS_ONLY = MarkdownIt("commonmark").disable("inline")
_TOO_COMMON = frozenset(
    _WORD.findall(
        "the and for with from that this have has had are was were not but you your our its will when then than what"
        " which alert alerts alarm monitor triggered warning critical error errors service http https com www"
    )
)


@dataclass(frozen=True)
class Section:
    """One heading and the text below it, up to the next one."""

    title: str
    path: tuple[str, ...]
    text: str
    link: str | None = None
    services: tuple[str, ...] = ()
    symptoms: tuple[str, ...] = ()

    @cached_property
    def counts(self) -> Counter[str]:
        """How often it says each word."""
        heading = words(" ".join((self.title, *self.path, *self.symptoms)))
        return Counter(words(self.text)) + Counter(heading * _IN_HEADING)

    @cached_property
    def told(self) -> str:
        """Everything in which a service may be named."""
        return "\n".join((self.title, *self.path, self.text))


@dataclass(frozen=True)
class Question:
    """What an incident asks of written knowledge."""

    hops: Mapping[str, int]
    """Services, and how far each is from the alerted one."""
    weights: Mapping[str, float]
    """Words of the alert, and how much each says."""


@dataclass(frozen=True)
class Outline:
    """A heading as it stands on the page: its level, and the text up to the next one."""

    level: int
    heading: str
    text: str


# --- what is asked --------------------------------------------------------------------------------------------


def question(scope: Scope) -> Question:
    """The services in play, and the words of the alert and of people's hints."""
    hops = {target.service: target.hops for target in scope.targets} or {scope.service: 0}
    known = {word for service in (*hops, scope.environment) for word in words(service)}
    weights: dict[str, float] = {}
    symptom = scope.symptom
    told = ((symptom.title, _TITLE), (" ".join(scope.hints), _HINT), (symptom.rule, _TEXT), (symptom.text, _TEXT))
    for text, weight in told:
        for word in words(text):
            if word not in known and (word in weights or len(weights) < MAX_WORDS):
                weights[word] = max(weights.get(word, 0.0), weight)
    return Question(hops=hops, weights=weights)


def words(text: str) -> list[str]:
    """Lower-case words that say something: no fillers, no plural s, numbers only from three digits on."""
    found = (word.lower() for word in _WORD.findall(text[:MAX_MARKUP]))
    return [
        word[:-1] if len(word) > 4 and word.endswith("s") and not word.endswith("ss") else word
        for word in found
        if len(word) > 2 and word not in _TOO_COMMON
    ]


# --- which sections fit -----------------------------------------------------------------------------------------


def best(sections: Sequence[Section], asked: Question, limit: int) -> list[Document]:
    """The sections that fit best, best first: those about the services in play, and those that share rare words.

    A page that says it is about other services only is left out, however many words it shares.
    """
    corpus = [section for section in sections if section.text.strip()]
    rarity = _rarity(corpus, asked.weights)
    average = sum(s.counts.total() for s in corpus) / len(corpus) if corpus else 1.0
    scored = []
    for position, section in enumerate(corpus):
        shared = sorted((w for w in asked.weights if section.counts[w]), key=lambda w: -rarity[w] * asked.weights[w])
        nearness, about = _nearness(section, asked.hops)
        if not _fits(section, shared, nearness):
            continue
        score = nearness + sum(asked.weights[w] * rarity[w] * _frequency(section, w, average) for w in shared)
        scored.append((-score, position, section, _why(about, shared)))
    return [_document(section, why) for _, _, section, why in sorted(scored, key=lambda s: s[:2])[:limit]]


def _fits(section: Section, shared: Sequence[str], nearness: float) -> bool:
    """About a service in play; or about anything, with two words of the alert or more."""
    return nearness > 0 or (not section.services and len(shared) >= 2)


def _rarity(corpus: Sequence[Section], weights: Iterable[str]) -> dict[str, float]:
    total = len(corpus)
    having = {word: sum(1 for section in corpus if section.counts[word]) for word in weights}
    return {word: log(1 + (total - n + 0.5) / (n + 0.5)) for word, n in having.items()}


def _frequency(section: Section, word: str, average: float) -> float:
    count, length = section.counts[word], section.counts.total() / average
    return count * (_SATURATION + 1) / (count + _SATURATION * (1 - _LENGTH + _LENGTH * length))


def _nearness(section: Section, hops: Mapping[str, int]) -> tuple[float, str]:
    """How much a section is about the services in play, and in what way about which one."""
    declared = {name.lower() for name in section.services}
    found = [(_DECLARED / (1 + n), f"about {s}, as the page says") for s, n in hops.items() if s.lower() in declared]
    if not declared or found:
        found += [(_NAMED / (1 + n), f"names {s}") for s, n in hops.items() if _names(s).search(section.told)]
    return max(found, key=lambda f: f[0], default=(0.0, ""))


def _names(service: str) -> re.Pattern[str]:
    """A service's name as people write it: payment-service, payment_service, Payment Service."""
    parts = [re.escape(part) for part in re.split(r"[-_\s]+", service)]
    return re.compile(r"(?<![\w-])" + r"[-_\s]?".join(parts) + r"(?![\w-])", re.IGNORECASE)


def _why(about: str, shared: Sequence[str]) -> str:
    of_alert = f"shares with the alert: {', '.join(shared[:8])}" if shared else ""
    return "; ".join(part for part in (about, of_alert) if part)


def _document(section: Section, why: str) -> Document:
    cut = len(section.text) > MAX_TEXT
    return Document(
        title=section.title[:300],
        section=" > ".join(section.path)[:300],
        text=section.text[:MAX_TEXT].rstrip() + ("\n[…]" if cut else ""),
        link=section.link,
        services=section.services,
        why=why,
    )


# --- pages to sections --------------------------------------------------------------------------------------------


def with_paths(outlines: Iterable[Outline]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each section's headings, outermost first, and its text."""
    above: list[Outline] = []
    for outline in outlines:
        above = [o for o in above if o.level < outline.level]
        if outline.heading:
            above.append(outline)
        yield tuple(o.heading for o in above), outline.text


def markdown_outlines(text: str) -> list[Outline]:
    """The page's headings, with what is written below each as it stands in the file; what comes first has none."""
    lines = text[:MAX_MARKUP].splitlines()
    tokens = _BLOCKS_ONLY.parse("\n".join(lines))
    heads = [(t, tokens[i + 1]) for i, t in enumerate(tokens) if t.type == "heading_open" and t.level == 0]
    spans = [token.map or [0, 0] for token, _ in heads]
    ends = [*(span[0] for span in spans), len(lines)][1:]
    found = [Outline(7, "", "\n".join(lines[: spans[0][0] if spans else len(lines)]).strip())]
    for (token, inline), span, end in zip(heads, spans, ends, strict=True):
        found.append(Outline(int(token.tag[1]), _plain(inline.content), "\n".join(lines[span[1] : end]).strip()))
    return [outline for outline in found if outline.heading or outline.text]


def _plain(heading: str) -> str:
    """A heading without its markup."""
    [inline] = _MARKDOWN.parseInline(heading[:300])
    return "".join(child.content for child in inline.children or () if child.type in ("text", "code_inline"))


def storage_outlines(storage: str) -> list[Outline]:
    """The same of a page in Confluence's storage format; of macros only the text inside is kept."""
    reader = _StorageReader()
    reader.feed(_only_whole_tags(storage[:MAX_MARKUP]))
    reader.close()
    return reader.outlines()


def _only_whole_tags(storage: str) -> str:
    """``<![CDATA[…]]>`` and whatever is no whole tag as ordinary text: on those the parser fails, or takes minutes."""
    first, *others = storage.split("<![CDATA[")
    pieces = [first]
    for other in others:
        inside, _, after = other.partition("]]>")
        pieces += [escape(inside), after]
    return _NO_TAG.sub("&lt;", "".join(pieces))


class _StorageReader(HTMLParser):
    """XHTML to lines of text under headings."""

    _BLOCKS = frozenset(
        ("p", "div", "ul", "ol", "li", "tr", "table", "pre", "blockquote", "br", "ac:plain-text-body", "ac:task")
    )
    _LEFT_OUT = frozenset(("script", "style", "ac:parameter", "ac:task-id", "ac:task-status"))
    _HEADINGS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._found: list[tuple[int, list[str], list[str]]] = [(7, [], [])]
        self._in_heading = False
        self._left_out = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Headings begin a section, blocks a line."""
        if tag in self._LEFT_OUT:
            self._left_out += 1
        elif tag in self._HEADINGS:
            self._found.append((int(tag[1]), [], []))
            self._in_heading = True
        elif tag in self._BLOCKS:
            self._text("\n- " if tag == "li" else "\n")
        elif tag in ("td", "th"):
            self._text(" | ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """``<br/>`` has no end of its own."""
        if tag in self._BLOCKS:
            self._text("\n")

    def handle_endtag(self, tag: str) -> None:
        """The line or heading ends."""
        if tag in self._LEFT_OUT:
            self._left_out = max(self._left_out - 1, 0)
        elif tag in self._HEADINGS:
            self._in_heading = False
        elif tag in self._BLOCKS:
            self._text("\n")

    def handle_data(self, data: str) -> None:
        """Text, of a heading or below it."""
        if not self._left_out:
            self._text(data)

    def _text(self, text: str) -> None:
        _, heading, below = self._found[-1]
        (heading if self._in_heading else below).append(text)

    def set_cdata_mode(self, elem: str, **_: bool) -> None:
        """Tags inside ``<script>`` are tags: else one that is never closed hides all that follows."""

    def outlines(self) -> list[Outline]:
        """What was read, without empty lines in a row."""
        found = []
        for level, heading, below in self._found:
            lines = re.sub(r"[ \t\xa0]*\n\s*", "\n", "".join(below)).strip()
            found.append(Outline(level, " ".join("".join(heading).split()), lines))
        return [outline for outline in found if outline.heading or outline.text]
