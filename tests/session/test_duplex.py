"""Duplexes: a trio.abc.Channel at both ends, with credit and an end for each direction."""

from __future__ import annotations

import pytest
import trio
from helpers.raw_peer import close_at_once
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Limits, duplex


class Full(Exception):
    pass


class Rooms:
    def __init__(self):
        self.log = []
        self.received = 0

    @duplex
    async def echo(self, channel: trio.abc.Channel[str], prefix: str) -> None:
        async for text in channel:
            await channel.send(prefix + text)
        self.log.append("heard the end")
        await channel.send("bye")

    @duplex(raises=(Full,))
    async def full(self, channel: trio.abc.Channel[str]) -> None:
        await channel.send("one")
        raise Full("no room")

    @duplex
    async def short(self, channel: trio.abc.Channel[str]) -> None:
        await channel.send(await channel.receive())

    @duplex
    async def receives(self, channel: trio.abc.Channel[str], how_many: int = 0) -> None:
        for _ in range(how_many):
            await channel.receive()
            self.received += 1
        try:
            await trio.sleep_forever()
        except trio.Cancelled as exc:
            self.log.append(exc.reason)
            raise

    @duplex
    async def sends_eof(self, channel: trio.abc.Channel[str]) -> None:
        await channel.send("last")
        await channel.send_eof()
        with pytest.raises(trio.ClosedResourceError):
            await channel.send("more")
        self.log.append([text async for text in channel])

    @duplex
    async def closes_receiver(self, channel: trio.abc.Channel[str]) -> None:
        await channel.receive()
        await channel._receiver.aclose()
        self.log.append("left")
        await trio.sleep_forever()

    @duplex
    async def flood(self, channel: trio.abc.Channel[int]) -> None:
        for number in range(1000):
            await channel.send(number)
            self.received = number + 1

    @duplex
    async def keep(self, channel: trio.abc.Channel[int]) -> None:
        self.kept = channel

    @trio_rpc.method
    async def callback_only(self, on_word, room: str) -> None:
        await on_word(room)


@pytest.fixture
async def rooms():
    return Rooms()


def opened(session_pair, rooms, **options):
    return session_pair(rooms, None, options_a=options, options_b=options)


async def assert_no_calls_left(*sessions):
    await wait_all_tasks_blocked()  # a stream argument may end a little later
    for session in sessions:
        assert session.tree() == []
        assert not session._core.protocol.outgoing
        assert not session._core.protocol.incoming


async def test_items_travel_both_ways(session_pair, rooms, no_time):
    async with opened(session_pair, rooms) as (a, b):
        async with b.proxy("", Rooms).echo("> ") as channel:
            assert isinstance(channel, trio.abc.Channel)
            await channel.send("a")
            assert await channel.receive() == "> a"
            await channel.send("b")
            await channel.send("c")
            await channel.send_eof()
            assert [text async for text in channel] == ["> b", "> c", "bye"]
        assert rooms.log == ["heard the end"]
        await assert_no_calls_left(a, b)


async def test_a_duplex_can_be_opened_by_name(session_pair, rooms, no_time):
    async with opened(session_pair, rooms) as (_, b), b.duplex("echo", "> ") as channel:
        await channel.send("a")
        assert await channel.receive() == "> a"


async def test_the_caller_may_close_only_its_sending_half(session_pair, rooms, no_time):
    async with opened(session_pair, rooms) as (a, b):
        async with b.proxy("", Rooms).echo("") as channel:
            await channel.send_eof()
            await channel.send_eof()
            with pytest.raises(trio.ClosedResourceError):
                await channel.send("a")
            assert await channel.receive() == "bye"
            with pytest.raises(trio.EndOfChannel):
                await channel.receive()
        await assert_no_calls_left(a, b)


