"""The JSON Schemas of services."""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NewType, NotRequired, Self, TypedDict
from uuid import UUID

import attrs
import msgspec
import pydantic
import pydantic.dataclasses
import pytest
import trio

import trio_rpc
from trio_rpc.services.typescript import typescript

UserId = NewType("UserId", int)
Positive = Annotated[int, msgspec.Meta(gt=0)]


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Cat:
    name: str
    lives: int = 9


@dataclass
class Dog:
    name: str
    friends: list[Cat | Dog] = field(default_factory=list)


class Order(pydantic.BaseModel):
    number: int = pydantic.Field(ge=1)
    part_of: Self | None = None


class Options(TypedDict):
    deep: bool
    limit: NotRequired[int]


class Pair(NamedTuple):
    key: str
    value: int = 0


class Tagged(msgspec.Struct, tag=True):
    size: int


@attrs.define
class Area:
    side: float


def defs(annotation: Any) -> tuple[Any, dict[str, Any]]:
    async def give(self, value): ...

    give.__annotations__ = {"value": annotation, "return": annotation}
    service = type("Service", (), {"give": trio_rpc.method(give)})()
    made = trio_rpc.schema(service)
    method = made["methods"]["give"]
    assert method["result"] == method["arguments"]["properties"]["value"]
    return method["result"], made["$defs"]


TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (None, {"type": "null"}),
        (Any, {}),
        (object, {}),
        (bytes, {"type": "string", "contentEncoding": "base64"}),
        (datetime, {"type": "string", "x-type": "datetime"}),
        (date, {"type": "string", "format": "date"}),
        (Decimal, {"type": "string", "format": "decimal"}),
        (UUID, {"type": "string", "format": "uuid"}),
        (Path, TEXT),
        (UserId, {"type": "integer"}),
        (Positive, {"type": "integer", "exclusiveMinimum": 0}),
        (Literal["a", "b"], {"enum": ["a", "b"]}),
        (str | None, {"anyOf": [TEXT, {"type": "null"}]}),
        (str | bytes, {"anyOf": [TEXT, {"type": "string", "contentEncoding": "base64"}]}),
        (str | Path, TEXT),
        (Sequence[str], {"type": "array", "items": TEXT}),
        (set[str], {"type": "array", "items": TEXT, "uniqueItems": True}),
        (dict[str, str], {"type": "object", "additionalProperties": TEXT}),
        (tuple[str, ...], {"type": "array", "items": TEXT}),
        (
            tuple[str],
            {"type": "array", "prefixItems": [TEXT], "items": False, "minItems": 1, "maxItems": 1},
        ),
        (
            complex,
            {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
        ),
    ],
)
def test_a_type_without_a_name(annotation, expected):
    assert defs(annotation) == (expected, {})
    assert defs(list[annotation]) == ({"type": "array", "items": expected}, {})


