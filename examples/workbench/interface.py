"""The interfaces of the main process, its plugins and its pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

import trio_rpc


@dataclass
class Window:
    """The functions of a running command in the page that has started it."""

    progress: Callable[[float, str], Awaitable[None]]
    """Show how much is done, from 0 to 1, and a line of text."""
    confirm: Callable[[str], Awaitable[bool]]
    """Ask the user, and wait for the answer."""


@dataclass
class Command:
    """A command that a plugin offers.

    Attributes:
        name: its name in calls.
        title: its name for people.
        about: its purpose, in one sentence.
        label: the name of its argument; empty if it takes none.
        default: the argument that the page suggests.
    """

    name: str
    title: str
    about: str
    label: str = ""
    default: str = ""


@dataclass
class Outcome:
    """The findings of a command: one sentence, and details."""

    text: str
    lines: list[str] = field(default_factory=list)


class Plugin:
    """The service of a plugin, which the main process calls."""

    @trio_rpc.method
    async def commands(self) -> list[Command]:
        """List the commands."""
        raise NotImplementedError

    @trio_rpc.method(raises=(ValueError, trio_rpc.RemoteCancelled))
    async def run(self, command: str, argument: str, window: Window) -> Outcome:
        """Run a command. RemoteCancelled: the page has left while the plugin called it."""
        raise NotImplementedError


@dataclass
class PluginStatus:
    """The facts of a plugin that a page shows.

    Attributes:
        state: as in trio_rpc.ProcessState.
        pid: the id of its process, if one is running.
        restarts: how often it was started again.
        running: the number of commands that it runs for all pages.
        last_end: how its last process ended; empty if none has.
    """

    name: str
    state: Literal["starting", "running", "restarting", "failed"] = "starting"
    pid: int | None = None
    restarts: int = 0
    running: int = 0
    last_end: str = ""
    commands: list[Command] = field(default_factory=list)
