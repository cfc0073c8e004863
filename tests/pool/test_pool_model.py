"""A pool against a model: hypothesis draws the events of instances and the actions of callers.

The steps run one after the other on a mock clock, over streams in memory. The model consists of the
handlers' own records, and of the times in which each instance could have taken a call. It knows
neither sessions nor attempts.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import trio
from helpers.instances import FakeInstance
from hypothesis import event, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

import trio_rpc
from trio_rpc import Fate, Limits, RemoteCancelled, RpcError, SessionBroken, Unavailable

LIMITS = Limits(cancel_grace=2, keepalive_interval=2, keepalive_pings=2)
PATIENCE = 20.0
RECOVERY = 15.0
"""Seconds after which a pool has a session with an instance that can be reached: the longest pause
between two attempts, and the time after which the loss of a frozen connection is noticed."""

NAMES = "abc"


class Fake(FakeInstance):
    """An instance that records which of its handlers run, and can refuse calls."""

    def __init__(self, name, records):
        super().__init__(name, filters=[self._filter], limits=LIMITS)
        self.records = records
        self.is_full = self.is_frozen = self.is_told = False
        self.able_since = math.inf
        """The time since which it could have taken a call."""

    async def _filter(self, call, proceed):
        if self.is_full and call.is_incoming:
            raise trio_rpc.Overloaded("full")
        return await proceed()

    @trio_rpc.method
    async def work(self, key: int, seconds: float) -> int:
        self.records.starts[key] += 1
        self.records.running.add((self.name, key))
        try:
            await trio.sleep(seconds)
        finally:
            self.records.running.discard((self.name, key))
        return key

    @trio_rpc.method(idempotent=True)
    async def work_again(self, key: int, seconds: float) -> int:
        return await self.work(key, seconds)

    @property
    def is_up(self):
        return self._listener is not None

    def note(self):
        """Note whether it can take calls from now on."""
        able = self.is_up and self.is_told and not self.is_full and not self.is_frozen
        if not able:
            self.able_since = math.inf
        elif self.able_since == math.inf:
            self.able_since = trio.current_time()


@dataclass
class Records:
    """The records of handlers and callers."""

    starts: Counter = field(default_factory=Counter)
    running: set = field(default_factory=set)
    outcomes: dict = field(default_factory=dict)
    scopes: dict = field(default_factory=dict)
    problems: list = field(default_factory=list)


class Machine:
    """Carries out the steps, and checks each outcome."""

    def __init__(self, nursery):
        self.records = Records()
        self.fakes = {name: Fake(name, self.records) for name in NAMES}
        self.nursery = nursery
        self.calls = 0
        self.ended = trio.Event()
        self.send, self.receive = trio.open_memory_channel(math.inf)

    def tell(self):
        for fake in self.fakes.values():
            fake.note()
        self.send.send_nowait([each.instance for each in self.fakes.values() if each.is_told])

    # ── the steps ────────────────────────────────────────────────────────────────────────────

    async def start(self, name):
        if not self.fakes[name].is_up:
            self.fakes[name].is_frozen = False
            await self.nursery.start(self.fakes[name].serve)

    async def drain(self, name):
        fake = self.fakes[name]
        if fake.is_up:
            server = fake.server
            stop = fake._stop

            async def drain():
                await server.drain(grace=5)
                stop.cancel()

            fake._listener = None
            self.nursery.start_soon(drain)

    async def kill(self, name):
        if self.fakes[name].is_up:
            self.fakes[name].kill()
            await trio.testing.wait_all_tasks_blocked()

    async def freeze(self, name):
        fake = self.fakes[name]
        if fake.is_up and fake.links:
            fake.is_frozen = True
            for link in fake.links:
                link.freeze()

    async def thaw(self, name):
        fake = self.fakes[name]
        if fake.is_frozen:
            for link in fake.links:
                link.thaw()
            fake.is_frozen = False

    async def fill(self, name):
        self.fakes[name].is_full = not self.fakes[name].is_full

    async def appear(self, name):
        self.fakes[name].is_told = True
        self.tell()

    async def vanish(self, name):
        self.fakes[name].is_told = False
        self.tell()

    async def wait(self, seconds):
        await trio.sleep(seconds)

    async def call(self, settings):
        method, seconds, limit = settings
        self.calls += 1
        self.nursery.start_soon(self._call, self.calls, method, seconds, limit)

    async def cancel(self, which):
        if self.records.scopes:
            keys = list(self.records.scopes)
            self.records.scopes[keys[which % len(keys)]].cancel()

    async def step(self, what, argument):
        await getattr(self, what)(argument)
        await trio.testing.wait_all_tasks_blocked()
        for fake in self.fakes.values():
            fake.note()

    async def all_have_ended(self):
        """Wait for the outcomes of all calls."""
        while self.records.scopes:
            await self.ended.wait()

    # ── the callers ──────────────────────────────────────────────────────────────────────────

    async def _call(self, key, method, seconds, limit):
        records, began = self.records, trio.current_time()
        proxy = self.pool.proxy("", FakeWork)
        outcome = "cancelled"
        with trio.CancelScope(deadline=began + limit) as scope:
            records.scopes[key] = scope
            try:
                assert await getattr(proxy, method)(key, seconds) == key
                outcome = "returned"
            except RpcError as exc:
                outcome = exc
        del records.scopes[key]
        self.ended.set()
        self.ended = trio.Event()
        assert key not in records.outcomes
        records.outcomes[key] = outcome
        self._check(key, method, began, outcome)
        event(outcome if isinstance(outcome, str) else f"{type(outcome).__name__} {outcome.fate}")

    def _check(self, key, method, began, outcome):
        starts, problems = self.records.starts[key], self.records.problems
        if method == "work" and starts > 1:
            problems.append(f"call {key} ran {starts} times")
        if outcome == "returned" and not starts:
            problems.append(f"call {key} has returned, and never ran")
        if not isinstance(outcome, RpcError):
            return
        if not isinstance(outcome, SessionBroken | Unavailable | RemoteCancelled):
            problems.append(f"call {key}: {outcome!r}")
        if outcome.fate is Fate.NOT_STARTED:
            if starts:
                problems.append(f"call {key} ran, and its error says that it did not")
            since = max(began, trio.current_time() - PATIENCE) + RECOVERY
            for fake in self.fakes.values():
                fake.note()
                if trio.current_time() >= since and fake.able_since <= since - RECOVERY:
                    problems.append(f"call {key}: {outcome!r}, though {fake.name} was there")


class FakeWork:
    """The interface of the callers."""

    @trio_rpc.method
    async def work(self, key: int, seconds: float) -> int: ...

    @trio_rpc.method(idempotent=True)
    async def work_again(self, key: int, seconds: float) -> int: ...


NAME = st.sampled_from(NAMES)
CALL = st.tuples(
    st.sampled_from(["work", "work_again"]),
    st.sampled_from([0.0, 0.5, 3.0]),
    st.sampled_from([math.inf, math.inf, 1.0, 10.0]),
)
STEP = st.one_of(
    st.tuples(st.just("call"), CALL),
    st.tuples(st.just("call"), CALL),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.1, 1.0, 10.0])),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    *(
        st.tuples(st.just(what), NAME)
        for what in ("start", "drain", "kill", "freeze", "thaw", "fill", "appear", "vanish")
    ),
)


async def play(steps):
    async with trio.open_nursery() as nursery:
        machine = Machine(nursery)
        for name in NAMES[:2]:
            await machine.appear(name)
            await machine.step("start", name)
        async with trio_rpc.open_pool(
            machine.receive, patience=PATIENCE, limits=LIMITS
        ) as machine.pool:
            for what, argument in steps:
                await machine.step(what, argument)
            records = machine.records
            with trio.fail_after(100):
                await machine.all_have_ended()
            assert set(records.outcomes) == set(range(1, machine.calls + 1))
            assert not records.problems, records.problems
            assert not any(each.calls_in_flight for each in machine.pool.instances())
        await trio.sleep(10)
        assert not machine.pool.instances() or all(
            each.state in ("connecting", "failed") for each in machine.pool.instances()
        )
        assert not records.running
        nursery.cancel_scope.cancel()


@settings(max_examples=40)
@given(st.lists(STEP, max_size=40))
def test_a_pool_agrees_with_the_model(steps):
    trio.run(play, steps, clock=MockClock(autojump_threshold=0))
