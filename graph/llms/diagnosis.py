"""Which kind of failure the findings of a suspect show, and whether a change explains it. Pure.

Each symptom that a playbook names counts once, however many findings show it, and the more the further up the list of
evidence the first of them stands: many generic words weigh no more than one. A category needs at least one symptom
that is typical of it; hints alone never decide.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from graph.llms.playbooks import PLAYBOOKS, ByChange, Category, Sign
from graph.ranking.terms import whole
from graph.state import Evidence, Finding, Suspect

TELLING = 2.0
"""A symptom of less weight is a hint, which cannot decide by itself."""
FADES, LEAST = 0.93, 0.3
"""What each place further down the list leaves of a finding's weight, and what is left at its end: the list begins
with what is strongest, and a stray line at its end must not outweigh it."""
SPOKEN_FOR = 0.5
"""What a caller's finding counts for a suspect that it does not name: it may be about another of its callees; and any
that is told of it where its own answers are seen: these say why, what callers make of them says what it leads to."""
CHANGE_BEFORE = timedelta(minutes=30)  # a change older than this is no longer «just before»
RIGHT_BEFORE = timedelta(minutes=10)  # a roll-out takes minutes, and its faults show with the first requests
BUCKET = timedelta(minutes=1)  # onsets are known to the minute, so a change may seem to come after
CONTEXT = frozenset({"change", "knowledge", "topology"})  # what is no trouble that was seen in the component itself

_LOAD_MATTERS = frozenset(
    {
        Category.CONNECTION_POOL_EXHAUSTION,
        Category.CPU_SATURATION,
        Category.MEMORY_EXHAUSTION,
        Category.SLOW_DEPENDENCY,
        Category.UNHEALTHY_TASKS,
        Category.RATE_LIMITED_DEPENDENCY,
        Category.CONCURRENCY_LIMIT,
        Category.QUEUE_BACKLOG,
        Category.DATABASE_DEGRADATION,
        Category.CACHE_FAILURE,
    }
)
OF_A_DEPENDENCY = frozenset(
    {
        Category.RATE_LIMITED_DEPENDENCY,
        Category.DEPENDENCY_OUTAGE,
        Category.EXPIRED_CERTIFICATE,
        Category.LLM_PROVIDER_OUTAGE,
    }
)
"""Failures that are by their nature those of a component that is called."""
_BY_NAME: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("cache", re.compile(r"redis|memcached?|elasticache|valkey|(?<![a-z])cache(?![a-z])", re.IGNORECASE)),
    ("queue", re.compile(r"sqs|kafka|rabbit|kinesis|(?<![a-z])(?:queue|topic|stream)(?![a-z])", re.IGNORECASE)),
    (
        "database",
        re.compile(r"postgres|mysql|aurora|mongo|dynamo|(?<![a-z])(?:db|rds|database|mariadb)(?![a-z])", re.IGNORECASE),
    ),
)
_KIND_OF_CHANGE = re.compile(r": (deploy|configuration|scaling|feature_flag|other) “")
_NAMES_IT = "what fails names it too"  # so says ranking of a change that has words in common with what fails
_ERROR_WORDS = ("error", "exception", "fail", "5xx", "500", "timed out", "timeout", "traceback", "refused")


@dataclass(frozen=True)
class Diagnosis:
    """A category, and the findings to speak of. ``surge`` is far more traffic than usual, wherever it is seen."""

    category: Category
    own: tuple[Finding, ...]
    showing: tuple[Finding, ...] = ()
    change: Finding | None = None
    surge: Finding | None = None

    @property
    def under_surge(self) -> bool:
        """Whether the surge makes such a failure come about, or worse."""
        return self.surge is not None and self.category in _LOAD_MATTERS


def diagnose(suspect: Suspect, evidence: Evidence) -> Diagnosis:
    """What the findings show of the suspect; ``unknown`` where nothing is telling."""
    own = own_findings(suspect, evidence)
    heard = _attention(own, suspect, evidence)
    kind = kind_of(suspect)
    surge = surging(evidence)
    category = _strongest(heard, kind)
    change = _change_that_explains(category, own, surge)
    shown = category
    if change is not None:
        category = Category.BAD_DEPLOY if is_deploy(change) else Category.BAD_CONFIGURATION
    showing = tuple(f for f, _ in heard if any(shows(f, s, kind) for s in PLAYBOOKS[shown].symptoms))
    return Diagnosis(category, tuple(own), showing, change, surge)


def dependency(suspect: Suspect, others: Iterable[Suspect], evidence: Evidence) -> Suspect | None:
    """The one of the others that the suspect's failure is about: it is called, is named by what shows the failure,
    and shows the same failure itself; None if there is none, or the failure is none of a dependency.
    """
    found = diagnose(suspect, evidence)
    if found.category not in OF_A_DEPENDENCY:
        return None
    called = {e.callee for e in evidence.edges if e.caller == suspect.component and not e.asynchronous}
    named = (s for s in others if s.component in called and _tell_of(found.showing, s.component))
    return next((s for s in named if diagnose(s, evidence).category is found.category), None)


def _tell_of(findings: Iterable[Finding], component: str) -> bool:
    name = whole(component)
    return any(f.component == component or name.search(_said(f)) for f in findings)


def own_findings(suspect: Suspect, evidence: Evidence) -> list[Finding]:
    """The findings that speak for the suspect, and all others about it, most informative first."""
    return [f for f in evidence.findings if f.id in suspect.findings or f.component == suspect.component]


def kind_of(suspect: Suspect) -> str:
    """What the suspect is, as a source knows or as its name tells; «service» if neither does."""
    if suspect.kind:
        return suspect.kind
    return next((kind for kind, pattern in _BY_NAME if pattern.search(suspect.component)), "service")


def surging(evidence: Evidence) -> Finding | None:
    """The finding that shows far more traffic than normal, wherever it is seen."""
    symptoms = PLAYBOOKS[Category.TRAFFIC_SURGE].symptoms
    return next((f for f in evidence.findings if f.observed and any(shows(f, s) for s in symptoms)), None)


# --- which category -------------------------------------------------------------------------------------------


Heard = Sequence[tuple[Finding, float]]


def _attention(own: Sequence[Finding], suspect: Suspect, evidence: Evidence) -> Heard:
    """The findings to judge by, each with what it counts: the suspect's own, and what its callers say of it."""
    mine = {f.id for f in own}
    callers = {edge.caller for edge in evidence.edges if edge.callee == suspect.component}
    callers.update(hop.effect for hop in suspect.path[:1])
    name = whole(suspect.component)
    silent = kind_of(suspect) != "service" or not any(f.kind == "log" for f in own)
    hearsay = SPOKEN_FOR if any(f.kind == "trace" and is_error(f) for f in own) else 1.0
    heard: list[tuple[Finding, float]] = []
    for finding in evidence.findings:
        counts = max(FADES ** len(heard), LEAST)
        if finding.id in mine:
            heard.append((finding, counts * (hearsay if finding.kind == "topology" else 1.0)))
        elif finding.component in callers and finding.kind in {"log", "trace"}:
            if name.search(_said(finding)):
                heard.append((finding, counts * hearsay))
            elif silent and finding.kind == "log":
                heard.append((finding, counts * SPOKEN_FOR))
    return heard


