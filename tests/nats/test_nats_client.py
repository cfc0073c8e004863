"""The client of NATS: its verbs, reconnection, refusals and bounds, at a server in this program."""

from __future__ import annotations

import contextlib

import pytest
import trio
from helpers.nats_broker import open_broker
from helpers.nats_server import nats_server
from helpers.tls import make_contexts
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc.nats import NatsOptions, NKey, Token, UserPassword, open_nats
from trio_rpc.nats import parser as p


async def until(condition):
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - it depends on sockets
            await trio.sleep(0.01)


async def test_messages_reach_subscribers_in_order():
    async with open_broker() as broker, open_nats(broker.url) as nats:
        received = []
        subscription = nats.subscribe("a.*", received.append)
        for number in range(3):
            await nats.publish(f"a.{number}", b"%d" % number, headers={"H": "x"})
        await nats.flush()
        assert [message.data for message in received] == [b"0", b"1", b"2"]
        assert received[0].header("H") == "x"
        nats.unsubscribe(subscription)
        await nats.publish("a.9")
        await nats.flush()
        assert len(received) == 3


async def test_one_of_a_queue_group_gets_each_message():
    async with open_broker() as broker, open_nats(broker.url) as nats:
        received = []
        for _ in range(3):
            nats.subscribe("a", received.append, queue="group")
        for _ in range(5):
            await nats.publish("a")
        await nats.flush()
        assert len(received) == 5


async def test_a_request_gets_the_first_answer_or_an_error_at_once():
    async with open_broker() as broker, open_nats(broker.url) as nats:
        nats.subscribe("ask", lambda message: nats.publish_nowait(message.reply, b"answer"))
        assert (await nats.request("ask")).data == b"answer"
        with pytest.raises(ConnectionRefusedError, match="nobody has subscribed to 'nobody'"):
            await nats.request("nobody")
        assert await nats.gather("nobody", seconds=60) == []


async def test_gather_returns_all_answers_in_time():
    async with open_broker() as broker, open_nats(broker.url) as nats:
        for number in range(3):
            answer = b"%d" % number
            nats.subscribe("ask", lambda m, answer=answer: nats.publish_nowait(m.reply, answer))
        answers = await nats.gather("ask", seconds=0.2)
        assert sorted(each.data for each in answers) == [b"0", b"1", b"2"]


async def test_subscriptions_last_beyond_a_connection():
    async with open_broker() as broker, open_nats(broker.url) as nats:
        received, ups = [], []
        nats.subscribe("a", received.append)
        nats.on_up(lambda: ups.append(nats.is_connected))
        await nats.flush()
        for number in range(1, 4):
            broker.drop(broker.clients[0])
            await until(lambda number=number: len(ups) == number)
            await nats.publish("a")
            await nats.flush()
            assert len(received) == number
        assert ups == [True] * 3


async def test_flush_raises_if_the_connection_is_lost_meanwhile():
    async with (
        open_broker() as broker,
        open_nats(broker.url) as nats,
        trio.open_nursery() as nursery,
    ):
        await nats.flush()
        broker.handle = lambda *_: None
        raised = []

        async def flush():
            with pytest.raises(trio.BrokenResourceError):
                await nats.flush()
            raised.append(True)

        nursery.start_soon(flush)
        await wait_all_tasks_blocked()
        broker.drop(broker.clients[0])
        await until(lambda: raised)
        nursery.cancel_scope.cancel()


async def test_a_subscriber_that_fails_ends_nothing(caplog):
    async with open_broker() as broker, open_nats(broker.url) as nats:
        received = []

        def fail(_message):
            raise RuntimeError("a bug")

        nats.subscribe("a", fail)
        nats.subscribe("a", received.append)
        await nats.publish("a")
        await nats.flush()
        assert len(received) == 1
        assert "the subscriber to a failed" in caplog.text


@pytest.mark.parametrize("subject", ["a b", "a\r\nPUB b 0\r\n", "a.*", ">", ""])
async def test_a_bad_subject_raises_at_its_sender_and_nothing_is_sent(subject):
    async with open_broker() as broker, open_nats(broker.url) as nats:
        with pytest.raises(ValueError, match="not a NATS subject"):
            await nats.publish(subject)
        with pytest.raises(ValueError, match="not a NATS subject"):
            await nats.publish("a", reply=subject or "x y")
        with pytest.raises(ValueError, match="not a NATS subject"):
            await nats.request(subject)
        await nats.flush()
        assert broker.published == []


