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

from app.simulator import (
    aws_account,
    aws_appconfig,
    aws_cloudtrail,
    aws_cloudwatch,
    aws_ecs,
    aws_elasticache,
    aws_elb,
    aws_query,
    aws_rds,
    aws_scaling,
    aws_unused,
)
from app.simulator.aws_errors import AwsError
from app.simulator.aws_sessions import Session, Sessions, check
from app.simulator.backdoor import BackDoor, Fail
from app.simulator.shop import Shop

Json = dict[str, object]
JsonOperation = Callable[[Json, float], Json]

# what CloudTrail calls the services whose operations change something
MUTATING: Mapping[str, str] = {
    **dict.fromkeys(aws_ecs.MUTATING, "ecs.amazonaws.com"),
    **dict.fromkeys(aws_elb.MUTATING, "elasticloadbalancing.amazonaws.com"),
    **dict.fromkeys(aws_rds.MUTATING, "rds.amazonaws.com"),
    **dict.fromkeys(aws_elasticache.MUTATING, "elasticache.amazonaws.com"),
    **dict.fromkeys(aws_scaling.MUTATING, "application-autoscaling.amazonaws.com"),
    **dict.fromkeys(aws_appconfig.MUTATING, "appconfig.amazonaws.com"),
}


@dataclass(frozen=True)
class _Forms:
    """A service that speaks the query protocol."""

    name: str
    namespace: str
    operations: Mapping[str, aws_query.Operation]

    @property
    def version(self) -> str:
        """Of the API, which every request names: it tells the service."""
        return self.namespace.strip("/").rpartition("/")[2]


@dataclass(frozen=True)
class _Call:
    """One request: ``run`` takes the time and gives the answer's body, or raises AwsError.

    ``service`` is its prefix in IAM.
    """

    service: str
    operation: str
    params: Json
    request_id: str
    run: Callable[[float], str]
    refuse: Callable[[AwsError, str], str]
    media_type: str
    done: int = 200  # HTTP status of an answer that is no refusal


