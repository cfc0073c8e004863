"""A peer in Node that sends at full speed while the server leaves sees an orderly end.

It reads the Goodbye before the end of the connection.
"""

from __future__ import annotations

import json
import shutil
import ssl
from pathlib import Path

import pytest
import trio
import trustme
from helpers.raw_peer import HELLO

import trio_rpc
from trio_rpc import Limits
from trio_rpc.wire import messages as m
from trio_rpc.wire.codec import Codec

PEER = Path(__file__).parent / "node_peer.js"
CODEC = Codec(None, Limits())
OPENING = b"".join(CODEC.encode(message) for message in (HELLO, m.Welcome()))
PINGS = b"".join(CODEC.encode(m.Ping(number)) for number in range(1, 1000))
NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(NODE is None, reason="Node is not installed")


async def peer(kind, place, authority):
    """Run the peer until its connection has ended, and return its record."""
    command = [NODE, "--experimental-websocket", PEER, kind, place, OPENING.hex(), PINGS.hex()]
    with trio.fail_after(30):
        done = await trio.run_process([*command, authority], capture_stdout=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", ["tcp", "unix", "tls", "ws"])
async def test_a_node_peer_that_sends_at_full_speed_reads_the_goodbye_and_an_orderly_end(
    kind, tmp_path
):
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    url = f"unix://{tmp_path}/socket" if kind == "unix" else f"{kind}://127.0.0.1:0"
    tls = {"ssl_context": context} if kind == "tls" else {}
    record = {}

    async def watch(place):
        record.update(await peer(kind, place, tmp_path / "authority.pem"))

    async with trio.open_nursery() as nursery:
        limits = Limits(shutdown_timeout=20)  # Node may be slow to close on a busy machine
        async with trio_rpc.open_server(None, url, limits=limits, **tls) as server:
            place = f"{tmp_path}/socket" if kind == "unix" else server.urls[0]
            nursery.start_soon(watch, place)
            with trio.fail_after(20):
                while not any(is_busy(session) for session in server.sessions):  # noqa: ASYNC110 - no event
                    await trio.sleep(0.001)
    *_, goodbye = CODEC.decode(bytes.fromhex(record["last"]))
    assert isinstance(goodbye, m.Goodbye)
    assert (record["errors"], record["ended"]) == ([], True)


def is_busy(session):
    return session.statistics().messages_received > 5_000
