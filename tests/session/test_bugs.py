"""Bugs in handlers are logged at the end where they happen; expected errors are not logged."""

from __future__ import annotations

import contextlib
import logging

import pytest
import trio
from helpers.handlers import service
from helpers.raw_peer import session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc.session.calls.bugs import MAX_METHODS, Bugs
from trio_rpc.util.rate_limited_log import LINES
from trio_rpc.wire import messages as m


class Bug(Exception):
    pass


class Declared(Exception):
    pass


class Buggy:
    @trio_rpc.method(raises=(Declared,))
    async def at_once(self):
        raise Bug("at_once")

    @trio_rpc.method(raises=(Declared,))
    async def later(self):
        await trio.lowlevel.checkpoint()
        raise Bug("later")

    @trio_rpc.method
    def plain(self):
        raise Bug("plain")

    @trio_rpc.method
    async def built_in(self):
        raise KeyError("built_in")

    @trio_rpc.method
    async def started(self, *, task_status=trio.TASK_STATUS_IGNORED):
        task_status.started(1)
        raise Bug("started")

    @trio_rpc.stream
    async def stream(self):
        yield 1
        raise Bug("stream")

    @trio_rpc.stream
    async def bad_item(self):
        yield object()

    @trio_rpc.duplex
    async def duplex(self, channel):
        await channel.send(1)
        raise Bug("duplex")

    @trio_rpc.notification
    def note(self):
        raise Bug("note")

    @trio_rpc.notification
    async def note_later(self):
        await trio.lowlevel.checkpoint()
        raise Bug("note_later")

    @trio_rpc.method
    async def unsendable(self):
        return object()

    @trio_rpc.method
    def unsendable_plain(self):
        return object()

    @trio_rpc.method(raises=(Declared,))
    async def group(self):
        raise ExceptionGroup("both", [Declared("normal"), Bug("group")])

    @trio_rpc.method
    async def twice_started(self, *, task_status=trio.TASK_STATUS_IGNORED):
        task_status.started(object())


async def use(session, name):
    if name.startswith("note"):
        await session.notify(name)
        await session.ping()
        await wait_all_tasks_blocked()
    elif name in ("stream", "bad_item", "duplex"):
        with pytest.raises(trio_rpc.RpcError):
            async with getattr(session, "duplex" if name == "duplex" else "stream")(name) as items:
                while True:
                    await items.receive()
    elif "started" in name:
        with pytest.raises(ExceptionGroup):
            async with trio.open_nursery() as nursery:
                await nursery.start(getattr(session.proxy(), name))
    else:
        with pytest.raises(Exception):  # noqa: B017 - each method raises another one
            await session.call(name)


def bugs_in(caplog):
    return [each for each in caplog.records if each.name == "trio_rpc.handlers"]


@pytest.mark.parametrize("error_detail", ["none", "message"])
@pytest.mark.parametrize("name", [name for name in vars(Buggy) if not name.startswith("_")])
async def test_a_bug_is_logged_with_its_traceback(session_pair, caplog, name, error_detail):
    options = {"error_detail": error_detail}
    async with session_pair(Buggy(), None, options_a=options) as (server, session):
        await use(session, name)
    [record] = bugs_in(caplog)
    assert record.levelno == logging.ERROR
    assert record.rpc_method == name
    assert record.rpc_session == server.name
    assert record.rpc_call is None if name.startswith("note") else record.rpc_call >= 1
    if "unsendable" in name or name in ("bad_item", "twice_started"):
        assert isinstance(record.exc_info[1], trio_rpc.EncodeError)
    else:
        assert name in record.exc_text or name in caplog.text
        assert f"in {name}" in caplog.text
    if name == "group":
        assert [type(each) for each in record.exc_info[1].exceptions] == [Bug]


async def _async_bug():
    raise Bug("in a callback")


def _plain_bug():
    raise Bug("in a callback")


async def _items_with_a_bug():
    yield 1
    raise Bug("in a callback")


class Uses:
    @trio_rpc.method
    async def use(self, function):
        with pytest.raises(trio_rpc.RemoteError):
            await function()

    @trio_rpc.method
    async def pull(self, items):
        with pytest.raises(trio_rpc.RemoteError):
            async for _ in items:
                pass

    @trio_rpc.method(raises=(Declared,))
    async def declared(self, function):
        with pytest.raises(Declared):
            await function()


@pytest.mark.parametrize(
    ("method", "argument"),
    [("use", _async_bug), ("use", _plain_bug), ("use", lambda: object()), ("pull", None)],
)
async def test_a_bug_in_a_callback_is_logged_at_the_end_where_it_runs(
    session_pair, caplog, method, argument
):
    async with session_pair(Uses(), None) as (_, client):
        await client.call(method, argument or _items_with_a_bug())
        [record] = bugs_in(caplog)
        assert record.rpc_session == client.name
        assert method in record.rpc_method


async def test_a_bug_of_a_task_in_the_nursery_of_a_remote_scope_is_logged(session_pair, caplog):
    class Starts:
        @trio_rpc.method
        async def start(self):
            trio_rpc.current_call().nursery.start_soon(_async_bug)

    async with session_pair(Starts(), None) as (_, session):
        with pytest.raises(trio_rpc.RemoteError):
            async with session.open_scope() as scope:
                await scope.call("start")
                await trio.sleep_forever()
    assert "in a callback" in caplog.text
    assert len(bugs_in(caplog)) == 1


