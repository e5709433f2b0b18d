"""What an evaluation of scenarios found: kept in a file as it comes, and shown as tables."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue
from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from app.evaluation import EvaluationError
from app.scenario_scores import Bin, Metric, Results, Run, by_model, counts, overall, reliability
from app.scenarios import Expected
from app.terminal import printable

_LONGEST_REASON = 160
_TITLES: Mapping[str, str] = {
    "forbidden_operations": "Forbidden operations proposed",
    "blamed_wrongly": "Blamed, though innocent",
    "why_the_rules_engine_answered": "Why the rules engine answered",
    "why_the_rules_engine_planned": "Why the rules engine planned",
    "failures_of_the_model": "Failures of the model",
    "errors": "Runs without an answer",
}
_PLAIN = {"tokens_in", "tokens_out", "model_calls", "dollars", "seconds", "brier_score", "certainty"}  # no shares
_OF_MODELS = {"tokens_in", "tokens_out", "model_calls", "dollars", "rules_engine_answered", "rules_engine_planned"}


class Sheet:
    """The results so far; with a file, that file holds them after every run, and says whether they are all."""

    def __init__(self, settings: Mapping[str, JsonValue], names: Iterable[str], repeat: int, out: Path | None) -> None:
        self.settings, self.repeat, self._out = settings, repeat, out
        self.complaints: dict[str, str] = {}
        self.expected: dict[str, Expected] = {}
        self._runs: dict[str, dict[int, Run]] = {name: {} for name in names}

    @property
    def results(self) -> Results:
        """The runs of each scenario that has one, in order."""
        return {name: [runs[n] for n in sorted(runs)] for name, runs in self._runs.items() if runs}

    @property
    def done(self) -> int:
        """Runs."""
        return sum(map(len, self._runs.values()))

    @property
    def planned(self) -> int:
        """Runs of all that could be read so far."""
        return (len(self._runs) - len(self.complaints)) * self.repeat

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return self.done == self.planned

    def begin(self, name: str, expected: Expected) -> None:
        """What is expected of a scenario that was read."""
        self.expected[name] = expected

    def add(self, name: str, number: int, run: Run) -> None:
        """A run that is done. Raises EvaluationError if the file cannot be written."""
        self._runs[name][number] = run
        self.write()

    def leave_out(self, name: str, complaint: str) -> None:
        """A scenario that cannot be read."""
        self.complaints[name] = complaint

    def write(self) -> None:
        """The file, whole or not at all. Raises EvaluationError."""
        if self._out is None:
            return
        target = self._out.resolve()
        text = json.dumps(self.as_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        aside = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            if target.exists() and not target.is_file():  # a pipe, or /dev/null: nothing to keep whole
                target.write_text(text, encoding="utf-8", errors="replace")
                return
            aside.write_text(text, encoding="utf-8", errors="replace")
            aside.replace(target)
        except OSError as error:
            raise EvaluationError(f"--out {self._out} cannot be written: {error.strerror}; name another file") from None

    def as_json(self) -> dict[str, JsonValue]:
        """All of it."""
        results = self.results
        return {
            "settings": dict(self.settings),
            "complete": self.complete,
            "runs_done": self.done,
            "runs_planned": self.planned,
            "overall": {name: metric.model_dump() for name, metric in overall(results).items()},
            "overall_where_the_model_answered": {
                name: metric.model_dump() for name, metric in overall(by_model(results)).items()
            },
            "reliability": [one.model_dump() for one in reliability(results)],
            "counts": {name: dict(counted) for name, counted in counts(results).items()},
            "scenarios": [
                {
                    "name": name,
                    "expected": self._expected(name),
                    "runs": [run.model_dump(mode="json") for run in runs],
                }
                for name, runs in results.items()
            ],
            "left_out": dict(self.complaints),
        }

    def _expected(self, name: str) -> JsonValue:
        told: JsonValue = self.expected[name].model_dump(mode="json", exclude_unset=True)
        return told


# --- tables -------------------------------------------------------------------------------------------------


def parts(sheet: Sheet, *, asked: bool) -> Iterator[RenderableType]:
    """What to print: a row for each scenario, the metrics, certainty against truth, what went wrong.

    ``asked``: a model was; else there is also what ranking says before anybody explains.
    """
    results = sheet.results
    if not asked:
        yield _table("Ranking", _RANKING, sheet)
    yield _table("Answers", _ANSWER | _MODEL if asked else _ANSWER, sheet)
    yield _metrics(overall(results), overall(by_model(results)) if asked else {})
    if bins := reliability(results):
        yield _reliability(bins)
    for name, counted in counts(results).items():
        if counted:
            yield _counted(_TITLES[name], counted)


def summary(sheet: Sheet) -> str:
    """One line: how many, how long one took, and how often the first suspect was the cause."""
    runs = [run for runs in sheet.results.values() for run in runs]
    text = f"{_counts(len(runs), 'run')} of {_counts(len(sheet.results), 'scenario')}"
    if sheet.complaints:
        text += f", {len(sheet.complaints)} left out"
    if not sheet.complete:
        text += f"; interrupted, {sheet.planned} runs were asked for"
    if runs:
        text += f"; {sum(run.seconds for run in runs) / len(runs):.1f} s a run"
    return f"{text}; {_shares(sheet)}"


def _counts(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _shares(sheet: Sheet) -> str:
    """Of ranking, before anybody explained: how often the cause was the first suspect, and among the first three."""
    ranks = [run.rank for name, runs in sheet.results.items() if sheet.expected[name].culprits for run in runs]
    if not ranks:
        return "no cause was expected"
    hits = {k: sum(rank is not None and rank <= k for rank in ranks) for k in (1, 3)}
    told = (f"top-{k} {count / len(ranks):.0%} ({count}/{len(ranks)})" for k, count in hits.items())
    return f"ranking {', '.join(told)}"


def line(run: Run) -> str:
    """One run in a line, for whoever waits."""
    if run.error:
        return f"no answer: {run.error}"
    told = [
        f"{run.component or 'nobody'} ({_mark(run.right_component) or 'not judged'})",
        run.category,
        f"{run.claims_verified}/{run.claims_made} claims verified",
        f"{_counts(len(run.options), 'option')} ({_mark(run.acceptable_plan) or 'not judged'})",
        f"by {run.engine}{f' ({run.engine_note})' if run.engine_note else ''}",
        f"{run.tokens_in} + {run.tokens_out} tokens, {run.dollars:.4f} dollars, {run.seconds:.1f} s",
    ]
    return ", ".join(told)


Column = Callable[[str, Expected, Sequence[Run]], str]


def _mark(value: bool | None) -> str:
    return "" if value is None else "right" if value else "wrong"


def _tally(values: Iterable[bool | None]) -> str:
    """Of one run the verdict, of more how many are right."""
    judged = [value for value in values if value is not None]
    if len(judged) == 1:
        return "right" if judged[0] else "wrong"
    return f"{sum(judged)}/{len(judged)}" if judged else ""


def _pooled(pairs: Iterable[tuple[int, int]]) -> str:
    hits, of = (sum(numbers) for numbers in zip(*pairs, strict=True))
    return f"{hits}/{of}" if of else ""


def _most(values: Iterable[str]) -> str:
    """What the runs say; where they differ, how often."""
    told = Counter(values).most_common()
    return told[0][0] if len(told) == 1 else ", ".join(f"{value} x{count}" for value, count in told)


def _average(values: Iterable[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    return format(sum(known) / len(known), form) if known else ""


def _wanted(_: str, expected: Expected, __: Sequence[Run]) -> str:
    return ", ".join(expected.culprits) or ("(nobody)" if expected.tells_component else "")


def _named(_: str, __: Expected, runs: Sequence[Run]) -> str:
    named = _most("(failed)" if run.error else run.component or "(nobody)" for run in runs)
    return named + _verdict(run.right_component for run in runs)


def _category(_: str, __: Expected, runs: Sequence[Run]) -> str:
    return _spaced(_most(run.category for run in runs)) + _verdict(run.right_category for run in runs)


def _operations(_: str, __: Expected, runs: Sequence[Run]) -> str:
    """The first option of the first run, whether the plan is acceptable, and what is forbidden in any of them."""
    first = " + ".join(runs[0].options[0]) if runs[0].options else "(by hand)"
    forbidden = ", ".join(dict.fromkeys(name for run in runs for name in run.forbidden))
    text = first + _verdict(run.acceptable_plan for run in runs) + (f"; forbidden: {forbidden}" if forbidden else "")
    return _spaced(text)


def _verdict(values: Iterable[bool | None]) -> str:
    tally = _tally(values)
    return f" ({tally})" if tally else ""


def _spaced(name: str) -> str:
    """So that a narrow column breaks it where a word ends."""
    return name.replace("_", " ")


def _rank(_: str, expected: Expected, runs: Sequence[Run]) -> str:
    return _most(str(run.rank or "-") for run in runs) if expected.culprits else ""


_RANKING: dict[str, Column] = {
    "scenario": lambda name, _, __: name,
    "expected": _wanted,
    "first": lambda _, __, runs: _most(run.suspects[0] if run.suspects else "(none)" for run in runs),
    "rank": _rank,
    "score": lambda _, __, runs: _average((run.score for run in runs), ".2f"),
    "state": lambda _, __, runs: _spaced(_most(run.state for run in runs)),
    "certainty": lambda _, __, runs: _average((run.ranking_certainty for run in runs), ".2f"),
}
_ANSWER: dict[str, Column] = {
    "scenario": lambda name, _, __: name,
    "expected": _wanted,
    "named": _named,
    "certainty": lambda _, __, runs: _average((run.certainty for run in runs), ".2f"),
    "category": _category,
    "cited": lambda _, __, runs: _pooled((run.cited, run.to_cite) for run in runs),
    "claims": lambda _, __, runs: _pooled((run.claims_verified, run.claims_made) for run in runs),
    "path": lambda _, __, runs: _pooled((run.hops_valid, run.hops) for run in runs),
    "operations": _operations,
}
_MODEL: dict[str, Column] = {
    "by rules": lambda _, __, runs: _pooled((int(run.engine == "rules"), 1) for run in runs),
    "tokens": lambda _, __, runs: _average((run.tokens_in + run.tokens_out for run in runs), ",.0f"),
    "s": lambda _, __, runs: _average((run.seconds for run in runs), ".0f"),
}


def _table(title: str, columns: Mapping[str, Column], sheet: Sheet) -> Table:
    shown = Table(title=title, title_justify="left", box=box.SIMPLE)
    for name in columns:
        shown.add_column(name, overflow="fold", no_wrap=name == "scenario")
    for name, runs in sheet.results.items():
        cells = (column(name, sheet.expected[name], runs) for column in columns.values())
        shown.add_row(*(Text(printable(cell)) for cell in cells))
    return shown


def _metrics(metrics: Mapping[str, Metric], own: Mapping[str, Metric]) -> Table:
    """``own``: the same where the model itself answered; empty, if none was asked."""
    columns = ["metric", "value", "95 % interval", "of", "interval by"]
    shown = Table(*columns, *(["where the model answered"] if own else []), box=box.SIMPLE)
    for name, metric in metrics.items():
        if metric.value is None or (name in _OF_MODELS and not own):
            continue
        bounds = "" if metric.low is None or metric.high is None else _figures(name, metric.low, metric.high)
        how = "Wilson" if metric.interval == "wilson" else "bootstrap over scenarios"
        alone = own[name].value if own else None
        cells = [name.replace("_", " "), _figures(name, metric.value), bounds, str(metric.n), how]
        shown.add_row(*cells, *([] if alone is None else [_figures(name, alone)]))
    return shown


def _figures(name: str, *values: float) -> str:
    if name not in _PLAIN:
        return " to ".join(f"{value:.0%}" for value in values)
    return " to ".join(f"{value:,.3f}" if abs(value) < 10 else f"{value:,.0f}" for value in values)


def _reliability(bins: Sequence[Bin]) -> Table:
    shown = Table("certainty", "runs", "mean certainty", "right", box=box.SIMPLE)
    for one in bins:
        shown.add_row(f"{one.low:.1f} to {one.high:.1f}", str(one.n), f"{one.certainty:.2f}", f"{one.right:.2f}")
    return shown


def _counted(title: str, counted: Mapping[str, int]) -> Text:
    rows = (f"  {count:>3} x {printable(what)[:_LONGEST_REASON]}" for what, count in counted.items())
    return Text("\n".join([f"{title}:", *rows]) + "\n")
