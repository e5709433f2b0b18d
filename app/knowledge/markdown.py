"""Postmortems and runbooks out of markdown: front matter, headings in English and Korean, «key: value» lines. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from pathlib import PurePosixPath

import frontmatter
import yaml
from frontmatter.default_handlers import YAMLHandler

from app.knowledge.cases import MAX_REPORT, Case, case_id
from app.knowledge.fields import (
    MAX_NAME,
    MAX_SUMMARY,
    MAX_TITLE,
    BadEntry,
    Complaint,
    Entry,
    Reading,
    case_of,
    field_called,
    moment,
    text,
)
from collectors._passages import Outline, markdown_outlines, with_paths
from graph.signature import MAX_EACH, Signature

Front = Mapping[str, object]
TOLD_BY_SECTIONS = ("summary", "impact", "timeline", "cause", "resolution", "actions")
TOLD_BY_LINES = ("occurred_at", "environment", "service", "component", "category", "outcome", "author", "key")
MAX_LINES = 80  # from the start, in which «Service: payment-service» is looked for
MAX_SECTIONS = 500  # of one runbook
WITHOUT_DATE = "1990-01-01"  # a runbook is not of a day; the oldest there may be
_LINE = re.compile(r"^[\s*|>-]*([^\s:：|*][^:：|*]{0,39}?)\s*\**\s*[:：|]\s*\**\s*(\S.*?)\s*\|?\s*$")
_YEAR = re.compile(r"\d{4}|\d/\d\d")
_DAY = re.compile(r"(?<!\d)((?:19|20)\d\d[-_.]?[01]\d[-_.]?[0-3]\d)(?!\d)")


# --- postmortems ---


def read_postmortem(content: str, source: str, reading: Reading) -> Iterator[Case | Complaint]:
    """The case of one file. Raises BadEntry."""
    front, body = parts(content)
    entry = _entry(front, body, source)
    case, said = case_of(entry, source, reading)
    yield from (Complaint(source, 0, sentence, lost=False) for sentence in said)
    day = f"postmortem {case.occurred_at:%Y-%m-%d}"  # a file is one case of its day, whatever becomes of its title
    yield case if entry.key else case.model_copy(update={"id": case_id("imported", source, day)})


def _entry(front: Front, body: str, source: str) -> Entry:
    outlines = markdown_outlines(body)
    heading = _heading(outlines)
    fields = {**_lines(body), **_front_fields(front), **_sections(outlines)}
    named = _DAY.search(PurePosixPath(source).name) or _DAY.search(heading)
    when = fields.get("occurred_at") or (_dashed(named[1]) if named else "")
    if not when:
        raise BadEntry("nobody says when it happened; put `date: 2024-12-20T09:15:00Z` between two lines of --- on top")
    kept = {name: said for name, said in fields.items() if name in (*TOLD_BY_SECTIONS, *TOLD_BY_LINES)}
    return Entry(
        **{
            **kept,
            "title": fields.get("title") or heading or PurePosixPath(source).stem,
            "occurred_at": when,
            "report": body,
        }
    )


def _dashed(day: str) -> str:
    digits = re.sub(r"\D", "", day)
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:]}"


def _heading(outlines: Sequence[Outline]) -> str:
    """The page's own title, or its first heading that is none of the usual ones."""
    first = next((o.heading for o in outlines if o.level == 1), "")
    return first or next((o.heading for o in outlines if o.heading and field_called(o.heading) is None), "")


def _front_fields(front: Front) -> dict[str, str]:
    return {field: said for name, value in front.items() if (field := field_called(name)) and (said := _said(value))}


