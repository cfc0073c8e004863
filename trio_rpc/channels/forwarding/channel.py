"""Forwarded channels: each has a name and is closed separately, and all end with their carrier."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import trio

from trio_rpc.channels.errors import CHANNEL_ENDS, ChannelGuard
from trio_rpc.channels.forwarding.core import Half
from trio_rpc.channels.forwarding.driver import Driver, ForwardedInbox
from trio_rpc.channels.forwarding.frames import check_name
from trio_rpc.channels.forwarding.routes import ChannelHandler, Router
from trio_rpc.errors import DecodeError, Refused, RemoteProtocolError
from trio_rpc.util.one_exception import one_exception
from trio_rpc.util.owner import Owner
from trio_rpc.util.per_run import PerRun
from trio_rpc.util.raised import text_of
from trio_rpc.util.rate_limited_log import RateLimitedLog
from trio_rpc.util.time_limits import PacketTimer
from trio_rpc.wire.limits import DEFAULT_LIMITS, Limits

__all__ = ["Forwarding", "ForwardingChannel", "open_forwarding"]

logger = logging.getLogger("trio_rpc")

_complaints = PerRun("trio_rpc forwarding", lambda: RateLimitedLog(logger))
"""Shared by all forwardings of a Trio run, so that a peer gets no more lines by reconnecting."""


_PEERS_ENDS = (*CHANNEL_ENDS, DecodeError, RemoteProtocolError)
"""The errors by which a handler, or a session in it, learns that its channel has ended."""


class ForwardingChannel(trio.abc.Channel[bytes]):
    """One channel over a carrier. Two tasks may use it at once if one sends and one receives.

    Made by :meth:`Forwarding.open`, and for the handlers of routes.

    Attributes:
        name: the name by which it was opened.
    """

    def __init__(self, driver: Driver, box: ForwardedInbox) -> None:
        self.name = box.state.name
        self._driver = driver
        self._box = box
        self._is_new = box.state.ours is Half.SILENT
        self._guard = ChannelGuard()
        self._timer = PacketTimer(driver.packet_timeout)

    def __repr__(self) -> str:
        state = "closed " if self._guard.is_closed else ""
        return f"<{state}ForwardingChannel {self.name!r}>"

    async def send(self, value: bytes) -> None:
        """Queue one packet, and wait while the previous one waits for credit or for the carrier.

        If cancelled, nothing was sent.

        Args:
            value: the packet; at least one byte.

        Raises:
            ValueError: the packet is empty.
            trio.BrokenResourceError: the other end has closed the channel, or the channel or its
                carrier has failed.
            trio.ClosedResourceError: this end is closed, or was closed while waiting.
            trio.BusyResourceError: another task is sending.
        """
        self._guard.begin_sending()
        try:
            self._check_send(value)
            await trio.lowlevel.checkpoint_if_cancelled()
            waited = False
            while self._box.state.packet is not None:
                await self._box.senders.park()
                waited = True
                self._check_send(value)
            self._driver.send(self._box, value)
            if not waited:
                await trio.lowlevel.cancel_shielded_checkpoint()
        finally:
            self._guard.is_sending = False

    def send_nowait(self, value: bytes) -> bool:
        """Queue one packet if none waits and no task is sending; return whether it was taken.

        Args:
            value: the packet; at least one byte.

        Raises:
            Exception: the same errors as :meth:`send`.
        """
        self._check_send(value)
        if self._guard.is_sending or self._box.state.packet is not None:
            return False
        self._driver.send_now(self._box, value)
        return True

    async def flush(self) -> None:
        """Execute a checkpoint only: the driver sends packets that were taken."""
        await trio.lowlevel.checkpoint()
        self._guard.check_open()

    @property
    def unsent(self) -> int:
        """Always 0: the driver sends packets that were taken."""
        return 0

    @property
    def heard(self) -> int:
        """The number of times that data arrived: a sign of life, even inside a packet."""
        return self._box.heard

    @property
    def taken(self) -> object:
        """A value that changes when the other end reads a part of the unsent data.

        If it has granted credit, the packet waits for the carrier, whose progress counts.
        """
        return self._driver.taken_of(self._box)

    def renew(self) -> bool:
        """Make the carrier connect again, since this channel has been silent for too long.

        The connection is dropped only if it has been silent as long as this channel. So one silent
        channel does not interrupt the others.

        Return whether this channel may recover: the carrier can connect again, and no data has
        arrived for other channels since the last time that this was called.
        """
        return self._driver.renew(self._box)

    @property
    def is_over(self) -> bool:
        """Whether the other end or the carrier ended it. Earlier packets can still be received."""
        return self._box.over is not None

    @property
    def is_closed(self) -> bool:
        """Whether this end was closed."""
        return self._guard.is_closed

    async def receive(self) -> bytes:
        """Return the next packet. If cancelled, no packet is lost.

        Packets that arrived before the channel ended are returned first.

        Raises:
            trio.EndOfChannel: the other end has closed the channel.
            trio.BrokenResourceError: the channel or its carrier has failed, or a packet took too
                long.
            trio.ClosedResourceError: this end is closed, or was closed while waiting.
            trio.BusyResourceError: another task is receiving.
            DecodeError: the other end has sent a packet of more than ``limits.max_packet`` bytes.
        """
        self._guard.begin_receiving()
        try:
            self._accept()
            await trio.lowlevel.checkpoint_if_cancelled()
            waited = False
            while not self._can_receive():
                await self._wait_for_packet()
                waited = True
            self._timer.renew()
            packet = self._box.packets.popleft()
            self._driver.taken(self._box, len(packet))
            if not waited:
                await trio.lowlevel.cancel_shielded_checkpoint()
            return packet
        finally:
            self._guard.is_receiving = False

    async def _wait_for_packet(self) -> None:
        if not self._box.is_midway:
            await self._box.receivers.park()
            return
        try:
            await self._timer.wait(self._box.receivers.park)
        except trio.BrokenResourceError as exc:
            self._driver.give_up(self._box, str(exc))
            raise

    async def aclose(self) -> None:
        """Close this end without waiting. The other end still gets sent packets, then the end."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close this end without a checkpoint; see :meth:`aclose`."""
        if not self._guard.is_closed:
            self._end_here()
            self._driver.close(self._box)

    def abort(self, reason: str = "the other end aborted it") -> None:
        """Break the channel: this end is closed, and the other end gets a BrokenResourceError.

        Args:
            reason: the text of that error. If this is a route's channel that has not been used
                yet, the channel is refused with this reason.
        """
        if not self._guard.is_closed:
            self._end_here()
            self._driver.abort(self._box, reason)

    def _end_here(self) -> None:
        self._guard.is_closed = True
        self._box.packets.clear()
        self._box.wake()

    def _check_send(self, packet: bytes) -> None:
        self._guard.check_open()
        if not packet:
            raise ValueError("a packet has at least one byte")
        if self._box.over is not None:
            raise _as_broken(self._box.over())
        self._accept()

    def _can_receive(self) -> bool:
        """Return whether ``receive`` has a packet to return; raise if the channel has ended."""
        self._guard.check_open()
        if self._box.packets:
            return True
        if self._box.over is not None:
            raise self._box.over()
        return False

    def _accept(self) -> None:
        """Accept the channel, if the other end opened it, because the handler now uses it."""
        if self._is_new:
            self._is_new = False
            if self._box.over is None and not self._guard.is_closed:
                self._driver.accept(self._box)


