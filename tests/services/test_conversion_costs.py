"""The cost of converting a value, in units of ``Limits.max_nodes``."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Literal

import pytest

from trio_rpc.errors import InvalidArguments
from trio_rpc.services import adapters
from trio_rpc.services.conversion import adapt
from trio_rpc.services.converters import WireRead
from trio_rpc.services.signatures import Signature


def spent(annotation, value):
    read = WireRead(10_000)
    read(value, adapt(annotation))
    return read.most - read.left


def test_a_failed_attempt_costs_more_than_a_successful_one():
    either = list[IPv4Address | IPv4Network]
    at_once = spent(either, ["1.2.3.4"])
    network = spent(list[IPv4Network], ["1.2.3.0/24"])
    assert spent(either, ["1.2.3.0/24"]) > at_once + network


def test_each_item_costs_the_same():
    one, ten = (spent(list[IPv4Network], ["1.2.3.0/24"] * count) for count in (1, 10))
    assert ten == 10 * one > 10


class _Sought:
    """A pattern that records how much of each text is searched."""

    def __init__(self, pattern):
        self._pattern = pattern
        self.lengths = []

    def search(self, text, start=0):
        self.lengths.append(len(text) - start)
        return self._pattern.search(text, start)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Literal["a", "b"], "x" * 100_000),
        (list[Literal["a", "b"]], ["a", "x" * 100_000]),
        (set[Literal["a", "b"]], ["a", "x" * 100_000]),
        (dict[IPv4Address, Literal["a", "b"]], {"1.2.3.4": "x" * 100_000}),
    ],
)
def test_an_error_that_shows_a_long_value_is_not_searched_from_its_beginning(
    annotation, value, monkeypatch
):
    sought = []
    for name in ("_PATHS", "_IN_PART"):
        sought.append(_Sought(getattr(adapters, name)))
        monkeypatch.setattr(adapters, name, sought[-1])

    def ask(x): ...

    ask.__annotations__["x"] = annotation
    with pytest.raises(InvalidArguments, match=r"\(1000.. characters\)"):
        Signature(ask, skip_self=False).bind([value])
    lengths = [length for one in sought for length in one.lengths]
    assert lengths
    assert max(lengths) <= 10_000
