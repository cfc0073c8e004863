"""Forwarding: several channels over one carrier, as their users see it."""

from __future__ import annotations

import logging

import msgpack
import pytest
import trio
from helpers.channel_pairs import connected
from helpers.forwarding_pairs import Acceptor, channel_pair, open_forwarding_pair
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

import trio_rpc
from trio_rpc import DecodeError, Limits, Refused, RemoteProtocolError, open_session
from trio_rpc.channels import memory_channel_pair, open_forwarding
from trio_rpc.channels.forwarding.frames import Data, Goodbye, Hello, Open, decode_frames, encode
from trio_rpc.testing import Failure, Faults, check_channel, open_faulty_pair
from trio_rpc.util.rate_limited_log import LINES

SMALL = Limits(max_packet=16 * 1024, max_channels=4)


async def echo(channel, **parameters):
    async for packet in channel:
        await channel.send(packet)


async def test_a_channel_is_opened_by_name_and_its_handler_gets_the_parameters():
    """A part of a multiplexed channel is a channel, and is opened by name."""

    async def handler(channel, name, kind):
        await channel.send(f"{kind} {name}".encode())

    async with open_forwarding_pair(None, {"plugins/{name}/{kind}": handler}) as (a, _):
        channel = await a.open("plugins/räder/child")
        assert channel.name == "plugins/räder/child"
        assert await channel.receive() == "child räder".encode()
        with pytest.raises(trio.EndOfChannel):
            await channel.receive()  # the handler has returned, so this is the end
        await channel.aclose()


async def test_a_peer_that_reconnects_gets_no_further_log_lines_for_its_channels(caplog):
    async def fails(channel):
        raise KeyError("a bug")

    for _ in range(4):
        async with open_forwarding_pair(None, {"fails": fails}) as (a, _):
            for _ in range(LINES // 2):
                with pytest.raises((Refused, trio.BrokenResourceError)):
                    async with await a.open("fails") as channel:
                        await channel.receive()
    assert len(caplog.records) == LINES


async def test_the_first_matching_route_is_used():
    async def says(channel, word, **parameters):
        await channel.send(word)

    routes = {
        "a/b": lambda channel: says(channel, b"literal"),
        "a/{x}": lambda channel, x: says(channel, b"one"),
        "{x}/{y}": lambda channel, x, y: says(channel, b"two"),
        "{x}": lambda channel, x: says(channel, x.encode()),
    }
    async with open_forwarding_pair(None, routes) as (a, _):
        for name, answer in [("a/b", b"literal"), ("a/c", b"one"), ("c/b", b"two"), ("c", b"c")]:
            async with await a.open(name) as channel:
                assert await channel.receive() == answer
        for name in ("a/", "/", "a/b/c", "/a"):
            with pytest.raises(Refused, match="no route"):
                await a.open(name)


@pytest.mark.parametrize("pattern", ["", "{}", "{a b}", "{class}", "{channel}", "x{a}", "{a}/{a}"])
async def test_a_bad_pattern_is_refused_at_once(pattern):
    with pytest.raises(ValueError, match="route"):
        async with open_forwarding(memory_channel_pair()[0], {pattern: echo}):
            raise AssertionError("it must not begin")


@pytest.mark.parametrize("name", ["", "x" * 1025, "ä" * 513, "\ud800"])
async def test_an_invalid_name_raises_at_the_opener(name):
    async with open_forwarding_pair() as (a, _):
        with pytest.raises(ValueError):
            await a.open(name)


async def test_the_reason_of_a_refused_channel_is_one_line_at_the_other_end():
    async def refuses(channel):
        await trio.lowlevel.checkpoint()
        raise Refused("members\nERROR only\x1b[2J")

    async with open_forwarding_pair(None, {"refuses": refuses}) as (a, _):
        with pytest.raises(Refused, match=r"^members\\nERROR only\\x1b\[2J$"):
            await a.open("refuses")


async def test_a_channel_is_refused_with_a_reason():
    async def refuses(channel, name):
        await trio.lowlevel.checkpoint()
        raise Refused(f"there is no plugin {name!r}")

    async with open_forwarding_pair(None, {"plugins/{name}": refuses}) as (a, b):
        with pytest.raises(Refused, match=r"^there is no plugin 'x'$"):
            await a.open("plugins/x")
        with pytest.raises(Refused, match=r"^there is no route for 'nothing'$"):
            await a.open("nothing")
        with pytest.raises(Refused, match=r"^there is no route for 'plugins/x'$"):
            await b.open("plugins/x")
        assert "0 channels" in repr(a)
        await wait_all_tasks_blocked()
        assert "0 channels" in repr(b)


async def test_a_long_reason_is_shortened():
    async def refuses(channel):
        raise Refused("ä" * 10_000)

    async with open_forwarding_pair(None, {"x": refuses}) as (a, _):
        with pytest.raises(Refused, match=r"^ä{512}$"):
            await a.open("x")


async def test_both_ends_open_the_same_name_at_once_and_get_two_channels():
    """Both ends may open the same name at once, and get two channels."""
    opened = {}

    async def open_it(end, forwarding):
        opened[end] = await forwarding.open("same")

    async with open_forwarding_pair({"same": echo}, {"same": echo}) as (a, b):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_it, "a", a)
            nursery.start_soon(open_it, "b", b)
        for end, channel in opened.items():
            await channel.send(end.encode())
        for end, channel in opened.items():
            assert await channel.receive() == end.encode()
            await channel.aclose()


