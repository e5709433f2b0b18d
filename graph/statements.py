"""Holds one sentence against the evidence it rests on, and says exactly what does not hold. Pure.

A claim rests on the findings that it cites; prose on those it cites in passing, or else on all of the evidence. What
cannot be checked does not hold.
"""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from graph import hops
from graph.memory import is_memory, of_now, sentences_of
from graph.moments import moments, without_moments
from graph.quantities import Quantity, differences, ends, factors, leftovers, quantities, steps, supported, versions
from graph.sentences import (
    SUBJECTS,
    Direction,
    Told,
    blamed,
    blames,
    causes,
    cited_ids,
    clauses,
    denies_something,
    extent,
    folded,
    in_order,
    is_open,
    mentions,
    named,
    quotations,
    sentences,
    shows,
    strange_letters,
    tells_a_cause,
    told,
    topics,
    without_ids,
    without_quotations,
)
from graph.state import Claim, Evidence, Finding

ONLY_THEN = "tells only of an earlier incident, what happened then and not what happens now; cite what shows it now"
_ONLY_A_RUNBOOK = "cites only a runbook, which tells what may happen and not what did"
_ELSEWHEN = "…"  # in the place of an earlier incident's name
_NAME = re.compile(r"(?=.*[A-Za-z]).{5,}")  # shorter, or a bare number, it could stand in any sentence by chance
_FOLDS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_RATIOS = {
    **{f"{word}fold": float(number) for number, word in enumerate(_FOLDS, start=2)},
    "hundredfold": 100.0,
    "doubled": 2.0,
    "tripled": 3.0,
    "quadrupled": 4.0,
    "quintupled": 5.0,
    "sextupled": 6.0,
    "order of magnitude": 10.0,
    "halved": 0.5,
}
_RATIO = re.compile(
    rf"\b({'|'.join(word.replace('fold', '[ -]?fold') for word in _RATIOS)})\b", re.IGNORECASE | re.ASCII
)
_NEARLY = 0.15  # «doubled» may stand for a ratio this share away
_WORDS_OF_A_NUMBER = 3  # «155 errors a minute»; what has more words is a sentence, and stands verbatim or not at all
_CALM = 0.05  # a value this share from its baseline is still as usual
_ADDRESS = re.compile(r"\b(?:\w+://|javascript:|www\.)[^\s)>\]]+", re.IGNORECASE)
_FOR_LONG = re.compile(
    r"\bfor (?:many |several )?(?:minutes|hours|days|weeks|months|years|ages|long)\b|며칠|몇 (?:분|시간|주|달)|오래전",
    re.IGNORECASE | re.ASCII,
)
_SHORTAGE = "a shortage"
_RESOURCES = frozenset({"CPU", "memory", "connections", "disks"})  # what may run short
_NEARLY_ALL = 70.0  # percent in use, from which on something may be called saturated
_USED = re.compile(
    r"active|pending|waiting|used|usage|util|backlog|depth|queue|visible|threads|connections", re.IGNORECASE
)
_IN_WORDS = ("change", "knowledge")  # what somebody wrote
_MEASURED = ("metric", "log", "trace", "status")
_SHORT = 4  # letters: a signal with so few may be a word like any other
_PLACEHOLDER = re.compile(r"\[[a-z-]+:[0-9a-f]{8}\]")  # what graph/masking.py leaves of a secret
_MASKED = r"\S.{0,160}?"
_ADMITS = {
    "ratio": re.compile(
        r"%|percent|ratio|util|usage|share|cpu|rate\b|saturat|availab|success", re.IGNORECASE | re.ASCII
    ),
    "time": re.compile(
        r"\d\s?m?s\b|second|latenc|duration|time|p\d\d\b|\bage\b|lag|pause|wait|delay", re.IGNORECASE | re.ASCII
    ),
    "bytes": re.compile(r"memory|bytes|heap|disk|size|rss|storage|volume", re.IGNORECASE | re.ASCII),
}
_IDENTIFIER = re.compile(r"(?<![A-Za-z0-9_./-])([A-Za-z][A-Za-z0-9]*(?:[-_.][A-Za-z0-9]+)+)(?![A-Za-z0-9-])")
_CAMEL = re.compile(r"(?<![A-Za-z0-9_.-])([A-Z]?[a-z]+[A-Z][A-Za-z0-9]*)(?![A-Za-z0-9-])")
_PRODUCT = re.compile(
    r"\b(redis|valkey|memcached|postgres(?:ql)?|mysql|mariadb|aurora|oracle"
    r"|mongo(?:db)?|cassandra|dynamo(?:db)?|kafka"
    r"|rabbitmq|activemq|kinesis|elasticsearch|opensearch|nginx|envoy|istio|haproxy|kubernetes|stripe|paypal|twilio"
    r"|cloudflare|akamai|fastly|okta|auth0|openai|anthropic|bedrock|azure"
    r"|snowflake|salesforce|github|consul|vault)\b",
    re.IGNORECASE | re.ASCII,
)
_AFFIXES = frozenset(
    re.findall(
        r"\w+",
        "a all anti auto back bi client co cold cross de down double end error first full half hard"
        " high hot in inter just"
        " kernel large last long low mid min max multi near new no non off on"
        " one open out over per post pre quasi re read"
        " real round self semi server short side single slow small so sub super"
        " third time two three four five six seven"
        " eight nine ten twenty thirty top triple un under up user well wide"
        " worst write year zero and based bound by case"
        " caused day down driven due ended fold free grade hand hour hours in"
        " induced level like limited line made minute"
        " minutes ms month off old only on out over party percent point prone"
        " rate related running s scale second seconds"
        " sec side specific term the through time times to up way week wide wise x",
    )
)
_KINDS_OF_COMPONENT = (
    "service|svc|api|db|database|cache|gateway|worker|queue|proxy|server|backend|frontend|provider|cluster|broker"
)
_INTRODUCED = re.compile(
    r"(?<![A-Za-z0-9_-])([A-Za-z][A-Za-z0-9]+)\s(?:service|database|cluster|broker|provider|db)(?![A-Za-z0-9_-])|"
    r"(?<![A-Za-z0-9_-])([A-Za-z][A-Za-z0-9-]+)\s?(?:서비스|데이터베이스|큐|캐시|서버|클러스터)",
)
_ADJECTIVES = re.compile(
    r"^(?:the|a|an|this|that|its|their|each|every|any|some|no|one|other|another"
    r"|same|whole|single|new|old|web|app|rest|http"
    r"|grpc|sql|main|slow|upstream|downstream|third|front|back|shared|primary"
    r"|replica|read|write|message|internal|of|to"
    r"|from|by|for|with|in|on|and|or|is|as|at|calling|failing|waiting"
    r"|depending|remaining|serving|responding|affecting"
    r"|called|per|via|which|when|between|both|all|only|first|second|dns|job"
    r"|event|task|request|work|data|cloud|external"
    r"|managed|remote|local|suspected|alerted|affected|downstream|key|load|cache|database|api|ecs|aws|client)$"
    r"|(?:ed|ful|ent|ant|able|al|ous|ive|ly)$",
    re.IGNORECASE | re.ASCII,
)
_TECHNOLOGIES = frozenset(
    (
        "ec2",
        "s3",
        "k8s",
        "ipv4",
        "ipv6",
        "http2",
        "http/1.1",
        "http/2",
        "oauth2",
        "utf8",
        "utf-8",
        "sha256",
        "x509",
        "2xx",
    )
)
_GENERIC_NAMES = frozenset(
    ("service", "database", "cache", "queue", "gateway", "frontend", "backend", "worker", "server", "proxy", "client")
)
_PERCENTILE = re.compile(r"p?(?P<digits>\d{2})(?:th)?")
_SPREADS = re.compile(r"\b(?:spread\w*|propagat\w+|cascad\w+)\b|전파|확산|번[지졌]", re.IGNORECASE | re.ASCII)
_WORDS = {"up": ("a rise", "rose"), "down": ("a fall", "fell")}


