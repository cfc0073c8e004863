"""What a floor, the library or a peer has to offer in order to be measured.

An adapter is a module in `adapters/` that names its `ADAPTERS`. Its two functions run in processes
of their own, so that each may use whatever event loop it likes, or none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from benchmarks import loads, streaming
from benchmarks.parts import Load

__all__ = ["Adapter", "Calls", "Measurement", "Ready", "Target", "Turns", "trio_adapter"]

Measurement = dict[str, float]
Ready = Callable[[Sequence[str]], None]


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
class Adapter:
    """One row of the tables."""

    name: str
    title: str
    parts: frozenset[str]
    """The keys of the parts it can do."""

    serve: Callable[[Sequence[str], Ready], None]
    """In the server's process: listen on a free port of each host, say the URLs, serve for ever."""

    drive: Callable[[str, Target, Load, Turns], None]
    """In the client's process: connect, and do one part's work whenever it is its turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """An open client, as the async functions that the parts need; None where it lacks one."""

    echo: Callable[[str], Awaitable[str]]
    large: Callable[[bytes], Awaitable[bytes]] | None = None
    hang: Callable[[], Awaitable[Any]] | None = None
    """Never returns; the server counts those that have begun and not ended."""

    running: Callable[[], Awaitable[int]] | None = None
    """That count."""

    items: Callable[[int, int], AbstractAsyncContextManager[AsyncIterator[Any]]] | None = None
    """A stream of so many items: numbers from 0 if the second argument is 0, else so many bytes."""

    call_back: Callable[[Callable[[str], Awaitable[str]], int, int], Awaitable[Any]] | None = None
    """Has a function of the client's called so often, by so many tasks."""

    get: Callable[[int], Awaitable[bytes]] | None = None
    """Returns so many bytes."""


def trio_adapter(
    name: str,
    title: str,
    parts: str,
    *,
    serve: Callable[[Sequence[str], Ready], Awaitable[None]],
    open_client: Callable[[str], AbstractAsyncContextManager[Calls]],
) -> Adapter:
    """Make an adapter of something that runs under Trio; `parts` are keys between spaces."""

    def serve_in_trio(hosts: Sequence[str], ready: Ready) -> None:
        trio.run(serve, hosts, ready)

    def drive_in_trio(part: str, target: Target, load: Load, turns: Turns) -> None:
        drive = {**loads.LOADS, **streaming.STREAMING}[part]
        trio.run(drive, open_client, target, load, turns)

    return Adapter(
        name=name,
        title=title,
        parts=frozenset(parts.split()),
        serve=serve_in_trio,
        drive=drive_in_trio,
    )
