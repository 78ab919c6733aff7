"""A bundle's public functions and HTTP routes as an OpenAPI 3.1 document: what other languages call over HTTP.

Pure. Equal manifests give equal documents. Schemas are those of the manifest, which describe the wire form; over
HTTP, in the format `json`, integers beyond 2^53 are decimal text and bytes are base64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater_protocol.manifest import FunctionManifest, Manifest
    from headwater_protocol.route_manifest import RouteManifest

ROUTES_AT = "/http"

_DEFINITIONS = "#/$defs/"
_COMPONENTS = "#/components/schemas/"
_ERROR = {
    "type": "object",
    "properties": {
        "status": {"const": "error"},
        "errorCode": {"type": "string", "description": "A code of the error table, as `invalid_arguments`."},
        "errorMessage": {"type": "string"},
        "errorData": {"description": "What the function's ApplicationError holds, if it raised one."},
    },
    "required": ["status", "errorMessage"],
}


def openapi(manifest: Manifest, version: str) -> dict[str, Any]:
    """Return the document.

    Args:
        manifest: What the bundle declares.
        version: Of Headwater, for the document's head.
    """
    schemas: dict[str, Any] = {"Error": _ERROR}
    called = [item for item in manifest.functions if not item.internal]
    return {
        "openapi": "3.1.0",
        "info": {"title": "Functions of a Headwater deployment", "version": version},
        "paths": {
            **{http_path(item.name): {"post": _operation(item, schemas)} for item in called},
            **_route_paths(manifest.routes, schemas),
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "deploymentKey": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "`Headwater KEY`; only internal functions need it.",
                }
            },
        },
    }


def http_path(name: str) -> str:
    """Return where a function is called over HTTP: `messages:list` at `/api/run/messages/list`."""
    return "/api/run/" + name.replace(":", "/")


def _route_paths(
    routes: Sequence[RouteManifest], schemas: dict[str, Any]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the routes by address; what they are sent and answer is not declared."""
    paths: dict[str, dict[str, dict[str, Any]]] = {}
    for route in routes:
        address = ROUTES_AT + route.path.replace(":rest}", "}")
        paths.setdefault(address, {})[route.method.lower()] = _route_operation(route, schemas)
    return paths


def _route_operation(route: RouteManifest, schemas: dict[str, Any]) -> dict[str, Any]:
    hoisted = _hoisted(route.parameters, route.name, schemas)
    summary, _, rest = route.doc.strip().partition("\n")
    found: dict[str, Any] = {
        "operationId": _operation_id(route.name),
        "tags": [route.name.partition(":")[0]],
        "x-headwater-kind": "route",
        "responses": {"default": {"description": "What the route answers."}},
    }
    if hoisted.get("properties"):
        found["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": schema}
            for name, schema in hoisted["properties"].items()
        ]
    if summary:
        found["summary"] = summary
    if rest.strip():
        found["description"] = rest.strip()
    return found


def _operation_id(name: str) -> str:
    return name.replace("/", ".").replace(":", ".")


def _operation(item: FunctionManifest, schemas: dict[str, Any]) -> dict[str, Any]:
    arguments = _hoisted(item.arguments, item.name, schemas)
    result = _hoisted(item.returns, item.name, schemas)
    if item.stream:
        result = {"type": "array", "items": result}
    body = {"type": "object", "properties": {"args": arguments}, "additionalProperties": False}
    if item.arguments.get("required"):
        body["required"] = ["args"]
    success = {
        "type": "object",
        "properties": {"status": {"const": "success"}, "value": result},
        "required": ["status", "value"],
    }
    failure = {"$ref": f"{_COMPONENTS}Error"}
    summary, _, rest = item.doc.strip().partition("\n")
    found: dict[str, Any] = {
        "operationId": _operation_id(item.name),
        "tags": [item.name.partition(":")[0]],
        "x-headwater-kind": item.kind,
        **({"x-headwater-stream": True} if item.stream else {}),
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": {
                "description": "The result, or why there is none.",
                "content": {
                    "application/json": {"schema": {"oneOf": [success, failure]}},
                    **({"text/event-stream": {"schema": {"type": "string"}}} if item.stream else {}),
                },
            },
            "default": {
                "description": "The call could not be made.",
                "content": {"application/json": {"schema": failure}},
            },
        },
    }
    if summary:
        found["summary"] = summary
    if rest.strip():
        found["description"] = rest.strip()
    return found


def _hoisted(schema: dict[str, Any], function: str, schemas: dict[str, Any]) -> dict[str, Any]:
    """Return a schema whose definitions stand among the document's, each once under a name of its own."""
    definitions = schema.get("$defs", {})
    names = {name: _name_of(name, definitions[name], function, schemas) for name in sorted(definitions)}
    for name, own in names.items():
        schemas[own] = _renamed(definitions[name], names)
    hoisted: dict[str, Any] = _renamed({key: value for key, value in schema.items() if key != "$defs"}, names)
    return hoisted


def _name_of(name: str, definition: Any, function: str, schemas: dict[str, Any]) -> str:
    """Return what a definition is called: its name, unless something else is called so already."""
    plain = _renamed(definition, {})
    for label in (name, f"{function.replace('/', '.').replace(':', '.')}.{name}"):
        if label not in schemas or schemas[label] == plain:
            return label
    return f"{function.replace('/', '.').replace(':', '.')}.result.{name}"


def _renamed(value: Any, names: dict[str, str]) -> Any:
    match value:
        case {"$ref": str(reference)} if reference.startswith(_DEFINITIONS):
            name = reference.removeprefix(_DEFINITIONS)
            return {**value, "$ref": _COMPONENTS + names.get(name, name)}
        case dict():
            return {key: _renamed(inner, names) for key, inner in value.items()}
        case list():
            return [_renamed(inner, names) for inner in value]
    return value
