"""An incident's report as Slack messages: how it stands, what was decided and what came of it.

Pure: equal input, equal blocks. The analysis is told in _slack_analysis, the options in _slack_plan.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from app.markdown import moment
from app.notifiers._slack_rich import (
    Block,
    Element,
    Line,
    Parts,
    as_text,
    bold,
    bounded,
    bullets,
    code,
    context,
    cut,
    flat,
    header,
    inert,
    italic,
    link,
    quote,
    rich,
    section,
    words,
)
from app.report import DecisionMade, Report, retold
from app.report_texts import TEXTS as LABELS
from app.report_texts import Texts, around_decision, chosen, confidence, todo, todo_undone, word
from app.slack_texts import TEXTS
from graph.state import ActionOption, EffectCheck, Execution, PlanStep, StepResult

MOST_EFFECTS = 8
RECOVERED = "recovered by itself"  # a status_reason of app.store.alerts
RUN = ("1", "2", "3", "undo")  # choices that change something
SIGNS = {
    "awaiting_decision": "🟠",
    "executing": "⚙️",
    "verifying": "⚙️",
    "resolved": "✅",
    "closed": "⚪",
    "needs_attention": "🆘",
}  # every other status: somebody looks for the cause
STEPS = {"succeeded": "✅", "failed": "❌", "unknown": "❓", "skipped": "⏭️", "dry_run": "🧪"}
EFFECTS = {"met": "✅", "not_met": "❌", "not_measurable": "❓"}
VERDICTS = {"resolved": "✅", "improved": "🟡", "unchanged": "🟠", "worse": "🔴", "not_measurable": "❓"}


@dataclass(frozen=True)
class Story:
    """What is told of an incident: its report, and what stands beside it."""

    report: Report
    url: str
    why: str = ""
    owners: Mapping[str, str] = field(default_factory=dict)  # of services
    finished: Mapping[int, str] = field(default_factory=dict)  # status by ordinal, of the decision that is carried out
    earlier: str | None = None  # address of the thread of an earlier incident of the same alert
    sparkline: bool = False  # the charts could not be attached

    @property
    def t(self) -> Texts:
        """Labels of Slack's messages."""
        return TEXTS[self.report.language]

    @property
    def labels(self) -> Texts:
        """The report's own."""
        return LABELS[self.report.language]

    @property
    def revision(self) -> str:
        """Of the newest plan, also once it waits no more; empty where there is none."""
        return self.report.plan_revision or self.report.plan_digest[:16]

    @property
    def waits(self) -> bool:
        """Whether a decision on the newest plan is awaited."""
        return self.report.status == "awaiting_decision" and self.report.plan_revision is not None

    @property
    def decision(self) -> DecisionMade | None:
        """The newest one."""
        return self.report.decisions[-1] if self.report.decisions else None

    @property
    def expired(self) -> bool:
        """Whether the options are too old to be approved."""
        told = [e.kind for e in self.report.history if e.kind in ("expired", "decision")]
        return bool(told) and told[-1] == "expired"


@dataclass(frozen=True)
class Message:
    """``text`` is what notifications show; Slack would read markup in it, so there is none."""

    text: str
    blocks: tuple[Block, ...]

    @property
    def as_text(self) -> str:
        """All of it, for a Slack that does not take the blocks."""
        return as_text(self.blocks) or self.text


# --- what all messages are made of ---


def message_of(story: Story, text: str, blocks: Sequence[Block]) -> Message:
    """Within Slack's limits; what is too much is on the incident's page."""
    rest = f"{story.t['rest']}: {story.report.incident_id}"
    return Message(inert(cut(flat(text), 300)), tuple(bounded(blocks, story.url, rest)))


def titled(title: str, lines: Sequence[Parts]) -> list[Element]:
    """A list under its title; nothing where it is empty."""
    return [section(bold(title)), bullets(lines)] if lines else []


def after_colon(text: str, most: int = 300) -> Line:
    """What is said of it, if anything is."""
    return [": ", words(text, most)] if text else []


def decision_told(story: Story, decision: DecisionMade) -> Line:
    """Who chose what, where and when."""
    labels = story.labels
    about = "; ".join([*around_decision(labels, decision), moment(decision.at)])
    said = story.t["chose"].format(flat(decision.by)[:80])
    return [said, " ", bold(choice_told(story, decision.choice, decision.steps)), f" ({about})"]


