from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid5

import pytest
from botocore.stub import ANY, Stubber

from executors._aws import Connection
from executors.base import AnyOperation, Automation, Change, ExecutorError, Grant, Refused, Resource, State
from executors.ssm import READS, RunAutomation, Settings
from tests.executors.conftest import InstantClock
from tests.executors.guarded import META, guarded, write_actions

ROLE = "arn:aws:iam::123456789012:role/automation"
RESOURCES = {
    "web": Resource(
        service="web",
        automations=(
            Automation(
                document="Drain", version="3", parameters={"Host": ("web-1",)}, assume_role=ROLE, reverse="Undrain"
            ),
            Automation(document="Undrain", version="2", parameters={"Host": ("web-1",)}),
            Automation(document="Latest", version="$LATEST"),
        ),
    ),
    "pay": Resource(service="pay", automations=(Automation(document="Purge", version="1"),)),
    "legacy": Resource(service="legacy"),
}


@pytest.fixture
def aws() -> Iterator[tuple[Connection[Any], Stubber]]:
    with guarded("ssm", READS) as pair:
        yield pair


@pytest.fixture
def stub(aws: tuple[Connection[Any], Stubber]) -> Stubber:
    return aws[1]


@pytest.fixture
def run(aws: tuple[Connection[Any], Stubber]) -> RunAutomation:
    return RunAutomation(RESOURCES, InstantClock(), aws[0])


def document(stub: Stubber, name: str = "Drain", version: str = "3", **more: str) -> None:
    found = {"Hash": "abc", "DocumentType": "Automation", "Status": "Active", **more}
    stub.add_response("describe_document", {"Document": found}, {"Name": name, "DocumentVersion": version})


def uid(name: str) -> str:
    """As long as SSM's ids are."""
    return name.ljust(36, "-")


def execution(id_: str, status: str = "Success", version: str = "3", name: str = "Drain") -> dict[str, str]:
    return {
        "AutomationExecutionId": uid(id_),
        "DocumentName": name,
        "DocumentVersion": version,
        "AutomationExecutionStatus": status,
    }


def runs(stub: Stubber, *executions: dict[str, str], name: str = "Drain") -> None:
    asked = {"Filters": [{"Key": "DocumentNamePrefix", "Values": [name]}], "MaxResults": 50}
    other = execution("other", "InProgress", name=f"{name}AndMore")  # the filter takes a prefix
    old = execution("old", name=name)
    stub.add_response(
        "describe_automation_executions", {"AutomationExecutionMetadataList": [*executions, other, old]}, asked
    )


def starts(stub: Stubber, token: object, name: str = "Drain", version: str = "3", **role: list[str]) -> None:
    asked = {
        "DocumentName": name,
        "DocumentVersion": version,
        "Parameters": {"Host": ["web-1"], **role},
        "ClientToken": token,
        "Mode": "Auto",
    }
    answer = {"AutomationExecutionId": uid("new"), "ResponseMetadata": META}
    stub.add_response("start_automation_execution", answer, asked)


def gets(stub: Stubber, status: str, id_: str = uid("new")) -> None:
    stub.add_response(
        "get_automation_execution",
        {"AutomationExecution": {"AutomationExecutionStatus": status}},
        {"AutomationExecutionId": id_},
    )


async def read(run: AnyOperation, stub: Stubber) -> tuple[Any, State]:
    params = run.params(service="web", document="Drain")
    document(stub)
    runs(stub)
    return params, await run.inspect(params)


# --- only what the catalogue lists ---


def test_a_document_must_be_in_the_services_own_list(run: AnyOperation) -> None:
    assert run.resource(run.params(service="web", document="Drain")) == "ssm:web/Drain"
    with pytest.raises(Refused, match=r"services.web.automations in .* has no Purge; it has Drain, Undrain"):
        run.resource(run.params(service="web", document="Purge"))
    with pytest.raises(Refused, match="legacy has no automations"):
        run.resource(run.params(service="legacy", document="Drain"))


@pytest.mark.parametrize(
    ("name", "version", "found", "executions", "said"),
    [
        ("Drain", "3", {"DocumentType": "Command"}, [], "of type Command, not Automation"),
        ("Drain", "3", {"Status": "Deleting"}, [], "Drain is Deleting"),
        ("Drain", "3", {}, [execution("e1", "Waiting")], r"running already \(e1-+\)"),
        ("Drain", "3", {}, [execution("e1", "Cancelling")], r"running already \(e1-+\)"),
        ("Latest", "$LATEST", {}, [], r"listed with version \$LATEST; pin a number"),
    ],
)
async def test_a_run_that_must_not_be_is_refused(
    run: AnyOperation,
    stub: Stubber,
    name: str,
    version: str,
    found: dict[str, str],
    executions: list[dict[str, str]],
    said: str,
) -> None:
    params = run.params(service="web", document=name)
    document(stub, name, version, **found)
    runs(stub, *executions, name=name)
    before = await run.inspect(params)
    with pytest.raises(Refused, match=said):
        run.changes(params, before)
    with pytest.raises(Refused, match=said):
        await run.execute(params, before)


