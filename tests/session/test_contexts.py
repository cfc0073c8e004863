"""A context variable that one handler sets is not seen by any other, on any path."""

from __future__ import annotations

import decimal
from contextvars import ContextVar

import pytest
import trio
from helpers.raw_peer import session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc.session.calls.context import handled_call
from trio_rpc.wire import messages as m

user: ContextVar[str] = ContextVar("user", default="nobody")


async def passes_on(_call, proceed):
    return await proceed()


async def sets_before(_call, proceed):
    user.set("filter")
    return await proceed()


class Custom:
    """A class that is registered with the codec."""


class Logins:
    """A service whose methods set the variable, each in its own way."""

    @trio_rpc.method
    def plain(self):
        user.set("plain")

    @trio_rpc.method
    def plain_fails(self):
        user.set("plain_fails")
        raise ValueError("after it has set the variable")

    @trio_rpc.method
    async def at_once(self):
        user.set("at_once")

    @trio_rpc.method
    async def later(self):
        await trio.lowlevel.checkpoint()
        user.set("later")
        await trio.lowlevel.checkpoint()

    @trio_rpc.notification
    def notify_plain(self):
        user.set("notify_plain")

    @trio_rpc.notification
    async def notify_async(self):
        user.set("notify_async")

    @trio_rpc.stream
    async def stream(self):
        user.set("stream")
        yield 1

    @trio_rpc.duplex
    async def duplex(self, channel):
        user.set("duplex")
        await channel.send(1)


class Seen:
    """A service whose methods return the value that a handler of their kind sees."""

    def __init__(self):
        self.notified = []

    @trio_rpc.method
    def who(self):
        return user.get()

    @trio_rpc.method
    async def who_async(self):
        await trio.lowlevel.checkpoint()
        return user.get()

    @trio_rpc.notification
    def note(self):
        self.notified.append(user.get())

    @trio_rpc.stream
    async def stream(self):
        yield user.get()


async def use(session, name):
    if name.startswith("notify"):
        await session.notify(f"login.{name}")
        await session.ping()
    elif name in ("stream", "duplex"):
        async with getattr(session, name)(f"login.{name}") as channel:
            assert await channel.receive() == 1
    elif name.endswith("fails"):
        with pytest.raises(ValueError, match="after it has set"):
            await session.call(f"login.{name}")
    else:
        await session.call(f"login.{name}")


async def values_seen(session, seen):
    """Return the values that all kinds of later handlers see."""
    await session.notify("seen.note")
    async with session.stream("seen.stream") as items:
        item = await items.receive()
    return {
        await session.call("seen.who"),
        await session.call("seen.who_async"),
        item,
        *seen.notified,
    }


@pytest.mark.parametrize("filters", [(), (passes_on,), (sets_before,)])
@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "plain_fails",
        "at_once",
        "later",
        "notify_plain",
        "notify_async",
        "stream",
        "duplex",
    ],
)
async def test_no_other_handler_sees_a_variable_that_a_handler_sets(session_pair, name, filters):
    seen = Seen()
    services = {"login": Logins(), "seen": seen}
    async with session_pair(services, None, options_a={"filters": filters}) as (_, session):
        await use(session, name)
        expected = "filter" if filters == (sets_before,) else "nobody"
        assert await values_seen(session, seen) == {expected}


async def test_all_handlers_see_a_variable_set_by_the_sessions_owner(session_pair):
    seen = Seen()
    token = user.set("owner")
    try:
        async with session_pair({"seen": seen}, None) as (_, session):
            assert await values_seen(session, seen) == {"owner"}
    finally:
        user.reset(token)


def _plain_callback():
    before = user.get()
    user.set("callback")
    return before


async def _async_callback():
    await trio.lowlevel.checkpoint()
    return _plain_callback()


class _CallableObject:
    def __call__(self):
        return _plain_callback()


class Caller:
    @trio_rpc.method
    async def twice(self, callback):
        return [await callback(), await callback()]

    @trio_rpc.method
    async def pull(self, items):
        return [item async for item in items]


@pytest.mark.parametrize("filters", [(), (passes_on,)])
@pytest.mark.parametrize("callback", [_plain_callback, _async_callback, _CallableObject()])
async def test_a_callback_sees_its_callers_context_and_does_not_change_it(
    session_pair, callback, filters
):
    options = {"filters": filters}
    async with session_pair(Caller(), {"seen": Seen()}, options_b=options) as (server, client):
        token = user.set("caller")
        try:
            assert await client.call("twice", callback) == ["caller", "caller"]
            assert user.get() == "caller"
        finally:
            user.reset(token)
        # The peer's own calls to this end do not see it either.
        assert await server.call("seen.who") == "nobody"


async def test_a_generator_argument_keeps_one_context_over_all_its_steps(session_pair):
    async def items():
        token = user.set("generator")
        try:
            for _ in range(3):
                await trio.lowlevel.checkpoint()
                yield user.get()
        finally:
            user.reset(token)

    async with session_pair(Caller(), {"seen": Seen()}) as (server, client):
        assert await client.call("pull", items()) == ["generator"] * 3
        assert user.get() == "nobody"
        assert await server.call("seen.who") == "nobody"


async def test_authenticate_and_a_services_function_have_separate_contexts(
    session_pair,
):
    found = []

    async def authenticate(_session, _credentials):
        user.set("authenticate")

    def services(_session):
        found.append(user.get())
        user.set("factory")
        return Seen()

    for options in ({}, {"authenticate": authenticate}):
        async with session_pair(services, None, options_a=options) as (_, session):
            assert await session.call("who") == "nobody"
            assert await session.call("who_async") == "nobody"
    assert found == ["nobody", "nobody"]


