"""What a sentence says, in English or Korean: directions, denials, subjects, causes, quotations, names. Pure.

Nothing is guessed: what these patterns do not know they do not report, and ``graph/grounding.py`` decides what then
does not hold.
"""

import re
import unicodedata
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

Direction = Literal["up", "down"]
_EITHER = re.IGNORECASE | re.ASCII  # a Korean particle right behind a Latin word ends it

# --- characters -------------------------------------------------------------------------------------------

_HIDDEN = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180e\u2800\u3164\uffa0") | {chr(c) for c in range(0xFE00, 0xFE10)}
_OVERLAID = re.compile(r"(?<=[\x21-\x7e])[\u0300-\u036f\u0489\u1ab0-\u1aff\u20d0-\u20ff]+")
_DASHES = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2212\ufe63\uff0d", "-"))
_QUOTES = str.maketrans(
    {**dict.fromkeys("“”„«»「」『』", '"'), **dict.fromkeys("‘’‚`", "'"), **dict.fromkeys("–—", "-")}
)
_LETTERS = ("LATIN", "HANGUL", "MICRO", "GREEK SMALL LETTER MU", "FEMININE", "MASCULINE", "KELVIN", "ANGSTROM")


@lru_cache(maxsize=4096)  # the same evidence is read for every sentence that is held against it
def cleaned(text: str) -> str:
    """The text as it is checked and shown: nothing hidden in it, and every digit and Latin letter in its plain form."""
    text = _OVERLAID.sub("", unicodedata.normalize("NFC", text)).translate(_DASHES)
    return " ".join("".join(map(_plain, text)).split())


@lru_cache(maxsize=4096)
def folded(text: str) -> str:
    """For comparison: without case, kinds of quotation marks, dashes and spaces."""
    plain = unicodedata.normalize("NFKC", cleaned(text)).translate(_QUOTES).replace("…", "...")
    return " ".join(plain.casefold().split())


def strange_letters(text: str, source: str) -> list[str]:
    """Words in letters of other scripts, such as Cyrillic ones that look like Latin; not those of the source."""
    return [
        word
        for word in re.findall(r"\S+", text)
        if any(ch.isalpha() and not _is_readable(ch) for ch in word) and folded(word) not in source
    ]


def _plain(ch: str) -> str:
    if ch.isascii():
        return " " if ch < " " or ch == "\x7f" else ch
    category = unicodedata.category(ch)
    if ch in _HIDDEN or category in {"Cf", "Co", "Cn", "Cs"}:
        return ""
    if category in {"Cc", "Zs", "Zl", "Zp"}:
        return " "
    if category == "Nd":
        return str(unicodedata.decimal(ch))
    compatible = unicodedata.normalize("NFKC", ch)
    return compatible if any(c.isascii() and c.isalnum() for c in compatible) else ch


def _is_readable(ch: str) -> bool:
    return ch.isascii() or unicodedata.name(ch, "").startswith(_LETTERS)


# --- parts ------------------------------------------------------------------------------------------------

