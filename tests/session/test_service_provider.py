"""A provider of proxies by path: opens a channel for each path, and again after a reconnect."""

from __future__ import annotations

import contextlib
import functools

import pytest
import trio
from helpers.handlers import Screen
from trio.testing import MockClock, wait_all_tasks_blocked

import trio_rpc
from trio_rpc import (
    ConnectionHandler,
    Fate,
    Refused,
    Resume,
    ServiceClient,
    ServiceProvider,
    SessionBroken,
    SessionClosed,
    serve_connections,
)
from trio_rpc.testing import open_chaos_proxy

AT_ONCE = Resume(first_delay=0.001, max_delay=0.01)


@pytest.fixture
def clock():
    """Make a mock clock that lets the system deliver bytes in transit before it jumps."""
    return MockClock(autojump_threshold=0.05)


class Plugin:
    """The server's service: one for each connection."""

    def __init__(self, made, screen, name):
        self.screen, self.name = screen, name
        self.begun, self.go = trio.Event(), trio.Event()
        made.append(self)

    @trio_rpc.method
    async def greet(self) -> str:
        await self.screen.show(f"{self.name} was called")
        return f"hello from {self.name}"

    @trio_rpc.method
    async def name_of(self) -> str:
        return self.name

    @trio_rpc.method
    async def wait(self) -> str:
        self.begun.set()
        await self.go.wait()
        return "done"


class Place:
    """A server that can be restarted at one address.

    Attributes:
        made: the targets that it has made so far.
        refused: the names of plugins that it refuses.
    """

    def __init__(self, nursery, url, **options):
        self.url = url
        self.made = []
        self.refused = set()
        self._nursery = nursery
        self._options = options
        self._scope = trio.CancelScope()

    def _make(self, screen, name):
        if name in self.refused:
            raise Refused(f"there is no plugin {name!r}")
        return Plugin(self.made, screen, name)

    async def start(self):
        handlers = [ConnectionHandler("plugins/{name}", self._make, Screen)]
        self._scope = trio.CancelScope()

        async def run(*, task_status):
            with self._scope:
                serve = functools.partial(serve_connections, handlers, **self._options)
                await serve(self.url, task_status=task_status)

        self.url = (await self._nursery.start(run))[0]

    async def stop(self):
        self._scope.cancel()
        await wait_all_tasks_blocked(0.01)


@contextlib.asynccontextmanager
async def place_at(url, **options):
    async with trio.open_nursery() as nursery:
        place = Place(nursery, url, **options)
        await place.start()
        yield place
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def running(provider):
    async with trio.open_nursery() as nursery:
        await nursery.start(provider.run)
        yield
        nursery.cancel_scope.cancel()


@pytest.fixture(params=["tcp://127.0.0.1:0", "ws://127.0.0.1:0", "unix"])
def url(request, tmp_path):
    return f"unix:{tmp_path}/socket" if request.param == "unix" else request.param


@pytest.fixture
def unix(tmp_path):
    return f"unix:{tmp_path}/socket"


@pytest.mark.parametrize("resume", [False, True])
async def test_a_provider_gives_proxies_by_path_before_it_is_connected(url, resume):
    """A proxy is made from a path, with a target or without one; its channel is opened."""
    async with place_at(url, resume=resume) as place:
        provider = ServiceProvider(place.url, resume=resume)
        screen = Screen()
        spell = provider.proxy("plugins/spell", Plugin, screen)
        lint = provider.proxy("plugins/lint", Plugin)
        async with trio.open_nursery() as nursery:
            early = []

            async def call():
                early.append(await spell.greet())

            nursery.start_soon(call)
            await wait_all_tasks_blocked()
            async with running(provider):
                assert await lint.name_of() == "lint"
                later = provider.proxy("plugins/later", Plugin)
                assert await later.name_of() == "later"
                while not early:
                    await trio.lowlevel.checkpoint()
        assert early == ["hello from spell"]
        assert screen.lines == ["spell was called"]


async def test_the_first_connection_that_fails_raises_and_calls_wait_on(unix):
    provider = ServiceProvider(unix)
    spell = provider.proxy("plugins/spell", Plugin)
    async with trio.open_nursery() as nursery:
        answers = []

        async def call():
            answers.append(await spell.name_of())

        nursery.start_soon(call)
        with pytest.raises(OSError, match="cannot connect"):
            await provider.run()
        assert not answers
        async with place_at(unix), running(provider):
            while not answers:
                await trio.lowlevel.checkpoint()
    assert answers == ["spell"]


