"""Only the text forms of docs/protocol.md are read and written, and no other forms of Python."""

from __future__ import annotations

import datetime as dt
import decimal

import msgpack
import pytest
from helpers.wire_values import QUICK, zones
from hypothesis import given
from hypothesis import strategies as st

from trio_rpc.errors import DecodeError, EncodeError
from trio_rpc.wire import Codec, Limits, Reference
from trio_rpc.wire.messages import Reply
from trio_rpc.wire.scan import hello_version

CODEC = Codec()


def read(code, text):
    payload = text.encode()
    head = b"\xc8" + len(payload).to_bytes(2, "big") + bytes([code])
    [message] = CODEC.decode(b"\x93\x03\x01" + head + payload)
    return message.result


TIMES = (
    "3:04:05", "03:04", "030405", "03:04:05.1", "03:04:05,000001", "03:04:05Z", "24:00:00", "03:60:00",
    "03:04:60", "03:04:05+01", "03:04:05+0100", "03:04:05+24:00", "03:04:05+01:60", "03:04:05 ", "T03:04:05",
    "03:04:05+01:00:00.1", "\u0663:04:05", "",
)  # fmt: skip
DATES = ("20260102", "2026-W01-1", "2026-1-2", "2026-01-02 ", "+2026-01-02", "2026-001", "")
DECIMALS = (
    "1_0", " 1", "1 ", "1\n", "\u0661", "inf", "Inf", "infinity", "nan", "NAN", "snan", "NaN1", "sNaN123", "-NaN0",
    "1E", "E5", ".", "+", "--1", "1E+1234567890", "1e5.5", "0x10", "",
)  # fmt: skip


@pytest.mark.parametrize("text", TIMES)
def test_other_forms_of_a_time_are_malformed(text):
    with pytest.raises(DecodeError):
        read(6, text)
    for form in (f"2026-01-02T{text}", f"2026-01-02 {text}"):
        with pytest.raises(DecodeError):
            read(4, form)


@pytest.mark.parametrize("text", DATES)
def test_other_forms_of_a_date_are_malformed(text):
    with pytest.raises(DecodeError):
        read(5, text)
    with pytest.raises(DecodeError):
        read(4, f"{text}T03:04:05")


@pytest.mark.parametrize("text", DECIMALS)
def test_other_forms_of_a_decimal_are_malformed(text):
    with pytest.raises(DecodeError):
        read(8, text)


@pytest.mark.parametrize(
    "text", ["1", "+1", "-1.", ".5", "1.50", "1E+3", "1e-3", "1E999999999", "NaN", "-sNaN"]
)
def test_every_form_of_a_decimal_is_read(text):
    assert str(read(8, text)) == str(decimal.Decimal(text))


@pytest.mark.parametrize("text", ["NaN1", "-NaN123", "sNaN7", "1E+1000000000", "1E-1000000000"])
@pytest.mark.parametrize(
    "wrap", [lambda v: v, lambda v: [{"a": v}], lambda v: {(v,): 1} if v.is_finite() else (v,)]
)
def test_a_decimal_without_a_form_on_the_wire_is_not_sent(text, wrap):
    with pytest.raises(EncodeError, match="Decimal"):
        Codec().encode(Reply(1, wrap(decimal.Decimal(text))))


@given(st.datetimes(timezones=zones))
@QUICK
def test_a_fraction_of_zero_may_be_written_or_left_out(moment):
    whole = moment.replace(microsecond=0)
    text = whole.isoformat()
    assert read(4, text) == whole
    assert read(4, text[:19] + ".000000" + text[19:]) == whole


@pytest.mark.parametrize("number", [2**53, 2**63, 2**64 - 1, -1])
def test_a_reference_beyond_53_bits_or_below_zero_is_neither_sent_nor_accepted(number):
    payload = msgpack.packb([1, number])
    with pytest.raises(DecodeError):
        read_bytes(32, payload)
    with pytest.raises(EncodeError):
        CODEC.encode(Reply(1, [Reference(1, number)]))


def read_bytes(code, payload):
    head = b"\xc7" + bytes([len(payload), code])
    [message] = CODEC.decode(b"\x93\x03\x01" + head + payload)
    return message.result


@pytest.mark.parametrize("array", [b"\x92", b"\xdc\x00\x02", b"\xdd\x00\x00\x00\x02"])
@pytest.mark.parametrize(
    "one", ["01", "cc01", "cd0001", "ce00000001", "cf0000000000000001", "d30000000000000001"]
)
def test_the_numbers_of_an_extension_may_have_any_encoding(array, one):
    assert read_bytes(32, array + bytes.fromhex(one) * 2) == Reference(1, 1)
    three = array[:-1] + bytes([array[-1] + 1])
    assert read_bytes(7, three + bytes.fromhex(one) * 3) == dt.timedelta(1, 1, 1)


@pytest.mark.parametrize("name", ["max_calls", "max_nodes", "max_message", "stream_bytes"])
def test_announced_limits_are_integers_of_at_most_53_bits(name):
    Limits(**{name: 2**53 - 1})
    for value in (2**53, 1e6, float("inf")):
        with pytest.raises(ValueError, match=f"Limits.{name} must be an integer"):
            Limits(**{name: value})


@given(st.binary(max_size=40))
@QUICK
def test_the_version_of_a_hello_is_looked_for_in_any_bytes_without_an_error(data):
    version = hello_version(data)
    assert version is None or 0 <= version < 2**64


@pytest.mark.parametrize("rest", ["", "80", "810102", "c1", "c720", "92", "d42001", "dfffffffff"])
@pytest.mark.parametrize(
    "form", ["930a02", "9f0a02", "92cc0acd0002", "dc0003d3000000000000000ad00002"[:24] + "02"]
)
def test_the_version_of_a_hello_is_read_from_its_first_two_elements(form, rest):
    assert hello_version(bytes.fromhex(form + rest)) == 2
    assert hello_version(bytes.fromhex(form)[:-1]) is None
