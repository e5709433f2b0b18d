"""Sentences over any evidence: false ones, each with the proof that it is false, and true ones as a control.

A falsehood is made from a finding whose values are known, so that its proof does not rest on what checks it. Kinds say
how it lies. Everything is drawn from a seed.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain

from graph import hops
from graph.state import Claim, Evidence, Finding

_UNITS = {"lines/min": "lines a minute", "err/min": "errors a minute", "req/s": "requests a second"}
_KOREAN_UNITS = {"%": "%", "ms": "ms", "s": "초", "lines": "줄", "err/min": "건", "lines/min": "줄"}
_OTHER_UNITS = {"ms": "s", "s": "ms", "%": "ms", "ns": "ms", "lines": "%", "lines/min": "%", "err/min": "%"}
_ONES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TENS = ("", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORD = re.compile(r"[A-Za-z]{4,}")
_STRANGERS = ("billing-core", "ledger-gateway", "vault-proxy")
_APART = 1.2  # two values so far apart are different, however either is rounded
_FINDINGS = 5  # of one evidence


@dataclass(frozen=True)
class Sentence:
    """A claim. ``proof``: why it is false; empty: it is true. ``cites``: false only as it is cited, so no prose."""

    kind: str
    text: str
    evidence: tuple[str, ...]
    proof: str = ""
    quote: str = ""
    cites: bool = False

    @property
    def claim(self) -> Claim:
        """As a model would write it, sure of itself."""
        return Claim(text=self.text, evidence=self.evidence, quote=self.quote, verified=True)


@dataclass(frozen=True)
class _Draw:
    """One finding that was measured, and what it is drawn from."""

    finding: Finding
    observed: float
    baseline: float
    evidence: Evidence
    rng: random.Random

    @property
    def rises(self) -> bool:
        return self.observed > self.baseline

    @property
    def verb(self) -> str:
        return self.rng.choice(("rose", "increased", "climbed") if self.rises else ("fell", "dropped", "decreased"))

    @property
    def opposite(self) -> str:
        return self.rng.choice(("fell", "dropped", "declined") if self.rises else ("rose", "jumped", "increased"))

    @property
    def korean_verb(self) -> str:
        return self.rng.choice(("증가했다", "늘었다") if self.rises else ("감소했다", "줄었다"))

    @property
    def signal(self) -> str:
        return _marked(self.finding.signal, self.rng)

    @property
    def component(self) -> str:
        return self.finding.component

    def name(self, component: str = "") -> str:
        """The signal and whose it is."""
        component = component or self.component
        return self.rng.choice((f"{self.signal} of {component}", f"On {component}, {self.signal}"))

    def value(self, number: float, unit: str | None = None) -> str:
        """With its unit."""
        return _with_unit(number, self.finding.unit if unit is None else unit)

    def korean(self, number: float) -> str:
        """With its unit, in Korean."""
        unit = self.finding.unit
        return f"{figure(number)}{_KOREAN_UNITS.get(unit, f' {unit}' if unit else '')}"

    def others(self) -> list["_Draw"]:
        """The other findings, drawn in the same way."""
        found = (_draw(f, self.evidence, self.rng) for f in self.evidence.findings if f.id != self.finding.id)
        return [d for d in found if d]

    def false(self, kind: str, text: str, proof: str, *more: str, quote: str = "", cites: bool = False) -> Sentence:
        """A falsehood that cites the finding, and more."""
        return Sentence(kind, text, (self.finding.id, *more), proof, quote, cites)

    def true(self, kind: str, text: str, *more: str, quote: str = "") -> Sentence:
        """A true sentence that cites the finding, and more."""
        return Sentence(kind, text, (self.finding.id, *more), quote=quote)


def falsehoods(evidence: Evidence, seed: int) -> list[Sentence]:
    """False sentences of every kind that the evidence gives occasion for."""
    return list(_told(evidence, seed, _FALSE, _FALSE_OF_ALL))


def honest(evidence: Evidence, seed: int) -> list[Sentence]:
    """True sentences in a model's own words: rounded, converted, in English and Korean."""
    return list(_told(evidence, seed, _TRUE, _TRUE_OF_ALL))


