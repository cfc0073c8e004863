"""connect, connect_in, serve and open_server, over real sockets."""

from __future__ import annotations

import pathlib
import socket
import struct
from functools import partial

import pytest
import trio
from helpers.handlers import Echo, Sleeper
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

import trio_rpc
from trio_rpc import Fate, Limits, connect, connect_in, open_server, serve

LOCAL = "tcp://127.0.0.1:0"
DESCRIPTORS = pathlib.Path("/proc/self/fd")


async def until(condition):
    """Wait for a condition that sets no event, because the two ends are joined by real sockets."""
    while not condition():
        await trio.lowlevel.checkpoint()


@pytest.fixture(params=["tcp", "tls", "unix", "ws", "wss"])
def endpoint(request, tmp_path, server_tls):
    """Return a URL to listen at, and the options of server and client."""
    match request.param:
        case "tcp":
            return LOCAL, {}, {}
        case "ws":
            return "ws://127.0.0.1:0/rpc", {}, {}
        case "unix":
            return f"unix://{tmp_path}/socket", {}, {}
        case _:
            server, client = server_tls
            return (
                f"{request.param}://127.0.0.1:0",
                {"ssl_context": server},
                {"ssl_context": client},
            )


@pytest.fixture(autouse=True)
async def no_hang():
    """Bound the real time that a test over sockets may take."""
    with trio.fail_after(20):
        yield


async def test_clients_can_call_a_server(endpoint):
    """A remote call looks like a local one."""
    url, server_options, client_options = endpoint
    async with trio.open_nursery() as nursery:
        [bound] = await nursery.start(
            lambda task_status: serve(
                {"echo": Echo()}, url, task_status=task_status, **server_options
            )
        )
        async with connect(bound, **client_options) as session:
            assert await session.call("echo.echo", [1, "two", b"3"]) == [1, "two", b"3"]
            assert len(await session.call("echo.echo", b"x" * 3_000_000)) == 3_000_000
            assert await session.ping() < 5
            assert bound in repr(session)
        nursery.cancel_scope.cancel()


async def test_a_server_can_call_its_client(endpoint):
    """Both ends of one connection can call and serve."""
    url, server_options, client_options = endpoint

    class Asks:
        def __init__(self, session):
            self.session = session

        @trio_rpc.method
        async def ask(self):
            return await self.session.call("echo", "question")

    async with (
        open_server(Asks, url, **server_options) as server,
        connect(server.urls[0], Echo(), **client_options) as session,
    ):
        assert await session.call("ask") == "question"
        assert len(server.sessions) == 1
        assert server.urls[0] in repr(server)


async def test_cancelled_calls_over_a_socket_leave_no_handlers_running(endpoint):
    url, server_options, client_options = endpoint
    sleeper = Sleeper()
    async with (
        open_server(sleeper, url, **server_options) as server,
        connect(server.urls[0], **client_options) as session,
    ):
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(session.call, "sleep")
            await until(lambda: sleeper.running == 50)
            nursery.cancel_scope.cancel()
        assert sleeper.running == 0
        assert session.statistics().calls_out == 0


async def test_one_server_can_listen_at_several_urls(tmp_path):
    async with open_server(Echo(), LOCAL, LOCAL, f"unix://{tmp_path}/s") as server:
        assert len(set(server.urls)) == 3
        for url in server.urls:
            async with connect(url) as session:
                assert await session.call("echo", url) == url


async def test_connect_in_returns_a_session_owned_by_the_nursery():
    async with open_server(Echo(), LOCAL) as server, trio.open_nursery() as nursery:
        session = await connect_in(nursery, server.urls[0])
        other = await connect_in(nursery, server.urls[0])
        assert await session.call("echo", 1) == 1
        await session.aclose()
        with pytest.raises(trio_rpc.SessionClosed):
            await session.call("echo", 1)
        assert await other.call("echo", 2) == 2
        nursery.cancel_scope.cancel()
    assert other.statistics().state == "over"


