"""Reboots RDS DB instances, and fails Aurora and Multi-AZ DB clusters over to a reader.

Neither can be taken back, and both drop all connections for a while. AWS has no dry run and no token against a second
call: whether a reboot was made is told by the instance's status and by the events written since it was read.
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
    ExecutorError,
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
    from mypy_boto3_rds import RDSClient
    from mypy_boto3_rds.literals import SourceTypeType
    from mypy_boto3_rds.type_defs import DBClusterTypeDef, DBInstanceTypeDef, EventTypeDef

AWS = Api(iam_prefix="rds")
READS = (
    "rds:DescribeDBInstances",
    "rds:DescribeDBClusters",
    "rds:DescribeEvents",
    "rds:DescribePendingMaintenanceActions",
)
DEADLINE_S = 10 * 60.0
KEPT_MINUTES = 14 * 24 * 60  # so long RDS keeps events
# RDS writes "DB instance restarted" into availability, and every failover into failover.
RESTARTS = {"availability", "failover"}


class Settings(AwsSettings):
    """How to reach RDS."""

    model_config = SettingsConfigDict(
        env_prefix="AUTOPILOT_RDS_", env_file=".env", env_ignore_empty=True, extra="ignore"
    )


# --- parameters ---------------------------------------------------------------------------------------------


class RebootParams(ServiceParams):
    """One service whose DB instance is rebooted."""

    force_failover: bool = Field(
        default=False, description="Reboot by a failover to the standby; for Multi-AZ DB instances only"
    )


class FailoverParams(ServiceParams):
    """One service whose DB cluster gets another writer."""

    reader: str | None = Field(
        default=None, min_length=1, description="DBInstanceIdentifier of the reader to promote; none: AWS chooses"
    )


# --- what was read ------------------------------------------------------------------------------------------


class InstanceState(Model):
    """A DB instance as DescribeDBInstances has it."""

    name: str
    arn: str
    status: str
    engine: str
    instance_class: str
    multi_az: bool
    zone: str
    cluster: str | None
    pending: tuple[str, ...] = Field(description="Names of changes that wait, e.g. for this reboot")
    last_event_at: datetime | None = Field(description="Of the newest event; what is newer came after the reading")


class ClusterState(Model):
    """A DB cluster and its members."""

    name: str
    arn: str
    status: str
    engine: str
    writer: str | None
    readers: dict[str, str] = Field(description="Status by DBInstanceIdentifier")
    writer_status: str
    last_event_at: datetime | None = Field(description="Of the newest event; what is newer came after the reading")


# --- operations ---------------------------------------------------------------------------------------------


class RdsOperation(AwsOperation[S, "RDSClient"]):
    """What the operations on databases have in common."""

    async def events(self, name: str, kind: "SourceTypeType", since: datetime | None) -> list["EventTypeDef"]:
        """What RDS wrote of this instance or cluster after ``since``; without it, all of 14 days."""
        reader = self.connection.reader

        def describe_events() -> "list[EventTypeDef]":
            pages = reader.get_paginator("describe_events").paginate(
                SourceIdentifier=name, SourceType=kind, Duration=KEPT_MINUTES
            )
            events: list[EventTypeDef] = pages.build_full_result()["Events"]
            return events

        found = await AWS.read(describe_events)
        return [event for event in found if since is None or event["Date"] > since]

    async def maintenance(self, arn: str) -> PreflightCheck:
        """Whether AWS waits to maintain it: a reboot may set that off."""
        reader = self.connection.reader
        try:
            answer = await AWS.read(reader.describe_pending_maintenance_actions, ResourceIdentifier=arn)
        except ExecutorError as error:
            return PreflightCheck(name="deployment", status="skipped", detail=str(error))
        waiting = [
            action["Action"]
            for one in answer["PendingMaintenanceActions"]
            for action in one.get("PendingMaintenanceActionDetails", [])
        ]
        if waiting:
            told = f"maintenance is pending ({', '.join(waiting)}) and may be done at once with it"
            return PreflightCheck(name="deployment", status="warning", detail=told)
        return PreflightCheck(name="deployment", status="ok", detail="no maintenance is pending")


class RebootDbInstance(RdsOperation[RebootParams]):
    """Restarts the database engine of one DB instance."""

    name = "reboot_db_instance"
    summary = "Reboot an RDS DB instance, for Multi-AZ on wish by failing over; drops all connections"
    risk = "high"
    minutes = 3.0
    permissions = (*READS, "rds:RebootDBInstance")
    params = RebootParams
    needs = "aws.rds_instances (exactly one)"

    def target(self, resource: Resource) -> object:
        """A DB instance."""
        return resource.db_instance

    def resource(self, params: RebootParams) -> str:
        """``rds:db/<DBInstanceIdentifier>``."""
        return f"rds:db/{self._name(params)}"

    async def inspect(self, params: RebootParams) -> State:
        """The instance, and when it last had an event."""
        name = self._name(params)
        instance = await self._read(name)
        events = await self.events(name, "db-instance", None)
        return instance.model_copy(update={"last_event_at": _newest(events)}).model_dump(mode="json")

    def pinned(self, params: RebootParams, before: State) -> State:
        """What people set, and the zone, which moves by a failover only."""
        state = InstanceState.model_validate(before)
        return {
            "instance class": state.instance_class,
            "Multi-AZ": state.multi_az,
            "availability zone": state.zone,
            "pending changes": list(state.pending),
        }

    def preview(self, params: RebootParams, before: State) -> str:
        """What is dropped, and how long."""
        state = InstanceState.model_validate(before)
        _must_be_available(params.service, state.name, state.status)
        if state.engine.startswith("custom-"):
            raise Refused(f"{params.service}: {state.name} is RDS Custom, which RDS does not reboot.")
        if state.cluster and not state.engine.startswith("aurora"):
            raise Refused(f"{params.service}: {state.name} is in the Multi-AZ DB cluster {state.cluster}: reboot that.")
        if params.force_failover and not state.multi_az:
            raise Refused(f"{params.service}: {state.name} is not Multi-AZ: it has no standby to fail over to.")
        how = "by failing over to its standby" if params.force_failover else "in place"
        applied = f"; applies {', '.join(state.pending)}" if state.pending else ""
        return (
            f"{params.service}: reboot {state.name} {how}: all connections are dropped, nothing is served for about a"
            f" minute or more{applied}; cannot be undone"
        )

    def changes(self, params: RebootParams, before: State) -> tuple[Change, ...]:
        """Connections, zone and pending changes."""
        self.preview(params, before)
        state = InstanceState.model_validate(before)
        zone = Change(what="availability zone", before=state.zone, after="the standby's")
        return (
            Change(what=f"connections to {state.name}", before="open", after="all dropped"),
            *((zone,) if params.force_failover else ()),
            *(Change(what=name, before="pending", after="applied") for name in state.pending),
        )

    async def looked(self, params: RebootParams, before: State) -> tuple[PreflightCheck, ...]:
        """Pending maintenance, and pending changes that the reboot would apply."""
        state = InstanceState.model_validate(before)
        applied = PreflightCheck(
            name="state", status="warning", detail=f"the reboot also applies: {', '.join(state.pending)}"
        )
        return (await self.maintenance(state.arn), *((applied,) if state.pending else ()))

    def capacity(self, params: RebootParams, before: State) -> Capacity:
        """The one instance is away while it reboots."""
        return Capacity(service=params.service, servers_now=1, servers_then=0)

    def grants(self, params: RebootParams, before: State) -> tuple[Grant, ...]:
        """To reboot this instance."""
        return (Grant(actions=("rds:RebootDBInstance",), resources=(InstanceState.model_validate(before).arn,)),)

    async def execute(self, params: RebootParams, before: State) -> Outcome:
        """One RebootDBInstance."""
        detail, name = self.preview(params, before), self._name(params)
        async with self.connection.acting(self.name, self.grants(params, before)) as client:
            answer = await AWS.write(
                client.reboot_db_instance, DBInstanceIdentifier=name, ForceFailover=params.force_failover
            )
        return Outcome(request_ids=(answer["ResponseMetadata"]["RequestId"],), detail=detail)

    async def settle(self, params: RebootParams, before: State) -> State:
        """Waits up to 10 minutes until the instance has restarted and is available."""
        saved, name = InstanceState.model_validate(before), self._name(params)
        statuses: set[str] = set()  # events may come late, or a reboot be over between two looks: either tells

        async def read() -> tuple[InstanceState, list["EventTypeDef"]]:
            return await self._read(name), await self.events(name, "db-instance", saved.last_event_at)

        def lacking(seen: tuple[InstanceState, list["EventTypeDef"]]) -> str:
            now, events = seen
            statuses.add(now.status)
            if now.status != "available":
                return f"{name} to be available (now {now.status})"
            rebooted = "rebooting" in statuses or _restarted(events)
            return "" if rebooted else f"{name} to restart (RDS tells of no restart yet)"

        now, events = await settled(self.clock, read, lacking, DEADLINE_S)
        return now.model_copy(update={"last_event_at": _newest(events)}).model_dump(mode="json")

    async def probe(self, params: RebootParams, before: State) -> Probe:
        """Done if it reboots now, or RDS wrote of a restart since; a new status of another kind tells nothing."""
        saved, name = InstanceState.model_validate(before), self._name(params)
        now = await self._read(name)
        if now.status == "rebooting" or _restarted(await self.events(name, "db-instance", saved.last_event_at)):
            return "done"
        return "not_done" if (now.status, now.zone) == (saved.status, saved.zone) else "unknown"

    def _name(self, params: RebootParams) -> str:
        return str(self.entry(params.service).db_instance)

    async def _read(self, name: str) -> InstanceState:
        answer = await AWS.read(self.connection.reader.describe_db_instances, DBInstanceIdentifier=name)
        return _instance(answer["DBInstances"][0])


class FailoverDbCluster(RdsOperation[FailoverParams]):
    """Makes one of a cluster's readers its writer."""

    name = "failover_db_cluster"
    summary = "Promote a reader of an Aurora or Multi-AZ DB cluster to be the writer; drops the writer's connections"
    risk = "high"
    minutes = 2.0
    permissions = (*READS, "rds:FailoverDBCluster")
    params = FailoverParams
    needs = "aws.rds_clusters (exactly one)"

    def target(self, resource: Resource) -> object:
        """A DB cluster."""
        return resource.db_cluster

    def resource(self, params: FailoverParams) -> str:
        """``rds:cluster/<DBClusterIdentifier>``."""
        return f"rds:cluster/{self._name(params)}"

    async def inspect(self, params: FailoverParams) -> State:
        """The cluster, the status of its members, and when it last had an event."""
        name = self._name(params)
        cluster = await self._read(name)
        events = await self.events(name, "db-cluster", None)
        return cluster.model_copy(update={"last_event_at": _newest(events)}).model_dump(mode="json")

    def pinned(self, params: FailoverParams, before: State) -> State:
        """Who writes and who reads."""
        state = ClusterState.model_validate(before)
        return {"writer": state.writer, "readers": [*sorted(state.readers)]}

    def preview(self, params: FailoverParams, before: State) -> str:
        """From which writer to which."""
        state = ClusterState.model_validate(before)
        after = self._next(params, state)
        return (
            f"{params.service}: writer of {state.name} {state.writer} -> {after}: connections to the writer are dropped"
            " and writes fail for about half a minute; clients that keep old addresses must reconnect; cannot be undone"
        )

    def changes(self, params: FailoverParams, before: State) -> tuple[Change, ...]:
        """The writer, and its connections."""
        state = ClusterState.model_validate(before)
        after = self._next(params, state)
        return (
            Change(what=f"writer of {state.name}", before=str(state.writer), after=after),
            Change(what="connections to the writer", before="open", after="all dropped"),
        )

    async def looked(self, params: FailoverParams, before: State) -> tuple[PreflightCheck, ...]:
        """Readers that could take over, and pending maintenance."""
        state = ClusterState.model_validate(before)
        ready = _ready(state)
        readers = PreflightCheck(
            name="state",
            status="ok" if ready else "failed",
            detail=f"readers that can take over: {', '.join(ready) or 'none'}",
        )
        return (readers, await self.maintenance(state.arn))

    def grants(self, params: FailoverParams, before: State) -> tuple[Grant, ...]:
        """To fail this cluster over."""
        return (Grant(actions=("rds:FailoverDBCluster",), resources=(ClusterState.model_validate(before).arn,)),)

    async def execute(self, params: FailoverParams, before: State) -> Outcome:
        """One FailoverDBCluster."""
        detail, name = self.preview(params, before), self._name(params)
        async with self.connection.acting(self.name, self.grants(params, before)) as client:
            if params.reader:
                answer = await AWS.write(
                    client.failover_db_cluster, DBClusterIdentifier=name, TargetDBInstanceIdentifier=params.reader
                )
            else:
                answer = await AWS.write(client.failover_db_cluster, DBClusterIdentifier=name)
        return Outcome(request_ids=(answer["ResponseMetadata"]["RequestId"],), detail=detail)

    async def settle(self, params: FailoverParams, before: State) -> State:
        """Waits up to 10 minutes until another member writes and the cluster is available."""
        saved, name = ClusterState.model_validate(before), self._name(params)

        def lacking(now: ClusterState) -> str:
            if now.writer in (saved.writer, None):
                return f"{name} to have another writer than {saved.writer} ({now.status})"
            if (now.status, now.writer_status) == ("available", "available"):
                return ""
            return f"{name} to be available (now {now.status}, its writer {now.writer} {now.writer_status})"

        now = await settled(self.clock, lambda: self._read(name), lacking, DEADLINE_S)
        return now.model_dump(mode="json")

    async def probe(self, params: FailoverParams, before: State) -> Probe:
        """Told by the writer; while it is the old one, by the status and by events of a failover since."""
        saved, name = ClusterState.model_validate(before), self._name(params)
        now = await self._read(name)
        if now.writer != saved.writer:
            return "done" if params.reader in (None, now.writer) else "unknown"
        if now.status == "failing-over":
            return "done"
        failovers = await self.events(name, "db-cluster", saved.last_event_at)
        if any("failover" in event.get("EventCategories", ()) for event in failovers):
            return "unknown"
        return "not_done" if now.status == saved.status else "unknown"

    def _name(self, params: FailoverParams) -> str:
        return str(self.entry(params.service).db_cluster)

    def _next(self, params: FailoverParams, state: ClusterState) -> str:
        """Who would write. Raises Refused if the cluster must not fail over now."""
        _must_be_available(params.service, state.name, state.status)
        if state.writer is None:
            raise Refused(f"{params.service}: {state.name} has no writer (a secondary of a global database?).")
        ready = _ready(state)
        if not ready:
            raise Refused(f"{params.service}: {state.name} has no available reader to fail over to.")
        if params.reader is None:
            return ready[0] if len(ready) == 1 else f"one of {', '.join(ready)}, as AWS chooses"
        if state.engine == "mysql":
            raise Refused(f"{params.service}: a Multi-AZ DB cluster of MySQL chooses its writer itself; name none.")
        if params.reader not in ready:
            raise Refused(f"{params.service}: {params.reader} is no available reader; those are {', '.join(ready)}.")
        return params.reader

    async def _read(self, name: str) -> ClusterState:
        clusters = await AWS.read(self.connection.reader.describe_db_clusters, DBClusterIdentifier=name)
        members = await AWS.read(
            self.connection.reader.describe_db_instances, Filters=[{"Name": "db-cluster-id", "Values": [name]}]
        )
        return _cluster(clusters["DBClusters"][0], members["DBInstances"])


