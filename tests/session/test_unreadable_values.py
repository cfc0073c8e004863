"""A value that its registered class cannot decode is an error where it is used, and never nil."""

from __future__ import annotations

import contextlib
from typing import Any

import msgpack
import pytest
import trio
from helpers.raw_peer import HELLO, session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc.errors import DecodeError, Fate, Refused, RemoteError
from trio_rpc.testing import memory_channel_pair
from trio_rpc.wire import messages as m
from trio_rpc.wire.codec import Codec

UNDECODABLE = msgpack.ExtType(64, b"\xa1a")
WHY = "a value of type Token could not be decoded: ValueError('no token')"
UNDECODABLE_SET = {msgpack.ExtType(65, b"\x90")}
WHY_NO_SET = "a set or map of users' values could not be decoded"


class Token:
    pass


class NoHash:
    __hash__ = None  # type: ignore[assignment]


class Service:
    def __init__(self):
        self.called = []

    @trio_rpc.method
    async def take(self, value: Any = None, *, key: Any = None) -> None:
        self.called.append((value, key))

    @trio_rpc.notification
    async def note(self, value: Any = None) -> None:
        self.called.append(value)


def never(_value):
    raise ValueError("no token")


@pytest.fixture
def registry():
    registry = trio_rpc.TypeRegistry()
    registry.register(64, Token, encode=str, decode=never)
    registry.register(65, NoHash, encode=str, decode=lambda _value: NoHash())
    return registry


# ── Hello ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("hello_fields", "why"),
    [
        ({"credentials": UNDECODABLE}, WHY),
        ({"credentials": ["ann", {"token": UNDECODABLE}]}, WHY),
        ({"credentials": (UNDECODABLE,)}, WHY),
        ({"credentials": UNDECODABLE_SET}, WHY_NO_SET),
        ({"later": UNDECODABLE}, WHY),
    ],
    ids=["alone", "inside", "in a tuple", "in a set", "beside the credentials"],
)
async def test_credentials_that_cannot_be_decoded_refuse_the_session(
    hello_fields, why, registry, no_time
):
    async def authenticate(_session, credentials):
        raise AssertionError(f"authenticate was given {credentials!r}")

    ours, theirs = memory_channel_pair()
    hello = m.Hello(1, {**HELLO.info, **hello_fields})
    await theirs.send(Codec().encode(hello))
    with pytest.raises(Refused) as caught:
        async with trio_rpc.open_session(ours, registry=registry, authenticate=authenticate):
            raise AssertionError("no session is open")
    assert why in str(caught.value)
    _, goodbye = list(Codec().decode(await theirs.receive())) + list(
        Codec().decode(await theirs.receive())
    )
    assert (goodbye.code, goodbye.message) == ("refused", str(caught.value))


# ── the peer's calls ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "call",
    [
        m.Request(1, "take", [UNDECODABLE]),
        m.Request(1, "take", [[{"a": UNDECODABLE}]]),
        m.Request(1, "take", [UNDECODABLE_SET]),
        m.Request(1, "take", [], {"key": UNDECODABLE}),
        m.Request(1, "take", [], None, {"metadata": {"user": UNDECODABLE}}),
    ],
    ids=["argument", "inside one", "in a set", "named argument", "metadata"],
)
async def test_a_call_with_a_value_that_cannot_be_decoded_is_answered_as_invalid_arguments(
    call, registry, no_time
):
    service = Service()
    async with session_with_raw_peer(service, registry=registry) as (_, peer):
        peer.send(call)
        answer = await peer.read(m.ReplyErr)
        assert answer.error["code"] == "invalid_arguments"
        assert "could not be decoded" in answer.error["message"]
    assert service.called == []


