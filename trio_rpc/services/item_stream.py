"""The type of a stream, as its consumer sees it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Generic, TypeVar

import trio

__all__ = ["Batches", "ItemStream"]

T = TypeVar("T")


class ItemStream(trio.abc.ReceiveChannel[T]):
    """A stream whose items are received one by one, or in batches.

    ``async for item in items`` and ``await items.receive()`` take one item, with one checkpoint for
    each, as Trio's channels do. A consumer of many small items spends most of its time on these
    checkpoints. ``async for batch in items.batches()`` and ``await items.receive_many()`` take all
    items that have arrived, with one checkpoint for all of them.
    """

    @abstractmethod
    async def receive_many(self) -> list[T]:
        """Return all items that have arrived; wait if there is none. Each call is one checkpoint.

        The list has at least one item, and at most the ``limits.stream_items`` that the producer
        may run ahead. A cancelled call loses nothing. If an item cannot be returned, the items
        before it are returned first, and the next call raises.

        Raises:
            Exception: the same errors as ``receive``.
        """

    def batches(self) -> Batches[T]:
        """Iterate over the batches of :meth:`receive_many` until the end of the stream.

        Example:
            >>> async def total(session: trio_rpc.Session) -> int:
            ...     count = 0
            ...     async with session.stream("market.ticks", "BTC") as ticks:
            ...         async for batch in ticks.batches():
            ...             count += len(batch)
            ...     return count
        """
        return Batches(self)


class Batches(Generic[T]):
    """An async iterator over the batches of a stream; it needs no closing.

    Args:
        items: the stream.
    """

    __slots__ = ("_items",)

    def __init__(self, items: ItemStream[T]) -> None:
        self._items = items

    def __aiter__(self) -> Batches[T]:
        return self

    async def __anext__(self) -> list[T]:
        try:
            return await self._items.receive_many()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
