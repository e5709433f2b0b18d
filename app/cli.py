"""The command line. Imports are inside the commands, so that ``--help`` answers at once."""

import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar
from uuid import UUID

import typer

from app.cli_incidents import commands as incident_commands
from app.cli_knowledge import commands as knowledge_commands
from app.terminal import say, stop

if TYPE_CHECKING:
    from pydantic import ValidationError
    from rich.console import Console

    from app.clock import Clock
    from app.connect import Connector
    from app.db import Connection, Pool
    from app.security import Caller
    from app.settings import Settings

T = TypeVar("T")

app = typer.Typer(
    help="AIOps Auto Pilot: from an alert to a verified remedy.", no_args_is_help=True, pretty_exceptions_enable=False
)
keys = typer.Typer(help="API keys: create, list, revoke.", no_args_is_help=True)
import_ = typer.Typer(help="Make a bundle from somebody's recorded telemetry.", no_args_is_help=True)
connect = typer.Typer(help="Connect a sender of alerts, and wait until its first delivery came.", no_args_is_help=True)
eval_ = typer.Typer(help="Rank recorded incidents as production does, and write or compare.", no_args_is_help=True)
audit = typer.Typer(help="The audit log: check it, write it out.", no_args_is_help=True)
app.add_typer(incident_commands)
app.add_typer(knowledge_commands)
app.add_typer(audit, name="audit")
app.add_typer(connect, name="connect")
app.add_typer(keys, name="keys")
app.add_typer(import_, name="import")
app.add_typer(eval_, name="eval")

RoleName = Literal["viewer", "responder", "admin"]
LanguageName = Literal["en", "ko"]
ProfileName = Literal["openai", "azure", "vllm", "ollama", "compatible"]
Out = Annotated[Path, typer.Option(help="JSON file to write: the suspects of each case, best first")]
PublicUrl = Annotated[
    str, typer.Option("--url", help="Where vendors reach the service, if not at AUTOPILOT_PUBLIC_URL")
]
Wait = Annotated[float, typer.Option(help="Seconds to wait for the first delivery; 0: do not wait", min=0)]


def main() -> None:
    """Entry point: errors that a person can mend are shown as a sentence, not as a stack trace."""
    with _sentences():
        app(standalone_mode=True)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on")] = 8080,
    worker: Annotated[bool, typer.Option(help="Run jobs in this process too")] = True,
    console: Annotated[bool, typer.Option(help="Serve the Gradio console at /ui (extra: console)")] = True,
) -> None:
    """Serve webhooks, REST, the OpenAPI page and the console."""
    import signal

    import uvicorn

    from app.db import migrate, running_database
    from app.main import create_app

    # uvicorn shuts down in order and then raises the signal again: it must not end us before Postgres is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    settings = _settings()
    _log(settings)
    with running_database(settings) as url:
        _check(settings)
        migrate(url)
        _print_first_key(url, settings)
        typer.echo(f"Sign in: {sign_in_command(settings.public_url, port)}")
        uvicorn.run(
            create_app(settings, url, worker=worker, console=console and _gradio_is_there()),
            host=host,
            port=port,
            log_level=settings.log_level.lower(),
            access_log=settings.log_level == "DEBUG",  # a line for each alert of a storm is told by nobody's reading it
            timeout_graceful_shutdown=3,
        )


@app.command()
def worker() -> None:
    """Run jobs, without the API. Start as many as you like, on as many machines."""
    import asyncio
    import signal

    from app.db import migrate, running_database
    from app.wiring import assembled
    from app.worker import work

    settings = _settings()
    _log(settings)

    async def until_told(url: str) -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with assembled(settings, url) as product:
            await work(product, stop)

    with running_database(settings) as url:
        migrate(url)
        asyncio.run(until_told(url))


@app.command()
def migrate() -> None:
    """Bring the database up to date: our tables, the queue's, LangGraph's. Safe to repeat."""
    from app.db import migrate as migrate_database
    from app.db import running_database

    with running_database(_settings()) as url:
        migrate_database(url)
    typer.echo("The database is up to date.")


