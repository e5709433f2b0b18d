"""Amazon ElastiCache, query protocol: the shop's one replication group, whose failover is not automatic."""

from collections.abc import Mapping

from app.simulator.aws_errors import AwsError
from app.simulator.aws_query import Form, Items, Operation, Xml, instant
from app.simulator.cache import GROUP_ID, NODE_GROUP_ID
from app.simulator.shop import Shop
from app.simulator.topology import ACCOUNT, REGION

NAMESPACE = "http://elasticache.amazonaws.com/doc/2015-02-02/"
MUTATING = frozenset({"ModifyReplicationGroup", "RebootCacheCluster", "TestFailover"})
GROUP_ARN = f"arn:aws:elasticache:{REGION}:{ACCOUNT}:replicationgroup:{GROUP_ID}"


def node_arn(id_: str) -> str:
    """Of a cache cluster."""
    return f"arn:aws:elasticache:{REGION}:{ACCOUNT}:cluster:{id_}"


class ElastiCacheApi:
    """ElastiCache in front of the shop's cache. Operations take the form and the time in epoch seconds."""

    def __init__(self, shop: Shop) -> None:
        self._cache = shop.world.cache
        self.operations: Mapping[str, Operation] = {
            "DescribeReplicationGroups": self._describe_groups,
            "DescribeCacheClusters": self._describe_clusters,
            "DescribeEvents": self._describe_events,
            "ModifyReplicationGroup": self._modify,
            "RebootCacheCluster": self._reboot,
            "TestFailover": self._test_failover,
        }

    def _describe_groups(self, form: Form, at: float) -> Mapping[str, Xml]:
        _check_group(form.get("ReplicationGroupId", GROUP_ID))
        return {"ReplicationGroups": Items("ReplicationGroup", [self._group(at)])}

    def _describe_clusters(self, form: Form, at: float) -> Mapping[str, Xml]:
        wanted = form.get("CacheClusterId")
        if wanted and wanted not in self._cache.nodes:
            raise AwsError("CacheClusterNotFound", f"CacheCluster not found: {wanted}", 404)
        chosen = [wanted] if wanted else self._cache.nodes
        return {"CacheClusters": Items("CacheCluster", [self._node(node, at) for node in chosen])}

    def _describe_events(self, form: Form, at: float) -> Mapping[str, Xml]:
        since = at - 60.0 * float(form.get("Duration", "60"))
        chosen: list[Xml] = [
            {
                "SourceIdentifier": event.source,
                "SourceType": event.source_type,
                "Message": event.message,
                "Date": instant(event.at),
            }
            for event in self._cache.events
            if since <= event.at <= at
            and event.source == form.get("SourceIdentifier", event.source)
            and event.source_type == form.get("SourceType", event.source_type)
        ]
        return {"Events": Items("Event", chosen)}

    def _modify(self, form: Form, at: float) -> Mapping[str, Xml]:
        _check_group(form.get("ReplicationGroupId", ""))
        if "PrimaryClusterId" not in form or form.get("ApplyImmediately") != "true":
            raise AwsError("InvalidParameterCombination", "Only another primary, at once, can be asked for here.")
        self._cache.fail_over(form["PrimaryClusterId"], at)
        return {"ReplicationGroup": self._group(at)}

    def _test_failover(self, form: Form, at: float) -> Mapping[str, Xml]:
        _check_group(form.get("ReplicationGroupId", ""))
        raise AwsError("InvalidReplicationGroupState", "Automatic failover is not enabled for this group.")

    def _reboot(self, form: Form, at: float) -> Mapping[str, Xml]:
        node = form.get("CacheClusterId", "")
        self._cache.reboot(node, at)
        return {"CacheCluster": self._node(node, at)}

    def _group(self, at: float) -> Mapping[str, Xml]:
        cache = self._cache
        nodes: list[Xml] = [
            {
                "CacheClusterId": node,
                "CacheNodeId": "0001",
                "CurrentRole": "primary" if node == cache.primary else "replica",
            }
            for node in cache.nodes
        ]
        status = "available" if cache.settled(at) else "modifying"
        node_group: Xml = {
            "NodeGroupId": NODE_GROUP_ID,
            "Status": status,
            "NodeGroupMembers": Items("NodeGroupMember", nodes),
        }
        return {
            "ReplicationGroupId": GROUP_ID,
            "ARN": GROUP_ARN,
            "Status": status,
            "ClusterEnabled": False,
            "AutomaticFailover": "disabled",
            "MultiAZ": "disabled",
            "MemberClusters": Items("ClusterId", list(cache.nodes)),
            "NodeGroups": Items("NodeGroup", [node_group]),
        }

    def _node(self, node: str, at: float) -> Mapping[str, Xml]:
        restarting = at < self._cache.down_until.get(node, 0.0) and node not in self._cache.hung
        return {
            "CacheClusterId": node,
            "ARN": node_arn(node),
            "ReplicationGroupId": GROUP_ID,
            "CacheClusterStatus": "rebooting cache cluster nodes" if restarting else "available",
            "Engine": "redis",
            "NumCacheNodes": 1,
            "CacheNodes": Items("CacheNode", [{"CacheNodeId": "0001", "CacheNodeStatus": "available"}]),
        }


def _check_group(name: str) -> None:
    if name != GROUP_ID:
        raise AwsError("ReplicationGroupNotFoundFault", f"ReplicationGroup {name} not found.", 404)
