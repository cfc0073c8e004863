"""The context managers that open streams and duplexes, and end them (law 2)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

import trio

from trio_rpc.errors import InvalidArguments
from trio_rpc.services.converters import Convert
from trio_rpc.services.decorators import Kind
from trio_rpc.services.item_stream import ItemStream
from trio_rpc.services.proxies import RemoteMethod
from trio_rpc.services.tables import BoundMethod
from trio_rpc.session.calls.context import handled_call
from trio_rpc.session.calls.outgoing import OutgoingCalls
from trio_rpc.session.calls.outgoing_call import CallView, OutgoingCall, describe_exception
from trio_rpc.session.streams.items import ItemReceiver, ItemSender
from trio_rpc.util.raised import add_note, repr_of
from trio_rpc.wire import messages as m

__all__ = ["DuplexChannel", "fits", "open_duplex", "open_stream", "with_channel"]


NOTHING: tuple[Any, ...] = ()


class DuplexChannel(trio.abc.Channel[Any], ItemStream[Any]):
    """One end of a duplex: items go both ways, and each direction ends separately.

    Two tasks may use it at once if one sends and the other receives.
    """

    def __init__(self, sender: ItemSender, receiver: ItemReceiver) -> None:
        self._sender = sender
        self._receiver = receiver
        # The events that the call passes to its listener, if this is the caller's end.
        self.items = receiver.items
        self.end_of_items = receiver.end_of_items

    def __repr__(self) -> str:
        return f"<trio_rpc duplex of {self._receiver.name}>"

    async def send(self, value: Any) -> None:
        """Send one item; wait while the other end is slow. A cancelled send has sent nothing.

        Raises:
            EncodeError: the item cannot be sent; nothing was sent.
            trio.ClosedResourceError: this end has been closed, or its sending half.
            trio.BrokenResourceError: the other end takes no more items. Receiving says why.
            SessionClosed, SessionBroken: the session is over; ``fate`` is the fate of the call.
        """
        await self._sender.send(value)

    async def send_eof(self) -> None:
        """Close only the sending half: the other end receives ``EndOfChannel``."""
        await self._sender.aclose()

    async def receive(self) -> Any:
        """Return the next item. A cancelled receive loses nothing.

        Raises:
            trio.EndOfChannel: the other end sends no more items.
            Exception: at the caller, the handler's exception, after the items that preceded it.
            DecodeError: the item does not have the annotated type. The next one may have it.
            trio.ClosedResourceError: this end has been closed.
            trio.BusyResourceError: another task is receiving.
        """
        return await self._receiver.receive()

    async def receive_many(self) -> list[Any]:
        """Return all items that have arrived, at least one; see :meth:`ItemStream.receive_many`."""
        return await self._receiver.receive_many()

    async def aclose(self) -> None:
        """Close both halves. At the caller, the handler has ended when this returns."""
        await self._sender.aclose()
        await self._receiver.aclose()

    def convert_items(self, convert: Convert | None) -> None:
        """Set the function that checks and converts received items."""
        self._receiver.convert_items(convert)

    def ended(self) -> None:
        """Handle the end of the call."""
        self._sender.stop(self._receiver.fate)


@contextlib.asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_stream(
    outgoing: OutgoingCalls,
    method: RemoteMethod,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    remote_scope: OutgoingCall | None = None,
    view: CallView | None = None,
) -> AsyncIterator[ItemReceiver]:
    """Open a stream while the block lasts. Its generator has ended when the block ends."""
    receiver = ItemReceiver(method.name, method.convert, outgoing=outgoing)
    call = await outgoing.open(
        method, args, kwargs, remote_scope=remote_scope, listener=receiver, view=view
    )
    receiver.attach(call)
    async with _ending(outgoing, call, receiver):
        yield receiver


@contextlib.asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_duplex(
    outgoing: OutgoingCalls,
    method: RemoteMethod,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    remote_scope: OutgoingCall | None = None,
    view: CallView | None = None,
) -> AsyncIterator[DuplexChannel]:
    """Open a duplex while the block lasts. Its handler has ended when the block ends."""
    sender, receiver = (
        ItemSender(outgoing),
        ItemReceiver(method.name, method.convert, outgoing=outgoing),
    )
    channel = DuplexChannel(sender, receiver)
    mine = (_served(sender), *args)
    call = await outgoing.open(
        method, mine, kwargs, remote_scope=remote_scope, listener=channel, view=view
    )
    receiver.attach(call)
    async with _ending(outgoing, call, receiver):
        yield channel


async def _served(sender: ItemSender) -> AsyncGenerator[Any, None]:
    """Yield once ``sender`` has ended: the stream that a duplex's handler pulls."""
    call = handled_call.get()
    if call is not None:
        call.sender = sender
        sender.bind(call.id)
        try:
            await sender.wait_over()
        finally:
            sender.stop()
    for nothing in NOTHING:
        yield nothing


@contextlib.asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def _ending(
    outgoing: OutgoingCalls, call: OutgoingCall, receiver: ItemReceiver
) -> AsyncIterator[None]:
    """End an opened call with the block, and raise its error if leaving the block caused it.

    An error that the consumer has not reached is not raised, since how far a producer runs ahead is
    not deterministic.
    """
    try:
        yield
    except BaseException as exc:
        was_over = call.answer is not None
        await outgoing.close(call, describe_exception(exc))
        # A failed send on a duplex says only that the other end accepts no more items.
        is_consequence = isinstance(exc, trio.BrokenResourceError) and not receiver.has_raised
        when = "before" if was_over else "as it was closed"
        error = await _error_of(outgoing, call) if is_consequence or not was_over else None
        if error is not None:
            add_note(exc, f"and {call.method.name} failed {when}: {repr_of(error)}")
        raise
    was_over = call.answer is not None
    await outgoing.close(call, "its block has been left")
    answer = call.answer
    if receiver.has_raised or (
        was_over
        and isinstance(answer, m.ReplyErr)
        and answer.error.get("code") == "raised"
        and answer.error.get("started", True)
    ):
        return
    error = await _error_of(outgoing, call)
    try:
        if error is not None:
            raise error
    finally:
        del error  # its traceback holds this frame


async def _error_of(outgoing: OutgoingCalls, call: OutgoingCall) -> Exception | None:
    answer = call.answer
    if not isinstance(answer, m.ReplyErr) or answer.error.get("code") in ("cancelled", "deadline"):
        return None
    return await outgoing.failure(call)


def fits(method: BoundMethod, context: Mapping[str, Any]) -> bool:
    """Return whether a method is used according to its kind."""
    if method.kind is Kind.NOTIFICATION:
        return False
    return method.kind.is_opened is ("stream" in context)


def with_channel(method: BoundMethod, args: list[Any], sender: ItemSender) -> list[Any]:
    """Replace the stream on which the caller of a duplex sends by a channel."""
    if not args or not isinstance(args[0], ItemReceiver):
        raise InvalidArguments(f"{method.name} is a duplex: a stream comes first")
    return [DuplexChannel(sender, args[0]), *args[1:]]
