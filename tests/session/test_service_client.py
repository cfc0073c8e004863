"""A service client: its proxy exists before its connection, and calls wait for the connection."""

from __future__ import annotations

import contextlib

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Fate, ServiceClient
from trio_rpc.testing import memory_channel_pair


class Logger:
    """Records its arguments. Its ``wait`` blocks until ``go`` is set."""

    def __init__(self):
        self.lines = []
        self.go = trio.Event()
        self.waiting = trio.Event()

    @trio_rpc.method
    async def info(self, line: str) -> int:
        self.lines.append(line)
        return len(self.lines)

    @trio_rpc.notification
    async def note(self, line: str) -> None:
        self.lines.append(line)

    @trio_rpc.stream
    async def tail(self, line: str):
        self.lines.append(line)
        yield line
        yield "more"

    @trio_rpc.duplex
    async def echo(self, channel, line: str):
        self.lines.append(line)
        async for item in channel:
            await channel.send(item)

    @trio_rpc.method
    async def wait(self) -> None:
        self.waiting.set()
        await self.go.wait()


class Screen:
    def __init__(self, name="screen"):
        self.name = name

    @trio_rpc.method
    async def show(self, text: str) -> str:
        return f"{self.name} shows {text}"


@contextlib.asynccontextmanager
async def listening(client, services=None, **options):
    """Connect the client with a session that has these services; yield that session."""
    ours, theirs = memory_channel_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.listen, ours)
        async with trio_rpc.open_session(theirs, services, on_end="keep", **options) as session:
            yield session


class Calls:
    """Starts calls in tasks of their own, one after the other, and keeps their outcomes."""

    def __init__(self, nursery):
        self._nursery = nursery
        self.outcomes = {}

    async def start(self, name, function, *args):
        self._nursery.start_soon(self._run, name, function, args)
        await wait_all_tasks_blocked()

    async def _run(self, name, function, args):
        try:
            self.outcomes[name] = await function(*args)
        except Exception as exc:  # noqa: BLE001 - the outcome is checked
            self.outcomes[name] = exc


async def test_a_proxy_can_be_made_before_there_is_a_connection():
    """A proxy can be made, and called, before there is a connection."""
    client = ServiceClient(Logger)
    logger = Logger()

    async def call():
        assert await client.proxy.info("app start") == 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await wait_all_tasks_blocked()
        assert logger.lines == []
        async with listening(client, logger):
            await wait_all_tasks_blocked()
            assert logger.lines == ["app start"]


async def test_calls_made_before_the_connection_go_out_in_the_order_in_which_they_were_made():
    """Listening to a channel begins the session, and calls made earlier then go out."""
    client, logger = ServiceClient(Logger), Logger()

    async def tail(line):
        async with client.proxy.tail(line) as items:
            return [item async for item in items]

    async def echo(line):
        async with client.proxy.echo(line) as channel:
            await channel.send(line)
            return await channel.receive()

    kinds = [client.proxy.info, client.proxy.note, tail, echo, client.proxy.note]
    names = [f"{number:03}" for number in range(100)]
    async with trio.open_nursery() as nursery:
        calls = Calls(nursery)
        for number, name in enumerate(names):
            await calls.start(name, kinds[number % len(kinds)], name)
        async with listening(client, logger):
            await wait_all_tasks_blocked()
    assert logger.lines == names
    assert not [outcome for outcome in calls.outcomes.values() if isinstance(outcome, Exception)]
    assert calls.outcomes["002"] == ["002", "more"]
    assert calls.outcomes["003"] == "003"


async def test_a_call_made_while_others_wait_their_turn_goes_after_them():
    client, logger = ServiceClient(Logger), Logger()

    async def call_when_open():
        while client.session is None:
            await trio.lowlevel.checkpoint()
        await client.proxy.info("last")

    async with trio.open_nursery() as nursery:
        calls = Calls(nursery)
        for number in range(20):
            await calls.start(number, client.proxy.info, f"{number:02}")
        nursery.start_soon(call_when_open)
        async with listening(client, logger):
            await wait_all_tasks_blocked()
    assert logger.lines == [f"{number:02}" for number in range(20)] + ["last"]


