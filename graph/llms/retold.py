"""What our own code says of its work beside the findings, and how that is said in Korean.

Patterns for ``graph/llms/sentences.py``: each is a sentence, or a part of one, that this product writes. What the
groups ``said``, ``then`` and ``more`` hold is told anew too; all other groups are names, numbers and others' words.
"""

_STATUSES = (
    ("received", "접수됨"),
    ("collecting", "수집 중"),
    ("analyzing", "분석 중"),
    ("planning", "조치 계획 중"),
    ("awaiting decision", "결정 대기"),
    ("executing", "실행 중"),
    ("verifying", "검증 중"),
    ("resolved", "해결됨"),
    ("closed", "종료됨"),
    ("needs attention", "확인 필요"),
)
_VERDICTS = (
    ("improved", "개선됨"),
    ("unchanged", "변화 없음"),
    ("worse", "악화됨"),
    ("not measurable", "측정 불가"),
)
_STEPS = (
    ("running", "실행 중"),
    ("succeeded", "성공"),
    ("failed", "실패"),
    ("unknown", "알 수 없음"),
    ("skipped", "건너뜀"),
    ("dry_run", "모의 실행"),
    ("undone", "되돌림"),
    ("undone in part", "일부만 되돌림"),
    ("not undone", "되돌리지 못함"),
)

# What came of an execution: graph/watch.py, graph/control.py, graph/verification.py.
_VERIFICATION = (
    (r"(?:Rehearsal|Dry run): nothing was changed", "모의 실행: 아무것도 변경하지 않았습니다"),
    (r"nothing to measure", "측정할 것이 없음"),
    (r"All expected effects held for (?P<n>[\d.]+) minutes", "기대 효과가 모두 {n}분 동안 유지되었습니다"),
    (
        r"Not all expected effects were met, and held, within (?P<n>[\d.]+) minutes",
        "{n}분 안에 모든 기대 효과가 충족되어 유지되지는 않았습니다",
    ),
    (r"It got worse, three readings in a row", "세 번 연속 측정에서 악화되었습니다"),
    (r"Worse than before the first call: (?P<x>.+)", "첫 호출 이전보다 악화된 지표: {x}"),
    (
        r"It got worse, and a process died while it put that back; what it had measured is in the timeline",
        "상황이 악화되었고, 되돌리는 중에 프로세스가 종료되었습니다. 측정한 내용은 이력에 있습니다",
    ),
    (
        r"But requests are turned away still, by (?P<x>.+): give the traffic back, in steps or by undoing it, and see"
        r" whether it stays so",
        "다만 {x} 조치로 아직 요청을 거절하고 있습니다. 트래픽을 단계적으로 돌려주거나 조치를 되돌린 뒤"
        " 상태가 유지되는지 확인하세요",
    ),
    (r"(?P<x>\w+) (?P<said>failed|unknown): (?P<then>.+)", "{x} {said}: {then}"),
    (r"In place: (?P<x>[\w, ]+)", "그대로 남은 변경: {x}"),
    (r"(?P<h>\d+) of (?P<n>\d+) expected effects met", "기대 효과 {n}개 중 {h}개 충족"),
    (r"worse elsewhere: (?P<x>.+)", "다른 곳에서 악화: {x}"),
    (r"(?P<c>\S+) could not be measured: (?P<said>.+)", "{c:을/를} 측정하지 못함: {said}"),
    (r"no answer within (?P<n>[\d.]+) s", "{n}초 안에 응답 없음"),
    (r"(?P<c>\S+ \S+): no fresh values from (?P<s>\S+)", "{c}: {s}에 새 값이 없음"),
    (
        r"(?P<c>\S+ \S+): (?P<b>\S+) -> (?P<a>\S+), expected (?P<o>[<>]=) (?P<v>\S+)",
        "{c}: {b} -> {a}, 기대값 {o} {v}",
    ),
    (
        r"(?P<c>\S+ \S+): (?P<b>\S+) -> (?P<a>\S+), expected (?P<o>[<>]=) (?P<v>\S+)"
        r" \(a count; of how many requests is not measured\)",
        "{c}: {b} -> {a}, 기대값 {o} {v} (건수이며, 요청 수는 측정되지 않음)",
    ),
    (
        r"(?P<c>\S+ \S+): (?P<b>\S+) -> (?P<a>\S+), expected (?P<o>[<>]=) (?P<v>\S+)"
        r" \(counted (?P<n>\S+), requests (?P<r>\S+) -> (?P<q>[^\s)]+)\)",
        "{c}: {b} -> {a}, 기대값 {o} {v} (실제 {n}건, 요청 {r} -> {q})",
    ),
    (
        r"(?P<c>\S+ \S+): hardly anything asks it any more \(requests (?P<r>\S+) -> (?P<q>[^\s)]+)\), so its count says"
        r" nothing",
        "{c}: 요청이 거의 없어(요청 {r} -> {q}) 건수로 판단할 수 없음",
    ),
    (
        r"Nothing that shows the same trouble was out of the remedy's reach, to compare it with",
        "같은 증상을 보이면서 조치의 영향을 받지 않은 비교 대상이 없습니다",
    ),
    (
        r"There are too few readings from before the first call to see a trend",
        "첫 호출 이전의 측정값이 적어 추세를 알 수 없습니다",
    ),
    (
        r"(?P<y>\d+) of (?P<n>\d+) metrics were on their way there before the first call",
        "첫 호출 이전에 이미 지표 {n}개 중 {y}개가 회복되고 있었습니다",
    ),
    (
        r"Before the first call (?P<y>\d+) of (?P<n>\d+) metrics were not on their way there",
        "첫 호출 이전에는 지표 {n}개 중 {y}개가 회복되고 있지 않았습니다",
    ),
    (
        r"Meanwhile, out of the remedy's reach, the way back to normal was made by (?P<said>.+); with the remedy by"
        r" (?P<p>-?\d+ %) \(difference (?P<d>-?\d+ %)\)",
        "그동안 조치의 영향을 받지 않은 곳의 회복 정도: {said}. 조치한 곳: {p}(차이 {d})",
    ),
    (
        r"(?P<said>\S+ \S+ by -?\d+ %), (?P<more>\S+ \S+ by -?\d+ %(?:, .+)?)",
        "{said}, {more}",
    ),
    (r"(?P<c>\S+ \S+) by (?P<p>-?\d+ %)", "{c} {p}"),
)

