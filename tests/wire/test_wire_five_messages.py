"""The five messages of the original protocol, as any MessagePack library reads them."""

from __future__ import annotations

import base64
import json

import msgpack
import pytest

from trio_rpc.wire import messages as m
from trio_rpc.wire.codec import Codec


@pytest.mark.parametrize(
    ("message", "plain"),
    [
        (m.Request(7, "logger.info", ["app start"]), [1, 7, "logger.info", ["app start"]]),
        (m.Notification("logger.info", ["app start"]), [2, "logger.info", ["app start"]]),
        (m.Reply(7, {"content": "app start"}), [3, 7, {"content": "app start"}]),
        (m.ReplyErr(7, {"code": "raised"}), [4, 7, {"code": "raised"}]),
        (m.Cancel(7, "too late"), [5, 7, "too late"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_five_messages_have_their_numbers_and_fields(message, plain):
    """A Request is type 1: id, method, arguments. A Notification is type 2: method, arguments.

    A Reply is type 3: id, result. A ReplyErr is type 4: id, error. A Cancel is type 5: id.
    MessagePack is the default, and any MessagePack library reads the messages.
    """
    assert msgpack.unpackb(Codec().encode(message))[: len(plain)] == plain


@pytest.mark.parametrize(
    "argument", ["app start", b"\0" * 1000, list(range(1000)), {"x": 1.5, "y": None}]
)
def test_messages_are_shorter_than_those_of_json_rpc(argument):
    """The binary messages are shorter than those of JSON-RPC."""
    plain = base64.b64encode(argument).decode() if type(argument) is bytes else argument
    request = {"jsonrpc": "2.0", "id": 7, "method": "logger.info", "params": [plain]}
    compact = json.dumps(request, separators=(",", ":")).encode()
    assert len(Codec().encode(m.Request(7, "logger.info", [argument]))) < len(compact)
