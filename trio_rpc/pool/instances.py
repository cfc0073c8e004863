"""The instances of a pool: their names in arguments, and their status."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from trio_rpc.channels.instance import Instance, OpenInstance
from trio_rpc.nats.nats_instances import NatsInstance
from trio_rpc.one_to_one.restart import Restart

__all__ = ["InstanceState", "InstanceStatus", "Instances", "Reachable", "refused_delay"]

REFUSED_DELAY: Final = 30.0
"""Seconds until something that has refused this pool, without saying for how long, is asked again.
The credentials of this pool will not change, but the server that refused them may be replaced."""

InstanceState: TypeAlias = Literal["connecting", "open", "suspect", "draining", "failed"]


@dataclass(frozen=True, slots=True)
class Reachable:
    """An instance, and how often the pool opens it again.

    Attributes:
        name: its name, which no other instance of the pool has.
        open: as in :class:`Instance`.
        restart: how often it is started again, and after which delays; None for always.
    """

    name: str
    open: OpenInstance
    restart: Restart | None = None


class Instances(Protocol):
    """The instances that there are now, and later: an async iterable of all of them.

    Each item is the whole collection: URLs (``"tcp://10.0.0.1:5000"``), commands
    (``"exec:python worker.py"``), :class:`Instance` objects, or instances of NATS. An instance that
    an item lacks is drained: its calls end, and its session is closed. The pool takes the newest
    item, and reads each as soon as it comes. If the iteration ends, the last item stays valid.

    If the iteration raises OSError or an error of this library, the pool logs that, keeps the
    instances that it knows, and iterates again after a pause, which is long after
    :class:`Refused`. Any other exception is a bug, and is raised by the block of
    :func:`open_pool`.

    An async generator, or the receiving end of ``trio.open_memory_channel``, is such an object.

    Example:
        >>> async def from_file(path: trio.Path) -> AsyncGenerator[list[str], None]:
        ...     while True:
        ...         yield (await path.read_text()).split()
        ...         await trio.sleep(10)
        >>> async def main() -> None:
        ...     async with trio_rpc.open_pool(from_file(trio.Path("market.txt"))) as pool:
        ...         print(await pool.call("market.price", "BTC"))
    """

    def __aiter__(self) -> AsyncIterator[Collection[str | Instance | NatsInstance]]:
        """Begin to iterate over the collections of instances."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceStatus:
    """One instance of a pool at this moment. :meth:`Pool.instances` returns it.

    Attributes:
        name: its URL, command or name. If one is given several times, ``#2`` and so on follow.
        state: ``"connecting"`` while there is no session, also between two attempts; ``"open"``;
            ``"suspect"`` if it owes an answer and has been silent for about a second, or its
            session has lost its connection and may resume; ``"draining"`` if it leaves soon, or has
            left and calls are in flight; ``"failed"`` if the pool makes no further attempt.
        calls_in_flight: calls of this pool that it has not answered.
        calls: calls that it was given so far.
        failures: calls that failed with an error of this library before it had begun them, or with
            an unknown fate.
        error: why there is no session, in one line; "" if there is one.
        retry_in: seconds until the next attempt to open a session; None if none is planned.
        pid: the id of its process, if the pool has started it.
    """

    name: str
    state: InstanceState
    calls_in_flight: int
    calls: int
    failures: int
    error: str = ""
    retry_in: float | None = None
    pid: int | None = None


def refused_delay() -> float:
    """Return the seconds until something that has refused this pool is asked again."""
    return random.uniform(0.5, 1) * REFUSED_DELAY  # noqa: S311 - it is not a secret
