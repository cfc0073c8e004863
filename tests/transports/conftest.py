"""Every transport that a session can run over, as a parameter.

A new one takes its name in ``KINDS``, and a branch in ``Transport.join`` if it is not opened by URL.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import threading
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from trio_rpc.channels import carrier_limits
from trio_rpc.channels.connection import owned
from trio_rpc.testing import memory_channel_pair
from trio_rpc.util.one_exception import one_exception
from trio_rpc.wire.limits import DEFAULT_LIMITS

TESTS = Path(__file__).parents[1]
for _folder in ("session", "channels", "faults"):
    # What these suites share among themselves is shared with this one too.
    if str(TESTS / _folder) not in sys.path:
        sys.path.append(str(TESTS / _folder))

from channel_pairs import Held, child_channels, connected_by  # noqa: E402 - found by what stands above
from forwarding_pairs import open_channel_pair  # noqa: E402 - likewise
from resumable_town import Town  # noqa: E402 - likewise


def _conftest(folder):
    path = TESTS / folder / "conftest.py"
    spec = importlib.util.spec_from_file_location(f"{folder}_conftest", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_of_sessions = _conftest("session")
no_time, tasks, server_tls = _of_sessions.no_time, _of_sessions.tasks, _of_sessions.server_tls


@pytest.fixture
def autojump_clock():
    """A mock clock that jumps when nothing has happened for a while of real time.

    What is on its way between two sockets counts as something that happens.
    """
    return MockClock(autojump_threshold=0.01)


KINDS = ("memory", "tcp", "tls", "unix", "ws", "wss", "process", "forwarding", "resumable")


@contextlib.asynccontextmanager
async def open_resumable_pair(*limits):
    """Own both ends of a resumable channel in memory for a block."""
    largest = max(limits, key=lambda each: each.max_packet, default=DEFAULT_LIMITS)
    with one_exception() as body:
        async with trio.open_nursery() as nursery:
            try:
                yield await Town(nursery, limits=carrier_limits(largest)).pair()
            except BaseException as exc:
                body.append(exc)
                raise
            finally:
                nursery.cancel_scope.cancel()


HANGS_AFTER = 120
"""Seconds of real time; the longest test takes a twentieth of that."""


class Transport:
    """Joins two ends; what it opens lives in ``nursery``."""

    def __init__(self, kind, nursery, tmp_path, contexts):
        self.kind = kind
        self._nursery = nursery
        self._url = f"unix://{tmp_path}/socket" if kind == "unix" else f"{kind}://127.0.0.1:0"
        self._contexts = contexts if kind in ("tls", "wss") else (None, None)

    def __repr__(self):
        return f"<Transport {self.kind}>"

    @contextlib.asynccontextmanager
    async def join(self, *limits):
        """Own both ends of a connection for a block, which raises what its body raises."""
        if self.kind == "memory":
            yield memory_channel_pair()
            return
        if self.kind == "forwarding":
            async with open_channel_pair(*limits) as ends:
                yield ends
            return
        if self.kind == "resumable":
            async with open_resumable_pair(*limits) as ends:
                yield ends
            return
        held = Held(self._nursery), Held(self._nursery)
        try:
            if self.kind == "process":
                ends = await child_channels(*limits)
                yield [await each.enter(owned(end)) for each, end in zip(held, ends, strict=True)]
            else:
                yield await connected_by(held, self._url, *self._contexts, limits)
        finally:
            with trio.CancelScope(shield=True):
                for each in held:
                    await each.leave()


@pytest.fixture(params=KINDS)
async def transport(request, nursery, tmp_path, server_tls):
    """Each transport in turn."""

    async def bark():
        # No deadline of the mock clock's: it would jump there while a thread of ours is at work.
        hangs = trio.Event()
        token = trio.lowlevel.current_trio_token()
        timer = threading.Timer(HANGS_AFTER, token.run_sync_soon, (hangs.set,))
        timer.daemon = True
        timer.start()
        try:
            await hangs.wait()
            raise AssertionError("this test hangs")
        finally:
            timer.cancel()

    nursery.start_soon(bark)
    return Transport(request.param, nursery, tmp_path, server_tls)