async def test_a_call_that_waits_ends_with_the_deadline_of_its_caller(autojump_clock):
    client, logger = ServiceClient(Logger), Logger()
    with trio.move_on_after(5) as scope:
        await client.proxy.info("too late")
    assert scope.cancelled_caught
    assert trio.current_time() == 5
    async with listening(client, logger):
        await client.proxy.info("in time")
    assert logger.lines == ["in time"]


async def test_a_cancelled_waiting_call_does_not_disturb_the_order_of_the_others():
    client, logger = ServiceClient(Logger), Logger()
    async with trio.open_nursery() as nursery:
        calls = Calls(nursery)
        await calls.start(1, client.proxy.info, "1")
        async with trio.open_nursery() as cancelled:
            cancelled.start_soon(client.proxy.info, "2")
            await wait_all_tasks_blocked()
            await calls.start(3, client.proxy.info, "3")
            cancelled.cancel_scope.cancel()
        async with listening(client, logger):
            await wait_all_tasks_blocked()
    assert logger.lines == ["1", "3"]


async def test_the_number_of_waiting_calls_is_bounded():
    client, logger = ServiceClient(Logger, max_waiting=2), Logger()
    async with trio.open_nursery() as nursery:
        calls = Calls(nursery)
        for number in range(3):
            await calls.start(number, client.proxy.info, str(number))
        error = calls.outcomes[2]
        assert isinstance(error, trio_rpc.Overloaded)
        assert error.fate is Fate.NOT_STARTED
        assert "2 calls are waiting" in str(error)
        async with listening(client, logger):
            await wait_all_tasks_blocked()
    assert logger.lines == ["0", "1"]


async def test_the_target_may_be_set_before_or_during_the_connection_or_never():
    """A client is made with a target or without one, and its target may be set later."""
    client = ServiceClient(Logger)
    async with listening(client) as session:
        screen = session.proxy("", Screen)
        with pytest.raises(trio_rpc.MethodNotFound):
            await screen.show("a")
        client.target = Screen("first")
        assert await screen.show("b") == "first shows b"
        async with listening(ServiceClient(Logger)) as other:  # it has no target
            with pytest.raises(trio_rpc.MethodNotFound):
                await other.proxy("", Screen).show("a")
        client.target = Screen("second")
        assert await screen.show("c") == "second shows c"
        client.target = None
        with pytest.raises(trio_rpc.MethodNotFound):
            await screen.show("d")
        async with session.open_scope():  # built-in methods remain
            pass
        client.target = Screen("third")
    async with listening(client) as session:
        assert await session.proxy("", Screen).show("e") == "third shows e"


async def test_a_target_that_is_set_while_the_session_opens_is_served():
    """This end has accepted the other one, which has not answered yet."""
    client, go = ServiceClient(Logger), trio.Event()

    async def authenticate(_session, _credentials):
        await go.wait()

    ours, theirs = memory_channel_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.listen, ours)
        calls = Calls(nursery)

        async def call():
            async with trio_rpc.open_session(theirs, authenticate=authenticate) as session:
                return await session.proxy("", Screen).show("a")

        await calls.start(1, call)
        client.target = Screen("late")
        go.set()
    assert calls.outcomes == {1: "late shows a"}


async def test_a_target_that_is_not_a_service_is_refused_and_the_previous_one_remains():
    client = ServiceClient(Logger, Screen())
    for wrong in (object(), Screen, lambda _session: Screen(), {"screen": Screen()}):
        with pytest.raises(TypeError):
            client.target = wrong
        with pytest.raises(TypeError):
            ServiceClient(Logger, wrong)
    async with listening(client) as session:
        assert await session.proxy("", Screen).show("a") == "screen shows a"


async def test_a_running_handler_of_the_previous_target_goes_on():
    logger = Logger()
    client = ServiceClient(Screen, logger)
    async with listening(client) as session, trio.open_nursery() as nursery:
        nursery.start_soon(session.proxy("", Logger).wait)
        await logger.waiting.wait()
        client.target = None
        logger.go.set()


