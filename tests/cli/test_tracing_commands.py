"""``--trace`` of the commands prints the steps of the calls on standard error."""

from __future__ import annotations

import re

import pytest
from helpers.cli_tools import run_cli
from helpers.traces import ALL, CALLER, Logger

import trio_rpc
from trio_rpc.cli.connecting import Target, connected
from trio_rpc.cli.listening import ServeOptions, listening
from trio_rpc.tracing import STEPS


def steps_in(text):
    """Return the steps that the lines of a trace show."""
    found = [re.search(r" (\d+) (\w[\w ]*?)(?:  |$)", line[45:]) for line in text.splitlines()]
    assert all(STEPS[int(each[1])] == each[2] for each in found)
    return [int(each[1]) for each in found]


async def test_call_and_serve_print_the_steps_of_their_end(capsys):
    options = ServeOptions(urls=["tcp://127.0.0.1:0"], trace=True)
    async with listening({"logger": Logger()}, options) as server:
        [url] = server.urls
        async with connected(Target(url=url, trace=True)) as session:
            await session.call("logger.info", "app start")
    assert sorted(steps_in(capsys.readouterr().err)) == ALL


async def test_without_the_option_nothing_is_printed(capsys):
    options = ServeOptions(urls=["tcp://127.0.0.1:0"])
    async with listening({"logger": Logger()}, options) as server:
        async with connected(Target(url=server.urls[0])) as session:
            await session.call("logger.info", "app start")
    assert not capsys.readouterr().err


@pytest.mark.slow
async def test_the_commands_take_the_option():
    async with trio_rpc.open_server({"logger": Logger()}, "tcp://127.0.0.1:0") as server:
        [url] = server.urls
        done = await run_cli("call", url, "logger.info", '["app start"]', "--trace")
        assert (done.returncode, done.stdout) == (0, b"null\n")
        assert steps_in(done.stderr.decode()) == CALLER
        done = await run_cli("stream", url, "logger.lines_so_far", "--trace", "--json")
        assert (done.returncode, done.stdout) == (0, b'"one"\n"two"\n')
        assert steps_in(done.stderr.decode()) == CALLER
    done = await run_cli("serve", "--help")
    assert b"--trace" in done.stdout
