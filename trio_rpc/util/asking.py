"""The pause between two questions that a program asks again and again."""

from __future__ import annotations

import trio

__all__ = ["AskingPause"]


class AskingPause:
    """The pauses of one task, which others may cut short."""

    def __init__(self) -> None:
        self._is_wanted = trio.Event()

    def cut_short(self) -> None:
        """End the present pause after its least time, or the next one if there is none now."""
        self._is_wanted.set()

    async def sleep(self, least: float, more: float) -> None:
        """Wait until the next question.

        Args:
            least: seconds to wait in any case, so that no server is flooded with questions.
            more: seconds to wait in addition, unless the pause is cut short.
        """
        await trio.sleep(least)
        if more:
            with trio.move_on_after(more):
                await self._is_wanted.wait()
        self._is_wanted = trio.Event()
