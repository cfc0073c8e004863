"""TypeScript interfaces of services, from their JSON Schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from trio_rpc.services.schemas import JsonSchema, schema

__all__ = ["typescript"]

DEFS: Final = "#/$defs/"
_IDENTIFIER: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")

SESSION_TYPES: Final = {
    "datetime": "DateTime",
    "time": "PlainTime",
    "date": "PlainDate",
    "duration": "TimeSpan",
    "decimal": "Decimal",
    "uuid": "UUID",
}
"""The classes of session.js, by the ``x-type`` or the format of a schema."""

SESSION_NAMES: Final = ("RemoteCall", "ItemStream", "DuplexStreams", *SESSION_TYPES.values())

TAKEN: Final = frozenset(
    {"Services", "Methods", "Message", "TypedMessage", "PostOptions", "Promise", "Record", "Set"}
    | {"Job", "Jobs", "JobOf", "JobOptions", "JobArguments", "Arguments", "Optional", "Partial"}
    | {"Array", "Uint8Array", "AsyncIterable", "PromiseLike", *SESSION_NAMES}
)
"""Names that a class of the services cannot have in TypeScript."""

MESSAGE_TYPES: Final = """\
type Optional<T> = {} extends T ? true : false;
type Arguments<M extends { data: object; callbacks: object }> =
  Optional<M["callbacks"]> extends true
    ? Optional<M["data"]> extends true
      ? [data?: M["data"], callbacks?: M["callbacks"], options?: PostOptions]
      : [data: M["data"], callbacks?: M["callbacks"], options?: PostOptions]
    : [data: M["data"], callbacks: M["callbacks"], options?: PostOptions];

type JobOptions = { timeoutMs?: number };
type JobArguments<M extends { data: object }> = Optional<M["data"]> extends true
  ? [data?: M["data"], options?: JobOptions]
  : [data: M["data"], options?: JobOptions];
type JobOf<Name extends Jobs> = Job<Methods[Name]["result"], Partial<Methods[Name]["callbacks"]>>;

