"""Which sections of runbooks describe what is seen. Their texts are data: compared word by word, never followed."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from collectors.base import Document
from graph.ranking.deviation import Deviation, excerpt
from graph.ranking.terms import MAX_TEXT, MIN_NAME, failing_terms, terms, whole

HINT = 0.15
"""The most that a matching section is worth: somebody once saw something alike, which measures nothing now."""
ENOUGH = 3.0
"""Telling words in common that make a match a full one: three at once are hardly chance."""
MIN_MATCH = 2.0  # a single word in common, as «connection», is found in many runbooks
IDENTIFIER = 2.0  # an exception's or a metric's whole name counts like two words: nobody says it by chance
MAX_DOCUMENTS = 200  # sources give their best ones first
MAX_COMPONENTS = 5  # that one section is a finding of
MAX_FINDINGS = 20
MAX_NAMED = 6  # words that are named

_CAUSE = re.compile(r"\b(?:caused by|root cause|due to|because of|cause is|culprit)\b", re.IGNORECASE)
_CAUSE_HEADING = re.compile(r"\bcauses?\b", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.!?])\s|\n")
_PART = re.compile(r"[a-z]+(?:[._-][a-z0-9]+)+|[a-z]+(?:exception|error|timeout)")


def deviations(documents: Iterable[tuple[str, Document]], found: Sequence[Deviation]) -> list[Deviation]:
    """Sections whose words are those of what deviates, for the components they are about or name.

    A section that names a cause is a hint at that component, if it deviates; else at the one it is about. One word in
    common is no match, and a word that half of the sections have is none. Strength is at most ``HINT``.
    """
    failing = failing_terms(found)
    sections = [(s, d, _told(d)) for s, d in sorted(documents, key=_place)[:MAX_DOCUMENTS]] if failing else []
    words = [terms(told) for _, _, told in sections]
    common = _common(words)
    onset_s = _onsets(found)
    matches: dict[tuple[str, str, str], Deviation] = {}
    for (source, document, told), said in zip(sections, words, strict=True):
        for match in _matches(source, document, told, said - common, failing, onset_s):
            key = (match.component, match.signal, match.excerpt)
            matches[key] = max(matches.get(key, match), match, key=lambda m: (m.strength, m.summary))
    return sorted(matches.values(), key=lambda d: (-d.strength, d.component, d.signal, d.summary))[:MAX_FINDINGS]


def _place(document: tuple[str, Document]) -> tuple[str, ...]:
    source, d = document
    return source, d.title, d.section, d.text, d.link or "", *d.services


def _told(document: Document) -> str:
    return f"{document.section}\n{document.text[:MAX_TEXT]}"


def _common(words: Sequence[frozenset[str]]) -> frozenset[str]:
    """Words of at least half of the sections: they tell none from another."""
    counts = Counter(word for said in words for word in said)
    return frozenset(word for word, count in counts.items() if 2 * count >= len(words) >= 4)


def _onsets(found: Iterable[Deviation]) -> dict[str, float]:
    onsets: dict[str, float] = {}
    for d in found:
        if d.kind not in ("change", "knowledge"):
            onsets[d.component] = min(onsets.get(d.component, d.at_s), d.at_s)
    return onsets


def _matches(
    source: str,
    document: Document,
    told: str,
    said: frozenset[str],
    failing: Mapping[str, frozenset[str]],
    onset_s: Mapping[str, float],
) -> Iterable[Deviation]:
    for about in _about(document, told, failing)[:MAX_COMPONENTS]:
        shared = said & failing[about]
        weight = sum(IDENTIFIER if _PART.fullmatch(word) else 1.0 for word in shared)
        if weight < MIN_MATCH:
            continue
        blamed = _blamed(document, told, about, failing)
        named = ", ".join(sorted(shared, key=lambda w: (-len(w), w))[:MAX_NAMED])
        where = " > ".join(p for p in (document.title, document.section) if p)[:120]
        names = f", and names {blamed} as a cause" if blamed != about else ""
        yield Deviation(
            component=blamed,
            kind="knowledge",
            channel="knowledge",
            signal=where,
            strength=HINT * min(weight / ENOUGH, 1.0),
            at_s=onset_s[about],
            summary=f"“{where}” describes what {about} shows: {named}{names}.",
            effect=weight,
            excerpt=excerpt(document.text),
            link=document.link,
            source=source,
            worse="neutral",
        )


def _about(document: Document, told: str, failing: Mapping[str, frozenset[str]]) -> list[str]:
    """Deviating components that the section is about: as it declares, else as it names them."""
    declared = set(document.services)
    text = f"{document.title}\n{told}".lower()
    return [c for c in failing if c in declared or (not declared and _names(text, c))]


def _names(text: str, component: str) -> bool:
    """Whether a text in lower case says the component's name as a whole."""
    name = component.strip().lower()
    if len(name) < MIN_NAME or name not in text:  # most are not, and this is quickly told
        return False
    return bool(whole(name).search(text))


def _blamed(document: Document, told: str, about: str, failing: Mapping[str, frozenset[str]]) -> str:
    """The other deviating component that a sentence on causes, or a section on them, names; else ``about``.

    Two of them are no answer.
    """
    in_section = bool(_CAUSE_HEADING.search(document.section))
    causes = "\n".join(s for s in _SENTENCE.split(told) if in_section or _CAUSE.search(s)).lower()
    named = [c for c in failing if c != about and _names(causes, c)] if causes else []
    return named[0] if len(named) == 1 else about
