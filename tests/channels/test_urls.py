"""URLs: their meaning, and errors of one line for invalid ones."""

from __future__ import annotations

import socket
import ssl

import pytest
import trio
from helpers.channel_pairs import fails_to_open, open_descriptors

from trio_rpc.channels import Address, open_listeners, parse_url


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("tcp://localhost:5000", Address("tcp", "localhost", 5000)),
        ("tls://example.org:443", Address("tls", "example.org", 443)),
        ("tcp://127.0.0.1:0", Address("tcp", "127.0.0.1", 0)),
        ("tcp://[::1]:5000", Address("tcp", "::1", 5000)),
        ("ws://localhost:8000", Address("ws", "localhost", 8000)),
        ("ws://[::1]:8000/a/b", Address("ws", "::1", 8000, "/a/b")),
        ("wss://example.org:443/a%20b", Address("wss", "example.org", 443, "/a%20b")),
        ("unix:///run/market.sock", Address("unix", path="/run/market.sock")),
        ("unix:market.sock", Address("unix", path="market.sock")),
        ("unix:///with%20blank", Address("unix", path="/with blank")),
    ],
)
def test_a_url_is_parsed_and_formatted_again(url, address):
    assert parse_url(url) == address
    assert str(address) == url


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("ws://localhost", Address("ws", "localhost", 80)),
        ("wss://example.org/rpc", Address("wss", "example.org", 443, "/rpc")),
        ("ws://localhost:1/", Address("ws", "localhost", 1)),
        ("ws://localhost:1/ä b", Address("ws", "localhost", 1, "/%C3%A4%20b")),
        ("tcp://localhost:1/", Address("tcp", "localhost", 1)),
    ],
)
def test_other_forms_of_a_url_are_parsed(url, address):
    assert parse_url(url) == address
    assert parse_url(str(address)) == address


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "no scheme"),
        ("localhost", "no scheme"),
        ("localhost:5000", "unknown scheme 'localhost'"),
        ("ftp://localhost:5000", "unknown scheme 'ftp'"),
        ("http://localhost:5000", "sessions do not use http, but trio_rpc.gateway does"),
        ("https://localhost", "sessions do not use https, but trio_rpc.gateway does"),
        ("tcp://localhost", "no port"),
        ("tcp://:5000", "no host"),
        ("tcp:localhost:5000", "more than a host and a port"),
        ("tcp://localhost:port", "port"),
        ("tcp://a..b:1", "not a valid host name"),
        (f"tcp://{'x' * 64}:1", "not a valid host name"),
        ("tcp://a b:1", "blanks"),
        ("tcp://a%00b:1", "control characters"),
        ("tcp://localhost:65536", "range"),
        ("tcp://localhost:-1", "port"),
        ("tcp://[::1:5000", "IPv6"),
        ("tcp://user:secret@localhost:1", "more than a host"),
        ("tcp://localhost:1/path", "more than a host"),
        ("tcp://localhost:1?a=b", "query"),
        ("tcp://local\nhost:1", "control characters"),
        ("ws://localhost:1/a?b=c", "query"),
        ("ws://user@localhost:1/a", "more than a host"),
        ("ws://:1/a", "no host"),
        ("ws:/a", "no host"),
        ("wss://localhost:65536/a", "range"),
        ("ws://localhost:1/a\nb", "control characters"),
        ("unix:", "no file name"),
        ("unix:///", "no file name"),
        ("unix:///directory/", "no file name"),
        ("unix://relative/path", "three slashes"),
        ("unix:///nul%00", "no file name"),
        ("x" * 10_000, "no scheme"),
    ],
)
async def test_bad_urls_are_refused_in_one_line(url, reason):
    for use in (fails_to_open, open_listeners):
        with pytest.raises(ValueError, match=reason) as caught:
            await use(url)
        text = str(caught.value)
        assert "accepted are tcp://" in text
        assert "\n" not in text
        assert len(text) < 400


async def test_a_refused_connection_is_one_clear_error():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # it never listens, so the port refuses connections
        url = f"tcp://127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(ConnectionRefusedError) as caught:
            await fails_to_open(url)
    assert str(caught.value) == f"cannot connect to {url}: Connection refused"


async def test_an_unknown_host_is_one_clear_error():
    with pytest.raises(OSError, match=r"cannot connect to tcp://host\.invalid:1: "):
        await fails_to_open("tcp://host.invalid:1")


async def test_a_missing_socket_file_is_one_clear_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="No such file"):
        await fails_to_open(f"unix://{tmp_path}/none")


async def test_port_zero_is_only_for_listening():
    with pytest.raises(ValueError, match="only for listening"):
        await fails_to_open("tcp://localhost:0")


async def test_an_error_before_the_tls_handshake_leaves_no_descriptor(certificates):
    """An error between connecting and the handshake leaves no descriptor behind."""
    listeners = await open_listeners("tls://127.0.0.1:0", ssl_context=certificates.server)
    before = open_descriptors()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # invalid for a client
    with pytest.raises(ssl.SSLError):
        await fails_to_open(listeners[0].url, ssl_context=client)
    assert open_descriptors() <= before
    for listener in listeners:
        await listener.aclose()


async def test_connecting_over_tls_can_be_cancelled(certificates):
    (listener,) = await open_listeners("tls://127.0.0.1:0", ssl_context=certificates.server)
    before = open_descriptors()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails_to_open, listener.url)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert open_descriptors() <= before
    await listener.aclose()
