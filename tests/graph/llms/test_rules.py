"""The rules engine on evidence made by hand."""

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

import pytest

from collectors.base import Edge, Gap, GapReason, LogsRead, Read, Series, SeriesRef, Telemetry
from graph.grounding import extended, ground, known_components
from graph.llms.base import Analysis, Proposal, ReadMenu, ReadRefused
from graph.llms.rules import RulesAnalyst, explain
from graph.ranking.engine import rank
from graph.state import ActionOption, Assessment, Evidence, Finding, ImpactFigure, Language, RootCause, Suspect
from tests.graph.llms import incidents
from tests.graph.llms.failures import FAILURES, Failure


async def explained(
    evidence: Evidence, *hints: str, previous: RootCause | None = None, language: Language = "en"
) -> RootCause:
    request = incidents.analysis(evidence, hints=hints, previous=previous, language=language)
    return (await RulesAnalyst().analyze(request)).root_cause


async def proposed(evidence: Evidence, language: Language = "en", **catalogue: Any) -> Proposal:
    root_cause = await explained(evidence, language=language)
    return await RulesAnalyst().plan(incidents.plan(evidence, root_cause, language=language, **catalogue))


async def planned(evidence: Evidence, **catalogue: Any) -> tuple[ActionOption, ...]:
    return (await proposed(evidence, **catalogue)).options


def operations(option: ActionOption) -> list[str]:
    return [step.operation for step in option.steps]


INCIDENTS = [
    (incidents.pool_exhaustion(), "connection_pool_exhaustion"),
    (incidents.bad_deploy(), "bad_deploy"),
    (incidents.cpu_saturation(), "cpu_saturation"),
]


@pytest.mark.parametrize(("evidence", "category"), INCIDENTS)
async def test_names_component_and_category(evidence: Evidence, category: str) -> None:
    root_cause = await explained(evidence)
    assert (root_cause.component, root_cause.category) == ("payment-service", category)
    assert root_cause.engine == "rules"


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("evidence", [*(e for e, _ in INCIDENTS), incidents.nothing_wrong()])
async def test_grounding_takes_nothing_back(evidence: Evidence, language: Language) -> None:
    root_cause = await explained(evidence, language=language)
    grounded = ground(root_cause, evidence, known_components(incidents.scope(), evidence))
    assert [claim.complaint for claim in grounded.claims] == [""] * len(root_cause.claims)
    assert all(claim.verified for claim in grounded.claims)
    kept = {"component", "category", "title", "mechanism", "path", "rivals", "unknowns", "impact"}
    assert grounded.model_dump(include=kept) == root_cause.model_dump(include=kept)


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("failure", FAILURES, ids=[f"{f.category}-{f.component}" for f in FAILURES])
async def test_every_claim_on_every_kind_of_failure_is_verified(failure: Failure, language: Language) -> None:
    evidence = failure.evidence()
    root_cause = await explained(evidence, language=language)
    grounded = ground(root_cause, evidence, known_components(incidents.scope(), evidence))
    assert root_cause.claims
    assert [(c.text, c.complaint) for c in grounded.claims if not c.verified] == []


async def test_pool_exhaustion_is_told_with_its_numbers() -> None:
    root_cause = await explained(incidents.pool_exhaustion())
    assert root_cause.title == "Connection pool of payment-service exhausted under a traffic surge"
    assert "2,040 req/s" in root_cause.mechanism
    assert "from payment-service to checkout-service" in root_cause.mechanism
    assert root_cause.path == (incidents.hop("payment-service", "checkout-service"),)
    assert [rival.component for rival in root_cause.rivals] == ["checkout-service"]
    assert "causal path" in root_cause.rivals[0].against
    assert root_cause.unknowns[0] == "aws (forbidden): cloudwatch:GetMetricData was refused."
    assert root_cause.unknowns[1].startswith("To be settled by hand: Who holds the connections")
    assert root_cause.confidence == "medium"


