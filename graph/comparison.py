"""What a re-analysis says otherwise than the analysis before, and why it was asked for. Pure."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from graph.confidence import percent
from graph.sentences import folded
from graph.state import Claim, Language, RootCause

_WORDS: Mapping[Language, Mapping[str, str]] = {
    "en": {
        "asked": "Asked again because: «{hint}».",
        "component": "Root cause: {before} → {after}.",
        "category": "Category: {before} → {after}.",
        "confidence": "Confidence: {before} → {after}.",
        "engine": "Answered by: {before} → {after}.",
        "gone": "No longer held: «{text}»",
        "new": "New: «{text}»",
        "anew": "Measured anew: «{text}»",
        "ruled_in": "Considered besides now: {names}.",
        "ruled_out": "No longer considered: {names}.",
        "nothing": "Nothing changed: component, category, confidence, claims and rivals are as before.",
        "none": "none",
        "rules": "the rules engine",
    },
    "ko": {
        "asked": "재분석 요청 이유: «{hint}».",
        "component": "근본 원인: {before} → {after}.",
        "category": "분류: {before} → {after}.",
        "confidence": "신뢰도: {before} → {after}.",
        "engine": "답변 엔진: {before} → {after}.",
        "gone": "더 이상 주장하지 않음: «{text}»",
        "new": "새 주장: «{text}»",
        "anew": "다시 측정함: «{text}»",
        "ruled_in": "새로 검토한 후보: {names}.",
        "ruled_out": "더 이상 검토하지 않는 후보: {names}.",
        "nothing": "바뀐 것이 없습니다: 구성 요소, 분류, 신뢰도, 주장, 후보가 이전과 같습니다.",
        "none": "없음",
        "rules": "규칙 엔진",
    },
}
_CONFIDENCE: Mapping[Language, Mapping[str, str]] = {
    "en": {},
    "ko": {"high": "높음", "medium": "보통", "low": "낮음", "inconclusive": "판단 불가"},
}
_NUMBER = re.compile(r"\d[\d.,:]*")


def changed(before: RootCause, after: RootCause, hints: Sequence[str]) -> tuple[str, ...]:
    """Why it was asked again, and line by line what is different now, in the language of ``after``.

    ``hints`` are the people's, oldest first: the last is the one that led to this analysis. Only verified claims
    count as held.
    """
    words = _WORDS[after.language]
    why = [words["asked"].format(hint=hint.strip()) for hint in hints[-1:] if hint.strip()]
    differences = [
        *_facts(before, after, words),
        *_claims(before, after, words),
        *_rivals(before, after, words),
    ]
    return (*why, *(differences or [words["nothing"]]))


def _facts(before: RootCause, after: RootCause, words: Mapping[str, str]) -> Iterator[str]:
    """What is one word on either side."""
    pairs = {
        "component": (before.component or words["none"], after.component or words["none"]),
        "category": (before.category, after.category),
        "confidence": (_confidence(before, after.language), _confidence(after, after.language)),
        "engine": (_author(before, words), _author(after, words)),
    }
    for name, (old, new) in pairs.items():
        if old != new:
            yield words[name].format(before=old, after=new)


def _author(root_cause: RootCause, words: Mapping[str, str]) -> str:
    return words["rules"] if root_cause.engine == "rules" else root_cause.engine


def _confidence(root_cause: RootCause, language: Language) -> str:
    word = _CONFIDENCE[language].get(root_cause.confidence, root_cause.confidence)
    return word if root_cause.certainty is None else f"{word} ({percent(root_cause.certainty)})"


def _claims(before: RootCause, after: RootCause, words: Mapping[str, str]) -> Iterator[str]:
    """What no longer holds and what is new; the same words with newer numbers are one difference, not two."""
    gone, new = _not_in(before, after), _not_in(after, before)
    worded = {_wording(claim) for claim in gone} & {_wording(claim) for claim in new}
    for claim in gone:
        if _wording(claim) not in worded:
            yield words["gone"].format(text=claim.text)
    for claim in new:
        yield words["anew" if _wording(claim) in worded else "new"].format(text=claim.text)


def _wording(claim: Claim) -> str:
    """What it says, whatever its numbers are."""
    return _NUMBER.sub("#", folded(claim.text))


def _not_in(one: RootCause, other: RootCause) -> list[Claim]:
    """Claims that hold in the one only; between two languages they are told apart by the evidence they cite."""
    same = one.language == other.language

    def key(claim: Claim) -> str:
        return folded(claim.text) if same else ",".join(sorted(set(claim.evidence)))

    there = {key(claim) for claim in other.claims if claim.verified}
    return [claim for claim in one.claims if claim.verified and key(claim) not in there]


def _only_in(some: Iterable[str], others: Iterable[str]) -> list[str]:
    """Those that the others do not have, but for case and spaces."""
    there = {folded(text) for text in others}
    return [text for text in some if folded(text) not in there]


def _rivals(before: RootCause, after: RootCause, words: Mapping[str, str]) -> Iterator[str]:
    """A rival that became the answer, or the answer that became a rival, is told already."""
    named = {before.component, after.component}
    old, new = ([rival.component for rival in answer.rivals] for answer in (before, after))
    for name, added in (("ruled_in", _only_in(new, old)), ("ruled_out", _only_in(old, new))):
        names = [component for component in dict.fromkeys(added) if component not in named]
        if names:
            yield words[name].format(names=", ".join(names))
