"""Takes credentials and personal data out of text before it leaves for a model, or for anybody else.

Each becomes a placeholder, ``[email:ac91f3d0]``: its kind, and a keyed hash of what stood there. The same value gives
the same placeholder in every line, incident and process, so that «the same user» stays visible; only our own raw store
leads back. Rules are told awake by plain substrings, for most of a log has nothing to hide. Every pattern takes time
linear in its text: repeats are possessive, or short.
"""

import hmac
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from ipaddress import ip_address
from math import log2
from typing import Any, TypeVar

import phonenumbers
from pydantic import BaseModel, ConfigDict, Field, field_validator

from collectors.base import LogLine, Series, Span, Telemetry
from graph.state import Evidence

WITHHELD = "[withheld: it could not be masked]"
M = TypeVar("M", bound=BaseModel)
R = TypeVar("R", bound=LogLine | Span | Series)
Match = re.Match[str]
_KIND = r"[a-z][a-z0-9-]{1,31}"
_PASSES = 6  # one uncovers what another has hidden; two are usual


class MaskingError(Exception):
    """Something secret is left in the text after masking, or masking took too long; the text must not leave."""


class MaskPattern(BaseModel):
    """One more thing to hide at this site, e.g. a customer number: ``masking.patterns`` of ``autopilot.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=rf"^{_KIND}$", description="What the placeholder calls it: lower case and hyphens")
    regex: str = Field(
        min_length=1, max_length=500, description="Python's syntax; the last named group, or all, is hidden"
    )

    @field_validator("regex")
    @classmethod
    def _can_be_used(cls, regex: str) -> str:
        try:
            compiled = re.compile(regex)
        except re.error as error:
            raise ValueError(f"this is no regular expression: {error}") from None
        if compiled.search("") or compiled.fullmatch(""):
            raise ValueError("it matches the empty text, so it would hide nothing, everywhere")
        if _repeats_a_repeat(regex):
            raise ValueError("a repeat or | inside a repeat, as in (a+)+, can take for ever; write it without")
        return regex


_SIGNS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\??|[)|]|(?:[*+?]|\{\d*(?:,\d*)?\})[+?]?", re.DOTALL)


def _repeats_a_repeat(regex: str) -> bool:
    """Whether a group that is repeated holds a repeat or a choice, and may give back what it took."""
    varies, closed = [False], -1  # of each open group; where one that varies has just ended
    for found in _SIGNS.finditer(regex):
        sign = found[0]
        if sign[0] == "(":
            varies.append(False)
        elif sign == ")":
            if len(varies) > 1 and varies.pop():
                varies[-1], closed = True, found.end()
        elif sign[0] in "*+?{|":
            if found.start() == closed and sign[0] in "*+{" and not sign[1:].endswith("+"):
                return True
            varies[-1] |= not re.fullmatch(r"\{\d+\}", sign)
    return False


# --- what a match must be, beside its pattern -----------------------------------------------------------------------


def _hidden(match: Match) -> tuple[int, int]:
    """What of the match is the secret: its last named group, or all of it."""
    return match.span(match.lastgroup or 0)


def _value(match: Match) -> str:
    return match[match.lastgroup or 0]


def _always(_: Match) -> bool:
    return True


_HARMLESS_VALUE = re.compile(
    r"null|none|nil|undefined|true|false|yes|no|on|off|empty|[\[(]?(?:redacted|filtered|masked|hidden|removed|omitted)[\])]?"
    r"|={1,3}>?|[A-Za-z_]{1,40}(?:\.[A-Za-z_]{1,40}){0,6}[(\[]|Optional\[\w+\]?"  # code: a call, an index, a type
    r"|(?:self|this|settings|config|process\.env|os\.environ|var|local|module|vars|params|args|req|request|ctx)\.[a-z_][\w.]*"
    r"|(?:creating|refreshing|reading|modifying|destroying)[.…]{0,3}"
    r"|str(?:ing)?|int(?:eger)?|bool(?:ean)?|bytes|number|object|array|SecretStr"
    r"|[*•]+|x{3,}|\.{3}|…|\$\{[^}]*\}|\$\{\w+|(?-i:\$[A-Z_]+)|\{\{.*\}\}|\{\{|%[sdv]|\?|<[\w /.-]*>"
    r"|bearer|basic|digest|token|apikey|negotiate"
    r"|(?:is|not|was|are|has|missing|required|expired|invalid|incorrect|wrong|failed|denied|found|unknown|unset|disabled"
    r"|enabled|rejected|revoked|ok|valid|accepted|granted|refreshed)[.,;!]?",
    re.IGNORECASE,
)
_HARMLESS_SUFFIX = re.compile(
    r"(?:types?|counts?|names?|arn|ur[il]|endpoint|ttl|exp(?:ir\w*)?|expires_?in|_at|At|len(?:gth)?|size|limit|policy"
    r"|version|status|state|age|path|file|ref|usage|used|budget|bucket|managers?|stores?|rotat\w+|provider|format"
    r"|algorithm|encryption|hash(?:er|ing)s?|issuer|attempts|min|max|reset|required|enabled|valid|less|iz\w+|minutes?|seconds?"
    r"|hours?|days?|total|sum|avg"
    r"|errors?|exceptions?|failures?|service|client|controller|handler|filter|factory|repository|config|validator"
    r"|encoder|interceptor|scopes?|audience|hint|field|label|class|mode|method"
    r"|\.(?:java|kt|scala|py|go|js|ts|rb|cs|php|rs))$"
    r"|(?<!ecret)[_-]?(?:id|Id|ID)s?$",
    re.IGNORECASE,
)
_ARN = re.compile(r"arn:aws[\w-]*:[\w-]+:[\w-]*:\d*:$")
_SENTENCE = re.compile(r"(?:[A-Z]?[a-z]{1,15}|[a-z]{1,15}['’][a-z])\Z")
_NEXT_WORD = re.compile(r" [\"'\\]{0,3}[a-z]{1,15}\b")
_REMARK = re.compile(r" [\w ]{1,40}\)")


def _is_secret(match: Match) -> bool:
    """Behind a name like ``password``: no status, no placeholder of somebody else's, no number of tokens."""
    value, suffix = _value(match), match["suffix"]
    if _HARMLESS_VALUE.fullmatch(value) or _HARMLESS_SUFFIX.search(suffix):
        return False
    if suffix == "s" and value.isdigit():
        return False
    if _ARN.search(match.string, max(0, match.start() - 80), match.start()):
        return False
    if "_" in value and match[0][: len(value)].lower() == value.lower():  # «api_key = api_key»
        return False
    return not (match["separator"].endswith(" ") and _is_prose(value, match.string[match.end() : match.end() + 48]))


def _is_prose(value: str, follows: str) -> bool:
    """A word of a sentence, or the first of a remark: «(known after apply)»."""
    if re.fullmatch(r"\([a-z]{1,20}", value):
        return bool(_REMARK.match(follows))
    return bool(_SENTENCE.match(value) and _NEXT_WORD.match(follows))


def _is_paired(match: Match) -> bool:
    """In a list of texts, the one after a name like ``password``; not two column names."""
    in_tuple = match[0].startswith("(") and not re.search(r"\s", _value(match))
    return _is_secret(match) and (in_tuple or _is_random(match, least=12))


def _is_no_status(match: Match) -> bool:
    return not _HARMLESS_VALUE.fullmatch(_value(match))


def _is_random(match: Match, least: int = 16) -> bool:
    """Long, with letters and digits, and no word: its characters are spread."""
    value = _value(match)
    if len(value) < least or value.isdigit() or value.startswith(("arn:", "http")) or not re.search(r"\d", value):
        return False
    counts = Counter(value[:200])
    size = counts.total()
    return -sum(n / size * log2(n / size) for n in counts.values()) >= 3.0


_CLASSES = tuple(map(re.compile, ("[a-z]", "[A-Z]", r"\d", r"[^\w\s./:,;()\[\]{}<>\"'-]")))
_FILE_NAME = re.compile(r"[\w./-]+\.[a-z]{1,5}[,:;]?")


