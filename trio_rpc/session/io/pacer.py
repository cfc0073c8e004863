"""The pacer bounds the pieces of a large message in transit, so that small messages can overtake.

Small messages overtake large ones only in our queue. Bytes that the channel has taken wait in the
system's buffers, which can hold tens of megabytes, and before the peer's reader. So while other
calls are in flight, pieces leave in batches. A Ping follows each batch, and the next batch waits
for its Pong.

The size of a batch adapts to the path. It doubles while the Pong takes less than twice the shortest
time so far, and halves when it takes longer. So a near peer has a fraction of a megabyte in
transit, and a distant one as much as its link can hold. A small message is delayed by about as much
as it takes anyway.
"""

from __future__ import annotations

import math

from trio_rpc.protocol.protocol import Protocol

__all__ = ["Pacer"]

LEAST, MOST = 64 * 1024, 16 * 1024 * 1024
"""Bytes of a batch: at least one piece, at most an amount that does not slow a large message."""


class Pacer:
    """Sets the size of batches, from the times that their Pongs take.

    Args:
        protocol: holds the pieces.
    """

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._batch = LEAST
        self._shortest = math.inf
        self._since = 0.0

    def sent(self, now: float) -> None:
        """Record that a batch and its Ping have left."""
        self._since = now

    def answered(self, now: float) -> None:
        """Allow the next batch, since the Pong has arrived."""
        seconds = now - self._since
        self._shortest = min(self._shortest, seconds)
        if seconds <= 2 * self._shortest:
            self._batch = min(2 * self._batch, MOST)
        else:
            self._batch = max(self._batch // 2, LEAST)
        self._protocol.allow_pieces(self._batch)
