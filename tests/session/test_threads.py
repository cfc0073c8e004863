"""Sessions with real threads: calls in both directions, blocking handlers, and how threads end.

The tests run in real time, because the threads do, but none relies on speed.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest
import trio
from helpers.handlers import Echo

import trio_rpc
from trio_rpc import (
    Fate,
    Limits,
    Refused,
    RemoteCancelled,
    RemoteError,
    SessionBroken,
    open_thread,
)

TIME_LIMIT = 60.0
SLOW = Limits(handshake_timeout=TIME_LIMIT, shutdown_timeout=TIME_LIMIT)
"""A thread may take long on a busy machine, even if its block raises."""


@pytest.fixture(autouse=True)
async def bounded():
    with trio.fail_after(TIME_LIMIT):
        yield


@pytest.fixture(autouse=True)
def check_threads():
    """Check that each test has ended its threads."""
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("thread "):
            thread.join(5)  # it has told the other run that it ends
            assert not thread.is_alive()


class Worker:
    """The service of a thread. The events are shared with the test, which runs in another one."""

    def __init__(self):
        self.begun = threading.Event()
        self.release = threading.Event()
        self.ended = []

    @trio_rpc.method
    async def echo(self, value: object) -> object:
        return value

    @trio_rpc.method
    async def thread(self) -> str:
        return threading.current_thread().name

    @trio_rpc.method
    def block(self) -> str:
        self.begun.set()
        self.release.wait()
        return "done"

    @trio_rpc.method
    async def hang(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        try:
            task_status.started(1)
            await trio.sleep_forever()
        finally:
            self.ended.append(threading.current_thread().name)

    @trio_rpc.method(raises=(ZeroDivisionError,))
    async def divide(self, a: int, b: int) -> float:
        return a / b

    @trio_rpc.method
    async def leave(self, status: int) -> None:
        raise SystemExit(status)

    @trio_rpc.method
    async def count(self, steps: int, on_step: Callable[[int], Awaitable[int]]) -> int:
        return sum([await on_step(step) for step in range(steps)])

    @trio_rpc.method
    async def ask(self, value: object) -> object:
        return await trio_rpc.current_call().session.call("owner.echo", value)

    @trio_rpc.stream
    async def numbers(self, most: int) -> AsyncGenerator[int, None]:
        for number in range(most):
            yield number


@pytest.fixture
def worker():
    made = Worker()
    yield made
    made.release.set()


# ── values between the threads ───────────────────────────────────────────────────────────────


async def test_calls_callbacks_and_streams_cross_between_two_threads(worker):
    """Sessions work between threads."""
    names = []

    async def double(number):
        names.append(threading.current_thread().name)
        return 2 * number

    async with open_thread(worker, {"owner": Echo()}, name="w") as session:
        proxy = session.proxy("", Worker)
        assert await proxy.thread() == "thread w"
        assert session.name == session.peer.name == "thread w"
        assert (session.peer.pid, session.peer.returncode) == (None, None)
        assert await proxy.count(10, double) == 90
        assert await proxy.ask({"deep": [1, 2]}) == {"deep": [1, 2]}
        async with proxy.numbers(3_000) as stream:
            assert [number async for number in stream] == list(range(3_000))
        assert await proxy.echo(bytes(3_000_000)) == bytes(3_000_000)
        with pytest.raises(ZeroDivisionError):
            await proxy.divide(1, 0)
    assert set(names) == {threading.current_thread().name}


async def test_a_handler_that_blocks_its_thread_blocks_nothing_else(worker):
    results = []

    async def call(session):
        results.append(await session.call("block"))

    async with open_thread(worker) as session, trio.open_nursery() as nursery:
        nursery.start_soon(call, session)
        await trio.to_thread.run_sync(worker.begun.wait)  # this run goes on meanwhile
        assert not results
        worker.release.set()
    assert results == ["done"]


async def test_a_function_of_the_session_makes_the_services_in_the_thread():
    names = []

    def services(session):
        names.append((threading.current_thread().name, session.name))
        return Worker()

    async with open_thread(services) as session:
        assert await session.call("echo", 1) == 1
    assert names == [("thread services", "the other thread")]


async def test_the_ends_share_limits_and_registry_unless_the_thread_has_its_own():
    class Point:
        def __init__(self, x):
            self.x = x

    class Limited:
        @trio_rpc.method
        def limits(self) -> list[int]:
            limits = trio_rpc.current_call().session.limits
            return [limits.max_calls, limits.max_message]

        @trio_rpc.method
        async def move(self, point):
            return Point(point.x + 1)

    registry = trio_rpc.TypeRegistry()
    registry.register(64, Point, lambda point: point.x, Point)
    limits = Limits(max_calls=7, handshake_timeout=TIME_LIMIT)
    async with open_thread(Limited(), limits=limits, registry=registry) as session:
        assert await session.call("limits") == [7, limits.max_message]
        assert (await session.call("move", Point(1))).x == 2
    own = Limits(max_calls=9, handshake_timeout=TIME_LIMIT)
    async with open_thread(Limited(), limits=limits, thread_options={"limits": own}) as session:
        assert await session.call("limits") == [9, own.max_message]


# ── cancellation and the end, in both directions ─────────────────────────────────────────────


async def test_law_2_a_cancelled_caller_waits_until_the_handler_in_the_thread_has_ended(worker):
    async with open_thread(worker, name="w") as session:
        async with trio.open_nursery() as nursery:
            await nursery.start(session.proxy("", Worker).hang)
            assert not worker.ended
            nursery.cancel_scope.cancel()
        assert worker.ended == ["thread w"]


async def test_law_6_leaving_the_block_ends_the_handlers_in_the_thread(worker):
    async with open_thread(worker, name="w", limits=Limits(close_grace=0.01)) as session:
        async with trio.open_nursery() as nursery:

            async def call(*, task_status):
                with pytest.raises((RemoteCancelled, trio_rpc.SessionClosed)):
                    await session.call("hang", task_status=task_status)

            await nursery.start(call)
            await session.aclose()
    assert worker.ended == ["thread w"]


async def test_law_17_a_thread_that_closes_the_session_ends_the_block():
    sessions = []

    class Leaver:
        @trio_rpc.notification
        async def leave(self) -> None:
            await sessions[0].aclose(reason="had enough", grace=0)

    def services(session):
        sessions.append(session)
        return Leaver()

    with pytest.raises(SessionBroken, match="had enough") as caught:
        async with open_thread(services, limits=SLOW) as session:
            await session.notify("leave")
            await trio.sleep_forever()
    assert caught.value.orderly


async def test_a_cancelled_block_ends_its_thread(worker):
    async with trio.open_nursery() as nursery:

        async def own(*, task_status):
            async with open_thread(worker, name="w", limits=SLOW) as session:
                await session.call("hang", task_status=task_status)

        await nursery.start(own)
        nursery.cancel_scope.cancel()
    assert worker.ended == ["thread w"]


async def test_a_thread_that_blocks_is_given_up_in_bounded_time_and_its_call_has_a_fate(
    worker, caplog
):
    limits = Limits(cancel_grace=0.01, close_grace=0.01, shutdown_timeout=0.01)
    times = {"goodbye_time": 0.01, "cancel_time": 0.01}
    with trio.fail_after(TIME_LIMIT / 2):
        async with open_thread(worker, limits=limits, on_end="keep", **times) as session:
            async with trio.open_nursery() as nursery:

                async def call():
                    with pytest.raises(trio_rpc.RpcError) as caught:
                        await session.call("block")
                    assert caught.value.fate is Fate.UNKNOWN

                nursery.start_soon(call)
                await trio.to_thread.run_sync(worker.begun.wait)
                await session.aclose()
    [record] = [each for each in caplog.records if each.name == "trio_rpc.thread"]
    assert "thread Worker cannot be stopped and is given up: 0.01 s" in record.getMessage()
    assert "threading.py:" in record.getMessage()


async def test_a_frozen_thread_is_silent_and_ends_the_session(worker):
    limits = Limits(keepalive_interval=0.1, keepalive_pings=2, shutdown_timeout=0.1)
    times = {"goodbye_time": 0.05, "cancel_time": 0.05}
    with pytest.raises(SessionBroken, match=r"silent for 0\.3 s") as caught:
        async with open_thread(worker, limits=limits, **times) as session:
            await session.call("block")
    assert isinstance(caught.value.__cause__, TimeoutError)


async def test_law_7_an_exception_that_ends_the_threads_run_ends_the_block(worker):
    with pytest.raises(SystemExit) as caught:
        async with open_thread(worker, limits=SLOW) as session:
            with pytest.raises(RemoteError):
                await session.call("leave", 3)
            await trio.sleep_forever()
    assert caught.value.code == 3


async def test_an_exception_of_the_function_that_makes_services_is_raised_by_the_block():
    def services(_session):
        raise KeyError("no services")

    with pytest.raises(KeyError, match="no services"):
        async with open_thread(services, limits=SLOW):
            raise AssertionError("it must not open")


async def test_a_thread_may_refuse_the_session(worker):
    async def check(_session, credentials):
        if credentials != "right":
            raise Refused("wrong credentials")

    theirs = {"authenticate": check}
    with pytest.raises(Refused, match="wrong credentials"):
        async with open_thread(worker, limits=SLOW, thread_options=theirs):
            raise AssertionError("it must not open")
    async with open_thread(worker, thread_options=theirs, credentials="right") as session:
        assert await session.call("echo", 1) == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"cancel_time": -1}, ValueError),
        ({"on_end": "ignore"}, ValueError),
        ({"thread_options": {"limit": 1}}, TypeError),
        ({"limit": 1}, TypeError),
        ({"thread_options": {"limits": 1}}, TypeError),
    ],
)
async def test_bad_options_are_refused_before_a_thread_starts(worker, options, error, monkeypatch):
    monkeypatch.delattr(threading.Thread, "start")
    with pytest.raises(error):
        async with open_thread(worker, **options):
            raise AssertionError("it must not open")


async def test_a_target_that_is_not_a_service_is_refused_before_a_thread_starts(monkeypatch):
    monkeypatch.delattr(threading.Thread, "start")
    with pytest.raises(TypeError, match="no methods"):
        async with open_thread(object()):
            raise AssertionError("it must not open")
