"""Handlers in a gateway have their own context variables, and their bugs are logged."""

from __future__ import annotations

import decimal
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

import httpx
from helpers.gateway_tools import browsing, hosting

import trio_rpc
from trio_rpc.gateway import Gateway, call_back
from trio_rpc.testing import open_session_pair


async def test_no_other_handler_sees_a_context_variable_that_a_handler_sets():
    user = ContextVar("user", default="nobody")

    class Service:
        @trio_rpc.method
        def login(self) -> None:
            user.set("ann")

        @trio_rpc.method
        async def who(self) -> str:
            return user.get()

    async with hosting(Gateway(Service())) as url, browsing(url) as browser:
        for name in ("login", "who"):
            await browser.start(name)
            message = await browser.next()
        assert message["payload"] == "nobody"


async def test_no_other_handler_sees_the_precision_of_decimals_that_a_handler_sets():
    class Service:
        @trio_rpc.method
        def set_precision(self) -> int:
            before = decimal.getcontext().prec
            decimal.getcontext().prec = 3
            return before

    with decimal.localcontext() as context:
        context.prec = 40
        async with hosting(Gateway(Service())) as url, browsing(url) as browser:
            for _ in range(2):
                await browser.start("set_precision")
                assert (await browser.next())["payload"] == 40
        assert decimal.getcontext().prec == 40


async def test_metadata_set_around_the_gateway_is_not_sent_with_calls_of_its_handlers():
    asked = []

    class Asked:
        @trio_rpc.method
        async def metadata(self) -> None:
            asked.append(dict(trio_rpc.current_call().metadata))

    class Asks:
        @trio_rpc.method
        async def ask(self) -> None:
            await session.call("metadata")

    async with open_session_pair(Asked(), None) as (_, session):
        with trio_rpc.metadata(user="the operator"):
            async with hosting(Gateway(Asks())) as url, browsing(url) as browser:
                await browser.start("ask")
                assert (await browser.next())["type"] == "finish"
                assert asked == [{}]


async def test_call_back_does_not_work_in_a_session_that_a_handler_has_opened():
    class Inner:
        @trio_rpc.method
        async def misuse(self) -> None:
            await call_back(found=1)

    class Outer:
        @trio_rpc.method
        async def outer(self, found: Callable[[int], Awaitable[None]]) -> None:
            async with open_session_pair(Inner(), None) as (_, session):
                await session.call("misuse")

    async with hosting(Gateway(Outer())) as url, browsing(url) as browser:
        await browser.start("outer")
        message = await browser.next()
        assert (message["type"], message["error_type"]) == ("error", "builtins.RuntimeError")


async def test_a_handlers_bug_is_logged_with_its_traceback_and_a_declared_exception_is_not(
    caplog,
):
    class Declared(Exception):
        pass

    class Service:
        @trio_rpc.method
        async def bug(self) -> None:
            raise LookupError("a bug")

        @trio_rpc.method
        def plain_bug(self) -> None:
            raise LookupError("a bug")

        @trio_rpc.method
        async def unsendable(self) -> object:
            return object()

        @trio_rpc.method(raises=(Declared,))
        async def declared(self) -> None:
            raise Declared

    async with hosting(Gateway(Service())) as url, browsing(url) as browser:
        requests = {}
        for name in ("declared", "bug", "plain_bug", "unsendable"):
            requests[name] = await browser.start(name)
            assert (await browser.next())["type"] == "error"
    records = [each for each in caplog.records if each.name == "trio_rpc.handlers"]
    assert [each.rpc_method for each in records] == ["bug", "plain_bug", "unsendable"]
    assert [each.rpc_call for each in records] == [requests[each.rpc_method] for each in records]
    assert "in plain_bug" in caplog.text
    assert {each.rpc_session for each in records} == {f"the gateway's client {browser.id}"}


async def test_a_bug_in_a_call_without_a_websocket_names_its_caller(caplog):
    class Service:
        @trio_rpc.method
        async def bug(self) -> None:
            raise LookupError("a bug")

    async with hosting(Gateway(Service())) as url, httpx.AsyncClient(base_url=url) as http:
        assert (await http.post("/api/bug", json={})).status_code == 500
    text = "bug, called by a client without a WebSocket, raised LookupError"
    assert [text in each.getMessage() for each in caplog.records] == [True]


async def test_a_refusal_by_a_filter_arrives_as_such_and_is_not_logged_as_a_bug(
    caplog,
):
    ran = []

    class Service:
        @trio_rpc.method
        async def work(self) -> None:
            ran.append(1)

    async def refuse(call, proceed):
        raise trio_rpc.Overloaded("slow down")

    gateway = Gateway(Service(), filters=[refuse])
    async with hosting(gateway) as url, browsing(url) as browser:
        await browser.start("work")
        message = await browser.next()
        assert (message["code"], message["error"]) == ("overloaded", "slow down")
    assert ran == []
    assert [each for each in caplog.records if each.name == "trio_rpc.handlers"] == []
