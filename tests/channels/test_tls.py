"""A TLS connection that fails ends at once at both ends, with an error of one line."""

from __future__ import annotations

import datetime as dt
import ssl
import warnings

import pytest
import trio
import trustme
from helpers.channel_pairs import connected, fails_to_open, open_descriptors

from trio_rpc.channels import StreamChannel, open_channel, open_listeners
from trio_rpc.channels.tls import client_context
from trio_rpc.errors import DecodeError

SOON = 2.0  # seconds: twice the promised time, for slow machines


def server_context(authority, host="127.0.0.1", **options):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host, **options).configure_cert(context)
    return context


def demanding_context(authority):
    context = server_context(authority)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def use(block, greeting, outcome):
    """Enter the block of one end, exchange a packet, and record the packet or the error."""
    try:
        async with block as channel:
            await channel.send(greeting)
            outcome.append(await channel.receive())
            await channel.aclose()
    except (OSError, trio.BrokenResourceError, trio.EndOfChannel, DecodeError) as exc:
        outcome.append(exc)


async def accept_and_use(listener, greeting, outcome):
    connection = await listener.accept()
    await use(connection.prepared(), greeting, outcome)


async def connect_both(listen, context, connect, client_context):
    """Connect a client to a server, and return the packets or the error of each."""
    (listener,) = await open_listeners(f"{listen}://127.0.0.1:0", ssl_context=context)
    url = f"{connect}://{listener.url.partition('://')[2]}"
    at_server, at_client = [], []
    with trio.fail_after(SOON):
        async with listener, trio.open_nursery() as nursery:
            nursery.start_soon(accept_and_use, listener, b"from the server", at_server)
            nursery.start_soon(
                use,
                open_channel(url, ssl_context=client_context),
                b"from the client",
                at_client,
            )
    for error in (*at_server, *at_client):
        assert "\n" not in str(error)
    return at_client[0], at_server[0]


async def test_a_verified_connection_works(certificates):
    client, server = await connect_both("tls", certificates.server, "tls", certificates.client)
    assert (client, server) == (b"from the server", b"from the client")


async def test_a_certificate_for_another_host_is_refused(certificates):
    context = server_context(certificates.ca, "elsewhere.example")
    client, server = await connect_both("tls", context, "tls", certificates.client)
    assert isinstance(client, ssl.SSLCertVerificationError)
    assert "not valid for '127.0.0.1'" in str(client)
    assert "tls://127.0.0.1:" in str(client)
    assert isinstance(server, ssl.SSLError)


@pytest.fixture
def trusted(certificates, tmp_path, monkeypatch):
    """Make the system trust the test's authority, so that a client needs no special context."""
    authority = tmp_path / "authority.pem"
    certificates.ca.cert_pem.write_to_path(str(authority))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))


@pytest.mark.parametrize("scheme", ["tls", "wss"])
@pytest.mark.parametrize(
    "name", ["elsewhere.example", "127.0.0.2", "localhost", "127.0.0.1.example", "::1"]
)
async def test_a_certificate_that_is_valid_for_another_name_is_refused(
    certificates, trusted, scheme, name
):
    context = server_context(certificates.ca, name)
    client, server = await connect_both(scheme, context, scheme, None)
    assert isinstance(client, ssl.SSLCertVerificationError)
    assert "not valid for '127.0.0.1'" in str(client)
    assert isinstance(server, OSError)


@pytest.mark.parametrize("scheme", ["tls", "wss"])
async def test_a_client_needs_no_context_for_a_valid_certificate(certificates, trusted, scheme):
    client, server = await connect_both(scheme, certificates.server, scheme, None)
    assert (client, server) == (b"from the server", b"from the client")


