"""A plugin that crashes in its third call."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

import trio
import trio_rpc

from interface import Plugin


class Moody(Plugin):
    def __init__(self) -> None:
        self.calls = 0

    async def render(self, text: str, on_progress: Callable[[float], Awaitable[None]]) -> str:
        self.calls += 1
        if self.calls == 3:
            os._exit(3)
        return f"{text}, call {self.calls} of this process"


if __name__ == "__main__":
    trio.run(trio_rpc.serve_parent, Moody())