def _strongest(heard: Heard, kind: str) -> Category:
    weights = {category: weight(category, heard, kind) for category in PLAYBOOKS}
    best = max(weights, key=lambda category: weights[category])  # the first of equals: the enumeration's order
    return best if weights[best] > 0 else Category.UNKNOWN


def weight(category: Category, heard: Heard, kind: str = "service") -> float:
    """How much of the playbook's symptoms the findings show; 0 if none of those is telling."""
    total, telling = 0.0, False
    for symptom in PLAYBOOKS[category].symptoms:
        counts = max((counts for finding, counts in heard if shows(finding, symptom, kind)), default=0.0)
        total += symptom.weight * counts
        telling = telling or (counts > 0 and symptom.weight >= TELLING)
    return total if telling else 0.0


def shows(finding: Finding, symptom: Sign, kind: str = "service") -> bool:
    """Does the finding show the symptom, in its words and in its numbers? ``kind`` is what the suspect is."""
    if symptom.kinds:
        if finding.kind not in symptom.kinds:
            return False
    elif finding.kind in {"change", "knowledge"}:  # what may fail, not what does
        return False
    if symptom.of and kind not in symptom.of:
        return False
    return symptom.said_in(_said(finding)) and _numbers_show(finding, symptom)


def _said(finding: Finding) -> str:
    """What the finding says of itself. A metric is what its name says; its sentence may name other things."""
    if finding.kind in {"metric", "status"}:
        statistic = finding.ref.statistic if finding.ref else ""
        reason = finding.summary if finding.kind == "status" else ""
        return "\n".join((f"{finding.signal} {statistic} in {finding.unit}", reason, finding.excerpt)).rstrip("\n")
    return f"{finding.signal}\n{finding.summary}\n{finding.excerpt}"


