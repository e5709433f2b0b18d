"""The rules engine: explains and plans from playbooks, with no LLM. Deterministic.

It names the first suspect of the ranking, finds the playbook whose symptoms the suspect's findings show, and
says what the findings say. Every claim it makes is a finding's own sentence, or follows from two of them.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Literal

from executors.base import Resource
from graph.llms.base import AnalysisRequest, PlanRequest
from graph.llms.checked import (
    NotPossibleError,
    ProposedStep,
    changes_something,
    checked_option,
    checked_step,
)
from graph.llms.playbooks import (
    PLAYBOOKS,
    TWICE_THE_TASKS,
    Category,
    Remedy,
    Step,
    Symptom,
)
from graph.state import ActionOption, Claim, Evidence, Finding, PlanStep, Rival, RootCause, Suspect

_MIN_SCORE = 0.15  # of evidence that was frozen before it held an assessment
_MIN_SYMPTOMS = 1.0
_CHANGE_BEFORE = timedelta(minutes=30)  # a change older than this is no longer «just before»
_BUCKET = timedelta(minutes=1)  # onsets are known to the minute, so a change may seem to come after
_MAX_CLAIMS = 5
_MAX_RIVALS = 3
_SURGE = PLAYBOOKS[Category.TRAFFIC_SURGE].symptoms


class RulesAnalyst:
    """Analyst without a model."""

    name = "rules"

    async def analyze(self, request: AnalysisRequest) -> RootCause:
        """The first suspect explained, or an inconclusive answer if nothing stands out."""
        return explain(request.evidence, service=request.scope.service)

    async def plan(self, request: PlanRequest) -> list[ActionOption]:
        """The playbook's remedies, as far as menu and catalogue allow them."""
        if request.root_cause.component is None:
            return []
        remedies = PLAYBOOKS[_known_category(request.root_cause.category)].remedies
        options = (_option(remedy, request) for remedy in remedies)
        return [option for option in options if option is not None][:3]


# --- analysis ---------------------------------------------------------------------------------------------


def explain(evidence: Evidence, service: str) -> RootCause:
    """What the findings show of the first suspect; ``service`` is the one alerted on."""
    suspect = evidence.suspects[0] if evidence.suspects else None
    if suspect is None or _abstains(evidence, suspect):
        return _inconclusive(evidence, service)
    own = _own_findings(suspect, evidence)
    if not own:
        return _inconclusive(evidence, service)
    surge = _surge(evidence)
    change = _breaking_change(own, surge)
    category = _category(own, change)
    spoken = _telling(own, category, change)
    playbook, names = PLAYBOOKS[category], {"component": suspect.component}
    under_surge = surge is not None and category not in {Category.BAD_DEPLOY, Category.TRAFFIC_SURGE}
    title = playbook.title.format_map(names) + (" under a traffic surge" if under_surge else "")
    quoted = [f"{_sentence(f)} [{f.id}]." for f in (spoken if surge in spoken or not surge else [surge, *spoken])]
    return RootCause(
        component=suspect.component,
        category=category.value,
        title=title,
        mechanism=" ".join([playbook.mechanism.format_map(names), *quoted[:4], *_spread(suspect)]),
        claims=_claims(spoken, surge, change),
        path=suspect.path,
        rivals=(*_changes_not_blamed(own, change, surge), *_rivals(evidence)),
        unknowns=(*_no_spread(suspect), *_unknowns(evidence)),
        confidence=_confidence(evidence, own, category),
        engine="rules",
    )


def _abstains(evidence: Evidence, suspect: Suspect) -> bool:
    return evidence.assessment.abstains if evidence.assessment else suspect.score < _MIN_SCORE


def _inconclusive(evidence: Evidence, service: str) -> RootCause:
    strongest = evidence.findings[:3]
    what = "What was found is too weak to name a cause." if strongest else "Nothing departs from normal."
    what = f"{what} {evidence.assessment.why}" if evidence.assessment else what
    return RootCause(
        component=None,
        category=Category.UNKNOWN.value,
        title=f"No root cause found for {service}",
        mechanism=what,
        claims=tuple(Claim(text=f"{_sentence(f)}.", evidence=(f.id,)) for f in strongest),
        rivals=tuple(_rival(s, evidence, "Its score is too low to tell it from noise.") for s in _ranked(evidence)),
        unknowns=_unknowns(evidence),
        confidence="inconclusive",
        engine="rules",
    )


