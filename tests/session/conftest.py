"""What every test of sessions gets: a clock that nobody waits for."""

from __future__ import annotations

import ssl

import pytest
import trio
import trustme


@pytest.fixture
def no_time(autojump_clock):
    """A mock clock, and the assurance that the test took none of its time."""
    started = autojump_clock.current_time()
    yield autojump_clock
    assert autojump_clock.current_time() == started, "something waited for a time-out"


@pytest.fixture
async def tasks():
    """How many tasks there are, to find those that outlive their session."""

    def count():
        return trio.lowlevel.current_statistics().tasks_living

    return count


@pytest.fixture(scope="session")
def server_tls():
    ca = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost", "127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    ca.configure_trust(client)
    return server, client


@pytest.fixture(autouse=True)
async def watchdog():
    """End a test that hangs: where nobody else waits for a time, a mock clock jumps to this one."""

    async def bark():
        await trio.sleep(3_000)
        raise AssertionError("this test hangs")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bark)
        yield
        nursery.cancel_scope.cancel()
