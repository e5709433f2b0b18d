"""What a model gets to read: masked, fenced as data, and bounded whatever the telemetry.

Sizes are in bytes of UTF-8, about four to a token; a whole brief stays below 20,000, some 5,000 tokens.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from pydantic import JsonValue

from collectors.base import Document, Gap
from executors.base import Resource
from graph.grounding import known_components
from graph.llms.base import AnalysisRequest, OperationOnMenu, PlanRequest
from graph.masking import Masker
from graph.state import Alert, Claim, Finding, RootCause, Suspect

_LONGEST_TEXT = 2_000  # characters looked at for secrets before a text is cut
_BROKEN_WORD = re.compile(r"\s\S*+\Z")  # where a text was cut; half a secret is no secret to the mask

Record = Mapping[str, JsonValue]
T = TypeVar("T")


class Briefing:
    """Writes what a model reads of an incident."""

    def __init__(self, masker: Masker) -> None:
        self._mask = masker.mask

    def analysis(self, request: AnalysisRequest) -> str:
        """The incident, for RootCauseAnalyzer. Raises MaskingError."""
        evidence = request.evidence
        components = sorted(known_components(request.scope, evidence))
        previous = [request.previous] if request.previous else []
        return self._brief(
            _fence("alert", [request.alert], self._alert, 3_000),
            _fence("components", components, self._component, 1_500),
            _fence("findings", evidence.findings, self._finding, 7_800),
            _fence("suspects", evidence.suspects, self._suspect, 2_500),
            _fence("gaps", evidence.gaps, self._gap, 1_200),
            _fence("runbooks", evidence.documents, self._document, 1_700),
            _fence("hints", request.hints[::-1], self._hint, 1_000),
            _fence("previous analysis", previous, self._answer, 800),
        )

    def plan(self, request: PlanRequest) -> str:
        """The incident and what may be done, for ActionPlanner. Raises MaskingError."""
        supported = [claim for claim in request.root_cause.claims if not claim.complaint]
        return self._brief(
            _fence("alert", [request.alert], self._alert, 3_000),
            _fence("root cause", [request.root_cause], self._answer, 2_500),
            _fence("claims", supported, self._claim, 1_500),
            _fence("findings", request.evidence.findings, self._finding, 3_300),
            _fence("runbooks", request.evidence.documents, self._document, 1_700),
            _fence("menu", request.menu, self._entry, 5_000),
            _fence("resources", _nearest_first(request), partial(_resource, request.desired_tasks), 1_500),
            _fence("hints", request.scope.hints[::-1], self._hint, 1_000),
        )

    def _brief(self, *sections: str) -> str:
        """All sections; masked once more as a whole, so that nothing slips through between two fields."""
        return self._mask("\n\n".join(section for section in sections if section))

    def _text(self, text: str, length: int) -> str:
        """Masked first, cut afterwards: half a secret is one that no mask recognises."""
        if len(text) > _LONGEST_TEXT:
            text = _BROKEN_WORD.sub("", text[:_LONGEST_TEXT])
        masked = self._mask(text)
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

    def _suspect(self, suspect: Suspect) -> Record:
        return {
            "component": self._text(suspect.component, 80),
            "score": round(suspect.score, 2),
            "findings": list(suspect.findings[:8]),
            "path": [f"{self._text(hop.cause, 80)} -> {self._text(hop.effect, 80)}" for hop in suspect.path[:6]],
            "why": self._text(suspect.why, 160),
        }

    def _gap(self, gap: Gap) -> Record:
        return {"source": gap.source, "reason": gap.reason.value, "detail": self._text(gap.detail, 160)}

    def _document(self, document: Document) -> Record:
        return {
            "title": self._text(document.title, 60),
            "section": self._text(document.section, 80),
            "text": self._text(document.text, 400),
        }

    def _answer(self, root_cause: RootCause) -> Record:
        return {
            "component": root_cause.component,
            "category": root_cause.category,
            "title": self._text(root_cause.title, 160),
            "mechanism": self._text(root_cause.mechanism, 500),
        }

    def _claim(self, claim: Claim) -> Record:
        return {"claim": self._text(claim.text, 200), "evidence": list(claim.evidence)}

    def _entry(self, entry: OperationOnMenu) -> Record:
        properties: dict[str, JsonValue] = entry.params.model_json_schema().get("properties", {})
        return {
            "operation": entry.name,
            "summary": self._text(entry.summary, 160),
            "risk": entry.risk,
            "reversible": entry.reversible,
            "read_only": entry.read_only,
            "params": {
                name: {key: value for key, value in schema.items() if key != "title"}
                for name, schema in properties.items()
                if isinstance(schema, dict)
            },
        }


def _fence(name: str, items: Sequence[T], record: Callable[[T], Record], size: int) -> str:
    """The items, one a line, as many as fit; an item cannot close the fence, for it holds no ``<``."""
    if not items:
        return ""
    lines: list[str] = []
    for item in items:
        line = json.dumps(record(item), ensure_ascii=False).replace("<", "\\u003c").replace(">", "\\u003e")
        size -= len(line.encode()) + 1
        if size < 0:
            break
        lines.append(line)
    left_out = f' left_out="{len(items) - len(lines)}"' if len(lines) < len(items) else ""
    return "\n".join([f'<data name="{name}"{left_out}>', *lines, "</data>"])


def _nearest_first(request: PlanRequest) -> list[Resource]:
    """The failing component's resource, the alerted service's, then the others."""
    order = [request.root_cause.component, request.scope.service]
    return sorted(request.resources, key=lambda r: (order.index(r.service) if r.service in order else 2, r.service))


def _resource(desired_tasks: Mapping[str, int], resource: Resource) -> Record:
    return {
        "service": resource.service,
        "ecs": bool(resource.cluster and resource.ecs_service),
        "traffic": bool(resource.listener_rule_arn and resource.overflow_target_group_arn),
        "min_tasks": resource.min_tasks,
        "max_tasks": resource.max_tasks,
        "desired_tasks": desired_tasks.get(resource.service),
    }
