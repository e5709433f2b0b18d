"""Time and memory: what the shop remembers, how it catches up, and its own process."""

import json
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import yaml

from app.clock import VirtualClock
from app.simulator import shop as shop_module
from app.simulator.scenarios import SCENARIOS
from app.simulator.shop import AFTERMATH_S, HISTORY_S, RING_TICKS, TICK_S, Shop
from app.simulator.topology import SERVICES
from graph.catalogue import Catalogue

from .conftest import HandClock, SetTheStage, Stage


def remembered(stage: Stage) -> list[float]:
    """Begins of the remembered ticks, seconds since the onset."""
    with stage.shop.live() as now:
        return [tick.at - stage.shop.onset for tick in stage.shop.ticks(0.0, now)]


def test_the_hour_before_the_onset_is_there_at_once(stage: SetTheStage) -> None:
    known = remembered(stage("black-friday", minutes=4))
    assert known[0] == -HISTORY_S
    assert known[-1] == 240 - TICK_S
    assert len(known) == (HISTORY_S + 240) / TICK_S


def test_the_incident_is_kept_for_ever_and_the_rest_is_a_ring(stage: SetTheStage) -> None:
    shop = stage("black-friday", minutes=4)
    shop.advance(5 * 60)
    known = remembered(shop)
    kept = [at for at in known if at < AFTERMATH_S]
    assert kept == [TICK_S * n - HISTORY_S for n in range(int((HISTORY_S + AFTERMATH_S) / TICK_S))]
    assert len(known) - len(kept) == RING_TICKS
    assert known[-1] == 5 * 3600 + 240 - TICK_S


def test_after_days_it_still_answers_with_bounded_memory(stage: SetTheStage) -> None:
    shop = stage("black-friday", minutes=4)
    shop.advance(3 * 24 * 60)
    known = remembered(shop)
    assert len(known) <= RING_TICKS + (HISTORY_S + AFTERMATH_S) / TICK_S
    assert known[-1] == 3 * 86400 + 240 - TICK_S
    assert shop.metric("payment-service", "db_connection_pool_utilization") == pytest.approx(98, abs=1)


def test_nothing_is_known_of_the_future(stage: SetTheStage) -> None:
    shop = stage("black-friday", minutes=4.05)
    assert remembered(shop)[-1] == 240 - TICK_S


def test_the_same_seed_tells_the_same_story(stage: SetTheStage) -> None:
    def told(seed: int, steps: int) -> list[object]:
        shop = stage("black-friday", minutes=2, seed=seed)
        for _ in range(steps):
            shop.advance(2 / steps)
        with shop.shop.live() as now:
            ticks = shop.shop.ticks(0.0, now)
            return [(tick.metrics, shop.shop.sampled(tick)) for tick in ticks[-30:]]

    assert told(1, 1) == told(1, 4)
    assert told(1, 1) != told(2, 1)


def test_samples_are_bounded_and_by_time(stage: SetTheStage) -> None:
    shop = stage("black-friday", minutes=6)
    with shop.shop.live() as now:
        samples = [shop.shop.sampled(tick) for tick in shop.shop.ticks(0.0, now)]
    assert max(len(sample.logs) for sample in samples) <= 40
    assert max(len(sample.spans) for sample in samples) <= 60
    assert all(list(s.logs) == sorted(s.logs, key=lambda log: log.at) for s in samples)
    assert len({log.id for sample in samples for log in sample.logs}) == sum(len(s.logs) for s in samples)


def test_a_clock_of_another_year_is_refused() -> None:
    with pytest.raises(ValueError, match="give a clock with an origin near that"):
        Shop(SCENARIOS["black-friday"], HandClock(datetime(2026, 1, 1, tzinfo=UTC)))


def test_the_catalogue_names_what_the_shop_has() -> None:
    path = Path(shop_module.__file__).with_name("autopilot.yaml")
    content = yaml.safe_load(path.read_text())
    catalogue = Catalogue.model_validate({key: content[key] for key in ("environment", "services")})
    assert set(catalogue.services) == set(SERVICES)
    for name, spec in SERVICES.items():
        listed = catalogue.services[name]
        assert listed.depends_on == spec.calls
        assert (listed.ecs is not None) == bool(spec.tasks)
        if spec.front:
            assert listed.load_balancer
            assert listed.load_balancer.listener_rule_arn == spec.rule_arn
            assert catalogue.target(name, 0).target_group == spec.target_group
            assert listed.load_balancer.target_group_arn == spec.target_group_arn


def test_the_process_tells_its_url_and_ends_cleanly() -> None:
    clock = VirtualClock(SCENARIOS["black-friday"].origin, time.time(), 30)
    command = [sys.executable, "-m", "app.simulator", "--scenario", "black-friday", "--clock", str(clock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            url = json.loads(process.stdout.readline())["url"]
            state = httpx.get(f"{url}/_shop/state", timeout=5).json()
            told = datetime.fromisoformat(state["now"])
            assert abs(told - clock.now()) < timedelta(minutes=5)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) in (0, -signal.SIGTERM)
        finally:
            process.kill()
