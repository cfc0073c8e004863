"""The servers of a NATS cluster, in the order in which a client tries them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from trio_rpc.nats.addresses import MAX_SERVERS, Server, parse_server
from trio_rpc.util.text import quoted

__all__ = ["ServerList"]


class ServerList:
    """The configured servers and the servers that the cluster names, at most 64.

    The order is random, so that many clients do not all choose the same server.

    Args:
        configured: the servers that the user has given; they are never forgotten.
    """

    def __init__(self, configured: Sequence[Server]) -> None:
        self._configured = frozenset(configured)
        # Bound: MAX_SERVERS.
        self._servers = random.sample(configured, len(configured))

    def __len__(self) -> int:
        return len(self._servers)

    def next(self) -> Server:
        """Return the server to try now, which becomes the last one to be tried again."""
        server = self._servers.pop(0)
        self._servers.append(server)
        return server

    def learn(self, info: Mapping[str, Any], current: Server) -> list[str]:
        """Add the servers that the cluster names, and drop servers that it no longer names.

        Args:
            info: the INFO of a server.
            current: that server.

        Returns:
            The names that are not addresses.
        """
        urls = info.get("connect_urls")
        if not isinstance(urls, list):
            return []
        named, bad = set[Server](), list[str]()
        for url in urls[:MAX_SERVERS]:
            try:
                named.add(parse_server(str(url)))
            except ValueError:
                bad.append(quoted(str(url)))
        allowed = self._configured | named | {current}
        new = sorted(named.difference(self._servers), key=str)
        random.shuffle(new)
        kept = [server for server in self._servers if server in allowed]
        self._servers = (new + kept)[:MAX_SERVERS]
        if current in self._servers:  # it stays the last one to be tried again
            self._servers.remove(current)
        self._servers.append(current)
        return bad