class AwsApi:
    """All of AWS that the shop knows, at ``POST /`` and ``POST /aws``; X-Ray and AppConfig at the paths below them."""

    def __init__(self, shop: Shop, back_door: BackDoor) -> None:
        self._shop, self._back_door = shop, back_door
        self._ids = Random()  # noqa: S311 - request ids need to differ, not to be secret
        self._trail = aws_cloudtrail.CloudTrailApi(shop)
        self._app_config = aws_appconfig.AppConfigApi(shop)
        self._sessions = Sessions(self._ids)
        self._json: Mapping[str, tuple[str, Mapping[str, JsonOperation]]] = {
            aws_ecs.TARGET_PREFIX: ("ecs", aws_ecs.EcsApi(shop).operations),
            aws_cloudwatch.TARGET_PREFIX: ("cloudwatch", aws_cloudwatch.CloudWatchApi(shop).operations),
            aws_cloudtrail.TARGET_PREFIX: ("cloudtrail", self._trail.operations),
            aws_scaling.TARGET_PREFIX: ("application-autoscaling", aws_scaling.ScalingApi(shop).operations),
            aws_unused.LOGS_PREFIX: ("logs", aws_unused.LOGS),
            aws_unused.CODEDEPLOY_PREFIX: ("codedeploy", aws_unused.CODEDEPLOY),
        }
        services = (
            _Forms("elasticloadbalancing", aws_elb.NAMESPACE, aws_elb.ElbApi(shop).operations),
            _Forms("rds", aws_rds.NAMESPACE, aws_rds.RdsApi(shop).operations),
            _Forms("elasticache", aws_elasticache.NAMESPACE, aws_elasticache.ElastiCacheApi(shop).operations),
            _Forms("sts", aws_account.STS_NAMESPACE, aws_account.StsApi(self._sessions).operations),
            _Forms("iam", aws_account.IAM_NAMESPACE, aws_account.IamApi(self._knows).operations),
        )
        self._forms = {service.version: service for service in services}
        self._actions = {
            *(f"{service.name}:{operation}" for service in services for operation in service.operations),
            *(
                f"{name}:{operation}"
                for name, operations in self._json.values()
                if name not in ("logs", "codedeploy")  # where the shop has nothing
                for operation in operations
            ),
            *(f"xray:{operation}" for operation, _ in aws_unused.XRAY.values()),
            *(f"appconfig:{route.operation}" for route in self._app_config.routes),
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
        for path in (
            "/applications",
            "/aws/applications",
            "/applications/{rest:path}",
            "/aws/applications/{rest:path}",
        ):
            for method in ("GET", "POST", "DELETE"):
                router.add_api_route(path, self._answer, methods=[method])
        router.add_api_route("/_shop/sessions", self._assumed, methods=["GET"])
        return router

    def _assumed(self) -> list[Session]:
        """The sessions of roles that were assumed, oldest first."""
        return list(self._sessions.by_key.values())

    async def _answer(self, request: Request) -> Response:
        call = self._read(request, await request.body())
        hold = self._back_door.hold(call.operation, "")
        fail = self._back_door.failure(call.operation, "")
        if hold and hold.when == "before":
            await asyncio.sleep(hold.seconds)
            if await request.is_disconnected():
                return Response(status_code=499)
        status, body = self._carry_out(call, fail, request.headers.get("authorization", ""))
        if hold and hold.when == "after":
            await asyncio.sleep(hold.seconds)
        headers = {"x-amzn-RequestId": call.request_id}
        return Response(body, status, headers, media_type=call.media_type)

    def _read(self, request: Request, body: bytes) -> _Call:
        path, target = request.url.path.removeprefix("/aws"), request.headers.get("x-amz-target", "")
        if path.startswith("/applications"):
            return self._read_app_config(request.method, path.removeprefix("/applications"), request.headers, body)
        rest = aws_unused.XRAY.get(path)
        if rest is not None:
            return self._read_rest(*rest, body)
        return self._read_json(target, body) if target else self._read_form(body)

    def _read_app_config(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> _Call:
        found = self._app_config.find(method, path)
        named: Mapping[str, str] = found[1] if found else {}
        asked = aws_appconfig.Asked(named, headers, _parsed(body))
        operation = found[0].operation if found else ""

        def run(at: float) -> str:
            if found is None:
                raise _unknown(f"{method} /applications{path}")
            return json.dumps(found[0].run(asked, at))

        params = {**asked.body, **named}
        if "allow-revert" in headers:
            params["AllowRevert"] = headers["allow-revert"]
        done = {"StartDeployment": 201, "StopDeployment": 202}.get(operation, 200)
        return _Call("appconfig", operation, params, self._request_id(), run, _json_refusal, "application/json", done)

    def _read_rest(self, operation: str, function: JsonOperation, body: bytes) -> _Call:
        params = _parsed(body)

        def run(at: float) -> str:
            return json.dumps(function(params, at))

        return _Call("xray", operation, params, self._request_id(), run, _json_refusal, "application/json")

    def _read_json(self, target: str, body: bytes) -> _Call:
        prefix, _, operation = target.rpartition(".")
        params = _parsed(body)
        service, operations = self._json.get(f"{prefix}.", ("", {}))

        def run(at: float) -> str:
            function = operations.get(operation)
            if function is None:
                raise _unknown(operation)
            return json.dumps(function(params, at))

        version = "1.0" if f"{prefix}." == aws_cloudwatch.TARGET_PREFIX else "1.1"
        media_type = f"application/x-amz-json-{version}"
        return _Call(service, operation, params, self._request_id(), run, _json_refusal, media_type)

    def _read_form(self, body: bytes) -> _Call:
        form = dict(parse_qsl(body.decode(), keep_blank_values=True))
        operation, request_id = form.get("Action", ""), self._request_id()
        service = self._forms.get(form.get("Version", ""), _Forms("", "", {}))

        def run(at: float) -> str:
            function = service.operations.get(operation)
            if function is None:
                raise _unknown(operation)
            return aws_query.answer(operation, function(form, at), request_id, service.namespace)

        refuse = partial(aws_query.refusal, namespace=service.namespace)
        return _Call(service.name, operation, dict(form), request_id, run, refuse, "text/xml")

    def _carry_out(self, call: _Call, fail: Fail | None, authorization: str) -> tuple[int, str]:
        """HTTP status and body."""
        try:
            if fail is not None:
                raise AwsError(fail.code or _code(fail.status), "The service is in trouble.", fail.status)
            check(self._sessions.of(authorization), f"{call.service}:{call.operation}", call.params)
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
        return call.done, body

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
    code = "AccessDeniedException" if error.code == "AccessDenied" else error.code
    return json.dumps({"__type": code, "message": error.message})


def _code(status: int) -> str:
    return "ServerException" if status >= 500 else "ThrottlingException"


def _first(error: ValidationError) -> str:
    detail = error.errors(include_url=False)[0]
    return f"{'.'.join(str(part) for part in detail['loc'])}: {detail['msg']}"
