"""Falsehoods in other words than those of ``falsehoods``: what was mended for the one set is counted on the other."""

import random
import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import chain

from graph import hops
from graph.state import Evidence, Finding
from tests.graph.llms.falsehoods import Sentence, figure

_FINDINGS = 3  # of one evidence
_SHARE = re.compile(r"^(\d+) of (\d+) calls of (\S+) to (\S+) failed")
_EVENTS = (
    (r"deploy|version|release|roll.?out", "A bad release of {c} went out.", "{c}의 새 버전이 나간 직후였다."),
    (r"roll.?back|revert", "An engineer rolled {c} back.", "{c}을(를) 이전 버전으로 되돌렸다."),
    (r"oom|memory|heap|gc\b", "{c} hit its memory limit and was OOM-killed.", "{c}에서 메모리 누수가 생겼다."),
    (r"cert|tls|ssl|x509", "The TLS handshake with {c} fails.", "{c}의 인증서 갱신이 누락되었다."),
    (r"dns|resolv|no such host", "The name of {c} could not be looked up.", "{c}의 도메인 이름을 찾지 못했다."),
    (r"attack|ddos|breach|hack", "A hacker got into {c}.", "{c}이(가) 해킹당했다."),
    (r"disk|volume|storage|no space", "{c} has run out of disk space.", "{c}의 저장 공간이 바닥났다."),
    (r"throttl|rate.?limit|quota|429|too.?many", "{c} hit a rate limit.", "{c}이(가) 할당량을 초과했다."),
    (r"config|setting|flag|parameter", "An operator flipped a feature flag on {c}.", "{c}의 플래그를 누군가 켰다."),
    (r"fail.?over", "{c} failed over to its replica.", "{c}에서 페일오버가 일어났다."),
    (r"scal|desired|tasks|replicas", "{c} was scaled down an hour ago.", "{c}의 인스턴스 수를 줄였다."),
    (r"restart|reboot|uptime|stopped|exit", "{c} keeps rebooting.", "{c}이(가) 다시 기동되었다."),
    (r"lock", "Two transactions of {c} deadlock.", "{c}에서 락 경합이 심했다."),
    (r"network|packet|unreachable|reset", "A switch in front of {c} drops packets.", "{c}의 네트워크가 끊겼다."),
    (r"cache|redis|evict", "Everything was evicted from the cache of {c}.", "{c}의 캐시가 비워졌다."),
    (r"thread", "The threads of {c} are all stuck.", "{c}의 스레드가 모두 멈췄다."),
    (r"backup|vacuum|cron|batch", "A nightly backup of {c} was running.", "{c}에서 백업이 돌고 있었다."),
)
_WORDS = {"req/s": "requests a second", "lines/min": "lines a minute", "err/min": "errors a minute"}


def retold(evidence: Evidence, seed: int) -> list[Sentence]:
    """False sentences of every kind that the evidence gives occasion for."""
    rng = random.Random(f"retold {seed} {evidence.digest}")
    drawn = [f for f in evidence.findings if _is_measured(f)]
    some = rng.sample(drawn, min(_FINDINGS, len(drawn)))
    return [
        *chain.from_iterable(_of(f, evidence, rng) for f in some),
        *_causes(evidence),
        *_blame(evidence),
        *_events(evidence, rng),
        *_shares(evidence),
        *_quotes(evidence, rng),
    ]


def _is_measured(f: Finding) -> bool:
    if f.kind not in {"metric", "trace"} or f.observed is None or f.baseline is None or "/call" in f.unit:
        return False
    low, high = sorted((abs(f.observed), abs(f.baseline)))
    return high > 1.5 * low


def _of(f: Finding, evidence: Evidence, rng: random.Random) -> Iterator[Sentence]:
    observed, baseline = f.observed or 0.0, f.baseline or 0.0
    rises, c, s = observed > baseline, f.component, f.signal
    proof = f"{s} went from {figure(baseline)} to {figure(observed)} {f.unit}"
    far = _value(max(observed, baseline) * rng.choice((4.0, 9.0, 23.0)) + 11, f.unit)
    for text in (
        f"{s} on {c} peaked at {far}.",
        f"We see {far} for {s} ({c}).",
        f"{c}: {s} = {far}.",
        f"{s} of {c} has never been above {_value(min(observed, baseline) / 3, f.unit)}.",
        f"{c}의 {s} 값이 {far}에 달했다.",
        f"{s} ({c}): 최대 {far}.",
    ):
        yield Sentence("number", text, (f.id,), proof)
    swapped = f"{s} of {c} {'rose' if rises else 'fell'} to {_value(baseline, f.unit)}."
    yield Sentence("baseline as observed", swapped, (f.id,), proof)
    yield Sentence("baseline as observed", f"{s} of {c} is at {_value(baseline, f.unit)} now.", (f.id,), proof)
    yield Sentence("baseline as observed", f"{c}의 {s} 값은 현재 {_value(baseline, f.unit)}이다.", (f.id,), proof)
    wrong: tuple[str, ...] = (
        (f"{s} of {c} is well below its usual level.", f"{s} of {c} eased off.", f"{c}의 {s} 값은 평소보다 낮았다.")
        if rises
        else (f"{s} of {c} is far above its usual level.", f"{s} of {c} shot through the roof.")
    )
    wrong += (f"{c}의 {s} 지표가 {'내려앉았다' if rises else '치솟았다'}.",)
    for text in wrong:
        yield Sentence("direction", text, (f.id,), proof)
    for text in (
        f"{c} shows nothing unusual in {s}.",
        f"{s} of {c} was unremarkable.",
        f"{s} of {c} kept its usual level.",
        f"{s} of {c} is back at its baseline.",
        f"{c}의 {s} 지표에는 특이 사항이 없었다.",
        f"{c}의 {s} 값은 평상시 수준이었다.",
    ):
        yield Sentence("calm", text, (f.id,), proof)
    ratio = observed / baseline if baseline else 0.0
    if ratio > 1.5:
        yield from _multiples(f, ratio, proof)
    at = f.at + timedelta(minutes=rng.choice((-34, 29, 52)))
    if not any(f"{other.at:%H:%M}" == f"{at:%H:%M}" for other in evidence.findings):
        yield Sentence("time", f"The first sign on {c} was {s} at {at:%H:%M}.", (f.id,), f"at {f.at:%H:%M}")
        yield Sentence("time", f"{c}의 {s} 이상은 {at:%H:%M}에 시작됐다.", (f.id,), f"at {f.at:%H:%M}")
    yield from _order(f, evidence, rng)


