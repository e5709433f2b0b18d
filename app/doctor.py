"""``autopilot doctor``: would everything that is configured work, and what is missing?"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import psycopg
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.catalogue import AutopilotYaml, CatalogueError, load
from app.clock import Clock, parse_clock
from app.db import Connection, in_one_transaction, running_database
from app.embedded_postgres import EmbeddedPostgresError
from app.environment import mistakes
from app.knowledge.embedding import EmbeddingFailed
from app.settings import LOOPBACK, Settings
from app.store import vectors
from app.wiring import (
    WiringError,
    create_collectors,
    create_embedder,
    create_executors,
    create_masker,
    create_notifiers,
)
from collectors.base import Check
from executors.base import Check as ExecutorCheck
from graph.catalogue import Team

if TYPE_CHECKING:
    from graph.llms.openai_settings import Settings as ModelSettings

LONGEST_S = 60.0  # for one source; they are looked at side by side
STYLES = {"ok": "green", "failed": "red", "skipped": "yellow"}


@dataclass(frozen=True)
class Finding:
    """One check, and what it is of: database, catalogue, «collector datadog», …"""

    of: str
    check: Check


class _Examined(Protocol):
    """Collectors and executors, which know nothing of each other."""

    async def check(self) -> Sequence[Check | ExecutorCheck]: ...

    async def aclose(self) -> None: ...


async def examine(settings: Settings) -> list[Finding]:
    """Every check there is, side by side. Nothing is changed anywhere."""
    file, catalogue = _catalogue(settings)
    clock, declared, resources = parse_clock(settings.clock), file.declared(), file.catalogue()
    found = await asyncio.gather(
        _bounded("database", _database(settings)),
        _bounded("model", _model(datetime.now(UTC).date())),
        *(_of(f"collector {n}", partial(create_collectors, (n,), declared, clock)) for n in settings.collectors),
        *(_of(f"executor {n}", partial(create_executors, (n,), resources, clock)) for n in settings.executors),
        *(_bounded(f"notifier {name}", _notifier(name, file, clock)) for name in settings.notifiers),
        _bounded("messages", _messages(settings, file)),
        _bounded("embedder", _embedder(settings, file)),
    )
    return [Finding("catalogue", catalogue), *(finding for group in found for finding in group)]


def show(findings: Sequence[Finding], *, as_json: bool) -> None:
    """A table for people, or JSON for programs."""
    if as_json:
        print(json.dumps([{"of": f.of, **f.check.model_dump()} for f in findings], indent=2))  # noqa: T201  its output
        return
    table = Table(show_lines=False)
    for column in ("", "check", "", "what was seen, and what to do"):
        table.add_column(column, overflow="fold")
    previous = ""
    for finding in findings:
        check, style = finding.check, STYLES[finding.check.status]
        told = escape(check.detail) + (f"\n[bold]{escape(check.mend)}[/bold]" if check.mend else "")
        name = "" if finding.of == previous else finding.of
        table.add_row(escape(name), escape(check.name), f"[{style}]{check.status}[/{style}]", told)
        previous = finding.of
    Console().print(table)
    bad = sum(f.check.status == "failed" for f in findings)
    Console().print(f"[red]{bad} to mend.[/red]" if bad else "[green]Nothing to mend.[/green]")


def _catalogue(settings: Settings) -> tuple[AutopilotYaml, Check]:
    try:
        file = load(settings.config)
    except CatalogueError as error:
        return AutopilotYaml(), Check(name="autopilot.yaml", status="failed", detail=str(error))
    if settings.config is None:
        mend = "Set AUTOPILOT_CONFIG to your autopilot.yaml, so that neighbours and remedies are known."
        return file, Check(name="autopilot.yaml", status="skipped", detail="not set", mend=mend)
    return file, Check(name="autopilot.yaml", status="ok", detail=f"{len(file.services)} services")


async def _of(name: str, create: Callable[[], Sequence[_Examined]]) -> list[Finding]:
    async def checks() -> Sequence[Check | ExecutorCheck]:
        [examined] = create()
        try:
            return await examined.check()
        finally:
            await examined.aclose()

    return await _bounded(name, checks())


async def _notifier(name: str, file: AutopilotYaml, clock: Clock) -> list[Check]:
    """What stands against it."""
    notifier = create_notifiers((name,), file, clock)[name]
    try:
        found = await notifier.check()
    finally:
        await notifier.aclose()
    problems = [*(_slack_lacks(file) if name == "slack" else ()), *(found or ())]
    if problems:
        return [Check(name="ready", status="failed", detail=problem) for problem in problems]
    if found is None:
        detail = "its settings are there; whether they are right cannot be tried without telling somebody"
        return [Check(name="ready", status="skipped", detail=detail, mend="The first incident will show it.")]
    return [Check(name="ready", status="ok", detail="nothing stands against it; nobody was told anything")]


def _slack_lacks(file: AutopilotYaml) -> Iterator[str]:
    """What Slack itself does not know: whether messages have somewhere to go, and buttons somebody who may press."""
    from app.intake.slack import Settings as SenderSettings

    if not file.policy.messages.default_channel and not any(team.slack_channel for team in file.teams.values()):
        yield "no team has slack_channel and policy.messages has no default_channel (autopilot.yaml): nobody is told"
    if not SenderSettings().signing_secrets:
        yield "AUTOPILOT_SLACK_SIGNING_SECRETS is not set: no button works; it is under «Basic Information» of the app"
    if not any(operator.slack for operator in file.operators.values()):
        yield "nobody of operators: (autopilot.yaml) has a Slack id (slack: [U…]): whoever presses a button is refused"


async def _messages(settings: Settings, file: AutopilotYaml) -> list[Check]:
    """Whether every team hears of its incidents, and can open what it is shown."""
    if not settings.notifiers:
        mend = "Set it to slack, jira, pagerduty or webhook; teams: of autopilot.yaml says where each team is told."
        detail = "AUTOPILOT_NOTIFIERS is not set: nobody is told of incidents"
        return [Check(name="notifiers", status="skipped", detail=detail, mend=mend)]
    return [_reached(settings.notifiers, file), _links(settings)]


def _reached(notifiers: Sequence[str], file: AutopilotYaml) -> Check:
    messages = file.policy.messages

    def hears(team: Team) -> bool:
        ways = {"slack": team.slack_channel or messages.default_channel, "jira": team.jira, "pagerduty": team.pagerduty}
        return any(ways.get(name, True) for name in notifiers)  # any other is told of all teams

    if deaf := [name for name, team in file.teams.items() if not hears(team)]:
        mend = "Say in autopilot.yaml where they are told (slack_channel, jira, pagerduty), or set default_channel."
        return Check(name="teams", status="failed", detail=f"nothing reaches {', '.join(deaf)}", mend=mend)
    return Check(name="teams", status="ok", detail=f"{len(file.teams)} teams, each of them reached")


def _links(settings: Settings) -> Check:
    detail = f"messages link to {settings.public_url}"
    if urlsplit(settings.public_url).hostname not in LOOPBACK:
        return Check(name="links", status="ok", detail=detail)
    mend = "Set AUTOPILOT_PUBLIC_URL to where people reach this service."
    return Check(name="links", status="failed", detail=f"{detail}, which is each reader's own machine", mend=mend)


async def _embedder(settings: Settings, file: AutopilotYaml) -> list[Check]:
    """One word is made a vector of; whether Postgres can keep it stands with the database."""
    embedder = create_embedder(settings, create_masker(settings, file, b"any"))
    if embedder is None:
        detail = "AUTOPILOT_EMBEDDER is not set: signature and words find past incidents"
        return [Check(name="vectors", status="skipped", detail=detail)]
    try:
        await embedder.embed(["incident"])
    except EmbeddingFailed as error:
        mend = "Until it answers, signature and words find past incidents."
        return [Check(name=embedder.name, status="failed", detail=str(error), mend=mend)]
    finally:
        await embedder.aclose()
    return [Check(name=embedder.name, status="ok", detail="makes vectors")]


async def _bounded(of: str, examining: Awaitable[Sequence[Check | ExecutorCheck]]) -> list[Finding]:
    """Whatever happens in it costs the other findings nothing. An error that nobody expected may hold a secret."""
    try:
        async with asyncio.timeout(LONGEST_S):
            checks = await examining
    except TimeoutError:
        checks = [Check(name="reachable", status="failed", detail=f"no answer within {LONGEST_S:g} s")]
    except WiringError as error:
        checks = [Check(name="settings", status="failed", detail=str(error))]
    except ValidationError as error:
        told = "; ".join(f"{variable}: {message}" for variable, message in mistakes(error))
        checks = [Check(name="settings", status="failed", detail=told)]
    except Exception as error:  # noqa: BLE001  one finding that is not told must not cost all others
        mend = "Report this defect, with what was configured."
        checks = [Check(name="check", status="failed", detail=f"it broke: {type(error).__name__}", mend=mend)]
    return [Finding(of, Check.model_validate(check.model_dump())) for check in checks]


async def _database(settings: Settings) -> list[Check]:
    try:
        version, lacks = await asyncio.to_thread(_looked_into, settings)
    except (psycopg.OperationalError, EmbeddedPostgresError) as error:
        said = " ".join(str(error).split())
        return [Check(name="reachable", status="failed", detail=said, mend="Check DATABASE_URL and the server.")]
    where = "DATABASE_URL" if settings.database_url else f"embedded, in {settings.data_dir / 'pg'}"
    reached = Check(name="reachable", status="ok", detail=f"Postgres {version} ({where})")
    return [reached, *([Check(name="pgvector", status="failed", detail=lacks)] if lacks else [])]


def _looked_into(settings: Settings) -> tuple[str, str]:
    """Its version, and why it cannot keep vectors where it should; empty: it can, or need not."""
    with running_database(settings) as url:
        with psycopg.connect(url, connect_timeout=5) as connection:
            version = connection.info.parameter_status("server_version") or "of unknown version"
        return version, in_one_transaction(url, _lacks_vectors) if settings.embedder else ""


async def _lacks_vectors(connection: Connection) -> str:
    """Tried, and undone."""
    try:
        async with connection.transaction(force_rollback=True):
            await vectors.create_extension(connection)
    except vectors.NoVectors as error:
        return str(error)
    return ""


async def _model(today: date) -> list[Check]:
    from graph.llms.openai_settings import Settings as ModelSettings

    settings = ModelSettings()
    retires = _retirement(settings, today)
    if settings.api_key is None:
        detail = "OPENAI_API_KEY is not set: the rules engine answers"
        mend = "Set OPENAI_API_KEY; for a server of your own also OPENAI_BASE_URL and OPENAI_MODEL."
        return [Check(name="credentials", status="skipped", detail=detail, mend=mend), *retires]
    return [await _model_answers(settings), *_price_of(settings), *retires]


async def _model_answers(settings: "ModelSettings") -> Check:
    """Whether the server is there, takes the key and knows the model."""
    from graph.llms.openai import CallFailed, OpenAIChatModel

    model = OpenAIChatModel(settings)
    try:
        known = await model.known()
    except CallFailed as error:
        return Check(name=settings.model, status="failed", detail=str(error), mend=error.mend)
    finally:
        await model.aclose()
    where = f"at {settings.base_url} ({settings.served_as})"
    if known:
        return Check(name=settings.model, status="ok", detail=f"known {where}")
    detail = f"the server {where} answers, but does not tell whether there is such a model"
    return Check(name=settings.model, status="skipped", detail=detail, mend="The first incident will show it.")


def _price_of(settings: "ModelSettings") -> list[Check]:
    """Told where caps would be counted with another model's price."""
    told = {"dollars_per_million_input", "dollars_per_million_output"} <= settings.model_fields_set
    if told or settings.model == type(settings).model_fields["model"].default:
        return []
    detail = f"the caps in dollars are counted with gpt-4o's price, whatever {settings.model} costs"
    mend = "Set OPENAI_DOLLARS_PER_MILLION_INPUT and OPENAI_DOLLARS_PER_MILLION_OUTPUT; 0 for a server of your own."
    return [Check(name="price", status="skipped", detail=detail, mend=mend)]


def _retirement(settings: "ModelSettings", today: date) -> list[Check]:
    """Firm where OpenAI itself is asked. Another server may be a gateway to it, and without a key none is asked."""
    if settings.served_as not in ("openai", "compatible"):
        return []
    told = retirement_of(settings.model, today)
    if settings.served_as == "openai" and settings.api_key is not None:
        return told
    return [check.model_copy(update={"status": "skipped"}) for check in told]


def retirement_of(model: str, today: date) -> list[Check]:
    """Told as long as there is time to act, and failed from the day on."""
    from graph.llms.retirements import retirement

    retires = retirement(model)
    if retires is None:
        return []
    mend = f"Set OPENAI_MODEL to its successor, e.g. {retires.successor}, and run `autopilot eval scenarios` with it."
    if today >= retires.on:
        detail = f"{model} was shut down on {retires.on}, as OpenAI announced"
        return [Check(name="retirement", status="failed", detail=detail, mend=mend)]
    days = (retires.on - today).days
    detail = f"OpenAI shuts {model} down on {retires.on}, in {days} days"
    return [Check(name="retirement", status="ok", detail=detail, mend=mend)]