async def test_after_the_end_calls_fail_at_once_with_the_reason():
    """Calls after the end fail at once, with the reason."""
    client = ServiceClient(Logger)
    async with listening(client, Logger()):
        await client.proxy.info("a")
    with pytest.raises(trio_rpc.SessionBroken, match="the other end has left") as info:
        await client.proxy.info("b")
    assert info.value.fate is Fate.NOT_STARTED
    assert info.value.orderly
    with pytest.raises(trio_rpc.SessionBroken):
        async with client.proxy.tail("c"):
            pass
    with pytest.raises(trio_rpc.SessionBroken):
        await client.proxy.note("d")


async def test_after_the_end_another_channel_can_be_listened_to():
    client, first, second = ServiceClient(Logger), Logger(), Logger()
    async with listening(client, first):
        await client.proxy.info("a")
    with pytest.raises(trio_rpc.SessionBroken):
        await client.proxy.info("b")
    async with listening(client, second):
        await client.proxy.info("c")
    assert (first.lines, second.lines) == (["a"], ["c"])


async def test_with_a_grace_time_calls_after_the_end_wait_for_the_next_connection(autojump_clock):
    client, logger = ServiceClient(Logger, grace=10), Logger()
    async with listening(client, Logger()):
        await client.proxy.info("a")
    async with trio.open_nursery() as nursery:
        calls = Calls(nursery)
        await calls.start(1, client.proxy.info, "b")
        await calls.start(2, client.proxy.note, "c")
        await trio.sleep(9)
        assert calls.outcomes == {}
        async with listening(client, logger):
            await wait_all_tasks_blocked()
    assert logger.lines == ["b", "c"]
    assert calls.outcomes == {1: 1, 2: None}


async def test_the_grace_time_is_bounded_and_counts_from_the_end_of_the_connection(autojump_clock):
    """With ``grace``, a call waits only that long for a new connection."""
    client = ServiceClient(Logger, grace=10)
    async with listening(client, Logger()):
        pass
    await trio.sleep(6)
    with pytest.raises(trio_rpc.SessionBroken) as info:
        await client.proxy.info("a")
    assert trio.current_time() == 10
    assert info.value.fate is Fate.NOT_STARTED
    with pytest.raises(trio_rpc.SessionBroken):
        await client.proxy.info("b")
    assert trio.current_time() == 10, "it did not fail at once"


async def test_a_call_made_while_the_connection_closes_gets_the_grace_time(autojump_clock):
    busy = Logger()
    client = ServiceClient(Logger, busy, grace=10)
    async with trio.open_nursery() as nursery:
        calls = Calls(nursery)
        async with listening(client, Logger()) as session:
            await calls.start("busy", session.proxy("", Logger).wait)
            nursery.start_soon(session.aclose)
            await wait_all_tasks_blocked()
            assert not client.session.is_open
            await calls.start("late", client.proxy.info, "a")
            assert "late" not in calls.outcomes
            busy.go.set()
    assert isinstance(calls.outcomes["late"], trio_rpc.SessionBroken)
    assert trio.current_time() == 10


async def test_attempts_that_fail_do_not_prolong_the_grace_time(autojump_clock):
    client = ServiceClient(Logger, grace=10)
    async with listening(client, Logger()):
        pass

    async def try_again():
        while True:
            ours, theirs = memory_channel_pair()
            await trio.sleep(4)
            await theirs.aclose()
            with pytest.raises(trio_rpc.SessionBroken):
                await client.listen(ours)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(try_again)
        with pytest.raises(trio_rpc.SessionBroken):
            await client.proxy.info("a")
        nursery.cancel_scope.cancel()
    assert trio.current_time() == 10


async def test_calls_that_wait_for_a_connection_that_cannot_be_opened_fail():
    client = ServiceClient(Logger)
    ours, theirs = memory_channel_pair()
    async with trio.open_nursery() as nursery:
        calls = Calls(nursery)
        await calls.start(1, client.proxy.info, "a")
        await theirs.aclose()
        with pytest.raises(trio_rpc.SessionBroken):
            await client.listen(ours)
    error = calls.outcomes[1]
    assert isinstance(error, trio_rpc.SessionBroken)
    assert error.fate is Fate.NOT_STARTED


