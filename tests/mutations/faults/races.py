"""Faults that only a race shows: two things in one tick, or in the other order."""

from __future__ import annotations

from ..fault import fault

RACES = "session/test_races.py"

FAULTS = (
    fault(
        "a call that is answered in the tick of its cancellation is cancelled all the same",
        "session/outgoing.py",
        "            return False  # one that receives is cancelled in the tick in which the session ends\n",
        "            pass\n",
        RACES,
        "session/test_receiver.py",
    ),
    fault(
        "a result that crosses a Cancel is dropped",
        "protocol/protocol.py",
        "        self.counters.late_cancels += 1\n        if state is Incoming.ANSWERED and",
        "        self.counters.late_cancels += 1\n        if False and",
        "protocol/test_protocol_outbox.py",
        RACES,
    ),
    fault(
        "two callers that are let in together both pass, for one place",
        "session/admission.py",
        "        while not self._room():\n",
        "        while False:\n",
        RACES,
        "session/test_laws_order.py",
        "session/test_ends.py",
    ),
    fault(
        "a newcomer passes those who wait",
        "session/admission.py",
        "return not self._waiting and self._room() > self._let_in",
        "return self._room() > self._let_in",
        RACES,
        "session/test_laws_order.py",
    ),
    fault(
        "a cancelled caller keeps its place in the queue",
        "session/admission.py",
        "            waiting.remove(task)\n            return Abort.SUCCEEDED\n",
        "            return Abort.SUCCEEDED\n",
        RACES,
        "session/test_laws_order.py",
    ),
    fault(
        "a Goodbye is answered while notifications are being handled",
        "session/core.py",
        "            and not self.incoming.notifications_running\n",
        "",
        "session/test_ends.py",
        RACES,
    ),
    fault(
        "a callback of a cancelled call begins",
        "session/context.py",
        "return self.within is not None and self.within.raise_cancel is not None",
        "return False",
        RACES,
        "session/test_callbacks.py",
    ),
    fault(
        "a callback's deadline is not that of the handler that makes it",
        "session/outgoing.py",
        "        deadline = trio.current_effective_deadline()\n        if deadline != math.inf and deadline <= trio.current_time():",
        "        deadline = math.inf if callback else trio.current_effective_deadline()\n        if deadline != math.inf and deadline <= trio.current_time():",
        "session/test_callbacks.py",
        "session/test_laws.py",
    ),
    fault(
        "a cancelled call in a remote scope does not wait for its handler",
        "session/outgoing.py",
        "            if not pending.abandon_on_cancel:\n                self._expect_end(pending)\n",
        "            if not pending.abandon_on_cancel and pending.home is None:\n                self._expect_end(pending)\n",
        "session/test_remote_scopes.py",
    ),
    fault(
        "a remote scope ends before what was made in it",
        "session/scopes.py",
        "                while self._members:\n",
        "                while False:\n",
        "session/test_remote_scopes.py",
    ),
    fault(
        "a call begins in a remote scope that is ending",
        "session/incoming.py",
        "        if owner is None or owner.held is None or owner.held.is_ending:\n",
        "        if owner is None or owner.held is None:\n",
        "session/test_remote_scopes.py",
    ),
    fault(
        "an error that is too large for the peer ends its handler's task",
        "session/incoming.py",
        '            self._protocol.reply_error(call, {"code": error["code"], "message": ""})\n',
        "            raise\n",
        "session/test_laws_bounds.py",
        "session/test_handlers.py",
    ),
    fault(
        "a stream's consumer that is cancelled loses an item",
        "session/items.py",
        "        if self._items or self._why_not is not None:\n            await trio.lowlevel.checkpoint()\n        pending = self._pending\n",
        "        if self._items:\n            self._items.popleft()\n            await trio.lowlevel.checkpoint()\n        pending = self._pending\n",
        "session/test_streams.py",
    ),
    fault(
        "two tasks may receive from one stream",
        "session/items.py",
        "        if pending.task is not None:\n            await trio.lowlevel.checkpoint()\n            raise trio.BusyResourceError",
        "        if False:\n            await trio.lowlevel.checkpoint()\n            raise trio.BusyResourceError",
        "session/test_streams.py",
        hangs=True,
    ),
    fault(
        "draining ends one session after the other",
        "session/serving.py",
        "                nursery.start_soon(_close, session, grace)\n",
        "                await _close(session, grace)\n",
        "session/test_front_doors.py",
    ),
    fault(
        "a session that shook hands while the server drained stays open",
        "session/serving.py",
        "            if self._accepting.cancel_called:  #",
        "            if False:  #",
        "session/test_front_doors.py",
    ),
)
