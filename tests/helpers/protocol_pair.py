"""Two Protocols with nothing between them, as h11's tests have them.

What one end sends the other must report, and both ends must agree on both halves at each step.
"""

from __future__ import annotations

from typing import Any

from trio_rpc.protocol.protocol import Protocol
from trio_rpc.protocol.states import Half
from trio_rpc.wire.codec import Codec
from trio_rpc.wire.limits import MIN_PACKET, Limits
from trio_rpc.wire.messages import Message

SMALL_LIMITS = Limits(
    max_packet=MIN_PACKET, max_message=64 * 1024, max_calls=3, max_notifications=2
)


def make_protocol(limits: Limits = SMALL_LIMITS) -> Protocol:
    return Protocol(Codec(None, limits), limits)


def packets(protocol: Protocol) -> list[bytes]:
    """Everything that waits, packet by packet."""
    taken = []
    while (packet := protocol.next_packet()) is not None:
        taken.append(bytes(packet))
        if protocol.is_paced:
            protocol.allow_pieces(10**6)  # as if the Pong were there
    assert not protocol.has_data
    assert protocol.bytes_waiting == 0
    return taken


def encoded(*messages: Message) -> bytes:
    """One packet that holds these messages."""
    codec = Codec()
    return b"".join(codec.encode(message) for message in messages)


def received(protocol: Protocol, *messages: Message) -> list[Message]:
    """The events of one packet that holds these messages."""
    return list(protocol.receive(encoded(*messages)))


def decoded(packet: bytes) -> list[Message]:
    return list(Codec().decode(bytes(packet)))


class Pair:
    """Ends ``a`` and ``b`` of one session; open unless told otherwise."""

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
        """Carry over all that ``sender`` has to say; what the other end makes of it."""
        receiver = self.other(sender)
        return [event for packet in packets(sender) for event in receiver.receive(packet)]

    def settle(self) -> list[Message]:
        """Carry over both ways until nobody has anything to say."""
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
        """Make a call and have it arrive."""
        end = end or self.a
        call = end.request("method", list(args), None, context or None)
        (event,) = self.deliver(end)
        assert event.id == call
        return call
