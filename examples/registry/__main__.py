"""The main process: starts the extension, runs commands, and starts it again after a crash."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable

import trio
import trio_rpc

from examples.registry.commands import (
    Extension,
    ExtensionCommands,
    Main,
    MainCommands,
    UnknownCommand,
)

COMMAND = [sys.executable, "-m", "examples.registry.extension"]
LIMITS = trio_rpc.Limits(handshake_timeout=60)  # seconds that an extension may take to start


class Registry:
    """All commands: the main process's own, and the registered commands of extensions."""

    def __init__(self) -> None:
        self.settings = {"mark": "!"}
        self.own: dict[str, Callable[[str], str]] = {"settings.get": self.settings.__getitem__}
        self.extensions: dict[str, ExtensionCommands] = {}
        self.registered = trio.Condition()

    async def run(self, command: str, text: str) -> str:
        if command in self.own:
            return self.own[command](text)
        if command in self.extensions:
            return await self.extensions[command].run(command, text)
        raise UnknownCommand(command)

    async def add(self, command: str, extension: ExtensionCommands) -> None:
        async with self.registered:
            self.extensions[command] = extension
            self.registered.notify_all()

    async def wait_for(self, command: str) -> None:
        async with self.registered:
            while command not in self.extensions:
                await self.registered.wait()


class MainRegistry(MainCommands):
    """The registry as one extension sees it: it knows whose commands are registered."""

    def __init__(self, registry: Registry, extension: ExtensionCommands) -> None:
        self.registry = registry
        self.extension = extension

    async def register(self, command: str) -> None:
        await self.registry.add(command, self.extension)

    async def run(self, command: str, text: str) -> str:
        return await self.registry.run(command, text)


async def with_extension(registry: Registry, work: Callable[[], Awaitable[None]]) -> None:
    """Run an extension process while ``work`` runs."""

    def services(session: trio_rpc.Session) -> object:
        return {Main.commands: MainRegistry(registry, session.proxy(Extension.commands))}

    try:
        async with trio_rpc.open_process(COMMAND, services, name="text", limits=LIMITS):
            await registry.wait_for("text.crash")
            await work()
    finally:
        registry.extensions.clear()  # its commands have ended with it


async def main() -> None:
    registry = Registry()

    async def crash() -> None:
        print("shout:", await registry.run("text.shout", "hello"))
        print("frame:", await registry.run("text.frame", "hello"))
        await registry.run("text.crash", "")

    async def shout() -> None:
        print("shout:", await registry.run("text.shout", "here again"))

    try:
        await with_extension(registry, crash)
    except trio_rpc.SessionBroken as exc:
        cause = str(exc.__cause__).partition(" ended ")[2]
        print(f"the extension ended {cause}; whether the command ran is {exc.fate.value}")
    try:
        await registry.run("text.shout", "hello")
    except UnknownCommand as exc:
        print("unknown command:", exc)
    await with_extension(registry, shout)


if __name__ == "__main__":
    trio.run(main)
