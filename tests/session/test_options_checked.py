"""Invalid options are refused when a session is opened, and not when the first peer connects."""

from __future__ import annotations

import pytest

import trio_rpc
from trio_rpc.testing import memory_channel_pair


async def _filter(call, proceed):
    return await proceed()


INVALID = [
    ({"limits": 5}, TypeError, "limits must be a trio_rpc.Limits, not 5"),
    ({"limits": None}, TypeError, "limits must be a trio_rpc.Limits, not None"),
    ({"registry": {}}, TypeError, r"registry must be a trio_rpc.TypeRegistry or None, not \{\}"),
    ({"filters": _filter}, TypeError, "filters must be a list of async functions, not <function"),
    ({"filters": "abc"}, TypeError, "filters must be a list of async functions, not 'abc'"),
    ({"filters": None}, TypeError, "filters must be a list of async functions, not None"),
    ({"filters": [_filter, 5]}, TypeError, "filters must be async functions, and 5 is not one"),
    ({"filters": iter([_filter])}, TypeError, "filters must be a list of async functions"),
    ({"authenticate": 5}, TypeError, "authenticate must be an async function or None, not 5"),
    ({"error_detail": "None"}, ValueError, "'none', 'message' or 'traceback', not 'None'"),
    ({"error_detail": None}, ValueError, "'none', 'message' or 'traceback', not None"),
    ({"error_detail": []}, ValueError, r"'none', 'message' or 'traceback', not \[\]"),
    ({"limit": trio_rpc.Limits()}, TypeError, "limit"),
]


async def _open_session(**options):
    ours, _ = memory_channel_pair()
    async with trio_rpc.open_session(ours, **options):
        raise AssertionError("it must not open")


async def _serve_session(**options):
    await trio_rpc.serve_session(memory_channel_pair()[0], **options)


async def _open_server(**options):
    async with trio_rpc.open_server(None, "tcp://127.0.0.1:0", **options):
        raise AssertionError("it must not listen")


async def _connect(**options):
    async with trio_rpc.connect("tcp://127.0.0.1:1", **options):
        raise AssertionError("it must not connect")


async def _open_process(**options):
    async with trio_rpc.open_process(["/nonexistent"], **options):
        raise AssertionError("it must not start")


OPENERS = [_open_session, _serve_session, _open_server, _connect, _open_process]


@pytest.mark.parametrize("opener", OPENERS, ids=lambda each: each.__name__[1:])
@pytest.mark.parametrize(("options", "kind", "text"), INVALID, ids=[each[2] for each in INVALID])
async def test_invalid_options_are_refused_by_each_function_that_opens_sessions(
    opener, options, kind, text
):
    with pytest.raises(kind, match=text):
        await opener(**options)