_SENTENCE = re.compile(r"(?<=[.!?。])\s+|(?<=[가-힣][.!?])(?=[가-힣])|(?<=。)")
_CLAUSE = re.compile(
    r"[,;]\s|\s[—–-]\s|\s(?:and|while|whereas|but|although|though|then)\s"
    r"|(?<=지만)\s|(?<=[했었였왔갔됐났]고)\s|(?<=으며)\s",
    _EITHER,
)
_OPENING = re.compile(r"(?:On|In|At|For|From|Of|With|Within)(?:\s\S+){1,4}", re.IGNORECASE)
_QUOTED = re.compile(
    r"«([^«»]+)»|“([^“”]+)”|「([^「」]+)」|『([^『』]+)』|‘([^‘’]+)’|\"([^\"]+)\"|`([^`]+)`"
    r"|(?<![A-Za-z0-9가-힣])'([^']{2,120})'(?![A-Za-z])"
)
_LOOSE_ID = re.compile(
    r"(?<![A-Za-z0-9_-])(?:E[\s#-]?|(?:evidence|finding|근거|증거)\s?(?:no\.\s?|#|번호\s?|E[\s#-]?))"
    r"(\d+)(?![A-Za-z0-9_%]|\.\d)",
    _EITHER,
)


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order; one inside of quotation marks ends none."""
    parts: list[str] = []
    for part in filter(None, _SENTENCE.split(text.strip())):
        if parts and is_open(parts[-1]):
            parts[-1] = f"{parts[-1]} {part}"
        else:
            parts.append(part)
    return parts


def is_open(text: str) -> bool:
    """Whether a quotation begins in the text and does not end there."""
    return any(text.count(left) > text.count(right) for left, right in ("«»", "“”", "「」", "『』"))


def clauses(sentence: str) -> list[str]:
    """Parts of a sentence that mostly speak of one thing each."""
    parts = [part for part in _CLAUSE.split(sentence) if part.strip()]
    if len(parts) > 1 and _OPENING.fullmatch(parts[0].strip()):
        parts[:2] = [f"{parts[0]}, {parts[1]}"]  # «On a, b rose» is one clause
    return parts


def quotations(text: str) -> list[str]:
    """What stands between quotation marks or backticks."""
    return [next(group for group in match.groups() if group).strip() for match in _QUOTED.finditer(text)]


def without_quotations(text: str, said: Callable[[str, str], bool] = lambda before, quoted: True) -> str:
    """The text in the author's own words; of its quotations those stay for which ``said`` is false.

    It is given the text before the quotation, and what is quoted.
    """

    def instead(match: re.Match[str]) -> str:
        return " … " if said(text[: match.start()], next(filter(None, match.groups()))) else match[0]

    return _QUOTED.sub(instead, text)


def cited_ids(text: str) -> list[str]:
    """Ids of evidence inside a text, however they are written: E7, e-7, «evidence 7», «근거 7»."""
    return [f"E{int(match.group(1))}" for match in _LOOSE_ID.finditer(text)]


def without_ids(text: str) -> str:
    """The text without ids of evidence."""
    return re.sub(r"\[\s*(?:,\s*)*\]", "", _LOOSE_ID.sub("", text)).strip()


# --- directions, denials ----------------------------------------------------------------------------------

_UP = (
    r"\b(?:rose|rises?|rising|risen|increas\w+|jump\w*|climb\w*|spik\w+|surg(?:e"
    r"|es|ed|ing)|soar\w*|grew|grow(?:s|n|ing)?"
    r"|doubled|tripled|quadrupled|(?:went|goes|going|gone|shot) up|higher|elevated|skyrocket\w*|balloon\w*|escalat\w+"
    r"|worsen\w*|swell\w*|swelled|shot through the roof|overshot|quintupled|exploded"
    r"|(?:above|over|beyond|more than|exceed\w*) (?:(?:its|the|their) )?(?:usual|normal|baseline|ordinary)\w*)\b|↑|📈|⬆"
    r"|증가|늘어|늘었|늘고|늘며|늘지|늘린|상승|급증|폭증|치솟|올라|올랐|오르|높아|높았|커졌|커지|많아|뛰었|솟구"
)
_DOWN = (
    r"\b(?:fell|falls?|fallen|falling|drop(?:s|ped|ping)?|decreas\w+|declin\w+"
    r"|collaps\w+|sank|halved|plummet\w*|plung\w+"
    r"|shr[aiu]nk\w*|dip(?:s|ped)?|slump\w*|tumbl\w+|reduc(?:ed|es|ing|tion)|(?:went|goes|going|gone) down"
    r"|lower(?:ed|s)?|eas(?:ed|es|ing)(?: off)?|subsid\w+|reced\w+|ebb\w*|abat\w+"
    r"|c[oa]me(?:s)? down|fewer|cool(?:ed|s)(?: off| down)?"
    r"|(?:below|under|less than|beneath) (?:(?:its|the|their) )?(?:usual|normal|baseline|ordinary)\w*)\b|↓|📉|⬇"
    r"|감소|줄어|줄었|줄고|줄며|줄지|하락|급감|떨어|낮아|낮았|내려가|내려갔|폭락|작아졌|적어졌|내려앉|가라앉|잦아들|뜸"
)
_MOVES: tuple[tuple[Direction, re.Pattern[str]], ...] = (
    ("up", re.compile(_UP, _EITHER)),
    ("down", re.compile(_DOWN, _EITHER)),
)
_NOT = (
    r"(?:\b(?:not(?!\s(?:only|just))|never|no longer|neither|nor|hardly|barely"
    r"|without|no|zero|failed to|cannot|nothing)\b"
    r"|n['’]t\b)"
)
_NOT_BEFORE = re.compile(
    rf"{_NOT}(?:\s(?:signs?|indications?|evidence|hints?)\s(?:of|that)(?:\s[\w-]+){{1,2}})?"
    r"(?:\s(?!but\b|because\b)[\w-]+){0,2}\s*$",
    _EITHER,
)
_NOT_AFTER = re.compile(r"[가-힣]{0,3}\s?(?:지(?:는|도)?\s?(?:않|못)|[은는이가도]?\s?(?:전혀\s)?없|[은는이가]?\s?아니)")
_CALM = re.compile(
    r"\b(?:stay(?:ed|s)?|remain(?:ed|s)?|is|are|was|were|kept|keeps|looks?|looked|held|continued)\s"
    r"(?:(?!not\b|no\b|never\b)[a-z]+\s){0,2}?(?:normal|stable|healthy|flat"
    r"|steady|unchanged|constant|unaffected|fine|idle"
    r"|nominal|at (?:its |the )?baseline|within (?:its |the )?(?:normal|usual|baseline))\b(?!\s?(?:no more|any more))"
    r"|\b(?:(?:did|does|has|have|had)(?: not|n['’]t)|never) change[ds]?\b|변하지\s?않"
    r"|\b(?:unremarkable|uneventful|unsuspicious|inconspicuous)\b"
    r"|\bnothing (?:unusual|special|remarkable|abnormal|wrong)\b"
    r"|\b(?:kept|keeps|held|holds|shows?|showed|has|had) (?:its|the|their|a) (?:usual|normal|ordinary)\b"
    r"|\bback (?:at|to|on|within) (?:its|the|their)?\s?(?:usual|normal|baseline|old)\b"
    r"|\bas \w+ as (?:ever|always|usual|before)\b"
    r"|특이\s?사항[이은도]?\s?없|평상시|여전히 (?:빠르|낮|정상)|여유가 있"
    r"|\bunchanged\b|\bno (?:change|deviation|anomal\w+|impact|effect|trouble|problems?|issues?)\b|\bas usual\b"
    r"|(?<!비)정상(?:이|입|적으로|이었|을 유지| 범위| 수준을 유지| 상태)(?!\s?(?:아니"
    r"|지 않))|평소(?:와 같|와 비슷|대로)"
    r"|변화[가는]?\s?없|변동[이은]?\s?없|이상[이은]?\s?없|문제[가는]?\s?없|(?<!불)안정적|그대로(?:이|였|다)|건강",
    _EITHER,
)


@dataclass(frozen=True)
class Told:
    """What a clause says of a change: ``moves`` it asserts, moves that it ``denies``, and whether all was ``calm``."""

    moves: frozenset[Direction]
    denies: frozenset[Direction]
    calm: bool


@lru_cache(maxsize=4096)
def told(clause: str) -> Told:
    """Directions in the author's own words."""
    own = without_quotations(clause)
    asserted: set[Direction] = set()
    denied: set[Direction] = set()
    for direction, pattern in _MOVES:
        for match in pattern.finditer(own):
            (denied if is_denied(own, match) else asserted).add(direction)
    return Told(frozenset(asserted), frozenset(denied), _CALM.search(own) is not None)


