"""What a gateway lets its clients cost it."""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["GatewayLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayLimits:
    """The bounds of one gateway. Sizes are bytes, times are seconds.

    Raises ValueError for a value that is not positive.
    """

    max_body: int = 1024 * 1024
    """The body of one POST; a larger one is answered 413."""

    body_timeout: float = 30.0
    """How long it may take to come; a slower one is answered 408."""

    max_clients: int = 10_000
    """Clients at once, those that are away included; one more takes the place of one that is away and has no
    work, or is answered 503."""

    max_works: int = 256
    """Calls of one client at once; one more is answered 429."""

    max_direct: int = 256
    """Calls at once that are answered in their own request, by all who have no WebSocket; one more is 503."""

    max_message: int = 64 * 1024
    """One message from a client over its WebSocket: they are acknowledgements and the like. A larger one ends
    the connection with 1009."""

    shutdown_timeout: float = 1.0
    """How long the socket of such a connection stays for the client to read why."""

    callbacks_ahead: int = 1_000
    """Callbacks of one call that the client has not yet handled; while there are as many, the handler waits."""

    backlog_messages: int = 10_000
    """Messages held for one client; while there are as many, callbacks wait, and new calls are answered 429."""

    backlog_bytes: int = 4 * 1024 * 1024
    """Bytes of them, likewise."""

    frame_bytes: int = 64 * 1024
    """Bytes of messages that are joined in one frame."""

    grace: float = 60.0
    """How long a client may be away before its work is cancelled."""

    keepalive: float = 20.0
    """After so long a silence a client is pinged; after as long again it is away."""

    handshake_timeout: float = 10.0
    """How long a client that comes back may take to say who it is."""

    result_ttl: float = 600.0
    """How long the result of work that has outlived its client can be collected."""

    max_results: int = 1_000
    """How many calls that may outlive their clients are held, running or ended; one more is answered 503
    while all of them run."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"GatewayLimits.{field.name} must be positive")
