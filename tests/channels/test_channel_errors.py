"""What guards a channel: one task that sends, one that receives, and nothing after it was closed."""

from __future__ import annotations

import pytest
import trio

from trio_rpc.channels.errors import CHANNEL_ERRORS, ChannelGuard
from trio_rpc.errors import DecodeError
from trio_rpc.util.conflict_detector import ConflictDetector


def test_a_second_one_inside_is_refused_and_the_first_stays_inside():
    detector = ConflictDetector("somebody is in there")
    with detector:
        with pytest.raises(trio.BusyResourceError, match=r"^somebody is in there$"), detector:
            pytest.fail("the second one got in")
        assert detector.is_held
    assert not detector.is_held


def test_an_error_inside_leaves_it_free():
    detector = ConflictDetector("somebody is in there")
    with pytest.raises(ZeroDivisionError), detector:
        raise ZeroDivisionError
    with detector:
        assert detector.is_held


def test_a_guard_tells_sending_from_receiving():
    guard = ChannelGuard()
    with guard.sending, guard.receiving:
        with pytest.raises(trio.BusyResourceError, match="another task is sending"), guard.sending:
            pytest.fail("two tasks send")
        with pytest.raises(trio.BusyResourceError, match="another task is receiving"):
            guard.receiving.__enter__()
    guard.check_open()


def test_a_guard_of_a_closed_channel_says_so():
    guard = ChannelGuard()
    guard.is_closed = True
    with pytest.raises(trio.ClosedResourceError, match=r"^this channel was closed$"):
        guard.check_open()


def test_a_peer_that_breaks_the_rules_is_not_a_channel_that_ended():
    assert not issubclass(DecodeError, CHANNEL_ERRORS)
    for kind in (trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError, OSError):
        assert issubclass(kind, CHANNEL_ERRORS)
