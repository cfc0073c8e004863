"""The conformance suite for channels: :func:`check_channel`."""

# ruff: noqa: S101, ARG001 - a suite of checks asserts, and all its checks are called alike

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Protocol, TypeAlias, runtime_checkable

import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from trio_rpc.channels.memory import MemoryChannel, memory_channel_pair
from trio_rpc.errors import DecodeError
from trio_rpc.wire.limits import DEFAULT_LIMITS

__all__ = ["ChannelMaker", "MemoryChannel", "check_channel", "memory_channel_pair"]

End: TypeAlias = trio.abc.Channel[bytes]
ChannelMaker: TypeAlias = Callable[[], Awaitable[tuple[End, End]]]
"""A function that makes a connected pair of channels; it is called many times."""

LARGE = 100_000
"""Bytes of a packet that exceeds one read."""

FLOOD = 64 * 1024 * 1024
"""Bytes that exceed the buffer of a bounded channel while nobody receives."""


@runtime_checkable
class _Nowait(Protocol):
    """The optional method ``send_nowait`` of a channel."""

    def send_nowait(self, value: bytes, /) -> bool: ...

    async def flush(self) -> None: ...


async def check_channel(
    maker: ChannelMaker, *, max_packet: int = DEFAULT_LIMITS.max_packet
) -> None:
    """Check that a channel does everything that a session relies on.

    Packets arrive whole and in order, in both directions at once. A cancelled ``receive`` loses
    nothing, and a cancelled ``send`` garbles nothing. Both ends see the close. A full channel makes
    its sender wait. Every method is a checkpoint.

    Args:
        maker: an async function that returns a connected, ready pair. Each check calls it twice,
            since each end plays both parts.
        max_packet: bytes of the largest packet that the channels receive; at least 4096.

    Raises:
        AssertionError: the channel fails. The text names the check, and the cause has the details.
            A channel that hangs makes this function hang, so call it with a timeout.

    Example:
        >>> async def make_pair() -> tuple[Any, Any]:
        ...     return trio_rpc.testing.memory_channel_pair()
        >>> async def test_channel() -> None:
        ...     with trio.fail_after(60):
        ...         await trio_rpc.testing.check_channel(make_pair)
        >>> trio.run(test_channel)
    """
    for check in _CHECKS:
        for swapped in (False, True):
            ends = "ends swapped" if swapped else "ends as made"
            with _named(f"{check.__name__.strip('_')}, {ends}"):
                async with _both(maker, swapped=swapped) as (sender, receiver):
                    await check(sender, receiver, max_packet)


@contextmanager
def _named(check: str) -> Iterator[None]:
    """Turn any exception of a check into one AssertionError that names the check."""
    try:
        yield
    except Exception as exc:
        reason: BaseException = exc
        while isinstance(reason, BaseExceptionGroup):
            reason = reason.exceptions[0]
        complaint = str(reason) if isinstance(reason, AssertionError) else repr(reason)
        raise AssertionError(f"{check}: {complaint}") from exc


@asynccontextmanager
async def _both(maker: ChannelMaker, *, swapped: bool) -> AsyncIterator[tuple[End, End]]:
    pair = await maker()
    try:
        yield pair[::-1] if swapped else pair
    finally:
        try:
            await trio.aclose_forcefully(pair[0])
        finally:
            await trio.aclose_forcefully(pair[1])


@contextmanager
def _raises(kind: type[BaseException]) -> Iterator[None]:
    try:
        yield
    except kind:
        return
    raise AssertionError(f"{kind.__name__} should have been raised")


