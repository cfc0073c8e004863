"""Fixtures for the tests of pools: a mock clock, and instances in memory."""

from __future__ import annotations

import pytest
from helpers.instances import FakeInstance
from trio.testing import MockClock


@pytest.fixture
def autojump_clock():
    """Make a mock clock that jumps when no task can run."""
    return MockClock(autojump_threshold=0)


@pytest.fixture
async def three(nursery):
    """Return three instances that serve."""
    instances = [FakeInstance(name) for name in ("a", "b", "c")]
    for each in instances:
        await nursery.start(each.serve)
    return instances
