"""Instances of a service in memory, which drain, break, freeze and reconnect, for tests of pools."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator

import trio

import trio_rpc
from trio_rpc.channels.connection import Connection
from trio_rpc.server import Server
from trio_rpc.session.opening import make_tables
from trio_rpc.session.options import Options
from trio_rpc.testing import open_faulty_pair


class _Connection(Connection):
    def __init__(self, channel):
        super().__init__("a client in memory")
        self._channel = channel

    @contextlib.asynccontextmanager
    async def prepared(self):
        yield self._channel

    async def aclose(self):
        await self._channel.aclose()


class _Listener:
    url = "memory://"

    def __init__(self):
        self.send, self._receive = trio.open_memory_channel(1000)

    async def accept(self):
        return await self._receive.receive()

    async def aclose(self):
        self.send.close()


class FakeInstance:
    """A server in memory that a pool can open sessions with.

    ``runs`` counts how often a handler began for each key. ``links`` are the connections so far.
    """

    def __init__(self, name: str, **options):
        self.name = name
        self.runs: dict[object, int] = {}
        self.links = []
        self.attempts = 0
        self.server: Server | None = None
        self.places = options.pop("server_limits", trio_rpc.ServerLimits())
        self.age = options.pop("max_session_age", math.inf)
        self.services = options.pop("services", self)
        self.options = options
        self.go = trio.Event()
        """``wait`` returns when this is set."""
        self.begun = trio.Event()
        """Set when ``wait`` has begun."""
        self._listener: _Listener | None = None
        self._stop = trio.CancelScope()

    @property
    def instance(self) -> trio_rpc.Instance:
        return trio_rpc.Instance(self.name, self._open)

    # ── as a service ─────────────────────────────────────────────────────────────────────────

    def _ran(self, key):
        self.runs[key] = self.runs.get(key, 0) + 1

    @trio_rpc.method
    async def where(self, key: str = "") -> str:
        self._ran(key)
        return self.name

    @trio_rpc.method
    async def wait(self, key: str = "") -> str:
        self._ran(key)
        self.begun.set()
        await self.go.wait()
        return self.name

    @trio_rpc.method(idempotent=True)
    async def wait_again(self, key: str = "") -> str:
        return await self.wait(key)

    @trio_rpc.method
    async def sleep(self, seconds: float, key: str = "") -> str:
        self._ran(key)
        await trio.sleep(seconds)
        return self.name

    @trio_rpc.method
    async def fail(self) -> None:
        raise ValueError("no")

    @trio_rpc.notification
    async def note(self, key: str) -> None:
        self._ran(key)

    @trio_rpc.stream
    async def count(self, end: int):
        for number in range(end):
            yield number
        await self.go.wait()

    @trio_rpc.duplex
    async def echo(self, channel: trio.abc.Channel[str]) -> None:
        async for item in channel:
            await channel.send(item)

    @trio_rpc.method
    async def task(self, *, task_status=trio.TASK_STATUS_IGNORED) -> None:
        task_status.started(self.name)
        await self.go.wait()

    @trio_rpc.method
    async def add_up(self, numbers) -> int:
        return sum([number async for number in numbers])

    # ── as a server ──────────────────────────────────────────────────────────────────────────

    async def serve(self, *, task_status=trio.TASK_STATUS_IGNORED) -> None:
        """Serve until :meth:`stop` or the end of :meth:`drain`."""
        self._listener = _Listener()
        self.server = Server(
            [self._listener],
            make_tables(self.services),
            Options(**self.options),
            None,
            self.places,
            max_session_age=self.age,
        )
        with trio.CancelScope() as self._stop:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.server._run, nursery)
                task_status.started()
                await trio.sleep_forever()
        self._listener = None

    async def drain(self, **options) -> None:
        """Drain, and then stop serving."""
        await self.server.drain(**options)
        self.stop()

    def stop(self) -> None:
        """Stop serving at once; sessions get a Goodbye."""
        self._stop.cancel()

    def kill(self) -> None:
        """Cut all connections, and stop serving."""
        for link in self.links:
            link.cut()
        self.stop()

    @contextlib.asynccontextmanager
    async def _open(self, limits) -> AsyncIterator[trio.abc.Channel[bytes]]:
        self.attempts += 1
        await trio.lowlevel.checkpoint()
        async with open_faulty_pair(limits=limits) as pair:
            try:
                if self._listener is None:
                    raise ConnectionRefusedError(f"{self.name} is not there")
                await self._listener.send.send(_Connection(pair.second))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise ConnectionRefusedError(f"{self.name} does not listen") from None
            self.links.append(pair.link)
            yield pair.first


async def told(*collections, forever: bool = True):
    """Tell these collections of instances, one after the other."""
    for collection in collections:
        yield collection
    if forever:
        await trio.sleep_forever()
