"""Settings -> objects: the one place where names become things."""

import importlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import procrastinate
from pydantic import ValidationError

from app.catalogue import AutopilotYaml, load
from app.clock import Clock, parse_clock
from app.db import Pool, create_pool
from app.desk import Desk
from app.intake.base import Directory, Sender
from app.knowledge.embedding import Embedder, EmbedderError, MaskedEmbedder, OpenAIEmbedder, WordLlamaEmbedder
from app.knowledge.runbooks import KnownRunbooks
from app.knowledge.search import PostgresPast
from app.queue import create_queue
from app.received_changes import ReceivedChanges
from app.reception import Reception
from app.settings import Settings
from app.store import vectors
from app.store.alerts import observed_edges
from app.store.facts import PostgresFacts
from app.store.installation import masking_key
from app.store.ledger import PostgresLedger, PostgresSnapshots
from collectors.base import Collector, Declared, Edge
from collectors.replay import ReplayCollector
from executors.base import AnyOperation, CreateExecutor, Executor
from graph.catalogue import Catalogue
from graph.deps import Deps
from graph.llms.base import Analyst
from graph.masking import Masker
from graph.windows import ChooseWindows, Windows, recorded_windows, standard_windows

if TYPE_CHECKING:
    from app.notifiers.base import CreateNotifier, Notifier
    from graph.llms.accounted import CallLog
    from graph.llms.chat import ChatModel
    from graph.llms.openai_settings import Settings as OpenAISettings

T = TypeVar("T")
Close = Callable[[], Coroutine[Any, Any, None]]


class WiringError(Exception):
    """A setting names something that does not exist, or lacks what it needs; the text says what to do."""


@dataclass(frozen=True)
class Product:
    """Everything a process of the product holds."""

    settings: Settings
    clock: Clock
    pool: Pool
    queue: procrastinate.App
    desk: Desk
    deps: Deps
    senders: Mapping[str, Sender]
    directory: Directory
    reception: Reception
    notifiers: Mapping[str, "Notifier"] = field(default_factory=dict)


@asynccontextmanager
async def assembled(settings: Settings, database_url: str) -> AsyncIterator[Product]:
    """The product, connected. Raises WiringError, CatalogueError before anything is connected."""
    file, clock = load(settings.config), parse_clock(settings.clock)
    catalogue = file.catalogue()
    collectors = create_collectors(settings.collectors, file.declared(), clock)
    executors = create_executors(settings.executors, catalogue, clock)
    senders = create_senders(file, clock)
    notifiers = create_notifiers(settings.notifiers, file, clock)
    keys = settings.audit_key
    pool = create_pool(database_url, max_size=2 * settings.worker_concurrency + 5, audit_keys=keys)
    intake_pool = create_pool(database_url, min_size=1, max_size=1, audit_keys=keys)
    queue = create_queue(database_url)
    closers = [*(c.aclose for c in collectors), *(e.aclose for e in executors), *(s.aclose for s in senders.values())]
    closers += [n.aclose for n in notifiers.values()]
    async with AsyncExitStack() as stack:
        for closing in closers:
            stack.push_async_callback(closing)
        await stack.enter_async_context(pool)
        async with pool.connection() as connection:
            masker = create_masker(settings, file, await masking_key(connection))
        embedder = create_embedder(settings, masker)
        if embedder:
            stack.push_async_callback(embedder.aclose)
            await _prepare_vectors(pool, embedder)
        analyst, close_analyst = create_analyst(masker, settings, pool)
        stack.push_async_callback(close_analyst)
        await stack.enter_async_context(intake_pool)
        await stack.enter_async_context(queue.open_async())
        operations = operations_by_name(executors)
        desk = Desk(
            pool,
            queue,
            catalogue,
            clock,
            settings,
            policy=file.policy,
            operators=file.operators,
            operations=operations,
            correlation=file.correlation,
            embedder=embedder,
            intake_pool=intake_pool,
        )
        deps = Deps(
            catalogue=catalogue,
            collectors=[*collectors, ReceivedChanges(pool), KnownRunbooks(pool, embedder)],
            snapshots=PostgresSnapshots(pool),
            analyst=analyst,
            operations=operations,
            policy=file.policy,
            facts=PostgresFacts(pool, catalogue, file.policy, clock),
            ledger=PostgresLedger(pool, file.policy),
            clock=clock,
            windows=windows(collectors),
            observed_edges=partial(edges_seen, pool),
            collect_s=settings.collect_s,
            zone=_zone(senders),
            reads_s=settings.reads_s,
            masker=masker,
            past=PostgresPast(pool, clock, embedder),
        )
        directory, reception = Directory(catalogue), Reception(desk)
        yield Product(settings, clock, pool, queue, desk, deps, senders, directory, reception, notifiers)