def test_what_could_not_be_seen_is_told_in_korean_where_it_is_ours_to_say() -> None:
    gap = Gap(source="datadog", reason=GapReason.EMPTY, detail="no log line is tagged service:db.", mend="Ask dba.")
    evidence = incidents.pool_exhaustion().model_copy(update={"gaps": (gap,)})
    told = explain(evidence, "checkout-service", language="ko").unknowns[0]
    assert told.startswith("datadog (")
    assert told.endswith("): service:db 태그가 있는 로그 없음. Ask dba.")


@pytest.mark.parametrize(
    ("structural", "statistical", "temporal", "known"),
    [
        (True, True, False, True),
        (True, False, True, True),
        (True, False, False, False),
        (False, True, True, False),
    ],
)
async def test_a_spread_is_told_only_over_hops_that_hold(
    *, structural: bool, statistical: bool, temporal: bool, known: bool
) -> None:
    checks = {"structural": structural, "statistical": statistical, "temporal": temporal}
    hop = incidents.hop("payment-service", "checkout-service").model_copy(update=checks)
    evidence = incidents.pool_exhaustion()
    suspect = evidence.suspects[0].model_copy(update={"path": (hop,)})
    root_cause = await explained(evidence.model_copy(update={"suspects": (suspect,)}))
    assert ("It spread from" in root_cause.mechanism) is known
    unknown = "No path from payment-service to checkout-service is known."
    assert (unknown in root_cause.unknowns) is not known


async def test_pool_exhaustion_is_remedied_three_ways() -> None:
    shed, restart, scale = (await planned(incidents.pool_exhaustion()))[:3]
    assert operations(shed) == [
        "reduce_traffic",
        "restart_ecs_task",
        "check_ecs_health",
        "gradual_traffic_restore",
    ]
    assert shed.steps[0].params == {"service": "payment-service", "keep_percent": 40}
    assert shed.steps[3].params["steps_percent"] == [50, 75, 100]
    assert [option.intent for option in (shed, restart, scale)] == ["mitigate", "least_risk", "fix"]
    assert (shed.risk, shed.minutes) == ("medium", 7.0)
    assert "restart_ecs_task cannot be undone" in shed.undo
    assert operations(restart) == ["restart_ecs_task", "check_ecs_health"]
    assert restart.undo == ""
    assert scale.steps[0].params["desired_count"] == 8
    assert scale.undo
    for option in (shed, restart, scale):
        assert option.why
        assert (option.expected, option.steps[0].preview) == ((), "")
        assert "{" not in option.title + option.description + "".join(step.summary for step in option.steps)


async def test_scaling_keeps_to_the_catalogue() -> None:
    evidence = incidents.pool_exhaustion()
    bounded = await planned(evidence, resources=(incidents.resource("payment-service", max_tasks=6),))
    assert bounded[2].steps[0].params["desired_count"] == 6
    full = await planned(evidence, resources=(incidents.resource("payment-service", max_tasks=4),))
    assert "scale_ecs_service" not in {name for option in full for name in operations(option)}


async def test_scaling_is_not_proposed_where_the_present_count_is_unknown() -> None:
    evidence = incidents.pool_exhaustion()
    unknown = evidence.model_copy(update={"findings": evidence.findings[:4]})
    operations = [step.operation for option in await planned(unknown) for step in option.steps]
    assert "scale_ecs_service" not in operations
    request = incidents.plan(unknown, await explained(unknown))
    proposal = await RulesAnalyst().plan(replace(request, desired_tasks={"payment-service": 3}))
    assert proposal.options[2].steps[0].params["desired_count"] == 6


async def test_only_what_menu_and_catalogue_allow() -> None:
    evidence = incidents.pool_exhaustion()
    no_balancer = await planned(evidence, resources=(incidents.resource("payment-service", traffic=False),))
    assert [operations(option)[0] for option in no_balancer] == ["restart_ecs_task", "scale_ecs_service"]
    no_check = await planned(evidence, menu=tuple(e for e in incidents.MENU if e.name != "check_ecs_health"))
    assert operations(no_check[1]) == ["restart_ecs_task"]
    assert await planned(evidence, menu=()) == ()
    assert await planned(evidence, resources=()) == ()


