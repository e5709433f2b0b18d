"""What a node says while it works. The runner turns each report into one timeline event."""

from collections.abc import Mapping

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
    tell(Progress(key=key, kind=kind, node=node, message=message, data=dict(data or {})))


def tell(progress: Progress) -> None:
    """The same, of what is put into words already. Only inside a node: elsewhere nobody listens, and it raises."""
    from langgraph.config import get_stream_writer  # here: a process that runs no jobs does without LangGraph

    get_stream_writer()(progress.model_dump())
