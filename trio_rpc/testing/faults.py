"""Faults of a connection, at the level of bytes: :class:`Faults`, and a :class:`Link` with them.

One engine serves both a channel in memory (:func:`~trio_rpc.testing.open_faulty_pair`) and a proxy
between sockets (:func:`~trio_rpc.testing.open_chaos_proxy`). In each direction, one task takes
bytes and notes when they are due, and another task delivers them then. One seeded generator makes
all random choices and Trio's clock tells the time, so runs in memory under a mock clock are
reproducible.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

import trio

__all__ = ["NO_FAULTS", "Failure", "Faults", "Link"]

MAX_DELAYED = 64
"""Slices in transit in one direction. The task that takes bytes waits when there are this many."""


class Failure(enum.Enum):
    """The kind of failure of a direction after a number of bytes."""

    CUT = "cut"
    """Both ends see the end of the stream, as when a process dies."""
    RESET = "reset"
    """Both ends see a broken connection."""
    HALF_CLOSE = "half-close"
    """This direction ends; the other one goes on."""
    FREEZE = "freeze"
    """No byte moves in either direction, and neither end is notified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """The faults in one direction.

    Attributes:
        latency: seconds that each byte takes.
        jitter: additional seconds at most, at random; the order is kept.
        rate: bytes per second.
        max_slice: bytes that arrive at once at most; 1 for single bytes.
        corrupt: the index, from 0, of the byte that arrives with one of its bits flipped.
        fail_after: bytes that get through before the direction fails; None for no failure.
        failure: the kind of failure that follows.
    """

    latency: float = 0.0
    jitter: float = 0.0
    rate: float = math.inf
    max_slice: int = 64 * 1024
    corrupt: int | None = None
    fail_after: int | None = None
    failure: Failure = Failure.CUT


NO_FAULTS = Faults()

_Due: TypeAlias = tuple[float, bytes | Failure]


class Link:
    """Two streams joined, with faults in between; both are closed when it is over.

    Args:
        first: one of the streams.
        second: the other.
        forth: the faults from ``first`` to ``second``.
        back: the faults from ``second`` to ``first``.
        reset: an async function that closes a stream so that its peer sees a broken connection.
        seed: the seed of the random generator.

    Attributes:
        passed: bytes delivered so far, forth and back.
        is_over: whether both directions have ended.
    """

    def __init__(
        self,
        first: trio.abc.HalfCloseableStream,
        second: trio.abc.HalfCloseableStream,
        *,
        forth: Faults,
        back: Faults,
        reset: Callable[[trio.abc.Stream], Awaitable[None]],
        seed: int,
    ) -> None:
        random = Random(seed)  # noqa: S311 - it must be reproducible
        self._ends = (first, second)
        self._reset = reset
        self._scope = trio.CancelScope()
        self._failure = Failure.CUT
        self._thawed = trio.Event()
        self._thawed.set()
        self.passed = [0, 0]
        self.is_over = False
        self._directions = (
            _Direction(self, 0, self._ends, forth, random),
            _Direction(self, 1, self._ends, back, random),
        )

    def __repr__(self) -> str:
        state = "over, " if self.is_over else ""
        return f"<Link {state}{self.passed[0]} bytes forth, {self.passed[1]} back>"

    def cut(self) -> None:
        """End the connection: both ends see the end of the stream after the bytes that arrived."""
        self.fail(Failure.CUT)

    def reset(self) -> None:
        """Break the connection, as a reset does."""
        self.fail(Failure.RESET)

    def freeze(self) -> None:
        """Stop all bytes without telling either end."""
        if self._thawed.is_set():
            self._thawed = trio.Event()

    def thaw(self) -> None:
        """Pass bytes on again."""
        self._thawed.set()

    def fail(self, failure: Failure) -> None:
        """Fail in both directions; a half-close ends both here.

        Args:
            failure: the failure, as both ends see it.
        """
        if failure is Failure.FREEZE:
            self.freeze()
        else:
            self._failure = failure
            self._scope.cancel()

    async def wait_thawed(self) -> None:
        """Wait while the link is frozen.

        :meta private:
        """
        while not self._thawed.is_set():
            await self._thawed.wait()

    async def run(self) -> None:
        """Pass bytes until both directions have ended or the link fails; close both streams.

        :meta private:
        """
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    for direction in self._directions:
                        nursery.start_soon(direction.run, nursery)
        finally:
            self.is_over = True
            with trio.CancelScope(shield=True):
                for end in self._ends:
                    if self._failure is Failure.RESET:
                        await self._reset(end)
                    await trio.aclose_forcefully(end)


class _Direction:
    """One direction of a link: it takes bytes, keeps them until they are due, and delivers them."""

    def __init__(
        self,
        link: Link,
        number: int,
        ends: tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream],
        faults: Faults,
        random: Random,
    ) -> None:
        self._link = link
        self._number = number
        self._source = ends[number]
        self._sink = ends[1 - number]
        self._faults = faults
        self._random = random
        self._taken = 0
        self._free_at = -math.inf
        self._last_due = -math.inf

    async def run(self, nursery: trio.Nursery) -> None:
        under_way, due = trio.open_memory_channel[_Due](MAX_DELAYED)
        nursery.start_soon(self._deliver, due)
        try:
            with under_way:
                await self._take(under_way)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._link.reset()

    async def _take(self, under_way: trio.MemorySendChannel[_Due]) -> None:
        """Accept bytes, and put them in transit, except bytes that the failure drops."""
        while data := await self._source.receive_some(self._faults.max_slice):
            before, after = self._split(bytes(data))
            if before:
                await self._put(before, under_way)
            if after is not None:
                await under_way.send((self._when(0), self._faults.failure))
                if after and self._faults.failure is Failure.FREEZE:  # a frozen link loses nothing
                    await self._put(after, under_way)
        await under_way.send((self._when(0), Failure.HALF_CLOSE))

    def _split(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Split bytes where the direction fails; return None if it does not fail in them."""
        limit = self._faults.fail_after
        if limit is None or self._taken + len(data) < limit:
            return data, None
        if self._taken >= limit > 0:  # it has failed before
            return (data, None) if self._faults.failure is Failure.FREEZE else (b"", None)
        return data[: limit - self._taken], data[limit - self._taken :]

    async def _put(self, data: bytes, under_way: trio.MemorySendChannel[_Due]) -> None:
        await under_way.send((self._when(len(data)), self._corrupted(data)))
        self._taken += len(data)

    def _when(self, size: int) -> float:
        """Return the time when the next bytes are due, after earlier bytes and at the set rate."""
        faults, now = self._faults, trio.current_time()
        self._free_at = max(self._free_at, now) + size / faults.rate
        due = self._free_at + faults.latency + faults.jitter * self._random.random()
        self._last_due = max(self._last_due, due)
        return self._last_due

    def _corrupted(self, data: bytes) -> bytes:
        place = self._faults.corrupt
        if place is None or not self._taken <= place < self._taken + len(data):
            return data
        changed = bytearray(data)
        changed[place - self._taken] ^= 1 << self._random.randrange(8)
        return bytes(changed)

    async def _deliver(self, due: trio.MemoryReceiveChannel[_Due]) -> None:
        try:
            async for when, what in due:
                if when > trio.current_time():
                    await trio.sleep_until(when)
                await self._link.wait_thawed()
                if isinstance(what, bytes):
                    await self._sink.send_all(what)
                    self._link.passed[self._number] += len(what)
                elif what is Failure.HALF_CLOSE:
                    await self._sink.send_eof()
                else:
                    self._link.fail(what)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._link.reset()
