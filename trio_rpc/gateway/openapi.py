"""The HTTP interface of a gateway as an OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from trio_rpc.gateway.json_messages import ENVELOPE, RESERVED
from trio_rpc.services.schemas import JsonSchema, table_schema
from trio_rpc.services.tables import BoundMethod, Table, build_table

__all__ = ["openapi", "table_openapi"]

VERSION: Final = "3.1.0"
ABOUT: Final = (
    "Each method is one POST with its arguments by name. The header Trio-Rpc-Timeout bounds a call:"
    " the seconds that it may take. Hanging up cancels it."
)
COMPONENTS: Final = "#/components/schemas/"
JSON: Final = "application/json"

EXTENSION: Final = "x-trio-rpc"
"""The key of an operation's facts beyond the standard: see :func:`_more`."""

REFUSALS: Final = {
    "400": "The body is not JSON, has a key twice, or a header is malformed.",
    "401": "The token is missing, or `authenticate` has refused the request.",
    "403": "The token or the client belongs to another; the Origin or the Host is not allowed.",
    "404": "There is no such method.",
    "408": "The body took too long to arrive.",
    "413": "The body is too large.",
    "415": "The content type is not application/json, or the body is encoded.",
    "422": "An argument does not fit, or is missing.",
    "429": "The client has too many calls, or too many messages wait for it.",
    "503": "The gateway is full, or closing.",
}
"""The statuses of a refused POST."""

