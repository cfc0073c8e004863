"""Finished work leaves no objects that only the garbage collector can free.

Each scenario first runs twice, so that caches and other objects that are made once exist. It then
runs again with the collector off, and the collector must find nothing afterwards.
"""

from __future__ import annotations

import contextlib
import logging
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import partial

import pytest
import trio
from helpers.garbage import collecting_garbage
from trio.testing import wait_all_tasks_blocked

from trio_rpc import (
    EncodeError,
    InvalidArguments,
    Limits,
    MethodNotFound,
    Overloaded,
    Refused,
    RemoteCancelled,
    RemoteProtocolError,
    SessionBroken,
    SessionClosed,
    connect,
    current_call,
    duplex,
    method,
    notification,
    open_session,
    serve,
    serve_session,
    stream,
)
from trio_rpc.channels import open_forwarding
from trio_rpc.testing import memory_channel_pair, open_session_pair
from trio_rpc.util.time_limits import PacketTimer, time_limit


class Gone(Exception):
    pass


class Bench:
    @method
    async def echo(self, value: int) -> int:
        return value

    @method
    async def hangs(self) -> None:
        await trio.sleep_forever()

    @method(raises=(Gone,))
    async def declared(self) -> None:
        await trio.lowlevel.checkpoint()
        raise Gone("raised by the test")

    @method
    async def bug(self) -> None:
        raise ValueError("raised by the test")

    @stream
    async def ticks(self, count: int) -> AsyncGenerator[int, None]:
        for tick in range(count):
            yield tick

    @stream
    async def breaks(self) -> AsyncGenerator[int, None]:
        yield 1
        raise ValueError("raised by the test")

    @duplex
    async def chat(self, channel: trio.abc.Channel[int]) -> None:
        async for value in channel:
            await channel.send(value)

    @method
    async def call_back(self, function: Callable[[int], Awaitable[int]]) -> int:
        return await function(1)

    @method
    async def pull(self, values: AsyncIterator[int]) -> int:
        return sum([value async for value in values])

    @method
    async def lasts(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await trio.sleep_forever()

    @notification
    async def note(self) -> None:
        await trio.lowlevel.checkpoint()

    @method
    async def end_scope(self) -> None:
        current_call().nursery.cancel_scope.cancel()

    @method
    async def fail_later(self) -> None:
        async def fail():
            await trio.sleep(1)
            raise ValueError("raised by the test")

        current_call().nursery.start_soon(fail)

    @method
    async def break_off(self) -> None:
        """Reset the connection: the other end's read fails, and this end has a closed socket."""
        sock = socket_of(current_call().session._core.channel)
        sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        await trio.sleep_forever()


def socket_of(stream):
    """Return the socket under a channel."""
    for inner in ("stream", "_stream", "transport_stream", "socket"):
        if hasattr(stream, inner):
            return socket_of(getattr(stream, inner))
    return stream


def with_session_proxy(session):
    """Make services that keep a proxy of their session, as many services do."""
    bench = Bench()
    bench.client = session.proxy("bench", Bench)
    return {"bench": bench}


def pair(**options):
    return open_session_pair(with_session_proxy, with_session_proxy, **options)


async def unreachable(scenario):
    """Run a scenario and return the objects that it leaves to the garbage collector."""
    for _ in range(2):
        await scenario()
    await wait_all_tasks_blocked()
    with collecting_garbage() as left:
        await scenario()
        await wait_all_tasks_blocked()
    return left


def without_tls(left):
    """Leave out objects of ``trio.SSLStream``, which refers to itself."""
    kinds = ("trio_rpc", "builtins.frame", "builtins.traceback", "builtins.coroutine")
    return [each for each in left if each.startswith(kinds) or each.endswith(("Error", "Group"))]


@pytest.fixture(autouse=True)
def unlogged(caplog):
    caplog.set_level(logging.CRITICAL)  # pytest keeps each logged bug with its traceback


# ── uses of a session that ends in an orderly way ────────────────────────────────────────────


async def calls(session, proxy):
    assert await proxy.echo(1) == 1
    await session.call("bench.echo", 1)
    await session.ping()
    await session.notify("bench.note")


async def failed(session, proxy):
    for function, error in ((proxy.declared, Gone), (proxy.bug, ValueError)):
        with contextlib.suppress(error):
            await function()


async def refused_calls(session, proxy):
    with contextlib.suppress(MethodNotFound):
        await session.call("bench.nothing")
    with contextlib.suppress(InvalidArguments):
        await session.call("bench.echo", "text")
    with contextlib.suppress(EncodeError):
        await session.call("bench.echo", object())


async def cancelled(session, proxy):
    with trio.move_on_after(1):
        await proxy.hangs()
    with trio.CancelScope() as scope:
        scope.cancel()
        await proxy.hangs()


async def abandoned(session, proxy):
    with trio.move_on_after(1):
        await session.call("bench.hangs", abandon_on_cancel=True)


async def streamed(session, proxy):
    async with proxy.ticks(100) as ticks:
        assert len([tick async for tick in ticks]) == 100


async def left_stream(session, proxy):
    async with proxy.ticks(10**9) as ticks:
        await ticks.receive()


async def broken_stream(session, proxy):
    with contextlib.suppress(ValueError):
        async with proxy.breaks() as ticks:
            async for _ in ticks:
                pass


async def used_duplex(session, proxy):
    async with proxy.chat() as channel:
        await channel.send(1)
        assert await channel.receive() == 1
        await channel.send_eof()
        async for _ in channel:
            pass


async def left_duplex(session, proxy):
    async with proxy.chat() as channel:
        await channel.send(1)


async def called_back(session, proxy):
    async def double(value):
        return 2 * value

    async def fails(_value):
        raise ValueError("raised by the test")

    assert await proxy.call_back(double) == 2
    with contextlib.suppress(ValueError):
        await proxy.call_back(fails)


async def lent_stream(session, proxy):
    async def values():
        yield 1
        yield 2

    assert await proxy.pull(values()) == 3


async def started(session, proxy):
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.lasts)
        nursery.cancel_scope.cancel()