@dataclass(frozen=True)
class Ground:
    """The findings that a sentence rests on. ``claims``: the author chose them, and must have chosen well."""

    cited: tuple[Finding, ...]
    evidence: Evidence
    components: frozenset[str]
    claims: bool

    @cached_property
    def source(self) -> str:
        """All texts of the findings, for comparison."""
        figures = () if self.claims else tuple(f"{f.name} {f.window}" for f in self.evidence.impact)
        return folded("\n".join((*texts(self.cited), *figures)))

    @cached_property
    def signals(self) -> re.Pattern[str]:
        """What the findings call their signals, the longest first."""
        long = {f.signal for f in self.cited if len(f.signal) > _SHORT}
        either = "|".join(re.escape(signal) for signal in sorted(long, key=len, reverse=True))
        return re.compile(either or r"(?!)", re.IGNORECASE)


def claim_complaint(claim: Claim, evidence: Evidence, components: Collection[str]) -> str:
    """Why the claim does not hold; empty if it does."""
    if not claim.evidence:
        return "cites no evidence"
    missing = [eid for eid in (*claim.evidence, *cited_ids(claim.text)) if evidence.finding(eid) is None]
    if missing:
        return f"cites {listed(missing)}, which the evidence does not contain"
    cited = tuple(finding for eid in claim.evidence if (finding := evidence.finding(eid)))
    said, now = _of_now(claim.text, cited, evidence)
    ground = Ground(now, of_now(evidence), frozenset(components), claims=True)
    only = _only_knowledge(cited) or (ONLY_THEN if claim.text and not said else "")
    wrong = only or _quote_complaint(claim.quote, ground)
    if wrong or _is_own(said, now):
        return wrong
    return _complaint(said, ground) or ("" if claim.quote.strip() else _anchor_complaint(said, ground))


def prose_complaint(
    sentence: str, evidence: Evidence, components: Collection[str], about: str = "", *, explains: bool = False
) -> str:
    """Why the sentence does not hold; empty if it does. ``about`` is the component that it speaks of unnamed.

    A sentence that names a component must say something of it that is checked, unless its author only ``explains``.
    """
    ids = cited_ids(sentence)
    missing = [eid for eid in ids if evidence.finding(eid) is None]
    if missing:
        return f"cites {listed(missing)}, which the evidence does not contain"
    cited = tuple(f for f in evidence.findings if not ids or f.id in ids)
    if ids and (only := _only_knowledge(cited)):
        return only
    own, now = _of_now(sentence, cited, evidence)
    if _is_own(own, now) or _bare(own) in _told_by_ranking(evidence):
        return ""
    text = f"{about}: {own}" if about else own
    ground = Ground(now, of_now(evidence), frozenset(components), claims=False)
    must = not explains and named(own, ground.components)
    return _complaint(text, ground) or (_anchor_complaint(text, ground) if must else "")


def is_remembered(sentence: str, evidence: Evidence) -> bool:
    """Whether it is what ``graph/memory.py`` tells of an earlier incident, and nothing else."""
    return _bare(sentence) in {_bare(text) for text in sentences_of(evidence)}


def _only_knowledge(cited: Sequence[Finding]) -> str:
    """Why findings that were written and not measured now bear nothing alone; empty if others are with them."""
    if not all(finding.kind == "knowledge" for finding in cited):
        return ""
    return ONLY_THEN if any(map(is_memory, cited)) else _ONLY_A_RUNBOOK


def _of_now(text: str, cited: Sequence[Finding], evidence: Evidence) -> tuple[str, tuple[Finding, ...]]:
    """The text without what it tells of earlier incidents as such, and the cited findings that bear the rest.

    Left out is what memory says word for word, and in a sentence that names one of them its name, its date, and what it
    quotes of it right behind the name. All else is held against what was measured now. A sentence that tells of a cause
    may quote nothing so: it would be the cause of then.
    """
    memory, now = [f for f in cited if is_memory(f)], tuple(f for f in cited if not is_memory(f))
    if not memory:
        return text, now
    parts = [part for part in sentences(text) if not is_remembered(part, evidence)]
    for finding in memory:
        parts = [_without_mention(part, finding) for part in parts]
    return " ".join(parts), now


