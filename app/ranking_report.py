"""What ``autopilot rank`` shows of the evidence: tables for a terminal, and pictures."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from app.evaluation import EvaluationError
from app.terminal import printable
from graph.pictures import finding_chart, topology_picture
from graph.state import Alert, Assessment, Evidence, Finding, Hop, ImpactFigure, Suspect

STATES = {
    "incident": "Something is wrong",
    "recovered": "Already recovered",
    "no_incident": "Nothing is wrong",
    "not_enough_data": "Not enough data to tell",
}
CHARTS = 12  # pictures of findings that are drawn, most informative first


def parts(evidence: Evidence, alert: Alert, *, explain: bool) -> Iterator[RenderableType]:
    """One after the other: what is wrong, suspects, findings, impact, gaps; with ``explain`` each suspect's score."""
    yield _text(f"{alert.title} ({alert.service}, {alert.occurred_at:%Y-%m-%d %H:%M:%S} UTC)", "bold")
    yield _assessment(evidence.assessment)
    if len(evidence.causes) > 1:
        yield _text(f"Only together do they explain the trouble: {', '.join(evidence.causes)}")
    yield _suspects(evidence.suspects) if evidence.suspects else _text("Nothing departs far enough to accuse anybody.")
    if explain and evidence.suspects:
        yield _explained(evidence.suspects)
    if evidence.findings:
        yield _findings(evidence)
    if evidence.impact:
        yield _impact(evidence.impact)
    if evidence.gaps:
        yield _listing("Not seen", (f"{gap.source}: {gap.detail} ({gap.reason.value})" for gap in evidence.gaps))


def draw(evidence: Evidence, alerted: str, folder: Path) -> int:
    """Write ``topology.svg`` and ``E1.svg`` …; how many. Raises EvaluationError."""
    changes = [finding for finding in evidence.findings if finding.kind == "change"]
    pictures = {"topology": topology_picture(evidence, alerted)}
    for finding in [finding for finding in evidence.findings if finding.points][:CHARTS]:
        pictures[finding.id] = finding_chart(finding, evidence.looked_at, changes)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, picture in pictures.items():
            (folder / f"{name}.svg").write_text(picture, encoding="utf-8")
    except OSError as error:
        raise EvaluationError(f"--svg {folder} cannot be written: {error.strerror}; name another folder") from None
    return len(pictures)


def hop(step: Hop) -> str:
    """``billing → orders ✓edge ✓both deviate ✗earlier``: the checks that hold, and those that do not."""
    checks = ((step.structural, "edge"), (step.statistical, "both deviate"), (step.temporal, "earlier"))
    told = " ".join(f"{'✓' if holds else '✗'}{name}" for holds, name in checks)
    return f"{step.cause} → {step.effect} {told}" + (" (asynchronous)" if step.asynchronous else "")


def _assessment(assessed: Assessment | None) -> Text:
    if assessed is None:
        return _text("Not assessed.")
    head = f"{STATES[assessed.state]} (sure by {assessed.trouble:.0%})"
    belief = f"the first suspect is the cause by {assessed.certainty:.0%}"
    if assessed.abstains:
        belief = f"too unsure to name a cause ({assessed.certainty:.0%}): the suspects are leads"
    return _text(f"{head}; {belief}. {assessed.why}".strip())


def _suspects(suspects: Sequence[Suspect]) -> Table:
    table = _table("Suspects", "#", "component", "score", "path to the alerted service, with its checks", "findings")
    table.columns[-1].max_width = 12  # ids may wrap, so that a hop need not
    for number, suspect in enumerate(suspects, 1):
        table.add_row(
            str(number),
            _text(_component(suspect)),
            f"{suspect.score:.2f}",
            _text("\n".join(_way(suspect))),
            _text(" ".join(suspect.findings)),
        )
    return table


def _component(suspect: Suspect) -> str:
    about = [suspect.kind, *suspect.instances]
    return suspect.component + (f" ({', '.join(filter(None, about))})" if any(about) else "")


def _way(suspect: Suspect) -> Iterator[str]:
    yield from map(hop, suspect.path)
    if not suspect.path:
        yield "is the alerted service itself"
    if suspect.change:
        yield f"change: {suspect.change}"
    if suspect.affected:
        yield f"affected: {', '.join(suspect.affected)}"


def _explained(suspects: Sequence[Suspect]) -> RenderableType:
    """How each score came about; of all but the first, also how far behind the first it is."""
    first = suspects[0]
    shown: list[RenderableType] = []
    for number, suspect in enumerate(suspects, 1):
        behind = "" if suspect is first else f", {first.score - suspect.score:.2f} behind {first.component}"
        shown.append(_text(f"{number}. {suspect.component}: {suspect.score:.2f}{behind}", "bold"))
        reasons = suspect.reasons or ((suspect.why,) if suspect.why else ("no reasons recorded",))
        shown.extend(Padding(_text(f"- {reason}"), (0, 0, 0, 3)) for reason in reasons)
    return Group(_text("How the scores came about", "italic"), *shown)


def _findings(evidence: Evidence) -> RenderableType:
    table = _table("Findings", "id", "kind", "component", "what changed", "from (UTC)")
    for finding in evidence.findings:
        table.add_row(*map(_text, (finding.id, finding.kind, finding.component, _summary(finding), _onset(finding))))
    unlisted = evidence.unlisted
    return Group(table, _text(f"and {unlisted} more, too dull to list")) if unlisted else table


def _summary(finding: Finding) -> str:
    return finding.summary + (f" (only {finding.instance})" if finding.instance else "")


def _onset(finding: Finding) -> str:
    return f"{finding.at:%H:%M:%S}"


def _impact(figures: Iterable[ImpactFigure]) -> Table:
    table = _table("Impact", "what", "value", "when", "findings")
    for figure in figures:
        value = f"{figure.value:,g} {figure.unit}"
        table.add_row(*map(_text, (figure.name, value, figure.window, " ".join(figure.evidence))))
    return table


def _listing(title: str, lines: Iterable[str]) -> RenderableType:
    return Group(_text(title, "italic"), *(Padding(_text(f"- {line}"), (0, 0, 0, 1)) for line in lines))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE, show_edge=False, pad_edge=False)
    for name in columns:
        table.add_column(name, no_wrap=name in ("#", "id", "score", "from (UTC)"), overflow="fold")
    return table


def _text(text: str, style: str = "") -> Text:
    """Never read as markup: it holds words of strangers."""
    return Text(printable(text), style=style)