async def scoped(session, proxy):
    async def double(value):
        return 2 * value

    async with session.open_scope() as scope:
        inner = scope.proxy("bench", Bench)
        await inner.call_back(double)
        async with inner.ticks(3) as ticks:
            await ticks.receive()


async def scope_ended(session, proxy):
    with contextlib.suppress(RemoteCancelled):
        async with session.open_scope() as scope:
            await scope.call("bench.end_scope")
            await trio.sleep_forever()


async def scope_failed(session, proxy):
    with contextlib.suppress(ValueError):
        async with session.open_scope() as scope:
            await scope.call("bench.fail_later")
            await scope.call("bench.hangs")


async def late(session, proxy):
    await session.aclose()
    for late_use in (proxy.echo, session.ping, session.notify):
        with contextlib.suppress(SessionClosed):
            await late_use(*{proxy.echo: (1,), session.notify: ("bench.note",)}.get(late_use, ()))
    session.proxy("bench", Bench).echo  # noqa: B018 - the proxy keeps it
    assert session.statistics().state == "over"
    assert not session.tree()
    assert not session.is_open
    await session.wait_closed()


async def in_flight(session, proxy):
    async def hang():
        with contextlib.suppress(SessionClosed):
            await proxy.hangs()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hang)
        nursery.start_soon(hang)
        await wait_all_tasks_blocked()
        await session.aclose(grace=0)


async def stream_in_flight(session, proxy):
    with contextlib.suppress(SessionClosed):
        async with proxy.ticks(10**9) as ticks:
            await ticks.receive()
            await session.aclose(grace=0)
            async for _ in ticks:
                pass


USES = [
    calls,
    failed,
    refused_calls,
    cancelled,
    abandoned,
    streamed,
    left_stream,
    broken_stream,
    used_duplex,
    left_duplex,
    called_back,
    lent_stream,
    started,
    scoped,
    scope_ended,
    scope_failed,
    late,
    in_flight,
    stream_in_flight,
]