_OfOne = Callable[[_Draw], Iterator[Sentence]]
_OfAll = Callable[[Evidence, random.Random], Iterator[Sentence]]


def _told(evidence: Evidence, seed: int, of_one: Sequence[_OfOne], of_all: Sequence[_OfAll]) -> Iterator[Sentence]:
    rng = random.Random(f"{seed} {evidence.digest}")
    drawn = [d for f in evidence.findings if (d := _draw(f, evidence, rng))]
    for draw in rng.sample(drawn, min(_FINDINGS, len(drawn))):
        yield from chain.from_iterable(tell(draw) for tell in of_one)
    yield from chain.from_iterable(tell(evidence, rng) for tell in of_all)


def _draw(finding: Finding, evidence: Evidence, rng: random.Random) -> _Draw | None:
    """A metric or a time that changed; a log's rate and a state are told of in other words."""
    observed, baseline = finding.observed, finding.baseline
    if finding.kind not in {"metric", "trace"} or observed is None or baseline is None:
        return None
    if "/call" in finding.unit or not _apart(observed, baseline):
        return None
    return _Draw(finding, observed, baseline, evidence, rng)


# --- numbers ---------------------------------------------------------------------------------------------


def _numbers(d: _Draw) -> Iterator[Sentence]:
    proof = f"{d.finding.signal} is {d.value(d.observed)}, and was {d.value(d.baseline)}"
    factor = d.rng.choice((3.0, 7.0, 12.0, 40.0))
    far = d.observed * factor + 3
    yield d.false("number, far", f"{d.name()} {d.verb} to {d.value(far)}.", proof)
    near = d.observed * (1.25 if d.rises else 0.7) + (0 if d.observed else 2)
    yield d.false("number, near", f"{d.name()} {d.verb} to {d.value(near)}.", proof)
    yield d.false("number, near", f"{d.name()} {d.verb} to about {d.value(near)}.", proof)
    start = d.baseline * 1.6 + 5
    if not any(_alike(start, x) for x in (d.observed, d.baseline, d.observed - d.baseline)):
        text = f"{d.name()} {d.verb} from {d.value(start)} to {d.value(d.observed)}."
        yield d.false("number, half true", text, proof)
    low, high = sorted((d.observed * 2 + 4, d.observed * 4 + 9))
    yield d.false("range", f"{d.name()} was between {figure(low)} and {d.value(high)}.", proof)
    for tens in (2, 3, 4, 7, 9):
        if not _in_sight(10 * tens + 6, d):
            text = f"{d.name()} {d.verb} to {_TENS[tens]}-{_ONES[6]}{_spelled_unit(d)}."
            yield d.false("number in words", text, proof)
            break
    yield d.false("Korean, number", f"{d.component}의 {d.signal} 값이 {d.korean(far)}까지 {d.korean_verb}.", proof)


def _spelled_unit(d: _Draw) -> str:
    words = {"%": " percent", "ms": " milliseconds", "s": " seconds"}
    return words.get(d.finding.unit, "")


def _multiples(d: _Draw) -> Iterator[Sentence]:
    if d.baseline <= 0 or d.observed <= 0:
        return
    ratio = max(d.observed / d.baseline, d.baseline / d.observed)
    proof = f"{d.finding.signal} changed {ratio:.1f} times"
    wrong = figure(round(ratio * 3 + 2))
    verb = "times the usual" if d.rises else "times less than usual"
    yield d.false("multiple", f"{d.name()} is {wrong} {verb}.", proof)
    yield d.false("Korean, multiple", f"{d.component}의 {d.signal} 값이 {wrong}배로 {d.korean_verb}.", proof)
    if ratio > 3 and d.rises:
        yield d.false("multiple", f"{d.name()} doubled.", proof)
        yield d.false("multiple", f"{d.name()} rose by half.", proof)


