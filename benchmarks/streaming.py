"""The timed loops of streams, of callbacks, and of small calls beside large ones.

As in `loads`, each checks the received items: in order, without gaps.
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
"""Streams that are open at once, of which one is not read."""

WATCHING = 0.02
"""Seconds between two samples of the memory of both processes."""


async def _consume(items: Items, count: int, size: int) -> None:
    """Receive that many items. Small ones are numbers, which are checked."""
    expected = 0
    async with items(count, size) as stream:
        async for item in stream:
            assert len(item) == size if size else item == expected
            expected += 1
    assert expected == count


async def stream(bench: Bench) -> None:
    """Measure small items per second, from server to client."""
    load = bench.load
    async with bench.open() as client:
        assert client.items is not None
        while await bench.next():
            start = perf_counter()
            await _consume(client.items, load.warm_up, 0)
            count = affordable(load.count, load.warm_up, perf_counter() - start)
            meter = bench.meter()
            await _consume(client.items, count, 0)
            bench.turns.report({"rate": count / meter.seconds(), **meter.stop(count)})


async def _consume_batches(client: Calls, count: int) -> None:
    """Receive that many numbers in batches, or one by one if the client has no batches."""
    if client.batches is None:
        assert client.items is not None
        await _consume(client.items, count, 0)
        return
    expected = 0
    async with client.batches(count, 0) as stream:
        async for batch in stream:
            assert batch == list(range(expected, expected + len(batch)))
            expected += len(batch)
    assert expected == count


async def batches(bench: Bench) -> None:
    """Measure small items per second, received in batches."""
    load = bench.load
    async with bench.open() as client:
        while await bench.next():
            start = perf_counter()
            await _consume_batches(client, load.warm_up)
            count = affordable(load.count, load.warm_up, perf_counter() - start)
            meter = bench.meter()
            await _consume_batches(client, count)
            bench.turns.report({"rate": count / meter.seconds(), **meter.stop(count)})


async def exchange(bench: Bench) -> None:
    """Measure the round trip of an item on one duplex, in microseconds."""
    async with bench.open() as client:
        assert client.exchange is not None
        while await bench.next():
            async with client.exchange() as send_and_receive:
                for number in range(bench.load.warm_up):
                    assert await send_and_receive(number) == number
                samples = []
                meter = bench.meter()
                for number in range(bench.load.count):
                    start = perf_counter()
                    assert await send_and_receive(number) == number
                    samples.append(perf_counter() - start)
                used = meter.stop(bench.load.count)
            p99 = statistics.quantiles(samples, n=100)[98]
            bench.turns.report({"p50": statistics.median(samples) * 1e6, "p99": p99 * 1e6, **used})


async def bulk(bench: Bench) -> None:
    """Measure large items: MB/s, and the memory growth of both processes."""
    load, pid = bench.load, bench.target.pid
    async with bench.open() as client:
        assert client.items is not None
        while await bench.next():
            await _consume(client.items, load.warm_up, load.size)
            async with bench.loop.group() as group:
                grown = {os.getpid(): 0.0, pid: 0.0}
                group.start_soon(_watch_memory, bench.loop.sleep, grown)
                meter = bench.meter()
                await _consume(client.items, load.count, load.size)
                seconds, used = meter.seconds(), meter.stop(load.count)
                group.cancel()
            bench.turns.report(
                {
                    **used,
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
    """Measure callbacks per second: one at a time and many at once; also plain calls."""
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
                seen, meter = 0, bench.meter()
                await call_back(on_call, count, callers)
                rates[key] = count / meter.seconds()
                used = meter.stop(count)
                assert seen == count
            start = perf_counter()
            for _ in range(load.warm_up):
                await client.echo("x" * load.size)
            calls = load.warm_up / (perf_counter() - start)
            bench.turns.report(
                {"rate": rates["many"], "one": rates["one"], "share": rates["one"] / calls, **used}
            )


async def fairness(bench: Bench) -> None:
    """Measure 99 streams beside an unread one, as a share of their speed without it."""
    async with bench.open() as client:
        items = client.items
        assert items is not None
        while await bench.next():
            alone = await _rate_of_others(bench, items)
            async with items(bench.load.count * STREAMS, 0) as stopped:
                assert await anext(stopped) == 0
                meter = bench.meter()
                beside = await _rate_of_others(bench, items)
                used = meter.stop((STREAMS - 1) * bench.load.count)
            bench.turns.report({"share": beside / alone, "rate": beside, **used})


async def _rate_of_others(bench: Bench, items: Items) -> float:
    start = perf_counter()
    async with bench.loop.group() as group:
        for _ in range(STREAMS - 1):
            group.start_soon(_consume, items, bench.load.count, 0)
    return (STREAMS - 1) * bench.load.count / (perf_counter() - start)


async def mixed(bench: Bench) -> None:
    """Measure small calls while a large result is sent, relative to small calls without one."""
    async with bench.open() as client:
        get = client.get
        assert get is not None
        while await bench.next():
            await _beside(bench, client, _get, get, bench.load.size)


async def beside(bench: Bench) -> None:
    """Measure the median time of small calls while two loops echo large payloads."""
    async with bench.open() as client:
        echo = client.large
        assert echo is not None
        payload = bytes(bench.load.size)
        while await bench.next():
            await _beside(bench, client, _exchange, echo, payload, loops=2)


async def _beside(
    bench: Bench, client: Calls, work: Callable[..., Any], *arguments: Any, loops: int = 1
) -> None:
    """Report the times of small calls while those loops work, and without them."""
    idle = statistics.median(await _call_until(client.echo, bench.load.warm_up))
    left = [loops]

    async def loop() -> None:
        for _ in range(bench.load.count):
            await work(*arguments)
        left[0] -= 1

    meter = bench.meter()
    async with bench.loop.group() as group:
        for _ in range(loops):
            group.start_soon(loop)
        samples = await _call_until(client.echo, 0, left)
    used, busy = meter.stop(loops * bench.load.count), statistics.median(samples)
    bench.turns.report({"times": busy / idle, "busy": busy * 1e6, "idle": idle * 1e6, **used})


async def _get(get: Callable[[int], Awaitable[bytes]], size: int) -> None:
    assert len(await get(size)) == size


async def _exchange(echo: Callable[[bytes], Awaitable[bytes]], payload: bytes) -> None:
    assert await echo(payload) == payload


async def _call_until(
    echo: Callable[[Any], Awaitable[Any]], count: int, left: list[int] | None = None
) -> list[float]:
    """Make calls until that many are done or all loops have ended. Return their seconds."""
    samples: list[float] = []
    while len(samples) < count if left is None else left[0]:
        start = perf_counter()
        assert await echo("small") == "small"
        samples.append(perf_counter() - start)
    return samples


STREAMING = {
    "stream": stream,
    "batches": batches,
    "exchange": exchange,
    "callbacks": callbacks,
    "bulk": bulk,
    "fairness": fairness,
    "mixed": mixed,
    "beside": beside,
}