# --- running ---


async def test_a_document_is_run_once_with_the_catalogues_parameters(run: AnyOperation, stub: Stubber) -> None:
    params, before = await read(run, stub)
    starts(stub, before["token"], AutomationAssumeRole=[ROLE])
    runs(stub)
    runs(stub, execution("e1", "PendingApproval"))
    runs(stub, execution("e1"))

    assert run.preview(params, before) == "web: run Drain version 3 (Host=web-1); undone by Undrain"
    assert run.changes(params, before) == (Change(what="Drain version 3", before="not running", after="run once"),)
    assert (await run.execute(params, before)).request_ids == ("req-1",)
    assert (await run.settle(params, before))["execution"] == uid("e1")


async def test_each_reading_has_a_token_of_its_own_that_no_approval_is_bound_to(
    run: AnyOperation, stub: Stubber
) -> None:
    params, first = await read(run, stub)
    _, second = await read(run, stub)
    assert first["token"] != second["token"]
    assert UUID(str(first["token"])).version == 4
    pinned = run.pinned(params, first)
    assert pinned == run.pinned(params, second)
    assert pinned == {
        "document version": "3",
        "document hash": "abc",
        "parameters": {"Host": ["web-1"]},
        "role": ROLE,
    }


async def test_a_repeated_call_has_the_same_token(run: AnyOperation, stub: Stubber) -> None:
    params, before = await read(run, stub)
    for _ in range(2):
        starts(stub, before["token"], AutomationAssumeRole=[ROLE])
        await run.execute(params, before)


async def test_just_this_version_and_just_its_role_are_granted(run: AnyOperation, stub: Stubber) -> None:
    params, before = await read(run, stub)
    start, stop, passing = run.grants(params, before)
    assert start.resources == (
        "arn:aws:ssm:us-east-1:*:automation-definition/Drain:3",
        "arn:aws:ssm:us-east-1:*:automation-definition/Undrain:2",
    )
    assert stop.actions == ("ssm:StopAutomationExecution",)
    assert passing == Grant(
        actions=("iam:PassRole",),
        resources=(ROLE,),
        conditions={"StringEquals": {"iam:PassedToService": ("ssm.amazonaws.com",)}},
    )
    write_actions(run, (start, stop, passing))


@pytest.mark.parametrize("status", ["Failed", "TimedOut", "Cancelled", "Rejected"])
async def test_an_execution_that_failed_ends_the_wait(run: AnyOperation, stub: Stubber, status: str) -> None:
    params, before = await read(run, stub)
    runs(stub, execution("e1", status))
    with pytest.raises(ExecutorError, match=f"Drain: execution e1-+ is {status}; see its steps"):
        await run.settle(params, before)


async def test_two_new_executions_are_nobodys_success(run: AnyOperation, stub: Stubber) -> None:
    params, before = await read(run, stub)
    runs(stub, execution("e1"), execution("e2"))
    with pytest.raises(ExecutorError, match=r"Drain was run more than once: e1-+, e2"):
        await run.settle(params, before)


@pytest.mark.parametrize(
    ("new", "answer"),
    [
        ([], "not_done"),
        ([execution("e1", "InProgress")], "done"),
        ([execution("e1", version="4")], "unknown"),
        ([execution("e1"), execution("e2")], "unknown"),
    ],
)
async def test_a_run_is_probed_by_new_executions(
    run: AnyOperation, stub: Stubber, new: list[dict[str, str]], answer: str
) -> None:
    params, before = await read(run, stub)
    runs(stub, *new)
    assert await run.probe(params, before) == answer


# --- dry run ---


def previews(stub: Stubber, *statuses: str) -> None:
    asked = {
        "DocumentName": "Drain",
        "DocumentVersion": "3",
        "ExecutionInputs": {"Automation": {"Parameters": {"Host": ["web-1"]}}},
    }
    stub.add_response("start_execution_preview", {"ExecutionPreviewId": "p" * 36}, asked)
    for status in statuses:
        found = {"StepPreviews": {"Mutating": 3, "NonMutating": 1}, "Regions": ["us-east-1"]}
        answer = {"Status": status, "ExecutionPreview": {"Automation": found}}
        stub.add_response("get_execution_preview", answer, {"ExecutionPreviewId": "p" * 36})


