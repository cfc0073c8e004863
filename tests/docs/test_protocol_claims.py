"""The prose of docs/protocol.md holds: a peer that only sends and receives bytes tries it."""

from __future__ import annotations

import contextlib

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc.protocol.protocol import Protocol
from trio_rpc.services.error_maps import from_error
from trio_rpc.testing import memory_channel_pair
from trio_rpc.wire import messages as m
from trio_rpc.wire.codec import Codec
from trio_rpc.wire.limits import DEFAULT_LIMITS

INFO = {
    "calls": 16,
    "notifications": 16,
    "max_message": 65536,
    "max_packet": 16384,
    "max_depth": 64,
    "max_nodes": 10000,
}
STREAM = {"stream": [16, 4096]}


class Stranger:
    """A peer that sends the messages of a test, legal or not."""

    def __init__(self, channel):
        self.channel = channel
        self.codec = Codec()

    def say(self, *messages):
        assert self.channel.send_nowait(b"".join(map(self.codec.encode, messages)))

    def pull(self, number, callback=0, *, args=(), parent=1, **context):
        """Use a callback or stream that was passed in call ``parent``."""
        context = {"parent": parent, "callback": callback, **context}
        context = {key: value for key, value in context.items() if value is not None}
        self.say(m.Request(number, "x", list(args), None, context))

    async def heard(self):
        """Return all messages received until the other end is silent."""
        received = []
        with trio.move_on_after(1):
            while True:
                received += self.codec.decode(await self.channel.receive())
        return received


@contextlib.asynccontextmanager
async def stranger(**options):
    ours, theirs = memory_channel_pair()
    peer = Stranger(theirs)
    peer.say(m.Hello(1, INFO), m.Welcome())
    async with trio_rpc.open_session(ours, on_end="keep", **options) as session:
        assert [type(one) for one in await peer.heard()] == [m.Hello, m.Welcome]
        try:
            yield session, peer
        finally:
            theirs.close()


@contextlib.asynccontextmanager
async def calling(session, peer, *args):
    """Keep a call with those arguments in flight during the block, and cancel it afterwards.

    The yielded scope covers only the call: if it covered the body, a cancellation would skip the
    assertions of the test.
    """
    scope = trio.CancelScope()

    async def call():
        with scope:
            await session.call("x", *args)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        [request] = await peer.heard()
        assert request.id == 1
        yield scope
        scope.cancel()
        await wait_all_tasks_blocked()
        peer.say(m.ReplyErr(1, {"code": "cancelled", "message": ""}))
    assert scope.cancelled_caught


async def numbers():
    for number in range(3):
        yield number


async def nothing():
    pass


