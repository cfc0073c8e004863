"""Ways for a session to end: each ends every call with its fate, and leaves no task or object."""

from __future__ import annotations

import gc
import weakref

import pytest
import trio
from helpers.handlers import Echo, Sleeper
from helpers.raw_peer import HELLO, RawPeer, close_at_once, session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Fate, Limits, open_session
from trio_rpc.channels.urls import parse_url
from trio_rpc.testing import memory_channel_pair
from trio_rpc.wire import messages as m

# ── each way a session can end, with calls in flight both ways ───────────────────────────────


class WriteFails(trio.abc.Channel[bytes]):
    """A channel whose send fails with the test's error once one is set."""

    def __init__(self, inner):
        self.inner = inner
        self.error = None
        self.closed = False

    async def send(self, value):
        if self.error is not None:
            await trio.lowlevel.checkpoint()
            raise self.error
        await self.inner.send(value)

    async def receive(self):
        return await self.inner.receive()

    async def aclose(self):
        self.closed = True
        await self.inner.aclose()


async def _remote_close(session, peer, channel):
    peer.send(m.Goodbye("done", "gone fishing"))
    peer.channel.close()


async def _remote_eof(session, peer, channel):
    peer.channel.close()


async def _remote_reset(session, peer, channel):
    peer.channel.abort()


async def _remote_garbage(session, peer, channel):
    peer.channel.send_nowait(b"\xc1")


async def _remote_oversize(session, peer, channel):
    peer.channel.send_nowait(b"\xc4" * 300_000)


async def _remote_silence(session, peer, channel):
    pass  # the keepalive notices


async def _local_graceful(session, peer, channel):
    await session.aclose(grace=1)


async def _local_forceful(session, peer, channel):
    await close_at_once(session)


async def _writer_error(session, peer, channel):
    channel.error = OSError("the cable is out")
    peer.send(m.Ping(1))


ENDS = {
    _remote_close: (trio_rpc.SessionBroken, "gone fishing"),
    _remote_eof: (trio_rpc.SessionBroken, "without a Goodbye"),
    _remote_reset: (trio_rpc.SessionBroken, "broken"),
    _remote_garbage: (trio_rpc.SessionBroken, "broke the protocol"),
    _remote_oversize: (trio_rpc.SessionBroken, "broke the protocol"),
    _remote_silence: (trio_rpc.SessionBroken, "silent"),
    _local_graceful: (trio_rpc.SessionClosed, "closed"),
    _local_forceful: (trio_rpc.SessionClosed, "closed"),
    _writer_error: (trio_rpc.SessionBroken, "cable"),
}


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__.strip("_"))
async def test_each_way_a_session_can_end_ends_every_call_with_its_fate(autojump_clock, tasks, end):
    """Every call ends, with a value or an error, however its session ends.

    A failure of reading or writing ends the session, and is the cause that its errors have.
    """
    kind, text = ENDS[end]
    before = tasks()
    sleeper = Sleeper()
    ours, theirs = memory_channel_pair(max_buffer=10**6)
    channel = WriteFails(ours)
    peer = RawPeer(theirs)
    peer.send(HELLO, m.Welcome())
    errors = {}
    async with (
        trio.open_nursery() as nursery,
        open_session(channel, sleeper, on_end="keep") as session,
    ):

        async def call(label, what):
            with pytest.raises(kind, match=text) as caught:
                await what()
            errors[label] = caught.value

        for number in range(3):
            nursery.start_soon(call, number, lambda: session.call("work"))
        nursery.start_soon(call, "ping", session.ping)
        peer.send(m.Request(1, "sleep", []), m.Request(2, "sleep", ["x", 0.5]))
        await wait_all_tasks_blocked()
        assert sleeper.running == 2
        await end(session, peer, channel)
        await session.wait_closed()
        assert sleeper.running == 0
        assert channel.closed
        await call("afterwards", lambda: session.call("work"))  # fails at once
        await call("ping afterwards", session.ping)
        await call("notify afterwards", lambda: session.notify("work"))
    assert [errors[number].fate for number in range(3)] == [Fate.UNKNOWN] * 3
    assert errors["afterwards"].fate is Fate.NOT_STARTED
    assert session.statistics().state == "over"
    assert session.statistics().calls_out == session.statistics().calls_in == 0
    assert session.tree() == []
    assert tasks() == before


async def test_a_channel_that_raises_an_unexpected_error_is_closed_and_the_error_is_raised(
    autojump_clock,
):
    ours, theirs = memory_channel_pair()
    channel = WriteFails(ours)
    peer = RawPeer(theirs)
    peer.send(HELLO, m.Welcome())
    closed = trio.Event()
    async with trio.open_nursery() as nursery:

        async def wait(session):
            await session.wait_closed()
            closed.set()

        with pytest.raises(ZeroDivisionError, match="a bug of the channel"):
            async with open_session(channel) as session:
                nursery.start_soon(wait, session)
                await wait_all_tasks_blocked()
                channel.error = ZeroDivisionError("a bug of the channel")
                await session.call("anything")
        await closed.wait()
    assert channel.closed


