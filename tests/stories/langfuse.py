"""What Langfuse reports of a service's calls of models, by the names that our collector gives it."""

import json

from tests.stories.telling import Amount, Telling


def model(
    t: Telling,
    service: str,
    name: str,
    *,
    calls: Amount,
    latency_ms: Amount,
    input_tokens: Amount,
    output_tokens: Amount,
    cost_usd: Amount,
    errors: Amount = 0.0,
) -> None:
    """Langfuse's numbers of a service's calls of one model, by the minute: p95 latency, sums, counts."""
    performance = _asked("observations", ["providedModelName"])
    levels = _asked("observations", ["providedModelName", "level"])
    for metric, amount, unit, query in (
        ("llm.tokens.input", input_tokens, "", performance),
        ("llm.tokens.output", output_tokens, "", performance),
        ("llm.cost_usd", cost_usd, "USD", performance),
    ):
        t.metric(
            service,
            f"{metric}{{{name}}}",
            amount,
            unit=unit,
            statistic="sum",
            noise=0.08,
            load=1.0,
            source="langfuse",
            query=query,
            measures="traffic",
        )
    t.metric(
        service,
        f"llm.latency_ms{{{name}}}",
        latency_ms,
        unit="ms",
        statistic="p95",
        noise=0.12,
        source="langfuse",
        query=performance,
    )
    t.metric(
        service,
        f"llm.calls{{{name}}}",
        calls,
        statistic="count",
        load=1.0,
        counts=True,
        source="langfuse",
        query=levels,
        measures="traffic",
    )
    t.metric(
        service,
        f"llm.errors{{{name}}}",
        errors,
        statistic="count",
        load=1.0,
        counts=True,
        source="langfuse",
        query=levels,
    )


def score(t: Telling, service: str, name: str, level: Amount, *, worse_up: bool = False) -> None:
    """The mean of a Langfuse score, by the minute; Langfuse is not asked for scores of other days."""
    t.metric(
        service,
        f"llm.score.{'fault' if worse_up else 'success'}.{name}",
        level,
        noise=0.035,
        high=1.0,
        source="langfuse",
        query=_asked("scores-numeric", ["name"]),
        seasonal=False,
    )


def _asked(view: str, dimensions: list[str]) -> str:
    asked = {"view": view, "dimensions": [{"field": name} for name in dimensions], "filters": []}
    return json.dumps({**asked, "timeDimension": {"granularity": "minute"}})
