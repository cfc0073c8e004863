"""The receiving side of a channel, which the reader or a caller uses in turn.

A caller that the reader wakes continues one turn of Trio's loop after its Reply has arrived. With
one call at a time, that turn is a seventh of the call. So the only caller in flight receives by
itself, since the next packet is most likely its Reply. It leaves any other packet to the reader,
and sleeps as other callers do. After a Reply, the reader lets other tasks run before it receives
again (``reader.py``, step 5): by then the caller may have made its next call.

::

    nobody --- the reader receives --------> READER --- a packet, an error --> nobody
    nobody --- a caller receives ----------> CALLER --- a packet, an error,
                                                        cancelled ----------> nobody

A caller may receive only after the earlier packet has been handled completely, so messages are
handled in the order of arrival.
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
from trio_rpc.protocol.streams import Event
from trio_rpc.util.places import end_context
from trio_rpc.wire import messages as m

__all__ = ["Receiver"]


class _User(enum.Enum):
    NOBODY = "nobody"
    READER = "reader"
    CALLER = "caller"


_NOBODY = _User.NOBODY  # looking it up in its class takes longer than everything done with it


class Receiver:
    """The receiving side of a session's channel, for one task at a time.

    Args:
        channel: the channel. Callers receive only if it has ``stop_receiving``.
        protocol: turns packets into events.

    Attributes:
        events: the remaining events of the last packet, or None.
        arrived: the time when that packet arrived.
    """

    def __init__(self, channel: trio.abc.Channel[bytes], protocol: Protocol) -> None:
        self.events: Iterator[Event] | None = None
        self.arrived = 0.0
        self._channel = channel
        self._protocol = protocol
        self._stops = stoppable_receive(channel)
        self._user = _NOBODY
        self._failure: Exception | None = None
        """The error of a caller's receive(), which the reader handles."""
        self._parked: trio.lowlevel.Task | None = None
        """The reader's task, while a caller receives."""
        self._is_stopped = False

    async def receive(self) -> None:
        """Wait for ``events``, in the reader. Raises the errors of the channel."""
        while self._user is _User.CALLER:
            self._parked = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._unpark)
        if self._failure is not None:
            failure, self._failure = self._failure, None
            try:
                raise failure
            finally:
                del failure  # its traceback holds this frame
        if self.events is None:
            self._user = _User.READER
            try:
                self._hold(self._protocol.receive(await self._channel.receive()))
            finally:
                self._user = _NOBODY

    def receive_nowait(self) -> bool:
        """Handle a packet that has arrived, and return whether there was one.

        Raises the errors of the channel.
        """
        receive: Callable[[], bytes] | None = getattr(self._channel, "receive_nowait", None)
        if receive is None or self._user is not _NOBODY or self._failure is not None:
            return False
        try:
            self._hold(self._protocol.receive(receive()))
        except trio.WouldBlock:
            return False
        return True

    @property
    def callers_receive(self) -> bool:
        """Whether callers can receive from this channel."""
        return self._stops is not None

    @property
    def is_free(self) -> bool:
        """Whether a caller may receive now."""
        return (
            self._user is _NOBODY
            and self.events is None
            and self._stops is not None
            and self._failure is None
        )

    async def receive_reply(self, call: int) -> m.Reply | m.ReplyErr | None:
        """Receive one packet, in a caller; return the end of its call if that is the first message.

        1. While the caller receives, the reader parks in :meth:`receive`.
        2. All messages but that end remain in ``events`` for the reader.
        3. An error of the channel is kept for the reader, which acts on it. If cancelled, this has
           taken nothing.
        4. However this ends, the reader is woken, unless the session is over.
        """
        self._user = _User.CALLER
        handled = sys.exception()
        try:
            packet = await self._channel.receive()
            return self._first_reply(self._protocol.receive(packet), call)
        except Exception as exc:  # noqa: BLE001 - the reader raises it
            # After a stop no task reads the error, whose traceback would keep this frame alive.
            if not self._is_stopped:
                self._failure = exc
            return None
        finally:
            self._user = _NOBODY
            if self._failure is not None:
                end_context(self._failure, handled)  # the caller's exception is not part of it
            # When the session is over, the reader will be cancelled. It must not take this for a
            # lost channel, since handlers still owe their terminal messages (law 4).
            if self._parked is not None and not self._is_stopped:
                task, self._parked = self._parked, None
                trio.lowlevel.reschedule(task)

    def stop(self) -> None:
        """Stop the caller that receives, since the session is over."""
        self._is_stopped = True
        self._failure = None
        if self._user is _User.CALLER and self._stops is not None:
            self._stops.stop_receiving()

    def _first_reply(self, events: Iterator[Event], call: int) -> m.Reply | m.ReplyErr | None:
        """Remove the end of that call from a packet if it is the first message; leave the rest."""
        event = next(events, None)
        if isinstance(event, m.Reply | m.ReplyErr) and event.id == call:
            try:
                self._put_back(next(events, None), events)
            except Exception as exc:  # noqa: BLE001 - it came after the Reply; the reader raises it
                self._failure = exc
            return event
        self._put_back(event, events)
        return None

    def _put_back(self, event: Event | None, rest: Iterator[Event]) -> None:
        if event is not None:
            self._hold(chain((event,), rest))

    def _hold(self, events: Iterator[Event]) -> None:
        self.events = events
        self.arrived = trio.current_time()

    def _unpark(self, _raise_cancel: object) -> Abort:
        self._parked = None
        return Abort.SUCCEEDED