async def test_no_handler_sees_a_variable_set_while_an_argument_is_decoded(session_pair):
    def decode(value):
        user.set("argument")
        return Custom()

    registry = trio_rpc.TypeRegistry()
    registry.register(100, Custom, encode=lambda _: 1, decode=decode)

    class Service(Seen):
        @trio_rpc.method
        def take(self, value):
            assert isinstance(value, Custom)

    ours, theirs = {"registry": registry}, {"registry": registry.copy()}
    async with session_pair(Service(), None, options_a=ours, options_b=theirs) as (_, b):
        await b.call("take", Custom())
        assert await b.call("who") == "nobody"
        assert await b.call("who_async") == "nobody"


async def test_tasks_of_a_remote_scope_do_not_change_the_context_of_others(session_pair):
    class Starts(Seen):
        @trio_rpc.method
        async def start(self):
            async def task():
                user.set("task")

            trio_rpc.current_call().nursery.start_soon(task)

        @trio_rpc.method
        def login(self):
            user.set("in scope")

    async with session_pair(Starts(), None) as (_, session):
        async with session.open_scope() as scope:
            await scope.call("start")
            await scope.call("login")
            await wait_all_tasks_blocked()
            assert await scope.call("who") == "nobody"
            assert await session.call("who_async") == "nobody"


async def test_a_handler_does_not_see_another_handlers_call():
    class Nested:
        def __init__(self):
            self.calls = []

        @trio_rpc.method
        def outer(self):
            self.calls.append(trio_rpc.current_call().method)

        @trio_rpc.method
        async def inner(self):
            self.calls.append(trio_rpc.current_call().method)

    service = Nested()
    async with session_with_raw_peer(service) as (_, peer):
        peer.send(m.Request(1, "outer", []), m.Request(2, "inner", []), m.Request(3, "outer", []))
        await peer.read_all(m.Reply, 3)
    assert service.calls == ["outer", "inner", "outer"]
    assert handled_call.get() is None


async def test_metadata_that_a_plain_handler_leaves_open_is_not_sent_with_other_calls(
    session_pair,
):
    class Careless:
        @trio_rpc.method
        def careless(self):
            trio_rpc.metadata(user="ann").__enter__()

        @trio_rpc.method
        async def ask(self, callback):
            return await callback()

    def reads():
        return dict(trio_rpc.current_call().metadata)

    async with session_pair(Careless(), None) as (_, session):
        await session.call("careless")
        assert await session.call("ask", reads) == {}


class Precision:
    """Reads and sets the precision of ``decimal``, which ``getcontext`` keeps in one object."""

    def __init__(self):
        self.notified = []

    @trio_rpc.method
    def plain(self):
        return _set_precision()

    @trio_rpc.method
    async def at_once(self):
        return _set_precision()

    @trio_rpc.method
    async def later(self):
        await trio.lowlevel.checkpoint()
        return _set_precision()

    @trio_rpc.notification
    def note(self):
        self.notified.append(_set_precision())

    @trio_rpc.stream
    async def stream(self):
        yield _set_precision()
        yield decimal.getcontext().prec

    @trio_rpc.method
    async def ask(self, callback):
        return [await callback(), await callback()]


def _set_precision():
    before = decimal.getcontext().prec
    decimal.getcontext().prec = 3
    return before


async def precisions_seen(session, service):
    await session.notify("note")
    async with session.stream("stream") as items:
        seen = [await items.receive() for _ in range(2)]
    assert seen[1] == 3  # one handler keeps its own over all its steps
    calls = [await session.call(name) for name in ("plain", "at_once", "later")]
    await session.ping()
    return {seen[0], *calls, *service.notified}


@pytest.fixture
def precision_of_40():
    """Set a precision before the session is opened, as a program does at its start."""
    with decimal.localcontext() as context:
        context.prec = 40
        yield


@pytest.mark.parametrize("filters", [(), (passes_on,)])
@pytest.mark.usefixtures("precision_of_40")
async def test_no_other_handler_sees_the_precision_of_decimals_that_a_handler_sets(
    session_pair, filters
):
    service = Precision()
    options = {"filters": filters}
    async with session_pair(service, None, options_a=options) as (_, session):
        assert await precisions_seen(session, service) == {40}
        assert await precisions_seen(session, service) == {40}
    assert decimal.getcontext().prec == 40


@pytest.mark.usefixtures("precision_of_40")
async def test_a_callback_does_not_change_the_precision_of_its_caller(session_pair):
    async with session_pair(Precision(), None) as (_, session):
        assert await session.call("ask", _set_precision) == [40, 40]
    assert decimal.getcontext().prec == 40


@pytest.mark.usefixtures("precision_of_40")
async def test_authenticate_and_a_services_function_do_not_change_the_precision(session_pair):
    seen = []

    async def authenticate(_session, _credentials):
        seen.append(_set_precision())

    def services(_session):
        seen.append(_set_precision())
        return Precision()

    for options in ({}, {"authenticate": authenticate}):
        async with session_pair(services, None, options_a=options) as (_, session):
            assert await session.call("plain") == 40
    assert seen == [40, 40, 40]
    assert decimal.getcontext().prec == 40


@pytest.mark.usefixtures("precision_of_40")
async def test_handlers_keep_the_precision_with_which_their_session_was_opened(session_pair):
    async with session_pair(Precision(), None) as (_, session):
        decimal.getcontext().prec = 7  # the program sets it later, for itself
        assert await session.call("plain") == 40
