"""Services that are set and removed while a session is open."""

from __future__ import annotations

import logging

import pytest
import trio
from helpers.handlers import Echo, Sleeper
from helpers.raw_peer import session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Fate, Identifier, MethodNotFound
from trio_rpc.testing import memory_channel_pair
from trio_rpc.wire import messages as m


class Named:
    def __init__(self, name):
        self.name = name

    @trio_rpc.method
    async def tell(self) -> str:
        return self.name

    @trio_rpc.method
    async def tell_main(self) -> str:
        """Call the service of the other end that this one was set from."""
        return await trio_rpc.current_call().session.call("main.tell")


NAMED = Identifier("named", Named)


async def test_a_service_is_set_on_a_live_session_and_returned(session_pair):
    """A service is set on a live session, which returns it.

    A call of a service that is not registered fails at once, with its name.
    """
    async with session_pair() as (a, b):
        with pytest.raises(MethodNotFound, match="there is no service 'named'") as refused:
            await b.call("named.tell")
        assert refused.value.fate is Fate.NOT_STARTED
        service = Named("first")
        assert a.set("named", service) is service
        assert await b.call("named.tell") == "first"
        a.remove("named")
        with pytest.raises(MethodNotFound, match="there is no service 'named'"):
            await b.call("named.tell")


async def test_an_identifier_sets_and_removes_a_service(session_pair):
    async with session_pair() as (a, b):
        assert a.set(NAMED, Named("typed")).name == "typed"
        b.set(Identifier("main", Named), Named("main"))
        assert await b.proxy(NAMED).tell_main() == "main"
        a.remove(NAMED)
        a.set("named", Named("by name"))
        assert await b.proxy(NAMED).tell() == "by name"
        a.remove(NAMED)


async def test_a_service_without_a_name_is_set_and_removed(session_pair):
    async with session_pair({"named": Named("named")}) as (a, b):
        a.set("", Echo())
        assert await b.call("echo", 1) == 1
        a.remove("")
        with pytest.raises(MethodNotFound, match="there is no method 'echo'"):
            await b.call("echo", 1)
        assert await b.call("named.tell") == "named"


async def test_calls_in_flight_of_a_removed_service_go_on_to_their_end(session_pair):
    sleeper = Sleeper()
    results = []

    async def call():
        results.append(await b.call("work.sleep", "one"))

    async with session_pair({"work": sleeper}) as (a, b), trio.open_nursery() as nursery:
        nursery.start_soon(call)
        while not sleeper.running:
            await trio.lowlevel.checkpoint()
        a.remove("work")
        with pytest.raises(MethodNotFound):
            await b.call("work.sleep", "two")
        assert sleeper.running == 1
        sleeper.go.set()
    assert results == ["one"]


async def test_a_service_is_replaced_without_a_gap(session_pair):
    async with session_pair({"named": Named("old")}) as (a, b), trio.open_nursery() as nursery:
        found = []

        async def call():
            found.append(await b.call("named.tell"))

        for _ in range(20):
            nursery.start_soon(call)
        await trio.lowlevel.checkpoint()
        a.remove("named")
        a.set("named", Named("new"))
        nursery.start_soon(call)
        await trio.lowlevel.checkpoint()
    assert len(found) == 21
    assert set(found) <= {"old", "new"}
    assert found[-1] == "new"


async def test_two_services_under_one_name_are_refused_and_the_first_one_stays(session_pair):
    async with session_pair({"named": Named("first")}) as (a, b):
        for key in ("named", NAMED):
            with pytest.raises(ValueError, match="already a service with the name 'named'"):
                a.set(key, Named("second"))
        assert await b.call("named.tell") == "first"


@pytest.mark.parametrize(
    ("name", "service", "error"),
    [
        ("a.b", Named(""), ValueError),
        ("", object(), TypeError),
        ("trio_rpc", Named(""), ValueError),
        ("ä", Named(""), ValueError),
        (None, Named(""), TypeError),
        (Named, Named(""), TypeError),
        ("named", Named, TypeError),
        (NAMED, Echo(), TypeError),
    ],
)
async def test_an_illegal_name_and_an_unfit_service_raise_where_they_are_set(
    name, service, error, session_pair
):
    async with session_pair({"": Echo()}) as (a, b):
        with pytest.raises(error):
            a.set(name, service)
        assert await b.call("echo", 1) == 1
        assert [each["name"] for each in await b.call("trio_rpc.describe")] == ["echo", "inline"]


async def test_a_service_that_is_not_there_cannot_be_removed(session_pair):
    async with session_pair({"named": Named("")}) as (a, _):
        with pytest.raises(LookupError, match="there is no service with the name 'other'"):
            a.remove("other")
        with pytest.raises(LookupError):
            a.remove("trio_rpc")
        with pytest.raises(TypeError):
            a.remove(Named)


