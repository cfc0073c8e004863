"""Laws 12 to 16 of docs/guarantees.md: bounds, malformed input, fates, and Trio's conventions."""

from __future__ import annotations

import functools

import pytest
import trio
from helpers.handlers import Echo, Sleeper, service
from helpers.raw_peer import HELLO, RawPeer, close_at_once, session_with_raw_peer
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Fate, Limits, TypeRegistry, open_session
from trio_rpc.testing import memory_channel_pair
from trio_rpc.wire import messages as m

# ── 12: everything is bounded ────────────────────────────────────────────────────────────────


async def test_law_12_a_message_that_is_too_large_raises_at_its_sender_or_at_the_caller(
    session_pair,
    no_time,
):
    """A message that is too large is a clear error, and larger data travels in pieces or streams."""

    class Big:
        @trio_rpc.method
        async def result(self, size):
            return b"x" * size

    small = {"limits": Limits(max_message=300_000)}
    async with session_pair(None, Big(), options_a=small, options_b=small) as (a, _):
        with pytest.raises(trio_rpc.EncodeError, match="larger"):
            await a.call("result", b"x" * 400_000)
        with pytest.raises(trio_rpc.RemoteError, match="larger"):
            await a.call("result", 400_000)
        assert len(await a.call("result", 200_000)) == 200_000


async def test_law_12_more_calls_at_once_than_allowed_are_a_protocol_error(no_time):
    """The number of handlers that run for a peer at once is bounded."""
    sleeper = Sleeper()
    async with session_with_raw_peer(sleeper, limits=Limits(max_calls=3)) as (session, peer):
        peer.send(*(m.Request(n, "sleep", []) for n in range(1, 5)))
        await session.wait_closed()
        assert sleeper.most <= 3
        assert (await peer.read(m.Goodbye)).code == "protocol_error"


async def test_law_12_more_notifications_at_once_than_allowed_are_a_protocol_error(no_time):
    class Slow:
        @trio_rpc.notification
        async def note(self):
            await trio.sleep_forever()

    limits = Limits(max_notifications=3)
    async with session_with_raw_peer(Slow(), limits=limits) as (session, peer):
        peer.send(*[m.Notification("note", [])] * 4)
        await session.wait_closed()
        assert (await peer.read(m.Goodbye)).code == "protocol_error"


async def test_law_12_the_handshake_is_bounded(autojump_clock):
    ours, theirs = memory_channel_pair()
    theirs.send_nowait(RawPeer(theirs).bytes_of(HELLO))  # but no Welcome follows
    with pytest.raises(trio_rpc.SessionBroken, match="no handshake within 7 s") as caught:
        async with open_session(ours, limits=Limits(handshake_timeout=7)):
            raise AssertionError("it must not open")
    assert caught.value.fate is Fate.NOT_STARTED
    assert trio.current_time() == pytest.approx(7, abs=0.001)


async def test_law_12_the_silence_of_a_peer_is_bounded(autojump_clock):
    limits = Limits(keepalive_interval=10, keepalive_pings=2)
    async with session_with_raw_peer(limits=limits) as (session, peer):
        with pytest.raises(trio_rpc.SessionBroken, match="silent") as caught:
            await session.call("anything")
        assert trio.current_time() == pytest.approx(40, abs=0.001)
        assert caught.value.fate is Fate.UNKNOWN
        await peer.read_until_closed()
        # The first asks whether the call has been read, the other two whether the peer is alive.
        assert sum(isinstance(each, m.Ping) for each in peer.received) == 1 + 2


async def test_law_12_a_silent_peer_gets_as_many_pings_as_the_limits_say(autojump_clock):
    limits = Limits(keepalive_interval=10, keepalive_pings=2)
    async with session_with_raw_peer(limits=limits, on_end="keep") as (session, peer):
        assert (await session.wait_closed()).by == "network"
        assert trio.current_time() == pytest.approx(40, abs=0.001)
        await peer.read_until_closed()
        assert sum(isinstance(each, m.Ping) for each in peer.received) == 2


async def test_law_12_the_send_queue_is_bounded(autojump_clock):
    """The queue of unsent messages is bounded, and senders wait."""
    limits = Limits(send_buffer=100_000)
    async with (
        session_with_raw_peer(Echo(), limits=limits, max_buffer=1) as (session, _),
        trio.open_nursery() as nursery,
    ):
        for _ in range(100):
            nursery.start_soon(session.call, "bulk", b"x" * 10_000)
            nursery.start_soon(session.notify, "bulk", b"x" * 10_000)
        await wait_all_tasks_blocked()
        assert session.statistics().bytes_waiting <= 120_000
        assert session.statistics().tasks_waiting > 100
        nursery.cancel_scope.cancel()


