"""The labels of a report in each language, in markdown as in the console. Data (titles, quotes, ids) stays as it is."""

from collections.abc import Mapping, Sequence

from app.report import DecisionMade, ModelUse
from executors.base import PreflightCheck
from graph.confidence import percent
from graph.memory import outcome
from graph.state import AffectedService, Language, Needs, PastIncident, RootCause

Texts = Mapping[str, str]
HOLDS = ("verified", "repaired")  # verdicts of the grounding table
FELT = ("changed", "caller", "callee")  # how a service feels an option, nearest first

ENGLISH: Texts = {
    "language": "en",
    "written_en": "Text in English.",
    "status_received": "received",
    "status_collecting": "collecting",
    "status_analyzing": "analyzing",
    "status_planning": "planning",
    "status_awaiting_decision": "awaiting decision",
    "status_executing": "executing",
    "status_verifying": "verifying",
    "status_resolved": "resolved",
    "status_closed": "closed",
    "status_needs_attention": "needs attention",
    "severity_critical": "critical",
    "severity_warning": "warning",
    "severity_info": "info",
    "written_ko": "Text in Korean.",
    "occurred_at": "Occurred {}.",
    # alerts
    "alerts": "Alerts",
    "alert": "alert",
    "service_of": "service",
    "source": "source",
    "state": "state",
    "why_here": "why it is here",
    "score": "score",
    "opened_it": "opened this incident",
    "firing": "firing",
    "recovered": "recovered",
    "since": "since",
    "more_alerts": "and {} more",
    "flaps": "Came back after a recovery: {}x",
    # assessment
    "assessment": "Assessment",
    "state_incident": "something is wrong",
    "state_recovered": "it has recovered by itself",
    "state_no_incident": "nothing is wrong",
    "state_not_enough_data": "there is not enough data to tell",
    "computed": "Computed: **{}** ({} sure).",
    "chance": "The first suspect is the cause with a chance of {}.",
    "not_sure": "Not sure of the cause. The suspects are leads, no more.",
    "together": "Only together do they explain it",
    "affected": "Affected components",
    # root cause
    "root_cause": "Root cause",
    "not_analysed": "Not analysed yet.",
    "confidence": "confidence",
    "confidence_high": "high",
    "confidence_medium": "medium",
    "confidence_low": "low",
    "confidence_inconclusive": "inconclusive",
    "certain": "{} sure",
    "certainty_why": "How sure, and why",
    "engine": "by",
    "engine_rules": "the rules engine",
    "contradicts": "The analysis and the ranking disagree",
    "verified": "verified",
    "not_verified": "not verified",
    "causal_path": "Causal path",
    "structural": "structural",
    "statistical": "statistical",
    "temporal": "temporal",
    "no_check": "no check holds",
    "rivals": "Other suspects",
    "rival_for": "for",
    "rival_against": "against",
    "unknowns": "Not known",
    "changed": "What changed since the analysis before",
    "who_notices": "Who notices",
    # grounding table
    "grounding": "Grounding: what was said, and what the evidence shows",
    "all_verified": "all {} verified",
    "some_verified": "{} of {} verified",
    "claims_verified": "{} of {} claims verified",
    "what": "what",
    "said_text": "text",
    "verdict_of": "verdict",
    "complaint": "why",
    "check_verified": "verified",
    "check_repaired": "verified after a repair",
    "check_not_verified": "not verified",
    "check_dropped": "dropped",
    "about_component": "component",
    "about_claim": "claim",
    "about_hop": "causal hop",
    "about_mechanism": "mechanism",
    "about_title": "title",
    "about_rival": "rival",
    "about_impact": "impact",
    "about_ranking": "ranking",
    # pictures, impact, evidence
    "pictures": "Pictures",
    "topology": "Topology",
    "topology_around": "Topology around {}",
    "no_suspect": "no suspect",
    "impact": "Impact",
    "how_much": "how much",
    "when": "when",
    "evidence": "Evidence",
    "asked": "asked for by the analyst",
    "open_source": "open",
    "unlisted": "and {} more that say little",
    "looked_at": "Looked at {}, against {}.",
    "time_to": "{} to {}",
    "nothing": "nothing",
    "digest": "Snapshot sha256",
    "runbooks": "Runbooks",
    # similar incidents
    "similar": "Similar incidents",
    "similar_note": "What happened then. It helps to read the evidence and was not measured now.",
    "similar_incident": "incident",
    "similar_why": "alike in",
    "similar_cause": "its cause",
    "similar_outcome": "what came of it",
    "similar_wrong": "its analysis was called wrong",
    "similar_corrected": "the cause is the one that a person named, who corrected the analysis",
    "similar_helped": "what helped, by a person's word",
    "gaps": "What could not be seen",
    "gap_timeout": "timeout",
    "gap_forbidden": "forbidden",
    "gap_unreachable": "unreachable",
    "gap_rate_limited": "rate limited",
    "gap_empty": "empty",
    "gap_truncated": "truncated",
    "gap_not_configured": "not configured",
    "gap_failed": "failed",
    # options
    "options": "Options",
    "intent_mitigate": "mitigate now",
    "intent_fix": "fix the cause",
    "intent_least_risk": "least risk",
    "risk": "risk",
    "risk_none": "none",
    "risk_low": "low",
    "risk_medium": "medium",
    "risk_high": "high",
    "about_minutes": "about {} minutes",
    "because": "because of",
    "undo": "Undo",
    "no_undo": "not possible",
    "tried": "tried",
    "track_record": "Track record",
    "proposed_by": "proposed by",
    "cannot_run": "cannot run",
    "expected_effect": "expected: {} within {} minutes",
    "revision": "Plan revision",
    # what an option would do, and what it takes
    "preflight": "Pre-flight checks",
    "all_passed": "all {} passed",
    "some_passed": "{} of {} passed",
    "checked_ok": "ok",
    "checked_warning": "warning",
    "checked_failed": "failed",
    "checked_skipped": "not looked at",
    "looked_catalogue": "service catalogue",
    "looked_state": "present state",
    "looked_permission": "permissions",
    "looked_quota": "quotas",
    "looked_deployment": "deployment in flight",
    "looked_scaling": "scaling policies",
    "looked_gitops": "GitOps owner",
    "looked_capacity": "capacity left",
    "looked_dry_run": "the target's own dry run",
    "looked_policy": "policy",
    "blast_radius": "Blast radius",
    "felt_changed": "changed",
    "felt_caller": "callers",
    "felt_callee": "called by it",
    "hops": "{} calls away",
    "hops_one": "1 call away",
    "request_share": "{} of the requests of this incident's services pass what is changed",
    "share_unknown": "share of the requests: not measured",
    "servers": "servers",
    "utilisation": "utilisation",
    "time_to_answer": "time to an answer",
    "as_long": "{} times as long",
    "reversible_all": "all of it can be put back",
    "reversible_partly": "only part of it can be put back",
    "reversible_no": "cannot be put back",
    "takes": "Approval takes",
    "people": "{} different people",
    "people_one": "1 person",
    "not_by": "not by {}",
    "dry_run_only": "dry run only: nothing is changed in this environment",
    "policy_refuses": "The policy does not let it run now",
    "approvals": "Approvals that wait",
    "approved": "approved",
    "more_people": "{} more people must approve the same",
    "more_people_one": "1 more person must approve the same",
    "only_steps": "only step {}",
    "plan_number": "plan {} of this incident",
    "policy_version": "policy {}",
    # decisions, execution, history
    "decisions": "Decisions",
    "chose": "chose",
    "via_rest": "REST",
    "via_slack": "Slack",
    "via_console": "console",
    "via_cli": "command line",
    "approved_too": "approved by {} too",
    "withdrawn": "withdrawn by {} before anything of it began: nothing was run",
    "notes": "Done by hand",
    "credit": "Was it the remedy?",
    "credit_remedy": "it was the remedy",
    "credit_unclear": "cannot be told",
    "credit_by_itself": "it recovered by itself",
    "compared": "Compared with",
    "puts_back": "puts back what plan {} changed",
    "todo_unknown": "Nobody knows whether this was done. It is not tried again by itself, and later steps were not run."
    " Look at the target yourself, then choose re_plan: that reads it again.",
    "todo_dry_run": "Nothing was changed.",
    "todo_undo_failed": "Not put back: what the step changed is still in place. Put it back by hand, and note that.",
    "execution": "Execution",
    "undone": "Undone",
    "verdict": "Verdict",
    "metric": "metric",
    "before": "before",
    "after": "after",
    "expected_value": "expected",
    "verdict_resolved": "resolved",
    "verdict_improved": "improved",
    "verdict_unchanged": "unchanged",
    "verdict_worse": "worse",
    "verdict_not_measurable": "not measurable",
    "effect_met": "met",
    "effect_not_met": "not met",
    "effect_not_measurable": "not measurable",
    "step_succeeded": "succeeded",
    "step_failed": "failed",
    "step_unknown": "unknown",
    "step_skipped": "skipped",
    "step_dry_run": "dry run",
    "history": "History",
    "model_calls": "Model calls",
    "model_failed": "{} failed",
    "model_tokens": "tokens: {} in, {} out",
    "model_dollars": "${} at list price",
    "seconds": "{} s",
}

