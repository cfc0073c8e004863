"""Whose turn it is to receive: the reader's, or that of a caller.

A caller that sleeps until the reader wakes it goes on a turn of Trio's loop after its Reply has come, and that is
a seventh of what a call takes where there is one at a time. So a caller that is the only one in flight
receives by itself: what comes next is most likely its Reply. Anything else it leaves to the reader, and
sleeps as other callers do. When a Reply has come, the reader lets others run before it receives again
(``reader.py``, step 5): by then the caller may have made its next call.

::

    nobody --- the reader receives --------> READER --- a packet, an error --> nobody
    nobody --- a caller receives ----------> CALLER --- a packet, an error,
                                                        cancelled ----------> nobody

A caller may receive only when nothing is left of an earlier packet, so all is acted on in the order in which it came.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable, Iterator
from itertools import chain

import trio
from trio.lowlevel import Abort

from trio_rpc.channels.optional import stoppable_receive
from trio_rpc.protocol.protocol import Protocol
from trio_rpc.util.places import end_context
from trio_rpc.wire import messages as m

__all__ = ["Receiver"]


class _Whose(enum.Enum):
    NOBODY = "nobody"
    READER = "reader"
    CALLER = "caller"


_NOBODY = _Whose.NOBODY  # to look it up in its class takes longer than all that is done with it


class Receiver:
    """The receiving side of a session's channel, for one task at a time.

    Args:
        channel: where packets come from. Callers receive only if it can ``stop_receiving``.
        protocol: what makes events of them.

    Attributes:
        events: what is left of the packet that came last, or None.
        arrived: when it came.
    """

    def __init__(self, channel: trio.abc.Channel[bytes], protocol: Protocol) -> None:
        self.events: Iterator[m.Message] | None = None
        self.arrived = 0.0
        self._channel = channel
        self._protocol = protocol
        self._stops = stoppable_receive(channel)
        self._receive_nowait: Callable[[], bytes] | None = getattr(channel, "receive_nowait", None)
        self._whose = _NOBODY
        self._failure: Exception | None = None
        """What a caller's receive() has raised: the reader is the one to say what it means."""
        self._parked: trio.lowlevel.Task | None = None
        """The reader, while a caller receives."""
        self._is_stopped = False

    async def receive(self) -> None:
        """Have ``events``: for the reader. Raises what the channel does."""
        while self._whose is _Whose.CALLER:
            self._parked = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._unpark)
        if self._failure is not None:
            failure, self._failure = self._failure, None
            try:
                raise failure
            finally:
                del failure  # its traceback holds this frame
        if self.events is None:
            self._whose = _Whose.READER
            try:
                self._hold(self._protocol.receive(await self._channel.receive()))
            finally:
                self._whose = _NOBODY

    def receive_nowait(self) -> bool:
        """Have ``events`` if a packet has arrived; tell whether it is so. Raises what the channel does."""
        if self._receive_nowait is None:
            return False
        try:
            self._hold(self._protocol.receive(self._receive_nowait()))
        except trio.WouldBlock:
            return False
        return True

    @property
    def callers_receive(self) -> bool:
        """Whether a caller ever receives from this channel."""
        return self._stops is not None

    @property
    def is_free(self) -> bool:
        """Whether a caller may receive."""
        return (
            self._whose is _NOBODY
            and self.events is None
            and self._stops is not None
            and self._failure is None
        )

    # A KeyboardInterrupt comes while it waits, and not between taking a packet and saying so.
    @trio.lowlevel.enable_ki_protection
    async def receive_reply(self, call: int) -> m.Reply | m.ReplyErr | None:
        """Receive one packet: for a caller. Return the end of its call, if that comes first.

        All else is left to the reader. Cancelled, it has lost nothing.
        """
        self._whose = _Whose.CALLER
        handled = sys.exception()
        try:
            packet = await self._channel.receive()
            return self._first_reply(self._protocol.receive(packet), call)
        except Exception as exc:  # noqa: BLE001 - the reader raises it
            if (
                not self._is_stopped
            ):  # else nobody asks for it any more, and its traceback holds this frame
                self._failure = exc
            return None
        finally:
            self._whose = _NOBODY
            if self._failure is not None:
                end_context(self._failure, handled)  # which is none of the session's business
            # Once the session is over the reader is to be cancelled, and must not take this for a loss of the channel:
            # handlers still owe their terminal messages (law 4).
            if self._parked is not None and not self._is_stopped:
                task, self._parked = self._parked, None
                trio.lowlevel.reschedule(task)

    def stop(self) -> None:
        """Stop the caller that receives: the session is over."""
        self._is_stopped = True
        self._failure = None
        if self._whose is _Whose.CALLER and self._stops is not None:
            self._stops.stop_receiving()

    def _first_reply(self, events: Iterator[m.Message], call: int) -> m.Reply | m.ReplyErr | None:
        """Take the end of that call out of a packet, if it comes first; leave all else."""
        event = next(events, None)
        if isinstance(event, m.Reply | m.ReplyErr) and event.id == call:
            try:
                self._put_back(next(events, None), events)
            except Exception as exc:  # noqa: BLE001 - it came after the Reply, and is the reader's
                self._failure = exc
            return event
        self._put_back(event, events)
        return None

    def _put_back(self, event: m.Message | None, rest: Iterator[m.Message]) -> None:
        if event is not None:
            self._hold(chain((event,), rest))

    def _hold(self, events: Iterator[m.Message]) -> None:
        self.events = events
        self.arrived = trio.current_time()

    def _unpark(self, _raise_cancel: object) -> Abort:
        self._parked = None
        return Abort.SUCCEEDED
