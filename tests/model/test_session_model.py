"""Real sessions over a channel that delays and cuts, against a model.

Hypothesis draws a plan: the calls of both ends, their times, their time limits, and faults of the
connection. The plan runs on a mock clock. The model consists of the handlers' own records: which of
them have started, which are running, and how far each stream has advanced. It knows no messages, so
it cannot repeat a mistake of the protocol.
"""

# ruff: noqa: PT017 - the plan decides whether there is an error

from __future__ import annotations

import functools
import math
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import trio
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import trio_rpc
from trio_rpc import Fate, Limits, Overloaded, RemoteError, SessionBroken, current_call
from trio_rpc.testing import Failure, Faults, open_faulty_pair, open_session_pair

LIMITS = Limits(max_calls=6, stream_items=3, stream_bytes=300, max_packet=16_384)
"""Small limits, so that credit runs out and large results travel in pieces."""

CLEAN_UP = 0.3
"""Seconds that every handler needs to end after it has been cancelled."""


class Failed(Exception):
    """The declared exception of the handlers."""


@dataclass(frozen=True)
class Step:
    """One call by one end."""

    what: str
    side: int
    at: float
    time_limit: float
    count: int
    pause: float
    size: int
    fails: bool
    number: int = 0


@dataclass
class Records:
    """The records of the handlers at both ends and of their callers."""

    alive: dict[int, set[object]] = field(default_factory=lambda: defaultdict(set))
    starts: Counter = field(default_factory=Counter)
    over: set[int] = field(default_factory=set)
    fate: dict[int, Fate] = field(default_factory=dict)
    noted: Counter = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    may_break: bool = False
    may_freeze: bool = False

    @contextmanager
    def handler(self, number, node):
        """Record a running handler of that step."""
        if number in self.over and not self.may_break:
            self.problems.append(f"{node} of step {number} started after the step was over")
        self.starts[number, node] += 1
        if self.starts[number, node] > 1:
            self.problems.append(f"{node} of step {number} ran twice")
        self.alive[number].add(node)
        try:
            yield
        finally:
            self.alive[number].discard(node)


async def work(seconds):
    """Sleep, and take some time to end when cancelled."""
    try:
        await trio.sleep(seconds)
    except trio.Cancelled:
        with trio.CancelScope(shield=True):
            await trio.sleep(CLEAN_UP)
        raise


class Peer:
    """The service at both ends."""

    def __init__(self, records):
        self.records = records

    @trio_rpc.method(raises=(Failed,))
    async def plain(self, number, pause, size, fails):
        with self.records.handler(number, "plain"):
            await work(pause)
            if fails:
                raise Failed(number)
            return [number, b"x" * size]

    @trio_rpc.method
    async def nested(self, number, depth, pause):
        with self.records.handler(number, depth):
            await work(pause)
            if not depth:
                return 0
            try:
                below = await current_call().session.call("nested", number, depth - 1, pause)
            except Overloaded as exc:
                assert exc.fate is Fate.NOT_STARTED
                assert (number, depth - 1) not in self.records.starts
                return 0
            assert depth - 1 not in self.records.alive[number]
            return below + 1

    @trio_rpc.method
    async def callbacks(self, number, count, pause, on_step: Callable[[int], Awaitable[int]]):
        answers = []

        async def step(each):
            try:
                answers.append(await on_step(each))
            except Overloaded:
                answers.append(each)

        with self.records.handler(number, "callbacks"):
            async with trio.open_nursery() as nursery:
                for each in range(count):
                    nursery.start_soon(step, each)
                    await trio.lowlevel.checkpoint()
            await work(pause)
        return sorted(answers)

    @trio_rpc.stream(raises=(Failed,))
    async def stream(self, number, count, pause, size, fails) -> AsyncGenerator[object, None]:
        with self.records.handler(number, "stream"):
            for each in range(1, count + 1):
                await work(pause)
                self.records.noted[number, "produced"] = each
                ahead = each - self.records.noted[number, "consumed"]
                assert ahead <= LIMITS.stream_items + 1, "the generator ran ahead of its credit"
                yield [each, b"x" * size]
            if fails:
                raise Failed(number)

    @trio_rpc.method
    async def iterate(self, number, pause, numbers: AsyncIterator[int]):
        with self.records.handler(number, "iterate"):
            got = []
            async for each in numbers:
                got.append(each)
                await work(pause)
            return got

    @trio_rpc.duplex
    async def duplex(self, channel: trio.abc.Channel[object], number, pause):
        with self.records.handler(number, "duplex"):
            async for item in channel:
                await work(pause)
                await channel.send(item)

    @trio_rpc.method(raises=(Failed,))
    async def feed(self, number, pause, fails, *, task_status=trio.TASK_STATUS_IGNORED):
        with self.records.handler(number, "feed"):
            await work(pause)
            task_status.started(number)
            await work(pause)
            if fails:
                raise Failed(number)

    @trio_rpc.method
    async def subscribe(self, number, pause, on_tick: Callable[[int], Awaitable[None]]):
        async def tick():
            with self.records.handler(number, "ticks"):
                for each in range(1000):
                    await work(pause)
                    try:
                        await on_tick(each)
                    except Overloaded:
                        continue

        with self.records.handler(number, "subscribe"):
            await work(pause)
            current_call().nursery.start_soon(tick)

    @trio_rpc.notification
    async def note(self, number, pause):
        with self.records.handler(number, "note"):
            await work(pause)


