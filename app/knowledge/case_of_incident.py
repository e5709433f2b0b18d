"""An incident that is over -> its case. Pure: all it knows is the report, the alert and what people said."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from app.knowledge.cases import Case, CaseOutcome, Remedy, Trust, environment_called
from app.opinions import Helped, Opinions
from app.report import DecisionMade, Report
from graph.memory import is_memory
from graph.signature import signature_of
from graph.state import ActionOption, Alert, Evidence, Execution, Plan, RootCause, StepResult, Verdict

MAX_FINDINGS = 12  # whose words it is found by
MAX_SUMMARY = 1_000  # characters
RAN = ("1", "2", "3")
REFUSED = (*RAN, "manual", "re_analyze")  # choices that leave options aside; re_plan only asks for them anew


@dataclass(frozen=True)
class Ended:
    """All that is known of an incident. ``root_cause`` as it was stored, whatever language the report is in."""

    report: Report
    alert: Alert
    evidence: Evidence | None = None
    root_cause: RootCause | None = None
    plans: Mapping[str, Plan] = field(default_factory=dict)
    """By revision; of a round that was planned anew the last one."""
    opinions: Opinions = field(default_factory=Opinions)
    recovered: bool = False

    @property
    def cause(self) -> tuple[str | None, str]:
        """Component and category as they are known best."""
        found = self.root_cause
        return self.opinions.cause(found.component if found else None, found.category if found else "")

    @property
    def trust(self) -> Trust:
        """Of the analysis."""
        found, said = self.root_cause, self.opinions.of_report
        if found and self.cause != (found.component, found.category):
            return "corrected"
        return said or "unknown"

    @property
    def executions(self) -> tuple[Execution, ...]:
        """What changed anything, without its reversals."""
        return tuple(e for e in self.report.executions if e.choice != "undo" and any(r.made for r in e.results))


def case_of(ended: Ended, report: str) -> Case:
    """``report``: the post-action report, markdown."""
    seen, (component, category) = ended.report, ended.cause
    known = ended.root_cause or RootCause(component=None, category="", title="", mechanism="", confidence="low")
    known = known.model_copy(update={"component": component, "category": category})
    outcome = _outcome(ended)
    return Case(
        id=seen.incident_id,
        kind="incident",
        incident_id=seen.incident_id,
        environment=seen.environment,
        service=seen.service,
        component=component,
        category=category,
        title=_title(ended, known),
        summary=_summary(ended),
        report=report,
        keywords="\n".join(_keywords(ended)),
        outcome=outcome,
        trust=ended.trust,
        helped=ended.opinions.helped,
        signature=signature_of(ended.alert, ended.evidence, known if known.component else None),
        occurred_at=seen.occurred_at,
        fold=_fold(
            environment_called(seen.environment),
            ended.alert.fingerprint,
            component or "",
            category,
            outcome,
            ended.trust,
        ),
        remedies=tuple(_remedies(ended)),
    )


def _fold(*parts: str) -> str:
    """The same alert for the same cause with the same end, judged alike."""
    return f"incident:{sha256(chr(0).join(parts).encode('utf-8', 'replace')).hexdigest()}"


def _title(ended: Ended, known: RootCause) -> str:
    """Of a cause that a person named the analysis's title would be a lie."""
    if ended.trust == "corrected":
        return f"{known.component or ended.report.service}: {known.category.replace('_', ' ') or 'unknown cause'}"
    return known.title or ended.report.title


def _summary(ended: Ended) -> str:
    if ended.trust == "corrected" and ended.root_cause:
        said = f"The analysis said “{ended.root_cause.title}”; people know better."
    elif ended.root_cause:
        said = ended.root_cause.mechanism
    else:
        said = ended.report.status_reason
    noted = (note.text for note in ended.report.notes)
    return " ".join(filter(None, (said, ended.opinions.helped, *noted)))[:MAX_SUMMARY]


def _keywords(ended: Ended) -> Iterator[str]:
    yield ended.alert.title
    yield ended.alert.text
    for finding in ended.evidence.findings[:MAX_FINDINGS] if ended.evidence else ():
        if not is_memory(finding):
            yield finding.summary
            yield finding.excerpt
    if ended.root_cause:
        yield from (claim.text for claim in ended.root_cause.claims)
    for decision in ended.report.decisions:
        yield from (decision.hint, decision.note)
    yield from (said.note for said in ended.opinions.said)
    yield from (execution.title for execution in ended.executions)


