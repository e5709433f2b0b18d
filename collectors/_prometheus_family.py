"""How Prometheus, Loki, Tempo and Jaeger are reached; and the literals and answers that some of them share."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TypeVar

import httpx
from pydantic import BaseModel, Field, JsonValue, SecretStr, ValidationError, field_validator

from collectors._budget import SourceSettings
from collectors._http import parsed
from collectors._jobs import Part
from collectors._urls import base_url
from collectors.base import CollectorError, GapReason

MAX_COMPLAINT = 300  # characters of a warning that are kept
_M = TypeVar("_M", bound=BaseModel)
_S = TypeVar("_S", bound="FamilySettings")


class FamilySettings(SourceSettings):
    """Where such a source is, and the credentials it takes: a bearer token, or a user and a password, or none."""

    url: str | None = Field(default=None, description="Base URL, without /api or /loki/api")
    token: SecretStr | None = Field(default=None, description="Bearer token, if it wants one")
    username: str | None = Field(default=None, description="User of basic authentication, with the password")
    password: SecretStr | None = Field(default=None, description="Password of basic authentication")
    org_id: str | None = Field(default=None, description="Tenant: sent as X-Scope-OrgID where there are several")

    @field_validator("url", "ui_url", "grafana_url", check_fields=False)
    @classmethod
    def _usable(cls, url: str | None) -> str | None:
        return base_url(url) if url else None


def complete(settings: _S, collector: str, below: str = "/api") -> _S:
    """The settings, as they are. Raises ValueError naming a missing one.

    ``below``: the part of a path that the base URL must not have.
    """
    prefix = collector.upper()
    if not settings.url:
        raise ValueError(f"The collector '{collector}' needs {prefix}_URL: its base URL, without {below}.")
    if (settings.username is None) != (settings.password is None):
        raise ValueError(f"The collector '{collector}' needs both {prefix}_USERNAME and {prefix}_PASSWORD, or none.")
    return settings


def client(
    settings: FamilySettings, *, auth: httpx.Auth | None, transport: httpx.AsyncBaseTransport | None
) -> httpx.AsyncClient:
    """A client with the credentials of ``settings``; ``auth`` replaces user and password."""
    headers = {"X-Scope-OrgID": settings.org_id} if settings.org_id else {}
    if settings.token is not None:
        headers["Authorization"] = f"Bearer {settings.token.get_secret_value()}"
    if auth is None and settings.username is not None and settings.password is not None:
        auth = httpx.BasicAuth(settings.username, settings.password.get_secret_value())
    return httpx.AsyncClient(
        base_url=settings.url or "",
        headers=headers,
        auth=auth,
        timeout=httpx.Timeout(12.0, connect=3.0),
        transport=transport,
    )


def literal(text: str) -> str:
    """A string of PromQL or LogQL: both take Go's escapes, and JSON's are a part of them."""
    return json.dumps(text, ensure_ascii=False)


def matchers(declared: str, label: str, service: str) -> str:
    """The catalogue's label matchers, with or without braces; without any, ``label="<service>"``."""
    return declared.strip().removeprefix("{").removesuffix("}").strip(" ,") or f"{label}={literal(service)}"


class _Answer(BaseModel):
    status: str
    data: JsonValue = None
    error: str = ""
    warnings: list[str] | None = None


def data_of(part: Part, about: str, body: JsonValue) -> JsonValue:
    """An answer's data; its warnings are gaps, as it may be partial. Raises CollectorError."""
    answer = parsed(_Answer, body)
    if answer.status != "success":
        raise CollectorError(f"{about}: {answer.status}: {answer.error}"[:MAX_COMPLAINT])
    for warning in answer.warnings or ():  # told once, though it may come with each of hundreds of answers
        part.gap(GapReason.TRUNCATED, f"{part.source} warns: {warning}"[:MAX_COMPLAINT], f"see {part.source}'s own log")
    return answer.data


@dataclass(frozen=True)
class Row:
    """One series of an answer: its labels and its points, (epoch seconds, value), without NaN and infinity."""

    labels: dict[str, str]
    points: tuple[tuple[float, float], ...]


class _RawRow(BaseModel):
    metric: dict[str, str] = Field(default_factory=dict)
    values: list[JsonValue] = Field(default_factory=list)
    value: JsonValue = None


class _RawRows(BaseModel):
    result: list[JsonValue]


def rows_of(part: Part, about: str, data: JsonValue) -> list[Row]:
    """The series of a matrix or a vector; what is not understood is counted in a gap. Raises CollectorError."""
    raw = list(readable(part, about, parsed(_RawRows, data).result, _RawRow))
    rows, malformed = [], 0
    for one in raw:
        told = one.values if one.value is None else [one.value]
        points = [_point(value) for value in told]
        malformed += points.count(None)
        rows.append(Row(one.metric, tuple(point for point in points if point and isfinite(point[1]))))
    not_understood(part, about, malformed)
    return rows


def _point(value: JsonValue) -> tuple[float, float] | None:
    """``[1700000000.0, "0.5"]``."""
    if not (isinstance(value, list) and len(value) == 2):
        return None
    at, told = value
    if isinstance(at, bool) or not isinstance(at, int | float) or not isinstance(told, str):
        return None
    try:
        return float(at), float(told)
    except ValueError:
        return None


def readable(part: Part, about: str, found: Sequence[JsonValue], model: type[_M]) -> Iterator[_M]:
    """The rows that are as they should be; the others are counted in a gap."""
    malformed = 0
    for row in found:
        try:
            yield model.model_validate(row)
        except ValidationError:
            malformed += 1
    not_understood(part, about, malformed)


def not_understood(part: Part, about: str, count: int) -> None:
    """Say how many rows were dropped, if any."""
    if count:
        part.gap(GapReason.FAILED, f"{count} rows were not understood: {about}")
