"""Two Protocols and a slow link against a model: every call has exactly one outcome.

The link neither loses nor reorders packets, but may delay each of them in either direction. The
model records the actions of each end and the events it received. The model itself has no states,
so it cannot repeat a mistake of the state tables.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

import pytest
from helpers.protocol_pair import SMALL_LIMITS, Pair
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from trio_rpc.errors import LocalProtocolError
from trio_rpc.protocol.protocol import Protocol
from trio_rpc.protocol.states import Half

MAX_PACKET = 256
"""Far smaller than a real one, so that messages of a few hundred bytes travel in pieces."""

MAX_CALLS, MAX_NOTIFICATIONS = SMALL_LIMITS.max_calls, SMALL_LIMITS.max_notifications

WINDOW = [3, 500]
"""Items and bytes, few enough for the credit to run out."""

SIDES = st.sampled_from("ab")
PICKS = st.integers(0, 7)
SIZES = st.sampled_from([0, 30, 100, 300, 700, 1500])


@dataclass
class Call:
    """The outcome of one call, as its caller sees it."""

    outcome: str | None = None
    answer: tuple[str, object] | None = None
    """The result or error that its handler ended with."""
    started: bool = False
    cancelled: bool = False
    handler_was_cancelled: bool = False
    """Whether its handler has received the cancellation."""
    parent: int | None = None
    has_items: bool = False
    """Whether it has items and a task_status."""
    yielded: int = 0
    received: int = 0
    waiting: deque[int] = field(default_factory=deque)
    """Sizes of the items that have arrived but have not been consumed."""
    used: list[int] = field(default_factory=lambda: [0, 0])
    """Items and bytes consumed since credit was last granted."""
    items_ended: bool = False
    has_started: int = 0
    heard_started: int = 0


@dataclass
class End:
    """One end: its protocol, its outgoing link, and the model's record of it."""

    protocol: Protocol
    link: deque[bytes] = field(default_factory=deque)
    calls: dict[int, Call] = field(default_factory=dict)
    """The calls that it has made."""
    running: list[int] = field(default_factory=list)
    """Calls by the peer whose handlers run at this end."""
    notifications_sent: Counter = field(default_factory=Counter)
    notifications_heard: Counter = field(default_factory=Counter)
    notifications_running: int = 0
    pings: list[int] = field(default_factory=list)
    pongs: list[int] = field(default_factory=list)
    goodbyes_heard: int = 0


