"""The main process: it keeps a process for each plugin, and lets pages use them."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence

import trio
import trio_rpc

from examples.workbench.interface import Outcome, Plugin, PluginStatus, Window

RESTART = trio_rpc.Restart(times=3, within=60)
LIMITS = trio_rpc.Limits(
    handshake_timeout=60,  # seconds that a plugin may take to start
    keepalive_interval=5,  # a plugin that hangs is given up after 15 s of silence
    keepalive_pings=2,
    cancel_grace=3,  # seconds until a command that does not stop is abandoned
)
PLUGINS = {
    name: [sys.executable, "-m", f"examples.workbench.plugins.{name}"]
    for name in ("files", "primes", "fragile")
}


class PluginLost(Exception):
    """The process of the plugin has ended, or was never started."""


class Changes:
    """Lets tasks wait for the next change."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def announce(self) -> None:
        self._event.set()
        self._event = trio.Event()

    async def wait(self) -> None:
        await self._event.wait()


class Host:
    """Keeps one plugin, whose process is started again when it ends.

    Args:
        name: the name of the plugin.
        command: starts its process.
        changes: is told of each change of the status.
    """

    def __init__(self, name: str, command: Sequence[str], changes: Changes) -> None:
        self.status = PluginStatus(name)
        self._command = command
        self._changes = changes
        self._kept: trio_rpc.KeptProcess[Plugin] | None = None
        self._wanted = trio.Event()

    async def keep(self) -> None:
        """Keep the plugin. When it has ended too often, wait until a page wants it again."""
        while True:
            self._wanted = trio.Event()
            self._set(state="starting")
            try:
                async with trio_rpc.keep_process(
                    self._command, Plugin, restart=RESTART, name=self.status.name, limits=LIMITS
                ) as self._kept:
                    async for state in self._kept.states():
                        await self._follow(self._kept, state)
            except (OSError, trio_rpc.RpcError) as exc:
                self._set(state="failed", pid=None, last_end=str(exc))
            self._kept = None
            await self._wanted.wait()

    async def _follow(
        self, kept: trio_rpc.KeptProcess[Plugin], state: trio_rpc.ProcessState
    ) -> None:
        if state.end is not None:
            self._set(last_end=str(state.end.cause or state.end.reason))
        if state.kind == "restarting":
            self._set(restarts=self.status.restarts + 1)
        session = kept.session
        self._set(state=state.kind, pid=None if session is None else session.peer.pid)
        if session is not None:
            with contextlib.suppress(trio_rpc.SessionBroken):  # the next state says why
                self._set(commands=await session.proxy("", Plugin).commands())

    async def run(self, command: str, argument: str, window: Window) -> Outcome:
        """Run a command in the plugin. While it is being started again, this waits."""
        name = self.status.name
        if self._kept is None:
            raise PluginLost(f"{name} is not running: start it first")
        with self._counted():
            try:
                return await self._kept.proxy.run(command, argument, window)
            except trio_rpc.SessionBroken as exc:
                raise PluginLost(f"{name} was lost: {exc.__cause__ or exc}") from exc

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self._set(running=self.status.running + 1)
        try:
            yield
        finally:
            self._set(running=self.status.running - 1)

    def kill(self) -> None:
        """Kill the process, as the system does when there is no memory."""
        if self.status.pid is not None:
            os.kill(self.status.pid, signal.SIGKILL)

    def start(self) -> None:
        """Start the plugin after it has failed."""
        self._wanted.set()

    def _set(self, **changes: object) -> None:
        for name, value in changes.items():
            setattr(self.status, name, value)
        self._changes.announce()


class Workbench:
    """The service of the main process, which all pages call."""

    def __init__(self, plugins: Mapping[str, Sequence[str]] = PLUGINS) -> None:
        self._changes = Changes()
        self._hosts = {
            name: Host(name, command, self._changes) for name, command in plugins.items()
        }

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep all plugins for the time of a block."""
        async with trio.open_nursery() as nursery:
            for host in self._hosts.values():
                nursery.start_soon(host.keep)
            yield
            nursery.cancel_scope.cancel()

    @trio_rpc.stream
    async def plugins(self) -> AsyncGenerator[list[PluginStatus], None]:
        """Yield the facts of all plugins, now and after each change."""
        while True:
            yield [host.status for host in self._hosts.values()]
            await self._changes.wait()

    @trio_rpc.method(raises=(ValueError, PluginLost, trio_rpc.RemoteCancelled))
    async def run(self, plugin: str, command: str, argument: str, window: Window) -> Outcome:
        """Run a command of a plugin. The plugin calls the functions of the page's window."""
        return await self._host(plugin).run(command, argument, window)

    @trio_rpc.method(raises=(ValueError,))
    async def kill(self, plugin: str) -> None:
        """Kill the process of a plugin."""
        self._host(plugin).kill()

    @trio_rpc.method(raises=(ValueError,))
    async def start(self, plugin: str) -> None:
        """Start a plugin again that has failed."""
        self._host(plugin).start()

    def _host(self, plugin: str) -> Host:
        if plugin not in self._hosts:
            raise ValueError(f"there is no plugin {plugin!r}")
        return self._hosts[plugin]
