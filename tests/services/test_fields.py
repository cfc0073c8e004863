"""The description of methods has the fields of the classes that they name."""

from __future__ import annotations

import sys
import textwrap
import types
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Protocol,
    TypedDict,
    TypeVar,
)

import attrs
import msgspec
import pytest
import trio

import trio_rpc
from trio_rpc.services.introspection import describe
from trio_rpc.services.tables import build_table
from trio_rpc.testing import open_session_pair

T = TypeVar("T")
Amount = NewType("Amount", int)


@dataclass
class Part:
    weight: float
    label: Annotated[str, "of the box"] = ""


@dataclass
class Order:
    parts: list[Part]
    buyer: dict[str, Buyer | None] = field(default_factory=dict)
    next: Order | None = None


class Buyer(msgspec.Struct, rename="camel"):
    full_name: str
    level: Literal["new", "old"] = "new"


class Filter(TypedDict):
    text: str
    most: NotRequired[int]


class Place(NamedTuple):
    x: int
    y: int = 0


@attrs.define
class Shelf:
    places: tuple[Place, ...]


@dataclass
class Page(Generic[T]):
    items: list[T]


class Report(Protocol):
    async def __call__(self, done: Part, /) -> Shelf: ...


def types_of(service: object) -> dict[str, list[str]]:
    """Return the fields of all described classes, as text."""
    return {
        one["name"]: [
            f"{each['name']}{'' if each['required'] else '?'}: {each['type']}"
            for each in one["fields"]
        ]
        for method in describe(build_table(service))
        for one in method.get("types", [])
    }


def test_classes_of_fields_and_nested_ones_are_described():
    class Shop:
        @trio_rpc.method
        async def buy(self, order: Order, amount: Amount = Amount(1)) -> Shelf: ...

        @trio_rpc.method
        async def find(self, *, which: Filter) -> Page[Part]: ...

    assert types_of(Shop()) == {
        "Order": ["parts: list[Part]", "buyer?: dict[str, Buyer | None]", "next?: Order | None"],
        "Part": ["weight: float", "label?: str"],
        "Buyer": ["fullName: str", "level?: Literal['new', 'old']"],
        "Shelf": ["places: tuple[Place, ...]"],
        "Place": ["x: int", "y?: int"],
        "Filter": ["text: str", "most?: int"],
        "Page[Part]": ["items: list[Part]"],
    }


def test_each_class_is_with_the_first_method_that_names_it():
    class Shop:
        @trio_rpc.method
        async def a(self, part: Part) -> None: ...

        @trio_rpc.method
        async def b(self, part: Part, place: Place) -> None: ...

        @trio_rpc.method
        async def c(self, count: int) -> Any: ...

    named = [
        [one["name"] for one in each.get("types", [])] for each in describe(build_table(Shop()))
    ]
    assert named == [["Part"], ["Place"], []]
    assert "types" not in describe(build_table(Shop()))[2]


class Calling:
    @trio_rpc.method
    async def run(self, report: Callable[[Part], Awaitable[Place]]) -> None: ...


class Reporting:
    @trio_rpc.method
    async def run(self, report: Report) -> None: ...


class Streaming:
    @trio_rpc.stream
    async def run(self, which: Filter) -> AsyncIterator[Part]:
        yield Part(1)


class Chatting:
    @trio_rpc.duplex
    async def run(self, channel: trio.abc.Channel[Part], place: Place) -> None: ...


@pytest.mark.parametrize(
    ("service", "names"),
    [
        (Calling(), {"Part", "Place"}),
        (Reporting(), {"Part", "Shelf", "Place"}),
        (Streaming(), {"Filter", "Part"}),
        (Chatting(), {"Part", "Place"}),
    ],
)
def test_callbacks_streams_and_duplexes_also_name_classes(service, names):
    assert types_of(service).keys() == names


def test_pydantic_models_have_the_keys_that_they_are_validated_from():
    pydantic = pytest.importorskip("pydantic")

    class Address(pydantic.BaseModel):
        street: str

    class User(pydantic.BaseModel):
        name: str = pydantic.Field(alias="userName")
        age: int = 0
        secret: str = pydantic.Field("", exclude=True)
        home: Address | None = None

    class Users:
        @trio_rpc.method
        async def add(self, user: User) -> None: ...

    assert types_of(Users()) == {
        "User": ["userName: str", "age?: int", "home?: Address | None"],
        "Address": ["street: str"],
    }


@dataclass
class Grows(Generic[T]):
    inner: Grows[list[T]] | None = None


def test_a_class_without_an_end_cannot_be_in_a_description():
    class Service:
        @trio_rpc.method
        async def make(self) -> Grows[int]: ...

    with pytest.raises(TypeError, match="it never ends"):
        build_table(Service())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="has no type statement")
def test_aliases_are_followed():
    module = types.ModuleType("aliases")
    sys.modules["aliases"] = module
    code = """
        import trio_rpc
        from dataclasses import dataclass
        @dataclass
        class Leaf:
            text: str
        type Tree = Leaf | list[Tree]
        class Service:
            @trio_rpc.method
            async def grow(self, tree: Tree) -> None: ...
    """
    try:
        exec(textwrap.dedent(code), vars(module))  # noqa: S102 - the syntax is new
        assert types_of(module.Service()) == {"Leaf": ["text: str"]}
    finally:
        del sys.modules["aliases"]


async def test_the_fields_arrive_over_a_session():
    async with open_session_pair(None, lambda _: Calling()) as (ours, _):
        [described] = await ours.call("trio_rpc.describe")
    assert described["types"][0] == {
        "name": "Part",
        "fields": [
            {"name": "weight", "type": "float", "required": True},
            {"name": "label", "type": "str", "required": False},
        ],
    }
