"""Who asks for what, what their tab shows, and how a refusal is told to them."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from psycopg import OperationalError
from pydantic import ValidationError

from app.console.gate import signed_in
from app.console.markup import notice, refusal
from app.console.texts import TEXTS, language
from app.desk import UseCaseError
from app.report_texts import Texts
from app.security import Caller
from app.wiring import Product
from graph.state import Language

Updates = dict[Any, Any]
"""Gradio component -> its new value or properties."""


@dataclass(frozen=True)
class Visit:
    """Who asks, for what, in which language."""

    product: Product
    caller: Caller | None
    incident_id: str | None
    before: str | None
    view: str | None
    lang: Language

    @property
    def t(self) -> Texts:
        """The labels."""
        return TEXTS[self.lang]


@dataclass(frozen=True)
class Shown:
    """What this browser tab shows now: so that only what changed is sent."""

    version: str = ""
    last_event: int = 0
    blocks: Mapping[str, int] = field(default_factory=dict)
    plan_revision: str | None = None
    steps: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of the choices that may be approved in part
    form: int = 0  # what may be chosen; where it is another, the form starts anew
    away: bool = False  # it says that the database does not answer


class Visits:
    """Looks up the product and the caller anew for every event."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app

    def asked(self, request: Request, caller: Caller | None = None) -> Visit:
        """What the address asks for; the caller is not looked up."""
        asked = request.query_params
        product: Product = self.app.state.product
        spoken = language(asked.get("lang"), product.settings.language)
        return Visit(product, caller, asked.get("incident"), asked.get("before"), asked.get("view"), spoken)

    async def visit(self, request: Request) -> Visit:
        """The same with its caller. Raises psycopg.OperationalError."""
        return self.asked(request, await signed_in(self.app.state.product, request))

    async def act(self, request: Request, act: Callable[[Visit, Caller], Awaitable[Updates]], where: Any) -> Updates:
        """Do it for the signed-in caller; whatever stands in the way is said ``where`` they look."""
        visit = self.asked(request)
        try:
            visit = await self.visit(request)
            if visit.caller is None:
                return {where: notice(visit.t["signed_out"], "bad")}
            return await self.do(visit, visit.caller, act, where)
        except OperationalError:
            return {where: notice(visit.t["database_away"], "bad")}

    async def do(
        self, visit: Visit, caller: Caller, act: Callable[[Visit, Caller], Awaitable[Updates]], where: Any
    ) -> Updates:
        """The same for a caller who is known. Raises psycopg.OperationalError."""
        try:
            return await act(visit, caller)
        except UseCaseError as error:
            return {where: refusal(error.reason, visit.t[f"refused_{error.reason}"], str(error))}
        except HTTPException as error:
            return {where: notice(error.detail, "bad")}
        except ValidationError as error:
            return {where: notice(error.errors()[0]["msg"], "bad")}
