"""Fields of cases as people write them in files: names, times, outcomes, all texts bounded. Pure.

What cannot be used is refused with what would mend it; what is understood in a certain way, or kept as it is, is told.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from app.knowledge.cases import MAX_REPORT, Case, CaseOutcome, Remedy, case_id, environment_called, folded
from graph.catalogue import Catalogue, Service
from graph.llms.playbooks import Category
from graph.signature import MAX_EACH, Signature
from graph.state import storable

MAX_TITLE, MAX_SUMMARY, MAX_NAME = 300, 2_000, 200  # characters
OLDEST = datetime(1990, 1, 1, tzinfo=UTC)
MOST_SAID = 1_000  # names that are not known, of which each is told
CATEGORIES = frozenset(map(str, Category))
AHEAD = timedelta(days=1)  # clocks and zones may differ by so much
TIME_EXAMPLE = "2024-12-20T09:15:00Z, or 2024-12-20 18:15 +09:00"


class BadEntry(Exception):
    """What was written cannot be used; the text says why, and what would mend it."""


@dataclass(frozen=True)
class Complaint:
    """What a reader of a file has to say: of an entry that was left out, or how one was understood."""

    file: str
    line: int
    said: str
    lost: bool = True

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.said}" if self.line else f"{self.file}: {self.said}"


@dataclass(frozen=True)
class Entry:
    """One case as it stands in a file, field by field, as text."""

    key: str = ""  # what tells it from others of the same file; empty: its time and title
    origin: str = ""  # within what its key is its own, whatever the file; empty: the file
    title: str = ""
    occurred_at: str = ""
    environment: str = ""
    service: str = ""
    component: str = ""
    category: str = ""
    summary: str = ""
    impact: str = ""
    cause: str = ""
    resolution: str = ""
    outcome: str = ""
    author: str = ""
    timeline: str = ""
    actions: str = ""
    report: str = ""  # markdown; empty: made of the others


@dataclass
class Reading:
    """What is needed to understand files. Remembers which names it did not know, so that each is told once."""

    catalogue: Catalogue
    now: datetime
    zone: tzinfo = UTC
    """Of times that name none."""
    said: set[str] = field(default_factory=set)
    _names: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, service in self.catalogue.services.items():
            for known in known_as(service):
                self._names.setdefault(folded(known), name)
        for name in self.catalogue.services:
            self._names[folded(name)] = name  # its own name before what others call theirs

    def service_called(self, name: str) -> str | None:
        """The catalogue's name of what somebody calls so; None where it is nobody's."""
        return self._names.get(folded(name))

    def once(self, said: str, about: str = "") -> Iterator[str]:
        """The sentence, the first time only; ``about``: of those with the same, the first one."""
        if (about or said) not in self.said and len(self.said) < MOST_SAID:
            self.said.add(about or said)
            yield said


def known_as(service: Service) -> Iterator[str]:
    """The names under which sources know a service."""
    yield from (tag.partition(":")[2] for tag in service.datadog_tags if tag.startswith(("service:", "name:")))
    yield from (service.ecs.service,) if service.ecs else ()
    yield from (service.otel_service, *_matched(service.prometheus), *_matched(service.loki))
    yield from (service.kubernetes.workload,) if service.kubernetes else ()
    yield from (*service.aws.rds_instances, *service.aws.rds_clusters, *service.aws.elasticache_clusters)
    yield from (*service.aws.lambda_functions, *service.aws.sqs_queues)
    yield from (service.github.repository.rpartition("/")[2],) if service.github else ()


def _matched(labels: str) -> list[str]:
    """The values of label matchers such as ``job="pay"``."""
    return re.findall(r'="([^"]+)"', labels)


# --- what people call the fields ---

FIELDS: Mapping[str, tuple[str, ...]] = {
    "key": ("id", "key", "incident", "incident id", "incident key", "number", "번호", "장애 번호"),
    "title": ("title", "name", "subject", "제목", "장애명"),
    "occurred_at": (
        *("occurred at", "date", "time", "datetime", "started at", "start", "start time", "started", "incident date"),
        *(
            "incident start",
            "date of incident",
            "detected at",
            "발생일시",
            "발생 일시",
            "발생 시각",
            "발생일",
            "일시",
            "날짜",
        ),
    ),
    "environment": ("environment", "env", "stage", "환경"),
    "service": ("service", "services", "affected service", "affected services", "서비스", "영향 서비스", "대상 서비스"),
    "component": (
        "component",
        "components",
        "culprit",
        "root cause component",
        "구성 요소",
        "컴포넌트",
        "원인 컴포넌트",
    ),
    "category": ("category", "cause category", "root cause category", "fault kind", "유형", "분류", "원인 분류"),
    "summary": (
        *("summary", "description", "overview", "abstract", "tl;dr", "tldr", "executive summary", "what happened"),
        *("요약", "개요", "설명", "장애 내용", "무슨 일이 있었나"),
    ),
    "impact": (
        "impact",
        "customer impact",
        "user impact",
        "business impact",
        "영향",
        "영향도",
        "영향 범위",
        "고객 영향",
    ),
    "cause": (
        *(
            "cause",
            "causes",
            "root cause",
            "root causes",
            "root cause analysis",
            "rca",
            "contributing factors",
            "trigger",
        ),
        *("원인", "근본 원인", "발생 원인", "원인 분석", "장애 원인"),
    ),
    "resolution": (
        *("resolution", "remedy", "remediation", "mitigation", "fix", "recovery", "what helped", "resolution notes"),
        *("how it was fixed", "조치", "해결", "조치 내용", "조치 사항", "해결 방법", "대응", "복구", "수행한 조치"),
    ),
    "outcome": ("outcome", "result", "status", "결과", "상태"),
    "author": ("author", "authors", "reporter", "owner", "written by", "작성자", "담당자", "보고자"),
    "timeline": (
        "timeline",
        "time line",
        "chronology",
        "sequence of events",
        "타임라인",
        "경과",
        "시간대별 경과",
        "진행 경과",
    ),
    "actions": (
        *(
            "action items",
            "actions",
            "follow up",
            "follow ups",
            "follow up actions",
            "next steps",
            "corrective actions",
        ),
        *("재발 방지", "재발 방지 대책", "후속 조치", "향후 계획", "개선 사항"),
    ),
    "report": ("report", "postmortem", "details", "body", "보고서", "본문", "상세"),
}
"""By field of an entry its columns, front matter keys and headings, in small letters with blanks between words."""
FIELD_OF: Mapping[str, str] = {name: entry_field for entry_field, names in FIELDS.items() for name in names}


def field_called(name: str) -> str | None:
    """Which field of an entry a column, a key or a heading is; None: none."""
    plain = unicodedata.normalize("NFKC", name).casefold().strip().lstrip("0123456789.)# ")
    return FIELD_OF.get(" ".join(re.sub(r"[\s_/-]+", " ", plain).strip(" :*").split()))


# --- an entry becomes a case ---


def case_of(entry: Entry, source: str, reading: Reading) -> tuple[Case, list[str]]:
    """The case, and what to tell of it. Raises BadEntry."""
    title = " ".join(text(entry.title).split())[:MAX_TITLE]
    if not title:
        raise BadEntry("it has no title; write one")
    at, said = moment(entry.occurred_at, reading)
    services, more = _services(entry.service, reading)
    component, still = _name(entry.component, "component", reading)
    category, last = _category(entry.category, reading)
    resolution = text(entry.resolution)
    outcome, unclear = _outcome(entry.outcome, resolution, reading)
    case = Case(
        id=case_id("imported", entry.origin or source, entry.key or f"{at.isoformat()} {title}"),
        kind="imported",
        environment=_environment(entry.environment),
        service=services[0] if services else "",
        component=component or None,
        category=category,
        title=title,
        summary=_first(entry.summary, entry.cause, entry.impact)[:MAX_SUMMARY],
        report=(text(entry.report) or composed(entry))[:MAX_REPORT],
        outcome=outcome,
        helped=resolution[:MAX_SUMMARY],
        signature=_signature(services, component, category),
        occurred_at=at,
        source=source,
        author=" ".join(text(entry.author).split())[:MAX_NAME],
        remedies=(Remedy(title=resolution[:MAX_TITLE], fate="by_hand", at=at),) if resolution else (),
    )
    return case, [*said, *more, *still, *last, *unclear]


def _first(*texts: str) -> str:
    """The first that says anything."""
    return next((found for found in map(text, texts) if found), "")


def _signature(services: Sequence[str], component: str, category: str) -> Signature:
    known = category if category in CATEGORIES else ""
    return Signature(
        services=tuple(services),
        components=(component,) if component else (),
        categories=(known,) if known and known != Category.UNKNOWN else (),
    )


def composed(entry: Entry) -> str:
    """A report of what else the entry says, under the headings that postmortems have."""
    parts = (
        ("Summary", entry.summary),
        ("Impact", entry.impact),
        ("Timeline", entry.timeline),
        ("Root cause", entry.cause),
        ("Resolution", entry.resolution),
        ("Action items", entry.actions),
    )
    return "\n\n".join(f"## {heading}\n\n{said}" for heading, found in parts if (said := text(found)))


def text(value: str) -> str:
    """As Postgres can store it, without blanks around it."""
    return str(storable(value)).strip()


# --- names ---


def _name(given: str, what: str, reading: Reading) -> tuple[str, list[str]]:
    """As the catalogue has it, else as it is written."""
    name = " ".join(text(given).split())[:MAX_NAME]
    if not name or (known := reading.service_called(name)) is None:
        unknown = f"the {what} {name!r} is not in the catalogue; it is kept as text. Add it, or correct its spelling"
        return name, list(reading.once(unknown)) if name else []
    return known, []


def _services(given: str, reading: Reading) -> tuple[list[str], list[str]]:
    """Those that are named first, of which the first is taken for the one that was alerted; and what to tell."""
    named = [_name(name, "service", reading) for name in re.split(r"[,;\n]", given) if name.strip()]
    return list(dict.fromkeys(name for name, _ in named))[:MAX_EACH], [said for _, told in named for said in told]


def _environment(given: str) -> str:
    """A description of a machine is none."""
    return environment_called(text(given))[:MAX_NAME] if len(text(given).split()) == 1 else ""


def _category(given: str, reading: Reading) -> tuple[str, list[str]]:
    """A key of the playbooks where it is one; else as it is written."""
    name = " ".join(text(given).split())[:MAX_NAME]
    key = folded(name).replace("-", "_")
    if not name or key in CATEGORIES:
        return key if name else "", []
    unknown = f"the category {name!r} is none of the playbooks' ({', '.join(Category)}); it is kept as text"
    return name, list(reading.once(unknown))


# --- outcomes ---

OUTCOMES: Mapping[str, CaseOutcome] = {
    **dict.fromkeys(("resolved", "fixed", "done", "solved", "closed", "complete", "completed"), "resolved"),
    **dict.fromkeys(("해결", "해결됨", "완료", "완료됨", "조치 완료", "종료", "닫힘"), "resolved"),
    **dict.fromkeys(
        ("improved", "mitigated", "workaround", "partly", "완화", "완화됨", "개선됨", "임시 조치"), "improved"
    ),
    **dict.fromkeys(("unchanged", "no effect", "변화 없음"), "unchanged"),
    **dict.fromkeys(("worse", "made worse", "악화", "악화됨"), "worse"),
    **dict.fromkeys(("by hand", "manual", "manually", "수동", "수동 조치"), "by_hand"),
    **dict.fromkeys(("recovered", "self healed", "by itself", "recovered by itself", "자연 복구"), "recovered"),
    **dict.fromkeys(
        ("unresolved", "open", "won't fix", "wontfix", "cannot reproduce", "미해결", "진행 중"), "unresolved"
    ),
}
"""People's words for how it ended."""


