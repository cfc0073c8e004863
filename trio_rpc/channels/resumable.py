"""A channel that outlives its connections: it goes on over the next one, and nothing is lost or doubled.

:class:`~trio_rpc.channels.resumption.Numbers` says what is sent, kept and sent again. Here is who does it, and
when. Both ends of a session have a :class:`ResumableChannel`; they differ only in where the next carrier comes
from: a client makes it (``resuming.py``), a server is given it.

One carrier at a time
=====================

Whoever has a carrier lends it to the channel by :meth:`ResumableChannel.carry`, which returns when the carrier is
of no use any more. Receiving begins at once, and sending when all has been sent again that the other end lacks; both ends
do that at the same time, and neither would get to its end if it did not receive meanwhile. A newer carrier
takes the place of an older one, whatever the older one thinks of itself: a connection that has died without a word
looks alive from here.

The end
=======

``aclose`` sends the End as the last packet and waits until its arrival is known, at most ``CLOSE_TIMEOUT``
seconds. So a Goodbye that was sent just before a cut still arrives.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import trio

from trio_rpc.channels.abilities import WritesNow, writes_now
from trio_rpc.channels.resumption import ACK_BYTES, Numbers
from trio_rpc.errors import DecodeError

__all__ = [
    "CARRIER_ERRORS",
    "ConnectionState",
    "ConnectionStates",
    "ResumableChannel",
    "Resume",
]

CLOSE_TIMEOUT = 5.0
"""Seconds that closing waits for the word that everything has arrived."""

MIN_BUFFER = 2 * ACK_BYTES
"""A smaller one would be full before the other end sees a need to acknowledge."""

CARRIER_ERRORS = (
    trio.EndOfChannel,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    OSError,
)
"""What tells that a carrier is of no use any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """How a session survives the loss of its connection; times are seconds.

    Attributes:
        grace: how long a session may be without a connection before it is lost. Where a connection falls silent
            instead of breaking, one end may notice much later than the other (``Limits.keepalive_interval`` times
            ``keepalive_pings``, and a little more); the grace time has to be longer than that.
        buffer: bytes that are kept until their arrival is known; sending waits while there are more. At
            least 512 KiB.
        first_delay: a client waits up to so long before it connects again, and up to twice as long
            each time that fails; how long within that is chance's to say, so that a thousand clients of one
            server do not come back in one moment.
        max_delay: it never waits longer than this.
        max_waiting: sessions without a connection that a server keeps at most; beyond that it gives up the one
            that has waited longest.
    """

    grace: float = 120.0
    buffer: int = 4 * 1024 * 1024
    first_delay: float = 0.1
    max_delay: float = 10.0
    max_waiting: int = 4096

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise ValueError(f"Resume.{name} must be positive")
        if self.buffer < MIN_BUFFER:
            raise ValueError(f"Resume.buffer must be at least {MIN_BUFFER}")


class ConnectionState(enum.Enum):
    """How a session stands with its connection."""

    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    """The connection is lost; nothing else is, as yet."""
    RESUMED = "resumed"
    """There is another connection, and all that was under way has arrived or does so now."""
    LOST = "lost"
    """There will be none: the session is over."""


class ConnectionStates:
    """An async iterator over the states of a connection. One that is slow misses those that have passed.

    Args:
        current: tells the state; None when there will be none any more.
        wait_changed: waits until it may be another one.
    """

    def __init__(
        self,
        current: Callable[[], ConnectionState | None],
        wait_changed: Callable[[], Awaitable[None]],
    ) -> None:
        self._current = current
        self._wait_changed = wait_changed
        self._seen: ConnectionState | None = None

    def __aiter__(self) -> ConnectionStates:
        return self

    async def __anext__(self) -> ConnectionState:
        await trio.lowlevel.checkpoint()
        while True:
            state = self._current()
            if state is not None and state is not self._seen:
                self._seen = state
                return state
            if state is None or state is ConnectionState.LOST:
                raise StopAsyncIteration
            await self._wait_changed()


