"""Checks every claim, number, citation and causal hop of an answer against the evidence. Pure.

What an engine says of its own certainty is ignored: ``Claim.verified`` and the checks of a ``Hop`` are set
here, from the evidence alone. A claim that fails keeps its text and gets a complaint; a sentence of prose
that fails is left out, and the answer says so.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from collectors.base import Scope
from graph.quantities import Quantity, moments, quantities, steps, supported, versions
from graph.state import ActionOption, Claim, Evidence, Finding, Hop, Rival, RootCause

_RISES = re.compile(
    r"\b(rose|rises?|risen|increas\w+|jump\w*|climb\w*|spik\w+|surg(?:ed|es|ing)|grew|doubled|tripled|quadrupled"
    r"|(?:went|goes|going|gone) up|higher)\b",
    re.IGNORECASE,
)
_FALLS = re.compile(
    r"\b(fell|falls?|fallen|drop(?:s|ped)?|decreas\w+|declin\w+|collaps\w+|sank|halved|reduc(?:ed|es|ing|tion)"
    r"|(?:went|goes|going|gone) down|lower(?:ed|s)?)\b",
    re.IGNORECASE,
)
_FOLDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_RATIOS = {
    **{f"{word}fold": float(number) for number, word in enumerate(_FOLDS, start=2)},
    "hundredfold": 100.0,
    "doubled": 2.0,
    "tripled": 3.0,
    "quadrupled": 4.0,
    "halved": 0.5,
}
_RATIO = re.compile(rf"\b({'|'.join(word.replace('fold', '[ -]?fold') for word in _RATIOS)})\b", re.IGNORECASE)
_NEARLY = 0.2  # «doubled» may stand for a ratio this share away
_SPREADS = re.compile(r"\b(spread\w*|propagat\w+|cascad\w+)\b", re.IGNORECASE)
_CITED = re.compile(r"\bE\d+\b")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_TOKEN = re.compile(r"`([^`\s]+)`|(?<![\w./-])([A-Za-z][A-Za-z0-9]*(?:[-_][A-Za-z0-9]+)+)(?![\w-])")
_KINDS_OF_COMPONENT = {
    *("service", "svc", "api", "db", "database", "cache", "gateway", "worker", "queue", "proxy"),
    *("server", "backend", "frontend", "provider", "redis", "postgres", "mysql", "kafka", "lambda"),
}


def known_components(scope: Scope, evidence: Evidence) -> frozenset[str]:
    """Every component that the scope or the evidence knows of."""
    names = {scope.service, *(target.service for target in scope.targets)}
    names.update(end for edge in scope.edges for end in (edge.caller, edge.callee))
    return frozenset(names | _seen(evidence))


def ground(root_cause: RootCause, evidence: Evidence, components: Collection[str]) -> RootCause:
    """The same answer with every claim and hop checked, and what nothing supports taken back.

    ``components`` are known beside those that the evidence itself is about. An unknown component makes the
    answer inconclusive. Grounding twice changes nothing.
    """
    components = _seen(evidence).union(components)
    if root_cause.component is not None and root_cause.component not in components:
        root_cause = _without_component(root_cause)
    claims = tuple(ground_claim(claim, evidence, components) for claim in root_cause.claims)
    mechanism, complaints = _supported_prose(root_cause.mechanism, evidence, components)
    mechanism = mechanism or " ".join(claim.text for claim in claims if claim.verified)
    return root_cause.model_copy(
        update={
            "claims": claims,
            "path": tuple(_checked_hop(h, evidence) for h in root_cause.path if _known(h, components)),
            "title": _supported_title(root_cause, evidence, components),
            "mechanism": mechanism,
            "rivals": _supported_rivals(root_cause.rivals, evidence, components),
            "unknowns": (
                *root_cause.unknowns,
                *(f"Left out of the explanation: it {c}." for c in complaints),
            ),
            "confidence": _confidence(root_cause, claims, evidence),
        }
    )


def ground_claim(claim: Claim, evidence: Evidence, components: Collection[str]) -> Claim:
    """The claim with ``verified`` and ``complaint`` set anew from what it cites."""
    complaint = _complaint(claim, evidence, components)
    return Claim(text=claim.text, evidence=claim.evidence, verified=not complaint, complaint=complaint)


def ground_option(option: ActionOption, evidence: Evidence) -> ActionOption:
    """The option without references to evidence that does not exist."""
    return option.model_copy(update={"why": tuple(eid for eid in option.why if evidence.finding(eid))})


def _complaint(claim: Claim, evidence: Evidence, components: Collection[str]) -> str:
    if not claim.evidence:
        return "cites no evidence"
    missing = [eid for eid in (*claim.evidence, *_CITED.findall(claim.text)) if evidence.finding(eid) is None]
    if missing:
        return f"cites {_listed(missing)}, which the evidence does not contain"
    cited = [finding for eid in claim.evidence if (finding := evidence.finding(eid))]
    if claim.text.strip().rstrip(".") in {finding.summary.strip().rstrip(".") for finding in cited}:
        return ""  # the evidence's own sentence
    return (
        _numbers_complaint(claim.text, cited, evidence)
        or _names_complaint(claim.text, cited, components)
        or _attribution_complaint(claim.text, cited, evidence, components)
        or _change_complaint(claim.text, cited)
    )


# --- numbers ----------------------------------------------------------------------------------------------


def _numbers_complaint(text: str, cited: Sequence[Finding], evidence: Evidence) -> str:
    """What of the numbers, times and versions in the text the cited findings do not contain."""
    source = "\n".join(_texts(cited))
    wrong = [v for v in versions(text) if v not in source]
    wrong += [str(m) for m in moments(text) if not m.among([f.at for f in cited], source)]
    known = [*_stated(cited, evidence), *_derived(cited)]
    wrong += [str(q) for q in quantities(text) if not supported(q, known)]
    return f"says {_listed(wrong)}, which the cited evidence does not contain" if wrong else ""


def _stated(cited: Sequence[Finding], evidence: Evidence) -> list[Quantity]:
    """Every number that the cited findings state, in fields or in text."""
    ids = {finding.id for finding in cited}
    stated = [quantity for text in _texts(cited) for quantity in quantities(text)]
    for finding in cited:
        stated += [Quantity.of(v, finding.unit) for v in (finding.observed, finding.baseline) if v is not None]
    stated += [Quantity.of(f.value, f.unit) for f in evidence.impact if ids.intersection(f.evidence)]
    return stated


def _derived(cited: Sequence[Finding]) -> list[Quantity]:
    """What follows from the numbers: how many times, by how much, how long after."""
    derived = []
    for finding in cited:
        if finding.observed is None or finding.baseline is None:
            continue
        change = finding.observed - finding.baseline
        derived.append(Quantity.of(change, finding.unit))
        if finding.baseline:
            derived.append(Quantity.of(finding.observed / finding.baseline, "times"))
            derived.append(Quantity.of(change / finding.baseline, "ratio"))
        if finding.observed:
            derived.append(Quantity.of(finding.baseline / finding.observed, "times"))
    apart = {abs((a.at - b.at).total_seconds()) for a in cited for b in cited}
    return derived + [Quantity.of(seconds, "s") for seconds in sorted(apart - {0.0})]


# --- names ------------------------------------------------------------------------------------------------


def _names_complaint(text: str, cited: Iterable[Finding], components: Collection[str]) -> str:
    """A word that looks like a component, but is neither known nor taken from the cited evidence."""
    source = "\n".join(_texts(cited)).lower()
    known = {name.lower() for name in components}
    strangers = [
        name
        for quoted, bare in _TOKEN.findall(text)
        if (name := quoted or bare) and (quoted or _looks_like_component(bare))
        if name.lower() not in known and name.lower() not in source
    ]
    return f"names {_listed(strangers)}, which is not a known component" if strangers else ""


def _attribution_complaint(text: str, cited: Sequence[Finding], evidence: Evidence, components: Collection[str]) -> str:
    """A known component that none of the cited evidence is about, directly or one hop away."""
    own = {finding.component for finding in cited}
    near = {end for h in _hops(evidence) if own & {h.cause, h.effect} for end in (h.cause, h.effect)}
    source = "\n".join(_texts(cited))
    astray = [
        name
        for name in sorted(components)
        if re.search(r"[-_.\d/]", name) and _mentions(text, name)
        if name not in own | near and not _mentions(source, name)
    ]
    return f"names {_listed(astray)}, which the cited evidence is not about" if astray else ""


def _change_complaint(text: str, cited: Sequence[Finding]) -> str:
    """What the text says of a change, where the cited findings changed otherwise."""
    return _direction_complaint(text, cited) or _order_complaint(text, cited) or _ratio_complaint(text, cited)


def _direction_complaint(text: str, cited: Iterable[Finding]) -> str:
    """The text says up where everything cited went down, or the other way round."""
    rises, falls = bool(_RISES.search(text)), bool(_FALLS.search(text))
    if rises == falls:
        return ""
    changes = [after.value - before.value for before, after in _measured(cited) if after != before]
    if rises and changes and max(changes) < 0:
        return "speaks of a rise, but what it cites fell"
    if falls and changes and min(changes) > 0:
        return "speaks of a fall, but what it cites rose"
    return ""


def _order_complaint(text: str, cited: Sequence[Finding]) -> str:
    """The text goes from what was observed to what is normal, where nothing cited does."""
    measured = _measured(cited)
    known = [*measured, *_told(cited)]
    turned = [
        (before, after)
        for before, after in steps(text)
        if supported(before, [end for _, end in measured]) and supported(after, [start for start, _ in measured])
        if not any(supported(before, [start]) and supported(after, [end]) for start, end in known)
    ]
    return "".join(f"goes from {before} to {after}, the wrong way round" for before, after in turned[:1])


def _ratio_complaint(text: str, cited: Sequence[Finding]) -> str:
    """«Doubled», «tenfold» and the like, where nothing cited changed by as much."""
    pairs = [*_measured(cited), *_told(cited)]
    ratios = [after.value * after.scale / (before.value * before.scale) for before, after in pairs if before.value]
    source = "\n".join(_texts(cited)).lower()
    wrong = [
        word
        for word in _RATIO.findall(text)
        if word.lower() not in source and not any(_amounts_to(ratio, word) for ratio in ratios)
    ]
    return f"says {_listed(wrong)}, which is not how the cited evidence changed" if wrong else ""


def _amounts_to(ratio: float, word: str) -> bool:
    """Is the ratio what the word says? «-fold» is said of falls, too."""
    name = re.sub(r"[ -]", "", word.lower())
    said = _RATIOS[name]
    shares = [ratio / said] + ([1 / (ratio * said)] if ratio and name.endswith("fold") else [])
    return any(abs(share - 1) <= _NEARLY for share in shares)


def _measured(findings: Iterable[Finding]) -> list[tuple[Quantity, Quantity]]:
    """Baseline and observed value of each finding that has both."""
    return [
        (Quantity.of(f.baseline, f.unit), Quantity.of(f.observed, f.unit))
        for f in findings
        if f.baseline is not None and f.observed is not None
    ]


def _told(findings: Iterable[Finding]) -> list[tuple[Quantity, Quantity]]:
    """The steps from one number to another that the findings tell of in words."""
    return [step for text in _texts(findings) for step in steps(text)]


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text, re.IGNORECASE) is not None


def _looks_like_component(word: str) -> bool:
    return re.split(r"[-_]", word.lower())[-1] in _KINDS_OF_COMPONENT


# --- prose, path, confidence ------------------------------------------------------------------------------


def _supported_prose(text: str, evidence: Evidence, components: Collection[str]) -> tuple[str, list[str]]:
    """The sentences that hold, and the complaints about those that do not."""
    kept, complaints = [], []
    for sentence in _SENTENCE.split(text.strip()):
        complaint = _sentence_complaint(sentence, evidence, components)
        if complaint:
            complaints.append(complaint)
        else:
            kept.append(sentence)
    return " ".join(kept), complaints


def _sentence_complaint(sentence: str, evidence: Evidence, components: Collection[str]) -> str:
    """Prose is held against what it cites in passing, or else against all of the evidence."""
    ids = _CITED.findall(sentence)
    missing = [eid for eid in ids if evidence.finding(eid) is None]
    if missing:
        return f"cites {_listed(missing)}, which the evidence does not contain"
    cited = [f for f in evidence.findings if not ids or f.id in ids]
    return (
        _numbers_complaint(sentence, cited, evidence)
        or _names_complaint(sentence, cited, components)
        or _prose_change_complaint(sentence, cited)
        or _spread_complaint(sentence, evidence, components)
    )


def _prose_change_complaint(sentence: str, cited: Sequence[Finding]) -> str:
    """As of a claim, held against what it names; the evidence's own sentences are right."""
    own = re.sub(r"\s*\[E\d+\]", "", sentence).strip().rstrip(".")
    if any(own in finding.summary for finding in cited):
        return ""
    named = [finding for finding in cited if _mentions(sentence, finding.component)]
    words = _words(sentence)
    measured = [finding for finding in named or cited if words & _words(finding.signal)]
    return _change_complaint(sentence, measured or named or cited)


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]{4,}", text.lower()))


