"""Each fault of the shop: what it does, what helps, what does not, and what harms. Minutes are the shop's own."""

from collections.abc import Callable

import pytest

from app.simulator.aws_errors import AwsError
from app.simulator.balancer import Forward
from app.simulator.scenarios import SCENARIOS
from app.simulator.topology import OVERFLOW_TARGET_GROUP_ARN, SERVICES
from app.simulator.truth import Truth, truth

from .conftest import SetTheStage, Stage

Act = Callable[[Stage], None]


def told(stage: Stage) -> Truth:
    """How the shop's users were served in the last minute."""
    with stage.shop.live() as now:
        return truth(stage.shop.ticks(0.0, now), now - 60.0, now)


def restart(service: str) -> Act:
    def act(stage: Stage) -> None:
        with stage.shop.live() as now:
            stage.shop.cluster.update(service, now, force=True)

    return act


def scale(service: str, desired: int) -> Act:
    def act(stage: Stage) -> None:
        with stage.shop.live() as now:
            stage.shop.cluster.update(service, now, desired=desired)

    return act


def roll_back(service: str) -> Act:
    """By the deployment in flight, or to what ran before."""

    def act(stage: Stage) -> None:
        with stage.shop.live() as now:
            primary = stage.shop.cluster.services[service].primary
            assert primary.source is not None
            if primary.status == "IN_PROGRESS":
                stage.shop.cluster.stop_deployment(primary.id, "ROLLBACK", now)
            else:
                stage.shop.cluster.update(service, now, definition=primary.source.arn)

    return act


def keep(service: str, percent: int) -> Act:
    def act(stage: Stage) -> None:
        spec = SERVICES[service]
        with stage.shop.live():
            weights = {spec.target_group_arn: percent, OVERFLOW_TARGET_GROUP_ARN: 100 - percent}
            stage.shop.balancer.modify(spec.rule_arn, Forward(weights))

    return act


def stop_the_hung_task(stage: Stage) -> None:
    with stage.shop.live() as now:
        hung = next(task for task in stage.shop.cluster.services["catalogue"].tasks if task.hung)
        stage.shop.cluster.stop_task(hung.id, "", now)


def stop_a_healthy_task(stage: Stage) -> None:
    with stage.shop.live() as now:
        well = next(task for task in stage.shop.cluster.services["catalogue"].tasks if not task.hung)
        stage.shop.cluster.stop_task(well.id, "", now)


def stop_the_batch(stage: Stage) -> None:
    with stage.shop.live() as now:
        stage.shop.cluster.stop_task(stage.shop.world.database.batch, "", now)


def revert_the_flags(stage: Stage) -> None:
    with stage.shop.live() as now:
        flags = stage.shop.world.flags
        flags.stop(flags.deployments[-1].number, now, allow_revert=True)


def fail_over_the_database(stage: Stage) -> None:
    with stage.shop.live() as now:
        stage.shop.world.database.failover("", now)


def reboot_the_writer(stage: Stage) -> None:
    with stage.shop.live() as now:
        database = stage.shop.world.database
        database.reboot(database.writer, now)


def fail_over_the_cache(stage: Stage) -> None:
    with stage.shop.live() as now:
        cache = stage.shop.world.cache
        cache.fail_over(cache.replica, now)


def reboot_the_cache(stage: Stage) -> None:
    with stage.shop.live() as now:
        cache = stage.shop.world.cache
        cache.reboot(cache.primary, now)


def raise_the_minimum(stage: Stage) -> None:
    with stage.shop.live() as now:
        stage.shop.world.autoscaling.register("web-gateway", now, 4, 8, None)


def nothing(stage: Stage) -> None:
    """Wait and see."""


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_all_is_well_until_something_happens_and_then_its_alert_fires(stage: SetTheStage, name: str) -> None:
    scenario = SCENARIOS[name]
    first = min([0.0, *((event.at - scenario.occurred_at).total_seconds() / 60.0 for event in scenario.events)])
    shop = stage(name, minutes=first - 1.0)
    assert told(shop).well
    shop.advance((scenario.fires_at - scenario.occurred_at).total_seconds() / 60.0 - first + 1.0)
    assert not told(shop).well
    assert shop.metric(scenario.service, scenario.monitor.metric) > scenario.monitor.threshold


