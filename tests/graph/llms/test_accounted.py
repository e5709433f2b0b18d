"""What a model may cost, what it did cost, and what stays on record of it."""

import asyncio
import json
import logging
from itertools import islice

import pytest

from graph.llms.accounted import (
    AccountedChatModel,
    CapReached,
    Caps,
    LogUnavailable,
    MemoryCallLog,
    Most,
    Outcome,
    Prices,
    Spent,
    estimated_tokens,
    prompt_sha256,
)
from graph.llms.base import LlmError
from graph.llms.chat import Answer, ToolCall, Usage
from graph.progress import Progress
from tests.graph.llms.chats import MASKER, SECRET, Chat, failing, question, usage

PRICES = Prices(input=2.5, output=10.0, max_completion_tokens=4_000)
MOST = PRICES.most(estimated_tokens(question()))


class Told(list[Progress]):
    """What the timeline hears."""

    def __call__(self, progress: Progress) -> None:
        """One line."""
        self.append(progress)


def accounted(
    chat: Chat, log: MemoryCallLog | None = None, caps: Caps | None = None, told: Told | None = None
) -> AccountedChatModel:
    return AccountedChatModel(
        chat, log or MemoryCallLog(), caps or Caps(), PRICES, MASKER, Told() if told is None else told
    )


async def test_what_a_call_cost_takes_the_place_of_what_it_might_have_cost() -> None:
    log, told, gate = MemoryCallLog(), Told(), asyncio.Event()
    chat = Chat(gate=gate)
    asking = asyncio.create_task(accounted(chat, log, told=told).ask(question()))
    await chat.begun.wait()
    assert log.spent("inc_1") == Spent(MOST.tokens, MOST.dollars, MOST.dollars)
    gate.set()
    answer = await asking
    assert answer.content == '{"yes": true}'
    assert log.spent("inc_1") == Spent(1_100, 0.0035, 0.0035)
    assert log.spent("inc_2") == Spent(0, 0.0, 0.0035)
    (line,) = told
    assert (line.kind, line.node, line.key) == ("usage", "RootCauseAnalyzer", "usage:1")
    assert line.message == "gpt-4o-2024-08-06: 1000 + 100 tokens, 0.0035 dollars"
    assert line.data["dollars"] == 0.0035


@pytest.mark.parametrize(
    ("caps", "spent", "setting", "free"),
    [
        (Caps(tokens_per_incident=5_000), Spent(incident_tokens=4_001), "MODEL_TOKENS_PER_INCIDENT", "not filled up"),
        (Caps(dollars_per_incident=1.0), Spent(incident_dollars=0.96), "MODEL_DOLLARS_PER_INCIDENT", "not filled up"),
        (Caps(dollars_per_day=1.0), Spent(day_dollars=0.96), "INVESTIGATION_DOLLARS_PER_DAY", "at 00:00 UTC"),
    ],
)
def test_a_cap_names_its_setting_what_is_spent_and_when_it_is_free(
    caps: Caps, spent: Spent, setting: str, free: str
) -> None:
    with pytest.raises(CapReached) as refusal:
        caps.check(spent, Most(1_000, 0.05))
    assert f"AUTOPILOT_{setting} is " in str(refusal.value)
    assert free in str(refusal.value)
    assert any(part in str(refusal.value) for part in ("4001 are", "0.9600 are"))
    caps.check(Spent(4_000, 0.94, 0.94), Most(1_000, 0.05))  # just enough is enough


async def test_over_a_cap_nothing_is_asked_and_the_timeline_says_so() -> None:
    chat, log, told = Chat(), MemoryCallLog(), Told()
    model = accounted(chat, log, Caps(tokens_per_incident=MOST.tokens + 1_000), told)
    await model.ask(question())
    with pytest.raises(LlmError, match="gpt-4o was not asked: AUTOPILOT_MODEL_TOKENS_PER_INCIDENT") as refusal:
        await model.ask(question())
    assert refusal.value.usage == Usage("gpt-4o")
    assert chat.asked == 1
    assert len(log.calls) == 1
    assert [line.kind for line in told] == ["usage", "usage_refused"]
    await model.ask(question(incident_id="inc_2"))  # which has its own share


async def test_incidents_at_once_do_not_share_the_same_room() -> None:
    gate = asyncio.Event()
    chat = Chat(gate=gate)
    model = accounted(chat, caps=Caps(dollars_per_day=3.5 * MOST.dollars))
    asking = [asyncio.create_task(model.ask(question(incident_id=f"inc_{n}"))) for n in range(10)]
    for refused in islice(asyncio.as_completed(asking), 7):
        with pytest.raises(LlmError):
            await refused
    gate.set()
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert sum(isinstance(result, LlmError) for result in results) == 7
    assert chat.asked == 3


@pytest.mark.parametrize(
    ("cost", "spent"),
    [
        (usage(), Spent(1_100, 0.0035, 0.0035)),  # a refusal
        (Usage("gpt-4o"), Spent(0, 0.0, 0.0)),  # nobody was there
        (None, Spent(MOST.tokens, MOST.dollars, MOST.dollars)),  # a timeout: it may have been billed
    ],
)
async def test_a_call_that_failed_costs_what_is_known_or_what_was_reserved(cost: Usage | None, spent: Spent) -> None:
    log, told = MemoryCallLog(), Told()
    with pytest.raises(LlmError, match="it did not work"):
        await accounted(Chat(failing("it did not work", cost)), log, told=told).ask(question())
    assert log.spent("inc_1") == spent
    assert log.outcomes["1"].error == "it did not work"
    assert log.outcomes["1"].answer is None
    assert told[0].message.endswith("; no answer: it did not work")
    assert ("what it cost is not known" in told[0].message) == (cost is None)


