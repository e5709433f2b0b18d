"""The OpenAPI document tells the truth: whatever is sent, allowed by it or not, is answered as it says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import load_all_checks
from schemathesis.config import SchemathesisConfig
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi import checks

from app.embedded_postgres import EmbeddedPostgres
from app.main import create_app
from app.settings import Settings
from tests.app.served import SECRET, Served, serving

load_all_checks()
DELIVERY = (Path(__file__).parent / "intake" / "fixtures" / "datadog" / "triggered.json").read_bytes()
STREAM = "/incidents/{incident_id}/events"  # of an open incident, it goes on
BEYOND_A_SCHEMA = [
    checks.positive_data_acceptance,  # a time in the future, a service that nobody has: 422 is the documented answer
    checks.allow_header_conformance,  # Starlette names the methods of the first route of a path only
]
OF_AUTHENTIC_SENDERS = [checks.negative_data_rejection]  # what they send is stored, whatever it is
CONFORMANCE = [checks.status_code_conformance, checks.content_type_conformance, checks.response_schema_conformance]
bounded = settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, postgres: EmbeddedPostgres) -> Iterator[Served]:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("create database documented template template_autopilot")
        url = postgres.url.replace("/postgres?", "/documented?")
        with serving(url, tmp_path_factory.mktemp("documented")) as started:
            yield started
        connection.execute("drop database documented with (force)")


def document(**phases: object) -> BaseSchema:
    """As the application writes it."""
    settings = {"seed": 7, "generation": {"no-shrink": True}, "phases": phases}
    written = create_app(Settings(), "postgresql://unused", worker=False).openapi()
    return schemathesis.openapi.from_dict(written, config=SchemathesisConfig.from_dict(settings))


whole = document()
about_incidents = document(coverage={"enabled": False}).include(path_regex=r"\{incident_id\}").exclude(path=STREAM)


PROOFS = {
    "/webhooks/datadog": {"X-AIOps-Token": SECRET},
    "/webhooks/generic/{name}": {"X-AIOps-Token": SECRET},
    "/webhooks/eventbridge": {"X-API-Key": SECRET},
    "/webhooks/alertmanager": {"Authorization": f"Bearer {SECRET}"},
}


def proof(case: schemathesis.Case[Any], served: Served) -> dict[str, str]:
    """A sender's own, or an admin's; those who sign what they send remain strangers here."""
    return PROOFS.get(case.path) or {"Authorization": served.http.headers["authorization"]}


@whole.parametrize()
@bounded
def test_every_answer_is_as_documented(case: schemathesis.Case[Any], served: Served) -> None:
    excluded = BEYOND_A_SCHEMA + (OF_AUTHENTIC_SENDERS if case.path.startswith("/webhooks/") else [])
    case.call_and_validate(served.url, headers=proof(case, served), excluded_checks=excluded, timeout=10)


@about_incidents.parametrize()
@bounded
def test_every_answer_about_an_incident_is_as_documented(case: schemathesis.Case[Any], served: Served) -> None:
    case.path_parameters["incident_id"] = served.send("datadog", DELIVERY).json()["incident_id"]
    case.call_and_validate(served.url, headers=proof(case, served), checks=CONFORMANCE, timeout=10)
