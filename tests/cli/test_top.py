"""The command top, and serve with --introspection and --allow-cancel."""

from __future__ import annotations

import json
import math

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc.cli import main
from trio_rpc.cli.connecting import Target
from trio_rpc.cli.exits import CallFailed, Exit, Usage
from trio_rpc.cli.listening import ServeOptions, listening
from trio_rpc.cli.output import Output
from trio_rpc.cli.top import _age, _view, cancel_call, show
from trio_rpc.introspection import CallInFlight, Introspection, OpenSession, Snapshot

NAMED = "introspection"


class Work:
    @trio_rpc.method
    async def hold(self) -> None:
        await trio.sleep_forever()


@pytest.fixture(autouse=True)
async def no_hang():
    with trio.fail_after(30):
        yield


@pytest.fixture
async def serving(tmp_path):
    """Return a function that serves, as the command does, with one call in flight."""
    async with trio.open_nursery() as nursery:

        async def serve(services=None, *, task_status, **options):
            chosen = ServeOptions(urls=["tcp://127.0.0.1:0"], **options)
            async with listening({"work": Work()} if services is None else services, chosen) as on:
                async with trio_rpc.connect(on.urls[0]) as session:
                    nursery.start_soon(session.call, "work.hold")
                    await wait_all_tasks_blocked(0.01)
                    task_status.started(Target(url=on.urls[0]))
                    await trio.sleep_forever()

        yield lambda *args, **options: nursery.start(lambda **at: serve(*args, **at, **options))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("services", [None, lambda _: {"work": Work()}])
async def test_a_view_is_printed(serving, capsys, services):
    target = await serving(services, introspection=True)
    await show(target, Output(as_json=False), every=None, named=NAMED)
    shown = capsys.readouterr().out
    assert "2 sessions · 1 call" in shown
    [line] = [each for each in shown.splitlines() if "work.hold" in each]
    assert line.split() == ["1-in-1", "work.hold", line.split()[2], "s", "running", "call"]
    await show(target, Output(as_json=True), every=None, named=NAMED)
    found = json.loads(capsys.readouterr().out)
    assert found["url"] == target.url
    assert [call["method"] for call in found["calls"]] == ["work.hold"]


async def test_a_live_view_is_printed_again_after_each_pause(serving, monkeypatch, capsys):
    target = await serving(introspection=True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with trio.move_on_after(1):
        await show(target, Output(as_json=False), every=0.01, named=NAMED)
    assert capsys.readouterr().out.count("work.hold") > 1


async def test_a_call_is_cancelled(serving, capsys):
    target = await serving(introspection=True, allow_cancel=True)
    with pytest.raises(CallFailed, match="no call in flight with the key 7-in-1"):
        await cancel_call(target, Output(as_json=False), "7-in-1", named=NAMED)
    async with trio_rpc.connect(target.url) as session, trio.open_nursery() as nursery:
        caught = []

        async def hold():
            try:
                await session.call("work.hold")
            except trio_rpc.RemoteCancelled as exc:
                caught.append(exc)

        nursery.start_soon(hold)
        await wait_all_tasks_blocked(0.01)
        calls = (await session.call("introspection.snapshot"))["calls"]
        await cancel_call(target, Output(as_json=True), calls[-1]["key"], named=NAMED)
    assert len(caught) == 1
    assert json.loads(capsys.readouterr().out)["cancelled"] == calls[-1]["key"]


async def test_cancelling_must_be_allowed(serving):
    target = await serving(introspection=True)
    with pytest.raises(CallFailed, match="does not allow"):
        await cancel_call(target, Output(as_json=False), "1-in-1", named=NAMED)


async def test_without_the_service_one_line_says_what_to_do(serving):
    target = await serving()
    with pytest.raises(CallFailed, match="serve with --introspection"):
        await show(target, Output(as_json=False), every=None, named=NAMED)


async def test_another_service_is_not_shown(nursery):
    class Odd:
        @trio_rpc.method
        async def snapshot(self) -> dict:
            return {"sessions": 5}

    [url] = await nursery.start(trio_rpc.serve, {"introspection": Odd()}, "tcp://127.0.0.1:0")
    with pytest.raises(CallFailed, match="another way"):
        await show(Target(url=url), Output(as_json=False), every=None, named=NAMED)
    nursery.cancel_scope.cancel()


async def test_the_name_of_the_service_must_be_free():
    options = ServeOptions(urls=["tcp://127.0.0.1:0"], introspection=True)
    with pytest.raises(Usage, match="already a service 'introspection'"):
        async with listening({NAMED: Work()}, options):
            pytest.fail("it listens")


async def test_cancelling_requires_the_service():
    options = ServeOptions(urls=["tcp://127.0.0.1:0"], allow_cancel=True)
    with pytest.raises(Usage, match="--allow-cancel also requires --introspection"):
        async with listening(Work(), options):
            pytest.fail("it listens")


async def test_a_gateway_shows_its_calls_as_well():
    options = ServeOptions(urls=["http://127.0.0.1:0", "tcp://127.0.0.1:0"], introspection=True)
    async with listening(Work(), options) as on:
        assert len(on.urls) == 2
        [tcp] = [url for url in on.urls if url.startswith("tcp")]
        async with trio_rpc.connect(tcp) as session:
            found = await session.proxy("introspection", Introspection).snapshot()
            assert found.figures["sessions"] == 1


@pytest.mark.parametrize("width", [20, 59, 60, 200])
@pytest.mark.parametrize("rows", [2, math.inf])
async def test_a_hostile_view_is_escaped_at_any_width(width, rows, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    odd = "\x1b[2J[red]" + "x" * 500
    call = CallInFlight(
        key=odd, session=odd, direction=odd, method=odd, kind=odd, state=odd, age=math.nan,
        parent=odd,
    )  # fmt: skip
    session = OpenSession(key=odd, peer=odd, calls_in=1, calls_out=0)
    snapshot = Snapshot(
        sessions=[session] * 3,
        calls=[call] * 3,
        sessions_in_all=5,
        calls_in_all=3,
        figures={odd: 1, "calls_queued": 7},
        may_cancel=False,
    )
    Output(as_json=False).show(_view(snapshot, rows, width))
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "queued" in shown
    assert ("… and 2 more" in shown) == math.isinf(rows)
    assert ("… and 3 more" in shown) != math.isinf(rows)
    assert ("parent" in shown) == (width >= 60)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.9, "59 s"),
        (60, "1:00"),
        (3599, "59:59"),
        (3723, "1:02:03"),
        (math.inf, "?"),
    ],
)
async def test_ages_are_short(seconds, shown):
    assert _age(seconds) == shown


@pytest.mark.parametrize(
    "arguments",
    [
        ["top", "tcp://127.0.0.1:1", "--every", "0"],
        ["top", "tcp://127.0.0.1:1", "--every", "nan"],
        ["top", "tcp://127.0.0.1:1", "--also", "tcp://127.0.0.1:2"],
        ["top", "dns+tcp://localhost:1"],
    ],
)
async def test_bad_usage_of_top(arguments, capsys):
    assert main(arguments) == Exit.USAGE
    assert capsys.readouterr().err.count("\n") == 1
