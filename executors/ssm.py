"""Runs SSM Automation documents from the catalogue's list of the service, and nothing else.

Document, version, parameters and role come from the catalogue only; a plan names the document. Every reading of the
state draws a new client token, which is stored with the claim of the step: SSM starts one execution per token, so a
call that is repeated after a crash starts nothing a second time.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid4, uuid5

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from executors._aws import Api, AwsSettings, Connection, settled
from executors._aws_service import AwsExecutor, AwsOperation, ServiceParams
from executors.base import (
    Automation,
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
    from mypy_boto3_ssm import SSMClient
    from mypy_boto3_ssm.type_defs import AutomationExecutionMetadataTypeDef, GetExecutionPreviewResponseTypeDef

AWS = Api(iam_prefix="ssm")
READS = (
    "ssm:DescribeDocument",
    "ssm:DescribeAutomationExecutions",
    "ssm:GetAutomationExecution",
    "ssm:StartExecutionPreview",
    "ssm:GetExecutionPreview",
)
DEADLINE_S = 30 * 60.0
PREVIEW_S = 60.0
KNOWN = 50  # executions that are told apart from new ones; as many as one answer has
OVER = {"Success", "CompletedWithSuccess"}
FAILED = {"TimedOut", "Cancelled", "Failed", "Rejected", "CompletedWithFailure", "Exited", "Cancelling"}


class Settings(AwsSettings):
    """How to reach Systems Manager."""

    model_config = SettingsConfigDict(
        env_prefix="AUTOPILOT_SSM_", env_file=".env", env_ignore_empty=True, extra="ignore"
    )


# --- parameters ---------------------------------------------------------------------------------------------


class AutomationParams(ServiceParams):
    """One service and one of the documents that the catalogue lists for it."""

    document: str = Field(min_length=1, description="Name of the document in the service's automations")


# --- what was read ------------------------------------------------------------------------------------------


class Execution(Model):
    """One run of a document."""

    id: str
    version: str
    status: str

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.status not in OVER | FAILED or self.status == "Cancelling"


class AutomationState(Model):
    """A document of the catalogue, and its runs so far."""

    document: str
    version: str
    sha256: str = Field(description="Of the document's text, as SSM has it")
    kind: str = Field(description="DocumentType")
    status: str
    parameters: dict[str, tuple[str, ...]]
    assume_role: str | None
    token: str = Field(description="Client token of the one execution this reading is for")
    running: tuple[str, ...] = Field(description="Ids of executions under way")
    known: tuple[str, ...] = Field(description="Ids of the last executions; another one came after the reading")


# --- operations ---------------------------------------------------------------------------------------------


class RunAutomation(AwsOperation[AutomationParams, "SSMClient"]):
    """Runs one document with the parameters of the catalogue."""

    name = "run_automation"
    summary = "Run an SSM Automation document that the catalogue lists for the service, with its parameters from there"
    risk = "high"  # whatever the document says; the catalogue's own `risk` of it is for people to read
    reversible = True
    minutes = 10.0
    permissions = (*READS, "ssm:StartAutomationExecution", "ssm:StopAutomationExecution")
    params = AutomationParams
    needs = "automations (document, version)"

    def target(self, resource: Resource) -> object:
        """At least one document."""
        return resource.automations

    def resource(self, params: AutomationParams) -> str:
        """``ssm:<service>/<document>``. Raises Refused if the service's list does not have it."""
        return f"ssm:{params.service}/{self._listed(params.service, params.document).document}"

    async def inspect(self, params: AutomationParams) -> State:
        """The document in its pinned version, its runs, and a new client token."""
        listed = self._listed(params.service, params.document)
        answer = await AWS.read(
            self.connection.reader.describe_document, Name=listed.document, DocumentVersion=listed.version
        )
        found, runs = answer["Document"], await self._runs(listed.document)
        return AutomationState(
            document=listed.document,
            version=listed.version,
            sha256=found.get("Hash", ""),
            kind=found.get("DocumentType", ""),
            status=found.get("Status", ""),
            parameters=listed.parameters,
            assume_role=listed.assume_role,
            token=str(uuid4()),
            running=tuple(run.id for run in runs if run.running),
            known=tuple(run.id for run in runs),
        ).model_dump(mode="json")

    def pinned(self, params: AutomationParams, before: State) -> State:
        """The document's text and what it is run with."""
        state = AutomationState.model_validate(before)
        return {
            "document version": state.version,
            "document hash": state.sha256,
            "parameters": {name: list(values) for name, values in state.parameters.items()},
            "role": state.assume_role,
        }

    def preview(self, params: AutomationParams, before: State) -> str:
        """Which document, with what, and how it would be undone."""
        state = AutomationState.model_validate(before)
        if state.kind != "Automation":
            raise Refused(f"{params.service}: {state.document} is a document of type {state.kind}, not Automation.")
        if state.status != "Active":
            raise Refused(f"{params.service}: {state.document} is {state.status} in SSM.")
        if not state.version.isdigit():
            raise Refused(
                f"{params.service}: {state.document} is listed with version {state.version}; pin a number, so that"
                " nobody can change what was approved."
            )
        if state.running:
            raise Refused(f"{params.service}: {state.document} is running already ({', '.join(state.running)}).")
        given = "; ".join(f"{name}={', '.join(values)}" for name, values in state.parameters.items())
        reverse = self._listed(params.service, params.document).reverse
        back = f"undone by {reverse}" if reverse else "once it has ended it cannot be undone"
        return f"{params.service}: run {state.document} version {state.version} ({given or 'no parameters'}); {back}"

    def changes(self, params: AutomationParams, before: State) -> tuple[Change, ...]:
        """What the document does is its own; that it is run."""
        self.preview(params, before)
        state = AutomationState.model_validate(before)
        return (Change(what=f"{state.document} version {state.version}", before="not running", after="run once"),)

    async def looked(self, params: AutomationParams, before: State) -> tuple[PreflightCheck, ...]:
        """SSM's own preview of the document: it counts the steps that change something, and runs none."""
        state = AutomationState.model_validate(before)
        return (*self._role(state), await self._dry_run(state))

    def _role(self, state: AutomationState) -> tuple[PreflightCheck, ...]:
        """A document without a role of its own acts by the session that starts it, which may do nothing else."""
        settings = self.connection.settings
        if state.assume_role or settings is None or not settings.role_arn:
            return ()
        told = (
            f"{state.document} has no assume_role in autopilot.yaml: it would act by the session that starts it,"
            f" which may do nothing but start it. Name a role that SSM may assume for {state.document}."
        )
        return (PreflightCheck(name="permission", status="failed", detail=told),)

    async def _dry_run(self, state: AutomationState) -> PreflightCheck:
        try:
            seen = await self._previewed(state)
        except ExecutorError as error:
            return PreflightCheck(name="dry_run", status="skipped", detail=str(error))
        status = "ok" if seen["Status"] == "Success" else "failed"
        return PreflightCheck(name="dry_run", status=status, detail=_foreseen(seen))

    def grants(self, params: AutomationParams, before: State) -> tuple[Grant, ...]:
        """To start this version, to stop what it started, and to hand it just its role; the same for its reverse."""
        listed = self._listed(params.service, params.document)
        both = [listed, *([self._listed(params.service, listed.reverse)] if listed.reverse else [])]
        roles = tuple(sorted({one.assume_role for one in both if one.assume_role}))
        meta = self.connection.reader.meta
        # AWS's own documents are in AWS's account, the others in ours: neither is told beforehand.
        prefix = f"arn:{meta.partition}:ssm:{meta.region_name}:*"
        start = Grant(
            actions=("ssm:StartAutomationExecution",),
            resources=tuple(f"{prefix}:automation-definition/{one.document}:{one.version}" for one in both),
        )
        stop = Grant(actions=("ssm:StopAutomationExecution",), resources=(f"{prefix}:automation-execution/*",))
        only_ssm = {"StringEquals": {"iam:PassedToService": ("ssm.amazonaws.com",)}}
        passing = Grant(actions=("iam:PassRole",), resources=roles, conditions=only_ssm)
        return (start, stop, *((passing,) if roles else ()))

    async def execute(self, params: AutomationParams, before: State) -> Outcome:
        """One StartAutomationExecution, with the token of the reading."""
        detail, state = self.preview(params, before), AutomationState.model_validate(before)
        listed = self._listed(params.service, params.document)
        return await self._start(params, before, listed, state.token, detail)

    async def settle(self, params: AutomationParams, before: State) -> State:
        """Waits up to 30 minutes for the end of the execution; one that did not succeed is an error."""
        saved = AutomationState.model_validate(before)

        def lacking(new: Sequence[Execution]) -> str:
            if len(new) > 1:
                raise ExecutorError(f"{saved.document} was run more than once: {', '.join(run.id for run in new)}")
            return _unfinished(saved.document, new[0]) if new else f"{saved.document} to start"

        (run,) = await settled(self.clock, lambda: self._new(saved.document, saved.known), lacking, DEADLINE_S)
        return {**before, "execution": run.id, "execution_status": run.status}

    async def probe(self, params: AutomationParams, before: State) -> Probe:
        """Done if one new execution of this version is there; a repeated call starts none beside it."""
        saved = AutomationState.model_validate(before)
        new = await self._new(saved.document, saved.known)
        if not new:
            return "not_done"
        return "done" if [run.version for run in new] == [saved.version] else "unknown"

    async def undo(self, params: AutomationParams, before: State) -> Outcome:
        """Stops what still runs; then, where the catalogue names one, runs the reverse document to its end."""
        saved = AutomationState.model_validate(before)
        new = await self._new(saved.document, saved.known)
        if not new:
            return Outcome(detail=f"{params.service}: {saved.document} was not run")
        if len(new) > 1:
            raise Refused(f"{params.service}: {saved.document} was run again by somebody else; not undone.")
        listed = self._listed(params.service, params.document)
        if not new[0].running and not listed.reverse:
            raise Refused(f"{params.service}: {saved.document} has ended, and the catalogue names no reverse of it.")
        stopped = await self._stop(params, before, new[0]) if new[0].running else Outcome()
        if not listed.reverse:
            return stopped
        reversed_ = await self._reverse(params, before, listed)
        return Outcome(
            request_ids=(*stopped.request_ids, *reversed_.request_ids),
            detail="; ".join(filter(None, (stopped.detail, reversed_.detail))),
        )

    def _listed(self, service: str, document: str) -> Automation:
        """The document as the catalogue lists it. Raises Refused."""
        automations = self.entry(service).automations
        found = next((one for one in automations if one.document == document), None)
        if found is None:
            allowed = ", ".join(one.document for one in automations)
            raise Refused(f"services.{service}.automations in autopilot.yaml has no {document}; it has {allowed}.")
        return found

    async def _runs(self, document: str) -> list[Execution]:
        """The last executions of a document."""
        answer = await AWS.read(
            self.connection.reader.describe_automation_executions,
            Filters=[{"Key": "DocumentNamePrefix", "Values": [document]}],
            MaxResults=KNOWN,
        )
        return [_execution(one) for one in answer["AutomationExecutionMetadataList"] if _runs_document(one, document)]

    async def _new(self, document: str, known: Collection[str]) -> list[Execution]:
        return [run for run in await self._runs(document) if run.id not in known]

    async def _start(
        self, params: AutomationParams, before: State, listed: Automation, token: str, detail: str
    ) -> Outcome:
        role = {"AutomationAssumeRole": [listed.assume_role]} if listed.assume_role else {}
        async with self.connection.acting(self.name, self.grants(params, before)) as client:
            answer = await AWS.write(
                client.start_automation_execution,
                DocumentName=listed.document,
                DocumentVersion=listed.version,
                Parameters={**{name: list(values) for name, values in listed.parameters.items()}, **role},
                ClientToken=token,
                Mode="Auto",
            )
        execution = answer["AutomationExecutionId"]
        return Outcome(
            request_ids=(answer["ResponseMetadata"]["RequestId"],), detail=detail, data={"execution": execution}
        )

    async def _stop(self, params: AutomationParams, before: State, run: Execution) -> Outcome:
        async with self.connection.acting(self.name, self.grants(params, before)) as client:
            answer = await AWS.write(client.stop_automation_execution, AutomationExecutionId=run.id, Type="Cancel")
        await settled(
            self.clock,
            lambda: self._run(run.id),
            lambda now: f"{run.id} to stop" if now.running else "",
            DEADLINE_S,
        )
        return Outcome(
            request_ids=(answer["ResponseMetadata"]["RequestId"],),
            detail=f"{params.service}: execution {run.id} stopped where it was",
        )

    async def _reverse(self, params: AutomationParams, before: State, listed: Automation) -> Outcome:
        reverse = self._listed(params.service, str(listed.reverse))
        # The token follows from the first one, so that an undo repeated after a crash reverses once.
        token = str(uuid5(UUID(AutomationState.model_validate(before).token), "undo"))
        outcome = await self._start(params, before, reverse, token, f"{params.service}: ran {reverse.document}")
        execution = cast("str", outcome.data["execution"])
        await settled(
            self.clock, lambda: self._run(execution), lambda run: _unfinished(reverse.document, run), DEADLINE_S
        )
        return outcome

    async def _run(self, execution: str) -> Execution:
        answer = await AWS.read(self.connection.reader.get_automation_execution, AutomationExecutionId=execution)
        found = answer["AutomationExecution"]
        return Execution(
            id=execution, version=found.get("DocumentVersion", ""), status=found.get("AutomationExecutionStatus", "")
        )

    async def _previewed(self, state: AutomationState) -> "GetExecutionPreviewResponseTypeDef":
        """SSM's preview, when it is finished. Raises ExecutorError."""
        reader = self.connection.reader
        parameters = {name: list(values) for name, values in state.parameters.items()}
        started = await AWS.read(
            reader.start_execution_preview,
            DocumentName=state.document,
            DocumentVersion=state.version,
            ExecutionInputs={"Automation": {"Parameters": parameters}},
        )
        return await settled(
            self.clock,
            lambda: AWS.read(reader.get_execution_preview, ExecutionPreviewId=started["ExecutionPreviewId"]),
            lambda seen: "SSM's preview" if seen["Status"] in ("Pending", "InProgress") else "",
            PREVIEW_S,
            every_s=2,
        )