@pytest.mark.parametrize("kind", [OSError, ZeroDivisionError])
async def test_a_channel_that_fails_while_a_cancel_is_written_does_not_break_trio(no_time, kind):
    # The Cancel is written within an abort function, which must not raise.
    ours, theirs = memory_channel_pair()
    peer = RawPeer(theirs)
    peer.send(HELLO, m.Welcome())

    def fail(packet):
        raise kind("the channel fails")

    with trio.CancelScope() as scope:
        try:
            async with open_session(ours) as session, trio.open_nursery() as nursery:

                async def cancel():
                    await wait_all_tasks_blocked()
                    ours.on_send = fail
                    scope.cancel()

                nursery.start_soon(cancel)
                await session.call("anything")
        except ZeroDivisionError:
            assert kind is ZeroDivisionError  # a bug, so it is raised
    assert session.statistics().state == "over"


async def test_a_channel_whose_receive_fails_is_not_read_again(autojump_clock):
    class Unreadable(WriteFails):
        reads = 0

        async def receive(self):
            packet = await super().receive()
            self.reads += 1
            if self.reads > 1:
                raise ZeroDivisionError("a bug of the channel")
            return packet

    ours, theirs = memory_channel_pair()
    channel = Unreadable(ours)
    peer = RawPeer(theirs)
    peer.send(HELLO, m.Welcome())
    with pytest.raises(ZeroDivisionError, match="a bug of the channel"):
        async with open_session(channel) as session:
            for _ in range(100):
                peer.send(m.Ping(1))
            with trio.CancelScope(shield=True):
                await session.wait_closed()
                with pytest.raises(trio_rpc.SessionBroken, match="a bug") as caught:
                    await session.call("anything")
            assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert channel.reads == 2
    assert channel.closed


# ── closing ──────────────────────────────────────────────────────────────────────────────────


async def test_aclose_during_a_call_ends_with_its_reply_and_not_with_the_grace_time(no_time):
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:
        results = []

        async def call():
            results.append(await session.call("work"))

        nursery.start_soon(call)
        await peer.read(m.Request)
        nursery.start_soon(session.aclose)
        await peer.read(m.Goodbye)
        peer.send(m.Goodbye("done", ""))
        await wait_all_tasks_blocked()
        assert session.statistics().state == "closing"
        with pytest.raises(trio_rpc.SessionClosed) as caught:
            await session.call("new")
        assert caught.value.fate is Fate.NOT_STARTED
        peer.send(m.Reply(1, "finished"))
        await session.wait_closed()
        await wait_all_tasks_blocked()
        assert results == ["finished"]


async def test_aclose_takes_no_longer_than_its_grace_time(autojump_clock):
    async with session_with_raw_peer(Sleeper()) as (session, peer):
        peer.send(m.Request(1, "sleep", []))
        await wait_all_tasks_blocked()
        await session.aclose(grace=2)
        assert trio.current_time() == pytest.approx(2, abs=0.001)
        assert (await peer.read(m.ReplyErr)).error["code"] == "cancelled"


async def test_race_aclose_does_not_wait_for_an_abandoned_call(session_pair, autojump_clock):
    """A call that no task waits for does not hold up the close, though its grace has just begun."""
    sleeper = Sleeper()
    async with session_pair(None, sleeper) as (a, _), trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        @nursery.start_soon
        async def call():
            with scope:
                await a.call("stubborn", 4, abandon_on_cancel=True)

        await wait_all_tasks_blocked()
        nursery.start_soon(a.aclose)
        await wait_all_tasks_blocked()
        scope.cancel()
        started = trio.current_time()
        await a.wait_closed()
        assert trio.current_time() == started


async def test_aclose_cancelled_in_its_grace_time_closes_at_once(autojump_clock):
    sleeper = Sleeper()
    async with session_with_raw_peer(sleeper) as (session, peer):
        peer.send(m.Request(1, "sleep", []))
        await wait_all_tasks_blocked()
        with trio.move_on_after(1) as scope:
            await session.aclose(grace=100)
        assert scope.cancelled_caught
        assert session.statistics().state == "over"
        await session.wait_closed()
        assert trio.current_time() == pytest.approx(1, abs=0.001)
        assert sleeper.running == 0


