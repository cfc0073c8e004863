"""Calls of a pool: each kind of call, the choice of an instance, and repetition."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import types
from collections import Counter, deque
from collections.abc import AsyncIterator

import attrs
import msgspec
import pytest
import trio
from helpers.instances import FakeInstance, told
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Fate, SessionBroken, Unavailable
from trio_rpc.pool.attempts import Attempts, Budget


def pool_of(*fakes, **options):
    return trio_rpc.open_pool(told([each.instance for each in fakes]), **options)


async def all_open(pool):
    async for statuses in pool.states():
        if all(each.state == "open" for each in statuses):
            return


def proxy_of(pool):
    return pool.proxy("", FakeInstance)


async def test_each_kind_of_call(autojump_clock, three):
    async with pool_of(*three) as pool:
        proxy = proxy_of(pool)
        assert await proxy.where() in "abc"
        assert await pool.call("where") in "abc"
        assert await pool.call(proxy.where, abandon_on_cancel=True) in "abc"
        async with proxy.count(3) as numbers:
            assert [await numbers.receive() for _ in range(3)] == [0, 1, 2]
        async with pool.stream("count", 1) as numbers:
            assert await numbers.receive() == 0
        async with pool.duplex("echo") as channel:
            await channel.send("hello")
            assert await channel.receive() == "hello"
        await pool.notify("note", "n")
        await proxy.note("m")
        await wait_all_tasks_blocked()
        assert sum(each.runs.get(key, 0) for each in three for key in "nm") == 2
        async with trio.open_nursery() as nursery:
            assert await nursery.start(proxy.task) in "abc"
            nursery.cancel_scope.cancel()
        async with pool.open_scope() as scope:
            assert len({await scope.call(proxy.where) for _ in range(10)}) == 1
        async with pool.session() as session:
            names = {await session.proxy("", FakeInstance).where() for _ in range(10)}
            assert len(names) == 1
        assert await proxy.where() in "abc"


async def test_calls_are_shared_among_the_instances(autojump_clock, three):
    random.seed(1)
    async with pool_of(*three) as pool:
        await all_open(pool)
        names = Counter([await pool.call("where") for _ in range(300)])
        assert all(70 <= names[name] <= 130 for name in "abc")
        assert [each.calls for each in pool.instances()] == [names[name] for name in "abc"]


async def test_of_two_instances_the_one_with_fewer_calls_in_flight_is_called(
    autojump_clock, nursery, three
):
    async with pool_of(*three[:2]) as pool:
        await all_open(pool)
        async with trio.open_nursery() as callers:
            for _ in range(100):
                callers.start_soon(pool.call, "wait")
            await wait_all_tasks_blocked()
            assert [each.calls_in_flight for each in pool.instances()] == [50, 50]
            callers.cancel_scope.cancel()


async def test_a_call_that_an_instance_refuses_is_made_at_another_one(autojump_clock, three):
    async def full(call, proceed):
        raise trio_rpc.Overloaded("full")

    busy = FakeInstance("busy", filters=[full])
    async with trio.open_nursery() as nursery:
        await nursery.start(busy.serve)
        async with pool_of(busy, three[0]) as pool:
            await all_open(pool)
            assert {await pool.call("where") for _ in range(50)} == {"a"}
            status = next(each for each in pool.instances() if each.name == "busy")
            assert status.failures > 0
            assert not busy.runs
        nursery.cancel_scope.cancel()


async def test_a_call_that_all_instances_refuse_is_repeated_when_they_have_asked_for_it(
    autojump_clock, nursery
):
    times = []

    async def full(call, proceed):
        times.append(trio.current_time())
        if trio.current_time() < 25:
            raise trio_rpc.Overloaded("full", retry_after=10)
        return await proceed()

    busy = FakeInstance("busy", filters=[full])
    await nursery.start(busy.serve)
    async with pool_of(busy, patience=100) as pool:
        assert await pool.call("where") == "busy"
    assert len(times) in (3, 4)
    assert all(10 <= later - sooner <= 15 for sooner, later in itertools.pairwise(times))


async def test_an_error_that_any_instance_would_raise_has_a_note(autojump_clock, three):
    async with pool_of(*three) as pool:
        with pytest.raises(trio_rpc.MethodNotFound) as caught:
            await pool.call("nothing")
        assert caught.value.__notes__[0] in [f"called at {name}" for name in "abc"]
        with pytest.raises(trio_rpc.InvalidArguments):
            await pool.call("sleep", "soon")
        with pytest.raises(trio_rpc.EncodeError):
            await pool.call("where", object())
        with pytest.raises(ValueError, match="no"):
            await pool.call("fail")
        assert sum(each.calls for each in pool.instances()) == 4


async def test_an_unknown_fate_is_raised(autojump_clock, nursery, three):
    async with pool_of(three[0]) as pool:
        nursery.start_soon(kill_when_begun, three[0])
        with pytest.raises(SessionBroken) as caught:
            await pool.call("wait", "k")
        assert caught.value.fate is Fate.UNKNOWN
        assert three[0].runs == {"k": 1}


async def kill_when_begun(fake):
    await fake.begun.wait()
    fake.kill()


async def test_an_idempotent_method_is_called_again_after_an_unknown_fate(
    autojump_clock, nursery, three
):
    for each in three[1:]:
        each.go.set()
    async with pool_of(*three) as pool:
        await all_open(pool)
        nursery.start_soon(kill_when_begun, three[0])
        proxy = proxy_of(pool)
        assert {await proxy.wait_again(str(key)) for key in range(20)} == {"b", "c"}


async def test_an_idempotent_call_is_repeated_three_times_at_most(autojump_clock):
    fakes = [FakeInstance(str(number)) for number in range(6)]
    async with trio.open_nursery() as serving:
        for each in fakes:
            await serving.start(each.serve)
            serving.start_soon(kill_when_begun, each)
        async with pool_of(*fakes) as pool:
            await all_open(pool)
            with pytest.raises(SessionBroken) as caught:
                await proxy_of(pool).wait_again()
            assert caught.value.fate is Fate.UNKNOWN
            assert len(caught.value.__notes__) == 4
            assert sum(len(each.runs) for each in fakes) == 4
        serving.cancel_scope.cancel()


async def test_the_budget_bounds_repetitions(autojump_clock, nursery, three):
    three[1].go.set()
    async with pool_of(three[0], three[1], budget=0) as pool:
        await all_open(pool)
        nursery.start_soon(kill_when_begun, three[0])
        with pytest.raises(SessionBroken):
            for _ in range(30):
                await proxy_of(pool).wait_again()


async def test_an_async_generator_among_the_arguments_rules_repetition_out(autojump_clock, three):
    async def full(call, proceed):
        raise trio_rpc.Overloaded("full")

    async def numbers():
        yield 1

    busy = FakeInstance("busy", filters=[full])
    async with trio.open_nursery() as nursery:
        await nursery.start(busy.serve)
        async with pool_of(busy) as pool:
            with pytest.raises(trio_rpc.Overloaded):
                await pool.call("add_up", numbers())
            with pytest.raises(trio_rpc.Overloaded):
                await pool.call("add_up", [{"n": numbers()}])
        nursery.cancel_scope.cancel()


@dataclasses.dataclass
class Upload:
    numbers: AsyncIterator[int]


@attrs.define
class Parcel:
    upload: Upload


class Page(msgspec.Struct):
    numbers: AsyncIterator[int]


@pytest.mark.parametrize(
    "around",
    [
        Upload,
        lambda numbers: Parcel(Upload(numbers)),
        Page,
        lambda numbers: {"a": [Upload(numbers)]},
        lambda numbers: deque([numbers]),
        lambda numbers: types.MappingProxyType({"a": (numbers,)}),
    ],
    ids=["dataclass", "attrs", "Struct", "inside", "deque", "Mapping"],
)
async def test_an_async_generator_inside_of_an_argument_rules_repetition_out(
    autojump_clock, three, around
):
    """Otherwise another instance would get the rest of its items, as if they were all."""

    class Uploads:
        @trio_rpc.method(idempotent=True)
        async def take(self, upload: object) -> int: ...

    async def numbers():
        yield 1

    async with pool_of(*three) as pool:
        method, lost = pool.proxy("", Uploads).take, SessionBroken("lost", fate=Fate.UNKNOWN)
        budget = Budget(5, pool._roster)
        once = Attempts(method, (around(numbers()),), {}, budget)
        assert not once.may_follow(pool._choose(), lost)
        again = Attempts(method, (around([1, 2]),), {}, budget)
        assert again.may_follow(pool._choose(), lost)


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


async def test_a_frozen_exception_of_a_handler_arrives_as_itself_with_its_note(
    autojump_clock, three
):
    class Failing(FakeInstance):
        @trio_rpc.method(raises=(Frozen,))
        async def freeze(self) -> None:
            raise Frozen(5)

    failing = Failing("failing")
    async with trio.open_nursery() as nursery:
        await nursery.start(failing.serve)
        async with pool_of(failing) as pool:
            with pytest.raises(Frozen) as caught:
                await pool.proxy("", Failing).freeze()
        nursery.cancel_scope.cancel()
    assert caught.value.code == 5
    assert caught.value.__notes__ == ["called at failing"]


async def test_a_pool_and_its_states_belong_to_the_run_that_opened_it(autojump_clock, three):
    async def use_session(pool):
        async with pool.session():
            raise AssertionError("it must not open")

    async with pool_of(*three) as pool:
        states = pool.states()
        for use in (lambda: use_session(pool), lambda: anext(states), lambda: pool.call("where")):
            with pytest.raises(RuntimeError, match="belongs to the Trio run in thread"):
                await trio.to_thread.run_sync(trio.run, use)
        assert await pool.call("where") in "abc"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_waiting": 1.5}, "max_waiting must be a whole number, not 1.5"),
        ({"max_waiting": True}, "max_waiting must be a whole number, not True"),
        ({"nats": 5}, "nats must be a trio_rpc.nats.NatsOptions or None, not 5"),
        ({"resume": 5}, "resume must be True, False or a trio_rpc.Resume, not 5"),
        ({"ssl_context": True}, "ssl_context must be an ssl.SSLContext or None, not True"),
        ({"restart": None}, "restart must be a trio_rpc.Restart, not None"),
    ],
)
async def test_an_option_of_the_wrong_type_is_refused(options, text):
    with pytest.raises(TypeError, match=text):
        async with trio_rpc.open_pool("tcp://127.0.0.1:1", **options):
            raise AssertionError("it must not open")


async def test_a_call_waits_for_an_instance_and_then_runs(autojump_clock, nursery, three):
    async with pool_of(three[0]) as pool:
        three[0].kill()
        await trio.sleep(1)
        assert pool.instances()[0].state == "connecting"
        assert "not there" in pool.instances()[0].error
        assert 0 <= pool.instances()[0].retry_in <= 5
        async with trio.open_nursery() as callers:
            callers.start_soon(pool.call, "where", "late")
            await trio.sleep(3)
            await nursery.start(three[0].serve)
        assert three[0].runs == {"late": 1}


async def test_patience_bounds_the_wait(autojump_clock, nursery, three):
    async with pool_of(three[0], patience=7) as pool:
        three[0].kill()
        await trio.sleep(1)
        began = trio.current_time()
        with pytest.raises(Unavailable, match="no instance within 7 s for where: a: ") as caught:
            await pool.call("where")
        assert trio.current_time() - began == pytest.approx(7)
        assert caught.value.fate is Fate.NOT_STARTED


async def test_the_number_of_waiting_calls_is_bounded(autojump_clock, nursery, three):
    async with pool_of(three[0], max_waiting=2) as pool:
        three[0].kill()
        await trio.sleep(1)
        async with trio.open_nursery() as callers:
            callers.start_soon(pool.call, "where")
            callers.start_soon(pool.call, "where")
            await wait_all_tasks_blocked()
            with pytest.raises(trio_rpc.Overloaded):
                await pool.call("where")
            callers.cancel_scope.cancel()


async def test_law_16_a_caller_that_repeats_its_call_stops_no_other_task(autojump_clock, three):
    async with pool_of(three[0], max_waiting=0) as pool:
        three[0].kill()
        await trio.sleep(1)
        for kind in (trio_rpc.Overloaded, trio_rpc.SessionClosed):
            refused = 0
            with trio.move_on_after(1):
                while refused < 100_000:
                    try:
                        await pool.call("where")
                    except kind:
                        refused += 1
                    if refused == 100:
                        trio.lowlevel.current_clock().jump(2)
            assert 100 <= refused < 200
            pool._balancer.end()


async def test_one_deadline_holds_for_all_attempts(autojump_clock, nursery, three):
    async with pool_of(three[0]) as pool:
        three[0].kill()
        await trio.sleep(1)
        with trio.move_on_after(2) as scope:
            await pool.call("where")
        assert scope.cancelled_caught


async def test_the_second_attempt_has_the_rest_of_the_deadline(autojump_clock, nursery, three):
    async def full_after_a_while(call, proceed):
        await trio.sleep(3)
        raise trio_rpc.Overloaded("full")

    async def look_at_deadline(call, proceed):
        left.append(trio.current_effective_deadline() - trio.current_time())
        return await proceed()

    left = []
    busy = FakeInstance("busy", filters=[full_after_a_while])
    idle = FakeInstance("idle", filters=[look_at_deadline])
    for each in (busy, idle):
        await nursery.start(each.serve)
    async with pool_of(busy, idle) as pool:
        await all_open(pool)
        with trio.fail_after(10):
            while not busy_was_tried(pool):
                left.clear()
                await pool.call("where")
        assert left == [pytest.approx(7)]
        with trio.move_on_after(5) as scope:  # of which the attempt at "busy" uses 3 s
            while True:
                await pool.call("sleep", 1)
        assert scope.cancelled_caught
        assert trio.current_time() == pytest.approx(3 + 5)


def busy_was_tried(pool):
    return any(each.name == "busy" and each.failures for each in pool.instances())


async def test_filters_run_around_each_attempt_and_metadata_travels(autojump_clock, nursery):
    async def full(call, proceed):
        raise trio_rpc.Overloaded("full")

    async def seen_by_instance(call, proceed):
        seen.append(dict(call.metadata))
        return await proceed()

    async def count(call, proceed):
        tried.append(call.method)
        return await proceed()

    seen, tried = [], []
    busy = FakeInstance("busy", filters=[full])
    idle = FakeInstance("idle", filters=[seen_by_instance])
    for each in (busy, idle):
        await nursery.start(each.serve)
    async with pool_of(busy, idle, filters=[count]) as pool:
        await all_open(pool)
        calls = 0
        with trio_rpc.metadata(user="ann"):
            while not busy_was_tried(pool):
                calls += 1
                await pool.call("where")
        assert seen == [{"user": "ann"}] * calls
        assert tried == ["where"] * (calls + 1)


async def test_the_error_says_which_instance_has_another_interface(autojump_clock, nursery, three):
    class Other:
        @trio_rpc.method
        async def where(self, key: int) -> str:
            raise NotImplementedError

    old = FakeInstance("old", services=Other())
    await nursery.start(old.serve)
    async with pool_of(old, three[0]) as pool:
        await all_open(pool)
        errors = []
        while len(errors) < 2:
            for method in ("where", "sleep"):
                try:
                    await pool.call(method, *((0,) if method == "sleep" else ()))
                except (trio_rpc.InvalidArguments, trio_rpc.MethodNotFound) as exc:
                    errors.append(exc)
        assert all(exc.__notes__ == ["called at old"] for exc in errors)


async def test_the_error_of_several_attempts_names_each(autojump_clock, nursery):
    async def full(call, proceed):
        raise trio_rpc.Overloaded("full")

    busy = FakeInstance("busy", filters=[full])
    await nursery.start(busy.serve)
    async with pool_of(busy, patience=1) as pool:
        with pytest.raises((Unavailable, trio_rpc.Overloaded)) as caught:
            await pool.call("where")
        notes = caught.value.__notes__
        assert notes[0] == "attempt 1 at busy: Overloaded (not started): full"
        assert len(notes) > 1
        assert notes[-1].startswith(("attempt", "and "))


async def test_cancelling_waits_for_the_end_of_the_present_attempt(autojump_clock, three):
    class Slow(FakeInstance):
        @trio_rpc.method
        async def leave_slowly(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(3)

    slow = Slow("slow")
    async with trio.open_nursery() as nursery:
        await nursery.start(slow.serve)
        async with pool_of(slow) as pool:
            with trio.move_on_after(1):
                await pool.call("leave_slowly")
            assert trio.current_time() >= 4
        nursery.cancel_scope.cancel()


async def test_a_suspect_instance_is_called_only_if_there_is_no_other(autojump_clock, three):
    async with pool_of(*three[:2]) as pool:
        await all_open(pool)
        async with trio.open_nursery() as callers:
            for _ in range(2):
                callers.start_soon(pool.call, "wait")
            await wait_all_tasks_blocked()
            three[0].links[0].freeze()
            await trio.sleep(2)
            assert pool.instances()[0].state == "suspect"
            assert {await pool.call("where") for _ in range(20)} == {"b"}
            three[0].links[0].thaw()
            await trio.sleep(2)
            assert pool.instances()[0].state == "open"
            callers.cancel_scope.cancel()


ODD_URLS = (
    "",
    "localhost:5000",
    "tcp://",
    "tcp://host",
    "tcp://host:99999",
    "tcp://host:0",
    "tcp://a b:1",
    "tcp://a:1,tcp://b:1",
    "http://a",
    "dns+tcp://name",
    "dns+tcp://name:0",
    "dns+ws://name:1",
    "exec:",
    "exec:'unclosed",
    "nats://",
    "nats://host/a b",
)


async def test_a_pool_of_no_url_and_of_odd_ones(autojump_clock):
    with pytest.raises(ValueError, match="a pool needs a URL"):
        async with trio_rpc.open_pool():
            pass
    for odd in ODD_URLS:
        with pytest.raises(ValueError):
            async with trio_rpc.open_pool(odd):
                pass
    for odd in (5, None, ["tcp://localhost:1"], b"tcp://localhost:1"):
        with pytest.raises(TypeError):
            async with trio_rpc.open_pool(odd):
                pass
    with pytest.raises(TypeError):
        async with trio_rpc.open_pool("tcp://localhost:1", patience="long"):
            pass
    with pytest.raises(ValueError):
        async with trio_rpc.open_pool("tcp://localhost:1", patience=math.nan):
            pass