def is_denied(text: str, match: re.Match[str]) -> bool:
    """Does the text say «not» of what was matched?"""
    return bool(_NOT_BEFORE.search(text[: match.start()]) or _NOT_AFTER.match(text, match.end()))


def denies_something(text: str) -> bool:
    """Does the text tell of an absence at all?"""
    return _ABSENCE.search(text) is not None


_ABSENCE = re.compile(
    rf"{_NOT}|\b(?:stop\w*|miss\w*|lack\w*|gone|silent|lost|absent|empty|none|unavailable|unable|disappear\w*|nobody)\b"
    r"|없|않|못|멈|중단|사라|누락|아니",
    _EITHER,
)


# --- subjects ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """Something a sentence may speak of: the words that say so, and those by which evidence shows it."""

    said: re.Pattern[str]
    shown: re.Pattern[str]
    happens: bool = False  # an event, of which «no» and «not» can be said


def _subject(said: str, shown: str = "", *, happens: bool = False) -> Subject:
    """Evidence shows it also inside of names such as CPUUtilization."""
    inside = said.replace(r"\b", "")
    return Subject(re.compile(said, _EITHER), re.compile(f"{inside}|{shown}" if shown else inside, _EITHER), happens)


SUBJECTS: Mapping[str, Subject] = {
    "latency": _subject(
        r"\blatenc\w+|\bslow(?:s|ed|er|ly|ness)?\b|response times?|\bp\d\d\b|percentile|지연|느려|느린|응답\s?시간",
        r"duration|\d\s?m?s\b|seconds|milliseconds|time|delay|wait|took|소요|대기|초\b",
    ),
    "errors": _subject(
        r"\berrors?\b|\bexceptions?\b|\bfailures?\b|\b5xx\b|오류|에러|예외|실패",
        r"fail|fault|traceback|refus|reject|denied|unavailable|timed? ?out|\b5\d\d\b"
        r"|crash|unhealthy|exhaust|abort|panic|missing",
        happens=True,
    ),
    "timeouts": _subject(
        r"\btim(?:ed|es|ing)?[ -]?outs?\b|타임아웃|시간\s?초과", r"deadline|30000ms|expired", happens=True
    ),
    "CPU": _subject(r"\bcpu\b|\bprocessors?\b|프로세서"),
    "memory": _subject(
        r"\bmemory\b|\bheap\b|\boom\b|garbage collect\w*|\bgc\b|메모리|힙\b", r"rss|working.?set|outofmemory|oomkill"
    ),
    "connections": _subject(
        r"\bconnections?\b|\bpool(?:s|ed|ing)?\b|커넥션|연결\s?풀|풀[이을은]", r"connect|hikari|socket|session|연결"
    ),
    "traffic": _subject(
        r"\btraffic\b|\bthroughput\b|\b[rqt]ps\b|\bflood\w*|트래픽|유입",
        r"request|hits|calls?\b|load|invocation|req|visits|요청|호출",
    ),
    "a queue": _subject(
        r"\bbacklog\b|queue (?:depth|length)|consumer lag|적체|대기열", r"queue|lag\b|messages?|pending|oldest|큐"
    ),
    "disks": _subject(
        r"\bdisks?\b|\bstorage\b|\biops\b|\binodes?\b|디스크|스토리지|저장\s?공간",
        r"volume|filesystem|no space|bytes free",
    ),
    "the network": _subject(
        r"\bnetworks?\b|\bpackets?\b|네트워크|패킷", r"unreachable|no route|reset by peer|retransmi"
    ),
    "certificates": _subject(r"\bcertificat\w+|\btls\b|\bssl\b|인증서", r"x509|handshake|expired|pkix"),
    "DNS": _subject(r"\bdns\b|name resolution|nxdomain", r"resolv|enotfound|getaddrinfo|no such host|servfail"),
    "a success": _subject(r"\bsucceed\w*|\bsuccess\w*|성공", happens=True),
    "a shortage": _subject(
        r"\bfull\b|\bfill(?:s|ed)? up\b|\bran out\b|\brun(?:s|ning)? out\b"
        r"|\bexhaust\w*|\bdeplet\w*|\bsaturat\w+|\bmaxed\b"
        r"|\bno (?:free |idle |available )?(?:connections?|memory|space|capacity)\b"
        r"|가득|부족|고갈|포화|바닥",
        r"no space|(?<![a-z])oom|out.?of.?memory|unavailable|not available|timed? ?out|insufficient|overflow"
        r"|too.?many|quota|limit|reject|pending|waiting|exceed",
        happens=True,
    ),
    "a deployment": _subject(
        r"\b(?:re)?deploy\w*|\broll(?:ed)?[ -]?outs?\b|\bnew (?:version|release)\b|배포|릴리스",
        r"\brelease\b|new version|task.?definition|image tag|to v\d",
        happens=True,
    ),
    "a configuration": _subject(
        r"\bconfig\w*|feature flags?|설정|구성 변경|플래그",
        r"setting|parameter|feature.?flag|environment variable",
        happens=True,
    ),
    "a roll-back": _subject(r"\broll(?:ed|ing)?[ -]?backs?\b|\brevert\w*|롤백", happens=True),
    "a restart": _subject(
        r"\brestart\w*|\breboot\w*|재시작|재기동|재부팅", r"uptime|started|exit|(?<![a-z])oom|kill", happens=True
    ),
    "a crash": _subject(
        r"\bcrash\w*|\bkill(?:ed|s)\b|\bpanic\w*|segfault|크래시|비정상 종료",
        r"exit|(?<![a-z])oom|stopped|terminated|signal \d",
        happens=True,
    ),
    "throttling": _subject(
        r"\bthrottl\w+|\brate[- ]?limit\w*|\bquotas?\b|쓰로틀|스로틀|속도\s?제한|할당량",
        r"\b429\b|too many requests|limit|exceeded",
        happens=True,
    ),
    "locks": _subject(
        r"\bdead ?locks?\b|\block(?:s|ed)? (?:contention|wait)|교착|락 (?:경합|대기)", r"\block", happens=True
    ),
    "a cache": _subject(r"\bcaches?\b|\bcached\b|\bevict\w+|캐시", r"redis|memcache|hit|miss|ttl"),
    "a fail-over": _subject(r"\bfail(?:ed)?[ -]?overs?\b|페일오버|장애\s?조치", happens=True),
    "scaling": _subject(
        r"\bscal(?:ed|ing) (?:out|in|up|down)\b|\bautoscal\w+|스케일|오토스케일",
        r"scal|desired|tasks|replicas",
        happens=True,
    ),
    "an attack": _subject(
        r"\battack\w*|\bbreach\w*|\bhack\w*|\bddos\b|\bmalware\b|\bransom\w*"
        r"|\bintru\w+|\bcompromised\b|공격|침해|해킹|악성",
        happens=True,
    ),
    "a deletion": _subject(
        r"\bdelet\w+|\bwiped?\b|\bdropped (?:the )?(?:table|database)|\bcorrupt\w*|삭제|유실|손상", happens=True
    ),
    "a recovery": _subject(
        r"\brecovered\b|\bresolved\b|\bback to normal\b|\bmitigated\b|\bfixed\b|복구|해소|회복|해결[됐되]",
        r"recover|over\b",
        happens=True,
    ),
    "a migration": _subject(r"\bmigrat\w+|마이그레이션|이전 작업", happens=True),
    "a prompt": _subject(r"\bprompts?\b|프롬프트"),
    "a person's doing": _subject(
        r"\bintern\b|\bemployees?\b|\boperators?\b|\bsomeone\b"
        r"|\bhuman error\b|직원|운영자|누군가|담당자",
        r"author|by ",
    ),
    "hardware": _subject(
        r"\bhardware\b|\bpower (?:outage|loss)\b|\bfib(?:er|re)\b|\bdata ?cent(?:er|re)\b|하드웨어|정전|데이터\s?센터"
    ),
    "money": _subject(
        r"\brevenue\b|\bmoney\b|\bcosts?\b|\bdollars?\b|매출|손실액|비용", r"orders|sales|\$|usd|krw|loss"
    ),
}


