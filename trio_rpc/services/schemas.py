"""JSON Schemas of services: the JSON form of each argument, callback, item and result.

Unions, collections and classes of fields are taken apart here, as the conversion of values does,
since msgspec refuses many of them (unions of dataclasses, functions inside of classes). msgspec
makes the schemas of the parts, and Pydantic those of its models.
"""

from __future__ import annotations

import collections.abc
import datetime as dt
import enum
import fractions
import functools
import inspect
import ipaddress
import json
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar, get_args, get_origin

import msgspec

from trio_rpc.services.aliases import UNIONS, aliased, bare, is_alias, stands_for
from trio_rpc.services.annotations import Names
from trio_rpc.services.conversion import QUALIFIERS, is_function
from trio_rpc.services.decorators import Kind
from trio_rpc.services.functions import STREAMS, collected_types, function_types
from trio_rpc.services.models import is_model
from trio_rpc.services.outliving import is_outliving
from trio_rpc.services.records import record_of
from trio_rpc.services.tables import BoundMethod, Table, build_table

__all__ = ["JsonSchema", "schema", "table_schema"]

JsonSchema = dict[str, Any]

DEFS: Final = "#/$defs/"
LEAVES: Final[Mapping[Any, JsonSchema]] = {
    dt.datetime: {"type": "string", "x-type": "datetime"},
    dt.time: {"type": "string", "x-type": "time"},
}
"""Types whose text may have an offset or not, for which JSON Schema has no format."""

TEXTS: Final = (pathlib.PurePath, fractions.Fraction)
ARRAYS: Final = frozenset(
    {
        list,
        set,
        frozenset,
        collections.abc.Collection,
        collections.abc.Iterable,
        collections.abc.Sequence,
        collections.abc.MutableSequence,
        collections.abc.Set,
        collections.abc.MutableSet,
    }
)
MAPPINGS: Final = frozenset(
    {dict, collections.abc.Mapping, collections.abc.MutableMapping, collections.OrderedDict}
)


def schema(services: object) -> JsonSchema:
    """Describe services by JSON Schemas (draft 2020-12), as JSON values of their own.

    Args:
        services: an object with marked methods, or a mapping of names to such objects.

    Returns a dict with ``methods``, by full name, and ``$defs``, the classes that they use. Each
    method has its ``kind`` and ``doc``, and

    - ``arguments``: the schema of an object that holds the arguments by name;
    - ``callbacks``: for each parameter that takes a function, whether it is ``required``, the
      schemas of its ``arguments``, in order, and of its ``result``;
    - ``result``: the schema of the result, and ``items`` in its place for a stream, or ``receives``
      and ``sends`` for a duplex: the items that the caller gets, and the items that it sends;
    - ``x-positional``: the names of the parameters that can be given by position, in order;
    - ``raises``: the names of the exceptions that it declares;
    - ``x-outlives``, true if it is marked with ``gateway.outlives``.

    The schemas describe values as a gateway reads and writes them. They lack rules
    that JSON Schema cannot express, such as a check in ``__post_init__``.

    Raises:
        TypeError: something is not a service, or an annotation cannot be checked.
        ValueError: a service's name is not legal.

    Example:
        >>> class Market:
        ...     @trio_rpc.method
        ...     async def price(self, symbol: str) -> float: ...
        >>> trio_rpc.schema({"market": Market()})["methods"]["market.price"]["result"]
        {'type': 'number'}
    """
    return table_schema(build_table(services))


def table_schema(table: Table) -> JsonSchema:
    """Describe the methods of a table, as :func:`schema` does."""
    writer = _Writer()
    methods = {name: writer.method(bound) for name, bound in sorted(table.items())}
    return {"methods": methods, "$defs": dict(sorted(writer.defs.items()))}