KOREAN: Texts = {
    "language": "ko",
    "written_en": "본문 언어: 영어",
    "status_received": "접수됨",
    "status_collecting": "수집 중",
    "status_analyzing": "분석 중",
    "status_planning": "조치 계획 중",
    "status_awaiting_decision": "결정 대기",
    "status_executing": "실행 중",
    "status_verifying": "검증 중",
    "status_resolved": "해결됨",
    "status_closed": "종료됨",
    "status_needs_attention": "확인 필요",
    "severity_critical": "심각",
    "severity_warning": "경고",
    "severity_info": "정보",
    "written_ko": "본문 언어: 한국어",
    "occurred_at": "발생 시각: {}",
    # alerts
    "alerts": "알림",
    "alert": "알림",
    "service_of": "서비스",
    "source": "출처",
    "state": "상태",
    "why_here": "포함된 이유",
    "score": "점수",
    "opened_it": "이 장애를 연 알림",
    "firing": "발생 중",
    "recovered": "복구됨",
    "since": "시작",
    "more_alerts": "외 {}건",
    "flaps": "복구 후 {}번 재발",
    # assessment
    "assessment": "판단",
    "state_incident": "이상 있음",
    "state_recovered": "이상이 있었으나 저절로 복구됨",
    "state_no_incident": "이상 없음",
    "state_not_enough_data": "데이터가 부족하여 판단할 수 없음",
    "computed": "계산 결과: **{}** (확신 {})",
    "chance": "첫 번째 후보가 원인일 가능성은 {}입니다.",
    "not_sure": "원인을 확신할 수 없습니다. 아래 후보는 단서일 뿐입니다.",
    "together": "함께 보아야 설명되는 원인",
    "affected": "영향받은 구성 요소",
    # root cause
    "root_cause": "근본 원인",
    "not_analysed": "아직 분석되지 않았습니다.",
    "confidence": "신뢰도",
    "confidence_high": "높음",
    "confidence_medium": "보통",
    "confidence_low": "낮음",
    "confidence_inconclusive": "결론 없음",
    "certain": "확신 {}",
    "certainty_why": "확신의 정도와 이유",
    "engine": "작성:",
    "engine_rules": "규칙 엔진",
    "contradicts": "분석과 순위가 서로 다릅니다",
    "verified": "검증됨",
    "not_verified": "검증되지 않음",
    "causal_path": "인과 경로",
    "structural": "구조",
    "statistical": "이상",
    "temporal": "시간 순서",
    "no_check": "성립하는 검사 없음",
    "rivals": "다른 후보",
    "rival_for": "찬성 근거",
    "rival_against": "반대 근거",
    "unknowns": "알 수 없는 점",
    "changed": "이전 분석과 달라진 점",
    "who_notices": "영향을 느끼는 대상",
    # grounding table
    "grounding": "근거 검사: 서술한 내용과 증거가 보여 주는 것",
    "all_verified": "{}건 모두 검증됨",
    "some_verified": "{}/{}건 검증됨",
    "claims_verified": "주장 {}/{}건 검증됨",
    "what": "항목",
    "said_text": "내용",
    "verdict_of": "판정",
    "complaint": "이유",
    "check_verified": "검증됨",
    "check_repaired": "수정 후 검증됨",
    "check_not_verified": "검증되지 않음",
    "check_dropped": "제외됨",
    "about_component": "구성 요소",
    "about_claim": "주장",
    "about_hop": "인과 단계",
    "about_mechanism": "작동 방식",
    "about_title": "제목",
    "about_rival": "다른 후보",
    "about_impact": "영향",
    "about_ranking": "순위",
    # pictures, impact, evidence
    "pictures": "그림",
    "topology": "토폴로지",
    "topology_around": "{} 주변 토폴로지",
    "no_suspect": "후보 없음",
    "impact": "영향",
    "how_much": "값",
    "when": "기간",
    "evidence": "증거",
    "asked": "분석기가 요청함",
    "open_source": "열기",
    "unlisted": "그 밖에 의미가 적은 {}건",
    "looked_at": "조사 구간: {}, 비교 구간: {}.",
    "time_to": "{} ~ {}",
    "nothing": "없음",
    "digest": "스냅샷 sha256",
    "runbooks": "런북",
    # similar incidents
    "similar": "유사 장애",
    "similar_note": "당시의 기록입니다. 증거를 읽는 데 참고할 뿐, 지금 측정한 값이 아닙니다.",
    "similar_incident": "장애",
    "similar_why": "유사점",
    "similar_cause": "당시 원인",
    "similar_outcome": "결과",
    "similar_wrong": "당시 분석은 틀렸다고 표시됨",
    "similar_corrected": "원인은 사람이 당시 분석을 바로잡은 것",
    "similar_helped": "사람이 남긴 실제 해결 방법",
    "gaps": "확인하지 못한 것",
    "gap_timeout": "시간 초과",
    "gap_forbidden": "권한 없음",
    "gap_unreachable": "연결할 수 없음",
    "gap_rate_limited": "요청 한도 초과",
    "gap_empty": "비어 있음",
    "gap_truncated": "일부만 읽음",
    "gap_not_configured": "설정되지 않음",
    "gap_failed": "실패",
    # options
    "options": "조치 방안",
    "intent_mitigate": "즉시 완화",
    "intent_fix": "원인 해결",
    "intent_least_risk": "최소 위험",
    "risk": "위험도",
    "risk_none": "없음",
    "risk_low": "낮음",
    "risk_medium": "보통",
    "risk_high": "높음",
    "about_minutes": "약 {}분",
    "because": "근거:",
    "undo": "되돌리기",
    "no_undo": "불가능",
    "tried": "시도함",
    "track_record": "과거 실적",
    "proposed_by": "제안:",
    "cannot_run": "지금 실행할 수 없음",
    "expected_effect": "기대 효과: {}, {}분 이내",
    "revision": "계획 리비전",
    # what an option would do, and what it takes
    "preflight": "사전 점검",
    "all_passed": "{}건 모두 통과",
    "some_passed": "{}/{}건 통과",
    "checked_ok": "정상",
    "checked_warning": "주의",
    "checked_failed": "실패",
    "checked_skipped": "확인하지 못함",
    "looked_catalogue": "서비스 카탈로그",
    "looked_state": "현재 상태",
    "looked_permission": "권한",
    "looked_quota": "할당량",
    "looked_deployment": "진행 중인 배포",
    "looked_scaling": "스케일링 정책",
    "looked_gitops": "GitOps 소유자",
    "looked_capacity": "남는 용량",
    "looked_dry_run": "대상의 자체 모의 실행",
    "looked_policy": "정책",
    "blast_radius": "영향 범위",
    "felt_changed": "변경 대상",
    "felt_caller": "호출하는 서비스",
    "felt_callee": "호출되는 서비스",
    "hops": "{}단계 거리",
    "hops_one": "1단계 거리",
    "request_share": "이 장애에 속한 서비스의 요청 가운데 {}가 변경 대상을 지납니다",
    "share_unknown": "요청 비중: 측정되지 않음",
    "servers": "서버 수",
    "utilisation": "사용률",
    "time_to_answer": "응답 시간",
    "as_long": "{}배",
    "reversible_all": "모두 되돌릴 수 있음",
    "reversible_partly": "일부만 되돌릴 수 있음",
    "reversible_no": "되돌릴 수 없음",
    "takes": "승인 조건",
    "people": "서로 다른 {}명",
    "people_one": "1명",
    "not_by": "{} 제외",
    "dry_run_only": "모의 실행 전용: 이 환경에서는 아무것도 변경하지 않습니다",
    "policy_refuses": "지금은 정책이 실행을 허용하지 않습니다",
    "approvals": "대기 중인 승인",
    "approved": "승인함",
    "more_people": "같은 조치를 {}명이 더 승인해야 합니다",
    "more_people_one": "같은 조치를 1명이 더 승인해야 합니다",
    "only_steps": "{}단계만",
    "plan_number": "이 장애의 {}번째 계획",
    "policy_version": "정책 {}",
    # decisions, execution, history
    "decisions": "결정 이력",
    "chose": "선택:",
    "via_rest": "REST",
    "via_slack": "Slack",
    "via_console": "콘솔",
    "via_cli": "명령줄",
    "approved_too": "{}도 승인함",
    "withdrawn": "시작 전에 철회됨({}): 아무것도 실행되지 않음",
    "notes": "직접 수행한 조치",
    "credit": "조치의 효과인가?",
    "credit_remedy": "조치의 효과임",
    "credit_unclear": "판단할 수 없음",
    "credit_by_itself": "저절로 복구됨",
    "compared": "비교 대상",
    "puts_back": "계획 {}에서 바꾼 것을 되돌림",
    "todo_unknown": "이 단계가 수행되었는지 알 수 없습니다. 저절로 다시 시도하지 않으며"
    " 이후 단계는 실행되지 않았습니다. 대상을 직접 확인한 뒤 re_plan 을 선택하면 상태를 다시 읽습니다.",
    "todo_dry_run": "아무것도 변경되지 않았습니다.",
    "todo_undo_failed": "되돌리지 못했습니다. 이 단계가 바꾼 것이 그대로 남아 있으니 직접 되돌리고 메모를 남기세요.",
    "execution": "실행",
    "undone": "되돌린 단계",
    "verdict": "판정",
    "metric": "지표",
    "before": "이전",
    "after": "이후",
    "expected_value": "기대값",
    "verdict_resolved": "해결됨",
    "verdict_improved": "개선됨",
    "verdict_unchanged": "변화 없음",
    "verdict_worse": "악화됨",
    "verdict_not_measurable": "측정 불가",
    "effect_met": "충족",
    "effect_not_met": "미충족",
    "effect_not_measurable": "측정 불가",
    "step_succeeded": "성공",
    "step_failed": "실패",
    "step_unknown": "알 수 없음",
    "step_skipped": "건너뜀",
    "step_dry_run": "모의 실행",
    "history": "이력",
    "model_calls": "모델 호출",
    "model_failed": "실패 {}건",
    "model_tokens": "토큰: 입력 {}, 출력 {}",
    "model_dollars": "정가 기준 ${}",
    "seconds": "{}초",
}

