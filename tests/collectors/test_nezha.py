"""The Nezha importer, on a few made-up rows of its format, and on the real archive where there is one."""

import io
import json
import tarfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.evaluation import Case
from app.nezha import NezhaError, case, cases, import_case, unpacked
from collectors.base import Scope, Target
from collectors.replay import ReplayCollector, load_bundle
from graph.state import Alert

REAL = Path(__file__).parents[3] / "shared" / "data" / "nezha-trainticket-2023-01-29.tar.xz"
CASE = "2023-01-29 08:43:04"
FRONT, SEAT = "ts-front-service-5c95b49cff-aaaaa", "ts-seat-service-694fdc47c4-bbbbb"
LOG_HEAD = "Timestamp,TimeUnixNano,Node,PodName,Container,TraceID,SpanID,Log"
TRACE_HEAD = "TraceID,SpanID,ParentID,PodName,OperationName,StartTimeUnixNano,EndTimeUnixNano,Duration"
METRIC_HEAD = "Time,TimeStamp,PodName,CpuUsageRate(%),PodClientLatencyP90(s)"


def epoch(clock: str) -> int:
    return int(datetime.fromisoformat(f"2023-01-29T{clock}+00:00").timestamp())


def log_row(clock: str, pod: str, text: str) -> str:
    record = json.dumps({"log": f"{text}\n", "stream": "stdout"}).replace('"', '""')
    return f'2023-01-29T{clock}Z,-6795364578871345152,33.1.1.1,{pod},server,t1,s1,"{record}"'


def trace_rows(clock: str) -> list[str]:
    start = epoch(clock) * 10**9
    return [
        f"t1,s1,root,{FRONT},/*,{start},{start + 5_000_000},5000",
        f"t1,s2,s1,{FRONT},HTTP GET,{start + 1},{start + 4_500_001},4500",
        f"t1,s3,s2,{SEAT},SeatController.get,{start + 2},{start + 4_000_002},4000",
    ]


