"""Whether feedback makes the first option better: twenty incidents in sequence of five kinds, and a person after each.

The incidents are real ones of the shop (``benchmarks.shop_floor``): collected and ranked, and each time explained and
planned anew, with what the memory holds by then. What an option does is lived through once for each fault, in a shop
of its own, and judged by the shop's truth; the shop's seed is fixed, so it would do the same again.

The playbooks know these faults well: their first option mostly resolves from the start, which leaves little to learn.
So all is measured as well with a planner that knows nothing: the same options, of which each is said to be as good as
any other. What it learns is feedback alone.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field, replace
from random import Random
from statistics import mean
from typing import Any, Literal

from app.db import transaction
from app.feedback import give
from app.knowledge.search import PostgresPast
from app.opinions import Feedback
from app.store import incidents
from benchmarks.remediation import AFTER, BEFORE, Verdict, judge, share_lost
from benchmarks.results import Table
from benchmarks.setting import Setting
from benchmarks.shop_floor import ADA, SEED, Floor, floors
from graph.deps import Deps, NoPast
from graph.flow import NODES
from graph.llms.base import Analyst, PlanRequest, Proposal
from graph.llms.preference import ordered
from graph.llms.rules import RulesAnalyst
from graph.llms.scripted import ScriptedAnalyst
from graph.nodes.context_collector import context_collector
from graph.state import ActionOption, Choice, Decision, Execution, Plan, RootCause, State

FAULTS = ("bad-deploy", "black-friday", "cache-node-hung", "connection-leak", "failing-deploy")
"""The first five by name that more than one option is proposed for, of which one resolves."""
EACH = 4  # incidents of each kind
LIES = (1, 3)  # poisoned feedbacks in a row
GIVES_UP = 8  # honest ones after which it is not waited for any longer
EVEN = 0.5
ORDERS = 10  # in which the twenty come
Tells = Literal["nothing", "verdict", "what helps"]


class Impartial(RulesAnalyst):
    """Proposes what the playbooks propose, and holds every option for as good as any other."""

    async def plan(self, request: PlanRequest) -> Proposal:
        """The same options, ordered by their records and risks alone."""
        proposal = await super().plan(request)
        even = [option.model_copy(update={"benefit": EVEN}) for option in proposal.options]
        return Proposal(ordered(even, request), proposal.notes)


class CollectedOnce:
    """ContextCollector for a shop that stands still: it would collect and rank the same again."""

    def __init__(self) -> None:
        self.collected: dict[str, Any] | None = None

    async def __call__(self, deps: Deps, state: State) -> dict[str, Any]:
        """What it found the first time."""
        if self.collected is None:
            self.collected = await context_collector(deps, state)
        return self.collected


@dataclass(frozen=True)
class Tried:
    """An option that was lived through: what the product says of it, and what is true."""

    execution: Execution
    truth: Verdict


@dataclass
class Truths:
    """Every option that was asked for, lived through once, in a shop of its own."""

    setting: Setting
    known: dict[tuple[str, str], Tried] = field(default_factory=dict)

    async def of(self, fault: str, cause: RootCause, option: ActionOption) -> Tried:
        """What comes of it."""
        key = fault, "\n".join(f"{step.operation} {sorted(step.params.items())}" for step in option.steps)
        if key not in self.known:
            self.setting.tell(f"learning: {fault}: {option.title}")
            async with floors(self.setting.database()) as world, world.open(fault) as floor:
                self.known[key] = await _lived_through(floor, cause, option)
        return self.known[key]


async def _lived_through(floor: Floor, cause: RootCause, option: ActionOption) -> Tried:
    incident, _, plan = await floor.planned("once", ScriptedAnalyst(cause, [option]))
    start = floor.clock.now()
    execution = await floor.carried_out(incident, plan, "1")
    assert execution is not None, f"nothing came of {option.title}"
    # what was undone is judged by how it was before
    undone = [result.claimed_at for result in execution.undone if result.claimed_at]
    end = min(undone, default=floor.clock.now())
    before, after = floor.truth(start - BEFORE, start), floor.truth(end - AFTER, end)
    lost = share_lost(asdict(before), asdict(after))
    return Tried(execution, judge(before.harm, after.harm, well=after.well, lost=lost))


@dataclass(frozen=True)
class Lived:
    """One incident of a sequence: what its first option would do."""

    fault: str
    first: str
    truth: Verdict

    @property
    def resolved(self) -> bool:
        """The first option was the right one."""
        return self.truth == "resolved"


@dataclass(frozen=True)
class Story:
    """A sequence of incidents in one installation, with a memory or without."""

    shops: Mapping[str, Floor]
    truths: Truths
    analyst: Analyst

    async def incident(self, fault: str, number: int, tells: Tells, *, lies: bool = False) -> Lived:
        """One, and what a person says of it afterwards."""
        floor = self.shops[fault]
        incident, cause, plan = await floor.planned(str(number), self.analyst)
        self.truths.setting.tell(f"learning: {fault}: incident {number + 1}")
        outcomes = [await self.truths.of(fault, cause, option) for option in plan.options]
        await self._end(floor, incident, plan, outcomes[0])
        if tells != "nothing":
            await self._say(floor, incident, plan, [t.truth for t in outcomes], lies=lies, names=tells == "what helps")
        return Lived(fault, plan.options[0].title, outcomes[0].truth)

    async def _end(self, floor: Floor, incident: str, plan: Plan, first: Tried) -> None:
        """As if the first option had been chosen: its outcome is known, so it is not lived through again."""
        choice: Choice = "1"
        ran = first.execution.model_copy(update={"plan_revision": plan.revision, "choice": choice})
        decision = Decision(plan_revision=plan.revision, choice=choice, by=ADA.name, at=floor.clock.now())
        async with transaction(floor.desk.pool) as connection:
            await incidents.insert_decision(connection, incident, decision)
            body = ran.model_dump(mode="json", by_alias=True)
            await incidents.save_execution(connection, incident, plan.revision, body)
            await incidents.set_status(connection, incident, "resolved" if first.truth == "resolved" else "closed")

    async def _say(
        self, floor: Floor, incident: str, plan: Plan, truths: Sequence[Verdict], *, lies: bool, names: bool
    ) -> None:
        """Whether the first option was right; ``names``: if not, what helped, the first of the others that resolves it.

        A lie says the opposite: what resolves it is wrong, and what does not is what helped.
        """
        good = [truth == "resolved" for truth in truths]
        helped = next((o for o, ok in zip(plan.options, good, strict=True) if ok != lies), None)
        right = good[0] != lies
        improved = not right and not lies and truths[0] == "improved"
        said = Feedback(
            about="option",
            option=1,
            verdict="right" if right else "partly" if improved else "wrong",
            helped=", ".join(_changing(floor, helped)) if helped and names else "",
        )
        await give(floor.desk, incident, said, ADA)


def _changing(floor: Floor, option: ActionOption) -> list[str]:
    """Its operations, without those that only look."""
    return list(dict.fromkeys(s.operation for s in option.steps if not floor.desk.operations[s.operation].read_only))


# --- what is measured ---------------------------------------------------------------------------------------


def measure(setting: Setting) -> list[Table]:
    """Sequences with and without memory, then lies."""
    return asyncio.run(_measure(setting))


async def _measure(setting: Setting) -> list[Table]:
    async with AsyncExitStack() as stack:
        worlds = await stack.enter_async_context(floors(setting.database()))
        shops = {
            fault: replace(
                await stack.enter_async_context(worlds.open(fault)),
                nodes={**NODES, "ContextCollector": CollectedOnce()},
            )
            for fault in FAULTS
        }
        truths = Truths(setting)
        laboratory = Laboratory(setting, shops, truths)
        analysts: dict[str, Analyst] = {"as the playbooks say": RulesAnalyst(), "all alike": Impartial()}
        sequences = {
            (name, tells): [await laboratory.sequence(analyst, tells, order) for order in range(ORDERS)]
            for name, analyst in analysts.items()
            for tells in MEMORY
        }
        recoveries = [
            (name, fault, lies, await laboratory.recovery(analyst, fault, lies))
            for name, analyst in analysts.items()
            for fault in FAULTS
            for lies in LIES
        ]
    return [shares(sequences), each_time(sequences), lies_told(recoveries), options_tried(truths)]


@dataclass(frozen=True)
class Laboratory:
    """Installations that have learned nothing yet, in front of the same shops."""

    setting: Setting
    shops: Mapping[str, Floor]
    truths: Truths

    async def sequence(self, analyst: Analyst, tells: Tells, number: int) -> list[Lived]:
        """Twenty incidents in an order that has nothing to do with their kinds."""
        order = [fault for fault in FAULTS for _ in range(EACH)]
        Random(SEED + number).shuffle(order)

        async def live(story: Story) -> list[Lived]:
            return [await story.incident(fault, n, tells) for n, fault in enumerate(order)]

        return await self._in_a_new_installation(analyst, tells != "nothing", live)

    async def recovery(self, analyst: Analyst, fault: str, lies: int) -> int | None:
        """After so many lies: how many incidents with honest feedback until the first option resolves for good.

        0: it never stopped to. None: not within those that were waited for.
        """

        async def live(story: Story) -> list[Lived]:
            for number in range(lies):
                await story.incident(fault, number, "what helps", lies=True)
            return [await story.incident(fault, lies + n, "what helps") for n in range(GIVES_UP)]

        lived = await self._in_a_new_installation(analyst, True, live)
        wrong = [n for n, one in enumerate(lived, 1) if not one.resolved]
        return None if wrong and wrong[-1] == GIVES_UP else max(wrong, default=0)

    async def _in_a_new_installation(
        self, analyst: Analyst, remembers: bool, live: Callable[[Story], Awaitable[list[Lived]]]
    ) -> list[Lived]:
        async with floors(self.setting.database()) as installation:
            shops = {
                fault: floor.before(
                    installation, PostgresPast(installation.pool, floor.clock) if remembers else NoPast()
                )
                for fault, floor in self.shops.items()
            }
            return await live(Story(shops, self.truths, analyst))


# --- tables -------------------------------------------------------------------------------------------------

Sequences = Mapping[tuple[str, Tells], Sequence[Sequence[Lived]]]
Recoveries = Sequence[tuple[str, str, int, int | None]]
MEMORY: Mapping[Tells, str] = {
    "nothing": "without memory",
    "verdict": "a person says whether option 1 was right",
    "what helps": "and which option would have been, if not",
}


def shares(sequences: Sequences) -> Table:
    """First options that resolve, in the first and in the last ten: on average, the worst and the best order."""
    rows = []
    for (analyst, tells), orders in sequences.items():
        half = len(orders[0]) // 2
        parts = [[sum(one.resolved for one in part) for part in (o[:half], o[half:])] for o in orders]
        told = (f"{mean(of):.1f} of {half} ({min(of)} to {max(of)})" for of in zip(*parts, strict=True))
        rows.append((analyst, MEMORY[tells], *told))
    return Table(
        f"First options that resolve the incident, in {ORDERS} orders: mean (range)",
        ("benefits", "feedback", "first half", "last half"),
        rows,
        f"{len(FAULTS) * EACH} incidents of {len(FAULTS)} kinds, mixed: the first five faults for which more than one"
        " option is proposed and one resolves. A fault comes back exactly as it was, so this is memory of repeats;"
        " nothing is said of like ones. «As the playbooks say» is the product; it knows these faults from the start."
        " «All alike»: the same options, none said to be better than another, so that all that is known of them is"
        " feedback. Time stands still, so nothing fades. Resolved is the shop's truth, as in remediation.",
    )


def each_time(sequences: Sequences) -> Table:
    """Of each kind, the first to the last time it came."""
    rows = [
        (analyst, MEMORY[tells], fault, " ".join("+" if o.resolved else "-" for o in orders[0] if o.fault == fault))
        for (analyst, tells), orders in sequences.items()
        for fault in FAULTS
    ]
    title = "Of each kind, the first to the last time, in the first order"
    return Table(title, ("benefits", "feedback", "fault", "first option"), rows)


def lies_told(recoveries: Recoveries) -> Table:
    """After how many honest feedbacks the first option resolves again."""
    rows = []
    for analyst, fault in dict.fromkeys((analyst, fault) for analyst, fault, *_ in recoveries):
        found = {lies: after for a, f, lies, after in recoveries if (a, f) == (analyst, fault)}
        told = ("never" if found[n] is None else str(found[n]) for n in LIES)
        rows.append((analyst, fault, *told))
    return Table(
        "Poisoned feedback: incidents until the first option resolves again, for good",
        ("benefits", "fault", *(f"{n} {'lie' if n == 1 else 'lies'}" for n in LIES)),
        rows,
        "An admin calls what resolves it wrong and names what does not as what helped, in so many incidents of the kind"
        " in a row; every later one is judged honestly. 0: the first option never stopped to resolve it. never: not"
        f" within {GIVES_UP}.",
    )


def options_tried(truths: Truths) -> Table:
    """What was lived through."""
    rows = [
        (fault, ", ".join(sorted({step.split(" ")[0] for step in does.splitlines()})), tried.truth)
        for (fault, does), tried in truths.known.items()
    ]
    return Table("Each option, lived through once", ("fault", "operations", "truth"), sorted(rows))
