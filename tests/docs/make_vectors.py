"""Write docs/vectors.json. Run it when the wire changes: ``python tests/docs/make_vectors.py``.

It does not use trio_rpc. It builds the bytes as docs/protocol.md describes them, and encodes single
values with MessagePack's ordinary library, so that the vectors can prove the code wrong.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import msgpack

VECTORS = Path(__file__).parents[2] / "docs" / "vectors.json"

NOTATION = {
    "plain JSON": "nil, bool, int, str, array, map with str keys: unchanged",
    "$bytes": "bin: hexadecimal",
    "$int": "an integer, as text",
    "$float": "a float, as text",
    "$map": "a map: array of pairs of key and value",
    "$tuple": "extension 1: array",
    "$set": "extension 2: array",
    "$frozenset": "extension 3: array",
    "$datetime": "extension 4: the text",
    "$date": "extension 5: the text",
    "$time": "extension 6: the text",
    "$timedelta": "extension 7: days, seconds, microseconds",
    "$decimal": "extension 8: the text",
    "$uuid": "extension 9: the usual text",
    "$complex": "extension 11: real and imaginary part, as text",
    "$reference": "extension 32: kind, number",
    "$ext": "an extension without a meaning: code, hexadecimal",
}

ABOUT = """Test vectors of the wire protocol, version 1; docs/protocol.md describes it. Hexadecimal \
without blanks. "values": "hex" is this implementation's encoding of "value", "also" are other \
encodings that a decoder must accept. "messages": one message each. "packets": several. "streams": bytes of a stream, \
and the packets in it. "exchanges": how a peer that serves "service" must react to the packets in \
"send", sent one after the other. "state" is "new" (nothing has been sent before) or "open" (both ends have sent a Hello, \
with the limits of "hello", and a Welcome). "replies" are the messages it must answer with, in any number of \
packets and any order, without the messages that "outcome" names. Credits are added up. If the session ends, Credits \
and unnamed Cancels are ignored. Of a ReplyErr, Cancel or Goodbye, only the given fields are compared, \
since texts are for people. Of a Request that uses a reference, the method is not compared: it is for logs. "outcome" \
is "goes on" (a Ping that follows is answered), "session ended" (a Goodbye with code \
protocol_error, unless a Goodbye is in "replies", since an end sends only one; then the end of the \
channel) or "refused" (a Goodbye with code refused, then the end of the channel). \
"breaks" names the check of section 15 that fails. \
"served" are the limits in the Hello of the tested peer."""


def b(*parts: str | bytes | int) -> bytes:
    """Join bytes, hexadecimal and single bytes."""
    return b"".join(
        part if isinstance(part, bytes) else bytes([part]) if isinstance(part, int) else
        bytes.fromhex(part)
        for part in parts
    )  # fmt: skip


def ext(code: int, payload: str | bytes) -> bytes:
    """Encode an extension in its shortest form, by hand."""
    data = payload if isinstance(payload, bytes) else bytes.fromhex(payload)
    size = len(data)
    fixed = {1: 0xD4, 2: 0xD5, 4: 0xD6, 8: 0xD7, 16: 0xD8}.get(size)
    head = bytes([fixed]) if fixed else bytes([0xC7, size])
    assert size < 256
    return head + struct.pack("b", code) + data


def value(name: str, notation: object, data: str | bytes, *also: str | bytes) -> dict:
    vector = {"name": name, "value": notation, "hex": b(data).hex()}
    return {**vector, "also": [b(one).hex() for one in also]} if also else vector


def text(of: str) -> bytes:
    return of.encode("ascii")


VALUES = [
    value("nil", None, "c0"),
    value("false", False, "c2"),
    value("true", True, "c3"),
    value("zero", 0, "00", "cc00", "cd0000", "ce00000000", "cf0000000000000000", "d000"),
    value("the largest fixint", 127, "7f", "cc7f"),
    value("the smallest uint 8", 128, "cc80", "cd0080"),
    value("minus one", -1, "ff", "d0ff", "d1ffff", "d3ffffffffffffffff"),
    value("the smallest negative fixint", -32, "e0"),
    value("int 8", -33, "d0df"),
    value("uint 16", 256, "cd0100"),
    value("uint 32", 65536, "ce00010000"),
    value("the largest uint 64", {"$int": "18446744073709551615"}, "cfffffffffffffffff"),
    value("the smallest int 64", {"$int": "-9223372036854775808"}, "d38000000000000000"),
    value("beyond uint 64", {"$int": "18446744073709551616"}, ext(10, "010000000000000000")),
    value("below int 64", {"$int": "-9223372036854775809"}, ext(10, "ff7fffffffffffffff")),
    value("float", {"$float": "1.5"}, "cb3ff8000000000000", "ca3fc00000"),
    value("infinity", {"$float": "inf"}, "cb7ff0000000000000", "ca7f800000"),
    value("not a number", {"$float": "nan"}, "cb7ff8000000000000"),
    value("empty text", "", "a0", "d900", "da0000", "db00000000"),
    value("text", "hi", "a26869", "d9026869", "da00026869", "db000000026869"),
    value("text beyond ASCII", "\u20ac \U0001f600", "a8e282ac20f09f9880"),
    value("a NUL", "\0", "a100"),
    value("empty bytes", {"$bytes": ""}, "c400", "c50000", "c600000000"),
    value("bytes", {"$bytes": "00ff"}, "c40200ff"),
    value("empty array", [], "90", "dc0000", "dd00000000"),
    value("array", [1, "a", None], "9301a161c0", "dc000301a161c0"),
    value("empty map", {}, "80", "de0000", "df00000000"),
    value("map", {"a": 1}, "81a16101", "de0001a16101"),
    value("map with a bytes key", {"$map": [[{"$bytes": "61"}, 1]]}, "81c4016101"),
    value("text and bytes are two keys", {"$map": [["a", 1], [{"$bytes": "61"}, 2]]},
          "82a16101c4016102"),
    value("empty tuple", {"$tuple": []}, ext(1, "90"), "c7010190"),
    value("tuple", {"$tuple": [1, "a"]}, ext(1, "9201a161"), "c7040192" + "01a161"),
    value("tuple in a tuple", {"$tuple": [{"$tuple": [1]}]}, ext(1, b("91", ext(1, "9101")))),
    value("set", {"$set": [7]}, ext(2, "9107"), ext(2, "920707")),
    value("frozenset of a tuple", {"$frozenset": [{"$tuple": [1]}]}, ext(3, b("91", ext(1, "9101")))),
    value("time in UTC", {"$datetime": "2026-01-02T03:04:05+00:00"},
          ext(4, text("2026-01-02T03:04:05+00:00"))),
    value("time with an offset and microseconds", {"$datetime": "2026-01-02T03:04:05.000006-03:30"},
          ext(4, text("2026-01-02T03:04:05.000006-03:30"))),
    value("local time", {"$datetime": "2026-01-02T03:04:05"}, ext(4, text("2026-01-02T03:04:05"))),
    value("date", {"$date": "2026-01-02"}, ext(5, text("2026-01-02"))),
    value("time of day", {"$time": "03:04:05"}, ext(6, text("03:04:05"))),
    value("minus one second", {"$timedelta": [-1, 86399, 0]}, ext(7, "93ffce0001517f00")),
    value("a day, seconds and microseconds", {"$timedelta": [1, 2, 3]}, ext(7, "93010203"),
          ext(7, "dd00000003" + "d30000000000000001" + "cf0000000000000002" + "d20000" + "0003"),
          ext(7, "dc0003010203")),
    value("decimal", {"$decimal": "1.50"}, ext(8, text("1.50")), ext(8, text("+1.50"))),
    value("decimal that is not a number", {"$decimal": "NaN"}, ext(8, text("NaN"))),
    value("infinite decimal", {"$decimal": "-Infinity"}, ext(8, text("-Infinity"))),
    value("decimal with an exponent", {"$decimal": "1E+3"}, ext(8, text("1E+3"))),
    value("UUID", {"$uuid": "00112233-4455-6677-8899-aabbccddeeff"},
          ext(9, "00112233445566778899aabbccddeeff")),
    value("complex", {"$complex": ["1.0", "2.0"]}, ext(11, "3ff00000000000004000000000000000")),
    value("map with an int key", {"$map": [[1, "a"]]}, ext(12, "9201a161")),
    value("map with keys of several types", {"$map": [["a", 1], [{"$tuple": [1]}, 2]]},
          ext(12, b("94", "a161", "01", ext(1, "9101"), "02"))),
    value("reference", {"$reference": [1, 5]}, ext(32, "920105"),
          ext(32, "dd00000002" + "cf0000000000000001" + "d30000000000000005")),
    value("an unregistered user's type", {"$ext": [64, "a161"]}, ext(64, "a161")),
    value("tuple in a map in an array", [{"a": {"$tuple": [None]}}], b("91", "81a161", ext(1, "91c0"))),
]  # fmt: skip

