"""trio_rpc over a forwarded channel, whose carrier is a TCP connection."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import trio

from benchmarks.adapter import trio_adapter
from benchmarks.adapters.library import Bench
from benchmarks.interface import Calls, Ready
from trio_rpc import open_session, serve_session
from trio_rpc.channels import (
    Connection,
    ForwardingChannel,
    open_channel,
    open_forwarding,
    open_listeners,
)

__all__ = ["ADAPTERS"]


async def _serve_bench(channel: ForwardingChannel) -> None:
    await serve_session(channel, {"bench": Bench()})


async def _serve_connection(connection: Connection) -> None:
    async with (
        connection.prepared() as carrier,
        open_forwarding(carrier, {"bench": _serve_bench}) as forwarding,
    ):
        await forwarding.wait_closed()


async def _serve(hosts: Sequence[str], ready: Ready) -> None:
    (listener,) = await open_listeners(f"tcp://{hosts[0]}:0")
    async with trio.open_nursery() as nursery:
        ready([listener.url])
        while True:
            nursery.start_soon(_serve_connection, await listener.accept())


@asynccontextmanager
async def _open_client(url: str) -> AsyncGenerator[Calls]:
    async with (
        open_channel(url) as carrier,
        open_forwarding(carrier) as forwarding,
        open_session(await forwarding.open("bench")) as session,
    ):
        bench = session.proxy("bench", Bench)
        yield Calls(echo=bench.echo, large=bench.large)


ADAPTERS = (
    trio_adapter(
        "trio_rpc-forwarded",
        "trio_rpc over a channel forwarded over TCP",
        "transports",
        serve=_serve,
        open_client=_open_client,
    ),
)
