"""The OpenAPI document is complete: summaries, examples, and one shape for every error."""

from app.main import create_app
from app.settings import Settings


def test_every_route_has_a_summary_and_every_error_is_a_problem() -> None:
    document = create_app(Settings(), "postgresql://unused", worker=False).openapi()
    routes = [(f"{m.upper()} {path}", o) for path, ops in document["paths"].items() for m, o in ops.items()]
    assert len(routes) >= 15
    for name, route in routes:
        assert route.get("summary"), name
        for status, answer in route["responses"].items():
            if int(status) >= 400:
                assert list(answer["content"]) == ["application/problem+json"], f"{name} {status}"
                assert answer["content"]["application/problem+json"]["example"]["status"] == int(status)
    assert "HTTPValidationError" not in document["components"]["schemas"]
    webhook = document["paths"]["/webhooks/datadog"]["post"]
    assert webhook["requestBody"]["content"]["application/json"]["example"]["schema"] == "aiops.datadog/1"
    assert document["components"]["schemas"]["DecisionBody"]["example"]["choice"] == "1"