DECODED = [
    {"name": "timestamp 32", "hex": ext(-1, "6553f100").hex(),
     "value": {"$datetime": "2023-11-14T22:13:20+00:00"}},
    {"name": "timestamp 64", "hex": ext(-1, "00000fa06553f100").hex(),
     "value": {"$datetime": "2023-11-14T22:13:20.000001+00:00"}},
    {"name": "timestamp 96", "hex": ext(-1, "00000000ffffffffffffffff").hex(),
     "value": {"$datetime": "1969-12-31T23:59:59+00:00"}},
    {"name": "code 13", "hex": ext(13, "05").hex(), "value": {"$ext": [13, "05"]}},
    {"name": "code 33", "hex": ext(33, "c1").hex(), "value": {"$ext": [33, "c1"]}},
]  # fmt: skip


def message(name: str, kind: str, fields: list, data: str | bytes, *also: str | bytes) -> dict:
    vector = {"name": name, "message": kind, "fields": fields, "hex": b(data).hex()}
    return {**vector, "also": [b(one).hex() for one in also]} if also else vector


M = "a16d"  # "m"
HELLO_INFO = {
    "calls": 16,
    "notifications": 16,
    "max_message": 65536,
    "max_packet": 16384,
    "max_depth": 64,
    "max_nodes": 10000,
}
HELLO = msgpack.packb([10, 1, HELLO_INFO])

MESSAGES = [
    message("a call", "Request", [1, 1, "m", []], b("940101", M, "90"),
            b("950101", M, "9080"), b("960101", M, "908080"), b("dc0004", "0101", M, "90")),
    message("arguments", "Request", [1, 2, "m", [1], {"k": 2}], b("950102", M, "9101", "81a16b02")),
    message("a context", "Request", [1, 3, "m", [], {}, {"depth": 1}],
            b("960103", M, "90", "80", "81a5", text("depth"), "01")),
    message("the largest id", "Request", [1, 2**53 - 1, "m", []],
            b("9401", "cf001fffffffffffff", M, "90"), b("9401", "d3001fffffffffffff", M, "90")),
    message("a notification", "Notification", [2, "m", []], b("9302", M, "90"),
            b("9402", M, "9080"), b("9502", M, "908080")),
    message("a notification with all fields", "Notification", [2, "m", [], {"k": 1}, {"parent": 7}],
            b("9502", M, "90", "81a16b01", "81a6", text("parent"), "07")),
    message("a result", "Reply", [3, 1, None], "930301c0"),
    message("an error", "ReplyErr", [4, 1, {"code": "internal", "message": "x"}],
            b("930401", "82", "a4", text("code"), "a8", text("internal"),
              "a7", text("message"), "a178")),
    message("a cancel", "Cancel", [5, 1], "920501", "930501c0"),
    message("a cancel with a reason", "Cancel", [5, 1, "why"], b("930501", "a3", text("why"))),
    message("Hello", "Hello", [10, 1, HELLO_INFO], HELLO),
    message("Hello with a part of the session's id", "Hello", [10, 1, {**HELLO_INFO, "session": "5f3a"}],
            b("930a0187", HELLO[4:].hex(), "a7", text("session"), "a4", text("5f3a"))),
    message("Welcome", "Welcome", [11], "910b"),
    message("Goodbye", "Goodbye", [12, "done", ""], b("930c", "a4", text("done"), "a0")),
    message("a Goodbye for want of room", "Goodbye", [12, "overloaded", ""],
            b("930c", "aa", text("overloaded"), "a0")),
    message("Ping", "Ping", [13, 0], "920d00"),
    message("Pong", "Pong", [14, 7], "920e07"),
    message("Credit", "Credit", [15, 3], "920f03"),
    message("Credit for items", "Credit", [15, 512, 7, 70000], "940fcd020007ce00011170"),
    message("Credit for items alone", "Credit", [15, 512, 7], "930fcd020007", "940fcd02000700"),
    message("Credit for bytes alone", "Credit", [15, 0, 7, 9], "940f000709"),
    message("Piece", "Piece", [16, {"$bytes": "01"}], "9210c40101", "9210c60000000101"),
    message("LastPiece", "LastPiece", [17, {"$bytes": "0102"}], "9211c4020102"),
    message("LastPiece that withdraws the message", "LastPiece", [17, {"$bytes": ""}], "9211c400"),
    message("Item", "Item", [20, 7, "a"], "931407a161"),
    message("Item of nil", "Item", [20, 1, None], "931401c0"),
    message("EndOfItems", "EndOfItems", [21, 7], "921507"),
    message("Started", "Started", [23, 7, 42], "9317072a"),
    message("Request of a stream", "Request", [1, 7, "m", [], {}, {"stream": [16, 4096]}],
            b("960107", M, "9080", "81", "a6", text("stream"), "9210cd1000")),
    message("Request with a stream", "Request", [1, 7, "m", [{"$reference": [2, 0]}]],
            b("940107", M, "91", ext(32, "920200"))),
]  # fmt: skip

PACKETS = [
    {"name": "Hello and Welcome", "hex": b(HELLO, "910b").hex(), "fields": [[10, 1, HELLO_INFO], [11]]},
    {"name": "a call and its cancel", "hex": b("940101", M, "90", "920501").hex(),
     "fields": [[1, 1, "m", []], [5, 1]]},
    {"name": "three Pings", "hex": "920d01920d02920d03",
     "fields": [[13, 1], [13, 2], [13, 3]]},
]  # fmt: skip

