"""The labels of pictures in each language. Names from telemetry stay as they are."""

from collections.abc import Mapping

Words = Mapping[str, str]

ENGLISH: Words = {
    "usual": "usual",
    "incident": "incident",
    "onset": "onset",
    "change": "change",
    "no_values": "No values were kept",
    "last": "last",
    "calls": "calls",
    "spreads": "failure spreads",
    "asynchronous": "asynchronous",
    "suspect": "suspect",
    "alerted": "alerted",
    "affected": "affected",
    "more": "+{} more",
    "checks": "topology, deviation, order in time",
    "structural": "the edge is in the topology",
    "statistical": "both ends deviate",
    "temporal": "the cause does not start later",
    "holds": "yes",
    "fails": "no",
    "topology": "Topology around {}",
    "nothing_known": "Nobody knows who calls whom here",
    "service": "service",
    "database": "database",
    "cache": "cache",
    "queue": "queue",
    "external": "external",
}

KOREAN: Words = {
    "usual": "평소",
    "incident": "장애 구간",
    "onset": "시작",
    "change": "변경",
    "no_values": "저장된 값이 없습니다",
    "last": "마지막",
    "calls": "호출",
    "spreads": "장애 전파",
    "asynchronous": "비동기",
    "suspect": "후보",
    "alerted": "알림 발생",
    "affected": "영향받음",
    "more": "외 {}개",
    "checks": "구조, 이상, 시간 순서",
    "structural": "토폴로지에 있는 연결",
    "statistical": "양쪽 모두 이상",
    "temporal": "원인이 먼저 시작",
    "holds": "예",
    "fails": "아니요",
    "topology": "{} 주변 토폴로지",
    "nothing_known": "호출 관계를 알 수 없습니다",
    "service": "서비스",
    "database": "데이터베이스",
    "cache": "캐시",
    "queue": "큐",
    "external": "외부",
}


def words(language: str) -> Words:
    """Korean for ``ko``, English for anything else."""
    return KOREAN if language == "ko" else ENGLISH
