"""What the senders of several alerts at once have in common: Alertmanager's envelope, which Grafana shares, and more.

Rule engines on OpenTelemetry data come in this way too, so its names for service and environment are known here.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from pydantic import JsonValue

from app.intake.base import Directory, UnreadablePayload, believable, digest_key, indexable, iso_time, text_of
from graph.state import Alert, Severity

MAX_ALERTS = 1000  # per delivery: what one transaction can take
SERVICE_LABELS = ("service", "service_name", "service.name")
ENVIRONMENT_LABELS = (
    "environment",
    "env",
    "deployment_environment_name",
    "deployment.environment.name",
    "deployment_environment",
    "deployment.environment",
)
SEVERITY_LABELS = ("severity", "priority", "level")
# A service is most often called like these, the most telling first.
TELLING_LABELS = (
    "app.kubernetes.io/name",
    "app_kubernetes_io_name",
    "app",
    "deployment",
    "k8s.deployment.name",
    "k8s_deployment_name",
    "statefulset",
    "daemonset",
    "container",
    "job",
    "pod",
    "k8s.pod.name",
    "k8s_pod_name",
    "host",
    "host.name",
    "host_name",
    "instance",
)
# These say something of the alert, not of what it watches.
OF_THE_ALERT = frozenset(
    (
        *SERVICE_LABELS,
        *ENVIRONMENT_LABELS,
        *SEVERITY_LABELS,
        *("alertname", "rulename", "datasource_uid", "ref_id", "grafana_folder", "prometheus", "team"),
    )
)
# These say something of a thing, and name none: two hosts that share `/dev/sda1` share nothing.
OF_THE_THING = frozenset(
    (
        *("code", "condition", "container", "controller", "cpu", "device", "endpoint", "exported_job", "fstype"),
        *("handler", "image", "interface", "le", "method", "mode", "mountpoint", "owner", "path", "phase", "quantile"),
        *("reason", "replica", "resource", "route", "ruleId", "ruleSource", "slack_channel", "status", "status_code"),
        *("threshold.name", "type", "uid", "verb"),
    )
)
# Where these are the `service` or the `job`, the alert is about something else that they watch.
EXPORTER = re.compile(r"kube-state-metrics|[-_]exporter\b|^kubelet$|^cadvisor$")
ABOUT_A_RULE = ("DatasourceNoData", "DatasourceError")  # Grafana's own alerts; the rule is in `rulename`
SEVERITIES: Mapping[str, Severity] = {
    **dict.fromkeys(("critical", "crit", "page", "high", "error", "emergency", "fatal", "alert", "major"), "critical"),
    **dict.fromkeys(("disaster", "urgent", "sev0", "sev1", "sev2", "p0", "p1", "p2"), "critical"),
    **dict.fromkeys(("warning", "warn", "medium", "moderate", "average", "minor", "ticket", "sev3", "p3"), "warning"),
    **dict.fromkeys(("info", "information", "informational", "notice", "low", "none", "debug"), "info"),
    **dict.fromkeys(("sev4", "sev5", "p4", "p5"), "info"),
}
Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Member:
    """One alert of a group, with labels and annotations as text; a time is None where it is no time."""

    raw: Mapping[str, JsonValue]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    resolved: bool
    starts_at: datetime | None
    ends_at: datetime | None
    fingerprint: str

    @property
    def name(self) -> str:
        """Of the rule."""
        name = self.labels.get("alertname", "")
        return self.labels.get("rulename", name) if name in ABOUT_A_RULE else name


def members(payload: Mapping[str, JsonValue]) -> tuple[Member, ...] | None:
    """The alerts of the envelope; None where it has no such list."""
    alerts = payload.get("alerts")
    return tuple(_member(a if isinstance(a, dict) else {}) for a in alerts) if isinstance(alerts, list) else None


def _member(raw: Mapping[str, JsonValue]) -> Member:
    labels = _texts(raw.get("labels"))
    return Member(
        raw=raw,
        labels=labels,
        annotations=_texts(raw.get("annotations")),
        resolved=text_of(raw.get("status")).lower() == "resolved",
        starts_at=iso_time(raw.get("startsAt")),
        ends_at=iso_time(raw.get("endsAt")),
        fingerprint=text_of(raw.get("fingerprint")) or digest_key(json.dumps(labels, sort_keys=True)),
    )


def _texts(value: JsonValue) -> dict[str, str]:
    pairs = value.items() if isinstance(value, dict) else ()
    return {text_of(k): text for k, v in pairs if (text := text_of(v))}


def delivery_key(scope: str, payload: Mapping[str, JsonValue], group: Sequence[Member]) -> str | None:
    """The same for a repeat, and for the copy of a second Alertmanager; neither sends an id of its own for it.

    None where an alert has no time: two such groups look alike however far apart they are.
    """
    if not group or any(m.starts_at is None for m in group):
        return None
    said = sorted(f"{m.fingerprint} {m.starts_at} {m.ends_at if m.resolved else 'firing'}" for m in group)
    return f"{scope}:{digest_key(text_of(payload.get('groupKey')), *said)}"


def readable(things: Sequence[Thing], make: Callable[[Thing], Alert]) -> tuple[tuple[Alert, ...], str]:
    """An alert of each thing, and what to say of those left out, for ``Parsed.left_out``.

    Raises UnreadablePayload where not one can be read.
    """
    alerts, troubles = [], []
    for thing in things[:MAX_ALERTS]:
        try:
            alerts.append(make(thing))
        except UnreadablePayload as error:
            troubles.append(str(error))
    if troubles and not alerts:
        raise UnreadablePayload(troubles[0])
    left_out = []
    if troubles:
        left_out.append(f"{len(troubles)} of {len(things)} alerts left out: {troubles[0]}")
    if len(things) > MAX_ALERTS:
        left_out.append(f"only the first {MAX_ALERTS} of {len(things)} alerts were read; split the group")
    return tuple(alerts), "; ".join(left_out)


def alert_of(member: Member, source: str, scope: str, directory: Directory) -> Alert:
    """The alert as both senders mean it. ``scope`` leads its keys. Raises UnreadablePayload."""
    title = _first(member.annotations, ("summary", "title")) or member.name
    text = _text(member.annotations)
    fingerprint = f"{scope}:{indexable(member.fingerprint)}"
    return Alert(
        source=source,
        rule=indexable(f"{scope}:{member.name}") if member.name else "",
        title=title[:500] or "An alert without a name",
        severity=severity_of(_first(member.labels, SEVERITY_LABELS)),
        service=_service(member, directory, f"{title} {text}")[:200],
        environment=_first(member.labels, ENVIRONMENT_LABELS)[:200],
        resources=_resources(member.labels),
        occurred_at=believable((member.starts_at, member.ends_at)),
        changed_at=believable((member.ends_at if member.resolved else member.starts_at,)),
        fingerprint=fingerprint,
        cycle_key=f"{fingerprint}:{member.starts_at.isoformat() if member.starts_at else ''}",
        transition="resolved" if member.resolved else "firing",
        url=link((text_of(member.raw.get("generatorURL")), member.annotations.get("runbook_url", ""))),
        text=text[:4000],
    )


def severity_of(word: str) -> Severity:
    """Ours for what people call it; critical where it is none of these words."""
    return SEVERITIES.get(word.lower(), "critical")


def link(candidates: Iterable[str]) -> str | None:
    """The first that a browser may be sent to."""
    return next((c for c in candidates if c.startswith(("https://", "http://")) and len(c) <= 2000), None)


def _first(texts: Mapping[str, str], keys: Iterable[str]) -> str:
    return next((texts[k] for k in keys if k in texts), "")


def _text(annotations: Mapping[str, str]) -> str:
    """The description, then what else people wrote to the rule."""
    lines = [annotations[k] for k in ("description", "message") if k in annotations]
    rest = (k for k in sorted(annotations) if k not in ("summary", "title", "description", "message"))
    return "\n".join([*lines, *(f"{k}: {annotations[k]}" for k in rest if not k.startswith("__"))])


def _service(member: Member, directory: Directory, text: str) -> str:
    labels = member.labels
    # Named like its rule rather than like its zone; any label of the catalogue still comes before both.
    candidates = {**dict(_telling(labels)), "alertname": member.name, **_watched(labels)}
    named = _first(labels, SERVICE_LABELS)
    if EXPORTER.search(named) and named not in directory.catalogue.services:
        named = ""
    found = directory.service_for(named, candidates, f"{member.name} {text}")
    if not found:
        raise UnreadablePayload(
            "an alert names no service: give its rule a `service` label, or list one of its labels under `resources:`"
            " of the service in autopilot.yaml"
        )
    return found


def _telling(labels: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for key in TELLING_LABELS:
        if key == "job" and "/" in labels.get(key, ""):  # OpenTelemetry's: service.namespace/service.name
            yield "service.name", labels[key].rpartition("/")[2]
        if key in labels and not EXPORTER.search(labels[key]):
            yield key, labels[key]


def _watched(labels: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in sorted(labels.items()) if k not in OF_THE_ALERT and not k.startswith("__")}


def _resources(labels: Mapping[str, str]) -> dict[str, str]:
    watched = {k: v for k, v in _watched(labels).items() if k not in OF_THE_THING}
    if "kube-state-metrics" in labels.get("job", ""):  # its own address, on the alerts of all that it watches
        watched.pop("instance", None)
    ordered = {k: watched[k] for k in TELLING_LABELS if k in watched} | watched
    return {k[:100]: v[:200] for k, v in list(ordered.items())[:20]}
