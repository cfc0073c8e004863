"""Identifiers: one typed object at both ends names a service and its interface."""

from __future__ import annotations

import pytest

import trio_rpc
from trio_rpc import Identifier


class Commands:
    @trio_rpc.method
    async def run(self, name: str) -> str:
        raise NotImplementedError


class Window:
    @trio_rpc.method
    async def show(self, text: str) -> int:
        raise NotImplementedError


class ShowsText:
    @trio_rpc.method
    async def show(self, text: str) -> str:
        raise NotImplementedError


class Main:
    commands = Identifier("commands", Commands)
    window = Identifier("window", Window)


class Plugin:
    commands = Identifier("commands", Commands)


class MainCommands(Commands):
    async def run(self, name: str) -> str:
        session = trio_rpc.current_call().session
        return f"main: {await session.proxy(Plugin.commands).run(name)}"


class PluginCommands(Commands):
    async def run(self, name: str) -> str:
        return f"plugin: {name}"


class LiveWindow(Window):
    async def show(self, text: str) -> int:
        return len(text)


async def test_both_ends_serve_and_call_by_identifiers_that_are_grouped_in_classes(session_pair):
    """One class has the identifiers of the main program, and the other those of the plugin.

    Typed identifiers are made by a helper, and grouped in contexts.
    """
    services = {Main.commands: MainCommands(), Main.window: LiveWindow()}
    async with session_pair(services, {Plugin.commands: PluginCommands()}) as (_, plugin):
        assert await plugin.proxy(Main.commands).run("save") == "main: plugin: save"
        assert await plugin.proxy(Main.window).show("text") == 4


async def test_a_proxy_of_an_identifier_is_that_of_its_name_and_interface(session_pair):
    async with session_pair({Main.window: LiveWindow()}) as (_, b):
        proxy = b.proxy(Main.window)
        assert proxy is b.proxy("window", Window)
        async with b.open_scope() as scope:
            assert await scope.proxy(Main.window).show("ab") == 2
        with pytest.raises(trio_rpc.DecodeError, match=r"window\.show"):
            await b.proxy(Identifier("window", ShowsText)).show("text")


async def test_an_identifier_has_its_own_interface(session_pair):
    async with session_pair() as (a, _):
        with pytest.raises(TypeError, match="'window' has its own interface"):
            a.proxy(Main.window, Window)
        async with a.open_scope() as scope:
            with pytest.raises(TypeError, match="'window' has its own interface"):
                scope.proxy(Main.window, Window)


class Unfit:
    @trio_rpc.method
    async def show(self, number: int) -> int:
        raise NotImplementedError


WHY = r"Unfit does not fit Window: show\(\): its parameter 'number' is 'text'"


async def test_a_class_that_does_not_fit_is_refused_before_a_connection_is_made():
    with pytest.raises(TypeError, match=WHY):
        async with trio_rpc.connect("tcp://127.0.0.1:1", {Main.window: Unfit()}):
            raise AssertionError
    with pytest.raises(TypeError, match=WHY):
        await trio_rpc.serve({Main.window: Unfit()}, "tcp://127.0.0.1:0")


async def test_a_class_that_does_not_fit_ends_only_the_session_that_it_was_made_for(nursery):
    def services(_session):
        return {Main.window: LiveWindow() if served else Unfit()}

    served = []
    urls = await nursery.start(trio_rpc.serve, services, "tcp://127.0.0.1:0")
    with pytest.raises(trio_rpc.SessionBroken):
        async with trio_rpc.connect(urls[0]):
            raise AssertionError
    served.append(True)
    async with trio_rpc.connect(urls[0]) as session:
        assert await session.proxy(Main.window).show("abc") == 3
