"""A channel that outlives its connections: it goes on over the next one, and nothing is lost or doubled.

:class:`~trio_rpc.channels.resumable.replay.Resumption` says what is sent, kept and sent again. Here is who does it, and
when. Both ends of a session have a :class:`ResumableChannel`; they differ only in where the next carrier comes
from: a client makes it (``client.py``), a server is given it (``server.py``).

One carrier at a time
=====================

The owner of a carrier lends it to the channel by :meth:`ResumableChannel.carry` or :meth:`ResumableChannel.accept`, which
return when the carrier is of no use any more. The channel is in one of three states::

                                                  all that was kept
    AWAY ---- a carrier ----> CATCHING UP ------- has been sent again -------> CAUGHT UP
      ^                        |       ^                                          |
      |                        |       +------ a newer carrier takes its place ---+
      +------------------------+------------- the carrier is lost ----------------+

=============  ==============  ============  ====================================================
state          ``_carrier``    ``_outlet``   a packet that is sent now
=============  ==============  ============  ====================================================
AWAY           None            None          is kept, and leaves over the next carrier
CATCHING UP    the carrier     None          waits for its turn, which comes after the catching up
CAUGHT UP      the carrier     there         leaves through the outlet, and is kept
=============  ==============  ============  ====================================================

1. Packets are received from ``_carrier`` at once. Both ends catch up at the same time, with more perhaps than the
   connection holds, so neither would finish if it did not receive meanwhile.
2. Only :meth:`ResumableChannel._catch_up` sends over a carrier that is not caught up. Everything else, be it a packet, an
   Ack, the End or the rest of a packet, goes through ``_outlet``, so nothing can overtake what is sent again.
3. ``_catch_up`` holds the turn to send until it has put the outlet in place. Packets are kept only by the holder of the
   turn, or through an outlet whose turn is free. So no packet is kept too late to be sent again, and too early for the outlet.
4. A carrier leaves both places in one step, :meth:`ResumableChannel._lose`. A task that still waits in it learns when it
   is closed that it was no longer in use.

A newer carrier takes the place of an older one, even if that one seems to work: a connection that has died without a
word looks alive from here. A server tells the client what it has received (Accept) in the step in which the older carrier
loses its place: the older one may deliver one more packet in the same tick, and nothing of it may be taken after that.

The end
=======

``aclose`` sends the End as the last packet and waits until its arrival is known, at most ``CLOSE_TIMEOUT``
seconds. So a Goodbye that was sent just before a cut still arrives.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

import trio

from trio_rpc.channels.errors import CHANNEL_ERRORS, ChannelGuard, closed_error
from trio_rpc.channels.optional import NowaitSend, nowait_send
from trio_rpc.channels.resumable.replay import ACK_BYTES, Frame, Kind, Resumption, encode
from trio_rpc.errors import DecodeError

__all__ = [
    "ConnectionState",
    "ConnectionStates",
    "ResumableChannel",
    "Resume",
]

CLOSE_TIMEOUT = 5.0
"""Seconds that closing waits for the word that everything has arrived."""

MIN_BUFFER = 2 * ACK_BYTES
"""A smaller one would be full before the other end sees a need to acknowledge."""


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


class _Outlet(NamedTuple):
    """The sending side of a carrier over which all that was kept has been sent.

    Attributes:
        carrier: the carrier.
        now: the same, if it can take a packet over without waiting.
    """

    carrier: trio.abc.Channel[bytes]
    now: NowaitSend | None


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
        self._numbers = Resumption(options.buffer)
        self._carrier: trio.abc.Channel[bytes] | None = None
        self._outlet: _Outlet | None = None
        self._next_state = ConnectionState.CONNECTED
        self._lost = trio.Event()
        self._changed = trio.Event()
        """Set, and replaced, when there is another carrier or none, room comes free, or everything has arrived."""
        self._ack_wanted = trio.Event()
        self._sending = trio.Lock()
        """The turn to send: see the module's docstring."""
        self._guard = ChannelGuard()
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
        with self._guard.sending:
            await trio.lowlevel.checkpoint_if_cancelled()
            while not self._numbers.has_room:
                await self._changed.wait()
                self._check_send(value)
            async with self._turn():
                self._check_send(value)
                frame = self._numbers.frame(value)
                self._numbers.keep(value)
                await self._pass(frame)

    def send_nowait(self, value: bytes) -> bool:
        """Send one packet if that needs no waiting; tell whether it was taken over. Raises as ``send`` does."""
        self._check_send(value)
        outlet = self._outlet
        if (
            outlet is None
            or outlet.now is None
            or self._guard.sending.is_held
            or self._sending.locked()
            or not self._numbers.has_room
        ):
            return False
        try:
            if not outlet.now.send_nowait(self._numbers.frame(value)):
                return False
        except CHANNEL_ERRORS:
            self._lose(outlet.carrier)
        self._numbers.keep(value)
        return True

    async def flush(self) -> None:
        """Hand over what ``send_nowait`` could not."""
        async with self._turn():
            outlet = self._outlet
            if outlet is None or outlet.now is None:
                await trio.lowlevel.checkpoint()
                return
            try:
                await outlet.now.flush()
            except CHANNEL_ERRORS:
                self._lose(outlet.carrier)

    @property
    def unsent(self) -> int:
        """Bytes that ``flush`` would hand over."""
        outlet = self._outlet
        return outlet.now.unsent if outlet is not None and outlet.now is not None else 0

    async def receive(self) -> bytes:
        """Return the next packet, over whatever connection it comes. Cancelled, it has lost nothing.

        Raises:
            trio.EndOfChannel: the other end has closed, and everything it sent has been received.
            trio.BrokenResourceError: the session is lost; the text says why, and what with it.
            trio.ClosedResourceError: this end is closed, or was while waiting.
            trio.BusyResourceError: another task is receiving.
            DecodeError: the other end does not keep to the rules.
        """
        with self._guard.receiving:
            self._check_open()
            try:
                return await self._receive()
            finally:
                self._hand_over()

    async def _receive(self) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            packet = await self._pull()
            if self._is_closed_for_good():
                raise closed_error()
            if packet is not None and self._stage is _Stage.OPEN:
                return packet

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
    def confirmed(self) -> int:
        """The number of the last packet that the other end is known to have."""
        return self._numbers.confirmed

    @property
    def is_waiting(self) -> bool:
        """Whether there is no carrier, and hope of one."""
        return self._carrier is None and not self.is_over

    async def carry(self, carrier: trio.abc.Channel[bytes], received: int) -> None:
        """Use a carrier until it is lost, or another takes its place, or the channel is over: at a client.

        Args:
            carrier: after its handshake.
            received: the number of the last packet that the other end has.
        """
        await self._use(carrier, received)

    async def accept(self, carrier: trio.abc.Channel[bytes], received: int) -> None:
        """Take a carrier in the place of the older one, tell the client so, and use it: at a server; else as ``carry``."""
        accept = Frame(Kind.ACCEPT, ack=self._numbers.received, rest=self.token)
        await self._use(carrier, received, encode(accept))

    async def _use(
        self, carrier: trio.abc.Channel[bytes], received: int, first: bytes | None = None
    ) -> None:
        if self.is_over:
            return
        self._lose(self._carrier)
        try:
            frames = self._numbers.replay(received)
        except DecodeError as exc:
            self.fail(str(exc))
            return
        lost = self._lost = trio.Event()
        self._connections += 1
        self._carrier = carrier
        self._wake()  # there is something to receive from, and less is kept perhaps
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._catch_up, carrier, first, frames)
                await lost.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._lose(carrier)

    async def _catch_up(
        self, carrier: trio.abc.Channel[bytes], first: bytes | None, frames: Iterator[bytes]
    ) -> None:
        """Send again what the other end lacks; then let everything else be sent over this carrier."""
        try:
            async with self._sending:
                if first is not None:
                    await carrier.send(first)
                for frame in frames:
                    await carrier.send(frame)
                if carrier is self._carrier:
                    self._outlet = _Outlet(carrier, nowait_send(carrier))
                    self.state = self._next_state
                    self._next_state = ConnectionState.RESUMED
                    self._wake()
        except CHANNEL_ERRORS:
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
                # Without an outlet nothing would be told: it is due until there is one.
                if self._outlet is not None and self._numbers.is_ack_due:
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

    def _check_open(self) -> None:
        if self._stage is not _Stage.OPEN:
            raise closed_error()

    def _check_send(self, packet: bytes) -> None:
        self._check_open()
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
        """Send a frame through the outlet, if there is one; if it does not get through, it will be sent again."""
        outlet = self._outlet
        if outlet is None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        try:
            await outlet.carrier.send(frame)
        except CHANNEL_ERRORS:
            self._lose(outlet.carrier)
        except trio.Cancelled:
            # Whether the frame has left nobody knows, and the next one must not come without it.
            self._lose(outlet.carrier)
            raise

    async def _send_end(self) -> None:
        async with self._sending:
            await self._pass(self._numbers.end())

    async def _see_all_arrive(self) -> None:
        with suppress(trio.BrokenResourceError, DecodeError):
            while not self._has_all_arrived:
                await (self._changed.wait() if self._guard.receiving.is_held else self._pull())

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
        except CHANNEL_ERRORS:
            self._lose(carrier)
            return None
        except DecodeError:
            if carrier is not self._carrier:
                return None
            raise
        if carrier is not self._carrier:
            return None  # it comes again over the next one
        before = self._numbers.unconfirmed
        packet = self._numbers.receive(data)
        if self._numbers.is_ack_due:
            self._ack_wanted.set()
        if self._numbers.unconfirmed < before and (
            self._guard.sending.is_held or self._stage is not _Stage.OPEN
        ):
            self._wake()
        return packet

    def _lose(self, carrier: trio.abc.Channel[bytes] | None) -> None:
        """Take note that a carrier is of no use any more."""
        if carrier is not None and carrier is self._carrier:
            self._carrier = self._outlet = None
            self._lost.set()
            if not self.is_over:
                self.state = ConnectionState.RECONNECTING
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
