"""Traces that print: one line for each step, and one line for each message."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final

from trio_rpc.tracing.events import STEPS, Trace, TraceEvent, WireEvent

__all__ = ["WireLog", "all_of", "format_event", "format_message", "print_trace", "shown"]

MOST: Final = 60
"""Characters of a name that are shown: the other end may choose long ones."""

SHOWN_PAYLOAD: Final = 64
"""Bytes of a message that are shown, if payloads are."""


def print_trace(event: TraceEvent) -> None:
    """Print one step as a line on standard error: ``connect(url, trace=print_trace)``.

    Args:
        event: the step.
    """
    _print(format_event(event))


def format_event(event: TraceEvent) -> str:
    """Return the line that :func:`print_trace` prints.

    Args:
        event: the step.
    """
    direction = "in " if event.is_incoming else "out"
    which = f"({event.number})" if event.call is None else str(event.call)
    size = f"{event.size:,} B" if event.size else ""
    return (
        f"{_clock(event.time)} {shown(event.session)} {direction} {which:>5} "
        f"{shown(event.method):20} {event.step:2} {STEPS[event.step]:21} {size:>9} "
        f"{shown(event.state)}"
    ).rstrip()


def format_message(event: WireEvent) -> str:
    """Return the line that a :class:`WireLog` writes.

    Args:
        event: the message.
    """
    direction = ">" if event.is_sent else "<"
    which = "" if event.call is None else str(event.call)
    line = (
        f"{_clock(event.time)} {shown(event.session)} {direction} {event.size:>9,} B "
        f"{event.message:12} {which:>5} {shown(event.method)}"
    ).rstrip()
    if event.payload:
        more = "..." if len(event.payload) > SHOWN_PAYLOAD else ""
        line += f"  {event.payload[:SHOWN_PAYLOAD].hex()}{more}"
    return line


class WireLog:
    """A trace that writes a line for each message: direction, size, type, id and method.

    ``>`` marks a message that left, ``<`` one that arrived. Large messages leave in pieces; the
    line of the whole message follows that of its last piece.

    Args:
        write: gets each line; by default it is printed on standard error.
        payloads: also show the first bytes of each message, in hexadecimal. They are the users'
            data.

    Example:
        >>> async def watch(url: str) -> None:
        ...     async with trio_rpc.connect(url, trace=trio_rpc.tracing.WireLog()) as session:
        ...         await session.call("market.price", "BTC")
    """

    def __init__(
        self, write: Callable[[str], object] | None = None, *, payloads: bool = False
    ) -> None:
        self.payloads = payloads
        self._write = _print if write is None else write

    def __call__(self, event: TraceEvent) -> None:
        """Ignore the steps of calls."""

    def on_message(self, event: WireEvent) -> None:
        """Write the line of a message.

        Args:
            event: the message.
        """
        self._write(format_message(event))


def all_of(*traces: Trace) -> Trace:
    """Return a trace that passes what it gets to each of ``traces``, in this order.

    Args:
        *traces: functions, or objects with ``on_message``.

    Example:
        >>> both = trio_rpc.tracing.all_of(
        ...     trio_rpc.tracing.print_trace, trio_rpc.tracing.WireLog()
        ... )
    """
    listeners = [getattr(each, "on_message", None) for each in traces]
    if not any(listeners):
        return _Several(traces)
    payloads = any(getattr(each, "payloads", False) for each in traces)
    return _SeveralWithMessages(traces, [each for each in listeners if each], payloads=payloads)


class _Several:
    def __init__(self, traces: tuple[Trace, ...]) -> None:
        self._traces = traces

    def __call__(self, event: TraceEvent) -> None:
        for each in self._traces:
            each(event)


class _SeveralWithMessages(_Several):
    def __init__(
        self,
        traces: tuple[Trace, ...],
        listeners: list[Callable[[WireEvent], None]],
        *,
        payloads: bool,
    ) -> None:
        super().__init__(traces)
        self._listeners = listeners
        self.payloads = payloads

    def on_message(self, event: WireEvent) -> None:
        for each in self._listeners:
            each(event)


def _print(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _clock(when: float) -> str:
    return f"{time.strftime('%H:%M:%S', time.localtime(when))}.{int(when % 1 * 1e6):06}"


def shown(text: str) -> str:
    """Return a text on one line, without control characters: the other end may have chosen it."""
    text = text if len(text) <= MOST else text[: MOST - 3] + "..."
    return text if text.isprintable() else ascii(text)[1:-1]
