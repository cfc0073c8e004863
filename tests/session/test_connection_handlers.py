"""Handlers of connections: by path, with a target that is made from the client's proxy."""

from __future__ import annotations

import contextlib
import functools
import logging

import pytest
import trio
from helpers.forwarding_pairs import open_forwarding_pair
from helpers.handlers import Screen
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import ConnectionHandler, Limits, Refused, ServiceClient, serve_connections
from trio_rpc.channels import connect_forwarding
from trio_rpc.testing import memory_channel_pair


class Plugin:
    """The server's service, which calls its client."""

    def __init__(self, screen, name="plugin"):
        self.screen = screen
        self.name = name

    @trio_rpc.method
    async def greet(self) -> str:
        await self.screen.show(f"{self.name} was called")
        return f"hello from {self.name}"


@contextlib.asynccontextmanager
async def connected(forwarding, path, target=None, interface=Plugin, **options):
    """Open the channel of a path, and yield a client that listens to it."""
    client = ServiceClient(interface, target, **options)
    async with await forwarding.open(path) as channel, trio.open_nursery() as nursery:
        await nursery.start(client.listen, channel)
        yield client
        nursery.cancel_scope.cancel()


def routes(*handlers):
    return {handler.path: handler for handler in handlers}


async def test_a_handler_makes_a_client_then_its_proxy_then_the_target_then_listens():
    """For a connection a handler makes client, proxy, target and session, in this order."""
    steps = []

    class Watched:
        def __init__(self, client):
            object.__setattr__(self, "client", client)

        def __getattr__(self, name):
            if name != "prepare":
                steps.append(name)
            return getattr(self.client, name)

        def __setattr__(self, name, value):
            steps.append(f"set {name}")
            setattr(self.client, name, value)

    def make_client(interface, **options):
        steps.append("client")
        return Watched(ServiceClient(interface, **options))

    def make_target(proxy):
        steps.append("make target")
        return Plugin(proxy)

    handler = ConnectionHandler("plugin", make_target, Screen, make_client=make_client)
    steps.clear()
    async with open_forwarding_pair(None, routes(handler)) as (forwarding, _):
        async with connected(forwarding, "plugin", Screen()) as client:
            await client.proxy.greet()
    assert steps == ["client", "proxy", "make target", "set target", "listen"]


async def test_the_target_calls_its_client_and_each_connection_has_its_own():
    """A handler has a path, a function that makes the target from the proxy, and a client."""
    handler = ConnectionHandler("plugins/{name}", Plugin, Screen)
    first, second = Screen(), Screen()
    async with (
        open_forwarding_pair(None, routes(handler)) as (forwarding, _),
        connected(forwarding, "plugins/spell", first) as spell,
        connected(forwarding, "plugins/lint", second) as lint,
    ):
        assert await spell.proxy.greet() == "hello from spell"
        assert await lint.proxy.greet() == "hello from lint"
    assert first.lines == ["spell was called"]
    assert second.lines == ["lint was called"]


async def test_one_target_for_all_connections_receives_each_client():
    """The server's object receives the proxy of its client, and can call it."""

    class Shared:
        def __init__(self):
            self.clients = []

        def set_client(self, client):
            self.clients.append(client)
            return self

        @trio_rpc.method
        async def tell_all(self, text: str) -> int:
            for client in self.clients:
                await client.show(text)
            return len(self.clients)

    shared = Shared()
    handler = ConnectionHandler("shared", shared.set_client, Screen)
    screens = [Screen(), Screen()]
    async with (
        open_forwarding_pair(None, routes(handler)) as (forwarding, _),
        connected(forwarding, "shared", screens[0], Shared) as one,
        connected(forwarding, "shared", screens[1], Shared),
    ):
        assert await one.proxy.tell_all("hello") == 2
    assert [screen.lines for screen in screens] == [["hello"], ["hello"]]


async def test_opening_a_path_that_no_handler_has_is_refused():
    """Handlers of connections are found by their paths."""
    handler = ConnectionHandler("plugins/{name}", Plugin, Screen)
    async with open_forwarding_pair(None, routes(handler)) as (forwarding, _):
        for wrong in ("plugin", "plugins", "plugins/a/b", "plugins/"):
            with pytest.raises(Refused, match="no route"):
                await forwarding.open(wrong)
        async with connected(forwarding, "plugins/a", Screen()) as client:
            assert await client.proxy.greet() == "hello from a"