async def test_a_handler_that_raises_breaks_only_its_own_channel(caplog):
    async def broken(channel, when):
        if when == "late":
            await channel.receive()
        raise KeyError("a bug")

    async with open_forwarding_pair(None, {"fail/{when}": broken, "echo": echo}) as (a, _):
        good = await a.open("echo")
        with pytest.raises(Refused, match="its handler failed"):
            await a.open("fail/early")
        bad = await a.open("fail/late")
        await bad.send(b"x")
        with pytest.raises(trio.BrokenResourceError, match="its handler failed"):
            await bad.receive()
        await good.send(b"still works")
        assert await good.receive() == b"still works"
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert "'a bug'" in caplog.text


async def test_many_failing_handlers_log_a_few_lines(caplog):
    async def fails(channel):
        raise ValueError("no")

    async with open_forwarding_pair(None, {"x": fails}) as (a, _):
        for _ in range(300):
            with pytest.raises(Refused):
                await a.open("x")
    assert 0 < len(caplog.records) <= 20


async def test_a_handler_that_fails_because_its_channel_ended_is_not_logged_as_an_error(caplog):
    caplog.set_level(logging.INFO)

    async def receives_forever(channel):
        while True:
            await channel.receive()

    async with open_forwarding_pair(None, {"x": receives_forever}) as (a, _):
        await (await a.open("x")).aclose()
        await wait_all_tasks_blocked()
    assert [record.levelno for record in caplog.records] == [logging.INFO]


async def test_a_fatal_exception_of_a_handler_is_raised_by_the_block():
    async def interrupted(channel):
        await channel.receive()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        async with open_forwarding_pair(None, {"x": interrupted}) as (a, _):
            await (await a.open("x")).send(b"x")
            await trio.sleep_forever()


async def test_the_block_raises_the_exception_of_its_body():
    with pytest.raises(LookupError):
        async with open_forwarding_pair(None, {"x": Acceptor()}):
            raise LookupError


async def test_a_stopped_channel_does_not_stop_the_others(autojump_clock):
    stopped = Acceptor()
    routes = {"stopped": stopped, "echo": echo}
    async with open_forwarding_pair(None, routes, limits_a=SMALL, limits_b=SMALL) as (a, _):
        there, _ = await channel_pair(a, stopped, "stopped")
        sent = 0
        with trio.move_on_after(1):
            while True:
                await there.send(bytes(10_000))
                sent += 1
        assert 4 <= sent <= 8  # a window of 64 KiB, and one waiting packet
        good = await a.open("echo")
        for number in range(100):
            packet = bytes([number]) * 16_000
            await good.send(packet)
            assert await good.receive() == packet


async def test_closing_a_channel_does_not_affect_others():
    acceptor = Acceptor()
    async with open_forwarding_pair(None, {"x": acceptor}) as (a, _):
        pairs = [await channel_pair(a, acceptor, "x") for _ in range(3)]
        await pairs[1][0].aclose()
        with pytest.raises(trio.EndOfChannel):
            await pairs[1][1].receive()
        for there, here in (pairs[0], pairs[2]):
            await there.send(b"x")
            assert await here.receive() == b"x"


