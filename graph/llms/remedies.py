"""Which remedies of the playbooks are possible, and best first, by what the catalogue has and what is seen. Pure."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from math import ceil

from pydantic import JsonValue

from executors.base import Resource
from graph.llms.base import PlanRequest, Proposal
from graph.llms.checked import (
    NotAdvisedError,
    NotPossibleError,
    ProposedStep,
    changes_something,
    checked_option,
    checked_step,
)
from graph.llms.conditions import Circumstances
from graph.llms.diagnosis import callers_of, is_deploy
from graph.llms.playbooks import (
    CONDITIONS,
    EXECUTIONS_BEFORE,
    OWN_TARGET_GROUP,
    PLAYBOOKS,
    REMEDIES,
    TWICE_THE_TASKS,
    VERSION_BEFORE,
    Category,
    Condition,
    Remedy,
    Step,
    Use,
    known_category,
    say,
)
from graph.llms.precedents import with_precedents
from graph.llms.preference import ordered
from graph.memory import of_now
from graph.state import ActionOption, Finding, Language, PlanStep

_MAX_NOTES = 3
_COUNT_OF_TASKS = re.compile(r"task|replicas$|group_?desired_?capacity|instances$", re.IGNORECASE)
_CONCURRENCY = re.compile(r"concurrent ?executions", re.IGNORECASE)
_VERSION = re.compile(r"\bversion (\d+)\b(?![.\d])", re.IGNORECASE)


def propose(request: PlanRequest) -> Proposal:
    """The playbook's remedies that are possible, best first, with short notes on why others are not.

    Where there is none, the notes are what a person should look at by hand.
    """
    request = replace(request, evidence=of_now(request.evidence))
    category = known_category(request.root_cause.category)
    if request.root_cause.component is None:
        return Proposal(notes=_to_look_at(category, request))
    options: list[ActionOption] = []
    proposed: set[str] = set()
    reasons: dict[str, str] = {}  # and the remedy each is about
    for use in PLAYBOOKS[category].remedies:
        try:
            option = _option(use, request)
        except NotAdvisedError as error:
            reasons[str(error)] = use.remedy
            continue
        except NotPossibleError as error:
            reasons[say("not_possible", request.language, reason=str(error).rstrip("."))] = use.remedy
            continue
        if option is not None:
            options.append(option)
            proposed.add(use.remedy)
    # what helps for one reason and would not for another is proposed, and nothing is said against it
    notes = tuple(reason for reason, remedy in reasons.items() if remedy not in proposed)[:_MAX_NOTES]
    chosen = ordered(with_precedents(options, request), request)
    return Proposal(chosen, notes if chosen else (*_to_look_at(category, request), *notes))


def _to_look_at(category: Category, request: PlanRequest) -> tuple[str, ...]:
    """What a person should look at where nothing can be proposed."""
    component = request.root_cause.component or request.scope.service
    asked = PLAYBOOKS[category].questions
    questions = "; ".join(q.filled(request.language, component=component) for q in asked)
    return (say("look_at", request.language, questions=questions),) if questions else ()


def _option(use: Use, request: PlanRequest) -> ActionOption | None:
    """The remedy made concrete; None where it has no point. Raises NotPossibleError, NotAdvisedError."""
    remedy = REMEDIES[use.remedy]
    possible = (resource for resource in _acted_on(remedy, request) if _of_use(use, resource, request))
    resource = next(possible, None)
    if resource is None:
        return None
    seen = Circumstances(request, resource.service)
    steps = _steps(remedy, resource, request)
    if not changes_something(steps, request.menu):
        return None
    tasks = str(_more_tasks(resource, request))
    names = {"service": resource.service, "component": str(request.root_cause.component), "tasks": tasks}
    title = remedy.title.filled(request.language, **names)
    against = seen.first_of((*remedy.unless, *use.unless))
    if against is not None:
        raise NotAdvisedError(_warning(title, against, request.language, names))
    return checked_option(
        title,
        remedy.description.filled(request.language, **names),
        _reasons(seen),
        steps,
        request.menu,
        intent=use.intent,
        benefit=use.benefit,
        language=request.language,
    )


def _of_use(use: Use, resource: Resource, request: PlanRequest) -> bool:
    return all(map(Circumstances(request, resource.service).hold, use.needs))


def _steps(remedy: Remedy, resource: Resource, request: PlanRequest) -> list[PlanStep]:
    """The remedy's steps, by what the service runs on. Raises NotPossibleError."""
    way = next((way for way in remedy.ways if _runs_there(way, resource, request)), remedy.steps)
    steps: list[PlanStep] = []
    for step in way:
        try:
            steps.append(checked_step(_proposed(step, resource, request), request))
        except NotPossibleError:
            if not step.optional:
                raise
    return steps


def _runs_there(way: Iterable[Step], resource: Resource, request: PlanRequest) -> bool:
    """Whether menu and catalogue have what all of the steps need."""
    entries = [request.entry(step.operation) for step in way if not step.optional]
    return all(entry is not None and not entry.lacks(resource) for entry in entries)


