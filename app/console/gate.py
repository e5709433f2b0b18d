"""Who may open the console: the session cookie that a sign-in link set."""

import time

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from psycopg import OperationalError

from app.api.access import SESSION_COOKIE
from app.console.markup import text
from app.security import Caller, authenticate
from app.wiring import Product

REMEMBERED_S = 900.0
MOST_REMEMBERED = 10_000
SIGN_IN = "Run `autopilot sign-in` on the machine that serves this page and open the link it prints."
DATABASE_AWAY = "The database does not answer. Nothing is lost; this page tries again by itself."


class SignInNeeded(Exception):
    """The request carries no valid session."""


async def signed_in(product: Product, request: Request) -> Caller | None:
    """The person behind the session cookie. Raises psycopg.OperationalError."""
    token = request.cookies.get(SESSION_COOKIE)
    if not token:
        return None
    async with product.pool.connection() as connection:
        return await authenticate(connection, token, "session")


class Gate:
    """Lets only sessions in. While the database is away, those it saw a short while ago keep their page.

    That page can show and do nothing without the database: every action authenticates its caller again.
    """

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.seen: dict[str, float] = {}

    async def __call__(self, request: Request) -> str:
        """The name of the caller. Raises SignInNeeded, psycopg.OperationalError."""
        token = request.cookies.get(SESSION_COOKIE, "")
        try:
            caller = await signed_in(self.app.state.product, request)
        except OperationalError:
            if time.monotonic() - self.seen.get(token, float("-inf")) < REMEMBERED_S:
                return "remembered"
            raise
        if caller is None:
            self.seen.pop(token, None)
            raise SignInNeeded
        self._remember(token)
        return caller.name

    def _remember(self, token: str) -> None:
        if len(self.seen) >= MOST_REMEMBERED:
            self.seen.clear()
        self.seen[token] = time.monotonic()


def answer_for_people(console: FastAPI) -> None:
    """Pages instead of bare errors where a browser asks."""

    @console.exception_handler(SignInNeeded)
    async def _sign_in(request: Request, _: SignInNeeded) -> Response:
        return _answer(request, 401, "Sign in", SIGN_IN)

    @console.exception_handler(OperationalError)
    async def _away(request: Request, _: OperationalError) -> Response:
        return _answer(request, 503, "The database is away", DATABASE_AWAY, retry_s=5)


def _answer(request: Request, status: int, title: str, words: str, retry_s: int = 0) -> Response:
    headers = {"Cache-Control": "no-store"} | ({"Retry-After": str(retry_s)} if retry_s else {})
    if "text/html" not in request.headers.get("accept", ""):
        return JSONResponse({"detail": words}, status, headers)
    retry = f'<meta http-equiv="refresh" content="{retry_s}">' if retry_s else ""
    return HTMLResponse(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{retry}'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
        f"<title>{text(title)} - AIOps Auto Pilot</title></head>"
        '<body style="font:16px/1.5 system-ui;max-width:40rem;margin:15vh auto;padding:0 1rem">'
        f"<h1>{text(title)}</h1><p>{text(words)}</p></body></html>",
        status,
        headers,
    )
