"""Sections of runbooks that were imported, as a collector finds them: ``autopilot knowledge import``."""

from app.db import Pool
from app.knowledge.cases import Hit, Query
from app.knowledge.embedding import Embedder
from app.knowledge.search import ENOUGH, search
from app.own_table import OwnTable
from app.store import knowledge as store
from collectors._passages import MAX_TEXT
from collectors.base import Document, Scope, Telemetry
from graph.signature import Signature

CANDIDATES = 20
FEW = 5  # sections quoted for one incident


class KnownRunbooks(OwnTable):
    """``collectors.base.Collector`` on the memory: always there, and needs no credentials."""

    name = "known_runbooks"

    def __init__(self, pool: Pool, embedder: Embedder | None = None) -> None:
        super().__init__(pool)
        self.embedder = embedder

    async def collect(self, scope: Scope) -> Telemetry:
        """The sections that fit the alert and the services in play, best first."""
        hits = await search(self.pool, _question(scope), self.embedder)
        fitting = [hit for hit in hits if _fits(hit, scope)][:FEW]
        async with self.pool.connection() as connection:
            rows = [(hit, await store.get(connection, hit.id)) for hit in fitting]
        return Telemetry(source=self.name, documents=tuple(_document(hit, row["report"]) for hit, row in rows if row))


def _services(scope: Scope) -> tuple[str, ...]:
    return tuple(dict.fromkeys((scope.service, *(target.service for target in scope.targets))))


def _question(scope: Scope) -> Query:
    symptom, services = scope.symptom, _services(scope)
    return Query(
        text="\n".join((symptom.title, *scope.hints, symptom.rule, symptom.text)),
        signature=Signature(services=services),
        environment=scope.environment,
        near=services,
        kinds=("runbook",),
        limit=CANDIDATES,
    )


def _fits(hit: Hit, scope: Scope) -> bool:
    """About a service in play; or about none in particular, and enough of the alert stands in it."""
    return hit.service in _services(scope) or (not hit.service and hit.likeness >= ENOUGH)


def _document(hit: Hit, report: str) -> Document:
    return Document(
        title=hit.title,
        section=hit.summary[:300],
        text=report[:MAX_TEXT].rstrip() + ("\n[…]" if len(report) > MAX_TEXT else ""),
        services=(hit.service,) if hit.service else (),
        why="; ".join(hit.reasons)[:300],
    )
