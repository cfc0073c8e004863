"""The client of a NATS server as the rest of this package uses it.

These are the seven verbs that any client of NATS has, and the private subjects and facts that
channels need. Only ``client.py`` implements this, so that another client could take its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

from trio_rpc.nats.parser import Msg

__all__ = ["Broker", "OnMessage", "Subscription"]

OnMessage: TypeAlias = Callable[[Msg], object]
"""Takes one message. It must not block, and is called in the task that reads."""


class Subscription:
    """A subscription; made by ``subscribe``.

    Attributes:
        subject: the subject or the pattern.
        queue: the queue group, or ``""``.
        denied: the server's complaint, if this client may not subscribe; otherwise ``""``.
        is_draining: whether the server was told to choose no more messages for it.
        on_end: called when there will be no connection any more, with the reason if the servers
            refuse this client.
    """

    __slots__ = ("denied", "is_draining", "on_end", "on_message", "queue", "sid", "subject")

    def __init__(self, subject: str, on_message: OnMessage, queue: str, sid: int) -> None:
        self.subject = subject
        self.on_message = on_message
        self.queue = queue
        self.sid = sid
        self.denied = ""
        self.is_draining = False
        self.on_end: Callable[[Exception | None], object] = _nothing


def _nothing(_failure: Exception | None) -> None:
    """Do nothing, since nobody waits for the messages of the subscription."""


class Broker(Protocol):
    """A client of a NATS cluster."""

    async def publish(
        self,
        subject: str,
        data: bytes = b"",
        *,
        reply: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Publish a message, after waiting until fewer than 1 MiB wait to be written."""

    def publish_nowait(
        self,
        subject: str,
        data: bytes = b"",
        *,
        reply: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> bool:
        """Publish a message and return True, or return False if that would have to wait."""

    def subscribe(self, subject: str, on_message: OnMessage, *, queue: str = "") -> Subscription:
        """Subscribe, now and after each reconnection."""

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription."""

    async def request(self, subject: str, data: bytes = b"") -> Msg:
        """Publish a message, and return the first answer."""

    async def gather(self, subject: str, data: bytes = b"", *, seconds: float) -> list[Msg]:
        """Publish a message, and return all answers that arrive within a time."""

    async def flush(self) -> None:
        """Wait until the server has handled everything that was written."""

    def on_up(self, callback: Callable[[], object]) -> None:
        """Call a function after each reconnection."""

    # ------------------------------------------------------------------------ for channels

    async def drain(self, subscription: Subscription) -> None:
        """End a subscription, after the messages that the server has already chosen for it."""

    def new_inbox(self, on_message: OnMessage) -> str:
        """Return a new private subject, whose messages a function takes from now on."""

    def drop_inbox(self, subject: str) -> None:
        """Stop receiving messages for a private subject."""

    def publish_raw(self, line: bytes, data: bytes) -> None:
        """Write a message whose ``PUB`` line was made in advance; drop it without a connection."""

    @property
    def prefix(self) -> str:
        """The first part of all private subjects in this cluster."""

    @property
    def is_up(self) -> bool:
        """Whether there is a connection."""

    @property
    def has_room(self) -> bool:
        """Whether fewer than 1 MiB wait to be written."""

    @property
    def changed_at(self) -> float:
        """The time when the connection was made, or lost if there is none."""

    @property
    def heard_at(self) -> float:
        """The time when the server has sent anything last."""

    @property
    def max_payload(self) -> int:
        """Bytes of the largest payload that the server accepts."""

    @property
    def local_host(self) -> str:
        """The address of this machine that the server sees."""
