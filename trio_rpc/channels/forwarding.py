"""Many channels over one: sub-channels with names, each closed alone, all gone with their carrier."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Protocol, TypeAlias, runtime_checkable

import trio

from trio_rpc.channels.forwarding_core import Event, ForwardingCore, Half, SubChannel, TooLarge
from trio_rpc.channels.forwarding_frames import (
    Abort,
    Accept,
    Close,
    Data,
    Goodbye,
    Open,
    Refuse,
    check_name,
)
from trio_rpc.channels.forwarding_routes import ChannelHandler, Router
from trio_rpc.channels.one_exception import one_exception
from trio_rpc.errors import DecodeError, Refused, RemoteProtocolError
from trio_rpc.wire.limits import DEFAULT_LIMITS, Limits

__all__ = ["Forwarding", "ForwardingChannel", "open_forwarding"]

logger = logging.getLogger("trio_rpc")

EVENTS_PER_TURN = 64
"""After so many events the reader lets others run: a packet can hold thousands."""

_Failure: TypeAlias = Callable[[], Exception]
"""Makes the exception that a channel which is over raises; each raise needs one of its own."""


_CHANNEL_ERRORS = (
    trio.EndOfChannel,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    DecodeError,
)
_CARRIER_ERRORS = (*_CHANNEL_ERRORS, OSError)


@runtime_checkable
class _WritesNow(Protocol):
    """What a carrier may offer besides: to take a packet over without waiting."""

    def send_nowait(self, value: bytes) -> bool: ...
    async def flush(self) -> None: ...
    @property
    def unsent(self) -> int: ...


class ForwardingChannel(trio.abc.Channel[bytes]):
    """One of the channels over a carrier. Two tasks may use it at once if one sends, one receives.

    Made by :meth:`Forwarding.open`, and for handlers of routes.

    Attributes:
        name: what it was opened by.
    """

    def __init__(self, driver: _Driver, state: SubChannel) -> None:
        self.name = state.name
        self._driver = driver
        self._state = state
        self._inbox: deque[bytes] = deque()
        self._over: _Failure | None = None
        self._is_new = state.ours is Half.SILENT
        self._closed = False
        self._sending = False
        self._receiving = False
        self._senders = trio.lowlevel.ParkingLot()
        self._receivers = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        state = "closed " if self._closed else ""
        return f"<{state}ForwardingChannel {self.name!r}>"

    async def send(self, value: bytes) -> None:
        """Have one packet sent; wait while the one before it waits for credit or for the carrier.

        Cancelled, it has sent nothing.

        Raises:
            ValueError: the packet is empty.
            trio.BrokenResourceError: the other end has closed the channel, or the channel or its
                carrier has failed.
            trio.ClosedResourceError: this end is closed, or was while waiting.
            trio.BusyResourceError: another task is sending.
        """
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this channel")
        self._check_send(value)
        self._sending = True
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            waited = False
            while self._state.packet is not None:
                await self._senders.park()
                waited = True
                self._check_send(value)
            self._driver.send(self._state, value)
            if not waited:
                await trio.lowlevel.cancel_shielded_checkpoint()
        finally:
            self._sending = False

    def send_nowait(self, value: bytes) -> bool:
        """Have one packet sent if none waits and no task is sending; tell whether it was taken.

        Raises as ``send`` does.
        """
        self._check_send(value)
        if self._sending or self._state.packet is not None:
            return False
        self._driver.send_now(self._state, value)
        return True

    async def flush(self) -> None:
        """Do nothing but a checkpoint: a packet that was taken over leaves by itself."""
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise trio.ClosedResourceError("this channel was closed")

    @property
    def unsent(self) -> int:
        """Always 0: a packet that was taken over leaves by itself."""
        return 0

    async def receive(self) -> bytes:
        """Return the next packet. Cancelled, it has lost nothing.

        What had come before the channel was over is returned first.

        Raises:
            trio.EndOfChannel: the other end has closed the channel.
            trio.BrokenResourceError: the channel or its carrier has failed.
            trio.ClosedResourceError: this end is closed, or was while waiting.
            trio.BusyResourceError: another task is receiving.
            DecodeError: the other end has sent a packet of more than ``limits.max_packet`` bytes.
        """
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this channel")
        self._receiving = True
        try:
            self._accept()
            await trio.lowlevel.checkpoint_if_cancelled()
            waited = False
            while not self._can_receive():
                await self._receivers.park()
                waited = True
            packet = self._inbox.popleft()
            self._driver.taken(self._state, len(packet))
            if not waited:
                await trio.lowlevel.cancel_shielded_checkpoint()
            return packet
        finally:
            self._receiving = False

    async def aclose(self) -> None:
        """Close this end; the other one still gets what was sent, then the end. It never waits."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close this end without a checkpoint; see :meth:`aclose`."""
        if not self._closed:
            self._end_here()
            self._driver.close(self._state)

    def abort(self, reason: str = "the other end gave it up") -> None:
        """Break the channel: this end is closed, and the other one gets a BrokenResourceError.

        Args:
            reason: what that says. Of a route's channel that has not been used yet it is the
                reason for which the channel is refused.
        """
        if not self._closed:
            self._end_here()
            self._driver.abort(self._state, reason)

    def _end_here(self) -> None:
        self._closed = True
        self._inbox.clear()
        self._wake()

    def _wake(self) -> None:
        self._receivers.unpark_all()
        self._senders.unpark_all()

    def _check_send(self, packet: bytes) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this channel was closed")
        if not packet:
            raise ValueError("a packet has at least one byte")
        if self._over is not None:
            failure = self._over()
            if isinstance(failure, (trio.EndOfChannel, DecodeError)):
                failure = trio.BrokenResourceError(str(failure) or "the other end has closed it")
            raise failure
        self._accept()

    def _can_receive(self) -> bool:
        """Tell whether ``receive`` has something to return or to raise."""
        if self._closed:
            raise trio.ClosedResourceError("this channel was closed")
        if self._inbox:
            return True
        if self._over is not None:
            raise self._over()
        return False

    def _accept(self) -> None:
        """Say yes to whoever opened this, now that the handler makes use of it."""
        if self._is_new:
            self._is_new = False
            if self._over is None and not self._closed:
                self._driver.accept(self._state)

    # ── what the driver does ─────────────────────────────────────────────────────────────────

    @property
    def is_over(self) -> bool:
        """Whether the other end or the carrier has ended it."""
        return self._over is not None

    def accepted(self) -> None:
        """Take note that the other end has accepted this channel."""
        self._wake()

    def put(self, packet: bytes) -> None:
        """Take in a packet that has come."""
        self._inbox.append(packet)
        self._receivers.unpark()

    def has_room(self) -> None:
        """Take note that the packet that was waiting has left."""
        self._senders.unpark()

    def end(self, failure: _Failure) -> None:
        """Take note that nothing more comes, and of what to raise for it; the first one counts."""
        if self._over is None:
            self._over = failure
            self._wake()

    async def answered(self) -> None:
        """Wait until the other end has accepted or refused this channel."""
        while self._state.theirs is Half.SILENT and self._over is None:
            await self._receivers.park()
        if self._over is not None:
            failure = self._over()
            if isinstance(failure, trio.EndOfChannel):
                return  # it was accepted, and is over already
            raise failure


