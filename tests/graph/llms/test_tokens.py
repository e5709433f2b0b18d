"""The estimate against counts by the real vocabularies of gpt-4o (o200k) and gpt-4 (cl100k), taken once."""

import pytest

from graph.llms.tokens import conversation_tokens, tokens

COUNTED = {  # text: by o200k, by cl100k
    '{"id": "E4", "kind": "metric", "component": "payment-service", "signal": "db_connection_pool_utilization"}': (
        30,
        30,
    ),
    "payment-service db_connection_pool_utilization rose from 10.6 % to 97.9 % from 09:15:00 UTC on.": (30, 30),
    "Requests wait for a free connection; those that wait too long fail, and the queue keeps the pool full.": (22, 22),
    "결제 서비스의 데이터베이스 커넥션 풀이 고갈되어 요청이 대기하다가 시간 초과로 실패했습니다.": (29, 46),
    "19b0bd4b3e197bb5e4a4be15157c8475 at 2024-12-20T09:15:37.123Z": (38, 38),
}


@pytest.mark.parametrize("text", COUNTED)
def test_rather_too_many_than_too_few(text: str) -> None:
    newest, older = COUNTED[text]
    assert newest / 1.05 <= tokens(text) <= 2 * newest
    assert older / 1.05 <= tokens(text)


def test_a_conversation_is_its_messages_and_their_marks() -> None:
    assert conversation_tokens([]) == tokens("") == 0
    assert conversation_tokens(["one two", "three"]) == tokens("one two") + tokens("three") + 8


@pytest.mark.parametrize("text", ["\ud800" * 10, "\x00" * 10, "\U0001f525" * 10, " " * 100_000, "a" * 100_000])
def test_any_text_can_be_counted(text: str) -> None:
    assert tokens(text) > 0
