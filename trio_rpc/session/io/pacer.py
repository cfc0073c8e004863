"""How much of a large message may be under way while small ones want to pass it.

Small messages pass large ones in our queue, and nowhere else: what has been handed to the channel waits in the
system's buffers, of which there can be tens of megabytes, and in front of the other end's reader. So while other
calls are in flight, pieces leave in batches. A Ping follows each, and the next one waits for its Pong.

The batch adapts to the path, without knowing it: it doubles while the answer takes less than twice the
shortest time that one has taken, and is halved when it takes longer. So a near peer has a fraction of a
megabyte under way and a far one has what its link can hold, and a small message is late by about as much as it
takes anyway.
"""

from __future__ import annotations

import math

from trio_rpc.protocol.protocol import Protocol

__all__ = ["Pacer"]

LEAST, MOST = 64 * 1024, 16 * 1024 * 1024
"""Bytes of a batch. The least is one piece; the most is what nobody notices beside a message of this size."""


class Pacer:
    """Decides on the size of batches, from the times that their Pongs take.

    Args:
        protocol: where pieces wait.
    """

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._batch = LEAST
        self._shortest = math.inf
        self._since = 0.0

    def sent(self, now: float) -> None:
        """A batch has left, and a Ping after it."""
        self._since = now

    def answered(self, now: float) -> None:
        """Its Pong has come: let the next batch go."""
        seconds = now - self._since
        self._shortest = min(self._shortest, seconds)
        if seconds <= 2 * self._shortest:
            self._batch = min(2 * self._batch, MOST)
        else:
            self._batch = max(self._batch // 2, LEAST)
        self._protocol.allow_pieces(self._batch)