async def test_law_12_no_handler_starts_while_too_many_bytes_wait_to_be_sent(autojump_clock):
    limits = Limits(max_unsent=50_000)

    class Big:
        @trio_rpc.method
        async def result(self):
            return b"x" * 10_000

    async with session_with_raw_peer(Big(), limits=limits, max_buffer=1) as (session, peer):
        peer.send(*(m.Request(n, "result", []) for n in range(1, 101)))
        await wait_all_tasks_blocked()
        assert session.statistics().bytes_waiting <= 100_000
        assert len(await peer.read_all(m.Reply, 100)) == 100


async def test_law_12_the_time_for_shutting_down_is_bounded(autojump_clock):
    limits = Limits(shutdown_timeout=3)
    async with session_with_raw_peer(Sleeper(), limits=limits) as (session, peer):
        peer.send(m.Request(1, "stubborn", [60]))
        await wait_all_tasks_blocked()
        started = trio.current_time()
        await close_at_once(session)
        assert trio.current_time() - started == pytest.approx(3, abs=0.001)
        with pytest.raises(trio.EndOfChannel):
            while True:
                await peer.channel.receive()


async def test_law_12_the_depth_of_calls_within_calls_is_bounded(session_pair, no_time):
    refused = []

    class Mirror:
        def __init__(self, session):
            self.session = session

        @trio_rpc.method
        async def bounce(self, left: int) -> int:
            try:
                return await self.session.call("bounce", left - 1)
            except trio_rpc.Overloaded as exc:
                refused.append(exc.fate)
                return left

    async with session_pair(Mirror, Mirror) as (a, b):
        assert await a.call("bounce", 1000) == 1000 - a.limits.max_call_depth
        assert refused == [Fate.NOT_STARTED]
        await wait_all_tasks_blocked()
        assert a.statistics().calls_in == b.statistics().calls_in == 0


# ── 13: only decorated methods can be called ─────────────────────────────────────────────────


HOSTILE_NAMES = [
    *dir(object),
    "__class__",
    "__class__.__init__.__globals__",
    "a.b.c",
    "../x",
    "",
    ".",
    "\0",
    "echo\0",
    "echo ",
    "Echo.echo",
    "unmarked",
    "_private",
    "attribute",
    "e\u0301cho",
    "x" * 65536,
    "\x1b[2J",
]


async def test_law_13_only_decorated_methods_can_be_called(session_pair, no_time):
    class Spy(Echo):
        attribute = Echo()
        looked_up = ()

        def unmarked(self):
            raise AssertionError

        def _private(self):
            raise AssertionError

        def __getattribute__(self, name):
            Spy.looked_up += (name,)
            return super().__getattribute__(name)

    async with session_pair(None, Spy()) as (a, _):
        Spy.looked_up = ()
        for name in HOSTILE_NAMES:
            with pytest.raises(trio_rpc.MethodNotFound) as caught:
                await a.call(name)
            assert caught.value.fate is Fate.NOT_STARTED
            assert len(str(caught.value)) < 300
            assert "\x1b" not in str(caught.value)
        assert Spy.looked_up == ()
        assert await a.call("echo", 1) == 1


async def test_law_13_a_method_cannot_be_notified_nor_a_notification_called(
    session_pair, no_time, caplog
):
    """Requests and notifications are handled by two separate entries, and are never exchanged."""
    called = []

    class Both:
        @trio_rpc.method
        async def ask(self):
            called.append("ask")

        @trio_rpc.notification
        async def tell(self):
            called.append("tell")

    async with session_pair(None, Both()) as (a, _):
        with pytest.raises(trio_rpc.MethodNotFound, match="notified, not called"):
            await a.call("tell")
        await a.notify("ask")
        await wait_all_tasks_blocked()
    assert called == []
    assert "called, not notified" in caplog.text


# ── 14: bad input costs the sender ───────────────────────────────────────────────────────────

