"""Services that are async context managers: entered when the session opens, left at its end."""

from __future__ import annotations

import logging

import pytest
import trio
from helpers.raw_peer import HELLO, RawPeer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Limits, MethodNotFound
from trio_rpc.testing import memory_channel_pair


class Held:
    """Records when it is entered and left, and with which error."""

    def __init__(self, events, name="held"):
        self.events = events
        self.name = name

    async def __aenter__(self):
        await trio.lowlevel.checkpoint()
        self.events.append(f"{self.name} entered")
        return self

    async def __aexit__(self, _kind, exc, _traceback):
        await trio.lowlevel.checkpoint()
        self.events.append(f"{self.name} left" + (f" with {type(exc).__name__}" if exc else ""))

    @trio_rpc.method
    async def work(self, seconds: float = 0.0) -> str:
        try:
            await trio.sleep(seconds)
        finally:
            self.events.append("handler ended")
        return self.name


class WithNursery(Held):
    """Has a nursery, whose task runs as long as the session."""

    def __init__(self, events, name="held"):
        super().__init__(events, name)
        self.fail = trio.Event()

    async def __aenter__(self):
        self._manager = trio.open_nursery()
        self.nursery = await self._manager.__aenter__()
        self.nursery.start_soon(self._run)
        return await super().__aenter__()

    async def __aexit__(self, kind, exc, traceback):
        self.nursery.cancel_scope.cancel()
        try:
            await self._manager.__aexit__(kind, exc, traceback)
        except BaseExceptionGroup as group:
            if [type(each) for each in group.exceptions] != [type(exc)]:
                raise
        await super().__aexit__(kind, exc, traceback)

    async def _run(self):
        try:
            await self.fail.wait()
            raise ZeroDivisionError("the task of the service")
        finally:
            self.events.append("task ended")


@pytest.mark.parametrize("cls", [Held, WithNursery])
async def test_a_service_is_entered_when_the_session_opens_and_left_before_its_block_ends(
    cls, session_pair
):
    """The end of a session clears its proxies and services, and disposes services that can be
    disposed.
    """
    events = []
    async with session_pair({"held": cls(events)}) as (a, b):
        proxies = {end: end.proxy("held") for end in (a, b)}
        assert b.proxy("held") is proxies[b]
        assert events == ["held entered"]
        assert await b.call("held.work") == "held"
        assert events == ["held entered", "handler ended"]
        events.clear()
    events = [each for each in events if each != "task ended"]
    assert events == ["held left"]
    for end in (a, b):
        assert end.proxy("held") is not proxies[end]


async def test_services_are_entered_in_order_and_left_in_reverse(session_pair):
    events = []

    class Slowly(Held):
        """Takes the longer to leave, the later it was entered."""

        async def __aexit__(self, *exc):
            for _ in range(3 * order.index(self.name)):
                await trio.lowlevel.checkpoint()
            self.events.append(f"{self.name} left")

    order = ["one", "two", "three"]
    services = {name: Slowly(events, name) for name in order}
    async with session_pair(services):
        assert events == ["one entered", "two entered", "three entered"]
        events.clear()
    assert events == ["three left", "two left", "one left"]