OPERATIONS: tuple[type[RdsOperation[Any]], ...] = (RebootDbInstance, FailoverDbCluster)


def create(resources: Mapping[str, Resource], clock: Clock) -> Executor:
    """The executor ``rds``. Raises ValueError naming a missing setting."""
    settings = Settings()
    connection: Connection[RDSClient] = Connection("rds", settings, reads=READS)
    return AwsExecutor(settings, connection, [kind(resources, clock, connection) for kind in OPERATIONS])


# --- reading answers ----------------------------------------------------------------------------------------


def _instance(answer: "DBInstanceTypeDef") -> InstanceState:
    groups = [
        f"parameter group {group.get('DBParameterGroupName', '')}"
        for group in answer.get("DBParameterGroups", [])
        if group.get("ParameterApplyStatus") == "pending-reboot"
    ]
    return InstanceState(
        name=answer["DBInstanceIdentifier"],
        arn=answer["DBInstanceArn"],
        status=answer.get("DBInstanceStatus", ""),
        engine=answer.get("Engine", ""),
        instance_class=answer.get("DBInstanceClass", ""),
        multi_az=answer.get("MultiAZ", False),
        zone=answer.get("AvailabilityZone", ""),
        cluster=answer.get("DBClusterIdentifier"),
        pending=(*sorted(answer.get("PendingModifiedValues", {})), *groups),
        last_event_at=None,
    )


