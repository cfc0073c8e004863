"""What passes between an adapter and the timed loops: an open client, its server, and its turns."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Calls", "Exchange", "Measurement", "Ready", "Target", "Turns"]

Measurement = dict[str, float]
Ready = Callable[[Sequence[str]], None]
Exchange = Callable[[int], Awaitable[Any]]
OnCall = Callable[[str], Coroutine[Any, Any, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The server that a client is to measure."""

    urls: Sequence[str]
    pid: int


class Turns(Protocol):
    """A client's place among those that are measured by turns."""

    def wait(self) -> bool:
        """Block until it is this client's turn; False when there will be no other."""

    def report(self, measurement: Measurement) -> None:
        """Say what the turn gave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """An open client, as the async functions that the parts need; None where it lacks one."""

    echo: Callable[[str], Awaitable[str]]
    large: Callable[[bytes], Awaitable[bytes]] | None = None
    hang: Callable[[], Coroutine[Any, Any, Any]] | None = None
    """Never returns; the server counts those that have begun and not ended."""

    running: Callable[[], Awaitable[int]] | None = None
    """That count."""

    items: Callable[[int, int], AbstractAsyncContextManager[AsyncIterator[Any]]] | None = None
    """A stream of so many items: numbers from 0 if the second argument is 0, else so many bytes."""

    exchange: Callable[[], AbstractAsyncContextManager[Exchange]] | None = None
    """Opens a stream both ways; gives what sends an item there and returns the one that comes."""

    call_back: Callable[[OnCall, int, int], Awaitable[Any]] | None = None
    """Has a function of the client's called so often, by so many tasks."""

    get: Callable[[int], Awaitable[bytes]] | None = None
    """Returns so many bytes."""

    many: Callable[[str, int, int], Awaitable[list[str]]] | None = None
    """Echoes that string so often, so many at once; for what has its own way to do that without a
    task or a thread for each of those at once."""
