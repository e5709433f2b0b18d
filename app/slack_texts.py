"""What Slack tells who clicked, in the language of the incident."""

from collections.abc import Mapping

from app.desk import Reason
from graph.state import Language

Texts = Mapping[str, str]

ENGLISH: Texts = {
    "decided": "*{}* chose *{}*: it is decided.",
    "too": " Approved by {} too.",
    "waiting": "Your approval of *{}* is stored. It runs once others approve the same; still missing: at least {}.",
    "refused": "*Refused.* {}",
    "stranger": "*Refused.* Nobody knows the Slack user {}: have this id added to a person under `operators:` in"
    " autopilot.yaml.",
    "fault": "*It could not be decided*: a fault of ours ({}), which is in the log. See what stands, and decide here:",
    "look": "Look at the incident",
}
KOREAN: Texts = {
    "decided": "*{}* 님이 *{}* 을(를) 선택했습니다. 결정이 저장되었습니다.",
    "too": " 함께 승인한 사람: {}.",
    "waiting": "*{}* 승인이 저장되었습니다. 같은 조치를 승인할 다른 사람이 최소 {}명 더 필요합니다.",
    "refused": "*거절되었습니다.* {}",
    "stranger": "*거절되었습니다.* 등록되지 않은 Slack 사용자입니다: {}. autopilot.yaml의 `operators:`에 이 ID 추가를"
    " 요청하세요.",
    "fault": "*결정하지 못했습니다.* 내부 오류({})가 발생했으며 로그에 기록되었습니다. 아래에서 확인하고 결정하세요.",
    "look": "장애 보기",
}
TEXTS: Mapping[Language, Texts] = {"en": ENGLISH, "ko": KOREAN}

KOREAN_REASONS: Mapping[Reason, str] = {
    "": "요청을 처리할 수 없습니다.",
    "not_found": "그런 장애가 없습니다.",
    "not_allowed": "이 결정을 할 권한이 없습니다.",
    "not_authenticated": "인증되지 않았습니다.",
    "not_awaited": "지금은 결정을 기다리고 있지 않습니다.",
    "already_decided": "이미 결정되었습니다.",
    "stale_plan": "표시된 뒤 계획이 바뀌었습니다. 새 계획을 보고 다시 선택하세요.",
    "expired": "계획이 너무 오래되어 승인할 수 없습니다. re_plan으로 새 조치를 요청하세요.",
    "tampered": "저장된 계획이 만들어진 계획과 다릅니다. 아무것도 실행되지 않습니다. re_plan을 선택하세요.",
    "drift": "계획한 뒤 대상의 상태나 정책이 바뀌었습니다. re_plan으로 새 조치를 요청하세요.",
    "unreadable": "대상의 현재 상태를 읽을 수 없습니다. 잠시 뒤 다시 시도하세요.",
    "frozen": "모든 조치가 중지된 상태입니다(freeze).",
    "policy": "지금은 정책이 이 조치를 허용하지 않습니다.",
    "same_person": "이미 승인했습니다. 다른 사람의 승인이 필요합니다.",
    "requester": "이 장애를 등록한 사람은 승인할 수 없습니다.",
    "no_such_option": "그런 조치나 단계가 없습니다.",
    "steps": "그렇게 나누어 승인할 수 없는 단계입니다.",
    "infeasible": "이 조치는 지금 실행할 수 없습니다.",
    "no_rounds_left": "더는 다시 분석할 수 없습니다. 조치를 고르거나 manual을 선택하세요.",
    "nothing_to_undo": "되돌릴 변경이 없습니다.",
    "nothing_to_withdraw": "철회할 결정이 없습니다.",
    "already_started": "이미 실행이 시작되었습니다.",
    "catalogue": "대상이 서비스 카탈로그에 없습니다.",
    "not_registered": "이 설치에서 사용하지 않는 조치입니다.",
    "language": "언어는 re_analyze에서만 바꿀 수 있습니다.",
}
"""Ours; the details come in English, from the checks themselves."""
