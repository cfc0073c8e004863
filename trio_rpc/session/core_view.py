"""The part of the core that a session uses."""

from __future__ import annotations

from typing import Any, Protocol

import trio

from trio_rpc.protocol import protocol
from trio_rpc.services.interfaces import Identifier
from trio_rpc.session.answers import Answers
from trio_rpc.session.calls.outgoing import OutgoingCalls
from trio_rpc.session.inspection import RunningHandlers
from trio_rpc.session.lifecycle import Lifecycle
from trio_rpc.util.owner import Owner
from trio_rpc.wire.limits import Limits

__all__ = ["SessionCore"]


class SessionCore(Protocol):
    """The methods of the core that a session needs."""

    answers: Answers | None
    channel: trio.abc.Channel[bytes]
    lifecycle: Lifecycle
    limits: Limits
    name: str
    outgoing: OutgoingCalls
    owner: Owner
    protocol: protocol.Protocol
    session_id: str
    """This end's part of the session's id; "" for none."""

    @property
    def incoming(self) -> RunningHandlers:
        """The incoming calls that are running."""

    async def ping(self) -> float:
        """Send a Ping, and return the seconds until its Pong."""

    def set_service(self, key: str | Identifier[Any], service: object) -> None:
        """Add a service for the other end."""

    def remove_service(self, key: str | Identifier[Any]) -> None:
        """Remove a service."""
