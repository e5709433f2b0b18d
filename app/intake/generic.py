"""Any tool that posts JSON: ``webhooks:`` of autopilot.yaml says by JMESPath where the fields of an alert are."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import jmespath  # type: ignore[import-untyped]
from jmespath.exceptions import JMESPathError  # type: ignore[import-untyped]
from jmespath.functions import Functions  # type: ignore[import-untyped]
from pydantic import Field, JsonValue, TypeAdapter, ValidationError
from pydantic_settings import SettingsConfigDict

from app.catalogue import AutopilotYaml, GenericWebhook
from app.clock import Clock
from app.intake._alert_groups import link, readable, severity_of
from app.intake.base import (
    Directory,
    Incoming,
    NotAllowed,
    Parsed,
    Secrets,
    Sender,
    SenderSettings,
    UnreadablePayload,
    believable,
    digest_key,
    indexable,
    iso_time,
    require_token,
    text_of,
)
from graph.state import Alert, Severity

NAME = "generic"
EXPRESSIONS = {name for name, field in GenericWebhook.model_fields.items() if field.annotation is str}
MILLISECONDS_FROM = 1e11  # as seconds, that were the year 5138
_JSON: TypeAdapter[JsonValue] = TypeAdapter(JsonValue)


class Settings(SenderSettings):
    """``AUTOPILOT_GENERIC_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="AUTOPILOT_GENERIC_")

    tokens: Secrets = Field(
        default=(), description="Values accepted in X-AIOps-Token, as bearer token or Basic password"
    )


def create(clock: Clock, config: AutopilotYaml) -> "Generic":
    """The sender. Raises ValueError for an expression that cannot work."""
    return Generic(Settings(), {name: Reader.of(name, webhook) for name, webhook in config.webhooks.items()})


class Generic(Sender):
    """``app.intake.base.Sender``. ``Incoming.part`` is the name under ``webhooks:``."""

    name = NAME

    def __init__(self, settings: Settings, readers: Mapping[str, "Reader"]) -> None:
        self.settings, self.readers = settings, readers

    async def verify(self, incoming: Incoming) -> None:
        """See app.intake.base.Sender."""
        require_token(incoming.headers, self.settings.tokens, "AUTOPILOT_GENERIC_TOKENS")
        if incoming.part not in self.readers:
            known = ", ".join(sorted(self.readers)) or "none"
            raise NotAllowed(
                f"There is no webhook {incoming.part[:100]!r} in autopilot.yaml; there are: {known}."
                " Add it under `webhooks:`, or correct the address."
            )

    def parse(self, incoming: Incoming, directory: Directory) -> Parsed:
        """See app.intake.base.Sender."""
        reader = self.readers[incoming.part]
        payload = _json(incoming.body)
        items = reader.items(payload)
        alerts, left_out = readable(items, lambda item: reader.alert(item, directory))
        key = reader.delivery_key(payload, items, incoming.body)
        return Parsed(alerts=alerts, delivery_key=key, left_out=left_out)


def _json(body: bytes) -> JsonValue:
    try:
        return _JSON.validate_json(body)
    except (ValidationError, RecursionError) as error:
        detail = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "nested too deep"
        raise UnreadablePayload(f"the payload is no JSON: {detail}") from None


# --- expressions ---


@dataclass(frozen=True)
class Expression:
    """One JMESPath expression of autopilot.yaml, compiled."""

    where: str
    compiled: jmespath.parser.ParsedResult

    @classmethod
    def of(cls, where: str, text: str) -> "Expression":
        """Raises ValueError, which says where the expression stands and what is wrong with it."""
        try:
            compiled = jmespath.compile(text)
        except JMESPathError as error:
            raise ValueError(f"{where}: {text!r} is no JMESPath: {' '.join(str(error).split())}") from None
        unknown = sorted(set(_functions(compiled.parsed)) - set(Functions.FUNCTION_TABLE))
        if unknown:
            raise ValueError(f"{where}: JMESPath has no function {unknown[0]!r}")
        return cls(where, compiled)

    def value(self, payload: JsonValue) -> JsonValue:
        """What it finds. Raises UnreadablePayload where a function does not fit what it finds."""
        try:
            found: JsonValue = self.compiled.search(payload)
        except (JMESPathError, ValueError, ArithmeticError, TypeError, RecursionError) as error:
            said = text_of(" ".join(str(error).split()))[:300]
            raise UnreadablePayload(f"{self.where} does not fit the payload: {said}") from None
        return found


def _functions(node: object) -> Iterator[str]:
    """The functions that an expression calls; JMESPath itself looks them up only when it comes to them."""
    if isinstance(node, Mapping):
        if node.get("type") == "function_expression":
            yield str(node["value"])
        for child in node.get("children", ()):
            yield from _functions(child)


# --- one webhook ---


