"""A caller that receives its Reply itself, and all other packets that it may receive instead.

A caller receives if it makes a call right after another; during the first one the reader receives.
"""

from __future__ import annotations

import contextlib

import pytest
import trio
from helpers.raw_peer import close_at_once, session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import method
from trio_rpc.wire import messages as m

pytestmark = pytest.mark.usefixtures("receives")


class Slow:
    @method
    async def slow(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.5)


async def second(session, peer, nursery, *, name="work"):
    """Make a call and another one in the same turn, whose caller then receives."""
    results = []

    async def call():
        await session.call("first")
        try:
            results.append(await session.call(name))
        except trio_rpc.RpcError as exc:
            results.append(exc)

    nursery.start_soon(call)
    first = await peer.read(m.Request)
    peer.send(m.Reply(first.id, None))
    request = await peer.read(m.Request)
    await wait_all_tasks_blocked()
    return request.id, results


@pytest.fixture
def receives(monkeypatch):
    """Check that a caller has received in this test, since otherwise it has tested nothing."""
    receiver = trio_rpc.session.io.receiver.Receiver
    receive_reply = receiver.receive_reply
    calls = []

    async def watched(self, call):
        calls.append(call)
        return await receive_reply(self, call)

    monkeypatch.setattr(receiver, "receive_reply", watched)
    yield
    assert calls


async def test_messages_before_the_reply_are_handled(no_time):
    class Peer:
        @method
        async def twice(self, value: int) -> int:
            await trio.lowlevel.checkpoint()
            return 2 * value

    async with session_with_raw_peer(Peer()) as (session, peer), trio.open_nursery() as nursery:
        call, results = await second(session, peer, nursery)
        peer.send(m.Request(1, "twice", [4]))
        assert (await peer.read(m.Reply)).result == 8
        assert results == []
        peer.send(m.Reply(call, "late"))
        await wait_all_tasks_blocked()
        assert results == ["late"]


async def test_messages_in_the_replys_packet_are_handled_after_it(no_time):
    seen = []

    class Peer:
        @method
        def see(self, value: int) -> None:
            seen.append((value, list(results)))

    async with session_with_raw_peer(Peer()) as (session, peer), trio.open_nursery() as nursery:
        call, results = await second(session, peer, nursery)
        peer.send(m.Reply(call, 1), m.Request(1, "see", [2]), m.Request(2, "see", [3]))
        await peer.read_all(m.Reply, 2)
        assert [value for value, _ in seen] == [2, 3]
        assert results == [1]


async def test_the_next_call_does_not_overtake_the_rest_of_a_packet(no_time):
    order = []

    class Peer:
        @method
        def see(self, value: int) -> None:
            order.append(value)

    async with session_with_raw_peer(Peer()) as (session, peer), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def calls():
            for name in ("a", "b", "c"):
                order.append(await session.call(name))

        for number, name in enumerate("abc"):
            request = await peer.read(m.Request)
            assert request.method == name
            peer.send(m.Reply(request.id, name), m.Request(number + 1, "see", [number]))
        await wait_all_tasks_blocked()
        assert [each for each in order if isinstance(each, int)] == [0, 1, 2]
        assert [each for each in order if isinstance(each, str)] == ["a", "b", "c"]


@pytest.mark.parametrize("_again", range(10))  # the order of tasks in one turn is random
async def test_race_a_deadline_counts_from_the_time_at_which_a_caller_received_it(
    autojump_clock, _again
):
    """Meanwhile the reader does not receive, so the last time it has read is too old."""

    class Peer:
        @method
        async def work(self) -> float:
            await trio.lowlevel.checkpoint()
            return trio.current_effective_deadline()

    async with session_with_raw_peer(Peer()) as (session, peer), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def call():
            await session.call("first")
            autojump_clock.jump(10)  # blocks this end for 10 s
            peer.send(m.Request(1, "work", [], None, {"deadline": 5.0}))
            await session.call("second")

        peer.send(m.Reply((await peer.read(m.Request)).id, None))
        second_call = await peer.read(m.Request)
        reply = await peer.read(m.Reply | m.ReplyErr)
        assert reply == m.Reply(1, 15.0)
        peer.send(m.Reply(second_call.id, None))


async def test_the_reply_of_another_caller_is_delivered(no_time):
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:
        call, results = await second(session, peer, nursery)
        others = []

        @nursery.start_soon
        async def other():
            others.append(await session.call("other"))

        request = await peer.read(m.Request)
        peer.send(m.Reply(request.id, "other"))
        await wait_all_tasks_blocked()
        assert (results, others) == ([], ["other"])
        peer.send(m.Reply(call, "work"))
        await wait_all_tasks_blocked()
        assert results == ["work"]