def _is_password(match: Match) -> bool:
    """Where only its looks tell: three of small and capital letters, digits and signs, and no file's name."""
    value = _value(match)
    if len(value) < 6 or _HARMLESS_VALUE.fullmatch(value) or _FILE_NAME.fullmatch(value):
        return False
    return sum(bool(kind.search(value)) for kind in _CLASSES) >= 3


def _is_password_or_key(match: Match) -> bool:
    return _is_password(match) or _is_random(match)


def _is_no_row_of_stars(match: Match) -> bool:
    return not re.fullmatch("[*•]{2,}", _value(match))


def _is_manifest_value(match: Match) -> bool:
    """Whole base64 under a key of a Kubernetes Secret, and no field of the object itself."""
    value = _value(match)
    return len(value) % 4 == 0 and bool(re.search(r"[A-Z]", value)) and bool(re.search(r"[\d=+/]", value))


def _authorizes(match: Match) -> bool:
    """What stands in an ``Authorization`` header, and no «authorization: denied by policy»."""
    scheme = (match["scheme"] or "").lower()
    if _HARMLESS_VALUE.fullmatch(_value(match)):
        return False
    return not scheme or scheme in _SCHEMES or _is_opaque(match)


_SCHEMES = frozenset(
    {"bearer", "basic", "digest", "token", "apikey", "negotiate", "ntlm", "hmac", "jwt", "oauth", "signature", "key"}
)


def _is_opaque(match: Match) -> bool:
    """Not the next word of a sentence."""
    value = _value(match)
    return bool(re.search(r"\d|[a-z][A-Z]", value)) or len(value) > 24


def _is_base64_line(match: Match) -> bool:
    """A line of a key that was logged line by line; a certificate's looks the same, but says so."""
    value = _value(match)
    if "CERTIFICATE-----" in match.string:
        return False
    return all(re.search(kind, value) for kind in ("[a-z]", "[A-Z]", r"\d"))


def _is_email(match: Match) -> bool:
    """No ``git@github.com:``, no ``icon@2x.png``, no ``pkg@1.0.0-beta.rc``."""
    name, _, host = match[0].replace("%40", "@").partition("@")
    return name != "git" and not re.match(r"\d+x\.|v?\d+\.\d+", host)


def _digits(text: str) -> str:
    return re.sub(r"\D", "", text)


_CARDS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]|2[2-7])\d{14}|3[47]\d{13}|(?:6011|65\d\d|64[4-9]\d)\d{12}|35\d{14}"
    r"|3(?:0[0-5]|[68]\d)\d{11}|62\d{14,17}|9[0-9]{15}"
)
_NAMED_ID = re.compile(
    r"(?:id|offset|order|seq(?:uence)?|span|trace|timestamp|time|at|epoch)[\"'\\]{0,3}\s?[:=]\s?[\"'\\]{0,3}$",
    re.IGNORECASE,
)


def _is_card(match: Match) -> bool:
    """An issuer's prefix and length, and its check digit; in one piece, also no id."""
    number = _digits(match[0])
    if not _CARDS.fullmatch(number) or not _passes_luhn(number):
        return False
    if number != match[0]:
        return True
    before = match.string[max(0, match.start() - 24) : match.start()]
    return len(number) <= 16 and number[0] != "9" and not _NAMED_ID.search(before)


def _passes_luhn(number: str) -> bool:
    doubled = (int(d) * 2 for d in number[-2::-2])
    return (sum(int(d) for d in number[-1::-2]) + sum(d - 9 if d > 9 else d for d in doubled)) % 10 == 0


def _is_iban(match: Match) -> bool:
    number = match[0].replace(" ", "")
    return len(number) >= 15 and int("".join(str(int(c, 36)) for c in number[4:] + number[:4])) % 97 == 1


def _is_birthday(match: Match) -> bool:
    number = _digits(match[0])
    return 1 <= int(number[2:4]) <= 12 and 1 <= int(number[4:6]) <= 31


def _is_phone(match: Match, region: str | None = None) -> bool:
    try:
        number = phonenumbers.parse(match[0].replace("%2B", "+"), region)
    except phonenumbers.NumberParseException:
        return False
    if number.country_code and re.search(r"[ .()-]", match[0]) and region is None:
        return phonenumbers.is_possible_number(number)  # written as one; ranges are given out faster than we update
    return phonenumbers.is_valid_number(number)


def _is_address(match: Match) -> bool:
    try:
        ip_address(match[0])
    except ValueError:
        return False
    return True


def _phone(text: str) -> str:
    """E.164, as far as it can be told."""
    digits = _digits(text.replace("%2B", "+"))
    return "82" + digits[1:] if digits.startswith("0") else digits


