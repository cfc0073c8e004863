"""Limits on the memory and the work that a peer can cause at this end.

Limits belong to the receiver: each end states its own in Hello, and the other end respects them
before it sends. Each field names the resource that it protects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

__all__ = ["DEFAULT_LIMITS", "DEFAULT_SERVER_LIMITS", "MIN_PACKET", "Limits", "ServerLimits"]

KIB = 1024
MIB = 1024 * KIB
MIN_PACKET = 16 * KIB


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Limits:
    """The bounds of one session, all on the receiver's side (law 12).

    Sizes are bytes, times are seconds.

    Raises:
        ValueError: a value is not positive, is not an integer where it must be, or contradicts
            another.

    Example:
        >>> small = trio_rpc.Limits(max_message=1024 * 1024, max_calls=16, close_grace=30)
    """

    max_message: int = 16 * MIB
    """Bytes of one message: the most memory that a single call can use at this end."""

    max_packet: int = 256 * KIB
    """Bytes of one packet. Larger messages travel in pieces, so small ones wait for one packet."""

    max_depth: int = 64
    """Levels of nested arrays, maps and extensions: the stack that a recursive reader needs."""

    max_nodes: int = 250_000
    """Values in one message, where an extension counts as four. One byte can decode to 73 bytes, so
    a size alone does not bound memory. This also bounds the time to read a message, and the time to
    convert it to the annotated types: see docs/guarantees.md."""

    max_calls: int = 1024
    """The peer's calls at once, from the Request until the Reply has left."""

    max_notifications: int = 1024
    """The peer's notifications at once, from arrival until the handler has ended."""

    max_call_depth: int = 64
    """Calls nested through any number of programs: an endless loop of calls ends here."""

    max_waiting_calls: int = 64
    """The most calls and notifications of the peer that wait for services (``wait_for_service``).
    Each holds its arguments. Further ones are refused at once."""

    stream_items: int = 1024
    """Items of one stream that may be buffered for their consumer."""

    stream_bytes: int = MIB
    """Bytes of buffered items. The last one may exceed it, so that any legal message can arrive."""

    send_buffer: int = 4 * MIB
    """Bytes queued for sending above which new calls and streams wait for the writer."""

    max_unsent: int = 32 * MIB
    """Bytes queued for sending above which no further handler begins. It bounds the answers that
    this end holds for a peer that does not read."""

    max_unsent_total: int = 256 * MIB
    """Bytes that all sessions of one server together hold for their peers: queued, waiting for the
    system, or kept by resumable sessions to be sent again. Above it, sessions with queued data stop
    as they do at ``send_buffer`` and ``max_unsent``, results are dropped, and the disconnected
    sessions that hold most are ended. All sessions of a Trio run without a server also share it."""

    max_channels: int = 256
    """The peer's forwarded channels at once; each buffers at most 4 packets for its receiver."""

    handshake_timeout: float = 10.0
    """Seconds from an open channel to an open session, against a peer that says nothing."""

    packet_timeout: float = 30.0
    """Seconds from the first to the last byte of a packet, against a peer that drips bytes."""

    keepalive_interval: float = 15.0
    """Seconds of silence after which a Ping is sent; common proxies cut idle connections later."""

    keepalive_pings: int = 3
    """Unanswered Pings in a row after which the peer counts as dead."""

    cancel_grace: float = 30.0
    """Seconds that a cancelled caller waits for its handler to end (law 2)."""

    close_grace: float = 5.0
    """Seconds that a graceful close waits for running calls."""

    shutdown_timeout: float = 1.0
    """Seconds that handlers and the last messages get when a session ends."""

    def __repr__(self) -> str:
        """Show the fields that differ from the defaults."""
        return _changed(self)

    def __post_init__(self) -> None:
        _check(self, _WHOLE)
        if self.max_packet < MIN_PACKET:
            raise ValueError(f"Limits.max_packet must be at least {MIN_PACKET}: a Hello has to fit")
        if self.max_message < self.max_packet:
            raise ValueError("Limits.max_message must not be less than Limits.max_packet")


# The fields that Hello states. The peer's language may not have larger integers.
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


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ServerLimits:
    """The bounds of one server, for all its clients together (law 12).

    Times are seconds. ``Limits`` has the bounds of each session, and ``max_unsent_total``, which
    also holds for all sessions of a server.

    Raises:
        ValueError: a value is not positive, or is not an integer where it must be.

    Example:
        >>> small = trio_rpc.ServerLimits(max_sessions=100, max_sessions_per_address=10)
    """

    max_sessions: int = 10_000
    """Sessions at once, including sessions that still open: each costs a file descriptor, and
    memory for its queues. Further clients get ``Refused`` with ``retry_after``."""

    max_sessions_per_address: int = 10_000
    """Sessions at once from one IP address, or one IPv6 network of 64 bits, so that one host cannot
    take all places. Behind a proxy all clients have the proxy's address. Refused as above."""

    max_handshakes: int = 1000
    """Connections whose handshakes are not finished. For one more, the oldest gives up its place,
    so that silent clients do not keep others out."""

    accept_rate: float = math.inf
    """Connections accepted in a second, against the work of many handshakes when all clients of a
    server reconnect at once. The others wait in the system's queue."""

    max_handlers: int = 10_000
    """Handlers at once, which have begun and not ended, in all sessions together. Further calls
    wait. A server that shares a scarce resource sets a number that the resource can bear."""

    max_queued: int = 20_000
    """Calls that wait, in all sessions together: each holds its arguments. Further ones get
    ``Overloaded`` with ``retry_after``, and so do calls that would wait for more than half of the
    time until their deadline."""

    retry_after: float = 1.0
    """Seconds until a refused client, or call, may try again. Clients should add a random time."""

    def __repr__(self) -> str:
        """Show the fields that differ from the defaults."""
        return _changed(self)

    def __post_init__(self) -> None:
        _check(self, _WHOLE_OF_SERVER)


_WHOLE_OF_SERVER = (
    "max_sessions",
    "max_sessions_per_address",
    "max_handshakes",
    "max_handlers",
    "max_queued",
)


def _changed(limits: Limits | ServerLimits) -> str:
    values = [(field, getattr(limits, field.name)) for field in fields(limits)]
    changed = [f"{field.name}={value!r}" for field, value in values if value != field.default]
    return f"{type(limits).__name__}({', '.join(changed)})"


def _check(limits: Limits | ServerLimits, whole: tuple[str, ...]) -> None:
    kind = type(limits).__name__
    for field in fields(limits):
        if not getattr(limits, field.name) > 0:
            raise ValueError(f"{kind}.{field.name} must be positive")
    for name in whole:
        value = getattr(limits, name)
        if type(value) is not int or value > 2**53 - 1:
            raise ValueError(f"{kind}.{name} must be an integer of at most 2**53 - 1")


DEFAULT_LIMITS = Limits()
"""The limits of sessions and channels by default."""

DEFAULT_SERVER_LIMITS = ServerLimits()
"""The limits of servers by default."""
