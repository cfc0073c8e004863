"""Real child processes that are started again when they end.

The tests run in real time, because the processes do, but none relies on speed.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from helpers import children
from helpers.children import Plugin
from helpers.handlers import Echo
from helpers.processes import descriptors, exists

from trio_rpc import DEFAULT_LIMITS, Fate, Restart, SessionBroken, SessionClosed, keep_process
from trio_rpc.channels import ProcessExit

TIME_LIMIT = 120.0
"""Seconds that each of these tests may take, on any machine."""

LIMITS = replace(DEFAULT_LIMITS, handshake_timeout=TIME_LIMIT)


def kept(target=None, *, program="serve", **options):
    command = [sys.executable, "-W", "error", children.__file__, program]
    return keep_process(command, Plugin, target, name="plugin", limits=LIMITS, **options)


@pytest.fixture(autouse=True)
async def bounded():
    with trio.fail_after(TIME_LIMIT):
        yield


@pytest.fixture(autouse=True)
def check_leaks():
    """Check that each test has closed its descriptors."""
    before = descriptors()
    yield
    assert descriptors() == before


async def test_a_child_that_crashes_is_started_again_until_it_has_crashed_too_often():
    pids, seen = [], []
    async with trio.open_nursery() as nursery:
        with pytest.raises(SessionBroken) as caught:
            async with kept(restart=Restart(times=2, within=1e9)) as plugin:
                nursery.start_soon(collect, plugin, seen)
                for _ in range(3):
                    pids.append(await plugin.proxy.pid())
                    with pytest.raises(SessionBroken, match=r"ended with exit code 3$") as crash:
                        await plugin.proxy.exit(3)
                    assert crash.value.fate is Fate.UNKNOWN
                await plugin.proxy.pid()
    assert len(set(pids)) == 3
    assert not any(map(exists, pids))
    assert str(caught.value).endswith("ended with exit code 3")
    assert seen[-1] == plugin.state
    assert [each.kind for each in seen].count("running") <= 3
    assert plugin.state.kind == "failed"
    assert plugin.state.end.detail == ProcessExit(3)


async def collect(plugin, seen):
    async for state in plugin.states():
        seen.append(state)


async def test_a_child_that_is_killed_is_started_again_and_both_ends_call():
    async with kept(Echo()) as plugin:
        pid = await plugin.proxy.pid()
        assert plugin.session.peer.pid == pid
        os.kill(pid, signal.SIGKILL)
        async for state in plugin.states():
            if state.kind == "restarting":
                assert state.end.detail == ProcessExit(-signal.SIGKILL)
                break
        after = await plugin.proxy.pid()
        assert after != pid
        assert await plugin.proxy.ask_target("still here") == "still here"
    assert not exists(after)
    with pytest.raises(SessionClosed):
        await plugin.proxy.pid()


async def test_leaving_the_block_lets_the_child_end_by_itself():
    async with kept() as plugin:
        await plugin.proxy.pid()
        session = plugin.session
    assert session.peer.returncode == 0
    assert (await session.wait_closed()).by == "us"


async def test_a_cancelled_block_ends_a_child_that_ignores_the_end_of_its_session():
    limits = replace(LIMITS, shutdown_timeout=0.05)
    command = [sys.executable, "-W", "error", children.__file__, "stubborn"]
    with trio.CancelScope() as scope:
        async with keep_process(
            command, Plugin, limits=limits, goodbye_time=1e9, terminate_time=0.05
        ) as plugin:
            await plugin.proxy.pid()
            session = plugin.session
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert session.peer.returncode == -signal.SIGKILL


async def test_a_program_that_does_not_exist_fails_at_once(tmp_path):
    missing = Path(tmp_path) / "missing"
    with pytest.raises(FileNotFoundError, match=r"^cannot start "):
        async with keep_process([missing], Plugin) as plugin:
            await plugin.proxy.pid()
    assert plugin.state.kind == "failed"
    with pytest.raises(SessionBroken, match=r"^no process can be used: cannot start "):
        await plugin.proxy.pid()
