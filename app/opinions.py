"""What people said of an incident's report, options and verification, and whose word counts. Pure.

Where several people say something of the same thing, the most trusted counts: an admin's word over a responder's, and
of equals the newest. All of it stays on record, and how many said what is told.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import Field

from app.security import RANK
from graph.memory import named_operations
from graph.state import Model, Role

About = Literal["report", "option", "verification"]
Opinion = Literal["right", "wrong", "partly"]
Helped = Literal["", "yes", "partly", "no"]
_OF_OPTION: Mapping[Opinion, Helped] = {"right": "yes", "partly": "partly", "wrong": "no"}


class Feedback(Model):
    """What a person says of one thing. Its texts are data: they steer nothing but what is remembered."""

    about: About
    plan_revision: str = Field(default="", description="Of an option: the plan's; of a verification: the one that ran")
    option: int = Field(default=0, ge=0, le=3, description="1 to 3; 0 where it is not about an option")
    verdict: Opinion
    component: str = Field(default="", description="The true cause, where the report's is not; empty: not said")
    category: str = Field(default="", description="Its kind, a key of the playbooks; empty: not said")
    helped: str = Field(default="", description="What really helped: names of operations, or free words")
    note: str = ""


class Said(Feedback):
    """The same with its author."""

    by: str
    role: Role
    at: datetime

    @property
    def operations(self) -> tuple[str, ...]:
        """The operations named as what helped; none where it is free words."""
        return named_operations(self.helped)

    @property
    def trust(self) -> tuple[int, datetime]:
        """Whoever has more of it counts."""
        return RANK[self.role], self.at


@dataclass(frozen=True)
class Done:
    """One operation of an option, and what was measured of it."""

    plan_revision: str
    option: int
    operation: str
    measured: bool  # as resolved
    proven: bool  # by comparison with a control
    run: bool


@dataclass(frozen=True)
class Opinions:
    """All that people say of one incident, each author's newest on each thing."""

    said: tuple[Said, ...] = ()

    # --- the cause ---

    @property
    def of_report(self) -> Opinion | None:
        """What counts of the analysis; None: nobody judged it."""
        winner = _most_trusted(s for s in self.said if s.about == "report")
        return winner.verdict if winner else None

    def cause(self, component: str | None, category: str) -> tuple[str | None, str]:
        """The component at fault and the category as they are known best, given those of the analysis.

        As the most trusted person says who names one, unless a more trusted one calls the analysis right.
        """
        judged = [s for s in self.said if s.component or s.category or (s.about, s.verdict) == ("report", "right")]
        winner = _most_trusted(judged)
        if winner is None:
            return component, category
        return winner.component or component, winner.category or category

    # --- what helped ---

    @property
    def helped(self) -> str:
        """In the words of the most trusted person who says it; empty: nobody does."""
        winner = _most_trusted(s for s in self.said if s.helped)
        return winner.helped if winner else ""

    @property
    def operations(self) -> tuple[str, ...]:
        """The operations among it."""
        return named_operations(self.helped)

    def helped_by(
        self,
        plan_revision: str,
        option: int,
        operation: str,
        *,
        measured: bool = False,
        proven: bool = False,
        run: bool = True,
    ) -> Helped:
        """Whether that operation of that option resolved the incident, as people say; empty: as it was measured.

        ``measured``: verification said resolved; ``proven``: and that it was the remedy; ``run``: False of an option
        that was rejected. Whoever is most trusted counts, be it on what helped, on the option or on its verification; a
        verification that is called wrong stands for the opposite of what it measured. That something else helped, by
        the word of anybody but an admin, leaves half of what is proven.
        """
        done = Done(plan_revision, option, operation, measured, measured and proven, run)
        found = [(s, word) for s in self.said if (word := _word(s, done)) is not None]
        return max(found, key=lambda pair: (pair[0].trust, bool(pair[0].operations)), default=(None, ""))[1]

    # --- for people ---

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """How many people said what: of ``report``, ``option 2 of 3f0c8e2b91a74d65``, …"""
        by_subject: dict[str, Counter[str]] = {}
        for said in self.said:
            by_subject.setdefault(subject(said), Counter())[said.verdict] += 1
        return {name: dict(counted) for name, counted in sorted(by_subject.items())}

    @property
    def standing(self) -> tuple[Said, ...]:
        """Of each thing the opinion that counts."""
        subjects = dict.fromkeys(subject(s) for s in self.said)
        winners = (_most_trusted(s for s in self.said if subject(s) == name) for name in subjects)
        return tuple(winner for winner in winners if winner)


def subject(feedback: Feedback) -> str:
    """What it is about, in words."""
    number = f" {feedback.option}" if feedback.option else ""
    return f"{feedback.about}{number}" + (f" of {feedback.plan_revision}" if feedback.plan_revision else "")


def _word(said: Said, done: Done) -> Helped | None:
    """What it says of that operation of that option, empty where that is what was measured; None: nothing."""
    meant = said.plan_revision == done.plan_revision and said.option in (0, done.option)
    if said.about == "option" and meant and said.verdict != "partly":
        return _OF_OPTION[said.verdict]
    if said.operations and done.run:
        if done.operation not in said.operations:
            return "partly" if done.proven and said.role != "admin" else "no"
        return "yes" if len(said.operations) == 1 or done.measured else None  # of several one alone did not do it
    if said.operations == (done.operation,):
        return "yes"
    if said.about == "report" or not meant:
        return None
    if said.about == "option":
        return _OF_OPTION[said.verdict]
    if not done.run:  # nothing of it was verified
        return None
    return {"right": "", "partly": "partly", "wrong": "no" if done.measured else "yes"}[said.verdict]


def _most_trusted(said: Iterable[Said]) -> Said | None:
    return max(said, key=lambda s: s.trust, default=None)
