"""States that are not what they should be: tasks missing, hosts unhealthy, a roll-out that failed, alarms raised."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from math import isfinite, sqrt

from collectors.base import Status
from graph.ranking.deviation import Deviation, Worse, excerpt, number
from graph.ranking.semantics import meaning, words
from graph.ranking.terms import whole
from graph.ranking.windows import Windows

ALARM = 0.3
"""What an alarm is worth: it says that some limit was passed, which somebody drew, and not how far; what it watches
is measured as well, and then says more."""
UNSETTLED = 0.3
"""A roll-out or a scaling that is still on its way is the usual state of things for some minutes."""
AT_LIMIT = 0.15
"""Something that may not grow further: no harm yet, but a reason for some."""
MAX_TOLD = 160  # characters of a detail that a sentence quotes; the excerpt has the rest

_MONITOR, _RULE = "datadog.monitor:", "unhealthy by the alert rule "
_CLOUDWATCH = ("cloudwatch.alarm_threshold", "cloudwatch.log_alarm_threshold", "cloudwatch.composite_alarm")
_SINCE = re.compile(r"\bsince (\d{4}-\d{2}-\d{2} \d{2}:\d{2}) UTC")
_MUTED = re.compile(r"^[\w ]{1,20}, (?:since [\d: -]{1,20} UTC, )?muted\b")
_AMONG = re.compile(r"\bof (\d{1,7}) pods\b")
_NAMED = re.compile(r"^([a-z0-9][a-z0-9.-]{0,252})(?:/|: )")
_LIMIT = re.compile(
    r"\bat its (?:maximum|limit|quota)\b|\b(?:limit|quota) (?:is )?(?:reached|exceeded|exhausted)\b", re.IGNORECASE
)
_UNDERWAY = frozenset(["updated", "autoscaled", "rollout"])  # states that every roll-out and scaling passes through

_REASONS = (
    (re.compile(r"OOM|OutOf_?Memory|exit code 137\b", re.IGNORECASE), "killed for want of memory"),
    (re.compile(r"CrashLoopBackOff|exit code [1-9]", re.IGNORECASE), "it keeps ending by itself"),
    (
        re.compile(r"ImagePullBackOff|ErrImagePull|InvalidImageName|CannotPullContainer", re.IGNORECASE),
        "its image cannot be had",
    ),
    (
        re.compile(r"CreateContainerConfigError|CreateContainerError|RunContainerError", re.IGNORECASE),
        "it cannot be started",
    ),
    (
        re.compile(r"Unschedulable|Insufficient (?:cpu|memory)|unable to place", re.IGNORECASE),
        "there is no room to run it",
    ),
    (re.compile(r"Evicted|DiskPressure|MemoryPressure", re.IGNORECASE), "its node has put it out"),
    (re.compile(r"ProgressDeadlineExceeded|circuit breaker|rollout_?failed|\bFAILED\b"), "its roll-out failed"),
    (re.compile(r"FailedHealthChecks|ResponseCodeMismatch|health.?check", re.IGNORECASE), "it fails its health checks"),
    (re.compile(r"Target\.Timeout"), "it does not answer its health checks"),
    (_LIMIT, "it is at its limit"),
)


def deviations(
    statuses: Iterable[tuple[str, Status]], windows: Windows | None = None, *, rule: str = "", title: str = ""
) -> list[Deviation]:
    """Every state that is worse than expected, and every alarm that is raised.

    ``rule`` and ``title`` are those of the alert that is looked into: its own alarm is the symptom itself, and no
    evidence. An alarm raised before all ``windows`` is nothing new.
    """
    own = f"{rule}\n{title}"
    found = (_deviation(source, status, windows, own) for source, status in statuses)
    return [d for d in found if d is not None]


def _deviation(source: str, status: Status, windows: Windows | None, own: str) -> Deviation | None:
    if not isfinite(status.observed):
        return None
    if status.expected is not None and not isfinite(status.expected):
        status = status.model_copy(update={"expected": None})  # nobody can expect that
    if status.name in _CLOUDWATCH or status.name.startswith((_MONITOR, _RULE)):
        return _alarm(source, status, windows, own)
    return _state(source, status)


# --- alarms -----------------------------------------------------------------------------------------------------


def _alarm(source: str, status: Status, windows: Windows | None, own: str) -> Deviation | None:
    name, raised, says = _raised(status)
    since_s = _since(status)
    old = windows is not None and since_s < min((start for start, _ in (windows.incident, *windows.baselines)))
    if raised <= 0 or old or _is_own(name, own):
        return None
    return Deviation(
        component=status.component,
        kind="status",
        channel="alarm",
        signal=status.name if status.name not in _CLOUDWATCH else f"{status.name}:{name}",
        strength=ALARM * raised,
        at_s=since_s,
        summary=f"{status.component}: the alarm “{name[:MAX_TOLD]}” is raised{': ' if says else ''}{says[:MAX_TOLD]}.",
        inherited=True,  # most alarms watch errors and times, which come from callees as well
        observed=status.observed,
        baseline=status.expected,
        effect=raised,
        excerpt=excerpt(status.detail),
        source=source,
    )


def _raised(status: Status) -> tuple[str, float, str]:
    """An alarm's name, how far it is raised (a warning by half), and what it says.

    Datadog's and Prometheus's are judged by their collectors: no expectation means old, muted, or the symptom again.
    """
    unjudged = status.expected is None or _MUTED.search(status.detail)
    judged = 0.0 if unjudged else min(max(status.observed, 0.0), 1.0)
    if status.name.startswith(_MONITOR):
        return status.name.removeprefix(_MONITOR), judged, status.detail
    if status.name.startswith(_RULE):
        return status.name.removeprefix(_RULE), judged, status.detail
    name, _, told = status.detail.partition("; ")
    state, _, says = told.partition("; ")
    return name, float(state == "ALARM"), says


def _since(status: Status) -> float:
    """When it was raised; a monitor's state is read long after that, and its text tells."""
    told = _SINCE.search(status.detail) if status.name.startswith(_MONITOR) else None
    try:
        return datetime.strptime(told[1], "%Y-%m-%d %H:%M").replace(tzinfo=UTC).timestamp() if told else _at(status)
    except ValueError:  # digits that are no date
        return _at(status)


