"""The watch over sessions: the ends of their times, without a task for each session.

A server has one :class:`Watchman`, whose task sleeps until the first of its sessions is due. Any
other session has one of its own. A :class:`Watch` has the duties for one session:

1. Abandon cancelled calls, refuse calls that wait for their service, and stop a closing session, if
   it is time for that.
2. If it is time for the next check for a sign of life, but this program was blocked until now, wait
   as long again: meanwhile it could not have noticed one.
3. A session that is still opening has had its time for the handshake, and is lost.
4. Otherwise let the reader handle packets that have arrived. Then check for silence, and whether
   the other end answers its calls.
"""

from __future__ import annotations

import enum
import heapq
import itertools
import math

import trio
from trio.lowlevel import Abort

from trio_rpc.channels.optional import renews
from trio_rpc.session.core import Core
from trio_rpc.session.lifecycle import Stage
from trio_rpc.session.reader import two_turns
from trio_rpc.util.time_limits import LISTENING, PUNCTUAL, was_blocked

__all__ = ["Watch", "Watchman"]

AT_ONCE = 50
"""Sessions that are looked after in one turn. Sessions that are due together would stay together,
and the Pings of thousands take a tenth of a second, in which no call would be answered."""

MANY = 1000
"""Stale entries that are removed together, so that this costs little for each."""


