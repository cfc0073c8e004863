"""Law 17: a session's block does not outlive the session, nor the session its block."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest
import trio
from helpers.children import Plugin
from helpers.handlers import Echo, Sleeper
from helpers.raw_peer import session_with_raw_peer
from test_processes import command
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Fate, Limits, SessionBroken, SessionEnd, open_session
from trio_rpc.testing import memory_channel_pair, open_session_pair
from trio_rpc.testing.faulty import open_faulty_pair
from trio_rpc.wire import messages as m


def leave(peer):
    peer.send(m.Goodbye("done", "gone fishing"))
    peer.channel.close()


def vanish(peer):
    peer.channel.close()


def reset(peer):
    peer.channel.abort()


def babble(peer):
    peer.channel.send_nowait(b"\xc1")


ENDS = {
    leave: (True, "gone fishing", type(None), "peer"),
    vanish: (False, "without a Goodbye", trio.BrokenResourceError, "network"),
    reset: (False, "broken", trio.BrokenResourceError, "network"),
    babble: (False, "broke the protocol", trio_rpc.RemoteProtocolError, "peer"),
}
each_end = pytest.mark.parametrize("end", ENDS)


async def soon(function, *args):
    """Call a function once all other tasks wait."""
    await wait_all_tasks_blocked()
    function(*args)


@each_end
async def test_law_17_a_body_that_waits_is_cancelled_and_its_block_says_why(no_time, tasks, end):
    orderly, text, cause, by = ENDS[end]
    before = tasks()
    async with trio.open_nursery() as nursery:
        with pytest.raises(SessionBroken, match=text) as caught:
            async with session_with_raw_peer(on_end="cancel") as (session, peer):
                nursery.start_soon(soon, end, peer)
                await trio.sleep_forever()
    assert caught.value.orderly is orderly
    assert type(caught.value.__cause__) is cause
    assert caught.value.fate is Fate.UNKNOWN
    assert not session.is_open
    record = await session.wait_closed()
    assert record == SessionEnd(by, str(caught.value), caught.value.__cause__)
    assert tasks() == before


@each_end
async def test_law_17_with_on_end_keep_the_body_is_not_cancelled(no_time, end):
    async with session_with_raw_peer(on_end="keep") as (session, peer):
        assert session.is_open
        end(peer)
        record = await session.wait_closed()
        await trio.lowlevel.checkpoint()
        assert record.by == ENDS[end][3]
        with pytest.raises(SessionBroken) as caught:
            await session.call("anything")
        assert caught.value.orderly is ENDS[end][0]


async def test_law_17_a_body_that_finishes_in_the_tick_of_the_end_raises_nothing(no_time):
    async with session_with_raw_peer(on_end="cancel") as (session, peer):
        vanish(peer)
        assert (await session.wait_closed()).by == "network"


async def test_law_17_a_body_that_goes_on_after_the_end_is_cancelled_where_it_waits_next(no_time):
    with pytest.raises(SessionBroken, match="without a Goodbye"):
        async with session_with_raw_peer(on_end="cancel") as (session, peer):
            vanish(peer)
            await session.wait_closed()
            await trio.lowlevel.checkpoint()
            raise AssertionError("it must not get here")


@each_end
async def test_law_17_the_block_raises_the_error_of_a_call_in_the_body_unchanged(no_time, end):
    async with trio.open_nursery() as nursery:
        with pytest.raises(SessionBroken, match=ENDS[end][1]) as caught:
            async with session_with_raw_peer(on_end="cancel") as (session, peer):
                nursery.start_soon(soon, end, peer)
                try:
                    await session.call("anything")
                except SessionBroken as exc:
                    own = exc
                    raise
    assert caught.value is own


async def test_law_17_the_block_raises_the_bodys_own_error(no_time):
    with pytest.raises(ZeroDivisionError, match="mine"):
        async with session_with_raw_peer(on_end="cancel") as (_, peer):
            vanish(peer)
            try:
                await trio.sleep_forever()
            finally:
                raise ZeroDivisionError("mine")


async def test_law_17_a_group_from_a_nursery_of_the_body_stays_a_group(no_time):
    with pytest.raises(ExceptionGroup) as caught:
        async with session_with_raw_peer(on_end="cancel") as (session, peer):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.call, "anything")
                nursery.start_soon(trio.sleep_forever)
                await soon(vanish, peer)
    assert [type(each) for each in caught.value.exceptions] == [SessionBroken]


async def test_law_17_a_cancelled_nursery_of_the_body_makes_no_group(no_time):
    with pytest.raises(SessionBroken) as caught:
        async with session_with_raw_peer(on_end="cancel") as (_, peer):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                await soon(vanish, peer)
    assert type(caught.value) is SessionBroken


@each_end
async def test_law_17_race_the_block_is_cancelled_from_outside_in_the_tick_of_the_end(no_time, end):
    reached = False
    with trio.CancelScope() as outside:
        async with session_with_raw_peer(on_end="cancel") as (_, peer):
            end(peer)
            outside.cancel()
            await trio.sleep_forever()
        reached = True
    assert outside.cancelled_caught
    assert not reached


async def test_law_17_a_cancelled_scope_in_the_body_catches_its_own_cancellation(no_time):
    async with session_with_raw_peer(on_end="cancel"):
        with trio.CancelScope() as own:
            own.cancel()
            await trio.sleep_forever()
        assert own.cancelled_caught


@pytest.mark.parametrize("at_once", [False, True])
async def test_law_17_a_body_that_closes_its_session_goes_on(no_time, at_once):
    async with session_with_raw_peer(on_end="cancel") as (session, peer):
        with trio.CancelScope() as scope:
            if at_once:
                scope.cancel()
            else:
                vanish(peer)  # in the same tick
            await session.aclose()
        await trio.lowlevel.checkpoint()
        assert (await session.wait_closed()).by == ("us" if at_once else "network")


async def test_law_17_race_both_ends_send_goodbye_at_once(no_time):
    async with session_with_raw_peer(on_end="cancel") as (session, peer):
        peer.send(m.Goodbye("done", "gone fishing"))
        await session.aclose()
        await trio.lowlevel.checkpoint()
        assert (await session.wait_closed()) == SessionEnd(
            "us", "this end has closed the session", None
        )


async def test_law_17_a_session_closed_by_a_handler_of_this_end_was_closed_by_this_end(
    autojump_clock,
):
    class Closer:
        @trio_rpc.method
        async def close(self):
            with trio.CancelScope() as scope:
                scope.cancel()
                await trio_rpc.current_call().session.aclose()

    async with session_with_raw_peer(Closer(), on_end="cancel") as (session, peer):
        peer.send(m.Request(1, "close", []))
        assert (await session.wait_closed()) == SessionEnd(
            "us", "this end has closed the session", None
        )
        await trio.lowlevel.checkpoint()


async def test_law_17_a_shielded_body_may_finish(autojump_clock):
    async with session_with_raw_peer(on_end="cancel") as (_, peer):
        vanish(peer)
        with trio.CancelScope(shield=True):
            await trio.sleep(5)
        assert trio.current_time() == 5


async def test_law_17_of_nested_blocks_only_the_one_of_the_lost_session_raises(no_time):
    async with session_with_raw_peer(on_end="cancel") as (outer, _):
        with pytest.raises(SessionBroken, match="without a Goodbye"):
            async with session_with_raw_peer(on_end="cancel") as (_, peer):
                vanish(peer)
                await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        assert outer.is_open


async def test_law_17_when_the_outer_session_ends_the_inner_block_is_cancelled(no_time):
    with pytest.raises(SessionBroken) as caught:
        async with session_with_raw_peer(on_end="cancel") as (_, peer):
            async with session_with_raw_peer(on_end="cancel") as (_, other):
                leave(peer)
                vanish(other)
                await trio.sleep_forever()
    assert caught.value.orderly


async def test_law_17_a_body_inside_a_remote_scope_or_stream_raises_one_session_broken(no_time):
    class Source:
        @trio_rpc.stream
        async def forever(self):
            await trio.sleep_forever()
            yield 1

    for opened in (lambda s: s.open_scope(), lambda s: s.stream("forever")):
        async with open_faulty_pair() as pair:
            with pytest.raises(SessionBroken) as caught:
                async with (
                    open_session_pair(None, Source(), channels=(pair.first, pair.second)) as (a, _),
                    opened(a),
                ):
                    pair.link.cut()
                    await trio.sleep_forever()
            assert type(caught.value) is SessionBroken


async def test_law_17_a_body_is_cancelled_if_the_session_ended_before_it(no_time):
    ours, theirs = memory_channel_pair()

    async def be_the_other_end():
        async with open_session(theirs):
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(be_the_other_end)
        with pytest.raises(SessionBroken):
            async with open_session(ours):
                await trio.sleep_forever()


@pytest.mark.parametrize("wrong", [None, True, "Cancel", "", ["cancel"]])
async def test_law_17_a_wrong_on_end_is_refused_with_an_error_that_lists_the_right_ones(
    session_pair, wrong
):
    blocks = [
        lambda: open_session(memory_channel_pair()[0], on_end=wrong),
        lambda: trio_rpc.connect("tcp://127.0.0.1:1", on_end=wrong),
        lambda: trio_rpc.open_process(["true"], on_end=wrong),
        lambda: trio_rpc.open_parent(on_end=wrong),
        lambda: session_pair(on_end=wrong),
    ]
    for block in blocks:
        with pytest.raises(ValueError, match='on_end must be "cancel" or "keep", not'):
            async with block():
                raise AssertionError("it must not open")


async def test_law_17_functions_without_a_body_do_not_accept_on_end():
    async with trio.open_nursery() as nursery:
        with pytest.raises(TypeError, match="on_end"):
            await trio_rpc.connect_in(nursery, "tcp://127.0.0.1:1", on_end="keep")
    with pytest.raises(TypeError, match="on_end"):
        await trio_rpc.serve(Echo(), "tcp://127.0.0.1:0", on_end="keep")
    with pytest.raises(TypeError, match="on_end"):
        await trio_rpc.serve_session(memory_channel_pair()[0], on_end="keep")


async def test_law_17_the_end_of_a_session_of_connect_in_is_raised_only_by_its_calls():
    async with trio.open_nursery() as nursery:
        async with trio_rpc.open_server(Echo(), "tcp://127.0.0.1:0") as server:
            session = await trio_rpc.connect_in(nursery, server.urls[0])
        assert (await session.wait_closed()).by == "peer"
        with pytest.raises(SessionBroken) as caught:
            await session.call("echo", 1)
        assert caught.value.orderly


async def test_law_17_over_tcp_a_server_that_drains_ends_its_sessions_in_an_orderly_way():
    async with (
        trio.open_nursery() as nursery,
        trio_rpc.open_server(Echo(), "tcp://127.0.0.1:0") as server,
    ):
        with pytest.raises(SessionBroken, match="the other end has left") as caught:
            async with trio_rpc.connect(server.urls[0]):
                nursery.start_soon(server.drain)
                await trio.sleep_forever()
        assert caught.value.orderly
        assert caught.value.__cause__ is None


async def test_law_17_the_block_of_a_pair_raises_when_its_connection_is_lost():
    async with open_faulty_pair() as pair:
        with pytest.raises(SessionBroken) as caught:
            async with open_session_pair(channels=(pair.first, pair.second)):
                pair.link.cut()
                await trio.sleep_forever()
        assert not caught.value.orderly


async def test_law_17_a_body_that_closes_one_end_of_a_pair_goes_on(session_pair, no_time):
    async with session_pair(None, Sleeper()) as (a, b):
        await b.aclose()
        await trio.lowlevel.checkpoint()
        assert (await a.wait_closed()).by == "peer"
        assert (await b.wait_closed()).by == "us"


# ── over real processes ──────────────────────────────────────────────────────────────────────

SERVER = textwrap.dedent(
    """
    import signal, trio, trio_rpc

    class Echo:
        @trio_rpc.method
        async def echo(self, value: int) -> int:
            return value

    async def main():
        async with trio_rpc.open_server(Echo(), "tcp://127.0.0.1:0") as server:
            with trio.open_signal_receiver(signal.SIGTERM) as signals:
                print(server.urls[0], flush=True)
                async for _ in signals:
                    await server.drain()
                    break

    trio.run(main)
    """
)


@pytest.mark.parametrize(
    ("number", "orderly"), [(signal.SIGKILL, False), (signal.SIGTERM, True)], ids=["kill", "drain"]
)
async def test_law_17_a_killed_server_process_is_a_lost_session_and_a_drained_one_is_orderly(
    number, orderly
):
    with trio.fail_after(60):
        process = await trio.lowlevel.open_process(
            [sys.executable, "-c", SERVER], stdout=subprocess.PIPE
        )
        try:
            url = (await process.stdout.receive_some()).decode().strip()
            with pytest.raises(SessionBroken) as caught:
                async with trio_rpc.connect(url) as session:
                    assert await session.call("echo", 1) == 1
                    process.send_signal(number)
                    await trio.sleep_forever()
            assert caught.value.orderly is orderly
            assert (caught.value.__cause__ is None) is orderly
        finally:
            process.kill()
            await process.wait()
            await process.stdout.aclose()


async def test_law_17_the_block_of_a_child_process_says_how_the_process_ended():
    with trio.fail_after(60):
        with pytest.raises(SessionBroken, match="SIGKILL"):
            patient = Limits(handshake_timeout=60)  # for a busy machine
            async with trio_rpc.open_process(command(), limits=patient) as session:
                process = await session.proxy("", Plugin).pid()

                os.kill(process, signal.SIGKILL)
                await trio.sleep_forever()
