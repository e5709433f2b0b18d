"""Findings told in Korean, and the particles that fit."""

import re
from pathlib import Path

import pytest

from app.evaluation import ranked
from app.knowledge.search import _JUDGED, _TOLD
from collectors.replay import load_bundle
from graph import control
from graph.grounding import ground
from graph.llms.korean import Word
from graph.llms.sentences import alike, restated, told
from graph.state import Claim, Evidence, RootCause
from tests.graph.llms import incidents

SCENARIOS = Path(__file__).parents[2] / "scenarios"
ADDED = ("005-slow-product-pages", "010-missing-delivery-dates", "014-handoffs-rising")  # what is held against others


@pytest.fixture(scope="module", params=["001-black-friday", "002-bad-deploy", *ADDED])
def evidence(request: pytest.FixtureRequest) -> Evidence:
    return ranked(load_bundle(SCENARIOS / request.param))


def test_every_sentence_of_the_ranking_is_known(evidence: Evidence) -> None:
    untold = [f.summary for f in evidence.findings if " 관측: “" in told(f, "ko")]
    assert untold == []


def test_what_is_said_of_the_whole_is_known(evidence: Evidence) -> None:
    said = [evidence.assessment.why if evidence.assessment else "", *(i.name for i in evidence.impact)]
    said += [i.window for i in evidence.impact]
    assert [one for one in said if restated(one, "ko") == one] == []
    assert [restated(one, "en") for one in said] == said


@pytest.mark.parametrize(
    ("said", "korean"),
    [
        ("pay is likely the cause: score 1.00.", "pay가 원인일 가능성이 높습니다(점수 1.00)."),
        (
            "The symptom is over. db is a lead, not more: score 0.40, pay is next with 0.31.",
            "증상은 끝났습니다. db는 실마리일 뿐입니다(점수 0.40). 다음 후보는 pay입니다(점수 0.31).",
        ),
        ("checkout: failed requests", "checkout: 실패한 요청"),
        ("time lost by the slowest 5 % of requests", "가장 느린 5 % 요청이 잃은 시간"),
        ("what nobody writes", "what nobody writes"),
        ("All expected effects held for 5 minutes.", "기대 효과가 모두 5분 동안 유지되었습니다."),
        (
            "All expected effects held for 5 minutes. But requests are turned away still, by reduce_traffic on pay:"
            " give the traffic back, in steps or by undoing it, and see whether it stays so.",
            "기대 효과가 모두 5분 동안 유지되었습니다. 다만 reduce_traffic on pay 조치로 아직 요청을 거절하고 있습니다."
            " 트래픽을 단계적으로 돌려주거나 조치를 되돌린 뒤 상태가 유지되는지 확인하세요.",
        ),
        (
            "restart_ecs_task failed: no answer came. In place: scale_ecs_service.",
            "restart_ecs_task 실패: no answer came. 그대로 남은 변경: scale_ecs_service.",
        ),
        (
            "pay error_rate: 12.5 -> 0.2, expected <= 1 (counted 3, requests 100 -> 120)",
            "pay error_rate: 12.5 -> 0.2, 기대값 <= 1 (실제 3건, 요청 100 -> 120)",
        ),
        (
            "pay: 3 of 3 tasks running, rollout COMPLETED (3 healthy, 0 unhealthy, 0 without a health check)",
            "pay: 태스크 3개 중 3개 실행 중, 배포 상태 COMPLETED(정상 3, 비정상 0, 헬스 체크 없음 0)",
        ),
        (
            "restart_ecs_task: succeeded - pay: 3 tasks -> 3 new tasks of the same version",
            "restart_ecs_task: 성공 - pay: 태스크 3개 -> 같은 버전의 새 태스크 3개",
        ),
        (
            "undone: pay: 6 tasks -> 3 tasks; looked at again: it was made",
            "되돌림: pay: 태스크 6개 -> 태스크 3개. 다시 확인한 결과 변경되어 있음",
        ),
        (
            "metrics of pay, the monitor that alerted and 21 more: not read whole within 15 s",
            "15초 안에 모두 읽지 못함: pay 지표, 알림을 울린 모니터 외 21건",
        ),
        (
            "datadog: 12 metrics, 1,200 log lines, 2 gaps: no log line is tagged service:db",
            "datadog: 지표 12개, 로그 1,200줄, 확인하지 못한 것 2건: service:db 태그가 있는 로그 없음",
        ),
        ("Opened by kim: checkout errors now", "kim이 시작: checkout errors now"),
        ("kim approved 2; one more person must approve it too", "kim이 2 승인; 1명이 더 승인해야 합니다"),
        (
            "web: Latency joined: pay depends on it (score 0.8)",
            "web: Latency 알림이 합쳐짐: pay depends on it (점수 0.8)",
        ),
        ("awaiting decision", "결정 대기"),
        ("closed: kim takes it by hand", "종료됨: kim이 직접 처리합니다"),
        ("closed: recovered by itself", "종료됨: 저절로 복구됨"),
        ("nobody has decided for 20 minutes; #ops is told", "20분 동안 아무도 결정하지 않았습니다; #ops에 알림"),
        ("Latency of pay rose (high confidence, by rules)", "Latency of pay rose (신뢰도 높음, 작성: 규칙 엔진)"),
        ("Restart pay: resolved, undone in part", "Restart pay: 해결됨, 일부만 되돌림"),
        ("undo: " * 500, "undo: " * 500),
    ],
)
def test_tells_the_whole_in_korean(said: str, korean: str) -> None:
    told = restated(said, "ko")
    assert told == korean
    assert restated(told, "ko") == told


