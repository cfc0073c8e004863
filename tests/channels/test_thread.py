"""Channels to other threads: conformance, and the ends of the function in the thread."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import threading

import pytest
import trio
from helpers.channel_pairs import open_descriptors

from trio_rpc.channels import (
    StreamChannel,
    ThreadChannel,
    open_channel,
    open_forwarding,
    open_listeners,
    open_thread_channel,
    relay,
)
from trio_rpc.channels import thread as thread_module
from trio_rpc.wire.limits import Limits

TIME_LIMIT = 60.0
LIMITS = Limits(shutdown_timeout=TIME_LIMIT)
"""A thread may take long to end on a busy machine, even if its block raises."""


@pytest.fixture(autouse=True)
async def bounded():
    with trio.fail_after(TIME_LIMIT):
        yield


@pytest.fixture(autouse=True)
def check_leaks():
    """Check that each test has ended its threads and closed its descriptors."""
    before = open_descriptors()
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("thread "):
            thread.join(5)  # it has told the other run that it ends
    assert open_descriptors() == before
    assert not [each for each in threading.enumerate() if each.name.startswith("thread ")]


async def echo(channel):
    with contextlib.suppress(trio.EndOfChannel):
        while True:
            await channel.send(await channel.receive())


# ── its packets ──────────────────────────────────────────────────────────────────────────────


async def test_packets_go_to_another_thread_and_back():
    names = []

    async def main(channel):
        names.append(threading.current_thread().name)
        await echo(channel)

    async with open_thread_channel(main, name="worker") as channel:
        assert isinstance(channel, ThreadChannel)
        assert channel.name == "thread worker"
        for packet in (b"a", bytes(200_000), b"b"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(channel.send, packet)
                assert await channel.receive() == packet
    assert names == ["thread worker"]


async def test_forwarding_and_relay_reach_another_thread(nursery):
    """A client over TCP is relayed to a thread, which serves channels of its own by name."""

    async def serve(channel):
        async with open_forwarding(channel, {"echo": echo}) as forwarding:
            await forwarding.wait_closed()

    [listener] = await open_listeners("tcp://127.0.0.1:0")

    async def accept():
        connection = await listener.accept()
        async with connection.prepared() as client, open_thread_channel(serve) as thread:
            await relay(client, thread)

    nursery.start_soon(accept)
    async with (
        open_channel(listener.url) as carrier,
        open_forwarding(carrier) as forwarding,
        await forwarding.open("echo") as channel,
    ):
        await channel.send(b"hello")
        assert await channel.receive() == b"hello"
    await listener.aclose()


async def test_the_function_gets_a_copy_of_the_context():
    variable = contextvars.ContextVar("variable", default="default")
    variable.set("ours")
    seen = []

    async def main(_channel):
        seen.append(variable.get())
        variable.set("theirs")

    async with open_thread_channel(main) as channel:
        with pytest.raises(trio.EndOfChannel):
            await channel.receive()
    assert (seen, variable.get()) == (["ours"], "ours")


# ── its end ──────────────────────────────────────────────────────────────────────────────────


async def test_a_function_that_returns_ends_the_channel():
    async def main(channel):
        await channel.send(b"last")

    async with open_thread_channel(main) as channel:
        assert await channel.receive() == b"last"
        with pytest.raises(trio.EndOfChannel, match="the thread main has ended"):
            await channel.receive()


@pytest.mark.parametrize("error", [KeyError("x"), SystemExit(3)])
async def test_an_exception_of_the_function_breaks_the_channel_and_is_raised_by_the_block(error):
    async def main(channel):
        await channel.receive()
        raise error

    seen = []
    with pytest.raises(type(error)) as caught:
        async with open_thread_channel(main, limits=LIMITS) as channel:
            await channel.send(b"go")
            with pytest.raises(trio.BrokenResourceError, match="has ended with") as broken:
                await channel.receive()
            seen.append(broken.value.__cause__)
    assert caught.value is error
    assert seen == [error]


async def test_the_bodys_own_exception_takes_precedence_and_names_the_threads():
    async def main(channel):
        await channel.receive()
        raise KeyError("thread's")

    with pytest.raises(LookupError) as caught:
        async with open_thread_channel(main, limits=LIMITS) as channel:
            await channel.send(b"go")
            with pytest.raises(trio.BrokenResourceError):
                await channel.receive()
            raise LookupError("body's")
    assert caught.value.args == ("body's",)
    assert any("thread's" in note for note in caught.value.__notes__)


async def test_a_body_that_only_saw_the_break_raises_the_threads_error():
    async def main(channel):
        await channel.receive()
        raise KeyError("thread's")

    with pytest.raises(KeyError, match="thread's"):
        async with open_thread_channel(main, limits=LIMITS) as channel:
            await channel.send(b"go")
            await channel.receive()


async def test_leaving_the_block_lets_the_function_end_by_itself():
    ended = []

    async def main(channel):
        with pytest.raises(trio.EndOfChannel):
            await channel.receive()
        ended.append("by itself")

    async with open_thread_channel(main, goodbye_time=TIME_LIMIT):
        pass
    assert ended == ["by itself"]


@pytest.mark.parametrize("raises", [False, True])
async def test_a_function_that_goes_on_is_cancelled(raises):
    reasons = []

    async def main(_channel):
        try:
            await trio.sleep_forever()
        except trio.Cancelled as exc:
            reasons.append(exc.reason)
            raise

    times = {"goodbye_time": TIME_LIMIT if raises else 0.05}
    limits = Limits(shutdown_timeout=0.05)
    with contextlib.suppress(LookupError):
        async with open_thread_channel(main, limits=limits, **times):
            if raises:
                raise LookupError
    assert reasons == ["the block that owns the thread is over"]


async def test_a_function_that_blocks_is_given_up_with_an_error_that_says_where(caplog):
    release, ended = threading.Event(), threading.Event()

    async def main(channel):
        await channel.send(b"begun")
        release.wait()
        ended.set()

    try:
        async with open_thread_channel(main, goodbye_time=0.01, cancel_time=0.02) as channel:
            assert await channel.receive() == b"begun"
        assert not ended.is_set()
    finally:
        release.set()
    await trio.to_thread.run_sync(ended.wait)
    [record] = caplog.records
    assert (record.name, record.levelno) == ("trio_rpc.thread", logging.ERROR)
    text = "thread main cannot be stopped and is given up: 0.02 s after its cancellation it still"
    assert record.getMessage().startswith(f"{text} blocks in Condition.wait (")


async def test_an_error_of_a_thread_that_was_given_up_is_logged(caplog):
    release = threading.Event()

    async def main(channel):
        await channel.send(b"begun")
        release.wait()
        raise KeyError("too late")

    async with open_thread_channel(main, goodbye_time=0, cancel_time=0) as channel:
        assert await channel.receive() == b"begun"
    [thread] = [each for each in threading.enumerate() if each.name == "thread main"]
    release.set()
    await trio.to_thread.run_sync(thread.join)
    assert caplog.records[-1].getMessage() == "thread main had been given up, and has failed"
    assert caplog.records[-1].exc_info[0] is KeyError


async def test_a_block_that_is_cancelled_ends_its_thread():
    async with trio.open_nursery() as nursery:

        async def own(*, task_status):
            async with open_thread_channel(echo, limits=LIMITS) as channel:
                await channel.send(b"x")
                await channel.receive()
                task_status.started()
                await trio.sleep_forever()

        await nursery.start(own)
        nursery.cancel_scope.cancel()


async def test_opening_can_be_cancelled_before_the_thread_starts():
    with trio.CancelScope() as scope:
        scope.cancel()
        async with open_thread_channel(None):
            raise AssertionError("it must not open")
    assert scope.cancelled_caught


async def test_a_thread_that_starts_while_opening_is_cancelled_ends(monkeypatch):
    """A race: the system starts the thread, but no caller will use its channel."""
    ended = []
    start = threading.Thread.start

    def cancel_meanwhile(thread):
        start(thread)
        scope.cancel()

    async def main(channel):
        with pytest.raises(trio.EndOfChannel):
            await channel.receive()
        ended.append("in order")

    monkeypatch.setattr(threading.Thread, "start", cancel_meanwhile)
    with trio.CancelScope() as scope:
        async with open_thread_channel(main, limits=LIMITS, cancel_time=TIME_LIMIT):
            await trio.lowlevel.checkpoint()
            raise AssertionError("it must not get here")
    assert scope.cancelled_caught


async def test_a_thread_whose_run_cannot_begin_is_an_error_where_it_is_opened(monkeypatch):
    def no_run(_function):
        raise OSError("too many open files")

    monkeypatch.setattr(thread_module.trio, "run", no_run)
    with pytest.raises(OSError, match="too many open files"):
        async with open_thread_channel(echo):
            raise AssertionError("it must not open")


async def test_a_thread_that_the_system_cannot_start_is_an_error_where_it_is_opened(monkeypatch):
    def no_thread(_self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        async with open_thread_channel(echo):
            raise AssertionError("it must not open")


@pytest.mark.parametrize("name", ["goodbye_time", "cancel_time"])
async def test_a_time_that_is_negative_or_nan_is_refused(name):
    for value in (-1, float("nan")):
        with pytest.raises(ValueError, match=f"{name} must not be negative"):
            async with open_thread_channel(echo, **{name: value}):
                raise AssertionError("it must not open")
    with pytest.raises(TypeError, match=f"{name} must be a number, not 'soon'"):
        async with open_thread_channel(echo, **{name: "soon"}):
            raise AssertionError("it must not open")


async def test_the_limits_apply_at_both_ends():
    sizes = []

    async def main(channel):
        assert isinstance(channel, StreamChannel)
        with pytest.raises(Exception, match="20000") as caught:
            await channel.receive()
        sizes.append(str(caught.value))

    async with open_thread_channel(main, limits=Limits(max_packet=20_000)) as channel:
        await channel.send(bytes(30_000))
        with pytest.raises((trio.EndOfChannel, trio.BrokenResourceError)):
            await channel.receive()
    assert len(sizes) == 1