def _warning(title: str, against: Condition, language: Language, names: Mapping[str, str]) -> str:
    """What speaks against a remedy."""
    return say("not_advised", language, title=title, reason=CONDITIONS[against].told.filled(language, **names))


def _acted_on(remedy: Remedy, request: PlanRequest) -> list[Resource]:
    """The failing component, the nearest of its callers on the path, or its callers that changed right before.

    Raises NotPossibleError if the catalogue lists it not; none where nothing calls the component.
    """
    root = request.root_cause
    by_name = {resource.service: resource for resource in request.resources}
    component = str(root.component)
    if remedy.acts_on == "component":
        if component not in by_name:
            raise NotPossibleError(say("not_in_catalogue", request.language, service=component))
        return [by_name[component]]
    if remedy.acts_on == "changed_caller":
        changed = (name for name in _changed_callers(request) if name in by_name)
        return [by_name[name] for name in changed]
    callers = [name for name in _callers(request) if name != component]
    if not callers:
        return []
    found = next((by_name[name] for name in callers if name in by_name), None)
    if found is None:
        raise NotPossibleError(say("no_caller", request.language, component=component))
    return [found]


def _callers(request: PlanRequest) -> list[str]:
    """Who calls the failing component: along the causal path, or else who was alerted on."""
    return [hop.effect for hop in request.root_cause.path] or [request.scope.service]


def _changed_callers(request: PlanRequest) -> list[str]:
    """Who calls the failing component and changed before it failed, the last one first."""
    component = str(request.root_cause.component)
    callers = dict.fromkeys((*callers_of(component, request.evidence), *_callers(request)[:1]))
    last = {name: max((c.at for c in _changes(Circumstances(request, name))), default=None) for name in callers}
    changed = [(at, name) for name, at in last.items() if at is not None and name != component]
    return [name for _, name in sorted(changed, reverse=True)]


def _changes(seen: Circumstances) -> tuple[Finding, ...]:
    """Of the service: what its time or ranking connects with the trouble."""
    return (*seen.changed_right_before, *seen.changes)


def _proposed(step: Step, resource: Resource, request: PlanRequest) -> ProposedStep:
    params = {name: _filled(value, resource, request) for name, value in step.params.items()}
    return ProposedStep(step.operation, {"service": resource.service, **params})


def _filled(value: JsonValue, resource: Resource, request: PlanRequest) -> JsonValue:
    """What a param stands for. Raises NotPossibleError where that is not known."""
    find = _PLACEHOLDERS.get(value) if isinstance(value, str) else None
    if find is None:
        return value
    found = find(resource, request)
    if found is None:
        phrase = "no_more_tasks" if value == TWICE_THE_TASKS else "not_known"
        raise NotPossibleError(say(phrase, request.language, service=resource.service))
    return found


def _own_target_group(resource: Resource, request: PlanRequest) -> str | None:
    return resource.target_group_arn


def _executions_before(resource: Resource, request: PlanRequest) -> int | None:
    """As many as ran at once before the trouble, within the catalogue's bound."""
    before = (
        finding.baseline
        for finding in request.evidence.findings
        if finding.component == resource.service and _CONCURRENCY.search(finding.signal)
    )
    known = [ceil(value) for value in before if value]
    return min(max(known), resource.max_concurrency) if known else None


def _version_before(resource: Resource, request: PlanRequest) -> str | None:
    """The number before the one that was deployed last: Lambda counts published versions up."""
    changes = [f for f in request.evidence.findings if f.kind == "change" and f.component == resource.service]
    deployed = [int(number) for f in changes if is_deploy(f) for number in _VERSION.findall(f"{f.signal} {f.summary}")]
    return str(max(deployed) - 1) if deployed and max(deployed) > 1 else None


def _more_tasks(resource: Resource, request: PlanRequest) -> int | None:
    """Twice the tasks that should run, within the catalogue's bounds; None if that is no more than now.

    None also where their number is not known: any number might be fewer than run now, or far too many.
    """
    counts = [
        count
        for f in request.evidence.findings
        if f.component == resource.service and _COUNT_OF_TASKS.search(f.signal) and f.kind in {"status", "metric"}
        for count in (f.observed, f.baseline)
        if count is not None
    ]
    counts += [request.desired_tasks[resource.service]] if resource.service in request.desired_tasks else []
    if not counts:
        return None
    now = int(max(counts))
    more = min(max(2 * now, resource.min_tasks), resource.max_tasks)
    return more if more > now else None


_PLACEHOLDERS: Mapping[str, Callable[[Resource, PlanRequest], JsonValue]] = {
    TWICE_THE_TASKS: _more_tasks,
    EXECUTIONS_BEFORE: _executions_before,
    VERSION_BEFORE: _version_before,
    OWN_TARGET_GROUP: _own_target_group,
}


def _reasons(seen: Circumstances) -> Iterable[str]:
    """What changed of the service, if it is another than the one at fault, and what the root cause rests on."""
    root = seen.request.root_cause
    changes = [change.id for change in _changes(seen)] if seen.service != root.component else []
    ids = [eid for claim in root.claims if not claim.complaint for eid in claim.evidence]
    return list(dict.fromkeys([*changes, *ids]))[:5]