async def test_a_factory_may_refuse_a_connection_with_a_reason():
    def make_target(proxy, name):
        if name != "spell":
            raise Refused(f"there is no plugin {name!r}")
        return Plugin(proxy, name)

    handler = ConnectionHandler("plugins/{name}", make_target, Screen)
    async with open_forwarding_pair(None, routes(handler)) as (forwarding, _):
        with pytest.raises(Refused, match="there is no plugin 'lint'"):
            await forwarding.open("plugins/lint")
        async with connected(forwarding, "plugins/spell", Screen()) as client:
            await client.proxy.greet()


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_factory_that_raises_fails_its_own_connection_and_no_other(is_async, caplog):
    def make_target(proxy, name):
        if name == "bad":
            raise KeyError("a bug")
        return Plugin(proxy, name)

    async def make_later(proxy, name):
        await trio.lowlevel.checkpoint()
        return make_target(proxy, name)

    maker = make_later if is_async else make_target
    handler = ConnectionHandler("plugins/{name}", maker, Screen)
    async with (
        open_forwarding_pair(None, routes(handler)) as (forwarding, _),
        connected(forwarding, "plugins/good", Screen()) as client,
    ):
        with pytest.raises(Refused, match="its handler failed"):
            await forwarding.open("plugins/bad")
        assert await client.proxy.greet() == "hello from good"
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "a bug" in caplog.text


@pytest.mark.parametrize("wrong", [object(), Plugin, {"plugin": Plugin(None)}])
async def test_a_factory_that_returns_no_service_fails_its_own_connection(wrong, caplog):
    handler = ConnectionHandler("plugin", lambda _proxy: wrong, Screen)
    async with open_forwarding_pair(None, routes(handler)) as (forwarding, _):
        with pytest.raises(Refused, match="its handler failed"):
            await forwarding.open("plugin")
    assert "TypeError" in caplog.text


async def test_an_async_factory_is_bounded_in_time(autojump_clock, caplog):
    async def make_target(proxy):
        await trio.sleep_forever()

    limits = Limits(handshake_timeout=7)
    handler = ConnectionHandler("plugin", make_target, Screen, limits=limits)
    async with open_forwarding_pair(None, routes(handler)) as (forwarding, _):
        with pytest.raises(Refused, match="its handler failed"):
            await forwarding.open("plugin")
    assert trio.current_time() == 7
    assert "no target for 'plugin' within 7 s" in caplog.text


async def test_a_factory_that_waits_for_a_call_of_its_own_client_gets_an_error(caplog):
    """The connection begins after the target has been made, so the call would wait forever."""
    errors = []

    async def make_target(proxy):
        with pytest.raises(trio_rpc.LocalProtocolError, match="begins when the target") as info:
            await proxy.show("too early")
        errors.append(info.value)
        return Plugin(proxy)

    handler = ConnectionHandler("plugin", make_target, Screen)
    screen = Screen()
    async with (
        open_forwarding_pair(None, routes(handler)) as (forwarding, _),
        connected(forwarding, "plugin", screen) as client,
    ):
        await client.proxy.greet()
    assert [error.fate for error in errors] == [trio_rpc.Fate.NOT_STARTED]
    assert screen.lines == ["plugin was called"]


async def test_a_task_that_a_factory_starts_may_call_the_client_which_waits_for_the_connection():
    async with trio.open_nursery() as nursery:

        async def make_target(proxy):
            nursery.start_soon(proxy.show, "welcome")
            await wait_all_tasks_blocked()
            return Plugin(proxy)

        handler = ConnectionHandler("plugin", make_target, Screen)
        screen = Screen()
        async with (
            open_forwarding_pair(None, routes(handler)) as (forwarding, _),
            connected(forwarding, "plugin", screen),
        ):
            await wait_all_tasks_blocked()
    assert screen.lines == ["welcome"]


@pytest.mark.parametrize("end", ["close", "carrier"])
async def test_a_client_that_leaves_while_the_factory_runs_ends_only_its_handler(
    end, autojump_clock, caplog, tasks
):
    caplog.set_level(logging.INFO, "trio_rpc")
    begun, go, made = trio.Event(), trio.Event(), []

    async def make_target(proxy, name):
        if name == "leaves":
            begun.set()
            await go.wait()
        made.append(name)
        return Plugin(proxy, name)

    handler = ConnectionHandler("plugins/{name}", make_target, Screen)
    async with open_forwarding_pair(None, routes(handler)) as (forwarding, server):
        async with connected(forwarding, "plugins/other", Screen()) as client:
            before = tasks()
            async with trio.open_nursery() as opening:
                opening.start_soon(_open_and_expect_its_end, forwarding, "plugins/leaves")
                await begun.wait()
                if end == "carrier":
                    forwarding._driver._carrier.close()
                opening.cancel_scope.cancel()
            go.set()
            await trio.sleep(1)  # the session, which cannot be opened, has time to end
            if end == "close":
                assert tasks() == before
                assert await client.proxy.greet() == "hello from other"
        if end == "carrier":
            await server.wait_closed()
    assert made == ["other", "leaves"]
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def _open_and_expect_its_end(forwarding, path):
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await forwarding.open(path)