def _units(d: _Draw) -> Iterator[Sentence]:
    other = _OTHER_UNITS.get(d.finding.unit)
    if other and d.observed >= 0.01:
        proof = f"{d.finding.signal} is in {d.finding.unit}, not {other}"
        yield d.false("unit", f"{d.name()} {d.verb} to {d.value(d.observed, other)}.", proof)
    if d.finding.unit == "%":
        text = f"{figure(d.observed)} requests of {d.component} failed, as {d.signal} tells."
        yield d.false("share as a count", text, f"{d.finding.signal} is a share, no count")


def _of_others(d: _Draw) -> Iterator[Sentence]:
    """Numbers, and names, of other findings, which are cited too."""
    others = [o for o in d.others() if o.finding.unit == d.finding.unit and o.finding.signal != d.finding.signal]
    strange = [o for o in others if not _in_sight(o.observed, d)]
    if strange:
        other = d.rng.choice(strange)
        proof = f"{d.value(other.observed)} is {other.finding.signal} of {other.component}"
        text = f"{d.name()} {d.verb} to {d.value(other.observed)}."
        yield d.false("number of another finding", text, proof, other.finding.id)
        proof = f"{other.finding.id} tells nothing of it"
        right = f"{d.name()} {d.verb} to {d.value(d.observed)}."
        if not _in_sight(d.observed, other):
            yield Sentence("cited from another finding", right, (other.finding.id,), proof, cites=True)


# --- times, versions, ids ----------------------------------------------------------------------------------


def _times(d: _Draw) -> Iterator[Sentence]:
    proof = f"{d.finding.signal} began at {d.finding.at:%H:%M:%S}"
    late = _shifted(d, d.rng.choice((-73, 41, 88)))
    yield d.false("time, far", f"{d.name()} {d.verb} at {late:%H:%M}.", proof)
    near = _shifted(d, d.rng.choice((-6, -4, 5, 7)))
    yield d.false("time, near", f"{d.name()} {d.verb} from {near:%H:%M:%S} on.", proof)
    yield d.false("Korean, time", f"{late.hour}시 {late.minute}분부터 {d.component}의 {d.signal} 값이 변했다.", proof)
    text = f"{d.name()} stayed that way for {d.rng.choice((47, 53, 59))} hours."
    yield d.false("duration invented", text, "nothing tells how long")


def _shifted(d: _Draw, minutes: int) -> datetime:
    """A time that is not another finding's."""
    at = d.finding.at + timedelta(minutes=minutes)
    taken = {f"{f.at:%H:%M}" for f in d.evidence.findings}
    while f"{at:%H:%M}" in taken:
        at += timedelta(minutes=17)
    return at


def _inventions(d: _Draw) -> Iterator[Sentence]:
    last = len(d.evidence.findings)
    right = f"{d.name()} {d.verb} to {d.value(d.observed)}"
    invented = f"E{last + d.rng.randint(1, 60)}"
    yield Sentence("id invented", f"{right}.", (invented,), f"there is no {invented}", cites=True)
    yield d.false("id invented", f"{right}, as {invented} shows too.", f"there is no {invented}")
    version = f"v{d.rng.randint(7, 19)}.{d.rng.randint(30, 60)}.{d.rng.randint(2, 9)}"
    yield d.false("version invented", f"{right} after {version}.", f"{version} is nowhere")
    stranger = d.rng.choice(_STRANGERS)
    yield d.false("service invented", f"{d.name(stranger)} {d.verb}.", f"there is no {stranger}")
    yield d.false("service invented", f"{right} because {stranger} was slow.", f"there is no {stranger}")
    yield d.false("Korean, service", f"{stranger} 때문에 {d.component}의 {d.signal} 값이 변했다.", f"no {stranger}")


# --- directions, denials --------------------------------------------------------------------------------------


