"""Filters: async functions that run around each call, at either end."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias, TypeVar

import trio

from trio_rpc.errors import Fate, RpcError
from trio_rpc.services.error_maps import set_fate
from trio_rpc.util.one_exception import one_exception

__all__ = ["Proceed", "apply_filters", "call_filtered", "check_filters", "filtered"]

T = TypeVar("T")
C = TypeVar("C")
"""The view of a call that filters get."""

Proceed: TypeAlias = Callable[[], Awaitable[Any]]


def check_filters(filters: object) -> None:
    """Raise TypeError unless these are filters in a sequence that can be iterated repeatedly."""
    if not isinstance(filters, Sequence) or isinstance(filters, str | bytes):
        raise TypeError(f"filters must be a list of async functions, not {filters!r}")
    for each in filters:
        if not callable(each):
            raise TypeError(f"filters must be async functions, and {each!r} is not one")


def apply_filters(
    filters: Sequence[Callable[[C, Proceed], Awaitable[Any]]], call: C, proceed: Proceed
) -> Awaitable[Any]:
    """Run ``proceed`` inside all filters; the first one is outermost."""
    for each in reversed(filters):
        proceed = functools.partial(each, call, proceed)
    return proceed()


async def call_filtered(
    filters: Sequence[Callable[[C, Proceed], Awaitable[Any]]],
    call: C,
    proceed: Proceed,
    done: Fate = Fate.STOPPED,
) -> Any:
    """Make an outgoing call inside all filters, and correct the fate of errors (law 15).

    A filter may raise an error of this library that concerns no call, or another call: it may have
    refused this call, repeated it, or failed after it.

    Args:
        filters: the filters; the first one is outermost.
        call: the view of the call.
        proceed: makes the call.
        done: the fate of the handler once ``proceed`` has returned.
    """
    fates = [Fate.NOT_STARTED]

    async def watched() -> Any:
        fates.append(Fate.UNKNOWN)  # until it is known
        place = len(fates) - 1
        try:
            result = await proceed()
        except RpcError as exc:
            fates[place] = exc.fate
            raise
        except Exception:
            fates[place] = Fate.STOPPED
            raise
        fates[place] = done
        return result

    try:
        return await apply_filters(filters, call, watched)
    except Exception as exc:
        set_fate(exc, max(fates, key=_KNOWN_LEAST.index))
        raise


_KNOWN_LEAST = [Fate.NOT_STARTED, Fate.STOPPED, Fate.UNKNOWN]


@contextlib.asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def filtered(
    filters: Sequence[Callable[[C, Proceed], Awaitable[Any]]],
    call: C,
    opening: AbstractAsyncContextManager[T],
) -> AsyncIterator[T]:
    """Open a stream or duplex inside all filters, as a call that lasts as long as the block."""
    left = trio.Event()

    async def run(*, task_status: trio.TaskStatus[T]) -> None:
        has_begun = is_over = False

        async def proceed() -> None:
            nonlocal has_begun
            if is_over:
                raise RuntimeError("a filter proceeded after it had returned")
            if has_begun:
                raise RuntimeError("a filter proceeded twice, but a block is opened only once")
            has_begun = True
            async with opening as opened:
                task_status.started(opened)
                await left.wait()

        try:
            await call_filtered(filters, call, proceed)
        finally:
            is_over = True
        if not has_begun:
            raise RuntimeError("a filter returned without proceeding, so nothing was opened")

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
