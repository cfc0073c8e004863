"""A session may be used only in the Trio run that opened it. Elsewhere it raises at once."""

from __future__ import annotations

import pytest
import trio

import trio_rpc
from trio_rpc.channels import memory_channel_pair, open_forwarding
from trio_rpc.testing import open_session_pair

TEXT = r"belongs to the Trio run in thread .* that opened it, .*trio\.from_thread\.run"
OVER = "ended with the Trio run that opened it, which is over: nothing was done"


class Service:
    def __init__(self):
        self.errors = []

    @trio_rpc.method
    async def echo(self, value):
        return value

    @trio_rpc.notification
    async def hear(self, value):
        pass

    @trio_rpc.stream
    async def ticks(self):
        yield 1
        await trio.sleep_forever()

    @trio_rpc.duplex
    async def chat(self, channel):
        async for item in channel:
            await channel.send(item)

    @trio_rpc.method
    async def use_callback(self, function):
        await refused(lambda: function(1), self.errors)
        return await function(2)

    @trio_rpc.method
    async def use_stream(self, items):
        await refused(items.receive, self.errors)
        await refused(items.aclose, self.errors)
        return await items.receive()

    @trio_rpc.method
    async def start(self, *, task_status=trio.TASK_STATUS_IGNORED):
        async def started():
            task_status.started(1)

        await refused(started, self.errors)
        task_status.started(2)


async def refused(function, errors=None):
    """Use a session in the Trio run of another thread, and check that it raises at once."""
    with pytest.raises(RuntimeError, match=TEXT) as caught:
        await trio.to_thread.run_sync(trio.run, function)
    if errors is not None:
        errors.append(caught.value)


async def enter(block):
    async with block:
        raise AssertionError("it must not open")


async def sync(function):
    function()


USES = {
    "call": lambda session: session.call("echo", 1),
    "proxy": lambda session: session.proxy("", Service).echo(1),
    "notify": lambda session: session.notify("hear", 1),
    "stream": lambda session: enter(session.stream("ticks")),
    "duplex": lambda session: enter(session.duplex("chat")),
    "scope": lambda session: enter(session.open_scope()),
    "ping": lambda session: session.ping(),
    "aclose": lambda session: session.aclose(),
    "wait_closed": lambda session: session.wait_closed(),
    "closed": lambda session: session.closed.wait(),
    "tree": lambda session: sync(session.tree),
    "connection_states": lambda session: sync(session.connection_states),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_use_in_another_thread_raises_and_the_session_goes_on(use):
    async with open_session_pair(None, Service()) as (session, _):
        await refused(lambda: use(session))
        assert session.is_open
        assert await session.call("echo", 2) == 2
        assert session.statistics().calls_out == 0


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_use_after_the_end_of_its_run_raises(use):
    async def main():
        async with open_session_pair(None, Service()) as (session, _):
            return session

    session = await trio.to_thread.run_sync(trio.run, main)
    with pytest.raises(RuntimeError, match=OVER):
        await use(session)
    assert session.statistics().state == "over"
    assert not session.is_open


async def test_use_outside_of_any_run_raises(session_pair):
    async with session_pair(None, Service()) as (session, _):
        coroutine = session.call("echo", 1)

        def step():
            with pytest.raises(RuntimeError, match=TEXT):
                coroutine.send(None)

        await trio.to_thread.run_sync(step)


async def test_an_open_stream_and_duplex_raise_in_another_run_and_go_on(session_pair):
    async with (
        session_pair(None, Service()) as (session, _),
        session.stream("ticks") as ticks,
        session.duplex("chat") as chat,
    ):
        for function in (ticks.receive, ticks.aclose, chat.receive, chat.aclose, chat.send_eof):
            await refused(function)
        await refused(lambda: chat.send(1))
        assert await ticks.receive() == 1
        await chat.send(2)
        assert await chat.receive() == 2


async def test_callbacks_streams_and_task_status_raise_in_another_run_and_go_on(session_pair):
    service = Service()

    async def items():
        yield 3

    async with session_pair(None, service) as (session, _):
        assert await session.call("use_callback", lambda value: value) == 2
        assert await session.call("use_stream", items()) == 3
        async with trio.open_nursery() as nursery:
            assert await nursery.start(session.proxy("", Service).start) == 2
        assert len(service.errors) == 4


async def test_a_thread_may_use_a_session_by_trio_from_thread_run(session_pair):
    async with session_pair(None, Service()) as (session, _):

        def work():
            return trio.from_thread.run(session.call, "echo", 5)

        assert await trio.to_thread.run_sync(work) == 5


async def test_a_server_can_be_drained_only_in_its_own_run():
    async with trio_rpc.open_server(Service(), "tcp://127.0.0.1:0") as server:
        await refused(server.drain)
        async with trio_rpc.connect(server.urls[0]) as session:
            assert await session.call("echo", 1) == 1


async def test_iterators_over_states_raise_in_another_run_and_go_on():
    async with trio_rpc.open_server(Service(), "tcp://127.0.0.1:0") as server:
        events = server.session_events()
        async with trio_rpc.connect(server.urls[0]) as session:
            states = session.connection_states()
            assert (await anext(states)).value == "connected"
            assert (await anext(events)).kind == "opened"
            await refused(lambda: anext(states))
            await refused(lambda: anext(events))
        assert (await anext(events)).kind == "closed"


async def test_a_session_of_a_run_that_is_over_says_so_in_a_later_run_of_the_same_thread():
    async def first():
        async with open_session_pair(Service(), None) as (_, session):
            return session, session.proxy("", Service)

    async def later(use):
        with pytest.raises(RuntimeError, match=OVER):
            await use()

    def two_runs():
        session, proxy = trio.run(first)
        trio.run(later, session.ping)
        trio.run(later, lambda: proxy.echo(1))

    await trio.to_thread.run_sync(two_runs)


async def _echo(channel):
    await channel.send(await channel.receive())


@pytest.mark.parametrize(
    "use",
    [lambda forwarding: forwarding.open("echo"), lambda forwarding: forwarding.wait_closed()],
    ids=["open", "wait_closed"],
)
async def test_a_forwarding_raises_in_another_run_and_goes_on(use):
    ours, theirs = memory_channel_pair()
    async with (
        open_forwarding(ours, {"echo": _echo}),
        open_forwarding(theirs) as forwarding,
    ):
        await refused(lambda: use(forwarding))
        async with await forwarding.open("echo") as channel:
            await channel.send(b"hello")
            assert await channel.receive() == b"hello"


PROVIDER_USES = {
    "proxy": lambda provider: sync(lambda: provider.proxy("b", Service)),
    "remove": lambda provider: sync(lambda: provider.remove("a")),
    "run": lambda provider: provider.run(),
}


@pytest.mark.parametrize("use", PROVIDER_USES.values(), ids=PROVIDER_USES)
async def test_a_service_provider_that_runs_raises_in_another_run_and_goes_on(use):
    handler = trio_rpc.ConnectionHandler("a", lambda _client: Service())
    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(trio_rpc.serve_connections, [handler], "tcp://127.0.0.1:0")
        provider = trio_rpc.ServiceProvider(url)
        proxy = provider.proxy("a", Service)
        await nursery.start(provider.run)
        await refused(lambda: use(provider))
        assert await proxy.echo(1) == 1
        provider.remove("a")
        with pytest.raises(trio_rpc.SessionClosed):
            await proxy.echo(2)
        nursery.cancel_scope.cancel()