OPERATIONS: tuple[type[AwsOperation[Any, "SSMClient"]], ...] = (RunAutomation,)


def create(resources: Mapping[str, Resource], clock: Clock) -> Executor:
    """The executor ``ssm``. Raises ValueError naming a missing setting."""
    settings = Settings()
    connection: Connection[SSMClient] = Connection("ssm", settings, reads=READS)
    return AwsExecutor(settings, connection, [kind(resources, clock, connection) for kind in OPERATIONS])


# --- reading answers ----------------------------------------------------------------------------------------


def _execution(answer: "AutomationExecutionMetadataTypeDef") -> Execution:
    return Execution(
        id=answer.get("AutomationExecutionId", ""),
        version=answer.get("DocumentVersion", ""),
        status=answer.get("AutomationExecutionStatus", ""),
    )


def _runs_document(answer: "AutomationExecutionMetadataTypeDef", document: str) -> bool:
    """Exactly this document: the filter takes a prefix."""
    return answer.get("DocumentName") == document


def _unfinished(document: str, run: Execution) -> str:
    """What is still to come of an execution; empty once it has succeeded. Raises ExecutorError if it will not."""
    if run.status in FAILED:
        raise ExecutorError(f"{document}: execution {run.id} is {run.status}; see its steps in SSM Automation.")
    return "" if run.status in OVER else f"{document}: execution {run.id} is {run.status}"


def _foreseen(seen: "GetExecutionPreviewResponseTypeDef") -> str:
    """``3 steps change something, 1 only looks, 0 cannot be told``, where and of what."""
    found = seen.get("ExecutionPreview", {}).get("Automation", {})
    steps = found.get("StepPreviews", {})
    counts = (
        f"{steps.get('Mutating', 0)} steps change something, {steps.get('NonMutating', 0)} only look,"
        f" {steps.get('Undetermined', 0)} cannot be told"
    )
    where = f" in {', '.join(found.get('Regions', []))}" if found.get("Regions") else ""
    said = f": {seen['StatusMessage']}" if seen.get("StatusMessage") else ""
    return f"SSM's preview ({seen['Status']}{said}): {counts}{where}"
