"""What a node says while it works. The runner turns each report into one timeline event."""

from collections.abc import Mapping

from langgraph.config import get_stream_writer
from pydantic import BaseModel, ConfigDict, JsonValue


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
