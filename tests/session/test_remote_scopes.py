"""Remote scopes: references passed in a scope live until its block ends (laws 1, 2 and 8)."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

import pytest
import trio
from helpers.raw_peer import close_at_once, session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import LocalProtocolError, current_call, method, stream
from trio_rpc.wire import messages as m


class Gone(Exception):
    pass


class Market:
    def __init__(self):
        self.subscribers = []
        self.log = []

    @method
    async def subscribe(self, symbol: str, on_tick: Callable[[str], Awaitable[None]]) -> str:
        self.subscribers.append(on_tick)
        return symbol

    @method
    async def publish(self, text: str) -> None:
        for on_tick in self.subscribers:
            await on_tick(text)

    @method
    async def feed(self, on_tick: Callable[[int], Awaitable[None]]) -> None:
        async def run():
            try:
                for number in range(3):
                    await on_tick(number)
                await trio.sleep_forever()
            except trio.Cancelled as exc:
                self.log.append(exc.reason)
                with trio.CancelScope(shield=True):
                    await trio.sleep(2)
                self.log.append("ended")
                raise

        current_call().nursery.start_soon(run)

    @method
    async def fail_later(self, *texts: str) -> None:
        async def run(text):
            try:
                await trio.sleep(1)
            finally:
                raise Gone(text)

        for text in texts:
            current_call().nursery.start_soon(run, text)

    @method
    async def end_scope(self) -> None:
        current_call().nursery.cancel_scope.cancel()

    @method
    async def sleep(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.log.append("sleeper ended")

    @method
    async def keep(self, numbers: AsyncIterator[int]) -> int:
        self.numbers = numbers
        return await anext(numbers)

    @method
    async def next(self) -> int:
        return await anext(self.numbers)

    @stream
    async def ticks(self) -> AsyncGenerator[int, None]:
        try:
            for number in range(9):
                yield number
            await trio.sleep_forever()
        finally:
            self.log.append("stream ended")


@pytest.fixture
async def market():
    return Market()


async def assert_no_calls_left(*sessions):
    await wait_all_tasks_blocked()  # a stream argument may end a little later
    for session in sessions:
        assert session.tree() == []
        assert not session._core.protocol.outgoing
        assert not session._core.protocol.incoming


async def test_law_8_a_callback_lives_as_long_as_its_scope(session_pair, market, no_time):
    got = []
    async with session_pair(market, None) as (a, b):
        proxy = b.proxy("", Market)

        async def on_tick(text):
            got.append(text)

        async with b.open_scope() as scope:
            assert await scope.call(proxy.subscribe, "BTC", on_tick) == "BTC"
            await proxy.publish("one")
            await scope.proxy("", Market).publish("two")
            assert await scope.call("subscribe", "ETH", on_tick) == "ETH"
        assert got == ["one", "two"]
        with pytest.raises(LocalProtocolError, match="lives only until"):
            await market.subscribers[0]("three")
        await assert_no_calls_left(a, b)


async def test_a_stream_argument_lives_as_long_as_its_scope(session_pair, market, no_time):
    closed = []

    async def numbers():
        try:
            for number in range(9):
                yield number
        finally:
            closed.append(True)

    async with session_pair(market, None) as (a, b):
        async with b.open_scope() as scope:
            assert await scope.call("keep", numbers()) == 0
            assert await b.call("next") == 1
        assert closed
        with pytest.raises(LocalProtocolError):
            await market.numbers.receive()
        await assert_no_calls_left(a, b)


async def test_law_2_tasks_that_a_handler_starts_in_the_scope_end_with_it(
    session_pair, market, autojump_clock
):
    got = []
    async with session_pair(market, None) as (a, b):
        async with b.open_scope() as scope:

            async def on_tick(number):
                got.append(number)

            await scope.proxy("", Market).feed(on_tick)
            await wait_all_tasks_blocked()
        assert got == [0, 1, 2]
        assert market.log == ["its block has been left", "ended"]
        assert trio.current_time() == 2
        await assert_no_calls_left(a, b)


async def test_a_failing_body_cancels_the_scope_with_its_exception_as_the_reason(
    session_pair, market, autojump_clock
):
    async with session_pair(market, None) as (a, b):
        with pytest.raises(Gone, match="of mine"):
            async with b.open_scope() as scope:
                await scope.proxy("", Market).feed(ignore)
                await wait_all_tasks_blocked()
                raise Gone("of mine")
        assert market.log == ["Gone: of mine", "ended"]
        await assert_no_calls_left(a, b)


async def ignore(_number):
    pass


async def test_a_cancelled_body_cancels_the_scope_with_the_same_reason(
    session_pair, market, autojump_clock
):
    async with session_pair(market, None) as (a, b):
        with trio.CancelScope() as outer:
            async with b.open_scope() as scope:
                await scope.proxy("", Market).feed(ignore)
                await wait_all_tasks_blocked()
                outer.cancel(reason="enough")
                await trio.sleep_forever()
        assert outer.cancelled_caught
        assert market.log == ["enough", "ended"]
        await assert_no_calls_left(a, b)


async def test_one_message_cancels_all_calls_in_the_scope(session_pair, market, no_time):
    async with session_pair(market, None) as (a, b), trio.open_nursery() as nursery:
        cancelled = []

        async def sleep(scope):
            with pytest.raises(trio_rpc.RemoteCancelled, match="scope"):
                await scope.call("sleep")
            cancelled.append(True)

        async with b.open_scope() as scope:
            for _ in range(3):
                nursery.start_soon(sleep, scope)
            await wait_all_tasks_blocked()
            before = a.statistics().messages_received
        assert market.log == ["sleeper ended"] * 3
        await wait_all_tasks_blocked()
        assert cancelled == [True] * 3
        assert a.statistics().messages_received == before + 1
        await assert_no_calls_left(a, b)


async def test_streams_in_a_scope_end_with_it(session_pair, market, no_time):
    async with session_pair(market, None) as (a, b), trio.open_nursery() as nursery:
        got = []

        async def consume(scope):
            with pytest.raises(trio_rpc.RemoteCancelled):
                async with scope.proxy("", Market).ticks() as ticks:
                    async for tick in ticks:
                        got.append(tick)

        async with b.open_scope() as scope:
            nursery.start_soon(consume, scope)
            await wait_all_tasks_blocked()
            async with scope.stream("ticks") as ticks:
                assert await ticks.receive() == 0
        await wait_all_tasks_blocked()
        assert got == list(range(9))
        assert market.log == ["stream ended"] * 2
        await assert_no_calls_left(a, b)


async def test_law_7_an_error_in_the_scope_is_raised_by_its_block(
    session_pair, market, autojump_clock
):
    async with session_pair(market, None) as (a, b):
        with pytest.raises(trio_rpc.RemoteError, match="later"):
            async with b.open_scope() as scope:
                await scope.call("fail_later", "later")
                await trio.sleep_forever()
        with pytest.RaisesGroup(trio_rpc.RemoteError, trio_rpc.RemoteError):
            async with b.open_scope() as scope:
                await scope.call("fail_later", "one", "two")
                await trio.sleep_forever()
        await assert_no_calls_left(a, b)


async def test_the_error_in_a_scope_is_raised_rather_than_the_cancellations_it_caused(
    session_pair, market, autojump_clock
):
    async with session_pair(market, None) as (a, b):
        with pytest.raises(trio_rpc.RemoteError, match="later"):
            async with b.open_scope() as scope:
                await scope.call("fail_later", "later")
                await scope.call("sleep")
        assert market.log == ["sleeper ended"]
        await assert_no_calls_left(a, b)


async def test_the_other_end_may_end_the_scope(session_pair, market, no_time):
    async with session_pair(market, None) as (a, b):
        with pytest.raises(trio_rpc.RemoteCancelled, match="has ended the remote scope"):
            async with b.open_scope() as scope:
                await scope.call("end_scope")
                await trio.sleep_forever()
        await assert_no_calls_left(a, b)


async def test_the_error_says_so_if_a_scope_ends_because_the_other_end_closes(
    session_pair, market, autojump_clock, nursery
):
    async with session_pair(market, None, on_end="keep") as (a, b):
        with pytest.raises(trio_rpc.RemoteCancelled, match="scope: this session is ending"):
            async with b.open_scope():
                await wait_all_tasks_blocked()  # the other end has already opened it
                nursery.start_soon(functools.partial(a.aclose, grace=0))
                await trio.sleep_forever()


async def test_a_scope_cannot_be_used_after_its_end(session_pair, market, no_time):
    async with session_pair(market, None) as (_, b):
        async with b.open_scope() as scope:
            proxy = scope.proxy("", Market)
        for use in (lambda: scope.call("sleep"), lambda: proxy.publish("x")):
            with pytest.raises(
                LocalProtocolError, match="scope that this call is made in has ended"
            ):
                await use()
        with pytest.raises(LocalProtocolError, match="has ended"):
            async with proxy.ticks():
                pass


@pytest.mark.parametrize("end", ["ours", "theirs"])
async def test_law_6_the_end_of_the_session_ends_the_block(session_pair, market, no_time, end):
    outcomes = (
        trio_rpc.SessionClosed,
        trio_rpc.SessionBroken,
        trio_rpc.RemoteCancelled,
        trio_rpc.Unavailable,  # over a slow transport
    )
    async with session_pair(market, None) as (a, b):
        with pytest.raises(outcomes):
            async with b.open_scope():
                await close_at_once(b if end == "ours" else a)
                await trio.sleep_forever()


async def test_scopes_can_be_nested_and_opened_in_handlers(session_pair, market, no_time):
    class Relay:
        @method
        async def relay(self, on_tick):
            async with self.session.open_scope() as outer, self.session.open_scope() as inner:
                await outer.call("subscribe", "BTC", on_tick)
                await inner.call("subscribe", "ETH", on_tick)
                await self.session.call("publish", "through")

    relay, got = Relay(), []
    async with (
        session_pair(market, None) as (a, b),
        session_pair(relay, None) as (c, d),
    ):
        relay.session = b

        async def on_tick(text):
            got.append(text)

        await d.call("relay", on_tick)
        assert got == ["through", "through"]
        await assert_no_calls_left(a, b, c, d)


async def test_law_1_a_scope_and_its_calls_are_in_the_tree(session_pair, market, no_time):
    async with session_pair(market, None) as (a, b), trio.open_nursery() as nursery:
        async with b.open_scope() as scope:
            call = scope.proxy("", Market).sleep
            nursery.start_soon(ignoring_cancellation, call)
            async with scope.proxy("", Market).ticks():
                await wait_all_tasks_blocked()
                for session, direction in ((b, "out"), (a, "in")):
                    nodes = {node.kind: node for node in session.tree()}
                    assert set(nodes) == {"scope", "call", "stream"}
                    assert nodes["scope"].parent is None
                    parent = (direction, nodes["scope"].id)
                    assert nodes["call"].parent == nodes["stream"].parent == parent


async def ignoring_cancellation(call):
    with pytest.raises(trio_rpc.RemoteCancelled):
        await call()


async def test_a_call_outside_a_scope_has_no_nursery(session_pair, no_time):
    class Curious:
        @method
        async def look(self):
            with pytest.raises(RuntimeError, match="not called in a remote scope"):
                _ = current_call().nursery

    async with session_pair(Curious(), None) as (_, b):
        await b.call("look")


async def test_law_4_a_scope_is_answered_after_its_calls(market, no_time):
    async with session_with_raw_peer(market) as (session, peer):
        peer.send(
            m.Request(1, "trio_rpc.scope", []),
            m.Request(2, "sleep", [], None, {"scope": 1}),
            m.Cancel(1, "enough"),
        )
        assert (await peer.read(m.ReplyErr)).id == 2
        assert (await peer.read(m.ReplyErr)).id == 1
        peer.send(m.Request(3, "sleep", [], None, {"scope": 1}))
        assert (await peer.read(m.ReplyErr)).error["code"] == "invalid_arguments"
        assert session.tree() == []


@pytest.mark.parametrize("kind", ["call", "stream"])
async def test_law_15_a_call_that_crosses_the_end_of_its_scope_is_cancelled_before_it_started(
    market, no_time, nursery, kind
):
    errors = []

    async def use(scope):
        try:
            if kind == "call":
                await scope.call("sleep")
            else:
                async with scope.stream("ticks") as ticks:
                    await ticks.receive()
        except trio_rpc.RpcError as exc:
            errors.append(exc)

    async with session_with_raw_peer(market) as (session, peer):
        with pytest.raises(trio_rpc.RemoteCancelled):
            async with session.open_scope() as scope:
                nursery.start_soon(use, scope)
                await wait_all_tasks_blocked()
                refused = {"code": "invalid_arguments", "message": "there is no such scope"}
                peer.send(
                    m.ReplyErr(1, {"code": "cancelled", "message": "the scope has ended"}),
                    m.ReplyErr(2, refused),
                )
                await trio.sleep_forever()
        await wait_all_tasks_blocked()
    [error] = errors
    assert (type(error), error.fate) == (trio_rpc.RemoteCancelled, trio_rpc.Fate.NOT_STARTED)


async def test_a_call_in_a_scope_that_does_not_exist_is_refused(market, no_time):
    async with session_with_raw_peer(market) as (_, peer):
        peer.send(m.Request(1, "sleep", []), m.Request(2, "sleep", [], None, {"scope": 1}))
        assert (await peer.read(m.ReplyErr)).id == 2


async def test_a_service_cannot_have_the_reserved_name(session_pair, no_time):
    with pytest.raises(ValueError, match="reserved"):
        async with session_pair({"trio_rpc": Market()}, None):
            pass


async def test_filters_see_scopes(session_pair, market, no_time):
    seen = []

    async def audit(call, proceed):
        seen.append(call.method)
        await trio.lowlevel.checkpoint()
        return await proceed()

    async with session_pair(market, None, options_a={"filters": [audit]}) as (a, b):
        async with b.open_scope() as scope:
            await scope.call("subscribe", "BTC", ignore)
        assert seen == ["trio_rpc.scope", "subscribe"]
        await assert_no_calls_left(a, b)


async def test_many_scopes_leave_no_tasks(session_pair, market, no_time, tasks):
    async with session_pair(market, None) as (a, b):

        async def once():
            async with b.open_scope() as scope:
                await scope.call("subscribe", "BTC", ignore)
            await wait_all_tasks_blocked()

        await once()  # from here on the writers exist
        before = tasks()
        for _ in range(50):
            await once()
        assert tasks() == before
        await assert_no_calls_left(a, b)


async def test_plain_methods_called_in_a_scope_do_not_delay_its_end(session_pair, no_time):
    class Plain:
        @trio_rpc.method
        def returns(self):
            return "returned"

        @trio_rpc.method
        def raises(self):
            raise ValueError("raised")

    async with session_pair(Plain(), None) as (_, session):
        async with session.open_scope() as scope:
            assert await scope.call("returns") == "returned"
            with pytest.raises(ValueError, match="raised"):
                await scope.call("raises")
        assert session.tree() == []


async def test_a_callback_of_a_plain_method_can_be_called_only_until_its_call_ends(
    session_pair, no_time
):
    class Keeps:
        @trio_rpc.method
        def keep(self, callback):
            self.kept = callback

    service = Keeps()
    async with session_pair(service, None) as (_, session):
        await session.call("keep", lambda: None)
        with pytest.raises(trio_rpc.LocalProtocolError, match="lives only until"):
            await service.kept()


async def test_the_callbacks_of_a_call_that_was_not_sent_are_not_kept_by_its_scope(
    session_pair, no_time
):
    class Service:
        @trio_rpc.method
        async def use(self, callback):
            return await callback()

    ran = []

    async def first():
        ran.append("first")

    async def second():
        ran.append("second")

    async with session_pair(None, Service()) as (a, _), a.open_scope() as scope:
        for _ in range(3):
            with pytest.raises(trio_rpc.EncodeError):
                await scope.call("use", first, object())
        await scope.call("use", second)
        [numbers] = [call.functions for call in a._core.outgoing.calls.values()]
        assert len(numbers) == 1
    assert ran == ["second"]


class Shut(Exception):
    pass


class Uses:
    @method(raises=(Shut,))
    async def call(self, function: Callable[[], Awaitable[None]]) -> str:
        try:
            await function()
        except Exception as exc:  # noqa: BLE001 - its class is the result
            return type(exc).__name__
        return repr(function)

    @method(raises=(Shut,))
    async def pull(self, items: AsyncIterator[int]) -> str:
        try:
            return repr([item async for item in items])
        except Exception as exc:  # noqa: BLE001 - likewise
            return type(exc).__name__


async def test_exceptions_of_callbacks_and_streams_given_in_a_scope_arrive_as_the_method_declares(
    session_pair,
):
    async def fails():
        raise Shut

    async def items():
        yield 1
        raise Shut

    seen = []

    async def watch(call, proceed):
        seen.append(call.method)
        return await proceed()

    options = {"filters": [watch]}
    async with session_pair(Uses(), None, options_a=options) as (_, session):
        uses = session.proxy("", Uses)
        async with session.open_scope() as scope:
            assert await scope.call(uses.call, fails) == "Shut"
            assert await scope.call(uses.pull, items()) == "Shut"
            assert await scope.proxy("", Uses).call(fails) == "Shut"
            assert "of call" in await scope.call("call", trio.lowlevel.checkpoint)
    # Filters of both ends see the callback under one name.
    assert "callback 0 of call" in seen
    assert not any("trio_rpc.scope" in name for name in seen if name != "trio_rpc.scope")
