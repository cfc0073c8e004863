"""What a client knows of its session with a gateway: its calls, and what it has seen. No I/O.

It outlives its connections: whoever carries messages hands in what has come, and takes out what is to be sent.
Messages from the gateway are numbered; what this end says is the state of its calls, and is said again after a
reconnection, so it needs no numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import trio

from trio_rpc.errors import RemoteProtocolError, RpcError
from trio_rpc.gateway.json_messages import encode, from_json

__all__ = ["Call", "ClientSession"]

ACK_MESSAGES: Final = 64
ACK_BYTES: Final = 32 * 1024
"""So much may have come since the last acknowledgement; the gateway holds it for as long."""

MAX_HELD: Final = 20_000
"""Messages of calls whose POST has not been answered yet. A gateway holds fewer for one client."""

TERMINAL: Final = ("finish", "error")


class Call:
    """A call, from the answer to its POST until its last message.

    Attributes:
        request: its request_uuid.
        end: the message that has ended it, or why there will be none.
        ended: set when there is ``end``.
        raise_cancel: raises its caller's cancellation, once there is one.
        is_cut: whether callbacks came that were not run, for it had been cancelled.
    """

    def __init__(self, session: ClientSession, request: str, window: int) -> None:
        self.request = request
        self.end: dict[str, Any] | RpcError | None = None
        self.ended = trio.Event()
        self.raise_cancel: Callable[[], Any] | None = None
        self.is_cut = False
        self._session = session
        self._report_after = max(window // 4, 1)
        # Bound: the window, which the gateway keeps.
        self._queue: list[dict[str, Any]] = []
        self._next = 0
        self._task: trio.lowlevel.Task | None = None
        self._handled = 0
        self._reported = 0
        self._cancelled: str | None = None
        # Bound: one for each name of a callback.
        self._errors: dict[str, str] = {}

    def hear(self, message: dict[str, Any]) -> None:
        """Take one message in: of the numbered kinds."""
        if message["type"] in TERMINAL:
            self.finish(message)
        elif self._cancelled is not None:
            self.is_cut = True
            self.handled()
        else:
            self._queue.append(message)
        self._wake()

    def finish(self, end: dict[str, Any] | RpcError) -> None:
        """It is over."""
        if self.end is None:
            self.end = end
            self.ended.set()
            self._session.forget(self)
            self._wake()

    async def next(self) -> dict[str, Any] | None:
        """Return the next callback message; None when there is none, for it is over or its caller is cancelled."""
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
        """One callback message is done with; the gateway is told now and then, so that it goes on."""
        self._handled += 1
        if self._handled - self._reported >= self._report_after:
            self._reported = self._handled
            self._session.has_news(self)

    def failed(self, name: str, error: str) -> None:
        """A callback has raised."""
        text = error[:1000].encode(errors="backslashreplace")  # an exception may say anything
        self._errors[name] = text.decode()
        self._session.has_news(self)

    def cancel(self, reason: str) -> None:
        """Have the work cancelled; its end is still to come."""
        if self._cancelled is None:
            self._cancelled = reason
            self.is_cut = self._next < len(self._queue)
            self._handled += len(self._queue) - self._next
            del self._queue[self._next :]
            self._session.has_news(self)

    def state(self) -> list[dict[str, Any]]:
        """Say how things stand with it; what has been said before may be said again."""
        said: list[dict[str, Any]] = [
            {"type": "callback_error", "name": name, "error": error}
            for name, error in self._errors.items()
        ]
        self._errors.clear()
        if self._handled:
            said.append({"type": "handled", "count": self._handled})
        if self._cancelled is not None:
            said.append({"type": "cancel", "reason": self._cancelled})
        return [{**message, "request_uuid": self.request} for message in said]


class ClientSession:
    """One identity at a gateway, as long as that knows it.

    Args:
        hello: the gateway's first message.
        wake: called when there is something to say.
    """

    def __init__(self, hello: Mapping[str, Any], wake: Callable[[], None]) -> None:
        try:
            self.id = str(hello["uuid"])
            self.token = str(hello.get("token", ""))
            self.grace = _seconds(hello.get("grace", 0))
            self.keepalive = _seconds(hello.get("keepalive", 0))
            self.window = int(hello.get("window") or 1000)
        except (KeyError, TypeError, ValueError):
            raise RemoteProtocolError("what answers here is no gateway") from None
        self.seen = 0
        self.calls: dict[str, Call] = {}
        self._wake = wake
        self._lost: Callable[[], RpcError] | None = None
        self._posting = 0
        self._held: dict[str, list[dict[str, Any]]] = {}
        self._held_count = 0
        self._new_messages = 0
        self._new_bytes = 0
        self._aside: list[dict[str, Any]] = []
        # Bound: the calls, and those that nobody waits for, one message each.
        self._news: dict[str, Call | None] = {}

    # ── calls ────────────────────────────────────────────────────────────────────────────────

    def posting(self) -> None:
        """A POST is on its way: messages of its call may come before its answer."""
        self._posting += 1

    def started(self, request: str) -> Call:
        """A POST has been answered: make its call, and hand it what has come before."""
        call = self.calls[request] = Call(self, request, self.window)
        held = self._held.pop(request, [])
        self._held_count -= len(held)
        for message in held:
            call.hear(message)
        if self._lost is not None:  # meanwhile: nothing more will come
            call.finish(self._lost())
        return call

    def posted(self) -> None:
        """A POST is over, whatever has come of it. When none is left, nobody will ask for what is held."""
        self._posting -= 1
        if not self._posting:
            for request in self._held:
                self._disown(request)
            self._held.clear()
            self._held_count = 0

    def forget(self, call: Call) -> None:
        """A call is over."""
        self.calls.pop(call.request, None)
        self._news.pop(call.request, None)

    def lose(self, error: Callable[[], RpcError]) -> None:
        """The gateway does not know this session any more: all calls fail."""
        self._lost = error
        for call in tuple(self.calls.values()):
            call.finish(error())

    def raise_if_lost(self, cause: Exception) -> None:
        """Raise why this session is over, if it is: that is why a POST was refused."""
        if self._lost is not None:
            raise self._lost() from cause

    # ── what comes ───────────────────────────────────────────────────────────────────────────

    def hear(self, text: str | bytes) -> None:
        """Take in one text of the gateway's. Raises RemoteProtocolError for what cannot be from one."""
        try:
            messages = from_json(text)
        except ValueError as exc:
            raise RemoteProtocolError(f"the gateway sent what is no JSON: {exc}") from None
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
            raise RemoteProtocolError(f"message {self.seen + 1} of the gateway is missing")
        self.seen = number
        self._new_messages += 1
        if kind == "callback" or kind in TERMINAL:
            self._deliver(str(message.get("request_uuid")), message)

    def _deliver(self, request: str, message: dict[str, Any]) -> None:
        call = self.calls.get(request)
        if call is not None:
            call.hear(message)
        elif self._posting:
            if self._held_count >= MAX_HELD:
                raise RemoteProtocolError("too much has come for calls that are not known yet")
            self._held.setdefault(request, []).append(message)
            self._held_count += 1
        elif message["type"] not in TERMINAL:
            self._disown(request)

    def _disown(self, request: str) -> None:
        # Its POST has been given up, or its answer was lost: nobody waits for it.
        if len(self._news) < MAX_HELD:
            self._news[request] = None
            self._wake()

    # ── what is said ─────────────────────────────────────────────────────────────────────────

    def has_news(self, call: Call) -> None:
        """There is something to say about a call."""
        if call.request in self.calls:
            self._news[call.request] = call
            self._wake()

    def resume(self) -> str:
        """Say who this is, as the first message of another connection."""
        told = {"uuid": self.id, "token": self.token, "seq": self.seen}
        return encode({"type": "resume", **told}).decode()

    def resumed(self) -> None:
        """Another connection is up: what was said over the last one may have been lost."""
        self._new_messages = self._new_bytes = 0  # the resume has acknowledged all
        self._aside.clear()
        for request, call in self.calls.items():
            self._news[request] = call
        self._wake()

    def news(self) -> list[str]:
        """Take out what is to be said now."""
        said, self._aside = self._aside, []
        if self._new_messages >= ACK_MESSAGES or self._new_bytes >= ACK_BYTES:
            said.append({"type": "ack", "seq": self.seen})
            self._new_messages = self._new_bytes = 0
        for request, call in self._news.items():
            if call is not None:
                said += call.state()
            else:
                reason = "nobody waits for it"
                said.append({"type": "cancel", "request_uuid": request, "reason": reason})
        self._news.clear()
        return [encode(message).decode() for message in said]


def _seconds(value: Any) -> float:
    """Read a time, which is null where there is no limit."""
    return math.inf if value is None else float(value)
