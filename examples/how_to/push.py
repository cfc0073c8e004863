import contextlib
from collections.abc import Iterable

import trio
import trio_rpc


class Board:
    """The server's service: it returns the last text to a client that has just connected."""

    text = "welcome"

    @trio_rpc.method
    async def last(self) -> str:
        return self.text


class Screen:
    """The service of each client: the server pushes texts to it."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.is_done = trio.Event()

    @trio_rpc.notification
    async def show(self, text: str) -> None:
        self.shown.append(text)
        if text == "closing time":
            self.is_done.set()


async def push(sessions: Iterable[trio_rpc.Session], text: str) -> None:
    """Show a text on the screens of all clients."""

    async def push_to(session: trio_rpc.Session) -> None:
        # Skip a client that reads too slowly, or that has just left.
        with trio.move_on_after(1), contextlib.suppress(trio_rpc.RpcError):
            await session.proxy("screen", Screen).show(text)

    async with trio.open_nursery() as nursery:
        for session in tuple(sessions):
            nursery.start_soon(push_to, session)


async def client(url: str, screen: Screen, *, task_status: trio.TaskStatus[None]) -> None:
    async with trio_rpc.connect(url, {"screen": screen}) as session:
        screen.shown.append(await session.proxy("board", Board).last())
        task_status.started()
        await screen.is_done.wait()


async def main() -> None:
    board, ann, bob = Board(), Screen(), Screen()

    async def tell_all(text: str) -> None:
        board.text = text
        await push(server.sessions, text)

    async with (
        trio_rpc.open_server({"board": board}, "tcp://127.0.0.1:0") as server,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(client, server.urls[0], ann)
        await tell_all("lunch is ready")
        await nursery.start(client, server.urls[0], bob)
        await tell_all("closing time")
    print("ann saw", ann.shown)
    print("bob saw", bob.shown)


if __name__ == "__main__":
    trio.run(main)
