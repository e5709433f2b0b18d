"""What people do to the memory itself: put cases in, write all of it out, let it forget. Audited."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from pydantic import JsonValue

from app.db import Connection, Pool, Row, transaction
from app.desk import require
from app.knowledge.cases import EXPORTED, Case, case_id
from app.knowledge.fields import Complaint
from app.knowledge.files import Found, exported
from app.security import Caller
from app.store import audit
from app.store import knowledge as store
from app.store.knowledge import Which
from executors.base import Clock

BATCH = 100  # cases of one transaction: others learn between two of them
MOST = 200  # complaints that are kept
Tell = Callable[[int], None]
"""Of how many cases more is known what became of them."""


@dataclass
class Taken:
    """What became of an import."""

    written: int = 0
    unchanged: int = 0
    left_out: int = 0
    complaints: list[Complaint] = field(default_factory=list)
    unlisted: int = 0  # complaints beyond ``MOST``

    def complain(self, complaint: Complaint) -> None:
        """One more."""
        self.left_out += complaint.lost
        if len(self.complaints) < MOST:
            self.complaints.append(complaint)
        else:
            self.unlisted += 1


async def take(
    pool: Pool,
    clock: Clock,
    caller: Caller,
    found: Iterable[Found],
    *,
    dry_run: bool = False,
    tell: Tell = lambda _: None,
) -> Taken:
    """Write what was found, batch by batch, each with its row in the audit log; the same again changes nothing.

    ``dry_run``: only look. ``found`` may be read lazily; its memory is bounded by a batch. Raises NotAllowed.
    """
    require(caller, "responder", "import into the memory")
    taken, rest = Taken(), iter(found)
    while batch := list(islice(rest, BATCH)):
        for complaint in (one for one in batch if isinstance(one, Complaint)):
            taken.complain(complaint)
        cases = [one for one in batch if isinstance(one, Case)]
        if dry_run:
            taken.written += len(cases)
        elif cases:
            await _write(pool, clock, caller, cases, taken)
        tell(len(batch))
    return taken


async def _write(pool: Pool, clock: Clock, caller: Caller, cases: list[Case], taken: Taken) -> None:
    async with transaction(pool) as connection:
        written = [case async for case in _saved(connection, cases, taken)]
        if written:
            body: dict[str, JsonValue] = {
                "subject": "import",
                "sources": [*dict.fromkeys(case.source for case in written)],
                "cases": {case.id: case.sha256 for case in written},
            }
            await audit.append(connection, "knowledge", caller.name, clock.now(), body)
    taken.written += len(written)
    taken.unchanged += len(cases) - len(written)


async def _saved(connection: Connection, cases: list[Case], taken: Taken) -> AsyncIterator[Case]:
    """Those that were new, or other than before."""
    for case in cases:
        if case.kind == "incident":
            if await store.get(connection, case.id):
                continue  # it was exported here: what we know of our own incident is the newer
            case = _of_elsewhere(case)
        before = await store.get(connection, case.id)
        if await store.save(connection, case):
            for said in _replaced(before, case) if before else ():
                if said not in taken.complaints[-1:]:  # of many sections of a page once
                    taken.complain(said)
            yield case


def _replaced(before: Row, case: Case) -> Iterator[Complaint]:
    """What to say where the one before was not this one, but another of the same name."""
    moved = before["occurred_at"] != case.occurred_at or case.kind == "runbook"
    if before["title"] != case.title and moved:
        was = f"{before['title']!r}" + (f" of {before['occurred_at']:%Y-%m-%d}" if case.kind != "runbook" else "")
        said = f"{was} was known by the same name, and was replaced by {case.title!r}; if it was another, rename one"
        yield Complaint(case.source, 0, said, lost=False)


def _of_elsewhere(case: Case) -> Case:
    """An incident of another installation: here it is one that was imported."""
    return case.model_copy(
        update={
            "id": case_id("imported", EXPORTED, case.id),
            "kind": "imported",
            "incident_id": None,
            "source": case.source or EXPORTED,
        }
    )


async def lines(pool: Pool) -> AsyncIterator[str]:
    """All of it, a line of JSON for each case; ``take`` reads it again."""
    async for row in store.every(pool):
        yield exported(row)


async def forget(pool: Pool, clock: Clock, caller: Caller, which: Which) -> int:
    """Delete these cases with all that they are found by; how many. Raises NotAllowed."""
    require(caller, "admin", "let the memory forget")
    async with pool.connection() as connection:
        meant = await store.ids(connection, which)
    return sum([await _forget(pool, clock, caller, which, batch) for batch in _batches(meant)])


async def _forget(pool: Pool, clock: Clock, caller: Caller, which: Which, cases: list[str]) -> int:
    async with transaction(pool) as connection:
        gone = await store.forget(connection, cases)
        asked = {name: str(value) for name, value in which._asdict().items() if value is not None}
        body: dict[str, JsonValue] = {"subject": "forget", "asked": dict(asked), "cases": [*cases]}
        await audit.append(connection, "knowledge", caller.name, clock.now(), body)
    return gone


def _batches(cases: list[str]) -> Iterator[list[str]]:
    return (cases[start : start + BATCH] for start in range(0, len(cases), BATCH))
