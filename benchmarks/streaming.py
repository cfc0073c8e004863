"""The timed loops of what lives: streams, callbacks, and small calls beside large ones.

As in `loads`, each checks what came: items in order, without gaps.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from time import perf_counter
from typing import TYPE_CHECKING, Any

import trio

from benchmarks.machine import resident_bytes
from benchmarks.parts import Load

if TYPE_CHECKING:
    from benchmarks.adapter import Calls, Measurement, Target, Turns

    OpenClient = Callable[[str], AbstractAsyncContextManager[Calls]]
    Items = Callable[[int, int], AbstractAsyncContextManager[AsyncIterator[Any]]]

__all__ = ["STREAMING"]

STREAMS = 100
"""Streams that are open at once where one of them is not read."""

WATCHING = 0.02
"""Seconds between two looks at the memory of both processes."""


async def _next(turns: Turns) -> bool:
    return await trio.to_thread.run_sync(turns.wait, abandon_on_cancel=True)


async def _consume(items: Items, count: int, size: int) -> None:
    """Take that many items; small ones are numbers, which are compared."""
    expected = 0
    async with items(count, size) as stream:
        async for item in stream:
            assert len(item) == size if size else item == expected
            expected += 1
    assert expected == count


async def stream(open_client: OpenClient, target: Target, load: Load, turns: Turns) -> None:
    """Small items a second, server to client."""
    async with open_client(target.urls[0]) as client:
        assert client.items is not None
        while await _next(turns):
            await _consume(client.items, load.warm_up, 0)
            start = perf_counter()
            await _consume(client.items, load.count, 0)
            turns.report({"rate": load.count / (perf_counter() - start)})


async def bulk(open_client: OpenClient, target: Target, load: Load, turns: Turns) -> None:
    """Large items: 10^6 bytes a second, and what both processes grow by meanwhile."""
    async with open_client(target.urls[0]) as client:
        assert client.items is not None
        while await _next(turns):
            await _consume(client.items, load.warm_up, load.size)
            async with trio.open_nursery() as nursery:
                grown = {os.getpid(): 0.0, target.pid: 0.0}
                nursery.start_soon(_watch_memory, grown)
                start = perf_counter()
                await _consume(client.items, load.count, load.size)
                seconds = perf_counter() - start
                nursery.cancel_scope.cancel()
            turns.report(
                {
                    "rate": load.count * load.size / seconds / 1e6,
                    "client": grown[os.getpid()],
                    "server": grown[target.pid],
                }
            )


async def _watch_memory(grown: dict[int, float]) -> None:
    before = {pid: resident_bytes(pid) for pid in grown}
    while True:
        for pid, bytes_before in before.items():
            grown[pid] = max(grown[pid], (resident_bytes(pid) - bytes_before) / 1e6)
        await trio.sleep(WATCHING)


async def callbacks(open_client: OpenClient, target: Target, load: Load, turns: Turns) -> None:
    """Callbacks a second from the server: one at a time, and many at once; and plain calls."""
    seen = 0

    async def on_call(value: str) -> str:
        nonlocal seen
        seen += 1
        return value

    async with open_client(target.urls[0]) as client:
        call_back = client.call_back
        assert call_back is not None
        while await _next(turns):
            rates: Measurement = {}
            for key, count, callers in (
                ("one", load.warm_up, 1),
                ("many", load.count, load.callers),
            ):
                await call_back(on_call, load.warm_up, callers)
                seen, start = 0, perf_counter()
                await call_back(on_call, count, callers)
                rates[key] = count / (perf_counter() - start)
                assert seen == count
            start = perf_counter()
            for _ in range(load.warm_up):
                await client.echo("x" * load.size)
            calls = load.warm_up / (perf_counter() - start)
            turns.report(
                {"rate": rates["many"], "one": rates["one"], "share": rates["one"] / calls}
            )


async def fairness(open_client: OpenClient, target: Target, load: Load, turns: Turns) -> None:
    """How fast 99 streams are beside one that is not read, as a share of their speed without it."""
    async with open_client(target.urls[0]) as client:
        items = client.items
        assert items is not None
        while await _next(turns):
            alone = await _rate_of_others(items, load)
            async with items(load.count * STREAMS, 0) as stopped:
                assert await anext(stopped) == 0
                beside = await _rate_of_others(items, load)
            turns.report({"share": beside / alone, "rate": beside})


async def _rate_of_others(items: Items, load: Load) -> float:
    start = perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(STREAMS - 1):
            nursery.start_soon(_consume, items, load.count, 0)
    return (STREAMS - 1) * load.count / (perf_counter() - start)


async def mixed(open_client: OpenClient, target: Target, load: Load, turns: Turns) -> None:
    """The median time of small calls while a large result travels, in medians without one."""
    async with open_client(target.urls[0]) as client:
        get = client.get
        assert get is not None
        while await _next(turns):
            idle = statistics.median(await _call_until(client.echo, load.warm_up))
            done = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_get, get, load, done)
                busy = statistics.median(await _call_until(client.echo, load.warm_up, done))
            turns.report({"times": busy / idle, "busy": busy * 1e6, "idle": idle * 1e6})


async def _get(get: Callable[[int], Awaitable[bytes]], load: Load, done: trio.Event) -> None:
    for _ in range(load.count):
        assert len(await get(load.size)) == load.size
    done.set()


async def _call_until(
    echo: Callable[[Any], Awaitable[Any]], count: int, done: trio.Event | None = None
) -> list[float]:
    """Call that often, or until something is done; return the seconds of each call."""
    samples: list[float] = []
    while len(samples) < count if done is None else not done.is_set():
        start = perf_counter()
        assert await echo("small") == "small"
        samples.append(perf_counter() - start)
    return samples


STREAMING = {
    "stream": stream,
    "callbacks": callbacks,
    "bulk": bulk,
    "fairness": fairness,
    "mixed": mixed,
}
