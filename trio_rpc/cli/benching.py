"""The command ``bench``: many calls of one method, and how long they took."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from trio_rpc.cli.calling import failing_as_one_line
from trio_rpc.cli.connecting import Target, connected
from trio_rpc.cli.exits import CallFailed, CommandError, Usage, describe_error
from trio_rpc.cli.output import Output
from trio_rpc.cli.statistics import Latencies
from trio_rpc.cli.terminal import plural, safe
from trio_rpc.cli.through_gateway import GatewayCalls, check_call
from trio_rpc.errors import (
    EncodeError,
    InvalidArguments,
    MethodNotFound,
    SessionBroken,
    SessionClosed,
)
from trio_rpc.pool.pool import Pool
from trio_rpc.services.proxies import RemoteMethod
from trio_rpc.session.session import Session

__all__ = ["Bench", "check_plot"]

SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
ROWS, WIDTH = 12, 40
"""The size of the histogram, in lines and characters."""
MOST_KINDS = 20
"""The most kinds of errors that are counted apart; the peer chooses their names."""
IN_VAIN = (EncodeError, MethodNotFound, InvalidArguments, SessionBroken, SessionClosed)
"""Errors that every further call would raise as well: they end the run."""
TICK = 0.1
"""Seconds between two states of the bar."""


@dataclass
class Bench:
    """A run of ``bench``, and its measurements so far.

    Attributes:
        target: the server.
        method: the full name of the method.
        args: its positional arguments.
        kwargs: its named arguments.
        callers: the number of calls that are in flight at a time.
        count: the number of calls; ``inf`` for no bound.
        duration: seconds after which no call is begun; ``inf`` for no bound.
    """

    target: Target
    method: str
    args: list[Any]
    kwargs: dict[str, Any]
    callers: int
    count: float
    duration: float
    latencies: Latencies = field(default_factory=Latencies)
    errors: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    _begun: int = 0

    @property
    def done(self) -> int:
        """The number of calls that have ended, failed ones included."""
        return len(self.latencies) + self.errors.total()

    async def run(self, output: Output) -> None:
        """Make the calls, with a bar on standard error if that is a terminal."""
        check_call(self.target.url, self.method, self.args)
        async with connected(self.target) as session:
            started = trio.current_time()
            try:
                with self._bar(output) as show:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._show, started, show)
                        async with trio.open_nursery() as callers:
                            for _ in range(self.callers):
                                callers.start_soon(self._call, session, started)
                        nursery.cancel_scope.cancel()
            finally:
                self.seconds = trio.current_time() - started

    async def _call(self, session: Session | Pool | GatewayCalls, started: float) -> None:
        method = RemoteMethod(session, self.method)
        while self._begun < self.count:
            began = trio.current_time()
            if began - started >= self.duration:
                return
            self._begun += 1
            try:
                await method(*self.args, **self.kwargs)
            except IN_VAIN:
                with failing_as_one_line(self.method):
                    raise
            except CommandError:
                raise  # the gateway cannot be reached any more
            except Exception as exc:  # noqa: BLE001 - any error of the handler is counted
                self._count_error(exc)
            else:
                self.latencies.add(trio.current_time() - began)

    def _count_error(self, exc: Exception) -> None:
        name = safe(describe_error(exc)["type"], 60)
        known = name in self.errors or len(self.errors) < MOST_KINDS
        self.errors[name if known else "others"] += 1

    async def _show(self, started: float, show: Callable[[float], None]) -> None:
        while True:
            show(trio.current_time() - started)
            await trio.sleep(TICK)

    @contextlib.contextmanager
    def _bar(self, output: Output) -> Iterator[Callable[[float], None]]:
        console = Console(stderr=True)
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=output.as_json or not console.is_terminal,
        )
        by_time = math.isinf(self.count)
        with bar:
            task: TaskID = bar.add_task("", total=self.duration if by_time else self.count)

            def show(passed: float) -> None:
                rate = self.done / passed if passed > 0 else 0.0
                bar.update(
                    task,
                    completed=passed if by_time else self.done,
                    description=f"{rate:,.0f} calls/s",
                )

            yield show

    def sum_up(self, output: Output, plot: Path | None = None) -> None:
        """Print the summary of the calls so far, and draw it if there is something to draw.

        Raises:
            Usage: the file cannot be written.
        """
        rate = self.done / self.seconds if self.seconds else 0.0
        if output.as_json:
            output.json(
                {
                    "url": self.target.url,
                    "method": self.method,
                    "callers": self.callers,
                    "seconds": round(self.seconds, 4),
                    "calls_per_second": round(rate, 1),
                    **self.latencies.as_dict({"min": 0.0, **SHARES, "max": 1.0}),
                    "errors": dict(self.errors),
                }
            )
        else:
            calls = plural(self.done, "call")
            output.line(f"{calls} in {self.seconds:.2f} s: {rate:,.0f} calls/s", "bold")
            if len(self.latencies):
                output.line(self.latencies.summary({"min": 0.0, **SHARES, "max": 1.0}))
                for line in _histogram(self.latencies):
                    output.line(line, "cyan")
            for name, number in self.errors.most_common():
                output.line(f"{plural(number, 'call')} failed with {name}", "red")
        if plot is not None and len(self.latencies):
            self.plot(plot)

    def check(self) -> None:
        """Raise CallFailed if a call failed."""
        if self.errors:
            failed = plural(self.errors.total(), "call")
            raise CallFailed(f"{failed} of {self.done:,} failed", {"errors": dict(self.errors)})

    def plot(self, path: Path) -> None:
        """Draw the latencies by their quantiles. Raises Usage if that is impossible."""
        figure = _empty_figure()
        axes = figure.subplots()
        milliseconds = [each * 1e3 for each in self.latencies.ordered()]
        shares = [(number + 1) / len(milliseconds) for number in range(len(milliseconds))]
        axes.plot(milliseconds, shares, color="#2563eb", linewidth=2)
        axes.set_xscale("log")
        axes.set_xlabel("milliseconds")
        axes.set_ylabel("share of calls that took at most so long")
        axes.set_title(f"{self.method}, {self.callers} at a time")
        axes.grid(alpha=0.3)
        try:
            figure.savefig(path, dpi=150)
        except (OSError, ValueError) as exc:
            raise Usage(f"--plot {safe(path, 100)}: {safe(exc)}") from exc


def check_plot(path: Path) -> None:
    """Raise Usage, before anything is measured, if nothing could be drawn into this file."""
    figure = _empty_figure()
    if path.suffix[1:].lower() not in figure.canvas.get_supported_filetypes():
        raise Usage(f"--plot {safe(path, 100)}: give a name such as latency.svg or latency.png")
    if not path.parent.is_dir():
        raise Usage(f"--plot {safe(path, 100)}: there is no such folder")


def _empty_figure() -> Any:
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - optional, and slow to load
    except ImportError as exc:
        raise Usage("--plot requires matplotlib: pip install matplotlib") from exc
    return Figure(figsize=(8, 4.5), layout="constrained")


def _histogram(latencies: Latencies) -> Iterator[str]:
    """Yield the lines of a histogram whose classes grow by the same factor."""
    ordered = latencies.ordered()
    least, most = max(ordered[0], 1e-9), max(ordered[-1], 1e-9)
    factor = (most / least) ** (1 / ROWS) if most > least else 1.0
    counts = [0] * ROWS
    for value in ordered:
        place = math.log(max(value, least) / least) / math.log(factor) if factor > 1 else 0
        counts[min(ROWS - 1, int(place))] += 1
    for number, count in enumerate(counts):
        bound = least * factor ** (number + 1) * 1e3
        bar = "█" * round(WIDTH * count / max(counts))
        yield f"≤ {bound:10.3f} ms  {count:9,}  {bar}"
        if factor == 1.0:
            return
