"""What a postmortem may conclude from a report alone: how long things took, what went well and badly, what is left to
do. Pure; each lesson names what it rests on, and nobody is blamed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from urllib.parse import quote

from app.markdown import code, inline, link_target
from app.opinions import Opinions
from app.postmortem.texts import TEXTS
from app.report import DecisionMade, Report
from app.report_texts import Texts, word
from graph.state import ActionOption, Execution, Finding, PastIncident

LATE = timedelta(minutes=5)  # an alert so long after the first sign is worth an action item
ENDED = ("resolved", "closed")
WAITED = ("reminder", "escalation", "expired")


@dataclass(frozen=True)
class Background:
    """What is known beside the report itself."""

    similar: Sequence[PastIncident] = ()
    """Found just now; none: those that the analysis was told of."""
    feedback: Opinions = field(default_factory=Opinions)
    owners: Mapping[str, str] = field(default_factory=dict)
    """By service of the catalogue: a team, or a person."""


@dataclass(frozen=True)
class Lesson:
    """One statement, as markdown. ``rests_on``: links to evidence, plan revisions, other incidents."""

    text: str
    rests_on: str = ""
    owner: str = ""


@dataclass(frozen=True)
class Draft:
    """A report, what is known beside it, and where its links lead; empty: nowhere."""

    report: Report
    background: Background = Background()
    address: str = ""

    @property
    def t(self) -> Texts:
        """The labels."""
        return TEXTS[self.report.language]

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.report.status in ENDED

    @cached_property
    def found(self) -> Mapping[str, Finding]:
        """Evidence by its id."""
        return {finding.id: finding for finding in self.report.evidence}

    @cached_property
    def onset(self) -> Finding | None:
        """The first sign: the earliest onset among what speaks for the cause. Changes come before signs."""
        cause = self.report.root_cause
        ids = [*(e for c in cause.claims if c.verified for e in c.evidence)] if cause else []
        ids += [e for s in self.report.blamed for e in s.findings]
        signs = [self.found[e] for e in ids if e in self.found and self.found[e].kind not in ("change", "knowledge")]
        return min(signs, key=lambda sign: sign.at, default=None)

    @cached_property
    def stages(self) -> Sequence[tuple[str, datetime, datetime]]:
        """(label, from, to) of what is known, in order. All by the operated world's clock."""
        began = self.onset.at if self.onset else None
        alerted, analysed = self._first("opened"), self._first("root_cause")
        decided, ended = self._decided(), self._ended()
        pairs = (
            ("stage_detected", began, alerted),
            ("stage_analysed", alerted, analysed),
            ("stage_decided", analysed, decided),
            ("stage_ended", decided, ended),
            ("stage_all", began or alerted, ended),
        )
        return [(name, start, end) for name, start, end in pairs if start and end and start <= end]

    def _first(self, kind: str) -> datetime | None:
        return next((e.at for e in self.report.history if e.kind == kind), None)

    def _decided(self) -> datetime | None:
        """The first decision that stood, and was not to look again."""
        stood = (d for d in self.report.decisions if not d.withdrawn_by and d.choice not in ("re_analyze", "re_plan"))
        return next((d.at for d in stood), None)

    def _ended(self) -> datetime | None:
        if not self.over:
            return None
        ends = [e.at for e in self.report.history if e.kind == "resolved" or e.status in ENDED]
        return ends[-1] if ends else None

    # --- links ---

    def cited(self, ids: Iterable[str]) -> str:
        """Evidence, each as a link; an id that the evidence does not have is shown as it is."""
        return ", ".join(self._evidence(eid) for eid in dict.fromkeys(ids))

    def _evidence(self, eid: str) -> str:
        if not self.address or eid not in self.found:
            return inline(eid)
        where = f"{self.page(self.report.incident_id)}/evidence/{quote(eid, safe='')}"
        return f"[{inline(eid)}]({link_target(where)})"

    def page(self, incident_id: str) -> str:
        """An incident's address."""
        return f"{self.address.rstrip('/')}/incidents/{quote(incident_id, safe='')}"

    def incident(self, incident_id: str) -> str:
        """A link to an incident, or to a case that was imported."""
        shown = code(incident_id)
        imported = incident_id.startswith("imported_")
        where = f"{self.address.rstrip('/')}/knowledge/{quote(incident_id, safe='')}"
        return f"[{shown}]({link_target(where if imported else self.page(incident_id))})" if self.address else shown

    def plan(self, revision: str) -> str:
        """The plan that something was decided on."""
        return self.t["on_plan"].format(code(revision)) if revision else ""

    def owner(self, component: str | None) -> str:
        """Of a component; where the catalogue names none, that is said."""
        return self.background.owners.get(component or "", "") or self.t["no_owner"]

    # --- what several rules ask ---

    @property
    def cause(self) -> tuple[str | None, str]:
        """Component and category as they are known best: people's word before the analysis'."""
        found = self.report.root_cause
        return self.background.feedback.cause(found.component if found else None, found.category if found else "")

    @property
    def misled(self) -> bool:
        """Whether the analysis was wrong, by the word that counts."""
        return self.background.feedback.of_report == "wrong"

    @property
    def earlier(self) -> Sequence[PastIncident]:
        """Past incidents with the same component and category."""
        known = self.background.similar or self.report.similar
        return [p for p in known if not p.wrong and (p.component, p.category) == self.cause]

    def option_of(self, execution: Execution) -> ActionOption | None:
        """What was decided on, if it is of the last plan."""
        return next((o for o in self.report.options if o.title == execution.title), None)

    @property
    def tried(self) -> Sequence[Execution]:
        """What was run to help; not what put it back."""
        return [e for e in self.report.executions if e.choice != "undo" and any(r.made for r in e.results)]

    @property
    def resolving(self) -> Execution | None:
        """What resolved it, by measurement."""
        return next((e for e in self.tried if e.verification.verdict == "resolved"), None)

    def in_place(self, execution: Execution) -> bool:
        """Whether what it changed is still there, as far as is known."""
        undone = {e.undoes for e in self.report.executions if e.undoes}
        return not execution.undone and execution.plan_revision not in undone


