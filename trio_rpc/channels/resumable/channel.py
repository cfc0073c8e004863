"""A channel that survives the loss of its connections, and neither loses nor repeats a packet.

:class:`~trio_rpc.channels.resumable.replay.Resumption` decides which packets are sent, kept and
sent again. This module decides which task sends them, and when. Both ends of a session have a
:class:`ResumableChannel`. They differ only in the origin of the next connection, its *carrier*: a
client makes it (``client.py``), and a server accepts it (``server.py``).

One carrier at a time
=====================

The owner of a carrier lends it to the channel with :meth:`ResumableChannel.carry` or
:meth:`ResumableChannel.accept`, which return when the carrier is no longer usable. The channel is
in one of three states::

                                              all kept packets
    DISCONNECTED -- a carrier --> CATCHING UP --- have been sent again --> CAUGHT UP
      ^                            |       ^                                  |
      |                            |       +-- a newer carrier replaces it ---+
      +----------------------------+--------- the carrier is lost ------------+

=============  ==============  ============  ====================================================
state          ``_carrier``    ``_outlet``   a packet that is sent now
=============  ==============  ============  ====================================================
DISCONNECTED   None            None          is kept, and leaves over the next carrier
CATCHING UP    the carrier     None          waits for the send lock, until catching up is done
CAUGHT UP      the carrier     an outlet     leaves through the outlet, and is kept
=============  ==============  ============  ====================================================

1. The channel receives packets from ``_carrier`` at once. Both ends catch up at the same time, and
   may send more than the connection buffers. Neither would finish if it did not also receive.
2. Only :meth:`ResumableChannel._catch_up` sends over a carrier that has not caught up. Everything
   else (a packet, an Ack, the End, the rest of a packet) goes through ``_outlet``. So nothing can
   overtake the packets that are sent again.
3. ``_catch_up`` holds the send lock until it has set the outlet. A packet is kept only by the
   holder of the lock, or through an outlet whose lock is free. So no packet can be kept after the
   packets to send again were read, and before the outlet is set.
4. :meth:`ResumableChannel._lose` clears ``_carrier`` and ``_outlet`` in one step. A task that still
   waits in the old carrier finds out that it is no longer in use when the carrier is closed.
5. After a failed send, a carrier stays for ``LAST_FRAMES_TIMEOUT`` at most, without an outlet.

A newer carrier replaces an older one, even if the older one seems to work, because a connection
that died silently looks alive from here. A server reads the number of the last received packet
(for Accept) in the same step in which it drops the older carrier. The older one may deliver one
more packet in the same tick, which must not be accepted after that.

The end
=======

``aclose`` sends the End as the last packet, and waits at most ``CLOSE_TIMEOUT`` seconds until its
arrival is known. So a Goodbye that was sent just before a connection was lost still arrives.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

import trio

from trio_rpc.channels.errors import CHANNEL_ERRORS, ChannelGuard, closed_error
from trio_rpc.channels.optional import NowaitSend, lingers, nowait_send
from trio_rpc.channels.resumable.connection_states import ConnectionState, ConnectionStates
from trio_rpc.channels.resumable.replay import Frame, Kind, Resumption, encode
from trio_rpc.channels.resumable.settings import Resume
from trio_rpc.errors import DecodeError
from trio_rpc.util.time_limits import was_blocked
from trio_rpc.util.unsent_budget import UnsentShare

__all__ = ["ResumableChannel"]

CLOSE_TIMEOUT = 5.0
"""Seconds that closing waits until the other end has acknowledged everything."""
LAST_FRAMES_TIMEOUT = 1.0
"""Seconds to receive the rest of a carrier over which nothing can be sent any more."""


class _Stage(enum.Enum):
    OPEN = "open"
    CLOSING = "closing"
    """``aclose`` waits until the other end has acknowledged everything."""
    CLOSED = "closed"


class _Outlet(NamedTuple):
    """The sending side of a carrier that has caught up.

    Attributes:
        carrier: the carrier.
        now: the same carrier if it can take a packet without waiting, otherwise None.
    """

    carrier: trio.abc.Channel[bytes]
    now: NowaitSend | None


class ResumableChannel(trio.abc.Channel[bytes]):
    """A channel over a succession of carriers. Its owner runs its tasks with :meth:`run`.

    A task must receive all the time, as a session does. Only this way does the channel see
    acknowledgements, and the loss of a connection.

    Args:
        options: grace and buffer.
        token: the secret that identifies the session to the server. Any client that knows it can
            take over the session.

    Attributes:
        token: see above.
        state: the state of its connection.
    """

    def __init__(self, options: Resume, token: bytes = b"") -> None:
        self.token = token
        self.state = ConnectionState.RECONNECTING
        self._options = options
        self._resumption = Resumption(options.buffer)
        self._carrier: trio.abc.Channel[bytes] | None = None
        self._outlet: _Outlet | None = None
        self._next_state = ConnectionState.CONNECTED
        self._lost = trio.Event()
        self._changed = trio.Event()
        """Set and replaced when the carrier changes, room is free, or everything has arrived."""
        self._ack_wanted = trio.Event()
        self._sending = trio.Lock()
        """The send lock: see the module's docstring."""
        self._guard = ChannelGuard()
        self._stage = _Stage.OPEN
        self._connections = 0
        self._failure: str | None = None

    def __repr__(self) -> str:
        state = self.state.value if self._stage is _Stage.OPEN else self._stage.value
        return f"<ResumableChannel {state}, {self._resumption.unconfirmed} packets unconfirmed>"

    # ── as a channel ─────────────────────────────────────────────────────────────────────────

    async def send(self, value: bytes) -> None:
        """Send one packet, and wait while the replay buffer is full.

        The caller does not see whether the connection is lost meanwhile. If cancelled during the
        wait, nothing was sent. If cancelled later, the packet still arrives.

        Args:
            value: the packet; at least one byte.

        Raises:
            ValueError: the packet is empty.
            trio.BrokenResourceError: the session is lost, or the other end has closed.
            trio.ClosedResourceError: this end is closed.
            trio.BusyResourceError: another task is sending.
        """
        self._check_send(value)
        self._guard.begin_sending()
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            while not self._resumption.has_room:
                await self._changed.wait()
                self._check_send(value)
            async with self._turn():
                self._check_send(value)
                frame = self._resumption.frame(value)
                self._resumption.keep(value)
                await self._pass(frame)
        finally:
            self._guard.is_sending = False

    def send_nowait(self, value: bytes) -> bool:
        """Send one packet if that needs no waiting, and return whether it was taken.

        Args:
            value: the packet; at least one byte.

        Raises:
            Exception: the same errors as :meth:`send`.
        """
        self._check_send(value)
        outlet = self._outlet
        if (
            outlet is None
            or outlet.now is None
            or self._guard.is_sending
            or self._sending.locked()
            or not self._resumption.has_room
        ):
            return False
        try:
            if not outlet.now.send_nowait(self._resumption.frame(value)):
                return False
        except CHANNEL_ERRORS:
            self._stop_sending(outlet.carrier)
        self._resumption.keep(value)
        return True

    async def flush(self) -> None:
        """Send the rest of the packets that ``send_nowait`` took."""
        async with self._turn():
            outlet = self._outlet
            if outlet is None or outlet.now is None:
                await trio.lowlevel.checkpoint()
                return
            try:
                await outlet.now.flush()
            except CHANNEL_ERRORS:
                self._stop_sending(outlet.carrier)

    @property
    def unsent(self) -> int:
        """Bytes that ``flush`` would send."""
        outlet = self._outlet
        return outlet.now.unsent if outlet is not None and outlet.now is not None else 0

    async def receive(self) -> bytes:
        """Return the next packet from any connection. If cancelled, no packet is lost.

        Raises:
            trio.EndOfChannel: the other end has closed, and everything it sent has been received.
            trio.BrokenResourceError: the session is lost. The text says why, and how many packets
                may not have arrived.
            trio.ClosedResourceError: this end is closed, or was closed while waiting.
            trio.BusyResourceError: another task is receiving.
            DecodeError: the other end violated the protocol.
        """
        self._guard.begin_receiving()
        try:
            self._check_open()
            try:
                return await self._receive()
            finally:
                self._hand_over()
        finally:
            self._guard.is_receiving = False

    async def _receive(self) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            packet = await self._pull()
            if self._is_closed_for_good():
                raise closed_error()
            if packet is not None and self._stage is _Stage.OPEN:
                return packet

    async def linger(self) -> None:
        """Wait until a peer that still sends has read the end, and everything before it.

        The channel must still be closed. Its carrier lingers as ``StreamChannel.linger`` says.
        """
        await self._leave()
        self._outlet = None  # an Ack that fails would lose the carrier
        if (lingering := lingers(self._carrier)) is not None:
            await lingering.linger()

    async def aclose(self) -> None:
        """Send the end, and wait up to ``CLOSE_TIMEOUT`` until everything sent has arrived.

        If cancelled, or already closing, this closes at once.
        """
        if self._stage is _Stage.CLOSED:
            await trio.lowlevel.checkpoint()
            return
        try:
            await self._leave()
        finally:
            carrier, self._stage = self._carrier, _Stage.CLOSED
            self._lose(carrier)
            self._resumption.forget()
            if carrier is not None:
                await carrier.aclose()

    async def _leave(self) -> None:
        if self._stage is not _Stage.OPEN:
            await trio.lowlevel.checkpoint()
            return
        self._stage = _Stage.CLOSING
        with trio.move_on_after(CLOSE_TIMEOUT):
            await trio.lowlevel.checkpoint()
            if self._failure is None:
                await self._send_end()
            await self._see_all_arrive()

    @property
    def heard(self) -> tuple[int, int]:
        """A value that changes when bytes arrive."""
        return self._connections, getattr(self._carrier, "heard", 0)

    @property
    def taken(self) -> object:
        """A value that changes when the other end reads a part of the unsent data."""
        return self.confirmed, getattr(self._carrier, "taken", None)

    # ── other methods for sessions ───────────────────────────────────────────────────────────

    def renew(self) -> bool:
        """Drop the current connection, which seems to be dead.

        Return whether there can be another one.
        """
        self._lose(self._carrier)
        return self._failure is None

    def keep_within(self, share: UnsentShare) -> None:
        """Count the kept bytes in a share; end without a connection if its budget is full.

        Args:
            share: this channel's part of the budget of all sessions of a server, in bytes.
        """
        self._resumption.share = share

    def states(self) -> ConnectionStates:
        """Return an iterator over the current and each new state, until it is lost or closed."""
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
        """Whether the channel is closed or lost, so that it needs no more carriers."""
        return self._stage is _Stage.CLOSED or self._failure is not None

    @property
    def received(self) -> int:
        """The number of the last packet that was received."""
        return self._resumption.received

    @property
    def confirmed(self) -> int:
        """The number of the last packet that the other end is known to have."""
        return self._resumption.confirmed

    @property
    def is_waiting(self) -> bool:
        """Whether the channel has no carrier and waits for one."""
        return self._carrier is None and not self.is_over

    async def carry(self, carrier: trio.abc.Channel[bytes], received: int) -> None:
        """Use a carrier at a client until it is lost or replaced, or the channel is over.

        Args:
            carrier: after its handshake.
            received: the number of the last packet that the other end has.
        """
        await self._use(carrier, received)

    async def accept(self, carrier: trio.abc.Channel[bytes], received: int) -> None:
        """Use a carrier at a server, as ``carry`` does, after sending Accept over it.

        It replaces an older carrier.

        Args:
            carrier: after the client's first packet.
            received: the number of the last packet that the other end has.
        """
        accept = Frame(Kind.ACCEPT, ack=self._resumption.received, rest=self.token)
        await self._use(carrier, received, encode(accept))

    async def _use(
        self, carrier: trio.abc.Channel[bytes], received: int, first: bytes | None = None
    ) -> None:
        """Use a carrier until it is lost.

        1. Drop the older carrier, before the packets to send again are read.
        2. Confirm the packets that the other end has. An impossible number fails the channel.
        3. Make this the current carrier, and wake the tasks that wait: receivers use it at once.
        4. Catch up in a task: send again, then set the outlet (see the module's docstring).
        5. Wait until ``_lose`` drops the carrier, or sending over it has failed. That also ends a
           task that still catches up.
        6. After a failed send, receive the frames that have arrived: a closed web page sends its
           End, and is gone.
        7. However this ends, the carrier is no longer in use.
        """
        if self.is_over:
            return
        self._drop(self._carrier)
        self._resumption.share.connect()
        try:
            frames = self._resumption.replay(received)
        except DecodeError as exc:
            self.fail(str(exc))
            return
        lost = self._lost = trio.Event()
        self._connections += 1
        self._carrier = carrier
        self._wake()  # receivers have a carrier now, and senders may have room
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._catch_up, carrier, first, frames)
                await lost.wait()
                nursery.cancel_scope.cancel()
            with trio.move_on_after(LAST_FRAMES_TIMEOUT):
                while carrier is self._carrier:
                    await self._changed.wait()
        finally:
            self._lose(carrier)

    async def _catch_up(
        self, carrier: trio.abc.Channel[bytes], first: bytes | None, frames: Iterator[bytes]
    ) -> None:
        """Send again the packets that the other end lacks, then open the outlet of this carrier."""
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
            self._stop_sending(carrier)

    def fail(self, reason: str) -> None:
        """Fail permanently; no later connection is accepted.

        Args:
            reason: the text of the errors that both directions raise.
        """
        if not self.is_over:
            count = self._resumption.unconfirmed
            kept = f"; {count} packets sent by this end may not have arrived" if count else ""
            self._failure = f"{reason}{kept}"
            self.state = ConnectionState.LOST
            self._lose(self._carrier)
            self._resumption.forget()

    async def run(self) -> None:
        """Acknowledge received packets, and fail after too long without a connection."""
        grace = self._options.grace
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._acknowledge)
            while not self.is_over:
                with trio.move_on_after(grace) as waiting:
                    while self._carrier is None and not self.is_over:
                        await self._changed.wait()
                # If this program was blocked, a new connection may wait to be accepted.
                if self._carrier is None and not was_blocked(waiting.deadline, grace):
                    self.fail(f"there was no connection for {grace:g} s")
                while self._carrier is not None:
                    await self._changed.wait()
            nursery.cancel_scope.cancel()

    async def _acknowledge(self) -> None:
        while True:
            await self._ack_wanted.wait()
            self._ack_wanted = trio.Event()
            async with self._sending:
                # Without an outlet the Ack could not be sent, so it stays due until there is one.
                if self._outlet is not None and self._resumption.is_ack_due:
                    await self._pass(self._resumption.ack())

    # ── internals ────────────────────────────────────────────────────────────────────────────

    @property
    def _has_all_arrived(self) -> bool:
        """Whether closing has nothing more to wait for."""
        has_left = self._resumption.has_peer_ended and self._carrier is None
        return self.is_over or not self._resumption.unconfirmed or has_left

    def _is_closed_for_good(self) -> bool:
        """Return whether it is closed or closing, and ``aclose`` has nothing more to receive."""
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
        if self._resumption.has_peer_ended:
            raise trio.BrokenResourceError("the other end has closed")

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Hold the send lock. There is no checkpoint if it is free, because sending has one."""
        try:
            self._sending.acquire_nowait()
        except trio.WouldBlock:
            await self._sending.acquire()
        try:
            yield
        finally:
            self._sending.release()

    async def _pass(self, frame: bytes) -> None:
        """Send a frame through the outlet, if there is one.

        If it does not get through, ``_catch_up`` sends it again over the next carrier.
        """
        outlet = self._outlet
        if outlet is None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        try:
            await outlet.carrier.send(frame)
        except CHANNEL_ERRORS:
            self._stop_sending(outlet.carrier)
        except trio.Cancelled:
            # We do not know whether the frame was sent, and no later one may arrive without it.
            self._lose(outlet.carrier)
            raise

    async def _send_end(self) -> None:
        async with self._sending:
            await self._pass(self._resumption.end())

    async def _see_all_arrive(self) -> None:
        with suppress(trio.BrokenResourceError, DecodeError):
            while not self._has_all_arrived:
                await (self._changed.wait() if self._guard.is_receiving else self._pull())

    def _hand_over(self) -> None:
        """Wake ``aclose``, if it waits, so that it receives the remaining acknowledgements."""
        if self._stage is not _Stage.OPEN:
            self._wake()

    async def _pull(self) -> bytes | None:
        """Receive the next frame from the current carrier; return its packet, or None.

        1. A channel that has failed, or whose peer has ended, raises.
        2. Without a carrier, wait for any change; the caller tries again.
        3. An error loses the carrier. The caller goes on with the next carrier.
        4. A carrier that was replaced while this waited no longer counts, because the other end
           sends its packets again over the next one.
        5. Otherwise the frame updates the numbers. An Ack that is due, a sender that waits for
           room, and ``aclose`` are then woken.
        """
        if self._failure is not None:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError(self._failure)
        carrier = self._carrier
        if self._resumption.has_peer_ended and self._stage is _Stage.OPEN:
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
            return None  # the other end sends it again over the next carrier
        before = self._resumption.unconfirmed
        packet = self._resumption.receive(data)
        if self._resumption.is_ack_due:
            self._ack_wanted.set()
        if self._resumption.unconfirmed < before and (
            self._guard.is_sending or self._stage is not _Stage.OPEN
        ):
            self._wake()
        return packet

    def _stop_sending(self, carrier: trio.abc.Channel[bytes]) -> None:
        """Send nothing more over a carrier whose sending has failed; ``_use`` then drops it."""
        if carrier is self._carrier:
            self._outlet = None
            self._lost.set()
            if not self.is_over:
                self.state = ConnectionState.RECONNECTING
            self._wake()

    def _lose(self, carrier: trio.abc.Channel[bytes] | None) -> None:
        """Stop using a carrier, if it is the current one, and do without a connection for now."""
        self._drop(carrier)
        if self.is_waiting:
            self._resumption.share.disconnect(self._give_way)

    def _give_way(self) -> None:
        self.fail("this end held too much data for its sessions, and this one had no connection")

    def _drop(self, carrier: trio.abc.Channel[bytes] | None) -> None:
        """Stop using a carrier, if it is the current one, and wake all waiting tasks."""
        if carrier is not None and carrier is self._carrier:
            self._stop_sending(carrier)
            self._carrier = None
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
