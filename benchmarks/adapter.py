"""What a floor, the library or a peer has to offer in order to be measured.

An adapter is a module in `adapters/` that names its `ADAPTERS`. Its two functions run in processes
of their own, so that each may use whatever event loop it likes, or none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from benchmarks import loads, streaming
from benchmarks.loops import TRIO, Loop
from benchmarks.parts import PARTS, Load

__all__ = [
    "Adapter",
    "Calls",
    "Exchange",
    "Measurement",
    "Ready",
    "Target",
    "Turns",
    "adapter",
    "peer",
    "trio_adapter",
]

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

    lacks: Mapping[str, str] = field(default_factory=dict)
    """Of a peer: the parts in which peers are compared and that it cannot do, with what the table
    then says."""


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


def adapter(
    loop: Loop,
    name: str,
    title: str,
    parts: str,
    *,
    serve: Callable[[Sequence[str], Ready], Any],
    open_client: Callable[[str], AbstractAsyncContextManager[Calls]],
    lacks: Mapping[str, str] | None = None,
) -> Adapter:
    """Make an adapter of something that runs under that loop; `parts` are keys between spaces.

    `serve` and `open_client` are async, also under a loop of what blocks.
    """

    def serve_in_loop(hosts: Sequence[str], ready: Ready) -> None:
        loop.run(serve, hosts, ready)

    def drive_in_loop(part: str, target: Target, load: Load, turns: Turns) -> None:
        drive = {**loads.LOADS, **streaming.STREAMING}[part]
        loop.run(drive, loads.Bench(loop, open_client, target, load, turns))

    return Adapter(
        name=name,
        title=title,
        parts=frozenset(parts.split()),
        serve=serve_in_loop,
        drive=drive_in_loop,
        lacks=lacks or {},
    )


trio_adapter = partial(adapter, TRIO)


def peer(
    loop: Loop,
    name: str,
    title: str,
    parts: str,
    *,
    not_cancelled: bool = False,
    lacks: Mapping[str, str] | None = None,
    **functions: Any,
) -> Adapter:
    """Make the adapter of a peer: what it lacks is said wherever peers are compared."""
    said = {part.key: "-" for part in PARTS.values() if part.peers}
    if not_cancelled:
        said["cancel"] = "not propagated"
    said.update(lacks or {})
    missing = {key: text for key, text in said.items() if key not in parts.split()}
    return adapter(loop, name, title, parts, lacks=missing, **functions)
