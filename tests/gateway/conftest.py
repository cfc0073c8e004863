"""Run the tests of served gateways on Trio, and as a guest of asyncio and of uvloop.

The tests on uvloop are slow tests.
"""

from __future__ import annotations

import inspect

import pytest
from helpers.asyncio_hosts import RUNNERS

ONLY_ON_TRIO = {
    "test_bad_connections.py": "tests the server for Trio",
    "test_standalone.py": "tests the server for Trio",
    "test_law_12_messages_that_clients_never_finish_are_bounded_in_bytes_together": "as these",
    "test_the_end_of_the_gateway_ends_its_connections_and_calls": "runs the gateway on Trio",
    "test_the_end_of_the_gateway_ends_calls_without_a_websocket": "runs the gateway on Trio",
}
"""Modules and tests, with the reason; test_under_asyncio.py has their counterparts."""


@pytest.fixture(autouse=True)
def server(request):
    """The kind of server of a test: "trio", "asyncio" or "uvloop"."""
    return getattr(request, "param", "trio")


def pytest_generate_tests(metafunc):
    """Run each test that serves a gateway under each kind of server."""
    function = metafunc.function
    if (
        not hasattr(metafunc.module, "hosting")
        or not inspect.iscoroutinefunction(function)
        or {metafunc.definition.path.name, function.__name__} & ONLY_ON_TRIO.keys()
        or {"autojump_clock", "mock_clock"} & set(metafunc.fixturenames)
    ):
        return
    hosts = [pytest.param(name, marks=_marks(name)) for name in RUNNERS]
    metafunc.parametrize("server", ["trio", *hosts], indirect=True)


def _marks(host):
    """Return the marks of a test under a host. Both hosts find nearly the same faults."""
    marks = [pytest.mark.trio(run=RUNNERS[host])]
    return [*marks, pytest.mark.slow] if host == "uvloop" else marks