# --- the rules ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """What to hide: the last named group of the pattern, or all of it, where ``wanted`` agrees.

    ``hints``: one of them is in every text that matches; those in lower case are looked for in any case. A function in
    their place says whether the text may match. ``canonical`` brings spellings of the same value together.
    """

    kind: str
    pattern: re.Pattern[str]
    hints: tuple[str, ...] | Callable[[str], object]
    wanted: Callable[[Match], bool] = _always
    canonical: Callable[[str], str] = str.strip


def _rule(
    kind: str,
    regex: str,
    *hints: str,
    wanted: Callable[[Match], bool] = _always,
    canonical: Callable[[str], str] = str.strip,
    flags: re.RegexFlag = re.ASCII,
) -> Rule:
    return Rule(kind, re.compile(regex, flags | re.ASCII), hints, wanted, canonical)


def _token(
    kind: str,
    regex: str,
    *hints: str,
    wanted: Callable[[Match], bool] = _always,
    flags: re.RegexFlag = re.ASCII,
) -> Rule:
    """A rule whose pattern stands at the start of a word, or after an escape."""
    return _rule(kind, _START + regex, *hints, wanted=wanted, flags=flags)


_START = r"(?:(?<![A-Za-z0-9])|(?<=%[0-9A-F]{2})|(?<=\\[nrt]))"
_EDGE = r"(?:(?<![\w.-])|(?<=\\[nrt])|(?<=%[0-9A-F]{2}))"
_NAME = (
    r"(?:pass(?:w(?:or)?d|phrase|code|wd)|(?<=[a-z0-9][_.-])(?:pass|pw)(?![a-z])|(?-i:(?<=[a-z])P(?:ass|w)(?![a-z]))"
    r"|pwd(?![\"'\s]{0,2}[=:]\s?/)|(?<!existing)(?<!imagepull)secret|(?<!jsonweb)token|credential|jsessionid|phpsessid|connect\.sid"
    r"|sess(?:ion)?[_-]?id|sharedaccess(?:key|signature)|(?<![a-z])otp(?![a-z])"
    r"|(?:api|app|application|access|account|secret|private|signing|encryption|master|shared|license|auth|admin|storage|client"
    r"|webhook|deploy|ssh|jwt|hmac|session|consumer|subscription)[ _.-]?key(?![a-z]*board))"
)
_NAME_HINTS = (
    "pass",
    "pwd",
    "secret",
    "token",
    "credential",
    "sess",
    "connect.sid",
    "key",
    "otp",
    "sharedaccess",
    "pw",
)
_SUFFIX = r"(?P<suffix>[\w.-]{0,40}+)"
_QUOTE = r"(?:&quot;|&#34;|\\{1,3}u0022|%22)"  # a double quote, as other languages write it inside a text
_SEPARATOR = rf"(?P<separator>\]?(?:[\"'\\]{{0,4}}|{_QUOTE})\s{{0,3}}(?::=|=>|[:=]|%3[aAdD])[ \t]{{0,3}})"
_RANDOM_NAME = (  # what stands behind these is a secret if it looks like one
    r"(?:(?:routing|integration|fernet|genie|functions|hmac|aes|cipher|site)[ _.-]?key|art-api|id_token_hint"
    r"|device_code|client_assertion|code_verifier|(?<![a-z])jwt(?![a-z]))"
)
# These end a bare value where another follows, or nothing; elsewhere they are part of it.
_BREAK = r"[,;&#)\]}|](?=[\s,;&)\]}\"'|]|$|\s{0,2}[\w.$-]{1,40}[\"']?\s?[:=])"
_BARE = rf"(?:(?!{_BREAK}|\\[nrt\"'])[^\s\"'<>])++"
_QUOTED = (
    r"(?:\\{1,3}\"(?P<escaped>[^\"\\\n]++)|\"(?P<double>(?:[^\"\\\n]|\\.)++)"
    r"|'(?P<single>(?:[^'\\\n]|\\.)++)|`(?P<ticked>[^`\n]++)"
)
_ASSIGNED = (
    r"(?:[|>][+-]?\r?\n\s{0,40})?"  # a block of YAML
    r"(?:\[?(?:[A-Za-z]\w{0,30}\()?[bBuUrRN]?(?=[\\\"'`]))?"  # ["…"], SecretStr('…'), b'…'
    rf"{_QUOTED}|(?P<quote>{_QUOTE})(?P<coded>(?:(?!(?P=quote))[^\s\"<>])++)"
    rf"|(?<=%3D)(?P<form>(?:(?!%26)[^\s\"'<>&])++)|\[?(?![\[{{<])(?P<bare>{_BARE}))"
)

_SECRET_MANIFEST = re.compile(r"kind[\"'\\]{0,3}:\s?[\"'\\]{0,3}Secret(?![\w-])")

_CREDENTIALS: tuple[Rule, ...] = (
    _rule(
        "private-key",
        r"-{4,5} ?BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)? ?-{1,5}(?:[^-]|-(?!---))*+"
        r"(?:-{4,5} ?END [A-Z0-9 ]{0,40}-{4,5})?",
        "PRIVATE KEY",
    ),
    Rule(
        "private-key",
        re.compile(r"(?<![A-Za-z0-9+/=_-])[A-Za-z0-9+/]{64}(?:[A-Za-z0-9+/]{6})?+\r?$", re.ASCII | re.MULTILINE),
        lambda text: len(text) >= 64 and max(map(len, text.split()), default=0) >= 64,
        _is_base64_line,
    ),
    _rule(
        "private-key",
        r"LS0tLS1CRUdJTi(?:BSU0EgUFJJVkFURS|BQUklWQVRF|BFQyBQUklWQVRF|BPUEVOU1NIIFBSSVZBVEUg|BFTkNSWVBURUQgUFJJVkFURS)"
        r"[A-Za-z0-9+/]{20,}+={0,2}",  # «-----BEGIN … PRIVATE» in base64
        "LS0tLS1CRUdJTi",
    ),
    _rule("private-key", r"0x[a-f0-9]{64}(?![\w])(?<=key.{67})", "key", flags=re.IGNORECASE),
    Rule(
        "secret",
        re.compile(
            r"(?<![\w.-])(?!(?:name|namespace|uid|kind|type|apiVersion|resourceVersion)[\"':\\])[\w.-]{1,253}[\"'\\]{0,3}:"
            r"[ ]?[\"'\\]{0,3}(?P<v>[A-Za-z0-9+/]{12,}+={0,2})(?![\w.:/-])",
            re.ASCII,
        ),
        lambda text: "Secret" in text and _SECRET_MANIFEST.search(text),
        _is_manifest_value,
    ),
    Rule(
        "private-key",
        re.compile(r"[\"'](?:d|k|p|q|dp|dq|qi)\\{0,3}[\"']\s{0,3}:\s{0,3}\\{0,3}[\"'](?P<v>[\w-]{20,}+)", re.ASCII),
        ("kty",),  # a JSON Web Key
        _is_random,
    ),
    _rule(
        "password-hash",
        r"\$(?:[156]|2[abxy]|y|7|apr1|argon2(?:id|i|d)|scrypt|pbkdf2[\w-]{0,10})\$(?P<v>[\w./=,+$-]{20,}+)"
        r"|pbkdf2_sha\d{1,3}\$\d{1,8}\$(?P<django>[\w./=+$-]{20,}+)|\{S?SHA\d{0,3}\}(?P<ldap>[\w+/]{20,}+={0,2})",
        *("$1$", "$5$", "$6$", "$2a$", "$2b$", "$2x$", "$2y$", "$y$", "$7$", "$apr1$", "$argon2", "$scrypt$", "pbkdf2"),
        *("{SHA", "{SSHA"),
    ),
    _rule(
        "authorization",
        r"digest\s{1,3}(?P<v>[a-z]{2,12}=[^\n]{1,1000}?response=\\{0,3}\"?[a-f0-9]{32,64}\\{0,3}\"?)",
        "digest ",
        flags=re.IGNORECASE,
    ),
    _rule(
        "authorization",
        r"authorization[\"'\\]{0,4}\s{0,3}(?:=>|[:=])\s{0,3}[\[\"'\\]{0,4}"
        r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9-]{2,20}) {1,2})?"
        r"(?!(?:bearer|basic|digest|token|apikey|negotiate)(?![\w.~+/=-]))"
        r"(?P<v>[^\s\"',\[\]\\;]++(?:, ?[\w-]{1,40}=\"?[^\s\",'\\]++\"?)*+)",
        "authorization",
        wanted=_authorizes,
        flags=re.IGNORECASE,
    ),
    _token(
        "bearer",
        r"bearer(?:\s{1,3}|%20|\+)(?![a-z_]{2,20}=[^=])(?P<v>[\w.~+/=-]{8,}+)",
        "bearer",
        wanted=_is_opaque,
        flags=re.IGNORECASE,
    ),
    _token(
        "basic-auth",
        r"basic\s{1,3}(?P<v>[\w+/]{8,}+={0,2})(?![\w-])",
        "basic ",
        wanted=_is_opaque,
        flags=re.IGNORECASE,
    ),
    _rule(
        "cookie",
        r"cookies?[\"'\\]{0,3}\s{0,2}[:=]\s{0,2}[\"'\\\[]{0,2}(?P<v>[^\s;=,\"'{]{1,128}=[^\s;,\"'\\]*+"
        r"(?:; ?[^\s;=,\"']{1,128}(?:=[^\s;,\"'\\]*+)?+)*+)",
        "cookie",
        flags=re.IGNORECASE,
    ),
    _rule("jwt", r"(?:(?<![\w-])eyJ[\w-]{8,}+|eyJ[\w-]{8,300})\.[\w-]{4,}+(?:\.[\w-]*+)?", "eyJ"),
    _rule("oracle-password", r"oracle:thin:[^\s/@]{1,64}/(?P<v>[^\s@]++)@", "oracle:thin:"),
    _rule("url-password", r"://(?P<v>[^\s/:@\"'<>]{16,256}):(?:x-oauth-basic)?@", "://"),
    _rule(
        "url-password",
        r"(?:postgres|mysql|mariadb|mongodb|redis|amqp|mssql)[\w+]{0,12}://[^\s/:@\"'<>\[\]]{0,128}:(?!\d{2,5}[/,])"
        r"(?P<v>(?:(?!://)[^\s\"'<>]){1,512})@(?=[\w.\[-]{1,128}(?:[:/?,\s\"'\\]|$))",  # up to the last @
        "://",
        wanted=_is_no_row_of_stars,
        flags=re.IGNORECASE,
    ),
    _rule(
        "url-password",
        r"://[^\s/:@\"'<>\[\]]{0,128}:(?P<v>(?!\d{2,5}/)[^\s/\"'<>@]{1,512}(?:@[^\s/\"'<>@]{1,64}){0,3})"
        r"@(?=[\w.\[-])",
        "://",
        wanted=_is_no_row_of_stars,
    ),
    _rule(  # the line was cut off before its @
        "url-password",
        r"://(?!sha256:)[^\s/:@\"'<>\[\]]{0,128}:(?P<v>(?!\d{1,5}(?:[”…]|\Z))[^\s/@\"'<>”…]{3,512}+)(?=[”…]|\Z)",
        "://",
        wanted=_is_no_row_of_stars,
    ),
    _rule(
        "url-password",
        r"proxy[\"'\\]{0,3}\s?[=:]\s?[\"'\\]{0,3}[\w.-]{1,64}:(?P<v>[^\s@/\"']{3,256}+)@(?=[\w.\[-])",
        "proxy",
        wanted=_is_no_row_of_stars,
        flags=re.IGNORECASE,
    ),
    _rule(
        "slack-webhook",
        r"hooks\.slack\.com(?:/|%2F)(?:services|workflows|triggers)(?:/|%2F)(?P<v>[\w/%-]{10,}+)",
        "hooks.slack.com",
    ),
    _rule(
        "discord-webhook", r"discord(?:app)?\.com/api/(?:v\d{1,2}/)?webhooks/(?P<v>\d{10,}+/[\w-]{20,}+)", "/webhooks/"
    ),
    _rule("teams-webhook", r"/webhookb2/(?P<v>[\w@-]{20,}+/IncomingWebhook/[\w/-]{20,}+)", "webhookb2"),
    _rule("teams-webhook", r"/IncomingWebhook/(?P<v>[\w/-]{20,}+)", "/IncomingWebhook/"),
    _rule(
        "webhook",
        r"(?:hooks\.zapier\.com/hooks/catch|hook\.\w{2,5}\.make\.com|open-apis/bot/v2/hook|/trigger/\w{1,64}/with/key)"
        r"/(?P<v>[\w/-]{16,}+)",
        "hooks.zapier.com",
        ".make.com/",
        "/bot/v2/hook/",
        "/with/key/",
    ),
    _rule("telegram-token", r"\d{8,10}:AA[\w-]{30,}+", ":AA"),
    _rule(
        "aws-secret",
        r"(?:AKIA|ASIA)[A-Z0-9]{12,20}[\"'\s,:;|/]{1,5}(?P<v>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+])",
        "AKIA",
        "ASIA",
    ),
    _token("aws-key", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{12,}+", "AKIA", "ASIA", "ABIA", "ACCA"),
    _rule("aws-session", r"(?:FwoG|IQoJ|FQoG|AQoD)[A-Za-z0-9/+%]{50,}+={0,2}", "FwoG", "IQoJ", "FQoG", "AQoD"),
    _token("gcp-key", r"AIza[\w-]{20,}+", "AIza"),
    _token("gcp-token", r"ya29\.[\w.-]{20,}+|GOCSPX-[\w-]{20,}+", "ya29.", "GOCSPX-"),
    _token("azure-secret", r"[\w.~-]{3}\dQ~[\w.~-]{20,}+", "Q~"),
    _rule(
        "github-token",
        r"gh[pousr]_[A-Za-z0-9]{16,}+|github_pat_\w{16,}+",
        "ghp_",
        "gho_",
        "ghu_",
        "ghs_",
        "ghr_",
        "github_pat_",
    ),
    _token(
        "gitlab-token",
        r"gl(?:pat|dt|rt|ptt|cbt|ft|soat|agent|oas|imt|ffct)-[\w.-]{16,}+|GR1348941[\w-]{16,}+",
        "gl",
        "GR1348941",
    ),
    _token("slack-token", r"xox[a-z](?:\.xox[a-z])?-[\w-]{10,}+|xapp-\d-[\w-]{10,}+", "xox", "xapp-"),
    _rule(
        "stripe-key",
        r"[srp]k_(?:live|test)_[A-Za-z0-9]{10,}+|whsec_[A-Za-z0-9+/]{16,}+",
        "k_live_",
        "k_test_",
        "whsec_",
    ),
    _rule("toss-key", r"(?:live|test)_g?[sc]k_[A-Za-z0-9]{16,}+", "live_", "test_"),
    _token("api-key", r"(?:sk|pk|rk)-(?:[a-z]{2,10}-)?[\w-]{16,}+", "k-"),
    _token("hugging-face-token", r"(?:hf|api_org)_[A-Za-z0-9]{30,}+", "hf_", "api_org_"),
    _token("groq-key", r"gsk_[A-Za-z0-9]{20,}+", "gsk_"),
    _token("replicate-token", r"r8_[A-Za-z0-9]{20,}+", "r8_"),
    _token("npm-token", r"npm_[A-Za-z0-9]{20,}+", "npm_"),
    _rule("pypi-token", r"pypi-AgE[\w-]{20,}+", "pypi-"),
    _rule("rubygems-key", r"rubygems_[a-f0-9]{20,}+", "rubygems_"),
    _token("sendgrid-key", r"SG\.[\w-]{16,32}+\.[\w-]{16,64}+", "SG."),
    _token("twilio-key", r"SK[a-f0-9]{32}(?![A-Za-z0-9])", "SK"),
    _token("mailgun-key", r"key-[a-f0-9]{32}(?![A-Za-z0-9])", "key-"),
    _token("mailchimp-key", r"[a-f0-9]{32}-us\d{1,2}(?!\w)", "-us"),
    _rule("new-relic-key", r"NR(?:A[AKLP]|JS|BR|RA|SP)-[\w-]{16,}+|NRI[IQ]-[\w-]{20,}+|[a-f0-9]{36}NRAL", "NR"),
    _rule("grafana-token", r"gls?[ac]_[A-Za-z0-9+/]{20,}+(?:_[A-Fa-f0-9]{8})?", "gl"),
    _rule("sentry-token", r"sntry[su]_[A-Za-z0-9+/=_]{20,}+", "sntry"),
    _rule("digitalocean-token", r"do[opr]_v1_[a-f0-9]{20,}+", "_v1_"),
    _rule("shopify-token", r"shp(?:at|ss|ca|pa)_[a-fA-F0-9]{16,}+", "shp"),
    _rule("square-token", r"sq0[a-z]{3}-[\w-]{16,}+", "sq0"),
    _token("vault-token", r"hv[sbr]\.[\w-]{20,}+", "hvs.", "hvb.", "hvr."),
    _rule("terraform-token", r"[A-Za-z0-9]{14}\.atlasv1\.[\w=-]{20,}+", "atlasv1"),
    _rule("docker-token", r"dckr_[po]at_[\w-]{16,}+", "dckr_"),
    _token("databricks-token", r"dapi[a-f0-9]{32}(?:-\d)?", "dapi"),
    _token("doppler-token", r"dp\.(?:pt|st|ct|sa|scim|audit)\.[\w.-]{20,}+", "dp."),
    _rule("postman-key", r"PMAK-[a-f0-9]{20,}+-[a-f0-9]{20,}+", "PMAK-"),
    _rule("atlassian-token", r"AT[A-Z]{2}T3xFf[\w=-]{20,}+|ATBB[A-Za-z0-9=]{28,}+", "T3xFf", "ATBB"),
    _rule("linear-key", r"lin_(?:api|oauth)_[A-Za-z0-9]{16,}+", "lin_"),
    _token("notion-token", r"ntn_[A-Za-z0-9]{20,}+|secret_[A-Za-z0-9]{40,}+", "ntn_", "secret_"),
    _rule("figma-token", r"figd_[\w-]{20,}+", "figd_"),
    _token("airtable-token", r"pat[A-Za-z0-9]{14}\.[a-f0-9]{20,}+", "pat"),
    _rule("heroku-key", r"HRKU-[\w-]{20,}+", "HRKU-"),
    _rule("planetscale-key", r"pscale_(?:pw|tkn|oauth)_[\w.=-]{20,}+", "pscale_"),
    _rule("supabase-token", r"sbp_[a-f0-9]{20,}+|sb_secret_[\w-]{16,}+", "sbp_", "sb_secret_"),
    _rule("dynatrace-token", r"dt0[a-z]\d\d\.[A-Z0-9]{24}\.[A-Z0-9]{32,}+", "dt0"),
    _token("datadog-key", r"dd(?:p|app|oa)t?_[A-Za-z0-9]{30,}+", "dd"),
    _rule("age-key", r"AGE-SECRET-KEY-1[A-Z0-9]{20,}+", "AGE-SECRET-KEY-1"),
    _rule("fly-token", r"fm[12][ar]?_[A-Za-z0-9+/%]{50,}+={0,3}|fo1_[\w-]{40,}+", "fm1", "fm2_", "fo1_"),
    _token("xai-key", r"(?:xai|pplx)-[A-Za-z0-9]{20,}+", "xai-", "pplx-"),
    _token("facebook-token", r"EAA[A-Za-z0-9][\w-]{50,}+", "EAA"),  # and Square's
    _token("langsmith-key", r"lsv2_[a-z]{2}_[a-f0-9]{20,}+(?:_[a-f0-9]{6,}+)?", "lsv2_"),
    _token("brevo-key", r"x(?:key|smtp)sib-[a-f0-9]{40,}+(?:-[A-Za-z0-9]{8,}+)?", "sib-"),
    _token("resend-key", r"re_[A-Za-z0-9]{8}_?[A-Za-z0-9]{20,}+", "re_", wanted=_is_opaque),
    _token("jfrog-key", r"AKC[A-Za-z0-9]{60,}+|cmVmdGtu[A-Za-z0-9+/]{40,}+={0,2}", "AKC", "cmVmdGtu"),
    _token("crates-token", r"cio[A-Za-z0-9]{32}(?![A-Za-z0-9])", "cio", wanted=_is_random),
    _token("honeycomb-key", r"hc[abx][a-z]{2}_[a-z0-9]{40,}+", "hca", "hcb", "hcx"),
    _token("netlify-token", r"nf[bcopu]_[A-Za-z0-9]{30,}+", "nfb_", "nfc_", "nfo_", "nfp_", "nfu_"),
    _token("vercel-token", r"vc[aikpr]_[A-Za-z0-9]{20,}+", "vca_", "vci_", "vck_", "vcp_", "vcr_", wanted=_is_opaque),
    _token("pulumi-token", r"pul-[a-f0-9]{40}(?![A-Za-z0-9])", "pul-"),
    _token("tailscale-key", r"tskey-[a-z]{2,12}-[\w-]{16,}+", "tskey-"),
    _token("onepassword-token", r"ops_eyJ[\w-]{40,}+", "ops_eyJ"),
    Rule(
        "asana-token",
        re.compile(_START + r"\d/\d{13,19}(?:/\d{13,19})?:[a-f0-9]{32}(?![A-Za-z0-9])", re.ASCII),
        re.compile(r"\d/\d{13}", re.ASCII).search,
    ),
    _token("azure-devops-token", r"[A-Za-z0-9]{76}AZDO[A-Za-z0-9]{4}(?![A-Za-z0-9])", "AZDO"),
    _token("gcp-token", r"1//0[\w-]{30,}+", "1//0"),
    Rule(
        "discord-token",
        re.compile(_START + r"[MNO][\w-]{22,27}\.[\w-]{6}\.[\w-]{27,}+", re.ASCII),
        re.compile(r"[MNO][\w-]{22,27}\.[\w-]{6}\.", re.ASCII).search,
        _is_random,
    ),
    _token("buildkite-token", r"bk[a-z]{2}_[a-f0-9]{40}(?![A-Za-z0-9])", "bk"),
    _token("sourcegraph-token", r"sgp_(?:[a-f0-9]{16}_|local_)?[a-f0-9]{40}(?![A-Za-z0-9])", "sgp_"),
    _token("prefect-key", r"pn[ub]_[A-Za-z0-9]{30,}+", "pnu_", "pnb_"),
    _token("infracost-key", r"ico-[A-Za-z0-9]{30,}+", "ico-"),
    _token("contentful-token", r"CFPAT-[\w-]{30,}+", "CFPAT-"),
    _token("nvidia-key", r"nvapi-[\w-]{40,}+", "nvapi-"),
    _token("posthog-key", r"phx_[A-Za-z0-9]{30,}+", "phx_"),
    _token("render-key", r"rnd_[A-Za-z0-9]{26,}+", "rnd_", wanted=_is_random),
    _token("shippo-token", r"shippo_(?:live|test)_[a-f0-9]{30,}+", "shippo_"),
    _token("easypost-key", r"EZ[AT]K[A-Za-z0-9]{50,}+", "EZAK", "EZTK"),
    _rule(  # a password in braces, as ODBC writes it
        "secret",
        r"(?:pwd|password)\s?=\s?\{(?P<v>[^{}\s\"']{4,128}+)\}(?=[;\"'\s]|\Z)",
        "={",
        "= {",
        wanted=_is_no_status,
        flags=re.IGNORECASE,
    ),
    _rule(  # what Terraform changes it to
        "secret",
        rf"{_NAME}{_SUFFIX}(?P<separator>)\s{{0,30}}=\s?\"[^\"\n]{{0,512}}+\" -> \"(?P<v>[^\"\n]++)",
        "-> ",
        wanted=_is_secret,
        flags=re.IGNORECASE,
    ),
    _rule(
        "secret",
        rf"{_NAME}{_SUFFIX}(?P<separator>)[\"'\\]{{0,4}}\s?[:=]\s?\{{[^{{}}]{{0,200}}?value\\{{0,3}}\"\s?:\s?\\{{0,3}}\""
        r"(?P<v>[^\"\\\n]++)",
        "value",
        wanted=_is_secret,
        flags=re.IGNORECASE,
    ),
    _rule(
        "secret",
        rf"(?:(?-i:ENV|ARG)|variable) [\w.-]{{0,40}}?{_NAME}{_SUFFIX}(?P<separator>) (?:to |is )?"
        rf"{_QUOTED}|(?P<bare>[^\s\"']++))",
        "ENV ",
        "ARG ",
        "variable ",
        wanted=_is_secret,
        flags=re.IGNORECASE,
    ),
    _rule(
        "secret",
        rf"{_RANDOM_NAME}[\w.-]{{0,20}}+[\"'\\]{{0,4}}(?:\s{{0,3}}(?:=>|[:=]|%3D)\s{{0,3}}"
        r"|[\s,]{1,20}[\"'\\]{0,4}value[\"'\\]{0,4}\s{0,3}[:=]\s{0,3}|\s{1,3})[\"'\\]{0,4}(?P<v>[\w+/.~%=-]{16,}+)",
        "key",
        "art-api",
        "id_token_hint",
        "device_code",
        "client_assertion",
        "code_verifier",
        "jwt",
        wanted=_is_random,
        flags=re.IGNORECASE,
    ),
    _rule(  # mail and file servers' sessions
        "secret",
        r"AUTH (?:PLAIN|LOGIN|XOAUTH2|CRAM-MD5|NTLM|OAUTHBEARER) (?P<v>[A-Za-z0-9+/]{8,}+={0,2})"
        r"|334 (?:UGFzc3dvcmQ6|VXNlcm5hbWU6|)\s{1,4}(?:[^\w\s]{1,4} ?|C: )?(?P<answer>[A-Za-z0-9+/]{8,}+={0,2})"
        r"|(?:C: |>>> |---> |331[^\n]{0,100}\n)PASS (?P<plain>\S++)"
        r"|(?<!\w)[A-Za-z]{1,4}\d{1,6} LOGIN \"?[^\s\"]{1,128}\"? \"?(?P<imap>[^\s\"]++)",
        "AUTH ",
        "334 ",
        "PASS ",
        " LOGIN ",
    ),
    _rule(
        "one-time-code",
        r"(?:(?:otp|mfa|2fa|totp|verification|login|authentication|security|confirmation|one-time)[ _-](?:pass)?code"
        r"|(?<![a-z])otp)[\"'\\]{0,3}(?: is)?[:=]?\s?[\"'\\]{0,3}(?P<v>\d{4,8})(?![\w.-])",
        "code",
        "otp",
        flags=re.IGNORECASE,
    ),
    _rule(
        "secret",
        rf"{_NAME}{_SUFFIX}{_SEPARATOR}{_ASSIGNED}",
        *_NAME_HINTS,
        wanted=_is_secret,
        flags=re.IGNORECASE,
    ),
    _rule(
        "secret",
        r"(?<![\w-])(?:pass|pw)[\"'\\]{0,3}\s?(?:=>|[:=])\s?[\"'\\]{0,3}(?P<v>[^\s\"',;\\]{6,128}+)",
        "pass",
        "pw",
        wanted=_is_password,
        flags=re.IGNORECASE,
    ),
    _rule(
        "secret",
        rf"<[\w:.-]{{0,40}}?{_NAME}{_SUFFIX}(?P<separator>)(?: [^<>]{{0,200}})?>(?P<v>[^<>]{{1,4096}}+)</",
        "</",
        wanted=_is_secret,
        flags=re.IGNORECASE,
    ),
    _rule(
        "secret",
        rf"(?<![\w-])--?[\w.-]{{0,40}}?{_NAME}{_SUFFIX}(?P<separator>) {{1,3}}(?!-){_QUOTED}|(?P<bare>[^\s\"']++))",
        *_NAME_HINTS,
        wanted=_is_secret,
        flags=re.IGNORECASE,
    ),
    _rule(
        "secret",
        r"(?:identified(?: with [\w']{1,40})? by|password|passphrase)\s{1,3}"
        r"(?:'(?P<single>[^'\n]++)|\"(?P<double>[^\"\n]++))",
        "identified",
        "pass",
        wanted=_is_no_status,
        flags=re.IGNORECASE,
    ),
    _rule(
        "secret",
        rf"(?:name|key)[\"'\\]{{0,4}}\s{{0,3}}[:=]\s{{0,3}}[\"'\\]{{0,4}}[\w.-]{{0,40}}?{_NAME}{_SUFFIX}(?P<separator>[\"'\\]{{0,4}})[\s,]{{1,20}}"
        rf"[\"'\\]{{0,4}}\w{{0,20}}value[\"'\\]{{0,4}}\s{{0,3}}[:=]\s{{0,3}}{_ASSIGNED}",
        "value",
        wanted=_is_secret,
        flags=re.IGNORECASE,
    ),
    _rule(
        "secret",
        rf"\(?[bu]?[\"'][\w.-]{{0,40}}?{_NAME}{_SUFFIX}(?P<separator>[\"']), ?[bu]?"
        r"(?:\"(?P<double>[^\"\n]++)|'(?P<single>[^'\n]++))",
        *_NAME_HINTS,
        wanted=_is_paired,
        flags=re.IGNORECASE,
    ),
    _rule(
        "secret",
        rf":[\w.-]{{0,40}}?{_NAME}{_SUFFIX}(?P<separator>) \"(?P<double>(?:[^\"\\\n]|\\.)++)",
        *_NAME_HINTS,
        wanted=_is_secret,
        flags=re.IGNORECASE,
    ),
    _rule(
        "secret",
        r"(?:(?:(?<![a-z])login|mongo\w{0,8})[^\n|;]{0,200}? -p|redis-cli[^\n|;]{0,200}? -a"
        r"|ldap\w{3,8}[^\n|;]{0,200}? -w"
        r"|snmp\w{2,10}[^\n|;]{0,200}? -[AX]|-pass(?:in|out)?[ =]pass:|login \S{1,64} password"
        r"|configure set \w{0,10}(?:secret_access_key|session_token))[ =]?[\"']?(?P<v>[^\s'\"]++)",
        "login",
        "mongo",
        "redis-cli",
        "ldap",
        "snmp",
        "-pass",
        "configure set",
    ),
    _rule("secret", r"(?<![a-z])mysql(?:dump|admin|import)?(?![\w-])[^\n|]{0,200}? -p(?P<v>[^\s'\"=]\S*+)", "mysql"),
    _rule(
        "secret",
        r"(?:redis-cli[^\n|;]{0,200}? --pass|zip[^\n|;]{0,100}? -P|ipmitool[^\n|;]{0,200}? -P"
        r"|snmp\w{2,10}[^\n|;]{0,200}? -c"
        r"|user(?:add|mod) [^\n|;]{0,200}?-p|-(?:src|dest)?(?:store|key)pass"
        r"|rabbitmqctl (?:add_user|change_password) \S{1,64}"
        r"|htpasswd -\w{0,6}b\w{0,6} \S{1,128} \S{1,64}|sudo -S <<<|vault login(?: -\S{1,64}){0,4}|bindpw"
        r"|net use (?:\S{1,4} )?\\{2,4}[^\s]{1,128})[ =][\"']?(?![-\"'/$])(?P<v>[^\s'\"]++)",
        *(
            "redis-cli",
            "zip",
            "ipmitool",
            "snmp",
            "useradd",
            "usermod",
            "storepass",
            "keypass",
            "rabbitmqctl",
            "htpasswd",
        ),
        *("sudo -s", "vault login", "bindpw", "net use"),
        wanted=_is_no_status,
    ),
    _rule("secret", r"(?<!\w)7z[ar]? [a-z] [^\n|;]{0,100}?-p(?P<v>[^\s'\"]++)", "7z"),
    _rule("secret", r"smbclient[^\n|;]{0,200}? -U [\"']?[^\s%]{1,64}%(?P<v>[^\s'\"]++)", "smbclient"),
    _rule(
        "secret",
        r"echo (?:-n )?[\"']?(?:[\w.-]{1,64}:(?=[^|\n]{1,200}\| ?(?:sudo )?chpasswd))?"
        r"(?P<v>[^\s'\"|$:]{4,256}+)[\"']? ?"
        r"\| ?[^\n|]{0,100}?(?:-password-stdin|chpasswd)",
        "-password-stdin",
        "chpasswd",
    ),
    _rule("secret", r"sqlplus (?:-\S{1,8} )*+[\"']?[\w$#]{1,64}/(?P<v>[^\s@/]++)@", "sqlplus"),
    _rule("secret", r"(?<![\w:/])[\w.-]{1,64}:(?P<v>[^\s:@\"'/]{1,128}+)@(?:tcp|unix)\(", "@tcp(", "@unix("),
    _rule(  # a line of .pgpass
        "secret", r":\d{4,5}:(?:\*|[\w-]{1,63}):[\w.*-]{1,63}:(?P<v>[^\s\"'<>]{6,128}+)", ":", wanted=_is_password
    ),
    _rule("secret", r"\d> ?AUTH (?:[\w-]{1,40} )?[\"']?(?P<v>[^\s'\"]++)|(?<!\w)AUTH default (?P<w>\S++)", "AUTH "),
    _rule("secret", r"= ?password\([\"'](?P<v>[^\"'\n]++)", "password(", flags=re.IGNORECASE),
    _rule("secret", r"::add-mask::(?P<v>\S++)", "::add-mask::"),
    _rule("secret", r"sshpass -p ?[\"']?(?P<v>[^\s'\"]++)", "sshpass"),
    _rule(
        "secret",
        r"(?: -u|--user|--proxy-user)[ =](?!\d{1,10}:\d{1,10}\s)[\"']?[^\s:'\"]{1,64}:(?P<v>[^\s'\"]++)",
        " -u",
        "-user",
    ),
    _rule(
        "secret",
        r"(?:requirepass|masterauth)\s{1,3}[\"']?(?P<v>[^\s'\"]++)",
        "requirepass",
        "masterauth",
        flags=re.IGNORECASE,
    ),
    _rule(
        "secret", r"redis[^\n]{0,60}? AUTH (?:[\w-]{1,40} )?[\"']?(?P<v>[^\s'\"]{4,}+)", " AUTH ", wanted=_is_no_status
    ),
    _rule(
        "secret",
        r"(?:token|secret|(?:api|access|secret|private|signing|encryption)[ _-]?key|password|passphrase|credentials?)s?"
        r"(?: (?:key|value|is|was|id|string|for))?[\"'`]?(?:[\s(]{1,3}|=)[\"'`]?(?P<v>(?!arn:)[\w+/.~=%-]{16,}+)",
        *_NAME_HINTS,
        wanted=_is_random,
        flags=re.IGNORECASE,
    ),
    _rule(
        "secret",
        r"(?:password|passphrase) (?:is|was|set to|changed to|now) [\"'`]?"
        r"(?P<v>(?=[^\s\"'`]{0,64}?[\d!#$%^&*@])[^\s\"'`]{6,}+)",
        "passw",
        "passphrase",
        flags=re.IGNORECASE,
    ),
    _rule(
        "secret",
        r"(?:비밀번호|암호|패스워드|인증번호|인증키|토큰|시크릿)(?:는|은|이|가)?\s?[:=]?\s{0,2}[\"'`]?(?P<v>[!-~]{4,}+)",
        "비밀번호",
        "암호",
        "패스워드",
        "인증번호",
        "인증키",
        "토큰",
        "시크릿",
        wanted=_is_no_status,
    ),
    _rule(
        "secret",
        r"(?:pass(?:word|phrase)[ \w@.-]{0,60}?(?::\s{1,4}| (?:is|to|as) )|with password )[\"'`]?"
        r"(?P<v>(?=[^\s\"'`]{0,64}?[\d!#$%^&*~_])[^\s\"'`]{6,128}+)",
        "password",
        "passphrase",
        wanted=_is_password,
        flags=re.IGNORECASE,
    ),
    _rule(
        "secret",
        r"(?<![a-z])(?:creds?|credentials?|접속 ?정보)\s?[:=]?\s{0,2}[\w.@-]{1,64} ?[/:] ?(?P<v>[^\s\"'`,]{6,128}+)",
        "cred",
        "접속",
        wanted=_is_password,
        flags=re.IGNORECASE,
    ),
    _rule(
        "secret",
        r"(?<![a-z])(?:id|user|아이디|계정)\s?/\s?(?:pwd?|비번|비밀번호|암호)\s?[:=]\s?[\w.@-]{1,64}\s?/\s?(?P<v>[!-~]{4,128}+)",
        "pw",
        "비번",
        "비밀번호",
        "암호",
        wanted=_is_no_status,
        flags=re.IGNORECASE,
    ),
    _rule(
        "secret",
        r"(?:비번|(?:비밀|인증|개인|서비스|시크릿|접근|액세스|API|암호화) ?키"
        r"|(?:비밀번호|암호|패스워드|비번)[를을로])(?:는|은|이|가)?\s?[:=]?\s{0,2}"
        r"[\"'`\[(]?(?P<v>(?:(?!\([으로을를이가은는])[!-~]){6,512}+)",
        "비번",
        "키",
        "비밀번호",
        "암호",
        "패스워드",
        wanted=_is_password_or_key,
        flags=re.IGNORECASE,
    ),
    _rule(
        "signature",
        r"(?<![a-z])(?:sig|signature|x-amz-credential|x-amz-signature|_?auth|session|sid|ticket|(?:routing|integration)[_-]key"
        r"|(?<=[?&])(?:key|code)|(?<![\w.-])code(?==[^\s&]{16,512}&))[\"'\\]{0,3}(?:[:=]|%3D)\s?[\"'\\]{0,3}(?P<v>[\w+/.~%=-]{16,}+)",
        "sig",
        "x-amz-",
        "auth",
        "session",
        "sid",
        "ticket",
        "key",
        "code=",
        wanted=_is_random,
        flags=re.IGNORECASE,
    ),
)

_NUMBERISH = re.compile(
    r"\d(?:(?<![0-9A-Za-z]\d)|(?<=\\[nrt]\d)|(?<=%[0-9A-F]{2}\d))"
    r"(?:\d{12,15}(?!\w)|\d{3}[ -]\d{4,6}[ -]\d{4,5}|\d{5} ?- ?[1-8]\d{6}|\d\d-\d{2}-\d{4}"
    r"|\d{1,2}[-. )]{1,2}\d{3,4}[-. ]\d{4}|1[016-9]\d{7,8})",
    re.ASCII,
).search


def _number(
    kind: str,
    regex: str,
    wanted: Callable[[Match], bool] = _always,
    canonical: Callable[[str], str] = _digits,
    hints: tuple[str, ...] | Callable[[str], object] = _NUMBERISH,
) -> Rule:
    return Rule(kind, re.compile(regex, re.ASCII), hints, wanted, canonical)


_AFTER = r"(?![\w-])(?!\.\d)"
_PERSONAL: tuple[Rule, ...] = (
    _rule(
        "email",
        r"(?<![A-Za-z0-9._%+-])(?:%[0-9A-F]{2})?[A-Za-z0-9][A-Za-z0-9._+-]{0,63}(?:@|%40)"
        r"(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9-])",
        "@",
        "%40",
        wanted=_is_email,
        canonical=lambda text: text.replace("%40", "@").strip().lower(),
    ),
    _number(
        "iban",
        r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])",
        _is_iban,
        lambda text: text.replace(" ", ""),
        re.compile(r"[A-Z]{2}\d{2} ?[A-Z0-9]{4}", re.ASCII).search,
    ),
    _number(
        "card", rf"{_EDGE}\d{{4}}(?:([ -]?)\d{{4}}\1\d{{4}}\1\d{{1,7}}|([ -]?)\d{{6}}\2\d{{4,5}}){_AFTER}", _is_card
    ),
    _number("resident-number", rf"{_EDGE}\d{{6}}[ ]?-[ ]?[1-8]\d{{6}}{_AFTER}", _is_birthday),
    _number("ssn", rf"{_EDGE}(?!000|666|9)\d{{3}}-(?!00)\d{{2}}-(?!0000)\d{{4}}{_AFTER}"),
    _number(
        "phone",
        r"(?<![\w+])(?:\+|%2B)\d{1,3}(?:[ .-]{0,1}\(?\d{1,4}\)?){2,6}(?!\w)",
        _is_phone,
        _phone,
        hints=("+", "%2b"),
    ),
    _number("phone", rf"{_EDGE}01[016-9][-. ]?\d{{3,4}}[-. ]?\d{{4}}{_AFTER}", canonical=_phone),
    _number("phone", rf"{_EDGE}0(?:2|[3-6]\d|70|50\d)[-)] ?\d{{3,4}}-\d{{4}}{_AFTER}", canonical=_phone),
    _number(
        "phone",
        rf"{_EDGE}(?:\(\d{{3}}\) ?|\d{{3}}[-. ])\d{{3}}[-.]\d{{4}}{_AFTER}",
        partial(_is_phone, region="US"),
        lambda text: "1" + _digits(text),
    ),
    _number(
        "phone",
        r"(?:(?:phone|mobile|telephone)(?:[_-]?(?:number|no))?|msisdn|전화번호|전화|연락처|휴대폰)[\"'\\]{0,3}\s?[:=]\s?"
        r"[\"'\\]{0,3}(?P<v>\+?\(?\d[\d ().-]{6,20}\d)(?!\w)",
        canonical=_phone,
        hints=("phone", "mobile", "msisdn", "전화", "연락처", "휴대폰"),
    ),
)
_ADDRESSES: tuple[Rule, ...] = (
    _number("ip", r"(?<![\w.-])\d{1,3}(?:\.\d{1,3}){3}(?![\w-]|\.\d)", _is_address, str.strip, (".",)),
    _number(
        "ip",
        r"(?<![\w:.])[0-9A-Fa-f:]{2,39}(?:(?<=:)\d{1,3}(?:\.\d{1,3}){3})?(?![\w:])",
        _is_address,
        str.lower,
        (":",),
    ),
)

_STRICT: tuple[tuple[str, str, re.Pattern[str]], ...] = tuple(
    (kind, hint, re.compile(regex, re.ASCII))
    for kind, hint, regex in (
        ("private key", "PRIVATE KEY-", r"-----BEGIN [A-Z ]*PRIVATE KEY-"),
        ("JWT", "eyJ", r"eyJ[\w-]{10,300}\.eyJ[\w-]{10}"),
        ("AWS key", "AKIA", r"(?<![A-Za-z0-9])AKIA[A-Z0-9]{16}"),
        ("AWS key", "ASIA", r"(?<![A-Za-z0-9])ASIA[A-Z0-9]{16}"),
        ("GitHub token", "gh", r"(?<![A-Za-z0-9])gh[pousr]_[A-Za-z0-9]{36}"),
        ("GitLab token", "glpat-", r"glpat-[\w-]{20}"),
        ("Slack token", "xox", r"xox[abeprs]-\d{8}"),
        ("Slack webhook", "hooks.slack.com/", r"hooks\.slack\.com/services/T\w{6,}/B"),
        ("Stripe key", "_live_", r"[sr]k_live_[A-Za-z0-9]{16}"),
        ("Google key", "AIza", r"(?<![A-Za-z0-9])AIza[\w-]{35}"),
        ("API key", "sk-", r"(?<![A-Za-z0-9])sk-(?:ant|proj|lf)-[\w-]{20}"),
        (
            "password in a URL",
            "://",
            r"://[^\s/:@\"'<>\[\]]{0,64}:(?!\d{2,5}/|[*•]{2,200}@)[^\s/@\"'<>\[\]]{1,200}@[\w.-]",
        ),
        ("bearer token", "earer ", r"[Aa]uthorization[\"']?[:=] ?[\"']?[Bb]earer [\w.~+/=-]{16}"),
        *(
            (
                "secret",
                word,
                rf"{word}[\"']?[:=] ?[\"']?(?=[^\W_]*\d)(?=[^\W_]*[a-z])(?=[^\W_]*[A-Z])[^\W_]{{20,200}}(?![\w/.-])",
            )
            for word in ("password", "secret", "token", "api_key", "apiKey", "Password", "Secret", "Token", "API_KEY")
        ),
    )
)
"""Written apart from the rules, to find what they let through: credentials that cannot be anything else."""


# --- the masker -----------------------------------------------------------------------------------------------------

IDENTIFIERS = frozenset(
    {
        *(
            "id",
            "kind",
            "component",
            "service",
            "services",
            "source",
            "sha256",
            "digest",
            "level",
            "status",
            "unit",
            "worse",
        ),
        *("metric", "statistic", "trace_id", "span_id", "parent_id", "peer", "caller", "callee", "cause", "effect"),
        *("name", "version", "affected", "causes", "instances"),
    }
)
"""Fields that join things or are our own words: they are never masked."""


class Masker:
    """Hides secrets and personal data in text. Safe to share between threads."""

    def __init__(
        self,
        key: bytes,
        *,
        ips: bool = False,
        patterns: Sequence[tuple[str, str]] = (),
        within_s: float = 5.0,
    ) -> None:
        """``key`` makes placeholders ours; ``ips`` hides addresses too; ``patterns`` are (kind, regex) of this site.

        ``within_s``: seconds of CPU that one text may take.
        """
        self._key, self._within_s = key, within_s
        own = tuple(Rule(name, re.compile(regex), ("",)) for name, regex in patterns)
        self._rules = (*own, *_CREDENTIALS, *_PERSONAL, *(_ADDRESSES if ips else ()))
        kinds = "|".join(sorted({rule.kind for rule in (*self._rules, *_ADDRESSES)}))
        self._placeholder = re.compile(rf"(\[(?:{kinds}):[a-f][0-9a-f]{{7}}\])")
        self._by_hint: defaultdict[str, list[int]] = defaultdict(list)
        self._by_function: defaultdict[Callable[[str], object], list[int]] = defaultdict(list)
        for n, rule in enumerate(self._rules):
            if callable(rule.hints):
                self._by_function[rule.hints].append(n)
            else:
                for hint in rule.hints:
                    self._by_hint[hint].append(n)
        self._folded = [hint for hint in self._by_hint if hint == hint.lower()]
        self._exact = [hint for hint in self._by_hint if hint != hint.lower()]

    def mask(self, text: str) -> str:
        """The text with placeholders; masking it again changes nothing. Raises MaskingError."""
        return self._mask(text, {})

    def mask_model(self, model: M, keep: Collection[str] = IDENTIFIERS) -> M:
        """The model with every text in it masked, but for the fields named in ``keep``. Raises MaskingError."""
        return self._model(model, keep, self.mask)

    def masked_evidence(self, evidence: Evidence) -> Evidence:
        """All free text masked; what is needed to measure a metric again stays as it is.

        A text that cannot be masked is withheld: the incident goes on without it. What an earlier incident calls its
        component may be anybody's free text, and joins nothing.
        """
        masked = self._model(evidence, IDENTIFIERS | {"ref", "readable", "similar"}, self._mask_or_withhold)
        similar = tuple(self._model(past, {"incident_id"}, self._mask_or_withhold) for past in evidence.similar)
        return masked.model_copy(update={"similar": similar}) if similar else masked

    def masked_telemetry(self, telemetry: Telemetry) -> Telemetry:
        """All free text masked, queries and links too, for somebody else's eyes. Raises MaskingError."""
        return self.mask_model(telemetry)

    def originals(self, texts: Iterable[str], placeholders: Collection[str]) -> dict[str, str]:
        """What stood in the place of each, as far as these texts of our own store contain it."""
        wanted, found = set(placeholders), dict[str, str]()
        for text in texts:
            with suppress(MaskingError):  # it was withheld; the others lead back all the same
                self._mask(text, found)
            if wanted <= found.keys():
                break
        return {placeholder: found[placeholder] for placeholder in placeholders if placeholder in found}

    def placeholders(self, text: str) -> list[str]:
        """The placeholders in a masked text, each once, in their order."""
        return list(dict.fromkeys(self._placeholder.findall(text)))

    def _model(self, model: M, keep: Collection[str], mask: Callable[[str], str]) -> M:
        changed = self._changed(model, type(model).model_fields, keep, mask)
        return model.model_copy(update=changed) if changed else model

    def _row(self, row: R, keep: Collection[str], mask: Callable[[str], str]) -> R:
        changed = self._changed(row, row.__dataclass_fields__, keep, mask)
        return replace(row, **changed) if changed else row

    def _changed(
        self, value: object, names: Iterable[str], keep: Collection[str], mask: Callable[[str], str]
    ) -> dict[str, Any]:
        fields = {name: getattr(value, name) for name in names if name not in keep}
        masked = {name: self._masked(field, keep, mask) for name, field in fields.items()}
        return {name: field for name, field in masked.items() if field is not fields[name]}

    def _mask_or_withhold(self, text: str) -> str:
        try:
            return self.mask(text)
        except MaskingError:
            return WITHHELD

    def _masked(self, value: object, keep: Collection[str], mask: Callable[[str], str]) -> object:
        if type(value) is str:  # an enum is a str too, and stays one of its own
            masked = mask(value)
            return value if masked == value else masked
        if isinstance(value, BaseModel):
            return self._model(value, keep, mask)
        if isinstance(value, LogLine | Span | Series):
            return self._row(value, keep, mask)
        if isinstance(value, tuple | list):
            items = [self._masked(item, keep, mask) for item in value]
            return value if all(a is b for a, b in zip(items, value, strict=True)) else type(value)(items)
        if isinstance(value, Mapping):
            return {name: item if name in keep else self._masked(item, keep, mask) for name, item in value.items()}
        return value

    def _mask(self, text: str, found: dict[str, str]) -> str:
        ends = time.thread_time() + self._within_s
        for _ in range(_PASSES):
            awake = self._awake(text)
            pieces = self._placeholder.split(text) if "[" in text else [text]
            for rule in awake:
                pieces = self._applied(rule, pieces, found)
                if time.thread_time() > ends:
                    raise MaskingError(f"masking a text of {len(text):,} characters took over {self._within_s:g} s")
            masked = "".join(pieces)
            if masked == text:
                check(pieces[::2])
                return text
            text = masked
        raise MaskingError("masking comes to no end: each time something else is found")

    def _awake(self, text: str) -> list[Rule]:
        """The rules that may match, in their order."""
        lowered = text.lower()
        hints = [hint for hint in self._folded if hint in lowered] + [hint for hint in self._exact if hint in text]
        awake = [self._by_hint[hint] for hint in hints]
        awake += [rules for may_match, rules in self._by_function.items() if may_match(text)]
        return [self._rules[n] for n in sorted({n for rules in awake for n in rules})]

    def _applied(self, rule: Rule, pieces: Sequence[str], found: dict[str, str]) -> list[str]:
        """``pieces`` are text and placeholder by turns, and so is what is returned: nothing is hidden twice."""
        applied: list[str] = []
        for n, piece in enumerate(pieces):
            applied += [piece] if n % 2 else self._cut(rule, piece, found)
        return applied

    def _cut(self, rule: Rule, piece: str, found: dict[str, str]) -> list[str]:
        cut, at = [], 0
        for match in rule.pattern.finditer(piece):
            start, end = _hidden(match)
            if start == end or not rule.wanted(match):
                continue
            placeholder = self._named(rule.kind, rule.canonical(piece[start:end]))
            found.setdefault(placeholder, piece[start:end])
            cut += [piece[at:start], placeholder]
            at = end
        return [*cut, piece[at:]]

    def _named(self, kind: str, value: str) -> str:
        """Eight hex digits from the first letter on: no reader takes them for a number."""
        digest = hmac.new(self._key, f"{kind}:{value}".encode("utf-8", "replace"), sha256).hexdigest()
        return f"[{kind}:{digest.lstrip('0123456789')[:8]}]"


def check(texts: Iterable[str]) -> None:
    """Look for credentials in texts that should hold none. Raises MaskingError."""
    for text in texts:
        for kind, hint, pattern in _STRICT:
            if hint in text and pattern.search(text):
                raise MaskingError(f"a {kind} is left in the text after masking")