class Actor:
    """Makes one call, and checks its outcome."""

    def __init__(self, records, session, step):
        self.records = records
        self.session = session
        self.peer = session.proxy("", Peer)
        self.step = step
        self.number = step.number

    async def plain(self):
        step = self.step
        result = await self.peer.plain(self.number, step.pause, step.size, step.fails)
        assert result == [self.number, b"x" * step.size]
        assert not step.fails

    async def nested(self):
        reached = await self.session.call("nested", self.number, self.step.count, self.step.pause)
        assert reached <= self.step.count

    async def callbacks(self):
        begun = []

        async def on_step(each):
            with self.records.handler(self.number, ("callback", each)):
                assert "callbacks" in self.records.alive[self.number]
                begun.append(each)
                await work(self.step.pause)
                return each

        answers = await self.session.call(
            "callbacks", self.number, self.step.count, self.step.pause, on_step
        )
        assert answers == list(range(self.step.count))
        assert begun == sorted(begun), "callbacks of one call start in order"

    async def stream(self):
        step = self.step
        got, leave_after = 0, step.count // 2 if step.size % 2 else math.inf
        async with self.peer.stream(
            self.number, step.count, step.pause, step.size, step.fails
        ) as items:
            async for each, data in items:
                got += 1
                self.records.noted[self.number, "consumed"] = got
                assert (each, data) == (got, b"x" * step.size), "in order, without gaps"
                await trio.sleep(step.pause / 2)
                if got >= leave_after:
                    return
        assert got == step.count
        assert not step.fails

    async def iterate(self):
        async def numbers():
            with self.records.handler(self.number, "numbers"):
                for each in range(self.step.count):
                    await work(self.step.pause)
                    yield each

        got = await self.session.call("iterate", self.number, self.step.pause, numbers())
        assert got == list(range(self.step.count))

    async def duplex(self):
        step, back = self.step, []
        async with self.peer.duplex(self.number, step.pause) as channel:

            async def send():
                with suppress(trio.BrokenResourceError):  # receiving raises the reason
                    for each in range(step.count):
                        await channel.send([each, b"x" * step.size])
                    await channel.send_eof()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                async for each, _ in channel:
                    back.append(each)
        assert back == list(range(step.count))

    async def feed(self):
        async with trio.open_nursery() as nursery:
            assert await nursery.start(
                self.peer.feed, self.number, self.step.pause, self.step.fails
            )
        assert not self.step.fails

    async def subscribe(self):
        ticks = []

        async def on_tick(each):
            with self.records.handler(self.number, ("tick", each)):
                ticks.append(each)
                await work(self.step.pause / 2)

        async with self.session.open_scope() as scope:
            await scope.call("subscribe", self.number, self.step.pause + 0.1, on_tick)
            await trio.sleep(self.step.count)
            if self.step.fails:
                raise Failed(self.number)
        assert ticks == sorted(ticks)

    async def note(self):
        await self.session.notify("note", self.number, self.step.pause)
        self.records.noted[self.number, "sent"] = 1


async def carry_out(records, sessions, step):
    """Run one step. It has one outcome, and no handler of it runs afterwards."""
    await trio.sleep(step.at)
    session = sessions[step.side]
    actor = Actor(records, session, step)
    outcomes = []
    with trio.move_on_after(step.time_limit) as scope:
        try:
            await getattr(actor, step.what)()
            outcomes.append("was done")
        except* Failed as group:
            assert step.fails
            assert all(exc.args == (step.number,) for exc in leaves(group))
            outcomes.append("failed")
        except* RemoteError as group:  # its handler had no credit for a call to the caller
            assert step.what in ("iterate", "duplex")
            assert all(exc.type_name == "trio_rpc.errors.Overloaded" for exc in leaves(group))
            outcomes.append("was refused")
        except* SessionBroken as group:
            assert records.may_break
            records.fate[step.number] = next(leaves(group)).fate
            outcomes.append("broke")
    if scope.cancelled_caught:
        outcomes.append("was cancelled")
    assert len(outcomes) == 1
    event(f"{step.what} {outcomes[0]}")
    if records.may_freeze or (records.may_break and session.statistics().state == "over"):
        return  # the other end may not know it yet
    if step.what != "note":
        records.over.add(step.number)
        assert not records.alive[step.number], "a handler outlived its caller's scope"