def _without_mention(sentence: str, finding: Finding) -> str:
    name = re.compile(rf"(?<![\w-]){re.escape(finding.signal)}(?![\w-])", re.ASCII)
    if not (_NAME.fullmatch(finding.signal) and name.search(sentence)):
        return sentence
    then = folded("\n".join(texts([finding])))
    day = re.compile(rf"(?<![\d-]){finding.at:%Y-%m-%d}(?![\d-])")
    if not (blames(sentence) or tells_a_cause(sentence)):
        behind = re.compile(rf"{name.pattern}(?: of {day.pattern})?[\s(]*\Z", re.ASCII)
        sentence = without_quotations(
            sentence, lambda before, quoted: behind.search(before) is not None and folded(quoted) in then
        )
    return day.sub(_ELSEWHEN, name.sub(_ELSEWHEN, sentence))


def texts(findings: Iterable[Finding]) -> list[str]:
    """What the findings say in words."""
    return [text for f in findings for text in (f.component, f.signal, f.summary, f.excerpt, f.instance) if text]


def listed(names: Iterable[str]) -> str:
    """Each once, with commas."""
    return ", ".join(dict.fromkeys(names))


def _complaint(text: str, ground: Ground) -> str:
    """The first of all checks that fails."""
    own = without_ids(text)
    return next((complaint for check in _CHECKS if (complaint := check(own, ground))), "")


def _is_own(text: str, cited: Iterable[Finding]) -> bool:
    """Is the text nothing but the evidence's own sentences?"""
    own = {_bare(part) for f in cited for part in (f.summary, *sentences(f.summary))}
    return _bare(text) in own or all(_bare(sentence) in own for sentence in sentences(text))


def _told_by_ranking(evidence: Evidence) -> set[str]:
    """The sentences that ranking itself wrote, of scores and of what it makes of them."""
    told_by = [evidence.assessment.why] if evidence.assessment else []
    return {_bare(part) for text in (*told_by, *(s.why for s in evidence.suspects)) for part in sentences(text)}


def _bare(text: str) -> str:
    return folded(without_ids(text)).strip(" .")


# --- letters and quotations -------------------------------------------------------------------------------


def _letters_complaint(text: str, ground: Ground) -> str:
    strange = strange_letters(text, ground.source)
    return f"says {listed(strange)} in letters that cannot be checked" if strange else ""


def _addresses_complaint(text: str, ground: Ground) -> str:
    """A page that nobody in the evidence knows could carry data away when somebody looks at the report."""
    strange = [found for found in _ADDRESS.findall(text) if folded(found) not in ground.source]
    return f"links to {listed(strange)}, which the cited evidence does not contain" if strange else ""


def _quotations_complaint(text: str, ground: Ground) -> str:
    names = {name.casefold() for name in ground.components}
    wrong = [
        f"«{quoted}»"
        for quoted in quotations(text)
        if folded(quoted) not in names and not _occurs(quoted, ground) and not _is_number_of(quoted, ground)
    ]
    if is_open(text):
        return "has a quotation that does not end"
    return f"quotes {listed(wrong)}, which the cited evidence does not contain" if wrong else ""


def _quote_complaint(quote: str, ground: Ground) -> str:
    if not quote.strip(" .…\"'«»“”") or _occurs(quote, ground) or _is_number_of(quote, ground):
        return ""
    return f"quotes «{quote}», which the cited evidence does not contain"


def _occurs(quote: str, ground: Ground) -> bool:
    """Verbatim in one of the texts, but for case, spaces, a cut end, and what was masked."""
    wanted = folded(quote).strip(" \"'").removesuffix("...").removeprefix("...").strip()
    parts = [re.escape(part) for part in _PLACEHOLDER.split(wanted)]
    masks = [f"(?:{re.escape(mask)}|{_MASKED})" for mask in _PLACEHOLDER.findall(wanted)]
    pattern = "".join(part + mask for part, mask in zip(parts, [*masks, ""], strict=True))
    if not "".join(parts).strip():
        return False
    whole = re.compile(rf"(?<![a-z0-9])(?<!\d[.,:-])(?:{pattern})(?![a-z0-9])(?![.,:-]\d)")
    return any(whole.search(folded(text)) for text in (*texts(ground.cited), *_onsets(ground.cited)))


def _onsets(findings: Iterable[Finding]) -> list[str]:
    return [f"{finding.at:%Y-%m-%d %H:%M:%S}" for finding in findings]


def _is_number_of(quote: str, ground: Ground) -> bool:
    """A number or a time, with nothing beside it that the findings do not say."""
    if not (quantities(quote) or moments(quote)) or leftovers(quote) or re.search(r"\s/|^/", quote):
        return False
    cited = [f for f in ground.cited if not _numbers_complaint(quote, [f], ground)]
    words = [
        word
        for word in re.findall(r"[^\W\d_]{3,}", folded(quote))
        if not any(quantity.dimension for quantity in quantities(f"1 {word}"))
    ]
    whole = (folded("\n".join(texts([finding]))) for finding in cited)
    return len(words) <= _WORDS_OF_A_NUMBER and any(all(word in said for word in words) for said in whole)


# --- numbers ----------------------------------------------------------------------------------------------


def _all_numbers_complaint(text: str, ground: Ground) -> str:
    """First against all that is cited, then clause by clause against what each is about."""
    wrong = _numbers_complaint(text, ground.cited, ground) or _leftovers_complaint(text, ground)
    if wrong:
        return wrong
    long = [found for found in _FOR_LONG.findall(text) if folded(found) not in ground.source]
    if long:
        return f"says {listed(long)}, which the cited evidence does not contain"
    for sentence in sentences(text):
        if not _is_own(sentence, ground.cited):
            wrong = next((c for clause in clauses(sentence) if (c := _clause_numbers_complaint(clause, ground))), "")
            if wrong:
                return wrong
    return ""


