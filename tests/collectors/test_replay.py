"""Bundles: written, read back, replayed, and refused with a sentence that helps."""

import gzip
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from collectors.base import Change, Edge, GapReason, LogLine, Scope, Series, SeriesRef, Span, Target, Window
from collectors.replay import BundleError, Manifest, ReplayCollector, load_bundle, write_bundle

T0 = datetime(2024, 1, 1, 12, 0, tzinfo=UTC)
INCIDENT = Window(start=T0, end=T0 + timedelta(minutes=1))
BASELINE = Window(start=T0 - timedelta(minutes=10), end=T0 - timedelta(minutes=9))
REF = SeriesRef(source="replay", component="cart", metric="cpu", unit="%", query="cpu.csv")


def bundle(directory: Path) -> Path:
    return write_bundle(
        directory,
        Manifest(title="t", recorded_from="here", incident=INCIDENT, baseline=(BASELINE,)),
        {"source": "replay", "title": "cart fails", "service": "cart"},
        logs=[
            LogLine(component="cart", at=T0, level="error", message="in the incident", logger="Cart#12"),
            LogLine(component="cart", at=T0 - timedelta(minutes=5), level="info", message="in no window"),
            LogLine(component="cart", at=BASELINE.start, level="info", message="한글"),
        ],
        series=[Series(ref=REF, epoch_s=(T0.timestamp() - 300, T0.timestamp()), values=(1.0, 2.0))],
        spans=[
            Span(component="cart", trace_id="t", span_id="s", operation="GET", start_s=T0.timestamp(), duration_ms=3)
        ],
        changes=[Change(component="cart", at=T0 - timedelta(minutes=3), kind="deploy", title="v2")],
        edges=[Edge(caller="shop", callee="cart", source="traces")],
    )


def scope(window: Window = INCIDENT) -> Scope:
    return Scope(
        service="cart",
        occurred_at=window.start,
        incident=window,
        baseline=(BASELINE,),
        targets=(Target(service="cart"),),
    )


async def test_what_was_written_is_replayed_within_the_windows(tmp_path: Path) -> None:
    collector = ReplayCollector(load_bundle(bundle(tmp_path)))
    found = await collector.collect(scope())
    assert [line.message for line in found.logs] == ["in the incident", "한글"]
    assert found.logs[0].logger == "Cart#12"
    assert (collector.manifest.incident, collector.manifest.baseline) == (INCIDENT, (BASELINE,))
    [series] = found.series
    assert (series.ref, series.epoch_s, series.values) == (REF, (T0.timestamp(),), (2.0,))
    assert len(found.spans) == len(found.changes) == len(found.edges) == 1
    assert found.gaps == ()
    [measured] = await collector.measure([REF], INCIDENT)
    assert (measured.epoch_s, measured.values) == ((T0.timestamp(),), (2.0,))
    later = Window(start=INCIDENT.end, end=INCIDENT.end + timedelta(hours=1))
    assert await collector.measure([REF], later) == []  # a recording does not go on
    assert await collector.measure([REF.model_copy(update={"metric": "memory"})], INCIDENT) == []


async def test_another_time_is_a_gap(tmp_path: Path) -> None:
    later = Window(start=T0 + timedelta(days=1), end=T0 + timedelta(days=1, minutes=1))
    bundle(tmp_path)
    (tmp_path / "logs.jsonl.gz").unlink()
    (tmp_path / "changes.jsonl").unlink()
    found = await ReplayCollector(load_bundle(tmp_path)).collect(scope(later))
    assert [gap.reason for gap in found.gaps] == [GapReason.EMPTY] * 3
    assert found.gaps[0].detail.startswith("logs.jsonl.gz")


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    one, two = bundle(tmp_path / "one"), bundle(tmp_path / "two")
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes()


def put(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda directory: (directory / name).write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda d: (d / "bundle.json").unlink(), r"bundle\.json is missing"),
        (lambda d: (d / "alert.json").unlink(), r"alert\.json cannot be read"),
        (put("bundle.json", b'{"format": "aiops.bundle/2"}'), r"bundle\.json: format"),
        (put("alert.json", b"[]"), r"alert\.json: .*dictionary|object"),
        (put("changes.jsonl", b'\n{"component": "x"}\n'), r"changes\.jsonl, line 2: at: Field required"),
        (put("logs.jsonl.gz", gzip.compress(b"{}\n")), r"logs\.jsonl\.gz, line 1: component"),
        (put("logs.jsonl.gz", b"no gzip"), r"logs\.jsonl\.gz, after line 0: not readable"),
        (put("spans.jsonl.gz", gzip.compress(b"\n" * 999)[:-9]), r"spans\.jsonl\.gz, after line \d+: not readable"),
    ],
)
def test_a_spoilt_bundle_says_where(tmp_path: Path, spoil: Callable[[Path], object], complaint: str) -> None:
    bundle(tmp_path)
    spoil(tmp_path)
    with pytest.raises(BundleError, match=complaint):
        load_bundle(tmp_path)


def test_series_must_ascend_and_match(tmp_path: Path) -> None:
    bundle(tmp_path)
    line = '{"ref":{"source":"replay","component":"c","metric":"m","query":"q"},"epoch_s":[2,1],"values":[1,1]}\n'
    (tmp_path / "metrics.jsonl.gz").write_bytes(gzip.compress(line.encode()))
    with pytest.raises(BundleError, match="record 1: epoch_s does not ascend"):
        load_bundle(tmp_path)
