"""The engine as a whole: who is named, what is listed, and what must not change the answer."""

import os
import random
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from collectors.base import Change, Gap, GapReason, LogLine, Series, SeriesRef, Span, Status, Telemetry
from graph.ranking import rank
from graph.ranking.findings import MAX_FINDINGS
from graph.state import Evidence
from tests.graph.ranking import incidents

TELEMETRY = TypeAdapter(list[Telemetry])


def suspects(evidence: Evidence) -> list[str]:
    return [s.component for s in evidence.suspects]


def ranked(telemetry: Sequence[Telemetry], alerted: str) -> Evidence:
    return rank(telemetry, incidents.scope(alerted), incidents.alert(alerted))


@pytest.mark.parametrize("alerted", ["billing", "orders", "gateway"])
def test_exhausted_pool_is_found_where_it_is_and_not_where_it_is_felt(alerted: str) -> None:
    evidence = ranked(incidents.pool_exhaustion(), alerted)
    assert suspects(evidence)[0] == "billing"
    assert evidence.suspects[0].score > 5 * max([s.score for s in evidence.suspects[1:]], default=0.0)


@pytest.mark.parametrize("alerted", ["orders", "gateway"])
def test_bad_deploy_is_found_with_the_change_among_its_findings(alerted: str) -> None:
    evidence = ranked(incidents.bad_deploy(), alerted)
    assert suspects(evidence)[0] == "orders"
    cited = [evidence.finding(eid) for eid in evidence.suspects[0].findings]
    assert any(f is not None and f.kind == "change" and "v2" in f.summary for f in cited)


def test_harmless_deploy_is_listed_and_accuses_nobody() -> None:
    evidence = ranked(incidents.pool_exhaustion(), "gateway")
    change = next(f for f in evidence.findings if f.kind == "change")
    assert change.component == "search"
    assert "nothing unusual" in change.summary
    assert "search" not in suspects(evidence)


def test_noise_that_is_in_the_baseline_too_is_no_finding() -> None:
    evidence = ranked(incidents.pool_exhaustion(), "gateway")
    assert "nightly" not in {f.component for f in evidence.findings}


def test_abstains_when_nothing_deviates() -> None:
    evidence = ranked(incidents.quiet(), "billing")
    assert evidence.suspects == ()
    assert evidence.impact == ()
    assert [f.kind for f in evidence.findings] == ["change"]


def test_path_runs_from_the_cause_up_to_the_alerted_service_and_is_checked() -> None:
    path = ranked(incidents.pool_exhaustion(), "gateway").suspects[0].path
    assert [(h.cause, h.effect) for h in path] == [("billing", "orders"), ("orders", "gateway")]
    assert all(h.structural and h.statistical and h.temporal for h in path)


def test_findings_carry_their_numbers_and_how_to_measure_them_again() -> None:
    evidence = ranked(incidents.pool_exhaustion(), "billing")
    assert [f.id for f in evidence.findings] == [f"E{i}" for i in range(1, len(evidence.findings) + 1)]
    found = next(f for f in evidence.findings if f.signal == "connection_pool_utilization")
    assert found.observed == pytest.approx(98, rel=0.03)
    assert found.baseline == pytest.approx(41, rel=0.03)
    assert found.worse == "up"
    assert found.ref is not None
    assert found.ref.query == "billing.connection_pool_utilization"
    assert len(found.points) == 60
    assert found.at == incidents.INCIDENT
    assert "%" in found.summary
    down = next(f for f in evidence.findings if f.signal == "card_success_rate")
    assert down.worse == "down"
    traffic = next(f for f in evidence.findings if f.signal == "request_rate")
    assert traffic.worse == "neutral"


