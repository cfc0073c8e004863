"""The instances of a pool appear, drain, break, refuse, vanish and reconnect."""

from __future__ import annotations

import logging

import pytest
import trio
from helpers.instances import FakeInstance, told
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Fate, Refused, SessionBroken, Unavailable


def pool_of(*fakes, **options):
    return trio_rpc.open_pool(told([each.instance for each in fakes]), **options)


async def until(pool, condition):
    """Wait until the statuses of the instances, by name, meet a condition."""
    async for statuses in pool.states():
        if condition({each.name: each for each in statuses}):
            return


def all_are(state):
    return lambda by_name: all(each.state == state for each in by_name.values())


# ── entering and leaving ─────────────────────────────────────────────────────────────────────


async def test_the_block_waits_for_the_first_instance(autojump_clock, nursery):
    late = FakeInstance("late")

    @nursery.start_soon
    async def serve_later():
        await trio.sleep(8)
        await late.serve()

    async with pool_of(late) as pool:
        assert trio.current_time() >= 8
        assert await pool.call("where") == "late"
    assert late.attempts < 15  # the pauses grow
    late.stop()


async def test_without_an_instance_the_block_raises_after_its_patience(autojump_clock):
    with pytest.raises(Unavailable, match="no instance within 20 s: a: a is not there") as caught:
        async with pool_of(FakeInstance("a"), patience=20):
            raise AssertionError("it must not be entered")
    assert caught.value.fate is Fate.NOT_STARTED
    assert trio.current_time() == pytest.approx(20)


async def test_leaving_says_goodbye_and_lets_calls_end(autojump_clock, three):
    ends = []

    async def watch(server):
        async for event in server.session_events():
            if event.kind == "closed":
                ends.append(event.end)

    async with trio.open_nursery() as nursery:
        async with pool_of(*three) as pool:
            await until(pool, all_are("open"))
            for each in three:
                nursery.start_soon(watch, each.server)
            nursery.start_soon(pool.call, "sleep", 2)
            await trio.sleep(1)
        await trio.sleep(1)
        assert [end.by for end in ends] == ["peer"] * 3
        assert all(end.cause is None for end in ends)
        nursery.cancel_scope.cancel()
    with pytest.raises(trio_rpc.SessionClosed) as caught:
        await pool.call("where")
    assert caught.value.fate is Fate.NOT_STARTED
    assert not any(each.calls_in_flight for each in pool.instances())


async def test_a_cancelled_block_ends_at_once(autojump_clock, three):
    with trio.move_on_after(5):
        async with pool_of(*three) as pool:
            await pool.call("wait")
    assert trio.current_time() < 7


async def test_an_error_of_the_body_is_raised_alone(autojump_clock, three):
    with pytest.raises(KeyError):
        async with pool_of(*three):
            raise KeyError("mine")


# ── draining ─────────────────────────────────────────────────────────────────────────────────


async def test_a_draining_instance_gets_no_more_calls(autojump_clock, nursery, three):
    async with pool_of(*three) as pool:
        await until(pool, all_are("open"))
        async with trio.open_nursery() as callers:
            for _ in range(9):
                callers.start_soon(pool.call, "wait")
            await wait_all_tasks_blocked()
            callers.start_soon(three[0].drain)
            await until(pool, lambda by_name: by_name["a"].state == "draining")
            assert "a" not in {await pool.call("where") for _ in range(30)}
            for each in three:
                each.go.set()
        await until(pool, lambda by_name: by_name["a"].state == "connecting")


async def test_the_announcement_comes_before_the_goodbye(autojump_clock, three):
    """A client that knows no other instance is served until the Goodbye."""
    async with pool_of(three[0]) as pool, pool.session() as session:
        assert not session.draining.is_set()
        async with trio.open_nursery() as nursery:
            three[0].links[0].freeze()
            nursery.start_soon(three[0].drain)
            await wait_all_tasks_blocked()
            three[0].links[0].thaw()
            await session.draining.wait()
            assert session.draining.is_set()
            assert session.is_open
            assert await session.call("where") == "a"


async def test_no_call_fails_while_all_instances_are_restarted_one_by_one(
    autojump_clock, nursery, three
):
    async with pool_of(*three) as pool:
        await until(pool, all_are("open"))
        done = []

        async def call_often(caller):
            for number in range(60):
                await pool.call("sleep", 0.02, f"{caller}.{number}")
                done.append((caller, number))

        async with trio.open_nursery() as callers:
            for caller in range(10):
                callers.start_soon(call_often, caller)
            for each in three:
                await each.drain(grace=30)
                await trio.sleep(0.3)
                await nursery.start(each.serve)
                await until(pool, all_are("open"))
        assert len(done) == 600
        runs = [count for each in three for count in each.runs.values()]
        assert runs == [1] * 600
        assert sum(each.failures for each in pool.instances()) == 0


