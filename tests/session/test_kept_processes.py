"""A process that is started again when it ends: the policy, and the calls meanwhile."""

from __future__ import annotations

import contextlib
import itertools

import pytest
import trio
from helpers.handlers import Screen
from helpers.kept_children import Program, crash_at_once
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

import trio_rpc
from trio_rpc import (
    Fate,
    ProcessState,
    Refused,
    RemoteProtocolError,
    Restart,
    SessionBroken,
    SessionClosed,
    keep_process,
)

AT_ONCE = Restart(times=3, within=60, first_delay=0, max_delay=0)


@pytest.fixture
async def children(nursery):
    return Program(nursery)


async def collect(kept, seen):
    async for state in kept.states():
        seen.append(state)


async def outcome(function, *args):
    """Return the exception that a call raises."""
    with pytest.raises(trio_rpc.RpcError) as caught:
        await function(*args)
    return caught.value


async def never(_channel):
    """Do not serve."""
    return False


class Later:
    """Runs a call in a task, and keeps its outcome."""

    def __init__(self, nursery, function, *args):
        self.value = None
        nursery.start_soon(self._run, function, args)

    async def _run(self, function, args):
        try:
            self.value = await function(*args)
        except trio_rpc.RpcError as exc:
            self.value = exc


# ── calls and states ─────────────────────────────────────────────────────────────────────────


async def test_calls_made_before_the_process_serves_wait_and_both_ends_can_call(
    autojump_clock, children
):
    screen = Screen()
    async with children.kept(target=screen) as kept:
        assert kept.state == ProcessState("starting")
        assert kept.session is None
        await kept.proxy.show("hello")
        assert screen.lines == ["hello"]
        assert kept.state == ProcessState("running")
        assert kept.session.is_open
        assert (children.running, repr(kept).startswith("<trio_rpc.KeptProcess, running, ")) == (
            1,
            True,
        )
    assert children.running == 0


async def test_a_call_in_flight_fails_with_its_fate_and_later_ones_go_to_the_new_process(
    autojump_clock, children, nursery
):
    async with children.kept(restart=AT_ONCE) as kept:
        in_flight = Later(nursery, kept.proxy.wait)
        await wait_all_tasks_blocked()
        await children.children[0].crash()
        later = Later(nursery, kept.proxy.number_of)
        assert await kept.proxy.number_of() == 1
        await wait_all_tasks_blocked()
        assert later.value == 1
        assert isinstance(in_flight.value, SessionBroken)
        assert in_flight.value.fate is Fate.UNKNOWN
        assert in_flight.value.__cause__ is not None
    assert children.most == 1


async def test_the_states_tell_each_start_and_how_the_last_process_ended(
    autojump_clock, children, nursery
):
    seen = []
    with pytest.raises(SessionBroken):
        async with children.kept(restart=Restart(times=1, within=60)) as kept:
            nursery.start_soon(collect, kept, seen)
            for number in range(2):
                assert await kept.proxy.number_of() == number
                await wait_all_tasks_blocked()
                await children.children[number].crash()
            await trio.sleep_forever()
    await wait_all_tasks_blocked()
    kinds = ["starting", "running", "restarting", "running", "failed"]
    assert [state.kind for state in seen] == kinds
    for state in seen:
        assert (state.end is None) == (state.kind in ("starting", "running"))
    assert seen[-1] is kept.state
    assert seen[-1].end.by == "network"
    assert seen[-1].end.cause is not None
    assert [state async for state in kept.states()] == [kept.state]


async def test_a_slow_reader_of_states_misses_some_and_the_iteration_ends_with_the_block(
    autojump_clock, children
):
    async with children.kept() as kept:
        states = kept.states()
        await kept.proxy.number_of()
        assert await anext(states) == ProcessState("running")
    with assert_checkpoints(), pytest.raises(StopAsyncIteration):
        await anext(states)


async def test_the_body_can_read_the_failure_before_it_is_cancelled(
    autojump_clock, children, nursery
):
    seen = []
    with pytest.raises(SessionBroken):
        async with children.kept(restart=Restart(times=0)) as kept:
            async for state in kept.states():
                seen.append(state.kind)
                if state.kind == "running":
                    nursery.start_soon(children.children[0].crash)
    assert seen[-2:] == ["running", "failed"]