def test_impact_is_computed_and_backed_by_findings() -> None:
    evidence = ranked(incidents.pool_exhaustion(), "billing")
    by_name = {f.name: f for f in evidence.impact}
    money = by_name["money_lost_usd_per_minute in total"]
    assert money.unit == "USD"
    assert money.value == pytest.approx(5 * 2000, rel=0.05)
    pending = by_name["billing transactions_pending now"]
    assert pending.unit == "transactions"
    assert pending.value == pytest.approx(247, rel=0.05)
    assert by_name["billing error_rate now"].value == pytest.approx(45, rel=0.05)
    failed = by_name["failed requests (request rate × error share)"]
    assert failed.value == pytest.approx(300 * 300 * 0.45, rel=0.05)
    assert all(evidence.finding(eid) is not None for f in evidence.impact for eid in f.evidence)
    assert all(f.evidence for f in evidence.impact)


@pytest.mark.parametrize(("normal", "faulty"), [(-1e308, 1e308), (1e308, -1e308), (1e-9, 1e308)])
def test_evidence_of_enormous_values_can_be_read_back(normal: float, faulty: float) -> None:
    series = (incidents.series("billing", "frobnication", normal, faulty),)
    evidence = ranked([Telemetry(source="metrics", edges=incidents.edges(), series=series)], "billing")
    assert evidence.findings
    assert Evidence.model_validate_json(evidence.model_dump_json()) == evidence


def test_cost_beyond_all_numbers_is_not_told() -> None:
    series = (incidents.series("billing", "revenue_lost_usd_per_minute", 1e290, 1.5e308),)
    evidence = ranked([Telemetry(source="metrics", edges=incidents.edges(), series=series)], "billing")
    assert evidence.findings
    assert Evidence.model_validate_json(evidence.model_dump_json()) == evidence


def test_digest_covers_every_snapshot_and_findings_name_theirs() -> None:
    digests = {"logs": "b" * 64, "metrics": "a" * 64}
    evidence = rank(incidents.bad_deploy(), incidents.scope("orders"), incidents.alert("orders"), digests)
    assert evidence.digest == sha256(("a" * 64 + "\n" + "b" * 64).encode()).hexdigest()
    assert {f.sha256 for f in evidence.findings if f.source == "logs"} == {"b" * 64}


def test_order_of_the_telemetry_does_not_matter() -> None:
    telemetry = incidents.pool_exhaustion()
    expected = ranked(telemetry, "gateway")
    rng = random.Random(7)
    shuffled = [
        t.model_copy(
            update={
                name: tuple(rng.sample(getattr(t, name), len(getattr(t, name))))
                for name in ("series", "logs", "spans", "changes", "edges")
            }
        )
        for t in rng.sample(telemetry, len(telemetry))
    ]
    assert ranked(shuffled, "gateway") == expected


@pytest.mark.parametrize("seed", range(3))
def test_names_of_components_and_texts_of_messages_do_not_matter(seed: int) -> None:
    rng = random.Random(seed)
    names = {s: f"svc-{''.join(rng.choices('bcdfghjkqvxz', k=8))}" for s in incidents.SERVICES}
    texts = {t: "".join(rng.choices("bcdfghjkqvxz", k=9)) for t in ("Connection is not", "charge failed", "slow")}
    data = TELEMETRY.dump_json(incidents.pool_exhaustion()).decode()
    for old, new in {**names, **texts}.items():
        data = data.replace(f'"{old}"', f'"{new}"').replace(f"{old} ", f"{new} ")
    data = data.replace('"metric":"', '"metric":"kqx.vz_')
    scope = incidents.scope("gateway").model_copy(update={"edges": ()})
    alert = incidents.alert(names["gateway"])
    evidence = rank(TELEMETRY.validate_json(data), scope, alert)
    expected = rank(incidents.pool_exhaustion(), scope, incidents.alert("gateway"))
    assert suspects(expected)[0] == "billing"
    assert suspects(evidence) == [names[c] for c in suspects(expected)]
    assert [s.score for s in evidence.suspects] == [s.score for s in expected.suspects]
    assert sorted(f.effect for f in evidence.findings) == sorted(f.effect for f in expected.findings)


