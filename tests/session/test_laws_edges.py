"""Edge cases of the laws: another session, a full queue, the end of a handler."""

from __future__ import annotations

import os
import socket
from functools import partial

import pytest
import trio
from helpers.handlers import Clock, Echo, Sleeper, service
from helpers.raw_peer import close_at_once, session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import DecodeError, Fate, Limits, LocalProtocolError, TypeRegistry
from trio_rpc.channels import StreamChannel
from trio_rpc.session.calls.admission import Admission
from trio_rpc.testing import memory_channel_pair, open_session_pair
from trio_rpc.wire import messages as m


async def test_law_1_a_call_on_another_session_is_not_a_child_of_its_call_with_the_same_id(
    session_pair, no_time
):
    async with session_with_raw_peer(Sleeper()) as (other, peer):
        peer.send(m.Request(1, "sleep", []))
        await wait_all_tasks_blocked()

        async def relay():
            return await other.call("anything")

        async with (
            session_pair(None, service(relay)) as (a, _),
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(a.call, "relay")
            request = await peer.read(m.Request)
            assert "parent" not in (request.context or {})
            assert request.context["depth"] == 1
            peer.send(m.Reply(request.id, None))
        peer.send(m.Cancel(1))
        await peer.read(m.ReplyErr)


class Busy(Clock):
    """A service that blocks the event loop for some seconds, as a plain def may do."""

    def __init__(self, clock):
        self._clock = clock

    @trio_rpc.method
    def block(self, seconds):
        self._clock.jump(seconds)


async def test_law_5_a_deadline_counts_from_arrival_even_if_the_handler_starts_late(
    autojump_clock,
):
    async with session_with_raw_peer(Busy(autojump_clock)) as (_, peer):
        peer.send(
            m.Request(1, "block", [4]),
            m.Request(2, "seconds_left", [], None, {"deadline": 10.0}),
            m.Request(3, "seconds_left", [], None, {"deadline": 3.0}),
        )
        answers = [await peer.read(m.Reply | m.ReplyErr) for _ in range(3)]
        assert answers[1].result == pytest.approx(6, abs=0.001)
        assert answers[2].result == pytest.approx(-1, abs=0.001)


class PlainClock:
    """Handlers that look at their deadline before their first checkpoint, each in its own form."""

    @staticmethod
    def seconds():
        left = trio.current_effective_deadline() - trio.current_time()
        return None if left == float("inf") else left

    @trio_rpc.method
    def plain(self):
        return self.seconds()

    @trio_rpc.method
    def awaitable(self):
        seconds = self.seconds()

        async def wait():
            await trio.sleep(1)
            return seconds, self.seconds()

        return wait()

    @trio_rpc.stream
    def items(self):
        return self.repeat(self.seconds())

    async def repeat(self, seconds):
        yield seconds

    @trio_rpc.method
    def fails(self):
        raise ValueError(self.seconds())

    @trio_rpc.method
    async def calls_back(self, callback):
        with trio.move_on_after(3):
            return await callback()


async def test_law_5_a_plain_def_has_the_deadline_of_its_call(session_pair, autojump_clock):
    async with session_pair(PlainClock(), None) as (_, b):
        with trio.fail_after(10):
            assert await b.call("plain") == pytest.approx(10, abs=0.001)
            async with b.stream("items") as items:
                assert await items.receive() == pytest.approx(10, abs=0.001)
            with pytest.raises(ValueError) as caught:
                await b.call("fails")
            assert caught.value.args == (pytest.approx(10, abs=0.001),)
            seconds = await b.call("awaitable")
            assert seconds == (pytest.approx(10, abs=0.001), pytest.approx(9, abs=0.001))
        assert await b.call("plain") is None
        assert await b.call("calls_back", PlainClock.seconds) == pytest.approx(3, abs=0.001)
        assert await b.call("plain") is None


async def test_law_6_after_a_session_ends_later_requests_of_the_same_packet_do_not_start(no_time):
    begun = []

    class Ending:
        @trio_rpc.method
        def end(self):
            trio_rpc.current_call().session._core.lifecycle.stop()

        @trio_rpc.method
        def next(self):
            begun.append("next")

    async with session_with_raw_peer(Ending()) as (session, peer):
        peer.send(m.Request(1, "end", []), m.Request(2, "next", []))
        await session.wait_closed()
    assert begun == []


async def test_law_7_cancellations_are_left_out_of_a_group_that_a_cancelled_handler_raises(no_time):
    class Untidy:
        @trio_rpc.method
        async def work(self):
            try:
                await trio.sleep_forever()
            except trio.Cancelled as exc:
                raise BaseExceptionGroup("both", [exc, ValueError("untidy")]) from None

    async with session_with_raw_peer(Untidy()) as (_, peer):
        peer.send(m.Request(1, "work", []))
        await wait_all_tasks_blocked()
        peer.send(m.Cancel(1))
        error = (await peer.read(m.ReplyErr)).error
        assert error["code"] == "raised"
        assert [each["type"] for each in error["errors"]] == ["builtins.ValueError"]


async def test_law_8_a_stream_argument_cannot_be_used_after_its_handler(session_pair, no_time):
    kept = []

    class Keeper:
        @trio_rpc.method
        async def keep(self, numbers: trio.abc.ReceiveChannel[int]) -> int:
            kept.append(numbers)
            return await numbers.receive()

    async def numbers():
        for number in range(1000):
            yield number

    async with session_pair(None, Keeper()) as (a, _):
        assert await a.call("keep", numbers()) == 0
        await wait_all_tasks_blocked()
        for _ in range(2):
            with pytest.raises(LocalProtocolError, match="lives only until its handler has ended"):
                await kept[0].receive()


async def test_law_10_a_packet_is_not_written_before_one_that_is_being_sent(no_time):
    left, right = socket.socketpair()
    left.setblocking(False)
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(left))
    channel = StreamChannel(stream)
    filled = 0
    with pytest.raises(BlockingIOError):
        while True:
            filled += os.write(left.fileno(), b"x" * 1000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.send, b"first")
        await wait_all_tasks_blocked()
        while filled:
            filled -= len(right.recv(filled))
        assert not channel.send_nowait(b"second")
    assert channel.send_nowait(b"second")
    await channel.aclose()
    with right:
        assert b"".join(iter(lambda: right.recv(1000), b"")) == b"\0\0\0\5first\0\0\0\6second"


