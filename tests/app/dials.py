"""The official fake of the decision tests: dials that can be turned, each the resource of a service."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from executors.base import ExecutorError, Operation, Outcome, Probe, Refused, Resource, Risk, State


class Turn(BaseModel):
    """Which dial, and to what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    service: str
    to: int


@dataclass
class Dials:
    """Where they stand, what was called, and which of them nobody can read."""

    stand: dict[str, int] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    dark: set[str] = field(default_factory=set)
    reads: int = 0


class TurnDial(Operation[Turn]):
    """Turn a dial; it can be turned back."""

    name, summary = "turn_dial", "Turn a dial"
    risk: ClassVar[Risk] = "low"
    reversible = True
    params = Turn

    def __init__(self, dials: Dials, resources: Mapping[str, Resource]) -> None:
        self.dials, self.resources = dials, resources

    def resource(self, params: Turn) -> str:
        """``dial:shop``."""
        if params.service not in self.resources:
            raise Refused(f"{params.service} is not in the service catalogue")
        return f"dial:{params.service}"

    async def inspect(self, params: Turn) -> State:
        """Where it stands, and a number that moves by itself."""
        if params.service in self.dials.dark:
            raise ExecutorError("the lamp above it is out")
        self.dials.reads += 1
        return {"setting": self.dials.stand[params.service], "reads": self.dials.reads}

    def preview(self, params: Turn, before: State) -> str:
        """From where to where."""
        if params.to > 99:
            raise Refused("a dial ends at 99")
        return f"setting of {params.service}: {before['setting']} -> {params.to}"

    def pinned(self, params: Turn, before: State) -> State:
        """Where it stands."""
        return {"setting": before["setting"]}

    async def execute(self, params: Turn, before: State) -> Outcome:
        """Turn it."""
        self.dials.calls.append(f"{self.name} {params.service} {params.to}")
        self.dials.stand[params.service] = params.to
        return Outcome(request_ids=(f"request-{len(self.dials.calls)}",), detail="turned")

    async def settle(self, params: Turn, before: State) -> State:
        """It stands at once."""
        return await self.inspect(params)

    async def probe(self, params: Turn, before: State) -> Probe:
        """Whether it stands where it was to be turned to."""
        return "done" if self.dials.stand[params.service] == params.to else "not_done"

    async def undo(self, params: Turn, before: State) -> Outcome:
        """Turn it back."""
        setting = before["setting"]
        assert isinstance(setting, int)
        self.dials.calls.append(f"undo {params.service} {setting}")
        self.dials.stand[params.service] = setting
        return Outcome(detail="turned back")


class ForceDial(TurnDial):
    """Turn a dial that does not want to; the most dangerous of all."""

    name, summary = "force_dial", "Turn a dial by force"
    risk: ClassVar[Risk] = "high"
    reversible = False
