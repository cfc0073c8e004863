"""Forwarded channels without I/O: their states, their credit, and how they share the carrier.

The life of a channel
=====================

Each end has its own state, and one table (``_NEXT``) holds for both: a frame that is illegal to
send is also illegal to receive. The end that opens a channel is TALKING from its Open on. The other
end is SILENT until it answers with Accept or Refuse. Each end sends **exactly one last frame**:
Close, Abort or Refuse. After its last frame an end sends nothing more about the channel. After both
last frames the channel is forgotten, and its id is never used again. So a frame for an unknown id
cannot be late, and is always illegal.

An end that has sent its last frame drops everything that arrives before the other end's last frame.
The opener's core answers a Refuse with Close, unless its own last frame has crossed the Refuse.
In all other cases an end sends its last frame when its user closes the channel. So a channel holds
its place until both users have closed it.

Credit
======

Credit is counted in bytes, and granted in advance for each channel and direction: by the opener
with Open, by the acceptor with Accept, and again when packets have been received by the user. A
packet costs its bytes and ``OVERHEAD``, however it is split. A window is four packets of the
largest size, and is granted again in halves, so a packet that has begun can always arrive whole.

Bounds
======

For each channel, this module holds one packet that waits to be sent, one packet of at most
``max_packet`` bytes that arrives in parts, and three control frames that wait: Open or Accept, one
Credit, and a last frame. The other end has at most ``max_channels`` channels open, and a place is
free again only when the last frame of this end has left. So a peer that sends and does not read
cannot make us accumulate anything. Packets that have arrived whole wait with the receiver, which
holds at most one window, overhead included.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from trio_rpc.channels.forwarding.frames import (
    DATA_HEADER,
    VERSION,
    Abort,
    Accept,
    Close,
    Credit,
    Data,
    Frame,
    Goodbye,
    Hello,
    Open,
    Part,
    Refuse,
    check_name,
    decode_frames,
    encode,
    encode_data_header,
    shorten,
)
from trio_rpc.errors import LocalProtocolError, RemoteProtocolError
from trio_rpc.wire.limits import MIN_PACKET, Limits

__all__ = ["OVERHEAD", "SHARE", "Event", "ForwardingCore", "Half", "SubChannel", "TooLarge"]

OVERHEAD = 64
"""Credit that a packet costs in addition to its bytes: about the memory to keep it."""

WINDOW = 4
"""Packets of the largest size that may be in flight on a channel."""

SHARE = 16 * 1024
"""Bytes of one packet that are sent before another channel's turn."""

SMALL_PART = 512
"""A part of fewer bytes is not worth sending."""


class Half(enum.Enum):
    """The state of one end of a channel."""

    SILENT = "has not answered the Open yet"
    TALKING = "has opened or accepted the channel"
    DONE = "has sent its last frame"


_NEXT: dict[tuple[Half, type], Half] = {
    (Half.SILENT, Accept): Half.TALKING,
    (Half.SILENT, Refuse): Half.DONE,
    (Half.TALKING, Data): Half.TALKING,
    (Half.TALKING, Part): Half.TALKING,
    (Half.TALKING, Credit): Half.TALKING,
    (Half.TALKING, Close): Half.DONE,
    (Half.TALKING, Abort): Half.DONE,
}


@dataclass(slots=True, eq=False)
class SubChannel:
    """The state of one channel at this end."""

    id: int
    """Positive if this end has opened the channel."""
    name: str
    ours: Half
    theirs: Half
    window: int = 0
    """Credit that the other end granted at first; ``credit`` never exceeds it."""
    credit: int = 0
    """Bytes that this end may send."""
    granted: int = 0
    """Bytes that the other end may send."""
    due: int = 0
    """Credit of packets that the user has received, not yet granted again."""
    packet: memoryview | None = None
    """The unsent rest of the packet that waits."""
    begun: bool = False
    """Whether a part of that packet has been sent."""
    partial: bytearray = field(default_factory=bytearray)
    """The received parts of an incomplete packet, if it is kept."""
    arriving: bool = False
    """Whether a packet is arriving in parts, whether it is kept or not."""
    closing: bool = False
    """Whether Close follows the waiting packet."""
    parted: bool = False
    """Whether the last frame of this end has left."""
    queued: bool = False
    """Whether the channel is in the round of channels that can send."""


class TooLarge(NamedTuple):
    """An event, not a frame: a packet exceeded this end's limit, and the channel has failed."""

    id: int
    limit: int