def _multiples(f: Finding, ratio: float, proof: str) -> Iterator[Sentence]:
    c, s = f.component, f.signal
    if not 4 < ratio < 6:
        yield Sentence("multiple", f"{s} of {c} quintupled.", (f.id,), proof)
        yield Sentence("multiple", f"{s} of {c} grew by a factor of five.", (f.id,), proof)
        yield Sentence("multiple", f"{c}의 {s} 값이 다섯 배가 되었다.", (f.id,), proof)
    if ratio < 4:
        yield Sentence("multiple", f"{s} of {c} is an order of magnitude above normal.", (f.id,), proof)
        yield Sentence("multiple", f"{s} of {c} is up by 900 %.", (f.id,), proof)
    if ratio > 3:
        yield Sentence("multiple", f"{s} of {c} rose by a quarter.", (f.id,), proof)
        yield Sentence("multiple", f"{s} of {c} is up 20 %.", (f.id,), proof)
        yield Sentence("multiple", f"{c}의 {s} 값이 절반 늘었다.", (f.id,), proof)


def _order(f: Finding, evidence: Evidence, rng: random.Random) -> Iterator[Sentence]:
    later = [
        o
        for o in evidence.findings
        if _is_measured(o) and o.component != f.component and o.at - f.at > timedelta(minutes=2)
        if not any(x.component == o.component and hops.deviates(x) and x.at <= f.at for x in evidence.findings)
    ]
    if later:
        o = rng.choice(later)
        first, second = f"{f.signal} of {f.component}", f"{o.signal} of {o.component}"
        proof = f"{first} began at {f.at:%H:%M:%S}, {second} at {o.at:%H:%M:%S}"
        for text in (
            f"{second} changed first, {first} followed.",
            f"{first} trailed {second}.",
            f"{o.component} had trouble earlier than {f.component}.",
            f"{o.component}에서 먼저 이상이 나타난 다음 {f.component}에서 나타났다.",
            f"{f.component}보다 {o.component}가 먼저 이상을 보였다.",
        ):
            yield Sentence("order", text, (f.id, o.id), proof)


def _causes(evidence: Evidence) -> Iterator[Sentence]:
    held = sorted({(h.cause, h.effect) for h in hops.ranked(evidence) if hops.holds(h)})
    for cause, effect in [pair for pair in held if not hops.joined(pair[1], pair[0], evidence)][:2]:
        ids = tuple(_first(name, evidence) for name in (cause, effect))
        for text in (
            f"{effect} pulled {cause} into trouble.",
            f"{cause} choked on {effect}.",
            f"{effect} knocked {cause} over.",
            f"{effect} took {cause} with it.",
            f"The trouble of {cause} has its origin in {effect}.",
            f"{cause} fails whenever {effect} does.",
            f"The fault of {effect} is what {cause} feels.",
            f"{cause}의 장애는 {effect} 탓이다.",
            f"{effect}의 문제가 {cause}까지 번졌다.",
            f"{effect}이(가) {cause}을(를) 무너뜨렸다.",
        ):
            yield Sentence("cause reversed", text, tuple(eid for eid in ids if eid), "the other way round")


def _blame(evidence: Evidence) -> Iterator[Sentence]:
    near = {end for h in hops.ranked(evidence) for end in (h.cause, h.effect)}
    innocent = sorted({f.component for f in evidence.findings} - {s.component for s in evidence.suspects} - near)
    for name in innocent[:2]:
        for text in (
            f"Look no further than {name}.",
            f"{name} is the one to fix.",
            f"Everything points to {name}.",
            f"{name} is the origin of this incident.",
            f"It all began on {name}.",
            f"The fault lies with {name}.",
            f"문제의 진원지는 {name}이다.",
            f"{name} 장애가 발단이었다.",
        ):
            yield Sentence("wrong one blamed", text, (_first(name, evidence),), f"ranking does not suspect {name}")


