"""A generic class with type arguments is a service, an interface and the owner of callbacks."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

import pytest

import trio_rpc
from trio_rpc.gateway.json_values import JsonRead
from trio_rpc.services.tables import build_table
from trio_rpc.testing import open_session_pair

T = TypeVar("T")
K = TypeVar("K")


@dataclass
class Order:
    number: int


ORDER = Order(1)


class Store(Generic[T]):
    @trio_rpc.method
    async def put(self, value: T, more: list[T]) -> dict[str, T]:
        assert more == [value]
        return {"value": value}

    @trio_rpc.stream
    async def values(self, value: T) -> AsyncIterator[T]:
        yield value

    @trio_rpc.method
    async def ask(self, back: Callable[[T], Awaitable[T]], value: T) -> T:
        return await back(value)


class Named(Store[T], Generic[K, T]):
    """Has its type variables in another order than its base."""


class Slotted(Generic[T]):
    """Python cannot keep the type arguments of its objects."""

    __slots__ = ()

    @trio_rpc.method
    async def put(self, value: T) -> T:
        return value


Stores = [(Store[Order], Store[Order]), (Named[str, Order], Store[Order])]


@pytest.mark.parametrize(("made", "interface"), Stores)
async def test_values_are_converted_to_the_type_arguments_of_service_and_interface(made, interface):
    seen: list[object] = []

    async def back(value):
        seen.append(value)
        return value

    async with open_session_pair(made()) as (_, session):
        proxy = session.proxy("", interface)
        assert await proxy.put(ORDER, [ORDER]) == {"value": ORDER}
        async with proxy.values(ORDER) as values:
            assert await values.receive() == ORDER
        assert await proxy.ask(back, ORDER) == ORDER
        assert seen == [ORDER]
        with pytest.raises(trio_rpc.InvalidArguments, match="Expected `dict`, got `str`"):
            await session.call("put", "no", [])


async def test_proxies_of_two_specialisations_of_one_interface_are_told_apart():
    class Echo:
        @trio_rpc.method
        async def put(self, value: Any, more: Any) -> Any:
            return {"value": value}

    async with open_session_pair(Echo()) as (_, session):
        orders, texts = session.proxy("", Store[Order]), session.proxy("", Store[str])
        assert await orders.put(ORDER, []) == {"value": ORDER}
        assert await texts.put("a", []) == {"value": "a"}
        with pytest.raises(trio_rpc.DecodeError, match="Expected `str`, got `dict`"):
            await texts.put(ORDER, [])  # type: ignore[arg-type]
        assert repr(orders) == "<proxy of '' as Store>"
        with pytest.raises(AttributeError, match="Store has no remote method 'get'"):
            orders.get  # type: ignore[attr-defined] # noqa: B018


async def test_an_identifier_may_have_a_generic_interface_with_type_arguments():
    class Orders:
        @trio_rpc.method
        async def put(self, value, more):
            assert value == ORDER
            return {"value": value}

        @trio_rpc.stream
        async def values(self, value):
            yield value

        @trio_rpc.method
        async def ask(self, back, value):
            return await back(value)

    async def back(value):
        return value

    orders = trio_rpc.Identifier("orders", Store[Order])
    for service in (Orders(), Store[Order]()):
        async with open_session_pair({orders: service}) as (_, session):
            proxy = session.proxy(orders)
            assert await proxy.put(ORDER, [ORDER]) == {"value": ORDER}
            assert await proxy.ask(back, ORDER) == ORDER
            async with proxy.values(ORDER) as values:
                assert await values.receive() == ORDER


def test_a_service_with_other_type_arguments_than_its_identifier_is_refused():
    orders = trio_rpc.Identifier("orders", Store[Order])
    with pytest.raises(
        TypeError, match=r"Store does not fit Store: put\(\): its parameter 'value'"
    ):
        build_table({orders: Store[str]()})


def test_only_a_class_with_type_arguments_is_an_interface():
    for wrong, why in ((list[int], "list has no methods"), (int | str, "must be a class")):
        with pytest.raises(TypeError, match=why):
            trio_rpc.Identifier("orders", wrong)  # type: ignore[arg-type]


async def test_a_service_made_for_each_session_keeps_its_type_arguments():
    async with open_session_pair(lambda _session: Store[Order]()) as (_, session):
        assert await session.proxy("", Store[Order]).put(ORDER, [ORDER]) == {"value": ORDER}


def test_a_gateway_reads_arguments_as_the_type_arguments_say():
    method = build_table(Store[Order]())["put"]
    args = {"value": {"number": 1}, "more": [{"number": 1}]}
    assert method.signature.bind_names(args, JsonRead()) == {"value": ORDER, "more": [ORDER]}


async def test_type_arguments_that_python_does_not_keep_or_cannot_compare_are_not_used():
    async with open_session_pair({"a": Slotted[Order](), "b": Store[Annotated[int, []]]()}) as (
        _,
        session,
    ):
        assert await session.call("a.put", 1) == 1
        assert await session.call("b.put", "a", ["a"]) == {"value": "a"}


class Sink(Generic[T]):
    def __init__(self) -> None:
        self.seen: list[T] = []

    async def put(self, value: T) -> None:
        self.seen.append(value)

    async def __call__(self, value: T) -> None:
        self.seen.append(value)


class OrderSink(Sink[Order]):
    pass


class Caller:
    @trio_rpc.method
    async def tell(self, back: Callable[..., Awaitable[object]]) -> None:
        await back(ORDER)


def wrapped(function):
    @functools.wraps(function)
    async def wrapper(*args):
        return await function(*args)

    return wrapper


@pytest.mark.parametrize("made", [Sink[Order], OrderSink])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda sink: sink.put,
        lambda sink: sink,
        lambda sink: functools.partial(sink.put),
        lambda sink: functools.partial(sink),
        lambda sink: wrapped(sink.put),
        lambda sink: functools.partial(wrapped(functools.partial(sink.put))),
    ],
    ids=["method", "object", "partial", "partial object", "wrapper", "partial wrapper of partial"],
)
async def test_a_callback_of_a_generic_object_gets_its_arguments_converted(made, wrap):
    sink = made()
    async with open_session_pair(Caller()) as (_, session):
        await session.call("tell", wrap(sink))
    assert sink.seen == [ORDER]
