"""A bundle's public functions and HTTP routes as an OpenAPI 3.1 document: what other languages call over HTTP.

Pure. Equal manifests give equal documents. Schemas are those of the manifest, which describe the wire form, but for
64-bit integers, which are decimal text in answers of the format `json`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater_protocol.manifest import canonical_json

from headwater.signatures import reached

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater_protocol.manifest import FunctionManifest, Manifest
    from headwater_protocol.route_manifest import RouteManifest

ROUTES_AT = "/http"

_ABOUT = """\
In answers an integer beyond 2^53 is decimal text, as an `Int64` always is, and bytes are base64. Arguments take the same \
text: base64 for bytes, and decimal text or a number for an `Int64`. Where anything may stand, text is text: a call that sends bytes there says \
`"format": "convex_encoded_json"` beside `args` and sends `{"$bytes": "…"}`; its answer is in that format as well."""
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
    schemas = _Schemas()
    called = [item for item in manifest.functions if not item.internal]
    for item in called:  # what is received has the plain names
        schemas.hoisted(item.returns, item.name)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Functions of a Headwater deployment", "version": version, "description": _ABOUT},
        "paths": {
            **{http_path(item.name): {"post": _operation(item, schemas)} for item in called},
            **_route_paths(manifest.routes, schemas),
        },
        "components": {
            "schemas": schemas.definitions,
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


def _route_paths(routes: Sequence[RouteManifest], schemas: _Schemas) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the routes by address; what they are sent and answer is not declared."""
    paths: dict[str, dict[str, dict[str, Any]]] = {}
    for route in routes:
        address = ROUTES_AT + route.path.replace(":rest}", "}")
        paths.setdefault(address, {})[route.method.lower()] = _route_operation(route, schemas)
    return paths


def _route_operation(route: RouteManifest, schemas: _Schemas) -> dict[str, Any]:
    hoisted = schemas.hoisted(route.parameters, route.name, sent=True)
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


def _operation(item: FunctionManifest, schemas: _Schemas) -> dict[str, Any]:
    arguments = schemas.hoisted(item.arguments, item.name, sent=True)
    result = schemas.hoisted(item.returns, item.name)
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


class _Schemas:
    """The named schemas of the document.

    Attributes:
        definitions: By their names.
    """

    def __init__(self) -> None:
        self.definitions: dict[str, Any] = {"Error": _ERROR}
        self._meanings = {"Error": canonical_json(_ERROR)}

    def hoisted(self, schema: dict[str, Any], function: str, *, sent: bool = False) -> dict[str, Any]:
        """Return a schema whose definitions stand among the document's, each once under a name of its own.

        Args:
            schema: Of arguments or a result.
            function: Whose they are.
            sent: Whether they are arguments.
        """
        if not sent:
            schema = _answered(schema)
        definitions = schema.get("$defs", {})
        names = {name: self._name_of(name, definitions, function, sent=sent) for name in sorted(definitions)}
        for name, own in names.items():
            self.definitions[own] = _renamed(definitions[name], names)
        hoisted: dict[str, Any] = _renamed(
            {key: value for key, value in schema.items() if key != "$defs"}, names
        )
        return hoisted

    def _name_of(self, name: str, definitions: dict[str, Any], function: str, *, sent: bool) -> str:
        """Return what a definition is called: its name, unless something else is called so already."""
        meaning = canonical_json(reached(name, definitions))
        prefix = function.replace("/", ".").replace(":", ".")
        wishes = [name, f"{name}Input", f"{prefix}.{name}"] if sent else [name, f"{prefix}.{name}"]
        for wish in wishes:
            if self._meanings.setdefault(wish, meaning) == meaning:
                return wish
        return f"{prefix}.{'arguments' if sent else 'result'}.{name}"


def _answered(schema: Any) -> Any:
    """Return a schema as answers over HTTP have it."""
    match schema:
        case {"x-int64": True}:
            return {"type": "string", "format": "int64"}
        case dict():
            return {key: _answered(inner) for key, inner in schema.items()}
        case list():
            return [_answered(inner) for inner in schema]
    return schema


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
