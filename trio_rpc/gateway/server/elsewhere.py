"""The interface to a gateway's other instances; :func:`trio_rpc.gateway.open_spread` has it."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from trio_rpc.gateway.server.connection import End, Receive, Send

__all__ = ["Elsewhere", "Route"]

Route: TypeAlias = Literal["post", "collect"]
"""A route whose requests belong to the instance that holds a client, or a call."""


class Elsewhere(Protocol):
    """The other instances of a gateway, which hold clients and calls of their own."""

    async def request(self, home: str, request: Request, route: Route) -> Response:
        """Carry a request to the instance that it names, and return the answer of that instance.

        Args:
            home: the name that the request's id begins with.
            request: the request, whose body was not read yet.
            route: the route that it is for.

        Raises Refusal (410) if there is no such instance, or it has died.
        """

    async def resume(self, home: str, first: str, send: Send, receive: Receive) -> End:
        """Carry a WebSocket whose client is held by another instance, until it ends.

        Args:
            home: the name that the client's id begins with.
            first: the client's first message, which says that it resumes.
            send: sends one text to the client.
            receive: waits for one text of the client; returns None at the end.
        """

    def stop(self) -> None:
        """End all carried WebSockets and requests: the gateway is closing."""