async def test_a_service_is_left_after_the_handlers_of_all_services(session_pair, autojump_clock):
    events = []

    class Slow(Held):
        @trio_rpc.method
        async def work(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(0.5)
                self.events.append("handler ended")

    async with (
        session_pair({"held": WithNursery(events), "slow": Slow(events, "slow")}) as (a, b),
        trio.open_nursery() as nursery,
    ):

        async def call():
            with pytest.raises((trio_rpc.SessionBroken, trio_rpc.RemoteCancelled)):
                await b.call("slow.work")

        nursery.start_soon(call)
        while not a.tree():
            await trio.lowlevel.checkpoint()
        await trio.sleep(0.1)
        await a.aclose(grace=0)
    ends = [each for each in events if not each.endswith("entered")]
    assert ends == ["handler ended", "slow left", "task ended", "held left"]


async def test_each_session_enters_the_services_that_a_class_makes_for_it(session_pair):
    """The class gets the session, so the service can call the other end as long as it lasts."""
    events = []

    class Greeting(Held):
        def __init__(self, session):
            super().__init__(events)
            self.session = session

    async with session_pair(Greeting, Held([])) as (_, b):
        assert await b.call("work") == "held"
    assert events[0] == "held entered"
    assert events[-1] == "held left"


@pytest.mark.parametrize("cls", [Held, WithNursery])
async def test_a_service_is_left_with_the_error_if_the_session_broke(cls, autojump_clock):
    events = []
    ours, theirs = memory_channel_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_lose, theirs)
        with pytest.raises(trio_rpc.SessionBroken):
            async with trio_rpc.open_session(ours, {"held": cls(events)}):
                await trio.sleep_forever()
        nursery.cancel_scope.cancel()
    assert events[0] == "held entered"
    assert events[-1] == "held left with SessionBroken"


async def _lose(channel):
    async with trio_rpc.open_session(channel, on_end="keep"):
        await trio.sleep(1)
        await channel.aclose()
        await trio.sleep_forever()


async def test_a_server_leaves_the_services_of_a_session_that_is_cancelled(session_pair):
    events = []
    with trio.CancelScope() as scope:
        async with session_pair({"held": WithNursery(events)}):
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert events[:2] == ["held entered", "task ended"]
    assert events[2].startswith("held left")  # the connection may have been lost before


# ── bad services ─────────────────────────────────────────────────────────────────────────────────


class Failing(Held):
    """Raises when it is entered."""

    error: type[Exception] = ZeroDivisionError

    async def __aenter__(self):
        await trio.lowlevel.checkpoint()
        raise self.error("not today")


class Hanging(Held):
    """Is never entered."""

    async def __aenter__(self):
        await trio.sleep_forever()


class Refusing(Failing):
    error = trio_rpc.Refused


async def _serve_and_connect(services, limits=trio_rpc.DEFAULT_LIMITS):
    """Serve a session, connect to it, and return the error of each end."""
    ours, theirs = memory_channel_pair()
    raised = {}

    async def connect():
        try:
            async with trio_rpc.open_session(theirs):
                raise AssertionError
        except (trio_rpc.RpcError, ExceptionGroup) as exc:
            raised["client"] = exc

    async with trio.open_nursery() as nursery:
        nursery.start_soon(connect)
        try:
            await trio_rpc.serve_session(ours, services, limits=limits)
        except Exception as exc:  # noqa: BLE001 - the test looks at it
            raised["server"] = exc
    return raised


async def test_an_error_of_entering_is_raised_by_the_end_that_serves(no_time):
    events = []
    services = {"one": Held(events, "one"), "two": Failing(events, "two")}
    raised = await _serve_and_connect(services)
    assert type(raised["server"]) is ZeroDivisionError
    assert type(raised["client"]) is trio_rpc.SessionBroken
    assert events[0] == "one entered"
    assert events[1].startswith("one left with")


async def test_a_service_may_refuse_a_session_when_it_is_entered(no_time):
    raised = await _serve_and_connect({"held": Refusing([])})
    assert type(raised["server"]) is type(raised["client"]) is trio_rpc.Refused
    assert "not today" in str(raised["client"])


async def test_entering_is_bounded_by_the_time_of_the_handshake(autojump_clock):
    raised = await _serve_and_connect({"held": Hanging([])}, Limits(handshake_timeout=3))
    assert trio.current_time() == pytest.approx(3, abs=0.1)
    assert type(raised["server"]) is type(raised["client"]) is trio_rpc.SessionBroken


