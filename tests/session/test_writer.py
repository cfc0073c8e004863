"""The writer by itself: what it has taken from the protocol leaves, in order, whatever the channel takes at once."""

from __future__ import annotations

from collections import deque

from trio_rpc.session.io.writer import MANY, Writer


class Queue:
    """The part of a protocol that a writer sees: each packet is one number."""

    is_paced = False

    def __init__(self):
        self.packets = deque()

    @property
    def messages_waiting(self):
        return MANY if self.packets else 0

    @property
    def has_data(self):
        return bool(self.packets)

    def next_packet(self):
        return self.packets.popleft() if self.packets else None


class Channel:
    """Takes packets at once while it is told to."""

    unsent = 0

    def __init__(self):
        self.sent = []
        self.takes = True

    def send_nowait(self, value):
        if self.takes:
            self.sent.append(value)
        return self.takes

    async def send(self, value):
        self.sent.append(value)

    async def flush(self):
        raise AssertionError("nothing is left")


class Watcher:
    """Is told what has been sent, and does nothing about it."""

    def sent(self):
        pass

    def progressed(self):
        pass


async def test_what_leaves_early_neither_replaces_nor_overtakes_a_packet_that_is_held(nursery):
    queue, channel = Queue(), Channel()
    writer = Writer(channel, queue, None, Watcher())
    writer.start(lambda: nursery.start_soon(writer.run))
    channel.takes = False
    queue.packets.append(b"1")
    writer.write_now()  # it is held: the channel does not take it
    channel.takes = True
    queue.packets.append(b"2")
    writer.write_early()
    await writer.drain()
    assert channel.sent == [b"1", b"2"]
    nursery.cancel_scope.cancel()
