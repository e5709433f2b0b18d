"""Checks every claim, number, citation and causal hop of an answer against the evidence. Pure.

What an engine says of its own certainty is ignored: ``Claim.verified`` and the checks of a ``Hop`` are set
here, from the evidence alone. A claim that fails keeps its text and gets a complaint; a sentence of prose
that fails is left out. ``RootCause.checks``, the grounding table, has a row of all that was said and held or not.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import get_args

from collectors.base import Scope
from graph import hops
from graph.llms.korean import Word
from graph.memory import of_now
from graph.sentences import cleaned, folded, sentences
from graph.state import (
    ActionOption,
    Claim,
    Evidence,
    Finding,
    GroundingCheck,
    Hop,
    Language,
    Rival,
    RootCause,
    Suspect,
)
from graph.statements import ONLY_THEN, claim_complaint, is_remembered, prose_complaint

_ALIKE = 0.4
"""From this share of common text on, a sentence of the second answer is the first one's, said anew: sentences on
different findings share the component's name and little else."""
_KINDS: tuple[str, ...] = get_args(GroundingCheck.model_fields["about"].annotation)
_OWN_ENGINE = "rules"  # its sentences are templates of ours, which explain what a category is; a model's are not
_PROSE = ("mechanism", "title", "rival", "impact")
_NO_CAUSE: Mapping[Language, str] = {
    "en": "No root cause could be established",
    "ko": "근본 원인을 확정하지 못했습니다",
}
_TITLE: Mapping[Language, str] = {"en": "{category} in {component}", "ko": "{component}: {category}"}
_BOTH: Mapping[Language, str] = {
    "en": "Ranking suspects {first} first: {why} The analyst names {named}: {claims}",
    "ko": "랭킹의 1순위 후보는 {first}입니다: {why} 분석은 {named:을/를} 지목합니다: {claims}",
}
_UNSUPPORTED: Mapping[Language, str] = {
    "en": "no claim for it could be verified.",
    "ko": "이를 뒷받침하는 검증된 주장이 없습니다.",
}


def known_components(scope: Scope, evidence: Evidence) -> frozenset[str]:
    """Every component that the scope or the evidence knows of."""
    names = {scope.service, *(target.service for target in scope.targets)}
    names.update(end for edge in scope.edges for end in (edge.caller, edge.callee))
    return frozenset(names | _seen(evidence))


def extended(evidence: Evidence, findings: Iterable[Finding]) -> Evidence:
    """The evidence with what an analyst asked for behind it; its numbers continue."""
    return evidence.model_copy(update={"findings": (*evidence.findings, *findings)})


def ground(
    root_cause: RootCause, evidence: Evidence, components: Collection[str], first: RootCause | None = None
) -> RootCause:
    """The same answer with every claim and hop checked, and what nothing supports taken back.

    ``components`` are known beside those that the evidence itself is about. An unknown component makes the
    answer inconclusive. ``first`` is the grounded answer before the analyst was told its ``complaints``: what holds
    only now is «repaired», and what was given up since is «dropped». Grounding twice changes nothing.
    """
    known = _seen(evidence).union(components)
    answer = _cleaned(root_cause)
    table = _Table(answer.checks)
    if answer.component is not None and answer.component not in known:
        table.add("component", answer.component, "is not a known component", dropped=True)
        answer = _without_component(answer)
    elif answer.component is not None:
        _check_component(answer.component, evidence, table)
    claims = tuple(ground_claim(claim, evidence, known) for claim in answer.claims)
    for claim in claims:
        table.add("claim", claim.text, claim.complaint, claim.evidence)
    prose = _Prose(evidence, known, claims, table, written_by_us=answer.engine == _OWN_ENGINE)
    path = _checked_path(answer.path, evidence, known, table)
    mechanism = prose.supported("mechanism", answer.mechanism)
    grounded = answer.model_copy(
        update={
            "claims": claims,
            "path": path,
            "title": prose.title(answer),
            "mechanism": mechanism or " ".join(claim.text for claim in claims if claim.verified),
            "impact": prose.supported("impact", answer.impact),
            "rivals": prose.rivals(answer.rivals),
            "confidence": _confidence(answer),
            "contradicts": _contradiction(answer, claims, evidence),
        }
    )
    _check_ranking(answer.component, evidence, table)
    return grounded.model_copy(update={"checks": table.rows(grounded, first)})


