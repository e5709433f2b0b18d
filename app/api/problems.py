"""RFC 9457 problem details: the one shape of every error."""

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from psycopg import DataError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from app.db import DATABASE_AWAY
from app.desk import Conflict, NotAllowed, NotFound, Unusable
from app.reception import Overloaded

log = logging.getLogger(__name__)


class Problem(BaseModel):
    """What went wrong and what to do about it."""

    type: str = "about:blank"
    title: str = Field(examples=["Conflict"])
    status: int = Field(examples=[409])
    detail: str = Field(examples=["Already decided: kim chose 1 at 2026-01-01 09:20:00 UTC."])
    reason: str = Field(default="", examples=["already_decided"], description="A word for programs, where there is one")
    errors: list[str] = Field(default_factory=list, description="One sentence per field, for 422")


def responses(*statuses: int, said: Mapping[int, str] | None = None) -> dict[int | str, dict[str, object]]:
    """The OpenAPI entries for these error statuses, each with an example; ``said`` where it is not the usual one."""
    examples = EXAMPLES | dict(said or {})
    return {
        status: {
            "description": f"{HTTPStatus(status).phrase}: {examples[status]}",
            "content": {
                "application/problem+json": {
                    "schema": Problem.model_json_schema(),
                    "example": _body(status, examples[status]).model_dump(),
                }
            },
        }
        for status in statuses
    }


EXAMPLES = {
    400: "There was an error parsing the body",
    401: "Send an API key as `Authorization: Bearer …`, or sign in.",
    403: "vera is viewer; to decide takes responder.",
    404: "There is no incident 'inc_0'.",
    408: "The body did not arrive within 10 s. Send it again.",
    409: "Already decided: kim chose 1 at 2026-01-01 09:20:00 UTC.",
    413: "The body is larger than 1000000 bytes.",
    422: "'nobody' is not in the service catalogue (cart, checkout)",
    503: "The database does not answer; nothing was accepted. Send it again.",
}


def _body(status: int, detail: str, errors: list[str] | None = None, reason: str = "") -> Problem:
    return Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, errors=errors or [], reason=reason)


def problem(
    status: int,
    detail: str,
    *,
    headers: dict[str, str] | None = None,
    errors: list[str] | None = None,
    reason: str = "",
) -> JSONResponse:
    """One problem answer."""
    body = _body(status, detail, errors, reason)
    return JSONResponse(body.model_dump(), status, headers, media_type="application/problem+json")


def install(app: FastAPI) -> None:
    """Turn every exception into a problem answer."""
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _validation)
    for kind, status in USE_CASE_ERRORS.items():
        app.add_exception_handler(kind, _saying(status))
    for kind in DATABASE_AWAY:
        app.add_exception_handler(kind, _database_away)
    app.add_exception_handler(Overloaded, _overloaded)
    app.add_exception_handler(DataError, _not_storable)
    app.add_exception_handler(Exception, _fault)


USE_CASE_ERRORS: Mapping[type[Exception], int] = {NotFound: 404, NotAllowed: 403, Conflict: 409, Unusable: 422}


def _saying(status: int) -> Callable[[Request, Exception], JSONResponse]:
    return lambda _, error: problem(status, str(error), reason=getattr(error, "reason", ""))


def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    said = str(error.detail)
    if said == HTTPStatus(error.status_code).phrase:  # the framework's: nothing is there
        said = f"{request.method} {request.url.path} is no call of this API; GET /docs lists them."
    return problem(error.status_code, said, headers=dict(error.headers) if error.headers else None)


def _validation(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    errors = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
    return problem(422, "The request does not fit; see errors.", errors=errors)


def _database_away(_: Request, error: Exception) -> JSONResponse:
    log.warning("the database is away: %s", error)
    said = "The database does not answer; nothing was accepted. Send it again."
    return problem(503, said, headers={"Retry-After": "5"})


def _overloaded(_: Request, error: Exception) -> JSONResponse:
    """503: the one answer that every sender tries again."""
    log.warning("overloaded: %s", error)
    return problem(503, f"{error}; nothing was accepted. Send it again.", headers={"Retry-After": "5"})


def _not_storable(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, DataError)
    return problem(422, f"The database cannot hold what was sent: {error.diag.message_primary or error}.")


def _fault(_: Request, error: Exception) -> JSONResponse:
    return problem(500, f"A fault of ours ({type(error).__name__}); it is in the log.")
