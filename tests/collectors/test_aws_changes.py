"""CodeDeploy, CloudTrail and RDS events on scripted answers."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.aws import changes
from collectors.base import AwsResources, Change, GapReason, Target, Telemetry
from tests.collectors.aws_stubs import ECS_ONLY, INCIDENT, T0, Account, StoppedClock, scope_of

SINCE = INCIDENT.start - timedelta(hours=24)
CLUSTER_ARN = "arn:aws:ecs:eu-west-1:123456789012:cluster/shop"


@pytest.fixture
def account() -> Iterator[Account]:
    account = Account()
    yield account
    account.assert_all_asked()


def of(**resources: object) -> Target:
    return Target(service="payment", aws=AwsResources.model_validate(resources))


async def read(account: Account, *targets: Target) -> Telemetry:
    return await account.run(changes.jobs(account.clients, account.clock, scope_of(*targets)))


# --- RDS ----------------------------------------------------------------------------------------------------


async def test_events_of_a_database_are_lines_and_what_was_done_to_it_is_a_change(account: Account) -> None:
    def event(message: str, at: datetime, *categories: str) -> dict[str, object]:
        return {
            "SourceIdentifier": "orders",
            "SourceType": "db-instance",
            "Message": message,
            "EventCategories": categories,
            "Date": at,
        }

    asked = {
        "SourceIdentifier": "orders",
        "SourceType": "db-instance",
        "StartTime": SINCE,
        "EndTime": INCIDENT.end,
        "MaxRecords": 100,
    }
    first = [
        event("Updated to use DBParameterGroup slow", T0 - timedelta(hours=3), "configuration change"),
        event("DB instance has run out of storage", T0 + timedelta(minutes=1), "low storage"),
        event("from another year", T0 - timedelta(days=400), "failover"),
    ]
    account.answers("rds", "describe_events", {"Events": first, "Marker": "2"}, asked)
    second = [event("DB instance restarted", T0 + timedelta(minutes=2), "availability"), {"Message": "undated"}]
    account.answers("rds", "describe_events", {"Events": second}, {**asked, "Marker": "2"})
    # an instance's events are no resource of CloudTrail's
    account.answers("cloudtrail", "lookup_events", {"Events": []})
    found = await read(account, of(rds_instances=("orders",)))
    assert [(line.level, line.message, line.component) for line in found.logs] == [
        ("error", "DB instance has run out of storage", "payment"),
        ("warning", "DB instance restarted", "payment"),
    ]
    assert [(c.kind, c.title) for c in found.changes] == [
        ("configuration", "RDS orders: Updated to use DBParameterGroup slow"),
        ("other", "RDS orders: DB instance restarted"),
    ]
    assert found.queries[0].rows == 5


async def test_a_cluster_is_asked_as_a_cluster_and_pages_are_bounded(account: Account) -> None:
    for marker in range(changes.PAGES):
        account.answers("rds", "describe_events", {"Events": [], "Marker": str(marker)})
    account.answers("cloudtrail", "lookup_events", {"Events": []})
    found = await read(account, of(rds_clusters=("orders",)))
    assert found.queries[0].text == "rds describe-events --source-type db-cluster --source-identifier orders"
    assert found.queries[0].truncated
    assert [gap.detail for gap in found.gaps] == ["only 0 events of orders were read"]


# --- CodeDeploy ---------------------------------------------------------------------------------------------

DEPLOYED = {"codedeploy_application": "pay", "codedeploy_group": "blue"}


async def test_deployments_and_rollbacks_are_told_apart(account: Account) -> None:
    asked = {
        "applicationName": "pay",
        "deploymentGroupName": "blue",
        "createTimeRange": {"start": SINCE, "end": INCIDENT.end},
    }
    account.answers("codedeploy", "list_deployments", {"deployments": ["d-1"], "nextToken": "x"}, asked)
    more = {"deployments": ["d-2", "d-3", "d-4"]}
    account.answers("codedeploy", "list_deployments", more, {**asked, "nextToken": "x"})
    rows = [
        {
            "deploymentId": "d-1",
            "createTime": T0 - timedelta(minutes=6),
            "startTime": T0 - timedelta(minutes=5),
            "status": "Failed",
            "creator": "user",
            "revision": {"s3Location": {"bucket": "b", "key": "pay-1.4.2.zip", "version": "v7"}},
            "errorInformation": {"code": "HEALTH_CONSTRAINTS", "message": "too many instances failed"},
            "rollbackInfo": {"rollbackDeploymentId": "d-2"},
        },
        {
            "deploymentId": "d-2",
            "createTime": T0,
            "status": "Succeeded",
            "creator": "codeDeployRollback",
            "revision": {"gitHubLocation": {"repository": "shop/pay", "commitId": "4f2a91c"}},
            "rollbackInfo": {"rollbackTriggeringDeploymentId": "d-1"},
        },
        {"deploymentId": "d-3", "createTime": T0, "status": "Succeeded", "creator": "autoscaling"},
        {"deploymentId": "d-4", "status": "Created"},
    ]
    batch = {"deploymentIds": ["d-1", "d-2", "d-3", "d-4"]}
    account.answers("codedeploy", "batch_get_deployments", {"deploymentsInfo": rows}, batch)
    found = await read(account, of(**DEPLOYED))
    assert [(c.kind, c.at, c.version, c.author, c.title) for c in found.changes] == [
        (
            "deploy",
            T0 - timedelta(minutes=5),
            "pay-1.4.2.zip@v7",
            "user",
            "CodeDeploy deployment d-1: Failed; HEALTH_CONSTRAINTS too many instances failed; undone by d-2",
        ),
        ("deploy", T0, "4f2a91c", "codeDeployRollback", "CodeDeploy rollback d-2: Succeeded; undoes d-1"),
        ("scaling", T0, "", "autoscaling", "CodeDeploy deployment d-3: Succeeded"),
    ]
    assert found.changes[0].link == (
        "https://eu-west-1.console.aws.amazon.com/codesuite/codedeploy/deployments/d-1?region=eu-west-1"
    )


async def test_deployments_are_described_25_at_a_time(account: Account) -> None:
    account.answers("codedeploy", "list_deployments", {"deployments": [f"d-{n}" for n in range(26)]})
    account.answers("codedeploy", "batch_get_deployments", {"deploymentsInfo": []})
    account.answers("codedeploy", "batch_get_deployments", {}, {"deploymentIds": ["d-25"]})
    await read(account, of(**DEPLOYED))


async def test_an_application_without_a_group_says_what_to_add(account: Account) -> None:
    account.answers("cloudtrail", "lookup_events", {})
    found = await read(account, of(codedeploy_application="pay", elasticache_clusters=("sessions",)))
    assert [(gap.reason, gap.mend) for gap in found.gaps] == [
        (GapReason.NOT_CONFIGURED, "set aws.codedeploy_group of payment in the catalogue")
    ]


# --- CloudTrail ---------------------------------------------------------------------------------------------


def called(name: str, parameters: object, *, source: str = "ecs", **more: object) -> dict[str, object]:
    detail: dict[str, object] = {
        "eventVersion": "1.08",
        "userIdentity": {
            "type": "AssumedRole",
            "arn": "arn:aws:sts::123456789012:assumed-role/Deployer/alice",
            "sessionContext": {"sessionIssuer": {"type": "Role", "userName": "Deployer"}},
        },
        "eventSource": f"{source}.amazonaws.com",
        "eventName": name,
        "sourceIPAddress": "203.0.113.1",
        "requestParameters": parameters,
        **more,
    }
    return {
        "EventId": "e-1",
        "EventName": name,
        "ReadOnly": "false",
        "EventTime": T0 - timedelta(minutes=7),
        "Username": "alice",
        "CloudTrailEvent": json.dumps(detail),
    }


def looks_up(account: Account, key: str, value: str, *events: Mapping[str, object], **more: object) -> None:
    asked = {
        "LookupAttributes": [{"AttributeKey": key, "AttributeValue": value}],
        "StartTime": SINCE,
        "EndTime": INCIDENT.end,
        "MaxResults": 50,
    }
    account.answers("cloudtrail", "lookup_events", {"Events": list(events), **more}, asked)


async def test_calls_about_a_service_say_who_did_what(account: Account) -> None:
    ours = {"cluster": CLUSTER_ARN, "service": "payment-service"}
    revision = "arn:aws:ecs:eu-west-1:123456789012:task-definition/payment:43"
    unnamed = {**called("UpdateService", {**ours, "platformVersion": "1.4.0"}), "Username": ""}
    looks_up(
        account,
        "EventName",
        "UpdateService",
        called("UpdateService", {**ours, "taskDefinition": revision, "environment": "PASSWORD=x"}),
        called("UpdateService", {**ours, "desiredCount": 0}),
        called("UpdateService", {**ours, "desiredCount": 9}, errorCode="AccessDenied"),
        unnamed,
        called("UpdateService", {"cluster": "shop", "service": "cart", "desiredCount": 1}),
        called("UpdateService", {"cluster": "staging", "service": "payment-service", "desiredCount": 1}),
        {**called("UpdateService", ours), "ReadOnly": "true"},
        {**called("UpdateService", ours), "EventTime": T0 + timedelta(days=3)},
    )
    scalable = {"resourceId": "service/shop/payment-service", "minCapacity": 2, "maxCapacity": 4}
    looks_up(
        account,
        "EventName",
        "RegisterScalableTarget",
        called("RegisterScalableTarget", scalable, source="application-autoscaling"),
    )
    found = await read(account, ECS_ONLY)
    assert [(c.kind, c.title, c.version, c.author) for c in found.changes] == [
        ("deploy", "UpdateService: taskDefinition payment:43", "payment:43", "alice"),
        ("scaling", "UpdateService: desiredCount 0", "", "alice"),
        ("other", "UpdateService: desiredCount 9 (refused: AccessDenied)", "", "alice"),
        ("configuration", "UpdateService", "", "arn:aws:sts::123456789012:assumed-role/Deployer/alice"),
        ("scaling", "RegisterScalableTarget: minCapacity 2, maxCapacity 4", "", "alice"),
    ]
    assert found.gaps == ()
    assert [query.rows for query in found.queries] == [8, 1]


async def test_functions_and_databases_are_looked_up_in_their_own_way(account: Account) -> None:
    function = "arn:aws:lambda:eu-west-1:123456789012:function:charge:live"
    code = called("UpdateFunctionCode20150331v2", {"functionName": function}, source="lambda")
    looks_up(account, "EventName", "UpdateFunctionCode20150331v2", code)
    settings = called("UpdateFunctionConfiguration20150331v2", {"functionName": "charge", "timeout": 3})
    other = called("UpdateFunctionConfiguration20150331v2", {"functionName": "refund", "timeout": 3})
    looks_up(account, "EventName", "UpdateFunctionConfiguration20150331v2", settings, other)
    resized = called("ModifyDBInstance", {"dBInstanceClass": "db.t3.micro"}, source="rds")
    failed_over = called("RebootDBInstance", {}, source="rds")
    namesake = called("CreateRole", {}, source="iam")
    account.answers("rds", "describe_events", {"Events": []})
    looks_up(account, "ResourceName", "orders", resized, failed_over, namesake)
    found = await read(account, of(lambda_functions=("charge",), rds_instances=("orders",)))
    assert [(c.kind, c.title) for c in found.changes] == [
        ("deploy", "UpdateFunctionCode"),
        ("configuration", "UpdateFunctionConfiguration: timeout 3"),
        ("configuration", "ModifyDBInstance: dBInstanceClass db.t3.micro"),
        ("other", "RebootDBInstance"),
    ]


async def test_rows_that_make_no_sense_are_counted_and_pages_end(account: Account) -> None:
    odd = [
        {"CloudTrailEvent": "{not json", "EventTime": T0},
        {"CloudTrailEvent": "[1]", "EventTime": T0},
        {"EventTime": T0},
        {"CloudTrailEvent": "{}"},
        called("UpdateService", ["a list"]),
        called("UpdateService", {"cluster": {"a": 1}, "service": 3, "resourceId": None}),
    ]
    account.answers("cloudtrail", "lookup_events", {"Events": odd, "NextToken": "1"})
    for token in ("2", "3"):  # empty pages with a token
        account.answers("cloudtrail", "lookup_events", {"Events": [], "NextToken": token})
    account.answers("cloudtrail", "lookup_events", {})
    found = await read(account, ECS_ONLY)
    assert found.changes == ()
    text = "cloudtrail lookup-events --lookup-attributes AttributeKey=EventName,AttributeValue=UpdateService"
    assert [gap.detail for gap in found.gaps] == [
        f"4 rows were not understood: {text}",
        "only 6 calls of UpdateService in CloudTrail were read",
    ]


async def test_what_is_refused_once_is_not_asked_again(account: Account) -> None:
    account.answers("rds", "describe_events", {"Events": []})
    account.refuses("cloudtrail", "lookup_events", "AccessDeniedException")
    found = await read(account, ECS_ONLY, of(rds_instances=("orders",)))
    assert [(gap.reason, gap.mend) for gap in found.gaps] == [
        (GapReason.FORBIDDEN, "allow the role the action cloudtrail:LookupEvents")
    ]


@pytest.mark.parametrize(("minutes", "told"), [(2, ["08:57"]), (6, [])])
async def test_what_came_just_before_may_not_be_in_cloudtrail_yet(minutes: int, told: list[str]) -> None:
    account = Account(StoppedClock(T0 + timedelta(minutes=minutes)))
    account.answers("cloudtrail", "lookup_events", {})
    found = await read(account, of(elasticache_clusters=("sessions",)))
    assert [(gap.reason, gap.detail.partition("those after ")[2][:5]) for gap in found.gaps] == [
        (GapReason.TRUNCATED, since) for since in told
    ]


def test_a_deployment_and_the_call_that_made_it_are_one_change() -> None:
    def change(
        title: str, minutes: float, version: str = "", author: str = "", kind: changes.Kind = "deploy"
    ) -> Change:
        at = T0 + timedelta(minutes=minutes)
        return Change(component="payment", at=at, kind=kind, title=title, version=version, author=author)

    deployments = [
        change("ECS deployment of pay:43: COMPLETED", 0.1, "pay:43"),
        change("ECS deployment of pay:43", 9, "pay:43"),
    ]
    calls = [
        change("UpdateService: desiredCount 4, taskDefinition pay:43", 0, "pay:43", "alice"),
        change("UpdateService: forceNewDeployment True", 9, "", "bob"),
        change("UpdateService: taskDefinition pay:44", 9, "pay:44", "carol"),
        change("UpdateService: desiredCount 3", 0, "", "alice", "scaling"),
    ]
    told = list(changes.told_once([*deployments, *calls]))
    assert told[0].title.endswith("COMPLETED; UpdateService: desiredCount 4, taskDefinition pay:43")
    assert [(one.title.partition(":")[0], one.author) for one in told] == [
        ("ECS deployment of pay", "alice"),
        ("ECS deployment of pay", "bob"),
        ("UpdateService", "carol"),
        ("UpdateService", "alice"),
    ]


async def test_lookups_are_few(account: Account) -> None:
    names = tuple(f"cache-{n}" for n in range(14))
    for _ in range(changes.LOOKUPS):
        account.answers("cloudtrail", "lookup_events", {})
    found = await read(account, of(elasticache_clusters=names))
    assert [gap.detail for gap in found.gaps] == [
        "CloudTrail allows two lookups a second: not looked up: cache-12, cache-13"
    ]


def test_nothing_is_asked_about_services_that_aws_does_not_run(account: Account) -> None:
    jobs = changes.jobs(account.clients, account.clock, scope_of(Target(service="payment")))
    assert list(jobs) == []


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_event_of_a_stranger_is_taken_or_left(parameters: object) -> None:
    text = json.dumps({"requestParameters": parameters, "userIdentity": parameters, "errorCode": parameters})
    detail = changes._object_of(text)
    assert detail is None or changes._who(changes._object(detail["userIdentity"])) is not None
    if detail is not None:
        assert list(changes._of_ecs([ECS_ONLY], detail)) == []
        assert list(changes._of_lambda([of(lambda_functions=("charge",))], detail)) == []
