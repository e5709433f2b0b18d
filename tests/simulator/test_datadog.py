"""Datadog's protocol: filters, paging, refusals, and what the shop's state makes of them."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from app.simulator.scenarios import SCENARIOS

from .conftest import Served, served

Serve = Callable[[str, float], Served]
Client = Callable[[str], httpx.Client]
LOGS, SPANS, EVENTS = "/api/v2/logs/events/search", "/api/v2/spans/events/search", "/api/v2/events/search"
ONSET = SCENARIOS["black-friday"].occurred_at


@pytest.fixture(scope="module")
def shop() -> Iterator[Served]:
    """For tests that only read."""
    with served("black-friday", 5) as running:
        yield running


@pytest.fixture
def client(shop: Served, datadog: Client) -> httpx.Client:
    return datadog(shop.url)


def search(
    query: str, limit: int = 1000, since: str = "now-5m", until: str = "now", cursor: str | None = None
) -> dict[str, Any]:
    page: dict[str, Any] = {"limit": limit} | ({"cursor": cursor} if cursor else {})
    return {"filter": {"query": query, "from": since, "to": until}, "page": page}


def attributes(answer: httpx.Response) -> list[dict[str, Any]]:
    return [row["attributes"] for row in answer.json()["data"]]


@pytest.mark.parametrize("headers", [{}, {"DD-API-KEY": "a"}, {"DD-API-KEY": "", "DD-APPLICATION-KEY": "b"}])
def test_missing_keys_are_forbidden(shop: Served, headers: dict[str, str]) -> None:
    answer = httpx.post(f"{shop.url}{LOGS}", json=search("*"), headers=headers)
    assert (answer.status_code, answer.json()) == (403, {"errors": ["Forbidden"]})


def test_the_symptoms_are_in_logs_and_spans(client: httpx.Client) -> None:
    logs = attributes(client.post(LOGS, json=search("service:payment-service status:error")))
    for line in (
        "java.sql.SQLException: Connection is not available, request timed out after 30000ms",
        "Redis connection timeout",
        "Stripe API rate limit exceeded",
    ):
        assert sum(log["message"] == line for log in logs) >= 3, line
    body = {"data": {"attributes": search("service:payment-service status:error @span.kind:client")}}
    spans = attributes(client.post(SPANS, json=body))
    found = {(span["custom"]["error"]["type"], span["custom"]["peer"]["service"]) for span in spans}
    assert found == {
        ("db_connection_timeout", "orders-db"),
        ("redis_timeout", "redis"),
        ("rate_limit_exceeded", "stripe-integration"),
    }


def test_logs_and_spans_of_a_request_belong_together(client: httpx.Client) -> None:
    log = attributes(client.post(LOGS, json=search("service:payment-service status:error")))[0]
    trace = log["attributes"]["dd"]["trace_id"]
    spans = attributes(client.post(SPANS, json={"data": {"attributes": search(f"trace_id:{trace}")}}))
    assert {"web-gateway", "checkout", "payment-service"} <= {span["service"] for span in spans}
    known = {span["span_id"] for span in spans} | {"0"}
    assert all(span["parent_id"] in known for span in spans)
    assert log["attributes"]["dd"]["span_id"] in known


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        ("service:(checkout OR web-gateway)", lambda log: log["service"] in ("checkout", "web-gateway")),
        ("service:checkout AND -status:info", lambda log: log["status"] != "info"),
        ("NOT service:checkout", lambda log: log["service"] != "checkout"),
        ("status:(error OR warn) service:pay*", lambda log: log["service"] == "payment-service"),
        ('"redis connection timeout"', lambda log: "Redis connection timeout" in log["message"]),
        (r"service:payment\-service", lambda log: log["service"] == "payment-service"),
        ("@logger.name:com.shop.payment.*", lambda log: "com.shop.payment" in log["attributes"]["logger"]["name"]),
        ("env:production (service:cart OR service:catalogue)", lambda log: log["service"] in ("cart", "catalogue")),
    ],
)
def test_searches_filter(client: httpx.Client, query: str, holds: Callable[[dict[str, Any]], bool]) -> None:
    found = attributes(client.post(LOGS, json=search(query)))
    everything = attributes(client.post(LOGS, json=search("*")))
    assert found
    assert all(holds(log) for log in found)
    assert len(found) == sum(
        holds(log)
        and ("-status:info" not in query or log["service"] == "checkout")
        and ("pay*" not in query or log["status"] != "info")
        for log in everything
    )


def test_pages_join_up_even_while_time_goes_on(serve: Serve, datadog: Client) -> None:
    shop = serve("black-friday", 5)
    client = datadog(shop.url)
    whole = [row["id"] for row in client.post(LOGS, json=search("service:payment-service")).json()["data"]]
    pages: list[list[str]] = []
    cursor: str | None = None
    while True:
        answer = client.post(LOGS, json=search("service:payment-service", limit=50, cursor=cursor)).json()
        pages.append([row["id"] for row in answer["data"]])
        shop.clock.advance(30)
        if "page" not in answer["meta"]:
            break
        cursor = answer["meta"]["page"]["after"]
    assert len(pages) > 2
    assert all(len(page) <= 50 for page in pages)
    assert [row for page in pages for row in page] == whole


def test_times_may_be_relative_iso_or_milliseconds(client: httpx.Client) -> None:
    start, end = ONSET + timedelta(minutes=2), ONSET + timedelta(minutes=4)
    ways = (
        ("now-3m", "now-1m"),
        (start.isoformat(), end.isoformat()),
        (str(int(start.timestamp() * 1000)), str(int(end.timestamp() * 1000))),
    )
    bodies = [search("*") for _ in ways]
    for body, (since, until) in zip(bodies, ways, strict=True):
        body["filter"] |= {"from": since, "to": until}
    ids = [[row["id"] for row in client.post(LOGS, json=body).json()["data"]] for body in bodies]
    assert ids[0] == ids[1] == ids[2] != []


def test_counts_agree_with_the_lines(client: httpx.Client) -> None:
    body = {
        "compute": [{"aggregation": "count"}],
        "filter": {"query": "status:error", "from": "now-5m", "to": "now"},
        "group_by": [{"facet": "service"}],
    }
    buckets = client.post("/api/v2/logs/analytics/aggregate", json=body).json()["data"]["buckets"]
    lines = attributes(client.post(LOGS, json=search("status:error")))
    assert {b["by"]["service"]: b["computes"]["c0"] for b in buckets} == {
        service: sum(log["service"] == service for log in lines) for service in {log["service"] for log in lines}
    }


def test_counts_over_time_add_up_and_lie_on_whole_minutes(client: httpx.Client) -> None:
    body = {
        "compute": [{"aggregation": "count", "type": "timeseries", "interval": "1m"}, {"aggregation": "count"}],
        "filter": {"query": "service:payment-service", "from": "now-5m", "to": "now"},
        "group_by": [{"facet": "status"}],
    }
    buckets = client.post("/api/v2/logs/analytics/aggregate", json=body).json()["data"]["buckets"]
    assert {bucket["by"]["status"] for bucket in buckets} == {"info", "warn", "error"}
    for bucket in buckets:
        points = bucket["computes"]["c0"]
        assert sum(point["value"] for point in points) == bucket["computes"]["c1"]
        assert all(point["time"].endswith(":00.000Z") for point in points)
    assert client.post(
        "/api/v2/logs/analytics/aggregate",
        json={"compute": [{"aggregation": "count", "type": "timeseries", "interval": "a while"}]},
    ).is_client_error


def test_a_trace_is_told_whole_by_either_form_of_its_id(client: httpx.Client) -> None:
    body = {"data": {"attributes": search("service:payment-service status:error", limit=1)}}
    trace_id = attributes(client.post(SPANS, json=body))[0]["trace_id"]
    spans = attributes(client.post(SPANS, json={"data": {"attributes": search(f"trace_id:{trace_id}")}}))
    whole = client.get(f"/api/v2/trace/{trace_id}").json()["data"]["attributes"]
    assert {row["spanID"] for row in whole["spans"]} == {int(span["span_id"], 16) for span in spans}
    assert not whole["is_truncated"]
    assert client.get(f"/api/v2/trace/{int(trace_id, 16)}").json()["data"]["attributes"] == whole
    assert client.get(f"/api/v2/trace/{'0' * 32}").status_code == 404
    assert client.get("/api/v2/trace/none").status_code == 400


def test_the_catalogue_tells_what_depends_on_what(client: httpx.Client) -> None:
    path, wanted = "/api/v2/catalog/relation", {"filter[type]": "RelationTypeDependsOn"}
    pages = [
        client.get(path, params={**wanted, "page[limit]": "4", "page[offset]": str(start)}).json()["data"]
        for start in range(0, 20, 4)
    ]
    found = {(row["attributes"]["from"]["name"], row["attributes"]["to"]["name"]) for page in pages for row in page}
    calls = client.get("/api/v1/service_dependencies", params={"env": "production"}).json()
    assert found == {(caller, callee) for caller, entry in calls.items() for callee in entry["calls"]}
    assert client.get("/api/v1/service_dependencies", params={"env": "staging"}).json() == {}
    of = client.get(path, params={**wanted, "filter[from_ref]": "service:checkout"}).json()
    assert of["meta"]["count"] == 3


def test_monitors_are_found_by_their_tags(client: httpx.Client) -> None:
    found = client.get("/api/v1/monitor", params={"monitor_tags": "service:orders-db"}).json()
    assert [monitor["name"] for monitor in found] == ["orders-db is out of connections"]
    assert client.get("/api/v1/monitor", params={"monitor_tags": "service:orders-db,team:none"}).json() == []


@pytest.mark.parametrize("days", [1, 7])
def test_the_same_hours_of_other_days_were_ordinary(client: httpx.Client, days: int) -> None:
    end = ONSET + timedelta(minutes=5) - timedelta(days=days)
    asked = {
        "from": int((end - timedelta(minutes=5)).timestamp() * 1000),
        "to": int(end.timestamp() * 1000),
        "interval": 30_000,
        "queries": [{"data_source": "metrics", "query": "avg:error_rate_percent{service:payment-service}"}],
    }
    answer = client.post("/api/v2/query/timeseries", json={"data": {"attributes": asked}}).json()["data"]["attributes"]
    assert len(answer["times"]) == 10
    assert max(answer["values"][0]) < 1.0
    assert timeseries(client, ["avg:error_rate_percent{service:payment-service}"])["values"][0][-1] > 50.0
    lines = search("service:payment-service", since=(end - timedelta(minutes=5)).isoformat(), until=end.isoformat())
    found = attributes(client.post(LOGS, json=lines))
    assert found
    assert not [row for row in found if row["status"] == "error" and "Connection is not available" in row["message"]]


def test_nobody_remembers_a_month_ago(client: httpx.Client) -> None:
    long_ago = ONSET - timedelta(days=30)
    lines = search("*", since=long_ago.isoformat(), until=(long_ago + timedelta(hours=1)).isoformat())
    assert attributes(client.post(LOGS, json=lines)) == []


def timeseries(client: httpx.Client, queries: list[str], minutes: int = 5, **more: Any) -> dict[str, Any]:
    now_ms = int((ONSET + timedelta(minutes=5)).timestamp() * 1000)
    asked = {
        "from": now_ms - 60_000 * minutes,
        "to": now_ms,
        "interval": 60_000,
        "queries": [{"data_source": "metrics", "query": query, "name": f"q{n}"} for n, query in enumerate(queries)],
        **more,
    }
    answer = client.post("/api/v2/query/timeseries", json={"data": {"attributes": asked}})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["data"]["attributes"]
    return found


def test_a_service_lists_its_metrics(client: httpx.Client) -> None:
    params = {"filter[tags]": "service:payment-service", "window[seconds]": "3600"}
    names = {row["id"] for row in client.get("/api/v2/metrics", params=params).json()["data"]}
    assert {"db_connection_pool_utilization", "revenue_lost_usd_per_minute", "latency_p95_ms"} <= names
    other = client.get("/api/v2/metrics", params={"filter[tags]": "service:cart"}).json()["data"]
    assert "db_connection_pool_utilization" not in {row["id"] for row in other}


def test_several_metrics_in_one_request(client: httpx.Client) -> None:
    found = timeseries(
        client,
        [
            "avg:db_connection_timeouts{service:payment-service}",
            "sum:db_connection_timeouts{service:payment-service}.as_count()",
            "avg:no_such_metric{service:payment-service}",
            "avg:db_connection_pool_utilization{service:payment-service,env:production} by {host}",
        ],
    )
    indexes = [series["query_index"] for series in found["series"]]
    assert indexes == [0, 1, 3, 3, 3]
    assert {series["group_tags"][0].split(":")[0] for series in found["series"][2:]} == {"host"}
    assert found["series"][3]["unit"][0]["name"] == "percent"
    rate, count = found["values"][0], found["values"][1]
    assert rate[-1] == pytest.approx(156, rel=0.03)
    assert count == pytest.approx(rate, rel=0.001)  # a minute of so many a minute
    assert all(value == pytest.approx(98, abs=1) for value in found["values"][3][-2:])


def test_both_query_apis_agree(client: httpx.Client) -> None:
    query = "avg:transactions_pending{service:payment-service}.rollup(avg, 60)"
    new = timeseries(client, [query], formulas=[{"formula": "q0"}])
    now = int((ONSET + timedelta(minutes=5)).timestamp())
    old = client.get("/api/v1/query", params={"from": now - 300, "to": now, "query": query}).json()
    pairs = [list(pair) for pair in zip(new["times"], new["values"][0], strict=True)]
    assert old["series"][0]["pointlist"] == pairs


def test_queries_that_cannot_be_read(client: httpx.Client) -> None:
    body = {"data": {"attributes": {"from": 0, "to": 1000, "queries": [{"query": "avg:nonsense"}]}}}
    answer = client.post("/api/v2/query/timeseries", json=body)
    assert answer.status_code == 400
    assert "unable to parse" in answer.json()["errors"][0]
    old = client.get("/api/v1/query", params={"from": 0, "to": 1, "query": "avg:nonsense"})
    assert (old.status_code, old.json()["status"]) == (200, "error")
    assert client.post(LOGS, json=search("service:(a OR")).status_code == 400
    assert client.post(LOGS, json=search("*", limit=5000)).status_code == 400
    assert client.get("/api/v1/monitor/1").status_code == 404


def test_changes_before_the_incident_are_told(client: httpx.Client) -> None:
    answer = client.post(EVENTS, json=search("-source:alert", since="now-1h"))
    found = {(a["attributes"]["title"], a["timestamp"]) for a in attributes(answer)}
    assert ("Deployed catalogue v3.7.2", "2024-12-20T09:07:00.000Z") in found
    assert any(title.startswith("Scaled cart from 2 to 3") for title, _ in found)
    alerts = attributes(client.post(EVENTS, json=search("source:alert", since="now-1h")))
    assert [alert["attributes"]["monitor_id"] for alert in alerts] == [SCENARIOS["black-friday"].monitor.id]


def test_the_nightly_job_warns_in_ordinary_times_too(client: httpx.Client) -> None:
    query = "service:reporting status:warn"
    before = search(query, since="now-30m", until="now-10m")
    during = search(query, since="now-4m")
    assert attributes(client.post(LOGS, json=before))
    assert attributes(client.post(LOGS, json=during))


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_no_answer_names_the_scenario(serve: Serve, datadog: Client, name: str) -> None:
    shop = serve(name, 6)
    client = datadog(shop.url)
    texts = [
        client.post(LOGS, json=search("*", since="now-1h")).text,
        client.post(SPANS, json={"data": {"attributes": search("*", since="now-1h")}}).text,
        client.post(EVENTS, json=search("*", since="now-1h")).text,
        client.get("/api/v2/metrics").text,
        client.get(f"/api/v1/monitor/{SCENARIOS[name].monitor.id}").text,
        json.dumps(SCENARIOS[name].alert_payload(shop.clock.now())),
    ]
    words = re.compile(r"black.?friday|bad.?deploy|scenario|simulat|root.?cause", re.IGNORECASE)
    assert not [words.search(text) for text in texts if words.search(text)]


def test_the_bad_release_shows_in_one_class(serve: Serve, datadog: Client) -> None:
    client = datadog(serve("bad-deploy", 5).url)
    errors = attributes(client.post(LOGS, json=search("service:checkout status:error NullPointerException")))
    assert len(errors) > 5
    assert {log["attributes"]["error"]["kind"] for log in errors} == {"java.lang.NullPointerException"}
    assert all("CouponValidator.java:57" in log["message"] for log in errors)
    assert {tag for log in errors for tag in log["tags"] if tag.startswith("version:")} == {"version:v2.4.0"}
    body = search("NullPointerException", since="now-1h", until="now-5m")
    assert not attributes(client.post(LOGS, json=body))


def test_the_alert_is_all_text_and_tells_when() -> None:
    scenario = SCENARIOS["black-friday"]
    payload = scenario.alert_payload(scenario.fires_at)
    flat = {**payload, **payload["org"]}  # type: ignore[dict-item]
    del flat["org"]
    assert all(isinstance(value, str) for value in flat.values())
    assert payload["date"] == str(int(scenario.occurred_at.timestamp() * 1000))
    assert (payload["service"], payload["transition"]) == ("payment-service", "Triggered")
