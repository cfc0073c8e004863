"""The traces of both ends are joined to calls, and drawn."""

from __future__ import annotations

import dataclasses
import re
import sys

import pytest
import trio
from helpers.traces import ALL, CALLEE, CALLER, Logger

from trio_rpc.testing import open_session_pair
from trio_rpc.tracing import STEPS, TraceEvent, clock_offset, draw_sequence, join, sequence_text


@pytest.fixture
async def traces():
    """Make the traces of some calls in both directions."""
    here, there = [], []
    async with open_session_pair(
        Logger(), Logger(), options_a={"trace": there.append}, options_b={"trace": here.append}
    ) as (callee, caller):
        await caller.call("slow")
        await caller.notify("note", "x")
        await caller.call("with_callback", str.upper)
        await callee.call("plain", "x")
    return here, there


def shifted(events, seconds):
    return [dataclasses.replace(event, time=event.time + seconds) for event in events]


async def test_the_steps_of_both_ends_are_joined_in_order(autojump_clock, traces):
    """A trace has ids, methods, sizes and times, and the traces of both ends can be joined."""
    calls = join(*traces)
    assert [(call.method, call.is_incoming) for call in calls] == [
        ("slow", False),
        ("with_callback", False),
        ("callback 0 of with_callback", True),
        ("plain", True),
    ]
    for call in calls:
        assert list(call.steps) == ALL
        assert call.is_complete
        assert call.outcome == "result"
        assert {step for step, event in call.steps.items() if event.is_incoming} == {*CALLEE}
    assert len({call.session for call in calls}) == 1
    # Both ends number their calls from 1, so the id alone does not tell them apart.
    assert [call.call for call in calls] == [1, 2, 1, 2]


async def test_the_other_end_may_come_first(autojump_clock, traces):
    here, there = traces
    calls = join(there, here)
    assert [call.is_incoming for call in calls] == [True, True, False, False]
    assert all(call.is_complete for call in calls)


async def test_the_gaps_are_the_seconds_between_the_steps(autojump_clock, traces):
    slow = join(*traces)[0]
    gaps = slow.gaps()
    assert list(gaps) == ALL[1:]
    assert gaps[11] == pytest.approx(1)
    assert sum(gaps.values()) == pytest.approx(slow.duration) == pytest.approx(1)


async def test_the_trace_of_one_end_alone_has_its_steps(autojump_clock, traces):
    here, there = traces
    mine, theirs = join(here, [])[0], join([], there)[0]
    assert list(mine.steps) == CALLER
    assert list(theirs.steps) == CALLEE
    assert not mine.is_complete
    assert mine.gaps()[15] == pytest.approx(1)


async def test_a_clock_that_is_ahead_can_be_corrected(autojump_clock, traces):
    here, there = traces
    ahead = shifted(there, 5)
    assert clock_offset(join(here, ahead)) == pytest.approx(5)
    assert clock_offset(join(ahead, here)) == pytest.approx(-5)
    corrected = join(here, ahead, offset=5)
    assert [call.duration for call in corrected] == pytest.approx(
        [call.duration for call in join(here, there)]
    )


async def test_without_a_complete_call_the_clocks_cannot_be_compared(autojump_clock, traces):
    with pytest.raises(ValueError, match="no call has all its steps"):
        clock_offset(join(traces[0], []))


def test_calls_of_different_sessions_are_told_apart():
    def event(session, step, *, is_incoming, call=1):
        return TraceEvent(step, 1.0, session, is_incoming, call, 1, "m", 0, "")

    mine = [event(session, 5, is_incoming=False) for session in ("x", "y")]
    theirs = [event(session, 6, is_incoming=True) for session in ("y", "x")]
    calls = join(mine, theirs)
    assert sorted(call.session for call in calls) == ["x", "y"]
    assert all(list(call.steps) == [5, 6] for call in calls)


# ── pictures ─────────────────────────────────────────────────────────────────────────────────


async def test_a_sequence_diagram_has_each_step_at_its_end(autojump_clock, traces):
    lines = sequence_text(join(*traces)[0]).splitlines()
    assert re.fullmatch(r"slow, call 1 of session [0-9a-f-]+: result after 1000\.\d+ ms", lines[0])
    rows = lines[3:]
    assert [int(re.search(r"ms +(\d+) ", row)[1]) for row in rows] == ALL
    middle = lines[2].index("callee")
    for step, row in zip(ALL, rows, strict=True):
        assert STEPS[step] in row
        assert (row.index(" ms ") > middle) is (step in CALLEE)
    assert [step for step, row in zip(ALL, rows, strict=True) if "-->" in row] == [5]
    assert [step for step, row in zip(ALL, rows, strict=True) if "<--" in row] == [14]


async def test_a_diagram_of_one_end_has_no_arrows(autojump_clock, traces):
    text = sequence_text(join(traces[0], [])[0])
    assert "-->" not in text
    assert "<--" not in text


async def test_a_diagram_is_drawn_as_svg_with_its_texts(autojump_clock, traces, tmp_path):
    pytest.importorskip("matplotlib", reason="only pictures need it")
    call = join(*traces)[0]
    evil = dataclasses.replace(call, method="$x$ <b>\n")
    for path, drawn in ((tmp_path / "a.svg", call), (tmp_path / "b.svg", evil)):
        await trio.to_thread.run_sync(draw_sequence, drawn, path)
    text = (tmp_path / "a.svg").read_text()
    assert all(name in text for name in (*STEPS.values(), "slow, call 1", "caller", "callee"))
    assert r"$x$ &lt;b&gt;\n" in (tmp_path / "b.svg").read_text()
    draw_sequence(call, tmp_path / "c.svg")
    assert (tmp_path / "c.svg").read_text() == text


async def test_without_matplotlib_the_error_says_what_to_install(
    autojump_clock, traces, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match="pip install matplotlib"):
        draw_sequence(join(*traces)[0], tmp_path / "a.svg")
