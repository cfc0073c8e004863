"""Refusals by filters arrive as their class, and every error has its fate (law 15)."""

from __future__ import annotations

import contextlib
import logging

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Fate
from trio_rpc.testing import memory_channel_pair


class TooMany(trio_rpc.Overloaded):
    """A user's subclass of a refusal."""


class NotToday(trio_rpc.CallError):
    """An application's own refusal."""


class Service:
    def __init__(self):
        self.ran = 0

    @trio_rpc.method
    async def work(self):
        self.ran += 1
        return 1

    @trio_rpc.method
    def plain(self):
        self.ran += 1

    @trio_rpc.method(raises=(TooMany,))
    async def declares(self):
        self.ran += 1

    @trio_rpc.method
    async def fails(self):
        self.ran += 1
        raise ValueError("the handler's own")

    @trio_rpc.stream
    async def stream(self):
        self.ran += 1
        yield 1

    @trio_rpc.duplex
    async def duplex(self, channel):
        self.ran += 1

    @trio_rpc.notification
    def note(self):
        self.ran += 1

    @trio_rpc.method
    async def calls_back(self, callback):
        return await callback()


REFUSALS = [
    (trio_rpc.Overloaded("slow down"), trio_rpc.Overloaded),
    (trio_rpc.Unavailable("closing"), trio_rpc.Unavailable),
    (trio_rpc.MethodNotFound("not for you"), trio_rpc.MethodNotFound),
    (trio_rpc.InvalidArguments("too long", "name"), trio_rpc.InvalidArguments),
    (trio_rpc.RemoteCancelled("elsewhere"), trio_rpc.RemoteCancelled),
    (trio_rpc.RemoteError("Elsewhere", "failed"), trio_rpc.RemoteError),
    (TooMany("slow down"), trio_rpc.Overloaded),
    (NotToday("no"), trio_rpc.RemoteError),
    (ValueError("no"), ValueError),
    (Exception("undeclared"), trio_rpc.RemoteError),
]


def refuses(exc):
    async def refuse(_call, _proceed):
        await trio.lowlevel.checkpoint()
        raise exc

    return refuse


async def passes_on(_call, proceed):
    return await proceed()


async def use(session, name):
    if name in ("stream", "duplex"):
        async with getattr(session, name)(name) as channel:
            await channel.receive()
    elif name == "scope":
        async with session.open_scope():
            await trio.sleep_forever()
    elif name.startswith("left"):
        async with session.stream("stream"):
            await wait_all_tasks_blocked()
    else:
        await session.call(name)


@pytest.mark.parametrize("name", ["work", "plain", "stream", "duplex", "scope", "left early"])
@pytest.mark.parametrize(
    ("exc", "cls"), REFUSALS, ids=lambda each: getattr(each, "__name__", repr(each))
)
async def test_law_15_a_call_refused_by_a_filter_has_not_started_and_raises_its_class(
    session_pair, autojump_clock, name, exc, cls
):
    service = Service()
    options = {"filters": [passes_on, refuses(exc)]}
    async with session_pair(service, None, options_a=options) as (_, session):
        if cls is trio_rpc.RemoteCancelled and name == "left early":
            return  # leaving the block cancels the stream itself
        with pytest.raises(cls) as caught:
            await use(session, name)
        assert type(caught.value) is cls
        assert service.ran == 0
        if isinstance(caught.value, trio_rpc.RpcError) and name != "scope":
            assert caught.value.fate is Fate.NOT_STARTED
        if cls is trio_rpc.InvalidArguments:
            assert caught.value.parameter == "name"


async def test_law_15_a_refusal_that_the_method_declares_arrives_as_its_own_class(session_pair):
    class Interface:
        @trio_rpc.method(raises=(TooMany,))
        async def declares(self): ...

    options = {"filters": [refuses(TooMany("slow down"))]}
    async with session_pair(Service(), None, options_a=options) as (_, session):
        with pytest.raises(TooMany, match="slow down") as caught:
            await session.proxy("", Interface).declares()
        assert caught.value.fate is Fate.NOT_STARTED