def _outcome(given: str, resolution: str, reading: Reading) -> tuple[CaseOutcome, list[str]]:
    """Where nobody says how it ended, but what was done: by hand."""
    otherwise: CaseOutcome = "by_hand" if resolution else "unresolved"
    name = " ".join(unicodedata.normalize("NFKC", text(given)).casefold().replace("_", " ").replace("-", " ").split())
    if not name or name in OUTCOMES:
        return OUTCOMES.get(name, otherwise), []
    unknown = f"the outcome {name[:MAX_NAME]!r} is not known; it was taken as {otherwise}. Write one of: " + ", ".join(
        dict.fromkeys(OUTCOMES.values())
    )
    return otherwise, list(reading.once(unknown))


# --- times ---

FORMATS = (
    *("%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d"),
    *("%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%Y/%m/%d"),
    *("%Y.%m.%d %H:%M:%S", "%Y.%m.%d %H:%M", "%Y.%m.%d", "%Y. %m. %d. %H:%M", "%Y. %m. %d."),
    *("%Y. %m. %d. %p %I:%M", "%Y-%m-%d %p %I:%M:%S", "%Y-%m-%d %p %I:%M"),
    *("%Y년 %m월 %d일 %H:%M", "%Y년 %m월 %d일 %H시 %M분", "%Y년 %m월 %d일"),
    *("%d/%b/%y %I:%M %p", "%d/%b/%Y %I:%M %p", "%d/%b/%y %H:%M", "%d/%b/%y", "%d/%b/%Y"),  # Jira's
    *("%d %b %Y %H:%M", "%d %b %Y", "%b %d, %Y %H:%M", "%b %d, %Y", "%B %d, %Y", "%d %B %Y"),
)
"""Unambiguous ones only: nobody can tell whether 04/05/2024 is in April or in May."""
_ZONE = re.compile(r"\s*\(?(?:(Z|UTC|GMT|KST|JST)|(?:UTC|GMT)?([+-])(\d{1,2}):?(\d{2})?|([A-Z][a-z]+/[A-Za-z_/]+))\)?$")
_OFFSETS = {"KST": 9, "JST": 9}