def _own_findings(suspect: Suspect, evidence: Evidence) -> list[Finding]:
    """The findings that speak for the suspect, and all others about it, most informative first."""
    return [f for f in evidence.findings if f.id in suspect.findings or f.component == suspect.component]


def _category(own: Sequence[Finding], change: Finding | None) -> Category:
    if change is not None:
        return Category.BAD_DEPLOY if _is_deploy(change) else Category.BAD_CONFIGURATION
    weights = {category: _weight(category, own) for category in PLAYBOOKS}
    best = max(weights, key=lambda category: weights[category])  # the first of equals: the table's order
    return best if weights[best] >= _MIN_SYMPTOMS else Category.UNKNOWN


def _weight(category: Category, findings: Sequence[Finding]) -> float:
    """How much of the playbook's symptoms the findings show; a symptom seen twice counts once."""
    symptoms = PLAYBOOKS[category].symptoms
    return sum(s.weight for s in symptoms if any(shows(finding, s) for finding in findings))


def shows(finding: Finding, symptom: Symptom) -> bool:
    """Does the finding show the symptom, in its words and in its numbers?"""
    if symptom.kinds and finding.kind not in symptom.kinds:
        return False
    measured = finding.kind in {"metric", "status"}
    # A metric is what its name says; its sentence may name other things in passing.
    statistic = finding.ref.statistic if finding.ref else ""
    text = (
        f"{finding.signal} {statistic} in {finding.unit}"
        if measured
        else f"{finding.signal}\n{finding.summary}\n{finding.excerpt}"
    )
    if not symptom.words.search(text) or (symptom.but_not and symptom.but_not.search(text)):
        return False
    return _numbers_show(finding, symptom)


def _numbers_show(finding: Finding, symptom: Symptom) -> bool:
    observed, baseline = finding.observed, finding.baseline
    if symptom.at_least is not None:
        return observed is not None and _share(observed, finding.unit) >= symptom.at_least
    if symptom.rose is not None and observed is not None and baseline is not None:
        return observed >= baseline * symptom.rose
    if symptom.fell is not None:
        return observed is not None and baseline is not None and observed <= baseline * symptom.fell
    return True


def _share(value: float, unit: str) -> float:
    """A share of 1, from a ratio or a percentage."""
    return value / 100 if unit.lower() in {"%", "percent", "pct"} or value > 1.5 else value


def _surge(evidence: Evidence) -> Finding | None:
    """The finding that shows far more traffic than normal, wherever it is seen."""
    return next((f for f in evidence.findings if f.observed and any(shows(f, s) for s in _SURGE)), None)


def _breaking_change(own: Sequence[Finding], surge: Finding | None) -> Finding | None:
    """The latest change after which errors began, unless a surge came in between and a resource ran out."""
    errors = [f.at for f in own if _is_error(f)]
    if not errors:
        return None
    began = min(errors)
    changes = [
        f
        for f in own
        if f.kind == "change" and (_is_deploy(f) or _is_configuration(f))
        if f.at - _BUCKET <= began <= f.at + _CHANGE_BEFORE
    ]
    latest = max(changes, key=lambda f: f.at, default=None)
    if latest and surge and surge.at > latest.at and _weight(Category.CONNECTION_POOL_EXHAUSTION, own) >= 3:
        return None
    return latest


def _is_deploy(finding: Finding) -> bool:
    return any(word in _words_of(finding) for word in ("deploy", "release", "roll-out", "rollout", "version"))


def _is_configuration(finding: Finding) -> bool:
    return any(word in _words_of(finding) for word in ("config", "flag", "parameter", "setting"))


def _is_error(finding: Finding) -> bool:
    """Something fails: by its words, or because it is an error log or trace."""
    words = ("error", "exception", "fail", "5xx", "500", "timed out", "timeout", "traceback", "refused")
    return finding.kind in {"log", "trace", "metric"} and any(word in _words_of(finding) for word in words)


def _words_of(finding: Finding) -> str:
    return f"{finding.signal} {finding.summary} {finding.excerpt}".lower()


