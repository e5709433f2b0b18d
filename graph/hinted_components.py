"""What people's hints say of components: look here, or not there; and what they ask. In English and Korean. Pure.

A hint is a person's word: it steers what is looked at and considered first, and never makes evidence.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from collectors.base import LogsRead, MetricRead, Read, TraceRead
from graph.llms.base import ReadMenu

MAX_QUESTIONS = 3
_MAX_ASKED = 2  # components that are asked for the same words
_SAME_WORDS = (
    ("db", "database", "디비", "데이터베이스"),
    ("service", "svc", "서비스"),
    ("queue", "큐"),
    ("cache", "캐시"),
)
_ALSO = {word: "(?:" + "|".join(words) + ")" for words in _SAME_WORDS for word in words}
_PART = re.compile(r"[-_. ]+")
_QUOTED = re.compile(r"“([^”]{2,200})”|«([^»]{2,200})»|「([^」]{2,200})」|\"([^\"]{2,200})\"|`([^`]{2,200})`")

_DENIED_BEFORE = re.compile(
    r"(?:\bnot|n['’]?t|\brul(?:e|ed|ing) out|\bexclud(?:e|ed|ing)|\bexcept(?: for)?|\bignor(?:e|ing)|\bforget"
    r"|\bnothing (?:to do )?with|\bno (?:problem|issue|trouble) (?:with|in))"
    r"(?: (?:the|in|on|at|be|because of|caused by|due to|about|from|blame|it))*[ :`'\"“]+$",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"^[`'\"”]?(?: (?:is|was|are|were|looks?|seems?|can be))?(?: (?:definitely|certainly|clearly|probably|surely))?"
    r"(?:n['’]t\b|n['’]?t\b| not\b| innocent| fine\b| healthy| ok(?:ay)?\b| unrelated| ruled out| excluded"
    r"| (?:has|have) nothing to do)",
    re.IGNORECASE,
)
_DENIED_IN_KOREAN = re.compile(
    r"^[`'\"”]?\S{0,4}?\s*(?:쪽은?|문제는?|문제가|원인은?|원인이|때문은?|때문이|탓은?|탓이)?\s*"
    r"(?:아니|아님|아닙|아닐|아닌|말고|제외|빼고|무관|관계\s?없|상관\s?없|정상|이상\s?없|문제\s?없|멀쩡)"
)


@dataclass(frozen=True)
class Steering:
    """Components that hints point to, the last one named first, and those that they rule out."""

    named: tuple[str, ...] = ()
    ruled_out: frozenset[str] = frozenset()


def steering(hints: Iterable[str], components: Iterable[str]) -> Steering:
    """What the hints say of these components; of two that disagree on one the later counts."""
    names = sorted(set(components))
    wanted: dict[str, bool] = {}
    for hint in hints:
        for name, meant in _mentions(hint, names):
            wanted.pop(name, None)
            wanted[name] = meant
    named = tuple(reversed([name for name, meant in wanted.items() if meant]))
    return Steering(named, frozenset(name for name, meant in wanted.items() if not meant))


def _mentions(hint: str, names: Iterable[str]) -> list[tuple[str, bool]]:
    """Each component that is named, and whether it is meant, in the order of the text.

    Of names at the same place the longest counts; «the orders database» is ``orders-db`` if nothing else is.
    """
    places: dict[tuple[int, int], list[str]] = {}
    for name in names:
        for match in _called(name).finditer(hint):
            places.setdefault(match.span(), []).append(name)
    found: list[tuple[int, int, str, bool]] = []
    taken: list[tuple[int, int]] = []
    for (start, end), candidates in sorted(places.items(), key=lambda place: place[0][0] - place[0][1]):
        if any(start < other_end and other_start < end for other_start, other_end in taken):
            continue
        taken.append((start, end))
        exact = [name for name in candidates if name.lower() == hint[start:end].lower()] or candidates
        if len(exact) == 1:
            found.append((start, end, exact[0], not _denied(hint[:start], hint[end:])))
    return [(name, meant) for _, _, name, meant in sorted(found)]


@lru_cache(maxsize=4096)
def _called(name: str) -> re.Pattern[str]:
    """The name as people write it: in any case, with spaces for hyphens, before a Korean particle."""
    parts = [_ALSO.get(part.lower(), re.escape(part)) for part in _PART.split(name) if part]
    written = r"[-_. ]?".join(parts) if len(parts) > 1 else re.escape(name)
    return re.compile(rf"(?<![A-Za-z0-9_.-]){written}(?![A-Za-z0-9_]|[-.][A-Za-z0-9])", re.IGNORECASE)


def _denied(before: str, after: str) -> bool:
    """Whether the text around a name rules it out."""
    return bool(_DENIED_BEFORE.search(before) or _DENIED_AFTER.search(after) or _DENIED_IN_KOREAN.search(after))


def questions(hints: Sequence[str], menu: ReadMenu, suspects: Sequence[str]) -> list[Read]:
    """What the hints ask the sources, as far as the menu goes: of the last hint first, few in all.

    A trace by its id, a metric by its name, and quoted words as log lines of the components that the hint names; where
    it names none, of the first ``suspects``.
    """
    asked = dict.fromkeys(question for hint in reversed(hints) for question in _questions(hint, menu, suspects))
    return [question for question in asked if question.kind in menu.kinds][:MAX_QUESTIONS]


def _questions(hint: str, menu: ReadMenu, suspects: Sequence[str]) -> Iterator[Read]:
    known = {*menu.components, *(ref.metric for ref in menu.metrics), *menu.traces}
    quotes = ["".join(filter(None, match.groups())).strip() for match in _QUOTED.finditer(hint)]
    words = [quote for quote in quotes if len(quote) > 1 and not any(_called(name).fullmatch(quote) for name in known)]
    rest = hint
    for quote in words:
        rest = rest.replace(quote, " ")
    named = steering([rest], menu.components).named[::-1]
    yield from (TraceRead(trace_id=trace) for trace in menu.traces if _called(trace).search(rest))
    yield from _metrics(rest, menu, [*named, *suspects])
    for quote in words:
        yield from (LogsRead(component=name, contains=quote) for name in (named or suspects)[:_MAX_ASKED])


def _metrics(hint: str, menu: ReadMenu, components: Sequence[str]) -> Iterator[MetricRead]:
    """Each metric that is named, of the first of these components that has it, or else of whichever does."""
    for metric in steering([hint], (ref.metric for ref in menu.metrics)).named[::-1]:
        having = [ref.component for ref in menu.metrics if ref.metric == metric]
        yield MetricRead(component=next((name for name in components if name in having), having[0]), metric=metric)
