"""Makes a replica of an ElastiCache replication group its primary, and reboots its nodes.

A replica is promoted by ModifyReplicationGroup, which AWS takes only while automatic failover is off and cluster mode
is disabled. With automatic failover on, AWS itself replaces a failed primary; the only way to force that is
TestFailover, which AWS made for tests, not for recovery, limits to 15 shards a day, and may block: it is called only
where the step says so in as many words.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from executors._aws import Api, AwsSettings, Connection, settled
from executors._aws_service import AwsExecutor, AwsOperation, S, ServiceParams
from executors.base import (
    Capacity,
    Change,
    Clock,
    Executor,
    Grant,
    Model,
    Outcome,
    PreflightCheck,
    Probe,
    Refused,
    Resource,
    State,
)

if TYPE_CHECKING:
    from mypy_boto3_elasticache import ElastiCacheClient
    from mypy_boto3_elasticache.literals import SourceTypeType
    from mypy_boto3_elasticache.type_defs import EventTypeDef, ReplicationGroupTypeDef

AWS = Api(iam_prefix="elasticache")
READS = (
    "elasticache:DescribeReplicationGroups",
    "elasticache:DescribeCacheClusters",
    "elasticache:DescribeEvents",
)
DEADLINE_S = 15 * 60.0
KEPT_MINUTES = 14 * 24 * 60  # so long ElastiCache keeps events


class Settings(AwsSettings):
    """How to reach ElastiCache."""

    model_config = SettingsConfigDict(
        env_prefix="AUTOPILOT_ELASTICACHE_", env_file=".env", env_ignore_empty=True, extra="ignore"
    )


# --- parameters ---------------------------------------------------------------------------------------------


class FailoverParams(ServiceParams):
    """One service whose cache gets another primary."""

    shard: str = Field(default="0001", pattern=r"^[0-9]{1,4}$", description="NodeGroupId; 0001 without cluster mode")
    replica: str | None = Field(
        default=None, min_length=1, description="CacheClusterId to promote; none: the first replica, or AWS chooses"
    )
    by_test_failover: bool = Field(
        default=False,
        description="Call TestFailover where automatic failover is on: AWS made it for tests and may block it",
    )


class RebootParams(ServiceParams):
    """One service and the node of its cache to reboot."""

    node: str = Field(min_length=1, description="CacheClusterId, a member of the service's replication group")


# --- what was read ------------------------------------------------------------------------------------------


class Shard(Model):
    """The nodes of one shard, by CacheClusterId. AWS tells roles only without cluster mode."""

    primary: str | None
    nodes: tuple[str, ...]


class GroupState(Model):
    """A replication group as DescribeReplicationGroups has it."""

    name: str
    arn: str
    status: str
    cluster_mode: bool
    automatic_failover: str
    shards: dict[str, Shard]
    promoting: str | None = Field(description="The node that is to be primary, while that is not done")
    last_event_at: datetime | None = Field(description="Of the newest event; what is newer came after the reading")


class NodeState(Model):
    """A node of a replication group as DescribeCacheClusters has it."""

    name: str
    arn: str
    group: str
    status: str
    cluster_mode: bool
    primary: bool
    others: int = Field(description="Other nodes of the group")
    node_ids: tuple[str, ...]
    last_event_at: datetime | None = Field(description="Of the newest event; what is newer came after the reading")


# --- operations ---------------------------------------------------------------------------------------------


class CacheOperation(AwsOperation[S, "ElastiCacheClient"]):
    """What the operations on a replication group have in common."""

    needs = "replication_group"

    def target(self, resource: Resource) -> object:
        """A replication group."""
        return resource.replication_group

    def group(self, service: str) -> str:
        """The group's ReplicationGroupId. Raises Refused."""
        return str(self.entry(service).replication_group)

    def resource(self, params: S) -> str:
        """``elasticache:<ReplicationGroupId>``: also for one node, whose reboot changes what the group serves."""
        return f"elasticache:{self.group(params.service)}"

    async def read(self, service: str) -> GroupState:
        """The replication group as it is now. Raises ExecutorError."""
        answer = await AWS.read(
            self.connection.reader.describe_replication_groups, ReplicationGroupId=self.group(service)
        )
        return _group(answer["ReplicationGroups"][0])

    async def events(self, name: str, kind: "SourceTypeType", since: datetime | None) -> list["EventTypeDef"]:
        """What ElastiCache wrote of this group or node after ``since``; without it, all of 14 days."""
        reader = self.connection.reader

        def describe_events() -> "list[EventTypeDef]":
            pages = reader.get_paginator("describe_events").paginate(
                SourceIdentifier=name, SourceType=kind, Duration=KEPT_MINUTES
            )
            events: list[EventTypeDef] = pages.build_full_result()["Events"]
            return events

        found = await AWS.read(describe_events)
        return [event for event in found if since is None or event["Date"] > since]


