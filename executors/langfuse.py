"""Switches the prompt version, or the model, that an LLM application gets from Langfuse's prompt management.

An application loads a prompt by its label, e.g. production. Moving the label to an earlier version is a roll-back
without a deployment; another model is a new version of the same prompt with another ``config.model``. Versions never
change, so going back is exact. Langfuse has no dry run and no lock: the label is read once more right before it is
moved. SDKs keep a prompt for a minute by default.

The key needs no more than the project's prompts; a label that is protected in the project takes an admin's key.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar, cast
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ConfigDict, Field, JsonValue, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from executors._aws import TransientError, listed, settled
from executors.base import (
    AnyOperation,
    Change,
    Check,
    Clock,
    Executor,
    ExecutorError,
    LangfusePrompt,
    Model,
    Operation,
    Outcome,
    OutcomeUnknown,
    PreflightCheck,
    Probe,
    Refused,
    Resource,
    State,
)

TIMEOUT = httpx.Timeout(15.0, connect=3.0)
CACHED_S = 60.0  # how long SDKs keep a prompt, by default
DEADLINE_S = 60.0
PROMPTS = "/api/public/v2/prompts"
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


class Settings(BaseSettings):
    """Where Langfuse is, and the project's keys."""

    model_config = SettingsConfigDict(
        env_prefix="AUTOPILOT_LANGFUSE_", env_file=".env", env_ignore_empty=True, extra="ignore"
    )

    host: str | None = Field(default=None, description="e.g. https://cloud.langfuse.com, https://us.cloud.langfuse.com")
    public_key: SecretStr | None = Field(default=None, description="Public key of the project, pk-lf-…")
    secret_key: SecretStr | None = Field(default=None, description="Secret key of the project, sk-lf-…")


# --- parameters ---------------------------------------------------------------------------------------------


class VersionParams(Model):
    """One service and the version of its prompt to use."""

    service: str = Field(min_length=1, description="Name of the service in the catalogue")
    version: int | None = Field(default=None, ge=1, description="Version of its prompt; null: the one before")


class ModelParams(Model):
    """One service and the model to use."""

    service: str = Field(min_length=1, description="Name of the service in the catalogue")
    model: str | None = Field(
        default=None, description="One of the catalogue's prompt.models; null: the first that is not in use"
    )


V = TypeVar("V", VersionParams, ModelParams)


# --- what was read ------------------------------------------------------------------------------------------


class PromptState(Model):
    """The version behind the label. The prompt's text is not kept."""

    prompt: str
    label: str
    version: int
    model: str | None


class VersionState(PromptState):
    """Also the version to switch to."""

    target: int | None = Field(description="None: there is no earlier one")
    target_model: str | None
    target_labels: tuple[str, ...]


class ModelState(PromptState):
    """Also the model to switch to."""

    target: str | None = Field(description="None: all that are allowed are in use already, or none is")


class Prompt(BaseModel):
    """One version, as Langfuse answers it."""

    model_config = ConfigDict(extra="ignore")

    name: str
    version: int
    type: str = "text"
    prompt: JsonValue
    config: JsonValue = None
    labels: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    @property
    def model(self) -> str | None:
        """The model that the version asks for, if its config names one."""
        model = self.config.get("model") if isinstance(self.config, dict) else None
        return model if isinstance(model, str) else None


# --- operations ---------------------------------------------------------------------------------------------


