"""Handlers: their errors and groups, their context, inline handlers and first steps."""

from __future__ import annotations

import logging

import pytest
import trio
from helpers.handlers import Sleeper, service
from helpers.raw_peer import close_at_once, session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc.wire import messages as m

# ── groups and cancellation from outside ─────────────────────────────────────────────────────


async def _fail_when_cancelled():
    try:
        await trio.sleep_forever()
    finally:
        raise ValueError("while cleaning up")


async def _with_children(*functions):
    async with trio.open_nursery() as nursery:
        for each in functions:
            nursery.start_soon(each)


async def test_a_handler_that_fails_while_its_session_is_cancelled_does_not_hide_the_cancellation(
    no_time,
):
    async def work():
        await _with_children(_fail_when_cancelled, trio.sleep_forever)

    with trio.CancelScope() as scope:
        async with session_with_raw_peer(service(work)) as (_, peer):
            peer.send(m.Request(1, "work", []))
            await wait_all_tasks_blocked()
            scope.cancel()
            with trio.CancelScope(shield=True):
                reply = await peer.read(m.ReplyErr)
    assert scope.cancelled_caught
    assert reply.error["code"] == "raised"
    assert [each["message"] for each in reply.error["errors"]] == ["while cleaning up"]


async def test_a_handler_with_children_cancelled_from_outside_ends_as_cancelled(no_time):
    async def work():
        await _with_children(*[trio.sleep_forever] * 3)

    with trio.CancelScope() as scope:
        async with session_with_raw_peer(service(work)) as (_, peer):
            peer.send(m.Request(1, "work", []))
            await wait_all_tasks_blocked()
            scope.cancel()
            with trio.CancelScope(shield=True):
                assert (await peer.read(m.ReplyErr)).error["code"] == "cancelled"
    assert scope.cancelled_caught


@pytest.mark.parametrize("method", ["at_once", "later", "inline"])
async def test_a_group_with_a_fatal_exception_is_sent_to_its_caller_and_ends_the_program(
    no_time, method
):
    class Mixed:
        @trio_rpc.method
        async def at_once(self):
            self.inline()

        @trio_rpc.method
        async def later(self):
            await trio.lowlevel.checkpoint()
            self.inline()

        @trio_rpc.method
        def inline(self):
            raise BaseExceptionGroup("mixed", [ValueError("harmless"), KeyboardInterrupt()])

    with pytest.raises(KeyboardInterrupt):
        async with session_with_raw_peer(Mixed()) as (session, peer):
            try:
                peer.send(m.Request(1, method, []))
                await session.wait_closed()
            finally:
                with trio.CancelScope(shield=True):
                    reply = await peer.read(m.ReplyErr)
    assert len(reply.error["errors"]) == 2


async def test_after_a_fatal_handler_all_requests_of_its_packet_are_answered(no_time):
    class Mixed(Sleeper):
        @trio_rpc.method
        async def fatal(self):
            raise SystemExit(2)

    with pytest.raises(SystemExit):
        async with session_with_raw_peer(Mixed()) as (session, peer):
            try:
                peer.send(*(m.Request(n, "fatal" if n == 2 else "sleep", []) for n in range(1, 6)))
                await session.wait_closed()
            finally:
                with trio.CancelScope(shield=True):
                    await peer.read_all(m.ReplyErr, 5)
    assert [peer.count(m.ReplyErr, n) for n in range(1, 6)] == [1] * 5


async def test_a_handler_may_await_an_object_that_is_not_a_coroutine(session_pair, no_time):
    class Wrapped:
        @trio_rpc.method
        async def work(self):
            return await _Awaitable()

    async with session_pair(None, Wrapped()) as (a, _):
        assert await a.call("work") == "done"


class _Awaitable:
    def __await__(self):
        return self._work().__await__()

    async def _work(self):
        await trio.lowlevel.checkpoint()
        return "done"


# ── results and errors that cannot be sent ───────────────────────────────────────────────────


async def test_a_result_that_cannot_be_encoded_is_an_error_reply(session_pair, no_time):
    async def work():
        return {"deep": [object()]}

    async with session_pair(None, service(work)) as (a, _):
        with pytest.raises(trio_rpc.RemoteError, match="cannot be sent") as caught:
            await a.call("work")
        assert caught.value.fate is trio_rpc.Fate.STOPPED


async def test_an_error_that_cannot_be_encoded_still_arrives(session_pair, no_time):
    """An error that cannot be encoded still produces an error reply."""

    class Odd(Exception):
        pass

    class Faulty:
        @trio_rpc.method(raises=(Odd,))
        async def work(self):
            raise Odd(object(), "\udc80", "x" * 10_000_000)

    async with session_pair(None, Faulty()) as (a, _):
        with pytest.raises(Odd) as caught:
            await a.proxy("", Faulty).work()
        assert len(str(caught.value)) < 30_000


