"""The rules engine on evidence made by hand."""

from dataclasses import replace
from datetime import timedelta

import pytest

from collectors.base import Series, SeriesRef, Telemetry
from graph.grounding import ground, known_components
from graph.llms.playbooks import PLAYBOOKS, Category
from graph.llms.rules import RulesAnalyst
from graph.ranking.engine import rank
from graph.state import ActionOption, Assessment, Evidence, RootCause, Suspect
from tests.graph.llms import incidents


async def explained(evidence: Evidence) -> RootCause:
    return await RulesAnalyst().analyze(incidents.analysis(evidence))


async def planned(evidence: Evidence, **catalogue: tuple) -> list[ActionOption]:  # type: ignore[type-arg]
    return await RulesAnalyst().plan(incidents.plan(evidence, await explained(evidence), **catalogue))


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


@pytest.mark.parametrize("evidence", [*(e for e, _ in INCIDENTS), incidents.nothing_wrong()])
async def test_grounding_takes_nothing_back(evidence: Evidence) -> None:
    root_cause = await explained(evidence)
    grounded = ground(root_cause, evidence, known_components(incidents.scope(), evidence))
    assert [claim.complaint for claim in grounded.claims] == [""] * len(root_cause.claims)
    assert all(claim.verified for claim in grounded.claims)
    unchecked = {"claims"}
    assert grounded.model_dump(exclude=unchecked) == root_cause.model_dump(exclude=unchecked)


async def test_pool_exhaustion_is_told_with_its_numbers() -> None:
    root_cause = await explained(incidents.pool_exhaustion())
    assert root_cause.title == "Connection pool of payment-service exhausted under a traffic surge"
    assert "2,040 req/s" in root_cause.mechanism
    assert "from payment-service to checkout-service" in root_cause.mechanism
    assert root_cause.path == (incidents.hop("payment-service", "checkout-service"),)
    assert [rival.component for rival in root_cause.rivals] == ["checkout-service"]
    assert "causal path" in root_cause.rivals[0].against
    assert root_cause.unknowns == ("aws (forbidden): cloudwatch:GetMetricData was refused.",)
    assert root_cause.confidence == "high"


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
    shed, restart, scale = await planned(incidents.pool_exhaustion())
    assert operations(shed) == [
        "reduce_traffic",
        "restart_ecs_task",
        "check_ecs_health",
        "gradual_traffic_restore",
    ]
    assert shed.steps[0].params == {"service": "payment-service", "keep_percent": 40}
    assert shed.steps[3].params["steps_percent"] == [50, 75, 100]
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
    assert [operations(option)[0] for option in full] == ["reduce_traffic", "restart_ecs_task"]


async def test_scaling_is_not_proposed_where_the_present_count_is_unknown() -> None:
    evidence = incidents.pool_exhaustion()
    unknown = evidence.model_copy(update={"findings": evidence.findings[:4]})
    operations = [step.operation for option in await planned(unknown) for step in option.steps]
    assert "scale_ecs_service" not in operations
    request = incidents.plan(unknown, await explained(unknown))
    options = await RulesAnalyst().plan(replace(request, desired_tasks={"payment-service": 3}))
    assert options[2].steps[0].params["desired_count"] == 6


async def test_only_what_menu_and_catalogue_allow() -> None:
    evidence = incidents.pool_exhaustion()
    no_balancer = await planned(evidence, resources=(incidents.resource("payment-service", traffic=False),))
    assert [operations(option)[0] for option in no_balancer] == ["restart_ecs_task", "scale_ecs_service"]
    no_check = await planned(evidence, menu=tuple(e for e in incidents.MENU if e.name != "check_ecs_health"))
    assert operations(no_check[1]) == ["restart_ecs_task"]
    assert await planned(evidence, menu=()) == []
    assert await planned(evidence, resources=()) == []


async def test_a_component_out_of_reach_is_spared_by_its_caller() -> None:
    (spare,) = await planned(incidents.pool_exhaustion(), resources=(incidents.resource("checkout-service"),))
    assert spare.steps[0].params == {"service": "checkout-service", "keep_percent": 50}
    assert "spare payment-service" in spare.title


async def test_bad_deploy_is_rolled_back_first() -> None:
    evidence = incidents.bad_deploy()
    root_cause = await explained(evidence)
    assert "E2" in {eid for claim in root_cause.claims for eid in claim.evidence}
    options = await planned(evidence)
    assert [operations(option)[0] for option in options] == [
        "rollback_ecs_service",
        "restart_ecs_task",
        "reduce_traffic",
    ]
    assert options[2].steps[0].params["keep_percent"] == 50


@pytest.mark.parametrize("minutes", [-90, 3])
async def test_a_deploy_long_before_or_after_the_errors_is_not_blamed(minutes: int) -> None:
    evidence = incidents.bad_deploy()
    deploy = evidence.findings[1].model_copy(update={"at": incidents.START + timedelta(minutes=minutes)})
    moved = evidence.model_copy(update={"findings": (evidence.findings[0], deploy, evidence.findings[2])})
    assert (await explained(moved)).category == "code_fault"


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
    assert await planned(evidence) == []


async def test_an_abstaining_ranking_is_inconclusive_however_high_its_score() -> None:
    evidence = incidents.pool_exhaustion()
    assessed = Assessment(state="incident", trouble=0.9, certainty=0.4, abstains=True, why="Two are as likely.")
    root_cause = await explained(evidence.model_copy(update={"assessment": assessed}))
    assert (root_cause.component, root_cause.confidence) == (None, "inconclusive")
    assert "Two are as likely." in root_cause.mechanism
    sure = assessed.model_copy(update={"abstains": False})
    assert (await explained(evidence.model_copy(update={"assessment": sure}))).component == "payment-service"


async def test_a_weak_first_suspect_is_inconclusive() -> None:
    evidence = incidents.cpu_saturation()
    weak = Suspect(component="payment-service", score=0.05, findings=("E1",))
    root_cause = await explained(evidence.model_copy(update={"suspects": (weak,)}))
    assert (root_cause.component, root_cause.confidence) == (None, "inconclusive")
    assert root_cause.claims


async def test_a_narrow_lead_lowers_confidence() -> None:
    evidence = incidents.cpu_saturation()
    close = (*evidence.suspects, Suspect(component="orders-db", score=0.69, findings=()))
    root_cause = await explained(evidence.model_copy(update={"suspects": close}))
    assert (await explained(evidence)).confidence != root_cause.confidence == "medium"


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
    assert [step.params["service"] for option in options for step in option.steps] == ["payment-service"]


@pytest.mark.parametrize("category", list(Category))
def test_every_category_has_a_playbook_whose_texts_hold_no_numbers(category: Category) -> None:
    playbook = PLAYBOOKS[category]
    assert not any(character.isdigit() for character in playbook.title + playbook.mechanism)


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
