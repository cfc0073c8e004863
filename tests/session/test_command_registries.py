"""The samples of the layered design: registries of commands at both ends, and a plugin server."""

from __future__ import annotations

import pytest
import trio
from helpers.forwarding_pairs import open_forwarding_pair

import trio_rpc
from trio_rpc import Session, open_session, serve_session


class CommandRegistry:
    """The commands of one end. A command that it does not have is executed by the other end."""

    def __init__(self, session: Session, other: str) -> None:
        self.proxy = session.proxy(other, CommandRegistry)
        self.commands: dict[str, str] = {}
        self.executed: list[str] = []

    @trio_rpc.method
    async def register_command(self, name: str, text: str) -> None:
        self.commands[name] = text

    @trio_rpc.method
    async def execute_command(self, name: str) -> str:
        self.executed.append(name)
        if name in self.commands:
            return self.commands[name]
        return await self.proxy.execute_command(name)


class Logger:
    def __init__(self) -> None:
        self.lines: list[str] = []

    @trio_rpc.method
    async def info(self, line: str) -> dict[str, str]:
        self.lines.append(line)
        return {"content": line}

    @trio_rpc.notification
    async def debug(self, line: str) -> None:
        self.lines.append(f"debug: {line}")


async def test_command_registries_at_both_ends_call_each_other(session_pair, no_time):
    """The TypeScript program of the second original design runs with this library.

    One session serves many local services and many remote ones. Both ends use it in the same
    way. A request finds its service and its method, and an unknown one is an error reply.
    """
    made = {}

    def services(own: str, other: str):
        def make(session: Session) -> dict[str, object]:
            made[own] = {own: CommandRegistry(session, other), f"{own}_logger": Logger()}
            return made[own]

        return make

    async with session_pair(services("main", "ext"), services("ext", "main")) as (main, ext):
        await ext.proxy("main", CommandRegistry).register_command("open", "main opens")
        await main.proxy("ext", CommandRegistry).register_command("format", "ext formats")
        assert await main.proxy("ext", CommandRegistry).execute_command("open") == "main opens"
        assert await ext.proxy("main", CommandRegistry).execute_command("format") == "ext formats"
        assert made["main"]["main"].executed == made["ext"]["ext"].executed == ["open", "format"]
        for session, other in ((main, "ext"), (ext, "main")):
            logger = session.proxy(f"{other}_logger", Logger)
            assert await logger.info("app start") == {"content": "app start"}
            await logger.debug("app")
            await session.ping()
            assert made[other][f"{other}_logger"].lines == ["app start", "debug: app"]
            with pytest.raises(trio_rpc.MethodNotFound, match="'nothing'"):
                await session.call("nothing.info", "app start")


class PluginClient:
    def __init__(self) -> None:
        self.changes: list[str] = []

    @trio_rpc.method
    async def on_change(self, plugin: str) -> int:
        self.changes.append(plugin)
        return len(self.changes)


class PluginServer:
    def __init__(self, client: PluginClient) -> None:
        self.client = client

    @trio_rpc.method
    async def install(self, plugin: str) -> str:
        return f"{plugin} was installed as number {await self.client.on_change(plugin)}"


async def test_the_plugin_server_and_its_client_have_a_channel_of_their_own_by_path(no_time):
    """One service at each end, over the channel of a path; other paths are other services.

    The server's object is made from the proxy of its client, and can call it.
    """

    async def on_connection(channel: trio.abc.Channel[bytes]) -> None:
        await serve_session(channel, lambda session: PluginServer(session.proxy("", PluginClient)))

    routes = {"services/plugin-server": on_connection}
    async with open_forwarding_pair(None, routes) as (forwarding, _):
        clients = PluginClient(), PluginClient()
        for client in clients:
            channel = await forwarding.open("services/plugin-server")
            async with open_session(channel, client) as session:
                server = session.proxy("", PluginServer)
                assert await server.install("git") == "git was installed as number 1"
        assert [client.changes for client in clients] == [["git"], ["git"]]
        with pytest.raises(trio_rpc.Refused, match="no-such-path"):
            await forwarding.open("services/no-such-path")
