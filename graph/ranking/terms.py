"""The telling words of a text: what a change, a runbook and a failing signal may have in common."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache

from graph.ranking.deviation import Deviation
from graph.ranking.semantics import words

MIN_LETTERS = 4  # shorter words are mostly fillers and abbreviations that occur everywhere
MAX_TEXT = 4_000  # characters that are looked at: the first page of a text says what it is about
MAX_SIGNALS = 30  # of one component, strongest first: what a person would read before giving up
VISIBLE = 0.1
"""From this strength on a signal's words count: what is barely out of the ordinary says nothing of what fails."""
MIN_NAME = 3  # letters of a component's name that texts are searched for: shorter ones stand in every other word

_IDENTIFIER = re.compile(r"[A-Za-z_][\w.-]{2,80}")
# what any text about running software says, whatever fails in it
_SAID_OF_ALL = """
    about above after again against alert alerts also because been before being below between both cannot
    caused causes check could does doing done down during each even every fell first found from have having here high
    into just last less like made make makes many more most much must need needs never next none nothing often once
    only other over same seen several should shows since some still such than that their them then there these they
    this those time times under unit until upon used uses using usually value values very were what when where which
    while will with within without would your
    change changed changes commit config configuration create created deploy deployed deployment deployments deploys
    disable disabled enable enabled feature flag flags fixed image merge merged modified modify pull release released
    releases remove removed request requests revert reverted revision rolled rollback rollout scale scaled scaling
    started starts status task tasks update updated upgrade upgraded version versions
    call called calls client code component critical debug error errors exception exceptions fail failed failing fails
    failure failures fatal handler host info instance internal kind level line lines main message metric metrics name
    names number operation path percent process production rate ratio response result runs server service services
    share signal slow slower source span spans staging success system team test total trace traces type unknown
    user users warn warning http https json java python null none true false default average count
    completed complete successfully success pending running
    answer answered answers bring brings class codedeploy earlier file files processes restart restarted setting
    settings succeeded
"""
_COMMON = frozenset(_SAID_OF_ALL.split())


def terms(text: str) -> frozenset[str]:
    """Words of four letters and more, and whole identifiers, in lower case and without a plural's s.

    ``hikari.maximumPoolSize`` gives itself, hikari, maximum, pool and size.
    """
    return _terms(text[:MAX_TEXT])


@lru_cache(maxsize=4096)
def _terms(text: str) -> frozenset[str]:
    whole = {i.strip("._-").lower() for i in _IDENTIFIER.findall(text) if not i.isalpha()}
    found = {_singular(word) for word in {*words(text), *whole}}
    return frozenset(word for word in found if len(word) >= MIN_LETTERS and word not in _COMMON and not word.isdigit())


def _singular(word: str) -> str:
    plural = len(word) > MIN_LETTERS and word.endswith("s") and not word.endswith("ss")
    return word[:-1] if plural and word not in _COMMON else word


def whole(name: str) -> re.Pattern[str]:
    """Finds the name where it is no part of a longer one, in any casing: «cpu» is not in «cpu-credits»."""
    return re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])", re.IGNORECASE)


def failing_terms(found: Iterable[Deviation]) -> Mapping[str, frozenset[str]]:
    """By component the words of its deviating signals: log templates, operations, metric names, quoted lines.

    Changes and knowledge are no signals; a component's own name says nothing of what fails in it.
    """
    signals: defaultdict[str, list[Deviation]] = defaultdict(list)
    for d in found:
        if d.kind not in ("change", "knowledge") and d.strength >= VISIBLE:
            signals[d.component].append(d)
    return {component: _of_signals(component, ds) for component, ds in sorted(signals.items())}


def _of_signals(component: str, found: list[Deviation]) -> frozenset[str]:
    strongest = sorted(found, key=lambda d: (-d.strength, d.signal, d.excerpt))[:MAX_SIGNALS]
    said = {term for d in strongest for text in (d.signal, d.excerpt) for term in terms(text)}
    return frozenset(said - terms(component) - {component.lower()})
