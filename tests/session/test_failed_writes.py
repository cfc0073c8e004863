"""When a write fails, packets that have arrived are still read: they may say why the peer left."""

from __future__ import annotations

import pytest
import trio
from helpers.handlers import Sleeper
from helpers.raw_peer import HELLO, RawPeer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Fate, Limits, open_session
from trio_rpc.channels import open_channel, open_forwarding
from trio_rpc.channels.forwarding.frames import Goodbye, encode
from trio_rpc.testing import memory_channel_pair
from trio_rpc.wire import messages as m
from trio_rpc.wire.codec import Codec

GONE = m.Goodbye("done", "gone fishing")


class Gate(trio.abc.Channel[bytes]):
    """A channel that delivers received packets only after a send has failed."""

    def __init__(self, inner):
        self.inner = inner
        self.delivers = trio.Event()
        self.delivers.set()
        self.failure = None

    async def send(self, value):
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            self.delivers.set()
            raise self.failure
        await self.inner.send(value)

    async def receive(self):
        try:
            return await self.inner.receive()
        finally:
            await self.delivers.wait()

    async def aclose(self):
        await self.inner.aclose()


async def end_by_failed_write(*messages, services=None, closes=True):
    """Fail to write while these messages are unread.

    Returns the outcome of a call and the record of the session's end.
    """
    ours, theirs = memory_channel_pair(10**6)
    channel, peer = Gate(ours), RawPeer(theirs)
    peer.send(HELLO, m.Welcome())
    outcome = []

    async def call(session):
        try:
            outcome.append(await session.call("work"))
        except trio_rpc.RpcError as exc:
            outcome.append(exc)

    async with (
        trio.open_nursery() as nursery,
        open_session(channel, services, on_end="keep") as session,
    ):
        nursery.start_soon(call, session)
        await wait_all_tasks_blocked()
        channel.delivers = trio.Event()
        for message in messages:
            peer.send(message)
        if closes:
            peer.channel.close()
        channel.failure = OSError("the cable is out")
        await session.notify("anything")
        end = await session.wait_closed()
    return outcome[0], end


async def test_an_unread_goodbye_is_the_reason_for_the_end(no_time):
    error, end = await end_by_failed_write(GONE)
    assert isinstance(error, trio_rpc.SessionBroken)
    assert error.orderly
    assert error.fate is Fate.UNKNOWN
    assert "gone fishing" in str(error)
    assert (end.by, end.cause) == ("peer", None)
    assert "gone fishing" in end.reason


async def test_an_unread_goodbye_that_blames_this_end_is_the_reason(no_time):
    error, end = await end_by_failed_write(m.Goodbye("protocol_error", "an odd Reply"))
    assert isinstance(error.__cause__, trio_rpc.LocalProtocolError)
    assert "an odd Reply" in str(error)
    assert end.by == "peer"


async def test_an_unread_result_is_returned(no_time):
    result, end = await end_by_failed_write(m.Reply(1, "done"), GONE)
    assert result == "done"
    assert end.by == "peer"


async def test_an_unread_illegal_message_is_the_reason(no_time):
    error, end = await end_by_failed_write(m.Reply(77, None))
    assert isinstance(error.__cause__, trio_rpc.RemoteProtocolError)
    assert end.by == "peer"


async def test_without_a_goodbye_the_session_is_lost(no_time):
    error, end = await end_by_failed_write()
    assert not error.orderly
    assert end.by == "network"
    assert end.cause is error.__cause__
    assert "without a Goodbye" in str(end.cause)


async def test_a_peer_that_has_sent_nothing_is_not_waited_for(no_time):
    error, end = await end_by_failed_write(closes=False)
    assert "the cable is out" in str(error)
    assert (end.by, error.orderly) == ("network", False)


async def test_a_peer_that_has_sent_goodbye_but_keeps_its_channel_open_has_left(no_time):
    error, end = await end_by_failed_write(GONE, closes=False)
    assert "gone fishing" in str(error)
    assert (end.by, error.orderly) == ("peer", True)