@pytest.mark.parametrize("name", sorted(set(SCENARIOS) - {"passing-trouble"}))
def test_left_alone_it_stays(stage: SetTheStage, name: str) -> None:
    shop = stage(name, minutes=6.0)
    before = told(shop).harm
    shop.advance(25.0)
    assert told(shop).harm == pytest.approx(before, rel=0.25)
    assert not told(shop).well


def test_some_trouble_passes_by_itself(stage: SetTheStage) -> None:
    shop = stage("passing-trouble", minutes=6.0)
    assert not told(shop).services["cart"].well
    shop.advance(14.0)
    after = told(shop)
    assert after.well
    since = after.services["cart"].since
    assert since is not None
    assert (since - SCENARIOS["passing-trouble"].occurred_at).total_seconds() == pytest.approx(18 * 60, abs=20)


@pytest.mark.parametrize(
    ("name", "remedy", "minutes"),
    [
        ("bad-deploy", roll_back("checkout"), 3),
        ("memory-leak", roll_back("cart"), 3),
        ("memory-leak", restart("cart"), 3),  # until it has leaked again
        ("failing-deploy", roll_back("cart"), 3),
        ("connection-leak", roll_back("reporting"), 6),
        ("scale-in", raise_the_minimum, 4),
        ("feature-flag", revert_the_flags, 3),
        ("diverted-traffic", keep("cart", 100), 2),
        ("noisy-batch", stop_the_batch, 8),
        ("stuck-task", stop_the_hung_task, 3),
        ("stuck-task", restart("catalogue"), 4),
        ("slow-database", fail_over_the_database, 12),
        ("cache-node-hung", fail_over_the_cache, 8),
        ("traffic-surge", scale("catalogue", 8), 6),
    ],
)
def test_the_right_remedy_heals(stage: SetTheStage, name: str, remedy: Act, minutes: float) -> None:
    shop = stage(name, minutes=6.0)
    remedy(shop)
    shop.advance(minutes)
    assert told(shop).well, {n: s for n, s in told(shop).services.items() if not s.well}


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("memory-leak", restart("checkout")),
        ("connection-leak", restart("payment-service")),
        ("scale-in", restart("web-gateway")),
        ("scale-in", scale("web-gateway", 4)),  # its range takes it back within a minute
        ("feature-flag", restart("catalogue")),
        ("feature-flag", roll_back("catalogue")),
        ("feature-flag", scale("catalogue", 6)),
        ("diverted-traffic", restart("cart")),
        ("noisy-batch", restart("payment-service")),
        ("noisy-batch", fail_over_the_database),  # it connects to the new writer
        ("stuck-task", stop_a_healthy_task),
        ("slow-database", reboot_the_writer),  # the same volume
        ("slow-database", restart("payment-service")),
        ("cache-node-hung", restart("payment-service")),
        ("provider-outage", restart("payment-service")),
        ("provider-outage", scale("payment-service", 2)),
        ("cold-cache", scale("cart", 6)),
    ],
)
def test_the_wrong_remedy_does_not(stage: SetTheStage, name: str, remedy: Act) -> None:
    shop = stage(name, minutes=6.0)
    before = told(shop).harm
    remedy(shop)
    shop.advance(12.0)
    assert told(shop).harm > 0.7 * before


@pytest.mark.parametrize(
    ("name", "remedy", "minutes"),
    [
        ("cold-cache", restart("catalogue"), 1.5),  # empties the caches that still answer
        ("connection-leak", scale("payment-service", 6), 4),  # more pools for fewer connections
        ("diverted-traffic", keep("cart", 15), 2),
        ("feature-flag", keep("catalogue", 40), 2),  # the page is an error to web-gateway
        ("slow-database", reboot_the_writer, 0.8),
    ],
)
def test_the_harmful_remedy_harms(stage: SetTheStage, name: str, remedy: Act, minutes: float) -> None:
    shop = stage(name, minutes=6.0)
    before = told(shop).harm
    remedy(shop)
    shop.advance(minutes)
    assert told(shop).harm > 1.1 * before


