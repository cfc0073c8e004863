"""A plugin that hangs: it blocks, so it does not even notice that its call has been cancelled."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import trio
import trio_rpc

from interface import Plugin


class Hang(Plugin):
    async def render(self, text: str, on_progress: Callable[[float], Awaitable[None]]) -> str:
        await on_progress(0.1)
        time.sleep(3600)  # noqa: ASYNC251 - blocks on purpose
        return text


if __name__ == "__main__":
    trio.run(trio_rpc.serve_parent, Hang())
