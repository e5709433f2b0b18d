"""The rules engine: explains and plans from playbooks, with no LLM. Deterministic.

It names the first suspect of the ranking, or the one that a person's hint points to and evidence speaks for, finds
the playbook whose symptoms the suspect's findings show, and says what the findings say. Every claim it makes is a
finding's own sentence, or follows from two of them.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from graph.grounding import extended
from graph.hinted_components import MAX_QUESTIONS, Steering, questions, steering
from graph.llms.base import Analysis, AnalysisRequest, PlanRequest, Proposal, ReadRefused
from graph.llms.diagnosis import CONTEXT, Diagnosis, dependency, diagnose, is_error, own_findings
from graph.llms.playbooks import PLAYBOOKS, Category, joined, say
from graph.llms.remedies import propose
from graph.llms.sentences import restated, told
from graph.memory import like, of_now
from graph.memory import told as remembered
from graph.ranking.deviation import quantity
from graph.state import Claim, Evidence, Finding, ImpactFigure, Language, Rival, RootCause, Suspect

_MIN_SCORE = 0.15  # of evidence that was frozen before it held an assessment, and of who is left after a ruling-out
_MAX_CLAIMS = 5
_MAX_RIVALS = 3
_MAX_OF_SECOND = 2  # claims on a second cause
_MAX_FIGURES = 3
_MAX_QUESTIONS = 2


class RulesAnalyst:
    """Analyst without a model."""

    name = "rules"

    async def analyze(self, request: AnalysisRequest) -> Analysis:
        """The first suspect explained, or an inconclusive answer if nothing stands out."""
        asked = await _asked(request)
        answer = explain(
            extended(request.evidence, asked),
            request.scope.service,
            hints=request.hints,
            previous=request.previous,
            language=request.language,
        )
        return Analysis(answer, asked)

    async def plan(self, request: PlanRequest) -> Proposal:
        """The playbook's remedies that menu and catalogue allow, best first; where none is, what to look at."""
        return propose(request)


# --- analysis ---------------------------------------------------------------------------------------------


async def _asked(request: AnalysisRequest) -> tuple[Finding, ...]:
    """What the sources answer to the questions in people's hints."""
    if request.reads is None:
        return ()
    suspects = [suspect.component for suspect in request.evidence.suspects] or [request.scope.service]
    found: dict[str, Finding] = {}
    for question in questions(request.hints, request.reads.menu, suspects):
        with suppress(ReadRefused):  # the words are none that can be searched for, or time is up
            found |= {finding.id: finding for finding in await request.reads.read(question)}
    return tuple(found.values())


def explain(
    evidence: Evidence,
    service: str,
    *,
    hints: Sequence[str] = (),
    previous: RootCause | None = None,
    language: Language = "en",
) -> RootCause:
    """What the findings show of the suspect to be believed; ``service`` is the one alerted on.

    ``previous`` is the answer that a person asked to think over, ``hints`` what they said to it, the last one last.
    """
    evidence = of_now(evidence)  # what happened then explains nothing now; it is told beside the answer
    steered = steering(hints, _seen(evidence))
    in_vain = tuple(f for f in evidence.findings if f.asked and not _shows_change(f))
    telling = evidence.model_copy(update={"findings": tuple(f for f in evidence.findings if f not in in_vain)})
    case = _Case(telling, service, steered, language, in_vain)
    answer = case.explained()
    if previous is not None and _same(answer, previous):
        again = say("rejected_before", language)
        answer = answer.model_copy(update={"mechanism": joined([answer.mechanism, again])})
    return answer


def _seen(evidence: Evidence) -> set[str]:
    """Every component that the evidence is about, or that it knows to be called."""
    about = {*(s.component for s in evidence.suspects), *(f.component for f in evidence.findings)}
    return about.union(end for edge in evidence.edges for end in (edge.caller, edge.callee))


def _shows_change(finding: Finding) -> bool:
    """Whether what was asked for departs from before; log lines that nothing can be compared with do."""
    return finding.effect > 0 or (finding.kind == "log" and finding.baseline is None and bool(finding.observed))


def _same(answer: RootCause, previous: RootCause) -> bool:
    return (answer.component, answer.category) == (previous.component, previous.category)


