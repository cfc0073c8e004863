"""Drills with real NATS servers and processes: failures, and how soon they are noticed."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from helpers import nats_instance
from helpers.nats_server import nats_cluster, nats_server

import trio_rpc
from trio_rpc.nats import NatsOptions, open_nats
from trio_rpc.nats.addresses import parse_server

PROGRAM = Path(nats_instance.__file__)

pytestmark = pytest.mark.slow


@contextlib.asynccontextmanager
async def instance(*urls, **environment):
    """Run a process that serves ``market`` at URLs, and yield it."""
    process = await trio.lowlevel.open_process(
        [sys.executable, str(PROGRAM), "market", *urls],
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    try:
        with trio.fail_after(30):
            process.urls = (await process.stdout.receive_some()).decode().split()
        yield process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


@contextlib.asynccontextmanager
async def session_over(nats):
    """Open a session over a connection to NATS that the test knows."""
    async with nats.open_channel("market") as channel, trio_rpc.open_session(channel) as session:
        yield session


def report(*figures):
    """Print figures, which ``pytest -rP`` shows."""
    print(*figures)  # noqa: T201


class Load:
    """Calls without a pause, in some tasks."""

    def __init__(self, session, tasks=8):
        self.session = session
        self.tasks = tasks
        self.done = 0
        self.failed = []
        self.numbers = itertools.count()
        self.is_over = False

    async def _run(self):
        while not self.is_over:
            key = str(next(self.numbers))
            try:
                assert await self.session.call("market.run", key) == key
                self.done += 1
            except trio_rpc.RpcError as exc:
                self.failed.append(exc)
                await trio.sleep(0.01)

    async def during(self, action, seconds_after=1.0):
        """Make calls while something happens, and for some time after it; check them."""
        async with trio.open_nursery() as nursery:
            for _ in range(self.tasks):
                nursery.start_soon(self._run)
            await trio.sleep(0.3)
            before = self.done
            await action()
            await until(lambda: self.done >= before + 200)
            await trio.sleep(seconds_after)
            self.is_over = True
        assert self.failed == []
        assert await self.session.call("market.repeated") == 0
        return self.done


NODES = {
    "the client's node is killed": (0, "kill"),
    "the instance's node is killed": (1, "kill"),
    "the client's node is frozen": (0, "pause"),
    "the instance's node is frozen": (1, "pause"),
    "the client's node shuts down in lame duck mode": (0, "lame_duck"),
    "the instance's node shuts down in lame duck mode": (1, "lame_duck"),
}


@pytest.mark.parametrize("event", NODES)
async def test_no_call_fails_or_runs_twice_when(event, tmp_path):
    number, verb = NODES[event]
    async with nats_cluster(tmp_path) as nodes:
        async with (
            instance(f"{nodes[1].url}/market"),
            open_nats(nodes[0].url) as nats,
        ):
            await until_served(nats)

            async def happen():
                getattr(nodes[number], verb)()
                if number == 0:
                    left = (None, parse_server(f"127.0.0.1:{nodes[0].port}"))
                    await until(lambda: nats._client.server not in left)

            async with session_over(nats) as session:
                await Load(session).during(happen)


async def until_served(nats):
    """Wait until the whole cluster knows of the instance."""
    with trio.fail_after(20):
        while not await nats.find_instances("market"):  # noqa: ASYNC110 - it asks others
            await trio.sleep(0.05)


async def until(condition):
    with trio.fail_after(15):
        while not condition():  # noqa: ASYNC110 - it depends on another process
            await trio.sleep(0.02)


@pytest.mark.parametrize("seconds", [1, 10])
async def test_no_call_fails_or_runs_twice_while_the_only_server_is_down(seconds, tmp_path):
    async with (
        nats_server(tmp_path) as server,
        instance(f"{server.url}/market"),
        open_nats(server.url) as nats,
        session_over(nats) as session,
    ):

        async def restart():
            server.kill()
            await trio.sleep(seconds)
            await server.start()

        await Load(session).during(restart)


@contextlib.asynccontextmanager
async def session_with_instance(tmp_path):
    """Open a session that has made a call, and the process of the instance that answered."""
    async with (
        nats_server(tmp_path) as server,
        instance(f"{server.url}/market") as process,
        open_nats(server.url) as nats,
        nats.open_channel("market") as channel,
        trio_rpc.open_session(channel, on_end="keep") as session,
    ):
        await session.call("market.run", "first")
        yield session, process


@pytest.mark.parametrize("traffic", [False, True])
async def test_a_killed_instance_is_noticed(traffic, tmp_path):
    async with session_with_instance(tmp_path) as (session, process):
        await trio.sleep(1)
        started = trio.current_time()
        process.kill()
        if traffic:
            with pytest.raises(trio_rpc.SessionBroken):
                await session.call("market.wait")
        await session.wait_closed()
        seconds = trio.current_time() - started
        report(f"a killed instance was noticed after {seconds:.2f} s, traffic: {traffic}")
        assert seconds < 2.5  # 1.5, and a second in which a busy machine runs neither end


async def test_a_frozen_instance_is_noticed(tmp_path):
    async with session_with_instance(tmp_path) as (session, process):
        started = trio.current_time()
        process.send_signal(signal.SIGSTOP)
        await session.wait_closed()
        seconds = trio.current_time() - started
        report(f"a frozen instance was noticed after {seconds:.2f} s")
        assert 2 < seconds < 12


async def test_a_service_without_instances_is_an_error_at_once(tmp_path):
    async with nats_server(tmp_path) as server, open_nats(server.url) as nats:
        started = trio.current_time()
        with pytest.raises(ConnectionRefusedError, match="nobody serves the service 'market'"):
            async with nats.open_channel("market"):
                pass
        report(f"nobody there: {(trio.current_time() - started) * 1000:.1f} ms")


async def test_a_stopped_reader_costs_little_memory(tmp_path):
    """512 MiB are offered to a reader that does not read."""
    async with (
        nats_server(tmp_path) as server,
        instance(f"{server.url}/market") as process,
        open_nats(server.url) as nats,
        nats.open_channel("market") as channel,
        nats.open_channel("market") as other,
    ):
        async with trio_rpc.open_session(other) as session:
            await session.call("market.run", "first")
            before = server.memory(), resident(process.pid)
            async with (
                trio_rpc.open_session(channel, on_end="keep") as stopped,
                stopped.stream("market.blobs", 512, 2**20) as blobs,
            ):
                await anext(blobs)
                channel.receive = trio.sleep_forever  # this end reads nothing any more
                for _ in range(20):
                    await session.call("market.run", "again")
                    await trio.sleep(0.1)
                grown = [
                    (after - old) / 2**20
                    for after, old in zip(
                        (server.memory(), resident(process.pid)), before, strict=True
                    )
                ]
                report("MiB more in the server, in the sender:", grown)
                assert grown[0] < 16
                assert grown[1] < 32
                channel.abort("over")


def resident(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize(("seconds", "linger", "count"), [(3, "1", 400), (14, "6", 40)])
async def test_sessions_survive_a_blocked_loop(seconds, linger, count, tmp_path):
    options = NatsOptions(linger=float(linger), silence=30)
    async with (
        nats_server(tmp_path) as server,
        instance(f"{server.url}/market", LINGER=linger, SILENCE="30"),
        open_nats(server.url, options=options) as nats,
    ):
        sessions = []
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(count):
                sessions.append(await stack.enter_async_context(session_over(nats)))
            failed, done = [], 0

            async def use(session, number):
                nonlocal done
                for turn in range(3):
                    try:
                        await session.call("market.echo", bytes(10_000))
                        await session.call("market.run", f"{number} {turn}")
                        done += 1
                    except trio_rpc.RpcError as exc:
                        failed.append(exc)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(sessions[0].call, "market.block", seconds)
                for number, session in enumerate(sessions):
                    nursery.start_soon(use, session, number)
            report(done, "done,", len(failed), "failed")
            assert failed == []
            assert await sessions[1].call("market.repeated") == 0


async def test_a_server_that_accepts_only_16_kib(tmp_path):
    async with (
        nats_server(tmp_path, config="max_payload: 16384\n") as server,
        instance(f"{server.url}/market"),
        trio_rpc.connect(f"{server.url}/market") as session,
    ):
        data = bytes(range(256)) * 4096
        assert await session.call("market.echo", data) == data


async def test_a_session_resumes_at_its_own_instance(tmp_path):
    """After a break of the channel, the queue group's choice might be the other instance."""
    async with nats_server(tmp_path) as server, trio.open_nursery() as nursery:
        serve = functools.partial(trio_rpc.serve, resume=True)
        for _ in range(2):
            await nursery.start(serve, Count(), f"{server.url}/counts")
        async with trio_rpc.connect(f"{server.url}/counts", resume=True) as session:
            await session.call("more")
            for number in range(2, 8):
                carrier = session._core.channel._carrier
                carrier.abort("cut by the test")
                assert await session.call("more") == number
        nursery.cancel_scope.cancel()


class Count:
    def __init__(self):
        self.number = 0

    @trio_rpc.method
    async def more(self) -> int:
        self.number += 1
        return self.number