@app.command()
def demo(
    scenario: Annotated[str, typer.Option(help="A story of the shop; a wrong name lists them all")] = "black-friday",
    choice: Annotated[str, typer.Option(help="1, 2, 3 or manual: decide without asking")] = "",
    bundle: Annotated[Path | None, typer.Option(help="A recorded bundle instead of the shop")] = None,
    port: Annotated[int, typer.Option(help="Port of the console and API; 0 picks a free one", min=0, max=65535)] = 8080,
    speed: Annotated[float, typer.Option(help="How much faster than the wall clock the shop lives")] = 30.0,
    console: Annotated[bool, typer.Option(help="Serve the Gradio console at /ui as well")] = True,
) -> None:
    """Break a shop, analyse the incident, decide, repair, verify: all on this machine, with no keys."""
    from app.demo import Demo

    raise typer.Exit(
        Demo(scenario, choice, bundle, port=port, speed=speed, console=console and _gradio_is_there()).run()
    )


@app.command()
def settings() -> None:
    """Print every setting with its meaning, as a .env file."""
    from app.environment import reference

    typer.echo(reference(), nl=False)


@app.command(no_args_is_help=True)
def replay(
    alert_id: Annotated[UUID | None, typer.Argument(help="An alert to take for a new one; see GET /alerts")] = None,
    dead_letter: Annotated[bool, typer.Option("--dead-letter", help="Read all dead letters again")] = False,
    since: Annotated[str, typer.Option(help="Only dead letters received since 2h (s, m, h, d), or an ISO time")] = "",
) -> None:
    """Read dead letters again, after the parser or the catalogue was mended; or investigate an old alert again."""
    import asyncio

    from app import replay
    from app.db import migrate, running_database

    if dead_letter == (alert_id is not None) or (since and not dead_letter):
        raise typer.BadParameter("give either an alert's id, or --dead-letter, with --since or without")
    try:
        moment = replay.moment(since, replay.wall_clock()) if since else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None
    settings = _settings()
    with running_database(settings) as url:
        migrate(url)
        if alert_id:
            say(f"incident {asyncio.run(replay.replay_alert(settings, url, alert_id))}")
        elif not asyncio.run(replay.replay_dead_letters(settings, url, moment, say)):
            raise typer.Exit(1)


