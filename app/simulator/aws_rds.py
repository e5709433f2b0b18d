"""Amazon RDS, query protocol: the shop's one Aurora cluster."""

from collections.abc import Mapping
from datetime import datetime

from app.simulator.aws_errors import AwsError
from app.simulator.aws_query import Form, Items, Operation, Xml, instant, members
from app.simulator.database import CLUSTER_ID, DatabaseEvent, Instance
from app.simulator.shop import Shop
from app.simulator.topology import ACCOUNT, REGION

NAMESPACE = "http://rds.amazonaws.com/doc/2014-10-31/"
MUTATING = frozenset({"FailoverDBCluster", "RebootDBInstance"})
CLUSTER_ARN = f"arn:aws:rds:{REGION}:{ACCOUNT}:cluster:{CLUSTER_ID}"
ENGINE = {"Engine": "aurora-postgresql", "EngineVersion": "16.4"}


def instance_arn(id_: str) -> str:
    """Of a DB instance."""
    return f"arn:aws:rds:{REGION}:{ACCOUNT}:db:{id_}"


class RdsApi:
    """RDS in front of the shop's database. Operations take the form and the time in epoch seconds."""

    def __init__(self, shop: Shop) -> None:
        self._database = shop.world.database
        self.operations: Mapping[str, Operation] = {
            "DescribeDBClusters": self._describe_clusters,
            "DescribeDBInstances": self._describe_instances,
            "DescribeEvents": self._describe_events,
            "DescribePendingMaintenanceActions": self._describe_maintenance,
            "FailoverDBCluster": self._failover,
            "RebootDBInstance": self._reboot,
        }

    def _describe_clusters(self, form: Form, at: float) -> Mapping[str, Xml]:
        _check_cluster(form.get("DBClusterIdentifier", CLUSTER_ID))
        return {"DBClusters": Items("DBCluster", [self._cluster(at)])}

    def _describe_instances(self, form: Form, at: float) -> Mapping[str, Xml]:
        if wanted := form.get("DBInstanceIdentifier"):
            return {"DBInstances": Items("DBInstance", [self._instance(self._database.instance(wanted), at)])}
        clusters = members(form, "Filters.Filter.1.Values", "Value")
        if clusters and {name.rpartition(":")[2] for name in clusters} != {CLUSTER_ID}:
            return {"DBInstances": ""}
        return {"DBInstances": Items("DBInstance", [self._instance(i, at) for i in self._database.instances])}

    def _describe_events(self, form: Form, at: float) -> Mapping[str, Xml]:
        since = at - 60.0 * float(form.get("Duration", "60"))
        start = _epoch(form["StartTime"]) if "StartTime" in form else since
        end = _epoch(form["EndTime"]) if "EndTime" in form else at
        chosen = [
            event
            for event in self._database.events
            if start <= event.at < end + 1e-3
            and event.at <= at
            and event.source == form.get("SourceIdentifier", event.source)
            and event.source_type == form.get("SourceType", event.source_type)
        ]
        return {"Events": Items("Event", [_event(event) for event in chosen])}

    def _describe_maintenance(self, form: Form, at: float) -> Mapping[str, Xml]:
        return {"PendingMaintenanceActions": ""}

    def _failover(self, form: Form, at: float) -> Mapping[str, Xml]:
        _check_cluster(form.get("DBClusterIdentifier", ""))
        self._database.failover(form.get("TargetDBInstanceIdentifier", ""), at)
        return {"DBCluster": self._cluster(at)}

    def _reboot(self, form: Form, at: float) -> Mapping[str, Xml]:
        forced = form.get("ForceFailover") == "true"
        instance = self._database.reboot(form.get("DBInstanceIdentifier", ""), at, failover=forced)
        return {"DBInstance": self._instance(instance, at)}

    def _cluster(self, at: float) -> Mapping[str, Xml]:
        database = self._database
        cluster_members: list[Xml] = [
            {"DBInstanceIdentifier": instance.id, "IsClusterWriter": instance.id == database.writer}
            for instance in database.instances
        ]
        return {
            "DBClusterIdentifier": CLUSTER_ID,
            "DBClusterArn": CLUSTER_ARN,
            "Status": "failing-over" if at < database.fails_over_until else "available",
            "MultiAZ": True,
            **ENGINE,
            "DBClusterMembers": Items("DBClusterMember", cluster_members),
        }

    def _instance(self, instance: Instance, at: float) -> Mapping[str, Xml]:
        return {
            "DBInstanceIdentifier": instance.id,
            "DBInstanceArn": instance_arn(instance.id),
            "DBInstanceClass": "db.r6g.large",
            "DBInstanceStatus": "rebooting" if at < instance.down_until else "available",
            "DBClusterIdentifier": CLUSTER_ID,
            "AvailabilityZone": f"{REGION}{'ab'[self._database.instances.index(instance)]}",
            "MultiAZ": False,
            **ENGINE,
        }


def _check_cluster(name: str) -> None:
    if name not in (CLUSTER_ID, CLUSTER_ARN):
        raise AwsError("DBClusterNotFoundFault", f"DBCluster {name} not found.", 404)


def _event(event: DatabaseEvent) -> Mapping[str, Xml]:
    cluster = event.source_type == "db-cluster"
    return {
        "SourceIdentifier": event.source,
        "SourceType": event.source_type,
        "SourceArn": CLUSTER_ARN if cluster else instance_arn(event.source),
        "Message": event.message,
        "EventCategories": Items("EventCategory", list(event.categories)),
        "Date": instant(event.at),
    }


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