@pytest.mark.parametrize("resume", [False, AT_ONCE])
async def test_after_a_restart_of_the_server_each_path_is_opened_again(unix, resume, clock):
    """Each path is registered, so that its channel is opened again after a reconnect."""
    async with place_at(unix, resume=resume) as place:
        provider = ServiceProvider(unix, resume=resume, grace=600)
        spell = provider.proxy("plugins/spell", Plugin)
        lint = provider.proxy("plugins/lint", Plugin)
        errors, ended = [], trio.Event()

        async def wait():
            with pytest.raises(trio_rpc.RemoteCancelled) as info:
                await spell.wait()
            errors.append(info.value)
            ended.set()

        async with trio.open_nursery() as nursery, running(provider):
            assert {await spell.name_of(), await lint.name_of()} == {"spell", "lint"}
            nursery.start_soon(wait)
            await next(each for each in place.made if each.name == "spell").begun.wait()
            await place.stop()
            await ended.wait()
            await place.start()
            assert {await spell.name_of(), await lint.name_of()} == {"spell", "lint"}
        assert errors[0].fate is Fate.STOPPED
        assert len(place.made) == 4
        assert not any(each.begun.is_set() for each in place.made[2:]), "a call was repeated"


async def test_without_a_grace_time_calls_fail_at_once_while_there_is_no_connection(unix, clock):
    async with place_at(unix) as place:
        provider = ServiceProvider(unix)
        spell = provider.proxy("plugins/spell", Plugin)
        async with running(provider):
            assert await spell.name_of() == "spell"
            await place.stop()
            with pytest.raises(SessionBroken) as info:
                await spell.name_of()
            assert info.value.fate is Fate.NOT_STARTED
            await place.start()
            with trio.fail_after(60):
                while True:
                    with contextlib.suppress(SessionBroken):
                        assert await spell.name_of() == "spell"
                        break
                    await trio.sleep(0.1)


async def test_with_resume_calls_in_flight_survive_a_lost_connection(clock):
    async with (
        place_at("tcp://127.0.0.1:0", resume=AT_ONCE) as place,
        open_chaos_proxy(place.url) as network,
    ):
        provider = ServiceProvider(network.url, resume=AT_ONCE)
        spell = provider.proxy("plugins/spell", Plugin, Screen())
        answers = []

        async def wait():
            answers.append(await spell.wait())

        async with running(provider), trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await spell.name_of()
            await place.made[0].begun.wait()
            network.cut()
            assert await spell.greet() == "hello from spell"
            place.made[0].go.set()
        assert answers == ["done"]
        assert len(place.made) == 1


async def test_a_refused_path_fails_its_calls_and_is_opened_after_a_reconnect(unix, clock):
    async with place_at(unix) as place:
        place.refused.add("spell")
        provider = ServiceProvider(unix, grace=600)
        spell = provider.proxy("plugins/spell", Plugin)
        lint = provider.proxy("plugins/lint", Plugin)
        unknown = provider.proxy("unknown", Plugin)
        async with running(provider):
            with pytest.raises(Refused, match="there is no plugin 'spell'") as info:
                await spell.name_of()
            assert info.value.fate is Fate.NOT_STARTED
            with pytest.raises(Refused, match="there is no route for 'unknown'"):
                await unknown.name_of()
            assert await lint.name_of() == "lint"
            await trio.sleep(60)
            assert [each.name for each in place.made] == ["lint"]
            place.refused.clear()
            await place.stop()
            await place.start()
            assert await lint.name_of() == "lint"
            assert await spell.name_of() == "spell"


async def test_a_channel_that_ends_by_itself_is_opened_again_with_growing_delays(unix, clock):
    times = []

    async def close(channel):
        times.append(trio.current_time())
        async with trio_rpc.open_session(channel):
            pass

    async with trio.open_nursery() as nursery:
        serve = functools.partial(trio_rpc.channels.serve_forwarding, {"short": close}, unix)
        await nursery.start(serve)
        provider = ServiceProvider(unix)
        provider.proxy("short", Plugin)
        async with running(provider):
            await trio.sleep(600)
        nursery.cancel_scope.cancel()
    assert 600 / 10 < len(times) < 600 / 2, len(times)


