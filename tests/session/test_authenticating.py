"""Cancelling `authenticate`, and its results: a session as a server runs it."""

from __future__ import annotations

import contextlib

import pytest
import trio
from helpers.raw_peer import HELLO, RawPeer, session_with_raw_peer

import trio_rpc
from trio_rpc import Limits, Options
from trio_rpc.session.core import Core
from trio_rpc.session.opening import make_session, make_tables, run_in_this_task
from trio_rpc.session.watch import Watchman
from trio_rpc.testing import memory_channel_pair
from trio_rpc.wire import messages as m


class _Waiter:
    """An `authenticate` that never returns, and records whether it has ended."""

    def __init__(self) -> None:
        self.began = trio.Event()
        self.has_ended = False

    async def __call__(self, session, credentials) -> None:
        self.began.set()
        try:
            await trio.sleep_forever()
        finally:
            self.has_ended = True


@contextlib.asynccontextmanager
async def _server_session(services=None, **options):
    """Run a session as a server does, in a separate task, until the end of the block."""
    ours, theirs = memory_channel_pair()
    core = Core(ours, make_tables(services), Options(**options), "somebody")
    make_session(core)
    raised: list[Exception] = []
    watchman = Watchman()

    async def serve():
        try:
            await run_in_this_task(core, watchman)
        except (trio_rpc.RpcError, ZeroDivisionError, TimeoutError) as exc:
            raised.append(exc)
        finally:
            watchman.stop()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watchman.run)
        nursery.start_soon(serve)
        peer = RawPeer(theirs)
        peer.send(HELLO)
        yield peer, raised


async def test_an_authenticate_that_never_returns_is_cancelled_at_the_handshake_timeout(
    autojump_clock,
):
    waiter = _Waiter()
    limits = Limits(handshake_timeout=3)
    with trio.fail_after(10):
        async with _server_session(authenticate=waiter, limits=limits) as (peer, raised):
            *_, goodbye = await peer.read_until_closed()
    assert waiter.has_ended
    assert trio.current_time() == pytest.approx(3, abs=0.001)
    assert [type(exc) for exc in raised] == [trio_rpc.SessionBroken]
    assert goodbye == m.Goodbye("done", "no handshake within 3 s")


async def test_an_authenticate_is_cancelled_when_the_client_disconnects(autojump_clock):
    waiter = _Waiter()
    with trio.fail_after(5):
        async with _server_session(authenticate=waiter) as (peer, raised):
            await waiter.began.wait()
            await peer.channel.aclose()
    assert waiter.has_ended
    assert trio.current_time() == 0
    assert [type(exc) for exc in raised] == [trio_rpc.SessionBroken]


@pytest.mark.parametrize(
    "packet",
    [m.Goodbye("done", "changed my mind"), m.Request(1, "echo", [1])],
    ids=["goodbye", "request"],
)
async def test_an_authenticate_is_cancelled_when_the_client_leaves_or_breaks_the_protocol(
    autojump_clock, packet
):
    waiter = _Waiter()
    with trio.fail_after(5):
        async with _server_session(authenticate=waiter) as (peer, raised):
            await waiter.began.wait()
            peer.send(packet)
    assert waiter.has_ended
    assert len(raised) == 1


@pytest.mark.parametrize("option", ["authenticate", "services"])
@pytest.mark.parametrize("bug", [ZeroDivisionError, TimeoutError, trio_rpc.SessionClosed])
async def test_a_bug_in_authenticate_or_services_ends_the_session_without_details(option, bug):
    def broken(*_):
        raise bug("a secret")

    async with _server_session(**{option: broken}) as (peer, raised):
        *_, goodbye = await peer.read_until_closed()
    assert [type(exc) for exc in raised] == [bug]
    assert goodbye == m.Goodbye("done", "it was closed before it was open")


@pytest.mark.parametrize("answer", [True, False, 0, "ann"], ids=repr)
@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
async def test_an_authenticate_that_returns_a_value_opens_no_session(is_async, answer):
    def plain(session, credentials):
        return answer

    async def asynchronous(session, credentials):
        return answer

    authenticate = asynchronous if is_async else plain
    with pytest.raises(TypeError, match=r"returned a \w+: it must raise Refused"):
        async with session_with_raw_peer(authenticate=authenticate):
            raise AssertionError("it must not open")


@pytest.mark.parametrize("refuses", [True, False])
async def test_authenticate_may_be_a_plain_function(refuses):
    def plain(session, credentials):
        if refuses:
            raise trio_rpc.Refused("members only")

    async with _server_session(authenticate=plain) as (peer, raised):
        if refuses:
            assert (await peer.read(m.Goodbye)).message == "members only"
        else:
            await peer.read(m.Welcome)
        await peer.channel.aclose()
    assert [type(exc) for exc in raised] == [
        trio_rpc.Refused if refuses else trio_rpc.SessionBroken
    ]
