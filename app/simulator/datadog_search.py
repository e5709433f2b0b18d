"""Datadog's search syntax, as far as logs, spans, events and metric scopes need it.

``service:(a OR b) status:error -@http.status_code:[400 TO 499] "timed out" @duration:>1000``
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

Value = str | float
STATUS_ALIASES = {"warning": "warn", "err": "error"}


@dataclass(frozen=True, slots=True)
class Document:
    """What a search looks at: free text, reserved fields and ``@attributes``."""

    text: str
    fields: Mapping[str, Value]


Predicate = Callable[[Document], bool]
_TOKEN = re.compile(r'\s*(\(|\)|\[[^\]]*\]|"(?:\\.|[^"\\])*"|-(?=[("@\w*])|(?:\\.|[^\s()"\[\]\\])+)')
_FIELD = re.compile(r"((?:\\.|[^:\\])+):(.*)", re.DOTALL)


def parse(query: str) -> Predicate:
    """The query as a function. Raises ValueError saying what is wrong."""
    tokens = _tokens(query)
    if not tokens:
        return lambda _document: True
    parser = _Parser(tokens)
    found = parser.any_of(_free_text)
    if parser.peek() is not None:
        raise ValueError(f"unexpected {parser.peek()!r} in query {query!r}")
    return found


def _tokens(query: str) -> list[str]:
    tokens, at = [], 0
    stripped = query.rstrip()
    while at < len(stripped):
        match = _TOKEN.match(stripped, at)
        if match is None:
            raise ValueError(f"cannot read query {query!r} from character {at}")
        tokens.append(match[1])
        at = match.end()
    return tokens


class _Parser:
    """Recursive descent; ``term`` says what a bare word means here: free text, or a field's value."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens, self._at = tokens, 0

    def peek(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def take(self) -> str:
        token = self.peek()
        if token is None:
            raise ValueError("the query ends too early")
        self._at += 1
        return token

    def any_of(self, term: Callable[[str], Predicate]) -> Predicate:
        options = [self.all_of(term)]
        while self.peek() == "OR":
            self.take()
            options.append(self.all_of(term))
        return options[0] if len(options) == 1 else lambda d: any(option(d) for option in options)

    def all_of(self, term: Callable[[str], Predicate]) -> Predicate:
        parts = [self.one(term)]
        while self.peek() not in (None, "OR", ")"):
            if self.peek() == "AND":
                self.take()
            parts.append(self.one(term))
        return parts[0] if len(parts) == 1 else lambda d: all(part(d) for part in parts)

    def one(self, term: Callable[[str], Predicate]) -> Predicate:
        word = self.take()
        if word in ("-", "NOT"):
            inner = self.one(term)
            return lambda d: not inner(d)
        if word == "(":
            inside = self.any_of(term)
            self._close()
            return inside
        if word in (")", "AND", "OR"):
            raise ValueError(f"unexpected {word!r}")
        field = _FIELD.fullmatch(word) if term is _free_text and not word.startswith('"') else None
        return self._field(_unescape(field[1]), field[2]) if field else term(word)

    def _field(self, name: str, value: str) -> Predicate:
        term = _value_of(name)
        if value:
            return term(value)
        if self.peek() == "(":
            return self.one(term)
        return term(self.take())

    def _close(self) -> None:
        if self.take() != ")":
            raise ValueError("a bracket is not closed")


def _free_text(token: str) -> Predicate:
    wanted = _bare(token).lower()
    if wanted == "*":
        return lambda _d: True
    if "*" in wanted and not token.startswith('"'):
        return lambda d: any(fnmatchcase(word, wanted) for word in d.text.lower().split())
    return lambda d: wanted in d.text.lower()


def _value_of(name: str) -> Callable[[str], Predicate]:
    def term(token: str) -> Predicate:
        compared = _comparison(name, token)
        if compared is not None:
            return compared
        wanted = _bare(token).lower()
        if name == "status":
            wanted = STATUS_ALIASES.get(wanted, wanted)
        if name == "*" or wanted == "*":
            return lambda d: name == "*" or name in d.fields
        if "*" in wanted and not token.startswith('"'):
            return lambda d: fnmatchcase(str(d.fields.get(name, "")).lower(), wanted)
        return lambda d: str(d.fields.get(name, "")).lower() == wanted

    return term


def _comparison(name: str, token: str) -> Predicate | None:
    """``>5``, ``>=5``, ``<5``, ``<=5`` and ``[1 TO 5]``."""
    between = re.fullmatch(r"\[\s*([-\d.*]+)\s+TO\s+([-\d.*]+)\s*\]", token)
    if between:
        low = float("-inf") if between[1] == "*" else float(between[1])
        high = float("inf") if between[2] == "*" else float(between[2])
        return lambda d: low <= _number(d, name) <= high
    match = re.fullmatch(r"(>=|<=|>|<)(-?\d+(?:\.\d+)?)", token)
    if match is None:
        return None
    limit = float(match[2])
    return {
        ">=": lambda d: _number(d, name) >= limit,
        "<=": lambda d: _number(d, name) <= limit,
        ">": lambda d: _number(d, name) > limit,
        "<": lambda d: _number(d, name) < limit,
    }[match[1]]


def _number(document: Document, name: str) -> float:
    """NaN, which no comparison holds for, if the field is no number."""
    value = document.fields.get(name)
    return value if isinstance(value, float) else float("nan")


def _bare(token: str) -> str:
    return _unescape(token[1:-1] if token.startswith('"') else token)


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)
