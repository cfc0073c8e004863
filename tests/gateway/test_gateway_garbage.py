"""A page that has left leaves no objects of the gateway to the garbage collector."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import pytest
import trio
from helpers.garbage import collecting_garbage
from helpers.gateway_tools import browsing, hosting
from trio.testing import wait_all_tasks_blocked

from trio_rpc import method
from trio_rpc.gateway import Gateway

OURS = ("trio_rpc", "hypercorn", "starlette", "builtins.frame", "builtins.traceback")
"""The gateway's own types. Objects of wsproto and httpx refer to themselves."""


class Bench:
    @method
    async def count(self, to: int, progress: Callable[[int], Awaitable[None]]) -> int:
        for number in range(to):
            await progress(number)
        return to

    @method
    async def bug(self) -> None:
        raise ValueError("raised by the test")

    @method
    async def hangs(self) -> None:
        await trio.sleep_forever()


async def counts(browser):
    request = await browser.start("count", to=3)
    callbacks, end = await browser.until_end(request)
    assert (len(callbacks), end["type"]) == (3, "finish")


async def fails(browser):
    request = await browser.start("bug")
    _, end = await browser.until_end(request)
    assert "ValueError" in str(end)


async def leaves_work(browser):
    await browser.start("hangs")


async def is_cut_off(browser):
    await browser.start("hangs")
    browser.cut()


@pytest.mark.parametrize("use", [counts, fails, leaves_work, is_cut_off])
async def test_a_page_leaves_no_garbage(use, caplog):
    caplog.set_level(logging.CRITICAL)  # pytest keeps each logged bug with its traceback
    async with hosting(Gateway(Bench())) as url:

        async def scenario():
            async with browsing(url, query="") as browser:
                await use(browser)
            await wait_all_tasks_blocked(0.05)  # until the server has also closed it

        for _ in range(2):
            await scenario()
        with collecting_garbage() as left:
            await scenario()
        assert [each for each in left if each.startswith(OURS)] == []