def test_hash_seed_does_not_matter() -> None:
    code = (
        "from graph.ranking import rank; from tests.graph.ranking import incidents as i;"
        "print(rank(i.pool_exhaustion(), i.scope('gateway'), i.alert('gateway')).model_dump_json())"
    )
    root = Path(__file__).parents[3]
    answers = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(answers) == 1


def test_gaps_are_passed_on() -> None:
    gap = Gap(source="traces", reason=GapReason.FORBIDDEN, detail="403", mend="apm_read")
    assert ranked([Telemetry(source="traces", gaps=(gap,))], "billing").gaps == (gap,)


def test_list_of_findings_is_bounded_and_every_suspect_has_one() -> None:
    series = tuple(incidents.series(f"s{n:02}", f"errors_{m}", 0, 50 + n + m) for n in range(12) for m in range(20))
    evidence = ranked([Telemetry(source="metrics", series=series)], "s00")
    assert len(evidence.findings) == MAX_FINDINGS
    assert len(evidence.suspects) == 10
    assert all(s.findings for s in evidence.suspects)


def test_missing_tasks_are_a_finding() -> None:
    status = Status(
        component="billing",
        name="healthy_tasks",
        at=incidents.INCIDENT,
        observed=1,
        expected=3,
        detail="2 tasks failed their health check",
    )
    evidence = ranked([Telemetry(source="aws", statuses=(status,), edges=incidents.edges())], "gateway")
    assert suspects(evidence) == ["billing"]
    assert evidence.findings[0].worse == "down"
    assert evidence.findings[0].excerpt == status.detail


HOSTILE = ["", " ", "\x00", "%s {0} \\", "💥" * 300, "a" * 10_000, "E1", "(end)", "../../etc", "<script>"]


def test_hostile_and_degenerate_telemetry_does_not_raise() -> None:
    at = incidents.INCIDENT.timestamp()
    series = [
        Series(
            ref=SeriesRef(source=n, component=n, metric=n, unit=n, query=n),
            epoch_s=times,
            values=tuple(value for _ in times),
        )
        for n in HOSTILE
        for times in ((), (at,), (at - 60, at), (at - 60, at - 30, at, at + 10))
        for value in (0.0, -1.0, 1e308, float("inf"), float("nan"))
    ]
    logs = [
        LogLine(component=n, at=when, level="error", message=n, logger=n, trace_id=n, span_id=n)
        for n in HOSTILE
        for when in (incidents.START, incidents.INCIDENT)
    ]
    spans = [
        Span(
            component=n,
            trace_id=n,
            span_id=n,
            parent_id=n,
            operation=n,
            start_s=start,
            duration_ms=ms,
            kind="client",
            peer=n,
            error=n,
        )
        for n in HOSTILE
        for start in (at - 60, at, 1e18, float("inf"))
        for ms in (0.0, -5.0, 1e12, float("nan"))
    ]
    changes = [Change(component=n, at=incidents.START - timedelta(days=9), kind="other", title=n) for n in HOSTILE]
    statuses = [
        Status(component=n, name=n, at=incidents.INCIDENT, observed=v, expected=0.0)
        for n in HOSTILE
        for v in (0.0, float("inf"), float("nan"))
    ]
    telemetry = Telemetry(
        source="hostile",
        series=tuple(series),
        logs=tuple(logs),
        spans=tuple(spans),
        changes=tuple(changes),
        statuses=tuple(statuses),
        edges=incidents.edges(),
    )
    evidence = ranked([telemetry], "billing")
    assert len(evidence.findings) <= MAX_FINDINGS
    assert all(0.0 <= s.score <= 1.0 for s in evidence.suspects)
    assert Evidence.model_validate_json(evidence.model_dump_json()) == evidence


def test_no_telemetry_at_all() -> None:
    evidence = ranked([], "billing")
    assert (evidence.findings, evidence.suspects, evidence.impact) == ((), (), ())
