"""The services of the demo's two processes.

``Lab`` runs in the child, ``Screen`` in the process that has the terminal. Each keeps a proxy of
the other: either may call the other, even while it handles a call.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

import trio

from trio_rpc.services.decorators import method, notification, stream
from trio_rpc.session.current import current_call
from trio_rpc.session.inspection import ScopeNode
from trio_rpc.session.session import Session

__all__ = ["Diary", "Entry", "Lab", "Reading", "Screen", "services"]

OnStep: TypeAlias = Callable[[str, int, int], Awaitable[None]]
"""Called with the job, the steps done and the total number of steps."""

CLEAN_UP_SECONDS = 0.1
"""Seconds that a handler's clean-up takes: long enough to be visible."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a diary.

    Attributes:
        at: seconds on a clock that both processes share.
        text: the event.
    """

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Reading:
    """A dataclass that is sent and returned."""

    sensor: str
    values: tuple[float, ...]


class Diary:
    """A record of one end's events and their times."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def note(self, text: str) -> None:
        """Record an event that happens now."""
        self.entries.append(Entry(time.monotonic(), text))

    async def hold_until_cancelled(self, what: str) -> None:
        """Sleep until cancelled, and then take some time to clean up."""
        self.note(f"took {what}")
        try:
            await trio.sleep_forever()
        finally:
            self.note("was cancelled, and begins to clean up")
            with trio.CancelScope(shield=True):
                await trio.sleep(CLEAN_UP_SECONDS)
            self.note("has cleaned up")


class Screen:
    """The service of the process that has the terminal."""

    def __init__(self) -> None:
        self.diary = Diary()

    @method
    async def hold(self, what: str) -> None:
        """Run until cancelled."""
        await self.diary.hold_until_cancelled(what)


class Lab:
    """The service of the child; each session has its own."""

    def __init__(self, session: Session) -> None:
        self._screen = session.proxy("screen", Screen)
        self._diary = Diary()

    @method
    async def add(self, a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @method(raises=(ZeroDivisionError,))
    async def divide(self, a: float, b: float) -> float:
        """Divide, which can fail."""
        return a / b

    @method
    async def smooth(self, reading: Reading) -> Reading:
        """Return the mean of a reading, as a dataclass."""
        mean = sum(reading.values) / len(reading.values)
        return Reading(reading.sensor, (mean,))

    @method
    async def nap(self, seconds: float) -> None:
        """Sleep for some time."""
        await trio.sleep(seconds)

    @method
    async def hold(self, what: str) -> None:
        """Run until cancelled."""
        await self._diary.hold_until_cancelled(what)

    @method
    async def diary(self) -> list[Entry]:
        """Return the events here, with their times."""
        return self._diary.entries

    @notification
    async def forget(self) -> None:
        """Begin a new diary."""
        self._diary = Diary()

    @method
    async def run_job(self, job: str, steps: int, seconds: float, on_step: OnStep) -> int:
        """Do a long job, and call back with each step."""
        for done in range(1, steps + 1):
            await trio.sleep(seconds / steps)
            await on_step(job, done, steps)
        return steps

    @stream
    async def samples(self) -> AsyncGenerator[int, None]:
        """Yield numbers until the consumer leaves."""
        number = 0
        try:
            while True:
                number += 1
                yield number
        finally:
            self._diary.note("the generator is closed")

    @method
    async def oven(
        self, degrees: int, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Heat up, say so, and stay hot until cancelled."""
        await trio.sleep(CLEAN_UP_SECONDS)
        task_status.started(f"hot: {degrees} degrees")
        await self._diary.hold_until_cancelled("the oven")

    @method
    async def look(self) -> list[ScopeNode]:
        """Return the calls in flight at this end, including this one."""
        return current_call().session.tree()

    @method
    async def cancel_after(self, seconds: float) -> Entry:
        """Call the caller back, and cancel that call after some seconds."""
        with trio.move_on_after(seconds):
            await self._screen.hold("the terminal")
        return Entry(time.monotonic(), "leaves its block")


def services(session: Session) -> dict[str, object]:
    """Make the services of one session, for ``trio-rpc serve``."""
    return {"lab": Lab(session)}
