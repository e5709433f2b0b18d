"""Past incidents out of CSV: our own columns in any order, and what Jira exports. Row by row, whatever the size."""

import codecs
import csv
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from io import TextIOWrapper
from typing import BinaryIO

from app.knowledge.cases import MAX_REPORT, Case
from app.knowledge.fields import FIELDS, BadEntry, Complaint, Entry, Reading, case_of, field_called, text
from app.knowledge.jira import JIRA_KEY, issue_entry

ENCODINGS = ("utf-8-sig", "cp949")  # the latter is what Excel writes in Korea
DELIMITERS = ",;\t|"
CHUNK = 1_000_000  # bytes, or characters of one line
NAMED = ", ".join(names[0].replace(" ", "_") for names in FIELDS.values())
"""Our own columns."""


@dataclass(frozen=True)
class Row:
    """One row, and the line it begins in."""

    line: int
    values: Sequence[str]


def read_csv(file: BinaryIO, source: str, reading: Reading) -> Iterator[Case | Complaint]:
    """A case for each row, and what is to say of the rows. Raises BadEntry where the whole cannot be read."""
    with closing(_rows(file, source)) as rows:
        header = _header(rows)
        names = [text(name) for name in header.values]
        jira = any(name.casefold() == JIRA_KEY for name in names)
        yield from () if jira else _columns(names, source, header.line)
        seen: set[str] = set()
        for row in rows:
            if isinstance(row, Complaint):
                yield row
            elif any(value.strip() for value in row.values):
                yield from _case(row, names, source, reading, seen, jira=jira)


def _header(rows: Iterator[Row | Complaint]) -> Row:
    for row in rows:
        if isinstance(row, Complaint):
            raise BadEntry(f"its header cannot be read: {row.said}")
        if any(value.strip() for value in row.values):
            return row
    raise BadEntry(f"it is empty; its first line names the columns: {NAMED}")


def _columns(names: Sequence[str], source: str, line: int) -> Iterator[Complaint]:
    """Raises BadEntry where what is needed is missing."""
    known = {field_called(name) for name in names}
    if missing := [FIELDS[field][0].replace(" ", "_") for field in ("title", "occurred_at") if field not in known]:
        raise BadEntry(f"line {line} names no column {' and no column '.join(missing)}; the columns are: {NAMED}")
    if unknown := [name for name in names if name and field_called(name) is None]:
        said = f"columns that are not known, and left out: {', '.join(map(repr, unknown[:20]))}; known are: {NAMED}"
        yield Complaint(source, line, said, lost=False)


def _case(
    row: Row, names: Sequence[str], source: str, reading: Reading, seen: set[str], *, jira: bool
) -> Iterator[Case | Complaint]:
    try:
        if any(value.strip() for value in row.values[len(names) :]):
            raise BadEntry("it has more fields than the header; put texts with commas or quotes in them into quotes")
        by_name = _by_name(names, row.values)
        case, said = case_of(issue_entry(by_name) if jira else _entry(by_name), source, reading)
        if case.id in seen:
            raise BadEntry(f"an earlier line has the same {'issue key' if jira else 'id, or time and title'}; mend one")
    except BadEntry as error:
        yield Complaint(source, row.line, str(error))
        return
    seen.add(case.id)
    yield from (Complaint(source, row.line, sentence, lost=False) for sentence in said)
    yield case


def _by_name(names: Sequence[str], values: Sequence[str]) -> Mapping[str, list[str]]:
    """Jira writes a column once for each value that a field may have."""
    found: dict[str, list[str]] = {}
    for name, value in zip(names, values, strict=False):
        if value.strip():
            found.setdefault(name.casefold(), []).append(value)
    return found


def _entry(by_name: Mapping[str, Sequence[str]]) -> Entry:
    fields: dict[str, str] = {}
    for name, values in by_name.items():
        if (field := field_called(name)) and field not in fields:
            fields[field] = "\n".join(values)
    return Entry(**fields)


# --- text to rows ---


def _rows(file: BinaryIO, source: str) -> Generator[Row | Complaint]:
    """Raises BadEntry for an encoding that is not known."""
    decoded = TextIOWrapper(file, encoding=encoding_of(file), newline="")
    try:
        first = decoded.readline(CHUNK)
        decoded.seek(0)
        delimiter = max(DELIMITERS, key=first.count)
        csv.field_size_limit(MAX_REPORT)
        reader = csv.reader(iter(lambda: decoded.readline(CHUNK), ""), delimiter=delimiter)
        while True:
            line = reader.line_num + 1
            try:
                yield Row(line, next(reader))
            except StopIteration:
                return
            except csv.Error:
                said = f"a field is longer than {MAX_REPORT:,} characters; is a closing quote missing?"
                yield Complaint(source, line, said)
    finally:
        decoded.detach()  # the file is the caller's


def encoding_of(file: BinaryIO) -> str:
    """What its bytes are text in. Raises BadEntry."""
    file.seek(0)
    marked = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    found = next((name for name in (("utf-16",) if marked else ENCODINGS) if _decodes(file, name)), None)
    if found is None:
        raise BadEntry("it is text in neither UTF-8 nor CP949 (EUC-KR); save it as UTF-8")
    file.seek(0)
    return found


def _decodes(file: BinaryIO, encoding: str) -> bool:
    file.seek(0)
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        while chunk := file.read(CHUNK):
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True