async def test_the_end_of_a_session_raises_nothing_in_the_nursery_that_owns_it():
    async with trio.open_nursery() as nursery:
        async with open_server(Echo(), LOCAL) as server:
            session = await connect_in(nursery, server.urls[0])
        await session.wait_closed()
        with pytest.raises(trio_rpc.SessionBroken):
            await session.call("echo", 1)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("tcp://127.0.0.1:1", ConnectionRefusedError),
        ("unix:///nowhere/at/all", FileNotFoundError),
        ("tcp://127.0.0.1:0", ValueError),
        ("http://127.0.0.1:80", ValueError),
        ("", ValueError),
    ],
)
async def test_a_failed_connection_raises_one_clear_error(url, kind):
    with pytest.raises(kind) as caught:
        async with connect(url):
            raise AssertionError("it must not open")
    assert "\n" not in str(caught.value)
    async with trio.open_nursery() as nursery:
        with pytest.raises(kind):
            await connect_in(nursery, url)


async def test_serving_without_a_url_is_an_error():
    with pytest.raises(ValueError, match="URL"):
        await serve(Echo())
    async with open_server(Echo(), LOCAL) as server:
        with pytest.raises(OSError, match=r"in use"):
            await serve(Echo(), LOCAL, server.urls[0])


async def test_serve_stops_at_once_when_cancelled(endpoint):
    url, server_options, client_options = endpoint
    sleeper = Sleeper()
    async with trio.open_nursery() as clients:
        async with trio.open_nursery() as servers:
            [bound] = await servers.start(
                lambda task_status: serve(sleeper, url, task_status=task_status, **server_options)
            )
            session = await connect_in(clients, bound, **client_options)
            errors = []

            async def call():
                try:
                    await session.call("sleep")
                except trio_rpc.RpcError as exc:
                    errors.append(exc)

            clients.start_soon(call)
            await until(lambda: sleeper.running)
            servers.cancel_scope.cancel()
        assert sleeper.running == 0
        await session.wait_closed()
        await wait_all_tasks_blocked()
        assert [exc.fate for exc in errors] == [Fate.STOPPED]
        with pytest.raises(OSError):
            await connect_in(clients, bound, **client_options)


# ── drain ────────────────────────────────────────────────────────────────────────────────────


async def test_drain_lets_running_calls_end_and_refuses_new_ones():
    sleeper = Sleeper()
    async with open_server(sleeper, LOCAL) as server, trio.open_nursery() as nursery:
        url = server.urls[0]
        session = await connect_in(nursery, url)
        results = []

        async def call():
            results.append(await session.call("sleep", "finished"))

        nursery.start_soon(call)
        await until(lambda: sleeper.running)
        nursery.start_soon(server.drain)
        await until(lambda: session.statistics().state != "open")
        with pytest.raises(trio_rpc.SessionBroken, match="leaving") as caught:
            await session.call("sleep")
        assert caught.value.fate is Fate.NOT_STARTED
        with pytest.raises(OSError):
            await connect_in(nursery, url)
        sleeper.go.set()
        await session.wait_closed()
    assert results == ["finished"]
    assert server.sessions == set()


async def test_drain_sends_goodbye_to_all_sessions_at_once():
    sleeper = Sleeper()
    async with open_server(sleeper, LOCAL) as server, trio.open_nursery() as nursery:
        sessions = [await connect_in(nursery, server.urls[0]) for _ in range(3)]
        for session in sessions:
            nursery.start_soon(session.call, "sleep")
        await until(lambda: sleeper.running == 3)
        nursery.start_soon(partial(server.drain, grace=1000))
        # No call ends before the last session has received its Goodbye.
        await until(lambda: all(each.statistics().state != "open" for each in sessions))
        assert sleeper.running == 3
        sleeper.go.set()


async def test_drain_cancels_calls_after_its_grace_time():
    sleeper = Sleeper()
    async with open_server(sleeper, LOCAL) as server, trio.open_nursery() as nursery:
        session = await connect_in(nursery, server.urls[0])

        async def call():
            with pytest.raises(trio_rpc.RemoteCancelled):
                await session.call("sleep")

        nursery.start_soon(call)
        await until(lambda: sleeper.running)
        await server.drain(grace=0.01)
        assert sleeper.running == 0


async def test_drain_without_sessions_is_a_checkpoint():
    async with open_server(Echo(), LOCAL) as server:
        with assert_checkpoints():
            await server.drain()
        await server.drain()


async def test_drain_turns_a_client_away_that_is_still_in_its_handshake():
    async def slow(session, credentials):
        greeted.set()
        await go.wait()

    greeted, go = trio.Event(), trio.Event()
    async with (
        open_server(Echo(), LOCAL, authenticate=slow) as server,
        trio.open_nursery() as nursery,
    ):

        async def connect_late():
            with pytest.raises(trio_rpc.SessionBroken, match="the server is shutting down"):
                await connect_in(nursery, server.urls[0])

        nursery.start_soon(connect_late)
        await greeted.wait()
        await server.drain()
    assert server.sessions == set()


