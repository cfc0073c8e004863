"""The protocol of one session, without I/O: bytes in, events out; verbs in, bytes out.

A driver feeds packets to :meth:`Protocol.receive`, acts on the events, calls the verbs and writes
the packets of :meth:`Protocol.next_packet`. Nothing here waits, sleeps, logs or asks for the time.
The theory and the tables are in ``states.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, TypeAlias

from trio_rpc.errors import (
    DecodeError,
    EncodeError,
    LocalProtocolError,
    Refused,
    RemoteProtocolError,
)
from trio_rpc.protocol.context import check_context, is_within
from trio_rpc.protocol.counters import Counters
from trio_rpc.protocol.hello import Peer, accept_hello, check_hello, make_info, refusal_of
from trio_rpc.protocol.outbox import CONTROL_ROOM, NOTHING, Outbox
from trio_rpc.protocol.pieces import Pieces
from trio_rpc.protocol.read_requests import ReadRequests
from trio_rpc.protocol.states import (
    LEGAL,
    TURNING,
    Half,
    IncomingState,
    OutgoingState,
    check_in_pieces,
    step,
)
from trio_rpc.protocol.streams import NO_STREAMS, Event, ItemRun, expecting, with_runs
from trio_rpc.util.text import for_people
from trio_rpc.util.unsent_budget import UnsentBudget, UnsentShare
from trio_rpc.wire import messages as m
from trio_rpc.wire.coded import MessageCodec
from trio_rpc.wire.limits import MIN_PACKET, Limits
from trio_rpc.wire.parts import BufferList

__all__ = ["Protocol"]

ALONE = 4 * 1024 * 1024
"""Bytes sent for a single call after which its pieces fill whole packets."""

TOO_DEEP = {"code": "overloaded", "message": "calls are nested too deeply"}
CLOSING = {"code": "unavailable", "message": "the other end is closing"}

References: TypeAlias = Callable[[object], m.Reference | None]
Data: TypeAlias = bytes | BufferList
InCall: TypeAlias = m.Reply | m.ReplyErr | m.Item | m.EndOfItems | m.Started


# Looking up a member in an Enum class takes longer than everything done with it here.
_OPEN = Half.OPEN
_WAITING, _ABANDONED = OutgoingState.WAITING, OutgoingState.ABANDONED
_RUNNING, _ANSWERED = IncomingState.RUNNING, IncomingState.ANSWERED
_UNANSWERED = (IncomingState.RUNNING, IncomingState.CANCELLED)


class Protocol:
    """Both halves of one session and its calls, as one end sees them.

    Args:
        codec: encodes and decodes messages; belongs to this session alone.
        limits: the limits of this end.
        share: counts the bytes queued for sending, in a budget that other sessions share.
    """

    def __init__(
        self, codec: MessageCodec, limits: Limits, share: UnsentShare | None = None
    ) -> None:
        self.limits = limits
        self.share = share or UnsentShare(UnsentBudget(), limits.max_unsent_total)
        self.peer = Peer()
        self.ours = Half.SILENT
        self.theirs = Half.SILENT
        self.counters = Counters()
        self.outgoing: dict[int, OutgoingState] = {}
        self.incoming: dict[int, IncomingState] = {}
        self._taken = NO_STREAMS
        """Items and Started that may arrive in our calls."""
        self._given = NO_STREAMS
        """Items and Started that we may send in the peer's calls."""
        self._alone = ALONE
        """Bytes that have left since more than one call was in flight."""
        self._last_ping = 0
        self.is_paced = False
        """Whether further short pieces wait for a Pong."""
        self._pace = 0
        """The number of the Ping that asks for it, or of the last such Ping."""
        self._codec = codec
        self._outbox = Outbox(MIN_PACKET)
        self._pieces: Pieces | None = None
        """The large message that is arriving."""
        self._last_id = 0
        self.read_requests = ReadRequests()
        self.notification_credit = 0
        """The number of further Notifications that the peer accepts."""
        self._notifications_granted = limits.max_notifications
        """The number of further Notifications that the peer may send."""

    # ── receiving ────────────────────────────────────────────────────────────────────────────

    def receive(self, packet: bytes) -> Iterator[Event]:
        """Yield each message in ``packet`` that is an event.

        Messages that concern only the protocol (a Ping, a piece, a late message) are not events.
        Items that follow each other may be one. Messages of long packets are decoded lazily.

        Raises:
            RemoteProtocolError: the peer broke the protocol (law 14). Its half has ENDED; ours can
                still say how its calls ended, and Goodbye.
            Refused: the peer speaks another version, or its limits do not fit. Its half has ENDED.
        """
        self.counters.packets_received += 1
        self.counters.bytes_received += len(packet)
        if len(packet) > self.limits.max_packet:
            raise self._broken(f"a packet of {len(packet):,} bytes is larger than allowed")
        if self.theirs is Half.SILENT and (refusal := refusal_of(packet)) is not None:
            self.theirs = Half.ENDED
            raise refusal
        try:
            for message in self._in_runs(self._codec.decode(packet)):
                if isinstance(message, ItemRun):
                    yield from self._accept_run(message)
                elif (event := self._accept(message)) is not None:
                    yield event
        except (DecodeError, LocalProtocolError) as exc:
            raise self._broken(exc) from exc

    def _broken(self, why: object) -> RemoteProtocolError:
        self.theirs = Half.ENDED
        return RemoteProtocolError(f"the other end broke the protocol: {why}")

    def _accept(self, message: m.Message) -> m.Message | None:
        """Act on one message, and return it if it is an event."""
        kind = type(message)
        self.counters.messages_received += 1
        if not (self.ours is self.theirs is _OPEN) or kind in TURNING:
            self.theirs = step(self.theirs, self.ours, kind)
        return self._ACCEPT[kind](self, message)

    def _in_runs(self, messages: Iterable[m.Message]) -> Iterable[Event]:
        """Join Items that follow each other, if the messages have been decoded already."""
        if type(messages) is list and self._taken is not NO_STREAMS:
            return with_runs(messages)
        return messages

    def _accept_run(self, run: ItemRun) -> Iterable[Event]:
        """Act on Items of one call, and return the events: one, if all are in order."""
        is_usual = self.outgoing.get(run.id) is _WAITING and self.ours is self.theirs is _OPEN
        if is_usual and self._taken.take_run(run):
            self.counters.messages_received += len(run.items)
            return (run,)
        return filter(None, map(self._accept, run.items))

    def _accept_request(self, request: m.Request) -> m.Message | None:
        incoming, context = self.incoming, request.context
        if request.id in incoming:
            raise DecodeError(f"Request {request.id} is already in flight")
        if len(incoming) >= self.limits.max_calls:
            raise DecodeError(f"more than {self.limits.max_calls} calls at once")
        incoming[request.id] = _RUNNING
        if context is None and self.ours is self.theirs is _OPEN:
            return request
        if context:
            check_context(context)
        if self._is_late(context):
            self.reply_error(request.id, {**CLOSING})
            return None
        if context:
            if context.get("depth", 0) > self.limits.max_call_depth:
                self.reply_error(request.id, {**TOO_DEEP})
                return None
            self._given = expecting(self._given, request.id, context)
        return request

    def _is_late(self, context: dict[str, Any] | None) -> bool:
        """Return whether a call crossed a Goodbye: then only calls within a call are served."""
        if self.ours is self.theirs is _OPEN or is_within(context, self.outgoing):
            return False
        # A call whose parent has just ended crossed that end; one without a parent is a fault.
        if self.theirs is not _OPEN and "parent" not in (context or ()):
            raise DecodeError("a call after Goodbye that is not made within a call")
        self.counters.late_calls += 1
        return True

    def _accept_notification(self, message: m.Notification) -> m.Message | None:
        if not self._notifications_granted:
            raise DecodeError("a Notification without credit")
        self._notifications_granted -= 1
        if message.context:
            check_context(message.context)
        if self._is_late(message.context):
            self.grant_notifications(1)  # no handler will run, whose end would grant it
            return None
        return message

    def _accept_terminal(self, message: m.Reply | m.ReplyErr) -> m.Message | None:
        state = self._state_of(message)
        self._forget_outgoing(message.id)
        if state is _ABANDONED:
            self.counters.late_replies += 1
            return None
        return message

    def _state_of(self, message: InCall) -> OutgoingState:
        state = self.outgoing.get(message.id)
        if state is None:
            raise DecodeError(
                f"{type(message).__name__} to call {message.id}, which is not in flight"
            )
        return state

    def _forget_outgoing(self, call: int) -> None:
        del self.outgoing[call]
        if self._taken is not NO_STREAMS:
            self._taken.forget(call)

    def _accept_item(self, message: m.Item) -> m.Message | None:
        state = self._state_of(message)
        self._taken.item(message.id, message.size)
        return message if state is _WAITING else None

    def _accept_end_of_items(self, message: m.EndOfItems) -> m.Message | None:
        state = self._state_of(message)
        self._taken.end(message.id)
        return message if state is _WAITING else None

    def _accept_started(self, message: m.Started) -> m.Message | None:
        state = self._state_of(message)
        self._taken.started(message.id)
        return None if state is _ABANDONED else message

    def _accept_cancel(self, message: m.Cancel) -> m.Message | None:
        state = self.incoming.get(message.id)
        if state is IncomingState.RUNNING:
            self.incoming[message.id] = IncomingState.CANCELLED
            self._outbox.withdraw_large(message.id)
            self._count()
            return message
        self.counters.late_cancels += 1
        if state is IncomingState.ANSWERED and self._outbox.withdraw_large(message.id):
            error = {"code": "cancelled", "message": "cancelled while its result was on its way"}
            self._put(m.ReplyErr(message.id, error), message.id)
        return None

    def _accept_hello(self, message: m.Hello) -> m.Message:
        try:
            self.peer = accept_hello(message, self._codec.forms)
        except Refused:
            self.theirs = Half.ENDED
            raise
        self._outbox.resize(min(self.limits.max_packet, self.peer.max_packet))
        self.notification_credit = self.peer.max_notifications
        limits, peer = self.limits, self.peer
        if (limits.max_depth, limits.max_nodes) != (peer.max_depth, peer.max_nodes):
            self._codec.peer_limits = replace(
                limits, max_depth=peer.max_depth, max_nodes=peer.max_nodes
            )
        return message

    def _accept_ping(self, message: m.Ping) -> None:
        if m.Pong in LEGAL[self.ours]:
            self._outbox.put_pong(message.number)

    def _accept_pong(self, message: m.Pong) -> m.Message | None:
        self.read_requests.ponged(message.number)
        return message if message.number <= self._last_ping else None

    def _accept_credit(self, message: m.Credit) -> m.Message | None:
        if message.id is not None:
            is_wanted = self._given.give(message.id, message.count, message.size)
            return message if is_wanted else None
        self.notification_credit += message.count
        if self.notification_credit > self.peer.max_notifications:
            raise DecodeError("Credit for more Notifications than were sent")
        return message

    def _accept_piece(self, message: m.Piece) -> None:
        self._pieces = self._pieces or Pieces(self.limits.max_message)
        self._pieces.add(message.data)

    def _accept_last_piece(self, message: m.LastPiece) -> m.Message | None:
        pieces, self._pieces = self._pieces or Pieces(self.limits.max_message), None
        if not message.data:
            pieces.drop()
            return None
        pieces.add(message.data)
        whole = self._codec.decode_message(pieces.take())
        check_in_pieces(type(whole))
        return self._accept(whole)

    _ACCEPT: ClassVar[Mapping[type[m.Message], Callable[[Protocol, Any], m.Message | None]]] = {
        m.Request: _accept_request,
        m.Notification: _accept_notification,
        m.Reply: _accept_terminal,
        m.ReplyErr: _accept_terminal,
        m.Cancel: _accept_cancel,
        m.Hello: _accept_hello,
        m.Welcome: lambda _, message: message,
        m.Goodbye: lambda _, message: message,
        m.Ping: _accept_ping,
        m.Pong: _accept_pong,
        m.Credit: _accept_credit,
        m.Piece: _accept_piece,
        m.LastPiece: _accept_last_piece,
        m.Item: _accept_item,
        m.EndOfItems: _accept_end_of_items,
        m.Started: _accept_started,
    }

    # ── sending ──────────────────────────────────────────────────────────────────────────────

    def next_packet(self) -> bytes | BufferList | None:
        """Return the next packet to write, or None. The calls that it answers have then ended."""
        if len(self.outgoing) + len(self.incoming) > 1:
            self._alone = 0
        taken = self._outbox.next_packet(short=self._alone < ALONE)
        if taken is None:
            return None
        self._alone += len(taken[0])
        if self._outbox.allowance <= 0 and not self.is_paced:
            self._pace, self.is_paced = self.ping(), True
        packet, answered = taken
        for call in answered:
            del self.incoming[call]
        self.counters.packets_sent += 1
        self.counters.bytes_sent += len(packet)
        self._count()
        return packet

    def allow_pieces(self, size: int) -> None:
        """Allow ``size`` more bytes of pieces, since the earlier ones have arrived."""
        self.is_paced = False
        self._outbox.allowance = size

    def is_paced_by(self, pong: m.Pong) -> bool:
        """Return whether pieces wait for that Pong, which also answers the Pings before its own."""
        return self.is_paced and self._pace <= pong.number

    @property
    def bytes_waiting(self) -> int:
        """Bytes that are queued for sending."""
        return self._outbox.size

    @property
    def may_begin(self) -> bool:
        """Whether a handler may begin: its answer would join the queued messages (law 12)."""
        return self.share.allows(self._outbox.size, self.limits.max_unsent)

    @property
    def may_answer(self) -> bool:
        """Whether the answer of a running handler can still be queued."""
        return self.share.allows(0, 1)

    @property
    def has_room(self) -> bool:
        """Whether this end may queue a call, a notification or an item."""
        return self.share.allows(self._outbox.size, self.limits.send_buffer)

    @property
    def messages_waiting(self) -> int:
        """The number of small messages that are queued for sending."""
        return self._outbox.messages

    @property
    def has_data(self) -> bool:
        """Whether a message is queued for sending."""
        return bool(self._outbox)

    @property
    def has_call_credit(self) -> bool:
        """Whether the peer accepts one more call."""
        return len(self.outgoing) < self.peer.max_calls

    def hello(
        self, credentials: object = None, session: str = "", retry_after: float | None = None
    ) -> None:
        """Queue Hello, the first message. Raises EncodeError if the credentials are too large."""
        info = make_info(self.limits, credentials, session, self._codec.forms, retry_after)
        data = self._codec.encode(m.Hello(m.PROTOCOL_VERSION, info))
        check_hello(data, MIN_PACKET - CONTROL_ROOM)
        self._queue(m.Hello, data)

    def welcome(self) -> None:
        """Accept the peer, which may call from now on."""
        self._put(m.Welcome())

    def goodbye(self, code: str, message: str = "") -> None:
        """Queue a Goodbye, behind the calls made so far: this end starts nothing new.

        Args:
            code: one of the codes in docs/protocol.md.
            message: for people; its first thousand characters are sent.
        """
        data = self._codec.encode(m.Goodbye(code, for_people(message)))
        self.ours = step(self.ours, self.theirs, m.Goodbye)
        self._outbox.put_goodbye(data)

    def request(
        self,
        method: str,
        args: list[Any],
        kwargs: dict[str, Any] | None = None,
        context: dict[str, Any] | None = None,
        references: References | None = None,
    ) -> int:
        """Queue a Request and return its id.

        Raises:
            EncodeError: it cannot be encoded, or is too large for the peer. Nothing was queued.
            LocalProtocolError: there is no credit for it, or no call may be made now.
        """
        if len(self.outgoing) >= self.peer.max_calls:
            raise LocalProtocolError("the other end allows no further call at the same time")
        if self.ours is not _OPEN or self.theirs is not _OPEN:
            self._check_may_call(context)
        call = self._last_id + 1
        data = self._encode(m.Request(call, method, args, kwargs, context), references)
        self._queue(m.Request, data, -call)
        self._last_id = call
        self.outgoing[call] = _WAITING
        if context:
            self._taken = expecting(self._taken, call, context)
        return call

    def notify(
        self,
        method: str,
        args: list[Any],
        kwargs: dict[str, Any] | None = None,
        context: dict[str, Any] | None = None,
        references: References | None = None,
    ) -> None:
        """Queue a Notification; raises as :meth:`request` does.

        ``references`` is called for values of unknown types, to refuse them with a better text.
        """
        if not self.notification_credit:
            raise LocalProtocolError("the other end has given no credit for another notification")
        self._check_may_call(context)
        data = self._encode(m.Notification(method, args, kwargs, context), references)
        self._queue(m.Notification, data)
        self.notification_credit -= 1

    def _check_may_call(self, context: dict[str, Any] | None) -> None:
        if self.ours is self.theirs is _OPEN:
            return
        leaving = self.ours is Half.LEAVING or self.theirs is Half.LEAVING
        if leaving and not is_within(context, self.incoming):
            raise LocalProtocolError("after a Goodbye only calls within a call may be made")

    def cancel(self, call: int, reason: str | None = None) -> bool:
        """Cancel an outgoing call; return True if its Request had not left, so that it has ended.

        Does nothing for a call that has ended or was cancelled before: Cancel is sent once. The
        first thousand characters of the reason are sent.
        """
        if self.outgoing.get(call) is not OutgoingState.WAITING:
            return False
        if self.never_left(call):
            return True
        self._put(m.Cancel(call, None if reason is None else for_people(reason)))
        self.outgoing[call] = OutgoingState.CANCELLING
        return False

    def abandon(self, call: int) -> None:
        """Stop waiting for an outgoing call. Its terminal message will be dropped."""
        if call in self.outgoing:
            self.outgoing[call] = OutgoingState.ABANDONED

    def never_left(self, call: int) -> bool:
        """Withdraw a Request whose last byte has not left; return whether it was withdrawn."""
        withdrawn = self._outbox.withdraw_request(call)
        if withdrawn:
            self._forget_outgoing(call)
            self._count()
        return withdrawn

    def may_send_item(self, call: int) -> bool:
        """Return whether the peer gave credit for one more Item in that call."""
        return self._given.may_pass(call)

    def item(self, call: int, value: Any) -> None:
        """Queue an Item for an incoming call. It is dropped if the call has been cancelled.

        Raises:
            EncodeError: it cannot be encoded, or is too large for the peer. Nothing was queued.
            LocalProtocolError: there is no credit, or the call has no items, or they have ended.
        """
        data = self._encode(m.Item(call, value))
        self._given.item(call, len(data))
        if self.incoming[call] is _RUNNING:
            self._queue(m.Item, data, NOTHING, call)

    def end_items(self, call: int) -> None:
        """Queue the end of an incoming call's Items. Does nothing if they have ended."""
        if self._given.has_items(call):
            self._given.end(call)
            if self.incoming[call] is _RUNNING:
                self._queue(m.EndOfItems, self._encode(m.EndOfItems(call)), call=call)

    def grant_items(self, call: int, items: int, size: int) -> None:
        """Grant an outgoing call's stream more credit, unless the call or its Items have ended."""
        if self.outgoing.get(call) is _WAITING and self._taken.give(call, items, size):
            self.ours = step(self.ours, self.theirs, m.Credit)
            self._outbox.put_item_credit(call, items, size)
            self._count()

    def started(self, call: int, value: Any) -> None:
        """Queue the Started of an incoming call, even if it has been cancelled.

        Raises:
            EncodeError: the value cannot be encoded. Nothing was queued.
            LocalProtocolError: that call expects no Started, or has had it.
        """
        data = self._encode(m.Started(call, value))
        self._given.started(call)
        self._queue(m.Started, data, call=call)

    def reply(self, call: int, result: Any, references: References | None = None) -> None:
        """Queue the result of an incoming call.

        Raises EncodeError if it cannot be encoded. The call then still needs a terminal message.
        """
        if self.incoming.get(call) not in _UNANSWERED:
            raise LocalProtocolError(f"call {call} already has its terminal message")
        self._queue(m.Reply, self._encode(m.Reply(call, result), references), call)
        self._answered(call)

    def reply_error(self, call: int, error: dict[str, Any]) -> None:
        """Queue the error that ends an incoming call; raises as :meth:`reply` does."""
        if self.incoming.get(call) not in _UNANSWERED:
            raise LocalProtocolError(f"call {call} already has its terminal message")
        self._put(m.ReplyErr(call, error), call)
        self._answered(call)

    def _answered(self, call: int) -> None:
        self.incoming[call] = _ANSWERED
        if self._given is not NO_STREAMS:
            self._given.forget(call)

    def ping(self) -> int:
        """Queue a Ping and return its number. A Pong answers all Pings up to the one it names."""
        self._last_ping += 1
        self._put(m.Ping(self._last_ping))
        self.read_requests.pinged(self._last_ping, self._last_id, self._outbox.large_requests)
        return self._last_ping

    def grant_notifications(self, count: int) -> None:
        """Grant credit for ``count`` Notifications, after as many handlers have ended."""
        if self._notifications_granted + count > self.limits.max_notifications:
            raise LocalProtocolError("more notifications are granted than were received")
        step(self.ours, self.theirs, m.Credit)
        self._notifications_granted += count
        self._outbox.put_credit(count)

    def end(self) -> None:
        """End both halves: nothing more is sent or received, and every call is forgotten."""
        self.ours = self.theirs = Half.ENDED
        self.outgoing.clear()
        self.incoming.clear()
        self._taken = self._given = NO_STREAMS
        self._outbox.clear()
        self.share.hold(0)
        self._count()
        self._pieces = None

    def let_go(self) -> None:
        """Break the codec's reference cycle. Nothing can be decoded after this."""
        self._codec.let_go()

    def _put(self, message: m.Message, tag: int = NOTHING) -> None:
        self._queue(type(message), self._encode(message), tag)

    def _encode(self, message: m.Message, references: References | None = None) -> Data:
        data = self._codec.encode_parts(message, references)
        if len(data) > self.peer.max_message:
            raise EncodeError(
                f"a message of {len(data):,} bytes is larger than the {self.peer.max_message:,} "
                "that the other end accepts"
            )
        return data

    def _queue(
        self, kind: type[m.Message], data: Data, tag: int = NOTHING, call: int = NOTHING
    ) -> None:
        if not (self.ours is self.theirs is _OPEN) or kind in TURNING:
            self.ours = step(self.ours, self.theirs, kind)
        self._outbox.put(data, tag, call)
        self.share.queue(self._outbox.size)

    def _count(self) -> None:
        self.share.queue(self._outbox.size)
