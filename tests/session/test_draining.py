"""Server.drain and clients that are connecting: they are refused, or served and then drained."""

from __future__ import annotations

import contextlib
import functools
import logging

import pytest
import trio
from helpers.raw_peer import RawPeer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Fate, SessionBroken
from trio_rpc.channels import Resume, open_channel
from trio_rpc.channels.connection import Connection
from trio_rpc.channels.resumable.client import open_resumable
from trio_rpc.server import Server
from trio_rpc.session.opening import make_tables
from trio_rpc.session.options import Options
from trio_rpc.testing import memory_channel_pair
from trio_rpc.wire import messages as m

SHUTTING_DOWN = "the server is shutting down"


class Slow:
    """A service whose method waits until the test lets it return."""

    def __init__(self):
        self.begun, self.go = trio.Event(), trio.Event()

    @trio_rpc.method
    async def work(self) -> str:
        self.begun.set()
        await self.go.wait()
        return "done"


class Gate:
    """An ``authenticate`` that accepts a client when the test opens it."""

    def __init__(self):
        self.reached, self.go, self.was_cancelled = trio.Event(), trio.Event(), False

    async def __call__(self, session, credentials):
        self.reached.set()
        try:
            await self.go.wait()
        except trio.Cancelled:
            self.was_cancelled = True
            raise


class _MemoryConnection(Connection):
    def __init__(self, channel, ready):
        super().__init__("a client in memory")
        self._channel = channel
        self._ready = ready

    @contextlib.asynccontextmanager
    async def prepared(self):
        if self._ready is not None:
            await self._ready.wait()
        yield self._channel

    async def aclose(self):
        self._channel.close()


class MemoryListener:
    """Listens in memory: :meth:`connect` makes a connection to it."""

    url = "memory://"

    def __init__(self):
        self._arrivals, self._connections = trio.open_memory_channel(1000)

    def connect(self, ready=None, **options):
        """Return a client's end of a new connection to the server.

        Its own handshake, such as that of TLS, ends with ``ready``.
        """
        ours, theirs = memory_channel_pair(**options)
        self._arrivals.send_nowait(_MemoryConnection(theirs, ready))
        return ours

    async def accept(self):
        return await self._connections.receive()

    async def aclose(self):
        self._arrivals.close()
        # As a system does with connections that have not been accepted.
        with contextlib.suppress(trio.EndOfChannel, trio.WouldBlock):
            while True:
                await self._connections.receive_nowait().aclose()


@contextlib.asynccontextmanager
async def open_memory_server(services, **options):
    """Serve over memory channels for a block, as ``open_server`` does over sockets."""
    listener = MemoryListener()
    server = Server([listener], make_tables(services), Options(**options), None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server._run, nursery)
        yield server, listener
        nursery.cancel_scope.cancel()
    await listener.aclose()


class Client(RawPeer):
    """A client that a test drives, one step at a time."""

    async def step(self, *verbs):
        """Send the messages of these verbs of the protocol in one packet."""
        for verb in verbs:
            verb()
        while (packet := self.protocol.next_packet()) is not None:
            await self.channel.send(packet)

    async def hear(self, kind):
        """Receive until a message of that kind arrives, and return it."""
        while True:
            for message in self.protocol.receive(await self.channel.receive()):
                self.received.append(message)
                if isinstance(message, kind):
                    return message

    async def expect_goodbye(self):
        """Check that the server closes without a Welcome, and gives the reason."""
        goodbye = await self.hear(m.Goodbye)
        assert (goodbye.code, goodbye.message) == ("done", SHUTTING_DOWN)
        assert not any(isinstance(message, m.Welcome) for message in self.received)

    async def calls_and_leaves(self, slow, reason=SHUTTING_DOWN):
        """Open the session with a first call, get its answer, and leave in order."""
        await self.step(self.protocol.welcome, functools.partial(self.protocol.request, "work", []))
        await slow.begun.wait()
        goodbye = await self.hear(m.Goodbye)
        assert (goodbye.code, goodbye.message) == ("done", reason)
        await self.step(functools.partial(self.protocol.goodbye, "done"))
        slow.go.set()
        assert (await self.hear(m.Reply)).result == "done"
        await self.channel.aclose()