TEXTS: Mapping[Language, Texts] = {"en": ENGLISH, "ko": KOREAN}


def word(t: Texts, kind: str, value: str) -> str:
    """A risk, verdict, reason … in words; one that has no label stands for itself."""
    return t.get(f"{kind}_{value}", value.replace("_", " "))


def author(t: Texts, engine: str) -> str:
    """Who wrote it: the rules engine, or a model by its name."""
    return t["engine_rules"] if engine == "rules" else engine


def came_of(t: Texts, past: PastIncident) -> tuple[str, ...]:
    """What resolved an earlier incident or did not, and what people said of it afterwards."""
    return (
        outcome(past, "ko" if t["language"] == "ko" else "en"),
        *((t["similar_corrected" if past.corrected else "similar_wrong"],) if past.wrong else ()),
        *((f"{t['similar_helped']}: {past.helped}",) if past.helped else ()),
    )


def confidence(t: Texts, cause: RootCause) -> str:
    """The word, and the certainty it stands for where one was computed."""
    certain = f" ({t['certain'].format(percent(cause.certainty))})" if cause.certainty is not None else ""
    return f"{t['confidence']}: {word(t, 'confidence', cause.confidence)}{certain}"


def grounded(t: Texts, cause: RootCause) -> str:
    """How much of what was said the evidence shows."""
    held = sum(c.verdict in HOLDS for c in cause.checks)
    said = len(cause.checks)
    return t["all_verified"].format(said) if held == said else t["some_verified"].format(held, said)


