"""The handshake, authentication, and keepalive."""

from __future__ import annotations

import pytest
import trio
from helpers.handlers import Echo, Sleeper
from helpers.raw_peer import HELLO, RawPeer, session_with_raw_peer
from trio.testing import wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Fate, Limits, open_session
from trio_rpc.testing import Faults, memory_channel_pair, open_faulty_pair, open_session_pair
from trio_rpc.wire import messages as m

# ── the handshake ────────────────────────────────────────────────────────────────────────────


async def test_another_version_is_refused_with_both_versions_in_the_error(no_time):
    """A handshake compares the versions, and a mismatch fails with an error that names both."""
    ours, theirs = memory_channel_pair()
    peer = RawPeer(theirs)
    peer.send(m.Hello(99, {}))
    with pytest.raises(trio_rpc.Refused, match=r"version 1 .*version 99") as caught:
        async with open_session(ours):
            raise AssertionError("it must not open")
    assert caught.value.fate is Fate.NOT_STARTED
    goodbye = await peer.read(m.Goodbye)
    assert goodbye.code == "refused"
    assert "99" in goodbye.message


@pytest.mark.parametrize(
    ("packet", "kind"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", trio_rpc.RemoteProtocolError),
        (b"\x94\x01\x01\xa4echo\x90", trio_rpc.RemoteProtocolError),  # a Request first
        (b"\x91\x0b", trio_rpc.RemoteProtocolError),  # Welcome first
        (b"\x93\x0a\x01\x80", trio_rpc.Refused),  # without limits
        (b"", trio_rpc.SessionBroken),  # the channel is closed
    ],
    ids=["http", "request", "welcome", "empty hello", "eof"],
)
async def test_an_invalid_first_packet_raises_at_the_opener_and_is_answered_with_goodbye(
    no_time, packet, kind
):
    ours, theirs = memory_channel_pair()
    if packet:
        theirs.send_nowait(packet)
    else:
        theirs.close()
    with pytest.raises(kind) as caught:
        async with open_session(ours):
            raise AssertionError("it must not open")
    assert type(caught.value) is kind
    if packet:
        messages = await RawPeer(theirs).read_until_closed()
        assert isinstance(messages[-1], m.Goodbye)


async def test_a_refusal_raises_refused_with_the_peers_message(no_time):
    ours, theirs = memory_channel_pair()
    RawPeer(theirs).send(HELLO, m.Goodbye("refused", "members only"))
    with pytest.raises(trio_rpc.Refused, match="members only"):
        async with open_session(ours):
            raise AssertionError("it must not open")


async def test_the_text_of_a_refusal_is_one_line_in_the_error(no_time):
    ours, theirs = memory_channel_pair()
    RawPeer(theirs).send(HELLO, m.Goodbye("refused", "members\nERROR only\x1b[2J"))
    with pytest.raises(trio_rpc.Refused) as caught:
        async with open_session(ours):
            raise AssertionError("it must not open")
    refused = r"the other end refused the session: members\nERROR only\x1b[2J"
    assert str(caught.value) == refused


@pytest.mark.parametrize("who", ["client", "server"])
async def test_a_client_cannot_forge_lines_of_the_log_with_a_session_that_is_not_opened(
    who, caplog
):
    """A client refuses with such a text; or its credentials have it, and the server shows them."""
    caplog.set_level("INFO")
    forged = "guest\nERROR forged\x1b[2J"

    async def refuse(_session, credentials):
        raise trio_rpc.Refused(f"no place for {credentials or forged}")

    here = {"authenticate": refuse} if who == "client" else {"credentials": forged}
    there = {"authenticate": refuse} if who == "server" else {}
    async with trio_rpc.open_server(Echo(), "tcp://127.0.0.1:0", **there) as server:
        with pytest.raises(trio_rpc.Refused):
            async with trio_rpc.connect(server.urls[0], **here):
                raise AssertionError("it must not open")
        while not caplog.messages:
            await wait_all_tasks_blocked()
    [line] = caplog.messages
    assert line.endswith(r"no place for guest\nERROR forged\x1b[2J")


async def test_cancelling_the_handshake_closes_the_channel(autojump_clock, tasks):
    before = tasks()
    ours, theirs = memory_channel_pair()
    with trio.move_on_after(1) as scope:
        async with open_session(ours):
            raise AssertionError("it must not open")
    assert scope.cancelled_caught
    assert tasks() == before
    await RawPeer(theirs).read_until_closed()


