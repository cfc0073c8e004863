"""A pair of sessions in memory, for tests of services."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import trio

from trio_rpc.session.core import Core
from trio_rpc.session.opening import (
    OnEnd,
    cancelled_at_end,
    check_on_end,
    make_tables,
    run_session,
)
from trio_rpc.session.options import make_options
from trio_rpc.session.session import Session
from trio_rpc.testing.channels import memory_channel_pair

__all__ = ["open_session_pair"]

_NO_OPTIONS: Mapping[str, Any] = {}


@contextlib.asynccontextmanager
async def open_session_pair(
    services_a: object = None,
    services_b: object = None,
    *,
    options_a: Mapping[str, Any] = _NO_OPTIONS,
    options_b: Mapping[str, Any] = _NO_OPTIONS,
    channels: tuple[trio.abc.Channel[bytes], trio.abc.Channel[bytes]] | None = None,
    on_end: OnEnd = "cancel",
) -> AsyncIterator[tuple[Session, Session]]:
    """Open two sessions that are each other's peer. Leaving the block closes both.

    Both ends belong to this program. So the block's body is cancelled only if the sessions end and
    neither end has closed its own (law 17).

    Args:
        services_a: the services of the first session, which the second one calls.
        services_b: the services of the second session.
        options_a: options of the first session, as :func:`trio_rpc.open_session` takes them.
        options_b: the same for the second session.
        channels: the pair of channels between them; by default a pair in memory.
        on_end: ``"keep"`` leaves the block's body alone when the sessions are lost.

    Raises:
        RpcError: the sessions could not be opened, as :func:`trio_rpc.open_session` says.
        SessionBroken: they were lost while the body ran.
        ValueError: ``on_end`` is neither ``"cancel"`` nor ``"keep"``.

    Example:
        >>> class Adder:
        ...     @trio_rpc.method
        ...     async def add(self, a: int, b: int) -> int:
        ...         return a + b
        >>> async def test_add() -> None:
        ...     async with trio_rpc.testing.open_session_pair(Adder()) as (_, client):
        ...         assert await client.proxy("", Adder).add(2, 3) == 5
        >>> trio.run(test_add)
    """
    chosen_a = make_options(open_session_pair, options_a)
    chosen_b = make_options(open_session_pair, options_b)
    check_on_end(on_end)
    channel_a, channel_b = memory_channel_pair() if channels is None else channels
    core_a = Core(channel_a, make_tables(services_a, chosen_a.registry), chosen_a, "b")
    core_b = Core(channel_b, make_tables(services_b, chosen_b.registry), chosen_b, "a")
    async with (
        run_session(core_b, on_end="keep", wait_until_open=False) as session_b,
        run_session(core_a, on_end="keep") as session_a,
    ):
        await core_b.opened()
        with cancelled_at_end(core_a, core_b) if on_end == "cancel" else contextlib.nullcontext():
            yield session_a, session_b
