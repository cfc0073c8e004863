"""The shared knowledge of the two processes: their interfaces, and the names of their services."""

from __future__ import annotations

import trio_rpc


class UnknownCommand(Exception):
    """No process has registered this command."""


class MainCommands:
    """The command registry of the main process, as extensions see it."""

    @trio_rpc.method
    async def register(self, command: str) -> None:
        """Offer a command of this extension to everyone."""
        raise NotImplementedError

    @trio_rpc.method(raises=(UnknownCommand,))
    async def run(self, command: str, text: str) -> str:
        """Run a command, of the main process or of any extension."""
        raise NotImplementedError


class ExtensionCommands:
    """The command registry of an extension, as the main process sees it."""

    @trio_rpc.method(raises=(UnknownCommand,))
    async def run(self, command: str, text: str) -> str:
        """Run a command of this extension."""
        raise NotImplementedError


class Main:
    """The services of the main process."""

    commands = trio_rpc.Identifier("commands", MainCommands)


class Extension:
    """The services of an extension."""

    commands = trio_rpc.Identifier("commands", ExtensionCommands)