async def test_an_old_session_is_replaced_before_its_calls_have_ended(autojump_clock, nursery):
    fake = FakeInstance("a")
    async with trio.open_nursery() as serving:
        await serving.start(fake.serve)
        async with pool_of(fake) as pool:
            async with trio.open_nursery() as callers:
                callers.start_soon(pool.call, "wait")
                await fake.begun.wait()
                old = fake.server
                callers.start_soon(old.drain)
                await until(pool, all_are("draining"))
                fake._listener = None
                await serving.start(fake.serve)
                await until(pool, all_are("open"))
                assert pool.instances()[0].calls_in_flight == 1
                assert await pool.call("where") == "a"
                callers.cancel_scope.cancel()
        serving.cancel_scope.cancel()


async def test_an_old_session_of_a_server_with_a_greatest_age_is_drained(autojump_clock):
    fake = FakeInstance("a", max_session_age=100)
    async with trio.open_nursery() as serving:
        await serving.start(fake.serve)
        async with pool_of(fake) as pool:
            async with pool.stream("count", 1) as numbers:
                await numbers.receive()
                async with trio.open_nursery() as callers:
                    for _ in range(100):
                        callers.start_soon(pool.call, "where")
                        await trio.sleep(3.5)
                assert len(fake.links) == 4  # after about 100, 200 and 300 s
                assert fake.runs == {"": 100}
        serving.cancel_scope.cancel()


# ── refusing ─────────────────────────────────────────────────────────────────────────────────


async def test_credentials_that_one_instance_refuses(autojump_clock, caplog, three):
    async def refuse(session, credentials):
        raise Refused("unknown token")

    strict = FakeInstance("strict", authenticate=refuse)
    async with trio.open_nursery() as nursery:
        await nursery.start(strict.serve)
        async with pool_of(strict, three[0]) as pool:
            await until(pool, lambda by_name: "unknown token" in by_name["strict"].error)
            assert {await pool.call("where") for _ in range(20)} == {"a"}
            await trio.sleep(100)
            assert strict.attempts <= 8  # about one in 15 to 30 s
            assert "unknown token" in caplog.text
        nursery.cancel_scope.cancel()


async def test_credentials_that_all_instances_refuse(autojump_clock):
    async def refuse(session, credentials):
        raise Refused("unknown token")

    strict = FakeInstance("strict", authenticate=refuse)
    async with trio.open_nursery() as nursery:
        await nursery.start(strict.serve)
        with pytest.raises(Refused, match=r"strict: .*unknown token"):
            async with trio_rpc.open_pool(told([strict.instance], forever=False)):
                raise AssertionError("it must not be entered")
        nursery.cancel_scope.cancel()
    assert trio.current_time() < 1


async def test_a_server_with_the_most_sessions_says_when_to_come_back(autojump_clock):
    full = FakeInstance("full", server_limits=trio_rpc.ServerLimits(max_sessions=1))
    served = trio.Event()

    async def use():
        async with pool_of(full) as second:
            assert await second.call("where") == "full"
            served.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(full.serve)
        async with pool_of(full) as first:
            assert await first.call("where") == "full"
            with pytest.raises(Unavailable, match="has 1 sessions"):
                async with pool_of(full, patience=10):
                    pass
            assert full.attempts <= 12
            nursery.start_soon(use)
            await trio.sleep(5)
        await served.wait()
        nursery.cancel_scope.cancel()


# ── sources ──────────────────────────────────────────────────────────────────────────────────


async def test_instances_appear_and_vanish(autojump_clock, three):
    send, receive = trio.open_memory_channel(0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send.send, [three[0].instance])
        async with trio_rpc.open_pool(receive) as pool:
            assert {await pool.call("where") for _ in range(20)} == {"a"}
            await send.send([three[0].instance, three[1].instance])
            await until(pool, lambda by_name: "b" in by_name and all_are("open")(by_name))
            assert {await pool.call("where") for _ in range(20)} == {"a", "b"}
            nursery.start_soon(pool.call, "sleep", 3, "long")
            await wait_all_tasks_blocked()
            await send.send([three[2].instance])
            await until(pool, lambda by_name: "c" in by_name and by_name["c"].state == "open")
            assert {await pool.call("where") for _ in range(20)} == {"c"}
            await trio.sleep(30)
            assert [each.name for each in pool.instances()] == ["c"]
    assert sum(each.runs.get("long", 0) for each in three) == 1


async def test_a_source_that_flaps_causes_few_attempts(autojump_clock, three):
    async def flap():
        for _ in range(300):
            yield [three[0].instance, three[1].instance]
            await trio.sleep(0.01)
            yield [three[0].instance]
            await trio.sleep(0.01)
        yield [three[0].instance, three[1].instance]

    async with trio_rpc.open_pool(flap()) as pool:
        for _ in range(30):
            await pool.call("where")
            await trio.sleep(0.2)
        assert three[1].attempts < 20
        await until(pool, all_are("open"))
        assert len(pool.instances()) == 2