class Forwarding:
    """Channels by name over a carrier; made by :func:`open_forwarding`."""

    def __init__(self, driver: _Driver) -> None:
        self._driver = driver

    def __repr__(self) -> str:
        return f"<trio_rpc.Forwarding, {len(self._driver.channels)} channels>"

    async def open(self, name: str) -> ForwardingChannel:
        """Open a channel that the other end has a route for; close it when it is done with.

        Waits for a place, of which the other end grants ``limits.max_channels``, and until its
        handler makes use of the channel or refuses it. Cancelled, it has opened none.

        Args:
            name: what the other end finds a route by: 1 to 1024 bytes in UTF-8.

        Raises:
            Refused: the other end has no such route, or its handler has refused; says why.
            ValueError: the name cannot be one.
            trio.BrokenResourceError: the carrier has failed; its ``__cause__`` says why.
            trio.ClosedResourceError: the block of this forwarding has been left.
        """
        check_name(name)
        await trio.lowlevel.checkpoint()
        channel = await self._driver.open(name)
        try:
            await channel.answered()
        except BaseException:
            channel.close()
            raise
        return channel

    async def wait_closed(self) -> None:
        """Wait until the carrier is closed, for whatever reason, and all handlers have ended.

        They still get what had come before. Not to be awaited in a handler.
        """
        await self._driver.closed.wait()
        while self._driver.running:
            await self._driver.handler_ended.park()