class TwoEnds(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        pair = Pair()
        self.ends = {"a": End(pair.a), "b": End(pair.b)}
        for end in self.ends.values():
            end.protocol._outbox.resize(MAX_PACKET)
        self.number = 0

    def other(self, side: str) -> End:
        return self.ends["b" if side == "a" else "a"]

    @initialize(side=SIDES, sizes=st.lists(SIZES, max_size=3))
    def begin_with_some_calls(self, side, sizes):
        for size in sizes:
            self._request(side, size, None)

    # ── asking ───────────────────────────────────────────────────────────────────────────────

    @rule(side=SIDES, size=SIZES)
    def call(self, side, size):
        self._request(side, size, None)

    @rule(side=SIDES, size=SIZES, pick=PICKS)
    def call_within_a_call(self, side, size, pick):
        running = self.ends[side].running
        if running:
            self._request(side, size, running[pick % len(running)])

    @rule(side=SIDES, size=SIZES, pick=PICKS)
    def call_with_items(self, side, size, pick):
        running = self.ends[side].running
        parent = running[pick % len(running)] if running and pick < 3 else None
        self._request(side, size, parent, has_items=True)

    def _request(self, side, size, parent, *, has_items=False):
        end = self.ends[side]
        context = {} if parent is None else {"parent": parent}
        if has_items:
            context |= {"stream": WINDOW, "task_status": True}
        context = context or None
        if not (end.protocol.has_call_credit and self._may_call(end, parent)):
            with pytest.raises(LocalProtocolError):
                end.protocol.request("method", [b"x" * size], None, context)
            return
        number = end.protocol.request("method", [b"x" * size], None, context)
        assert number not in end.calls
        end.calls[number] = Call(parent=parent, has_items=has_items)

    def _may_call(self, end, parent):
        return parent is not None or end.protocol.ours is end.protocol.theirs is Half.OPEN

    @rule(side=SIDES, size=SIZES, pick=PICKS, nested=st.booleans())
    def notify(self, side, size, pick, nested):
        end = self.ends[side]
        parent = end.running[pick % len(end.running)] if nested and end.running else None
        context = None if parent is None else {"parent": parent}
        self.number += 1
        args = [self.number, b"x" * size]
        if not (end.protocol.notification_credit and self._may_call(end, parent)):
            with pytest.raises(LocalProtocolError):
                end.protocol.notify("method", args, None, context)
            return
        end.protocol.notify("method", args, None, context)
        end.notifications_sent[self.number] += 1

    @rule(side=SIDES, pick=PICKS)
    def cancel(self, side, pick):
        end = self.ends[side]
        if not end.calls:
            return
        pending = [number for number, call in end.calls.items() if call.outcome is None]
        numbers = pending or list(end.calls)
        self._cancel(end, numbers[pick % len(numbers)])

    def _cancel(self, end, number):
        call = end.calls[number]
        if end.protocol.cancel(number, "stop"):
            assert call.outcome is None
            assert not call.started
            call.outcome = "withdrawn"
        elif call.outcome is None:
            call.cancelled = True

    @rule(side=SIDES, pick=PICKS)
    def abandon(self, side, pick):
        end = self.ends[side]
        pending = [number for number, call in end.calls.items() if call.outcome is None]
        if pending:
            number = pending[pick % len(pending)]
            end.protocol.abandon(number)
            end.calls[number].outcome = "abandoned"

    @rule(side=SIDES)
    def ping(self, side):
        end = self.ends[side]
        end.pings.append(end.protocol.ping())

    @precondition(lambda self: any(e.protocol.ours is Half.OPEN for e in self.ends.values()))
    @rule(side=SIDES, pick=PICKS)
    def goodbye(self, side, pick):
        end = self.ends[side]
        if pick < 3 and end.protocol.ours is Half.OPEN:  # rarely, so that most sessions go on
            end.protocol.goodbye("done")

    # ── answering ────────────────────────────────────────────────────────────────────────────

    @rule(side=SIDES, pick=PICKS, size=SIZES, fine=st.booleans())
    def handler_ends(self, side, pick, size, fine):
        running = self.ends[side].running
        if running:
            self._end_handler(side, running[pick % len(running)], size, fine=fine)

    def _end_handler(self, side, number, size, *, fine):
        end = self.ends[side]
        end.running.remove(number)
        call = self.other(side).calls[number]
        assert call.answer is None
        if fine:
            call.answer = ("result", [number, b"x" * size])
            end.protocol.reply(number, call.answer[1])
        else:
            call.answer = ("error", {"code": "raised", "message": "x" * size})
            end.protocol.reply_error(number, call.answer[1])
        with pytest.raises(LocalProtocolError):
            end.protocol.reply(number, None)

    @rule(side=SIDES, pick=PICKS, size=SIZES)
    def handler_yields(self, side, pick, size):
        _, number = self._pick_running(side, pick)
        if number is not None:
            self._yield(side, number, size)

    def _yield(self, side, number, size):
        end, call = self.ends[side], self.other(side).calls[number]
        item = [call.yielded + 1, b"x" * size]
        if end.protocol.may_send_item(number):
            assert call.has_items
            end.protocol.item(number, item)
            call.yielded += number in end.protocol.incoming and not call.handler_was_cancelled
        else:
            with pytest.raises(LocalProtocolError):
                end.protocol.item(number, item)

    @rule(side=SIDES, sizes=st.lists(SIZES, min_size=1, max_size=5), more=st.integers(0, 2))
    def stream_of_several_items(self, side, sizes, more):
        """Send several items in a row, which independent steps seldom do."""
        end, other = self.ends[side], self.other(side)
        if not (end.protocol.has_call_credit and self._may_call(end, None)):
            return
        self._request(side, 0, None, has_items=True)
        number = max(end.calls)
        while end.protocol.has_data or end.link:
            self.write(side, 1)
            self.deliver(side, 1)
        if number not in other.running:
            return
        there = "b" if side == "a" else "a"
        for size in sizes:
            self._yield(there, number, size)
        if more == 1:
            other.protocol.end_items(number)
            end.calls[number].items_ended = True
        elif more == 2:
            self._end_handler(there, number, 0, fine=True)

    @rule(side=SIDES, pick=PICKS)
    def handler_ends_its_items(self, side, pick):
        end, number = self._pick_running(side, pick)
        if number is not None and pick < 2:
            end.protocol.end_items(number)
            self.other(side).calls[number].items_ended = True

    @rule(side=SIDES, pick=PICKS, size=SIZES)
    def handler_has_started(self, side, pick, size):
        end, number = self._pick_running(side, pick)
        if number is None:
            return
        call = self.other(side).calls[number]
        if call.has_items and not call.has_started:
            end.protocol.started(number, b"x" * size)
            call.has_started = 1
        else:
            with pytest.raises(LocalProtocolError):
                end.protocol.started(number, None)

    def _pick_running(self, side, pick):
        end = self.ends[side]
        return end, end.running[pick % len(end.running)] if end.running else None

    @rule(side=SIDES, pick=PICKS, grant=st.booleans())
    def consumer_takes(self, side, pick, grant):
        end = self.ends[side]
        ready = [(number, call) for number, call in end.calls.items() if call.waiting]
        if not ready:
            return
        number, call = ready[pick % len(ready)]
        call.used[0] += 1
        call.used[1] += call.waiting.popleft()
        if grant:
            end.protocol.grant_items(number, *call.used)
            call.used = [0, 0]

    @rule(side=SIDES)
    def notification_ends(self, side):
        end = self.ends[side]
        if end.notifications_running:
            end.notifications_running -= 1
            end.protocol.grant_notifications(1)

    # ── the link ─────────────────────────────────────────────────────────────────────────────

    @rule(side=SIDES, size=SIZES, written=st.integers(0, 2))
    def call_and_cancel(self, side, size, written):
        """Cancel a call, often after half of its Request has left and with others behind it."""
        end = self.ends[side]
        if not (end.protocol.has_call_credit and self._may_call(end, None)):
            return
        self._request(side, size, None)
        number = max(end.calls)
        self._request(side, 30, None)
        for _ in range(written):
            self.write(side, 1)
        self._cancel(end, number)

    @rule(side=SIDES, count=st.integers(1, 3))
    def write(self, side, count):
        end = self.ends[side]
        for _ in range(count):
            packet = end.protocol.next_packet()
            if packet is not None:
                assert 0 < len(packet) <= MAX_PACKET
                end.link.append(packet)

    @rule(side=SIDES, count=st.integers(1, 3))
    def deliver(self, side, count):
        """Deliver packets that ``side`` has written."""
        sender, receiver = self.ends[side], self.other(side)
        for _ in range(min(count, len(sender.link))):
            for event in receiver.protocol.receive(sender.link.popleft()):
                getattr(self, f"on_{type(event).__name__.lower()}")(sender, receiver, event)
                self.tables_agree()

    def on_request(self, sender, receiver, request):
        call = sender.calls[request.id]
        assert not call.started
        assert call.outcome in (None, "abandoned")
        call.started = True
        assert (request.context or {}).get("parent") == call.parent
        if receiver.goodbyes_heard:
            assert call.parent is not None
        receiver.running.append(request.id)

    def on_notification(self, sender, receiver, notification):
        number = notification.args[0]
        receiver.notifications_heard[number] += 1
        receiver.notifications_running += 1
        assert receiver.notifications_running <= MAX_NOTIFICATIONS
        assert receiver.notifications_heard[number] == 1

    def on_cancel(self, sender, receiver, cancel):
        call = sender.calls[cancel.id]
        assert call.cancelled
        assert not call.handler_was_cancelled
        assert cancel.id in receiver.running
        call.handler_was_cancelled = True

    def on_reply(self, sender, receiver, reply):
        call = receiver.calls[reply.id]
        assert call.outcome is None
        assert call.answer == ("result", reply.result)
        assert call.received == call.yielded or call.cancelled
        assert call.heard_started == call.has_started or call.cancelled
        call.outcome = "result"

    def on_replyerr(self, sender, receiver, reply):
        call = receiver.calls[reply.id]
        assert call.outcome is None
        code = reply.error["code"]
        if code == "unavailable":  # it crossed a Goodbye or its parent's end
            assert not call.started
            assert sender.protocol.ours is Half.LEAVING or (
                receiver.protocol.ours is Half.LEAVING and call.parent is not None
            )
        elif code == "cancelled":  # while its result was being sent
            assert call.cancelled
            assert call.answer is not None
        else:
            assert call.answer == ("error", reply.error)
        call.outcome = code

    def on_item(self, sender, receiver, item):
        call = receiver.calls[item.id]
        assert call.outcome is None
        assert not call.cancelled
        assert item.value[0] == call.received + 1 <= call.yielded  # in order, without gaps
        call.received += 1
        call.waiting.append(item.size)
        assert len(call.waiting) <= WINDOW[0]
        assert sum(call.waiting) - call.waiting[-1] < WINDOW[1]

    def on_endofitems(self, sender, receiver, end):
        call = receiver.calls[end.id]
        assert call.items_ended
        assert call.received == call.yielded

    def on_started(self, sender, receiver, started):
        call = receiver.calls[started.id]
        assert call.has_started
        call.heard_started += 1
        assert call.heard_started == 1
        assert call.outcome is None

    def on_pong(self, sender, receiver, pong):
        if receiver.protocol.is_paced_by(pong):
            receiver.protocol.allow_pieces(1000)
        receiver.pongs.append(pong.number)

    def on_goodbye(self, sender, receiver, goodbye):
        receiver.goodbyes_heard += 1
        assert receiver.goodbyes_heard == 1
        # Goodbye overtakes no call: those outside other calls have arrived or were withdrawn.
        for call in sender.calls.values():
            if call.parent is None and call.outcome is None and receiver.protocol.ours is Half.OPEN:
                assert call.started

    def on_credit(self, sender, receiver, credit):
        if credit.id is not None:
            assert credit.id in receiver.running
            assert sender.calls[credit.id].has_items
        assert receiver.protocol.notification_credit <= MAX_NOTIFICATIONS

    # ── invariants, and checks at the end ───────────────────────────────────────────────────

    @invariant()
    def tables_agree(self):
        for caller, callee in (("a", "b"), ("b", "a")):
            out = self.ends[caller].protocol.outgoing
            incoming = self.ends[callee].protocol.incoming
            assert set(incoming) <= set(out)
            assert len(out) <= MAX_CALLS
            assert set(self.ends[callee].running) <= set(incoming)
            for end in self.ends.values():
                streams = (end.protocol._taken, end.protocol._given)
                for table, calls in zip(
                    streams, (end.protocol.outgoing, end.protocol.incoming), strict=True
                ):
                    assert set(table._windows) | table._to_start <= set(calls)

    @invariant()
    def outcomes_agree_with_the_table(self):
        for end in self.ends.values():
            pending = {n for n, call in end.calls.items() if call.outcome is None}
            abandoned = {n for n, call in end.calls.items() if call.outcome == "abandoned"}
            assert pending <= set(end.protocol.outgoing) <= pending | abandoned

    def teardown(self):
        while any(
            end.running or end.notifications_running or end.link or end.protocol.has_data
            for end in self.ends.values()
        ):
            for side, end in self.ends.items():
                for number in list(end.running):
                    self._end_handler(side, number, 0, fine=True)
                self.notification_ends(side)
                self.write(side, 1)
                self.deliver(side, 1)
        for side, end in self.ends.items():
            protocol, other = end.protocol, self.other(side)
            assert protocol.outgoing == protocol.incoming == {}
            assert protocol.bytes_waiting == 0
            assert protocol._pieces is None
            assert not protocol._taken._windows
            assert not protocol._given._windows
            assert not protocol._taken._to_start
            assert not protocol._given._to_start
            assert all(call.outcome is not None for call in end.calls.values())
            assert protocol.notification_credit == MAX_NOTIFICATIONS
            lost = end.notifications_sent - other.notifications_heard
            # Ignored by rule: it crossed a Goodbye or, after a Goodbye, the end of its parent.
            assert not lost or Half.LEAVING in (end.protocol.ours, other.protocol.ours)
            assert not other.notifications_heard - end.notifications_sent
            assert max(end.pongs, default=0) >= max(end.pings, default=0)
            assert end.pongs == sorted(end.pongs)


TwoEnds.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestTwoEnds = TwoEnds.TestCase
