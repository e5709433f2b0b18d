"""How many tokens a text is, estimated without the vocabulary of any model: a little too many rather than too few.

Byte-pair vocabularies keep usual words whole, split digits into threes, and cut rare words and other scripts into
pieces. Vocabularies are downloads of megabytes that a machine without internet does not have. Measured with those of
gpt-4o (o200k) and gpt-4 (cl100k): 12 to 18 % too many for briefs and English, 14 to 85 % for Korean; made-up words
(«xqzvkw…») are up to three times what is estimated, so a text full of them costs three times its budget, not more.
"""

import re
from collections.abc import Sequence
from math import ceil

_PIECES = re.compile(
    r"(?P<word>[A-Z]?[a-z]+|[A-Z]+)|(?P<digits>\d+)|(?P<signs>[!-/:-@\[-`{-~]+)|(?P<break>\n\s*)|(?P<space>[^\S\n]+)"
    r"|(?P<other>[^\x00-\x7f]+)|(?P<control>.)",
    re.ASCII | re.DOTALL,
)
_WORD = 6  # letters of a rare word to a piece: usual words of any length are one
_DIGITS = 3  # to a piece, in the vocabularies of OpenAI
_BYTES = 2.5  # of UTF-8 in other scripts: a syllable of Korean is about one piece
_SIGNS = 2  # JSON's «":"» and «"},» are single pieces
_PER_MESSAGE = 4  # what a chat's own marks take around one message


def tokens(text: str) -> int:
    """Of one text."""
    return sum(map(_piece, _PIECES.finditer(text)))


def conversation_tokens(texts: Sequence[str]) -> int:
    """Of messages with these texts."""
    return sum(tokens(text) + _PER_MESSAGE for text in texts)


def _piece(match: re.Match[str]) -> int:
    kind, length = match.lastgroup, match.end() - match.start()
    if kind == "word":
        return ceil(length / _WORD)
    if kind == "digits":
        return ceil(length / _DIGITS)
    if kind == "signs":
        return ceil(length / _SIGNS)
    if kind == "space":
        return length // 8  # one goes with the word behind it
    if kind == "other":
        return ceil(len(match.group().encode("utf-8", "surrogatepass")) / _BYTES)
    return 1