@dataclass(frozen=True)
class Topics:
    """Names of SUBJECTS that a text speaks of, and those of which it says that they did not happen."""

    said: frozenset[str]
    denied: frozenset[str]


_ALTERNATIVE = re.compile(r"\bor\s[^,;.]*", _EITHER)


@lru_cache(maxsize=4096)
def topics(text: str) -> Topics:
    """In the author's own words; what stands behind «or» is one of several possibilities, and no statement."""
    own = _ALTERNATIVE.sub(" ", without_quotations(text))
    said: set[str] = set()
    denied: set[str] = set()
    for name, subject in SUBJECTS.items():
        for match in subject.said.finditer(own):
            (denied if subject.happens and is_denied(own, match) else said).add(name)
    return Topics(frozenset(said), frozenset(denied))


@lru_cache(maxsize=65536)  # every finding is asked for every subject of every sentence
def shows(text: str, subject: str) -> bool:
    """Whether a text of the evidence is about it."""
    return SUBJECTS[subject].shown.search(text) is not None


# --- names ------------------------------------------------------------------------------------------------


def mentions(text: str, name: str) -> bool:
    """Whether the text has the name as a whole; Korean particles may follow right behind."""
    return name.lower() in text.lower() and _whole(name).search(text) is not None


@lru_cache(maxsize=4096)
def _whole(name: str) -> re.Pattern[str]:
    pattern = rf"(?<![A-Za-z0-9_-])(?<![A-Za-z0-9_]\.){re.escape(name)}(?![A-Za-z0-9_]|-[A-Za-z0-9]|\.[A-Za-z0-9])"
    return re.compile(pattern, _EITHER)