# ── authenticate ─────────────────────────────────────────────────────────────────────────────


async def _check(session, credentials):
    await trio.sleep(1)
    if credentials != {"token": "right"}:
        raise trio_rpc.Refused("wrong token")


async def test_a_session_keeps_the_credentials_that_authenticate_accepted(
    session_pair, autojump_clock
):
    async with session_pair(
        None,
        Echo(),
        options_a={"credentials": {"token": "right"}},
        options_b={"authenticate": _check},
    ) as (a, b):
        assert await a.call("echo", 1) == 1
        assert b.credentials == {"token": "right"}
        assert a.credentials is None
        assert trio.current_time() == pytest.approx(1, abs=0.001)


async def test_a_refusal_by_authenticate_raises_its_reason_at_both_ends(autojump_clock):
    ours, theirs = memory_channel_pair()
    refused = []

    async def serve():
        with pytest.raises(trio_rpc.Refused, match="wrong token"):
            await trio_rpc.serve_session(theirs, Echo(), authenticate=_check)
        refused.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(trio_rpc.Refused, match="wrong token"):
            async with open_session(ours, credentials="none"):
                raise AssertionError("it must not open")
    assert refused


async def test_no_service_is_made_before_authenticate_has_returned(autojump_clock):
    ours, theirs = memory_channel_pair()
    peer = RawPeer(theirs)
    made = []

    def services(session):
        made.append(session)
        return Echo()

    peer.send(HELLO, m.Welcome(), m.Request(1, "echo", [1]))
    with pytest.raises(trio_rpc.RemoteProtocolError, match="not allowed"):
        async with open_session(ours, services, authenticate=_check):
            raise AssertionError("it must not open")
    assert made == []


async def test_authenticate_is_bounded_by_the_handshake_timeout(autojump_clock):
    async def never(session, credentials):
        await trio.sleep_forever()

    limits = Limits(handshake_timeout=3)
    with pytest.raises(trio_rpc.SessionBroken, match="handshake"):
        async with session_with_raw_peer(authenticate=never, limits=limits):
            raise AssertionError("it must not open")
    assert trio.current_time() == pytest.approx(3, abs=0.001)


async def test_an_exception_of_authenticate_is_raised_and_the_session_does_not_open(no_time):
    async def broken(session, credentials):
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        async with session_with_raw_peer(authenticate=broken):
            raise AssertionError("it must not open")


async def test_an_exception_of_the_function_that_makes_services_is_raised(no_time):
    def broken(session):
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        async with session_with_raw_peer(broken):
            raise AssertionError("it must not open")


async def test_credentials_that_are_too_large_are_an_encode_error(no_time):
    ours, _ = memory_channel_pair()
    with pytest.raises(trio_rpc.EncodeError, match="credentials"):
        async with open_session(ours, credentials="x" * 100_000):
            raise AssertionError("it must not open")


async def test_no_call_can_be_made_before_the_session_is_open(no_time):
    async def too_early(session, credentials):
        with pytest.raises(trio_rpc.LocalProtocolError, match="not open"):
            await session.call("echo", 1)
        raise trio_rpc.Refused("tried")

    with pytest.raises(trio_rpc.Refused, match="tried"):
        async with session_with_raw_peer(authenticate=too_early):
            raise AssertionError("it must not open")


@pytest.mark.parametrize(
    "services", [object(), {"a b": Echo()}, {"x": 5}], ids=["no method", "name", "value"]
)
async def test_invalid_services_are_refused_before_anything_is_sent(services, no_time):
    ours, theirs = memory_channel_pair()
    with pytest.raises((TypeError, ValueError)):
        async with open_session(ours, services):
            raise AssertionError("it must not open")
    ours.close()
    assert await RawPeer(theirs).read_until_closed() == []


# ── keepalive ────────────────────────────────────────────────────────────────────────────────

WATCHFUL = Limits(keepalive_interval=10, keepalive_pings=3)


async def test_a_session_with_a_silent_peer_is_ended(autojump_clock):
    """A silent peer is found by pings, and its session ends."""
    async with session_with_raw_peer(Sleeper(), limits=WATCHFUL) as (session, peer):
        peer.send(m.Request(1, "sleep", []))
        await session.wait_closed()
        assert 40 <= trio.current_time() <= 51
        with pytest.raises(trio_rpc.SessionBroken, match="silent for 40 s"):
            await session.call("anything")


