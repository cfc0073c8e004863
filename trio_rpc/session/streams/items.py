"""The two ends of a stream: who yields items, and who takes them.

Items go from the callee of a call to its caller, by credit (``protocol/streams.py``). The
:class:`ItemReceiver` is the caller's end of it, the :class:`ItemSender` the callee's. A stream that is given
as an argument is pulled by a call back, whose caller is the handler: so it has the same two ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from functools import partial
from typing import Any, NoReturn, TypeAlias

import trio
from trio.lowlevel import Abort, current_task, wait_task_rescheduled

from trio_rpc.errors import DecodeError, Fate, LocalProtocolError, RpcError
from trio_rpc.protocol.protocol import Protocol
from trio_rpc.services.conversion import Convert
from trio_rpc.services.signatures import complaint
from trio_rpc.session.calls.admission import Admission
from trio_rpc.session.calls.eager import is_awaitable
from trio_rpc.session.calls.incoming_call import IncomingCall, ItemSink
from trio_rpc.session.calls.outgoing import OutgoingCalls
from trio_rpc.session.calls.outgoing_call import Failure, OutgoingCall
from trio_rpc.wire import messages as m

__all__ = ["ItemReceiver", "ItemSender", "pump"]

Pull: TypeAlias = "Callable[[IncomingCall, ItemReceiver], Awaitable[OutgoingCall]]"

ITEMS_PER_TURN = 32
"""After so many items a generator that never waits lets others run, the writer among them."""


class ItemReceiver(trio.abc.ReceiveChannel[Any]):
    """The consumer's end of a stream: ``async for`` over it, or ``await receive()``.

    Bound: what the window allows that the Request gave, ``Limits.stream_items`` and ``stream_bytes``;
    more is an offence of the producer's.

    Args:
        name: of the method, for errors.
        convert: checks and converts each item.
        number: its number among what came with a call, if it did; it is opened by the first ``receive``.
        outgoing: the calls of ours; the stream is one of them, once it is open.
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
        self._items: deque[m.Item] = deque()
        self._why_not: Callable[[], Exception] | None = None
        """Makes the error that says why nothing be received any more, whatever may have come."""
        self._has_ended = False
        self.has_raised = False
        """Its user has been told how the call failed."""
        self._used_items = self._used_size = 0

    def __repr__(self) -> str:
        return f"<trio_rpc stream of {self.name}>"

    @property
    def fate(self) -> Fate:
        """What the end of the session means for the call that this stream is, once that has ended it."""
        answer = None if self._pending is None else self._pending.answer
        return answer.fate if isinstance(answer, Failure) else Fate.UNKNOWN

    def convert_items(self, convert: Convert | None) -> None:
        """Check and convert items with that function from now on."""
        self._convert = convert

    def bind(self, owner: IncomingCall, outgoing: OutgoingCalls, pull: Pull) -> None:
        """Tie it to the call that it came with; ``pull`` opens it, as one of the calls of ours."""
        self.name = f"{self.name} given to {owner.method.name}"
        self._owner, self._outgoing, self._pull = owner, outgoing, pull

    def attach(self, call: OutgoingCall) -> None:
        """The call that brings the items has been made."""
        self._pending = call

    # ── for its user ─────────────────────────────────────────────────────────────────────────

    async def receive(self) -> Any:
        """Return the next item. Cancelled, it has lost nothing.

        Raises:
            trio.EndOfChannel: the producer has ended the stream.
            Exception: what the producer raised, after the items that preceded it; as a call does.
            DecodeError: the item is not of the annotated type. The next one may be.
            trio.ClosedResourceError: this end has left the stream.
            trio.BusyResourceError: another task is receiving.
        """
        self._bound.check_run()
        if self._items or self._why_not is not None:
            await trio.lowlevel.checkpoint()
        call = self._pending
        if call is None:
            call = await self._open()
        while not self._items:  # another task may have taken what this one was woken for
            await self._wait(call)
        return self._take(call)

    async def aclose(self) -> None:
        """Leave the stream: its producer is cancelled, and has ended when this returns (law 2)."""
        self._bound.check_run()
        await trio.lowlevel.checkpoint()
        await self.leave("its consumer has closed it")

    # ── what the call tells it ───────────────────────────────────────────────────────────────

    def item(self, message: m.Item) -> None:
        """An item has come."""
        self._items.append(message)
        if self._pending is not None:
            self._pending.wake()

    def end_of_items(self) -> None:
        """No more items come, though the call goes on."""
        self._has_ended = True
        if self._pending is not None:
            self._pending.wake()

    def ended(self) -> None:
        """The call is over; what has come may still be taken."""

    # ── leaving ──────────────────────────────────────────────────────────────────────────────

    async def leave(self, reason: str) -> None:
        """Cancel the call, if there is one, and wait for its end."""
        self._close(partial(trio.ClosedResourceError, "this end has left the stream"))
        if self._pending is not None:
            await self._bound.close(self._pending, reason)

    def expire(self, owner: str) -> None:
        """The call that it was given to has ended: so has this (law 8)."""
        text = f"a stream given to {owner} lives only until its handler has ended"
        self._close(partial(LocalProtocolError, text))
        self._owner = self._pull = None  # which know this stream
        if self._pending is not None:
            self._bound.drop(self._pending, f"the handler of {owner} has ended")

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
            raise LocalProtocolError("this stream came with nothing that it could live in")
        return self._outgoing

    async def _open(self) -> OutgoingCall:
        if self._why_not is not None:
            raise self._why_not()
        if self._pull is None or self._owner is None:
            await trio.lowlevel.checkpoint()
            raise trio.BusyResourceError("another task is receiving from this stream")
        pull, self._pull = self._pull, None
        try:
            self._pending = await pull(self._owner, self)
        finally:
            if self._owner is not None:
                self._pull = pull  # if nothing was sent, it may be tried again
        return self._pending

    async def _wait(self, call: OutgoingCall) -> None:
        """Wait for whatever comes; raise if nothing can come any more."""

        def abort(_raise_cancel: object) -> Abort:
            call.task = None
            return Abort.SUCCEEDED

        if self._why_not is not None:
            raise self._why_not()
        if call.answer is not None or self._has_ended:
            await trio.lowlevel.checkpoint()
            await self._raise_end(call)
        if call.task is not None:
            await trio.lowlevel.checkpoint()
            raise trio.BusyResourceError("another task is receiving from this stream")
        call.task = current_task()
        await wait_task_rescheduled(abort)

    async def _raise_end(self, call: OutgoingCall) -> NoReturn:
        if call.answer is None or isinstance(call.answer, m.Reply):
            raise trio.EndOfChannel
        self.has_raised = True
        raise await self._bound.failure(call)

    def _take(self, call: OutgoingCall) -> Any:
        message = self._items.popleft()
        self._used_items += 1
        self._used_size += message.size
        outgoing = self._bound
        limits = outgoing.limits
        if (
            2 * self._used_items >= limits.stream_items
            or 2 * self._used_size >= limits.stream_bytes
        ):
            outgoing.grant_items(call, self._used_items, self._used_size)
            self._used_items = self._used_size = 0
        if message.problem is not None:
            raise DecodeError(f"an item of {self.name}: {message.problem}")
        if self._convert is None:
            return message.value
        try:
            return self._convert(message.value)
        except RpcError:
            raise
        except Exception as exc:  # noqa: BLE001 - a class's own checks may raise anything
            raise DecodeError(f"an item of {self.name}: {complaint(exc)}") from None


