"""Numbers written as words, in English and Korean: «twenty-five minutes», «a third», «두 배», «수백 건». Pure."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

IN_WORDS = 0.15  # «twice», «두 배» may stand for a number this share away
_HEDGED = 0.05  # «half» may stand for a number this share away
_POWERS = {"십": 1e1, "백": 1e2, "천": 1e3, "만": 1e4, "억": 1e8, "조": 1e12}
_UNIT_WORDS = (
    r"(?:milli|micro)?seconds?|minutes?|hours?|days?|weeks?|percent|percentage points?|times|fold|bytes"
    r"|(?:kilo|mega|giga|tera)bytes?|ms|초|분|시간|배|퍼센트|%"
)
_ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SMALL = {word: float(n) for n, word in enumerate(_ONES)} | {word: 10.0 * n for n, word in enumerate(_TENS, start=2)}
_LARGE = {"dozen": 12.0, "hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9}
_WORD = "|".join(sorted([*_SMALL, *_LARGE], key=len, reverse=True))
_SPELLED = re.compile(
    rf"\b(?P<words>(?:an?\s(?=(?:{'|'.join(_LARGE)})\b))?(?:{_WORD})(?:(?:\s|-|\sand\s)(?:{_WORD}))*)\b"
    rf"(?!-)(?:\s(?P<unit>{_UNIT_WORDS})(?![A-Za-z0-9_%]))?",
    re.IGNORECASE,
)
_PLURALS = re.compile(
    r"\b(?:(?P<tens>tens|hundreds)\sof\s)?(?P<name>dozens|hundreds|thousands|millions|billions)\b", re.IGNORECASE
)
_SHARES = {"half": 0.5, "third": 1 / 3, "quarter": 0.25, "fifth": 0.2, "tenth": 0.1}
_FRACTION = re.compile(
    r"\b(?P<many>a|one|two|three|four)[\s-](?P<share>third|quarter|fifth|tenth)s?\b(?:\s(?:of\s)?an?\s(?P<unit>second|minute|hour))?"
    r"|(?<!-)\b(?P<half>half)\b(?![\s-](?:open|life|duplex))(?:\s(?:of\s)?an?\s(?P<half_unit>second|minute|hour|day))?",
    re.IGNORECASE,
)
_AFTER_ONE = re.compile(
    r"\b(?:an?|one)\s(?P<unit>second|minute|hour|day|week)\s(?=later|after|before|earlier|ago)", re.IGNORECASE
)
_MULTIPLES = re.compile(r"\b(?P<word>twice|thrice)\b", re.IGNORECASE)
_NATIVE = {
    **dict.fromkeys(("하나", "한"), 1),
    **dict.fromkeys(("둘", "두"), 2),
    **dict.fromkeys(("셋", "세"), 3),
    **dict.fromkeys(("넷", "네"), 4),
    **{word: number for number, word in enumerate(("다섯", "여섯", "일곱", "여덟", "아홉", "열"), start=5)},
    **dict.fromkeys(("스물", "스무"), 20),
    **{word: 10 * n for n, word in enumerate(("서른", "마흔", "쉰", "예순", "일흔", "여든", "아흔"), start=3)},
}
_NATIVE_TENS = "열|스물|스무|서른|마흔|쉰|예순|일흔|여든|아흔"
_NATIVE_ONES = "하나|한|둘|두|셋|세|넷|네|다섯|여섯|일곱|여덟|아홉"
_COUNTER = r"개|건|번|대|명|차례|배|시간|태스크|컨테이너|인스턴스|노드|파드|커넥션|연결|요청|오류|초|분|퍼센트|밀리초|%"
_NATIVE_NUMBER = re.compile(
    rf"(?<![가-힣])(?P<words>(?:{_NATIVE_TENS})?(?:{_NATIVE_ONES})|{_NATIVE_TENS})\s?(?P<unit>{_COUNTER})"
)
_SINO = "일이삼사오육칠팔구"
_SINO_NUMBER = re.compile(
    rf"(?<![가-힣\d])(?P<words>(?:[{_SINO}]?[십백천만억조]\s?)+[{_SINO}]?|[이삼사오육칠팔구](?=\s?(?:초|퍼센트|배)))"
    rf"\s?(?P<unit>{_COUNTER})"
)
_VAGUE = re.compile(rf"(?<![가-힣])수(?P<words>십만|백만|천만|십억|십|백|천|만|억)\s?(?P<unit>{_COUNTER})?")
_KOREAN_FRACTION = re.compile(
    r"(?P<of>\d+|[이삼사오육칠팔구십])\s?분의\s?(?P<many>\d+|[일이삼사오육칠팔구])|(?P<half>절반)"
)


@dataclass(frozen=True)
class Numeral:
    """A number in words. ``slack``: the share by which it may be off; ``most``: where a range like «hundreds» ends."""

    value: float
    unit: str = ""
    slack: float = 0.0
    most: float = 0.0
    text: str = ""


def numerals(text: str) -> tuple[list[Numeral], str]:
    """The numbers in words, and the text with spaces in their place."""
    found: list[Numeral] = []
    for pattern, read in _READERS:
        for match in pattern.finditer(text):
            numeral = read(match)
            if numeral is not None:
                found.append(replace(numeral, text=match.group(0).strip()))
                text = text[: match.start()] + " " * len(match.group(0)) + text[match.end() :]
    return found, text


def _spelled(match: re.Match[str]) -> Numeral | None:
    """«twenty-five minutes»; «one» alone is rather a pronoun."""
    words = [word for word in re.split(r"[\s-]+", match.group("words").lower()) if word not in {"and", "a", "an"}]
    unit = match.group("unit")
    if words == ["one"] and not unit:
        return None
    total = part = 0.0
    for word in words:
        if word in _SMALL:
            part += _SMALL[word]
        elif word in {"dozen", "hundred"}:
            part = (part or 1.0) * _LARGE[word]
        else:
            total, part = total + (part or 1.0) * _LARGE[word], 0.0
    return _with_unit(total + part, unit or "")


def _plural(match: re.Match[str]) -> Numeral:
    """«thousands»: from two of them, or one, up to where the next larger word begins."""
    least = _LARGE[match.group("name").lower().removesuffix("s")]
    least *= {"tens": 10.0, "hundreds": 100.0}.get((match.group("tens") or "").lower(), 1.0)
    return Numeral(least, most=least * (10.0 if match.group("tens") or least < 1e3 else 1e3))


def _fraction(match: re.Match[str]) -> Numeral:
    many = {"two": 2.0, "three": 3.0, "four": 4.0}.get((match.group("many") or "").lower(), 1.0)
    share = many * _SHARES[(match.group("share") or "half").lower()]
    unit = match.group("unit") or match.group("half_unit")
    return _with_unit(share, unit.lower() if unit else "ratio", _HEDGED)


def _korean_fraction(match: re.Match[str]) -> Numeral:
    if match.group("half"):
        return _with_unit(0.5, "ratio", _HEDGED)
    many, of = (
        float(part) if part.isdecimal() else float("영일이삼사오육칠팔구십".index(part))
        for part in (match.group("many"), match.group("of"))
    )
    return _with_unit(many / of if of else 0.0, "ratio", _HEDGED)


def _native(match: re.Match[str]) -> Numeral | None:
    words, unit = match.group("words"), match.group("unit")
    if words in {"한", "하나"} and unit not in {"시간", "배"}:
        return None
    tens = re.match(_NATIVE_TENS, words)
    ones = words[tens.end() :] if tens else words
    return _with_unit((_NATIVE[tens.group(0)] if tens else 0) + (_NATIVE[ones] if ones else 0), unit, _of_words(unit))


def _sino(match: re.Match[str]) -> Numeral:
    total = part = 0.0
    digit = 0.0
    for letter in match.group("words").replace(" ", ""):
        if letter in _SINO:
            digit = _SINO.index(letter) + 1.0
        elif _POWERS[letter] < 1e4:
            part, digit = part + (digit or 1.0) * _POWERS[letter], 0.0
        else:
            total, part, digit = total + ((part + digit) or 1.0) * _POWERS[letter], 0.0, 0.0
    return _with_unit(total + part + digit, match.group("unit"), _of_words(match.group("unit")))


def _vague(match: re.Match[str]) -> Numeral:
    least = 1.0
    for letter in match.group("words"):
        least *= _POWERS[letter]
    return replace(_with_unit(least, match.group("unit") or ""), most=10.0 * least)


def _of_words(unit: str) -> float:
    return IN_WORDS if unit == "배" else 0.0


def _with_unit(value: float, unit: str, slack: float = 0.0) -> Numeral:
    return Numeral(value, unit, slack=slack)


_READERS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Numeral | None]], ...] = (
    (_KOREAN_FRACTION, _korean_fraction),
    (_VAGUE, _vague),
    (_SINO_NUMBER, _sino),
    (_NATIVE_NUMBER, _native),
    (_FRACTION, _fraction),
    (_AFTER_ONE, lambda match: _with_unit(1.0, match.group("unit").lower())),
    (
        _MULTIPLES,
        lambda match: _with_unit({"twice": 2.0, "thrice": 3.0}[match.group("word").lower()], "times", IN_WORDS),
    ),
    (_PLURALS, _plural),
    (_SPELLED, _spelled),
)
