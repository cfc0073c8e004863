"""Sessions over real sockets whose connections are cut, with and without resume."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

import trio_rpc
from trio_rpc import ConnectionState, Fate, Limits, Refused, Resume, SessionBroken
from trio_rpc.testing import open_chaos_proxy

AT_ONCE = Resume(first_delay=0.001, max_delay=0.01)


@pytest.fixture
def clock():
    """Make a mock clock that lets the system deliver bytes in transit before it jumps."""
    return MockClock(autojump_threshold=0.05)


class Slow:
    def __init__(self):
        self.runs = 0
        self.ended = []
        self.go = trio.Event()

    @trio_rpc.method
    async def wait(self, answer):
        self.runs += 1
        try:
            await self.go.wait()
        except trio.Cancelled:
            self.ended.append("cancelled")
            raise
        return answer

    @trio_rpc.method
    async def ask(self, question):
        return await question("how are you")

    @trio_rpc.stream
    async def count(self):
        for number in range(1000):
            yield number


async def wait_for_state(session, state):
    """Wait until the connection is in this state."""
    async for each in session.connection_states():
        if each is state:
            return


async def cut(proxy, session):
    """Cut the connection, and wait until the session has reconnected."""
    proxy.cut()
    await wait_for_state(session, ConnectionState.RECONNECTING)
    await wait_for_state(session, ConnectionState.RESUMED)


async def after_ping(session, function):
    """Call a function once all earlier messages have arrived."""
    await trio.testing.wait_all_tasks_blocked()
    await session.ping()
    function()


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:0", "ws://127.0.0.1:0", "unix"])
async def test_calls_callbacks_and_streams_continue_after_a_cut(url, tmp_path, clock):
    slow = Slow()
    listen = url if url != "unix" else f"unix://{tmp_path}/socket"
    async with (
        trio_rpc.open_server(slow, listen, resume=AT_ONCE) as server,
        open_chaos_proxy(server.urls[0]) as proxy,
        trio_rpc.connect(proxy.url, resume=AT_ONCE) as session,
    ):
        answers = []

        async def call():
            answers.append(await session.call("wait", "fine"))

        async def question(text):
            await cut(proxy, session)
            return f"{text}? fine"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await session.ping()
            await cut(proxy, session)
            assert await session.call("ask", question) == "how are you? fine"
            async with session.stream("count") as numbers:
                got = [await numbers.receive() for _ in range(500)]
                await cut(proxy, session)
                got += [number async for number in numbers]
            assert got == list(range(1000))
            slow.go.set()
        assert answers == ["fine"]
        assert slow.runs == 1
        assert len(server.sessions) == 1
        assert proxy.accepted == 4


async def test_without_resume_a_cut_fails_calls_in_flight_at_once(clock):
    slow = Slow()
    async with (
        trio_rpc.open_server(slow, "tcp://127.0.0.1:0", resume=True) as server,
        open_chaos_proxy(server.urls[0]) as proxy,
        trio_rpc.connect(proxy.url, on_end="keep") as session,  # a client without resume
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(after_ping, session, proxy.reset)
            with pytest.raises(SessionBroken) as caught:
                await session.call("wait", "never")
        assert caught.value.fate is Fate.UNKNOWN
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert slow.ended == ["cancelled"]


async def test_a_server_without_resume_refuses_a_client_with_resume(clock):
    async with trio_rpc.open_server(Slow(), "tcp://127.0.0.1:0") as server:
        with pytest.raises(Refused, match="resume=True"):
            async with trio_rpc.connect(server.urls[0], resume=True):
                raise AssertionError("it must not open")


async def test_a_restarted_server_ends_the_session_with_an_error_that_says_so(clock):
    async with trio_rpc.open_server(Slow(), "tcp://127.0.0.1:0", resume=True) as old:
        async with open_chaos_proxy(old.urls[0]) as proxy:
            async with trio_rpc.open_server(Slow(), "tcp://127.0.0.1:0", resume=True) as new:
                async with trio_rpc.connect(proxy.url, resume=AT_ONCE, on_end="keep") as session:
                    proxy.target = new.urls[0]
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(after_ping, session, proxy.cut)
                        with pytest.raises(SessionBroken, match="was restarted") as caught:
                            await session.call("wait", "never")
                    assert caught.value.fate is Fate.UNKNOWN
                    states = [state async for state in session.connection_states()]
                    assert states == [ConnectionState.LOST]


async def test_a_connection_that_falls_silent_is_replaced(clock):
    """Only the Pings notice the silence. The session goes on over the next connection."""
    limits = Limits(keepalive_interval=1, keepalive_pings=2)
    slow = Slow()
    async with (
        trio_rpc.open_server(slow, "tcp://127.0.0.1:0", resume=True, limits=limits) as server,
        open_chaos_proxy(server.urls[0]) as proxy,
        trio_rpc.connect(proxy.url, resume=True, limits=limits) as session,
    ):
        await session.ping()
        proxy.links[0].freeze()
        with trio.fail_after(10):
            assert await session.call("ask", lambda text: text) == "how are you"
        assert proxy.accepted == 2


async def test_without_resume_a_connection_that_falls_silent_ends_the_session(clock):
    limits = Limits(keepalive_interval=1, keepalive_pings=2)
    async with (
        trio_rpc.open_server(Slow(), "tcp://127.0.0.1:0") as server,
        open_chaos_proxy(server.urls[0]) as proxy,
        trio_rpc.connect(proxy.url, limits=limits) as session,
    ):
        await session.ping()
        proxy.links[0].freeze()
        started = trio.current_time()
        with pytest.raises(SessionBroken, match="silent for 3 s"):
            await session.call("wait", "never")
        assert trio.current_time() - started <= 4


async def test_law_2_a_cancel_without_a_connection_is_sent_over_the_next_one(clock):
    slow = Slow()
    async with (
        trio_rpc.open_server(slow, "tcp://127.0.0.1:0", resume=True) as server,
        open_chaos_proxy(server.urls[0]) as proxy,
        trio_rpc.connect(proxy.url, resume=Resume(first_delay=0.5, max_delay=0.5)) as session,
    ):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.call, "wait", "never")
                await session.ping()
                proxy.is_refusing = True
                proxy.cut()
                await wait_for_state(session, ConnectionState.RECONNECTING)
                scope.cancel()
                with trio.CancelScope(shield=True):
                    await trio.sleep(1)
                    assert slow.ended == []
                    proxy.is_refusing = False
        assert slow.ended == ["cancelled"]  # law 2 holds across connections


async def test_draining_a_server_lets_the_calls_of_resumable_sessions_end(clock):
    slow = Slow()
    answers = []
    async with (
        trio_rpc.open_server(slow, "tcp://127.0.0.1:0", resume=True) as server,
        trio_rpc.connect(server.urls[0], resume=True) as session,
        trio.open_nursery() as nursery,
    ):

        @nursery.start_soon
        async def call():
            answers.append(await session.call("wait", "done"))

        await session.ping()
        nursery.start_soon(server.drain)
        await trio.testing.wait_all_tasks_blocked(0.05)
        slow.go.set()
        await session.wait_closed()
    assert answers == ["done"]


async def test_leaving_a_servers_block_ends_its_resumable_sessions(clock):
    slow = Slow()
    async with trio_rpc.open_server(slow, "tcp://127.0.0.1:0", resume=True) as server:
        session = None
        async with trio.open_nursery() as nursery:
            session = await trio_rpc.connect_in(nursery, server.urls[0], resume=AT_ONCE)
            await session.ping()
            await session.aclose()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert server.sessions == set()


async def test_a_server_that_ends_while_a_client_is_disconnected_leaves_no_tasks(clock):
    before = trio.lowlevel.current_statistics().tasks_living
    async with trio_rpc.open_server(Slow(), "tcp://127.0.0.1:0", resume=True) as server:
        async with open_chaos_proxy(server.urls[0]) as proxy:
            async with trio.open_nursery() as nursery:
                session = await trio_rpc.connect_in(nursery, proxy.url, resume=True)
                await session.ping()
                proxy.is_refusing = True
                proxy.cut()
                await wait_for_state(session, ConnectionState.RECONNECTING)
                nursery.cancel_scope.cancel()
        assert len(server.sessions) == 1  # the session waits for its client
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_the_states_of_a_session_without_resume(clock):
    async with trio_rpc.open_server(Slow(), "tcp://127.0.0.1:0") as server:
        async with (
            open_chaos_proxy(server.urls[0]) as proxy,
            trio_rpc.connect(proxy.url, on_end="keep") as session,
        ):
            proxy.cut()
            states = [state.value async for state in session.connection_states()]
            assert states == ["connected", "lost"]
        async with trio_rpc.connect(server.urls[0]) as session:
            states = session.connection_states()
            assert await anext(states) is ConnectionState.CONNECTED
            await session.aclose()
            assert [state async for state in states] == []
