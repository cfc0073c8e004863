"""The states of a process that is started again when it ends, and an iterator over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import trio

from trio_rpc.session.end import SessionEnd
from trio_rpc.util.owner import Owner

__all__ = ["CurrentState", "ProcessState", "ProcessStates"]


@dataclass(frozen=True, slots=True)
class ProcessState:
    """The state of a process that :func:`keep_process` runs.

    Attributes:
        kind: ``"starting"`` until the first process serves; ``"running"`` while a process serves;
            ``"restarting"`` from the end of a process until the next one serves; ``"failed"`` if
            no process will serve again.
        end: the end of the last process, if ``kind`` is ``"restarting"`` or ``"failed"``. Its
            ``detail`` has the exit code. If the command could not be started, its ``cause`` says
            why.
    """

    kind: Literal["starting", "running", "restarting", "failed"]
    end: SessionEnd | None = None


class CurrentState:
    """The current state, and an event for its next change.

    Attributes:
        state: the current state.
        is_over: whether it will not change.
        owner: the Trio run that waits for changes.
        changed: set at the next change.
    """

    def __init__(self) -> None:
        self.state = ProcessState("starting")
        self.is_over = False
        self.owner = Owner("this kept process")
        self.changed = trio.Event()

    def enter(self, state: ProcessState) -> None:
        """Enter the next state. "failed" is the last one."""
        self.state = state
        self._wake(is_over=state.kind == "failed")

    def stay(self) -> None:
        """Keep this state, since the block is over."""
        self._wake(is_over=True)

    def _wake(self, *, is_over: bool) -> None:
        self.is_over = is_over
        self.changed.set()
        self.changed = trio.Event()


class ProcessStates:
    """An async iterator over the states of a process. A slow reader misses older states.

    Args:
        current: knows the current state.
    """

    def __init__(self, current: CurrentState) -> None:
        self._current = current
        self._seen: ProcessState | None = None

    def __aiter__(self) -> ProcessStates:
        return self

    async def __anext__(self) -> ProcessState:
        self._current.owner.check()
        await trio.lowlevel.checkpoint()
        while self._current.state is self._seen:
            if self._current.is_over:
                raise StopAsyncIteration
            await self._current.changed.wait()
        self._seen = self._current.state
        return self._seen
