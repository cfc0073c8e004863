"""A WebSocket peer that is still sending when its session ends can read the Goodbye.

The Close frame follows it.
"""

from __future__ import annotations

import trio
from helpers.websocket_peer import RawPeer, frame, request

import trio_rpc
from trio_rpc import Limits
from trio_rpc.wire import messages as m
from trio_rpc.wire.codec import Codec

BINARY, CLOSE = 2, 8
CODEC = Codec(None, Limits())
PINGS = frame(BINARY, b"".join(CODEC.encode(m.Ping(number)) for number in range(1, 1000)))


async def test_a_peer_that_sends_invalid_packets_and_goes_on_sending_can_read_the_goodbye():
    async with trio_rpc.open_server(None, "ws://127.0.0.1:0") as server:
        port = int(server.urls[0].rpartition(":")[2])
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        peer = RawPeer(stream)
        await peer.send(request())
        await peer.read_head()
        await peer.send(frame(BINARY, CODEC.encode(m.Reply(77, None))) + 40 * PINGS)
        goodbyes = []
        with trio.fail_after(20):
            while (received := await peer.read_frame())[0] != CLOSE:
                messages = CODEC.decode(received[1])
                goodbyes += [each.code for each in messages if isinstance(each, m.Goodbye)]
                await peer.send(PINGS)
            await peer.send(frame(CLOSE, received[1]))
            assert await peer.read_to_end() == b""
        await stream.aclose()
        assert goodbyes == ["protocol_error"]
