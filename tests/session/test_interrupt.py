"""Ctrl-C while a program waits for a remote call."""

from __future__ import annotations

import signal

import pytest
import trio
from helpers.handlers import Sleeper
from helpers.raw_peer import session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

from trio_rpc import Limits
from trio_rpc.testing import open_session_pair
from trio_rpc.wire import messages as m


@pytest.fixture(autouse=True)
def watchdog():
    """Replace the fixture of other modules, because these tests call ``trio.run`` themselves."""


@trio.lowlevel.enable_ki_protection
async def _interrupt():
    await wait_all_tasks_blocked()
    signal.raise_signal(signal.SIGINT)


def test_ctrl_c_cancels_the_remote_handler_and_is_raised():
    sleeper = Sleeper()

    async def main():
        async with open_session_pair(None, sleeper) as (a, _), trio.open_nursery() as nursery:
            nursery.start_soon(_interrupt)
            await a.call("sleep")

    with pytest.raises(BaseException) as caught:
        trio.run(main)
    assert _leaves(caught.value) == [KeyboardInterrupt]
    assert sleeper.ended[0][:2] == ("sleep", "cancelled")


def test_ctrl_c_is_raised_even_if_the_result_won_the_race():
    async def main():
        async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:

            async def answer():
                await peer.read(m.Cancel)
                peer.send(m.Reply(1, "too late for this"))

            nursery.start_soon(answer)
            nursery.start_soon(_interrupt)
            await session.call("anything")

    with pytest.raises(BaseException) as caught:
        trio.run(main)
    assert _leaves(caught.value) == [KeyboardInterrupt]


def test_after_a_second_ctrl_c_the_caller_does_not_wait_for_the_handler():
    async def main():
        limits = Limits(cancel_grace=1e6)
        async with (
            session_with_raw_peer(limits=limits) as (session, _),
            trio.open_nursery() as nursery,
        ):

            @trio.lowlevel.enable_ki_protection
            async def twice():
                await _interrupt()
                await _interrupt()

            nursery.start_soon(twice)
            await session.call("anything")

    with pytest.raises(BaseException) as caught:
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert _leaves(caught.value) == [KeyboardInterrupt]


def test_after_ctrl_c_the_caller_does_not_wait_for_a_handler_that_is_already_cancelled():
    async def main():
        limits = Limits(cancel_grace=1e6)
        async with (
            session_with_raw_peer(limits=limits) as (session, peer),
            trio.open_nursery() as nursery,
        ):

            async def interrupt():
                await peer.read(m.Cancel)
                await _interrupt()

            nursery.start_soon(interrupt)
            with trio.move_on_after(1):
                await session.call("anything")

    with pytest.raises(BaseException) as caught:
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert _leaves(caught.value) == [KeyboardInterrupt]


def _leaves(exc):
    if isinstance(exc, BaseExceptionGroup):
        return [leaf for each in exc.exceptions for leaf in _leaves(each)]
    return [type(exc)]


def test_ctrl_c_is_raised_while_the_caller_itself_receives():
    @trio.lowlevel.enable_ki_protection
    async def answer(peer):
        peer.send(m.Reply((await peer.read(m.Request)).id, None))
        await peer.read(m.Request)
        await _interrupt()
        cancel = await peer.read(m.Cancel)
        assert cancel.reason == "KeyboardInterrupt"
        peer.send(m.Reply(cancel.id, "too late"))

    async def main():
        async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:
            nursery.start_soon(answer, peer)
            await session.call("first")
            await session.call("second")

    with pytest.raises(BaseException) as caught:
        trio.run(main)
    assert _leaves(caught.value) == [KeyboardInterrupt]
