"""A host that gives each client a plugin of its own: python bridge.py"""

from __future__ import annotations

import sys
from pathlib import Path

import trio
import trio_rpc
from trio_rpc import channels

from interface import Plugin, Settings

COMMAND = [sys.executable, str(Path(__file__).parent / "shout.py")]


async def serve_one(listener: channels.ChannelListener) -> None:
    connection = await listener.accept()
    async with (
        connection.prepared() as client,
        channels.open_process_channel(COMMAND, name="shout") as plugin,
    ):
        await channels.relay(client, plugin)


async def progress(share: float) -> None:
    print(f"{share:.0%}")


async def main() -> None:
    [listener] = await channels.open_listeners("tcp://127.0.0.1:0")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_one, listener)
        limits = trio_rpc.Limits(handshake_timeout=60)  # seconds that the plugin may take to start
        async with trio_rpc.connect(
            listener.url, {"settings": Settings()}, limits=limits
        ) as session:
            print(await session.proxy("", Plugin).render("hello", progress))
    await listener.aclose()


if __name__ == "__main__":
    trio.run(main)