@lru_cache(maxsize=64)
def _of_any(names: frozenset[str]) -> tuple[re.Pattern[str], dict[str, str]]:
    alternatives = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    pattern = rf"(?<![A-Za-z0-9_-])(?:{alternatives})(?![A-Za-z0-9_]|-[A-Za-z0-9]|\.[A-Za-z0-9])"
    return re.compile(pattern, _EITHER), {name.lower(): name for name in names}


def named(text: str, names: Collection[str]) -> list[tuple[int, int, str]]:
    """Where the text has any of the names, as (start, end, name); of names within names the longest."""
    if not names:
        return []
    pattern, lowered = _of_any(frozenset(names))
    return [(m.start(), m.end(), lowered[m.group(0).lower()]) for m in pattern.finditer(text)]


# --- causes -----------------------------------------------------------------------------------------------

_FORWARD = re.compile(
    r"\b(?:(?:causes|caused|causing)(?!\sby)|(?<!a\s)(?<!the\s)(?<!its\s)(?<!other\s)(?<!root\s)cause\b"
    r"|cause of(?!\sits\b)|(?:led|leads|leading) to|result(?:ed|s|ing) in|trigger(?:s|ed|ing)?(?!\sby)"
    r"|br(?:ought|ings) down|overload(?:s|ed|ing)?(?!\sby)|overwhelm(?:s|ed|ing)?(?!\sby)|starv(?:es|ed|ing)(?!\sby)"
    r"|slow(?:s|ed) down|ma(?:kes|de)|(?:took|takes) down|dr(?:ove|ives)|forc(?:es|ed)|affect(?:s|ed)(?!\sby)"
    r"|impact(?:s|ed)(?!\sby)|responsible for|induc(?:es|ed)(?!\sby)|br(?:oke|eaks)|hits?(?=\s)|block(?:s|ed)(?!\sby)"
    r"|spread\w*|propagat\w+|cascad\w+|spill(?:s|ed)|ripple[sd]?|brings? about"
    r"|gave rise to|explains|root cause of|blame for|drag(?:s|ged)|is why)\b",
    _EITHER,
)
_BACKWARD = re.compile(
    r"\b(?:because(?: of)?|due to|(?:a )?victim of|suffer(?:s|ed) from|caused by|as a (?:result|consequence) of"
    r"|result of|stem(?:s|med) from|owing to|thanks to"
    r"|com(?:es|ing) from|came from|originat\w+ (?:from|in)|triggered by"
    r"|driven by|attribut\w+ to|induced by|blocked by"
    r"|slowed by|overloaded by|overwhelmed by|affected by|impacted by|starved by|wait(?:s|ed|ing)? (?:for|on))\b",
    _EITHER,
)
_CONSEQUENCE = re.compile(
    r"^\s*(?:when|once|as soon as)\b[^,]*,|\b(?:as a consequence(?! of)|consequently|therefore|in turn)\b", _EITHER
)
_POSTPOSED = re.compile(r"때문|인해|탓|영향으로|영향을 받아|여파|의해|덕분|비롯|기인|말미암")
_KOREAN_VERB = re.compile(
    r"유발|초래|야기|일으|전파|확산|번[지졌]|퍼[지져졌]|파급|이어[지졌져]|영향을\s?(?:주|줬|미치|미쳐|미쳤|끼)|마비시"
    r"|느려지게|느리게\s?(?:했|만)|원인(?:이|입|은)"
)
_FROM_TO = re.compile(r"\b(?:spread|propagat|cascad|spill|ripple)\w*\b.{0,30}?\bfrom\b", _EITHER)
_OBJECT = re.compile(r"(?:의\s?\S+)?(?:을|를|에게|에도|에|으로|로|까지)(?:\s|$|[,.])")
_BLAMED = re.compile(
    r"\b(?:root cause|culprit|to blame|at fault|responsible|offender"
    r"|(?:starts|started|begins|began) (?:in|with)|is (?:broken|faulty|defective|down))\b"
    r"|근본\s?원인|원인(?:은|이|입)|주범|범인|책임",
    _EITHER,
)


