"""Functions in the fields of arguments: the values they get, and the objects that hold them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Literal, TypeVar

import attrs
import msgspec
import pydantic
import pydantic.dataclasses
import pytest

import trio_rpc

T = TypeVar("T")


@dataclass
class Order:
    number: int


OnOrder = Callable[[Order], Awaitable[Order]]


@dataclass
class Hooks:
    on: OnOrder


@dataclass
class NamedHooks(Hooks):
    name: str = ""


@attrs.define
class AttrsHooks:
    on: OnOrder


@attrs.define
class NamedAttrsHooks(AttrsHooks):
    name: str = ""


class StructHooks(msgspec.Struct):
    on: OnOrder


class NamedStructHooks(StructHooks):
    name: str = ""


class ArrayHooks(msgspec.Struct, array_like=True):
    on: OnOrder


class NamedArrayHooks(ArrayHooks, array_like=True):
    name: str = ""


class Model(pydantic.BaseModel):
    on: OnOrder


class NamedModel(Model):
    name: str = ""


class Aliased(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")

    on: OnOrder | None = pydantic.Field(default=None, alias="onOrder")
    secret: int = pydantic.Field(default=0, exclude=True)


class GenericModel(pydantic.BaseModel, Generic[T]):
    on: Callable[[T], Awaitable[T]]


class Root(pydantic.RootModel[list[OnOrder]]):
    @property
    def on(self) -> OnOrder:
        return self.root[0]


class Tree(pydantic.BaseModel):
    on: OnOrder
    parts: list[Tree] = []


@pydantic.dataclasses.dataclass
class PydanticHooks:
    on: OnOrder


@dataclass
class Around:
    model: Model
    more: list[Model] = field(default_factory=list)


class AroundHooks(pydantic.BaseModel):
    hooks: Hooks


async def following(order: Any) -> Order:
    assert type(order) is Order, order
    return Order(order.number + 1)


def itself(value: Any) -> Any:
    return value.on


OBJECTS: dict[str, tuple[Any, Any, Callable[[Any], Any]]] = {
    "a dataclass": (Hooks, Hooks(following), itself),
    "a subclass of a dataclass": (Hooks, NamedHooks(following, "x"), itself),
    "a subclass of an attrs class": (AttrsHooks, NamedAttrsHooks(following, "x"), itself),
    "a subclass of a Struct": (StructHooks, NamedStructHooks(following, "x"), itself),
    "a subclass of an array": (ArrayHooks, NamedArrayHooks(following, "x"), itself),
    "a model": (Model, Model(on=following), itself),
    "a subclass of a model": (Model, NamedModel(on=following, name="x"), itself),
    "a model with an alias": (Aliased, Aliased(onOrder=following, more=1), itself),
    "a generic model": (GenericModel[Order], GenericModel[Order](on=following), itself),
    "a root model": (Root, Root([following]), itself),
    "a model in itself": (
        Tree,
        Tree(on=following, parts=[Tree(on=following)]),
        lambda value: value.parts[0].on,
    ),
    "a Pydantic dataclass": (PydanticHooks, PydanticHooks(following), itself),
    "a model in a dataclass": (
        Around,
        Around(Model(on=following), [Model(on=following)]),
        lambda value: value.more[0].on,
    ),
    "a dataclass in a model": (
        AroundHooks,
        AroundHooks(hooks=Hooks(following)),
        lambda value: value.hooks.on,
    ),
    "a list of models": (list[Model], [Model(on=following)], lambda value: value[0].on),
    "a model or None": (Model | None, Model(on=following), itself),
    "a model or a dataclass": (Aliased | Hooks, Aliased(onOrder=following), itself),
    "a model with metadata": (Annotated[Model, "x"], Model(on=following), itself),
}


@pytest.mark.parametrize("name", OBJECTS)
async def test_a_function_in_a_field_gets_values_of_its_annotated_types(
    session_pair, name, no_time
):
    annotation, argument, function_of = OBJECTS[name]

    class Desk:
        @trio_rpc.method
        async def run(self, value: annotation) -> Order:  # type: ignore[valid-type]
            return await function_of(value)(Order(1))

        @trio_rpc.method
        async def give(self, take: Callable[[annotation], Awaitable[None]]) -> None:  # type: ignore[valid-type]
            await take(argument)

    async def take(value: Any) -> None:
        assert await function_of(value)(Order(5)) == Order(6)

    async with session_pair(Desk(), None) as (_, session):
        proxy = session.proxy("", Desk)
        assert await proxy.run(argument) == Order(2)
        await proxy.give(take)  # lends an argument of a callback


class Began(msgspec.Struct, tag=True):
    on: OnOrder


class Ended(msgspec.Struct, tag=True):
    on: OnOrder


class Open(msgspec.Struct, tag="open", tag_field="kind", array_like=True):
    on: OnOrder


class Closed(msgspec.Struct, tag="closed", tag_field="kind", array_like=True):
    on: OnOrder


class First(msgspec.Struct, tag=1, tag_field="n"):
    on: OnOrder


class Second(msgspec.Struct, tag=2, tag_field="n"):
    on: OnOrder


class Cat(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    on: OnOrder


class Dog(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"
    on: OnOrder


class Animals:
    @trio_rpc.method
    async def event(self, one: Began | Ended) -> str:
        return type(one).__name__

    @trio_rpc.method
    async def events(self, several: dict[str, Began | Ended | None]) -> list[str]:
        return [type(one).__name__ for one in several.values()]

    @trio_rpc.method
    async def door(self, one: Open | Closed) -> str:
        return f"{type(one).__name__} {(await one.on(Order(1))).number}"

    @trio_rpc.method
    async def numbered(self, one: First | Second) -> str:
        return type(one).__name__

    @trio_rpc.method
    async def pet(
        self, one: Annotated[Cat | Dog, pydantic.Field(discriminator="kind")], other: Cat | Dog
    ) -> str:
        return f"{type(one).__name__} {type(other).__name__} {(await one.on(Order(1))).number}"


async def test_an_object_with_a_function_arrives_as_the_member_of_a_union_that_was_sent(
    session_pair, no_time
):
    async with session_pair(Animals(), None) as (_, session):
        proxy = session.proxy("", Animals)
        assert await proxy.event(Began(following)) == "Began"
        assert await proxy.event(Ended(following)) == "Ended"
        several = {"a": Ended(following), "b": None, "c": Began(following)}
        assert await proxy.events(several) == ["Ended", "NoneType", "Began"]
        assert await proxy.door(Open(following)) == "Open 2"
        assert await proxy.door(Closed(following)) == "Closed 2"
        assert await proxy.numbered(First(following)) == "First"
        assert await proxy.numbered(Second(following)) == "Second"
        assert await proxy.pet(Dog(on=following), Cat(on=following)) == "Dog Cat 2"
