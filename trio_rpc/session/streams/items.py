"""The two ends of a stream: the producer and the consumer.

Items go from the callee of a call to its caller, by credit (``protocol/streams.py``). The
:class:`ItemReceiver` is the caller's end, the :class:`ItemSender` the callee's. A handler pulls a
stream that was passed as an argument by a call back to the caller, so that stream has the same two
ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, NoReturn, TypeAlias

import trio
from trio.lowlevel import Abort, current_task, wait_task_rescheduled

from trio_rpc.errors import DecodeError, Fate, LocalProtocolError, RpcError
from trio_rpc.protocol.protocol import Protocol
from trio_rpc.services.converters import Convert
from trio_rpc.services.item_stream import ItemStream
from trio_rpc.services.signatures import complaint
from trio_rpc.session.calls.admission import Admission
from trio_rpc.session.calls.eager import is_awaitable
from trio_rpc.session.calls.incoming_call import IncomingCall, ItemSink
from trio_rpc.session.calls.outgoing import OutgoingCalls
from trio_rpc.session.calls.outgoing_call import Failure, OutgoingCall
from trio_rpc.session.streams.pulls import FilteredPull
from trio_rpc.wire import messages as m

__all__ = ["ItemReceiver", "ItemSender", "pump"]

Pull: TypeAlias = "Callable[[IncomingCall, ItemReceiver], Awaitable[OutgoingCall]]"

ITEMS_PER_TURN = 32
"""Items after which a generator that never waits lets other tasks run, such as the writer."""


_NONE: Final[deque[m.Item]] = deque(maxlen=0)
"""The items of a stream for which none has arrived."""


class ItemReceiver(ItemStream[Any]):
    """The consumer's end of a stream: ``async for`` over it, or ``await receive()``.

    Bound: the window that the Request gave, ``Limits.stream_items`` and ``stream_bytes``. A
    producer that sends more breaks the protocol.

    Args:
        name: the method's name, for errors.
        convert: checks and converts each item.
        number: its number in the call that it arrived with, if it is an argument. The first
            ``receive`` opens it.
        outgoing: the outgoing calls; the stream is one of them, once it is open.
    """

    def __init__(
        self,
        name: str,
        convert: Convert | None = None,
        number: int = 0,
        outgoing: OutgoingCalls | None = None,
    ) -> None:
        self.name = name
        self.number = number
        self._outgoing = outgoing
        self._convert = convert
        self._pull: Pull | None = None
        self._owner: IncomingCall | None = None
        self._pending: OutgoingCall | None = None
        self.filtered: FilteredPull | None = None
        """The filters around it, if it is an argument that is pulled, and there are filters."""
        self._items: deque[m.Item] = _NONE  # most arguments of a peer are never opened
        self._why_not: Callable[[], Exception] | None = None
        """Makes the error for every later receive, or None while items can be received."""
        self._has_ended = False
        self.has_raised = False
        """Whether the call's failure has been raised in its user's task."""
        self._used_items = self._used_size = 0

    def __repr__(self) -> str:
        return f"<trio_rpc stream of {self.name}>"

    @property
    def fate(self) -> Fate:
        """The fate of this stream's call, if the end of the session ended it."""
        answer = None if self._pending is None else self._pending.answer
        return answer.fate if isinstance(answer, Failure) else Fate.UNKNOWN

    def convert_items(self, convert: Convert | None) -> None:
        """Set the function that checks and converts items."""
        self._convert = convert

    def bind(self, owner: IncomingCall, name: str, outgoing: OutgoingCalls, pull: Pull) -> None:
        """Bind it to the call that it lives with; ``pull`` opens it as an outgoing call.

        Args:
            owner: the call.
            name: the method that it was given to.
            outgoing: the outgoing calls.
            pull: opens it.
        """
        self.name = f"{self.name} given to {name}"
        self._owner, self._outgoing, self._pull = owner, outgoing, pull

    def attach(self, call: OutgoingCall) -> None:
        """Set the call that brings the items."""
        self._pending = call

    # ── for its user ─────────────────────────────────────────────────────────────────────────

    @trio.lowlevel.enable_ki_protection
    async def receive(self) -> Any:
        """Return the next item. A cancelled receive loses nothing.

        Raises:
            trio.EndOfChannel: the producer has ended the stream.
            Exception: the producer's exception, after the items that preceded it; as for a call.
            DecodeError: the item does not have the annotated type. The next one may have it.
            trio.ClosedResourceError: this end has left the stream.
            trio.BusyResourceError: another task is receiving.
        """
        return self._take(await self._wait_for_items())

    @trio.lowlevel.enable_ki_protection
    async def receive_many(self) -> list[Any]:
        """Return all items that have arrived, at least one; see :meth:`ItemStream.receive_many`."""
        return self._take_many(await self._wait_for_items())

    async def _wait_for_items(self) -> OutgoingCall:
        """Wait until an item has arrived, and return the call; a checkpoint in any case."""
        self._bound.check_run()
        if self._items or self._why_not is not None:
            await trio.lowlevel.checkpoint()
        call = self._pending
        if call is None:
            call = await self._open()
        while not self._items:  # another task may have taken the item that woke this one
            await self._wait(call)
        return call

    @trio.lowlevel.enable_ki_protection
    async def aclose(self) -> None:
        """Leave the stream: cancel its producer, and wait until it has ended (law 2)."""
        self._bound.check_run()
        await trio.lowlevel.checkpoint()
        await self.leave("its consumer has closed it")

    # ── events of the call ───────────────────────────────────────────────────────────────────

    def items(self, items: Sequence[m.Item]) -> None:
        """Handle items."""
        if self._items is _NONE:
            self._items = deque()
        self._items.extend(items)
        if self._pending is not None:
            self._pending.wake()

    def end_of_items(self) -> None:
        """Handle the end of the items, while the call continues."""
        self._has_ended = True
        if self._pending is not None:
            self._pending.wake()

    def ended(self) -> None:
        """Handle the end of the call. Items that have arrived can still be taken."""
        if self.filtered is not None:
            self.filtered.end()

    # ── leaving ──────────────────────────────────────────────────────────────────────────────

    async def leave(self, reason: str) -> None:
        """Cancel the call, if there is one, and wait for its end."""
        self._close(partial(trio.ClosedResourceError, "this end has left the stream"))
        if self._pending is not None:
            await self._bound.close(self._pending, reason)
            if self.filtered is not None:
                self.filtered.end()  # a pull that was withdrawn has no end of its own
                await self.filtered.wait_over()

    def expire(self, owner: str) -> None:
        """End it, since the call that it was passed to has ended (law 8)."""
        text = f"a stream given to {owner} lives only until its handler has ended"
        self._close(partial(LocalProtocolError, text))
        self._owner = self._pull = None  # they refer to this stream
        if self._pending is not None:
            self._bound.drop(self._pending, f"the handler of {owner} has ended")
        if self.filtered is not None:
            self.filtered.cancel(f"the handler of {owner} has ended")

    def _close(self, why_not: Callable[[], Exception]) -> None:
        if self._why_not is None:
            self._why_not = why_not
        self._items.clear()
        if self._pending is not None:
            self._pending.wake()

    # ── inside ───────────────────────────────────────────────────────────────────────────────

    @property
    def _bound(self) -> OutgoingCalls:
        if self._outgoing is None:
            raise LocalProtocolError("this stream did not arrive as an argument of a call")
        return self._outgoing

    async def _open(self) -> OutgoingCall:
        if self._why_not is not None:
            raise self._why_not()
        if self._pull is None or self._owner is None:
            await self._raise_busy()
        pull, self._pull = self._pull, None
        try:
            self._pending = await pull(self._owner, self)
        finally:
            if self._owner is not None:
                self._pull = pull  # if nothing was sent, it may be tried again
        return self._pending

    async def _wait(self, call: OutgoingCall) -> None:
        """Wait for an item or the end; raise if neither can arrive any more."""

        def abort(_raise_cancel: object) -> Abort:
            call.task = None
            return Abort.SUCCEEDED

        if self._why_not is not None:
            raise self._why_not()
        if call.answer is not None or self._has_ended:
            await trio.lowlevel.checkpoint()
            await self._raise_end(call)
        if self.filtered is not None and self.filtered.is_closing:
            await self.filtered.wait_over()
            return
        if call.task is not None:
            await self._raise_busy()
        call.task = current_task()
        await wait_task_rescheduled(abort)

    async def _raise_busy(self) -> NoReturn:
        await trio.lowlevel.checkpoint()
        raise trio.BusyResourceError("another task is receiving from this stream")

    async def _raise_end(self, call: OutgoingCall) -> NoReturn:
        if self.filtered is not None and call.answer is not None:
            await self.filtered.wait_over()
        if call.answer is None or isinstance(call.answer, m.Reply):
            raise trio.EndOfChannel
        self.has_raised = True
        raise await self._bound.failure(call)

    def _take(self, call: OutgoingCall) -> Any:
        message = self._items.popleft()
        self._used(call, 1, message.size)
        return self._value_of(message)

    def _take_many(self, call: OutgoingCall) -> list[Any]:
        """Return the items before one that cannot be returned. Raise if that is the first."""
        items, values, size = self._items, [], 0
        try:
            for message in items:
                values.append(self._value_of(message))
                size += message.size
        except RpcError:
            if not values:
                self._used(call, 1, items.popleft().size)
                raise
        if len(values) == len(items):
            items.clear()
        else:
            for _ in values:
                items.popleft()
        self._used(call, len(values), size)
        return values

    def _used(self, call: OutgoingCall, items: int, size: int) -> None:
        """Count items that were taken, and give credit back once half of it is used."""
        self._used_items += items
        self._used_size += size
        outgoing = self._bound
        limits = outgoing.limits
        if (
            2 * self._used_items >= limits.stream_items
            or 2 * self._used_size >= limits.stream_bytes
        ):
            outgoing.grant_items(call, self._used_items, self._used_size)
            self._used_items = self._used_size = 0

    def _value_of(self, message: m.Item) -> Any:
        if message.problem is not None:
            raise DecodeError(f"an item of {self.name}: {message.problem}")
        if self._convert is None or message.shape is not None:
            return message.value
        try:
            return self._convert(message.value, self._bound.limits.max_nodes)
        except RpcError:
            raise
        except Exception as exc:  # noqa: BLE001 - a class's own checks may raise anything
            raise DecodeError(f"an item of {self.name}: {complaint(exc)}") from None