async def test_a_cancelled_receiving_caller_waits_until_the_handler_has_ended(no_time):
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:
        left = []
        scope = trio.CancelScope()

        @nursery.start_soon
        async def call():
            with scope:
                await session.call("first")
                await session.call("work")
            left.append(scope.cancelled_caught)

        peer.send(m.Reply((await peer.read(m.Request)).id, None))
        request = await peer.read(m.Request)
        await wait_all_tasks_blocked()
        scope.cancel(reason="enough")
        cancel = await peer.read(m.Cancel)
        assert (cancel.id, cancel.reason) == (request.id, "enough")
        await wait_all_tasks_blocked()
        assert left == []
        peer.send(m.ReplyErr(request.id, {"code": "cancelled", "message": ""}))
        await wait_all_tasks_blocked()
        assert left == [True]


async def test_a_cancelled_receiving_caller_returns_a_result_that_won_the_race(no_time):
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:
        results = []
        scope = trio.CancelScope()

        @nursery.start_soon
        async def call():
            with scope:
                await session.call("first")
                results.append(await session.call("work"))
                results.append("no checkpoint yet")
                await trio.lowlevel.checkpoint()
                results.append("not reached")

        peer.send(m.Reply((await peer.read(m.Request)).id, None))
        request = await peer.read(m.Request)
        await wait_all_tasks_blocked()
        scope.cancel()
        await peer.read(m.Cancel)
        peer.send(m.Reply(request.id, "done"))
        await wait_all_tasks_blocked()
        assert results == ["done", "no checkpoint yet"]
        assert scope.cancelled_caught


async def test_a_receiving_caller_ends_with_the_session(no_time):
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:
        _, results = await second(session, peer, nursery)
        await close_at_once(session)
        await wait_all_tasks_blocked()
        assert [type(each) for each in results] == [trio_rpc.SessionClosed]


async def test_a_receiving_caller_ends_before_a_slow_handler(autojump_clock):
    """Law 6: every call ends at once, and the channel is closed later."""
    ended = []

    async with session_with_raw_peer(Slow()) as (session, peer), trio.open_nursery() as nursery:
        peer.send(m.Request(1, "slow", []))
        await wait_all_tasks_blocked()

        @nursery.start_soon
        async def call():
            await session.call("first")
            with pytest.raises(trio_rpc.SessionClosed):
                await session.call("work")
            ended.append(trio.current_time())

        peer.send(m.Reply((await peer.read(m.Request)).id, None))
        await peer.read(m.Request)
        await wait_all_tasks_blocked()
        started = trio.current_time()
        await close_at_once(session)
        assert ended == [started]
        assert trio.current_time() == pytest.approx(started + 0.5, abs=0.001)


@pytest.mark.parametrize("abandons", [False, True])
async def test_race_a_receiving_caller_is_cancelled_in_the_tick_in_which_the_session_ends(
    no_time, abandons
):
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        @nursery.start_soon
        async def call():
            with scope:
                await session.call("first")
                await session.call("work", abandon_on_cancel=abandons)

        peer.send(m.Reply((await peer.read(m.Request)).id, None))
        await peer.read(m.Request)
        await wait_all_tasks_blocked()
        scope.cancel()
        session._core.lifecycle.stop()
        await peer.read_until_closed()
        assert scope.cancelled_caught
        assert not [each for each in peer.received if isinstance(each, m.Cancel)]


async def test_race_the_reply_arrives_in_the_tick_in_which_the_session_ends(no_time, monkeypatch):
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:
        call, results = await second(session, peer, nursery)
        peer.send(m.Reply(call, "too late"))
        # The receiving task has been woken already, so a socket channel finds no task to stop.
        monkeypatch.setattr(session._core.channel, "stop_receiving", lambda: None)
        session._core.lifecycle.stop()
        await session.wait_closed()
        await wait_all_tasks_blocked()
        assert [type(each) for each in results] == [trio_rpc.SessionClosed]


@pytest.mark.parametrize("_again", range(10))  # the order of tasks in one turn is random
async def test_race_handlers_are_answered_when_a_receiving_caller_is_stopped(
    autojump_clock, _again
):
    """Law 4: the reader does not mistake the end of a receiving caller for a lost channel."""

    async with session_with_raw_peer(Slow()) as (session, peer), trio.open_nursery() as nursery:
        peer.send(m.Request(1, "slow", []))
        await wait_all_tasks_blocked()
        _, results = await second(session, peer, nursery)
        session._core.lifecycle.stop()
        await peer.read_until_closed()
        assert [type(each) for each in results] == [trio_rpc.SessionClosed]
        assert peer.count(m.ReplyErr, 1) == 1
        assert isinstance(peer.received[-1], m.Goodbye)


