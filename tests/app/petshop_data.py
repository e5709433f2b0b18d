"""A small PetShop-like data set: five nodes, one of them slow or failing during each issue."""

import csv
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

NODES = ("front", "shop", "search", "db", "queue")
CALLS = (("front", "shop"), ("front", "search"), ("shop", "db"), ("shop", "queue"))
STEP_S = 300
NORMAL_FROM, ISSUE_FROM = 1_700_000_000, 1_690_000_000  # the history is of another time than the issues
ABOVE = {"front": 1.0, "shop": 0.6, "search": 0.2, "db": 0.1, "queue": 0.05}  # usual seconds

Row = list[str]


def write(root: Path, scenario: str = "low_traffic", split: str = "train", issues: Sequence[str] = ("db",)) -> Path:
    """One issue for each culprit; the folder of the scenario."""
    folder = root / scenario
    write_rows(folder / "graph.csv", graph())
    write_rows(folder / "noissue" / "metrics.csv", frame(NORMAL_FROM, 60))
    for number, culprit in enumerate(issues):
        issue = folder / split / f"issue_{number}"
        start = ISSUE_FROM + number * 7200
        write_rows(issue / "metrics.csv", frame(start, 5, culprit))
        target = {"node": "front", "metric": "latency", "agg": "Average", "timestamp": start + 450}
        label = {"target": target, "root_cause": {"node": culprit, "metric": None}}
        (issue / "target.json").write_text(json.dumps(label))
    return folder


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def graph() -> list[Row]:
    return [["", *NODES], *([node, *("1" if (node, other) in CALLS else "0" for other in NODES)] for node in NODES)]


def frame(start_s: int, rows: int, culprit: str = "") -> list[Row]:
    """Header and rows; from the second row on the culprit is two seconds slower, and so is what waits for it."""
    slow = _waiting_for(culprit)
    columns = [
        (node, metric, statistic)
        for node in NODES
        for metric, statistic in (
            ("latency", "Average"),
            ("latency", "p95"),
            ("availability", "Average"),
            ("requests", "Sum"),
        )
    ]
    rng = random.Random(f"{start_s}{culprit}")
    head = [
        [name, *(column[i] for column in columns)] for i, name in enumerate(("microservice", "metric", "statistic"))
    ]
    body = [
        [f"{start_s + number * STEP_S}.0", *(_cell(*column[:2], slow if number else {}, rng) for column in columns)]
        for number in range(rows)
    ]
    return [*head, ["unix_timestamp", *("" for _ in columns)], *body]


def _waiting_for(culprit: str) -> Mapping[str, float]:
    """Seconds more, by node: the culprit and what calls it, directly or not."""
    slow = {culprit} if culprit else set()
    for caller, callee in reversed(CALLS):
        slow |= {caller} if callee in slow else set()
    return dict.fromkeys(slow, 2.0)


def _cell(node: str, metric: str, slow: Mapping[str, float], rng: random.Random) -> str:
    jitter = rng.uniform(0.97, 1.03)
    if metric == "latency":
        return f"{ABOVE[node] * jitter + slow.get(node, 0.0):.6f}"
    return "100.0" if metric == "availability" else f"{1000 * jitter:.1f}"