def leaves(group):
    """Yield the exceptions in a group of groups."""
    for exc in group.exceptions:
        if isinstance(exc, BaseExceptionGroup):
            yield from leaves(exc)
        else:
            yield exc


@dataclass(frozen=True)
class Plan:
    steps: list[Step]
    forth: Faults
    back: Faults
    seed: int


async def play(plan):
    failures = {each.failure for each in (plan.forth, plan.back) if each.fail_after is not None}
    records = Records(may_break=bool(failures), may_freeze=Failure.FREEZE in failures)
    before = trio.lowlevel.current_statistics().tasks_living
    sessions = ()
    async with open_faulty_pair(plan.forth, plan.back, seed=plan.seed) as pair:
        options = {"limits": LIMITS}
        try:
            async with open_session_pair(
                Peer(records),
                Peer(records),
                options_a=options,
                options_b=options,
                channels=(pair.first, pair.second),
            ) as sessions:
                async with trio.open_nursery() as nursery:
                    for step in plan.steps:
                        nursery.start_soon(carry_out, records, sessions, step)
                if not records.may_break:  # so that notifications arrive before the Goodbye
                    for session in sessions:
                        await session.ping()
        except SessionBroken:
            assert records.may_break
            event("could not be opened")
    assert not records.problems
    assert not any(records.alive.values()), "a handler outlived its session"
    for session in sessions:
        figures = session.statistics()
        assert (figures.calls_in, figures.calls_out, figures.notifications_in) == (0, 0, 0)
        assert (figures.tasks_waiting, figures.bytes_waiting) == (0, 0)
    await trio.testing.wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living == before
    for number, fate in records.fate.items():
        ran = any(started == number for started, _ in records.starts)
        assert not (ran and fate is Fate.NOT_STARTED), "a call that ran had the fate NOT_STARTED"
    for step in plan.steps:
        if step.what == "note" and records.noted[step.number, "sent"] and not records.may_break:
            assert records.starts[step.number, "note"] == 1


KINDS = (
    "plain", "nested", "callbacks", "stream", "iterate", "duplex", "feed", "subscribe", "note"
)  # fmt: skip
TENTHS = st.integers(0, 20).map(lambda tenths: tenths / 10)

steps = st.builds(
    Step,
    what=st.sampled_from(KINDS),
    side=st.integers(0, 1),
    at=TENTHS,
    time_limit=st.one_of(st.just(math.inf), TENTHS),
    count=st.integers(0, 7),
    pause=st.sampled_from([0.0, 0.0, 0.1, 1.0]),
    size=st.sampled_from([0, 1, 30, 300, 20_001]),
    fails=st.booleans(),
)


def faults(fail_after):
    return st.builds(
        Faults,
        latency=st.sampled_from([0.0, 0.05, 0.5]),
        jitter=st.sampled_from([0.0, 0.2]),
        max_slice=st.sampled_from([65536, 700]),
        fail_after=fail_after,
        failure=st.sampled_from(Failure),
    )


def plans(fail_after):
    numbered = st.lists(steps, max_size=8).map(
        lambda each: [Step(**{**vars(s), "number": n}) for n, s in enumerate(each, 1)]
    )
    return st.builds(
        Plan,
        steps=numbered,
        forth=faults(fail_after),
        back=faults(fail_after),
        seed=st.integers(0, 2**16),
    )


quick = functools.partial(
    settings, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)


async def play_in_time(plan):
    with trio.fail_after(10_000):  # the mock clock jumps to this time if all tasks wait
        await play(plan)


def run(plan):
    trio.run(play_in_time, plan, clock=trio.testing.MockClock(autojump_threshold=0))


@quick(max_examples=200)
@given(plans(st.none()))
def test_sessions_over_a_channel_that_delays(plan):
    run(plan)


@quick(max_examples=200)
@given(plans(st.one_of(st.none(), st.integers(0, 4000))))
def test_sessions_over_a_channel_that_delays_and_cuts(plan):
    run(plan)
