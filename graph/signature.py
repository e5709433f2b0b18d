"""What an incident is recognised by: the names of what was seen, without the numbers. Pure."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from pydantic import Field

from collectors.base import template
from graph.memory import is_memory
from graph.state import Alert, Evidence, Finding, Model, RootCause, storable

MAX_SUSPECTS = 3  # of whom one may be the cause, while nobody knows it
MAX_FINDINGS = 16  # the most informative ones
MAX_EACH = 16  # of one kind of term
MAX_TERM = 160  # characters
_ERROR = re.compile(r"(?<![\w$])(?:[A-Za-z_$][\w$]*\.)*([A-Z][\w$]*(?:Exception|Error|Throwable|Failure|Fault))\b")
_FAILED = re.compile(r"\bfailed with ([\w.$:-]{2,120})")
_CHANGE = re.compile(r": (deploy|configuration|scaling|feature_flag|other) “")


class Signature(Model):
    """Each a set of names in the order of weight; empty: not known."""

    services: tuple[str, ...] = Field(default=(), description="That were alerted on")
    components: tuple[str, ...] = Field(default=(), description="At fault; while nobody knows it, who is suspected")
    categories: tuple[str, ...] = Field(default=(), description="Of the cause, as in graph/playbooks")
    finding_kinds: tuple[str, ...] = Field(default=(), description="What departed: metric latency_p<*>_ms")
    symptoms: tuple[str, ...] = Field(default=(), description="And where: payment-service metric latency_p<*>_ms")
    templates: tuple[str, ...] = Field(default=(), description="Log lines with their parameters masked")
    error_types: tuple[str, ...] = Field(default=(), description="Exceptions and the like, without their packages")
    change_kinds: tuple[str, ...] = Field(default=(), description="Deployments and the like at suspects: deploy")
    alerts: tuple[str, ...] = Field(default=(), description="Fingerprints: rule and resource, the same each time")
    rules: tuple[str, ...] = Field(default=(), description="Of the alert, whatever it watches")

    def terms(self) -> tuple[str, ...]:
        """What it is looked up by: ``component:payment-service``, ``error:pooltimeout``, …; each once."""
        return tuple(
            dict.fromkeys(
                f"{prefix}:{_bounded(name).casefold()}"
                for field, prefix in PREFIXES.items()
                for name in getattr(self, field)
                if name
            )
        )


PREFIXES: Mapping[str, str] = {
    "alerts": "alert",
    "rules": "rule",
    "components": "component",
    "services": "service",
    "categories": "category",
    "error_types": "error",
    "templates": "log",
    "symptoms": "symptom",
    "finding_kinds": "finding",
    "change_kinds": "change",
}
"""By field of a signature what its terms begin with."""


def signature_of(alert: Alert, evidence: Evidence | None, root_cause: RootCause | None = None) -> Signature:
    """Of an incident as far as it is known; what memory said of it is no part of it."""
    found = [f for f in evidence.findings if not is_memory(f)][:MAX_FINDINGS] if evidence else []
    cause = root_cause.component if root_cause else None
    suspects = (cause,) if cause else suspected(evidence)
    logs = [f for f in found if f.kind == "log"]
    return Signature(
        services=_names([alert.service]),
        components=_names(suspects),
        categories=_names([root_cause.category] if root_cause and root_cause.category != "unknown" else []),
        finding_kinds=_names(f"{f.kind} {template(f.signal)}" for f in found if f.kind not in ("log", "change")),
        symptoms=_names(f"{f.component} {_kind(f)}" for f in found if f.kind != "change"),
        templates=_names(template(f.signal) for f in logs),
        error_types=_names(_each(found, _errors)),
        change_kinds=_names(_each([f for f in found if f.component in suspects], _changes)),
        alerts=_names([alert.fingerprint]),
        rules=_names([alert.rule]),
    )


def suspected(evidence: Evidence | None) -> tuple[str, ...]:
    """The first suspects, each once."""
    names = dict.fromkeys(s.component for s in evidence.suspects) if evidence else {}
    return tuple(names)[:MAX_SUSPECTS]


def _kind(finding: Finding) -> str:
    """A log line's template is a term of its own."""
    return finding.kind if finding.kind == "log" else f"{finding.kind} {template(finding.signal)}"


def _each(findings: Sequence[Finding], told: Callable[[Finding], Iterator[str]]) -> Iterator[str]:
    return (name for finding in findings for name in told(finding))


def _errors(finding: Finding) -> Iterator[str]:
    if finding.kind in ("log", "trace"):
        yield from _ERROR.findall(f"{finding.signal}\n{finding.excerpt}")
        yield from (name.rpartition(".")[2] for name in _FAILED.findall(finding.summary))


def _changes(finding: Finding) -> Iterator[str]:
    if finding.kind == "change":
        yield from _CHANGE.findall(finding.summary)


def _names(names: Iterable[str]) -> tuple[str, ...]:
    """Without what Postgres cannot store, bounded, each once."""
    return tuple(dict.fromkeys(filter(None, map(_bounded, names))))[:MAX_EACH]


def _bounded(name: str) -> str:
    return " ".join(str(storable(name))[: 4 * MAX_TERM].split())[:MAX_TERM]
