"""Listeners: their addresses, closing, and errors that do not stop them."""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat

import pytest
import trio
from helpers.channel_pairs import fails_to_open, open_descriptors

from trio_rpc.channels import ChannelListener, open_channel, open_listeners
from trio_rpc.channels.connection import StreamConnection
from trio_rpc.errors import DecodeError
from trio_rpc.util.rate_limited_log import LINES
from trio_rpc.wire.limits import DEFAULT_LIMITS, Limits


async def close_all(*resources):
    for resource in resources:
        await resource.aclose()


async def check_works(listener):
    """Connect to a listener and exchange one packet."""
    async with open_channel(listener.url) as channel:
        connection = await listener.accept()
        async with connection.prepared() as accepted:
            await channel.send(b"x")
            assert await accepted.receive() == b"x"


async def test_port_zero_is_resolved():
    (listener,) = await open_listeners("tcp://127.0.0.1:0")
    assert not listener.url.endswith(":0")
    assert listener.url in repr(listener)
    await check_works(listener)
    await listener.aclose()


async def test_a_listener_may_have_an_ipv6_address():
    try:
        (listener,) = await open_listeners("tcp://[::1]:0")
    except OSError:
        pytest.skip("no IPv6 here")
    assert listener.url.startswith("tcp://[::1]:")
    await check_works(listener)
    await listener.aclose()


class TwoAddresses(trio.abc.HostnameResolver):
    """Resolve a name to two addresses of this machine, one of them twice."""

    def __init__(self, *addresses):
        self.addresses = addresses

    async def getaddrinfo(self, host, port, *rest):
        if host not in (b"both", "both"):
            return socket.getaddrinfo(host, port, *rest)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in self.addresses
        ]

    async def getnameinfo(self, sockaddr, flags):
        raise NotImplementedError


async def test_all_addresses_of_a_host_share_one_free_port():
    addresses = ("127.0.0.1", "127.0.0.2", "127.0.0.1")
    trio.socket.set_custom_hostname_resolver(TwoAddresses(*addresses))
    try:
        listeners = await open_listeners("tcp://both:0")
    except OSError:
        pytest.skip("one loopback address here")
    ports = {listener.url.rpartition(":")[2] for listener in listeners}
    assert len(listeners) == 2
    assert len(ports) == 1
    for listener in listeners:
        await check_works(listener)
    await close_all(*listeners)


async def test_an_address_of_another_machine_is_left_out():
    trio.socket.set_custom_hostname_resolver(TwoAddresses("192.0.2.1", "127.0.0.1"))
    listeners = await open_listeners("tcp://both:0")
    assert [listener.url.rpartition(":")[0] for listener in listeners] == ["tcp://127.0.0.1"]
    await close_all(*listeners)


async def test_listening_only_at_another_machines_address_is_an_error():
    with pytest.raises(OSError, match=r"cannot listen at tcp://192\.0\.2\.1:0") as caught:
        await open_listeners("tcp://192.0.2.1:0")
    assert caught.value.errno == errno.EADDRNOTAVAIL


async def test_listening_at_a_port_in_use_is_an_error():
    (listener,) = await open_listeners("tcp://127.0.0.1:0")
    before = open_descriptors()
    with pytest.raises(OSError, match=f"cannot listen at {listener.url}: ") as caught:
        await open_listeners(listener.url)
    assert caught.value.errno == errno.EADDRINUSE
    assert open_descriptors() <= before
    await listener.aclose()


async def test_limits_reach_the_channels():
    limits = Limits(max_packet=20_000)
    (listener,) = await open_listeners("tcp://127.0.0.1:0", limits=limits)
    async with listener, open_channel(listener.url) as channel:
        connection = await listener.accept()
        async with connection.prepared() as accepted:
            await channel.send(bytes(20_001))
            with pytest.raises(DecodeError, match="20001"):
                await accepted.receive()


async def test_closing_a_listener_wakes_accept():
    (listener,) = await open_listeners("tcp://127.0.0.1:0")

    async def accept():
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        await trio.testing.wait_all_tasks_blocked()
        await listener.aclose()


class OutOfResources(trio.abc.Listener[trio.SocketStream]):
    """A listener whose system runs out of a resource several times."""

    def __init__(self, errors, stream):
        self.errors = errors
        self.stream = stream

    async def accept(self):
        await trio.lowlevel.checkpoint()
        if self.errors:
            code = self.errors.pop(0)
            raise OSError(code, os.strerror(code))
        return self.stream

    async def aclose(self):
        await trio.lowlevel.checkpoint()