def write(path: Path, head: str, rows: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "nezha"
    normal, fault = root / "construct_data" / "2023-01-29", root / "rca_data" / "2023-01-29"
    info = "16:50:01.1 INFO  c.Seat#12 TraceID: t1 SpanID: s1 [get] ok"
    write(normal / "log" / "08_50_log.csv", LOG_HEAD, [log_row("08:50:01.1", SEAT, info)])
    write(normal / "trace" / "08_50_trace.csv", TRACE_HEAD, trace_rows("08:50:01"))
    rows = [
        log_row("08:44:30.25", SEAT, "16:44:30.2 ERROR c.Seat#99 TraceID: t1 SpanID: s1 no seat\n\tat c.Seat"),
        log_row("08:44:30.2", FRONT, "plain text"),
        # torn: the end of another row stuck to this one
        log_row("08:44:31.1", SEAT, info) + 'ulate\\n"",""stream"":""stdout""",tail',
        log_row("08:44:32", SEAT, "x").replace("{", "<"),
        "too,short",
    ]
    write(fault / "log" / "08_45_log.csv", LOG_HEAD, rows)
    write(fault / "trace" / "08_45_trace.csv", TRACE_HEAD, trace_rows("08:44:29"))
    metrics = [
        f"x,{epoch(clock)},{SEAT},{cpu},{latency}"
        for clock, cpu, latency in [
            ("08:44:09", 1, 1),  # tells of the minute before the fault window
            ("08:44:59", 95.5, "NaN"),
            ("08:50:31", 2, 0.1),
            ("09:30:00", 3, 0.1),
        ]
    ]
    write(fault / "metric" / f"{SEAT}_metric.csv", METRIC_HEAD, metrics)
    front = f"x,{epoch('08:44:59')},Frontend,77"
    write(fault / "metric" / "front_service.csv", "Time,TimeStamp,ServiceName,SuccessRate(%)", [front])
    label = {"inject_time": CASE, "inject_pod": SEAT, "inject_type": "secretlabel"}
    (fault / "2023-01-29-fault_list.json").write_text(json.dumps({"08": [label]}))
    return root


def test_cases(data: Path) -> None:
    assert cases(data) == [CASE]


async def test_a_case_becomes_a_bundle(data: Path, tmp_path: Path) -> None:
    bundle = load_bundle(import_case(data, CASE, tmp_path / "out"))
    logs = [(line.component, line.level, line.logger, line.message) for line in bundle.logs]
    assert logs == [
        ("ts-seat-service", "info", "c.Seat#12", "[get] ok"),
        ("ts-front-service", "info", "", "plain text"),
        ("ts-seat-service", "error", "c.Seat#99", "no seat\n\tat c.Seat"),
        ("ts-seat-service", "info", "c.Seat#12", "[get] ok"),
    ]
    assert bundle.logs[1].at == datetime(2023, 1, 29, 8, 44, 30, 200000, UTC)
    assert [(s.component, s.kind, s.peer, s.error) for s in bundle.spans[:3]] == [
        ("ts-front-service", "server", "", ""),
        ("ts-front-service", "client", "ts-seat-service", ""),
        ("ts-seat-service", "server", "", ""),
    ]
    assert bundle.spans[0].duration_ms == 5
    series = {(s.ref.component, s.ref.metric, s.ref.statistic, s.ref.unit): s.values for s in bundle.series}
    assert series == {
        ("ts-front-service", "SuccessRate", "avg", "%"): (77.0,),
        ("ts-seat-service", "CpuUsageRate", "avg", "%"): (95.5, 2.0),
        ("ts-seat-service", "PodClientLatency", "p90", "s"): (0.1,),
    }
    assert [(e.caller, e.callee) for e in bundle.edges] == [("ts-front-service", "ts-seat-service")]
    alert = Alert.model_validate(bundle.alert)
    assert (alert.service, alert.occurred_at) == ("ts-front-service", bundle.manifest.incident.start)
    scope = Scope(
        service=alert.service,
        occurred_at=alert.occurred_at,
        incident=bundle.manifest.incident,
        baseline=bundle.manifest.baseline,
        targets=(Target(service=alert.service),),
    )
    replayed = await ReplayCollector(bundle).collect(scope)
    assert (replayed.logs, replayed.series, replayed.spans) == (bundle.logs, bundle.series, bundle.spans)


def test_a_case_in_memory_is_the_bundle_that_is_written(data: Path, tmp_path: Path) -> None:
    assert case(data, CASE) == Case.of(load_bundle(import_case(data, CASE, tmp_path / "out")))


def test_the_label_is_in_no_file(data: Path, tmp_path: Path) -> None:
    out = import_case(data, CASE, tmp_path / "out")
    for name in ("bundle.json", "alert.json"):
        text = (out / name).read_text()
        assert "secretlabel" not in text
        assert "seat" not in text
    assert not any(b"secretlabel" in path.read_bytes() for path in out.iterdir())


def test_an_archive_gives_the_same_bundle(data: Path, tmp_path: Path) -> None:
    archive = tmp_path / "nezha.tar.xz"
    with tarfile.open(archive, "w:xz") as tar:
        for path in sorted(data.rglob("*")):
            tar.add(path, path.relative_to(data), recursive=False)
    assert cases(archive) == [CASE]
    one, two = import_case(data, CASE, tmp_path / "one"), import_case(archive, CASE, tmp_path / "two")
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes()


def test_an_archive_cannot_write_outside(tmp_path: Path) -> None:
    archive = tmp_path / "evil.tar"
    with tarfile.open(archive, "w") as tar:
        member = tarfile.TarInfo("rca_data/2023-01-29/../../../metric/evil.csv")
        tar.addfile(member, io.BytesIO())
    with pytest.raises(NezhaError, match="outside"):
        import_case(archive, CASE, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.rglob("evil.csv"))


@pytest.mark.parametrize(
    ("case", "complaint"),
    [
        ("yesterday", "is no case"),
        ("2023-13-45 09:00:00", "is no case"),
        ("2023-01-29 09:00:00", "is no case of"),
        ("2023-02-01 09:00:00", "is no case of"),
    ],
)
def test_unknown_cases(data: Path, tmp_path: Path, case: str, complaint: str) -> None:
    with pytest.raises(NezhaError, match=complaint):
        import_case(data, case, tmp_path / "out")


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [("rca_data/*/log/*", "08_45_log.csv is missing"), ("construct_data/*/*/*", "no construct")],
)
def test_missing_files(data: Path, tmp_path: Path, pattern: str, complaint: str) -> None:
    for path in data.glob(pattern):
        path.unlink()
    with pytest.raises(NezhaError, match=complaint):
        import_case(data, CASE, tmp_path / "out")


