"""pyzmq with MessagePack: a DEALER at each client and a ROUTER at the server, both on asyncio.

Such an RPC is made by hand, as ZeroMQ has sockets and messages but no calls: a reader at the client
resolves the future of each reply by its number, and the server answers each request in its order,
without a task. Dataclasses travel as dicts. Bytes are sent without a copy, and large ones as one part.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgpack
import zmq
import zmq.asyncio

from benchmarks.adapter import peer
from benchmarks.interface import Calls, Ready
from benchmarks.loops import ASYNCIO
from benchmarks.payloads import Order, Quote, plain

__all__ = ["ADAPTERS"]

UNLIMITED = 0


async def echo(value: Any) -> Any:
    return value


async def echo_quote(value: dict[str, Any]) -> dict[str, Any]:
    quote = Quote(**value)
    return plain(quote)


async def echo_orders(value: list[dict[str, Any]]) -> list[dict[str, Any]]:
    orders = [Order(**one) for one in value]
    return [plain(one) for one in orders]


METHODS = {"echo": echo, "quote": echo_quote, "orders": echo_orders}


async def serve(hosts: Sequence[str], ready: Ready) -> None:
    context = zmq.asyncio.Context()
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.SNDHWM, UNLIMITED)
    router.setsockopt(zmq.RCVHWM, UNLIMITED)
    router.setsockopt(zmq.BACKLOG, 1024)
    context.set(zmq.MAX_SOCKETS, 20_000)
    urls = []
    for host in hosts:
        router.bind(f"tcp://{host}:*")
        urls.append(router.last_endpoint.decode())
    ready(urls)
    pack = msgpack.Packer().pack
    while True:
        client, request = await router.recv_multipart(copy=False)
        number, method, arguments = msgpack.unpackb(request.buffer)
        reply = [number, await METHODS[method](*arguments)]
        await router.send_multipart([client, pack(reply)], copy=False)


@asynccontextmanager
async def open_client(url: str) -> AsyncGenerator[Calls]:
    dealer = zmq.asyncio.Context.instance().socket(zmq.DEALER)
    dealer.setsockopt(zmq.SNDHWM, UNLIMITED)
    dealer.setsockopt(zmq.RCVHWM, UNLIMITED)
    dealer.setsockopt(zmq.LINGER, 0)
    dealer.connect(url)
    loop = asyncio.get_running_loop()
    pack = msgpack.Packer().pack
    waiting: dict[int, asyncio.Future[Any]] = {}
    number = 0

    async def read() -> None:
        while True:
            reply = await dealer.recv(copy=False)
            answered, result = msgpack.unpackb(reply.buffer)
            waiting.pop(answered).set_result(result)

    async def call(method: str, value: Any) -> Any:
        nonlocal number
        number += 1
        waiting[number] = reply = loop.create_future()
        await dealer.send(pack([number, method, [value]]), copy=False)
        return await reply

    async def echo(value: Any) -> Any:
        return await call("echo", value)

    async def quote(value: Quote) -> Quote:
        return Quote(**await call("quote", plain(value)))

    async def orders(value: list[Order]) -> list[Order]:
        return [Order(**one) for one in await call("orders", [plain(one) for one in value])]

    reading = asyncio.create_task(read())
    try:
        yield Calls(echo=echo, large=echo, value=echo, quote=quote, orders=orders)
    finally:
        reading.cancel()
        await asyncio.wait([reading])
        dealer.close()


ADAPTERS = (
    peer(
        ASYNCIO,
        "pyzmq",
        "pyzmq and msgpack (asyncio)",
        "one structures flights sizes connect beside",
        not_cancelled=True,
        lacks={"sessions": "no sessions: one socket serves all"},
        serve=serve,
        open_client=open_client,
    ),
)
