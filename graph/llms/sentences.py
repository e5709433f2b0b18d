"""A finding told in a sentence, in English or Korean; and what else our own code says.

In English it is the finding's own sentence. The Korean one is made from it, for the sentence holds more than the
finding's fields do: each pattern below is one that ``graph/ranking`` writes, and what it does not know is quoted.
Numbers, units, times, names and quotes stay exactly as they are.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from graph.llms import retold
from graph.llms.korean import Word
from graph.ranking.deviation import quantity
from graph.sentences import sentences
from graph.state import Finding, Language

MAX_LENGTH, MAX_DEPTH = 2_000, 8
"""Of what is told anew: characters, and sentences within sentences; what is more is no sentence of ours."""
_Known = tuple[tuple[re.Pattern[str], str], ...]


def _compiled(patterns: Iterable[tuple[str, str]]) -> _Known:
    return tuple((re.compile(pattern, re.DOTALL), korean) for pattern, korean in patterns)


_PATTERNS: tuple[tuple[str, str], ...] = (
    (
        r"(?P<c>.+?): work waits for it in (?P<q>.+?)\. (?P<inner>.*)",
        "{c:이/가} 처리할 작업이 {q}에 쌓여 있습니다. {inner}",
    ),
    (
        r"(?P<c>.+?): it may call (?P<q>.+?) no more\. (?P<inner>.*)",
        "{c:이/가} {q:을/를} 더는 호출하지 않을 수 있습니다. {inner}",
    ),
    (
        r"(?P<c>.+?): what it misses is read from (?P<q>.+?)\. (?P<inner>.*)",
        "{c:이/가} 갖고 있지 않은 데이터는 {q}에서 읽습니다. {inner}",
    ),
    (
        r"(?P<c>.+?): it puts more into (?P<q>.+?) for the same requests\. (?P<inner>.*)",
        "{c:이/가} 같은 요청 수에도 {q}에 더 많은 작업을 넣습니다. {inner}",
    ),
    (
        r"(?P<c>.+?): (?P<q>.+?) names it in what it logs\. (?P<inner>.*)",
        "{q}의 로그에 {c:이/가} 언급됩니다. {inner}",
    ),
    (
        r"(?P<c>\S+) (?P<s>.+?) rose from (?P<b>.+?) to (?P<o>.+?) from (?P<t>[\d:]+ UTC) on",
        "{c}의 {s} 값이 {t}부터 {b}에서 {o}까지 올랐습니다",
    ),
    (
        r"(?P<c>\S+) (?P<s>.+?) fell from (?P<b>.+?) to (?P<o>.+?) from (?P<t>[\d:]+ UTC) on",
        "{c}의 {s} 값이 {t}부터 {b}에서 {o}까지 떨어졌습니다",
    ),
    (
        r"All (?P<n>\d+) metrics of (?P<c>.+?) stopped; the last was at (?P<t>[\d:]+ UTC)",
        "{c}의 지표 {n}개가 모두 끊겼습니다. 마지막 값은 {t}입니다",
    ),
    (
        r"(?P<c>.+?) logged (?P<n>\d+) (?P<l>\w+) line\(s\) like “(?P<like>.*)” \((?P<now>[^,()]+)/min,"
        r" never seen in the baseline\)",
        "{c}에 “{like}” 형태의 {l} 로그가 {n}줄 남았습니다(분당 {now}줄, 기준 구간에는 없었음)",
    ),
    (
        r"(?P<c>.+?) logged (?P<n>\d+) (?P<l>\w+) line\(s\) like “(?P<like>.*)” \((?P<now>[^()]+)/min,"
        r" (?P<then>[^()]+)/min before\)",
        "{c}에 “{like}” 형태의 {l} 로그가 {n}줄 남았습니다(분당 {now}줄, 이전에는 분당 {then}줄)",
    ),
    (
        r"(?P<c>.+?) logged (?P<n>[\d,]+) line\(s\) that hold “(?P<like>.*)” in the incident"
        r" \((?P<now>[^()]+?)/min, none before\).*",
        "{c}에 “{like}” 문구가 든 로그가 {n}줄 남았습니다(분당 {now}줄, 이전에는 없었음)",
    ),
    (
        r"(?P<c>.+?) logged (?P<n>[\d,]+) line\(s\) that hold “(?P<like>.*)” in the incident"
        r" \((?P<now>[^()]+?)/min, (?P<then>[^()]+?)/min before\).*",
        "{c}에 “{like}” 문구가 든 로그가 {n}줄 남았습니다(분당 {now}줄, 이전에는 분당 {then}줄)",
    ),
    (
        r"Nothing was found of log lines of (?P<c>.+?) that hold “(?P<like>.*)” at (?P<s>[\w-]+(?:, [\w-]+)*)",
        "{s}의 {c} 로그에서 “{like}” 문구를 찾지 못했습니다",
    ),
    (
        r"(?P<c>.+?) logs “(?P<like>.*)” far less: about (?P<n>[\d.,]+) lines were expected, (?P<now>\d+) came",
        "{c}의 “{like}” 로그가 크게 줄었습니다. 예상은 약 {n}줄, 실제는 {now}줄입니다",
    ),
    (
        r"(?P<c>.+?) no longer logs “(?P<like>.*)”: about (?P<n>[\d.,]+) lines were expected, none came",
        "{c}에 “{like}” 로그가 더는 남지 않습니다. 예상은 약 {n}줄이었습니다",
    ),
    (
        r"Inside a request, (?P<c>.+?) went from “(?P<a>.*)” straight to “(?P<z>.*)” in (?P<s>\d+%) of (?P<n>\d+)"
        r" cases, (?P<b>\d+%) before, in (?P<m>\d+) traces",
        "요청 안에서 {c:은/는} “{a}” 다음에 바로 “{z}” 단계로 넘어갔습니다({n}건 중 {s}, 이전 {b}, 트레이스 {m}개)",
    ),
    (
        r"(?P<h>\d+) of (?P<n>\d+) spans “(?P<op>.*)” of (?P<c>.+?) failed with (?P<e>.*) \((?P<s>\d+%),"
        r" (?P<b>\d+%) before\)",
        "{c}의 “{op}” 스팬 {n}개 중 {h}개가 {e} 오류로 실패했습니다({s}, 이전 {b})",
    ),
    (
        r"(?P<h>\d+) of (?P<n>\d+) calls of (?P<c>.+?) to (?P<d>.+?) failed with (?P<e>.*) \((?P<s>\d+%),"
        r" (?P<b>\d+%) before\)",
        "{c}에서 {d:으로/로} 보낸 호출 {n}건 중 {h}건이 {e} 오류로 실패했습니다({s}, 이전 {b})",
    ),
    (
        r"(?P<x>[\d.,]+ ms) passed in (?P<c>.+?) itself in (?P<h>\d+) of (?P<n>\d+) spans “(?P<op>.*)”,"
        r" normally (?P<y>[\d.,]+ ms)",
        "“{op}” 스팬 {n}개 중 {h}개에서 {c} 자체에 {x} 걸렸습니다(평소 {y})",
    ),
    (
        r"(?P<x>[\d.,]+ ms) passed between (?P<a>.+?) and (?P<c>.+?) in (?P<h>\d+) of (?P<n>\d+) spans “(?P<op>.*)”,"
        r" normally (?P<y>[\d.,]+ ms)",
        "“{op}” 스팬 {n}개 중 {h}개에서 {a:과/와} {c} 사이에 {x} 걸렸습니다(평소 {y})",
    ),
    (
        r"(?P<x>[\d.,]+ ms) passed in the queue from (?P<a>.+?) to (?P<c>.+?) in (?P<h>\d+) of (?P<n>\d+) spans"
        r" “(?P<op>.*)”, normally (?P<y>[\d.,]+ ms)",
        "“{op}” 스팬 {n}개 중 {h}개에서 {a}에서 {c:으로/로} 가는 큐에 {x} 머물렀습니다(평소 {y})",
    ),
    (
        r"(?P<h>\d+) of (?P<n>\d+) requests “(?P<op>.*)” of (?P<c>.+?) did not call (?P<d>.+?): (?P<s>\d+%) did,"
        r" (?P<b>\d+%) before",
        "{c}의 “{op}” 요청 {n}건 중 {h}건이 {d:을/를} 호출하지 않았습니다(호출 비율 {s}, 이전 {b})",
    ),
    (
        r"No spans of (?P<c>.+?) any more, where about (?P<n>[\d.,]+) calls were expected",
        "{c}의 스팬이 더는 보이지 않습니다. 예상 호출은 약 {n}건입니다",
    ),
    (
        r"No spans of (?P<c>.+?) any more, where about (?P<n>[\d.,]+) calls were expected; (?P<m>\d+) calls to it are"
        r" reported by its callers, (?P<s>\d+%) of them as successful",
        "{c}의 스팬이 더는 보이지 않습니다. 예상 호출은 약 {n}건이며, 호출자가 기록한 호출 {m}건 중 {s}는 성공입니다",
    ),
    (
        r"(?P<h>\d+) of (?P<n>\d+) requests “(?P<op>.*)” of (?P<c>.+?) called (?P<d>.+?) (?P<x>[\d.,]+) times on"
        r" average, normally (?P<y>[\d.,]+)",
        "{c}의 “{op}” 요청 {n}건 중 {h}건이 {d:을/를} 평균 {x}번 호출했습니다(평소 {y}번)",
    ),
    (
        r"(?P<c>\S+) (?P<s>\S+) is (?P<o>[\d.,]+), expected (?P<b>[\d.,]+)(?:: (?P<why>[^()]+?))?(?P<rest> \(.*\))?",
        "{c}의 {s} 값이 {o}입니다(기대값 {b}){because}{rest}",
    ),
    (r"(?P<c>.+?): the alarm “(?P<n>.*?)” is raised(?:: (?P<rest>.*))?", "{c}의 알람 “{n}” 발생: {rest}"),
    (
        r"(?P<c>.+?): (?P<k>deploy|configuration|scaling|feature_flag|other) “(?P<n>.*?)”(?P<v> \(.*?\))?"
        r" at (?P<t>[\d:]+ UTC)(?P<rest>.*)",
        "{c}에 {t} {k} 변경 “{n}”{v} 기록이 있습니다{when}",
    ),
    (
        r"“(?P<n>.*)” describes what (?P<c>.+?) shows: (?P<rest>.*)",
        "“{n}” 문서가 {c}의 증상을 설명합니다: {rest}",
    ),
    (
        r"(?P<c>.+?): a call of a language model takes (?P<o>.+?) instead of (?P<b>.+?) \((?P<s>.*?)\)"
        r" from (?P<t>[\d:]+ UTC) on, at (?P<n>[\d.,]+) calls a minute instead of (?P<m>[\d.,]+)",
        "{c}의 언어 모델 호출 하나가 {t}부터 {o:을/를} 씁니다. 이전에는 {b}입니다({s}, 분당 호출 {n}건, 이전 {m}건)",
    ),
    (
        r"(?P<c>.+?): calls of language models are (?P<n>[\d.,]+) times as many for the same requests"
        r" \(llm calls per request\)",
        "{c}에서 같은 요청에 대한 언어 모델 호출이 {n}배가 되었습니다(llm calls per request)",
    ),
    (
        r"(?P<c>.+?): (?P<h>[\d.,]+) of (?P<n>[\d.,]+) calls of (?P<m>.+?) fail, (?P<s>[\d.,]+ %) instead of"
        r" (?P<b>[\d.,]+ %), from (?P<t>[\d:]+ UTC) on(?P<rest>.*)",
        "{c}의 {m} 호출 {n}건 중 {h}건이 {t}부터 실패합니다({s}, 이전 {b}){rest}",
    ),
)
_KNOWN = _compiled(_PATTERNS)
_OF_THE_WHOLE = _compiled(
    (
        (r"The symptom is over", "증상은 끝났습니다"),
        (r"(?P<c>\S+) is likely the cause: score (?P<n>[\d.]+)", "{c:이/가} 원인일 가능성이 높습니다(점수 {n})"),
        (
            r"(?P<c>\S+) is likely the cause: score (?P<n>[\d.]+), (?P<d>\S+) is next with (?P<m>[\d.]+)",
            "{c:이/가} 원인일 가능성이 높습니다(점수 {n}). 다음 후보는 {d}입니다(점수 {m})",
        ),
        (r"(?P<c>\S+) is a lead, not more: score (?P<n>[\d.]+)", "{c:은/는} 실마리일 뿐입니다(점수 {n})"),
        (
            r"(?P<c>\S+) is a lead, not more: score (?P<n>[\d.]+), (?P<d>\S+) is next with (?P<m>[\d.]+)",
            "{c:은/는} 실마리일 뿐입니다(점수 {n}). 다음 후보는 {d}입니다(점수 {m})",
        ),
        (
            r"Something departs from normal, but nothing that would explain it was seen",
            "평소와 다르지만 이를 설명할 만한 것은 보이지 않았습니다",
        ),
        (
            r"Neither the alerted service nor what it depends on departs clearly from normal",
            "알림이 울린 서비스와 그 의존성 모두 평소와 뚜렷하게 다르지 않습니다",
        ),
        (
            r"No metric, log or span was seen both in the incident and before it",
            "장애 시간과 그 이전에 모두 관측된 메트릭, 로그, 스팬이 없습니다",
        ),
        (r"(?P<a>[\d:]+ UTC) to (?P<b>[\d:]+ UTC)", "{a} ~ {b}"),
        (r"(?P<s>[^:]+) below the usual now", "{s} 평소 대비 부족분, 현재"),
        (r"(?P<s>[^:]+) below the usual in total", "{s} 평소 대비 부족분, 누적"),
        (r"(?P<s>[^:]+) below the usual", "{s} 평소 대비 부족분"),
        (r"(?P<s>[^:]+) now", "{s} 현재"),
        (r"(?P<s>[^:]+) in total", "{s} 누적"),
        (r"failed requests", "실패한 요청"),
        (r"failed requests \(request rate × error share\)", "실패한 요청(요청률 × 오류 비율)"),
        (r"requests slower than the usual p95 of (?P<q>.+) \(at least\)", "평소 p95({q})보다 느린 요청(최소)"),
        (r"time lost by requests", "요청이 잃은 시간"),
        (r"time lost by the slowest (?P<n>[\d.]+) % of requests", "가장 느린 {n} % 요청이 잃은 시간"),
    )
)
_OURS, _ALIKE = (*_compiled(retold.OURS), *_OF_THE_WHOLE), _compiled(retold.ALIKE)
_ADDED: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\.? Only instance (?P<i>\S+) is concerned$"), ". {i} 인스턴스만 해당합니다"),
    (re.compile(r"\.? These are retries after errors of (?P<d>.+)$"), ". {d} 오류에 따른 재시도입니다"),
    (
        re.compile(r"\.? (?P<s>\d+%) of them come from its instance (?P<i>\S+)$"),
        ". 그중 {s}는 {i} 인스턴스에서 나왔습니다",
    ),
)
_WHEN: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?P<n>[\d.]+) minutes before its first deviation"), " (첫 이상 {n}분 전)"),
    (re.compile(r"(?P<n>[\d.]+) hours before its first deviation"), " (첫 이상 {n}시간 전)"),
    (re.compile(r"(?P<n>[\d.]+) minutes after its first deviation"), " (첫 이상 {n}분 후)"),
    (re.compile(r"(?P<n>[\d.]+) hours after its first deviation"), " (첫 이상 {n}시간 후)"),
)
_BECAUSE: Mapping[str, str] = {
    "killed for want of memory": "메모리 부족으로 강제 종료",
    "it keeps ending by itself": "반복해서 스스로 종료",
    "its image cannot be had": "이미지를 가져오지 못함",
    "it cannot be started": "시작 불가",
    "there is no room to run it": "실행할 자리가 없음",
    "its node has put it out": "노드에서 축출",
    "its roll-out failed": "배포 실패",
    "it fails its health checks": "헬스 체크 실패",
    "it does not answer its health checks": "헬스 체크에 응답하지 않음",
    "it is at its limit": "한도 도달",
}


def told(finding: Finding, language: Language) -> str:
    """One sentence without its full stop."""
    own = _plain(finding.summary)
    if language == "en":
        return own
    return _in_korean(own) or _from_fields(finding) or f"{finding.component} 관측: “{own}”"


def restated(said: str, language: Language) -> str:
    """What our code says of the incident as a whole and of its own work; what it does not know stays as it is.

    So the assessment, the name and window of an impact figure, gaps, the results of steps, the verification, and the
    lines of the timeline.
    """
    return said if language == "en" or len(said) > MAX_LENGTH else _anew(said)


def alike(reason: str, language: Language) -> str:
    """Why an earlier incident is like this one."""
    return reason if language == "en" else _matched(reason, _ALIKE) or reason


@lru_cache(maxsize=4096)
def _anew(said: str, depth: int = 0) -> str:
    """In Korean: as a whole, else each sentence, else each part, else what stands behind a name."""
    if depth > MAX_DEPTH:
        return said
    if whole := _matched(said, _OURS, depth):
        return whole
    for parts, between in ((sentences(said), " "), (said.split("; "), "; ")):
        if len(parts) > 1:
            return between.join(_anew(part, depth + 1) for part in parts)
    of, colon, rest = said.partition(": ")
    return f"{of}: {_anew(rest, depth + 1)}" if colon and " " not in of else said


def _matched(said: str, patterns: _Known, depth: int = 0) -> str:
    """What is known of it, in Korean; empty: nothing."""
    bare, end = _plain(said), "." if said.endswith(".") else ""
    for known, korean in patterns:
        if match := known.fullmatch(bare):
            return _filled(korean, match.groupdict(), depth) + end
    return ""


def _in_korean(text: str) -> str:
    """The sentence in Korean; empty if it is none of ranking's."""
    for pattern, added in _ADDED:
        if match := pattern.search(text):
            main = _in_korean(_plain(text[: match.start()]))
            return main + _filled(added, match.groupdict()) if main else ""
    for known, korean in _KNOWN:
        if match := known.fullmatch(text):
            return _filled(korean, match.groupdict())
    return ""


