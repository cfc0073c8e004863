"""The Requests that the other end is known to have read."""

from __future__ import annotations

import pytest
from helpers.protocol_pair import Pair, received

from trio_rpc.wire import messages as m

BIG = b"x" * 40_000
"""More than two packets."""


@pytest.fixture
def pair():
    return Pair()


def test_a_pong_shows_that_the_requests_before_its_ping_were_read(pair):
    first = pair.call()
    second = pair.a.request("method", [])
    pair.a.ping()
    third = pair.a.request("method", [])
    assert not pair.a.read_requests.has_read(first)
    pair.settle()
    assert [pair.a.read_requests.has_read(call) for call in (first, second, third)] == [
        True,
        True,
        False,
    ]


def test_a_pong_says_nothing_about_a_large_request_that_has_not_left(pair):
    large = pair.a.request("method", [BIG])
    small = pair.a.request("method", [])
    number = pair.a.ping()
    packet = pair.a.next_packet()  # with a piece of the large one
    list(pair.b.receive(bytes(packet)))
    received(pair.a, m.Pong(number))
    assert not pair.a.read_requests.has_read(large)
    assert pair.a.read_requests.has_read(small)
    while (packet := pair.a.next_packet()) is not None:
        list(pair.b.receive(bytes(packet)))
    received(pair.a, m.Pong(pair.a.ping()))
    assert pair.a.read_requests.has_read(large)


def test_one_ping_at_a_time_is_remembered(pair):
    first = pair.call()
    one = pair.a.ping()
    second = pair.call()
    two = pair.a.ping()
    received(pair.a, m.Pong(one))
    assert pair.a.read_requests.has_read(first)
    assert not pair.a.read_requests.has_read(second)
    received(pair.a, m.Pong(two))  # it was not remembered
    assert not pair.a.read_requests.has_read(second)
    assert not pair.a.read_requests.is_asking
    received(pair.a, m.Pong(pair.a.ping()))
    assert pair.a.read_requests.has_read(second)


def test_a_pong_that_was_not_asked_for_shows_nothing(pair):
    call = pair.call()
    received(pair.a, m.Pong(0))
    received(pair.a, m.Pong(7))
    assert not pair.a.read_requests.has_read(call)
    received(pair.a, m.Pong(pair.a.ping()))
    assert pair.a.read_requests.has_read(call)
    call = pair.call()
    number = pair.a.ping()
    received(pair.a, m.Pong(number - 1))  # a second time
    assert not pair.a.read_requests.has_read(call)
