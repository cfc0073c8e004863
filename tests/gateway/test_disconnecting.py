"""A client that leaves the gateway leaves no entry and no message behind."""

from __future__ import annotations

import json

import pytest
import trio
from helpers.gateway_tools import browsing, hosting
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc.gateway import Gateway, GatewayLimits
from trio_rpc.gateway.server.browser import Client
from trio_rpc.gateway.server.connection import Connection


class Waiter:
    @trio_rpc.method
    async def wait(self) -> None:
        await trio.sleep_forever()


@pytest.mark.parametrize("query", ["", "resumable=1"])
@pytest.mark.parametrize("is_busy", [False, True])
async def test_a_client_that_disconnects_is_removed_from_the_gateways_table(query, is_busy):
    """A client that disconnects is removed from the table."""
    gateway = Gateway(Waiter(), limits=GatewayLimits(grace=0.01))
    async with hosting(gateway) as url:
        async with browsing(url, query) as browser:
            if is_busy:
                await browser.start("wait")
            assert gateway.clients == 1
        with trio.fail_after(5):
            while gateway.clients or gateway.works:  # noqa: ASYNC110 - no event tells
                await trio.sleep(0.01)
        assert gateway._state.clients == {}


async def test_race_a_writer_that_is_woken_and_replaced_in_one_tick_takes_no_message():
    sent = {"old": [], "new": []}
    client = Client(GatewayLimits(), resumable=True)

    def connection(name):
        async def send(text):
            message = json.loads(text)
            sent[name] += message if type(message) is list else [message]

        return Connection(client, {"type": "first"}, send, trio.sleep_forever)

    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        nursery.start_soon(connection("old").run)
        await wait_all_tasks_blocked()
        client.say({"type": "callback"})  # wakes the writer of the old connection
        assert client.backlog.rewind(0)
        nursery.start_soon(connection("new").run)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [each["type"] for each in sent["old"]] == ["first"]
    assert [each["type"] for each in sent["new"]] == ["first", "callback"]
