"""The floor of many calls without tasks: all requests of a packet are answered in one packet.

The client is that of the nursery floor. The server has one task for each connection.
"""

from __future__ import annotations

from typing import Any

import msgpack
import trio

from benchmarks.adapter import trio_adapter
from benchmarks.adapters.floor_nursery import Caller
from benchmarks.adapters.floor_wire import Packets, packed, serve_streams

__all__ = ["ADAPTERS"]


def echo(value: Any) -> Any:
    return value


METHODS = {"bench.echo": echo}


async def handle(stream: trio.SocketStream) -> None:
    packets = Packets()
    packer = msgpack.Packer(autoreset=False)
    while data := await stream.receive_some():
        for message in packets.feed(data):
            packer.pack([3, message[1], METHODS[message[2]](*message[3])])
        if body := packer.bytes():
            packer.reset()
            await stream.send_all(packed(body))


ADAPTERS = (
    trio_adapter(
        "inline",
        "floor: answered inline, no task",
        "one flights",
        serve=serve_streams(handle),
        open_client=Caller.open,
    ),
)