class Held(Plugin):
    """A target that is held while its session lasts."""

    def __init__(self, screen):
        super().__init__(screen)
        self.steps = []

    async def __aenter__(self):
        self.steps.append("entered")
        return self

    async def __aexit__(self, *_exc_info):
        self.steps.append("left")


async def test_a_target_that_is_a_context_manager_is_held_while_its_session_lasts():
    made = []

    def make_target(screen):
        made.append(Held(screen))
        return made[-1]

    handler = ConnectionHandler("plugin", make_target, Screen)
    async with open_forwarding_pair(None, routes(handler)) as (forwarding, server):
        async with connected(forwarding, "plugin", Screen()) as client:
            await client.proxy.greet()
            assert made[0].steps == ["entered"]
        await forwarding.open("plugin")  # its session is never opened
        await wait_all_tasks_blocked()
        forwarding._driver._carrier.close()
        await server.wait_closed()
    assert made[0].steps == ["entered", "left"]
    assert len(made) == 2
    assert made[1].steps in ([], ["entered", "left"])


async def test_a_handler_can_serve_a_plain_channel():
    handler = ConnectionHandler("plugin", Plugin, Screen)
    ours, theirs = memory_channel_pair()
    client, screen = ServiceClient(Plugin), Screen()
    client.target = screen
    async with trio.open_nursery() as nursery:
        nursery.start_soon(handler, theirs)
        nursery.start_soon(client.listen, ours)
        assert await client.proxy.greet() == "hello from plugin"
        nursery.cancel_scope.cancel()


async def test_the_options_of_a_handler_apply_to_its_sessions():
    async def check(_session, credentials):
        if credentials != "token":
            raise Refused("unknown token")

    handler = ConnectionHandler("plugin", Plugin, Screen, authenticate=check)
    async with open_forwarding_pair(None, routes(handler)) as (forwarding, _):
        async with connected(forwarding, "plugin", Screen(), credentials="token") as client:
            await client.proxy.greet()
        client = ServiceClient(Plugin)
        async with await forwarding.open("plugin") as channel:
            with pytest.raises(Refused, match="unknown token"):
                await client.listen(channel)


async def test_wrong_handlers_are_refused_when_they_are_made():
    for wrong in ("", "a/{b", "a/{channel}", "a/{b}/{b}"):
        with pytest.raises(ValueError, match="route"):
            ConnectionHandler(wrong, Plugin, Screen)
    for maker in (lambda: None, lambda proxy, other: None, lambda name: None, "no function"):
        with pytest.raises(TypeError, match="make_target must"):
            ConnectionHandler("plugins/{name}", maker, Screen)
    with pytest.raises(TypeError, match="no methods"):
        ConnectionHandler("plugins/{name}", Plugin, object)
    with pytest.raises(TypeError, match="limts"):
        ConnectionHandler("plugins/{name}", Plugin, Screen, limts=None)
    with pytest.raises(ValueError, match="two handlers for the path 'a'"):
        await serve_connections([ConnectionHandler("a", Plugin)] * 2, "tcp://127.0.0.1:0")
    large = ConnectionHandler("a", Plugin, limits=Limits(max_packet=1_000_000))
    with pytest.raises(ValueError, match="'a' has max_packet=1000000, and the connection only"):
        await serve_connections([large], "tcp://127.0.0.1:0")
    with pytest.raises(ValueError, match="URL"):
        await serve_connections([])


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:0", "ws://127.0.0.1:0", "unix"])
@pytest.mark.parametrize("resume", [False, True])
async def test_handlers_are_served_by_path_over_one_port(url, resume, tmp_path):
    """One session has one service; several services have several channels over one port."""
    url = f"unix:{tmp_path}/socket" if url == "unix" else url
    handlers = [
        ConnectionHandler("plugins/{name}", Plugin, Screen),
        ConnectionHandler("screen", lambda _proxy: Screen()),
    ]
    async with trio.open_nursery() as nursery:
        serve = functools.partial(serve_connections, handlers, url, resume=resume)
        urls = await nursery.start(serve)
        async with (
            connect_forwarding(urls[0], resume=resume) as forwarding,
            connected(forwarding, "plugins/spell", Screen()) as spell,
            connected(forwarding, "screen", None, Screen) as screen,
        ):
            assert await spell.proxy.greet() == "hello from spell"
            await screen.proxy.show("a line")
        nursery.cancel_scope.cancel()
