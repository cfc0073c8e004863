"""Connected pairs of every kind of channel."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
import trio
import trustme

from trio_rpc.channels import StreamChannel, open_channel, open_listeners
from trio_rpc.channels.memory import memory_channel_pair
from trio_rpc.wire.limits import DEFAULT_LIMITS, Limits

Pair = tuple[trio.abc.Channel[bytes], trio.abc.Channel[bytes]]


@dataclass
class Certificates:
    """Two strangers: each authority signs for its own."""

    ca: trustme.CA
    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="session")
def certificates() -> Certificates:
    ca = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost", "127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    ca.configure_trust(client)
    return Certificates(ca, server, client)


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


@pytest.fixture(params=["memory", "tcp", "unix", "tls", "stream"])
def maker(request, tmp_path, certificates) -> Callable[[], Awaitable[Pair]]:
    """Make connected pairs of one kind of channel after the other."""

    async def make() -> Pair:
        match request.param:
            case "memory":
                return memory_channel_pair()
            case "tcp":
                return await connected("tcp://127.0.0.1:0")
            case "unix":
                return await connected(f"unix://{tmp_path}/socket")
            case "tls":
                return await connected(
                    "tls://127.0.0.1:0", certificates.server, certificates.client
                )
            case _:
                left, right = trio.testing.lockstep_stream_pair()
                return StreamChannel(left), StreamChannel(right)

    make.kind = request.param
    return make
