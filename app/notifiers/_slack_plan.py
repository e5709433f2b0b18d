"""What can be done, with the buttons to decide, as a Slack message. Pure."""

import re
from collections.abc import Iterator, Sequence

from app.intake.slack import DECIDE, HINT
from app.markdown import moment
from app.notifiers._slack_blocks import (
    MOST_EFFECTS,
    RUN,
    Message,
    Story,
    choice_told,
    decision_told,
    message_of,
    own_words,
    rounded,
    titled,
)
from app.notifiers._slack_rich import (
    Block,
    Element,
    Line,
    actions,
    bold,
    bullets,
    button,
    code,
    confirmation,
    flat,
    header,
    italic,
    rich,
    section,
    words,
)
from app.report import DecisionMade
from app.report_texts import FELT, Texts, amount, needed, word
from graph.aftermath import may_be_in_place, put_back
from graph.state import MAX_ROUNDS, ActionOption, Execution, PlanStep

MOST_CHANGES = 4  # of a step
HANGUL = re.compile("[가-힣]")
RISKS = {"none": "⚪", "low": "🟢", "medium": "🟡", "high": "🔴"}


def plan(story: Story) -> Message:
    """The options with their buttons; once decided, only what they were and the choice."""
    report = story.report
    number = report.plan_number or 1
    title = story.t["plan_header_number"].format(number) if number > 1 else story.t["plan_header"]
    titles = tuple(option.title for option in report.options)
    said = f"{title} {'; '.join(_numbered(titles)) or story.t['plan_empty']}"
    if not story.waits:
        return message_of(story, said, _over(story, titles, story.revision))
    blocks: list[Block] = [header(f"🛠️ {title}"), *rich(*_plan_note(story))]
    for nth, option in enumerate(report.options, 1):
        blocks += [{"type": "divider"}, *_option(story, nth, option)]
    blocks += [{"type": "divider"}, *_approvals(story), *_ways(story)]
    return message_of(story, said, blocks)


def old_plan(story: Story, revision: str, titles: Sequence[str]) -> Message:
    """A plan that a newer one replaced."""
    return message_of(story, story.t["plan_old"], _over(story, titles, revision))


def _numbered(titles: Sequence[str]) -> list[str]:
    return [f"{nth}. {title}" for nth, title in enumerate(titles, 1)]


def _over(story: Story, titles: Sequence[str], revision: str) -> list[Block]:
    """In place of a plan that no decision is awaited on: what it offered, and who chose what."""
    made = next((d for d in reversed(story.report.decisions) if d.plan_revision == revision), None)
    picked = made.choice if made else ""
    offered = [section(bold(t, 300) if picked == t[:1] else words(t, 300)) for t in _numbered(titles)]
    if made is None:
        return rich(*offered, section(story.t["plan_over" if revision == story.revision else "plan_old"]))
    taken_back = [_withdraw(story)] if _may_be_withdrawn(story, made) else []
    chose = section("👉 ", *decision_told(story, made))
    return [*rich(*offered, chose, *own_words(made)), *actions("withdraw", taken_back)]


def _plan_note(story: Story) -> list[Element]:
    said = [section(words(line, 400)) for line in story.report.plan_note.splitlines() if line.strip()]
    return said if story.report.options else [section(bold(story.t["plan_empty"])), *said]


def _option(story: Story, nth: int, option: ActionOption) -> list[Block]:
    """What people weigh, in few lines: the rest is on the incident's page."""
    labels = story.labels
    intent = f" ({labels[f'intent_{option.intent}']})" if option.intent else ""
    tried = f" - {labels['tried']}: {word(labels, 'verdict', option.tried)}" if option.tried else ""
    facts = [
        f"{RISKS.get(option.risk, '')} {labels['risk']}: {word(labels, 'risk', option.risk)}",
        labels["about_minutes"].format(f"{option.minutes:g}"),
        f"{labels['because']} {', '.join(option.why) or '-'}",
        f"{labels['undo']}: {option.undo or labels['no_undo']}",
    ]
    return [
        *rich(
            section(bold(f"{nth}. {option.title}", 300), intent + tried),
            section(words(_spoken(story, option.description), 300)),
            section(italic(" · ".join(facts), 300)),
            *(line for ordinal, step in enumerate(option.steps, 1) for line in _step(story, ordinal, step)),
            bullets(_about(labels, option)),
        ),
        *actions(f"option-{story.revision}-{nth}", _option_buttons(story, nth, option)),
    ]


