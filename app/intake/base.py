"""What a sender is, and what it makes of a delivery.

A sender is one file in this folder with its own ``Settings(env_prefix=…)`` and a ``create(clock, config)``; a secret in
its settings turns it on. It verifies the raw bytes of a delivery and parses them; it stores nothing. What has to be
asked of a vendor first is a ``Job``, which is stored with the delivery and done after the answer.
"""

import base64
import hmac
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    SecretStr,
    TypeAdapter,
    ValidationError,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from collectors.base import Change
from graph.catalogue import Catalogue
from graph.state import Alert, Choice, Language

OLDEST = timedelta(days=3650)  # no source keeps telemetry for so long: an older time is a mistake
Headers = Mapping[str, str]  # names in lower case
_OBJECT: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


class IntakeError(Exception):
    """A delivery that is not taken; the text says why and what to do."""


class Unauthentic(IntakeError):
    """The signature, token or password is missing or wrong: 401."""


class NotAllowed(IntakeError):
    """Authentic or not, it comes from where nobody said we should listen to: 403."""


class IntakeUnavailable(IntakeError):
    """Something needed to check the delivery does not answer now: 503, and the sender tries again."""


class UnreadablePayload(IntakeError):
    """An authentic sender sent something we cannot make an alert of: a dead letter."""


@dataclass(frozen=True)
class Incoming:
    """One delivery, as it came over HTTP."""

    headers: Headers = field(repr=False)  # they hold secrets
    body: bytes = field(repr=False)
    part: str = ""  # what follows the sender's name in the path: `events`, or the name of a generic webhook


class Job(BaseModel):
    """Something to ask of a vendor after the answer; enqueued in the delivery's own transaction."""

    model_config = ConfigDict(frozen=True)

    sender: str  # whose ``perform`` does it
    arguments: Mapping[str, str]


class Click(BaseModel):
    """What a person decided by a button in a chat. A job of the delivery's own transaction checks and decides it."""

    model_config = ConfigDict(frozen=True)

    user: str = Field(description="The chat's own id of that person")
    incident_id: str
    plan_revision: str
    choice: Choice | Literal["withdraw"] = Field(description="withdraw: take back what has not begun")
    steps: tuple[int, ...] = ()
    hint: str = ""
    note: str = ""
    answer_to: str = Field(
        default="", repr=False, description="Where only that person reads it: whoever has it may post"
    )


@dataclass(frozen=True)
class Parsed:
    """What a delivery says. A delivery with nothing in it is stored all the same."""

    alerts: tuple[Alert, ...] = ()
    changes: tuple[Change, ...] = ()
    jobs: tuple[Job, ...] = ()
    click: Click | None = None
    delivery_key: str | None = None  # the same for every re-send of one delivery; None: two never count as the same
    asked_by: str = ""  # a person who wants this very investigation: it is not merged into another
    language: Language | None = None  # of its report, where that person named one
    left_out: str = ""  # what part of it could not be read, and why: it is a dead letter as well
    note: str = ""  # what to say of it, where it is more than what became of the alerts
    private: bool = False  # none of our business, such as people's talk in a channel: not stored at all
    answer: Mapping[str, JsonValue] | None = None  # what this sender must be answered instead of our usual JSON


class Sender:
    """One kind of sender. ``verify`` and ``parse`` are pure, but for a cache of certificates."""

    name: str

    async def verify(self, incoming: Incoming) -> None:
        """Check who sent these raw bytes. Raises Unauthentic, NotAllowed, IntakeUnavailable."""
        raise NotImplementedError

    def parse(self, incoming: Incoming, directory: "Directory") -> Parsed:
        """Make alerts of a verified delivery. Raises UnreadablePayload, and nothing else, whatever the bytes."""
        raise NotImplementedError

    async def perform(self, arguments: Mapping[str, str], directory: "Directory") -> Parsed:
        """Do a Job. What it raises is logged, and the job is tried again later. Raises UnreadablePayload for good."""
        raise UnreadablePayload(f"{self.name} has no such job: {sorted(arguments)}")

    async def missed(self, directory: "Directory") -> Parsed | None:
        """What is alerting at the source right now; None where it cannot be asked, for want of credentials."""
        return None

    async def aclose(self) -> None:
        """Close connections."""


