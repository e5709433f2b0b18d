"""AWS services that the shop does not use: its traces and logs go to Datadog, and it deploys by ECS alone.

They answer as AWS does for an account that has nothing there.
"""

from collections.abc import Callable, Mapping

from app.simulator.aws_errors import AwsError

Json = dict[str, object]
Operation = Callable[[Json, float], Json]

LOGS_PREFIX = "Logs_20140328."
CODEDEPLOY_PREFIX = "CodeDeploy_20141006."


def _nothing(answer: Json) -> Operation:
    def run(body: Json, at: float) -> Json:
        return answer

    return run


def _unknown(what: str) -> Operation:
    def run(body: Json, at: float) -> Json:
        raise AwsError("ResourceNotFoundException", f"The specified {what} does not exist.")

    return run


LOGS: Mapping[str, Operation] = {
    "DescribeLogGroups": _nothing({"logGroups": []}),
    "StartQuery": _unknown("log group"),
    "GetQueryResults": _unknown("query"),
    "StopQuery": _unknown("query"),
    "FilterLogEvents": _unknown("log group"),
}
CODEDEPLOY: Mapping[str, Operation] = {
    "ListDeployments": _nothing({"deployments": []}),
    "BatchGetDeployments": _nothing({"deploymentsInfo": []}),
}
XRAY: Mapping[str, tuple[str, Operation]] = {
    "/ServiceGraph": ("GetServiceGraph", _nothing({"Services": [], "ContainsOldGroupVersions": False})),
    "/TraceSummaries": ("GetTraceSummaries", _nothing({"TraceSummaries": [], "TracesProcessedCount": 0})),
    "/Traces": ("BatchGetTraces", _nothing({"Traces": [], "UnprocessedTraceIds": []})),
    "/StartTraceRetrieval": ("StartTraceRetrieval", _nothing({"RetrievalToken": "nothing"})),
    "/ListRetrievedTraces": ("ListRetrievedTraces", _unknown("retrieval")),
}
"""By path: X-Ray speaks REST."""
