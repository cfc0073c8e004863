"""Functions as arguments (callbacks), and law 8."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass

import pytest
import trio
from helpers.raw_peer import session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Fate, LocalProtocolError, current_call, method, notification
from trio_rpc.wire import messages as m
from trio_rpc.wire.messages import Reference


class NoSuchThing(Exception):
    pass


@dataclass
class Found:
    name: str
    size: int


class Worker:
    def __init__(self):
        self.kept = None
        self.reasons = []

    @method(raises=(NoSuchThing,))
    async def each(self, items: list, found: Callable[..., Awaitable[object]]) -> list:
        return [await found(item) for item in items]

    @method
    async def all_at_once(self, count: int, found: Callable[[int], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(found, number)

    @method
    async def anywhere(self, *args, **kwargs) -> list:
        return [await args[0]["a"][0](1), await kwargs["named"](2)]

    @method
    async def keep(self, callback: Callable[[], Awaitable[None]]) -> None:
        self.kept = callback

    @method
    async def tidy_up_with(self, callback: Callable[[], Awaitable[None]]) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                try:
                    await callback()
                except trio_rpc.RemoteCancelled as exc:
                    self.reasons.append(exc.fate)

    @method
    async def deeper(self, number: int, callback: Callable[..., Awaitable[int]]) -> int:
        async def again(inner: Callable[..., Awaitable[int]]) -> int:
            return await inner(number) + 1

        return await callback(number, again)

    @notification
    async def note(self, callback: object) -> None:
        raise AssertionError("never started")


async def test_law_8_a_callback_can_be_called_only_until_its_call_ends(session_pair, no_time):
    worker = Worker()
    async with session_pair(None, worker) as (a, _):
        await a.call("keep", trio.lowlevel.checkpoint)
        with pytest.raises(LocalProtocolError, match="only until its handler has ended") as caught:
            await worker.kept()
        assert caught.value.fate is Fate.NOT_STARTED


async def test_callbacks_run_any_number_of_times_in_order_and_return_values(session_pair, no_time):
    seen = []

    async def found(item: str) -> int:
        seen.append(item)
        return len(item)

    async with session_pair(None, Worker()) as (a, _):
        assert await a.call("each", ["a", "bb", "ccc"], found) == [1, 2, 3]
        assert await a.call("each", [], found) == []
    assert seen == ["a", "bb", "ccc"]


async def test_a_plain_function_and_a_bound_method_can_be_callbacks(session_pair, no_time):
    seen = []
    async with session_pair(None, Worker()) as (a, _):
        await a.call("each", [1, 2], seen.append)
        assert await a.call("each", [3], lambda item: item + 1) == [4]
    assert seen == [1, 2]


async def test_callbacks_may_be_anywhere_among_the_arguments(session_pair, no_time):
    async def double(number):
        return 2 * number

    async with session_pair(None, Worker()) as (a, _):
        assert await a.call("anywhere", {"a": [double]}, named=double) == [2, 4]


async def test_arguments_of_a_callback_are_checked_against_its_annotations(session_pair, no_time):
    seen = []

    async def found(item: Found) -> None:
        seen.append(item)

    async with session_pair(None, Worker()) as (a, _):
        await a.call("each", [Found("x", 1)], found)
        with pytest.raises(trio_rpc.RemoteError, match="InvalidArguments"):
            await a.call("each", [5], found)
    assert seen == [Found("x", 1)]


@pytest.mark.parametrize("error", [NoSuchThing, ValueError])
async def test_an_exception_of_a_callback_is_raised_at_the_handler_that_called_it(
    session_pair, no_time, error
):
    async def found(_item):
        raise error("x")

    async with session_pair(None, Worker()) as (a, _):
        with pytest.raises(error) as caught:
            await a.proxy("", Worker).each([1], found)
        assert caught.value.args == ("x",)
        assert await a.call("each", [1], lambda item: item) == [1]  # other calls are not affected


async def test_callbacks_of_one_call_start_in_order_and_may_overlap(session_pair, no_time):
    started, go = [], trio.Event()

    async def found(number):
        started.append(number)
        await go.wait()

    async with session_pair(None, Worker()) as (a, _), trio.open_nursery() as nursery:
        nursery.start_soon(a.call, "all_at_once", 20, found)
        await wait_all_tasks_blocked()
        assert len(started) == 20
        go.set()


async def test_law_1_a_callback_is_a_child_of_its_call_at_both_ends(session_pair, no_time):
    trees = []

    async with session_pair(None, Worker()) as (a, b):

        async def found(_item):
            trees.append((a.tree(), b.tree()))
            assert current_call().session is a

        await a.call("each", [1], found)
    ((mine, theirs),) = trees
    call, child = sorted(mine, key=lambda node: node.direction, reverse=True)
    assert (call.direction, call.parent) == ("out", None)
    assert (child.direction, child.parent) == ("in", ("out", call.id))
    assert child.method == "callback 0 of each"
    assert {(node.direction, node.parent) for node in theirs} == {
        ("in", None),
        ("out", ("in", call.id)),
    }


async def test_law_2_a_cancelled_caller_goes_on_only_after_its_callback_has_ended(
    session_pair, no_time
):
    ended = []

    async def hold(_item):
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
            ended.append("callback")

    async with session_pair(None, Worker()) as (a, b):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(a.call, "each", [1], hold)
                await wait_all_tasks_blocked()
                scope.cancel()
        assert ended == ["callback"]
        assert a.tree() == b.tree() == []


async def test_a_callback_of_a_cancelled_call_never_starts(session_pair, no_time):
    worker, begun = Worker(), []

    async def callback():
        begun.append(1)

    async with session_pair(None, worker) as (a, _):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(a.call, "tidy_up_with", callback)
                await wait_all_tasks_blocked()
                scope.cancel()
    assert begun == []
    assert worker.reasons == [Fate.NOT_STARTED]


async def test_no_callback_runs_after_its_call_has_returned(no_time):
    # The peer answers while its callback still runs, which a correct peer never does.
    ended = []

    async def hold():
        try:
            await trio.sleep_forever()
        finally:
            ended.append("callback")

    async with session_with_raw_peer(None) as (session, peer), trio.open_nursery() as nursery:

        async def call():
            assert await session.call("job", hold) == "done"
            assert ended == ["callback"]
            ended.append("call")

        nursery.start_soon(call)
        request = await peer.read(m.Request)
        (reference,) = request.references
        assert reference == Reference(1, 0)
        peer.send(m.Request(1, "", [], None, {"parent": request.id, "callback": 0}))
        await wait_all_tasks_blocked()
        peer.send(m.Reply(request.id, "done"))
        await wait_all_tasks_blocked()
        assert ended == ["callback", "call"]
        assert (await peer.read(m.ReplyErr)).error["code"] == "cancelled"
        # A callback that comes too late, or that never existed, is not found.
        for number, parent in ((0, request.id), (1, request.id), (0, 99)):
            peer.send(
                m.Request(number + parent + 1, "", [], None, {"parent": parent, "callback": number})
            )
            reply = await peer.read(m.ReplyErr)
            assert reply.error["code"] == "method_not_found"


async def test_callbacks_may_take_callbacks_and_may_be_passed_on(session_pair, no_time):
    class Relay:
        def __init__(self, session):
            self.session = session

        @method
        async def relay(self, callback: Callable[..., Awaitable[int]]) -> list:
            return await self.session.call("each", [1, 2], callback)

    async def callback(number, inner):
        return await inner(lambda again: again * 10) + number

    async with session_pair(Worker(), Worker()) as (a, _):
        assert await a.call("deeper", 5, callback) == 56
    async with session_pair(Worker(), Relay) as (a, _):
        assert await a.call("relay", lambda item: item + 1) == [2, 3]


async def test_a_callback_runs_in_the_context_of_its_caller(session_pair, no_time):
    user: ContextVar[str] = ContextVar("user", default="nobody")
    seen = []

    async def found(_item):
        seen.append(user.get())
        user.set("changed")

    async with session_pair(None, Worker()) as (a, _):
        user.set("ann")
        await a.call("each", [1, 2], found)
    assert seen == ["ann", "ann"]


async def test_notifications_and_results_cannot_contain_callbacks(session_pair, no_time):
    class Gives:
        @method
        async def give(self):
            return print

    async with session_pair(None, {"w": Worker(), "g": Gives()}) as (a, _):
        with pytest.raises(trio_rpc.EncodeError):
            await a.notify("w.note", print)
        with pytest.raises(trio_rpc.RemoteError, match="cannot be sent"):
            await a.call("g.give")
        with pytest.raises(trio_rpc.EncodeError):
            await a.call("w.keep", Worker)  # a class is not a callback


@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: [f], lambda f: {"f": (f,)}])
async def test_metadata_cannot_contain_callbacks(session_pair, no_time, wrap):
    async with session_pair(None, Worker()) as (a, _):
        with trio_rpc.metadata(f=wrap(print)), pytest.raises(trio_rpc.EncodeError) as caught:
            await a.call("each", [1], print)
        assert caught.value.fate is trio_rpc.Fate.NOT_STARTED
        with trio_rpc.metadata(f=(1, {2})):  # not plain, but values
            await a.call("each", [1], lambda _: None)


async def test_law_8_the_caller_waits_for_a_callback_that_outlasts_cancel_grace(
    session_pair, autojump_clock
):
    async def shielded(_item):
        with trio.CancelScope(shield=True):
            await trio.sleep(5)

    class Stubborn(Worker):
        async def each(self, items, found):
            with trio.CancelScope(shield=True):
                await found(1)
                await trio.sleep(100)

    options = {"limits": trio_rpc.Limits(cancel_grace=2)}
    async with session_pair(None, Stubborn(), options_a=options) as (a, _):
        with trio.move_on_after(1):
            await a.call("each", [1], shielded)
        assert trio.current_time() == 5


async def test_a_callback_is_cancelled_when_the_session_ends(session_pair, no_time):
    async def hold(_item):
        await trio.sleep_forever()

    async with session_pair(None, Worker()) as (a, b), trio.open_nursery() as nursery:

        async def call():
            with pytest.raises(trio_rpc.RemoteCancelled):
                await a.call("each", [1], hold)

        nursery.start_soon(call)
        await wait_all_tasks_blocked()
        b._core.lifecycle.stop()
    assert a.tree() == b.tree() == []


@pytest.mark.parametrize("then", ["returns", "raises", "waits"])
async def test_race_a_callback_cancels_its_own_call_in_its_first_step(session_pair, no_time, then):
    """The reader runs the callback's first step, and is not cancelled with the callback."""
    ended = []

    async def found(_item):
        scope.cancel(reason="that will do")
        if then == "raises":
            raise NoSuchThing
        if then == "waits":
            try:
                await trio.sleep_forever()
            finally:
                ended.append(trio.current_effective_deadline())

    async with session_pair(None, Worker()) as (session, _):
        with trio.CancelScope() as scope, contextlib.suppress(trio_rpc.RemoteError):
            await session.call("each", ["a"], found)
        assert ended == ([-math.inf] if then == "waits" else [])
        assert await session.call("each", [], found) == []


