"""Connect two ends over each transport that a session can use.

``json`` is in memory, with :class:`trio_rpc.codecs.JsonCodec` in place of MessagePack. ``nats`` is a
broker within this program, and ``nats-server`` a real one.
To add one, add its name to ``KINDS``, and a branch to ``Transport.join`` if it has no URL.
"""

from __future__ import annotations

import contextlib

import trio

from helpers.channel_pairs import Held, child_channels, connected_by, thread_channels
from helpers.forwarding_pairs import open_channel_pair
from helpers.nats_broker import open_broker_pair
from helpers.nats_settling import RealPair
from helpers.resumable_network import ResumableNetwork
from trio_rpc.channels import carrier_limits
from trio_rpc.channels.connection import owned
from trio_rpc.testing import memory_channel_pair
from trio_rpc.util.one_exception import one_exception
from trio_rpc.wire.limits import DEFAULT_LIMITS

IN_MEMORY = ("memory", "json", "forwarding", "resumable")
KINDS = (
    "memory",
    "json",
    "tcp",
    "tls",
    "unix",
    "ws",
    "wss",
    "process",
    "thread",
    "forwarding",
    "resumable",
    "nats",
    "nats-server",
)

WITHOUT_URLS = {"process": child_channels, "thread": thread_channels}


@contextlib.asynccontextmanager
async def open_resumable_pair(*limits):
    """Open both ends of an in-memory resumable channel for the block."""
    largest = max(limits, key=lambda each: each.max_packet, default=DEFAULT_LIMITS)
    with one_exception() as body:
        async with trio.open_nursery() as nursery:
            try:
                yield await ResumableNetwork(nursery, limits=carrier_limits(largest)).pair()
            except BaseException as exc:
                body.append(exc)
                raise
            finally:
                nursery.cancel_scope.cancel()


class Transport:
    """Connects two ends over one kind of transport, with tasks in ``nursery``."""

    def __init__(self, kind, nursery, tmp_path, contexts):
        self.kind = kind
        self._nursery = nursery
        self._url = f"unix://{tmp_path}/socket" if kind == "unix" else f"{kind}://127.0.0.1:0"
        self._contexts = contexts if kind in ("tls", "wss") else (None, None)
        self.real = RealPair()

    @contextlib.asynccontextmanager
    async def join(self, *limits):
        """Open both ends of a connection for the block. Exceptions of its body pass through."""
        if self.kind in ("memory", "json"):
            yield memory_channel_pair()
            return
        if self.kind == "forwarding":
            async with open_channel_pair(*limits) as ends:
                yield ends
            return
        if self.kind == "resumable":
            async with open_resumable_pair(*limits) as ends:
                yield ends
            return
        if self.kind in ("nats", "nats-server"):
            open_pair = open_broker_pair if self.kind == "nats" else self.real.open
            async with open_pair(*limits) as ends:
                yield ends
            return
        held = Held(self._nursery), Held(self._nursery)
        try:
            if self.kind in WITHOUT_URLS:
                ends = await WITHOUT_URLS[self.kind](*limits)
                yield [await each.enter(owned(end)) for each, end in zip(held, ends, strict=True)]
            else:
                yield await connected_by(held, self._url, *self._contexts, limits)
        finally:
            with trio.CancelScope(shield=True):
                for each in held:
                    await each.leave()
