"""The loop of docs/how-to/deadlines.md repeats the calls that may succeed, and no others."""

from __future__ import annotations

import runpy

import pytest
import trio
from helpers.pages import ROOT

import trio_rpc
from trio_rpc.testing import open_session_pair


class Service:
    def __init__(self):
        self.refusals = 0

    @trio_rpc.method
    async def work(self, x: int = 0) -> int:
        return x

    async def refuse(self, call, proceed):
        if self.refusals:
            self.refusals -= 1
            raise trio_rpc.Overloaded("busy")
        return await proceed()


@pytest.fixture
def retried():
    return runpy.run_path(str(ROOT / "examples/how_to/deadlines.py"))["retried"]


async def test_a_refused_call_is_repeated_until_it_is_accepted(retried, autojump_clock):
    service = Service()
    async with open_session_pair(service, options_a={"filters": [service.refuse]}) as (_, client):
        service.refusals = 5
        assert await retried(lambda: client.call("work", 7)) == 7
    assert service.refusals == 0


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (("work", object()), trio_rpc.EncodeError),
        (("work", "seven"), trio_rpc.InvalidArguments),
        (("play",), trio_rpc.MethodNotFound),
    ],
)
async def test_a_call_that_would_fail_again_is_not_repeated(retried, autojump_clock, args, error):
    async with open_session_pair(Service()) as (_, client):
        with trio.fail_after(60), pytest.raises(error) as caught:
            await retried(lambda: client.call(*args))
    assert caught.value.fate is trio_rpc.Fate.NOT_STARTED


@pytest.mark.parametrize("is_ours", [True, False])
async def test_a_call_of_a_session_that_is_over_is_not_repeated(retried, autojump_clock, is_ours):
    async with open_session_pair(Service(), on_end="keep") as (server, client):
        await (client if is_ours else server).aclose()
        await client.wait_closed()
        expected = trio_rpc.SessionClosed if is_ours else trio_rpc.SessionBroken
        with trio.fail_after(60), pytest.raises(expected):
            await retried(lambda: client.call("work"))
