"""Calls of a model as OpenTelemetry sees them, received by real HTTP servers that read OTLP."""

import asyncio
import json
import logging
import threading
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from pydantic import SecretStr

from app.settings import Settings
from app.telemetry import Telemetry, create_telemetry
from app.telemetry_settings import Settings as TelemetrySettings
from app.wiring import WiringError, create_analyst
from graph.llms.base import LlmError
from graph.llms.chat import Answer, ToolCall
from graph.llms.traced import Endpoint, TracedChatModel
from graph.masking import Masker
from tests.graph.llms.chats import MASKER, SECRET, Chat, failing, question, usage

ENDPOINT = Endpoint("openai", "https://api.openai.com/v1", 4_000)
KEY = "sk-lf-a-secret-of-the-tests"


@dataclass
class Received:
    """What a collector got, and what it answers."""

    url: str = ""
    status: int = 200
    requests: list[tuple[str, Mapping[str, str], bytes]] = field(default_factory=list)

    def spans(self) -> list[Any]:
        """Every span, oldest request first."""
        bodies = [body for path, _, body in self.requests if path.endswith("/v1/traces")]
        batches = [batch for body in bodies for batch in ExportTraceServiceRequest.FromString(body).resource_spans]
        return [span for batch in batches for scope in batch.scope_spans for span in scope.spans]

    def histograms(self) -> dict[str, list[Any]]:
        """Data points by metric, as they were told last."""
        bodies = [body for path, _, body in self.requests if path.endswith("/v1/metrics")]
        batches = [batch for body in bodies for batch in ExportMetricsServiceRequest.FromString(body).resource_metrics]
        metrics = [metric for batch in batches for scope in batch.scope_metrics for metric in scope.metrics]
        return {metric.name: list(metric.histogram.data_points) for metric in metrics}


