"""The command ``serve``: listen until a signal arrives, then let calls in flight end."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import trio

from trio_rpc.cli.exits import OutputFailed
from trio_rpc.cli.listening import ServeOptions, listening
from trio_rpc.cli.output import Output
from trio_rpc.cli.terminal import plural, safe

__all__ = ["serve"]

END_OF_INPUT = "the end of standard input"


async def serve(services: object, options: ServeOptions, output: Output) -> int:
    """Serve until a signal arrives, or until standard input ends if that was requested.

    Returns the exit code: 0, or 128 plus its number for a second signal. A signal after the drain
    kills the process: a handler that shields itself from cancellation could keep it for ever.
    """
    signals = [signal.SIGINT, signal.SIGTERM]
    with trio.open_signal_receiver(*signals) as received:
        async with listening(services, options) as server:
            _tell(output, "listening", urls=server.urls)
            async with trio.open_nursery() as nursery:
                stops = _Stops(nursery)
                nursery.start_soon(stops.watch_signals, received)
                if options.until_stdin_closes:
                    nursery.start_soon(stops.watch_input)
                await stops.first.wait()
                with contextlib.suppress(OutputFailed):  # it must not end the calls in flight
                    _tell(
                        output,
                        "draining",
                        cause=stops.cause,
                        grace=options.grace,
                        sessions=server.sessions,
                    )
                await server.drain(options.grace)
                nursery.cancel_scope.cancel()
            for number in signals:  # the end of ``received`` restores their handlers
                signal.signal(number, signal.SIG_DFL)
            with contextlib.suppress(OutputFailed):
                _tell(output, "stopped", at_once=stops.again != 0)
    return 128 + stops.again if stops.again else 0


class _Stops:
    """Handles reasons to stop: the first one starts the drain, a later signal ends it.

    Args:
        nursery: the nursery that the drain runs in.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.first = trio.Event()
        self.cause = ""
        self.again = 0

    async def watch_signals(self, received: AsyncIterator[int]) -> None:
        async for number in received:
            if self.first.is_set():
                self.again = number
                self._nursery.cancel_scope.cancel(reason="a second signal")
            self._stop(signal.Signals(number).name)

    async def watch_input(self) -> None:
        # os.read runs in a daemon thread of Trio, for which nothing waits at exit. It does not read
        # from a buffered object, whose lock it would still hold then.
        while await trio.to_thread.run_sync(os.read, 0, 4096, abandon_on_cancel=True):
            pass
        self._stop(END_OF_INPUT)

    def _stop(self, cause: str) -> None:
        if not self.first.is_set():
            self.cause = cause
            self.first.set()


def _tell(output: Output, event: str, **facts: Any) -> None:
    if output.as_json:
        output.json({"event": event, **facts})
    else:
        for line in _LINES[event](facts):
            output.line(line)


def _listening_lines(facts: dict[str, Any]) -> list[str]:
    return [f"listening at {url}" for url in facts["urls"]]


def _draining_lines(facts: dict[str, Any]) -> list[str]:
    sessions = plural(facts["sessions"], "session")
    grace = f"up to {facts['grace']:g} s for the calls in flight"
    return [f"{facts['cause']}: draining {sessions}, {grace}; a signal now stops at once"]


def _stopped_lines(facts: dict[str, Any]) -> list[str]:
    return ["stopped at once" if facts["at_once"] else "stopped"]


_LINES: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "listening": _listening_lines,
    "draining": _draining_lines,
    "stopped": _stopped_lines,
}


class EscapingFormatter(logging.Formatter):
    """Log lines may quote the other end: control characters do not reach the terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Format the message on one line."""
        return safe(super().formatMessage(record), 1000)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        """Format the traceback, line by line."""
        return "\n".join(safe(line, 1000) for line in super().formatException(ei).splitlines())


@contextlib.contextmanager
def logging_to_stderr(*, verbose: bool, access: bool = False) -> Iterator[None]:
    """Write the library's log to standard error during the block.

    Args:
        verbose: whether to also write events that are normal in a network.
        access: whether to also write the access log.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(EscapingFormatter("%(asctime)s %(levelname)s %(message)s"))
    log, access_log = logging.getLogger("trio_rpc"), logging.getLogger("trio_rpc.access")
    levels = log.level, access_log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO if verbose else logging.WARNING)
    if access:
        access_log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(levels[0])
        access_log.setLevel(levels[1])