def _clause_numbers_complaint(clause: str, ground: Ground) -> str:
    if not (quantities(clause) or moments(clause)):
        return ""
    about = [name for _, _, name in named(_without_signals(clause, ground), ground.components)]
    relevant = _about(clause, ground)
    if about and not relevant:
        return f"gives numbers of {listed(about)}, which the cited evidence is not about"
    timed = _of_subjects(clause, ground) or _of_names(clause, ground)
    late = [str(m) for m in moments(clause) if not m.among([f.at for f in timed], "\n".join(texts(timed)))]
    if late:
        return f"says {listed(late)}, which the evidence on that does not contain"
    wrong = _numbers_complaint(without_moments(clause), relevant, ground)
    return wrong.replace("the cited evidence", "the evidence on that") if wrong else ""


def _numbers_complaint(text: str, findings: Sequence[Finding], ground: Ground) -> str:
    """What of the numbers, times and versions in the text the findings do not contain."""
    source = "\n".join(texts(findings))
    wrong = [v for v in versions(text) if not _has_version(v, source)]
    wrong += [str(m) for m in moments(text) if not m.among([f.at for f in findings], source)]
    claimed = quantities(text)
    known = [*_stated(findings, ground), *_derived(findings, ground)] if claimed else []
    wrong += [str(q) for q in claimed if not supported(q, known)]
    return f"says {listed(wrong)}, which the cited evidence does not contain" if wrong else ""


def _has_version(version: str, source: str) -> bool:
    pattern = rf"(?<![A-Za-z0-9.])v?{re.escape(version.removeprefix('v'))}(?![A-Za-z0-9]|[.-][A-Za-z0-9])"
    return re.search(pattern, source) is not None


def _leftovers_complaint(text: str, ground: Ground) -> str:
    """Digits in names that nobody knows, or in what is no readable number."""
    names = {name.casefold() for name in ground.components}
    known = names | _TECHNOLOGIES
    wrong = [
        token
        for token in leftovers(text)
        if (plain := token.casefold()) not in known
        and not _has_token(plain, ground.source)
        and not any(plain in name for name in names)
    ]
    return f"says {listed(wrong)}, which the cited evidence does not contain" if wrong else ""


def _has_token(found: str, source: str) -> bool:
    """As it is there, or «95th» for p95 and the other way round, or 5xx for any such status."""
    ordinal = _PERCENTILE.fullmatch(found)
    if ordinal and any(form.format(ordinal.group("digits")) in source for form in ("p{}", "{}th")):
        return True
    if found == "5xx":
        return re.search(r"5xx|\b5\d\d\b", source) is not None
    return re.search(rf"(?<![a-z0-9]){re.escape(found)}(?![a-z0-9])", source) is not None


def _words_complaint(text: str, ground: Ground) -> str:
    """A count or a share that only a log line, a change or a document gives: it may be quoted, and not stated."""
    own = without_quotations(text)
    if _is_own(text, ground.cited):
        return ""
    measured = [f.model_copy(update={"excerpt": "", "signal": ""}) if f.kind == "log" else f for f in ground.cited]
    known = [f for f in measured if f.kind not in _IN_WORDS]
    stated = [*_stated(known, ground), *_derived(ground.cited, ground)]
    wrong = [
        str(q)
        for clause in clauses(own)
        for q in quantities(without_moments(clause))
        if q.dimension != "time" and not q.text.isdecimal() and not supported(q, stated)
    ]
    return f"states {listed(wrong)}, which is only said in a text and was not measured" if wrong else ""


def _stated(findings: Sequence[Finding], ground: Ground) -> list[Quantity]:
    """Every number that the findings state, in fields or in text."""
    stated: list[Quantity] = []
    for finding in findings:
        said = " ".join(texts([finding]))
        admits = frozenset(d for d, words in _ADMITS.items() if not finding.unit and words.search(said))
        values = [v for v in (finding.observed, finding.baseline) if v is not None]
        stated += [Quantity.of(value, finding.unit, admits) for value in values]
        for text in texts([finding]):
            stated += [_admitting(quantity, admits) for quantity in quantities(text)]
    ids = {finding.id for finding in findings}
    free = not ground.claims and len(findings) == len(ground.cited)  # prose on no finding in particular
    figures = [f for f in ground.evidence.impact if free or ids.intersection(f.evidence)]
    named_so = (quantity for f in figures for quantity in quantities(f"{f.name} {f.window}"))
    return [*stated, *named_so, *(Quantity.of(f.value, f.unit) for f in figures)]


def _admitting(quantity: Quantity, admits: frozenset[str]) -> Quantity:
    if quantity.dimension or quantity.per:
        return quantity
    return Quantity(quantity.value, scale=quantity.scale, decimals=quantity.decimals, admits=admits)


def _derived(findings: Sequence[Finding], ground: Ground) -> list[Quantity]:
    """What follows from the numbers: how many times, by how much, how long after."""
    derived = []
    for finding in findings:
        if finding.observed is None or finding.baseline is None:
            continue
        change = finding.observed - finding.baseline
        derived.append(Quantity.of(change, finding.unit))
        if finding.baseline:
            derived.append(Quantity.of(finding.observed / finding.baseline, "times"))
            derived.append(Quantity.of(change / finding.baseline, "ratio"))
        if finding.observed:
            derived.append(Quantity.of(finding.baseline / finding.observed, "times"))
    timed = ground.cited if ground.claims else findings
    apart = {abs((a.at - b.at).total_seconds()) for a in timed for b in timed}
    return derived + [Quantity.of(seconds, "s") for seconds in sorted(apart - {0.0})]


# --- names ------------------------------------------------------------------------------------------------


def _names_complaint(text: str, ground: Ground) -> str:
    """A word that looks like a name, but is neither known nor taken from the cited evidence."""
    own = without_quotations(text)
    known = {name.casefold() for name in ground.components}
    strangers = [
        name
        for name in [
            *_identifiers(own, ground),
            *_CAMEL.findall(own),
            *_PRODUCT.findall(own),
            *_introduced(own, ground),
        ]
        if name.casefold() not in known and name.casefold() not in ground.source
        if not any(
            mentions(component, name) or name.casefold() in component.casefold() for component in ground.components
        )
    ]
    return f"names {listed(strangers)}, which is not a known component" if strangers else ""