@pytest.fixture(params=["memory", "tcp", "resumable"])
def serving(request):
    """Return a function that runs a server for a block, and yields it and a Client of it."""

    @contextlib.asynccontextmanager
    async def serving(services, **options):
        with trio.fail_after(20):
            if request.param == "memory":
                async with open_memory_server(services, **options) as (server, listener):
                    yield server, Client(listener.connect())
                return
            resume = Resume() if request.param == "resumable" else None
            async with trio_rpc.open_server(
                services, "tcp://127.0.0.1:0", resume=resume or False, **options
            ) as server:
                connect = functools.partial(open_channel, server.urls[0])
                block = (
                    open_resumable(connect, resume, handshake_timeout=9) if resume else connect()
                )
                async with block as channel:
                    yield server, Client(channel)

    return serving


async def test_a_client_that_has_sent_nothing_is_refused(serving):
    async with serving(Slow()) as (server, client):
        await client.hear(m.Hello)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.drain)
            await client.expect_goodbye()
            await client.channel.aclose()


async def test_a_client_whose_credentials_are_being_checked_gets_a_goodbye_and_no_welcome(serving):
    gate = Gate()
    async with serving(Slow(), authenticate=gate) as (server, client):
        await client.step(client.protocol.hello)
        await gate.reached.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.drain)
            await client.expect_goodbye()
            await client.channel.aclose()
        assert gate.was_cancelled


async def test_a_client_with_a_welcome_has_its_first_call_served(serving):
    slow = Slow()
    async with serving(slow) as (server, client):
        await client.step(client.protocol.hello)
        await client.hear(m.Welcome)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.drain)
            await wait_all_tasks_blocked(0.01)
            await client.calls_and_leaves(slow)
        assert server.sessions == set()


async def test_a_client_with_a_call_in_flight_gets_its_result(serving):
    slow = Slow()
    async with serving(slow) as (server, client):
        await client.step(client.protocol.hello)
        await client.hear(m.Welcome)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.drain)  # the server reads the packet after that
            await client.calls_and_leaves(slow)


async def test_a_client_that_only_opens_its_session_gets_a_goodbye(serving):
    async with serving(Slow()) as (server, client):
        await client.step(client.protocol.hello)
        await client.hear(m.Welcome)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.drain)
            await wait_all_tasks_blocked(0.01)
            await client.step(client.protocol.welcome)
            await client.hear(m.Goodbye)
            await client.step(functools.partial(client.protocol.goodbye, "done"))
            await client.channel.aclose()


async def test_a_client_whose_welcome_is_queued_has_its_first_call_served(no_time):
    slow, gate = Slow(), Gate()
    async with open_memory_server(slow, authenticate=gate) as (server, listener):
        client = Client(listener.connect(max_buffer=1))  # the server's Hello fills the buffer
        await client.step(client.protocol.hello)
        await gate.reached.wait()
        gate.go.set()
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.drain)
            await wait_all_tasks_blocked()
            await client.hear(m.Welcome)
            await client.calls_and_leaves(slow)


async def test_a_client_that_is_accepted_while_the_server_begins_to_drain_gets_no_welcome(no_time):
    async with open_memory_server(Slow()) as (server, listener):
        await wait_all_tasks_blocked()
        client = Client(listener.connect())
        await client.step(client.protocol.hello)
        await server.drain()
        await client.expect_goodbye()


async def test_a_client_whose_connection_is_ready_while_the_server_drains_gets_no_welcome(no_time):
    slow, ready = Slow(), trio.Event()
    async with open_memory_server(slow) as (server, listener):
        first, late = Client(listener.connect()), Client(listener.connect(ready))
        await first.step(first.protocol.hello)
        await first.hear(m.Welcome)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.drain)  # waits for the first client
            await wait_all_tasks_blocked()
            ready.set()
            await late.step(late.protocol.hello)
            await late.expect_goodbye()
            await first.calls_and_leaves(slow)


