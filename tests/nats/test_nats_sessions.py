"""Sessions over NATS: opening, refusing, draining, discovery and pools."""

from __future__ import annotations

import functools
import json

import pytest
import trio
from helpers.nats_broker import open_broker, open_channels
from helpers.nats_server import nats_server
from helpers.tls import make_contexts

import trio_rpc
from trio_rpc.nats import InstanceInfo, NatsOptions, open_nats
from trio_rpc.nats.names import new_token


class Market:
    def __init__(self, name="a"):
        self.name = name

    @trio_rpc.method
    async def who(self) -> str:
        return self.name

    @trio_rpc.method
    async def wait(self) -> None:
        await trio.sleep_forever()


async def test_a_session_over_nats_by_url(nursery):
    async with open_broker() as broker:
        urls = await nursery.start(trio_rpc.serve, Market(), f"{broker.url}/market/one")
        assert urls == [f"{broker.url}/market/one"]
        for url in (f"{broker.url}/market", urls[0]):
            async with trio_rpc.connect(url) as session:
                assert await session.call("who") == "a"
        nursery.cancel_scope.cancel()


async def test_a_server_listens_at_nats_and_with_and_without_tls():
    server_context, client_context = make_contexts()
    urls = "tcp://127.0.0.1:0", "tls://127.0.0.1:0"
    async with (
        open_broker() as broker,
        trio_rpc.open_server(
            Market(), f"{broker.url}/market/one", *urls, ssl_context=server_context
        ) as server,
    ):
        for url in server.urls:
            context = client_context if url.startswith("tls") else None
            async with trio_rpc.connect(url, ssl_context=context) as session:
                assert await session.call("who") == "a"


async def test_a_service_without_instances_is_an_error_that_names_it():
    async with open_broker() as broker:
        with pytest.raises(ConnectionRefusedError, match="nobody serves the service 'market'"):
            async with trio_rpc.connect(f"{broker.url}/market"):
                pass
        with pytest.raises(ConnectionRefusedError, match="the instance 'x' of the service"):
            async with trio_rpc.connect(f"{broker.url}/market/x"):
                pass


async def test_two_instances_cannot_have_one_name():
    async with open_broker() as broker, open_nats(broker.url) as nats, open_nats(broker.url) as b:
        async with await nats.listen("market", "one"):
            with pytest.raises(OSError, match="another process serves as nats://"):
                await b.listen("market", "one")
        async with await b.listen("market", "one"):
            pass


async def test_a_server_that_drains_sends_clients_elsewhere(nursery):
    async with open_broker() as broker, open_nats(broker.url) as nats:
        first = await nats.listen("market", "first")
        await first.aclose()
        with pytest.raises(ConnectionRefusedError):
            async with nats.open_channel("market"):
                pass
        async with trio_rpc.open_server(Market("b"), f"{broker.url}/market") as server:
            async with trio_rpc.connect(f"{broker.url}/market", on_end="keep") as session:
                assert await session.call("who") == "b"
                await server.drain()
                assert not await nats.find_instances("market")


async def test_a_full_connection_sends_clients_elsewhere():
    async with open_broker() as broker, open_nats(broker.url) as nats, open_nats(broker.url) as b:
        nats._hub._budget.left = 40_000
        async with await nats.listen("market") as listener, b.open_channel("market"):
            assert nats._hub._budget.left == 40_000 - 32 * 1024
            with pytest.raises(ConnectionRefusedError, match="is full"):
                async with b.open_channel("market"):
                    pass
            await listener.accept()


OFFERS = [
    b"",
    b"[]",
    b"{",
    b"[" * 4000,
    b"x" * 5000,
    b"{}",
    b'{"version": 2}',
    b'{"version": 1}',
    b'{"version": 1, "subject": "trpc.open.other", "window": 100000}',
    b'{"version": 1, "subject": "_INBOX.a.b", "window": 100000}',
    json.dumps({"version": 1, "subject": f"_INBOX.{new_token()}.{new_token()}"}).encode(),
    json.dumps(
        {"version": 1, "subject": f"_INBOX.{new_token()}.{new_token()}", "window": 1.5}
    ).encode(),
    json.dumps(
        {"version": 1, "subject": f"_INBOX.{new_token()}.{new_token()}", "window": 1}
    ).encode(),
]


@pytest.mark.parametrize("offer", OFFERS, ids=range(len(OFFERS)))
async def test_a_bad_request_is_refused_and_does_not_affect_others(offer):
    async with open_broker() as broker, open_channels(broker) as (ours, theirs):
        async with open_nats(broker.url) as stranger:
            before = len(broker.clients)
            answer = json.loads((await stranger.request("trpc.open.market", offer)).data)
            assert set(answer) == {"version", "refused"}
            assert len(broker.clients) == before
        await ours.send(b"still works")
        assert await theirs.receive() == b"still works"


async def test_a_bad_answer_is_an_error_at_the_client():
    async with open_broker() as broker, open_nats(broker.url) as nats:
        answers = [b"", b"{}", b'{"subject": "a", "window": 100000, "instance": "x"}']
        for answer in answers:
            sub = nats.subscribe(
                "trpc.open.market", lambda m, a=answer: nats.publish_nowait(m.reply, a)
            )
            with pytest.raises(ConnectionError, match="not valid"):
                async with nats.open_channel("market"):
                    pass
            nats.unsubscribe(sub)


