"""Earlier incidents as evidence of its own kind: numbered, told in plain words, never a measurement of now. Pure.

What is remembered was written by machines and people of another day, and imported files by strangers: it is bounded,
put on one line, and stands between quotation marks wherever it is not a name.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from typing import get_args

from graph.llms.sentences import alike
from graph.sentences import cleaned
from graph.state import Evidence, Finding, Language, PastIncident

SOURCE = "memory"
MAX_SIMILAR = 3  # more of them tell less than they take to read
MAX_NAME, MAX_TEXT, MAX_REMEDY = 80, 160, 240  # characters; a remedy ends with the names of its operations
MAX_REASONS = 3
_QUOTES = str.maketrans(dict.fromkeys("«»“”「」『』‘’\"'`", ""))  # a text cannot end the quotation it stands in
_TAGS = str.maketrans({"<": "‹", ">": "›"})
_ENDS = re.compile(r"[.!?。]+(?=\s|[가-힣])|。")
_OPERATIONS = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)+(?:[\s,]+[a-z][a-z0-9]*(?:_[a-z0-9]+)+)*")
_BY_HAND = re.compile(r"^by hand:\s*", re.IGNORECASE)

_SAID: Mapping[Language, Mapping[str, str]] = {
    "en": {
        "alike": "Alike: {id} of {at}{why}",
        "why": " ({reasons})",
        "cause": "its cause was {category} in {component}",
        "category": "its cause was {category}, in which component is not known",
        "component": "its cause was in {component}",
        "no_cause": "its cause was not found",
        "wrong": "a person called the analysis of then wrong",
        "corrected": "so said a person, who corrected the analysis of then",
        "helped": "by a person's word this helped: «{helped}»",
        "resolved": "«{remedy}» resolved it",
        "improved": "«{remedy}» made it better, and did not resolve it",
        "unchanged": "«{remedy}» did not help",
        "worse": "«{remedy}» made it worse",
        "unresolved": "«{remedy}» did not resolve it",
        "by_hand": "it was ended by hand: «{remedy}»",
        "recovered": "it recovered by itself, beside «{remedy}»",
        "": "what came of «{remedy}» is not known",
        "bare_resolved": "it was resolved, how is not known",
        "bare_improved": "it got better, how is not known",
        "bare_by_hand": "it was ended by hand, how is not known",
        "bare_recovered": "it recovered without a remedy",
        "bare_": "what ended it is not known",
    },
    "ko": {
        "alike": "유사 사례: {at}의 {id}{why}",
        "why": " ({reasons})",
        "cause": "당시 원인은 {component}의 {category}",
        "category": "당시 원인은 {category}, 구성 요소는 알 수 없음",
        "component": "당시 원인은 {component}에 있었음",
        "no_cause": "당시 원인은 찾지 못함",
        "wrong": "당시 분석은 틀렸다고 사람이 표시함",
        "corrected": "이 원인은 사람이 당시 분석을 바로잡은 것",
        "helped": "사람이 남긴 실제 해결 방법: «{helped}»",
        "resolved": "«{remedy}» 조치로 해결됨",
        "improved": "«{remedy}» 조치로 나아졌으나 해결되지 않음",
        "unchanged": "«{remedy}» 조치는 도움이 되지 않음",
        "worse": "«{remedy}» 조치로 더 나빠짐",
        "unresolved": "«{remedy}» 조치로 해결되지 않음",
        "by_hand": "사람이 직접 처리함: «{remedy}»",
        "recovered": "«{remedy}» 조치와 별개로 스스로 회복됨",
        "": "«{remedy}» 조치의 결과는 알 수 없음",
        "bare_resolved": "해결되었으나 방법은 알 수 없음",
        "bare_improved": "나아졌으나 방법은 알 수 없음",
        "bare_by_hand": "사람이 직접 처리했으나 방법은 알 수 없음",
        "bare_recovered": "조치 없이 회복됨",
        "bare_": "무엇으로 끝났는지는 알 수 없음",
    },
}


def is_memory(finding: Finding) -> bool:
    """Whether it tells of an earlier incident, and not of this one."""
    return finding.kind == "knowledge" and finding.source == SOURCE


def of_now(evidence: Evidence) -> Evidence:
    """The evidence without what is remembered: all that may bear on what is the case now."""
    findings = tuple(finding for finding in evidence.findings if not is_memory(finding))
    return evidence if len(findings) == len(evidence.findings) else evidence.model_copy(update={"findings": findings})


def remembering(evidence: Evidence, past: Sequence[PastIncident], alerted_at: datetime) -> Evidence:
    """The evidence with the first few earlier incidents, each as a finding numbered after all others.

    ``alerted_at`` dates an earlier incident whose date cannot be read. What was remembered before is replaced.
    """
    bare = of_now(evidence)
    after = max((int(f.id[1:]) for f in bare.findings if f.id[1:].isdecimal()), default=0)
    similar = tuple(bounded(one, f"E{after + n}") for n, one in enumerate(past[:MAX_SIMILAR], start=1))
    findings = (*bare.findings, *(_finding(one, alerted_at) for one in similar))
    return bare.model_copy(update={"findings": findings, "similar": similar})


def bounded(past: PastIncident, eid: str) -> PastIncident:
    """Its texts on one line, within bounds, and without what could end a quotation or begin a tag."""
    return past.model_copy(
        update={
            **{name: _name(getattr(past, name)) for name in ("incident_id", "component", "category")},
            **{name: _plain(getattr(past, name), MAX_TEXT) for name in ("title", "helped")},
            "remedy": _plain(past.remedy, MAX_REMEDY),
            "at": _name(past.at[:10]),
            "verdict": _name(past.verdict),
            "reasons": tuple(_name(reason) for reason in past.reasons[:MAX_REASONS] if reason.strip()),
            "evidence": eid,
        }
    )


def told(past: PastIncident, language: Language = "en") -> str:
    """Which incident, when, why it is alike, what its cause was, and what resolved it or did not.

    It is one sentence, so that no part of it can stand alone and pass for what is the case now.
    """
    said = _SAID[language]
    reasons = "; ".join(alike(reason, language) for reason in past.reasons)
    why = said["why"].format(reasons=reasons) if reasons else ""
    parts = (
        said[_known(past)].format(category=past.category.replace("_", " "), component=past.component),
        said["corrected"] if past.corrected else said["wrong"] if past.wrong else "",
        outcome(past, language),
        said["helped"].format(helped=past.helped) if past.helped else "",
    )
    which = said["alike"].format(id=past.incident_id, at=past.at, why=why)
    return f"{which}: {'; '.join(part for part in parts if part)}."


def outcome(past: PastIncident, language: Language = "en") -> str:
    """What resolved it, or did not."""
    said, remedy = _SAID[language], _BY_HAND.sub("", past.remedy)
    verdict = past.verdict or ("by_hand" if remedy != past.remedy else "")
    if remedy:
        return said.get(verdict, said[""]).format(remedy=remedy)
    return said.get(f"bare_{verdict}", said["bare_"])


def sentences_of(evidence: Evidence) -> set[str]:
    """What is said of the earlier incidents, in every language."""
    return {told(past, language) for past in evidence.similar for language in get_args(Language)}


def named_operations(said: str) -> tuple[str, ...]:
    """Names with commas or spaces between them, and nothing else; of any other text none: it may say «not»."""
    said = said.strip()
    return tuple(dict.fromkeys(re.split(r"[\s,]+", said))) if _OPERATIONS.fullmatch(said) else ()


def like(component: str | None, similar: Iterable[PastIncident]) -> PastIncident | None:
    """The first of them that had its cause in that component, and of which nobody says otherwise."""
    return next((past for past in similar if component and past.component == component and cause_stands(past)), None)


def cause_stands(past: PastIncident) -> bool:
    """Whether the cause that is named is not the one that a person called wrong."""
    return past.corrected or not past.wrong


def _finding(past: PastIncident, alerted_at: datetime) -> Finding:
    return Finding(
        id=past.evidence,
        kind="knowledge",
        component=past.component,
        signal=past.incident_id,
        at=_midnight(past.at) or alerted_at,
        summary=told(past),
        excerpt=past.title,
        source=SOURCE,
        worse="neutral",
    )


def _midnight(at: str) -> datetime | None:
    try:
        return datetime.combine(date.fromisoformat(at), time(tzinfo=UTC))
    except ValueError:
        return None


def _known(past: PastIncident) -> str:
    """What of its cause is known: both, one of them, or nothing."""
    category = past.category not in ("", "unknown")
    if past.component:
        return "cause" if category else "component"
    return "category" if category else "no_cause"


def _name(text: str) -> str:
    """What is told without quotation marks, so that it may end no sentence either."""
    return _ENDS.sub(",", _plain(text, MAX_NAME)).rstrip(".!?。")


def _plain(text: str, length: int) -> str:
    flat = " ".join(cleaned(text).translate(_QUOTES).translate(_TAGS).split())
    return flat if len(flat) <= length else f"{flat[: length - 1]}…"
