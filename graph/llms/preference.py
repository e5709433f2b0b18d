"""Which options come first: expected benefit against risk, corrected by how their operations did before.

Used for the options of the rules engine and of a model alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from executors.base import Risk
from graph.llms.base import PlanRequest, TrackRecord
from graph.llms.playbooks import say
from graph.state import ActionOption

MAX_OPTIONS = 3
MAX_SPARES = 3
"""Kept in reserve: one of them takes the place of an option that turns out not to be possible at present."""
PRIOR_RUNS = 2.0
"""What an option's stated benefit weighs against its record, in runs: Laplace's rule of succession with the stated
benefit in place of its one half, so that one success or failure moves it and does not settle it."""
RISK_COST: Mapping[Risk, float] = {"none": 0.0, "low": 0.05, "medium": 0.15, "high": 0.4}
"""The part of the benefit that is given up for the risk: what may go wrong with a step as well, at a guess by its
word. Of two equally promising ones the safer comes first; a high risk must promise much more."""


def ordered(options: Iterable[ActionOption], request: PlanRequest) -> tuple[ActionOption, ...]:
    """At most three, best first, each with its track record told; then the best of the others as their spares.

    The three differ in intent as far as possible: of several with the same intent the best stays, and the next best
    fill what is left free. Of options that do the same the best stays. Equals keep the order they were proposed in.
    """
    ranked = sorted(options, key=lambda option: -expected_value(option, request))
    distinct = list({_does(option): option for option in reversed(ranked)}.values())[::-1]
    distinct.sort(key=lambda option: -expected_value(option, request))
    chosen = _of_different_kinds(distinct)
    spares = [option for option in distinct if option not in chosen][:MAX_SPARES]
    return tuple(o.model_copy(update={"track_record": _told(o, request)}) for o in (*chosen, *spares))


def expected_value(option: ActionOption, request: PlanRequest) -> float:
    """What is to be expected of it, 0..1: its benefit, as far as its record bears that out, less what it risks."""
    record = request.track_record
    posteriors = [_posterior(option.benefit, record.get(name, TrackRecord())) for name in _changing(option, request)]
    benefit = sum(posteriors) / len(posteriors) if posteriors else option.benefit
    return benefit * (1.0 - RISK_COST[option.risk])


def _posterior(benefit: float, record: TrackRecord) -> float:
    """Benefit after ``runs`` runs; one that made things worse takes a resolved one back."""
    good = max(record.resolved - record.worse, 0)
    return (good + PRIOR_RUNS * benefit) / (record.runs + PRIOR_RUNS)


def _of_different_kinds(ranked: Sequence[ActionOption]) -> list[ActionOption]:
    """The best of each intent, then the best of the rest, in their order of rank."""
    firsts: dict[object, int] = {}
    for place, option in enumerate(ranked):
        firsts.setdefault(option.intent or place, place)  # one without an intent is of its own kind
    rest = (place for place in range(len(ranked)) if place not in firsts.values())
    places = [place for place, _ in zip(chain(sorted(firsts.values()), rest), range(MAX_OPTIONS), strict=False)]
    return [ranked[place] for place in sorted(places)]


def _changing(option: ActionOption, request: PlanRequest) -> list[str]:
    """Its operations, without those that only look."""
    reading = {entry.name for entry in request.menu if entry.read_only}
    return list(dict.fromkeys(step.operation for step in option.steps if step.operation not in reading))


def _does(option: ActionOption) -> str:
    return "\n".join(f"{step.operation} {sorted(step.params.items())}" for step in option.steps)


def _told(option: ActionOption, request: PlanRequest) -> str:
    """How its operations did before; empty if they were never run."""
    names = _changing(option, request)
    known = [(name, request.track_record[name]) for name in names if name in request.track_record]
    return "; ".join(_of_one(name, record, len(names), request) for name, record in known if record.runs)


def _of_one(operation: str, record: TrackRecord, operations: int, request: PlanRequest) -> str:
    phrase = "resolved_of" if operations == 1 else "resolved_of_by"
    told = say(phrase, request.language, operation=operation, resolved=record.resolved, runs=record.runs)
    return say("made_worse", request.language, told=told, worse=record.worse) if record.worse else told
