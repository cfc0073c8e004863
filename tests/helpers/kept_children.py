"""Child processes that exist in memory only, for tests of the policy that restarts them."""

from __future__ import annotations

import contextlib

import trio
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from helpers.handlers import Screen
from trio_rpc.channels.connection import close_forcefully
from trio_rpc.one_to_one.kept_process import keep_open
from trio_rpc.testing import memory_channel_pair


class Plugin:
    """The service of a child."""

    def __init__(self, number=0):
        self.number = number
        self.waiting = trio.Event()
        self.go = trio.Event()

    @trio_rpc.method
    async def number_of(self) -> int:
        return self.number

    @trio_rpc.method
    async def wait(self) -> int:
        self.waiting.set()
        await self.go.wait()
        return self.number

    @trio_rpc.method
    async def show(self, text: str) -> None:
        await trio_rpc.current_call().session.proxy("", Screen).show(text)


class Child:
    """One child process; it serves until a test ends it."""

    def __init__(self, number, channel):
        self.plugin = Plugin(number)
        self.serving = trio.Event()
        self._channel = channel
        self._session = None

    async def serve(self):
        async with trio_rpc.open_session(self._channel, self.plugin, on_end="keep") as session:
            self._session = session
            self.serving.set()
            await session.wait_closed()

    async def crash(self):
        """End the process, and wait until its parent has noticed that."""
        await self._channel.aclose()
        await wait_all_tasks_blocked()

    async def leave(self, reason=""):
        await self._session.aclose(reason=reason)


class Program:
    """A program that can be started any number of times.

    Attributes:
        children: the processes so far.
        times: the times when they were started.
        running: the number of processes that have not been reaped.
        most: the largest number of them at once.
        before_serving: called with the channel of each process, which serves if it returns True.
        error: a copy of it is raised in place of a start, if it is not None.
    """

    def __init__(self, nursery, before_serving=None):
        self.children = []
        self.times = []
        self.running = self.most = 0
        self.before_serving = before_serving
        self.error = None
        self._nursery = nursery

    @contextlib.asynccontextmanager
    async def start(self):
        await trio.lowlevel.checkpoint()
        if self.error is not None:
            raise type(self.error)(*self.error.args)
        ours, theirs = memory_channel_pair()
        ours.name = f"child {len(self.children)}"
        child = Child(len(self.children), theirs)
        self.children.append(child)
        self.times.append(trio.current_time())
        self.running += 1
        self.most = max(self.most, self.running)
        self._nursery.start_soon(self._run, child, theirs)
        try:
            yield ours
        finally:
            await close_forcefully(ours)
            self.running -= 1

    async def _run(self, child, channel):
        if self.before_serving is None or await self.before_serving(channel):
            await child.serve()

    def kept(self, interface=Plugin, target=None, *, restart=None, max_waiting=1024, **options):
        """Keep a process of this program, as keep_process does."""
        client = trio_rpc.ServiceClient(
            interface, target, max_waiting=max_waiting, grace=float("inf"), **options
        )
        return keep_open(self.start, client, restart or trio_rpc.Restart())


async def crash_at_once(channel):
    """End a process before it serves."""
    await channel.aclose()
    return False
