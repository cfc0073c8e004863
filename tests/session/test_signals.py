"""Exceptions that signal an end, such as StopIteration, raised by handlers and callbacks.

They are errors for the caller and never end a stream.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio

import trio_rpc

SIGNALS = {
    "EndOfChannel": trio.EndOfChannel,
    "StopIteration": StopIteration,
    "StopAsyncIteration": StopAsyncIteration,
}


class Service:
    @trio_rpc.method
    def plain(self, name: str) -> None:
        raise SIGNALS[name]("broken off")

    @trio_rpc.method
    async def waits(self, name: str) -> None:
        await trio.lowlevel.checkpoint()
        raise SIGNALS[name]("broken off")

    @trio_rpc.method
    async def at_once(self, name: str) -> None:
        raise SIGNALS[name]("broken off")

    @trio_rpc.stream
    async def items(self, name: str) -> AsyncIterator[int]:
        yield 1
        raise SIGNALS[name]("broken off")

    @trio_rpc.stream
    def no_items(self, name: str) -> AsyncIterator[int]:
        raise SIGNALS[name]("broken off")

    @trio_rpc.duplex
    async def chat(self, channel: trio.abc.Channel[int], name: str) -> None:
        await channel.send(1)
        raise SIGNALS[name]("broken off")

    @trio_rpc.method
    async def calls_back(self, callback: Callable[[str], Awaitable[None]], name: str) -> str:
        try:
            await callback(name)
        except (trio_rpc.RemoteError, RuntimeError) as exc:
            return str(exc)
        return "returned"

    @trio_rpc.method
    async def iterates(self, numbers: AsyncIterator[int]) -> str:
        taken = []
        try:
            async for number in numbers:
                taken.append(number)
        except (trio_rpc.RemoteError, RuntimeError) as exc:
            return f"{taken} and {exc}"
        return f"complete: {taken}"


async def passes(_call, proceed):
    return await proceed()


def refuses(call, _proceed):
    raise StopIteration(call.method)


each = pytest.mark.parametrize("name", SIGNALS)
ERRORS = (trio_rpc.RemoteError, RuntimeError)


@each
@pytest.mark.parametrize("filters", [(), (passes,)], ids=["", "filtered"])
@pytest.mark.parametrize("method", ["plain", "waits", "at_once"])
async def test_a_method_that_raises_a_signal_fails(session_pair, name, filters, method):
    async with session_pair(Service(), None, options_a={"filters": filters}) as (_, session):
        with pytest.raises(ERRORS, match=name):
            await getattr(session.proxy("", Service), method)(name)


@each
@pytest.mark.parametrize("method", ["items", "no_items", "chat"])
async def test_a_stream_that_raises_a_signal_does_not_look_complete(session_pair, name, method):
    taken = []
    async with session_pair(Service(), None) as (_, session):
        with pytest.raises(ERRORS, match=name):
            async with getattr(session.proxy("", Service), method)(name) as channel:
                async for item in channel:
                    taken.append(item)
    assert taken == ([] if method == "no_items" else [1])


@each
@pytest.mark.parametrize("is_async", [True, False])
async def test_a_callback_that_raises_a_signal_fails(session_pair, name, is_async):
    def plain(name: str) -> None:
        raise SIGNALS[name]("broken off")

    async def waits(name: str) -> None:
        raise SIGNALS[name]("broken off")

    async with session_pair(Service(), None) as (_, session):
        proxy = session.proxy("", Service)
        assert name in await proxy.calls_back(waits if is_async else plain, name)


class Iterator:
    """An async iterator that is not a generator, so that Python does not convert its exceptions."""

    def __init__(self, error: type[Exception]) -> None:
        self.error = error
        self.count = 0

    def __aiter__(self):
        return self

    async def __anext__(self) -> int:
        self.count += 1
        if self.count > 1:
            raise self.error("broken off")
        return self.count


async def test_a_stream_argument_that_raises_a_signal_does_not_look_complete(session_pair):
    async with session_pair(Service(), None) as (_, session):
        proxy = session.proxy("", Service)
        assert "[1] and trio.EndOfChannel" in await proxy.iterates(Iterator(trio.EndOfChannel))
        assert "[1] and coroutine raised StopIteration" in await proxy.iterates(
            Iterator(StopIteration)
        )
        # Raising StopAsyncIteration is how an async iterator ends.
        assert await proxy.iterates(Iterator(StopAsyncIteration)) == "complete: [1]"


async def test_a_plain_function_as_a_filter_that_raises_stop_iteration_refuses_the_call(
    session_pair,
):
    async with session_pair(Service(), None, options_a={"filters": [refuses]}) as (_, session):
        with pytest.raises(RuntimeError, match="StopIteration"):
            await session.proxy("", Service).plain("EndOfChannel")