def test_a_bundle_that_cannot_be_written(data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(NezhaError, match="out cannot be written"):
        import_case(data, CASE, tmp_path / "out")


def test_times_that_are_none_and_columns_that_are_missing(data: Path) -> None:
    before = case(data, CASE)
    trace = data / "rca_data" / "2023-01-29" / "trace" / "08_45_trace.csv"
    strange = ["²", "9" * 30, "-1", "", "x"]
    torn = [f"t9,s9{n},root,{FRONT},/*,{at},{at},1" for n, at in enumerate(strange)]
    trace.write_text("\n".join([trace.read_text().rstrip("\n"), *torn]) + "\n", encoding="utf-8")
    assert case(data, CASE) == before
    metric = data / "rca_data" / "2023-01-29" / "metric" / "front_service.csv"
    metric.write_text("Time,SuccessRate(%)\nx,77\n")
    with pytest.raises(NezhaError, match=r"front_service.csv has no column TimeStamp"):
        case(data, CASE)


def test_an_archive_is_unpacked_for_the_days_that_are_wanted(data: Path, tmp_path: Path) -> None:
    (data / "rca_data" / "2023-01-29" / "trace" / "readme.txt").write_text("not needed")
    archive = tmp_path / "nezha.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(data / "rca_data", "rca_data")
        tar.add(data / "construct_data", "construct_data")
    with unpacked(archive, ["2023-01-29"]) as (root, ids):
        assert ids == [CASE]
        assert case(root, CASE) == case(data, CASE)
        assert not list(root.rglob("readme.txt"))
    assert not root.exists()
    with pytest.raises(NezhaError, match="holds no list of faults of 2023-01-30"), unpacked(archive, ["2023-01-30"]):
        pass


@pytest.mark.parametrize("text", ["no json", "[]", '{"08": [{}]}', '{"08": 1}', '{"08": [{"inject_time": 5}]}'])
def test_a_broken_list_of_faults(data: Path, text: str) -> None:
    (file,) = data.glob("rca_data/*/*-fault_list.json")
    file.write_text(text)
    with pytest.raises(NezhaError, match="is no list of faults"):
        cases(data)


@pytest.mark.skipif(not REAL.exists(), reason=f"the Nezha archive is not at {REAL}")
def test_the_real_archive(tmp_path: Path) -> None:
    assert len(cases(REAL)) == 28
    bundle = load_bundle(import_case(REAL, CASE, tmp_path))
    assert (len(bundle.logs), len(bundle.spans), len(bundle.series)) == (5284, 9998, 879)
    assert bundle.alert["service"] == "ts-gateway-service"
    incident, [baseline] = bundle.manifest.incident, bundle.manifest.baseline
    windows = [(w.start.timestamp(), w.end.timestamp()) for w in (incident, baseline)]
    times = [line.at.timestamp() for line in bundle.logs] + [span.start_s for span in bundle.spans]
    times += [at for series in bundle.series for at in series.epoch_s]
    assert all(any(start <= at < end for start, end in windows) for at in times)
