"""What Jira says of an issue, whether as a row of its CSV or as JSON of ``/rest/api/3/search/jql``, as an entry."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

from pydantic import JsonValue

from app.knowledge.cases import Case, folded
from app.knowledge.fields import CATEGORIES, BadEntry, Complaint, Entry, Reading, case_of, field_called, text

JIRA_KEY = "issue key"
MAX_JSON = 50_000_000  # bytes: it is read as a whole
MAX_COMMENTS = 20  # the last ones
MAX_DEPTH = 50  # of nested blocks; deeper ones are left out
_COMPONENTS = ("component/s", "components", "component")
_CUSTOM = "custom field ("
_BLOCKS = frozenset(
    ("paragraph", "heading", "codeBlock", "blockquote", "listItem", "tableRow", "panel", "hardBreak", "rule")
)


def issue_entry(issue: Mapping[str, Sequence[str]]) -> Entry:
    """Of an issue's fields by their names in small letters, each with all its values."""
    custom = _custom(issue)
    components = [value for name in _COMPONENTS for value in issue.get(name, ())]
    labels = [label for value in issue.get("labels", ()) for label in value.split()]
    component = custom.get("component") or next(iter(components), "")
    labelled = (label.partition(":")[2] for label in labels if label.startswith("service:"))
    categories = (key for label in labels if (key := folded(label).replace("-", "_")) in CATEGORIES)
    description = _joined(issue, "description")
    return Entry(
        key=_joined(issue, JIRA_KEY),
        origin="jira",
        title=_joined(issue, "summary"),
        occurred_at=custom.get("occurred_at") or _joined(issue, "created"),
        environment=_joined(issue, "environment"),
        service=custom.get("service") or next(labelled, "") or component,
        component=component,
        category=custom.get("category") or next(categories, ""),
        summary=custom.get("summary") or description,
        impact=custom.get("impact", ""),
        cause=custom.get("cause", ""),
        resolution=custom.get("resolution", ""),
        outcome=_joined(issue, "resolution") or _joined(issue, "status"),
        author=_joined(issue, "reporter"),
        timeline=custom.get("timeline") or "\n\n".join(issue.get("comment", ())[-MAX_COMMENTS:]),
        actions=custom.get("actions", ""),
    )


def _custom(issue: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The site's own fields that we know by their names."""
    found: dict[str, str] = {}
    for name, values in issue.items():
        if name.startswith(_CUSTOM) and (field := field_called(name.removeprefix(_CUSTOM).removesuffix(")"))):
            found.setdefault(field, "\n".join(values))
    return found


def _joined(issue: Mapping[str, Sequence[str]], name: str) -> str:
    return "\n".join(issue.get(name, ()))


# --- JSON ---


def read_json(file: BinaryIO, source: str, reading: Reading) -> Iterator[Case | Complaint]:
    """A case for each issue, and what is to say of them. Raises BadEntry where the whole cannot be read."""
    pages = _pages(file)
    for number, (issue, names) in enumerate(((i, n) for page in pages for i, n in _issues(page)), 1):
        try:
            case, said = case_of(issue_entry(_fields(issue, names)), source, reading)
        except BadEntry as error:
            yield Complaint(source, 0, f"issue {_key(issue) or f'number {number}'}: {error}")
            continue
        yield from (Complaint(source, 0, f"issue {_key(issue)}: {sentence}", lost=False) for sentence in said)
        yield case


def _pages(file: BinaryIO) -> list[JsonValue]:
    """One answer of the search, or a list of them."""
    file.seek(0)
    content = file.read(MAX_JSON + 1)
    if len(content) > MAX_JSON:
        raise BadEntry(f"it is larger than {MAX_JSON:,} bytes; import the pages of the search one by one")
    try:
        found: JsonValue = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise BadEntry(
            f"it is no JSON: {str(error)[:200]}; save an answer of /rest/api/3/search/jql as it is"
        ) from None
    return found if isinstance(found, list) else [found]


def _issues(page: JsonValue) -> Iterator[tuple[Mapping[str, JsonValue], Mapping[str, JsonValue]]]:
    """Each with the names of custom fields, which Jira gives with ``expand=names``. Raises BadEntry."""
    if not isinstance(page, dict):
        raise BadEntry("it holds no issues; save an answer of /rest/api/3/search/jql as it is")
    issues = page.get("issues", [page] if "fields" in page else None)
    names = page.get("names")
    if not isinstance(issues, list):
        raise BadEntry("it has no list `issues`; save an answer of /rest/api/3/search/jql as it is")
    for issue in issues:
        if isinstance(issue, dict):
            yield issue, names if isinstance(names, dict) else {}


def _key(issue: Mapping[str, JsonValue]) -> str:
    return text(str(issue.get("key") or ""))[:100]


def _fields(issue: Mapping[str, JsonValue], names: Mapping[str, JsonValue]) -> dict[str, list[str]]:
    fields = issue.get("fields")
    if not _key(issue) or not isinstance(fields, dict):
        raise BadEntry("it has no key or no fields; ask the search for fields=*all")
    found = {JIRA_KEY: [_key(issue)]}
    for name, value in fields.items():
        shown = str(names.get(name) or name).casefold()
        if values := [said for said in _values(value) if said]:
            found[f"{_CUSTOM}{shown})" if name.startswith("customfield_") else shown] = values
    return found


def _values(value: JsonValue) -> list[str]:
    """Of a field: text, a document, something with a name, or a list of such."""
    if isinstance(value, list):
        return [said for one in value for said in _values(one)]
    if isinstance(value, dict):
        if "comments" in value:
            return _values(value["comments"])
        if value.get("type") == "doc":
            return [document_text(value)]
        inner = next((value[key] for key in ("displayName", "name", "value", "body") if value.get(key)), "")
        return _values(inner)
    return [str(value)] if isinstance(value, str | int | float) and not isinstance(value, bool) else []


def document_text(node: JsonValue) -> str:
    """The text of a document in Atlassian's format, a line for each block; what is not text is left out."""
    pieces: list[str] = []
    _walk(node, pieces, 0)
    lines = (" ".join(line.split()) for line in "".join(pieces).splitlines())
    return "\n".join(line for line in lines if line)


def _walk(node: JsonValue, pieces: list[str], depth: int) -> None:
    if not isinstance(node, dict) or depth > MAX_DEPTH:
        return
    kind, attributes, content = node.get("type"), node.get("attrs"), node.get("content")
    if kind in _BLOCKS:
        pieces.append("\n")
    if isinstance(said := node.get("text"), str):
        pieces.append(said)
    elif isinstance(attributes, dict) and isinstance(said := attributes.get("text") or attributes.get("url"), str):
        pieces.append(said)  # a mention, an emoji, a status, a card
    for inner in content if isinstance(content, list) else ():
        _walk(inner, pieces, depth + 1)
    if kind in _BLOCKS:
        pieces.append("\n")