# What became of steps: graph/nodes/action_executor.py, and what the executors did.
_RESULTS = (
    (r"not approved", "승인되지 않음"),
    (r"an earlier step did not succeed", "앞 단계가 성공하지 못함"),
    (
        r"(?P<x>\w+) is not turned on here; see AUTOPILOT_EXECUTORS",
        "{x:이/가} 여기서는 켜져 있지 않음. AUTOPILOT_EXECUTORS 참고",
    ),
    (
        r"the policy was changed since this was approved: decide on the new plan",
        "승인한 뒤 정책이 바뀌었으니 새 계획을 보고 다시 결정하세요",
    ),
    (
        r"changed since it was approved: (?P<x>.+); decide on the new plan",
        "승인한 뒤 바뀐 것: {x}. 새 계획을 보고 다시 결정하세요",
    ),
    (
        r"a process died between claim and result, and nobody here can tell whether it was made: (?P<said>.+)",
        "실행 도중 프로세스가 종료되어 변경이 이루어졌는지 알 수 없음: {said}",
    ),
    (r"a process died while it put this back; then: (?P<said>.+)", "되돌리는 중에 프로세스가 종료됨. 이후: {said}"),
    (
        r"a process died while it put this back; read back: it is",
        "되돌리는 중에 프로세스가 종료됨. 확인 결과 되돌려져 있음",
    ),
    (r"looked at again: it was not made, nothing to undo", "다시 확인한 결과 변경되지 않아 되돌릴 것이 없음"),
    (r"(?P<said>.+); looked at again: it was made", "{said}. 다시 확인한 결과 변경되어 있음"),
    (r"(?P<said>.+); looked at again: it was not made", "{said}. 다시 확인한 결과 변경되지 않음"),
    (r"(?P<said>.+); read back: it was done", "{said}. 확인 결과 수행됨"),
    (r"(?P<said>.+); read back: it is", "{said}. 확인 결과 되돌려져 있음"),
    (r"(?P<said>.+) \(the change was made\)", "{said} (변경은 이루어짐)"),
    (r"undone: (?P<said>.+)", "되돌림: {said}"),
    (r"undo: (?P<said>.+)", "되돌리기: {said}"),
    (r"not undone: (?P<x>\w+): (?P<said>.+)", "되돌리지 못함: {x}: {said}"),
    (r"(?P<x>\w+) cannot be undone", "{x:은/는} 되돌릴 수 없음"),
    (r"Not undone: the policy asks a person first", "되돌리지 않음: 정책에 따라 사람에게 먼저 묻습니다"),
    (r"Choose undo to put back (?P<x>[\w, ]+)", "되돌리려면 undo 를 선택하세요. 대상: {x}"),
    (r"There is nothing in place that could be put back", "되돌릴 변경이 남아 있지 않습니다"),
    (
        r"Dry run: nothing was put back; the policy allows no changes in this environment",
        "모의 실행: 정책상 이 환경에서는 변경할 수 없어 아무것도 되돌리지 않았습니다",
    ),
    (
        r"(?P<said>.+) \((?P<h>\d+) healthy, (?P<u>\d+) unhealthy, (?P<x>\d+) without a health check\)",
        "{said}(정상 {h}, 비정상 {u}, 헬스 체크 없음 {x})",
    ),
    (r"(?P<a>\d+) of (?P<n>\d+) tasks running", "태스크 {n}개 중 {a}개 실행 중"),
    (r"(?P<a>\d+) of (?P<n>\d+) tasks running, rollout (?P<r>\w+)", "태스크 {n}개 중 {a}개 실행 중, 배포 상태 {r}"),
    (r"(?P<n>\d+) healthy targets, (?P<m>\d+) unhealthy", "정상 대상 {n}개, 비정상 {m}개"),
    (r"deployment (?P<x>\S+) started", "배포 {x} 시작됨"),
    (r"(?P<n>[\d.]+%) of its traffic", "트래픽의 {n}"),
    (r"(?P<n>\d+) tasks", "태스크 {n}개"),
    (r"(?P<n>\d+) new tasks of the same version", "같은 버전의 새 태스크 {n}개"),
    (r"(?P<n>\d+) instances", "인스턴스 {n}개"),
    (r"(?P<n>\d+) pods?", "파드 {n}개"),
    (r"(?P<said>.+), by a rolling deployment", "{said}, 순차 배포"),
    (r"already back at (?P<said>.+)", "이미 {said:으로/로} 되돌려져 있음"),
    (r"runs (?P<x>\S+) already", "이미 {x:을/를} 실행 중"),
    (r"(?P<said>[^:;]+) -> (?P<more>[^:;]+)", "{said} -> {more}"),
)

