"""A plugin that crashes: it ends its process in the middle of a call, as a C library might."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

import trio
import trio_rpc

from interface import Plugin


class Crash(Plugin):
    async def render(self, text: str, on_progress: Callable[[float], Awaitable[None]]) -> str:
        await on_progress(0.1)
        os._exit(3)


if __name__ == "__main__":
    trio.run(trio_rpc.serve_parent, Crash())