@pytest.mark.parametrize(
    "message",
    [
        m.Notification("note", [UNDECODABLE]),
        m.Notification("note", [], {"value": UNDECODABLE}),
        m.Notification("note", [], None, {"metadata": {"user": UNDECODABLE}}),
    ],
    ids=["argument", "named argument", "metadata"],
)
async def test_a_notification_that_cannot_be_decoded_is_dropped_and_its_credit_returned(
    message, registry, no_time
):
    service = Service()
    async with session_with_raw_peer(service, registry=registry) as (_, peer):
        peer.send(message)
        assert await peer.read(m.Credit) == m.Credit(1)
    assert service.called == []


# ── the peer's answers ───────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def waiting_call(registry):
    """Yield a peer that has received the Request of a call, and a list for the call's exception."""
    raised = []

    async def call(session):
        try:
            await session.call("x")
        except Exception as exc:  # noqa: BLE001 - any exception
            raised.append(exc)

    async with (
        session_with_raw_peer(registry=registry) as (session, peer),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(call, session)
        assert (await peer.read(m.Request)).id == 1
        yield peer, raised
        await wait_all_tasks_blocked()


async def test_a_result_that_cannot_be_decoded_is_an_error_at_the_caller(registry, no_time):
    async with waiting_call(registry) as (peer, raised):
        peer.send(m.Reply(1, [UNDECODABLE]))
    [error] = raised
    assert (type(error), error.fate, str(error)) == (DecodeError, Fate.STOPPED, WHY)


def raised_error(**more):
    return {"code": "raised", "type": "builtins.ValueError", "message": "as it was", **more}


@pytest.mark.parametrize(
    "error",
    [
        raised_error(args=[UNDECODABLE]),
        raised_error(args=[1], fields={"token": UNDECODABLE}),
        raised_error(args=[UNDECODABLE_SET]),
    ],
    ids=["args", "fields", "a set in args"],
)
async def test_an_exception_with_values_that_cannot_be_decoded_arrives_as_text_with_a_note(
    error, registry, no_time
):
    async with waiting_call(registry) as (peer, raised):
        peer.send(m.ReplyErr(1, error))
    [error] = raised
    assert type(error) is RemoteError
    assert (error.type_name, error.message, error.fate) == (
        "ValueError",
        "as it was",
        Fate.STOPPED,
    )
    [note] = error.__notes__
    assert "could not be decoded" in note


async def test_a_part_of_a_group_that_cannot_be_decoded_arrives_as_text(registry, no_time):
    parts = [raised_error(args=[UNDECODABLE])]
    group = {"code": "raised", "type": "builtins.ExceptionGroup", "message": "", "errors": parts}
    async with waiting_call(registry) as (peer, raised):
        peer.send(m.ReplyErr(1, group))
    [error] = raised
    assert [type(part) for part in error.exceptions] == [RemoteError]


async def test_an_exception_that_can_be_decoded_is_rebuilt(registry, no_time):
    async with waiting_call(registry) as (peer, raised):
        peer.send(m.ReplyErr(1, raised_error(args=["as it was"])))
    [error] = raised
    assert (type(error), error.args) == (ValueError, ("as it was",))


async def test_an_item_that_cannot_be_decoded_is_an_error_and_the_stream_goes_on(registry, no_time):
    async with session_with_raw_peer(registry=registry) as (session, peer):
        async with session.stream("x") as items:
            await peer.read(m.Request)
            peer.send(m.Item(1, UNDECODABLE), m.Item(1, 2), m.Reply(1, None))
            with pytest.raises(DecodeError, match="could not be decoded"):
                await items.receive()
            assert await items.receive() == 2


async def test_a_started_value_that_cannot_be_decoded_fails_the_start(registry, no_time):
    async with session_with_raw_peer(registry=registry) as (session, peer):

        async def answer():
            await peer.read(m.Request)
            peer.send(m.Started(1, UNDECODABLE))
            await peer.read(m.Cancel)
            peer.send(m.ReplyErr(1, {"code": "cancelled", "message": ""}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            with pytest.raises(DecodeError, match="could not be decoded") as caught:
                await nursery.start(session.proxy("").x)
            assert caught.value.fate is Fate.STOPPED
