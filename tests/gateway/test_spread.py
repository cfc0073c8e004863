"""A gateway of several instances: each serves the clients of all, over links in memory."""

from __future__ import annotations

import pytest
import trio
from helpers.gateway_instances import Page, open_instances, until

import trio_rpc
from trio_rpc.gateway import GatewayLimits


class Work:
    """Counts what runs at one instance."""

    def __init__(self) -> None:
        self.go = trio.Event()
        self.running = 0
        self.ended = 0

    @trio_rpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b

    @trio_rpc.method
    async def wait(self) -> str:
        self.running += 1
        try:
            await self.go.wait()
        finally:
            self.running -= 1
            self.ended += 1
        return "done"


@pytest.fixture
def autojump_clock():
    return trio.testing.MockClock(autojump_threshold=0)


async def test_a_post_at_another_instance_is_answered_by_the_home(autojump_clock, nursery):
    async with open_instances(Work) as (a, b):
        page = Page(nursery)
        await page.connect(a)
        assert page.id.startswith("a.")
        answer = await page.post(b, "add", {"a": 1, "b": 2})
        assert answer.status == 200
        assert answer.answer["request_uuid"].startswith("a.")
        await until(lambda: len(page.socket.messages) > 1)
        finish = page.socket.messages[1]
        assert (finish["type"], finish["payload"]) == ("finish", 3)
        assert finish["request_uuid"] == answer.answer["request_uuid"]
        page.socket.disconnect()


async def test_a_websocket_that_comes_back_at_another_instance_gets_the_rest(
    autojump_clock, nursery
):
    async with open_instances(Work) as (a, b):
        page = Page(nursery)
        await page.connect(a)
        started = await page.post(a, "wait")
        page.socket.disconnect()
        first = await page.resume(b)
        assert first == {"type": "resumed", "uuid": page.id}
        assert a.app.clients == 1
        assert b.app.clients == 0
        a.service.go.set()
        await until(lambda: len(page.socket.messages) > 1)
        assert page.socket.messages[1]["payload"] == "done"
        assert page.socket.messages[1]["request_uuid"] == started.answer["request_uuid"]
        page.socket.disconnect()


async def test_a_page_that_says_bye_at_another_instance_ends_its_work(autojump_clock, nursery):
    async with open_instances(Work) as (a, b):
        page = Page(nursery)
        await page.connect(a)
        page.socket.disconnect()
        await page.resume(b)
        await page.post(b, "wait")
        await until(lambda: a.service.running)
        began = trio.current_time()
        page.socket.says("bye")
        page.socket.disconnect()
        await until(lambda: a.service.ended)
        assert trio.current_time() - began < 1
        assert a.app.clients == 0


async def test_the_work_of_a_page_that_left_another_instance_ends_after_grace(
    autojump_clock, nursery
):
    async with open_instances(Work, limits=GatewayLimits(grace=20)) as (a, b):
        page = Page(nursery)
        await page.connect(a)
        page.socket.disconnect()
        await page.resume(b)
        await page.post(b, "wait")
        began = trio.current_time()
        page.socket.disconnect()
        await until(lambda: a.service.ended)
        assert trio.current_time() - began == pytest.approx(20, abs=0.1)


async def test_the_home_refuses_a_wrong_token(autojump_clock, nursery):
    wrong = {"Trio-Rpc-Token": "wrong"}
    async with open_instances(Work) as (a, b):
        page = Page(nursery)
        await page.connect(a)
        answer = await page.post(b, "wait", **wrong)
        assert answer.status == 403
        assert "does not belong" in answer.answer["error"]
        page.socket.disconnect()
        assert (await page.resume(b, token=wrong["Trio-Rpc-Token"]))["type"] == "lost"
        await until(lambda: page.socket.close_code)
        assert page.socket.close_code == 4404
        assert a.app.clients == 1
        assert not a.service.running


async def test_the_clients_of_a_dead_home_are_told_that_it_is_lost(autojump_clock, nursery):
    async with open_instances(Work) as (a, b):
        page, other = Page(nursery), Page(nursery)
        await page.connect(a)
        await other.connect(a)
        other.socket.disconnect()
        await other.resume(b)
        began = trio.current_time()
        await a.die()
        await until(lambda: other.socket.close_code)
        assert other.socket.close_code == 1013
        assert (await other.resume(b))["type"] == "lost"
        assert trio.current_time() - began == pytest.approx(5, abs=0.2)
        answer = await page.post(b, "wait")
        assert answer.status == 410
        assert trio.current_time() - began == pytest.approx(7, abs=0.3)


@pytest.mark.parametrize(
    "name",
    ["c", "A", "", "..", "a b", "a*", ">", "a\r\nPUB x", "__class__", "x" * 5000, "é", "b/a"],
)
async def test_a_name_that_a_stranger_has_made_up_leads_nowhere(autojump_clock, nursery, name):
    async with open_instances(Work) as (a, b):
        page = Page(nursery)
        await page.connect(a)
        attempts = a.link.attempts + b.link.attempts
        page.hello["uuid"] = f"{name}.{page.id.partition('.')[2]}"
        page.socket.disconnect()
        assert (await page.resume(b))["type"] == "lost"
        answer = await page.post(b, "wait")
        assert answer.status in (404, 410)
        assert a.link.attempts + b.link.attempts == attempts
        assert not a.service.running
        assert not b.service.running


async def test_an_id_of_an_earlier_run_of_an_instance_is_gone(autojump_clock, nursery):
    async with open_instances(Work) as (a, b):
        page = Page(nursery)
        await page.connect(a)
        page.hello["uuid"] = "a.00000000-0000-4000-8000-000000000000"
        for instance in (a, b):
            answer = await page.post(instance, "wait")
            assert answer.status == 410