@pytest.mark.parametrize("first", [0, 1])
async def test_opening_waits_for_a_free_place(first, autojump_clock):
    acceptor = Acceptor()
    async with open_forwarding_pair(None, {"x": acceptor}, limits_b=SMALL) as (a, _):
        pairs = [await channel_pair(a, acceptor, "x") for _ in range(4)]
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + 10
            nursery.start_soon(channel_pair, a, acceptor, "x")
            await wait_all_tasks_blocked()
            assert not acceptor.channels
            await pairs[2][first].aclose()
            await wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1  # the other end may still be using it
            await pairs[2][1 - first].aclose()
        assert not nursery.cancel_scope.cancelled_caught


async def test_a_cancelled_open_leaves_no_channel(autojump_clock):
    ended = []

    async def answers_late(channel):
        try:
            await trio.sleep(10)
            await channel.receive()
        except trio.EndOfChannel:
            ended.append(True)

    async with open_forwarding_pair(None, {"x": answers_late}, limits_b=SMALL) as (a, b):
        for _ in range(10):
            with trio.move_on_after(1):
                await a.open("x")
        await trio.sleep(100)
        assert len(ended) == 4  # the others have found no free place
        assert "0 channels" in repr(a)
        assert "0 channels" in repr(b)


async def test_abort_breaks_the_channel_with_a_reason():
    acceptor = Acceptor()
    async with open_forwarding_pair(None, {"x": acceptor}) as (a, _):
        there, here = await channel_pair(a, acceptor, "x")
        await channel_pair(a, acceptor, "x")  # with two channels, a packet may have to wait
        await there.send(b"before")
        await wait_all_tasks_blocked()
        assert there.send_nowait(b"has not left, and does not any more")
        there.abort("out of paper")
        assert await here.receive() == b"before"
        for verb in (here.receive, lambda: here.send(b"x")):
            with pytest.raises(trio.BrokenResourceError, match="out of paper"):
                await verb()
        with pytest.raises(trio.ClosedResourceError):
            await there.receive()


async def test_leaving_the_block_closes_its_channels_after_all_sent_packets(autojump_clock):
    acceptor = Acceptor()
    carriers = memory_channel_pair()
    async with open_forwarding(carriers[1], {"x": acceptor}) as b:
        async with open_forwarding(carriers[0]) as a:
            closed, closed_there = await channel_pair(a, acceptor, "x")
            kept, kept_there = await channel_pair(a, acceptor, "x")
            for channel in (closed, kept):
                await channel.send(bytes(200_000))
            await closed.aclose()
        for verb in (kept.receive, lambda: kept.send(b"x"), lambda: a.open("x")):
            with pytest.raises(trio.ClosedResourceError):
                await verb()
        assert len(await closed_there.receive()) == len(await kept_there.receive()) == 200_000
        with pytest.raises(trio.EndOfChannel):
            await closed_there.receive()
        with pytest.raises(trio.BrokenResourceError, match="the other end closed it"):
            await kept_there.receive()
        with pytest.raises(trio.BrokenResourceError):
            await b.open("x")


class SlowCarrier(trio.abc.Channel[bytes]):
    """A carrier whose sends take 0.1 s."""

    def __init__(self, channel):
        self._channel = channel

    async def send(self, value):
        await trio.sleep(0.1)
        await self._channel.send(value)

    async def receive(self):
        return await self._channel.receive()

    async def aclose(self):
        await self._channel.aclose()


@pytest.mark.parametrize("wait", [0, 0.05, 0.15])
async def test_leaving_the_block_waits_for_a_slow_carrier(autojump_clock, wait):
    acceptor = Acceptor()
    first, second = memory_channel_pair()
    async with open_forwarding(second, {"x": acceptor}):
        async with open_forwarding(SlowCarrier(first)) as a:
            channel, there = await channel_pair(a, acceptor, "x")
            other, other_there = await channel_pair(a, acceptor, "x")
            for each in (channel, other):
                await each.send(bytes(200_000))
            await trio.sleep(wait)
            started = trio.current_time()
        assert trio.current_time() - started == pytest.approx(0.2 - wait)
        assert len(await there.receive()) == len(await other_there.receive()) == 200_000