@pytest.mark.parametrize("grace", [0, 100])
async def test_a_refused_connection_fails_the_calls_that_wait_with_the_reason(grace, no_time):
    client = ServiceClient(Logger, grace=grace)
    ours, theirs = memory_channel_pair()

    async def refuse(session, credentials):
        raise trio_rpc.Refused("unknown token")

    async def serve():
        with pytest.raises(trio_rpc.Refused):
            await trio_rpc.serve_session(theirs, Logger(), authenticate=refuse)

    async with trio.open_nursery() as nursery:
        calls = Calls(nursery)
        await calls.start(1, client.proxy.info, "a")
        nursery.start_soon(serve)
        with pytest.raises(trio_rpc.Refused, match="unknown token"):
            await client.listen(ours)
        await calls.start(2, client.proxy.info, "b")
        for number in (1, 2):
            error = calls.outcomes[number]
            assert isinstance(error, trio_rpc.Refused)
            assert error.fate is Fate.NOT_STARTED
            assert "unknown token" in str(error)
        assert calls.outcomes[1] is not calls.outcomes[2]


async def test_a_peer_that_does_not_speak_the_protocol_fails_the_calls_that_wait():
    client = ServiceClient(Logger)
    ours, theirs = memory_channel_pair()
    async with trio.open_nursery() as nursery:
        calls = Calls(nursery)
        await calls.start(1, client.proxy.info, "a")
        await theirs.send(b"hello")
        with pytest.raises(trio_rpc.RemoteProtocolError):
            await client.listen(ours)
    assert isinstance(calls.outcomes[1], trio_rpc.RemoteProtocolError)
    assert calls.outcomes[1].fate is Fate.NOT_STARTED


@pytest.mark.parametrize("grace", [0, 100])
async def test_a_call_in_flight_ends_with_its_known_fate_and_is_not_repeated(grace):
    client, first, second = ServiceClient(Logger, grace=grace), Logger(), Logger()
    ours, theirs = memory_channel_pair()
    async with trio.open_nursery() as nursery:
        calls = Calls(nursery)
        nursery.start_soon(client.listen, ours)
        nursery.start_soon(trio_rpc.serve_session, theirs, first)
        nursery.start_soon(calls._run, 1, client.proxy.wait, ())
        await first.waiting.wait()
        await theirs.aclose()
        await wait_all_tasks_blocked()
        assert isinstance(calls.outcomes[1], trio_rpc.SessionBroken)
        assert calls.outcomes[1].fate is Fate.UNKNOWN
        async with listening(client, second):
            await client.proxy.info("b")
    assert second.lines == ["b"]
    assert not second.waiting.is_set()


async def test_listen_returns_who_ended_the_session_and_why():
    client = ServiceClient(Logger)
    ours, theirs = memory_channel_pair()
    ends = []

    async def listen():
        ends.append(await client.listen(ours))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        async with trio_rpc.open_session(theirs):
            pass
    assert ends[0].by == "peer"
    assert ends[0].cause is None


async def test_listen_starts_with_the_open_session():
    client = ServiceClient(Logger)
    ours, theirs = memory_channel_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio_rpc.serve_session, theirs, Logger())
        session = await nursery.start(client.listen, ours)
        assert session is client.session
        assert session.is_open
        await session.aclose()
    assert client.session is None
    with pytest.raises(trio_rpc.SessionClosed):
        await client.proxy.info("a")


async def test_a_cancelled_listen_ends_the_session_and_its_calls(tasks):
    client, logger = ServiceClient(Logger), Logger()
    before = tasks()
    ours, theirs = memory_channel_pair()
    async with trio.open_nursery() as nursery:
        calls = Calls(nursery)
        nursery.start_soon(trio_rpc.serve_session, theirs, logger)
        async with trio.open_nursery() as listening_nursery:
            await listening_nursery.start(client.listen, ours)
            nursery.start_soon(calls._run, 1, client.proxy.wait, ())
            await logger.waiting.wait()
            listening_nursery.cancel_scope.cancel()
        await wait_all_tasks_blocked()
        assert isinstance(calls.outcomes[1], trio_rpc.SessionClosed)
    assert tasks() == before


