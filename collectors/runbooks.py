"""Finds the sections of runbooks that fit an alert: markdown files in a folder, or in a git repository.

A file may begin with front matter: ``title``, ``services`` and ``symptoms`` (words or phrases of alerts). A git
repository is cloned by the ``git`` command and read from the clone; the token travels in git's environment, never in
its arguments. What a runbook says is quoted, never followed.
"""

import asyncio
import fcntl
import os
import re
import signal
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from time import monotonic
from urllib.parse import quote, urlsplit

import frontmatter
import yaml
from frontmatter.default_handlers import YAMLHandler
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from collectors._budget import SourceSettings, env
from collectors._http import checked
from collectors._jobs import Part, on_thread
from collectors._passages import Section, best, markdown_outlines, question, with_paths
from collectors._queries import asked
from collectors._source import Source
from collectors.base import (
    Check,
    Clock,
    CollectorError,
    Declared,
    Forbidden,
    GapReason,
    Scope,
    Telemetry,
    Unreachable,
)

PROTOCOLS = ("https", "ssh", "file")
SUFFIXES = (".md", ".markdown")
_REFUSAL = r"authentication failed|permission denied|could not read (username|password)|\b403\b"
COMPLAINT = 300  # characters of what git says
TO_READ_S = 1.0  # kept back of the budget, so that what was cloned before can still be read
NAMED_PROBLEMS = 10  # files named one by one; the others are counted