async def test_leaving_the_block_takes_a_bounded_time(autojump_clock):
    acceptor = Acceptor()
    first, second = memory_channel_pair()
    async with open_forwarding(second, {"x": acceptor}, limits=SMALL):
        async with open_forwarding(first) as a:
            channel, _ = await channel_pair(a, acceptor, "x")
            with trio.move_on_after(1):
                while True:
                    await channel.send(bytes(10_000))
            started = trio.current_time()
        assert trio.current_time() - started == Limits().shutdown_timeout


async def test_a_packet_of_many_frames_does_not_starve_other_tasks():
    acceptor = Acceptor()
    here, raw = memory_channel_pair()
    frames = 5_000
    async with open_forwarding(here, {"x": acceptor}):
        await raw.send(encode(Hello(1, 2**18, 1)) + encode(Open(1, "x", 1000)))
        channel = await acceptor.next()
        await raw.receive()
        runs = 0
        await raw.send(encode(Data(1, b"x")) * frames)
        while len(channel._box.packets) < frames:
            await trio.lowlevel.checkpoint()
            runs += 1
    assert runs > frames / 100


async def test_all_channels_break_with_their_carrier():
    acceptor = Acceptor()
    carriers = memory_channel_pair()
    async with open_forwarding_pair(None, {"x": acceptor}, carriers=carriers) as (a, _):
        ends = [end for _ in range(3) for end in await channel_pair(a, acceptor, "x")]
        failures = []

        async def wait(channel):
            with pytest.raises(trio.BrokenResourceError, match="connection of the pair") as caught:
                await channel.receive()
            failures.append(caught.value)

        async with trio.open_nursery() as nursery:
            for end in ends:
                nursery.start_soon(wait, end)
            await wait_all_tasks_blocked()
            carriers[0].abort()
        for end in ends:
            with pytest.raises(trio.BrokenResourceError):
                await end.send(b"x")
        with pytest.raises(trio.BrokenResourceError):
            await a.open("x")
        assert all(isinstance(each.__cause__, trio.BrokenResourceError) for each in failures)
        await a.wait_closed()


async def test_a_silent_peer_is_a_handshake_timeout(autojump_clock):
    here, _there = memory_channel_pair()
    async with open_forwarding(here, limits=Limits(handshake_timeout=3)) as forwarding:
        with pytest.raises(trio.BrokenResourceError, match="within 3 s") as caught:
            await forwarding.open("x")
        assert isinstance(caught.value.__cause__, TimeoutError)
        assert trio.current_time() == 3


async def test_a_packet_that_is_too_large_breaks_only_its_channel():

    acceptor = Acceptor()
    async with open_forwarding_pair(None, {"x": acceptor}, limits_b=SMALL) as (a, _):
        there, here = await channel_pair(a, acceptor, "x")
        other, other_here = await channel_pair(a, acceptor, "x")
        await there.send(bytes(SMALL.max_packet + 1))
        with pytest.raises(DecodeError, match="more than 16384 bytes"):
            await here.receive()
        with pytest.raises(trio.BrokenResourceError, match="more than 16384 bytes"):
            await there.receive()
        await other.send(bytes(SMALL.max_packet))
        assert len(await other_here.receive()) == SMALL.max_packet


async def test_every_method_is_a_checkpoint():
    acceptor = Acceptor()
    async with open_forwarding_pair(None, {"x": acceptor}) as (a, b):
        with assert_checkpoints():
            channel, _ = await channel_pair(a, acceptor, "x")
        with assert_checkpoints():
            await channel.flush()
    with assert_checkpoints():
        await b.wait_closed()


async def test_all_frames_of_a_tick_leave_in_one_packet():
    acceptor = Acceptor()
    carriers = memory_channel_pair()
    packets = []
    async with open_forwarding_pair(None, {"x": acceptor}, carriers=carriers) as (a, _):
        pairs = [await channel_pair(a, acceptor, "x") for _ in range(20)]
        await wait_all_tasks_blocked()
        carriers[0].on_send = lambda packet: packets.append(packet) or packet
        for number in range(1, 4):
            for there, _ in pairs:
                assert there.send_nowait(b"a small packet")
            for _, here in pairs:
                assert await here.receive() == b"a small packet"
            assert len(packets) == number
            assert packets[-1].count(b"a small packet") == 20
        for there, _ in pairs:
            await there.aclose()


