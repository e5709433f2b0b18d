"""Numbers to markdown: statistics, tables, and the file that keeps the sections of earlier runs."""

import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median, quantiles

HEAD = """# Measured

Made by `make bench`. Each section says on what machine; a run of one section replaces only that one.
"""
SECTION = re.compile(r"^## (?P<name>\S+)\n", re.MULTILINE)


@dataclass(frozen=True)
class Table:
    """One table; ``note`` says what its columns mean and what it is compared with."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def markdown(self) -> str:
        """The first column is text, the others are numbers."""
        rule = ["---", *("---:" for _ in self.columns[1:])]
        lines = [f"| {' | '.join(row)} |" for row in (self.columns, rule, *self.rows)]
        return "\n".join([f"**{self.title}**", "", *lines, *(["", self.note] if self.note else [])])


def percentile(values: Sequence[float], percent: int) -> float:
    """Linear between the nearest two values; one value stands for all its percentiles."""
    if len(values) < 2:
        return values[0]
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def summary(values: Sequence[float], unit: str = "s") -> tuple[str, str, str]:
    """Median, 95th percentile and n, as cells. Unit ``s`` or ``ms``; the values are seconds."""
    return duration(median(values), unit), duration(percentile(values, 95), unit), str(len(values))


def duration(seconds: float, unit: str = "s") -> str:
    """A cell."""
    return f"{seconds * 1000:,.1f} ms" if unit == "ms" else f"{seconds:.2f} s"


def ratio(value: float, reference: float) -> str:
    """A cell."""
    return f"{value / reference:.2f} x"


def section(name: str, tables: Iterable[Table]) -> str:
    """A section of the results, headed by its name and the machine."""
    body = "\n\n".join(table.markdown() for table in tables)
    return f"## {name}\n\n{machine()}\n\n{body}\n"


def merged(existing: str, sections: Mapping[str, str]) -> str:
    """The file with these sections new, the others as they were, all in the order of their names."""
    parts = SECTION.split(existing)[1:]
    kept = {name: f"## {name}\n{body.rstrip()}\n" for name, body in zip(parts[::2], parts[1::2], strict=True)}
    return "\n".join([HEAD, *(text for _, text in sorted({**kept, **sections}.items()))])


def machine() -> str:
    """Cores, memory, operating system, Python, date; nothing that names the machine."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    busy = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, {memory_gb:.0f} GB, {platform.system()} {platform.machine()},"
        f" Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}, load average {busy:.1f} at the end."
    )
