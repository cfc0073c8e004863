"""Sources of instances: they name the instances to a pool, now and later."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import trio

from trio_rpc.errors import Refused, RpcError
from trio_rpc.pool.instances import Instances, Reachable, refused_delay
from trio_rpc.util.raised import check_repr, text_of
from trio_rpc.util.rate_limited_log import RateLimitedLog
from trio_rpc.util.reconnect import keep_connected

__all__ = ["FixedSource", "GivenSource", "Source"]

FIRST_DELAY = 0.1
MAX_DELAY = 10.0

AT_ONCE = 100
"""Collections of an object of the user that are read within a second. The next one waits, so that
an object that never waits itself costs this program little."""


class Source(Protocol):
    """Tells a pool which instances there are."""

    @property
    def is_fixed(self) -> bool:
        """Whether there will be no other instances."""

    @property
    def error(self) -> str:
        """The reason why it has no news, in one line; "" if it has some."""

    @property
    def was_refused(self) -> bool:
        """Whether it will have no news soon, since this program was refused."""

    def ask_again(self) -> None:
        """Look for instances now, since a session is lost."""

    async def run(
        self,
        update: Callable[[Iterable[Reachable]], None],
        failed: Callable[[], None],
        complaints: RateLimitedLog,
    ) -> None:
        """Call ``update`` with all instances, now and after each change.

        Args:
            update: takes the whole collection.
            failed: called after each error that may pass.
            complaints: logs errors that may pass.
        """


class FixedSource:
    """The instances that were given as URLs and commands.

    Args:
        instances: the instances.
    """

    is_fixed = True
    was_refused = False
    error = ""

    def __init__(self, instances: list[Reachable]) -> None:
        self._instances = instances

    def ask_again(self) -> None:
        """Do nothing."""

    async def run(
        self,
        update: Callable[[Iterable[Reachable]], None],
        _failed: Callable[[], None],
        _complaints: RateLimitedLog,
    ) -> None:
        """Report the instances once."""
        update(self._instances)
        await trio.lowlevel.checkpoint()


class GivenSource:
    """The instances that an object of the user names: see :class:`Instances`.

    Args:
        given: the object.
        instances: makes instances of one of its collections.
        ask_again: makes the object look for instances now; None if it reports each change anyway.
    """

    def __init__(
        self,
        given: Instances,
        instances: Callable[[Iterable[Any]], list[Reachable]],
        ask_again: Callable[[], None] | None = None,
    ) -> None:
        self.is_fixed = False
        self.was_refused = False
        self.error = ""
        self._given = given
        self._instances = instances
        self._ask_again = ask_again

    def ask_again(self) -> None:
        """Look for instances now, if the object asks for them."""
        if self._ask_again is not None:
            self._ask_again()

    async def run(
        self,
        update: Callable[[Iterable[Reachable]], None],
        failed: Callable[[], None],
        complaints: RateLimitedLog,
    ) -> None:
        """Read collections until there are no more."""

        async def read() -> bool:
            collections = None
            try:
                collections = aiter(self._given)
                began, count = trio.current_time(), 0
                async for collection in collections:
                    update(self._instances(collection))
                    self.error, self.was_refused = "", False
                    count += 1
                    if count % AT_ONCE:
                        await trio.lowlevel.checkpoint()
                    else:
                        await trio.sleep_until(began + 1)
                        began = trio.current_time()
            except (OSError, RpcError, trio.BrokenResourceError) as exc:
                self.error = f"the instances are not known: {text_of(exc)}"
                self.was_refused = isinstance(exc, Refused) and exc.retry_after is None
                failed()
                complaints.log(logging.WARNING, "%s", self.error)
                return False
            except Exception as exc:
                check_repr(exc)
                raise
            finally:
                if inspect.isasyncgen(collections):
                    with trio.CancelScope(shield=True):  # a generator that waits is over already
                        await collections.aclose()
            scope.cancel(reason="there will be no other instances")
            return True

        with trio.CancelScope() as scope:
            await keep_connected(
                read,
                first_delay=FIRST_DELAY,
                max_delay=MAX_DELAY,
                adjust=lambda delay: refused_delay() if self.was_refused else delay,
            )
        self.is_fixed = True