def _telling(own: Sequence[Finding], category: Category, change: Finding | None) -> list[Finding]:
    """Which findings to speak of: the change, what shows the category, then one of each other kind."""
    symptoms = PLAYBOOKS[category].symptoms
    showing = [f for f in own if any(shows(f, symptom) for symptom in symptoms)]
    kinds = {f.kind for f in showing}
    kinds_left = dict.fromkeys(f.kind for f in own if f.kind != "change")  # a change not blamed is a rival
    others = [next(f for f in own if f.kind == kind) for kind in kinds_left]
    chosen = [*([change] if change else []), *showing[:3], *(f for f in others if f.kind not in kinds)]
    return list({f.id: f for f in chosen}.values())[: _MAX_CLAIMS - 1]


def _claims(spoken: Sequence[Finding], surge: Finding | None, change: Finding | None) -> tuple[Claim, ...]:
    claims = [Claim(text=f"{_sentence(f)}.", evidence=(f.id,)) for f in spoken]
    if surge and surge not in spoken:
        claims.append(Claim(text=f"{_sentence(surge)}.", evidence=(surge.id,)))
    after = next((f for f in spoken if change and f is not change and _is_error(f)), None)
    if change and after:
        text = f"The change was made at {change.at:%H:%M:%S}; trouble began at {after.at:%H:%M:%S}."
        claims.append(Claim(text=text, evidence=(change.id, after.id)))
    return tuple(claims)


def _sentence(finding: Finding) -> str:
    return finding.summary.strip().rstrip(".")


def _spread(suspect: Suspect) -> list[str]:
    """How the trouble reached the alerted service, if the checks of the path hold."""
    if not suspect.path or not _path_holds(suspect):
        return []
    way = " to ".join([suspect.path[0].cause, *(hop.effect for hop in suspect.path)])
    return [f"It spread from {way}."]


def _no_spread(suspect: Suspect) -> list[str]:
    """That the way to the alerted service is not known, where the checks of the path do not hold."""
    if _path_holds(suspect):
        return []
    return [f"No path from {suspect.path[0].cause} to {suspect.path[-1].effect} is known."]


def _path_holds(suspect: Suspect) -> bool:
    return all(hop.structural and (hop.temporal or hop.statistical) for hop in suspect.path)


def _ranked(evidence: Evidence) -> list[Suspect]:
    return list(evidence.suspects[:_MAX_RIVALS])


def _rivals(evidence: Evidence) -> tuple[Rival, ...]:
    top = evidence.suspects[0]
    others = [s for s in evidence.suspects if s.component != top.component][:_MAX_RIVALS]
    return tuple(_rival(other, evidence, _against(other, top, evidence)) for other in others)


def _changes_not_blamed(own: Sequence[Finding], blamed: Finding | None, surge: Finding | None) -> Iterable[Rival]:
    """The question everybody asks first: was it the deploy?"""
    began = min((f.at for f in own if f.kind != "change"), default=None)
    for change in [f for f in own if f.kind == "change" and f is not blamed][:_MAX_RIVALS]:
        against = f"The trouble began at {began:%H:%M:%S}." if began else ""
        if surge and surge.at > change.at:
            against += f" Traffic surged at {surge.at:%H:%M:%S}."
        yield Rival(component=change.component, for_=f"{_sentence(change)}.", against=against.strip())


def _rival(suspect: Suspect, evidence: Evidence, against: str) -> Rival:
    own = _own_findings(suspect, evidence)
    return Rival(component=suspect.component, for_=f"{_sentence(own[0])}." if own else "", against=against)


def _against(other: Suspect, top: Suspect, evidence: Evidence) -> str:
    """Why the first suspect is preferred."""
    if any(other.component == hop.effect for hop in top.path):
        return f"It is on the causal path from {top.component}, which explains its trouble."
    later, earlier = _onset(other, evidence), _onset(top, evidence)
    if later and earlier and later.at > earlier.at:
        return f"It began at {later.at:%H:%M:%S}, after {top.component} at {earlier.at:%H:%M:%S}."
    return f"Less of its trouble is left unexplained than of {top.component}."


