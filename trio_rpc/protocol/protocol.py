"""The protocol of one session, without I/O: bytes in, events out; verbs in, bytes out.

A driver feeds packets to :meth:`Protocol.receive`, acts on the events, calls the verbs and writes
what :meth:`Protocol.next_packet` gives. Nothing here waits, sleeps, logs or asks for the time. The
theory and the tables are in ``states.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from trio_rpc.errors import (
    DecodeError,
    EncodeError,
    LocalProtocolError,
    Refused,
    RemoteProtocolError,
)
from trio_rpc.protocol.hello import Peer, make_info, read_info
from trio_rpc.protocol.outbox import NO_REPLY, Outbox
from trio_rpc.protocol.pieces import Pieces
from trio_rpc.protocol.states import LEGAL, NEEDS_WELCOME, NEXT, Half, Incoming, Outgoing
from trio_rpc.wire import messages as m
from trio_rpc.wire.codec import Codec
from trio_rpc.wire.limits import MIN_PACKET, Limits

__all__ = ["Counters", "Event", "Protocol"]

Event: TypeAlias = (
    m.Request
    | m.Notification
    | m.Reply
    | m.ReplyErr
    | m.Cancel
    | m.Hello
    | m.Welcome
    | m.Goodbye
    | m.Pong
    | m.Credit
)
References: TypeAlias = Callable[[object], m.Reference | None]


@dataclass(slots=True)
class Counters:
    """What has gone through, and what was dropped by rule."""

    packets_sent: int = 0
    packets_received: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    messages_received: int = 0
    late_replies: int = 0
    """Terminal messages of calls that had been abandoned."""
    late_cancels: int = 0
    """Cancels of calls that had ended."""
    late_calls: int = 0
    """Requests and Notifications that crossed our Goodbye."""


class Protocol:
    """Both halves of one session and its calls, as one end sees them.

    Args:
        codec: encodes and decodes; belongs to this session alone.
        limits: what this end accepts.
    """

    def __init__(self, codec: Codec, limits: Limits) -> None:
        self.limits = limits
        self.peer = Peer()
        self.ours = Half.SILENT
        self.theirs = Half.SILENT
        self.counters = Counters()
        self.outgoing: dict[int, Outgoing] = {}
        self.incoming: dict[int, Incoming] = {}
        self._codec = codec
        self._outbox = Outbox(min(limits.max_packet, MIN_PACKET))
        self._pieces = Pieces(limits.max_message)
        self._last_id = 0
        self._last_whole_id = 0
        self._last_pieced_id = 0
        self._notifications_left = 0
        """How many Notifications we may still send."""
        self._notifications_granted = limits.max_notifications
        """How many Notifications the peer may still send."""
        self._accept: dict[type[m.Message], Callable[[Any], Event | None]] = {
            m.Request: self._accept_request,
            m.Notification: self._accept_notification,
            m.Reply: self._accept_terminal,
            m.ReplyErr: self._accept_terminal,
            m.Cancel: self._accept_cancel,
            m.Hello: self._accept_hello,
            m.Welcome: lambda message: message,
            m.Goodbye: lambda message: message,
            m.Ping: self._accept_ping,
            m.Pong: lambda message: message,
            m.Credit: self._accept_credit,
            m.Piece: self._accept_piece,
            m.LastPiece: self._accept_last_piece,
            m.DropPieces: self._accept_drop,
        }

    # ── receiving ────────────────────────────────────────────────────────────────────────────

    def receive(self, packet: bytes) -> Iterator[Event]:
        """Yield an event for each message in ``packet`` that is one.

        What concerns nobody but the protocol (a Ping, a piece, a late message) yields nothing.
        Events are made one by one, as they are asked for.

        Raises:
            RemoteProtocolError: the peer broke the rules (law 14). Both halves have ENDED, but for
                the Goodbye that may still be said.
            Refused: the peer speaks another version, or its limits do not fit.
        """
        self.counters.packets_received += 1
        self.counters.bytes_received += len(packet)
        try:
            for message in self._codec.decode(packet):
                event = self._receive_message(message)
                if event is not None:
                    yield event
        except (DecodeError, LocalProtocolError) as exc:
            self.theirs = Half.ENDED
            raise RemoteProtocolError(f"the other end broke the protocol: {exc}") from exc

    def _receive_message(self, message: m.Message) -> Event | None:
        kind = type(message)
        self.counters.messages_received += 1
        self.theirs = _step(self.theirs, self.ours, kind)
        return self._accept[kind](message)

    def _accept_request(self, request: m.Request) -> Event | None:
        if request.id <= self._last_whole_id:
            raise DecodeError(f"Request {request.id} comes after Request {self._last_whole_id}")
        self._last_whole_id = request.id
        return self._admit(request)

    def _admit(self, request: m.Request) -> Event | None:
        if request.id in self.incoming:
            raise DecodeError(f"Request {request.id} is in flight already")
        if len(self.incoming) >= self.limits.max_calls:
            raise DecodeError(f"more than {self.limits.max_calls} calls at once")
        self.incoming[request.id] = Incoming.RUNNING
        context = request.context
        if context:
            _check_context(context)
            if context.get("depth", 0) > self.limits.max_call_depth:
                self._refuse(request, "overloaded", "calls are nested too deeply")
                return None
        if self.ours is not Half.OPEN and not _is_within(context, self.outgoing):
            self.counters.late_calls += 1
            self._refuse(request, "unavailable", "the other end is closing")
            return None
        return request

    def _refuse(self, request: m.Request, code: str, message: str) -> None:
        self.reply_error(request.id, {"code": code, "message": message})

    def _accept_notification(self, message: m.Notification) -> Event | None:
        if not self._notifications_granted:
            raise DecodeError("a Notification without credit")
        self._notifications_granted -= 1
        if message.context:
            _check_context(message.context)
        if self.ours is not Half.OPEN and not _is_within(message.context, self.outgoing):
            self.counters.late_calls += 1
            return None
        return message

    def _accept_terminal(self, message: m.Reply | m.ReplyErr) -> Event | None:
        state = self.outgoing.pop(message.id, None)
        if state is None:
            raise DecodeError(
                f"{type(message).__name__} to call {message.id}, which is not in flight"
            )
        if state is Outgoing.ABANDONED:
            self.counters.late_replies += 1
            return None
        return message

    def _accept_cancel(self, message: m.Cancel) -> Event | None:
        state = self.incoming.get(message.id)
        if state is Incoming.RUNNING:
            self.incoming[message.id] = Incoming.CANCELLED
            return message
        self.counters.late_cancels += 1
        if state is Incoming.ANSWERED and self._outbox.withdraw_answer(message.id):
            error = {"code": "cancelled", "message": "cancelled while its result was on its way"}
            self._put(m.ReplyErr(message.id, error), answers=message.id)
        return None

    def _accept_hello(self, message: m.Hello) -> Event:
        if message.version != m.PROTOCOL_VERSION:
            self.theirs = Half.ENDED
            raise Refused(
                f"this end speaks version {m.PROTOCOL_VERSION} of the protocol, "
                f"the other end version {message.version}"
            )
        try:
            self.peer = read_info(message.info)
        except DecodeError as exc:
            self.theirs = Half.ENDED
            raise Refused(f"the limits do not fit: {exc}") from exc
        self._outbox.max_packet = min(self.limits.max_packet, self.peer.max_packet)
        self._notifications_left = self.peer.max_notifications
        self._codec.peer_limits = replace(
            self.limits, max_depth=self.peer.max_depth, max_nodes=self.peer.max_nodes
        )
        return message

    def _accept_ping(self, message: m.Ping) -> None:
        self._outbox.put_pong(self._codec.encode(m.Pong(message.number)))

    def _accept_credit(self, message: m.Credit) -> Event:
        self._notifications_left += message.notifications
        if self._notifications_left > self.peer.max_notifications:
            raise DecodeError("Credit for more Notifications than were sent")
        return message

    def _accept_piece(self, message: m.Piece) -> None:
        self._pieces.add(message.data)

    def _accept_last_piece(self, message: m.LastPiece) -> Event | None:
        self._pieces.add(message.data)
        whole = self._codec.decode_message(self._pieces.take())
        if not isinstance(whole, m.Request):
            if isinstance(whole, m.Notification | m.Reply | m.ReplyErr):
                return self._receive_message(whole)
            raise DecodeError(f"a {type(whole).__name__} must not come in pieces")
        # Small Requests may have passed this one, so the two ways are counted apart.
        if whole.id <= self._last_pieced_id:
            raise DecodeError(f"Request {whole.id} comes after Request {self._last_pieced_id}")
        self._last_pieced_id = whole.id
        self.counters.messages_received += 1
        return self._admit(whole)

    def _accept_drop(self, _message: m.DropPieces) -> None:
        self._pieces.drop()

    # ── sending ──────────────────────────────────────────────────────────────────────────────

    def next_packet(self) -> bytes | None:
        """Take the next packet to write, or None. The calls that it answers are over with that."""
        taken = self._outbox.next_packet()
        if taken is None:
            return None
        packet, answered = taken
        for call in answered:
            del self.incoming[call]
        self.counters.packets_sent += 1
        self.counters.bytes_sent += len(packet)
        return packet

    @property
    def bytes_waiting(self) -> int:
        """Bytes that are queued for sending."""
        return self._outbox.size

    @property
    def has_data(self) -> bool:
        """Whether anything is queued for sending."""
        return bool(self._outbox)

    @property
    def has_call_credit(self) -> bool:
        """Whether the peer takes one more call."""
        return len(self.outgoing) < self.peer.max_calls

    @property
    def notification_credit(self) -> int:
        """How many Notifications more the peer takes."""
        return self._notifications_left

    def hello(self, credentials: object = None) -> None:
        """Say Hello: first, and once. EncodeError when the credentials are too large."""
        data = self._encode(m.Hello(m.PROTOCOL_VERSION, make_info(self.limits, credentials)))
        if len(data) > MIN_PACKET:
            raise EncodeError(f"credentials must fit in a Hello of {MIN_PACKET} bytes")
        self._queue(m.Hello, data)

    def welcome(self) -> None:
        """Accept the peer: from here on it may call."""
        self._put(m.Welcome())

    def goodbye(self, code: str, message: str = "") -> None:
        """Say that nothing new will be started; ``code`` is one of docs/protocol.md."""
        self._put(m.Goodbye(code, message))

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
            LocalProtocolError: there is no credit for it, or it is not the time for it.
        """
        if not self.has_call_credit:
            raise LocalProtocolError("the other end takes no more calls at once")
        self._check_may_call(context)
        call = self._last_id + 1
        data = self._encode(m.Request(call, method, args, kwargs, context), references)
        self._queue(m.Request, data)
        self._last_id = call
        self.outgoing[call] = Outgoing.WAITING
        return call

    def notify(
        self,
        method: str,
        args: list[Any],
        kwargs: dict[str, Any] | None = None,
        context: dict[str, Any] | None = None,
    ) -> None:
        """Queue a Notification; raises as :meth:`request` does."""
        if not self.notification_credit:
            raise LocalProtocolError("the other end takes no more notifications at once")
        self._check_may_call(context)
        self._put(m.Notification(method, args, kwargs, context))
        self._notifications_left -= 1

    def _check_may_call(self, context: dict[str, Any] | None) -> None:
        if self.ours is self.theirs is Half.OPEN:
            return
        leaving = self.ours is Half.LEAVING or self.theirs is Half.LEAVING
        if leaving and not _is_within(context, self.incoming):
            raise LocalProtocolError("after a Goodbye only calls within a call may be made")

    def cancel(self, call: int, reason: str | None = None) -> bool:
        """Cancel a call of ours; True when its Request had not left, and the call is over with that.

        Does nothing for a call that is over, or has been cancelled before: Cancel is sent once.
        """
        if self.outgoing.get(call) is not Outgoing.WAITING:
            return False
        if self._outbox.withdraw_request(call):
            del self.outgoing[call]
            return True
        self.outgoing[call] = Outgoing.CANCELLING
        self._put(m.Cancel(call, reason))
        return False

    def abandon(self, call: int) -> None:
        """Stop waiting for a call of ours: its terminal message will be dropped when it comes."""
        if call in self.outgoing:
            self.outgoing[call] = Outgoing.ABANDONED

    def never_left(self, call: int) -> bool:
        """Whether the Request of that call still waits here whole; it is taken back if so."""
        return self._outbox.withdraw_request(call)

    def reply(self, call: int, result: Any, references: References | None = None) -> None:
        """Queue the result of a call of the peer's.

        Raises EncodeError when it cannot be encoded; the call then still waits for its end.
        """
        self._check_unanswered(call)
        self._queue(m.Reply, self._encode(m.Reply(call, result), references), answers=call)
        self.incoming[call] = Incoming.ANSWERED

    def reply_error(self, call: int, error: dict[str, Any]) -> None:
        """Queue the error that a call of the peer's ended with; raises as :meth:`reply` does."""
        self._check_unanswered(call)
        self._put(m.ReplyErr(call, error), answers=call)
        self.incoming[call] = Incoming.ANSWERED

    def _check_unanswered(self, call: int) -> None:
        state = self.incoming.get(call)
        if state is None or state is Incoming.ANSWERED:
            raise LocalProtocolError(f"call {call} has had its terminal message")

    def ping(self, number: int) -> None:
        """Queue a Ping."""
        self._put(m.Ping(number))

    def grant_notifications(self, count: int) -> None:
        """Let the peer send ``count`` Notifications more: that many handlers have ended."""
        self._notifications_granted += count
        self._outbox.put_credit(count)

    def end(self) -> None:
        """End both halves: nothing more is sent or received."""
        self.ours = self.theirs = Half.ENDED

    def _put(self, message: m.Message, answers: int = NO_REPLY) -> None:
        self._queue(type(message), self._encode(message), answers)

    def _encode(self, message: m.Message, references: References | None = None) -> bytes:
        data: bytes = self._codec.encode(message, references)
        if len(data) > self.peer.max_message:
            raise EncodeError(
                f"a message of {len(data):,} bytes is larger than the {self.peer.max_message:,} "
                "that the other end accepts"
            )
        return data

    def _queue(self, kind: type[m.Message], data: bytes, answers: int = NO_REPLY) -> None:
        self.ours = _step(self.ours, self.theirs, kind)
        self._outbox.put(data, answers)


