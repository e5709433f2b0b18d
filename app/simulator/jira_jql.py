"""JQL, as far as a search for our own issues goes: comparisons with AND, OR, NOT, parentheses and ORDER BY."""

import re
from collections.abc import Callable, Mapping

Values = Mapping[str, tuple[str, ...]]
Test = Callable[[Values], bool]

_TOKEN = re.compile(
    r"\s*(?:(?P<text>\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')|(?P<sign>!=|!~|>=|<=|[()=~,<>])"
    r"|(?P<word>[\w.\-@:/]+(?:\[[\w.\-]+\][\w.\-]*)?))"
)
_ALIASES = {"issuekey": "key", "id": "key", "type": "issuetype", "component": "components", "label": "labels"}


class JqlError(Exception):
    """The text is Jira's for it."""


def parse(jql: str, fields: frozenset[str]) -> Test:
    """What tells whether an issue with these values fits. ``fields`` are those there are. Raises JqlError."""
    where, _, _ = re.sub(r"(?i)\border\s+by\b", "\x00", jql).partition("\x00")
    if not where.strip():
        raise JqlError("Unbounded JQL queries are not allowed here. Please add a search restriction to your query.")
    parser = _Parser(_tokens(where), fields)
    test = parser.either()
    if parser.tokens:
        raise JqlError(f"Error in the JQL Query: Expecting either 'OR' or 'AND' but got '{parser.tokens[0]}'.")
    return test


def _tokens(text: str) -> list[str]:
    found, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise JqlError(f"Error in the JQL Query: The character '{text[at]}' is a reserved JQL character.")
        found.append(match[0].strip())
        at = match.end()
    return found


class _Parser:
    def __init__(self, tokens: list[str], fields: frozenset[str]) -> None:
        self.tokens, self._fields = tokens, fields

    def either(self) -> Test:
        tests = [self._both()]
        while self._takes("or"):
            tests.append(self._both())
        return lambda values: any(test(values) for test in tests)

    def _both(self) -> Test:
        tests = [self._one()]
        while self._takes("and"):
            tests.append(self._one())
        return lambda values: all(test(values) for test in tests)

    def _one(self) -> Test:
        if self._takes("not"):
            test = self._one()
            return lambda values: not test(values)
        if self._takes("("):
            test = self.either()
            self._must(")")
            return test
        return self._comparison()

    def _comparison(self) -> Test:
        named = self._next().strip("\"'")
        field = _ALIASES.get(named.lower(), named.lower())
        if field not in self._fields and not field.startswith("issue.property["):
            raise JqlError(f"Field '{named}' does not exist or you do not have permission to view it.")
        sign = self._next().lower()
        negated = sign in ("!=", "!~") or (sign == "not" and self._takes("in")) or (sign == "is" and self._takes("not"))
        wanted = self._operand(sign)
        has = _contains if sign in ("~", "!~") else _equals
        return lambda values: negated != has(values.get(field, ()), wanted)

    def _operand(self, sign: str) -> tuple[str, ...]:
        """Empty: EMPTY."""
        if sign not in ("=", "!=", "~", "!~", "in", "not", "is"):
            raise JqlError(f"Error in the JQL Query: The operator '{sign}' is not supported here.")
        if sign == "is":
            self._must("empty")
            return ()
        if sign not in ("in", "not"):
            return (self._value(),)
        self._must("(")
        listed = [self._value()]
        while self._takes(","):
            listed.append(self._value())
        self._must(")")
        return tuple(listed)

    def _value(self) -> str:
        return re.sub(r"\\(.)", r"\1", self._next().strip("\"'")).lower()

    def _next(self) -> str:
        if not self.tokens:
            raise JqlError("Error in the JQL Query: The query ends too early.")
        return self.tokens.pop(0)

    def _takes(self, word: str) -> bool:
        if self.tokens and self.tokens[0].lower() == word:
            self.tokens.pop(0)
            return True
        return False

    def _must(self, word: str) -> None:
        if not self._takes(word):
            raise JqlError(f"Error in the JQL Query: Expecting '{word}'.")


def _equals(has: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    return any(value.lower() in wanted for value in has) if wanted else not has


def _contains(has: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """Every word of what is searched stands in the text."""
    text = " ".join(has).lower()
    return all(word.strip('"') in text for value in wanted for word in value.split())
