"""The lists of docs/protocol.md match the code, and its bytes decode to the messages shown."""

from __future__ import annotations

import inspect
import json
import re
from functools import partial

import pytest
import trio.testing
from helpers.notation import CLASSES, value_of
from helpers.pages import blocks, codes, section, table

import trio_rpc
from trio_rpc.channels import StreamChannel
from trio_rpc.protocol import hello, outbox, states
from trio_rpc.services import decorators, signatures
from trio_rpc.services import error_maps as faults
from trio_rpc.session import lifecycle as life
from trio_rpc.session.calls import callbacks
from trio_rpc.wire import extensions, registry
from trio_rpc.wire import messages as m
from trio_rpc.wire.codec import Codec
from trio_rpc.wire.framing import FrameReader

PAGE = "protocol.md"
DASH = "\N{EN DASH}"
MESSAGES = section(PAGE, "4. Messages")
CODEC = Codec()


def names(kinds):
    return {kind.__name__ for kind in kinds}


def test_every_message_is_listed_with_its_number():
    listed = {int(number): name for number, name, _ in table(MESSAGES, "type")}
    assert listed == {number: cls.__name__ for number, cls in CLASSES.items()}
    lifetimes = [name for row in table(MESSAGES, "message") for name in row[0].split(", ")]
    assert set(lifetimes) == names(CLASSES.values())


def test_the_version_of_the_page_matches_the_code():
    assert section(PAGE, f"version {m.PROTOCOL_VERSION}")


@pytest.mark.parametrize("row", table(MESSAGES, "type"), ids=lambda row: row[1])
def test_the_elements_of_a_message_match_the_code(row):
    number, _, array = row
    elements = re.findall(r"[\w?]+", array)
    assert elements[0] == number
    fields = list(inspect.signature(CLASSES[int(number)]).parameters)
    fields = [field for field in fields if field not in {"problem", "references", "shape"}]
    assert [element.rstrip("?") for element in elements[1:]] == fields


def states_table():
    text = section(PAGE, "Which message may be sent when")
    return table(text, "message")


def test_the_tables_of_legal_messages_match_the_code():
    legal = {half: set() for half in states.Half}
    turns = {}
    for name, *cells in states_table():
        for half, cell in zip(states.Half, cells, strict=True):
            assert cell in {DASH, "yes"} or cell.startswith("→ ")
            if cell != DASH:
                legal[half].add(name)
            if cell.startswith("→ "):
                turns[half, name] = states.Half[cell[2:]]
    assert legal == {half: names(kinds) for half, kinds in states.LEGAL.items()}
    assert turns == {(half, kind.__name__): to for (half, kind), to in states.NEXT.items()}


def test_the_tables_of_forbidden_messages_match_the_code():
    rows = table(section(PAGE, "Which message may be sent when"), "receiver's half")
    listed = {
        states.Half[half]: set() if kinds == "nothing" else set(kinds.split(", "))
        for half, kinds in rows
    }
    assert listed == {half: names(kinds) for half, kinds in states.UNWELCOME.items()}


def test_the_tables_of_calls_have_all_states():
    text = section(PAGE, "The two tables of calls")
    for heading, kinds in (
        ("calls I have made", states.OutgoingState),
        ("calls I serve", states.IncomingState),
    ):
        rows = table(text, heading)
        found = {word for row in rows for word in re.findall(r"[A-Z]{4,}", f"{row[0]} {row[2]}")}
        assert found == {kind.name for kind in kinds}


def test_the_messages_allowed_in_pieces_match_the_code():
    [listed] = re.findall(r"Only \*\*(.*?)\*\* may come in pieces", section(PAGE, "8. Large"))
    assert set(re.split(r", | and ", listed)) == names(states.IN_PIECES)


def test_the_keys_of_a_hello_match_the_code():
    rows = table(section(PAGE, "5. The handshake"), "key of `info`")
    listed = {codes(key)[0]: int(least) for key, least, _ in rows}
    assert listed == {key: least for key, (_, least) in hello._NUMBERS.items()}
    [(_, block), *_] = blocks(section(PAGE, "5. The handshake"))
    fields = json.loads(block)
    assert fields == [10, 1, hello.make_info(trio_rpc.DEFAULT_LIMITS, None)]


def extension_table():
    return table(section(PAGE, "The extension table"), "code")


