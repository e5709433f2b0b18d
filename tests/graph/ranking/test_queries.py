"""Which query a finding came from: the right one, or none."""

import random
from collections.abc import Sequence
from datetime import datetime

from collectors.base import Asks, AwsResources, Edge, GitHubRepository, Query, Target, Telemetry
from graph.ranking.queries import Asked
from tests.graph.ranking import incidents

TARGETS = (
    Target(
        service="billing", aws=AwsResources(log_groups=("/ecs/pay",)), github=GitHubRepository(repository="shop/pay")
    ),
    Target(service="billing-web"),
    Target(service="shop"),
)


def query(
    source: str,
    text: str,
    kind: Asks = "",
    *,
    rows: int = 5,
    link: str | None = None,
    end: datetime = incidents.END,
) -> Query:
    return Query(source=source, text=text, kind=kind, rows=rows, link=link, start=incidents.START, end=end)


def asked(*queries: Query) -> Asked:
    return Asked.of([Telemetry(source="any", queries=queries, edges=incidents.edges())], TARGETS)


def text(found: Query | None) -> str | None:
    return found.text if found else None


def test_the_query_of_the_same_source_kind_and_component() -> None:
    known = asked(
        query("loki", '{service_name="billing"} |= "error"', "logs"),
        query("loki", '{service_name="billing-web"} |= "error"', "logs"),
        query("loki", 'sum(count_over_time({service_name="billing"}[1m]))', "metrics"),
        query("tempo", '{resource.service.name="billing"}', "traces"),
    )
    assert text(known.for_("loki", "log", "billing")) == '{service_name="billing"} |= "error"'
    assert text(known.for_("loki", "log", "billing-web")) == '{service_name="billing-web"} |= "error"'
    assert text(known.for_("tempo", "trace", "billing")) == '{resource.service.name="billing"}'
    assert known.for_("tempo", "log", "billing") is None
    assert known.for_("loki", "log", "orders") is None
    assert known.for_("datadog", "log", "billing") is None


def test_names_of_the_catalogue_in_text_and_link() -> None:
    link = "https://console/#logs-insights$3FqueryDetail$3D~source~(~'*2fecs*2fpay)"
    known = asked(
        query("aws", "fields @timestamp | filter strcontains(@message, 'x')", "logs", link=link),
        query("github", "GET /repos/shop/pay/commits?since=x", "changes"),
    )
    assert known.for_("aws", "log", "billing") is not None
    assert known.for_("aws", "log", "shop") is None
    assert known.for_("github", "change", "billing") is not None
    assert known.for_("github", "change", "shop") is None  # its name stands inside of another's


def test_what_gave_no_rows_is_not_where_a_finding_came_from() -> None:
    assert asked(query("loki", '{service_name="billing"}', "logs", rows=0)).for_("loki", "log", "billing") is None


def test_the_surest_first() -> None:
    before = query("datadog", "service:billing old", "logs", end=incidents.INCIDENT)
    both = query("datadog", "service:(billing OR orders)", "logs")
    alone = query("datadog", "service:billing", "logs")
    unsaid = query("datadog", "service:billing whatever")
    assert text(asked(before, both, alone, unsaid).for_("datadog", "log", "billing")) == "service:billing"
    assert text(asked(before, both, unsaid).for_("datadog", "log", "billing")) == "service:billing old"
    assert text(asked(both, unsaid).for_("datadog", "log", "billing")) == "service:(billing OR orders)"


def test_one_that_names_nobody_only_if_no_other_can_be_meant() -> None:
    bundle = query("replay", "Black Friday (recorded)")
    assert text(asked(bundle).for_("replay", "log", "billing")) == "Black Friday (recorded)"
    assert asked(bundle, query("replay", "Another")).for_("replay", "log", "billing") is None


def test_a_series_knows_its_own() -> None:
    known = asked(query("datadog", "avg:x{*}", "metrics", link="https://m"))
    found = known.exactly("datadog", "avg:x{*}")
    assert found is not None
    assert found.link == "https://m"
    assert known.exactly("datadog", "avg:y{*}") is None


def test_order_and_odd_names_do_not_matter() -> None:
    odd = ["", "(", "x" * 9000, "\x00", "billing billing"]
    queries = [query("s", f"{a} billing {b}", link=f"%zz{a}") for a in odd for b in odd]
    expected = asked(*queries).for_("s", "log", "billing")
    assert expected is not None
    assert asked(*random.Random(3).sample(queries, len(queries))).for_("s", "log", "billing") == expected
    edges = tuple(Edge(caller=name, callee="b", source="x") for name in odd)
    telemetry: Sequence[Telemetry] = [Telemetry(source="s", queries=tuple(queries), edges=edges)]
    Asked.of(telemetry).for_("s", "log", "(")