@contextmanager
def collecting() -> Iterator[Received]:
    """An HTTP server that takes whatever is posted."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(received.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        received.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield received
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def collector() -> Iterator[Received]:
    """A collector."""
    with collecting() as received:
        yield received


@pytest.fixture
def langfuse(monkeypatch: pytest.MonkeyPatch) -> Iterator[Received]:
    """Langfuse, by the variables of its collector."""
    with collecting() as received:
        monkeypatch.setenv("LANGFUSE_HOST", received.url)
        monkeypatch.setenv("LANGFUSE_PUBLIC_KEY", "pk-lf-1")
        monkeypatch.setenv("LANGFUSE_SECRET_KEY", KEY)
        yield received


@asynccontextmanager
async def telling(settings: TelemetrySettings, *, to_langfuse: bool = False) -> AsyncIterator[Telemetry]:
    """All is sent when it ends."""
    telemetry = create_telemetry(settings, to_langfuse=to_langfuse)
    try:
        yield telemetry
    finally:
        await telemetry.aclose()


def traced(telemetry: Telemetry, chat: Chat, content: Masker | None = None) -> TracedChatModel:
    return TracedChatModel(chat, ENDPOINT, telemetry.tracer, telemetry.meter, content)


def told(point: Any) -> dict[str, Any]:
    """Attributes of a span or a data point."""
    return {attribute.key: _value(attribute.value) for attribute in point.attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, str(kind))


async def test_a_call_is_a_span_as_the_conventions_have_it(collector: Received) -> None:
    async with telling(TelemetrySettings(exporter_otlp_endpoint=collector.url)) as telemetry:
        await traced(telemetry, Chat()).ask(question("Is it so?", "inc_7", 2))
    (span,) = collector.spans()
    assert (span.name, span.kind) == ("chat gpt-4o", 3)  # 3: client
    assert told(span) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.request.max_tokens": 4_000,
        "gen_ai.output.type": "json",
        "gen_ai.response.model": "gpt-4o-2024-08-06",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 1_000,
        "gen_ai.usage.output_tokens": 100,
        "gen_ai.usage.cache_read.input_tokens": 10,
        "gen_ai.conversation.id": "inc_7",
        "autopilot.incident.id": "inc_7",
        "autopilot.node": "RootCauseAnalyzer",
        "autopilot.round": 2,
        "server.address": "api.openai.com",
        "server.port": 443,
    }
    (traces,) = (body for path, _, body in collector.requests if path == "/v1/traces")
    resource = ExportTraceServiceRequest.FromString(traces).resource_spans[0].resource
    assert told(resource)["service.name"] == "aiops-autopilot"
    points = collector.histograms()
    by_kind = {told(p)["gen_ai.token.type"]: p.sum for p in points["gen_ai.client.token.usage"]}
    assert by_kind == {"input": 1_000, "output": 100}
    (seconds,) = points["gen_ai.client.operation.duration"]
    assert seconds.count == 1
    assert list(seconds.explicit_bounds)[:2] == [0.01, 0.02]
    assert told(seconds)["gen_ai.response.model"] == "gpt-4o-2024-08-06"
    assert "autopilot.incident.id" not in told(seconds)  # a series for each incident would be the end of any store


async def test_a_failure_is_told_by_its_kind_and_never_by_its_text(collector: Received) -> None:
    async with telling(TelemetrySettings(exporter_otlp_endpoint=collector.url)) as telemetry:
        for cost in (None, usage()):
            with pytest.raises(LlmError):
                await traced(telemetry, Chat(failing(f"refused: {SECRET}", cost))).ask(question())
    unknown, known = collector.spans()
    assert unknown.status.code == known.status.code == 2  # error
    assert told(unknown)["error.type"] == "LlmError"
    assert "gen_ai.usage.input_tokens" not in told(unknown)
    assert told(known)["gen_ai.usage.input_tokens"] == 1_000
    assert not unknown.events
    assert all(SECRET.encode() not in body for _, _, body in collector.requests)
    durations = collector.histograms()["gen_ai.client.operation.duration"]
    assert {told(point)["error.type"] for point in durations} == {"LlmError"}


async def test_texts_are_told_only_where_that_is_wanted_and_masked(collector: Received) -> None:
    answer = Answer("", usage(), (ToolCall("c9", "search_logs", f'{{"pattern": "{SECRET}"}}'),))
    async with telling(TelemetrySettings(exporter_otlp_endpoint=collector.url)) as telemetry:
        await traced(telemetry, Chat(lambda: answer)).ask(question())
        await traced(telemetry, Chat(lambda: answer), MASKER).ask(question(f"the key is {SECRET}"))
    without, with_texts = (told(span) for span in collector.spans())
    assert "gen_ai.input.messages" not in without
    assert "gen_ai.output.messages" not in without
    asked = json.loads(with_texts["gen_ai.input.messages"])
    assert [message["role"] for message in asked] == ["system", "user", "assistant", "tool"]
    assert asked[0]["parts"] == [{"type": "text", "content": "You answer."}]
    assert asked[2]["parts"][0]["type"] == "tool_call"
    assert asked[3]["parts"] == [{"type": "tool_call_response", "id": "c1", "response": "nothing was found"}]
    (said,) = json.loads(with_texts["gen_ai.output.messages"])
    assert (said["role"], said["finish_reason"]) == ("assistant", "stop")
    assert said["parts"][0]["name"] == "search_logs"
    assert SECRET not in json.dumps(with_texts)


async def test_langfuse_gets_spans_with_its_own_key_and_nobody_elses(collector: Received, langfuse: Received) -> None:
    settings = TelemetrySettings(
        exporter_otlp_endpoint=collector.url, exporter_otlp_headers=SecretStr("x-vendor-key=a-key-of-the-collector")
    )
    async with telling(settings, to_langfuse=True) as telemetry:
        await traced(telemetry, Chat()).ask(question())
    assert len(collector.spans()) == len(langfuse.spans()) == 1
    ((path, headers, _),) = langfuse.requests  # and no metrics: it takes none
    assert path == "/api/public/otel/v1/traces"
    assert headers["authorization"] == f"Basic {b64encode(f'pk-lf-1:{KEY}'.encode()).decode()}"
    assert "a-key-of-the-collector" not in str(headers)
    assert {path for path, _, _ in collector.requests} == {"/v1/traces", "/v1/metrics"}
    assert all(headers["x-vendor-key"] == "a-key-of-the-collector" for _, headers, _ in collector.requests)
    assert all("authorization" not in headers for _, headers, _ in collector.requests)


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"])
async def test_the_standard_variables_of_the_process_do_not_go_to_langfuse(
    langfuse: Received, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "x-vendor-key=a-key-of-the-collector")
    async with telling(TelemetrySettings(), to_langfuse=True) as telemetry:
        await traced(telemetry, Chat()).ask(question())
    assert "a-key-of-the-collector" not in str(langfuse.requests[0][1])


async def test_a_collector_that_fails_is_said_once_without_secrets_and_blocks_nobody(
    collector: Received, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 401
    url = collector.url.replace("//", "//name:a-password@")
    with caplog.at_level(logging.INFO):
        async with telling(TelemetrySettings(exporter_otlp_traces_endpoint=f"{url}/v1/traces")) as telemetry:
            for _ in range(3):
                answer = await traced(telemetry, Chat()).ask(question())
                assert answer.content == '{"yes": true}'
                await asyncio.to_thread(telemetry.tracers.force_flush)
            collector.status = 200
            await traced(telemetry, Chat()).ask(question())
    place = collector.url.removeprefix("http://")
    assert [record.getMessage() for record in caplog.records if "calls of the model" in record.getMessage()] == [
        f"calls of the model cannot be told to {place}; until they can, they are dropped",
        f"calls of the model are told to {place} again",
    ]
    assert "a-password" not in caplog.text


async def test_nobody_there_is_no_trouble(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    async with telling(TelemetrySettings(exporter_otlp_endpoint="http://127.0.0.1:9")) as telemetry:
        assert (await traced(telemetry, Chat()).ask(question())).content == '{"yes": true}'
    assert "cannot be told to 127.0.0.1:9" in caplog.text


def test_endpoints_are_the_standards() -> None:
    both = TelemetrySettings(exporter_otlp_endpoint="http://here:4318/")
    assert (both.url_of("traces"), both.url_of("metrics")) == (
        "http://here:4318/v1/traces",
        "http://here:4318/v1/metrics",
    )
    one = TelemetrySettings(exporter_otlp_traces_endpoint="http://there/traces")
    assert (one.url_of("traces"), one.url_of("metrics")) == ("http://there/traces", None)


def test_langfuse_without_its_keys_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    with pytest.raises(WiringError, match="needs LANGFUSE_HOST, LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY"):
        create_analyst(MASKER, Settings(model_calls_to_langfuse=True))
