"""Topics: publishers never wait, and subscribers know how many messages they lost."""

from __future__ import annotations

import pytest
import trio
import trio.lowlevel
from helpers.nats_broker import open_broker
from trio.testing import wait_all_tasks_blocked

from trio_rpc.nats import open_nats


async def test_each_subscriber_gets_each_message_in_order():
    async with open_broker() as broker, open_nats(broker.url) as nats, open_nats(broker.url) as b:
        async with nats.topic("prices").subscribe() as one, b.topic("prices").subscribe() as two:
            topic = nats.topic("prices")
            for number in range(5):
                topic.publish(b"%d" % number)
            for received in (one, two):
                assert [await received.receive() for _ in range(5)] == [
                    b"0",
                    b"1",
                    b"2",
                    b"3",
                    b"4",
                ]
                assert received.lost == 0


async def test_a_slow_subscriber_loses_the_oldest_messages_and_counts_them():
    async with open_broker() as broker, open_nats(broker.url) as nats:
        topic = nats.topic("prices")
        async with topic.subscribe(max_buffer=3) as slow, topic.subscribe() as quick:
            for number in range(10):
                topic.publish(b"%d" % number)
            await nats.flush()
            assert [await slow.receive() for _ in range(3)] == [b"7", b"8", b"9"]
            assert slow.lost == 7
            assert [await quick.receive() for _ in range(10)][-1] == b"9"
            assert quick.lost == 0


async def test_a_connection_and_its_topics_belong_to_the_run_that_opened_them():
    async with open_broker() as broker, open_nats(broker.url) as nats:
        topic = nats.topic("prices")
        async with topic.subscribe() as received:

            async def publish():
                topic.publish(b"0")

            uses = (publish, received.receive, received.aclose, nats.flush)
            for use in (*uses, lambda: nats.publish("a", b""), lambda: nats.request("a")):
                with pytest.raises(RuntimeError, match="belongs to the Trio run"):
                    await trio.to_thread.run_sync(trio.run, use)
            topic.publish(b"1")
            assert await received.receive() == b"1"


async def test_messages_that_the_network_loses_are_counted():
    async with open_broker() as broker, open_nats(broker.url) as nats:
        topic = nats.topic("prices")
        async with topic.subscribe() as received:
            broker.lose = lambda message: message.data in (b"1", b"2")
            for number in range(4):
                topic.publish(b"%d" % number)
            assert [await received.receive() for _ in range(2)] == [b"0", b"3"]
            assert received.lost == 2


async def test_messages_without_a_connection_are_counted_at_both_ends():
    async with open_broker() as broker, open_nats(broker.url) as nats, open_nats(broker.url) as b:
        topic, up = nats.topic("prices"), trio.Event()
        nats.on_up(up.set)
        async with b.topic("prices").subscribe() as received:
            topic.publish(b"0")
            await nats.flush()
            broker.drop(broker.clients[0])
            while nats.is_connected:
                await trio.lowlevel.checkpoint()
            topic.publish(b"1")
            assert topic.unsent == 1
            await up.wait()
            topic.publish(b"2")
            assert [await received.receive() for _ in range(2)] == [b"0", b"2"]
            assert received.lost == 1


async def test_messages_of_other_programs_also_arrive():
    async with open_broker() as broker, open_nats(broker.url) as nats:
        async with nats.topic("prices").subscribe() as received:
            for headers in (None, {"Trpc-Number": "x"}, {"Trpc-Number": "t " + "9" * 50}):
                await nats.publish("trpc.topic.prices", b"foreign", headers=headers)
                assert await received.receive() == b"foreign"
            assert received.lost == 0


async def test_numbers_of_many_publishers_are_bounded():
    async with open_broker() as broker, open_nats(broker.url) as nats:
        async with nats.topic("prices").subscribe() as received:
            for number in range(1500):
                await nats.publish("trpc.topic.prices", headers={"Trpc-Number": f"t{number} 0"})
            await nats.flush()
            assert len(received._next) == 1024


async def test_a_subscription_ends_with_its_connection():
    async with open_broker() as broker, trio.open_nursery() as nursery:
        started, ended = trio.Event(), []

        async def receive(received):
            started.set()
            with pytest.raises(trio.ClosedResourceError):
                await received.receive()
            ended.append(True)

        async with open_nats(broker.url) as nats:
            subscribing = nats.topic("prices").subscribe()
            received = await subscribing.__aenter__()
            nursery.start_soon(receive, received)
            await started.wait()
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert ended
        await subscribing.__aexit__(None, None, None)


async def test_a_refused_client_ends_its_subscriptions_with_the_reason():
    async with open_broker() as broker, open_nats(broker.url) as nats:
        async with nats.topic("prices").subscribe() as received:
            broker.refuse = lambda _options: "Authorization Violation"
            broker.drop(broker.clients[0])
            with trio.fail_after(10), pytest.raises(trio.BrokenResourceError, match="Authoriz"):
                await received.receive()


@pytest.mark.parametrize("name", ["", "a.b", "*", "a b", "a\r\n"])
async def test_the_name_of_a_topic_is_checked(name):
    async with open_broker() as broker, open_nats(broker.url) as nats:
        with pytest.raises(ValueError, match="not the name of a topic"):
            nats.topic(name)


async def test_receiving_is_for_one_task_and_is_a_checkpoint():
    async with open_broker() as broker, open_nats(broker.url) as nats:
        topic = nats.topic("prices")
        async with topic.subscribe() as received, trio.open_nursery() as nursery:
            nursery.start_soon(received.receive)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await received.receive()
            nursery.cancel_scope.cancel()
        async with topic.subscribe() as received:
            topic.publish(b"x")
            await nats.flush()
            with trio.testing.assert_checkpoints():
                await received.receive()
            await received.aclose()
            with pytest.raises(trio.ClosedResourceError):
                await received.receive()