# ── bad clients, slow clients and fatal errors ───────────────────────────────────────────────


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xff\xff\xff",
        b"\0\0\0\0",
        b"\0\0\0\x05\x93\x0a\x02\x80\xc0",
    ],
    ids=["nothing", "http", "oversize", "empty frame", "version"],
)
@pytest.mark.parametrize("end", ["fin", "rst"])
async def test_invalid_bytes_from_one_client_do_not_affect_another(data, end):
    """A misbehaving peer cannot break the other side, nor another peer."""
    limits = Limits(handshake_timeout=0.2)
    async with open_server(Echo(), LOCAL, limits=limits) as server, connect(server.urls[0]) as good:
        port = int(server.urls[0].rpartition(":")[2])
        stranger = await trio.open_tcp_stream("127.0.0.1", port)
        if data:
            await stranger.send_all(data)
        if end == "rst":
            linger = struct.pack("ii", 1, 0)
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            await stranger.aclose()
        else:
            await stranger.send_eof()
            while await stranger.receive_some():
                pass
            await stranger.aclose()
        assert await good.call("echo", "still here") == "still here"
        assert len(server.sessions) == 1


async def test_a_slow_handshake_is_ended_by_its_timeout(server_tls):
    server_context, client_context = server_tls
    limits = Limits(handshake_timeout=0.1)
    async with open_server(
        Echo(), "tls://127.0.0.1:0", ssl_context=server_context, limits=limits
    ) as s:
        port = int(s.urls[0].rpartition(":")[2])
        stranger = await trio.open_tcp_stream("127.0.0.1", port)
        assert await stranger.receive_some() == b""
        await stranger.aclose()
        async with connect(s.urls[0], ssl_context=client_context) as session:
            assert await session.call("echo", 1) == 1


async def test_a_server_that_sends_nothing_is_a_handshake_timeout():
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    with pytest.raises(trio_rpc.SessionBroken, match="handshake"):
        async with connect(f"tcp://127.0.0.1:{port}", limits=Limits(handshake_timeout=0.1)):
            raise AssertionError("it must not open")
    await listeners[0].aclose()


@pytest.mark.parametrize("fatal", [KeyboardInterrupt, SystemExit])
async def test_a_server_is_ended_only_by_a_fatal_exception_which_is_raised_alone(fatal):
    class Fatal:
        @trio_rpc.method
        async def harmless(self):
            raise ValueError

        @trio_rpc.method
        async def stop(self):
            raise fatal

    errors = []
    async with trio.open_nursery() as nursery:
        with pytest.raises(fatal):
            async with open_server(Fatal(), LOCAL) as server:
                session = await connect_in(nursery, server.urls[0])
                with pytest.raises(ValueError):
                    await session.call("harmless")
                try:
                    with trio.CancelScope(shield=True):
                        await session.call("stop")
                except trio_rpc.RemoteError as exc:
                    errors.append(exc.type_name)
                await trio.sleep_forever()
    assert [name.rpartition(".")[2] for name in errors] == [fatal.__name__]


@pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="only Linux lists open descriptors")
async def test_closed_connections_leave_no_open_descriptors():
    def count():
        return len(list(DESCRIPTORS.iterdir()))

    async with open_server(Echo(), LOCAL) as server:
        before = count()
        for number in range(50):
            async with connect(server.urls[0]) as session:
                await session.call("echo", number)
        await until(lambda: not server.sessions)
        await wait_all_tasks_blocked()
        assert count() <= before + 1


async def test_a_reset_connection_ends_the_calls_in_flight():
    # The connection is reset in the middle of a call.
    sleeper = Sleeper()
    async with open_server(sleeper, LOCAL) as server, trio.open_nursery() as nursery:
        session = await connect_in(nursery, server.urls[0])

        async def call():
            with pytest.raises(trio_rpc.SessionBroken) as caught:
                await session.call("sleep")
            assert caught.value.fate is Fate.UNKNOWN

        nursery.start_soon(call)
        await until(lambda: sleeper.running)
        [served] = server.sessions
        stream = served._core.channel.stream
        linger = struct.pack("ii", 1, 0)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        stream.socket.close()
        await session.wait_closed()
