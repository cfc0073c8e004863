"""The replay buffer: numbered messages, kept until the other end has acknowledged them. No I/O.

Both ends count the messages in the same way, 1, 2, 3 …, across all connections that replace each
other. The sender keeps a message until the receiver has acknowledged it. On the next connection the
receiver states the last number that it has, and the sender sends the later messages again.

A full buffer discards nothing. Its owner waits before it appends more.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["ReplayBuffer"]


class ReplayBuffer:
    """The messages of one sender that the receiver is not known to have.

    Args:
        max_messages: the most messages that are kept.
        max_bytes: another message may be appended while fewer bytes are kept.

    Attributes:
        acknowledged: the number of the last message that the receiver has.
        last: the number of the last message that was appended; 0 if none was.
        size: bytes of the messages that are kept.
    """

    __slots__ = ("_kept", "_max_bytes", "_max_messages", "acknowledged", "last", "size")

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self.acknowledged = 0
        self.last = 0
        self.size = 0
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        # Bound: has_room, which the owner asks before it appends.
        # A dict, since an empty deque has memory for 64 items, and most buffers keep few messages.
        self._kept: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def has_room(self) -> bool:
        """Whether a message may be appended; an empty buffer accepts a message of any size."""
        return len(self._kept) < self._max_messages and self.size < self._max_bytes

    def append(self, message: bytes) -> int:
        """Keep a message, and return its number."""
        self.last += 1
        self._kept[self.last] = message
        self.size += len(message)
        return self.last

    def acknowledge(self, number: int) -> None:
        """Forget the messages up to that number; it is at most ``last``."""
        while self.acknowledged < number:
            self.acknowledged += 1
            self.size -= len(self._kept.pop(self.acknowledged))

    def after(self, number: int) -> Iterator[tuple[int, bytes]]:
        """Iterate over the messages after a number, each with its own number.

        Messages may be appended and acknowledged meanwhile. Acknowledged ones are skipped.
        """
        while (number := max(number, self.acknowledged) + 1) <= self.last:
            yield number, self._kept[number]