def _said(value: object) -> str:
    """YAML makes dates of what looks like one."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, list):
        return "\n".join(_said(one) for one in value if _said(one))
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _lines(body: str) -> dict[str, str]:
    """«**Service:** payment-service», or the same as a row of a table."""
    found: dict[str, str] = {}
    for line in body.splitlines()[:MAX_LINES]:
        if (said := _LINE.match(line[:1_000])) and (field := field_called(said[1])) in TOLD_BY_LINES and field:
            value = said[2].strip("*` ")
            if field != "occurred_at" or _YEAR.search(value):  # «| Time | What |» is the head of a timeline
                found.setdefault(field, value)
    return found


def _sections(outlines: Sequence[Outline]) -> dict[str, str]:
    """The text below each heading that is known, with the headings below that."""
    found: dict[str, list[str]] = {}
    for path, passage in with_paths(outlines):
        place = next((n for n, heading in enumerate(path) if field_called(heading) in TOLD_BY_SECTIONS), None)
        if place is not None and (field := field_called(path[place])):
            said = "\n".join(part for part in (*(f"**{h}**" for h in path[place + 1 :][-1:]), passage) if part)
            found.setdefault(field, []).append(said)
    return {field: "\n\n".join(part for part in told if part) for field, told in found.items()}


# --- runbooks ---


def read_runbook(content: str, source: str, reading: Reading) -> Iterator[Case | Complaint]:
    """A case for each section with text. Raises BadEntry."""
    front, body = parts(content)
    outlines = markdown_outlines(body)
    title = (_said(front.get("title", "")) or _heading(outlines) or PurePosixPath(source).stem)[:MAX_TITLE]
    at, _ = moment(_said(front.get("date") or front.get("updated") or "") or WITHOUT_DATE, reading)
    services, told = _services(front, reading)
    yield from (Complaint(source, 0, sentence, lost=False) for sentence in told)
    found = [(path, passage) for path, passage in with_paths(outlines) if passage.strip()]
    if not found:
        raise BadEntry("it holds no text; write something below its headings")
    if len(found) > MAX_SECTIONS:
        yield Complaint(source, 0, f"only its first {MAX_SECTIONS} of {len(found)} sections were taken; split the file")
    names: dict[str, int] = {}
    for path, passage in found[:MAX_SECTIONS]:
        place = " > ".join(path)
        names[place] = again = names.get(place, 0) + 1
        yield Case(
            id=case_id("runbook", source, f"{place} {again}"),
            kind="runbook",
            service=services[0] if services else "",
            title=" ".join(text(title).split()) or "runbook",
            summary=" ".join(text(place).split())[:MAX_SUMMARY],
            report=text(passage)[:MAX_REPORT],
            signature=Signature(services=tuple(services)),
            occurred_at=at,
            source=source,
            author=" ".join(text(_said(front.get("author", ""))).split())[:MAX_NAME],
        )


def _services(front: Front, reading: Reading) -> tuple[list[str], list[str]]:
    """Those the page says it is about, as the catalogue has them, else as they are written; and what to tell."""
    given = _said(front.get("services") or front.get("service") or "").replace(",", "\n").splitlines()
    names = [" ".join(text(name).split())[:MAX_NAME] for name in given]
    known = [(name, reading.service_called(name)) for name in names if name]
    told = [
        sentence
        for name, service in known
        if service is None
        for sentence in reading.once(f"the service {name!r} is not in the catalogue; it is kept as text")
    ]
    return list(dict.fromkeys(service or name for name, service in known))[:MAX_EACH], told


# --- what both are made of ---


def parts(content: str) -> tuple[Front, str]:
    """Front matter and body. Raises BadEntry."""
    handler = YAMLHandler()
    if not handler.detect(content):
        return {}, content
    try:
        front, body = frontmatter.parse(content, handler=handler)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        said = " ".join(str(error).split())[:200]
        raise BadEntry(f"its front matter cannot be read: {said}; mend what stands between the lines of ---") from None
    return {str(name): value for name, value in front.items()}, body


def is_postmortem(content: str, source: str) -> bool:
    """Whether a page tells of something that happened, rather than of what to do when something happens."""
    try:
        front, body = parts(content)
    except BadEntry:
        return True  # whichever it is, it will be refused for that
    said = _said(front.get("kind") or front.get("type") or "").casefold()
    if said in ("runbook", "postmortem", "incident"):
        return said != "runbook"
    if "runbook" in source.casefold() or "런북" in source:
        return False
    told = {field_called(outline.heading) for outline in markdown_outlines(body)}
    return len(told & set(TOLD_BY_SECTIONS)) >= 2 or "occurred_at" in _front_fields(front)
