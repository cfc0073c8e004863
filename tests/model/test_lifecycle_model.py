"""The stages of a session: the table, and a state machine that compares them with flags."""

from __future__ import annotations

import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from trio.testing import MockClock

from trio_rpc.errors import Fate, SessionBroken, SessionClosed
from trio_rpc.protocol.states import Half
from trio_rpc.session.lifecycle import NEXT, Event, Lifecycle, Stage
from trio_rpc.wire.limits import DEFAULT_LIMITS

STATES = ["opening", "open", "closing", "over"]
MUCH_LATER = 1e9


def test_a_session_never_goes_back():
    for (stage, _), following in NEXT.items():
        assert STATES.index(stage.state) <= STATES.index(following.state)
        assert following.was_open or not stage.was_open
        assert following.is_closed_by_us or not stage.is_closed_by_us


def test_each_stage_can_be_reached_and_left_for_the_end():
    reached = {Stage.OPENING}
    for _ in Stage:
        reached |= {following for (stage, _), following in NEXT.items() if stage in reached}
    assert reached == set(Stage)
    for stage in Stage:
        if not stage.is_over:
            assert NEXT[stage, Event.STOP].is_over
            assert NEXT[stage, Event.LOSE].is_over


def test_statistics_have_four_states():
    assert {stage.state for stage in Stage} == set(STATES)


class Wire:
    """The parts of a protocol and of a writer that a lifecycle uses."""

    def __init__(self):
        self.ours = self.theirs = Half.SILENT
        self.goodbyes = []

    def goodbye(self, code, message):
        assert self.ours is Half.OPEN
        self.ours = Half.LEAVING
        self.goodbyes.append(code)

    def write_now(self):
        pass


class Work:
    """The running calls and notifications of a session."""

    def __init__(self):
        self.calls = self.notifications = self.ends = 0

    @property
    def are_over(self):
        return not self.calls and not self.notifications

    @property
    def notifications_are_over(self):
        return not self.notifications

    def leave(self):
        """Do nothing: no task of this model reads."""

    def end(self):
        self.ends += 1
        self.calls = self.notifications = 0


def in_trio(function, *args):
    """Call a function in a Trio run, which has a clock."""

    async def call():
        function(*args)

    trio.run(call, clock=MockClock())


def is_running(machine):
    return not machine.over


def is_open_at_both_ends(machine):
    return not machine.over and machine.wire.theirs is Half.OPEN


class Sessions(RuleBasedStateMachine):
    """One session, and the flags that its stage represents."""

    def __init__(self):
        super().__init__()
        self.wire, self.work = Wire(), Work()
        self.lifecycle = Lifecycle(self.wire, self.wire, DEFAULT_LIMITS, self.work)
        self.state = 0
        self.was_open = self.over = self.closes = self.left = self.peer_began = False
        self.cause = None
        self.notified = 0
        self.lifecycle.when_closed = self._notify

    def _notify(self):
        self.notified += 1

    def _became_quiet(self):
        """End a closing session after its last activity."""
        if self.closes and self.wire.theirs is Half.LEAVING and self.work.are_over:
            self.over = True

    @precondition(lambda self: is_running(self) and not self.was_open)
    @rule()
    def the_handshake_is_done(self):
        self.wire.ours = self.wire.theirs = Half.OPEN
        self.was_open = True
        self.lifecycle.open()

    @precondition(lambda self: is_open_at_both_ends(self) and not self.closes)
    @rule(kind=st.sampled_from(["calls", "notifications"]))
    def something_begins(self, kind):
        setattr(self.work, kind, getattr(self.work, kind) + 1)

    @precondition(lambda self: not self.work.are_over)
    @rule(data=st.data())
    def something_ends(self, data):
        running = [kind for kind in ("calls", "notifications") if getattr(self.work, kind)]
        kind = data.draw(st.sampled_from(running))
        setattr(self.work, kind, getattr(self.work, kind) - 1)
        self._became_quiet()
        in_trio(self.lifecycle.activity_ended)

    @precondition(is_open_at_both_ends)
    @rule()
    def the_peer_sends_goodbye(self):
        self.wire.theirs = Half.LEAVING
        self.peer_began = not self.closes
        self._became_quiet()
        in_trio(self.lifecycle.peer_closes, "done (done)")

    @rule()
    def this_end_closes(self):
        if not self.was_open:
            self.over = True
        self.closes = True
        self._became_quiet()
        in_trio(self.lifecycle.close)

    @rule()
    def this_end_closes_too_late(self):
        """Call ``aclose()`` on a session that is over."""
        if self.over:
            self.closes = True
            in_trio(self.lifecycle.close)

    @rule()
    def the_block_is_over(self):
        if not self.over:
            self.closes = self.left = True
            self.over = not self.was_open
            self._became_quiet()
        in_trio(self.lifecycle.leave)

    @rule()
    def this_end_stops(self):
        if not self.over:
            self.closes = self.over = True
        self.lifecycle.stop()

    @rule()
    def the_time_to_close_is_over(self):
        """End the session if it is closing: no other stage has a time limit."""
        if self.closes:
            self.over = True
        self.lifecycle.stop_if_late(MUCH_LATER)

    @rule(orderly=st.booleans())
    def the_connection_is_lost(self, orderly):
        cause = None if orderly else OSError("reset")
        if not self.over:
            self.over, self.cause = True, cause
        self.lifecycle.lose(cause, "network")

    @precondition(lambda self: self.over and not self.notified)
    @rule()
    def the_channel_is_closed(self):
        self.lifecycle.channel_closed()
        assert self.notified == 1

    @invariant()
    def the_stage_agrees_with_the_flags(self):
        stage = self.lifecycle.stage
        assert stage.is_over == self.over
        assert stage.was_open == self.was_open
        assert stage.is_closed_by_us == self.closes
        assert stage.is_closing == (not self.over and (self.closes or self.peer_began))
        assert (stage is Stage.LEAVING) == (self.left and not self.over)

    @invariant()
    def it_never_goes_back(self):
        state = STATES.index(self.lifecycle.stage.state)
        assert state >= self.state
        self.state = state

    @invariant()
    def it_ends_once(self):
        assert self.work.ends == self.over
        assert self.lifecycle.is_closed == bool(self.notified)

    @invariant()
    def goodbye_is_sent_once_and_not_too_early(self):
        assert len(self.wire.goodbyes) <= 1
        if self.over or not self.was_open:
            return
        peer_waits = self.wire.theirs is Half.LEAVING and self.work.notifications_are_over
        assert bool(self.wire.goodbyes) == (self.closes or peer_waits)

    @invariant()
    def the_error_says_which_end_has_ended_the_session(self):
        if self.over:
            error = self.lifecycle.error(Fate.UNKNOWN)
            by_us = self.cause is None and not self.peer_began
            assert isinstance(error, SessionClosed if by_us else SessionBroken)
            assert error.__cause__ is self.cause


def test_the_stage_of_a_session_agrees_with_its_flags():
    run_state_machine_as_test(
        Sessions, settings=settings(max_examples=60, stateful_step_count=25, deadline=None)
    )
