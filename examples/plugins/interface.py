"""What a host and its plugins know of each other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio_rpc


class Plugin:
    """What a plugin offers to its host."""

    @trio_rpc.method
    async def render(self, text: str, on_progress: Callable[[float], Awaitable[None]]) -> str:
        """Make something of a text, and say how far it has come: 0 to 1."""
        raise NotImplementedError


class Settings:
    """What a host offers to its plugins."""

    @trio_rpc.method
    async def get(self, name: str) -> str:
        """Look up a setting."""
        return {"mark": "!"}[name]
