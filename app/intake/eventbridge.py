"""EventBridge's API destinations: CloudWatch alarms, and what changed in AWS: deployments, tasks, its own health."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from app.catalogue import AutopilotYaml
from app.clock import Clock
from app.intake._alarms import Node, alert_of, from_event, items, node, text
from app.intake.base import (
    TOKEN_HEADER,
    Directory,
    Incoming,
    Parsed,
    Secrets,
    Sender,
    SenderSettings,
    UnreadablePayload,
    believable,
    indexable,
    iso_time,
    json_object,
    require_token,
    text_of,
)
from collectors.base import Change

NAME = "eventbridge"
API_KEY_HEADER = "x-api-key"
ECS_SERVICE = re.compile(r"arn:[\w-]+:ecs:[\w-]*:\d*:service/(?:(?P<cluster>[^/]+)/)?(?P<service>[^/]+)")
AFFECTED = 20  # entities of one AWS Health event
# a task that its service stopped is no news, unless it was stopped for being ill
ENDED_BADLY = {"TaskFailedToStart", "EssentialContainerExited", "SpotInterruption", "TerminationNotice"}
ILL = re.compile(r"failed|unhealthy|error", re.IGNORECASE)


class Settings(SenderSettings):
    """``AUTOPILOT_EVENTBRIDGE_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="AUTOPILOT_EVENTBRIDGE_")

    api_keys: Secrets = Field(
        default=(),
        description="Values accepted in X-Api-Key, X-AIOps-Token or as Basic password; two while you rotate",
    )


def create(clock: Clock, config: AutopilotYaml) -> "EventBridge":
    """The sender."""
    return EventBridge(Settings())


class EventBridge(Sender):
    """``app.intake.base.Sender``. EventBridge signs nothing: the connection's API key is all there is."""

    name = NAME

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    async def verify(self, incoming: Incoming) -> None:
        """See app.intake.base.Sender."""
        headers = incoming.headers
        if key := headers.get(API_KEY_HEADER):
            headers = {**headers, TOKEN_HEADER: key}
        require_token(headers, self.settings.api_keys, "AUTOPILOT_EVENTBRIDGE_API_KEYS")

    def parse(self, incoming: Incoming, directory: Directory) -> Parsed:
        """See app.intake.base.Sender."""
        event = json_object(incoming.body)
        kind = (text_of(event.get("source")), text_of(event.get("detail-type")))
        if not all(kind):
            raise UnreadablePayload("this is no EventBridge event: send the matched event, without input transformer")
        read = _READERS.get(kind)
        parsed = read(event, directory) if read else Parsed(note=f"stored; not used: {kind[1][:200]}")
        event_id = text_of(event.get("id"))
        return replace(parsed, delivery_key=indexable(f"{NAME}:{event_id}") if event_id else None)


def _alarm(event: Node, directory: Directory) -> Parsed:
    alert = alert_of(from_event(event), directory)
    by = text(node(_detail(event).get("state")), "actionsSuppressedBy")
    if by and alert.transition == "firing":  # a recovery is one all the same
        return Parsed(note=f"stored; not used: the alarm's actions are suppressed by {by[:100]}")
    return Parsed(alerts=(alert,))


# --- what AWS changed ---


def _deployment(event: Node, directory: Directory) -> Parsed:
    detail = _detail(event)
    change = Change(
        component=_ecs_service(event, directory),
        at=_at(event, detail.get("updatedAt")),
        kind="deploy",
        title=_title(f"ECS {_words(detail)}", text(detail, "reason")),
        version=text(detail, "deploymentId")[:200],
    )
    return Parsed(changes=(change,))


def _service_action(event: Node, directory: Directory) -> Parsed:
    detail = _detail(event)
    name = text(detail, "eventName")
    if name.endswith("STEADY_STATE"):
        return Parsed(note=f"nothing changed: {_words(detail)}")
    count = text(detail, "desiredCount")
    change = Change(
        component=_ecs_service(event, directory),
        at=_at(event, detail.get("createdAt")),
        kind="scaling" if "DESIRED_COUNT" in name else "other",
        title=_title(f"ECS {_words(detail)}", text(detail, "reason") or (f"{count} tasks" if count else "")),
    )
    return Parsed(changes=(change,))


def _task(event: Node, directory: Directory) -> Parsed:
    detail = _detail(event)
    code, reason = text(detail, "stopCode"), text(detail, "stoppedReason")
    if text(detail, "lastStatus") != "STOPPED" or not (code in ENDED_BADLY or ILL.search(reason)):
        return Parsed(note="stored; not used: an ordinary task of ECS")
    change = Change(
        component=_task_component(detail, directory),
        at=_at(event, detail.get("stoppedAt")),
        kind="other",
        title=_title("ECS task stopped", "; ".join((reason or code, *_exits(detail)))),
        version=_last_part(text(detail, "taskDefinitionArn"))[:200],
    )
    return Parsed(changes=(change,))