@dataclass(frozen=True)
class Reader:
    """One entry of ``webhooks:``, ready to read payloads."""

    name: str
    fields: Mapping[str, Expression]
    resources: Mapping[str, Expression]
    severities: Mapping[str, Severity]
    resolved: frozenset[str]

    @classmethod
    def of(cls, name: str, webhook: GenericWebhook) -> "Reader":
        """Raises ValueError."""
        where, texts = f"webhooks.{name}", webhook.model_dump(include=EXPRESSIONS)
        required = ("alerts", "title")
        return cls(
            name=name,
            fields={k: Expression.of(f"{where}.{k}", text) for k, text in texts.items() if text or k in required},
            resources={k: Expression.of(f"{where}.resources.{k}", text) for k, text in webhook.resources.items()},
            severities={word.lower(): ours for word, ours in webhook.severities.items()},
            resolved=frozenset(word.lower() for word in webhook.resolved),
        )

    def items(self, payload: JsonValue) -> list[JsonValue]:
        """The alerts of a payload, as the tool describes them."""
        found = self.fields["alerts"].value(payload)
        if isinstance(found, list):
            return found
        if isinstance(found, dict):
            return [found]
        raise UnreadablePayload(f"webhooks.{self.name}.alerts finds no list and no object in the payload")

    def alert(self, item: JsonValue, directory: Directory) -> Alert:
        """Raises UnreadablePayload."""
        title = self._text("title", item)
        if not title:
            raise UnreadablePayload(f"webhooks.{self.name}.title finds nothing in the payload")
        text, rule = self._text("text", item), self._text("rule", item)
        resources = {k: found for k, e in self.resources.items() if (found := _word(e.value(item)))}
        service = self._service(item, resources, f"{title} {text}", directory)
        told = self._text("key", item) or _default_key(rule or title, service, resources)
        key = f"{NAME}:{indexable(self.name)}:{indexable(told)}"
        occurred, changed = self._times(item)
        return Alert(
            source=NAME,
            rule=f"{NAME}:{indexable(self.name)}:{indexable(rule)}" if rule else "",
            title=title[:500],
            severity=self._severity(self._text("severity", item)),
            service=service[:200],
            resources={k[:100]: v[:200] for k, v in list(resources.items())[:20]},
            occurred_at=believable((occurred, changed)),
            changed_at=believable((changed, occurred)),
            fingerprint=key,
            cycle_key=key,
            transition="resolved" if self._text("state", item).lower() in self.resolved else "firing",
            url=link([self._text("url", item)]),
            text=text[:4000],
        )

    def delivery_key(self, payload: JsonValue, items: list[JsonValue], body: bytes) -> str | None:
        """By the tool's own id, else by the body if each alert in it has a time; without, the next one looks alike."""
        try:
            told = self._text("delivery_id", payload)
            dated = bool(items) and all(any(self._times(item)) for item in items)
        except UnreadablePayload:  # worth no alert: what could be read of them was
            return None
        if told or dated:
            return f"{NAME}:{digest_key(self.name, told or body.decode('utf-8', 'replace'))}"
        return None

    def _severity(self, word: str) -> Severity:
        return self.severities.get(word.lower()) or severity_of(word)

    def _service(self, item: JsonValue, resources: Mapping[str, str], text: str, directory: Directory) -> str:
        found = directory.service_for(self._text("service", item), resources, text)
        if not found:
            raise UnreadablePayload(
                f"no service: webhooks.{self.name}.service finds none, and the payload names none of the catalogue's."
                f" Mend that expression, or add one of webhooks.{self.name}.resources to `resources:` of the service"
                " in autopilot.yaml."
            )
        return found

    def _times(self, item: JsonValue) -> tuple[datetime | None, datetime | None]:
        """When it occurred, and when it changed to its state."""
        return _moment(self._text("occurred_at", item)), _moment(self._text("changed_at", item))

    def _text(self, field: str, item: JsonValue) -> str:
        expression = self.fields.get(field)
        return _word(expression.value(item)) if expression else ""


def _default_key(rule: str, service: str, resources: Mapping[str, str]) -> str:
    """One rule may watch many services, with nothing else to tell its alerts apart."""
    return "|".join((rule, f"service:{service}", *(f"{k}:{v}" for k, v in sorted(resources.items()))))


def _word(value: JsonValue) -> str:
    """Text; JSON's true and false can be a state."""
    return str(value).lower() if isinstance(value, bool) else text_of(value)


def _moment(text: str) -> datetime | None:
    """ISO 8601, or epoch seconds or milliseconds; None where it is no time."""
    try:
        number = float(text)
        return datetime.fromtimestamp(number / 1000 if number > MILLISECONDS_FROM else number, UTC)
    except (ValueError, OverflowError, OSError):
        return iso_time(text)