STREAMS = [
    {"name": "one frame", "hex": "00000003920d07", "packets": ["920d07"], "rest": 0},
    {"name": "two frames", "hex": "00000003920d0700000002910b",
     "packets": ["920d07", "910b"], "rest": 0},
    {"name": "a frame and half a length", "hex": "00000002910b0000",
     "packets": ["910b"], "rest": 2},
    {"name": "half a frame", "hex": "00000003920d", "packets": [], "rest": 6},
    {"name": "a frame of no bytes", "hex": "00000000", "packets": [], "outcome": "session ended"},
    {"name": "a frame of 4 GiB", "hex": "ffffffff", "packets": [], "outcome": "session ended"},
    {"name": "one byte more than 262144", "hex": "00040001", "packets": [],
     "outcome": "session ended"},
    {"name": "a good frame before a bad one", "hex": "00000002910b00000000",
     "packets": ["910b"], "outcome": "session ended"},
]  # fmt: skip


def fields(*of: object) -> bytes:
    packed: bytes = msgpack.packb(list(of))
    return packed


def exchange(
    name: str, *send: bytes, outcome: str = "goes on", state: str = "open", replies: list | None = None
) -> dict:  # fmt: skip
    return {
        "name": name,
        "state": state,
        "send": [packet.hex() for packet in send],
        "replies": replies or [],
        "outcome": outcome,
    }


def ends(name: str, *send: bytes, state: str = "open", replies: list | None = None) -> dict:
    return exchange(name, *send, outcome="session ended", state=state, replies=replies)


def error(number: int, code: str, **more: object) -> list:
    return [4, number, {"code": code, **more}]


def argument(data: str | bytes) -> bytes:
    """Encode a call of echo with that value."""
    return b("940101", fields("test.echo")[1:], "91", data)


def hello(version: int = 1, **changes: object) -> bytes:
    info = {key: item for key, item in {**HELLO_INFO, **changes}.items() if item is not None}
    return fields(10, version, info)


ECHO = fields(1, 1, "test.echo", ["hi"])
WAIT = fields(1, 1, "test.wait", [])
FUNCTION = fields(1, 1, "test.apply", [msgpack.ExtType(32, fields(1, 0)), 5])
CALLED_BACK = [1, 1, "test.apply", [5], {}, {"depth": 1, "parent": 1, "callback": 0}]
STOPPED = error(1, "cancelled", started=True)
PULL = {"depth": 1, "parent": 1, "callback": 0, "stream": [1024, 1048576]}
GIVEN = fields(1, 1, "test.total", [msgpack.ExtType(32, fields(2, 0))])
PULLED = [1, 1, "test.total", [], {}, PULL]
CHAT = fields(1, 1, "test.chat", [msgpack.ExtType(32, fields(2, 0))], {}, {"stream": [16, 4096]})
CHAT_PULLED = [1, 1, "test.chat", [], {}, PULL]
BEGIN = fields(1, 1, "test.begin", ["up"], {}, {"task_status": True})
SCOPE = fields(1, 1, "trio_rpc.scope", [])
DEEP = "91" * 61 + "90"  # in the arguments of a Request, which are level 2: 64 levels


def count(most: int, items: int, size: int) -> bytes:
    """Encode a Request of the stream test.count, whose Items have four bytes each."""
    return fields(1, 1, "test.count", [most], {}, {"stream": [items, size]})


def counted(number: int) -> list:
    return [[20, 1, item] for item in range(number)]


NODES_INSIDE = b"\xc8\x04\x03\x01" + b("dc0400" + "c0" * 0x400)
NESTED = b("da05dc") + bytes(1500)
for _ in range(50):  # each contains the one before
    NESTED = b("c8") + struct.pack(">H", len(NESTED) + 1) + b("01", "91") + NESTED

CALLS = b"".join(fields(1, number, "test.wait", []) for number in range(1, 9))
NOTES = b"".join(fields(2, "test.hold", []) for _ in range(8))

LARGE = [
    ("Request", "id", 1, 2**53, "test.echo", [1]),
    ("Reply", "id", 3, 2**53, None),
    ("ReplyErr", "id", 4, 2**53, {"code": "internal", "message": ""}),
    ("Cancel", "id", 5, 2**53),
    ("Ping", "number", 13, 2**53),
    ("Pong", "number", 14, 2**53),
    ("Credit", "count", 15, 2**53),
    ("Credit", "id", 15, 1, 2**53),
    ("Credit", "size", 15, 1, 1, 2**53),
    ("Item", "id", 20, 2**53, None),
    ("EndOfItems", "id", 21, 2**53),
    ("Started", "id", 23, 2**53, None),
]