async def test_a_client_listens_to_one_channel_at_a_time():
    client, logger = ServiceClient(Logger), Logger()
    async with listening(client, logger):
        await client.proxy.info("a")
        other, _ = memory_channel_pair()
        with pytest.raises(trio.BusyResourceError):
            await client.listen(other)
        await client.proxy.info("b")  # the first session goes on
    assert logger.lines == ["a", "b"]


async def test_both_ends_call_each_other_and_calls_nest():
    class Left:
        def __init__(self, client):
            self.other = client.proxy

        @trio_rpc.method
        async def count(self, number: int) -> int:
            return number if number == 0 else 1 + await self.other.count(number - 1)

    a, b = ServiceClient(Left), ServiceClient(Left)
    a.target, b.target = Left(a), Left(b)
    ours, theirs = memory_channel_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(a.listen, ours)
        nursery.start_soon(b.listen, theirs)
        assert await a.proxy.count(10) == 10
        nursery.cancel_scope.cancel()


async def test_a_handler_may_call_back_while_the_session_closes_even_with_a_grace_time(no_time):
    class Asking:
        def __init__(self):
            self.begun = trio.Event()

        @trio_rpc.method
        async def ask(self) -> str:
            self.begun.set()
            while client.session.is_open:
                await trio.lowlevel.checkpoint()
            return await client.proxy.show("it")

    client = ServiceClient(Screen, grace=100)
    client.target = asking = Asking()
    async with listening(client, Screen()) as session, trio.open_nursery() as nursery:
        calls = Calls(nursery)
        nursery.start_soon(calls._run, 1, session.proxy("", Asking).ask, ())
        await asking.begun.wait()
        await session.aclose()
    assert calls.outcomes == {1: "screen shows it"}


async def test_filters_and_metadata_apply_to_calls_that_waited():
    """A client is made with the options of its sessions, such as filters."""
    seen = []

    async def watch(call, proceed):
        seen.append((call.method, dict(call.metadata)))
        return await proceed()

    client = ServiceClient(Logger, filters=[watch])

    async def call():
        with trio_rpc.metadata(user="ann"):
            await client.proxy.info("a")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await wait_all_tasks_blocked()
        async with listening(client, Logger()):
            await wait_all_tasks_blocked()
    assert seen == [("info", {"user": "ann"})]


async def test_a_task_can_be_started_through_a_client_that_is_not_connected_yet():
    class Feed:
        @trio_rpc.method
        async def feed(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED):
            task_status.started(7)

    client = ServiceClient(Feed)
    started = []

    async def start():
        async with trio.open_nursery() as nursery:
            started.append(await nursery.start(client.proxy.feed))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(start)
        await wait_all_tasks_blocked()
        async with listening(client, Feed()):
            await wait_all_tasks_blocked()
    assert started == [7]


async def test_a_client_may_be_used_in_several_trio_runs_after_each_other():
    client = ServiceClient(Logger)

    async def use():
        async with listening(client, Logger()):
            assert await client.proxy.info("a") == 1

    for _ in range(2):
        await trio.to_thread.run_sync(trio.run, use)


async def test_a_client_may_not_be_used_in_two_trio_runs_at_once():
    client = ServiceClient(Logger)

    async def use():
        with pytest.raises(RuntimeError, match="belongs to the Trio run"):
            await client.proxy.info("b")
        ours, _ = memory_channel_pair()
        with pytest.raises(RuntimeError, match="belongs to the Trio run"):
            await client.listen(ours)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.proxy.info, "a")
        await wait_all_tasks_blocked()
        await trio.to_thread.run_sync(trio.run, use)
        nursery.cancel_scope.cancel()


async def test_bad_arguments_are_refused_at_once():
    with pytest.raises(ValueError, match="max_waiting"):
        ServiceClient(Logger, max_waiting=-1)
    with pytest.raises(ValueError, match="grace"):
        ServiceClient(Logger, grace=float("nan"))
    with pytest.raises(TypeError, match="limts"):
        ServiceClient(Logger, limts=None)
    with pytest.raises(TypeError):
        ServiceClient(object)
