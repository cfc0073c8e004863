"""One browser, from its first connection until it has been disconnected for too long."""

from __future__ import annotations

import hmac
import logging
import math
import secrets
from typing import Any, Protocol

import trio

from trio_rpc.gateway.json_messages import encode, pieces_of
from trio_rpc.gateway.limits import GatewayLimits
from trio_rpc.gateway.server.backlog import PIECE, Backlog
from trio_rpc.gateway.server.call import GatewayCall
from trio_rpc.gateway.server.home import ALONE, Home
from trio_rpc.gateway.server.memory_budget import SHORT, MemoryBudget, MemoryShare
from trio_rpc.util.rate_limited_log import RateLimitedLog
from trio_rpc.util.time_limits import was_blocked

__all__ = ["Client", "Connected"]

logger = logging.getLogger("trio_rpc.gateway")


class Connected(Protocol):
    """A client's view of its connection."""

    def has_news(self) -> None:
        """Wake the writer, because the backlog has a message to send."""

    def replaced(self) -> None:
        """End this connection, because the client has a newer one."""

    def client_is_over(self) -> None:
        """End this connection, because the client has ended."""


class Client:
    """A browser, its running calls, and its backlog of messages.

    The calls run in the client's nursery, whether it is connected or not, until it has been
    disconnected for ``grace`` seconds.
    One task writes to the current connection, so messages leave in the order in which they were
    queued.

    Args:
        limits: the gateway's limits.
        resumable: whether the client acknowledges the messages that it has seen and the callbacks
            that it has handled, and can reconnect.
        pieces: whether the client accepts large messages in pieces.
        answers: whether its callbacks can return values.
        complaints: logs the client's mistakes; all clients of a gateway share one.
        budget: bounds the bytes that are held for all clients of a gateway together.
        home: the instance of the gateway, which makes the id.

    Attributes:
        id: identifies the client. It cannot be guessed.
        token: the secret that proves that a request comes from this client.
        works: the client's running calls, by request_uuid.
        budget: the same budget.
    """

    def __init__(
        self,
        limits: GatewayLimits,
        *,
        resumable: bool,
        pieces: bool = False,
        answers: bool = False,
        complaints: RateLimitedLog | None = None,
        budget: MemoryBudget | None = None,
        home: Home = ALONE,
    ) -> None:
        self.budget = budget or MemoryBudget(limits.max_unsent)
        self._share = MemoryShare(self.budget, self._wake)
        self.complaints = complaints or RateLimitedLog(logger)
        self.id = home.new_id()
        self.token = secrets.token_urlsafe(16)
        self.works: dict[str, GatewayCall] = {}
        self.limits = limits
        self.is_resumable = resumable
        self._takes_pieces = resumable and pieces
        self.answers = resumable and answers
        self.window = limits.callbacks_ahead if resumable else math.inf
        self.backlog = Backlog(
            limits.backlog_messages, limits.backlog_bytes, keeps=resumable, share=self._share
        )
        # Keys of requests, each with its request_uuid. Bound: the last max_works of them.
        self._started: dict[str, str] = {}
        self._connection: Connected | None = None
        self._nursery: trio.Nursery | None = None
        self._patience = trio.CancelScope()
        self._grace = limits.grace if resumable else 0
        # Made when a callback waits, as most clients never need it.
        # Bound: one task for each callback that the client's own calls are making.
        self._room: trio.lowlevel.ParkingLot | None = None

    @property
    def name(self) -> str:
        """The client's name in logs."""
        return f"the gateway's client {self.id}"

    def owns(self, token: str) -> bool:
        """Return whether a token belongs to this client. All comparisons take the same time."""
        return hmac.compare_digest(self.token.encode(), token.encode(errors="replace"))

    # ── its nursery and its connection ───────────────────────────────────────────────────────

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the client's calls until it has left or has been disconnected for too long.

        Then cancel the calls that are still running, and wait until they have ended.
        """
        async with trio.open_nursery() as self._nursery:
            self._set_deadline()
            try:
                task_status.started()
                await self._wait_until_grace_is_over()
                self.end("it has been disconnected for too long")
            finally:
                self._wake()
                for work in self.works.values():
                    work.client_is_over()
                if self._connection is not None:
                    self._connection.client_is_over()
                self.backlog.clear()
                self._share.close()

    async def _wait_until_grace_is_over(self) -> None:
        """Return when the client has been disconnected for ``grace`` seconds."""
        grace = self._grace
        while True:
            with self._patience:
                await trio.sleep_forever()
            # If this program was blocked, a new connection may wait to be accepted.
            if not (grace and was_blocked(self._patience.deadline, grace)):
                return
            self._patience = trio.CancelScope()
            self._set_deadline()

    @property
    def is_over(self) -> bool:
        """Whether the client has ended: its calls are cancelled and it is sent no more messages."""
        return self._nursery is None or self._nursery.cancel_scope.cancel_called

    @property
    def is_disconnected(self) -> bool:
        """Whether the client is disconnected."""
        return self._connection is None

    @property
    def deadline(self) -> float:
        """The time when the client ends unless it reconnects; infinity while it is connected."""
        return self._patience.deadline

    def end(self, reason: str) -> None:
        """End the client now and cancel its calls: it has left, or the gateway needs its place."""
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel(reason=reason)

    def attach(self, connection: Connected) -> None:
        """Make a connection the current one, and end the one before it."""
        if self._connection is not None:
            self._connection.replaced()
        self._connection = connection
        self._set_deadline()

    def detach(self, connection: Connected) -> None:
        """Record that a connection has ended. Without a newer one, the client is disconnected."""
        if self._connection is connection:
            self._connection = None
            self._set_deadline()

    def is_current(self, connection: Connected) -> bool:
        """Return whether a connection is the current one. No other connection may send."""
        return self._connection is connection

    def _set_deadline(self) -> None:
        if self._nursery is not None:
            seconds = self._grace if self._connection is None else math.inf
            self._patience.deadline = trio.current_time() + seconds

    # ── its calls ────────────────────────────────────────────────────────────────────────────

    def start(
        self, work: GatewayCall, *, key: str | None, elsewhere: trio.Nursery | None = None
    ) -> None:
        """Start a call of this client.

        Args:
            work: the call.
            key: the idempotency key of the request; the client sends it again if it repeats it.
            elsewhere: the nursery for a call that must not end with this client. By default, the
                client's own.
        """
        nursery = elsewhere or self._nursery
        assert nursery is not None  # noqa: S101 - no call starts before the client runs
        self.works[work.uuid] = work
        if key is not None:
            self._started[key] = work.uuid
            if len(self._started) > self.limits.max_works:
                del self._started[next(iter(self._started))]
        nursery.start_soon(work.run, self, name=work.name)

    def forget(self, call: GatewayCall) -> None:
        """Remove a call that has ended from the running calls."""
        del self.works[call.uuid]

    def started_with(self, key: str | None) -> str | None:
        """Return the request_uuid of the call that an earlier request with this key has started."""
        return None if key is None else self._started.get(key)

    # ── messages to it ───────────────────────────────────────────────────────────────────────

    async def call_back(self, call: GatewayCall, message: dict[str, Any]) -> None:
        """Queue a callback.

        Waits while the client's backlog is full, while it has too many unhandled callbacks of this
        call, and while too many bytes are held for all clients.

        Raises TypeError or ValueError if JSON cannot carry the message.
        """
        await trio.lowlevel.checkpoint()
        text = encode(message)
        while not self._has_room(call, len(text)) and not self.is_over:
            if not self._share.has_room(len(text)):
                self._share.wait()
            if self._room is None:
                self._room = trio.lowlevel.ParkingLot()
            await self._room.park()
            self.budget.pass_on()
        self._queue(call.uuid, text)
        call.ahead += 1

    def _has_room(self, call: GatewayCall, size: int) -> bool:
        is_behind = self.backlog.is_full or call.ahead >= self.window
        return not is_behind and self._share.has_room(size)

    @property
    def has_room_for_calls(self) -> bool:
        """Whether the gateway holds little enough, for all clients or for this one."""
        return self._share.has_room(SHORT)

    def say(self, message: dict[str, Any]) -> bytes:
        """Queue the message that ends a call, without waiting for room, and return its text.

        Raises:
            Overloaded: the message is not short, and too many bytes are held for all clients.
            TypeError, ValueError: JSON cannot carry the message, even if the client is over.
        """
        text = encode(message)
        if not self.is_over:  # nothing is queued for it; the result may still be fetched
            self._share.check_room(len(text))
        if message["type"] == "error" and not self.is_resumable:
            self._put(encode({**message, "type": "finish"}))  # the only end older clients know
        else:
            self._queue(message.get("request_uuid"), text)
        return text

    def _queue(self, request: str | None, text: bytes) -> None:
        if len(text) <= PIECE or not self._takes_pieces:
            self._put(text)
            return
        piece: dict[str, Any] = {"type": "piece", "request_uuid": request}
        left = len(text)
        for part in pieces_of(text, PIECE):
            left -= len(part.encode())
            self._put(encode({**piece, "text": part, **({} if left else {"last": True})}))

    def _put(self, text: bytes) -> None:
        if not self.is_over:
            self.backlog.put(text[:-1] + b',"seq":%d}' % self.backlog.next_number)
            if self._connection is not None:
                self._connection.has_news()

    def made_room(self) -> None:
        """Wake the callbacks that wait: messages have left the backlog or have been handled."""
        self._wake()

    def _wake(self) -> bool:
        return self._room is not None and bool(self._room.unpark_all())
