"""The clients of a server that have not finished their handshakes: bounded, and paced.

A connection costs a socket and a task before its client has said anything. So a server bounds the
connections whose handshakes are unfinished. When one more arrives, the *oldest* of them has to give
up its place: a client that shakes hands needs a fraction of the time that a silent one takes. A
flood of silent connections therefore shortens the time that each of them gets, and does not keep
faster clients out.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import trio

__all__ = ["Client", "Clients", "address_of"]


class Client:
    """A client whose handshake is not finished.

    Attributes:
        name: its name in logs.
        address: its address, for limits by address; "" if it has none.
        give_up: ends its handshake, because newer clients need its place.
    """

    __slots__ = ("_clients", "address", "give_up", "name")

    def __init__(
        self, clients: Clients, name: str, address: str, give_up: Callable[[], object]
    ) -> None:
        self._clients = clients
        self.name = name
        self.address = address
        self.give_up = give_up

    def finish(self) -> None:
        """Leave the place of an unfinished handshake. Does nothing the second time."""
        self._clients.remove(self)
        self.give_up = _nothing


class Clients:
    """The clients with unfinished handshakes, oldest first, and the pace at which more come in.

    Args:
        most: how many there may be.
        rate: how many connections are accepted in a second. As many may come in at once.

    Attributes:
        given_up: how many had to give up their place so far.
    """

    def __init__(self, most: int, rate: float) -> None:
        # Bound: ``most``. A dict, for its order.
        self._unfinished: dict[Client, None] = {}
        self._most = most
        self._pause = 1 / rate
        self._next = -1.0
        self.given_up = 0

    def __len__(self) -> int:
        return len(self._unfinished)

    def add(self, name: str, address: str, give_up: Callable[[], object]) -> Client:
        """Record a connection that was accepted. If there is no room, the oldest one gives up."""
        if len(self._unfinished) >= self._most:
            self.drop(next(iter(self._unfinished)))
        client = Client(self, name, address, give_up)
        self._unfinished[client] = None
        return client

    def remove(self, client: Client) -> None:
        """Forget a client that has finished its handshake, or has left."""
        self._unfinished.pop(client, None)

    def drop(self, client: Client) -> None:
        """End an unfinished handshake, because a newer client needs its place."""
        give_up = client.give_up
        client.finish()
        self.given_up += 1
        give_up()

    async def pace(self) -> None:
        """Wait until one more connection may be accepted. A checkpoint only if it waits."""
        if not self._pause:
            return
        now = trio.current_time()
        self._next = max(self._next, now - 1) + self._pause
        if self._next > now:
            await trio.sleep_until(self._next)


def _nothing() -> None:
    """Do nothing, since the handshake is finished."""


def address_of(host: str) -> str:
    """Return the address by which clients are counted.

    An IPv6 client usually has a network of 64 bits for itself, so that network counts as one.
    """
    if ":" not in host:  # IPv4, or no address
        return host
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), 64), strict=False))
