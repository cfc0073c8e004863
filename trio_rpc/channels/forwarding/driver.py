"""The driver, which reads and writes the carrier of forwarded channels.

:mod:`trio_rpc.channels.forwarding.channel` is the side that users see.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

import trio

from trio_rpc.channels.connection import linger_for
from trio_rpc.channels.errors import CHANNEL_ERRORS
from trio_rpc.channels.forwarding.core import Event, ForwardingCore, Half, SubChannel, TooLarge
from trio_rpc.channels.forwarding.frames import (
    MAX_TEXT,
    Abort,
    Accept,
    Close,
    Data,
    Goodbye,
    Open,
    Part,
    Refuse,
)
from trio_rpc.channels.optional import renews
from trio_rpc.channels.packet_writer import PacketWriter
from trio_rpc.errors import DecodeError, Refused, RemoteProtocolError
from trio_rpc.util.places import keep_all_places
from trio_rpc.util.progress import wait_while_progressing
from trio_rpc.util.text import one_line
from trio_rpc.util.time_limits import time_limit
from trio_rpc.wire.limits import Limits

__all__ = ["Driver", "ForwardedInbox"]

EVENTS_PER_TURN = 64
"""The reader yields to other tasks after this many events: a packet can hold thousands."""

_Failure: TypeAlias = Callable[[], Exception]
"""Makes the exception that an ended channel raises; each raise needs its own exception."""


class ForwardedInbox:
    """The state that the user of a channel and the driver share.

    Attributes:
        state: the core's state of the channel.
        packets: packets that have arrived and have not been received; one window at most.
        over: None until the channel has ended; then makes the exception to raise.
        receivers: the receiving task waits here.
        is_midway: whether a packet has begun to arrive and is not complete.
        last_event: the number of the carrier's last event that this channel knows of: the arrival
            of its own data, or one that it has noticed while it was silent.
        is_overtaken: whether it has been silent while data arrived for other channels.
        heard: how many times a packet or a part of one has arrived.
        senders: a sending task waits here while ``state.packet`` has not left.
    """

    __slots__ = (
        "heard",
        "is_midway",
        "is_overtaken",
        "last_event",
        "over",
        "packets",
        "receivers",
        "senders",
        "state",
    )

    def __init__(self, state: SubChannel) -> None:
        self.state = state
        self.packets: deque[bytes] = deque()
        self.over: _Failure | None = None
        self.is_midway = False
        self.is_overtaken = False
        self.last_event = 0
        self.heard = 0
        self.receivers = trio.lowlevel.ParkingLot()
        self.senders = trio.lowlevel.ParkingLot()

    def put(self, packet: bytes) -> None:
        """Queue a packet that has arrived."""
        self.heard += 1
        self.is_midway = False
        self.packets.append(packet)
        self.receivers.unpark()

    def put_part(self) -> None:
        """Record that a part of a packet has arrived."""
        self.heard += 1
        if not self.is_midway:
            self.is_midway = True
            self.receivers.unpark()  # so that it waits again, with the packet timeout

    def end(self, failure: _Failure) -> None:
        """End the channel with a failure to raise. Only the first failure counts."""
        if self.over is None:
            self.over = failure
            self.wake()

    def wake(self) -> None:
        """Wake all waiting tasks, so that they check the state again."""
        self.receivers.unpark_all()
        self.senders.unpark_all()


class Driver:
    """Runs one end of a carrier.

    It runs three tasks, and has one way to end:

    1. The reader passes each received packet to the core, and the core's events to the inboxes.
    2. The writer writes the core's queued frames: Hello first, then control frames and shares of
       packets. Each packet that it takes may wake a sender, or a task that waits for a place.
    3. The watch waits for the other end's Hello, in bounded time.
    4. ``_end`` gives every inbox the failure to raise, and ends :meth:`run`. Only the first failure
       counts. It is called by :meth:`stop`, for an error that the other end has caused (its reason
       is then sent with a Goodbye), and by ``_lose``.
    5. ``_lose`` is for an ended carrier: queued frames are dropped, and draining stops. After
       an error of the writer, the reader first handles data that has arrived, which may say why.
    6. ``_finish`` then drains the queue, lets the carrier linger and closes it, each in bounded
       time, and sets ``closed``.

    Args:
        carrier: the channel that carries the others.
        limits: the limits of this end.
        on_open: called with each channel that the other end opens.

    Attributes:
        inboxes: the inboxes of all channels that have not been closed here, by id.
        packet_timeout: seconds from the first to the last part of one packet of a channel.
        closed: set when the carrier is closed.
    """

    def __init__(
        self,
        carrier: trio.abc.Channel[bytes],
        limits: Limits,
        on_open: Callable[[ForwardedInbox], None],
    ) -> None:
        self.inboxes: dict[int, ForwardedInbox] = {}
        self.packet_timeout = limits.packet_timeout
        self.closed = trio.Event()
        self._carrier = carrier
        self._limits = limits
        self._on_open = on_open
        self._core = ForwardingCore(limits)
        self._failure: _Failure | None = None
        self._heard = 0
        """The number of received events."""
        self._ended = trio.Event()
        self._greeted = trio.Event()
        self._openers = trio.lowlevel.ParkingLot()
        self._writer = PacketWriter(carrier, self)
        self._draining = trio.CancelScope()
        self._tasks: trio.Nursery

    # ── for channels ─────────────────────────────────────────────────────────────────────────

    async def open(self, name: str) -> ForwardedInbox:
        """Open a channel: wait for a place, and for the answer; see :meth:`Forwarding.open`."""
        while self._failure is None and self._core.room <= 0:
            await self._openers.park()
        if self._failure is not None:
            raise self._failure()
        box = self._add(self._core.open(name))
        self._wake_writer()
        try:
            while box.state.theirs is Half.SILENT and box.over is None:
                await box.receivers.park()
        except BaseException:
            self.close(box)
            raise
        failure = None if box.over is None else box.over()
        if failure is None or isinstance(failure, trio.EndOfChannel):
            return box  # an orderly end follows an Accept, so ``receive`` reports it
        self.close(box)
        try:
            raise failure
        finally:
            del failure  # its traceback holds this frame

    def accept(self, box: ForwardedInbox) -> None:
        """Accept a channel that the other end has opened."""
        self._core.accept(box.state)
        self._wake_writer()

    def send(self, box: ForwardedInbox, packet: bytes) -> None:
        """Queue a packet for the writer task; ``box.state.packet`` must be None."""
        self._core.send(box.state, packet)
        self._wake_writer()

    def send_now(self, box: ForwardedInbox, packet: bytes) -> None:
        """Write a packet at once if this is the only channel, otherwise queue it.

        With more channels, their frames can leave in the same packet of the carrier.
        """
        self._core.send(box.state, packet)
        if len(self.inboxes) == 1:
            self._writer.write_now()
        else:
            self._wake_writer()

    def taken_of(self, box: ForwardedInbox) -> object:
        """Return a value that changes when the other end takes a part of the waiting packet."""
        state = box.state
        carrier = getattr(self._carrier, "taken", None) if state.queued else None
        return state.credit, len(state.packet or b""), carrier

    def renew(self, box: ForwardedInbox) -> bool:
        """Make the carrier reconnect if it seems dead; see :meth:`ForwardingChannel.renew`."""
        carrier = renews(self._carrier)
        if carrier is None or self._failure is not None:
            return False
        if box.last_event == self._heard:  # the carrier has been silent as long as this channel
            return carrier.renew()
        # Data has arrived for other channels. The carrier may have died since: look again later.
        was_overtaken, box.is_overtaken = box.is_overtaken, True
        box.last_event = self._heard
        return not was_overtaken

    def taken(self, box: ForwardedInbox, size: int) -> None:
        """Record that the user has received a packet of this size."""
        self._core.taken(box.state, size)
        self._wake_writer()

    def close(self, box: ForwardedInbox) -> None:
        """Close a channel at this end."""
        self._core.close(box.state, "it was closed before it was accepted")
        self._forget(box)

    def give_up(self, box: ForwardedInbox, reason: str) -> None:
        """Break a channel whose next packet has taken too long; its user still closes it."""
        self._core.abort(box.state, "a packet of this channel did not arrive whole in time")
        box.end(_failing(trio.BrokenResourceError, reason))
        self._wake_writer()

    def abort(self, box: ForwardedInbox, reason: str) -> None:
        """Break a channel, or refuse one that has not been accepted."""
        self._core.abort(box.state, reason)
        self._forget(box)

    def _add(self, state: SubChannel) -> ForwardedInbox:
        box = self.inboxes[state.id] = ForwardedInbox(state)
        return box

    def _forget(self, box: ForwardedInbox) -> None:
        self.inboxes.pop(box.state.id, None)
        self._wake_writer()

    # ── the tasks ────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Run until the carrier fails, or :meth:`stop`; then close the carrier."""
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as tasks:
                tasks.start_soon(self._read, name="trio_rpc forwarding reader")
                self._tasks = tasks
                self._writer.start(self)
                self._wake_writer()  # there is a Hello
                tasks.start_soon(self._watch, name="trio_rpc forwarding watch")
                try:
                    await self._ended.wait()
                finally:
                    # If a task raised an unexpected error, the nursery has been cancelled.
                    with trio.CancelScope(shield=True):
                        await self._finish()
                    tasks.cancel_scope.cancel()
        # Both refer to this object, and it refers to them: only the garbage collector would free
        # them.
        self._on_open = _ignore
        self._writer.let_go()

    def start_writer(self) -> None:
        """Start the task that writes."""
        self._tasks.start_soon(self._write, name="trio_rpc forwarding writer")

    def stop(self) -> None:
        """End the driver, because the block is over."""
        self._end(_failing(trio.ClosedResourceError, "the forwarding of this channel was closed"))

    async def _finish(self) -> None:
        """Send queued packets, let the other end read them, and close the carrier, in bounded time.

        If the carrier is lost, it is only closed.
        """
        self._draining.deadline = trio.current_time() + self._limits.shutdown_timeout
        with self._draining:
            await self._writer.drain()
        self._core.end()
        if not self._draining.cancel_called:
            await linger_for(self._carrier, self._limits.shutdown_timeout)
        with trio.move_on_after(self._limits.shutdown_timeout):
            await self._carrier.aclose()
        self.closed.set()

    async def _watch(self) -> None:
        timeout = self._limits.handshake_timeout
        try:
            async with time_limit(timeout, "the other end sent no Hello"):
                await self._greeted.wait()
        except TimeoutError as exc:
            self._lose(exc)

    async def _write(self) -> None:
        try:
            await self._writer.run()
        except CHANNEL_ERRORS as exc:
            # Data that has already arrived may say why writing fails.
            await wait_while_progressing(lambda: self._heard, self._limits.shutdown_timeout)
            self._lose(exc)
        except Exception as exc:
            self._lose(exc)
            raise  # it is a bug in the carrier

    @property
    def has_data(self) -> bool:
        """Whether anything waits to leave, if only for credit: for the writer."""
        return self._core.has_data

    def next_packet(self) -> bytes | None:
        """Return the next packet for the carrier, and wake senders whose packets it completes."""
        taken = self._core.next_packet()
        if taken is None:
            return None
        packet, emptied = taken
        for state in emptied:
            if state.id in self.inboxes:
                self.inboxes[state.id].senders.unpark()
        self._let_in()  # a last frame may have left, which frees a place
        return packet

    def hold(self, size: int) -> None:
        """Do nothing: the carrier holds one packet at most."""

    def progressed(self) -> None:
        """Do nothing: senders are woken when their packets are taken."""

    async def _read(self) -> None:
        try:
            while True:
                await self._act(await self._carrier.receive())
        except (DecodeError, RemoteProtocolError) as exc:
            self._core.fail(str(exc))
            self._end(_broken_by(exc))
        except Exception as exc:
            self._lose(exc)
            if not isinstance(exc, CHANNEL_ERRORS):
                raise

    def _lose(self, exc: Exception) -> None:
        """End all channels, because the carrier has ended and nothing more can be sent."""
        self._core.end()
        self._draining.cancel()
        self._end(_broken_by(exc))

    def _end(self, failure: _Failure) -> None:
        if self._failure is None:
            self._failure = failure
            for box in tuple(self.inboxes.values()):
                box.end(failure)
            self._openers.unpark_all()
            self._ended.set()

    def _wake_writer(self) -> None:
        """Wake the writer task, which also sends the frames that are queued later in this tick."""
        if self._core.can_send:
            self._writer.wake()

    # ── receiving ────────────────────────────────────────────────────────────────────────────

    async def _act(self, packet: bytes) -> None:
        turn = EVENTS_PER_TURN
        for event in self._core.receive(packet):
            self._on_event(event)
            self._heard += 1
            turn -= 1
            if not turn:
                turn = EVENTS_PER_TURN
                await trio.lowlevel.checkpoint()
        if self._core.greeted:
            self._greeted.set()
        self._let_in()
        self._wake_writer()

    def _let_in(self) -> None:
        """Wake as many tasks in ``open`` as there are free places."""
        if self._openers and self._core.room > 0:
            self._openers.unpark(count=self._core.room)

    def _on_event(self, event: Event) -> None:
        state, frame = event
        if state is None:
            assert isinstance(frame, Goodbye)  # noqa: S101 - the only one about no channel
            raise trio.BrokenResourceError(
                f"the other end refused a frame: {one_line(frame.reason, MAX_TEXT)}"
            )
        box = self.inboxes.get(state.id)
        if box is not None:
            box.last_event, box.is_overtaken = self._heard + 1, False
        match frame:
            case Open():
                self._on_open(self._add(state))
            case _ if box is None:
                pass  # it was closed here
            case Data(content=packet):
                box.put(packet)
            case Part():
                box.put_part()
            case Accept():
                box.wake()
            case Refuse(reason=reason):
                box.end(_failing(Refused, one_line(reason, MAX_TEXT)))
            case Close():
                box.end(trio.EndOfChannel)
            case Abort(reason=reason):
                box.end(_failing(trio.BrokenResourceError, one_line(reason, MAX_TEXT)))
            case TooLarge(limit=limit):
                box.end(_failing(DecodeError, f"a packet of more than {limit} bytes"))


def _failing(kind: type[Exception], text: str, cause: Exception | None = None) -> _Failure:
    def make() -> Exception:
        failure = kind(text)
        failure.__cause__ = cause
        return failure

    return make


def _broken_by(exc: Exception) -> _Failure:
    what = (
        "the other end closed it" if isinstance(exc, trio.EndOfChannel) else str(exc) or repr(exc)
    )
    keep_all_places(exc, _is_not_here)  # the frames refer to the driver, which keeps it
    return _failing(trio.BrokenResourceError, f"the carrier has ended: {what}", exc)


def _is_not_here(module: str) -> bool:
    return module != __name__


def _nothing() -> None:
    """Do nothing: the driver notices each packet when the writer takes it."""


def _ignore(_box: ForwardedInbox) -> None:
    """Ignore an Open, because the forwarding has ended."""
