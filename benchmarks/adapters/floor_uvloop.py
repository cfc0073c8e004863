"""The floor of asyncio's streams, in uvloop's event loop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import uvloop

from benchmarks.adapter import adapter
from benchmarks.adapters.floor_asyncio import open_client, serve
from benchmarks.loops import ASYNCIO, Work

__all__ = ["ADAPTERS"]


def _run(function: Work, *arguments: Any) -> None:
    uvloop.run(function(*arguments))


ADAPTERS = (
    adapter(
        replace(ASYNCIO, run=_run),
        "uvloop",
        "floor: uvloop streams",
        "one flights sizes sessions",
        serve=serve,
        open_client=open_client,
    ),
)