def tells_a_cause(sentence: str) -> bool:
    """Whether the sentence says at all that one thing comes from another."""
    own = without_quotations(sentence)
    return any(pattern.search(own) for pattern in (_FORWARD, _BACKWARD, _CONSEQUENCE, _POSTPOSED, _KOREAN_VERB))


def blames(sentence: str) -> bool:
    """Whether the sentence says of something that it is the cause of all."""
    own = without_quotations(sentence)
    return any(not is_denied(own, match) for match in _BLAMED.finditer(own))


def blamed(sentence: str, names: Collection[str]) -> list[str]:
    """Of whom the sentence says so: the name that stands nearest."""
    own = without_quotations(sentence)
    places = named(own, names)
    accusations = [match for match in _BLAMED.finditer(own) if places and not is_denied(own, match)]
    return [min(places, key=lambda place: _distance(place, match.span()))[2] for match in accusations]


def _distance(place: tuple[int, int, str], span: tuple[int, int]) -> int:
    return max(place[0] - span[1], span[0] - place[1])


def causes(sentence: str, names: Collection[str]) -> list[tuple[str, str]]:
    """The (cause, effect) pairs of components that the sentence tells of; in both orders where it cannot be told."""
    return [pair for part in without_quotations(sentence).split("; ") for pair in _causes(part, names)]


