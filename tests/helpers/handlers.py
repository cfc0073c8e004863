"""Services that the tests of sessions call."""

from __future__ import annotations

import math

import trio

import trio_rpc


class Echo:
    @trio_rpc.method
    async def echo(self, value):
        return value

    @trio_rpc.method
    def inline(self, value):
        return value


class Screen:
    """A service that a handler of the other end calls back."""

    def __init__(self):
        self.lines = []

    @trio_rpc.method
    async def show(self, text: str) -> None:
        self.lines.append(text)


class Sleeper:
    """Handlers that run until ``go`` is set, and record how they ended."""

    def __init__(self):
        self.started = 0
        self.running = 0
        self.most = 0
        self.ended = []
        self.reasons = []
        self.go = trio.Event()

    @trio_rpc.method
    async def sleep(self, label="sleep", clean_up=0.0):
        self.started += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.go.wait()
        except trio.Cancelled as exc:
            self.reasons.append(exc.reason)
            with trio.CancelScope(shield=True):
                await trio.sleep(clean_up)
            self.ended.append((label, "cancelled", trio.current_time()))
            raise
        else:
            self.ended.append((label, "done", trio.current_time()))
        finally:
            self.running -= 1
        return label

    @trio_rpc.method
    async def stubborn(self, seconds):
        """Ignore cancellation for a while."""
        self.started += 1
        with trio.CancelScope(shield=True):
            await trio.sleep(seconds)
        return "stubborn"


class Clock:
    @trio_rpc.method
    async def seconds_left(self):
        left = trio.current_effective_deadline() - trio.current_time()
        return None if left == math.inf else left


def service(function, **marks):
    """Make a service of one function, which gets no ``self``."""

    async def call(self, *args):
        return await function(*args)

    call.__name__ = function.__name__.strip("_")
    call.__qualname__ = call.__name__
    decorated = trio_rpc.method(**marks)(call)
    return type("OneMethod", (), {call.__name__: decorated})()
