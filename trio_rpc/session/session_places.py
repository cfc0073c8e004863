"""The places that a server has for sessions: how many there are, in all and for each address."""

from __future__ import annotations

from typing import Final

import trio

from trio_rpc.channels.clients import Client, Clients
from trio_rpc.errors import Refused
from trio_rpc.wire.limits import ServerLimits

__all__ = ["SessionPlaces"]

HANDSHAKE: Final = 1.0


class SessionPlaces:
    """Gives places to the sessions of a server, from their first moment to their end.

    A session that is still opening has a place as well. When all places are taken, the oldest
    opening session gives up its place to a newer client, so that silent clients do not keep others
    out. But it has at least ``HANDSHAKE`` seconds, since to its client it may be open already. Open
    sessions keep their places. Otherwise newer clients are refused.

    Args:
        limits: the limits.
        clients: the clients whose handshakes are not finished.

    Attributes:
        refused: how many sessions were refused so far.
    """

    def __init__(self, limits: ServerLimits, clients: Clients) -> None:
        self._limits = limits
        self._clients = clients
        # Bound: together ``max_sessions``. The first has the times of their beginnings, in order.
        self._opening: dict[Client, float] = {}
        self._open: set[Client] = set()
        # Bound: one key for each session, and for each that gave up its place and has not ended.
        self._by_address: dict[str, int] = {}
        self.refused = 0

    def take(self, client: Client) -> Refused | None:
        """Give a new session a place, which it must :meth:`leave`, or return why it is refused."""
        most = self._limits.max_sessions_per_address
        here = self._by_address.get(client.address, 0)
        if client.address and here >= most:
            return self._refuse(f"this address has {most} sessions (max_sessions_per_address)")
        most = self._limits.max_sessions
        if len(self._open) + len(self._opening) >= most:
            oldest, began = next(iter(self._opening.items()), (client, trio.current_time()))
            if trio.current_time() - began < HANDSHAKE:
                return self._refuse(f"the server has {most} sessions (max_sessions)")
            del self._opening[oldest]
            self._clients.drop(oldest)
        self._opening[client] = trio.current_time()
        self._by_address[client.address] = here + 1
        return None

    def _refuse(self, text: str) -> Refused:
        self.refused += 1
        return Refused(text, retry_after=self._limits.retry_after)

    def opened(self, client: Client) -> None:
        """Keep the place of a session that has opened."""
        del self._opening[client]
        self._open.add(client)
        client.finish()

    def leave(self, client: Client) -> None:
        """Give back the place of a session that has ended."""
        self._opening.pop(client, None)
        self._open.discard(client)
        left = self._by_address.pop(client.address) - 1
        if left:
            self._by_address[client.address] = left