async def test_a_call_that_is_cancelled_keeps_its_reservation() -> None:
    log, chat = MemoryCallLog(), Chat(gate=asyncio.Event())
    asking = asyncio.create_task(accounted(chat, log).ask(question()))
    await chat.begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert log.spent("inc_1").incident_dollars == MOST.dollars


async def test_what_a_server_does_not_tell_is_estimated() -> None:
    log, told = MemoryCallLog(), Told()
    free = Answer("word " * 300, Usage("llama", seconds=2.0))
    answer = await accounted(Chat(lambda: free), log, told=told).ask(question())
    prompt = estimated_tokens(question())
    assert answer.usage.prompt_tokens == prompt
    assert 250 <= answer.usage.completion_tokens <= 600
    assert answer.usage.dollars == pytest.approx(PRICES.dollars(prompt, answer.usage.completion_tokens), abs=1e-6)
    assert log.outcomes["1"].estimated
    assert "estimated" in told[0].message


async def test_of_what_a_server_tells_by_half_the_other_half_is_estimated() -> None:
    half = Answer("word " * 300, usage(prompt=2_000, completion=0, dollars=0.005))
    log = MemoryCallLog()
    answer = await accounted(Chat(lambda: half), log).ask(question())
    assert answer.usage.prompt_tokens == 2_000
    assert 250 <= answer.usage.completion_tokens <= 600
    assert answer.usage.dollars == pytest.approx(0.005 + PRICES.dollars(0, answer.usage.completion_tokens), abs=1e-6)
    assert log.outcomes["1"].estimated


async def test_an_attempt_that_broke_off_before_the_answer_keeps_a_reservation_beside_its_cost() -> None:
    log, told = MemoryCallLog(), Told()
    await accounted(Chat(lambda: Answer("{}", usage(), lost_attempts=1)), log, told=told).ask(question())
    assert log.spent("inc_1").incident_tokens == 1_100 + MOST.tokens
    assert log.spent("inc_1").day_dollars == pytest.approx(0.0035 + MOST.dollars)
    assert told[0].message.endswith("dollars, and for an attempt that broke off the most it can cost")


@pytest.mark.parametrize(("seen", "cut"), [(1_000, True), (2_600, False), (0, False)])
async def test_a_prompt_that_a_server_cuts_silently_is_told(seen: int, cut: bool) -> None:
    told, long_ = Told(), question("word " * 3_000)
    await accounted(Chat(lambda: Answer("{}", usage(prompt=seen))), told=told).ask(long_)
    assert ("num_ctx" in told[0].message) == cut


async def test_a_refusal_is_kept_masked_too() -> None:
    log, told = MemoryCallLog(), Told()
    with pytest.raises(LlmError):
        await accounted(Chat(failing(f"it refused: {SECRET}", usage())), log, told=told).ask(question())
    assert log.outcomes["1"].error.startswith("it refused: ")
    assert SECRET not in f"{log.outcomes} {told}"


async def test_what_is_kept_is_masked_messages_and_answer() -> None:
    log = MemoryCallLog()
    says = Answer(f'{{"yes": "{SECRET}"}}', usage(), (ToolCall("c2", "search_logs", f'{{"pattern": "{SECRET}"}}'),))
    await accounted(Chat(lambda: says), log).ask(question(f"the key is {SECRET}"))
    kept = json.dumps([log.calls["1"].messages, log.outcomes["1"].answer])
    assert SECRET not in kept
    assert len(MASKER.placeholders(kept)) == 1  # the same secret, wherever it stands
    assert kept.count(MASKER.placeholders(kept)[0]) == 3
    assert [message["role"] for message in log.calls["1"].messages] == ["system", "user", "assistant", "tool"]
    assert log.calls["1"].messages[3]["tool_call_id"] == "c1"


def test_the_same_question_has_the_same_hash_and_any_difference_another() -> None:
    assert prompt_sha256(question()) == prompt_sha256(question(incident_id="inc_2"))
    assert prompt_sha256(question()) != prompt_sha256(question("Is it not so?"))
    assert len(prompt_sha256(question("\ud800"))) == 64


class Away(MemoryCallLog):
    """A log out of reach, before a call or after it."""

    def __init__(self, *, before: bool) -> None:
        super().__init__()
        self.before = before

    async def reserve(self, call: object, caps: Caps) -> str:
        if self.before:
            raise LogUnavailable("PoolTimeout")
        return "1"

    async def record(self, call_id: str, outcome: Outcome) -> None:
        raise LogUnavailable("PoolTimeout")


async def test_without_its_log_no_call_is_made() -> None:
    chat = Chat()
    with pytest.raises(LlmError, match="was not asked: its cost could not be reserved \\(PoolTimeout\\)") as refusal:
        await accounted(chat, Away(before=True)).ask(question())
    assert refusal.value.usage == Usage("gpt-4o")
    assert chat.asked == 0


async def test_an_answer_that_is_paid_for_is_used_and_its_cost_is_said_somewhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        answer = await accounted(Chat(), Away(before=False)).ask(question())
    assert answer.content == '{"yes": true}'
    assert "inc_1" in caplog.text
    assert "1000 + 100 tokens, 0.0035 dollars" in caplog.text


async def test_closing_it_closes_the_model() -> None:
    chat = Chat()
    await accounted(chat).aclose()
    assert chat.closed
