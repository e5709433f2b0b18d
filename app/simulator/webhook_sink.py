"""Somebody who takes our outgoing webhook: verifies its standard-webhooks signature, and keeps what came."""

from collections import deque
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

KEPT = 2000
SECRET = "whsec_c2hvcC13ZWJob29rLXNpbmstc2VjcmV0LTMyYg=="  # noqa: S105  of a shop that does not exist


@dataclass(frozen=True)
class Received:
    """One delivery. ``id`` is the sender's: two with the same are one message that came twice."""

    id: str
    verified: bool
    body: Any


class _SinkChange(BaseModel):
    secret: str


class WebhookSink:
    """Answers 204 to what is signed with the secret, 401 to all else."""

    def __init__(self) -> None:
        self._secret = SECRET
        self._received: deque[Received] = deque(maxlen=KEPT)

    def router(self) -> APIRouter:
        """All routes."""
        router = APIRouter()
        router.add_api_route("/_shop/webhook", self._take, methods=["POST"])
        router.add_api_route("/_shop/webhook", self._list, methods=["GET"])
        router.add_api_route("/_shop/webhook", self._change, methods=["PATCH"], status_code=204)
        return router

    async def _take(self, request: Request) -> Response:
        body = await request.body()
        try:
            content = Webhook(self._secret).verify(body, dict(request.headers))
        except WebhookVerificationError:
            self._received.append(Received(request.headers.get("webhook-id", ""), False, None))
            return Response(status_code=401)
        self._received.append(Received(request.headers["webhook-id"], True, content))
        return Response(status_code=204)

    async def _list(self) -> list[Received]:
        """Oldest first."""
        return list(self._received)

    async def _change(self, change: _SinkChange) -> None:
        self._secret = change.secret
