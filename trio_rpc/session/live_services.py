"""The services of one session: those that it opens with, and those set and removed later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from trio_rpc.errors import Fate
from trio_rpc.services.interfaces import Identifier
from trio_rpc.services.registration import Services, name_of
from trio_rpc.session.dispatch import IncomingCalls
from trio_rpc.session.lifecycle import Lifecycle
from trio_rpc.session.session import Session

__all__ = ["LiveServices", "MakeServices"]

MakeServices: TypeAlias = Callable[[Session], Services]
"""Makes the services of each session; all sessions may get the same ones."""


class LiveServices:
    """The services of one session.

    Args:
        make: makes those that the session opens with.
        incoming: looks up the methods.
        lifecycle: tells whether the session is over.
    """

    def __init__(self, make: MakeServices, incoming: IncomingCalls, lifecycle: Lifecycle) -> None:
        self._make: MakeServices | None = make
        self._now = Services({})
        self._incoming = incoming
        self._lifecycle = lifecycle

    def begin(self, session: Session) -> None:
        """Make the services that the session opens with.

        Raises whatever the user's function raises, and ValueError if that function has set a
        service with the name of one that it returns.
        """
        assert self._make is not None  # noqa: S101 - a session opens once
        made = self._make(session)
        self._make = None
        self._use(made.joined(self._now) if self._now.objects else made)

    def set(self, key: str | Identifier[Any], service: object) -> None:
        """Add a service; calls that wait for it begin. Raises as :meth:`Session.set` does."""
        if self._lifecycle.is_over:
            raise self._lifecycle.error(Fate.NOT_STARTED)
        _check_key(key)
        self._use(self._now.having({key: service}))
        if self._make is None:
            self._incoming.begin_calls_of(name_of(key))

    def remove(self, key: str | Identifier[Any]) -> None:
        """Remove a service. Raises as :meth:`Session.remove` does."""
        _check_key(key)
        if not self._lifecycle.is_over:
            self._use(self._now.without(name_of(key)))

    def _use(self, services: Services) -> None:
        self._now = services
        self._incoming.table = services.table

    def let_go(self) -> None:
        """Drop the references to services, which may refer to the session. It is over."""
        self._make = None
        self._now = Services({})


def _check_key(key: object) -> None:
    if not isinstance(key, str | Identifier):
        raise TypeError(f"a service is named by a str or an Identifier, not {key!r:.200}")
