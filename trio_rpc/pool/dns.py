"""The addresses of a name in the DNS, each of which is an instance."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import trio

from trio_rpc.channels.urls import Address, parse_url
from trio_rpc.pool.instances import Reachable
from trio_rpc.util.asking import AskingPause
from trio_rpc.util.rate_limited_log import RateLimitedLog
from trio_rpc.util.reconnect import full_jitter

__all__ = ["DNS", "DnsName", "DnsSource", "check_port", "parse_dns"]

DNS: Final = ("dns+tcp://", "dns+tls://")
PERIOD: Final = 30.0
"""Seconds between two questions."""
LEAST_PERIOD: Final = 1.0
"""Seconds between two questions when sessions are lost, so that the resolver is not flooded."""
MAX_DELAY: Final = 5.0
"""Seconds of the longest random pause that is added while the name does not resolve."""
PATIENCE: Final = 3
"""Answers in a row that must lack an address before it is dropped.

Some servers answer with a part of the addresses, another part each time.
"""


@dataclass(frozen=True, slots=True)
class DnsName:
    """A name and a port, whose addresses are instances."""

    url: str
    """The URL without ``dns+``."""
    address: Address


def parse_dns(text: str) -> DnsName:
    """Parse ``dns+tcp://name:port`` or ``dns+tls://name:port``. Raises ValueError."""
    url = text.removeprefix("dns+")
    address = parse_url(url)
    check_port(address)
    return DnsName(url, address)


def check_port(address: Address) -> None:
    """Raise ValueError for port 0, to which no client can connect."""
    if address.scheme != "unix" and address.port == 0:
        raise ValueError(f"cannot connect to {address}: port 0 is only for listening")


class DnsSource:
    """Asks for the addresses of a name, every 30 s and when a session is lost.

    Args:
        name: the name.
        instance: makes the instance of an address.
    """

    is_fixed = False
    was_refused = False

    def __init__(self, name: DnsName, instance: Callable[[str], Reachable]) -> None:
        self._name = name
        self._instance = instance
        self._pause = AskingPause()
        # Bound: one for each address in the last PATIENCE answers.
        self._missing: dict[str, int] = {}
        """The number of answers in a row that lacked each address."""
        self.error = ""

    def ask_again(self) -> None:
        """Ask soon, since a session is lost."""
        self._pause.cut_short()

    async def run(
        self,
        update: Callable[[Iterable[Reachable]], None],
        failed: Callable[[], None],
        complaints: RateLimitedLog,
    ) -> None:
        """Ask until cancelled; call ``update`` with the instances after each answer."""
        failures = 0
        while True:
            try:
                self._hear(await self._ask())
            except OSError as exc:
                failures += 1
                self.error = f"{self._name.address.host} does not resolve: {exc.strerror or exc}"
                complaints.log(logging.WARNING, "%s", self.error)
                failed()
            else:
                failures, self.error = 0, ""
                update([self._instance(address) for address in self._missing])
            pause = full_jitter(failures, LEAST_PERIOD, MAX_DELAY) if failures else 0.0
            more = PERIOD - LEAST_PERIOD if self._missing else 0.0
            await self._pause.sleep(LEAST_PERIOD + pause, more)

    def _hear(self, addresses: list[str]) -> None:
        self._missing = {
            address: 0 if address in addresses else count + 1
            for address, count in self._missing.items()
            if address in addresses or count + 1 < PATIENCE
        } | dict.fromkeys(addresses, 0)

    async def _ask(self) -> list[str]:
        host, port = self._name.address.host, self._name.address.port
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(each[4][0]) for each in found))
