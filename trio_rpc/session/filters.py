"""Filters: one async function round each call, on either side of it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias, TypeVar

import trio

from trio_rpc.channels.one_exception import one_exception
from trio_rpc.session.context import Call

__all__ = ["Filter", "apply_filters", "filtered"]

T = TypeVar("T")

Filter: TypeAlias = Callable[[Call, Callable[[], Awaitable[Any]]], Awaitable[Any]]


def apply_filters(
    filters: Sequence[Filter], call: Call, proceed: Callable[[], Awaitable[Any]]
) -> Awaitable[Any]:
    """Run ``proceed`` inside all filters; the first one is outermost."""
    for each in reversed(filters):
        proceed = functools.partial(each, call, proceed)
    return proceed()


@contextlib.asynccontextmanager
async def filtered(
    filters: Sequence[Filter], call: Call, opening: AbstractAsyncContextManager[T]
) -> AsyncIterator[T]:
    """Open something inside all filters: to them it is a call that lasts as long as the block."""
    left = trio.Event()

    async def run(*, task_status: trio.TaskStatus[T]) -> None:
        async def proceed() -> None:
            async with opening as opened:
                task_status.started(opened)
                await left.wait()

        await apply_filters(filters, call, proceed)

    with one_exception() as body:
        async with trio.open_nursery() as nursery:
            opened = await nursery.start(run)
            try:
                yield opened
            except BaseException as exc:
                body.append(exc)
                raise
            finally:
                left.set()