async def test_a_closed_session_takes_no_service_and_removing_does_nothing(session_pair):
    async with session_pair({"named": Named("")}, on_end="keep") as (a, b):
        await a.aclose()
        await b.wait_closed()
        with pytest.raises(trio_rpc.SessionClosed):
            a.set("late", Named(""))
        with pytest.raises(trio_rpc.SessionBroken):
            b.set("late", Named(""))
        a.remove("named")
        b.remove("never there")


async def test_a_service_is_set_on_one_session_of_a_server_only(nursery):
    async with trio_rpc.open_server({"named": Named("all")}, "tcp://127.0.0.1:0") as server:
        async with (
            trio_rpc.connect(server.urls[0]) as one,
            trio_rpc.connect(server.urls[0]) as other,
        ):
            await one.ping()
            await other.ping()
            first, second = server.sessions
            first.set("own", Echo())
            first.remove("named")
            described = [await each.call("trio_rpc.describe") for each in (one, other)]
            names = [{method["name"] for method in each} for each in described]
            assert {"own.echo", "own.inline"} in names
            assert {"named.tell", "named.tell_main"} in names
            assert second is not first


async def test_describe_lists_the_services_of_this_moment(session_pair):
    async with session_pair() as (a, b):
        a.set("named", Named(""))
        described = await b.call("trio_rpc.describe")
        assert [each["name"] for each in described] == ["named.tell", "named.tell_main"]
        a.remove("named")
        assert await b.call("trio_rpc.describe") == []


async def test_the_function_that_makes_services_may_set_some_itself(session_pair):
    def services(session):
        session.set("early", Named("early"))
        return {"named": Named("made")}

    async with session_pair(services) as (_, b):
        assert await b.call("early.tell") == "early"
        assert await b.call("named.tell") == "made"


async def test_a_name_that_the_function_has_set_cannot_be_among_the_services_that_it_returns():
    def services(session):
        session.set("named", Named("early"))
        return {"named": Named("made")}

    ours, theirs = memory_channel_pair()
    async with trio.open_nursery() as nursery:

        async def connect():
            with pytest.raises(trio_rpc.SessionBroken):
                async with trio_rpc.open_session(theirs):
                    raise AssertionError

        nursery.start_soon(connect)
        with pytest.raises(ValueError, match="already a service with the name 'named'"):
            await trio_rpc.serve_session(ours, services)


async def test_law_13_a_name_that_arrives_never_chooses_an_attribute(session_pair):
    """This holds before a service is set, while it is there, and after it was removed."""
    service = Named("named")
    names = ["named.name", "named.__class__", "named.__init__", "named._x", "named.tell.x", "named"]
    names += ["trio_rpc.set", "set", "remove", "session.set", "named."]
    async with session_pair() as (a, b):
        for change in (lambda: None, lambda: a.set(NAMED, service), lambda: a.remove(NAMED)):
            change()
            for name in names:
                with pytest.raises(MethodNotFound):
                    await b.call(name)


async def test_a_session_can_only_be_changed_in_its_own_run(session_pair):
    async with session_pair() as (a, _):

        async def elsewhere():
            with pytest.raises(RuntimeError):
                a.set("named", Named(""))
            with pytest.raises(RuntimeError):
                a.remove("named")

        await trio.to_thread.run_sync(trio.run, elsewhere)


# ── waiting for a service ────────────────────────────────────────────────────────────────────────

WAITS = {"wait_for_service": 10}


async def test_a_call_that_comes_before_its_service_waits_for_it(session_pair, autojump_clock):
    async with session_pair(options_a=WAITS) as (a, b), trio.open_nursery() as nursery:
        found = []

        async def call(name):
            found.append(await b.call(name))

        nursery.start_soon(call, "named.tell")
        await trio.sleep(5)
        assert found == []
        assert await b.ping() is not None
        a.set("named", Named("late"))
    assert found == ["late"]
    assert trio.current_time() < 6


async def test_a_call_waits_for_its_service_no_longer_than_wait_for_service(
    session_pair, autojump_clock
):
    async with session_pair(options_a=WAITS) as (_, b):
        with pytest.raises(MethodNotFound, match="there is no service 'named'") as refused:
            await b.call("named.tell")
        assert refused.value.fate is Fate.NOT_STARTED
        assert trio.current_time() == pytest.approx(10, abs=1)
        assert b.statistics().calls_out == 0


async def test_calls_that_wait_begin_in_the_order_of_their_arrival(session_pair, autojump_clock):
    class Order:
        def __init__(self):
            self.seen = []

        @trio_rpc.notification
        def note(self, number):
            self.seen.append(number)

        @trio_rpc.method
        def ask(self, number):
            self.seen.append(number)

    async with session_pair(options_a=WAITS) as (a, b), trio.open_nursery() as nursery:
        for number in range(0, 20, 2):
            nursery.start_soon(b.call, "order.ask", number)
            await wait_all_tasks_blocked()
            await b.notify("order.note", number + 1)
        await b.ping()
        order = a.set("order", Order())
        nursery.start_soon(b.call, "order.ask", 20)
    assert order.seen == [*range(21)]


