"""The messages that one browser has yet to receive or to acknowledge. No I/O.

Every message gets a number, one more than the last. A client that can resume acknowledges the
numbers that it has seen. A sent message is kept until then, so that it can be sent again over the
next connection. For a client that cannot resume, a message is dropped once it has been sent, which
is when the server has accepted all of it, and not when it is taken.

Bounds: messages and bytes. A full backlog drops nothing; its callers wait instead.
"""

from __future__ import annotations

import math

from trio_rpc.gateway.server.memory_budget import MemoryBudget, MemoryShare
from trio_rpc.util.replay_buffer import ReplayBuffer

__all__ = ["PIECE", "Backlog"]

PIECE = 16 * 1024
"""Bytes of a message above which it shares no frame, and is sent in pieces to clients that ask.

A client shows that it is alive by acknowledging pieces, and gets a piece again if its connection
was lost in the middle of it. So pieces are small enough for a slow network: by default, a client
that downloads 400 bytes a second is not silent. Smaller messages share frames, which costs less.
"""


class Backlog:
    """Numbered messages to one client.

    Args:
        max_messages: the most messages to hold.
        max_bytes: the most bytes to hold; one more message is accepted while there are fewer.
        keeps: whether sent messages are kept until they have been acknowledged.
        share: counts the bytes; the caller asks it for room.
    """

    def __init__(
        self, max_messages: int, max_bytes: int, *, keeps: bool, share: MemoryShare | None = None
    ) -> None:
        self._share = share or MemoryShare(MemoryBudget(math.inf))
        self._buffer = ReplayBuffer(max_messages, max_bytes)
        self._keeps = keeps
        self._sent = 0
        """The number of the last message sent over the current connection."""

    @property
    def is_full(self) -> bool:
        """Whether a caller should wait before it adds a message."""
        return not self._buffer.has_room

    @property
    def has_news(self) -> bool:
        """Whether there is a message to send."""
        return self._sent < self._buffer.last

    @property
    def next_number(self) -> int:
        """The number of the next message to be added."""
        return self._buffer.last + 1

    def put(self, message: bytes) -> None:
        """Add one message; its number is :attr:`next_number`."""
        self._buffer.append(message)
        self._share.take(len(message))

    def take(self, most: int) -> list[bytes]:
        """Return the next messages to send: as many as fit in ``most`` bytes, and at least one.

        A message of more than ``PIECE`` bytes is taken alone.
        The list is empty if there is no message to send.
        """
        taken: list[bytes] = []
        size = 0
        for number, message in self._buffer.after(self._sent):
            is_large = len(message) > PIECE
            if taken and (size + len(message) > most or is_large):
                break
            taken.append(message)
            size += len(message)
            self._sent = number
            if is_large:
                break
        return taken

    def were_sent(self) -> None:
        """Drop the messages that were taken, unless the client has to acknowledge them."""
        if not self._keeps:
            self._drop(self._sent)

    def acknowledge(self, number: int) -> bool:
        """Drop the messages that the client has seen.

        Returns False, and drops nothing, for a number that the client cannot have seen.
        """
        if number > self._sent:
            return False
        self._drop(number)
        return True

    def rewind(self, number: int) -> bool:
        """Prepare to send the messages after ``number`` again, over a new connection.

        Returns False if some of them are no longer held.
        """
        if not self._keeps or not self._buffer.acknowledged <= number <= self._buffer.last:
            return False
        self._drop(number)
        self._sent = number
        return True

    def clear(self) -> None:
        """Drop everything: the client has ended."""
        self._sent = self._buffer.last
        self._drop(self._sent)

    def _drop(self, number: int) -> None:
        before = self._buffer.size
        self._buffer.acknowledge(number)
        if self._buffer.size < before:
            self._share.give_back(before - self._buffer.size)
