"""Waiting as long as other tasks make progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

__all__ = ["wait_while_progressing"]

TURNS: Final = 10
"""Turns of Trio's loop without progress. A WebSocket needs three turns for each packet."""


async def wait_while_progressing(count: Callable[[], int], seconds: float) -> None:
    """Return when ``count()`` stays the same for some turns of Trio's loop, or the time is up.

    It is shielded from cancellation, because without progress it takes no time.
    """
    seen = -1
    with trio.move_on_after(seconds, shield=True):
        while seen != count():
            seen = count()
            for _ in range(TURNS):
                await trio.lowlevel.checkpoint()