async def test_a_component_out_of_reach_is_spared_by_its_caller() -> None:
    proposal = await proposed(incidents.pool_exhaustion(), resources=(incidents.resource("checkout-service"),))
    (spare,) = proposal.options
    assert proposal.notes == (
        "Not possible: payment-service is not in the service catalogue, or not in the scope of this incident.",
    )
    assert spare.steps[0].params == {"service": "checkout-service", "keep_percent": 50}
    assert "spare payment-service" in spare.title


async def test_bad_deploy_is_rolled_back_first() -> None:
    evidence = incidents.bad_deploy()
    root_cause = await explained(evidence)
    assert "E2" in {eid for claim in root_cause.claims for eid in claim.evidence}
    options = await planned(evidence)
    assert [operations(option)[0] for option in options] == [
        "rollback_ecs_service",
        "reduce_traffic",
        "restart_ecs_task",
    ]
    assert options[1].steps[0].params["keep_percent"] == 50


@pytest.mark.parametrize("minutes", [-90, 3])
async def test_a_deploy_long_before_or_after_the_errors_is_not_blamed(minutes: int) -> None:
    evidence = incidents.bad_deploy()
    deploy = evidence.findings[1].model_copy(update={"at": incidents.START + timedelta(minutes=minutes)})
    moved = evidence.model_copy(update={"findings": (evidence.findings[0], deploy, evidence.findings[2])})
    assert (await explained(moved)).category == "code_fault"


async def test_nothing_is_restarted_whose_new_tasks_do_not_come_up() -> None:
    evidence = incidents.bad_deploy()
    failed = incidents.finding(
        4,
        "status",
        "payment-service",
        "ecs.failed_tasks",
        "payment-service ecs.failed_tasks is 7, expected 0.",
        observed=7.0,
        baseline=0.0,
    )
    proposal = await proposed(evidence.model_copy(update={"findings": (*evidence.findings, failed)}))
    assert [operations(option)[0] for option in proposal.options] == ["rollback_ecs_service", "reduce_traffic"]
    assert proposal.notes == (
        "Not advised: Restart the tasks of payment-service on the version that runs: new tasks of payment-service do "
        "not come up, so that every one that is replaced is lost.",
    )


async def test_a_setting_that_no_deployment_brought_is_put_back_by_hand() -> None:
    evidence = incidents.bad_deploy()
    setting = evidence.findings[1].model_copy(
        update={"signal": "Parameter Store Change", "summary": "payment-service: configuration “pool-size” at 09:09:00"}
    )
    changed = evidence.model_copy(update={"findings": (evidence.findings[0], setting, evidence.findings[2])})
    assert (await explained(changed)).category == "bad_configuration"
    proposal = await proposed(changed)
    assert proposal.options == ()
    assert "can it be put back where it was changed?" in proposal.notes[0]


BY_HAND = ["expired_certificate", "dns_failure", "network_fault", "prompt_regression"]


@pytest.mark.parametrize("failure", [f for f in FAILURES if f.category in BY_HAND], ids=lambda f: f.category)
@pytest.mark.parametrize("language", ["en", "ko"])
async def test_what_no_operation_mends_is_for_a_person(failure: Failure, language: Language) -> None:
    resources = (incidents.resource(failure.component), incidents.resource("checkout-service"))
    proposal = await proposed(failure.evidence(), language, resources=resources)
    assert proposal.options == ()
    assert proposal.notes[0].startswith(("Look by hand at: ", "직접 확인할 것: "))


@pytest.mark.parametrize("failure", FAILURES, ids=lambda f: f.category)
async def test_a_roll_back_is_proposed_only_of_what_was_deployed(failure: Failure) -> None:
    resources = (incidents.resource(failure.component), incidents.resource("checkout-service"))
    evidence = failure.evidence()
    deployed = {f.component for f in evidence.findings if f.kind == "change" and "deploy" in f.signal + f.summary}
    for option in await planned(evidence, resources=resources):
        for step in option.steps:
            assert step.operation != "rollback_ecs_service" or step.params["service"] in deployed