BAD_PACKETS = {
    "garbage": b"\xc1\xc1\xc1",
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "truncated": b"\x94\x01\x01\xa4ec",
    "type 0": b"\x92\x00\x01",
    "type 255": b"\x92\xcc\xff\x01",
    "no type": b"\x90",
    "a number": b"\x05",
    "missing fields": b"\x92\x01\x01",
    "extra fields": b"\x97\x01\x01\xa4echo\x90\x80\x80\x80",
    "id 0": b"\x94\x01\x00\xa4echo\x90",
    "id true": b"\x94\x01\xc3\xa4echo\x90",
    "id float": b"\x94\x01\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00\xa4echo\x90",
    "reply to an unknown call": b"\x93\x03\x07\xc0",
    "depth bomb": b"\x94\x01\x01\xa4echo\x91" + b"\x91" * 1000 + b"\x90",
    "claim of 4 GiB": b"\x94\x01\x01\xa4echo\xdd\xff\xff\xff\xff",
    "trailing": b"\x94\x01\x01\xa4echo\x90\xdc",
    "a second Hello": b"\x93\x0a\x01\x80",
    "a second Welcome": b"\x91\x0b",
    "nobody's pieces": b"\x91\x12",
    "credit overflow": b"\x92\x0f\xcf\x7f\xff\xff\xff\xff\xff\xff\xff",
    "credit 0": b"\x92\x0f\x00",
}


@pytest.mark.parametrize("packet", BAD_PACKETS.values(), ids=BAD_PACKETS)
async def test_law_14_bad_input_ends_only_its_senders_session(session_pair, no_time, packet):
    async with (
        session_pair(None, Echo()) as (healthy, _),
        session_with_raw_peer(Echo()) as (session, peer),
        trio.open_nursery() as nursery,
    ):
        errors = []

        async def call():
            with pytest.raises(trio_rpc.SessionBroken) as caught:
                await session.call("anything")
            errors.append(caught.value)

        nursery.start_soon(call)
        await wait_all_tasks_blocked()
        peer.channel.send_nowait(packet)
        await session.wait_closed()
        assert isinstance(errors[0].__cause__, trio_rpc.RemoteProtocolError)
        goodbye = await peer.read(m.Goodbye)
        assert goodbye.code == "protocol_error"
        assert goodbye.message
        assert await healthy.call("echo", "fine") == "fine"


async def test_law_14_a_bad_call_gets_an_error_and_the_session_goes_on(no_time):
    """A request with bad arguments gets an error reply, and the session goes on."""

    class Typed:
        @trio_rpc.method
        async def add(self, left: int, right: int) -> int:
            raise AssertionError("not with these")

    async with session_with_raw_peer(Typed()) as (_, peer):
        peer.send(
            m.Request(1, "add", [1, "2"]),
            m.Request(2, "add", [1]),
            m.Request(3, "add", [], {"nonsense": 1}),
        )
        errors = await peer.read_all(m.ReplyErr, 3)
        assert {each.error["code"] for each in errors} == {"invalid_arguments"}
        assert errors[0].error["parameter"] == "right"
        peer.send(m.Ping(1))
        await peer.read(m.Pong)


async def test_law_14_a_value_that_cannot_be_encoded_raises_at_its_sender_and_nothing_is_sent(
    session_pair, no_time
):
    recursive = []
    recursive.append(recursive)
    async with session_pair(None, Echo()) as (a, b):
        sent = b.statistics().messages_received
        for bad in (object(), "\udc80", recursive, 1 << 10_000):
            with pytest.raises(trio_rpc.EncodeError) as caught:
                await a.call("echo", bad)
            assert caught.value.fate is Fate.NOT_STARTED
            with pytest.raises(trio_rpc.EncodeError):
                await a.notify("echo", bad)
        await wait_all_tasks_blocked()
        assert b.statistics().messages_received == sent
        assert a.statistics().calls_out == 0
        assert await a.call("echo", 1) == 1


async def test_law_14_a_registered_type_that_cannot_be_decoded_fails_only_its_call(
    session_pair, no_time
):
    class Point:
        pass

    def fail(_):
        raise ZeroDivisionError("no such point")

    here, there = TypeRegistry(), TypeRegistry()
    here.register(64, Point, lambda _: 1, fail)
    there.register(64, Point, lambda _: 1, lambda _: Point())
    async with session_pair(
        Echo(), Echo(), options_a={"registry": here}, options_b={"registry": there}
    ) as (a, b):
        with pytest.raises(trio_rpc.DecodeError, match="no such point") as caught:
            await a.call("echo", Point())
        assert caught.value.fate is Fate.STOPPED
        with pytest.raises(trio_rpc.InvalidArguments, match="no such point"):
            await b.call("echo", Point())
        assert await a.call("echo", 1) == 1