def _spoken(story: Story, text: str) -> str:
    """Descriptions of operations are English only: they are left out where people read Korean."""
    return text if story.report.language == "en" or HANGUL.search(text) else ""


def _step(story: Story, ordinal: int, step: PlanStep) -> Iterator[Element]:
    """What runs, what it changes from what to what, and what the checks before found wrong."""
    labels = story.labels
    changes = "; ".join(f"{c.what}: {c.before} → {c.after}" for c in step.changes[:MOST_CHANGES])
    said = words(changes or _spoken(story, step.preview), 200)
    if step.infeasible:
        said = bold(f"{labels['cannot_run']}: {step.infeasible}", 300)
    yield section(f"{ordinal}. ", code(step.call, 300), " ", said)
    lines: list[Line] = [
        [f"{word(labels, 'looked', c.name)}: {word(labels, 'checked', c.status)}: ", words(c.detail, 160)]
        for c in step.checks
        if c.status in ("warning", "failed")
    ]
    yield bullets(lines, indent=1)


def _about(labels: Texts, option: ActionOption) -> Iterator[Line]:
    """Whom it touches, what it is expected to do, what it takes, and how it did before."""
    if radius := option.blast_radius:
        touched = [
            f"{labels[f'felt_{how}']}: {', '.join(s.service for s in radius.services if s.how == how)}"
            for how in FELT
            if any(s.how == how for s in radius.services)
        ]
        share = radius.request_share
        said = labels["share_unknown"] if share is None else labels["request_share"].format(f"{100 * share:.0f}%")
        facts = [*touched, said, labels[f"reversible_{radius.reversible}"]]
        yield [bold(labels["blast_radius"]), ": ", words(" · ".join(facts), 400)]
    if option.expected:
        targets = "; ".join(
            f"{e.ref.component} {e.ref.metric} {e.comparator} {rounded(e.value)}"
            for e in option.expected[:MOST_EFFECTS]
        )
        minutes = max(e.within_minutes for e in option.expected)
        yield [words(labels["expected_effect"].format(targets, f"{minutes:g}"), 400)]
    needs = option.needs
    if needs.approvals > 1 or needs.role != "responder" or needs.not_by or needs.dry_run:
        yield [bold(labels["takes"]), ": ", words(needed(labels, needs), 300)]
    if needs.refused:
        yield [bold(labels["policy_refuses"]), ": ", words("; ".join(needs.refused), 300)]
    if option.track_record:
        yield [bold(labels["track_record"]), ": ", words(option.track_record, 300)]


def _option_buttons(story: Story, nth: int, option: ActionOption) -> list[Element]:
    """One, where it may be chosen as far as can be told without knowing who clicks."""
    refused = option.needs.refused or any(step.infeasible for step in option.steps)
    if not story.waits or story.expired or refused:
        return []
    together = option.needs.approvals > 1
    text = story.t["button_approve" if together else "button_option"].format(nth, option.title)
    style = "danger" if option.risk == "high" else "primary" if nth == 1 else ""
    return [_choice(story, str(nth), text, _option_confirm(story, nth, option), style)]


def _option_confirm(story: Story, nth: int, option: ActionOption) -> Element:
    """Exactly what will run."""
    t, labels = story.t, story.labels
    title, yes = t["confirm_option"].format(nth), t["yes_run"]
    if option.needs.approvals > 1:
        takes = amount(labels, option.needs.approvals, "people")
        title, yes = t["confirm_approve"].format(nth, takes), t["yes_approve"]
    lines = [labels["dry_run_only"]] if option.needs.dry_run else []
    calls = [f"{ordinal}. {step.call}" for ordinal, step in enumerate(option.steps, 1)]
    previews = [f"{line}: {step.preview}" for line, step in zip(calls, option.steps, strict=True)]
    whole = "\n".join([*lines, *previews])
    return confirmation(title, whole if len(whole) <= 300 else "\n".join([*lines, *calls]), yes, t["no"])