def _spread_complaint(sentence: str, evidence: Evidence, components: Collection[str]) -> str:
    """The sentence tells of a spread between components, but no hops that hold join them."""
    named = {name for name in components if _mentions(sentence, name)}
    if len(named) < 2 or not _SPREADS.search(sentence):
        return ""
    joined = {end for hop in _hops(evidence) if _holds(hop) for end in (hop.cause, hop.effect)}
    return "" if named <= joined else "tells of a spread that no causal check supports"


def _holds(hop: Hop) -> bool:
    return hop.structural and (hop.temporal or hop.statistical)


def _supported_title(root_cause: RootCause, evidence: Evidence, components: Collection[str]) -> str:
    if not _sentence_complaint(root_cause.title, evidence, components):
        return root_cause.title
    category = root_cause.category.replace("_", " ").capitalize()
    return f"{category} in {root_cause.component or 'an unknown component'}"


def _supported_rivals(rivals: Iterable[Rival], evidence: Evidence, components: Collection[str]) -> tuple[Rival, ...]:
    return tuple(
        Rival(
            component=rival.component,
            for_=_supported_prose(rival.for_, evidence, components)[0],
            against=_supported_prose(rival.against, evidence, components)[0],
        )
        for rival in rivals
        if rival.component in components
    )


def _checked_hop(hop: Hop, evidence: Evidence) -> Hop:
    """The hop as the evidence has it; one that it does not have passes no check."""
    for known in _hops(evidence):
        if (known.cause, known.effect) == (hop.cause, hop.effect):
            return known
    return Hop(cause=hop.cause, effect=hop.effect, structural=False, statistical=False, temporal=False)


