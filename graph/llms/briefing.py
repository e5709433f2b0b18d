"""What a model gets to read: masked, fenced as data, and within a fixed number of tokens whatever the telemetry.

Each section has a share of the brief that it cannot exceed; what the small ones leave goes to the findings. Sizes are
in tokens, estimated by ``graph/llms/tokens.py``.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from pydantic import JsonValue

from collectors.base import Document, Gap
from executors.base import Resource
from graph.grounding import known_components
from graph.llms.base import AnalysisRequest, OperationOnMenu, PlanRequest, TrackRecord
from graph.llms.tokens import tokens
from graph.masking import Masker
from graph.memory import of_now
from graph.state import Alert, Claim, Evidence, Finding, ImpactFigure, PastIncident, RootCause, Suspect

_LONGEST_TEXT = 2_000  # characters looked at for secrets before a text is cut
_BROKEN_WORD = re.compile(r"\s\S*+\Z")  # where a text was cut; half a secret is no secret to the mask
_MOST_SHARED = 0.9  # of a brief that the small sections take together, however many there are
_FENCE_TOKENS = 16  # the two lines around a section
_HIDDEN = {"Cf", "Co", "Cs", "Cn"}  # categories of characters that a person does not see and a model may obey

_HAS: Mapping[str, str] = {
    "ecs_service": "ECS service",
    "kubernetes": "Kubernetes Deployment",
    "lambda_alias": "Lambda function",
    "auto_scaling_group": "Auto Scaling group",
    "listener_rule_arn": "load balancer",
    "overflow_target_group_arn": "overflow page",
    "db_instance": "DB instance",
    "db_cluster": "DB cluster",
    "replication_group": "cache",
    "app_config": "AppConfig",
    "prompt": "prompt",
}
"""What a service may have, by the catalogue's fields."""

Record = Mapping[str, JsonValue]
T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """A question that a model asked of the collectors, and what came of it."""

    question: str
    found: tuple[str, ...] = ()
    refused: str = ""


@dataclass(frozen=True)
class Rejected:
    """An answer that is sent back, and what is wrong with it."""

    answer: RootCause
    complaints: Sequence[str]


@dataclass(frozen=True)
class _Section(Generic[T]):
    """Items, one a line, and the share of the brief they may take; 0: what the others leave."""

    name: str
    items: Sequence[T]
    record: Callable[[T], Record]
    share: float