EXCHANGES = [
    # ── calls ──
    exchange("a call", ECHO, replies=[[3, 1, "hi"]]),
    exchange("two calls in one packet", ECHO + fields(1, 2, "test.echo", [2]),
             replies=[[3, 1, "hi"], [3, 2, 2]]),
    exchange("ids may skip, and go back", ECHO, fields(1, 1000, "test.echo", [2]),
             fields(1, 3, "test.echo", [3]), replies=[[3, 1, "hi"], [3, 1000, 2], [3, 3, 3]]),
    exchange("named arguments", fields(1, 1, "test.add", [1], {"b": 2}), replies=[[3, 1, 3]]),
    exchange("an unknown method", fields(1, 1, "test.nope", []),
             replies=[error(1, "method_not_found")]),
    exchange("an unknown service", fields(1, 1, "nope.echo", []),
             replies=[error(1, "method_not_found")]),
    exchange("names that look like Python", fields(1, 1, "__class__", []),
             fields(1, 2, "test.__init__", []), fields(1, 3, "", []), fields(1, 4, "../x", []),
             fields(1, 5, "test.echo\0", []),
             replies=[error(number, "method_not_found") for number in range(1, 6)]),
    exchange("a notification that is called", fields(1, 1, "test.note", ["x"]),
             replies=[error(1, "method_not_found")]),
    exchange("an argument of another type", fields(1, 1, "test.add", [1, "2"]),
             replies=[error(1, "invalid_arguments", parameter="b")]),
    exchange("too few arguments", fields(1, 1, "test.add", [1]),
             replies=[error(1, "invalid_arguments", parameter="b")]),
    exchange("too many arguments", fields(1, 1, "test.add", [1, 2, 3]),
             replies=[error(1, "invalid_arguments")]),
    exchange("an argument of an unknown name", fields(1, 1, "test.add", [1, 2], {"c": 3}),
             replies=[error(1, "invalid_arguments", parameter="c")]),
    exchange("an exception", fields(1, 1, "test.fail", ["why"]),
             replies=[error(1, "raised", type="builtins.ValueError", message="why", args=["why"])]),
    exchange("a call nested too deeply",
             fields(1, 1, "test.echo", [1], {}, {"depth": 65}), replies=[error(1, "overloaded")]),
    exchange("a call nested to the greatest allowed depth",
             fields(1, 1, "test.echo", [1], {}, {"depth": 64}), replies=[[3, 1, 1]]),
    exchange("an unknown entry in a context",
             fields(1, 1, "test.echo", [1], {}, {"later": [1]}), replies=[[3, 1, 1]]),
    exchange("a deadline that is over", fields(1, 1, "test.wait", [], {}, {"deadline": 0}),
             replies=[error(1, "deadline")]),
    exchange("a call with the time when it was sent", fields(1, 1, "test.echo", ["hi"], {}, {"deadline": 60, "sent": 12.5}),
             replies=[[3, 1, "hi"]]),
    exchange("a call that was sent, by its clock, an hour after the one before",
             fields(1, 1, "test.echo", [1], {}, {"deadline": 60, "sent": 0}),
             fields(1, 2, "test.echo", [2], {}, {"deadline": 60, "sent": 3600}), replies=[[3, 1, 1], [3, 2, 2]]),
    exchange("a time when a call was sent, without a deadline", fields(1, 1, "test.echo", ["hi"], {}, {"sent": 0}),
             replies=[[3, 1, "hi"]]),
    exchange("an unregistered type is kept", argument(ext(64, "a161")), replies=[[3, 1, {"$ext": [64, "a161"]}]]),
    exchange("a value of the greatest allowed depth", argument(DEEP), replies=[[3, 1, json.loads("[" * 62 + "]" * 62)]]),
    # ── cancelling ──
    exchange("a call and its cancel in one packet", WAIT + fields(5, 1, "why"), replies=[STOPPED]),
    exchange("a call, then its cancel", WAIT, fields(5, 1), replies=[STOPPED]),
    exchange("a cancel after the end is ignored", ECHO, fields(5, 1), replies=[[3, 1, "hi"]]),
    exchange("a cancel of an unknown call is ignored", fields(5, 99)),
    exchange("a second cancel is ignored", WAIT, fields(5, 1) + fields(5, 1), replies=[STOPPED]),
    exchange("a cancel that crosses the end of a deadline",
             fields(1, 1, "test.wait", [], {}, {"deadline": 0}) + fields(5, 1), replies=[[4, 1, {}]]),
    # ── notifications ──
    exchange("a notification gives its credit back", fields(2, "test.note", ["x"]),
             replies=[[15, 1]]),
    exchange("an unknown notification is dropped", fields(2, "test.nope", []), replies=[[15, 1]]),
    exchange("a method that is notified is dropped", fields(2, "test.add", [1, 2]),
             replies=[[15, 1]]),
    # ── pieces ──
    exchange("a call in pieces", fields(16, ECHO[:5]), fields(17, ECHO[5:]), replies=[[3, 1, "hi"]]),
    exchange("a call in one piece", fields(17, ECHO), replies=[[3, 1, "hi"]]),
    exchange("a small call between pieces", fields(16, fields(1, 1, "test.echo", [1])[:5]),
             fields(1, 2, "test.echo", [2]), fields(17, fields(1, 1, "test.echo", [1])[5:]),
             replies=[[3, 2, 2], [3, 1, 1]]),
    exchange("withdrawn pieces are dropped", fields(16, ECHO[:5]), fields(17, b""),
             fields(16, ECHO[:3]), fields(17, ECHO[3:]), replies=[[3, 1, "hi"]]),
    # ── callbacks ──
    exchange("a function that is called back", FUNCTION, fields(3, 1, 10),
             replies=[CALLED_BACK, [3, 1, 10]]),
    exchange("a callback that fails", FUNCTION, fields(4, 1, {"code": "cancelled", "message": ""}),
             replies=[CALLED_BACK, error(1, "raised")]),
    exchange("a callback that fails with a code and a key that are not known", FUNCTION,
             fields(4, 1, {"code": "later", "message": "", "later": 1}), replies=[CALLED_BACK, error(1, "raised")]),
    exchange("a cancel reaches the callback", FUNCTION, fields(5, 1), fields(3, 1, 10),
             replies=[CALLED_BACK, [5, 1], [3, 1, 10]]),
    exchange("a callback of a call that was never made",
             fields(1, 1, "x", [], {}, {"parent": 5, "callback": 0}),
             replies=[error(1, "method_not_found")]),
    ends("a callback that is text", fields(1, 1, "x", [], {}, {"parent": 5, "callback": "0"})),
    exchange("a callback without a parent", fields(1, 1, "x", [], {}, {"callback": 0}),
             replies=[error(1, "method_not_found")]),
    exchange("a callback of another number", FUNCTION, fields(1, 2, "x", [], {}, {"parent": 1, "callback": 1}),
             replies=[CALLED_BACK, error(2, "method_not_found")]),
    ends("a Started that was not requested", FUNCTION, fields(23, 1, 0), replies=[CALLED_BACK, STOPPED]),
    ends("an Item in a call that asked for none", FUNCTION, fields(20, 1, 0), replies=[CALLED_BACK, STOPPED]),
    ends("an EndOfItems in a call that asked for none", FUNCTION, fields(21, 1), replies=[CALLED_BACK, STOPPED]),
    # ── streams ──
    exchange("a stream", count(2, 16, 4096), replies=[*counted(2), [3, 1, None]]),
    exchange("a stream of nothing", count(0, 16, 4096), replies=[[3, 1, None]]),
    exchange("a stream whose credit of items is used up", count(3, 2, 4096), replies=counted(2)),
    exchange("a stream whose last item overdraws its bytes", count(3, 9, 5), replies=counted(2)),
    exchange("credit for items", count(3, 2, 4096), fields(15, 2, 1, 8),
             replies=[*counted(3), [3, 1, None]]),
    exchange("credit for bytes alone", count(3, 9, 5), fields(15, 0, 1, 8),
             replies=[*counted(3), [3, 1, None]]),
    exchange("credit for bytes that does not cover the overdraft", count(3, 9, 5),
             fields(15, 0, 1, 3), replies=counted(2)),
    exchange("credit after the end of a stream is ignored", count(1, 16, 4096), fields(15, 1, 1, 4),
             replies=[*counted(1), [3, 1, None]]),
    exchange("credit in an unknown call is ignored", fields(15, 1, 99, 4)),
    exchange("credit in a call without items is ignored", WAIT, fields(15, 1, 1, 4)),
    exchange("a stream that its caller closes", count(3, 2, 4096), fields(5, 1), replies=[*counted(2), STOPPED]),
    exchange("credit after a cancel is ignored", count(3, 2, 4096), fields(5, 1) + fields(15, 2, 1, 8),
             replies=[*counted(2), STOPPED]),
    exchange("a stream that is called as a method", fields(1, 1, "test.count", [2]),
             replies=[error(1, "method_not_found")]),
    exchange("a method that is called as a stream",
             fields(1, 1, "test.echo", [2], {}, {"stream": [16, 4096]}),
             replies=[error(1, "method_not_found")]),
    ends("more credit for items than were sent", count(3, 2, 4096), fields(15, 3, 1, 0),
         replies=[*counted(2), STOPPED]),
    ends("more credit for bytes than were sent", count(3, 2, 4096), fields(15, 0, 1, 9),
         replies=[*counted(2), STOPPED]),
    ends("a credit of nothing", WAIT, fields(15, 0, 1, 0), replies=[STOPPED]),
    ends("a first credit of no items", count(3, 0, 4096)),
    ends("a first credit of no bytes", count(3, 2, 0)),
    ends("an Item of a call that was never made", fields(20, 1, None)),
    ends("an EndOfItems of a call that was never made", fields(21, 1)),
    ends("a Started of a call that was never made", fields(23, 1, None)),
    ends("a reference in a Started", fields(23, 1, msgpack.ExtType(32, fields(1, 0)))),
    # ── streams as arguments ──
    exchange("a stream passed as an argument is pulled", GIVEN, fields(20, 1, 4) + fields(20, 1, 5),
             fields(3, 1, None), replies=[PULLED, [3, 1, 9]]),
    exchange("items that end before their call", GIVEN, fields(20, 1, 4) + fields(21, 1),
             replies=[PULLED, [5, 1], [3, 1, 4]]),
    exchange("a stream passed as an argument fails", GIVEN, fields(20, 1, 4),
             fields(4, 1, {"code": "raised", "message": "no", "type": "builtins.ValueError"}),
             replies=[PULLED, error(1, "raised")]),
    exchange("items that cross a cancel are dropped", GIVEN, fields(5, 1), fields(20, 1, 4) + fields(3, 1, None),
             replies=[PULLED, [5, 1], STOPPED]),
    exchange("an EndOfItems that crosses a cancel is dropped", GIVEN, fields(5, 1), fields(21, 1) + fields(3, 1, None),
             replies=[PULLED, [5, 1], STOPPED]),
    ends("an Item after the EndOfItems", GIVEN, fields(21, 1), fields(20, 1, 4),
         replies=[PULLED, [5, 1], [3, 1, 0]]),
    ends("an Item without credit", fields(1, 1, "test.chat", [msgpack.ExtType(32, fields(2, 0))], {}, {"stream": [1, 99]}),
         fields(20, 1, "a"), fields(20, 1, "a") * 1100, replies=[CHAT_PULLED, [20, 1, "a"], STOPPED]),
    ends("a second EndOfItems", GIVEN, fields(21, 1), fields(21, 1),
         replies=[PULLED, [5, 1], [3, 1, 0]]),
    ends("a reference in an Item", GIVEN, fields(20, 1, msgpack.ExtType(32, fields(1, 0))),
         replies=[PULLED, STOPPED]),
    # ── a duplex ──
    exchange("a duplex", CHAT, fields(20, 1, "a"), fields(20, 1, "b"), fields(3, 1, None),
             replies=[CHAT_PULLED, [20, 1, "a"], [20, 1, "b"], [3, 1, None]]),
    exchange("a duplex that its caller closes", CHAT, fields(5, 1), fields(4, 1, {"code": "cancelled", "message": ""}),
             replies=[CHAT_PULLED, [5, 1], STOPPED]),
    exchange("a duplex that is called as a method", fields(1, 1, "test.chat", [msgpack.ExtType(32, fields(2, 0))]),
             replies=[error(1, "method_not_found")]),
    exchange("a duplex without a stream", fields(1, 1, "test.chat", [], {}, {"stream": [16, 4096]}),
             replies=[error(1, "invalid_arguments")]),
    exchange("a duplex with a function", fields(1, 1, "test.chat", [msgpack.ExtType(32, fields(1, 0))], {},
             {"stream": [16, 4096]}), replies=[error(1, "invalid_arguments")]),
    # ── Started ──
    exchange("a call that sends Started", BEGIN, replies=[[23, 1, "up"]]),
    exchange("a call that sends Started, and its cancel", BEGIN, fields(5, 1), replies=[[23, 1, "up"], STOPPED]),
    exchange("a method that cannot be started", fields(1, 1, "test.echo", [1], {}, {"task_status": True}),
             replies=[error(1, "invalid_arguments")]),
    exchange("a call without a request for Started", fields(1, 1, "test.begin", ["up"]), fields(5, 1),
             replies=[STOPPED]),
    ends("a task_status that is not a bool", fields(1, 1, "test.begin", ["up"], {}, {"task_status": 1})),
    # ── scopes ──
    exchange("a scope", SCOPE, fields(5, 1), replies=[STOPPED]),
    exchange("a call in a scope", SCOPE, fields(1, 2, "test.echo", ["hi"], {}, {"scope": 1}), replies=[[3, 2, "hi"]]),
    exchange("a scope ends with its calls", SCOPE, fields(1, 2, "test.wait", [], {}, {"scope": 1}), fields(5, 1),
             replies=[error(2, "cancelled", started=True), STOPPED]),
    exchange("a callback in a scope names the scope", SCOPE,
             fields(1, 2, "test.apply", [msgpack.ExtType(32, fields(1, 0)), 5], {}, {"scope": 1}), fields(3, 1, 10),
             replies=[[1, 1, "test.apply", [5], {}, {"depth": 1, "parent": 1, "callback": 0}], [3, 2, 10]]),
    exchange("a scope that has ended", SCOPE, fields(5, 1), fields(1, 2, "test.echo", [1], {}, {"scope": 1}),
             replies=[STOPPED, error(2, "invalid_arguments")]),
    exchange("a scope that was never made", fields(1, 1, "test.echo", [1], {}, {"scope": 9}),
             replies=[error(1, "invalid_arguments")]),
    exchange("a call that is not a scope", WAIT, fields(1, 2, "test.echo", [1], {}, {"scope": 1}),
             replies=[error(2, "invalid_arguments")]),
    exchange("a scope with an argument", fields(1, 1, "trio_rpc.scope", [1]),
             replies=[error(1, "invalid_arguments")]),
    # ── pings, the end ──
    exchange("a Ping", fields(13, 7), replies=[[14, 7]]),
    exchange("an unrequested Pong is ignored", fields(14, 7)),
    exchange("a Goodbye is answered", fields(12, "done", ""), replies=[[12, "done"]]),
    exchange("a Goodbye of an unknown code is answered", fields(12, "later", ""),
             replies=[[12, "done"]]),
    exchange("a call in flight at a Goodbye", WAIT + fields(12, "done", ""), fields(5, 1),
             replies=[[12, "done"], STOPPED]),
    exchange("a call within a call that has ended, after a Goodbye",
             fields(12, "done", ""), fields(1, 1, "test.echo", [1], {}, {"parent": 5}),
             replies=[[12, "done"], error(1, "unavailable")]),
    exchange("a call within a call that has ended", fields(1, 1, "test.echo", [1], {}, {"parent": 5}),
             replies=[[3, 1, 1]]),
    ends("a call outside any call after a Goodbye", fields(12, "done", ""), ECHO,
         replies=[[12, "done"]]),
    ends("a call nested too deeply, outside any call after a Goodbye", fields(12, "done", ""),
         fields(1, 1, "test.echo", [1], {}, {"depth": 65}), replies=[[12, "done"]]),
    ends("two Goodbyes", fields(12, "done", ""), fields(12, "done", ""), replies=[[12, "done"]]),
    # ── the handshake ──
    exchange("Hello and Welcome at once", hello() + fields(11), state="new", replies=[[11]]),
    exchange("an unknown key in Hello", hello(later=1) + fields(11), state="new", replies=[[11]]),
    *[exchange(f"a Hello whose retry_after is {what}", hello(retry_after=value) + fields(11),
               state="new", replies=[[11]])
      for what, value in {"a number": 2.5, "an integer": 60, "negative": -1, "text": "60"}.items()],
    exchange("a part of the session's id in Hello", hello(session="5f3a-_Z") + fields(11), state="new",
             replies=[[11]]),
    *[exchange(f"a part of the session's id in Hello that is {what}", hello(session=value) + fields(11),
               state="new", replies=[[11]])
      for what, value in {"empty": "", "longer than 32 characters": "5" * 33,
                          "not printable": "5\n", "an integer": 5}.items()],
    exchange("another version", fields(10, 2, {}), state="new", outcome="refused"),
    exchange("another version, and a Hello of another form", b("920a02"), state="new",
             outcome="refused"),
    exchange("another version, and an extension in place of the limits", b("930a02", ext(32, "920101")),
             state="new", outcome="refused"),
    exchange("another version, and a map with int keys", b("930a02", "810102"), state="new",
             outcome="refused"),
    exchange("another version, and bytes that are malformed here", b("930a02", "c1"), state="new",
             outcome="refused"),
    exchange("another version, and nothing after it", b("930a02"), state="new", outcome="refused"),
    exchange("another version, in an array that promises more", b("dcffff0a02"), state="new", outcome="refused"),
    exchange("another version, written in the longest form", b("dd00000003", "d3000000000000000a",
             "cf001fffffffffffff", "80"), state="new", outcome="refused"),
    *[exchange(f"a Hello with {name} 2**53", hello(**{name: 2**53}), state="new", outcome="refused")
      for name in HELLO_INFO],
    exchange("a Hello that states MessagePack, and no tags", hello(codec=["msgpack", 1], tags=[]) + fields(11),
             state="new", replies=[[11]]),
    exchange("a Hello with another codec", hello(codec=["json", 1]), state="new", outcome="refused"),
    exchange("a Hello with another version of the codec", hello(codec=["msgpack", 2]), state="new",
             outcome="refused"),
    exchange("a Hello with a codec that is not a name and a version", hello(codec="json"), state="new",
             outcome="refused"),
    exchange("a Hello with a codec that is nil", fields(10, 1, {**HELLO_INFO, "codec": None}), state="new",
             outcome="refused"),
    exchange("a Hello with a codec that is a map", hello(codec={"toString": 1}), state="new", outcome="refused"),
    exchange("a Hello with tags that are nil", fields(10, 1, {**HELLO_INFO, "tags": None}), state="new",
             outcome="refused"),
    exchange("a Hello with tags that are maps", hello(tags=[{"toString": 1}]), state="new", outcome="refused"),
    exchange("a Hello with a tag beyond 2**53", hello(tags=[2**60, 64]), state="new", outcome="refused"),
    exchange("a Hello with other tags", hello(tags=[64]), state="new", outcome="refused"),
    exchange("a Hello with tags that are not integers", hello(tags=["64"]), state="new", outcome="refused"),
    ends("a message in a codec that was not agreed", fields(18, 1, 1, b'[1,1,"test.echo",[1]]')),
    exchange("a Hello without calls", hello(calls=None), state="new", outcome="refused"),
    exchange("a Hello with calls that are not an integer", hello(calls="16"), state="new",
             outcome="refused"),
    exchange("a Hello with no calls at all", hello(calls=0), state="new", outcome="refused"),
    exchange("packets too small for a Hello", hello(max_packet=16383), state="new",
             outcome="refused"),
    ends("a call before Hello", ECHO, state="new"),
    ends("a call before Welcome", hello() + ECHO, state="new", replies=[[11]]),
    ends("a Ping before Hello", fields(13, 1), state="new"),
    ends("a version that is not an integer", fields(10, "1", {}), state="new"),
    ends("Hello twice", hello()),
    ends("Welcome twice", fields(11)),
    ends("HTTP", b"GET / HTTP/1.1\r\n\r\n", state="new"),
    # ── illegal messages ──
    ends("type 0", fields(0)),
    ends("type 6", fields(6, 1)),
    ends("type 18", fields(18)),
    ends("type 19", fields(19)),
    ends("type 22", fields(22, 1, 1, 1)),
    ends("type 24", fields(24)),
    ends("type 20", fields(20)),
    ends("a type that is text", fields("1")),
    ends("a type that is a float", b("91", "cb3ff0000000000000")),
    ends("a type that is a bool", b("91", "c3")),
    ends("no type", b("90")),
    ends("a message that is not an array", b("01")),
    ends("a map", b("80")),
    ends("a call without arguments", fields(1, 1, "test.echo")),
    ends("a call with an extra element", fields(1, 1, "test.echo", [1], {}, {}, 1)),
    ends("id 0", fields(1, 0, "test.echo", [1])),
    ends("a negative id", fields(1, -1, "test.echo", [1])),
    *[ends(f"a {kind} with {what} 2**53", fields(*message)) for kind, what, *message in LARGE],
    *[ends(f"a call with {key} 2**53", fields(1, 1, "test.echo", [1], {}, {key: 2**53}))
      for key in ("deadline", "sent", "parent", "depth", "callback", "scope")],
    ends("a call with stream of 2**53 items", count(1, 2**53, 1)),
    ends("a call with stream of 2**53 bytes", count(1, 1, 2**53)),
    ends("a notification with depth 2**53", fields(2, "test.note", ["x"], {}, {"depth": 2**53})),
    ends("a reference of kind 2**53", argument(ext(32, b("92", msgpack.packb(2**53), "01")))),
    ends("a reference of number 2**53", argument(ext(32, b("9201", msgpack.packb(2**53))))),
    ends("an id that is a float", b("9401", "cb3ff0000000000000", fields("test.echo")[1:], "9101")),
    ends("an id that is a bool", b("9401", "c3", fields("test.echo")[1:], "9101")),
    ends("a method that is bytes", b("940101", "c4016d", "90")),
    ends("arguments that are a map", fields(1, 1, "test.echo", {})),
    ends("named arguments that are nil", fields(1, 1, "test.echo", [1], None)),
    ends("named arguments with a bytes key", b("950101", fields("test.echo")[1:], "90", "81c4016101")),
    ends("a context that is nil", fields(1, 1, "test.echo", [1], {}, None)),
    ends("a deadline that is text", fields(1, 1, "test.echo", [1], {}, {"deadline": "1"})),
    ends("a deadline that is negative", fields(1, 1, "test.echo", [1], {}, {"deadline": -1.0})),
    ends("a deadline that is infinite",
         fields(1, 1, "test.echo", [1], {}, {"deadline": float("inf")})),
    ends("a deadline that is not a number",
         fields(1, 1, "test.echo", [1], {}, {"deadline": float("nan")})),
    ends("a sent that is text", fields(1, 1, "test.echo", [1], {}, {"sent": "1"})),
    ends("a sent that is negative", fields(1, 1, "test.echo", [1], {}, {"sent": -1})),
    ends("a notification with a deadline that is text", fields(2, "test.note", ["x"], {}, {"deadline": "1"})),
    ends("a stream that is a number", fields(1, 1, "test.count", [1], {}, {"stream": 1})),
    ends("a stream of one number", fields(1, 1, "test.count", [1], {}, {"stream": [1]})),
    ends("a scope that is text", fields(1, 1, "test.echo", [1], {}, {"scope": "1"})),
    ends("a depth that is a float", fields(1, 1, "test.echo", [1], {}, {"depth": 1.0})),
    ends("a parent that is text", fields(1, 1, "test.echo", [1], {}, {"parent": "1"})),
    ends("metadata that is an array", fields(1, 1, "test.echo", [1], {}, {"metadata": []})),
    ends("an id that is in flight", WAIT, ECHO, replies=[STOPPED]),
    ends("an id that is in flight, in pieces", WAIT, fields(17, ECHO), replies=[STOPPED]),
    ends("a Reply without a call", fields(3, 1, None)),
    ends("a ReplyErr without a call", fields(4, 1, {"code": "internal", "message": ""})),
    ends("a Reply with an extra element", fields(3, 1, None, None)),
    ends("an error that is nil", fields(4, 1, None)),
    ends("a reason that is bytes", b("930501", "c40161")),
    ends("a Ping without a number", fields(13)),
    ends("a negative Ping", fields(13, -1)),
    ends("a Credit of nothing", fields(15, 0)),
    ends("a Credit of bytes without a call", fields(15, 1, None, 1)),
    ends("a Credit for more notifications than were sent", fields(15, 1)),
    ends("a Goodbye without a message", fields(12, "done")),
    ends("a ninth call where eight are allowed", CALLS + fields(1, 9, "test.wait", []),
         replies=[error(number, "cancelled", started=True) for number in range(1, 9)]),
    ends("a ninth notification where eight are allowed", NOTES + fields(2, "test.hold", [])),
    ends("a LastPiece that withdraws no message", fields(17, b"")),
    ends("a Piece of nothing", b("9210c400")),
    ends("a Piece of text", fields(16, "a")),
    ends("a Ping in pieces", fields(17, fields(13, 1))),
    ends("two messages in pieces", fields(17, ECHO + fields(1, 2, "test.echo", [1]))),
    ends("half a message in pieces", fields(17, ECHO[:-1])),
    ends("pieces beyond max_message", *[fields(16, bytes(8200))] * 2),
    # ── illegal bytes ──
    ends("the byte c1", b("c1")),
    ends("a message cut short", ECHO[:-1]),
    ends("a packet beyond max_packet", ECHO + fields(17, bytes(16384))),
    ends("a good message before a bad one", ECHO + b("c1"), replies=[[3, 1, "hi"]]),
    ends("an array of 4 GiB", b("ddffffffff")),
    ends("a map of 4 GiB", b("dfffffffff")),
    ends("text of 4 GiB", argument("dbffffffff")),
    ends("bytes of 4 GiB", argument("c6ffffffff")),
    ends("an extension of 4 GiB", argument("c9ffffffff01")),
    ends("text that is not UTF-8", argument("a1ff")),
    ends("a surrogate", argument("a3eda080")),
    ends("an int key", argument("810102")),
    ends("a nil key", argument("81c002")),
    ends("an array key", argument("819002")),
    ends("a key twice", argument("82a16101a16102")),
    ends("65 levels", argument("91" + DEEP)),
    ends("more values than max_nodes", argument("dc0400" + "c0" * 0x400)),
    ends("more values than max_nodes, in extensions", argument("dc0100" + "d40d00" * 0x100)),
    ends("more values than max_nodes, inside an extension", argument(NODES_INSIDE)),
    ends("nested extensions that are too large", argument(NESTED)),
    ends("a tuple that is not an array", argument(ext(1, "05"))),
    ends("a tuple and an extra value", argument(ext(1, "9090"))),
    ends("a set of arrays", argument(ext(2, "9190"))),
    ends("a set of a tuple with an array", argument(ext(2, b("91", ext(1, "9190"))))),
    ends("a set of a value that cannot be compared", argument(ext(2, b("91", ext(8, text("sNaN")))))),
    ends("a map of extension 12 with a map for a key", argument(ext(12, "928001"))),
    ends("a date that does not exist", argument(ext(5, text("2026-02-30")))),
    ends("a time span that is not normalised", argument(ext(7, "9300ce0001518000"))),
    ends("a decimal that is not one", argument(ext(8, text("one!")))),
    ends("a NaN with digits", argument(ext(8, text("NaN123")))),
    ends("a decimal with an underscore", argument(ext(8, text("1_000")))),
    ends("a decimal with spaces", argument(ext(8, text(" 1 ")))),
    ends("infinity in short", argument(ext(8, text("inf")))),
    ends("an exponent of ten digits", argument(ext(8, text("1E1000000000")))),
    ends("a date without hyphens", argument(ext(5, text("20260102")))),
    ends("a week date", argument(ext(5, text("2026-W01-1")))),
    ends("a time in UTC that says Z", argument(ext(4, text("2026-01-02T03:04:05Z")))),
    ends("a time with a space for the T", argument(ext(4, text("2026-01-02 03:04:05")))),
    ends("a time with milliseconds alone", argument(ext(4, text("2026-01-02T03:04:05.123")))),
    ends("a time without seconds", argument(ext(6, text("03:04")))),
    ends("an offset without a colon", argument(ext(4, text("2026-01-02T03:04:05+0100")))),
    ends("a user's type that is too deep", argument(ext(64, "91" * 61 + "90"))),
    ends("a user's type with an int key", argument(ext(64, "810102"))),
    ends("a user's type with a key twice", argument(ext(64, "82a16101a16102"))),
    ends("a user's type with text that is not UTF-8", argument(ext(64, "a1ff"))),
    ends("a UUID of 15 bytes", argument(ext(9, "00" * 15))),
    ends("an integer of no bytes", argument(b("c7000a"))),
    ends("a complex of 15 bytes", argument(ext(11, "00" * 15))),
    ends("a map with a key and no value", argument(ext(12, "9101"))),
    ends("a map of extension 12 with a key twice", argument(ext(12, "9401010102"))),
    ends("a reference of one number", argument(ext(32, "9101"))),
    ends("a reference in a Hello", hello(later=msgpack.ExtType(32, fields(1, 0))), state="new"),
    ends("a reference in an error", b("930401", "81a161", ext(32, "920101"))),
    ends("a timestamp of 5 bytes", argument(b("c705ff", "0000000000"))),
    ends("a code that MessagePack reserves", argument(ext(-2, "05"))),
    ends("a user's type that is not one value", argument(ext(64, "0505"))),
]  # fmt: skip