async def test_closing_the_session_restarts_the_process_and_counts(autojump_clock, children):
    with pytest.raises(SessionBroken, match="this end has closed the session: reload"):
        async with children.kept(restart=Restart(times=1)) as kept:
            for number in range(2):
                assert await kept.proxy.number_of() == number
                await kept.session.aclose(reason="reload")
            await trio.sleep_forever()


async def test_an_orderly_end_by_the_child_leads_to_a_restart_and_counts(autojump_clock, children):
    with pytest.raises(SessionBroken, match="out of work") as caught:
        async with children.kept(restart=Restart(times=1)) as kept:
            for number in range(2):
                assert await kept.proxy.number_of() == number
                await children.children[number].leave("out of work")
            await trio.sleep_forever()
    assert caught.value.orderly
    assert caught.value.__cause__ is None


async def test_a_new_target_serves_the_next_process(autojump_clock, children):
    async with children.kept(restart=AT_ONCE) as kept:
        kept.target = first = Screen()
        await kept.proxy.show("one")
        await children.children[0].crash()
        kept.target = second = Screen()
        await kept.proxy.show("two")
        assert kept.target is second
        assert (first.lines, second.lines) == (["one"], ["two"])


async def test_the_number_of_waiting_calls_is_bounded(autojump_clock, children, nursery):
    children.before_serving = never
    async with children.kept(max_waiting=1) as kept:
        waiting = Later(nursery, kept.proxy.number_of)
        await wait_all_tasks_blocked()
        assert isinstance(await outcome(kept.proxy.number_of), trio_rpc.Overloaded)
    await wait_all_tasks_blocked()
    assert isinstance(waiting.value, SessionClosed)


# ── how often, and after which delays ────────────────────────────────────────────────────────


async def test_a_process_that_ends_too_often_is_not_started_again(
    autojump_clock, children, nursery
):
    """Calls that wait and later calls raise SessionBroken, whose cause is that of the last end."""
    children.before_serving = crash_at_once
    with pytest.raises(SessionBroken) as caught:
        async with children.kept(restart=AT_ONCE) as kept:
            waiting = Later(nursery, kept.proxy.number_of)
            await trio.sleep_forever()
    assert len(children.times) == 1 + AT_ONCE.times
    assert str(caught.value).startswith(
        "the process is not started again (3 restarts within 60 s are allowed): the session is over"
    )
    assert caught.value.fate is Fate.UNKNOWN
    await wait_all_tasks_blocked()
    for error in (waiting.value, await outcome(kept.proxy.number_of)):
        assert isinstance(error, SessionBroken)
        assert error.fate is Fate.NOT_STARTED
        assert error.__cause__ is caught.value.__cause__ is kept.state.end.cause is not None
    assert children.running == 0


async def test_with_0_times_a_process_is_never_started_again(autojump_clock, children):
    with pytest.raises(SessionBroken):
        async with children.kept(restart=Restart(times=0)) as kept:
            await kept.proxy.number_of()
            await children.children[0].crash()
            await trio.sleep_forever()
    assert len(children.times) == 1


async def test_any_number_of_restarts_is_allowed_if_they_are_far_enough_apart(
    autojump_clock, children
):
    async with children.kept(restart=Restart(times=2, within=60, max_delay=0)) as kept:
        for number in range(20):
            assert await kept.proxy.number_of() == number
            await trio.sleep(31)
            await children.children[number].crash()


async def test_no_period_has_more_restarts_than_allowed(autojump_clock, children):
    """The period moves: a restart at its beginning counts until exactly its end."""
    async with children.kept(restart=Restart(times=2, within=60, max_delay=0)) as kept:
        for number, pause in enumerate([0, 30, 30.5, 30, 30.5]):
            await trio.sleep(pause)
            assert await kept.proxy.number_of() == number
            await children.children[number].crash()
    assert len(children.times) == 6
    for pauses in ([0, 30, 29], [0, 59, 2, 1]):
        children.children.clear()
        children.times.clear()
        await crash_after(children, pauses)
        assert len(children.times) == len(pauses)


async def crash_after(children, pauses):
    """End one process after each pause, and check that the last end is one too many."""
    with pytest.raises(SessionBroken):
        async with children.kept(restart=Restart(times=2, within=60, max_delay=0)) as kept:
            for number, pause in enumerate(pauses):
                await trio.sleep(pause)
                assert await kept.proxy.number_of() == number
                await children.children[number].crash()
            await trio.sleep_forever()


