"""What waits to be sent to one browser, and what it may ask for again. No I/O.

Every message gets a number, one more than the last. A client that can resume says which number it has seen
last; until then a message that was sent is kept, so that it can be sent again over the next connection. Of a
client that cannot, nothing is kept once it has been sent.

Bounds: messages and bytes. They are no reason to forget anything: when the backlog is full, those who have
something to say wait.
"""

from __future__ import annotations

from collections import deque

__all__ = ["Backlog"]


class Backlog:
    """Numbered messages to one client.

    Args:
        max_messages: how many may be held.
        max_bytes: how many bytes of them; one more message is taken while there are fewer.
        keeps: whether what was sent is kept until it has been acknowledged.
    """

    def __init__(self, max_messages: int, max_bytes: int, *, keeps: bool) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._keeps = keeps
        self._held: deque[bytes] = deque()
        self._size = 0
        self._first = 1
        """The number of the first message that is held."""
        self._sent = 0
        """How many of those that are held have been sent over this connection."""

    @property
    def is_full(self) -> bool:
        """Whether who has something to say should wait."""
        return len(self._held) >= self._max_messages or self._size >= self._max_bytes

    @property
    def has_news(self) -> bool:
        """Whether there is something to send."""
        return self._sent < len(self._held)

    @property
    def next_number(self) -> int:
        """The number that the next message gets."""
        return self._first + len(self._held)

    def put(self, message: bytes) -> None:
        """Hold one message, whose number is :attr:`next_number`."""
        self._held.append(message)
        self._size += len(message)

    def take(self, most: int) -> list[bytes]:
        """Return what is to be sent next: one message at least, as many as fit in ``most`` bytes."""
        taken: list[bytes] = []
        size = 0
        while self.has_news:
            message = self._held[self._sent if self._keeps else 0]
            if taken and size + len(message) > most:
                break
            taken.append(message)
            size += len(message)
            if self._keeps:
                self._sent += 1
            else:
                self._drop()
        return taken

    def acknowledge(self, number: int) -> bool:
        """Forget what the client has seen; False for a number that it cannot have seen."""
        if number >= self._first + self._sent:
            return False
        while self._sent and self._first <= number:
            self._drop()
            self._sent -= 1
        return True

    def rewind(self, number: int) -> bool:
        """Send again what follows ``number``, over a new connection; False if that is not held."""
        if not self._keeps or not self._first - 1 <= number < self.next_number:
            return False
        self._sent = len(self._held)
        self.acknowledge(number)
        self._sent = 0
        return True

    def _drop(self) -> None:
        self._size -= len(self._held.popleft())
        self._first += 1