async def test_with_one_channel_each_packet_is_written_at_once():
    acceptor = Acceptor()
    carriers = memory_channel_pair()
    packets = []
    async with open_forwarding_pair(None, {"x": acceptor}, carriers=carriers) as (a, _):
        there, here = await channel_pair(a, acceptor, "x")
        await wait_all_tasks_blocked()
        carriers[0].on_send = lambda packet: packets.append(packet) or packet
        for number in range(1, 10):
            assert there.send_nowait(b"x")
            assert len(packets) == number
        taken = 0
        while there.send_nowait(bytes(10_000)):
            taken += 1
        assert taken == 8  # six are in the carrier, and two wait
        await there.send(b"last")
        received = [await here.receive() for _ in range(9 + taken + 1)]
        assert [len(packet) for packet in received] == [1] * 9 + [10_000] * taken + [4]


@pytest.mark.parametrize("kind", ["tcp", "unix", "ws"])
async def test_a_forwarded_channel_conforms_over_a_real_carrier(kind, nursery, tmp_path):
    acceptor = Acceptor()
    url = f"unix://{tmp_path}/socket" if kind == "unix" else f"{kind}://127.0.0.1:0"
    carriers = await connected(nursery, url)
    pair = open_forwarding_pair(None, {"x": acceptor}, carriers=carriers)
    with trio.fail_after(60):
        async with pair as (a, _):

            async def make():
                return await channel_pair(a, acceptor, "x")

            await check_channel(make)


async def test_bytes_that_a_socket_does_not_accept_at_once_are_sent_later(nursery, tmp_path):
    acceptor = Acceptor()
    carriers = await connected(nursery, f"unix://{tmp_path}/socket")
    with trio.fail_after(30):
        async with open_forwarding_pair(None, {"x": acceptor}, carriers=carriers) as (a, _):
            there, here = await channel_pair(a, acceptor, "x")
            await wait_all_tasks_blocked()
            for _ in range(20):
                assert there.send_nowait(bytes(240_000))
                assert len(await here.receive()) == 240_000


