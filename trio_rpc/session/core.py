"""What the parts of a session are wired to, and how it ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import trio

from trio_rpc.errors import Fate
from trio_rpc.protocol.protocol import Protocol
from trio_rpc.protocol.states import Half
from trio_rpc.services.tables import Table
from trio_rpc.session.calls.callbacks import CALLBACK, STREAM, Callback
from trio_rpc.session.calls.outgoing import OutgoingCalls
from trio_rpc.session.dispatch import IncomingCalls
from trio_rpc.session.io.pacer import Pacer
from trio_rpc.session.io.receiver import Receiver
from trio_rpc.session.io.writer import Writer
from trio_rpc.session.lifecycle import EndedBy, Lifecycle, Stage
from trio_rpc.session.options import Options
from trio_rpc.session.owner import Owner
from trio_rpc.session.session import Session
from trio_rpc.session.shared import Shared
from trio_rpc.session.streams.items import ItemReceiver
from trio_rpc.wire import messages as m
from trio_rpc.wire.codec import Codec

__all__ = ["Core", "Tables"]

Tables: TypeAlias = Callable[[Session], Table]


_OPEN = Stage.OPEN


class Core:
    """One session from the inside: its parts, its stage, and the words they exchange.

    The :class:`Session` that users hold is a face of it, and the driver runs it.
    """

    def __init__(
        self,
        channel: trio.abc.Channel[bytes],
        tables: Tables,
        options: Options,
        name: str,
        shared: Shared | None = None,
    ) -> None:
        shared = shared or Shared()
        self.channel = channel
        self.tables = tables
        self.options = options
        self.limits = options.limits
        self.name = name
        self.owner = Owner("this session")
        self.lifecycle = Lifecycle()
        self.ended_quietly = False
        """Both ends had said Goodbye, and nothing was in flight: the other end has nothing to send any more."""
        self.over = trio.Event()
        """The channel is closed and no task of the session is left but its handlers' last breath."""
        self.protocol = Protocol(
            Codec(options.registry, options.limits, _make_reference),
            options.limits,
            shared.unsent,
        )
        self.receiver = Receiver(channel, self.protocol)
        self.pacer = Pacer(self.protocol)
        self.writer = Writer(channel, self.protocol, self._progressed, self.pacer)
        self.outgoing = OutgoingCalls(
            self.protocol,
            options.limits,
            self.send,
            self.writer.wake,
            self.writer.write_early,
            self.lifecycle,
            self.receiver,
            self.activity_ended,
            self.look_by,
            self.owner,
            shared.complaints,
        )
        self.incoming = IncomingCalls(
            self.protocol,
            filters=options.filters,
            detail=options.error_detail,
            wake=self.writer.wake,
            ended=self.activity_ended,
            calls=self.outgoing,
            bugs=shared.bugs,
            complaints=shared.complaints,
        )
        self.alarm: trio.CancelScope | None = None
        """Ends the driver's wait for the end of the session, when it is time to look after it."""
        self.resume: Callable[[], None]
        """Begins handlers whose Requests have waited, if they may; set by the driver."""
        self.when_open: Callable[[], None] | None = None
        """Called when the session is open, for those who do not wait for that."""
        self.looks_first = False
        """The reader looks whether the peer's Hello is there before ours is written, to write Welcome beside it."""
        self.has_opened = False
        """The packet that is being read has opened the session, and somebody waits for that."""
        self.close_by = math.inf
        """When to end a session that closes, if it has not ended by itself."""
        self.is_left = False
        """The block of the session is over, and nobody is left who could end the session when it is cancelled."""
        self.when_over: Callable[[], None] | None = None
        """Called when the session is over and its channel closed, for a block that is to end with it (law 17)."""
        self.is_closing = False
        """This end closes the session, and leaves as soon as both have said Goodbye and nothing is in flight."""
        self._pongs: dict[int, trio.Event] = {}

    async def ping(self) -> float:
        """Ask the other end for a sign of life, and return the seconds that it took.

        Raises:
            SessionClosed: this end has closed the session, or does so now.
            SessionBroken: the other end or the network has.
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
        if not self.lifecycle.was_open:
            raise self.lifecycle.opening_error()

    # ── closing ──────────────────────────────────────────────────────────────────────────────

    async def aclose(self, *, grace: float | None = None) -> None:
        """Close the session: say Goodbye, let what is in flight end, then close the channel.

        Cancelled, it closes at once: handlers are cancelled and pending calls raise.

        Args:
            grace: seconds that calls in flight are given; ``limits.close_grace`` by default.
        """
        self.owner.check()
        try:
            self.is_closing = True
            await trio.lowlevel.checkpoint_if_cancelled()
            if not self.lifecycle.is_over:
                self._begin_to_close(self.limits.close_grace if grace is None else grace)
            await self.over.wait()
        finally:
            self.stop()

    def leave(self) -> None:
        """Begin to close, as ``aclose()`` does, and let a cancellation of the driver end the session at once.

        For a block that waits for nothing else any more.
        """
        self.is_left = True
        if self.alarm is not None:
            self.alarm.shield = False
        if not self.lifecycle.is_over:
            self._begin_to_close(self.limits.close_grace)

    def _begin_to_close(self, grace: float) -> None:
        """Say Goodbye; whoever is the last to end what is in flight ends the session, or else the driver."""
        self.is_closing = True
        self.close_by = min(self.close_by, trio.current_time() + grace)
        self.look_by(self.close_by)
        if self.lifecycle.stage is Stage.OPEN:
            self.lifecycle.move(Stage.CLOSING)
        if self.protocol.ours is Half.OPEN:
            self.protocol.goodbye("done", "closed by the other end")
            self.writer.write_now()
        if self.is_quiet:
            self.end(None)

    @property
    def is_quiet(self) -> bool:
        """Whether both ends have said Goodbye and nothing is in flight."""
        return (
            self.protocol.theirs is not Half.OPEN
            and not self.incoming.running
            and not self.incoming.waiting
            and not self.outgoing.calls
            and self.outgoing.has_room()  # answers that a slow peer still reads get ``close_grace``
        )

    def stop(self) -> None:
        """Begin to close at once, as ``aclose()`` does when it is cancelled."""
        if not self.lifecycle.is_over:
            self.is_closing = True
            self.end(None)

    def end(self, cause: Exception | None, by: EndedBy = "us") -> None:
        """The session is over (law 6): cancel its handlers, end its calls. The first cause counts."""
        if self.lifecycle.is_over:
            return
        self.ended_quietly = self.is_quiet and self.protocol.theirs is Half.LEAVING
        self.lifecycle.end(cause, by)
        self.incoming.cancel_all(f"the session with {self.name} is over")
        self.outgoing.fail_all()
        self.receiver.stop()
        for answered in self._pongs.values():
            answered.set()

    def closed(self) -> None:
        """The channel is closed: tell those who wait for that, and then the block, if this end has not closed it."""
        self.over.set()
        if self.when_over is not None:
            self.when_over()
        self._let_go()

    def _let_go(self) -> None:
        """Cut what would leave a session to the garbage collector: its parts know each other while it lasts.

        Handlers that outlast the session still end, and late calls still raise: nobody needs these any more for that.
        """
        self.incoming.session.let_go()
        self.outgoing.let_go()
        self.incoming.let_go()
        self.writer.let_go()
        self.protocol.let_go()
        self.resume = _nothing
        self.when_open = None

    def look_by(self, when: float) -> None:
        """Have the driver look after the session at that time, if not before."""
        if self.alarm is not None and when < self.alarm.deadline:
            self.alarm.deadline = when

    # ── what the parts tell each other ───────────────────────────────────────────────────────

    def send(self) -> None:
        """Have what was just queued written; at once when nothing can be expected to join it."""
        if len(self.protocol.outgoing) <= 1 and len(self.protocol.incoming) <= 1:
            self.writer.write_now()
        else:
            self.writer.wake()
        if self.incoming.waiting:
            self.resume()
        if self.lifecycle.stage is Stage.CLOSING:
            self.activity_ended()  # a call that nobody waits for any more may have been the last one

    def _progressed(self) -> None:
        if self.outgoing.waiting:
            self.outgoing.let_in()
        if self.incoming.waiting:
            self.resume()
        if self.lifecycle.stage is Stage.CLOSING:
            self.activity_ended()

    def on_pong(self, message: m.Pong) -> None:
        """Wake the pings that this answers; the keepalive's is waited for by nobody."""
        if self.protocol.is_paced_by(message):
            self.pacer.answered(trio.current_time())
            self.writer.wake()
        for number, answered in self._pongs.items():
            if number <= message.number:
                answered.set()

    def activity_ended(self) -> None:
        """A handler has ended, or something else that the close of the session may have waited for."""
        if self.lifecycle.stage is not _OPEN:
            self._answer_goodbye()
            if self.is_closing and self.is_quiet and not self.lifecycle.is_over:
                self.end(None)
            else:
                self.lifecycle.move(self.lifecycle.stage)

    def _answer_goodbye(self) -> None:
        """Answer the peer's Goodbye once its notifications have been handled, so none is cut off."""
        if (
            self.protocol.theirs is Half.LEAVING
            and self.protocol.ours is Half.OPEN
            and not self.incoming.notifications_running
            and not self.incoming.waiting
        ):
            self.protocol.goodbye("done", "answering a Goodbye")
            self.writer.write_now()


def _make_reference(kind: int, number: int) -> Callback | ItemReceiver | m.Reference:
    """Make what stands for something of the peer's that came in a call."""
    if kind == CALLBACK:
        return Callback(kind, number)
    if kind == STREAM:
        return ItemReceiver("a stream", number=number)
    return m.Reference(kind, number)


def _nothing() -> None:
    """Do nothing, in the place of what a session does that is over."""