def _choice(story: Story, choice: str, text: str, confirm: Element | None = None, style: str = "") -> Element:
    return button(text, f"{DECIDE}:{choice}", f"{story.report.incident_id}:{story.revision}:{choice}", confirm, style)


def _approvals(story: Story) -> list[Block]:
    """Who said yes already, and waits for others."""
    lines: list[Line] = [
        [
            story.t["event_approval"].format(flat(a.by)[:80], choice_told(story, a.choice, a.steps)),
            f" ({moment(a.at)})",
        ]
        for a in story.report.approvals
    ]
    return rich(*titled(story.labels["approvals"], lines))


def _ways(story: Story) -> list[Block]:
    """The other buttons."""
    told = rich(section(bold(story.t["plan_expired"]))) if story.expired else []
    return [*told, *actions(f"ways-{story.revision}", list(_other_buttons(story)))]


def _may_be_withdrawn(story: Story, decision: DecisionMade) -> bool:
    """Nothing of it has begun, as far as this report knows."""
    if decision is not story.decision or decision.withdrawn_by or story.report.closed_at:
        return False
    return decision.choice in RUN and not any(
        e.node == "ActionExecutor" and e.at >= decision.at for e in story.report.history
    )


def _other_buttons(story: Story) -> Iterator[Element]:
    t, no = story.t, story.t["no"]
    if story.expired:
        asked = confirmation(t["confirm_re_plan"], t["confirm_re_plan_text"], t["yes"], no)
        yield _choice(story, "re_plan", t["button_re_plan"], asked, "primary")
    yield _choice(
        story,
        "manual",
        t["button_manual"],
        confirmation(t["confirm_manual"], t["confirm_manual_text"], t["yes"], no),
    )
    if story.report.round < MAX_ROUNDS:  # its form is what asks before the click counts
        value = f"{story.report.incident_id}:{story.revision}:re_analyze"
        yield button(t["button_re_analyze"], HINT, value)
    if left := _left_in_place(story.report.executions):
        asked = confirmation(t["confirm_undo"], t["confirm_undo_text"].format(", ".join(left)), t["yes"], no)
        yield _choice(story, "undo", t["button_undo"], asked, "danger")
    if story.report.approvals:
        yield _withdraw(story)


def _withdraw(story: Story) -> Element:
    t = story.t
    asked = confirmation(t["confirm_withdraw"], t["confirm_withdraw_text"], t["yes"], t["no"])
    return _choice(story, "withdraw", t["button_withdraw"], asked)


def _left_in_place(executions: Sequence[Execution]) -> list[str]:
    """Operations whose changes are, or may be, in place still; whether they can be put back is for the executors."""
    settled = put_back(executions)
    for execution in reversed(executions):
        left = [
            result.operation
            for result in reversed(execution.results)
            if may_be_in_place(result) and (execution.plan_revision, result.ordinal) not in settled
        ]
        if left:
            return left
    return []


# --- the form for a hint ---


def hint_form(t: Texts, value: str) -> dict[str, object]:
    """The view of a modal that asks what to look at; ``value`` comes back with what is written."""
    return {
        "type": "modal",
        "callback_id": DECIDE,
        "private_metadata": value,
        "title": {"type": "plain_text", "text": t["modal_title"]},
        "submit": {"type": "plain_text", "text": t["modal_submit"]},
        "close": {"type": "plain_text", "text": t["modal_close"]},
        "blocks": [
            {
                "type": "input",
                "block_id": "hint",
                "optional": True,
                "label": {"type": "plain_text", "text": t["modal_label"]},
                "hint": {"type": "plain_text", "text": t["modal_hint"]},
                "element": {
                    "type": "plain_text_input",
                    "action_id": "hint",
                    "multiline": True,
                    "max_length": 2_000,
                },
            }
        ],
    }
