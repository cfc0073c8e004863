"""Pools of processes: ``exec:`` commands, which are started, killed, and started again."""

from __future__ import annotations

import os
import shlex
import signal
import sys

import pytest
import trio

import trio_rpc

pytestmark = pytest.mark.slow

WORKER = """
import os, trio, trio_rpc
class Worker:
    @trio_rpc.method
    async def pid(self) -> int:
        return os.getpid()
    @trio_rpc.method
    async def leave(self) -> None:
        os._exit(3)
trio.run(trio_rpc.serve_parent, Worker())
"""


PATIENT = trio_rpc.Limits(handshake_timeout=90)  # a busy machine starts a Python in 10 s


def command(program):
    return "exec:" + shlex.join([sys.executable, "-c", program])


async def until_open(pool, count, *, without=None):
    with trio.fail_after(100):
        async for statuses in pool.states():
            ready = [each for each in statuses if each.state == "open" and each.pid != without]
            if len(ready) == count:
                return {each.pid for each in ready}
    raise AssertionError("the pool is over")


async def test_the_same_command_twice_gives_two_processes_which_share_the_calls():
    async with trio_rpc.open_pool(*[command(WORKER)] * 2, limits=PATIENT) as pool:
        pids = await until_open(pool, 2)
        assert {await pool.call("pid") for _ in range(40)} == pids
        assert [each.name.endswith(" #2") for each in pool.instances()] == [False, True]


async def test_a_killed_process_is_replaced():
    async with trio_rpc.open_pool(*[command(WORKER)] * 2, limits=PATIENT) as pool:
        pids = await until_open(pool, 2)
        killed = min(pids)
        os.kill(killed, signal.SIGKILL)
        after = await until_open(pool, 2, without=killed)
        assert {await pool.call("pid") for _ in range(40)} == after
        assert max(pids) in after


async def test_a_process_that_dies_again_and_again_is_given_up():
    restart = trio_rpc.Restart(times=2, within=600, first_delay=0.01)
    with pytest.raises(
        trio_rpc.SessionBroken, match=r"not started again \(2 restarts within 600 s"
    ):
        async with trio_rpc.open_pool(command(WORKER), restart=restart, limits=PATIENT) as pool:
            while True:
                with pytest.raises(trio_rpc.RpcError) as caught:
                    await pool.call("leave")
                assert isinstance(caught.value, trio_rpc.SessionBroken | trio_rpc.Unavailable)


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("exec:/no/such/program", "cannot start /no/such/program: No such file"),
        (command("raise SystemExit(1)"), "not started again"),
    ],
)
async def test_processes_that_never_serve_are_an_error_that_says_why(program, why):
    restart = trio_rpc.Restart(times=1, within=600, first_delay=0.01)
    with trio.fail_after(100), pytest.raises(trio_rpc.Unavailable, match=why) as caught:
        async with trio_rpc.open_pool(program, program, restart=restart):
            raise AssertionError("it must not be entered")
    assert caught.value.fate is trio_rpc.Fate.NOT_STARTED
