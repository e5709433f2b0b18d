"""What a callee is, by each source's own words for it."""

import pytest

from collectors._callees import by_attributes, by_aws_type, by_span_type


@pytest.mark.parametrize(
    ("db_system", "messaging_system", "kind"),
    [
        ("", "", ""),
        ("postgresql", "", "database"),
        ("redis", "", "cache"),
        ("aws.dynamodb", "", "database"),
        ("", "kafka", "queue"),
    ],
)
def test_by_opentelemetry(db_system: str, messaging_system: str, kind: str) -> None:
    assert by_attributes(db_system, messaging_system) == kind


@pytest.mark.parametrize(
    ("node_type", "kind"),
    [
        ("AWS::DynamoDB::Table", "database"),
        ("Database::SQL", "database"),
        ("AWS::ElastiCache", "cache"),
        ("AWS::SQS::Queue", "queue"),
        ("AWS::SNS", "queue"),
        ("remote", "external"),
        ("AWS::Lambda::Function", ""),
        ("", ""),
    ],
)
def test_by_x_ray(node_type: str, kind: str) -> None:
    assert by_aws_type(node_type) == kind


@pytest.mark.parametrize(
    ("span_type", "kind"), [("sql", "database"), ("redis", "cache"), ("queue", "queue"), ("web", "")]
)
def test_by_datadog(span_type: str, kind: str) -> None:
    assert by_span_type(span_type) == kind
