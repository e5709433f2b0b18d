"""What the collectors are made of: a source, read within its settings' budget."""

from collections.abc import Iterable, Sequence
from typing import ClassVar, Generic, Literal, TypeVar

from collectors._budget import Budget, SourceSettings
from collectors._http import Api
from collectors._jobs import Job, Part, gather
from collectors.base import LogsRead, Refused, Scope, Series, SeriesRef, Telemetry, TraceRead, Window

S = TypeVar("S", bound=SourceSettings)


class Source(Generic[S]):
    """One source with its own settings; with ``collect`` and ``check`` it is a ``collectors.base.Collector``."""

    name: ClassVar[str]

    def __init__(self, settings: S) -> None:
        self._settings = settings

    @property
    def timeout_s(self) -> float:
        """See collectors.base.Collector."""
        return self._settings.timeout_s

    async def measure(self, refs: Sequence[SeriesRef], window: Window) -> list[Series]:
        """Nothing: there are no metrics here."""
        return []

    @property
    def reads(self) -> frozenset[Literal["logs", "trace"]]:
        """Nothing: what it has, it gives whole."""
        return frozenset()

    async def read(self, question: LogsRead | TraceRead, scope: Scope) -> Telemetry:
        """Within the budget of a collection. Raises CollectorError; Refused for what is not in ``reads``."""
        if question.kind not in self.reads:
            raise Refused(f"{self.name} answers no questions about {question.kind}")
        return await self._gathered(scope, [self._answer(question, scope)], side_by_side=1)

    def _answer(self, question: LogsRead | TraceRead, scope: Scope) -> tuple[str, Job]:
        """The job that answers a question of a kind in ``reads``, and what it is about. Raises Refused."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Nothing is held open."""

    async def _gathered(self, scope: Scope, jobs: Iterable[tuple[str, Job]], *, side_by_side: int) -> Telemetry:
        """What the jobs read within the budget of one collection. Raises CollectorError if nothing was answered."""
        budget = Budget(self.name, self._settings, scope.within_s)
        return await gather(jobs, side_by_side=side_by_side, budget=budget, scope=scope)

    def _part(self, about: str) -> Part:
        """For what is read outside of a collection, with a budget of its own."""
        return Part(self.name, about, Budget(self.name, self._settings))


class HttpSource(Source[S]):
    """A source behind an HTTP API."""

    _api: Api

    async def aclose(self) -> None:
        """Close the connections."""
        await self._api.aclose()
