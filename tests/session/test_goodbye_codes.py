"""The codes of a Goodbye: an orderly end, a refusal, or a protocol error of the reading end."""

from __future__ import annotations

import pytest
import trio
from helpers.raw_peer import HELLO, session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc.errors import Fate, LocalProtocolError, Refused, SessionBroken
from trio_rpc.testing import memory_channel_pair
from trio_rpc.wire import messages as m
from trio_rpc.wire.codec import Codec

ORDERLY = ["done", "refused", "a code of a later revision", ""]


@pytest.mark.parametrize("code", ORDERLY)
async def test_after_an_orderly_goodbye_in_flight_calls_may_end(code, no_time):
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:
        results = []

        async def call():
            results.append(await session.call("x"))

        nursery.start_soon(call)
        await peer.read(m.Request)
        peer.send(m.Goodbye(code, "closing down"))
        assert (await peer.read(m.Goodbye)).code == "done"
        with pytest.raises(SessionBroken, match="closing down") as caught:
            await session.call("another")
        assert caught.value.orderly
        peer.send(m.Reply(1, "made it"))
        await wait_all_tasks_blocked()
        assert results == ["made it"]
    end = await session.wait_closed()
    assert (end.by, end.cause) == ("peer", None)


@pytest.mark.parametrize(
    ("code", "message", "text"),
    [
        ("done", "gone fishing", "gone fishing"),
        ("done", "", "(done)"),
        ("later", "gone fishing", "gone fishing (later)"),
        ("later", "", "(later)"),
        ("done", "gone\nERROR fishing\x1b[2J", "gone\\nERROR fishing\\x1b[2J"),
        ("la\nter", "gone", "gone (la\\nter)"),
    ],
)
async def test_an_error_shows_the_text_of_the_goodbye_and_a_code_that_says_more(
    code, message, text, no_time
):
    async with session_with_raw_peer() as (session, peer):
        peer.send(m.Goodbye(code, message))
        await peer.read(m.Goodbye)
        with pytest.raises(SessionBroken) as caught:
            await session.call("x")
        assert str(caught.value) == f"the other end is leaving: {text}"
    assert (await session.wait_closed()).reason == f"the other end has left: {text}"


async def test_a_close_without_a_reason_is_recorded_as_a_close(session_pair, no_time):
    async with session_pair(None, None, on_end="keep") as (a, b):
        await a.aclose()
        end = await b.wait_closed()
    assert (end.by, end.reason) == ("peer", "the other end has left: it closed the session")


@pytest.mark.parametrize("leaves_first", [False, True])
async def test_a_goodbye_about_a_protocol_error_ends_the_session_with_that_error(
    leaves_first, no_time
):
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:
        errors = []

        async def call():
            with pytest.raises(SessionBroken) as caught:
                await session.call("x")
            errors.append(caught.value)

        nursery.start_soon(call)
        await peer.read(m.Request)
        if leaves_first:
            nursery.start_soon(session.aclose)
            await peer.read(m.Goodbye)
        peer.send(m.Goodbye("protocol_error", "type 77"))
        await wait_all_tasks_blocked()
        [error] = errors
        assert (error.orderly, error.fate) == (False, Fate.UNKNOWN)
        assert isinstance(error.__cause__, LocalProtocolError)
        text = "the other end says that this end broke the protocol: type 77"
        assert str(error.__cause__) == text
        assert text in str(error)
    end = await session.wait_closed()
    assert (end.by, end.cause) == ("peer", error.__cause__)


async def test_a_goodbye_about_a_protocol_error_cancels_the_handlers(no_time):
    class Service:
        @trio_rpc.method
        async def wait(self) -> None:
            await trio.sleep_forever()

    async with session_with_raw_peer(Service()) as (session, peer):
        peer.send(m.Request(1, "wait", []))
        await wait_all_tasks_blocked()
        peer.send(m.Goodbye("protocol_error", ""))
        answer, goodbye = await peer.read(m.ReplyErr), await peer.read(m.Goodbye)
        assert (answer.id, answer.error["code"], goodbye.code) == (1, "cancelled", "done")
        await session.wait_closed()


@pytest.mark.parametrize("greeted", [False, True])
@pytest.mark.parametrize("code", [*ORDERLY, "protocol_error"])
async def test_a_goodbye_before_the_session_is_open_is_a_refusal_or_an_orderly_end(
    code, greeted, no_time
):
    ours, theirs = memory_channel_pair()
    hello = [HELLO] if greeted else []
    await theirs.send(b"".join(map(Codec().encode, [*hello, m.Goodbye(code, "not today")])))
    with pytest.raises((Refused, SessionBroken), match="not today") as caught:
        async with trio_rpc.open_session(ours):
            raise AssertionError("no session is open")
    if code in ("refused", "protocol_error"):
        assert type(caught.value) is Refused
    else:
        assert caught.value.orderly
    assert caught.value.fate is Fate.NOT_STARTED