# Why an incident stands where it stands: app/admission.py, app/alerts.py, app/runner.py, app/waiting.py.
_REASONS = (
    (r"recovered by itself", "저절로 복구됨"),
    (
        r"Closed: all its alerts recovered, and nobody had decided yet",
        "종료됨: 아무도 결정하기 전에 모든 알림이 복구되었습니다",
    ),
    (r"Reopened: (?P<x>.+)", "다시 열림: {x}"),
    (r"(?P<n>POST /incidents/\S+) begins it now", "지금 시작하려면 {n} 요청을 보내세요"),
    (r"(?P<x>.+) takes it by hand", "{x:이/가} 직접 처리합니다"),
    (r"all its alerts were moved to (?P<x>\S+)", "알림이 모두 {x:으로/로} 옮겨졌습니다"),
    (
        r"it failed again and again; the last error: (?P<x>.+)",
        "처리가 거듭 실패했습니다. 마지막 오류: {x}",
    ),
    (
        r"waits: (?P<n>\d+) investigations run at once \(AUTOPILOT_INVESTIGATIONS_AT_ONCE\); (?P<said>.+)",
        "대기 중: 조사 {n}건이 동시에 진행되고 있습니다(AUTOPILOT_INVESTIGATIONS_AT_ONCE). {said}",
    ),
    (
        r"(?P<c>\S+) has used its (?P<n>\d+) investigations an hour \(AUTOPILOT_INVESTIGATIONS_PER_SERVICE_HOUR\): this"
        r" one waits; (?P<said>.+)",
        "대기 중: {c:이/가} 시간당 조사 {n}건을 모두 썼습니다(AUTOPILOT_INVESTIGATIONS_PER_SERVICE_HOUR). {said}",
    ),
)