def claims_verified(t: Texts, cause: RootCause) -> str:
    """How many of its claims hold; empty where it makes none."""
    held = sum(claim.verified for claim in cause.claims)
    return t["claims_verified"].format(held, len(cause.claims)) if cause.claims else ""


def used(t: Texts, use: ModelUse) -> str:
    """What the model was asked, and what that cost, in a line."""
    failed = f" ({t['model_failed'].format(use.failed)})" if use.failed else ""
    tokens = t["model_tokens"].format(f"{use.prompt_tokens:,}", f"{use.completion_tokens:,}")
    dollars = t["model_dollars"].format(f"{use.dollars:,.4f}")
    return f"{use.calls}{failed} · {tokens} · {dollars} · {t['seconds'].format(f'{use.seconds:,.1f}')}"


def passed(t: Texts, checks: Sequence[PreflightCheck]) -> str:
    """How many of the pre-flight checks of a step passed."""
    good = sum(check.status == "ok" for check in checks)
    said = len(checks)
    return t["all_passed"].format(said) if good == said else t["some_passed"].format(good, said)


def amount(t: Texts, number: int, name: str) -> str:
    """``name`` with its number; one has a label of its own."""
    return t[f"{name}_one"] if number == 1 else t[name].format(number)


def felt(t: Texts, service: AffectedService) -> str:
    """A service, and how far it is from what is changed."""
    return f"{service.service} ({amount(t, service.hops, 'hops')})" if service.hops else service.service