def test_every_sentence_on_whose_merit_it_was_is_known() -> None:
    trends: list[list[bool | None]] = [[], [True], [False], [None, True, False]]
    beside: list[list[control.Twin]] = [
        [],
        [control.Twin("orders", "errors", 0.9), control.Twin("cart", "errors", -0.1)],
    ]
    said = [control.credit(alone, 0.8, twins)[1] for alone in trends for twins in beside]
    told = [restated(one, "ko") for one in said]
    assert [one for one in told if re.search(r"[A-Za-z]{2,}", re.sub("orders|cart|errors", "", one))] == []


@pytest.mark.parametrize("prefix", sorted(_TOLD))
def test_every_reason_of_an_earlier_incident_is_known(prefix: str) -> None:
    reason = _TOLD[prefix] if prefix == "alert" else f"{_TOLD[prefix]} payment-service"
    told = alike(reason, "ko")
    assert not re.search("[A-Za-z]", told.removesuffix("payment-service"))
    assert alike(told, "ko") == told
    assert alike(reason, "en") == reason


def test_what_people_say_of_an_earlier_incident_is_known() -> None:
    said = [*(one for judged in _JUDGED.values() for one in judged), "text alike by 40%", "words pool, full"]
    assert [one for one in said if alike(one, "ko") == one] == []


def test_every_korean_sentence_is_verified(evidence: Evidence) -> None:
    claims = tuple(
        Claim(text=f"{told(f, 'ko')}.", evidence=(f.id,)) for f in evidence.findings if f.kind != "knowledge"
    )
    answer = RootCause(
        component=None, category="unknown", title="t", mechanism="m", claims=claims, confidence="low", language="ko"
    )
    grounded = ground(answer, evidence, ())
    assert [(c.text, c.complaint) for c in grounded.claims if not c.verified] == []


def test_in_english_it_is_the_findings_own_sentence(evidence: Evidence) -> None:
    assert all(told(f, "en") == f.summary.rstrip(".") for f in evidence.findings)


@pytest.mark.parametrize(
    ("summary", "korean"),
    [
        (
            "All 4 metrics of pay stopped; the last was at 09:15:00 UTC.",
            "pay의 지표 4개가 모두 끊겼습니다. 마지막 값은 09:15:00 UTC입니다",
        ),
        (
            "pay logged 1,200 line(s) that hold “too many” in the incident (120/min, none before), at 09:15:00 UTC.",
            "pay에 “too many” 문구가 든 로그가 1,200줄 남았습니다(분당 120줄, 이전에는 없었음)",
        ),
        (
            "pay logged 12 line(s) that hold “too many” in the incident (1.2/min, 0.1/min before). 12 error.",
            "pay에 “too many” 문구가 든 로그가 12줄 남았습니다(분당 1.2줄, 이전에는 분당 0.1줄)",
        ),
        (
            "Nothing was found of log lines of pay that hold “too many” at loki, datadog.",
            "loki, datadog의 pay 로그에서 “too many” 문구를 찾지 못했습니다",
        ),
        (
            "3 of 9 spans “POST /pay” of pay failed with Timeout (33%, 0% before). Only instance p7 is concerned.",
            "pay의 “POST /pay” 스팬 9개 중 3개가 Timeout 오류로 실패했습니다(33%, 이전 0%). p7 인스턴스만 해당합니다",
        ),
        (
            "9 of 9 requests “GET /” of web called db 7 times on average, normally 2. These are retries after errors of"
            " db.",
            "web의 “GET /” 요청 9건 중 9건이 db를 평균 7번 호출했습니다(평소 2번). db 오류에 따른 재시도입니다",
        ),
        (
            "pay ecs.running_tasks is 1, expected 3: killed for want of memory (exit code 137).",
            "pay의 ecs.running_tasks 값이 1입니다(기대값 3), 메모리 부족으로 강제 종료 (exit code 137)",
        ),
        (
            "worker: work waits for it in jobs. jobs depth rose from 4 to 900 from 09:15:00 UTC on.",
            "worker가 처리할 작업이 jobs에 쌓여 있습니다. jobs의 depth 값이 09:15:00 UTC부터 4에서 900까지 올랐습니다",
        ),
        ("Something nobody has written yet", "pay 관측: “Something nobody has written yet”"),
    ],
)
def test_tells_it_in_korean(summary: str, korean: str) -> None:
    assert told(incidents.finding(1, "log", "pay", "s", summary), "ko") == korean


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("서비스", "서비스가"),
        ("풀", "풀이"),
        ("checkout-service", "checkout-service가"),
        ("orders-db", "orders-db가"),
        ("SQS", "SQS가"),
        ("table", "table이"),
        ("admin", "admin이"),
        ("redis", "redis가"),
        ("checkout", "checkout이(가)"),
        ("node-3", "node-3이"),
        ("node-2", "node-2가"),
        ("…", "…이(가)"),
    ],
)
def test_particles_fit(word: str, said: str) -> None:
    assert f"{Word(word):이/가}" == said


@pytest.mark.parametrize(
    ("word", "said"), [("풀", "풀로"), ("큐", "큐로"), ("시간", "시간으로"), ("7", "7로"), ("6", "6으로")]
)
def test_direction_has_its_own_rule(word: str, said: str) -> None:
    assert f"{Word(word):으로/로}" == said
