"""Two Protocols joined directly, without a driver or a channel, as in h11's tests.

Each end must report each message of the other, and both must agree on the states of both halves.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trio_rpc.protocol.protocol import Protocol
from trio_rpc.protocol.states import Half
from trio_rpc.protocol.streams import Event, ItemRun
from trio_rpc.wire.codec import Codec
from trio_rpc.wire.limits import MIN_PACKET, Limits
from trio_rpc.wire.messages import Message

SMALL_LIMITS = Limits(
    max_packet=MIN_PACKET, max_message=64 * 1024, max_calls=3, max_notifications=2
)


def make_protocol(limits: Limits = SMALL_LIMITS) -> Protocol:
    return Protocol(Codec(None, limits), limits)


def packets(protocol: Protocol) -> list[bytes]:
    """Return all queued packets of a protocol."""
    taken = []
    while (packet := protocol.next_packet()) is not None:
        taken.append(bytes(packet))
        if protocol.is_paced:
            protocol.allow_pieces(10**6)  # as if the Pong had arrived
    assert not protocol.has_data
    assert protocol.bytes_waiting == 0
    return taken


def encoded(*messages: Message) -> bytes:
    """Encode these messages as one packet."""
    codec = Codec()
    return b"".join(codec.encode(message) for message in messages)


def received(protocol: Protocol, *messages: Message) -> list[Message]:
    """Receive these messages in one packet, and return the events."""
    return one_by_one(protocol.receive(encoded(*messages)))


def one_by_one(events: Iterable[Event]) -> list[Message]:
    """Return the messages of events, of which some may be several Items."""
    return [
        message
        for event in events
        for message in (event.items if isinstance(event, ItemRun) else (event,))
    ]


def decoded(packet: bytes) -> list[Message]:
    return list(Codec().decode(bytes(packet)))


class Pair:
    """Ends ``a`` and ``b`` of one session, which is open unless ``opened=False``."""

    def __init__(self, limits: Limits = SMALL_LIMITS, *, opened: bool = True) -> None:
        self.a = make_protocol(limits)
        self.b = make_protocol(limits)
        if opened:
            for end in (self.a, self.b):
                end.hello()
            self.settle()
            for end in (self.a, self.b):
                end.welcome()
            self.settle()
            self.assert_halves(Half.OPEN, Half.OPEN)

    def other(self, end: Protocol) -> Protocol:
        return self.b if end is self.a else self.a

    def deliver(self, sender: Protocol) -> list[Message]:
        """Deliver all packets of ``sender``, and return the other end's events."""
        receiver = self.other(sender)
        return [
            event for packet in packets(sender) for event in one_by_one(receiver.receive(packet))
        ]

    def settle(self) -> list[Message]:
        """Deliver packets both ways until none are left, and return all events."""
        events = []
        while self.a.has_data or self.b.has_data:
            events += self.deliver(self.a)
            events += self.deliver(self.b)
        return events

    def assert_halves(self, a: Half, b: Half) -> None:
        assert (self.a.ours, self.a.theirs) == (a, b)
        assert (self.b.ours, self.b.theirs) == (b, a)

    def assert_no_calls(self) -> None:
        for end in (self.a, self.b):
            assert end.outgoing == {}
            assert end.incoming == {}
            assert not end.has_data

    def call(self, end: Protocol | None = None, *args: Any, **context: Any) -> int:
        """Make a call, deliver its Request, and return its id."""
        end = end or self.a
        call = end.request("method", list(args), None, context or None)
        (event,) = self.deliver(end)
        assert event.id == call
        return call
