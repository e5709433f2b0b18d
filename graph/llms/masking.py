"""Takes credentials and personal data out of text before it leaves for a model."""

import re
from collections.abc import Sequence

Masks = Sequence[tuple[str, re.Pattern[str]]]
MASKS: Masks = (
    ("private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*-----|\Z)", re.DOTALL)),
    ("token", re.compile(r"\beyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*)?")),
    (
        "secret",
        re.compile(
            r"\bauthorization[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic|token|digest)\s+)?[^\s\"',\[\]]+",
            re.IGNORECASE,
        ),
    ),
    ("token", re.compile(r"\bbearer\s+[\w.~+/=-]{6,}", re.IGNORECASE)),
    ("token", re.compile(r"\b[Bb]asic\s+(?=[\w+/]*(?:[\d=]|[a-z][A-Z]))[\w+/=]{8,}")),
    ("aws key", re.compile(r"\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{12,}\b")),
    ("token", re.compile(r"\b(?:sk-|gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|hf_|AIza)[\w-]{10,}")),
    ("credentials", re.compile(r"(?<=://)[^\s/:@\[\]]*:[^\s/@]+(?=@)")),
    (
        "secret",
        re.compile(
            r"(?:passw(?:or)?d|pwd|secret|token|api[_-]?key|access[_-]?key|credential|authorization)s?"
            r"[\w-]*[\"']?\s*[:=]\s*(?!\[)(?:\"[^\"]*\"|'[^']*'|[^\s,;&\"'\[\]{}]+)",
            re.IGNORECASE,
        ),
    ),
    ("email", re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}\b")),
    ("personal number", re.compile(r"(?<!\d)\d{6}-[1-4]\d{6}(?!\d)")),
    ("card number", re.compile(r"(?<![\d.])\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}(?![\d.])")),
)


class MaskingError(Exception):
    """Something secret is left in the text after masking; it must not leave."""


def mask(text: str, masks: Masks = MASKS) -> str:
    """The text with ``[masked …]`` in place of secrets. Raises MaskingError if any is left."""
    for what, pattern in masks:
        text = pattern.sub(f"[masked {what}]", text)
    for what, pattern in masks:
        if pattern.search(text):
            raise MaskingError(f"a {what} is left in the text after masking")
    return text
