"""A client's state of its session with a gateway: its calls, and the messages it has seen. No I/O.

The session outlives its connections. The task that carries messages passes received messages in,
and takes out the messages to send. Messages from the gateway are numbered. Messages to it need no
numbers: they describe the state of the calls, and are sent again after a reconnection.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import trio

from trio_rpc.errors import RemoteProtocolError, RpcError
from trio_rpc.gateway.json_messages import encode, from_json

__all__ = ["Call", "ClientSession", "error_text"]

ACK_MESSAGES: Final = 64
ACK_BYTES: Final = 8 * 1024
"""The messages, or their bytes, after which the client acknowledges.

The gateway holds them until then. It always holds more than these bytes for each client, so a
client that reads never waits for clients that do not read.
"""

MAX_HELD: Final = 20_000
"""The most messages held for calls whose POST has not been answered yet.

A gateway holds fewer for one client.
"""

MAX_WHOLE: Final = 64 * 1024 * 1024
"""The most characters of a message that arrives in pieces. A larger one fails its call."""

MARGIN: Final = 1024
"""Bytes of a message in addition to the value that it carries."""

TERMINAL: Final = ("finish", "error")


class Call:
    """A call, from the answer to its POST until its last message.

    Attributes:
        request: the request_uuid.
        end: the message that has ended the call, or the error that ended it without one.
        ended: set when ``end`` is known.
        raise_cancel: raises the cancellation of the caller, once it has been cancelled.
        is_cut: whether callbacks came that were not run, because the call had been cancelled.
    """

    def __init__(self, session: ClientSession, request: str, window: int) -> None:
        self.request = request
        self.end: dict[str, Any] | RpcError | None = None
        self.ended = trio.Event()
        self.raise_cancel: Callable[[], Any] | None = None
        self.is_cut = False
        self._session = session
        self._report_after = max(window // 4, 1)
        # Bound: the window, which the gateway does not exceed.
        self._queue: list[dict[str, Any]] = []
        self._next = 0
        self._task: trio.lowlevel.Task | None = None
        self._handled = 0
        self._reported = 0
        self._cancelled: str | None = None
        # Bound: one for each name of a callback.
        self._errors: dict[str, str] = {}
        # Bound: the tasks of the handler that wait for a value.
        self._answers: dict[int, dict[str, Any]] = {}

    def hear(self, message: dict[str, Any]) -> None:
        """Accept one callback message or the message that ends the call."""
        if message["type"] in TERMINAL:
            self.finish(message)
        elif self._cancelled is not None:
            self.is_cut = True
            self.handled()
        else:
            self._queue.append(message)
        self._wake()

    def finish(self, end: dict[str, Any] | RpcError) -> None:
        """End the call. Only the first end counts."""
        if self.end is None:
            self.end = end
            self.ended.set()
            self._session.forget(self)
            self._wake()

    async def next(self) -> dict[str, Any] | None:
        """Wait for the next callback message and return it.

        Returns None when the call has ended and all its callback messages have been returned, or
        when the caller is cancelled.
        """
        if self._next == len(self._queue):
            self._queue.clear()
            self._next = 0
            if self.end is not None:
                return None
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
            if not self._queue:
                return None
        self._next += 1
        return self._queue[self._next - 1]

    def _abort(self, raise_cancel: Callable[[], Any]) -> trio.lowlevel.Abort:
        self.raise_cancel = raise_cancel
        self._wake()
        return trio.lowlevel.Abort.FAILED

    def _wake(self) -> None:
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    def handled(self) -> None:
        """Record that one callback message has been handled.

        This is reported once a quarter of the window has been handled, so that more can be sent.
        """
        self._handled += 1
        if self._handled - self._reported >= self._report_after:
            self._reported = self._handled
            self._session.has_news(self)

    def failed(self, name: str, error: str) -> None:
        """Record that a callback has raised, to report it to the gateway."""
        self._errors[name] = error_text(error)
        self._session.has_news(self)

    def answered(self, ticket: tuple[int, int], outcome: dict[str, Any]) -> None:
        """Record the value or the error of a callback whose handler waits for it.

        Args:
            ticket: its number, and the lowest number for which a handler still waits.
            outcome: the value, or the error.
        """
        number, lowest = ticket
        for old in [each for each in self._answers if each < lowest]:
            del self._answers[old]
        text = encode(outcome)
        if len(text) > self._session.max_message - MARGIN:
            outcome = {"error": f"its value is too large: {len(text):,} bytes of JSON"}
        self._answers[number] = {"type": "callback_result", "answer": number, **outcome}
        self._session.has_news(self)

    def cancel(self, reason: str) -> None:
        """Ask the gateway to cancel the call, and drop queued callbacks. The end comes later."""
        if self._cancelled is None:
            self._cancelled = reason
            self.is_cut = self._next < len(self._queue)
            self._handled += len(self._queue) - self._next
            del self._queue[self._next :]
            self._session.has_news(self)

    def state(self) -> list[dict[str, Any]]:
        """Return messages that describe the call's state; they may repeat earlier ones."""
        messages: list[dict[str, Any]] = list(self._answers.values())
        messages += [
            {"type": "callback_error", "name": name, "error": error}
            for name, error in self._errors.items()
        ]
        self._errors.clear()
        if self._handled:
            messages.append({"type": "handled", "count": self._handled})
        if self._cancelled is not None:
            messages.append({"type": "cancel", "reason": self._cancelled})
        return [{**message, "request_uuid": self.request} for message in messages]


