"""The limits of a gateway, for each client and for all clients together."""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["GatewayLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayLimits:
    """The bounds of one gateway. Sizes are bytes, times are seconds.

    Raises:
        ValueError: a value is not positive.
    """

    max_body: int = 1024 * 1024
    """The most bytes of one POST's body; a larger one is answered 413."""

    max_nodes: int = 250_000
    """The cost that converting the arguments of one POST to their annotated types may have.

    The unit is that of ``Limits.max_nodes``. A call beyond it is answered with InvalidArguments.
    """

    body_timeout: float = 30.0
    """Seconds that the body of a POST may take to arrive; a slower one is answered 408."""

    max_clients: int = 10_000
    """The most clients at once, including disconnected ones.

    One more replaces the longest-disconnected client that has no running calls. If there is none,
    the new client is answered 503.
    """

    max_works: int = 256
    """The most calls of one client at once; one more is answered 429."""

    max_direct: int = 256
    """The most calls at once without a WebSocket, which are answered in their own request.

    All clients share this limit. One more is answered 503.
    """

    max_waiting: int = 1_000
    """The most requests at once that wait for news of a job; one more is answered at once."""

    max_message: int = 64 * 1024
    """The most bytes of one message from a client over its WebSocket.

    Such messages are small: acknowledgements, for example. A larger one ends the connection with
    1009.
    """

    shutdown_timeout: float = 1.0
    """Seconds that the socket of a connection that was ended stays open for the client to read the
    reason."""

    callbacks_ahead: int = 1_000
    """The most callbacks of one call that the client has not handled; then the handler waits."""

    backlog_messages: int = 10_000
    """The most messages held for one client.

    Once this many are held, callbacks wait, and new calls are answered 429.
    """

    backlog_bytes: int = 4 * 1024 * 1024
    """The most bytes of the messages held for one client, with the same effect."""

    max_unsent: int = 128 * 1024 * 1024
    """The most bytes of messages and answers held for all clients together.

    Once so many are held, new calls are answered 503 before they begin, callbacks wait, and the
    results of running calls are dropped: their callers get the error ``overloaded``. A client for
    which little is held goes on.
    """

    max_bodies: int = 128 * 1024 * 1024
    """The most bytes of the bodies of all requests together, until their calls have ended.

    Messages over WebSockets count while they arrive.
    A body of more than 16 KiB that would go beyond is answered 503, and such a message ends its
    connection with 1009.
    """

    frame_bytes: int = 64 * 1024
    """The most bytes of messages that share one frame."""

    grace: float = 60.0
    """Seconds that a client may be disconnected before its calls are cancelled."""

    keepalive: float = 20.0
    """Seconds of silence after which a client is pinged. After twice as many it is disconnected."""

    handshake_timeout: float = 10.0
    """Seconds that a client which reconnects may take to identify itself."""

    result_ttl: float = 600.0
    """Seconds for which the result of a call that may outlive its client can be fetched."""

    max_results: int = 1_000
    """The most calls held that may outlive their clients, running or ended.

    One more replaces the call that ended first. While all of them run, it is answered 503.
    """

    result_bytes: int = 64 * 1024 * 1024
    """The most bytes of the results of calls that may outlive their clients.

    Another result replaces those of the calls that ended first.
    """

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"GatewayLimits.{field.name} must be positive")