# The check of docs/protocol.md, section 15, that each ending or refusing vector fails.
BREAKS = {
    "packet": [
        "a packet beyond max_packet", "a message cut short", "a good message before a bad one",
        "a frame of no bytes", "a frame of 4 GiB", "one byte more than 262144", "a good frame before a bad one",
    ],
    "bytes": ["the byte c1", "HTTP", "text that is not UTF-8", "a surrogate", "a user's type with text that is not UTF-8"],
    "lengths": [
        "an array of 4 GiB", "a map of 4 GiB", "text of 4 GiB", "bytes of 4 GiB", "an extension of 4 GiB",
    ],
    "keys": [
        "an int key", "a nil key", "an array key", "a key twice", "a user's type with an int key",
        "a user's type with a key twice", "a map of extension 12 with a key twice", "a set of arrays",
        "a set of a tuple with an array", "a set of a value that cannot be compared", "a map of extension 12 with a map for a key",
    ],
    "bounds": [
        "65 levels", "a user's type that is too deep", "more values than max_nodes",
        "more values than max_nodes, in extensions", "more values than max_nodes, inside an extension",
        "nested extensions that are too large", "pieces beyond max_message",
    ],
    "extensions": [
        "a tuple that is not an array", "a tuple and an extra value", "a date that does not exist",
        "a time span that is not normalised", "a decimal that is not one", "a NaN with digits", "a decimal with an underscore",
        "a decimal with spaces", "infinity in short", "an exponent of ten digits", "a date without hyphens", "a week date",
        "a time in UTC that says Z", "a time with a space for the T", "a time with milliseconds alone",
        "a time without seconds", "an offset without a colon", "a UUID of 15 bytes", "an integer of no bytes",
        "a complex of 15 bytes", "a map with a key and no value", "a reference of one number", "a reference of kind 2**53",
        "a reference of number 2**53", "a timestamp of 5 bytes", "a code that MessagePack reserves",
        "a user's type that is not one value",
    ],
    "form": [
        "type 0", "a message in a codec that was not agreed", "type 6", "type 18", "type 19", "type 22", "type 24", "type 20", "a type that is text",
        "a type that is a float", "a type that is a bool", "no type", "a message that is not an array", "a map",
        "a call without arguments", "a call with an extra element", "id 0", "a negative id", "an id that is a float",
        "an id that is a bool", "a method that is bytes", "arguments that are a map", "named arguments that are nil",
        "named arguments with a bytes key", "a context that is nil", "a Reply with an extra element", "an error that is nil",
        "a reason that is bytes", "a Ping without a number", "a negative Ping", "a Credit of bytes without a call",
        "a Goodbye without a message", "a Piece of nothing", "a Piece of text", "a version that is not an integer",
        *[f"a {kind} with {what} 2**53" for kind, what, *_ in LARGE],
    ],
    "context": [
        "a callback that is text", "a task_status that is not a bool", "a first credit of no items",
        "a first credit of no bytes", "a deadline that is text", "a deadline that is negative", "a deadline that is infinite",
        "a deadline that is not a number", "a sent that is text", "a sent that is negative", "a notification with a deadline that is text", "a stream that is a number",
        "a stream of one number", "a scope that is text", "a depth that is a float", "a parent that is text",
        "metadata that is an array", "a call with stream of 2**53 items", "a call with stream of 2**53 bytes",
        "a notification with depth 2**53",
        *[f"a call with {key} 2**53" for key in ("deadline", "sent", "parent", "depth", "callback", "scope")],
    ],
    "state": [
        "a call before Hello", "a call before Welcome", "a Ping before Hello", "Hello twice", "Welcome twice",
        "two Goodbyes", "a call outside any call after a Goodbye",
        "a call nested too deeply, outside any call after a Goodbye",
    ],
    "hello": [
        "another version", "another version, and a Hello of another form",
        "another version, and an extension in place of the limits", "another version, and a map with int keys",
        "another version, and bytes that are malformed here", "another version, written in the longest form",
        "another version, and nothing after it", "another version, in an array that promises more",
        "a Hello without calls", "a Hello with calls that are not an integer", "a Hello with no calls at all",
        "packets too small for a Hello", *[f"a Hello with {name} 2**53" for name in HELLO_INFO],
        "a Hello with another codec", "a Hello with another version of the codec",
        "a Hello with a codec that is not a name and a version", "a Hello with other tags",
        "a Hello with tags that are not integers", "a Hello with a codec that is nil",
        "a Hello with a codec that is a map", "a Hello with tags that are nil", "a Hello with tags that are maps",
        "a Hello with a tag beyond 2**53",
    ],
    "id": ["an id that is in flight", "an id that is in flight, in pieces"],
    "calls": ["a ninth call where eight are allowed", "a ninth notification where eight are allowed"],
    "credit": [
        "a Credit of nothing", "a credit of nothing", "a Credit for more notifications than were sent",
        "more credit for items than were sent", "more credit for bytes than were sent",
    ],
    "answer": ["a Reply without a call", "a ReplyErr without a call"],
    "items": [
        "a Started that was not requested", "an Item in a call that asked for none",
        "an EndOfItems in a call that asked for none", "an Item of a call that was never made",
        "an EndOfItems of a call that was never made", "a Started of a call that was never made",
        "an Item after the EndOfItems", "a second EndOfItems", "an Item without credit",
    ],
    "pieces": [
        "a Ping in pieces", "two messages in pieces", "half a message in pieces", "a LastPiece that withdraws no message",
    ],
    "references": [
        "a reference in an Item", "a reference in a Started", "a reference in a Hello", "a reference in an error",
    ],
}  # fmt: skip