class PromptOperation(Operation[V]):
    """What the operations on a prompt have in common. ``resource`` and ``lacks`` need nothing but ``resources``."""

    risk = "medium"
    reversible = True
    minutes = 2.0
    permissions = ("prompts: read and write",)
    state: ClassVar[type[PromptState]]

    def __init__(self, resources: Mapping[str, Resource], clock: Clock, langfuse: "Langfuse") -> None:
        self.resources, self.clock, self.langfuse = resources, clock, langfuse

    def resource(self, params: V) -> str:
        """``langfuse:<prompt>@<label>``."""
        prompt = _prompt(self.resources, params.service)
        return f"langfuse:{prompt.name}@{prompt.label}"

    def lacks(self, resource: Resource) -> str:
        """A prompt."""
        if resource.prompt:
            return ""
        return f"no prompt: add services.{resource.service}.prompt (name, label) to autopilot.yaml"

    async def labelled(self, service: str) -> Prompt:
        """The version behind the label. Raises ExecutorError."""
        prompt = _prompt(self.resources, service)
        return await self.langfuse.version(prompt.name, label=prompt.label)

    def pinned(self, params: V, before: State) -> State:
        """The version behind the label, and what it would be switched to."""
        return {name: before[name] for name in ("label", "version", "target")}

    async def preflight(self, params: V, before: State) -> tuple[PreflightCheck, ...]:
        """There is no dry run, and a label may be protected."""
        detail = f"Langfuse has no dry run; if the label {before['label']} is protected it takes an admin's key"
        return (PreflightCheck(name="dry_run", status="skipped", detail=detail),)

    async def execute(self, params: V, before: State) -> Outcome:
        """One request, after one more look at the label."""
        detail = self.preview(params, before)
        now = await self.labelled(params.service)
        if now.version != before["version"]:
            raise Refused(f"{params.service}: {before['label']} was moved to version {now.version} a moment ago.")
        made = await self.switch(params, before, now)
        return Outcome(detail=detail, data={"version": made.version})

    async def switch(self, params: V, before: State, now: Prompt) -> Prompt:
        """The change; the version that has the label then. Raises ExecutorError, OutcomeUnknown."""
        raise NotImplementedError

    def is_target(self, params: V, before: State, now: Prompt) -> bool:
        """Whether the label is where this operation moves it."""
        raise NotImplementedError

    async def settle(self, params: V, before: State) -> State:
        """Waits until the label is read where it belongs, and for SDKs to forget the version before."""
        await settled(
            self.clock,
            lambda: self.labelled(params.service),
            lambda now: "" if self.is_target(params, before, now) else f"{before['label']} to move (now {now.version})",
            DEADLINE_S,
        )
        await self.clock.sleep(CACHED_S)
        return _read(self.state, before, await self.labelled(params.service))

    async def probe(self, params: V, before: State) -> Probe:
        """Told by the label."""
        now = await self.labelled(params.service)
        if self.is_target(params, before, now):
            return "done"
        return "not_done" if now.version == before["version"] else "unknown"

    async def undo(self, params: V, before: State) -> Outcome:
        """The label back to the version of before, unless somebody has moved it on since."""
        saved, now = self.state.model_validate(before), await self.labelled(params.service)
        if now.version == saved.version:
            return Outcome(detail=f"{params.service}: {saved.label} is on version {saved.version} already")
        if not self.is_target(params, before, now):
            raise Refused(f"{params.service}: somebody else moved {saved.label} to version {now.version}; not undone.")
        await self.langfuse.move(await self.langfuse.version(saved.prompt, number=saved.version), saved.label)
        return Outcome(detail=f"{params.service}: {saved.label} of {saved.prompt}: {now.version} -> {saved.version}")


