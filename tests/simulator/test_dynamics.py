"""What remedies do to the shop, over minutes of its own time."""

import pytest

from app.simulator.balancer import Forward
from app.simulator.topology import OVERFLOW_TARGET_GROUP_ARN, SERVICES

from .conftest import SetTheStage, Stage

LOSS = "revenue_lost_usd_per_minute"
PLATEAU = {
    "db_connection_pool_utilization": 98.0,
    "db_connection_timeouts": 156.0,
    "redis_connection_errors": 89.0,
    "redis_memory_usage_percent": 97.1,
    "stripe_api_success_rate": 52.3,
    "transactions_pending": 247.0,
    LOSS: 2075.0,
}


def keep(stage: Stage, percent: int, service: str = "payment-service") -> None:
    spec = SERVICES[service]
    with stage.shop.live():
        weights = {spec.target_group_arn: percent, OVERFLOW_TARGET_GROUP_ARN: 100 - percent}
        stage.shop.balancer.modify(spec.rule_arn, Forward(weights))


def update(
    stage: Stage, service: str, *, desired: int | None = None, definition: str | None = None, force: bool = False
) -> None:
    with stage.shop.live() as now:
        stage.shop.cluster.update(service, now, desired=desired, definition=definition, force=force)


def loss(stage: Stage) -> float:
    return stage.metric("payment-service", LOSS, ticks=6)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_overload_settles_where_it_was_seen(stage: SetTheStage, seed: int) -> None:
    shop = stage("black-friday", minutes=5, seed=seed)
    for name, expected in PLATEAU.items():
        assert shop.metric("payment-service", name, ticks=12) == pytest.approx(expected, rel=0.03), name
    assert shop.healthy("payment-service") == 2
    assert len(shop.shop.cluster.services["payment-service"].running(shop.clock.now().timestamp())) == 3


def test_before_the_onset_all_is_well(stage: SetTheStage) -> None:
    shop = stage("black-friday", minutes=-1)
    assert shop.metric("payment-service", "db_connection_pool_utilization") < 20
    assert shop.metric("payment-service", "db_connection_timeouts") < 1
    assert shop.metric("payment-service", "stripe_api_success_rate") > 98
    assert loss(shop) < 10
    assert shop.healthy("payment-service") == 3


def test_callers_suffer_less_and_datastores_look_idle(stage: SetTheStage) -> None:
    shop = stage("black-friday", minutes=5)
    payment, checkout, gateway = (
        shop.metric(name, "error_rate_percent") for name in ("payment-service", "checkout", "web-gateway")
    )
    assert payment > 50 > 25 > checkout > 5 > gateway > 1
    assert 45 < shop.metric("orders-db", "cpu_utilization_percent", ticks=12) < 62
    assert shop.metric("redis", "cpu_utilization_percent") < 60


def test_left_alone_it_stays_bad(stage: SetTheStage) -> None:
    shop = stage("black-friday", minutes=5)
    shop.advance(60)
    assert loss(shop) == pytest.approx(2075, rel=0.05)


@pytest.mark.parametrize("share", [30, 40, 50])
def test_shedding_then_restarting_then_restoring_heals(stage: SetTheStage, share: int) -> None:
    shop = stage("black-friday", minutes=6)
    keep(shop, share)
    update(shop, "payment-service", force=True)
    shop.advance(2)
    assert shop.healthy("payment-service") == 3
    for percent in (50, 75, 100):
        keep(shop, percent)
        shop.advance(1)
    shop.advance(10)
    assert loss(shop) < 10
    assert shop.metric("payment-service", "requests_per_second") == pytest.approx(3.0, rel=0.1)
    assert shop.metric("payment-service", "db_connection_pool_utilization") < 45
    assert shop.metric("payment-service", "redis_memory_usage_percent") < 85
    assert shop.metric("payment-service", "db_connection_timeouts") < 1
    assert shop.metric("payment-service", "error_rate_percent") < 1
    assert shop.metric("checkout", "error_rate_percent") < 1
    assert shop.healthy("payment-service") == 3


def test_restarting_alone_helps_for_minutes_then_relapses(stage: SetTheStage) -> None:
    shop = stage("black-friday", minutes=6)
    before = loss(shop)
    update(shop, "payment-service", force=True)
    best = before
    for _ in range(6):
        shop.advance(0.5)
        best = min(best, loss(shop))
    assert best < 0.75 * before
    shop.advance(6)
    assert loss(shop) == pytest.approx(before, rel=0.05)


