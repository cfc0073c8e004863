import sys

import trio
import trio_rpc

from rooms import Chat, NameTaken


async def show(channel: trio.abc.Channel[str]) -> None:
    async for line in channel:
        print(line, flush=True)


async def main(room: str, name: str) -> None:
    async with (
        trio_rpc.connect("tcp://127.0.0.1:5000") as session,
        session.proxy("chat", Chat).join(room, name) as channel,
    ):
        print(await channel.receive(), flush=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(show, channel)
            async for line in trio.wrap_file(sys.stdin):
                await channel.send(line.rstrip())
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    try:
        trio.run(main, sys.argv[1], sys.argv[2])
    except NameTaken as exc:
        sys.exit(f"the name {exc} is taken")
