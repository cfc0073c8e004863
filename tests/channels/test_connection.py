"""Blocks that own channels: they close the channel and leave nothing behind."""

from __future__ import annotations

import pytest
import trio
from helpers.channel_pairs import open_descriptors

from trio_rpc.channels import memory_channel_pair, open_channel, open_listeners
from trio_rpc.channels.connection import owned_with_task


@pytest.fixture
async def listener():
    (listener,) = await open_listeners("tcp://127.0.0.1:0")
    async with listener:
        yield listener


async def test_leaving_the_block_closes_the_channel(listener):
    before = open_descriptors()
    async with open_channel(listener.url) as channel:
        connection = await listener.accept()
        async with connection.prepared() as accepted:
            pass
        with pytest.raises((trio.EndOfChannel, trio.BrokenResourceError)):
            await channel.receive()
    for end in (channel, accepted):
        with pytest.raises(trio.ClosedResourceError):
            await end.receive()
    assert open_descriptors() <= before


async def test_a_block_that_is_cancelled_does_not_hide_its_error(listener):
    """``trio.aclose_forcefully`` would raise Cancelled in place of the error."""
    with pytest.raises(ValueError, match="the body's"), trio.CancelScope() as scope:
        async with open_channel(listener.url):
            scope.cancel()
            raise ValueError("the body's")
    connection = await listener.accept()
    with pytest.raises(ValueError, match="the body's"), trio.CancelScope() as scope:
        async with connection.prepared():
            scope.cancel()
            raise ValueError("the body's")


async def test_an_unused_connection_can_be_closed(listener):
    before = open_descriptors()
    async with open_channel(listener.url) as channel:
        connection = await listener.accept()
        assert connection.name.startswith("127.0.0.1:")
        await connection.aclose()
        with pytest.raises((trio.EndOfChannel, trio.BrokenResourceError)):
            await channel.receive()
    assert open_descriptors() <= before


async def test_clients_of_a_unix_socket_have_no_address(tmp_path):
    (listener,) = await open_listeners(f"unix://{tmp_path}/socket")
    async with listener, open_channel(listener.url):
        connection = await listener.accept()
        assert connection.name == f"a client of {listener.url}"
        await connection.aclose()


# ---- channels with a background task


class Running:
    """A channel's task, which records how it ended."""

    def __init__(self):
        self.channel = memory_channel_pair()[0]
        self.outcome = "running"

    async def run(self, *, task_status):
        task_status.started(self.channel)
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            self.outcome = "cancelled"
            raise


async def test_a_block_owns_the_channel_and_its_task():
    running = Running()
    async with owned_with_task(running.run) as channel:
        assert channel is running.channel
    assert running.outcome == "cancelled"
    with pytest.raises(trio.ClosedResourceError):
        await channel.receive()


async def test_a_cancelled_block_keeps_its_task_until_it_is_left():
    """A cancelled session still sends its last messages and reads those of the other end."""
    running = Running()
    with trio.CancelScope() as scope:
        async with owned_with_task(running.run):
            scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
            assert running.outcome == "running"
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert running.outcome == "cancelled"


async def test_an_exception_of_the_body_is_raised_alone():
    with pytest.raises(ValueError, match="the body's"):
        async with owned_with_task(Running().run):
            raise ValueError("the body's")


async def test_an_exception_of_the_task_before_it_has_a_channel_is_raised_alone():
    async def fail(*, task_status):
        await trio.lowlevel.checkpoint()
        raise OSError("no channel")

    with pytest.raises(OSError, match="no channel"):
        async with owned_with_task(fail):
            raise AssertionError("it must not open")


async def test_opening_can_be_cancelled():
    async def wait(*, task_status):
        await trio.sleep_forever()

    with trio.move_on_after(0) as scope:
        async with owned_with_task(wait):
            raise AssertionError("it must not open")
    assert scope.cancelled_caught
