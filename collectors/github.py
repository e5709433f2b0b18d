"""Reads GitHub: what was deployed, what that changed, and, where nothing is deployed through it, the commits.

The token needs, on each repository of the catalogue, the permissions ``Contents: read`` and ``Deployments: read`` (a
classic token: ``repo``). GitHub answers 404 for a private repository that the token must not see.
"""

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar
from urllib.parse import quote, urlencode

import httpx
from pydantic import AwareDatetime, BaseModel, Field, JsonValue, SecretStr, ValidationError, field_validator

from collectors._budget import SourceSettings, env
from collectors._http import Api, Params, checked, clock_check, parsed
from collectors._jobs import Job, Part
from collectors._queries import asked
from collectors._source import HttpSource
from collectors._urls import base_url
from collectors.base import (
    Change,
    Check,
    Clock,
    CollectorError,
    Declared,
    Forbidden,
    GapReason,
    GitHubRepository,
    NotFound,
    Scope,
    Telemetry,
    Window,
)

API_VERSION = "2022-11-28"
SIDE_BY_SIDE = 4  # GitHub asks not to be read with many requests at once
PAGE = 100  # rows; the most GitHub gives at once
PAGES = 5  # of one list
FOLLOWED = 10  # deployments whose statuses are read
COMPARED = 2  # deployments whose files are read, the newest first
MAX_FILES = 300  # that GitHub names of one comparison
TRIED = 3  # deployments before one, until one is found that succeeded
NAMED_FILES = 8  # in a change's title
TITLE = 300  # characters of a change's title

_M = TypeVar("_M", bound=BaseModel)
_CONFIGURATION = re.compile(
    r"\.(ya?ml|toml|env|tfvars|tf|hcl|ini|cfg|conf|config|properties)$"
    r"|(^|/)(\.env(\.[^/]*)?|Dockerfile[^/]*|Procfile|Chart\.lock|appsettings[^/]*\.json)$"
    r"|(^|/)(helm|charts|k8s|kubernetes|terraform|deploy|config|configs)/[^/]*\.(json|tpl)$",
    re.IGNORECASE,
)


class Settings(SourceSettings):
    """``GITHUB_*``: a token, and where the API is."""

    model_config = env("GITHUB_")

    token: SecretStr | None = Field(default=None, description="A token with Contents: read and Deployments: read")
    api_url: str = Field(default="https://api.github.com", description="GitHub Enterprise: https://<host>/api/v3")
    look_back_hours: float = Field(default=24.0, gt=0, le=24 * 30, description="How old a change may be")

    @field_validator("api_url")
    @classmethod
    def _whole(cls, url: str) -> str:
        return base_url(url)


def create(clock: Clock, declared: Declared) -> "GitHubCollector":
    """The collector of the account that the token belongs to. Raises ValueError naming a missing setting."""
    settings = Settings()
    if settings.token is None:
        raise ValueError(
            "The collector 'github' needs GITHUB_TOKEN: a token with Contents: read and Deployments: read."
        )
    return GitHubCollector(clock, settings)


# --- what GitHub answers ----------------------------------------------------------------------------------------


class _Rate(BaseModel):
    remaining: int


class _RateLimit(BaseModel):
    rate: _Rate


class _User(BaseModel):
    login: str = ""


class _Deployment(BaseModel):
    id: int
    sha: str
    ref: str = ""
    environment: str = ""
    creator: _User | None = None
    created_at: AwareDatetime


class _DeploymentStatus(BaseModel):
    state: str
    created_at: AwareDatetime


class _Signature(BaseModel):
    name: str = ""
    date: AwareDatetime


class _CommitBody(BaseModel):
    message: str = ""
    committer: _Signature
    author: _Signature | None = None


class _Commit(BaseModel):
    sha: str
    commit: _CommitBody
    author: _User | None = None


class _File(BaseModel):
    filename: str


class _Comparison(BaseModel):
    status: str = ""
    total_commits: int = 0
    files: list[_File] = Field(default_factory=list)


# --- the collector ----------------------------------------------------------------------------------------------