async def test_the_number_of_calls_that_wait_for_services_is_bounded(session_pair, autojump_clock):
    options = {**WAITS, "limits": trio_rpc.Limits(max_waiting_calls=3)}
    outcomes = []

    async def call():
        try:
            outcomes.append(await b.call("named.tell"))
        except MethodNotFound:
            outcomes.append(trio.current_time() < 1)

    async with session_pair(options_a=options) as (a, b), trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(call)
        await trio.sleep(2)
        assert outcomes == [True, True]
        a.set("named", Named("late"))
    assert outcomes == [True, True, "late", "late", "late"]


async def test_a_call_that_is_cancelled_while_it_waits_never_begins(session_pair, autojump_clock):
    async with session_pair(options_a=WAITS) as (a, b):
        with trio.move_on_after(3):
            await b.call("work.sleep")
        assert trio.current_time() == pytest.approx(3, abs=0.5)
        work = a.set("work", Sleeper())
        await b.ping()
        assert work.started == 0
        assert a.statistics().calls_in == 0


async def test_a_call_whose_remote_scope_ends_while_it_waits_never_begins(
    session_pair, autojump_clock
):
    async with session_pair(options_a=WAITS) as (a, b):
        with trio.move_on_after(3):
            async with b.open_scope() as scope:
                await scope.call("work.sleep")
        work = a.set("work", Sleeper())
        await b.ping()
        assert work.started == 0
        assert a.tree() == []


@pytest.mark.parametrize(
    "name", ["here.missing", "trio_rpc.missing", "a.b.c", "ä.x", "..", "a b.c"]
)
async def test_a_name_that_no_service_could_have_fails_at_once(name, session_pair, autojump_clock):
    async with session_pair({"here": Echo()}, options_a=WAITS) as (_, b):
        with pytest.raises(MethodNotFound):
            await b.call(name)
        assert trio.current_time() < 1


async def test_a_notification_also_waits_and_is_dropped_with_a_log_line(
    session_pair, autojump_clock, caplog
):
    caplog.set_level(logging.WARNING, "trio_rpc")
    options = {**WAITS, "limits": trio_rpc.Limits(max_notifications=2)}
    async with session_pair(options_a=options) as (a, b):
        for _ in range(4):  # the third waits for credit, until the first two are dropped
            await b.notify("work.note")
        await b.ping()
        assert trio.current_time() == pytest.approx(10, abs=1)
        await trio.sleep(11)
        assert a.statistics().notifications_in == 0
    assert caplog.text.count("there is no service 'work'") == 4


async def test_closing_a_session_waits_for_calls_that_wait_for_a_service(
    session_pair, autojump_clock
):
    options = {"wait_for_service": 3}
    async with session_pair(options_a=options, on_end="keep") as (a, b):
        async with trio.open_nursery() as nursery:

            async def call():
                with pytest.raises(MethodNotFound):
                    await b.call("named.tell")

            nursery.start_soon(call)
            await trio.sleep(1)
            nursery.start_soon(a.aclose)
        assert trio.current_time() == pytest.approx(3, abs=0.5)
        assert (await b.wait_closed()).cause is None


async def test_the_end_of_the_session_ends_calls_that_wait(session_pair, autojump_clock):
    async with session_pair(options_a=WAITS, on_end="keep") as (a, b):
        async with trio.open_nursery() as nursery:

            async def call():
                with pytest.raises((trio_rpc.RemoteCancelled, trio_rpc.SessionBroken)) as ended:
                    await b.call("named.tell")
                assert ended.value.fate in (Fate.NOT_STARTED, Fate.UNKNOWN)

            nursery.start_soon(call)
            await trio.sleep(1)
            await a.aclose(grace=0)
        assert trio.current_time() < 3


async def test_a_call_whose_deadline_has_passed_does_not_begin():
    """A peer that sends no Cancel at its deadline finds its call refused."""
    async with session_with_raw_peer({}, wait_for_service=10) as (session, peer):
        peer.send(m.Request(1, "work.sleep", [], {}, {"deadline": 0.0}))
        await wait_all_tasks_blocked()
        work = session.set("work", Sleeper())
        error = (await peer.read(m.ReplyErr)).error
    assert (error["code"], error["started"], work.started) == ("deadline", False, 0)


@pytest.mark.parametrize("value", [-1, float("inf"), float("nan")])
async def test_the_time_to_wait_for_a_service_is_bounded(value):
    with pytest.raises(ValueError, match="wait_for_service must be a number of seconds"):
        trio_rpc.Options(wait_for_service=value)
    with pytest.raises(TypeError, match="wait_for_service must be a number of seconds"):
        trio_rpc.Options(wait_for_service="1")