class SwitchPromptVersion(PromptOperation[VersionParams]):
    """Moves the label to another version of the prompt."""

    name = "switch_prompt_version"
    summary = "Give an LLM application another version of its prompt, e.g. the one before"
    params = VersionParams
    state = VersionState

    async def inspect(self, params: VersionParams) -> State:
        """The version behind the label, and the one asked for or before it."""
        now = await self.labelled(params.service)
        target = await self._target(params, now)
        return VersionState(
            **_present(now, _prompt(self.resources, params.service)),
            target=target.version if target else None,
            target_model=target.model if target else None,
            target_labels=target.labels if target else (),
        ).model_dump(mode="json")

    def preview(self, params: VersionParams, before: State) -> str:
        """From which version to which."""
        state = VersionState.model_validate(before)
        if state.target is None:
            raise Refused(f"{params.service}: {state.prompt} has no version before {state.version}.")
        if state.target == state.version:
            raise Refused(f"{params.service}: {state.label} is on version {state.version} already: nothing to change.")
        return (
            f"{params.service}: {state.label} of prompt {state.prompt}: version {state.version}{_asking(state.model)}"
            f" -> {state.target}{_asking(state.target_model)}"
        )

    def changes(self, params: VersionParams, before: State) -> tuple[Change, ...]:
        """The version, and the model where that is another."""
        self.preview(params, before)
        state = VersionState.model_validate(before)
        version = Change(
            what=f"{state.label} of prompt {state.prompt}",
            before=f"version {state.version}",
            after=f"version {state.target}",
        )
        if state.model == state.target_model:
            return (version,)
        return version, Change(what="model", before=state.model or "none", after=state.target_model or "none")

    async def switch(self, params: VersionParams, before: State, now: Prompt) -> Prompt:
        """The label on the other version."""
        state = VersionState.model_validate(before)
        return await self.langfuse.move(await self.langfuse.version(state.prompt, number=state.target), state.label)

    def is_target(self, params: VersionParams, before: State, now: Prompt) -> bool:
        """Told by its number."""
        return now.version == before["target"]

    async def _target(self, params: VersionParams, now: Prompt) -> Prompt | None:
        """The version asked for; or else the last one before that was not deleted."""
        if params.version is not None:
            return await self.langfuse.version(now.name, number=params.version)
        earlier = [number for number in await self.langfuse.versions(now.name) if number < now.version]
        return await self.langfuse.version(now.name, number=max(earlier)) if earlier else None


class SwitchPromptModel(PromptOperation[ModelParams]):
    """Makes a version with another model, and moves the label there."""

    name = "switch_prompt_model"
    summary = "Let an LLM application ask another model: a new version of its prompt with another config.model"
    params = ModelParams
    state = ModelState

    def resource(self, params: ModelParams) -> str:
        """As of the other. Raises Refused also for a model that the catalogue does not list."""
        key, allowed = super().resource(params), _prompt(self.resources, params.service).models
        if params.model is not None and params.model not in allowed:
            raise Refused(
                f"{params.model} is not a model that {params.service} may be switched to;"
                f" services.{params.service}.prompt.models in autopilot.yaml: {', '.join(allowed) or 'none'}."
            )
        return key

    def lacks(self, resource: Resource) -> str:
        """A prompt, and models that it may be switched to."""
        if not resource.prompt or resource.prompt.models:
            return super().lacks(resource)
        return f"no models: add services.{resource.service}.prompt.models to autopilot.yaml"

    async def inspect(self, params: ModelParams) -> State:
        """The version behind the label, and the model asked for or the next."""
        now, prompt = await self.labelled(params.service), _prompt(self.resources, params.service)
        others = [model for model in prompt.models if model != now.model]
        target = params.model or (others[0] if others else None)
        return ModelState(**_present(now, prompt), target=target).model_dump(mode="json")

    def preview(self, params: ModelParams, before: State) -> str:
        """From which model to which."""
        self.resource(params)
        state = ModelState.model_validate(before)
        if state.model is None:
            raise Refused(
                f"{params.service}: version {state.version} of {state.prompt} names no config.model, so the application"
                " takes its model from elsewhere: switch it there."
            )
        if state.target is None or state.target == state.model:
            raise Refused(f"{params.service}: {state.model} is in use already, and no other model is listed.")
        return f"{params.service}: model of prompt {state.prompt} ({state.label}): {state.model} -> {state.target}"

    def changes(self, params: ModelParams, before: State) -> tuple[Change, ...]:
        """The model, and the version."""
        self.preview(params, before)
        state = ModelState.model_validate(before)
        return (
            Change(what=f"model of prompt {state.prompt}", before=str(state.model), after=str(state.target)),
            Change(what=state.label, before=f"version {state.version}", after="a new version of the same text"),
        )

    async def switch(self, params: ModelParams, before: State, now: Prompt) -> Prompt:
        """A new version with the label."""
        state = ModelState.model_validate(before)
        config = {**cast("dict[str, JsonValue]", now.config), "model": state.target}
        return await self.langfuse.add(now, config, state.label, f"Model {state.model} -> {state.target}")

    def is_target(self, params: ModelParams, before: State, now: Prompt) -> bool:
        """Told by its model; only a version that is newer can be ours."""
        return now.version > cast("int", before["version"]) and now.model == before["target"]


