"""The command ``instances``: the instances of a service, and whether each can be reached."""

from __future__ import annotations

import dataclasses
import math

import trio
from rich.table import Table
from rich.text import Text

from trio_rpc.cli.connecting import Target, pooled
from trio_rpc.cli.output import Output
from trio_rpc.cli.terminal import safe
from trio_rpc.pool.instances import InstanceStatus
from trio_rpc.pool.pool import Pool

__all__ = ["instances"]

SETTLING = 3.0
"""Seconds in which each instance may be reached before the table is printed."""

_STYLES = {"open": "green", "failed": "red", "connecting": "yellow"}


async def instances(target: Target, output: Output, *, watch: bool) -> None:
    """Print the instances, once or after each change.

    Args:
        target: the instances.
        output: prints them.
        watch: whether to go on until Ctrl-C.
    """
    patience = math.inf if watch else SETTLING
    async with pooled(target, patience=patience) as pool:
        if not watch:
            with trio.move_on_after(SETTLING):
                await _settled(pool)
            _print(pool.instances(), output)
            return
        async for statuses in pool.states():
            _print(statuses, output)


async def _settled(pool: Pool) -> None:
    """Wait until each instance has been tried."""
    async for statuses in pool.states():
        if all(each.state != "connecting" or each.error for each in statuses):
            return


def _print(statuses: list[InstanceStatus], output: Output) -> None:
    if output.as_json:
        output.json([dataclasses.asdict(each) for each in statuses])
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("instance", "state", "why"):
        table.add_column(heading, overflow="fold")
    for each in statuses:
        cells = (safe(each.name), each.state, safe(each.error))
        table.add_row(*map(Text, cells), style=_STYLES.get(each.state))
    output.show(table)