class Watchman:
    """One task that looks after sessions, each when it is due.

    Args:
        is_shielded: whether a cancellation from outside does not stop it.
    """

    def __init__(self, *, is_shielded: bool = False) -> None:
        # Bound: the current entry of each session, and as many stale ones, and MANY.
        self._entries: list[tuple[float, int, Watch]] = []
        self._numbers = itertools.count()
        self._watches = 0
        self._is_shielded = is_shielded
        self._is_over = False
        self._alarm: trio.CancelScope | None = None
        """Ends the sleep of the task when the first session is due."""
        self._sleeper: trio.lowlevel.Task | None = None
        """The task while it sleeps."""

    def begin(self, watch: Watch) -> None:
        """Watch one more session."""
        self._watches += 1
        watch.plan(watch.due)

    def forget(self) -> None:
        """Watch one session less, whose entry is stale now."""
        self._watches -= 1
        if len(self._entries) > 2 * self._watches + MANY:
            self._entries = [each for each in self._entries if each[2].planned == each[0]]
            heapq.heapify(self._entries)

    def call(self, when: float, watch: Watch) -> None:
        """Look after a session at that time, which is earlier than was planned before."""
        heapq.heappush(self._entries, (when, next(self._numbers), watch))
        if self._alarm is not None and when < self._alarm.deadline:
            self._alarm.deadline = when

    def stop(self) -> None:
        """End the task."""
        self._is_over = True
        self._entries.clear()  # they refer to this object
        if self._sleeper is not None:  # waking it costs a fifth of cancelling its scope
            trio.lowlevel.reschedule(self._sleeper)
            self._sleeper = None

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Look after sessions until :meth:`stop`, or until cancelled."""
        while not self._is_over:
            first = self._entries[0][0] if self._entries else math.inf
            with trio.CancelScope(deadline=first, shield=self._is_shielded) as self._alarm:
                self._sleeper = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._wake)
            if not self._is_over:
                await self._look(trio.current_time())

    def _wake(self, _raise_cancel: object) -> Abort:
        self._sleeper = None
        return Abort.SUCCEEDED

    async def _look(self, now: float) -> None:
        due: list[Watch] = []
        while self._entries and self._entries[0][0] <= now and len(due) < AT_ONCE:
            when, _, watch = heapq.heappop(self._entries)
            if watch.planned == when:  # otherwise it is stale
                watch.planned = math.inf
                due.append(watch)
        if looking := [watch for watch in due if watch.act(now)]:
            await two_turns()
            for watch in looking:
                watch.look(now)
        for watch in due:
            watch.plan(watch.due)


class Watch:
    """The times of one session at which something has to be done.

    Args:
        core: the session.
        watchman: calls :meth:`act` and :meth:`look` when it is time.

    Attributes:
        planned: the time when the watchman will look after this session.
        bug: an exception of the channel, which is not one of a channel that has ended.
    """

    __slots__ = ("_core", "_looks", "_next_look", "_silence", "_watchman", "bug", "planned")

    def __init__(self, core: Core, watchman: Watchman) -> None:
        self._core: Core | None = core
        self._watchman = watchman
        self._silence: _Silence | None = None
        self._next_look = trio.current_time() + core.limits.handshake_timeout
        """The time of the next check for a missing handshake or a silent peer."""
        self._looks = False
        self.planned = math.inf
        self.bug: Exception | None = None

    def opened(self) -> None:
        """Begin to check for silence, and for answers, since the session is open."""
        core = self._core
        if core is not None:
            self._next_look = trio.current_time() + core.limits.keepalive_interval
            if core.answers is not None:
                core.answers.begin()
            self.plan(self.due)

    def end(self) -> None:
        """Do nothing any more, since the session is over."""
        if self._core is not None:
            self._core = None
            self.planned = math.inf
            self._watchman.forget()

    def plan(self, when: float) -> None:
        """Look after this session at that time, if not before."""
        if when < self.planned and self._core is not None:
            self.planned = when
            self._watchman.call(when, self)

    @property
    def due(self) -> float:
        """The time when something has to be done."""
        core = self._core
        if core is None or core.lifecycle.is_over:
            return math.inf
        return min(
            self._next_look,
            core.lifecycle.close_by,
            core.outgoing.first_to_expire,
            core.incoming.absent.first_to_expire,
            math.inf if core.answers is None else core.answers.next_look,
        )

    def act(self, now: float) -> bool:
        """Act on everything that is due; return whether :meth:`look` has to be called."""
        core = self._core
        if core is None:
            return False
        lifecycle = core.lifecycle
        core.outgoing.abandon_late(now)  # (1)
        if core.incoming.refuse_late(now):
            core.writer.write_now()
        lifecycle.stop_if_late(now)
        if lifecycle.is_over:
            return False
        self._looks = now >= self._next_look and self._is_time_to_look(core, now)
        return self._looks or (core.answers is not None and now >= core.answers.next_look)

    def _is_time_to_look(self, core: Core, now: float) -> bool:
        is_opening = core.lifecycle.stage is Stage.OPENING
        limits = core.limits
        patience = limits.handshake_timeout if is_opening else limits.keepalive_interval
        is_late = was_blocked(self._next_look, patience)  # (2)
        self._next_look = now + patience
        if is_late:
            if self._silence is not None:
                self._silence.listened = 0
            return False
        if is_opening:  # (3)
            text = f"no handshake within {limits.handshake_timeout:g} s"
            core.lifecycle.end_unopened(TimeoutError(text), "network")
        return not is_opening

    def look(self, now: float) -> None:
        """Check for silence, and for answers, after the reader has handled arrived packets (4)."""
        core = self._core
        if core is None or core.lifecycle.is_over:
            return
        try:
            if core.answers is not None and now >= core.answers.next_look:
                core.answers.look()
            if self._looks:
                self._silence = self._silence or _Silence(core)
                self._next_look = now + self._silence.look()
        except Exception as exc:  # noqa: BLE001 - a bug of one channel ends no other session
            self.bug = exc
            core.lifecycle.lose(exc)


class _Writing(enum.Enum):
    FREE = "no packet has waited for the channel since the last check"
    SLOW = "a packet has waited, and the other end has read a part of the written data"
    STUCK = "a packet has waited, and the other end has read nothing"


class _Silence:
    """Detects a silent peer: sends Pings, and ends the session if too many stay unanswered.

    A Ping cannot overtake the packet that waits for the channel. So while the peer takes parts of
    that packet, it is slow, and neither silent nor stalled.

    This program may have been blocked for most of an interval and wake up in time all the same. The
    answer is then still in a socket, or in a task below the channel. So a peer is lost only if this
    program was awake and heard nothing in the last tenth of the last interval.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._heard: object = None
        self._unanswered = 0
        self.listened = 0
        """The number of looks at an overdue peer; reset if this program was blocked."""
        self._sent = 0
        self._taken: object = None
        self._stuck = 0

    def look(self) -> float:
        """Check whether a byte has arrived since the last check; return the time until the next."""
        core, limits = self._core, self._core.limits
        # A part of a large packet is also a sign of life.
        heard = core.protocol.counters.packets_received, getattr(core.channel, "heard", None)
        is_overdue = heard == self._heard and self._unanswered >= limits.keepalive_pings
        if is_overdue and self.listened < LISTENING:
            self.listened += 1
            return limits.keepalive_interval * PUNCTUAL / LISTENING
        self.listened = 0
        writing = self._look_at_writing()
        if heard != self._heard:
            self._heard, self._unanswered = heard, 0
            self._ask_about_calls()
            if self._stuck > limits.keepalive_pings:
                self._lose("has taken nothing for {:g} s, though it is not silent", self._stuck)
        elif writing is _Writing.SLOW:
            self._unanswered = 0
        elif self._unanswered < limits.keepalive_pings:
            self._unanswered += 1
            core.protocol.ping()
            core.writer.write_now()  # before this program can be blocked
            if self._unanswered == limits.keepalive_pings:
                return limits.keepalive_interval * (1 - PUNCTUAL)
        elif (channel := renews(core.channel)) is not None and channel.renew():
            self._unanswered = 0
        else:
            self._lose("was silent for {:g} s", self._unanswered + 1)
        return limits.keepalive_interval

    def _ask_about_calls(self) -> None:
        """Send a Ping if a call has waited for long and is not known to have been read.

        Its Pong shows that to :meth:`Session.tree`. Calls that end sooner cost nothing.
        """
        core = self._core
        before = trio.current_time() - core.limits.keepalive_interval
        outgoing = core.outgoing
        if any(
            call.started <= before and not outgoing.is_running(call)
            for call in outgoing.calls.values()
        ):
            core.protocol.ping()
            core.writer.write_now()

    def _look_at_writing(self) -> _Writing:
        """Check whether the peer takes the bytes written to it."""
        core = self._core
        sent, taken = core.protocol.counters.packets_sent, getattr(core.channel, "taken", None)
        if not core.writer.is_writing or sent != self._sent:
            writing = _Writing.FREE
        else:
            writing = _Writing.STUCK if taken == self._taken else _Writing.SLOW
        self._sent, self._taken = sent, taken
        self._stuck = self._stuck + 1 if writing is _Writing.STUCK else 0
        return writing

    def _lose(self, reason: str, intervals: int) -> None:
        text = "the other end " + reason.format(intervals * self._core.limits.keepalive_interval)
        self._core.lifecycle.lose(TimeoutError(text), "network")