@pytest.mark.parametrize("beside_the_reply", [False, True])
async def test_a_ping_is_answered_at_once(no_time, beside_the_reply):
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:
        call, results = await second(session, peer, nursery)
        reply = m.Reply(call, "work")
        peer.send(*([reply] if beside_the_reply else []), m.Ping(7))
        assert (await peer.read(m.Pong)).number == 7
        if not beside_the_reply:
            assert results == []
            peer.send(reply)
        await wait_all_tasks_blocked()
        assert results == ["work"]


@pytest.mark.parametrize("end", ["closed", "broken", "garbage"])
async def test_a_channel_that_fails_is_the_end_of_the_session(no_time, end):
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:
        _, results = await second(session, peer, nursery)
        if end == "closed":
            peer.channel.close()
        elif end == "broken":
            peer.channel.abort()
        else:
            assert peer.channel.send_nowait(b"\xc1")
        await session.wait_closed()
        await wait_all_tasks_blocked()
        assert [type(each) for each in results] == [trio_rpc.SessionBroken]
        assert session.statistics().state == "over"


async def test_a_protocol_error_after_a_reply_does_not_revoke_it(no_time):
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:
        call, results = await second(session, peer, nursery)
        peer.send(m.Reply(call, "good"), m.Reply(call, "twice"))
        await session.wait_closed()
        assert results == ["good"]
        with pytest.raises(trio_rpc.SessionBroken, match="not in flight"):
            await session.call("more")


@pytest.mark.parametrize("end", ["broken", "garbage", "garbage after the reply"])
async def test_the_sessions_cause_does_not_refer_to_exceptions_of_the_receiving_caller(
    no_time, end
):
    handled = []

    async def call():
        await session.call("first")
        try:
            int("x")
        except ValueError as exc:
            handled.append(exc)
            with contextlib.suppress(trio_rpc.SessionBroken):
                await session.call("work")

    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:
        nursery.start_soon(call)
        first = await peer.read(m.Request)
        peer.send(m.Reply(first.id, None))
        request = await peer.read(m.Request)
        await wait_all_tasks_blocked()
        if end == "broken":
            peer.channel.abort()
        elif end == "garbage":
            assert peer.channel.send_nowait(b"\xc1")
        else:
            peer.send(m.Reply(request.id, "good"), m.Reply(request.id, "twice"))
        kept = [(await session.wait_closed()).cause]
        assert isinstance(kept[0], Exception)
        for each in kept:
            kept += [came for came in (each.__cause__, each.__context__) if came is not None]
        assert handled[0] not in kept
        assert handled[0].__traceback__.tb_frame.f_code is call.__code__


async def call_once(session):
    await session.call("next")


async def open_stream(session):
    async with session.stream("next"):
        pass


async def open_scope(session):
    async with session.open_scope():
        pass


async def notify(session):
    await session.notify("next")


@pytest.mark.parametrize("act", [call_once, open_stream, open_scope, notify])
async def test_race_a_goodbye_in_the_replys_packet_stops_the_callers_next_call(no_time, act):
    """The caller goes on before the reader has handled the Goodbye."""
    told = []

    async def call(session):
        await session.call("first")
        await session.call("work")
        told.append(session.is_open)
        with pytest.raises(trio_rpc.SessionBroken, match="the other end is leaving") as info:
            await act(session)
        told.append((info.value.fate, info.value.orderly))

    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:
        nursery.start_soon(call, session)
        peer.send(m.Reply((await peer.read(m.Request)).id, None))
        work = await peer.read(m.Request)
        await wait_all_tasks_blocked()
        peer.send(m.Reply(work.id, None), m.Goodbye("that is all"))
        await wait_all_tasks_blocked()
        assert told == [False, (trio_rpc.Fate.NOT_STARTED, True)]
        assert peer.count(m.Request, work.id + 1) == 0


async def test_aclose_waits_for_a_receiving_caller(no_time):
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:
        call, results = await second(session, peer, nursery)
        nursery.start_soon(session.aclose)
        await peer.read(m.Goodbye)
        peer.send(m.Goodbye("done", ""))
        await wait_all_tasks_blocked()
        peer.send(m.Reply(call, "work"))
        await session.wait_closed()
        assert results == ["work"]


async def test_the_task_of_a_handler_can_receive_the_replies_to_its_own_calls(no_time):
    """The handler's consecutive calls are received by its own task."""
    asked = []

    class Asks:
        @method
        async def ask(self) -> list[int]:
            call = trio_rpc.current_call()
            return [await call.session.call("answer") for _ in range(3)]

    async with session_with_raw_peer(Asks()) as (_, peer):
        peer.send(m.Request(1, "ask", []))
        for number in range(3):
            request = await peer.read(m.Request)
            asked.append(request.id)
            peer.send(m.Reply(request.id, number))
        assert (await peer.read(m.Reply)).result == [0, 1, 2]
