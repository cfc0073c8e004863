"""A plugin that works: it asks its host for a setting, and reports progress."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
import trio_rpc

from interface import Plugin, Settings


class Shout(Plugin):
    async def render(self, text: str, on_progress: Callable[[float], Awaitable[None]]) -> str:
        settings = trio_rpc.current_call().session.proxy("settings", Settings)
        mark = await settings.get("mark")
        await on_progress(0.5)
        return text.upper() + mark


if __name__ == "__main__":
    trio.run(trio_rpc.serve_parent, Shout())