# Lines of the timeline.
_HISTORY = (
    (r"Alert from (?P<s>\S+): (?P<x>.+)", "{s} 알림: {x}"),
    (r"Opened by (?P<s>\S+): (?P<x>.+)", "{s:이/가} 시작: {x}"),
    (r"The same alert had incident (?P<x>\S+) before", "같은 알림으로 이전에 장애 {x:이/가} 있었습니다"),
    (r"(?P<x>.+) joined: (?P<y>.+) \(score (?P<n>[\d.]+)\)", "{x} 알림이 합쳐짐: {y} (점수 {n})"),
    (
        r"Its recovery was here before it: nothing is left to investigate",
        "알림보다 복구가 먼저 도착하여 조사할 것이 없습니다",
    ),
    (r"(?P<n>\d+) alerts? to (?P<i>\S+), (?P<x>.+)", "알림 {n}건을 {i:으로/로} 보냄, {x}"),
    (r"(?P<n>\d+) alerts? from (?P<i>\S+), (?P<x>.+)", "알림 {n}건을 {i}에서 받음, {x}"),
    (r"Split off incident (?P<i>\S+) by (?P<s>[^\s:]+): (?P<x>.+)", "{s:이/가} 장애 {i}에서 분리: {x}"),
    (
        r"Looking at (?P<c>\S+) and (?P<n>\d+) neighbours, (?P<a>[\d:]+) to (?P<b>[\d:]+) UTC",
        "{c} 및 이웃 구성 요소 {n}개 조사, {a} ~ {b} UTC",
    ),
    (r"(?P<s>\S+): reading", "{s}: 읽는 중"),
    (r"nothing there", "읽은 것 없음"),
    (r"(?P<said>[\d,]+ (?:metrics|log lines|spans|changes|states|runbook sections)), (?P<more>.+)", "{said}, {more}"),
    (r"(?P<n>[\d,]+) metrics", "지표 {n}개"),
    (r"(?P<n>[\d,]+) log lines", "로그 {n}줄"),
    (r"(?P<n>[\d,]+) spans", "스팬 {n}개"),
    (r"(?P<n>[\d,]+) changes", "변경 {n}건"),
    (r"(?P<n>[\d,]+) states", "상태 {n}개"),
    (r"(?P<n>[\d,]+) runbook sections", "런북 항목 {n}개"),
    (r"(?P<n>\d+) gaps?: (?P<said>.+)", "확인하지 못한 것 {n}건: {said}"),
    (r"(?P<n>\d+) findings; first suspect: none", "증거 {n}건, 원인 후보 없음"),
    (r"(?P<n>\d+) findings; first suspect: (?P<c>\S+)", "증거 {n}건, 첫 번째 원인 후보: {c}"),
    (r"(?P<x>.+) \((?P<said>\w+ confidence), by (?P<then>.+)\)", "{x} ({said}, 작성: {then})"),
    (r"high confidence", "신뢰도 높음"),
    (r"medium confidence", "신뢰도 보통"),
    (r"low confidence", "신뢰도 낮음"),
    (r"inconclusive confidence", "결론 없음"),
    (r"rules", "규칙 엔진"),
    (r"(?P<n>\d+) options?: (?P<x>.+)", "조치 방안 {n}건: {x}"),
    (
        r"The trouble may be older than (?P<a>[\d:]+) UTC: looking from (?P<b>[\d:]+) on",
        "{a} UTC 이전에 시작되었을 수 있어 {b}부터 조사합니다",
    ),
    (r"(?P<x>\S+): succeeded - (?P<said>.+)", "{x}: 성공 - {said}"),
    (r"(?P<x>\S+): failed - (?P<said>.+)", "{x}: 실패 - {said}"),
    (r"(?P<x>\S+): unknown - (?P<said>.+)", "{x}: 알 수 없음 - {said}"),
    (r"(?P<x>\S+): skipped - (?P<said>.+)", "{x}: 건너뜀 - {said}"),
    (r"(?P<x>\S+): dry_run - (?P<said>.+)", "{x}: 모의 실행 - {said}"),
    (r"(?P<x>.+): (?P<said>[a-z ]+), (?P<then>undone|undone in part|not undone)", "{x}: {said}, {then}"),
    (r"the plan has waited (?P<said>.+?); (?P<then>.+)", "계획이 {said} 결정을 기다리고 있습니다. {then}"),
    (r"its options can be approved for (?P<said>.+) more", "조치는 앞으로 {said} 승인할 수 있습니다"),
    (r"less than a minute", "1분 미만"),
    (r"(?P<t>\d+) minutes?", "{t}분 동안"),
    (r"its options are too old", "조치가 오래되어 승인할 수 없습니다"),
    (r"nobody has decided for (?P<said>[^;]+)", "{said} 아무도 결정하지 않았습니다"),
    (r"(?P<x>\S+) is told", "{x}에 알림"),
    (
        r"nobody decided within (?P<t>.+?) minutes?: the options are too old to be approved, and nothing was run",
        "{t}분 안에 결정되지 않아 조치를 더는 승인할 수 없으며, 아무것도 실행되지 않았습니다",
    ),
    (
        r"Ask for new ones \(re_plan\), or choose re_analyze or manual",
        "새 조치를 요청(re_plan)하거나 re_analyze 또는 manual 을 선택하세요",
    ),
    (r"The investigation begins, after (?P<n>\d+) s of waiting", "{n}초 기다린 뒤 조사를 시작합니다"),
    (
        r"Its alerts had recovered before it was split off: nothing is left to investigate",
        "분리되기 전에 알림이 복구되어 조사할 것이 없습니다",
    ),
    (r"(?P<s>\S+) could not be told \((?P<t>[^()]*)\): (?P<x>.+)", "{s}에 알리지 못함({t}): {x}"),
    (r"(?P<s>\S+) could not be told yet \((?P<t>[^()]*)\): (?P<x>.+)", "{s}에 아직 알리지 못함({t}): {x}"),
    (r"(?P<x>\S+) chose (?P<c>\w+)", "{x:이/가} {c:을/를} 선택"),
    (r"(?P<x>\S+) chose (?P<c>\w+): (?P<n>.+)", "{x:이/가} {c:을/를} 선택: {n}"),
    (r"(?P<x>\S+) approved (?P<c>\w+)", "{x:이/가} {c} 승인"),
    (r"one more person must approve it too", "1명이 더 승인해야 합니다"),
    (r"(?P<n>\d+) more people must approve it too", "{n}명이 더 승인해야 합니다"),
    (r"(?P<x>\S+) withdrew the decision of (?P<c>\w+)", "{x:이/가} {c} 결정을 철회"),
    (r"(?P<x>\S+) withdrew the approval of (?P<c>\w+)", "{x:이/가} {c} 승인을 철회"),
)

