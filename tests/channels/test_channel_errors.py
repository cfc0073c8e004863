"""The guard of a channel: one task sends, one receives, and none does after the channel closed."""

from __future__ import annotations

import pytest
import trio

from trio_rpc.channels.errors import CHANNEL_ERRORS, ChannelGuard
from trio_rpc.errors import DecodeError
from trio_rpc.util.conflict_detector import ConflictDetector


def test_a_second_task_is_refused_and_the_first_goes_on():
    detector = ConflictDetector("another task is inside")
    with detector:
        with pytest.raises(trio.BusyResourceError, match=r"^another task is inside$"), detector:
            pytest.fail("two tasks are inside")
        assert detector.is_held
    assert not detector.is_held


def test_a_detector_is_free_after_an_error_inside():
    detector = ConflictDetector("another task is inside")
    with pytest.raises(ZeroDivisionError), detector:
        raise ZeroDivisionError
    with detector:
        assert detector.is_held


def test_a_guard_distinguishes_sending_from_receiving():
    guard = ChannelGuard()
    guard.begin_sending()
    guard.begin_receiving()
    with pytest.raises(trio.BusyResourceError, match="another task is sending"):
        guard.begin_sending()
    with pytest.raises(trio.BusyResourceError, match="another task is receiving"):
        guard.begin_receiving()
    guard.is_sending = False
    guard.begin_sending()
    guard.check_open()


def test_a_guard_of_a_closed_channel_raises_closed_resource_error():
    guard = ChannelGuard()
    guard.is_closed = True
    with pytest.raises(trio.ClosedResourceError, match=r"^this channel was closed$"):
        guard.check_open()


def test_a_decode_error_does_not_count_as_the_end_of_a_channel():
    assert not issubclass(DecodeError, CHANNEL_ERRORS)
    for kind in (trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError, OSError):
        assert issubclass(kind, CHANNEL_ERRORS)
