"""Sessions over a real NATS server in tests with a mock clock, which cannot see that server.

``wait_all_tasks_blocked`` returns while messages are still in the server, and a mock clock that jumps
on its own would jump meanwhile. So a test over a real server uses two other functions:

- ``settle`` takes the place of ``wait_all_tasks_blocked``. A PING on each connection comes back after
  all messages before it: the first round shows that the server has passed on all messages, and
  the second one that they have arrived. This is repeated until nothing has moved.
- ``run_clock`` jumps to the next deadline, but only when everything is settled.
"""

from __future__ import annotations

import contextlib
import math
import sys

import trio
from trio.testing import wait_all_tasks_blocked

from helpers.nats_server import open_nats_ends

CUSHION = 0.002
"""Seconds without a task that can run, before the clock jumps: a thread may be at work."""


class RealPair:
    """Opens both ends of a channel over a server of its own process."""

    def __init__(self):
        self._connections = []
        self._channels = []
        self._sent = 0
        self._changing = 0
        """Pairs that are being opened or closed."""
        self._settling = 0
        """Tasks of the test that wait in ``settle``."""

    @contextlib.asynccontextmanager
    async def open(self, *limits):
        """Open both ends for the block."""
        self._changing += 1
        async with open_nats_ends(*limits) as (connections, channels):
            for nats in connections:
                self._count(nats._client)
                self._connections.append(nats)
            self._channels += channels
            self._changing -= 1
            try:
                yield channels
            finally:
                self._changing += 1
                for nats in connections:
                    del nats._client.publish_raw
                    self._connections.remove(nats)
                for channel in channels:
                    self._channels.remove(channel)
        self._changing -= 1

    def _count(self, client):
        """Count the messages that the channels of a client send."""
        publish_raw = client.publish_raw

        def counted(line, data):
            self._sent += 1
            publish_raw(line, data)

        client.publish_raw = counted

    def _moves(self):
        return self._sent + sum(channel.heard for channel in self._channels)

    async def settle(self, cushion=0.0):
        """Wait until all tasks are blocked, and nothing is on its way through the server."""
        self._settling += 1
        try:
            await self._settle(cushion)
        finally:
            self._settling -= 1

    async def _settle(self, cushion):
        while True:
            await wait_all_tasks_blocked(cushion)
            before = self._moves()
            for _ in range(2):
                for each in list(self._connections):
                    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                        await each.flush()
            await wait_all_tasks_blocked(cushion)
            if self._moves() == before:
                return

    async def run_clock(self, clock):
        """Advance a mock clock whenever everything is settled.

        It stands still while a pair is opened or closed. A task that waits in ``settle`` goes on
        first, as one in ``wait_all_tasks_blocked`` does before Trio lets a clock jump.
        """
        while True:
            await self._settle(CUSHION)
            seconds = trio.lowlevel.current_statistics().seconds_to_next_deadline
            if not self._changing and not self._settling and seconds < math.inf:
                clock.jump(max(0, seconds))

    def take_over(self, monkeypatch):
        """Make all modules of tests use ``settle`` in place of ``wait_all_tasks_blocked``."""
        monkeypatch.setattr(trio.testing, "wait_all_tasks_blocked", self.settle)
        for name, module in list(sys.modules.items()):
            is_ours = name.startswith("test_") or (name.startswith("helpers.") and name != __name__)
            if is_ours and hasattr(module, "wait_all_tasks_blocked"):
                monkeypatch.setattr(module, "wait_all_tasks_blocked", self.settle)