class GitHubCollector(HttpSource[Settings]):
    """The repositories that one token may read."""

    name = "github"

    def __init__(self, clock: Clock, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """``transport`` replaces the network. ``settings`` must hold the token."""
        super().__init__(settings)
        self._clock = clock
        self._ui = ui_url(settings.api_url)
        client = httpx.AsyncClient(
            base_url=settings.api_url,
            headers={
                "Authorization": f"Bearer {settings.token.get_secret_value() if settings.token else ''}",
                "Accept": "application/vnd.github+json",
                "X-GitHub-Api-Version": API_VERSION,
                "User-Agent": "aiops-autopilot",
            },
            timeout=httpx.Timeout(10.0, connect=3.0),
            transport=transport,
        )
        self._api = Api("GitHub", client, base_setting="GITHUB_API_URL", per_second=10.0, at_once=SIDE_BY_SIDE)

    async def collect(self, scope: Scope) -> Telemetry:
        """Deployments and what they changed, or commits, of every repository in play. Raises CollectorError."""
        return await self._gathered(scope, self._jobs(scope), side_by_side=SIDE_BY_SIDE)

    async def check(self) -> list[Check]:
        """Whether GitHub answers, the token is taken, and it sees a repository. Permissions are each repository's."""

        async def limit(part: Part) -> str:
            answer = parsed(_RateLimit, await self._api.json(part, "/rate_limit", needs="check GITHUB_TOKEN"))
            return f"{self._settings.api_url}: {answer.rate.remaining} requests left this hour"

        async def sample(part: Part) -> str:
            answer = await self._api.json(part, "/user/repos", needs=_needs("a repository"), params={"per_page": 1})
            return "repositories are seen" if answer else "no repository of its own; public ones can be read"

        return [
            await checked(self.name, self._settings, "credentials", limit, "check GITHUB_TOKEN"),
            clock_check(self._api.skew_s),
            await checked(self.name, self._settings, "sample query", sample, "check GITHUB_TOKEN"),
        ]

    # --- jobs ---

    def _jobs(self, scope: Scope) -> Iterator[tuple[str, Job]]:
        """One for each repository and environment: several services may come from the same."""
        services: dict[GitHubRepository, list[str]] = {}
        for target in scope.targets:
            if target.github:
                services.setdefault(target.github, []).append(target.service)
        start = scope.incident.start - timedelta(hours=self._settings.look_back_hours)
        window = Window(start=start, end=scope.incident.end)
        for repository, components in services.items():
            yield f"changes of {repository.repository}", partial(self._changes, repository, components, window)

    async def _changes(
        self, repository: GitHubRepository, components: Sequence[str], window: Window, part: Part
    ) -> None:
        look = _Look(repository, window, part)
        try:
            deployments = await self._deployments(look)
        except Forbidden as error:  # the permission to read commits is another one
            part.fail(error)
            await self._commits(look, components)
            return
        if not deployments:
            where = repository.environment or "any environment"
            part.gap(
                GapReason.EMPTY,
                f"{look.name}: GitHub knows of no deployment to {where}; the commits were read",
                "create deployments in the pipeline, or correct github.environment in the catalogue",
            )
            await self._commits(look, components)
            return
        recent = [d for d in deployments if d.created_at >= window.start]
        if len(recent) > FOLLOWED:
            told = f"{look.name}: {len(recent)} deployments; the newest {FOLLOWED} were read"
            part.gap(GapReason.TRUNCATED, told, "set github.environment in the catalogue")
        deployed = await asyncio.gather(*(self._deployed(look, d) for d in recent[:FOLLOWED]))
        for change in deployed:  # told at once; what each changed takes more requests
            part.keep(_deploy(service, change, "", self._link(look, change)) for service in components)
        await self._differences(look, components, deployed, deployments)

    async def _differences(
        self,
        look: "_Look",
        components: Sequence[str],
        deployed: Sequence["_Deployed"],
        deployments: Sequence[_Deployment],
    ) -> None:
        """What the newest successful deployments changed is put into their titles."""
        for change in [d for d in deployed if d.state == "success"][:COMPARED]:
            before = await self._before(look, change, deployed, deployments)
            told = await self._compared(look, before.sha, change.deployment.sha) if before else ""
            for service in components if told else ():
                plain = _deploy(service, change, "", self._link(look, change))
                link = self._link(look, change, before)
                look.part.changes[look.part.changes.index(plain)] = _deploy(service, change, told, link)

    async def _before(
        self,
        look: "_Look",
        change: "_Deployed",
        deployed: Sequence["_Deployed"],
        deployments: Sequence[_Deployment],
    ) -> _Deployment | None:
        """What ran in the environment until then: the deployment before it that succeeded."""
        known = {d.deployment.id: d for d in deployed}
        here = [d for d in deployments if d.environment == change.deployment.environment]
        for earlier in here[here.index(change.deployment) + 1 :][:TRIED]:
            if (known.get(earlier.id) or await self._deployed(look, earlier)).state == "success":
                return earlier
        return None

    # --- what is read ---

    async def _deployments(self, look: "_Look") -> list[_Deployment]:
        """Newest first: those of the window and some before it."""

        def enough(found: Sequence[_Deployment]) -> bool:
            return any(d.created_at < look.window.start for d in found)

        path, params = f"/repos/{look.name}/deployments", {"environment": look.repository.environment}
        found = await self._rows(look, path, params, _Deployment, enough)
        before = [d for d in found if d.created_at < look.window.end]
        return sorted(before, key=lambda d: d.created_at, reverse=True)

    async def _deployed(self, look: "_Look", deployment: _Deployment) -> "_Deployed":
        """How it ended: its first success before the window's end, else whatever was said last."""
        path = f"/repos/{look.name}/deployments/{deployment.id}/statuses"
        try:
            statuses = await self._rows(look, path, {}, _DeploymentStatus)
        except CollectorError as error:
            look.part.fail(error)
            return _Deployed(deployment, "state unknown", deployment.created_at)
        told = sorted((s for s in statuses if s.created_at < look.window.end), key=lambda s: s.created_at)
        ended = next((s for s in told if s.state == "success"), told[-1] if told else None)
        if ended is None:
            return _Deployed(deployment, "pending", deployment.created_at)
        return _Deployed(deployment, ended.state, ended.created_at)

    async def _compared(self, look: "_Look", base: str, head: str) -> str:
        """What changed from one commit to another, in words; nothing if that cannot be read."""
        try:
            answer = await self._comparison(look, base, head)
            if answer.status != "behind":
                return _difference(answer, "brings")
            # back to an older commit: what it takes away is told by the opposite comparison
            return _difference(await self._comparison(look, head, base), "takes back")
        except CollectorError as error:
            look.part.fail(error)
            return ""

    async def _comparison(self, look: "_Look", base: str, head: str) -> _Comparison:
        path = f"/repos/{look.name}/compare/{quote(base, safe='')}...{quote(head, safe='')}"
        with asked(look.part, f"GET {path}", look.window, self._page_of(look, "compare"), kind="changes") as tally:
            answer = parsed(_Comparison, (await self._page(look, path, {}))[0])
            tally.rows, tally.truncated = len(answer.files), len(answer.files) >= MAX_FILES
        if tally.truncated:
            told = f"{look.name}: GitHub names at most {MAX_FILES} files of {base[:12]}...{head[:12]}"
            look.part.gap(GapReason.TRUNCATED, told, "look at the comparison itself")
        return answer

    async def _commits(self, look: "_Look", components: Sequence[str]) -> None:
        window = look.window
        params = {"sha": look.repository.branch, "since": window.start.isoformat(), "until": window.end.isoformat()}
        for commit in await self._rows(look, f"/repos/{look.name}/commits", params, _Commit):
            if window.start <= commit.commit.committer.date < window.end:
                link = f"{self._ui}/{look.name}/commit/{quote(commit.sha, safe='')}"
                look.part.keep(_committed(service, commit, link) for service in components)

    # --- requests ---

    async def _rows(
        self,
        look: "_Look",
        path: str,
        params: Mapping[str, str],
        model: type[_M],
        enough: Callable[[Sequence[_M]], bool] = lambda _: False,
    ) -> list[_M]:
        """The list's rows, page by page until ``enough``. Raises CollectorError if not even one page was read."""
        found: list[_M] = []
        following: dict[str, str] = {}
        text = f"GET {path}?{urlencode({name: value for name, value in params.items() if value})}".rstrip("?")
        page = "commits" if path.endswith("/commits") else "deployments"
        with asked(look.part, text, look.window, self._page_of(look, page), kind="changes") as tally:
            for number in range(PAGES):
                try:
                    answer, following = await self._page(look, path, {**params, "per_page": PAGE, **following})
                except CollectorError as error:
                    if number == 0:
                        raise
                    look.part.fail(error)
                    break
                listed = answer if isinstance(answer, list) else [answer]
                tally.rows += len(listed)
                found += _understood(model, listed)
                if not following or enough(found):
                    following = {}
                    break
            tally.truncated = bool(following)
        if tally.rows > len(found):
            look.part.gap(GapReason.FAILED, f"{tally.rows - len(found)} rows were not understood: {text}")
        if following:
            look.part.gap(
                GapReason.TRUNCATED, f"only the first {PAGES} pages were read: {text}", "lower GITHUB_LOOK_BACK_HOURS"
            )
        return found

    async def _page(self, look: "_Look", path: str, params: Params) -> tuple[JsonValue, dict[str, str]]:
        """Raises CollectorError; a repository that must not be seen is not found."""
        needs = _needs(look.name)
        try:
            return await self._api.page(look.part, path, needs=needs, params=params)
        except NotFound:
            told = f"{path}: GitHub answered 404: it is not there, or hidden from the token"
            raise Forbidden(told, f"{needs}; or correct github.repository in the catalogue") from None

    def _page_of(self, look: "_Look", page: str) -> str:
        return f"{self._ui}/{look.name}/{page}"

    def _link(self, look: "_Look", deployed: "_Deployed", before: _Deployment | None = None) -> str:
        """The comparison with what ran before, else the commit. Addresses that a status names are not handed on."""
        head = quote(deployed.deployment.sha, safe="")
        if before is None:
            return f"{self._ui}/{look.name}/commit/{head}"
        return f"{self._ui}/{look.name}/compare/{quote(before.sha, safe='')}...{head}"


@dataclass(frozen=True)
class _Look:
    """At one repository, over one window."""

    repository: GitHubRepository
    window: Window
    part: Part

    @property
    def name(self) -> str:
        return self.repository.repository


@dataclass(frozen=True)
class _Deployed:
    """A deployment, and how it ended as far as the window tells."""

    deployment: _Deployment
    state: str
    at: datetime


def ui_url(api_url: str) -> str:
    """``https://github.com`` of ``https://api.github.com``, ``https://<host>`` of ``https://<host>/api/v3``."""
    return api_url.removesuffix("/api/v3").replace("://api.", "://", 1)


def _needs(name: str) -> str:
    return f"give GITHUB_TOKEN the permissions Contents: read and Deployments: read on {name}"


def _understood(model: type[_M], rows: Sequence[JsonValue]) -> Iterator[_M]:
    for row in rows:
        with suppress(ValidationError):
            yield model.model_validate(row)


# --- rows to telemetry ------------------------------------------------------------------------------------------


def _deploy(service: str, deployed: _Deployed, told: str, link: str) -> Change:
    deployment, version = deployed.deployment, deployed.deployment.sha[:12]
    what = version if deployment.ref in ("", deployment.sha) else f"{deployment.ref} ({version})"
    where = f" to {deployment.environment}" if deployment.environment else ""
    title = f"deployed {what}{where}"
    if deployed.state != "success":
        title = f"deployment of {what}{where}: {deployed.state}"
    return Change(
        component=service,
        at=deployed.at,
        kind="deploy",
        title=f"{title}; {told}"[:TITLE] if told else title[:TITLE],
        version=version,
        author=deployment.creator.login if deployment.creator else "",
        link=link,
    )


def _difference(comparison: _Comparison, verb: str) -> str:
    """``brings 4 commits, 12 files; configuration: helm/values.yaml, .env (+3 more)``."""
    names = [file.filename for file in comparison.files]
    told = f"{verb} {comparison.total_commits} commits, {len(names)} files"
    configuration = [name for name in names if _CONFIGURATION.search(name)]
    if not configuration:
        return told
    more = f" (+{len(configuration) - NAMED_FILES} more)" if len(configuration) > NAMED_FILES else ""
    return f"{told}; configuration: {', '.join(configuration[:NAMED_FILES])}{more}"


def _committed(service: str, commit: _Commit, link: str) -> Change:
    body = commit.commit
    subject = body.message.partition("\n")[0]
    signed = body.author.name if body.author else body.committer.name
    return Change(
        component=service,
        at=body.committer.date,
        kind="other",
        title=f"commit {commit.sha[:12]}: {subject}"[:TITLE],
        version=commit.sha[:12],
        author=(commit.author.login if commit.author else "") or signed,
        link=link,
    )
