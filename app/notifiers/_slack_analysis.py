"""Why it happened, as a Slack message. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from app.notifiers._slack_blocks import Message, Story, after_colon, message_of, rounded, titled
from app.notifiers._slack_rich import (
    Element,
    Line,
    bold,
    bullets,
    code,
    flat,
    header,
    italic,
    link,
    preformatted,
    rich,
    section,
    words,
)
from app.report import OUR_ID, Report, beside_claims, quotation, retold, summary
from app.report_texts import Texts, author, confidence, word
from graph.memory import is_memory
from graph.state import Claim, Finding, RootCause

MOST_CLAIMS, MOST_FINDINGS, LEAST_OTHERS, MOST_EXCERPTS = 5, 5, 1, 2
MOST_FIGURES, MOST_ASIDE = 3, 3
SPARKS = "▁▂▃▄▅▆▇█"
SPARK_COLUMNS = 32


def root_cause(story: Story) -> Message:
    """What the analysis found, and what it rests on; each thing once."""
    report, labels, cause = story.report, story.labels, story.report.root_cause
    assert cause is not None, "there is nothing to tell before the analysis is there"
    again = report.round > 1
    title = story.t["rca_header_again"].format(report.round) if again else story.t["rca_header"]
    sure = f"{confidence(labels, cause)} · {labels['engine']} {author(labels, cause.engine)}"
    blocks = [
        header(f"🔎 {title}"),
        *rich(
            section(bold(f"{cause.component}: " if cause.component else ""), bold(cause.title, 300)),
            section(italic(sure)),
            *([section(bold(labels["not_sure"]))] if report.assessment and report.assessment.abstains else []),
            *([section(bold(labels["contradicts"]), *after_colon(cause.contradicts))] if cause.contradicts else []),
            section(words(beside_claims(cause), 900)),
            *titled(labels["changed"], [[words(line, 300)] for line in cause.changed[:MOST_ASIDE]]),
        ),
        *rich(*_evidence(story, cause)),
        *rich(*_impact(story, cause), *_path(report, labels)),
        *rich(*_aside(story, cause)),
        *rich(section(link(story.url, story.t["open_incident"]))),
    ]
    said = f"{title}: {cause.component or story.t['cause_unknown']}: {cause.title} ({sure})"
    return message_of(story, said, blocks)


def _evidence(story: Story, cause: RootCause) -> Iterator[Element]:
    """The claims, each with what it cites; then the most informative findings that nothing cites."""
    claims = cause.claims[:MOST_CLAIMS]
    cited = list(dict.fromkeys(eid for claim in claims for eid in claim.evidence))
    findings = {f.id: f for f in story.report.evidence}
    if claims:
        yield section(bold(story.labels["evidence"]))
    for claim in claims:
        yield bullets([_claim(story, claim, findings)])
    shown = [findings[eid] for eid in cited if eid in findings]
    for finding in [f for f in shown if f.kind == "log" and f.excerpt][:MOST_EXCERPTS]:
        yield preformatted(finding.excerpt, 300)
    others = [f for f in story.report.evidence if f.id not in cited and not is_memory(f)]
    others = others[: max(MOST_FINDINGS - len(shown), LEAST_OTHERS)]
    yield bullets([[*_cited(story, f), " ", words(summary(story.report, f), 300)] for f in others])
    if story.sparkline:
        yield from _courses(story, [f for f in (*shown, *others) if f.points])


def _claim(story: Story, claim: Claim, findings: Mapping[str, Finding]) -> Line:
    said: Line = [words(claim.text, 300)]
    if exact := quotation(claim):
        said.append(italic(f" “{flat(exact)}”", 200))
    for eid in claim.evidence:
        said += [" ", *(_cited(story, findings[eid]) if eid in findings else [f"[{eid}]"])]
    if not claim.verified:
        said += [" - ", bold(story.labels["not_verified"]), *after_colon(claim.complaint, 150)]
    return said


def _cited(story: Story, finding: Finding) -> Line:
    """Its id; a link to where it was seen, if that is known."""
    seen = finding.link if finding.link and finding.link.startswith("https://") else None
    return [link(seen, f"[{finding.id}]")]


def _courses(story: Story, findings: Sequence[Finding]) -> Iterator[Element]:
    """In letters, where charts could not be attached."""
    for finding in findings[:MOST_FIGURES]:
        drawn = sparkline([value for _, value in finding.points])
        yield section(f"[{finding.id}] {finding.component} {finding.signal} ", code(drawn))


def _impact(story: Story, cause: RootCause) -> list[Element]:
    """The figures, and who feels it; in a model's words, as the rules engine only repeats the figures."""
    report, labels = story.report, story.labels
    lines: list[Line] = [
        [
            bold(retold(report, figure.name), 120),
            f": {rounded(figure.value)} {figure.unit} · {retold(report, figure.window)} [{', '.join(figure.evidence)}]",
        ]
        for figure in report.impact[:MOST_FIGURES]
    ]
    if cause.impact and cause.engine != "rules":
        lines.append([f"{labels['who_notices']}: ", words(cause.impact, 300)])
    if report.affected:
        lines.append([f"{labels['affected']}: ", words(", ".join(report.affected), 300)])
    return titled(labels["impact"], lines)


def _path(report: Report, labels: Texts) -> list[Element]:
    if not report.path:
        return []
    course = " → ".join([report.path[0].cause, *(hop.effect for hop in report.path)])
    return [section(bold(labels["causal_path"]), ": ", course)]


def _aside(story: Story, cause: RootCause) -> list[Element]:
    """Other suspects, what is not known or could not be seen, and what happened before."""
    report, labels = story.report, story.labels
    against = labels["rival_against"]
    rivals: list[Line] = [
        [bold(r.component), *after_colon(f"{against}: {r.against}" if r.against else "", 250)]
        for r in cause.rivals[:MOST_ASIDE]
    ]
    gaps: list[Line] = [
        [f"{g.source}: {word(labels, 'gap', g.reason)}: ", words(g.detail, 160)] for g in report.gaps[:MOST_ASIDE]
    ]
    if len(report.gaps) > MOST_ASIDE:
        gaps.append([story.t["and_more"].format(len(report.gaps) - MOST_ASIDE)])
    return [
        *titled(labels["rivals"], rivals),
        *titled(labels["unknowns"], [[words(said, 200)] for said in report.open_questions[:MOST_ASIDE]]),
        *titled(labels["gaps"], gaps),
        *titled(labels["similar"], [_remembered(story, f) for f in report.evidence if is_memory(f)][:MOST_ASIDE]),
    ]


def _remembered(story: Story, finding: Finding) -> Line:
    """An earlier incident, with a link to its page if it is one of ours."""
    report = story.report
    past = next((past.incident_id for past in report.similar if past.evidence == finding.id), "")
    page = story.url.replace(report.incident_id, past) if OUR_ID.fullmatch(past) else None
    return [link(page, f"[{finding.id}]"), " ", words(summary(report, finding), 400)]


def sparkline(values: Sequence[float]) -> str:
    """The course of the values in one line of text, the mean of each column; empty where there are none."""
    if not values:
        return ""
    columns = min(SPARK_COLUMNS, len(values))
    edges = [len(values) * n // columns for n in range(columns + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    step = (high - low) / (len(SPARKS) - 1)
    return "".join(SPARKS[round((mean - low) / step) if step > 0 else 0] for mean in means)
