"""The service of the soak's servers. Each handler writes its begin and its end to the ledger."""

from __future__ import annotations

import contextlib
import gc
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import trio

import trio_rpc

from .ledger import Ledger
from .levels import memory


class RefusedOnPurpose(Exception):
    """The error that the method ``refuse`` declares."""


class Service:
    """Calls, callbacks, streams both ways and duplexes."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    @contextlib.contextmanager
    def _run(self, label: int) -> Iterator[None]:
        self._ledger.write(label, "begin", "")
        try:
            yield
        finally:
            self._ledger.write(label, "end", "")

    @trio_rpc.method
    async def work(self, label: int, seconds: float) -> int:
        with self._run(label):
            await trio.sleep(seconds)
            return label + 1

    @trio_rpc.method
    async def slow_to_end(self, label: int, seconds: float) -> None:
        """Wait until cancelled, and then end only after some time."""
        with self._run(label):
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(seconds)

    @trio_rpc.method
    def large(self, label: int, content: bytes) -> bytes:
        with self._run(label):
            return content

    @trio_rpc.method(raises=(RefusedOnPurpose,))
    async def refuse(self, label: int) -> None:
        with self._run(label):
            raise RefusedOnPurpose(label)

    @trio_rpc.method
    async def ask(self, label: int, question: Callable[[int], Awaitable[int]]) -> list[int]:
        with self._run(label):
            return [await question(number) for number in range(3)]

    @trio_rpc.method
    async def collect(self, label: int, numbers: AsyncIterator[int]) -> int:
        """Return how many numbers arrived, or -1 if one was missing or out of order."""
        with self._run(label):
            expected = 0
            async for number in numbers:
                if number != expected:
                    return -1
                expected += 1
            return expected

    @trio_rpc.stream
    async def count(self) -> AsyncIterator[int]:
        for number in itertools.count():
            yield number

    @trio_rpc.duplex
    async def echo(self, channel: trio.abc.Channel[int]) -> None:
        async for number in channel:
            await channel.send(number)

    @trio_rpc.method
    def tasks(self) -> int:
        """Return the number of tasks in this process, after a collection of garbage."""
        gc.collect()
        return trio.lowlevel.current_statistics().tasks_living

    @trio_rpc.method
    def memory(self) -> tuple[float, float]:
        """Return the resident memory of this process, and the free part of its heap, in MiB."""
        return memory()