async def test_a_channel_that_lasted_is_opened_again_soon(unix, clock):
    times = []

    async def close(channel):
        times.append(trio.current_time())
        async with trio_rpc.open_session(channel):
            await trio.sleep(20)

    async with trio.open_nursery() as nursery:
        serve = functools.partial(trio_rpc.channels.serve_forwarding, {"long": close}, unix)
        await nursery.start(serve)
        provider = ServiceProvider(unix)
        provider.proxy("long", Plugin)
        async with running(provider):
            await trio.sleep(600)
        nursery.cancel_scope.cancel()
    assert len(times) > 600 / 21


async def test_the_connection_to_a_server_that_answers_no_open_is_made_again(unix, clock):
    """A relay to a program that hangs, or a connection that is dead, gives no answer."""
    opened = []

    async def hang(channel):
        opened.append(channel)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        serve = functools.partial(trio_rpc.channels.serve_forwarding, {"hangs": hang}, unix)
        await nursery.start(serve)
        provider = ServiceProvider(unix, limits=trio_rpc.Limits(handshake_timeout=5))
        proxy = provider.proxy("hangs", Plugin)
        async with running(provider):
            with pytest.raises(SessionBroken, match="no answer for 'hangs' within 5 s") as info:
                await proxy.name_of()
            assert info.value.fate is Fate.NOT_STARTED
            await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert len({id(channel._driver) for channel in opened}) > 3, "it kept the connection"


@pytest.mark.parametrize("resume", [False, AT_ONCE])
async def test_a_connection_that_is_cut_ends_calls_in_flight_with_their_fate(resume, clock):
    """With resume, the server has forgotten the session, so that it cannot be resumed."""
    async with (
        place_at("tcp://127.0.0.1:0", resume=resume) as place,
        place_at("tcp://127.0.0.1:0", resume=resume) as other,
        open_chaos_proxy(place.url) as network,
    ):
        provider = ServiceProvider(network.url, resume=resume, grace=600)
        spell = provider.proxy("plugins/spell", Plugin)
        errors, ended = [], trio.Event()

        async def wait():
            with pytest.raises(SessionBroken) as info:
                await spell.wait()
            errors.append(info.value)
            ended.set()

        async with running(provider), trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await spell.name_of()
            await place.made[0].begun.wait()
            network.target = other.url
            network.cut()
            await ended.wait()
            assert await spell.name_of() == "spell"
        assert errors[0].fate is Fate.UNKNOWN
        assert not other.made[0].begun.is_set(), "the call was repeated"


async def test_a_provider_that_is_cancelled_ends_its_sessions_and_calls(unix, tasks):
    async with place_at(unix) as place:
        await wait_all_tasks_blocked()  # the server has all its tasks
        before = tasks()
        provider = ServiceProvider(unix)
        spell = provider.proxy("plugins/spell", Plugin)
        errors = []

        async def wait():
            with pytest.raises(SessionClosed) as info:
                await spell.wait()
            errors.append(info.value)

        async with trio.open_nursery() as nursery:
            async with running(provider):
                nursery.start_soon(wait)
                await spell.name_of()
                await place.made[0].begun.wait()
        assert errors[0].fate is Fate.UNKNOWN
        with pytest.raises(SessionClosed, match="the service provider has ended") as info:
            await spell.name_of()
        assert info.value.fate is Fate.NOT_STARTED
        with trio.fail_after(10):
            while tasks() != before:  # the server has to notice
                await wait_all_tasks_blocked(0.01)
        async with running(provider):
            assert await spell.name_of() == "spell"


async def test_a_client_that_was_removed_may_be_added_again_at_once(unix):
    made = []
    handler = ConnectionHandler("plugins/{name}", functools.partial(Plugin, made), Screen)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_connections, [handler], unix)
        provider = ServiceProvider(unix)
        client = provider.add("plugins/a", ServiceClient(Plugin, Screen()))
        provider.remove("plugins/a")
        provider.add("plugins/a", client)  # before there is a connection
        await nursery.start(provider.run)
        assert await client.proxy.name_of() == "a"
        for name in ("b", "c", "d"):  # the session of "a" has not ended yet
            provider.remove(f"plugins/{chr(ord(name) - 1)}")
            provider.add(f"plugins/{name}", client)
        names = []
        while names[-1:] != ["d"]:
            await trio.lowlevel.checkpoint()
            with contextlib.suppress(SessionClosed):  # of an earlier session
                names.append(await client.proxy.name_of())
        assert names == ["d"]
        provider.remove("plugins/d")
        with pytest.raises(SessionClosed):
            while True:
                await trio.lowlevel.checkpoint()
                await client.proxy.name_of()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("when", ["before", "during", "refused"])