# What could not be seen, as far as it is ours to say: collectors/, graph/looks.py, graph/nodes/context_collector.py.
_GAPS = (
    (r"(?P<said>.+): not read whole within (?P<n>[\d.e+]+) s", "{n}초 안에 모두 읽지 못함: {said}"),
    (r"(?P<said>.+) and (?P<n>\d+) more", "{said} 외 {n}건"),
    (r"(?P<said>(?:metrics|logs|spans) of \S+|the monitor that alerted), (?P<more>.+)", "{said}, {more}"),
    (r"metrics of (?P<c>\S+)", "{c} 지표"),
    (r"logs of (?P<c>\S+)", "{c} 로그"),
    (r"spans of (?P<c>\S+)", "{c} 스팬"),
    (r"the monitor that alerted", "알림을 울린 모니터"),
    (r"(?P<s>\S+) did not answer within (?P<n>[\d.e+]+) s", "{s:이/가} {n}초 안에 응답하지 않음"),
    (r"no log line is tagged (?P<x>.+)", "{x} 태그가 있는 로그 없음"),
    (r"no metric is tagged (?P<x>.+)", "{x} 태그가 있는 지표 없음"),
    (r"CloudWatch has no metric of (?P<x>.+)", "CloudWatch에 {x}의 지표 없음"),
    (r"(?P<n>[\d,]+) rows were not understood: (?P<x>.+)", "해석하지 못한 행 {n}개: {x}"),
    (r"only the first (?P<n>[\d,]+) rows were read: (?P<x>.+)", "처음 {n}행만 읽음: {x}"),
    (r"not believed, and dropped: (?P<x>.+)", "믿을 수 없어 제외함: {x}"),
    (r"(?P<n>\d+) neighbours were not looked at: (?P<x>.+)", "조사하지 않은 이웃 구성 요소 {n}개: {x}"),
    (
        r"the trouble may be older than (?P<a>[\d:]+) UTC; no time was left to look",
        "{a} UTC 이전에 시작되었을 수 있으나 조사할 시간이 없었음",
    ),
    (
        r"the trouble may be older than (?P<a>[\d:]+) UTC; looking from (?P<b>[\d:]+) on showed nothing to compare",
        "{a} UTC 이전에 시작되었을 수 있으나 {b}부터 보아도 비교할 것이 없음",
    ),
    (r"No earlier incidents after (?P<n>[\d.]+) s", "{n}초 안에 유사 장애를 찾지 못함"),
    (r"No earlier incidents: (?P<x>\w+)", "유사 장애를 찾지 못함: {x}"),
    (r"nothing was recorded in the windows of this incident", "이 장애의 조사 구간에 기록된 것이 없음"),
    (r"(?P<x>.+) is not part of the recording", "{x:은/는} 기록에 없음"),
    (r"set datadog_tags in the catalogue", "카탈로그에 datadog_tags 를 설정하세요"),
    (r"ask for a re-analysis that names one", "그중 하나를 지정하여 재분석을 요청하세요"),
    (r"raise (?P<x>[A-Z_]+), or ask for a re-analysis", "{x} 값을 늘리거나 재분석을 요청하세요"),
    (r"raise (?P<x>[A-Z_]+)", "{x} 값을 늘리세요"),
    (r"mend what the sources say is missing, then ask for a re-analysis", "빠진 것을 보완한 뒤 재분석을 요청하세요"),
    (r"report this defect, with the log", "로그와 함께 이 결함을 알려 주세요"),
)