@dataclass(frozen=True)
class Directory:
    """Finds the service that an alert is about."""

    catalogue: Catalogue
    _by_resource: dict[tuple[str, str], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, service in self.catalogue.services.items():
            for tag in (*service.datadog_tags, *service.resources):
                key, _, value = tag.partition(":")
                self._by_resource.setdefault((key, value), name)
            if service.ecs:
                self._by_resource[_ecs(service.ecs.cluster, service.ecs.service)] = name
            target = self.catalogue.target(name, 0)
            for key, dimension in (("LoadBalancer", target.load_balancer), ("TargetGroup", target.target_group)):
                if dimension:
                    self._by_resource.setdefault((key, dimension), name)

    def service_for(self, named: str = "", resources: Mapping[str, str] | None = None, text: str = "") -> str:
        """The service by its name in the catalogue, else by a resource that the catalogue gives to one, else by the
        name as it is, else by a resource or a word of the text that is called like one, else the first resource that is
        named at all; empty if there is none. ``resources`` are tags or CloudWatch dimensions, the most telling first.
        """
        services, resources = self.catalogue.services, resources or {}
        if named in services:
            return named
        if named and (tagged := self._by_resource.get(("service", named))):
            return tagged
        if (pair := _ecs(resources.get("ClusterName", ""), resources.get("ServiceName", ""))) in self._by_resource:
            return self._by_resource[pair]
        for key, value in resources.items():
            # a value that only looks like a service's name says less than the name that the alert gives its service
            alike = value if value in services and not named else None
            if found := self._by_resource.get((key, value)) or alike:
                return found
        return named or self._named_in(text) or next(filter(None, resources.values()), "")

    def _named_in(self, text: str) -> str:
        """The longest catalogue name that stands in the text as a word of its own."""
        named = [s for s in self.catalogue.services if s in text and _is_word(s, text)]
        return max(named, key=lambda name: (len(name), name), default="")


def _ecs(cluster: str, service: str) -> tuple[str, str]:
    return ("ecs", f"{cluster}/{service}")


def _is_word(word: str, text: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) is not None


class SenderSettings(BaseSettings):
    """What a sender's own ``Settings`` build on; they add their ``env_prefix`` and fields."""

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore", hide_input_in_errors=True)


# --- shared secrets ---

TOKEN_HEADER = "x-aiops-token"  # noqa: S105  a header's name


def split_commas(value: object) -> object:
    """A comma-separated setting as a tuple."""
    return tuple(p.strip() for p in value.split(",") if p.strip()) if isinstance(value, str) else value


def _long_enough(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    if any(len(s.get_secret_value()) < 16 for s in secrets):
        raise ValueError("a secret is shorter than 16 characters; make one with `openssl rand -hex 24`")
    return secrets


Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(split_commas), AfterValidator(_long_enough)]
CommaList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_commas)]


def require_token(headers: Headers, valid: Sequence[SecretStr], setting: str) -> None:
    """One of the valid secrets in ``X-AIOps-Token``, as bearer token, or as the password of Basic authentication.

    All are compared, in constant time. Raises Unauthentic; ``setting`` is the variable to name.
    """
    if not valid:
        raise Unauthentic(f"This sender is turned off: {setting} is not set.")
    sent = [text.encode("utf-8", "replace") for text in _presented(headers)]
    matches = [hmac.compare_digest(s, v.get_secret_value().encode()) for s in sent for v in valid]
    if not any(matches):
        raise Unauthentic(f"Send one of {setting} in X-AIOps-Token, as bearer token or as Basic password.")


def _presented(headers: Headers) -> Iterator[str]:
    if token := headers.get(TOKEN_HEADER):
        yield token
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        yield value.strip()
    if scheme.lower() == "basic":
        try:
            yield base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
        except ValueError:  # neither base64 nor ASCII, or no UTF-8 in it
            return


# --- what every parser needs ---


def json_object(body: bytes) -> dict[str, JsonValue]:
    """The payload. Raises UnreadablePayload."""
    try:
        return _OBJECT.validate_json(body)
    except (ValidationError, RecursionError) as error:
        detail = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "nested too deep"
        raise UnreadablePayload(f"the payload is not a JSON object: {detail}") from None


def text_of(value: object) -> str:
    """A value as text that Postgres can store: no NUL, no half of a surrogate pair; containers are empty."""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return ""
    return str(value).strip().replace("\x00", "").encode("utf-8", "replace").decode()


def digest_key(*parts: str) -> str:
    """A key that Postgres can index whatever the length of its parts."""
    return sha256("|".join(parts).encode("utf-8", "replace")).hexdigest()


def indexable(key: str) -> str:
    """The key itself, or its hash where it is too long for an index."""
    return key if len(key) <= 200 else digest_key(key)


def believable(moments: Iterable[datetime | None]) -> datetime:
    """The first time that can be true; now, where none can."""
    now = datetime.now(UTC)
    return next((m for m in moments if m and now - OLDEST < m < now + timedelta(days=1)), now)


def iso_time(value: object) -> datetime | None:
    """ISO 8601 with any offset, ``+0000`` and nanoseconds included; None where it is no time."""
    try:
        moment = datetime.fromisoformat(text_of(value))
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
