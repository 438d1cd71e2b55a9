"""The API described as OpenAPI 3.1, from the route table and its models: what the server takes, and nothing else."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from llmartifacts.records.rights import Permission
from llmartifacts.wire.bodies import server as bodies
from llmartifacts.wire.bodies.fields import ALIAS_PATTERN, DIGEST_PATTERN, NAME_PATTERN
from llmartifacts.wire.bodies.problems import Problem
from llmartifacts.wire.routes import BASE, BYTES, ROUTES, Route

REF = "#/components/schemas/{model}"
_WORDS = {
    200: "What was asked for",
    201: "Made",
    204: "Done",
    206: "A part of the bytes",
    304: "The client has it",
    307: "The bytes are at another address, for a short time",
    400: "The request is wrong",
    401: "No good token",
    403: "Not allowed, or refused",
    404: "Not there, or not for the caller to see",
    405: "No such method",
    408: "The body came too slowly",
    409: "In conflict with what is there, or refused by a gate",
    411: "The body has no length",
    413: "Too large",
    414: "The address is too long",
    415: "The body is of another type",
    416: "No such range",
    422: "Understood, and not usable",
    429: "Too often",
    431: "The head of the request is too long",
    500: "Stored bytes are damaged, or a mistake of the server",
    501: "An optional part is not installed",
    503: "Busy, ending, or without its database: try again",
    504: "It took too long",
}
_PARAMETERS: dict[str, dict[str, Any]] = {
    "project": {"type": "string", "pattern": NAME_PATTERN, "maxLength": 128},
    "name": {"type": "string", "pattern": NAME_PATTERN, "maxLength": 128},
    "team": {"type": "string", "pattern": NAME_PATTERN, "maxLength": 128},
    "member": {"type": "string", "pattern": NAME_PATTERN, "maxLength": 128},
    "alias": {"type": "string", "pattern": ALIAS_PATTERN, "maxLength": 128},
    "digest": {"type": "string", "pattern": DIGEST_PATTERN},
    "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    "id": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
}
_IDS: dict[str, dict[str, Any]] = {
    "/grants/": {"type": "string", "pattern": "^[1-9][0-9]{0,14}$"},
    "/tokens/": {"type": "string", "pattern": "^[0-9A-Za-z]{10}$"},
}
_CACHED = frozenset({"read", "read_many"})
_RANGED = frozenset({"blob", "chunks", "recipe"})


def document(origin: str) -> dict[str, Any]:
    """The whole document.

    Args:
        origin: Address of the server, as clients use it.
    """
    models: dict[type[BaseModel], None] = {Problem: None, bodies.Health: None}
    for route in ROUTES:
        for model in (route.query, route.body, route.result):
            if isinstance(model, type):
                models[model] = None
    named, definitions = models_json_schema([(model, "validation") for model in models], ref_template=REF)
    schemas = definitions.get("$defs", {})
    schemas["Errors"] = {
        "type": "object",
        "required": ["errors"],
        "properties": {"errors": {"type": "array", "minItems": 1, "items": named[Problem, "validation"]}},
    }
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        operation = _operation(route, {model: named[model, "validation"] for model in models}, schemas)
        paths.setdefault(BASE + route.path, {})[route.method.lower()] = operation
    for path, summary in (("/healthz", "Whether the process answers"), ("/readyz", "Whether requests should come")):
        good = _json(_WORDS[200], named[bodies.Health, "validation"])
        no = _json("Not now", named[bodies.Health, "validation"])
        answers = {"200": good} | ({"503": no} if path == "/readyz" else {})
        paths[path] = {"get": {"operationId": path[1:], "summary": summary, "security": [], "responses": answers}}
    text = {"description": _WORDS[200], "content": {"text/plain": {"schema": {"type": "string"}}}}
    paths["/metrics"] = {
        "get": {"operationId": "metrics", "summary": "Figures", "security": [], "responses": {"200": text}}
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "llmartifacts", "version": version("llmartifacts"), "license": {"name": "Apache-2.0"}},
        "servers": [{"url": origin}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "lla_…"}},
        },
    }


def _operation(route: Route, named: dict[Any, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "description": _permission(route),
        "parameters": [_parameter("path", name, _place(route, name), required=True) for name in route.parameters],
        "responses": _answers(route, named),
    }
    if route.permission is Permission.PUBLIC:
        made["security"] = []
    if route.query is not None:
        schema = schemas[named[route.query]["$ref"].rpartition("/")[2]]
        required = schema.get("required", ())
        for name, one in schema["properties"].items():
            made["parameters"].append(_parameter("query", name, _plain(one), required=name in required))
    if route.writes:
        key = {"type": "string", "pattern": "^[A-Za-z0-9._~-]{16,128}$"}
        made["parameters"].append(_parameter("header", "Idempotency-Key", key, required=False))
    if route.name in _CACHED:
        made["parameters"].append(_parameter("header", "If-None-Match", {"type": "string"}, required=False))
    if route.body is not None:
        raw = route.body == BYTES
        kind = BYTES if raw else "application/json"
        schema = {} if raw else named[route.body]
        made["requestBody"] = {"required": True, "content": {kind: {"schema": schema}}}
    return made


def _place(route: Route, name: str) -> dict[str, Any]:
    if name == "id":
        return next((schema for part, schema in _IDS.items() if part in route.path), _PARAMETERS["id"])
    return _PARAMETERS[name]


def _parameter(place: str, name: str, schema: dict[str, Any], *, required: bool) -> dict[str, Any]:
    made = {"name": name, "in": place, "required": required, "schema": schema}
    if schema.get("type") == "array":
        made |= {"style": "form", "explode": True}
    return made


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a query parameter: `null` is not said in a query, it is left out."""
    made = {key: value for key, value in schema.items() if key != "title" and (key != "default" or value is not None)}
    options = [one for one in made.pop("anyOf", ()) if one != {"type": "null"}]
    if len(options) == 1:
        made |= options[0]
    elif options:
        made["anyOf"] = options
    for ours, theirs in (
        ("ge", "minimum"),
        ("le", "maximum"),
    ):  # a validator before the bounds hides them from pydantic
        if ours in made:
            made[theirs] = made.pop(ours)
    return made


def _answers(route: Route, named: dict[Any, Any]) -> dict[str, Any]:
    good: dict[str, Any] = {"description": _WORDS[route.status]}
    if isinstance(route.result, str):
        good["content"] = {route.result: {"schema": {} if route.result != BYTES else {"type": "string"}}}
    elif route.result is not None:
        good = _json(_WORDS[route.status], named[route.result])
    made = {str(route.status): good}
    others = [304] if route.name in _CACHED else []
    if route.name in _RANGED:
        made["206"] = {**good, "description": _WORDS[206]}
        others += [304, 307]
    made |= {str(status): {"description": _WORDS[status]} for status in others}
    errors = {*route.errors, *((416,) if route.name in _RANGED else ())}
    for status in sorted(errors):
        made[str(status)] = _json(_WORDS[status], {"$ref": REF.format(model="Errors")})
    return made


def _json(words: str, schema: Any) -> dict[str, Any]:
    return {"description": words, "content": {"application/json": {"schema": schema}}}


def _permission(route: Route) -> str:
    if route.permission is Permission.PUBLIC:
        return "Needs no token."
    if route.permission is Permission.SIGNED_IN:
        return "Needs a token; the answer holds what it may see."
    where = "in the project" if route.in_project else "on the whole registry"
    return f"Needs the permission `{route.permission}` {where}."
