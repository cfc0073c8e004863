"""A gateway's objects may be used only in their own Trio run. Elsewhere they raise at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import httpx
import pytest
import trio
from helpers.gateway_tools import TIME_LIMIT, browsing, hosting

import trio_rpc
from trio_rpc.gateway import Gateway, Message, call_back

TEXT = r"belongs to the Trio run in thread .* that opened it, .*trio\.from_thread\.run"


async def refused(function: Callable[[], Awaitable[object]]) -> None:
    """Use an object in the Trio run of another thread, and check that it raises."""
    with trio.fail_after(TIME_LIMIT), pytest.raises(RuntimeError, match=TEXT):
        await trio.to_thread.run_sync(trio.run, function)


class Service:
    @trio_rpc.method
    async def scan(self, found: Callable[[int], Awaitable[None]]) -> str:
        await refused(partial(found, 1))
        await found(2)
        return "done"

    @trio_rpc.method
    async def several(self, found: Callable[[int], Awaitable[None]]) -> str:
        await refused(partial(call_back, found=1))
        await call_back(found=2)
        return "done"

    @trio_rpc.method
    async def plain(self) -> str:
        return "done"


@pytest.mark.parametrize("method", ["scan", "several"])
async def test_a_callback_is_refused_in_another_run_and_works_in_its_own(method):
    async with hosting(Gateway(Service())) as url, browsing(url) as browser:
        request = await browser.start(method)
        callbacks, end = await browser.until_end(request)
        assert [each["found"] for each in callbacks] == [2]
        assert end["payload"] == "done"


@pytest.mark.parametrize("callbacks", [None, {"found": print}])
async def test_a_client_in_use_is_refused_in_another_run_and_works_in_its_own(callbacks):
    async with hosting(Gateway(Service())) as url:
        address = httpx.URL(url)
        message = Message(address.host, address.port)
        async with message.connect():
            await refused(partial(message.post, "plain", None, callbacks))
            assert await message.post("plain") == "done"
            assert message.state == "open"
        # The client is unused now, so another run may use it.
        assert await trio.to_thread.run_sync(trio.run, message.post, "plain") == "done"


async def test_a_running_gateway_is_refused_in_another_run_and_works_in_its_own():
    gateway = Gateway(Service())

    async def ask(url: str, path: str) -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway), base_url=url) as http:
            return (await http.post(path, json={})).status_code

    async with hosting(gateway) as url, browsing(url) as browser:
        await refused(gateway.drain)
        for path in ("/api/plain", f"/api/plain/{browser.id}"):
            await refused(partial(ask, url, path))
        request = await browser.start("plain")
        assert (await browser.until_end(request))[1]["payload"] == "done"