@pytest.mark.parametrize(
    ("name", "remedy", "minutes"),
    [
        ("stuck-task", scale("catalogue", 6), 3),
        ("traffic-surge", keep("web-gateway", 40), 3),
        ("slow-database", keep("payment-service", 20), 14),
    ],
)
def test_some_remedies_help_a_little(stage: SetTheStage, name: str, remedy: Act, minutes: float) -> None:
    shop = stage(name, minutes=6.0)
    before = told(shop).harm
    remedy(shop)
    shop.advance(minutes)
    after = told(shop)
    assert after.harm < 0.8 * before
    assert not after.well


def test_a_rebooted_cache_answers_again_without_its_content(stage: SetTheStage) -> None:
    shop = stage("cache-node-hung", minutes=6.0)
    reboot_the_cache(shop)
    shop.advance(10.0)
    assert told(shop).well


def test_application_auto_scaling_brings_a_count_back_into_its_range(stage: SetTheStage) -> None:
    shop = stage("bad-deploy", minutes=5.0)
    scale("web-gateway", 1)(shop)
    shop.advance(2.0)
    assert shop.shop.cluster.services["web-gateway"].desired == 3


def test_nobody_touches_what_is_not_registered(stage: SetTheStage) -> None:
    shop = stage("bad-deploy", minutes=5.0)
    scale("catalogue", 6)(shop)
    shop.advance(10.0)
    assert shop.shop.cluster.services["catalogue"].desired == 6


def test_a_deployment_of_flags_can_be_reverted_once_and_only_the_last(stage: SetTheStage) -> None:
    shop = stage("feature-flag", minutes=6.0)
    flags = shop.shop.world.flags
    with shop.shop.live() as now:
        assert flags.enabled("semantic_search", now)
        with pytest.raises(AwsError, match="cannot be stopped"):
            flags.stop(12, now, allow_revert=True)
        with pytest.raises(AwsError, match="cannot be stopped"):
            flags.stop(13, now, allow_revert=False)
    revert_the_flags(shop)
    with shop.shop.live() as now:
        assert not flags.enabled("semantic_search", now)
        with pytest.raises(AwsError, match="REVERTED"):
            flags.stop(13, now, allow_revert=True)


def test_turned_away_requests_are_no_harm_but_not_well_either(stage: SetTheStage) -> None:
    shop = stage("bad-deploy", minutes=-5.0)
    keep("web-gateway", 50)(shop)
    shop.advance(2.0)
    after = told(shop)
    assert after.harm < 0.01
    assert after.services["web-gateway"].turned_away_ratio == pytest.approx(0.5)
    assert not after.well


WORDS = {
    "memory-leak": ("cart", "OutOfMemoryError"),
    "failing-deploy": ("cart", "missing required configuration property"),
    "connection-leak": ("payment-service", "too many clients already"),
    "scale-in": ("web-gateway", "worker threads are busy"),
    "feature-flag": ("catalogue", "semantic_search is enabled"),
    "diverted-traffic": ("web-gateway", "Upstream cart answered 503"),
    "cold-cache": ("catalogue", "worker threads are busy"),
    "noisy-batch": ("payment-service", "Connection is not available"),
    "stuck-task": ("web-gateway", "Upstream catalogue answered 504"),
    "slow-database": ("payment-service", "Connection is not available"),
    "cache-node-hung": ("payment-service", "Redis connection timeout"),
    "traffic-surge": ("catalogue", "worker threads are busy"),
    "provider-outage": ("payment-service", "Stripe answered 503"),
    "passing-trouble": ("cart", "I/O wait is high"),
}


@pytest.mark.parametrize("name", sorted(WORDS))
def test_its_logs_tell_of_it_since_then(stage: SetTheStage, name: str) -> None:
    service, words = WORDS[name]
    shop = stage(name, minutes=6.0)
    scenario = SCENARIOS[name]
    began = min([scenario.occurred_at, *(event.at for event in scenario.events)]).timestamp()
    with shop.shop.live() as now:
        said = [
            line.at
            for tick in shop.shop.ticks(0.0, now)
            for line in shop.shop.sampled(tick).logs
            if line.service == service and words in line.message
        ]
    since = [at for at in said if at >= began]
    assert since
    assert len(said) - len(since) < 0.2 * len(since), "an hour before against some minutes"