def _cluster(answer: "DBClusterTypeDef", members: Sequence["DBInstanceTypeDef"]) -> ClusterState:
    statuses = {m["DBInstanceIdentifier"]: m.get("DBInstanceStatus", "") for m in members}
    roles = {m["DBInstanceIdentifier"]: m["IsClusterWriter"] for m in answer.get("DBClusterMembers", [])}
    writer = next((name for name, writes in roles.items() if writes), None)
    return ClusterState(
        name=answer["DBClusterIdentifier"],
        arn=answer["DBClusterArn"],
        status=answer.get("Status", ""),
        engine=answer.get("Engine", ""),
        writer=writer,
        readers={name: statuses.get(name, "") for name in roles if name != writer},
        writer_status=statuses.get(writer or "", ""),
        last_event_at=None,
    )


def _newest(events: Sequence["EventTypeDef"]) -> datetime | None:
    return max((event["Date"] for event in events), default=None)


# --- judging them -------------------------------------------------------------------------------------------


def _restarted(events: Sequence["EventTypeDef"]) -> bool:
    return any(RESTARTS.intersection(event.get("EventCategories", ())) for event in events)


def _ready(state: ClusterState) -> list[str]:
    """The readers that could take over."""
    return sorted(name for name, status in state.readers.items() if status == "available")


def _must_be_available(service: str, name: str, status: str) -> None:
    if status != "available":
        raise Refused(f"{service}: {name} is {status}; wait until it is available.")
