"""The writer alone: it writes packets in order, even if the channel accepts only parts of them."""

from __future__ import annotations

from collections import deque

from trio_rpc.session.io.writer import MANY, Writer
from trio_rpc.util.unsent_budget import UnsentBudget, UnsentShare


class Queue:
    """The part of a protocol that a writer uses. Each packet is one number."""

    is_paced = False

    def __init__(self):
        self.packets = deque()
        self.share = UnsentShare(UnsentBudget(), 1)

    @property
    def messages_waiting(self):
        return MANY if self.packets else 0

    @property
    def has_data(self):
        return bool(self.packets)

    def next_packet(self):
        return self.packets.popleft() if self.packets else None


class Channel:
    """A channel that accepts packets at once while ``accepts`` is set."""

    unsent = 0

    def __init__(self):
        self.sent = []
        self.accepts = True

    def send_nowait(self, value):
        if self.accepts:
            self.sent.append(value)
        return self.accepts

    async def send(self, value):
        self.sent.append(value)

    async def flush(self):
        raise AssertionError("nothing is unsent")


class Observer:
    """Counts how many times the writer has reported progress."""

    def __init__(self):
        self.progress = 0

    def sent(self):
        pass

    def progressed(self):
        self.progress += 1


class Starter:
    def __init__(self, nursery, writer):
        self.nursery, self.writer = nursery, writer

    def start_writer(self):
        self.nursery.start_soon(self.writer.run)


async def test_packets_written_early_neither_replace_nor_overtake_a_held_packet(nursery):
    queue, channel = Queue(), Channel()
    writer = Writer(channel, queue, Observer())
    writer.start(Starter(nursery, writer))
    channel.accepts = False
    queue.packets.append(b"1")
    writer.write_now()  # the channel does not accept it, so the writer holds it
    channel.accepts = True
    queue.packets.append(b"2")
    writer.write_early()
    await writer.drain()
    assert channel.sent == [b"1", b"2"]
    nursery.cancel_scope.cancel()


async def test_a_packet_that_is_written_at_once_is_progress_for_tasks_that_wait_for_room():
    queue, channel, observer = Queue(), Channel(), Observer()
    writer = Writer(channel, queue, observer)
    writer.start(Starter(None, writer))
    queue.packets.append(b"1")
    writer.write_now()
    assert (channel.sent, observer.progress) == ([b"1"], 1)
