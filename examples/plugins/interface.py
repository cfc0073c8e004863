"""The interfaces of a host and its plugins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio_rpc


class Plugin:
    """The service that a plugin offers to its host."""

    @trio_rpc.method
    async def render(self, text: str, on_progress: Callable[[float], Awaitable[None]]) -> str:
        """Return a rendered text, and report progress from 0 to 1."""
        raise NotImplementedError


class Settings:
    """The service that a host offers to its plugins."""

    @trio_rpc.method
    async def get(self, name: str) -> str:
        """Return the value of a setting."""
        return {"mark": "!"}[name]