class FailoverCache(CacheOperation[FailoverParams]):
    """Gives a shard another primary."""

    name = "failover_cache"
    summary = "Promote a replica of an ElastiCache replication group; writes of the last moments may be lost"
    risk = "high"
    minutes = 5.0
    permissions = (*READS, "elasticache:ModifyReplicationGroup", "elasticache:TestFailover")
    params = FailoverParams

    async def concrete(self, params: FailoverParams) -> FailoverParams:
        """With the replica that would be promoted, where no other is named and AWS does not choose."""
        if params.replica or params.by_test_failover:
            return params
        shard = self._shard(params, await self.read(params.service))
        return params.model_copy(update={"replica": next(iter(_replicas(shard)), None)})

    async def inspect(self, params: FailoverParams) -> State:
        """The group, and when it last had an event."""
        group = await self.read(params.service)
        events = await self.events(group.name, "replication-group", None)
        return group.model_copy(update={"last_event_at": _newest(events)}).model_dump(mode="json")

    def pinned(self, params: FailoverParams, before: State) -> State:
        """Who is primary, which nodes there are, and whether AWS fails over by itself."""
        state = GroupState.model_validate(before)
        shard = self._shard(params, state)
        return {
            "primary": shard.primary,
            "nodes": [*sorted(shard.nodes)],
            "automatic failover": state.automatic_failover,
        }

    def preview(self, params: FailoverParams, before: State) -> str:
        """From which primary to which, and by which call."""
        state = GroupState.model_validate(before)
        after = self._next(params, state)
        how = "by TestFailover, which AWS may block" if params.by_test_failover else "by promoting it"
        return (
            f"{params.service}: primary of {state.name}/{params.shard} {self._shard(params, state).primary or 'as is'}"
            f" -> {after}, {how}: writes fail for a moment, and what was not replicated yet is lost; cannot be undone"
        )

    def changes(self, params: FailoverParams, before: State) -> tuple[Change, ...]:
        """The primary, and writes that are not replicated."""
        state = GroupState.model_validate(before)
        after, shard = self._next(params, state), self._shard(params, state)
        return (
            Change(what=f"primary of {state.name}/{params.shard}", before=shard.primary or "not told", after=after),
            Change(what="writes that are not replicated yet", before="kept by the primary", after="lost"),
        )

    async def looked(self, params: FailoverParams, before: State) -> tuple[PreflightCheck, ...]:
        """AWS's limit on TestFailover."""
        if not params.by_test_failover:
            return ()
        told = "TestFailover takes 15 shards in 24 hours, and AWS may block it during a large event of its own"
        return (PreflightCheck(name="quota", status="warning", detail=told),)

    def grants(self, params: FailoverParams, before: State) -> tuple[Grant, ...]:
        """The one call, on this group."""
        call = "TestFailover" if params.by_test_failover else "ModifyReplicationGroup"
        arn = GroupState.model_validate(before).arn
        return (Grant(actions=(f"elasticache:{call}",), resources=(arn,)),)

    async def execute(self, params: FailoverParams, before: State) -> Outcome:
        """One ModifyReplicationGroup, or one TestFailover."""
        detail, state = self.preview(params, before), GroupState.model_validate(before)
        async with self.connection.acting(self.name, self.grants(params, before)) as client:
            if params.by_test_failover:
                tested = await AWS.write(client.test_failover, ReplicationGroupId=state.name, NodeGroupId=params.shard)
                request_id = tested["ResponseMetadata"]["RequestId"]
            else:
                modified = await AWS.write(
                    client.modify_replication_group,
                    ReplicationGroupId=state.name,
                    PrimaryClusterId=self._next(params, state),
                    ApplyImmediately=True,
                )
                request_id = modified["ResponseMetadata"]["RequestId"]
        return Outcome(request_ids=(request_id,), detail=detail)

    async def settle(self, params: FailoverParams, before: State) -> State:
        """Waits up to 15 minutes until the shard has another primary and the group is available."""
        saved = GroupState.model_validate(before)

        async def read() -> tuple[GroupState, bool]:
            now = await self.read(params.service)
            return now, await self._over(params, saved, now)

        def lacking(seen: tuple[GroupState, bool]) -> str:
            now, over = seen
            if not over:
                return f"{now.name}/{params.shard} to have another primary (the group is {now.status})"
            return "" if now.status == "available" else f"{now.name} to be available (now {now.status})"

        now, _ = await settled(self.clock, read, lacking, DEADLINE_S)
        return now.model_dump(mode="json")

    async def probe(self, params: FailoverParams, before: State) -> Probe:
        """Told by the primary where AWS names it, else by the events of a failover since."""
        saved, now = GroupState.model_validate(before), await self.read(params.service)
        was, primary = self._shard(params, saved).primary, self._shard(params, now).primary
        if params.by_test_failover:
            return await self._tested(params, saved, moved=primary != was)
        wanted = self._next(params, saved)
        if wanted in (primary, now.promoting):
            return "done"
        return "not_done" if (primary, now.promoting, now.status) == (was, None, saved.status) else "unknown"

    async def _over(self, params: FailoverParams, saved: GroupState, now: GroupState) -> bool:
        """Whether the other primary took over; for TestFailover by events: with cluster mode AWS tells no roles."""
        if params.by_test_failover:
            return any("ailover from primary" in text and "completed" in text for text in await self._told(saved))
        return self._shard(params, now).primary == self._next(params, saved)

    async def _tested(self, params: FailoverParams, saved: GroupState, *, moved: bool) -> Probe:
        texts = await self._told(saved)
        if any("Test Failover API called" in text and params.shard in text for text in texts):
            return "done"
        return "unknown" if moved or any("ailover" in text for text in texts) else "not_done"

    async def _told(self, saved: GroupState) -> list[str]:
        """What ElastiCache wrote of the group since."""
        events = await self.events(saved.name, "replication-group", saved.last_event_at)
        return [event.get("Message", "") for event in events]

    def _shard(self, params: FailoverParams, state: GroupState) -> Shard:
        if params.shard not in state.shards:
            raise Refused(
                f"{params.service}: {state.name} has no shard {params.shard}, only {', '.join(state.shards)}."
            )
        return state.shards[params.shard]

    def _next(self, params: FailoverParams, state: GroupState) -> str:
        """Who would be primary. Raises Refused where AWS would not do it, or only by its test API."""
        shard = self._shard(params, state)
        if state.status != "available" or state.promoting:
            raise Refused(f"{params.service}: {state.name} is {state.status}; wait until it is available.")
        if params.by_test_failover:
            return self._tested_next(params, state, shard)
        if state.automatic_failover != "disabled" or state.cluster_mode:
            raise Refused(
                f"{params.service}: {state.name} has automatic failover {state.automatic_failover}: AWS replaces a"
                " failed primary by itself, and takes no promotion by hand. Only TestFailover forces it, which is no"
                " recovery API and may be blocked: say by_test_failover to call it all the same."
            )
        replicas = _replicas(shard)
        if not replicas:
            raise Refused(f"{params.service}: {state.name}/{params.shard} has no replica to promote.")
        if params.replica not in (None, *replicas):
            raise Refused(f"{params.service}: {params.replica} is no replica; those are {', '.join(replicas)}.")
        return params.replica or replicas[0]

    def _tested_next(self, params: FailoverParams, state: GroupState, shard: Shard) -> str:
        if state.automatic_failover != "enabled":
            raise Refused(f"{params.service}: TestFailover needs automatic failover; promote a replica instead.")
        if params.replica:
            raise Refused(f"{params.service}: TestFailover promotes the replica AWS chooses: name none.")
        if len(shard.nodes) < 2:
            raise Refused(f"{params.service}: {state.name}/{params.shard} has no replica to fail over to.")
        return "the replica AWS chooses"