OPERATIONS: tuple[type[PromptOperation[Any]], ...] = (SwitchPromptVersion, SwitchPromptModel)


class LangfuseExecutor:
    """All operations on prompts, and the connection they share."""

    def __init__(self, resources: Mapping[str, Resource], clock: Clock, langfuse: "Langfuse") -> None:
        self.resources, self.langfuse = resources, langfuse
        self.operations: Sequence[AnyOperation] = [kind(resources, clock, langfuse) for kind in OPERATIONS]

    async def check(self) -> list[Check]:
        """Whether the keys read the project's prompts; whether they may write is not tried."""
        prompts = sorted({(p.name, p.label) for r in self.resources.values() if (p := r.prompt)})
        try:
            await self.langfuse.versions(prompts[0][0] if prompts else "-")
        except ExecutorError as error:
            mend = "Check AUTOPILOT_LANGFUSE_HOST, AUTOPILOT_LANGFUSE_PUBLIC_KEY and AUTOPILOT_LANGFUSE_SECRET_KEY."
            return [Check(name="credentials", status="failed", detail=str(error), mend=mend)]
        found = [await self._readable(name, label) for name, label in prompts]
        return [Check(name="credentials", status="ok", detail="the project's prompts are read"), *found]

    async def _readable(self, name: str, label: str) -> Check:
        told = f"prompt {name}@{label}"
        try:
            await self.langfuse.version(name, label=label)
        except ExecutorError as error:
            return Check(
                name=told, status="failed", detail=str(error), mend="Correct services.….prompt in the catalogue."
            )
        return Check(name=told, status="ok")

    async def aclose(self) -> None:
        """Release connections."""
        await self.langfuse.aclose()


def create(resources: Mapping[str, Resource], clock: Clock) -> Executor:
    """The executor ``langfuse``. Raises ValueError naming a missing setting."""
    settings = Settings()
    if not settings.host:
        raise ValueError("The executor 'langfuse' needs AUTOPILOT_LANGFUSE_HOST: e.g. https://cloud.langfuse.com.")
    if settings.public_key is None or settings.secret_key is None:
        raise ValueError(
            "The executor 'langfuse' needs AUTOPILOT_LANGFUSE_PUBLIC_KEY and AUTOPILOT_LANGFUSE_SECRET_KEY:"
            " the project's keys."
        )
    keys = (settings.public_key.get_secret_value(), settings.secret_key.get_secret_value())
    return LangfuseExecutor(resources, clock, Langfuse(settings.host, keys))


# --- Langfuse's API -----------------------------------------------------------------------------------------


