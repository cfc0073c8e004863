"""The channel of a child process itself: forwarding and relay reach a child."""

from __future__ import annotations

import os
import signal
import socket
import sys

import pytest
import trio
from helpers import children
from test_processes import TIME_LIMIT, bounded, check_leaks, command, exists  # noqa: F401 - fixtures

import trio_rpc
from trio_rpc import Limits, Refused, SessionBroken, open_session
from trio_rpc.channels import (
    ChannelBroken,
    ProcessExit,
    open_channel,
    open_forwarding,
    open_listeners,
    open_parent_channel,
    open_process_channel,
    relay,
)


async def test_packets_go_to_a_child_and_back():
    """The pipe to a child process is a channel, and so is the way to a thread."""
    async with open_process_channel(command("echo"), name="echo") as channel:
        assert exists(channel.pid)
        assert channel.name == f"child process {channel.pid} (echo)"
        assert channel.returncode is None
        for packet in (b"a", bytes(100_000)):
            await channel.send(packet)
            assert await channel.receive() == packet
    assert channel.returncode == 0
    assert not exists(channel.pid)


async def hear(channel):
    assert await channel.receive() == b"from the child"


async def test_forwarding_carries_several_sessions_to_one_child_and_a_channel_back():
    received = []

    async def back(channel):
        received.append(await channel.receive())

    async with (
        open_process_channel(command("forwarding")) as carrier,
        open_forwarding(carrier, {"back": back}) as forwarding,
    ):
        for name in ("a", "b"):
            async with open_session(await forwarding.open(f"plugins/{name}")) as session:
                assert await session.call(f"{name}.pid") == carrier.pid
                async with session.proxy(name, children.Plugin).numbers(100) as stream:
                    assert [number async for number in stream] == list(range(100))
        with pytest.raises(Refused, match="not for you"):
            await (await forwarding.open("plugins/secret")).receive()
    assert received == [b"from the child"]
    assert carrier.returncode == 0


async def test_a_child_that_dies_ends_the_sessions_over_it_with_its_exit_code():
    async with (
        open_process_channel(command("forwarding")) as carrier,
        open_forwarding(carrier, {"back": hear}) as forwarding,
    ):
        channel = await forwarding.open("plugins/a")
        async with open_session(channel, on_end="keep") as session:
            with pytest.raises(SessionBroken, match="was killed by SIGKILL"):
                await session.call("a.die", signal.SIGKILL)
            end = await session.wait_closed()
            assert (end.by, end.detail) == ("network", ProcessExit(-signal.SIGKILL))


async def test_a_client_over_tcp_is_relayed_to_a_child(nursery):
    [listener] = await open_listeners("tcp://127.0.0.1:0")
    returncodes = []

    async def accept():
        connection = await listener.accept()
        async with connection.prepared() as client, open_process_channel(command()) as child:
            await relay(client, child)
        returncodes.append(child.returncode)

    nursery.start_soon(accept)
    limits = Limits(handshake_timeout=TIME_LIMIT)
    async with (
        open_channel(listener.url) as channel,
        open_session(channel, {"parent": children.Plugin()}, limits=limits) as session,
    ):
        assert await session.call("pid") != os.getpid()
        assert await session.call("echo", [1, {"a": b"2"}]) == [1, {"a": b"2"}]
    await listener.aclose()
    while not returncodes:  # noqa: ASYNC110 - no event tells
        await trio.sleep(0.01)
    assert returncodes == [0]


async def test_a_child_that_succeeds_ends_its_channel_and_a_child_that_fails_breaks_it():
    async with open_process_channel([sys.executable, "-c", ""]) as channel:
        with pytest.raises(trio.EndOfChannel, match="ended with exit code 0"):
            await channel.receive()
    async with open_process_channel([sys.executable, "-c", "raise SystemExit(3)"]) as channel:
        with pytest.raises(ChannelBroken, match="ended with exit code 3") as caught:
            await channel.receive()
    assert caught.value.detail == ProcessExit(3)


async def test_a_child_that_goes_on_is_terminated_after_its_time():
    async with open_process_channel(["sleep", "60"], goodbye_time=0.05) as channel:
        pass
    assert channel.returncode == -signal.SIGTERM


async def test_the_parents_channel_can_be_opened_only_once(monkeypatch):
    ours, theirs = socket.socketpair()
    ours.close()
    monkeypatch.setenv("TRIO_RPC_CHANNEL_FD", str(theirs.detach()))
    async with open_parent_channel() as channel:
        with pytest.raises(trio.EndOfChannel):
            await channel.receive()
    with pytest.raises(RuntimeError, match="is not set"):
        async with open_parent_channel():
            raise AssertionError("it must not open")
    with pytest.raises(RuntimeError, match="is not set"):
        await trio_rpc.serve_parent(children.Plugin())


@pytest.mark.parametrize(
    ("arguments", "error"), [([], ValueError), ("true", TypeError), (["no-such-program"], OSError)]
)
async def test_a_command_that_cannot_be_started_is_refused(arguments, error):
    with pytest.raises(error):
        async with open_process_channel(arguments):
            raise AssertionError("it must not open")
