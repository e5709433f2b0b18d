"""What metrics of the usual sources measure: names as CloudWatch, Datadog, Prometheus and OpenTelemetry have them."""

import pytest

from graph.ranking.semantics import meaning

# metric | unit | role | worse | whether it is a share of a capacity
_METRICS = """
# CloudWatch ECS
CPUUtilization | Percent | saturation | up | limited
MemoryUtilization | Percent | saturation | up | limited
CpuUtilized | None | saturation | up | unlimited
RunningTaskCount | Count | success | down | unlimited
PendingTaskCount | Count | backlog | up | unlimited
DesiredTaskCount | Count | traffic | neutral | unlimited
NetworkRxBytes | Bytes/Second | traffic | neutral | unlimited
StorageReadBytes | Bytes/Second | traffic | neutral | unlimited
EphemeralStorageUtilized | Gigabytes | saturation | up | unlimited
# ALB
TargetResponseTime | Seconds | latency | up | unlimited
RequestCount | Count | requests | neutral | unlimited
RequestCountPerTarget | Count | requests | neutral | unlimited
HTTPCode_Target_5XX_Count | Count | error | up | unlimited
HTTPCode_ELB_5XX_Count | Count | error | up | unlimited
HTTPCode_Target_4XX_Count | Count | traffic | neutral | unlimited
HTTPCode_Target_2XX_Count | Count | requests | neutral | unlimited
HealthyHostCount | Count | success | down | unlimited
UnHealthyHostCount | Count | fault | up | unlimited
ActiveConnectionCount | Count | pool | up | unlimited
NewConnectionCount | Count | traffic | neutral | unlimited
RejectedConnectionCount | Count | error | up | unlimited
TargetConnectionErrorCount | Count | error | up | unlimited
ProcessedBytes | Bytes | traffic | neutral | unlimited
ConsumedLCUs | Count | traffic | neutral | unlimited
LoadBalancerRequestCount | Count | requests | neutral | unlimited
# RDS
DatabaseConnections | Count | pool | up | unlimited
FreeableMemory | Bytes | saturation | down | unlimited
FreeStorageSpace | Bytes | saturation | down | unlimited
ReadIOPS | Count/Second | requests | neutral | unlimited
WriteLatency | Seconds | latency | up | unlimited
ReadThroughput | Bytes/Second | traffic | neutral | unlimited
DiskQueueDepth | Count | backlog | up | unlimited
ReplicaLag | Seconds | backlog | up | unlimited
SwapUsage | Bytes | saturation | up | unlimited
DBLoad |  | saturation | up | unlimited
CPUCreditBalance | Count | saturation | down | unlimited
BurstBalance | Percent | saturation | down | limited
Deadlocks | Count/Second | fault | up | unlimited
NetworkReceiveThroughput | Bytes/Second | traffic | neutral | unlimited
# Lambda
Invocations | Count | requests | neutral | unlimited
Errors | Count | error | up | unlimited
Throttles | Count | error | up | unlimited
Duration | Milliseconds | latency | up | unlimited
ConcurrentExecutions | Count | pool | up | unlimited
IteratorAge | Milliseconds | backlog | up | unlimited
DeadLetterErrors | Count | error | up | unlimited
# SQS
ApproximateNumberOfMessagesVisible | Count | backlog | up | unlimited
ApproximateNumberOfMessagesNotVisible | Count | backlog | up | unlimited
ApproximateAgeOfOldestMessage | Seconds | backlog | up | unlimited
NumberOfMessagesSent | Count | traffic | neutral | unlimited
NumberOfMessagesReceived | Count | traffic | neutral | unlimited
NumberOfMessagesDeleted | Count | traffic | neutral | unlimited
NumberOfEmptyReceives | Count | traffic | neutral | unlimited
SentMessageSize | Bytes | traffic | neutral | unlimited
# ElastiCache
EngineCPUUtilization | Percent | saturation | up | limited
CurrConnections | Count | pool | up | unlimited
NewConnections | Count | traffic | neutral | unlimited
CacheHits | Count | traffic | neutral | unlimited
CacheMisses | Count | traffic | neutral | unlimited
CacheHitRate | Percent | success | down | unlimited
Evictions | Count | saturation | up | unlimited
CurrItems | Count | traffic | neutral | unlimited
GetTypeCmds | Count | requests | neutral | unlimited
StringBasedCmdsLatency | Microseconds | latency | up | unlimited
DatabaseMemoryUsagePercentage | Percent | saturation | up | limited
MemoryFragmentationRatio |  | saturation | up | unlimited
BytesUsedForCache | Bytes | saturation | up | unlimited
ReplicationLag | Seconds | backlog | up | unlimited
# DynamoDB
SuccessfulRequestLatency | Milliseconds | latency | up | unlimited
ConsumedReadCapacityUnits | Count | traffic | neutral | unlimited
ProvisionedWriteCapacityUnits | Count | traffic | neutral | unlimited
AccountProvisionedReadCapacityUtilization | Percent | saturation | up | limited
ThrottledRequests | Count | error | up | unlimited
SystemErrors | Count | error | up | unlimited
ConditionalCheckFailedRequests | Count | error | up | unlimited
ReturnedItemCount | Count | traffic | neutral | unlimited
# API Gateway
Count | Count | requests | neutral | unlimited
Latency | Milliseconds | latency | up | unlimited
IntegrationLatency | Milliseconds | latency | up | unlimited
4XXError | Count | error | up | unlimited
5XXError | Count | error | up | unlimited
# Datadog
trace.http.request.hits | hit | requests | neutral | unlimited
trace.http.request.errors | error | error | up | unlimited
trace.http.request.duration | second | latency | up | unlimited
trace.http.request | second | latency | up | unlimited
trace.http.request.apdex |  | success | down | unlimited
system.cpu.user | percent | saturation | up | limited
system.cpu.idle | percent | saturation | down | limited
system.cpu.iowait | percent | saturation | up | limited
system.load.1 |  | saturation | up | unlimited
system.mem.free | byte | saturation | down | unlimited
system.mem.used | byte | saturation | up | unlimited
system.mem.pct_usable | fraction | saturation | down | limited
system.disk.in_use | fraction | saturation | up | limited
system.disk.free | byte | saturation | down | unlimited
system.io.await | millisecond | latency | up | unlimited
system.net.bytes_rcvd | byte/second | traffic | neutral | unlimited
system.swap.used | byte | saturation | up | unlimited
docker.cpu.usage | percent | saturation | up | limited
docker.mem.rss | byte | saturation | up | unlimited
docker.net.bytes_sent | byte/second | traffic | neutral | unlimited
docker.containers.running |  | success | down | unlimited
kubernetes.cpu.usage.total | nanocore | saturation | up | unlimited
kubernetes.memory.usage_pct | fraction | saturation | up | limited
kubernetes.containers.restarts |  | fault | up | unlimited
kubernetes.cpu.cfs.throttled.seconds | second | saturation | up | unlimited
kubernetes.pods.running |  | success | down | unlimited
kubernetes_state.deployment.replicas_unavailable |  | error | up | unlimited
jvm.heap_memory | byte | saturation | up | unlimited
jvm.gc.pause_time | millisecond | saturation | up | unlimited
jvm.gc.minor_collection_count |  | saturation | up | unlimited
jvm.thread_count | thread | pool | up | unlimited
jvm.cpu_load.process | percent | saturation | up | limited
jvm.buffer_pool.direct.used | byte | saturation | up | unlimited
postgresql.connections | connection | pool | up | unlimited
postgresql.percent_usage_connections | fraction | pool | up | limited
postgresql.rows_fetched | row/second | traffic | neutral | unlimited
postgresql.commits | transaction/second | requests | neutral | unlimited
postgresql.rollbacks | transaction/second | fault | up | unlimited
postgresql.deadlocks | lock/second | fault | up | unlimited
postgresql.locks | lock | pool | up | unlimited
postgresql.replication_delay | second | backlog | up | unlimited
postgresql.transactions.idle_in_transaction | transaction | pool | up | unlimited
redis.info.latency_ms | millisecond | latency | up | unlimited
redis.mem.used | byte | saturation | up | unlimited
redis.keys.evicted | key | saturation | up | unlimited
redis.keys.expired | key | traffic | neutral | unlimited
redis.stats.keyspace_misses | key | traffic | neutral | unlimited
redis.stats.keyspace_hits | key | traffic | neutral | unlimited
redis.net.clients | connection | pool | up | unlimited
redis.clients.blocked | connection | backlog | up | unlimited
redis.mem.fragmentation_ratio | fraction | saturation | up | unlimited
redis.net.commands | command/second | requests | neutral | unlimited
rabbitmq.queue.messages | message | backlog | up | unlimited
rabbitmq.queue.messages_ready | message | backlog | up | unlimited
rabbitmq.queue.messages_unacknowledged | message | backlog | up | unlimited
rabbitmq.queue.messages.publish.rate | message/second | traffic | neutral | unlimited
rabbitmq.queue.consumers |  | success | down | unlimited
kafka.consumer_lag | offset | backlog | up | unlimited
kafka.net.bytes_in.rate | byte/second | traffic | neutral | unlimited
kafka.messages_in.rate | message/second | traffic | neutral | unlimited
kafka.request.produce.time.99percentile | millisecond | latency | up | unlimited
kafka.replication.under_replicated_partitions |  | fault | up | unlimited
kafka.replication.offline_partitions_count |  | fault | up | unlimited
# Prometheus and OpenTelemetry
up |  | success | down | unlimited
pg_up |  | success | down | unlimited
probe_success |  | success | down | unlimited
http_requests_total |  | requests | neutral | unlimited
http_server_request_duration_seconds | s | latency | up | unlimited
http_server_request_duration_seconds_count |  | requests | neutral | unlimited
http_server_request_duration_seconds_bucket |  | requests | neutral | unlimited
http_server_requests_seconds_sum | s | requests | neutral | unlimited
http.server.requests | ms | latency | up | unlimited
http_server_active_requests |  | backlog | up | unlimited
http_server_requests_in_flight |  | backlog | up | unlimited
http.server.request.body.size | By | traffic | neutral | unlimited
gen_ai.client.token.usage | {token} | traffic | neutral | unlimited
hikaricp_connections_pending |  | backlog | up | unlimited
hikaricp_connections_idle |  | pool | down | unlimited
hikaricp_connections_timeout_total |  | error | up | unlimited
hikaricp_connections_acquire_seconds_max | s | latency | up | unlimited
go_goroutines |  | pool | up | unlimited
go_gc_duration_seconds | s | saturation | up | unlimited
go_memstats_alloc_bytes | bytes | saturation | up | unlimited
go_threads |  | pool | up | unlimited
process_cpu_seconds_total |  | saturation | up | unlimited
process_resident_memory_bytes | bytes | saturation | up | unlimited
process_open_fds |  | saturation | up | unlimited
process_start_time_seconds | s | unknown | neutral | unlimited
container_cpu_usage_seconds_total |  | saturation | up | unlimited
container_cpu_cfs_throttled_seconds_total |  | saturation | up | unlimited
container_memory_working_set_bytes | bytes | saturation | up | unlimited
container_network_receive_bytes_total |  | traffic | neutral | unlimited
container_network_receive_errors_total |  | error | up | unlimited
container_oom_events_total |  | fault | up | unlimited
container_fs_usage_bytes | bytes | saturation | up | unlimited
node_cpu_seconds_total |  | host | up | unlimited
node_load1 |  | host | up | unlimited
node_memory_MemAvailable_bytes | bytes | host | down | unlimited
node_filesystem_avail_bytes | bytes | host | down | unlimited
node_network_receive_bytes_total |  | traffic | neutral | unlimited
node_disk_io_time_seconds_total |  | host | up | unlimited
node_disk_read_bytes_total |  | traffic | neutral | unlimited
kube_pod_container_status_restarts_total |  | fault | up | unlimited
kube_pod_status_ready |  | success | down | unlimited
kube_deployment_status_replicas_available |  | success | down | unlimited
kube_deployment_status_replicas_unavailable |  | error | up | unlimited
kube_deployment_spec_replicas |  | unknown | neutral | unlimited
kube_job_status_failed |  | error | up | unlimited
rabbitmq_queue_messages_published_total |  | traffic | neutral | unlimited
rabbitmq_queue_messages_ready |  | backlog | up | unlimited
rabbitmq_queue_messages_unacked |  | backlog | up | unlimited
kafka_consumergroup_lag |  | backlog | up | unlimited
kafka.server:type=BrokerTopicMetrics,name=FailedFetchRequestsPerSec |  | error | up | unlimited
pg_stat_database_xact_commit |  | requests | neutral | unlimited
pg_stat_database_xact_rollback |  | fault | up | unlimited
pg_stat_database_blks_hit |  | traffic | neutral | unlimited
pg_stat_database_blks_read |  | traffic | neutral | unlimited
pg_stat_database_deadlocks |  | fault | up | unlimited
pg_stat_replication_pg_wal_lsn_diff |  | unknown | neutral | unlimited
redis_connected_clients |  | pool | up | unlimited
redis_keyspace_misses_total |  | traffic | neutral | unlimited
istio_requests_total |  | requests | neutral | unlimited
signups_total |  | traffic | neutral | unlimited
scale_up_events_total |  | traffic | neutral | unlimited
# compounds, and words that only seem to tell
cpu_wait | percent | saturation | up | limited
error_budget_remaining | percent | loss | down | unlimited
free_trial_signups |  | unknown | neutral | unlimited
page_load_time | ms | latency | up | unlimited
up_time | s | success | down | unlimited
cache_miss_ratio |  | fault | up | unlimited
thread_pool_queue_size |  | backlog | up | unlimited
jvm_memory_pool_bytes_used | bytes | saturation | up | unlimited
envoy_cluster_upstream_rq_total |  | requests | neutral | unlimited
grpc_server_handling_seconds_count |  | requests | neutral | unlimited
disk_free_percent | % | saturation | down | limited
"""
METRICS = [tuple(cell.strip() for cell in line.split("|")) for line in _METRICS.splitlines() if line and line[0] != "#"]


@pytest.mark.parametrize(("metric", "unit", "role", "worse", "limit"), METRICS)
def test_what_known_metrics_measure(metric: str, unit: str, role: str, worse: str, limit: str) -> None:
    found = meaning(metric, unit)
    assert (found.role, found.worse, "limited" if found.limited else "unlimited") == (role, worse, limit)
