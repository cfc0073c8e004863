import sys

import trio
import trio_rpc

from rooms import Chat, NameTaken


async def show(channel: trio.abc.Channel[str]) -> None:
    async for line in channel:
        print(line, flush=True)


async def read_line() -> str:
    """Read a line, or "" at the end of the input; when cancelled, do not wait for Enter."""
    return await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)


async def main(room: str, name: str) -> None:
    async with (
        trio_rpc.connect("tcp://127.0.0.1:5003") as session,
        session.proxy("chat", Chat).join(room, name) as channel,
    ):
        print(await channel.receive(), flush=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(show, channel)
            while line := await read_line():
                await channel.send(line.rstrip())
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    problem = None
    try:
        trio.run(main, sys.argv[1], sys.argv[2])
    except* NameTaken:
        problem = f"the name {sys.argv[2]} is taken"
    except* (trio_rpc.SessionBroken, trio_rpc.RemoteCancelled):
        problem = "the server has stopped"
    except* KeyboardInterrupt:
        pass
    sys.exit(problem)
