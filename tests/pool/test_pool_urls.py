"""A pool at URLs of each transport, which is called as a session is."""

from __future__ import annotations

import ssl

import pytest
import trio
from helpers.tls import make_contexts

import trio_rpc
from trio_rpc.nats import NatsOptions, any_url

KINDS = ("tcp", "tls", "unix", "ws", "wss")


class Counter:
    def __init__(self):
        self.calls = 0

    @trio_rpc.method
    async def add(self, number: int) -> int:
        self.calls += number
        return self.calls

    @trio_rpc.stream
    async def count(self, end: int):
        for number in range(end):
            yield number


@pytest.fixture(autouse=True)
async def no_hang():
    """Bound the real time that a test over sockets may take."""
    with trio.fail_after(60):
        yield


async def use(pool):
    assert await pool.proxy("", Counter).add(2) >= 2
    async with pool.proxy("", Counter).count(3) as numbers:
        assert [number async for number in numbers] == [0, 1, 2]


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_pool_of_one_url_comes_back_to_its_server(kind, resume, tmp_path):
    server_context, client_context = make_contexts()
    is_secure = kind in ("tls", "wss")
    url = f"unix://{tmp_path}/socket" if kind == "unix" else f"{kind}://127.0.0.1:0"
    own = {"ssl_context": server_context if is_secure else None, "resume": resume}
    theirs = {"ssl_context": client_context if is_secure else None, "resume": resume}
    async with trio.open_nursery() as nursery:
        async with trio_rpc.open_server(Counter(), url, **own) as server:
            url = server.urls[0]
            pool = await nursery.start(hold, url, theirs)
            await use(pool)
            await server.drain(grace=5)
        nursery.start_soon(use, pool)  # it waits for a server
        async with trio_rpc.open_server(Counter(), url, **own):
            await use(pool)
        nursery.cancel_scope.cancel()


async def hold(url, options, *, task_status):
    async with trio_rpc.open_pool(url, **options) as pool:
        task_status.started(pool)
        await trio.sleep_forever()


async def test_urls_of_several_transports_are_one_pool(tmp_path):
    server_context, client_context = make_contexts()
    urls = [f"{kind}://127.0.0.1:0" for kind in KINDS if kind != "unix"]
    urls.append(f"unix://{tmp_path}/socket")
    async with (
        trio_rpc.open_server(Counter(), *urls, ssl_context=server_context) as server,
        trio_rpc.open_pool(*server.urls, ssl_context=client_context) as pool,
    ):
        async for statuses in pool.states():
            if all(each.state == "open" for each in statuses):
                break
        assert [each.name for each in pool.instances()] == list(server.urls)
        for _ in range(60):
            await use(pool)
        assert all(each.calls for each in pool.instances())


async def test_the_context_of_a_pool_is_also_for_asking_nats(monkeypatch):
    class Asked(Exception):
        pass

    def own_nats(_address, options):
        raise Asked(options.ssl_context)

    monkeypatch.setattr(any_url, "own_nats", own_nats)
    context = ssl.create_default_context()
    options = NatsOptions(ssl_context=ssl.create_default_context())
    for nats in (None, options):
        with pytest.raises(Asked) as caught:
            async with trio_rpc.open_pool("nats://host/market", ssl_context=context, nats=nats):
                raise AssertionError("never entered")
        assert caught.value.args == (context,)
