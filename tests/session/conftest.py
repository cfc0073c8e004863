"""Fixtures for the tests of sessions: a mock clock, and sessions over each transport.

A test of the behaviour of sessions takes the fixture ``session_pair`` and calls it in place of
``trio_rpc.testing.open_session_pair``, with the same arguments. It then runs once over each
transport. All runs except those in memory are slow. ``--transport tcp`` chooses one. A test that
makes its own channels, or that does not depend on the transport, calls ``open_session_pair``.
If it does so without channels, ``tests/transports/test_transports.py`` lists it.
"""

from __future__ import annotations

import contextlib
import math

import pytest
import trio
from helpers.nats_server import MISSING, find_program
from helpers.tls import make_contexts
from helpers.transports import IN_MEMORY, KINDS, Transport
from trio.testing import MockClock

from trio_rpc import DEFAULT_LIMITS
from trio_rpc.codecs import JsonCodec
from trio_rpc.testing import open_session_pair

NOT_IN_JSON = {
    "test_a_large_call_is_sent_and_arrives_with_its_last_piece": "counts bytes, as the next one",
    "test_the_bytes_of_unread_items_pause_the_generator": "counts bytes, which are more in base64",
}
"""Tests that do not hold over JSON, with the reason."""


def pytest_generate_tests(metafunc):
    """Run each test that takes ``session_pair`` over each transport, or over the chosen ones."""
    if "session_pair" in metafunc.fixturenames:
        kinds = metafunc.config.getoption("--transport") or KINDS
        if metafunc.function.__name__ in NOT_IN_JSON:
            kinds = [kind for kind in kinds if kind != "json"]
        if unknown := set(kinds) - set(KINDS):
            raise pytest.UsageError(f"--transport: {unknown} are not among {KINDS}")
        slow = [pytest.mark.slow] if len(kinds) > 1 else []
        marks = dict.fromkeys(kinds, slow) | {"memory": []}
        if find_program() is None:
            marks["nats-server"] = [*slow, pytest.mark.skip(reason=MISSING)]
        runs = [pytest.param(kind, marks=marks[kind]) for kind in kinds]
        metafunc.parametrize("session_pair", runs, indirect=True)


def _is_in_memory(request):
    """Tell whether a test uses no sockets, threads or pipes, so that its clock sees all it does."""
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    return parameters.get("session_pair", "memory") in IN_MEMORY


@pytest.fixture
async def session_pair(request, nursery, tmp_path, server_tls, monkeypatch):
    """Return a function like ``open_session_pair`` whose sessions are joined by one transport."""
    transport = Transport(request.param, nursery, tmp_path, server_tls)
    if request.param == "nats-server":
        transport.real.take_over(monkeypatch)
        clock = trio.lowlevel.current_clock()
        if isinstance(clock, MockClock) and clock.autojump_threshold < math.inf:
            clock.autojump_threshold = math.inf
            nursery.start_soon(transport.real.run_clock, clock)

    @contextlib.asynccontextmanager
    async def open_over_transport(services_a=None, services_b=None, **options):
        if request.param == "json":
            for end in ("options_a", "options_b"):
                options[end] = {"codec": JsonCodec(), **options.get(end, {})}
        limits = [options.get(f"options_{end}", {}).get("limits", DEFAULT_LIMITS) for end in "ab"]
        async with (
            transport.join(*limits) as channels,
            open_session_pair(services_a, services_b, channels=channels, **options) as pair,
        ):
            yield pair

    return open_over_transport


@pytest.fixture
def autojump_clock(request):
    """Make a mock clock that jumps when no task can run.

    With sockets it waits a little first, because bytes may still be on their way.
    """
    return MockClock(autojump_threshold=0 if _is_in_memory(request) else 0.01)


@pytest.fixture
def no_time(autojump_clock):
    """Make a mock clock that jumps, and check that the test took none of its time."""
    started = autojump_clock.current_time()
    yield autojump_clock
    assert autojump_clock.current_time() == started, "a task waited for a timeout"


@pytest.fixture
async def tasks():
    """Return a function that counts tasks, to find tasks that outlive their session."""

    def count():
        return trio.lowlevel.current_statistics().tasks_living

    return count


@pytest.fixture(scope="session")
def server_tls():
    return make_contexts()


@pytest.fixture(autouse=True)
async def watchdog(request):
    """End a test that hangs: the mock clock jumps to this time if no task waits for an earlier one.

    Over sockets it would jump while a thread is at work. For those tests pytest's timeout suffices.
    """

    async def fail_when_idle():
        await trio.sleep(3_000)
        raise AssertionError("this test hangs")

    async with trio.open_nursery() as nursery:
        if _is_in_memory(request):
            nursery.start_soon(fail_when_idle)
        yield
        nursery.cancel_scope.cancel()