@pytest.mark.parametrize("use", USES)
async def test_a_session_leaves_no_garbage(autojump_clock, use):
    async def scenario():
        async with pair() as (session, _):
            await use(session, session.proxy("bench", Bench))

    assert await unreachable(scenario) == []


@pytest.mark.parametrize("use", [calls, cancelled, streamed, called_back])
async def test_a_session_with_filters_leaves_no_garbage(autojump_clock, use):
    async def audit(_call, proceed):
        return await proceed()

    async def scenario():
        options = {"filters": [audit]}
        async with pair(options_a=options, options_b=options) as (session, _):
            await use(session, session.proxy("bench", Bench))

    assert await unreachable(scenario) == []


async def test_a_filter_that_refuses_leaves_no_garbage(autojump_clock):
    async def refuse(_call, _proceed):
        raise Overloaded("raised by the test")

    async def scenario():
        async with pair(options_b={"filters": [refuse]}) as (session, _):
            with contextlib.suppress(Overloaded):
                await session.call("bench.echo", 1)

    assert await unreachable(scenario) == []


# ── other ways for a session to end ──────────────────────────────────────────────────────────


async def test_a_block_that_raises_leaves_no_garbage(autojump_clock):
    async def scenario():
        with contextlib.suppress(LookupError):
            async with pair():
                raise LookupError("raised by the test")

    assert await unreachable(scenario) == []


async def test_a_cancelled_block_leaves_no_garbage(autojump_clock):
    async def scenario():
        with trio.move_on_after(1):
            async with pair() as (session, _):
                await session.call("bench.hangs")

    assert await unreachable(scenario) == []


async def test_a_lost_session_leaves_no_garbage(autojump_clock):
    async def scenario():
        left, right = memory_channel_pair()
        with contextlib.suppress(SessionBroken):
            async with pair(channels=(left, right)):
                left.abort()
                await trio.sleep_forever()

    assert await unreachable(scenario) == []


async def test_a_session_lost_during_a_call_leaves_no_garbage(autojump_clock):
    async def scenario():
        left, right = memory_channel_pair()
        with contextlib.suppress(SessionBroken, ExceptionGroup):
            async with pair(channels=(left, right)) as (session, _):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(session.call, "bench.hangs")
                    await wait_all_tasks_blocked()
                    left.abort()

    assert await unreachable(scenario) == []


async def test_a_session_with_a_silent_peer_leaves_no_garbage(autojump_clock):
    async def scenario():
        left, right = memory_channel_pair()
        limits = Limits(keepalive_interval=10, keepalive_pings=1)
        with contextlib.suppress(SessionBroken):
            async with pair(channels=(left, right), options_a={"limits": limits}):
                right.on_send = lambda _packet: None
                await trio.sleep_forever()

    assert await unreachable(scenario) == []


async def test_a_peer_that_breaks_the_protocol_leaves_no_garbage(autojump_clock):
    async def scenario():
        left, right = memory_channel_pair()
        right.send_nowait(b"\xc1")
        with contextlib.suppress(RemoteProtocolError):
            async with open_session(left, with_session_proxy):
                pass
        right.close()

    assert await unreachable(scenario) == []


async def test_a_refused_handshake_leaves_no_garbage(autojump_clock):
    async def refuse(_session, _credentials):
        await trio.lowlevel.checkpoint()
        raise Refused("raised by the test")

    async def refusing(channel):
        with contextlib.suppress(Refused):
            async with open_session(channel, with_session_proxy, authenticate=refuse):
                pass

    async def scenario():
        left, right = memory_channel_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(refusing, right)
            with contextlib.suppress(Refused):
                async with open_session(left, with_session_proxy):
                    pass

    assert await unreachable(scenario) == []


async def test_a_session_over_a_forwarding_leaves_no_garbage(autojump_clock):
    async def serve_one(channel, **_):
        await serve_session(channel, with_session_proxy)

    async def scenario():
        left, right = memory_channel_pair()
        async with (
            open_forwarding(right, {"bench": serve_one}),
            open_forwarding(left) as forwarding,
            open_session(await forwarding.open("bench"), with_session_proxy) as session,
        ):
            await calls(session, session.proxy("bench", Bench))

    assert await unreachable(scenario) == []


