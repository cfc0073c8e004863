"""One browser, from its first connection until it has been away for too long."""

from __future__ import annotations

import hmac
import logging
import math
import secrets
import uuid
from collections import OrderedDict
from typing import Any, Protocol

import trio

from trio_rpc.gateway.json_messages import encode
from trio_rpc.gateway.limits import GatewayLimits
from trio_rpc.gateway.server.backlog import Backlog
from trio_rpc.gateway.server.call import GatewayCall
from trio_rpc.util.rate_limited_log import RateLimitedLog

__all__ = ["Client", "Connected"]

logger = logging.getLogger("trio_rpc.gateway")


class Connected(Protocol):
    """The connection of a client, as that sees it."""

    def has_news(self) -> None:
        """There is something to be sent."""

    def replaced(self) -> None:
        """A newer one has come."""

    def client_is_over(self) -> None:
        """There is nobody to be connected to."""


class Client:
    """A browser, its work, and what it is still to be told.

    Its work runs in its nursery, whether it is connected or not. That nursery's deadline is when it will have
    been away for too long. What it is told leaves in the order in which it was said, through the one task that
    writes to its current connection.

    Args:
        limits: of the gateway.
        resumable: it acknowledges what it has seen and handled, and can come back.
        complaints: logs what it does wrong; the gateway's, which all clients share.

    Attributes:
        id: names it; cannot be guessed all the same.
        token: proves that a request is its own.
        works: its calls that are running, by their request_uuid.
    """

    def __init__(
        self, limits: GatewayLimits, *, resumable: bool, complaints: RateLimitedLog | None = None
    ) -> None:
        self.complaints = complaints or RateLimitedLog(logger)
        self.id = str(uuid.uuid4())
        self.token = secrets.token_urlsafe(16)
        self.works: dict[str, GatewayCall] = {}
        self.limits = limits
        self.is_resumable = resumable
        self.window = limits.callbacks_ahead if resumable else math.inf
        self.backlog = Backlog(limits.backlog_messages, limits.backlog_bytes, keeps=resumable)
        # Bound: the last max_works of them, and no more of each than its request_uuid.
        self._started: OrderedDict[str, str] = OrderedDict()
        self._connection: Connected | None = None
        self._nursery: trio.Nursery | None = None
        # Bound: a task for each callback that its own work is making.
        self._room = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        return f"<trio_rpc.gateway client {self.id}>"

    def owns(self, token: str) -> bool:
        """Whether that token is its own; a wrong one takes as long as the right one."""
        return hmac.compare_digest(self.token.encode(), token.encode(errors="replace"))

    # ── its life ─────────────────────────────────────────────────────────────────────────────

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold its work until it has been away for too long; then cancel that, and wait for its end."""
        async with trio.open_nursery() as self._nursery:
            self._set_deadline()
            try:
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._room.unpark_all()
                if self._connection is not None:
                    self._connection.client_is_over()

    @property
    def is_over(self) -> bool:
        """Whether its work is cancelled, and nothing can be said to it any more."""
        return self._nursery is None or self._nursery.cancel_scope.cancel_called

    @property
    def is_away(self) -> bool:
        """Whether it has no connection."""
        return self._connection is None

    @property
    def deadline(self) -> float:
        """When it will have been away for too long."""
        return math.inf if self._nursery is None else self._nursery.cancel_scope.deadline

    def end(self, reason: str) -> None:
        """End it now: it has said that it leaves, or the gateway is closing."""
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel(reason=reason)

    def attach(self, connection: Connected) -> None:
        """Have a connection; a newer one replaces the one before."""
        if self._connection is not None:
            self._connection.replaced()
        self._connection = connection
        self._set_deadline()

    def detach(self, connection: Connected) -> None:
        """That connection has ended; the client is away if it has no newer one."""
        if self._connection is connection:
            self._connection = None
            self._set_deadline()

    def is_current(self, connection: Connected) -> bool:
        """Whether that is its connection: any other one sends nothing more."""
        return self._connection is connection

    def _set_deadline(self) -> None:
        if self._nursery is not None:
            grace = self.limits.grace if self.is_resumable else 0
            away = self._connection is None
            self._nursery.cancel_scope.deadline = trio.current_time() + grace if away else math.inf

    # ── its work ─────────────────────────────────────────────────────────────────────────────

    def start(
        self, work: GatewayCall, *, key: str | None, elsewhere: trio.Nursery | None = None
    ) -> None:
        """Start a call of its.

        Args:
            work: the call.
            key: what the client will say again if it repeats its request.
            elsewhere: where it runs if it is to outlive this client.
        """
        nursery = elsewhere or self._nursery
        assert nursery is not None  # noqa: S101 - nobody has a client before it runs
        self.works[work.uuid] = work
        if key is not None:
            self._started[key] = work.uuid
            if len(self._started) > self.limits.max_works:
                self._started.popitem(last=False)
        nursery.start_soon(work.run, self, name=work.name)

    def forget(self, call: GatewayCall) -> None:
        """Take a call that has ended off the running ones."""
        del self.works[call.uuid]

    def started_with(self, key: str | None) -> str | None:
        """Return the request_uuid of what a request with that key has started: it may come again."""
        return None if key is None else self._started.get(key)

    # ── what it is told ──────────────────────────────────────────────────────────────────────

    async def call_back(self, call: GatewayCall, message: dict[str, Any]) -> None:
        """Have a callback made; waits while the client has too much to receive, or that call to handle."""
        await trio.lowlevel.checkpoint()
        while not self.is_over and (self.backlog.is_full or call.ahead >= self.window):
            await self._room.park()
        self.say(message)
        call.ahead += 1

    def say(self, message: dict[str, Any]) -> None:
        """Have a message sent. Besides callbacks it is the last of each call, which need not wait.

        Raises TypeError or ValueError for what JSON has no way to say, also when nobody is there to read it.
        """
        if message["type"] == "error" and not self.is_resumable:
            message = {**message, "type": "finish"}  # the only end that older clients know
        text = encode({**message, "seq": self.backlog.next_number})
        if not self.is_over:
            self.backlog.put(text)
            if self._connection is not None:
                self._connection.has_news()

    def made_room(self) -> None:
        """Something has left the backlog, or has been handled: let those look who wait for that."""
        if self._room:
            self._room.unpark_all()