def _identifiers(text: str, ground: Ground) -> list[str]:
    return [name for name in _IDENTIFIER.findall(text) if not _is_compound(name, ground.source)]


def _is_compound(name: str, source: str) -> bool:
    """An English word with a hyphen, such as «read-only» or one made of words of the evidence; «e.g.» and the like."""
    parts = re.split(r"[-_.]", name.lower())
    if "-" not in name or "_" in name:
        return all(len(part) == 1 for part in parts)
    if re.fullmatch(_KINDS_OF_COMPONENT, parts[-1]):
        return False
    inflected = parts[-1].endswith(("ing", "ed", "ly"))  # «long-running»; a name may begin so: «billing-core»
    spaced = re.escape(" ".join(parts)).replace(r"\ ", "[ -]")
    return inflected or any(part in _AFFIXES for part in parts) or re.search(rf"\b{spaced}", source) is not None


def _introduced(text: str, ground: Ground) -> list[str]:
    """«the ledger service»: a name by what stands behind it."""
    found = (first or second for first, second in _INTRODUCED.findall(text))
    return [word for word in found if not _ADJECTIVES.search(word)]


def _attribution_complaint(text: str, ground: Ground) -> str:
    """A known component that none of the cited evidence is about, directly or one hop away."""
    if not ground.claims:
        return ""
    own = {finding.component for finding in ground.cited}
    near = {end for h in hops.ranked(ground.evidence) if own & {h.cause, h.effect} for end in (h.cause, h.effect)}
    told_of = {name for _, _, name in named("\n".join(texts(ground.cited)), ground.components)}
    about = {name for _, _, name in named(text, [n for n in ground.components if n.casefold() not in _GENERIC_NAMES])}
    astray = sorted(name for name in about if name not in own | near | told_of)
    return f"names {listed(astray)}, which the cited evidence is not about" if astray else ""


def _signals_in(clause: str, findings: Iterable[Finding]) -> list[Finding]:
    """The findings whose signal the clause has verbatim; of «POST /pay» and «POST /pay → bank» the longer one."""
    whole = folded(clause)
    found = [f for f in findings if len(f.signal) > _SHORT and folded(f.signal) in whole]
    return [f for f in found if not any(f.signal != g.signal and f.signal in g.signal for g in found)]


def _owners_complaint(text: str, ground: Ground) -> str:
    """A signal of one component that is said to be of another one."""
    for clause in clauses(text):
        names = {name for _, _, name in named(_without_signals(clause, ground), ground.components)}
        measured = _signals_in(clause, ground.evidence.findings)
        own = [f for f in measured if f.component in names or any(mentions(f.summary, name) for name in names)]
        if names and measured and not own:
            return f"speaks of {measured[0].signal} of {listed(sorted(names))}, which the evidence does not show"
    return ""


def _anchor_complaint(text: str, ground: Ground) -> str:
    """Nothing in the text can be held against the evidence at all; that it has words of it is not enough."""
    own = without_ids(text)
    if any(_is_own(sentence, ground.cited) or _is_anchored(sentence, ground) for sentence in sentences(own)):
        return ""
    return "says nothing that can be checked against what it cites"


def _is_anchored(sentence: str, ground: Ground) -> bool:
    """Whether the sentence has a number, a time, a quotation, a change, an event or a cause; these were checked."""
    own = _without_names(_without_signals(sentence, ground), ground)
    quoted = [q for q in quotations(own) if q.strip("… ")]
    if quoted or quantities(own) or moments(own) or versions(own):
        return True
    if (extent(own) and _shares(sentence, ground)) or all(_began(part, ground) for part in in_order(sentence) or ("",)):
        return True
    spoken = topics(own)
    if spoken.denied or any(SUBJECTS[subject].happens for subject in spoken.said):
        return True
    moves = [told(clause) for clause in clauses(own)]
    if any(move.moves or move.denies or move.calm for move in moves) or _RATIO.search(own):
        return True
    accused = bool(blamed(sentence, ground.components)) or (blames(sentence) and _ELSEWHEN not in sentence)
    return accused or bool(causes(sentence, ground.components))


# --- subjects ---------------------------------------------------------------------------------------------


def _subjects_complaint(text: str, ground: Ground) -> str:
    """What the text speaks of, or denies, where the cited findings show nothing of it, or the opposite."""
    spoken = topics(_without_names(text, ground))
    for subject in sorted((spoken.said | spoken.denied) - _assessed(ground)):
        showing = [f for f in _of_whom(text, subject, ground) if shows(_shown(f), subject) or _is_short(f, subject)]
        if subject == _SHORTAGE and subject in spoken.said and not _shows_all(showing, spoken.said & _RESOURCES):
            return f"speaks of {subject}, which the cited evidence does not show"
        if subject == "a recovery" and subject in spoken.said and not _has_recovered(showing, ground.evidence):
            return f"speaks of {subject}, which nothing that was measured shows"  # that a log says so is no proof
        free = subject in spoken.denied and not ground.claims  # nothing is known of it: neither for nor against
        if not showing and not free and (SUBJECTS[subject].happens or not shows(ground.source, subject)):
            return f"speaks of {subject}, which the cited evidence does not show"
        about = _narrowed(text, showing, ground)
        if subject in spoken.denied and any(_affirms(finding, subject) for finding in about):
            return f"denies {subject}, but the cited evidence shows it"
        if subject in spoken.denied and ground.claims and not about:
            return f"denies {subject} of what the cited evidence is not about"
        happened = subject not in spoken.denied and SUBJECTS[subject].happens
        if happened and showing and not any(_affirms(finding, subject) for finding in showing):
            return f"speaks of {subject}, but the cited evidence shows none"
    return ""


