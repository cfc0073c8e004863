"""The access log: one line for each call that was served, and declared errors at DEBUG."""

from __future__ import annotations

import logging

import pytest
import trio
from helpers.raw_peer import session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc.testing import open_session_pair
from trio_rpc.tracing import AccessLog
from trio_rpc.wire import messages as m

PAYLOAD = "a secret payload"


class Unknown(Exception):
    pass


class Market:
    def __init__(self):
        self.go = trio.Event()

    @trio_rpc.method
    async def echo(self, text: str) -> str:
        await trio.sleep(0.25)
        return text

    @trio_rpc.method(raises=(Unknown,))
    async def fails(self, text: str) -> None:
        raise Unknown(text)

    @trio_rpc.method
    async def hangs(self) -> None:
        await self.go.wait()

    @trio_rpc.notification
    async def note(self, text: str) -> None:
        await trio.lowlevel.checkpoint()

    @trio_rpc.stream
    async def count(self, to: int):
        for number in range(to):
            yield number


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "trio_rpc.access")

    def lines():
        return [each for each in caplog.records if each.name == "trio_rpc.access"]

    return lines


def served(services, **options):
    return {"options_b": {"trace": AccessLog(), **options}}


async def test_a_call_is_one_line_with_its_fields(autojump_clock, lines):
    async with open_session_pair(None, Market(), **served(None)) as (session, other):
        assert await session.call("echo", PAYLOAD) == PAYLOAD
        [line] = lines()
        assert (line.levelno, line.rpc_session) == (logging.INFO, other.name)
        assert (line.rpc_method, line.rpc_call) == ("echo", 1)
        assert (line.rpc_outcome, line.rpc_fate) == ("result", "stopped")
        assert line.rpc_ms == pytest.approx(250)
        assert line.rpc_bytes_in > len(PAYLOAD)
        assert line.rpc_bytes_out > len(PAYLOAD)
        assert "echo: result, stopped, 250.0 ms" in line.getMessage()
        assert PAYLOAD not in repr(vars(line))


@pytest.mark.parametrize(
    ("method", "args", "outcome", "fate"),
    [
        ("fails", [PAYLOAD], "raised", "stopped"),
        ("nothing", [], "method_not_found", "not started"),
        ("echo", [5], "invalid_arguments", "not started"),
        ("echo", [], "invalid_arguments", "not started"),
        ("bad\n\x1b[2J" + "x" * 1000, [], "method_not_found", "not started"),
    ],
)
async def test_a_failed_call_says_how_and_whether_it_ran(lines, method, args, outcome, fate):
    async with open_session_pair(None, Market(), **served(None)) as (session, _):
        with pytest.raises((trio_rpc.RpcError, Unknown)):
            await session.call(method, *args)
        [line] = lines()
        assert (line.rpc_outcome, line.rpc_fate) == (outcome, fate)
        assert line.getMessage().isprintable()
        assert len(line.getMessage()) < 500
        assert PAYLOAD not in repr(vars(line))


async def test_a_filter_that_refuses_is_seen_as_not_started(lines):
    async def refuse(call, proceed):
        raise trio_rpc.Overloaded(PAYLOAD)

    pair = open_session_pair(None, Market(), **served(None, filters=[refuse]))
    async with pair as (session, _):
        with pytest.raises(trio_rpc.Overloaded):
            await session.call("echo", "x")
        [line] = lines()
        assert (line.rpc_outcome, line.rpc_fate) == ("overloaded", "not started")


async def test_a_cancelled_call_a_stream_and_a_notification_are_lines(autojump_clock, lines):
    async with open_session_pair(None, Market(), **served(None)) as (session, _):
        with trio.move_on_after(1):
            await session.call("hangs")
        async with session.stream("count", 3) as items:
            assert [item async for item in items] == [0, 1, 2]
        await session.notify("note", PAYLOAD)
        await wait_all_tasks_blocked()
        assert [(line.rpc_method, line.rpc_outcome) for line in lines()] == [
            ("hangs", "deadline"),
            ("count", "result"),
            ("note", "result"),
        ]
        assert lines()[2].rpc_call is None


async def test_calls_that_their_session_cuts_off_are_also_logged(lines):
    log = AccessLog()
    async with session_with_raw_peer(Market(), trace=log) as (session, peer):
        peer.send(m.Request(1, "hangs", []), m.Request(2, "hangs", []))
        await wait_all_tasks_blocked()
        assert lines() == []
        peer.channel.close()
        await session.wait_closed()
        assert [line.rpc_fate for line in lines()] == ["unknown", "unknown"]
    assert not log._calls


async def test_a_notification_that_is_dropped_is_a_line_and_leaves_nothing(lines):
    log = AccessLog()
    async with session_with_raw_peer(Market(), trace=log) as (_, peer):
        peer.send(m.Notification("nothing", []), m.Notification("note", [5]))
        peer.send(m.Notification("note", ["x"]), m.Goodbye("done"))
        peer.send(m.Notification("note", ["late"], {}, {"parent": 7}))
        await wait_all_tasks_blocked()
    found = [(line.rpc_method, line.rpc_outcome, line.rpc_fate) for line in lines()]
    assert sorted(found) == [
        ("note", "dropped", "not started"),
        ("note", "dropped", "not started"),
        ("note", "result", "stopped"),
        ("nothing", "dropped", "not started"),
    ]
    assert not log._calls


async def test_calls_that_this_end_makes_are_not_logged(lines):
    async with open_session_pair(None, Market(), options_a={"trace": AccessLog()}) as (session, _):
        await session.call("echo", "x")
    assert lines() == []


async def test_a_declared_error_is_logged_at_debug_without_its_text(caplog):
    caplog.set_level(logging.DEBUG, "trio_rpc.handlers")
    async with open_session_pair(None, Market()) as (session, other):
        with pytest.raises(trio_rpc.RemoteError):
            await session.call("fails", PAYLOAD)
    [record] = [each for each in caplog.records if each.name == "trio_rpc.handlers"]
    assert (record.levelno, record.exc_info) == (logging.DEBUG, None)
    assert record.getMessage() == f"fails, called by {other.name}, raised Unknown"
    assert (record.rpc_session, record.rpc_method, record.rpc_call) == (other.name, "fails", 1)


async def test_a_declared_error_is_not_logged_above_debug(caplog):
    caplog.set_level(logging.INFO)
    async with open_session_pair(None, Market()) as (session, _):
        with pytest.raises(trio_rpc.RemoteError):
            await session.call("fails", PAYLOAD)
    assert not [each for each in caplog.records if each.name.startswith("trio_rpc")]