@pytest.mark.parametrize(("end", "status"), [("Success", "ok"), ("Failed", "failed")])
async def test_ssm_previews_the_document(run: AnyOperation, stub: Stubber, end: str, status: str) -> None:
    params, before = await read(run, stub)
    previews(stub, "Pending", "InProgress", end)
    dry_run, *_ = await run.preflight(params, before)
    assert (dry_run.name, dry_run.status) == ("dry_run", status)
    assert dry_run.detail == (
        f"SSM's preview ({end}): 3 steps change something, 1 only look, 0 cannot be told in us-east-1"
    )


async def test_a_preview_that_may_not_be_had_is_skipped(run: AnyOperation, stub: Stubber) -> None:
    params, before = await read(run, stub)
    stub.add_client_error("start_execution_preview", "AccessDeniedException", "no", 400)
    dry_run, *_ = await run.preflight(params, before)
    assert dry_run.status == "skipped"
    assert "Allow ssm:StartExecutionPreview" in dry_run.detail


# --- undo ---


async def test_a_finished_run_is_reversed_by_the_named_document(run: AnyOperation, stub: Stubber) -> None:
    params, before = await read(run, stub)
    runs(stub, execution("e1"))
    starts(stub, str(uuid5(UUID(str(before["token"])), "undo")), "Undrain", "2")
    gets(stub, "InProgress")
    gets(stub, "Success")
    assert (await run.undo(params, before)).detail == "web: ran Undrain"


async def test_a_running_one_is_stopped_first(run: AnyOperation, stub: Stubber) -> None:
    params, before = await read(run, stub)
    id_ = uid("e1")
    runs(stub, execution(id_, "InProgress"))
    stub.add_response(
        "stop_automation_execution", {"ResponseMetadata": META}, {"AutomationExecutionId": id_, "Type": "Cancel"}
    )
    gets(stub, "Cancelling", id_)
    gets(stub, "Cancelled", id_)
    starts(stub, ANY, "Undrain", "2")
    gets(stub, "Success")
    outcome = await run.undo(params, before)
    assert outcome.request_ids == ("req-1", "req-1")
    assert outcome.detail == f"web: execution {id_} stopped where it was; web: ran Undrain"


async def test_a_reverse_that_fails_is_an_error(run: AnyOperation, stub: Stubber) -> None:
    params, before = await read(run, stub)
    runs(stub, execution("e1"))
    starts(stub, ANY, "Undrain", "2")
    gets(stub, "Failed")
    with pytest.raises(ExecutorError, match=r"Undrain: execution .* is Failed"):
        await run.undo(params, before)


async def test_without_a_reverse_a_finished_run_stays(run: AnyOperation, stub: Stubber) -> None:
    params = run.params(service="pay", document="Purge")
    document(stub, "Purge", "1")
    runs(stub, name="Purge")
    runs(stub, execution("e1", version="1", name="Purge"), name="Purge")
    before = await run.inspect(params)
    assert run.preview(params, before).endswith("(no parameters); once it has ended it cannot be undone")
    assert len(run.grants(params, before)) == 2  # no role to pass
    with pytest.raises(Refused, match="Purge has ended, and the catalogue names no reverse"):
        await run.undo(params, before)


async def test_what_was_not_run_needs_no_undo(run: AnyOperation, stub: Stubber) -> None:
    params, before = await read(run, stub)
    runs(stub)
    assert (await run.undo(params, before)).detail == "web: Drain was not run"
    runs(stub, execution("e1"), execution("e2"))
    with pytest.raises(Refused, match="run again by somebody else"):
        await run.undo(params, before)


async def test_under_a_role_a_document_needs_a_role_of_its_own(
    run: RunAutomation, stub: Stubber, aws: tuple[Connection[Any], Stubber]
) -> None:
    """Its steps would act by the session that starts it, which may only start it."""
    aws[0].settings = Settings(role_arn=ROLE)
    for name, version in (("Drain", "3"), ("Undrain", "2")):
        document(stub, name, version)
        runs(stub, name=name)
        stub.add_client_error("start_execution_preview", "AccessDeniedException", "no", 400)
    own = run.params(service="web", document="Drain")
    assert [c.name for c in await run.looked(own, await run.inspect(own))] == ["dry_run"]
    without = run.params(service="web", document="Undrain")
    found, _ = await run.looked(without, await run.inspect(without))
    assert (found.name, found.status) == ("permission", "failed")
    assert "Undrain has no assume_role in autopilot.yaml" in found.detail