@pytest.mark.parametrize("is_serving", [False, True])
async def test_a_block_that_is_left_and_then_cancelled_closes_at_once(autojump_clock, is_serving):
    """The body is over, so the block itself waits for the grace time."""
    services = (Sleeper(), None) if is_serving else (None, Sleeper())
    async with trio.open_nursery() as nursery:
        ours, theirs = memory_channel_pair()
        started = trio.current_time()

        async def other_end():
            async with open_session(theirs, services[1]) as session:
                if is_serving:
                    with pytest.raises((trio_rpc.SessionBroken, trio_rpc.RemoteCancelled)):
                        await session.call("sleep", 1000)
                await session.wait_closed()

        nursery.start_soon(other_end)
        with trio.move_on_after(1) as scope:
            async with open_session(ours, services[0]) as session:
                if not is_serving:
                    nursery.start_soon(_is_cut_off, session)
                await wait_all_tasks_blocked()
        assert scope.cancelled_caught
        assert trio.current_time() - started == pytest.approx(1, abs=0.01)


async def _is_cut_off(session):
    with pytest.raises(trio_rpc.SessionClosed):
        await session.call("sleep", 1000)


async def test_both_ends_may_close_at_once(session_pair, no_time):
    async with session_pair(Echo(), Echo()) as (a, b):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.aclose)
            nursery.start_soon(b.aclose)
        for session in (a, b):
            with pytest.raises(trio_rpc.SessionClosed):
                await session.call("echo", 1)


async def test_both_ends_may_close_forcefully_at_once(session_pair, no_time):
    async with session_pair(Sleeper(), Sleeper()) as (a, b), trio.open_nursery() as nursery:
        ended = []

        async def call(session):
            try:
                await session.call("sleep")
            except trio_rpc.RpcError as exc:
                ended.append(exc)

        nursery.start_soon(call, a)
        nursery.start_soon(call, b)
        await wait_all_tasks_blocked()
        nursery.start_soon(close_at_once, a)
        nursery.start_soon(close_at_once, b)
        await a.wait_closed()
        await b.wait_closed()
        await wait_all_tasks_blocked()
        assert len(ended) == 2


async def test_a_call_that_crosses_a_goodbye_is_answered_as_unavailable(no_time):
    async with session_with_raw_peer(Echo()) as (session, peer), trio.open_nursery() as nursery:
        nursery.start_soon(session.aclose)
        await peer.read(m.Goodbye)
        peer.send(m.Request(1, "echo", [1]), m.Notification("echo", []), m.Goodbye("done", ""))
        assert (await peer.read(m.ReplyErr)).error["code"] == "unavailable"
    assert session.statistics().late_calls == 2


async def test_a_call_that_crosses_a_goodbye_has_not_started(session_pair, no_time):
    async with session_pair(None, Sleeper()) as (a, b), trio.open_nursery() as nursery:
        nursery.start_soon(b.aclose)
        while b.statistics().state == "open":
            await trio.lowlevel.checkpoint()
        with pytest.raises((trio_rpc.Unavailable, trio_rpc.SessionBroken)) as caught:
            await a.call("sleep")
        assert caught.value.fate is Fate.NOT_STARTED


async def test_a_notification_sent_before_an_immediate_close_is_handled_to_its_end(
    session_pair, autojump_clock
):
    done = []

    class Listener:
        @trio_rpc.notification
        async def note(self, text):
            await trio.sleep(2)
            done.append(len(text))

    async with session_pair(None, Listener()) as (a, _):
        await a.notify("note", "x" * 10)
        await a.notify("note", "x" * 1_000_000)
    assert sorted(done) == [10, 1_000_000]


async def test_a_large_call_made_before_an_immediate_close_is_answered(session_pair, no_time):
    async with session_pair(None, Echo()) as (a, _), trio.open_nursery() as nursery:
        results = []

        async def call():
            results.append(await a.call("echo", b"x" * 1_000_000))

        nursery.start_soon(call)
        while not a.tree():
            await trio.lowlevel.checkpoint()
        await a.aclose()
    assert [len(each) for each in results] == [1_000_000]


async def test_calls_within_calls_are_served_while_a_session_closes(session_pair, autojump_clock):
    class Home:
        @trio_rpc.method
        async def progress(self, percent: int) -> int:
            return percent

    class Away:
        def __init__(self, session):
            self.home = session.proxy("", Home)

        @trio_rpc.method
        async def work(self):
            await trio.sleep(1)
            return await self.home.progress(50)

    async with session_pair(Home(), Away) as (a, b), trio.open_nursery() as nursery:
        results = []

        async def call():
            results.append(await a.call("work"))

        nursery.start_soon(call)
        await wait_all_tasks_blocked()
        nursery.start_soon(a.aclose)
        nursery.start_soon(b.aclose)
    assert results == [50]


async def test_a_handler_may_close_its_own_session(session_pair, autojump_clock):
    class Quits:
        @trio_rpc.method
        async def quit(self):
            await trio_rpc.current_call().session.aclose(grace=1)

    async with session_pair(None, Quits()) as (a, b):
        with pytest.raises(trio_rpc.RpcError):
            await a.call("quit")
        await a.wait_closed()
        await b.wait_closed()