def _directions(d: _Draw) -> Iterator[Sentence]:
    proof = f"{d.finding.signal} went from {d.value(d.baseline)} to {d.value(d.observed)}"
    yield d.false("direction", f"{d.name()} {d.opposite}.", proof)
    text = f"{d.name()} {d.opposite} from {d.value(d.baseline)} to {d.value(d.observed)}."
    yield d.false("direction", text, proof)
    yield d.false("order", f"{d.name()} went from {d.value(d.observed)} to {d.value(d.baseline)}.", proof)
    yield d.false("order", f"{d.name()} was {d.value(d.observed)} before and is {d.value(d.baseline)} now.", proof)
    yield d.false("negation", f"{d.name()} did not {'rise' if d.rises else 'fall'}.", proof)
    yield d.false("calm", f"{d.name()} stayed normal.", proof)
    yield d.false("calm", f"{d.name()} did not change.", proof)
    opposite = "감소했다" if d.rises else "증가했다"
    yield d.false("Korean, direction", f"{d.component}의 {d.signal} 값이 {opposite}.", proof)
    yield d.false("Korean, negation", f"{d.component}의 {d.signal} 값은 정상이다.", proof)
    before, after = d.korean(d.observed), d.korean(d.baseline)
    yield d.false("Korean, order", f"{d.component}의 {d.signal} 값이 {before}에서 {after}(으)로 변했다.", proof)
    right = f"{d.name()} {d.verb} to {d.value(d.observed)}"
    yield d.false("half true", f"{right} and then {d.opposite} to {d.value(d.observed * 5 + 7)}.", proof)


def _services(d: _Draw) -> Iterator[Sentence]:
    """The same of a component that shows no such thing."""
    strangers = [o for o in d.others() if o.component != d.component]
    without = [o for o in strangers if not any(_same_signal(d, f) for f in _of(o.component, d.evidence))]
    if not without:
        return
    other = d.rng.choice(without)
    proof = f"{d.finding.signal} was measured on {d.component} only"
    text = f"{d.name(other.component)} {d.verb} to {d.value(d.observed)}."
    if other.component not in f"{d.finding.summary} {d.finding.excerpt}":
        yield d.false("service swapped", text, proof)
        yield d.false("service swapped, both cited", text, proof, other.finding.id)


def _same_signal(d: _Draw, finding: Finding) -> bool:
    return finding.signal.split()[0] == d.finding.signal.split()[0]


def _of(component: str, evidence: Evidence) -> list[Finding]:
    return [f for f in evidence.findings if f.component == component]


def _onsets(d: _Draw) -> Iterator[Sentence]:
    later = [o for o in d.others() if o.finding.at - d.finding.at > timedelta(minutes=2)]
    later = [o for o in later if o.component != d.component]
    if later:
        o = d.rng.choice(later)
        proof = f"{d.finding.signal} began at {d.finding.at:%H:%M:%S}, {o.finding.signal} at {o.finding.at:%H:%M:%S}"
        first = f"{o.name()} {o.verb} before {d.name()} did."
        yield d.false("onsets flipped", first, proof, o.finding.id)
        text = f"{d.name()} {d.verb} only after {o.name()} had."
        yield d.false("onsets flipped", text, proof, o.finding.id)
        text = f"{o.component}의 {o.signal} 값이 먼저 변했고, 그 뒤에 {d.component}의 {d.signal} 값이 변했다."
        yield d.false("Korean, onsets", text, proof, o.finding.id)


# --- quotes -----------------------------------------------------------------------------------------------