def test_every_extension_is_listed():
    code = vars(extensions)
    numbers = [
        code[name]
        for name in (
            *("TUPLE", "SET", "FROZENSET", "DATETIME", "DATE", "TIME", "TIMEDELTA"),
            *("DECIMAL", "UUID", "BIG_INT", "COMPLEX", "MAP", "REFERENCE"),
        )
    ]
    assert [int(row[0]) for row in extension_table()] == [*numbers, -1]
    assert set(extensions.LEAF_DECODERS) < set(numbers)
    text = " ".join(section(PAGE, "The extension table").split())
    assert f"Codes {registry.FIRST_TAG} to {registry.LAST_TAG}" in text
    assert f"1 to {extensions.MAX_INT:,} bytes" in text
    assert f"at most {extensions.MAX_TEXT:,} bytes" in text


@pytest.mark.parametrize("row", extension_table(), ids=lambda row: row[1])
def test_an_example_of_an_extension_encodes_and_decodes(row):
    code, _, payload, example, data = row
    raw = bytes.fromhex(codes(data)[0])
    value = CODEC.decode_message(bytes.fromhex("930301") + raw).result
    assert repr(value) == codes(example)[0]
    if int(code) >= 0:
        assert CODEC.encode(m.Reply(1, value)) == bytes.fromhex("930301") + raw
        assert ("of values" in payload) == (int(code) in {1, 2, 3, 12})


def test_every_error_code_is_listed():
    listed = [codes(row[0])[0] for row in table(section(PAGE, "13. Errors"), "code")]
    sources = [inspect.getsource(module) for module in (faults, trio_rpc.session.dispatch)]
    sources.append(inspect.getsource(trio_rpc.protocol.protocol))
    used = set(re.findall(r'"code": "(\w+)"', "".join(sources)))
    used |= {*faults._REFUSALS, "internal", "cancelled", "deadline", "raised"}
    used |= set(re.findall(r'_refuse\(request, "(\w+)"', sources[-1]))
    assert set(listed) == used
    assert len(listed) == len(used)


def test_every_key_of_an_error_is_listed():
    listed = {codes(row[0])[0] for row in table(section(PAGE, "13. Errors"), "key")}
    source = inspect.getsource(faults) + inspect.getsource(trio_rpc.session.dispatch)
    written = set(re.findall(r'error\["(\w+)"\]', source)) | set(re.findall(r'"(\w+)": ', source))
    read = set(re.findall(r'(?:_text\(error, |error\.get\()"(\w+)"', source))
    assert listed == written | read


def test_the_built_in_exceptions_on_the_page_match_the_code():
    [(_, block)] = blocks(section(PAGE, "13. Errors"))
    assert block.split() == [cls.__name__ for cls in faults.BUILTINS.values()]
    assert {f"builtins.{name}" for name in block.split()} == faults.BUILTINS.keys()
    text = " ".join(section(PAGE, "13. Errors").split())
    assert f"at most {faults.MAX_TEXT:,} characters" in text
    assert f"fewer than {faults.MAX_DEPTH} groups" in text
    assert f"at most {faults.MAX_LEAVES} parts" in text


def test_every_goodbye_code_is_listed():
    rows = table(section(PAGE, "11. The end"), "code")
    used = set(re.findall(r'return "(\w+)", ', inspect.getsource(life.Lifecycle.goodbye)))
    assert {codes(row[0])[0] for row in rows} == used


def test_every_entry_of_a_context_is_listed():
    listed = {codes(row[0])[0] for row in table(section(PAGE, "6. Calls"), "key")}
    source = inspect.getsource(trio_rpc.session.calls.context)
    source += inspect.getsource(trio_rpc.session.calls.outgoing)
    used = set(re.findall(r'context(?:\["|\.get\("|, ")(\w+)"', source))
    used |= set(re.findall(r'\{"(\w+)": call\.id, "(\w+)"', source)[0])
    used |= set(re.findall(r'"(deadline)": max.*"(sent)": now', source)[0])
    used |= {"scope", "stream", signatures.TASK_STATUS}
    assert listed == used
    assert listed == set(trio_rpc.protocol.context.KNOWN)


