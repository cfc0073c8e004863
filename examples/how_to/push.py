import contextlib
from collections.abc import Collection

import trio
import trio_rpc


class Board:
    """The server's service: it returns the last text to a new client, and pushes new texts."""

    def __init__(self) -> None:
        self.text = "welcome"
        self.sessions: Collection[trio_rpc.Session] = ()

    @trio_rpc.method
    async def last(self) -> str:
        return self.text

    @trio_rpc.method
    async def post(self, text: str) -> None:
        self.text = text
        await push(self.sessions, text)


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


async def push(sessions: Collection[trio_rpc.Session], text: str) -> None:
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
    async with (
        trio_rpc.open_server({"board": board}, "tcp://127.0.0.1:0") as server,
        trio.open_nursery() as nursery,
    ):
        board.sessions = server.sessions  # from here on it has all sessions of the server
        await nursery.start(client, server.urls[0], ann)
        await board.post("lunch is ready")
        await nursery.start(client, server.urls[0], bob)
        await board.post("closing time")
    print("ann saw", ann.shown)
    print("bob saw", bob.shown)


if __name__ == "__main__":
    trio.run(main)