class _Place:
    """The incoming call that items are sent in, once there is one."""

    __slots__ = ("_protocol", "call")

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self.call = 0

    def room(self) -> int:
        """Return 1 if an item may be sent now, else 0."""
        return 1 if self.call and self._protocol.may_send_item(self.call) else 0


class ItemSender(trio.abc.SendChannel[Any]):
    """The producer's end of a stream.

    Args:
        outgoing: the outgoing calls, which know whether there is room in the queue.
    """

    def __init__(self, outgoing: OutgoingCalls) -> None:
        self._outgoing = outgoing
        self._protocol = outgoing.protocol
        self._writer = outgoing.writer
        self._place = place = _Place(outgoing.protocol)
        self._why_not: type[Exception] | None = None
        self._fate = Fate.UNKNOWN
        self._over = trio.Event()
        self._left = ITEMS_PER_TURN
        # Bound: one place for each task that sends.
        self._credit = Admission(place.room)

    def bind(self, call: int) -> None:
        """Send items in that incoming call from now on."""
        self._place.call = call
        self._credit.let_in()

    def let_in(self) -> None:
        """Wake the tasks that wait for credit, which has arrived."""
        self._credit.let_in()

    def stop(self, fate: Fate = Fate.UNKNOWN) -> None:
        """Stop sending, since the consumer takes no more items.

        Args:
            fate: the fate of the call, if the session is over.
        """
        self._fate = fate
        self._end(trio.BrokenResourceError)

    @trio.lowlevel.enable_ki_protection
    async def send(self, value: Any) -> None:
        """Send one item; wait while the consumer is slow. A cancelled send has sent nothing.

        Raises:
            EncodeError: the item cannot be sent; nothing was sent.
            trio.ClosedResourceError: this end has been closed.
            trio.BrokenResourceError: the consumer has left.
            SessionClosed, SessionBroken: the session is over.
        """
        self._outgoing.check_run()
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            if not self._is_free:
                await self._wait()
            self._queue(value)
            self._writer.send()
        finally:
            # The checkpoint comes last, so that the item leaves one turn earlier. It cannot raise,
            # because no error may follow a sent item.
            await trio.lowlevel.cancel_shielded_checkpoint()

    @trio.lowlevel.enable_ki_protection
    async def put(self, value: Any) -> None:
        """Send one item as :meth:`send` does, but with a checkpoint only after several items."""
        self._left -= 1
        if self._left <= 0 or self._why_not is not None:
            self._left = ITEMS_PER_TURN
            await trio.lowlevel.checkpoint()
        if self._why_not is not None or not self._credit.is_free or not self._protocol.may_answer:
            await self._wait()
        # Queued even if the session's own queue is full, since only queued bytes are counted.
        self._queue(value)
        self._writer.wake()
        if not self._outgoing.has_room():
            await self._outgoing.wait_for_room()

    @property
    def _is_free(self) -> bool:
        """Whether an item can be sent without waiting."""
        return self._why_not is None and self._credit.is_free and self._outgoing.has_room()

    async def _wait(self) -> None:
        """Wait for credit and room; raise if the consumer has left."""
        if not self._credit.is_free:
            await self._credit.wait()
        while not self._outgoing.has_room():
            await self._outgoing.wait_for_room()
            if not self._place.room():
                await self._credit.wait()
        if self._why_not is not None:
            # The event that ended the stream may also have cancelled this task: Cancelled wins.
            await trio.lowlevel.checkpoint_if_cancelled()
            if self._why_not is trio.BrokenResourceError:
                self._outgoing.check_over(self._fate)
            raise self._why_not("this end of the stream is closed, or its consumer has left")

    def _queue(self, value: Any) -> None:
        self._protocol.item(self._place.call, value)
        if self._credit.tasks:
            self._credit.let_in()  # it wakes one task at a time, and the next may also have credit

    @trio.lowlevel.enable_ki_protection
    async def aclose(self) -> None:
        """End the stream. Items that were sent are still delivered."""
        self._outgoing.check_run()
        self._end(trio.ClosedResourceError)
        if self._place.call:
            self._protocol.end_items(self._place.call)
            self._writer.wake()
        await trio.lowlevel.checkpoint()

    async def wait_over(self) -> None:
        """Wait until either end has ended the stream."""
        await self._over.wait()

    def _end(self, why_not: type[Exception]) -> None:
        if self._why_not is None:
            self._why_not = why_not
            self._over.set()
            self._credit.open()


async def pump(items: Any, sender: ItemSink) -> None:
    """Send all items. A generator is always closed, in this task, before this returns.

    Args:
        items: an async iterable, or an awaitable that returns one.
        sender: the stream's sender.
    """
    if not isinstance(items, AsyncIterable) and is_awaitable(items):
        items = await items
    try:
        async for item in items:
            await sender.put(item)
    finally:
        # Any other iterable belongs to the caller and is not closed here.
        if isinstance(items, AsyncGenerator):
            await items.aclose()
