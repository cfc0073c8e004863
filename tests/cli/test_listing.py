"""Several instances on the command line: ``--also``, ``ping`` of each, and ``instances``."""

from __future__ import annotations

import json
import math

import pytest
import trio
from helpers.handlers import Echo

import trio_rpc
from trio_rpc.cli import calling
from trio_rpc.cli.connecting import Connection, Target
from trio_rpc.cli.exits import Unreachable, Usage
from trio_rpc.cli.listing import instances
from trio_rpc.cli.output import Output


class Numbers(Echo):
    @trio_rpc.stream
    async def up_to(self, end: int):
        for number in range(end):
            yield number


@pytest.fixture
async def two(nursery):
    """Return a target of two servers, and the servers."""
    urls = []
    for _ in range(2):
        urls += await nursery.start(trio_rpc.serve, {"e": Numbers()}, "tcp://127.0.0.1:0")
    yield Target(url=urls[0], connection=Connection(also=urls[1:]))
    nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
async def no_hang():
    """Bound the real time that a test over sockets may take."""
    with trio.fail_after(30):
        yield


async def test_a_call_goes_to_one_of_several_instances(two, capsys):
    down = Target(url="tcp://127.0.0.1:1", connection=Connection(also=[two.url]))
    for target in (two, down):
        await calling.call(target, "e.echo", '["hi"]', Output(as_json=True), patience=20)
        assert capsys.readouterr().out == '"hi"\n'


async def test_a_stream_comes_from_an_instance_that_can_be_reached(two, capsys):
    down = Target(url="tcp://127.0.0.1:1", connection=Connection(also=[two.url]))
    output = Output(as_json=True)
    await calling.stream(down, "e.up_to", "[3]", output, count=math.inf, patience=math.inf)
    assert capsys.readouterr().out.split() == ["0", "1", "2"]


async def test_each_instance_is_pinged(two, capsys):
    await calling.ping(two, Output(as_json=False), count=2, interval=0)
    lines = capsys.readouterr().out.splitlines()
    for url in (two.url, *two.connection.also):
        assert sum(line.startswith(f"{url}: ") for line in lines) == 2
    assert lines[-1].startswith("4 answers")


async def test_the_instances_are_listed(two, capsys):
    connection = Connection(also=[*two.connection.also, "tcp://127.0.0.1:1"])
    target = Target(url=two.url, connection=connection)
    await instances(target, Output(as_json=True), watch=False)
    listed = json.loads(capsys.readouterr().out)
    assert [each["state"] for each in listed] == ["open", "open", "connecting"]
    assert "cannot connect" in listed[2]["error"]
    await instances(target, Output(as_json=False), watch=False)
    assert capsys.readouterr().out.count("open") == 2


async def test_each_change_is_listed(nursery, capsys, tmp_path):
    url = f"unix://{tmp_path}/here"
    scope = await nursery.start(_serve, url)
    nursery.start_soon(lambda: instances(Target(url=url), Output(as_json=True), watch=True))
    lines = await _lines(capsys, 1)
    scope.cancel()
    lines += await _lines(capsys, 1)
    states = [json.loads(line)[0]["state"] for line in lines]
    assert states[0] == "open"
    assert set(states[1:]) <= {"draining", "connecting"}
    nursery.cancel_scope.cancel()


async def _serve(url, *, task_status):
    with trio.CancelScope() as scope:
        async with trio_rpc.open_server({"e": Echo()}, url):
            task_status.started(scope)
            await trio.sleep_forever()


async def _lines(capsys, count):
    lines = []
    while len(lines) < count:
        await trio.lowlevel.checkpoint()
        lines += capsys.readouterr().out.splitlines()
    return lines


async def test_no_instance_can_be_reached():
    with pytest.raises(Unreachable, match=r"no instance within .*cannot connect"):
        await instances(Target(url="tcp://127.0.0.1:1"), Output(as_json=False), watch=False)


@pytest.mark.parametrize("url", ["nonsense", "dns+tcp://name", "exec:"])
async def test_urls_that_cannot_be_parsed(url):
    with pytest.raises(Usage):
        await instances(Target(url=url), Output(as_json=False), watch=False)