async def test_the_delays_grow_up_to_a_bound_and_are_spread(autojump_clock, children):
    children.before_serving = crash_at_once
    policy = Restart(times=40, within=1e9, first_delay=0.1, max_delay=10)
    with pytest.raises(SessionBroken):
        async with children.kept(restart=policy):
            await trio.sleep_forever()
    delays = [after - before for before, after in itertools.pairwise(children.times)]
    assert len(delays) == 40
    for number, delay in enumerate(delays):
        assert delay <= min(10, 0.1 * 2 ** (number + 1)) + 1e-6
    assert max(delays) > 5
    assert len(set(delays)) == len(delays)


async def test_after_a_process_that_lasted_the_delays_start_again_at_the_first_one(
    autojump_clock, children
):
    policy = Restart(times=40, within=1e9, first_delay=0.1, max_delay=10)
    async with children.kept(restart=policy) as kept:
        for number in range(20):
            assert await kept.proxy.number_of() == number
            await trio.sleep(11)
            before = trio.current_time()
            await children.children[number].crash()
            await kept.proxy.number_of()
            assert trio.current_time() - before <= 0.1 + 1e-6


async def test_a_process_that_does_not_serve_in_time_is_started_again(autojump_clock, children):
    async def hang(_channel):
        return len(children.children) > 1

    children.before_serving = hang
    limits = trio_rpc.Limits(handshake_timeout=7)
    async with children.kept(limits=limits) as kept:
        assert await kept.proxy.number_of() == 1
        assert 7 <= trio.current_time() < 8


# ── errors that another process cannot overcome ──────────────────────────────────────────────


async def test_a_command_that_cannot_be_started_fails_at_once(autojump_clock, children, nursery):
    children.error = FileNotFoundError(2, "there is no such program")
    begun = trio.current_time()
    with pytest.raises(FileNotFoundError) as caught:
        async with children.kept() as kept:
            waiting = Later(nursery, kept.proxy.number_of)
            await trio.sleep_forever()
    assert caught.value.errno == 2
    assert trio.current_time() == begun
    await wait_all_tasks_blocked()
    for error in (waiting.value, await outcome(kept.proxy.number_of)):
        assert isinstance(error, SessionBroken)
        assert error.fate is Fate.NOT_STARTED
        assert str(error).startswith("no process can be used: ")
        assert isinstance(error.__cause__, FileNotFoundError)
    assert kept.state.kind == "failed"
    assert kept.state.end.by == "us"
    assert isinstance(kept.state.end.cause, FileNotFoundError)
    assert kept.state.end.cause.errno == 2


async def test_the_error_of_the_start_is_raised_also_if_the_body_waits_in_a_call(
    autojump_clock, children
):
    children.error = FileNotFoundError("there is no such program")
    with pytest.raises(FileNotFoundError):
        async with children.kept() as kept:
            await kept.proxy.number_of()


async def test_a_command_that_cannot_be_started_again_fails_at_once(autojump_clock, children):
    with pytest.raises(PermissionError):
        async with children.kept() as kept:
            await kept.proxy.number_of()
            children.error = PermissionError("it may not be started now")
            await children.children[0].crash()
            await trio.sleep_forever()


async def test_a_session_that_is_refused_is_not_tried_again(autojump_clock, children):
    async def refuse(channel):
        with contextlib.suppress(Refused):
            await trio_rpc.serve_session(channel, Screen(), authenticate=refuse_all)
        return False

    async def refuse_all(_session, _credentials):
        raise Refused("not you")

    children.before_serving = refuse
    with pytest.raises(Refused, match="not you"):
        async with children.kept() as kept:
            await kept.proxy.number_of()
    assert len(children.times) == 1
    error = await outcome(kept.proxy.number_of)
    assert (type(error), error.fate) == (SessionBroken, Fate.NOT_STARTED)
    assert isinstance(error.__cause__, Refused)
    assert children.running == 0


