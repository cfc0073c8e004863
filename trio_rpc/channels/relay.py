"""The relay, which passes packets between two channels without looking at them."""

from __future__ import annotations

from typing import Protocol, TypeAlias, runtime_checkable

import trio

from trio_rpc.channels.connection import close_forcefully, linger_for
from trio_rpc.channels.errors import CHANNEL_ERRORS
from trio_rpc.errors import DecodeError
from trio_rpc.util.one_exception import one_exception
from trio_rpc.wire.limits import DEFAULT_LIMITS, Limits

__all__ = ["relay"]

_Channel: TypeAlias = trio.abc.Channel[bytes]
_BREAKS = (*CHANNEL_ERRORS, DecodeError)


@runtime_checkable
class _Aborts(Protocol):
    """A channel that needs ``abort`` because a forceful close looks like an orderly end."""

    def abort(self) -> None: ...


async def relay(
    a: _Channel,
    b: _Channel,
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> None:
    """Pass packets between two channels in both directions until one ends, then close both.

    Packets pass unchanged, one at a time in each direction, so a side that does not receive makes
    the other side wait. Both channels must accept packets as large as the programs at their far
    ends send.

    When one channel ends in an orderly way, the other one also does, after the last packet. When
    one channel breaks, or the relay is cancelled, the other one also breaks. In both cases this
    returns when both channels are closed, and does not raise an error for their ends.

    Args:
        a: one channel, which the relay then owns.
        b: the other channel, which the relay then owns.
        limits: ``close_grace`` bounds how long an orderly end may take, and ``shutdown_timeout``
            how long a peer that still sends may read the last packets.
    """
    # The result of the first pump that ends: True for an orderly end, False for a break.
    orderly = False
    try:
        with one_exception():
            async with trio.open_nursery() as nursery:

                async def run(source: _Channel, sink: _Channel) -> None:
                    nonlocal orderly
                    end = await _pump(source, sink)
                    if end is not None:
                        orderly = end
                        nursery.cancel_scope.cancel(reason="a channel of the relay has ended")

                nursery.start_soon(run, a, b, name="trio_rpc relay")
                nursery.start_soon(run, b, a, name="trio_rpc relay")
        if orderly:
            with trio.move_on_after(limits.close_grace):
                await _close(a, limits)
                await _close(b, limits)
    finally:
        for channel in (a, b):
            if not orderly and isinstance(channel, _Aborts):
                channel.abort()
            await close_forcefully(channel)


async def _close(channel: _Channel, limits: Limits) -> None:
    """Close a channel. If its peer still sends, let it read the last packets first."""
    await linger_for(channel, limits.shutdown_timeout)
    await channel.aclose()


async def _pump(source: _Channel, sink: _Channel) -> bool | None:
    """Pass packets on until ``source`` ends; return whether its end was orderly.

    Return None if ``sink`` accepts no more packets. The other direction then receives the last
    packets from ``sink``, and finds out how it ended.
    """
    try:
        while True:
            packet = await source.receive()
            try:
                await sink.send(packet)
            except _BREAKS:
                return None
    except trio.EndOfChannel:
        return True
    except _BREAKS:
        return False
