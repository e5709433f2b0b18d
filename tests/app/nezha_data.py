"""A small Nezha-like data set: three services, one fault that shows in logs, spans and CPU."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

DAY, CASE, NORMAL, FAULT = "2023-01-29", "2023-01-29 08:43:04", "08:50", "08:45"
PODS = {name: f"ts-{name}-service-5c95b49cff-aaaaa" for name in ("gateway", "order", "seat")}
LOG_HEAD = "Timestamp,TimeUnixNano,Node,PodName,Container,TraceID,SpanID,Log"
TRACE_HEAD = "TraceID,SpanID,ParentID,PodName,OperationName,StartTimeUnixNano,EndTimeUnixNano,Duration"
METRIC_HEAD = "Time,TimeStamp,PodName,CpuUsageRate(%),PodClientLatencyP90(s)"
REQUESTS = 30  # a minute


def write(root: Path, day: str = DAY) -> Path:
    """The seat service fails in every second request of the fault minute, before it answers."""
    normal, fault = root / "construct_data" / day, root / "rca_data" / day
    _minute(normal, day, NORMAL, failing=False)
    _minute(fault, day, FAULT, failing=True)
    for name, pod in PODS.items():
        cpu = 95 if name == "seat" else 11
        rows = [f"x,{_epoch(day, NORMAL) + 59},{pod},10,0.02", f"x,{_epoch(day, FAULT) + 59},{pod},{cpu},0.03"]
        _write(fault / "metric" / f"{pod}_metric.csv", METRIC_HEAD, rows)
    label = {"inject_time": CASE.replace(DAY, day), "inject_pod": PODS["seat"], "inject_type": "secretlabel"}
    (fault / f"{day}-fault_list.json").write_text(json.dumps({"08": [label]}))
    return root


def _minute(folder: Path, day: str, clock: str, *, failing: bool) -> None:
    stamp, start_ns = clock.replace(":", "_"), _epoch(day, clock) * 10**9
    logs, spans = [], []
    for number in range(REQUESTS):
        at = start_ns + number * 2 * 10**9 - (number % 3) * 10**6
        trace = f"{clock[-1]}{number:031x}"
        failed = failing and number % 2 == 0
        spans += _spans(trace, at, slow_ms=40 if failed else 0)
        told = ["ERROR c.SeatServiceImpl#77 no seat is left", "WARN  c.SeatController#30 giving up"]
        said = ["INFO  c.SeatServiceImpl#70 seat found", "INFO  c.SeatController#31 answered"]
        for step, (name, text) in enumerate(
            [
                ("gateway", "INFO  c.Gateway#10 request came in"),
                ("order", "INFO  c.OrderController#20 order wanted"),
                ("seat", "INFO  c.SeatController#29 seat wanted"),
                *(("seat", line) for line in (told if failed else said)),
                ("order", "ERROR c.OrderController#25 no order" if failed else "INFO  c.OrderController#24 ordered"),
            ]
        ):
            logs.append(_log_row(at + (step + 1) * 10**6, name, trace, text))
    _write(folder / "log" / f"{stamp}_log.csv", LOG_HEAD, logs)
    _write(folder / "trace" / f"{stamp}_trace.csv", TRACE_HEAD, spans)


def _spans(trace: str, at: int, slow_ms: int) -> list[str]:
    gateway, order, seat = PODS.values()
    slow = slow_ms * 10**6

    def span(name: str, parent: str, pod: str, operation: str, after_ms: int, ms: int) -> str:
        start = at + after_ms * 10**6
        end = start + ms * 10**6 + slow
        above = trace[-4:] + parent if parent else "root"
        return f"{trace},{trace[-4:]}{name},{above},{pod},{operation},{start},{end},{(end - start) // 1000}"

    return [
        span("a", "", gateway, "/*", 0, 20),
        span("b", "a", gateway, "HTTP POST", 1, 18),
        span("c", "b", order, "OrderController.order", 2, 16),
        span("d", "c", order, "HTTP POST", 3, 13),
        span("e", "d", seat, "SeatController.seat", 4, 11),
    ]


_SPAN_OF = {"gateway": "a", "order": "c", "seat": "e"}


def _log_row(at_ns: int, name: str, trace: str, text: str) -> str:
    moment = datetime.fromtimestamp(at_ns // 10**9, UTC)
    level, logger, message = text.split(None, 2)
    span = f"{trace[-4:]}{_SPAN_OF[name]}"
    line = f"{moment:%H:%M:%S} {level:<5} {logger} TraceID: {trace} SpanID: {span} {message}\n"
    record = json.dumps({"log": line, "stream": "stdout"}).replace('"', '""')
    fraction = f"{at_ns % 10**9:09}"
    return f'{moment:%Y-%m-%dT%H:%M:%S}.{fraction}Z,{at_ns},33.1.1.1,{PODS[name]},server,{trace},{span},"{record}"'


def _epoch(day: str, clock: str) -> int:
    return int(datetime.fromisoformat(f"{day}T{clock}:00+00:00").timestamp())


def _write(path: Path, head: str, rows: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
