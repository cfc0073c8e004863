"""One instance of a service, as a source of instances names it to a pool."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import trio

from trio_rpc.wire.limits import Limits

__all__ = ["Instance", "OpenInstance"]

OpenInstance = Callable[[Limits], AbstractAsyncContextManager[trio.abc.Channel[bytes]]]


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of a service, and how to reach it. Most instances are given as URLs instead.

    Attributes:
        name: its name in :meth:`Pool.instances`, logs and errors. A pool has one session with each
            name.
        open: returns a block that owns a fresh channel to the instance. It gets the limits of the
            session, of which ``max_packet`` and the times concern a channel. If it raises OSError,
            :class:`RpcError` or an error of Trio's channels, the pool tries again later.
    """

    name: str
    open: OpenInstance
