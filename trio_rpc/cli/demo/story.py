"""The steps of the demo. They measure and check; views.py shows them."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import trio

from trio_rpc.cli.demo.services import Diary, Entry, Lab, Reading, Screen
from trio_rpc.cli.demo.tree import LiveCall, join_trees
from trio_rpc.cli.exits import error_line
from trio_rpc.cli.statistics import Latencies
from trio_rpc.session.session import Session

__all__ = [
    "JOBS",
    "Cancelled",
    "Concurrent",
    "JobScreen",
    "Measured",
    "Plain",
    "call_concurrently",
    "call_plainly",
    "cancel_from_here",
    "cancel_from_there",
    "measure",
    "run_jobs",
    "use_stream_and_task",
]

CALLS_AT_ONCE = 200
NAP_SECONDS = 0.05
IN_FLIGHT = 64
PATIENCE_SECONDS = 0.25
JOBS = (("render", 40, 1.0), ("train", 25, 1.3), ("index", 60, 0.8))
"""Name, steps, and the share of the time each takes."""


@dataclass(frozen=True, slots=True)
class Plain:
    """One call as a user types it, and its outcome."""

    code: str
    outcome: str
    ok: bool
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Concurrent:
    """Many calls at once; times in seconds."""

    calls: int
    each: float
    took: float

    @property
    def ok(self) -> bool:
        """Whether they overlapped."""
        return self.took < self.calls * self.each / 4


@dataclass(frozen=True, slots=True)
class Moment:
    """An event at one end, in seconds since the block was entered."""

    at: float
    end: str
    text: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A call that was cancelled by a timeout.

    Attributes:
        patience: seconds of the timeout.
        moments: the events at both ends, in order.
        margin: seconds between the end of the clean-up at one end and of the block at the other.
        left: the number of calls that are still in flight at either end.
    """

    patience: float
    moments: list[Moment]
    margin: float
    left: int

    @property
    def ok(self) -> bool:
        """Whether the clean-up ended before the block did, and no call is left."""
        cleaned = any(moment.text == "has cleaned up" for moment in self.moments)
        return cleaned and self.margin >= 0 and not self.left


@dataclass(frozen=True, slots=True)
class Measured:
    """The speed on this machine: one call at a time, and many in flight."""

    one_at_a_time: Latencies
    in_flight: int
    calls: int
    took: float

    @property
    def per_second(self) -> float:
        """Calls per second with many in flight."""
        return self.calls / self.took


# ── plain calls ──────────────────────────────────────────────────────────────────────────────


async def call_plainly(session: Session) -> list[Plain]:
    """Make the calls that a beginner would make."""
    lab = session.proxy("lab", Lab)
    untyped = session.proxy("lab")
    reading = Reading("oven", (180.0, 184.0, 182.0))
    return [
        await _returned("await lab.add(2, 3)", lab.add(2, 3), 5),
        await _returned(
            "await lab.smooth(Reading('oven', (180, 184, 182)))",
            lab.smooth(reading),
            Reading("oven", (182.0,)),
        ),
        await _raised("await lab.divide(1, 0)", lab.divide(1, 0), "ZeroDivisionError"),
        await _raised("await lab.add('two', 3)", untyped.add("two", 3), "InvalidArguments"),
        await _raised("await lab.__class__()", session.call("lab.__class__"), "MethodNotFound"),
    ]


async def _returned(code: str, call: Awaitable[Any], expected: object) -> Plain:
    started = time.perf_counter()
    result = await call
    took = time.perf_counter() - started
    return Plain(code, repr(result), result == expected, f"{took * 1e3:.2f} ms")


async def _raised(code: str, call: Awaitable[Any], expected: str) -> Plain:
    try:
        result = await call
    except Exception as exc:  # noqa: BLE001 - the demo shows the exception
        return Plain(code, f"raises {error_line(exc)}", type(exc).__name__ == expected)
    return Plain(code, repr(result), ok=False)


async def call_concurrently(session: Session) -> Concurrent:
    """Make many calls at once, each of which takes some time."""
    lab = session.proxy("lab", Lab)
    started = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(CALLS_AT_ONCE):
            nursery.start_soon(lab.nap, NAP_SECONDS)
    return Concurrent(CALLS_AT_ONCE, NAP_SECONDS, time.perf_counter() - started)


# ── cancellation, both ways ──────────────────────────────────────────────────────────────────


async def cancel_from_here(session: Session) -> Cancelled:
    """Cancel a handler in the child by a timeout in this process."""
    lab = session.proxy("lab", Lab)
    await lab.forget()
    diary = Diary()
    diary.note("enters the block and calls")
    with trio.move_on_after(PATIENCE_SECONDS):
        await lab.hold("a lock")
    diary.note("leaves the block")
    there = await lab.diary()
    return _cancelled(diary.entries, there, there, diary.entries[-1], await _left(session))


