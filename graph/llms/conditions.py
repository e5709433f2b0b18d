"""Whether what a remedy needs, or what speaks against it, is seen in the evidence. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from graph.llms.base import PlanRequest
from graph.llms.diagnosis import (
    BUCKET,
    CONTEXT,
    callers_of,
    first_error,
    is_configuration,
    is_deploy,
    kind_of,
    right_before,
    shows,
    surging,
)
from graph.llms.playbooks import CONDITIONS, Condition
from graph.state import Finding, Suspect

SHORTLY = timedelta(hours=1)
"""A roll-out takes minutes and its faults mostly show with the first requests; what fills up slowly takes longer, and
is asked for as ``deployed_before``."""
_STATEFUL = frozenset({"database", "cache"})


@dataclass(frozen=True)
class Circumstances:
    """What is known of the service that a remedy would act on, and of the component at fault."""

    request: PlanRequest
    service: str

    def hold(self, condition: Condition) -> bool:
        """Whether the condition holds, as far as anything shows it."""
        check = _CHECKS.get(condition)
        return (check is not None and check(self)) or self._signs_of(condition)

    def first_of(self, conditions: Iterable[Condition]) -> Condition | None:
        """The first of them that holds."""
        return next((condition for condition in conditions if self.hold(condition)), None)

    def _signs_of(self, condition: Condition) -> bool:
        known = CONDITIONS[condition]
        where = {self.service, self._component} if known.seen_on == "both" else {self.service}
        found = self.changed_right_before if known.in_changes else self.request.evidence.findings
        seen = [f for f in found if f.component in where]
        return any(shows(finding, sign) for finding in seen for sign in known.signs)

    @property
    def _component(self) -> str:
        return str(self.request.root_cause.component)

    @cached_property
    def changes(self) -> tuple[Finding, ...]:
        """Changes of the service that ranking or a claim that was not refuted connects with the trouble."""
        evidence, claims = self.request.evidence, self.request.root_cause.claims
        cited = {eid for suspect in evidence.suspects for eid in (*suspect.findings, suspect.change)}
        cited.update(eid for claim in claims if not claim.complaint for eid in claim.evidence)
        return tuple(f for f in self._changes_seen if f.id in cited)

    @cached_property
    def changed_right_before(self) -> tuple[Finding, ...]:
        """What changed of the service right before the component at fault was in trouble, the latest first."""
        return tuple(right_before(self._changes_seen, self._onset, first_error(self._own)))

    @property
    def _changes_seen(self) -> Iterator[Finding]:
        return (f for f in self.request.evidence.findings if f.kind == "change" and f.component == self.service)

    @property
    def _onset(self) -> datetime | None:
        """When anything of the component at fault began to depart from normal."""
        return min((f.at for f in self._own), default=None)

    @property
    def _own(self) -> list[Finding]:
        """The trouble seen in the component at fault."""
        findings = self.request.evidence.findings
        return [f for f in findings if f.component == self._component and f.kind not in CONTEXT]

    def deployed_right_before(self) -> bool:
        """A deployment came within minutes before the trouble."""
        return any(is_deploy(change) for change in self.changed_right_before)

    def callers_changed(self) -> bool:
        """Something that calls it changed within minutes before the trouble."""
        callers = callers_of(self.service, self.request.evidence)
        return any(Circumstances(self.request, caller).changed_right_before for caller in callers)

    def runs_as_function(self) -> bool:
        """It is a Lambda function, as the catalogue has it."""
        return any(r.service == self.service and r.lambda_alias is not None for r in self.request.resources)

    def deployed_before(self) -> bool:
        """A deployment may have brought the trouble."""
        return any(is_deploy(change) for change in self.changes)

    def deployed_shortly_before(self) -> bool:
        """A deployment came within an hour before the trouble; within none if nothing tells when that began."""
        onset = self._onset
        deploys = [change for change in self.changes if is_deploy(change)]
        return onset is not None and any(d.at - BUCKET <= onset <= d.at + SHORTLY for d in deploys)

    def configured(self) -> bool:
        """A setting or flag changed beside the deployments."""
        return any(is_configuration(change) for change in self.changes)

    def surge(self) -> bool:
        """Far more requests come than usual, wherever that is seen."""
        return surging(self.request.evidence) is not None

    def holds_data(self) -> bool:
        """It is a database or a cache."""
        suspects = self.request.evidence.suspects
        named = next((s for s in suspects if s.component == self.service), None)
        return kind_of(named or Suspect(component=self.service, score=0.0, findings=())) in _STATEFUL

    def waits_for_other(self) -> bool:
        """Something that it calls is suspected too."""
        suspected = {s.component for s in self.request.evidence.suspects if s.findings} - {self.service}
        return not suspected.isdisjoint(self._callees())

    def one_instance(self) -> bool:
        """Of the service, only one pod, task or host is in trouble."""
        return any(s.component == self.service and len(s.instances) == 1 for s in self.request.evidence.suspects)

    def _callees(self) -> Iterator[str]:
        yield from (edge.callee for edge in self.request.evidence.edges if edge.caller == self.service)


_CHECKS: Mapping[Condition, Callable[[Circumstances], bool]] = {
    "deployed_right_before": Circumstances.deployed_right_before,
    "deployed_before": Circumstances.deployed_before,
    "deployed_shortly_before": Circumstances.deployed_shortly_before,
    "configured": Circumstances.configured,
    "callers_changed": Circumstances.callers_changed,
    "surge": Circumstances.surge,
    "holds_data": Circumstances.holds_data,
    "waits_for_other": Circumstances.waits_for_other,
    "one_instance": Circumstances.one_instance,
    "runs_as_function": Circumstances.runs_as_function,
}