def needed(t: Texts, needs: Needs) -> str:
    """What the policy asks for, in a line; what it refuses is not in it."""
    asked = [needs.role, amount(t, needs.approvals, "people")]
    asked += [t["not_by"].format(needs.not_by)] if needs.not_by else []
    asked += [t["dry_run_only"]] if needs.dry_run else []
    why = f" ({', '.join(needs.why)})" if needs.why else ""
    return " · ".join(asked) + why


def chosen(t: Texts, choice: str, steps: Sequence[int]) -> str:
    """A choice, and which steps of it if not all."""
    return f"{choice} ({t['only_steps'].format(', '.join(map(str, steps)))})" if steps else choice


def around_decision(t: Texts, decision: DecisionMade) -> list[str]:
    """Where it was made, who approved it too, and who took it back."""
    others = [a.by for a in decision.approvals if a.by != decision.by]
    said = [t[f"via_{decision.via}"]]
    said += [t["approved_too"].format(", ".join(others))] if others else []
    return said + ([t["withdrawn"].format(decision.withdrawn_by)] if decision.withdrawn_by else [])


def todo(t: Texts, status: str) -> str:
    """What to do about a step that ended so; empty: nothing."""
    return t.get(f"todo_{status}", "")


def todo_undone(t: Texts, status: str) -> str:
    """The same of a step that was to be put back."""
    return t["todo_undo_failed"] if status == "failed" else todo(t, status)


def written_in(t: Texts, language: Language) -> str:
    """In which language a text is, where it is another one than that of the labels."""
    return "" if t["language"] == language else t[f"written_{language}"]
