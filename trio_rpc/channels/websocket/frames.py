"""Find where the frames and messages of a WebSocket begin and end (RFC 6455)."""

from __future__ import annotations

__all__ = ["FrameWatch"]

MAX_HEADER = 14
"""The most bytes of a header: two, a length of eight, and a mask of four."""

CONTROL = 0x08
FIN = 0x80
MASKED = 0x80
LENGTH = 0x7F

EXTENDED = {126: 2, 127: 8}
"""Bytes of an extended length, by the value of the header's seven length bits."""


class FrameWatch:
    """Follows the bytes that a peer sends, to know whether a message is incomplete.

    The library checks whether the bytes are legal.

    Attributes:
        is_midway: whether a message, or a frame between two messages, has begun and not ended.
        content: bytes of messages that have arrived. Pings and Pongs do not count, because
            libraries send them without the program.
    """

    def __init__(self) -> None:
        self.is_midway = False
        self.content = 0
        self._head = b""
        """The beginning of a frame's header."""
        self._is_in_frame = False
        """Whether a header has arrived, but not the whole payload."""
        self._missing = 0
        """Bytes of the payload that have not arrived."""
        self._is_control = False
        self._is_in_message = False
        self._is_last = False
        """Whether the message ends with the current frame."""

    def feed(self, data: bytes) -> bool:
        """Process bytes; return whether no message was incomplete before, within or after them."""
        if not self.is_midway and (length := _whole_message(data)) >= 0:
            self.content += length
            self._is_control, self._is_last = False, True
            return True
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
        self._is_in_frame = True
        self._missing = _payload_size(head)
        self._is_control = bool(head[0] & CONTROL)
        if not self._is_control:
            self._is_in_message = True
            self._is_last = bool(head[0] & FIN)

    def _take_payload(self, available: int) -> int:
        """Process the available bytes of a payload, and return their number."""
        taken = min(self._missing, available)
        self._missing -= taken
        self._is_in_frame = self._missing > 0
        if not self._is_control:
            self.content += taken
            self._is_in_message = self._is_in_frame or not self._is_last
        return taken


def _whole_message(data: bytes) -> int:
    """Return the length of the message, or -1 if these bytes are not exactly one message."""
    if len(data) < 2 or data[0] & (FIN | CONTROL) != FIN:
        return -1
    length = _payload_size(data)
    return length if len(data) == _header_size(data) + length else -1


def _payload_size(head: bytes) -> int:
    """Return the length of the payload of the frame that begins with these bytes."""
    short = head[1] & LENGTH
    extended = EXTENDED.get(short, 0)
    return int.from_bytes(head[2 : 2 + extended]) if extended else short


def _header_size(head: bytes) -> int:
    """Return the length of the header that begins with these bytes."""
    if len(head) < 2:
        return 2
    return 2 + EXTENDED.get(head[1] & LENGTH, 0) + (4 if head[1] & MASKED else 0)