def outdated(context):
    """Restrict a context to TLS 1.1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


async def test_tls_below_1_2_is_refused(certificates, trusted):
    context = outdated(server_context(certificates.ca))
    control, _ = await connect_both("tls", context, "tls", outdated(ssl.create_default_context()))
    assert control == b"from the server", "this OpenSSL cannot speak TLS 1.1 at all"
    ours = client_context()
    ours.set_ciphers("ALL:@SECLEVEL=0")  # so that the version is refused and not its ciphers
    client, server = await connect_both("tls", context, "tls", ours)
    assert isinstance(client, ssl.SSLError)
    assert isinstance(server, ssl.SSLError)


async def test_a_certificate_of_an_unknown_authority_is_refused(certificates):
    context = server_context(trustme.CA())
    client, server = await connect_both("tls", context, "tls", certificates.client)
    assert isinstance(client, ssl.SSLCertVerificationError)
    assert "issuer" in str(client)
    assert isinstance(server, ssl.SSLError)


async def test_the_default_context_verifies(certificates):
    client, _ = await connect_both("tls", certificates.server, "tls", None)
    assert isinstance(client, ssl.SSLCertVerificationError)


async def test_an_expired_certificate_is_refused(certificates):
    past = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    context = server_context(certificates.ca, not_after=past)
    client, _ = await connect_both("tls", context, "tls", certificates.client)
    assert isinstance(client, ssl.SSLCertVerificationError)
    assert "expired" in str(client)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_without_a_required_certificate_is_refused(certificates, version):
    context = demanding_context(certificates.ca)
    context.maximum_version = version
    client, server = await connect_both("tls", context, "tls", certificates.client)
    assert isinstance(client, (ssl.SSLError, trio.BrokenResourceError))
    assert "client certificate" in str(client)
    assert isinstance(server, ssl.SSLError)
    assert "did not return a certificate" in str(server)


async def test_mutual_tls_works(nursery, certificates):
    client_context = ssl.create_default_context()
    certificates.ca.configure_trust(client_context)
    certificates.ca.issue_cert("ann@example.org").configure_cert(client_context)
    client, server = await connected(
        nursery, "tls://127.0.0.1:0", demanding_context(certificates.ca), client_context
    )
    names = server.stream.getpeercert()["subjectAltName"]
    assert ("email", "ann@example.org") in names
    await client.aclose()
    await server.aclose()


async def test_a_tls_version_that_is_too_old_is_refused(certificates):
    context = server_context(certificates.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    old = ssl.create_default_context()
    certificates.ca.configure_trust(old)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    client, server = await connect_both("tls", context, "tls", old)
    assert isinstance(client, ssl.SSLError)
    assert isinstance(server, ssl.SSLError)


async def test_plaintext_to_a_tls_port_is_named_in_the_errors(certificates):
    client, server = await connect_both("tls", certificates.server, "tcp", None)
    assert isinstance(client, (trio.EndOfChannel, trio.BrokenResourceError, DecodeError))
    assert isinstance(server, ssl.SSLError)
    assert "does not speak TLS" in str(server)


async def test_tls_to_a_plaintext_port_is_named_in_the_errors(certificates):
    client, server = await connect_both("tcp", None, "tls", certificates.client)
    assert isinstance(client, ssl.SSLError)
    assert isinstance(server, DecodeError)
    assert "a TLS handshake: this is not a TLS port" in str(server)


async def test_an_end_without_close_notify_breaks_the_channel(nursery, certificates):
    left, right = await connected(
        nursery, "tls://127.0.0.1:0", certificates.server, certificates.client
    )
    async with trio.open_nursery() as sending:
        sending.start_soon(left.send, b"whole")
        assert await right.receive() == b"whole"
    await left.stream.transport_stream.aclose()
    with pytest.raises(trio.BrokenResourceError, match="without closing TLS"):
        await right.receive()
    await left.aclose()
    await right.aclose()


async def accept_silent(certificates):
    """Accept a client that does not start its handshake."""
    (listener,) = await open_listeners("tls://127.0.0.1:0", ssl_context=certificates.server)
    port = int(listener.url.rpartition(":")[2])
    silent = await trio.open_tcp_stream("127.0.0.1", port)
    return listener, silent, await listener.accept()


async def test_closing_before_the_handshake_does_not_wait(certificates):
    before = open_descriptors()
    listener, silent, connection = await accept_silent(certificates)
    with trio.fail_after(SOON):
        await connection.aclose()
    await silent.aclose()
    await listener.aclose()
    assert open_descriptors() <= before


async def test_closing_during_the_handshake_ends_it(certificates):
    listener, silent, connection = await accept_silent(certificates)

    async def prepare():
        with pytest.raises(trio.ClosedResourceError):
            async with connection.prepared():
                raise AssertionError("it must not open")

    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(prepare)
            await trio.testing.wait_all_tasks_blocked()
            await connection.aclose()
    await silent.aclose()
    await listener.aclose()


async def test_a_handshake_has_a_time_limit(autojump_clock, certificates):
    before = open_descriptors()
    listener, silent, connection = await accept_silent(certificates)
    with pytest.raises(TimeoutError, match="no TLS handshake within 10 s"):
        async with connection.prepared():
            raise AssertionError("it must not open")
    await silent.aclose()
    await listener.aclose()
    assert open_descriptors() <= before


async def test_a_silent_client_does_not_delay_others(certificates):
    listener, silent, waiting = await accept_silent(certificates)
    outcome = []
    with trio.fail_after(SOON):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept_and_use, listener, b"hello", outcome)
            async with open_channel(listener.url, ssl_context=certificates.client) as channel:
                await channel.send(b"from the client")
                assert await channel.receive() == b"hello"
                await channel.aclose()
    assert outcome == [b"from the client"]
    for resource in (waiting, silent, listener):
        await resource.aclose()


async def test_a_server_requires_a_context():
    with pytest.raises(ValueError, match="requires an ssl_context"):
        await open_listeners("tls://127.0.0.1:0")


async def test_a_context_without_tls_is_refused(certificates):
    with pytest.raises(ValueError, match="not encrypted"):
        await fails_to_open("tcp://127.0.0.1:1", ssl_context=certificates.client)
    with pytest.raises(ValueError, match="not encrypted"):
        await open_listeners("unix:x", ssl_context=certificates.server)


async def test_prepare_is_a_checkpoint_without_tls():
    left, right = trio.testing.memory_stream_pair()
    async with StreamChannel(left) as channel, right:
        with trio.testing.assert_checkpoints():
            await channel.prepare()
