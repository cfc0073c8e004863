"""The parameter decides whether an argument is a function, a stream or data; nothing is guessed."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, NewType, TypedDict, TypeVar
from unittest.mock import AsyncMock, MagicMock

import msgspec
import pytest
import trio

import trio_rpc
from trio_rpc import TypeRegistry, duplex, method, notification, stream
from trio_rpc.testing import open_session_pair

Function = Callable[[int], Awaitable[int]]


class Both:
    """An object that is both callable and an async iterable."""

    async def __call__(self, x: int = 0) -> int:
        return x + 1

    async def __aiter__(self):
        yield 7


@dataclass
class Alive:
    """Data that is also an async iterable."""

    x: int

    async def __aiter__(self):
        yield self.x


class Rows(list):
    async def __aiter__(self):
        for row in self:
            yield row


class Row(NamedTuple):
    x: int

    async def __aiter__(self):
        yield self.x


Named = NewType("Named", Function)
Bound = TypeVar("Bound", bound=AsyncIterator[int])


class Options(TypedDict, total=False):
    on_number: Function
    numbers: AsyncIterator[int]


class Pair(NamedTuple):
    on_number: Function
    numbers: AsyncIterator[int]


class Job(msgspec.Struct, rename="camel"):
    on_number: Function
    numbers: AsyncIterator[int]
    more: int | msgspec.UnsetType = msgspec.UNSET


class Line(msgspec.Struct, array_like=True):
    on_number: Function
    numbers: AsyncIterator[int]


async def _used(function: Any, items: Any) -> list[int]:
    return [await function(1), *[item async for item in items]]


class Desk:
    def __init__(self) -> None:
        self.notes: list[Any] = []

    @method
    async def anything(self, x: Any) -> str:
        return type(x).__name__

    @stream
    async def anything_streamed(self, x: Any) -> AsyncIterator[str]:
        yield type(x).__name__

    @duplex
    async def anything_exchanged(self, channel: trio.abc.Channel[str], x: Any) -> None:
        await channel.send(type(x).__name__)

    @notification
    async def note(self, x: Any) -> None:
        self.notes.append(x)

    @notification
    async def note_alive(self, x: Alive) -> None:
        self.notes.append(x)

    @method
    async def function(self, f: Function) -> int:
        return await f(1)

    @method
    async def named(self, f: Named) -> int:
        return await f(1)

    @method
    async def items(self, items: AsyncIterator[int]) -> list[int]:
        return [item async for item in items]

    @method
    async def bound(self, items: Bound) -> list[int]:
        return [item async for item in items]

    @method
    async def either(self, one: Function | AsyncIterator[int]) -> str:
        return "function" if callable(one) else "stream"

    @method
    async def data_or_either(self, one: Alive | Function | AsyncIterator[int]) -> str:
        return type(one).__name__

    @method
    async def of_several(
        self, f: Callable[[int], Awaitable[int]] | Callable[[str], Awaitable[int]]
    ) -> int:
        return await f("1")  # type: ignore[arg-type]

    @method
    async def alive(self, x: Alive) -> int:
        return x.x

    @method
    async def row(self, x: Row) -> int:
        return x.x

    @method
    async def options(self, options: Options) -> list[int]:
        return await _used(options["on_number"], options["numbers"])

    @method
    async def pair(self, pair: Pair) -> list[int]:
        return await _used(*pair)

    @method
    async def job(self, job: Job) -> list[int]:
        assert job.more is msgspec.UNSET
        return await _used(job.on_number, job.numbers)

    @method
    async def line(self, line: Line) -> list[int]:
        return await _used(line.on_number, line.numbers)

    @method
    async def give(
        self, use: Callable[[Function, AsyncIterator[int], Alive], Awaitable[list[int]]]
    ) -> list[int]:
        return await use(Both(), Both(), Alive(5))

    @method
    async def give_anything(self, use: Callable[..., Awaitable[int]]) -> str:
        try:
            await use(Both())
        except trio_rpc.EncodeError as exc:
            return str(exc)
        return "sent"


AMBIGUOUS = {
    "object": (Both, "a function or a stream"),
    "magic mock": (MagicMock, "a function or a stream"),
    "async mock": (AsyncMock, "a function or a stream"),
    "fields": (lambda: Alive(1), "data or a stream"),
    "named tuple": (lambda: Row(1), "data or a stream"),
    "list": (lambda: Rows([1]), "data or a stream"),
}


async def _streamed(session, x):
    async with session.stream("anything_streamed", x) as items:
        return await items.receive()


async def _exchanged(session, x):
    async with session.duplex("anything_exchanged", x) as channel:
        return await channel.receive()


async def _in_scope(session, x):
    async with session.open_scope() as scope:
        return await scope.call("anything", x)


WAYS = {
    "by position": lambda session, x: session.call("anything", x),
    "by name": lambda session, x: session.call("anything", x=x),
    "in a list": lambda session, x: session.call("anything", [1, [x]]),
    "in a dict": lambda session, x: session.call("anything", {"a": {"b": x}}),
    "in a tuple": lambda session, x: session.call("anything", (x,)),
    "untyped proxy": lambda session, x: session.proxy().anything(x),
    "Any": lambda session, x: session.proxy("", Desk).anything(x),
    "stream": _streamed,
    "duplex": _exchanged,
    "scope": _in_scope,
}


async def _pass(_call, proceed):
    return await proceed()


@pytest.mark.parametrize("filters", [[], [_pass]], ids=["plain", "filtered"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", AMBIGUOUS)
async def test_an_ambiguous_argument_is_refused_at_the_caller_if_no_annotation_decides(
    what, way, filters, no_time
):
    make, either = AMBIGUOUS[what]
    options = {"filters": filters}
    async with open_session_pair(Desk(), None, options_b=options) as (_, session):
        assert await session.call("anything", 1) == "int"
        before = session.statistics().packets_sent
        with pytest.raises(
            trio_rpc.EncodeError, match=f"could be {either}.*use a proxy.*aiter"
        ) as caught:
            await WAYS[way](session, make())
        assert type(make()).__name__ in str(caught.value)
        if way != "scope":  # opening the scope is a call itself
            assert session.statistics().packets_sent == before
        assert await session.call("anything", 1) == "int"


async def test_the_remedies_named_in_the_refusal_work(session_pair, no_time):
    async with session_pair(Desk(), None) as (_, session):
        for both in (Both(), AsyncMock(return_value=2), MagicMock(return_value=2)):
            assert await session.call("function", both.__call__) == 2
        assert await session.call("items", aiter(Both())) == [7]
        assert await session.call("items", aiter(Alive(3))) == [3]
        assert await session.call("alive", {"x": 3}) == 3
        assert await session.call("anything", [*Rows([1])]) == "list"


async def test_trios_channels_are_streams_although_they_have_fields(session_pair, no_time):
    send, receive = trio.open_memory_channel[int](1)
    await send.send(1)
    send.close()
    async with session_pair(Desk(), None) as (_, session):
        assert await session.call("items", receive) == [1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: trio.open_memory_channel(1)[0],
        trio.Event,
        trio.Lock,
        trio.CancelScope,
        lambda: trio.CapacityLimiter(1),
    ],
    ids=["send channel", "event", "lock", "scope", "limiter"],
)
async def test_an_object_of_trio_has_state_and_no_data_and_cannot_be_sent(
    session_pair, no_time, make
):
    async with session_pair(Desk(), None) as (_, session):
        before = session.statistics().packets_sent
        with pytest.raises(trio_rpc.EncodeError, match=r"a value of type [A-Za-z]+ cannot be sent"):
            await session.call("anything", make())
        assert session.statistics().packets_sent == before


async def test_aliases_bounds_and_fields_in_a_parameters_annotation_also_decide(
    session_pair, no_time
):
    async with session_pair(Desk(), None) as (_, session):
        desk = session.proxy("", Desk)
        both = Both()
        assert await desk.function(both) == await desk.named(Named(both)) == 2
        assert await desk.items(both) == await desk.bound(both) == [7]  # type: ignore[arg-type, type-var]
        for interface in (session.proxy("", Desk), session.proxy("", Desk)):
            assert await interface.options({"on_number": both, "numbers": both}) == [2, 7]
            assert await interface.pair(Pair(both, both)) == [2, 7]
            assert await interface.job(Job(both, both)) == [2, 7]
            assert await interface.line(Line(both, both)) == [2, 7]
        assert await desk.alive(Alive(3)) == await desk.row(Row(3)) == 3


async def test_a_parameter_for_functions_or_streams_does_not_decide_for_an_object_that_is_both(
    session_pair,
    no_time,
):
    async with session_pair(Desk(), None) as (_, session):
        desk = session.proxy("", Desk)
        assert await desk.either(both_function := Both().__call__) == "function"
        assert await desk.data_or_either(both_function) == "Callback"
        assert await desk.either(aiter(Both())) == "stream"
        assert await desk.data_or_either(Alive(1)) == "Alive"
        with pytest.raises(trio_rpc.EncodeError, match="could be a function or a stream"):
            await desk.either(Both())
        with pytest.raises(trio_rpc.EncodeError, match="could be a function or a stream"):
            await desk.data_or_either(Both())


async def test_with_a_union_of_functions_the_arguments_of_the_callback_are_not_converted(
    session_pair,
    no_time,
):
    async def f(x):
        assert x == "1"
        return 1

    async with session_pair(Desk(), None) as (_, session):
        assert await session.proxy("", Desk).of_several(f) == 1


async def test_the_annotation_of_a_callback_at_the_handler_decides_about_its_arguments(
    session_pair, no_time
):
    async def use(f: Function, items: AsyncIterator[int], alive: Alive) -> list[int]:
        assert type(alive) is Alive
        return [*await _used(f, items), alive.x]

    async with session_pair(Desk(), None) as (_, session):
        for interface in (None, Desk):
            assert await session.proxy("", interface).give(use) == [2, 7, 5]
            text = await session.proxy("", interface).give_anything(lambda x: 1)
            assert "could be a function or a stream" in text


async def test_a_notification_accepts_data_and_refuses_functions_and_streams(
    session_pair,
    no_time,
):
    desk = Desk()
    async with session_pair(desk, None) as (_, session):
        proxy = session.proxy("", Desk)
        await proxy.note_alive(Alive(1))
        await session.notify(proxy.note_alive, Alive(2))
        async with session.open_scope() as scope:
            await scope.proxy("", Desk).note_alive(Alive(3))
        await session.ping()
        assert desk.notes == [Alive(1), Alive(2), Alive(3)]
        for lent in (print, Both(), MagicMock(), aiter(Both()), Alive):
            for way in (proxy.note, lambda x: session.notify("note", [x])):
                with pytest.raises(trio_rpc.EncodeError, match="a notification cannot carry a"):
                    await way(lent)
        with pytest.raises(trio_rpc.EncodeError, match="of type object cannot be sent"):
            await proxy.note(object())
        await session.ping()
        assert len(desk.notes) == 3


# ── registered classes ───────────────────────────────────────────────────────────────────────


class Called(Both):
    """A registered class that is also callable and an async iterable."""

    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return type(other) is Called and other.x == self.x

    __hash__ = None  # type: ignore[assignment]


def _registry() -> TypeRegistry:
    registry = TypeRegistry()
    registry.register(64, Called, lambda one: one.x, Called)
    registry.register(65, Alive, lambda one: [one.x, "registered"], lambda data: Alive(*data[:-1]))
    registry.register(66, Pair, lambda one: "a pair", lambda _: "was registered")
    return registry


class Shelf:
    def __init__(self) -> None:
        self.notes: list[Any] = []

    @method
    async def keep(self, x: Any = None, *, y: Any = None) -> Any:
        return [x, y]

    @method
    async def keep_called(self, x: Called) -> Called:
        assert type(x) is Called
        return x

    @method
    async def keep_alive(self, x: Alive | None) -> Alive | None:
        assert type(x) is Alive
        return x

    @method
    async def either(self, x: Alive | Function) -> str:
        return type(x).__name__

    @method
    async def call(self, x: Function) -> int:
        return await x(1)

    @method
    async def iterate(self, x: AsyncIterator[int]) -> list[int]:
        return [item async for item in x]

    @method
    async def pair(self, x: Pair | str) -> str:
        return x if isinstance(x, str) else "was taken apart"

    @method
    async def pass_on(self, use: Callable[[Alive, Any], Awaitable[Any]]) -> Any:
        return await use(Alive(1), Called(2))

    @notification
    async def note(self, *x: Any) -> None:
        self.notes += x

    @notification
    async def note_alive(self, x: Alive) -> None:
        self.notes.append(x)

    @stream
    async def items(self) -> AsyncIterator[Any]:
        yield Alive(1)
        yield Called(2)

    @method
    async def start(self, *, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started([Alive(1), Called(2)])


async def test_an_object_of_a_registered_class_is_sent_as_that_class(session_pair, no_time):
    both = [Alive(1), Called(2)]
    shelf = Shelf()
    options = {"registry": _registry()}
    async with session_pair(shelf, None, options_a=options, options_b=options) as (_, session):
        proxy = session.proxy("", Shelf)
        for keep in (proxy.keep, session.proxy().keep):
            for one in both:
                assert await keep(one, y={"a": (one,)}) == [one, {"a": (one,)}]
        assert await proxy.keep_called(Called(2)) == Called(2)
        assert await session.call("keep_called", Called(2)) == Called(2)
        assert await proxy.keep_alive(Alive(1)) == Alive(1)
        assert await proxy.either(Alive(1)) == "Alive"
        assert await proxy.pair(Pair(Both(), Both())) == "was registered"
        for note in (proxy.note, functools.partial(session.notify, "note")):
            await note(*both)
        await proxy.note_alive(Alive(1))
        await session.ping()
        assert shelf.notes == [*both, *both, Alive(1)]
        assert await proxy.pass_on(lambda *args: list(args)) == both
        async with proxy.items() as items:
            assert [item async for item in items] == both
        async with trio.open_nursery() as nursery:
            assert await nursery.start(proxy.start) == both


async def test_an_object_of_a_registered_class_is_referenced_if_the_parameter_requires_it(
    session_pair, no_time
):
    options = {"registry": _registry()}
    async with session_pair(Shelf(), None, options_a=options, options_b=options) as (
        _,
        session,
    ):
        proxy = session.proxy("", Shelf)
        assert await proxy.call(Called(2)) == 2
        assert await proxy.iterate(Called(2)) == [7]
        assert await proxy.iterate(Alive(3)) == [3]


async def test_a_memory_channel_is_annotated_as_the_stream_that_it_is(session_pair):
    class Desk:
        @method
        async def total(self, numbers: trio.MemoryReceiveChannel[set[int]]) -> list[set[int]]:
            return [one async for one in numbers]

        @stream
        def several(self) -> trio.MemoryReceiveChannel[set[int]]:
            send, receive = trio.open_memory_channel[set[int]](2)
            with send:
                send.send_nowait({1})
                send.send_nowait([2])  # its caller converts it
            return receive

    send, receive = trio.open_memory_channel[Any](1)
    with send:
        send.send_nowait([3])
    async with session_pair(Desk(), None) as (_, session):
        desk = session.proxy("", Desk)
        assert await desk.total(receive) == [{3}]
        async with desk.several() as items:
            assert [one async for one in items] == [{1}, {2}]
