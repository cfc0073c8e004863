"""Where the frames and messages of a WebSocket begin and end (RFC 6455), whatever is in them."""

from __future__ import annotations

__all__ = ["FrameWatch"]

MAX_HEADER = 14
"""Two bytes, a length of eight, and a mask."""

CONTROL = 0x08
FIN = 0x80
MASKED = 0x80
LENGTH = 0x7F

EXTENDED = {126: 2, 127: 8}
"""Bytes of a length that does not fit in the header's seven bits."""


class FrameWatch:
    """Follows the bytes that a peer sends, to know when a message is only half there.

    Whether they are legal is for the library to say.

    Attributes:
        is_midway: whether a message, or a frame between two messages, has begun and not ended.
        content: bytes of messages that have come. Those of Pings and Pongs do not count, since
            libraries send them by themselves.
    """

    def __init__(self) -> None:
        self.is_midway = False
        self.content = 0
        self._head = b""
        """The beginning of a frame's header."""
        self._is_in_frame = False
        """Whether a header has come, and not the whole payload."""
        self._missing = 0
        """Bytes of the payload that have not come."""
        self._is_control = False
        self._is_in_message = False
        self._is_last = False
        """Whether the message ends with the current frame."""

    def feed(self, data: bytes) -> bool:
        """Take bytes; tell whether nothing was half there before, after, or within them."""
        data, self._head = self._head + data, b""
        at, was_whole = 0, not self.is_midway
        while True:
            if self._is_in_frame:
                at += self._take_payload(len(data) - at)
                if self._missing:
                    break
                was_whole = was_whole or not self._is_in_message
            head = data[at : at + MAX_HEADER]
            size = _header_size(head)
            if size > len(head):
                self._head = head
                break
            self._begin_frame(head)
            at += size
        self.is_midway = bool(self._head or self._is_in_frame or self._is_in_message)
        return was_whole

    def _begin_frame(self, head: bytes) -> None:
        short = head[1] & LENGTH
        extended = EXTENDED.get(short, 0)
        self._is_in_frame = True
        self._missing = int.from_bytes(head[2 : 2 + extended]) if extended else short
        self._is_control = bool(head[0] & CONTROL)
        if not self._is_control:
            self._is_in_message = True
            self._is_last = bool(head[0] & FIN)

    def _take_payload(self, available: int) -> int:
        """Take what has come of a payload, and return how much that is."""
        taken = min(self._missing, available)
        self._missing -= taken
        self._is_in_frame = self._missing > 0
        if not self._is_control:
            self.content += taken
            self._is_in_message = self._is_in_frame or not self._is_last
        return taken


def _header_size(head: bytes) -> int:
    """Return how long a header is that begins so."""
    if len(head) < 2:
        return 2
    return 2 + EXTENDED.get(head[1] & LENGTH, 0) + (4 if head[1] & MASKED else 0)
