"""The extension process: registers its commands with the main process, and serves them."""

from __future__ import annotations

import os

import trio
import trio_rpc

from examples.registry.commands import (
    Extension,
    ExtensionCommands,
    Main,
    MainCommands,
    UnknownCommand,
)


class ExtensionRegistry(ExtensionCommands):
    """Runs the commands of this extension, which may run commands of the main process."""

    names = ("text.shout", "text.frame", "text.crash")

    def __init__(self, main: MainCommands) -> None:
        self.main = main

    async def run(self, command: str, text: str) -> str:
        match command:
            case "text.shout":
                return text.upper() + await self.main.run("settings.get", "mark")
            case "text.frame":  # main -> extension -> main -> extension -> main
                return f"[ {await self.main.run('text.shout', text)} ]"
            case "text.crash":
                os._exit(3)
            case _:
                raise UnknownCommand(command)


async def main() -> None:
    def services(session: trio_rpc.Session) -> object:
        return {Extension.commands: ExtensionRegistry(session.proxy(Main.commands))}

    async with trio_rpc.open_parent(services, on_end="keep") as session:
        commands = session.proxy(Main.commands)
        for name in ExtensionRegistry.names:
            await commands.register(name)
        await session.wait_closed()


if __name__ == "__main__":
    trio.run(main)
