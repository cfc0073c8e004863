"""Law 13, only decorated methods can be called: similar names, and the wrong kind of call."""

from __future__ import annotations

import contextlib

import pytest
import trio
from helpers.handlers import Echo
from helpers.raw_peer import session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Fate
from trio_rpc.wire import messages as m

SIMILAR_NAMES = [
    *(".echo", "echo.", "..echo", "ECHO", "Echo", "echO", "_echo", "echo_", "__echo__"),
    *(" echo", "echo ", "\techo", "echo\n", "echo\0", "\ufeffecho", "echo\u200b", "echo\u00a0"),
    *("e\u0441ho", "\uff45\uff43\uff48\uff4f", "ech\u043e", "\u212fcho", "e\u0301cho"),
    *("shop", "shop.", ".shop.echo", "shop..echo", "shop.echo.", "shop. echo", "shop .echo"),
    *("SHOP.echo", "Shop.echo", "shop.Echo", "shop/echo", "shop:echo", "shop.echo()"),
    *("echo.shop", "shop.shop.echo", "shop.echo.echo", "*", "shop.*", "%65cho", "echo?", "echo#"),
    *("unmarked", "shop.unmarked", "shop._private", "shop.__class__", "shop.__init__"),
]

CONTEXTS = {
    "no context": contextlib.nullcontext,
    "a deadline": lambda: trio.fail_after(1000),
    "metadata": lambda: trio_rpc.metadata(user="ann"),
}


class Shop(Echo):
    def __init__(self):
        self.called = []

    def unmarked(self, *_args):
        self.called.append("unmarked")

    _private = unmarked

    @trio_rpc.method
    async def ask(self):
        self.called.append("ask")

    @trio_rpc.notification
    async def tell(self):
        self.called.append("tell")

    @trio_rpc.stream
    async def watch(self):
        self.called.append("watch")
        yield 1

    @trio_rpc.duplex
    async def chat(self, channel: trio.abc.Channel[int]):
        self.called.append("chat")


async def opened(context):
    async with context:
        raise AssertionError("it was opened")


def ways_to_use(session, name):
    """Return a function for each way to use a name."""
    return {
        "call": lambda: session.call(name),
        "abandoned call": lambda: session.call(name, abandon_on_cancel=True),
        "stream": lambda: opened(receiving(session.stream(name))),
        "duplex": lambda: opened(receiving(session.duplex(name))),
    }


@contextlib.asynccontextmanager
async def receiving(opening):
    async with opening as channel:
        yield await channel.receive()


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
async def test_law_13_a_name_similar_to_a_methods_is_not_found(session_pair, no_time, context):
    shop = Shop()
    async with session_pair(None, {"": shop, "shop": shop}) as (a, _):
        for name in SIMILAR_NAMES:
            for use in ways_to_use(a, name).values():
                with pytest.raises(trio_rpc.MethodNotFound) as caught:
                    with context():
                        await use()
                assert caught.value.fate is Fate.NOT_STARTED
        with context():
            assert await a.call("echo", 1) == await a.call("shop.echo", 1) == 1
    assert shop.called == []


async def test_law_13_a_name_similar_to_a_methods_is_not_found_in_a_remote_scope(
    session_pair, no_time
):
    shop = Shop()
    async with session_pair(None, {"shop": shop}) as (a, _), a.open_scope() as scope:
        for name in ("shop.unmarked", ".shop.echo", "SHOP.echo", "echo"):
            with pytest.raises(trio_rpc.MethodNotFound):
                await scope.call(name)
        assert await scope.call("shop.echo", 1) == 1
    assert shop.called == []


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
async def test_law_13_a_notification_with_a_similar_name_is_dropped(
    session_pair, no_time, caplog, context
):
    shop = Shop()
    async with session_pair(None, {"shop": shop}) as (a, _):
        for name in ("shop.Tell", "shop.tell ", ".shop.tell", "tell", "shop.unmarked", "shop.ask"):
            with context():
                await a.notify(name)
        await wait_all_tasks_blocked()
        assert shop.called == []
        [server] = {each.args[0] for each in caplog.records}
        text = f"a notification from {server} was dropped: there is no method 'shop.unmarked'"
        assert text in [each.getMessage() for each in caplog.records]
        assert not server.startswith("<")
        with context():
            await a.notify("shop.tell")
        await wait_all_tasks_blocked()
    assert shop.called == ["tell"]


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
@pytest.mark.parametrize(
    ("name", "right"), [("ask", "call"), ("tell", None), ("watch", "stream"), ("chat", "duplex")]
)
async def test_law_13_a_method_can_be_used_only_as_its_kind_in_any_context(
    session_pair, no_time, context, name, right
):
    shop = Shop()
    async with session_pair(None, shop) as (a, _):
        for how, use in ways_to_use(a, name).items():
            if right is None or right not in how:
                # A stream and a duplex are opened in the same way, and differ in their arguments.
                both_opened = {how, right} <= {"stream", "duplex"}
                refused = trio_rpc.InvalidArguments if both_opened else trio_rpc.MethodNotFound
                with pytest.raises(refused) as caught:
                    with context():
                        await use()
                assert caught.value.fate is Fate.NOT_STARTED
    assert shop.called == []


@pytest.mark.parametrize("name", ["tell", "watch", "chat", "unmarked", ".ask", "ASK"])
@pytest.mark.parametrize(
    "context",
    [
        {"depth": 1},
        {"parent": 77},
        {"unknown": "entry"},
        {"deadline": 1.0, "metadata": {}},
        {"task_status": True},
        {"scope": 9},
    ],
    ids=str,
)
async def test_law_13_no_made_up_context_gives_access_to_a_method(no_time, name, context):
    shop = Shop()
    async with session_with_raw_peer(shop) as (_, peer):
        peer.send(m.Request(1, name, [], None, context))
        answer = await peer.read(m.ReplyErr)
        assert answer.error["code"] == "method_not_found"
    assert shop.called == []


@pytest.mark.parametrize("name", ["tell", "ask", "unmarked", "watch "])
async def test_law_13_a_method_that_is_not_a_stream_is_not_found_if_called_with_credit(
    no_time, name
):
    shop = Shop()
    async with session_with_raw_peer(shop) as (_, peer):
        peer.send(m.Request(1, name, [], None, {"stream": [10, 1000]}))
        assert (await peer.read(m.ReplyErr)).error["code"] == "method_not_found"
    assert shop.called == []


@pytest.mark.parametrize("number", [0, 1, 2**40])
async def test_law_13_a_callback_that_was_not_passed_is_not_found(no_time, number):
    shop = Shop()
    async with session_with_raw_peer(shop) as (session, peer), trio.open_nursery() as nursery:
        nursery.start_soon(session.call, "anything")
        request = await peer.read(m.Request)
        for call, parent in enumerate((request.id, request.id + 1), 1):
            context = {"parent": parent, "callback": number, "depth": 1}
            peer.send(m.Request(call, "ask", [], None, context))
            assert (await peer.read(m.ReplyErr)).error["code"] == "method_not_found"
        nursery.cancel_scope.cancel()
        peer.send(m.Reply(request.id, None))
    assert shop.called == []
