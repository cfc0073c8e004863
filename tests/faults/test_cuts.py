"""One conversation, cut after each of its bytes. No call runs twice, and each has one outcome."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager

import pytest
import trio
from helpers.resumable_network import ResumableNetwork

import trio_rpc
from trio_rpc import Fate, SessionBroken
from trio_rpc.testing import Failure, Faults, open_faulty_pair, open_session_pair


class CountingService:
    """A service that counts how often each call has run."""

    def __init__(self):
        self.runs = Counter()

    @trio_rpc.method
    async def add(self, label, a, b):
        self.runs[label] += 1
        await trio.sleep(0.01)
        return a + b

    @trio_rpc.method
    def inline(self, label, text):
        self.runs[label] += 1
        return text

    @trio_rpc.method
    async def ask(self, label, on_question):
        self.runs[label] += 1
        return await on_question(label)

    @trio_rpc.stream
    async def count(self, label, least, most):
        self.runs[label] += 1
        for number in range(least, most):
            yield number

    @trio_rpc.notification
    async def note(self, label):
        self.runs[label] += 1


async def run_conversation(session, outcomes):
    """Make one call of each kind, some of them at once, and record the outcome of each."""

    async def outcome(label, function, expected):
        assert label not in outcomes
        try:
            result = await function()
        except SessionBroken as exc:
            outcomes[label] = exc
        else:
            assert result == expected
            outcomes[label] = "done"

    async def answer(label):
        return f"asked: {label}"

    async def take():
        async with session.stream("count", "stream", 3, 6) as numbers:
            return [number async for number in numbers]

    async def cancelled():
        with trio.move_on_after(0.005):
            await session.call("add", "cancelled", 1, 2)
        return "left"

    async with trio.open_nursery() as nursery:
        for label, function, expected in (
            ("first", lambda: session.call("add", "first", 1, 2), 3),
            ("inline", lambda: session.call("inline", "inline", "x" * 50), "x" * 50),
            ("asked", lambda: session.call("ask", "asked", answer), "asked: asked"),
            ("cancelled", cancelled, "left"),
            ("stream", take, [3, 4, 5]),
        ):
            nursery.start_soon(outcome, label, function, expected)
    await outcome("note", lambda: session.notify("note", "note"), None)
    await outcome("last", lambda: session.call("add", "last", 3, 4), 7)


STEPS = {Failure.CUT: 1, Failure.RESET: 3, Failure.FREEZE: 5}
"""Bytes between two cuts. CUT is tried at every byte."""

PARTS = 6
"""The number of parts of each test that tries every byte. Each part takes seconds."""

LABELS = {"first", "inline", "asked", "cancelled", "stream", "note", "last"}


@asynccontextmanager
async def plain_pair(service, faults):
    """Open two sessions over a connection that is never replaced."""
    async with (
        open_faulty_pair(**faults) as pair,
        open_session_pair(None, service, channels=(pair.first, pair.second), on_end="keep") as (
            session,
            _,
        ),
    ):
        yield session, pair.link


@asynccontextmanager
async def resumed_pair(service, faults):
    """Open two sessions over connections, the first of which fails."""
    async with trio.open_nursery() as nursery:
        network = ResumableNetwork(nursery)
        for direction, each in faults.items():
            setattr(network, direction, each)
        channels = await network.pair()
        network.forth = network.back = Faults()
        async with open_session_pair(None, service, channels=channels) as (session, _):
            yield session, network.links[0]
        nursery.cancel_scope.cancel()


async def play(pair, faults):
    """Run the conversation, and return the outcomes, the runs and the bytes that passed."""
    service, outcomes, opened, link = CountingService(), {}, None, None
    with trio.fail_after(1000):
        try:
            async with pair(service, faults) as (session, link):
                await session.ping()
                opened = tuple(link.passed)
                await run_conversation(session, outcomes)
                await session.ping()
        except* SessionBroken:
            pass
    await trio.testing.wait_all_tasks_blocked()
    return outcomes, service.runs, (opened, link)


def play_in(pair, direction=None, at=None, failure=Failure.CUT):
    faults = {} if direction is None else {direction: Faults(fail_after=at, failure=failure)}
    clock = trio.testing.MockClock(autojump_threshold=0)
    return trio.run(play, pair, faults, clock=clock)


def lengths(pair, direction):
    """Return how many bytes that end sends until the session is open, and in all."""
    outcomes, runs, (opened, link) = play_in(pair)
    assert set(outcomes) == set(runs) == LABELS
    assert set(outcomes.values()) == {"done"}
    return opened[direction == "back"], link.passed[direction == "back"]


def cut_positions(first, last, failure, part):
    """Return the byte counts after which to cut, for one of the parts."""
    return range(first, last, STEPS[failure])[part::PARTS]


def test_the_parts_cover_every_position():
    positions = [at for part in range(PARTS) for at in cut_positions(7, 1000, Failure.RESET, part)]
    assert sorted(positions) == list(range(7, 1000, STEPS[Failure.RESET]))


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("direction", ["forth", "back"])
@pytest.mark.parametrize("failure", [Failure.CUT, Failure.RESET])
def test_a_cut_at_any_byte_fails_the_calls_in_flight_and_runs_no_call_twice(
    direction, failure, part
):
    for at in cut_positions(0, lengths(plain_pair, direction)[1], failure, part):
        outcomes, runs, _ = play_in(plain_pair, direction, at, failure)
        assert set(runs) <= LABELS
        assert all(count == 1 for count in runs.values())
        for label, outcome in outcomes.items():
            if outcome == "done":
                assert runs[label] == 1 or label in ("cancelled", "note")
            elif outcome.fate is Fate.NOT_STARTED:
                assert runs[label] == 0
        assert not outcomes or set(outcomes) == LABELS, "every call has an outcome"


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("direction", ["forth", "back"])
@pytest.mark.parametrize("failure", [Failure.CUT, Failure.RESET, Failure.FREEZE])
def test_with_resume_a_cut_at_any_byte_fails_no_call(direction, failure, part):
    accepted = 80  # before that, there is no session to resume
    opened, whole = lengths(resumed_pair, direction)
    # A peer that falls silent before the session is open is found only by the handshake timeout.
    first = opened if failure is Failure.FREEZE else accepted
    for at in cut_positions(first, whole, failure, part):
        outcomes, runs, _ = play_in(resumed_pair, direction, at, failure)
        assert set(outcomes) == LABELS
        assert set(outcomes.values()) == {"done"}, f"cut after byte {at}"
        assert all(runs[label] == 1 for label in LABELS - {"cancelled"})
        assert runs["cancelled"] <= 1
