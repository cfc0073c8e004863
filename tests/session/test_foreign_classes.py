"""A parameter that only a TypeRegistry could fill is refused at registration without one."""

from __future__ import annotations

import collections
import dataclasses
import numbers
import re
import types
from collections.abc import Awaitable, Callable, Hashable, Sized
from typing import Annotated, Any, NewType, Protocol, Self, SupportsInt, runtime_checkable

import pytest
import trio

import trio_rpc
from trio_rpc.gateway import Gateway
from trio_rpc.testing import memory_channel_pair


class Connection:
    """A class without fields."""

    def __init__(self, number: int = 0):
        self.number = number


class Callee:
    def __call__(self, number: int) -> int:
        return number


@runtime_checkable
class HasName(Protocol):
    name: str


def service_of(annotation: Any, default: Any = ...):
    if default is ...:

        async def take(self, x): ...

    else:

        async def take(self, x=default): ...

    take.__annotations__["x"] = annotation
    return type("Service", (), {"take": trio_rpc.method(take)})()


async def _open_session(services, **options):
    ours, _ = memory_channel_pair()
    async with trio_rpc.open_session(ours, services, **options):
        raise AssertionError("it must not open")


async def _open_server(services, **options):
    async with trio_rpc.open_server(services, "tcp://127.0.0.1:0", **options):
        raise AssertionError("it must not listen")


async def _open_pool(services, **options):
    async with trio_rpc.open_pool("tcp://127.0.0.1:1", services=services, **options):
        raise AssertionError("it must not open")


async def _service_client(services, **options):
    trio_rpc.ServiceClient(target=services, **options)


async def _gateway(services):
    Gateway(services)


OPENERS = [_open_session, _open_server, _open_pool, _service_client, _gateway]
NEVER = [
    Connection,
    Callee,
    range,
    re.Pattern[str],
    Annotated[Connection, "about"],
    NewType("Line", Connection),
    types.MappingProxyType[str, int],
    types.SimpleNamespace,
    collections.ChainMap[str, int],
    collections.UserDict,
]


@pytest.mark.parametrize("opener", OPENERS, ids=lambda each: each.__name__[1:])
async def test_each_opener_refuses_a_parameter_that_no_value_fits(opener):
    text = r"take.*: no value for parameter 'x' can ever arrive, because Connection has no fields:"
    instead = "make it a dataclass" if opener is _gateway else "make it a dataclass, or register"
    with pytest.raises(TypeError, match=f"{text} {instead}"):
        await opener(service_of(Connection))


@pytest.mark.parametrize("annotation", NEVER, ids=str)
async def test_a_class_without_fields_is_refused(annotation):
    with pytest.raises(TypeError, match="no value for parameter 'x' can ever arrive"):
        await _open_session(service_of(annotation))


@pytest.mark.parametrize(
    "annotation",
    [
        *(object, numbers.Number, Hashable, Sized, SupportsInt, HasName, bytearray, memoryview),
        *(Connection | None, list[Connection], trio.abc.ReceiveChannel[int], Self),
        Callable[[Connection], Awaitable[None]],
    ],
    ids=str,
)
async def test_a_parameter_that_some_value_fits_is_accepted(annotation, session_pair):
    async with session_pair(service_of(annotation), None):
        pass


async def test_a_parameter_with_a_default_need_not_be_given(session_pair):
    async with session_pair(service_of(Connection, Connection()), None) as (_, session):
        await session.call("take")


async def test_a_registry_may_carry_any_class(session_pair):
    registry = trio_rpc.TypeRegistry()
    registry.register(64, Connection, lambda one: one.number, Connection)
    options = {"registry": registry}
    service = service_of(Connection)
    async with session_pair(service, None, options_a=options, options_b=options) as (
        _,
        session,
    ):
        await session.call("take", Connection(5))


async def test_a_service_that_is_set_later_is_refused_as_well(session_pair):
    async with session_pair(None, None) as (session, _):
        with pytest.raises(TypeError, match="no value for parameter 'x' can ever arrive"):
            session.set("late", service_of(Connection))


@dataclasses.dataclass(frozen=True)
class Place:
    row: int


class Boards:
    @trio_rpc.method
    async def show(self, board: dict[Place, int]) -> dict[Place, int]:
        return board


async def test_an_object_with_fields_is_a_key_only_if_a_registry_carries_it(session_pair):
    registry = trio_rpc.TypeRegistry()
    registry.register(64, Place, lambda one: one.row, Place)
    options = {"registry": registry}
    async with session_pair(Boards(), None, options_a=options, options_b=options) as (
        _,
        session,
    ):
        assert await session.proxy("", Boards).show({Place(1): 2}) == {Place(1): 2}
    async with session_pair(Boards(), None) as (_, session):
        with pytest.raises(
            trio_rpc.EncodeError, match=r"send a list of pairs, or register its class"
        ):
            await session.proxy("", Boards).show({Place(1): 2})
