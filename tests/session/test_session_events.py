"""A server's session events: a session has opened, or is over, and why."""

from __future__ import annotations

import contextlib
import gc

import pytest
import trio
from helpers.handlers import Echo, Sleeper
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import SessionEnd, SessionEvent
from trio_rpc.session.session_events import SessionEvents

URLS = ["tcp://127.0.0.1:0", "ws://127.0.0.1:0"]


@pytest.fixture(params=[*URLS, "unix", "resumable"])
async def open_server(request, tmp_path):
    """Return a function that opens a server over one transport, and one that connects to it."""
    options = {"resume": True} if request.param == "resumable" else {}
    url = f"unix://{tmp_path}/socket" if request.param == "unix" else request.param
    url = URLS[0] if request.param == "resumable" else url

    @contextlib.asynccontextmanager
    async def opened(services):
        async with trio_rpc.open_server(services, url, **options) as server:
            yield server, lambda: trio_rpc.connect(server.urls[0], **options)

    return opened


class Reader:
    """Reads the events of a server in a task of its own."""

    def __init__(self):
        self.events: list[SessionEvent] = []
        self.is_over = False
        self._read = trio.Event()

    async def read(self, server, *, task_status):
        events = server.session_events()
        task_status.started()
        async for event in events:
            self.events.append(event)
            self._read.set()
        self.is_over = True

    async def until(self, count):
        with trio.fail_after(30):
            while len(self.events) < count:
                self._read = trio.Event()
                await self._read.wait()
        return self.events


async def test_a_server_reports_that_a_session_opens_and_that_it_is_over_and_why(
    open_server, nursery
):
    reader = Reader()
    async with open_server(Echo()) as (server, connect):
        await nursery.start(reader.read, server)
        async with connect() as session:
            assert await session.call("echo", 1) == 1
            (opened,) = await reader.until(1)
            assert (opened.kind, opened.end) == ("opened", None)
            assert opened.session in server.sessions
            await session.aclose(reason="enough for today")
        _, closed = await reader.until(2)
    assert closed.kind == "closed"
    assert closed.session is opened.session
    assert closed.end is not None
    assert (closed.end.by, closed.end.cause) == ("peer", None)
    assert "enough for today" in closed.end.reason
    await wait_all_tasks_blocked()
    assert reader.is_over


async def test_the_server_is_the_cause_of_the_end_of_a_session_that_it_closes(open_server, nursery):
    reader = Reader()
    async with open_server(Echo()) as (server, connect):
        await nursery.start(reader.read, server)
        with pytest.raises(trio_rpc.SessionBroken):
            async with connect():
                (opened,) = await reader.until(1)
                await opened.session.aclose()
                await trio.sleep_forever()
        _, closed = await reader.until(2)
        assert closed.end == await opened.session.wait_closed()
        assert closed.end.by == "us"


async def test_an_iteration_begins_with_the_sessions_that_are_open(open_server, nursery):
    async with open_server(Echo()) as (server, connect), connect() as one, connect() as two:
        await one.ping()
        await two.ping()
        reader = Reader()
        await nursery.start(reader.read, server)
        events = await reader.until(2)
        assert {event.session for event in events} == server.sessions
        assert [event.kind for event in events] == ["opened", "opened"]


async def test_several_readers_each_get_all_events(open_server, nursery):
    readers = Reader(), Reader()
    async with open_server(Echo()) as (server, connect):
        for reader in readers:
            await nursery.start(reader.read, server)
        async with connect() as session:
            await session.ping()
        for reader in readers:
            assert [event.kind for event in await reader.until(2)] == ["opened", "closed"]


async def test_an_iteration_ends_with_the_server_after_the_ends_of_all_sessions(
    open_server, nursery
):
    reader, sleeper = Reader(), Sleeper()
    async with open_server(sleeper) as (server, connect):
        await nursery.start(reader.read, server)
        nursery.start_soon(_sleep, connect)
        while not sleeper.running:
            await trio.lowlevel.checkpoint()
    await reader.until(2)
    await wait_all_tasks_blocked()
    assert [event.kind for event in reader.events] == ["opened", "closed"]
    assert reader.is_over
    assert [event async for event in server.session_events()] == []


async def _sleep(connect):
    with contextlib.suppress(trio_rpc.RpcError):
        async with connect() as session:
            await session.call("sleep")


async def test_a_session_that_never_opened_makes_no_event_and_no_error(nursery, caplog):
    reader = Reader()

    async def refuse(_session, _credentials):
        raise trio_rpc.Refused("nobody")

    async with trio_rpc.open_server(Echo(), *URLS, authenticate=refuse) as server:
        await nursery.start(reader.read, server)
        for url in server.urls:
            with pytest.raises(trio_rpc.Refused):
                async with trio_rpc.connect(url):
                    raise AssertionError
    await wait_all_tasks_blocked()
    assert reader.events == []
    assert reader.is_over
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


async def test_a_slow_reader_can_keep_a_correct_table_of_sessions():
    """The number of waiting events is bounded, and no end arrives without its opening."""
    sessions = [object() for _ in range(100)]
    end = SessionEnd("peer", "left", None)
    reader = SessionEvents(sessions[:10], is_over=False)
    known = {(await anext(reader)).session for _ in range(10)}
    assert known == {*sessions[:10]}
    for session in sessions[10:]:
        reader.opened(session)
        reader.closed(session, end)
    for session in sessions[:5]:
        reader.closed(session, end)
    reader.opened(late := object())
    reader.server_is_over()
    async for event in reader:
        if event.kind == "opened":
            known.add(event.session)
        else:
            known.remove(event.session)
    assert known == {*sessions[5:10], late}


async def test_an_iterator_without_references_is_forgotten():
    async with trio_rpc.open_server(Echo(), URLS[0]) as server:
        events = server.session_events()
        assert len(server._readers) == 1
        del events
        gc.collect()
        assert len(server._readers) == 0


async def test_a_cancelled_reader_loses_no_event():
    reader = SessionEvents([], is_over=False)
    with trio.move_on_after(0):
        await anext(reader)
    reader.opened(session := object())
    with trio.CancelScope() as scope:
        scope.cancel()
        await anext(reader)
    assert (await anext(reader)).session is session