# --- what came of it ---


def _outcome(ended: Ended) -> CaseOutcome:
    """As it was measured, unless people say how it was."""
    last = ended.executions[-1] if ended.executions else None
    measured = _measured(ended, last) if last else None
    if measured in ("resolved", "recovered"):
        return measured
    if any(d.choice == "manual" for d in ended.report.decisions):
        return "by_hand"
    if ended.recovered:
        return "recovered"
    return measured or "unresolved"


def _measured(ended: Ended, last: Execution) -> CaseOutcome | None:
    """None: nothing could be measured, and nobody said anything."""
    found = last.verification
    resolved = found.verdict == "resolved"
    said = {_helped(ended, last, r.operation) for r in last.results if r.made}
    if "yes" in said:
        return "resolved"
    if "partly" in said:
        return "improved"
    if "no" in said:
        return "worse" if found.verdict == "worse" else "unchanged"
    if resolved and found.credit == "by_itself":
        return "recovered"
    return None if found.verdict == "not_measurable" else found.verdict


def _helped(ended: Ended, execution: Execution, operation: str) -> Helped:
    """Whether an operation that was run resolved it, by people's word."""
    found = execution.verification
    return ended.opinions.helped_by(
        execution.plan_revision,
        _number(execution.choice),
        operation,
        measured=found.verdict == "resolved",
        proven=found.credit == "remedy",
    )


def _number(choice: str) -> int:
    return int(choice) if choice in RAN else 0


# --- what was done ---


def _remedies(ended: Ended) -> Iterator[Remedy]:
    carried_out = {e.plan_revision: e for e in ended.report.executions if e.choice != "undo"}
    named = set(ended.opinions.operations)
    for decision in ended.report.decisions:
        plan, execution = ended.plans.get(decision.plan_revision), carried_out.get(decision.plan_revision)
        if execution:
            yield from _run(ended, decision, execution)
            named = set() if named <= {r.operation for r in execution.results if r.made} else named
        if plan and decision.choice in REFUSED:
            yield from _rejected(ended, decision, plan)
        if decision.choice == "manual":
            yield Remedy(title=decision.note, fate="by_hand", plan_revision=decision.plan_revision, at=decision.at)
    # people named what helped, and it was not us who ran it
    over = ended.report.closed_at or ended.report.occurred_at
    yield from (Remedy(operation=name, fate="by_hand", helped="yes", at=over) for name in sorted(named))


def _run(ended: Ended, decision: DecisionMade, execution: Execution) -> Iterator[Remedy]:
    """Each operation once."""
    found = execution.verification
    by_operation: dict[str, list[StepResult]] = {}
    for result in execution.results:
        by_operation.setdefault(result.operation, []).append(result)
    for operation, results in by_operation.items():
        made = any(r.made for r in results)
        if not made and not any(r.status == "dry_run" for r in results):
            continue  # skipped or failed before anything changed: it was not tried
        yield Remedy(
            operation=operation,
            params=results[0].params,
            title=execution.title,
            fate="run" if made else "rehearsed",
            verdict=_verdict(execution),
            credit=found.credit,
            helped=_helped(ended, execution, operation),
            plan_revision=decision.plan_revision,
            option=_number(execution.choice),
            at=decision.at,
        )


def _verdict(execution: Execution) -> Verdict:
    """Of what stopped half-way nobody knows whether it would have helped: only that it did harm is told."""
    measured = execution.verification.verdict
    stopped = any(r.status in ("failed", "unknown") for r in execution.results)
    return "not_measurable" if stopped and measured != "worse" else measured


def _rejected(ended: Ended, decision: DecisionMade, plan: Plan) -> Iterator[Remedy]:
    """Options that nobody chose."""
    for number, option in enumerate(plan.options, 1):
        if number == _number(decision.choice):
            continue
        for operation, params in _operations(option):
            yield Remedy(
                operation=operation,
                params=params,
                title=option.title,
                fate="rejected",
                helped=ended.opinions.helped_by(decision.plan_revision, number, operation, run=False),
                plan_revision=decision.plan_revision,
                option=number,
                at=decision.at,
            )


def _operations(option: ActionOption) -> Sequence[tuple[str, dict[str, Any]]]:
    return tuple({step.operation: step.params for step in option.steps}.items())
