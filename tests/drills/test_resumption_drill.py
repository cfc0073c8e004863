"""The drill of resumable sessions, with a few cuts. As a slow test, it has 200 cuts."""

from __future__ import annotations

import pytest
import trio
from resumption import KINDS, most_seconds, play

LONG = 200


@pytest.mark.parametrize("kind", KINDS)
def test_a_busy_session_survives_a_few_cuts(kind):
    traffic = trio.run(lambda: play(kind, cuts=8, seed=1))
    assert traffic["connections"] > 1


@pytest.mark.slow
@pytest.mark.timeout(most_seconds(LONG) + 30)
@pytest.mark.parametrize("kind", KINDS)
def test_a_busy_session_survives_many_cuts(kind):
    trio.run(lambda: play(kind, cuts=LONG, seed=2))