def _step(half: Half, other: Half, kind: type[m.Message]) -> Half:
    """Where ``half`` goes by sending a message of that kind; LocalProtocolError when it must not."""
    if half is other is Half.OPEN and kind is not m.Goodbye:
        if kind is m.Hello or kind is m.Welcome:
            raise LocalProtocolError(f"{kind.__name__} a second time")
        return half
    if kind not in LEGAL[half]:
        raise LocalProtocolError(f"{kind.__name__} is not allowed when {half.value}")
    if kind in NEEDS_WELCOME and other in (Half.SILENT, Half.GREETED):
        raise LocalProtocolError(f"{kind.__name__} before the other end has said Welcome")
    return NEXT.get((half, kind), half)


def _is_within(context: Mapping[str, Any] | None, calls: Mapping[int, object]) -> bool:
    """Whether a call is made inside one of ``calls``."""
    return context is not None and context.get("parent") in calls


def _check_context(context: dict[str, Any]) -> None:
    """Check the known entries of a call's context; unknown ones are ignored."""
    deadline = context.get("deadline", 0.0)
    if type(deadline) not in (float, int) or not 0 <= deadline < math.inf:
        raise DecodeError("a deadline must be seconds from now, finite and not negative")
    for name in ("parent", "depth"):
        if not _is_count(context.get(name, 0)):
            raise DecodeError(f"{name} must be an integer that is not negative")
    metadata = context.get("metadata", {})
    if type(metadata) is not dict or any(type(key) is not str for key in metadata):
        raise DecodeError("metadata must be a map with string keys")


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0
