"""connect(wait=…): a client of a server that is starting, or that has too many sessions for now."""

from __future__ import annotations

import pytest
import trio
from helpers.handlers import Echo

import trio_rpc
from trio_rpc import Refused, ServerLimits, connect, connect_in, open_server


@pytest.fixture(autouse=True)
async def no_hang():
    """Bound the real time that a test over sockets may take."""
    with trio.fail_after(20):
        yield


async def test_connect_waits_for_a_server_that_is_starting(nursery, tmp_path):
    url = f"unix://{tmp_path}/late"

    @nursery.start_soon
    async def serve_later():
        await trio.sleep(0.1)
        await trio_rpc.serve(Echo(), url)

    async with connect(url, wait=15) as session:
        assert await session.call("echo", 1) == 1
    session = await connect_in(nursery, url, wait=15)
    assert await session.call("echo", 2) == 2
    nursery.cancel_scope.cancel()


async def test_connect_gives_up_after_its_time(tmp_path):
    began = trio.current_time()
    with pytest.raises(OSError, match="cannot connect"):
        async with connect(f"unix://{tmp_path}/nobody", wait=0.3):
            raise AssertionError("it must not connect")
    assert trio.current_time() - began < 5


async def test_a_refusal_that_will_not_pass_is_raised_at_once():
    async def refuse(session, credentials):
        raise Refused("unknown token")

    async with open_server(Echo(), "tcp://127.0.0.1:0", authenticate=refuse) as server:
        with pytest.raises(Refused, match="unknown token") as caught:
            async with connect(server.urls[0], wait=10_000):
                raise AssertionError("it must not connect")
        assert caught.value.retry_after is None


@pytest.mark.parametrize("resume", [False, True])
async def test_one_session_too_many_is_refused_and_told_when_to_come_back(resume):
    url = "tcp://127.0.0.1:0"
    async with open_server(
        Echo(), url, resume=resume, server_limits=ServerLimits(max_sessions=2)
    ) as server:
        url = server.urls[0]
        async with connect(url, resume=resume) as first, connect(url, resume=resume) as second:
            for each in (first, second):
                await each.call("echo", 1)  # so it is also open at the other end
            with pytest.raises(Refused, match="has 2 sessions") as caught:
                async with connect(url, resume=resume):
                    raise AssertionError("it must not connect")
            assert caught.value.retry_after == 1
            assert len(server.sessions) == 2
        async with trio.open_nursery() as nursery:
            async with (
                connect(url, resume=resume, wait=15) as first,
                connect(url, resume=resume, wait=15) as second,
            ):
                for each in (first, second):
                    await each.call("echo", 1)

                @nursery.start_soon
                async def wait():
                    async with connect(url, resume=resume, wait=15) as session:
                        assert await session.call("echo", 1) == 1

                await trio.sleep(0.1)


@pytest.mark.parametrize("wrong", [{"wait": -1}, {"wait": "long"}])
async def test_a_wrong_time_to_wait(wrong):
    with pytest.raises((TypeError, ValueError)):
        async with connect("tcp://127.0.0.1:1", **wrong):
            pass


@pytest.mark.parametrize("wrong", [0, -1, "long"])
async def test_a_wrong_age_of_sessions(wrong):
    with pytest.raises((TypeError, ValueError)):
        async with open_server(Echo(), "tcp://127.0.0.1:0", max_session_age=wrong):
            pass
