from __future__ import annotations

import datetime as dt
from fractions import Fraction
from pathlib import PurePath

import msgpack
import pytest

from trio_rpc.errors import DecodeError, EncodeError
from trio_rpc.wire import Codec, Reference, TypeRegistry
from trio_rpc.wire.messages import Notification, Reply, ReplyErr, Request


def make_registry():
    registry = TypeRegistry()
    registry.register(64, Fraction, lambda f: (f.numerator, f.denominator), lambda p: Fraction(*p))
    registry.register(127, PurePath, str, PurePath)
    return registry


class Ratio:
    """A class that the codec does not know until it is registered."""

    def __init__(self, value):
        self.value = value


class Broken:
    """A registered class whose decode function raises."""


def make_broken_codec():
    registry = make_registry()
    registry.register(70, Broken, lambda _: "x", lambda text: int(text))
    return Codec(registry)


def test_registered_classes_can_be_sent():
    codec = Codec(make_registry())
    value = [Fraction(1, 3), {Fraction(1, 2): {Fraction(3, 4)}}, (Fraction(5),)]
    [reply] = codec.decode(codec.encode(Reply(1, value)))
    assert reply == Reply(1, value)


def test_registered_classes_may_contain_each_other():
    registry = make_registry()
    registry.register(65, Ratio, lambda r: {"v": [r.value]}, lambda v: Ratio(v["v"][0]))
    codec = Codec(registry)
    [reply] = codec.decode(codec.encode(Reply(1, {Ratio(Fraction(1, 7))})))
    [ratio] = reply.result
    assert ratio.value == Fraction(1, 7)


def test_registering_a_class_does_not_register_its_subclasses():
    registry = make_registry()
    registry.register(65, Ratio, lambda r: r.value, Ratio)
    codec = Codec(registry)
    with pytest.raises(EncodeError):
        codec.encode(Reply(1, PurePath("a").__class__))

    class Half(Ratio):
        pass

    codec.encode(Reply(1, Ratio(2)))
    with pytest.raises(EncodeError, match="Half"):
        codec.encode(Reply(1, Half(2)))


def test_a_class_with_a_built_in_text_form_uses_it_unless_it_is_registered():
    class Half(Fraction):
        pass

    values = [Fraction(1, 2), Half(1, 2)]
    for codec, expected in (
        (Codec(), ["1/2", "1/2"]),
        (Codec(make_registry()), [values[0], "1/2"]),
    ):
        [reply] = codec.decode(codec.encode(Reply(1, values)))
        assert reply.result == expected


@pytest.mark.parametrize(
    ("tag", "error"),
    [
        *[(tag, ValueError) for tag in (-1, 1, 63, 128, 64)],
        *[(tag, TypeError) for tag in (70.0, "70", True, None)],
    ],
)
def test_a_bad_tag_is_refused(tag, error):
    """Types of the user may be registered by a tag; a tag out of range or taken is refused."""
    registry = make_registry()
    with pytest.raises(error):
        registry.register(tag, complex.__class__, str, str)
    assert len(registry) == 2


BUILT_IN = [int, str, list, dict, tuple, set, dt.datetime, complex, type(None), Reference, object]


@pytest.mark.parametrize("cls", [*BUILT_IN, Fraction])
def test_a_class_that_is_built_in_or_registered_already_is_refused(cls):
    with pytest.raises(ValueError, match=cls.__qualname__):
        make_registry().register(80, cls, str, str)


def test_only_classes_and_functions_can_be_registered():
    with pytest.raises(TypeError):
        TypeRegistry().register(80, Fraction(1), str, str)
    with pytest.raises(TypeError):
        TypeRegistry().register(80, Fraction, None, str)
    with pytest.raises(TypeError):
        TypeRegistry().register(80, Fraction, str, "str")


def test_a_registry_in_use_cannot_change_but_its_copy_can():
    registry = make_registry()
    Codec(registry)
    with pytest.raises(RuntimeError):
        registry.register(99, Broken, str, str)
    copy = registry.copy()
    copy.register(99, Broken, str, str)
    assert len(copy) == 3
    assert len(registry) == 2
    assert "64: Fraction" in repr(registry)


def test_the_registries_of_two_sessions_are_independent():
    """Registries belong to a connection and not to the process."""
    registry = make_registry()
    registry.register(65, Ratio, lambda r: r.value, Ratio)
    with pytest.raises(EncodeError, match="Ratio"):
        Codec(make_registry()).encode(Reply(1, Ratio(2)))
    Codec(registry).encode(Reply(1, Ratio(2)))


def test_a_decode_function_that_raises_fails_only_its_message():
    codec = make_broken_codec()
    packet = b"".join(
        codec.encode(message)
        for message in (
            Request(1, "m", [[Broken(), 5, Broken()]]),
            Request(2, "m", [Fraction(1)]),
            Notification("n", [Broken()]),
            Reply(3, Broken()),
        )
    )
    first, second, third, fourth = codec.decode(packet)
    assert first.args == [[None, 5, None]]
    assert "Broken" in first.problem
    assert "ValueError" in first.problem
    assert second.problem is None
    assert second.args == [Fraction(1)]
    assert third.problem
    assert fourth.problem


