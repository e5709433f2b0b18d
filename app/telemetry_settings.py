"""OpenTelemetry's standard variables, apart from its client: who does not export never imports it.

They are read here too because its client does not read ``.env``. All others (timeouts, certificates, compression,
sampling, ``OTEL_SDK_DISABLED``) it reads itself, from the environment.
"""

from typing import Literal

from opentelemetry.util.re import parse_env_headers
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

Signal = Literal["traces", "metrics"]


class Settings(BaseSettings):
    """``OTEL_<NAME>``, as OpenTelemetry documents them."""

    model_config = SettingsConfigDict(
        env_prefix="OTEL_", env_file=".env", env_ignore_empty=True, extra="ignore", hide_input_in_errors=True
    )

    exporter_otlp_endpoint: str | None = Field(
        default=None, description="A collector that takes OTLP over HTTP, e.g. http://localhost:4318; unset: none"
    )
    exporter_otlp_traces_endpoint: str | None = Field(
        default=None, description="The whole address for traces, if it is another one"
    )
    exporter_otlp_metrics_endpoint: str | None = Field(
        default=None, description="The whole address for metrics, if it is another one"
    )
    exporter_otlp_headers: SecretStr | None = Field(
        default=None, description="Headers that the collector asks for: name=value,name=value"
    )
    exporter_otlp_traces_headers: SecretStr | None = Field(
        default=None, description="The same, for traces alone, in their place"
    )
    service_name: str = Field(default="aiops-autopilot", description="How spans and metrics call this product")

    def url_of(self, signal: Signal) -> str | None:
        """Where that signal goes; None: nowhere."""
        own = self.exporter_otlp_traces_endpoint if signal == "traces" else self.exporter_otlp_metrics_endpoint
        if own or not self.exporter_otlp_endpoint:
            return own
        return f"{self.exporter_otlp_endpoint.rstrip('/')}/v1/{signal}"

    def headers_of(self, signal: Signal) -> dict[str, str]:
        """By name."""
        own = self.exporter_otlp_traces_headers if signal == "traces" else None
        given = own or self.exporter_otlp_headers
        return dict(parse_env_headers(given.get_secret_value() if given else "", liberal=True))