async def test_a_surge_after_a_harmless_deploy_is_not_blamed_on_the_deploy() -> None:
    evidence = incidents.pool_exhaustion()
    deploy = incidents.finding(
        6, "change", "payment-service", "deploy v9", "payment-service v9 was deployed", minute=-20
    )
    both = evidence.model_copy(update={"findings": (*evidence.findings, deploy)})
    root_cause = await explained(both)
    assert root_cause.category == "connection_pool_exhaustion"
    assert "E6" not in {eid for claim in root_cause.claims for eid in claim.evidence}
    assert root_cause.rivals[0].for_ == "payment-service v9 was deployed."
    assert root_cause.rivals[0].against == "The trouble began at 09:14:00. Traffic surged at 09:14:00."


async def test_an_idle_cpu_is_not_saturated() -> None:
    evidence = incidents.cpu_saturation()
    idle = evidence.findings[0].model_copy(update={"observed": 9.0, "baseline": 1.0})
    assert (
        await explained(evidence.model_copy(update={"findings": (idle, evidence.findings[1])}))
    ).category == "slow_dependency"


async def test_nothing_wrong_is_inconclusive_and_has_no_remedy() -> None:
    evidence = incidents.nothing_wrong()
    root_cause = await explained(evidence)
    assert (root_cause.component, root_cause.confidence) == (None, "inconclusive")
    proposal = await proposed(evidence)
    assert proposal.options == ()
    assert proposal.notes[0].startswith("Look by hand at: What changed around the onset")


async def test_an_abstaining_ranking_is_inconclusive_however_high_its_score() -> None:
    evidence = incidents.pool_exhaustion()
    assessed = Assessment(state="incident", trouble=0.9, certainty=0.4, abstains=True, why="Two are as likely.")
    root_cause = await explained(evidence.model_copy(update={"assessment": assessed}))
    assert (root_cause.component, root_cause.confidence) == (None, "inconclusive")
    assert "does not stand out enough" in root_cause.mechanism
    sure = assessed.model_copy(update={"abstains": False})
    assert (await explained(evidence.model_copy(update={"assessment": sure}))).component == "payment-service"


async def test_a_weak_first_suspect_is_inconclusive() -> None:
    evidence = incidents.cpu_saturation()
    weak = Suspect(component="payment-service", score=0.05, findings=("E1",))
    root_cause = await explained(evidence.model_copy(update={"suspects": (weak,)}))
    assert (root_cause.component, root_cause.confidence) == (None, "inconclusive")
    assert root_cause.claims


async def test_a_rate_limit_is_spared_by_its_caller() -> None:
    refused = incidents.finding(
        1,
        "log",
        "stripe",
        "StripeClient#41",
        "Calls to stripe are refused, 900 times a minute",
        excerpt="HTTP 429 Too Many Requests",
    )
    suspect = Suspect(
        component="stripe", score=0.8, findings=("E1",), path=(incidents.hop("stripe", "payment-service"),)
    )
    options = await planned(Evidence(digest="d", findings=(refused,), suspects=(suspect,)))
    assert {step.params["service"] for option in options for step in option.steps} == {"payment-service"}
    assert operations(options[0]) == ["reduce_traffic"]


def refused_by_a_provider(excerpt: str = "stripe: 429 Too Many Requests", *, of_stripe: str = "429") -> Evidence:
    """The payment service is first; what it shows is what stripe answers it."""
    findings = (
        incidents.finding(1, "log", "payment-service", "StripeClient#41", "payment-service logged it", excerpt=excerpt),
        incidents.finding(
            2, "trace", "stripe", "payment-service → stripe", f"9 of 10 calls to stripe failed with {of_stripe}"
        ),
    )
    path = (incidents.hop("payment-service", "checkout-service"),)
    suspects = (
        Suspect(component="payment-service", score=0.9, findings=("E1",), path=path),
        Suspect(
            component="stripe", score=0.6, findings=("E2",), path=(incidents.hop("stripe", "payment-service"), *path)
        ),
    )
    edges = (Edge(caller="payment-service", callee="stripe", source="t"),)
    return Evidence(digest="d", findings=findings, suspects=suspects, edges=edges)


