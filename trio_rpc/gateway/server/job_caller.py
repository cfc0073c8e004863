"""A job: a call that no client owns. Its token is enough to watch it and to cancel it."""

from __future__ import annotations

import hmac
import secrets
from typing import Any, NamedTuple

import msgspec
import trio

from trio_rpc.gateway.json_messages import ENVELOPE, SPREAD, encode
from trio_rpc.gateway.server.call import GatewayCall
from trio_rpc.gateway.server.memory_budget import MemoryBudget, MemoryShare

__all__ = ["JobCaller"]


class _Latest(NamedTuple):
    """The latest arguments of a callback, and the number of that change."""

    number: int
    text: bytes
    is_spread: bool


class JobCaller:
    """The caller of a job's call, in place of a client.

    It keeps the latest arguments of each callback, so the handler never waits for watchers,
    and they may miss arguments in between.

    Args:
        budget: bounds the arguments that are held, with everything else that is held for clients.

    Attributes:
        token: the secret that allows a client to watch the job and to cancel it.
        size: the bytes of the arguments that are held.
        number: the number of changes of these arguments.
    """

    is_resumable = True
    answers = False
    is_over = False

    def __init__(self, budget: MemoryBudget) -> None:
        self.token = secrets.token_urlsafe(16)
        self.number = 0
        self._budget = budget
        self._share = MemoryShare(budget, self._wake)
        # Bound: one entry for each callback of the method.
        self._latest: dict[str, _Latest] = {}
        self._changed = trio.Event()
        # Bound: the tasks of the handler.
        self._room = trio.lowlevel.ParkingLot()

    @property
    def name(self) -> str:
        """The caller's name in logs."""
        return "a job"

    @property
    def size(self) -> int:
        """The bytes of the arguments that are held."""
        return sum(len(each.text) for each in self._latest.values())

    def owns(self, token: str) -> bool:
        """Return whether a token belongs to this job. All comparisons take the same time."""
        return hmac.compare_digest(self.token.encode(), token.encode(errors="replace"))

    # ── the interface of a caller ────────────────────────────────────────────────────────────

    async def call_back(self, _call: GatewayCall, message: dict[str, Any]) -> None:
        """Keep the arguments of callbacks. Waits while too many bytes are held for all clients."""
        await trio.lowlevel.checkpoint()
        spread = message.get(SPREAD, ())
        given = {name: encode(each) for name, each in message.items() if name not in ENVELOPE}
        while (more := self._growth(given)) > 0 and not self._share.has_room(more):
            self._share.wait()
            await self._room.park()
            self._budget.pass_on()
        self._share.take(more)
        for name, text in given.items():
            self.number += 1
            self._latest[name] = _Latest(self.number, text, name in spread)
        self._tell()

    def _growth(self, given: dict[str, bytes]) -> int:
        held = sum(len(self._latest[name].text) for name in given if name in self._latest)
        return sum(map(len, given.values())) - held

    def say(self, message: dict[str, Any]) -> bytes:
        """Return the text of the message that ends the call; the results hold it."""
        return encode(message)

    def forget(self, _call: GatewayCall) -> None:
        """Tell the watchers that the call has ended. Its bytes now count as those of a result."""
        self._share.close()
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _wake(self) -> bool:
        return bool(self._room.unpark_all())

    # ── its watchers ─────────────────────────────────────────────────────────────────────────

    async def wait_changed(self) -> None:
        """Wait until a callback has been called, or the call has ended."""
        await self._changed.wait()

    def since(self, number: int) -> dict[str, Any]:
        """Return the callbacks that were called after this number, as keys of a message."""
        new = sorted(
            (each.number, name) for name, each in self._latest.items() if each.number > number
        )
        latest = self._latest
        return {
            "news": self.number,
            "callbacks": {name: msgspec.Raw(latest[name].text) for _, name in new},
            SPREAD: [name for _, name in new if latest[name].is_spread],
        }
