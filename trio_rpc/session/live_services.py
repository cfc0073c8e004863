"""The services of one session, which may be set and removed while it is open."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeAlias

import trio

from trio_rpc.errors import Fate, Refused
from trio_rpc.services.interfaces import Identifier
from trio_rpc.services.registration import (
    NO_SERVICES,
    Services,
    is_context_manager,
    name_of,
    service_of,
)
from trio_rpc.session.calls.incoming_call import IncomingCall
from trio_rpc.session.dispatch import IncomingCalls
from trio_rpc.session.held_services import HeldService
from trio_rpc.session.lifecycle import Lifecycle
from trio_rpc.session.session import Session
from trio_rpc.util.contexts import copy_of
from trio_rpc.util.rate_limited_log import RateLimitedLog

__all__ = ["NO_READER", "LiveServices", "MakeServices", "Resumes"]

MakeServices: TypeAlias = Callable[[Session], Services]
"""Makes the services of each session; all sessions may get the same ones."""


class Resumes(Protocol):
    """The reader, as other parts of its session know it."""

    def resume(self) -> None:
        """Begin handlers whose Requests have waited, if they may."""

    def unshield(self) -> None:
        """Allow a cancellation from outside to end the session."""

    def stop(self) -> None:
        """Stop reading."""


class _NoReader:
    """Stands for the reader of a session that is over, or has not begun."""

    def resume(self) -> None:
        pass

    def unshield(self) -> None:
        pass

    def stop(self) -> None:
        pass


NO_READER = _NoReader()


class LiveServices:
    """The services of one session.

    ``nursery`` and ``reader`` are set before the session begins.

    Args:
        make: makes the services that the session opens with.
        incoming: looks up the methods.
        lifecycle: tells whether the session is over.
        patience: seconds that leaving a service may take.
        complaints: logs that leaving one took longer.
    """

    def __init__(
        self,
        make: MakeServices,
        incoming: IncomingCalls,
        lifecycle: Lifecycle,
        patience: float,
        complaints: RateLimitedLog,
    ) -> None:
        self.nursery: trio.Nursery
        """The nursery of the tasks that hold services."""
        self.reader: Resumes = NO_READER
        """Begins calls that wait."""
        self._make: MakeServices | None = make
        self._now = NO_SERVICES
        self._coming: dict[str, HeldService] = {}
        """The services that are being entered after the session opened."""
        self._held: dict[HeldService, str] = {}
        """The services that are context managers, with their names, in the order of entering."""
        self._incoming = incoming
        self._lifecycle = lifecycle
        self._patience = patience
        self._complaints = complaints

    def begin(self, session: Session) -> bool:
        """Make the services that the session opens with; return whether some must be entered.

        Raises the errors of the user's function, and ValueError if that function has set a service
        with the name of one that it returns.
        """
        assert self._make is not None  # noqa: S101 - a session opens once
        made = self._make(session)
        self._make = None
        self._use(made.joined(self._now) if self._now.objects else made)
        return bool(self._now.managers)

    async def enter(self) -> None:
        """Enter the services that the session opens with, one after the other.

        One that cannot be entered ends the session.
        """
        for name, service in self._now.managers.items():
            if not self._lifecycle.is_over and name in self._now.objects:
                await self._hold(name, service, _nothing).has_begun.wait()

    # ── set and remove ───────────────────────────────────────────────────────────────────────

    def set(self, key: str | Identifier[Any], service: object) -> None:
        """Add a service; calls that wait for it begin. Raises as :meth:`Session.set` does."""
        if self._lifecycle.is_over:
            raise self._lifecycle.error(Fate.NOT_STARTED)
        _check_key(key)
        name = name_of(key)
        if name in self._coming:
            raise ValueError(f"there is already a service with the name {name!r}")
        services = self._now.having({key: service})
        if self._make is None and is_context_manager(service):
            add = functools.partial(self._add_entered, key, service)
            self._coming[name] = self._hold(name, service, add)
        else:
            self._add(name, services)

    def _add_entered(self, key: str | Identifier[Any], service: object) -> None:
        """Add a service that has been entered, and is still wanted."""
        del self._coming[name_of(key)]
        self._add(name_of(key), self._now.having({key: service}))

    def _add(self, name: str, services: Services) -> None:
        self._use(services)
        if self._make is None:
            self._incoming.begin_calls_of(name)
            self.reader.resume()

    def remove(self, key: str | Identifier[Any]) -> None:
        """Remove a service. Raises as :meth:`Session.remove` does."""
        _check_key(key)
        name = name_of(key)
        if self._lifecycle.is_over:
            return
        coming = self._coming.pop(name, None)
        if coming is None:
            self._use(self._now.without(name))
        for held, its_name in self._held.items():
            if its_name == name:
                held.leave()

    def _use(self, services: Services) -> None:
        self._now = services
        self._incoming.table, self._incoming.fallbacks = services.table, services.fallbacks

    # ── context managers ─────────────────────────────────────────────────────────────────────

    def _hold(self, name: str, service: object, entered: Callable[[], None]) -> HeldService:
        """Start the task that enters a service, holds it, and leaves it."""
        held = HeldService(service, self._patience, self._complaints)
        self._held[held] = name
        start = functools.partial(
            self.nursery.start_soon, self._run, held, entered, name=f"trio_rpc service {name}"
        )
        copy_of(self._incoming.context).run(start)  # not in the context of a handler that sets it
        return held

    async def _run(self, held: HeldService, entered: Callable[[], None]) -> None:
        try:
            await held.hold(entered, functools.partial(self._until_free, held), self._why_broken)
        except Refused as exc:
            self._lifecycle.lose(exc.with_traceback(None))
        except Exception as exc:
            self._lifecycle.lose(exc)
            raise
        finally:
            self._held.pop(held, None)

    async def _until_free(self, held: HeldService) -> None:
        """Wait until the handlers of a removed service have ended, or those of the session.

        Also wait until all services that were entered later have been left.
        """
        if not self._lifecycle.is_over:
            name = self._held[held]
            await _EndOfCalls(
                call
                for call in self._incoming.running.values()
                if call.parent_call is None and _service_of(call) == name
            ).wait()
            return
        while self._incoming.running:
            await self._lifecycle.wait_changed()
        everyone = list(self._held)
        for later in everyone[everyone.index(held) + 1 :]:
            await later.has_left.wait()

    def _why_broken(self) -> Exception | None:
        if self._lifecycle.is_over and self._lifecycle.cause is not None:
            return self._lifecycle.error(Fate.UNKNOWN)
        return None

    # ── the end ──────────────────────────────────────────────────────────────────────────────

    def end(self) -> None:
        """Leave all services once the handlers have ended, since the session is over."""
        self._coming.clear()
        for held in self._held:
            held.leave()

    def let_go(self) -> None:
        """Drop the references to services, which may refer to the session. It is over."""
        self._make = None
        self._now = NO_SERVICES
        self.reader = NO_READER


class _EndOfCalls:
    """Waits until some calls have ended. It is one of their references, which expire then."""

    def __init__(self, calls: Iterable[IncomingCall]) -> None:
        self._left = 0
        self._over = trio.Event()
        for call in calls:
            call.references = (*call.references, self)
            self._left += 1

    def expire(self, _method: str) -> None:
        """Note that one of the calls has ended."""
        self._left -= 1
        if not self._left:
            self._over.set()

    async def wait(self) -> None:
        """Wait until all have ended."""
        if self._left:
            await self._over.wait()


def _service_of(call: IncomingCall) -> str:
    service = call.method.service
    return service_of(call.method.name) if service is None else service


def _check_key(key: object) -> None:
    if not isinstance(key, str | Identifier):
        raise TypeError(f"a service is named by a str or an Identifier, not {key!r:.200}")


def _nothing() -> None:
    """Do nothing."""
