"""Shared code of the tests of traces: a service, and the steps that a trace has seen."""

from __future__ import annotations

import trio

import trio_rpc

ALL = list(range(1, 20))
CALLER = [*range(1, 6), *range(15, 20)]
CALLEE = list(range(6, 15))


class Logger:
    def __init__(self):
        self.lines = []

    @trio_rpc.method
    async def info(self, line: str) -> None:
        self.lines.append(line)

    @trio_rpc.method
    def plain(self, line: str) -> None:
        self.lines.append(line)

    @trio_rpc.method
    async def slow(self) -> str:
        await trio.sleep(1)
        return "done"

    @trio_rpc.method
    async def fails(self) -> None:
        raise ValueError("a test's own")

    @trio_rpc.method
    async def hangs(self) -> None:
        await trio.sleep_forever()

    @trio_rpc.notification
    async def note(self, line: str) -> None:
        self.lines.append(line)

    @trio_rpc.stream
    async def lines_so_far(self):
        for line in ("one", "two"):
            yield line

    @trio_rpc.duplex
    async def talk(self, channel: trio.abc.Channel[str]) -> None:
        await channel.send(await channel.receive())

    @trio_rpc.method
    async def with_callback(self, callback) -> str:
        return await callback("hello")

    @trio_rpc.method
    async def large(self, content: bytes) -> bytes:
        return content


class Messages:
    """A trace that keeps the messages, and ignores the steps."""

    def __init__(self):
        self.seen = []

    def __call__(self, event):
        pass

    def on_message(self, event):
        self.seen.append(event)


def both(trace):
    return {"options_a": {"trace": trace}, "options_b": {"trace": trace}}


def steps(events, method=None, **fields):
    return [
        event.step
        for event in events
        if (method is None or event.method == method)
        and all(getattr(event, name) == value for name, value in fields.items())
    ]
