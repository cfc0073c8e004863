"""A value that cannot be sent is an error of its caller alone (law 14)."""

from __future__ import annotations

import decimal
import threading

import pytest

from trio_rpc.errors import EncodeError, Fate
from trio_rpc.wire import Codec, Limits
from trio_rpc.wire.messages import Reply, Request


def looped():
    value = []
    value.append(value)
    return value


def looped_through_a_tuple():
    value = []
    value.append((value,))
    return value


def looped_dict():
    value = {}
    value[1] = value
    return value


def doubled(levels):
    value = []
    for _ in range(levels):
        value = [value, value]
    return value


REFUSED = {
    "an object": object(),
    "a class": int,
    "a function": print,
    "a lock": threading.Lock(),
    "a range": range(3),
    "a generator": (n for n in ()),
    "an exception": ValueError("x"),
    "an ellipsis": ...,
    "a lone surrogate": "a\ud800b",
    "a lone surrogate as a key": {"\ud800": 1},
    "a lone surrogate in a tuple": ("\ud800",),
    "a list that contains itself": looped(),
    "a tuple that contains itself": looped_through_a_tuple(),
    "a dict that contains itself": looped_dict(),
    "two lists in each of two lists": doubled(60),
    "an int that is too large": 2**9000,
    "a negative int that is too large": -(2**9000),
    "a Decimal that is too long": decimal.Decimal("1" * 2000),
    "a memoryview with strides": memoryview(b"abcd")[::2],
    "an object as a key": {object(): 1},
    "an object in a set": {object()},
    "colliding keys": {n * (2**61 - 1) for n in range(1000)},
}


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [1, v], lambda v: {"a": {"b": (v,)}}])
def test_a_value_that_cannot_be_sent_is_refused_and_the_codec_still_works(value, wrap):
    codec = Codec(limits=Limits(max_nodes=50_000))
    with pytest.raises(EncodeError) as caught:
        codec.encode(Request(1, "m", [wrap(value)]))
    assert caught.value.fate is Fate.NOT_STARTED
    assert len(str(caught.value)) < 400
    message = Reply(1, [1, (2,)])  # the codec still works
    assert list(codec.decode(codec.encode(message))) == [message]


def test_the_error_names_the_unknown_type():
    with pytest.raises(EncodeError, match="lock"):
        Codec().encode(Reply(1, {"a": [threading.Lock()]}))


def test_an_object_that_gets_no_reference_is_refused():
    with pytest.raises(EncodeError, match="object"):
        Codec().encode(Reply(1, object()), lambda _: None)


def test_law_12_the_limits_of_the_peer_apply_and_not_those_of_this_end():
    codec = Codec(limits=Limits(max_depth=5, max_nodes=50))
    deep, wide = Reply(1, [[[[[]]]]]), Reply(1, [0] * 100)
    for message in (deep, wide):
        with pytest.raises(EncodeError):
            codec.encode(message)
    codec.peer_limits = Limits()
    for message in (deep, wide):
        codec.encode(message)
    codec.peer_limits = Limits(max_depth=2)
    with pytest.raises(EncodeError, match="2 levels"):
        codec.encode(Reply(1, [[]]))
    codec.encode(Reply(1, []))


def test_a_value_deeper_than_the_recursion_limit_is_refused():
    codec = Codec(limits=Limits(max_depth=100_000))
    value = []
    for _ in range(50_000):
        value = [value]
    with pytest.raises(EncodeError):
        codec.encode(Reply(1, value))


def test_large_nested_extensions_that_the_peer_would_refuse_are_not_sent():
    limits = Limits(max_message=100_000, max_packet=50_000)
    value = bytes(90_000)
    for _ in range(4):
        value = (value,)
    codec = Codec(limits=limits)
    codec.encode(Reply(1, value))
    with pytest.raises(EncodeError, match="inside each other"):
        codec.encode(Reply(1, (value,)))