def create_collectors(names: tuple[str, ...], declared: Declared, clock: Clock) -> list[Collector]:
    """The collectors by name. Raises WiringError."""
    return [
        _create("collectors", "AUTOPILOT_COLLECTORS", name, lambda create: create(clock, declared)) for name in names
    ]


def create_senders(file: AutopilotYaml, clock: Clock) -> dict[str, Sender]:
    """Every sender; its own settings say whether it takes anything. Raises WiringError."""
    senders: dict[str, Sender] = {}
    for name in sender_names():
        module = importlib.import_module(f"app.intake.{name}")
        try:
            senders[name] = module.create(clock, file)
        except ValidationError:
            raise  # a setting: told with its name
        except ValueError as error:
            raise WiringError(str(error)) from error
    return senders


def sender_names() -> list[str]:
    """The files of ``app/intake`` that are senders."""
    return [n for n in plug_ins("app.intake") if hasattr(importlib.import_module(f"app.intake.{n}"), "create")]


def create_executors(names: tuple[str, ...], catalogue: Catalogue, clock: Clock) -> list[Executor]:
    """The executors by name. Raises WiringError."""

    def call(create: CreateExecutor) -> Executor:
        return create(catalogue.resources(), clock)

    return [_create("executors", "AUTOPILOT_EXECUTORS", name, call) for name in names]


def create_notifiers(names: tuple[str, ...], file: AutopilotYaml, clock: Clock) -> "dict[str, Notifier]":
    """The notifiers by name. Raises WiringError."""

    def call(create: "CreateNotifier") -> "Notifier":
        return create(clock, file)

    return {name: _create("app.notifiers", "AUTOPILOT_NOTIFIERS", name, call) for name in names}


def operations_by_name(executors: list[Executor]) -> dict[str, AnyOperation]:
    """Every operation that is turned on. Raises WiringError if two share a name."""
    operations: dict[str, AnyOperation] = {}
    for operation in (o for e in executors for o in e.operations):
        if operation.name in operations:
            raise WiringError(
                f"AUTOPILOT_EXECUTORS: two executors bring the operation {operation.name!r};"
                " turn one of them off (rehearsal stands for all, so it goes alone)."
            )
        operations[operation.name] = operation
    return operations


def create_embedder(settings: Settings, masker: Masker) -> Embedder | None:
    """What makes vectors, if anything does; it sees masked texts only. Raises WiringError."""
    try:
        if settings.embedder == "openai":
            from graph.llms.openai_settings import Settings as OpenAISettings

            made = OpenAIEmbedder(OpenAISettings(), settings.embedding_model, settings.embedding_dimensions)
            return MaskedEmbedder(made, masker)
        return MaskedEmbedder(WordLlamaEmbedder(), masker) if settings.embedder else None
    except EmbedderError as error:
        raise WiringError(f"AUTOPILOT_EMBEDDER={settings.embedder}: {error}.") from None


async def _prepare_vectors(pool: Pool, embedder: Embedder) -> None:
    """Raises WiringError."""
    try:
        async with pool.connection() as connection:
            await vectors.prepare(connection, embedder)
    except vectors.NoVectors as error:
        raise WiringError(f"AUTOPILOT_EMBEDDER: {error}") from None


def create_masker(settings: Settings, file: AutopilotYaml, key: bytes) -> Masker:
    """What hides secrets and personal data in all that leaves, and in evidence. ``key``: this installation's."""
    patterns = [(pattern.name, pattern.regex) for pattern in file.masking.patterns]
    return Masker(key, ips=settings.mask_ips, patterns=patterns)


def create_analyst(masker: Masker, settings: Settings, pool: Pool | None = None) -> tuple[Analyst, Close]:
    """The model where there is a key, with the rules engine behind it; else the rules engine. And what closes it.

    Its calls are kept in the database of ``pool``, or in memory. Raises WiringError.
    """
    from graph.llms.openai_settings import Settings as OpenAISettings
    from graph.llms.rules import RulesAnalyst

    openai = OpenAISettings()
    if openai.api_key is None:
        return RulesAnalyst(), _nothing
    from app.store.llm_calls import PostgresCallLog
    from graph.llms.accounted import MemoryCallLog

    return create_model_analyst(openai, settings, masker, PostgresCallLog(pool) if pool else MemoryCallLog())


