"""A peer that is still sending when the session ends can read the Goodbye.

The connection is not reset before that.
"""

from __future__ import annotations

import contextlib

import pytest
import trio
from helpers.raw_peer import HELLO
from helpers.transports import Transport
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Limits
from trio_rpc.channels import memory_channel_pair, open_forwarding
from trio_rpc.channels.resumable.replay import Frame, Kind, decode, encode
from trio_rpc.wire import messages as m
from trio_rpc.wire.codec import Codec

KINDS = ["tcp", "tls", "unix"]
CODEC = Codec(None, Limits())


def packet(*messages):
    data = b"".join(CODEC.encode(message) for message in messages)
    return len(data).to_bytes(4, "big") + data


PING = packet(*[m.Ping(number) for number in range(1, 2000)])
WRONG = packet(m.Reply(77, None))


@contextlib.asynccontextmanager
async def serving(kind, tmp_path, server_tls, **options):
    """Run a server, and yield it with a byte stream to it."""
    url = f"unix://{tmp_path}/socket" if kind == "unix" else f"{kind}://localhost:0"
    context = server_tls[0] if kind == "tls" else None
    async with trio_rpc.open_server(None, url, ssl_context=context, **options) as server:
        if kind == "unix":
            stream = await trio.open_unix_socket(f"{tmp_path}/socket")
        else:
            port = int(server.urls[0].rpartition(":")[2])
            stream = await trio.open_tcp_stream("localhost", port)
        if kind == "tls":
            stream = trio.SSLStream(stream, server_tls[1], server_hostname="localhost")
        async with stream:
            yield server, stream


async def send_on_and_read(stream):
    """Send much, read chunks, send more after each of them, and return all bytes that were read."""
    data = b""
    with trio.fail_after(20):
        for _ in range(40):
            await stream.send_all(PING)
        try:
            while chunk := await stream.receive_some(1000):
                data += chunk
                await stream.send_all(PING)
        except trio.BrokenResourceError:
            # OpenSSL does not report the end of TLS while there is unread data.
            assert isinstance(stream, trio.SSLStream)
    return data


def goodbyes(data):
    """Return the Goodbyes among the bytes received over a stream."""
    found = []
    while data:
        size = int.from_bytes(data[:4], "big")
        messages = CODEC.decode(data[4 : 4 + size])
        found += [each for each in messages if isinstance(each, m.Goodbye)]
        data = data[4 + size :]
    return found


async def refuse(session, credentials):
    raise trio_rpc.Refused("not today")


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_peer_that_breaks_the_protocol_and_goes_on_sending_can_read_the_goodbye(
    kind, resume, tmp_path, server_tls
):
    async with serving(kind, tmp_path, server_tls, resume=resume) as (_, stream):
        await stream.send_all(packet(HELLO, m.Welcome()) + WRONG + 20 * PING)
        [goodbye] = goodbyes(await send_on_and_read(stream))
        assert goodbye.code == "protocol_error"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refused_peer_that_goes_on_sending_can_read_the_goodbye(kind, tmp_path, server_tls):
    async with serving(kind, tmp_path, server_tls, authenticate=refuse) as (_, stream):
        await stream.send_all(packet(HELLO) + 20 * PING)
        [goodbye] = goodbyes(await send_on_and_read(stream))
        assert (goodbye.code, goodbye.message) == ("refused", "not today")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_peer_that_sends_while_the_server_closes_can_read_the_goodbye(
    kind, tmp_path, server_tls
):
    async with serving(kind, tmp_path, server_tls) as (server, stream):
        await stream.send_all(packet(HELLO, m.Welcome()))
        while not server.sessions:  # noqa: ASYNC110 - no event tells when
            await trio.sleep(0.001)
        [session] = server.sessions
        await stream.send_all(20 * PING)
        with trio.CancelScope() as scope:
            scope.cancel()  # so that it closes at once
            await session.aclose()
        [goodbye] = goodbyes(await send_on_and_read(stream))
        assert goodbye.code == "done"


async def test_a_server_that_is_sending_can_read_the_goodbye_of_its_client():
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    data = []

    async def serve(stream):
        await stream.send_all(packet(HELLO, m.Welcome()) + 20 * PING)
        data.append(await send_on_and_read(stream))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        with contextlib.suppress(KeyError):
            url = f"tcp://127.0.0.1:{listener.socket.getsockname()[1]}"
            async with trio_rpc.connect(url):
                raise KeyError  # so that it closes at once
        while not data:  # noqa: ASYNC110 - likewise
            await trio.sleep(0.001)
        nursery.cancel_scope.cancel()
    assert goodbyes(data[0])


async def test_a_client_of_an_unknown_session_that_goes_on_sending_can_read_the_refusal(
    tmp_path, server_tls
):
    async with serving("tcp", tmp_path, server_tls, resume=True) as (_, stream):
        resume = encode(Frame(Kind.RESUME, rest=b"\1" + bytes(16)))
        await stream.send_all(len(resume).to_bytes(4, "big") + resume + 20 * PING)
        data = await send_on_and_read(stream)
        assert decode(data[4:]).kind is Kind.REFUSE


