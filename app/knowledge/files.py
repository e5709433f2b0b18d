"""Files of past incidents and runbooks -> cases: CSV, Jira's exports, markdown, and what ``knowledge export`` wrote.

What is in a file was written by strangers: it is kept as data. Whatever cannot be used is named with file, line and
what would mend it; all else is taken. Memory is bounded: tables and exports are read row by row, pages are small.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal, get_args

from pydantic import BaseModel, ValidationError

from app.knowledge.cases import EXPORTED, Case
from app.knowledge.fields import AHEAD, MAX_NAME, MAX_SUMMARY, OLDEST, BadEntry, Complaint, Reading
from app.knowledge.jira import read_json
from app.knowledge.markdown import is_postmortem, read_postmortem, read_runbook
from app.knowledge.tables import encoding_of, read_csv
from graph.signature import MAX_EACH
from graph.state import storable

Format = Literal["csv", "jira", "markdown", "runbook", "jsonl"]
Found = Case | Complaint
FORMATS: tuple[Format, ...] = get_args(Format)
MARKDOWN = (".md", ".markdown")
SUFFIXES: Mapping[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "jira",
    **dict.fromkeys(MARKDOWN, "markdown"),
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
}
MAX_PAGE = 500_000  # bytes of one markdown file
MAX_LINE = 2_000_000  # bytes of one exported case
MAX_REMEDIES = 100  # of one exported case
LONGEST: Mapping[str, int] = {
    **dict.fromkeys(("environment", "service", "component", "category", "author", "fold"), MAX_NAME),
    **dict.fromkeys(("operation", "verdict", "credit", "plan_revision"), MAX_NAME),
    **dict.fromkeys(("title", "summary", "helped"), MAX_SUMMARY),
    "source": 500,
}
"""Characters of the fields of an exported case and of its remedies; what is indexed must fit into a page."""


class UnreadableFile(Exception):
    """There is nothing to import; the text says why, and what to do."""


@dataclass(frozen=True)
class Part:
    """One file to read. ``name``: by which its cases are known, the same wherever the file lies."""

    name: str
    open: Callable[[], BinaryIO]
    format: Format
    guessed: bool = False


def parts_of(path: Path, format_: Format | None = None) -> list[Part]:
    """The file, or those of a folder that have a known suffix, in order. Raises UnreadableFile."""
    if path.is_file():
        return [_part(path, path.name, format_)]
    if not path.is_dir():
        raise UnreadableFile(f"{path}: there is no such file or folder")
    root = path.resolve()
    files = [file for file in _below(root) if file.suffix.lower() in SUFFIXES]
    if not files:
        raise UnreadableFile(f"{path}: the folder holds no file that ends in {', '.join(SUFFIXES)}")
    return [_part(file, f"{root.name}/{file.relative_to(root).as_posix()}", format_) for file in files]


def _below(root: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(root):  # follows no link to a folder
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files = (Path(where, name) for name in sorted(names))
        yield from (file for file in files if file.resolve().is_relative_to(root) and file.is_file())


def _part(path: Path, name: str, format_: Format | None) -> Part:
    return Part(name, lambda: path.open("rb"), format_ or guessed(name), guessed=format_ is None)


def uploaded(name: str, content: bytes, format_: Format | None = None) -> Part:
    """What was sent under that name. Raises UnreadableFile."""
    return Part(name, lambda: BytesIO(content), format_ or guessed(name), guessed=format_ is None)


def guessed(name: str) -> Format:
    """By the suffix. Raises UnreadableFile."""
    found = SUFFIXES.get(Path(name).suffix.lower())
    if found is None:
        raise UnreadableFile(
            f"{name}: nobody can tell what it is by its name; say so with --format ({', '.join(FORMATS)})"
        )
    return found


def read(part: Part, reading: Reading) -> Iterator[Found]:
    """Its cases, and what is to say of it; the last word of a file that cannot be read at all is a complaint."""
    try:
        with part.open() as file:
            yield from _READERS[part.format](file, part, reading)
    except BadEntry as error:
        yield Complaint(part.name, 0, str(error))
    except OSError as error:
        yield Complaint(part.name, 0, f"it cannot be read ({error.strerror or type(error).__name__}); check its rights")


def _csv(file: BinaryIO, part: Part, reading: Reading) -> Iterator[Found]:
    return read_csv(file, part.name, reading)


def _jira(file: BinaryIO, part: Part, reading: Reading) -> Iterator[Found]:
    start = file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n")
    reader = read_json if start[:1] in (b"{", b"[") else read_csv
    return reader(file, part.name, reading)


def _markdown(file: BinaryIO, part: Part, reading: Reading) -> Iterator[Found]:
    content = _page(file)
    reader = read_postmortem if not part.guessed or is_postmortem(content, part.name) else read_runbook
    return reader(content, part.name, reading)


def _runbook(file: BinaryIO, part: Part, reading: Reading) -> Iterator[Found]:
    return read_runbook(_page(file), part.name, reading)


def _page(file: BinaryIO) -> str:
    """Raises BadEntry."""
    encoding = encoding_of(file)
    content = file.read(MAX_PAGE + 1)
    if len(content) > MAX_PAGE:
        raise BadEntry(f"it is larger than {MAX_PAGE:,} bytes; split it")
    return content.decode(encoding)


# --- what ``knowledge export`` wrote ---


def exported(row: Mapping[str, object]) -> str:
    """A line for a row of ``store.knowledge.every``, as ``_jsonl`` reads it."""
    fold, kind = str(row["fold"]), str(row["kind"])
    by_content = fold.startswith(f"{kind}:") and kind != "incident"
    kept = {name: row[name] for name in Case.model_fields if name in row}
    case = Case.model_validate({**kept, "fold": "" if by_content else fold})
    keywords = row["searchable"] if case.was_incident else ""
    return case.model_copy(update={"keywords": keywords}).model_dump_json()


def _jsonl(file: BinaryIO, part: Part, reading: Reading) -> Iterator[Found]:
    number = 0
    while line := file.readline(MAX_LINE):
        number += 1
        if len(line) == MAX_LINE:
            raise BadEntry(f"line {number} is longer than {MAX_LINE:,} bytes; was this written by `knowledge export`?")
        if line.strip():
            yield _from_line(line, number, part, reading)


def _from_line(line: bytes, number: int, part: Part, reading: Reading) -> Found:
    try:
        case = Case.model_validate(storable(json.loads(line)))
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the line"
        return Complaint(part.name, number, f"{where}: {first['msg']}; was this written by `knowledge export`?")
    except (ValueError, RecursionError):
        return Complaint(part.name, number, "it is no JSON; was this written by `knowledge export`?")
    if unfit := next(_unfit(case, reading), ""):
        return Complaint(part.name, number, unfit)
    fold = f"{EXPORTED}:{case.fold.removeprefix(f'{EXPORTED}:')}" if case.fold else ""  # folds into none of our own
    return case.model_copy(update={"incident_id": None, "fold": fold})


def _unfit(case: Case, reading: Reading) -> Iterator[str]:
    """Why a case that has the right form is not taken all the same."""
    if case.kind != "incident" and not re.fullmatch(rf"{case.kind}_[\w-]{{1,80}}", case.id):
        yield f"the id of a case of this kind begins with {case.kind}_; correct it"
    times = {"occurred_at": case.occurred_at, **{f"remedies.{n}.at": r.at for n, r in enumerate(case.remedies)}}
    for name, at in times.items():
        if not OLDEST <= at <= reading.now + AHEAD:
            yield f"{name} is before 1990 or in the future; correct the time"
    if len(case.remedies) > MAX_REMEDIES:
        yield f"it has more than {MAX_REMEDIES} remedies; leave the oldest out"
    for where, model in {"": case, **{f"remedies.{n}.": r for n, r in enumerate(case.remedies)}}.items():
        yield from (f"{where}{name} is longer than {LONGEST[name]:,} characters; shorten it" for name in _long(model))
    for name, names in case.signature:
        if len(names) > MAX_EACH:
            yield f"signature.{name} has more than {MAX_EACH} names; leave the last ones out"


def _long(model: BaseModel) -> Iterator[str]:
    return (name for name, said in model if isinstance(said, str) and len(said) > LONGEST.get(name, MAX_LINE))


_READERS: Mapping[Format, Callable[[BinaryIO, Part, Reading], Iterator[Found]]] = {
    "csv": _csv,
    "jira": _jira,
    "markdown": _markdown,
    "runbook": _runbook,
    "jsonl": _jsonl,
}