class RebootCacheCluster(CacheOperation[RebootParams]):
    """Restarts one node of a cache."""

    name = "reboot_cache_cluster"
    summary = "Reboot one node of an ElastiCache replication group; what that node holds is lost"
    risk = "high"
    minutes = 5.0
    permissions = (*READS, "elasticache:RebootCacheCluster")
    params = RebootParams

    async def inspect(self, params: RebootParams) -> State:
        """The node, its role, and when it last had an event. Raises Refused if it is not the service's."""
        group = await self.read(params.service)
        members = [node for shard in group.shards.values() for node in shard.nodes]
        if params.node not in members:
            raise Refused(f"{params.service}: {params.node} is no node of {group.name}: {', '.join(members)}.")
        events = await self.events(params.node, "cache-cluster", None)
        arn, status, node_ids = await self._node(params.node)
        return NodeState(
            name=params.node,
            arn=arn,
            group=group.name,
            status=status,
            cluster_mode=group.cluster_mode,
            primary=any(shard.primary == params.node for shard in group.shards.values()),
            others=len(members) - 1,
            node_ids=node_ids,
            last_event_at=_newest(events),
        ).model_dump(mode="json")

    def pinned(self, params: RebootParams, before: State) -> State:
        """Whether it is the primary, and how many others there are."""
        state = NodeState.model_validate(before)
        return {"primary": state.primary, "other nodes": state.others}

    def preview(self, params: RebootParams, before: State) -> str:
        """What is lost."""
        state = NodeState.model_validate(before)
        if state.cluster_mode:
            raise Refused(f"{params.service}: {state.group} is in cluster mode, whose nodes AWS does not reboot.")
        if state.status != "available":
            raise Refused(f"{params.service}: {state.name} is {state.status}; wait until it is available.")
        role = "the primary" if state.primary else "a replica"
        return (
            f"{params.service}: reboot {state.name}, {role} of {state.group}: ALL ITS CONTENT IS LOST, what read from"
            f" it falls through to what is behind the cache{_spread(state)}; cannot be undone"
        )

    def changes(self, params: RebootParams, before: State) -> tuple[Change, ...]:
        """Content and connections."""
        self.preview(params, before)
        name = NodeState.model_validate(before).name
        return (
            Change(what=f"content of {name}", before="kept", after="lost"),
            Change(what=f"connections to {name}", before="open", after="all dropped"),
        )

    def capacity(self, params: RebootParams, before: State) -> Capacity:
        """One node fewer."""
        others = NodeState.model_validate(before).others
        return Capacity(service=params.service, servers_now=others + 1, servers_then=others)

    def grants(self, params: RebootParams, before: State) -> tuple[Grant, ...]:
        """To reboot this node."""
        arn = NodeState.model_validate(before).arn
        return (Grant(actions=("elasticache:RebootCacheCluster",), resources=(arn,)),)

    async def execute(self, params: RebootParams, before: State) -> Outcome:
        """One RebootCacheCluster."""
        detail, state = self.preview(params, before), NodeState.model_validate(before)
        async with self.connection.acting(self.name, self.grants(params, before)) as client:
            answer = await AWS.write(
                client.reboot_cache_cluster, CacheClusterId=state.name, CacheNodeIdsToReboot=list(state.node_ids)
            )
        return Outcome(request_ids=(answer["ResponseMetadata"]["RequestId"],), detail=detail)

    async def settle(self, params: RebootParams, before: State) -> State:
        """Waits up to 15 minutes until the node has restarted and is available."""
        saved = NodeState.model_validate(before)
        rebooted = False  # events may come late, or a reboot be over between two looks: either tells

        async def read() -> tuple[str, bool]:
            nonlocal rebooted
            _, status, _ = await self._node(saved.name)
            rebooted = rebooted or status.startswith("rebooting") or await self._restarted(saved)
            return status, rebooted

        def lacking(seen: tuple[str, bool]) -> str:
            status, restarted = seen
            if status != "available":
                return f"{saved.name} to be available (now {status})"
            return "" if restarted else f"{saved.name} to restart (ElastiCache tells of no restart yet)"

        status, _ = await settled(self.clock, read, lacking, DEADLINE_S)
        return {**before, "status": status}

    async def probe(self, params: RebootParams, before: State) -> Probe:
        """Done if it reboots now, or ElastiCache wrote of a restart since."""
        saved = NodeState.model_validate(before)
        _, status, _ = await self._node(saved.name)
        if status.startswith("rebooting") or await self._restarted(saved):
            return "done"
        return "not_done" if status == saved.status else "unknown"

    async def _node(self, name: str) -> tuple[str, str, tuple[str, ...]]:
        """ARN, status and ids of a node."""
        answer = await AWS.read(
            self.connection.reader.describe_cache_clusters, CacheClusterId=name, ShowCacheNodeInfo=True
        )
        cluster = answer["CacheClusters"][0]
        ids = tuple(node.get("CacheNodeId", "") for node in cluster.get("CacheNodes", []))
        return cluster.get("ARN", ""), cluster.get("CacheClusterStatus", ""), ids

    async def _restarted(self, saved: NodeState) -> bool:
        events = await self.events(saved.name, "cache-cluster", saved.last_event_at)
        return any("restart" in event.get("Message", "").lower() for event in events)