def _confidence(
    root_cause: RootCause, claims: Collection[Claim], evidence: Evidence
) -> Literal["high", "medium", "low", "inconclusive"]:
    """As stated, but no higher than the checks allow."""
    if root_cause.component is None:
        return "inconclusive"
    if root_cause.confidence == "inconclusive":
        return "low"
    if not any(c.verified for c in claims) or not _suspected(root_cause.component, evidence):
        return "low"
    if root_cause.confidence == "high" and not all(claim.verified for claim in claims):
        return "medium"
    return root_cause.confidence


def _suspected(component: str, evidence: Evidence) -> bool:
    return any(suspect.component == component for suspect in evidence.suspects)


def _without_component(root_cause: RootCause) -> RootCause:
    note = f"The answer named {root_cause.component!r}, which is not a known component."
    return root_cause.model_copy(
        update={
            "component": None,
            "category": "unknown",
            "title": "No root cause could be established",
            "path": (),
            "confidence": "inconclusive",
            "engine_note": f"{root_cause.engine_note} {note}".strip(),
        }
    )


def _known(hop: Hop, components: Collection[str]) -> bool:
    return hop.cause in components and hop.effect in components


def _seen(evidence: Evidence) -> set[str]:
    """The components that the evidence is about."""
    ends = {end for hop in _hops(evidence) for end in (hop.cause, hop.effect)}
    return ends.union((f.component for f in evidence.findings), (s.component for s in evidence.suspects))


def _hops(evidence: Evidence) -> list[Hop]:
    return [hop for suspect in evidence.suspects for hop in suspect.path]


def _texts(findings: Iterable[Finding]) -> list[str]:
    return [text for f in findings for text in (f.component, f.signal, f.summary, f.excerpt)]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))
