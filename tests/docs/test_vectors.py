"""docs/vectors.json holds for the codec, the framing and a whole session."""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import make_vectors
import pytest
import trio
from helpers.notation import READERS, fields_of, message_of, same, value_of
from helpers.pages import section, table

import trio_rpc
from trio_rpc.errors import DecodeError
from trio_rpc.protocol.protocol import Protocol
from trio_rpc.testing import memory_channel_pair
from trio_rpc.wire import messages as m
from trio_rpc.wire.codec import Codec
from trio_rpc.wire.framing import FrameReader, frame
from trio_rpc.wire.limits import Limits

VECTORS = json.loads(make_vectors.VECTORS.read_text(encoding="utf-8"))
CODEC = Codec()
RESULT = bytes.fromhex("930301")  # an array of three that begins with 3, 1: a Reply to call 1
PING = m.Ping(99)
MAX_PACKET = 262_144  # the limit that a vector names


def each(group):
    vectors = VECTORS[group]
    assert max(Counter(vector["name"] for vector in vectors).values()) == 1
    return pytest.mark.parametrize("vector", vectors, ids=[vector["name"] for vector in vectors])


def decoded(data):
    [message] = CODEC.decode(data)
    return message


def test_the_file_matches_the_script():
    assert make_vectors.VECTORS.read_text(encoding="utf-8") == make_vectors.document()


def test_the_notation_is_described():
    assert VECTORS["notation"].keys() - {"plain JSON"} == READERS.keys()
    assert VECTORS["version"] == m.PROTOCOL_VERSION


def test_each_message_type_is_on_the_page_and_has_vectors():
    types = {(cls.TYPE, cls.__name__) for cls in m.Message.__args__}
    rows = table(section("protocol.md", "4. Messages"), "type")
    assert {(int(number), name) for number, name, _ in rows} == types
    vectors = VECTORS["messages"]
    assert {(vector["fields"][0], vector["message"]) for vector in vectors} == types
    assert {number for vector in VECTORS["exchanges"] for number in types_in(vector)} == dict(
        types
    ).keys()


def test_each_check_of_a_receiver_has_vectors():
    listed = [
        cell.strip("`") for cell, _, _ in table(section("protocol.md", "15. Unknown"), "check")
    ]
    ending = [*VECTORS["streams"], *VECTORS["exchanges"]]
    ending = [one for one in ending if one.get("outcome", "goes on") != "goes on"]
    assert {one["breaks"] for one in ending} == set(listed)
    assert {one["outcome"] for one in ending if one["breaks"] == "hello"} == {"refused"}
    assert {one["outcome"] for one in ending if one["breaks"] != "hello"} == {"session ended"}
    names = [name for names in make_vectors.BREAKS.values() for name in names]
    assert sorted(names) == sorted(one["name"] for one in ending)


# Each crossing, with its vectors, or with tests if a peer alone cannot produce it.
CROSSINGS = {
    "Cancel and the terminal message": ["a cancel after the end is ignored"],
    "Cancel, and the deadline at the callee": ["a cancel that crosses the end of a deadline"],
    "the terminal message, and the caller's abandoning": [
        "test_the_answer_to_an_abandoned_call_is_ignored"
    ],
    "Request or Notification without a parent, and Goodbye": [
        "test_a_call_that_crosses_a_goodbye_has_not_started"
    ],
    "a call within a call, and the terminal message of its parent": [
        "a call within a call that has ended",
        "a call within a call that has ended, after a Goodbye",
    ],
    "Goodbye and Goodbye": ["test_both_ends_close_at_once"],
    "Request and the other's Welcome": ["a call before Welcome"],
    "Credit and Notification": ["a notification gives its credit back"],
    "Item or EndOfItems, and Cancel or abandoning": [
        "items that cross a cancel are dropped",
        "an EndOfItems that crosses a cancel is dropped",
        "test_items_that_cross_a_cancel_are_ignored",
    ],
    "Started, and Cancel": ["test_a_cancelled_handler_may_still_send_started"],
    "a Credit for Items, and the end of its call or of its Items": [
        "credit after the end of a stream is ignored",
        "credit after a cancel is ignored",
    ],
    "a Request made in a scope, and the end of that scope": ["a scope that has ended"],
    "anything, and the end of the session": [
        "test_after_the_end_no_message_is_sent_received_or_kept"
    ],
}