async def test_callers_that_wait_for_credit_raise_when_the_session_ends(no_time):
    async with (
        session_with_raw_peer(peer_limits=Limits(max_calls=1, max_notifications=1)) as (
            session,
            peer,
        ),
        trio.open_nursery() as nursery,
    ):
        fates = []

        async def refused(send):
            with pytest.raises(trio_rpc.SessionBroken) as caught:
                await send("work")
            fates.append(caught.value.fate)

        nursery.start_soon(refused, session.call)
        await session.notify("work")
        await wait_all_tasks_blocked()
        for send in (session.call, session.call, session.notify, session.notify):
            nursery.start_soon(refused, send)
        await wait_all_tasks_blocked()
        assert session.statistics().tasks_waiting == 4
        peer.channel.abort()
        await session.wait_closed()
        await wait_all_tasks_blocked()
        assert sorted(fates, key=str) == [Fate.NOT_STARTED] * 4 + [Fate.UNKNOWN]


# ── the last messages and the end in one tick ────────────────────────────────────────────────


async def test_a_session_may_be_opened_and_left_by_one_packet(no_time):
    ours, theirs = memory_channel_pair()
    peer = RawPeer(theirs)
    peer.send(HELLO, m.Welcome(), m.Goodbye("done", "wrong number"))
    async with open_session(ours) as session:
        with pytest.raises(trio_rpc.SessionBroken, match="wrong number"):
            await session.call("anything")


async def test_a_session_may_be_opened_and_broken_by_one_packet(no_time):
    # The session is over before the task that waits for its opening runs.
    ours, theirs = memory_channel_pair()
    peer = RawPeer(theirs)
    assert theirs.send_nowait(peer.bytes_of(HELLO, m.Welcome()) + b"\xc1")
    with pytest.raises(trio_rpc.SessionBroken, match="broke the protocol"):
        async with open_session(ours) as session:
            await session.call("anything")


async def test_a_channel_that_fails_ends_the_wait_for_the_last_messages(autojump_clock):
    limits = Limits(shutdown_timeout=10)
    async with (
        session_with_raw_peer(limits=limits, max_buffer=1) as (session, peer),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(session.notify, "work", "x" * 100_000)
        await wait_all_tasks_blocked()
        nursery.start_soon(close_at_once, session)
        await trio.sleep(1)
        assert session.statistics().state == "over"
        peer.channel.abort()
        await session.wait_closed()
        assert trio.current_time() == pytest.approx(1, abs=0.001)


async def test_a_reply_in_the_tick_in_which_the_session_is_closed_is_too_late(no_time):
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:

        async def call():
            with pytest.raises(trio_rpc.SessionClosed):
                await session.call("work")

        nursery.start_soon(call)
        await peer.read(m.Request)
        peer.send(m.Reply(1, "too late"), m.Pong(1))
        session._core.lifecycle.stop()
        await session.wait_closed()


async def test_no_keepalive_is_sent_while_a_session_ends(autojump_clock):
    limits = Limits(keepalive_interval=0.1, keepalive_pings=100, shutdown_timeout=5)
    async with session_with_raw_peer(Sleeper(), limits=limits) as (session, peer):
        peer.send(m.Request(1, "stubborn", [3]))
        await wait_all_tasks_blocked()
        peer.channel.abort()
        await session.wait_closed()
        assert trio.current_time() == pytest.approx(3, abs=0.001)


# ── leaks ────────────────────────────────────────────────────────────────────────────────────


async def test_finished_sessions_leave_no_tasks_or_objects(session_pair, tasks):
    """A session that has ended answers no more, and leaves no task or object behind."""

    async def one():
        try:
            async with session_pair(Sleeper(), Sleeper()) as (a, b):
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:
                        for session in (a, b):
                            for _ in range(3):
                                nursery.start_soon(session.call, "sleep")
                        await wait_all_tasks_blocked()
                        scope.cancel()
                with pytest.raises(trio_rpc.MethodNotFound):
                    await a.call("nothing")
                sessions.append(weakref.ref(a))
                int("not a number")  # an exception keeps its frames alive
        except ValueError:
            pass

    def count():
        parse_url.cache_clear()  # the cache holds a bounded number of URLs
        gc.collect()
        counts = {}
        for each in gc.get_objects():
            if str(type(each).__module__).startswith(("trio_rpc", "trio._core")):
                counts[type(each).__qualname__] = counts.get(type(each).__qualname__, 0) + 1
        return counts

    sessions = []
    await one()
    tasks_before, before = tasks(), count()
    for _ in range(20):
        await one()
    assert tasks() == tasks_before
    after = count()
    grown = {name: n - before.get(name, 0) for name, n in after.items() if n > before.get(name, 0)}
    assert not grown
    assert all(ref() is None for ref in sessions)
