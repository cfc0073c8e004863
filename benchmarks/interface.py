"""The types shared by adapters and timed loops: an open client, its server, and its turns."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.payloads import Order, Quote

__all__ = ["Calls", "Exchange", "Measurement", "Ready", "Target", "Turns"]

Measurement = dict[str, float]
Ready = Callable[[Sequence[str]], None]
Exchange = Callable[[int], Awaitable[Any]]
OnCall = Callable[[str], Coroutine[Any, Any, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The server that a client measures."""

    urls: Sequence[str]
    pid: int


class Turns(Protocol):
    """The turns of one client among several that are measured in rotation."""

    def wait(self) -> bool:
        """Block until it is this client's turn. Return False if there will be no other turn."""

    def report(self, measurement: Measurement) -> None:
        """Report the metrics of the turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """An open client, as the async functions that the parts need. None: it lacks that function."""

    echo: Callable[[str], Awaitable[str]]
    large: Callable[[bytes], Awaitable[bytes]] | None = None
    hang: Callable[[], Coroutine[Any, Any, Any]] | None = None
    """Never returns."""

    running: Callable[[], Awaitable[int]] | None = None
    """Returns the number of running handlers of ``hang``."""

    items: Callable[[int, int], AbstractAsyncContextManager[AsyncIterator[Any]]] | None = None
    """Opens a stream. Arguments: number of items, bytes of each (0: counted numbers)."""

    batches: Callable[[int, int], AbstractAsyncContextManager[AsyncIterator[list[Any]]]] | None = (
        None
    )
    """The same, with lists of all items that have arrived."""

    exchange: Callable[[], AbstractAsyncContextManager[Exchange]] | None = None
    """Opens a duplex. Yields a function that sends an item and returns the one sent back."""

    call_back: Callable[[OnCall, int, int], Awaitable[Any]] | None = None
    """Asks the server to call a function of the client. Arguments: how often, by how many tasks."""

    get: Callable[[int], Awaitable[bytes]] | None = None
    """Returns the given number of bytes."""

    many: Callable[[str, int, int], Awaitable[list[str]]] | None = None
    """Echoes a string: how often, how many at once. For peers that do this without a task or a
    thread for each concurrent call."""

    value: Callable[[Any], Awaitable[Any]] | None = None
    """Echoes a dict, or a list of dicts."""

    quote: Callable[[Quote], Awaitable[Quote]] | None = None
    """Echoes a small dataclass: the handler gets it, and returns it, as a dataclass."""

    orders: Callable[[list[Order]], Awaitable[list[Order]]] | None = None
    """Echoes a list of dataclasses of 10 fields, likewise."""

    server_pid: int | None = None
    """The process that serves, if it is not the harness's server."""