async def test_a_source_that_fails_is_asked_again(autojump_clock, caplog, three):
    class Flaky:
        def __init__(self):
            self.asked = 0

        async def __aiter__(self):
            self.asked += 1
            if self.asked == 2:
                raise OSError("the registry is down")
            yield [three[self.asked].instance] if self.asked < 3 else [three[0].instance]
            if self.asked == 1:
                raise OSError("the registry is going down")
            await trio.sleep_forever()

    flaky = Flaky()
    async with trio_rpc.open_pool(flaky) as pool:
        assert await pool.call("where") == "b"
        await until(pool, lambda by_name: "a" in by_name and by_name["a"].state == "open")
        await trio.sleep(20)
        assert {await pool.call("where") for _ in range(10)} == {"a"}
    assert flaky.asked == 3
    assert "the registry is down" in caplog.text


async def test_a_source_that_never_waits_does_not_stop_the_program(autojump_clock, three):
    told = 0

    async def hurry():
        nonlocal told
        while True:
            told += 1
            yield [three[told % 2].instance, three[2].instance]

    async with trio_rpc.open_pool(hurry()) as pool:
        for _ in range(20):
            await pool.call("where")
            await trio.sleep(0.5)
    assert told <= 12 * 100


async def test_a_source_that_cannot_be_iterated_over_yet_is_asked_again(autojump_clock, three):
    class Late:
        def __aiter__(self):
            if trio.current_time() < 5:
                raise OSError("the registry is starting")
            return told([three[0].instance])

    async with trio_rpc.open_pool(Late()) as pool:
        assert trio.current_time() >= 5
        assert await pool.call("where") == "a"


async def test_a_source_that_is_refused_is_an_error_at_once_and_asked_seldom(autojump_clock, three):
    times = []

    class Locked:
        def __init__(self, error):
            self.error = error

        async def __aiter__(self):
            times.append(trio.current_time())
            if trio.current_time() < 100:
                raise self.error
            yield [three[0].instance]
            await trio.sleep_forever()

    with pytest.raises(Refused, match="the instances are not known: wrong password"):
        async with trio_rpc.open_pool(Locked(Refused("wrong password")), patience=1000):
            raise AssertionError("it must not be entered")
    assert trio.current_time() < 1
    times.clear()
    async with trio_rpc.open_pool(
        Locked(Refused("wrong password")), told([three[1].instance])
    ) as pool:
        await until(pool, lambda by_name: "a" in by_name and all_are("open")(by_name))
    assert 100 <= trio.current_time() < 135
    assert len(times) <= 9  # one in 15 to 30 s


async def test_a_source_with_a_bug_ends_the_block(autojump_clock, three):
    async def buggy():
        yield [three[0].instance]
        await trio.sleep(1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with trio_rpc.open_pool(buggy()):
            await trio.sleep_forever()


@pytest.mark.parametrize("odd", [5, "tcp://localhost:1", [5], ["nonsense"], None])
async def test_a_source_that_tells_nonsense_ends_the_block(odd, autojump_clock):
    with pytest.raises((TypeError, ValueError)):
        async with trio_rpc.open_pool(told(odd)):
            await trio.sleep_forever()


async def test_a_source_that_ends_without_instances(autojump_clock):
    with pytest.raises(Unavailable, match="no instances are known"):
        async with trio_rpc.open_pool(told([], forever=False)):
            raise AssertionError("it must not be entered")


# ── the session of a block ───────────────────────────────────────────────────────────────────


async def test_the_block_of_a_session_ends_with_it(autojump_clock, three):
    async with pool_of(*three) as pool:
        with pytest.raises(SessionBroken):
            async with pool.session() as session:
                name = await session.call("where")
                next(each for each in three if each.name == name).kill()
                await trio.sleep_forever()
        assert await pool.call("where") in "abc"


async def test_the_session_of_a_block_stays_open_afterwards(autojump_clock, three):
    async with pool_of(three[0]) as pool:
        async with pool.session() as first:
            pass
        assert first.is_open
        async with pool.session() as second:
            assert second is first


# ── states ───────────────────────────────────────────────────────────────────────────────────


async def test_the_states_tell_each_change_and_end_with_the_pool(autojump_clock, nursery, three):
    seen = []

    async def watch(pool):
        async for statuses in pool.states():
            seen.append("".join(f"{each.name} {each.state}" for each in statuses))

    async with trio.open_nursery() as watching:
        async with pool_of(three[0]) as pool:
            watching.start_soon(watch, pool)
            await wait_all_tasks_blocked()
            three[0].kill()
            await trio.sleep(10)
            await nursery.start(three[0].serve)
            await until(pool, all_are("open"))
            await wait_all_tasks_blocked()
    assert seen[0] == seen[-1] == "a open"
    assert "a connecting" in seen


async def test_the_log_of_an_instance_that_is_down_is_bounded(autojump_clock, caplog, three):
    caplog.set_level(logging.INFO)
    async with pool_of(three[0], FakeInstance("down")) as pool:
        await trio.sleep(300)
        assert await pool.call("where") == "a"
    assert len(caplog.records) < 20 * 6 + 6