@pytest.mark.parametrize("kind", KINDS)
async def test_the_server_waits_for_a_peer_that_never_closes_until_the_shutdown_timeout(
    kind, tmp_path, server_tls
):
    limits = Limits(shutdown_timeout=0.2)
    async with serving(kind, tmp_path, server_tls, limits=limits) as (server, stream):
        await stream.send_all(packet(HELLO, m.Welcome()) + WRONG)
        with trio.fail_after(20):
            while await stream.receive_some():
                pass  # the server's half ends at once; this half stays open
            while server.sessions:  # noqa: ASYNC110 - likewise
                await trio.sleep(0.001)


async def test_the_connection_of_a_peer_that_never_stops_sending_is_reset_after_many_bytes(
    tmp_path, server_tls, monkeypatch
):
    monkeypatch.setattr(trio_rpc.channels.stream, "MOST_DROPPED", 10**6)
    limits = Limits(shutdown_timeout=60)
    async with serving("tcp", tmp_path, server_tls, limits=limits) as (_, stream):
        await stream.send_all(packet(HELLO, m.Welcome()) + WRONG)
        with trio.fail_after(20), pytest.raises(trio.BrokenResourceError):
            while True:
                await stream.send_all(bytes(10**5))


async def test_race_receiving_from_a_channel_that_is_lingering_raises_closed_resource_error():
    ours, theirs = (trio.SocketStream(end) for end in trio.socket.socketpair())
    channel = trio_rpc.channels.StreamChannel(ours)
    async with theirs, trio.open_nursery() as nursery:
        nursery.start_soon(channel.linger)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.ClosedResourceError):
            await channel.receive()
        nursery.cancel_scope.cancel()
    await channel.aclose()


def framed(*frames):
    """Return frames of a resumable channel as they are sent over a byte stream."""
    packets = [encode(frame) for frame in frames]
    return b"".join(len(each).to_bytes(4, "big") + each for each in packets)


def numbered(first, *packets):
    return [Frame(Kind.DATA, first + index, 0, each) for index, each in enumerate(packets)]


class Frames:
    """Reads the frames of a resumable channel from a byte stream."""

    def __init__(self, stream):
        self._stream = stream
        self._data = b""

    async def next(self):
        """Return the next frame, or None at the end of the stream."""
        while len(self._data) < 4 or len(self._data) < 4 + int.from_bytes(self._data[:4], "big"):
            chunk = await self._stream.receive_some(1000)
            if not chunk:
                return None
            self._data += chunk
        size = int.from_bytes(self._data[:4], "big")
        frame, self._data = decode(self._data[4 : 4 + size]), self._data[4 + size :]
        return frame


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_a_peer_that_sends_while_a_resumable_session_ends_reads_everything_and_an_orderly_end(
    kind, tmp_path, server_tls
):
    async with serving(kind, tmp_path, server_tls, resume=True) as (_, stream):
        with trio.fail_after(20):
            await stream.send_all(
                framed(
                    Frame(Kind.OPEN, rest=b"\1"),
                    *numbered(1, packet(HELLO, m.Welcome())[4:], WRONG[4:]),
                )
            )
            frames, seen = Frames(stream), []
            while not seen or seen[-1].kind is not Kind.END:
                seen.append(await frames.next())
            # The server closes when it reads the Ack. The rest is in its system by then.
            rest = numbered(3, *40 * [PING[4:]])
            await stream.send_all(framed(Frame(Kind.ACK, ack=seen[-1].number), *rest))
            assert await frames.next() is None
    assert any(b"protocol_error" in frame.rest for frame in seen)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_a_peer_that_sends_while_a_forwarding_ends_reads_the_goodbye_and_an_orderly_end(
    kind, nursery, tmp_path, server_tls
):
    transport = Transport(kind, nursery, tmp_path, server_tls)
    async with transport.join(Limits(), Limits()) as (ours, theirs):
        wrong = b"\xff" * 10_000
        frames = (len(wrong).to_bytes(4, "big") + wrong) * 40
        nursery.start_soon(theirs.stream.send_all, frames)
        async with open_forwarding(ours) as forwarding:
            await forwarding.wait_closed()
        data = await read_to_the_end(theirs.stream)
        assert b"frame" in data


async def test_a_peer_that_sends_while_a_relay_ends_reads_the_last_packet_and_an_orderly_end(
    nursery, tmp_path, server_tls
):
    ours, theirs = memory_channel_pair()
    async with Transport("tcp", nursery, tmp_path, server_tls).join(Limits(), Limits()) as ends:
        await ours.send(b"last")
        await ours.aclose()
        nursery.start_soon(ends[1].stream.send_all, 400 * PING)
        nursery.start_soon(trio_rpc.channels.relay, theirs, ends[0])
        assert (await read_to_the_end(ends[1].stream))[4:] == b"last"


async def read_to_the_end(stream):
    """Read slowly until an orderly end, and then close."""
    data = b""
    with trio.fail_after(20):
        while chunk := await stream.receive_some(10):
            data += chunk
            await wait_all_tasks_blocked()
    return data
