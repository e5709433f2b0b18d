"""One AWS endpoint for several services, told apart as AWS's own SDK marks its requests."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from app.simulator import aws_cloudwatch, aws_ecs, aws_elb
from app.simulator.aws_errors import AwsError
from app.simulator.backdoor import BackDoor, Fail
from app.simulator.shop import Shop

Json = dict[str, object]
JsonOperation = Callable[[Json, float], Json]

MUTATING = aws_ecs.MUTATING | aws_elb.MUTATING


@dataclass(frozen=True)
class _Call:
    """One request: ``run`` takes the time and gives the answer's body, or raises AwsError."""

    operation: str
    params: Json
    request_id: str
    run: Callable[[float], str]
    refuse: Callable[[AwsError, str], str]
    media_type: str


class AwsApi:
    """ECS, CloudWatch and ELBv2 at ``POST /`` and ``POST /aws``."""

    def __init__(self, shop: Shop, back_door: BackDoor) -> None:
        self._shop, self._back_door = shop, back_door
        self._ids = Random()  # noqa: S311 - request ids need to differ, not to be secret
        self._elb = aws_elb.ElbApi(shop)
        self._json: Mapping[str, Mapping[str, JsonOperation]] = {
            aws_ecs.TARGET_PREFIX: aws_ecs.EcsApi(shop).operations,
            aws_cloudwatch.TARGET_PREFIX: aws_cloudwatch.CloudWatchApi(shop).operations,
        }

    def router(self) -> APIRouter:
        """The HTTP side."""
        router = APIRouter()
        for path in ("/", "/aws", "/aws/"):
            router.add_api_route(path, self._answer, methods=["POST"])
        return router

    async def _answer(self, request: Request) -> Response:
        call = self._read(request.headers.get("x-amz-target", ""), await request.body())
        hold = self._back_door.hold(call.operation, "")
        fail = self._back_door.failure(call.operation, "")
        if hold and hold.when == "before":
            await asyncio.sleep(hold.seconds)
            if await request.is_disconnected():
                return Response(status_code=499)
        status, body = self._carry_out(call, fail)
        if hold and hold.when == "after":
            await asyncio.sleep(hold.seconds)
        headers = {"x-amzn-RequestId": call.request_id}
        return Response(body, status, headers, media_type=call.media_type)

    def _read(self, target: str, body: bytes) -> _Call:
        return self._read_json(target, body) if target else self._read_form(body)

    def _read_json(self, target: str, body: bytes) -> _Call:
        prefix, _, operation = target.rpartition(".")
        params = _parsed(body)

        def run(at: float) -> str:
            function = self._json.get(f"{prefix}.", {}).get(operation)
            if function is None:
                raise _unknown(operation)
            return json.dumps(function(params, at))

        version = "1.0" if f"{prefix}." == aws_cloudwatch.TARGET_PREFIX else "1.1"
        media_type = f"application/x-amz-json-{version}"
        return _Call(operation, params, self._request_id(), run, _json_refusal, media_type)

    def _read_form(self, body: bytes) -> _Call:
        form = dict(parse_qsl(body.decode(), keep_blank_values=True))
        operation, request_id = form.get("Action", ""), self._request_id()

        def run(at: float) -> str:
            function = self._elb.operations.get(operation)
            if function is None:
                raise _unknown(operation)
            return aws_elb.answer(operation, function(form, at), request_id)

        return _Call(operation, dict(form), request_id, run, aws_elb.refusal, "text/xml")

    def _carry_out(self, call: _Call, fail: Fail | None) -> tuple[int, str]:
        """HTTP status and body."""
        try:
            if fail is not None:
                raise AwsError(fail.code or _code(fail.status), "The service is in trouble.", fail.status)
            with self._shop.live() as now:
                body = call.run(now)
        except ValidationError as error:
            return 400, call.refuse(AwsError("InvalidParameterException", _first(error)), call.request_id)
        except AwsError as error:
            return error.status, call.refuse(error, call.request_id)
        if call.operation in MUTATING:
            self._back_door.record(call.operation, call.params, call.request_id)
        return 200, body

    def _request_id(self) -> str:
        digits = f"{self._ids.getrandbits(128):032x}"
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _parsed(body: bytes) -> Json:
    """The request's parameters; none if it is no JSON object, which no operation accepts."""
    try:
        params = json.loads(body or b"{}")
    except ValueError:
        return {}
    return params if isinstance(params, dict) else {}


def _unknown(operation: str) -> AwsError:
    return AwsError("UnknownOperationException", f"This shop does not know {operation or 'such an operation'}.")


def _json_refusal(error: AwsError, _request_id: str) -> str:
    return json.dumps({"__type": error.code, "message": error.message})


def _code(status: int) -> str:
    return "ServerException" if status >= 500 else "ThrottlingException"


def _first(error: ValidationError) -> str:
    detail = error.errors(include_url=False)[0]
    return f"{'.'.join(str(part) for part in detail['loc'])}: {detail['msg']}"