async def test_law_15_a_handler_that_raises_the_same_class_itself_was_stopped(session_pair):
    class Raises:
        @trio_rpc.method(raises=(TooMany,))
        async def declares(self):
            raise TooMany("by the handler")

        @trio_rpc.method
        async def undeclared(self):
            raise trio_rpc.Overloaded("by the handler")

    async with session_pair(Raises(), None) as (_, session):
        with pytest.raises(TooMany) as caught:
            await session.proxy("", Raises).declares()
        assert caught.value.fate is Fate.STOPPED
        with pytest.raises(trio_rpc.RemoteError) as caught:
            await session.call("undeclared")
        assert caught.value.fate is Fate.STOPPED


@pytest.mark.parametrize("name", ["work", "plain", "stream", "fails"])
async def test_law_15_an_error_of_a_filter_after_the_handler_started_has_the_fate_stopped(
    session_pair, name
):
    async def too_late(_call, proceed):
        try:
            await proceed()
        finally:
            raise trio_rpc.Overloaded("too late")

    service = Service()
    async with session_pair(service, None, options_a={"filters": [too_late]}) as (_, session):
        with pytest.raises(trio_rpc.RemoteError, match="too late") as caught:
            if name == "stream":
                async with session.stream("stream") as items:
                    while True:
                        await items.receive()
            else:
                await session.call(name)
        assert caught.value.fate is Fate.STOPPED
        assert service.ran == 1


async def test_law_15_a_handler_that_is_cancelled_while_a_filter_waits_has_not_started(
    session_pair, no_time
):
    waiting = trio.Event()

    async def waits(_call, _proceed):
        waiting.set()
        await trio.sleep_forever()

    options = {"filters": [waits]}
    async with session_pair(Service(), None, options_a=options) as (server, session):

        async def call():
            with pytest.raises(trio_rpc.RemoteCancelled) as caught:
                await session.call("work")
            assert caught.value.fate is Fate.NOT_STARTED

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await waiting.wait()
            await wait_all_tasks_blocked()
            [handled] = server._core.incoming.running.values()
            handled.cancel("for a test")


async def test_a_refused_notification_is_logged_as_a_warning(session_pair, caplog):
    options = {"filters": [refuses(trio_rpc.Overloaded("slow down"))]}
    service = Service()
    async with session_pair(service, None, options_a=options) as (_, session):
        for _ in range(3):
            await session.notify("note")
        await session.ping()
        await wait_all_tasks_blocked()
        with pytest.raises(trio_rpc.Overloaded):
            await session.call("work")
    assert service.ran == 0
    assert [each.levelno for each in caplog.records] == [logging.WARNING] * 3
    assert "slow down" in caplog.text


async def test_law_15_a_callback_that_the_callers_filter_refuses_has_not_started(session_pair):
    async def refuse_callbacks(call, proceed):
        if "callback" in call.method:
            raise trio_rpc.Overloaded("no callbacks")
        return await proceed()

    found = []

    class Calls:
        @trio_rpc.method
        async def work(self, callback):
            try:
                await callback()
            except trio_rpc.Overloaded as exc:
                found.append(exc.fate)

    ran = []
    options = {"filters": [refuse_callbacks]}
    async with session_pair(Calls(), None, options_b=options) as (_, session):
        await session.call("work", lambda: ran.append(1))
    assert (found, ran) == ([Fate.NOT_STARTED], [])


# ── filters of the calling end ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["work", "stream", "duplex"])
@pytest.mark.parametrize(
    "exc", [trio_rpc.Overloaded("no"), NotToday("no"), trio_rpc.SessionBroken("other")]
)
async def test_law_15_a_call_refused_by_the_callers_filter_has_not_started(session_pair, name, exc):
    service = Service()
    options = {"filters": [refuses(exc)]}
    async with session_pair(service, None, options_b=options) as (_, session):
        with pytest.raises(type(exc)) as caught:
            await use(session, name)
        assert caught.value.fate is Fate.NOT_STARTED
        with pytest.raises(type(exc)) as caught:
            await session.notify("note")
        assert caught.value.fate is Fate.NOT_STARTED
        assert service.ran == 0


