"""A plugin with faults: one command ends its process, and another one blocks it."""

from __future__ import annotations

import os
import time

import trio
import trio_rpc

from examples.workbench.interface import Command, Outcome, Plugin, Window

CRASH = Command(
    name="crash",
    title="Crash",
    about="Ends its process in the middle of the command, as a fault in a C library might.",
)
HANG = Command(
    name="hang",
    title="Hang",
    about="Blocks its process: it notices no cancellation, and answers nothing.",
)


class Fragile(Plugin):
    async def commands(self) -> list[Command]:
        return [CRASH, HANG]

    async def run(self, command: str, argument: str, window: Window) -> Outcome:
        if command not in (CRASH.name, HANG.name):
            raise ValueError(f"there is no command {command!r}")
        for second in (3, 2, 1):
            await window.progress(1 - second / 4, f"{command} in {second} s")
            await trio.sleep(1)
        if command == CRASH.name:
            os._exit(3)
        time.sleep(3600)  # noqa: ASYNC251 - blocks on purpose
        return Outcome("never")


if __name__ == "__main__":
    trio.run(trio_rpc.serve_parent, Fragile())
