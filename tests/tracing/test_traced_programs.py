"""Programs that are traced: by an environment variable, as a child process, over real sockets."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import sys

import pytest
import trio
from helpers.cli_tools import ROOT
from helpers.traces import ALL, CALLEE, Logger, steps

import trio_rpc
from trio_rpc.tracing import TraceEvent, WireLog, join, print_trace
from trio_rpc.tracing.default import trace_of

CHILD = """
import dataclasses, functools, json, sys
import trio, trio_rpc

def trace(event):
    print(json.dumps(dataclasses.asdict(event)), file=sys.stderr, flush=True)

class Logger:
    @trio_rpc.method
    async def info(self, line: str) -> None:
        await trio.lowlevel.checkpoint()

trio.run(functools.partial(trio_rpc.serve_parent, {"logger": Logger()}, trace=trace))
"""

PROGRAM = """
import trio, trio_rpc

class Logger:
    @trio_rpc.method
    async def info(self, line: str) -> None:
        print("logged")

async def main():
    async with (
        trio_rpc.open_server({"logger": Logger()}, "tcp://127.0.0.1:0") as server,
        trio_rpc.connect(server.urls[0]) as session,
    ):
        await session.call("logger.info", "app start")

trio.run(main)
"""

LINE = re.compile(
    r"\d\d:\d\d:\d\d\.\d{6} [0-9a-f-]{17} (out|in )\s+(\(1\)|1) logger.info\s+(\d+) \w.*"
)


@pytest.mark.parametrize("scheme", ["tcp", "ws"])
async def test_the_call_over_a_network_has_its_nineteen_steps(scheme):
    here, there = [], []
    with trio.fail_after(60):
        async with (
            trio_rpc.open_server(
                {"logger": Logger()}, f"{scheme}://127.0.0.1:0", trace=there.append
            ) as server,
            trio_rpc.connect(server.urls[0], trace=here.append) as session,
        ):
            logger = session.proxy("logger", Logger)
            await logger.info("app start")
    [call] = join(here, there)
    assert list(call.steps) == ALL
    times = [event.time for event in call.steps.values()]
    assert times == sorted(times)


@pytest.mark.slow
async def test_the_call_to_a_child_process_has_its_nineteen_steps(caplog):
    here = []
    with trio.fail_after(60):
        async with trio_rpc.open_process(
            [sys.executable, "-c", CHILD], trace=here.append
        ) as session:
            logger = session.proxy("logger", Logger)
            await logger.info("app start")
    lines = [record.message for record in caplog.records if record.name == "trio_rpc.process"]
    there = [TraceEvent(**json.loads(line[line.index("{") :])) for line in lines]
    assert steps(there) == CALLEE
    [call] = join(here, there)
    assert list(call.steps) == ALL
    # Both programs have the same clock, though their Trio runs do not.
    times = [event.time for event in call.steps.values()]
    assert times[-1] - times[0] < 30
    assert max(times) - min(times) == pytest.approx(call.duration, abs=0.1)


async def run_program(value, tmp_path):
    program = tmp_path / "program.py"
    await trio.Path(program).write_text(PROGRAM)
    run = functools.partial(
        trio.run_process,
        [sys.executable, str(program)],
        capture_stdout=True,
        capture_stderr=True,
        env={"PYTHONPATH": str(ROOT), "TRIO_RPC_TRACE": value},
    )
    with trio.fail_after(60):
        finished = await run()
    assert finished.stdout == b"logged\n"
    return finished.stderr.decode().splitlines()


@pytest.mark.slow
async def test_a_variable_prints_the_steps_of_any_program(tmp_path):
    lines = await run_program("1", tmp_path)
    found = [LINE.fullmatch(line) for line in lines]
    assert all(found)
    assert [int(each[3]) for each in found] == ALL
    assert not await run_program("0", tmp_path)


@pytest.mark.slow
async def test_a_variable_prints_the_messages_of_any_program(tmp_path):
    lines = await run_program("wire", tmp_path)
    for direction in "<>":
        sent = [line.split()[5] for line in lines if line.split()[2] == direction]
        assert {"Hello", "Welcome", "Request", "Reply", "Goodbye"} <= {*sent}


def test_the_variable_chooses_the_trace():
    assert trace_of({}) is None
    assert trace_of({"TRIO_RPC_TRACE": ""}) is None
    assert trace_of({"TRIO_RPC_TRACE": "0"}) is None
    assert trace_of({"TRIO_RPC_TRACE": "1"}) is print_trace
    assert isinstance(trace_of({"TRIO_RPC_TRACE": "wire"}), WireLog)


def test_an_event_can_be_written_as_json_and_read_again():
    event = TraceEvent(5, 1.5, "a-b", False, 1, 1, "logger.info", 26, "waiting")
    assert TraceEvent(**json.loads(json.dumps(dataclasses.asdict(event)))) == event
