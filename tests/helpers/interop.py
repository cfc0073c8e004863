"""The cases by which gRPC's implementations are compared, by their names there.

Each case is a function of a session whose other end has the service below. The sizes are those of
gRPC's description of its interoperability tests. Where gRPC answers with a status code, a handler
here raises an exception that its method declares. tests/js/interop.mjs has the same cases and the
same service in JavaScript.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

import trio_rpc

UP_SIZES = 27_182, 8, 1_828, 45_904
DOWN_SIZES = 31_415, 9, 2_653, 58_979
LARGE_UP, LARGE_DOWN = 271_828, 314_159
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
KEY = "x-grpc-test-echo-initial"
AT_ONCE = 16
SOAK_CALLS = 50
SOAK_SESSIONS = 5


class Status(Exception):
    """An answer other than a result: a code and a message."""


class InteropService:
    """The cases call this service. ``running`` counts handlers that do not end by themselves."""

    def __init__(self):
        self.running = 0

    @trio_rpc.method
    async def running_now(self) -> int:
        return self.running

    @trio_rpc.method
    async def empty_call(self) -> None:
        """Return no result; the call has no argument."""

    @trio_rpc.method(raises=(Status,))
    async def unary_call(self, payload: bytes, size: int, status: list | None = None) -> bytes:
        if status is not None:
            raise Status(*status)
        return bytes(size)

    @trio_rpc.method
    async def streaming_input(self, payloads: AsyncIterator[bytes]) -> int:
        self.running += 1
        try:
            return sum([len(payload) async for payload in payloads])
        finally:
            self.running -= 1

    @trio_rpc.stream
    async def streaming_output(self, sizes: list[int]) -> AsyncIterator[bytes]:
        for size in sizes:
            yield bytes(size)

    @trio_rpc.duplex(raises=(Status,))
    async def full_duplex(self, channel: trio.abc.Channel) -> None:
        self.running += 1
        try:
            async for size, payload, status in channel:
                if status is not None:
                    raise Status(*status)
                await channel.send((bytes(size), len(payload)))
        finally:
            self.running -= 1

    @trio_rpc.method
    async def echo_metadata(self) -> object:
        return trio_rpc.current_call().metadata.get(KEY)

    @trio_rpc.duplex
    async def stream_metadata(self, channel: trio.abc.Channel) -> None:
        await channel.send(trio_rpc.current_call().metadata.get(KEY))

    @trio_rpc.method
    async def sleep(self) -> None:
        self.running += 1
        try:
            await trio.sleep_forever()
        finally:
            self.running -= 1


async def running(session):
    return await session.call("test.running_now")


async def empty_unary(session):
    assert await session.call("test.empty_call") is None


async def large_unary(session):
    answer = await session.call("test.unary_call", bytes(LARGE_UP), LARGE_DOWN)
    assert answer == bytes(LARGE_DOWN)


async def client_streaming(session):
    async def payloads():
        for size in UP_SIZES:
            yield bytes(size)

    assert await session.call("test.streaming_input", payloads()) == sum(UP_SIZES) == 74_922


async def server_streaming(session):
    async with session.stream("test.streaming_output", list(DOWN_SIZES)) as payloads:
        assert [len(payload) async for payload in payloads] == list(DOWN_SIZES)


async def ping_pong(session):
    async with session.duplex("test.full_duplex") as channel:
        for up, down in zip(UP_SIZES, DOWN_SIZES, strict=True):
            await channel.send((down, bytes(up), None))
            payload, length = await channel.receive()
            assert (len(payload), length) == (down, up)


async def empty_stream(session):
    async with session.duplex("test.full_duplex") as channel:
        await channel.send_eof()
        assert [item async for item in channel] == []


async def custom_metadata(session):
    with trio_rpc.metadata(**{KEY: "test_initial_metadata_value"}):
        assert await session.call("test.echo_metadata") == "test_initial_metadata_value"
        async with session.duplex("test.stream_metadata") as channel:
            assert await channel.receive() == "test_initial_metadata_value"
    assert await session.call("test.echo_metadata") is None


async def status_code_and_message(session, message="test status message"):
    proxy = session.proxy("test", InteropService)
    with pytest.raises(Status) as caught:
        await proxy.unary_call(b"", 0, [2, message])
    assert caught.value.args == (2, message)
    with pytest.raises(Status) as caught:
        async with proxy.full_duplex() as channel:
            await channel.send((0, b"", [2, message]))
            await channel.receive()
    assert caught.value.args == (2, message)


async def special_status_message(session):
    await status_code_and_message(session, SPECIAL)


async def unimplemented_method(session):
    with pytest.raises(trio_rpc.MethodNotFound) as caught:
        await session.call("test.unimplemented_call")
    assert caught.value.fate is trio_rpc.Fate.NOT_STARTED


async def unimplemented_service(session):
    with pytest.raises(trio_rpc.MethodNotFound) as caught:
        await session.call("unimplemented_service.empty_call")
    assert caught.value.fate is trio_rpc.Fate.NOT_STARTED


async def cancel_after_begin(session):
    async def payloads():
        await trio.sleep_forever()
        yield b""

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.call, "test.streaming_input", payloads())
            while not await running(session):
                pass
            scope.cancel()
    assert scope.cancelled_caught
    assert not await running(session), "the handler has ended before its caller went on"


async def cancel_after_first_response(session):
    with trio.CancelScope() as scope:
        async with session.duplex("test.full_duplex") as channel:
            await channel.send((DOWN_SIZES[0], bytes(UP_SIZES[0]), None))
            await channel.receive()
            scope.cancel()
            await channel.receive()
    assert scope.cancelled_caught
    assert not await running(session)


async def timeout_on_sleeping_server(session):
    with pytest.raises(trio.TooSlowError), trio.fail_after(0.001):
        await session.call("test.sleep")
    assert not await running(session)


async def concurrent_large_unary(session):
    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(large_unary, session)


async def rpc_soak(session):
    for _ in range(SOAK_CALLS):
        await large_unary(session)


CASES = (
    empty_unary,
    large_unary,
    client_streaming,
    server_streaming,
    ping_pong,
    empty_stream,
    custom_metadata,
    status_code_and_message,
    special_status_message,
    unimplemented_method,
    unimplemented_service,
    cancel_after_begin,
    cancel_after_first_response,
    timeout_on_sleeping_server,
    concurrent_large_unary,
    rpc_soak,
)