async def test_law_15_an_error_of_the_callers_filter_after_the_call_has_the_fate_stopped(
    session_pair,
):
    async def too_late(_call, proceed):
        await proceed()
        raise trio_rpc.Overloaded("too late")

    service = Service()
    async with session_pair(service, None, options_b={"filters": [too_late]}) as (_, session):
        with pytest.raises(trio_rpc.Overloaded) as caught:
            await session.call("work")
        assert (caught.value.fate, service.ran) == (Fate.STOPPED, 1)
        with pytest.raises(trio_rpc.Overloaded) as caught:
            await session.notify("note")
        assert caught.value.fate is Fate.UNKNOWN


async def test_law_15_a_refusal_by_the_callers_filter_after_a_failed_call_has_the_fate_stopped(
    session_pair,
):
    async def repeats(_call, proceed):
        try:
            return await proceed()
        except ValueError:
            raise trio_rpc.Overloaded("given up") from None

    async with session_pair(Service(), None, options_b={"filters": [repeats]}) as (_, session):
        with pytest.raises(trio_rpc.Overloaded) as caught:
            await session.call("fails")
        assert caught.value.fate is Fate.STOPPED


# ── operations that fail because the session has ended ───────────────────────────────────────


class Shielded:
    """Handlers that outlive their session and then use the objects they were given."""

    def __init__(self):
        self.found = []
        self.waiting = trio.Event()
        self.go = trio.Event()

    async def _try(self, function, *args):
        with trio.CancelScope(shield=True):
            self.waiting.set()
            await self.go.wait()
            try:
                result = function(*args)
                await result
            except trio_rpc.RpcError as exc:
                self.found.append(exc)

    @trio_rpc.duplex
    async def sends(self, channel):
        await self._try(channel.send, 1)

    @trio_rpc.duplex
    async def receives(self, channel):
        await self._try(channel.receive)

    @trio_rpc.method
    async def calls_back(self, callback):
        await self._try(callback)

    @trio_rpc.method
    async def pulls(self, items):
        await self._try(items.receive)

    @trio_rpc.method
    async def starts(self, *, task_status=trio.TASK_STATUS_IGNORED):
        await self._try(task_status.started, 1)


async def _items():
    yield 1


@pytest.mark.parametrize("name", ["sends", "receives", "calls_back", "pulls", "starts"])
async def test_law_15_operations_of_a_handler_after_its_sessions_end_raise_with_a_fate(
    autojump_clock, name
):
    service = Shielded()

    async def use_it(session):
        if name in ("sends", "receives"):
            async with session.duplex(name):
                await trio.sleep_forever()
        elif name == "starts":
            async with trio.open_nursery() as nursery:
                await nursery.start(session.proxy().starts)
        else:
            await session.call(name, _items() if name == "pulls" else trio.sleep_forever)

    async def client():
        async with trio_rpc.open_session(theirs) as session, trio.open_nursery() as nursery:
            nursery.start_soon(use_it, session)
            await service.waiting.wait()
            theirs.close()
            nursery.cancel_scope.cancel()

    ours, theirs = memory_channel_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio_rpc.serve_session, ours, service)
        with contextlib.suppress(Exception):  # the client's outcome is not tested here
            await client()
        await trio.sleep(60)
        service.go.set()
    [exc] = service.found
    assert isinstance(exc, trio_rpc.SessionBroken)
    assert exc.fate in Fate