class _Stage(enum.Enum):
    OPEN = "open"
    CLOSING = "closing"
    """``aclose`` waits for the word that everything has arrived."""
    CLOSED = "closed"


class ResumableChannel(trio.abc.Channel[bytes]):
    """A channel over one carrier after the other. Its tasks run in :meth:`run`, which somebody owns.

    Somebody has to receive all the time, as a session does: that is how it hears of what has arrived, and of a
    connection that is lost.

    Args:
        options: grace and buffer.
        token: what names it to the server; whoever knows it can take the session over.

    Attributes:
        token: see there.
        state: of its connection.
    """

    def __init__(self, options: Resume, token: bytes = b"") -> None:
        self.token = token
        self.state = ConnectionState.RECONNECTING
        self._options = options
        self._numbers = Numbers(options.buffer)
        self._carrier: trio.abc.Channel[bytes] | None = None
        self._nowait: WritesNow | None = None
        self._next_state = ConnectionState.CONNECTED
        self._lost = trio.Event()
        self._changed = trio.Event()
        """Set, and replaced, when the state changes, room comes free, or everything has arrived."""
        self._ack_wanted = trio.Event()
        self._sending = trio.Lock()
        self._is_sending = False
        self._is_receiving = False
        self._stage = _Stage.OPEN
        self._connections = 0
        self._failure: str | None = None

    def __repr__(self) -> str:
        state = self.state.value if self._stage is _Stage.OPEN else self._stage.value
        return f"<ResumableChannel {state}, {self._numbers.unconfirmed} packets unconfirmed>"

    # ── as a channel ─────────────────────────────────────────────────────────────────────────

    async def send(self, value: bytes) -> None:
        """Send one packet; wait while too much is under way whose arrival is not known.

        That the connection is lost meanwhile does not show. Cancelled while it waits, it has sent nothing; cancelled
        later, the packet arrives all the same.

        Raises:
            ValueError: the packet is empty.
            trio.BrokenResourceError: the session is lost.
            trio.ClosedResourceError: this end is closed.
            trio.BusyResourceError: another task is sending.
        """
        self._check_send(value)
        if self._is_sending:
            raise trio.BusyResourceError("another task is sending on this channel")
        self._is_sending = True
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            while not self._numbers.has_room:
                await self._changed.wait()
                self._check_send(value)
            async with self._turn():
                self._check_send(value)
                frame = self._numbers.frame(value)
                self._numbers.keep(value)
                await self._pass(frame)
        finally:
            self._is_sending = False

    def send_nowait(self, value: bytes) -> bool:
        """Send one packet if that needs no waiting; tell whether it was taken over. Raises as ``send`` does."""
        self._check_send(value)
        if (
            self._nowait is None
            or self._is_sending
            or self._sending.locked()
            or not self._numbers.has_room
        ):
            return False
        carrier = self._carrier
        try:
            if not self._nowait.send_nowait(self._numbers.frame(value)):
                return False
        except CARRIER_ERRORS:
            self._lose(carrier)
        self._numbers.keep(value)
        return True

    async def flush(self) -> None:
        """Hand over what ``send_nowait`` could not."""
        nowait, carrier = self._nowait, self._carrier
        if nowait is None:
            await trio.lowlevel.checkpoint()
            return
        async with self._turn():
            try:
                await nowait.flush()
            except CARRIER_ERRORS:
                self._lose(carrier)

    @property
    def unsent(self) -> int:
        """Bytes that ``flush`` would hand over."""
        return self._nowait.unsent if self._nowait is not None else 0

    async def receive(self) -> bytes:
        """Return the next packet, over whatever connection it comes. Cancelled, it has lost nothing.

        Raises:
            trio.EndOfChannel: the other end has closed, and everything it sent has been received.
            trio.BrokenResourceError: the session is lost; the text says why, and what with it.
            trio.ClosedResourceError: this end is closed, or was while waiting.
            trio.BusyResourceError: another task is receiving.
            DecodeError: the other end does not keep to the rules.
        """
        if self._is_receiving:
            raise trio.BusyResourceError("another task is receiving from this channel")
        if self._stage is not _Stage.OPEN:
            raise trio.ClosedResourceError("this channel was closed")
        self._is_receiving = True
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            while True:
                packet = await self._pull()
                if self._is_closed_for_good():
                    raise trio.ClosedResourceError("this channel was closed")
                if packet is not None and self._stage is _Stage.OPEN:
                    return packet
        finally:
            self._is_receiving = False
            self._hand_over()

    async def aclose(self) -> None:
        """Close: let everything that was sent arrive, the end included, and wait a while for the word that it has.

        Cancelled, it closes at once.
        """
        if self._stage is not _Stage.OPEN:
            await trio.lowlevel.checkpoint()
            return
        self._stage = _Stage.CLOSING
        try:
            with trio.move_on_after(CLOSE_TIMEOUT):
                await trio.lowlevel.checkpoint()
                if self._failure is None:
                    await self._send_end()
                await self._see_all_arrive()
        finally:
            carrier = self._carrier
            self._stage = _Stage.CLOSED
            self._lose(carrier)
            if carrier is not None:
                await carrier.aclose()

    @property
    def heard(self) -> tuple[int, int]:
        """What changes when bytes come."""
        return self._connections, getattr(self._carrier, "heard", 0)

    # ── what sessions ask of it besides ──────────────────────────────────────────────────────

    def renew(self) -> bool:
        """Do without the present connection, which seems to be dead; tell whether there is hope of another."""
        self._lose(self._carrier)
        return self._failure is None

    def states(self) -> ConnectionStates:
        """Iterate over the state: as it is, then each new one, until the session is lost or closed."""
        return ConnectionStates(self._current_state, self._wait_changed)

    def _current_state(self) -> ConnectionState | None:
        if self._failure is not None:
            return ConnectionState.LOST
        return None if self._stage is _Stage.CLOSED else self.state

    async def _wait_changed(self) -> None:
        await self._changed.wait()

    # ── carriers ─────────────────────────────────────────────────────────────────────────────

    @property
    def is_over(self) -> bool:
        """Whether no carrier is of use any more."""
        return self._stage is _Stage.CLOSED or self._failure is not None

    @property
    def received(self) -> int:
        """The number of the last packet that has come."""
        return self._numbers.received

    @property
    def is_waiting(self) -> bool:
        """Whether there is no carrier, and hope of one."""
        return self._carrier is None and not self.is_over

    def release(self) -> None:
        """Let go of the carrier, if there is one, for a newer one; nothing more is taken from it."""
        self._lose(self._carrier)

    async def carry(self, carrier: trio.abc.Channel[bytes], received: int) -> None:
        """Use a carrier until it is lost, or another takes its place, or the channel is over.

        Args:
            carrier: after its handshake.
            received: the number of the last packet that the other end has.
        """
        if self.is_over:
            return
        lost = self._lost = trio.Event()
        self._connections += 1
        self._carrier = carrier
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._catch_up, carrier, received)
            await lost.wait()
            nursery.cancel_scope.cancel()

    async def _catch_up(self, carrier: trio.abc.Channel[bytes], received: int) -> None:
        """Send again what the other end lacks; then everything is as it was."""
        try:
            async with self._sending:
                for frame in self._numbers.replay(received):
                    await carrier.send(frame)
                if self._carrier is not carrier:
                    return
                self._nowait = writes_now(carrier)
                self.state = self._next_state
                self._next_state = ConnectionState.RESUMED
                self._wake()
        except DecodeError as exc:
            self.fail(str(exc))
        except CARRIER_ERRORS:
            self._lose(carrier)

    def fail(self, reason: str) -> None:
        """Be lost for good."""
        if not self.is_over:
            count = self._numbers.unconfirmed
            kept = f"; {count} packets of ours may not have arrived" if count else ""
            self._failure = f"{reason}{kept}"
            self.state = ConnectionState.LOST
            self._lose(self._carrier)

    async def run(self) -> None:
        """Acknowledge what has come, and give up when there was no connection for too long."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._acknowledge)
            while not self.is_over:
                with trio.move_on_after(self._options.grace):
                    while self._carrier is None and not self.is_over:
                        await self._changed.wait()
                if self._carrier is None:
                    self.fail(f"there was no connection for {self._options.grace:g} s")
                while self._carrier is not None:
                    await self._changed.wait()
            nursery.cancel_scope.cancel()

    async def _acknowledge(self) -> None:
        while True:
            await self._ack_wanted.wait()
            self._ack_wanted = trio.Event()
            async with self._sending:
                if self._numbers.is_ack_due:
                    await self._pass(self._numbers.ack())

    # ── underneath ───────────────────────────────────────────────────────────────────────────

    @property
    def _has_all_arrived(self) -> bool:
        """Whether nothing is left to wait for when closing."""
        has_left = self._numbers.has_peer_ended and self._carrier is None
        return self.is_over or not self._numbers.unconfirmed or has_left

    def _is_closed_for_good(self) -> bool:
        """Whether it is closed, and the one who closes it needs no receiver any more."""
        return self._stage is not _Stage.OPEN and self._has_all_arrived

    def _check_send(self, packet: bytes) -> None:
        if self._stage is not _Stage.OPEN:
            raise trio.ClosedResourceError("this channel was closed")
        if not packet:
            raise ValueError("a packet has at least one byte")
        if self._failure is not None:
            raise trio.BrokenResourceError(self._failure)
        if self._numbers.has_peer_ended:
            raise trio.BrokenResourceError("the other end has closed")

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Be the only one that sends; no checkpoint where nobody else wants to, for sending is one."""
        try:
            self._sending.acquire_nowait()
        except trio.WouldBlock:
            await self._sending.acquire()
        try:
            yield
        finally:
            self._sending.release()

    async def _pass(self, frame: bytes) -> None:
        """Send a frame over the carrier, if there is one; if it does not get through, it will be sent again."""
        carrier = self._carrier
        if carrier is None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        try:
            await carrier.send(frame)
        except CARRIER_ERRORS:
            self._lose(carrier)
        except trio.Cancelled:
            # Whether the frame has left nobody knows, and the next one must not come without it.
            self._lose(carrier)
            raise

    async def _send_end(self) -> None:
        async with self._sending:
            await self._pass(self._numbers.end())

    async def _see_all_arrive(self) -> None:
        with suppress(trio.BrokenResourceError, DecodeError):
            while not self._has_all_arrived:
                await (self._changed.wait() if self._is_receiving else self._pull())

    def _hand_over(self) -> None:
        """Let the one who closes receive: it still has something to hear."""
        if self._stage is not _Stage.OPEN:
            self._wake()

    async def _pull(self) -> bytes | None:
        """Take what comes next over whatever carrier there is; None if that is no packet."""
        if self._failure is not None:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError(self._failure)
        carrier = self._carrier
        if self._numbers.has_peer_ended and self._stage is _Stage.OPEN:
            await trio.lowlevel.checkpoint()
            raise trio.EndOfChannel
        if carrier is None:
            await self._changed.wait()
            return None
        try:
            data = await carrier.receive()
        except CARRIER_ERRORS:
            self._lose(carrier)
            return None
        if carrier is not self._carrier:
            return None  # it comes again over the next one
        before = self._numbers.unconfirmed
        packet = self._numbers.receive(data)
        if self._numbers.is_ack_due:
            self._ack_wanted.set()
        if self._numbers.unconfirmed < before and (
            self._is_sending or self._stage is not _Stage.OPEN
        ):
            self._wake()
        return packet

    def _lose(self, carrier: trio.abc.Channel[bytes] | None) -> None:
        """Take note that a carrier is of no use any more."""
        if carrier is not None and carrier is self._carrier:
            self._carrier = self._nowait = None
            self._lost.set()
            if not self.is_over:
                self.state = ConnectionState.RECONNECTING
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
