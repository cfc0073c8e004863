"""Optional features of a channel beyond send and receive; docs/channels.md says why they exist.

A feature is found by the names of its methods: ``isinstance`` with a runtime protocol takes thirty
times as long, and a server checks each connection.
"""

from __future__ import annotations

from typing import Protocol, cast

from trio_rpc.util.unsent_budget import UnsentShare

__all__ = [
    "Keeps",
    "Lingers",
    "NowaitClose",
    "NowaitSend",
    "Reconnectable",
    "StoppableReceive",
    "ToProcess",
    "keeps",
    "lingers",
    "nowait_close",
    "nowait_send",
    "renews",
    "stoppable_receive",
    "to_process",
]


class NowaitSend(Protocol):
    """A channel that can take a packet without waiting."""

    def send_nowait(self, value: bytes) -> bool:
        """Accept the packet and return True, or do nothing and return False."""

    async def flush(self) -> None:
        """Send the rest of the packets that were taken."""

    @property
    def unsent(self) -> int:
        """Bytes of the taken packets that have not been sent."""


class StoppableReceive(Protocol):
    """A channel on which one task can end the receive() that another task waits in."""

    def stop_receiving(self) -> None:
        """Make a waiting receive() raise ``trio.ClosedResourceError``."""


class NowaitClose(Protocol):
    """A channel that can sometimes close without waiting."""

    def close_nowait(self) -> bool:
        """Close and return True, or do nothing and return False if closing has to wait."""


class Lingers(Protocol):
    """A channel that can end so that a peer that is still sending can read its last packets."""

    async def linger(self) -> None:
        """Send the end, and drop incoming data until the peer's end.

        The channel must still be closed afterwards. The caller bounds the time.
        """


class Keeps(Protocol):
    """A channel that keeps packets, to send them again over another connection."""

    def keep_within(self, share: UnsentShare) -> None:
        """Count the kept bytes in that share, and keep few while its budget is full."""


class ToProcess(Protocol):
    """A channel to a process that this program has started."""

    @property
    def pid(self) -> int:
        """The id of the process."""

    @property
    def returncode(self) -> int | None:
        """Its exit status, as :mod:`subprocess` has it; None while it runs."""


class Reconnectable(Protocol):
    """A channel that can replace a connection that seems to be dead."""

    def renew(self) -> bool:
        """Drop the connection and return True, or return False if there can be no other one."""


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


def keeps(channel: object) -> Keeps | None:
    """Return the channel if it is a :class:`Keeps`."""
    return cast("Keeps", channel) if hasattr(channel, "keep_within") else None


def to_process(channel: object) -> ToProcess | None:
    """Return the channel if it is a :class:`ToProcess`."""
    has_both = all(hasattr(channel, name) for name in ("pid", "returncode"))
    return cast("ToProcess", channel) if has_both else None


def renews(channel: object) -> Reconnectable | None:
    """Return the channel if it is a :class:`Reconnectable`."""
    return cast("Reconnectable", channel) if hasattr(channel, "renew") else None
