"""The costs of a call, counted exactly, so that the figures do not depend on the machine.

Both ends are in this process, joined by one TCP connection, so each figure covers client and
server together. A change that makes a call cheaper, or dearer for a reason, changes its figure.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import socket
import sys
import tracemalloc
from collections import Counter
from dataclasses import asdict, dataclass, field

import pytest
import trio
import trio.lowlevel
from helpers.garbage import collecting_garbage
from trio.testing import wait_all_tasks_blocked

from trio_rpc import DEFAULT_LIMITS, connect, method, open_server, serve
from trio_rpc.protocol.hello import make_info
from trio_rpc.session.calls.incoming_call import IncomingCall
from trio_rpc.session.calls.outgoing_call import OutgoingCall
from trio_rpc.testing import open_session_pair
from trio_rpc.wire import messages as m
from trio_rpc.wire.codec import Codec
from trio_rpc.wire.framing import PREFIX, frame

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="other systems use other system calls"
)

READS = {"read", "socket.recv", "socket.recv_into"}
WRITES = {"write", "writev", "socket.send", "socket.sendmsg"}
AT_ONCE = 64
PAYLOAD = "0123456789abcdef"


@dataclass(frozen=True)
class Cost:
    """The cost of some work, at both ends together."""

    packets: int
    bytes: int
    writes: int
    reads: int = field(compare=False)
    """This is not compared, because one read may return the bytes of two writes."""

    waits: int
    """The number of times that Trio waited for I/O."""

    steps: int
    """The number of times that Trio ran a task."""

    tasks: int = 0
    """Tasks started."""

    def __mul__(self, count):
        return Cost(**{name: value * count for name, value in asdict(self).items()})


class Bench:
    @method
    async def echo(self, value: str) -> str:
        return value

    @method
    def echo_inline(self, value: str) -> str:
        return value

    @method
    async def large(self, value: bytes) -> bytes:
        return value


class Meter(trio.abc.Instrument):
    """Counts costs within its block."""

    def __init__(self, monkeypatch):
        self._monkeypatch = monkeypatch
        self._counted = Counter()
        self._written = {}

    def task_spawned(self, task):
        self._counted["tasks"] += 1

    def before_task_step(self, task):
        self._counted["steps"] += 1

    def after_io_wait(self, timeout):
        self._counted["waits"] += 1

    def _profile(self, frame, event, function):
        if event == "c_call":
            self._counted["reads"] += function.__qualname__ in READS
            self._counted["writes"] += function.__qualname__ in WRITES

    def _write(self, fileno, data, *, really=os.write):
        sent = really(fileno, data)
        self._written.setdefault(fileno, bytearray()).extend(data[:sent])
        return sent

    def _write_parts(self, fileno, buffers, *, really=os.writev):
        sent = really(fileno, buffers)
        self._written.setdefault(fileno, bytearray()).extend(b"".join(buffers)[:sent])
        return sent

    def _packets(self):
        for written in self._written.values():
            while written:
                size = PREFIX + int.from_bytes(written[:PREFIX], "big")
                assert len(written) >= size, "a packet was written only in part"
                yield size
                del written[:size]

    def __enter__(self):
        self._monkeypatch.setattr(os, "write", self._write)
        self._monkeypatch.setattr(os, "writev", self._write_parts)
        trio.lowlevel.add_instrument(self)
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_):
        sys.setprofile(None)
        trio.lowlevel.remove_instrument(self)
        self._monkeypatch.undo()

    def cost(self):
        sizes = list(self._packets())
        return Cost(packets=len(sizes), bytes=sum(sizes), **self._counted)


@pytest.fixture
async def bench(nursery):
    """Open a new connection, so that its calls have the same numbers each time."""
    with trio.fail_after(60):
        [url] = await nursery.start(serve, {"bench": Bench()}, "tcp://127.0.0.1:0")
        async with connect(url) as session:
            proxy = session.proxy("bench", Bench)
            assert await proxy.echo(PAYLOAD) == PAYLOAD
            assert await proxy.echo_inline(PAYLOAD) == PAYLOAD
            yield proxy
    nursery.cancel_scope.cancel()


async def one_at_a_time(echo, count):
    for _ in range(count):
        assert await echo(PAYLOAD) == PAYLOAD


async def at_once(echo, count):
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one_at_a_time, echo, 1)


@pytest.mark.parametrize(
    ("name", "cost"),
    [
        ("echo", Cost(packets=2, bytes=60, writes=2, reads=2, waits=2, steps=3)),
        ("echo_inline", Cost(packets=2, bytes=67, writes=2, reads=2, waits=2, steps=3)),
    ],
)
async def test_the_cost_of_one_call_at_a_time(bench, monkeypatch, name, cost):
    count = 10
    # From the second of several calls in a row, the caller receives its reply itself.
    await one_at_a_time(getattr(bench, name), 3)
    with Meter(monkeypatch) as meter:
        await one_at_a_time(getattr(bench, name), count)
    found = meter.cost()
    assert found == cost * count
    assert found.reads == found.packets


@pytest.mark.parametrize(
    ("name", "cost"),
    [
        ("echo", Cost(packets=6, bytes=3352, writes=6, reads=4, waits=10, steps=140, tasks=65)),
        (
            "echo_inline",
            Cost(packets=6, bytes=3800, writes=6, reads=4, waits=10, steps=140, tasks=65),
        ),
    ],
)
async def test_the_cost_of_many_calls_at_once(bench, monkeypatch, name, cost):
    await wait_all_tasks_blocked()
    with Meter(monkeypatch) as meter:
        await at_once(getattr(bench, name), AT_ONCE)
    found = meter.cost()
    assert found == cost
    assert found.reads <= found.packets


@pytest.mark.parametrize(
    ("size", "cost", "held"),
    [(255 * 1024, (2, 522_277), 3.25), (1024 * 1024, (10, 2_097_291), 2.75)],
)
async def test_the_cost_of_a_large_call(bench, monkeypatch, size, cost, held):
    """One packet each way, or five. The system decides how many writes and turns they take."""
    content = bytes(range(256)) * (size // 256)
    with Meter(monkeypatch) as meter:
        assert await bench.large(content) == content
    found = meter.cost()
    assert (found.packets, found.bytes) == cost
    # Allocated: the handler's argument, the caller's result, and a packet at each end.
    tracemalloc.start()
    try:
        await bench.large(content)
        assert tracemalloc.get_traced_memory()[1] < held * len(content)
    finally:
        tracemalloc.stop()


async def connect_call_and_close(url):
    async with connect(url) as session:
        assert await session.call("bench.echo", PAYLOAD) == PAYLOAD
    await wait_all_tasks_blocked()  # until the server has also closed the session


async def test_the_cost_of_connecting_calling_and_closing(nursery, monkeypatch):
    """Packets: Hello; Hello and Welcome; Welcome and Request; Reply; two Goodbyes.

    Tasks: a watchman and a reader at the client, the connection's task at the server, which reads.
    """
    count = 5
    with trio.fail_after(60):
        [url] = await nursery.start(serve, {"bench": Bench()}, "tcp://127.0.0.1:0")
        await connect_call_and_close(url)
        with Meter(monkeypatch) as meter:
            for _ in range(count):
                await connect_call_and_close(url)
    nursery.cancel_scope.cancel()
    once = Cost(packets=6, bytes=348, writes=6, reads=6, waits=11, steps=19, tasks=3)
    assert meter.cost() == once * count


class Waiting:
    @method
    async def returns(self) -> None:
        await trio.lowlevel.checkpoint()

    @method
    async def hangs(self) -> None:
        await trio.sleep_forever()

    @method
    async def fails(self) -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("raised by the test")


async def _use(session, way):
    with contextlib.suppress(ExceptionGroup), trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.call, way)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()


@pytest.mark.parametrize("way", ["returns", "hangs", "fails"])
async def test_a_call_leaves_no_objects_to_the_garbage_collector(way, caplog):
    """Objects in reference cycles make the collector run during other work.

    It once took a fifth of the time of cancelled calls.
    """
    caplog.set_level(logging.CRITICAL)  # pytest keeps each logged bug with its traceback

    def count():
        return sum(
            isinstance(each, IncomingCall | OutgoingCall | trio.CancelScope)
            for each in gc.get_objects()
        )

    async with open_session_pair(None, Waiting()) as (session, _):
        await _use(session, way)
        gc.collect()
        gc.disable()
        try:
            await trio.testing.wait_all_tasks_blocked()
            before = count()
            for _ in range(5):
                await _use(session, way)
            await trio.testing.wait_all_tasks_blocked()
            assert count() == before
        finally:
            gc.enable()


async def test_many_cancels_of_one_tick_are_sent_before_its_end(autojump_clock):
    # A memory channel can write a packet without waiting. Other channels have a task for it.
    async with open_session_pair(None, Waiting()) as (session, _), trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(session.call, "hangs")
        await trio.testing.wait_all_tasks_blocked()
        before = session.statistics().packets_sent
        nursery.cancel_scope.cancel()
        assert session.statistics().packets_sent - before == 200 // 64


# ── idle sessions ────────────────────────────────────────────────────────────────────────────

SESSIONS = 20
AT_SERVER, AT_CLIENT = 94, 134
"""The most objects of one idle session that the garbage collector follows, in these tests.

