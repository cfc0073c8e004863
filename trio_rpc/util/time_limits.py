"""Time limits for a peer, which do not count time in which this program was blocked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final, TypeVar, TypeVarTuple

import trio

from trio_rpc.util.one_exception import raise_alone
from trio_rpc.util.places import catching, keep_places

__all__ = [
    "LISTENING",
    "PUNCTUAL",
    "PacketTimer",
    "SilenceTimer",
    "connect_limit",
    "time_limit",
    "time_limit_in",
    "was_blocked",
]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

PUNCTUAL: Final = 0.1
"""A program that notices the end of an interval later than this fraction of it was blocked."""

LISTENING: Final = 10
"""The looks for an answer in the last tenth of the time after which a peer is given up."""


def was_blocked(deadline: float, interval: float) -> bool:
    """Return whether this program itself was blocked when an interval ended.

    Args:
        deadline: the time when the interval ended.
        interval: its length in seconds.
    """
    return trio.current_time() - deadline > interval * PUNCTUAL


@contextmanager
@trio.lowlevel.enable_ki_protection
def connect_limit(seconds: float, complaint: str) -> Iterator[None]:
    """Raise TimeoutError with the text ``complaint`` if a TCP connection takes longer to make.

    It needs no task, unlike :func:`time_limit`. No bytes of the peer can lie unread yet, and Trio
    hands out the events of sockets before it looks at deadlines, so a connection that was made
    while this program was blocked is in time.
    """
    with catching(trio.move_on_after(seconds)) as scope:
        yield
    if scope.cancelled_caught:
        raise TimeoutError(f"{complaint} within {seconds:g} s")


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def time_limit(
    seconds: float, complaint: str, body: trio.CancelScope | None = None
) -> AsyncIterator[None]:
    """Call :func:`time_limit_in` with a nursery for the block.

    An exception of the block is raised without a group.
    """
    failure: BaseException | None = None
    try:
        try:
            async with trio.open_nursery() as nursery:
                try:
                    with time_limit_in(nursery, seconds, complaint, body):
                        yield
                except BaseException as exc:  # noqa: BLE001 - the nursery would make a group of it
                    failure = exc
        except BaseException:  # a cancellation from outside replaces the block's own exception
            if failure is not None:
                keep_places(failure)
            raise
        if failure is not None:
            raise_alone(failure)
    finally:
        del failure  # its traceback holds this frame


@contextmanager
@trio.lowlevel.enable_ki_protection
def time_limit_in(
    nursery: trio.Nursery, seconds: float, complaint: str, body: trio.CancelScope | None = None
) -> Iterator[None]:
    """Raise TimeoutError (an OSError) with the text ``complaint`` if the block takes longer.

    If this program was blocked when the time was over, the block gets as much time again, because
    the peer's answer may lie unread.

    Args:
        nursery: for the task that watches the time, and ends soon after the block.
        seconds: the time for the block.
        complaint: the text, without the time.
        body: a fresh scope; if it is cancelled, the block ends early with the same error.
    """
    deadline = trio.current_time() + seconds
    body = body or trio.CancelScope()
    alarm = _Alarm(body, seconds)
    nursery.start_soon(alarm.run)
    try:
        with catching(body):
            yield
    finally:
        alarm.stop()
    if body.cancelled_caught:
        is_late = trio.current_time() >= deadline
        until = f"within {seconds:g} s" if is_late else "until newer clients needed its place"
        raise TimeoutError(f"{complaint} {until}")


class _Alarm:
    """Cancels a block when its time is over, but not if this program was blocked at that time.

    Args:
        body: the scope of the block.
        seconds: the time that the block has from now on.
    """

    __slots__ = ("_body", "_has_stopped", "_seconds", "_wait")

    def __init__(self, body: trio.CancelScope, seconds: float) -> None:
        self._body = body
        self._seconds = seconds
        self._has_stopped = False
        self._wait = trio.CancelScope(deadline=trio.current_time() + seconds)

    async def run(self) -> None:
        """Wait for the time to be over, or for :meth:`stop`."""
        while not self._has_stopped:
            deadline = self._wait.deadline
            with self._wait:
                await trio.sleep_forever()
            if not self._has_stopped and not was_blocked(deadline, self._seconds):
                self._body.cancel(reason="the time is over")
                return
            self._wait = trio.CancelScope(deadline=trio.current_time() + self._seconds)

    def stop(self) -> None:
        """End :meth:`run`, because the block has ended."""
        self._has_stopped = True
        self._wait.cancel(reason="the block has ended")


class SilenceTimer:
    """The seconds that a peer may be silent; this program must listen during the last tenth.

    A program that was blocked until just before the end wakes up in time, although an answer is
    still in a socket or in other tasks. So the last tenth has ``LISTENING`` looks.

    Args:
        seconds: the time that the peer has.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.heard()

    def heard(self) -> None:
        """Start the time again."""
        self._looks = 0
        self.deadline = trio.current_time() + self._seconds * (1 - PUNCTUAL)
        """The time of the next look."""

    def is_over(self) -> bool:
        """Return whether the peer's time is over, at the time of a look that has found nothing."""
        if was_blocked(self.deadline, self._seconds):
            self.heard()
            return False
        self._looks += 1
        self.deadline = trio.current_time() + self._seconds * PUNCTUAL / LISTENING
        return self._looks > LISTENING


class PacketTimer:
    """The seconds that a peer has for one packet, from the first byte to the last.

    Time in which no task waits for the packet does not count, nor does time in which this program
    was blocked.

    Args:
        seconds: the time for each packet.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._left = seconds

    def renew(self) -> None:
        """Begin the time of the next packet."""
        self._left = self._seconds

    async def wait(self, function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T | None:
        """Wait for more of a packet, and return the function's result.

        Returns None if it was cancelled because this program was blocked, so that the rest may have
        arrived unread: look for it, and wait again.

        Args:
            function: waits for more of the packet. If it is cancelled, nothing is lost.
            args: its arguments.

        Raises:
            trio.BrokenResourceError: the peer has used up its time.
        """
        started = trio.current_time()
        deadline = started + self._left
        with trio.CancelScope(deadline=deadline):
            try:
                return await function(*args)
            finally:
                self._left -= trio.current_time() - started
        if was_blocked(deadline, self._seconds):
            self.renew()
            return None
        raise trio.BrokenResourceError(
            f"the peer began a packet and took more than {self._seconds:g} s over it"
        )