@pytest.mark.parametrize("language", ["en", "ko"])
async def test_a_failure_of_a_dependency_is_the_dependencys(language: Language) -> None:
    root_cause = await explained(refused_by_a_provider(), language=language)
    assert (root_cause.component, root_cause.category) == ("stripe", "rate_limited_dependency")
    said = {
        "en": "The ranking put payment-service first; what it shows is about stripe, which it calls.",
        "ko": "순위 분석의 1순위는 payment-service입니다.",
    }
    assert said[language] in root_cause.mechanism
    assert [rival.component for rival in root_cause.rivals] == ["payment-service"]


@pytest.mark.parametrize(
    "evidence",
    [
        refused_by_a_provider("429 Too Many Requests"),  # of whom, nobody says
        refused_by_a_provider(of_stripe="a certificate that is not trusted"),  # another failure
        refused_by_a_provider().model_copy(update={"edges": ()}),  # which it does not call
        refused_by_a_provider("java.lang.NullPointerException after stripe answered"),  # a failure of its own
    ],
)
async def test_what_is_not_said_of_a_dependency_stays_with_the_first_suspect(evidence: Evidence) -> None:
    assert (await explained(evidence)).component == "payment-service"


async def test_a_dependency_that_a_person_ruled_out_is_not_named() -> None:
    assert (await explained(refused_by_a_provider(), "it is not stripe")).component == "payment-service"


@pytest.mark.parametrize(
    ("state", "title", "said"),
    [
        ("recovered", "checkout-service has recovered by itself", "is over"),
        ("no_incident", "Nothing is wrong with checkout-service", "false alarm"),
        ("not_enough_data", "Not enough data to judge checkout-service", "nothing can be compared"),
    ],
)
async def test_where_there_is_no_incident_nobody_is_blamed(
    state: Literal["recovered", "no_incident", "not_enough_data"], title: str, said: str
) -> None:
    assessed = Assessment(state=state, trouble=0.1, certainty=0.9, abstains=False)
    evidence = incidents.pool_exhaustion().model_copy(update={"assessment": assessed})
    root_cause = await explained(evidence)
    assert (root_cause.component, root_cause.title) == (None, title)
    assert said in root_cause.mechanism
    assert (await proposed(evidence)).options == ()


def two_causes() -> Evidence:
    """A full pool, and a cache that lost its keys, neither of which calls the other."""
    evicted = incidents.finding(
        6, "metric", "redis", "Evictions", "redis Evictions rose to 5,200 from 0", observed=5200.0, baseline=0.0
    )
    evidence = incidents.pool_exhaustion()
    return evidence.model_copy(
        update={
            "findings": (*evidence.findings, evicted),
            "suspects": (evidence.suspects[0], incidents.suspect("redis", "E6", score=0.6)),
            "causes": ("payment-service", "redis"),
        }
    )


async def test_two_causes_are_both_named() -> None:
    root_cause = await explained(two_causes())
    assert root_cause.component == "payment-service"
    assert "Cache redis fails its callers" in root_cause.title
    assert "second cause" in root_cause.mechanism
    assert "E6" in {eid for claim in root_cause.claims for eid in claim.evidence}
    assert root_cause.rivals[0].against == "It is a cause of its own beside payment-service."
    alone = await explained(two_causes().model_copy(update={"causes": ("payment-service",)}))
    assert "second cause" not in alone.mechanism


@pytest.mark.parametrize("hint", ["please look at redis", "payment-service 말고 redis를 봐주세요"])
async def test_a_hint_moves_a_suspect_that_evidence_speaks_for(hint: str) -> None:
    evidence = two_causes().model_copy(update={"causes": ()})
    before = await explained(evidence)
    root_cause = await explained(evidence, hint, previous=before)
    assert (before.component, root_cause.component, root_cause.category) == (
        "payment-service",
        "redis",
        "cache_failure",
    )
    assert root_cause.confidence == "low"
    if "말고" not in hint:
        assert "the ranking put payment-service first" in root_cause.mechanism


