"""What a node says while it works. The runner turns each report into one timeline event."""

from collections.abc import Mapping
from uuid import uuid4

from langgraph.config import get_stream_writer
from pydantic import BaseModel, ConfigDict, JsonValue

from graph.llms.base import Usage


class Progress(BaseModel):
    """``key`` is unique within the incident: a node that runs again after a crash repeats nothing."""

    model_config = ConfigDict(frozen=True)

    key: str
    kind: str
    node: str
    message: str
    data: dict[str, JsonValue] = {}


def report(node: str, kind: str, key: str, message: str, data: Mapping[str, JsonValue] | None = None) -> None:
    """Tell whoever runs the graph."""
    get_stream_writer()(Progress(key=key, kind=kind, node=node, message=message, data=dict(data or {})).model_dump())


def report_usage(usage: Usage) -> None:
    """Tell what a model's answer cost."""
    report(
        "RootCauseAnalyzer",
        "usage",
        f"usage:{uuid4()}",
        f"{usage.model}: {usage.prompt_tokens} + {usage.completion_tokens} tokens, {usage.dollars:.4f} dollars",
        {"dollars": usage.dollars, "prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens},
    )