def test_shedding_alone_helps_only_while_shed(stage: SetTheStage) -> None:
    shop = stage("black-friday", minutes=6)
    before = loss(shop)
    keep(shop, 40)
    shop.advance(4)
    assert loss(shop) < 0.05 * before
    for percent in (50, 75, 100):
        keep(shop, percent)
        shop.advance(1)
    shop.advance(6)
    assert loss(shop) == pytest.approx(before, rel=0.05)


def test_shedding_at_the_edge_sheds_payments_too(stage: SetTheStage) -> None:
    shop = stage("black-friday", minutes=6)
    keep(shop, 40, "web-gateway")
    shop.advance(4)
    assert loss(shop) < 100


@pytest.mark.parametrize("tasks", [4, 6])
def test_scaling_out_exhausts_the_database_and_scaling_in_undoes_it(stage: SetTheStage, tasks: int) -> None:
    shop = stage("black-friday", minutes=6)
    before = loss(shop)
    update(shop, "payment-service", desired=tasks)
    shop.advance(4)
    assert loss(shop) > 1.1 * before
    with shop.shop.live():
        lines = [line.message for tick in shop.shop.latest(6) for line in shop.shop.sampled(tick).logs]
    assert any("too many clients already" in line for line in lines)
    update(shop, "payment-service", desired=3)
    shop.advance(6)
    assert loss(shop) == pytest.approx(before, rel=0.05)


def test_restarting_everything_at_once_is_worse_for_a_while(stage: SetTheStage) -> None:
    shop = stage("black-friday", minutes=6)
    before = shop.metric("web-gateway", "error_rate_percent")
    with shop.shop.live():
        names = list(shop.shop.cluster.services)
    for name in names:
        update(shop, name, force=True)
    worst = 0.0
    for _ in range(6):
        shop.advance(0.5)
        worst = max(worst, shop.metric("web-gateway", "error_rate_percent"))
    assert worst > 1.5 * before
    shop.advance(8)
    assert shop.metric("web-gateway", "error_rate_percent") < 1.2 * before


@pytest.mark.parametrize("service", ["notification", "catalogue"])
def test_touching_something_else_changes_nothing(stage: SetTheStage, service: str) -> None:
    shop = stage("black-friday", minutes=6)
    before = loss(shop)
    update(shop, service, force=True)
    shop.advance(5)
    assert loss(shop) == pytest.approx(before, rel=0.05)


def test_a_bad_release_breaks_one_path_only(stage: SetTheStage) -> None:
    shop = stage("bad-deploy", minutes=5)
    assert shop.metric("checkout", "error_rate_percent", ticks=12) == pytest.approx(35, rel=0.1)
    assert shop.metric("checkout", "latency_p95_ms", ticks=12) == pytest.approx(3100, rel=0.1)
    assert shop.metric("payment-service", "error_rate_percent") < 1


def test_rolling_back_the_release_heals(stage: SetTheStage) -> None:
    shop = stage("bad-deploy", minutes=5)
    with shop.shop.live():
        previous = shop.shop.cluster.services["checkout"].primary.source
    assert previous is not None
    update(shop, "checkout", definition=previous.arn)
    shop.advance(2.5)
    assert shop.metric("checkout", "error_rate_percent") < 1


@pytest.mark.parametrize(("force", "desired"), [(True, None), (False, 6)])
def test_restarting_or_scaling_a_bad_release_does_nothing(stage: SetTheStage, force: bool, desired: int | None) -> None:
    shop = stage("bad-deploy", minutes=5)
    update(shop, "checkout", force=force, desired=desired)
    shop.advance(4)
    assert shop.metric("checkout", "error_rate_percent", ticks=12) == pytest.approx(35, rel=0.1)


def test_shedding_a_bad_release_lowers_only_the_numbers(stage: SetTheStage) -> None:
    shop = stage("bad-deploy", minutes=5)
    keep(shop, 40, "checkout")
    shop.advance(2)
    assert shop.metric("checkout", "error_rate_percent", ticks=12) == pytest.approx(35, rel=0.1)
    assert shop.metric("checkout", "requests_per_second", ticks=12) == pytest.approx(1.2, rel=0.1)
