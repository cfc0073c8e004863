"""The command ``top``: the sessions of a server and its calls in flight, from its introspection."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Literal

import msgspec
import trio
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from trio_rpc.cli.calling import failing_as_one_line
from trio_rpc.cli.connecting import Connection, Target, single
from trio_rpc.cli.exits import CallFailed, Usage
from trio_rpc.cli.output import Output
from trio_rpc.cli.parameters import DEFAULT_CONNECTION, Json, Switch
from trio_rpc.cli.running import trio_run
from trio_rpc.cli.streams import writing
from trio_rpc.cli.terminal import plural, safe
from trio_rpc.cli.through_gateway import GatewayCalls
from trio_rpc.errors import MethodNotFound
from trio_rpc.introspection import CallInFlight, OpenSession, Snapshot
from trio_rpc.pool.dns import DNS
from trio_rpc.services.proxies import RemoteMethod
from trio_rpc.session.session import Session

__all__ = ["top"]

STYLES = {"running": "green", "waiting": "yellow", "cancelling": "red"}

SHOWN_FIGURES = {"opening", "calls_queued", "calls_refused", "bytes_unsent"}
"""The figures that are shown, if they are not 0."""

NARROW = 60
"""Characters of a line below which only the first columns are shown."""

MAIN_COLUMNS = 3

MOST_SHOWN = 200
"""Characters of one cell: names come from the other end."""

LEAST_ROWS = 3
"""Rows of each table, however low the terminal is."""

OTHER_LINES = 8
"""Lines of a view that are not rows of its tables."""


def top(
    url: str,
    /,
    *,
    every: float = 1.0,
    once: Switch = False,
    cancel: str | None = None,
    named: str = "introspection",
    connection: Connection = DEFAULT_CONNECTION,
    json: Json = False,
) -> None:
    """Watch the sessions of a server and its calls in flight, until Ctrl-C.

    The server must offer a trio_rpc.introspection.Introspection, such as trio-rpc serve with
    --introspection. If standard output is not a terminal, the view is printed once.

    Args:
        url: tcp://host:port, tls://host:port, unix:///path, ws://host:port/path,
            wss://host:port/path or nats://host,host/service; or http://host:port/path or
            https://host:port/path of a gateway.
        every: Seconds between two views.
        once: Print the view once.
        cancel: Cancel the call with this key instead. Its caller gets RemoteCancelled. The server
            must allow that, such as trio-rpc serve with --allow-cancel.
        named: The name under which the server offers the service.
        connection: How to connect.
        json: Print one view as one JSON object, for scripts.
    """
    if not (math.isfinite(every) and every > 0):
        raise Usage("--every must be a number of seconds, more than 0")
    if connection.also or url.startswith(DNS):
        raise Usage("top shows one server: give the URL of one, without --also")
    target, output = Target(url=url, connection=connection), Output(as_json=json)
    if cancel is not None:
        trio_run(cancel_call, target, output, cancel, named=named)
    else:
        is_live = output.is_terminal and not once
        trio_run(show, target, output, every=every if is_live else None, named=named)


async def cancel_call(target: Target, output: Output, key: str, *, named: str) -> None:
    """Cancel the handler of one call.

    Args:
        target: the server.
        output: prints that it is cancelled.
        key: the key of the call.
        named: the name of the server's introspection service.
    """
    async with single(target, target.url) as session:
        was_there = await _ask(session, target, named, "cancel", key=key)
    if was_there is not True:
        raise CallFailed(f"{target.url} has no call in flight with the key {safe(key, 60)}")
    if output.as_json:
        output.json({"url": target.url, "cancelled": key})
    else:
        output.line(f"cancelled {safe(key, 60)}")


@trio.lowlevel.enable_ki_protection  # Ctrl-C interrupts a wait, never a view half printed
async def show(target: Target, output: Output, *, every: float | None, named: str) -> None:
    """Print the view, once or again and again.

    Args:
        target: the server.
        output: prints the view.
        every: seconds between two views of a terminal; None for one view.
        named: the name of the server's introspection service.
    """
    async with single(target, target.url) as session:
        snapshot = await _snapshot(session, target, named)
        if output.as_json:
            output.json({"url": target.url, **asdict(snapshot)})
        elif every is None:
            output.show(_view(snapshot, math.inf, output.console.width))
        else:
            await _show_live(session, target, output, snapshot, every=every, named=named)


async def _show_live(
    session: Session | GatewayCalls,
    target: Target,
    output: Output,
    snapshot: Snapshot,
    *,
    every: float,
    named: str,
) -> None:
    with writing():
        live = Live(console=output.console, auto_refresh=False)
        live.start()
    try:
        while True:
            with writing():
                view = _view(snapshot, _rows(output), output.console.width)
                live.update(view, refresh=True)
            await trio.sleep(every)
            snapshot = await _snapshot(session, target, named)
    finally:
        with writing():
            live.stop()


def _rows(output: Output) -> int:
    """Return the rows that fit into the terminal, in each of the two tables."""
    return max(LEAST_ROWS, (output.console.height - OTHER_LINES) // 2)


async def _snapshot(session: Session | GatewayCalls, target: Target, named: str) -> Snapshot:
    answer = await _ask(session, target, named, "snapshot")
    try:
        return msgspec.convert(answer, Snapshot)
    except msgspec.ValidationError as exc:
        text = f"{target.url} answers in another way than an Introspection: {safe(exc)}"
        raise CallFailed(text) from exc


async def _ask(
    session: Session | GatewayCalls, target: Target, named: str, method: str, **given: Any
) -> Any:
    name = f"{named}.{method}" if named else method
    try:
        with failing_as_one_line(name):
            return await RemoteMethod(session, name)(**given)
    except CallFailed as exc:
        if isinstance(exc.__cause__, MethodNotFound):
            text = f"{target.url} has no service {safe(named, 60)!r} to look inside:"
            text += " offer a trio_rpc.introspection.Introspection, or serve with --introspection"
            raise CallFailed(text, exc.details) from exc
        raise


# ── the view ─────────────────────────────────────────────────────────────────────────────────


def _view(snapshot: Snapshot, rows: float, width: int) -> RenderableType:
    """Return the two tables, with as many rows each, and only the main columns if it is narrow."""
    parts = [plural(snapshot.sessions_in_all, "session"), plural(snapshot.calls_in_all, "call")]
    parts += [
        f"{number:,} {name.replace('_', ' ')}"
        for name, number in snapshot.figures.items()
        if number and name in SHOWN_FIGURES
    ]
    views: list[RenderableType] = [Text(" · ".join(parts), style="bold")]
    sessions = snapshot.sessions[: int(min(rows, len(snapshot.sessions)))]
    calls = snapshot.calls[: int(min(rows, len(snapshot.calls)))]
    if sessions:
        views += [Text(), _sessions(sessions, width), *_more(sessions, snapshot.sessions_in_all)]
    if calls:
        views += [Text(), _calls(calls, width), *_more(calls, snapshot.calls_in_all)]
    return Group(*views)


def _sessions(sessions: list[OpenSession], width: int) -> Table:
    table = _table(width, session="left", peer="left", calls_in="right", calls_out="right")
    for one in sessions:
        _add(table, one.key, one.peer, one.calls_in, one.calls_out)
    return table


def _calls(calls: list[CallInFlight], width: int) -> Table:
    table = _table(
        width, call="left", method="left", age="right", state="left", kind="left", parent="left"
    )
    for one in calls:
        cells = (one.key, one.method, _age(one.age), one.state, one.kind, one.parent or "")
        _add(table, *cells, style=STYLES.get(one.state, ""))
    return table


def _table(width: int, **columns: Literal["left", "right"]) -> Table:
    table = Table(box=None, pad_edge=False)
    for number, (name, justify) in enumerate(columns.items()):
        if number < MAIN_COLUMNS or width >= NARROW:
            table.add_column(name.replace("_", " "), overflow="fold", justify=justify)
    return table


def _add(table: Table, *cells: object, style: str = "") -> None:
    shown = cells[: len(table.columns)]
    table.add_row(*(Text(safe(cell, MOST_SHOWN)) for cell in shown), style=style)


def _more(shown: Sequence[object], in_all: int) -> Iterator[Text]:
    if in_all > len(shown):
        yield Text(f"… and {in_all - len(shown):,} more", style="dim")


def _age(seconds: float) -> str:
    """Write seconds as ``0.3 s``, ``42 s``, ``3:05`` or ``2:03:04``."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