def _numbers_show(finding: Finding, symptom: Sign) -> bool:
    observed, baseline = finding.observed, finding.baseline
    if symptom.at_least is not None:
        return observed is not None and _share(observed, finding.unit) >= symptom.at_least
    if symptom.rose is not None and observed is not None and baseline is not None:
        return observed >= baseline * symptom.rose and observed > baseline
    if symptom.fell is not None:
        return observed is not None and baseline is not None and observed <= baseline * symptom.fell
    return True


def _share(value: float, unit: str) -> float:
    """A share of 1, from a ratio or a percentage; what is counted in other units is none."""
    if unit.lower() in {"%", "percent", "pct"}:
        return value / 100
    if unit.lower() not in {"", "ratio", "none", "share", "fraction"}:
        return 0.0
    return value / 100 if value > 1.5 else value


# --- which change ---------------------------------------------------------------------------------------------


def _change_that_explains(category: Category, own: Sequence[Finding], surge: Finding | None) -> Finding | None:
    """The latest change shortly before the trouble that explains such a failure better than the failure itself."""
    rule, began = PLAYBOOKS[category].explained_by_change, _onset(own)
    if rule == "never" or began is None:
        return None
    changes = [
        f
        for f in own
        if f.kind == "change" and (is_deploy(f) or is_configuration(f))
        if f.at - BUCKET <= began <= f.at + CHANGE_BEFORE
    ]
    explaining = [f for f in changes if _names_it(f, category) or _timed(f, began, rule, surge)]
    if rule == "configuration_naming_it":
        explaining = [f for f in explaining if not is_deploy(f)]
    return max(explaining, key=lambda f: f.at, default=None)


def _timed(change: Finding, began: datetime, rule: ByChange, surge: Finding | None) -> bool:
    """Whether its time alone makes the change the explanation."""
    if rule == "just_before":
        surged_since = surge is not None and surge.at > change.at
        return began <= change.at + RIGHT_BEFORE and not surged_since
    return rule == "any"


def _names_it(change: Finding, category: Category) -> bool:
    """Whether the change is about what fails: ranking says so, or its title has the words of the failure."""
    title = f"{change.signal}\n{change.excerpt}"
    return _NAMES_IT in change.summary or any(
        s.said_in(title) for s in PLAYBOOKS[category].symptoms if s.weight > TELLING
    )


def _onset(own: Sequence[Finding]) -> datetime | None:
    """When errors began; where none are seen, when anything did."""
    others = (f.at for f in own if f.kind in {"metric", "log", "trace", "status"} and f.worse != "neutral")
    return first_error(own) or min(others, default=None)


def first_error(own: Iterable[Finding]) -> datetime | None:
    """When the first of them shows that something fails."""
    return min((f.at for f in own if is_error(f)), default=None)


def right_before(changes: Iterable[Finding], *onsets: datetime | None) -> list[Finding]:
    """Those so shortly before any of the onsets that their time alone speaks for them, the latest first.

    Scaling is none of them: it is more often an answer to trouble than its cause.
    """
    near = (f for f in changes if any(at and f.at - BUCKET <= at <= f.at + RIGHT_BEFORE for at in onsets))
    return sorted((f for f in near if _kind(f) != "scaling"), key=lambda f: f.at, reverse=True)


def callers_of(component: str, evidence: Evidence) -> list[str]:
    """Whoever is known to call the component."""
    return list(dict.fromkeys(e.caller for e in evidence.edges if e.callee == component != e.caller))


def is_deploy(finding: Finding) -> bool:
    """A change of the code that runs."""
    if kind := _kind(finding):
        return kind == "deploy"
    return _has(finding, ("deploy", "release", "roll-out", "rollout", "version"))


def is_configuration(finding: Finding) -> bool:
    """A change of settings or flags."""
    if kind := _kind(finding):
        return kind in {"configuration", "feature_flag"}
    return _has(finding, ("config", "flag", "parameter", "setting"))


def _kind(change: Finding) -> str:
    """Deploy, configuration, feature_flag, scaling or other, as ranking says; empty if it does not."""
    found = _KIND_OF_CHANGE.search(change.summary)
    return found[1] if found else ""


def is_error(finding: Finding) -> bool:
    """Something fails: by its words, or because it is an error log or trace."""
    return finding.kind in {"log", "trace", "metric"} and _has(finding, _ERROR_WORDS)


def _has(finding: Finding, words: Iterable[str]) -> bool:
    text = f"{finding.signal} {finding.summary} {finding.excerpt}".lower()
    return any(word in text for word in words)