def _as_broken(failure: Exception) -> Exception:
    """Return the error that a send raises when receiving would raise ``failure``."""
    if isinstance(failure, (trio.EndOfChannel, DecodeError)):
        return trio.BrokenResourceError(str(failure) or "the other end has closed it")
    return failure


class Forwarding:
    """Named channels over a carrier; made by :func:`open_forwarding`."""

    def __init__(
        self,
        carrier: trio.abc.Channel[bytes],
        router: Router,
        limits: Limits,
        handlers: trio.Nursery,
    ) -> None:
        self._router = router
        self._handlers = handlers
        self._complaints = _complaints.get()
        self._running = 0
        self._owner = Owner("this forwarding")
        self._handler_ended = trio.lowlevel.ParkingLot()
        self._driver = Driver(carrier, limits, self._on_open)

    def __repr__(self) -> str:
        return f"<trio_rpc.Forwarding, {len(self._driver.inboxes)} channels>"

    async def open(self, name: str) -> ForwardingChannel:
        """Open a channel for which the other end has a route; close it after use.

        This waits while the other end's ``limits.max_channels`` are all in use, and until the other
        end's handler uses or refuses the channel. If cancelled, no channel is open.

        Args:
            name: the name that the other end matches with its routes: 1 to 1024 bytes in UTF-8.

        Raises:
            Refused: the other end has no such route, or its handler has refused. The text has the
                reason.
            ValueError: the name is empty, longer than allowed, or cannot be encoded.
            trio.BrokenResourceError: the carrier has failed; its ``__cause__`` says why.
            trio.ClosedResourceError: the block of this forwarding has been left.
        """
        self._owner.check()
        check_name(name)
        await trio.lowlevel.checkpoint()
        return ForwardingChannel(self._driver, await self._driver.open(name))

    async def wait_closed(self) -> None:
        """Wait until the carrier is closed for any reason, and all handlers have ended.

        The handlers still receive packets that arrived before. Do not await this in a handler.
        """
        self._owner.check()
        await self._driver.closed.wait()
        while self._running:
            await self._handler_ended.park()

    def _on_open(self, box: ForwardedInbox) -> None:
        name = box.state.name
        route = self._router.find(name)
        if route is None or self._handlers.cancel_scope.cancel_called:
            self._driver.abort(box, f"there is no route for {name!r}")
            return
        handler, parameters = route
        channel = ForwardingChannel(self._driver, box)
        self._running += 1
        self._handlers.start_soon(self._handle, handler, channel, parameters, name=handler)

    async def _handle(
        self, handler: ChannelHandler, channel: ForwardingChannel, parameters: dict[str, str]
    ) -> None:
        """Run a handler. Its failure affects no other channel."""
        try:
            await handler(channel, **parameters)
        except Refused as exc:
            channel.abort(text_of(exc))
        except Exception as exc:  # noqa: BLE001 - it is logged
            if (channel.is_over or channel.is_closed) and isinstance(exc, _PEERS_ENDS):
                text = "the channel %r ended its handler: %r"
                self._complaints.log(logging.INFO, text, channel.name, exc)
            else:
                text = "the handler of channel %r failed"
                self._complaints.log(logging.ERROR, text, channel.name, exc_info=exc)
            channel.abort("its handler failed")
        except BaseException:
            channel.abort("its handler was cancelled")
            raise
        finally:
            channel.close()
            self._running -= 1
            self._handler_ended.unpark_all()


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_forwarding(
    carrier: trio.abc.Channel[bytes],
    routes: Mapping[str, ChannelHandler] | None = None,
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> AsyncIterator[Forwarding]:
    """Carry many channels over one, and own them for the duration of a block.

    Both ends open channels by name, and accept channels for which they have a route. The handler
    of a route runs in a task of this block: ``async def handler(channel, **parameters)``. The
    channel is closed when the handler returns. It is accepted when the handler first sends or
    receives. Until then the handler may raise :class:`trio_rpc.Refused` with the reason for the
    other end. Any other exception of a handler is logged, and breaks only its own channel.

    The block begins at once. Leaving it cancels the handlers, allows up to
    ``limits.shutdown_timeout`` seconds to send queued packets, and closes the carrier. Channels
    that are still open then break. Cancelling the block cancels its body and the handlers, but the
    carrier goes on until the body is left.

    Args:
        carrier: a channel of whole packets that has not been used yet. The forwarding owns it.
        routes: a mapping from patterns to handlers: ``{"plugins/{name}": serve_plugin}``.
            ``{name}`` matches one part of a name, without a slash, and becomes a keyword argument.
            The first pattern that matches is used. None: no channel is accepted.
        limits: the limits of this end. ``max_packet`` applies to the carrier and to each channel,
            ``packet_timeout`` bounds how long a packet of a channel may take to arrive,
            ``max_channels`` how many channels the other end may open, and ``handshake_timeout``
            the time until the other end's Hello.

    Raises:
        ValueError: a pattern is not valid.

    Example:
        >>> async def serve_plugin(channel: trio.abc.Channel[bytes], name: str) -> None:
        ...     await channel.send(f"this is {name}".encode())
        >>> async def main() -> None:
        ...     ours, theirs = trio_rpc.channels.memory_channel_pair()
        ...     routes = {"plugins/{name}": serve_plugin}
        ...     async with (
        ...         trio_rpc.channels.open_forwarding(ours, routes),
        ...         trio_rpc.channels.open_forwarding(theirs) as forwarding,
        ...         await forwarding.open("plugins/spell") as channel,
        ...     ):
        ...         print(await channel.receive())
        >>> trio.run(main)
        b'this is spell'
    """
    router = Router(routes or {})
    with one_exception() as body:
        async with trio.open_nursery() as nursery:
            try:
                async with trio.open_nursery() as handlers:
                    forwarding = Forwarding(carrier, router, limits, handlers)
                    driver = forwarding._driver  # noqa: SLF001 - the same module
                    nursery.start_soon(driver.run, name="trio_rpc forwarding")
                    try:
                        yield forwarding
                    except BaseException as exc:
                        body.append(exc)
                        raise
                    finally:
                        handlers.cancel_scope.cancel(reason="the forwarding is closing")
            finally:
                driver.stop()