def test_each_crossing_of_the_page_has_a_vector_or_a_test():
    rows = table(section("protocol.md", "10. Crossings"), "crossing")
    assert [crossing for crossing, _ in rows] == list(CROSSINGS)
    sources = [
        path.read_text("utf-8")
        for path in make_vectors.VECTORS.parents[1].glob("tests/*/test_*.py")
    ]
    tried = {vector["name"] for vector in VECTORS["exchanges"]}
    tried |= {name for source in sources for name in re.findall(r"def (test_\w+)", source)}
    assert {name for names in CROSSINGS.values() for name in names} <= tried


def types_in(vector):
    """Yield the types of all legal messages that an exchange sends or expects."""
    yield from (reply[0] for reply in vector["replies"])
    for packet in vector["send"]:
        with contextlib.suppress(DecodeError):
            yield from (message.TYPE for message in CODEC.decode(bytes.fromhex(packet)))


@each("values")
def test_values_encode_and_decode(vector):
    value = value_of(vector["value"])
    data = bytes.fromhex(vector["hex"])
    assert CODEC.encode(m.Reply(1, value)) == RESULT + data
    for other in (data, *map(bytes.fromhex, vector.get("also", ()))):
        assert same(decoded(RESULT + other).result, value)
    assert CODEC.decode_message(RESULT + data).result is not ...


@each("decoded only")
def test_values_that_are_only_decoded(vector):
    assert same(decoded(RESULT + bytes.fromhex(vector["hex"])).result, value_of(vector["value"]))


@each("messages")
def test_messages_encode_and_decode(vector):
    data = bytes.fromhex(vector["hex"])
    message = decoded(data)
    assert type(message).__name__ == vector["message"]
    assert vector["fields"][0] == message.TYPE
    assert fields_of(message) == fields_of(message_of(vector["fields"]))
    assert CODEC.encode(message_of(vector["fields"])) == data
    for other in map(bytes.fromhex, vector.get("also", ())):
        assert fields_of(decoded(other)) == fields_of(message)


@each("packets")
def test_packets_encode_and_decode(vector):
    data = bytes.fromhex(vector["hex"])
    messages = [message_of(fields) for fields in vector["fields"]]
    assert [fields_of(one) for one in CODEC.decode(data)] == [fields_of(one) for one in messages]
    assert b"".join(map(CODEC.encode, messages)) == data


@each("streams")
def test_streams_split_into_packets(vector):
    data = bytes.fromhex(vector["hex"])
    packets = [bytes.fromhex(packet) for packet in vector["packets"]]
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        reader, taken = FrameReader(MAX_PACKET), []
        ended = False
        try:
            for piece in pieces:
                reader.feed(piece)
                while (packet := reader.next_frame()) is not None:
                    taken.append(packet)
        except DecodeError:
            ended = True
        assert taken == packets
        assert ended == ("outcome" in vector)
        if not ended:
            assert reader.partial == bool(vector["rest"])
    whole = b"".join(map(frame, packets))
    assert data[: len(whole)] == whole
    assert len(data) - len(whole) == vector.get("rest", 4)


class Served:
    """The service that the vectors talk to."""

    @trio_rpc.method
    async def echo(self, value):
        return value

    @trio_rpc.method
    async def add(self, a: int, b: int) -> int:
        return a + b

    @trio_rpc.method
    async def fail(self, text: str) -> None:
        raise ValueError(text)

    @trio_rpc.method
    async def apply(self, function: Callable[[Any], Awaitable[Any]], value):
        return await function(value)

    @trio_rpc.method
    async def wait(self) -> None:
        await trio.sleep_forever()

    @trio_rpc.method
    async def total(self, items: AsyncIterator[int]) -> int:
        return sum([item async for item in items])

    @trio_rpc.stream
    async def count(self, most: int) -> AsyncIterator[int]:
        for number in range(most):
            yield number

    @trio_rpc.duplex
    async def chat(self, channel: trio.abc.Channel[Any]) -> None:
        async for item in channel:
            await channel.send(item)

    @trio_rpc.method
    async def begin(
        self, value, *, task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED
    ) -> None:
        task_status.started(value)
        await trio.sleep_forever()

    @trio_rpc.notification
    async def note(self, text: str) -> None:
        pass

    @trio_rpc.notification
    async def hold(self) -> None:
        await trio.sleep_forever()


def test_the_service_is_described():
    marked = {name for name in vars(Served) if not name.startswith("_")}
    assert VECTORS["service"].keys() == {f"test.{name}" for name in marked}


SERVED = Limits(
    **{"max_calls" if key == "calls" else "max_notifications" if key == "notifications" else key: n
       for key, n in VECTORS["served"].items()}
)  # fmt: skip


