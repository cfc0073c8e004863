"""The drills of a pool: instances that are restarted, killed, frozen, or all gone for a while."""

from __future__ import annotations

import sys

import pytest
import trio
from pools import play

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="it sends signals to processes"),
]


def test_a_rolling_restart_under_load_fails_no_call_and_runs_none_twice():
    outcome = trio.run(lambda: play("restart"))  # .ci/run plays ten rounds
    assert outcome.failed == 0
    assert outcome.calls > 1000


def test_after_sigkill_only_calls_in_flight_fail():
    outcome = trio.run(lambda: play("kill", rounds=2))
    assert outcome.calls > 1000


def test_after_sigkill_no_idempotent_call_fails():
    assert trio.run(lambda: play("kill", rounds=2, method="work_again")).failed == 0


def test_an_instance_that_is_stopped_for_3_s_fails_no_call():
    assert trio.run(lambda: play("freeze")).failed == 0


def test_calls_wait_while_all_instances_are_gone():
    assert trio.run(lambda: play("outage")).calls > 1000