Trio's own share, for a socket that a task waits for, is about 30. The collector looks at all of
them again and again, so that connecting becomes slower with each open session.
"""


def _tracked():
    gc.collect()
    return len(gc.get_objects())


async def test_an_idle_session_of_a_server_has_few_objects_for_the_garbage_collector():
    codec = Codec()
    hello = codec.encode(m.Hello(m.PROTOCOL_VERSION, make_info(DEFAULT_LIMITS, None)))
    welcome = codec.encode(m.Welcome())
    request = codec.encode(m.Request(1, "bench.echo", [PAYLOAD]))

    async def connect_some(count):
        """Connect clients that are only sockets, so that only the server's objects are counted."""
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", port))
            stack.callback(client.close)
            client.sendall(frame(hello) + frame(welcome + request))
        while len(server.sessions) < len(clients) + count:
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        clients.extend([None] * count)

    clients = []
    with trio.fail_after(60), contextlib.ExitStack() as stack:
        async with open_server({"bench": Bench()}, "tcp://127.0.0.1:0") as server:
            port = int(server.urls[0].rpartition(":")[2])
            await connect_some(2)
            before = _tracked()
            await connect_some(SESSIONS)
            sockets = SESSIONS
            # Less than one object of each session may belong to the server, such as a larger table.
            assert (_tracked() - before - sockets) // SESSIONS <= AT_SERVER


