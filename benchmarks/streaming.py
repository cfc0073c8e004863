"""The timed loops of what lives: streams, callbacks, and small calls beside large ones.

As in `loads`, each checks what came: items in order, without gaps.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from time import perf_counter
from typing import Any, TypeAlias

from benchmarks.interface import Calls, Measurement
from benchmarks.loads import Bench, affordable
from benchmarks.machine import resident_bytes

Items: TypeAlias = Callable[[int, int], AbstractAsyncContextManager[AsyncIterator[Any]]]

__all__ = ["STREAMING"]

STREAMS = 100
"""Streams that are open at once where one of them is not read."""

WATCHING = 0.02
"""Seconds between two looks at the memory of both processes."""


async def _consume(items: Items, count: int, size: int) -> None:
    """Take that many items; small ones are numbers, which are compared."""
    expected = 0
    async with items(count, size) as stream:
        async for item in stream:
            assert len(item) == size if size else item == expected
            expected += 1
    assert expected == count


async def stream(bench: Bench) -> None:
    """Small items a second, server to client."""
    load = bench.load
    async with bench.open() as client:
        assert client.items is not None
        while await bench.next():
            start = perf_counter()
            await _consume(client.items, load.warm_up, 0)
            count = affordable(load.count, load.warm_up, perf_counter() - start)
            start = perf_counter()
            await _consume(client.items, count, 0)
            bench.turns.report({"rate": count / (perf_counter() - start)})


async def exchange(bench: Bench) -> None:
    """Items there and back on one stream both ways, in microseconds."""
    async with bench.open() as client:
        assert client.exchange is not None
        while await bench.next():
            async with client.exchange() as send_and_receive:
                samples = []
                for number in range(bench.load.warm_up + bench.load.count):
                    start = perf_counter()
                    assert await send_and_receive(number) == number
                    samples.append(perf_counter() - start)
            del samples[: bench.load.warm_up]
            p99 = statistics.quantiles(samples, n=100)[98]
            bench.turns.report({"p50": statistics.median(samples) * 1e6, "p99": p99 * 1e6})


async def bulk(bench: Bench) -> None:
    """Large items: 10^6 bytes a second, and what both processes grow by meanwhile."""
    load, pid = bench.load, bench.target.pid
    async with bench.open() as client:
        assert client.items is not None
        while await bench.next():
            await _consume(client.items, load.warm_up, load.size)
            async with bench.loop.group() as group:
                grown = {os.getpid(): 0.0, pid: 0.0}
                group.start_soon(_watch_memory, bench.loop.sleep, grown)
                start = perf_counter()
                await _consume(client.items, load.count, load.size)
                seconds = perf_counter() - start
                group.cancel()
            bench.turns.report(
                {
                    "rate": load.count * load.size / seconds / 1e6,
                    "client": grown[os.getpid()],
                    "server": grown[pid],
                }
            )


async def _watch_memory(sleep: Callable[[float], Awaitable[None]], grown: dict[int, float]) -> None:
    before = {pid: resident_bytes(pid) for pid in grown}
    while True:
        for pid, bytes_before in before.items():
            grown[pid] = max(grown[pid], (resident_bytes(pid) - bytes_before) / 1e6)
        await sleep(WATCHING)


async def callbacks(bench: Bench) -> None:
    """Callbacks a second from the server: one at a time, and many at once; and plain calls."""
    load = bench.load
    seen = 0

    async def on_call(value: str) -> str:
        nonlocal seen
        seen += 1
        return value

    async with bench.open() as client:
        call_back = client.call_back
        assert call_back is not None
        while await bench.next():
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
            bench.turns.report(
                {"rate": rates["many"], "one": rates["one"], "share": rates["one"] / calls}
            )


async def fairness(bench: Bench) -> None:
    """How fast 99 streams are beside one that is not read, as a share of their speed without it."""
    async with bench.open() as client:
        items = client.items
        assert items is not None
        while await bench.next():
            alone = await _rate_of_others(bench, items)
            async with items(bench.load.count * STREAMS, 0) as stopped:
                assert await anext(stopped) == 0
                beside = await _rate_of_others(bench, items)
            bench.turns.report({"share": beside / alone, "rate": beside})


async def _rate_of_others(bench: Bench, items: Items) -> float:
    start = perf_counter()
    async with bench.loop.group() as group:
        for _ in range(STREAMS - 1):
            group.start_soon(_consume, items, bench.load.count, 0)
    return (STREAMS - 1) * bench.load.count / (perf_counter() - start)


async def mixed(bench: Bench) -> None:
    """The median time of small calls while a large result travels, in medians without one."""
    async with bench.open() as client:
        get = client.get
        assert get is not None
        while await bench.next():
            await _beside(bench, client, _get, get, bench.load.size)


async def beside(bench: Bench) -> None:
    """The median time of small calls while two loops echo large payloads."""
    async with bench.open() as client:
        echo = client.large
        assert echo is not None
        payload = bytes(bench.load.size)
        while await bench.next():
            await _beside(bench, client, _exchange, echo, payload, loops=2)


async def _beside(
    bench: Bench, client: Calls, work: Callable[..., Any], *arguments: Any, loops: int = 1
) -> None:
    """Report what small calls take while those loops do that work, and without them."""
    idle = statistics.median(await _call_until(client.echo, bench.load.warm_up))
    left = [loops]

    async def loop() -> None:
        for _ in range(bench.load.count):
            await work(*arguments)
        left[0] -= 1

    async with bench.loop.group() as group:
        for _ in range(loops):
            group.start_soon(loop)
        busy = statistics.median(await _call_until(client.echo, 0, left))
    bench.turns.report({"times": busy / idle, "busy": busy * 1e6, "idle": idle * 1e6})


async def _get(get: Callable[[int], Awaitable[bytes]], size: int) -> None:
    assert len(await get(size)) == size


async def _exchange(echo: Callable[[bytes], Awaitable[bytes]], payload: bytes) -> None:
    assert await echo(payload) == payload


async def _call_until(
    echo: Callable[[Any], Awaitable[Any]], count: int, left: list[int] | None = None
) -> list[float]:
    """Call that often, or until none of the loops is left; return the seconds of each call."""
    samples: list[float] = []
    while len(samples) < count if left is None else left[0]:
        start = perf_counter()
        assert await echo("small") == "small"
        samples.append(perf_counter() - start)
    return samples


STREAMING = {
    "stream": stream,
    "exchange": exchange,
    "callbacks": callbacks,
    "bulk": bulk,
    "fairness": fairness,
    "mixed": mixed,
    "beside": beside,
}