def moment(given: str, reading: Reading) -> tuple[datetime, list[str]]:
    """The time in UTC, and what to tell of it. Raises BadEntry."""
    written = " ".join(text(given).split())
    if not written:
        raise BadEntry(f"it has no time; write when it happened, as {TIME_EXAMPLE}")
    at = _parsed(written)
    if at is None:
        raise BadEntry(f"{written[:60]!r} is no time that can be told for sure; write it as {TIME_EXAMPLE}")
    said: list[str] = []
    if at.tzinfo is None:
        at = at.replace(tzinfo=reading.zone)
        told = f"times without a zone were taken as {reading.zone}, e.g. {written[:60]!r}"
        said = list(reading.once(told, "times without a zone"))
    try:
        at = at.astimezone(UTC)
    except OverflowError:
        at = datetime.max.replace(tzinfo=UTC)
    if not OLDEST <= at <= reading.now + AHEAD:
        raise BadEntry(f"{written[:60]!r} is before 1990 or in the future; correct the time")
    return at, said


def _parsed(written: str) -> datetime | None:
    try:
        return datetime.fromisoformat(written)
    except ValueError:
        pass
    found = _ZONE.search(written)
    zone = _zone(found) if found else None
    bare = (written[: found.start()] if found and zone else written).replace("오전", "AM").replace("오후", "PM")
    for pattern in FORMATS:
        try:
            return datetime.strptime(bare, pattern).replace(tzinfo=zone)
        except ValueError:
            continue
    return None


def _zone(found: re.Match[str]) -> tzinfo | None:
    name, sign, hours, minutes, place = found.groups()
    if name:
        return timezone(timedelta(hours=_OFFSETS.get(name, 0)))
    if place:
        return zone_called(place)
    offset = timedelta(hours=int(hours), minutes=int(minutes or 0))
    return timezone(-offset if sign == "-" else offset) if offset < timedelta(hours=24) else None


def zone_called(name: str) -> tzinfo | None:
    """A time zone by its IANA name; None where there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a folder of the database, or no name at all
        return None
