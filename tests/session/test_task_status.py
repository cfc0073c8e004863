"""``await nursery.start(proxy.feed)``: task_status over a session works as in Trio."""

from __future__ import annotations

import math

import pytest
import trio
from helpers.raw_peer import close_at_once, session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import method
from trio_rpc.wire import messages as m


class Gone(Exception):
    pass


class Feeds:
    def __init__(self):
        self.log = []
        self.go = trio.Event()
        self.statuses = []

    @method(raises=(Gone,))
    async def feed(
        self,
        value: object = None,
        *,
        before: str = "",
        after: str = "",
        wait: float = 0,
        task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED,
    ) -> str:
        self.statuses.append(task_status)
        try:
            if before:
                raise Gone(before)
            await trio.sleep(wait)
            task_status.started(value)
            self.log.append(("deadline", trio.current_effective_deadline() - trio.current_time()))
            if after:
                raise Gone(after)
            await self.go.wait()
        except trio.Cancelled as exc:
            self.log.append(("cancelled", exc.reason))
            raise
        return "the end"

    @method
    async def twice(self, *, task_status: trio.TaskStatus[int]) -> None:
        task_status.started(1)
        task_status.started(2)

    @method
    async def never(self, *, task_status: trio.TaskStatus[int]) -> None:
        pass

    @method
    async def unsendable(self, *, task_status: trio.TaskStatus[object]) -> None:
        with pytest.raises(trio_rpc.EncodeError):
            task_status.started(object())
        task_status.started("something else")

    @method
    async def ordinary(self) -> None:
        pass


@pytest.fixture
async def feeds():
    return Feeds()


def opened(session_pair, feeds):
    return session_pair(feeds, None)


async def assert_no_calls_left(*sessions):
    await wait_all_tasks_blocked()  # a stream argument may end a little later
    for session in sessions:
        assert session.tree() == []
        protocol = session._core.protocol
        assert not protocol.outgoing
        assert not protocol.incoming
        assert not protocol._taken._to_start
        assert not protocol._given._to_start


@pytest.mark.parametrize(
    "value", [None, 42, {"port": [1, 2]}, b"x" * 300_000], ids=lambda v: type(v)
)
async def test_start_returns_the_value_while_the_handler_lives(session_pair, feeds, no_time, value):
    async with opened(session_pair, feeds) as (a, b), trio.open_nursery() as nursery:
        assert await nursery.start(b.proxy("", Feeds).feed, value) == value
        assert [node.state for node in a.tree()] == ["running"]
        feeds.go.set()
    await assert_no_calls_left(a, b)


async def test_without_start_a_handler_gets_task_status_ignored(session_pair, feeds, no_time):
    async with opened(session_pair, feeds) as (_, b):
        feeds.go.set()
        assert await b.proxy("", Feeds).feed() == "the end"
        assert feeds.statuses == [trio.TASK_STATUS_IGNORED]
        assert await b.call("feed", task_status=trio.TASK_STATUS_IGNORED) == "the end"


async def test_an_error_before_started_is_raised_from_start(session_pair, feeds, no_time):
    async with opened(session_pair, feeds) as (a, b), trio.open_nursery() as nursery:
        with pytest.raises(Gone, match="early"):
            await nursery.start(lambda **kw: b.proxy("", Feeds).feed(before="early", **kw))
        await assert_no_calls_left(a, b)


async def test_an_error_after_started_is_raised_in_the_nursery(session_pair, feeds, no_time):
    started = []
    async with opened(session_pair, feeds) as (a, b):
        with pytest.RaisesGroup(Gone):
            async with trio.open_nursery() as nursery:
                started.append(
                    await nursery.start(lambda **kw: b.proxy("", Feeds).feed(1, after="late", **kw))
                )
        assert started == [1]
        await assert_no_calls_left(a, b)


async def test_law_2_cancelling_the_nursery_cancels_the_handler_and_waits(
    session_pair, feeds, no_time
):
    async with opened(session_pair, feeds) as (a, b):
        async with trio.open_nursery() as nursery:
            await nursery.start(b.proxy("", Feeds).feed)
            nursery.cancel_scope.cancel(reason="enough")
        assert feeds.log[-1] == ("cancelled", "enough")
        await assert_no_calls_left(a, b)