def test_classes_of_fields_are_named_and_may_contain_themselves_and_unions():
    made, classes = defs(Cat | Dog)
    assert made == {"anyOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]}
    assert classes["Cat"] == {
        "title": "Cat",
        "type": "object",
        "properties": {"name": TEXT, "lives": {"type": "integer"}},
        "required": ["name"],
    }
    assert classes["Dog"]["properties"]["friends"] == {"type": "array", "items": made}


@pytest.mark.parametrize(
    ("cls", "properties", "required"),
    [
        (Options, {"deep": {"type": "boolean"}, "limit": {"type": "integer"}}, ["deep"]),
        (Area, {"side": {"type": "number"}}, ["side"]),
        (Tagged, {"type": {"enum": ["Tagged"]}, "size": {"type": "integer"}}, ["type", "size"]),
    ],
)
def test_a_class_of_fields(cls, properties, required):
    made, classes = defs(cls)
    assert made == {"$ref": f"#/$defs/{cls.__name__}"}
    assert classes[cls.__name__]["properties"] == properties
    assert classes[cls.__name__]["required"] == required


class Marks(enum.Flag):
    ONE = 1
    TWO = 2


@pytest.mark.parametrize("annotation", [Marks, Annotated[Marks, "about"], list[Marks]])
def test_a_flag_is_a_number_since_its_members_can_be_combined(annotation):
    made, _ = defs(annotation)
    assert made.get("items", made) == {"type": "integer"}


def test_a_tuple_that_ends_with_items_of_any_number():
    made, _ = defs(tuple[int, *tuple[str, ...]])
    assert made == {
        "type": "array",
        "prefixItems": [{"type": "integer"}],
        "items": TEXT,
        "minItems": 1,
    }
    made, _ = defs(tuple[int, *tuple[str, int]])
    assert [one["type"] for one in made["prefixItems"]] == ["integer", "string", "integer"]
    assert defs(tuple[*tuple[int, ...], str])[0] == {"type": "array"}


def test_a_named_tuple_is_an_array():
    _, classes = defs(Pair)
    assert classes["Pair"] == {
        "title": "Pair",
        "type": "array",
        "prefixItems": [TEXT, {"type": "integer"}],
        "minItems": 1,
        "maxItems": 2,
    }


def test_an_enum_and_a_model_of_pydantic():
    assert defs(Color)[1]["Color"]["enum"] == ["blue", "red"]
    made, classes = defs(list[Order])
    assert made == {"type": "array", "items": {"$ref": "#/$defs/Order"}}
    assert classes["Order"]["properties"]["number"]["minimum"] == 1
    assert classes["Order"]["properties"]["part_of"]["anyOf"][0] == {"$ref": "#/$defs/Order"}
    assert list(classes) == ["Order"]


class Hooks(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)

    on: Callable[[int], Awaitable[None]] | None = None
    each: list[Callable[[int], Awaitable[None]]] = []
    items: AsyncIterator[int]
    number: int


class HookRoot(pydantic.RootModel[list[Callable[[int], Awaitable[None]]]]): ...


@pydantic.dataclasses.dataclass
class HookFields:
    on: Callable[[int], Awaitable[None]]
    number: int


def test_functions_and_streams_in_models_have_an_empty_schema_as_in_dataclasses():
    fields = defs(Hooks)[1]["Hooks"]["properties"]
    assert fields["on"]["anyOf"] == [{}, {"type": "null"}]
    assert fields["each"]["items"] == {}
    assert fields["items"].get("type") is None
    assert fields["number"]["type"] == "integer"
    assert defs(HookRoot)[1]["HookRoot"]["items"] == {}
    fields = defs(HookFields)[1]["HookFields"]["properties"]
    assert fields["on"].get("type") is None
    assert fields["number"]["type"] == "integer"
    assert "on?: unknown" in typescript(_service(Hooks))


def _service(annotation):
    class Service:
        @trio_rpc.method
        async def take(self, value: annotation) -> None: ...  # type: ignore[valid-type]

    return Service()


def test_classes_with_the_same_name_stay_apart():
    def local() -> type:
        @dataclass
        class Cat:
            age: int

        return Cat

    made, classes = defs(tuple[Cat, local()])
    names = [one["$ref"].rpartition("/")[2] for one in made["prefixItems"]]
    assert names == ["Cat", "Cat_2"]
    assert list(classes["Cat_2"]["properties"]) == ["age"]


class Service:
    @trio_rpc.method(raises=(LookupError,))
    async def scan(
        self,
        folder: str,
        found: Callable[[str, int], Awaitable[None]],
        ask: Callable[[], Awaitable[bool]] | None = None,
        *,
        depth: int = 3,
    ) -> list[str]:
        """Scan a folder.

        Slowly.
        """
        raise NotImplementedError

    @trio_rpc.method
    async def anything(self, call: Callable[..., object], **more: int) -> None: ...

    @trio_rpc.stream
    async def ticks(self, symbol: str) -> AsyncGenerator[Cat, None]:
        yield Cat(symbol)

    @trio_rpc.duplex
    async def chat(self, channel: trio.abc.Channel[str], room: str = "") -> None: ...

    @trio_rpc.notification
    async def log(self, line: str) -> None: ...


def test_a_method_and_its_callbacks():
    methods = trio_rpc.schema({"files": Service()})["methods"]
    assert methods["files.scan"] == {
        "kind": "method",
        "doc": "Scan a folder.\n\nSlowly.",
        "arguments": {
            "type": "object",
            "properties": {"folder": TEXT, "depth": {"type": "integer"}},
            "required": ["folder"],
            "additionalProperties": False,
        },
        "callbacks": {
            "found": {
                "required": True,
                "arguments": [TEXT, {"type": "integer"}],
                "result": {"type": "null"},
            },
            "ask": {"required": False, "arguments": [], "result": {"type": "boolean"}},
        },
        "result": {"type": "array", "items": TEXT},
        "x-positional": ["folder", "found", "ask"],
        "raises": ["LookupError"],
    }
    anything = methods["files.anything"]
    assert anything["callbacks"]["call"] == {"required": True, "arguments": None, "result": {}}
    assert anything["arguments"]["additionalProperties"] == {"type": "integer"}


def test_the_other_kinds():
    methods = trio_rpc.schema(Service())["methods"]
    assert methods["ticks"]["items"] == {"$ref": "#/$defs/Cat"}
    assert (methods["chat"]["sends"], methods["chat"]["receives"]) == (TEXT, TEXT)
    assert list(methods["chat"]["arguments"]["properties"]) == ["room"]
    assert methods["log"]["kind"] == "notification"


def test_an_object_that_is_not_a_service_is_refused():
    with pytest.raises(TypeError):
        trio_rpc.schema(3)
