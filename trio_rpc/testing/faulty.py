"""A pair of channels in memory with faults between them, for tests with a mock clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio
from trio.testing import lockstep_stream_pair

from trio_rpc.channels.stream import StreamChannel
from trio_rpc.testing.faults import NO_FAULTS, Faults, Link
from trio_rpc.util.one_exception import one_exception
from trio_rpc.wire.limits import DEFAULT_LIMITS, Limits

__all__ = ["FaultyPair", "open_faulty_pair"]


@dataclass(frozen=True, slots=True)
class FaultyPair:
    """The pair that :func:`open_faulty_pair` opens.

    Attributes:
        first: one end.
        second: the other.
        link: the connection between them: ``link.cut()``, ``link.freeze()`` …
    """

    first: StreamChannel
    second: StreamChannel
    link: Link


@asynccontextmanager
async def open_faulty_pair(
    forth: Faults = NO_FAULTS,
    back: Faults = NO_FAULTS,
    *,
    seed: int = 0,
    limits: Limits = DEFAULT_LIMITS,
) -> AsyncIterator[FaultyPair]:
    """Join two channels by a stream of bytes with faults. Leaving the block ends the stream.

    Only bytes in transit are buffered, and only the faults take time.

    Args:
        forth: the faults on the way from the first channel to the second.
        back: the faults on the way back.
        seed: the seed of the random generator.
        limits: ``max_packet`` and ``packet_timeout`` of both channels.

    Example:
        >>> async def test_a_cut() -> None:
        ...     slow = trio_rpc.testing.Faults(latency=0.5, fail_after=100)
        ...     async with trio_rpc.testing.open_faulty_pair(slow) as pair:
        ...         await pair.first.send(b"hello")
        ...         print(await pair.second.receive(), trio.current_time())
        >>> trio.run(test_a_cut, clock=trio.testing.MockClock(autojump_threshold=0))
        b'hello' 0.5
    """
    first, first_plug = _socket_pair()
    second, second_plug = _socket_pair()
    link = Link(first_plug, second_plug, forth=forth, back=back, reset=_reset, seed=seed)
    with one_exception() as body:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.run, name="link with faults")
            try:
                yield FaultyPair(_channel(first, limits), _channel(second, limits), link)
            except BaseException as exc:
                body.append(exc)
                raise
            finally:
                link.cut()


def _channel(stream: trio.abc.Stream, limits: Limits) -> StreamChannel:
    return StreamChannel(stream, limits.max_packet, packet_timeout=limits.packet_timeout)


class _Socket(trio.abc.HalfCloseableStream):
    """One end of a stream in memory whose other end can break it."""

    def __init__(
        self, stream: trio.StapledStream[trio.abc.SendStream, trio.abc.ReceiveStream]
    ) -> None:
        self._stream = stream
        self.peer = self
        self.is_broken = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self.is_broken:
            raise trio.BrokenResourceError("the connection was reset")
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = await self._stream.receive_some(max_bytes)
        if not data and self.is_broken:
            raise trio.BrokenResourceError("the connection was reset")
        return bytes(data)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


def _socket_pair() -> tuple[_Socket, _Socket]:
    left, right = map(_Socket, lockstep_stream_pair())
    left.peer, right.peer = right, left
    return left, right


async def _reset(stream: trio.abc.Stream) -> None:
    assert isinstance(stream, _Socket)  # noqa: S101 - we have made it
    stream.peer.is_broken = True
    await trio.lowlevel.checkpoint()