def choice_told(story: Story, choice: str, steps: Sequence[int]) -> str:
    """A choice by what its button says."""
    return story.t.get(f"choice_{choice}") or story.t["choice_option"].format(chosen(story.labels, choice, steps))


def own_words(decision: DecisionMade) -> list[Element]:
    """The hint or the note of who decided."""
    said = decision.hint or decision.note
    return [quote(said)] if said.strip() else []


def rounded(value: float | None) -> str:
    """As people read it; a dash for none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"


# --- the first message of the thread: how it stands now ---


def parent(story: Story) -> Message:
    """How the incident stands now; edited whenever that changes."""
    report, labels = story.report, story.labels
    status = word(labels, "status", report.status)
    where = [word(labels, "severity", report.severity), report.service, report.environment]
    blocks = [
        header(f"{SIGNS.get(report.status, '🔍')} {report.title}"),
        *rich(
            section(bold(status), " · ", " · ".join(filter(None, where)), *_reason(story)),
            *_cause_line(story),
            *_owner_line(story),
            *_decision_line(story),
            *_verdict_line(story),
            section(link(story.url, story.t["open_incident"]), " · ", code(report.incident_id)),
            *([section(link(story.earlier, story.t["earlier"]))] if story.earlier else []),
        ),
        *context(" · ".join(filter(None, (_occurred(story), story.why)))),
    ]
    return message_of(story, f"{status}: {report.title} ({report.service})", blocks)


def _occurred(story: Story) -> str:
    return story.labels["occurred_at"].format(moment(story.report.occurred_at)).rstrip(".")


def _reason(story: Story) -> Line:
    """Why it is so; what we say of our own accord is in English in our tables."""
    report = story.report
    if report.by_hand and report.status == "closed":
        return after_colon(story.t["chose_manual"].format(flat(report.decisions[-1].by)))
    if report.status_reason == retold(report, RECOVERED):
        return after_colon(story.t["event_recovered"])
    return after_colon(report.status_reason)


def _cause_line(story: Story) -> list[Element]:
    cause = story.report.root_cause
    if cause is None:
        return []
    if cause.component is None:
        return [section(bold(story.t["cause"]), ": ", story.t["cause_unknown"])]
    sure = confidence(story.labels, cause)
    return [section(bold(story.t["cause"]), ": ", bold(cause.component), ": ", words(cause.title, 200), f" ({sure})")]


def _owner_line(story: Story) -> list[Element]:
    cause = story.report.root_cause
    services = dict.fromkeys(filter(None, (cause.component if cause else None, story.report.service)))
    owned = [(story.owners[service], service) for service in services if story.owners.get(service)]
    owners = [o if o == service else story.t["owner_of"].format(o, service) for o, service in owned]
    return [section(bold(story.t["owner"]), ": ", ", ".join(owners))] if owners else []


def _decision_line(story: Story) -> list[Element]:
    return [section(*decision_told(story, story.decision))] if story.decision else []


def _verdict_line(story: Story) -> list[Element]:
    if not story.report.executions:
        return []
    last = story.report.executions[-1]
    verdict = word(story.labels, "verdict", last.verification.verdict)
    return [section(bold(story.labels["verdict"]), f": {verdict}: ", words(last.title, 200))]


# --- decided, carried out, measured ---


def decided(story: Story) -> Message:
    """Somebody chose what runs nothing."""
    made = story.decision
    assert made is not None, "there is nothing to tell before somebody decides"
    said = story.t[f"chose_{made.choice}"].format(flat(made.by))
    return message_of(story, said, rich(section(said), *own_words(made)))


def progress(story: Story) -> Message:
    """The steps of what was decided and how far they are; edited with each that ends."""
    made, t, labels = story.decision, story.t, story.labels
    assert made is not None, "there is nothing to tell before somebody decides"
    done = next((e for e in story.report.executions if e.plan_revision == made.plan_revision), None)
    option = _chosen_option(story, made)
    title = done.title if done else option.title if option else t["button_undo"]
    heading = t["chose_undo"].format(flat(made.by)) if made.choice == "undo" else t["running"].format(title)
    state = word(labels, "status", story.report.status)
    lines = (
        [_result_line(story, r) for r in done.results]
        if done
        else list(_pending_lines(story, made, option.steps if option else ()))
    )
    said: Line = [bold(heading, 300)] if done else [bold(heading, 300), f" · {state}"]
    blocks = rich(section("▶️ ", *said), section(*decision_told(story, made)), *([bullets(lines)] if lines else []))
    return message_of(story, heading, [*blocks, *rich(*own_words(made))])


def _chosen_option(story: Story, made: DecisionMade) -> ActionOption | None:
    """None where the report has a newer plan than the one that was decided on."""
    if made.plan_revision != story.revision or not made.choice.isdigit():
        return None
    nth = int(made.choice)
    return story.report.options[nth - 1] if nth <= len(story.report.options) else None


def _pending_lines(story: Story, made: DecisionMade, steps: Sequence[PlanStep]) -> Iterator[Line]:
    for ordinal, step in enumerate(steps, 1):
        if made.steps and ordinal not in made.steps:
            continue
        status = story.finished.get(ordinal)
        said = word(story.labels, "step", status) if status else story.t["step_waiting"]
        yield [f"{STEPS.get(status or '', '▫️')} {ordinal}. ", code(step.call, 300), f" {said}"]


def _result_line(story: Story, result: StepResult) -> Line:
    said: Line = [f"{STEPS.get(result.status, '▫️')} {result.ordinal}. ", code(result.operation)]
    return [
        *said,
        " ",
        bold(word(story.labels, "step", result.status)),
        *after_colon(result.detail),
    ]


def verdict(story: Story) -> Message:
    """Whether the last remedy worked, as it was measured."""
    last, labels = story.report.executions[-1], story.labels
    seen = last.verification
    said = word(labels, "verdict", seen.verdict)
    advice = [todo(labels, r.status) for r in last.results] + [todo_undone(labels, r.status) for r in last.undone]
    blocks = [
        header(f"{VERDICTS.get(seen.verdict, '')} {labels['verdict']}: {said}"),
        *rich(
            section(bold(last.title, 300)),
            *([section(words(seen.detail, 600))] if seen.detail else []),
            bullets([_effect(labels, c) for c in seen.checks[:MOST_EFFECTS]]),
            *_credit(story, last),
            *titled(labels["undone"], [_result_line(story, r) for r in last.undone]),
            *(section(bold(line)) for line in dict.fromkeys(filter(None, advice))),
        ),
    ]
    return message_of(story, f"{labels['verdict']}: {said}: {last.title}", blocks)


def _effect(labels: Texts, check: EffectCheck) -> Line:
    effect = check.effect
    measured = f": {rounded(check.before)} → {rounded(check.after)} "
    wanted = f"({labels['expected_value']} {effect.comparator} {rounded(effect.value)})"
    sign, status = EFFECTS.get(check.status, ""), word(labels, "effect", check.status)
    return [f"{sign} ", bold(f"{effect.ref.component} {effect.ref.metric}"), measured, wanted, f": {status}"]


def _credit(story: Story, execution: Execution) -> list[Element]:
    labels, seen = story.labels, execution.verification
    if not seen.control:
        return []
    said = word(labels, "credit", seen.credit)
    return [
        section(
            labels["credit"],
            " ",
            bold(said),
            f". {labels['compared']}: ",
            words(seen.control, 300),
        )
    ]


def end(story: Story) -> Message:
    """It is over here: why, and where all of it is."""
    report, t = story.report, story.t
    said = t[f"end_{report.status}"]
    sign = SIGNS.get(report.status, "")
    blocks = rich(section(f"{sign} ", bold(said), *_reason(story)), section(link(story.url, t["open_incident"])))
    return message_of(story, f"{said}: {report.title}", blocks)


def happened(story: Story, kind: str, message: str, by: str = "", about: str = "") -> Message:
    """A line for what people must hear of though the thread's other messages do not tell it.

    ``kind``: of the event; ``message``: as the timeline has it, in English; ``about``: a choice.
    """
    said = story.t[f"event_{kind}"].format(flat(by)[:80], choice_told(story, about, ()) if about else "")
    own = [quote(message)] if kind in ("note", "not_delivered") else []
    if kind in ("reminder", "escalation", "expired", "recovered", "reopened"):
        detail = retold(story.report, message)
        own = [section(italic(detail))] if story.report.language == "en" or detail != message else []
    return message_of(story, said, rich(section(said), *own))