OPERATIONS: tuple[type[CacheOperation[Any]], ...] = (FailoverCache, RebootCacheCluster)


def create(resources: Mapping[str, Resource], clock: Clock) -> Executor:
    """The executor ``elasticache``. Raises ValueError naming a missing setting."""
    settings = Settings()
    connection: Connection[ElastiCacheClient] = Connection("elasticache", settings, reads=READS)
    return AwsExecutor(settings, connection, [kind(resources, clock, connection) for kind in OPERATIONS])


# --- reading answers ----------------------------------------------------------------------------------------


def _group(answer: "ReplicationGroupTypeDef") -> GroupState:
    shards = {
        group.get("NodeGroupId", ""): Shard(
            primary=next(
                (m.get("CacheClusterId") for m in members if m.get("CurrentRole") == "primary"),
                None,
            ),
            nodes=tuple(m.get("CacheClusterId", "") for m in members),
        )
        for group in answer.get("NodeGroups", [])
        for members in [group.get("NodeGroupMembers", [])]
    }
    return GroupState(
        name=answer.get("ReplicationGroupId", ""),
        arn=answer.get("ARN", ""),
        status=answer.get("Status", ""),
        cluster_mode=answer.get("ClusterEnabled", False),
        automatic_failover=answer.get("AutomaticFailover", "disabled"),
        shards=shards,
        promoting=answer.get("PendingModifiedValues", {}).get("PrimaryClusterId"),
        last_event_at=None,
    )


def _replicas(shard: Shard) -> list[str]:
    return sorted(node for node in shard.nodes if node != shard.primary)


def _newest(events: Sequence["EventTypeDef"]) -> datetime | None:
    return max((event["Date"] for event in events if "Date" in event), default=None)


def _spread(state: NodeState) -> str:
    """What the reboot of the primary does to the others."""
    if not state.primary or not state.others:
        return ""
    return "; unless it fails over first, its replicas copy the empty primary and lose theirs too"