@asynccontextmanager
async def open_forwarding(
    carrier: trio.abc.Channel[bytes],
    routes: Mapping[str, ChannelHandler] | None = None,
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> AsyncIterator[Forwarding]:
    """Carry many channels over one, and own them until the block is left.

    Both ends open channels by name, and accept those that they have a route for. A handler of a
    route runs in a task of this block: ``async def handler(channel, **parameters)``. The channel
    is closed when the handler returns. It is accepted when the handler first sends or receives; up
    to then :class:`Refused` may be raised, with the reason for the other end. A handler that
    raises any other exception is logged, and costs only its own channel.

    The block begins at once. Leaving it cancels the handlers, lets what was sent leave for up to
    ``limits.time_to_die`` seconds, and closes the carrier, with which all channels break that were not
    closed before. Cancelling it reaches its body and the handlers; the carrier goes on until the
    body is left.

    Args:
        carrier: a fresh channel of whole packets, which this then owns.
        routes: from a pattern to a handler: ``{"plugins/{name}": serve_plugin}``. ``{name}`` is
            one part of a name, without a slash, and becomes a keyword argument. The first pattern
            that fits is taken. None: nothing is accepted.
        limits: of this end. ``max_packet`` is that of the carrier and of each channel,
            ``max_channels`` bounds what the other end opens, ``handshake_timeout`` how long it may
            take to begin.

    Raises:
        ValueError: a pattern is none.
    """
    router = Router(routes or {})
    with one_exception() as body:
        async with trio.open_nursery() as nursery:
            driver = _Driver(carrier, router, limits)
            nursery.start_soon(driver.run, name="trio_rpc forwarding")
            try:
                async with trio.open_nursery() as handlers:
                    driver.handlers = handlers
                    try:
                        yield Forwarding(driver)
                    except BaseException as exc:
                        body.append(exc)
                        raise
                    finally:
                        driver.handlers = None
                        handlers.cancel_scope.cancel(reason="the forwarding is closing")
            finally:
                driver.stop()


class _Driver:
    """Reads and writes the carrier, and knows which channel belongs to which state."""

    def __init__(self, carrier: trio.abc.Channel[bytes], router: Router, limits: Limits) -> None:
        self.channels: dict[int, ForwardingChannel] = {}
        self.closed = trio.Event()
        self.handlers: trio.Nursery | None = None
        """Where handlers run; None when no more may begin."""
        self.running = 0
        """Handlers that have begun and not ended."""
        self.handler_ended = trio.lowlevel.ParkingLot()
        self._carrier = carrier
        self._router = router
        self._limits = limits
        self._core = ForwardingCore(limits)
        self._failure: _Failure | None = None
        self._ended = trio.Event()
        self._greeted = trio.Event()
        self._openers = trio.lowlevel.ParkingLot()
        self._writer = trio.lowlevel.ParkingLot()
        self._nowait = carrier if isinstance(carrier, _WritesNow) else None
        self._held: bytes | None = None
        """A packet that was taken for the carrier, and has not left."""
        self._writing = True
        """Whether the writer has work, or may not have seen yet that it has none."""
        self._drained = trio.Event()

    # ── for channels ─────────────────────────────────────────────────────────────────────────

    async def open(self, name: str) -> ForwardingChannel:
        while self._failure is None and self._core.room <= 0:
            await self._openers.park()
        if self._failure is not None:
            raise self._failure()
        return self._add(self._core.open(name))

    def accept(self, state: SubChannel) -> None:
        self._core.accept(state)
        self._wake_writer()

    def send(self, state: SubChannel, packet: bytes) -> None:
        self._core.send(state, packet)
        self._wake_writer()

    def send_now(self, state: SubChannel, packet: bytes) -> None:
        self._core.send(state, packet)
        if len(self.channels) == 1:
            self._write_now()  # there is no other channel whose packets could go along
        else:
            self._wake_writer()

    def taken(self, state: SubChannel, size: int) -> None:
        self._core.taken(state, size)
        self._wake_writer()

    def close(self, state: SubChannel) -> None:
        self._core.close(state, "its handler has not taken it")
        self._forget(state)

    def abort(self, state: SubChannel, reason: str) -> None:
        self._core.abort(state, reason)
        self._forget(state)

    def _add(self, state: SubChannel) -> ForwardingChannel:
        channel = self.channels[state.id] = ForwardingChannel(self, state)
        self._wake_writer()
        return channel

    def _forget(self, state: SubChannel) -> None:
        self.channels.pop(state.id, None)
        self._wake_writer()

    # ── the tasks ────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as tasks:
                tasks.start_soon(self._read, name="trio_rpc forwarding reader")
                tasks.start_soon(self._write, name="trio_rpc forwarding writer")
                tasks.start_soon(self._watch, name="trio_rpc forwarding watch")
                try:
                    await self._ended.wait()
                finally:
                    # A carrier that fails in a way of its own has cancelled these tasks.
                    with trio.CancelScope(shield=True):
                        await self._finish()
                    tasks.cancel_scope.cancel()

    def stop(self) -> None:
        """End, since the block is over."""
        self._end(_failing(trio.ClosedResourceError, "the forwarding of this channel was closed"))

    async def _finish(self) -> None:
        """Let what was sent leave, and close the carrier, all in bounded time."""
        with trio.move_on_after(self._limits.time_to_die):
            while self._core.has_data or self._writing:
                self._drained = trio.Event()
                self._wake_writer()
                await self._drained.wait()
        self._core.end()
        with trio.move_on_after(self._limits.time_to_die):
            await self._carrier.aclose()
        self.closed.set()

    async def _watch(self) -> None:
        timeout = self._limits.handshake_timeout
        with trio.move_on_after(timeout):
            await self._greeted.wait()
        if not self._core.greeted:
            self._lose(TimeoutError(f"the other end did not begin to forward within {timeout:g} s"))

    async def _write(self) -> None:
        try:
            while True:
                packet = self._held or self._next()
                self._held = None
                self._writing = True
                if packet is not None:
                    await self._carrier.send(packet)
                elif self._nowait is not None and self._nowait.unsent:
                    await self._nowait.flush()
                else:
                    self._writing = False
                    self._drained.set()
                    await self._writer.park()
        except Exception as exc:
            self._lose(exc)
            if not isinstance(exc, _CARRIER_ERRORS):
                raise  # it is a bug of the carrier's

    def _write_now(self) -> None:
        """Write what waits at once as far as that cannot block; the task writes the rest."""
        if self._writing or self._nowait is None:
            self._wake_writer()
            return
        packet = self._next()
        if packet is None:
            return
        try:
            if self._nowait.send_nowait(packet):
                packet = None
        except _CARRIER_ERRORS:
            pass  # the task will run into the same, and is the one whose error is listened to
        if packet is not None or self._nowait.unsent or self._core.can_send:
            self._held = packet
            self._writing = True
            self._writer.unpark()

    def _next(self) -> bytes | None:
        """Take the next packet of the carrier; let the channels whose packets it ends send on."""
        taken = self._core.next_packet()
        if taken is None:
            return None
        packet, emptied = taken
        for state in emptied:
            if state.id in self.channels:
                self.channels[state.id].has_room()
        self._let_in()  # a last word may have left
        return packet

    async def _read(self) -> None:
        try:
            while True:
                await self._act(await self._carrier.receive())
        except (DecodeError, RemoteProtocolError) as exc:
            self._core.fail(str(exc))
            self._end(_broken_by(exc))
        except Exception as exc:
            self._lose(exc)
            if not isinstance(exc, _CARRIER_ERRORS):
                raise

    def _lose(self, exc: Exception) -> None:
        """The carrier is gone: nothing that waits can leave any more."""
        self._core.end()
        self._writing = False
        self._drained.set()
        self._end(_broken_by(exc))

    def _end(self, failure: _Failure) -> None:
        if self._failure is None:
            self._failure = failure
            for channel in tuple(self.channels.values()):
                channel.end(failure)
            self._openers.unpark_all()
            self._ended.set()

    def _wake_writer(self) -> None:
        """Have what waits written, with whatever else comes to wait in this tick."""
        if not self._writing and self._core.can_send:
            self._writing = True
            self._writer.unpark()

    # ── what comes ───────────────────────────────────────────────────────────────────────────

    async def _act(self, packet: bytes) -> None:
        turn = EVENTS_PER_TURN
        for event in self._core.receive(packet):
            self._on_event(event)
            turn -= 1
            if not turn:
                turn = EVENTS_PER_TURN
                await trio.lowlevel.checkpoint()
        if self._core.greeted:
            self._greeted.set()
        self._let_in()
        self._wake_writer()

    def _let_in(self) -> None:
        """Wake those that wait for a place, as many as there are places."""
        if self._openers and self._core.room > 0:
            self._openers.unpark(count=self._core.room)

    def _on_event(self, event: Event) -> None:
        state, frame = event
        if state is None:
            assert isinstance(frame, Goodbye)  # noqa: S101 - the only one about no channel
            raise trio.BrokenResourceError(f"the other end gave it up: {frame.reason}")
        channel = self.channels.get(state.id)
        match frame:
            case Open():
                self._on_open(state)
            case _ if channel is None:
                pass  # it was closed here
            case Data(content=packet):
                channel.put(packet)
            case Accept():
                channel.accepted()
            case Refuse(reason=reason):
                channel.end(_failing(Refused, reason))
            case Close():
                channel.end(trio.EndOfChannel)
            case Abort(reason=reason):
                channel.end(_failing(trio.BrokenResourceError, reason))
            case TooLarge(limit=limit):
                channel.end(_failing(DecodeError, f"a packet of more than {limit} bytes"))

    def _on_open(self, state: SubChannel) -> None:
        route = self._router.find(state.name)
        if route is None or self.handlers is None:
            self._core.close(state, f"there is no route for {state.name!r}")
            return
        handler, parameters = route
        channel = self._add(state)
        self.running += 1
        self.handlers.start_soon(self._handle, handler, channel, parameters, name=handler)

    async def _handle(
        self, handler: ChannelHandler, channel: ForwardingChannel, parameters: dict[str, str]
    ) -> None:
        """Run a handler. Whatever is wrong with it, it is no other channel's business."""
        try:
            await handler(channel, **parameters)
        except Refused as exc:
            channel.abort(str(exc))
        except Exception as exc:
            if channel.is_over and isinstance(exc, _CHANNEL_ERRORS):
                logger.info("the channel %r ended its handler: %r", channel.name, exc)
            else:
                logger.exception("the handler of channel %r failed", channel.name)
            channel.abort("its handler failed")
        except BaseException:
            channel.abort("its handler was cancelled")
            raise
        finally:
            channel.close()
            self.running -= 1
            self.handler_ended.unpark_all()


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
    return _failing(trio.BrokenResourceError, f"the carrier is gone: {what}", exc)