def _at(status: Status) -> float:
    return status.at.timestamp()


def _is_own(name: str, own: str) -> bool:
    """Whether the alert's rule or title names the alarm."""
    return bool(name.strip() and whole(name).search(own))


# --- states -----------------------------------------------------------------------------------------------------


def _state(source: str, status: Status) -> Deviation | None:
    expected = status.expected
    if expected is None:
        return None
    worse: Worse = "up" if meaning(status.name, "").worse == "up" else "down"
    bad = status.observed > expected if worse == "up" else status.observed < expected
    limited = bool(_LIMIT.search(status.detail))
    if not bad and not limited:
        return None
    missing = _missing(status, expected) if bad else 0.0
    return Deviation(
        component=status.component,
        kind="status",
        channel="status",
        signal=status.name,
        strength=max(_strength(status, missing, worse), AT_LIMIT if limited else 0.0),
        at_s=_at(status),
        summary=_sentence(status, expected),
        inherited=_is_share(status),
        observed=status.observed,
        baseline=expected,
        effect=missing,
        excerpt=excerpt(status.detail),
        source=source,
        worse=worse,
        instance=_instance(status),
    )


def _missing(status: Status, expected: float) -> float:
    return abs(expected - status.observed) / max(abs(expected), abs(status.observed))


def _strength(status: Status, missing: float, worse: Worse) -> float:
    """All tasks gone is the fault itself; some gone is as bad as their share."""
    if _UNDERWAY & words(status.name) and _reason(status.detail) in ("", _REASONS[-1][1]):
        return UNSETTLED * min(missing, 1.0)
    if worse == "down":
        return min(missing, 1.0)
    if _is_share(status):  # as for all errors: a tenth of the calls counts for a third
        return min(missing, 1.0) * sqrt(status.observed)
    among = _AMONG.search(status.detail)
    if among and float(among[1]) > 0 and status.observed > 0:
        return min(sqrt(status.observed / float(among[1])), 1.0)
    # one may be chance; of how many is not known
    return status.observed / (status.observed + 1.0) if status.observed > 0 else min(missing, 1.0)


def _is_share(status: Status) -> bool:
    """Whether it is a share of failing calls, which a callee may have caused."""
    return bool(words(status.name) & {"ratio", "rate"}) and 0.0 <= status.observed <= 1.0


def _sentence(status: Status, expected: float) -> str:
    reason, detail = _reason(status.detail), " ".join(status.detail.split())
    told = f" ({detail[:MAX_TOLD]}{'…' if len(detail) > MAX_TOLD else ''})" if detail else ""
    because = f": {reason}" if reason else ""
    what = f"{status.name} is {number(status.observed)}, expected {number(expected)}"
    return f"{status.component} {what}{because}{told}."


def _reason(detail: str) -> str:
    """What the words of orchestrators mean."""
    return next((meant for pattern, meant in _REASONS if pattern.search(detail)), "")


def _instance(status: Status) -> str:
    """The pod, if only one is concerned and named: ``of 3 pods; pay-7d9f-x2/app: CrashLoopBackOff``."""
    named = [m[1] for part in status.detail.split("; ")[1:] if (m := _NAMED.match(part))]
    return named[0] if len(set(named)) == 1 and status.observed == 1 else ""
