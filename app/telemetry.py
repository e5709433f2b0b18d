"""Where calls of the model are told to, by OpenTelemetry: the collector of the standard variables, Langfuse, or both.

Nothing waits for it: spans are queued, within bounds, and sent by a thread. What cannot be sent is dropped, and said
once until it works again. No provider is global: what is instrumented gets its tracer and its meter.
"""

import asyncio
import logging
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Tracer

from app.telemetry_settings import Settings
from collectors.langfuse import Settings as Langfuse

log = logging.getLogger(__name__)

SCOPE = "aiops-autopilot"
LANGFUSE_PATH = "/api/public/otel/v1/traces"
# They write a line for each batch, with the address as it was configured; `Outspoken` says it once, without.
TOO_CHATTY = ("opentelemetry.exporter.otlp", "opentelemetry.sdk.metrics")


@dataclass(frozen=True)
class Telemetry:
    """What is instrumented takes ``tracer`` and ``meter``."""

    tracers: TracerProvider
    meters: MeterProvider

    @property
    def tracer(self) -> Tracer:
        """Ours."""
        return self.tracers.get_tracer(SCOPE)

    @property
    def meter(self) -> Meter:
        """Ours."""
        return self.meters.get_meter(SCOPE)

    async def aclose(self) -> None:
        """Send what is left. Takes as long as a collector that does not answer may take (10 s by default) at most."""
        await asyncio.gather(asyncio.to_thread(self.tracers.shutdown), asyncio.to_thread(self.meters.shutdown))


def create_telemetry(settings: Settings, *, to_langfuse: bool) -> Telemetry:
    """As the settings say; it tells nobody anything where they name no place. Raises ValueError on a missing one."""
    exporters = [*_collector(settings), *(_langfuse(Langfuse(), settings) if to_langfuse else ())]
    for name in TOO_CHATTY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    resource = Resource.create({SERVICE_NAME: settings.service_name})
    tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
    for exporter in exporters:
        tracers.add_span_processor(BatchSpanProcessor(exporter))
    readers = [PeriodicExportingMetricReader(exporter) for exporter in _metrics(settings)]
    return Telemetry(tracers, MeterProvider(readers, resource=resource, shutdown_on_exit=False))


class Outspoken(SpanExporter):
    """Another exporter, that says once when it fails, and when it works again."""

    def __init__(self, inner: SpanExporter, place: str) -> None:
        """``place`` is what people may read of the address."""
        self._inner, self._place, self._failing = inner, place, False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """The inner one's result."""
        result = self._inner.export(spans)
        failing = result is not SpanExportResult.SUCCESS
        if failing and not self._failing:
            log.warning("calls of the model cannot be told to %s; until they can, they are dropped", self._place)
        elif self._failing and not failing:
            log.info("calls of the model are told to %s again", self._place)
        self._failing = failing
        return result

    def shutdown(self) -> None:
        """Close the inner one."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is kept here."""
        return self._inner.force_flush(timeout_millis)


def _collector(settings: Settings) -> Iterator[SpanExporter]:
    if url := settings.url_of("traces"):
        yield Outspoken(OTLPSpanExporter(url, headers=settings.headers_of("traces")), _place(url))


def _metrics(settings: Settings) -> Iterator[OTLPMetricExporter]:
    if url := settings.url_of("metrics"):
        yield OTLPMetricExporter(url, headers=settings.headers_of("metrics"))


def _langfuse(langfuse: Langfuse, others: Settings) -> Iterator[SpanExporter]:
    """Raises ValueError."""
    if not (langfuse.url and langfuse.public_key and langfuse.secret_key):
        raise ValueError(
            "AUTOPILOT_MODEL_CALLS_TO_LANGFUSE needs LANGFUSE_HOST, LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY."
        )
    pair = f"{langfuse.public_key.get_secret_value()}:{langfuse.secret_key.get_secret_value()}"
    # Its client sends the headers of the standard variables to everybody: another collector's key would go there too.
    headers = dict.fromkeys(others.headers_of("traces"), "")
    headers["authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
    url = langfuse.url.rstrip("/") + LANGFUSE_PATH
    yield Outspoken(OTLPSpanExporter(url, headers=headers), _place(url))


def _place(url: str) -> str:
    """Host and port: an address may hold a password."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else f"{parts.hostname}"