@pytest.mark.parametrize("error", [{"code": []}, {"code": 1}, {}, {"code": "raised"}])
async def test_law_14_a_malformed_error_is_a_decode_error(no_time, error):
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:

        async def answer():
            request = await peer.read(m.Request)
            peer.send(m.ReplyErr(request.id, error))

        nursery.start_soon(answer)
        with pytest.raises(trio_rpc.DecodeError):
            await session.call("anything")


# ── 15: every failed call has a known fate ───────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("error", "fate"),
    [
        ({"code": "method_not_found"}, Fate.NOT_STARTED),
        ({"code": "invalid_arguments"}, Fate.NOT_STARTED),
        ({"code": "overloaded"}, Fate.NOT_STARTED),
        ({"code": "unavailable"}, Fate.NOT_STARTED),
        ({"code": "raised", "type": "x.Y"}, Fate.STOPPED),
        ({"code": "internal"}, Fate.STOPPED),
        ({"code": "cancelled"}, Fate.STOPPED),
        ({"code": "cancelled", "started": False}, Fate.NOT_STARTED),
    ],
    ids=str,
)
async def test_law_15_every_failed_call_has_a_known_fate(no_time, error, fate):
    async with session_with_raw_peer() as (session, peer), trio.open_nursery() as nursery:

        async def answer():
            request = await peer.read(m.Request)
            peer.send(m.ReplyErr(request.id, {"message": "", **error}))

        nursery.start_soon(answer)
        with pytest.raises(trio_rpc.CallError) as caught:
            await session.call("anything")
        assert caught.value.fate is fate


async def test_law_15_a_result_of_the_wrong_type_has_the_fate_stopped(session_pair, no_time):
    class Promised:
        @trio_rpc.method
        async def echo(self, value: object) -> int:
            raise NotImplementedError

    async with session_pair(None, Echo()) as (a, _):
        with pytest.raises(trio_rpc.DecodeError) as caught:
            await a.proxy("", Promised).echo("no number")
        assert caught.value.fate is Fate.STOPPED


async def test_law_15_calls_that_were_never_sent_have_not_started(autojump_clock):
    fates = {}

    async def call(session, label):
        with pytest.raises(trio_rpc.SessionBroken) as caught:
            await session.call("work", label)
        fates[label] = caught.value.fate

    peer_limits = Limits(max_calls=3)
    async with (
        session_with_raw_peer(max_buffer=1, peer_limits=peer_limits) as (session, peer),
        trio.open_nursery() as nursery,
    ):
        for label in ("sent", "in the writer's hand", "queued", "without credit"):
            nursery.start_soon(call, session, label)
            await wait_all_tasks_blocked()
        peer.channel.abort()
    assert fates == {
        "sent": Fate.UNKNOWN,
        "in the writer's hand": Fate.UNKNOWN,
        "queued": Fate.NOT_STARTED,
        "without credit": Fate.NOT_STARTED,
    }


# ── 16: Trio's conventions ───────────────────────────────────────────────────────────────────


async def test_law_16_every_public_async_function_is_a_checkpoint(session_pair, no_time):
    class Mixed(Echo):
        @trio_rpc.notification
        def note(self):
            pass

    async with session_pair(None, Mixed()) as (a, b):
        proxy = a.proxy()
        with assert_checkpoints():
            await a.call("echo", 1)
        with assert_checkpoints():
            await a.call("inline", 1)
        with assert_checkpoints():
            await proxy.echo(1)
        with assert_checkpoints():
            await a.notify("note")
        with assert_checkpoints():
            await a.ping()
        with assert_checkpoints():
            await a.aclose()
        with assert_checkpoints():
            await a.aclose()
        with assert_checkpoints():
            await b.wait_closed()


async def test_law_16_entering_and_leaving_a_sessions_block_are_checkpoints(no_time):
    ours, theirs = memory_channel_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio_rpc.serve_session, theirs, Echo())
        manager = open_session(ours)
        with assert_checkpoints():
            await manager.__aenter__()
        with assert_checkpoints():
            await manager.__aexit__(None, None, None)