def _causes(own: str, names: Collection[str]) -> list[tuple[str, str]]:
    places = named(own, names)
    if len({name for _, _, name in places}) < 2 or not tells_a_cause(own):
        return []
    ways = (_chain, _spread_from, _consequence, _english, _korean)
    return next((pairs for way in ways if (pairs := way(own, places))), [])


_Places = list[tuple[int, int, str]]


def _chain(text: str, places: _Places) -> list[tuple[str, str]]:
    """«a → b → c»."""
    pairs = pairwise(places)
    return [(a, b) for (_, end, a), (start, _, b) in pairs if a != b and text[end:start].strip() in {"→", "->"}]


def _spread_from(text: str, places: _Places) -> list[tuple[str, str]]:
    """«It spread from a to b to c»; each name is the next one's cause."""
    match = _FROM_TO.search(text)
    chain = [name for start, _, name in places if match and start >= match.end()]
    return [(a, b) for a, b in pairwise(chain) if a != b]


def _consequence(text: str, places: _Places) -> list[tuple[str, str]]:
    """«When a failed, b failed»; «a failed, and b in turn»."""
    if not _CONSEQUENCE.search(text):
        return []
    first, last = places[0][2], places[-1][2]
    return [(first, last)] if first != last else []


def _english(text: str, places: _Places) -> list[tuple[str, str]]:
    for pattern, forward in ((_BACKWARD, False), (_FORWARD, True)):
        for match in pattern.finditer(text):
            before = [name for _, end, name in places if end <= match.start()]
            after = [name for start, _, name in places if start >= match.end()]
            if not before and len(after) > 1 and not forward:
                before, after = after[1:], after[:1]  # «because of a, b fails»
            pairs = [(before[-1], name) if forward else (name, before[-1]) for name in after[:1] if before]
            if pairs and pairs[0][0] != pairs[0][1]:
                return pairs
    return []


