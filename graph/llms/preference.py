"""Which options come first: expected benefit against risk, corrected by how their operations did before.

Used for the options of the rules engine and of a model alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

from executors.base import Risk
from graph.llms.base import PlanRequest, TrackRecord
from graph.llms.playbooks import say
from graph.state import ActionOption
from graph.track_record import beta_quantile, together

MAX_OPTIONS = 3
MAX_SPARES = 3
"""Kept in reserve: one of them takes the place of an option that turns out not to be possible at present."""
PRIOR_RUNS = 2.0
"""What an option's stated benefit weighs against its record, in runs: Laplace's rule of succession with the stated
benefit in place of its one half, so that one success or failure moves it and does not settle it."""
DOUBT: Mapping[Risk, float] = {"medium": 0.25, "high": 0.05}
"""The part of the posterior below the bound that a risky operation is taken at: being wrong costs more there than being
slow, so good news counts only as far as this bound bears it out. Stated as even, one of medium risk rises from the
second success in a row on, one of high risk from the fourth."""
RISK_COST: Mapping[Risk, float] = {"none": 0.0, "low": 0.05, "medium": 0.15, "high": 0.4}
"""The part of the benefit that is given up for the risk: what may go wrong with a step as well, at a guess by its
word. Of two equally promising ones the safer comes first; a high risk must promise much more."""
LEAST = 0.05
"""Of a parameter of the posterior, where a benefit was stated to be certain."""


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
    names = _known_as(option, request)
    chances = [_chance(option, record[name]) if name in record else option.benefit for name in names]
    benefit = sum(chances) / len(chances) if chances else option.benefit
    return benefit * (1.0 - RISK_COST[option.risk])


def _chance(option: ActionOption, record: TrackRecord) -> float:
    """The chance that it resolves, from its stated benefit and what came of its runs; one that made things worse takes
    a resolved one back.

    The mean of the posterior, for the loss of a wrong order is the same on both sides. Not so of a risky one: what went
    wrong counts at once, but what went well raises it only once the lower bound of the posterior is above what was
    stated. Two lucky runs must not bring a failover to the top; twenty may.
    """
    good = min(max(record.resolved - record.worse, 0.0), record.runs)
    for_, against = PRIOR_RUNS * option.benefit + good, PRIOR_RUNS * (1.0 - option.benefit) + record.runs - good
    mean = for_ / (for_ + against)
    if option.risk not in DOUBT or mean <= option.benefit:
        return mean
    return max(option.benefit, beta_quantile(DOUBT[option.risk], for_, max(against, LEAST)))


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


def _known_as(option: ActionOption, request: PlanRequest) -> list[str]:
    """The names its record goes by: of all its operations together if that was ever run, else of each."""
    names = _changing(option, request)
    whole = together(names)
    return [whole] if whole in request.track_record else names


def _told(option: ActionOption, request: PlanRequest) -> str:
    """How its operations did before; empty if nothing is known of them."""
    names = _known_as(option, request)
    known = [(name, request.track_record[name]) for name in names if name in request.track_record]
    told = [(name, _of_one(record, request)) for name, record in known if record.runs]
    parts = (part if len(names) == 1 else f"{name}: {part}" for name, part in told)
    return say("track_record", request.language, told=" · ".join(parts)) if told else ""


def _of_one(record: TrackRecord, request: PlanRequest) -> str:
    """Runs as they happened; the interval is of the runs as they count for this component today."""
    component = request.root_cause.component
    parts = [
        say(phrase, request.language, component=component, resolved=f"{side.resolved:g}", runs=f"{side.runs:g}")
        for phrase, side in (("resolved_here", record.here), ("resolved_elsewhere", record.elsewhere))
        if side.runs
    ] or [say("not_by_itself", request.language)]
    if worse := record.here.worse + record.elsewhere.worse:
        parts.append(say("made_worse", request.language, worse=f"{worse:g}"))
    low, high = (f"{100 * bound:.0f}" for bound in (record.low, record.high))
    return say("interval", request.language, told=", ".join(parts), low=low, high=high)