def _quotes(evidence: Evidence, rng: random.Random) -> Iterator[Sentence]:
    quotable = [f for f in evidence.findings if len(_WORD.findall(f.excerpt)) >= 4]
    for finding in rng.sample(quotable, min(3, len(quotable))):
        words = finding.excerpt.split()[:10]
        told = " ".join(words)
        altered = _altered(told, rng)
        if altered not in finding.excerpt and altered not in finding.summary:
            yield Sentence(
                "quote altered", f"{finding.component} says «{altered}».", (finding.id,), f"it says «{told}»"
            )
            text = f"{finding.component} tells of trouble."
            yield Sentence("quote altered", text, (finding.id,), f"it says «{told}»", altered, cites=True)
        text = f"{finding.component} logs «kernel panic: lost quorum»."
        yield Sentence("quote invented", text, (finding.id,), "nobody logs that")
        others = [f for f in quotable if f.excerpt.split()[:5] != finding.excerpt.split()[:5]]
        if others:
            other = rng.choice(others)
            spliced = " ".join([*words[:4], *other.excerpt.split()[-4:]])
            if any(spliced in " ".join(f.excerpt.split()) for f in (finding, other)):
                continue  # both log the same words: what they make is verbatim
            ids, proof = (finding.id, other.id), f"its halves are of {finding.id} and of {other.id}"
            yield Sentence("quote spliced", f"It logs «{spliced}».", ids, proof)
            text = f"{finding.component} tells of trouble."
            yield Sentence("quote spliced", text, ids, proof, spliced, cites=True)


def _altered(told: str, rng: random.Random) -> str:
    word = rng.choice(_WORD.findall(told) or [told])
    return told.replace(word, "unauthorized" if word != "unauthorized" else "expected", 1)


# --- causes -----------------------------------------------------------------------------------------------


def _causes(evidence: Evidence, rng: random.Random) -> Iterator[Sentence]:
    held = {(h.cause, h.effect) for h in hops.ranked(evidence) if hops.holds(h)}
    one_way = [(c, e) for c, e in sorted(held) if not hops.joined(e, c, evidence)]
    for cause, effect in one_way[:4]:
        ids = _ids_of((cause, effect), evidence)
        proof = f"{effect} waits for {cause}, not the other way round"
        for text in _blaming(effect, cause):
            yield Sentence("cause reversed", text, ids, proof)
        yield Sentence("Korean, cause reversed", f"{effect} 때문에 {cause}에 장애가 발생했다.", ids, proof)
        yield Sentence("Korean, cause reversed", f"{effect}가 {cause}의 오류를 유발했다.", ids, proof)
    names = sorted({f.component for f in evidence.findings})
    pairs = [(a, b) for a in names for b in names if a != b and not hops.joined(a, b, evidence)]
    strangers = [(a, b) for a, b in pairs if not hops.joined(b, a, evidence)]
    for cause, effect in rng.sample(strangers, min(3, len(strangers))):
        ids = _ids_of((cause, effect), evidence)
        for text in _blaming(cause, effect):
            yield Sentence("hop invented", text, ids, "no checked path joins them")


def _blaming(cause: str, effect: str) -> tuple[str, ...]:
    return (
        f"{cause} made {effect} fail.",
        f"{effect} fails because of {cause}.",
        f"The failure of {cause} propagated to {effect}.",
        f"{effect} became slow since it waits for {cause}.",
        f"Due to {cause}, requests of {effect} fail.",
        f"{cause} dragged {effect} down.",
        f"{cause} is why {effect} is in trouble.",
        f"When {cause} failed, {effect} failed as a consequence.",
        f"{effect} is a victim of {cause}.",
    )


def _ids_of(components: Sequence[str], evidence: Evidence) -> tuple[str, ...]:
    first = (next((f.id for f in _of(name, evidence)), "") for name in components)
    return tuple(dict.fromkeys(eid for eid in first if eid))


