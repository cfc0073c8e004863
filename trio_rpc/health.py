"""A service that tells whether a server can do its work, for probes, balancers and people."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Literal, TypeAlias, get_args

import trio

from trio_rpc.services.decorators import method, stream
from trio_rpc.util.owner import Owner

__all__ = ["Health", "HealthStatus"]

HealthStatus: TypeAlias = Literal["serving", "not_serving", "draining", "unknown"]
"""``"serving"``: it can do its work. ``"not_serving"``: it cannot, now. ``"draining"``: it only
finishes its present work, and should get nothing new. ``"unknown"``: there is no such service."""


class Health:
    """The health of the services of one program; offer it as a service named ``"health"``.

    The service ``""`` stands for the program as a whole. It is ``"serving"`` at first, and no other
    service is known until :meth:`set`.

    Example:
        >>> async def main(market: object, stop: trio.Event) -> None:
        ...     health = trio_rpc.health.Health()
        ...     services = {"market": market, "health": health}
        ...     async with trio_rpc.open_server(services, "tcp://127.0.0.1:5000") as server:
        ...         await stop.wait()
        ...         health.set("", "draining")
        ...         await server.drain()
    """

    def __init__(self) -> None:
        # Bound: the names that this program sets.
        self._statuses: dict[str, HealthStatus] = {"": "serving"}
        self._changed = trio.Event()
        self._owner: Owner | None = None
        """The Trio run of the streams that watch; None before the first."""

    def set(self, service: str, status: HealthStatus) -> None:
        """Set the status of a service. The other end cannot call this.

        Args:
            service: its name; ``""`` for the program as a whole.
            status: its new status; ``"unknown"`` removes it.

        Raises:
            TypeError: ``service`` is not a str.
            ValueError: ``status`` is not one of the four.
            RuntimeError: :meth:`watch` was called in another Trio run or thread, which is not over.
                Use ``trio.from_thread.run_sync`` there.
        """
        if not isinstance(service, str):
            raise TypeError(f"a service is named by a str, not {service!r:.200}")
        if status not in get_args(HealthStatus):
            allowed = ", ".join(get_args(HealthStatus))
            raise ValueError(f"{status!r:.200} is not a status: {allowed}")
        if self._owner is not None and not self._owner.is_over:
            self._owner.check()
        if status == "unknown":
            self._statuses.pop(service, None)
        else:
            self._statuses[service] = status
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def get(self, service: str = "") -> HealthStatus:
        """Return the status of a service, as :meth:`check` does for the other end.

        Args:
            service: its name; ``""`` for the program as a whole.
        """
        return self._statuses.get(service, "unknown")

    @method
    def check(self, service: str = "") -> HealthStatus:
        """Return the status of a service.

        Args:
            service: its name; ``""`` for the program as a whole.
        """
        return self.get(service)

    @stream
    async def watch(self, service: str = "") -> AsyncGenerator[HealthStatus, None]:
        """Yield the status of a service now, and each time that it changes.

        A slow reader misses statuses that were replaced before it read them.

        Args:
            service: its name; ``""`` for the program as a whole.
        """
        if self._owner is None or self._owner.is_over:
            self._owner = Owner("this Health, once it is watched,")
        self._owner.check()
        shown = None
        while True:
            changed, status = self._changed, self.get(service)
            if status != shown:
                shown = status
                yield status
            else:
                await changed.wait()
