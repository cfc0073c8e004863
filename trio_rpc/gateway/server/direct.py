"""A call that is answered in its own request, without a WebSocket."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from trio_rpc.gateway.json_messages import encode
from trio_rpc.gateway.server.call import GatewayCall
from trio_rpc.gateway.server.memory_budget import MemoryBudget, MemoryShare

__all__ = ["DirectCaller", "HeldResponse", "until_hung_up"]

AT_ONCE = 3
"""Turns of the run loop that a call may take before anyone watches whether its client hangs up.

A handler that does not wait has ended by then. Watching costs a task, and two switches between
threads where Trio is the guest of a host on asyncio.
"""


class HeldResponse(Response):
    """A response in JSON whose body is counted until the client has accepted it.

    Args:
        status: the status.
        body: the body, which is not copied.
        share: counts the body; it is closed when the response has been sent.
    """

    def __init__(self, status: int, body: bytes, share: MemoryShare) -> None:
        super().__init__(body, status, media_type="application/json")
        self._share = share

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.close()

    def close(self) -> None:
        """Count the body no longer, since it was sent."""
        self._share.close()


class DirectCaller:
    """The request that a call is answered in.

    Args:
        budget: bounds the answers, with everything else that is held for clients.
    """

    is_resumable = False
    answers = False

    def __init__(self, budget: MemoryBudget) -> None:
        self._share = MemoryShare(budget)
        self._status = 500
        self._is_over = False

    @property
    def name(self) -> str:
        """The client's name in logs."""
        return "a client without a WebSocket"

    @property
    def is_over(self) -> bool:
        """Whether the request was given up."""
        return self._is_over

    def say(self, message: dict[str, Any]) -> bytes:
        """Hold the message that ends the call, and return its text; see ``Client.say``."""
        text = encode(message)
        self._share.check_room(len(text))
        self._share.take(len(text))
        self._status = 200 if message["type"] == "finish" else 500
        return text

    async def call_back(self, _call: GatewayCall, _message: dict[str, Any]) -> None:
        """Do nothing: the call has no callbacks."""
        await trio.lowlevel.checkpoint()

    def forget(self, call: GatewayCall) -> None:
        """Do nothing: the call is in no table."""

    async def answer(self, request: Request, work: GatewayCall) -> Response:
        """Wait until the call has ended; return its answer. Cancel the call if the client leaves.

        There must be no checkpoint before the answer is sent.
        """
        try:
            await _until_end(request, work)
        except BaseException:
            self._is_over = True
            self._share.close()
            raise
        outcome = work.outcome or encode({"error": "the gateway is closing"})
        return HeldResponse(self._status, outcome, self._share)


async def until_hung_up(request: Request, then: Callable[[], object]) -> None:
    """Wait until the client hangs up, and call a function then. The body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    then()


async def _until_end(request: Request, work: GatewayCall) -> None:
    """Wait for the end of a call, and cancel it if the client hangs up.

    Most calls end at once, before anyone needs to watch for that.
    """
    try:
        for _ in range(AT_ONCE):
            await trio.lowlevel.checkpoint()
            if work.ended.is_set():
                return
        async with trio.open_nursery() as nursery:
            hung_up = functools.partial(work.cancel, "the client disconnected")
            nursery.start_soon(until_hung_up, request, hung_up)
            await work.ended.wait()
            nursery.cancel_scope.cancel(reason="the call has ended")
    finally:
        work.cancel("its request was cancelled")