def with_checks(vectors: list[dict]) -> list[dict]:
    """Add the failing check to each vector that ends or refuses a session."""
    named = {name: check for check, names in BREAKS.items() for name in names}
    return [
        {**one, "breaks": named[one["name"]]} if one.get("outcome", "goes on") != "goes on" else one
        for one in vectors
    ]


SERVICE = {
    "test.echo": "method (value: any) -> the value",
    "test.add": "method (a: int, b: int) -> their sum",
    "test.fail": "method (text: str): raises ValueError(text)",
    "test.apply": "method (function, value: any) -> function(value)",
    "test.total": "method (stream): the sum of its items",
    "test.count": "stream (most: int): the numbers from 0 up to most - 1",
    "test.chat": "duplex (): sends back each item until the items end",
    "test.begin": "method (value: any): sends Started with the value if requested, then waits until cancelled",
    "test.wait": "method (): waits until cancelled",
    "test.note": "notification (text: str): does nothing",
    "test.hold": "notification (): waits until cancelled",
}
SERVED = {
    **HELLO_INFO,
    "calls": 8,
    "notifications": 8,
    "max_message": 16384,
    "max_nodes": 1024,
}


def document() -> str:
    """Return the contents of the file."""
    groups = {
        "values": VALUES,
        "decoded only": DECODED,
        "messages": MESSAGES,
        "packets": PACKETS,
        "streams": with_checks(STREAMS),
        "exchanges": with_checks(EXCHANGES),
    }
    head = {
        "about": ABOUT,
        "version": 1,
        "notation": NOTATION,
        "service": SERVICE,
        "served": SERVED,
        "hello": HELLO_INFO,
    }
    lines = [f"  {json.dumps(key)}: {json.dumps(item)}" for key, item in head.items()]
    for key, group in groups.items():
        rows = ",\n".join(f"    {json.dumps(vector)}" for vector in group)
        lines.append(f"  {json.dumps(key)}: [\n{rows}\n  ]")
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    VECTORS.write_text(document(), encoding="utf-8")