def ground_claim(claim: Claim, evidence: Evidence, components: Collection[str]) -> Claim:
    """The claim with ``verified`` and ``complaint`` set anew from what it cites."""
    plain = _cleaned_claim(claim)
    complaint = claim_complaint(plain, evidence, components)
    return plain.model_copy(update={"verified": not complaint, "complaint": complaint})


def ground_option(option: ActionOption, evidence: Evidence) -> ActionOption:
    """The option without references to evidence that does not exist."""
    return option.model_copy(update={"why": tuple(eid for eid in option.why if evidence.finding(eid))})


def complaints(grounded: RootCause) -> list[str]:
    """What to tell the analyst: one line for each thing that does not hold, as short as it is exact.

    That it names another component than ranking is none of them: it may.
    """
    return [
        f"{check.about} «{check.text}»: {check.complaint}."
        for check in grounded.checks
        if check.about != "ranking" and check.verdict in {"not_verified", "dropped"}
    ]


# --- the grounding table ----------------------------------------------------------------------------------


@dataclass
class _Table:
    """Rows as they are found; those of an earlier grounding of the same answer are kept where nothing replaces them."""

    earlier: tuple[GroundingCheck, ...]
    found: list[GroundingCheck] = field(default_factory=list)

    def add(
        self, about: str, text: str, complaint: str = "", evidence: Iterable[str] = (), *, dropped: bool = False
    ) -> None:
        """What holds has no complaint."""
        failed = "dropped" if dropped else "not_verified"
        row = {"about": about, "text": text, "evidence": tuple(evidence), "complaint": complaint}
        self.found.append(GroundingCheck.model_validate({**row, "verdict": failed if complaint else "verified"}))

    def rows(self, answer: RootCause, first: RootCause | None) -> tuple[GroundingCheck, ...]:
        """In the order of kinds; what failed at first and holds now is «repaired»."""
        before = [check for check in (first.checks if first else ()) if check.complaint and check.about != "ranking"]
        kept = [check for check in self.earlier if check.verdict in {"dropped", "repaired"}]
        rows = [*self.found]
        for check in kept:
            rows = _with_kept(rows, check, answer)
        for check in before:
            rows = _with_earlier(rows, check, answer)
        return tuple(sorted(rows, key=lambda row: (_KINDS.index(row.about), row.verdict == "dropped")))


def _with_kept(rows: Sequence[GroundingCheck], check: GroundingCheck, answer: RootCause) -> list[GroundingCheck]:
    """The rows with one of an earlier grounding of the same answer; what is said to be repaired must hold now."""
    same = [n for n, row in enumerate(rows) if (row.about, row.text) == (check.about, check.text)]
    if same:
        repaired = check.verdict == "repaired" and not rows[same[0]].complaint
        return [check if repaired and n == same[0] else row for n, row in enumerate(rows)]
    if check.verdict == "repaired" and not (check.about in _PROSE and check.text in _said(check.about, answer)):
        check = check.model_copy(update={"verdict": "dropped"})
    return [*rows, check]


def _with_earlier(rows: Sequence[GroundingCheck], check: GroundingCheck, answer: RootCause) -> list[GroundingCheck]:
    """The rows with what became of a check that failed before: repaired, dropped, or failed again."""
    again = [row for row in rows if (row.about, row.text) == (check.about, check.text)]
    if any(row.complaint for row in again):
        return list(rows)
    repaired = {"verdict": "repaired", "complaint": check.complaint}
    place = _successor(check, rows)
    if place is not None:
        return [row.model_copy(update=repaired) if n == place else row for n, row in enumerate(rows)]
    replaced = check.about == "title" and any(row.about == "title" for row in rows)
    if check.about in _PROSE and not replaced and (text := _said_anew(check, answer)):
        return [*rows, check.model_copy(update={**repaired, "text": text})]
    return [*rows, check.model_copy(update={"verdict": "dropped"})]


def _successor(check: GroundingCheck, rows: Sequence[GroundingCheck]) -> int | None:
    """Where the row stands that says what the failed check said, and holds; each row succeeds one only."""
    likeness = {
        n: 1.0 if check.about == "component" else _alike(check.text, row.text)
        for n, row in enumerate(rows)
        if row.about == check.about and row.verdict == "verified"
        if check.about != "hop" or row.text == check.text
    }
    best = max(likeness, key=lambda n: likeness[n], default=None)
    return best if best is not None and likeness[best] >= _ALIKE else None


