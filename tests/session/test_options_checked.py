"""Invalid options are refused when a session is opened, and not when the first peer connects."""

from __future__ import annotations

import pytest

import trio_rpc
from trio_rpc.testing import memory_channel_pair, open_session_pair


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


async def _connect_in(**options):
    await trio_rpc.connect_in(None, "tcp://127.0.0.1:1", **options)  # it needs no nursery for this


async def _serve(**options):
    await trio_rpc.serve(None, "tcp://127.0.0.1:0", **options)


async def _open_parent(**options):
    async with trio_rpc.open_parent(**options):
        raise AssertionError("it must not open")


async def _serve_parent(**options):
    await trio_rpc.serve_parent(**options)


async def _open_session_pair(**options):
    async with open_session_pair(options_b=options):
        raise AssertionError("it must not open")


@pytest.mark.parametrize("opener", [_open_server, _connect], ids=lambda each: each.__name__[1:])
async def test_resume_and_server_limits_of_the_wrong_type_are_refused(opener):
    for resume in (5, "yes"):
        with pytest.raises(
            TypeError, match=r"resume must be True, False or a trio_rpc.Resume, not"
        ):
            await opener(resume=resume)
    with pytest.raises(
        TypeError, match=r"server_limits must be a trio_rpc.ServerLimits, not Limits"
    ):
        await _open_server(server_limits=trio_rpc.Limits())
    with pytest.raises(TypeError, match=r"max_waiting must be a whole number, not 1.5"):
        trio_rpc.ServiceClient(max_waiting=1.5)


EVERY_OPENER = [*OPENERS, _connect_in, _serve, _open_parent, _serve_parent, _open_session_pair]


@pytest.mark.parametrize("opener", EVERY_OPENER, ids=lambda each: each.__name__[1:])
@pytest.mark.parametrize(
    ("option", "hint"), [("limit", ". Did you mean 'limits'?"), ("colour", "")]
)
async def test_an_option_that_does_not_exist_is_refused_by_the_function_that_was_called(
    opener, option, hint
):
    with pytest.raises(TypeError) as caught:
        await opener(**{option: None})
    name = opener.__name__[1:]
    assert str(caught.value) == f"{name}() got an unexpected keyword argument {option!r}{hint}"


@pytest.mark.parametrize("opener", [_connect_in, _serve_parent], ids=lambda each: each.__name__[1:])
async def test_an_option_of_another_function_is_refused(opener):
    with pytest.raises(TypeError) as caught:
        await opener(on_end="keep")
    name = opener.__name__[1:]
    assert str(caught.value) == f"{name}() got an unexpected keyword argument 'on_end'"


@pytest.mark.parametrize("opener", [_connect, _connect_in], ids=lambda each: each.__name__[1:])
async def test_the_options_of_the_function_itself_are_also_suggested(opener):
    with pytest.raises(TypeError) as caught:
        await opener(ssl_contxt=None)
    assert str(caught.value).endswith("'ssl_contxt'. Did you mean 'ssl_context'?")
