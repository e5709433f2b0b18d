"""SlackAlert and ContextCollector: what is looked at, for how long, and what is said of the rest."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from threading import Event
from zoneinfo import ZoneInfo

import pytest

from app.studio import MemorySnapshots
from collectors.base import (
    Document,
    Forbidden,
    GapReason,
    LogLine,
    RateLimited,
    Scope,
    Telemetry,
    Unreachable,
)
from collectors.replay import Bundle, Manifest, ReplayCollector
from graph.catalogue import Catalogue, Service
from graph.deps import SnapshotKey
from graph.state import Decision
from graph.windows import Windows, recorded_windows, standard_windows
from tests.graph.sources import ALERT, NOON, Clock, Source, calls, collect, deps, errors


def nothing(scope: Scope, name: str = "quiet") -> Telemetry:
    return Telemetry(source=name)


def hanging(scope: Scope) -> Telemetry:
    raise AssertionError("it never answers")


# --- what is looked at ---


async def test_neighbours_of_the_catalogue_and_of_earlier_traces_are_looked_at_nearest_first() -> None:
    catalogue = Catalogue(
        services={
            "web": Service(depends_on=("shop",)),
            "shop": Service(depends_on=("db", "cache")),
            "db": Service(tier=1),
            "cache": Service(tier=2),
            "elsewhere": Service(),
        }
    )
    source = Source("quiet", nothing)
    observed = calls(("shop", "payment"), ("payment", "bank.example.com"), ("shop", "stripe.com"))
    state = await collect(deps([source], catalogue=catalogue, observed_edges=observed))
    [scope] = source.scopes
    # what only is called and is in no catalogue cannot be asked about
    assert [(t.service, t.hops) for t in scope.targets] == [
        ("shop", 0),
        ("db", 1),
        ("cache", 1),
        ("payment", 1),
        ("web", 1),
    ]
    assert ("shop", "payment", "traces") in [(e.caller, e.callee, e.source) for e in scope.edges]
    assert scope.symptom.title == "errors"
    assert state["scope"].targets == scope.targets


async def test_neighbours_beyond_the_bound_are_told_and_can_be_asked_for() -> None:
    many = {f"s{n:02}": Service() for n in range(20)}
    catalogue = Catalogue(services={"shop": Service(depends_on=tuple(many)), **many})
    source = Source("quiet", nothing)
    state = await collect(deps([source], catalogue=catalogue))
    assert len(source.scopes[0].targets) == 16
    [gap] = [g for g in state["evidence"].gaps if "neighbours" in g.detail]
    assert gap.detail.startswith("5 neighbours were not looked at: s15, s16")
    await collect(deps([source], catalogue=catalogue), hints=("have a look at s17, please.",))
    assert [t.service for t in source.scopes[1].targets][-1] == "s17"
    assert "s17" not in source.scopes[1].left_out


async def test_a_service_that_a_hint_names_is_looked_at_with_who_calls_it() -> None:
    many = {f"s{n:02}": Service() for n in range(20)}
    catalogue = Catalogue(services={"shop": Service(depends_on=tuple(many)), **many})
    source = Source("quiet", nothing)
    observed = calls(("s17", "s18"), ("s18", "far.away"))
    await collect(
        deps([source], catalogue=catalogue, observed_edges=observed), hints=("what of s17's disk, or s18/s19?",)
    )
    [scope] = source.scopes
    assert [t.service for t in scope.targets][-3:] == ["s17", "s18", "s19"]
    assert {(e.caller, e.callee) for e in scope.edges} >= {("shop", "s17"), ("shop", "s18"), ("s17", "s18")}
    assert "far.away" not in {e.callee for e in scope.edges}


async def test_a_hint_names_services_as_people_do_and_what_it_rules_out_is_not_looked_at() -> None:
    catalogue = Catalogue(services={"shop": Service(), "orders-db": Service(), "redis": Service()})
    source = Source("quiet", nothing)
    observed = calls(("ledger", "orders-db"))  # in no catalogue, but it was seen calling
    hints = ("Orders DB를 봐 주세요, and the LEDGER", "redis is fine")
    await collect(deps([source], catalogue=catalogue, observed_edges=observed), hints=hints)
    [scope] = source.scopes
    assert [t.service for t in scope.targets] == ["shop", "orders-db", "ledger"]
    assert [(e.caller, e.callee) for e in scope.edges] == [("ledger", "orders-db")]


# --- windows that a hint asks for ---


def begins(source: Source) -> list[str]:
    """Where the windows of each look begin."""
    return [f"{scope.incident.start:%d %H:%M}" for scope in source.scopes]


@pytest.mark.parametrize(
    ("hint", "begin"),
    [
        ("it began at 10:40", "20 10:35"),
        ("어제 22시부터", "19 21:55"),
        ("11:58", "20 11:50"),  # as without it
        ("since Monday", "19 11:55"),  # a day is the bound
        ("12:20", "20 11:50"),  # what came after the alert leaves its minute inside
    ],
)
async def test_a_time_in_a_hint_moves_the_begin_of_the_windows(hint: str, begin: str) -> None:
    source = Source("quiet", nothing)
    decision = Decision(plan_revision="p", choice="re_analyze", by="kim", at=NOON + timedelta(minutes=30), hint=hint)
    for _ in range(2):  # after a crash as before it
        await collect(deps([source], clock=Ticking()), round=1, decision=decision, hints=(hint,))
    assert begins(source) == [begin, begin]
    scope = source.scopes[0]
    assert scope.incident.end == NOON + timedelta(minutes=30)
    assert scope.baseline[0].end == scope.incident.start
    assert all(season.end <= scope.baseline[0].start for season in scope.seasonal)
    assert scope.seasonal[-1].start == scope.incident.start - timedelta(days=7)


async def test_trouble_that_a_hint_dates_is_found() -> None:
    began = NOON - timedelta(hours=2)
    source = Source("meter", partial(errors, since=began, source="meter"))
    evidence = (await collect(deps([source]), hints=("since 10:00",)))["evidence"]
    assert begins(source) == ["20 09:55"]
    assert {f.component: f.at for f in evidence.findings if f.kind == "metric"} == {"shop": began}


async def test_a_time_is_read_in_the_installations_zone() -> None:
    source = Source("quiet", nothing)
    await collect(deps([source], zone=ZoneInfo("Asia/Seoul")), hints=("20:10부터",))
    assert begins(source) == ["20 11:05"]


async def test_a_recording_cannot_be_widened_and_says_so() -> None:
    windows = standard_windows(ALERT, Clock().now())
    source = Source("quiet", nothing)
    fixed = recorded_windows(Windows(windows.incident, windows.baseline))
    for hint, gaps in (("since 11:00", 1), ("since 11:58", 0)):
        evidence = (await collect(deps([source], windows=fixed), hints=(hint,)))["evidence"]
        told = [g.detail for g in evidence.gaps if "recording begins at 2026-11-20 11:50 UTC" in g.detail]
        assert len(told) == gaps
    assert begins(source) == ["20 11:50", "20 11:50"]


async def test_a_round_looks_at_the_same_windows_whenever_it_is_run_again() -> None:
    source = Source("quiet", nothing)
    await collect(deps([source], clock=Ticking()))
    assert source.scopes[0].incident.end == NOON + timedelta(minutes=6)  # as SlackAlert chose it
    decision = Decision(plan_revision="p", choice="re_analyze", by="kim", at=NOON + timedelta(minutes=20))
    for _ in range(2):
        await collect(deps([source], clock=Ticking()), round=1, decision=decision)
    assert [s.incident.end for s in source.scopes[1:]] == [decision.at, decision.at]


class Ticking(Clock):
    """A minute passes whenever somebody looks."""

    def __init__(self) -> None:
        self.at = super().now()

    def now(self) -> datetime:
        """UTC."""
        self.at += timedelta(minutes=1)
        return self.at


def test_the_same_hours_yesterday_and_last_week_are_windows_too() -> None:
    windows = standard_windows(ALERT, Clock().now())
    assert (windows.incident.start, windows.incident.end) == (NOON - timedelta(minutes=10), NOON + timedelta(minutes=5))
    assert windows.baseline[0].end == windows.incident.start
    assert [w.start for w in windows.seasonal] == [
        windows.incident.start - timedelta(days=1),
        windows.incident.start - timedelta(days=7),
    ]


# --- widening ---


@pytest.mark.parametrize("minutes_ago", [11, 40])  # at the window's edge; and so old that the baseline has it too
async def test_trouble_older_than_the_window_is_looked_for_further_back_once(minutes_ago: int) -> None:
    began = NOON - timedelta(minutes=minutes_ago)
    source = Source("meter", partial(errors, since=began, source="meter"))
    # a source that fails the second time is taken as it was seen the first time
    first_only = Source("tired", lambda s: fail_later(s, source))
    state = await collect(deps([source, first_only]))
    first, second = source.scopes
    assert second.incident.start == first.incident.start - timedelta(minutes=50)
    assert second.incident.end == first.incident.end
    evidence = state["evidence"]
    assert evidence.looked_at is not None
    assert evidence.looked_at.incident == second.incident
    assert {f.component: f.at for f in evidence.findings if f.kind == "metric"}["shop"] == began
    assert "runbook" in [d.title for d in evidence.documents]


def fail_later(scope: Scope, other: Source) -> Telemetry:
    if len(other.scopes) > 1:
        raise Unreachable("gone")
    return Telemetry(source="tired", documents=(Document(title="runbook", text="restart it"),))


async def test_if_nothing_can_be_read_further_back_the_first_look_stands_and_says_why() -> None:
    found = partial(errors, since=NOON - timedelta(minutes=11), source="meter")
    source = Source("meter", lambda scope: found(scope) if len(source.scopes) == 1 else refused_now())
    evidence = (await collect(deps([source])))["evidence"]
    assert [s.component for s in evidence.suspects] == ["shop"]
    assert evidence.looked_at is not None
    assert evidence.looked_at.incident == source.scopes[0].incident
    told = [(g.source, g.reason) for g in evidence.gaps]
    assert told == [("meter", GapReason.RATE_LIMITED), ("ContextCollector", GapReason.EMPTY)]
    assert all(g.mend for g in evidence.gaps)


def refused_now() -> Telemetry:
    raise RateLimited("reset in 40 s", "try again later")


async def test_what_was_read_the_first_time_only_is_not_held_to_be_new() -> None:
    meter = Source("meter", partial(errors, since=NOON - timedelta(minutes=11), source="meter"))
    usual = LogLine(component="cache", at=NOON - timedelta(minutes=30), level="warning", message="slow eviction")
    lines = tuple(replace(usual, at=usual.at + timedelta(seconds=30 * n)) for n in range(60))
    logs = Source("logs", lambda s: Telemetry(source="logs", logs=lines) if len(logs.scopes) == 1 else refused_now())
    evidence = (await collect(deps([meter, logs])))["evidence"]
    assert [s.component for s in evidence.suspects] == ["shop"]
    assert [f.component for f in evidence.findings] == ["shop"]
    assert [(g.source, g.reason) for g in evidence.gaps] == [
        ("logs", GapReason.RATE_LIMITED),
        ("logs", GapReason.TRUNCATED),
    ]


async def test_trouble_inside_the_window_is_looked_at_once() -> None:
    source = Source("meter", partial(errors, since=NOON - timedelta(minutes=3), source="meter"))
    await collect(deps([source]))
    assert len(source.scopes) == 1


async def test_no_time_for_a_second_look_is_a_gap() -> None:
    source = Source("meter", partial(errors, since=NOON - timedelta(minutes=40), source="meter"))
    state = await collect(deps([source], collect_s=2.0))
    assert len(source.scopes) == 1
    [gap] = state["evidence"].gaps
    assert (gap.reason, gap.mend) == (
        GapReason.TIMEOUT,
        "raise AUTOPILOT_COLLECT_S, or ask for a re-analysis",
    )


async def test_a_recording_has_no_earlier_windows() -> None:
    windows = standard_windows(ALERT, Clock().now())
    manifest = Manifest(title="t", recorded_from="r", incident=windows.incident, baseline=windows.baseline)
    began = errors(scope_of(windows), since=NOON - timedelta(minutes=40), source="replay")
    replay = ReplayCollector(Bundle(manifest=manifest, alert={}, series=began.series))
    fixed = recorded_windows(Windows(windows.incident, windows.baseline))
    state = await collect(deps([replay], windows=fixed))
    assert state["evidence"].looked_at is not None
    assert state["evidence"].looked_at.incident == windows.incident


def scope_of(windows: Windows) -> Scope:
    return Scope(service="shop", occurred_at=NOON, incident=windows.incident, baseline=windows.baseline, targets=())


# --- bounds, and what is missing ---


async def test_all_sources_are_read_at_once_and_a_hanging_one_costs_the_bound_only() -> None:
    loop = asyncio.get_running_loop()
    sources = [Source(f"s{n}", partial(nothing, name=f"s{n}"), after_s=0.3) for n in range(8)]
    stuck = Source("stuck", hanging, after_s=3600)
    began = loop.time()
    state = await collect(deps([*sources, stuck], collect_s=1.0))
    assert loop.time() - began < 8 * 0.3  # one after the other would take that and the bound
    [gap] = state["evidence"].gaps
    assert (gap.source, gap.reason) == ("stuck", GapReason.TIMEOUT)
    assert "autopilot doctor" in gap.mend
    assert all(s.scopes[0].within_s < 1.0 for s in sources)


async def test_a_source_is_told_the_time_that_it_has_itself() -> None:
    source = Source("quiet", nothing)
    source.timeout_s = 5.0
    await collect(deps([source], collect_s=60.0))
    assert source.scopes[0].within_s < 5.0


async def test_threads_that_hang_in_a_source_do_not_hold_up_the_step() -> None:
    ended = Event()

    class Hanging(Source):
        async def collect(self, scope: Scope) -> Telemetry:
            await asyncio.gather(*(asyncio.to_thread(ended.wait, 30) for _ in range(64)))
            return nothing(scope)

    meter = Source("meter", partial(errors, since=NOON - timedelta(minutes=3), source="meter"))
    try:
        async with asyncio.timeout(10):
            state = await collect(deps([meter, Hanging("stuck", nothing)], collect_s=1.0))
    finally:
        ended.set()
    assert [s.component for s in state["evidence"].suspects] == ["shop"]


async def test_if_a_snapshot_cannot_be_stored_no_source_is_left_running() -> None:
    class Full(MemorySnapshots):
        async def put(self, key: SnapshotKey, telemetry: Telemetry) -> str:
            raise OSError("disk full")

    before = len(asyncio.all_tasks())
    with pytest.raises(OSError, match="disk full"):
        await collect(deps([Source("quick", nothing), Source("slow", nothing, after_s=3600)], snapshots=Full()))
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == before


async def test_if_no_source_can_be_read_the_analysis_goes_on_with_the_gaps() -> None:
    def refused(scope: Scope) -> Telemetry:
        raise Forbidden("403", "give the key the scope logs_read_data")

    def broken(scope: Scope) -> Telemetry:
        raise KeyError("a defect")

    state = await collect(deps([Source("datadog", refused), Source("aws", broken)]))
    evidence = state["evidence"]
    assert evidence.suspects == ()
    assert [(g.source, g.reason, g.mend) for g in evidence.gaps] == [
        ("datadog", GapReason.FORBIDDEN, "give the key the scope logs_read_data"),
        ("aws", GapReason.FAILED, "report this defect, with the log"),
    ]


async def test_a_source_that_was_read_before_a_crash_is_not_read_again() -> None:
    source = Source("meter", partial(errors, since=NOON - timedelta(minutes=40), source="meter"))
    same = deps([source])
    first = await collect(same)
    again = await collect(same)
    assert len(source.scopes) == 2  # the look and the wider one, once each
    assert again["evidence"] == first["evidence"]


async def test_secrets_do_not_reach_the_evidence() -> None:
    def leaking(scope: Scope) -> Telemetry:
        raise Forbidden("401 for user kim@example.com, password=hunter2hunter2")

    state = await collect(deps([Source("datadog", leaking)]))
    told = state["evidence"].model_dump_json()
    assert "kim@example.com" not in told
    assert "hunter2hunter2" not in told