def test_the_numbers_in_the_text_match_the_code():
    text = " ".join(section(PAGE, "version 1").split())
    limits = trio_rpc.DEFAULT_LIMITS
    assert f"at most {hello.MIN_PACKET - outbox.CONTROL_ROOM:,} bytes" in text
    assert f"must not exceed {hello.MIN_PACKET:,} bytes" in text
    assert f"up to {outbox.CONTROL_ROOM} bytes less" in text
    assert f"gives it {limits.handshake_timeout:g} seconds" in text
    assert f"waits {limits.packet_timeout:g} seconds" in text
    assert f"gives the others {limits.close_grace:g} seconds" in text
    assert f"{limits.shutdown_timeout:g} second here" in text
    assert f"asks after {limits.keepalive_interval:g} seconds of silence, three times" in text
    assert limits.keepalive_pings == 3
    assert f"`max_call_depth`, {limits.max_call_depth} here" in text
    kinds = {row[1]: int(row[0]) for row in table(section(PAGE, "17. Callbacks"), "kind")}
    assert kinds == {"a function": callbacks.CALLBACK, "a stream": callbacks.STREAM}


def test_the_listed_limits_are_the_defaults():
    limits = trio_rpc.DEFAULT_LIMITS
    rows = {row[0]: row[2] for row in table(section(PAGE, "14. Limits"), "limit")}
    silence = limits.keepalive_interval * (limits.keepalive_pings + 1)
    assert rows == {
        "message": f"{limits.max_message:,} bytes",
        "packet": f"{limits.max_packet:,} bytes",
        "depth": str(limits.max_depth),
        "values in a message": f"{limits.max_nodes:,}",
        "calls at once": f"{limits.max_calls:,}",
        "notifications at once": f"{limits.max_notifications:,}",
        "calls inside calls": str(limits.max_call_depth),
        "items that wait, in one stream": f"{limits.stream_items:,}",
        "bytes of them": f"{limits.stream_bytes:,} bytes",
        "Hello": f"{hello.MIN_PACKET - outbox.CONTROL_ROOM:,} bytes, always",
        "handshake": f"{limits.handshake_timeout:g} s",
        "a packet, from its first to its last byte": f"{limits.packet_timeout:g} s",
        "silence": f"{silence:g} s",
    }


def test_a_declared_class_is_sent_without_its_module():
    class UnknownSymbol(Exception):
        pass

    assert decorators.wire_name(UnknownSymbol) == "UnknownSymbol"
    assert decorators.wire_name(KeyError) == "builtins.KeyError"


# ── the session byte by byte ─────────────────────────────────────────────────────────────────


def steps():
    """Return the steps of section 18, each as sender, bytes and messages."""
    found = blocks(section(PAGE, "18. A session"))
    assert len(found) % 2 == 0
    pairs = zip(found[::2], found[1::2], strict=True)
    return [
        (who.removeprefix("hex-"), hex_of(lines), json.loads(messages))
        for (who, lines), (_, messages) in pairs
    ]


def hex_of(block):
    return b"".join(bytes.fromhex(line.partition("#")[0]) for line in block.splitlines())


@pytest.mark.parametrize("step", steps(), ids=lambda step: step[1].hex()[:16])
def test_the_bytes_decode_to_the_messages_below_them(step):
    _, data, arrays = step
    reader = FrameReader(trio_rpc.DEFAULT_LIMITS.max_packet)
    reader.feed(data)
    decoded = [message.to_wire() for message in CODEC.decode(reader.next_frame())]
    assert not reader.partial
    assert decoded == [m.parse_message(value_of(array)).to_wire() for array in arrays]


def test_the_first_example_of_a_frame_is_a_ping():
    [(_, block), *_] = blocks(section(PAGE, "2. Packets"))
    data = bytes.fromhex(block.splitlines()[0])
    reader = FrameReader(100)
    reader.feed(data)
    assert list(CODEC.decode(reader.next_frame())) == [m.Ping(7)]


class Text:
    @trio_rpc.method
    async def double(self, text: str) -> str:
        return text * 2

    @trio_rpc.method
    async def wait(self) -> None:
        await trio.sleep_forever()

    @trio_rpc.notification
    async def log(self, line: str) -> None:
        pass


async def test_a_server_sends_exactly_the_bytes_of_the_page():
    ours, theirs = trio.testing.memory_stream_pair()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            limits = trio_rpc.Limits(max_packet=262_144)  # as in the Hello on the page
            channel = StreamChannel(theirs, limits.max_packet)
            serve = partial(trio_rpc.serve_session, channel, {"text": Text()}, limits=limits)
            nursery.start_soon(serve)
            for who, data, _ in steps():
                if who == "client":
                    await ours.send_all(data)
                    continue
                received = b""
                while len(received) < len(data):
                    received += await ours.receive_some()
                assert received == data
            await ours.aclose()
