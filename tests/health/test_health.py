"""The health service, and the command that asks it."""

from __future__ import annotations

import json

import pytest
import trio
from helpers.cli_tools import run_cli
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc.cli.exits import Exit
from trio_rpc.health import Health
from trio_rpc.testing import open_session_pair


async def test_a_program_is_serving_until_it_says_otherwise():
    health = Health()
    async with open_session_pair(None, {"health": health}) as (session, _):
        proxy = session.proxy("health", Health)
        assert await proxy.check() == "serving"
        assert await proxy.check("market") == "unknown"
        health.set("", "draining")
        health.set("market", "not_serving")
        assert await proxy.check("") == "draining"
        assert await proxy.check("market") == "not_serving"
        health.set("market", "unknown")
        assert await proxy.check("market") == "unknown"


async def test_a_watcher_sees_the_status_and_each_change(autojump_clock):
    health, seen = Health(), []
    async with open_session_pair(None, {"health": health}) as (session, _):

        async def watch():
            async with session.proxy("health", Health).watch("market") as statuses:
                async for status in statuses:
                    seen.append(status)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await wait_all_tasks_blocked()
            assert seen == ["unknown"]
            for status in ("serving", "serving", "not_serving", "unknown"):
                health.set("market", status)
                health.set("another", status)
                await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert seen == ["unknown", "serving", "not_serving", "unknown"]


async def test_a_status_that_is_watched_is_set_only_in_the_run_of_the_watchers():
    health = Health()
    await trio.to_thread.run_sync(health.set, "", "not_serving")  # nobody watches yet
    async with open_session_pair(None, {"health": health}) as (session, _):
        async with session.proxy("health", Health).watch() as statuses:
            assert await statuses.receive() == "not_serving"
            with pytest.raises(RuntimeError, match="belongs to the Trio run"):
                await trio.to_thread.run_sync(health.set, "", "draining")
            assert health.get() == "not_serving"
            await trio.to_thread.run_sync(trio.from_thread.run_sync, health.set, "", "serving")
            assert await statuses.receive() == "serving"


def test_a_status_can_be_set_in_a_later_run():
    health = Health()

    async def watch():
        async with open_session_pair(None, {"health": health}) as (session, _):
            async with session.proxy("health", Health).watch() as statuses:
                return await statuses.receive()

    assert trio.run(watch) == "serving"
    health.set("", "draining")
    assert trio.run(watch) == "draining"


async def test_the_other_end_cannot_set_a_status():
    async with open_session_pair(None, {"health": Health()}) as (session, _):
        for name in ("set", "get", "_statuses"):
            with pytest.raises(trio_rpc.MethodNotFound):
                await session.call(f"health.{name}", "", "draining")


@pytest.mark.parametrize("status", ["SERVING", "", None, 1])
def test_a_bad_status_is_refused(status):
    health = Health()
    with pytest.raises(ValueError, match="is not a status"):
        health.set("", status)
    assert health.get() == "serving"


def test_a_service_is_named_by_text():
    with pytest.raises(TypeError, match="named by a str"):
        Health().set(None, "serving")


class Silent:
    @trio_rpc.method
    async def check(self, service: str) -> str:
        await trio.sleep_forever()


@pytest.fixture
async def url(nursery):
    health = Health()
    health.set("market", "not_serving")
    health.set("new", "draining")
    services = {"health": health, "other": health, "silent": Silent(), "": health}
    [url] = await nursery.start(trio_rpc.serve, services, "tcp://127.0.0.1:0")
    yield url
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("options", "code", "shown"),
    [
        ([], Exit.OK, "serving"),
        (["--service", "market"], Exit.FAILED, "not_serving"),
        (["--service", "new"], Exit.FAILED, "draining"),
        (["--service", "nothing"], Exit.FAILED, "unknown"),
        (["--named", "other"], Exit.OK, "serving"),
        (["--named", ""], Exit.OK, "serving"),
    ],
)
async def test_the_command_prints_the_status_and_exits_with_its_code(url, options, code, shown):
    done = await run_cli("health", url, *options)
    assert (done.returncode, done.stdout.decode().strip()) == (code, shown)
    assert done.stderr == b""


async def test_the_command_prints_json(url):
    done = await run_cli("health", url, "--service", "market", "--json")
    assert done.returncode == Exit.FAILED
    found = json.loads(done.stdout)
    assert found == {"url": url, "service": "market", "status": "not_serving"}


@pytest.mark.parametrize(
    ("options", "code", "complaint"),
    [
        (["--named", "nothing"], Exit.FAILED, "nothing.check"),
        (["--named", "silent", "--timeout", "0.2"], Exit.FAILED, "no answer within 0.2 s"),
        (["--timeout", "0"], Exit.USAGE, "--timeout must be"),
        (["--timeout", "nan"], Exit.USAGE, "--timeout must be"),
    ],
)
async def test_a_failed_check_prints_one_line_and_exits_with_its_code(
    url, options, code, complaint
):
    done = await run_cli("health", url, *options)
    assert done.returncode == code
    assert complaint in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1
    assert done.stdout == b""


async def test_without_a_server_the_exit_code_says_unreachable():
    done = await run_cli("health", "tcp://127.0.0.1:1")
    assert done.returncode == Exit.UNREACHABLE
    assert done.stderr.count(b"\n") == 1


async def test_a_server_that_says_nothing_is_unreachable(nursery):
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    done = await run_cli("health", f"tcp://127.0.0.1:{port}", "--timeout", "0.2")
    assert done.returncode == Exit.UNREACHABLE
    assert b"no answer within 0.2 s" in done.stderr
    await listeners[0].aclose()
