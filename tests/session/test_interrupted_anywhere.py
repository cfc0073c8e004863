"""Ctrl-C between any two steps of the library, in the main task or in a task of the session.

A trace function raises the signal when a given number of lines of the library have run. Each test
first counts the lines, and then does this for many numbers.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

import trio_rpc
from trio_rpc.testing import open_session_pair

LIBRARY = str(Path(trio_rpc.__file__).parent)
POINTS = 30
NEVER = -1


class Service:
    @trio_rpc.method
    async def echo(self, value: int) -> int:
        return value

    @trio_rpc.method
    async def wait(self) -> None:
        await trio.sleep(0.01)

    @trio_rpc.method
    async def call_back(self, function: Callable[[int], Awaitable[int]]) -> int:
        return await function(1) + await function(2)

    @trio_rpc.method
    async def add(self, numbers: AsyncIterator[int]) -> int:
        return sum([number async for number in numbers])

    @trio_rpc.notification
    async def note(self, value: int) -> None:
        pass

    @trio_rpc.stream
    async def count(self, most: int) -> AsyncGenerator[int, None]:
        for number in range(most):
            yield number

    @trio_rpc.duplex
    async def double(self, channel: trio.abc.Channel[int]) -> None:
        async for number in channel:
            await channel.send(2 * number)


async def _call(session, service):
    assert [await service.echo(number) for number in range(3)] == [0, 1, 2]
    await service.wait()


async def _notify(session, service):
    for number in range(3):
        await service.note(number)


async def _follow(session, service):
    async with service.count(40) as numbers:
        assert [number async for number in numbers] == [*range(40)]


async def _converse(session, service):
    async with service.double() as channel:
        for number in range(3):
            await channel.send(number)
            assert await channel.receive() == 2 * number


async def _answer(session, service):
    async def same(value: int) -> int:
        return value

    async with session.open_scope() as scope:
        assert await scope.call(service.call_back, same) == 3
    assert await service.call_back(same) == 3


async def _lend(session, service):
    async def numbers():
        for number in range(3):
            yield number

    assert await service.add(numbers()) == 3


async def _open(session, service):
    async def only(call, proceed):
        return await proceed()

    options = {"filters": [only]}
    async with open_session_pair(Service(), None, options_b=options) as (_, other):
        await _follow(other, other.proxy("", Service))
        await other.aclose()


WORK = [_call, _notify, _follow, _converse, _answer, _lend, _open]


class Interrupter:
    """Raises the signal in the given line of the library that runs, and counts these lines."""

    def __init__(self, line: int, task: trio.lowlevel.Task | None) -> None:
        self.place = ""
        self.lines = 0
        self._line = line
        self._task = task

    def __enter__(self) -> None:
        self._earlier = sys.gettrace()
        sys.settrace(self._trace)

    def __exit__(self, *_exc: object) -> None:
        sys.settrace(self._earlier)

    def _trace(self, frame, event, arg):
        code = frame.f_code
        if event == "line" and code.co_filename.startswith(LIBRARY) and self._is_meant():
            self.lines += 1
            if self.lines == self._line:
                self.place = f"{code.co_qualname}, line {frame.f_lineno}"
                sys.settrace(self._earlier)
                signal.raise_signal(signal.SIGINT)
        return self._trace

    def _is_meant(self) -> bool:
        return self._task is None or self._task is trio.lowlevel.current_task()


@pytest.fixture(autouse=True)
def watchdog():
    """Replace the fixture of other modules, because these tests call ``trio.run`` themselves."""


def _leaves(exc):
    if isinstance(exc, BaseExceptionGroup):
        return [leaf for each in exc.exceptions for leaf in _leaves(each)]
    return [exc]


def _points(lines: int) -> range:
    assert lines > 10 * POINTS
    return range(1, lines, lines // POINTS)


@pytest.mark.parametrize("work", WORK)
def test_a_program_that_catches_ctrl_c_can_go_on_with_its_session(work):
    async def main(line):
        async with open_session_pair(Service(), None) as (_, session):
            service = session.proxy("", Service)
            interrupter = Interrupter(line, trio.lowlevel.current_task())
            try:
                with interrupter:
                    await work(session, service)
                await trio.lowlevel.checkpoint()
            except* KeyboardInterrupt:
                pass
            with trio.move_on_after(1) as second:
                for other in (_call, _follow, _answer):
                    await other(session, service)
            assert not second.cancelled_caught, interrupter.place
            return interrupter.lines

    lines = trio.run(main, NEVER, clock=MockClock(autojump_threshold=0))
    for line in _points(lines):
        trio.run(main, line, clock=MockClock(autojump_threshold=0))


# A handler's coroutine may be interrupted before it has begun.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("work", WORK)
def test_ctrl_c_in_any_task_ends_the_program_at_once(work):
    took = 0.0

    async def main(interrupter):
        nonlocal took
        begun = trio.current_time()
        try:
            with interrupter:
                async with open_session_pair(Service(), None) as (_, session):
                    await work(session, session.proxy("", Service))
            await trio.lowlevel.checkpoint()
        finally:
            took = trio.current_time() - begun

    counter = Interrupter(NEVER, None)
    trio.run(main, counter, clock=MockClock(autojump_threshold=0))
    for line in _points(counter.lines):
        interrupter = Interrupter(line, None)
        was_raised = False
        try:
            trio.run(main, interrupter, clock=MockClock(autojump_threshold=0))
        except* KeyboardInterrupt:
            was_raised = True
        assert was_raised or not interrupter.place  # a run may have fewer lines than the first
        assert took < 1, interrupter.place


class Endless:
    """Handlers that only Ctrl-C ends. Each notes whether it was interrupted where it was."""

    def __init__(self) -> None:
        self.went_on: list[str] = []

    def _interrupt(self, name: str) -> None:
        signal.raise_signal(signal.SIGINT)
        self.went_on.append(name)

    @trio_rpc.method
    def plain(self) -> None:
        self._interrupt("plain")

    @trio_rpc.method
    async def first_step(self) -> None:
        self._interrupt("first_step")

    @trio_rpc.method
    async def later_step(self) -> None:
        await trio.sleep(0.01)
        self._interrupt("later_step")

    @trio_rpc.stream
    async def items(self) -> AsyncGenerator[int, None]:
        yield 1
        self._interrupt("items")


@pytest.mark.parametrize("name", ["plain", "first_step", "later_step", "items"])
def test_ctrl_c_interrupts_the_code_of_a_handler_where_it_is(name):
    service = Endless()

    async def main():
        async with open_session_pair(service, None) as (_, session):
            if name == "items":
                async with session.stream(name) as items:
                    async for _item in items:
                        pass
            await session.call(name)

    with pytest.raises(BaseException) as caught:
        trio.run(main)
    assert {*map(type, _leaves(caught.value))} == {KeyboardInterrupt}
    assert service.went_on == []
