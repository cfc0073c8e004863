"""Topics: each subscriber gets the messages that a program publishes, which never waits.

A publisher numbers its messages in a header, so that a subscriber counts the messages that it did
not receive: messages that were lost with a connection, that the publisher could not write, or for
which the subscriber's own buffer had no room. Messages of other NATS clients have no number; of
these only the last kind is counted.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from trio_rpc.channels.errors import closed_error
from trio_rpc.errors import Refused
from trio_rpc.nats.broker import Broker
from trio_rpc.nats.names import new_token, topic_subject
from trio_rpc.nats.parser import Msg
from trio_rpc.util.conflict_detector import ConflictDetector
from trio_rpc.util.owner import Owner

__all__ = ["Topic", "TopicSubscription"]

NUMBER: Final = "Trpc-Number"
"""The header: the publisher's token and the number of the message, from 0 on."""

MAX_PUBLISHERS: Final = 1024
"""Publishers whose numbers a subscriber keeps. Beyond that it forgets the publishers that have been
silent for the longest time."""

MAX_TOKEN: Final = 64


class Topic:
    """A subject that any number of programs publish to and subscribe to.

    Made by :meth:`trio_rpc.nats.Nats.topic`.

    Attributes:
        name: the name of the topic.
        unsent: messages that could not be published, because there was no connection or 1 MiB was
            waiting for it. Subscribers count them as lost.
    """

    def __init__(self, broker: Broker, name: str) -> None:
        self.name = name
        self.unsent = 0
        self._broker = broker
        self._subject = topic_subject(name)
        self._token = new_token()
        self._count = 0

    def __repr__(self) -> str:
        return f"<trio_rpc.nats.Topic {self.name!r}>"

    def publish(self, data: bytes) -> None:
        """Publish a message, without waiting and without knowing who receives it.

        Args:
            data: the payload.

        Raises:
            ValueError: the payload is larger than the server allows.
            trio.BrokenResourceError: the servers refuse this client.
            trio.ClosedResourceError: the block of the connection was left.
        """
        headers = {NUMBER: f"{self._token} {self._count}"}
        is_sent = self._broker.publish_nowait(self._subject, data, headers=headers)
        self._count += 1
        self.unsent += not is_sent

    @asynccontextmanager
    async def subscribe(self, max_buffer: int = 1024) -> AsyncIterator[TopicSubscription]:
        """Receive the messages that are published from now on, for a block.

        Args:
            max_buffer: messages that may wait to be received. If one more arrives, the oldest is
                dropped, and counted.

        Raises:
            ValueError: ``max_buffer`` is below 1.
            Refused: this client may not subscribe.
            trio.BrokenResourceError: the connection was lost in this moment, or the servers refuse
                this client.
            trio.ClosedResourceError: the block of the connection was left.
        """
        if max_buffer < 1:
            raise ValueError(f"max_buffer must be at least 1, not {max_buffer}")
        received = TopicSubscription(self.name, max_buffer)
        subscription = self._broker.subscribe(self._subject, received._arrived)  # noqa: SLF001
        subscription.on_end = received._end  # noqa: SLF001
        try:
            await self._broker.flush()
            if subscription.denied:
                raise Refused(
                    f"the NATS server does not let this end subscribe: {subscription.denied}"
                )
            yield received
        finally:
            received.close()
            self._broker.unsubscribe(subscription)


class TopicSubscription(trio.abc.ReceiveChannel[bytes]):
    """The messages of a topic; made by :meth:`Topic.subscribe`. For one task at a time.

    Attributes:
        name: the name of the topic.
        lost: messages that were published since the subscription began, and will not be received.
    """

    def __init__(self, name: str, max_buffer: int) -> None:
        self.name = name
        self.lost = 0
        # Bound: max_buffer.
        self._waiting: deque[bytes] = deque(maxlen=max_buffer)
        # Bound: MAX_PUBLISHERS.
        self._next: OrderedDict[str, int] = OrderedDict()
        self._receivers = trio.lowlevel.ParkingLot()
        self._receiving = ConflictDetector("another task is receiving from this topic")
        self._is_closed = False
        self._failure: Exception | None = None
        self._owner = Owner("this subscription")

    def __repr__(self) -> str:
        return f"<trio_rpc.nats.TopicSubscription {self.name!r}, {self.lost} lost>"

    async def receive(self) -> bytes:
        """Return the next message. If cancelled, no message is lost.

        Raises:
            trio.ClosedResourceError: the block of this subscription, or that of the connection, was
                left.
            trio.BrokenResourceError: the servers refuse this client.
            trio.BusyResourceError: another task is receiving.
        """
        self._owner.check()
        with self._receiving:
            await trio.lowlevel.checkpoint()
            while not self._waiting:
                self._check_open()
                await self._receivers.park()
            return self._waiting.popleft()

    async def aclose(self) -> None:
        """Receive no more messages. The block still has to be left."""
        self._owner.check()
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Receive no more messages, without a checkpoint."""
        self._is_closed = True
        self._waiting.clear()
        self._receivers.unpark_all()

    def _check_open(self) -> None:
        if self._failure is not None:
            raise trio.BrokenResourceError(str(self._failure)) from self._failure
        if self._is_closed:
            raise closed_error()

    def _end(self, failure: Exception | None) -> None:
        """End, since there will be no connection any more."""
        self._failure, self._is_closed = failure, True
        self._receivers.unpark_all()

    def _arrived(self, message: Msg) -> None:
        if self._is_closed:
            return
        self.lost += self._missing_before(message)
        if len(self._waiting) == self._waiting.maxlen:
            self.lost += 1  # the oldest one
        self._waiting.append(message.data)
        self._receivers.unpark()

    def _missing_before(self, message: Msg) -> int:
        """Return how many messages of the same publisher are missing before this one."""
        token, _, digits = (message.header(NUMBER) or "").partition(" ")
        if not token or len(token) > MAX_TOKEN or not digits.isascii() or not digits.isdigit():
            return 0
        number = int(digits[:18])
        expected = self._next.pop(token, number)
        self._next[token] = max(expected, number + 1)
        if len(self._next) > MAX_PUBLISHERS:
            self._next.popitem(last=False)
        return max(0, number - expected)