class Langfuse:
    """The prompts of one project; each request is made once."""

    def __init__(self, host: str, keys: tuple[str, str], transport: httpx.AsyncBaseTransport | None = None) -> None:
        """``transport``: another way there than the network, for tests."""
        self._http = httpx.AsyncClient(
            base_url=host, auth=keys, timeout=TIMEOUT, transport=transport, follow_redirects=False
        )

    async def version(self, name: str, *, number: int | None = None, label: str | None = None) -> Prompt:
        """One version, by its number or its label. Raises ExecutorError; TransientError if asking again may help."""
        asked = {"version": number} if number is not None else {"label": label}
        return _parsed(Prompt, await self._sent(TransientError, "GET", _path(name), params=asked), TransientError)

    async def versions(self, name: str) -> tuple[int, ...]:
        """The numbers of all versions. Raises ExecutorError."""
        asked = {"name": name, "limit": 1}
        found = _parsed(_List, await self._sent(TransientError, "GET", PROMPTS, params=asked), TransientError)
        return next((entry.versions for entry in found.data if entry.name == name), ())

    async def move(self, to: Prompt, label: str) -> Prompt:
        """The label on that version, which keeps those it has. Raises ExecutorError, OutcomeUnknown."""
        # "latest" is Langfuse's own
        labels = [kept for kept in dict.fromkeys((*to.labels, label)) if kept != "latest"]
        path = f"{_path(to.name)}/versions/{to.version}"
        return _parsed(
            Prompt, await self._sent(OutcomeUnknown, "PATCH", path, json={"newLabels": labels}), OutcomeUnknown
        )

    async def add(self, like: Prompt, config: Mapping[str, JsonValue], label: str, message: str) -> Prompt:
        """A new version with the same text, another config, and the label. Raises ExecutorError, OutcomeUnknown."""
        body = {
            "type": like.type,
            "name": like.name,
            "prompt": like.prompt,
            "config": dict(config),
            "labels": [label],
            "tags": list(like.tags),
            "commitMessage": message,
        }
        return _parsed(Prompt, await self._sent(OutcomeUnknown, "POST", PROMPTS, json=body), OutcomeUnknown)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _sent(self, unsure: type[ExecutorError], method: str, path: str, **content: Any) -> httpx.Response:
        """One request. ``unsure`` is the kind of an error after which either may be true.

        A cancelled caller is let go only after a write has ended: whoever takes over may then read what it did.
        """
        call = asyncio.ensure_future(self._http.request(method, path, **content))
        try:
            response = await (asyncio.shield(call) if unsure is OutcomeUnknown else call)
        except asyncio.CancelledError:
            await asyncio.wait({call})
            raise
        except NOT_SENT as error:
            raise TransientError(f"Langfuse was not reached: {type(error).__name__}: {error}") from None
        except httpx.HTTPError as error:
            raise unsure(f"Langfuse did not answer {method} {path}: {type(error).__name__}") from None
        if response.is_success:
            return response
        raise _refusal(response, unsure)


class _Entry(BaseModel):
    name: str
    versions: tuple[int, ...] = ()


class _List(BaseModel):
    data: tuple[_Entry, ...] = ()


M = TypeVar("M", bound=BaseModel)


def _parsed(kind: type[M], response: httpx.Response, unsure: type[ExecutorError]) -> M:
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise unsure(
            f"Langfuse's answer to {response.request.url.path} is unlike its API: {where}: {first['msg']}"
        ) from None


def _refusal(response: httpx.Response, unsure: type[ExecutorError]) -> ExecutorError:
    """What a refusal means, in Langfuse's own words."""
    asked = f"{response.request.method} {response.request.url.path}"
    text = f"Langfuse answered {asked} with {response.status_code}: {' '.join(response.text.split())[:300]}"
    match response.status_code:
        case 401:
            return ExecutorError(f"{text}. Check the project's keys, AUTOPILOT_LANGFUSE_PUBLIC_KEY and _SECRET_KEY.")
        case 403:
            return ExecutorError(f"{text}. A protected label takes the key of an admin or owner.")
        case 404:
            return ExecutorError(f"{text}. Check services.….prompt (name, label) in autopilot.yaml.")
        case 429:
            return TransientError(f"{text}. Nothing was changed; try again later.")
        case status if status >= 500:
            return unsure(text)
    return ExecutorError(text)


# --- reading and wording ------------------------------------------------------------------------------------


def _prompt(resources: Mapping[str, Resource], service: str) -> LangfusePrompt:
    found = listed(resources, service).prompt
    if found is None:
        raise Refused(f"{service} has no prompt: add services.{service}.prompt (name, label) to autopilot.yaml.")
    return found


def _path(name: str) -> str:
    """A prompt in a folder has slashes in its name."""
    return f"{PROMPTS}/{quote(name, safe='')}"


def _present(now: Prompt, prompt: LangfusePrompt) -> dict[str, Any]:
    return {"prompt": now.name, "label": prompt.label, "version": now.version, "model": now.model}


def _read(kind: type[PromptState], before: State, now: Prompt) -> State:
    """The state after: where the label is."""
    return kind.model_validate({**before, "version": now.version, "model": now.model}).model_dump(mode="json")


def _asking(model: str | None) -> str:
    return f" ({model})" if model else ""
