"""The suite of sessions, over every transport (B43, B57-B60).

The tests are those of tests/session that join two sessions by ``open_session_pair`` and do not care
what joins them. They run as they stand, but for what ``open_session_pair`` does.
"""

from __future__ import annotations

import contextlib
import functools
import inspect

import test_callbacks
import test_ends
import test_handlers
import test_laws
import test_laws_bounds
import test_laws_order
import test_looking
import test_opening
import test_races

from trio_rpc import DEFAULT_LIMITS
from trio_rpc.testing import open_session_pair

SUITE = (
    test_callbacks,
    test_ends,
    test_handlers,
    test_laws,
    test_laws_bounds,
    test_laws_order,
    test_looking,
    test_opening,
    test_races,
)

COUNTS_TICKS = {"test_cancel_and_reply_crossing_between_two_sessions_leaves_nothing"}
"""Sees both outcomes of a race for certain only where a packet takes as many ticks as in memory."""


def is_for_any_channel(name, test):
    if name in COUNTS_TICKS or not (name.startswith("test_") and inspect.iscoroutinefunction(test)):
        return False
    source = inspect.getsource(test)
    return "open_session_pair(" in source and "channels=" not in source


def over_transports(module, test):
    """Make a test of the transport out of one of sessions."""

    @functools.wraps(test)
    async def run(*, transport, monkeypatch, **fixtures):
        @contextlib.asynccontextmanager
        async def pair_over_transport(services_a=None, services_b=None, **options):
            limits = [
                options.get(f"options_{end}", {}).get("limits", DEFAULT_LIMITS) for end in "ab"
            ]
            async with (
                transport.join(*limits) as channels,
                open_session_pair(services_a, services_b, channels=channels, **options) as pair,
            ):
                yield pair

        monkeypatch.setattr(module, "open_session_pair", pair_over_transport)
        await test(**fixtures)

    wanted = dict.fromkeys((*inspect.signature(test).parameters, "transport", "monkeypatch"))
    run.__signature__ = inspect.Signature(
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in wanted
    )
    return run


for _module in SUITE:
    for _name, _test in tuple(vars(_module).items()):
        if is_for_any_channel(_name, _test):
            globals()[_name] = over_transports(_module, _test)


def test_there_is_a_suite():
    found = [name for name in globals() if name.startswith("test_law_")]
    assert len(found) > 20


async def test_the_transport_is_what_it_says(transport):
    async with transport.join(DEFAULT_LIMITS, DEFAULT_LIMITS) as ends:
        kinds = [type(end).__name__ for end in ends]
    expected = {"memory": "MemoryChannel", "ws": "WebSocketChannel", "wss": "WebSocketChannel"}
    assert kinds == [expected.get(transport.kind, "StreamChannel")] * 2