async def test_law_11_a_caller_that_was_woken_too_early_keeps_its_place_in_the_queue(no_time):
    room = 0
    passed = []
    admission = Admission(lambda: room)

    async def caller(name):
        nonlocal room
        await admission.wait()
        room = 0  # the first of the two callers to run takes both places
        passed.append(name)

    async with trio.open_nursery() as nursery:
        for name in "abcde":
            nursery.start_soon(caller, name)
            await wait_all_tasks_blocked()
        counts = []
        for free in (2, 1, 1, 1, 1):
            room = free
            admission.let_in()
            await wait_all_tasks_blocked()
            counts.append(len(passed))
    assert counts == [1, 2, 3, 4, 5]
    assert sorted(passed[:2]) == ["a", "b"]
    assert passed[2:] == ["c", "d", "e"]


async def test_law_11_an_abandoned_call_holds_its_credit_until_its_reply_arrives(no_time):
    async with (
        session_with_raw_peer(peer_limits=Limits(max_calls=1)) as (session, peer),
        trio.open_nursery() as nursery,
    ):
        async with trio.open_nursery() as abandoned:
            abandoned.start_soon(partial(session.call, "first", abandon_on_cancel=True))
            first = await peer.read(m.Request)
            abandoned.cancel_scope.cancel()
        await peer.read(m.Cancel)
        outcome = []

        async def second():
            outcome.append(await session.call("second"))

        nursery.start_soon(second)
        await wait_all_tasks_blocked()
        assert session.statistics().tasks_waiting == 1
        peer.send(m.Reply(first.id, "too late"))
        request = await peer.read(m.Request)
        assert request.method == "second"
        peer.send(m.Reply(request.id, "mine"))
        await wait_all_tasks_blocked()
        assert outcome == ["mine"]


async def test_law_11_the_reply_to_an_abandoned_call_admits_a_waiting_call(
    no_time,
):
    async with (
        session_with_raw_peer(peer_limits=Limits(max_calls=2)) as (session, peer),
        trio.open_nursery() as nursery,
    ):
        async with trio.open_nursery() as abandoned:
            abandoned.start_soon(partial(session.call, "first", abandon_on_cancel=True))
            first = await peer.read(m.Request)
            abandoned.cancel_scope.cancel()
        await peer.read(m.Cancel)
        nursery.start_soon(session.call, "second")
        second = await peer.read(m.Request)
        nursery.start_soon(session.call, "third")
        await wait_all_tasks_blocked()
        peer.send(m.Reply(first.id, "too late"))
        third = await peer.read(m.Request)
        assert third.method == "third"
        peer.send(m.Reply(second.id, None), m.Reply(third.id, None))


