"""Pieces of large messages are sent in batches while other calls are in flight."""

from __future__ import annotations

import trio
from helpers.raw_peer import session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

from trio_rpc import method
from trio_rpc.protocol.outbox import SHORT_PIECE
from trio_rpc.session.io.pacer import LEAST, MOST, Pacer
from trio_rpc.testing import open_session_pair
from trio_rpc.wire import messages as m


class Fake:
    """A protocol that records how many bytes of pieces it may send."""

    def __init__(self):
        self.allowed = []

    def allow_pieces(self, size):
        self.allowed.append(size)


async def test_batches_grow_while_answers_are_fast_and_shrink_when_they_are_late():
    protocol = Fake()
    pacer = Pacer(protocol)
    now = 0.0
    for seconds in (1.0, 1.5, 2.0, 2.1, 9.0, 1.0):
        pacer.sent(now)
        now += seconds
        pacer.answered(now)
    assert [size // LEAST for size in protocol.allowed] == [2, 4, 8, 4, 2, 4]


async def test_the_size_of_a_batch_has_a_minimum_and_a_maximum():
    protocol = Fake()
    pacer = Pacer(protocol)
    for _ in range(20):
        pacer.sent(0)
        pacer.answered(1)
    assert protocol.allowed[-1] == MOST
    for _ in range(20):
        pacer.sent(0)
        pacer.answered(10)
    assert protocol.allowed[-1] == LEAST


class Files:
    @method
    async def get(self, size: int) -> bytes:
        return bytes(size)

    @method
    async def sleep(self) -> None:
        await trio.sleep_forever()


def pieces(messages):
    return [len(each.data) for each in messages if isinstance(each, (m.Piece, m.LastPiece))]


async def read_until_quiet(peer):
    """Read all packets that arrive within a second of each other."""
    messages = []
    while True:
        with trio.move_on_after(1) as scope:
            messages += await peer.read_packet()
        if scope.cancelled_caught:
            return messages


async def test_pieces_wait_for_a_pong_while_another_call_is_in_flight(autojump_clock):
    async with session_with_raw_peer(Files(), max_buffer=10**6) as (session, peer):
        peer.send(m.Request(1, "sleep", []), m.Request(2, "get", [500_000]))
        first = await read_until_quiet(peer)
        assert 0 < sum(pieces(first)) <= SHORT_PIECE
        assert first[-1] == m.Ping(1)
        peer.send(m.Pong(1))
        second = await read_until_quiet(peer)
        assert SHORT_PIECE < sum(pieces(second)) <= 2 * SHORT_PIECE
        assert second[-1] == m.Ping(2)
        while not any(isinstance(each, m.LastPiece) for each in second):
            [ping] = [each for each in second if isinstance(each, m.Ping)]
            peer.send(m.Pong(ping.number))
            second = await read_until_quiet(peer)
        peer.send(m.Cancel(1))
        await peer.read(m.ReplyErr)
        assert session.tree() == []


async def test_a_large_message_alone_is_not_paced(autojump_clock):
    async with session_with_raw_peer(Files(), max_buffer=10**6) as (_, peer):
        peer.send(m.Request(1, "get", [500_000]))
        messages = await read_until_quiet(peer)
        assert sum(pieces(messages)) > 500_000
        assert not any(isinstance(each, m.Ping) for each in messages)


async def test_small_messages_are_sent_while_pieces_wait(autojump_clock):
    async with session_with_raw_peer(Files(), max_buffer=10**6) as (_, peer):
        peer.send(m.Request(1, "sleep", []), m.Request(2, "get", [500_000]))
        await read_until_quiet(peer)
        peer.send(m.Request(3, "get", [1]))
        assert [type(each) for each in await read_until_quiet(peer)] == [m.Reply]
        peer.send(m.Cancel(2))  # while its result is being sent
        assert (await peer.read(m.ReplyErr)).id == 2
        peer.send(m.Cancel(1))
        await peer.read(m.ReplyErr)


async def test_several_large_results_arrive_at_the_same_time(no_time):
    async with open_session_pair(Files(), None) as (_, b), trio.open_nursery() as nursery:
        got = []

        async def get(size):
            got.append(len(await b.call("get", size)))

        for size in (700_000, 600_000, 5, 900_000):
            nursery.start_soon(get, size)
        await wait_all_tasks_blocked()
        assert sorted(got) == [5, 600_000, 700_000, 900_000]