@pytest.mark.parametrize("detail", ["none", "message", "traceback"])
async def test_the_serving_end_decides_about_error_detail(session_pair, no_time, detail):
    """The serving end decides how much detail of an error its peer gets."""

    async def work():
        raise LookupError("the secret") from ValueError("deeper")

    options = {"error_detail": detail}
    async with session_pair(None, service(work), options_b=options) as (a, _):
        with pytest.raises(Exception) as caught:
            await a.call("work")
    exc = caught.value
    assert ("secret" in str(exc)) is (detail != "none")
    if detail == "traceback":
        assert type(exc) is LookupError
        assert isinstance(exc.__cause__, trio_rpc.RemoteTraceback)
        assert "deeper" in str(exc.__cause__)
    else:
        assert exc.__cause__ is None


# ── the context of a handler ─────────────────────────────────────────────────────────────────


class Curious:
    @trio_rpc.method
    async def look(self):
        return self._seen()

    @trio_rpc.method
    async def look_later(self):
        await trio.lowlevel.checkpoint()
        return self._seen()

    @trio_rpc.method
    def look_inline(self):
        return self._seen()

    def _seen(self):
        call = trio_rpc.current_call()
        return [call.method, dict(call.metadata), repr(call)]


@pytest.mark.parametrize("method", ["look", "look_later", "look_inline"])
async def test_current_call_and_metadata_in_a_handler(session_pair, no_time, method):
    async with session_pair(None, {"here": Curious()}) as (a, b):
        with trio_rpc.metadata(user="ann"), trio_rpc.metadata(trace=7):
            name, metadata, text = await a.call(f"here.{method}")
        assert name == f"here.{method}"
        assert metadata == {"user": "ann", "trace": 7}
        assert repr(b) in text
        assert (await a.call(f"here.{method}"))[1] == {}
        with pytest.raises(RuntimeError):
            trio_rpc.current_call()


async def test_metadata_is_not_forwarded_automatically(session_pair, no_time):
    class Forwards:
        def __init__(self, session):
            self.session = session

        @trio_rpc.method
        async def forward(self):
            return await self.session.call("look")

    async with session_pair(Curious(), Forwards) as (a, _):
        with trio_rpc.metadata(user="x"):
            assert (await a.call("forward"))[1] == {}


async def test_handlers_do_not_inherit_the_metadata_of_the_sessions_opener(session_pair, no_time):
    class Forwards(Curious):
        def __init__(self, session):
            self.session = session

        @trio_rpc.method
        async def forward(self):
            return await self.session.call("look")

    with trio_rpc.metadata(user="the pool's first customer"):
        async with session_pair(Curious(), Forwards) as (a, b):
            assert (await b.call("look"))[1] == {"user": "the pool's first customer"}
            assert (await a.call("forward"))[1] == {}


async def test_handlers_of_one_packet_do_not_see_each_others_context(no_time):
    import contextvars

    mark = contextvars.ContextVar("mark", default="unmarked")

    class Marks:
        @trio_rpc.method
        async def read(self):
            before = mark.get()
            mark.set("marked")
            return before

        @trio_rpc.method
        async def read_later(self):
            before = mark.get()
            mark.set("marked")
            await trio.lowlevel.checkpoint()
            return before + mark.get()

    async with session_with_raw_peer(Marks()) as (_, peer):
        names = ["read", "read_later"] * 4
        peer.send(*(m.Request(n, name, []) for n, name in enumerate(names, 1)))
        replies = await peer.read_all(m.Reply, 8)
        assert {each.result for each in replies} == {"unmarked", "unmarkedmarked"}


async def test_a_task_is_named_after_the_handler_that_it_runs(session_pair, no_time):
    names = []

    async def work():
        await trio.lowlevel.checkpoint()
        names.append(trio.lowlevel.current_task().name)

    async with session_pair(None, {"market": service(work)}) as (a, _):
        await a.call("market.work")
    assert names == ["market.work"]


async def test_a_service_may_keep_a_proxy_of_its_client(session_pair, no_time):
    """A service may get the session when it is made, and call the other end through it."""

    class Client:
        @trio_rpc.method
        async def confirm(self, question: str) -> bool:
            return question == "really?"

    class Server:
        def __init__(self, session):
            self.client = session.proxy("", Client)
            self.calls = 0

        @trio_rpc.method
        async def delete(self) -> tuple[bool, int]:
            self.calls += 1
            return await self.client.confirm("really?"), self.calls

    for _ in range(2):  # each session has its own service object
        async with session_pair(Client(), Server) as (a, _):
            assert await a.proxy("", Server).delete() == (True, 1)
            assert await a.proxy("", Server).delete() == (True, 2)


