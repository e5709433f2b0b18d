"""``python -m tests.stories [NNN…]``: write the folders of ``tests/scenarios`` that are told."""

import sys
from pathlib import Path

from tests.stories import builders

SCENARIOS = Path(__file__).parent.parent / "scenarios"


def main(wanted: list[str]) -> None:
    """Write the stories with these numbers; all of them where none is named."""
    for module, build in builders().items():
        if not wanted or module.startswith(tuple(f"s{number}" for number in wanted)):
            folder = build().write(SCENARIOS)
            size = sum(file.stat().st_size for file in folder.iterdir())
            sys.stdout.write(f"{folder.name}: {size / 1000:.0f} kB\n")


if __name__ == "__main__":
    main(sys.argv[1:])