def _blame(evidence: Evidence, rng: random.Random) -> Iterator[Sentence]:
    suspects = {s.component for s in evidence.suspects}
    near = {end for h in hops.ranked(evidence) for end in (h.cause, h.effect)}
    ends = {end for edge in evidence.edges for end in (edge.caller, edge.callee)}
    innocent = sorted(({f.component for f in evidence.findings} | ends) - suspects - near)
    first = next((f.id for f in evidence.findings if f.kind != "change"), "")
    for name in rng.sample(innocent, min(2, len(innocent))) if first else []:
        ids = _ids_of((name,), evidence) or (first,)
        for text in (
            f"{name} is the root cause.",
            f"The root cause is {name}.",
            f"The incident starts in {name}.",
            f"{name} is broken.",
            f"근본 원인은 {name}이다.",
        ):
            yield Sentence("wrong one blamed", text, ids, f"ranking does not suspect {name}")


_EVENTS = (
    (r"deploy|version|release|roll.?out", "{c} was deployed minutes before.", "직전에 {c} 배포가 있었다."),
    (r"restart|reboot|uptime|stopped|exit", "{c} was restarted by somebody.", "{c} 서비스가 재시작되었다."),
    (r"oom|memory|heap|gc\b", "{c} ran out of memory.", "{c}의 메모리가 부족했다."),
    (r"cert|tls|ssl|x509", "The certificate of {c} expired.", "{c}의 인증서가 만료되었다."),
    (r"dns|resolv|no such host", "DNS could not resolve {c}.", "{c}의 DNS 조회가 실패했다."),
    (r"attack|ddos|breach", "{c} is under attack.", "{c} 서비스가 공격을 받고 있다."),
    (r"disk|volume|storage|no space", "The disk of {c} is full.", "{c}의 디스크가 가득 찼다."),
    (r"delet|drop|wipe", "Somebody deleted a table of {c}.", "누군가 {c}의 테이블을 삭제했다."),
    (r"throttl|rate.?limit|quota|429|too many", "{c} was throttled.", "{c}에 속도 제한이 걸렸다."),
    (r"cpu|processor", "The CPU of {c} was saturated.", "{c}의 프로세서가 포화되었다."),
    (r"config|setting|flag|parameter", "Somebody changed the configuration of {c}.", "{c}의 설정이 변경되었다."),
    (r"recover|resolved", "{c} recovered by itself.", "{c} 서비스가 복구되었다."),
    (r"packet|network|unreachable|reset", "The network of {c} lost packets.", "{c}의 네트워크가 불안정했다."),
    (r"lock", "A deadlock blocked {c}.", "{c}에 교착 상태가 발생했다."),
)


def _events(evidence: Evidence, rng: random.Random) -> Iterator[Sentence]:
    told = " ".join(f"{f.signal} {f.summary} {f.excerpt}" for f in evidence.findings).lower()
    names = sorted({f.component for f in evidence.findings if f.kind not in {"change", "knowledge"}})
    for words, english, korean in _EVENTS if names else ():
        if re.search(words, told):
            continue
        component = rng.choice(names)
        for kind, form in (("event invented", english), ("Korean, event", korean)):
            text, ids = form.format(c=component), _ids_of((component,), evidence)
            yield Sentence(kind, text, ids, "nothing in the evidence tells of it")


_SHARE = re.compile(r"^(\d+) of (\d+) calls of (\S+) to (\S+) failed")


def _quantifiers(evidence: Evidence, rng: random.Random) -> Iterator[Sentence]:
    for finding in evidence.findings:
        match = _SHARE.match(finding.summary)
        share = int(match.group(1)) / int(match.group(2)) if match else 0.0
        if match is None or not 0.1 < share < 0.9:
            continue
        caller, callee = match.group(3), match.group(4)
        proof = f"{match.group(1)} of {match.group(2)} failed"
        wrong = ["All calls of {0} to {1} failed.", "Every call of {0} to {1} failed.", "No call to {1} failed."]
        wrong += ["Calls of {0} to {1} always failed.", "{0}에서 {1}(으)로 가는 모든 호출이 실패했다."]
        wrong += ["Most calls of {0} to {1} failed."] if share < 0.4 else []
        wrong += ["Hardly any call of {0} to {1} failed."] if share > 0.6 else []
        for form in wrong:
            yield Sentence("quantifier", form.format(caller, callee), (finding.id,), proof)