class Broken:
    pass


def broken_registry():
    registry = TypeRegistry()
    registry.register(64, Broken, lambda _: 0, lambda _: 1 / 0)
    return registry


async def test_law_15_a_started_value_that_cannot_be_decoded_has_the_fate_stopped(
    session_pair, no_time
):
    class Service:
        @trio_rpc.method
        async def start(self, *, task_status=trio.TASK_STATUS_IGNORED):
            task_status.started(Broken())
            await trio.sleep_forever()

    options = {"registry": broken_registry()}
    async with session_pair(None, Service(), options_a=options, options_b=options) as (a, b):
        async with trio.open_nursery() as nursery:
            with pytest.raises(DecodeError) as caught:
                await nursery.start(a.proxy("").start)
            assert caught.value.fate is Fate.STOPPED
            nursery.cancel_scope.cancel()
        await wait_all_tasks_blocked()
        assert b.tree() == []
        assert a.statistics().calls_out == 0


async def test_an_error_larger_than_the_peers_max_message_still_reaches_its_caller(
    session_pair, no_time
):
    class Big:
        @trio_rpc.method(raises=(ValueError,))
        async def fail(self):
            raise ValueError(*("x" * 9_000 for _ in range(5)))

    small = Limits(max_message=16 * 1024, max_packet=16 * 1024)
    async with session_pair(Echo(), Big(), options_a={"limits": small}) as (a, b):
        with pytest.raises(trio_rpc.RemoteError, match="larger than this end accepts") as caught:
            await a.call("fail")
        assert caught.value.type_name == "ValueError"
        assert caught.value.fate is Fate.STOPPED
        assert await b.call("echo", 1) == 1


async def test_law_11_a_new_call_does_not_overtake_waiting_ones(no_time):
    room = 0
    admission = Admission(lambda: room)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(admission.wait)
        await wait_all_tasks_blocked()
        room = 2
        assert not admission.is_free
        admission.let_in()
        await wait_all_tasks_blocked()
        assert admission.is_free


async def test_law_5_a_callback_has_the_deadline_of_the_handler_that_calls_it(
    session_pair, autojump_clock
):
    left = []

    async def callback():
        left.append(trio.current_effective_deadline() - trio.current_time())

    class Caller:
        @trio_rpc.method
        async def work(self, callback):
            with trio.move_on_after(3):
                await callback()
            await callback()

    async with session_pair(None, Caller()) as (a, _):
        await a.call("work", callback)
    assert left == [pytest.approx(3, abs=0.001), float("inf")]


async def test_law_2_a_cancelled_call_in_a_remote_scope_waits_for_its_handler(
    session_pair, autojump_clock
):
    sleeper = Sleeper()
    async with session_pair(None, sleeper) as (a, _), a.open_scope() as scope:
        with trio.move_on_after(1) as time_limit:
            await scope.call("sleep", "slow", 3)
        assert time_limit.cancelled_caught
        assert sleeper.ended == [("slow", "cancelled", pytest.approx(4, abs=0.001))]
        assert trio.current_time() == pytest.approx(4, abs=0.001)


async def test_race_a_call_in_a_remote_scope_that_is_ending_is_refused(autojump_clock):
    async with session_with_raw_peer(Sleeper()) as (_, peer):
        peer.send(m.Request(1, "trio_rpc.scope", []))
        peer.send(m.Request(2, "stubborn", [5], None, {"scope": 1}))
        await wait_all_tasks_blocked()
        peer.send(m.Cancel(1), m.Request(3, "sleep", [], None, {"scope": 1}))
        error = await peer.read(m.ReplyErr)
        assert (error.id, error.error["code"]) == (3, "invalid_arguments")
        assert "has ended" in error.error["message"]


async def test_law_12_silence_is_measured_by_keepalive_interval_and_not_by_handshake_timeout(
    autojump_clock,
):
    limits = Limits(handshake_timeout=1000, keepalive_interval=5, keepalive_pings=1)
    async with session_with_raw_peer(limits=limits, on_end="keep") as (_, peer):
        await peer.read(m.Ping)
        assert 5 <= trio.current_time() <= 10.001


