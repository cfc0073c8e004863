"""What waits to be sent to one browser, and what it may ask for again. No I/O.

Every message gets a number, one more than the last. A client that can resume says which number it has seen
last; until then a message that was sent is kept, so that it can be sent again over the next connection. Of a
client that cannot, nothing is kept once it has been sent.

Bounds: messages and bytes. They are no reason to forget anything: when the backlog is full, those who have
something to say wait.
"""

from __future__ import annotations

from trio_rpc.util.replay_buffer import ReplayBuffer

__all__ = ["Backlog"]


class Backlog:
    """Numbered messages to one client.

    Args:
        max_messages: how many may be held.
        max_bytes: how many bytes of them; one more message is taken while there are fewer.
        keeps: whether what was sent is kept until it has been acknowledged.
    """

    def __init__(self, max_messages: int, max_bytes: int, *, keeps: bool) -> None:
        self._buffer = ReplayBuffer(max_messages, max_bytes)
        self._keeps = keeps
        self._sent = 0
        """The number of the last message that was sent over this connection."""

    @property
    def is_full(self) -> bool:
        """Whether who has something to say should wait."""
        return not self._buffer.has_room

    @property
    def has_news(self) -> bool:
        """Whether there is something to send."""
        return self._sent < self._buffer.last

    @property
    def next_number(self) -> int:
        """The number that the next message gets."""
        return self._buffer.last + 1

    def put(self, message: bytes) -> None:
        """Hold one message, whose number is :attr:`next_number`."""
        self._buffer.append(message)

    def take(self, most: int) -> list[bytes]:
        """Return what is to be sent next: one message at least, as many as fit in ``most`` bytes."""
        taken: list[bytes] = []
        size = 0
        for number, message in self._buffer.after(self._sent):
            if taken and size + len(message) > most:
                break
            taken.append(message)
            size += len(message)
            self._sent = number
        if not self._keeps:
            self._buffer.acknowledge(self._sent)
        return taken

    def acknowledge(self, number: int) -> bool:
        """Forget what the client has seen; False for a number that it cannot have seen."""
        if number > self._sent:
            return False
        self._buffer.acknowledge(number)
        return True

    def rewind(self, number: int) -> bool:
        """Send again what follows ``number``, over a new connection; False if that is not held."""
        if not self._keeps or not self._buffer.acknowledged <= number <= self._buffer.last:
            return False
        self._buffer.acknowledge(number)
        self._sent = number
        return True
