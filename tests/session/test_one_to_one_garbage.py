"""Service clients, handlers and providers leave nothing for the garbage collector to free."""

from __future__ import annotations

import contextlib
import functools
import logging

import pytest
import trio
from helpers import kept_children
from helpers.forwarding_pairs import open_forwarding_pair
from helpers.garbage import collecting_garbage
from helpers.kept_children import Program
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import ConnectionHandler, ServiceClient, ServiceProvider, serve_connections
from trio_rpc.testing import memory_channel_pair


class Screen:
    @trio_rpc.method
    async def show(self, text: str) -> str:
        return text


class Plugin:
    def __init__(self, screen=None):
        self.screen = screen

    @trio_rpc.method
    async def greet(self) -> str:
        return await self.screen.show("hello")

    @trio_rpc.method
    async def wait(self) -> None:
        await trio.sleep_forever()

    @trio_rpc.stream
    async def ticks(self):
        yield 1


@pytest.fixture(autouse=True)
def unlogged(caplog):
    caplog.set_level(logging.CRITICAL)  # pytest keeps each logged bug with its traceback


async def left_by(scenario, *args):
    for _ in range(2):
        await scenario(*args)
    with collecting_garbage() as left:
        await scenario(*args)
    return [each for each in left if each.startswith(("trio_rpc", "builtins.frame"))]


async def client_from_one_connection_to_the_next(grace):
    client = ServiceClient(Plugin, Screen(), grace=grace)
    for number in range(3):
        ours, theirs = memory_channel_pair()
        async with trio.open_nursery() as nursery:
            if number == 0 or grace:
                nursery.start_soon(_greet, client)  # it waits for the connection
            await wait_all_tasks_blocked()
            other = ServiceClient(Screen)
            other.target = Plugin(other.proxy)
            nursery.start_soon(other.listen, theirs)
            session = await nursery.start(client.listen, ours)
            async with client.proxy.ticks() as ticks:
                assert await ticks.receive() == 1
            nursery.start_soon(_wait, client)
            await wait_all_tasks_blocked()
            if number == 0:
                await session.aclose(grace=0)
            elif number == 1:
                await theirs.aclose()
            else:
                nursery.cancel_scope.cancel()
        if not grace:
            with contextlib.suppress(trio_rpc.RpcError):
                await client.proxy.greet()
    with contextlib.suppress(trio_rpc.RpcError):
        ours, theirs = memory_channel_pair()
        await theirs.aclose()
        await client.listen(ours)


async def _greet(client):
    assert await client.proxy.greet() == "hello"


async def _wait(client):
    with contextlib.suppress(trio_rpc.RpcError):
        await client.proxy.wait()


async def handlers_that_serve_refuse_and_fail():
    def make(screen, name):
        if name == "refused":
            raise trio_rpc.Refused("not this one")
        if name == "bad":
            raise KeyError("a bug")
        return Plugin(screen)

    handler = ConnectionHandler("plugins/{name}", make, Screen)
    async with open_forwarding_pair(None, {handler.path: handler}) as (forwarding, _):
        for name in ("good", "refused", "bad"):
            with contextlib.suppress(trio_rpc.Refused):
                async with (
                    await forwarding.open(f"plugins/{name}") as channel,
                    trio.open_nursery() as nursery,
                ):
                    client = ServiceClient(Plugin, Screen())
                    await nursery.start(client.listen, channel)
                    await _greet(client)
                    nursery.cancel_scope.cancel()


async def provider_that_is_cancelled(url):
    handler = ConnectionHandler("plugin", Plugin, Screen)
    async with trio.open_nursery() as nursery:
        urls = await nursery.start(functools.partial(serve_connections, [handler], url))
        provider = ServiceProvider(urls[0])
        plugin = provider.proxy("plugin", Plugin, Screen())
        unknown = provider.proxy("unknown", Plugin)
        async with trio.open_nursery() as running:
            await running.start(provider.run)
            assert await plugin.greet() == "hello"
            with contextlib.suppress(trio_rpc.Refused):
                await unknown.greet()
            running.cancel_scope.cancel()
        nursery.cancel_scope.cancel()


async def kept_process_that(how):
    async with trio.open_nursery() as nursery:
        program = Program(nursery)
        if how == "cannot be started":
            program.error = FileNotFoundError("there is no such program")
        if how == "is refused":
            program.before_serving = refuse
        with contextlib.suppress(trio_rpc.RpcError, FileNotFoundError), trio.CancelScope() as scope:
            async with program.kept(
                target=kept_children.Screen(), restart=trio_rpc.Restart(times=1, max_delay=0)
            ) as kept:
                if how in ("cannot be started", "is refused"):
                    await trio.sleep_forever()
                await kept.proxy.show("hello")
                nursery.start_soon(_wait, kept)
                await program.children[0].crash()
                assert await kept.proxy.number_of() == 1
                if how == "crashes too often":
                    await program.children[1].crash()
                    await trio.sleep_forever()
                elif how == "is cancelled":
                    scope.cancel()
                    await trio.sleep_forever()
        with contextlib.suppress(trio_rpc.RpcError):
            await kept.proxy.number_of()
        nursery.cancel_scope.cancel()


async def refuse(channel):
    async def refuse_all(_session, _credentials):
        raise trio_rpc.Refused("not you")

    with contextlib.suppress(trio_rpc.Refused):
        await trio_rpc.serve_session(channel, Screen(), authenticate=refuse_all)
    return False


@pytest.mark.parametrize("grace", [0, 60])
async def test_a_client_that_goes_from_one_connection_to_the_next_leaves_no_garbage(grace):
    assert await left_by(client_from_one_connection_to_the_next, grace) == []


async def test_handlers_of_connections_leave_no_garbage():
    assert await left_by(handlers_that_serve_refuse_and_fail) == []


async def test_a_provider_leaves_no_garbage(tmp_path):
    assert await left_by(provider_that_is_cancelled, f"unix:{tmp_path}/socket") == []


@pytest.mark.parametrize(
    "how",
    ["is closed", "is cancelled", "crashes too often", "cannot be started", "is refused"],
)
async def test_a_process_that_is_kept_leaves_no_garbage(how):
    assert await left_by(kept_process_that, how) == []