def create_model_analyst(
    openai: "OpenAISettings", settings: Settings, masker: Masker, calls: "CallLog", *, seconds: float = 120.0
) -> tuple[Analyst, Close]:
    """That model with the rules engine behind it, and what closes it; ``seconds``: see ModelAnalyst.

    Raises WiringError.
    """
    from graph.llms.analyst import ModelAnalyst
    from graph.llms.fallback import FallbackAnalyst
    from graph.llms.rules import RulesAnalyst

    chat, close = _create_chat_model(openai, settings, masker, calls)
    model = ModelAnalyst(chat, masker, input_tokens=settings.model_input_tokens, seconds=seconds)
    return FallbackAnalyst(model, RulesAnalyst()), close


def _create_chat_model(
    openai: "OpenAISettings", settings: Settings, masker: Masker, calls: "CallLog"
) -> tuple["ChatModel", Close]:
    """The model with its caps and its record, told to OpenTelemetry where that is configured."""
    from graph.llms.accounted import AccountedChatModel, Caps, Prices
    from graph.llms.openai import OpenAIChatModel
    from graph.progress import tell

    model, close_telemetry = _traced(OpenAIChatModel(openai), openai, settings, masker)
    caps = Caps(
        settings.model_tokens_per_incident, settings.model_dollars_per_incident, settings.investigation_dollars_per_day
    )
    prices = Prices(openai.dollars_per_million_input, openai.dollars_per_million_output, openai.max_completion_tokens)
    chat = AccountedChatModel(model, calls, caps, prices, masker, tell)

    async def close() -> None:
        await chat.aclose()
        await close_telemetry()

    return chat, close


def _traced(
    model: "ChatModel", openai: "OpenAISettings", settings: Settings, masker: Masker
) -> tuple["ChatModel", Close]:
    """The model itself where calls are told to nobody. Raises WiringError."""
    from app.telemetry_settings import Settings as TelemetrySettings

    told = TelemetrySettings()
    if not (settings.model_calls_to_langfuse or told.url_of("traces") or told.url_of("metrics")):
        return model, _nothing
    from app.telemetry import create_telemetry
    from graph.llms.traced import Endpoint, TracedChatModel

    try:
        telemetry = create_telemetry(told, to_langfuse=settings.model_calls_to_langfuse)
    except ValueError as error:
        raise WiringError(str(error)) from None
    provider = {"azure": "azure.ai.openai"}.get(openai.served_as, openai.served_as)
    endpoint = Endpoint(provider, openai.base_url, openai.max_completion_tokens)
    content = masker if settings.model_content_exported else None
    return TracedChatModel(model, endpoint, telemetry.tracer, telemetry.meter, content), telemetry.aclose


async def _nothing() -> None:
    return None


def windows(collectors: list[Collector]) -> ChooseWindows:
    """The usual windows around an alert; a recording has windows of its own."""
    replay = next((c for c in collectors if isinstance(c, ReplayCollector)), None)
    if replay is None:
        return standard_windows
    recording = replay.manifest
    return recorded_windows(Windows(recording.incident, recording.baseline, recording.seasonal))


def _zone(senders: Mapping[str, Sender]) -> tzinfo:
    """In which people write times: as Slack's messages are read, so are hints."""
    from app.intake.slack import Slack  # here, where all senders are loaded: --help does without them

    return next((sender.zone for sender in senders.values() if isinstance(sender, Slack)), UTC)


async def edges_seen(pool: Pool) -> list[Edge]:
    """Who was seen calling whom, in the traces of earlier investigations."""
    async with pool.connection() as connection:
        return [Edge(caller=a, callee=b, source="traces") for a, b in await observed_edges(connection)]


def _create(package: str, setting: str, name: str, call: Callable[[Any], T]) -> T:
    known = plug_ins(package)
    if name not in known:
        raise WiringError(f"{setting}: there is no {name!r}; there are: {', '.join(known)}.")
    module = importlib.import_module(f"{package}.{name}")
    try:
        return call(module.create)
    except ValidationError:
        raise  # a setting: told with its name
    except ValueError as error:
        raise WiringError(f"{setting}={name}: {error}") from error


def plug_ins(package: str) -> list[str]:
    """The files of a plug-in folder: each is one plug-in."""
    from pkgutil import iter_modules

    path = importlib.import_module(package).__path__
    return sorted(m.name for m in iter_modules(path) if m.name != "base" and not m.name.startswith("_"))
