"""What one end of a session lets the other end cost it.

Limits belong to the receiver: each end announces its own in Hello, and the other end keeps to
them before it sends. Each field says what it protects.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["DEFAULT_LIMITS", "MIN_PACKET", "Limits"]

KIB = 1024
MIB = 1024 * KIB
MIN_PACKET = 16 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of one session, all on the receiver's side (law 12).

    Sizes are bytes, times are seconds. Raises ValueError for a value that is not positive or
    that contradicts another.
    """

    max_message: int = 16 * MIB
    """One message, whole: what a single call can make this end hold."""

    max_packet: int = 256 * KIB
    """One packet: larger messages travel in pieces, so a small one waits for this much at most."""

    max_depth: int = 64
    """Arrays, maps and extensions inside each other: what a recursive reader may be made to stack."""

    max_nodes: int = 250_000
    """Values in one message, an extension counting as four: one byte can decode to 73, so a size alone does
    not bound memory; and to read a message of so many, whatever they are, takes less than 0.2 s."""

    max_calls: int = 1024
    """Calls of the peer at once, from their Request until their Reply has left."""

    max_notifications: int = 1024
    """Notifications of the peer at once, from their arrival until their handler has ended."""

    max_call_depth: int = 64
    """Calls made inside each other through any number of programs: a loop of them ends here."""

    stream_items: int = 1024
    """Items of one stream that may wait here for their consumer."""

    stream_bytes: int = MIB
    """Bytes of them; the last item may go beyond, so that any that is a legal message can come."""

    send_buffer: int = 4 * MIB
    """Bytes queued for sending above which new calls wait, and streams pause, for the writer."""

    max_unsent: int = 32 * MIB
    """Bytes queued for sending above which no further handler begins: what a peer that reads
    nothing can make this end hold of its answers."""

    max_unsent_total: int = 256 * MIB
    """The same for all sessions of one server together, so that many peers cannot add up."""

    max_channels: int = 256
    """Forwarded channels of the peer at once; each may have 4 packets waiting for its receiver."""

    handshake_timeout: float = 10.0
    """From an open channel to an open session: what a peer that says nothing can hold."""

    packet_timeout: float = 30.0
    """From the first to the last byte of one packet: what a peer that drips bytes can hold."""

    keepalive_interval: float = 15.0
    """Silence after which a Ping is sent; shorter than what common proxies cut after."""

    keepalive_pings: int = 3
    """Pings in a row without any answering byte after which the peer counts as dead."""

    cancel_grace: float = 30.0
    """How long a cancelled caller waits for the word that its handler has ended (law 2)."""

    close_grace: float = 5.0
    """How long a graceful close waits for calls that are still running."""

    shutdown_timeout: float = 1.0
    """How long a forceful close may take to get the last messages out."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"Limits.{field.name} must be positive")
        for name in _WHOLE:
            value = getattr(self, name)
            if type(value) is not int or value > 2**53 - 1:
                raise ValueError(f"Limits.{name} must be an integer of at most 2**53 - 1")
        if self.max_packet < MIN_PACKET:
            raise ValueError(f"Limits.max_packet must be at least {MIN_PACKET}: a Hello has to fit")
        if self.max_message < self.max_packet:
            raise ValueError("Limits.max_message must not be less than Limits.max_packet")


# What is said to the peer, which may be written in a language whose numbers end there.
_WHOLE = (
    "max_message",
    "max_packet",
    "max_depth",
    "max_nodes",
    "max_calls",
    "max_notifications",
    "stream_items",
    "stream_bytes",
)

DEFAULT_LIMITS = Limits()