LIST, SIGNALLING = msgpack.ExtType(1, b"\x91\x90"), msgpack.ExtType(8, b"sNaN")


@pytest.mark.parametrize("code", [2, 3, 12])
@pytest.mark.parametrize("key", [[], {}, msgpack.ExtType(2, b"\x90"), LIST, SIGNALLING], ids=repr)
@pytest.mark.parametrize("inside", [False, True])
def test_law_14_a_key_that_is_not_allowed_ends_the_session_even_beside_users_values(
    code, key, inside
):
    mine = msgpack.ExtType(70, msgpack.packb("5"))
    bad = msgpack.ExtType(code, msgpack.packb([key, mine] if inside else [key, 1]))
    args = [bad] if inside else [mine, bad]
    with pytest.raises(DecodeError):
        list(make_broken_codec().decode(msgpack.packb([1, 1, "m", args])))
    with pytest.raises(DecodeError):
        make_broken_codec().decode_message(msgpack.packb([1, 1, "m", args]))


def test_a_set_of_users_values_that_cannot_be_elements_fails_only_its_message():
    registry = TypeRegistry()
    registry.register(64, Ratio, lambda ratio: ratio.value, lambda value: [value])
    codec = Codec(registry)
    for code in (2, 3, 12):
        packet = msgpack.packb([1, 1, "m", [msgpack.ExtType(code, b"\x92\xd4\x40\x01\x05")]])
        [request, after] = codec.decode(packet + msgpack.packb([3, 2, 5]))
        assert "could not be decoded" in request.problem
        assert after == Reply(2, 5)


STAND_INS = {
    "none": 1,
    "an int": msgpack.ExtType(10, b"\x05"),
    "a map": msgpack.ExtType(12, b"\x90"),
}


@pytest.mark.parametrize("stand_in", STAND_INS.values(), ids=STAND_INS.keys())
@pytest.mark.parametrize("count", [1, 2, 300])
def test_a_message_with_keys_that_cannot_be_used_is_decoded_twice_and_not_more(
    count, stand_in, monkeypatch
):
    made, sizes, unpackb = [], [], msgpack.unpackb
    registry = TypeRegistry()
    registry.register(64, Ratio, lambda ratio: ratio.value, lambda value: made.append(value) or [])
    bad = msgpack.packb([msgpack.ExtType(64, b"\x05")])
    args = [stand_in, *[msgpack.ExtType(code, bad) for code in (2, 3)] * count]
    packet = msgpack.packb([1, 1, "m", args])

    def measured(data, **options):
        sizes.append(len(data))
        return unpackb(data, **options)

    def bytes_decoded(codec):
        sizes.clear()
        with monkeypatch.context() as patched:
            patched.setattr(msgpack, "unpackb", measured)
            message = codec.decode_message(packet)
        return message, sum(sizes)

    # Without the registry each value is hashable, so the message is decoded once.
    once = bytes_decoded(Codec())[1] if stand_in == 1 else None
    message, twice = bytes_decoded(Codec(registry))
    assert "could not be decoded" in message.problem
    assert len(made) == 2 * count
    inside = len(packet) + 2 * count * (len(bad) + 1)
    assert once in (None, inside)
    assert twice <= 2 * inside + 2


def test_a_value_of_an_error_that_cannot_be_decoded_is_replaced_by_none():
    codec = make_broken_codec()
    [error, reply] = codec.decode(
        codec.encode(ReplyErr(1, {"args": [Broken()]})) + codec.encode(Reply(2, 5))
    )
    assert error.error == {"args": [None]}
    assert reply.problem is None


def test_law_14_an_encode_function_that_raises_is_the_callers_error():
    registry = TypeRegistry()
    registry.register(64, Broken, lambda _: 1 / 0, str)
    with pytest.raises(EncodeError, match="Broken") as caught:
        Codec(registry).encode(Reply(1, Broken()))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_encode_function_that_returns_its_argument_hits_the_limit_of_depth():
    registry = TypeRegistry()
    registry.register(64, Broken, lambda value: value, str)
    with pytest.raises(EncodeError, match="levels"):
        Codec(registry).encode(Reply(1, Broken()))


def test_values_with_unregistered_tags_can_be_received_and_sent_on():
    sender, stranger = Codec(make_registry()), Codec()
    encoded = sender.encode(Reply(1, [Fraction(1, 3)]))
    [reply] = stranger.decode(encoded)
    assert type(reply.result[0]) is msgpack.ExtType
    assert stranger.encode(reply) == encoded


def test_opaque_payloads_must_be_one_value():
    # The program that has registered the tag decodes it, and counts the values inside.
    for payload in (b"", b"\xc1", b"\x01\x01", b"\x92\x01"):
        value = msgpack.ExtType(64, payload)
        with pytest.raises(EncodeError):
            Codec().encode(Reply(1, value))
        for codec in (Codec(), Codec(make_registry())):
            with pytest.raises(DecodeError):
                list(codec.decode(msgpack.packb([3, 1, value])))


@pytest.mark.parametrize("code", [0, 1, 12, 13, 32, 63])
def test_the_librarys_own_extension_codes_cannot_be_sent_by_hand(code):
    with pytest.raises(EncodeError, match=str(code)):
        Codec().encode(Reply(1, msgpack.ExtType(code, b"\x90")))
