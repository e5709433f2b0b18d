"""What the questions of an analyst mean, whatever the source's query language. Their words are data."""

from collectors.base import GapReason, LogsRead, Refused, Scope, Target

LEAST_LETTERS = 2  # letters and digits; less, or punctuation alone, would select nearly every line


class NotHere(Refused):
    """The source holds nothing of the kind, which is an answer: such a trace, a component it does not know."""

    reason = GapReason.EMPTY


class NotDeclared(Refused):
    """The catalogue does not say under which names the source has it."""

    reason = GapReason.NOT_CONFIGURED


def words_of(question: LogsRead) -> str:
    """The words to look for, as one line of plain text; each source quotes them. Raises Refused.

    Control characters have no place in a query and none in a log line that is searched by its words.
    """
    words = " ".join("".join(c if c.isprintable() else " " for c in question.contains).split())
    if sum(c.isalnum() for c in words) < LEAST_LETTERS:
        raise Refused(f"«{words}» holds no word to look for; wildcards are not understood")
    return words


def target_of(component: str, scope: Scope) -> Target:
    """The component by the names that the sources know it under, as far as the catalogue tells them."""
    return next((target for target in scope.targets if target.service == component), Target(service=component))