@dataclass(frozen=True)
class _Case:
    """One incident, to be told in one language."""

    evidence: Evidence
    service: str
    steered: Steering
    language: Language
    in_vain: tuple[Finding, ...] = ()
    """What was asked for and shows no change; it is not in ``evidence``, so that it speaks for nothing."""

    def explained(self) -> RootCause:
        suspect = self.suspect
        if suspect is None or not self._believed(suspect):
            return self._inconclusive()
        found = diagnose(suspect, self.evidence)
        if not found.own:
            return self._inconclusive()
        second = self._second_cause(suspect)
        beside = diagnose(second, self.evidence) if second else None
        spoken = _telling(found)
        return RootCause(
            component=suspect.component,
            category=found.category.value,
            title=self._title(suspect, found, second, beside),
            mechanism=self._mechanism(suspect, found, spoken, second, beside),
            claims=self._with_answers([*self._claims(spoken, found), *self._claims_of_second(beside)]),
            path=suspect.path,
            rivals=(*self._changes_not_blamed(found), *self._rivals(suspect)),
            unknowns=(
                *self._no_spread(suspect),
                *self._hints_without_evidence(),
                *self._asked_in_vain(),
                *self._to_settle(suspect, found),
            ),
            impact=self._impact(suspect),
            confidence="medium" if self._plain(suspect, found) else "low",
            language=self.language,
            engine="rules",
        )

    # --- which suspect ---

    @cached_property
    def _left(self) -> list[Suspect]:
        """The suspects that nobody ruled out, in the ranking's order."""
        return [s for s in self.evidence.suspects if s.component not in self.steered.ruled_out]

    @cached_property
    def suspect(self) -> Suspect | None:
        """The one that a hint names and evidence speaks for; else the first, or the one that its failure is about."""
        by_name = {s.component: s for s in self._left}
        hinted = (by_name[name] for name in self.steered.named if name in by_name)
        first = self._dependency or (self._left[0] if self._left else None)
        return next((s for s in hinted if self._speaks_for(s)), first)

    @cached_property
    def _dependency(self) -> Suspect | None:
        """The suspect that the first one calls and that its failure is about, if it is of that kind."""
        return dependency(self._left[0], self._left[1:], self.evidence) if self._left else None

    def _speaks_for(self, suspect: Suspect) -> bool:
        """Whether trouble was seen in the suspect itself."""
        return any(f.kind not in CONTEXT for f in own_findings(suspect, self.evidence))

    def _believed(self, suspect: Suspect) -> bool:
        """Whether to name the suspect: where ranking abstains, only if a person points to it and evidence agrees."""
        if suspect.component in self.steered.named and self._speaks_for(suspect):
            return True
        assessment = self.evidence.assessment
        ranked = self._left[0] if suspect is self._dependency else suspect
        if assessment is None or ranked is not self.evidence.suspects[0]:
            return suspect.score >= _MIN_SCORE
        return assessment.state == "incident" and not assessment.abstains

    def _moved(self, suspect: Suspect) -> bool:
        """Whether a hint put the suspect before one that nobody ruled out, or that one's failure is about it."""
        return suspect is not self._left[0]

    def _mover(self, suspect: Suspect) -> Literal["hint", "dependency"]:
        return "hint" if suspect.component in self.steered.named else "dependency"

    def _plain(self, suspect: Suspect, found: Diagnosis) -> bool:
        return found.category is not Category.UNKNOWN and suspect is self.evidence.suspects[0]

    def _second_cause(self, suspect: Suspect) -> Suspect | None:
        """The suspect that explains the trouble only together with this one."""
        if suspect.component not in self.evidence.causes:
            return None
        others = set(self.evidence.causes) - {suspect.component}
        return next((s for s in self._left if s.component in others and self._speaks_for(s)), None)

    # --- what is said ---

    def _told(self, finding: Finding) -> str:
        return f"{told(finding, self.language)}."

    def _say(self, phrase: str, **names: object) -> str:
        return say(phrase, self.language, **names)

    def _title(self, suspect: Suspect, found: Diagnosis, second: Suspect | None, beside: Diagnosis | None) -> str:
        title = PLAYBOOKS[found.category].title.filled(self.language, component=suspect.component)
        if found.under_surge:
            title = self._say("under_surge", title=title)
        if second is None or beside is None:
            return title
        other = PLAYBOOKS[beside.category].title.filled(self.language, component=second.component)
        return self._say("two_titles", first=title, second=other)

    def _mechanism(
        self,
        suspect: Suspect,
        found: Diagnosis,
        spoken: Sequence[Finding],
        second: Suspect | None,
        beside: Diagnosis | None,
    ) -> str:
        first = [found.surge] if found.under_surge and found.surge and found.surge not in spoken else []
        quoted = [f"{told(f, self.language)} [{f.id}]." for f in [*first, *spoken][:4]]
        sentences = [self._how(suspect, found), *quoted, self._spread(suspect)]
        if second is not None and beside is not None:
            more = [f"{told(f, self.language)} [{f.id}]." for f in _telling(beside)[:_MAX_OF_SECOND]]
            sentences += [self._say("second_cause"), self._how(second, beside), *more]
        if self._moved(suspect):
            names = {"chosen": suspect.component, "first": self._left[0].component}
            moved = self._say(f"{self._mover(suspect)}_moved", **names)
            sentences.append(moved)
        return joined([*sentences, self._as_then(suspect, found)])

    def _as_then(self, suspect: Suspect, found: Diagnosis) -> str:
        """The earlier incident that was like this one, where its cause was in the same component."""
        past = like(suspect.component, self.evidence.similar)
        if past is None or past.category not in ("", found.category.value):
            return ""
        return f"{remembered(past, self.language).removesuffix('.')} [{past.evidence}]."

    def _how(self, suspect: Suspect, found: Diagnosis) -> str:
        return PLAYBOOKS[found.category].mechanism.filled(self.language, component=suspect.component)

    def _claims(self, spoken: Sequence[Finding], found: Diagnosis) -> Iterator[Claim]:
        for finding in spoken:
            yield Claim(text=self._told(finding), evidence=(finding.id,))
        surge, change = found.surge, found.change
        if surge and found.under_surge and surge not in spoken:
            yield Claim(text=self._told(surge), evidence=(surge.id,))
        after = next((f for f in spoken if change and f is not change and is_error(f)), None)
        if change and after:
            times = {"change": f"{change.at:%H:%M:%S}", "trouble": f"{after.at:%H:%M:%S}"}
            yield Claim(text=self._say("change_then_trouble", **times), evidence=(change.id, after.id))

    def _claims_of_second(self, beside: Diagnosis | None) -> list[Claim]:
        if beside is None:
            return []
        return [Claim(text=self._told(f), evidence=(f.id,)) for f in _telling(beside)[:_MAX_OF_SECOND]]

    def _with_answers(self, claims: Sequence[Claim]) -> tuple[Claim, ...]:
        """And what the sources answered to people's hints, where that is not claimed yet."""
        cited = {eid for claim in claims for eid in claim.evidence}
        answers = [f for f in self.evidence.findings if f.asked and f.id not in cited][:MAX_QUESTIONS]
        return (*claims, *(Claim(text=self._told(f), evidence=(f.id,)) for f in answers))

    def _spread(self, suspect: Suspect) -> str:
        """How the trouble reached the alerted service, if the checks of the path hold."""
        if not suspect.path or not _path_holds(suspect):
            return ""
        way = self._say("way").join([suspect.path[0].cause, *(hop.effect for hop in suspect.path)])
        return self._say("spread", way=way)

    def _no_spread(self, suspect: Suspect) -> list[str]:
        """That the way to the alerted service is not known, where the checks of the path do not hold."""
        if _path_holds(suspect):
            return []
        return [self._say("no_path", cause=suspect.path[0].cause, effect=suspect.path[-1].effect)]

    def _hints_without_evidence(self) -> list[str]:
        heard = {s.component for s in self.evidence.suspects if self._speaks_for(s)}
        heard.update(f.component for f in self.evidence.findings if f.kind not in CONTEXT)
        return [self._say("hint_without_evidence", named=name) for name in self.steered.named if name not in heard]

    def _asked_in_vain(self) -> list[str]:
        return [self._say("hint_asked_in_vain", told=self._told(f)) for f in self.in_vain[:MAX_QUESTIONS]]

    def _to_settle(self, suspect: Suspect, found: Diagnosis) -> tuple[str, ...]:
        """What could not be seen, and what a person would look at to settle it."""
        asked = PLAYBOOKS[found.category].questions[:_MAX_QUESTIONS]
        questions = (q.filled(self.language, component=suspect.component) for q in asked)
        return (*self._gaps(), *(self._say("to_settle", question=question) for question in questions))

    def _gaps(self) -> tuple[str, ...]:
        return tuple(
            f"{gap.source} ({self._say(f'gap_{gap.reason.value}')}):"
            f" {restated(gap.detail.strip().rstrip('.'), self.language)}."
            + (f" {restated(gap.mend.strip(), self.language)}" if gap.mend else "")
            for gap in self.evidence.gaps
        )

    def _impact(self, suspect: Suspect) -> str:
        figures = "; ".join(_figure(figure, self.language) for figure in self.evidence.impact[:_MAX_FIGURES])
        return joined(
            [
                self._say("impact", figures=figures) if figures else "",
                self._say("affected", names=", ".join(suspect.affected)) if suspect.affected else "",
            ]
        )

    # --- rivals ---

    def _rivals(self, suspect: Suspect) -> Iterator[Rival]:
        others = [s for s in self.evidence.suspects if s.component != suspect.component]
        for other in others[:_MAX_RIVALS]:
            yield self._rival(other, self._against(other, suspect))

    def _rival(self, suspect: Suspect, against: str) -> Rival:
        own = own_findings(suspect, self.evidence)
        return Rival(component=suspect.component, for_=self._told(own[0]) if own else "", against=against)

    def _against(self, other: Suspect, chosen: Suspect) -> str:
        """Why the chosen suspect is preferred."""
        if other.component in self.steered.ruled_out:
            return self._say("ruled_out")
        if {other.component, chosen.component} <= set(self.evidence.causes):
            return self._say("acts_too", first=chosen.component)
        if any(other.component == hop.effect for hop in chosen.path):
            return self._say("on_the_path", first=chosen.component)
        if self._moved(chosen) and other is self._left[0]:
            return self._say(f"ranking_first_{self._mover(chosen)}", chosen=chosen.component)
        later, earlier = self._onset(other), self._onset(chosen)
        if later and earlier and later.at > earlier.at:
            times = {"later": f"{later.at:%H:%M:%S}", "earlier": f"{earlier.at:%H:%M:%S}"}
            return self._say("began_later", first=chosen.component, **times)
        return self._say("explained_more", first=chosen.component)

    def _onset(self, suspect: Suspect) -> Finding | None:
        own = (f for f in own_findings(suspect, self.evidence) if f.kind != "change")
        return min(own, key=lambda f: f.at, default=None)

    def _changes_not_blamed(self, found: Diagnosis) -> Iterator[Rival]:
        """The question everybody asks first: was it the deploy?"""
        began = min((f.at for f in found.own if f.kind != "change"), default=None)
        for change in [f for f in found.own if f.kind == "change" and f is not found.change][:_MAX_RIVALS]:
            against = [self._say("trouble_began", at=f"{began:%H:%M:%S}")] if began else []
            if found.surge and found.surge.at > change.at:
                against.append(self._say("surged", at=f"{found.surge.at:%H:%M:%S}"))
            yield Rival(component=change.component, for_=self._told(change), against=joined(against))

    # --- no answer ---

    def _inconclusive(self) -> RootCause:
        title, what = self._shrug()
        strongest = self.evidence.findings[:3]
        return RootCause(
            component=None,
            category=Category.UNKNOWN.value,
            title=title,
            mechanism=what,
            claims=self._with_answers([Claim(text=self._told(f), evidence=(f.id,)) for f in strongest]),
            rivals=tuple(self._rival(s, self._doubt(s)) for s in self.evidence.suspects[:_MAX_RIVALS]),
            unknowns=(*self._hints_without_evidence(), *self._asked_in_vain(), *self._gaps()),
            confidence="inconclusive",
            language=self.language,
            engine="rules",
        )

    def _shrug(self) -> tuple[str, str]:
        """Title and reason of an answer without a cause."""
        assessment = self.evidence.assessment
        if assessment is not None and assessment.state != "incident":
            title = self._say(f"{assessment.state}_title", service=self.service)
            return title, self._say(assessment.state, service=self.service)
        title = self._say("no_root_cause", service=self.service)
        if not self.evidence.findings:
            return title, self._say("nothing_departs")
        if self.evidence.suspects and not self._left:
            return title, self._say("all_ruled_out")
        if assessment is not None and len(self._left) > 1:
            return title, joined([self._say("too_weak"), self._say("close_race")])
        return title, self._say("too_weak")

    def _doubt(self, suspect: Suspect) -> str:
        return self._say("ruled_out" if suspect.component in self.steered.ruled_out else "too_weak_rival")


def _telling(found: Diagnosis) -> list[Finding]:
    """Which findings to speak of: the change, what shows the category, then one of each other kind."""
    kinds = {f.kind for f in found.showing}
    # a change not blamed is a rival, and a runbook tells what may happen
    kinds_left = dict.fromkeys(f.kind for f in found.own if f.kind not in {"change", "knowledge"})
    others = [next(f for f in found.own if f.kind == kind) for kind in kinds_left]
    chosen = [
        *([found.change] if found.change else []),
        *found.showing[:3],
        *(f for f in others if f.kind not in kinds),
    ]
    return list({f.id: f for f in chosen}.values())[: _MAX_CLAIMS - 1]


def _path_holds(suspect: Suspect) -> bool:
    return all(hop.structural and (hop.temporal or hop.statistical) for hop in suspect.path)


def _figure(figure: ImpactFigure, language: Language) -> str:
    cited = f" [{', '.join(figure.evidence)}]" if figure.evidence else ""
    return f"{restated(figure.name, language)}: {quantity(figure.value, figure.unit)}{cited}"
