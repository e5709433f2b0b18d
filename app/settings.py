"""The product's own settings, from the environment and ``.env``. Plug-ins have their own Settings in their files."""

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.clock import parse_clock
from app.intake.base import Secrets
from graph.state import Language

LOOPBACK = ("127.0.0.1", "localhost", "::1")
CommaList = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """``AUTOPILOT_<NAME>``, but for ``DATABASE_URL``, which everybody calls that."""

    model_config = SettingsConfigDict(
        env_prefix="AUTOPILOT_", env_file=".env", env_ignore_empty=True, extra="ignore", hide_input_in_errors=True
    )

    database_url: SecretStr | None = Field(
        default=None,
        validation_alias="DATABASE_URL",
        description="A Postgres server, e.g. postgresql://user:password@host/db. Unset: an embedded one",
    )
    data_dir: Path = Field(
        default=Path("~/.autopilot"),
        description="Where the embedded Postgres keeps its data; keep the path short",
    )
    config: Path | None = Field(default=None, description="The service catalogue, autopilot.yaml")
    collectors: CommaList = Field(default=(), description="Sources to read, e.g. datadog,aws; the README lists them")
    executors: CommaList = Field(
        default=("rehearsal",), description="What may act: ecs, traffic, or rehearsal (touches nothing)"
    )
    notifiers: CommaList = Field(
        default=(), description="Who is told: slack, jira, pagerduty, webhook; teams: of autopilot.yaml says where"
    )
    investigations_at_once: int = Field(
        default=10, ge=1, description="Investigations that may run at once; the rest wait, the most severe first"
    )
    investigations_per_service_hour: int = Field(
        default=12, ge=1, description="Investigations of one service within an hour"
    )
    investigation_dollars_per_day: float | None = Field(
        default=None,
        gt=0,
        description="What the model may cost a day (UTC): once it is spent, the rules engine answers; unset: no limit",
    )
    model_tokens_per_incident: int = Field(
        default=200_000, gt=0, description="Tokens, in and out, that the model may take for an incident; then as above"
    )
    model_dollars_per_incident: float = Field(
        default=1.0, gt=0, description="What the model may cost for an incident; then as above"
    )
    model_input_tokens: int = Field(
        default=6_000, ge=2_000, description="Tokens that one question to the model may take, whatever the telemetry"
    )
    model_content_exported: bool = Field(
        default=False, description="Tell OpenTelemetry and Langfuse also what was asked and answered, masked"
    )
    model_calls_to_langfuse: bool = Field(
        default=False, description="Tell Langfuse each call of the model; LANGFUSE_HOST and its keys say where"
    )
    pull_every_s: float = Field(
        default=300.0,
        ge=0,
        description="How often Datadog and CloudWatch are asked for alerts whose webhook never came; 0: never",
    )
    collect_s: float = Field(
        default=20.0, ge=1.0, le=300, description="Seconds that reading all sources of an incident may take together"
    )
    reads_s: float = Field(
        default=15.0,
        ge=1.0,
        le=300,
        description="Seconds that the model's own questions to the sources may take together",
    )
    embedder: Literal["", "openai", "wordllama"] = Field(
        default="",
        description="What makes vectors of past incidents, so that they are found by meaning too: openai (needs its"
        " key) or wordllama (needs none); both need pgvector. Unset: signature and words find them",
    )
    embedding_model: str = Field(
        default="text-embedding-3-small", min_length=1, description="Of AUTOPILOT_EMBEDDER=openai"
    )
    embedding_dimensions: int = Field(
        default=512, ge=64, le=4000, description="Of AUTOPILOT_EMBEDDER=openai: numbers of a vector"
    )
    language: Language = Field(
        default="en", description="What reports are written in, en or ko, where whoever opens an incident says nothing"
    )
    public_url: str = Field(
        default="http://127.0.0.1:8080", description="How people reach this service; links in messages lead there"
    )
    api_key: SecretStr | None = Field(
        default=None, description="Your own key, for `autopilot actions`, `decide` and the like; the service needs none"
    )
    clock: str = Field(
        default="system", description="system, or <origin ISO>@<wall epoch seconds>x<speed> for the demo"
    )
    mask_ips: bool = Field(default=False, description="Mask IP addresses too, before anything leaves for a model")
    worker_concurrency: int = Field(default=10, ge=1, le=50, description="Incidents a worker runs at once")
    audit_key: Secrets = Field(
        default=(),
        description="What signs the audit log: a secret that is not in the database, the same for every process; to"
        " change it, first old,new everywhere, then new,old. Unset: a key in the database, which its owner knows",
    )
    escalation_url: SecretStr | None = Field(
        default=None, description="Where plans that nobody decides on are posted to, as JSON; it may hold a secret"
    )
    stalled_after_s: float = Field(
        default=6.0,
        ge=2.0,
        description="A worker silent for so long is taken for dead, and its jobs go to others",
    )
    max_body_bytes: int = Field(default=1_000_000, description="A larger request body is answered 413")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="DEBUG, INFO, WARNING or ERROR"
    )

    def incident_url(self, incident_id: str) -> str:
        """Of the incident's page, for people."""
        return f"{self.public_url.rstrip('/')}/ui/?incident={quote(incident_id)}"

    @field_validator("database_url")
    @classmethod
    def _database_url_is_one(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not _is_postgres_url(url.get_secret_value()):
            raise ValueError("this is no Postgres URL; write postgresql://user:password@host/database")
        return url

    @field_validator("escalation_url")
    @classmethod
    def _escalation_url_is_one(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("http://", "https://")):
            raise ValueError("this is no address; it begins with https:// or http://")
        return url

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper_case(cls, value: object) -> object:
        return value.strip().upper() if isinstance(value, str) else value

    @field_validator("collectors", "executors", "notifiers", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("api_key")
    @classmethod
    def _api_key_is_one(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not re.fullmatch(r"ap_[\w-]+", key.get_secret_value(), re.ASCII):
            raise ValueError("this is no key of `autopilot keys create`; it begins with ap_")
        return key

    @field_validator("clock")
    @classmethod
    def _clock_is_one(cls, value: str) -> str:
        parse_clock(value)
        return value


def _is_postgres_url(text: str) -> bool:
    try:
        conninfo_to_dict(text)
    except psycopg.ProgrammingError:
        return False
    return text.startswith(("postgresql://", "postgres://"))
