"""What a channel may offer besides sending and receiving; docs/channels.md says what each is for.

Whether it does is asked by name: ``isinstance`` with a runtime protocol takes thirty times as long, and a server
asks for each connection.
"""

from __future__ import annotations

from typing import Protocol, cast

__all__ = [
    "Lingers",
    "NowaitClose",
    "NowaitSend",
    "Reconnectable",
    "StoppableReceive",
    "lingers",
    "nowait_close",
    "nowait_send",
    "renews",
    "stoppable_receive",
]


class NowaitSend(Protocol):
    """To take a packet over without waiting."""

    def send_nowait(self, value: bytes) -> bool:
        """Take the packet over and return True, or do nothing."""

    async def flush(self) -> None:
        """Send what is left of packets that were taken over."""

    @property
    def unsent(self) -> int:
        """Bytes that are left of them."""


class StoppableReceive(Protocol):
    """To end a receive() that waits in a task of somebody else."""

    def stop_receiving(self) -> None:
        """Have that receive() raise ``trio.ClosedResourceError``."""


class NowaitClose(Protocol):
    """To be closed without waiting, where that is possible."""

    def close_nowait(self) -> bool:
        """Close and return True, or do nothing, if closing has to wait."""


class Lingers(Protocol):
    """To end so that a peer that is still sending can read what was sent to it."""

    async def linger(self) -> None:
        """Send the end, and drop what comes until the peer's; closing is still needed. The caller bounds the time."""


class Reconnectable(Protocol):
    """To do without a connection that seems to be dead."""

    def renew(self) -> bool:
        """Give the connection up for another one, and return True, or do nothing."""


def nowait_send(channel: object) -> NowaitSend | None:
    """Return the channel if it is a :class:`NowaitSend`."""
    has_all = all(hasattr(channel, name) for name in ("send_nowait", "flush", "unsent"))
    return cast("NowaitSend", channel) if has_all else None


def stoppable_receive(channel: object) -> StoppableReceive | None:
    """Return the channel if it is a :class:`StoppableReceive`."""
    return cast("StoppableReceive", channel) if hasattr(channel, "stop_receiving") else None


def nowait_close(channel: object) -> NowaitClose | None:
    """Return the channel if it is a :class:`NowaitClose`."""
    return cast("NowaitClose", channel) if hasattr(channel, "close_nowait") else None


def lingers(channel: object) -> Lingers | None:
    """Return the channel if it is a :class:`Lingers`."""
    return cast("Lingers", channel) if hasattr(channel, "linger") else None


def renews(channel: object) -> Reconnectable | None:
    """Return the channel if it is a :class:`Reconnectable`."""
    return cast("Reconnectable", channel) if hasattr(channel, "renew") else None