async def test_a_session_with_a_peer_that_does_not_read_is_ended(autojump_clock):
    async with session_with_raw_peer(limits=WATCHFUL, max_buffer=1) as (session, _):
        with pytest.raises(trio_rpc.SessionBroken, match="silent"):
            await session.call("anything", b"x" * 1_000_000)
        assert trio.current_time() <= 51


async def test_a_session_with_an_idle_peer_that_answers_pings_goes_on(session_pair, autojump_clock):
    async with session_pair(
        Echo(), Echo(), options_a={"limits": WATCHFUL}, options_b={"limits": WATCHFUL}
    ) as (a, _):
        await trio.sleep(300)
        assert await a.call("echo", 1) == 1


async def test_a_peer_that_sends_messages_is_not_pinged(autojump_clock):
    async with session_with_raw_peer(Echo(), limits=WATCHFUL) as (session, peer):
        for number in range(1, 51):
            peer.send(m.Request(number, "echo", []))
            await trio.sleep(9)
        assert session.statistics().state == "open"
        await wait_all_tasks_blocked()
        peer.send(m.Ping(4))
        await peer.read(m.Pong)
        assert not any(isinstance(each, m.Ping) for each in peer.received)


HASTY = Limits(handshake_timeout=10, keepalive_interval=10, keepalive_pings=1)


class BlockingLoop(trio.abc.Instrument):
    """Blocks the loop as soon as one of two ends has written a packet, before another task runs."""

    def __init__(self, clock, seconds, *sessions):
        self.clock, self.seconds, self.sessions = clock, seconds, sessions
        self.times = 0
        self.sent = self.count()

    def count(self):
        return sum(session.statistics().packets_sent for session in self.sessions)

    def after_task_step(self, task):
        sent, before = self.count(), self.sent
        self.sent = sent
        if sent > before:
            self.clock.jump(self.seconds)
            self.times += 1


@pytest.mark.parametrize("seconds", [9.99, 10, 12, 25, 300])
async def test_a_blocked_loop_does_not_drop_healthy_peers(session_pair, autojump_clock, seconds):
    """The keepalive counts only silence that this end could have heard.

    The loop blocks as soon as a Ping was written, again and again. It also blocks for exactly as
    long as the peer has for its answer, so that the answer is unread when that time is over.
    """
    async with session_pair(
        Echo(), Echo(), options_a={"limits": HASTY}, options_b={"limits": HASTY}
    ) as (a, b):
        loop = BlockingLoop(autojump_clock, seconds, a, b)
        trio.lowlevel.add_instrument(loop)
        await trio.sleep(20 * (10 + seconds))
        trio.lowlevel.remove_instrument(loop)
        assert loop.times > 10
        assert a.statistics().state == b.statistics().state == "open"


async def test_an_answer_that_is_on_its_way_when_a_blocked_loop_goes_on_is_awaited(autojump_clock):
    """A program that was blocked until just before the end of an interval wakes up in time."""
    late = Faults(latency=0.3)  # as from a thread of this program, or through tasks of a channel
    hasty = {"limits": HASTY}
    async with (
        open_faulty_pair(late) as pair,
        open_session_pair(Echo(), Echo(), channels=(pair.first, pair.second), options_a=hasty) as (
            a,
            b,
        ),
    ):
        loop = BlockingLoop(autojump_clock, 10, a, b)
        trio.lowlevel.add_instrument(loop)
        await trio.sleep(400)
        trio.lowlevel.remove_instrument(loop)
        assert loop.times > 10
        assert a.statistics().state == b.statistics().state == "open"


@pytest.mark.parametrize("blocked", [12, 25, 300])
async def test_time_in_which_this_end_was_blocked_does_not_count_as_silence(
    autojump_clock, blocked
):
    # The Ping is queued, but this end blocks again before it can be sent or answered.
    async with session_with_raw_peer(limits=HASTY) as (session, peer):
        for _ in range(10):
            autojump_clock.jump(blocked)
            for _ in range(10):
                await trio.lowlevel.checkpoint()
        assert session.statistics().state == "open"
        peer.send(m.Ping(4))
        await peer.read(m.Pong)


