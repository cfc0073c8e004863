"""The interface through which a floor, the library or a peer is measured.

An adapter is a module in `adapters/` with a tuple `ADAPTERS`. Its two functions run in separate
processes, so that each may use any event loop, or none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks import loads, streaming
from benchmarks.interface import Calls, Ready, Target, Turns
from benchmarks.loops import TRIO, Loop
from benchmarks.parts import GROUPS, PARTS, Load, expand

__all__ = ["Adapter", "adapter", "peer", "trio_adapter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One row of the tables."""

    name: str
    title: str
    parts: frozenset[str]
    """The keys of the parts that it can run."""

    serve: Callable[[Sequence[str], Ready], None]
    """In the server's process: listen on a free port of each host, report the URLs, and serve."""

    drive: Callable[[str, Target, Load, Turns], None]
    """In the client's process: connect, and do one part's work in each of its turns."""

    lacks: Mapping[str, str] = field(default_factory=dict)
    """The parts of the comparison that a peer cannot run, each with the text for the table."""


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
    """Make an adapter from functions that run under that loop.

    `parts` holds the keys of the parts, or names of groups of them, separated by spaces.

    `serve` and `open_client` are async, also under the blocking loop.
    """

    def serve_in_loop(hosts: Sequence[str], ready: Ready) -> None:
        loop.run(serve, hosts, ready)

    def drive_in_loop(part: str, target: Target, load: Load, turns: Turns) -> None:
        drive = {**loads.LOADS, **streaming.STREAMING}[part]
        loop.run(drive, loads.Bench(loop, open_client, target, load, turns))

    return Adapter(
        name=name,
        title=title,
        parts=frozenset(expand(parts.split())),
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
    """Make the adapter of a peer. The tables of peers also show the parts that it lacks."""
    others = GROUPS["websockets"]  # only for adapters that use WebSockets
    texts = {part.key: "-" for part in PARTS.values() if part.peers and part.key not in others}
    if not_cancelled:
        texts["cancel"] = "not propagated"
    for group, text in (lacks or {}).items():
        texts.update(dict.fromkeys(expand([group]), text))
    runs = set(expand(parts.split()))
    missing = {key: text for key, text in texts.items() if key not in runs}
    return adapter(loop, name, title, parts, lacks=missing, **functions)