# --- the control ------------------------------------------------------------------------------------------


def _true_numbers(d: _Draw) -> Iterator[Sentence]:
    observed, baseline = d.value(d.observed), d.value(d.baseline)
    yield d.true("as it is", f"{d.name()} {d.verb} to {observed}.")
    yield d.true("from, to", f"{d.name()} {d.verb} from {baseline} to {observed}.")
    yield d.true("with a quote", f"{d.name()} {d.verb}.", quote=d.finding.summary[:60].rsplit(" ", 1)[0])
    if abs(d.observed) >= 10:
        yield d.true("rounded", f"{d.name()} {d.verb} to about {d.value(float(f'{d.observed:.2g}'))}.")
    yield d.true("direction", f"{d.name()} {d.verb} sharply.")
    if d.baseline > 0 and d.rises and d.observed / d.baseline < 1000:
        yield d.true("multiple", f"{d.name()} is about {figure(d.observed / d.baseline)} times the usual.")
    if abs(d.observed - d.baseline) > 1:
        yield d.true("difference", f"{d.name()} {d.verb} by {d.value(abs(d.observed - d.baseline))}.")
    yield from _converted(d)


def _converted(d: _Draw) -> Iterator[Sentence]:
    unit, to = {"ms": ("s", 1e-3), "s": ("ms", 1e3), "ns": ("s", 1e-9)}.get(d.finding.unit, ("", 0.0))
    if unit and d.observed * to >= 0.1:
        yield d.true("converted", f"{d.name()} {d.verb} to {figure(d.observed * to)} {unit}.")


def _true_times(d: _Draw) -> Iterator[Sentence]:
    at = d.finding.at
    yield d.true("time", f"{d.name()} {d.verb} at {at:%H:%M}.")
    yield d.true("time", f"From {at:%H:%M:%S} UTC on, {d.signal} of {d.component} {d.verb}.")
    later = [o for o in d.others() if o.finding.at - at >= timedelta(minutes=2) and o.component != d.component]
    if later:
        other = d.rng.choice(later)
        minutes = (other.finding.at - at).total_seconds() / 60
        if minutes == int(minutes):
            text = f"{other.name()} {other.verb} {int(minutes)} minutes after {d.name()} did."
            yield d.true("time between", text, other.finding.id)
        yield d.true("onsets", f"{d.name()} {d.verb} before {other.name()} did.", other.finding.id)
        text = f"{d.component}의 {d.signal} 값이 먼저 변했고, 그 뒤에 {other.component}의 {other.signal} 값이 변했다."
        yield d.true("Korean, onsets", text, other.finding.id)


def _true_korean(d: _Draw) -> Iterator[Sentence]:
    baseline, observed = d.korean(d.baseline), d.korean(d.observed)
    subject = f"{d.component}의 {d.signal} 값이"
    yield d.true("Korean", f"{subject} {baseline}에서 {observed}(으)로 {d.korean_verb}.")
    yield d.true("Korean", f"{subject} {observed}까지 {d.korean_verb}.")
    yield d.true("Korean, time", f"{d.finding.at:%H:%M}부터 {subject} {d.korean_verb}.")
    yield d.true("Korean, time", f"{d.finding.at.hour}시 {d.finding.at.minute}분에 {subject} {d.korean_verb}.")
    if d.baseline > 0 and d.rises and d.observed / d.baseline < 1000:
        ratio = d.observed / d.baseline
        yield d.true("Korean, multiple", f"{subject} 평소의 약 {figure(ratio)}배로 {d.korean_verb}.")


def _true_pairs(d: _Draw) -> Iterator[Sentence]:
    others = [o for o in d.others() if o.component != d.component]
    if others:
        o = d.rng.choice(others)
        text = f"{d.name()} {d.verb} to {d.value(d.observed)} and {o.name()} {o.verb} to {o.value(o.observed)}."
        yield d.true("two findings", text, o.finding.id)


