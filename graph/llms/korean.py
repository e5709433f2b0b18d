"""Korean particles that fit the word before them: 서비스가, 풀이, 태스크를.

Which form stands depends on whether the word ends in a consonant. English names are read as Koreans read them; where
that cannot be told from the letters, both forms are given, as 이(가).
"""

import re

_FIRST_SYLLABLE, _FINALS = 0xAC00, 28
_RIEUL = 8  # place of ㄹ among the final consonants
_DIGITS = {"0": True, "1": True, "2": False, "3": True, "4": False, "5": False, "6": True, "7": True, "8": True}
_READ_WITH_RIEUL = "178"  # 일, 칠, 팔
_LETTERS = {"l": True, "m": True, "n": True, "r": True}  # 엘, 엠, 엔, 알; all other letters' names end in a vowel
_SOUNDS_OPEN = re.compile(r"(?:[aiouy]|[^lmn]e|[drsxzfjvh])$")  # 레디스, 서비스, 오더; but 테이블, 엔진
_SOUNDS_CLOSED = re.compile(r"(?:[lmn]e?|ng)$")


class Word(str):
    """A value in a template; ``{value:이/가}`` puts the form that fits behind it."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        closed, slash, open_ = spec.partition("/")
        return f"{self}{_particle(str(self), closed, open_)}" if slash else super().__format__(spec)


def _particle(word: str, closed: str, open_: str) -> str:
    if closed == "으로" and _ends_in_rieul(word):
        return open_
    ends = _ends_in_consonant(word)
    if ends is None:
        return f"{closed}({open_})" if closed != "으로" else "(으)로"
    return closed if ends else open_


def _ends_in_consonant(word: str) -> bool | None:
    """None where it cannot be told."""
    last = word[-1:]
    if "가" <= last <= "힣":
        return (ord(last) - _FIRST_SYLLABLE) % _FINALS != 0
    if last.isdigit():
        return _DIGITS.get(last, False)
    name = re.split(r"[^A-Za-z]+", word)[-1]
    if not name:
        return None
    if name.isupper() or not re.search(r"[aeiouy]", name):  # spelled: DB, SQS, db
        return _LETTERS.get(last.lower(), False)
    if _SOUNDS_CLOSED.search(name.lower()):
        return True
    return False if _SOUNDS_OPEN.search(name.lower()) else None


def _ends_in_rieul(word: str) -> bool:
    last = word[-1:]
    if "가" <= last <= "힣":
        return (ord(last) - _FIRST_SYLLABLE) % _FINALS == _RIEUL
    return bool(last) and last in _READ_WITH_RIEUL