class Briefing:
    """Writes what a model reads of an incident."""

    def __init__(self, masker: Masker) -> None:
        self._mask = masker.mask

    def analysis(
        self,
        request: AnalysisRequest,
        evidence: Evidence,
        *,
        size: int,
        asked: Sequence[Asked] = (),
        rejected: Rejected | None = None,
    ) -> str:
        """The incident, for RootCauseAnalyzer, in at most ``size`` tokens. Raises MaskingError.

        ``evidence``: with what the model asked for; ``rejected``: its own answer, sent back.
        """
        new = {finding.id for finding in evidence.findings[len(request.evidence.findings) :]}
        # stable: what was asked for comes first
        findings = sorted(of_now(evidence).findings, key=lambda f: f.id not in new)
        metrics = request.reads.menu.metrics if request.reads else ()
        previous = [request.previous] if request.previous else []
        return self._brief(
            size,
            _Section("alert", [request.alert], self._alert, 0.12),
            _Section("components", sorted(known_components(request.scope, evidence)), self._component, 0.06),
            _Section("assessment", [evidence], self._assessment, 0.08),
            _Section("findings", findings, self._finding, 0.0),
            _Section("suspects", evidence.suspects, self._suspect, 0.14),
            _Section("gaps", evidence.gaps, self._gap, 0.05),
            _Section("past incidents", evidence.similar, self._past, 0.12),
            _Section("runbooks", evidence.documents, self._document, 0.09),
            _Section("hints", request.hints[::-1], self._hint, 0.05),
            _Section("previous analysis", previous, self._answer, 0.06),
            _Section("metrics you may read", metrics, lambda ref: self._metric(ref.component, ref.metric), 0.08),
            _Section("asked", asked, self._asked, 0.05),
            *(self._rejection(rejected) if rejected else ()),
        )

    def plan(self, request: PlanRequest, *, size: int, rejected: Sequence[str] = ()) -> str:
        """The incident and what may be done, for ActionPlanner, in at most ``size`` tokens. Raises MaskingError.

        ``rejected``: what is wrong with the options proposed before.
        """
        supported = [claim for claim in request.root_cause.claims if not claim.complaint]
        cited = [f for f in of_now(request.evidence).findings if any(f.id in claim.evidence for claim in supported)]
        others = [f for f in of_now(request.evidence).findings if f not in cited]
        record = sorted(request.track_record.items())
        return self._brief(
            size,
            _Section("alert", [request.alert], self._alert, 0.12),
            _Section("root cause", [request.root_cause], self._answer, 0.10),
            _Section("claims", supported, self._claim, 0.10),
            _Section("findings", [*cited, *others], self._finding, 0.0),
            _Section("runbooks", request.evidence.documents, self._document, 0.10),
            _Section("past incidents", request.evidence.similar, self._past, 0.12),
            _Section("menu", request.usable, self._entry, 0.2),
            _Section("resources", _nearest_first(request), partial(_resource, request.desired_tasks), 0.08),
            _Section("track record", record, _track_record, 0.05),
            _Section("hints", request.scope.hints[::-1], self._hint, 0.05),
            _Section("complaints", rejected, self._complaint, 0.12),
        )

    def _brief(self, size: int, *sections: _Section[Any]) -> str:
        """All sections; masked once more as a whole, so that nothing slips through between two fields."""
        shared = sum(s.share for s in sections if s.items)
        each = size * min(1.0, _MOST_SHARED / shared) if shared else 0.0
        fenced = {s.name: _fence(s.name, s.items, s.record, int(s.share * each)) for s in sections if s.share}
        left = size - sum(map(tokens, fenced.values())) - 2 * len(sections)
        fenced |= {s.name: _fence(s.name, s.items, s.record, left) for s in sections if not s.share}
        return self._mask("\n\n".join(text for s in sections if (text := fenced[s.name])))

    def _rejection(self, rejected: Rejected) -> tuple[_Section[Any], ...]:
        return (
            _Section("your answer", [rejected.answer], self._answer, 0.06),
            _Section("its claims", rejected.answer.claims, self._claim, 0.10),
            _Section("complaints", rejected.complaints, self._complaint, 0.12),
        )

    def _text(self, text: str, length: int) -> str:
        """Masked first, cut afterwards: half a secret is one that no mask recognises."""
        if len(text) > _LONGEST_TEXT:
            text = _BROKEN_WORD.sub("", text[:_LONGEST_TEXT])
        masked = " ".join(self._mask(_visible(text)).split())
        return masked if len(masked) <= length else masked[: length - 1] + "…"

    def _alert(self, alert: Alert) -> Record:
        return {
            "title": self._text(alert.title, 200),
            "service": self._text(alert.service, 80),
            "severity": alert.severity,
            "at": f"{alert.occurred_at:%Y-%m-%d %H:%M:%S}",
            "text": self._text(alert.text, 400),
        }

    def _component(self, name: str) -> Record:
        return {"name": self._text(name, 80)}

    def _hint(self, hint: str) -> Record:
        return {"hint": self._text(hint, 300)}

    def _finding(self, finding: Finding) -> Record:
        record: dict[str, JsonValue] = {
            "id": finding.id,
            "kind": finding.kind,
            "component": self._text(finding.component, 80),
            "signal": self._text(finding.signal, 120),
            "onset": f"{finding.at:%H:%M:%S}",
            "summary": self._text(finding.summary, 240),
        }
        if finding.excerpt and finding.excerpt not in finding.summary:
            record["excerpt"] = self._text(finding.excerpt, 200)
        return record

    def _assessment(self, evidence: Evidence) -> Record:
        assessed = evidence.assessment
        record: dict[str, JsonValue] = {}
        if assessed:
            record = {
                "state": assessed.state,
                "certainty of the first suspect": round(assessed.certainty, 2),
                "too unsure to name a cause": assessed.abstains,
                "why": self._text(assessed.why, 200),
            }
        if evidence.causes:
            record["explain it only together"] = [self._text(name, 80) for name in evidence.causes[:4]]
        record["impact"] = [self._impact(figure) for figure in evidence.impact[:4]]
        record["findings not listed"] = evidence.unlisted
        return record

    def _impact(self, figure: ImpactFigure) -> str:
        return self._text(f"{figure.name}: {figure.value:g} {figure.unit} {figure.window}", 120)

    def _suspect(self, suspect: Suspect) -> Record:
        return {
            "component": self._text(suspect.component, 80),
            "score": round(suspect.score, 2),
            "findings": list(suspect.findings[:8]),
            "path": [f"{self._text(hop.cause, 80)} -> {self._text(hop.effect, 80)}" for hop in suspect.path[:6]],
            "why": self._text(suspect.why, 160),
            "kind": suspect.kind,
            "only these instances": [self._text(name, 60) for name in suspect.instances[:3]],
            "change": suspect.change,
            "affects": [self._text(name, 80) for name in suspect.affected[:6]],
        }

    def _gap(self, gap: Gap) -> Record:
        return {"source": gap.source, "reason": gap.reason.value, "detail": self._text(gap.detail, 160)}

    def _document(self, document: Document) -> Record:
        return {
            "title": self._text(document.title, 60),
            "section": self._text(document.section, 80),
            "text": self._text(document.text, 400),
        }

    def _past(self, past: PastIncident) -> Record:
        return {
            "id": past.evidence,
            "incident": past.incident_id,
            "at": past.at,
            "alike": [self._text(reason, 60) for reason in past.reasons[:2]],
            "component": self._text(past.component, 80),
            "category": past.category,
            "title": self._text(past.title, 100),
            "a person called this analysis wrong": (past.wrong and not past.corrected) or None,
            "a person named this cause": past.corrected or None,
            "remedy": self._text(past.remedy, 160),
            "verdict": past.verdict,
            "helped": self._text(past.helped, 100),
        }

    def _metric(self, component: str, metric: str) -> Record:
        return {"component": self._text(component, 80), "metric": self._text(metric, 120)}

    def _asked(self, asked: Asked) -> Record:
        record: dict[str, JsonValue] = {"question": self._text(asked.question, 200)}
        if asked.refused:
            return {**record, "refused": self._text(asked.refused, 300)}
        return {**record, "found": list(asked.found)}

    def _complaint(self, complaint: str) -> Record:
        return {"complaint": self._text(complaint, 300)}

    def _answer(self, root_cause: RootCause) -> Record:
        return {
            "component": root_cause.component,
            "category": root_cause.category,
            "title": self._text(root_cause.title, 160),
            "mechanism": self._text(root_cause.mechanism, 500),
        }

    def _claim(self, claim: Claim) -> Record:
        return {"claim": self._text(claim.text, 300), "evidence": list(claim.evidence[:8])}

    def _entry(self, entry: OperationOnMenu) -> Record:
        return {
            "operation": entry.name,
            "summary": self._text(entry.summary, 160),
            "risk": entry.risk,
            "reversible": entry.reversible or None,
            "only looks": entry.read_only or None,
        }