@pytest.mark.parametrize(
    "error", [ValueError("mine"), ExceptionGroup("mine", [ValueError()]), SystemExit(3)], ids=repr
)
async def test_law_16_a_sessions_block_raises_the_single_exception_of_its_body(no_time, error):
    sleeper = Sleeper()
    with pytest.raises(type(error)) as caught:
        async with session_with_raw_peer(sleeper) as (_, peer):
            peer.send(*(m.Request(n, "sleep", []) for n in range(1, 4)))
            await wait_all_tasks_blocked()
            raise error
    assert caught.value is error
    assert len(sleeper.ended) == 3


async def test_law_16_a_sessions_block_raises_its_bodys_exception_when_cancelled_from_outside(
    no_time,
):
    with pytest.raises(ValueError, match="mine"), trio.CancelScope() as scope:
        async with session_with_raw_peer(Sleeper()) as (_, peer):
            peer.send(*(m.Request(n, "sleep", []) for n in range(1, 4)))
            await wait_all_tasks_blocked()
            scope.cancel()
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("mine")


async def test_law_16_cancelled_is_never_swallowed(session_pair, no_time):
    """The library never swallows Cancelled."""
    for _ in range(5):
        with trio.CancelScope() as scope:
            async with session_pair(Sleeper(), Sleeper()) as (a, _):
                scope.cancel()
                await a.call("sleep")
            raise AssertionError("the block went on")
        assert scope.cancelled_caught


async def test_law_16_aclose_is_graceful(session_pair, autojump_clock):
    class Slow:
        @trio_rpc.method
        async def work(self):
            await trio.sleep(2)
            return "done"

    async with session_pair(None, Slow()) as (a, b), trio.open_nursery() as nursery:
        results = []

        async def call():
            results.append(await a.call("work"))

        nursery.start_soon(call)
        await wait_all_tasks_blocked()
        await a.aclose()
        assert trio.current_time() == pytest.approx(2, abs=0.001)
        await wait_all_tasks_blocked()
        assert results == ["done"]
        with pytest.raises(trio_rpc.SessionClosed):
            await a.call("work")
        await b.wait_closed()
        with pytest.raises(trio_rpc.SessionBroken, match="left"):
            await b.call("work")


async def test_law_16_aclose_is_forceful_when_cancelled(session_pair, no_time):
    sleeper = Sleeper()
    async with session_pair(sleeper, sleeper) as (a, b), trio.open_nursery() as nursery:
        errors = []

        async def call(session):
            try:
                await session.call("sleep")
            except trio_rpc.RpcError as exc:
                errors.append(exc)

        nursery.start_soon(call, a)
        nursery.start_soon(call, b)
        await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await a.aclose()
        assert scope.cancelled_caught
        await a.wait_closed()
        await b.wait_closed()
        await wait_all_tasks_blocked()
        assert sleeper.running == 0
        assert {type(exc) for exc in errors} == {
            trio_rpc.SessionClosed,
            trio_rpc.RemoteCancelled,
        }


async def test_law_16_no_tasks_remain_after_a_sessions_block(session_pair, no_time, tasks):
    before = tasks()
    async with session_pair(Sleeper(), Sleeper()) as (a, b):
        assert tasks() > before
        await a.notify("nothing")
        await b.ping()
    assert tasks() == before


async def test_law_16_a_function_that_makes_services_may_be_a_functools_partial(
    session_pair, no_time
):
    # The function is called once for each session, which gets its own services.
    made = []

    def services(session, label):
        made.append((label, session))

        async def echo(value):
            return label, value

        return service(echo)

    async with session_pair(None, functools.partial(services, label="x")) as (a, b):
        assert await a.call("echo", 1) == ("x", 1)
    assert made == [("x", b)]


async def test_a_flood_of_calls_that_are_cancelled_at_once_leaves_nothing_running(no_time):
    """An attack like HTTP/2's rapid reset: a Request and its Cancel, again and again."""
    sleeper = Sleeper()
    pairs, at_once = 5_000, 50
    async with session_with_raw_peer(sleeper) as (session, peer):
        for first in range(1, pairs, at_once):
            calls = range(first, first + at_once)
            peer.send(
                *(
                    message
                    for call in calls
                    for message in (m.Request(call, "sleep", []), m.Cancel(call))
                )
            )
            answers = await peer.read_all(m.ReplyErr, at_once)
            assert sorted(answer.id for answer in answers) == list(calls)
            assert {answer.error["code"] for answer in answers} == {"cancelled"}
            peer.received.clear()
        await wait_all_tasks_blocked()
        assert sleeper.running == 0
        assert sleeper.most <= at_once
        assert session.statistics().calls_in == 0