def _said_anew(check: GroundingCheck, answer: RootCause) -> str:
    """The sentence of the answer that is most like the one that failed; empty if none is like it."""
    best = max(_said(check.about, answer), key=lambda text: _alike(check.text, text), default="")
    return best if _alike(check.text, best) >= _ALIKE else ""


def _said(about: str, answer: RootCause) -> list[str]:
    """The sentences of that part of the answer, as the table shows them."""
    rivals = (part for rival in answer.rivals for part in _rival_texts(rival))
    return {
        "mechanism": sentences(answer.mechanism),
        "impact": sentences(answer.impact),
        "title": [answer.title],
        "rival": [*rivals],
    }[about]


def _alike(one: str, other: str) -> float:
    return SequenceMatcher(None, folded(one), folded(other), autojunk=False).ratio()


# --- component and ranking --------------------------------------------------------------------------------


def _check_component(component: str, evidence: Evidence, table: _Table) -> None:
    suspects = [suspect.component for suspect in evidence.suspects]
    if component not in suspects:
        table.add("component", component, "is known, but ranking does not suspect it")
        return
    place = suspects.index(component)
    table.add("component", component, evidence=evidence.suspects[place].findings)


def _check_ranking(component: str | None, evidence: Evidence, table: _Table) -> None:
    """Whether the answer is ranking's first suspect."""
    first = _first_suspect(evidence)
    if first is None:
        table.add("ranking", "no suspect", f"the answer names {component}" if component else "")
        return
    place = next((n for n, s in enumerate(evidence.suspects, start=1) if s.component == component), None)
    ranked = f"it is number {place} of {len(evidence.suspects)}" if place else "which is no suspect"
    complaint = f"the answer names {component}, {ranked}" if component else "the answer names no component"
    if _abstains(evidence):
        complaint = "ranking is too unsure to name a cause" if component else ""
    table.add("ranking", first.component, "" if component == first.component and not _abstains(evidence) else complaint)


def _contradiction(answer: RootCause, claims: Iterable[Claim], evidence: Evidence) -> str:
    """Both components, and why each; empty where they are the same, or either names none."""
    first = _first_suspect(evidence)
    if answer.component is None or first is None or _abstains(evidence) or answer.component == first.component:
        return ""
    said = " ".join(claim.text for claim in claims if claim.verified)
    why = first.why.strip() or f"score {first.score:.2f}."
    return _BOTH[answer.language].format(
        first=first.component, why=why, named=Word(answer.component), claims=said or _UNSUPPORTED[answer.language]
    )


def _first_suspect(evidence: Evidence) -> Suspect | None:
    return evidence.suspects[0] if evidence.suspects else None


def _abstains(evidence: Evidence) -> bool:
    return evidence.assessment is not None and evidence.assessment.abstains


def _confidence(answer: RootCause) -> str:
    """A word that does not contradict the component; ``graph/confidence.py`` computes it."""
    if answer.component is None:
        return "inconclusive"
    return "low" if answer.confidence == "inconclusive" else answer.confidence


def _without_component(root_cause: RootCause) -> RootCause:
    note = f"The answer named {root_cause.component!r}, which is not a known component."
    return root_cause.model_copy(
        update={
            "component": None,
            "category": "unknown",
            "title": _NO_CAUSE[root_cause.language],
            "path": (),
            "engine_note": f"{root_cause.engine_note} {note}".strip(),
        }
    )


