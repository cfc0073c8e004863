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
    """The body of one POST; more is answered 413."""

    max_clients: int = 10_000
    """Clients at once, those that are away included; more are answered 503."""

    max_works: int = 256
    """Calls of one client at once; more are answered 429."""

    max_message: int = 64 * 1024
    """One message from a client over its WebSocket: they are acknowledgements and the like."""

    backlog_messages: int = 10_000
    """Messages held for one client; while there are as many, callbacks wait."""

    backlog_bytes: int = 4 * 1024 * 1024
    """Bytes of them."""

    frame_bytes: int = 64 * 1024
    """Bytes of messages that are joined in one frame."""

    grace: float = 60.0
    """How long the work of a client that is away goes on."""

    handshake_timeout: float = 10.0
    """How long a client that wants to resume may take to say who it is."""

    result_ttl: float = 600.0
    """How long the result of work that has outlived its client can be collected."""

    max_results: int = 1_000
    """How many of these are held; the oldest is forgotten first."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"GatewayLimits.{field.name} must be positive")