async def test_a_hint_without_evidence_moves_nobody() -> None:
    evidence = incidents.pool_exhaustion()
    bare = (*evidence.suspects, incidents.suspect("orders-db", score=0.2))
    root_cause = await explained(evidence.model_copy(update={"suspects": bare}), "it is orders-db")
    assert root_cause.component == "payment-service"
    assert "A hint names orders-db, but nothing that was seen speaks for it." in root_cause.unknowns
    edge = Edge(caller="payment-service", callee="billing", source="traces")
    no_suspect = await explained(evidence.model_copy(update={"edges": (edge,)}), "it is billing")
    assert "A hint names billing, but nothing that was seen speaks for it." in no_suspect.unknowns


async def test_what_a_person_ruled_out_is_not_named() -> None:
    root_cause = await explained(two_causes(), "it is not payment-service")
    assert root_cause.component == "redis"
    ruled_out = next(rival for rival in root_cause.rivals if rival.component == "payment-service")
    assert ruled_out.against == "A person ruled it out."
    nobody = await explained(two_causes(), "it is not payment-service", "redis is fine")
    assert (nobody.component, nobody.mechanism) == (None, "All that stood out was ruled out by a person.")


async def test_a_rejected_answer_is_not_given_again_without_saying_so() -> None:
    evidence = incidents.pool_exhaustion()
    before = await explained(evidence)
    again = await explained(evidence, "I do not believe it", previous=before)
    assert again.component == before.component
    assert "rejected before" in again.mechanism
    assert "rejected before" not in before.mechanism


class Answered:
    """Reads that find these, whatever is asked."""

    menu = ReadMenu(components=("payment-service", "redis"), kinds=frozenset(("logs",)))

    def __init__(self, *found: Finding) -> None:
        self.found = found
        self.questions: list[Read] = []

    async def read(self, question: Read) -> list[Finding]:
        """See Reads."""
        self.questions.append(question)
        if not self.found:
            raise ReadRefused("time is up")
        return list(self.found)


def refused(rate: float, before: float, effect: float) -> Finding:
    """What searching the logs of payment-service finds."""
    lines = f"{rate * 10:g} line(s) that hold “too many clients” in the incident ({rate:g}/min, {before:g}/min before)"
    finding = incidents.finding(
        7,
        "log",
        "payment-service",
        "too many clients",
        f"payment-service logged {lines}.",
        observed=rate,
        baseline=before,
    )
    return finding.model_copy(update={"effect": effect, "unit": "lines/min", "asked": "log lines of payment-service"})


async def hinted(reads: Answered | None, language: Language = "en") -> Analysis:
    """The analysis of the full pool, with a question in the hint."""
    hints = ('see "too many clients" in payment-service',)
    request = incidents.analysis(incidents.pool_exhaustion(), hints=hints, language=language)
    return await RulesAnalyst().analyze(replace(request, reads=reads))


@pytest.mark.parametrize("language", ["en", "ko"])
async def test_what_a_hint_asks_for_is_asked_and_claimed(language: Language) -> None:
    reads = Answered(refused(12.5, 0.5, 8.0))
    analysis = await hinted(reads, language)
    assert reads.questions == [LogsRead(component="payment-service", contains="too many clients")]
    assert [f.id for f in analysis.findings] == ["E7"]
    evidence = extended(incidents.pool_exhaustion(), analysis.findings)
    [claim] = [c for c in ground(analysis.root_cause, evidence, set()).claims if "E7" in c.evidence]
    assert claim.verified, claim.complaint
    assert "12.5" in claim.text


@pytest.mark.parametrize("finding", [refused(0.5, 0.5, 0.0), refused(0.0, 0.0, 0.0)])
async def test_what_was_asked_in_vain_is_no_symptom_but_said(finding: Finding) -> None:
    analysis = await hinted(Answered(finding))
    without = await hinted(None)
    assert analysis.root_cause.category == without.root_cause.category
    assert analysis.root_cause.claims == without.root_cause.claims
    said = set(analysis.root_cause.unknowns) - set(without.root_cause.unknowns)
    assert said == {f"A hint asked for it, and it shows no change: {finding.summary}"}


