from dataclasses import dataclass

import trio
import trio_rpc


class NameTaken(Exception):
    """Another member of the room already has this name."""


@dataclass
class Member:
    outbox: trio.MemorySendChannel[str]
    scope: trio.CancelScope

    def send(self, line: str) -> None:
        try:
            self.outbox.send_nowait(line)
        except trio.WouldBlock:
            self.scope.cancel()  # 100 lines behind: the member leaves the room


class Chat:
    def __init__(self) -> None:
        self._rooms: dict[str, dict[str, Member]] = {}

    @trio_rpc.duplex(raises=(NameTaken,))
    async def join(self, channel: trio.abc.Channel[str], room: str, name: str) -> None:
        """Exchange lines with the other members of a room."""
        members = self._rooms.setdefault(room, {})
        if name in members:
            raise NameTaken(name)
        outbox, lines = trio.open_memory_channel[str](100)
        async with trio.open_nursery() as nursery:
            members[name] = Member(outbox, nursery.cancel_scope)
            nursery.start_soon(deliver, lines, channel)
            try:
                tell(members, f"{name} has joined")
                async for line in channel:
                    tell(members, f"{name}: {line}", but=name)
                    await trio.sleep(0.01)  # so that a pasted text fills no outbox
                nursery.cancel_scope.cancel()
            finally:
                del members[name]
                tell(members, f"{name} has left")


def tell(members: dict[str, Member], line: str, but: str = "") -> None:
    for name, member in members.items():
        if name != but:
            member.send(line)


async def deliver(lines: trio.MemoryReceiveChannel[str], channel: trio.abc.Channel[str]) -> None:
    async for line in lines:
        await channel.send(line)


async def main() -> None:
    async with trio_rpc.open_server({"chat": Chat()}, "tcp://127.0.0.1:5003") as server:
        print("listening at", *server.urls, flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