def _task_component(detail: Node, directory: Directory) -> str:
    """Of the service that started the task; a task on its own goes by its task definition."""
    _, of_service, service = text(detail, "group").partition("service:")
    family = _last_part(text(detail, "taskDefinitionArn")).partition(":")[0]
    name, cluster = service if of_service else family, _last_part(text(detail, "clusterArn"))
    return _component(directory, {"ServiceName": name, "ClusterName": cluster})


def _exits(detail: Node) -> Iterator[str]:
    for container in map(node, items(detail.get("containers"))[:10]):
        said = text(container, "reason")
        code = text(container, "exitCode")
        if said or code not in ("", "0"):
            yield f"{text(container, 'name')} exited with {code or 'no code'} {said}".strip()


def _codedeploy(event: Node, directory: Directory) -> Parsed:
    detail = _detail(event)
    names = {"application": text(detail, "application"), "deploymentGroup": text(detail, "deploymentGroup")}
    deployment = text(detail, "deploymentId")
    change = Change(
        component=_component(directory, names),
        at=_at(event),
        kind="deploy",
        title=_title(f"CodeDeploy {deployment} {text(detail, 'state').lower()}", " / ".join(names.values())),
        version=deployment[:200],
    )
    return Parsed(changes=(change,))


def _health(event: Node, directory: Directory) -> Parsed:
    """One change for each component that AWS says is affected."""
    detail = _detail(event)
    said = next((text(node(d), "latestDescription") for d in items(detail.get("eventDescription"))), "")
    affected = {_component(directory, _entity(e)) for e in map(node, items(detail.get("affectedEntities"))[:AFFECTED])}
    affected.discard(UNKNOWN)
    make = partial(
        Change,
        at=_at(event, _rfc_time(detail.get("startTime"))),
        kind="other",
        title=_title(f"AWS Health {text(detail, 'service')} {text(detail, 'eventTypeCode')}", said),
    )
    components = sorted(affected) or [_component(directory, {"aws.service": text(detail, "service")})]
    return Parsed(changes=tuple(make(component=component) for component in components))


def _entity(entity: Node) -> dict[str, str]:
    """What it is called, and its tags."""
    tags = {text_of(k)[:100]: text_of(v)[:200] for k, v in list(node(entity.get("tags")).items())[:20]}
    value = text(entity, "entityValue")
    service = ECS_SERVICE.fullmatch(value)
    named = {"ServiceName": service["service"], "ClusterName": service["cluster"] or ""} if service else {}
    return {**named, "entity": value, **tags}


_READERS: Mapping[tuple[str, str], Callable[[Node, Directory], Parsed]] = {
    ("aws.cloudwatch", "CloudWatch Alarm State Change"): _alarm,
    ("aws.ecs", "ECS Deployment State Change"): _deployment,
    ("aws.ecs", "ECS Service Action"): _service_action,
    ("aws.ecs", "ECS Task State Change"): _task,
    ("aws.codedeploy", "CodeDeploy Deployment State-change Notification"): _codedeploy,
    ("aws.health", "AWS Health Event"): _health,
}


# --- parts of an event ---

UNKNOWN = "unknown"


def _detail(event: Node) -> Node:
    return node(event.get("detail"))


def _ecs_service(event: Node, directory: Directory) -> str:
    arns = [text_of(arn) for arn in items(event.get("resources"))]
    found = next(filter(None, map(ECS_SERVICE.fullmatch, arns)), None)
    if found is None:
        return _component(directory, {"resource": next(iter(arns), "")})
    return _component(directory, {"ServiceName": found["service"], "ClusterName": found["cluster"] or ""})


def _component(directory: Directory, names: Mapping[str, str]) -> str:
    """The service of the catalogue, else what AWS calls it."""
    return directory.service_for("", names)[:200] or UNKNOWN


def _at(event: Node, moment: object = None) -> datetime:
    """``moment`` is a time, or one in ISO 8601."""
    own = moment if isinstance(moment, datetime) else iso_time(moment)
    return believable((own, iso_time(event.get("time"))))


def _rfc_time(value: object) -> datetime | None:
    """AWS Health writes ``Sat, 05 Jun 2016 15:10:09 GMT``."""
    try:
        return parsedate_to_datetime(text_of(value)).replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _words(detail: Node) -> str:
    """``SERVICE_DEPLOYMENT_FAILED`` as «service deployment failed»."""
    return text(detail, "eventName").lower().replace("_", " ")[:100]


def _title(what: str, why: str) -> str:
    return (f"{what}: {why}" if why else what)[:500]


def _last_part(arn: str) -> str:
    return arn.rpartition("/")[2]
