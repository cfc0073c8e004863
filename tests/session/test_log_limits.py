"""Logging of a peer's mistakes is rate-limited."""

from __future__ import annotations

import contextlib
import logging

import pytest
import trio
from helpers.forwarding_pairs import open_forwarding_pair

import trio_rpc
from trio_rpc.testing import open_session_pair
from trio_rpc.util.rate_limited_log import LINES, RateLimitedLog


async def test_after_the_allowed_lines_a_minute_the_others_are_only_counted(autojump_clock, caplog):
    limited_log = RateLimitedLog(logging.getLogger("test"))
    for _ in range(100_000):
        limited_log.log(logging.WARNING, "wrong")
    assert len(caplog.records) == LINES
    await trio.sleep(60)
    limited_log.log(logging.WARNING, "wrong again")
    assert [record.getMessage() for record in caplog.records[LINES:]] == [
        f"{100_000 - LINES} more lines were not logged",
        "wrong again",
    ]


async def test_a_flood_of_bad_notifications_logs_a_few_lines(caplog):
    class Fails:
        @trio_rpc.notification
        def fail(self):
            raise ValueError("no")

    async with open_session_pair(None, Fails()) as (a, _):
        for _ in range(2000):
            await a.notify("fail")
            await a.notify("no.such.thing")
        await a.ping()
    assert 0 < len(caplog.records) <= 2 * LINES  # the failing notification has its own limit


class Wrong:
    """A service, and the mistakes that a peer can make with it."""

    @trio_rpc.notification
    def fine(self, number: int) -> None: ...


def refuses(_call, _proceed):
    raise trio_rpc.InvalidArguments("not today")


async def unknown(session):
    await session.notify("no.such.thing")


async def wrong_arguments(session):
    await session.notify("fine", "no number")


async def refused(session):
    await session.notify("fine", 1)


@pytest.mark.parametrize("mistake", [unknown, wrong_arguments, refused])
@pytest.mark.parametrize("resume", [False, True])
async def test_a_peer_that_reconnects_gets_no_further_lines(caplog, mistake, resume):
    options = {"filters": [refuses]} if mistake is refused else {}
    with trio.fail_after(20):
        async with trio_rpc.open_server(
            Wrong(), "tcp://127.0.0.1:0", resume=resume, **options
        ) as server:
            for _ in range(10):
                async with trio_rpc.connect(server.urls[0], resume=resume) as session:
                    for _ in range(LINES // 2):
                        await mistake(session)
                    await session.ping()
    assert len(caplog.records) == LINES


async def test_sessions_without_a_server_share_one_rate_limit(no_time, caplog):
    for _ in range(3):
        async with open_session_pair(None, Wrong()) as (a, _):
            for _ in range(LINES // 2):
                await unknown(a)
            await a.ping()
    assert len(caplog.records) == LINES


async def test_each_log_level_has_its_own_limit(caplog):
    caplog.set_level(logging.INFO)
    limited_log = RateLimitedLog(logging.getLogger("test"))
    for level in (logging.INFO, logging.WARNING, logging.ERROR):
        for _ in range(2 * LINES):
            limited_log.log(level, "wrong")
    levels = [record.levelno for record in caplog.records]
    assert [levels.count(level) for level in (20, 30, 40)] == [LINES, LINES, LINES]


@contextlib.asynccontextmanager
async def sessions_over_channels(service, count):
    """Serve over forwarded channels, as a program with plugins does; yield sessions in turn."""

    async def serve(channel):
        await trio_rpc.serve_session(channel, service)

    async def sessions():
        for _ in range(count):
            channel = await opener.open("service")
            async with trio_rpc.open_session(channel) as session:
                yield session

    async with open_forwarding_pair(None, {"service": serve}) as (opener, _):
        async with contextlib.aclosing(sessions()) as opened:
            yield opened


@pytest.mark.parametrize("does", [unknown, wrong_arguments])
async def test_a_peer_that_opens_more_channels_gets_no_further_lines(no_time, caplog, does):
    for _ in range(2):
        async with sessions_over_channels(Wrong(), 5) as sessions:
            async for session in sessions:
                for _ in range(LINES // 2):
                    await does(session)
                await session.ping()
    assert len(caplog.records) == LINES


async def test_a_bug_is_logged_no_more_often_for_a_peer_that_opens_more_channels(no_time, caplog):
    class Fails:
        @trio_rpc.method
        def fail(self):
            raise ZeroDivisionError

    async with sessions_over_channels(Fails(), 5) as sessions:
        async for session in sessions:
            for _ in range(LINES // 2):
                with pytest.raises(ZeroDivisionError):
                    await session.call("fail")
    assert len(caplog.records) == LINES


async def test_peers_that_break_the_protocol_of_a_session_hide_no_failures_of_handlers(
    no_time, caplog
):
    caplog.set_level(logging.INFO)

    async def serve(channel):
        await trio_rpc.serve_session(channel)

    async def fail(channel):
        raise KeyError("a bug")

    async with open_forwarding_pair(None, {"session": serve, "bug": fail}) as (opener, _):
        for packet in [b"\xc1"] * (LINES + 5):
            async with await opener.open("session") as channel:
                await channel.send(packet)
                with pytest.raises((trio.EndOfChannel, trio.BrokenResourceError)):
                    while True:
                        await channel.receive()
        with pytest.raises(trio_rpc.Refused):
            await opener.open("bug")
    levels = [record.levelno for record in caplog.records]
    assert levels == [logging.INFO] * LINES + [logging.ERROR]
    assert [bool(record.exc_info) for record in caplog.records] == [False] * LINES + [True]


async def test_unauthenticated_clients_can_neither_flood_the_log_nor_hide_failures(caplog):
    caplog.set_level(logging.INFO, "trio_rpc")

    async def authenticate(_session, credentials):
        if credentials == "bad":
            raise trio_rpc.Refused("no")
        raise KeyError("a bug")

    async def fail_to_connect(credentials):
        with pytest.raises((trio_rpc.Refused, trio_rpc.SessionBroken)):
            async with trio_rpc.connect(server.urls[0], credentials=credentials):
                raise AssertionError("it must not open")

    with trio.fail_after(20):
        async with trio_rpc.open_server(
            Wrong(), "tcp://127.0.0.1:0", authenticate=authenticate
        ) as server:
            for credentials in ("bad", "bug"):
                for _ in range(LINES + 5):
                    await fail_to_connect(credentials)
    texts = [record.getMessage() for record in caplog.records]
    assert sum("was not opened" in text for text in texts) == LINES
    assert sum("failed" in text for text in texts) == LINES


async def test_a_peer_that_never_ends_its_cancelled_calls_logs_a_few_lines(autojump_clock, caplog):
    class Stubborn:
        @trio_rpc.method
        async def stay(self):
            with trio.CancelScope(shield=True):
                await trio.sleep(50)

    limits = {"limits": trio_rpc.Limits(cancel_grace=0.1)}
    async with open_session_pair(None, Stubborn(), options_a=limits) as (a, _):
        for _ in range(2 * LINES):
            with trio.move_on_after(0.1):
                await a.call("stay")
        await trio.sleep(60)
    text = "stay at b did not end within 0.1 s of its cancellation and is abandoned"
    assert [each.getMessage() for each in caplog.records].count(text) == LINES