async def test_cancelling_a_start_cancels_the_handler_and_waits(
    session_pair, feeds, autojump_clock
):
    async with opened(session_pair, feeds) as (a, b), trio.open_nursery() as nursery:
        with trio.move_on_after(1) as scope:
            await nursery.start(lambda **kw: b.proxy("", Feeds).feed(wait=5, **kw))
        assert scope.cancelled_caught
        assert feeds.log[0][0] == "cancelled"
        await assert_no_calls_left(a, b)


async def test_law_5_a_deadline_around_start_does_not_apply_after_it(
    session_pair, feeds, autojump_clock
):
    async with opened(session_pair, feeds) as (a, b), trio.open_nursery() as nursery:
        with trio.fail_after(2):
            await nursery.start(lambda **kw: b.proxy("", Feeds).feed(wait=1, **kw))
        assert feeds.log == [("deadline", math.inf)]
        await trio.sleep(10)
        assert [node.state for node in a.tree()] == ["running"]
        feeds.go.set()
    await assert_no_calls_left(a, b)


async def test_started_twice_is_an_error_in_the_handler(session_pair, feeds, no_time):
    async with opened(session_pair, feeds) as (_, b):
        with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="called 'started' twice")):
            async with trio.open_nursery() as nursery:
                assert await nursery.start(b.proxy("", Feeds).twice) == 1


async def test_a_handler_that_returns_without_started_raises_trios_error(
    session_pair, feeds, no_time
):
    async with opened(session_pair, feeds) as (_, b), trio.open_nursery() as nursery:
        with pytest.raises(RuntimeError, match="without calling"):
            await nursery.start(b.proxy("", Feeds).never)


async def test_a_handler_without_task_status_cannot_be_started(session_pair, feeds, no_time):
    async with opened(session_pair, feeds) as (_, b), trio.open_nursery() as nursery:
        with pytest.raises(trio_rpc.InvalidArguments, match="has no task_status"):
            await nursery.start(b.proxy("", Feeds).ordinary)
        with pytest.raises(TypeError, match=r"nursery\.start"):
            await b.call("feed", task_status=3)


async def test_a_value_that_cannot_be_sent_is_raised_in_the_handler(session_pair, feeds, no_time):
    async with opened(session_pair, feeds) as (_, b), trio.open_nursery() as nursery:
        assert await nursery.start(b.proxy("", Feeds).unsendable) == "something else"


async def test_started_raises_after_the_handler_has_ended(session_pair, feeds, no_time):
    async with opened(session_pair, feeds) as (_, b), trio.open_nursery() as nursery:
        with pytest.raises(Gone):
            await nursery.start(lambda **kw: b.proxy("", Feeds).feed(before="early", **kw))
        with pytest.raises(trio_rpc.LocalProtocolError, match="has ended"):
            feeds.statuses[0].started()


async def test_a_cancelled_handler_may_still_call_started(session_pair, no_time):
    class Stubborn:
        @method
        async def feed(self, *, task_status):
            with trio.CancelScope(shield=True):
                await go.wait()
            task_status.started("too late")

    go = trio.Event()
    async with session_pair(Stubborn(), None) as (a, b):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nursery.start, b.proxy("").feed)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await wait_all_tasks_blocked()
            go.set()
        await assert_no_calls_left(a, b)


async def test_law_6_the_end_of_the_session_is_raised_in_the_nursery(session_pair, feeds, no_time):
    async with opened(session_pair, feeds) as (_, b):
        with pytest.RaisesGroup(trio_rpc.SessionClosed):
            async with trio.open_nursery() as nursery:
                await nursery.start(b.proxy("", Feeds).feed)
                await close_at_once(b)


async def test_law_14_an_unrequested_started_message_ends_the_session(no_time):
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:

        async def call():
            with pytest.raises(trio_rpc.SessionBroken):
                await session.call("anything")

        nursery.start_soon(call)
        await peer.read(m.Request)
        peer.send(m.Started(1, None))


async def test_task_status_works_with_filters(session_pair, feeds, no_time):
    async def audit(call, proceed):
        return await proceed()

    options = {"filters": [audit]}
    async with session_pair(feeds, None, options_a=options, options_b=options) as (_, b):
        async with trio.open_nursery() as nursery:
            assert await nursery.start(b.proxy("", Feeds).feed, 7) == 7
            nursery.cancel_scope.cancel()