async def test_a_client_that_leaves_while_a_service_is_being_entered_ends_that(no_time):
    ours, theirs = memory_channel_pair()
    peer = RawPeer(theirs)
    peer.send(HELLO)
    async with trio.open_nursery() as nursery:

        async def serve():
            with pytest.raises(trio_rpc.SessionBroken):
                await trio_rpc.serve_session(ours, {"held": Hanging([])})

        nursery.start_soon(serve)
        await wait_all_tasks_blocked()
        await theirs.aclose()


async def test_a_task_of_a_service_that_fails_ends_its_session_with_that_error(session_pair):
    service = WithNursery([])
    with pytest.raises(ZeroDivisionError, match="the task of the service"):
        async with session_pair({"held": service}, on_end="keep"):
            service.fail.set()
            await trio.sleep_forever()
    assert service.events == ["held entered", "task ended"]


async def test_leaving_is_bounded_in_time(session_pair, autojump_clock, caplog):
    class Stuck(Held):
        async def __aexit__(self, *_):
            await trio.sleep_forever()

    options = {"limits": Limits(shutdown_timeout=2)}
    async with session_pair({"held": Stuck([])}, options_a=options):
        pass
    assert trio.current_time() == pytest.approx(2, abs=0.5)
    assert "a service of type Stuck was not left within 2 s" in caplog.text


async def test_an_error_of_leaving_is_raised_by_the_block(session_pair):
    class Wrong(Held):
        async def __aexit__(self, *_):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with session_pair({"held": Wrong([])}):
            pass


async def test_a_server_goes_on_after_a_session_whose_service_failed(nursery, caplog):
    events = []

    def services(session):
        made.append(session)
        return {"held": (Failing if len(made) == 1 else Held)(events)}

    made = []
    urls = await nursery.start(trio_rpc.serve, services, "tcp://127.0.0.1:0")
    with caplog.at_level(logging.CRITICAL, "trio_rpc"), pytest.raises(trio_rpc.SessionBroken):
        async with trio_rpc.connect(urls[0]):
            raise AssertionError
    async with trio_rpc.connect(urls[0]) as session:
        assert await session.call("held.work") == "held"


# ── services that all sessions of a server share ─────────────────────────────────────────────────


async def test_a_server_enters_the_services_that_its_sessions_share_once(autojump_clock):
    events = []
    services = {"one": Held(events, "one"), "two": WithNursery(events, "two")}
    async with trio_rpc.open_server(services, "tcp://127.0.0.1:0") as server:
        assert events == ["one entered", "two entered"]
        for _ in range(2):
            async with trio_rpc.connect(server.urls[0]) as session:
                assert await session.call("two.work") == "two"
        assert events == ["one entered", "two entered", "handler ended", "handler ended"]
        events.clear()
    assert events == ["task ended", "two left", "one left"]


async def test_a_cancelled_server_leaves_its_services_after_its_sessions(autojump_clock):
    events = []
    with trio.CancelScope() as scope:
        async with trio_rpc.open_server(WithNursery(events), "tcp://127.0.0.1:0") as server:
            async with trio_rpc.connect(server.urls[0]) as session, trio.open_nursery() as nursery:
                nursery.start_soon(session.call, "work", 1000.0)
                while not any(each.tree() for each in server.sessions):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
    assert events == ["held entered", "handler ended", "task ended", "held left"]


async def test_a_server_whose_service_cannot_be_entered_does_not_listen():
    events = []
    services = {"one": Held(events, "one"), "two": Failing(events)}
    with pytest.raises(ZeroDivisionError):
        async with trio_rpc.open_server(services, "tcp://127.0.0.1:0"):
            raise AssertionError
    assert events == ["one entered", "one left"]


async def test_a_server_whose_service_breaks_ends_with_its_error(autojump_clock):
    service = WithNursery([])
    with pytest.raises(ZeroDivisionError):
        async with trio_rpc.open_server(service, "tcp://127.0.0.1:0"):
            service.fail.set()
            await trio.sleep_forever()


# ── set and remove ───────────────────────────────────────────────────────────────────────────────


