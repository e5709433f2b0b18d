"""The commands for the memory and for postmortems.

What anybody may ask of it goes through the API, as the commands for incidents do: it needs a key, and knows what the
service knows. What puts cases in, writes all of it out, or lets it forget, works on the database itself, as those for
keys do: whole files go in however large they are, before the service ever ran; who did it stands in the audit log.
"""

import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from app.cli_service import AsJson, Incident, Url, incident_path, service_at
from app.terminal import printable, say, show, stop

if TYPE_CHECKING:
    from rich.console import RenderableType

    from app.api.knowledge import Hits
    from app.clock import Clock
    from app.db import Pool
    from app.knowledge.cases import Hit
    from app.knowledge.fields import Reading
    from app.knowledge.files import Found, Part
    from app.knowledge.upkeep import Taken, Tell
    from app.security import Caller
    from app.settings import Settings
    from app.store.knowledge import Which

T = TypeVar("T")
commands = typer.Typer()
knowledge = typer.Typer(help="The memory: past incidents and runbooks.", no_args_is_help=True)
commands.add_typer(knowledge, name="knowledge")
FormatName = Literal["csv", "jira", "markdown", "runbook", "jsonl"]
LanguageName = Literal["en", "ko"]
LISTED = 50  # complaints that are printed


@knowledge.command("search")
def search(
    text: Annotated[str, typer.Argument(help="What it was like")] = "",
    service: Annotated[str, typer.Option(help="Only of this service, alerted or at fault")] = "",
    environment: Annotated[str, typer.Option(help="Only of this environment, or of none")] = "",
    limit: Annotated[int, typer.Option(help="How many", min=1, max=100)] = 10,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Search past incidents and runbooks; without a text, list the newest."""
    from app.api.knowledge import Hits

    asked = {"text": text, "service": service, "environment": environment, "limit": str(limit)}
    found = service_at(url, as_json).get(Hits, "/knowledge", {name: value for name, value in asked.items() if value})
    if not as_json:
        show(_hit_parts(found))


@commands.command("postmortem")
def postmortem(
    incident: Incident,
    language: Annotated[LanguageName | None, typer.Option(help="Default: the incident's")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write instead of printing")] = None,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Draft the postmortem of an incident: markdown, all of it from data."""
    from app.api.knowledge import Postmortem

    asked = {"format": "json", **({"language": language} if language else {})}
    draft = service_at(url, as_json).get(Postmortem, f"{incident_path(incident)}/postmortem", asked)
    if out:
        with _written(out):
            out.write_text(draft.markdown, encoding="utf-8")
        typer.echo(f"Draft: {out}", err=True)
    elif not as_json:
        say(draft.markdown)


@knowledge.command("import")
def import_(
    path: Annotated[Path, typer.Argument(help="A file, or a folder of files")],
    format_: Annotated[
        FormatName | None, typer.Option("--format", help="Default: by the ending, and what is in it")
    ] = None,
    timezone: Annotated[str, typer.Option(help="Of times that name none, e.g. Asia/Seoul")] = "UTC",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only look")] = False,
) -> None:
    """Import past incidents (CSV, Jira's exports, postmortems in markdown) and runbooks. Again, it changes nothing.

    Columns of CSV, in any order; title and occurred_at must be there: id, title, occurred_at, environment, service,
    component, category, summary, impact, cause, resolution, outcome, author, timeline, actions, report.
    Exit code 1: something was left out; it is named with file and line.
    """
    from app.catalogue import load
    from app.clock import parse_clock
    from app.knowledge.fields import Reading, zone_called
    from app.knowledge.files import UnreadableFile, parts_of
    from app.knowledge.upkeep import Taken, take

    zone = zone_called(timezone)
    if zone is None:
        raise typer.BadParameter(f"there is no time zone {timezone!r}; write e.g. Asia/Seoul", param_hint="--timezone")
    try:
        parts = parts_of(path, format_)
    except UnreadableFile as error:
        stop(str(error), 2)
    settings = _settings_of_memory()
    reading = Reading(load(settings.config).catalogue(), parse_clock(settings.clock).now().astimezone(UTC), zone)

    async def work(pool: "Pool", clock: "Clock", caller: "Caller") -> Taken:
        with _progress(path.name, len(parts)) as (through, tell):
            return await take(pool, clock, caller, through(parts, reading), dry_run=dry_run, tell=tell)

    taken = _with_memory(settings, work)
    _tell(taken, dry_run=dry_run)
    raise typer.Exit(int(bool(taken.left_out)))


@knowledge.command("export")
def export(
    out: Annotated[Path | None, typer.Option(help="File to write, e.g. cases.jsonl; default: print")] = None,
) -> None:
    """Write all of the memory, a line of JSON for each case; `knowledge import` reads it again."""
    from app.knowledge.upkeep import lines

    def writing(write: Callable[[str], object]) -> "Callable[[Pool, Clock, Caller], Awaitable[int]]":
        async def work(pool: "Pool", clock: "Clock", caller: "Caller") -> int:
            written = 0
            async for line in lines(pool):
                write(f"{line}\n")
                written += 1
            return written

        return work

    settings = _settings_of_memory()
    if out is None:
        _with_memory(settings, writing(sys.stdout.write))
        return
    with _written(out), out.open("w", encoding="utf-8") as file:
        written = _with_memory(settings, writing(file.write))
    typer.echo(f"{_cases(written)}: {out}", err=True)


@knowledge.command("forget", no_args_is_help=True)
def forget(
    case: Annotated[str, typer.Argument(help="The id of a case; see `autopilot knowledge search`")] = "",
    source: Annotated[str, typer.Option(help="All that were imported from this file, e.g. incidents.csv")] = "",
    before: Annotated[str, typer.Option(help="All that happened before, e.g. 2022-01-01")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
) -> None:
    """Delete cases with all that they are found by. Runbooks go by id or source only."""
    from app.knowledge.upkeep import forget as forget_all
    from app.store import knowledge as store

    which = _which(case, source, before)

    async def count(pool: "Pool", clock: "Clock", caller: "Caller") -> int:
        async with pool.connection() as connection:
            return sum([len(await store.ids(connection, one)) for one in which])

    async def work(pool: "Pool", clock: "Clock", caller: "Caller") -> int:
        return sum([await forget_all(pool, clock, caller, one) for one in which])

    settings = _settings_of_memory()
    meant = _with_memory(settings, count)
    if not meant:
        stop("There is no such case.", 1)
    if not yes:
        typer.confirm(f"Forget {_cases(meant)} for good?", abort=True)
    typer.echo(f"{_cases(_with_memory(settings, work))} forgotten.")


# --- what is meant ---


def _which(case: str, source: str, before: str) -> "list[Which]":
    from app.store.knowledge import Which

    if sum(map(bool, (case, source, before))) != 1:
        raise typer.BadParameter("name a case, or give either --source or --before")
    if not before:
        return [Which(id=case or None, source=source or None)]
    try:
        at = datetime.fromisoformat(before)
    except ValueError:
        raise typer.BadParameter("write it as 2022-01-01 or 2022-01-01T09:00:00Z", param_hint="--before") from None
    moment = at if at.tzinfo else at.replace(tzinfo=UTC)
    return [Which(before=moment, kind=kind) for kind in ("incident", "imported")]  # runbooks are of no time


def _with_memory(settings: "Settings", work: "Callable[[Pool, Clock, Caller], Awaitable[T]]") -> T:
    """On the database itself, as the person who runs this."""
    from app.db import migrate, running_database
    from app.local_work import as_local_caller

    with running_database(settings) as url:
        migrate(url)
        return as_local_caller(url, settings, work)


def _settings_of_memory() -> "Settings":
    """Says which one it is: that of a service far away is in the database of that service."""
    from app.settings import Settings

    settings = Settings()
    where = "that of DATABASE_URL" if settings.database_url else f"in the embedded Postgres of {settings.data_dir}"
    typer.echo(f"Memory: {where}", err=True)
    return settings


@contextmanager
def _written(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        stop(f"{out} cannot be written: {error.strerror or type(error).__name__}", 2)


# --- the terminal ---


@contextmanager
def _progress(title: str, files: int) -> "Iterator[tuple[Callable[[Iterable[Part], Reading], Iterator[Found]], Tell]]":
    """Reads files one after the other, and shows on a terminal how far it is; in a pipe nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from app.knowledge.files import read

    columns = (TextColumn(f"{{task.description}} of {title}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        entries = bar.add_task("entries", total=None)
        done = bar.add_task("files", total=files)

        def through(parts: "Iterable[Part]", reading: "Reading") -> "Iterator[Found]":
            for part in parts:
                yield from read(part, reading)
                bar.advance(done)

        yield through, lambda more: bar.advance(entries, more)


def _tell(taken: "Taken", *, dry_run: bool) -> None:
    for complaint in taken.complaints[:LISTED]:
        say(str(complaint), err=True)
    if more := len(taken.complaints) - len(taken.complaints[:LISTED]) + taken.unlisted:
        typer.echo(f"and {more} more", err=True)
    done = "would be written" if dry_run else "written"
    typer.echo(f"{_cases(taken.written)} {done}, {taken.unchanged} known already, {taken.left_out} left out.")


def _cases(number: int) -> str:
    return "1 case" if number == 1 else f"{number} cases"


def _hit_parts(found: "Hits") -> "Iterator[RenderableType]":
    from rich.text import Text

    if not found.hits:
        yield "Nothing like it is known."
    for hit in found.hits:
        yield Text("\n".join(_hit_lines(hit)))


def _hit_lines(hit: "Hit") -> Iterator[str]:
    cause = " · ".join(part for part in (hit.component, hit.category) if part)
    when = "runbook" if hit.kind == "runbook" else f"{hit.occurred_at:%Y-%m-%d} {hit.outcome}"
    seen = f", {hit.seen}x" if hit.seen > 1 else ""
    yield printable(f"{hit.id}  {when}{seen}  {hit.service}: {hit.title}" + (f" [{cause}]" if cause else ""))
    yield from (f"    {printable(said)}" for said in (hit.summary, hit.helped and f"helped: {hit.helped}") if said)
    if hit.reasons:
        yield f"    found by {printable('; '.join(hit.reasons))}"