def _of_whom(text: str, subject: str, ground: Ground) -> list[Finding]:
    """An event must be shown of a component that the text names, if it names any."""
    names = {name for _, _, name in named(_without_signals(text, ground), ground.components)}
    if not names or not SUBJECTS[subject].happens:
        return list(ground.cited)
    return [f for f in ground.cited if f.component in names or any(mentions(f.summary, name) for name in names)]


def _is_short(finding: Finding, subject: str) -> bool:
    """Whether a measurement shows that something ran short: nearly all is used, or more and more wait for it."""
    if subject != _SHORTAGE or finding.observed is None or finding.kind not in _MEASURED:
        return False
    rose = finding.baseline is not None and finding.observed > finding.baseline
    return (finding.unit == "%" and finding.observed >= _NEARLY_ALL) or (
        rose and _USED.search(finding.signal) is not None
    )


def _shows_all(findings: Sequence[Finding], subjects: Collection[str]) -> bool:
    return all(any(shows(_shown(f), subject) for f in findings) for subject in subjects)


def _assessed(ground: Ground) -> frozenset[str]:
    """What ranking itself found of the incident as a whole; prose may say so."""
    assessment = ground.evidence.assessment
    recovered = assessment is not None and assessment.state == "recovered" and not ground.claims
    return frozenset({"a recovery"} if recovered else ())


def _has_recovered(findings: Iterable[Finding], evidence: Evidence) -> bool:
    assessed = evidence.assessment is not None and evidence.assessment.state == "recovered"
    return assessed or any(finding.kind in {"metric", "status", "trace"} for finding in findings)


def _shown(finding: Finding) -> str:
    metric = f"{finding.ref.metric} {finding.ref.measures}" if finding.ref else ""
    return " ".join([*texts([finding]), finding.unit, metric])


def _affirms(finding: Finding, subject: str) -> bool:
    """Does the finding show that it happened, and not that it did not?"""
    if finding.asked and not finding.effect and not finding.observed:
        return False
    return finding.observed != 0 and subject not in topics(finding.summary).denied


def _narrowed(text: str, findings: Sequence[Finding], ground: Ground) -> Sequence[Finding]:
    names = {name for _, _, name in named(text, ground.components)}
    return [f for f in findings if not names or f.component in names]


def _without_names(text: str, ground: Ground) -> str:
    """The text without components' names: «payment-cache» speaks of no cache."""
    for start, end, _ in reversed(named(text, ground.components)):
        text = f"{text[:start]}…{text[end:]}"
    return text


# --- changes ----------------------------------------------------------------------------------------------


def _changes_complaint(text: str, ground: Ground) -> str:
    """What the text says of changes, where the cited findings changed otherwise."""
    for sentence in sentences(text):
        if _is_own(sentence, ground.cited):
            continue
        relevant = _about(sentence, ground) or list(ground.cited)
        complaint = (
            next((c for clause in clauses(sentence) if (c := _clause_complaint(clause, ground))), "")
            or _order_complaint(sentence, relevant)
            or next((c for clause in clauses(sentence) if (c := _roles_complaint(clause, _about(clause, ground)))), "")
            or _ratio_complaint(sentence, relevant)
        )
        if complaint:
            return complaint
    return ""


def _clause_complaint(clause: str, ground: Ground) -> str:
    spoken = told(_without_names(_without_signals(clause, ground), ground))
    if not (spoken.moves or spoken.denies or spoken.calm):
        return ""
    names = [name for _, _, name in named(clause, ground.components)]
    relevant = _about(clause, ground)
    if names and not relevant and not ground.claims:
        return ""  # nothing is known of it: neither for nor against
    if spoken.calm and _is_quiet(ground) and not _signals_in(clause, relevant):
        return ""
    return (
        _moves_complaint(spoken, relevant)
        or _denial_complaint(spoken, relevant, claims=ground.claims)
        or _calm_complaint(spoken, relevant, claims=ground.claims)
    )


def _is_quiet(ground: Ground) -> bool:
    """Whether ranking found nothing wrong, or nothing any more; prose may say so."""
    assessment = ground.evidence.assessment
    return assessment is not None and assessment.state in {"no_incident", "recovered"} and not ground.claims


def _moves_complaint(spoken: Told, relevant: Sequence[Finding]) -> str:
    changes = _changes(relevant)
    unmeasured = (f for f in relevant if f.observed is None or f.baseline is None)
    said = {m for f in unmeasured for c in clauses(f"{f.signal}. {f.summary}") for m in _moves_of(c, f)}
    for move in sorted(spoken.moves):
        name, _ = _WORDS[move]
        if move in said or any(_is_move(change, move) for change in changes):
            continue
        opposite = _WORDS["down" if move == "up" else "up"][1]
        return f"speaks of {name}, but what it cites {opposite if changes else 'does not show one'}"
    return ""


def _moves_of(clause: str, finding: Finding) -> frozenset[Direction]:
    return told(clause.replace(finding.component, "…")).moves


def _denial_complaint(spoken: Told, relevant: Sequence[Finding], *, claims: bool) -> str:
    """A claim may deny what one of several findings shows; prose, which cites none, may not."""
    changes = _changes(relevant)
    for move in sorted(spoken.denies):
        name, verb = _WORDS[move]
        steady = any(f.observed is not None and f.observed == f.baseline for f in relevant)
        moved = [_is_move(change, move) for change in changes]
        if changes and (all(moved) and not steady if claims else any(moved)):
            return f"denies {name}, but what it cites {verb}"
        if not changes and not steady and not any(denies_something(f.summary) for f in relevant):
            return f"denies {name}, which what it cites does not show"
    return ""


def _calm_complaint(spoken: Told, relevant: Sequence[Finding], *, claims: bool) -> str:
    """A claim may pick the one finding that is as usual; prose, which picks none, speaks of them all."""
    unusual = [_is_unusual(finding) for finding in relevant if claims or finding.kind in _MEASURED]
    if spoken.calm and (all(unusual) if claims else any(unusual)):
        return "says that all was as usual, but what it cites departs from normal"
    return ""