async def test_a_keepalive_ping_is_written_at_once_and_not_by_another_task(autojump_clock):
    # Before another task could run, this end might block again, and the Ping would be sent too late
    # to be answered.
    async with session_with_raw_peer(limits=HASTY) as (_, peer), trio.open_nursery() as nursery:
        await peer.read(m.Ping)
        tasks = {task.name for task in nursery.parent_task.parent_nursery.child_tasks}
        for nested in nursery.parent_task.child_nurseries:
            tasks |= {task.name for task in nested.child_tasks}
        assert "trio_rpc watch" in tasks
        assert "trio_rpc writer" not in tasks


@pytest.mark.parametrize("after", [0, 1, 9])
async def test_a_peer_has_a_whole_interval_to_answer_after_this_end_was_blocked(
    autojump_clock, after
):
    async with session_with_raw_peer(limits=HASTY) as (session, peer):
        ping = await peer.read(m.Ping)
        autojump_clock.jump(25)
        await trio.sleep(after)
        peer.send(m.Pong(ping.number))
        await wait_all_tasks_blocked()
        assert session.statistics().state == "open"


async def test_an_interval_whose_end_is_not_heard_begins_anew(autojump_clock):
    """The peer is lost only if this end listened in the last tenth of the last interval."""
    async with session_with_raw_peer(limits=HASTY) as (session, peer):
        ping = await peer.read(m.Ping)
        await trio.sleep(9.97)
        autojump_clock.jump(3)  # this end has listened almost to the end of the interval
        await trio.sleep(1)
        autojump_clock.jump(9.5)  # until just after the end of the next interval
        await trio.sleep(0.05)
        peer.send(m.Pong(ping.number))
        await wait_all_tasks_blocked()
        assert session.statistics().state == "open"


async def test_law_12_a_peer_that_stays_silent_after_this_end_was_blocked_loses_its_session(
    autojump_clock,
):
    async with session_with_raw_peer(limits=HASTY) as (session, _):
        autojump_clock.jump(300)
        await session.wait_closed()
        assert trio.current_time() == pytest.approx(330, abs=0.1)


async def test_a_handshake_goes_on_when_this_end_was_blocked_during_it(autojump_clock):
    ours, theirs = memory_channel_pair()
    peer = RawPeer(theirs)

    async def do_handshake():
        await peer.read(m.Hello)
        autojump_clock.jump(100)
        await trio.sleep(9)
        peer.send(HELLO, m.Welcome())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(do_handshake)
        async with open_session(ours, limits=HASTY, on_end="keep") as session:
            assert session.statistics().state == "open"
        nursery.cancel_scope.cancel()


async def test_a_part_of_a_packet_ends_the_silence(autojump_clock):
    slowly = Faults(rate=20_000, max_slice=1000)  # 10 s for one packet; 3 s count as silence
    watchful = Limits(keepalive_interval=1, keepalive_pings=2)
    async with (
        open_faulty_pair(slowly) as pair,
        open_session_pair(
            None, Echo(), options_b={"limits": watchful}, channels=(pair.first, pair.second)
        ) as (a, b),
    ):
        started = trio.current_time()
        assert await a.call("echo", b"x" * 200_000) == b"x" * 200_000
        assert trio.current_time() - started > 9
        assert b.statistics().state == "open"


# ── ping ─────────────────────────────────────────────────────────────────────────────────────


async def test_ping_measures_the_round_trip_time(autojump_clock):
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:

        async def answer():
            ping = await peer.read(m.Ping)
            await trio.sleep(0.25)
            peer.send(m.Pong(ping.number))

        nursery.start_soon(answer)
        assert await session.ping() == pytest.approx(0.25, abs=0.001)


async def test_many_pings_at_once_are_all_answered(session_pair, no_time):
    async with session_pair() as (a, b), trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(a.ping)
            nursery.start_soon(b.ping)


async def test_pings_are_answered_while_keepalive_pings_go_out(session_pair, autojump_clock):
    limits = {"limits": Limits(keepalive_interval=0.1, keepalive_pings=1000)}
    async with session_pair(options_a=limits, options_b=limits) as (a, _):
        for _ in range(20):
            with trio.fail_after(5):
                await a.ping()
            await trio.sleep(0.09)


async def test_an_unrequested_pong_is_ignored(no_time):
    async with session_with_raw_peer(Echo()) as (_, peer):
        peer.send(m.Pong(17), m.Request(1, "echo", [1]))
        assert (await peer.read(m.Reply)).result == 1
