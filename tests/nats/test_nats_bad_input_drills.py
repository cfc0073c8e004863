"""Drills with real NATS servers and processes: lost messages, refusals, and invalid names."""

from __future__ import annotations

import contextlib
import socket

import pytest
import trio
from helpers.nats_events import encode
from helpers.nats_server import nats_server
from test_nats_drills import Load, instance, report, session_over

import trio_rpc
from trio_rpc.nats import NatsOptions, UserPassword, open_nats
from trio_rpc.nats import parser as p

pytestmark = pytest.mark.slow


class Market:
    @trio_rpc.method
    async def who(self) -> str:
        return "a"


class LossyProxy:
    """Passes on the bytes of a client and a server, but loses every 40th data message of channels.

    Args:
        port: the port of the server.
    """

    def __init__(self, port):
        self.lost = {"out": 0, "in": 0}
        self._port = port
        self._count = 0

    async def serve(self, client):
        server = await trio.open_tcp_stream("127.0.0.1", self._port)
        async with client, server, trio.open_nursery() as nursery:
            nursery.start_soon(self._pass_on, client, server, "out", nursery.cancel_scope)
            nursery.start_soon(self._pass_on, server, client, "in", nursery.cancel_scope)

    async def _pass_on(self, source, target, way, scope):
        parser = p.Parser()
        with contextlib.suppress(trio.BrokenResourceError):
            async for data in source:
                events = parser.feed(bytes(data))
                kept = [each for each in events if not self._is_lost(each, way)]
                await target.send_all(b"".join(map(encode, kept)))
        scope.cancel()

    def _is_lost(self, event, way):
        if not isinstance(event, p.Pub | p.Msg) or event.data[:1] not in (b"D", b"P"):
            return False
        self._count += 1
        if self._count % 40:
            return False
        self.lost[way] += 1
        return True


async def test_messages_that_are_lost_on_the_way_fail_no_call_and_run_none_twice(tmp_path):
    async with (
        nats_server(tmp_path) as server,
        instance(f"{server.url}/market"),
        trio.open_nursery() as nursery,
    ):
        proxy = LossyProxy(server.port)
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, proxy.serve, [listener])
        async with open_nats(f"nats://127.0.0.1:{port}") as nats, session_over(nats) as session:
            done = await Load(session).during(trio.lowlevel.checkpoint, seconds_after=3)
            data = bytes(range(256)) * 4096
            assert await session.call("market.echo", data) == data
        report(done, "calls; lost messages:", proxy.lost)
        assert min(proxy.lost.values()) > 3
        nursery.cancel_scope.cancel()


USERS = """authorization { users: [
  { user: server, password: s }
  { user: client, password: c, permissions: {
      publish: ["trpc.open.market", "trpc.at.market.>", "_INBOX.>"], subscribe: ["_INBOX.>"] } }
  { user: stranger, password: x, permissions: { publish: ["none"], subscribe: ["_INBOX.>"] } }
  { user: deaf, password: d, permissions: { publish: [">"], subscribe: ["none"] } } ] }
"""


def of(user):
    return NatsOptions(credentials=UserPassword(user, user[0] if user != "stranger" else "x"))


@contextlib.asynccontextmanager
async def market(tmp_path):
    """Serve behind a NATS server that knows four users."""
    async with nats_server(tmp_path, config=USERS) as server:
        url = f"{server.url}/market"
        async with trio_rpc.open_server(Market(), f"{url}/one", nats=of("server")):
            yield url


async def test_a_client_needs_only_the_permissions_that_the_page_lists(tmp_path):
    async with market(tmp_path) as url:
        for each in (url, f"{url}/one"):
            async with trio_rpc.connect(each, nats=of("client")) as session:
                assert await session.call("who") == "a"


@pytest.mark.parametrize(
    ("user", "why"),
    [
        ("stranger", r"may not publish to 'trpc\.open\.market'"),
        ("deaf", "may not subscribe to its inbox"),
    ],
)
async def test_a_client_without_permissions_is_told_so_at_once(user, why, tmp_path):
    async with market(tmp_path) as url:
        with trio.fail_after(5), pytest.raises(trio_rpc.Refused, match=why):
            async with trio_rpc.connect(url, nats=of(user)):
                raise AssertionError("it must not connect")


async def test_a_server_without_permissions_is_told_so_at_once(tmp_path):
    async with market(tmp_path) as url:
        for user in ("client", "stranger"):
            with trio.fail_after(5), pytest.raises(trio_rpc.Refused, match=r"may not|not let"):
                async with trio_rpc.open_server(Market(), f"{url}/two", nats=of(user)):
                    raise AssertionError("it must not serve")


async def test_a_wrong_password_is_refused_at_once_in_each_entry_point(tmp_path):
    wrong = NatsOptions(credentials=UserPassword("server", "not this"))
    async with market(tmp_path) as url:
        with trio.fail_after(10):
            with pytest.raises(trio_rpc.Refused, match="Authorization Violation"):
                async with trio_rpc.connect(url, nats=wrong, wait=1000):
                    raise AssertionError("it must not connect")
            with pytest.raises(trio_rpc.Refused, match="Authorization Violation"):
                async with trio_rpc.open_server(Market(), url, nats=wrong):
                    raise AssertionError("it must not serve")
            with pytest.raises(trio_rpc.Refused, match="Authorization Violation"):
                async with trio_rpc.open_pool(url, nats=wrong, patience=1000):
                    raise AssertionError("it must not be entered")


@pytest.mark.parametrize("name", ["a\r\nPUB b 0\r\n\r\n", "*", ">", "a.b", "a b", "", "é"])
async def test_an_invalid_name_is_refused_before_a_socket_is_opened(name, monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(trio.socket, "getaddrinfo", refuse)
    service, instance = f"nats://127.0.0.1:1/{name}", f"nats://127.0.0.1:1/market/{name}"
    for url in (service, instance) if name else (service,):
        for entry in (trio_rpc.connect, trio_rpc.open_pool):
            with pytest.raises(ValueError):
                async with entry(url):
                    pass
        if name:
            with pytest.raises(ValueError):
                async with trio_rpc.open_server(Market(), url):
                    pass
