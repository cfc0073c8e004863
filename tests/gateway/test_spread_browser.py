"""message.js in a real Chromium, at two instances behind a load balancer without stickiness."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio
from helpers.chromium import MESSAGE, Chromium, evaluate_at, why_not
from helpers.gateway_instances import until
from helpers.gateway_tools import hosting
from helpers.round_robin import RoundRobin, open_round_robin
from starlette.applications import Starlette
from starlette.routing import Mount

import trio_rpc
from examples.scan.__main__ import PAGES
from trio_rpc.gateway import Gateway, GatewayLimits, open_spread

if why_not() and not os.environ.get("CI"):
    pytest.skip(f"no browser: {why_not()}", allow_module_level=True)

pytestmark = pytest.mark.slow

CALLBACKS = 40


class Service:
    """Work of one instance, which the other instances must not repeat."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.running = 0
        self.cut: Callable[[], None] = lambda: None

    @trio_rpc.method
    async def count(self, to: int, found: Callable[[str, int], Awaitable[None]]) -> str:
        for number in range(to):
            await found(self.name, number)
            if number % 10 == 5:
                self.cut()
                await trio.sleep(0.05)  # so that the page notices while there is more to come
        return self.name

    @trio_rpc.method
    async def hold(self, found: Callable[[int], Awaitable[None]]) -> None:
        self.running += 1
        try:
            await found(1)
            await trio.sleep_forever()
        finally:
            self.running -= 1


class Instance:
    """One instance, which a test can end."""

    def __init__(self, name: str) -> None:
        self.service = Service(name)
        self.url = ""
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    async def run(self, links: dict[str, str], in_lifespan: str, *, task_status: Any) -> None:
        limits = GatewayLimits(grace=20)
        gateway = Gateway(self.service, home=self.service.name, pages=PAGES, limits=limits)

        @contextlib.asynccontextmanager
        async def lifespan(_app: object) -> AsyncIterator[None]:
            async with gateway.run(), open_spread(gateway, links, patience=1):
                yield

        try:
            with self._scope:
                if in_lifespan:
                    app = Starlette(routes=[Mount("/", gateway)], lifespan=lifespan)
                    await self._host(app, task_status)
                async with open_spread(gateway, links, patience=1):
                    await self._host(gateway, task_status)
        finally:
            self._ended.set()

    async def _host(self, app: Any, task_status: Any) -> None:
        async with hosting(app) as self.url:
            task_status.started()
            await trio.sleep_forever()

    async def end(self) -> None:
        self._scope.cancel()
        await self._ended.wait()


@contextlib.asynccontextmanager
async def two_instances(
    *, in_lifespan: str = ""
) -> AsyncIterator[tuple[dict[str, Instance], RoundRobin]]:
    instances = {name: Instance(name) for name in "ab"}
    with tempfile.TemporaryDirectory() as folder:
        links = {name: f"unix://{folder}/{name}" for name in instances}
        async with trio.open_nursery() as nursery:
            for each in instances.values():
                await nursery.start(each.run, links, in_lifespan)
            async with open_round_robin(*(each.url for each in instances.values())) as balancer:
                for each in instances.values():
                    each.service.cut = balancer.cut
                yield instances, balancer
            nursery.cancel_scope.cancel()


async def evaluate(chromium: Chromium, balancer: RoundRobin, script: str) -> Any:
    return await evaluate_at(chromium, f"{balancer.url}/", script)


@pytest.mark.parametrize("in_lifespan", ["", "joined in the lifespan"])
async def test_a_page_whose_requests_reach_any_instance_gets_each_callback_once_in_order(
    chromium, in_lifespan
):
    async with two_instances(in_lifespan=in_lifespan) as (_, balancer):
        script = f"""
            await message.connect();
            const runs = [];
            for (let run = 0; run < 3; run++) {{
              const found = [], homes = new Set();
              homes.add(await message.post("count", {{ to: {CALLBACKS} }}, {{
                found: (home, number) => {{ homes.add(home); found.push(number); }},
              }}));
              runs.push([found, [...homes]]);
            }}
            const home = message.clientId.split("~")[0];
            message.close();
            return [runs, home];
        """
        runs, home = await evaluate(chromium, balancer, script)
        assert runs == [[list(range(CALLBACKS)), [home]]] * 3
        assert min(balancer.requests.values()) >= 2
        assert min(balancer.websockets.values()) >= 2


async def test_closing_a_page_ends_its_work_at_another_instance(chromium):
    async with two_instances() as (instances, balancer):
        script = """
            await message.connect();
            const works = [];
            for (let work = 0; work < 4; work++) {
              await new Promise((started) => {
                works.push(message.post("hold", {}, { found: started }).catch((error) => error.code));
              });
            }
            const home = message.clientId.split("~")[0];
            message.close();
            return [await Promise.all(works), home];
        """
        codes, home = await evaluate(chromium, balancer, script)
        assert codes == ["closed"] * 4
        await until(lambda: not instances[home].service.running)


async def test_a_page_whose_home_ends_is_told_and_starts_anew(chromium):
    async with two_instances() as (instances, balancer):
        script = """
            window.run = async () => {
              window.events = [];
              message.addEventListener("lost", () => window.events.push("lost"));
              await message.connect();
              const home = message.clientId.split("~")[0];
              const work = message.post("hold", {}, { found: () => { window.home = home; } });
              window.events.push(await work.catch((error) => error.code));
              const again = await message.post("count", { to: 1 }, { found: () => {} });
              window.events.push(again === home ? "the same" : "the other");
              message.close();
            };
            window.done = window.run();
        """

        def begin() -> Any:
            page = chromium.new_page(f"{balancer.url}/")
            page.evaluate(f"async () => {{ {MESSAGE} {script} }}")
            page.wait_for_function("window.home")
            return page, page.evaluate("window.home")

        page, home = await chromium.run(begin)
        assert instances[home].service.running == 1
        await instances[home].end()

        def finish() -> Any:
            page.evaluate("window.done")
            try:
                assert page.errors == []
                return page.evaluate("window.events")
            finally:
                page.close()

        assert await chromium.run(finish) == ["lost", "lost", "the other"]
