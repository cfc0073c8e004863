"""The settings of a connection to NATS."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field

from trio_rpc.nats.channel import Patience
from trio_rpc.nats.credentials import Credentials
from trio_rpc.nats.names import check_subject
from trio_rpc.util.option_checks import check_ssl_context, check_type

__all__ = ["NatsOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsOptions:
    """Settings of a connection to NATS, and of the channels over it. Times are in seconds.

    Attributes:
        credentials: for the servers; they replace those in the URL.
        ssl_context: insist on TLS, with this context. Without one, TLS is used if the server
            requires it, and the server is verified with the system's CAs.
        inbox_prefix: the beginning of all private subjects, which must be the same at both ends.
            Give each account that shares a cluster its own permissions below it.
        ping_interval: after so much silence a server is pinged. After 2.5 times as much it counts
            as dead, and the next one is tried. Must be below a third of ``silence``, so that a
            frozen server costs no channel.
        linger: how long a channel waits after the server has said that the process at the other
            end is gone, since that may be wrong while connections are made again. Raise it if a
            process may block its event loop for more than the server's ``write_deadline`` (10 s).
        silence: a process that is connected but says nothing for so long counts as dead.
        outage: how long channels survive while no server can be reached.
        advertise: the URLs at which clients reach this process without NATS, for
            ``instances(direct=True)``. By default, the other URLs at which the server listens.

    Raises:
        TypeError: a field has the wrong type.
        ValueError: a time is not positive, or ``inbox_prefix`` is not a subject.
    """

    credentials: Credentials | None = field(default=None, repr=False)
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)
    inbox_prefix: str = "_INBOX"
    ping_interval: float = 1.0
    linger: float = 1.0
    silence: float = 5.0
    outage: float = 30.0
    advertise: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_ssl_context(self.ssl_context)
        check_type("credentials", self.credentials, Credentials | None, "credentials for NATS")
        check_type("advertise", self.advertise, tuple, "a tuple of URLs")
        check_subject(self.inbox_prefix)
        if len(self.inbox_prefix) > 32:
            raise ValueError("NatsOptions.inbox_prefix has at most 32 characters")
        for name in ("ping_interval", "linger", "silence", "outage"):
            if not getattr(self, name) > 0:
                raise ValueError(f"NatsOptions.{name} must be positive")
        if self.ping_interval * 3 > self.silence:
            raise ValueError("NatsOptions.ping_interval must be below a third of silence")

    @property
    def patience(self) -> Patience:
        """The times after which a channel breaks."""
        return Patience(self.linger, self.silence, self.outage)