def _fence(name: str, items: Sequence[T], record: Callable[[T], Record], size: int) -> str:
    """The items, one a line, as many as fit; an item cannot close the fence, for it holds no ``<``."""
    if not items:
        return ""
    lines: list[str] = []
    size -= _FENCE_TOKENS
    for item in items:
        told = _told(record(item))
        line = _line(told) if lines else _fitting(told, size)
        size -= tokens(line) + 1
        if size < 0:
            break
        lines.append(line)
    left_out = f' left_out="{len(items) - len(lines)}"' if len(lines) < len(items) else ""
    return "\n".join([f'<data name="{name}"{left_out}>', *lines, "</data>"])


def _line(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False).replace("<", "\\u003c").replace(">", "\\u003e")


def _fitting(record: Record, size: int) -> str:
    """Of a section something is shown, if only the beginnings of its first item's texts."""
    lines = (_line({k: v[:n] if isinstance(v, str) else v for k, v in record.items()}) for n in (None, 160, 80, 40, 20))
    return next((line for line in lines if tokens(line) < size), _line(record))


def _told(record: Record) -> Record:
    """Without what says nothing."""
    return {name: value for name, value in record.items() if value not in ("", None, [], {})}


def _visible(text: str) -> str:
    """Without characters that no person sees."""
    return "".join(c for c in text if unicodedata.category(c) not in _HIDDEN)


def _track_record(entry: tuple[str, TrackRecord]) -> Record:
    operation, record = entry
    counted = {"runs": record.runs, "resolved": record.resolved, "worse": record.worse}
    interval: list[JsonValue] = [round(record.low, 2), round(record.high, 2)]
    return {"operation": operation, **{n: round(c, 1) for n, c in counted.items()}, "resolves_90_percent": interval}


def _nearest_first(request: PlanRequest) -> list[Resource]:
    """The failing component's resource, the alerted service's, then the others; only what can be acted on."""
    order = [request.root_cause.component, request.scope.service]
    usable = {resource.service: resource for entry in request.menu for resource in request.possible_on(entry)}
    return sorted(usable.values(), key=lambda r: (order.index(r.service) if r.service in order else 2, r.service))


def _resource(desired_tasks: Mapping[str, int], resource: Resource) -> Record:
    prompt = resource.prompt
    return {
        "service": resource.service,
        "has": [name for field, name in _HAS.items() if getattr(resource, field)],
        "documents": [automation.document for automation in resource.automations],
        "models": list(prompt.models) if prompt else [],
        "min_tasks": resource.min_tasks,
        "max_tasks": resource.max_tasks,
        "desired_tasks": desired_tasks.get(resource.service),
    }
