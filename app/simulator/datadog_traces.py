"""A whole trace by its id, as Datadog's trace API tells it: nanoseconds, and ids as unsigned numbers."""

from collections.abc import Sequence

from app.simulator.requests import SpanRecord
from app.simulator.topology import ENVIRONMENT

Json = dict[str, object]

MOST_SPANS = 10_000  # of one answer


def trace_key(text: str) -> str | None:
    """The id as 32 hexadecimal digits: it may be given so, or as a decimal number. None if it is neither."""
    if len(text) == 32 and all(c in "0123456789abcdef" for c in text.lower()):
        return text.lower()
    return f"{int(text):032x}" if text.isascii() and text.isdecimal() and len(text) <= 39 else None


def trace_json(key: str, spans: Sequence[SpanRecord]) -> Json:
    """The answer for the spans of one trace."""
    return {
        "data": {
            "id": key,
            "type": "trace",
            "attributes": {
                "is_truncated": len(spans) > MOST_SPANS,
                "spans": [_span(span) for span in spans[:MOST_SPANS]],
            },
        }
    }


def _span(span: SpanRecord) -> Json:
    start, duration = round(span.start * 1e9), round(span.duration_ms * 1e6)
    return {
        "name": span.operation,
        "resource": span.resource,
        "service": span.service,
        "type": "web" if span.kind == "server" else "http",
        "traceID": int(span.trace_id[16:], 16),
        "traceIDFull": span.trace_id,
        "spanID": int(span.span_id, 16),
        "parentID": int(span.parent_id or "0", 16),
        "startTime": start,
        "endTime": start + duration,
        "duration": duration,
        "error": 1 if span.error_type else 0,
        "meta": _meta(span),
        "metrics": {"sampling.priority": 1.0},
    }


def _meta(span: SpanRecord) -> dict[str, str]:
    meta = {"env": ENVIRONMENT, "span.kind": span.kind, "host": span.host, "version": span.version}
    meta |= {"peer.service": span.peer} if span.peer else {}
    return meta | ({"error.type": span.error_type, "error.message": span.error_message} if span.error_type else {})