async def test_a_removed_path_is_closed_and_may_be_used_again(unix, when, clock):
    async with place_at(unix) as place:
        provider = ServiceProvider(unix, grace=600)
        spell = provider.proxy("plugins/spell", Plugin)
        lint = provider.proxy("plugins/lint", Plugin)
        errors = []

        async def wait():
            with pytest.raises(trio_rpc.RpcError) as info:
                await spell.wait()
            errors.append(info.value)

        if when == "refused":
            place.refused.add("spell")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            if when == "before":
                provider.remove("plugins/spell")
            async with running(provider):
                assert await lint.name_of() == "lint"
                if when != "before":
                    await trio.sleep(1)
                    provider.remove("plugins/spell")
                await trio.sleep(1)
                assert len(errors) == 1
                now = trio.current_time()
                with pytest.raises(SessionClosed, match="its path was removed") as info:
                    await spell.name_of()
                assert info.value.fate is Fate.NOT_STARTED
                assert trio.current_time() - now < 60, "it waited for the next connection"
                with pytest.raises(ValueError, match="no proxy for the path 'plugins/spell'"):
                    provider.remove("plugins/spell")
                place.refused.clear()
                again = provider.proxy("plugins/spell", Plugin)
                assert await again.name_of() == "spell"
                assert await lint.name_of() == "lint"
        kinds = {"before": SessionClosed, "during": SessionClosed, "refused": Refused}
        assert type(errors[0]) is kinds[when]


async def test_large_packets_pass_if_the_connection_has_the_same_limits(unix):
    class Echo:
        @trio_rpc.method
        async def echo(self, data: bytes) -> bytes:
            return data

    limits = trio_rpc.Limits(max_packet=1_000_000)
    handler = ConnectionHandler("echo", lambda _proxy: Echo(), limits=limits)
    async with trio.open_nursery() as nursery:
        await nursery.start(functools.partial(serve_connections, [handler], unix, limits=limits))
        provider = ServiceProvider(unix, limits=limits)
        echo = provider.proxy("echo", Echo)
        async with running(provider):
            assert len(await echo.echo(bytes(900_000))) == 900_000
        nursery.cancel_scope.cancel()


async def test_a_client_of_ones_own_can_be_added(unix):
    """In place of a target, a client of one's own can be given for a path."""
    async with place_at(unix):
        provider = ServiceProvider(unix)
        client = provider.add("plugins/spell", ServiceClient(Plugin, max_waiting=1))
        client.target = screen = Screen()
        async with running(provider):
            assert await client.proxy.greet() == "hello from spell"
        assert screen.lines == ["spell was called"]


async def test_wrong_uses_are_refused_at_once(unix):
    provider = ServiceProvider(unix)
    provider.proxy("plugins/spell", Plugin)
    with pytest.raises(ValueError, match="there is a proxy for the path 'plugins/spell'"):
        provider.proxy("plugins/spell", Plugin)
    with pytest.raises(ValueError, match="name"):
        provider.proxy("", Plugin)
    with pytest.raises(TypeError):
        provider.proxy("plugins/lint", object)
    large = ServiceClient(Plugin, limits=trio_rpc.Limits(max_packet=1_000_000))
    with pytest.raises(ValueError, match="the client for 'plugins/lint' has max_packet=1000000"):
        provider.add("plugins/lint", large)
    provider.proxy("plugins/lint", Plugin)  # the refused one is not kept
    with pytest.raises(TypeError, match="limts"):
        ServiceProvider(unix, limts=None)
    with pytest.raises(ValueError, match="grace"):
        ServiceProvider(unix, grace=-1)
    with pytest.raises(TypeError, match="max_waiting must be a whole number, not None"):
        ServiceProvider(unix, max_waiting=None)
    with pytest.raises(TypeError, match="the name of a channel must be a str, not 5"):
        provider.proxy(5, Plugin)
    with pytest.raises(TypeError, match="a route must be a str, not None"):
        trio_rpc.ConnectionHandler(None, lambda proxy: None)
    async with place_at(unix), running(provider):
        with pytest.raises(trio.BusyResourceError):
            await provider.run()