async def test_packets_of_a_peer_that_goes_on_sending_are_read_for_a_bounded_time(mock_clock):
    class Chatter(Gate):
        async def receive(self):
            if self.failure is None:
                return await super().receive()
            await trio.lowlevel.checkpoint()
            mock_clock.jump(0.01)
            return Codec(None, Limits()).encode(m.Ping(1))

    ours, theirs = memory_channel_pair(10**6)
    channel, peer = Chatter(ours), RawPeer(theirs)
    peer.send(HELLO, m.Welcome())
    async with open_session(channel, on_end="keep", limits=Limits(shutdown_timeout=2)) as session:
        await wait_all_tasks_blocked()
        channel.failure = OSError("the cable is out")
        peer.send(m.Ping(1))
        await session.notify("anything")
        end = await session.wait_closed()
        assert 2 <= trio.current_time() < 2.1
    assert end.by == "network"
    assert "the cable is out" in end.reason


async def test_no_handler_starts_whose_answer_could_not_be_sent(no_time):
    class Service(Sleeper):
        @trio_rpc.notification
        def note(self):
            self.started += 1

        @trio_rpc.method
        def plain(self):
            self.started += 1

    service = Service()
    calls = m.Request(1, "sleep", []), m.Request(2, "plain", []), m.Notification("note", [])
    _, end = await end_by_failed_write(*calls, GONE, services=service)
    assert service.started == 0
    assert end.by == "peer"


class Flood:
    @trio_rpc.stream
    async def flood(self):
        while True:
            yield bytes(20_000)


@pytest.mark.parametrize("kind", ["tcp", "tls", "unix", "ws"])
async def test_a_peer_that_sends_goodbye_and_resets_its_connection_has_left(
    kind, tmp_path, server_tls
):
    url = f"unix://{tmp_path}/socket" if kind == "unix" else f"{kind}://localhost:0"
    server_context, client_context = server_tls if kind == "tls" else (None, None)
    hello = m.Hello(1, {**HELLO.info, "max_packet": 200_000})
    items = m.Request(1, "flood", [], None, {"stream": [10**6, 10**9]})
    ends = []

    async def wait(session):
        ends.append(await session.wait_closed())

    with trio.fail_after(20):
        async with (
            trio_rpc.open_server(Flood(), url, ssl_context=server_context) as server,
            trio.open_nursery() as nursery,
            open_channel(server.urls[0], ssl_context=client_context) as channel,
        ):
            peer = RawPeer(channel)
            await channel.send(peer.bytes_of(hello, m.Welcome()))
            await channel.send(peer.bytes_of(items))
            await peer.read(m.Item)
            [session] = server.sessions
            nursery.start_soon(wait, session)
            await wait_all_tasks_blocked()
            await channel.send(peer.bytes_of(GONE))
            await trio.aclose_forcefully(channel)  # with unread items
    [end] = ends
    assert end.by == "peer"
    assert "gone fishing" in end.reason


async def test_packets_that_arrived_over_a_carrier_are_still_received(no_time):
    ours, theirs = memory_channel_pair(10**6)
    carrier = Gate(ours)
    channels = []

    async def keep(channel):
        channels.append(channel)
        await channel.send(b"hello")
        await trio.sleep_forever()

    async with (
        open_forwarding(theirs, {"x": keep}),
        open_forwarding(carrier) as forwarding,
    ):
        channel = await forwarding.open("x")
        assert await channel.receive() == b"hello"
        carrier.delivers = trio.Event()
        await channels[0].send(b"last")
        await channels[0].aclose()
        await wait_all_tasks_blocked()
        carrier.failure = OSError("the cable is out")
        await channel.send(b"anything")
        assert await channel.receive() == b"last"
        with pytest.raises(trio.EndOfChannel):
            await channel.receive()
        with pytest.raises(trio.BrokenResourceError, match="the cable is out"):
            await forwarding.open("x")


async def test_an_unread_goodbye_of_a_carrier_is_the_reason(no_time):
    ours, theirs = memory_channel_pair(10**6)
    carrier = Gate(ours)

    async def keep(channel):
        await channel.send(b"hello")
        await trio.sleep_forever()

    async with open_forwarding(carrier) as forwarding:
        async with open_forwarding(theirs, {"x": keep}):
            channel = await forwarding.open("x")
            assert await channel.receive() == b"hello"
            await wait_all_tasks_blocked()
            carrier.delivers = trio.Event()
            theirs.send_nowait(encode(Goodbye("too loud")))
            await wait_all_tasks_blocked()
            carrier.failure = OSError("the cable is out")
            await channel.send(b"anything")
            with pytest.raises(trio.BrokenResourceError, match="too loud"):
                await channel.receive()