async def test_a_service_that_is_set_can_be_called_once_it_is_entered(session_pair):
    events = []
    async with session_pair(options_a={"wait_for_service": 10}) as (a, b):
        held = a.set("held", Held(events))
        assert held.events == []
        with pytest.raises(ValueError, match="already a service with the name 'held'"):
            a.set("held", Held(events))
        assert await b.call("held.work") == "held"
        assert events == ["held entered", "handler ended"]
    assert events[-1] == "held left"


async def test_a_removed_service_is_left_after_its_own_handlers(session_pair, autojump_clock):
    events, others = [], []
    services = {"held": WithNursery(events), "other": Held(others, "other")}
    async with session_pair(services) as (a, b), trio.open_nursery() as nursery:
        nursery.start_soon(b.call, "other.work", 8.0)
        nursery.start_soon(b.call, "held.work", 2.0)
        while len(a.tree()) < 2:
            await trio.lowlevel.checkpoint()
        a.remove("held")
        await trio.sleep(1)
        assert events == ["held entered"]
        a.set("held", Held(others, "new"))
        await trio.sleep(2)
        assert events == ["held entered", "handler ended", "task ended", "held left"]
        assert others == ["other entered", "new entered"]


async def test_a_service_that_is_removed_while_it_is_being_entered_can_never_be_called(
    session_pair,
):
    async with session_pair() as (a, b):
        a.set("held", Hanging([]))
        await trio.lowlevel.checkpoint()
        a.remove("held")
        a.set("held", Held([], "second"))
        while True:
            try:
                assert await b.call("held.work") == "second"
            except MethodNotFound:
                continue
            break


class _Prompt(Held):
    """Is entered without waiting."""

    async def __aenter__(self):
        self.events.append(f"{self.name} entered")
        return self


async def test_a_service_that_is_removed_at_once_is_neither_entered_nor_left(session_pair, caplog):
    events = []
    async with session_pair() as (a, b):
        a.set("held", _Prompt(events, "first"))
        a.remove("held")
        a.set("held", Held(events, "second"))
        await wait_all_tasks_blocked()
        assert await b.call("held.work") == "second"
    assert events == ["second entered", "handler ended", "second left"]
    assert caplog.text == ""


class _Stubborn(Held):
    """Cannot be interrupted while it is being entered."""

    async def __aenter__(self):
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
        return self


async def test_a_service_that_was_entered_in_spite_of_its_removal_is_not_said_to_leave_late(
    session_pair, autojump_clock, caplog
):
    events = []
    async with session_pair() as (a, _):
        a.set("held", _Stubborn(events))
        await trio.sleep(0.5)
        a.remove("held")
        await trio.sleep(1)
    assert "was not left" not in caplog.text


async def test_a_service_that_is_set_and_cannot_be_entered_ends_the_session(session_pair):
    with pytest.raises(ZeroDivisionError):
        async with session_pair(on_end="keep") as (a, _):
            a.set("held", Failing([]))
            await trio.sleep_forever()


async def test_a_service_that_a_handler_sets_does_not_run_in_the_call_of_that_handler(session_pair):
    class Asking(Held):
        async def __aenter__(self):
            with pytest.raises(RuntimeError, match="no remote call is being handled"):
                trio_rpc.current_call()
            return await super().__aenter__()

    class Loader:
        @trio_rpc.method
        async def load(self) -> None:
            trio_rpc.current_call().session.set("held", Asking([]))

    async with session_pair({"": Loader()}, options_a={"wait_for_service": 10}) as (_, b):
        await b.call("load")
        assert await b.call("held.work") == "held"


async def test_a_cancelled_caller_waits_for_its_handler_beside_a_held_service(
    session_pair, autojump_clock
):
    """A cancelled caller waits for its handler, which runs beside the task that holds the service."""
    events = []
    async with session_pair({"held": WithNursery(events)}) as (a, b):
        with trio.move_on_after(1) as scope:
            await b.call("held.work", 1000.0)
        assert scope.cancelled_caught
        assert events == ["held entered", "handler ended"]
        assert a.tree() == []