# ── references ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("message", "ends"),
    [
        (m.Notification("m", [m.Reference(1, 0)]), False),
        (m.Reply(1, m.Reference(1, 0)), False),
        (m.Reply(1, (m.Reference(1, 0),)), False),
        (m.ReplyErr(1, {"code": "internal", "message": "", "x": m.Reference(1, 0)}), True),
        (m.Item(1, m.Reference(1, 0)), True),
        (m.Item(1, (m.Reference(1, 0),)), True),
        (m.Started(1, m.Reference(1, 0)), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_reference_is_allowed_only_in_arguments_and_results(message, ends):
    protocol = Protocol(Codec(), DEFAULT_LIMITS)
    protocol.hello()
    say = Codec().encode
    list(protocol.receive(say(m.Hello(1, INFO))))
    protocol.welcome()
    list(protocol.receive(say(m.Welcome())))
    protocol.request("m", [], None, {**STREAM, "task_status": True})
    with pytest.raises(trio_rpc.RemoteProtocolError) if ends else contextlib.nullcontext():
        [event] = protocol.receive(say(message))
        assert event == message or event.references


def test_a_reference_in_a_hello_ends_the_session():
    protocol = Protocol(Codec(), DEFAULT_LIMITS)
    protocol.hello()
    hello = m.Hello(1, {**INFO, "credentials": m.Reference(1, 0)})
    with pytest.raises(trio_rpc.RemoteProtocolError):
        list(protocol.receive(Codec().encode(hello)))


# ── callbacks and pulls ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("use", "code"),
    [
        ({"parent": None, **STREAM}, "method_not_found"),
        ({"parent": 9, **STREAM}, "method_not_found"),
        ({"callback": 2, **STREAM}, "method_not_found"),
        ({"callback": 0}, "method_not_found"),  # a stream, called as a function
        ({"callback": 1, **STREAM}, "method_not_found"),  # a function, pulled as a stream
        ({"args": [1], **STREAM}, "invalid_arguments"),
        ({"callback": 1, "args": [1]}, "invalid_arguments"),
    ],
)
async def test_a_bad_pull_gets_an_error(use, code, autojump_clock):
    async with stranger() as (session, peer), calling(session, peer, numbers(), nothing):
        peer.pull(1, **use)
        [answer] = await peer.heard()
        assert (answer.id, answer.error["code"]) == (1, code)


async def test_a_second_pull_of_a_stream_continues_where_the_first_ended(autojump_clock):
    async with stranger() as (session, peer), calling(session, peer, numbers()):
        peer.pull(1, **STREAM)
        assert [one.value for one in (await peer.heard())[:-1]] == [0, 1, 2]
        peer.pull(2, **STREAM)
        assert await peer.heard() == [m.Reply(2, None)]


async def test_a_second_pull_of_a_channel_gets_the_remaining_items(autojump_clock):
    send, receive = trio.open_memory_channel(9)
    async with stranger() as (session, peer), calling(session, peer, receive):
        await send.send("one")
        peer.pull(1, **STREAM)
        assert [one.value for one in await peer.heard()] == ["one"]
        peer.say(m.Cancel(1))
        [answer] = await peer.heard()
        assert answer.error["code"] == "cancelled"
        await send.send("two")
        peer.pull(2, **STREAM)
        assert [one.value for one in await peer.heard()] == ["two"]
    send.close()
    receive.close()


async def test_a_second_pull_during_a_step_of_a_generator_fails(autojump_clock):
    ready = trio.Event()

    async def slow():
        await ready.wait()
        yield "late"

    async with stranger() as (session, peer), calling(session, peer, slow()):
        peer.pull(1, **STREAM)
        peer.pull(2, **STREAM)
        [answer] = await peer.heard()
        assert (answer.id, answer.error["code"]) == (2, "raised")
        ready.set()
        item, end = await peer.heard()
        assert (item.id, item.value, end) == (1, "late", m.Reply(1, None))


async def test_a_concurrent_second_pull_is_refused_and_the_first_continues(autojump_clock, caplog):
    """Try a channel and a generator; the first pull waits for an item or for credit."""
    send, receive = trio.open_memory_channel(9)

    async def forever():
        while True:
            yield "item"

    async with (
        stranger() as (session, peer),
        calling(session, peer, receive, forever()),
        send,
    ):
        for callback in range(2):  # one waits for its next item, one for credit
            peer.pull(1 + callback, callback, stream=[1, 4096])
        await peer.heard()
        for callback in range(2):
            peer.pull(3 + callback, callback, **STREAM)
            [answer] = await peer.heard()
            assert (answer.id, answer.error["code"]) == (3 + callback, "raised")
            assert answer.error["type"] == "trio.BusyResourceError"
            assert answer.error["started"] is False
        send.send_nowait("one")
        peer.say(m.Credit(1, 2, 1))
        heard = {one.id: one.value for one in await peer.heard()}
        assert heard == {1: "one", 2: "item"}  # the first pulls continue
    receive.close()
    assert not caplog.records


async def test_a_second_pull_of_a_duplex_fails(autojump_clock):
    async with stranger() as (session, peer), trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def talk():
            with scope:
                async with session.duplex("x") as duplex:
                    await duplex.receive()

        nursery.start_soon(talk)
        await peer.heard()
        peer.pull(1, **STREAM)
        peer.pull(2, **STREAM)
        [answer] = await peer.heard()
        assert (answer.id, answer.error["code"]) == (2, "raised")
        peer.say(m.Cancel(1))
        [answer] = await peer.heard()
        assert (answer.id, answer.error["code"]) == (1, "cancelled")
        scope.cancel()
        await wait_all_tasks_blocked()
        peer.say(m.ReplyErr(1, {"code": "cancelled", "message": ""}))


async def test_a_cancel_stops_running_callbacks_at_once_and_refuses_later_ones(autojump_clock):
    async with (
        stranger() as (session, peer),
        calling(session, peer, trio.sleep_forever) as cancel_scope,
    ):
        peer.pull(1)
        assert await peer.heard() == []
        cancel_scope.cancel()
        cancel, answer = sorted(await peer.heard(), key=lambda one: one.TYPE, reverse=True)
        assert (cancel.id, answer.id) == (1, 1)  # call 1 is still in flight
        assert (answer.error["code"], answer.error["started"]) == ("cancelled", True)
        peer.pull(2)
        [answer] = await peer.heard()
        assert (answer.error["code"], answer.error["started"]) == ("cancelled", False)


def is_refused(answer, number):
    error = answer.error["code"], answer.error["started"]
    return answer.id == number and error == ("cancelled", False)


@pytest.mark.parametrize("kind", ["stream", "duplex"])
async def test_a_callback_after_its_stream_was_closed_is_refused(kind, autojump_clock):
    async with stranger() as (session, peer), trio.open_nursery() as nursery:

        async def leave():
            async with getattr(session, kind)("x", nothing):
                pass

        nursery.start_soon(leave)
        assert isinstance((await peer.heard())[-1], m.Cancel)
        peer.pull(1, 0 if kind == "stream" else 1)
        [answer] = await peer.heard()
        assert is_refused(answer, 1)
        if kind == "duplex":
            peer.pull(2, 0, **STREAM)  # the items that its caller sends
            [answer] = await peer.heard()
            assert is_refused(answer, 2)
        peer.say(m.ReplyErr(1, {"code": "cancelled", "message": ""}))


@pytest.mark.parametrize("kind", ["function", "stream"])
async def test_a_callback_after_its_scope_was_closed_is_refused(kind, autojump_clock):
    async with stranger() as (session, peer), trio.open_nursery() as nursery:

        async def leave():
            async with session.open_scope() as scope:
                await scope.call("x", nothing if kind == "function" else numbers())

        nursery.start_soon(leave)
        assert [one.id for one in await peer.heard()] == [1, 2]
        peer.say(m.Reply(2, None))
        [cancel] = await peer.heard()
        assert cancel.id == 1
        peer.pull(1, **({} if kind == "function" else STREAM))
        [answer] = await peer.heard()
        assert is_refused(answer, 1)
        peer.say(m.ReplyErr(1, {"code": "cancelled", "message": ""}))


@pytest.mark.parametrize("kind", ["function", "stream"])
async def test_a_callback_after_its_call_was_abandoned_is_refused(kind, autojump_clock):
    async with stranger() as (session, peer):
        with trio.move_on_after(1):
            await session.call(
                "x", nothing if kind == "function" else numbers(), abandon_on_cancel=True
            )
        request, cancel = await peer.heard()
        assert (request.id, cancel.id) == (1, 1)
        peer.pull(1, **({} if kind == "function" else STREAM))
        [answer] = await peer.heard()
        assert is_refused(answer, 1)
        peer.say(m.Reply(1, None))
        peer.pull(2)
        [answer] = await peer.heard()
        assert answer.error["code"] == "method_not_found"  # that call has ended


# ── texts, credentials, unchecked rules ──────────────────────────────────────────────


async def test_texts_are_truncated_by_characters_and_not_by_bytes(autojump_clock):
    async with stranger() as (session, peer), calling(session, peer) as cancel_scope:
        cancel_scope.cancel(reason="\u20ac" * 1001)
        [cancel] = await peer.heard()
        assert cancel.reason == "\u20ac" * 1000


def test_a_received_text_that_is_too_long_is_accepted():
    error = from_error({"code": "internal", "message": "x" * 20_000}, {})
    assert isinstance(error, trio_rpc.RemoteError)


@pytest.mark.parametrize("told", [{}, {"credentials": None}, {"credentials": {"token": [1]}}])
async def test_authenticate_gets_the_credentials_of_the_hello(told, autojump_clock):
    given = []

    async def authenticate(_session, credentials):
        given.append(credentials)

    ours, theirs = memory_channel_pair()
    peer = Stranger(theirs)
    peer.say(m.Hello(1, {**INFO, **told}), m.Welcome())
    async with trio_rpc.open_session(ours, on_end="keep", authenticate=authenticate):
        theirs.close()
    assert given == [told.get("credentials")]


async def test_welcome_is_sent_after_authentication(autojump_clock):
    decide = trio.Event()

    async def authenticate(_session, _credentials):
        await decide.wait()

    ours, theirs = memory_channel_pair()
    peer = Stranger(theirs)
    peer.say(m.Hello(1, INFO))
    async with trio.open_nursery() as nursery:

        async def serve():
            with contextlib.suppress(trio_rpc.RpcError):
                await trio_rpc.serve_session(ours, None, authenticate=authenticate)

        nursery.start_soon(serve)
        assert [type(one) for one in await peer.heard()] == [m.Hello]
        decide.set()
        assert await peer.heard() == [m.Welcome()]
        theirs.close()


@pytest.mark.parametrize(
    "context",
    [
        {"callback": 0},
        {"parent": 9, "callback": 0},
        STREAM,
        {"task_status": True},
        {"scope": 9},
        {"deadline": 5, "parent": 9, "depth": 3, "metadata": {}},
    ],
    ids=repr,
)
async def test_a_notification_ignores_context_entries_of_calls(context, autojump_clock):
    heard = []

    class Service:
        @trio_rpc.notification
        def note(self, text: str) -> None:
            heard.append(text)

    async with stranger(services=Service()) as (_, peer):
        peer.say(m.Notification("note", ["x"], None, context))
        assert await peer.heard() == [m.Credit(1)]
    assert heard == ["x"]


async def test_a_receiver_accepts_breaches_that_the_page_leaves_unchecked(autojump_clock):
    async with stranger() as (_, peer):
        twice = [m.Reference(1, 0), m.Reference(1, 0)]
        peer.say(m.Ping(5), m.Ping(3), m.Cancel(7), m.Cancel(7), m.Request(7, "x", twice))
        peer.say(m.Request(8, "x", [], None, {"parent": 99, "depth": 3}), m.Ping(9))
        codes = [one.error["code"] for one in await peer.heard() if isinstance(one, m.ReplyErr)]
        assert codes == ["method_not_found"] * 2