Event: TypeAlias = tuple[SubChannel | None, Frame | TooLarge]
"""A received frame and its channel.

A Data holds the whole packet. Dropped frames produce no events.
"""


class ForwardingCore:
    """One end of the carrier.

    Args:
        limits: the limits of this end: ``max_packet`` bytes in a packet of the carrier or of a
            channel, and ``max_channels``.
    """

    def __init__(self, limits: Limits) -> None:
        self.greeted = False
        """Whether the other end's Hello has arrived; no channel can be opened before."""
        self._limits = limits
        self._window = WINDOW * limits.max_packet
        self._channels: dict[int, SubChannel] = {}
        self._control: deque[tuple[bytes, SubChannel | None]] = deque()
        """Frames that wait, each with its channel if it is that channel's last frame."""
        self._owing: deque[SubChannel] = deque()
        """Channels with at least half a window of credit to grant again."""
        self._put(Hello(VERSION, limits.max_packet, limits.max_channels))
        self._round: deque[SubChannel] = deque()
        self._waiting = 0
        self._max_packet = MIN_PACKET
        self._max_opened = 0
        self._opened = self._last_id = 0
        self._accepted = self._last_of_theirs = 0

    def __len__(self) -> int:
        return len(self._channels)

    # ── operations of the user ───────────────────────────────────────────────────────────────

    @property
    def room(self) -> int:
        """The number of channels that can be opened now."""
        return self._max_opened - self._opened

    def open(self, name: str) -> SubChannel:
        """Open a channel. Raises ValueError for a bad name, LocalProtocolError without room."""
        check_name(name)
        if self.room <= 0:
            raise LocalProtocolError("there is no room for another channel")
        self._last_id += 1
        self._opened += 1
        channel = SubChannel(self._last_id, name, Half.TALKING, Half.SILENT)
        channel.granted = self._window
        self._channels[channel.id] = channel
        self._put(Open(channel.id, name, self._window))
        return channel

    def accept(self, channel: SubChannel) -> None:
        """Accept an Open."""
        channel.granted = self._window
        self._say(channel, Accept(channel.id, self._window))

    def send(self, channel: SubChannel, packet: bytes) -> None:
        """Queue a packet. Only one can wait: ``channel.packet`` is None when it has left."""
        if channel.packet is not None or channel.closing or _is_over(channel):
            raise LocalProtocolError("this channel cannot take a packet now")
        channel.packet = memoryview(packet)
        self._waiting += 1
        self._enqueue(channel)

    def taken(self, channel: SubChannel, size: int) -> None:
        """Record that the user has received a packet of this size, so more can be granted."""
        before = channel.due
        channel.due += size + OVERHEAD
        if before * 2 < self._window <= channel.due * 2:
            self._owing.append(channel)

    def close(self, channel: SubChannel, reason: str = "") -> None:
        """Send the last frame: Close behind the waiting packet, or Refuse before an Accept."""
        if channel.ours is Half.SILENT:
            self._say(channel, Refuse(channel.id, shorten(reason)))
        elif channel.ours is Half.TALKING and not channel.closing:
            channel.partial.clear()
            channel.closing = True
            if channel.packet is None:
                self._say(channel, Close(channel.id))

    def abort(self, channel: SubChannel, reason: str) -> None:
        """Drop the waiting packet and send the last frame at once: the channel has failed."""
        if channel.ours is Half.TALKING:
            channel.partial.clear()
            self._drop(channel)
            self._say(channel, Abort(channel.id, shorten(reason)))
        else:
            self.close(channel, reason)

    def fail(self, reason: str) -> None:
        """Drop everything that waits, and send only a Goodbye with the reason."""
        self.end()
        self._put(Goodbye(shorten(reason)))

    def end(self) -> None:
        """Forget all channels and frames, because the carrier has ended."""
        self._control.clear()
        self._owing.clear()
        self._round.clear()
        self._waiting = 0
        for channel in self._channels.values():
            channel.ours = channel.theirs = Half.DONE
            channel.packet = None
            channel.partial.clear()
        self._channels.clear()
        self._max_opened = self._opened = 0

    # ── sending ──────────────────────────────────────────────────────────────────────────────

    @property
    def has_data(self) -> bool:
        """Whether anything waits to be sent, including packets that wait for credit."""
        return bool(self._control or self._owing or self._waiting)

    @property
    def can_send(self) -> bool:
        """Whether there is a packet of the carrier to send."""
        return bool(self._control or self._owing or self._round)

    def next_packet(self) -> tuple[bytes, list[SubChannel]] | None:
        """Return the next packet of the carrier, and the channels that can take a packet again.

        It contains as many waiting frames as fit: first control frames, then in turn a share of
        each channel that has something to send.
        """
        parts: list[bytes | memoryview] = []
        emptied: list[SubChannel] = []
        room = self._take_control(parts, self._max_packet)
        while self._round:
            channel = self._round.popleft()
            channel.queued = False
            if channel.packet is None:
                continue  # the other end has closed it
            limit = SHARE if self._round else room
            taken = self._take_part(channel, parts, emptied, limit, room)
            if not taken:
                self._enqueue(channel, first=True)
                break
            room -= taken
        self._take_control(parts, room)  # includes a Close that waited for one of these packets
        return (b"".join(parts), emptied) if parts else None

    def _take_control(self, parts: list[bytes | memoryview], room: int) -> int:
        while self._control and len(self._control[0][0]) <= room:
            frame, channel = self._control.popleft()
            parts.append(frame)
            room -= len(frame)
            if channel is not None:
                channel.parted = True
                self._forget_if_over(channel)
        while self._owing and room >= DATA_HEADER and not self._control:
            channel = self._owing.popleft()
            # Granted only when the frame leaves, so a peer that does not read gets no more credit.
            amount, channel.due = channel.due, 0
            if channel.theirs is channel.ours is Half.TALKING and not channel.closing:
                frame = encode(Credit(channel.id, amount))
                channel.granted += amount
                parts.append(frame)
                room -= len(frame)
        return room

    def _take_part(
        self,
        channel: SubChannel,
        parts: list[bytes | memoryview],
        emptied: list[SubChannel],
        limit: int,
        room: int,
    ) -> int:
        """Remove as much of a channel's packet as its turn, its credit and the room allow."""
        packet = channel.packet
        assert packet is not None  # noqa: S101 - the caller has checked
        room -= DATA_HEADER
        credit = channel.credit - (0 if channel.begun else OVERHEAD)
        size = min(len(packet), limit, room, credit)
        if size < min(len(packet), SMALL_PART, credit):
            return 0
        last = size == len(packet)
        kind = Data if last else Part
        header = encode_data_header(kind, channel.id, size)
        parts.append(header)
        parts.append(packet if last else packet[:size])
        channel.credit = credit - size
        if last:
            channel.packet, channel.begun = None, False
            self._waiting -= 1
            emptied.append(channel)
            if channel.closing:
                self._say(channel, Close(channel.id))
        else:
            channel.packet, channel.begun = packet[size:], True
            self._enqueue(channel)
        return len(header) + size

    def _enqueue(self, channel: SubChannel, *, first: bool = False) -> None:
        """Queue a channel for its turn, if it has a packet and enough credit for any part of it."""
        needed = 0 if channel.begun else OVERHEAD
        if channel.packet is None or channel.queued or channel.credit <= needed:
            return
        channel.queued = True
        if first:
            self._round.appendleft(channel)
        else:
            self._round.append(channel)

    def _drop(self, channel: SubChannel) -> None:
        if channel.packet is not None:
            channel.packet, channel.begun = None, False
            self._waiting -= 1

    def _say(self, channel: SubChannel, frame: Frame) -> None:
        then = _NEXT.get((channel.ours, type(frame)))
        if then is None:
            raise LocalProtocolError(
                f"cannot send {type(frame).__name__}: this end {channel.ours.value}"
            )
        channel.ours = then
        self._put(frame, channel if then is Half.DONE else None)

    def _put(self, frame: Frame, ends: SubChannel | None = None) -> None:
        self._control.append((encode(frame), ends))

    def _forget_if_over(self, channel: SubChannel) -> None:
        # The slots bound the queued data: a slot is free again only when none of its data waits.
        if channel.parted and channel.theirs is Half.DONE:
            del self._channels[channel.id]
            if channel.id > 0:
                self._opened -= 1
            else:
                self._accepted -= 1

    # ── receiving ────────────────────────────────────────────────────────────────────────────

    def receive(self, packet: bytes) -> Iterator[Event]:
        """Process the frames of one packet of the carrier, one at a time, and yield the events.

        Raises:
            DecodeError: the packet contains a malformed frame.
            RemoteProtocolError: a frame is illegal. The carrier is unusable after either error.
        """
        if len(packet) > self._limits.max_packet:
            raise RemoteProtocolError(
                f"a packet of {len(packet)} bytes; {self._limits.max_packet} are allowed"
            )
        for frame in decode_frames(packet):
            event: Event | None
            match frame:
                case Data() | Part():
                    event = self._on_content(frame)
                case Hello():
                    self._on_hello(frame)
                    continue
                case Goodbye():
                    event = (None, frame)
                case _ if not self.greeted:
                    raise RemoteProtocolError(f"{type(frame).__name__} came before Hello")
                case Open():
                    event = self._on_open(frame)
                case _:
                    event = self._on_control(frame)
            if event is not None:
                yield event

    def _on_hello(self, hello: Hello) -> None:
        if self.greeted:
            raise RemoteProtocolError("a second Hello")
        if hello.version != VERSION:
            raise RemoteProtocolError(
                f"the other end has version {hello.version} of forwarding, this end {VERSION}"
            )
        if hello.max_packet < MIN_PACKET or hello.max_channels < 0:
            raise RemoteProtocolError(f"a Hello with impossible limits: {hello}")
        self.greeted = True
        self._max_packet = min(hello.max_packet, self._limits.max_packet)
        self._max_opened = hello.max_channels

    def _on_open(self, frame: Open) -> Event:
        if frame.id != self._last_of_theirs + 1:
            raise RemoteProtocolError(
                f"Open of channel {frame.id}, but the next id is {self._last_of_theirs + 1}"
            )
        if self._accepted == self._limits.max_channels:
            raise RemoteProtocolError(f"more than {self._accepted} channels at once")
        if not frame.name or frame.credit <= 0:
            raise RemoteProtocolError("an Open without a name or without credit")
        self._last_of_theirs += 1
        self._accepted += 1
        channel = SubChannel(-frame.id, frame.name, Half.SILENT, Half.TALKING)
        channel.credit = channel.window = frame.credit
        self._channels[channel.id] = channel
        return channel, frame

    def _on_content(self, frame: Data | Part) -> Event | None:
        channel = self._heard(frame)
        cost = len(frame.content) + (0 if channel.arriving else OVERHEAD)
        channel.arriving = type(frame) is Part
        if cost > channel.granted or not frame.content:
            raise RemoteProtocolError(f"channel {channel.id} has sent more than was granted")
        channel.granted -= cost
        if channel.closing or channel.ours is Half.DONE:
            return None
        limit = self._limits.max_packet
        if len(channel.partial) + len(frame.content) > limit:
            self.abort(channel, f"a packet of more than {limit} bytes")
            return channel, TooLarge(channel.id, limit)
        if type(frame) is Part:
            channel.partial += frame.content
            return channel, frame
        if channel.partial:
            frame = Data(frame.id, bytes(channel.partial + frame.content))
            channel.partial.clear()
        return channel, frame

    def _on_control(self, frame: Accept | Refuse | Credit | Close | Abort) -> Event | None:
        channel = self._heard(frame)
        match frame:
            case Accept(credit=amount):
                if amount <= 0:
                    raise RemoteProtocolError("an Accept without credit")
                channel.credit = channel.window = amount
                self._enqueue(channel)
            case Credit(amount=amount):
                channel.credit += amount
                if amount <= 0 or channel.credit > channel.window:
                    raise RemoteProtocolError(
                        f"credit of {amount} for channel {channel.id}, whose window is "
                        f"{channel.window}"
                    )
                self._enqueue(channel)
                return None
            case _:
                channel.partial.clear()
                self._drop(channel)
                if channel.ours is Half.TALKING and (channel.closing or type(frame) is Refuse):
                    self._say(channel, Close(channel.id))
                else:
                    self._forget_if_over(channel)
        return channel, frame

    def _heard(self, frame: Accept | Refuse | Data | Part | Credit | Close | Abort) -> SubChannel:
        """Return the channel of a received frame, after checking that the frame is legal."""
        channel = self._channels.get(-frame.id)
        if channel is None:
            raise RemoteProtocolError(
                f"{type(frame).__name__} for channel {frame.id}, which is not open"
            )
        then = _NEXT.get((channel.theirs, type(frame)))
        if then is None:
            raise RemoteProtocolError(
                f"{type(frame).__name__} for channel {frame.id}: its sender {channel.theirs.value}"
            )
        channel.theirs = then
        return channel


def _is_over(channel: SubChannel) -> bool:
    return channel.ours is not Half.TALKING or channel.theirs is Half.DONE
