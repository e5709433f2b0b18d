"""The service catalogue: which services there are, how they depend on each other, and what belongs to them.

Pure data; ``app/catalogue.py`` reads it from ``autopilot.yaml``.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from collectors.base import CalleeKind, Edge, KnownAs, Target
from executors.base import (
    AppConfigProfile,
    Automation,
    KubernetesDeployment,
    LambdaAlias,
    LangfusePrompt,
    Resource,
)
from graph.state import Language


class LoadBalancer(BaseModel):
    """The Application Load Balancer in front of a service."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    listener_rule_arn: str
    target_group_arn: str
    overflow_target_group_arn: str | None = None


class JiraProject(BaseModel):
    """Where a team's tickets go, and what they are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    project: str = Field(min_length=1, description="Its key, e.g. OPS")
    issue_type: str = "Bug"
    component: str = Field(default="", description="A component of that project")
    assignee: str = Field(default="", description="accountId of who gets them; empty: as the project says")


class Team(BaseModel):
    """People who own services, and where they are told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slack_channel: str = Field(default="", description="Its id, e.g. C024BE91L, or its name, e.g. #payments")
    jira: JiraProject | None = None
    pagerduty: str = Field(default="", description="The name of a key of AUTOPILOT_PAGERDUTY_ROUTING_KEYS")
    language: Language | None = Field(default=None, description="It is told in; unset: the incident's")
    next: str = Field(default="", description="The team that is told where nobody of this one decides")


class Service(KnownAs):
    """One service of the catalogue, with the names each source knows it under."""

    owner: str = Field(default="", description="Where teams are declared: one of them")
    tier: int = Field(default=3, ge=1, le=5, description="1 is the most critical")
    description: str = ""
    kind: CalleeKind = Field(default="", description="service, database, cache, queue or external")
    depends_on: tuple[str, ...] = Field(default=(), description="What it calls, and waits for")
    sends_to: tuple[str, ...] = Field(
        default=(), description="What it sends messages or events to; of a queue: what takes them from there"
    )
    resources: tuple[str, ...] = Field(
        default=(), description="CloudWatch dimensions, labels or tags of its alerts, e.g. QueueName:orders.fifo"
    )
    load_balancer: LoadBalancer | None = None
    min_tasks: int = Field(default=1, ge=0)
    max_tasks: int = Field(default=20, ge=1)
    lambda_alias: LambdaAlias | None = None
    max_concurrency: int = Field(default=1000, ge=1, description="Most reserved concurrency of its Lambda function")
    replication_group: str | None = Field(default=None, description="ElastiCache ReplicationGroupId")
    auto_scaling_group: str | None = None
    app_config: AppConfigProfile | None = None
    automations: tuple[Automation, ...] = Field(default=(), description="SSM documents that may be run for it")
    prompt: LangfusePrompt | None = None
    slo_percent: float | None = Field(default=None, gt=0, lt=100, description="Its availability objective, e.g. 99.9")

    @model_validator(mode="after")
    def _some_count_is_allowed(self) -> Self:
        if self.min_tasks > self.max_tasks:
            raise ValueError(f"min_tasks {self.min_tasks} is more than max_tasks {self.max_tasks}")
        return self