def _numbered(number: int, size: int) -> bytes:
    """Make a packet that differs from every other packet and from every piece of one."""
    pattern = number.to_bytes(8) + b"\0\xff\x80packet"
    return (pattern * (size // len(pattern) + 1))[:size]


async def _pass(sender: End, receiver: End, packet: bytes) -> None:
    """Send one packet, and check that it arrives."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.send, packet)
        got = await receiver.receive()
    assert type(got) is bytes, f"a packet must be bytes, not {type(got).__name__}"
    assert got == packet, f"{len(packet)} bytes were sent, {len(got)} other bytes received"


async def _send_all(sender: End, packets: list[bytes]) -> None:
    for packet in packets:
        await sender.send(packet)


async def _receive_all(receiver: End, packets: list[bytes]) -> None:
    for number, packet in enumerate(packets):
        assert await receiver.receive() == packet, f"packet {number} arrived as another"


async def _clog(sender: End, size: int, sent: list[bytes]) -> None:
    """Send and count packets until cancelled. Nobody receives, so the channel fills."""
    while sum(map(len, sent)) < FLOOD:
        packet = _numbered(len(sent), size)
        await sender.send(packet)
        sent.append(packet)
    raise AssertionError("the channel accepts packets without bound while nobody receives")


async def _whole_packets(sender: End, receiver: End, max_packet: int) -> None:
    for size in (1, 2, 3, 4, 5, 255, 256, 4096, 65_531, 65_532, 65_536, LARGE, max_packet):
        if size <= max_packet:
            await _pass(sender, receiver, _numbered(size, size))


async def _order(sender: End, receiver: End, max_packet: int) -> None:
    packets = [_numbered(n, 1 + n * 37 % 4096) for n in range(500)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send_all, sender, packets)
        await _receive_all(receiver, packets)


async def _both_directions(sender: End, receiver: End, max_packet: int) -> None:
    size = min(LARGE, max_packet)
    there = [_numbered(n, size) for n in range(20)]
    back = [_numbered(n + 1000, size) for n in range(20)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send_all, sender, there)
        nursery.start_soon(_send_all, receiver, back)
        nursery.start_soon(_receive_all, receiver, there)
        nursery.start_soon(_receive_all, sender, back)


async def _size_limit(sender: End, receiver: End, max_packet: int) -> None:
    """Check that one end or the other refuses a packet beyond the limit."""

    async def send() -> None:
        with suppress(ValueError, trio.BrokenResourceError):
            await sender.send(bytes(max_packet + 1))
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await sender.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        try:
            packet = await receiver.receive()
        except (DecodeError, trio.EndOfChannel, trio.BrokenResourceError):
            # No task reads any more, so the sender might wait forever.
            nursery.cancel_scope.cancel()
        else:
            raise AssertionError(f"{len(packet)} bytes arrived where {max_packet} are allowed")


async def _empty_packet(sender: End, receiver: End, max_packet: int) -> None:
    with _raises(ValueError):
        await sender.send(b"")
    await _pass(sender, receiver, b"still works")


async def _is_busy(verb: Callable[..., Awaitable[object]], *args: bytes) -> None:
    """Check that a method raises at once while another task is in it."""
    refused: list[bool] = []

    async def try_it() -> None:
        with _raises(trio.BusyResourceError):
            await verb(*args)
        refused.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(try_it)
        await wait_all_tasks_blocked()
        assert refused, "a second task should have got a BusyResourceError, but it waited"


async def _one_receiver(sender: End, receiver: End, max_packet: int) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_receive_all, receiver, [b"for the first"])
        await wait_all_tasks_blocked()
        await _is_busy(receiver.receive)
        await sender.send(b"for the first")
    await _pass(sender, receiver, b"still works")


async def _one_sender(sender: End, receiver: End, max_packet: int) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_clog, sender, min(LARGE, max_packet), [])
        await wait_all_tasks_blocked()
        await _is_busy(sender.send, b"too many")
        nursery.cancel_scope.cancel()


async def _cancelled_receive(sender: End, receiver: End, max_packet: int) -> None:
    """Check that packets arrive once and in order although receives are cancelled."""
    packets = [_numbered(n, (1, 5, min(LARGE, max_packet))[n % 3]) for n in range(60)]
    received: list[bytes] = []
    ended: list[bool] = []

    async def cancel_later(scope: trio.CancelScope, checkpoints: int) -> None:
        for _ in range(checkpoints):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    async def receive_one() -> None:
        try:
            received.append(await receiver.receive())
        except trio.EndOfChannel:
            ended.append(True)

    async def send_and_close() -> None:
        await _send_all(sender, packets)
        await sender.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_and_close)
        for patience in itertools.count():
            async with trio.open_nursery() as race:
                race.start_soon(cancel_later, race.cancel_scope, patience % 7)
                race.start_soon(receive_one)
            if ended:
                break
    assert received == packets, "a cancelled receive has lost, doubled or garbled a packet"


async def _cancelled_before_send(sender: End, receiver: End, max_packet: int) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await sender.send(b"must not arrive")
    assert scope.cancelled_caught, "send must be a checkpoint before it sends"
    await _pass(sender, receiver, b"still works")


async def _cancelled_send(sender: End, receiver: End, max_packet: int) -> None:
    """Cancel a send within a packet: it may break the channel, but no packet arrives garbled."""
    sent: list[bytes] = []
    received: list[bytes] = []
    later = _numbered(2**40, 1000)
    size = min(LARGE, max_packet)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_clog, sender, size, sent)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    allowed = [*sent, _numbered(len(sent), size)]

    async def send_later() -> None:
        try:
            await sender.send(later)
        except trio.BrokenResourceError:
            pass
        else:
            sent.append(later)
        await sender.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_later)
        with suppress(trio.BrokenResourceError, trio.EndOfChannel):
            while True:
                received.append(await receiver.receive())
    if later in sent:
        assert received.pop() == later, "a send succeeded after a cancelled one, and was lost"
        sent.pop()
    assert received in (sent, allowed), "a cancelled send has lost or garbled packets"


async def _closed_here(sender: End, receiver: End, max_packet: int) -> None:
    await sender.aclose()
    with _raises(trio.ClosedResourceError):
        await sender.send(b"x")
    with _raises(trio.ClosedResourceError):
        await sender.receive()
    await sender.aclose()


async def _closed_there(sender: End, receiver: End, max_packet: int) -> None:
    """Check that packets sent before the close arrive, and that EndOfChannel follows them."""
    packets = [_numbered(n, 1000) for n in range(10)]

    async def send_and_close() -> None:
        await _send_all(sender, packets)
        await sender.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_and_close)
        await wait_all_tasks_blocked()  # a channel with a buffer is already closed
        assert [packet async for packet in receiver] == packets
    with _raises(trio.EndOfChannel):
        await receiver.receive()
    with _raises(trio.BrokenResourceError):
        await _clog(receiver, 1000, [])
    with _raises(trio.BrokenResourceError):
        await receiver.send(b"x")


async def _closed_while_receiving(sender: End, receiver: End, max_packet: int) -> None:
    async def expect_closed() -> None:
        with _raises(trio.ClosedResourceError):
            await receiver.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_closed)
        await wait_all_tasks_blocked()
        await receiver.aclose()


async def _closed_while_sending(sender: End, receiver: End, max_packet: int) -> None:
    async def expect_closed() -> None:
        with _raises(trio.ClosedResourceError):
            await _clog(sender, min(LARGE, max_packet), [])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_closed)
        await wait_all_tasks_blocked()
        await sender.aclose()


async def _cancelled_close(sender: End, receiver: End, max_packet: int) -> None:
    await trio.aclose_forcefully(sender)
    with _raises(trio.ClosedResourceError):
        await sender.send(b"x")
    # The peer must see an end, which may be orderly or not.
    try:
        await receiver.receive()
    except (trio.EndOfChannel, trio.BrokenResourceError):
        return
    raise AssertionError("a packet arrived that nobody had sent")


async def _checkpoints(sender: End, receiver: End, max_packet: int) -> None:
    async def send_two() -> None:
        for packet in (b"first", b"second"):
            with assert_checkpoints():
                await sender.send(packet)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_two)
        await wait_all_tasks_blocked()  # a channel with a buffer already has both
        for _ in range(2):
            with assert_checkpoints():
                await receiver.receive()
    for _ in range(2):
        with assert_checkpoints():
            await sender.aclose()


async def _nowait(sender: End, receiver: End, max_packet: int) -> None:
    """Check that accepted packets arrive in order, and that refused ones are not sent."""
    if not isinstance(sender, _Nowait):
        return
    taken: list[bytes] = []
    size = min(LARGE, max_packet)
    while sender.send_nowait(packet := _numbered(len(taken), size)):
        taken.append(packet)
        assert sum(map(len, taken)) < FLOOD, "send_nowait accepts packets without bound"
    taken.append(b"last")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.send, b"last")
        await _receive_all(receiver, taken)
    with assert_checkpoints():
        await sender.flush()
    await sender.aclose()
    with _raises(trio.ClosedResourceError):
        sender.send_nowait(b"x")


_CHECKS = (
    _whole_packets,
    _order,
    _both_directions,
    _size_limit,
    _empty_packet,
    _one_receiver,
    _one_sender,
    _closed_here,
    _closed_there,
    _cancelled_receive,
    _cancelled_before_send,
    _cancelled_send,
    _closed_while_receiving,
    _closed_while_sending,
    _cancelled_close,
    _checkpoints,
    _nowait,
)
