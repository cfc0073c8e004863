"""Law 16: when the body of a block and its background fail at once, the body's error is raised."""

from __future__ import annotations

import pytest
import trio
from helpers.handlers import Echo
from helpers.raw_peer import HELLO, RawPeer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import open_session
from trio_rpc.channels import open_forwarding
from trio_rpc.gateway import Gateway, open_http_server
from trio_rpc.testing import memory_channel_pair
from trio_rpc.wire import messages as m

BUG = ZeroDivisionError("a bug of the channel")
OWN = ValueError("the body's own")
GROUP = ExceptionGroup("the body's own", [ValueError("first"), KeyError("second")])


class Buggy(trio.abc.Channel[bytes]):
    """A channel whose ``receive`` raises an invalid exception when a test asks for it."""

    def __init__(self, inner):
        self.inner = inner
        self.fails = trio.Event()

    async def send(self, value):
        await self.inner.send(value)

    async def receive(self):
        if not self.fails.is_set():
            packets = []
            async with trio.open_nursery() as nursery:

                async def receive():
                    packets.append(await self.inner.receive())
                    nursery.cancel_scope.cancel()

                nursery.start_soon(receive)
                await self.fails.wait()
                nursery.cancel_scope.cancel()
            if packets:
                return packets[0]
        raise BUG

    async def aclose(self):
        await self.inner.aclose()


async def in_session(body):
    ours, theirs = memory_channel_pair()
    channel, peer = Buggy(ours), RawPeer(theirs)
    peer.send(HELLO, m.Welcome())
    async with open_session(channel) as session:
        await body(channel, session)


async def in_forwarding(body):
    ours, theirs = memory_channel_pair()
    async with open_forwarding(theirs):
        channel = Buggy(ours)
        async with open_forwarding(channel) as forwarding:
            await wait_all_tasks_blocked()
            await body(channel, forwarding)


BLOCKS = [in_session, in_forwarding]


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("own", [OWN, GROUP], ids=["one", "group"])
async def test_law_16_the_bodys_own_error_is_raised_with_a_note_about_the_channels_bug(
    block, own, autojump_clock
):
    async def body(channel, _):
        channel.fails.set()
        with trio.CancelScope(shield=True):
            for _ in range(5):
                await trio.lowlevel.checkpoint()
        raise own

    with pytest.raises(type(own)) as caught:
        await block(body)
    assert caught.value is own
    assert any("a bug of the channel" in note for note in own.__notes__)
    del own.__notes__


@pytest.mark.parametrize("block", BLOCKS)
async def test_law_16_a_system_exit_in_the_body_is_raised(block, autojump_clock):
    async def body(channel, _):
        channel.fails.set()
        with trio.CancelScope(shield=True):
            for _ in range(5):
                await trio.lowlevel.checkpoint()
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        await block(body)


@pytest.mark.parametrize("block", BLOCKS)
async def test_law_16_the_channels_bug_is_raised_if_the_body_only_waits(block, autojump_clock):
    async def body(channel, _):
        channel.fails.set()
        await trio.sleep_forever()

    with pytest.raises(ZeroDivisionError) as caught:
        await block(body)
    assert caught.value is BUG


async def test_law_16_the_channels_bug_is_raised_in_place_of_a_call_that_failed_because_of_it(
    autojump_clock,
):
    async def body(channel, session):
        async def fail():
            await wait_all_tasks_blocked()
            channel.fails.set()

        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail)
                await session.call("anything")

    with pytest.raises(ZeroDivisionError):
        await in_session(body)


@pytest.mark.parametrize("own", [OWN, GROUP, SystemExit(3)], ids=["one", "group", "exit"])
@pytest.mark.parametrize("kind", ["gateway", "http server", "server", "client"])
async def test_law_16_a_serving_block_raises_the_error_of_its_body(kind, own):
    with pytest.raises(type(own)) as caught:
        if kind == "gateway":
            async with Gateway(Echo()).run():
                raise own
        elif kind == "http server":
            async with open_http_server(Gateway(Echo()), "http://127.0.0.1:0"):
                raise own
        elif kind == "server":
            async with trio_rpc.open_server(Echo(), "tcp://127.0.0.1:0"):
                raise own
        else:
            async with (
                trio_rpc.open_server(Echo(), "tcp://127.0.0.1:0") as server,
                trio_rpc.connect(server.urls[0]),
            ):
                raise own
    assert caught.value is own
