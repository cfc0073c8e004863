"""Enums and flags: each member arrives as itself, and a peer cannot make a flag's class grow."""

from __future__ import annotations

import enum
import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_rpc.gateway.json_values import read_json
from trio_rpc.services.conversion import adapt
from trio_rpc.services.converters import convert_to
from trio_rpc.services.flags import MOST

Shape = enum.Enum(
    "Shape",
    {
        "LIST": [1, "a"],
        "NESTED": [[1], 2],
        "TUPLE": (1, 2),
        "DICT": {"a": [1]},
        "NUMBER": 3,
    },
)


@pytest.mark.parametrize("member", list(Shape))
def test_a_member_whose_value_is_a_container_arrives_as_itself(member):
    assert convert_to(member.value, adapt(Shape)) is member
    as_json = list(member.value) if type(member.value) is tuple else member.value
    assert read_json(as_json, adapt(Shape)) is member


@pytest.mark.parametrize("value", [[1], [], [1, "b"], {"a": (2,)}, (1, "b"), [[2], 1]])
def test_another_container_is_not_a_member(value):
    with pytest.raises((TypeError, ValueError), match="is not a valid Shape"):
        convert_to(value, adapt(Shape))


def _flags(kind):
    return kind("Marks", [f"F{number}" for number in range(16)])


@pytest.mark.parametrize("kind", [enum.Flag, enum.IntFlag])
@pytest.mark.parametrize("read", [convert_to, read_json], ids=["wire", "JSON"])
def test_law_12_the_combinations_that_a_peer_sends_are_not_kept_forever(kind, read):
    cls = _flags(kind)
    adapted = adapt(cls)
    for value in range(2**16):
        assert read(value, adapted).value == value
        assert len(cls._value2member_map_) <= MOST + 1
    assert set(cls) <= set(cls._value2member_map_.values())  # all declared members stay


@pytest.mark.parametrize("kind", [enum.Flag, enum.IntFlag])
def test_a_combination_that_is_in_use_stays_equal_to_itself(kind):
    cls = _flags(kind)
    adapted = adapt(cls)
    used = [convert_to(value, adapted) for value in range(0, 2**16, 17)]
    for value in range(2**16):
        convert_to(value, adapted)
    gc.collect()
    assert len(cls._value2member_map_) <= 2 * len(used) + MOST
    for one in used:
        assert cls(one.value) is one
        assert convert_to(one.value, adapted) is one


@given(st.lists(st.integers(0, 2**16 - 1), max_size=30))
def test_received_flags_equal_the_flags_that_python_makes(values):
    cls = _flags(enum.Flag)
    adapted = adapt(list[cls])
    assert convert_to(values, adapted) == [cls(value) for value in values]