def is_expected(message, expected):
    """Tell whether a message is the expected one. Of an error, only the named keys count."""
    if expected[0] in (m.Goodbye.TYPE, m.Cancel.TYPE):  # their texts are for people
        return expected[0] == type(message).TYPE and fields_of(message)[1] == expected[1]
    if expected[0] == m.Request.TYPE:  # a callback; its method is for logs
        fields = fields_of(message)
        return fields[0] == m.Request.TYPE and [*fields[:2], *fields[3:]] == [
            *expected[:2],
            *expected[3:],
        ]
    if expected[0] != m.ReplyErr.TYPE:
        return fields_of(message) == fields_of(message_of(expected))
    return (
        type(message) is m.ReplyErr
        and message.id == expected[1]
        and message.error.items() >= expected[2].items()
    )


class Peer:
    """The end that sends the vector's packets, as bytes."""

    def __init__(self, channel):
        self.channel = channel
        self.received = []
        self.ended = False

    async def talk(self, packet):
        """Send a packet, and receive until the other end is silent."""
        with contextlib.suppress(trio.BrokenResourceError):
            await self.channel.send(packet)
        await self.listen()

    async def listen(self):
        with trio.move_on_after(1), contextlib.suppress(trio.EndOfChannel):
            while True:
                self.received += CODEC.decode(await self.channel.receive())
            self.ended = True
        self.ended = self.ended or not self.channel_is_open()

    def channel_is_open(self):
        try:
            return not self.channel._can_receive()
        except trio.EndOfChannel:
            return False


@each("exchanges")
async def test_exchanges_give_the_named_replies_and_outcome(vector, autojump_clock):
    ours, theirs = memory_channel_pair()
    peer = Peer(theirs)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_quietly, ours)
        await peer.listen()
        [hello] = peer.received
        assert hello.info == VECTORS["served"]
        peer.received.clear()
        if vector["state"] == "open":
            await peer.talk(CODEC.encode(m.Hello(1, VECTORS["hello"])) + CODEC.encode(m.Welcome()))
            assert peer.received == [m.Welcome()]
            peer.received.clear()
        for packet in vector["send"]:
            await peer.talk(bytes.fromhex(packet))
        if vector["outcome"] == "goes on":
            assert not peer.ended
            await peer.talk(CODEC.encode(PING))
            assert peer.received.pop() == m.Pong(PING.number)
        else:
            assert peer.ended
            if [12, "done"] not in vector["replies"]:  # a Goodbye is sent once
                code = "refused" if vector["outcome"] == "refused" else "protocol_error"
                assert peer.received.pop().code == code
        check_replies(peer.received, vector)
        theirs.close()


def is_credit(fields):
    """Tell whether a message is a Credit for Notifications."""
    return fields[0] == m.Credit.TYPE and len(fields) == 2


def check_replies(received, vector):
    """Check that each expected message came once, in any order. Credits are added up."""
    left = [one for one in received if not is_credit(one.to_wire())]
    credit = sum(one.count for one in received if is_credit(one.to_wire()))
    for expected in vector["replies"]:
        if is_credit(expected):
            credit -= expected[1]
        else:
            left.remove(next(one for one in left if is_expected(one, expected)))
    if vector["outcome"] != "goes on":  # it may cancel its own calls
        left = [one for one in left if type(one) is not m.Cancel]
    assert left == []
    assert credit == 0 or vector["outcome"] != "goes on"


async def serve_quietly(channel):
    with contextlib.suppress(trio_rpc.RpcError):
        await trio_rpc.serve_session(channel, {"test": Served()}, limits=SERVED)


@each("exchanges")
def test_the_protocol_alone_ends_the_same_exchanges(vector):
    """Check that a Protocol without a session ends or continues as the vector says."""
    above = {m.Request.TYPE, m.Item.TYPE, m.Started.TYPE}
    if any(reply[0] in above for reply in vector["replies"]):
        return  # the session makes these calls and sends these items
    error = {"session ended": trio_rpc.RemoteProtocolError, "refused": trio_rpc.Refused}
    expected = error.get(vector["outcome"])
    with contextlib.nullcontext() if expected is None else pytest.raises(expected):
        exchange_with(Protocol(Codec(limits=SERVED), SERVED), vector)


def exchange_with(protocol, vector):
    protocol.hello()
    if vector["state"] == "open":
        list(protocol.receive(CODEC.encode(m.Hello(1, VECTORS["hello"]))))
        protocol.welcome()
        list(protocol.receive(CODEC.encode(m.Welcome())))
    for packet in vector["send"]:
        for event in protocol.receive(bytes.fromhex(packet)):
            if type(event) is m.Hello:
                protocol.welcome()
            elif type(event) is m.Goodbye:
                protocol.goodbye("done")