async def test_the_handler_may_close_only_its_sending_half(session_pair, rooms, no_time):
    async with opened(session_pair, rooms) as (a, b):
        async with b.proxy("", Rooms).sends_eof() as channel:
            assert [text async for text in channel] == ["last"]
            await channel.send("still")
            await channel.send("heard")
            await channel.send_eof()
            await wait_all_tasks_blocked()
        assert rooms.log == [["still", "heard"]]
        await assert_no_calls_left(a, b)


async def test_the_handler_may_close_only_its_receiving_half(session_pair, rooms, no_time):
    async with opened(session_pair, rooms) as (a, b):
        async with b.proxy("", Rooms).closes_receiver() as channel:
            await channel.send("a")
            await wait_all_tasks_blocked()
            assert rooms.log == ["left"]
            with pytest.raises(trio.BrokenResourceError):
                await channel.send("b")
        await assert_no_calls_left(a, b)


async def test_an_error_of_the_handler_is_received_after_its_items(session_pair, rooms, no_time):
    async with opened(session_pair, rooms) as (a, b):
        with pytest.raises(Full):
            async with b.proxy("", Rooms).full() as channel:
                assert await channel.receive() == "one"
                with pytest.raises(trio.BrokenResourceError):
                    await channel.send("anyone?")
                await channel.receive()
        await assert_no_calls_left(a, b)


async def test_a_caller_cannot_send_after_the_handler_has_returned(session_pair, rooms, no_time):
    async with opened(session_pair, rooms, limits=Limits(stream_items=2)) as (a, b):
        async with b.proxy("", Rooms).short() as channel:
            with pytest.raises(trio.BrokenResourceError):
                for _ in range(100):
                    await channel.send("a")
            assert await channel.receive() == "a"
            with pytest.raises(trio.EndOfChannel):
                await channel.receive()
        await assert_no_calls_left(a, b)


async def test_law_2_leaving_the_block_cancels_the_handler(session_pair, rooms, no_time):
    async with opened(session_pair, rooms) as (a, b):
        async with b.proxy("", Rooms).receives():
            await wait_all_tasks_blocked()
        assert rooms.log == ["its block has been left"]
        with pytest.raises(KeyError):
            async with b.proxy("", Rooms).receives():
                await wait_all_tasks_blocked()
                raise KeyError("mine")
        assert rooms.log[1] == "KeyError: 'mine'"
        await assert_no_calls_left(a, b)


async def test_aclose_closes_both_halves(session_pair, rooms, no_time):
    async with opened(session_pair, rooms) as (a, b), b.proxy("", Rooms).receives(0) as channel:
        await wait_all_tasks_blocked()
        await channel.aclose()
        assert rooms.log
        for use in (channel.receive, lambda: channel.send("a")):
            with pytest.raises(trio.ClosedResourceError):
                await use()
        await assert_no_calls_left(a, b)


async def test_back_pressure_towards_the_handler(session_pair, rooms, no_time):
    sent = 0
    async with opened(session_pair, rooms, limits=Limits(stream_items=4)) as (_, b):
        async with b.proxy("", Rooms).receives(6) as channel, trio.open_nursery() as nursery:

            async def send():
                nonlocal sent
                while True:
                    await channel.send("a")
                    sent += 1

            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            assert rooms.received == 6
            assert sent == 10  # six were consumed and their credit returned; four are queued
            nursery.cancel_scope.cancel()


async def test_back_pressure_towards_the_caller(session_pair, rooms, no_time):
    async with opened(session_pair, rooms, limits=Limits(stream_items=4)) as (_, b):
        async with b.proxy("", Rooms).flood() as channel:
            await wait_all_tasks_blocked()
            assert rooms.received == 4
            assert [number async for number in channel] == list(range(1000))


async def test_law_14_an_item_that_cannot_be_sent_raises_at_its_sender(
    session_pair, rooms, no_time
):
    async with opened(session_pair, rooms) as (_, b), b.proxy("", Rooms).echo("") as channel:
        with pytest.raises(trio_rpc.EncodeError):
            await channel.send(object())
        await channel.send("a")
        assert await channel.receive() == "a"