async def test_a_message_that_is_too_large_raises_at_its_sender():
    async with open_broker(max_payload=1000) as broker, open_nats(broker.url) as nats:
        await nats.publish("a", bytes(1000))
        with pytest.raises(ValueError, match="1001 bytes; the server accepts 1000"):
            await nats.publish("a", bytes(1001))


async def test_senders_wait_while_a_mebibyte_waits():
    async with open_broker() as broker, open_nats(broker.url) as nats:
        await nats.flush()
        stopped = trio.Event()
        [client] = broker.clients
        client.stream.receive_some = lambda _size: stopped.wait()
        await wait_all_tasks_blocked(0.01)
        sent = 0
        while nats.publish_nowait("a", bytes(100_000)):
            sent += 1
            assert sent < 1000
        with trio.move_on_after(0.05) as scope:
            await nats.publish("a")
        assert scope.cancelled_caught
        assert not nats.publish_nowait("a")


async def test_every_verb_is_a_checkpoint():
    async with open_broker() as broker, open_nats(broker.url) as nats:
        for verb in (nats.publish, nats.request):
            with trio.testing.assert_checkpoints():
                with contextlib.suppress(ConnectionRefusedError):
                    await verb("a")
        with trio.testing.assert_checkpoints():
            await nats.flush()


async def test_after_its_block_the_client_is_closed():
    async with open_broker() as broker:
        async with open_nats(broker.url) as nats:
            await nats.publish("a", b"last words")
        for verb in (nats.publish, nats.request):
            with pytest.raises(trio.ClosedResourceError):
                await verb("a")
        with pytest.raises(trio.ClosedResourceError):
            nats.subscribe("a", print)
        assert [each.data for each in broker.published] == [b"last words"]


async def test_no_server_is_one_error_of_one_line():
    async with open_broker() as broker:
        port = broker.port
    with pytest.raises(OSError, match=rf"cannot connect to nats://127.0.0.1:{port}"):
        async with open_nats(f"nats://127.0.0.1:{port}"):
            pass


async def test_the_next_server_is_tried():
    async with open_broker() as dead:
        port = dead.port
    async with open_broker() as broker:
        for _ in range(4):
            async with open_nats(f"nats://127.0.0.1:{port},127.0.0.1:{broker.port}") as nats:
                await nats.flush()


async def test_the_servers_that_a_cluster_names_are_used():
    async with open_broker() as second:
        urls = [f"127.0.0.1:{second.port}", "bad host", 7]
        async with open_broker(connect_urls=urls) as first, open_nats(first.url) as nats:
            first.run = None
            await nats.flush()
            ups = []
            nats.on_up(lambda: ups.append(1))
            first.info["headers"] = False  # it accepts no client any more
            first.drop(first.clients[0])
            await until(lambda: ups)
            assert len(second.clients) == 1


async def test_a_server_in_lame_duck_mode_is_left():
    async with (
        open_broker() as first,
        open_broker() as second,
        open_nats(f"nats://127.0.0.1:{first.port},127.0.0.1:{second.port}") as nats,
    ):
        ups = []
        nats.on_up(lambda: ups.append(1))
        here, there = (first, second) if first.clients else (second, first)
        here.clients[0].write(p.encode_info({**here.info, "ldm": True}))
        await until(lambda: ups)
        assert not here.clients
        assert len(there.clients) == 1


async def test_a_silent_server_is_given_up(autojump_clock):
    options = NatsOptions(ping_interval=1)
    async with open_broker() as broker, open_nats(broker.url, options=options) as nats:
        ups = []
        nats.on_up(lambda: ups.append(trio.current_time()))
        await nats.flush()
        started = trio.current_time()
        frozen, broker.handle = broker.handle, lambda *_: None
        await trio.sleep(2)
        assert nats.is_connected
        await trio.sleep(1.4)
        broker.handle = frozen
        await trio.sleep(3)
        assert nats.is_connected
        assert ups
        assert 2.4 <= ups[0] - started < 6.5


async def test_an_idle_server_that_answers_pings_is_kept(autojump_clock):
    async with open_broker() as broker, open_nats(broker.url) as nats:
        ups = []
        nats.on_up(lambda: ups.append(1))
        await trio.sleep(600)
        assert not ups
        assert nats.is_connected


@pytest.fixture
def autojump_clock():
    return trio.testing.MockClock(autojump_threshold=0.01)


