"""The OpenAPI document, made of the very structs that decode requests and encode answers."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from recdistill.serve.http import messages
from recdistill.serve.http.limits import ID_LENGTH

if TYPE_CHECKING:
    from recdistill.serve.http.limits import Limits

__all__ = ["document"]

Schema = dict[str, Any]

_REFUSALS = {
    400: "The body is not JSON.",
    401: "No token, or a wrong one.",
    403: "This needs a server with a token.",
    404: "The version does not have it.",
    408: "The body came too slowly.",
    409: "Not as things stand.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    421: "The server does not answer under this name.",
    422: "Not of the schema, or beyond a limit; the message names it.",
    429: "Too much at a time; the message names the limit.",
    503: "No version is served yet, or no answer in time.",
}
_ALWAYS = (421,)
_WORK = (429, 503)
_BODY = (400, 408, 413, 415, 422)


@dataclass(frozen=True, kw_only=True)
class _Route:
    path: str
    summary: str
    answer: type[msgspec.Struct] | str
    """A struct, or a content type."""
    body: type[msgspec.Struct] | None = None
    parameters: list[Schema] = field(default_factory=list)
    more: tuple[int, ...] = ()
    tag: str = "lists"
    open: bool = False


_ITEM: Schema = {
    "name": "item",
    "in": "query",
    "required": True,
    "description": "External id of the item.",
    "schema": {"type": "string", "minLength": 1, "maxLength": ID_LENGTH},
}
_STARTS: Schema = {
    "name": "starts",
    "in": "query",
    "description": "What the ids begin with.",
    "schema": {"type": "string", "maxLength": ID_LENGTH, "default": ""},
}
_LIMIT: Schema = {
    "name": "limit",
    "in": "query",
    "description": "How many at most.",
    "schema": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
}


def document(limits: Limits, *, version: str, token: bool) -> Schema:
    """The document of a server with these limits.

    Args:
        limits: stand in the schemas as bounds.
        version: of recdistill.
        token: whether routes ask for one.
    """
    routes = _routes(limits)
    structs = {one for route in routes for one in (route.answer, route.body) if isinstance(one, type)}
    kinds = sorted({*structs, messages.Failure}, key=lambda kind: kind.__name__)
    _, schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    _bounded(schemas, limits)
    _described(schemas)
    paths: Schema = {}
    for route in routes:
        method = "get" if route.body is None else "post"
        paths.setdefault(route.path, {})[method] = _operation(route, token=token)
    components: Schema = {"schemas": schemas}
    if token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    about = "Lists from one student at a time. Every answer names the version that made it."
    return {
        "openapi": "3.1.0",
        "info": {"title": "recdistill serve", "version": version, "description": about},
        "paths": paths,
        "components": components,
    }


def _routes(limits: Limits) -> list[_Route]:
    k: Schema = {
        "name": "k",
        "in": "query",
        "description": "How many items.",
        "schema": {"type": "integer", "minimum": 1, "maximum": limits.k, "default": 10},
    }
    m = messages
    return [
        _Route(path="/v1/recommend", summary="One list", answer=m.Answer, body=m.Query),
        _Route(path="/v1/recommend/batch", summary="Many lists of one version", answer=m.Answers, body=m.BatchQuery),
        _Route(path="/v1/compare", summary="The student's list beside its teacher's", answer=m.Compared, body=m.Query),
        _Route(
            path="/v1/similar",
            summary="Items like an item",
            answer=m.Similar,
            parameters=[_ITEM, k],
            more=(404, 422),
        ),
        _Route(
            path="/v1/items",
            summary="Items by the beginning of their ids",
            answer=m.Found,
            parameters=[_STARTS, _LIMIT],
            more=(422,),
        ),
        _Route(path="/v1/about", summary="What is served", answer=m.About),
        _Route(
            path="/v1/events",
            summary="Append events to the stream's ledger; answered when they are on disk",
            answer=m.Received,
            body=m.Events,
            more=(409,),
            tag="stream",
        ),
        _Route(
            path="/v1/availability",
            summary="Set the items that may be shown, until the next version",
            answer=m.Listed,
            body=m.Available,
            more=(403, 409),
            tag="versions",
        ),
        _Route(
            path="/v1/rollback",
            summary="Serve an earlier version",
            answer=m.VersionTold,
            body=m.Rollback,
            more=(403, 409),
            tag="versions",
        ),
        _Route(path="/healthz", summary="Whether the process runs", answer=m.Live, tag="health", open=True),
        _Route(path="/readyz", summary="Whether requests are answered", answer=m.Ready, tag="health", open=True),
        _Route(path="/metrics", summary="For Prometheus", answer="text/plain", tag="health"),
    ]


def _operation(route: _Route, *, token: bool) -> Schema:
    statuses = {*_ALWAYS, *route.more}
    if route.tag != "health":
        statuses |= {*_WORK, *(_BODY if route.body is not None else ())}
    if token and not route.open:
        statuses.add(401)
    responses: Schema = {"200": {"description": "As asked.", "content": _content(route.answer)}}
    for status in sorted(statuses):
        responses[str(status)] = {"description": _REFUSALS[status], "content": _content(messages.Failure)}
    if route.path == "/readyz":
        responses["503"] = {"description": "Not yet, or no more.", "content": _content(route.answer)}
    name = route.path.strip("/").removeprefix("v1/").replace("/", "_")
    operation: Schema = {"operationId": name, "summary": route.summary, "tags": [route.tag], "responses": responses}
    if route.parameters:
        operation["parameters"] = route.parameters
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": _content(route.body)}
    if token and not route.open:
        operation["security"] = [{"token": []}]
    elif token and route.path == "/readyz":
        operation["security"] = [{}, {"token": []}]  # who sends it is told more
    return operation


def _content(answer: type[msgspec.Struct] | str) -> Schema:
    if isinstance(answer, str):
        return {answer: {"schema": {"type": "string"}}}
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{answer.__name__}"}}}


def _bounded(schemas: Schema, limits: Limits) -> None:
    """What the limits of this server add to the schemas."""
    query = schemas["Query"]["properties"]
    query["k"]["maximum"] = limits.k
    query["history"]["maxItems"] = limits.history
    for name in ("exclude", "candidates", "available"):
        query[name]["maxItems"] = limits.listed
    schemas["Query"]["anyOf"] = [{"required": ["user"]}, {"required": ["history"]}]
    schemas["BatchQuery"]["properties"]["requests"]["maxItems"] = limits.batch
    schemas["Events"]["properties"]["events"]["maxItems"] = limits.events


def _described(schemas: Schema) -> None:
    """The text under each field of a struct becomes its description."""
    for node in ast.parse(inspect.getsource(messages)).body:
        if not isinstance(node, ast.ClassDef) or node.name not in schemas:
            continue
        for one, text in zip(node.body, node.body[1:], strict=False):
            if not (isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name) and isinstance(text, ast.Expr)):
                continue
            if isinstance(text.value, ast.Constant) and isinstance(text.value.value, str):
                said = inspect.cleandoc(text.value.value).replace("\n", " ")
                schemas[node.name]["properties"][one.target.id]["description"] = said
