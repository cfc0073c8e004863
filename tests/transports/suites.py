"""Makes tests of every transport out of the tests of sessions.

Those that join two sessions by ``open_session_pair``, and do not care what joins them, run as they
stand, but for what ``open_session_pair`` does.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect

from trio_rpc import DEFAULT_LIMITS
from trio_rpc.testing import open_session_pair

COUNTS_TICKS = {"test_cancel_and_reply_crossing_between_two_sessions_leaves_nothing"}
"""Sees both outcomes of a race for certain only where a packet takes as many ticks as in memory."""


def over_every_transport(name):
    """Return the names of a module of tests/session: its tests, adapted, and its fixtures."""
    module = importlib.import_module(name)
    functions = {name: each for name, each in vars(module).items() if inspect.isfunction(each)}
    makers = ["open_session_pair"]
    makers += [
        name
        for name, function in functions.items()
        if not name.startswith("test_") and _calls(function, makers[:1])
    ]
    adapted = {
        name: _over_transport(module, function)
        for name, function in functions.items()
        if _is_for_any_channel(name, function, makers)
    }
    assert adapted
    others = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith(("test_", "Test", "__"))
    }
    return others | adapted


def _is_for_any_channel(name, function, makers):
    if not name.startswith("test_") or not inspect.iscoroutinefunction(function):
        return False
    has_its_own = "channels=" in inspect.getsource(function)
    return name not in COUNTS_TICKS and not has_its_own and _calls(function, makers)


def _calls(function, names):
    """Tell whether a function of a test module calls one of these by name."""
    return any(f"{name}(" in inspect.getsource(function) for name in names)


def _over_transport(module, test):
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