async def test_a_client_that_does_not_open_its_session_has_the_grace_time(autojump_clock, caplog):
    caplog.set_level(logging.INFO)
    async with open_memory_server(Slow()) as (server, listener):
        client = Client(listener.connect())
        await client.step(client.protocol.hello)
        await client.hear(m.Welcome)
        began = trio.current_time()
        await server.drain(grace=3)
        assert trio.current_time() - began == pytest.approx(3, abs=0.01)
        await client.hear(m.Goodbye)
    assert [record.levelname for record in caplog.records] == ["INFO"]


async def test_a_cancelled_drain_ends_all_sessions_at_once(autojump_clock):
    slow = Slow()
    async with open_memory_server(slow) as (server, listener):
        first, second = Client(listener.connect()), Client(listener.connect())
        for client in (first, second):
            await client.step(client.protocol.hello)
            await client.hear(m.Welcome)
        call = functools.partial(first.protocol.request, "work", [])
        await first.step(first.protocol.welcome, call)
        await slow.begun.wait()
        with trio.move_on_after(1):
            await server.drain(grace=1000)
        assert (await first.hear(m.ReplyErr)).error["code"] == "cancelled"
        await second.hear(m.Goodbye)
        assert trio.current_time() < 10


async def test_a_session_that_a_service_closes_before_it_is_open_serves_the_clients_first_call(
    no_time,
):
    slow, sessions = Slow(), []

    def services(session):
        sessions.append(session)
        return slow

    ours, theirs = memory_channel_pair()
    client = Client(ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio_rpc.serve_session, theirs, services)
        await client.step(client.protocol.hello)
        await client.hear(m.Welcome)
        nursery.start_soon(sessions[0].aclose)
        await wait_all_tasks_blocked()
        await client.calls_and_leaves(slow, "it closed the session")


# ── as clients see it ────────────────────────────────────────────────────────────────────────


async def test_a_client_without_a_welcome_gets_an_orderly_session_broken(no_time):
    gate = Gate()
    async with open_memory_server(Slow(), authenticate=gate) as (server, listener):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def connect():
                with pytest.raises(SessionBroken, match=SHUTTING_DOWN) as caught:
                    async with trio_rpc.open_session(listener.connect()):
                        raise AssertionError("it must not open")
                assert (caught.value.orderly, caught.value.fate) == (True, Fate.NOT_STARTED)

            await gate.reached.wait()
            nursery.start_soon(server.drain)


async def test_a_goodbye_that_comes_while_this_end_checks_credentials_ends_the_session(no_time):
    gate = Gate()
    ours, theirs = memory_channel_pair()
    client = Client(theirs)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def connect():
            with pytest.raises(SessionBroken, match="had enough") as caught:
                async with trio_rpc.open_session(ours, authenticate=gate):
                    raise AssertionError("it must not open")
            assert caught.value.orderly

        await client.step(client.protocol.hello)
        await client.hear(m.Hello)
        goodbye = functools.partial(client.protocol.goodbye, "done", "had enough")
        await client.step(client.protocol.welcome, goodbye)
    assert gate.was_cancelled


class Counter:
    def __init__(self):
        self.count = 0

    @trio_rpc.method
    def add(self) -> None:
        self.count += 1


RETRIED = (OSError, SessionBroken, trio_rpc.RemoteCancelled, trio_rpc.Unavailable)


@pytest.mark.parametrize("checks", [False, True], ids=["open to all", "with credentials"])
async def test_draining_at_any_step_of_a_connection_leaves_no_call_with_an_unknown_fate(
    checks, no_time
):
    async def authenticate(session, credentials):
        await trio.lowlevel.checkpoint()

    options = {"authenticate": authenticate} if checks else {}
    outcomes = set()
    for steps in range(20):
        counter, results, fates = Counter(), [], []
        async with trio.open_nursery() as nursery:
            async with open_memory_server(counter, **options) as (server, listener):
                nursery.start_soon(_call_three_times, listener.connect(), results, fates)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                await server.drain()
        assert counter.count == len(results)
        assert set(fates) <= {Fate.NOT_STARTED}
        outcomes.add(len(results))
    assert {0, 3} <= outcomes  # the steps cover the session from its beginning to its end


async def _call_three_times(channel, results, fates):
    try:
        async with trio_rpc.open_session(channel) as session:
            for _ in range(3):
                await session.call("add")
                results.append("returned")
    except RETRIED as exc:
        fates.append(exc.fate)
