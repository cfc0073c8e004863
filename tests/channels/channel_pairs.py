"""Makes connected pairs of channels; shared by the tests of this folder."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass

import trio
import trustme

from trio_rpc.channels import StreamChannel, open_channel, open_listeners
from trio_rpc.wire.limits import DEFAULT_LIMITS, Limits

Pair = tuple[trio.abc.Channel[bytes], trio.abc.Channel[bytes]]


@dataclass
class Certificates:
    """Two strangers: each authority signs for its own."""

    ca: trustme.CA
    server: ssl.SSLContext
    client: ssl.SSLContext


async def connected(
    url: str,
    server_context: ssl.SSLContext | None = None,
    client_context: ssl.SSLContext | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Pair:
    """Open a listener, a client and the server's end; close the listener."""
    listeners = await open_listeners(url, ssl_context=server_context, limits=limits)
    accepted: list[StreamChannel] = []
    opened: list[StreamChannel] = []

    async def accept() -> None:
        accepted.append(await listeners[0].accept())
        await accepted[0].prepare()

    async def connect() -> None:
        opened.append(
            await open_channel(listeners[0].url, ssl_context=client_context, limits=limits)
        )

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            nursery.start_soon(connect)
    finally:
        for listener in listeners:
            await listener.aclose()
    return opened[0], accepted[0]


def open_descriptors() -> set[str]:
    return set(os.listdir("/dev/fd"))  # noqa: PTH208 - the names will do