def _korean(text: str, places: _Places) -> list[tuple[str, str]]:
    """The cause stands right before «때문에»; before a verb it is what has no particle of an object."""
    match = _POSTPOSED.search(text)
    if match:
        before = [name for _, end, name in places if end <= match.start()]
        rest = [name for _, _, name in places if before and name != before[-1]]
        return [(before[-1], name) for name in dict.fromkeys(rest)] if before else []
    if not _KOREAN_VERB.search(text):
        return []
    objects = [name for _, end, name in places if _OBJECT.match(text, end)]
    subjects = [name for _, _, name in places if name not in objects]
    pairs = [(cause, effect) for cause in dict.fromkeys(subjects) for effect in dict.fromkeys(objects)]
    names = list(dict.fromkeys(name for _, _, name in places))
    return pairs or [(a, b) for a in names for b in names if a != b]


# --- extents and order ------------------------------------------------------------------------------------

_EXTENTS: tuple[tuple[re.Pattern[str], float, float], ...] = (
    (re.compile(r"\b(?:not all|not every|not always)\b", _EITHER), 0.0, 0.995),
    (
        re.compile(
            r"\b(?:nearly|almost|virtually|practically) (?:all|every|each)\b|거의 (?:모든|모두|전부|다)(?![가-힣])",
            _EITHER,
        ),
        0.85,
        1.0,
    ),
    (re.compile(r"\bhandful\b", _EITHER), 0.0, 0.1),
    (re.compile(r"\b(?:not a single|not one)\b|하나도", _EITHER), 0.0, 0.005),
    (
        re.compile(r"\b(?:all|every|each|always|entire(?:ly)?|completely)\b|모든|모두|전부|항상|\bat all\b", _EITHER),
        0.995,
        1.0,
    ),
    (re.compile(r"\b(?:most|mostly|the majority|usually)\b|대부분", _EITHER), 0.5, 1.0),
    (re.compile(r"\b(?:hardly any|few|rarely|barely any)\b|거의 없", _EITHER), 0.0, 0.3),
    (re.compile(r"\b(?:no|none|never)\b", _EITHER), 0.0, 0.005),
)
_BEFORE = re.compile(r"\b(?:before|ahead of|earlier than|prior to)\b|보다 먼저|이전에", _EITHER)
_AFTER = re.compile(r"\b(?:only after|after|later than|following)\b", _EITHER)
_THEN = re.compile(r"먼저.{0,20}?(?:그\s?뒤에|그\s?후에|이후에|다음에)|\bfirst,?\s(?:and\s)?then\b", _EITHER)


def extent(clause: str) -> tuple[float, float, str] | None:
    """«All», «most», «hardly any» as the least and the largest share that it stands for, and the word."""
    own = without_quotations(clause)
    for pattern, least, most in _EXTENTS:
        match = pattern.search(own)
        if match:
            return least, most, match.group(0)
    return None


def in_order(sentence: str) -> tuple[str, str] | None:
    """The parts of a sentence of which it says that the first came before the second."""
    for pattern in (_THEN, _AFTER, _BEFORE):
        match = pattern.search(sentence)
        if match:
            before, after = sentence[: match.start()], sentence[match.end() :]
            return (after, before) if pattern is _AFTER else (before, after)
    return None