def _first(component: str, evidence: Evidence) -> str:
    return next((f.id for f in evidence.findings if f.component == component), "")


def _events(evidence: Evidence, rng: random.Random) -> Iterator[Sentence]:
    told = " ".join(f"{f.signal} {f.summary} {f.excerpt}" for f in evidence.findings).lower()
    names = sorted({f.component for f in evidence.findings if f.kind not in {"change", "knowledge"}})
    for words, *forms in _EVENTS if names else ():
        if not re.search(words, told):
            component = rng.choice(names)
            for form in forms:
                ids = (_first(component, evidence),)
                yield Sentence("event", form.format(c=component), ids, "nothing in the evidence tells of it")


def _shares(evidence: Evidence) -> Iterator[Sentence]:
    for finding in evidence.findings:
        match = _SHARE.match(finding.summary)
        share = int(match.group(1)) / int(match.group(2)) if match else 0.0
        if match is None or not 0.15 < share < 0.85:
            continue
        failed, of, caller, callee = match.groups()
        for form in (
            "100 % of the calls of {0} to {1} failed.",
            "Nearly all calls of {0} to {1} failed.",
            "Only a handful of calls of {0} to {1} failed.",
            "Not a single call of {0} to {1} failed.",
            "{0} can not reach {1} at all.",
            "{2} of {3} calls of {0} to {1} succeeded.",
            "{0}에서 {1}(으)로 가는 호출은 거의 다 실패했다.",
            "{0}에서 {1}(으)로 가는 호출은 전부 성공했다.",
        ):
            text = form.format(caller, callee, failed, of)
            yield Sentence("share", text, (finding.id,), f"{failed} of {of} failed")


def _quotes(evidence: Evidence, rng: random.Random) -> Iterator[Sentence]:
    quotable = [f for f in evidence.findings if f.kind == "log" and len(f.excerpt.split()) >= 6]
    for finding in rng.sample(quotable, min(2, len(quotable))):
        words = finding.excerpt.split()[:9]
        for place in (2, 4):
            told = " ".join([*words[:place], "not", *words[place:]])
            text = f"The log of {finding.component} reads “{told}”."
            yield Sentence("quote", text, (finding.id,), f"it says {' '.join(words)}")
        gap = " ".join([*words[:2], *words[3:]])
        if gap not in finding.excerpt:
            yield Sentence("quote", f"{finding.component} 로그: '{gap}'", (finding.id,), f"it says {' '.join(words)}")


def _value(number: float, unit: str) -> str:
    unit = _WORDS.get(unit, unit)
    return f"{figure(number)} {unit}" if unit else figure(number)


BY_HAND: Sequence[tuple[str, str]] = (
    ("The pool of payment-service still has room.", "E1"),
    ("Only 12 connections are active on payment-service.", "E1"),
    ("payment-service uses fewer connections than usual.", "E1"),
    ("Nobody waits for a connection of payment-service.", "E1 E2"),
    ("payment-service logs fewer errors than before.", "E2"),
    ("Errors of payment-service subsided.", "E2"),
    ("payment-service logs 1,284 warnings an hour.", "E2"),
    ("The timeout of payment-service is set to 3 s.", "E2"),
    ("Every request of payment-service times out.", "E2"),
    ("The error has been known for weeks.", "E2"),
    ("Traffic to payment-service is a quarter of the usual.", "E3"),
    ("payment-service gets hardly any requests.", "E3"),
    ("A crawler floods payment-service.", "E3"),
    ("Customers from Brazil flood payment-service.", "E3"),
    ("POST /checkout is as fast as ever.", "E4"),
    ("POST /checkout answers within 310 ms.", "E4"),
    ("POST /checkout of checkout-service got quicker.", "E4"),
    ("checkout-service holds back payment-service.", "E1 E4"),
    ("payment-service depends on the mood of checkout-service.", "E1 E4"),
    ("Two of four tasks of payment-service are down.", "E5"),
    ("payment-service has lost its tasks.", "E5"),
    ("payment-service runs on a single task.", "E5"),
    ("payment-service is completely unavailable.", "E5"),
    ("orders-db is overloaded.", "E1"),
    ("The database ran a long vacuum.", "E1"),
    ("Somebody lowered the size of the pool.", "E1"),
    ("A leak of connections in the new release is to blame.", "E1 E2"),
    ("payment-service의 커넥션에는 아직 여유가 있다.", "E1"),
    ("payment-service의 오류는 잦아들었다.", "E2"),
    ("payment-service로 들어오는 요청이 뜸하다.", "E3"),
    ("결제 서비스의 태스크 두 개가 죽었다.", "E5"),
    ("POST /checkout의 응답은 여전히 빠르다.", "E4"),
    ("checkout-service가 payment-service를 붙잡고 있다.", "E1 E4"),
    ("누군가 커넥션 풀 크기를 줄였다.", "E1"),
)
"""Of ``incidents.pool_exhaustion``; each is false there, or nothing there tells of it."""