async def test_a_failing_notification_is_logged_and_has_no_other_effect(
    session_pair, no_time, caplog
):
    """A notification that fails is logged, and has no other effect."""

    class Listener:
        @trio_rpc.notification
        async def later(self):
            await trio.lowlevel.checkpoint()
            raise ValueError("later")

        @trio_rpc.notification
        def inline(self):
            raise ValueError("inline")

    with caplog.at_level(logging.ERROR, logger="trio_rpc"):
        async with session_pair(None, Listener()) as (a, _):
            await a.notify("later")
            await a.proxy("", Listener).inline()
            await a.ping()
            await wait_all_tasks_blocked()
    assert sorted(str(each.exc_info[1]) for each in caplog.records) == ["inline", "later"]


async def test_a_handler_that_cancels_its_own_scope_does_not_count_as_cancelled(
    session_pair, no_time
):
    async def work():
        with trio.CancelScope() as scope:
            scope.cancel()
            await trio.sleep_forever()
        return "fine"

    async with session_pair(None, service(work)) as (a, _):
        assert await a.call("work") == "fine"


async def test_calls_that_the_peer_cancels_raise_remote_cancelled(session_pair, no_time):
    async with session_pair(None, Sleeper()) as (a, b), trio.open_nursery() as nursery:

        async def call():
            with pytest.raises(trio_rpc.RemoteCancelled, match="ending"):
                await a.call("sleep")

        nursery.start_soon(call)
        await wait_all_tasks_blocked()
        await close_at_once(b)


# ── the first step of a handler, which the reading task runs ─────────────────────────────────


async def test_a_handler_can_be_woken_by_a_later_message_of_its_packet(no_time):
    class Pair:
        def __init__(self):
            self.event = trio.Event()

        @trio_rpc.method
        async def wait(self):
            await self.event.wait()
            return "woken"

        @trio_rpc.method
        def inline(self):
            self.event.set()

        @trio_rpc.method
        async def at_once(self):
            self.event.set()

    for name in ("inline", "at_once"):
        async with session_with_raw_peer(Pair()) as (_, peer):
            peer.send(*(m.Request(n, "wait", []) for n in range(1, 4)), m.Request(4, name, []))
            replies = await peer.read_all(m.Reply, 4)
            assert {each.id: each.result for each in replies} == {
                **dict.fromkeys((1, 2, 3), "woken"),
                4: None,
            }


async def test_scopes_and_nurseries_opened_in_the_first_step_belong_to_the_handler(autojump_clock):
    class Own:
        def __init__(self):
            self.children = 0

        @trio_rpc.method
        async def opens(self):
            with trio.move_on_after(1) as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.child)
                    nursery.start_soon(self.child)
            return scope.cancelled_caught

        async def child(self):
            self.children += 1
            try:
                await trio.sleep_forever()
            finally:
                self.children -= 1

    own = Own()
    async with session_with_raw_peer(own) as (session, peer):
        peer.send(*(m.Request(n, "opens", []) for n in range(1, 11)))
        await wait_all_tasks_blocked()
        assert own.children == 20
        peer.send(m.Cancel(3, "enough"))
        await wait_all_tasks_blocked()
        assert own.children == 18
        replies = await peer.read_all((m.Reply, m.ReplyErr), 10)
        assert isinstance(replies[0], m.ReplyErr)
        assert [each.result for each in replies[1:]] == [True] * 9
        assert trio.current_time() == pytest.approx(1, abs=0.001)
        assert own.children == session.statistics().calls_in == 0


async def test_no_handler_starts_after_the_block_has_been_cancelled(no_time):
    begun = []

    class Records:
        @trio_rpc.method
        async def waits(self):
            begun.append("waits")

        @trio_rpc.method
        def plain(self):
            begun.append("plain")

    with trio.CancelScope() as scope:
        async with session_with_raw_peer(Records()) as (_, peer):
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            finally:
                with trio.CancelScope(shield=True):
                    await wait_all_tasks_blocked()
                    peer.send(m.Request(1, "waits", []), m.Request(2, "plain", []))
                    answers = await peer.read_all(m.ReplyErr, 2)
    assert [answer.error["started"] for answer in answers] == [False, False]
    assert begun == []


async def test_a_first_step_that_cancels_the_block_does_not_stop_the_reader(no_time):
    class Stops(Sleeper):
        @trio_rpc.method
        async def stop(self):
            scope.cancel()
            return "stopping"

    sleeper = Stops()
    with trio.CancelScope() as scope:
        async with session_with_raw_peer(sleeper) as (_, peer):
            peer.send(
                m.Request(1, "sleep", []), m.Request(2, "stop", []), m.Request(3, "sleep", [])
            )
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    # Handlers of later requests do not start at all.
                    peer.send(m.Request(4, "sleep", []), m.Ping(1))
                    answers = await peer.read_all((m.Reply, m.ReplyErr, m.Pong), 5)
    assert scope.cancelled_caught
    by_id = {each.id: each for each in answers if not isinstance(each, m.Pong)}
    assert by_id[2].result == "stopping"
    assert by_id[1].error["started"] is True
    assert by_id[4].error["code"] == "cancelled"
    assert by_id[4].error["started"] is False  # law 15: it may be repeated
    assert sleeper.running == 0
    assert sleeper.started <= 2