# ── over real connections ────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def served(scheme, contexts, **options):
    """Run a server, and yield a function that connects to it."""
    url = f"{scheme}://127.0.0.1:0"
    server_context, client_context = contexts if scheme in ("tls", "wss") else (None, None)

    async def listen(*, task_status):
        options_of_server = {"ssl_context": server_context, **options}
        await serve(with_session_proxy, url, task_status=task_status, **options_of_server)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            [bound] = await nursery.start(listen)
            yield partial(connect, bound, with_session_proxy, ssl_context=client_context, **options)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("resume", [False, True], ids=["plain", "resumable"])
@pytest.mark.parametrize("scheme", ["tcp", "tls", "ws", "wss"])
async def test_a_servers_session_leaves_no_garbage(scheme, resume, server_tls):
    async with served(scheme, server_tls, resume=resume) as connecting:

        async def scenario():
            async with connecting() as session:
                proxy = session.proxy("bench", Bench)
                for use in (calls, failed, streamed, called_back):
                    await use(session, proxy)
            await wait_all_tasks_blocked(0.05)  # until the server has also closed the session

        left = await unreachable(scenario)
        assert (without_tls(left) if scheme in ("tls", "wss") else left) == []


@pytest.mark.parametrize("scheme", ["tcp", "ws"])
async def test_a_broken_connection_leaves_no_garbage(scheme, server_tls):
    async with served(scheme, server_tls) as connecting:

        async def scenario():
            with contextlib.suppress(SessionBroken):
                async with connecting() as session:
                    await session.call("bench.break_off")
            await wait_all_tasks_blocked(0.05)  # until the server has also closed the session

        assert await unreachable(scenario) == []


async def test_a_failed_attempt_to_connect_leaves_no_garbage(tmp_path):
    async def scenario():
        with contextlib.suppress(OSError):
            async with connect(f"unix://{tmp_path}/nobody"):
                pass

    assert await unreachable(scenario) == []


async def wait_for_a_packet():
    await PacketTimer(1).wait(trio.sleep_forever)


async def wait_for_a_handshake():
    async with time_limit(1, "no handshake"):
        await trio.sleep_forever()


async def fail_in_a_handshake():
    async with time_limit(1, "no handshake"):
        raise ConnectionError("it has failed")


async def be_cancelled_in_a_handshake():
    with trio.CancelScope() as scope:
        async with time_limit(1, "no handshake"):
            scope.cancel()
            await trio.sleep_forever()


@pytest.mark.parametrize(
    "wait",
    [wait_for_a_packet, wait_for_a_handshake, fail_in_a_handshake, be_cancelled_in_a_handshake],
)
async def test_an_expired_or_failed_time_limit_leaves_no_garbage(autojump_clock, wait):
    async def scenario():
        with contextlib.suppress(OSError, trio.BrokenResourceError):
            await wait()

    assert await unreachable(scenario) == []


# ── objects that a user keeps of a finished session ────────────────────────────────────────────


async def test_a_callback_used_after_its_call_raises_an_error_that_says_why(autojump_clock):
    kept = []

    class Keeper:
        @method
        async def keep(self, function: Callable[[int], Awaitable[int]]) -> None:
            kept.append(function)

    async def double(value):
        return 2 * value

    async with open_session_pair(None, Keeper()) as (session, _):
        await session.call("keep", double)
        with pytest.raises(Exception, match="callback of keep lives only until its handler"):
            await kept[0](1)
    assert repr(kept[0]) == "<callback 0 of keep>"


async def test_each_use_of_a_lost_session_raises_its_own_error_with_the_same_cause(autojump_clock):
    left, right = memory_channel_pair()
    async with pair(channels=(left, right), on_end="keep") as (session, _):
        left.abort()
        end = await session.wait_closed()
        errors = []
        for use in (session.call, session.notify):
            with pytest.raises(SessionBroken) as info:
                await use("bench.note")
            errors.append(info.value)
        assert errors[0] is not errors[1]
        assert [error.__cause__ for error in errors] == [end.cause, end.cause]
        assert end.cause.__traceback__ is not None  # it shows where in the channel
