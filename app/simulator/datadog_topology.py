"""Who calls whom in the shop, as Datadog's service dependencies and its software catalogue tell."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from app.simulator.topology import ENVIRONMENT, SERVICES

Json = dict[str, object]

RELATIONS = "/api/v2/catalog/relation"
_DECLARED = "2024-03-04T10:12:31.000Z"
Relation = Literal["RelationTypeDependsOn", "RelationTypeDependencyOf"]


def router() -> APIRouter:
    """Both routes, without ``/api``."""
    routes = APIRouter()
    routes.add_api_route("/v1/service_dependencies", _dependencies, methods=["GET"])
    routes.add_api_route("/v2/catalog/relation", _relations, methods=["GET"])
    return routes


def _dependencies(env: str) -> Json:
    if env not in (ENVIRONMENT, "*"):
        return {}
    return {name: {"calls": list(spec.calls)} for name, spec in SERVICES.items()}


def _relations(
    relation: Annotated[Relation | None, Query(alias="filter[type]")] = None,
    since: Annotated[str, Query(alias="filter[from_ref]")] = "",
    to: Annotated[str, Query(alias="filter[to_ref]")] = "",
    limit: Annotated[int, Query(alias="page[limit]", ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(alias="page[offset]", ge=0)] = 0,
) -> Json:
    """Every relation is there in both directions, as Datadog has it."""
    found = [
        row
        for name, spec in SERVICES.items()
        for callee in spec.calls
        for row in (
            _relation("RelationTypeDependsOn", name, callee),
            _relation("RelationTypeDependencyOf", callee, name),
        )
        if _wanted(row, relation, since, to)
    ]
    return {
        "data": found[offset : offset + limit],
        "meta": {"count": len(found), "includeCount": 0},
        "links": {"self": f"{RELATIONS}?page[limit]={limit}&page[offset]={offset}"},
    }


def _wanted(row: Json, relation: Relation | None, since: str, to: str) -> bool:
    attributes = row["attributes"]
    assert isinstance(attributes, dict)
    ends = (f"service:{attributes['from']['name']}", f"service:{attributes['to']['name']}")
    return relation in (None, attributes["type"]) and since in ("", ends[0]) and to in ("", ends[1])


def _relation(relation: Relation, since: str, to: str) -> Json:
    return {
        "id": f"{relation}:service:default/{since}:service:default/{to}",
        "type": "relation",
        "subtype": relation,
        "attributes": {"from": _entity(since), "to": _entity(to), "type": relation},
        "relationships": {"fromEntity": _end(since), "toEntity": _end(to)},
        "meta": {
            "createdAt": _DECLARED,
            "modifiedAt": _DECLARED,
            "definedBy": f"service:default/{since}",
            "source": "api",
        },
    }


def _entity(service: str) -> Json:
    return {"kind": "service", "name": service, "namespace": "default"}


def _end(service: str) -> Json:
    meta = {"createdAt": _DECLARED, "modifiedAt": _DECLARED, "ingestionSource": "api", "origin": "shop"}
    return {"data": {"id": f"service:default/{service}", "type": "entity"}, "meta": meta}
