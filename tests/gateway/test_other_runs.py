"""What a gateway gives out is used in the Trio run that it belongs to; elsewhere it raises at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import httpx
import pytest
import trio
from helpers.gateway_tools import PATIENCE, browsing, hosting

import trio_rpc
from trio_rpc.gateway import Gateway, Message, call_back

TEXT = r"belongs to the Trio run in thread .* that opened it, .*trio\.from_thread\.run"


async def refused(function: Callable[[], Awaitable[object]]) -> None:
    """Use something in a run of another thread."""
    with trio.fail_after(PATIENCE), pytest.raises(RuntimeError, match=TEXT):
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
async def test_a_callback_in_another_run_is_refused_and_goes_on_to_work_in_its_own(method):
    async with hosting(Gateway(Service())) as url, browsing(url) as browser:
        request = await browser.start(method)
        callbacks, end = await browser.until_end(request)
        assert [each["found"] for each in callbacks] == [2]
        assert end["payload"] == "done"


@pytest.mark.parametrize("callbacks", [None, {"found": print}])
async def test_a_message_in_use_is_refused_in_another_run_and_goes_on_to_work_in_its_own(callbacks):
    async with hosting(Gateway(Service())) as url:
        place = httpx.URL(url)
        message = Message(place.host, place.port)
        async with message.connect():
            await refused(partial(message.post, "plain", None, callbacks))
            assert await message.post("plain") == "done"
            assert message.state == "open"
        # Nobody uses it now: another run may.
        assert await trio.to_thread.run_sync(trio.run, message.post, "plain") == "done"


async def test_a_gateway_that_runs_is_refused_in_another_run_and_goes_on_to_work_in_its_own():
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
