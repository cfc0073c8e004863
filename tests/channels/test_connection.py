"""The blocks that own channels: nothing is left of a channel behind its block."""

from __future__ import annotations

import pytest
import trio
from channel_pairs import open_descriptors

from trio_rpc.channels import open_channel, open_listeners


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
    """``trio.aclose_forcefully`` would raise Cancelled in its place."""
    with trio.CancelScope() as scope, pytest.raises(ValueError, match="the body's"):
        async with open_channel(listener.url):
            scope.cancel()
            raise ValueError("the body's")
    connection = await listener.accept()
    with trio.CancelScope() as scope, pytest.raises(ValueError, match="the body's"):
        async with connection.prepared():
            scope.cancel()
            raise ValueError("the body's")


async def test_a_connection_that_is_not_wanted_is_closed_at_once(listener):
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
