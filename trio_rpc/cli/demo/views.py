"""The appearance of the demo: in a terminal, and as plain lines in a pipe."""

from __future__ import annotations

from typing import Self

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from trio_rpc.cli.demo.story import JOBS, Cancelled, Concurrent, Measured, Plain
from trio_rpc.cli.demo.tree import Key, LiveCall
from trio_rpc.cli.output import Output
from trio_rpc.cli.terminal import plural, safe
from trio_rpc.session.inspection import SessionStatistics

__all__ = [
    "JobBars",
    "cancelled_view",
    "concurrent_view",
    "heading",
    "plain_view",
    "summary_view",
    "title_view",
    "tree_view",
]

STYLES = {"client": "cyan", "server": "magenta"}
OTHER = {"client": "server", "server": "client"}
INDENT = (0, 0, 0, 4)


def title_view(client: int, server: int, url: str, versions: str) -> RenderableType:
    """Introduce the two processes."""
    text = Text.assemble(
        ("client ", STYLES["client"]),
        f"process {client}   ",
        ("server ", STYLES["server"]),
        f"process {server} at {url}\n",
        (versions, "dim"),
    )
    return Panel.fit(text, title="two processes, one scope tree", border_style="blue")


def heading(number: int, title: str, remark: str) -> RenderableType:
    """Show the title of a step."""
    text = Text.assemble((f"\n {number}  ", "bold blue"), (title, "bold"))
    return Group(text, Padding(Text(remark, style="dim"), INDENT))


def verdict(*, ok: bool, text: str) -> RenderableType:
    """Show whether a claim held."""
    mark = ("✓ ", "bold green") if ok else ("✗ ", "bold red")
    return Padding(Text.assemble(mark, text), INDENT)


def plain_view(calls: list[Plain]) -> RenderableType:
    """Show calls and their outcomes."""
    lines: list[RenderableType] = []
    for call in calls:
        color = "green" if call.ok else "red"
        if call.outcome.startswith("raises "):
            color = "yellow" if call.ok else "red"
        lines += [
            Text(call.code, style="bold"),
            Text.assemble(("→ ", "dim"), (safe(call.outcome, 200), color), f"  {call.remark}"),
        ]
    return Padding(Group(*lines), INDENT)


def concurrent_view(result: Concurrent) -> RenderableType:
    """Show that calls overlap."""
    return verdict(
        ok=result.ok,
        text=f"{result.calls} calls that take {result.each * 1e3:.0f} ms each took"
        f" {result.took * 1e3:.0f} ms together, not {result.calls * result.each:.0f} s",
    )


def cancelled_view(result: Cancelled, waiter: str) -> RenderableType:
    """Show the two ends of a cancelled call on one clock.

    Args:
        result: the events of the cancellation.
        waiter: the end whose block timed out.
    """
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    for moment in result.moments:
        style = STYLES[moment.end]
        table.add_row(f"{moment.at * 1e3:.0f} ms", Text(moment.end, style=style), moment.text)
    text = (
        f"the {waiter}'s block ended {result.margin * 1e3:.1f} ms after that clean-up;"
        f" {plural(result.left, 'call')} left"
    )
    return Group(Padding(table, INDENT), verdict(ok=result.ok, text=text))


def tree_view(calls: list[LiveCall]) -> RenderableType:
    """Show the scope tree that spans both processes."""
    root = Tree(Text("the scope tree, half-way, seen from both ends", style="dim"))
    branches: dict[Key, Tree] = {}
    waiting = list(calls)
    while waiting:
        ready = [call for call in waiting if call.parent is None or call.parent in branches]
        for call in ready or waiting:  # a call whose parent is unknown is a root
            parent = root if call.parent is None else branches.get(call.parent, root)
            branches[call.key] = parent.add(_branch(call))
        waiting = [call for call in waiting if call.key not in branches]
    return Padding(root, INDENT)


def _branch(call: LiveCall) -> Text:
    caller, callee = call.caller, OTHER[call.caller]
    return Text.assemble(
        (safe(call.method, 60), "bold"),
        (f" #{call.id}  ", "dim"),
        (caller, STYLES[caller]),
        f" {call.at_caller or 'asking'} → ",
        (callee, STYLES[callee]),
        f" {call.at_callee or 'inline'}",
        (f"  {call.age * 1e3:.0f} ms", "dim"),
    )


class JobBars:
    """Progress of the jobs: bars in a terminal, a few lines elsewhere.

    Args:
        output: shows the bars.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._live = output.is_terminal
        # No refresh thread: the callbacks redraw the bars.
        self._progress = Progress(
            TextColumn("    {task.description}", markup=False),
            BarColumn(36, complete_style="cyan", finished_style="green"),
            TextColumn("{task.completed:>3.0f}/{task.total:.0f}", markup=False),
            TimeElapsedColumn(),
            console=output.console,
            auto_refresh=False,
        )
        self._tasks = {
            name: self._progress.add_task(f"{name:8}", total=steps) for name, steps, _ in JOBS
        }

    def __enter__(self) -> Self:
        if self._live:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._progress.stop()

    def show(self, job: str, done: int, total: int) -> None:
        """Show one progress report of the server."""
        if self._live:
            self._progress.update(self._tasks[job], completed=done, refresh=True)
        elif done == total or done == total // 2:
            self._output.show(Text(f"    {job:8} {done:>3}/{total}"))


def summary_view(
    measured: Measured, statistics: SessionStatistics, callbacks: int, exit_code: int | None
) -> RenderableType:
    """Show the figures."""
    alone = measured.one_at_a_time.as_dict()
    table = Table.grid(padding=(0, 3))
    table.add_column(style="dim")
    table.add_column()
    table.add_row(
        "one call at a time",
        f"p50 {alone['p50_ms']:.3f} ms, p99 {alone['p99_ms']:.3f} ms"
        f" ({plural(alone['count'], 'call')})",
    )
    table.add_row(
        f"{measured.in_flight} in flight",
        f"{measured.per_second:,.0f} calls/s ({plural(measured.calls, 'call')})",
    )
    table.add_row("called back", f"{plural(callbacks, 'time')} by the server")
    table.add_row(
        "on the wire",
        f"{plural(statistics.packets_sent, 'packet')} out, {statistics.packets_received:,} in;"
        f" {_bytes(statistics.bytes_sent)} out, {_bytes(statistics.bytes_received)} in",
    )
    alive = statistics.calls_in + statistics.calls_out + statistics.notifications_in
    table.add_row("left alive", plural(alive, "call"))
    table.add_row("server", f"drained, exit code {exit_code}")
    return Padding(table, INDENT)


def _bytes(count: int) -> str:
    return f"{count / 1024:,.0f} KiB" if count < 1024**2 else f"{count / 1024**2:,.1f} MiB"