OURS: tuple[tuple[str, str], ...] = (
    *_STATUSES,
    *((f"{status}: (?P<said>.+)", f"{korean}: {{said}}") for status, korean in _STATUSES),
    *_VERDICTS,
    *_STEPS,
    *_VERIFICATION,
    *_RESULTS,
    *_REASONS,
    *_HISTORY,
    *_GAPS,
)

# Why an earlier incident is like this one: app/knowledge/search.py.
ALIKE: tuple[tuple[str, str], ...] = (
    (r"the same alert", "같은 알림"),
    (r"alert rule (?P<x>.+)", "알림 규칙 {x}"),
    (r"component (?P<x>.+)", "구성 요소 {x}"),
    (r"alerted service (?P<x>.+)", "알림이 울린 서비스 {x}"),
    (r"category (?P<x>.+)", "분류 {x}"),
    (r"error (?P<x>.+)", "오류 {x}"),
    (r"log line (?P<x>.+)", "로그 {x}"),
    (r"symptom (?P<x>.+)", "증상 {x}"),
    (r"finding (?P<x>.+)", "증거 {x}"),
    (r"change (?P<x>.+)", "변경 {x}"),
    (r"words (?P<x>.+)", "단어 {x}"),
    (r"text alike by (?P<x>.+)", "본문 유사도 {x}"),
    (r"its analysis was called right", "당시 분석이 옳았다고 표시됨"),
    (r"its analysis was called partly wrong", "당시 분석이 일부 틀렸다고 표시됨"),
    (r"its analysis was called wrong", "당시 분석이 틀렸다고 표시됨"),
    (r"a person corrected its cause", "원인은 사람이 바로잡음"),
)
