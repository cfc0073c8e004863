"""The core of a session: its parts, and the connections between them."""

from __future__ import annotations

import math
from typing import Any

import trio

from trio_rpc.channels.optional import keeps
from trio_rpc.errors import Fate
from trio_rpc.services.decorators import Kind
from trio_rpc.services.interfaces import Identifier
from trio_rpc.session.answers import Answers
from trio_rpc.session.calls.callbacks import CALLBACK, STREAM, Callback
from trio_rpc.session.io.receiver import Receiver
from trio_rpc.session.lifecycle import Lifecycle
from trio_rpc.session.live_services import NO_READER, LiveServices, MakeServices, Resumes
from trio_rpc.session.options import Options
from trio_rpc.session.shared import Shared, shared_of_this_run
from trio_rpc.session.streams.items import ItemReceiver
from trio_rpc.session.variants import choose_variant
from trio_rpc.util.owner import owner_of_sessions
from trio_rpc.util.unsent_budget import UnsentShare
from trio_rpc.wire import messages as m
from trio_rpc.wire.codec import Codec
from trio_rpc.wire.coded import CodedCodec, MessageCodec
from trio_rpc.wire.one_pass import Shape, Shapes

__all__ = ["Core"]


class Core:
    """One session from the inside: it owns the parts and passes events between them.

    Users hold a :class:`Session`, which refers to it, and the driver runs it.
    """

    def __init__(
        self,
        channel: trio.abc.Channel[bytes],
        services: MakeServices,
        options: Options,
        name: str,
        shared: Shared | None = None,
    ) -> None:
        shared = shared or shared_of_this_run()
        self.load = shared.load
        self.channel = channel
        self.options = options
        self.limits = options.limits
        self.name = name
        self.owner = owner_of_sessions()
        share = UnsentShare(shared.unsent, options.limits.max_unsent_total)
        if (keeping := keeps(channel)) is not None:
            keeping.keep_within(share)
        parts = self.parts = choose_variant(options.trace, shared.complaints, name)
        self.session_id = parts.session_id
        self.protocol = parts.protocol(_make_codec(options, self), options.limits, share)
        self.receiver = Receiver(channel, self.protocol)
        self.writer = parts.writer(channel, self.protocol, self)
        self.lifecycle = Lifecycle(self.protocol, self.writer, options.limits, self)
        self.outgoing = parts.outgoing(
            self.protocol,
            options.limits,
            self.writer,
            self.lifecycle,
            self.receiver,
            self.owner,
            shared.complaints,
            name,
        )
        self.incoming = parts.incoming(
            self.protocol, self.lifecycle, self.outgoing, options, shared
        )
        self.services = LiveServices(
            services,
            self.incoming,
            self.lifecycle,
            options.limits.shutdown_timeout,
            shared.complaints,
        )
        self.answers: Answers | None = None
        """Watches for answers from the other end, if the options require that."""
        if options.unresponsive_after < math.inf:
            self.answers = Answers(
                channel,
                self.protocol,
                self.outgoing,
                self.writer,
                after=options.unresponsive_after,
                complaints=shared.complaints,
                name=name,
            )
        self.reader: Resumes = NO_READER
        """Begins handlers whose Requests have waited; set by the driver."""
        self._pongs: dict[int, trio.Event] = {}

    @trio.lowlevel.enable_ki_protection
    async def ping(self) -> float:
        """Send a Ping, wait for its Pong, and return the seconds that it took.

        Raises:
            SessionClosed: this end has closed the session, or closes it meanwhile.
            SessionBroken: the other end or the network ended the session.
        """
        self.owner.check()
        await trio.lowlevel.checkpoint()
        if self.lifecycle.is_over:
            raise self.lifecycle.error(Fate.UNKNOWN)
        number = self.protocol.ping()
        answered = self._pongs[number] = trio.Event()
        started = trio.current_time()
        self.writer.wake()
        try:
            await answered.wait()
        finally:
            self._pongs.pop(number, None)
        if self.lifecycle.is_over:
            raise self.lifecycle.error(Fate.UNKNOWN)
        return trio.current_time() - started

    async def opened(self) -> None:
        """Wait until the handshake is done; raises as :func:`trio_rpc.open_session` does."""
        await self.lifecycle.begun()
        if not self.lifecycle.stage.was_open:
            raise self.lifecycle.opening_error()

    # ── the types of values that arrive, for ``wire/one_pass.py`` ────────────────────────────────

    def arguments(self, method: str, count: int) -> Shape | None:
        """Return the shape of that many arguments of a method, or None if it has none."""
        found = self.incoming.table.get(method)
        if found is None or found.kind is Kind.DUPLEX:  # its first argument is the channel
            return None
        return found.signature.shape(count)

    def result(self, call: int) -> Shape | None:
        """Return the shape of the result of an outgoing call, or None if it has none."""
        made = self.outgoing.calls.get(call)
        return None if made is None else made.method.converters.result

    def item(self, call: int) -> Shape | None:
        """Return the shape of the items of an outgoing call, or None if they have none."""
        made = self.outgoing.calls.get(call)
        return None if made is None else made.method.converters.item

    # ── notifications between the parts ──────────────────────────────────────────────────────

    def sent(self) -> None:
        """Handle progress of the writer: the queue may have room again."""
        if self.incoming.waiting:
            self.reader.resume()
        if self.lifecycle.stage.is_closing:
            self.lifecycle.activity_ended()  # an abandoned call may have been the last activity

    def progressed(self) -> None:
        """Handle a packet that the channel has taken: there may be room again."""
        self.outgoing.let_in()
        self.sent()

    def on_pong(self, message: m.Pong) -> None:
        """Wake the pings that this Pong answers. No task waits for pings of the keepalive."""
        if self.protocol.is_paced_by(message):
            self.writer.answered()
        for number, answered in self._pongs.items():
            if number <= message.number:
                answered.set()

    def set_service(self, key: str | Identifier[Any], service: object) -> None:
        """Add a service, and begin the calls that wait for it; see :meth:`Session.set`."""
        self.owner.check()
        self.services.set(key, service)

    def remove_service(self, key: str | Identifier[Any]) -> None:
        """Remove a service; see :meth:`Session.remove`."""
        self.owner.check()
        self.services.remove(key)

    # ── the end ──────────────────────────────────────────────────────────────────────────────

    @property
    def are_over(self) -> bool:
        """Whether no call, no handler and no unsent answer is left."""
        return (
            not self.incoming.running
            and not self.incoming.waiting
            and not self.incoming.absent.waiting
            and not self.outgoing.calls
            and self.outgoing.has_room()  # answers that a slow peer still reads get ``close_grace``
        )

    @property
    def notifications_are_over(self) -> bool:
        """Whether every notification that has arrived has been handled."""
        incoming = self.incoming
        return not (incoming.notifications_running or incoming.waiting or incoming.absent.waiting)

    def leave(self) -> None:
        """Allow a cancellation to end the session at once, since its block only waits for it."""
        self.reader.unshield()

    def end(self) -> None:
        """Stop reading, cancel the handlers and end the calls: the session is over (law 6)."""
        self.reader.stop()
        self.incoming.cancel_all(f"the session with {self.name} is over")
        self.outgoing.fail_all()
        self.services.end()
        self.receiver.stop()
        for answered in self._pongs.values():
            answered.set()

    def let_go(self) -> None:
        """Break the reference cycles between the parts, so that no garbage collector is needed.

        Handlers that outlast the session still end, and late calls still raise: neither needs the
        references that are dropped here.
        """
        self.incoming.session.let_go()
        self.outgoing.let_go()
        self.incoming.let_go()
        self.services.let_go()
        self.writer.let_go()
        self.protocol.let_go()
        self.protocol.share.leave()
        self.reader = NO_READER


def _make_codec(options: Options, shapes: Shapes) -> MessageCodec:
    codec = Codec(options.registry, options.limits, _make_reference)
    if options.codec is not None:
        return CodedCodec(codec, options.codec)
    codec.use(shapes)
    return codec


def _make_reference(kind: int, number: int) -> Callback | ItemReceiver | m.Reference:
    """Make the local object for a reference that arrived."""
    if kind == CALLBACK:
        return Callback(kind, number)
    if kind == STREAM:
        return ItemReceiver("a stream", number=number)
    return m.Reference(kind, number)
