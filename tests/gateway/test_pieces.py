"""Large messages in pieces: a slow download is not silence, and continues where it was cut."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from helpers import node
from helpers.gateway_tools import browsing, hosting
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc.gateway import Gateway, GatewayLimits, Message
from trio_rpc.gateway.client import session as client_session
from trio_rpc.gateway.client.session import ClientSession
from trio_rpc.gateway.json_messages import finish, pieces_of
from trio_rpc.gateway.server.backlog import PIECE
from trio_rpc.gateway.server.browser import Client
from trio_rpc.gateway.server.connection import Connection, End

RATE = 2_000
"""Bytes a second of the slow network."""

RESULT = 'quote " backslash \\ line\n ä € 😀 ' * 40_000
LIMITS = GatewayLimits(keepalive=20)


class SlowNetwork:
    """A client of the gateway, behind a network that carries ``RATE`` bytes a second.

    A send ends when the client has received all of it, and the client receives only whole texts,
    as the WebSocket of a browser does.
    """

    def __init__(self, client: Client, cut_every: float = float("inf")) -> None:
        self.client = client
        self.bytes = 0
        self.session = ClientSession({"uuid": "a", "token": "b"}, lambda: None)
        self.ends: list[End] = []
        self._cut_every = cut_every

    async def connect(self) -> None:
        """Connect, and resume after each cut, until the client has been given up."""
        while not self.ends or self.ends[-1] is End.GONE:
            to, received = trio.open_memory_channel[str | None](1000)

            async def cut(to: Any = to) -> None:
                await trio.sleep(self._cut_every)
                to.send_nowait(None)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(cut)
                send = self._sender(to)
                connection = Connection(self.client, {"type": "first"}, send, received.receive)
                self.ends.append(await connection.run())
                nursery.cancel_scope.cancel()
            assert self.client.backlog.rewind(self.session.seen)

    def _sender(self, to: Any) -> Callable[[str], Awaitable[None]]:
        async def send(text: str) -> None:
            self.bytes += len(text)
            await trio.sleep(len(text) / RATE)
            self.session.hear(text)
            for news in self.session.news():
                to.send_nowait(news)

        return send


async def download(nursery: trio.Nursery, network: SlowNetwork) -> Any:
    """Send the end of a call with a large result; return it as the client gets it."""
    await nursery.start(network.client.run)
    call = network.session.started("call")
    nursery.start_soon(network.connect)
    network.client.say(finish("call", RESULT))
    with trio.fail_after(100_000):
        await call.ended.wait()
    return call.end


async def test_a_slow_download_is_not_silence(nursery, autojump_clock):
    client = Client(LIMITS, resumable=True, pieces=True)
    network = SlowNetwork(client)
    assert (await download(nursery, network))["payload"] == RESULT
    assert trio.current_time() > 10 * LIMITS.keepalive
    assert network.ends == []
    assert network.bytes < 1.5 * len(RESULT.encode())
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("cut_every", [15, 33, 100])
async def test_a_download_that_is_cut_goes_on_where_it_was(nursery, autojump_clock, cut_every):
    network = SlowNetwork(Client(LIMITS, resumable=True, pieces=True), cut_every)
    assert (await download(nursery, network))["payload"] == RESULT
    assert set(network.ends) == {End.GONE}
    # No more than one frame is sent again after each cut.
    again = len(network.ends) * (PIECE + 1000)
    assert network.bytes < 1.5 * len(RESULT.encode()) + again
    nursery.cancel_scope.cancel()


async def test_without_pieces_a_client_that_is_slow_is_given_up_as_before(nursery, autojump_clock):
    client = Client(LIMITS, resumable=True, pieces=False)
    network = SlowNetwork(client)
    await nursery.start(client.run)
    network.session.started("call")
    nursery.start_soon(network.connect)
    client.say(finish("call", RESULT))
    await trio.sleep(1000)
    assert network.ends == [End.SILENT]
    nursery.cancel_scope.cancel()


class Service:
    @trio_rpc.method
    async def large(self, found: Callable[[str, str], Awaitable[None]] | None = None) -> str:
        if found is not None:
            await found(RESULT, "a")
            await found("b", RESULT)
        return RESULT

    @trio_rpc.method
    async def tell(self, found: Callable[[str], Awaitable[None]]) -> None:
        await found(RESULT)
        await trio.sleep_forever()

    @trio_rpc.method
    async def echo(self, found: Callable[[str], Awaitable[None]]) -> dict[str, str]:
        await found("x" * PIECE)
        return {"size": "x" * 2 * PIECE}


@pytest.mark.parametrize(
    ("query", "kinds"),
    [
        ("resumable=1&pieces=1", {"piece"}),
        ("resumable=1", {"callback", "finish"}),
        ("", {"callback", "finish"}),
        ("pieces=1", {"callback", "finish"}),  # an older client cannot acknowledge them
    ],
)
async def test_only_a_client_that_asks_for_pieces_gets_pieces(query, kinds):
    async with hosting(Gateway(Service())) as url, browsing(url, query) as browser:
        request = await browser.start("echo")
        got: list[dict[str, Any]] = []
        wholes: list[dict[str, Any]] = []
        while not any(each["type"] == "finish" for each in wholes):
            got.append(await browser.next())
            assert got[-1]["request_uuid"] == request
            if got[-1]["type"] != "piece":
                wholes.append(got[-1])
            elif got[-1].get("last"):
                texts = [each["text"] for each in got if each["type"] == "piece"]
                assert all(len(text) <= PIECE for text in texts)
                wholes.append(json.loads("".join(texts)))
                got.clear()
        assert [each["type"] for each in wholes] == ["callback", "finish"]
        assert wholes[0]["found"] == "x" * PIECE
        assert wholes[1]["size"] == "x" * 2 * PIECE
        assert browser.seen == (5 if kinds == {"piece"} else 2)
        assert {each["type"] for each in got} <= kinds


async def test_acknowledged_pieces_are_no_longer_held():
    client = Client(LIMITS, resumable=True, pieces=True)
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        client.say(finish("call", "x" * 10 * PIECE))
        held = client.budget.size
        while client.backlog.take(10**9):
            pass
        assert client.backlog.acknowledge(5)
        assert client.budget.size < held * 0.6
        nursery.cancel_scope.cancel()


async def test_the_python_client_gets_large_results_and_callbacks():
    found: list[Any] = []
    async with hosting(Gateway(Service())) as url:
        host, _, port = url.rpartition("/")[2].partition(":")
        callbacks = {"found": lambda *given: found.append(given)}
        assert await Message(host, int(port)).post("large", callbacks=callbacks) == RESULT
    assert found == [(RESULT, "a"), ("b", RESULT)]


@pytest.mark.parametrize(
    ("method", "callbacks"), [("large", None), ("tell", {"found": lambda _: None})]
)
async def test_law_12_a_message_that_is_too_large_for_the_client_fails_its_call_at_once(
    monkeypatch, method, callbacks
):
    monkeypatch.setattr(client_session, "MAX_WHOLE", 100_000)
    gateway = Gateway(Service())
    async with hosting(gateway) as url:
        host, _, port = url.rpartition("/")[2].partition(":")
        async with Message(host, int(port)).connect() as message:
            with pytest.raises(trio_rpc.RemoteError, match="more than 100,000 characters"):
                await message.post(method, callbacks=callbacks)
            session = message._session
            assert await message.post("echo", callbacks={"found": lambda _: None})
            assert message._session is session
            while gateway.works:
                await wait_all_tasks_blocked(0.01)


def hello() -> ClientSession:
    return ClientSession({"uuid": "a", "token": "b"}, lambda: None)


@pytest.mark.parametrize("text", ["{", "[]", '"a"', '{"type": "uuid"}', "1"])
def test_pieces_that_are_not_a_message_of_a_call_break_the_connection(text):
    session = hello()
    piece = {"type": "piece", "request_uuid": "r", "text": text, "last": True, "seq": 1}
    with pytest.raises(trio_rpc.RemoteProtocolError):
        session.hear(json.dumps(piece))


@given(st.text(max_size=300), st.integers(4, 40))
def test_pieces_are_bounded_and_join_to_the_text(text, size):
    whole = text.encode()
    pieces = list(pieces_of(whole, size))
    assert "".join(pieces) == text
    assert all(0 < len(piece.encode()) <= size for piece in pieces)


@pytest.mark.slow
@node.needs_node
async def test_message_js_gets_large_results_and_callbacks(tmp_path):
    script = """
    const message = new Message(host, port);
    await message.connect();
    const result = await message.post("large", {}, { found: (a, b) => report([a, b]) });
    report(result);
    message.close();
    """
    got = await node.run(tmp_path, script, Gateway(Service()))
    assert got == [[RESULT, "a"], ["b", RESULT], RESULT]


@pytest.mark.slow
@node.needs_node
async def test_message_js_fails_a_call_whose_message_is_too_large(tmp_path):
    script = """
    const message = new Message(host, port);
    await message.connect();
    report(await failing(() => message.post("large")));
    report((await message.post("echo", {}, { found: () => {} })).size.length);
    message.close();
    """
    static = node.STATIC
    (tmp_path / "static").mkdir()
    source = (static / "message.js").read_text()
    small = source.replace("MAX_WHOLE = 256 * 1024 * 1024", "MAX_WHOLE = 100_000")
    assert small != source
    (tmp_path / "static" / "message.js").write_text(small)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node, "STATIC", tmp_path / "static")
        error, size = await node.run(tmp_path, script, Gateway(Service()))
    assert error == "MessageError: the gateway sent a message of more than 100000 characters"
    assert size == 2 * PIECE
