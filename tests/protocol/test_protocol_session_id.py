"""The id of a session, which both Hellos make together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_rpc.protocol.hello import make_info, read_info, session_id
from trio_rpc.wire.limits import DEFAULT_LIMITS

PARTS = st.text("0123456789abcdefXYZ_-", max_size=32)


def read(**entries):
    return read_info({**make_info(DEFAULT_LIMITS, None), **entries}).session


@given(PARTS, PARTS)
def test_both_ends_make_the_same_id_of_the_two_parts(ours, theirs):
    whole = session_id(ours, theirs)
    assert whole == session_id(theirs, ours)
    assert (whole is None) is (not ours and not theirs)


def test_a_part_travels_in_hello_and_is_left_out_if_there_is_none():
    info = make_info(DEFAULT_LIMITS, None, "5f3a")
    assert info["session"] == "5f3a"
    assert read_info(info).session == "5f3a"
    assert "session" not in make_info(DEFAULT_LIMITS, None)
    assert not read()


@pytest.mark.parametrize(
    "part", ["", "5" * 33, "5\n", "\x1b[2J", "é", 5, None, b"5f3a", ["5f3a"], {}]
)
def test_a_part_of_another_form_counts_as_absent(part):
    assert not read(session=part)
    assert read(session="aZ0_-") == "aZ0_-"