def duration(t: Texts, span: timedelta) -> str:
    """In hours, minutes and seconds; of days the hours."""
    seconds = round(span.total_seconds())
    parts = (("hours", seconds // 3600), ("mins", seconds // 60 % 60), ("secs", seconds % 60))
    said = [t[name].format(n) for name, n in parts if n]
    return " ".join(said[:2]) or t["secs"].format(0)


# --- what went well ---


def went_well(draft: Draft) -> list[Lesson]:
    """What helped, by measurement or by people's word."""
    return [*_grounded(draft), *_praised(draft), *_remedies(draft), *_known_before(draft), *_by_itself(draft)]


def _grounded(draft: Draft) -> Iterator[Lesson]:
    cause = draft.report.root_cause
    if cause and cause.component and cause.claims and all(c.verified for c in cause.claims) and not draft.misled:
        cited = draft.cited(e for c in cause.claims for e in c.evidence)
        yield Lesson(draft.t["well_claims"].format(len(cause.claims)), cited)


def _praised(draft: Draft) -> Iterator[Lesson]:
    for about, option in dict.fromkeys(
        (o.about, o.option) for o in draft.background.feedback.said if o.verdict == "right"
    ):
        if about in ("report", "option"):
            yield Lesson(draft.t[f"well_feedback_{about}"].format(option or ""))


def _remedies(draft: Draft) -> Iterator[Lesson]:
    for execution in draft.tried:
        found = execution.verification
        title, plan = inline(execution.title), draft.plan(execution.plan_revision)
        if name := {"resolved": "well_remedy", "improved": "well_improved"}.get(found.verdict):
            met = sum(check.status == "met" for check in found.checks)
            said = draft.t[name].format(title, met, len(found.checks))
            credit = f" {draft.t['well_credit']}" if found.credit == "remedy" and found.control else ""
            yield Lesson(said + credit, plan)
        elif execution.undone and all(step.status == "succeeded" for step in execution.undone):
            yield Lesson(draft.t["well_undone"].format(title), plan)


def _known_before(draft: Draft) -> Iterator[Lesson]:
    if draft.resolving is None:
        return
    ran = {result.operation for result in draft.resolving.results if result.made}
    same = [p for p in draft.earlier if p.verdict == "resolved" and ran & set(_operations(p.remedy))]
    if same:
        yield Lesson(f"{draft.t['well_known']}.", ", ".join(draft.incident(p.incident_id) for p in same))


def _operations(remedy: str) -> list[str]:
    """As ``graph.llms.base.PastIncident.remedy`` has them: in brackets at the end."""
    return [name.strip() for name in remedy.rpartition("(")[2].rstrip(")").split(",")] if remedy.endswith(")") else []


def _by_itself(draft: Draft) -> Iterator[Lesson]:
    recovered = any(e.kind == "resolved" for e in draft.report.history)
    if draft.over and recovered and not draft.tried and not draft.report.notes:
        yield Lesson(draft.t["well_by_itself"])


# --- what went badly ---


def went_badly(draft: Draft) -> list[Lesson]:
    """What took long, did not work, was wrong or could not be seen."""
    rules = (_late, _waited, _analysis, _criticised, _failed_remedies, _failed_steps, _unseen, _again)
    return [lesson for rule in rules for lesson in rule(draft)]


def _late(draft: Draft) -> Iterator[Lesson]:
    if (late := _lateness(draft)) and draft.onset:
        yield Lesson(draft.t["bad_late"].format(duration(draft.t, late)), draft.cited([draft.onset.id]))


def _lateness(draft: Draft) -> timedelta | None:
    """From the first sign to the alert, where that is long."""
    waits = [end - start for name, start, end in draft.stages if name == "stage_detected"]
    return waits[0] if waits and waits[0] >= LATE else None


def _waited(draft: Draft) -> Iterator[Lesson]:
    if kinds := list(dict.fromkeys(e.kind for e in draft.report.history if e.kind in WAITED)):
        yield Lesson(draft.t["bad_waited"].format(", ".join(word(draft.t, "event", kind) for kind in kinds)))


def _analysis(draft: Draft) -> Iterator[Lesson]:
    t, report, cause = draft.t, draft.report, draft.report.root_cause
    if report.round > 1:
        yield Lesson(t["bad_rounds"].format(report.round))
    if cause is None:
        return
    if cause.component is None:
        yield Lesson(t["bad_inconclusive"])
    if cause.contradicts:
        yield Lesson(t["bad_contradicts"].format(inline(cause.contradicts)))
    if doubtful := [c for c in cause.claims if not c.verified]:
        cited = draft.cited(e for c in doubtful for e in c.evidence)
        yield Lesson(t["bad_claims"].format(len(doubtful), len(cause.claims)), cited)
    if report.model_use and report.model_use.failed:
        yield Lesson(t["bad_model"].format(report.model_use.failed, report.model_use.calls))


def _criticised(draft: Draft) -> Iterator[Lesson]:
    said = (o for o in draft.background.feedback.said if o.verdict != "right")
    for about, option, verdict in dict.fromkeys((o.about, o.option, o.verdict) for o in said):
        told = word(draft.t, "said", verdict)
        values = (option or "", told) if about == "option" else (told,)
        yield Lesson(draft.t[f"bad_feedback_{about}"].format(*values))


def _failed_remedies(draft: Draft) -> Iterator[Lesson]:
    for execution in draft.tried:
        verdict = execution.verification.verdict
        if verdict not in ("resolved", "improved"):
            said = draft.t["bad_remedy"].format(inline(execution.title), word(draft.t, "verdict", verdict))
            yield Lesson(said, draft.plan(execution.plan_revision))
    if draft.report.status == "needs_attention" and draft.report.status_reason:
        yield Lesson(draft.t["bad_attention"].format(inline(draft.report.status_reason)))


def _failed_steps(draft: Draft) -> Iterator[Lesson]:
    for execution in draft.report.executions:
        for name, results in (("bad_step", execution.results), ("bad_undo", execution.undone)):
            for step in (r for r in results if r.status in ("failed", "unknown")):
                ended = word(draft.t, "step", step.status)
                said = draft.t[name].format(code(step.operation), ended, inline(step.detail) or "-")
                yield Lesson(said, draft.plan(execution.plan_revision))


def _unseen(draft: Draft) -> Iterator[Lesson]:
    for gap in draft.report.gaps:
        said = f"{inline(gap.source)}, {word(draft.t, 'gap', gap.reason)}"
        yield Lesson(draft.t["bad_gap"].format(said, inline(gap.detail)))


def _again(draft: Draft) -> Iterator[Lesson]:
    if draft.report.flaps:
        yield Lesson(draft.t["bad_flaps"].format(draft.report.flaps))
    if draft.earlier:
        seen = ", ".join(f"{draft.incident(p.incident_id)} ({inline(p.at)})" for p in draft.earlier)
        yield Lesson(f"{draft.t['bad_again']}.", seen)


# --- what is left to do ---


def action_items(draft: Draft) -> list[Lesson]:
    """Each with its owner, the most urgent first."""
    rules = (_loose_ends, _cause_left, _still_in_place, _alert_earlier, _misled, _to_settle, _blind_spots, _no_runbook)
    return [lesson for rule in rules for lesson in rule(draft)]


def _loose_ends(draft: Draft) -> Iterator[Lesson]:
    owner = draft.owner(draft.cause[0])
    for execution in draft.report.executions:
        plan = draft.plan(execution.plan_revision)
        for step in (r for r in execution.results if r.status == "unknown"):
            yield Lesson(draft.t["do_unknown_step"].format(code(step.operation)), plan, owner)
        for step in (r for r in execution.undone if r.status in ("failed", "unknown")):
            yield Lesson(draft.t["do_put_back"].format(code(step.operation)), plan, owner)


def _cause_left(draft: Draft) -> Iterator[Lesson]:
    t, owner = draft.t, draft.owner(draft.cause[0])
    if draft.earlier:
        seen = ", ".join(draft.incident(p.incident_id) for p in draft.earlier)
        yield Lesson(t["do_again"].format(len(draft.earlier)), seen, owner)
    ran = {execution.title for execution in draft.tried}
    fixes = [o for o in draft.report.options if o.intent == "fix" and o.title not in ran]
    done = draft.resolving and draft.option_of(draft.resolving)
    if done and done.intent == "fix":
        return
    for option in fixes:
        yield Lesson(t["do_fix"].format(inline(option.title)), draft.cited(option.why), owner)
    cause = draft.report.root_cause
    if not fixes and not draft.earlier and draft.resolving and cause and cause.component:
        yield Lesson(t["do_cause"].format(inline(cause.title)), draft.plan(draft.resolving.plan_revision), owner)


def _still_in_place(draft: Draft) -> Iterator[Lesson]:
    for execution in draft.tried:
        option = draft.option_of(execution)
        if option and option.undo and draft.in_place(execution):
            said = draft.t["do_keep"].format(inline(option.title), inline(option.undo))
            yield Lesson(said, draft.plan(execution.plan_revision), draft.owner(draft.cause[0]))


def _alert_earlier(draft: Draft) -> Iterator[Lesson]:
    if _lateness(draft) and draft.onset:
        sign = draft.onset
        said = draft.t["do_alert"].format(inline(sign.component), inline(sign.signal))
        yield Lesson(said, draft.cited([sign.id]), draft.owner(sign.component))


def _misled(draft: Draft) -> Iterator[Lesson]:
    if draft.misled:
        yield Lesson(draft.t["do_analysis"], "", draft.t["no_owner"])


def _to_settle(draft: Draft) -> Iterator[Lesson]:
    for unknown in draft.report.open_questions:  # a gap has an item of its own
        yield Lesson(draft.t["do_find_out"].format(inline(unknown)), "", draft.owner(draft.cause[0]))


def _blind_spots(draft: Draft) -> Iterator[Lesson]:
    for gap in draft.report.gaps:
        if gap.mend:
            said = draft.t["do_see"].format(inline(gap.detail), inline(gap.mend))
            yield Lesson(said, inline(gap.source), draft.t["no_owner"])


def _no_runbook(draft: Draft) -> Iterator[Lesson]:
    cause = draft.report.root_cause
    if cause and cause.component and not draft.report.documents:
        category = inline(cause.category.replace("_", " "))
        owner = draft.owner(draft.cause[0])
        yield Lesson(draft.t["do_runbook"].format(category, inline(cause.component)), "", owner)


def who_decided(decision: DecisionMade) -> str:
    """Everybody who approved it."""
    return ", ".join(dict.fromkeys((decision.by, *(a.by for a in decision.approvals))))