async def test_a_program_that_does_not_speak_the_protocol_is_not_tried_again(
    autojump_clock, children
):
    async def chatter(channel):
        await channel.send(b"hello")
        return False

    children.before_serving = chatter
    with pytest.raises(RemoteProtocolError):
        async with children.kept() as kept:
            await kept.proxy.number_of()
    assert len(children.times) == 1
    assert kept.state.end.by == "peer"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"times": -1}, ValueError),
        ({"times": 2.5}, TypeError),
        ({"within": 0}, ValueError),
        ({"within": "1"}, TypeError),
        ({"first_delay": -1}, ValueError),
        ({"max_delay": float("nan")}, ValueError),
    ],
)
async def test_a_policy_that_makes_no_sense_is_refused(arguments, error):
    with pytest.raises(error, match=rf"^Restart\.{next(iter(arguments))} must"):
        Restart(**arguments)


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (["python plugin.py"], {}, TypeError),
        ([[]], {}, ValueError),
        ([["python"]], {"restart": 3}, TypeError),
        ([["python"]], {"goodbye_time": -1}, ValueError),
        ([["python"]], {"terminate_time": "1"}, TypeError),
        ([["python"]], {"max_waiting": -1}, ValueError),
        ([["python"]], {"limts": 1}, TypeError),
        ([["python"], int], {}, TypeError),
        ([["python"], None, 3], {}, TypeError),
    ],
)
async def test_a_wrong_argument_raises_before_the_body_begins(arguments, options, error):
    with pytest.raises(error):
        async with keep_process(*arguments, **options):
            pytest.fail("the body began")


# ── the end of the block ─────────────────────────────────────────────────────────────────────


async def test_leaving_the_block_lets_calls_in_flight_end(autojump_clock, children, nursery):
    async with children.kept() as kept:
        in_flight = Later(nursery, kept.proxy.wait)
        await wait_all_tasks_blocked()
        nursery.start_soon(release_later, children.children[0].plugin)
    assert in_flight.value == 0
    assert children.running == 0
    error = await outcome(kept.proxy.number_of)
    assert (type(error), error.fate) == (SessionClosed, Fate.NOT_STARTED)


async def release_later(plugin):
    await trio.sleep(1)
    plugin.go.set()


@pytest.mark.parametrize("moment", ["starting", "serving", "waiting", "hanging"])
async def test_leaving_and_cancelling_take_no_time_at_any_moment(autojump_clock, children, moment):
    async def serve_later(_channel):
        await trio.sleep(1000 if moment == "hanging" else 0)
        return True

    children.before_serving = serve_later
    for is_cancelled in (False, True):
        begun = trio.current_time()
        with trio.CancelScope() as scope:
            async with children.kept(restart=Restart(first_delay=1e9, max_delay=1e9)) as kept:
                if moment == "hanging":
                    await wait_all_tasks_blocked()
                elif moment != "starting":
                    await kept.proxy.number_of()
                if moment == "waiting":
                    await children.children[-1].crash()
                    assert kept.state.kind == "restarting"
                if is_cancelled:
                    scope.cancel()
                    await trio.sleep_forever()
        assert scope.cancelled_caught == is_cancelled
        assert trio.current_time() - begun < 1
        assert children.running == 0
        assert isinstance(await outcome(kept.proxy.number_of), SessionClosed)


async def test_the_bodys_own_exception_takes_precedence(autojump_clock, children):
    with pytest.raises(KeyError):
        async with children.kept(restart=Restart(times=0)) as kept:
            await kept.proxy.number_of()
            try:
                await children.children[0].crash()
                await trio.sleep_forever()
            finally:
                raise KeyError
    assert children.running == 0


async def test_a_body_that_has_finished_when_the_process_fails_raises_nothing(
    autojump_clock, children
):
    async with children.kept(restart=Restart(times=0)) as kept:
        await kept.proxy.number_of()
        with trio.CancelScope(shield=True):
            await children.children[0].crash()
            assert (await outcome(kept.proxy.number_of)).fate is Fate.NOT_STARTED
        assert kept.state.kind == "failed"


async def test_a_process_that_ends_while_the_block_is_left_is_not_started_again(
    autojump_clock, children, nursery
):
    async with children.kept(restart=AT_ONCE) as kept:
        Later(nursery, kept.proxy.wait)
        await wait_all_tasks_blocked()
        nursery.start_soon(crash_later, children.children[0])
    assert len(children.times) == 1


async def crash_later(child):
    await trio.sleep(1)
    await child.crash()