class _Writer:
    """Makes schemas, and collects the classes that they refer to.

    Attributes:
        defs: the schemas of classes, by the name that references use.
    """

    def __init__(self) -> None:
        self.defs: dict[str, JsonSchema] = {}
        self._names: dict[Any, str] = {}
        """The names of classes and aliases whose schemas are made, or are being made."""
        self._named: set[Any] = set()
        """Aliases that contain themselves."""

    def method(self, method: BoundMethod) -> JsonSchema:
        signature = method.signature
        described: JsonSchema = {
            "kind": method.kind.value,
            "doc": inspect.cleandoc(method.doc),
            "arguments": self._arguments(method),
            "callbacks": {
                name: self._callback(signature.annotation(name), is_required=is_required)
                for name, is_required in signature.callbacks.items()
            },
        }
        if method.kind is Kind.STREAM:
            described["items"] = self.of(signature.item_annotation())
        elif method.kind is Kind.DUPLEX:
            item = self.of(signature.item_annotation(duplex=True))
            described |= {"receives": item, "sends": item}
        else:
            described["result"] = self.of(signature.annotation("return"))
        if is_outliving(method.function):
            described["x-outlives"] = True
        described["x-positional"] = self._positional(method)
        described["raises"] = [cls.__name__ for cls in method.raises]
        return described

    def _arguments(self, method: BoundMethod) -> JsonSchema:
        signature = method.signature
        parameters = signature.parameters
        properties, required = {}, []
        left_out = set(signature.callbacks)
        if method.kind is Kind.DUPLEX:
            left_out.add(next(iter(inspect.signature(method.function).parameters)))
        for one in dict.fromkeys((*parameters.positional, *parameters.named.values())):
            if one.name not in left_out:
                properties[one.name] = self.of(one.annotation)
                if one.required:
                    required.append(one.name)
        others = parameters.others
        return {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False if others is None else self.of(others.annotation),
        }

    def _positional(self, method: BoundMethod) -> list[str]:
        names = [one.name for one in method.signature.parameters.positional]
        if method.kind is Kind.DUPLEX:
            channel = next(iter(inspect.signature(method.function).parameters))
            names = [name for name in names if name != channel]
        return names

    def _callback(self, annotation: Any, *, is_required: bool) -> JsonSchema:
        given = function_types(annotation)
        if given is None:
            return {"required": is_required, "arguments": None, "result": {}}
        known = bool(given.positional) or _has_parameters(annotation)
        arguments = [self.of(each) for each in given.positional] if known else None
        return {
            "required": is_required,
            "arguments": arguments,
            "result": self.of(given.result),
        }

    # ── one annotation ───────────────────────────────────────────────────────────────────────

    def of(self, annotation: Any) -> JsonSchema:
        """Return the schema of a value with this annotation; {} if anything may fit it."""
        try:
            made = self._taken_apart(annotation)
            return self._by_msgspec(annotation) if made is None else made
        except (TypeError, NotImplementedError, RecursionError):
            return {}

    def _by_msgspec(self, annotation: Any) -> JsonSchema:
        (made,), components = msgspec.json.schema_components(
            (annotation,), schema_hook=self._custom, ref_template=DEFS + "{name}"
        )
        return self._adopt(made, components)

    def _custom(self, cls: Any) -> JsonSchema:
        """Return the schema of a class that msgspec does not know."""
        if is_model(cls):
            return self._model(cls)
        if cls is complex:
            return {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
        is_address = getattr(cls, "__module__", "") == ipaddress.__name__
        if is_address or (isinstance(cls, type) and issubclass(cls, TEXTS)):
            return {"type": "string"}
        raise NotImplementedError

    def _model(self, cls: Any) -> JsonSchema:
        if cls in self._names:
            return {"$ref": DEFS + self._names[cls]}
        make = getattr(cls, "model_json_schema", None)
        if make is None:  # a dataclass of Pydantic
            from pydantic import TypeAdapter  # noqa: PLC0415 - only if its user has it

            make = TypeAdapter(cls).json_schema
        made = dict(make(ref_template=DEFS + "{model}", schema_generator=_generator()))
        components = made.pop("$defs", {})
        reference = made if "$ref" in made else {"$ref": DEFS + cls.__name__}
        if reference is not made:
            components = {**components, cls.__name__: made}
        adopted: JsonSchema = self._adopt(reference, components)
        self._names[cls] = adopted["$ref"].removeprefix(DEFS)
        return adopted

    def _adopt(self, made: JsonSchema, components: Mapping[str, JsonSchema]) -> JsonSchema:
        """Keep components, under other names if two classes have the same name."""
        renamed: dict[str, str] = {}
        for name, one in components.items():
            new, number = name, 1
            while new in self.defs and self.defs[new] != one:
                number += 1
                new = f"{name}_{number}"
            renamed[name] = new
        changed = {DEFS + old: DEFS + new for old, new in renamed.items() if old != new}
        for name, one in components.items():
            self.defs[renamed[name]] = _with_references(one, changed)
        kept: JsonSchema = _with_references(made, changed)
        return kept

    def _taken_apart(self, annotation: Any) -> JsonSchema | None:
        """Return the schema of an annotation made of others, or None if msgspec has to make it."""
        if annotation in (Any, object, inspect.Parameter.empty) or is_function(annotation):
            return {}
        if annotation in LEAVES:
            return dict(LEAVES[annotation])
        if isinstance(annotation, type) and issubclass(annotation, enum.Flag):
            return {"type": "integer"}  # members can be combined
        origin, args = get_origin(annotation), get_args(annotation)
        if origin in QUALIFIERS:
            return self.of(args[0])
        if origin is Annotated:
            by_msgspec = _is_constrained(args[1:]) and _is_known(annotation)
            return None if by_msgspec else self.of(args[0])
        if origin in UNIONS:
            return _any_of([self.of(each) for each in args if not is_function(each)])
        if isinstance(annotation, TypeVar):
            return self.of(stands_for(annotation))
        if is_alias(annotation) or hasattr(annotation, "__supertype__"):
            return self._alias(annotation)
        if origin is tuple and args:
            return self._tuple(annotation)
        if origin in ARRAYS:
            unique = {"uniqueItems": True} if issubclass(origin, collections.abc.Set) else {}
            return {"type": "array", "items": self.of((*args, Any)[0]), **unique}
        if origin in MAPPINGS:
            return {"type": "object", "additionalProperties": self.of((*args, Any, Any)[1])}
        if origin in STREAMS or annotation in STREAMS:
            return {}
        if is_model(annotation):
            return self._model(annotation)
        is_tagged = getattr(getattr(annotation, "__struct_config__", None), "tag", None) is not None
        return None if is_tagged else self._record(annotation)

    def _tuple(self, annotation: Any) -> JsonSchema:
        collected = collected_types(annotation)
        if collected is None:  # items of any number are not the last ones
            return {"type": "array"}
        first, more = collected
        items = self.of(more[0]) if more else False
        if not first:
            return {"type": "array", "items": items}
        made = {
            "type": "array",
            "prefixItems": [self.of(one) for one in first],
            "items": items,
            "minItems": len(first),
        }
        return made if more else {**made, "maxItems": len(first)}

    def _alias(self, annotation: Any) -> JsonSchema:
        """Return the schema of an alias's value; a reference, if it contains itself."""
        name = getattr(annotation, "__name__", "Alias")
        if annotation in self._names:
            self._named.add(annotation)
            return {"$ref": DEFS + self._names[annotation]}
        name = self._names[annotation] = self._unused(name)
        self.defs[name] = made = self.of(aliased(annotation))
        if annotation in self._named:
            return {"$ref": DEFS + name}
        del self.defs[name], self._names[annotation]
        return made

    def _record(self, annotation: Any) -> JsonSchema | None:
        """Return a reference to a class of fields; None for any other annotation."""
        if annotation in self._names:
            return {"$ref": DEFS + self._names[annotation]}
        record = record_of(annotation, Names({}, {}))
        if record is None:
            return None
        name = self._names[annotation] = self._unused(record.cls.__name__)
        self.defs[name] = {}  # reserved, as a field may refer to it
        fields = {field.key: self.of(field.annotation) for field in record.fields}
        required = [field.key for field in record.fields if field.is_required]
        made: JsonSchema = {"title": record.cls.__name__}
        if record.is_array:
            made |= {
                "type": "array",
                "prefixItems": list(fields.values()),
                "minItems": len(required),
                "maxItems": len(fields),
            }
        else:
            made |= {"type": "object", "properties": fields, "required": required}
            if record.is_closed:
                made["additionalProperties"] = False
        self.defs[name] = made
        return {"$ref": DEFS + name}

    def _unused(self, name: str) -> str:
        new, number = name, 1
        while new in self.defs:
            number += 1
            new = f"{name}_{number}"
        return new


def _is_constrained(about: tuple[Any, ...]) -> bool:
    """Return whether msgspec describes an annotation with this metadata better than its type."""
    return any(isinstance(one, msgspec.Meta) for one in about)


def _is_known(annotation: Any) -> bool:
    try:
        msgspec.json.schema(annotation)
    except (TypeError, NotImplementedError):
        return False
    return True


def _has_parameters(annotation: Any) -> bool:
    """Return whether the annotation of a function lists its arguments, which may be none."""
    for one in (annotation, *get_args(bare(annotation))):
        args = get_args(one)
        if get_origin(one) is collections.abc.Callable and args and isinstance(args[0], list):
            return True
    return False


@functools.cache
def _generator() -> Any:
    """Return a class that makes the schemas of models: {} for a field that JSON has no schema for.

    Such a field is a function, a stream, or of a class that only its validator knows. Pydantic
    itself raises an error for the whole model.
    """
    from pydantic.json_schema import GenerateJsonSchema  # noqa: PLC0415 - only with a model

    class Generator(GenerateJsonSchema):
        def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchema:
            del schema, error_info
            return {}

    return Generator


def _any_of(schemas: list[JsonSchema]) -> JsonSchema:
    if any(one == {} for one in schemas):
        return {}
    unique = list({json.dumps(one, sort_keys=True): one for one in schemas}.values())
    return unique[0] if len(unique) == 1 else {"anyOf": unique}


def _with_references(made: Any, changed: Mapping[str, str]) -> Any:
    """Return a copy of a schema with other references."""
    if isinstance(made, dict):
        return {
            key: changed.get(each, each) if key == "$ref" else _with_references(each, changed)
            for key, each in made.items()
        }
    if isinstance(made, (list, tuple)):
        return [_with_references(each, changed) for each in made]
    return made
