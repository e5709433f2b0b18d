"""RFC 9457 problem details: the one shape of every error."""

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from psycopg import OperationalError
from psycopg_pool import PoolTimeout
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from app.incidents import Conflict, NotAllowed, NotFound, Unusable

log = logging.getLogger(__name__)


class Problem(BaseModel):
    """What went wrong and what to do about it."""

    type: str = "about:blank"
    title: str = Field(examples=["Conflict"])
    status: int = Field(examples=[409])
    detail: str = Field(examples=["Already decided: kim chose 1 at 2026-01-01 09:20:00 UTC."])
    errors: list[str] = Field(default_factory=list, description="One sentence per field, for 422")


def responses(*statuses: int) -> dict[int | str, dict[str, object]]:
    """The OpenAPI entries for these error statuses."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "model": Problem,
            "content": {"application/problem+json": {}},
        }
        for status in statuses
    }


def problem(
    status: int, detail: str, *, headers: dict[str, str] | None = None, errors: list[str] | None = None
) -> JSONResponse:
    """One problem answer."""
    body = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, errors=errors or [])
    return JSONResponse(body.model_dump(), status, headers, media_type="application/problem+json")


def install(app: FastAPI) -> None:
    """Turn every exception into a problem answer."""

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers) if error.headers else None
        return problem(error.status_code, str(error.detail), headers=headers)

    @app.exception_handler(RequestValidationError)
    async def _validation(_: Request, error: RequestValidationError) -> JSONResponse:
        errors = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        return problem(422, "The request does not fit; see errors.", errors=errors)

    @app.exception_handler(NotFound)
    async def _not_found(_: Request, error: NotFound) -> JSONResponse:
        return problem(404, f"There is no incident {error}.")

    @app.exception_handler(NotAllowed)
    async def _not_allowed(_: Request, error: NotAllowed) -> JSONResponse:
        return problem(403, str(error))

    @app.exception_handler(Conflict)
    async def _conflict(_: Request, error: Conflict) -> JSONResponse:
        return problem(409, str(error))

    @app.exception_handler(Unusable)
    async def _unusable(_: Request, error: Unusable) -> JSONResponse:
        return problem(422, str(error))

    async def _database_away(_: Request, error: Exception) -> JSONResponse:
        log.warning("the database is away: %s", error)
        return problem(
            503, "The database does not answer; nothing was accepted. Send it again.", headers={"Retry-After": "5"}
        )

    app.add_exception_handler(OperationalError, _database_away)
    app.add_exception_handler(PoolTimeout, _database_away)
