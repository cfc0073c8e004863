"""Traces that print: one line for each step, and one line for each message."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final, TypeVar

from trio_rpc.tracing.events import STEPS, Trace, TraceEvent, WireEvent

__all__ = ["WireLog", "all_of", "format_event", "format_message", "print_trace", "shown"]

E = TypeVar("E")

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
    """Return a trace that passes each event to each of ``traces``.

    If one of them raises, the others still get the same event.

    Args:
        *traces: functions, which may also have ``on_message``.

    Raises:
        TypeError: one of them cannot be called.

    Example:
        >>> both = trio_rpc.tracing.all_of(
        ...     trio_rpc.tracing.print_trace, trio_rpc.tracing.WireLog()
        ... )
    """
    for each in traces:
        if not callable(each):
            raise TypeError(f"a trace must be a function, not {each!r:.200}")
    plain: list[Callable[[WireEvent], None]] = []
    with_payloads: list[Callable[[WireEvent], None]] = []
    for each in traces:
        on_message = getattr(each, "on_message", None)
        if on_message is not None:
            (with_payloads if getattr(each, "payloads", False) else plain).append(on_message)
    if not plain and not with_payloads:
        return _Several(traces)
    return _SeveralWithMessages(traces, plain, with_payloads)


class _Several:
    def __init__(self, traces: tuple[Trace, ...]) -> None:
        self._traces = traces

    def __call__(self, event: TraceEvent) -> None:
        _pass_to_each(self._traces, event)


class _SeveralWithMessages(_Several):
    def __init__(
        self,
        traces: tuple[Trace, ...],
        plain: list[Callable[[WireEvent], None]],
        with_payloads: list[Callable[[WireEvent], None]],
    ) -> None:
        super().__init__(traces)
        self.payloads = bool(with_payloads)
        self._plain = [_without_payload(each) for each in plain] if with_payloads else plain
        self._with_payloads = with_payloads

    def on_message(self, event: WireEvent) -> None:
        _pass_to_each([*self._plain, *self._with_payloads], event)


def _without_payload(on_message: Callable[[WireEvent], None]) -> Callable[[WireEvent], None]:
    """Return a listener that does not get the users' data, which it has not asked for."""
    return lambda event: on_message(replace(event, payload=b""))


def _pass_to_each(functions: Iterable[Callable[[E], None]], event: E) -> None:
    """Call all functions, and then raise the first error."""
    errors: list[Exception] = []
    for function in functions:
        try:
            function(event)
        except Exception as exc:  # noqa: BLE001 - raised below, for the tracer to log
            errors.append(exc)
    if errors:
        raise errors[0]


def _print(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _clock(when: float) -> str:
    return f"{time.strftime('%H:%M:%S', time.localtime(when))}.{int(when % 1 * 1e6):06}"


def shown(text: str) -> str:
    """Return a text on one line, without control characters: the other end may have chosen it."""
    text = text if len(text) <= MOST else text[: MOST - 3] + "..."
    return text if text.isprintable() else ascii(text)[1:-1]
