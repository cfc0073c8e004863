"""The traced protocol and its queue: the steps 2 to 7 and 12 to 16, and all messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import msgpack

from trio_rpc.protocol.hello import session_id
from trio_rpc.protocol.outbox import NOTHING, Outbox
from trio_rpc.protocol.protocol import Protocol, References
from trio_rpc.protocol.streams import Event
from trio_rpc.session.traced.tracer import Traced, Tracer
from trio_rpc.util.unsent_budget import UnsentShare
from trio_rpc.wire import messages as m
from trio_rpc.wire.coded import CODED_TYPE, MessageCodec
from trio_rpc.wire.limits import MIN_PACKET, Limits
from trio_rpc.wire.parts import Buffer, BufferList

__all__ = ["TracedProtocol"]

_CALLS = (m.Request, m.Notification)
_ANSWERS = (m.Reply, m.ReplyErr)
_IN_TRACE = (*_CALLS, *_ANSWERS)
_WITH_ID = (m.Request, m.Reply, m.ReplyErr, m.Cancel, m.Item, m.EndOfItems, m.Started)
_KINDS: dict[int, type[Any]] = {each.TYPE: each for each in m.Message.__args__}

HEAD = 32
"""Bytes that hold the type and the id of any message."""


class TracedProtocol(Protocol):
    """A protocol that tells the tracer which messages it receives and queues.

    ``beginning`` is set before each call of :meth:`request` and :meth:`notify`.
    """

    def __init__(
        self, tracer: Tracer, codec: MessageCodec, limits: Limits, share: UnsentShare | None = None
    ) -> None:
        super().__init__(codec, limits, share)
        self.beginning: Traced
        """The call that is being queued."""
        self._tracer = tracer
        self._outbox: _TracedOutbox = _TracedOutbox(tracer, MIN_PACKET)
        self._packet = _Packet(b"")
        self._arrived = 0.0
        """The time when the current packet arrived."""
        self._bytes_in_pieces = 0
        self._is_whole = False
        """The next message is a whole one, whose pieces have arrived."""
        self._encoded: Traced | None = None
        """The call whose message was encoded last."""

    # ── receiving ────────────────────────────────────────────────────────────────────────────

    def receive(self, packet: bytes) -> Iterator[Event]:
        """Yield each message in ``packet`` that is an event; as in the base class."""
        self._arrived = self._tracer.now()
        self._packet = _Packet(packet)
        return super().receive(packet)

    def _in_runs(self, messages: Iterable[m.Message]) -> Iterable[Event]:
        return messages  # each message is a step

    def _accept(self, message: m.Message) -> m.Message | None:
        tracer, kind = self._tracer, type(message)
        size, payload = self._measure(message)
        call, method = getattr(message, "id", None), getattr(message, "method", "")
        tracer.note_message(kind, call, method, size, payload)
        traced = self._note_call(message, size) if isinstance(message, _CALLS) else None
        try:
            event = super()._accept(message)
            if isinstance(message, _ANSWERS):
                self._note_answer(message, size, is_late=event is None)
            elif isinstance(message, m.Cancel) and event is not None:
                self._cancelled(message)
            elif isinstance(message, m.Notification) and traced is not None:
                if event is not None:
                    tracer.notifications.append(traced)
                else:
                    tracer.note_dropped(traced)
            elif isinstance(message, m.Hello):
                tracer.session = session_id(tracer.part, self.peer.session) or tracer.part
        finally:
            tracer.flush()
        return event

    def _measure(self, message: m.Message) -> tuple[int, Buffer]:
        """Return the size and the bytes of a message, or only the size if it came in pieces."""
        if self._is_whole:
            size, self._bytes_in_pieces, self._is_whole = self._bytes_in_pieces, 0, False
            return size, b""
        if isinstance(message, m.Piece | m.LastPiece):
            # An empty LastPiece drops the pieces; no whole message follows it.
            self._bytes_in_pieces += len(message.data) if message.data else -self._bytes_in_pieces
            self._is_whole = isinstance(message, m.LastPiece) and bool(message.data)
        payload = self._packet.next_message()
        return len(payload), payload

    def _note_call(self, message: m.Request | m.Notification, size: int) -> Traced:
        tracer = self._tracer
        call = message.id if isinstance(message, m.Request) else None
        method = _title(message)
        traced = tracer.begin(method, is_incoming=True, call=call, state="running")
        traced.size = size
        if call is not None:
            tracer.incoming[call] = traced
        tracer.note(6, traced, self._arrived)
        tracer.note(7, traced)
        return traced

    def _note_answer(self, message: m.Reply | m.ReplyErr, size: int, *, is_late: bool) -> None:
        tracer = self._tracer
        traced = tracer.outgoing.get(message.id)
        if traced is None:
            return
        traced.size = size
        tracer.note(15, traced, self._arrived)
        traced.state = "late" if is_late else _outcome(message)
        tracer.note(16, traced)
        if is_late:
            del tracer.outgoing[message.id]

    def _cancelled(self, message: m.Cancel) -> None:
        traced = self._tracer.incoming.get(message.id)
        if traced is not None:
            traced.state = "cancelled"

    # ── sending ──────────────────────────────────────────────────────────────────────────────

    def request(self, *args: Any, **kwargs: Any) -> int:
        """Queue a Request and return its id; as in the base class."""
        try:
            return super().request(*args, **kwargs)
        finally:
            self._tracer.flush()

    def notify(self, *args: Any, **kwargs: Any) -> None:
        """Queue a Notification; as in the base class."""
        try:
            super().notify(*args, **kwargs)
        finally:
            self._tracer.flush()

    def reply(self, *args: Any, **kwargs: Any) -> None:
        """Queue the result of an incoming call; as in the base class."""
        try:
            super().reply(*args, **kwargs)
        finally:
            self._tracer.flush()

    def reply_error(self, call: int, error: dict[str, Any]) -> None:
        """Queue the error that ends an incoming call; as in the base class."""
        try:
            super().reply_error(call, error)
        finally:
            self._tracer.flush()

    def cancel(self, call: int, reason: str | None = None) -> bool:
        """Cancel an outgoing call; as in the base class."""
        was_withdrawn = super().cancel(call, reason)
        self._update(call)
        return was_withdrawn

    def abandon(self, call: int) -> None:
        """Stop waiting for an outgoing call; as in the base class."""
        super().abandon(call)
        self._update(call)

    def never_left(self, call: int) -> bool:
        """Withdraw a Request whose last byte has not left; as in the base class."""
        was_withdrawn = super().never_left(call)
        if was_withdrawn:
            self._tracer.outgoing.pop(call, None)
        return was_withdrawn

    def _update(self, call: int) -> None:
        """Set the state of an outgoing call that has been cancelled or abandoned."""
        traced = self._tracer.outgoing.get(call)
        if traced is not None and call in self.outgoing:
            traced.state = self.outgoing[call].value

    def _encode(
        self, message: m.Message, references: References | None = None
    ) -> bytes | BufferList:
        tracer, began = self._tracer, self._tracer.now()
        data = super()._encode(message, references)
        self._encoded = None
        if isinstance(message, _CALLS):
            traced = self._encoded = self.beginning
            if isinstance(message, m.Request):
                traced.call = message.id
                tracer.outgoing[message.id] = traced
            traced.state, traced.size = "waiting", len(data)
            tracer.note(2, traced, began)
            tracer.note(3, traced)
        elif isinstance(message, _ANSWERS):
            answered = self._encoded = tracer.incoming.get(message.id)
            if answered is not None:
                answered.state, answered.size = _outcome(message), len(data)
                tracer.note(12, answered)
        return data

    def _queue(
        self,
        kind: type[m.Message],
        data: bytes | BufferList,
        tag: int = NOTHING,
        call: int = NOTHING,
    ) -> None:
        super()._queue(kind, data, tag, call)
        traced = self._encoded
        if traced is None or kind not in _IN_TRACE:
            return
        if kind is m.Notification:
            self._outbox.expect(traced)
        self._tracer.note(4 if kind in _CALLS else 13, traced)


class _TracedOutbox(Outbox):
    """A queue that notes the messages that are taken from it."""

    def __init__(self, tracer: Tracer, max_packet: int) -> None:
        super().__init__(max_packet)
        self._tracer = tracer
        # Notifications have no ids. Each lane keeps their order, and none of them is withdrawn.
        self._small_notifications: deque[Traced] = deque()
        self._large_notifications: deque[Traced] = deque()
        self._was_large = False

    def put(self, data: bytes | BufferList, tag: int = NOTHING, call: int = NOTHING) -> None:
        before = len(self._large)
        super().put(data, tag, call)
        self._was_large = len(self._large) > before

    def expect(self, notification: Traced) -> None:
        """Record which notification was put last."""
        lane = self._large_notifications if self._was_large else self._small_notifications
        lane.append(notification)

    def _take_next(self, answered: list[int]) -> bytes | BufferList:
        data = super()._take_next(answered)
        kind, call = _read_head(data)
        lane = self._small_notifications
        method = lane[0].method if kind is m.Notification else ""
        self._tracer.note_leaving_message(kind, call, method, len(data), data)
        self._note_step(kind, call, lane)
        return data

    def _take_piece(self, parts: list[Buffer], answered: list[int], room: int) -> int:
        large, before = self._large[0], len(parts)
        size = super()._take_piece(parts, answered, room)
        if size:
            is_last = large.sent == large.data.size
            piece = BufferList(parts[before:])
            kind = m.LastPiece if is_last else m.Piece
            self._tracer.note_leaving_message(kind, None, "", len(piece), piece)
            if is_last:
                self._note_step(*_read_head(large.data), self._large_notifications)
        return size

    def _take_first(self) -> bytes:
        first = super()._take_first()
        unpacker = msgpack.Unpacker()
        unpacker.feed(first)
        start = 0
        for fields in unpacker:
            data = first[start : (start := unpacker.tell())]
            self._tracer.note_leaving_message(_KINDS[fields[0]], None, "", len(data), data)
        return first

    def _note_step(self, kind: type[Any], call: int | None, notifications: deque[Traced]) -> None:
        tracer = self._tracer
        if kind is m.Request:
            step, traced = 5, tracer.outgoing.get(call or 0)
        elif kind is m.Notification:
            step, traced = 5, notifications.popleft()
        elif kind in _ANSWERS:
            step, traced = 14, tracer.incoming.pop(call or 0, None)
        else:
            return
        if traced is not None:
            tracer.note_leaving(step, traced)


class _Packet:
    """A packet that has arrived: finds its messages, one after the other.

    The codec has checked each of them before it is looked for here.
    """

    def __init__(self, packet: bytes) -> None:
        self._packet = memoryview(packet)
        self._unpacker: msgpack.Unpacker | None = None
        self._start = 0

    def next_message(self) -> memoryview:
        """Return the bytes of the next message."""
        if self._unpacker is None:
            self._unpacker = msgpack.Unpacker(max_buffer_size=len(self._packet))
            self._unpacker.feed(self._packet)
        self._unpacker.skip()
        start, self._start = self._start, self._unpacker.tell()
        return self._packet[start : self._start]


def _read_head(data: bytes | BufferList) -> tuple[type[Any], int | None]:
    """Return the class of an encoded message, and the id in it, if it has one."""
    first = data if isinstance(data, bytes) else data.buffers[0]
    unpacker = msgpack.Unpacker()
    unpacker.feed(bytes(first[:HEAD]))
    fields = unpacker.read_array_header()
    number = unpacker.unpack()
    if number == CODED_TYPE:  # the type and the id of its content follow
        return _KINDS[unpacker.unpack()], unpacker.unpack()
    kind = _KINDS[number]
    if kind in _WITH_ID:
        return kind, unpacker.unpack()
    if kind is m.Credit and fields > 2:
        unpacker.skip()
        return kind, unpacker.unpack()
    return kind, None


def _title(message: m.Request | m.Notification) -> str:
    """Return the name that the caller's trace has for that method."""
    context = message.context or {}
    number = context.get("callback")
    if type(number) is not int:
        return message.method
    kind = "stream" if "stream" in context else "callback"
    return f"{kind} {number} of {message.method}"


def _outcome(message: m.Reply | m.ReplyErr) -> str:
    if isinstance(message, m.Reply):
        return "result"
    code = message.error.get("code")
    return code if isinstance(code, str) else "error"
