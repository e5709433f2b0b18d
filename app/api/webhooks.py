"""Alerts come in here: verify, keep, enqueue, answer. Nothing else happens in the request."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.background import BackgroundTask

from app.alerts import Delivery, Outcome
from app.api.problems import responses
from app.decisions import refuse_stranger
from app.intake import datadog
from app.intake.base import Incoming, IntakeUnavailable, NotAllowed, Parsed, Unauthentic, UnreadablePayload
from app.intake.slack import form_asked
from app.wiring import Product


class WebhookRoute(APIRoute):
    """Calls its function with the request and nothing else: what FastAPI does for parameters and answers would take
    longer than the rest of the way to Postgres.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The function itself."""
        endpoint: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return endpoint


router = APIRouter(prefix="/webhooks", tags=["webhooks"], route_class=WebhookRoute)

BODY_WITHIN_S = 10.0
CHALLENGE = {"WWW-Authenticate": 'Bearer, Basic realm="AIOps Auto Pilot"'}  # some clients send no password before it
REFUSALS = responses(
    401,
    403,
    408,
    413,
    503,
    said={
        401: "Send one of AUTOPILOT_DATADOG_WEBHOOK_TOKENS in X-AIOps-Token, as bearer token or as Basic password.",
        403: "arn:aws:sns:us-east-1:123456789012:other is not in AUTOPILOT_CLOUDWATCH_TOPIC_ARNS.",
    },
)


class PlacedAlert(BaseModel):
    """Where an alert of the delivery went."""

    alert_id: str
    incident_id: str | None = Field(description="Null where a recovery or reminder has no incident")
    became: str = Field(description="opened, joined, reopened, noted, out_of_order or unplaced", examples=["joined"])
    why: str = Field(default="", examples=["checkout calls payment-service, 40 s apart"])
    score: float | None = Field(default=None, description="How well it fits the incident it joined, 0 to 1")


class Accepted(BaseModel):
    """The delivery is in Postgres."""

    incident_id: str | None = Field(description="Of its first alert; null where nothing was opened or found")
    created: bool = Field(description="Whether this delivery opened an incident")
    duplicate: bool = Field(default=False, description="The same delivery came before")
    dead_letter_id: str | None = Field(default=None, description="Kept raw: it could not be understood")
    detail: str = ""
    alerts: list[PlacedAlert] = Field(default_factory=list)


def _body(media_type: str, example: Any) -> dict[str, Any]:
    schema = {"type": "object"} if media_type != "text/plain" else {"type": "string"}
    return {"requestBody": {"required": True, "content": {media_type: {"schema": schema, "example": example}}}}


def _header(name: str, description: str, *, required: bool = True) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": required,
        "schema": {"type": "string"},
        "description": description,
    }


@router.post(
    "/datadog",
    status_code=202,
    response_model=Accepted,
    summary="Datadog monitor alert",
    responses=REFUSALS,
    openapi_extra=_body("application/json", dict(datadog.EXAMPLE))
    | {"parameters": [_header("X-AIOps-Token", "One of AUTOPILOT_DATADOG_WEBHOOK_TOKENS, or it as Basic password")]},
)
async def receive_datadog(request: Request) -> Response:
    """Understands the recommended payload and Datadog's default one. The answer leaves after the alert, the incident
    and its job are committed.
    """
    return await _receive(request, "datadog")


@router.post(
    "/cloudwatch",
    status_code=202,
    response_model=Accepted,
    summary="CloudWatch alarm through SNS",
    responses=REFUSALS,
    openapi_extra=_body("text/plain", '{"Type": "Notification", "MessageId": "…", "TopicArn": "arn:aws:sns:…"}')
    | {"parameters": [_header("x-amz-sns-message-type", "Set by SNS", required=False)]},
)
async def receive_cloudwatch(request: Request) -> Response:
    """SNS over HTTPS, signed, from the topics of AUTOPILOT_CLOUDWATCH_TOPIC_ARNS; raw delivery must be off. A
    subscription to us is confirmed through the API of SNS.
    """
    return await _receive(request, "cloudwatch")


@router.post(
    "/eventbridge",
    status_code=202,
    response_model=Accepted,
    summary="CloudWatch alarm or AWS change through EventBridge",
    responses=REFUSALS,
    openapi_extra=_body("application/json", {"detail-type": "CloudWatch Alarm State Change", "detail": {}})
    | {"parameters": [_header("X-API-Key", "One of AUTOPILOT_EVENTBRIDGE_API_KEYS")]},
)
async def receive_eventbridge(request: Request) -> Response:
    """An API destination with an API key. Alarms are merged with those that come through SNS; deployments and Health
    events become context of the next investigation.
    """
    return await _receive(request, "eventbridge")


@router.post(
    "/alertmanager",
    status_code=202,
    response_model=Accepted,
    summary="Prometheus Alertmanager",
    responses=REFUSALS,
    openapi_extra=_body("application/json", {"version": "4", "groupKey": "{}", "status": "firing", "alerts": []})
    | {"parameters": [_header("Authorization", "Bearer or Basic, with one of AUTOPILOT_ALERTMANAGER_TOKENS")]},
)
async def receive_alertmanager(request: Request) -> Response:
    """A group of alerts; each goes its own way."""
    return await _receive(request, "alertmanager")


@router.post(
    "/grafana",
    status_code=202,
    response_model=Accepted,
    summary="Grafana Alerting",
    responses=REFUSALS,
    openapi_extra=_body("application/json", {"version": "1", "orgId": 1, "status": "firing", "alerts": []})
    | {"parameters": [_header("X-Grafana-Alerting-Signature", "HMAC-SHA256 of the body", required=False)]},
)
async def receive_grafana(request: Request) -> Response:
    """Signed with one of AUTOPILOT_GRAFANA_HMAC_SECRETS, or with one of AUTOPILOT_GRAFANA_TOKENS."""
    return await _receive(request, "grafana")


@router.post(
    "/generic/{name}",
    status_code=202,
    response_model=Accepted,
    summary="Any tool's JSON",
    responses=REFUSALS,
    openapi_extra=_body("application/json", {"what": "disk full", "where": "db-1"})
    | {
        "parameters": [
            {
                "name": "name",
                "in": "path",
                "required": True,
                "schema": {"type": "string"},
                "description": "A mapping of `webhooks:` in autopilot.yaml",
            },
            _header("X-AIOps-Token", "One of AUTOPILOT_GENERIC_TOKENS"),
        ]
    },
)
async def receive_generic(request: Request) -> Response:
    """Read with the JMESPath expressions that autopilot.yaml has for this name."""
    return await _receive(request, "generic", request.path_params["name"])


SLACK_HEADERS = {
    "parameters": [
        _header("X-Slack-Signature", "v0=…, with one of AUTOPILOT_SLACK_SIGNING_SECRETS"),
        _header("X-Slack-Request-Timestamp", "Epoch seconds, at most five minutes off"),
    ]
}


@router.post(
    "/slack/events",
    response_model=dict[str, Any],
    summary="Slack: messages of Datadog's and AWS's apps, mentions",
    responses=REFUSALS,
    openapi_extra=_body("application/json", {"type": "url_verification", "challenge": "abc"}) | SLACK_HEADERS,
)
async def receive_slack_event(request: Request) -> Response:
    """What stands in a message is a hint: the monitor or alarm is read again at its source."""
    return await _receive(request, "slack", "events", status=200)


@router.post(
    "/slack/commands",
    response_model=dict[str, Any],
    summary="Slack: /rca payment-service 09:15",
    responses=REFUSALS,
    openapi_extra=_body("application/x-www-form-urlencoded", {"command": "/rca", "text": "payment-service 09:15"})
    | SLACK_HEADERS,
)
async def receive_slack_command(request: Request) -> Response:
    """Starts an investigation, for those in AUTOPILOT_SLACK_RESPONDERS."""
    delivery, outcome = await _take(request, "slack", "commands")
    if delivery.parsed and delivery.parsed.answer:
        return JSONResponse(dict(delivery.parsed.answer))
    return JSONResponse({"response_type": "ephemeral", "text": _said(request.app.state.product, delivery, outcome)})


@router.post(
    "/slack/actions",
    response_class=Response,
    summary="Slack: a button was pressed",
    responses={200: {"description": "Stored"}, **REFUSALS},
    openapi_extra=_body("application/x-www-form-urlencoded", {"payload": '{"type": "block_actions"}'}) | SLACK_HEADERS,
)
async def receive_slack_action(request: Request) -> Response:
    """Verified and stored, and decided by a job of the same transaction: as the operator of autopilot.yaml who has this
    Slack id, by the checks of every other door. Who clicked is answered at the `response_url`: nobody else reads it.
    The same click again is nothing new. Where the button asks for a hint, its form is opened once this is answered.
    """
    try:
        delivery, outcome = await _take(request, "slack", "actions")
    except HTTPException as error:
        if error.status_code == 401:  # whatever incident it names: that is a stranger's word
            await refuse_stranger(request.app.state.product.desk, "", "slack")
        raise
    if (asked := form_asked(delivery.body)) and not outcome.duplicate:
        from app.slack_forms import open_form  # here: only this needs a client of Slack's

        return Response(background=BackgroundTask(open_form, request.app.state.product, asked))
    return Response()


def _said(product: Product, delivery: Delivery, outcome: Outcome) -> str:
    if outcome.incident_id is None:
        return delivery.error or "It is stored; no incident was opened."
    link = product.settings.incident_url(outcome.incident_id)
    return f"Investigating / 조사를 시작합니다: <{link}|{outcome.incident_id}>"


# --- what all of them do ---


async def _receive(request: Request, sender: str, part: str = "", status: int = 202) -> Response:
    delivery, outcome = await _take(request, sender, part)
    if delivery.parsed and delivery.parsed.answer is not None:
        return JSONResponse(dict(delivery.parsed.answer))
    return JSONResponse(_accepted(delivery, outcome), status)


async def _take(request: Request, name: str, part: str = "") -> tuple[Delivery, Outcome]:
    """Verify, keep, place."""
    product: Product = request.app.state.product
    sender = product.senders[name]
    headers = dict(request.headers)
    incoming = Incoming(headers, await _read(request), part)
    try:
        await sender.verify(incoming)
    except Unauthentic as error:
        raise HTTPException(401, str(error), CHALLENGE) from None
    except NotAllowed as error:
        raise HTTPException(403, str(error)) from None
    except IntakeUnavailable as error:
        raise HTTPException(503, str(error), {"Retry-After": "5"}) from None
    parsed: Parsed | None = None
    try:
        parsed = sender.parse(incoming, product.directory)
        why = parsed.left_out
    except UnreadablePayload as error:
        why = str(error)
    delivery = Delivery(name, headers, incoming.body, parsed, part, why)
    if parsed and parsed.private:
        return delivery, Outcome(delivery.id)
    return delivery, await product.reception.accept(delivery)


async def _read(request: Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            return await request.body()
    except TimeoutError:
        raise HTTPException(408, f"The body did not arrive within {BODY_WITHIN_S:g} s. Send it again.") from None


def _accepted(delivery: Delivery, outcome: Outcome) -> Mapping[str, Any]:
    """An ``Accepted``, made without pydantic: this is the path that must be fast."""
    return {
        "incident_id": outcome.incident_id,
        "created": outcome.created,
        "duplicate": outcome.duplicate,
        "dead_letter_id": str(outcome.delivery_id) if delivery.error else None,
        "detail": delivery.error or (delivery.parsed.note if delivery.parsed else ""),
        "alerts": [
            {
                "alert_id": str(p.alert_id),
                "incident_id": p.incident_id,
                "became": p.became,
                "why": p.why,
                "score": p.score,
            }
            for p in outcome.alerts
        ],
    }
