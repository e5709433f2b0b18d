"""AWS's query protocol: form-encoded requests, XML answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from xml.sax.saxutils import escape

from app.simulator.aws_errors import AwsError

Form = Mapping[str, str]


@dataclass(frozen=True)
class Items:
    """A list whose elements are not called ``member``."""

    name: str
    items: Sequence["Xml"]


Xml = str | int | bool | Items | Sequence["Xml"] | Mapping[str, "Xml"]
Operation = Callable[[Form, float], Mapping[str, Xml]]


def instant(at: float) -> str:
    """An epoch second as the query protocol writes it."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def members(form: Form, prefix: str, name: str = "member") -> list[str]:
    """``prefix.member.1``, ``prefix.member.2``, … in order."""
    found: list[str] = []
    while (key := f"{prefix}.{name}.{len(found) + 1}") in form:
        found.append(form[key])
    return found


def answer(operation: str, result: Mapping[str, Xml], request_id: str, namespace: str) -> str:
    """The answer's body."""
    return (
        f'<{operation}Response xmlns="{namespace}"><{operation}Result>'
        f"{_xml(result)}</{operation}Result>"
        f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{operation}Response>"
    )


def refusal(error: AwsError, request_id: str, namespace: str) -> str:
    """The body of an error answer."""
    kind = "Sender" if error.status < 500 else "Receiver"
    return (
        f'<ErrorResponse xmlns="{namespace}"><Error><Type>{kind}</Type><Code>{escape(error.code)}</Code>'
        f"<Message>{escape(error.message)}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
    )


def _xml(value: Xml) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return escape(str(value))
    if isinstance(value, Items):
        return "".join(f"<{value.name}>{_xml(item)}</{value.name}>" for item in value.items)
    if isinstance(value, Mapping):
        return "".join(f"<{key}>{_xml(item)}</{key}>" for key, item in value.items())
    return "".join(f"<member>{_xml(item)}</member>" for item in value)
