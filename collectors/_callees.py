"""What a called component is, by what the sources say of the call."""

from typing import Literal

CalleeKind = Literal["", "service", "database", "cache", "queue", "external"]

_CACHES = ("redis", "memcached", "valkey", "elasticache", "hazelcast", "keydb", "dragonfly")
_AWS: dict[str, CalleeKind] = {
    **dict.fromkeys(("dynamodb", "rds", "aurora", "docdb", "neptune", "redshift", "database"), "database"),
    **dict.fromkeys(("elasticache", "dax", "memorydb"), "cache"),
    **dict.fromkeys(("sqs", "sns", "kinesis", "kafka", "amazonmq"), "queue"),
}
_SPAN_TYPES: dict[str, CalleeKind] = {
    **dict.fromkeys(("sql", "db", "mongodb", "cassandra", "elasticsearch", "opensearch", "dynamodb"), "database"),
    **dict.fromkeys(("cache", "redis", "memcached", "valkey"), "cache"),
    **dict.fromkeys(("queue", "kafka"), "queue"),
}


def by_attributes(db_system: str, messaging_system: str) -> CalleeKind:
    """By OpenTelemetry's ``db.system`` and ``messaging.system``."""
    if messaging_system:
        return "queue"
    if not db_system:
        return ""
    return "cache" if db_system.lower().rpartition(".")[2] in _CACHES else "database"


def by_span_type(span_type: str) -> CalleeKind:
    """By Datadog's ``span.type`` of a call."""
    return _SPAN_TYPES.get(span_type.lower(), "")


def by_aws_type(node_type: str) -> CalleeKind:
    """By the type of a node in X-Ray's graph: ``AWS::DynamoDB::Table``, ``Database::SQL``, ``remote``, …

    A remote node is one that nobody instrumented; what an SDK calls of AWS is told by the service in its name.
    """
    if node_type == "remote":
        return "external"
    return next((_AWS[part] for part in node_type.lower().split("::") if part in _AWS), "")