async def test_a_wrong_password_is_refused_at_once_and_no_other_server_is_tried():
    async with open_broker() as first, open_broker() as second:
        for broker in (first, second):
            broker.refuse = lambda _options: "Authorization Violation"
            broker.tries = 0
        url = f"nats://ann:wrong@127.0.0.1:{first.port},127.0.0.1:{second.port}"
        with pytest.raises(trio_rpc.Refused, match="Authorization Violation") as raised:
            async with open_nats(url):
                pass
        assert "wrong" not in str(raised.value)


async def test_a_client_that_is_refused_later_ends_with_the_reason():
    async with open_broker() as broker, open_nats(broker.url) as nats:
        broker.refuse = lambda _options: "Authorization Violation"
        broker.drop(broker.clients[0])
        with trio.fail_after(10), pytest.raises(trio.BrokenResourceError, match="Authorization"):
            while True:
                await nats.publish("a")
                await trio.sleep(0.01)
        with pytest.raises(trio.BrokenResourceError, match="Authorization"):
            await nats.request("a")
        with pytest.raises(trio.BrokenResourceError, match="Authorization"):
            await nats.flush()


CREDENTIALS = "authorization {{ users: [ {{ {user} }} ] }}\n"


async def test_a_real_server_accepts_a_password_and_refuses_a_wrong_one(tmp_path):
    config = CREDENTIALS.format(user="user: ann, password: secret")
    async with nats_server(tmp_path, config=config) as server:
        async with open_nats(server.url, credentials=UserPassword("ann", "secret")) as nats:
            await nats.flush()
        for wrong in (UserPassword("ann", "guess"), Token("secret"), None):
            with pytest.raises(trio_rpc.Refused, match="Authorization Violation"):
                async with open_nats(server.url, credentials=wrong):
                    pass


async def test_a_real_server_accepts_a_token(tmp_path):
    async with nats_server(tmp_path, config='authorization { token: "abc" }\n') as server:
        url = server.url.replace("//", "//abc@")
        async with open_nats(url) as nats:
            await nats.flush()


SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
PUBLIC = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"


async def test_a_real_server_accepts_an_nkey(tmp_path):
    pytest.importorskip("nkeys")
    async with nats_server(tmp_path, config=CREDENTIALS.format(user=f"nkey: {PUBLIC}")) as server:
        async with open_nats(server.url, credentials=NKey(SEED)) as nats:
            await nats.flush()
        with pytest.raises(ValueError, match="not the seed of an nkey"):
            async with open_nats(server.url, credentials=NKey("SU")):
                pass


async def test_a_real_server_with_tls(tmp_path):
    config = tls_config(tmp_path)
    async with nats_server(tmp_path, config=config[0]) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        async with open_nats(url, ssl_context=config[1]) as nats:
            await nats.flush()
        with pytest.raises(OSError, match="certificate verify failed"):
            async with open_nats(url):
                pass


def tls_config(tmp_path):
    import ssl

    import trustme

    ca = trustme.CA()
    cert = ca.issue_cert("localhost")
    cert.private_key_pem.write_to_path(tmp_path / "key.pem")
    for number, blob in enumerate(cert.cert_chain_pems):
        blob.write_to_path(tmp_path / "cert.pem", append=bool(number))
    context = ssl.create_default_context()
    ca.configure_trust(context)
    place = tmp_path
    return f'tls {{ cert_file: "{place}/cert.pem", key_file: "{place}/key.pem" }}\n', context


async def test_a_server_without_tls_is_refused_by_a_client_that_insists():
    _, client = make_contexts()
    async with open_broker() as broker:
        with pytest.raises(trio_rpc.Refused, match="has no TLS"):
            async with open_nats(broker.url, ssl_context=client):
                pass


async def test_missing_permissions_are_an_error(tmp_path):
    config = """authorization { users: [
      { user: ann, password: a, permissions: { publish: ["ok"], subscribe: ["_INBOX.>"] } } ] }
    """
    async with (
        nats_server(tmp_path, config=config) as server,
        open_nats(server.url, credentials=UserPassword("ann", "a")) as nats,
    ):
        with trio.fail_after(5):
            with pytest.raises(trio_rpc.Refused, match="may not publish to 'secret'"):
                await nats.request("secret")
            with pytest.raises(trio_rpc.Refused, match="may not publish"):
                async with nats.open_channel("market"):
                    pass
            with pytest.raises(trio_rpc.Refused, match=r"may not publish to 'trpc\.at\.market"):
                await nats.listen("market")
            with pytest.raises(trio_rpc.Refused, match="does not let this end subscribe"):
                async with nats.topic("prices").subscribe():
                    pass
            await nats.publish("ok")
            await nats.flush()
