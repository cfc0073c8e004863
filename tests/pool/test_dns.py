"""``dns+tcp://`` and ``dns+tls://``: each address of a name is an instance of a pool."""

from __future__ import annotations

import contextlib
import itertools
import logging
import socket

import pytest
import trio
from helpers.tls import make_contexts
from trio.testing import MockClock

import trio_rpc

HERE = [f"127.0.0.{number}" for number in (1, 2, 3)]


@pytest.fixture
def autojump_clock():
    """Make a mock clock that jumps when no task can run and no bytes are on their way."""
    return MockClock(autojump_threshold=0.01)


class Resolver(trio.abc.HostnameResolver):
    """Answers with chosen addresses, or fails, and counts the questions."""

    def __init__(self):
        self.addresses = list(HERE)
        self.fails = False
        self.asked = []

    async def getaddrinfo(self, host, port, *_rest, **_options):
        if isinstance(host, bytes):
            host = host.decode()
        self.asked.append(trio.current_time())
        assert host == "market.example"
        if self.fails:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, int(port)))
            for each in self.addresses
        ]

    async def getnameinfo(self, sockaddr, flags):
        raise NotImplementedError


@pytest.fixture
async def resolver():
    made = Resolver()
    trio.socket.set_custom_hostname_resolver(made)
    return made


class Where:
    def __init__(self, address):
        self.address = address

    @trio_rpc.method
    async def where(self) -> str:
        return self.address


@contextlib.asynccontextmanager
async def servers(scheme="tcp", **options):
    """Serve at three addresses and one port; yield the port, and a scope for each address."""

    async def serve(url, address, *, task_status):
        with trio.CancelScope() as scope:
            async with trio_rpc.open_server(Where(address), url, **options) as server:
                task_status.started((server.urls[0], scope))
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        port, scopes = "0", {}
        for address in HERE:
            url, scopes[address] = await nursery.start(
                serve, f"{scheme}://{address}:{port}", address
            )
            port = url.rpartition(":")[2]
        yield port, scopes
        nursery.cancel_scope.cancel()


async def until_open(pool, addresses):
    async for statuses in pool.states():
        names = {each.name.rpartition(" ")[2] for each in statuses if each.state == "open"}
        if names == set(addresses):
            return


async def test_each_address_of_a_name_is_an_instance(autojump_clock, resolver):
    async with servers() as (port, _):
        async with trio_rpc.open_pool(f"dns+tcp://market.example:{port}") as pool:
            await until_open(pool, HERE)
            assert {await pool.call("where") for _ in range(50)} == set(HERE)
            assert pool.instances()[0].name == f"tcp://market.example:{port} at 127.0.0.1"


async def test_the_certificate_is_that_of_the_name_and_not_of_an_address(autojump_clock, resolver):
    server_context, client_context = make_contexts("market.example")
    async with servers("tls", ssl_context=server_context) as (port, _):
        url = f"dns+tls://market.example:{port}"
        async with trio_rpc.open_pool(url, ssl_context=client_context) as pool:
            await until_open(pool, HERE)


async def test_the_name_is_asked_again_every_30_s_and_new_addresses_are_used(
    autojump_clock, resolver
):
    resolver.addresses = HERE[:1]
    async with servers() as (port, _):
        async with trio_rpc.open_pool(f"dns+tcp://market.example:{port}") as pool:
            await until_open(pool, HERE[:1])
            resolver.addresses = HERE[:2]
            await until_open(pool, HERE[:2])
            assert trio.current_time() == pytest.approx(30, abs=2)
            await trio.sleep(300)
            assert 10 <= len(resolver.asked) <= 13


async def test_an_address_that_three_answers_lack_is_drained(autojump_clock, resolver):
    async with servers() as (port, _):
        async with trio_rpc.open_pool(f"dns+tcp://market.example:{port}") as pool:
            await until_open(pool, HERE)
            resolver.addresses = HERE[:2]
            await trio.sleep(65)  # two answers
            await until_open(pool, HERE)
            await until_open(pool, HERE[:2])
            assert trio.current_time() >= 85


async def test_the_name_is_asked_soon_when_a_session_is_lost(autojump_clock, resolver):
    async with servers() as (port, scopes):
        async with trio_rpc.open_pool(f"dns+tcp://market.example:{port}") as pool:
            await until_open(pool, HERE)
            await trio.sleep(10)
            before = len(resolver.asked)
            scopes[HERE[2]].cancel()
            await until_open(pool, HERE[:2])
            await trio.sleep(3)
            assert len(resolver.asked) == before + 1


async def test_while_a_name_does_not_resolve_its_addresses_are_kept(
    autojump_clock, resolver, caplog
):
    async with servers() as (port, _):
        async with trio_rpc.open_pool(f"dns+tcp://market.example:{port}") as pool:
            await until_open(pool, HERE)
            resolver.fails = True
            await trio.sleep(300)
            assert {await pool.call("where") for _ in range(50)} == set(HERE)
            assert len(resolver.asked) <= 13
    assert "market.example does not resolve: Temporary failure in name resolution" in caplog.text


async def test_a_name_that_does_not_resolve_is_an_error_that_names_it(
    autojump_clock, resolver, caplog
):
    caplog.set_level(logging.INFO)
    resolver.fails = True
    with pytest.raises(trio_rpc.Unavailable, match=r"market\.example does not resolve: Temporary"):
        async with trio_rpc.open_pool("dns+tcp://market.example:5000", patience=20):
            raise AssertionError("it must not be entered")
    pauses = [later - sooner for sooner, later in itertools.pairwise(resolver.asked)]
    assert all(1 <= pause <= 6 for pause in pauses)
    assert len(set(pauses)) == len(pauses)  # they are random, and grow
    assert len(pauses) <= 16
    assert len(caplog.records) <= 20


async def test_a_name_that_resolves_late_is_used_then(autojump_clock, resolver, nursery):
    resolver.fails = True

    @nursery.start_soon
    async def come_up():
        await trio.sleep(12)
        resolver.fails = False

    async with servers() as (port, _):
        async with trio_rpc.open_pool(f"dns+tcp://market.example:{port}"):
            assert 12 <= trio.current_time() <= 19
