"""``python -m benchmarks``: measure, print markdown, keep it in ``results.md``."""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from app.embedded_postgres import EmbeddedPostgres
from benchmarks import (
    collection,
    confidence,
    intake,
    kill,
    knowledge,
    learning,
    lies,
    loop,
    masking,
    memory,
    model_cost,
    ranking,
    ranking_speed,
    recorded,
    remediation,
    results,
    startup,
    storm,
)
from benchmarks.setting import Setting, Skipped
from tests.conftest import ROOT

BENCHMARKS: Mapping[str, Callable[[Setting], list[results.Table]]] = {
    "loop": loop.measure,
    "collection": collection.measure,
    "confidence": confidence.measure,
    "intake": intake.measure,
    "kill": kill.measure,
    "knowledge": knowledge.measure,
    "learning": learning.measure,
    "lies": lies.measure,
    "memory": memory.measure,
    "model_cost": model_cost.measure,
    "startup": startup.measure,
    "storm": storm.measure,
    "recorded": recorded.measure,
    "remediation": remediation.measure,
    "masking": masking.measure,
    "ranking": ranking.measure,
    "ranking_speed": ranking_speed.measure,
}
RESULTS = Path(__file__).with_name("results.md")
NEZHA = ROOT.parent / "shared" / "data" / "nezha-trainticket-2023-01-29.tar.xz"


def main() -> None:
    """Each benchmark's tables are printed, and written, as soon as it ends; one that is skipped keeps its old ones."""
    options = _options()
    with _setting(options.nezha) as setting:
        for name in BENCHMARKS if "all" in options.benchmarks else options.benchmarks:
            setting.tell(name)
            try:
                text = results.section(name, BENCHMARKS[name](setting))
            except Skipped as reason:
                print(f"## {name}\n\nSkipped: {reason}\n", flush=True)
                continue
            existing = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
            RESULTS.write_text(results.merged(existing, {name: text}), encoding="utf-8")
            print(text, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("benchmarks", nargs="*", choices=["all", *BENCHMARKS], default="all", help="default: all")
    parser.add_argument("--nezha", type=Path, default=NEZHA, help="the TrainTicket archive, or its folder")
    return parser.parse_args()


@contextmanager
def _setting(nezha: Path) -> Iterator[Setting]:
    folder = Path(tempfile.mkdtemp(prefix="ab-"))
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    postgres = EmbeddedPostgres(folder / "pg").start()
    try:
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            line = progress.add_task("starting", total=None)
            yield Setting(folder, postgres, lambda text: progress.update(line, description=text), nezha)
    finally:
        postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
