"""Connected pairs of every kind of channel."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trustme
from helpers.channel_pairs import (
    Certificates,
    Held,
    Pair,
    child_channels,
    connected,
    thread_channels,
)
from helpers.forwarding_pairs import open_channel_pair
from helpers.nats_server import open_nats_pair
from helpers.tls import make_contexts

from trio_rpc.channels import StreamChannel
from trio_rpc.channels.memory import memory_channel_pair
from trio_rpc.wire.limits import DEFAULT_LIMITS


@pytest.fixture(scope="session")
def certificates() -> Certificates:
    ca = trustme.CA()
    return Certificates(ca, *make_contexts(ca=ca))


@pytest.fixture(
    params=[
        "memory",
        "tcp",
        "unix",
        "tls",
        "ws",
        "wss",
        "process",
        "thread",
        "stream",
        "forwarding",
        "nats",
    ]
)
async def maker(request, nursery, tmp_path, certificates) -> Callable[[], Awaitable[Pair]]:
    """Return a function that makes connected pairs of one kind of channel."""

    async def make() -> Pair:
        match request.param:
            case "memory":
                return memory_channel_pair()
            case "tcp":
                return await connected(nursery, "tcp://127.0.0.1:0")
            case "ws":
                return await connected(nursery, "ws://127.0.0.1:0/path")
            case "process":
                return await child_channels(DEFAULT_LIMITS, DEFAULT_LIMITS)
            case "thread":
                return await thread_channels(DEFAULT_LIMITS, DEFAULT_LIMITS)
            case "unix":
                return await connected(nursery, f"unix://{tmp_path}/socket")
            case "forwarding":
                return await Held(nursery).enter(open_channel_pair())
            case "nats":
                return await Held(nursery).enter(open_nats_pair())
            case "tls" | "wss" as scheme:
                return await connected(
                    nursery, f"{scheme}://127.0.0.1:0", certificates.server, certificates.client
                )
            case _:
                left, right = trio.testing.lockstep_stream_pair()
                return StreamChannel(left), StreamChannel(right)

    make.kind = request.param
    return make