def _true_causes(evidence: Evidence, rng: random.Random) -> Iterator[Sentence]:
    for cause, effect in sorted({(h.cause, h.effect) for h in hops.ranked(evidence) if hops.holds(h)})[:4]:
        ids = _ids_of((cause, effect), evidence)
        for text in _blaming(cause, effect):
            yield Sentence("cause", text, ids)
        yield Sentence("Korean, cause", f"{cause} 때문에 {effect}에 장애가 발생했다.", ids)
    for suspect in evidence.suspects[:1]:
        yield Sentence("root cause", f"{suspect.component} is the root cause.", suspect.findings[:1])
        yield Sentence("root cause", f"근본 원인은 {suspect.component}이다.", suspect.findings[:1])


def _true_quotes(evidence: Evidence, rng: random.Random) -> Iterator[Sentence]:
    quotable = [f for f in evidence.findings if f.kind == "log" and len(_WORD.findall(f.excerpt)) >= 4]
    for finding in rng.sample(quotable, min(3, len(quotable))):
        told = " ".join(finding.excerpt.split()[:8])
        yield Sentence("quote", f"{finding.component} logs «{told}».", (finding.id,))
        told = " ".join(finding.excerpt.split()[1:6])
        text = f"What {finding.component} logs is new since {finding.at:%H:%M}."
        yield Sentence("quote", text, (finding.id,), "", told)


def _true_changes(evidence: Evidence, rng: random.Random) -> Iterator[Sentence]:
    for finding in evidence.findings:
        if finding.kind == "change" and "deploy" in finding.summary:
            yield Sentence("change", f"{finding.component} was deployed at {finding.at:%H:%M}.", (finding.id,))
            text = f"{finding.at:%H:%M}에 {finding.component} 배포가 있었다."
            yield Sentence("Korean, change", text, (finding.id,))
    for finding in evidence.findings:
        match = _SHARE.match(finding.summary)
        if match:
            failed, of, caller, callee = match.groups()
            text = f"{failed} of {of} calls of {caller} to {callee} failed, {figure(finding.observed or 0)} %."
            yield Sentence("share", text, (finding.id,))


# --- figures -------------------------------------------------------------------------------------------------


def figure(number: float) -> str:
    """As a person writes it."""
    if abs(number) >= 100 or number == int(number):
        return f"{number:,.0f}"
    return f"{number:.3g}"


def _with_unit(number: float, unit: str) -> str:
    unit = _UNITS.get(unit, unit)
    return f"{figure(number)} {unit}" if unit else figure(number)


def _marked(signal: str, rng: random.Random) -> str:
    """In backticks or bare; an endless one is shortened by nobody."""
    return f"`{signal}`" if rng.random() < 0.4 else signal


def _apart(one: float, other: float) -> bool:
    low, high = sorted((abs(one), abs(other)))
    return high > low * _APART


def _alike(one: float, other: float) -> bool:
    return not _apart(one, other)


def _in_sight(number: float, d: _Draw) -> bool:
    """Whether the number, in whatever unit, could be one of the finding's."""
    known = [d.observed, d.baseline, d.observed - d.baseline]
    known += [float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*(?:\.\d+)?", d.finding.summary)]
    known += [d.observed / d.baseline] if d.baseline else []
    return any(_alike(number, k) for k in known)


_FALSE: tuple[_OfOne, ...] = (
    _numbers,
    _multiples,
    _units,
    _of_others,
    _times,
    _inventions,
    _directions,
    _services,
    _onsets,
)
_FALSE_OF_ALL: tuple[_OfAll, ...] = (_quotes, _causes, _blame, _events, _quantifiers)
_TRUE: tuple[_OfOne, ...] = (_true_numbers, _true_times, _true_korean, _true_pairs)
_TRUE_OF_ALL: tuple[_OfAll, ...] = (_true_causes, _true_quotes, _true_changes)