async def test_law_15_operations_on_a_duplex_of_a_broken_session_raise_with_fate_and_cause(
    autojump_clock,
):
    class Talks:
        @trio_rpc.duplex
        async def talk(self, channel):
            async for _ in channel:
                pass

    ours, theirs = memory_channel_pair()
    found = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio_rpc.serve_session, ours, Talks())
        with contextlib.suppress(Exception):  # the block's outcome is not tested here
            async with trio_rpc.open_session(theirs) as session, session.duplex("talk") as channel:
                await channel.send(1)
                await wait_all_tasks_blocked()
                ours.close()
                with trio.CancelScope(shield=True):
                    await wait_all_tasks_blocked()
                    for operation in (lambda: channel.send(2), channel.receive, session.ping):
                        with pytest.raises(trio_rpc.SessionBroken) as caught:
                            await operation()
                        found.append((caught.value.fate, type(caught.value.__cause__)))
    assert found == [(Fate.UNKNOWN, trio.BrokenResourceError)] * 3


@pytest.mark.parametrize(
    ("side", "name"),
    [(a, b) for a in ("options_a", "options_b") for b in ("stream", "duplex", "scope")][:-1],
)
async def test_a_filter_that_returns_without_proceeding_opens_nothing(session_pair, name, side):
    async def answers(_call, _proceed):
        await trio.lowlevel.checkpoint()
        return 1

    service = Service()
    async with session_pair(service, None, **{side: {"filters": [answers]}}) as (_, session):
        with pytest.raises(RuntimeError, match="returned without proceeding, so nothing was"):
            await use(session, name)
        assert await session.call("work") == 1  # but a filter may answer a call
    assert service.ran == 0


@pytest.mark.parametrize("name", ["work", "plain", "stream", "duplex"])
async def test_a_filter_cannot_proceed_after_it_has_answered(session_pair, name):
    kept = []

    async def keeps(_call, proceed):
        kept.append(proceed)
        return 1

    service = Service()
    async with session_pair(service, None, options_a={"filters": [keeps]}) as (_, session):
        with contextlib.suppress(RuntimeError):
            await use(session, name)
        with pytest.raises(RuntimeError, match="proceeded after it had answered the call"):
            await kept[0]()
    assert service.ran == 0


@pytest.mark.parametrize("refuses_all", [True, False])
async def test_law_15_a_refused_scope_raises_the_refusal_and_not_the_error_of_its_first_call(
    session_pair, refuses_all
):
    async def refuse(call, proceed):
        if refuses_all or call.method == "trio_rpc.scope":
            raise trio_rpc.Overloaded("too many scopes", retry_after=2.0)
        return await proceed()

    service = Service()
    async with session_pair(service, None, options_a={"filters": [refuse]}) as (_, session):
        with pytest.raises(trio_rpc.Overloaded, match="too many scopes") as info:
            async with session.open_scope() as scope:
                await scope.call("work")
    assert (info.value.fate, info.value.retry_after) == (Fate.NOT_STARTED, 2.0)
    assert service.ran == 0


async def test_the_error_of_a_send_on_a_refused_duplex_names_the_refusal(session_pair):
    async def refuse(_call, _proceed):
        raise trio_rpc.Overloaded("too many duplexes")

    async with session_pair(Service(), None, options_a={"filters": [refuse]}) as (_, session):
        with pytest.raises(trio.BrokenResourceError) as info:
            async with session.duplex("duplex") as channel:
                await channel.send(1)
    assert info.value.__notes__ == ["and duplex failed before: Overloaded('too many duplexes')"]


async def test_a_filter_of_the_caller_cannot_open_a_block_after_it_has_returned(session_pair):
    kept = []

    async def keeps(_call, proceed):
        kept.append(proceed)

    service = Service()
    async with session_pair(service, None, options_b={"filters": [keeps]}) as (_, session):
        with pytest.raises(RuntimeError, match="returned without proceeding"):
            await use(session, "stream")
        with pytest.raises(RuntimeError, match="proceeded after it had returned"):
            await kept[0]()
    assert service.ran == 0
