"""Alerts come in here: verify, keep, enqueue, answer. Nothing else happens in the request."""

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, Field

from app import incidents
from app.api.access import ProductDep
from app.api.problems import responses
from app.intake import datadog

router = APIRouter(prefix="/webhooks", tags=["webhooks"])

RECOMMENDED = {
    "schema": "aiops.datadog/1",
    "event_id": "8082436309665268856",
    "monitor_id": "141878267",
    "transition": "Triggered",
    "cycle_key": "7673797852050213000",
    "alert_type": "error",
    "priority": "P1",
    "title": "[Triggered on {service:payment-service}] payment-service: error rate above 5 %",
    "tags": "service:payment-service,env:production,monitor",
    "service": "payment-service",
    "date": "1734686100000",
    "last_updated": "1734686100000",
    "link": "https://app.datadoghq.com/monitors/141878267",
    "org": {"id": "1325540", "name": "Acme"},
}


class Accepted(BaseModel):
    """The delivery is in Postgres."""

    incident_id: str | None = Field(description="Null where a recovery or reminder has no open incident")
    created: bool = Field(description="Whether this delivery opened the incident")
    duplicate: bool = Field(default=False, description="The same delivery came before")
    dead_letter_id: str | None = Field(default=None, description="Kept raw: it could not be understood")
    detail: str = ""


@router.post(
    "/datadog",
    status_code=202,
    summary="Datadog monitor alert",
    description="Custom header `X-AIOps-Token`. Understands the recommended payload and Datadog's default one."
    " The answer leaves after the alert, the incident and its job are committed.",
    responses=responses(401, 413, 503),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "object"}, "example": RECOMMENDED}},
        },
        "parameters": [
            {
                "name": "X-AIOps-Token",
                "in": "header",
                "required": True,
                "schema": {"type": "string"},
                "description": "One of AUTOPILOT_DATADOG_WEBHOOK_TOKENS",
            }
        ],
    },
)
async def receive_datadog(request: Request, product: ProductDep) -> Accepted:
    """One delivery."""
    headers = dict(request.headers)
    if not datadog.verified(headers, product.settings.datadog_webhook_tokens):
        raise HTTPException(401, "X-AIOps-Token is missing or is none of AUTOPILOT_DATADOG_WEBHOOK_TOKENS.")
    body = await request.body()
    try:
        alert = datadog.parse(body, tuple(product.desk.catalogue.services))
    except datadog.UnreadablePayload as error:
        kept = await incidents.keep_dead_letter(product.desk, datadog.SENDER, headers, body, str(error))
        return Accepted(incident_id=None, created=False, dead_letter_id=kept, detail=str(error))
    opened = await incidents.open_from_delivery(
        product.desk, datadog.SENDER, headers, body, alert, datadog.delivery_key(body)
    )
    return Accepted(incident_id=opened.incident_id, created=opened.created, duplicate=opened.duplicate)
