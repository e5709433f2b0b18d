"""Evidence as JSON can hold it, whatever the sources' texts are."""

from typing import Any

from pydantic_core import PydanticSerializationError

from graph.state import Evidence


def encodable(found: Evidence) -> Evidence:
    """The evidence itself; or, if texts of it hold halves of surrogate pairs, with these escaped.

    JSON decoders let them in, as when a source cuts a message in the middle of an emoji, and no encoder lets them out.
    Written out and not replaced by one sign, two names that differ only there stay two.
    """
    try:
        found.model_dump_json()
    except PydanticSerializationError:
        return Evidence.model_validate(_written(found.model_dump()))
    return found


def _written(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _written(one) for key, one in value.items()}
    return [_written(one) for one in value] if isinstance(value, list | tuple) else value