class Normal:
    def __init__(self):
        self.started = trio.Event()

    @trio_rpc.method(raises=(Declared,))
    async def declared(self):
        raise Declared

    @trio_rpc.method(raises=(Declared,))
    async def declared_group(self):
        raise ExceptionGroup("several", [Declared(1), ExceptionGroup("more", [Declared(2)])])

    @trio_rpc.method(raises=(LookupError,))
    async def declared_base(self):
        raise KeyError(1)

    @trio_rpc.method
    async def takes(self, number: int):
        raise AssertionError("it is never called")

    @trio_rpc.method
    async def sleep(self):
        self.started.set()
        await trio.sleep_forever()

    @trio_rpc.method
    async def asks(self, callback):
        self.started.set()
        with trio.CancelScope(shield=True):
            await callback()

    @trio_rpc.duplex
    async def talks(self, channel):
        self.started.set()
        with trio.CancelScope(shield=True):
            while True:
                await channel.send(1)


async def test_expected_errors_are_not_logged(session_pair, caplog, no_time):
    service = Normal()
    async with session_pair(service, None) as (_, session):
        for name in ("declared", "declared_group", "declared_base", "missing"):
            with pytest.raises(Exception):  # noqa: B017 - each method raises another one
                await session.call(name)
        for arguments in ((), ("one",)):
            with pytest.raises(trio_rpc.InvalidArguments):
                await session.call("takes", *arguments)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.call, "sleep")
            await service.started.wait()
            nursery.cancel_scope.cancel()
    assert caplog.records == []


async def test_a_handler_that_fails_because_its_session_is_over_is_not_logged_as_a_bug(
    session_pair, caplog
):
    service = Normal()
    limits = trio_rpc.Limits(shutdown_timeout=0.01)
    options = {"limits": limits}
    # If the session ends before the call is cancelled, the nursery raises a group with the
    # call's SessionClosed.
    with contextlib.suppress(ExceptionGroup), trio.CancelScope() as scope:
        async with (
            session_pair(service, None, options_a=options, options_b=options) as (_, session),
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(session.call, "asks", trio.sleep_forever)
            await service.started.wait()
            scope.cancel()
    assert service.started.is_set()
    assert bugs_in(caplog) == []


async def test_a_duplex_handler_that_fails_because_its_caller_has_left_is_not_logged_as_a_bug(
    session_pair, caplog
):
    service = Normal()
    async with session_pair(service, None) as (_, session):
        with pytest.raises(trio_rpc.RemoteError, match="its consumer has left"):
            async with session.duplex("talks") as channel:
                await channel.receive()
    assert bugs_in(caplog) == []


async def test_many_failures_of_one_method_do_not_hide_a_bug_of_another(session_pair, caplog):
    async with session_pair(Buggy(), None) as (_, session):
        for _ in range(5 * LINES):
            with pytest.raises(trio_rpc.RemoteError):
                await session.call("plain")
        with pytest.raises(trio_rpc.RemoteError):
            await session.call("at_once")
    names = [each.rpc_method for each in bugs_in(caplog)]
    assert names == ["plain"] * LINES + ["at_once"]


async def test_the_table_of_rate_limits_is_bounded_for_any_names():
    bugs = Bugs()
    for number in range(3 * MAX_METHODS):
        bugs.raised(Bug(), f"method{number}", session="peer", call=1)
    assert len(bugs._limits) == MAX_METHODS + 1


class Anything:
    @trio_rpc.fallback
    async def anything(self, call: trio_rpc.Call) -> object:
        if call.method.startswith("any.bad"):
            return object()
        raise Bug(call.method)

    @trio_rpc.method
    async def known(self) -> None:
        raise Bug("known")


async def test_names_that_a_peer_chooses_share_the_rate_limit_of_their_fallback(
    session_pair, no_time, caplog
):
    async with session_pair({"any": Anything()}, None) as (_, session):
        for number in range(LINES):
            for name in (f"any.method{number}", f"any.bad{number}"):
                with pytest.raises(trio_rpc.RemoteError):
                    await session.call(name)
        with pytest.raises(trio_rpc.RemoteError):
            await session.call("any.known")
    names = [each.rpc_method for each in bugs_in(caplog)]
    assert len(names) == LINES + 1
    assert names[-1] == "any.known"


async def test_all_sessions_of_a_server_share_the_limit(caplog):
    async with trio_rpc.open_server(Buggy(), "tcp://127.0.0.1:0") as server:
        for _ in range(LINES + 5):
            async with trio_rpc.connect(server.urls[0]) as session:
                with pytest.raises(trio_rpc.RemoteError):
                    await session.call("plain")
    assert len(bugs_in(caplog)) == LINES


async def test_a_group_with_a_fatal_exception_is_logged_without_it(caplog):
    async def work():
        raise BaseExceptionGroup("both", [SystemExit(3), Bug("beside it")])

    with pytest.raises(SystemExit):
        async with session_with_raw_peer(service(work)) as (_, peer):
            peer.send(m.Request(1, "work", []))
            await trio.sleep_forever()
    [record] = bugs_in(caplog)
    assert "beside it" in caplog.text
    assert "SystemExit" not in str(record.exc_info[1].exceptions)
