"""Makes connected pairs of channels; shared by the tests of this folder."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass

import trio
import trustme

from trio_rpc.channels import open_channel, open_listeners
from trio_rpc.wire.limits import DEFAULT_LIMITS, Limits

Pair = tuple[trio.abc.Channel[bytes], trio.abc.Channel[bytes]]


@dataclass
class Certificates:
    """Two strangers: each authority signs for its own."""

    ca: trustme.CA
    server: ssl.SSLContext
    client: ssl.SSLContext


async def hold(nursery: trio.Nursery, block) -> trio.abc.Channel[bytes]:
    """Enter a block that owns a channel, in a task of ``nursery``; return the channel."""

    async def own(*, task_status) -> None:
        async with block as channel:
            task_status.started(channel)
            await trio.sleep_forever()

    return await nursery.start(own)


async def fails_to_open(url: str, **options) -> None:
    """Open a channel that cannot be opened, for its error."""
    async with open_channel(url, **options):
        raise AssertionError("it must not open")


async def connected(
    nursery: trio.Nursery,
    url: str,
    server_context: ssl.SSLContext | None = None,
    client_context: ssl.SSLContext | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Pair:
    """Open a listener, a client and the server's end, which live in ``nursery``."""
    listeners = await open_listeners(url, ssl_context=server_context, limits=limits)
    accepted: list[trio.abc.Channel[bytes]] = []

    async def accept() -> None:
        connection = await listeners[0].accept()
        accepted.append(await hold(nursery, connection.prepared()))

    try:
        async with trio.open_nursery() as accepting:
            accepting.start_soon(accept)
            opened = await hold(
                nursery,
                open_channel(listeners[0].url, ssl_context=client_context, limits=limits),
            )
    finally:
        for listener in listeners:
            await listener.aclose()
    return opened, accepted[0]


def open_descriptors() -> set[str]:
    return set(os.listdir("/dev/fd"))  # noqa: PTH208 - the names will do
