"""Laws 1 to 8 of docs/guarantees.md: calls, their cancellation, their ends and their errors."""

from __future__ import annotations

import functools
import math

import pytest
import trio
from helpers.handlers import Clock, Echo, Sleeper, service
from helpers.raw_peer import close_at_once, session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Fate, Limits
from trio_rpc.wire import messages as m


class Chain:
    """A service that calls the other end, which calls back, and so on. The last handler sleeps."""

    def __init__(self, session, log):
        self._session = session
        self._log = log

    @trio_rpc.method
    async def descend(self, levels: int) -> None:
        try:
            if levels:
                await self._session.call("descend", levels - 1)
            else:
                await trio.sleep_forever()
        finally:
            self._log.append(levels)


# ── 1: one tree ──────────────────────────────────────────────────────────────────────────────


async def test_law_1_one_tree_cancelling_the_root_ends_every_level_from_the_leaf_up(
    session_pair, no_time
):
    log = []
    chain = functools.partial(Chain, log=log)
    async with (
        session_pair(chain, chain) as (a, b),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(a.call, "descend", 5)
        await wait_all_tasks_blocked()
        assert log == []
        nursery.cancel_scope.cancel()
    assert log == [0, 1, 2, 3, 4, 5]
    assert a.tree() == b.tree() == []


async def test_law_1_one_tree_both_ends_show_each_call_with_its_parent(session_pair, no_time):
    chain = functools.partial(Chain, log=[])
    async with (
        session_pair(chain, chain) as (a, b),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(a.call, "descend", 2)
        await wait_all_tasks_blocked()
        here = {(node.direction, node.id): node for node in a.tree()}
        there = {(node.direction, node.id): node for node in b.tree()}
        assert set(here) == {("out", 1), ("in", 1), ("out", 2)}
        assert set(there) == {("in", 1), ("out", 1), ("in", 2)}
        assert here["out", 1].parent is None
        assert here["in", 1].parent == ("out", 1)
        assert here["out", 2].parent == ("in", 1)
        assert there["in", 1].parent is None
        assert there["out", 1].parent == ("in", 1)
        assert there["in", 2].parent == ("out", 1)
        assert {node.method for node in a.tree() + b.tree()} == {"descend"}
        nursery.cancel_scope.cancel()


async def test_law_1_one_tree_a_handlers_failure_ends_its_callbacks_first(session_pair, no_time):
    ended = []

    class Client:
        @trio_rpc.method
        async def wait(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                ended.append("callback")

    class Server:
        def __init__(self, session):
            self._client = session.proxy()

        @trio_rpc.method
        async def work(self) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._client.wait)
                await wait_all_tasks_blocked()
                raise ValueError("enough")

    async with session_pair(Client(), Server) as (a, _):
        with pytest.raises(ExceptionGroup) as caught:
            await a.call("work")
        assert [str(exc) for exc in caught.value.exceptions] == ["enough"]
        assert ended == ["callback"]


# ── 2: Cancel is a message ───────────────────────────────────────────────────────────────────


async def test_law_2_cancel_is_a_message_no_handler_still_runs_when_the_callers_block_is_over(
    session_pair,
    autojump_clock,
):
    """When a cancelled caller goes on, the remote task has ended, or was abandoned by choice."""
    sleeper = Sleeper()
    async with session_pair(None, sleeper) as (a, _):
        with trio.move_on_after(1) as scope:
            await a.call("sleep", clean_up=3.0)
        assert scope.cancelled_caught
        assert sleeper.running == 0
        assert sleeper.ended == [("sleep", "cancelled", pytest.approx(4, abs=0.001))]
        assert trio.current_time() == pytest.approx(4, abs=0.001)


async def test_law_2_cancel_is_a_message_that_is_sent_once_with_the_reason_of_the_scope(no_time):
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:
        outer = trio.CancelScope()

        async def call():
            with outer, trio.CancelScope() as inner:
                nursery.start_soon(cancel_both, inner)
                await session.call("sleep")

        async def cancel_both(inner):
            request = await peer.read(m.Request)
            inner.cancel(reason="the user pressed stop")
            await wait_all_tasks_blocked()
            outer.cancel(reason="and then left")
            await wait_all_tasks_blocked()
            session._core.protocol.ping()  # the peer reads up to this Ping
            session._core.writer.wake()
            await peer.read(m.Ping)
            peer.send(m.ReplyErr(request.id, {"code": "cancelled", "message": ""}))

        nursery.start_soon(call)
    cancels = [each for each in peer.received if isinstance(each, m.Cancel)]
    assert cancels == [m.Cancel(1, "the user pressed stop")]


@pytest.mark.parametrize("reason", ["stop", "x" * 5000, "lone \udc80", 7])
async def test_law_2_cancel_is_a_message_whose_reason_reaches_the_handler(
    session_pair, no_time, reason
):
    sleeper = Sleeper()
    async with session_pair(None, sleeper) as (a, _), trio.open_nursery() as nursery:
        nursery.start_soon(a.call, "sleep")
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel(reason=reason)
    reason_sent = str(reason)[:1000].encode(errors="backslashreplace").decode()
    assert sleeper.reasons == [reason_sent]


async def test_law_2_cancel_is_a_message_first_exit_abandon_on_cancel(session_pair, autojump_clock):
    sleeper = Sleeper()
    async with session_pair(None, sleeper) as (a, b):
        with trio.move_on_after(1):
            await a.call("sleep", clean_up=3.0, abandon_on_cancel=True)
        assert trio.current_time() == pytest.approx(1, abs=0.001)
        await wait_all_tasks_blocked()
        assert len(sleeper.reasons) == 1  # it is cancelled, but the caller has not waited
        assert sleeper.running == 1
        assert a.statistics().calls_out == 1  # the call keeps its slot until the handler has ended
        await trio.sleep(4)
        assert a.statistics().calls_out == b.statistics().calls_in == 0
        assert a.statistics().late_replies == 1


async def test_law_2_cancel_is_a_message_second_exit_cancel_grace(
    session_pair, autojump_clock, caplog
):
    limits = Limits(cancel_grace=2)
    sleeper = Sleeper()
    async with session_pair(None, sleeper, options_a={"limits": limits}) as (a, _):
        with trio.move_on_after(1) as scope:
            await a.call("stubborn", 9)
        assert scope.cancelled_caught
        assert trio.current_time() == pytest.approx(3, abs=0.001)
        assert "abandoned" in caplog.text
        await trio.sleep(10)
        assert a.statistics().late_replies == 1
        with pytest.raises(trio_rpc.MethodNotFound):
            await a.call("nothing")


async def test_law_2_cancel_is_a_message_third_exit_the_end_of_the_session(autojump_clock):
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:

        async def die():
            await peer.read(m.Cancel)
            await trio.sleep(1)
            peer.channel.close()

        nursery.start_soon(die)
        with trio.move_on_after(1) as scope:
            await session.call("sleep")
        assert scope.cancelled_caught
        assert trio.current_time() == pytest.approx(2, abs=0.001)


# ── 3: a result that won the race ────────────────────────────────────────────────────────────


async def test_law_3_a_result_that_won_the_race_is_returned(no_time):
    async with session_with_raw_peer() as (session, peer):
        result = None
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def answer_too_late():
                    with trio.CancelScope(shield=True):
                        request = await peer.read(m.Request)
                        scope.cancel()
                        await peer.read(m.Cancel)
                        peer.send(m.Reply(request.id, "precious"))

                nursery.start_soon(answer_too_late)
                result = await session.call("charge")
        assert result == "precious"


async def test_law_3_an_error_that_won_the_race_is_raised(no_time):
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:

            async def fail():
                request = await peer.read(m.Request)
                scope.cancel()
                error = {
                    "code": "raised",
                    "type": "builtins.ValueError",
                    "message": "no",
                    "args": ["no"],
                }
                peer.send(m.ReplyErr(request.id, error))

            nursery.start_soon(fail)
            with pytest.raises(ValueError, match="no") as caught:
                await session.call("charge")
        assert caught.value.args == ("no",)  # otherwise the scope has swallowed a Cancelled


async def test_law_3_the_result_of_a_cancelled_handler_that_still_returns_is_delivered(
    session_pair,
    autojump_clock,
):
    async with session_pair(None, Sleeper()) as (a, _):
        with trio.move_on_after(1) as scope:
            result = await a.call("stubborn", 2)
        assert result == "stubborn"
        assert not scope.cancelled_caught


# ── 4: exactly one terminal message ──────────────────────────────────────────────────────────


async def _raise(error):
    raise error


async def _return_unsendable():
    return object()


@pytest.mark.parametrize(
    ("function", "terminal"),
    [
        (functools.partial(trio.sleep, 0), m.Reply),
        (functools.partial(_raise, ValueError()), m.ReplyErr),
        (functools.partial(_raise, ExceptionGroup("", [ValueError()])), m.ReplyErr),
        (_return_unsendable, m.ReplyErr),
    ],
    ids=["result", "error", "group", "unsendable"],
)
async def test_law_4_exactly_one_terminal_message_for_each_request(no_time, function, terminal):
    class One:
        @trio_rpc.method
        async def do(self):
            return await function()

        @trio_rpc.method
        def now(self):
            return 1

    async with session_with_raw_peer(One()) as (session, peer):
        peer.send(m.Request(1, "do", []), m.Request(2, "now", []), m.Request(3, "none", []))
        await wait_all_tasks_blocked()
        peer.send(m.Cancel(1), m.Cancel(2), m.Cancel(3))  # too late, without effect
        await wait_all_tasks_blocked()
        assert session.statistics().late_cancels == 3
        await close_at_once(session)
        await peer.read_until_closed()
    assert peer.count(terminal, 1) == 1
    for call in (1, 2, 3):
        assert peer.count(m.Reply, call) + peer.count(m.ReplyErr, call) == 1


async def test_law_4_exactly_one_terminal_message_also_after_cancel(no_time):
    async with session_with_raw_peer(Sleeper()) as (session, peer):
        peer.send(m.Request(1, "sleep", []), m.Request(2, "sleep", []))
        await wait_all_tasks_blocked()
        peer.send(m.Cancel(1), m.Cancel(2), m.Cancel(1))
        await wait_all_tasks_blocked()
        assert session.statistics().calls_in == 0
        await close_at_once(session)
        await peer.read_until_closed()
    assert [peer.count(m.ReplyErr, call) for call in (1, 2)] == [1, 1]
    assert [peer.count(m.Reply, call) for call in (1, 2)] == [0, 0]


async def test_law_4_no_terminal_message_for_a_notification(no_time, caplog):
    """A notification finds its service and its method, and has no reply."""

    class Listener:
        @trio_rpc.notification
        async def fine(self):
            pass

        @trio_rpc.notification
        async def fails(self):
            raise ValueError("in a notification")

    async with session_with_raw_peer(Listener()) as (session, peer):
        peer.send(m.Notification("fine", []), m.Notification("fails", []))
        peer.send(m.Notification("none", []), m.Notification("fine", ["too many"]))
        await wait_all_tasks_blocked()
        await close_at_once(session)
        await peer.read_until_closed()
    assert not any(isinstance(each, m.Reply | m.ReplyErr) for each in peer.received)
    assert "in a notification" in caplog.text


# ── 5: deadlines travel ──────────────────────────────────────────────────────────────────────


class NestedClock(Clock):
    def __init__(self, session):
        self._session = session

    @trio_rpc.method
    async def nested_seconds_left(self):
        await trio.sleep(2)
        return await self._session.call("seconds_left")


async def test_law_5_deadlines_travel_to_the_handler_and_the_calls_it_makes(
    session_pair, autojump_clock
):
    """There is no timeout by default, and the caller's deadline travels to the handler."""
    async with session_pair(Clock(), NestedClock) as (a, _):
        assert await a.call("seconds_left") is None
        with trio.fail_after(10):
            assert await a.call("seconds_left") == pytest.approx(10, abs=0.001)
            assert await a.call("nested_seconds_left") == pytest.approx(8, abs=0.001)


async def test_law_5_deadlines_travel_so_that_the_handler_stops_without_a_cancel(autojump_clock):
    sleeper = Sleeper()
    async with session_with_raw_peer(sleeper) as (_, peer):
        peer.send(m.Request(1, "sleep", [], {}, {"deadline": 3.0}))
        reply = await peer.read(m.ReplyErr)
        assert reply.error["code"] == "deadline"
        assert trio.current_time() == pytest.approx(3, abs=0.001)


@pytest.mark.parametrize("limit", [trio.move_on_after, trio.fail_after])
async def test_law_5_a_caller_sees_its_own_cancellation_and_not_a_remote_deadline_error(
    session_pair, autojump_clock, limit
):
    async with session_pair(None, Sleeper()) as (a, _):
        raised = None
        with trio.CancelScope() as outer:
            try:
                with limit(2) as scope:
                    await a.call("sleep")
            except trio.TooSlowError as exc:
                raised = exc
        assert scope.cancelled_caught
        assert not outer.cancelled_caught
        assert (raised is None) is (limit is trio.move_on_after)
        assert trio.current_time() == pytest.approx(2, abs=0.001)


async def test_law_5_a_call_after_its_deadline_sends_nothing(session_pair, no_time):
    async with session_pair(None, Echo()) as (a, b):
        before = b.statistics().packets_received
        with trio.CancelScope(deadline=trio.current_time() - 1) as scope:
            await a.call("echo", 1)
        assert scope.cancelled_caught
        await wait_all_tasks_blocked()
        assert b.statistics().packets_received == before


async def test_law_5_a_deadline_that_was_moved_after_the_call_raises_an_error_that_says_so(
    session_pair, autojump_clock
):
    async with session_pair(None, Sleeper()) as (a, _), trio.open_nursery() as nursery:
        with trio.move_on_after(2) as scope:

            async def extend():
                await trio.sleep(1)
                scope.deadline = math.inf

            nursery.start_soon(extend)
            with pytest.raises(trio_rpc.RemoteCancelled, match="moved") as caught:
                await a.call("sleep")
        assert caught.value.fate is Fate.STOPPED


# ── 6: handlers belong to the session's nursery ──────────────────────────────────────────────


@pytest.mark.parametrize("how", ["leave", "raise", "cancel", "aclose", "peer", "reset"])
async def test_law_6_handlers_are_cancelled_and_awaited_before_the_sessions_block_ends(
    autojump_clock, how, tasks
):
    """Handlers live in their session's nursery; its end cancels them and waits for them."""
    sleeper = Sleeper()
    before = tasks()
    with trio.CancelScope() as scope:
        try:
            limits = Limits(close_grace=0.5)
            async with session_with_raw_peer(sleeper, limits=limits) as (session, peer):
                peer.send(m.Request(1, "sleep", ["x", 0.25]), m.Request(2, "stubborn", [0.25]))
                await wait_all_tasks_blocked()
                assert sleeper.running == 1
                await _end(how, session, peer, scope)
        except KeyError:
            assert how == "raise"
    assert sleeper.running == 0
    assert sleeper.started == 2
    assert tasks() == before


async def _end(how, session, peer, scope):
    match how:
        case "raise":
            raise KeyError
        case "cancel":
            scope.cancel()
            await trio.sleep_forever()
        case "aclose":
            await session.aclose(grace=0.01)
        case "peer":
            peer.channel.close()
            await session.wait_closed()
        case "reset":
            peer.channel.abort()
            await session.wait_closed()


async def test_law_6_calls_in_flight_raise_before_the_sessions_block_ends(no_time):
    async with trio.open_nursery() as nursery:
        raised = []

        async def call(session, *, started):
            with pytest.raises(trio_rpc.SessionClosed) as caught:
                await session.call("sleep")
            raised.append(caught.value)

        async with session_with_raw_peer() as (session, peer):
            for _ in range(3):
                nursery.start_soon(functools.partial(call, session, started=None))
            await peer.read(m.Request)
            await close_at_once(session)
        await wait_all_tasks_blocked()
        assert [exc.fate for exc in raised] == [Fate.UNKNOWN] * 3


async def test_law_6_a_session_that_has_ended_starts_no_handler(no_time):
    # The packet has arrived and the reader is about to run when the session ends.
    sleeper = Sleeper()
    async with session_with_raw_peer(sleeper) as (session, peer):
        peer.send(m.Request(1, "sleep", []))
        session._core.lifecycle.stop()
        await session.wait_closed()
    assert sleeper.started == 0


# ── 7: errors go to the parent ───────────────────────────────────────────────────────────────


class NoSuchUser(Exception):
    pass


async def test_law_7_errors_go_to_the_parent_and_the_session_goes_on(session_pair, no_time):
    """A handler that raises does not end its session."""

    class Faulty:
        @trio_rpc.method(raises=(NoSuchUser,))
        async def declared(self):
            raise NoSuchUser("ann")

        @trio_rpc.method
        async def undeclared(self):
            raise NoSuchUser("bob")

        @trio_rpc.method
        def inline(self):
            raise ZeroDivisionError

    async with session_pair(None, Faulty()) as (a, _):
        proxy = a.proxy("", Faulty)
        with pytest.raises(NoSuchUser, match="ann"):
            await proxy.declared()
        with pytest.raises(trio_rpc.RemoteError, match="bob") as caught:
            await proxy.undeclared()
        assert caught.value.fate is Fate.STOPPED
        with pytest.raises(ZeroDivisionError):
            await proxy.inline()


async def test_law_7_groups_keep_their_structure(session_pair, no_time):
    async def fail():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_raise, ValueError("one"))
            nursery.start_soon(_raise, KeyError("two"))

    async with session_pair(None, service(fail)) as (a, _):
        with pytest.raises(ExceptionGroup) as caught:
            await a.call("fail")
        assert {type(exc) for exc in caught.value.exceptions} == {ValueError, KeyError}


@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("method", ["later", "now"])
async def test_law_7_only_fatal_exceptions_end_the_server_and_their_caller_still_gets_a_reply(
    no_time, fatal, method
):
    class Fatal:
        @trio_rpc.method
        async def later(self):
            raise fatal

        @trio_rpc.method
        def now(self):
            raise fatal

    with pytest.raises(fatal):
        async with session_with_raw_peer(Fatal()) as (session, peer):
            try:
                peer.send(m.Request(1, method, []))
                await session.wait_closed()
            finally:
                with trio.CancelScope(shield=True):
                    reply = await peer.read(m.ReplyErr)
    assert reply.id == 1
    assert fatal.__name__ in reply.error["type"]


async def test_law_7_a_cancelled_handler_with_a_nursery_is_answered_as_cancelled_and_not_as_a_group(
    no_time,
):
    async def many():
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(trio.sleep_forever)

    async with session_with_raw_peer(service(many)) as (session, peer):
        peer.send(m.Request(1, "many", []))
        await wait_all_tasks_blocked()
        await close_at_once(session)
        reply = await peer.read(m.ReplyErr)
    assert reply.error["code"] == "cancelled"


# ── 8: references die with their scope ───────────────────────────────────────────────────────


async def test_law_8_calls_of_a_task_that_outlives_its_call_have_no_parent(session_pair, no_time):
    contexts = []

    class Home:
        @trio_rpc.method
        async def note(self):
            contexts.append(trio_rpc.current_call().session.tree())

    class Away:
        def __init__(self, session):
            self.home = session.proxy()

        @trio_rpc.method
        async def detach(self):
            nursery.start_soon(self.later)

        async def later(self):
            await ended.wait()
            await self.home.note()

    ended = trio.Event()
    async with session_pair(Home(), Away) as (a, _), trio.open_nursery() as nursery:
        await a.call("detach")
        ended.set()
        await wait_all_tasks_blocked()
    [[node]] = contexts
    assert node.direction == "in"
    assert node.parent is None


async def test_law_8_an_object_that_can_be_neither_sent_nor_referenced_is_refused_at_its_sender(
    session_pair, no_time
):
    async with session_pair(None, Echo()) as (a, b):
        before = b.statistics().messages_received
        for alive in ((each for each in ()), object(), object):
            with pytest.raises(trio_rpc.EncodeError) as caught:
                await a.call("echo", alive)
            assert caught.value.fate is Fate.NOT_STARTED
        await wait_all_tasks_blocked()
        assert b.statistics().messages_received == before
