"""Notices that the other end does not answer while calls wait for it, and that it answers again."""

from __future__ import annotations

import logging
import math
from typing import Final

import trio

from trio_rpc.protocol.protocol import Protocol
from trio_rpc.session.calls.outgoing import OutgoingCalls
from trio_rpc.session.io.writer import Writer
from trio_rpc.util.rate_limited_log import RateLimitedLog
from trio_rpc.util.time_limits import was_blocked

__all__ = ["Answers"]

SLICES: Final = 4
"""The number of looks within ``Options.unresponsive_after`` seconds."""


class Answers:
    """Watches for answers from the other end, while calls wait for it.

    1. If nothing has arrived since the last look while calls wait, send a Ping. So a handler that
       takes long does not count, since the other end still answers the Ping.
    2. Any packet is an answer. If the other end takes a part of the waiting packet, that is
       also one, because the Ping cannot overtake that packet.
    3. If this end was blocked meanwhile, an answer may be unread: start again.
    4. After enough looks without an answer the other end is unresponsive, until something arrives.

    Args:
        channel: the channel.
        protocol: the queue.
        outgoing: the calls that wait.
        writer: writes the Ping.
        after: seconds without an answer.
        complaints: logs that the other end is unresponsive, or answers again.
        name: the name of the other end.
    """

    def __init__(
        self,
        channel: trio.abc.Channel[bytes],
        protocol: Protocol,
        outgoing: OutgoingCalls,
        writer: Writer,
        *,
        after: float,
        complaints: RateLimitedLog,
        name: str,
    ) -> None:
        self._channel = channel
        self._protocol = protocol
        self._outgoing = outgoing
        self._writer = writer
        self._after = after
        self._complaints = complaints
        self._name = name
        self.is_missing = False
        """Whether the other end is unresponsive."""
        self.next_look = math.inf
        self._heard: object = None
        self._is_asked = False
        self._looks = 0
        self._changed = trio.Event()

    def begin(self) -> None:
        """Begin to watch, since the session is open."""
        self.next_look = trio.current_time() + self._after / SLICES

    def look(self) -> None:
        """Check whether the other end has answered since the last look."""
        is_late = was_blocked(self.next_look, self._after / SLICES)
        self.begin()
        heard = (
            self._protocol.counters.packets_received,
            getattr(self._channel, "heard", None),
            getattr(self._channel, "taken", None) if self._writer.is_writing else None,
        )
        if heard != self._heard:
            self._heard, self._is_asked, self._looks = heard, False, 0
            if self.is_missing:
                self._change("%s answers again", self._name)
        elif is_late or not self._outgoing.calls:
            self._looks = 0
        elif not self._is_asked:
            self._is_asked = True
            self._protocol.ping()
            self._writer.write_now()
        else:
            self._looks += 1
            if self._looks == SLICES and not self.is_missing:
                text = "%s has not answered for %g s; calls that wait for it: %d"
                self._change(text, self._name, self._after, len(self._outgoing.calls))

    def _change(self, text: str, *args: object) -> None:
        self.is_missing = not self.is_missing
        self._complaints.log(logging.WARNING, text, *args)
        self._changed.set()
        self._changed = trio.Event()

    async def wait_changed(self) -> None:
        """Wait until the other end becomes unresponsive, or answers again."""
        await self._changed.wait()