async def test_law_16_a_second_aclose_with_a_longer_grace_does_not_delay_the_first(
    autojump_clock,
):
    async with session_with_raw_peer(Sleeper()) as (session, peer):
        peer.send(m.Request(1, "sleep", []))
        await wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(session.aclose, grace=2))
            await wait_all_tasks_blocked()
            nursery.start_soon(partial(session.aclose, grace=500))
        assert trio.current_time() == pytest.approx(2, abs=0.001)


class Hanging(trio.abc.Channel[bytes]):
    """A channel whose aclose never returns, or whose send never returns once it is stuck."""

    def __init__(self, inner, what):
        self._inner = inner
        self._what = what
        self.is_stuck = False

    async def send(self, value):
        if self.is_stuck and self._what == "send":
            await trio.sleep_forever()
        await self._inner.send(value)

    async def receive(self):
        return await self._inner.receive()

    async def aclose(self):
        if self._what == "aclose":
            await trio.sleep_forever()
        await self._inner.aclose()


@pytest.mark.parametrize("what", ["send", "aclose"])
async def test_law_12_a_channel_whose_methods_never_return_does_not_keep_its_session_open(
    autojump_clock, what
):
    limits = Limits(shutdown_timeout=3)
    ours, theirs = memory_channel_pair()
    channel = Hanging(ours, what)
    options = {"limits": limits}
    with trio.move_on_after(500) as time_limit:
        async with open_session_pair(options_a=options, channels=(channel, theirs)) as (a, _):
            channel.is_stuck = True
            await close_at_once(a)
            assert trio.current_time() == pytest.approx(3, abs=0.001)
    assert not time_limit.cancelled_caught


async def test_race_a_cancel_withdraws_a_large_result_that_is_being_sent(no_time):
    class Big:
        @trio_rpc.method
        async def big(self):
            return b"x" * 5_000_000

    limits = Limits(max_packet=16 * 1024)
    async with session_with_raw_peer(Big(), peer_limits=limits, max_buffer=1) as (session, peer):
        peer.send(m.Request(1, "big", []))
        await wait_all_tasks_blocked()
        peer.send(m.Cancel(1))
        answer = await peer.read(m.ReplyErr)
        assert (answer.id, answer.error["code"]) == (1, "cancelled")
        assert sum(each == m.LastPiece(b"") for each in peer.received) == 1
        await wait_all_tasks_blocked()
        assert session.statistics().bytes_waiting == 0


@pytest.mark.parametrize("kind", ["callback", "stream"])
async def test_law_8_references_are_dead_while_the_reply_still_waits_to_be_sent(no_time, kind):
    kept = []

    class Service:
        @trio_rpc.method
        async def keep(self, lent):
            kept.append(lent)
            return bytes(10_000)

    reference = m.Reference(1 if kind == "callback" else 2, 0)
    async with session_with_raw_peer(Service(), max_buffer=100) as (session, peer):
        for number in range(1, 4):
            peer.send(m.Request(number, "keep", [reference]))
        await wait_all_tasks_blocked()
        assert session.statistics().calls_in > 0  # their Replies have not left
        for lent in kept:
            with pytest.raises(
                LocalProtocolError, match="only until its handler has ended"
            ) as caught:
                await (lent() if kind == "callback" else lent.receive())
            assert caught.value.fate is Fate.NOT_STARTED
        await peer.read_all(m.Reply, 3)
        await wait_all_tasks_blocked()
        await session.aclose(grace=0)
        await peer.read_until_closed()
    assert not any(isinstance(each, m.Request) for each in peer.received)


async def test_an_error_too_large_to_send_is_logged_and_keeps_its_fate(
    session_pair, no_time, caplog
):
    class Big:
        @trio_rpc.method
        async def work(self):
            raise AssertionError("a filter refuses it")

    async def refuse(_call, _proceed):
        raise ValueError(*("x" * 9_000 for _ in range(5)))

    small = Limits(max_message=16 * 1024, max_packet=16 * 1024)
    options = {"filters": [refuse]}
    async with session_pair(None, Big(), options_a={"limits": small}, options_b=options) as (a, _):
        with pytest.raises(trio_rpc.RemoteError, match="larger than this end accepts") as caught:
            await a.call("work")
        assert caught.value.fate is Fate.NOT_STARTED
    assert "an error was too large to send" in caplog.text
