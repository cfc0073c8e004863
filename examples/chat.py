"""A chat room. Each client offers a method, and the server calls it for each line.

Serve it:  uv run trio-rpc serve examples.chat:services --listen tcp://127.0.0.1:5000
Join it:   uv run python -m examples.chat tcp://127.0.0.1:5000 ann
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import trio
import trio_rpc


class Member:
    """The service that a client offers."""

    @trio_rpc.notification
    async def hear(self, who: str, line: str) -> None:
        """Print a line of another member."""
        print(f"{who}: {line}")


class Room:
    """The room: one object for all sessions. Its members are the sessions that have joined."""

    def __init__(self) -> None:
        self._members: dict[trio_rpc.Session, str] = {}

    @trio_rpc.method
    async def join(self, name: str) -> None:
        """Stay in the room until this call is cancelled or the session ends."""
        session = trio_rpc.current_call().session
        self._members[session] = name
        try:
            await self._tell_all("room", f"{name} has joined")
            await trio.sleep_forever()
        finally:
            del self._members[session]

    @trio_rpc.method
    async def say(self, line: str) -> int:
        """Send a line to all members; return how many have received it."""
        who = self._members.get(trio_rpc.current_call().session, "somebody")
        return await self._tell_all(who, line)

    async def _tell_all(self, who: str, line: str) -> int:
        reached = 0
        for session in tuple(self._members):
            with trio.move_on_after(1) as scope:  # a slow member delays the others by 1 s at most
                try:
                    await session.proxy("member", Member).hear(who, line)
                except trio_rpc.RpcError:
                    continue
            reached += not scope.cancelled_caught
        return reached


services = {"room": Room()}


async def main(url: str, name: str, lines: AsyncIterator[str]) -> None:
    async with (
        trio_rpc.connect(url, {"member": Member()}) as session,
        trio.open_nursery() as nursery,
    ):
        room = session.proxy("room", Room)
        nursery.start_soon(room.join, name)
        async for line in lines:
            await room.say(line.rstrip())
        nursery.cancel_scope.cancel()  # leave the room: this also cancels join()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:3], trio.wrap_file(sys.stdin))