async def test_a_server_that_never_answers_is_a_timeout():
    limits = trio_rpc.Limits(handshake_timeout=0.1)
    async with open_broker() as broker, open_nats(broker.url) as nats:
        nats.subscribe("trpc.open.market", lambda _message: None)
        with pytest.raises(TimeoutError, match="no answer from the service 'market'"):
            async with nats.open_channel("market", limits=limits):
                pass
        assert not nats._hub._channels


async def test_tools_of_nats_list_an_instance():
    async with open_broker() as broker, open_nats(broker.url) as nats:
        async with await nats.listen("market", "one") as listener:
            listener.advertise(["tcp://10.0.0.1:5000", "tcp://0.0.0.0:6000"])
            for verb in ("PING", "INFO", "STATS"):
                for rest in ("", ".market", ".market.one"):
                    [answer] = await nats.gather(f"$SRV.{verb}{rest}", seconds=0.1)
                    facts = json.loads(answer.data)
                    assert facts["type"] == f"io.nats.micro.v1.{verb.lower()}_response"
                    assert (facts["name"], facts["id"]) == ("market", "one")
            assert facts["endpoints"][0]["num_requests"] == 0
            assert await nats.find_instances("market") == [
                InstanceInfo("market", "one", ("tcp://10.0.0.1:5000", "tcp://127.0.0.1:6000"))
            ]
            assert await nats.find_instances("other") == []
        assert await nats.find_instances("market") == []


async def test_answers_of_strangers_about_instances_are_ignored():
    async with open_broker() as broker, open_nats(broker.url) as nats:
        bad = [b"", b"[]", b"{}", b'{"metadata": 1}', b"x" * 20_000]
        bad.append(b'{"metadata": {"trio_rpc": "1"}, "name": "market", "id": "a b"}')
        for answer in bad:
            nats.subscribe("$SRV.INFO.market", lambda m, a=answer: nats.publish_nowait(m.reply, a))
        assert await nats.find_instances("market") == []


async def until_both_answer(pool):
    with trio.fail_after(20):
        while {await pool.call("who") for _ in range(10)} != {"a", "b"}:  # noqa: ASYNC110 - calls
            await trio.sleep(0.01)


@pytest.mark.parametrize("direct", [False, True])
async def test_a_pool_calls_each_instance(direct, nursery):
    async with open_broker() as broker, open_nats(broker.url) as nats:
        for name in ("a", "b"):
            urls = f"{broker.url}/market/{name}", "tcp://127.0.0.1:0"
            await nursery.start(trio_rpc.serve, Market(name), *urls)
        async with trio_rpc.open_pool(nats.instances("market", direct=direct)) as pool:
            await until_both_answer(pool)
            names = {each.name for each in pool.instances()}
            assert len(names) == 2
            assert all(name.startswith("tcp://" if direct else "market/") for name in names)
        nursery.cancel_scope.cancel()


async def test_a_pool_at_a_nats_url_finds_each_instance(nursery):
    async with open_broker() as broker:
        for name in ("a", "b"):
            await nursery.start(trio_rpc.serve, Market(name), f"{broker.url}/market/{name}")
        async with trio_rpc.open_pool(f"{broker.url}/market") as pool:
            await until_both_answer(pool)
        nursery.cancel_scope.cancel()


async def test_resume_goes_back_to_the_same_instance(nursery):
    async with open_broker() as broker:
        serve = functools.partial(trio_rpc.serve, resume=True)
        for name in ("a", "b", "c"):
            await nursery.start(serve, Market(name), f"{broker.url}/market/{name}")
        async with trio_rpc.connect(f"{broker.url}/market", resume=True) as session:
            name = await session.call("who")
            for _ in range(4):
                session._core.channel._carrier.abort("cut by the test")
                assert await session.call("who") == name
        nursery.cancel_scope.cancel()


async def test_options_of_nats_are_only_for_nats():
    with pytest.raises(ValueError, match="only for nats:// URLs"):
        async with trio_rpc.connect("tcp://127.0.0.1:1", nats=NatsOptions()):
            pass
    with pytest.raises(ValueError, match="only for nats:// URLs"):
        await trio_rpc.serve({}, "tcp://127.0.0.1:0", nats=NatsOptions())


@pytest.mark.parametrize(
    "bad", [{"linger": 0}, {"silence": -1}, {"ping_interval": 2}, {"inbox_prefix": "a.*"}]
)
def test_bad_options(bad):
    with pytest.raises(ValueError):
        NatsOptions(**bad)


async def test_the_private_subjects_may_have_another_prefix(tmp_path):
    options = NatsOptions(inbox_prefix="private")
    async with nats_server(tmp_path) as server, trio.open_nursery() as nursery:
        serve = functools.partial(trio_rpc.serve, nats=options)
        await nursery.start(serve, Market(), f"{server.url}/market")
        async with trio_rpc.connect(f"{server.url}/market", nats=options) as session:
            assert await session.call("who") == "a"
        with pytest.raises(trio_rpc.Refused, match="not valid"):
            async with trio_rpc.connect(f"{server.url}/market"):
                pass
        nursery.cancel_scope.cancel()