# --- prose and path ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Prose:
    """Keeps the sentences that hold; of those that do not there is a row in the table."""

    evidence: Evidence
    components: Collection[str]
    claims: Sequence[Claim]
    table: _Table
    written_by_us: bool

    def supported(self, about: str, text: str, component: str = "") -> str:
        """The sentences that hold; ``component`` is whom they speak of unnamed.

        What is remembered of earlier incidents is told beside what holds now, and never instead of it.
        """
        spoken = sentences(text)
        complaints = {sentence: self._complaint(sentence, component) for sentence in spoken}
        remembered = {sentence for sentence in spoken if is_remembered(sentence, self.evidence)}
        only_then = all(complaints[sentence] for sentence in spoken if sentence not in remembered)
        complaints |= dict.fromkeys(remembered, ONLY_THEN if only_then else "")
        for sentence in spoken:
            if complaints[sentence]:
                self.table.add(about, _attributed(sentence, component), complaints[sentence], dropped=True)
        return " ".join(sentence for sentence in spoken if not complaints[sentence])

    def title(self, answer: RootCause) -> str:
        """The title, or one made of category and component."""
        category = answer.category.replace("_", " ").capitalize()
        made = _TITLE[answer.language].format(category=category, component=answer.component)
        made = made if answer.component else _NO_CAUSE[answer.language]
        if answer.title != made and (complaint := self._complaint(answer.title)):
            self.table.add("title", answer.title, complaint, dropped=True)
            return made
        return answer.title

    def rivals(self, rivals: Iterable[Rival]) -> tuple[Rival, ...]:
        """Those that exist, with what holds of them."""
        return tuple(self._rival(rival) for rival in rivals if self._is_known(rival))

    def _rival(self, rival: Rival) -> Rival:
        return Rival(
            component=rival.component,
            for_=self.supported("rival", rival.for_, rival.component),
            against=self.supported("rival", rival.against, rival.component),
        )

    def _is_known(self, rival: Rival) -> bool:
        if rival.component in self.components:
            return True
        self.table.add("rival", rival.component, "is not a known component", dropped=True)
        return False

    def _complaint(self, sentence: str, component: str = "") -> str:
        if is_remembered(sentence, self.evidence):
            return ONLY_THEN
        if any(claim.verified and folded(sentence) in folded(claim.text) for claim in self.claims):
            return ""
        return prose_complaint(sentence, self.evidence, self.components, component, explains=self.written_by_us)


def _rival_texts(rival: Rival) -> Iterator[str]:
    for text in (*sentences(rival.for_), *sentences(rival.against)):
        yield _attributed(text, rival.component)


def _attributed(sentence: str, component: str) -> str:
    return f"{component}: {sentence}" if component else sentence


def _checked_path(
    path: Iterable[Hop], evidence: Evidence, components: Collection[str], table: _Table
) -> tuple[Hop, ...]:
    """The hops between known components as the evidence has them."""
    kept = []
    for hop in path:
        text = f"{hop.cause} → {hop.effect}"
        strangers = [end for end in (hop.cause, hop.effect) if end not in components]
        if strangers:
            table.add("hop", text, f"names {', '.join(strangers)}, which is not a known component", dropped=True)
            continue
        kept.append(hops.checked(hop.cause, hop.effect, evidence))
        table.add("hop", text, hops.lacks(kept[-1]))
    return tuple(kept)


def _seen(evidence: Evidence) -> set[str]:
    """The components that the evidence is about."""
    ends = {end for hop in hops.ranked(evidence) for end in (hop.cause, hop.effect)}
    edges = {end for edge in evidence.edges for end in (edge.caller, edge.callee)}
    now = of_now(evidence).findings  # that an earlier incident names a component makes it none of ours
    return ends.union(edges, (f.component for f in now), (s.component for s in evidence.suspects))


# --- what a model wrote -----------------------------------------------------------------------------------


def _cleaned(answer: RootCause) -> RootCause:
    """Without hidden characters and disguised digits, in all that an analyst wrote."""
    return answer.model_copy(
        update={
            "component": cleaned(answer.component) if answer.component is not None else None,
            "title": cleaned(answer.title),
            "mechanism": cleaned(answer.mechanism),
            "impact": cleaned(answer.impact),
            "claims": tuple(map(_cleaned_claim, answer.claims)),
            "path": tuple(
                h.model_copy(update={"cause": cleaned(h.cause), "effect": cleaned(h.effect)}) for h in answer.path
            ),
            "rivals": tuple(
                Rival(component=cleaned(r.component), for_=cleaned(r.for_), against=cleaned(r.against))
                for r in answer.rivals
            ),
            "unknowns": tuple(map(cleaned, answer.unknowns)),
        }
    )


def _cleaned_claim(claim: Claim) -> Claim:
    return claim.model_copy(
        update={
            "text": cleaned(claim.text),
            "quote": cleaned(claim.quote),
            "evidence": tuple(map(cleaned, claim.evidence)),
        }
    )