def _is_unusual(finding: Finding) -> bool:
    if not hops.deviates(finding):
        return finding.kind in {"change", "topology", "knowledge"}  # says nothing of what is usual
    if finding.observed is None or finding.baseline is None:
        return not denies_something(finding.summary)
    return abs(finding.observed - finding.baseline) > _CALM * abs(finding.baseline)


def _changes(findings: Iterable[Finding]) -> list[float]:
    """By how much each went up or down; those that did neither are left out."""
    return [
        change
        for f in findings
        if f.observed is not None and f.baseline is not None and (change := f.observed - f.baseline)
    ]


def _is_move(change: float, move: Direction) -> bool:
    return (change > 0) == (move == "up")


def _about(clause: str, ground: Ground) -> list[Finding]:
    """The cited findings that the clause is about: of the components it names, then of the subjects or words it has."""
    of_names, of_subjects = _of_names(clause, ground), _of_subjects(clause, ground)
    verbatim = _signals_in(clause, of_names)
    if verbatim:
        names = {name for _, _, name in named(_without_signals(clause, ground), ground.components)}
        return [f for f in verbatim if f.component in names] or verbatim
    words = _long_words(_without_names(clause, ground))
    by_signal = [f for f in of_names if words & _long_words(f.signal)]
    return [f for f in of_names if f in by_signal or f in of_subjects] or of_names


def _of_subjects(clause: str, ground: Ground) -> list[Finding]:
    spoken = topics(_without_names(clause, ground))
    subjects = spoken.said | spoken.denied
    return [f for f in _of_names(clause, ground) if any(shows(_shown(f), subject) for subject in subjects)]


def _of_names(clause: str, ground: Ground) -> list[Finding]:
    names = {name for _, _, name in named(_without_signals(clause, ground), ground.components)}
    return [
        f
        for f in ground.cited
        if not names or f.component in names or any(mentions(" ".join(texts([f])), n) for n in names)
    ]


def _without_signals(clause: str, ground: Ground) -> str:
    """The clause without what it calls a signal: «POST /checkout» is the name of no component."""
    return ground.signals.sub("…", clause)


def _long_words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]{4,}", text.lower()))


def _order_complaint(text: str, relevant: Sequence[Finding]) -> str:
    """The text goes from one number to another, where nothing cited does."""
    measured = _measured(relevant)
    known = [*measured, *_told_steps(relevant)]
    for before, after in steps(text):
        if not known or any(supported(before, [start]) and supported(after, [end]) for start, end in known):
            continue
        turned = supported(before, [end for _, end in measured]) and supported(after, [start for start, _ in measured])
        how = "the wrong way round" if turned else "which nothing cited does"
        return f"goes from {before} to {after}, {how}"
    return ""


def _roles_complaint(clause: str, relevant: Sequence[Finding]) -> str:
    """A number that something is said to have come to, or to have changed by, and that is another number of it."""
    pairs = [*_measured(relevant), *_told_steps(relevant)]
    now = [*(after for _, after in pairs), *(after for _, after in _ratios(pairs))]
    then = [*(before for before, _ in pairs), *_amounts(relevant)]
    for said in ends(clause):
        if supported(said, then) and not supported(said, now):
            return f"says {said} of what came to another number"
    for said in differences(clause):
        share = said.dimension == "ratio" and said.scale == 1.0  # «by half» of what it was
        amounts = [a for a in _amounts(relevant) if not share or a.scale == 1.0]
        if pairs and not supported(said, [*amounts, *(times for both in _ratios(pairs) for times in both)]):
            return f"says {said}, which is not by how much the cited evidence changed"
    return _times_complaint(clause, relevant, pairs)


def _times_complaint(clause: str, relevant: Sequence[Finding], pairs: Sequence[tuple[Quantity, Quantity]]) -> str:
    """«20 times» of what is measured is its ratio; a count of times is in the words of the evidence."""
    source = folded("\n".join(texts(relevant)))
    ratios = [ratio for both in (*_ratios(pairs), *pairs) for ratio in both if ratio.dimension == "times"]
    wrong = [
        str(said)
        for said in quantities(clause)
        if said.dimension == "times" and folded(said.text) not in source and not supported(said, ratios)
    ]
    wrong += [f"a factor of {said}" for said in factors(clause) if not supported(said, ratios)]
    return f"says {listed(wrong)}, which is not how the cited evidence changed" if pairs and wrong else ""


def _ratios(pairs: Iterable[tuple[Quantity, Quantity]]) -> list[tuple[Quantity, Quantity]]:
    """How many times each became, either way round."""
    values = [(before.value * before.scale, after.value * after.scale) for before, after in pairs]
    return [(Quantity.of(a / b, "times"), Quantity.of(b / a, "times")) for b, a in values if a and b]


def _amounts(findings: Iterable[Finding]) -> list[Quantity]:
    """By how much each changed, and by which share."""
    both = [(f, f.observed, f.baseline) for f in findings if f.observed is not None and f.baseline is not None]
    amounts = [Quantity.of(after - before, f.unit) for f, after, before in both]
    return [*amounts, *(Quantity.of((a - b) / b, "ratio") for _, a, b in both if b)]


def _ratio_complaint(text: str, relevant: Sequence[Finding]) -> str:
    """«Doubled», «tenfold» and the like, where nothing cited changed by as much."""
    pairs = [*_measured(relevant), *_told_steps(relevant)]
    ratios = [after.value * after.scale / (before.value * before.scale) for before, after in pairs if before.value]
    source = "\n".join(texts(relevant)).lower()
    wrong = [
        word
        for word in _RATIO.findall(text)
        if word.lower() not in source and not any(_amounts_to(ratio, word) for ratio in ratios)
    ]
    return f"says {listed(wrong)}, which is not how the cited evidence changed" if wrong else ""


def _amounts_to(ratio: float, word: str) -> bool:
    """Is the ratio what the word says? «-fold» is said of falls, too."""
    name = word.lower() if word.lower() in _RATIOS else re.sub(r"[ -]", "", word.lower())
    said = _RATIOS[name]
    shares = [ratio / said] + ([1 / (ratio * said)] if ratio and name.endswith("fold") else [])
    return any(abs(share - 1) <= _NEARLY for share in shares)