def _filled(template: str, groups: Mapping[str, str | None], depth: int = 0) -> str:
    """``said``, ``then`` and ``more`` are sentences within the sentence."""
    given = {name: Word(value or "") for name, value in groups.items()}
    given |= {name: Word(_anew(given[name], depth + 1)) for name in ("said", "then", "more") if name in given}
    rest = groups.get("rest") or ""
    inner = _plain(groups.get("inner") or "")
    given["when"] = Word(next((_filled(korean, m.groupdict()) for p, korean in _WHEN if (m := p.search(rest))), ""))
    why = groups.get("why") or ""
    given["because"] = Word(f", {_BECAUSE.get(why, why)}" if why else "")
    given["inner"] = Word((_in_korean(inner) or f"“{inner}”") if inner else "")
    return template.format_map(given).rstrip(": ")


def _from_fields(finding: Finding) -> str:
    """Of a measurement whose sentence is not known: what its numbers say."""
    observed, baseline = finding.observed, finding.baseline
    if observed is None or baseline is None or observed == baseline:
        return ""
    verb = "올랐습니다" if observed > baseline else "떨어졌습니다"
    before, after = quantity(baseline, finding.unit), quantity(observed, finding.unit)
    return f"{finding.component}의 {finding.signal} 값이 {before}에서 {after}까지 {verb}"


def _plain(summary: str) -> str:
    return summary.strip().rstrip(".")
