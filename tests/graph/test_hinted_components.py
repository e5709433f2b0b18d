"""What people's hints say of components, and what they ask."""

import pytest

from collectors.base import LogsRead, MetricRead, Read, SeriesRef, TraceRead
from graph.hinted_components import questions, steering
from graph.llms.base import ReadMenu

NAMES = ("orders", "orders-db", "redis", "payment-service")


@pytest.mark.parametrize(
    ("hint", "named", "ruled_out"),
    [
        ("look at redis", ["redis"], []),
        ("I think it's `orders-db`, see its locks", ["orders-db"], []),
        ("not redis", [], ["redis"]),
        ("It is not because of redis but orders-db", ["orders-db"], ["redis"]),
        ("redis isn't it", [], ["redis"]),
        ("redis is fine, look at payment-service", ["payment-service"], ["redis"]),
        ("rule out payment-service", [], ["payment-service"]),
        ("redis가 아니다", [], ["redis"]),
        ("원인은 redis 때문이 아닙니다", [], ["redis"]),
        ("redis 말고 orders-db를 봐 주세요", ["orders-db"], ["redis"]),
        ("payment-service는 정상입니다. orders-db가 의심됩니다", ["orders-db"], ["payment-service"]),
        ("REDIS", ["redis"], []),
        ("the orders database is slow", ["orders-db"], []),
        ("Orders DB를 봐 주세요", ["orders-db"], []),
        ("orders 데이터베이스 말고 payment 서비스요", ["payment-service"], ["orders-db"]),
        ("what of orders?", ["orders"], []),
        ("see orders.example.com", [], []),
        ("redis-exporter was restarted", [], []),
        ("the reorders job", [], []),
        ("please look at the coupons", [], []),
        ("", [], []),
    ],
)
def test_names_and_rules_out(hint: str, named: list[str], ruled_out: list[str]) -> None:
    steered = steering([hint], NAMES)
    assert (list(steered.named), sorted(steered.ruled_out)) == (named, ruled_out)


def test_the_later_hint_counts() -> None:
    assert steering(["not redis", "it is redis after all"], NAMES).named == ("redis",)
    assert steering(["look at redis", "redis is fine"], NAMES).ruled_out == {"redis"}
    assert steering(["look at redis", "or orders-db"], NAMES).named == ("orders-db", "redis")


def test_of_two_that_may_be_meant_none_is() -> None:
    two = ("orders-db", "orders_database")
    assert steering(["the orders database"], two).named == ()
    assert steering(["orders_database"], two).named == ("orders_database",)


TRACE = "5b62850e322ab161f78f083cfb2eb0fa"
MENU = ReadMenu(
    components=("payment-service", "orders-db", "redis"),
    metrics=tuple(
        SeriesRef(source="m", component=component, metric=metric, query="q")
        for component, metric in (
            ("payment-service", "hikaricp.connections.pending"),
            ("orders-db", "cpu.percent"),
            ("redis", "cpu.percent"),
        )
    ),
    traces=(TRACE,),
    kinds=frozenset(("logs", "metric", "trace")),
)


def logs(component: str, contains: str) -> LogsRead:
    return LogsRead(component=component, contains=contains)


@pytest.mark.parametrize(
    ("hint", "asked"),
    [
        ('look for "too many clients" in orders-db', [logs("orders-db", "too many clients")]),
        ("«timed out»?", [logs("payment-service", "timed out"), logs("redis", "timed out")]),  # of the suspects
        ("redis의 로그에서 “OOM command”를 찾아 주세요", [logs("redis", "OOM command")]),
        ('"redis refused it" in payment-service', [logs("payment-service", "redis refused it")]),
        ("what of `orders-db`?", []),
        (
            "see `hikaricp.connections.pending`",
            [MetricRead(component="payment-service", metric="hikaricp.connections.pending")],
        ),
        ("cpu.percent of orders-db", [MetricRead(component="orders-db", metric="cpu.percent")]),
        ("cpu percent", [MetricRead(component="redis", metric="cpu.percent")]),
        (f"trace {TRACE} says it all", [TraceRead(trace_id=TRACE)]),
        ("trace 00000000000000000000000000000000", []),
        ("it is orders-db", []),
    ],
)
def test_what_hints_ask(hint: str, asked: list[Read]) -> None:
    assert questions([hint], MENU, ["payment-service", "redis"]) == asked


def test_questions_are_few_of_the_last_hint_first_and_on_the_menu() -> None:
    hints = ['"one" of redis', '"two", "three" and "four" in orders-db']
    assert questions(hints, MENU, []) == [logs("orders-db", word) for word in ("two", "three", "four")]
    nothing = ReadMenu(components=MENU.components)
    assert questions(hints, nothing, []) == []