GATEWAY_SCHEMAS: Final[dict[str, JsonSchema]] = {
    "trio_rpc.Refusal": {
        "type": "object",
        "properties": {
            "error": {"type": "string"},
            "parameter": {"type": "string", "description": "The parameter at fault."},
        },
        "required": ["error"],
    },
    "trio_rpc.Error": {
        "type": "object",
        "properties": {
            "type": {"const": "error"},
            "request_uuid": {"type": "string"},
            "error": {"type": "string"},
            "code": {"type": "string"},
            "error_type": {"type": "string", "description": "The class of the exception."},
            "started": {"type": "boolean", "description": "Whether the handler has begun."},
        },
        "required": ["error"],
    },
    "trio_rpc.Started": {
        "type": "object",
        "properties": {
            "type": {"const": "start"},
            "request_uuid": {"type": "string"},
            "message": {"type": "string"},
            "callbacks": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["type", "request_uuid", "message", "callbacks"],
    },
}


def openapi(services: object, *, title: str = "Services", version: str = "1") -> dict[str, Any]:
    """Return an OpenAPI 3.1 document of the POST routes of a gateway for these services.

    Args:
        services: as for :class:`Gateway`.
        title: the title of the document.
        version: the version of the services.

    Raises:
        TypeError: something is not a service, or an annotation cannot be checked.
        ValueError: a service's name is not legal.
    """
    return table_openapi(build_table(services), title=title, version=version)


def table_openapi(table: Table, *, title: str, version: str) -> dict[str, Any]:
    """Return the document of the methods of a table; see :func:`openapi`."""
    described = table_schema(table)
    defs: dict[str, JsonSchema] = described["$defs"]
    paths: dict[str, Any] = {}
    for name, method in described["methods"].items():
        if "result" not in method:
            continue  # a stream or a duplex
        method = {**method, EXTENSION: _more(table[name])}  # noqa: PLW2901 - the same with more
        if not any(one["required"] for one in method["callbacks"].values()):
            paths[f"/api/{name}"] = {"post": _operation(name, method, defs)}
        paths[f"/api/{name}/{{client_id}}"] = {"post": _start(name, method)}
    document = {
        "openapi": VERSION,
        "info": {"title": title, "version": version, "description": ABOUT},
        "servers": [{"url": "."}],
        "paths": paths,
        "components": {"schemas": {**defs, **GATEWAY_SCHEMAS}},
    }
    moved: dict[str, Any] = _moved(document)
    return moved


def _more(method: BoundMethod) -> dict[str, Any]:
    """Return the facts that ``trio-rpc describe`` also shows, as sessions describe them."""
    return {
        "kind": method.kind.value,
        "signature": method.signature.text,
        "raises": [cls.__name__ for cls in method.raises],
    }


def _operation(name: str, method: JsonSchema, defs: dict[str, JsonSchema]) -> dict[str, Any]:
    return {
        **_common(name, method),
        "responses": {
            "200": _answer("The call has returned.", _finish(method["result"], defs)),
            **_refusals(),
            "500": _answer("The call has ended with an error.", _ref("trio_rpc.Error")),
        },
    }


def _start(name: str, method: JsonSchema) -> dict[str, Any]:
    callbacks = ", ".join(method["callbacks"]) or "none"
    return {
        **_common(name, method, " (callbacks)"),
        "description": f"Its callbacks ({callbacks}) and its end come over the client's WebSocket.",
        "parameters": [
            {"name": "client_id", "in": "path", "required": True, "schema": {"type": "string"}},
            _header("Trio-Rpc-Token", "The secret that came with the client_id."),
            _header("Trio-Rpc-Callbacks", "The callbacks that the client has, with commas."),
            _header("Idempotency-Key", "Finds the call of an earlier request.", maxLength=100),
        ],
        "responses": {
            "200": _answer("The call has been started.", _ref("trio_rpc.Started")),
            **_refusals(),
            "410": _answer("The client has been disconnected.", _ref("trio_rpc.Refusal")),
            "500": _answer("The identity could not be checked.", _ref("trio_rpc.Refusal")),
        },
    }


def _common(name: str, method: JsonSchema, mark: str = "") -> dict[str, Any]:
    service, _, _ = name.rpartition(".")
    summary, _, rest = method["doc"].partition("\n")
    described: dict[str, Any] = {"operationId": f"{name}{mark}", "summary": summary or name}
    if service:
        described["tags"] = [service]
    if rest.strip():
        described["description"] = rest.strip()
    described[EXTENSION] = method[EXTENSION]
    described["requestBody"] = {
        "required": bool(method["arguments"]["required"]),
        "content": {JSON: {"schema": method["arguments"]}},
    }
    return described


def _finish(result: JsonSchema, defs: dict[str, JsonSchema]) -> JsonSchema:
    """Return the schema of the message that ends a call: a result is an entry, or its entries."""
    message: JsonSchema = {
        "type": "object",
        "properties": {"type": {"const": "finish"}, "request_uuid": {"type": "string"}},
        "required": ["type", "request_uuid"],
    }
    resolved = result
    while "$ref" in resolved:
        resolved = defs[resolved["$ref"].rpartition("/")[2]]
    kind = resolved.get("type")
    if kind in ("integer", "number", "boolean", "string", "array") or "enum" in resolved:
        message["properties"]["payload"] = result
        message["required"].append("payload")
    elif kind == "object" and not (RESERVED | ENVELOPE) & resolved.get("properties", {}).keys():
        closed = resolved.get("additionalProperties", True) is not True
        if "properties" in resolved and not closed:
            return {"allOf": [message, result]}
    return message


def _refusals() -> dict[str, Any]:
    return {status: _answer(text, _ref("trio_rpc.Refusal")) for status, text in REFUSALS.items()}


def _answer(text: str, made: JsonSchema) -> dict[str, Any]:
    return {"description": text, "content": {JSON: {"schema": made}}}


def _header(name: str, text: str, **more: Any) -> dict[str, Any]:
    made = {"type": "string", **more}
    return {"name": name, "in": "header", "description": text, "schema": made}


def _ref(name: str) -> JsonSchema:
    return {"$ref": COMPONENTS + name}


def _moved(value: Any) -> Any:
    """Return a copy whose references point to the components of the document."""
    if isinstance(value, dict):
        return {
            key: each.replace("#/$defs/", COMPONENTS) if key == "$ref" else _moved(each)
            for key, each in value.items()
        }
    return [_moved(each) for each in value] if isinstance(value, list) else value
