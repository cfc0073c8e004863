"""Instances of a gateway that are joined over sockets and over NATS."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
import trio
from helpers.gateway_instances import Page, until
from helpers.gateway_tools import hosting
from helpers.nats_broker import open_broker
from helpers.round_robin import open_round_robin

import trio_rpc
from trio_rpc.gateway import Gateway, Message, Spread, open_spread


@pytest.fixture
def autojump_clock():
    return trio.testing.MockClock(autojump_threshold=0.01)


class Counter:
    def __init__(self, name: str) -> None:
        self.name = name

    @trio_rpc.method
    async def count(self, to: int, found: Callable[[int], Awaitable[None]]) -> str:
        for number in range(to):
            await found(number)
        return self.name


class Joined:
    """An instance without a server, for :class:`Page`."""

    def __init__(self, name: str) -> None:
        self.app = Gateway(Counter(name), home=name)
        self.spread: Spread

    @contextlib.asynccontextmanager
    async def join(self, links, **options) -> AsyncIterator[Joined]:
        async with self.app.run(), open_spread(self.app, links, **options) as self.spread:
            yield self

    def states(self) -> dict[str, str]:
        return {each.name: each.state for each in self.spread.instances()}


async def test_the_python_client_is_served_by_any_instance(server):
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        links = {name: f"unix://{folder}/{name}" for name in "ab"}
        urls = []
        for name in links:
            gateway = Gateway(Counter(name), home=name)
            await stack.enter_async_context(open_spread(gateway, links))
            urls.append(await stack.enter_async_context(hosting(gateway)))
        balancer = await stack.enter_async_context(open_round_robin(*urls))
        place = httpx.URL(balancer.url)
        message = Message(place.host, place.port)
        async with message.connect():
            homes = set()
            for _ in range(6):
                found: list[int] = []
                homes.add(await message.post("count", {"to": 3}, {"found": found.append}))
                assert found == [0, 1, 2]
                balancer.cut()
            assert len(homes) == 1
        assert min(balancer.requests.values()) >= 2


async def test_only_instances_with_the_right_credentials_are_joined():
    async def check(_session, credentials):
        if credentials != "secret":
            raise trio_rpc.Refused("who are you?")

    with tempfile.TemporaryDirectory() as folder:
        links = {name: f"unix://{folder}/{name}" for name in "abc"}
        a, b, c = Joined("a"), Joined("b"), Joined("c")
        async with (
            a.join(links, credentials="secret", authenticate=check),
            b.join(links, credentials="secret", authenticate=check),
            c.join(links, credentials="wrong"),
        ):
            await until(lambda: a.states()["b"] == "open")
            await until(lambda: b.states()["a"] == "open")
            await until(lambda: "who are you" in c.spread.instances()[0].error)
            assert c.states() == {"a": "connecting", "b": "connecting"}


async def test_instances_find_each_other_through_nats(autojump_clock, nursery):
    async with open_broker() as broker:
        url = f"{broker.url}/gateways"
        a, b, c = Joined("a"), Joined("b"), Joined("c")
        async with a.join(url), b.join(url):
            await until(lambda: a.states() == {"b": "open"} and b.states() == {"a": "open"})
            page = Page(nursery)
            await page.connect(a)
            page.socket.disconnect()
            assert (await page.resume(b))["type"] == "resumed"
            await page.post(b, "count", {"to": 2})
            await until(lambda: len(page.socket.messages) > 3)
            assert [each["type"] for each in page.socket.messages[1:]] == ["callback"] * 2 + [
                "finish"
            ]
            page.socket.disconnect()
            async with c.join(url):  # a and b have not heard of it
                began = trio.current_time()
                late = Page(nursery)
                await late.connect(c)
                answer = await late.post(a, "count", {"to": 1})
                assert answer.status == 200
                assert trio.current_time() - began < 2
                late.socket.disconnect()
                assert (await late.resume(b))["type"] == "resumed"
            await until(lambda: late.socket.close_code)
            answer = await late.post(a, "count", {"to": 1})
            assert answer.status == 410


async def test_a_name_that_a_stranger_made_up_is_not_part_of_a_subject(autojump_clock, nursery):
    async with open_broker() as broker:
        a, b = Joined("a"), Joined("b")
        async with a.join(f"{broker.url}/gateways"), b.join(f"{broker.url}/gateways"):
            await until(lambda: a.states() == {"b": "open"})
            page = Page(nursery)
            await page.connect(a)
            broker.published.clear()
            for name in ("market", "*", ">", "b.x", "trpc"):
                page.hello["uuid"] = f"{name}~{page.id}"
                assert (await page.post(a, "count")).status == 410
            subjects = {each.subject for each in broker.published}
            assert "$SRV.INFO.gateways" in subjects
            assert not [each for each in subjects if each.startswith("trpc.at")]
