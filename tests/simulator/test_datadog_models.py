"""Every answer of the simulated Datadog, read by Datadog's own client: the fake cannot drift from the real one."""

import importlib
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any

import httpx
import pytest
from datadog_api_client.configuration import Configuration
from datadog_api_client.model_utils import ModelNormal, OpenApiModel, UnparsedObject, validate_and_convert_types
from pydantic import TypeAdapter

from app.simulator.scenarios import SCENARIOS
from app.simulator.server import create_app

from .conftest import Served, served, set_the_stage

Client = Callable[[str], httpx.Client]
Ask = Callable[[httpx.Client], httpx.Response]
NOW = SCENARIOS["black-friday"].occurred_at + timedelta(minutes=5)
MONITOR = SCENARIOS["black-friday"].monitor.id
HOOKS = "/api/v1/integration/webhooks/configuration"
HOOK = {"name": "autopilot", "url": "https://autopilot.shop.example/webhooks/datadog"}
VARIABLE = {"name": "TOKEN", "value": "s", "is_secret": True}


def search(query: str = "*") -> dict[str, Any]:
    return {"filter": {"query": query, "from": "now-5m", "to": "now"}, "page": {"limit": 200}}


def wrapped(kind: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {"data": {"type": kind, "attributes": dict(attributes)}}


def counts(client: httpx.Client) -> httpx.Response:
    compute = [{"aggregation": "count"}, {"aggregation": "count", "type": "timeseries", "interval": "1m"}]
    body = search() | {"compute": compute, "group_by": [{"facet": "service"}, {"facet": "status"}]}
    return client.post("/api/v2/logs/analytics/aggregate", json=body)


def points(client: httpx.Client) -> httpx.Response:
    now_ms = int(NOW.timestamp() * 1000)
    queries = [
        {"data_source": "metrics", "name": f"q{n}", "query": f"avg:{metric}{{*}} by {{host}}"}
        for n, metric in enumerate(("cpu_utilization_percent", "requests_per_second", "transactions_pending"))
    ]
    asked = {"from": now_ms - 600_000, "to": now_ms, "interval": 60_000, "queries": queries}
    return client.post("/api/v2/query/timeseries", json=wrapped("timeseries_request", asked))


def old_points(client: httpx.Client) -> httpx.Response:
    now = int(NOW.timestamp())
    query: dict[str, str | int] = {"from": now - 600, "to": now, "query": "avg:error_rate_percent{*} by {service}"}
    return client.get("/api/v1/query", params=query)


def spans(client: httpx.Client) -> httpx.Response:
    return client.post("/api/v2/spans/events/search", json=wrapped("search_request", search()))


def trace(client: httpx.Client) -> httpx.Response:
    body = wrapped("search_request", search("status:error"))
    failed = client.post("/api/v2/spans/events/search", json=body).json()["data"][0]
    return client.get(f"/api/v2/trace/{failed['attributes']['trace_id']}")


def there(kind: str, thing: Mapping[str, Any], ask: Ask) -> Ask:
    """Once the thing exists."""

    def asked(client: httpx.Client) -> httpx.Response:
        client.post(f"{HOOKS}/{kind}", json=dict(thing))
        return ask(client)

    return asked


def gone_and_added(kind: str, thing: Mapping[str, Any]) -> Ask:
    def asked(client: httpx.Client) -> httpx.Response:
        client.delete(f"{HOOKS}/{kind}/{thing['name']}")
        return client.post(f"{HOOKS}/{kind}", json=dict(thing))

    return asked


def model(path: str) -> Any:
    """``v2.SpansListResponse`` of Datadog's client."""
    version, _, name = path.partition(".")
    return getattr(importlib.import_module(f"datadog_api_client.{version}.models"), name)


EMPTY = ""  # nothing but a status code
CALLS = TypeAdapter(dict[str, dict[str, list[str]]])  # the one answer that Datadog's client does not know
_ANSWERS: dict[tuple[str, str], tuple[str | TypeAdapter[Any], Ask]] = {
    ("POST", "/api/v2/logs/events/search"): (
        "v2.LogsListResponse",
        lambda client: client.post("/api/v2/logs/events/search", json=search()),
    ),
    ("POST", "/api/v2/logs/analytics/aggregate"): ("v2.LogsAggregateResponse", counts),
    ("POST", "/api/v2/spans/events/search"): ("v2.SpansListResponse", spans),
    ("GET", "/api/v2/trace/{trace_id}"): ("v2.TraceResponse", trace),
    ("POST", "/api/v2/events/search"): (
        "v2.EventsListResponse",
        lambda client: client.post("/api/v2/events/search", json=search() | {"filter": {"from": "now-1h"}}),
    ),
    ("GET", "/api/v2/metrics"): (
        "v2.MetricsAndMetricTagConfigurationsResponse",
        lambda client: client.get("/api/v2/metrics", params={"filter[tags]": "service:cart"}),
    ),
    ("POST", "/api/v2/query/timeseries"): ("v2.TimeseriesFormulaQueryResponse", points),
    ("GET", "/api/v1/query"): ("v1.MetricsQueryResponse", old_points),
    ("GET", "/api/v1/validate"): ("v1.AuthenticationValidationResponse", lambda client: client.get("/api/v1/validate")),
    ("GET", "/api/v1/monitor"): (
        "v1.Monitor",
        lambda client: client.get("/api/v1/monitor", params={"group_states": "all", "page": 0}),
    ),
    ("GET", "/api/v1/monitor/{monitor_id}"): (
        "v1.Monitor",
        lambda client: client.get(f"/api/v1/monitor/{MONITOR}", params={"group_states": "all"}),
    ),
    ("GET", "/api/v2/catalog/relation"): (
        "v2.ListRelationCatalogResponse",
        lambda client: client.get("/api/v2/catalog/relation", params={"filter[type]": "RelationTypeDependsOn"}),
    ),
    ("GET", "/api/v1/service_dependencies"): (
        CALLS,
        lambda client: client.get("/api/v1/service_dependencies", params={"env": "production"}),
    ),
    ("POST", f"{HOOKS}/webhooks"): ("v1.WebhooksIntegration", gone_and_added("webhooks", HOOK)),
    ("GET", f"{HOOKS}/webhooks/{{name}}"): (
        "v1.WebhooksIntegration",
        there("webhooks", HOOK, lambda client: client.get(f"{HOOKS}/webhooks/autopilot")),
    ),
    ("PUT", f"{HOOKS}/webhooks/{{name}}"): (
        "v1.WebhooksIntegration",
        there("webhooks", HOOK, lambda client: client.put(f"{HOOKS}/webhooks/autopilot", json={"encode_as": "json"})),
    ),
    ("DELETE", f"{HOOKS}/webhooks/{{name}}"): (
        EMPTY,
        there("webhooks", HOOK, lambda client: client.delete(f"{HOOKS}/webhooks/autopilot")),
    ),
    ("POST", f"{HOOKS}/custom-variables"): (
        "v1.WebhooksIntegrationCustomVariableResponse",
        gone_and_added("custom-variables", VARIABLE),
    ),
    ("GET", f"{HOOKS}/custom-variables/{{name}}"): (
        "v1.WebhooksIntegrationCustomVariableResponse",
        there("custom-variables", VARIABLE, lambda client: client.get(f"{HOOKS}/custom-variables/TOKEN")),
    ),
    ("PUT", f"{HOOKS}/custom-variables/{{name}}"): (
        "v1.WebhooksIntegrationCustomVariableResponse",
        there(
            "custom-variables",
            VARIABLE,
            lambda client: client.put(f"{HOOKS}/custom-variables/TOKEN", json={"is_secret": True}),
        ),
    ),
    ("DELETE", f"{HOOKS}/custom-variables/{{name}}"): (
        EMPTY,
        there("custom-variables", VARIABLE, lambda client: client.delete(f"{HOOKS}/custom-variables/TOKEN")),
    ),
}


@pytest.fixture(scope="module")
def shop() -> Iterator[Served]:
    with served("black-friday", 5) as running:
        yield running


def routes() -> set[tuple[str, str]]:
    """All that the simulated Datadog answers."""
    paths = create_app(set_the_stage("black-friday", 0).shop).openapi()["paths"]
    return {(method.upper(), path) for path in paths if path.startswith("/api/v") for method in paths[path]}


def flaws(value: Any, where: str = "answer") -> Iterator[str]:
    """What Datadog's client could not make sense of, or does not know."""
    if isinstance(value, UnparsedObject) or (isinstance(value, OpenApiModel) and value._unparsed):
        yield f"{where} is not understood"
    if isinstance(value, ModelNormal):
        name = type(value).__name__
        for key in set(value._data_store) - set(value.attribute_map):
            yield f"{where}.{key} is unknown to {name}"
        for key, inner in value._data_store.items():
            yield from flaws(inner, f"{where}.{key}")
    if isinstance(value, list | tuple):
        for inner in value:
            yield from flaws(inner, f"{where}[]")
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flaws(inner, f"{where}.{key}")


def test_every_route_has_a_model() -> None:
    assert routes() == set(_ANSWERS)


@pytest.mark.parametrize("route", sorted(_ANSWERS), ids=" ".join)
def test_datadogs_own_client_understands_the_answer(shop: Served, datadog: Client, route: tuple[str, str]) -> None:
    known, ask = _ANSWERS[route]
    answer = ask(datadog(shop.url))
    assert answer.status_code in (200, 201, 204), answer.text
    if isinstance(known, TypeAdapter):
        assert known.validate_python(answer.json(), strict=True)
    elif known != EMPTY:
        content = answer.json()
        types = ([model(known)],) if isinstance(content, list) else (model(known),)
        read = validate_and_convert_types(content, types, ["answer"], True, True, Configuration())
        assert content
        assert sorted(set(flaws(read))) == []


def test_a_drifted_answer_would_be_noticed() -> None:
    def read(content: dict[str, Any]) -> list[str]:
        found = validate_and_convert_types(content, (model("v1.Monitor"),), ["answer"], True, True, Configuration())
        return sorted(flaws(found))

    sound = {"id": 1, "type": "query alert", "query": "avg(last_5m):avg:x{*} > 1", "overall_state": "Alert"}
    assert read(sound) == []
    assert read(sound | {"overall_state": "Alarmed"})
    assert read(sound | {"colour": "red"}) == ["answer.colour is unknown to Monitor"]
    with pytest.raises(Exception, match=r"query"):
        read({"id": 1, "type": "query alert"})