def connection(stream, url):
    return StreamConnection(stream, DEFAULT_LIMITS, name=url)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_accept_waits_and_retries_when_resources_run_out(autojump_clock, caplog, code):
    left, right = trio.socket.socketpair()
    inner = OutOfResources([code] * 50, trio.SocketStream(left))
    listener = ChannelListener(inner, url="tcp://here:1", connection=connection)
    with caplog.at_level(logging.WARNING, "trio_rpc"):
        accepted = await listener.accept()
    assert trio.current_time() >= 1  # it waited between the 50 attempts
    assert len(caplog.records) == 1
    await accepted.aclose()
    right.close()


class OutOfDescriptors(OutOfResources):
    """A listener that gets a descriptor in every other attempt.

    A client leaves, and the next one connects."""

    async def accept(self):
        self.errors.append(errno.EMFILE)
        if len(self.errors) % 2:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        await trio.lowlevel.checkpoint()
        return self.stream


async def test_clients_that_exhaust_descriptors_repeatedly_do_not_flood_the_log(
    autojump_clock, caplog
):
    left, right = trio.socket.socketpair()
    listener = ChannelListener(
        OutOfDescriptors([], trio.SocketStream(left)), url="tcp://here:1", connection=connection
    )
    with caplog.at_level(logging.WARNING, "trio_rpc"):
        for _ in range(2 * LINES):
            await listener.accept()
    assert len(caplog.records) == LINES
    left.close()
    right.close()


async def test_other_errors_of_accept_are_raised():
    inner = OutOfResources([errno.EINVAL], None)
    listener = ChannelListener(inner, url="tcp://here:1", connection=connection)
    with pytest.raises(OSError, match="Invalid argument"):
        await listener.accept()


# ---- Unix sockets


async def test_a_unix_socket_accepts_connections_and_is_removed(tmp_path):
    path = tmp_path / "socket"
    (listener,) = await open_listeners(f"unix://{path}")
    assert listener.url == f"unix://{path}"
    await check_works(listener)
    assert stat.S_ISSOCK(path.stat().st_mode)
    await listener.aclose()
    assert not path.exists()


async def test_a_relative_path_survives_a_change_of_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (listener,) = await open_listeners("unix:socket")
    await check_works(listener)
    monkeypatch.chdir("/")
    await listener.aclose()
    assert not (tmp_path / "socket").exists()


async def test_the_socket_file_of_a_dead_server_is_replaced(tmp_path):
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert path.exists()
    (listener,) = await open_listeners(f"unix://{path}")
    await check_works(listener)
    await listener.aclose()


async def test_the_socket_file_of_a_live_server_is_kept(tmp_path):
    url = f"unix://{tmp_path}/socket"
    (listener,) = await open_listeners(url)
    before = open_descriptors()
    with pytest.raises(OSError, match="another program listens there") as caught:
        await open_listeners(url)
    assert caught.value.errno == errno.EADDRINUSE
    assert open_descriptors() <= before
    await (await listener.accept()).aclose()  # the connection that checked whether the server lives
    await check_works(listener)
    await listener.aclose()


async def test_the_socket_file_of_a_server_with_a_full_queue_is_kept(tmp_path):
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        with pytest.raises(OSError, match="another program listens there"):
            await open_listeners(f"unix://{path}")


async def test_a_file_that_is_not_a_socket_is_kept(tmp_path):
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(FileExistsError, match="not a socket"):
        await open_listeners(f"unix://{path}")
    assert path.read_text() == "data"


async def test_the_socket_file_of_a_successor_is_kept(tmp_path):
    """A server that closes late must not remove the socket file of its successor."""
    path = tmp_path / "socket"
    (old,) = await open_listeners(f"unix://{path}")
    path.unlink()
    (new,) = await open_listeners(f"unix://{path}")
    await old.aclose()
    await check_works(new)
    await new.aclose()
    await new.aclose()
    assert not path.exists()


async def test_a_path_that_is_too_long_is_an_error(tmp_path):
    url = f"unix://{tmp_path}/{'x' * 120}"
    for use in (fails_to_open, open_listeners):
        with pytest.raises(OSError, match="path of a Unix socket has at most") as caught:
            await use(url)
        assert caught.value.errno == errno.ENAMETOOLONG


async def test_permissions_follow_the_umask(tmp_path):
    path = tmp_path / "socket"
    previous = os.umask(0o077)
    try:
        (listener,) = await open_listeners(f"unix://{path}")
    finally:
        os.umask(previous)
    assert path.stat().st_mode & 0o077 == 0
    await listener.aclose()


async def test_a_missing_directory_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="cannot listen at unix://"):
        await open_listeners(f"unix://{tmp_path}/none/socket")