class Catalogue(BaseModel):
    """All services by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    environment: str = "production"
    services: Mapping[str, Service] = Field(default_factory=dict)
    teams: Mapping[str, Team] = Field(default_factory=dict)

    def owner(self, service: str) -> str:
        """The team, or whatever the catalogue names; empty: nobody knows."""
        return self.services[service].owner if service in self.services else ""

    def in_line(self, team: str) -> tuple[str, ...]:
        """Who is told after a team, where nobody decides: the next first."""
        line: list[str] = []
        while team in self.teams and (team := self.teams[team].next):
            line.append(team)
        return tuple(line)

    @property
    def owners(self) -> dict[str, str]:
        """The team of each service that has one."""
        return {name: service.owner for name, service in self.services.items() if service.owner}

    def edges(self) -> tuple[Edge, ...]:
        """Every declared dependency."""
        return tuple(
            Edge(
                caller=name,
                callee=callee,
                source="catalogue",
                asynchronous=callee not in service.depends_on,
                callee_kind=self.services.get(callee, Service()).kind,
            )
            for name, service in sorted(self.services.items())
            for callee in dict.fromkeys((*service.depends_on, *service.sends_to))
        )

    def neighbours(self, service: str, hops: int, edges: Sequence[Edge]) -> dict[str, int]:
        """The service (0) and those at most ``hops`` calls away, up or down, with their distance.

        Most relevant first: the nearer, then what it calls before what calls it, then the more critical.
        """
        calls: dict[str, set[str]] = {}
        either_way: dict[str, set[str]] = {}
        for edge in edges:
            calls.setdefault(edge.caller, set()).add(edge.callee)
            either_way.setdefault(edge.caller, set()).add(edge.callee)
            either_way.setdefault(edge.callee, set()).add(edge.caller)
        distance, below = _reach(service, hops, either_way), _reach(service, hops, calls)

        def relevance(name: str) -> tuple[int, bool, int, str]:
            return distance[name], name not in below, self.services.get(name, Service()).tier, name

        return {name: distance[name] for name in sorted(distance, key=relevance)}

    def target(self, name: str, hops: int) -> Target:
        """What collectors need to know of a service; one that is not listed is looked for by its name."""
        service = self.services.get(name, Service())
        balancer = service.load_balancer
        return Target(
            service=name,
            hops=hops,
            **{name: getattr(service, name) for name in KnownAs.model_fields},
            load_balancer=_dimension(balancer.listener_rule_arn, "listener-rule/", 3) if balancer else None,
            target_group=_dimension(balancer.target_group_arn, "targetgroup/", 2) if balancer else None,
        )

    def resources(self) -> dict[str, Resource]:
        """What may be changed, by service."""
        return {
            name: Resource(
                service=name,
                cluster=s.ecs.cluster if s.ecs else None,
                ecs_service=s.ecs.service if s.ecs else None,
                min_tasks=s.min_tasks,
                max_tasks=s.max_tasks,
                **(s.load_balancer.model_dump() if s.load_balancer else {}),
                lambda_alias=s.lambda_alias,
                max_concurrency=s.max_concurrency,
                db_instance=_only(s.aws.rds_instances),
                db_cluster=_only(s.aws.rds_clusters),
                replication_group=s.replication_group,
                auto_scaling_group=s.auto_scaling_group,
                app_config=s.app_config,
                automations=s.automations,
                kubernetes=KubernetesDeployment(namespace=s.kubernetes.namespace, deployment=s.kubernetes.workload)
                if s.kubernetes
                else None,
                prompt=s.prompt,
            )
            for name, s in self.services.items()
        }


def _only(names: tuple[str, ...]) -> str | None:
    """The one name; where a service has several, nobody says which is meant."""
    return names[0] if len(names) == 1 else None


def _reach(start: str, hops: int, adjacent: Mapping[str, set[str]]) -> dict[str, int]:
    distance, queue = {start: 0}, deque([start])
    while queue:
        here = queue.popleft()
        if distance[here] == hops:
            continue
        for name in sorted(adjacent.get(here, ())):
            if name not in distance:
                distance[name] = distance[here] + 1
                queue.append(name)
    return distance


def _dimension(arn: str, marker: str, parts: int) -> str | None:
    """The CloudWatch dimension inside an ELB ARN: ``app/shop/50dc6c`` or ``targetgroup/pay/6d0e``."""
    _, found, rest = arn.partition(marker)
    if not found:
        return None
    dimension = "/".join(rest.split("/")[:parts])
    return marker + dimension if marker == "targetgroup/" else dimension
