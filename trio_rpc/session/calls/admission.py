"""The fair queue of callers that wait for credit, and then for room in the queue (law 11)."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable

import trio
from trio.lowlevel import Abort

__all__ = ["OPEN", "UNLIMITED", "Admission"]

UNLIMITED = sys.maxsize


class Admission:
    """A fair queue of tasks that wait for a condition.

    Args:
        room: returns how many tasks may pass now. It need not count tasks that were let in and
            have not run yet.

    Bound: one place for each waiting task, and a task waits only once at a time.

    Attributes:
        tasks: the waiting tasks, the first one first. None until a task waits, since an empty deque
            has memory for 64 items and most sessions are idle.
    """

    def __init__(self, room: Callable[[], int]) -> None:
        self._room = room
        self.tasks: deque[trio.lowlevel.Task] | None = None
        self._let_in = 0

    @property
    def is_free(self) -> bool:
        """Whether a new caller may pass without waiting and without overtaking others."""
        return not self.tasks and self._room() > self._let_in

    async def wait(self) -> None:
        """Wait until there is room. A task that is cancelled while it waits has used no room."""
        task = trio.lowlevel.current_task()
        waiting = self.tasks = deque() if self.tasks is None else self.tasks

        def abort(_raise_cancel: object) -> Abort:
            waiting.remove(task)
            return Abort.SUCCEEDED

        waiting.append(task)
        await trio.lowlevel.wait_task_rescheduled(abort)
        self._let_in -= 1
        while not self._room():
            # Tasks that were let in together have used the room up: back to the head of the queue.
            waiting.appendleft(task)
            await trio.lowlevel.wait_task_rescheduled(abort)
            self._let_in -= 1

    def let_in(self) -> None:
        """Wake as many tasks as there is room for."""
        while self.tasks and self._room() > self._let_in:
            self._let_in += 1
            trio.lowlevel.reschedule(self.tasks.popleft())

    def open(self) -> None:
        """Admit every task from now on."""
        self._room = _unlimited
        self.let_in()


def _unlimited() -> int:
    return UNLIMITED


OPEN = Admission(_unlimited)
"""Admits every task, so no task ever waits in it."""
