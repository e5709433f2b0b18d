"""Who calls: an API key as bearer token, or the console's session cookie."""

from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer

from app.security import Caller, authenticate
from app.wiring import Product

SESSION_COOKIE = "autopilot_session"

bearer = HTTPBearer(auto_error=False, description="An API key: `autopilot keys create`")
cookie = APIKeyCookie(name=SESSION_COOKIE, auto_error=False, description="The console's session")


async def product(request: Request) -> Product:
    """The product this process serves. A coroutine: a plain function would be run in a thread, each time."""
    found: Product = request.app.state.product
    return found


ProductDep = Annotated[Product, Depends(product)]


async def caller(
    product: ProductDep,
    key: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)] = None,
    session: Annotated[str | None, Depends(cookie)] = None,
) -> Caller:
    """The authenticated caller, or 401."""
    async with product.pool.connection() as connection:
        found = None
        if key:
            found = await authenticate(connection, key.credentials, "key")
        elif session:
            found = await authenticate(connection, session, "session")
    if found is None:
        raise HTTPException(
            401,
            "Send an API key as `Authorization: Bearer …` (make one with `autopilot keys create`),"
            " or sign in with a link from `autopilot sign-in`.",
            {"WWW-Authenticate": "Bearer"},
        )
    return found


CallerDep = Annotated[Caller, Depends(caller)]
