"""Faults of pools: the choice of an instance, repetition, draining."""

from __future__ import annotations

from ..fault import fault

CALLS = "pool/test_calls.py"
DNS = "pool/test_dns.py"
INSTANCES = "pool/test_instances.py"

FAULTS = (
    fault(
        "a pool repeats a call of which it is unknown whether it ran",
        "pool/attempts.py",
        "        if not self.method.idempotent or TASK_STATUS in self._kwargs:\n            return False\n",
        "",
        CALLS,
    ),
    fault(
        "the budget of repetitions is never used up",
        "pool/attempts.py",
        "        if self._left < 1:\n            return False\n",
        "",
        CALLS,
    ),
    fault(
        "a call with an async generator is repeated",
        "pool/attempts.py",
        "        if _is_used_up(self._args) or _is_used_up(self._kwargs.values()):\n            return False\n",
        "",
        CALLS,
    ),
    fault(
        "a draining instance gets calls as any other",
        "pool/keeper.py",
        "            seat.is_draining = True\n",
        "            pass\n",
        INSTANCES,
    ),
    fault(
        "a suspect instance gets calls as any other",
        "pool/keeper.py",
        "                seat.is_suspect = is_suspect\n",
        "                pass\n",
        CALLS,
    ),
    fault(
        "the number of calls that wait for an instance has no bound",
        "pool/pool.py",
        "        if self._waiting >= self._max_waiting:\n",
        "        if False:\n",
        CALLS,
    ),
    fault(
        "a server says Goodbye before its clients have read that it drains",
        "server.py",
        "            await self._announce(self._options.limits.close_grace if grace is None else grace)\n",
        "            pass\n",
        INSTANCES,
    ),
    fault(
        "the block of a session of a pool outlives it",
        "pool/keeper.py",
        "                for body in seat.blocks:\n",
        "                for body in ():\n",
        INSTANCES,
        hangs=True,
    ),
    fault(
        "a call with an async generator in a field of an argument is repeated with the rest of it",
        "pool/attempts.py",
        "    return [getattr(value, name, None) for name in names]\n",
        "    return []\n",
        CALLS,
    ),
    fault(
        "a block of a pool's session opens in another Trio run",
        "pool/pool.py",
        "        self._owner.check()\n        seat = self._balancer.choose_other(attempts.tried)\n",
        "        seat = self._balancer.choose_other(attempts.tried)\n",
        CALLS,
    ),
    fault(
        "a note about the attempts replaces a frozen exception",
        "pool/attempts.py",
        "            add_note(exc, note)\n",
        "            exc.add_note(note)\n",
        CALLS,
    ),
    fault(
        "states of a pool are awaited in another Trio run",
        "pool/pool_states.py",
        "        self._owner.check()\n",
        "",
        CALLS,
        hangs=True,
    ),
    fault(
        "a caller that tries a pool without an instance again and again stops the program",
        "pool/pool.py",
        "        await trio.lowlevel.checkpoint()  # a caller that tries again and again stops nobody else\n",
        "",
        CALLS,
        hangs=True,
    ),
    fault(
        "a source of instances that never waits is read without a pause",
        "pool/sources.py",
        "await trio.sleep_until(began + 1)",
        "await trio.lowlevel.checkpoint()",
        INSTANCES,
        hangs=True,
    ),
    fault(
        "an address is dropped when one answer of the DNS lacks it",
        "pool/dns.py",
        "if address in addresses or count + 1 < PATIENCE",
        "if address in addresses",
        DNS,
    ),
)