class _Place:
    """Where items are sent: in which call of the peer's, once there is one."""

    __slots__ = ("_protocol", "call")

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self.call = 0

    def room(self) -> int:
        """How many items may be sent now, as far as is known."""
        return 1 if self.call and self._protocol.may_send_item(self.call) else 0


class ItemSender(trio.abc.SendChannel[Any]):
    """The producer's end of a stream.

    Args:
        outgoing: the calls of ours, which know whether there is room in the queue.
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
        """Send items in that call of the peer's from now on."""
        self._place.call = call
        self._credit.let_in()

    def let_in(self) -> None:
        """Credit has come: wake those who wait for it."""
        self._credit.let_in()

    def stop(self, fate: Fate = Fate.UNKNOWN) -> None:
        """Nobody takes items any more.

        Args:
            fate: of the call, if that is because the session is over.
        """
        self._fate = fate
        self._end(trio.BrokenResourceError)

    async def send(self, value: Any) -> None:
        """Send one item; waits while its consumer is slow. Cancelled, it has sent nothing.

        Raises:
            EncodeError: it cannot be sent; nothing was.
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
            # Behind the item: it is on its way a turn earlier, and nothing can raise any more that has sent it.
            await trio.lowlevel.cancel_shielded_checkpoint()

    async def put(self, value: Any) -> None:
        """Do as :meth:`send` does, but as a checkpoint only now and then; more items can be expected."""
        self._left -= 1
        if self._left <= 0 or self._why_not is not None:
            self._left = ITEMS_PER_TURN
            await trio.lowlevel.checkpoint()
        if self._why_not is not None or not self._credit.is_free:
            await self._wait()
        # Queued also where there is no room: there it is counted, and here it would not be.
        self._queue(value)
        self._writer.wake()
        if not self._outgoing.has_room():
            await self._outgoing.wait_for_room()

    @property
    def _is_free(self) -> bool:
        """Whether an item may be sent without waiting."""
        return self._why_not is None and self._credit.is_free and self._outgoing.has_room()

    async def _wait(self) -> None:
        """Wait for credit and room; raise if there is nobody to send to."""
        if not self._credit.is_free:
            await self._credit.wait()
        while not self._outgoing.has_room():
            await self._outgoing.wait_for_room()
            if not self._place.room():
                await self._credit.wait()
        if self._why_not is not None:
            # What ended the stream while we waited may have cancelled us too, which goes before.
            await trio.lowlevel.checkpoint_if_cancelled()
            if self._why_not is trio.BrokenResourceError:
                self._outgoing.check_over(self._fate)
            raise self._why_not("this end of the stream is closed, or nobody takes its items")

    def _queue(self, value: Any) -> None:
        self._protocol.item(self._place.call, value)
        if self._credit.waiting:
            self._credit.let_in()  # one at a time: the next one may pass, too

    async def aclose(self) -> None:
        """End the stream; what was sent is still delivered."""
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
    """Send all items. A generator is closed in any case, in this task, and has ended then.

    Args:
        items: an async iterable, or an awaitable that gives one.
        sender: of the stream.
    """
    if not isinstance(items, AsyncIterable) and is_awaitable(items):
        items = await items
    try:
        async for item in items:
            await sender.put(item)
    finally:
        # Anything else that can be iterated over remains its owner's.
        if isinstance(items, AsyncGenerator):
            await items.aclose()