def _measured(findings: Iterable[Finding]) -> list[tuple[Quantity, Quantity]]:
    """Baseline and observed value of each finding that has both."""
    return [
        (Quantity.of(f.baseline, _unit(f)), Quantity.of(f.observed, _unit(f)))
        for f in findings
        if f.baseline is not None and f.observed is not None
    ]


def _unit(finding: Finding) -> str:
    """Of «× usual» the sign."""
    return finding.unit.partition(" ")[0]


def _told_steps(findings: Iterable[Finding]) -> list[tuple[Quantity, Quantity]]:
    """The steps from one number to another that the findings tell of in words."""
    return [step for text in texts(findings) for step in steps(text)]


# --- causes -----------------------------------------------------------------------------------------------


def _causes_complaint(text: str, ground: Ground) -> str:
    """A cause between components that no checked path joins, or a change that came after what it is said to cause."""
    for sentence in sentences(text):
        complaint = (
            _pairs_complaint(sentence, ground)
            or _blame_complaint(sentence, ground)
            or _late_change_complaint(sentence, ground)
        )
        if complaint:
            return complaint
    return ""


def _pairs_complaint(sentence: str, ground: Ground) -> str:
    pairs = causes(sentence, ground.components)
    if not pairs:
        return _spread_complaint(sentence, ground)
    for cause, effect in pairs:
        either = (effect, cause) in pairs  # the order cannot be told from the sentence
        if hops.joined(cause, effect, ground.evidence) or (either and hops.joined(effect, cause, ground.evidence)):
            continue
        why = hops.lacks(hops.checked(cause, effect, ground.evidence)) or "no path between them passes ranking's checks"
        return f"says that {cause} affected {effect}, but no causal path is shown: {why}"
    return ""


def _spread_complaint(sentence: str, ground: Ground) -> str:
    """The sentence tells of a spread between components, in an order that cannot be told."""
    names = {name for _, _, name in named(sentence, ground.components)}
    if len(names) < 2 or not _SPREADS.search(sentence):
        return ""
    joined = {end for hop in hops.ranked(ground.evidence) if hops.holds(hop) for end in (hop.cause, hop.effect)}
    return "" if names <= joined else "tells of a spread that no causal check supports"


def _blame_complaint(sentence: str, ground: Ground) -> str:
    """«X is the root cause» needs that ranking suspects X, and of a claim that it cites something of X."""
    names = set(blamed(sentence, ground.components))
    shown = {suspect.component for suspect in ground.evidence.suspects}
    if ground.claims:
        shown &= {finding.component for finding in ground.cited}
    if names <= shown:
        return ""
    return f"blames {listed(sorted(names - shown))}, which the cited evidence does not show"


def _late_change_complaint(sentence: str, ground: Ground) -> str:
    if not ground.claims or not tells_a_cause(sentence):
        return ""
    changed = [f.at for f in ground.cited if f.kind == "change"]
    began = [f.at for f in ground.cited if hops.deviates(f)]
    if changed and began and (min(changed) - max(began)).total_seconds() > 60:
        return "the change that it cites came after the trouble"
    return ""


# --- extents and onsets -----------------------------------------------------------------------------------


def _extent_complaint(text: str, ground: Ground) -> str:
    """«All», «most», «hardly any», where what is cited is a share that is measured, and another one."""
    for clause in clauses(text):
        said, shares = extent(clause), [f.observed / 100 for f in _shares(clause, ground) if f.observed is not None]
        if said and shares and not all(said[0] <= share <= said[1] for share in shares):
            return f"says {said[2]}, but what it cites is {shares[0]:.0%}"
        sweeping = said and _is_sweeping(said, clause) and (ground.claims or named(clause, ground.components))
        if said and sweeping and not shares and said[2].lower() not in ground.source:
            return f"says {said[2]}, which the cited evidence does not show"
    return ""


def _is_sweeping(said: tuple[float, float, str], clause: str) -> bool:
    """«All» and «hardly any» speak of a share; «never above 3» of all times."""
    least, most, word = said
    if quantities(clause):
        return word.lower() == "never"
    return least > 0 or 0.01 < most < 0.5


def _shares(clause: str, ground: Ground) -> list[Finding]:
    """The shares that the clause is about: where it names two components, those of the calls between them."""
    names = {name for _, _, name in named(clause, ground.components)}
    shares = [f for f in _about(clause, ground) if f.unit == "%"]
    of_all = [f for f in ground.cited if f.unit == "%" and names and all(mentions(f.summary, name) for name in names)]
    return of_all if len(names) > 1 and of_all else shares


def _onsets_complaint(text: str, ground: Ground) -> str:
    """One thing before another, where what is cited of the two began the other way round."""
    for sentence in sentences(text):
        first, second = (_began(part, ground) for part in in_order(sentence) or ("", ""))
        last = (max if ground.claims else min)(second, default=None)  # prose picks none of several
        if first and last and min(first) > last + hops.SLACK:
            return f"says what began at {last:%H:%M:%S} came after what began at {min(first):%H:%M:%S}"
    return ""


def _began(part: str, ground: Ground) -> list[datetime]:
    """The onsets of the findings that a part of a sentence is about; empty where it names none of them."""
    names = {name for _, _, name in named(part, ground.components)}
    about = [f for f in _about(part, ground) if hops.deviates(f)]
    own = [f for f in about if f.component in names or (len(f.signal) > _SHORT and folded(f.signal) in folded(part))]
    return [f.at for f in own]


_CHECKS: tuple[Callable[[str, Ground], str], ...] = (
    _letters_complaint,
    _addresses_complaint,
    _quotations_complaint,
    _all_numbers_complaint,
    _words_complaint,
    _names_complaint,
    _attribution_complaint,
    _owners_complaint,
    _subjects_complaint,
    _changes_complaint,
    _extent_complaint,
    _onsets_complaint,
    _causes_complaint,
)