/** `const message = new Message() as TypedMessage;` */
export type TypedMessage = Omit<Message, "post" | "start" | "job" | "connect"> & {
  connect(): Promise<TypedMessage>;
  post<Name extends keyof Methods>(
    method: Name,
    ...rest: Arguments<Methods[Name]>
  ): Promise<Methods[Name]["result"]>;
  start<Name extends Jobs>(
    method: Name,
    ...rest: JobArguments<Methods[Name]>
  ): Promise<JobOf<Name>>;
  /** `message.job<"build">(id)`: the name of its method gives the types. */
  job<Name extends Jobs>(id: string): JobOf<Name>;
};
"""


def typescript(services: object, *, gateway: bool = False, module: str | None = None) -> str:
    """Return TypeScript types of services, for a client in JavaScript.

    Args:
        services: an object with marked methods, or a mapping of names to such objects.
        gateway: write types for ``message.js``, the client of a gateway, whose values are JSON. By
            default they are for ``session.js``.
        module: the module with the client's own types; by default ``"./message.js"`` or
            ``"./session.js"``.

    Raises:
        TypeError: something is not a service, or an annotation cannot be checked.
        ValueError: a service's name is not legal.
    """
    described = schema(services)
    writer = _Types(described["$defs"], as_json=gateway)
    if gateway:
        body = _methods(described["methods"], writer)
        source = module or "./message.js"
        head = f"import type {{ Job, Message, PostOptions }} from {json.dumps(source)};"
    else:
        body = _services(described["methods"], writer)
        classes = writer.classes()
        names = [
            name for name in SESSION_NAMES if re.search(rf"\b{name}\b", "\n".join((body, *classes)))
        ]
        source = module or "./session.js"
        head = f"import type {{ {', '.join(names)} }} from {json.dumps(source)};" if names else ""
    parts = [
        "// Written by `trio-rpc typescript`. Changes are lost when it is written again.",
        head,
        *writer.classes(),
        body,
    ]
    return "\n\n".join(each.rstrip("\n") for each in parts if each) + "\n"


# ── message.js ───────────────────────────────────────────────────────────────────────────────────


def _methods(methods: Mapping[str, JsonSchema], writer: _Types) -> str:
    lines = ["export interface Methods {"]
    for name, one in methods.items():
        if one["kind"] not in ("method", "notification"):
            continue
        lines += _comment(one["doc"], "  ")
        lines.append(f"  {_key(name)}: {{")
        lines.append(f"    data: {writer.type(one['arguments'])};")
        lines.append(f"    callbacks: {_callbacks(one['callbacks'], writer)};")
        lines.append(f"    result: {_result(one['result'], writer)};")
        lines.append("  };")
    names = [
        json.dumps(name)
        for name, one in methods.items()
        if one.get("x-outlives") and one["kind"] == "method"
    ]
    jobs = (
        f"/** The methods that can be jobs. */\nexport type Jobs = {' | '.join(names) or 'never'};"
    )
    return "\n".join((*lines, "}", "", jobs, "", MESSAGE_TYPES))


def _callbacks(callbacks: Mapping[str, JsonSchema], writer: _Types) -> str:
    each = (
        f"{_key(name)}{'' if one['required'] else '?'}: {_function(one, writer)}"
        for name, one in callbacks.items()
    )
    return _braces(each)


def _function(callback: JsonSchema, writer: _Types) -> str:
    arguments = callback["arguments"]
    if arguments is None:
        taken = "...args: any[]"
    else:
        taken = ", ".join(
            f"argument{number}: {writer.type(one)}" for number, one in enumerate(arguments, 1)
        )
    result = writer.type(callback["result"])
    if result in ("null", "unknown"):
        return f"({taken}) => unknown"
    return f"({taken}) => {_alone(result)} | PromiseLike<{result}>"


def _result(made: JsonSchema, writer: _Types) -> str:
    return "any" if made == {} else writer.type(made)


# ── session.js ───────────────────────────────────────────────────────────────────────────────────


def _services(methods: Mapping[str, JsonSchema], writer: _Types) -> str:
    by_service: dict[str, list[str]] = {}
    for name, one in methods.items():
        service, _, method = name.rpartition(".")
        lines = by_service.setdefault(service, [])
        lines += _comment(one["doc"], "    ")
        lines.append(f"    {_key(method)}: {_session_method(one, writer)};")
    lines = ['/** `session.proxy<Services["name"]>("name")` */', "export interface Services {"]
    for service, members in by_service.items():
        lines += [f"  {_key(service)}: {{", *members, "  };"]
    return "\n".join((*lines, "}"))


def _session_method(method: JsonSchema, writer: _Types) -> str:
    taken = ", ".join(_parameters(method, writer))
    kind = method["kind"]
    if kind == "stream":
        item = writer.type(method["items"])
        call = f"({taken}): AsyncIterable<{item}>"
        return f"{{ {call}; stream({taken}): ItemStream<{item}> }}"
    if kind == "duplex":
        sent, received = writer.type(method["sends"]), writer.type(method["receives"])
        return f"{{ duplex({taken}): DuplexStreams<{sent}, {received}> }}"
    if kind == "notification":
        return f"{{ ({taken}): RemoteCall<null>; notify({taken}): Promise<void> }}"
    return f"({taken}) => RemoteCall<{_result(method['result'], writer)}>"


def _parameters(method: JsonSchema, writer: _Types) -> list[str]:
    """Return the parameters that can be given by position; the optional ones come last."""
    arguments, callbacks = method["arguments"], method["callbacks"]
    written: list[str] = []
    may_end = True
    for name in reversed(method["x-positional"]):
        if name in callbacks:
            is_required, kind = callbacks[name]["required"], _function(callbacks[name], writer)
        else:
            is_required = name in arguments["required"]
            kind = writer.type(arguments["properties"][name])
        may_end = may_end and not is_required
        key = name if _IDENTIFIER.fullmatch(name) else f"argument{len(written)}"
        written.append(f"{key}{'?' if may_end else ''}: {kind}")
    return written[::-1]


# ── types ────────────────────────────────────────────────────────────────────────────────────────


class _Types:
    """Writes the types of schemas.

    Args:
        defs: the schemas of classes.
        as_json: whether values have their forms in JSON, and not those of session.js.
    """

    def __init__(self, defs: Mapping[str, JsonSchema], *, as_json: bool) -> None:
        self._defs = defs
        self._as_json = as_json
        self._names: dict[str, str] = {}
        for name in defs:
            wanted = re.sub(r"\W", "_", name, flags=re.ASCII)
            while not _IDENTIFIER.fullmatch(wanted) or wanted in {*TAKEN, *self._names.values()}:
                wanted = f"_{wanted}"
            self._names[name] = wanted

    def classes(self) -> list[str]:
        """Return the declarations of all classes."""
        written = []
        for name, made in self._defs.items():
            text = self.type(made)
            is_object = text.startswith("{") and made.get("type") == "object"
            comment = "\n".join(_comment(made.get("description", ""), ""))
            kind = (
                f"interface {self._names[name]} " if is_object else f"type {self._names[name]} = "
            )
            end = "" if is_object else ";"
            written.append(f"{comment}\n" * bool(comment) + f"export {kind}{text}{end}")
        return written

    def type(self, made: Any) -> str:
        """Return the type of the values that fit a schema."""
        if made is True or made == {}:
            return "unknown"
        if "$ref" in made:
            return self._names[made["$ref"].removeprefix(DEFS)]
        for key, sign in (("anyOf", " | "), ("oneOf", " | "), ("allOf", " & ")):
            if key in made:
                return sign.join(dict.fromkeys(_alone(self.type(each)) for each in made[key]))
        if "enum" in made:
            return " | ".join(json.dumps(each) for each in made["enum"])
        if "const" in made:
            return json.dumps(made["const"])
        kind = made.get("type")
        if isinstance(kind, list):
            return " | ".join(dict.fromkeys(self.type({**made, "type": each}) for each in kind))
        return self._of_kind(kind, made)

    def _of_kind(self, kind: Any, made: JsonSchema) -> str:
        if kind == "string":
            return self._text(made)
        if kind in ("integer", "number"):
            return "number"
        if kind in ("boolean", "null"):
            return str(kind)
        if kind == "array":
            return self._array(made)
        if kind == "object":
            return self._object(made)
        return "unknown"

    def _text(self, made: JsonSchema) -> str:
        if self._as_json:
            return "string"
        if made.get("contentEncoding") == "base64":
            return "Uint8Array"
        return SESSION_TYPES.get(made.get("x-type") or made.get("format", ""), "string")

    def _array(self, made: JsonSchema) -> str:
        if "prefixItems" in made:
            types = [_alone(self.type(one)) for one in made["prefixItems"]]
            least = made.get("minItems", len(types))
            each = [one if at < least else f"{one}?" for at, one in enumerate(types)]
            if made.get("items"):  # more of them may follow
                each.append(f"...{_alone(self.type(made['items']))}[]")
            return f"[{', '.join(each)}]"
        item = self.type(made.get("items", {}))
        if made.get("uniqueItems") and not self._as_json:
            return f"Set<{item}>"
        return f"{_alone(item)}[]"

    def _object(self, made: JsonSchema) -> str:
        properties, required = made.get("properties", {}), made.get("required", [])
        others = made.get("additionalProperties", False)
        each = [
            f"{_key(name)}{'' if name in required else '?'}: {self.type(one)}"
            for name, one in properties.items()
        ]
        if others is False or (others is True and properties):
            return _braces(each)
        if not properties:
            return f"Record<string, {self.type(others)}>"
        return f"{_braces(each)} & Record<string, any>"


def _braces(each: Iterable[str]) -> str:
    inside = "; ".join(each)
    return f"{{ {inside} }}" if inside else "Record<string, never>"


def _alone(text: str) -> str:
    """Put a type in parentheses if it has parts."""
    return f"({text})" if " | " in text or " & " in text or "=>" in text else text


def _key(name: str) -> str:
    return name if _IDENTIFIER.fullmatch(name) else json.dumps(name)


def _comment(text: str, indent: str) -> list[str]:
    if not text:
        return []
    lines = text.replace("*/", "*\\/").splitlines()
    if len(lines) == 1:
        return [f"{indent}/** {lines[0]} */"]
    return [f"{indent}/**", *(f"{indent} * {one}".rstrip() for one in lines), f"{indent} */"]
