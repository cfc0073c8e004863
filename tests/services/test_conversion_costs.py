"""The cost of converting a value, in units of ``Limits.max_nodes``."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from trio_rpc.services.conversion import adapt
from trio_rpc.services.converters import WireRead


def spent(annotation, value):
    read = WireRead(10_000)
    read(value, adapt(annotation))
    return read.most - read.left


def test_an_attempt_that_fails_costs_more_than_one_that_succeeds():
    either = list[IPv4Address | IPv4Network]
    at_once = spent(either, ["1.2.3.4"])
    network = spent(list[IPv4Network], ["1.2.3.0/24"])
    assert spent(either, ["1.2.3.0/24"]) > at_once + network


def test_each_item_costs_the_same():
    one, ten = (spent(list[IPv4Network], ["1.2.3.0/24"] * count) for count in (1, 10))
    assert ten == 10 * one > 10
