"""Joins two channels: what comes from one goes to the other, and nobody looks at it."""

from __future__ import annotations

from typing import Protocol, TypeAlias, runtime_checkable

import trio

from trio_rpc.channels.connection import close_forcefully
from trio_rpc.channels.errors import CHANNEL_ERRORS
from trio_rpc.errors import DecodeError
from trio_rpc.util.one_exception import one_exception
from trio_rpc.wire.limits import DEFAULT_LIMITS, Limits

__all__ = ["relay"]

_Channel: TypeAlias = trio.abc.Channel[bytes]
_BREAKS = (*CHANNEL_ERRORS, DecodeError)


@runtime_checkable
class _Aborts(Protocol):
    """What a channel offers for which closing forcefully looks like an orderly end."""

    def abort(self) -> None: ...


async def relay(
    a: _Channel,
    b: _Channel,
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> None:
    """Pass packets on between two channels, both ways, until either is over; then close both.

    Packets go through as they are, one at a time each way: a side that does not receive makes the
    other wait. Both channels have to take packets as large as the programs at their far ends send.

    When one channel has ended in an orderly way, so does the other, behind the last packet. When one breaks, or the
    relay is cancelled, the other breaks, too. Either way this returns when both are closed, and
    raises nothing for their ends.

    Args:
        a: one channel, which this then owns.
        b: the other one, likewise.
        limits: ``close_grace`` bounds how long an orderly end may take.
    """
    # What each pump returns: True for an orderly end, False for a break.
    orderly = False
    try:
        with one_exception():
            async with trio.open_nursery() as nursery:

                async def run(source: _Channel, sink: _Channel) -> None:
                    nonlocal orderly
                    end = await _pump(source, sink)
                    if end is not None:
                        orderly = end
                        nursery.cancel_scope.cancel(reason="a channel of the relay is over")

                nursery.start_soon(run, a, b, name="trio_rpc relay")
                nursery.start_soon(run, b, a, name="trio_rpc relay")
        if orderly:
            with trio.move_on_after(limits.close_grace):
                await a.aclose()
                await b.aclose()
    finally:
        for channel in (a, b):
            if not orderly and isinstance(channel, _Aborts):
                channel.abort()
            await close_forcefully(channel)


async def _pump(source: _Channel, sink: _Channel) -> bool | None:
    """Pass packets on until ``source`` is over; tell whether its end was orderly.

    None: ``sink`` takes no more. How it has ended, and what it has sent before, the other direction
    finds out.
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