async def cancel_from_there(session: Session, screen: Screen) -> Cancelled:
    """Cancel a handler in this process by a timeout in the child."""
    lab = session.proxy("lab", Lab)
    screen.diary = Diary()
    screen.diary.note("asks the server to call back")
    done = await lab.cancel_after(PATIENCE_SECONDS)
    here = screen.diary.entries
    return _cancelled(here, [done], here, done, await _left(session))


def _cancelled(
    here: list[Entry], there: list[Entry], holder: list[Entry], done: Entry, left: int
) -> Cancelled:
    start = here[0].at
    moments = [Moment(entry.at - start, "client", entry.text) for entry in here]
    moments += [Moment(entry.at - start, "server", entry.text) for entry in there]
    moments.sort(key=lambda moment: moment.at)
    cleaned = next((entry.at for entry in holder if entry.text == "has cleaned up"), float("inf"))
    return Cancelled(PATIENCE_SECONDS, moments, done.at - cleaned, left)


async def _left(session: Session) -> int:
    """Count the calls in flight at either end, except the one that asks."""
    there = await session.proxy("lab", Lab).look()
    asking = sum(node.method == "lab.look" for node in there)
    return len(session.tree()) + len(there) - asking


# ── streams and tasks that end with their scope ──────────────────────────────────────────────


async def use_stream_and_task(session: Session) -> list[Plain]:
    """Receive a few items of an endless stream, and start a task at the other end."""
    lab = session.proxy("lab", Lab)
    await lab.forget()
    async with lab.samples() as samples:
        got = [await samples.receive() for _ in range(3)]
    closed = [entry.text for entry in await lab.diary()] == ["the generator is closed"]
    streamed = Plain(
        "async with lab.samples() as samples: [await samples.receive() for _ in range(3)]",
        f"{got}, and the generator is {'closed' if closed else 'still open'}",
        got == [1, 2, 3] and closed,
    )
    await lab.forget()
    async with trio.open_nursery() as nursery:
        value = await nursery.start(lab.oven, 180)
        alive = any(node.method == "lab.oven" for node in await lab.look())
        nursery.cancel_scope.cancel()
    cleaned = [entry.text for entry in await lab.diary()][-1] == "has cleaned up"
    started = Plain(
        "await nursery.start(lab.oven, 180)",
        f"{value!r}, and it lives in the nursery until that is cancelled",
        alive and cleaned and not await _left(session),
    )
    return [streamed, started]


# ── long jobs ────────────────────────────────────────────────────────────────────────────────


class JobScreen(Screen):
    """The client's end while jobs run.

    Half-way through the first job it asks for the scope tree, from inside a callback: this end
    calls the child, which calls back, and inside that callback this end calls again.

    Attributes:
        picture: called with the live calls of both ends.
        show: called with the job, the steps done and the total number of steps.
    """

    def __init__(self) -> None:
        super().__init__()
        self.session: Session
        self.show: Callable[[str, int, int], None] = lambda _job, _done, _total: None
        self.picture: Callable[[list[LiveCall]], None] = lambda _calls: None
        self.callbacks = 0

    async def on_step(self, job: str, done: int, total: int) -> None:
        """Show the progress; ask for the scope tree half-way through the first job."""
        self.callbacks += 1
        self.show(job, done, total)
        if job == JOBS[0][0] and done == total // 2:
            here = self.session.tree()
            there = await self.session.proxy("lab", Lab).look()
            self.picture(join_trees(here, there))


async def run_jobs(session: Session, screen: JobScreen, seconds: float) -> float:
    """Run all jobs at once; return the seconds that they took."""
    lab = session.proxy("lab", Lab)
    started = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for job, steps, share in JOBS:
            nursery.start_soon(lab.run_job, job, steps, seconds * share, screen.on_step)
    return time.perf_counter() - started


# ── figures ──────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class _Countdown:
    left: int
    done: list[int] = field(default_factory=list)


async def measure(session: Session, *, alone: int, together: int) -> Measured:
    """Time small calls.

    Args:
        session: the session.
        alone: the number of calls to make one at a time.
        together: the number of calls to make with many in flight.
    """
    lab = session.proxy("lab", Lab)
    latencies = Latencies()
    for number in range(-50, alone):
        started = time.perf_counter()
        await lab.add(number, 1)
        if number >= 0:  # the first ones warm up
            latencies.add(time.perf_counter() - started)
    countdown = _Countdown(together)

    async def work() -> None:
        while countdown.left > 0:
            countdown.left -= 1
            await lab.add(countdown.left, 1)

    started = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(IN_FLIGHT):
            nursery.start_soon(work)
    return Measured(latencies, IN_FLIGHT, together, time.perf_counter() - started)