class Settings(SourceSettings):
    """``RUNBOOKS_*``: a folder, or a git repository and where its clone is kept."""

    model_config = env("RUNBOOKS_")

    dir: Path | None = Field(default=None, description="A folder of markdown files")
    git_url: str = Field(default="", description="A repository of markdown files: https://, ssh:// or file://")
    git_ref: str = Field(default="HEAD", pattern=r"^\w[\w./-]*$", description="Branch or tag")
    git_token: SecretStr | None = Field(default=None, description="Token that may read the repository, for https://")
    cache_dir: Path = Field(default=Path("~/.cache/aiops-autopilot/runbooks"), description="Where the clone is kept")
    refresh_minutes: float = Field(default=10.0, ge=0, description="How old the clone may be")
    git_timeout_s: float = Field(default=10.0, gt=0, le=120, description="Seconds git may take")
    link_base: str = Field(default="", description="What a file's path is put behind to make a link for people")
    max_files: int = Field(default=2_000, ge=1, description="Files that are read")
    max_file_bytes: int = Field(default=300_000, ge=1_000, description="Larger files are left out")
    max_sections: int = Field(default=5, ge=1, le=50, description="Sections quoted for one incident")

    @field_validator("git_url")
    @classmethod
    def _safe(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and parts.scheme not in PROTOCOLS:
            raise ValueError(f"must begin with one of {', '.join(f'{p}://' for p in PROTOCOLS)}")
        if parts.password or (parts.username and parts.scheme == "https"):  # a token may stand where the user does
            raise ValueError("must hold no user and no password; put a token into RUNBOOKS_GIT_TOKEN")
        return url


def create(clock: Clock, declared: Declared) -> "RunbooksCollector":
    """The collector of the folder or repository that the settings name. Raises ValueError naming what is missing."""
    settings = Settings()
    if not settings.dir and not settings.git_url:
        raise ValueError(
            "The collector 'runbooks' needs RUNBOOKS_DIR: a folder of markdown files, or RUNBOOKS_GIT_URL."
        )
    if settings.dir and settings.git_url:
        raise ValueError("The collector 'runbooks' needs RUNBOOKS_DIR or RUNBOOKS_GIT_URL, not both.")
    return RunbooksCollector(clock, settings)


class _FrontMatter(BaseModel):
    """What a file says of itself; other fields are of no interest."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    title: str = ""
    services: list[str] = Field(default_factory=list)
    symptoms: list[str] = Field(default_factory=list)

    @field_validator("services", "symptoms", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value or []


@dataclass
class Library:
    """What was read of a folder."""

    sections: list[Section] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Files that were left out, and why."""
    files: int = 0
    size: int = 0
    truncated: bool = False


class RunbooksCollector(Source[Settings]):
    """One folder or repository of runbooks, read-only."""

    name = "runbooks"

    def __init__(self, clock: Clock, settings: Settings) -> None:
        """``settings`` must name a folder or a repository."""
        super().__init__(settings)
        self._clock = clock
        self._clone = _Clone(settings) if settings.git_url else None
        self._turn = asyncio.Lock()

    async def collect(self, scope: Scope) -> Telemetry:
        """The sections that fit the alert and the services in play, best first. Raises CollectorError."""

        async def sections(part: Part) -> None:
            await self._sections(scope, part)

        return await self._gathered(scope, [("runbooks", sections)], side_by_side=1)

    async def check(self) -> list[Check]:
        """Whether the folder can be read, or the repository fetched, and holds something to quote."""

        async def reachable(part: Part) -> str:
            library = await self._library(part)
            return f"{library.files} files in {self._where}"

        async def sample(part: Part) -> str:
            library = await self._library(part)
            if not library.sections:
                raise CollectorError(f"no markdown file with text in {self._where}", "add one, or check the setting")
            return f"{len(library.sections)} sections; {len(library.problems)} files left out"

        setting = "RUNBOOKS_GIT_URL" if self._clone else "RUNBOOKS_DIR"
        return [
            await checked(self.name, self._settings, "reachable", reachable, f"check {setting}"),
            await checked(self.name, self._settings, "sample query", sample, f"check {setting}"),
        ]

    # --- jobs ---

    async def _sections(self, scope: Scope, part: Part) -> None:
        fits = question(scope)
        text = f"sections in {self._where} on {', '.join(fits.hops)}; words: {' '.join(fits.weights)}"[:2000]
        with asked(part, text, scope.incident, self._settings.link_base or None, kind="documents") as tally:
            library = await self._library(part)
            part.answered = True
            # a large library takes longer to search than the event loop may stand still
            found = await on_thread(best, library.sections, fits, self._settings.max_sections)
            tally.rows, tally.truncated = len(found), library.truncated
        self._told(part, library)
        if not found:
            services = ", ".join(fits.hops)
            part.gap(GapReason.EMPTY, f"no runbook fits {services}", "write one, with the services in its front matter")
        part.keep(found)

    async def _library(self, part: Part) -> Library:
        """Raises CollectorError."""
        async with self._turn:
            if self._clone:
                return await self._clone.library(part)
            part.budget.call()
            library = await asyncio.to_thread(read_folder, self._settings.dir or Path(), self._settings)
        part.budget.receive(library.size)
        return library

    def _told(self, part: Part, library: Library) -> None:
        for problem in library.problems[:NAMED_PROBLEMS]:
            part.gap(GapReason.FAILED, problem, "mend the file, or take it out of the folder")
        if len(library.problems) > NAMED_PROBLEMS:
            part.gap(GapReason.FAILED, f"{len(library.problems) - NAMED_PROBLEMS} more files were left out")
        if library.truncated:
            part.gap(
                GapReason.TRUNCATED,
                f"only the first {library.files:,} files of {self._where} were read",
                "raise RUNBOOKS_MAX_FILES or RUNBOOKS_MAX_BYTES",
            )

    @property
    def _where(self) -> str:
        settings = self._settings
        return f"{settings.git_url}@{settings.git_ref}" if settings.git_url else str(settings.dir)


# --- a folder ---------------------------------------------------------------------------------------------------


class _Unreadable(Exception):
    """The file was left out."""


def read_folder(folder: Path, settings: Settings) -> Library:
    """Every markdown file below, in order of their paths. Raises CollectorError if there is no such folder."""
    if not folder.is_dir():
        raise Unreachable(f"{folder} is no folder that can be read", "check RUNBOOKS_DIR")
    library, root = Library(), folder.resolve()
    for path in _markdown_files(root):
        try:
            text = _text(path, root, settings.max_file_bytes)
            size = len(text.encode())
            if library.files >= settings.max_files or library.size + size > settings.max_bytes:
                library.truncated = True
                break
            sections = list(_sections_of(text, path.relative_to(root), settings.link_base))
        except _Unreadable as error:
            library.problems.append(f"{path.relative_to(root)}: {error}")
            continue
        library.files += 1
        library.size += size
        library.sections += sections
    return library


def _markdown_files(root: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(root):  # follows no link to a folder
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(where, name) for name in sorted(names) if name.lower().endswith(SUFFIXES))


def _text(path: Path, root: Path, max_bytes: int) -> str:
    try:
        if not path.resolve().is_relative_to(root):
            raise _Unreadable("a link that leads out of the folder")
        if not path.is_file():
            raise _Unreadable("no regular file")
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError
        raise _Unreadable(f"cannot be read ({type(error).__name__})") from None
    if len(content) > max_bytes:
        raise _Unreadable(f"larger than {max_bytes:,} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _Unreadable("not UTF-8") from None


def _sections_of(text: str, path: Path, link_base: str) -> Iterator[Section]:
    front, body = _front_matter(text)
    outlines = markdown_outlines(body)
    title = front.title or next((o.heading for o in outlines if o.level == 1), path.stem)
    anchors = _anchors(o.heading for o in outlines)
    for (headings, passage), anchor in zip(with_paths(outlines), anchors, strict=True):
        yield Section(
            title=title,
            path=headings,
            text=passage,
            link=f"{link_base.rstrip('/')}/{quote(path.as_posix())}{anchor}" if link_base else None,
            services=tuple(front.services),
            symptoms=tuple(front.symptoms),
        )


def _front_matter(text: str) -> tuple[_FrontMatter, str]:
    handler = YAMLHandler()
    if not handler.detect(text):
        return _FrontMatter(), text
    try:
        fields, body = frontmatter.parse(text, handler=handler)
        return _FrontMatter.model_validate(fields), body
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        raise _Unreadable("its front matter cannot be read") from None


def _anchors(headings: Iterator[str]) -> Iterator[str]:
    """``#more-connections``, the second of its name ``#more-connections-1``: as GitHub and GitLab make them."""
    seen: dict[str, int] = {}
    for heading in headings:
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        again = seen[slug] = seen.get(slug, -1) + 1
        yield f"#{quote(slug)}{f'-{again}' if again else ''}" if slug else ""


# --- a repository -----------------------------------------------------------------------------------------------


class _Clone:
    """A shallow clone, fetched again when it is too old. Several processes may share the folder."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        name = sha256(f"{settings.git_url} {settings.git_ref}".encode()).hexdigest()[:16]
        self._folder = settings.cache_dir.expanduser().resolve() / name
        self._library: Library | None = None
        self._read_at = float("-inf")

    async def library(self, part: Part) -> Library:
        """What the repository holds; if it cannot be fetched, what was read before, and a Gap.

        Raises CollectorError if it was never read.
        """
        if self._library and monotonic() - self._read_at < self._settings.refresh_minutes * 60:
            return self._library
        try:
            self._library = await self._fetched(part)
            self._read_at = monotonic()
        except CollectorError as error:
            if self._library is None:
                self._library = await self._left_behind(error)
            part.fail(error)
        return self._library

    async def _left_behind(self, error: CollectorError) -> Library:
        """What an earlier process has cloned. Raises the error if there is none."""
        if self._folder.is_dir():
            library = await asyncio.to_thread(read_folder, self._folder, self._settings)
            if library.files:
                return library
        raise error

    async def _fetched(self, part: Part) -> Library:
        part.budget.call()
        with _locked(self._folder):
            for left_behind in (self._folder / ".git").glob("*.lock"):  # by a git that was killed
                left_behind.unlink()
            await self._git(part, "init", "--quiet", ".")
            where = self._settings.git_url, self._settings.git_ref
            await self._git(part, "fetch", "--quiet", "--depth=1", "--no-tags", "--", *where)
            await self._git(part, "checkout", "--quiet", "--force", "--detach", "FETCH_HEAD")
            library = await asyncio.to_thread(read_folder, self._folder, self._settings)
        part.budget.receive(library.size)
        return library

    async def _git(self, part: Part, *arguments: str) -> None:
        """Raises CollectorError. Killed with its children when it takes too long."""
        seconds = min(self._settings.git_timeout_s, max(part.budget.left_s - TO_READ_S, 0.1))
        try:
            process = await asyncio.create_subprocess_exec(
                "git",
                *arguments,
                cwd=self._folder,
                env={**os.environ, **git_environment(self._settings)},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except FileNotFoundError:
            raise CollectorError("the command git is not there", "install git, or use RUNBOOKS_DIR") from None
        try:
            async with asyncio.timeout(seconds):
                _, complaint = await process.communicate()
        except TimeoutError:
            ours = seconds == self._settings.git_timeout_s
            mend = "raise RUNBOOKS_GIT_TIMEOUT_S" if ours else part.budget.mend_seconds
            raise Unreachable(f"git {arguments[0]} took longer than {seconds:.3g} s", mend) from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if process.returncode:
            raise _git_error(arguments[0], complaint.decode(errors="replace"))


def _git_error(command: str, complaint: str) -> CollectorError:
    told = f"git {command} failed: {' '.join(complaint.split())[:COMPLAINT]}"
    if re.search(_REFUSAL, complaint, re.IGNORECASE):
        return Forbidden(told, "give RUNBOOKS_GIT_TOKEN (https) or this machine's SSH key read access")
    return Unreachable(told, "check RUNBOOKS_GIT_URL, RUNBOOKS_GIT_REF and the network")


def git_environment(settings: Settings) -> dict[str, str]:
    """What git must not ask or run, which protocols it may use, and the token: arguments can be seen by everyone."""
    config = {"core.hooksPath": os.devnull, "core.symlinks": "false", "http.followRedirects": "false"}
    if settings.git_token and settings.git_url.startswith("https://"):
        credentials = b64encode(f"x-access-token:{settings.git_token.get_secret_value()}".encode()).decode()
        host = urlsplit(settings.git_url).netloc.rpartition("@")[2]
        config[f"http.https://{host}/.extraHeader"] = f"Authorization: Basic {credentials}"
    numbered = {f"GIT_CONFIG_KEY_{i}": key for i, key in enumerate(config)}
    numbered |= {f"GIT_CONFIG_VALUE_{i}": value for i, value in enumerate(config.values())}
    return {
        "GIT_ALLOW_PROTOCOL": ":".join(PROTOCOLS),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oConnectTimeout=5",
        "LC_ALL": "C",
        "GIT_CONFIG_COUNT": str(len(config)),
        **numbered,
    }


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time; freed when the process ends, however it ends. Raises CollectorError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder.with_suffix(".lock").open("w")
    except OSError as error:
        raise CollectorError(
            f"{folder}: {type(error).__name__}", "set RUNBOOKS_CACHE_DIR to a writable folder"
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Unreachable("another process is fetching the runbooks", "try again in a moment") from None
        yield