async def test_received_items_are_checked_at_both_ends(session_pair, rooms, no_time):
    async with opened(session_pair, rooms) as (_, b):
        with pytest.raises(trio_rpc.RemoteError, match="Expected `str`"):
            async with b.proxy("", Rooms).echo("") as channel:
                await channel.send(1)
                await channel.receive()


async def test_several_tasks_may_send(session_pair, rooms, no_time):
    async with opened(session_pair, rooms, limits=Limits(stream_items=3)) as (_, b):
        async with b.proxy("", Rooms).echo("") as channel:
            async with trio.open_nursery() as nursery:

                async def send(name):
                    for _ in range(20):
                        await channel.send(name)

                async def receive():
                    assert sorted([await channel.receive() for _ in range(60)]) == sorted(
                        "abc" * 20
                    )

                nursery.start_soon(receive)
                for name in "abc":
                    nursery.start_soon(send, name)


async def test_law_8_the_handlers_channel_can_be_used_only_until_its_call_ends(
    session_pair, rooms, no_time
):
    async with opened(session_pair, rooms) as (_, b):
        async with b.proxy("", Rooms).keep() as channel:
            with pytest.raises(trio.EndOfChannel):
                await channel.receive()
        with pytest.raises(trio_rpc.LocalProtocolError, match="lives only until"):
            await rooms.kept.receive()
        with pytest.raises(trio.BrokenResourceError):
            await rooms.kept.send(1)


@pytest.mark.parametrize("end", ["ours", "theirs"])
async def test_law_6_the_end_of_the_session_ends_both_halves(session_pair, rooms, no_time, end):
    async with opened(session_pair, rooms) as (a, b):
        with pytest.raises((trio_rpc.SessionClosed, trio_rpc.RemoteCancelled)):
            async with b.proxy("", Rooms).echo("") as channel:
                await channel.send("a")
                await channel.receive()
                await close_at_once(b if end == "ours" else a)
                await b.wait_closed()
                with pytest.raises(trio.BrokenResourceError):
                    await channel.send("b")
                await channel.receive()


async def test_law_1_both_directions_are_in_the_tree(session_pair, rooms, no_time):
    async with opened(session_pair, rooms) as (a, b), b.proxy("", Rooms).echo(""):
        await wait_all_tasks_blocked()
        call, way_back = sorted(b.tree(), key=lambda node: node.kind)
        assert (call.kind, call.direction, way_back.kind) == ("duplex", "out", "stream")
        assert way_back.parent == ("out", call.id)
        kinds = {(node.kind, node.direction) for node in a.tree()}
        assert kinds == {("duplex", "in"), ("stream", "out")}


async def test_law_16_send_and_close_are_checkpoints(session_pair, rooms, no_time):
    async with opened(session_pair, rooms) as (_, b), b.proxy("", Rooms).echo("") as channel:
        await wait_all_tasks_blocked()
        with trio.testing.assert_checkpoints():
            await channel.send("a")
        with trio.testing.assert_checkpoints():
            await channel.send_eof()
        with trio.testing.assert_checkpoints(), pytest.raises(trio.ClosedResourceError):
            await channel.send("a")


async def test_law_16_a_cancelled_send_sends_nothing(session_pair, rooms, no_time):
    async with opened(session_pair, rooms) as (_, b), b.proxy("", Rooms).echo("") as channel:
        await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await channel.send("never")
        await channel.send("a")
        assert await channel.receive() == "a"


async def test_a_duplex_opened_as_a_stream_is_refused(session_pair, rooms, no_time):
    async with opened(session_pair, rooms) as (_, b):
        with pytest.raises(trio_rpc.InvalidArguments, match="a stream comes first"):
            async with b.stream("short") as items:
                await items.receive()