async def test_a_peer_can_be_written_from_the_page_alone():
    """Follow docs/channels.md with an ordinary MessagePack library."""
    here, there = memory_channel_pair()
    frames = []

    async def send_frames(*several):
        await there.send(b"".join(map(msgpack.packb, several)))

    async def read_frame():
        while not frames:
            unpacker = msgpack.Unpacker()
            unpacker.feed(await there.receive())
            frames.extend(unpacker)
        return frames.pop(0)

    async with open_forwarding(here, {"echo/{what}": echo}, limits=SMALL) as forwarding:
        assert await read_frame() == [0, 1, 16_384, 4]
        # The peer opens a channel. A packet in three parts is echoed as a whole.
        await send_frames([0, 1, 16_384, 1], [1, 1, "echo/x", 30_000])
        assert await read_frame() == [2, -1, 65_536]
        await send_frames([5, 1, b"one "], [5, 1, b"two "])
        await send_frames([4, 1, b"three"])
        assert await read_frame() == [4, -1, b"one two three"]
        await send_frames([7, 1])
        assert await read_frame() == [7, -1]
        # When more than half of the granted credit is used, it is granted again.
        await send_frames([1, 2, "echo/x", 200_000])
        assert await read_frame() == [2, -2, 65_536]
        for _ in range(3):
            await send_frames([4, 2, bytes(12_000)])
        frames_read = sorted([await read_frame() for _ in range(4)])
        assert frames_read == [[4, -2, bytes(12_000)]] * 3 + [[6, -2, 3 * (12_000 + 64)]]
        await send_frames([8, 2, "enough"])
        assert await read_frame() in ([7, -2], [8, -2, "its handler failed"])
        # This end opens two channels. The first is refused.
        async with trio.open_nursery() as nursery:

            async def open_refused():
                with pytest.raises(Refused, match="not today"):
                    await forwarding.open("a")

            nursery.start_soon(open_refused)
            assert await read_frame() == [1, 1, "a", 65_536]
            await send_frames([3, -1, "not today"])
        assert await read_frame() == [7, 1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(forwarding.open, "b")
            assert await read_frame() == [1, 2, "b", 65_536]
            await send_frames([2, -2, 100])


async def test_an_illegal_frame_ends_the_carrier_with_a_reason():
    acceptor = Acceptor()
    here, raw = memory_channel_pair()
    async with open_forwarding(here, {"x": acceptor}) as forwarding:
        await raw.send(encode(Hello(1, 2**18, 1)) + encode(Open(1, "x", 1000)))
        channel = await acceptor.next()
        await raw.send(encode(Data(2, b"x")))
        reason = "Data for channel 2, which is not open"
        with pytest.raises(trio.BrokenResourceError, match=reason) as caught:
            await channel.receive()
        assert isinstance(caught.value.__cause__, RemoteProtocolError)
        with pytest.raises(trio.BrokenResourceError, match=reason):
            await forwarding.open("x")
        frames = [frame async for packet in raw for frame in decode_frames(packet)]
        assert frames[-1] == Goodbye(reason)


async def test_the_reason_of_a_goodbye_is_in_the_error():
    here, raw = memory_channel_pair()
    async with open_forwarding(here) as forwarding:
        await raw.send(encode(Hello(1, 2**18, 1)) + encode(Goodbye("you have lied")))
        with pytest.raises(trio.BrokenResourceError, match="you have lied"):
            await forwarding.open("x")


async def test_a_session_at_the_other_end_is_an_error_at_both_ends():
    here, there = memory_channel_pair()
    async with open_forwarding(here) as forwarding:
        with pytest.raises(RemoteProtocolError):
            async with open_session(there):
                raise AssertionError("it must not open")
        with pytest.raises(trio.BrokenResourceError):
            await forwarding.open("x")


class FailingCarrier(SlowCarrier):
    """A carrier with a bug in ``send``."""

    async def send(self, value):
        await trio.lowlevel.checkpoint()
        raise KeyError("a bug")


async def test_a_bug_in_a_carrier_is_raised_by_the_block():
    here, _there = memory_channel_pair()
    with pytest.raises(KeyError, match="a bug"):
        async with open_forwarding(FailingCarrier(here)) as forwarding:
            with pytest.raises(trio.BrokenResourceError, match="a bug"):
                await forwarding.open("x")
            await trio.sleep_forever()


async def test_after_cancelling_the_block_its_sessions_can_still_cancel_their_calls():
    """The carrier works until the body ends, so law 2 holds for a cancelled session."""
    ended = []

    class Sleeper:
        @trio_rpc.method
        async def sleep(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                ended.append(True)

    async def serve(channel):
        await trio_rpc.serve_session(channel, Sleeper())

    carriers = memory_channel_pair()
    async with open_forwarding(carriers[1], {"x": serve}):
        with trio.CancelScope() as scope:
            async with (
                open_forwarding(carriers[0]) as forwarding,
                open_session(await forwarding.open("x")) as session,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(session.call, "sleep")
                await wait_all_tasks_blocked()
                scope.cancel()
        assert ended


async def test_handlers_receive_packets_that_arrived_before_the_carrier_closed():
    received = []

    async def consume(channel):
        async for packet in channel:
            await wait_all_tasks_blocked()  # a slow consumer
            received.append(packet)

    carriers = memory_channel_pair()
    async with open_forwarding(carriers[1], {"x": consume}) as served:
        async with open_forwarding(carriers[0]) as a, await a.open("x") as channel:
            for number in range(10):
                await channel.send(bytes([number]))
        await served.wait_closed()
        assert received == [bytes([number]) for number in range(10)]


@pytest.mark.parametrize("failure", [Failure.CUT, Failure.RESET])
@pytest.mark.parametrize("way", ["forth", "back"])
async def test_a_carrier_cut_at_any_byte_breaks_its_channels_without_hanging(
    failure, way, autojump_clock
):
    async def exchange_packets(forwarding):
        async with await forwarding.open("x") as channel:
            for number in range(1, 5):
                await channel.send(bytes(number * 10))
                assert len(await channel.receive()) == number * 10

    async def cut_at(number):
        faults = {way: Faults(fail_after=number, failure=failure)}
        async with open_faulty_pair(**faults) as pair:
            carriers = pair.first, pair.second
            async with open_forwarding_pair(None, {"x": echo}, carriers=carriers) as (a, b):
                try:
                    await exchange_packets(a)
                except (trio.BrokenResourceError, trio.EndOfChannel):
                    await a.wait_closed()
                    await b.wait_closed()
                    return False
                return True

    with trio.fail_after(10_000):
        outcomes = [await cut_at(number) for number in range(260)]
    assert outcomes.index(True) > 100
    assert all(outcomes[outcomes.index(True) :])