class ClientSession:
    """One identity of this client at a gateway, for as long as the gateway knows it.

    Args:
        hello: the gateway's first message.
        wake: called when there are messages to send.

    Raises:
        RemoteProtocolError: ``hello`` does not come from a gateway.
    """

    def __init__(self, hello: Mapping[str, Any], wake: Callable[[], None]) -> None:
        try:
            self.id = str(hello["uuid"])
            self.token = str(hello.get("token", ""))
            self.grace = _seconds(hello.get("grace", 0))
            self.keepalive = _seconds(hello.get("keepalive", 0))
            self.window = int(hello.get("window") or 1000)
            self.max_message = int(hello.get("max_message") or 65536)
        except (KeyError, TypeError, ValueError):
            raise RemoteProtocolError("the server is not a trio_rpc gateway") from None
        self.seen = 0
        self.calls: dict[str, Call] = {}
        self._wake = wake
        self._lost: Callable[[], RpcError] | None = None
        self._posting = 0
        self._held: dict[str, list[dict[str, Any]]] = {}
        self._held_count = 0
        # The pieces of the message that is arriving, which continues over the next connection.
        # Bound: MAX_WHOLE.
        self._pieces: list[str] = []
        self._pieces_size = 0
        self._new_messages = 0
        self._new_bytes = 0
        self._aside: list[dict[str, Any]] = []
        # Calls with news to send; None for a call without a caller, which is to be cancelled.
        # Bound: the calls, plus MAX_HELD.
        self._news: dict[str, Call | None] = {}

    # ── calls ────────────────────────────────────────────────────────────────────────────────

    def posting(self) -> None:
        """Record that a POST is being sent: messages of its call may come before its answer."""
        self._posting += 1

    def started(self, request: str) -> Call:
        """Return the call of an answered POST; it gets the messages that came before the answer."""
        call = self.calls[request] = Call(self, request, self.window)
        held = self._held.pop(request, [])
        self._held_count -= len(held)
        for message in held:
            call.hear(message)
        if self._lost is not None:  # lost meanwhile: no more messages will come
            call.finish(self._lost())
        return call

    def posted(self) -> None:
        """Record that a POST is over, whatever its outcome.

        After the last one, cancel the calls whose messages are still held: they have no caller.
        """
        self._posting -= 1
        if not self._posting:
            for request in self._held:
                self._disown(request)
            self._held.clear()
            self._held_count = 0

    def forget(self, call: Call) -> None:
        """Remove a call that has ended."""
        self.calls.pop(call.request, None)
        self._news.pop(call.request, None)

    def lose(self, error: Callable[[], RpcError]) -> None:
        """Fail all calls, because the gateway no longer knows this session."""
        self._lost = error
        for call in tuple(self.calls.values()):
            call.finish(error())

    def raise_if_lost(self, cause: Exception) -> None:
        """Raise the reason why this session is over, if it is. A POST was refused because of it."""
        if self._lost is not None:
            raise self._lost() from cause

    # ── receiving ────────────────────────────────────────────────────────────────────────────

    def hear(self, text: str | bytes) -> None:
        """Accept one text from the gateway. Raises RemoteProtocolError if it is not valid."""
        try:
            messages = from_json(text)
        except ValueError as exc:
            raise RemoteProtocolError(f"the gateway sent invalid JSON: {exc}") from None
        for message in messages if type(messages) is list else [messages]:
            if type(message) is dict:
                self._hear_one(message)
        self._new_bytes += len(text)
        if self._new_messages >= ACK_MESSAGES or self._new_bytes >= ACK_BYTES:
            self._wake()

    def _hear_one(self, message: dict[str, Any]) -> None:
        kind, number = message.get("type"), message.get("seq")
        if kind == "ping":
            self._aside = [{"type": "pong", "id": message.get("id")}]
            self._wake()
        if type(number) is not int or number <= self.seen:
            return
        if number != self.seen + 1:
            raise RemoteProtocolError(f"message {self.seen + 1} from the gateway is missing")
        self.seen = number
        self._new_messages += 1
        if kind == "callback" or kind in TERMINAL:
            self._deliver(str(message.get("request_uuid")), message)
        elif kind == "piece":
            self._hear_piece(message)

    def _hear_piece(self, piece: dict[str, Any]) -> None:
        text, request = str(piece.get("text")), str(piece.get("request_uuid"))
        self._pieces.append(text)
        self._pieces_size += len(text)
        is_too_large = self._pieces_size > MAX_WHOLE
        if is_too_large:
            self._pieces.clear()
        if piece.get("last"):
            whole = "".join(self._pieces)
            self._pieces.clear()
            self._pieces_size = 0
            if is_too_large:
                error = f"the gateway sent a message of more than {MAX_WHOLE:,} characters"
                self._deliver(request, {"type": "error", "code": "internal", "error": error})
                self._disown(request)  # its handler still runs if the message was a callback
            else:
                self._deliver(request, _object(whole))

    def _deliver(self, request: str, message: dict[str, Any]) -> None:
        call = self.calls.get(request)
        if call is not None:
            call.hear(message)
        elif self._posting:
            if self._held_count >= MAX_HELD:
                raise RemoteProtocolError("too many messages for calls whose POST is unanswered")
            self._held.setdefault(request, []).append(message)
            self._held_count += 1
        elif message["type"] not in TERMINAL:
            self._disown(request)

    def _disown(self, request: str) -> None:
        # The POST was abandoned, or its answer was lost. No caller waits for the call: cancel it.
        if len(self._news) < MAX_HELD:
            self._news[request] = None
            self._wake()

    # ── sending ──────────────────────────────────────────────────────────────────────────────

    def has_news(self, call: Call) -> None:
        """Record that a call has news to send."""
        if call.request in self.calls:
            self._news[call.request] = call
            self._wake()

    def resume(self) -> str:
        """Return the first message of a new connection, which identifies this client."""
        identity = {"uuid": self.id, "token": self.token, "seq": self.seen}
        return encode({"type": "resume", **identity}).decode()

    def resumed(self) -> None:
        """Queue the state of all calls again: the last connection may have lost messages."""
        self._new_messages = self._new_bytes = 0  # the resume message was an acknowledgement
        self._aside.clear()
        for request, call in self.calls.items():
            self._news[request] = call
        self._wake()

    def news(self) -> list[str]:
        """Return the messages to send now, and forget them."""
        messages, self._aside = self._aside, []
        if self._new_messages >= ACK_MESSAGES or self._new_bytes >= ACK_BYTES:
            messages.append({"type": "ack", "seq": self.seen})
            self._new_messages = self._new_bytes = 0
        for request, call in self._news.items():
            if call is not None:
                messages += call.state()
            else:
                reason = "no caller waits for it"
                messages.append({"type": "cancel", "request_uuid": request, "reason": reason})
        self._news.clear()
        return [encode(message).decode() for message in messages]


def error_text(error: str) -> str:
    """Return the text of an error, which may be anything, as JSON can carry it."""
    return error[:1000].encode(errors="backslashreplace").decode()


def _object(text: str) -> dict[str, Any]:
    try:
        message = from_json(text)
    except ValueError as exc:
        raise RemoteProtocolError(f"the gateway sent invalid JSON: {exc}") from None
    if type(message) is not dict or message.get("type") not in ("callback", *TERMINAL):
        raise RemoteProtocolError("the gateway sent pieces that are not a message of a call")
    return message


def _seconds(value: Any) -> float:
    """Convert a time in seconds; null stands for no limit."""
    return math.inf if value is None else float(value)