async def test_an_idle_session_of_a_client_has_few_objects_for_the_garbage_collector():
    async def hold(url, *, task_status):
        async with connect(url) as session:
            assert await session.call("bench.echo", PAYLOAD) == PAYLOAD
            task_status.started()
            await trio.sleep_forever()

    async def open_some(nursery, count):
        for _ in range(count):
            await nursery.start(hold, url)
        await wait_all_tasks_blocked()

    with trio.fail_after(60):
        async with (
            open_server({"bench": Bench()}, "tcp://127.0.0.1:0") as server,
            trio.open_nursery() as nursery,
        ):
            [url] = server.urls
            await open_some(nursery, 2)
            before = _tracked()
            await open_some(nursery, SESSIONS)
            # The task that holds the block belongs to the user: about ten objects.
            assert (_tracked() - before) // SESSIONS <= AT_SERVER + AT_CLIENT + 10
            nursery.cancel_scope.cancel()


async def test_connections_leave_no_objects_to_the_garbage_collector(nursery):
    with trio.fail_after(60):
        [url] = await nursery.start(serve, {"bench": Bench()}, "tcp://127.0.0.1:0")
        await connect_call_and_close(url)
        with collecting_garbage() as left:
            await connect_call_and_close(url)
            for _ in range(10):
                await connect_call_and_close(url)
    assert not left
    nursery.cancel_scope.cancel()