def _onset(suspect: Suspect, evidence: Evidence) -> Finding | None:
    return min((f for f in _own_findings(suspect, evidence) if f.kind != "change"), key=lambda f: f.at, default=None)


def _unknowns(evidence: Evidence) -> tuple[str, ...]:
    return tuple(
        f"{gap.source} ({gap.reason.value.replace('_', ' ')}): {gap.detail.strip().rstrip('.')}."
        + (f" {gap.mend.strip()}" if gap.mend else "")
        for gap in evidence.gaps
    )


def _confidence(evidence: Evidence, own: Sequence[Finding], category: Category) -> Literal["high", "medium", "low"]:
    """From the lead over the next suspect, the kinds of evidence that agree, the path, and the gaps."""
    top, *others = evidence.suspects
    kinds = {f.kind for f in own if f.kind != "change" or category is Category.BAD_DEPLOY}
    lead = top.score - (others[0].score if others else 0.0)
    points = (
        (lead >= 0.1)
        + (lead >= 0.3)
        + (top.score >= 0.5)
        + (len(kinds) >= 2)
        + (len(kinds) >= 3)
        + all(hop.structural and hop.statistical and hop.temporal for hop in top.path)
        - (len(evidence.gaps) >= 2)
        - (category is Category.UNKNOWN) * 2
    )
    if points >= 5:
        return "high"
    return "medium" if points >= 3 else "low"


# --- planning ---------------------------------------------------------------------------------------------


def _known_category(name: str) -> Category:
    return Category(name) if name in set(Category) else Category.UNKNOWN


def _option(remedy: Remedy, request: PlanRequest) -> ActionOption | None:
    """The remedy made concrete; None where menu, catalogue or playbook do not allow it."""
    resource = _acted_on(remedy, request)
    if resource is None:
        return None
    tasks = _more_tasks(resource, request)
    steps: list[PlanStep] = []
    for step in remedy.steps:
        try:
            steps.append(checked_step(_proposed(step, resource, tasks), request))
        except NotPossibleError:
            if not step.optional:
                return None
    if not changes_something(steps, request.menu):
        return None
    names = {"service": resource.service, "component": str(request.root_cause.component), "tasks": str(tasks)}
    return checked_option(
        remedy.title.format_map(names),
        remedy.description.format_map(names),
        _reasons(request),
        steps,
        request.menu,
    )


def _acted_on(remedy: Remedy, request: PlanRequest) -> Resource | None:
    """The failing component, or the nearest of its callers on the path; None if the catalogue lists it not."""
    root = request.root_cause
    callers = [hop.effect for hop in root.path] or [request.scope.service]
    candidates = callers if remedy.acts_on == "caller" else [root.component]
    by_name = {resource.service: resource for resource in request.resources}
    if remedy.acts_on == "caller":
        by_name.pop(str(root.component), None)
    return next((by_name[name] for name in candidates if name in by_name), None)


def _proposed(step: Step, resource: Resource, tasks: int | None) -> ProposedStep:
    params = dict(step.params)
    if params.get("desired_count") == TWICE_THE_TASKS:
        if tasks is None:
            raise NotPossibleError(
                f"{resource.service} runs as many tasks as the catalogue allows, or how many is not known"
            )
        params["desired_count"] = tasks
    return ProposedStep(step.operation, {"service": resource.service, **params})


def _more_tasks(resource: Resource, request: PlanRequest) -> int | None:
    """Twice the tasks that should run, within the catalogue's bounds; None if that is no more than now.

    None also where their number is not known: any number might be fewer than run now, or far too many.
    """
    counts = [
        count
        for f in request.evidence.findings
        if f.component == resource.service and "task" in f.signal.lower() and f.kind in {"status", "metric"}
        for count in (f.observed, f.baseline)
        if count is not None
    ]
    counts += [request.desired_tasks[resource.service]] if resource.service in request.desired_tasks else []
    if not counts:
        return None
    now = int(max(counts))
    more = min(max(2 * now, resource.min_tasks), resource.max_tasks)
    return more if more > now else None


def _reasons(request: PlanRequest) -> Iterable[str]:
    """The evidence that the root cause rests on."""
    ids = [eid for claim in request.root_cause.claims if not claim.complaint for eid in claim.evidence]
    return list(dict.fromkeys(ids))[:5]