async def test_the_error_of_a_cancelled_callback_says_how_its_call_ended(no_time):
    async def hold():
        await trio.sleep_forever()

    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:

        async def call():
            with trio.CancelScope() as scope:
                scopes.append(scope)
                await session.call("m", hold)

        for number, end in ((1, "reply"), (2, "cancel")):
            scopes = []
            nursery.start_soon(call)
            request = await peer.read(m.Request)
            context = {"parent": request.id, "callback": 0}
            peer.send(m.Request(number, "m", [], None, context))
            await wait_all_tasks_blocked()
            if end == "reply":
                peer.send(m.Reply(request.id, None))
            else:
                scopes[0].cancel()
                await peer.read(m.Cancel)
                late = m.Request(3, "m", [], None, context)
                peer.send(late)
            for _ in range(1 if end == "reply" else 2):
                error = (await peer.read(m.ReplyErr)).error
                assert error["code"] == "cancelled"
                text = "has ended" if end == "reply" else "has been cancelled"
                assert error["message"] == f"the call that this callback belongs to {text}"
            if end == "cancel":
                peer.send(m.Reply(request.id, None))


async def test_a_reference_of_an_unknown_kind_is_passed_on_and_harms_nothing():
    seen = []

    class Takes:
        @method
        async def take(self, value):
            seen.append(value)

    async with session_with_raw_peer(Takes()) as (session, peer):
        peer.send(m.Request(1, "take", [Reference(9, 5)]))
        assert (await peer.read(m.Reply)).id == 1
        # In a remote scope, references live as long as the scope.
        peer.send(m.Request(2, "trio_rpc.scope", []))
        peer.send(m.Request(3, "take", [[Reference(3, 0)]], None, {"scope": 2}))
        assert (await peer.read(m.Reply)).id == 3
        peer.send(m.Cancel(2, None))
        assert (await peer.read(m.ReplyErr)).error["code"] == "cancelled"
        assert session.is_open
    assert seen == [Reference(9, 5), [Reference(3, 0)]]
