"""One AWS endpoint for several services, told apart as AWS's own SDK marks its requests."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from random import Random
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from app.simulator import aws_account, aws_cloudtrail, aws_cloudwatch, aws_ecs, aws_elb, aws_query, aws_unused
from app.simulator.aws_errors import AwsError
from app.simulator.backdoor import BackDoor, Fail
from app.simulator.shop import Shop

Json = dict[str, object]
JsonOperation = Callable[[Json, float], Json]

# what CloudTrail calls the services whose operations change something
MUTATING: Mapping[str, str] = {
    **dict.fromkeys(aws_ecs.MUTATING, "ecs.amazonaws.com"),
    **dict.fromkeys(aws_elb.MUTATING, "elasticloadbalancing.amazonaws.com"),
}


@dataclass(frozen=True)
class _Forms:
    """A service that speaks the query protocol."""

    namespace: str
    operations: Mapping[str, aws_query.Operation]

    @property
    def version(self) -> str:
        """Of the API, which every request names: it tells the service."""
        return self.namespace.strip("/").rpartition("/")[2]


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
    """All of AWS that the shop knows, at ``POST /`` and ``POST /aws``; X-Ray at the paths below them."""

    def __init__(self, shop: Shop, back_door: BackDoor) -> None:
        self._shop, self._back_door = shop, back_door
        self._ids = Random()  # noqa: S311 - request ids need to differ, not to be secret
        self._trail = aws_cloudtrail.CloudTrailApi(shop)
        self._json: Mapping[str, Mapping[str, JsonOperation]] = {
            aws_ecs.TARGET_PREFIX: aws_ecs.EcsApi(shop).operations,
            aws_cloudwatch.TARGET_PREFIX: aws_cloudwatch.CloudWatchApi(shop).operations,
            aws_cloudtrail.TARGET_PREFIX: self._trail.operations,
            aws_unused.LOGS_PREFIX: aws_unused.LOGS,
            aws_unused.CODEDEPLOY_PREFIX: aws_unused.CODEDEPLOY,
        }
        services = {
            "elasticloadbalancing": _Forms(aws_elb.NAMESPACE, aws_elb.ElbApi(shop).operations),
            "rds": _Forms(aws_unused.RDS_NAMESPACE, aws_unused.RDS),
            "sts": _Forms(aws_account.STS_NAMESPACE, aws_account.StsApi().operations),
            "iam": _Forms(aws_account.IAM_NAMESPACE, aws_account.IamApi(self._knows).operations),
        }
        self._forms = {service.version: service for service in services.values()}
        self._actions = {
            *(f"{name}:{operation}" for name, service in services.items() for operation in service.operations),
            *(f"ecs:{operation}" for operation in self._json[aws_ecs.TARGET_PREFIX]),
            *(f"cloudwatch:{operation}" for operation in self._json[aws_cloudwatch.TARGET_PREFIX]),
            *(f"cloudtrail:{operation}" for operation in self._trail.operations),
            *(f"xray:{operation}" for operation, _ in aws_unused.XRAY.values()),
        }

    def _knows(self, action: str) -> bool:
        return action in self._actions

    def router(self) -> APIRouter:
        """The HTTP side."""
        router = APIRouter()
        for path in ("/", "/aws", "/aws/"):
            router.add_api_route(path, self._answer, methods=["POST"])
        for path in aws_unused.XRAY:
            for prefix in ("", "/aws"):
                router.add_api_route(f"{prefix}{path}", self._answer, methods=["POST"])
        return router

    async def _answer(self, request: Request) -> Response:
        call = self._read(request.url.path, request.headers.get("x-amz-target", ""), await request.body())
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

    def _read(self, path: str, target: str, body: bytes) -> _Call:
        rest = aws_unused.XRAY.get(path.removeprefix("/aws"))
        if rest is not None:
            return self._read_rest(*rest, body)
        return self._read_json(target, body) if target else self._read_form(body)

    def _read_rest(self, operation: str, function: JsonOperation, body: bytes) -> _Call:
        params = _parsed(body)

        def run(at: float) -> str:
            return json.dumps(function(params, at))

        return _Call(operation, params, self._request_id(), run, _json_refusal, "application/json")

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
        service = self._forms.get(form.get("Version", ""), _Forms("", {}))

        def run(at: float) -> str:
            function = service.operations.get(operation)
            if function is None:
                raise _unknown(operation)
            return aws_query.answer(operation, function(form, at), request_id, service.namespace)

        refuse = partial(aws_query.refusal, namespace=service.namespace)
        return _Call(operation, dict(form), request_id, run, refuse, "text/xml")

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
            if fail is None:
                self._tell_trail(call, error.code)
            return error.status, call.refuse(error, call.request_id)
        if call.operation in MUTATING:
            self._back_door.record(call.operation, call.params, call.request_id)
        self._tell_trail(call)
        return 200, body

    def _tell_trail(self, call: _Call, error: str = "") -> None:
        source = MUTATING.get(call.operation)
        if source is not None:
            params = aws_elb.as_json(call.params) if call.operation in aws_elb.MUTATING else call.params
            self._trail.record(source, call.operation, params, error)

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