@app.command()
def export(
    incident: Annotated[str, typer.Argument(help="Its id, e.g. from GET /incidents")],
    out: Annotated[Path | None, typer.Option(help="Folder of the bundle; default bundles/<incident>")] = None,
    round_: Annotated[int | None, typer.Option("--round", help="Which analysis; default the last")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Keep secrets and personal data")] = False,
) -> None:
    """Write what was seen of an incident as a bundle, sanitised: to share, or as a regression test."""
    from app.export import export as write_bundle

    settings, target = _settings(), out or Path("bundles") / incident
    _in_database(lambda connection: write_bundle(connection, settings, incident, round_, target, raw=raw))
    typer.echo(f"Bundle: {target}" + ("" if raw else " (sanitised: secrets and personal data are masked)"))


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table")] = False) -> None:
    """Look at everything that is configured: reachable, credentials, each permission, clock, a sample query."""
    import asyncio

    from app.doctor import examine, show

    findings = asyncio.run(examine(_settings()))
    show(findings, as_json=as_json)
    if any(f.check.status == "failed" for f in findings):
        raise typer.Exit(1)


@connect.command("datadog")
def connect_datadog(
    url: PublicUrl = "",
    wait: Wait = 300,
    name: Annotated[str, typer.Option(help="The webhook's name at Datadog")] = "autopilot",
) -> None:
    """Datadog's webhook: made by its API where DATADOG_API_KEY and DATADOG_APP_KEY are set, else shown to paste."""
    from app.connect_datadog import DatadogConnector
    from app.intake.datadog import Settings
    from collectors.datadog import Settings as Account

    _connect(url, wait, lambda base: DatadogConnector(Settings(), Account(), base, name, say))


@connect.command("cloudwatch")
def connect_cloudwatch(
    topic: Annotated[str, typer.Option(help="ARN of the SNS topic of the alarms")],
    url: PublicUrl = "",
    wait: Wait = 300,
    endpoint_url: Annotated[str, typer.Option(help="Another endpoint of SNS than the topic's region has")] = "",
) -> None:
    """CloudWatch's alarms: subscribed to by AWS's API where there are credentials, else by commands to paste."""
    from app.connect_cloudwatch import CloudwatchConnector
    from app.intake.cloudwatch import Settings
    from app.intake.eventbridge import Settings as EventBridge

    keys_set = bool(EventBridge().api_keys)
    _connect(url, wait, lambda base: CloudwatchConnector(Settings(), keys_set, base, topic, endpoint_url or None, say))


@connect.command("slack")
def connect_slack(url: PublicUrl = "", wait: Wait = 300) -> None:
    """Slack: the manifest of the app to make, and where its values go."""
    from app.connect_slack import SlackConnector
    from app.intake.slack import Settings

    _connect(url, wait, lambda base: SlackConnector(Settings(), base, say))


@app.command("sign-in")
def sign_in(
    name: str = "console",
    role: RoleName = "admin",
    url: Annotated[str, typer.Option(help="Where the service is, if not at AUTOPILOT_PUBLIC_URL")] = "",
) -> None:
    """Print a link that signs a browser in, once, within 30 minutes."""
    base = _base(url, _settings())
    token = _issue("sign_in", name, role)
    typer.echo(f"{base.rstrip('/')}/sign-in?token={token}&then=/")


@keys.command("create")
def create_key(name: Annotated[str, typer.Argument(help="Whose key it is")], role: RoleName = "responder") -> None:
    """Make a key and print it, this once."""
    typer.echo(_issue("key", name, role))


@keys.command("list")
def list_keys() -> None:
    """All keys, without their secrets."""
    from app.store import credentials

    for row in _in_database(credentials.keys):
        state = "revoked" if row["revoked_at"] else "valid"
        typer.echo(f"{row['id']}  {row['role']:<10} {state:<8} {row['created_at']:%Y-%m-%d}  {row['name']}")


@keys.command("revoke")
def revoke_key(key_id: Annotated[str, typer.Argument(help="The id from `autopilot keys list`")]) -> None:
    """Make a key useless, at once."""
    from app.security import local_caller, revoke

    by = local_caller().name
    if not _in_database(_with_audit_key(lambda connection: revoke(connection, key_id, by))):
        raise typer.BadParameter(f"there is no valid key {key_id!r}; see `autopilot keys list`")
    typer.echo(f"{key_id} is revoked.")


@app.command(no_args_is_help=True)
def freeze(
    reason: Annotated[str, typer.Argument(help="Why, for all who ask")] = "",
    status: Annotated[bool, typer.Option("--status", help="Only say whether it is frozen")] = False,
) -> None:
    """Stop every action that has not begun, now. What was begun runs to its end; `autopilot thaw` lifts it."""
    from app import freezing
    from app.store import freeze as store

    async def look(connection: "Connection") -> str:
        row = await store.current(connection)
        return store.said(row) if row else "Nothing is frozen."

    if status:
        say(_in_database(look))
        return
    row = _with_kill_switch(lambda pool, clock, caller: freezing.pull(pool, clock, caller, reason))
    say(store.said(row))


@app.command()
def thaw() -> None:
    """Lift the freeze. What was refused meanwhile is not run by itself: it is planned and decided anew."""
    from app import freezing

    row = _with_kill_switch(freezing.lift)
    say(f"The freeze of {row['pulled_at']:%Y-%m-%d %H:%M:%S} UTC by {row['pulled_by']} is lifted.")


@audit.command("verify")
def verify_audit(
    head: Annotated[str, typer.Option(help="SEQ:HASH that an earlier run printed, kept elsewhere")] = "",
) -> None:
    """Check every row of the log, its signature, and that it says what our tables say. Exit code 1: something is wrong.

    Keep the head that it prints where the database's owner cannot reach it: given again with --head, it proves that
    nothing before it was rewritten since.
    """
    from app import audit

    try:
        kept = audit.Head.parse(head) if head else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--head") from None
    report = _in_database(lambda connection: audit.verify(connection, kept))
    for line in report.lines():
        say(line)
    if report.findings:
        raise typer.Exit(1)


@audit.command("export")
def export_audit(
    incident: Annotated[str, typer.Option(help="Only of this incident")] = "",
    since: Annotated[str, typer.Option(help="Only since 2h (s, m, h, d), or an ISO time")] = "",
    format_: Annotated[Literal["jsonl"], typer.Option("--format", help="One row of JSON in a line")] = "jsonl",
) -> None:
    """Print the log, oldest first. To check a line without this product: `jq -j .text | sha256sum` is its hash.

    The first element of `text` is the hash of the row before; the others are the row.
    """
    from app import audit, replay
    from app.clock import parse_clock

    try:
        moment = replay.moment(since, parse_clock(_settings().clock).now()) if since else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None
    _in_database(lambda connection: audit.export(connection, typer.echo, incident_id=incident or None, since=moment))


@import_.command("nezha")
def import_nezha(
    source: Annotated[Path, typer.Argument(help="The .tar.xz, or the folder it unpacks to")],
    case: Annotated[str, typer.Option(help="inject_time of the case, e.g. '2023-01-29 08:43:04'; see --list")] = "",
    out: Annotated[Path | None, typer.Option(help="Folder of the new bundle")] = None,
    list_cases: Annotated[bool, typer.Option("--list", help="Print the case ids and stop")] = False,
) -> None:
    """Make a bundle of one case of the Nezha TrainTicket data set."""
    from app import nezha

    if list_cases:
        typer.echo("\n".join(nezha.cases(source)))
        return
    if not case:
        raise typer.BadParameter("name a case with --case; --list prints them")
    target = out or Path("bundles") / case.replace(" ", "T").replace(":", "-")
    typer.echo(f"Bundle: {nezha.import_case(source, case, target)}")


@eval_.command("petshop")
def eval_petshop(
    directory: Annotated[Path, typer.Argument(help="The folder that holds the scenarios", metavar="DIR")],
    out: Out,
    split: Annotated[Literal["train", "test", "all"], typer.Option(help="Which issues")] = "all",
    scenarios: Annotated[str, typer.Option(help="Some of them, with commas; default: all four")] = "",
) -> None:
    """Rank every issue of the PetShop data set. Exit code 1: something was missing or left out."""
    from app import evaluation, petshop

    with _bad_input():
        evaluation.check_out(out)
        splits = petshop.SPLITS if split == "all" else (split,)
        issues, absent = petshop.issues(directory, _listed(scenarios) or petshop.SCENARIOS, splits)
        with evaluation.progress("petshop", len(issues)) as (count, tell):
            for part in absent:
                tell(f"{part}: not there, skipped")
            missing: list[str] = []
            done = evaluation.counted(petshop.outcomes(issues, missing), count, tell)
        evaluation.write(out, done)
    say("; ".join([f"petshop: {evaluation.summary(done)}", *missing]) + f" -> {out}")
    raise typer.Exit(int(bool(missing) or any(one.complaint for one in done)))


@eval_.command("nezha")
def eval_nezha(
    source: Annotated[Path, typer.Argument(help="The .tar.xz, or the folder it unpacks to", metavar="DIR_OR_ARCHIVE")],
    out: Out,
    days: Annotated[str, typer.Option(help="e.g. 2023-01-29,2023-01-30; default: all there are")] = "",
    minute: Annotated[int, typer.Option(help="Which minute after the injection is looked at", min=0, max=60)] = 2,
    jobs: Annotated[int | None, typer.Option(help="Processes; default: one for each core", min=1)] = None,
) -> None:
    """Rank every fault of the Nezha TrainTicket data set. Exit code 1: a case could not be read and is left out."""
    import os

    from app import evaluation, nezha

    with _bad_input():
        evaluation.check_out(out)
        with (
            evaluation.progress("nezha") as (count, tell),
            nezha.unpacked(source, _listed(days)) as (root, cases),
        ):
            processes = min(jobs or os.cpu_count() or 1, len(cases))
            done = evaluation.counted(nezha.outcomes(root, cases, minute, processes), count, tell)
        evaluation.write(out, done)
    say(f"nezha, minute {minute}: {evaluation.summary(done)} -> {out}")
    raise typer.Exit(int(any(one.complaint for one in done)))


@eval_.command("scenarios")
def eval_scenarios(
    directory: Annotated[Path, typer.Argument(help="A folder of bundles, e.g. tests/scenarios", metavar="DIR")],
    llm: Annotated[str, typer.Option(help="URL of a server of chat completions; default: the rules engine")] = "",
    model: Annotated[str, typer.Option(help="The model's name, as its server knows it")] = "",
    key_env: Annotated[str, typer.Option(help="The variable that holds the server's key")] = "OPENAI_API_KEY",
    profile: Annotated[
        ProfileName | None, typer.Option(help="How the server differs; default: guessed from the URL")
    ] = None,
    repeat: Annotated[int, typer.Option(help="How often each scenario is run", min=1)] = 1,
    timeout: Annotated[float, typer.Option(help="Seconds that one answer of the model may take", min=1)] = 600.0,
    parallel: Annotated[int, typer.Option(help="How many run at once", min=1)] = 2,
    language: Annotated[LanguageName, typer.Option(help="What answers are written in")] = "en",
    input_tokens: Annotated[
        int | None,
        typer.Option(help="Tokens that one question may take; default: AUTOPILOT_MODEL_INPUT_TOKENS", min=2000),
    ] = None,
    dollars_input: Annotated[
        float | None,
        typer.Option(help="Price of a million prompt tokens; default: OPENAI_DOLLARS_PER_MILLION_INPUT", min=0),
    ] = None,
    dollars_output: Annotated[float | None, typer.Option(help="The same of completion tokens", min=0)] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file: every run and all figures, written as they come")] = None,
) -> None:
    """Analyse every bundle at or below a folder, and hold the answers against its expected.yml.

    Ctrl-C ends it with what is done. Exit code 2: nothing could be read or asked; 130: it was interrupted.
    """
    from app import evaluation, scenario_report, scenario_runs, scenarios

    endpoint = None
    if llm and not model:
        raise typer.BadParameter("--llm needs --model: the name of the model to ask")
    if model and not llm:
        raise typer.BadParameter("--model needs --llm: the URL of its server")
    if llm:
        endpoint = scenario_runs.Endpoint(llm, model, key_env, profile, timeout, dollars_input, dollars_output)
    way = scenario_runs.Way(endpoint, repeat, parallel, language, input_tokens)
    with _bad_input():
        if out:
            evaluation.check_out(out)
        found = scenarios.folders(directory)
        sheet = scenario_report.Sheet({"directory": str(directory), **way.as_json()}, found, repeat, out)
        ended = scenario_runs.evaluate(found, way, sheet)
    for part in scenario_report.parts(sheet, asked=endpoint is not None):
        _page(150).print(part)
    say(f"scenarios: {scenario_report.summary(sheet)}" + (f" -> {out}" if out else ""))
    raise typer.Exit(0 if ended else 130)


@app.command("rank")
def rank_bundle(
    bundle: Annotated[Path, typer.Argument(help="The folder of a recorded incident")],
    explain: Annotated[bool, typer.Option("--explain", help="Also how each suspect's score came about")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the evidence as JSON")] = False,
    svg: Annotated[Path | None, typer.Option(help="A folder for the pictures: findings and topology")] = None,
) -> None:
    """Say what is wrong in a recorded incident: findings, suspects and their causal paths. No LLM, no database."""
    from app import evaluation, ranking_report
    from collectors.replay import load_bundle

    with _bad_input():
        case = evaluation.Case.of(load_bundle(bundle))
        evidence = case.ranked()
        pictures = ranking_report.draw(evidence, case.alert.service, svg) if svg else 0
    if as_json:
        typer.echo(evidence.model_dump_json(indent=2))
    else:
        for part in ranking_report.parts(evidence, case.alert, explain=explain):
            _page().print(part)
    if svg:
        typer.echo(f"{pictures} pictures: {svg}", err=True)


# --- shared by the commands ---


def sign_in_command(public_url: str, port: int) -> str:
    """The command whose link reaches a server on this port; a public URL that is not this machine's is believed."""
    from urllib.parse import urlsplit

    from app.settings import LOOPBACK

    there = urlsplit(public_url)
    if there.hostname not in LOOPBACK or port in (0, there.port):
        return "autopilot sign-in"
    host = f"[{there.hostname}]" if ":" in there.hostname else there.hostname
    return f"autopilot sign-in --url {there.scheme}://{host}:{port}"


def _settings() -> "Settings":
    from app.settings import Settings

    return Settings()


def _base(url: str, settings: "Settings") -> str:
    """The URL that was given, or the settings'."""
    if url and not url.startswith(("http://", "https://")):
        raise typer.BadParameter("--url begins with http:// or https://")
    return url or settings.public_url


def _connect(url: str, wait_s: float, create: "Callable[[str], Connector]") -> None:
    from app.connect import connect, doubts

    settings = _settings()
    base = _base(url, settings)
    connector = create(base)
    if doubt := doubts(base):
        typer.echo(doubt, err=True)
    connect(settings, connector, wait_s, say)


def _listed(text: str) -> tuple[str, ...]:
    """The names between the commas, each once."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _page(columns: int = 100) -> "Console":
    """So wide in a terminal and in a pipe."""
    from rich.console import Console

    return Console(width=columns, highlight=False)


@contextlib.contextmanager
def _bad_input() -> Iterator[None]:
    """What was given cannot be read: a sentence, and exit code 2."""
    from app.evaluation import EvaluationError
    from app.nezha import NezhaError
    from app.petshop import PetshopError
    from collectors.replay import BundleError

    try:
        yield
    except (BundleError, EvaluationError, NezhaError, PetshopError) as error:
        stop(str(error), 2)


def _check(settings: "Settings") -> None:
    """What a web server would otherwise report from inside its start-up, with a stack trace."""
    import asyncio

    from app.catalogue import load
    from app.clock import parse_clock
    from app.wiring import (
        create_analyst,
        create_collectors,
        create_embedder,
        create_executors,
        create_masker,
        create_notifiers,
        create_senders,
        operations_by_name,
    )

    file, clock = load(settings.config), parse_clock(settings.clock)
    create_collectors(settings.collectors, file.declared(), clock)
    operations_by_name(create_executors(settings.executors, file.catalogue(), clock))
    create_senders(file, clock)
    create_notifiers(settings.notifiers, file, clock)
    masker = create_masker(settings, file, b"any")
    create_embedder(settings, masker)
    _, close = create_analyst(masker, settings)
    asyncio.run(close())


def _log(settings: "Settings") -> None:
    import logging

    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn.access").addFilter(lambda record: "/sign-in" not in record.getMessage())  # a secret
    for chatty in ("httpx", "httpx2", "alembic", "procrastinate"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))


def _gradio_is_there() -> bool:
    from importlib.util import find_spec

    return find_spec("gradio") is not None


def _print_first_key(url: str, settings: "Settings") -> None:
    from app.db import in_one_transaction
    from app.security import ensure_admin_key

    if key := in_one_transaction(url, _with_audit_key(ensure_admin_key), audit_keys=settings.audit_key):
        typer.echo(f"Your admin key, shown this once (more: `autopilot keys create`):\n\n    {key}\n")


def _issue(kind: Literal["key", "sign_in"], name: str, role: RoleName) -> str:
    from app.security import issue, local_caller

    by = local_caller().name
    return _in_database(_with_audit_key(lambda connection: issue(connection, kind, name, role, by)))


def _with_audit_key(work: "Callable[[Connection], Awaitable[T]]") -> "Callable[[Connection], Awaitable[T]]":
    """What writes into the audit log needs the key that all others sign it with."""
    from app.audit import check_key

    async def checked(connection: "Connection") -> T:
        await check_key(connection)
        return await work(connection)

    return checked


def _in_database(work: "Callable[[Connection], Awaitable[T]]") -> T:
    from app.db import in_one_transaction, migrate, running_database

    settings = _settings()
    with running_database(settings) as url:
        migrate(url)
        return in_one_transaction(url, work, audit_keys=settings.audit_key)


def _with_kill_switch(work: "Callable[[Pool, Clock, Caller], Awaitable[T]]") -> T:
    """On the database itself, whether or not anything of the product runs. It is not migrated: this is an emergency."""
    from app.db import running_database
    from app.local_work import as_local_caller

    settings = _settings()
    with running_database(settings) as url:
        return as_local_caller(url, settings, work)


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    from pydantic import ValidationError

    try:
        yield
    except ValidationError as error:
        sys.exit("\n".join(_setting_sentences(error)))
    except Exception as error:
        if type(error).__name__ not in _MENDABLE:
            raise
        sys.exit(f"autopilot: {error}")


_MENDABLE = (
    "CatalogueError",
    "EmbeddedPostgresError",
    "WiringError",
    "DemoError",
    "BundleError",
    "NezhaError",
    "OperationalError",
    "ConnectError",
    "ExportError",
    "NotFound",
    "AuditError",
    "Conflict",
    "PoolTimeout",
)


def _setting_sentences(error: "ValidationError") -> Iterator[str]:
    from app.environment import mistakes

    for variable, message in mistakes(error):
        yield f"autopilot: {_where(variable)}{variable}: {message}"


def _where(variable: str) -> str:
    """``.env:3: `` where the setting stands in that file."""
    file = Path(".env")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return next((f".env:{n}: " for n, line in enumerate(lines, 1) if line.strip().startswith(f"{variable}=")), "")
