"""A circuit breaker around a server: one that is down is not asked again and again while an incident waits."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from circuitbreaker import STATE_HALF_OPEN, CircuitBreaker  # type: ignore[import-untyped]


class CircuitOpenError(Exception):
    """Nothing may be asked now; the text says since when and until when."""


class ServerFailure(Exception):
    """Mixed into what counts against the server: it could not be reached, was too slow, or failed itself."""


class Breaker:
    """Open after ``failures`` ServerFailures in a row, for ``seconds``; then one call probes whether it may close."""

    def __init__(self, failures: int, seconds: float) -> None:
        self._circuit = CircuitBreaker(failures, seconds, expected_exception=ServerFailure)
        self._seconds = seconds
        self._probing = False

    @contextmanager
    def call(self) -> Iterator[None]:
        """Around one call. Raises CircuitOpenError. A call that is cancelled says nothing about the server."""
        circuit = self._circuit
        if circuit.opened or self._probing:
            raise CircuitOpenError(self._why())
        probe = self._probing = circuit.state == STATE_HALF_OPEN
        try:
            yield
            circuit.reset()
        except Exception:
            with circuit:  # counts a ServerFailure; whatever else came, the server answered
                raise
        finally:
            if probe:
                self._probing = False

    def _why(self) -> str:
        if self._probing:
            return "one call is finding out whether its server works again"
        until = self._circuit.open_until
        since = until - timedelta(seconds=self._seconds)
        failures = self._circuit.failure_count
        return (
            f"its server failed {failures} times in a row, so nothing is asked"
            f" from {since:%H:%M:%S} until {until:%H:%M:%S} UTC"
        )