async def test_a_question_that_is_refused_costs_no_answer() -> None:
    analysis = await hinted(Answered())
    assert analysis == await hinted(None)


async def test_impact_is_told_with_its_evidence() -> None:
    figure = ImpactFigure(name="failed requests", value=1320.48, unit="requests", window="w", evidence=("E1",))
    evidence = incidents.pool_exhaustion().model_copy(update={"impact": (figure,)})
    assert (await explained(evidence)).impact == "Measured: failed requests: 1,320 requests [E1]."


async def test_a_version_that_may_have_brought_it_can_be_rolled_back() -> None:
    leak = incidents.finding(
        1, "log", "payment-service", "OOM", "payment-service logged “java.lang.OutOfMemoryError” 9 times"
    )
    deploy = incidents.finding(
        2,
        "change",
        "payment-service",
        "v8",
        "payment-service: deploy “v8” at 06:05:00 UTC",
        minute=-190,
    )
    cited = incidents.suspect("payment-service", "E1", "E2").model_copy(update={"change": "E2"})
    leaking = Evidence(digest="d", findings=(leak, deploy), suspects=(cited,))
    assert (await explained(leaking)).category == "memory_exhaustion"
    assert "rollback_ecs_service" in {name for option in await planned(leaking) for name in operations(option)}
    innocent = leaking.model_copy(update={"suspects": (incidents.suspect("payment-service", "E1"),)})
    assert "rollback_ecs_service" not in {name for option in await planned(innocent) for name in operations(option)}


async def test_everything_is_said_in_korean() -> None:
    evidence = two_causes()
    root_cause = await explained(evidence, "redis는 아니다", previous=await explained(evidence), language="ko")
    options = (await proposed(evidence, "ko")).options
    own = [
        *(root_cause.title, root_cause.mechanism, *root_cause.unknowns[1:]),
        *(rival.against for rival in root_cause.rivals),
        *(text for o in options for text in (o.title, o.description, *(s.summary for s in o.steps))),
        *(o.undo for o in options if o.undo),
    ]
    assert root_cause.language == "ko"
    assert all(re.search("[가-힣]", text) for text in own)
    assert root_cause.title == "payment-service의 커넥션 풀 고갈 (트래픽 급증 중)"
    assert root_cause.claims[0].text == (
        "payment-service의 hikaricp.connections.active 값이 12.4에서 50까지 올랐습니다."
    )


async def test_what_the_ranking_finds_in_telemetry_is_explained_and_verified() -> None:
    telemetry = Telemetry(
        source="datadog",
        series=(
            series("payment-service", "hikaricp.connections.pending", 1, 140),
            series("payment-service", "trace.servlet.request.hits", 510, 2040),
            series("checkout-service", "trace.servlet.request.errors", 1, 300),
        ),
    )
    scope = incidents.scope()
    evidence = rank([telemetry], scope, incidents.alert())
    grounded = ground(await explained(evidence), evidence, known_components(scope, evidence))
    assert (grounded.component, grounded.category) == ("payment-service", "connection_pool_exhaustion")
    assert "surge" in grounded.title
    assert grounded.claims
    assert all(claim.verified for claim in grounded.claims)


def series(component: str, metric: str, before: float, after: float) -> Series:
    """One value a minute, unsteady by a twentieth, that changes a minute before the alert."""
    scope = incidents.scope()
    start, end = scope.baseline[0].start.timestamp(), scope.incident.end.timestamp()
    times = [start + 60 * minute for minute in range(int(end - start) // 60)]
    changed = incidents.START.timestamp() - 60
    return Series(
        ref=SeriesRef(source="datadog", component=component, metric=metric, query=metric),
        epoch_s=tuple(times),
        values=tuple((before if t < changed else after) * (1 + 0.05 * (i % 3 - 1)) for i, t in enumerate(times)),
    )
