"""What a collection may cost: seconds, calls, bytes and rows."""

from collections.abc import Mapping
from time import monotonic

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from collectors.base import Cost, TooMuch

HAND_OVER_S = 5.0  # to join, check and shorten what was read


def env(prefix: str) -> SettingsConfigDict:
    """How every source reads its settings: ``<PREFIX><NAME>`` from the environment and ``.env``."""
    return SettingsConfigDict(
        env_prefix=prefix, env_file=".env", env_ignore_empty=True, extra="ignore", hide_input_in_errors=True
    )


class SourceSettings(BaseSettings):
    """The budget that every source has for one collection. A source's own Settings add what it needs."""

    budget_s: float = Field(default=15.0, gt=0, le=300, description="Seconds a collection may take")
    max_calls: int = Field(default=300, ge=1, description="Requests a collection may make")
    max_bytes: int = Field(default=64_000_000, ge=1_000, description="Bytes a collection may receive")
    max_rows: int = Field(
        default=20_000, ge=100, description="Series, spans, changes, … kept; more log lines than that become counts"
    )

    @property
    def timeout_s(self) -> float:
        """When ContextCollector stops waiting: what was read within the budget is handed over well before."""
        return self.budget_s + HAND_OVER_S


class Budget:
    """What is left of one collection's budget. Raises TooMuch where something would go beyond it."""

    def __init__(self, source: str, settings: SourceSettings, within_s: float = float("inf")) -> None:
        """``within_s``: seconds the whole step still has."""
        self._settings, self._prefix = settings, str(settings.model_config.get("env_prefix", ""))
        self.source = source
        self._started = monotonic()
        self.seconds = max(min(settings.budget_s, within_s), 0.0)
        self.calls = self.received_bytes = self.rows = 0

    @property
    def max_rows(self) -> int:
        """How many rows may be kept in all."""
        return self._settings.max_rows

    @property
    def mend_seconds(self) -> str:
        """What to do where the seconds were too few."""
        ours = self._settings.budget_s <= self.seconds
        return f"raise {self._prefix}BUDGET_S, or narrow what is read" if ours else "raise AUTOPILOT_COLLECT_S"

    @property
    def mend_rows(self) -> str:
        """What to do where the rows were too few."""
        return self._mend("max_rows")

    @property
    def left_s(self) -> float:
        """Seconds until the collection ends."""
        return self._started + self.seconds - monotonic()

    @property
    def cost(self) -> Cost:
        """What was used up to now."""
        took_ms = round((monotonic() - self._started) * 1000, 1)
        return Cost(calls=self.calls, received_bytes=self.received_bytes, took_ms=took_ms)

    def call(self) -> None:
        """Account for one request, before it is made."""
        if self.calls >= self._settings.max_calls:
            raise self._too_much("max_calls", "requests")
        if self.received_bytes > self._settings.max_bytes:
            raise self._too_much("max_bytes", "bytes")
        self.calls += 1

    def receive(self, size: int) -> None:
        """Account for bytes that came, as they come and once unpacked."""
        self.received_bytes += size
        if self.received_bytes > self._settings.max_bytes:
            raise self._too_much("max_bytes", "bytes")

    def keep(self, rows: int = 1) -> None:
        """Account for rows that are kept, before they are."""
        if self.rows + rows > self._settings.max_rows:
            raise self._too_much("max_rows", "rows")
        self.rows += rows

    def _too_much(self, field: str, what: str) -> TooMuch:
        limit: Mapping[str, float] = self._settings.model_dump(include={field})
        return TooMuch(
            f"{self.source}: the budget of {limit[field]:,} {what} is used up",
            self._mend(field),
        )

    def _mend(self, field: str) -> str:
        return f"raise {self._prefix}{field.upper()}, or narrow what is read"
