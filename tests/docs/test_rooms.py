"""The chat of docs/how-to/rooms.md removes members that do not read, and no others."""

from __future__ import annotations

import runpy

import pytest
import trio
from helpers.pages import ROOT

import trio_rpc
from trio_rpc.testing import open_session_pair

LINES = 500
"""More lines than an outbox holds."""


@pytest.fixture
def chat():
    return runpy.run_path(str(ROOT / "examples/how_to/rooms.py"))["Chat"]()


async def test_a_long_text_that_one_member_pastes_makes_no_other_member_leave(chat, autojump_clock):
    async with (
        open_session_pair({"chat": chat}) as (_, session),
        session.duplex("chat.join", "lobby", "ann") as ann,
        session.duplex("chat.join", "lobby", "bob") as bob,
        trio.open_nursery() as nursery,
    ):
        assert [await ann.receive(), await ann.receive()] == ["ann has joined", "bob has joined"]
        assert await bob.receive() == "bob has joined"

        async def paste() -> None:
            for number in range(LINES):
                await ann.send(str(number))

        nursery.start_soon(paste)
        heard = [await bob.receive() for _ in range(LINES)]
        assert heard == [f"ann: {number}" for number in range(LINES)]


async def test_a_member_that_does_not_read_leaves(chat, autojump_clock):
    options = {"limits": trio_rpc.Limits(stream_items=10)}
    async with (
        open_session_pair({"chat": chat}, options_b=options) as (_, session),
        session.duplex("chat.join", "lobby", "ann") as ann,
        session.duplex("chat.join", "lobby", "bob") as bob,
        trio.open_nursery() as nursery,
    ):

        async def talk() -> None:
            for number in range(LINES):
                await ann.send(str(number))

        nursery.start_soon(talk)
        heard = [await ann.receive() for _ in range(3)]
        assert heard == ["ann has joined", "bob has joined", "bob has left"]
        assert len([line async for line in bob]) < LINES
        nursery.cancel_scope.cancel()
